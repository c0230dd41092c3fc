//! What others do to the store behind the queue's back.

use std::time::Duration;

use sms_broadcaster::delivery::{ChannelId, DeadCause, DeliveryId, Settlement};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    DeadFilter, Lane, LaneLimits, Owner, Queue, QueueAdmin, Rate, Requeued, Settled,
};

use super::bench::{Bench, LEASE, MINUTE, dead, delivery_id, expansion, failed, id, ids, sms};

#[tokio::test]
async fn a_destroyed_group_is_made_anew_and_nothing_is_lost() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..5)).await;
    bench.accept_and_route(&owner, &id(9), &["a"]).await;
    bench.drain(&owner).await;
    bench.accept(&ids(10..15)).await;
    let held = bench.claim(&owner, &Lane::inbound(), 2).await.items;
    assert_eq!(bench.redis("XGROUP DESTROY ~in w"), ":1");

    // The leases went with the group, so their owner does not have them any more.
    let keys: Vec<_> = held.iter().map(|work| work.lease.key().clone()).collect();
    assert_eq!(bench.queue.renew(&owner, &keys).await.unwrap(), keys);
    let claimed = bench.claim(&owner, &Lane::inbound(), 128).await;
    assert!(claimed.recreated);
    assert_eq!(claimed.items.len(), 5);
    bench.assert_sound().await;
    assert!(!bench.claim(&owner, &Lane::inbound(), 128).await.recreated);

    bench.redis("XGROUP DESTROY ~in w");
    let swept = bench.sweep(&owner, &Lane::inbound()).await;
    assert!(swept.recreated && swept.items.is_empty());
    assert_eq!(bench.drain(&owner).await, 5);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_group_destroyed_before_anybody_claimed_is_noticed() {
    let bench = Bench::new();
    bench.accept(&ids(0..2)).await;
    bench.redis("XGROUP DESTROY ~in w");
    let claimed = bench.claim(&Owner::new("worker"), &Lane::inbound(), 10).await;
    assert!(claimed.recreated);
    assert_eq!(claimed.items.len(), 2);
}

#[tokio::test]
async fn a_lane_that_never_had_work_is_neither_missing_nor_made() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let claimed = bench.claim(&owner, &sms(), 10).await;
    assert!(!claimed.recreated && claimed.items.is_empty() && claimed.wait.is_none());
    assert!(!bench.sweep(&owner, &sms()).await.recreated);
    assert_eq!(bench.redis("EXISTS ~rdy:sms"), ":0");
    assert!(bench.queue.stats().await.unwrap().lanes.is_empty());
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_deleted_stream_is_filled_again_from_the_records() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..300)).await;
    bench.accept_and_route(&owner, &id(999), &["a", "b"]).await;
    bench.redis("DEL ~in ~rdy:sms");
    assert!(bench.claim(&owner, &Lane::inbound(), 10).await.recreated);
    assert!(bench.claim(&owner, &sms(), 10).await.recreated);
    bench.housekeep().await;
    bench.assert_sound().await;
    // One message was routed by accept_and_route with everything that was ready then.
    let routed = bench.queue.stats().await.unwrap();
    assert!(routed.pending > 300);
    bench.drain(&owner).await;
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().pending, 0);
}

#[tokio::test]
async fn deleted_structures_of_waiting_work_are_made_anew_in_time() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c"]).await;
    let mut works = bench.claim(&owner, &sms(), 2).await.items;
    let now = bench.clock.now();
    let retry = Settlement::RetryAt { due: now.plus(MINUTE), attempt: failed(now) };
    bench.settle(&owner, works.remove(0), retry).await;
    let pause = Settlement::Pause { until: now.plus(MINUTE), attempt: failed(now) };
    bench.settle(&owner, works.remove(0), pause).await;
    for structure in ["due:sms", "wake:sms", "park:sms", "lanes"] {
        bench.redis(&format!("DEL ~{structure}"));
        assert!(!bench.queue.audit().await.unwrap().is_empty(), "{structure}");
        bench.housekeep().await;
        bench.claim(&owner, &Lane::from_stored("nothing"), 1).await;
    }
    bench.clock.advance(MINUTE);
    assert_eq!(bench.drain(&owner).await, 3);
    bench.assert_sound().await;
}

