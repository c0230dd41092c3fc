//! A store with a spool beside it: what the one cannot take now the other keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::store::Spool;
use crate::message::MessageId;
use crate::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, Expanded, Expansion, Housekept, Lane, Lease, LeaseKey, Mark,
    NewMessage, Owner, Queue, QueueError, Room, Settle, Settled, Swept, Unrecorded,
};

/// A store that takes longer is as good as away; whoever waits is answered by the spool in time.
const LONGEST: Duration = Duration::from_secs(1);

/// A store with a spool beside it. Everything but acceptance is the store's alone.
///
/// Once the store has failed, new messages go to the spool at once, until the forwarder has found the
/// store back. What the store then takes directly may overtake what is still in the spool: a code that
/// comes now is worth more than one that waited.
pub struct SpoolingQueue {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) spool: Spool,
    is_away: AtomicBool,
    /// Rings when something was kept.
    pub(super) kept: Notify,
}

impl SpoolingQueue {
    /// Puts `spool` beside `queue`. Nothing is forwarded before [`SpoolingQueue::forward`] runs.
    pub fn new(queue: Arc<dyn Queue>, spool: Spool) -> Self {
        Self { queue, spool, is_away: AtomicBool::new(false), kept: Notify::new() }
    }

    /// The spool.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Whether new messages go to the spool now.
    pub fn is_spooling(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Whether messages can be taken, and how: directly (`false`) or by way of the spool (`true`).
    ///
    /// # Errors
    ///
    /// When neither can take any.
    pub async fn can_take(&self) -> Result<bool, QueueError> {
        if !self.is_spooling() && self.queue.ping().await.is_ok() {
            return Ok(false);
        }
        self.spool.ping().await.map(|()| true)
    }

    pub(super) fn store_is_away(&self, why: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "messages are kept in the spool");
            // The forwarder looks when the store is back.
            self.kept.notify_one();
        }
    }

    pub(super) fn store_is_back(&self) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("messages go to the store again");
        }
    }

    async fn keep(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let answers = self.spool.keep(batch).await;
        self.kept.notify_one();
        answers
    }

    /// Keeps those that the store had no room for.
    async fn keep_the_rest(
        &self,
        batch: &[NewMessage],
        mut answers: Vec<Acceptance>,
    ) -> Result<Vec<Acceptance>, QueueError> {
        let refused = batch.iter().zip(&answers).filter(|(_, answer)| **answer == Acceptance::Full);
        let refused: Vec<NewMessage> = refused.map(|(message, _)| message.clone()).collect();
        if !refused.is_empty() {
            let kept = self.keep(&refused).await?;
            let full = answers.iter_mut().filter(|answer| **answer == Acceptance::Full);
            full.zip(kept).for_each(|(answer, kept)| *answer = kept);
        }
        Ok(answers)
    }
}

#[async_trait]
impl Queue for SpoolingQueue {
    fn parts(&self) -> usize {
        self.queue.parts()
    }

    fn part_of(&self, message: &MessageId) -> usize {
        self.queue.part_of(message)
    }

    async fn prepare(&self) -> Result<(), QueueError> {
        self.queue.prepare().await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.queue.ping().await
    }

    /// Stores what the store takes and keeps the rest. An error is the spool's.
    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        if !self.is_spooling() {
            match timeout(LONGEST, self.queue.accept(batch)).await {
                Ok(Ok(answers)) => return self.keep_the_rest(batch, answers).await,
                // It may be stored all the same: then the store knows it when it is forwarded.
                Ok(Err(error)) => self.store_is_away(&error.to_string()),
                Err(_) => self.store_is_away("no answer in time"),
            }
        }
        self.keep(batch).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        self.queue.claim(claim).await
    }

    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        self.queue.expand_and_claim(owner, batch, room).await
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        self.queue.settle(owner, batch).await
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        self.queue.renew(owner, leases).await
    }

    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        self.queue.release(owner, leases).await
    }

    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        self.queue.sweep(owner, lane, max, cursor).await
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        self.queue.housekeep().await
    }

    async fn retire(&self, owner: &Owner) -> Result<(), QueueError> {
        self.queue.retire(owner).await
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        self.queue.wait(lane, mark, max).await
    }
}
