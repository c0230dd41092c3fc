//! Moving from the embedded store to Redis as docs/operations.md says: the new one takes what comes in, the old
//! one delivers what it has and is stopped when it is empty.

use std::time::Duration;

use serde_json::Value;

use crate::support::installation::{Installation, PHONES, RECIPIENTS, sid};
use crate::support::provider::{Provider, Received, Reply};
use crate::support::redis_server::RedisServer;

const FAST: &str = "[retry]\nbase = \"100ms\"\ncap = \"200ms\"\nmax_attempts = 1000\n\n\
    [channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";
const SENDER: &str = "+12223334444";

fn pending(installation: &Installation) -> Value {
    installation.smsctl_json(&["stats", "--json"])["deliveries"]["pending"].clone()
}

async fn wait_until_empty(installation: &Installation) {
    for _ in 0..600 {
        if pending(installation) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not empty in 30 s: {}", pending(installation));
}

#[tokio::test]
async fn the_embedded_store_is_left_for_redis_without_losing_or_repeating_a_text() {
    let provider = Provider::start();
    let redis = RedisServer::start();
    let old = Installation::embedded(&provider, FAST);
    let mut old_program = old.start("sms-broadcaster").await;
    // One phone does not answer for a while, so there is something to be left.
    provider.always(PHONES[0], Reply::status(503));
    for number in 1..=3 {
        assert_eq!(
            old.post(old_program.ingress, &sid(number), SENDER, &format!("code 10000{number}")).await,
            Some(200)
        );
    }
    provider
        .wait_until("the phone was tried", |requests| {
            requests.iter().any(|request| request.destination == PHONES[0])
        })
        .await;

    // The new one, to which the proxy is switched.
    let new = Installation::redis(&provider, &redis.url(), FAST);
    let ingress = new.start("sms-ingress").await;
    let _worker = new.start("sms-worker").await;
    for number in 4..=6 {
        assert_eq!(
            new.post(ingress.ingress, &sid(number), SENDER, &format!("code 10000{number}")).await,
            Some(200)
        );
    }
    assert_ne!(pending(&old), 0, "the old one still has work");

    provider.always(PHONES[0], Reply::ok());
    wait_until_empty(&old).await;
    assert_eq!(old_program.stop(), Some(0));
    wait_until_empty(&new).await;

    let requests = provider.requests();
    for destination in RECIPIENTS {
        for number in 1..=6 {
            let code = format!("10000{number}");
            let taken = |request: &&Received| request.destination == destination && request.accepted();
            let copies =
                requests.iter().filter(taken).filter(|request| request.text().contains(&code)).count();
            assert_eq!(copies, 1, "{code} at {destination}");
        }
    }
}
