//! What a worker counts, and what it reads from the store for a scrape.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::make::{
    counter_vec, gauge, gauge_vec, histogram_vec, int_counter, int_counter_vec, int_gauge, int_gauge_vec,
};
use super::process::{Metrics, seconds};
use crate::clock::Timestamp;
use crate::delivery::{ChannelId, DeadCause, DeliveryState, Outcome, Reason};
use crate::subscribers::Match;

/// What a worker counts, and what it reads from the store for a scrape.
pub struct WorkerMetrics {
    messages_routed: IntCounterVec,
    delivery_attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    deliveries: IntCounterVec,
    deliveries_died: IntCounterVec,
    delivery_latency: HistogramVec,
    rate_limited_seconds: prometheus::CounterVec,
    slots: IntGaugeVec,
    slots_in_use: IntGaugeVec,
    slow_attempts: IntGaugeVec,
    last_claim: GaugeVec,
    message_deadline: Gauge,
    /// What every attempt counts, found once instead of by its labels each time.
    usual: Vec<Usual>,
    /// Leases of vanished workers taken over.
    pub leases_reclaimed: IntCounter,
    /// Leases of this worker that were another's before it was done.
    pub leases_lost: IntCounter,
    /// Structures of the store that were gone and made anew: the store lost data.
    pub stream_group_recreated: IntCounter,
    /// Deliveries reported by a worker that no longer held the lease.
    pub late_successes: IntCounter,
    /// Depth of a lane, by state.
    pub queue_depth: IntGaugeVec,
    /// Age of a lane's oldest ready work, in seconds.
    pub oldest_ready_age: GaugeVec,
    /// Dead letters that can be shown, by cause.
    pub dead_letters: IntGaugeVec,
    /// Paused destinations of a channel.
    pub channel_paused: IntGaugeVec,
    /// Accepted deliveries less ended and pending ones.
    pub conservation_error: IntGauge,
}

/// The series that each attempt of a channel counts in as long as all goes well.
struct Usual {
    channel: ChannelId,
    delivered_attempts: IntCounter,
    attempt_duration: Histogram,
    delivered: IntCounter,
    delivery_latency: Histogram,
    slots_in_use: IntGauge,
    slow_attempts: IntGauge,
}

