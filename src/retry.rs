//! The retry policy: pure, from what happened to what is to become of it.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadCause, Outcome, Reason, Settlement};

/// What an attempt needs to have a chance: a due time closer to the deadline is drawn forward to leave
/// at least this much.
pub const MIN_SEND: Duration = Duration::from_secs(2);

/// The shortest way from a failure to a last try that was drawn forward.
const MIN_GAP: Duration = Duration::from_secs(2);

/// Last tries are spread over this much, so that messages of one deadline do not come all at once.
const LAST_TRY_SPREAD: Duration = Duration::from_millis(500);

/// The shortest pause: a provider that answers 429 and `Retry-After: 0` is not asked again at once.
const MIN_PAUSE: Duration = Duration::from_millis(250);

/// How failed attempts are repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Delay after the first failure.
    pub base: Duration,
    /// What each further failure multiplies it by, at least 1.
    pub factor: f64,
    /// The longest delay of our own making; a provider's `Retry-After` may ask for more.
    pub cap: Duration,
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(30), max_attempts: 8 }
    }
}

/// How far a delivery has come, before the attempt that is being judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Attempts that failed so far.
    pub attempts: u32,
    /// Pauses so far.
    pub pauses: u32,
    /// When it must have ended.
    pub deadline: Timestamp,
    /// When the attempt ended, by the clock that set the deadline.
    pub now: Timestamp,
}

impl RetryPolicy {
    /// Decides what becomes of a delivery whose attempt ended with `outcome`.
    ///
    /// A pause may point to the deadline or past it: the queue then holds the destination and ends the
    /// delivery as expired.
    ///
    /// `jitter` is a number in `[0, 1)`, drawn anew for each decision; delays are spread over the upper
    /// half of what they are without it.
    pub fn decide(&self, outcome: &Outcome, progress: &Progress, jitter: f64) -> Settlement {
        let Some(attempt) = Attempt::of(outcome, progress.now) else { return Settlement::Delivered };
        let dead = |cause, attempt| Settlement::Dead { cause, attempt: Some(attempt) };
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };

