//! What is seen from outside, and what holds throughout: Q20 conservation, Q22 repetition, status,
//! filters, the doorbell.

use std::time::Duration;

use sms_broadcaster::delivery::{ChannelId, DeadCause, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{
    Acceptance, DeadFilter, DeliveryStatus, Lane, LaneLimits, MessageStatus, Queue, QueueAdmin, Settled,
};
use tokio::time::{Instant, timeout};

use crate::queue_contract::bench::{
    Bench, HOUR, LEASE, MINUTE, SECOND, again, delivery, delivery_id, every, expansion, failed, id, key,
    label, lane, message, owner, sms,
};
use crate::queue_contract::harness::Store;

pub(crate) async fn q20_at_every_moment_the_books_agree_with_what_is_found<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let inbound = Lane::inbound();
    bench.assert_at_rest().await;
    bench.accept_new((1..=4).map(id)).await;
    bench.advance(30 * SECOND);
    let depth = bench.depth(&inbound).await;
    assert_eq!((depth.ready, depth.leased, depth.delayed), (4, 0, 0));
    assert!((depth.oldest_ready_age_s - 30.0).abs() < 0.5, "{depth:?}");

    let mut routings = bench.take(&worker, &inbound, 2).await;
    assert_eq!(bench.places(&inbound).await, (2, 2, 0));
    bench.settle(&worker, routings.remove(0).lease, bench.retry_in(SECOND)).await;
    assert_eq!(bench.places(&inbound).await, (2, 1, 1));
    let to: Vec<_> = [1, 1, 2, 3, 4, 5].map(sms).to_vec();
    bench.expand(&worker, routings.remove(0).lease, &to).await;
    assert_eq!(bench.places(&inbound).await, (2, 0, 1));
    bench.assert_sound().await;

    let limits = LaneLimits { lane: None, destination: every(MINUTE, 1) };
    let (mut items, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
    assert_eq!(items.len(), 5);
    assert_eq!(bench.places(&lane()).await, (0, 5, 1), "parked is delayed");
    bench.deliver(&worker, vec![items.remove(0)]).await;
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    bench.settle(&worker, items.remove(0).lease, bench.retry_in(HOUR)).await;
    bench.settle(&worker, items.remove(0).lease, bench.pause_for(MINUTE)).await;
    bench.release(&worker, vec![items.remove(0).lease]).await;
    let depth = bench.depth(&lane()).await;
    assert_eq!((depth.ready, depth.leased, depth.delayed, depth.paused), (1, 0, 2, 1));
    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.delivered, stats.dead, stats.expired), (4, 1, 1, 1));
    assert_eq!((stats.pending, stats.conservation_error), (6, 0));
    bench.assert_sound().await;
    assert_eq!(bench.store.records(), 4);
}

pub(crate) async fn q22_every_call_may_be_repeated<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    assert_eq!(bench.accept(&id(1)).await, Acceptance::Accepted);
    assert_eq!(bench.accept(&id(1)).await, Acceptance::Duplicate);
    let routing = key(&bench.take_one(&worker, &Lane::inbound()).await);
    let to: Vec<_> = [1, 2, 3, 4, 5].map(sms).to_vec();
    let expand = || vec![expansion(again(&routing), &to)];
    assert_eq!(bench.expand_all(&worker, expand()).await, [Settled::Expanded]);
    assert_eq!(bench.expand_all(&worker, expand()).await, [Settled::Stale { late_success: false }]);
    assert_eq!(bench.places(&lane()).await, (5, 0, 0));

    let keys: Vec<_> = bench.take(&worker, &lane(), 10).await.iter().map(key).collect();
    let settlements = [
        Settlement::Delivered,
        bench.dead(DeadCause::Permanent),
        bench.retry_in(SECOND),
        bench.pause_for(SECOND),
    ];
    let batch = || keys.iter().map(again).zip(settlements.clone()).collect::<Vec<_>>();
    let answers = bench.settle_all(&worker, batch()).await;
    assert_eq!(answers[0], Settled::Delivered { late: false });
    assert_eq!(answers[1..], [Settled::Dead(DeadCause::Permanent), Settled::Delayed, Settled::Delayed]);
    let before = bench.stats().await;
    let stale = Settled::Stale { late_success: false };
    let answers = bench.settle_all(&worker, batch()).await;
    assert_eq!(answers, [stale, stale, Settled::LostLease, Settled::LostLease]);
    assert_eq!(bench.stats().await, before);

    assert_eq!(bench.renew(&worker, &keys).await, keys[..4]);
    assert_eq!(bench.renew(&worker, &keys).await, keys[..4]);
    for _ in 0..2 {
        bench.release(&worker, keys.iter().map(again).collect()).await;
        assert_eq!(bench.places(&lane()).await, (1, 0, 2));
    }
    bench.advance(SECOND);
    let items = bench.take(&worker, &lane(), 10).await;
    let mut counts: Vec<_> = items.iter().map(|work| (work.attempts, work.pauses)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(0, 0), (0, 1), (1, 0)]);
    bench.deliver(&worker, items).await;

    let letter = [delivery_id(&id(1), 2)];
    assert_eq!((bench.requeue(&letter).await.requeued, bench.requeue(&letter).await.requeued), (1, 0));
    let work = bench.take_one(&worker, &lane()).await;
    bench.settle(&worker, work.lease, bench.dead(DeadCause::Permanent)).await;
    assert_eq!(bench.letter(&letter[0]).await.history, [failed(bench.now())]);
    assert_eq!((bench.purge(&letter).await, bench.purge(&letter).await), (1, 0));
    for _ in 0..2 {
        bench.housekeep().await;
        bench.queue().retire(&worker).await.expect("retired");
        bench.queue().prepare().await.expect("prepared");
        bench.queue().ping().await.expect("answered");
    }
    bench.assert_at_rest().await;
}

