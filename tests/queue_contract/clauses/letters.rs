//! What is kept and what is not: Q17 dead letters, Q18 requeue, Q19 nothing after success.

use std::time::Duration;

use sms_broadcaster::delivery::{DeadCause, DeliveryId, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{
    DeadFilter, DeadLetter, Lane, LeaseKey, NewMessage, QueueAdmin, QueueSettings, Requeued, Settled,
};

use crate::queue_contract::bench::{
    Bench, HOUR, MINUTE, RETENTION, SECOND, again, delivery_id, failed, id, ids_of, key, label, lane,
    message, owner, payload, recipient, settings, slack, sms,
};
use crate::queue_contract::harness::Store;

use DeliveryState::{Dead, Delivered, Expired, Pending};

/// Takes everything ready and gives it up for `cause`.
async fn let_die<S: Store>(bench: &Bench<S>, cause: DeadCause) {
    let worker = owner("worker");
    for work in bench.take(&worker, &lane(), 128).await {
        let answer = bench.settle(&worker, work.lease, bench.dead(cause)).await;
        assert_eq!(answer, Settled::Dead(cause));
    }
}

async fn count<S: Store>(bench: &Bench<S>, cause: DeadCause) -> u64 {
    let counts = bench.stats().await.dead_letters;
    assert_eq!(counts.len(), DeadCause::ALL.len(), "every cause is there");
    counts.into_iter().find(|(of, _)| *of == cause).expect("every cause is there").1
}

fn requeued(requeued: u64, unknown: u64) -> Requeued {
    Requeued { requeued, skipped: 0, unknown }
}

pub(crate) async fn q17_a_dead_letter_keeps_all_there_is_to_know<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(7)], HOUR).await;
    let accepted_at = bench.now();
    bench.advance(SECOND);
    let mut history = Vec::new();
    let work = bench.take(&worker, &lane(), 10).await.pop().expect("two");
    history.push(failed(bench.now()));
    bench.settle(&worker, work.lease, bench.retry_in(MINUTE)).await;
    bench.advance(MINUTE);
    let work = bench.take_one(&worker, &lane()).await;
    history.push(failed(bench.now()));
    bench.settle(&worker, work.lease, bench.pause_for(MINUTE)).await;
    bench.advance(MINUTE);
    let work = bench.take_one(&worker, &lane()).await;
    assert_eq!((work.attempts, work.pauses), (1, 1));
    history.push(failed(bench.now()));
    bench.settle(&worker, work.lease, bench.dead(DeadCause::Exhausted)).await;

    let letter = DeadLetter {
        id: delivery_id(&id(1), 2),
        channel: "sms".to_owned(),
        destination: Some(label(7)),
        subscriber: "on-call".to_owned(),
        cause: DeadCause::Exhausted,
        attempts: 2,
        maybe_sent: false,
        accepted_at,
        died_at: bench.now(),
        history,
    };
    assert_eq!(bench.letters(&DeadFilter::default()).await, std::slice::from_ref(&letter));
    let text = bench.queue().dead_letter(&letter.id).await.expect("asked").expect("there");
    assert_eq!((text.letter, text.payload), (letter, Some(payload(&id(1)).into_bytes())));
    assert!(!bench.has_letter(&delivery_id(&id(1), 1)).await, "its neighbour lives");
    assert!(!bench.has_letter(&delivery_id(&id(9), 1)).await);
    assert_eq!(bench.states(&id(1)).await, [(Pending, 0), (Dead, 2)]);
    assert_eq!(count(bench, DeadCause::Exhausted).await, 1);
}

pub(crate) async fn q17_a_history_keeps_the_latest_32_attempts_and_counts_them_all<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1)], HOUR).await;
    let mut times = Vec::new();
    for _ in 0..39 {
        let work = bench.take_one(&worker, &lane()).await;
        times.push(bench.now());
        bench.settle(&worker, work.lease, bench.retry_in(SECOND)).await;
        bench.advance(SECOND);
    }
    times.push(bench.now());
    let_die(bench, DeadCause::Exhausted).await;
    let letter = bench.letter(&delivery_id(&id(1), 1)).await;
    assert_eq!(letter.attempts, 40);
    assert_eq!(letter.history, times[8..].iter().map(|at| failed(*at)).collect::<Vec<_>>());
}

