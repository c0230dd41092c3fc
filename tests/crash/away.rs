//! Redis is away: quietly, cheaply, and not for longer than it has to be.

use std::time::{Duration, Instant};

use super::{IN_FLIGHT, STEADY, UNLIMITED};
use crate::support::chance::duration;
use crate::support::installation::{Installation, LOOK, Program, RECIPIENTS, on_redis, signal};
use crate::support::ledger::{Allowed, Ledger, SENDER};
use crate::support::provider::{Provider, Reply};
use crate::support::proxy::{Line, Proxy};
use crate::support::redis_server::RedisServer;

/// What an answer must have come by, and a second for the machine.
const IN_TIME: Duration = Duration::from_secs(4);

/// What a process did in some time.
struct Watch {
    began: Instant,
    processor_time: Duration,
    lines: usize,
}

impl Watch {
    fn begin(program: &Program) -> Self {
        Self { began: Instant::now(), processor_time: program.processor_time(), lines: program.log().len() }
    }

    /// Less than a fifth of a processor, and less than a line a second.
    fn assert_quiet(&self, program: &Program) {
        let (time, used) = (self.began.elapsed(), program.processor_time() - self.processor_time);
        let log = program.log();
        let lines = &log[self.lines..];
        println!("in {time:.1?}: {used:?} of the processor, {} lines", lines.len());
        assert!(used < time / 5, "{used:?} of the processor in {time:?}");
        assert!(
            lines.len() as f64 <= time.as_secs_f64().max(5.0),
            "{} lines in {time:?}: {lines:#?}",
            lines.len()
        );
    }
}

/// How Redis can be away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Away {
    Killed,
    Stopped,
    BlackHoled,
}

async fn away(how: Away, short: Duration, part: f64) {
    let time = duration(short, part);
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    let proxy = Proxy::start(redis.port(), 0);
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let through = on_redis(&proxy.redis_url());
    let ingress = installation.program("sms-ingress").queue(&through).start().await;
    let worker = installation.program("sms-worker").queue(&through).start().await;
    let programs = [&ingress, &worker];
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..20, 8).await;
    // Their log lines belong to the time before.
    ledger.check(&installation, &provider, Allowed::default()).await;
    for series in ["channel=\"sms\",state=\"delivered\"} 40", "channel=\"slack\",state=\"delivered\"} 20"] {
        let line = format!("sms_broadcaster_deliveries_total{{{series}");
        installation.wait_for_metric(&worker, &line).await;
    }

    ledger.fault();
    match how {
        Away::Killed => redis.kill(),
        Away::Stopped => signal(redis.pid(), "STOP"),
        Away::BlackHoled => proxy.set(Line::BlackHole),
    }
    let watches = programs.map(Watch::begin);
    let mut number = 20;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let asked = Instant::now();
        let answer = ledger.post_from(SENDER, installation.poster(), ingress.ingress, number).await;
        assert_eq!(answer, Some(503), "nobody could keep it");
        assert!(asked.elapsed() < IN_TIME, "refused only after {:?}", asked.elapsed());
        number += 1;
        for program in programs {
            assert_eq!(installation.ops(program, "healthz").await.map(|(status, _)| status), Some(200));
        }
        tokio::time::sleep(LOOK * 5).await;
    }
    for (watch, program) in watches.iter().zip(programs) {
        watch.assert_quiet(program);
        assert_eq!(installation.ops(program, "readyz").await.map(|(status, _)| status), Some(503));
    }
    match how {
        Away::Killed => redis.restart(),
        Away::Stopped => signal(redis.pid(), "CONT"),
        Away::BlackHoled => proxy.set(Line::Good),
    }
    let back = Instant::now();
    ledger.fault();
    ledger.post_all(installation.poster(), &[ingress.ingress], 20..number, 8).await;
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("away", &format!("Redis {how:?} for {} s", time.as_secs()));
    assert!(back.elapsed() < Duration::from_secs(30), "back at work only after {:?}", back.elapsed());
}

#[tokio::test]
async fn a_killed_redis_is_waited_for_in_peace() {
    away(Away::Killed, Duration::from_secs(6), 0.02).await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_waited_for_in_peace() {
    away(Away::Stopped, Duration::from_secs(6), 0.035).await;
}

#[tokio::test]
async fn a_black_hole_before_redis_is_waited_for_in_peace() {
    away(Away::BlackHoled, Duration::from_secs(6), 0.02).await;
}

#[tokio::test]
async fn while_redis_does_not_answer_a_spool_takes_everything_and_it_arrives_later() {
    let time = duration(Duration::from_secs(4), 0.04);
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let queue = format!("{}\nspool = \"spool\"", on_redis(&redis.url()));
    let ingress = installation.program("sms-ingress").queue(&queue).start().await;
    let _worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..20, 8).await;

    ledger.fault();
    signal(redis.pid(), "STOP");
    let mut number = 20;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let asked = Instant::now();
        assert!(ledger.post(installation.poster(), ingress.ingress, number).await, "refused beside a spool");
        assert!(asked.elapsed() < IN_TIME, "taken only after {:?}", asked.elapsed());
        number += 1;
        tokio::time::sleep(LOOK).await;
    }
    let sent = provider.requests().len();
    signal(redis.pid(), "CONT");
    ledger.fault();
    installation.wait_for_metric(&ingress, "sms_broadcaster_spool_messages 0").await;
    // What was sent when Redis stopped is recorded when it goes on, or sent again.
    let allowed = Allowed { duplicates: IN_FLIGHT, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("away, spool", &format!("Redis Stopped for {} s, with a spool", time.as_secs()));
    assert!(figures.deliveries > sent, "nothing was kept: there was no fault");
}

#[tokio::test]
async fn what_was_sent_while_redis_is_away_is_recorded_when_it_is_back_and_not_sent_again() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok().delayed(Duration::from_millis(800)));
    }
    let redis = RedisServer::start();
    // Leases as they are by default: they outlast the outage.
    let installation = Installation::redis(&provider, &redis.url(), UNLIMITED);
    let ingress = installation.start("sms-ingress").await;
    let _worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..10, 10).await;
    provider.wait_until("all are on their way", |requests| requests.len() == 30).await;
    ledger.fault();
    signal(redis.pid(), "STOP");
    // More than two calls in vain, after which a connection is given up.
    tokio::time::sleep(Duration::from_secs(6)).await;
    signal(redis.pid(), "CONT");
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("away with work in hand", "Redis Stopped for 6 s while 30 deliveries are on their way");
}
