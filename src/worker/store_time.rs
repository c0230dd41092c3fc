//! The store's time, as a worker may know it.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;

/// What time it is at the store: its answer to a call, and the local monotonic time since.
///
/// Counted from *before* the call, so the estimate is never behind the store's clock: a worker gives
/// up a moment early rather than send a moment late.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreTime {
    at_store: Timestamp,
    asked: Instant,
}

impl StoreTime {
    /// The store said it was `at_store` in answer to a question asked at `asked`.
    pub(super) fn new(at_store: Timestamp, asked: Instant) -> Self {
        Self { at_store, asked }
    }

    /// The store's time now.
    pub(super) fn now(&self) -> Timestamp {
        self.at_store.plus(self.asked.elapsed())
    }

    /// Time left until `deadline`; zero when it passed.
    pub(super) fn until(&self, deadline: Timestamp) -> Duration {
        deadline.since(self.now())
    }
}