#[tokio::test]
async fn after_flushall_a_working_queue_begins_anew() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
    assert!(!bench.sweep(&owner, &sms()).await.recreated);
    bench.redis("FLUSHALL");
    assert_eq!(
        bench.settle(&owner, work, Settlement::Delivered).await,
        Settled::Stale { late_success: false }
    );
    assert!(bench.claim(&owner, &sms(), 1).await.items.is_empty());
    bench.housekeep().await;
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    // Everything a worker asks for is there again, and still it hears of the loss, once.
    assert!(bench.sweep(&owner, &sms()).await.recreated);
    assert!(!bench.sweep(&owner, &sms()).await.recreated);
    assert_eq!(bench.drain(&owner).await, 1);
    bench.assert_sound().await;
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    for number in 0..5 {
        bench.redis("SCRIPT FLUSH");
        bench.accept_and_route(&owner, &id(number), &["a"]).await;
        bench.redis("SCRIPT FLUSH");
        assert_eq!(bench.drain(&owner).await, 1);
        bench.redis("SCRIPT FLUSH");
        bench.queue.ping().await.unwrap();
        bench.queue.stats().await.unwrap();
    }
    assert_eq!(bench.queue.reconnects(), 0);
}

#[tokio::test]
async fn rubbish_in_a_lane_becomes_letters_and_its_neighbours_are_delivered() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..1)).await;
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    let rubbish = [
        "garbage yes",
        "m test:0",
        "i 0",
        "m test:0 i zero",
        "m test:0 i 70000",
        "m test:0 i -1",
        "m nonsense i 0",
        "m \"\\xff\\xfe\" i 0",
        "\"\" \"\"",
        "m test:0 m test:1 i 99999999999999999999",
    ];
    for fields in rubbish {
        bench.redis(&format!("XADD ~in * {fields}"));
        bench.redis(&format!("XADD ~rdy:sms * {fields}"));
    }
    bench.accept_and_route(&owner, &id(2), &["b"]).await;
    assert_eq!(bench.drain(&owner).await, 3);
    bench.assert_sound().await;
    let all = bench.queue.dead_letters(&DeadFilter::default(), 100).await.unwrap();
    assert_eq!(all.len(), 2 * rubbish.len());
    assert!(all.iter().all(|letter| letter.cause == DeadCause::Poison && letter.subscriber.is_empty()));
    let of_sms = DeadFilter { channel: Some("sms".to_owned()), ..DeadFilter::default() };
    assert_eq!(bench.queue.dead_letters(&of_sms, 100).await.unwrap().len(), rubbish.len());
    let texts = async |letters: Vec<DeliveryId>| {
        let mut texts = Vec::new();
        for id in letters {
            texts.extend(bench.queue.dead_letter(&id).await.unwrap().unwrap().payload);
        }
        texts
    };
    let payloads = texts(all.iter().map(|letter| letter.id.clone()).collect()).await;
    assert!(payloads.iter().any(|payload| payload == b"garbage=yes"));
    // There is nothing to send, but it can be seen and purged.
    let ids: Vec<_> = all.into_iter().map(|letter| letter.id).collect();
    let requeued = bench.queue.requeue(&ids[..5], MINUTE).await.unwrap();
    assert_eq!(requeued, Requeued { requeued: 0, skipped: 5, unknown: 0 });
    assert_eq!(bench.queue.purge(&ids).await.unwrap(), ids.len() as u64);
    bench.assert_sound().await;
}

#[tokio::test]
async fn rubbish_that_was_leased_by_somebody_is_buried_by_the_sweep() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..1)).await;
    bench.redis("XADD ~in * garbage yes");
    bench.redis("XREADGROUP GROUP w stranger COUNT 10 STREAMS ~in >");
    // A stranger leases by the server's time, which is ahead of this test's.
    let lease = Duration::from_millis(1);
    let settings = sms_broadcaster::queue::contract::QueueSettings { lease, ..Default::default() };
    let impatient = super::bench::queue_on(&bench.server, settings, &sms_broadcaster::clock::Clock::system());
    let swept = tokio::time::timeout(super::bench::GUARD, async {
        loop {
            let swept = impatient.sweep(&owner, &Lane::inbound(), 10, Default::default()).await.unwrap();
            if !swept.buried.is_empty() {
                return swept;
            }
        }
    })
    .await
    .unwrap();
    assert!(swept.buried.iter().any(|ended| ended.cause == DeadCause::Poison));
}

