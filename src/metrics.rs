//! What is counted: every metric's name, labels and meaning.
//!
//! A [`Metrics`] owns its registry; nothing is process-wide. Every series exists at 0 from the start,
//! so that a dashboard tells "nothing happened" from "not measured". No label ever holds a phone
//! number, URL, text or message id.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::clock::Timestamp;
use crate::delivery::{ChannelId, DeadCause, DeliveryState, Outcome, Reason};
use crate::subscribers::Match;

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

/// One process's metrics: the registry, and what every program counts.
pub struct Metrics {
    registry: Registry,
    config_reload_success: IntGauge,
    config_reload_timestamp: Gauge,
    queue_reconnects: IntCounter,
}

impl Metrics {
    /// A registry with what every program has.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build_info =
            int_gauge_vec(&registry, "build_info", "Always 1; the label tells the version.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            config_reload_success: int_gauge(
                &registry,
                "config_reload_success",
                "Whether the subscribers file was accepted when it was last read.",
            ),
            config_reload_timestamp: gauge(
                &registry,
                "config_reload_timestamp_seconds",
                "When the subscribers file was last accepted, in Unix seconds.",
            ),
            queue_reconnects: int_counter(
                &registry,
                "queue_reconnects_total",
                "Connections to the store made anew after one was lost.",
            ),
            registry,
        }
    }

    /// Notes whether the subscribers file was accepted when it was read at `at`.
    pub fn config_reloaded(&self, accepted: bool, at: Timestamp) {
        self.config_reload_success.set(accepted.into());
        if accepted {
            self.config_reload_timestamp.set(at.as_millis() as f64 / 1000.0);
        }
    }

    /// Takes over the store's own count of reconnections.
    pub fn queue_reconnects(&self, total: u64) {
        self.queue_reconnects.inc_by(total.saturating_sub(self.queue_reconnects.get()));
    }

    /// Everything, in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        debug_assert!(encoded.is_ok(), "writing to memory does not fail");
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
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
        let registry = &metrics.registry;
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

/// What a worker counts, and what it reads from the store for a scrape.
pub struct WorkerMetrics {
    messages_routed: IntCounterVec,
    delivery_attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    deliveries: IntCounterVec,
    delivery_latency: HistogramVec,
    rate_limited_seconds: prometheus::CounterVec,
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

impl WorkerMetrics {
    /// Registers the worker's series for `channels`.
    pub fn register(metrics: &Metrics, channels: &[ChannelId]) -> Self {
        let registry = &metrics.registry;
        let worker = Self {
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
        worker.start_at_zero(channels);
        worker
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
        let labels = [channel, outcome.as_str(), outcome.reason().as_str()];
        self.delivery_attempts.with_label_values(&labels).inc();
        self.attempt_duration.with_label_values(&[channel]).observe(seconds);
    }

    /// Counts one delivery that ended.
    pub fn ended(&self, lane: &str, state: DeliveryState) {
        self.deliveries.with_label_values(&[lane, state.as_str()]).inc();
    }

    /// Notes how long a delivered message took since its acceptance.
    pub fn delivered_after(&self, channel: &str, seconds: f64) {
        self.delivery_latency.with_label_values(&[channel]).observe(seconds);
    }

    /// Adds to the time a channel's own rate held work back.
    pub fn rate_limited(&self, channel: &str, seconds: f64) {
        self.rate_limited_seconds.with_label_values(&[channel]).inc_by(seconds);
    }
}

const NAMESPACE: &str = "sms_broadcaster";

/// Registers a collector. Names are literals of this file, so a clash is a fault any test finds.
fn register<C: Collector + Clone + 'static>(registry: &Registry, built: prometheus::Result<C>) -> C {
    let collector = built.expect("metric names and labels are valid literals");
    registry.register(Box::new(collector.clone())).expect("metric names are registered once");
    collector
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn int_counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(name, help)))
}

fn int_counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(name, help), labels))
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::CounterVec {
    register(registry, prometheus::CounterVec::new(opts(name, help), labels))
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(name, help)))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::with_opts(opts(name, help)))
}

fn int_gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(name, help), labels))
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(opts(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(opts))
}

fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(opts, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_at_zero_from_the_start() {
        let metrics = Metrics::new();
        let _ingress = IngressMetrics::register(&metrics, &["twilio"]);
        let _worker = WorkerMetrics::register(&metrics, &[ChannelId::sms(), ChannelId::slack()]);
        let text = metrics.render();
        for line in [
            r#"sms_broadcaster_webhooks_total{result="accepted",source="twilio"} 0"#,
            r#"sms_broadcaster_webhooks_total{result="looped",source="twilio"} 0"#,
            "sms_broadcaster_webhook_duration_seconds_count 0",
            r#"sms_broadcaster_messages_routed_total{match="fallback"} 0"#,
            r#"sms_broadcaster_delivery_attempts_total{channel="sms",outcome="delivered",reason="ok"} 0"#,
            r#"sms_broadcaster_attempt_duration_seconds_count{channel="slack"} 0"#,
            r#"sms_broadcaster_deliveries_total{channel="sms",state="expired"} 0"#,
            r#"sms_broadcaster_delivery_latency_seconds_count{channel="sms"} 0"#,
            r#"sms_broadcaster_queue_depth{channel="in",state="ready"} 0"#,
            r#"sms_broadcaster_oldest_ready_age_seconds{channel="in"} 0"#,
            r#"sms_broadcaster_dead_letters{cause="undecryptable"} 0"#,
            r#"sms_broadcaster_rate_limited_seconds_total{channel="sms"} 0"#,
            r#"sms_broadcaster_channel_paused{channel="slack"} 0"#,
            "sms_broadcaster_leases_reclaimed_total 0",
            "sms_broadcaster_leases_lost_total 0",
            "sms_broadcaster_stream_group_recreated_total 0",
            "sms_broadcaster_queue_reconnects_total 0",
            "sms_broadcaster_late_successes_total 0",
            "sms_broadcaster_conservation_error 0",
            "sms_broadcaster_config_reload_success 0",
            "sms_broadcaster_config_reload_timestamp_seconds 0",
            "sms_broadcaster_spool_messages 0",
            concat!("sms_broadcaster_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn reconnects_follow_the_stores_own_count() {
        let metrics = Metrics::new();
        metrics.queue_reconnects(3);
        metrics.queue_reconnects(3);
        metrics.queue_reconnects(2);
        assert!(metrics.render().contains("sms_broadcaster_queue_reconnects_total 3"));
    }
}
