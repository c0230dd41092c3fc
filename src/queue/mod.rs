//! The durable queue: the port ([`contract`]), its back-ends, and what measures either ([`measured`]).

pub mod contract;
pub mod embedded;
pub mod measured;
pub mod redis;
