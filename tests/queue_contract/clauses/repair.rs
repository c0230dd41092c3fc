//! Q23 repair: what somebody broke by hand is found and put right, and messages are delivered after it.

use std::collections::BTreeSet;

use sms_broadcaster::delivery::{DeadCause, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{Lane, LaneLimits, Queue, QueueAdmin, Settled};

use crate::queue_contract::bench::{
    Bench, HOUR, LEASE, MINUTE, SECOND, again, delivery_id, expansion, id, key, lane, owner, sms,
};
use crate::queue_contract::harness::Store;

/// Messages of [`populate`] that are to be delivered.
const DELIVERABLE: [usize; 8] = [1, 2, 3, 4, 5, 6, 8, 9];

/// A message in every state there is:
///
/// 1. accepted, 2. its routing in hand; with a delivery that is 3. ready, 4. in hand, 5. delayed,
/// 6. parked, 7. dead, 8. delivered; 9. with one that is delivered and one that is ready.
async fn populate<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.accept_new([id(2)]).await;
    bench.take_one(&worker, &Lane::inbound()).await;
    for number in 4..=8_usize {
        bench.send_within(&id(number), &[sms(number as u32)], HOUR).await;
        let work = bench.take_one(&worker, &lane()).await;
        let settlement = match number {
            4 => continue,
            5 => bench.retry_in(MINUTE),
            6 => bench.pause_for(MINUTE),
            7 => bench.dead(DeadCause::Permanent),
            _ => Settlement::Delivered,
        };
        bench.settle(&worker, work.lease, settlement).await;
    }
    bench.send_within(&id(9), &[sms(9), sms(10)], HOUR).await;
    let work = bench.take_one(&worker, &lane()).await;
    bench.settle(&worker, work.lease, Settlement::Delivered).await;
    bench.send_within(&id(3), &[sms(3)], HOUR).await;
    bench.accept_new([id(1)]).await;
    bench.assert_sound().await;
}

/// Delivers all there is, whoever had it.
async fn deliver_everything<S: Store>(bench: &Bench<S>) {
    let worker = owner("finisher");
    for _ in 0..6 {
        bench.advance(LEASE + SECOND);
        bench.housekeep().await;
        for from in [Lane::inbound(), lane()] {
            let (mut items, _) = bench.sweep(&worker, &from, 100).await;
            items.extend(bench.take_all(&worker, &from, LaneLimits::default(), &[]).await.0);
            for work in items {
                if from == Lane::inbound() {
                    let expanded = vec![expansion(work.lease, &[sms(50)])];
                    bench.queue().expand(&worker, expanded).await.expect("expanded");
                } else {
                    bench.settle(&worker, work.lease, Settlement::Delivered).await;
                }
            }
        }
    }
}

pub(crate) async fn q23_what_was_broken_by_hand_is_found_and_put_right_and_all_is_delivered<S: Store>(
    bench: &mut Bench<S>,
) {
    for breakage in bench.store.breakages() {
        let what = breakage.what;
        bench.start_anew().await;
        populate(bench).await;
        bench.store.break_by(breakage.how);
        assert_ne!(bench.queue().audit().await.expect("audited"), Vec::<String>::new(), "{what}: not found");

        let done = bench.queue().repair().await.expect("repaired");
        assert_ne!(done, Vec::<String>::new(), "{what}: nothing was done");
        let left = bench.queue().audit().await.expect("audited");
        assert_eq!(left, Vec::<String>::new(), "{what}: left after {done:#?}");
        assert_eq!(bench.stats().await.conservation_error, 0, "{what}");
        let again = bench.queue().repair().await.expect("repaired");
        assert_eq!(again, Vec::<String>::new(), "{what}: once is enough");

        deliver_everything(bench).await;
        let lost: BTreeSet<usize> = breakage.lost.iter().copied().collect();
        for number in DELIVERABLE.into_iter().filter(|number| !lost.contains(number)) {
            let states = bench.states(&id(number)).await;
            assert!(!states.is_empty(), "{what}: message {number} was not routed");
            assert!(
                states.iter().all(|(state, _)| *state == DeliveryState::Delivered),
                "{what}: message {number} is {states:?} after {done:#?}"
            );
        }
        let stats = bench.stats().await;
        assert_eq!((stats.pending, stats.conservation_error), (0, 0), "{what}");
        if breakage.is_told {
            assert_eq!(stats.dead, 1 + lost.len() as u64, "{what}: {done:#?}");
        }
        assert_eq!(bench.queue().audit().await.expect("audited"), Vec::<String>::new(), "{what}");
    }
    bench.start_anew().await;
}

pub(crate) async fn q23_a_sound_store_is_left_as_it_is<S: Store>(bench: &mut Bench<S>) {
    assert_eq!(bench.queue().repair().await.expect("repaired"), Vec::<String>::new());
    populate(bench).await;
    let before = bench.stats().await;
    assert_eq!(bench.queue().repair().await.expect("repaired"), Vec::<String>::new());
    assert_eq!(bench.stats().await, before);
}

pub(crate) async fn q23_work_in_hand_stays_its_owners_through_a_repair<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let work = bench.take_one(&worker, &lane()).await;
    let lease = key(&work);
    for breakage in bench.store.breakages() {
        if breakage.what == "the lanes are forgotten" || breakage.what == "the books are wrong" {
            bench.store.break_by(breakage.how);
        }
    }
    assert_ne!(bench.queue().repair().await.expect("repaired"), Vec::<String>::new());
    assert_eq!(bench.renew(&worker, std::slice::from_ref(&lease)).await, []);
    assert_eq!(bench.settle(&worker, work.lease, bench.retry_in(SECOND)).await, Settled::Delayed);
    assert_eq!(bench.settle(&worker, again(&lease), bench.retry_in(SECOND)).await, Settled::LostLease);
    assert!(!bench.has_letter(&delivery_id(&id(1), 1)).await);
    deliver_everything(bench).await;
    assert_eq!(bench.states(&id(1)).await, [(DeliveryState::Delivered, 2), (DeliveryState::Delivered, 1)]);
    bench.start_anew().await;
}