pub(crate) async fn q17_letters_vanish_after_the_retention<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(2), sms(3)], 100 * HOUR).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let lives = items.pop().expect("three");
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    bench.settle(&worker, lives.lease, bench.retry_in(70 * HOUR)).await;
    bench.advance(10 * HOUR);
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    let [first, second] = [1, 2].map(|index| delivery_id(&id(1), index));

    bench.advance(RETENTION - 10 * HOUR - MINUTE);
    bench.housekeep().await;
    assert!(bench.has_letter(&first).await && bench.has_letter(&second).await);
    bench.advance(2 * MINUTE);
    bench.housekeep().await;
    assert!(!bench.has_letter(&first).await && bench.has_letter(&second).await);
    let letters: Vec<DeliveryId> =
        bench.letters(&DeadFilter::default()).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(letters, std::slice::from_ref(&second));
    assert_eq!(count(bench, DeadCause::Permanent).await, 1);
    assert_eq!(bench.requeue(std::slice::from_ref(&first)).await, requeued(0, 1));
    assert_eq!(bench.purge(&[first]).await, 0);
    assert!(!bench.store.keeps(&recipient(1)), "nobody needs it");
    assert!(bench.store.keeps(&recipient(2)), "the letter does");
    bench.assert_sound().await;

    bench.advance(10 * HOUR);
    bench.housekeep().await;
    assert!(!bench.has_letter(&second).await);
    assert_eq!(bench.states(&id(1)).await, [(Dead, 1), (Dead, 1), (Pending, 1)], "the message lives");
    assert!(bench.store.keeps(&payload(&id(1))), "and needs its text");
    bench.advance(40 * HOUR);
    bench.deliver_all(&lane()).await;
    assert!(!bench.store.keeps(&payload(&id(1))));
    assert_eq!(bench.states(&id(1)).await, [(Dead, 1), (Dead, 1), (Delivered, 2)]);
    bench.advance(RETENTION + 2 * HOUR);
    bench.housekeep().await;
    assert_eq!(bench.store.records(), 0);
    assert_eq!(bench.stats().await.dead, 2, "the counts stay");
}

pub(crate) async fn q17_the_number_of_letters_is_bounded_and_the_oldest_go_first<S: Store>(
    bench: &mut Bench<S>,
) {
    bench.reopen_with(QueueSettings { dead_letter_cap: 5, ..settings() }).await;
    for number in 1..=8 {
        bench.send(&id(number), &[sms(1)]).await;
        let_die(bench, DeadCause::Permanent).await;
        bench.advance(SECOND);
    }
    bench.send(&id(9), &[sms(1)]).await;
    let_die(bench, DeadCause::Exhausted).await;
    bench.housekeep().await;

    let kept: Vec<DeliveryId> =
        bench.letters(&DeadFilter::default()).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(kept, [9, 8, 7, 6, 5, 4].map(|number| delivery_id(&id(number), 1)), "newest first");
    assert_eq!(count(bench, DeadCause::Permanent).await, 5);
    assert_eq!(count(bench, DeadCause::Exhausted).await, 1);
    assert!(!bench.has_letter(&delivery_id(&id(1), 1)).await);
    assert_eq!(bench.states(&id(1)).await, [(Dead, 1)], "it is still known what became of it");
    assert!(!bench.store.keeps(&payload(&id(1))) && bench.store.keeps(&payload(&id(4))));
    assert_eq!(bench.requeue(&[delivery_id(&id(1), 1)]).await, requeued(0, 1));
    assert_eq!(bench.stats().await.dead, 9);
}

