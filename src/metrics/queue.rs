//! The store, as its callers see it.

use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::make::{histogram_vec, int_counter_vec, int_gauge};
use super::process::Metrics;

/// A call of the store that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Stores messages.
    Accept,
    /// Asks for work.
    Claim,
    /// Makes deliveries of a message.
    Expand,
    /// Records outcomes.
    Settle,
    /// Extends leases.
    Renew,
    /// Gives work back.
    Release,
    /// Takes over what vanished workers held.
    Sweep,
    /// Ends what is overdue.
    Housekeep,
    /// Asks whether the store is there.
    Ping,
}

impl Call {
    const ALL: [Self; 9] = [
        Self::Accept,
        Self::Claim,
        Self::Expand,
        Self::Settle,
        Self::Renew,
        Self::Release,
        Self::Sweep,
        Self::Housekeep,
        Self::Ping,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Claim => "claim",
            Self::Expand => "expand",
            Self::Settle => "settle",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Sweep => "sweep",
            Self::Housekeep => "housekeep",
            Self::Ping => "ping",
        }
    }
}

/// The labels of failed calls.
const FAILURES: [&str; 3] = ["unavailable", "exhausted", "unusable"];

/// What every program counts of its store.
pub struct QueueMetrics {
    /// Whether the store answered when the metrics were last read.
    pub up: IntGauge,
    /// Parts of the store that were away when they were last asked.
    pub parts_away: IntGauge,
    calls: HistogramVec,
    errors: IntCounterVec,
}

impl QueueMetrics {
    /// Registers the series; `capacity` is the store's limit of unfinished messages.
    pub fn register(metrics: &Metrics, capacity: u64) -> Self {
        let registry = metrics.registry();
        let queue = Self {
            up: int_gauge(
                registry,
                "queue_up",
                "Whether the store answered when the metrics were last read.",
            ),
            parts_away: int_gauge(
                registry,
                "queue_parts_away",
                "Shards of the store whose server was away when this process last asked it.",
            ),
            calls: histogram_vec(
                registry,
                "queue_call_duration_seconds",
                "Time one call of the store took, failed ones included.",
                &["call"],
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            ),
            errors: int_counter_vec(
                registry,
                "queue_call_errors_total",
                "Calls of the store that failed.",
                &["call", "kind"],
            ),
        };
        let limit = int_gauge(registry, "queue_capacity", "Unfinished messages beyond which none is taken.");
        limit.set(i64::try_from(capacity).unwrap_or(i64::MAX));
        for call in Call::ALL {
            queue.calls.with_label_values(&[call.as_str()]);
            for failure in FAILURES {
                queue.errors.with_label_values(&[call.as_str(), failure]);
            }
        }
        queue
    }

    /// Notes a call that took `seconds`, and how it failed if it did (`unavailable`, `exhausted` or
    /// `unusable`).
    pub fn called(&self, call: Call, seconds: f64, failure: Option<&'static str>) {
        self.calls.with_label_values(&[call.as_str()]).observe(seconds);
        if let Some(failure) = failure {
            self.errors.with_label_values(&[call.as_str(), failure]).inc();
        }
    }
}
