//! What people and schedulers do: stop a process and let it go on, kill an ingress under its requests, empty
//! the store, remove parts of it, forget its scripts.

use std::time::{Duration, Instant};

use super::{FAST, IN_FLIGHT, STEADY, at_most_every, make_due, until_delayed};
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, LOOK, PHONES, RECIPIENTS, sid};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// What a worker was about to say when it was stopped is old when it goes on.
#[tokio::test]
async fn a_worker_that_is_stopped_for_longer_than_its_leases_disturbs_nobody_when_it_goes_on() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok().delayed(Duration::from_millis(500)));
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let mut stopped = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..10, 8).await;
    provider.wait_until("it has some in hand", |requests| requests.len() >= 5).await;
    stopped.signal("STOP");
    ledger.fault();
    let _other = installation.start("sms-worker").await;
    let store = installation.store();
    let end = Instant::now() + Duration::from_secs(60);
    while store.admin.stats().await.is_ok_and(|stats| stats.pending > 0) {
        assert!(Instant::now() < end, "the other did not take over");
        tokio::time::sleep(LOOK).await;
    }
    stopped.signal("CONT");
    // What it says now of what it held is believed or not; the check tells. Then it works on.
    installation.wait_for_readiness(&mut stopped, 200).await;
    ledger.post_all(installation.poster(), &[ingress.ingress], 10..20, 8).await;
    let allowed = Allowed { duplicates: IN_FLIGHT, ..Allowed::default() };
    ledger.check(&installation, &provider, allowed).await.show("stopped", "a worker stopped past its leases");
}

/// Repeats of everything at three ingresses of which one after another is killed.
#[tokio::test]
async fn ingresses_are_killed_under_their_requests_and_repeats_change_nothing() {
    let mut chance = seeded("ingresses_are_killed_under_their_requests_and_repeats_change_nothing");
    let time = duration(Duration::from_secs(4), 0.02);
    let number = 40 * u32::try_from(time.as_secs()).unwrap();
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let mut ingresses = Vec::new();
    for _ in 0..3 {
        ingresses.push(installation.start("sms-ingress").await);
    }
    let _worker = installation.start("sms-worker").await;
    let doors = [ingresses[0].ingress, ingresses[1].ingress, ingresses[2].ingress];
    let ledger = Ledger::new();
    let posting: Vec<_> = (0..3_usize)
        .map(|first| {
            let (ledger, poster) = (ledger.clone(), installation.poster().clone());
            let doors = [doors[first], doors[(first + 1) % 3], doors[(first + 2) % 3]];
            tokio::spawn(async move { ledger.post_all(&poster, &doors, 0..number, 8).await })
        })
        .collect();
    let mut every = at_most_every(Duration::from_millis(250));
    while !posting.iter().all(tokio::task::JoinHandle::is_finished) {
        every.tick().await;
        let victim = chance.usize(..3);
        // However long its start takes here, it serves before it is killed again.
        installation.wait_for_readiness(&mut ingresses[victim], 200).await;
        ledger.fault();
        ingresses[victim].kill();
        let again = installation.program("sms-ingress").in_place_of(&ingresses[victim]);
        ingresses[victim] = again.spawn();
    }
    for posted in posting {
        posted.await.unwrap();
    }
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures
        .show("ingress storm", "one of three ingresses killed every 0.25 s, each message posted three times");
    assert_eq!(figures.messages, number as usize);
}

/// Parts of the store are removed and its scripts forgotten while it is at work.
#[tokio::test]
async fn streams_groups_and_scripts_that_are_removed_come_back() {
    let mut chance = seeded("streams_groups_and_scripts_that_are_removed_come_back");
    let time = duration(Duration::from_secs(4), 0.02);
    let number = 40 * u32::try_from(time.as_secs()).unwrap();
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let _workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    let ledger = Ledger::new();
    let posting = {
        let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
        tokio::spawn(async move { ledger.post_all(&poster, &[door], 0..number, 8).await })
    };
    let began = Instant::now();
    let mut every = at_most_every(Duration::from_millis(100));
    let mut faults = 0;
    while began.elapsed() < time {
        every.tick().await;
        ledger.fault();
        faults += 1;
        redis.command("SCRIPT FLUSH");
        let stream = chance.choice(["in", "rdy:sms", "rdy:slack"]).unwrap();
        match chance.u8(..8) {
            0 => redis.command(&format!("DEL sq1:{{0}}:{stream}")),
            1 => redis.command(&format!("XTRIM sq1:{{0}}:{stream} MAXLEN 0")),
            2 => redis.command(&format!("XGROUP DESTROY sq1:{{0}}:{stream} w")),
            _ => String::new(),
        };
    }
    posting.await.unwrap();
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    println!("{}", String::from_utf8_lossy(&repaired.stdout));
    let allowed = Allowed { duplicates: faults * 2 * IN_FLIGHT, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("operator", "streams deleted, trimmed, without group; scripts forgotten every 0.1 s");
    assert_eq!(figures.messages, number as usize);
}

/// A store that is emptied under its services says so, and what comes later arrives.
#[tokio::test]
async fn a_store_that_is_emptied_at_work_is_told_and_goes_on() {
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let worker = installation.start("sms-worker").await;
    // It knows which store it works on once it has looked for abandoned work.
    let end = Instant::now() + Duration::from_secs(60);
    while redis.command("HEXISTS sq1:{0}:stat born") != ":1" {
        assert!(Instant::now() < end, "it did not look");
        tokio::time::sleep(LOOK).await;
    }
    let ledger = Ledger::new();
    for round in 0..4 {
        let posting = {
            let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
            tokio::spawn(
                async move { ledger.post_all(&poster, &[door], round * 30..(round + 1) * 30, 8).await },
            )
        };
        provider.wait_for_more(10).await;
        if round < 3 {
            ledger.fault();
            redis.command("FLUSHALL");
        }
        posting.await.unwrap();
    }
    // What comes after the last time is not touched by it.
    ledger.post_all(installation.poster(), &[ingress.ingress], 120..140, 8).await;
    for number in 120..140 {
        let status = installation.wait_until_done(&sid(number)).await;
        for delivery in status["deliveries"].as_array().expect("a list") {
            assert_eq!(delivery["state"], "delivered", "{status}");
        }
    }
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = installation.ops(&worker, "metrics").await.expect("it answers").1;
        if !metrics.contains("sms_broadcaster_stream_group_recreated_total 0\n") {
            break;
        }
        assert!(Instant::now() < end, "it is not told: {metrics}");
        tokio::time::sleep(LOOK).await;
    }
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stdout));
    let allowed =
        Allowed { duplicates: 3 * IN_FLIGHT, dead: 400, unsent: 400, forgotten: true, ..Allowed::default() };
    ledger.check(&installation, &provider, allowed).await.show("emptied", "FLUSHALL at work, three times");
}

