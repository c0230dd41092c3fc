//! A store whose calls are timed and counted, whichever store it is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::contract::{
    Acceptance, Claim, Claimed, Cursor, Expanded, Expansion, Housekept, Lane, Lease, LeaseKey, Mark,
    NewMessage, Owner, Queue, QueueError, Room, Settle, Settled, Swept, Unrecorded,
};
use crate::message::MessageId;
use crate::metrics::{Call, QueueMetrics};

/// The store behind it, measured. Waiting for work is not: it takes as long as there is none.
pub struct MeasuredQueue {
    queue: Arc<dyn Queue>,
    metrics: Arc<QueueMetrics>,
}

impl MeasuredQueue {
    /// Measures `queue`.
    pub fn new(queue: Arc<dyn Queue>, metrics: Arc<QueueMetrics>) -> Self {
        Self { queue, metrics }
    }

    fn note<T>(&self, call: Call, began: Instant, result: &Result<T, impl Fault>) {
        let failure = result.as_ref().err().map(|fault| match fault.error() {
            QueueError::Unavailable(_) => "unavailable",
            QueueError::Exhausted(_) => "exhausted",
            QueueError::Unusable(_) => "unusable",
        });
        self.metrics.called(call, began.elapsed().as_secs_f64(), failure);
    }
}

/// What went wrong, with or without the batch it hands back.
trait Fault {
    fn error(&self) -> &QueueError;
}

impl Fault for QueueError {
    fn error(&self) -> &QueueError {
        self
    }
}

impl<T> Fault for Unrecorded<T> {
    fn error(&self) -> &QueueError {
        &self.error
    }
}

#[async_trait]
impl Queue for MeasuredQueue {
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
        let began = Instant::now();
        let result = self.queue.ping().await;
        self.note(Call::Ping, began, &result);
        result
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let began = Instant::now();
        let result = self.queue.accept(batch).await;
        self.note(Call::Accept, began, &result);
        result
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        let began = Instant::now();
        let result = self.queue.claim(claim).await;
        self.note(Call::Claim, began, &result);
        result
    }

    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        let began = Instant::now();
        let result = self.queue.expand_and_claim(owner, batch, room).await;
        self.note(Call::Expand, began, &result);
        result
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        let began = Instant::now();
        let result = self.queue.settle(owner, batch).await;
        self.note(Call::Settle, began, &result);
        result
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        let began = Instant::now();
        let result = self.queue.renew(owner, leases).await;
        self.note(Call::Renew, began, &result);
        result
    }

    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        let began = Instant::now();
        let result = self.queue.release(owner, leases).await;
        self.note(Call::Release, began, &result);
        result
    }

    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        let began = Instant::now();
        let result = self.queue.sweep(owner, lane, max, cursor).await;
        self.note(Call::Sweep, began, &result);
        result
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        let began = Instant::now();
        let result = self.queue.housekeep().await;
        self.note(Call::Housekeep, began, &result);
        result
    }

    async fn retire(&self, owner: &Owner) -> Result<(), QueueError> {
        self.queue.retire(owner).await
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        self.queue.wait(lane, mark, max).await
    }
}
