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

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::support::installation::{Installation, LOOK};
use crate::support::redis_server::RedisServer;

/// The shortest leases there may be and quick retries, so that what waits for them is tested in seconds. A worker that
/// has to wait for the processor as long as that loses its leases or its patience with a provider, and what it has in
/// hand is sent again: only for tests that allow it, or that need a worker that has vanished.
const FAST: &str = "[worker]\nlease = \"2s\"\nconcurrency = 16\n\n[retry]\nbase = \"100ms\"\ncap = \"1s\"\n\n\
    [channel.sms]\ntimeout = \"1900ms\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"1900ms\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// Quick retries, and leases and time-outs that no worker outlasts because the machine has other work: nothing is sent
/// again because of it.
const STEADY: &str = "[worker]\nlease = \"10s\"\nconcurrency = 16\n\n[retry]\nbase = \"100ms\"\ncap = \"1s\"\n\n\
    [channel.sms]\ntimeout = \"9s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"9s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// No rates; leases and time-outs are as they are by default.
const UNLIMITED: &str = "[channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// The most one worker of [`FAST`] and [`STEADY`] has in hand: for each of two channels 16 attempts, and 16 outcomes that
/// are being recorded.
const IN_FLIGHT: usize = 2 * (16 + 16);

/// Makes everything that waits due at one moment, so many ms from now; ends with how much that is.
const DUE_AT_ONCE: &str = "local now = redis.call('TIME') \
    local at = now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[1]) \
    local moved = 0 \
    for _, due in ipairs(KEYS) do for _, member in ipairs(redis.call('ZRANGE', due, 0, -1)) do \
    redis.call('ZADD', due, string.format('%.0f', at), member) moved = moved + 1 end end \
    return moved";

/// Makes every delivery that waits due at one moment, so much later than now; returns how many there are.
fn make_due(redis: &RedisServer, later: Duration) -> u64 {
    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("the server answers");
    let mut script = redis::cmd("EVAL");
    script.arg(DUE_AT_ONCE).arg(2).arg(&["sq1:{0}:due:sms", "sq1:{0}:due:slack"]);
    script.arg(later.as_millis() as u64).query(&mut connection).expect("the server answers")
}

/// Waits until so many deliveries wait to be tried again: each was tried, and that is recorded.
async fn until_delayed(installation: &Installation, number: u64) {
    let store = installation.store();
    let waiting = async {
        while store.admin.stats().await.is_ok_and(|stats| {
            let delayed: u64 = stats.lanes.iter().map(|lane| lane.delayed).sum();
            delayed != number
        }) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), waiting).await.expect("everything was tried once");
}

/// Ticks at most so often: what could not be done in time on a busy machine is not done in haste later.
fn at_most_every(pause: Duration) -> Interval {
    let mut every = interval(pause);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}