/// What a failover may lose, made by hand beside services at work: a text, a delay, a whole record.
#[tokio::test]
async fn what_a_failover_lost_is_put_right_beside_the_services() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::status(503).header("Retry-After", "300"));
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let ingress = installation.start("sms-ingress").await;
    let _worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..4, 4).await;
    until_delayed(&installation, 12).await;
    let (lost, textless, unplaced) = (sid(0), sid(1), sid(2));
    redis.command(&format!("DEL sq1:{{0}}:m:{lost}"));
    redis.command(&format!("HDEL sq1:{{0}}:m:{textless} ct"));
    redis.command(&format!("ZREM sq1:{{0}}:due:sms {unplaced}|1 {unplaced}|2"));

    let told = installation.smsctl(&["doctor"]);
    let page = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(1), "{page}");
    assert!(page.contains(&textless), "{page}");
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    let page = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert_eq!(repaired.status.code(), Some(0), "{page}");
    for phone in PHONES {
        assert!(!page.contains(&phone[1..]), "{page}");
    }
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }
    make_due(&redis, Duration::ZERO);
    // The worker looks at what is due when there is something new.
    assert!(ledger.post(installation.poster(), ingress.ingress, 4).await);
    let states = async |number| {
        let status = installation.wait_until_done(&sid(number)).await;
        let deliveries = status["deliveries"].as_array().expect("a list");
        deliveries.iter().map(|d| d["state"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(2).await, ["delivered"; 3]);
    assert_eq!(states(3).await, ["delivered"; 3]);
    assert_eq!(states(1).await, ["dead"; 3]);
    // Of the message that is gone three letters tell.
    let letters = installation.smsctl_json(&["dead", "list", "--cause", "poison", "--json"]);
    assert_eq!(letters.as_array().map(Vec::len), Some(6), "{letters}");
    let allowed = Allowed { dead: 3, unsent: 3, forgotten: true, ..Allowed::default() };
    ledger.check(&installation, &provider, allowed).await;
}

/// Work that has seen two workers vanish may be what made them vanish.
#[tokio::test]
async fn suspects_run_one_at_a_time_in_a_process_whatever_their_lanes() {
    const TAKES: Duration = Duration::from_millis(700);
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.script(recipient, [Reply::status(503).header("Retry-After", "300")]);
        provider.always(recipient, Reply::ok().delayed(TAKES));
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let ingress = installation.start("sms-ingress").await;
    let mut first = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    assert!(ledger.post(installation.poster(), ingress.ingress, 0).await);
    until_delayed(&installation, 3).await;
    assert_eq!(first.stop(), Some(0));
    // Each was handed out twice before, and nobody came back.
    let record = format!("sq1:{{0}}:m:{}", sid(0));
    for index in 1..=3 {
        let state = redis.command(&format!("HGET {record} s{index}"));
        let state = state.lines().last().expect("a reply").to_owned();
        let mut parts: Vec<&str> = state.split('|').collect();
        parts[3] = "2";
        redis.command(&format!("HSET {record} s{index} {}", parts.join("|")));
    }
    make_due(&redis, Duration::ZERO);
    let _worker = installation.start("sms-worker").await;
    ledger.check(&installation, &provider, Allowed::default()).await;
    let sends: Vec<_> = provider.requests().into_iter().filter(|request| request.accepted()).collect();
    for pair in sends.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart >= TAKES, "{} and {} run together", pair[0].destination, pair[1].destination);
    }
}
