//! Doorbells: who waits for work of a lane hears when some became ready.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::queue::contract::Mark;

/// One bell per lane. A bell counts its rings, so a ring between a claim and the wait that follows
/// it is not missed: the count is no longer the one the claim saw.
#[derive(Debug, Default)]
pub(super) struct Doorbells(Mutex<HashMap<String, watch::Sender<u64>>>);

impl Doorbells {
    fn bell<T>(&self, lane: &str, use_it: impl FnOnce(&watch::Sender<u64>) -> T) -> T {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !bells.contains_key(lane) {
            bells.insert(lane.to_owned(), watch::Sender::new(0));
        }
        use_it(&bells[lane])
    }

    /// Rings for work that is committed.
    pub(super) fn ring(&self, lane: &str) {
        self.bell(lane, |bell| bell.send_modify(|rings| *rings = rings.wrapping_add(1)));
    }

    /// What a claim has seen of a lane.
    pub(super) fn mark(&self, lane: &str) -> Mark {
        Mark(self.bell(lane, |bell| *bell.borrow()).to_string())
    }

    /// Returns when the bell rang after `mark`, or after `max`. The empty mark has seen nothing.
    pub(super) async fn wait(&self, lane: &str, mark: &Mark, max: Duration) {
        let seen: u64 = mark.0.parse().unwrap_or(0);
        let mut bell = self.bell(lane, watch::Sender::subscribe);
        // An elapsed `max` and a ring are answered alike: by asking for work.
        let _ = tokio::time::timeout(max, bell.wait_for(|rings| *rings != seen)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_ring_between_mark_and_wait_is_heard() {
        let bells = Doorbells::default();
        let mark = bells.mark("sms");
        bells.ring("sms");
        tokio::time::timeout(LONG / 2, bells.wait("sms", &mark, LONG)).await.unwrap();
    }

    #[tokio::test]
    async fn a_bell_is_heard_in_its_own_lane_only() {
        let bells = Doorbells::default();
        let mark = bells.mark("sms");
        bells.ring("slack");
        let waited = tokio::time::timeout(Duration::from_millis(20), bells.wait("sms", &mark, LONG)).await;
        assert!(waited.is_err());
    }
}
