//! What a random walk may do, in words that make sense whatever was done before.

use std::time::Duration;

use proptest::prelude::*;
use sms_broadcaster::queue::contract::{LaneLimits, Rate};

use super::bench::{HOUR, LEASE, MINUTE, SECOND};

/// Message ids that a walk uses: few, so that they meet again.
pub(crate) const IDS: usize = 10;

/// Owners that are at work at the same time.
pub(crate) const OWNERS: usize = 3;

/// One step. Whatever is picked by number is picked from what there is, modulo how much there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Accept {
        ids: Vec<usize>,
        deadline: Duration,
    },
    Claim {
        owner: usize,
        lane: usize,
        max: usize,
        limits: LaneLimits,
        busy: Option<u32>,
    },
    Drain {
        owner: usize,
        lane: usize,
    },
    /// Settles or routes work in hand.
    Finish {
        pick: usize,
        how: How,
        keep: bool,
    },
    /// Settles or routes by a lease that was used up or given up before.
    Late {
        pick: usize,
        how: How,
    },
    Renew {
        owner: usize,
    },
    Release {
        owner: usize,
        number: usize,
    },
    /// An owner vanishes; another takes its place.
    Crash {
        owner: usize,
    },
    Sweep {
        owner: usize,
        lane: usize,
        max: usize,
    },
    Advance {
        by: Duration,
    },
    Housekeep,
    Requeue {
        picks: Vec<usize>,
        deadline: Duration,
    },
    Purge {
        picks: Vec<usize>,
    },
    /// The service ends and starts anew; `kill`: together with whatever holds the data.
    Reopen {
        kill: bool,
    },
}

/// What becomes of work, be it a delivery or a routing.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// Delivered, or routed to these destinations (lane and number).
    Well {
        to: Vec<(usize, u32)>,
        deadline: Duration,
    },
    Retry {
        delay: Duration,
        ambiguous: bool,
    },
    /// A pause; for a routing a retry.
    Pause {
        delay: Duration,
    },
    Dead {
        has_attempt: bool,
    },
}

/// Times from acceptance, or from a requeue, to the deadline.
const DEADLINES: [Duration; 4] =
    [Duration::from_secs(20), Duration::from_secs(120), HOUR, Duration::from_secs(36_000)];

/// Times to the next attempt.
const DELAYS: [Duration; 5] =
    [Duration::ZERO, SECOND, Duration::from_secs(7), Duration::from_secs(180), Duration::from_secs(7_200)];

/// Lengths of pauses.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(240)];

fn one_of(choices: &'static [Duration]) -> impl Strategy<Value = Duration> {
    prop::sample::select(choices)
}

fn limits() -> impl Strategy<Value = LaneLimits> {
    let slow = Some(Rate { interval: Duration::from_millis(700), burst: 2 });
    let fast = Some(Rate { interval: Duration::from_micros(33_333), burst: 3 });
    let rare = Some(Rate { interval: MINUTE, burst: 1 });
    prop_oneof![
        4 => Just(LaneLimits::default()),
        1 => Just(LaneLimits { lane: fast, destination: None }),
        1 => Just(LaneLimits { lane: None, destination: slow }),
        1 => Just(LaneLimits { lane: slow, destination: fast }),
        1 => Just(LaneLimits { lane: None, destination: rare }),
    ]
}

fn how() -> impl Strategy<Value = How> {
    let to = prop::collection::vec((1..=2_usize, 0..3_u32), 0..=4);
    prop_oneof![
        5 => (to, one_of(&DEADLINES)).prop_map(|(to, deadline)| How::Well { to, deadline }),
        3 => (one_of(&DELAYS), any::<bool>()).prop_map(|(delay, ambiguous)| How::Retry { delay, ambiguous }),
        2 => one_of(&PAUSES).prop_map(|delay| How::Pause { delay }),
        2 => any::<bool>().prop_map(|has_attempt| How::Dead { has_attempt }),
    ]
}

fn advance() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => prop::sample::select(vec![33_u64, 100, 200, 1_000]).prop_map(Duration::from_millis),
        3 => prop::sample::select(vec![5 * SECOND, LEASE / 2, LEASE, LEASE + SECOND]),
        2 => prop::sample::select(vec![MINUTE, 5 * MINUTE]),
        1 => prop::sample::select(vec![40 * MINUTE, 3 * HOUR, 7 * HOUR]),
    ]
}

/// One step, those that move work forward more often than the rest.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let owner = || 0..OWNERS;
    let lane = || 0..3_usize;
    let pick = any::<u16>().prop_map(usize::from);
    let picks = prop::collection::vec(any::<u16>().prop_map(usize::from), 1..=3);
    let busy = prop_oneof![3 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    prop_oneof![
        8 => (prop::collection::vec(0..IDS, 1..=4), one_of(&DEADLINES))
            .prop_map(|(ids, deadline)| Step::Accept { ids, deadline }),
        14 => (owner(), lane(), 1..=6_usize, limits(), busy)
            .prop_map(|(owner, lane, max, limits, busy)| Step::Claim { owner, lane, max, limits, busy }),
        3 => (owner(), lane()).prop_map(|(owner, lane)| Step::Drain { owner, lane }),
        20 => (pick.clone(), how(), any::<bool>()).prop_map(|(pick, how, keep)| Step::Finish { pick, how, keep }),
        4 => (pick, how()).prop_map(|(pick, how)| Step::Late { pick, how }),
        2 => owner().prop_map(|owner| Step::Renew { owner }),
        2 => (owner(), 1..=3_usize).prop_map(|(owner, number)| Step::Release { owner, number }),
        2 => owner().prop_map(|owner| Step::Crash { owner }),
        5 => (owner(), lane(), 1..=8_usize).prop_map(|(owner, lane, max)| Step::Sweep { owner, lane, max }),
        8 => advance().prop_map(|by| Step::Advance { by }),
        2 => Just(Step::Housekeep),
        3 => (picks.clone(), one_of(&DEADLINES)).prop_map(|(picks, deadline)| Step::Requeue { picks, deadline }),
        1 => picks.prop_map(|picks| Step::Purge { picks }),
        1 => prop::bool::weighted(0.25).prop_map(|kill| Step::Reopen { kill }),
    ]
}
