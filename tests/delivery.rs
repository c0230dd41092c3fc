//! The main job with real programs: a webhook in, every recipient served, whatever dies on the way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::installation::{Installation, PHONES, RECIPIENTS, SLACK, sid};
use crate::support::provider::{Provider, Received, Reply};
use crate::support::redis_server::RedisServer;

/// Quick retries; leases and time-outs that no worker outlasts because the machine has other work.
const FAST: &str = "[worker]\nlease = \"10s\"\n\n[retry]\nbase = \"100ms\"\n\n\
    [channel.sms]\ntimeout = \"9s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"9s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";
const SENDER: &str = "+12223334444";

fn text(number: u32) -> String {
    format!("your code is {:06}", 100_000 + number)
}

/// Which of the texts each recipient has, by the provider's own book.
fn has_all(requests: &[Received], numbers: &BTreeSet<u32>) -> bool {
    let wanted: BTreeSet<String> = numbers.iter().map(|&number| text(number)).collect();
    RECIPIENTS.iter().all(|destination| {
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
        .replace("lease = \"10s\"", "lease = \"2m\"\nconcurrency = 4")
        .replace("timeout = \"9s\"", "timeout = \"1m\"");
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
async fn the_answer_does_not_wait_for_any_provider() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::hang());
    }
    // Longer than this test is given: no attempt ends before the last answer.
    let endless = "[worker]\nlease = \"10m\"\nconcurrency = 2\n\n[channel.sms]\ntimeout = \"5m\"\n\n\
        [channel.slack]\ntimeout = \"5m\"\n";
    let installation = Installation::embedded(&provider, endless);
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(0), SENDER, &text(0)).await, Some(200));
    provider.wait_until("all three providers hang", |requests| requests.len() >= 3).await;
    for number in 1..100 {
        assert_eq!(installation.post(program.ingress, &sid(number), SENDER, &text(number)).await, Some(200));
    }
    assert!(provider.requests().iter().all(|request| request.status.is_none()));
    let ended = "sms_broadcaster_delivery_attempts_total";
    let (_, metrics) = installation.ops(&program, "metrics").await.expect("it answers");
    assert!(
        metrics.lines().filter(|line| line.starts_with(ended)).all(|line| line.ends_with(" 0")),
        "an attempt ended before the answers: {metrics}"
    );
}

