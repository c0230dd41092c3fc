//! The store's handle: opening it, and the workers' side of the port.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::doorbell::Doorbells;
use super::fault::Health;
use super::file::{self, Opened};
use super::handout::{self, Asked};
use super::housekeeping;
use super::intake;
use super::mending::Watch;
use super::outcome;
use super::owners::Owners;
use super::reader::{self, Reader};
use super::upkeep::Upkeep;
use super::writer::{self, Writer};
use crate::clock::Clock;
use crate::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, Expanded, Expansion, Housekept, Lane, Lease, LeaseKey, Mark,
    NewMessage, Owner, Queue, QueueError, QueueSettings, Room, Settle, Settled, Swept, Unrecorded,
};

/// The queue in a file of this machine.
///
/// What it answers is on the disk: every change is in a transaction that was synced before the call
/// returned. Dropping it lets calls under way finish, folds the log into the file and closes it, which
/// blocks for as long as one write to the disk takes.
pub struct EmbeddedQueue {
    // In the order in which they are to be dropped: the writer closes the file last, and only then
    // may another service have it.
    pub(super) reader: reader::Desk,
    pub(super) writer: writer::Desk,
    bells: Arc<Doorbells>,
    health: Arc<Health>,
    commits: Arc<AtomicU64>,
    _lock: Option<File>,
}

impl EmbeddedQueue {
    /// Opens the queue in the file `path` for the one service it belongs to. Makes the file (mode
    /// 0600) and its folder when they are missing, and makes work ready that a service which ended
    /// without settling it had in hand.
    ///
    /// Blocks on the disk: a file of up to 256 MiB is looked through first.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unusable`] when another service has it, when it is damaged, another program's or
    /// a newer version's (the file is then left as it is), or when the file system refuses;
    /// [`QueueError::Exhausted`] when there is no space for it.
    pub fn open(path: &Path, settings: QueueSettings, clock: Clock) -> Result<Self, QueueError> {
        Self::start(file::open_for_service(path)?, settings, clock)
    }

    /// Opens the queue in the file `path` beside its service, or while there is none: to look, and for
    /// short changes. Work in hand stays in hand. Nobody who waits in the service hears of what this
    /// handle makes ready before their wait is over.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unavailable`] when there is no such file; else as [`EmbeddedQueue::open`].
    pub fn open_beside(path: &Path, settings: QueueSettings, clock: Clock) -> Result<Self, QueueError> {
        Self::start(file::open_beside(path)?, settings, clock)
    }

    fn start(opened: Opened, settings: QueueSettings, clock: Clock) -> Result<Self, QueueError> {
        let bells = Arc::new(Doorbells::default());
        let health = Arc::new(Health::default());
        let commits = Arc::new(AtomicU64::new(0));
        let no_thread = |_| QueueError::Unavailable("no thread for it can be started".to_owned());
        let writer = Writer {
            connection: opened.writer,
            settings: settings.clone(),
            clock: clock.clone(),
            bells: Arc::clone(&bells),
            health: Arc::clone(&health),
            commits: Arc::clone(&commits),
            upkeep: opened.identity.map(Upkeep::begin),
            watch: Watch::default(),
            owners: Owners::default(),
            mended: false,
        };
        let writer = writer.start().map_err(no_thread)?;
        let reader = Reader { connection: opened.reader, settings, clock, health: Arc::clone(&health) };
        let reader = reader.start().map_err(no_thread)?;
        Ok(Self { reader, writer, bells, health, commits, _lock: opened.lock })
    }

    /// What broke the store for good, if something did: a write that failed, or damage found in the
    /// file. Every call answers with it from then on, and the service should stop; what was answered
    /// before is on the disk.
    pub fn failure(&self) -> Option<QueueError> {
        self.health.check().err()
    }

    /// Transactions written since it was opened. Calls that come together share one.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    /// Opening has made sure of everything; this only sees whether it still works.
    async fn prepare(&self) -> Result<(), QueueError> {
        self.ping().await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        self.writer.ask(|_| Ok(())).await
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let batch: Arc<[NewMessage]> = batch.into();
        let to_accept = Arc::clone(&batch);
        let accepted = self.writer.ask_to_fill(move |step| intake::accept(step, &to_accept)).await;
        let Err(QueueError::Exhausted(why)) = accepted else { return accepted };
        // Whoever repeats himself has nothing to wait for.
        match self.writer.ask(move |step| intake::only_known(step, &batch)).await {
            Ok(Some(answers)) => Ok(answers),
            _ => Err(QueueError::Exhausted(why)),
        }
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        let asked = Asked::from(claim);
        self.writer.ask(move |step| handout::claim(step, &asked)).await
    }

    async fn expand_and_claim(
        &self,
        _owner: &Owner,
        batch: Vec<Expansion>,
        _room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        let work = |step: &mut writer::Step<'_>, batch: &Vec<Expansion>| {
            let settled = intake::expand(step, batch)?;
            Ok(Expanded { settled, handed_out: Vec::new(), now: step.now })
        };
        let (batch, answer) = self.writer.ask_with(batch, work).await;
        answer.map_err(|error| Unrecorded { batch, error })
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        let owner = owner.as_str().to_owned();
        let work =
            move |step: &mut writer::Step<'_>, batch: &Vec<Settle>| outcome::settle(step, &owner, batch);
        let (batch, answer) = self.writer.ask_with(batch, work).await;
        answer.map_err(|error| Unrecorded { batch, error })
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        let (owner, leases) = (owner.as_str().to_owned(), leases.to_vec());
        self.writer.ask(move |step| outcome::renew(step, &owner, &leases)).await
    }

    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        let owner = owner.as_str().to_owned();
        let work =
            move |step: &mut writer::Step<'_>, batch: &Vec<Lease>| outcome::release(step, &owner, batch);
        let (batch, answer) = self.writer.ask_with(leases, work).await;
        answer.map_err(|error| Unrecorded { batch, error })
    }

    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        _cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        let (owner, lane) = (owner.as_str().to_owned(), lane.as_str().to_owned());
        self.writer.ask(move |step| handout::sweep(step, &owner, &lane, max)).await
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        self.writer.ask(housekeeping::housekeep).await
    }

    /// Owners are nothing but names on leases, so there is nothing to forget.
    async fn retire(&self, _owner: &Owner) -> Result<(), QueueError> {
        self.health.check()
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        self.health.check()?;
        self.bells.wait(lane.as_str(), mark, max).await;
        Ok(())
    }
}
