//! Processes killed again and again while messages come in.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{FAST, IN_FLIGHT, UNLIMITED, at_most_every};
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, Program, RECIPIENTS};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Messages for each second of a storm. A slow machine takes the last ones when it is over.
const PER_SECOND: u32 = 50;

/// Too short for more than the first look at what others left.
const LIFE: Duration = Duration::from_millis(250);

/// For the time of a `storm` kills one of `workers` `every` so often and starts another in its place; then waits
/// until all is posted. Returns how many were killed.
async fn kill_while(
    posting: JoinHandle<()>,
    storm: Duration,
    every: Duration,
    installation: &Installation,
    ledger: &Ledger,
    workers: &mut [Program],
    chance: &mut fastrand::Rng,
) -> usize {
    let began = Instant::now();
    let mut every = at_most_every(every);
    let mut kills = 0;
    while began.elapsed() < storm {
        every.tick().await;
        let victim = chance.usize(..workers.len());
        // However long its start takes here.
        installation.wait_for_readiness(&mut workers[victim], 200).await;
        ledger.fault();
        workers[victim].kill();
        kills += 1;
        workers[victim] = installation.program("sms-worker").spawn();
    }
    posting.await.unwrap();
    kills
}

#[tokio::test]
async fn workers_are_killed_every_half_second() {
    let mut chance = seeded("workers_are_killed_every_half_second");
    let storm = duration(Duration::from_secs(8), 0.03);
    let number = PER_SECOND * u32::try_from(storm.as_secs()).unwrap();
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingresses = [installation.start("sms-ingress").await, installation.start("sms-ingress").await];
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(installation.start("sms-worker").await);
    }
    let ledger = Ledger::new();
    let posting = {
        let (ledger, poster) = (ledger.clone(), installation.poster().clone());
        let doors = [ingresses[0].ingress, ingresses[1].ingress];
        tokio::spawn(async move { ledger.post_all(&poster, &doors, 0..number, 8).await })
    };
    let every = Duration::from_millis(500);
    let kills = kill_while(posting, storm, every, &installation, &ledger, &mut workers, &mut chance).await;
    // Killed five times with one and the same delivery in hand, it counts as poison, whether or not it was sent: a worker
    // that has to wait for the processor is killed before it sends.
    let allowed = Allowed { duplicates: kills * IN_FLIGHT, dead: kills, unsent: kills, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("storm", "one of three workers killed every 0.5 s");
    assert_eq!(figures.messages, number as usize);
    for worker in &mut workers {
        installation.wait_for_readiness(worker, 200).await;
        installation.wait_for_metric(worker, "sms_broadcaster_conservation_error 0").await;
        assert_eq!(worker.stop(), Some(0));
    }
}

/// Leases as they are by default.
#[tokio::test]
async fn a_storm_of_kills_makes_poison_of_nothing_where_leases_are_as_long_as_they_are_by_default() {
    let mut chance = seeded("a_storm_of_kills_makes_poison_of_nothing");
    let storm = duration(Duration::from_secs(8), 0.02);
    let number = 20 * u32::try_from(storm.as_secs()).unwrap();
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok().delayed(Duration::from_millis(100)));
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), UNLIMITED);
    let ingress = installation.start("sms-ingress").await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(installation.start("sms-worker").await);
    }
    let ledger = Ledger::new();
    let posting = {
        let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
        tokio::spawn(async move { ledger.post_all(&poster, &[door], 0..number, 8).await })
    };
    let every = Duration::from_millis(700);
    let kills = kill_while(posting, storm, every, &installation, &ledger, &mut workers, &mut chance).await;
    // By default each channel has 64 attempts in hand, and 64 outcomes that are being recorded.
    let allowed = Allowed { duplicates: kills * 2 * (64 + 64), ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("storm, leases of 15 s", "one of three workers killed every 0.7 s");
    assert_eq!(figures.messages, number as usize);
}

/// How much a worker says it has taken over.
async fn taken_over(installation: &Installation, worker: &Program) -> usize {
    let (_, metrics) = installation.ops(worker, "metrics").await.expect("it answers");
    let reclaimed =
        metrics.lines().find_map(|line| line.strip_prefix("sms_broadcaster_leases_reclaimed_total "));
    reclaimed.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number in {metrics}"))
}

/// None of them lives until it looks for abandoned work for the second time.
#[tokio::test]
async fn workers_that_never_live_long_take_over_from_each_other() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.script(recipient, [Reply::ok().delayed(Duration::from_secs(60))]);
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let mut first = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    assert!(ledger.post(installation.poster(), ingress.ingress, 0).await);
    provider.wait_until("it has all three in hand", |requests| requests.len() == 3).await;
    ledger.fault();
    first.kill();
    let (mut lives, mut heirs) = (0, 0);
    while provider.requests().len() < 6 {
        assert!(lives < 40, "{lives} workers left what the first one left");
        let before = provider.requests().len();
        let mut worker = installation.start("sms-worker").await;
        tokio::time::sleep(LIFE).await;
        // What it took over it sends, however slow the machine is.
        let taken_over = taken_over(&installation, &worker).await;
        provider.wait_until("it sent that", |requests| requests.len() >= before + taken_over).await;
        worker.kill();
        lives += 1;
        heirs += usize::from(taken_over > 0);
    }
    let _last = installation.start("sms-worker").await;
    // Whatever a worker sent may not be recorded.
    let allowed = Allowed { duplicates: 3 * (heirs + 1), ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("short lives", "each worker is killed a quarter of a second after it is ready");
}

#[tokio::test]
async fn the_embedded_service_is_killed_under_load() {
    let mut chance = seeded("the_embedded_service_is_killed_under_load");
    let storm = duration(Duration::from_secs(6), 0.03);
    let number = PER_SECOND * u32::try_from(storm.as_secs()).unwrap();
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, FAST);
    let mut service = installation.start("sms-broadcaster").await;
    let ledger = Ledger::new();
    let posting = {
        let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), service.ingress);
        tokio::spawn(async move { ledger.post_all(&poster, &[door], 0..number, 8).await })
    };
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < storm {
        tokio::time::sleep(Duration::from_millis(chance.u64(200..1200))).await;
        ledger.fault();
        service.kill();
        kills += 1;
        let again = installation.program("sms-broadcaster").in_place_of(&service);
        service = again.start().await;
    }
    posting.await.unwrap();
    let allowed = Allowed { duplicates: kills * IN_FLIGHT, dead: kills, unsent: kills, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("embedded storm", "the service killed every 0.7 s");
    assert_eq!(figures.messages, number as usize);
    installation.wait_for_metric(&service, "sms_broadcaster_conservation_error 0").await;
    assert_eq!(service.stop(), Some(0));
}
