//! SMS Broadcaster.

pub mod admin;
pub mod channel;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod document;
pub mod ingress;
pub mod message;
pub mod metrics;
pub mod queue;
pub mod retry;
pub mod source;
pub mod subscribers;
pub mod template;
pub mod worker;
