//! Waiting for what is to come true.

use std::time::{Duration, Instant};

/// The longest anything may take: far more than it does, as a machine may be slow and have other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until it is true.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
