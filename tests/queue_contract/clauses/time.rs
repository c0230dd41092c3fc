//! What time does: Q8 due times, Q9 deadlines.

use std::time::Duration;

use sms_broadcaster::delivery::{DeadCause, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{Buried, Expansion, Lane, LaneLimits, MAX_BATCH, NewMessage, Settled};

use crate::queue_contract::bench::{
    Bench, HOUR, LEASE, MINUTE, SECOND, SUBSCRIBER, delivery_id, every, expansion, failed, id, lane, message,
    owner, payload, sms,
};
use crate::queue_contract::harness::Store;

const EXPIRED: Settled = Settled::Dead(DeadCause::Expired);
const MILLI: Duration = Duration::from_millis(1);

pub(crate) async fn q08_delayed_work_is_not_handed_out_before_it_is_due<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2), sms(3)]).await;
    let items = bench.take(&worker, &lane(), 10).await;
    let delays = [5_000, 1_500, 1_501].map(Duration::from_millis);
    for (work, delay) in items.into_iter().zip(delays) {
        assert_eq!(bench.settle(&worker, work.lease, bench.retry_in(delay)).await, Settled::Delayed);
    }
    assert_eq!(bench.places(&lane()).await, (0, 0, 3));

    let mut passed = Duration::ZERO;
    for (due, index) in [(delays[1], 2), (delays[2], 3), (delays[0], 1)] {
        let nothing = bench.ask(&worker, &lane(), 10).await;
        assert!(nothing.items.is_empty());
        assert_eq!(nothing.wait, Some(due - passed), "it says when to come again");
        bench.advance(due - passed - MILLI);
        assert!(bench.take(&worker, &lane(), 10).await.is_empty(), "a millisecond early");
        assert!(bench.sweep(&worker, &lane(), 10).await.0.is_empty());
        bench.advance(MILLI);
        passed = due;
        let work = bench.take_one(&worker, &lane()).await;
        assert_eq!(work.lease.key().work, delivery_id(&id(1), index));
        assert_eq!((work.attempts, work.pauses, work.handed_out), (1, 0, 1));
        bench.deliver(&worker, vec![work]).await;
    }
    assert_eq!(bench.ask(&worker, &lane(), 10).await.wait, None, "nothing is scheduled");
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Delivered, 2); 3]);
}

pub(crate) async fn q08_a_routing_waits_for_its_time_too_and_a_due_time_may_be_past<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.accept_new([id(1)]).await;
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(bench.settle(&worker, routing.lease, bench.retry_in(2 * SECOND)).await, Settled::Delayed);
    assert_eq!(bench.ask(&worker, &Lane::inbound(), 1).await.wait, Some(2 * SECOND));
    bench.advance(2 * SECOND);
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!((routing.attempts, routing.handed_out), (1, 1));
    let past = bench.retry_at(bench.now().minus(HOUR));
    assert_eq!(bench.settle(&worker, routing.lease, past).await, Settled::Delayed);
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(routing.attempts, 2);
}

