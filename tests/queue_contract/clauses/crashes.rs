//! Workers that vanish, stores that lose parts: Q13 crashes, Q14 recovery, Q16 quarantine, Q21 healing.

use std::collections::BTreeSet;

use sms_broadcaster::delivery::{Attempt, DeadCause, DeliveryId, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{
    BUSY_DELAY, Cursor, DeadFilter, Lane, LeaseKey, MAX_BATCH, MAX_HAND_OUTS, NewMessage, Queue, QueueAdmin,
    SUSPECT_HAND_OUTS, Settled, Work,
};

use crate::queue_contract::bench::{
    Bench, HOUR, LEASE, MINUTE, SECOND, delivery_id, failed, id, ids_of, key, lane, message, owner, payload,
    slack, sms,
};
use crate::queue_contract::harness::Store;

pub(crate) async fn q13_work_that_takes_its_worker_down_again_and_again_is_poison<S: Store>(
    bench: &mut Bench<S>,
) {
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    let work = bench.take_one(&owner("victim"), &lane()).await;
    assert_eq!(work.handed_out, 1);
    for hand_out in 2..=MAX_HAND_OUTS {
        bench.advance(LEASE + SECOND);
        let (items, buried) = bench.sweep(&owner("victim"), &lane(), 10).await;
        assert!(buried.is_empty());
        assert_eq!(items.len(), 1);
        assert_eq!((items[0].handed_out, items[0].attempts), (hand_out, 0));
    }
    bench.advance(LEASE + SECOND);
    let (items, buried) = bench.sweep(&owner("victim"), &lane(), 10).await;
    assert!(items.is_empty());
    assert_eq!(buried.len(), 1);
    assert_eq!((buried[0].cause, buried[0].attempts), (DeadCause::Poison, 0));
    assert_eq!(buried[0].delivery, delivery_id(&id(1), 1));
    let letter = bench.letter(&delivery_id(&id(1), 1)).await;
    assert_eq!((letter.cause, letter.maybe_sent, letter.attempts), (DeadCause::Poison, true, 0));
    assert_eq!(letter.history, []);
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Dead, 0)]);
    bench.assert_at_rest().await;
}

pub(crate) async fn q13_of_suspects_one_is_handed_out_at_a_time_and_the_others_do_not_pay_for_it<S: Store>(
    bench: &mut Bench<S>,
) {
    let mut victim = owner("victim");
    bench.send_many((0..5).map(id), 1, HOUR).await;
    assert_eq!(bench.take(&victim, &lane(), 10).await.len(), 5);
    for hand_out in 2..SUSPECT_HAND_OUTS {
        bench.advance(LEASE + SECOND);
        victim = owner("victim");
        let (items, _) = bench.sweep(&victim, &lane(), 10).await;
        assert!(items.len() == 5 && items.iter().all(|work| work.handed_out == hand_out));
    }
    // From now on each loss takes one of them one step further: five of them live through three more.
    bench.advance(LEASE + SECOND);
    victim = owner("victim");
    let (items, buried) = bench.sweep(&victim, &lane(), 10).await;
    assert_eq!((items.len(), buried.len()), (1, 0));
    assert_eq!(items[0].handed_out, SUSPECT_HAND_OUTS);
    for _ in 0..3 {
        assert_eq!(bench.take(&victim, &lane(), 10).await.len(), 0, "the others are put off");
        bench.advance(BUSY_DELAY);
        let items = bench.take(&victim, &lane(), 10).await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].handed_out, SUSPECT_HAND_OUTS);
    }
    bench.advance(BUSY_DELAY);
    let last = bench.take_one(&victim, &lane()).await;
    assert_eq!(last.handed_out, SUSPECT_HAND_OUTS);
    bench.settle(&victim, last.lease, Settlement::Delivered).await;
    assert_eq!(bench.places(&lane()).await, (0, 4, 0));
    // What is not suspected does not wait for them.
    bench.send_many((5..9).map(id), 1, HOUR).await;
    assert_eq!(bench.take(&victim, &lane(), 10).await.len(), 4);
}

