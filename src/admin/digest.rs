//! What is worked out from the store's answers: the sums over its lanes, and where a message stands.

use serde::Serialize;

use crate::delivery::DeliveryState;
use crate::queue::contract::{LaneDepth, MessageStatus, Stats};

/// The counts of the whole store, lanes together. Its serialised form is `stats --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Messages accepted since the store was made.
    pub accepted: u64,
    /// Duplicates turned away since then.
    pub duplicates: u64,
    /// What became of the deliveries.
    pub deliveries: DeliveryTotals,
    /// Work that may be handed out.
    pub ready: u64,
    /// Work in hand.
    pub leased: u64,
    /// Work that waits for its time.
    pub delayed: u64,
    /// Dead letters that can be shown.
    pub dead_letters: u64,
    /// Age of the oldest ready work of any lane, in seconds to the millisecond; 0 without any.
    pub oldest_ready_age_s: f64,
}

/// Deliveries by where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryTotals {
    /// The provider has them.
    pub delivered: u64,
    /// Given up, but for the expired.
    pub dead: u64,
    /// Given up at their deadline.
    pub expired: u64,
    /// Not ended; a message that is not routed is one. Below zero only in a store that was tampered with.
    pub pending: i64,
}

impl Totals {
    /// Sums the lanes up.
    pub fn of(stats: &Stats) -> Self {
        let sum = |part: fn(&LaneDepth) -> u64| stats.lanes.iter().map(part).sum();
        let oldest = stats.lanes.iter().map(|lane| lane.oldest_ready_age_s).fold(0.0, f64::max);
        Self {
            accepted: stats.accepted,
            duplicates: stats.duplicates,
            deliveries: DeliveryTotals {
                delivered: stats.delivered,
                dead: stats.dead,
                expired: stats.expired,
                pending: stats.pending,
            },
            ready: sum(|lane| lane.ready),
            leased: sum(|lane| lane.leased),
            delayed: sum(|lane| lane.delayed),
            dead_letters: stats.dead_letters.iter().map(|(_, kept)| kept).sum(),
            oldest_ready_age_s: (oldest * 1_000.0).round() / 1_000.0,
        }
    }
}

/// Where a message stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Stored and not routed yet.
    Accepted,
    /// Routed, and deliveries are under way.
    Expanded,
    /// Nothing is under way.
    Done,
}

impl MessageState {
    /// Works it out. A message whose routing died is done: nothing of it is under way.
    pub fn of(message: &MessageStatus) -> Self {
        let pending = message.deliveries.iter().any(|delivery| delivery.state == DeliveryState::Pending);
        let routing_died = !message.deliveries.is_empty() && !pending;
        match (message.expanded, pending) {
            (false, _) if !routing_died => Self::Accepted,
            (_, true) => Self::Expanded,
            (_, false) => Self::Done,
        }
    }

    /// The word used in JSON and on the screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Expanded => "expanded",
            Self::Done => "done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::delivery::DeadCause;
    use crate::message::MessageId;
    use crate::queue::contract::DeliveryStatus;

    #[test]
    fn lanes_are_summed_and_the_oldest_counts() {
        let lane = |name: &str, ready, oldest_ready_age_s| LaneDepth {
            lane: name.to_owned(),
            ready,
            leased: 2,
            delayed: 3,
            oldest_ready_age_s,
            paused: 1,
        };
        let stats = Stats {
            accepted: 9,
            pending: 17,
            lanes: vec![lane("in", 1, 0.25), lane("sms", 5, 12.345_6), lane("slack", 0, 0.0)],
            dead_letters: vec![(DeadCause::Exhausted, 4), (DeadCause::Expired, 2)],
            ..Stats::default()
        };
        let totals = Totals::of(&stats);
        assert_eq!((totals.ready, totals.leased, totals.delayed), (6, 6, 9));
        assert_eq!((totals.dead_letters, totals.oldest_ready_age_s), (6, 12.346));
        assert_eq!(Totals::of(&Stats::default()).oldest_ready_age_s, 0.0);
    }

    #[test]
    fn a_message_is_accepted_then_expanded_then_done() {
        let state = |expanded, states: &[DeliveryState]| {
            let deliveries = states.iter().map(|&state| DeliveryStatus {
                channel: "sms".to_owned(),
                destination: None,
                state,
                attempts: 0,
            });
            MessageState::of(&MessageStatus {
                id: MessageId::of_source("test", "1").unwrap(),
                expanded,
                deadline: Timestamp::from_millis(0),
                deliveries: deliveries.collect(),
            })
        };
        use DeliveryState::{Dead, Delivered, Expired, Pending};
        assert_eq!(state(false, &[]), MessageState::Accepted);
        assert_eq!(state(false, &[Pending]), MessageState::Accepted, "a requeued routing");
        assert_eq!(state(false, &[Dead]), MessageState::Done, "a routing that died");
        assert_eq!(state(true, &[]), MessageState::Done, "a dropped message");
        assert_eq!(state(true, &[Delivered, Pending]), MessageState::Expanded);
        assert_eq!(state(true, &[Delivered, Expired]), MessageState::Done);
    }
}
