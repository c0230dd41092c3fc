//! The main job with real programs: a webhook in, every recipient served, whatever dies on the way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::installation::{Installation, PHONES, SLACK, sid};
use crate::support::provider::{Provider, Received, Reply};
use crate::support::redis_server::RedisServer;

const FAST: &str = "[worker]\nlease = \"2s\"\n\n[retry]\nbase = \"100ms\"\n\n\
    [channel.sms]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";
const SENDER: &str = "+12223334444";

fn text(number: u32) -> String {
    format!("your code is {:06}", 100_000 + number)
}

/// Which of the texts each recipient has, by the provider's own book.
fn has_all(requests: &[Received], numbers: &BTreeSet<u32>) -> bool {
    let wanted: BTreeSet<String> = numbers.iter().map(|&number| text(number)).collect();
    [PHONES[0], PHONES[1], SLACK].iter().all(|destination| {
        let texts: Vec<String> = requests
            .iter()
            .filter(|request| request.destination == *destination && request.accepted())
            .map(Received::text)
            .collect();
        wanted.iter().all(|wanted| texts.iter().any(|text| text.contains(wanted.as_str())))
    })
}

/// How many requests for a destination the provider accepted.
fn arrived(requests: &[Received], destination: &str) -> usize {
    requests.iter().filter(|request| request.destination == destination && request.accepted()).count()
}

#[tokio::test]
async fn a_text_reaches_every_recipient_once_and_a_repeat_changes_nothing() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, FAST);
    let mut program = installation.start("sms-broadcaster").await;
    for _ in 0..3 {
        assert_eq!(installation.post(program.ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    }
    let expected = BTreeSet::from([1]);
    provider.wait_until("all three have it", |requests| has_all(requests, &expected)).await;
    for state in ["ready", "leased", "delayed"] {
        for channel in ["in", "sms", "slack"] {
            let line = format!("sms_broadcaster_queue_depth{{channel=\"{channel}\",state=\"{state}\"}} 0");
            installation.wait_for_metric(&program, &line).await;
        }
    }
    installation
        .wait_for_metric(&program, "sms_broadcaster_deliveries_total{channel=\"sms\",state=\"delivered\"} 2")
        .await;
    installation.wait_for_metric(&program, "sms_broadcaster_conservation_error 0").await;
    assert_eq!(provider.requests().len(), 3);
    assert_eq!(program.stop(), Some(0));
}

#[tokio::test]
async fn one_recipient_that_hangs_or_fails_delays_nobody_else() {
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::hang());
    provider.script(SLACK, [Reply::status(503), Reply::too_many("1")]);
    // Few slots and a long time-out: served one after another, the hanging phone's texts would take longer
    // than the provider waits.
    let few_slots = FAST
        .replace("lease = \"2s\"", "lease = \"15s\"\nconcurrency = 4")
        .replace("timeout = \"1s\"", "timeout = \"10s\"");
    let installation = Installation::embedded(&provider, &few_slots);
    let program = installation.start("sms-broadcaster").await;
    for number in 0..20 {
        assert_eq!(installation.post(program.ingress, &sid(number), SENDER, &text(number)).await, Some(200));
    }
    provider
        .wait_until("the others have all", |requests| {
            arrived(requests, PHONES[1]) == 20 && arrived(requests, SLACK) == 20
        })
        .await;
}

