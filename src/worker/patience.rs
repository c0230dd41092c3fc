//! Waiting while the store is away: growing, jittered, ended by the shutdown, and quiet.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::queue::contract::QueueError;

/// Paces one loop's repeated calls to a store that does not answer.
///
/// The back-end itself says once that the store went away and once that it is back, so a loop has
/// nothing to add at a level anybody reads.
pub(super) struct Patience {
    backoff: ExponentialBackoff,
}

impl Patience {
    /// From 100 ms up to 2 s: back at work within 5 s of the store's return, with one call in flight.
    pub(super) fn new() -> Self {
        let backoff = ExponentialBackoff {
            current_interval: Duration::from_millis(100),
            initial_interval: Duration::from_millis(100),
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: Duration::from_secs(2),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { backoff }
    }

    /// The store answered.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
    }

    /// Waits after `error`, or until `shutdown`.
    pub(super) async fn after(
        &mut self,
        doing: &'static str,
        error: &QueueError,
        shutdown: &CancellationToken,
    ) {
        tracing::debug!(doing, %error, "the store did not answer");
        let pause = self.backoff.next_backoff().unwrap_or(Duration::from_secs(2));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
