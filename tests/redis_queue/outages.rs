//! The server goes, comes, and is short of memory.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::Settlement;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Lane, LaneLimits, Mark, NewMessage, Owner, Queue, QueueAdmin, QueueError,
    QueueSettings, Settle, Settled,
};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};
use sms_broadcaster::queue::sealed::Sealed;
use sms_broadcaster::seal::{KeyId, Keyring, SealingKey};
use tokio::time::{Instant, timeout};

use super::bench::{Bench, GUARD, MINUTE, expansion, id, ids, message, queue_on, sms};
use crate::support::redis_server::RedisServer;
use crate::support::waiting::until;

/// Asks until the server answers again.
async fn until_back(queue: &RedisQueue) {
    let back = timeout(GUARD, async {
        while queue.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    back.await.expect("the queue works again");
}

fn is_unavailable<T>(result: &Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Unavailable(_)))
}

#[tokio::test]
async fn a_killed_server_loses_nothing_and_the_same_queue_goes_on() {
    // By `everysec` a server puts its writes off for up to two seconds while the disk is slow.
    let server = RedisServer::start_with(&["--appendfsync", "always"]);
    let mut bench = Bench::with(server, QueueSettings::default());
    let owner = Owner::new("worker");
    bench.queue.prepare().await.unwrap();
    bench.accept(&ids(0..50)).await;
    let held = bench.claim(&owner, &Lane::inbound(), 10).await.items;
    bench.accept_and_route(&owner, &id(99), &["a"]).await;
    let before = bench.queue.stats().await.unwrap();

    bench.server.kill();
    assert!(is_unavailable(&bench.queue.accept(&[message(&id(100))]).await));
    let lost = bench.queue.settle(
        &owner,
        held.into_iter().map(|w| Settle { lease: w.lease, settlement: Settlement::Delivered }).collect(),
    );
    let back = lost.await.unwrap_err().batch;
    assert_eq!(back.len(), 10);
    assert!(is_unavailable(&bench.queue.wait(&sms(), &Mark::default(), MINUTE).await));

    bench.server.restart();
    until_back(&bench.queue).await;
    assert_eq!(bench.queue.stats().await.unwrap(), before);
    let recorded = bench.queue.settle(&owner, back).await.unwrap();
    assert_eq!(recorded, [Settled::Delivered { late: false }; 10]);
    assert!(bench.queue.reconnects() >= 1);
    bench.drain(&owner).await;
    bench.assert_sound().await;
    assert_eq!(bench.queue.accept(&[message(&id(0))]).await.unwrap(), [Acceptance::Duplicate]);
}

#[tokio::test]
async fn what_could_not_be_recorded_comes_back_unsealed_and_is_sealed_once() {
    let bench = Bench::new();
    let Bench { mut server, queue, .. } = bench;
    let key = SealingKey::written(&KeyId::parse("k1").unwrap(), &[1; 32]);
    let keys = Keyring::new(vec![SealingKey::parse(key.expose_secret()).unwrap()], false);
    let queue = Arc::new(queue);
    let sealed = Sealed::new(Arc::clone(&queue), keys, 0);
    let owner = Owner::new("worker");
    sealed.accept(&[message(&id(1))]).await.unwrap();
    let take = async |lane: &Lane| {
        let limits = LaneLimits::default();
        sealed.claim(Claim { owner: &owner, lane, max: 1, limits, busy: &[] }).await.unwrap().items.remove(0)
    };
    let routing = take(&Lane::inbound()).await;
    let route = expansion(routing.lease, &["a", "b"]);
    let plain: Vec<_> = route.deliveries.iter().map(|to| (to.recipient.clone(), to.label.clone())).collect();

    server.kill();
    let back = sealed.expand(&owner, vec![route]).await.unwrap_err().batch;
    let came: Vec<_> = back[0].deliveries.iter().map(|to| (to.recipient.clone(), to.label.clone())).collect();
    assert_eq!(came, plain);
    server.restart();
    until_back(&queue).await;
    assert_eq!(sealed.expand(&owner, back).await.unwrap(), [Settled::Expanded]);
    assert_eq!(take(&sms()).await.recipient, plain[0].0);
}