#[tokio::test]
async fn a_429_that_outlasts_its_message_expires_it_and_holds_its_phone_for_every_worker() {
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::too_many("1800"));
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let program = installation.start("sms-ingress").await;
    let ingress = program.ingress;
    let first = installation.start("sms-worker").await;
    assert_eq!(installation.post(ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    let expired = "sms_broadcaster_deliveries_total{channel=\"sms\",state=\"expired\"} 1";
    installation.wait_for_metric(&first, expired).await;

    // Those that come after wait for it, whichever worker they come to.
    let _second = installation.start("sms-worker").await;
    let numbers: BTreeSet<u32> = (2..22).collect();
    for &number in &numbers {
        assert_eq!(installation.post(ingress, &sid(number), SENDER, &text(number)).await, Some(200));
    }
    let parked = "sms_broadcaster_queue_depth{channel=\"sms\",state=\"delayed\"} 20";
    installation.wait_for_metric(&first, parked).await;
    assert_eq!(provider.received(PHONES[0]).len(), 1);
    provider.wait_until("the other phone has all", |requests| arrived(requests, PHONES[1]) == 21).await;
}

#[tokio::test]
async fn a_permanent_refusal_is_tried_once() {
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::twilio_error(400, 21610));
    let installation = Installation::embedded(&provider, FAST);
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), "AMAZON", &text(1)).await, Some(200));
    installation.wait_for_metric(&program, "sms_broadcaster_dead_letters{cause=\"permanent\"} 1").await;
    installation
        .wait_for_metric(&program, "sms_broadcaster_messages_routed_total{match=\"fallback\"} 1")
        .await;
    assert_eq!(provider.received(PHONES[0]).len(), 1);
}

#[tokio::test]
async fn nothing_that_was_answered_200_is_lost_when_the_service_is_killed_again_and_again() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, FAST);
    let mut answered = BTreeSet::new();
    for round in 0..4_u32 {
        let mut program = installation.start("sms-broadcaster").await;
        for number in round * 50..(round + 1) * 50 {
            if installation.post(program.ingress, &sid(number), SENDER, &text(number)).await == Some(200) {
                answered.insert(number);
            }
        }
        program.kill();
    }
    let program = installation.start("sms-broadcaster").await;
    provider.wait_until("every answered message arrived", |requests| has_all(requests, &answered)).await;
    assert_eq!(answered.len(), 200);
    installation.wait_for_metric(&program, "sms_broadcaster_conservation_error 0").await;
}

#[tokio::test]
async fn on_redis_nothing_is_lost_while_workers_are_killed() {
    let provider = Provider::start();
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingresses = [installation.start("sms-ingress").await, installation.start("sms-ingress").await];
    let mut workers = vec![installation.start("sms-worker").await, installation.start("sms-worker").await];
    let numbers: BTreeSet<u32> = (0..300).collect();
    for &number in &numbers {
        let ingress = ingresses[number as usize % 2].ingress;
        assert_eq!(installation.post(ingress, &sid(number), SENDER, &text(number)).await, Some(200));
        if number % 100 == 99 {
            workers.remove(0).kill();
            workers.push(installation.start("sms-worker").await);
        }
    }
    provider.wait_until("everybody has everything", |requests| has_all(requests, &numbers)).await;
    let worker = workers.last_mut().expect("a worker");
    for channel in ["in", "sms", "slack"] {
        let line = format!("sms_broadcaster_queue_depth{{channel=\"{channel}\",state=\"leased\"}} 0");
        installation.wait_for_metric(worker, &line).await;
    }
    installation.wait_for_metric(worker, "sms_broadcaster_conservation_error 0").await;
    assert_eq!(worker.stop(), Some(0));
}

#[tokio::test]
async fn on_redis_work_goes_on_after_the_server_was_killed_and_started_again() {
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    redis.kill();
    assert_eq!(installation.post(program.ingress, &sid(2), SENDER, &text(2)).await, Some(503));
    redis.restart();
    let end = Instant::now() + Duration::from_secs(30);
    // Refused quickly until the next attempt to connect is due.
    while installation.post(program.ingress, &sid(2), SENDER, &text(2)).await != Some(200) {
        assert!(Instant::now() < end, "still refused 30 s after the server came back");
        tokio::task::yield_now().await;
    }
    let expected = BTreeSet::from([1, 2]);
    provider.wait_until("both arrived", |requests| has_all(requests, &expected)).await;
}
