//! The way in: Q1 once, Q2 durable, Q3 capacity, Q7 expansion.

use std::collections::BTreeMap;

use sms_broadcaster::delivery::{DeadCause, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{
    Acceptance, Expansion, Lane, MAX_BATCH, NewMessage, QueueAdmin, QueueSettings, Requeued, Settled, Work,
};

use crate::queue_contract::bench::{
    Bench, HOUR, MINUTE, RETENTION, SECOND, again, delivery_id, destination, expansion, id, ids_of, key,
    lane, message, owner, payload, recipient, settings, slack, sms,
};
use crate::queue_contract::harness::Store;

use Acceptance::{Accepted, Duplicate, Full};

pub(crate) async fn q01_a_message_is_accepted_once_and_every_repeat_changes_nothing_but_the_count<
    S: Store,
>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    let other = NewMessage { payload: b"another text".to_vec(), deadline: SECOND, ..message(&id(1)) };
    let batch = [message(&id(1)), other.clone(), message(&id(2))];
    assert_eq!(bench.accept_all(&batch).await, [Accepted, Duplicate, Accepted]);
    assert_eq!(bench.accept_all(std::slice::from_ref(&other)).await, [Duplicate]);

    let mut routings = bench.take(&worker, &Lane::inbound(), 10).await;
    assert_eq!(ids_of(&routings), [delivery_id(&id(1), 0), delivery_id(&id(2), 0)]);
    let routing = routings.remove(0);
    assert_eq!(routing.payload, payload(&id(1)).as_bytes(), "the first text is the text");
    assert_eq!(routing.deadline, bench.now().plus(5 * MINUTE));
    assert_eq!(bench.accept(&id(1)).await, Duplicate, "in hand");

    bench.expand(&worker, routing.lease, &[sms(1)]).await;
    assert_eq!(bench.accept(&id(1)).await, Duplicate, "routed");
    bench.deliver_all(&lane()).await;
    assert_eq!(bench.accept(&id(1)).await, Duplicate, "delivered");
    assert!(bench.take(&worker, &Lane::inbound(), 10).await.is_empty());
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());

    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.duplicates, stats.delivered, stats.pending), (2, 5, 1, 1));
}

pub(crate) async fn q01_an_identity_lives_for_the_retention_after_its_last_delivery_ended<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(2)], 80 * HOUR).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let late = items.pop().expect("two");
    bench.deliver(&worker, items).await;
    assert_eq!(bench.settle(&worker, late.lease, bench.retry_in(60 * HOUR)).await, Settled::Delayed);

    bench.advance(60 * HOUR);
    assert_eq!(bench.accept(&id(1)).await, Duplicate, "unfinished for longer than the retention");
    bench.housekeep().await;
    bench.deliver_all(&lane()).await;

    bench.advance(RETENTION - MINUTE);
    bench.housekeep().await;
    assert_eq!(bench.accept(&id(1)).await, Duplicate);
    assert!(bench.queue().status(&id(1)).await.expect("asked").is_some());

    bench.advance(2 * MINUTE);
    assert_eq!(bench.queue().status(&id(1)).await.expect("asked"), None);
    assert_eq!(bench.accept(&id(1)).await, Accepted, "a new message, for all anybody knows");
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(bench.expand(&worker, routing.lease, &[sms(3)]).await, Settled::Expanded);
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Pending, 0)]);
    bench.deliver_all(&lane()).await;
    bench.assert_at_rest().await;
}