pub(crate) async fn q09_overdue_work_is_never_handed_out_and_expires_wherever_it_waits<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    // One ready, one delayed, one paused, one over its rate, and one not routed.
    bench.send_within(&id(1), &[sms(2), sms(3), sms(4), sms(4)], MINUTE).await;
    let mut items = bench.take(&worker, &lane(), 4).await;
    let limits = LaneLimits { lane: None, destination: every(HOUR, 1) };
    bench.release(&worker, items.drain(2..).map(|work| work.lease).collect()).await;
    let (granted, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
    assert_eq!(granted.len(), 1);
    bench.deliver(&worker, granted).await;
    bench.settle(&worker, items.remove(0).lease, bench.retry_in(30 * SECOND)).await;
    bench.settle(&worker, items.remove(0).lease, bench.pause_for(30 * SECOND)).await;
    bench.send_within(&id(2), &[sms(1)], MINUTE).await;
    bench.accept_all(&[NewMessage { deadline: MINUTE, ..message(&id(3)) }]).await;
    assert_eq!(bench.places(&lane()).await, (1, 0, 3));

    bench.advance(MINUTE - MILLI);
    assert!(bench.housekeep().await.0.is_empty(), "a millisecond early");
    bench.advance(MILLI);
    let (mut expired, _) = bench.housekeep().await;
    expired.sort_by(|a, b| a.delivery.cmp(&b.delivery));
    let buried = |message, index, attempts| Buried {
        delivery: delivery_id(&id(message), index),
        lane: if index == 0 { Lane::inbound() } else { lane() },
        subscriber: if index == 0 { String::new() } else { SUBSCRIBER.to_owned() },
        cause: DeadCause::Expired,
        attempts,
    };
    let last = if bench.states(&id(1)).await[2].0 == DeliveryState::Delivered { 4 } else { 3 };
    let all = [buried(1, 1, 1), buried(1, 2, 0), buried(1, last, 0), buried(2, 1, 0), buried(3, 0, 0)];
    assert_eq!(expired, all);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    assert!(bench.take(&worker, &Lane::inbound(), 10).await.is_empty());
    let stats = bench.stats().await;
    assert_eq!((stats.delivered, stats.dead, stats.expired, stats.pending), (1, 0, 5, 0));

    let letter = bench.letter(&delivery_id(&id(1), 1)).await;
    assert_eq!((letter.cause, letter.attempts, letter.maybe_sent), (DeadCause::Expired, 1, false));
    assert_eq!(letter.history, [failed(bench.now().minus(MINUTE))]);
    assert_eq!(letter.died_at, bench.now());
    let letter = bench.letter(&delivery_id(&id(3), 0)).await;
    assert_eq!((letter.channel.as_str(), letter.destination, letter.subscriber.as_str()), ("in", None, ""));
    bench.assert_at_rest().await;
}

pub(crate) async fn q09_a_claim_that_meets_overdue_work_ends_it<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1)], MINUTE).await;
    bench.send_within(&id(2), &[sms(2)], 2 * MINUTE).await;
    bench.advance(MINUTE);
    let claimed = bench.ask(&worker, &lane(), 10).await;
    assert_eq!(claimed.items.len(), 1);
    assert_eq!(claimed.items[0].lease.key().work.message, id(2));
    let (expired, _) = bench.housekeep().await;
    let ended: Vec<_> = claimed.buried.iter().chain(&expired).map(|buried| &buried.delivery).collect();
    assert_eq!(ended, [&delivery_id(&id(1), 1)]);
}

pub(crate) async fn q09_work_in_hand_is_its_owners_past_the_deadline<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(2), sms(3), sms(4), sms(5)], 10 * SECOND).await;
    let items = bench.take(&worker, &lane(), 10).await;
    bench.advance(11 * SECOND);
    assert!(bench.housekeep().await.0.is_empty());
    let settlements = [
        (Settlement::Delivered, Settled::Delivered { late: false }),
        (bench.retry_in(SECOND), EXPIRED),
        (bench.pause_for(SECOND), EXPIRED),
        (bench.dead(DeadCause::Permanent), Settled::Dead(DeadCause::Permanent)),
    ];
    let mut items = items.into_iter();
    for (work, (settlement, expected)) in items.by_ref().zip(settlements) {
        assert_eq!(bench.settle(&worker, work.lease, settlement.clone()).await, expected, "{settlement:?}");
    }
    let states: Vec<_> = bench.states(&id(1)).await.into_iter().map(|(state, _)| state).collect();
    use DeliveryState::{Dead, Delivered, Expired, Pending};
    assert_eq!(states, [Delivered, Expired, Expired, Dead, Pending]);

    // Nobody settles the last: whoever takes it over ends it, and it may have been sent.
    bench.advance(LEASE);
    let (found, buried) = bench.sweep(&owner("next"), &lane(), 10).await;
    let (expired, _) = bench.housekeep().await;
    assert!(found.is_empty());
    assert_eq!(buried.len() + expired.len(), 1);
    assert!(bench.letter(&delivery_id(&id(1), 5)).await.maybe_sent);
    assert!(!bench.letter(&delivery_id(&id(1), 2)).await.maybe_sent);
}

