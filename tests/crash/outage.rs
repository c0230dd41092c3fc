//! The provider is away for longer than some codes live.

use std::time::Duration;

use sms_broadcaster::delivery::DeadCause;
use sms_broadcaster::queue::contract::DeadFilter;

use super::STEADY;
use crate::support::chance::{duration, is_chaos};
use crate::support::installation::{Installation, LOOK, PHONES, Program, RECIPIENTS, SLACK};
use crate::support::ledger::{Allowed, Ledger, SENDER};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Who sends codes that live for [`LIFE`] only.
const HURRIED: &str = "+12223334455";
const LIFE: Duration = Duration::from_secs(5);

/// A last try may be refused this long before the end, and there is no time for another.
const EARLY: Duration = Duration::from_secs(4);

/// Housekeeping comes by once a second or two; the machine may have other work.
const LATE: Duration = Duration::from_secs(10);

/// What an attempt that began in time may take to arrive on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Memory that attempts in vain may take, in KiB.
const GROWTH: u64 = 8 * 1024;

/// Nobody gives up before the deadline.
fn stubborn() -> String {
    STEADY.replace("[retry]\n", "[retry]\nmax_attempts = 1000\n")
}

fn write_subscribers(installation: &Installation, provider: &Provider) {
    let to = format!("sms = {PHONES:?}\nslack = [\"{}\"]\n", provider.slack_url(SLACK));
    let life = LIFE.as_secs();
    installation.write_subscribers(&format!(
        "[[subscriber]]\nname = \"Hurried\"\nfrom = [\"{HURRIED}\"]\ndeadline = \"{life}s\"\n{to}\n\
         [[subscriber]]\nname = \"Example\"\nfrom = [\"{SENDER}\"]\n{to}\n[fallback]\nname = \"Unknown\"\n{to}"
    ));
}

/// `store`: what the store takes, in KiB.
async fn outlives_an_outage(
    name: &str,
    provider: &Provider,
    installation: &Installation,
    ingress: &Program,
    worker: &Program,
    store: impl Fn() -> u64,
) {
    let number: u32 = if is_chaos() { 100 } else { 25 };
    let time = duration(Duration::from_secs(9), 0.015);
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::status(503));
    }
    let ledger = Ledger::new();
    ledger.fault();
    for hurried in 0..number {
        let taken = ledger.post_from(HURRIED, installation.poster(), ingress.ingress, hurried).await;
        assert_eq!(taken, Some(200));
    }
    ledger.post_all(installation.poster(), &[ingress.ingress], number..2 * number, 4).await;
    let began = tokio::time::Instant::now();
    provider.wait_for_more(number as usize).await;
    let (resident, stored) = (worker.resident(), store());

    let (admin, expected) = (installation.store().admin, 3 * u64::from(number));
    loop {
        let stats = admin.stats().await.expect("the store answers");
        assert!(stats.expired <= expected, "some expired whose code lives on: {stats:?}");
        if stats.expired == expected && began.elapsed() >= time {
            break;
        }
        assert!(began.elapsed() < time + LIFE + LATE, "not all have expired: {stats:?}");
        tokio::time::sleep(LOOK).await;
    }
    let (resident_now, stored_now) = (worker.resident(), store());
    println!("{name}: resident {resident} to {resident_now} KiB, stored {stored} to {stored_now} KiB");
    assert!(resident_now <= resident + GROWTH, "resident memory grew from {resident} to {resident_now} KiB");
    assert!(stored_now <= stored + GROWTH, "what is stored grew from {stored} to {stored_now} KiB");

    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }
    let dead = 3 * number as usize;
    let allowed = Allowed { dead, unsent: dead, ..Allowed::default() };
    let figures = ledger.check(installation, provider, allowed).await;
    figures.show(name, &format!("every provider answers 503 for {} s", began.elapsed().as_secs()));
    assert_eq!(figures.dead, dead, "the others outlived it");

    let letters = admin.dead_letters(&DeadFilter::default(), 10_000).await.expect("the store answers");
    assert_eq!(letters.len(), dead);
    for letter in letters {
        let lived = letter.died_at.since(letter.accepted_at);
        assert_eq!((letter.cause, letter.subscriber.as_str()), (DeadCause::Expired, "Hurried"));
        assert!(lived + EARLY >= LIFE && lived <= LIFE + LATE, "it lived for {lived:?}: {letter:?}");
    }
    for request in provider.requests() {
        let number =
            (0..number).find(|number| request.text().contains(&crate::support::ledger::text(*number)));
        let Some(taken) = number.and_then(|number| ledger.taken_at(number)) else { continue };
        // It was accepted before it was answered.
        let after = request.at.into_std().saturating_duration_since(taken);
        assert!(after <= LIFE + ON_ITS_WAY, "sent {after:?} after it was accepted");
    }
}

#[tokio::test]
async fn on_redis_what_outlives_its_code_in_an_outage_expires_and_the_rest_arrives() {
    let (provider, redis) = (Provider::start(), RedisServer::start());
    let installation = Installation::redis(&provider, &redis.url(), &stubborn());
    write_subscribers(&installation, &provider);
    let ingress = installation.start("sms-ingress").await;
    let worker = installation.start("sms-worker").await;
    let used = || redis.info("used_memory") / 1024;
    outlives_an_outage("outage", &provider, &installation, &ingress, &worker, used).await;
}

#[tokio::test]
async fn embedded_what_outlives_its_code_in_an_outage_expires_and_the_rest_arrives() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, &stubborn());
    write_subscribers(&installation, &provider);
    let service = installation.start("sms-broadcaster").await;
    let file = installation.folder().join("queue.db");
    let used = || std::fs::metadata(&file).expect("it is there").len() / 1024;
    outlives_an_outage("embedded outage", &provider, &installation, &service, &service, used).await;
}