#[tokio::test]
async fn records_with_unreadable_fields_become_letters_with_their_text() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..3)).await;
    bench.accept_and_route(&owner, &id(3), &["a"]).await;
    bench.drain(&owner).await;
    bench.accept(&ids(10..14)).await;
    bench.redis("HSET ~m:test:10 s0 rubbish");
    bench.redis("HSET ~m:test:11 left many lt few acc then");
    bench.redis("HDEL ~m:test:12 left");
    assert_eq!(bench.queue.audit().await.unwrap().len(), 4);
    assert_eq!(bench.drain(&owner).await, 3);
    let letter = bench.queue.dead_letter(&delivery_id(10, 0)).await.unwrap().unwrap();
    assert_eq!(letter.letter.cause, DeadCause::Poison);
    assert_eq!(letter.payload.as_deref(), Some(b"text of test:10".as_slice()));
    bench.assert_sound().await;
    let requeued = bench.queue.requeue(&[delivery_id(10, 0)], MINUTE).await.unwrap();
    assert_eq!(requeued.requeued, 1);
    assert_eq!(bench.drain(&owner).await, 1);
    bench.assert_sound().await;

    // Of a delivery: its route and its state.
    bench.accept_and_route(&owner, &id(20), &["a", "b", "c"]).await;
    bench.redis("HSET ~m:test:20 r1 rubbish");
    bench.redis("HSET ~m:test:20 s2 P|x|y");
    let claimed = bench.claim(&owner, &sms(), 10).await;
    assert_eq!((claimed.items.len(), claimed.buried.len()), (1, 2));
    for work in claimed.items {
        bench.settle(&owner, work, Settlement::Delivered).await;
    }
    bench.assert_sound().await;
    let letter = bench.queue.dead_letter(&delivery_id(20, 1)).await.unwrap().unwrap().letter;
    assert_eq!((letter.channel.as_str(), letter.maybe_sent), ("sms", true));
}

#[tokio::test]
async fn a_record_of_another_type_takes_nobody_with_it_and_keeps_no_message_out() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..3)).await;
    bench.redis("SET ~m:test:1 rubbish");
    bench.redis("SET ~m:test:3 rubbish");
    bench.redis("HSET ~m:test:4 rubbish rubbish");
    let claimed = bench.claim(&owner, &Lane::inbound(), 10).await;
    assert_eq!((claimed.items.len(), claimed.buried.len()), (2, 1));
    assert_eq!(bench.queue.status(&id(1)).await.unwrap(), None);
    assert!(bench.queue.dead_letter(&delivery_id(1, 0)).await.unwrap().is_none());

    // What stood there can be looked at, and does not stay.
    for number in [1, 3, 4] {
        bench.accept(&ids(number..number + 1)).await;
        let ttl = bench.redis(&format!("PTTL ~aside:m:test:{number}"));
        assert!(ttl.trim_start_matches(':').parse::<i64>().unwrap() > 0, "{ttl}");
    }
    assert_eq!(bench.redis("GET ~aside:m:test:1"), "$7\r\nrubbish");
    assert_eq!(bench.drain(&owner).await, 3);
    // That a record was overwritten is told by a letter.
    let letters = bench.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.cause).collect::<Vec<_>>(), [DeadCause::Poison]);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_structure_of_another_type_is_set_aside_and_stops_nobody() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let limits = LaneLimits { lane: Some(Rate { interval: MINUTE, burst: 100 }), destination: None };
    for (number, structure) in ["in", "wake:in", "due:in", "park:in", "held:in", "dl", "wk", "lanes", "rl:in"]
        .into_iter()
        .enumerate()
    {
        bench.accept(&ids(number * 10..number * 10 + 3)).await;
        bench.redis(&format!("DEL ~{structure}"));
        bench.redis(&format!("SET ~{structure} rubbish"));
        if structure == "in" {
            let found = bench.queue.audit().await.unwrap();
            assert!(found.contains(&"in is a string and should be a stream".to_owned()), "{found:?}");
        }
        assert!(bench.queue.stats().await.is_ok(), "{structure}");
        let mut items = bench.claim_within(&owner, &Lane::inbound(), 10, limits).await.items;
        bench.housekeep().await;
        items.extend(bench.claim_within(&owner, &Lane::inbound(), 10, limits).await.items);
        assert_eq!(items.len(), 3, "{structure}");
        for work in items {
            bench.settle(&owner, work, Settlement::Delivered).await;
        }
        bench.assert_sound().await;
    }
    // The books: what they said is lost, work is not.
    bench.accept(&ids(100..103)).await;
    bench.redis("DEL ~stat");
    bench.redis("SET ~stat rubbish");
    assert!(bench.queue.stats().await.is_ok());
    assert_eq!(bench.drain(&owner).await, 3);
    assert_eq!(bench.redis("GET ~aside:stat"), "$7\r\nrubbish");
}

