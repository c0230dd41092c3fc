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
pub(super) const LONGEST: Duration = Duration::from_millis(50);

/// The weight of a batch in what a message comes to on average.
const LATEST: f64 = 0.2;

/// A store that has handed nothing out in so many batches does not do so.
const NEVER: u32 = 16;

/// What a batch of messages came to in one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Supplied {
    /// Deliveries there was room for.
    pub(super) room: usize,
    /// Deliveries handed out with their routing.
    pub(super) handed_out: usize,
    /// Deliveries that wait to be claimed.
    pub(super) left: usize,
}

/// What one lane has.
#[derive(Clone, Copy, Debug)]
struct Supply {
    /// What a message comes to here, on average, of late.
    per_message: f64,
    /// Whether its last claim left work ready.
    has_more: bool,
    /// Routed since its last claim that left none, less what was claimed.
    ahead: i64,
    /// Batches routed since then, or since the last one that held something for it.
    in_vain: u32,
}

/// How the lanes of a process are supplied.
pub(super) struct Appetite {
    supplies: Mutex<Supplies>,
    changed: Notify,
}

#[derive(Debug)]
struct Supplies {
    lanes: Vec<(ChannelId, Supply)>,
    handing_out: HandingOut,
}

/// Whether the store is one that hands work out with its routing. It does so in a lane where nothing waits, so a lane
/// that has work is then not supplied with more ahead.
#[derive(Clone, Copy, Debug)]
enum HandingOut {
    /// It did.
    Does,
    /// It has not done so yet, in this many batches for which there was room in a lane without work.
    NotYet(u32),
}