pub(crate) async fn q18_a_letter_goes_back_alone_as_if_new_and_twice_is_once<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2), sms(3), sms(4)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    bench.deliver(&worker, vec![items.pop().expect("four")]).await;
    let pending = items.pop().expect("three");
    for work in items {
        bench.settle(&worker, work.lease, bench.dead(DeadCause::Permanent)).await;
    }
    bench.advance(10 * SECOND);
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|index| delivery_id(&id(1), index));
    let ids = [first.clone(), first.clone(), third, fourth, delivery_id(&id(8), 1)];
    assert_eq!(bench.requeue(&ids).await, requeued(1, 4));
    assert_eq!(bench.requeue(std::slice::from_ref(&first)).await, requeued(0, 1));
    assert!(!bench.has_letter(&first).await && bench.has_letter(&second).await);
    let stats = bench.stats().await;
    assert_eq!((stats.delivered, stats.dead, stats.pending), (1, 1, 2));
    assert_eq!(bench.states(&id(1)).await, [(Pending, 0), (Dead, 1), (Pending, 0), (Delivered, 1)]);

    let work = bench.take_one(&worker, &lane()).await;
    assert_eq!(work.lease.key().work, first);
    assert_eq!((work.attempts, work.pauses, work.handed_out), (0, 0, 1));
    assert_eq!(work.deadline, bench.now().plus(10 * MINUTE), "from now, not from acceptance");
    assert_eq!(work.payload, payload(&id(1)).as_bytes());
    assert_eq!(work.recipient, recipient(1).as_bytes());
    assert_eq!(work.accepted_at, bench.now().minus(10 * SECOND));
    let status = bench.queue().status(&id(1)).await.expect("asked").expect("known");
    assert_eq!(status.deadline, bench.now().plus(10 * MINUTE), "the latest of its deliveries'");
    bench.settle(&worker, work.lease, bench.dead(DeadCause::Exhausted)).await;
    let letter = bench.letter(&first).await;
    assert_eq!((letter.attempts, letter.cause), (1, DeadCause::Exhausted));
    assert_eq!(letter.history, [failed(bench.now())], "its first life is forgotten");

    // Once more, and this time it works.
    assert_eq!(bench.requeue(&[first, second]).await, requeued(2, 0));
    bench.deliver_all(&lane()).await;
    bench.deliver(&worker, vec![pending]).await;
    let stats = bench.stats().await;
    assert_eq!((stats.delivered, stats.dead, stats.pending), (4, 0, 0));
    assert!(!bench.store.keeps(&payload(&id(1))));
    assert!(bench.letters(&DeadFilter::default()).await.is_empty());
}

pub(crate) async fn q18_a_routing_that_died_is_routed_again<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    let inbound = Lane::inbound();
    bench.accept_new([id(1)]).await;
    bench.accept_all(&[NewMessage { deadline: MINUTE, ..message(&id(2)) }]).await;
    let routing = bench.take_one(&worker, &inbound).await;
    let unroutable = Settlement::Dead { cause: DeadCause::Unroutable, attempt: None };
    let answer = bench.settle(&worker, routing.lease, unroutable).await;
    assert_eq!(answer, Settled::Dead(DeadCause::Unroutable));
    bench.advance(MINUTE);
    bench.housekeep().await;
    let [died, expired] = [1, 2].map(|number| delivery_id(&id(number), 0));
    assert_eq!(bench.letter(&died).await.attempts, 0);
    assert_eq!(bench.states(&id(1)).await, [(Dead, 0)]);
    assert_eq!(bench.states(&id(2)).await, [(Expired, 0)]);

    assert_eq!(bench.requeue(&[died, expired]).await, requeued(2, 0));
    let status = bench.queue().status(&id(1)).await.expect("asked").expect("known");
    assert!(!status.expanded && status.deliveries.is_empty());
    let mut routings = bench.take(&worker, &inbound, 10).await;
    assert_eq!(routings.len(), 2);
    for routing in routings.drain(..) {
        assert_eq!(routing.payload, payload(&routing.lease.key().work.message).as_bytes());
        assert_eq!(bench.expand(&worker, routing.lease, &[sms(1)]).await, Settled::Expanded);
    }
    let (expired, _) = bench.housekeep().await;
    assert!(expired.is_empty());
    bench.deliver_all(&lane()).await;
    let stats = bench.stats().await;
    assert_eq!((stats.accepted, stats.delivered, stats.dead, stats.expired), (2, 2, 0, 0));
    bench.assert_at_rest().await;
}

pub(crate) async fn q18_a_requeued_message_outlives_the_retention_of_its_first_life<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    bench.deliver(&worker, vec![items.pop().expect("two")]).await;
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    bench.advance(RETENTION - HOUR);
    bench.housekeep().await;
    let letter = delivery_id(&id(1), 1);
    let result = bench.queue().requeue(std::slice::from_ref(&letter), 100 * HOUR).await;
    assert_eq!(result, Ok(requeued(1, 0)));
    bench.advance(3 * HOUR);
    bench.housekeep().await;
    bench.assert_sound().await;
    let work = bench.take_one(&worker, &lane()).await;
    assert_eq!(work.payload, payload(&id(1)).as_bytes());
    bench.settle(&worker, work.lease, bench.retry_in(50 * HOUR)).await;
    for _ in 0..50 {
        bench.advance(HOUR);
        bench.housekeep().await;
    }
    bench.deliver_all(&lane()).await;
    assert_eq!(bench.states(&id(1)).await, [(Delivered, 2), (Delivered, 1)]);
    bench.advance(RETENTION - MINUTE);
    bench.housekeep().await;
    assert_eq!(bench.store.records(), 1, "the retention runs anew");
    bench.advance(2 * HOUR);
    bench.housekeep().await;
    assert_eq!(bench.store.records(), 0);
}