pub(crate) async fn status_tells_every_state<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    assert_eq!(bench.queue().status(&id(1)).await, Ok(None));
    bench.accept_new([id(1)]).await;
    let unrouted = MessageStatus {
        id: id(1),
        expanded: false,
        deadline: bench.now().plus(5 * MINUTE),
        deliveries: vec![],
    };
    assert_eq!(bench.queue().status(&id(1)).await, Ok(Some(unrouted.clone())));
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(bench.queue().status(&id(1)).await, Ok(Some(unrouted)), "in hand");

    let webhooks = ChannelId::parse("office-hook").expect("a name");
    let to = [sms(1), delivery(webhooks.clone(), 2), sms(3), sms(4), sms(5)];
    bench.advance(SECOND);
    bench.expand(&worker, routing.lease, &to).await;
    let mut items = bench.take(&worker, &lane(), 3).await.into_iter();
    let mut next = || items.next().expect("three").lease;
    bench.settle(&worker, next(), bench.retry_in(SECOND)).await;
    bench.deliver(&worker, bench.take(&worker, &Lane::of(&webhooks), 1).await).await;
    bench.settle(&worker, next(), bench.dead(DeadCause::Permanent)).await;
    bench.settle(&worker, next(), bench.retry_in(HOUR)).await;
    let state = |channel: &str, number, state, attempts| DeliveryStatus {
        channel: channel.to_owned(),
        destination: Some(label(number)),
        state,
        attempts,
    };
    let status = MessageStatus {
        id: id(1),
        expanded: true,
        deadline: bench.now().minus(SECOND).plus(5 * MINUTE),
        deliveries: vec![
            state("sms", 1, DeliveryState::Pending, 1),
            state("office-hook", 2, DeliveryState::Delivered, 1),
            state("sms", 3, DeliveryState::Dead, 1),
            state("sms", 4, DeliveryState::Expired, 1),
            state("sms", 5, DeliveryState::Pending, 0),
        ],
    };
    assert_eq!(bench.queue().status(&id(1)).await, Ok(Some(status)));

    bench.accept_new([id(2)]).await;
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    bench.settle(&worker, routing.lease, bench.dead(DeadCause::Undecryptable)).await;
    let status = MessageStatus {
        id: id(2),
        expanded: false,
        deadline: bench.now().plus(5 * MINUTE),
        deliveries: vec![DeliveryStatus {
            channel: "in".to_owned(),
            destination: None,
            state: DeliveryState::Dead,
            attempts: 1,
        }],
    };
    assert_eq!(bench.queue().status(&id(2)).await, Ok(Some(status)));
}