pub(crate) async fn q13_services_that_die_are_counted_like_their_workers<S: Store>(bench: &mut Bench<S>) {
    bench.accept_all(&[NewMessage { deadline: HOUR, ..message(&id(1)) }]).await;
    let inbound = Lane::inbound();
    let mut hand_outs = 0;
    for _ in 0..2 * MAX_HAND_OUTS {
        bench.reopen().await;
        let (items, buried) = bench.recover(&owner("victim"), &inbound).await;
        for work in &items {
            hand_outs += 1;
            assert_eq!(work.handed_out, hand_outs);
        }
        if let Some(buried) = buried.first() {
            assert_eq!((buried.cause, &buried.lane), (DeadCause::Poison, &inbound));
            break;
        }
    }
    assert_eq!(hand_outs, MAX_HAND_OUTS);
    let letter = bench.letter(&delivery_id(&id(1), 0)).await;
    assert_eq!((letter.cause, letter.channel.as_str()), (DeadCause::Poison, "in"));
    assert!(!letter.maybe_sent, "a routing sends nothing");
    bench.assert_at_rest().await;
}

pub(crate) async fn q13_attempts_pauses_renewals_and_releases_are_no_crashes<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    for round in 0..8 {
        let work = bench.take_one(&worker, &lane()).await;
        assert_eq!((work.handed_out, work.attempts, work.pauses), (1, round, round));
        for _ in 0..8 {
            bench.advance(LEASE / 2);
            assert_eq!(bench.renew(&worker, &[key(&work)]).await, []);
        }
        bench.release(&worker, vec![work.lease]).await;
        let work = bench.take_one(&worker, &lane()).await;
        assert_eq!(work.handed_out, 1);
        bench.settle(&worker, work.lease, bench.retry_in(SECOND)).await;
        bench.advance(SECOND);
        let work = bench.take_one(&worker, &lane()).await;
        assert_eq!(work.handed_out, 1);
        bench.settle(&worker, work.lease, bench.pause_for(SECOND)).await;
        bench.advance(SECOND);
    }
    // A real crash is forgiven by what is settled after it.
    for settlement in [bench.retry_in(2 * LEASE), bench.pause_for(2 * LEASE)] {
        bench.take_one(&owner("gone"), &lane()).await;
        let (mut items, _) = bench.recover(&worker, &lane()).await;
        assert_eq!(items[0].handed_out, 2);
        bench.settle(&worker, items.remove(0).lease, settlement).await;
        bench.advance(2 * LEASE);
    }
    assert_eq!(bench.take_one(&worker, &lane()).await.handed_out, 1);
}

pub(crate) async fn q13_a_hand_out_that_its_owner_outlives_does_not_count<S: Store>(bench: &mut Bench<S>) {
    let (mut holder, mut next) = (owner("one"), owner("other"));
    let work = delivery_id(&id(1), 1);
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    assert_eq!(bench.take_one(&holder, &lane()).await.handed_out, 1);
    // Whoever never got the answer to its claim, or to its sweep, goes on asking.
    for _ in 0..2 * MAX_HAND_OUTS {
        bench.advance(LEASE - SECOND);
        assert!(bench.take(&holder, &Lane::inbound(), 10).await.is_empty());
        bench.advance(2 * SECOND);
        let (items, _) = bench.sweep(&next, &lane(), 10).await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].handed_out, 1);
        std::mem::swap(&mut holder, &mut next);
    }
    // Whoever held it up for longer than its lease finds it first.
    bench.advance(2 * LEASE);
    let (mut items, _) = bench.sweep(&holder, &lane(), 10).await;
    assert_eq!(items[0].handed_out, 1);

    // Who was heard of in the first half of the lease alone may be gone; what did not count before does not now.
    bench.advance(LEASE / 2 - SECOND);
    assert_eq!(
        bench.renew(&holder, &[LeaseKey { entry: "0-1/1".to_owned(), ..key(&items[0]) }]).await.len(),
        1
    );
    bench.advance(LEASE);
    items = bench.sweep(&next, &lane(), 10).await.0;
    assert_eq!(items[0].handed_out, 2);
    bench.release(&next, vec![items.remove(0).lease]).await;
    assert_eq!(bench.take_one(&holder, &lane()).await.handed_out, 2);
    bench.advance(LEASE + SECOND);
    let (items, _) = bench.sweep(&holder, &lane(), 10).await;
    assert_eq!(items[0].handed_out, 2);

    // Its deadline ends it at the latest.
    bench.advance(HOUR);
    let (items, buried) = bench.sweep(&holder, &lane(), 10).await;
    assert!(items.is_empty());
    assert_eq!((&buried[0].delivery, buried[0].cause), (&work, DeadCause::Expired));
    assert!(bench.letter(&work).await.maybe_sent);
    bench.assert_at_rest().await;
}

