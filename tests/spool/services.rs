//! The spool in real programs.

use std::time::{Duration, Instant};

use crate::support::installation::{Installation, Program, on_redis, sid};
use crate::support::ledger::{Allowed, Ledger, SENDER, text};
use crate::support::provider::Provider;
use crate::support::proxy::{Line, Proxy};
use crate::support::redis_server::RedisServer;

const FAST: &str = "[channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";

/// What a refusal, and so everything else, must have come by.
const IN_TIME: Duration = Duration::from_secs(3);

fn with_spool(url: &str) -> String {
    format!("{}\nspool = \"spool\"", on_redis(url))
}

async fn readiness(installation: &Installation, program: &Program) -> (u16, String) {
    installation.ops(program, "readyz").await.expect("it answers")
}

async fn post_in_time(ledger: &Ledger, installation: &Installation, ingress: &Program, number: u32) {
    let began = Instant::now();
    assert!(ledger.post(installation.poster(), ingress.ingress, number).await, "refused");
    assert!(began.elapsed() < IN_TIME, "answered only after {:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_refused_or_lost_while_redis_is_away_and_the_ingress_is_killed() {
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let queue = with_spool(&redis.url());
    let mut ingress = installation.program("sms-ingress").queue(&queue).start().await;
    let worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    for number in 0..5 {
        post_in_time(&ledger, &installation, &ingress, number).await;
    }
    assert_eq!(readiness(&installation, &ingress).await, (200, "ok\n".to_owned()));

    ledger.fault();
    redis.kill();
    for number in 5..20 {
        post_in_time(&ledger, &installation, &ingress, number).await;
    }
    assert_eq!(readiness(&installation, &ingress).await, (200, "spooling\n".to_owned()));
    installation.wait_for_metric(&ingress, "sms_broadcaster_spool_messages 15").await;
    let spooled = "sms_broadcaster_webhooks_total{result=\"spooled\",source=\"twilio\"} 15";
    installation.wait_for_metric(&ingress, spooled).await;

    ingress.kill();
    let ingress = installation.program("sms-ingress").in_place_of(&ingress).queue(&queue).start().await;
    assert_eq!(readiness(&installation, &ingress).await, (200, "spooling\n".to_owned()));
    for number in 20..30 {
        post_in_time(&ledger, &installation, &ingress, number).await;
    }
    installation.wait_for_metric(&ingress, "sms_broadcaster_spool_messages 25").await;

    let mut second = installation.program("sms-ingress").queue(&queue).spawn();
    assert_eq!(second.wait_for_end().await.code(), Some(1), "a spool belongs to one process");
    let log = second.log();
    assert!(log.iter().any(|line| line.contains("the spool: ")), "{log:#?}");

    redis.restart();
    installation.wait_for_metric(&ingress, "sms_broadcaster_spool_messages 0").await;
    ledger.check(&installation, &provider, Allowed::default()).await;
    assert_eq!(readiness(&installation, &ingress).await, (200, "ok\n".to_owned()));
    drop(worker);
}

#[tokio::test]
async fn a_black_hole_before_redis_refuses_nobody() {
    let provider = Provider::start();
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port(), 0);
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let mut program =
        installation.program("sms-broadcaster").queue(&with_spool(&proxy.redis_url())).start().await;
    let ledger = Ledger::new();
    post_in_time(&ledger, &installation, &program, 0).await;
    ledger.fault();
    proxy.set(Line::BlackHole);
    for number in 1..10 {
        post_in_time(&ledger, &installation, &program, number).await;
    }
    proxy.set(Line::Good);
    installation.wait_for_metric(&program, "sms_broadcaster_spool_messages 0").await;
    ledger.check(&installation, &provider, Allowed::default()).await;
    assert_eq!(program.stop(), Some(0));
}

#[tokio::test]
async fn started_while_redis_is_away_an_ingress_with_a_spool_takes_messages_at_once() {
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    redis.kill();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = installation.program("sms-ingress").queue(&with_spool(&redis.url())).start().await;
    let began = Instant::now();
    let status = installation.post(ingress.ingress, &sid(1), SENDER, &text(1)).await;
    assert_eq!(status, Some(200));
    assert!(began.elapsed() < IN_TIME);
    redis.restart();
    let worker = installation.start("sms-worker").await;
    installation.wait_for_metric(&ingress, "sms_broadcaster_spool_messages 0").await;
    installation.wait_until_done(&sid(1)).await;
    drop(worker);
}
