//! Who may do what with work in hand: Q4 one lease, Q5 success from anyone, Q6 one end, Q15 release.

use std::collections::BTreeSet;
use std::time::Duration;

use sms_broadcaster::delivery::{DeadCause, DeliveryState, Settlement};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Claim, Cursor, Lane, LaneLimits, LeaseKey, Owner, Queue, Settled, Work,
};

use crate::queue_contract::bench::{
    Bench, HOUR, LEASE, MINUTE, SECOND, again, delivery_id, every, failed, id, ids_of, key, lane, owner, sms,
};
use crate::queue_contract::harness::Store;

const STALE: Settled = Settled::Stale { late_success: false };
const LATE: Settled = Settled::Delivered { late: true };

pub(crate) async fn q04_work_is_leased_to_one_owner_until_its_lease_runs_out<S: Store>(bench: &mut Bench<S>) {
    let (first, second) = (owner("worker"), owner("worker"));
    bench.send(&id(1), &[sms(1)]).await;
    let lease = key(&bench.take_one(&first, &lane()).await);

    // Renewed or not, nobody else gets it before its time.
    for _ in 0..4 {
        bench.advance(LEASE - SECOND);
        assert!(bench.take(&second, &lane(), 10).await.is_empty());
        assert!(bench.sweep(&second, &lane(), 10).await.0.is_empty());
        assert_eq!(bench.renew(&first, std::slice::from_ref(&lease)).await, []);
    }
    assert_eq!(
        bench.renew(&second, std::slice::from_ref(&lease)).await,
        std::slice::from_ref(&lease),
        "not his"
    );

    bench.advance(LEASE + SECOND);
    assert!(bench.take(&second, &lane(), 10).await.is_empty(), "taking over is the sweep's");
    let (items, buried) = bench.sweep(&second, &lane(), 10).await;
    assert_eq!((items.len(), buried.len()), (1, 0));
    assert_eq!(bench.renew(&first, std::slice::from_ref(&lease)).await, std::slice::from_ref(&lease), "lost");
    assert!(bench.sweep(&first, &lane(), 10).await.0.is_empty(), "no stealing back");
    bench.deliver(&second, items).await;
    assert_eq!(
        bench.renew(&second, std::slice::from_ref(&lease)).await,
        std::slice::from_ref(&lease),
        "ended"
    );
}

pub(crate) async fn q04_a_lease_that_ran_out_is_still_its_owners_while_nobody_took_it_over<S: Store>(
    bench: &mut Bench<S>,
) {
    let (first, second) = (owner("first"), owner("second"));
    bench.send(&id(1), &[sms(1)]).await;
    let work = bench.take_one(&first, &lane()).await;
    bench.advance(2 * LEASE);
    assert_eq!(bench.renew(&first, &[key(&work)]).await, []);
    assert!(bench.sweep(&second, &lane(), 10).await.0.is_empty(), "renewed to its full length");
    bench.advance(2 * LEASE);
    assert_eq!(bench.settle(&first, work.lease, bench.retry_in(SECOND)).await, Settled::Delayed);
}

pub(crate) async fn q04_many_who_ask_at_once_never_get_the_same_work<S: Store>(bench: &mut Bench<S>) {
    bench.send_many((1..=200).map(id), 1, 5 * MINUTE).await;
    let owners: Vec<Owner> = (0..4).map(|_| owner("worker")).collect();
    let lane = lane();
    let mut seen = BTreeSet::new();
    while seen.len() < 200 {
        let asks = tokio::join!(
            bench.take(&owners[0], &lane, 7),
            bench.take(&owners[1], &lane, 7),
            bench.take(&owners[2], &lane, 7),
            bench.take(&owners[3], &lane, 7),
        );
        let before = seen.len();
        for work in [asks.0, asks.1, asks.2, asks.3].into_iter().flatten() {
            assert!(seen.insert(key(&work).work), "{:?} twice", key(&work).work);
        }
        assert!(seen.len() > before, "{before} of 200 and then nothing");
    }
    assert_eq!(bench.places(&lane).await, (0, 200, 0));
}

pub(crate) async fn q04_an_owner_that_leaves_with_work_in_hand_loses_none_of_it<S: Store>(
    bench: &mut Bench<S>,
) {
    let (first, second) = (owner("first"), owner("second"));
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let mut items = bench.take(&first, &lane(), 10).await;
    bench.deliver(&first, items.drain(1..).collect()).await;
    bench.queue().retire(&first).await.expect("retired");
    assert_eq!(bench.places(&lane()).await, (0, 1, 0));
    bench.advance(LEASE + SECOND);
    let (found, _) = bench.sweep(&second, &lane(), 10).await;
    assert_eq!(found.len(), 1);
    bench.deliver(&second, found).await;

    bench.queue().retire(&first).await.expect("retired");
    bench.queue().retire(&second).await.expect("retired");
    bench.queue().retire(&owner("nobody")).await.expect("retired");
    bench.assert_at_rest().await;
}