        match outcome {
            Outcome::Delivered { .. } => Settlement::Delivered,
            Outcome::Permanent { .. } => dead(DeadCause::Permanent, attempt),
            Outcome::Retry { reason: Reason::RateLimited, after, .. } => {
                let delay = after.unwrap_or_else(|| self.jittered(progress.pauses, jitter)).max(MIN_PAUSE);
                // A pause that outlasts this delivery ends it, and holds its destination all the same.
                let until = self.due(delay, *after, progress, jitter);
                Settlement::Pause { until: until.unwrap_or_else(|| progress.now.plus(delay)), attempt }
            }
            Outcome::Retry { after, .. } => {
                if progress.attempts.saturating_add(1) >= self.max_attempts {
                    return dead(DeadCause::Exhausted, attempt);
                }
                let delay = self.jittered(progress.attempts, jitter).max(after.unwrap_or_default());
                match self.due(delay, *after, progress, jitter) {
                    Some(due) => Settlement::RetryAt { due, attempt },
                    None => dead(DeadCause::Expired, attempt),
                }
            }
        }
    }

    /// The longest the delays of one delivery can add up to, without the attempts themselves and without
    /// what providers ask for.
    pub fn worst_case(&self) -> Duration {
        // Beyond so many steps any growth is over, or too slow to matter: the rest counts as the last.
        const STEPS: u32 = 10_000;
        let delays = self.max_attempts.saturating_sub(1);
        let stepped = delays.min(STEPS);
        let sum = (0..stepped).fold(Duration::ZERO, |sum, step| sum.saturating_add(self.delay(step)));
        let rest = self.cap.saturating_mul(delays - stepped);
        sum.saturating_add(rest)
    }

    /// The delay after `failures` earlier ones, without jitter.
    fn delay(&self, failures: u32) -> Duration {
        let base = self.base.as_secs_f64();
        let factor = if self.factor >= 1.0 { self.factor } else { 1.0 };
        let grown = if base > 0.0 { base * factor.powf(f64::from(failures)) } else { 0.0 };
        Duration::try_from_secs_f64(grown).unwrap_or(self.cap).min(self.cap)
    }

    fn jittered(&self, failures: u32, jitter: f64) -> Duration {
        self.delay(failures).mul_f64(0.5 + 0.5 * jitter)
    }

    /// When to go on, `delay` from now and in time for the deadline; `None` when that cannot be. Too
    /// late a time is drawn forward for a last try, but never before what the provider `asked` for.
    fn due(
        &self,
        delay: Duration,
        asked: Option<Duration>,
        progress: &Progress,
        jitter: f64,
    ) -> Option<Timestamp> {
        let Progress { deadline, now, .. } = *progress;
        let due = now.plus(delay);
        if due <= deadline.minus(MIN_SEND) {
            return Some(due);
        }
        let last_try = deadline.minus(MIN_SEND).minus(LAST_TRY_SPREAD.mul_f64(jitter));
        let earliest = now.plus(MIN_GAP.max(asked.unwrap_or_default()));
        if last_try >= earliest { Some(last_try) } else { (due < deadline).then_some(due) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_485_831_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn progress(attempts: u32, left: Duration) -> Progress {
        Progress { attempts, pauses: 0, deadline: NOW.plus(left), now: NOW }
    }

    fn retry(reason: Reason, after: Option<Duration>) -> Outcome {
        Outcome::Retry { reason, status: Some(503), code: None, after, ambiguous: false }
    }

    fn due(settlement: &Settlement) -> Option<Duration> {
        match settlement {
            Settlement::RetryAt { due, .. } => Some(due.since(NOW)),
            Settlement::Pause { until, .. } => Some(until.since(NOW)),
            _ => None,
        }
    }

    fn cause(settlement: &Settlement) -> Option<DeadCause> {
        match settlement {
            Settlement::Dead { cause, attempt: Some(_) } => Some(*cause),
            _ => None,
        }
    }

    #[test]
    fn delivered_and_permanent_end_a_delivery_at_once() {
        let policy = RetryPolicy::default();
        let delivered = Outcome::Delivered { status: Some(201) };
        assert_eq!(policy.decide(&delivered, &progress(0, secs(60)), 0.0), Settlement::Delivered);
        let refused =
            Outcome::Permanent { reason: Reason::Recipient, status: Some(400), code: Some("21610".into()) };
        let Settlement::Dead { cause, attempt: Some(attempt) } =
            policy.decide(&refused, &progress(0, secs(60)), 0.0)
        else {
            panic!("it must end")
        };
        assert_eq!(cause, DeadCause::Permanent);
        assert_eq!((attempt.at, attempt.code.as_deref()), (NOW, Some("21610")));
    }

    #[test]
    fn delays_double_up_to_the_cap_and_the_eighth_failure_is_the_last() {
        let policy = RetryPolicy::default();
        let outcome = retry(Reason::Server, None);
        let delays: Vec<_> = (0..8)
            .map(|attempts| due(&policy.decide(&outcome, &progress(attempts, secs(600)), 1.0)))
            .collect();
        let expected = [1, 2, 4, 8, 16, 30, 30].map(|seconds| Some(secs(seconds))).into_iter().chain([None]);
        assert_eq!(delays, expected.collect::<Vec<_>>());
        let last = policy.decide(&outcome, &progress(7, secs(600)), 1.0);
        assert_eq!(cause(&last), Some(DeadCause::Exhausted));
        assert_eq!(policy.worst_case(), secs(91));
    }

    #[test]
    fn jitter_takes_at_most_half_of_a_delay() {
        let policy = RetryPolicy::default();
        let at = |jitter| due(&policy.decide(&retry(Reason::Connect, None), &progress(2, secs(600)), jitter));
        assert_eq!(at(0.0), Some(secs(2)));
        assert_eq!(at(0.5), Some(secs(3)));
        assert_eq!(at(f64::NAN), Some(secs(2)));
        assert_eq!(at(7.0), Some(secs(4)));
    }

    #[test]
    fn retry_after_of_another_status_only_lengthens_the_delay() {
        let policy = RetryPolicy::default();
        let with =
            |after| policy.decide(&retry(Reason::Server, Some(secs(after))), &progress(3, secs(600)), 0.0);
        assert_eq!(due(&with(20)), Some(secs(20)));
        assert_eq!(due(&with(1)), Some(secs(4)));
        assert!(matches!(with(20), Settlement::RetryAt { .. }));
        assert_eq!(cause(&with(601)), Some(DeadCause::Expired));
    }

    #[test]
    fn a_429_pauses_for_as_long_as_it_asks_and_costs_no_attempt() {
        let policy = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        let with = |after| policy.decide(&retry(Reason::RateLimited, after), &progress(0, secs(600)), 0.0);
        assert!(matches!(with(Some(secs(45))), Settlement::Pause { .. }));
        assert_eq!(due(&with(Some(secs(45)))), Some(secs(45)));
        assert_eq!(due(&with(Some(Duration::ZERO))), Some(MIN_PAUSE));
    }

    #[test]
    fn a_429_that_outlasts_the_delivery_still_pauses_its_destination() {
        let policy = RetryPolicy::default();
        let with = |after| policy.decide(&retry(Reason::RateLimited, after), &progress(0, secs(600)), 0.0);
        for after in [600, 3600] {
            assert!(matches!(with(Some(secs(after))), Settlement::Pause { .. }));
            assert_eq!(due(&with(Some(secs(after)))), Some(secs(after)));
        }
        let late = policy.decide(&retry(Reason::RateLimited, None), &progress(0, MIN_PAUSE), 0.0);
        assert!(matches!(late, Settlement::Pause { .. }) && due(&late) > Some(MIN_PAUSE), "{late:?}");
    }

    #[test]
    fn a_429_that_asks_for_nothing_pauses_longer_each_time() {
        let policy = RetryPolicy::default();
        let at = |pauses| {
            let progress = Progress { pauses, ..progress(0, secs(600)) };
            due(&policy.decide(&retry(Reason::RateLimited, None), &progress, 1.0)).unwrap()
        };
        assert_eq!([at(0), at(1), at(4), at(9)], [secs(1), secs(2), secs(16), secs(30)]);
    }

    #[test]
    fn a_delay_past_the_deadline_becomes_one_last_try_before_it() {
        let policy = RetryPolicy::default();
        let at = |attempts, left| {
            policy.decide(&retry(Reason::Server, None), &progress(attempts, secs(left)), 0.0)
        };
        // 15 s to wait and 10 s left: the last try is 2 s before the end.
        assert_eq!(due(&at(6, 10)), Some(secs(8)));
        assert_eq!(due(&at(6, 4)), Some(secs(2)));
        assert_eq!(cause(&at(6, 3)), Some(DeadCause::Expired));
        // What is due in time is not moved, however little is left.
        assert_eq!(due(&at(0, 1)), Some(Duration::from_millis(500)));
        assert_eq!(cause(&at(1, 1)), Some(DeadCause::Expired));
        assert_eq!(cause(&at(0, 0)), Some(DeadCause::Expired));
    }

    #[test]
    fn a_last_try_never_comes_before_what_the_provider_asked_for() {
        let policy = RetryPolicy::default();
        let with =
            |after| policy.decide(&retry(Reason::Server, Some(secs(after))), &progress(6, secs(10)), 0.0);
        assert_eq!(due(&with(5)), Some(secs(8)));
        assert_eq!(due(&with(8)), Some(secs(8)));
        assert_eq!(cause(&with(9)), Some(DeadCause::Expired));
        assert_eq!(cause(&with(10)), Some(DeadCause::Expired));
    }

    #[test]
    fn odd_policies_neither_panic_nor_run_backwards() {
        let outcome = retry(Reason::Server, None);
        for policy in [
            RetryPolicy { base: Duration::ZERO, factor: f64::INFINITY, ..RetryPolicy::default() },
            RetryPolicy { factor: f64::NAN, ..RetryPolicy::default() },
            RetryPolicy { factor: -3.0, ..RetryPolicy::default() },
            RetryPolicy { base: Duration::MAX, cap: Duration::MAX, max_attempts: u32::MAX, factor: 2.0 },
            RetryPolicy { max_attempts: 0, ..RetryPolicy::default() },
        ] {
            for attempts in [0, 1, 1_000, u32::MAX] {
                let _ = policy.decide(&outcome, &progress(attempts, secs(60)), 0.9);
            }
            let _ = policy.worst_case();
        }
    }

    fn policies() -> impl Strategy<Value = RetryPolicy> {
        (0_u64..100_000, 1.0_f64..50.0, 0_u64..1_000_000, 1_u32..50).prop_map(
            |(base, factor, cap, max_attempts)| RetryPolicy {
                base: Duration::from_millis(base),
                factor,
                cap: Duration::from_millis(cap),
                max_attempts,
            },
        )
    }

    fn retries() -> impl Strategy<Value = Outcome> {
        let reasons = prop::sample::select(vec![
            Reason::RateLimited,
            Reason::Server,
            Reason::Timeout,
            Reason::Connect,
            Reason::Busy,
        ]);
        let after = proptest::option::of((0_u64..4_000_000).prop_map(Duration::from_millis));
        (reasons, after).prop_map(|(reason, after)| retry(reason, after))
    }

    fn asked(outcome: &Outcome) -> Option<Duration> {
        match outcome {
            Outcome::Retry { after, .. } => *after,
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn no_attempt_is_due_at_the_deadline_or_later_or_before_it_was_asked_for(
            policy in policies(),
            outcome in retries(),
            attempts in 0_u32..60,
            pauses in 0_u32..60,
            left in 0_u64..1_000_000,
            jitter in 0.0_f64..1.0,
        ) {
            let progress = Progress { pauses, ..progress(attempts, Duration::from_millis(left)) };
            let settlement = policy.decide(&outcome, &progress, jitter);
            let paused = matches!(settlement, Settlement::Pause { .. });
            if let Some(due) = due(&settlement) {
                prop_assert!(paused || due < Duration::from_millis(left));
                let asked = asked(&outcome).unwrap_or_default();
                prop_assert!(due >= asked);
                prop_assert!(due <= (policy.cap + asked).max(MIN_PAUSE));
            }
            prop_assert_eq!(paused, outcome.reason() == Reason::RateLimited);
        }

        #[test]
        fn a_delivery_ends_after_at_most_max_attempts(
            policy in policies(),
            outcomes in prop::collection::vec((retries(), 0.0_f64..1.0), 1..300),
            left in 0_u64..10_000_000,
        ) {
            let deadline = NOW.plus(Duration::from_millis(left));
            let mut state = Progress { attempts: 0, pauses: 0, deadline, now: NOW };
            for (outcome, jitter) in outcomes {
                match policy.decide(&outcome, &state, jitter) {
                    Settlement::RetryAt { due, .. } => {
                        state = Progress { attempts: state.attempts + 1, now: due, ..state };
                    }
                    // The queue ends it.
                    Settlement::Pause { until, .. } if until >= deadline => break,
                    Settlement::Pause { until, .. } => {
                        prop_assert!(until >= state.now.plus(MIN_PAUSE));
                        state = Progress { pauses: state.pauses + 1, now: until, ..state };
                    }
                    Settlement::Dead { .. } => break,
                    Settlement::Delivered => prop_assert!(false, "nothing was delivered"),
                }
                prop_assert!(state.attempts < policy.max_attempts);
                prop_assert!(state.now < deadline);
            }
        }

        #[test]
        fn delays_never_shrink_and_their_sum_is_the_worst_case(policy in policies()) {
            let delays: Vec<_> = (0..policy.max_attempts - 1).map(|n| policy.delay(n)).collect();
            prop_assert!(delays.is_sorted());
            prop_assert_eq!(policy.worst_case(), delays.into_iter().sum());
        }
    }
}
