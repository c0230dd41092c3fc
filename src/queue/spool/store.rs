//! The file: the embedded queue, of which only the lane `in` is used.

use std::path::Path;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::delivery::{DeadCause, DeliveryId, Settlement};
use crate::queue::contract::{
    Acceptance, Claim, DeadFilter, Lane, LaneLimits, Lease, MAX_BATCH, NewMessage, Owner, Queue, QueueAdmin,
    QueueError, QueueSettings, Settle,
};
use crate::queue::embedded::EmbeddedQueue;

/// The file within the spool's folder.
const FILE: &str = "spool.db";

/// Longer than any batch is in hand. A spool has one forwarder, and its leases end with its process.
const LEASE: Duration = Duration::from_secs(600);

/// A message is kept until it is forwarded, past its own deadline too: where it belongs it becomes a
/// letter, here it would only vanish.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Begins what is kept: the form of the rest, which is the deadline (milliseconds from the receipt, eight
/// bytes, the highest first) and the payload.
const FORM: u8 = 1;

/// Messages kept on this machine's disk until the store takes them. Belongs to one process.
pub struct Spool {
    store: EmbeddedQueue,
    owner: Owner,
    clock: Clock,
}

/// A message in hand on its way to the store.
pub(super) struct Kept {
    pub(super) lease: Lease,
    message: NewMessage,
    received: Timestamp,
}

impl Kept {
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.received)
    }

    /// As the store is to take it at `now`.
    pub(super) fn message(&self, now: Timestamp) -> NewMessage {
        NewMessage { age: self.age(now), ..self.message.clone() }
    }
}

impl Spool {
    /// Opens the spool in `folder`, which is made if it is missing. It holds as many messages as
    /// `settings` allow the store. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedQueue::open`]: [`QueueError::Unusable`] when another process has it.
    pub fn open(folder: &Path, settings: &QueueSettings, clock: Clock) -> Result<Self, QueueError> {
        let kept = QueueSettings { lease: LEASE, dead_letter_cap: settings.capacity, ..settings.clone() };
        let of_the_spool = |error| match error {
            QueueError::Unavailable(why) => QueueError::Unavailable(format!("the spool: {why}")),
            QueueError::Exhausted(why) => QueueError::Exhausted(format!("the spool: {why}")),
            QueueError::Unusable(why) => QueueError::Unusable(format!("the spool: {why}")),
        };
        let store = EmbeddedQueue::open(&folder.join(FILE), kept, clock.clone()).map_err(of_the_spool)?;
        Ok(Self { store, owner: Owner::new("spool"), clock })
    }

    /// Keeps messages; what it answers [`Acceptance::Spooled`] is on the disk.
    pub(super) async fn keep(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let kept: Vec<NewMessage> = batch.iter().map(wrap).collect();
        let answers = self.store.accept(&kept).await?;
        let spooled = |answer| if answer == Acceptance::Accepted { Acceptance::Spooled } else { answer };
        Ok(answers.into_iter().map(spooled).collect())
    }

    /// Takes the oldest into hand; none if there are none.
    pub(super) async fn oldest(&self) -> Result<Vec<Kept>, QueueError> {
        loop {
            let lane = Lane::inbound();
            let (owner, limits) = (&self.owner, LaneLimits::default());
            let claim = Claim { owner, lane: &lane, max: MAX_BATCH, limits, busy: &[] };
            let claimed = self.store.claim(claim).await?;
            let mut oldest = Vec::with_capacity(claimed.items.len());
            for work in claimed.items {
                let received = work.accepted_at;
                let id = work.lease.key().work.message.clone();
                match unwrap(&work.payload) {
                    Some((deadline, payload)) => {
                        let payload = payload.to_vec();
                        let message = NewMessage { id, payload, deadline, age: Duration::ZERO };
                        oldest.push(Kept { lease: work.lease, message, received });
                    }
                    None => {
                        tracing::error!(message_id = %id, "a message in the spool cannot be read");
                        // Not `Poison`, which comes back.
                        let dead = Settlement::Dead { cause: DeadCause::Undecryptable, attempt: None };
                        self.settle(vec![Settle { lease: work.lease, settlement: dead }]).await?;
                    }
                }
            }
            // None is left behind: whatever was ended here is looked for when there is nothing else.
            if oldest.is_empty() && self.revive().await? > 0 {
                continue;
            }
            return Ok(oldest);
        }
    }

    /// Brings back what was in hand whenever the process was killed, and so suspected by a queue that runs its
    /// work; how much that is. A spool runs nothing: a kill is not the message's fault.
    async fn revive(&self) -> Result<u64, QueueError> {
        let filter = DeadFilter { cause: Some(DeadCause::Poison), ..DeadFilter::default() };
        let letters = self.store.dead_letters(&filter, MAX_BATCH).await?;
        let ids: Vec<DeliveryId> = letters.into_iter().map(|letter| letter.id).collect();
        self.store.requeue(&ids, FOR_EVER).await.map(|done| done.requeued)
    }

    /// Forgets what the store has; of each an identity is left, so that a repeat is known as one.
    pub(super) async fn forwarded(&self, leases: Vec<Lease>) -> Result<(), QueueError> {
        let delivered = |lease| Settle { lease, settlement: Settlement::Delivered };
        self.settle(leases.into_iter().map(delivered).collect()).await
    }

    async fn settle(&self, batch: Vec<Settle>) -> Result<(), QueueError> {
        // What is not recorded is in hand until the process ends, and is forwarded once more then.
        self.store.settle(&self.owner, batch).await.map(|_| ()).map_err(|unrecorded| unrecorded.error)
    }

    /// Puts back what was in hand.
    pub(super) async fn give_back(&self, leases: Vec<Lease>) -> Result<(), QueueError> {
        self.store.release(&self.owner, leases).await.map_err(|unrecorded| unrecorded.error)
    }

    /// Drops identities whose time is over.
    pub(super) async fn housekeep(&self) -> Result<(), QueueError> {
        while self.store.housekeep().await?.more {}
        Ok(())
    }

    /// How many messages it holds.
    pub async fn messages(&self) -> Result<u64, QueueError> {
        let stats = self.store.stats().await?;
        // What was suspected is about to come back; what cannot be read is not.
        let suspected = stats.dead_letters.iter().filter(|(cause, _)| *cause == DeadCause::Poison);
        let suspected: u64 = suspected.map(|(_, letters)| letters).sum();
        Ok(u64::try_from(stats.pending).unwrap_or(0) + suspected)
    }

    /// Whether it can keep anything: a round trip to its file.
    pub(super) async fn ping(&self) -> Result<(), QueueError> {
        self.store.ping().await
    }

    /// What broke it for good, if something did.
    pub fn failure(&self) -> Option<QueueError> {
        self.store.failure()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn wrap(message: &NewMessage) -> NewMessage {
    let deadline = u64::try_from(message.deadline.as_millis()).unwrap_or(u64::MAX);
    let mut payload = Vec::with_capacity(1 + 8 + message.payload.len());
    payload.push(FORM);
    payload.extend(deadline.to_be_bytes());
    payload.extend(&message.payload);
    NewMessage { id: message.id.clone(), payload, deadline: FOR_EVER, age: message.age }
}

fn unwrap(kept: &[u8]) -> Option<(Duration, &[u8])> {
    let rest = kept.strip_prefix(&[FORM])?;
    let (deadline, payload) = rest.split_first_chunk()?;
    Some((Duration::from_millis(u64::from_be_bytes(*deadline)), payload))
}