pub(crate) async fn q02_what_was_accepted_survives_a_kill_of_everything<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.accept_new((1..=20).map(id)).await;
    let routings = bench.take(&worker, &Lane::inbound(), 12).await;
    for routing in routings.into_iter().take(8) {
        bench.expand(&worker, routing.lease, &[sms(1), slack(2)]).await;
    }
    let mut items = bench.take(&worker, &lane(), 5).await;
    let done = items.pop().expect("five");
    let later = items.pop().expect("four");
    let gone = items.pop().expect("three");
    bench.deliver(&worker, vec![done]).await;
    bench.settle(&worker, later.lease, bench.retry_in(10 * SECOND)).await;
    bench.settle(&worker, gone.lease, bench.dead(DeadCause::Permanent)).await;
    let before = bench.stats().await;

    bench.crash().await;
    bench.assert_sound().await;
    let after = bench.stats().await;
    assert_eq!((after.accepted, after.duplicates), (20, 0));
    assert_eq!((after.delivered, after.dead, after.pending), (before.delivered, before.dead, before.pending));
    assert_eq!(bench.accept(&id(20)).await, Duplicate);

    let (routings, _) = bench.recover(&owner("next"), &Lane::inbound()).await;
    assert_eq!(routings.len(), 12);
    bench.advance(10 * SECOND);
    let (sent, _) = bench.recover(&owner("next"), &lane()).await;
    let (posted, _) = bench.recover(&owner("next"), &Lane::of(&slack(2).channel)).await;
    assert_eq!((sent.len(), posted.len()), (6, 8));
    assert!(sent.iter().all(|work| work.payload == payload(&work.lease.key().work.message).as_bytes()));
}

pub(crate) async fn q03_beyond_its_capacity_a_store_takes_nothing_and_still_knows_duplicates<S: Store>(
    bench: &mut Bench<S>,
) {
    bench.reopen_with(QueueSettings { capacity: 3, ..settings() }).await;
    let batch: Vec<NewMessage> =
        [1, 2, 1, 3, 4, 2, 5].into_iter().map(|number| message(&id(number))).collect();
    let answers = bench.accept_all(&batch).await;
    assert_eq!(answers, [Accepted, Accepted, Duplicate, Accepted, Full, Duplicate, Full]);
    assert_eq!(bench.queue().status(&id(4)).await.expect("asked"), None, "nothing is stored of it");
    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.duplicates, stats.pending), (3, 2, 3));

    // Deliveries do not count, messages do.
    let worker = owner("worker");
    let mut routings = bench.take(&worker, &Lane::inbound(), 10).await;
    let routing = routings.remove(0);
    assert_eq!(bench.expand(&worker, routing.lease, &[sms(1), sms(2)]).await, Settled::Expanded);
    let mut items = bench.take(&worker, &lane(), 10).await;
    let last = items.pop().expect("two");
    bench.deliver(&worker, items).await;
    assert_eq!(bench.accept(&id(4)).await, Full, "one of its deliveries is pending");
    bench.deliver(&worker, vec![last]).await;
    assert_eq!(bench.accept_all(&[message(&id(4)), message(&id(5))]).await, [Accepted, Full]);

    // A message that goes nowhere makes room at once.
    let routing = routings.remove(0);
    assert_eq!(bench.expand(&worker, routing.lease, &[]).await, Settled::Expanded);
    assert_eq!(bench.accept(&id(5)).await, Accepted);
}

pub(crate) async fn q03_a_requeued_letter_makes_its_message_unfinished_again<S: Store>(bench: &mut Bench<S>) {
    bench.reopen_with(QueueSettings { capacity: 1, ..settings() }).await;
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    for work in bench.take(&worker, &lane(), 10).await {
        bench.settle(&worker, work.lease, bench.dead(DeadCause::Permanent)).await;
    }
    let letters = [delivery_id(&id(1), 1), delivery_id(&id(1), 2)];
    assert_eq!(bench.requeue(&letters).await, Requeued { requeued: 2, skipped: 0, unknown: 0 });
    assert_eq!(bench.accept(&id(2)).await, Full);
    let mut items = bench.take(&worker, &lane(), 10).await;
    let last = items.pop().expect("two");
    bench.deliver(&worker, items).await;
    assert_eq!(bench.accept(&id(2)).await, Full);
    bench.deliver(&worker, vec![last]).await;
    assert_eq!(bench.accept(&id(2)).await, Accepted);
}

