//! Q24 hand-out with the routing: a store may do without, so what is asked here holds of both kinds.

use std::collections::BTreeSet;

use sms_broadcaster::delivery::{ChannelId, DeadCause, DeliveryId, Settlement};
use sms_broadcaster::queue::contract::{
    Expanded, Expansion, Lane, LaneLimits, MAX_BATCH, NewDelivery, Owner, Room, Settled, Work,
};

use crate::queue_contract::bench::{
    Bench, HOUR, MINUTE, SECOND, again, delivery_id, every, expansion, id, ids_of, lane, owner, slack, sms,
};
use crate::queue_contract::harness::Store;

fn room(max: usize, limits: LaneLimits) -> Vec<Room> {
    let of = |channel| Room { lane: Lane::of(&channel), max, limits };
    vec![of(ChannelId::sms()), of(ChannelId::slack())]
}

const EVER_SO_MUCH: usize = MAX_BATCH;

/// Accepts messages and expands each to `to`, with room for some.
async fn route<S: Store>(
    bench: &mut Bench<S>,
    router: &Owner,
    messages: std::ops::Range<usize>,
    to: &[NewDelivery],
    room: &[Room],
) -> Expanded {
    bench.accept_new(messages.map(id)).await;
    let routings = bench.take(router, &Lane::inbound(), MAX_BATCH).await;
    let batch = routings.into_iter().map(|work| expansion(work.lease, to)).collect();
    let expanded = bench.expand_and_claim(router, batch, room).await;
    assert!(expanded.settled.iter().all(|settled| *settled == Settled::Expanded), "{expanded:?}");
    expanded
}

fn handed_out(expanded: &Expanded) -> Vec<DeliveryId> {
    expanded.handed_out.iter().map(|out| out.lease.key().work.clone()).collect()
}

pub(crate) async fn q24_what_is_handed_out_with_its_routing_is_leased_and_the_rest_is_ready<S: Store>(
    bench: &mut Bench<S>,
) {
    let (router, other) = (owner("router"), owner("other"));
    let to = [sms(1), sms(2), slack(3)];
    let expanded = route(bench, &router, 1..4, &to, &room(4, LaneLimits::default())).await;
    assert_eq!(expanded.now, bench.now());
    let (mut seen, mut of_sms) = (BTreeSet::new(), 0);
    for out in &expanded.handed_out {
        let key = out.lease.key();
        assert_eq!(key.work.message, id(out.expansion + 1));
        assert_eq!(out.deadline, bench.now().plus(5 * MINUTE));
        of_sms += usize::from(key.lane == lane());
        assert!(seen.insert(key.work.clone()), "once");
    }
    assert!(of_sms <= 4 && seen.len() - of_sms <= 3, "no more than there is room for");
    let first: Vec<DeliveryId> = handed_out(&expanded).into_iter().filter(|work| work.index < 3).collect();
    assert!(first.is_sorted(), "in the order in which they were made: {first:?}");

    let mut rest = bench.take(&other, &lane(), EVER_SO_MUCH).await;
    rest.extend(bench.take(&other, &Lane::of(&ChannelId::slack()), EVER_SO_MUCH).await);
    for work in ids_of(&rest) {
        assert!(seen.insert(work.clone()), "{work} is in two hands");
    }
    assert_eq!(seen.len(), 9, "nothing is in nobody's");
    for out in expanded.handed_out {
        assert_eq!(
            bench.settle(&router, out.lease, Settlement::Delivered).await,
            Settled::Delivered { late: false }
        );
    }
    bench.deliver(&other, rest).await;
    bench.assert_at_rest().await;
}

pub(crate) async fn q24_it_keeps_to_the_limits<S: Store>(bench: &mut Bench<S>) {
    let router = owner("router");
    let limits = LaneLimits { lane: every(SECOND, 3), destination: every(SECOND, 1) };
    let expanded =
        route(bench, &router, 1..9, &[sms(1), sms(2), sms(3), sms(4)], &room(EVER_SO_MUCH, limits)).await;
    let at_once = expanded.handed_out.len();
    let (more, _) = bench.take_all(&router, &lane(), limits, &[]).await;
    assert_eq!(at_once + more.len(), 3, "{at_once} of them with the routing");
}

pub(crate) async fn q24_it_overtakes_nobody_and_goes_to_no_paused_destination<S: Store>(
    bench: &mut Bench<S>,
) {
    let router = owner("router");
    let open = room(EVER_SO_MUCH, LaneLimits::default());
    bench.send(&id(1), &[sms(9)]).await;
    let expanded = route(bench, &router, 2..3, &[sms(1)], &open).await;
    assert!(expanded.handed_out.is_empty(), "older work is first");
    let mut first = bench.take(&router, &lane(), EVER_SO_MUCH).await;
    assert_eq!(ids_of(&first), [delivery_id(&id(1), 1), delivery_id(&id(2), 1)]);

    let second = first.pop().expect("two");
    assert_eq!(bench.settle(&router, second.lease, bench.pause_for(MINUTE)).await, Settled::Delayed);
    let expanded = route(bench, &router, 3..4, &[sms(1)], &open).await;
    assert!(expanded.handed_out.is_empty(), "it is paused");
    bench.deliver(&router, first).await;
    bench.advance(MINUTE);
    bench.deliver_all(&lane()).await;
    bench.deliver_all(&lane()).await;
    bench.assert_at_rest().await;
}

