//! A real store whose `accept` can be made to fail in every way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, Expanded, Expansion, Housekept, Lane, Lease, LeaseKey, Mark,
    NewMessage, Owner, Queue, QueueAdmin, QueueError, QueueSettings, Room, Settle, Settled, Swept,
    Unrecorded,
};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::wire::guarded;

/// What `accept` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// Waits until the mood changes, then is fine.
    Held,
    Away,
    Hangs,
    Panics,
    Exhausted,
    Unusable,
    /// Answers fewer than it was asked.
    Miscounts,
}

pub(crate) struct MoodyStore {
    inner: EmbeddedQueue,
    mood: watch::Sender<Mood>,
    calls: Mutex<Vec<usize>>,
    changed: watch::Sender<usize>,
    _folder: TempDir,
}

impl MoodyStore {
    pub(crate) fn new(capacity: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = QueueSettings { capacity, ..QueueSettings::default() };
        let inner = EmbeddedQueue::open(&folder.path().join("queue.db"), settings, Clock::system()).unwrap();
        Self {
            inner,
            mood: watch::Sender::new(Mood::Fine),
            calls: Mutex::default(),
            changed: watch::Sender::new(0),
            _folder: folder,
        }
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many messages each call brought, so far.
    pub(crate) fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many calls were made.
    pub(crate) async fn called(&self, times: usize) {
        guarded(self.changed.subscribe().wait_for(|calls| *calls >= times)).await.unwrap();
    }

    pub(crate) async fn has(&self, sid: &str) -> bool {
        self.inner.status(&MessageId::twilio(sid).unwrap()).await.unwrap().is_some()
    }

    /// Messages accepted and duplicates.
    pub(crate) async fn counts(&self) -> (u64, u64) {
        let stats = self.inner.stats().await.unwrap();
        (stats.accepted, stats.duplicates)
    }
}

#[async_trait]
impl Queue for MoodyStore {
    async fn prepare(&self) -> Result<(), QueueError> {
        self.inner.prepare().await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.inner.ping().await
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let calls = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push(batch.len());
            calls.len()
        };
        self.changed.send_replace(calls);
        let mood = *self.mood.borrow();
        match mood {
            Mood::Fine => {}
            Mood::Held => {
                let _ = self.mood.subscribe().wait_for(|mood| *mood != Mood::Held).await;
            }
            Mood::Away => return Err(QueueError::Unavailable("away".to_owned())),
            Mood::Hangs => std::future::pending().await,
            Mood::Panics => panic!("a store that panics, as this test wants it"),
            Mood::Exhausted => return Err(QueueError::Exhausted("out of memory".to_owned())),
            Mood::Unusable => return Err(QueueError::Unusable("corrupt".to_owned())),
            Mood::Miscounts => return Ok(Vec::new()),
        }
        self.inner.accept(batch).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        self.inner.claim(claim).await
    }

    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        self.inner.expand_and_claim(owner, batch, room).await
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
        self.inner.sweep(owner, lane, max, cursor).await
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