pub(crate) async fn q18_a_purged_letter_is_forgotten_and_its_message_is_not<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2), sms(3)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    let pending = items.pop().expect("three");
    for work in items {
        bench.settle(&worker, work.lease, bench.dead(DeadCause::Permanent)).await;
    }
    let [first, second, third] = [1, 2, 3].map(|index| delivery_id(&id(1), index));
    let ids = [first.clone(), first.clone(), third.clone(), delivery_id(&id(8), 1)];
    assert_eq!(bench.purge(&ids).await, 1);
    assert_eq!(bench.purge(std::slice::from_ref(&first)).await, 0);
    assert!(!bench.has_letter(&first).await && bench.has_letter(&second).await);
    assert_eq!(bench.requeue(std::slice::from_ref(&first)).await, requeued(0, 1));
    assert_eq!(count(bench, DeadCause::Permanent).await, 1);
    assert!(!bench.store.keeps(&recipient(1)) && bench.store.keeps(&recipient(2)));
    assert_eq!(bench.states(&id(1)).await, [(Dead, 1), (Dead, 1), (Pending, 0)]);
    assert_eq!(bench.renew(&worker, &[key(&pending)]).await, [], "its neighbours do not notice");

    bench.deliver(&worker, vec![pending]).await;
    assert!(bench.store.keeps(&payload(&id(1))), "the other letter needs the text");
    assert_eq!(bench.purge(&[second]).await, 1);
    assert!(!bench.store.keeps(&payload(&id(1))));
    assert_eq!(bench.states(&id(1)).await, [(Dead, 1), (Dead, 1), (Delivered, 1)]);
    let stats = bench.stats().await;
    assert_eq!((stats.delivered, stats.dead), (1, 2), "the counts stay");
    // A late success for a letter that is gone changes nothing.
    let late = bench.settle(&worker, again(&forgotten_lease(first)), Settlement::Delivered).await;
    assert!(matches!(late, Settled::Stale { .. }), "{late:?}");
    bench.assert_at_rest().await;
}

/// A lease on work that is no longer there to be leased.
fn forgotten_lease(work: DeliveryId) -> LeaseKey {
    LeaseKey { lane: lane(), work, entry: "1-0".to_owned() }
}

pub(crate) async fn q18_a_requeued_letter_waits_for_its_paused_destination<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(1)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    bench.settle(&worker, items.remove(0).lease, bench.pause_for(MINUTE)).await;
    assert_eq!(bench.requeue(&[delivery_id(&id(1), 1)]).await, requeued(1, 0));
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    bench.advance(MINUTE);
    let mut found = ids_of(&bench.take(&worker, &lane(), 10).await);
    found.sort();
    assert_eq!(found, [delivery_id(&id(1), 1), delivery_id(&id(1), 2)]);
}

pub(crate) async fn q19_nothing_of_a_delivered_message_is_kept_but_what_became_of_it<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), slack(2), sms(3)], HOUR).await;
    let secrets = [payload(&id(1)), recipient(1), recipient(2), recipient(3)];
    assert!(secrets.iter().all(|secret| bench.store.keeps(secret)), "the search finds what is there");
    let items = bench.take(&worker, &lane(), 10).await;
    let mut items = items.into_iter();
    let (first, second) = (items.next().expect("two"), items.next().expect("two"));
    bench.settle(&worker, first.lease, bench.retry_in(SECOND)).await;
    bench.deliver(&worker, vec![second]).await;
    assert!(bench.store.keeps(&secrets[0]), "others need it");
    bench.advance(SECOND);
    bench.deliver_all(&lane()).await;
    bench.deliver_all(&Lane::of(&slack(2).channel)).await;

    for secret in &secrets {
        assert!(!bench.store.keeps(secret), "{secret}");
    }
    assert!(!bench.store.keeps("20503"), "nor the history of what failed");
    assert_eq!(bench.states(&id(1)).await, [(Delivered, 2), (Delivered, 1), (Delivered, 1)]);
    assert_eq!(bench.store.records(), 1);
    bench.advance(RETENTION - MINUTE);
    bench.housekeep().await;
    assert_eq!(bench.states(&id(1)).await.len(), 3);
    bench.advance(Duration::from_secs(90));
    bench.housekeep().await;
    assert_eq!(bench.queue().status(&id(1)).await, Ok(None));
    bench.advance(HOUR);
    assert_eq!(bench.store.records(), 0);
}
