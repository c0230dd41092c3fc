//! The durable queue: the port ([`contract`]), its back-ends, and what stands before them: the seal
//! ([`sealed`]), the measure ([`measured`]), a spool ([`spool`]).

pub mod contract;
pub mod embedded;
pub mod measured;
pub mod redis;
pub mod sealed;
pub mod spool;
