//! What is counted: every metric's name, labels and meaning.
//!
//! A [`Metrics`] owns its registry; nothing is process-wide. Every series exists at 0 from the start,
//! so that a dashboard tells "nothing happened" from "not measured". No label ever holds a phone
//! number, URL, text or message id. The README lists them all.
//!
//! * `process` — the registry, and what every program has
//! * `ingress`, `worker` — what each service counts
//! * `queue` — the store, as its callers see it
//! * `redis` — the Redis server, as it describes itself
//! * `telemetry` — spans of traces
//! * `make` — how a metric is made and registered

mod ingress;
mod make;
mod process;
mod queue;
mod redis;
mod telemetry;
mod worker;

pub use ingress::{IngressMetrics, WebhookResult};
pub use process::Metrics;
pub use queue::{Call, QueueMetrics};
pub use redis::{RedisCondition, RedisMetrics};
pub use telemetry::TelemetryMetrics;
pub use worker::{InFlight, WorkerMetrics};
