//! The arithmetic of rates: the generic cell rate algorithm, over whole microseconds.
//!
//! Its only state is the *theoretical arrival time* (TAT): the moment at which everything handed out
//! so far would have been paid for at one per interval. A TAT in the past is a full allowance.

use crate::queue::contract::Rate;

/// What one hand-out costs, in microseconds, at least one.
fn interval(rate: Rate) -> i64 {
    i64::try_from(rate.interval.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// What `count` hand-outs cost, in microseconds.
fn cost(rate: Rate, count: u32) -> i64 {
    interval(rate).saturating_mul(i64::from(count))
}

/// A TAT is never further ahead than a whole burst: after a step back of the clock a rate would
/// otherwise stay shut for as long as the step was. Whoever looks must keep the result: clamped anew at every
/// look it would be as far ahead each time.
pub(super) fn clamped(rate: Rate, tat: i64, now: i64) -> i64 {
    tat.min(now.saturating_add(cost(rate, rate.burst.max(1))))
}

/// How many may be handed out at `now`: 0 to the rate's burst. `tat` and `now` in microseconds.
pub(super) fn room(rate: Rate, tat: i64, now: i64) -> u32 {
    let burst = rate.burst.max(1);
    let paid = now.saturating_sub(clamped(rate, tat, now)).div_euclid(interval(rate));
    let room = paid.saturating_add(i64::from(burst)).clamp(0, i64::from(burst));
    u32::try_from(room).expect("clamped to a u32")
}

/// The TAT after `count` were handed out at `now`.
pub(super) fn spent(rate: Rate, tat: i64, now: i64, count: u32) -> i64 {
    if count == 0 {
        return tat;
    }
    clamped(rate, tat, now).max(now).saturating_add(cost(rate, count))
}

/// The first moment at which there is room for one.
pub(super) fn opens_at(rate: Rate, tat: i64, now: i64) -> i64 {
    clamped(rate, tat, now).saturating_sub(cost(rate, rate.burst.max(1) - 1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rate(interval_us: u64, burst: u32) -> Rate {
        Rate { interval: Duration::from_micros(interval_us), burst }
    }

    #[test]
    fn a_rate_that_was_never_used_allows_its_burst_and_no_more() {
        let rate = rate(1_000, 3);
        let now = 1_795_485_831_103_000;
        assert_eq!(room(rate, 0, now), 3);
        let tat = spent(rate, 0, now, 3);
        assert_eq!(room(rate, tat, now), 0);
        assert_eq!(opens_at(rate, tat, now), now + 1_000);
        assert_eq!(room(rate, tat, now + 999), 0);
        assert_eq!(room(rate, tat, now + 1_000), 1);
        assert_eq!(room(rate, tat, now + 60_000_000), 3);
    }

    #[test]
    fn nothing_handed_out_costs_nothing() {
        assert_eq!(spent(rate(1_000, 1), 77, 1_000_000, 0), 77);
    }

    #[test]
    fn a_clock_that_stepped_back_an_hour_shuts_a_rate_for_one_burst_at_most() {
        let rate = rate(1_000, 2);
        let hour = 3_600_000_000;
        let tat = spent(rate, 0, 2 * hour, 2);
        assert!(opens_at(rate, tat, hour) <= hour + 2_000);
        assert_eq!(room(rate, tat, hour), 0);
    }

    #[test]
    fn impossible_rates_neither_panic_nor_divide_by_zero() {
        let never = Rate { interval: Duration::MAX, burst: u32::MAX };
        let none = Rate { interval: Duration::ZERO, burst: 0 };
        for odd in [never, none] {
            for tat in [i64::MIN, 0, i64::MAX] {
                for now in [0, i64::MAX] {
                    let room = room(odd, tat, now);
                    assert!(room <= odd.burst.max(1));
                    let _ = spent(odd, tat, now, room);
                    let _ = opens_at(odd, tat, now);
                }
            }
        }
    }

    proptest! {
        /// Whatever is asked for and when, no window of time sees more than its length allows plus
        /// one burst; and who waits until the gate opens gets something.
        #[test]
        fn no_window_sees_more_than_its_rate_and_one_burst(
            interval_us in 1_u64..5_000,
            burst in 1_u32..6,
            steps in prop::collection::vec((0_i64..9_000, 0_u32..8), 1..60),
        ) {
            let rate = rate(interval_us, burst);
            let (mut now, mut tat) = (1_000_000_000_i64, 0_i64);
            let mut granted: Vec<(i64, u32)> = Vec::new();
            for (pass, want) in steps {
                now += pass;
                let got = want.min(room(rate, tat, now));
                tat = spent(rate, tat, now, got);
                granted.push((now, got));
                let opens = opens_at(rate, tat, now);
                if opens > now {
                    prop_assert_eq!(room(rate, tat, opens - 1), 0);
                }
                prop_assert!(room(rate, tat, opens.max(now)) >= 1);
            }
            for (start, &(from, _)) in granted.iter().enumerate() {
                let mut total = 0;
                for &(to, got) in &granted[start..] {
                    total += i64::from(got);
                    let allowed = (to - from) / interval(rate) + i64::from(burst);
                    prop_assert!(total <= allowed, "{} in {} us", total, to - from);
                }
            }
        }
    }
}
