//! What the ingress counts.

use prometheus::{Histogram, IntCounterVec, IntGauge};

use super::make::{histogram, int_counter_vec, int_gauge};
use super::process::Metrics;

/// What became of a request at the ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookResult {
    /// Stored now.
    Accepted,
    /// Stored before.
    Duplicate,
    /// No signature, or a wrong one.
    BadSignature,
    /// Verified but not a message, or not a request at all.
    Malformed,
    /// Body over the limit.
    TooLarge,
    /// Over the client's rate.
    Throttled,
    /// The store is full or away.
    Unavailable,
    /// Kept in the spool.
    Spooled,
    /// Sent by ourselves.
    Looped,
}

impl WebhookResult {
    const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Duplicate,
        Self::BadSignature,
        Self::Malformed,
        Self::TooLarge,
        Self::Throttled,
        Self::Unavailable,
        Self::Spooled,
        Self::Looped,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Spooled => "spooled",
            Self::Looped => "looped",
        }
    }
}

/// What the ingress counts.
pub struct IngressMetrics {
    webhooks: IntCounterVec,
    /// Time from the request's arrival to its answer, in seconds.
    pub webhook_duration: Histogram,
    /// Messages in the spool.
    pub spool_messages: IntGauge,
}

impl IngressMetrics {
    /// Registers the ingress's series; `sources` are the doors it serves, `twilio` among them.
    pub fn register(metrics: &Metrics, sources: &[&str]) -> Self {
        let registry = metrics.registry();
        let webhooks = int_counter_vec(
            registry,
            "webhooks_total",
            "Requests at the ingress, by the door they came by and what became of them.",
            &["source", "result"],
        );
        for source in sources {
            for result in WebhookResult::ALL {
                webhooks.with_label_values(&[*source, result.as_str()]);
            }
        }
        Self {
            webhooks,
            webhook_duration: histogram(
                registry,
                "webhook_duration_seconds",
                "Time from a request's arrival at the ingress to its answer.",
                &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0],
            ),
            spool_messages: int_gauge(
                registry,
                "spool_messages",
                "Messages kept in the spool while Redis is away.",
            ),
        }
    }

    /// Counts one request.
    pub fn webhook(&self, source: &str, result: WebhookResult) {
        self.webhooks.with_label_values(&[source, result.as_str()]).inc();
    }
}
