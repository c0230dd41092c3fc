//! A Redis Cluster, whose slots move.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Acceptance, Queue, QueueAdmin, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::bench::{ids, message};
use crate::support::cluster::Cluster;
use crate::support::installation::Installation;
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::Provider;
use crate::support::waiting::until;

const SHARDS: usize = 3;

fn queue_at(url: &str) -> RedisQueue {
    let at = RedisSettings { shards: SHARDS, ..RedisSettings::at(SecretString::from(url)) };
    RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
}

#[tokio::test]
async fn each_shard_is_where_its_slot_is_and_is_found_again_when_that_moves() {
    let cluster = Cluster::start().await;
    // One node knows all the others.
    let queue = queue_at(&format!("redis+cluster://127.0.0.1:{}", cluster.nodes[0].port()));
    queue.prepare().await.unwrap();
    let batch: Vec<_> = ids(0..100).iter().map(message).collect();
    assert_eq!(queue.accept(&batch[..50]).await.unwrap(), [Acceptance::Accepted; 50]);
    for shard in 0..SHARDS {
        let (slot, from) = cluster.place_of(shard);
        cluster.move_slot(slot, from, (from + 1) % 3).await;
    }
    // Nobody hears of it.
    let answers = queue.accept(&batch).await.unwrap();
    assert_eq!(answers[..50], [Acceptance::Duplicate; 50]);
    assert_eq!(answers[50..], [Acceptance::Accepted; 50]);
    assert_eq!(queue.stats().await.unwrap().accepted, 100);
    assert_eq!(queue.audit().await.unwrap(), Vec::<String>::new());

    // A node is no server of its own.
    let single = format!("redis://127.0.0.1:{}", cluster.nodes[0].port());
    let refused = queue_at(&single).prepare().await;
    assert!(matches!(refused, Err(QueueError::Unusable(_) | QueueError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn while_keys_are_on_their_way_no_script_does_half_of_its_work() {
    let cluster = Cluster::start().await;
    let queue = queue_at(&cluster.url());
    queue.prepare().await.unwrap();
    let all: Vec<_> = ids(0..200).iter().map(message).collect();
    let of_first: Vec<_> = all.into_iter().filter(|message| queue.part_of(&message.id) == 0).collect();
    let (before, after) = of_first.split_at(of_first.len() / 2);
    queue.accept(before).await.unwrap();

    let (slot, from) = cluster.place_of(0);
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[(from + 1) % 3]);
    let id_of = |node: &crate::support::redis_server::RedisServer| {
        node.command("CLUSTER MYID").lines().nth(1).unwrap().trim().to_owned()
    };
    target.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id_of(source)));
    source.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id_of(target)));
    let refused = queue.accept(after).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
    // The move is called off: nothing of the refused is there.
    for node in [source, target] {
        assert_eq!(node.command(&format!("CLUSTER SETSLOT {slot} STABLE")), "+OK");
    }
    assert_eq!(queue.stats().await.unwrap().accepted, before.len() as u64);
    assert_eq!(queue.audit().await.unwrap(), Vec::<String>::new());
    assert_eq!(queue.accept(after).await.unwrap(), vec![Acceptance::Accepted; after.len()]);
}

#[tokio::test]
async fn the_slot_of_a_shard_moves_to_and_fro_under_load_and_nothing_is_lost() {
    let provider = Provider::start();
    let cluster = Arc::new(Cluster::start().await);
    let queue = format!("backend = \"redis\"\nurl = \"{}\"\nshards = {SHARDS}", cluster.url());
    let fast = "[channel.sms]\nrate_per_destination = \"off\"\nrate = \"off\"\n\n\
                [channel.slack]\nrate_per_destination = \"off\"\nrate = \"off\"\n\n[worker]\nlease = \"11s\"\n";
    let installation = Installation::with_queue(&provider, &queue, fast);
    let mut ingress = installation.start("sms-ingress").await;
    let mut workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    let ledger = Ledger::new();
    let poster = installation.poster();
    ledger.post_all(poster, &[ingress.ingress], 0..30, 4).await;

    let during = tokio::spawn({
        let (ledger, poster, to) = (Arc::clone(&ledger), poster.clone(), ingress.ingress);
        async move { ledger.post_all(&poster, &[to], 30..330, 6).await }
    });
    while ledger.taken() < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ledger.fault();
    for _ in 0..3 {
        let (slot, from) = cluster.place_of(0);
        cluster.move_slot(slot, from, (from + 1) % 3).await;
    }
    during.await.expect("all texts are taken");
    ledger.check(&installation, &provider, Allowed::default()).await;
    assert_eq!(ingress.stop(), Some(0));
    assert!(workers.iter_mut().all(|worker| worker.stop() == Some(0)));
}

#[tokio::test]
async fn a_shard_that_is_away_is_told_and_the_others_go_on() {
    let provider = Provider::start();
    let mut cluster = Cluster::start().await;
    for node in &cluster.nodes {
        assert_eq!(node.command("CONFIG SET cluster-require-full-coverage no"), "+OK");
    }
    let queue = format!("backend = \"redis\"\nurl = \"{}\"\nshards = {SHARDS}", cluster.url());
    let installation = Installation::with_queue(&provider, &queue, "");
    let mut ingress = installation.start("sms-ingress").await;
    assert_eq!(installation.ops(&ingress, "readyz").await, Some((200, "ok\n".to_owned())));
    installation.wait_for_metric(&ingress, "sms_broadcaster_queue_parts_away 0").await;

    let victim = cluster.place_of(0).1;
    let gone = (0..SHARDS).filter(|shard| cluster.place_of(*shard).1 == victim).count();
    assert!(gone < SHARDS);
    cluster.nodes[victim].kill();
    installation.wait_for_metric(&ingress, &format!("sms_broadcaster_queue_parts_away {gone}")).await;
    assert_eq!(installation.ops(&ingress, "readyz").await, Some((200, "partly\n".to_owned())));
    let told = |line: &String| line.contains("Redis is away") && line.contains("shard=0");
    until("the log tells of it", || ingress.log().iter().any(told)).await;

    cluster.nodes[victim].restart();
    installation.wait_for_metric(&ingress, "sms_broadcaster_queue_parts_away 0").await;
    assert_eq!(installation.ops(&ingress, "readyz").await, Some((200, "ok\n".to_owned())));
    assert_eq!(ingress.stop(), Some(0));
}