impl HandingOut {
    /// What is not known yet is hoped for: it would not be found out otherwise.
    fn may_be(self) -> bool {
        match self {
            Self::Does => true,
            Self::NotYet(batches) => batches < NEVER,
        }
    }
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
        let supply = Supply { per_message: 0.0, has_more: false, ahead: 0, in_vain: 0 };
        let lanes = channels.map(|channel| (channel, supply)).collect();
        Self {
            supplies: Mutex::new(Supplies { lanes, handing_out: HandingOut::NotYet(0) }),
            changed: Notify::new(),
        }
    }

    fn supplies(&self) -> MutexGuard<'_, Supplies> {
        self.supplies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane claimed `count` deliveries; `has_more`: more are ready.
    pub(super) fn claimed(&self, channel: &ChannelId, count: usize, has_more: bool) {
        for (_, supply) in self.supplies().lanes.iter_mut().filter(|(lane, _)| lane == channel) {
            let ahead = supply.ahead - i64::try_from(count).unwrap_or(i64::MAX);
            supply.has_more = has_more;
            supply.ahead = if has_more { ahead } else { 0 };
            supply.in_vain = if count > 0 { 0 } else { supply.in_vain };
        }
        self.changed.notify_one();
    }

    /// So many messages were routed, and that `supplied` the lanes, in their order.
    pub(super) fn routed(&self, messages: usize, supplied: &[Supplied]) {
        let mut supplies = self.supplies();
        let mut lanes = supplies.lanes.iter().zip(supplied);
        let had_room = lanes.any(|((_, lane), supplied)| supplied.room > 0 && !lane.has_more);
        supplies.handing_out = match supplies.handing_out {
            _ if supplied.iter().any(|supplied| supplied.handed_out > 0) => HandingOut::Does,
            HandingOut::NotYet(batches) if had_room => HandingOut::NotYet(batches.saturating_add(1)),
            known => known,
        };
        for ((_, supply), Supplied { handed_out, left, .. }) in supplies.lanes.iter_mut().zip(supplied) {
            let made = handed_out + left;
            supply.per_message += LATEST * (made as f64 / messages.max(1) as f64 - supply.per_message);
            supply.ahead = supply.ahead.saturating_add(i64::try_from(*left).unwrap_or(i64::MAX));
            supply.in_vain = if made > 0 { 0 } else { supply.in_vain.saturating_add(1) };
        }
    }

    /// What a message comes to in each lane, on average; nothing where the store hands nothing out with its routing.
    pub(super) fn per_message(&self) -> Vec<f64> {
        let supplies = self.supplies();
        let of_lane = |(_, lane): &(ChannelId, Supply)| {
            if supplies.handing_out.may_be() { lane.per_message } else { 0.0 }
        };
        supplies.lanes.iter().map(of_lane).collect()
    }

    /// Whether a lane, by its number, has no work ready.
    pub(super) fn is_dry(&self, lane: usize) -> bool {
        self.supplies().lanes.get(lane).is_none_or(|(_, lane)| !lane.has_more)
    }

    /// Waits until it has none.
    pub(super) async fn runs_dry(&self, lane: usize) {
        while !self.is_dry(lane) {
            self.changed.notified().await;
        }
    }

    /// Whether the next batch can wait: some lane has too much, and none is likely to lack it. Where work is handed out
    /// with its routing it waits until the lanes have [run dry](Self::runs_dry).
    fn can_wait(&self) -> bool {
        let supplies = self.supplies();
        !supplies.handing_out.may_be()
            && supplies.lanes.iter().any(|(_, lane)| lane.has_more)
            && !supplies.lanes.iter().any(|(_, lane)| lane.wants_more())
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

    /// For a store that hands nothing out with its routing.
    fn appetite_alone() -> Appetite {
        let appetite = appetite();
        for _ in 0..NEVER {
            assert!(appetite.supplies().handing_out.may_be());
            appetite.routed(0, &[Supplied { room: 1, ..NOTHING }, NOTHING]);
        }
        for channel in [ChannelId::sms(), ChannelId::slack()] {
            appetite.claimed(&channel, 1, false);
        }
        assert!(!appetite.supplies().handing_out.may_be());
        appetite
    }

    const NOTHING: Supplied = Supplied { room: 0, handed_out: 0, left: 0 };

    fn left(left: usize) -> Supplied {
        Supplied { room: 0, handed_out: 0, left }
    }

    const A_BATCH: usize = AHEAD as usize;

    #[test]
    fn lanes_that_lack_work_get_it_at_once() {
        let appetite = appetite_alone();
        assert!(!appetite.can_wait());
        // However much was routed for nobody, or is on its way.
        for _ in 0..10 {
            appetite.routed(1, &[NOTHING, NOTHING]);
        }
        appetite.routed(1, &[left(10 * A_BATCH), NOTHING]);
        assert!(!appetite.can_wait());
    }

    #[tokio::test]
    async fn lanes_that_have_work_get_as_much_as_they_claim() {
        let (appetite, sms, slack) = (appetite_alone(), ChannelId::sms(), ChannelId::slack());
        for channel in [&sms, &slack] {
            appetite.claimed(channel, 0, true);
        }
        appetite.routed(1, &[left(A_BATCH), left(A_BATCH)]);
        assert!(appetite.can_wait() && appetite.wait().now_or_never().is_none());
        appetite.claimed(&slack, 1, true);
        assert!(appetite.wait().now_or_never().is_some());
        appetite.routed(1, &[NOTHING, left(1)]);
        appetite.claimed(&sms, 64, false);
        assert!(!appetite.can_wait(), "it has nothing left");
    }

    #[tokio::test]
    async fn a_lane_without_work_is_not_kept_waiting_for_long_by_one_that_has_too_much() {
        let (appetite, sms) = (appetite_alone(), ChannelId::sms());
        appetite.claimed(&sms, 64, true);
        for batch in 0..IN_VAIN {
            assert!(!appetite.can_wait(), "{batch}");
            appetite.routed(1, &[left(2 * A_BATCH), NOTHING]);
        }
        assert!(appetite.can_wait());
        appetite.wait().await;
        appetite.routed(1, &[NOTHING, left(1)]);
        assert!(!appetite.can_wait(), "there may be more for it");
    }

    #[test]
    fn a_lane_whose_work_is_handed_out_with_its_routing_is_to_run_dry_first() {
        let (appetite, sms, slack) = (appetite(), ChannelId::sms(), ChannelId::slack());
        assert_eq!(appetite.per_message(), [0.0, 0.0]);
        for _ in 0..100 {
            let (sms, slack) =
                (Supplied { room: 8, handed_out: 8, left: 0 }, Supplied { room: 4, handed_out: 3, left: 1 });
            appetite.routed(4, &[sms, slack]);
        }
        let per_message = appetite.per_message();
        assert!((per_message[0] - 2.0).abs() < 0.01 && (per_message[1] - 1.0).abs() < 0.01);
        for channel in [&sms, &slack] {
            appetite.claimed(channel, 64, true);
        }
        assert!(!appetite.can_wait(), "that is waited for otherwise");
        assert!(!appetite.is_dry(0) && appetite.runs_dry(0).now_or_never().is_none());
        appetite.claimed(&sms, 1, false);
        assert!(appetite.is_dry(0) && appetite.runs_dry(0).now_or_never().is_some());
        assert!(!appetite.is_dry(1));
    }
}