#[tokio::test]
async fn a_connection_that_was_cut_while_idle_is_replaced_before_anybody_notices() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    for round in 0..5 {
        bench.accept_and_route(&owner, &id(round), &["a"]).await;
        bench.queue.stats().await.unwrap();
        bench.server.command("CLIENT KILL TYPE normal");
        let new = [message(&id(100 + round))];
        let lane = sms();
        let claim = Claim { owner: &owner, lane: &lane, max: 1, limits: LaneLimits::default(), busy: &[] };
        let (accepted, claimed, counted) =
            tokio::join!(bench.queue.accept(&new), bench.queue.claim(claim), bench.queue.stats());
        assert_eq!(accepted.unwrap(), [Acceptance::Accepted]);
        assert_eq!(claimed.unwrap().items.len(), 1);
        counted.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_comes_later_is_found_and_asked_for_in_vain_without_haste() {
    let mut bench = Bench::new();
    bench.server.kill();
    let queue = queue_on(&bench.server, QueueSettings::default(), &Clock::system());
    assert!(is_unavailable(&queue.prepare().await));
    // Most of these fail without an attempt: a thousand of them take no time.
    let asked = timeout(GUARD, async {
        for _ in 0..1_000 {
            assert!(is_unavailable(&queue.ping().await));
        }
    });
    asked.await.unwrap();
    bench.server.restart();
    until_back(&queue).await;
    queue.prepare().await.unwrap();
    assert_eq!(queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
}

#[tokio::test]
async fn a_wait_that_the_server_breaks_off_fails_at_once() {
    let mut bench = Bench::new();
    let lane = Lane::inbound();
    let mark = Mark::default();
    bench.queue.ping().await.unwrap();
    let queue = &bench.queue;
    let waiting = timeout(GUARD, queue.wait(&lane, &mark, 2 * MINUTE));
    let server = &mut bench.server;
    let (waited, ()) = tokio::join!(waiting, async {
        until("the server has somebody waiting", || server.info("blocked_clients") > 0).await;
        server.kill();
    });
    assert!(is_unavailable(&waited.unwrap()));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_found_again() {
    let bench = Bench::new();
    bench.queue.ping().await.unwrap();
    let signal = |name: &str| {
        let status =
            std::process::Command::new("kill").args([name, &bench.server.pid().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    let began = Instant::now();
    for _ in 0..3 {
        let result = timeout(GUARD, bench.queue.ping()).await.unwrap();
        assert!(is_unavailable(&result));
    }
    assert!(began.elapsed() < GUARD);
    signal("-CONT");
    until_back(&bench.queue).await;
    assert!(bench.queue.reconnects() >= 1);
}

#[tokio::test]
async fn a_queue_that_is_short_of_memory_refuses_what_is_new_and_drains() {
    let server = RedisServer::start_with(&["--maxmemory", "8mb"]);
    let bench = Bench::with(server, QueueSettings::default());
    let owner = Owner::new("worker");
    let mut accepted = 0;
    let refused = loop {
        let batch: Vec<_> = (0..20)
            .map(|n| NewMessage { payload: vec![b'x'; 4_000], ..message(&id(accepted + n)) })
            .collect();
        match bench.queue.accept(&batch).await {
            Ok(answers) => accepted += answers.len(),
            Err(QueueError::Exhausted(_)) => break batch,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(accepted > 100);
    // What the server needs for itself varies: now it is short of memory whatever it needs.
    assert_eq!(bench.redis("CONFIG SET maxmemory 6mb"), "+OK");
    // A duplicate is one all the same, alone and among what is refused.
    assert_eq!(bench.queue.accept(&[message(&id(0))]).await.unwrap(), [Acceptance::Duplicate]);
    // One of them alone might still find room.
    let mixed = [&refused[..], &[message(&id(1))]].concat();
    let mut expected = vec![Acceptance::Full; refused.len()];
    expected.push(Acceptance::Duplicate);
    assert_eq!(bench.queue.accept(&mixed).await.unwrap(), expected);
    assert_eq!(bench.queue.stats().await.unwrap().duplicates, 2);
    for message in &refused {
        assert_eq!(bench.queue.status(&message.id).await.unwrap(), None);
    }
    bench.assert_sound().await;
    bench.queue.ping().await.unwrap();

    // All of it can be worked, though every script but the ingress's needs memory on its way.
    assert_eq!(timeout(GUARD, bench.drain(&owner)).await.unwrap(), accepted);
    bench.housekeep().await;
    bench.queue.retire(&owner).await.unwrap();
    bench.assert_sound().await;
    assert_eq!(bench.redis("CONFIG SET maxmemory 8mb"), "+OK");
    assert_eq!(bench.queue.accept(&refused).await.unwrap(), vec![Acceptance::Accepted; refused.len()]);
}

#[tokio::test]
async fn a_replica_is_not_the_one_to_talk_to() {
    let main = Bench::new();
    let bench = Bench::new();
    let port = main.server.url().rsplit(':').next().unwrap().to_owned();
    assert!(bench.redis(&format!("REPLICAOF 127.0.0.1 {port}")).starts_with("+OK"));
    assert!(is_unavailable(&bench.queue.prepare().await));
    assert!(is_unavailable(&bench.queue.ping().await));
    assert!(is_unavailable(&bench.queue.accept(&ids(0..1).iter().map(message).collect::<Vec<_>>()).await));
    bench.redis("REPLICAOF NO ONE");
    until_back(&bench.queue).await;
    bench.accept(&ids(0..1)).await;
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_tell_it() {
    let server = RedisServer::start();
    server.command("CONFIG SET requirepass right");
    let url = server.url().replace("redis://", "redis://:hunter2@");
    let settings = RedisSettings::at(SecretString::from(url));
    let queue = RedisQueue::new(settings, QueueSettings::default(), Clock::system()).unwrap();
    let error = queue.prepare().await.unwrap_err();
    assert!(matches!(error, QueueError::Unavailable(_)));
    assert!(!format!("{error} {error:?} {queue:?}").contains("hunter2"));
}
