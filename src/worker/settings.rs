//! Settings of the worker.

use std::time::Duration;

use crate::queue::contract::LaneLimits;

/// Settings of the worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Attempts in flight at once, for each channel; slow ones are counted apart (see `slots`).
    pub concurrency: usize,
    /// How long a lease lasts without renewal; the same as the queue's.
    pub lease: Duration,
    /// How long it may take to finish what is in flight at the end.
    pub drain: Duration,
    /// Time from acceptance to the deadline, where the subscriber says nothing.
    pub deadline: Duration,
}

/// What the worker must know of one channel beside the channel itself.
#[derive(Clone, Debug)]
pub struct ChannelPlan {
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// Its rates.
    pub limits: LaneLimits,
}