pub(crate) async fn q09_a_retry_or_pause_to_the_deadline_or_past_it_ends_the_work<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(2), sms(3), sms(4), sms(5), sms(6)], MINUTE).await;
    let items = bench.take(&worker, &lane(), 10).await;
    let settlements = [
        (bench.retry_in(MINUTE - MILLI), Settled::Delayed),
        (bench.retry_in(MINUTE), EXPIRED),
        (bench.retry_in(MINUTE + MILLI), EXPIRED),
        (bench.pause_for(MINUTE - MILLI), Settled::Delayed),
        (bench.pause_for(MINUTE), EXPIRED),
        (bench.pause_for(HOUR), EXPIRED),
    ];
    for (work, (settlement, expected)) in items.into_iter().zip(settlements) {
        assert_eq!(bench.settle(&worker, work.lease, settlement.clone()).await, expected, "{settlement:?}");
    }
    let letter = bench.letter(&delivery_id(&id(1), 2)).await;
    assert_eq!((letter.attempts, letter.history), (1, vec![failed(bench.now())]));
    let letter = bench.letter(&delivery_id(&id(1), 5)).await;
    assert_eq!((letter.attempts, letter.history), (0, vec![failed(bench.now())]), "a pause is no attempt");
    bench.advance(MINUTE - MILLI);
    assert_eq!(bench.take(&worker, &lane(), 10).await.len(), 2);
    let text = bench.store.keeps(&payload(&id(1)));
    assert!(text, "the letters need it");
}

pub(crate) async fn q09_a_deadline_that_passes_during_a_long_wait_is_found_behind_a_thousand_others<
    S: Store,
>(
    bench: &mut Bench<S>,
) {
    // Parked behind one destination, and all of them overdue at once.
    let worker = owner("worker");
    bench.send_many((1..=1_000).map(id), 1, MINUTE).await;
    bench.send_within(&id(0), &[sms(2)], HOUR).await;
    let limits = LaneLimits { lane: None, destination: every(24 * HOUR, 1) };
    let (granted, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
    assert_eq!(granted.len(), 2);
    bench.deliver(&worker, granted).await;
    assert_eq!(bench.places(&lane()).await, (0, 0, 999));
    bench.advance(MINUTE);

    let first = bench.housekeep_once().await;
    assert!(first.more, "it is bounded");
    assert!((1..=8 * MAX_BATCH).contains(&first.expired.len()), "{} in one call", first.expired.len());
    let (rest, _) = bench.housekeep().await;
    assert_eq!(first.expired.len() + rest.len(), 999);
    assert_eq!(bench.stats().await.expired, 999);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    bench.assert_at_rest().await;
}

pub(crate) async fn q09_housekeeping_goes_through_large_messages_in_bounded_steps<S: Store>(
    bench: &mut Bench<S>,
) {
    let everybody: Vec<_> = (1..=512).map(sms).collect();
    for number in 1..=4 {
        bench.send_within(&id(number), &everybody, MINUTE).await;
    }
    bench.advance(MINUTE);
    let first = bench.housekeep_once().await;
    assert!(first.more && first.expired.len() <= 8 * MAX_BATCH, "{} in one call", first.expired.len());
    let (rest, _) = bench.housekeep().await;
    assert_eq!(first.expired.len() + rest.len(), 4 * 512);
    bench.assert_at_rest().await;
}

pub(crate) async fn q09_a_message_that_was_kept_elsewhere_has_as_much_less_time<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    let kept = |number, age| NewMessage { age, deadline: MINUTE, ..message(&id(number)) };
    let batch = [kept(1, 20 * SECOND), kept(2, MINUTE), kept(3, HOUR), kept(4, Duration::ZERO)];
    bench.accept_all(&batch).await;
    let received = bench.now().minus(20 * SECOND);
    let routings = bench.ask(&worker, &Lane::inbound(), 10).await;
    let buried: Vec<_> = routings.buried.iter().map(|ended| (ended.delivery.clone(), ended.cause)).collect();
    assert_eq!(buried, [2, 3].map(|number| (delivery_id(&id(number), 0), DeadCause::Expired)));
    let [first, last] = <[_; 2]>::try_from(routings.items).expect("two in time");
    assert_eq!((first.accepted_at, first.deadline), (received, received.plus(MINUTE)));
    assert_eq!((last.accepted_at, last.deadline), (bench.now(), bench.now().plus(MINUTE)));

    // A route's deadline counts from the receipt too.
    let expansion = Expansion { deadline: 30 * SECOND, ..expansion(first.lease, &[sms(1)]) };
    assert_eq!(bench.expand_all(&worker, vec![expansion]).await, [Settled::Expanded]);
    let work = bench.take_one(&worker, &lane()).await;
    assert_eq!((work.accepted_at, work.deadline), (received, received.plus(30 * SECOND)));
    let letter = bench.letter(&delivery_id(&id(3), 0)).await;
    assert_eq!(letter.accepted_at, bench.now().minus(HOUR));
}