pub(crate) async fn q14_a_sweep_finds_all_that_ran_out_behind_a_thousand_that_did_not<S: Store>(
    bench: &mut Bench<S>,
) {
    let (alive, gone, sweeper) = (owner("alive"), owner("gone"), owner("sweeper"));
    bench.send_many((0..1_150).map(id), 1, HOUR).await;
    let mut held: Vec<LeaseKey> = Vec::new();
    while held.len() < 1_100 {
        let want = MAX_BATCH.min(1_100 - held.len());
        held.extend(bench.take(&alive, &lane(), want).await.iter().map(key));
    }
    let lost: BTreeSet<DeliveryId> = ids_of(&bench.take(&gone, &lane(), 50).await).into_iter().collect();
    assert_eq!((held.len(), lost.len()), (1_100, 50));
    for _ in 0..2 {
        bench.advance(LEASE - SECOND);
        for keys in held.chunks(MAX_BATCH) {
            assert_eq!(bench.renew(&alive, keys).await, []);
        }
    }

    // Ten at a time, one call after the other, the cursor passed on.
    let (mut found, mut cursor) = (BTreeSet::new(), Cursor::default());
    for _ in 0..200 {
        let swept = bench.queue().sweep(&sweeper, &lane(), 10, cursor).await.expect("swept");
        assert!(swept.buried.is_empty());
        for work in swept.items {
            assert_eq!(work.handed_out, 2);
            assert!(found.insert(work.lease.key().work.clone()), "twice");
        }
        cursor = swept.cursor;
        if found.len() == lost.len() {
            break;
        }
    }
    assert_eq!(found, lost);
    assert_eq!(bench.places(&lane()).await, (0, 1_150, 0));
}

pub(crate) async fn q14_what_was_taken_over_may_have_been_sent<S: Store>(bench: &mut Bench<S>) {
    let (worker, next) = (owner("worker"), owner("next"));
    bench.send_within(&id(1), &[sms(1), sms(2), sms(3)], HOUR).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let (ambiguous, plain) = (items.pop().expect("three"), items.pop().expect("two"));
    let attempt = Attempt { ambiguous: true, ..failed(bench.now()) };
    let settlement = Settlement::Dead { cause: DeadCause::Exhausted, attempt: Some(attempt) };
    bench.settle(&worker, ambiguous.lease, settlement).await;
    bench.settle(&worker, plain.lease, bench.dead(DeadCause::Exhausted)).await;
    let (mut items, _) = bench.recover(&next, &lane()).await;
    assert_eq!(ids_of(&items), [delivery_id(&id(1), 1)]);
    // It is remembered through whatever comes after.
    bench.settle(&next, items.remove(0).lease, bench.retry_in(SECOND)).await;
    bench.advance(SECOND);
    let work = bench.take_one(&next, &lane()).await;
    bench.settle(&next, work.lease, bench.dead(DeadCause::Permanent)).await;
    for (index, maybe_sent) in [(1, true), (2, false), (3, true)] {
        assert_eq!(bench.letter(&delivery_id(&id(1), index)).await.maybe_sent, maybe_sent, "{index}");
    }
}

pub(crate) async fn q14_work_that_was_lost_waits_for_its_paused_destination<S: Store>(bench: &mut Bench<S>) {
    let (worker, gone, sweeper) = (owner("worker"), owner("gone"), owner("sweeper"));
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    bench.send_within(&id(2), &[sms(1)], HOUR).await;
    let paused = bench.take_one(&worker, &lane()).await;
    bench.take_one(&gone, &lane()).await;
    bench.settle(&worker, paused.lease, bench.pause_for(2 * MINUTE)).await;
    bench.advance(LEASE + SECOND);
    assert!(bench.sweep(&sweeper, &lane(), 10).await.0.is_empty(), "nobody sends to a paused destination");
    bench.advance(2 * MINUTE - LEASE - 2 * SECOND);
    assert!(bench.sweep(&sweeper, &lane(), 10).await.0.is_empty());
    assert!(bench.take(&sweeper, &lane(), 10).await.is_empty());
    bench.advance(SECOND);
    let mut items = bench.take(&sweeper, &lane(), 10).await;
    items.extend(bench.sweep(&sweeper, &lane(), 10).await.0);
    let mut counts: Vec<_> = items.iter().map(|work| (work.pauses, work.handed_out)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(0, 2), (1, 1)]);
}

