//! What only the Redis queue promises: its scripts, its server's moods, its healing.

mod access;
mod bench;
mod clocks;
mod cluster;
mod damage;
mod durability;
mod flow;
mod garbage;
mod outages;
mod refusals;
mod sentinels;
mod shards;
mod tls;
mod wrong_server;
