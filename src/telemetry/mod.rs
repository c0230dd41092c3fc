//! Traces: what was done for a message, as spans for an OpenTelemetry collector.
//!
//! Off unless a collector is configured. Then spans go through a bounded buffer to a task of their own;
//! whoever makes one never waits, and what finds the buffer full is dropped and counted. A span holds
//! identities, counts and outcomes, and never a text, number, URL or name of a person.
//!
//! * `settings` — where to, and how much
//! * `tracer` — how a span is made
//! * `conventions` — the spans there are, in the names of OpenTelemetry
//! * `span` — a finished one
//! * `wire` — many of them as OTLP
//! * `exporter` — the task that sends them

mod conventions;
mod exporter;
mod settings;
mod span;
mod tracer;
mod wire;

pub use exporter::{Exporter, start};
pub use settings::{Collector, TelemetrySettings};
pub use span::{Attribute, Kind, Span};
pub use tracer::{ActiveSpan, Tracer};
pub use wire::Resource;
