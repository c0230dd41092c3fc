//! The registry of one process, and what every program has.

use prometheus::{Encoder, Gauge, IntCounter, IntGauge, Registry, TextEncoder};

use super::make::{gauge, int_counter, int_gauge, int_gauge_vec};
use crate::clock::Timestamp;

/// One process's metrics: the registry, and what every program counts.
pub struct Metrics {
    registry: Registry,
    config_reload_success: IntGauge,
    config_reload_timestamp: Gauge,
    queue_reconnects: IntCounter,
    draining: IntGauge,
}

impl Metrics {
    /// A registry with what every program has, of a process that starts at `started`.
    pub fn new(started: Timestamp) -> Self {
        let registry = Registry::new();
        let build_info =
            int_gauge_vec(&registry, "build_info", "Always 1; the label tells the version.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let start_time =
            gauge(&registry, "start_time_seconds", "When this process started, in Unix seconds.");
        start_time.set(seconds(started));
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
            draining: int_gauge(
                &registry,
                "draining",
                "Whether this process was told to stop and finishes what it has in hand.",
            ),
            registry,
        }
    }

    /// Where the parts of the process register theirs.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Notes whether the process is on its way out.
    pub fn draining(&self, is_draining: bool) {
        self.draining.set(is_draining.into());
    }

    /// Notes whether the subscribers file was accepted when it was read at `at`.
    pub fn config_reloaded(&self, accepted: bool, at: Timestamp) {
        self.config_reload_success.set(accepted.into());
        if accepted {
            self.config_reload_timestamp.set(seconds(at));
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

/// A moment as Prometheus has it: seconds since the Unix epoch.
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_follow_the_stores_own_count() {
        let metrics = Metrics::new(Timestamp::from_millis(0));
        metrics.queue_reconnects(3);
        metrics.queue_reconnects(3);
        metrics.queue_reconnects(2);
        assert!(metrics.render().contains("sms_broadcaster_queue_reconnects_total 3"));
    }
}
