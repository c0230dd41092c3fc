//! One server: a connection for each role, and what is known of what stands at their end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::doorbell::Doorbells;
use super::finder::Finder;
use super::link::{Link, Source};
use super::prepare::Looked;
use super::settings::Durability;

/// The way to a server. Shards that are on the same one share it.
pub(super) struct Server {
    pub(super) source: Arc<Source>,
    /// The worker's calls.
    pub(super) work: Link,
    /// Acceptance: never behind a worker's large batch.
    pub(super) intake: Link,
    /// The operator's calls, and those that look at everything.
    pub(super) operator: Link,
    pub(super) doorbells: Doorbells,
    pub(super) durability: Durability,
    /// Whether it was said that nothing survives the server's end.
    pub(super) warned_of_no_aof: AtomicBool,
    /// The same of a replica that is wanted and not there.
    pub(super) warned_of_no_replica: AtomicBool,
    /// What was seen of it, if it was looked at.
    pub(super) looked: Mutex<Option<Looked>>,
    /// Whether somebody is knocking at a server that is away.
    is_knocked_at: AtomicBool,
}

impl Server {
    /// The one that `finder` finds. Connects to nothing yet.
    pub(super) fn new(finder: Finder, durability: Durability) -> Self {
        let source = Arc::new(Source::new(finder));
        Self {
            work: Link::new(Arc::clone(&source)),
            intake: Link::new(Arc::clone(&source)),
            operator: Link::new(Arc::clone(&source)),
            doorbells: Doorbells::new(Arc::clone(&source)),
            source,
            durability,
            warned_of_no_aof: AtomicBool::new(false),
            warned_of_no_replica: AtomicBool::new(false),
            looked: Mutex::default(),
            is_knocked_at: AtomicBool::new(false),
        }
    }

    /// The right to knock, `None` while somebody else does.
    pub(super) fn knock(self: &Arc<Self>) -> Option<Knock> {
        let is_ours = !self.is_knocked_at.swap(true, Ordering::Relaxed);
        is_ours.then(|| Knock(Arc::clone(self)))
    }
}

/// Held while somebody asks a server that is away whether it is back.
pub(super) struct Knock(Arc<Server>);

impl Drop for Knock {
    fn drop(&mut self) {
        self.0.is_knocked_at.store(false, Ordering::Relaxed);
    }
}
