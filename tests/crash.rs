//! Faults, with real processes: what was answered 200 arrives, whatever is killed, cut off or emptied.
//!
//! Every test ends with the same check (`support::ledger`). Each goes on for seconds here and for minutes
//! under `./test --chaos`.

mod away;
mod clocks;
mod embedded;
mod failover;
mod full;
mod hands;
mod line;
mod outage;
mod points;
mod soak;
mod storm;
mod thunder;
mod versions;

/// Short leases and quick retries, so that what waits for them is tested in seconds.
const FAST: &str = "[worker]\nlease = \"2s\"\nconcurrency = 16\n\n[retry]\nbase = \"100ms\"\ncap = \"1s\"\n\n\
    [channel.sms]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// The most one worker of [`FAST`] has in hand of each message's three deliveries.
const IN_FLIGHT: usize = 2 * 16;