impl WorkerMetrics {
    /// Registers the worker's series for `channels`; `deadline` is a message's where its subscriber has
    /// no other.
    pub fn register(metrics: &Metrics, channels: &[ChannelId], deadline: Duration) -> Self {
        let registry = metrics.registry();
        let mut worker = Self {
            usual: Vec::new(),
            messages_routed: int_counter_vec(
                registry,
                "messages_routed_total",
                "Messages routed, by what matched.",
                &["match"],
            ),
            delivery_attempts: int_counter_vec(
                registry,
                "delivery_attempts_total",
                "Attempts at deliveries, by outcome and reason.",
                &["channel", "outcome", "reason"],
            ),
            attempt_duration: histogram_vec(
                registry,
                "attempt_duration_seconds",
                "Time one attempt took at the provider.",
                &["channel"],
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0],
            ),
            deliveries: int_counter_vec(
                registry,
                "deliveries_total",
                "Deliveries that ended, by how; counted by the process that ended them.",
                &["channel", "state"],
            ),
            deliveries_died: int_counter_vec(
                registry,
                "deliveries_died_total",
                "Deliveries that became dead letters, by cause; counted by the process that ended them.",
                &["channel", "cause"],
            ),
            delivery_latency: histogram_vec(
                registry,
                "delivery_latency_seconds",
                "Time from a message's acceptance to its delivery.",
                &["channel"],
                // Fine where a healthy relay is, coarse up to the default deadline.
                &[
                    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
                    300.0, 600.0,
                ],
            ),
            rate_limited_seconds: counter_vec(
                registry,
                "rate_limited_seconds_total",
                "Time ready work of a channel was held back by the channel's own rate, as this process saw it.",
                &["channel"],
            ),
            slots: int_gauge_vec(
                registry,
                "worker_slots",
                "Attempts a channel of this process may have in flight before they count as slow.",
                &["channel"],
            ),
            slots_in_use: int_gauge_vec(
                registry,
                "worker_slots_in_use",
                "Attempts in flight that hold a slot.",
                &["channel"],
            ),
            slow_attempts: int_gauge_vec(
                registry,
                "worker_slow_attempts",
                "Attempts in flight that took so long that they gave their slot back.",
                &["channel"],
            ),
            last_claim: gauge_vec(
                registry,
                "last_claim_timestamp_seconds",
                "When the store last answered this process's request for work, in Unix seconds of the store.",
                &["channel"],
            ),
            message_deadline: gauge(
                registry,
                "message_deadline_seconds",
                "Time from acceptance to the deadline, where a subscriber has no other.",
            ),
            leases_reclaimed: int_counter(
                registry,
                "leases_reclaimed_total",
                "Work taken over from workers that vanished.",
            ),
            leases_lost: int_counter(
                registry,
                "leases_lost_total",
                "Work this worker held too long: it was another's before the outcome was recorded.",
            ),
            stream_group_recreated: int_counter(
                registry,
                "stream_group_recreated_total",
                "Structures of the store found gone and made anew: the store has lost data.",
            ),
            late_successes: int_counter(
                registry,
                "late_successes_total",
                "Deliveries reported by a worker that no longer held the lease.",
            ),
            queue_depth: int_gauge_vec(
                registry,
                "queue_depth",
                "Work in the store, by channel and state; work that is not routed has channel=\"in\".",
                &["channel", "state"],
            ),
            oldest_ready_age: gauge_vec(
                registry,
                "oldest_ready_age_seconds",
                "Age of the oldest work that may be handed out.",
                &["channel"],
            ),
            dead_letters: int_gauge_vec(
                registry,
                "dead_letters",
                "Dead letters that can be shown.",
                &["cause"],
            ),
            channel_paused: int_gauge_vec(
                registry,
                "channel_paused",
                "Destinations of a channel that are paused because their provider asked for it.",
                &["channel"],
            ),
            conservation_error: int_gauge(
                registry,
                "conservation_error",
                "Accepted deliveries minus ended and pending ones: always 0, or the store was tampered with.",
            ),
        };
        worker.message_deadline.set(deadline.as_secs_f64());
        worker.start_at_zero(channels);
        worker.usual = channels.iter().map(|channel| worker.usual(channel)).collect();
        worker
    }

    fn usual(&self, channel: &ChannelId) -> Usual {
        let name = channel.as_str();
        let ok = Reason::Ok.as_str();
        Usual {
            channel: channel.clone(),
            delivered_attempts: self.delivery_attempts.with_label_values(&[name, "delivered", ok]),
            attempt_duration: self.attempt_duration.with_label_values(&[name]),
            delivered: self.deliveries.with_label_values(&[name, DeliveryState::Delivered.as_str()]),
            delivery_latency: self.delivery_latency.with_label_values(&[name]),
            slots_in_use: self.slots_in_use.with_label_values(&[name]),
            slow_attempts: self.slow_attempts.with_label_values(&[name]),
        }
    }

    /// The series of `channel`, which must be among those that were registered.
    fn of(&self, channel: &str) -> &Usual {
        let found = self.usual.iter().find(|usual| usual.channel.as_str() == channel);
        found.expect("a worker counts for its own channels")
    }

    fn start_at_zero(&self, channels: &[ChannelId]) {
        const RETRY: [Reason; 7] = [
            Reason::RateLimited,
            Reason::Timeout,
            Reason::Connect,
            Reason::Broken,
            Reason::Server,
            Reason::Busy,
            Reason::Internal,
        ];
        const PERMANENT: [Reason; 6] = [
            Reason::Recipient,
            Reason::Account,
            Reason::Content,
            Reason::Rejected,
            Reason::Forbidden,
            Reason::Unreadable,
        ];
        for found in Match::ALL {
            self.messages_routed.with_label_values(&[found.as_str()]);
        }
        for cause in DeadCause::ALL {
            self.dead_letters.with_label_values(&[cause.as_str()]);
        }
        for channel in channels.iter().map(ChannelId::as_str) {
            self.delivery_attempts.with_label_values(&[channel, "delivered", Reason::Ok.as_str()]);
            for reason in RETRY {
                self.delivery_attempts.with_label_values(&[channel, "retry", reason.as_str()]);
            }
            for reason in PERMANENT {
                self.delivery_attempts.with_label_values(&[channel, "permanent", reason.as_str()]);
            }
            self.attempt_duration.with_label_values(&[channel]);
            self.delivery_latency.with_label_values(&[channel]);
            self.slots.with_label_values(&[channel]);
            self.slots_in_use.with_label_values(&[channel]);
            self.slow_attempts.with_label_values(&[channel]);
            self.channel_paused.with_label_values(&[channel]);
            self.rate_limited_seconds.with_label_values(&[channel]);
        }
        for lane in channels.iter().map(ChannelId::as_str).chain(["in"]) {
            for state in [DeliveryState::Delivered, DeliveryState::Dead, DeliveryState::Expired] {
                // A routing is never delivered, it becomes deliveries.
                if lane != "in" || state != DeliveryState::Delivered {
                    self.deliveries.with_label_values(&[lane, state.as_str()]);
                }
            }
            for cause in DeadCause::ALL {
                self.deliveries_died.with_label_values(&[lane, cause.as_str()]);
            }
            self.last_claim.with_label_values(&[lane]);
            for state in ["ready", "leased", "delayed"] {
                self.queue_depth.with_label_values(&[lane, state]);
            }
            self.oldest_ready_age.with_label_values(&[lane]);
        }
    }

    /// Counts one routed message.
    pub fn routed(&self, found: Match) {
        self.messages_routed.with_label_values(&[found.as_str()]).inc();
    }

    /// Counts one attempt that took `seconds`.
    pub fn attempt(&self, channel: &str, outcome: &Outcome, seconds: f64) {
        let usual = self.of(channel);
        match outcome {
            Outcome::Delivered { .. } => usual.delivered_attempts.inc(),
            Outcome::Retry { .. } | Outcome::Permanent { .. } => {
                let labels = [channel, outcome.as_str(), outcome.reason().as_str()];
                self.delivery_attempts.with_label_values(&labels).inc();
            }
        }
        usual.attempt_duration.observe(seconds);
    }

    /// Counts a delivery that reached its recipient.
    pub fn delivered(&self, channel: &str) {
        self.of(channel).delivered.inc();
    }

    /// Counts a delivery that became a dead letter.
    pub fn died(&self, lane: &str, cause: DeadCause) {
        self.deliveries.with_label_values(&[lane, cause.state().as_str()]).inc();
        self.deliveries_died.with_label_values(&[lane, cause.as_str()]).inc();
    }

    /// Shows how many attempts of a channel may be in flight.
    pub fn slots(&self, channel: &str, slots: usize) {
        self.slots.with_label_values(&[channel]).set(i64::try_from(slots).unwrap_or(i64::MAX));
    }

    /// Shows one attempt as in flight until what is returned is dropped.
    pub fn in_flight(&self, channel: &str) -> InFlight {
        let usual = self.of(channel);
        usual.slots_in_use.inc();
        InFlight { counted: usual.slots_in_use.clone(), slow: usual.slow_attempts.clone() }
    }

    /// Notes that the store answered a request for work of `lane`, by its clock at `at`.
    pub fn claimed(&self, lane: &str, at: Timestamp) {
        self.last_claim.with_label_values(&[lane]).set(seconds(at));
    }

    /// Notes how long a delivered message took since its acceptance.
    pub fn delivered_after(&self, channel: &str, seconds: f64) {
        self.of(channel).delivery_latency.observe(seconds);
    }

    /// Adds to the time a channel's own rate held work back.
    pub fn rate_limited(&self, channel: &str, seconds: f64) {
        self.rate_limited_seconds.with_label_values(&[channel]).inc_by(seconds);
    }
}

/// One attempt in flight.
pub struct InFlight {
    counted: IntGauge,
    slow: IntGauge,
}

impl InFlight {
    /// It gave its slot back and counts among the slow ones from now on.
    pub fn turn_slow(&mut self) {
        self.counted.dec();
        self.counted = self.slow.clone();
        self.counted.inc();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counted.dec();
    }
}
