//! The leases in hand, and the one task that renews them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::patience::Patience;
use crate::metrics::WorkerMetrics;
use crate::queue::contract::{LeaseKey, MAX_BATCH, Owner, Queue};

/// Every lease this process holds.
pub(super) struct Held {
    leases: Mutex<HashMap<LeaseKey, Instant>>,
    length: Duration,
}

/// One held lease; dropping it forgets the lease, whatever ended the work, panic included.
pub(super) struct Hold {
    held: Arc<Held>,
    key: LeaseKey,
}

impl Held {
    /// For leases of `length`.
    pub(super) fn new(length: Duration) -> Arc<Self> {
        Arc::new(Self { leases: Mutex::new(HashMap::new()), length })
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<LeaseKey, Instant>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.leases().len()
    }

    /// Keeps a lease that was asked for at `asked`.
    pub(super) fn hold(self: &Arc<Self>, key: LeaseKey, asked: Instant) -> Hold {
        self.leases().insert(key.clone(), asked + self.length);
        Hold { held: Arc::clone(self), key }
    }

    /// Renews everything held, three times per lease, until `stop`.
    pub(super) async fn renew(
        self: Arc<Self>,
        queue: Arc<dyn Queue>,
        owner: Owner,
        metrics: Arc<WorkerMetrics>,
        stop: CancellationToken,
    ) {
        let mut patience = Patience::new();
        while stop.run_until_cancelled(tokio::time::sleep(self.length / 3)).await.is_some() {
            let mut keys: Vec<LeaseKey> = self.leases().keys().cloned().collect();
            let part_of = |key: &LeaseKey| queue.part_of(&key.work.message);
            keys.sort_by_key(part_of);
            let mut failed = None;
            // A part of the store that is away is no reason to lose what is held of the others.
            for part in keys.chunk_by(|one, other| part_of(one) == part_of(other)) {
                for batch in part.chunks(MAX_BATCH) {
                    let asked = Instant::now();
                    match queue.renew(&owner, batch).await {
                        Ok(lost) => {
                            self.renewed(batch, &lost, asked);
                            metrics.leases_lost.inc_by(lost.len() as u64);
                        }
                        // The rest of this round has no better chance; the next one comes soon.
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
            }
            match failed {
                None => patience.reset(),
                Some(error) => patience.after("renewing leases", &error, &stop).await,
            }
        }
    }

    fn renewed(&self, batch: &[LeaseKey], lost: &[LeaseKey], asked: Instant) {
        let mut leases = self.leases();
        for key in batch {
            if lost.contains(key) {
                // Whoever has it in hand finds out before it starts to send.
                leases.remove(key);
            } else if let Some(until) = leases.get_mut(key) {
                *until = asked + self.length;
            }
        }
    }
}

impl Hold {
    /// Whether the lease is ours now, as far as we can know: renewed in time, and not reported lost.
    pub(super) fn is_ours(&self) -> bool {
        self.held.leases().get(&self.key).is_some_and(|until| Instant::now() < *until)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.leases().remove(&self.key);
    }
}
