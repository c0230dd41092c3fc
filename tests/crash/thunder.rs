//! Everybody comes back at once, and everything is due at once.

use std::time::{Duration, Instant};

use crate::support::chance::is_chaos;
use crate::support::installation::{Installation, LOOK, PHONES, SLACK};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Leases as they are by default, and nothing that slows the rush.
const UNLIMITED: &str = "[message]\ndeadline = \"6h\"\n\n\
    [channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// Workers that start together.
const WORKERS: usize = 12;

/// A script that takes longer holds up everybody. Ten times what the slowest may need: the machine may have
/// other work.
const LONGEST_SCRIPT: Duration = Duration::from_millis(100);

/// The same on average.
const USUAL_SCRIPT_US: f64 = 10_000.0;

/// Makes everything that waits due at one moment, so many ms from now; ends with that moment.
const DUE_AT_ONCE: &str = "local now = redis.call('TIME') \
    local at = now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[1]) \
    local moved = 0 \
    for _, due in ipairs(KEYS) do for _, member in ipairs(redis.call('ZRANGE', due, 0, -1)) do \
    redis.call('ZADD', due, string.format('%.0f', at), member) moved = moved + 1 end end \
    return moved";

/// When each slow call began and how long it took, in microseconds.
fn slow_calls(connection: &mut redis::Connection) -> Vec<u64> {
    type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
    let entries: Vec<Entry> =
        redis::cmd("SLOWLOG").arg("GET").arg(-1).query(connection).expect("the server answers");
    entries.into_iter().map(|(_, _, took, _, _, _)| took).collect()
}

/// What a call of a script took on average, in microseconds.
fn usual_call(redis: &RedisServer) -> f64 {
    let page = redis.command("INFO commandstats");
    let line = page.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).expect("scripts were run");
    let took = line.split(',').find_map(|field| field.strip_prefix("usec_per_call=")).expect("it is timed");
    took.parse().expect("a number")
}

#[tokio::test]
async fn workers_that_start_together_on_work_that_is_due_together_hold_up_nobody() {
    let number: u32 = if is_chaos() { 2_000 } else { 250 };
    let provider = Provider::start();
    let later = || Reply::status(503).header("Retry-After", "3600");
    for recipient in [PHONES[0], PHONES[1], SLACK] {
        provider.always(recipient, later());
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), UNLIMITED);
    let ingress = installation.start("sms-ingress").await;
    let mut first = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..number, 16).await;
    let admin = installation.store().admin;
    let end = Instant::now() + Duration::from_secs(300);
    while admin
        .stats()
        .await
        .is_ok_and(|stats| stats.lanes.iter().map(|lane| lane.delayed).sum::<u64>() < 3 * u64::from(number))
    {
        assert!(Instant::now() < end, "not everything was tried once");
        tokio::time::sleep(LOOK * 5).await;
    }
    assert_eq!(first.stop(), Some(0));
    for recipient in [PHONES[0], PHONES[1], SLACK] {
        provider.always(recipient, Reply::ok());
    }

    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("the server answers");
    redis.command("CONFIG SET slowlog-log-slower-than 10000");
    redis.command("CONFIG SET slowlog-max-len 100000");
    redis.command("SLOWLOG RESET");
    redis.command("CONFIG RESETSTAT");
    let soon = Duration::from_secs(2);
    let asked = Instant::now();
    let moved: u64 = redis::cmd("EVAL")
        .arg(DUE_AT_ONCE)
        .arg(2)
        .arg(&["sq1:{0}:due:sms", "sq1:{0}:due:slack"])
        .arg(soon.as_millis() as u64)
        .query(&mut connection)
        .expect("the server answers");
    assert_eq!(moved, 3 * u64::from(number));
    ledger.fault();
    let mut workers: Vec<_> = (0..WORKERS).map(|_| installation.program("sms-worker").spawn()).collect();

    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("thunder", &format!("{WORKERS} workers start together, everything is due in one second"));
    let requests = provider.requests();
    let first =
        requests.iter().filter(|request| request.accepted()).map(|request| request.at.into_std()).min();
    assert!(first.expect("all arrived") >= asked + soon, "some were sent early");
    let slow = slow_calls(&mut connection);
    let (longest, usual) = (slow.iter().max().copied().unwrap_or(0), usual_call(&redis));
    println!("{} scripts took 10 ms or more, the longest {longest} us; usually {usual} us", slow.len());
    assert!(Duration::from_micros(longest) < LONGEST_SCRIPT, "a script took {longest} us");
    assert!(usual < USUAL_SCRIPT_US, "a script usually takes {usual} us");

    for worker in &mut workers {
        installation.wait_for_readiness(worker, 200).await;
    }
    assert!(redis.consumers("rdy:sms") <= WORKERS);
    for worker in &mut workers {
        worker.signal("TERM");
    }
    for worker in &mut workers {
        assert_eq!(worker.wait_for_end().await.code(), Some(0));
    }
    for stream in ["in", "rdy:sms", "rdy:slack"] {
        assert_eq!(redis.consumers(stream), 0, "{stream}: workers that left are remembered");
    }
}
