//! The queue on Redis: one script per transition, nothing decided between two of them.
//!
//! A lane is a stream with one consumer group: what the group has not read is ready, what it has
//! pending is leased, and the server keeps owner, age and hand-outs of every lease. Work that waits
//! stands in sorted sets. The record of a message is one hash, which says of every piece of its work
//! where it is; that is true between any two scripts, and everything else can be made anew from it.
//!
//! In reading order: `../scripts/ground.lua` (what is stored), the other scripts, [`scripts`] (how
//! they are called), [`reply`] (what they answer), [`queue`] and [`admin`] (the port, of one shard), [`audit`],
//! [`partition`], [`whole`] and [`overall`] (the port, over all shards), [`server`], [`prepare`], [`condition`]; and the way there: [`address`], [`certificates`], [`finder`], [`link`], [`proof`], [`doorbell`], [`fault`].

mod address;
mod admin;
mod audit;
mod certificates;
mod condition;
mod doorbell;
mod fault;
mod finder;
mod link;
mod overall;
mod partition;
mod prepare;
mod proof;
mod queue;
mod reply;
mod scripts;
mod server;
mod settings;
mod whole;

pub use address::RedisAddress;
pub use certificates::TlsFiles;
pub use settings::{Durability, RedisSettings};
pub use whole::RedisQueue;
