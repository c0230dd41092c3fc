//! What became of spans.

use prometheus::{IntCounter, IntCounterVec};

use super::make::int_counter_vec;
use super::process::Metrics;

/// What became of spans.
pub struct TelemetryMetrics {
    /// The collector took them.
    pub exported: IntCounter,
    /// There was no room for them to wait.
    pub dropped: IntCounter,
    /// The collector did not take them.
    pub failed: IntCounter,
}

impl TelemetryMetrics {
    /// Registers the series.
    pub fn register(metrics: &Metrics) -> Self {
        let spans: IntCounterVec = int_counter_vec(
            metrics.registry(),
            "telemetry_spans_total",
            "Spans of traces, by what became of them; all 0 without a collector.",
            &["result"],
        );
        let result = |result| spans.with_label_values(&[result]);
        Self { exported: result("exported"), dropped: result("dropped"), failed: result("failed") }
    }
}
