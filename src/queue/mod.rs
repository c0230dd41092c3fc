//! The durable queue: the port ([`contract`]), its back-ends, the seal before them ([`sealed`]), and what measures
//! either ([`measured`]).

pub mod contract;
pub mod embedded;
pub mod measured;
pub mod redis;
pub mod sealed;
