//! The durable queue: the port ([`contract`]) and its back-ends.

pub mod contract;
pub mod embedded;
pub mod redis;