pub(crate) async fn q16_an_entry_that_cannot_be_read_is_buried_and_its_neighbours_do_not_notice<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.accept_new([id(1), id(2)]).await;
    bench.put_garbage(&id(2));
    bench.accept_new([id(3)]).await;
    let (mut items, mut buried) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let claimed = bench.ask(&worker, &Lane::inbound(), 10).await;
        items.extend(claimed.items);
        buried.extend(claimed.buried);
    }
    let found = ids_of(&items);
    assert!([1, 3].iter().all(|number| found.contains(&delivery_id(&id(*number), 0))), "{found:?}");
    assert_eq!(buried.len(), 1, "{buried:?}");
    assert_eq!((buried[0].cause, &buried[0].lane), (DeadCause::Poison, &Lane::inbound()));

    let letters = bench.letters(&DeadFilter::default()).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].id, letters[0].cause), (&buried[0].delivery, DeadCause::Poison));
    let text = bench.queue().dead_letter(&letters[0].id).await.expect("asked").expect("there");
    assert!(text.payload.is_some_and(|bytes| !bytes.is_empty()), "its bytes are kept");
    let stats = bench.stats().await;
    assert_eq!((stats.dead, stats.conservation_error), (1, 0));
    bench.assert_sound().await;
    for work in items {
        assert_eq!(bench.expand(&worker, work.lease, &[sms(1)]).await, Settled::Expanded);
    }
    bench.deliver_all(&lane()).await;
    assert_eq!(bench.purge(&[buried[0].delivery.clone()]).await, 1);
    bench.assert_at_rest().await;
}

pub(crate) async fn q21_what_somebody_removed_is_made_anew_and_the_rest_is_handed_out_again<S: Store>(
    bench: &mut Bench<S>,
) {
    let (worker, next) = (owner("worker"), owner("next"));
    let slack_lane = Lane::of(&slack(1).channel);
    bench.accept_new((1..=6).map(id)).await;
    for routing in bench.take(&worker, &Lane::inbound(), 4).await {
        bench.expand(&worker, routing.lease, &[sms(1), slack(2)]).await;
    }
    let mut items = bench.take(&worker, &lane(), 3).await;
    bench.settle(&worker, items.remove(0).lease, bench.retry_in(20 * SECOND)).await;
    bench.settle(&worker, items.remove(0).lease, bench.pause_for(20 * SECOND)).await;

    bench.store.damage();
    let mut recreated = false;
    let mut texts: Vec<Work> = Vec::new();
    for _ in 0..3 {
        bench.advance(LEASE + SECOND);
        bench.housekeep().await;
        for lane in [Lane::inbound(), lane(), slack_lane.clone()] {
            let swept = bench.queue().sweep(&next, &lane, MAX_BATCH, Cursor::default()).await.expect("swept");
            let claimed = bench.ask(&next, &lane, MAX_BATCH).await;
            recreated |= swept.recreated | claimed.recreated;
            for work in swept.items.into_iter().chain(claimed.items) {
                if lane == Lane::inbound() {
                    assert_eq!(bench.expand(&next, work.lease, &[sms(1), slack(2)]).await, Settled::Expanded);
                } else {
                    texts.push(work);
                }
            }
        }
        for work in texts.drain(..) {
            let message = &work.lease.key().work.message;
            assert_eq!(work.payload, payload(message).as_bytes());
            let answer = bench.settle(&next, work.lease, Settlement::Delivered).await;
            assert_eq!(answer, Settled::Delivered { late: false });
        }
    }
    assert!(recreated, "and somebody is told");
    let stats = bench.stats().await;
    assert_eq!((stats.delivered, stats.pending, stats.dead, stats.expired), (12, 0, 0, 0));
    bench.assert_at_rest().await;
    let swept = bench.queue().sweep(&next, &lane(), 1, Cursor::default()).await.expect("swept");
    assert!(!swept.recreated && !bench.ask(&next, &lane(), 1).await.recreated, "once");
}