pub(crate) async fn q24_overdue_work_is_not_handed_out_with_its_routing_and_nothing_behind_it_is_lost<
    S: Store,
>(
    bench: &mut Bench<S>,
) {
    let (router, other) = (owner("router"), owner("other"));
    bench.accept_new((1..4).map(id)).await;
    let routings = bench.take(&router, &Lane::inbound(), MAX_BATCH).await;
    bench.advance(SECOND);
    let deadlines = [MINUTE, SECOND, MINUTE];
    let expand = |(work, deadline): (Work, _)| Expansion { deadline, ..expansion(work.lease, &[sms(1)]) };
    let batch = routings.into_iter().zip(deadlines).map(expand).collect();
    let expanded = bench.expand_and_claim(&router, batch, &room(EVER_SO_MUCH, LaneLimits::default())).await;
    let mut seen = handed_out(&expanded);
    for out in expanded.handed_out {
        bench.settle(&router, out.lease, Settlement::Delivered).await;
    }
    let claimed = bench.ask(&other, &lane(), EVER_SO_MUCH).await;
    seen.extend(ids_of(&claimed.items));
    assert_eq!(seen, [delivery_id(&id(1), 1), delivery_id(&id(3), 1)]);
    let buried: Vec<_> = claimed.buried.iter().map(|buried| (&buried.delivery, buried.cause)).collect();
    assert_eq!(buried, [(&delivery_id(&id(2), 1), DeadCause::Expired)]);
    bench.deliver(&other, claimed.items).await;
    bench.assert_sound().await;
}

pub(crate) async fn q24_who_vanishes_with_it_is_taken_over_from_and_who_gives_it_back_had_it_not<S: Store>(
    bench: &mut Bench<S>,
) {
    let (router, other) = (owner("router"), owner("other"));
    let open = room(EVER_SO_MUCH, LaneLimits::default());
    let gone = handed_out(&route(bench, &router, 1..3, &[sms(1), sms(2)], &open).await);
    let (taken, buried) = bench.recover(&other, &lane()).await;
    assert!(buried.is_empty());
    let taken_over = ids_of(&taken);
    assert!(gone.iter().all(|work| taken_over.contains(work)), "{taken_over:?} and not all of {gone:?}");
    bench.deliver(&other, taken).await;
    bench.deliver_all(&lane()).await;

    let expanded = route(bench, &router, 3..4, &[sms(1)], &open).await;
    let leases = expanded.handed_out.into_iter().map(|out| out.lease).collect();
    bench.release(&router, leases).await;
    let back = bench.take_one(&other, &lane()).await;
    assert_eq!((back.handed_out, back.attempts), (1, 0));
    bench.deliver(&other, vec![back]).await;
    bench.advance(HOUR);
    bench.assert_at_rest().await;
}

pub(crate) async fn q06_what_arrived_of_several_messages_in_one_batch_ends_each_once<S: Store>(
    bench: &mut Bench<S>,
) {
    let (router, other) = (owner("router"), owner("other"));
    bench.send(&id(1), &[sms(1), sms(2), sms(3)]).await;
    bench.send(&id(2), &[sms(1), sms(2)]).await;
    bench.send(&id(3), &[sms(1)]).await;
    let work = bench.take(&router, &lane(), EVER_SO_MUCH).await;
    let keys: Vec<_> = work.iter().map(|work| work.lease.key().clone()).collect();
    let mut leases: Vec<_> = work.into_iter().map(|work| work.lease).collect();
    // Two of three of the first, all of the second, and another end for the third, between them.
    let third = leases.pop().expect("six");
    let last_of_the_first = leases.remove(1);
    let retry = bench.retry_in(MINUTE);
    let mut batch: Vec<_> = leases.into_iter().map(|lease| (lease, Settlement::Delivered)).collect();
    batch.insert(2, (third, retry));
    let delivered = Settled::Delivered { late: false };
    let answers = bench.settle_all(&router, batch).await;
    assert_eq!(answers, [delivered, delivered, Settled::Delayed, delivered, delivered], "in the order asked");

    // The same again, by somebody else, with the one that was left.
    let mut batch: Vec<_> =
        [0, 2, 3, 4].iter().map(|place| (again(&keys[*place]), Settlement::Delivered)).collect();
    batch.push((last_of_the_first, Settlement::Delivered));
    let stale = Settled::Stale { late_success: false };
    let answers = bench.settle_all(&other, batch).await;
    assert_eq!(answers[..4], [stale; 4]);
    assert!(matches!(answers[4], Settled::Delivered { .. }), "{answers:?}");
    bench.advance(MINUTE);
    bench.deliver_all(&lane()).await;
    bench.assert_at_rest().await;
}