/// Work of a fresh message in the hands of `loser`, and the same after `winner` took it over.
async fn taken_over<S: Store>(
    bench: &mut Bench<S>,
    message: &MessageId,
    loser: &Owner,
    winner: &Owner,
) -> (LeaseKey, Work) {
    bench.send_within(message, &[sms(1)], HOUR).await;
    let lost = key(&bench.take_one(loser, &lane()).await);
    bench.advance(LEASE + SECOND);
    let (mut items, _) = bench.sweep(winner, &lane(), 10).await;
    assert_eq!(items.len(), 1);
    (lost, items.remove(0))
}

pub(crate) async fn q05_success_is_taken_from_anyone_and_failure_only_from_the_owner<S: Store>(
    bench: &mut Bench<S>,
) {
    let (loser, winner) = (owner("loser"), owner("winner"));
    let (lost, won) = taken_over(bench, &id(1), &loser, &winner).await;
    let refused = [
        bench.retry_in(SECOND),
        bench.pause_for(MINUTE),
        bench.dead(DeadCause::Permanent),
        Settlement::Dead { cause: DeadCause::Exhausted, attempt: None },
    ];
    for settlement in refused {
        let answer = bench.settle(&loser, again(&lost), settlement.clone()).await;
        assert_eq!(answer, Settled::LostLease, "{settlement:?}");
    }
    assert_eq!(bench.renew(&winner, &[key(&won)]).await, [], "nothing was changed");
    assert_eq!(bench.depth(&lane()).await.paused, 0);
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Pending, 0)]);

    assert_eq!(bench.settle(&loser, again(&lost), Settlement::Delivered).await, LATE);
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Delivered, 1)]);
    assert_eq!(bench.settle(&winner, won.lease, bench.dead(DeadCause::Permanent)).await, STALE);
    bench.assert_at_rest().await;

    // Not even the owner's own earlier hand-out counts.
    bench.send(&id(2), &[sms(1)]).await;
    let first = bench.take_one(&winner, &lane()).await;
    let earlier = key(&first);
    bench.settle(&winner, first.lease, bench.retry_in(SECOND)).await;
    assert_eq!(bench.settle(&winner, again(&earlier), bench.retry_in(SECOND)).await, Settled::LostLease);
    bench.advance(SECOND);
    let second = bench.take_one(&winner, &lane()).await;
    assert_eq!(second.attempts, 1);
    let answer = bench.settle(&winner, again(&earlier), bench.dead(DeadCause::Permanent)).await;
    assert_eq!(answer, Settled::LostLease);
    bench.deliver(&winner, vec![second]).await;
}

pub(crate) async fn q05_who_lost_work_and_took_it_again_has_no_say_by_the_lease_it_lost<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    let (lost, won) = taken_over(bench, &id(1), &worker, &worker).await;
    assert_ne!(lost, key(&won), "another hand-out has another name");
    assert_eq!(bench.renew(&worker, &[lost.clone(), key(&won)]).await, std::slice::from_ref(&lost));
    bench.release(&worker, vec![again(&lost)]).await;
    assert_eq!(bench.places(&lane()).await, (0, 1, 0));
    for settlement in [bench.retry_in(SECOND), bench.pause_for(MINUTE), bench.dead(DeadCause::Permanent)] {
        let answer = bench.settle(&worker, again(&lost), settlement.clone()).await;
        assert_eq!(answer, Settled::LostLease, "{settlement:?}");
    }
    assert_eq!(bench.settle(&worker, won.lease, bench.retry_in(SECOND)).await, Settled::Delayed);

    // A success is one by whatever lease.
    let (lost, won) = taken_over(bench, &id(2), &worker, &worker).await;
    assert_eq!(bench.settle(&worker, again(&lost), Settlement::Delivered).await, LATE);
    assert_eq!(bench.settle(&worker, won.lease, bench.retry_in(SECOND)).await, STALE);
}

