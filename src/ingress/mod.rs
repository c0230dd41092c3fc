//! The ingress: verified, stored, answered. Nothing about routes, templates or channels happens here.
//!
//! * `settings` — what it is told
//! * `routes` — the public paths, and from a request to its answer
//! * `client` — whom a request is counted for; `throttle` — how many each may make
//! * `loop_guard` — which messages are our own
//! * `intake` — the way into the store, many requests at a time

mod client;
mod intake;
mod loop_guard;
mod routes;
mod settings;
mod throttle;

pub use client::client;
pub use intake::Intake;
pub use loop_guard::LoopGuard;
pub use routes::router;
pub use settings::{IngressSettings, Patience};