pub(crate) async fn dead_letters_are_filtered_newest_first_up_to_the_limit<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let slack_channel = ChannelId::slack();
    let people = ["night", "day"];
    // Twelve letters, ten seconds apart: two channels, two subscribers, three causes.
    let causes = [DeadCause::Permanent, DeadCause::Exhausted, DeadCause::Undecryptable];
    let mut all = Vec::new();
    for number in 0..12 {
        let channel = if number % 2 == 0 { ChannelId::sms() } else { slack_channel.clone() };
        let subscriber = people[number / 2 % 2];
        bench.accept_new([id(number)]).await;
        let routing = bench.take_one(&worker, &Lane::inbound()).await;
        let mut expansion = expansion(routing.lease, &[delivery(channel.clone(), 1)]);
        expansion.subscriber = subscriber.to_owned();
        bench.expand_all(&worker, vec![expansion]).await;
        let work = bench.take_one(&worker, &Lane::of(&channel)).await;
        bench.settle(&worker, work.lease, bench.dead(causes[number % 3])).await;
        all.push((number, channel, subscriber, causes[number % 3]));
        bench.advance(10 * SECOND);
    }
    all.reverse();

    let ask = async |filter: DeadFilter, limit| {
        let letters = bench.queue().dead_letters(&filter, limit).await.expect("asked");
        letters.into_iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    let expect = |passes: &dyn Fn(usize, &ChannelId, &str, DeadCause) -> bool| {
        let chosen = all.iter().filter(|(number, channel, who, cause)| passes(*number, channel, who, *cause));
        chosen.map(|(number, ..)| delivery_id(&id(*number), 1)).collect::<Vec<_>>()
    };
    let none = DeadFilter::default;
    assert_eq!(ask(none(), 100).await, expect(&|_, _, _, _| true));
    assert_eq!(ask(none(), 5).await, expect(&|number, _, _, _| number >= 7));
    assert_eq!(ask(none(), 0).await, []);
    let channel = DeadFilter { channel: Some("slack".to_owned()), ..none() };
    assert_eq!(ask(channel, 100).await, expect(&|_, channel, _, _| *channel == slack_channel));
    let cause = DeadFilter { cause: Some(DeadCause::Exhausted), ..none() };
    assert_eq!(ask(cause.clone(), 100).await, expect(&|_, _, _, cause| cause == DeadCause::Exhausted));
    assert_eq!(ask(cause, 2).await, [delivery_id(&id(10), 1), delivery_id(&id(7), 1)]);
    let subscriber = DeadFilter { subscriber: Some("day".to_owned()), ..none() };
    assert_eq!(ask(subscriber, 100).await, expect(&|_, _, who, _| who == "day"));
    let since = DeadFilter { since: Some(35 * SECOND), ..none() };
    assert_eq!(ask(since, 100).await, expect(&|number, _, _, _| number >= 9));
    let together = DeadFilter {
        channel: Some("sms".to_owned()),
        cause: Some(DeadCause::Permanent),
        subscriber: Some("day".to_owned()),
        since: Some(HOUR),
    };
    let expected = expect(&|_, channel, who, cause| {
        *channel == ChannelId::sms() && cause == DeadCause::Permanent && who == "day"
    });
    assert_eq!(expected.len(), 1);
    assert_eq!(ask(together, 100).await, expected);
    let nothing = DeadFilter { channel: Some("pager".to_owned()), ..none() };
    assert_eq!(ask(nothing, 100).await, []);
}

pub(crate) async fn the_doorbell_rings_for_work_that_came_after_the_claim<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let inbound = Lane::inbound();
    let long = Duration::from_secs(60);
    let guard = Duration::from_secs(20);

    // It came before the wait began: no ring is missed.
    let mark = bench.ask(&worker, &inbound, 1).await.mark;
    bench.accept_new([id(1)]).await;
    timeout(guard, bench.queue().wait(&inbound, &mark, long)).await.expect("it rings").expect("no error");

    // It comes while somebody waits.
    let routing = bench.take_one(&worker, &inbound).await;
    let nothing = bench.ask(&worker, &inbound, 1).await;
    assert!(nothing.items.is_empty());
    let message = message(&id(2));
    let waits = bench.queue().wait(&inbound, &nothing.mark, long);
    let rings =
        timeout(guard, async { tokio::join!(waits, bench.queue().accept(std::slice::from_ref(&message))) });
    let (waited, accepted) = rings.await.expect("it rings");
    assert_eq!((waited, accepted), (Ok(()), Ok(vec![Acceptance::Accepted])));
    bench.note_accepted(1);

    // For a delivery too, in its own lane.
    let mark = bench.ask(&worker, &lane(), 1).await.mark;
    bench.expand(&worker, routing.lease, &[sms(1)]).await;
    timeout(guard, bench.queue().wait(&lane(), &mark, long)).await.expect("it rings").expect("no error");
    assert_eq!(bench.places(&lane()).await, (1, 0, 0), "it takes nothing");
}

pub(crate) async fn a_wait_ends_by_itself_and_may_be_dropped<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let mark = bench.ask(&worker, &lane(), 1).await.mark;
    let begun = Instant::now();
    bench.queue().wait(&lane(), &mark, Duration::from_millis(60)).await.expect("no error");
    assert!(begun.elapsed() < Duration::from_secs(20));
    for _ in 0..5 {
        let lane = lane();
        let wait = bench.queue().wait(&lane, &mark, Duration::from_secs(60));
        assert!(timeout(Duration::from_millis(20), wait).await.is_err(), "nothing rang");
    }
    // Nobody who is gone takes anything.
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    assert_eq!(bench.places(&lane()).await, (2, 0, 0));
    let guard = Duration::from_secs(20);
    timeout(guard, bench.queue().wait(&lane(), &mark, Duration::from_secs(60)))
        .await
        .expect("it rings")
        .expect("no error");
    bench.deliver_all(&lane()).await;
    bench.advance(LEASE);
    bench.assert_at_rest().await;
}