pub(crate) async fn q07_a_routing_ends_and_its_deliveries_appear_in_one_step<S: Store>(bench: &mut Bench<S>) {
    let (first, second) = (owner("first"), owner("second"));
    bench.accept_new([id(1)]).await;
    bench.advance(MINUTE);
    let routing = bench.take_one(&first, &Lane::inbound()).await;
    let lease = key(&routing);
    let twice = vec![
        expansion(routing.lease, &[sms(1), slack(2), sms(3)]),
        expansion(again(&lease), &[sms(4), sms(5), sms(6)]),
    ];
    let stale = Settled::Stale { late_success: false };
    assert_eq!(bench.expand_all(&first, twice).await, [Settled::Expanded, stale]);
    assert_eq!(bench.expand(&first, again(&lease), &[sms(7)]).await, stale);
    assert_eq!(bench.expand(&second, again(&lease), &[sms(8)]).await, stale);
    assert_eq!(bench.places(&Lane::inbound()).await, (0, 0, 0));

    let sent = bench.take(&first, &lane(), 10).await;
    let posted = bench.take(&first, &Lane::of(&slack(2).channel), 10).await;
    assert_eq!(ids_of(&sent), [delivery_id(&id(1), 1), delivery_id(&id(1), 3)]);
    assert_eq!(ids_of(&posted), [delivery_id(&id(1), 2)]);
    let work = &sent[1];
    assert_eq!(work.payload, payload(&id(1)).as_bytes());
    assert_eq!(work.recipient, recipient(3).as_bytes());
    assert_eq!(work.destination, Some(destination(3)));
    assert_eq!(work.subscriber, "on-call");
    assert_eq!((work.attempts, work.pauses, work.handed_out), (0, 0, 1));
    assert_eq!(work.accepted_at, bench.now().minus(MINUTE));
    assert_eq!(work.deadline, work.accepted_at.plus(5 * MINUTE), "counted from acceptance");
    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.pending), (1, 3));
}

pub(crate) async fn q07_a_route_may_lead_nowhere_or_to_512<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.accept_new([id(1), id(2)]).await;
    let mut routings = bench.take(&worker, &Lane::inbound(), 2).await;
    let large = routings.pop().expect("two");
    let small = routings.pop().expect("two");
    let everybody: Vec<_> = (1..=512).map(sms).collect();
    let batch = vec![expansion(small.lease, &[]), expansion(large.lease, &everybody)];
    assert_eq!(bench.expand_all(&worker, batch).await, [Settled::Expanded, Settled::Expanded]);

    let status = bench.queue().status(&id(1)).await.expect("asked").expect("known");
    assert!(status.expanded && status.deliveries.is_empty());
    assert!(!bench.store.keeps(&payload(&id(1))), "nobody needs its text");
    assert_eq!(bench.accept(&id(1)).await, Duplicate);

    assert_eq!(bench.places(&lane()).await, (512, 0, 0));
    assert_eq!(bench.queue().status(&id(2)).await.expect("asked").expect("known").deliveries.len(), 512);
    let mut seen: BTreeMap<u16, Work> = BTreeMap::new();
    for _ in 0..4 {
        for work in bench.take(&worker, &lane(), MAX_BATCH).await {
            assert_eq!(work.recipient, recipient(u32::from(work.lease.key().work.index)).as_bytes());
            seen.insert(work.lease.key().work.index, work);
        }
    }
    assert_eq!(seen.len(), 512);
    bench.deliver(&worker, seen.into_values().collect()).await;
    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.delivered, stats.pending), (2, 512, 0));
    bench.assert_at_rest().await;
}

pub(crate) async fn q07_a_routing_in_hand_is_its_owners_past_its_deadline<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let batch = [NewMessage { deadline: 10 * SECOND, ..message(&id(1)) }];
    bench.accept_all(&batch).await;
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    bench.advance(11 * SECOND);
    assert!(bench.housekeep().await.0.is_empty());
    let expansion = Expansion { deadline: MINUTE, ..expansion(routing.lease, &[sms(1)]) };
    assert_eq!(bench.expand_all(&worker, vec![expansion]).await, [Settled::Expanded]);
    let work = bench.take_one(&worker, &lane()).await;
    assert_eq!(
        bench.settle(&worker, work.lease, Settlement::Delivered).await,
        Settled::Delivered { late: false }
    );
}