#[tokio::test]
async fn structures_of_another_type_stop_no_settlement_half_way() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c", "d"]).await;
    let mut works = bench.claim(&owner, &sms(), 10).await.items;
    for structure in ["due:sms", "park:sms", "wake:sms", "held:sms", "dead:permanent", "dl"] {
        bench.redis(&format!("DEL ~{structure}"));
        bench.redis(&format!("SET ~{structure} rubbish"));
    }
    let now = bench.clock.now();
    let settlements = [
        Settlement::RetryAt { due: now.plus(MINUTE), attempt: failed(now) },
        Settlement::Pause { until: now.plus(MINUTE), attempt: failed(now) },
        dead(DeadCause::Permanent, now),
        Settlement::Delivered,
    ];
    for settlement in settlements {
        bench.settle(&owner, works.remove(0), settlement).await;
        let lost = "message test:1 is unfinished and its deadline is not listed, or the reverse";
        assert!(bench.queue.audit().await.unwrap().iter().all(|finding| finding == lost));
    }
    // A lane whose stream is none gets its deliveries all the same.
    bench.redis("SET ~rdy:other rubbish");
    bench.accept(&ids(2..3)).await;
    let work = bench.claim(&owner, &Lane::inbound(), 1).await.items.pop().unwrap();
    let mut routed = expansion(work.lease, &["a", "b"]);
    routed.deliveries[1].channel = ChannelId::parse("other").unwrap();
    bench.queue.expand(&owner, vec![routed]).await.unwrap();
    let other = Lane::of(&ChannelId::parse("other").unwrap());
    assert_eq!(bench.claim(&owner, &other, 10).await.items.len(), 1);
}

#[tokio::test]
async fn a_count_that_is_wrong_takes_no_text_from_work_that_needs_it() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c"]).await;
    bench.redis("HSET ~m:test:1 left 1");
    let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
    bench.settle(&owner, work, Settlement::Delivered).await;
    bench.assert_sound().await;
    for work in bench.claim(&owner, &sms(), 10).await.items {
        assert_eq!(work.payload, b"text of test:1");
        bench.settle(&owner, work, Settlement::Delivered).await;
    }
    bench.assert_sound().await;
}

#[tokio::test]
async fn an_entry_with_the_last_id_there_is_does_not_end_its_lane() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..3)).await;
    bench.redis("XADD ~in 18446744073709551615-18446744073709551615 garbage yes");
    bench.accept(&ids(3..6)).await;
    bench.housekeep().await;
    assert_eq!(bench.drain(&owner).await, 6);
    bench.assert_sound().await;
}

#[tokio::test]
async fn what_is_left_of_work_whose_record_somebody_deleted_are_letters() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c"]).await;
    let mut works = bench.claim(&owner, &sms(), 2).await.items;
    let now = bench.clock.now();
    let retry = Settlement::RetryAt { due: now, attempt: failed(now) };
    bench.settle(&owner, works.remove(0), retry).await;
    bench.redis("DEL ~m:test:1");
    assert!(bench.claim(&owner, &sms(), 10).await.items.is_empty());
    let stale = bench.settle(&owner, works.remove(0), Settlement::Delivered).await;
    assert_eq!(stale, Settled::Stale { late_success: false });
    bench.clock.advance(LEASE);
    assert!(bench.sweep(&owner, &sms()).await.items.is_empty());
    assert_eq!(bench.redis("XLEN ~rdy:sms"), ":0");
    let letters = bench.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.cause).collect::<Vec<_>>(), [DeadCause::Poison; 3]);
    let done = bench.queue.repair().await.unwrap();
    assert_eq!(done, ["message test:1 had a deadline and no record"]);
    bench.assert_sound().await;
}

