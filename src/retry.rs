//! The retry policy: pure, from what happened to what is to become of it.

use std::time::Duration;

/// How failed attempts are repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Delay after the first failure.
    pub base: Duration,
    /// What each further failure multiplies it by, at least 1.
    pub factor: f64,
    /// The longest delay, and the longest `Retry-After` that merely delays.
    pub cap: Duration,
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(30), max_attempts: 8 }
    }
}
