//! A store in several shards: their number is part of it.

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::Settlement;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Lane, LaneLimits, Owner, Queue, QueueAdmin, QueueError, QueueSettings, Settle, Settled,
};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::bench::{expansion, id, ids, message, sms};
use crate::support::redis_server::RedisServer;

fn in_shards(server: &RedisServer, shards: usize) -> RedisQueue {
    let at = RedisSettings { shards, ..RedisSettings::at(SecretString::from(server.url())) };
    RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
}

#[tokio::test]
async fn a_store_that_was_made_with_another_number_of_shards_is_refused_and_left_as_it_is() {
    let server = RedisServer::start();
    let three = in_shards(&server, 3);
    three.prepare().await.unwrap();
    let batch: Vec<_> = ids(0..20).iter().map(message).collect();
    assert_eq!(three.accept(&batch).await.unwrap(), [Acceptance::Accepted; 20]);
    for other in [1, 2, 4] {
        let queue = in_shards(&server, other);
        let refused = queue.prepare().await.unwrap_err();
        let QueueError::Unusable(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("made with 3 shard(s)") && why.contains(&format!("is {other}")), "{why}");
        // Nor does anybody get in without asking first.
        assert!(in_shards(&server, other).accept(&[message(&id(99))]).await.is_err());
        assert!(matches!(in_shards(&server, other).stats().await, Err(QueueError::Unusable(_))));
    }
    let again = in_shards(&server, 3);
    again.prepare().await.unwrap();
    assert_eq!(again.stats().await.unwrap().accepted, 20);
    assert_eq!(again.accept(&batch).await.unwrap(), [Acceptance::Duplicate; 20]);
}

#[tokio::test]
async fn a_batch_of_many_shards_is_answered_in_its_order_and_all_of_it_is_delivered() {
    let server = RedisServer::start();
    let queue = in_shards(&server, 3);
    queue.prepare().await.unwrap();
    let batch: Vec<_> = ids(0..60).iter().map(message).collect();
    queue.accept(&batch[..30]).await.unwrap();
    let answers = queue.accept(&batch).await.unwrap();
    assert_eq!(answers[..30], [Acceptance::Duplicate; 30]);
    assert_eq!(answers[30..], [Acceptance::Accepted; 30]);
    assert!((0..3).all(|part| batch.iter().any(|message| queue.part_of(&message.id) == part)));

    let owner = Owner::new("test");
    let mut delivered = 0;
    while delivered < 60 {
        for lane in [Lane::inbound(), sms()] {
            let claim =
                Claim { owner: &owner, lane: &lane, max: 7, limits: LaneLimits::default(), busy: &[] };
            let items = queue.claim(claim).await.unwrap().items;
            if lane == Lane::inbound() {
                let routed: Vec<_> = items.into_iter().map(|work| expansion(work.lease, &["a"])).collect();
                let number = routed.len();
                assert_eq!(queue.expand(&owner, routed).await.unwrap(), vec![Settled::Expanded; number]);
            } else {
                let leases: Vec<_> = items.iter().map(|work| work.lease.key().clone()).collect();
                assert_eq!(queue.renew(&owner, &leases).await.unwrap(), []);
                let settle = |lease| Settle { lease, settlement: Settlement::Delivered };
                let batch: Vec<_> = items.into_iter().map(|work| settle(work.lease)).collect();
                delivered += batch.len();
                for settled in queue.settle(&owner, batch).await.unwrap() {
                    assert_eq!(settled, Settled::Delivered { late: false });
                }
            }
        }
    }
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.duplicates, stats.delivered, stats.pending), (60, 30, 60, 0));
    assert_eq!(queue.audit().await.unwrap(), Vec::<String>::new());
    queue.retire(&owner).await.unwrap();
}

/// What a restored dump or a script of somebody's may leave.
#[tokio::test]
async fn what_stands_in_the_wrong_shard_is_told_left_alone_and_not_sent() {
    let server = RedisServer::start();
    let queue = in_shards(&server, 3);
    queue.prepare().await.unwrap();
    let batch: Vec<_> = ids(0..12).iter().map(message).collect();
    queue.accept(&batch).await.unwrap();
    let stray = &batch.iter().find(|message| queue.part_of(&message.id) == 0).unwrap().id;
    let state = server.command(&format!("HGET sq1:{{0}}:m:{stray} s0"));
    let (_, entry) = state.trim().rsplit_once("|e").unwrap();
    // All of it: record, entry, deadline and what the books say.
    for command in [
        format!("RENAME sq1:{{0}}:m:{stray} sq1:{{1}}:m:{stray}"),
        format!("XDEL sq1:{{0}}:in {entry}"),
        format!("ZREM sq1:{{0}}:dl {stray}"),
        "HINCRBY sq1:{0}:stat made -1".to_owned(),
        format!("XADD sq1:{{1}}:in * m {stray} i 0"),
        format!("ZADD sq1:{{1}}:dl 9999999999999 {stray}"),
        "HINCRBY sq1:{1}:stat made 1".to_owned(),
    ] {
        let answer = server.command(&command);
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    }
    let entries = server.command("XREVRANGE sq1:{1}:in + - COUNT 1");
    let entry = entries.lines().find(|line| line.contains('-')).unwrap().trim().to_owned();
    let (head, _) = state.lines().last().unwrap().trim().rsplit_once("|e").unwrap();
    server.command(&format!("HSET sq1:{{1}}:m:{stray} s0 {head}|e{entry}"));

    let finding = [format!("shard 1: message {stray} belongs to shard 0")];
    assert_eq!(queue.audit().await.unwrap(), finding);
    assert_eq!(queue.repair().await.unwrap(), Vec::<String>::new());
    assert_eq!(queue.audit().await.unwrap(), finding);

    let owner = Owner::new("test");
    let mut routed = 0;
    while routed < 11 {
        let lane = Lane::inbound();
        let claim = Claim { owner: &owner, lane: &lane, max: 7, limits: LaneLimits::default(), busy: &[] };
        let items = queue.claim(claim).await.unwrap().items;
        assert!(items.iter().all(|work| work.lease.key().work.message != *stray));
        let expansions: Vec<_> = items.into_iter().map(|work| expansion(work.lease, &[])).collect();
        routed += queue.expand(&owner, expansions).await.unwrap().len();
    }
    assert_eq!(queue.audit().await.unwrap(), finding);
    assert_eq!(queue.stats().await.unwrap().pending, 1);
}