pub(crate) async fn q05_a_late_success_clears_the_twin_wherever_it_is<S: Store>(bench: &mut Bench<S>) {
    let (loser, winner, third) = (owner("loser"), owner("winner"), owner("third"));
    for (number, place) in ["delayed", "parked", "ready", "leased", "lapsed", "woken"].into_iter().enumerate()
    {
        let message = id(number);
        let (lost, won) = taken_over(bench, &message, &loser, &winner).await;
        match place {
            "delayed" => drop(bench.settle(&winner, won.lease, bench.retry_in(MINUTE)).await),
            "parked" => drop(bench.settle(&winner, won.lease, bench.pause_for(MINUTE)).await),
            "ready" => bench.release(&winner, vec![won.lease]).await,
            "leased" => {}
            "lapsed" => bench.advance(2 * LEASE),
            _ => {
                bench.settle(&winner, won.lease, bench.retry_in(SECOND)).await;
                bench.advance(SECOND);
                bench.take_one(&third, &lane()).await;
            }
        }
        assert_eq!(bench.settle(&loser, again(&lost), Settlement::Delivered).await, LATE, "{place}");
        assert_eq!(bench.settle(&loser, again(&lost), Settlement::Delivered).await, STALE, "{place}");
        assert_eq!(bench.places(&lane()).await, (0, 0, 0), "{place}");
        bench.advance(2 * MINUTE);
        bench.housekeep().await;
        let (swept, buried) = bench.recover(&third, &lane()).await;
        assert!(swept.is_empty() && buried.is_empty(), "{place}");
        assert!(!bench.store.keeps(&format!("text of {message}.")), "{place}");
        bench.assert_sound().await;
    }
    bench.assert_at_rest().await;
}

pub(crate) async fn q05_a_late_success_for_dead_work_is_noted_on_the_letter<S: Store>(bench: &mut Bench<S>) {
    let (loser, winner) = (owner("loser"), owner("winner"));
    let noted = Settled::Stale { late_success: true };
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let mut items = bench.take(&loser, &lane(), 10).await;
    let (expires, dies) = (items.pop().expect("two"), items.pop().expect("two"));
    bench.settle(&loser, dies.lease, bench.dead(DeadCause::Permanent)).await;
    let died = delivery_id(&id(1), 1);
    assert!(!bench.letter(&died).await.maybe_sent);
    let lost = LeaseKey { work: died.clone(), ..key(&expires) };
    assert_eq!(bench.settle(&winner, again(&lost), Settlement::Delivered).await, noted);
    assert!(bench.letter(&died).await.maybe_sent);
    assert_eq!(bench.settle(&winner, again(&lost), bench.retry_in(SECOND)).await, STALE);

    let answer = bench.settle(&loser, expires.lease, bench.retry_in(HOUR)).await;
    assert_eq!(answer, Settled::Dead(DeadCause::Expired));
    let expired = delivery_id(&id(1), 2);
    let lost = LeaseKey { work: expired.clone(), ..lost };
    assert_eq!(bench.settle(&loser, again(&lost), Settlement::Delivered).await, noted);
    assert!(bench.letter(&expired).await.maybe_sent);
    let states = [(DeliveryState::Dead, 1), (DeliveryState::Expired, 1)];
    assert_eq!(bench.states(&id(1)).await, states, "an end is an end");
}

pub(crate) async fn q05_an_expansion_is_taken_from_whoever_brings_it<S: Store>(bench: &mut Bench<S>) {
    let (loser, winner) = (owner("loser"), owner("winner"));
    bench.accept_new([id(1), id(2)]).await;
    let lost: Vec<LeaseKey> = bench.take(&loser, &Lane::inbound(), 10).await.iter().map(key).collect();
    bench.advance(LEASE + SECOND);
    let (mut won, _) = bench.sweep(&winner, &Lane::inbound(), 10).await;
    assert_eq!(won.len(), 2);

    assert_eq!(bench.expand(&loser, again(&lost[0]), &[sms(1)]).await, Settled::Expanded);
    assert_eq!(bench.expand(&winner, won.remove(0).lease, &[sms(1), sms(2)]).await, STALE);
    // The twin waits for its time.
    bench.settle(&winner, won.remove(0).lease, bench.retry_in(MINUTE)).await;
    assert_eq!(bench.expand(&loser, again(&lost[1]), &[sms(3)]).await, Settled::Expanded);
    assert_eq!(bench.places(&Lane::inbound()).await, (0, 0, 0));
    assert_eq!(bench.places(&lane()).await, (2, 0, 0));
    bench.advance(MINUTE);
    assert!(bench.take(&winner, &Lane::inbound(), 10).await.is_empty());
}

