//! A queue whose store holds texts and recipients sealed (see [`crate::seal`]).
//!
//! Stands before any back-end, so that nothing above it sees an envelope and nothing below it a text.
//! Always there: without keys it seals nothing, and still buries what it cannot open.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadCause, DeliveryId, Outcome, Reason, Settlement};
use crate::message::MessageId;
use crate::queue::contract::{
    Acceptance, Buried, Claim, Claimed, Cursor, DeadFilter, DeadLetter, DeadLetterText, Expanded, Expansion,
    Housekept, Lane, Lease, LeaseKey, MAX_BATCH, Mark, MessageStatus, NewDelivery, NewMessage, Owner, Queue,
    QueueAdmin, QueueError, Requeued, Room, Settle, Settled, Stats, Swept, Unrecorded, Work,
};
use crate::quiet::Quiet;
use crate::seal::{Binding, Keyring, Nonce, Part, Unopened, is_sealed};

/// A back-end, and the keys to what it holds.
///
/// Work that cannot be opened is not handed out: it is in the answer's `buried`, and a dead letter with
/// [`DeadCause::Undecryptable`] that may be requeued once the key is there. Where the message can be opened
/// and only the recipient cannot, the work is handed out with the recipient as it is stored: the message can
/// be routed again. A sealed message takes no unsealed recipient (it comes out empty): else whoever may
/// write to the store could have texts sent where they like.
pub struct Sealed<Q: ?Sized> {
    inner: Arc<Q>,
    keys: Keyring,
    shard: u16,
    quiet: Quiet,
}

impl<Q: ?Sized> Sealed<Q> {
    /// Puts `keys` before `inner`, which is the partition `shard` of its store.
    pub fn new(inner: Arc<Q>, keys: Keyring, shard: u16) -> Self {
        Self { inner, keys, shard, quiet: Quiet::default() }
    }

    fn binding<'a>(&self, message: &'a MessageId, part: Part) -> Binding<'a> {
        Binding { shard: self.shard, message, part }
    }

    fn seal_message(&self, message: &NewMessage) -> NewMessage {
        let binding = self.binding(&message.id, Part::Message);
        let payload = self.keys.seal(binding, Nonce::fresh(), &message.payload);
        NewMessage { id: message.id.clone(), payload, deadline: message.deadline, age: message.age }
    }

    fn seal_delivery(&self, message: &MessageId, index: u16, delivery: &NewDelivery) -> NewDelivery {
        let recipient = self.binding(message, Part::Recipient(index));
        NewDelivery {
            channel: delivery.channel.clone(),
            destination: delivery.destination.clone(),
            label: self.keys.seal_text(self.binding(message, Part::Label), Nonce::fresh(), &delivery.label),
            recipient: self.keys.seal(recipient, Nonce::fresh(), &delivery.recipient),
        }
    }

    /// Opens what work carries, in its place. Only a message that cannot be opened is an error.
    fn open(&self, work: &mut Work) -> Result<(), Unopened> {
        let delivery = work.lease.key().work.clone();
        let was_sealed = is_sealed(&work.payload);
        let opened = owned(self.keys.open(self.binding(&delivery.message, Part::Message), &work.payload)?);
        work.payload = opened.unwrap_or_else(|| std::mem::take(&mut work.payload));
        if delivery.index == 0 {
            return Ok(());
        }
        let place = self.binding(&delivery.message, Part::Recipient(delivery.index));
        let opened = if was_sealed && !is_sealed(&work.recipient) {
            Err(Unopened::Unsealed)
        } else {
            self.keys.open(place, &work.recipient)
        };
        match opened {
            Ok(Cow::Owned(opened)) => work.recipient = opened,
            Ok(Cow::Borrowed(_)) => {}
            Err(why) => {
                self.tell("a recipient cannot be opened", &delivery, &why);
                if !is_sealed(&work.recipient) {
                    work.recipient = Vec::new();
                }
            }
        }
        Ok(())
    }

    fn tell(&self, what: &'static str, delivery: &DeliveryId, why: &Unopened) {
        if let Some(left_out) = self.quiet.admits(what, Instant::now()) {
            tracing::error!(message_id = %delivery.message, %delivery, %why, left_out, "{what}");
        }
    }

    fn open_label(&self, message: &MessageId, label: &mut Option<String>) {
        let Some(stored) = label.take() else { return };
        let opened = self.keys.open_text(self.binding(message, Part::Label), &stored);
        *label = opened.ok().map(Cow::into_owned);
    }
}

fn owned(value: Cow<'_, [u8]>) -> Option<Vec<u8>> {
    match value {
        Cow::Owned(opened) => Some(opened),
        Cow::Borrowed(_) => None,
    }
}

impl<Q: Queue + ?Sized> Sealed<Q> {
    /// What of `items` can be opened, opened; the rest is buried.
    async fn open_all(
        &self,
        owner: &Owner,
        items: Vec<Work>,
        now: Timestamp,
        buried: &mut Vec<Buried>,
    ) -> Vec<Work> {
        let mut opened = Vec::with_capacity(items.len());
        let mut unopened = Vec::new();
        for mut work in items {
            match self.open(&mut work) {
                Ok(()) => opened.push(work),
                Err(why) => unopened.push((work, why)),
            }
        }
        if !unopened.is_empty() {
            buried.extend(self.bury(owner, unopened, now).await);
        }
        opened
    }

