//! What only the Redis queue promises: its scripts, its server's moods, its healing.

mod bench;
mod flow;