#[tokio::test]
async fn a_429_pauses_its_destination_for_every_worker_and_costs_no_attempt() {
    let provider = Provider::start();
    // Long enough for both workers to be asked about it.
    provider.script(PHONES[0], [Reply::too_many("6")]);
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.start("sms-ingress").await;
    let workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    assert_eq!(installation.post(ingress.ingress, &sid(0), SENDER, &text(0)).await, Some(200));
    let paused = "sms_broadcaster_channel_paused{channel=\"sms\"} 1";
    for worker in &workers {
        installation.wait_for_metric(worker, paused).await;
    }
    let numbers: BTreeSet<u32> = (0..20).collect();
    for &number in &numbers {
        assert_eq!(installation.post(ingress.ingress, &sid(number), SENDER, &text(number)).await, Some(200));
    }
    provider.wait_until("everybody has everything", |requests| has_all(requests, &numbers)).await;
    let phone = provider.received(PHONES[0]);
    let pause = phone[1].at - phone[0].at;
    assert!(pause >= Duration::from_secs(6), "sent again after {pause:?}");
    // The others had theirs before it was over.
    let others_last = [PHONES[1], SLACK].map(|other| provider.received(other)[0].at);
    assert!(others_last.iter().all(|at| *at < phone[1].at));
    for number in numbers {
        let status = installation.wait_until_done(&sid(number)).await;
        for delivery in status["deliveries"].as_array().expect("a list") {
            assert_eq!(delivery["attempts"], 1, "{status}");
        }
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_expires_that_delivery_alone() {
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::too_many("3600"));
    provider.always(SLACK, Reply::status(503).header("Retry-After", "1"));
    let short = format!("[message]\ndeadline = \"6s\"\n\n{FAST}");
    let installation = Installation::embedded(&provider, &short);
    let program = installation.start("sms-broadcaster").await;
    let posted = Instant::now();
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    let answered = Instant::now();
    installation.wait_for_metric(&program, "sms_broadcaster_dead_letters{cause=\"expired\"} 2").await;
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    for letter in letters.as_array().expect("a list") {
        assert_eq!(letter["cause"], "expired", "{letters}");
        assert_eq!(letter["maybe_sent"], false, "{letters}");
    }
    // The phone was asked once and never again; Slack as often as it asked for, and not after the end.
    assert_eq!(provider.received(PHONES[0]).len(), 1);
    assert_eq!(provider.received(PHONES[1]).iter().filter(|request| request.accepted()).count(), 1);
    let slack = provider.received(SLACK);
    assert!((2..=6).contains(&slack.len()), "{} attempts", slack.len());
    for (earlier, later) in slack.iter().zip(&slack[1..]) {
        assert!(later.at - earlier.at >= Duration::from_secs(1), "sooner than it asked for");
    }
    let last = slack.last().expect("there are some").at.into_std();
    // Three seconds for a request to get from the worker to the provider on a busy machine.
    assert!(last <= answered + Duration::from_secs(6 + 3), "sent {:?} after it was posted", last - posted);
    let stats = installation.smsctl_json(&["stats", "--json"]);
    assert_eq!(stats["deliveries"]["expired"], 2, "{stats}");
    assert_eq!(stats["deliveries"]["delivered"], 1, "{stats}");
    assert_eq!(stats["deliveries"]["dead"], 0, "{stats}");
}

#[tokio::test]
async fn a_recipient_that_hangs_is_tried_again_until_the_deadline_and_may_have_been_sent() {
    let provider = Provider::start();
    provider.always(PHONES[0], Reply::hang());
    let hasty = FAST.replace("timeout = \"9s\"", "timeout = \"2s\"");
    let installation = Installation::embedded(&provider, &format!("[message]\ndeadline = \"8s\"\n\n{hasty}"));
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    installation.wait_for_metric(&program, "sms_broadcaster_dead_letters{cause=\"expired\"} 1").await;
    let tries = provider.received(PHONES[0]).len();
    assert!((2..=5).contains(&tries), "{tries} attempts of two seconds in eight");
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    assert_eq!(letters[0]["maybe_sent"], true, "{letters}");
    assert_eq!(letters[0]["attempts"], tries, "{letters}");
    for other in [PHONES[1], SLACK] {
        assert_eq!(provider.received(other).len(), 1, "{other}");
    }
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

#[tokio::test]
async fn a_service_is_known_by_its_text_whatever_the_number_and_the_log_says_by_what_never_what() {
    let provider = Provider::start();
    let templates = "[templates]\nsms = \"{service}: {code} ({expires_in}, {domain})\"\n\n";
    let installation = Installation::embedded(&provider, &format!("{templates}{FAST}"));
    installation.write_subscribers(&format!(
        "[[subscriber]]\nname = \"Git people\"\nservice = [\"fernway\"]\ndeadline = \"auto\"\nsms = [\"{}\"]\n\n\
         [fallback]\nsms = [\"{}\"]\n",
        PHONES[0], PHONES[1]
    ));
    let mut program = installation.start("sms-broadcaster").await;
    let body = "481902 is your Fernway code. It expires in 2 minutes.";
    for (number, from) in [(1, "+12223334444"), (2, "72404")] {
        assert_eq!(installation.post(program.ingress, &sid(number), from, body).await, Some(200));
    }
    assert_eq!(installation.post(program.ingress, &sid(3), "72404", "See you at noon").await, Some(200));
    for number in 1..=3 {
        installation.wait_until_done(&sid(number)).await;
    }
    let texts = |phone: &str| provider.received(phone).iter().map(Received::text).collect::<Vec<_>>();
    let said = "Fernway: 481902 (2 minutes, no stated site)".to_owned();
    assert_eq!(texts(PHONES[0]), [said.clone(), said]);
    assert_eq!(texts(PHONES[1]), ["unknown service: no code found (an unstated time, no stated site)"]);
    // The text shortened the deadline of ten minutes.
    let validity =
        |phone: &str| provider.received(phone)[0].field("ValidityPeriod").unwrap().parse::<u64>().unwrap();
    assert!((100..=120).contains(&validity(PHONES[0])), "{}", validity(PHONES[0]));
    assert!(validity(PHONES[1]) > 500);
    assert_eq!(program.stop(), Some(0));
    let log = program.log().join("\n");
    assert!(log.contains("by_service=true code_by=\"noun\" service_by=\"phrase\""), "{log}");
    assert!(!log.contains("481902") && !log.to_lowercase().contains("fernway"), "{log}");
}