    async fn bury(&self, owner: &Owner, unopened: Vec<(Work, Unopened)>, now: Timestamp) -> Vec<Buried> {
        let (mut batch, mut ends) = (Vec::new(), Vec::new());
        for (work, why) in unopened {
            self.tell("a message cannot be opened", &work.lease.key().work, &why);
            let outcome =
                Outcome::Permanent { reason: Reason::Unreadable, status: None, code: Some(why.code()) };
            ends.push(Buried {
                delivery: work.lease.key().work.clone(),
                lane: work.lease.key().lane.clone(),
                subscriber: work.subscriber,
                cause: DeadCause::Undecryptable,
                attempts: work.attempts + 1,
            });
            let attempt = Attempt::of(&outcome, now);
            let settlement = Settlement::Dead { cause: DeadCause::Undecryptable, attempt };
            batch.push(Settle { lease: work.lease, settlement });
        }
        debug_assert!(batch.len() <= MAX_BATCH, "a hand-out is no larger");
        match self.inner.settle(owner, batch).await {
            Ok(settled) => {
                let ended = ends.into_iter().zip(settled);
                ended.filter(|(_, settled)| matches!(settled, Settled::Dead(_))).map(|(end, _)| end).collect()
            }
            // Their leases run out, and who takes them over tries again.
            Err(_) => Vec::new(),
        }
    }
}

#[async_trait]
impl<Q: Queue + ?Sized> Queue for Sealed<Q> {
    fn parts(&self) -> usize {
        self.inner.parts()
    }

    fn part_of(&self, message: &MessageId) -> usize {
        self.inner.part_of(message)
    }

    async fn prepare(&self) -> Result<(), QueueError> {
        self.inner.prepare().await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.inner.ping().await
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        if self.keys.is_empty() {
            return self.inner.accept(batch).await;
        }
        let sealed: Vec<NewMessage> = batch.iter().map(|message| self.seal_message(message)).collect();
        self.inner.accept(&sealed).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        let owner = claim.owner;
        let mut claimed = self.inner.claim(claim).await?;
        let handed_out = claimed.items.len();
        claimed.items = self.open_all(owner, claimed.items, claimed.now, &mut claimed.buried).await;
        if claimed.items.len() < handed_out {
            // What was not opened took the place of what could be.
            claimed.wait = Some(Duration::ZERO);
        }
        Ok(claimed)
    }

    async fn expand_and_claim(
        &self,
        owner: &Owner,
        mut batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        if self.keys.is_empty() {
            return self.inner.expand_and_claim(owner, batch, room).await;
        }
        // Who gets them back after a failure gets them as they came.
        let mut plain = Vec::with_capacity(batch.len());
        for expansion in &mut batch {
            let message = &expansion.lease.key().work.message;
            let sealed = (1..).zip(&expansion.deliveries);
            let sealed =
                sealed.map(|(index, delivery)| self.seal_delivery(message, index, delivery)).collect();
            plain.push(std::mem::replace(&mut expansion.deliveries, sealed));
        }
        let expanded = self.inner.expand_and_claim(owner, batch, room).await;
        expanded.map_err(|mut unrecorded| {
            for (expansion, deliveries) in unrecorded.batch.iter_mut().zip(plain) {
                expansion.deliveries = deliveries;
            }
            unrecorded
        })
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        self.inner.settle(owner, batch).await
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        self.inner.renew(owner, leases).await
    }

    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        self.inner.release(owner, leases).await
    }

    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        let mut swept = self.inner.sweep(owner, lane, max, cursor).await?;
        swept.items = self.open_all(owner, swept.items, swept.now, &mut swept.buried).await;
        Ok(swept)
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        self.inner.housekeep().await
    }

    async fn retire(&self, owner: &Owner) -> Result<(), QueueError> {
        self.inner.retire(owner).await
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        self.inner.wait(lane, mark, max).await
    }
}

#[async_trait]
impl<Q: QueueAdmin + ?Sized> QueueAdmin for Sealed<Q> {
    async fn stats(&self) -> Result<Stats, QueueError> {
        self.inner.stats().await
    }

    async fn status(&self, id: &MessageId) -> Result<Option<MessageStatus>, QueueError> {
        let mut found = self.inner.status(id).await?;
        for delivery in found.iter_mut().flat_map(|status| &mut status.deliveries) {
            self.open_label(id, &mut delivery.destination);
        }
        Ok(found)
    }

    async fn dead_letters(&self, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let mut letters = self.inner.dead_letters(filter, limit).await?;
        for letter in &mut letters {
            self.open_label(&letter.id.message, &mut letter.destination);
        }
        Ok(letters)
    }

    /// Text that cannot be opened is in the answer as it is stored: it is not gone.
    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError> {
        let Some(mut found) = self.inner.dead_letter(id).await? else { return Ok(None) };
        self.open_label(&id.message, &mut found.letter.destination);
        if let Some(stored) = &found.payload
            && let Ok(Cow::Owned(opened)) = self.keys.open(self.binding(&id.message, Part::Message), stored)
        {
            found.payload = Some(opened);
        }
        Ok(Some(found))
    }

    async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError> {
        self.inner.requeue(ids, deadline).await
    }

    async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError> {
        self.inner.purge(ids).await
    }

    async fn audit(&self) -> Result<Vec<String>, QueueError> {
        self.inner.audit().await
    }

    async fn repair(&self) -> Result<Vec<String>, QueueError> {
        self.inner.repair().await
    }
}