pub(crate) async fn q06_work_ends_once<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let (dies, lives) = (items.pop().expect("two"), items.pop().expect("two"));
    let (dead_key, delivered_key) = (key(&dies), key(&lives));
    let batch = vec![
        (lives.lease, Settlement::Delivered),
        (again(&delivered_key), bench.dead(DeadCause::Permanent)),
        (dies.lease, bench.dead(DeadCause::Exhausted)),
        (again(&dead_key), bench.dead(DeadCause::Permanent)),
        (again(&dead_key), bench.retry_in(SECOND)),
        (again(&delivered_key), Settlement::Delivered),
    ];
    let dead = Settled::Dead(DeadCause::Exhausted);
    let answers = bench.settle_all(&worker, batch).await;
    assert_eq!(answers, [Settled::Delivered { late: false }, STALE, dead, STALE, STALE, STALE]);
    for settlement in [bench.retry_in(SECOND), bench.pause_for(SECOND), Settlement::Delivered] {
        assert_eq!(bench.settle(&worker, again(&delivered_key), settlement).await, STALE);
    }
    bench.release(&worker, vec![again(&delivered_key), again(&dead_key)]).await;
    assert_eq!(bench.requeue(&[delivery_id(&id(1), 1)]).await.unknown, 1, "nothing brings it back");
    bench.advance(2 * LEASE);
    let (found, buried) = bench.recover(&worker, &lane()).await;
    assert!(found.is_empty() && buried.is_empty());
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Delivered, 1), (DeliveryState::Dead, 1)]);
    assert_eq!(
        bench.letter(&delivery_id(&id(1), 2)).await.history,
        [failed(bench.now().minus(3 * LEASE + SECOND))]
    );

    // What nobody has ever heard of has ended too.
    let unknown = LeaseKey { work: delivery_id(&id(9), 1), ..dead_key };
    assert_eq!(bench.settle(&worker, again(&unknown), Settlement::Delivered).await, STALE);
    assert_eq!(bench.settle(&worker, again(&unknown), bench.retry_in(SECOND)).await, STALE);
    assert_eq!(bench.renew(&worker, std::slice::from_ref(&unknown)).await, [unknown]);
}

pub(crate) async fn q15_released_work_is_ready_at_once_as_if_it_had_not_been_handed_out<S: Store>(
    bench: &mut Bench<S>,
) {
    let (first, second) = (owner("first"), owner("second"));
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    for _ in 0..10 {
        let work = bench.take_one(&first, &lane()).await;
        assert_eq!((work.handed_out, work.attempts, work.pauses), (1, 0, 0));
        bench.release(&first, vec![work.lease]).await;
        assert_eq!(bench.places(&lane()).await, (1, 0, 0));
    }
    // A crash before stays counted, and a release by somebody else is none.
    bench.take_one(&first, &lane()).await;
    let (mut items, _) = bench.recover(&second, &lane()).await;
    assert_eq!(items[0].handed_out, 2);
    bench.release(&first, vec![again(&key(&items[0]))]).await;
    assert_eq!(bench.places(&lane()).await, (0, 1, 0));
    bench.release(&second, vec![items.remove(0).lease]).await;
    let work = bench.take_one(&first, &lane()).await;
    assert_eq!(work.handed_out, 2);

    // Released too late, it ends like all work that waits.
    bench.advance(2 * HOUR);
    bench.release(&first, vec![work.lease]).await;
    let claimed = bench.ask(&second, &lane(), 10).await;
    let swept = bench.queue().sweep(&second, &lane(), 10, Cursor::default()).await.expect("swept");
    assert!(claimed.items.is_empty() && swept.items.is_empty());
    let (expired, _) = bench.housekeep().await;
    assert_eq!(claimed.buried.len() + expired.len(), 1);
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Expired, 0)]);
    bench.assert_at_rest().await;
}

pub(crate) async fn q15_released_work_goes_before_what_was_parked_behind_it<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1)]).await;
    bench.send(&id(2), &[sms(1)]).await;
    let limits = LaneLimits { lane: None, destination: every(MINUTE, 1) };
    let claim = Claim { owner: &worker, lane: &lane(), max: 10, limits, busy: &[] };
    let first = bench.claim(claim.clone()).await.items.pop().expect("one may go");
    assert_eq!(bench.places(&lane()).await, (0, 1, 1));
    bench.release(&worker, vec![first.lease]).await;
    assert_eq!(ids_of(&bench.ask(&worker, &lane(), 10).await.items), [delivery_id(&id(1), 1)]);
}

pub(crate) async fn q15_released_work_waits_for_its_paused_destination<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1)]).await;
    bench.send(&id(2), &[sms(1)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let released = items.pop().expect("two");
    bench.settle(&worker, items.remove(0).lease, bench.pause_for(MINUTE)).await;
    bench.release(&worker, vec![released.lease]).await;
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    bench.advance(MINUTE);
    assert_eq!(bench.take(&worker, &lane(), 10).await.len(), 2);
    assert_eq!(bench.ask(&worker, &lane(), 10).await.wait, None::<Duration>);
}
