//! Work that may have taken its worker down runs alone.
//!
//! Work handed out for the third time has seen two workers vanish. One of these may be in hand at a
//! time in a process; the others go back at once, so that a crash does not count against them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::queue::contract::{Lease, Owner, Queue, SUSPECT_HAND_OUTS, Work};

/// The one place for suspects in this process.
pub(super) struct Suspects {
    gate: Arc<Semaphore>,
}

/// Held while a suspect is in hand.
pub(super) type SuspectGuard = Option<OwnedSemaphorePermit>;

impl Suspects {
    pub(super) fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(1)) }
    }

    /// Keeps all unsuspected work and at most one suspect; gives the other suspects back *before*
    /// anything runs. Returns what to run, and whether anything was given back.
    pub(super) async fn admit(
        &self,
        queue: &dyn Queue,
        owner: &Owner,
        items: Vec<Work>,
    ) -> (Vec<(Work, SuspectGuard)>, bool) {
        let mut admitted = Vec::with_capacity(items.len());
        let mut refused: Vec<Lease> = Vec::new();
        for work in items {
            if work.handed_out < SUSPECT_HAND_OUTS {
                admitted.push((work, None));
            } else if let Ok(guard) = Arc::clone(&self.gate).try_acquire_owned() {
                tracing::warn!(
                    delivery = %work.lease.key().work, handed_out = work.handed_out,
                    "its workers vanished before: it runs alone"
                );
                admitted.push((work, Some(guard)));
            } else {
                refused.push(work.lease);
            }
        }
        let gave_back = !refused.is_empty();
        if gave_back && let Err(unrecorded) = queue.release(owner, refused).await {
            // Their leases run out and somebody sweeps them.
            tracing::debug!(error = %unrecorded.error, "suspects could not be given back");
        }
        (admitted, gave_back)
    }
}