#[tokio::test]
async fn the_audit_tells_planted_damage_apart() {
    async fn findings(damage: &[&str]) -> Vec<String> {
        let bench = Bench::new();
        let owner = Owner::new("worker");
        bench.accept_and_route(&owner, &id(1), &["a", "b"]).await;
        bench.accept(&ids(2..3)).await;
        bench.accept_and_route(&owner, &id(3), &["c"]).await;
        let mut works = bench.claim(&owner, &sms(), 2).await.items;
        bench.settle(&owner, works.remove(0), dead(DeadCause::Permanent, bench.clock.now())).await;
        bench.assert_sound().await;
        for command in damage {
            assert!(!bench.redis(command).starts_with('-'), "{command}");
        }
        bench.queue.audit().await.unwrap()
    }
    // A lost entry, a doubled one, and one that was acknowledged by a stranger.
    let found = findings(&["DEL ~rdy:sms"]).await;
    assert!(found.iter().any(|line| line == "test:1/2 is lost: it has no entry in its lane"), "{found:?}");
    assert!(found.iter().any(|line| line == "the lane sms has no group"), "{found:?}");
    let found = findings(&["XADD ~rdy:sms * m test:1 i 2"]).await;
    assert_eq!(found, ["test:1/2 stands in the lane sms and belongs elsewhere"]);
    let found = findings(&["DEL ~wake:sms", "SET ~wake:sms 1"]).await;
    assert_eq!(found, ["wake:sms is a string and should be a zset"]);
    let found = findings(&["ZADD ~due:sms 5 test:1|2"]).await;
    assert_eq!(found, ["test:1/2 is delayed in the lane sms and belongs elsewhere"]);
    let found = findings(&["XGROUP SETID ~rdy:sms w $"]).await;
    assert_eq!(
        found.iter().filter(|line| line.ends_with("was read and is not leased")).count(),
        2,
        "{found:?}"
    );
    // Records: deleted, without end, with an end, with what should be gone, miscounted.
    let found = findings(&["DEL ~m:test:3"]).await;
    assert!(found.iter().any(|line| line == "message test:3 has a deadline and no record"), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("the books say 3 pending")), "{found:?}");
    let found = findings(&["HSET ~m:test:4 ct orphan"]).await;
    assert!(found.iter().any(|line| line == "message test:4 has no routing"), "{found:?}");
    let found = findings(&["PEXPIRE ~m:test:1 99999"]).await;
    assert_eq!(found, ["message test:1 has ended and does not expire, or the reverse"]);
    let found = findings(&["HDEL ~m:test:1 ct"]).await;
    assert_eq!(found, ["message test:1 keeps a text that nothing needs, or lacks one that is needed"]);
    let found = findings(&["HSET ~m:test:1 left 7"]).await;
    assert_eq!(found, ["message test:1 counts its pending work wrongly"]);
    let found = findings(&["ZREM ~dead:permanent test:1|1"]).await;
    assert_eq!(found, ["test:1/1 is a letter that is not listed"]);
    let found = findings(&["ZADD ~wake:sms 5 a"]).await;
    assert_eq!(found, ["a destination of the lane sms is woken without parked work"]);
    let found = findings(&["SET ~stray 1", "SET ~rl:sms 1"]).await;
    assert_eq!(found, ["the key rl:sms does not expire", "the key stray is not ours"]);
    let found = findings(&["HINCRBY ~stat made 1"]).await;
    assert_eq!(found, ["the books say 4 pending deliveries, there are 3"]);
}

#[tokio::test]
async fn a_doubled_entry_is_handed_out_once() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    bench.redis("XADD ~rdy:sms * m test:1 i 1");
    bench.redis("XADD ~rdy:sms * m test:1 i 1 w 1");
    bench.redis("ZADD ~due:sms 5 test:1|1");
    bench.redis("ZADD ~park:sms 0 a|000000000000005|test:1|1");
    bench.redis("ZADD ~wake:sms 5 a");
    assert_eq!(bench.claim(&owner, &sms(), 10).await.items.len(), 1);
    assert!(bench.claim(&owner, &sms(), 10).await.items.is_empty());
    bench.assert_sound().await;
}

#[tokio::test]
async fn odd_names_keep_their_letters_apart() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let odd = MessageId::of_source("x-9", "a|b/c:%d+|7").unwrap();
    bench.accept(std::slice::from_ref(&odd)).await;
    let work = bench.claim(&owner, &Lane::inbound(), 1).await.items.pop().unwrap();
    assert_eq!(work.lease.key().work.message, odd);
    let mut routed = expansion(work.lease, &["a", "b"]);
    routed.deliveries[0].channel = ChannelId::parse("other").unwrap();
    routed.deliveries[0].label = "a|b\n|c".to_owned();
    routed.subscriber = "täm".to_owned();
    bench.queue.expand(&owner, vec![routed]).await.unwrap();
    let other = Lane::of(&ChannelId::parse("other").unwrap());
    let work = bench.claim(&owner, &other, 1).await.items.pop().unwrap();
    let now = bench.clock.now();
    let pause = Settlement::Pause { until: now.plus(MINUTE), attempt: failed(now) };
    assert_eq!(bench.settle(&owner, work, pause).await, Settled::Delayed);
    bench.assert_sound().await;
    bench.clock.advance(MINUTE);
    let work = bench.claim(&owner, &other, 1).await.items.pop().unwrap();
    bench.settle(&owner, work, dead(DeadCause::Permanent, now)).await;
    let letters = bench.queue.dead_letters(&DeadFilter::default(), 5).await.unwrap();
    assert_eq!(letters[0].id, DeliveryId { message: odd, index: 1 });
    assert_eq!(letters[0].destination.as_deref(), Some("a|b\n|c"));
    assert_eq!(letters[0].subscriber, "täm");
    bench.assert_sound().await;
}
