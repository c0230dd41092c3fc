//! Whether to route more messages while others wait to be routed.
//!
//! To route a message takes the store's time, which deliveries wait for, and a lane that has work ready gains
//! nothing by more of it. So a backlog is routed as fast as the lanes need it, and slowly beyond that: never
//! not at all, for only its route says how long a message may live, and which lane it is for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::delivery::ChannelId;

/// How many deliveries a lane is supplied with ahead of what it claims: it must not run dry while the next
/// batch is routed.
const AHEAD: i64 = 1024;

/// A lane that lacks work and gets none from so many batches in a row is most likely not meant by the
/// next one either.
const IN_VAIN: u32 = 4;

/// The longest that the next batch is put off: a million messages are routed in six and a half minutes all the
/// same, within the life of a code.
const LONGEST: Duration = Duration::from_millis(50);

/// How the lanes of a process are supplied.
pub(super) struct Appetite {
    lanes: Mutex<Vec<(ChannelId, Supply)>>,
    changed: Notify,
}

/// What one lane has.
#[derive(Clone, Copy, Debug)]
struct Supply {
    /// Whether its last claim left work ready.
    has_more: bool,
    /// Routed since its last claim that left none, less what was claimed.
    ahead: i64,
    /// Batches routed since then, or since the last one that held something for it.
    in_vain: u32,
}

impl Supply {
    /// Whether more would do it good.
    fn wants_more(self) -> bool {
        if self.has_more { self.ahead < AHEAD } else { self.in_vain < IN_VAIN }
    }
}

impl Appetite {
    /// Of these channels, none of which has work.
    pub(super) fn of(channels: impl Iterator<Item = ChannelId>) -> Self {
        let supply = Supply { has_more: false, ahead: 0, in_vain: 0 };
        Self {
            lanes: Mutex::new(channels.map(|channel| (channel, supply)).collect()),
            changed: Notify::new(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<(ChannelId, Supply)>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane claimed `count` deliveries; `has_more`: more are ready.
    pub(super) fn claimed(&self, channel: &ChannelId, count: usize, has_more: bool) {
        for (_, supply) in self.lanes().iter_mut().filter(|(lane, _)| lane == channel) {
            let ahead = supply.ahead - i64::try_from(count).unwrap_or(i64::MAX);
            let in_vain = if count > 0 { 0 } else { supply.in_vain };
            *supply = Supply { has_more, ahead: if has_more { ahead } else { 0 }, in_vain };
        }
        self.changed.notify_one();
    }

    /// A batch was routed, into one delivery for each of `channels`.
    pub(super) fn routed<'c>(&self, channels: impl Iterator<Item = &'c ChannelId>) {
        let mut lanes = self.lanes();
        for (_, supply) in lanes.iter_mut() {
            supply.in_vain = supply.in_vain.saturating_add(1);
        }
        for channel in channels {
            for (_, supply) in lanes.iter_mut().filter(|(lane, _)| lane == channel) {
                supply.ahead += 1;
                supply.in_vain = 0;
            }
        }
    }

    /// Whether the next batch can wait: some lane has too much, and none is likely to lack it.
    fn can_wait(&self) -> bool {
        let lanes = self.lanes();
        lanes.iter().any(|(_, supply)| supply.has_more)
            && !lanes.iter().any(|(_, supply)| supply.wants_more())
    }

    /// Waits until more should be routed.
    pub(super) async fn wait(&self) {
        let supplied = async {
            while self.can_wait() {
                self.changed.notified().await;
            }
        };
        let _ = tokio::time::timeout(LONGEST, supplied).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn appetite() -> Appetite {
        Appetite::of([ChannelId::sms(), ChannelId::slack()].into_iter())
    }

    fn route(appetite: &Appetite, channel: &ChannelId, count: i64) {
        appetite.routed((0..count).map(|_| channel));
    }

    #[test]
    fn lanes_that_lack_work_get_it_at_once() {
        let appetite = appetite();
        assert!(!appetite.can_wait());
        // However much was routed for nobody, or is on its way.
        for _ in 0..10 {
            route(&appetite, &ChannelId::sms(), 0);
        }
        route(&appetite, &ChannelId::sms(), 10 * AHEAD);
        assert!(!appetite.can_wait());
    }

    #[tokio::test]
    async fn lanes_that_have_work_get_as_much_as_they_claim() {
        let (appetite, sms, slack) = (appetite(), ChannelId::sms(), ChannelId::slack());
        for channel in [&sms, &slack] {
            appetite.claimed(channel, 0, true);
            route(&appetite, channel, AHEAD);
        }
        assert!(appetite.can_wait() && appetite.wait().now_or_never().is_none());
        appetite.claimed(&slack, 1, true);
        assert!(appetite.wait().now_or_never().is_some());
        route(&appetite, &slack, 1);
        appetite.claimed(&sms, 64, false);
        assert!(!appetite.can_wait(), "it has nothing left");
    }

    #[tokio::test]
    async fn a_lane_without_work_is_not_kept_waiting_for_long_by_one_that_has_too_much() {
        let (appetite, sms, slack) = (appetite(), ChannelId::sms(), ChannelId::slack());
        appetite.claimed(&sms, 64, true);
        for batch in 0..IN_VAIN {
            assert!(!appetite.can_wait(), "{batch}");
            route(&appetite, &sms, 2 * AHEAD);
        }
        assert!(appetite.can_wait());
        appetite.wait().await;
        route(&appetite, &slack, 1);
        assert!(!appetite.can_wait(), "there may be more for it");
    }
}
