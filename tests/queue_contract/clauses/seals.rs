//! What the seal promises on top: only keys open, only in its place, and nothing is lost without them.

use std::time::Duration;

use sms_broadcaster::delivery::{DeadCause, DeliveryState, Settlement};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    DeadFilter, Lane, LaneLimits, NewDelivery, NewMessage, QueueAdmin, Settled,
};
use sms_broadcaster::seal::{Part, is_sealed};

use crate::queue_contract::bench::{
    Bench, MINUTE, SUBSCRIBER, delivery_id, id, ids_of, label, lane, owner, payload, recipient, sms,
};
use crate::queue_contract::harness::Store;
use crate::queue_contract::under_seal::UnderSeal;

type Sealed<S> = Bench<UnderSeal<S>>;

/// A message as it is stored without keys: only of those are unsealed ones told.
fn old_message(id: &MessageId) -> NewMessage {
    NewMessage {
        id: id.clone(),
        payload: format!("{{\"text of\":\"{id}\"}}").into_bytes(),
        deadline: 5 * MINUTE,
        age: Duration::ZERO,
    }
}

/// A delivery as it is stored without keys.
fn old_delivery() -> NewDelivery {
    NewDelivery { recipient: b"{\"to\":\"somebody\"}".to_vec(), ..sms(1) }
}

async fn code_of<S: Store>(bench: &Sealed<S>, message: &MessageId, index: u16) -> String {
    let letter = bench.letter(&delivery_id(message, index)).await;
    assert_eq!((letter.cause, letter.attempts), (DeadCause::Undecryptable, 1));
    let last = letter.history.last().expect("an attempt").summary();
    last.strip_prefix("unreadable, code ").expect("a code").to_owned()
}

pub(crate) async fn q16_what_no_key_opens_is_undecryptable_and_its_neighbours_do_not_notice<S: Store>(
    bench: &mut Sealed<S>,
) {
    let worker = owner("worker");
    bench.store.change_keys(&["other"], true);
    bench.send(&id(4), &[sms(4)]).await;
    bench.accept_new([id(3)]).await;
    bench.store.change_keys(&["new"], true);
    bench.accept_new([id(5)]).await;

    let claimed = bench.ask(&worker, &Lane::inbound(), 10).await;
    assert_eq!(ids_of(&claimed.items), [delivery_id(&id(5), 0)]);
    assert_eq!(claimed.items[0].payload, payload(&id(5)).as_bytes());
    let ended = &claimed.buried[..];
    assert_eq!((ended.len(), &ended[0].delivery), (1, &delivery_id(&id(3), 0)));
    assert_eq!(
        (&ended[0].lane, ended[0].cause, ended[0].attempts),
        (&Lane::inbound(), DeadCause::Undecryptable, 1)
    );
    assert_eq!(claimed.wait, Some(Duration::ZERO), "what could be handed out is asked for at once");
    let claimed = bench.ask(&worker, &lane(), 10).await;
    assert!(claimed.items.is_empty());
    assert_eq!(claimed.buried[0].delivery, delivery_id(&id(4), 1));
    assert_eq!((&claimed.buried[0].subscriber[..], &claimed.buried[0].lane), (SUBSCRIBER, &lane()));

    let filter = DeadFilter { cause: Some(DeadCause::Undecryptable), ..DeadFilter::default() };
    let letters = bench.letters(&filter).await;
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|letter| letter.destination.is_none()), "{letters:?}");
    assert_eq!(code_of(bench, &id(3), 0).await, "no_key:other");
    assert_eq!(code_of(bench, &id(4), 1).await, "no_key:other");
}

pub(crate) async fn q18_an_undecryptable_letter_goes_back_once_its_key_is_there<S: Store>(
    bench: &mut Sealed<S>,
) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1)]).await;
    bench.accept_new([id(2)]).await;
    let letters = [delivery_id(&id(1), 1), delivery_id(&id(2), 0)];
    for names in [&["other"][..], &[], &["other"]] {
        bench.store.change_keys(names, true);
        for lane in [lane(), Lane::inbound()] {
            assert!(bench.take(&worker, &lane, 10).await.is_empty());
        }
        for letter in &letters {
            let found = bench.queue().dead_letter(letter).await.expect("asked").expect("a letter");
            assert_eq!(found.letter.cause, DeadCause::Undecryptable);
            let stored = found.payload.expect("its text is kept");
            assert!(is_sealed(&stored), "and is shown as it is");
        }
        assert_eq!(bench.requeue(&letters).await.requeued, 2);
    }
    bench.store.change_keys(&["other", "new"], true);
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(routing.payload, payload(&id(2)).as_bytes());
    assert_eq!(bench.expand(&worker, routing.lease, &[sms(2)]).await, Settled::Expanded);
    let items = bench.take(&worker, &lane(), 10).await;
    let recipients: Vec<_> = items.iter().map(|work| work.recipient.clone()).collect();
    assert_eq!(recipients, [recipient(1).into_bytes(), recipient(2).into_bytes()]);
    bench.deliver(&worker, items).await;
    bench.assert_at_rest().await;
    for number in [1, 2] {
        assert_eq!(bench.states(&id(number)).await, [(DeliveryState::Delivered, 1)]);
    }
}

pub(crate) async fn a_key_is_changed_without_losing_what_the_old_one_sealed<S: Store>(bench: &mut Sealed<S>) {
    let worker = owner("worker");
    bench.store.change_keys(&["old"], false);
    bench.send(&id(1), &[sms(1)]).await;
    bench.accept_new([id(2)]).await;
    // First everybody can open what the new one seals, then it seals, then the old one goes.
    bench.store.change_keys(&["old", "new"], false);
    bench.accept_new([id(3)]).await;
    bench.store.change_keys(&["new", "old"], false);
    bench.accept_new([id(4)]).await;
    let routings = bench.take(&worker, &Lane::inbound(), 10).await;
    assert_eq!(ids_of(&routings), [2, 3, 4].map(|number| delivery_id(&id(number), 0)));
    for routing in routings {
        assert_eq!(bench.expand(&worker, routing.lease, &[sms(9)]).await, Settled::Expanded);
    }
    let (items, _) = bench.take_all(&worker, &lane(), LaneLimits::default(), &[]).await;
    let mut items = items;
    assert_eq!(items.len(), 4);
    let last = items.pop().expect("four");
    bench.deliver(&worker, items).await;
    bench.release(&worker, vec![last.lease]).await;
    bench.store.change_keys(&["new"], false);
    assert_eq!(bench.take_one(&worker, &lane()).await.payload, payload(&id(4)).as_bytes());
}

pub(crate) async fn what_was_changed_or_moved_is_undecryptable<S: Store>(bench: &mut Sealed<S>) {
    let worker = owner("worker");
    bench.store.change_keys(&["new"], true);
    bench.send(&id(8), &[sms(1), sms(2), sms(3)]).await;
    bench.accept_new((1..=7).map(id)).await;
    let message = |number| bench.store.sealed_of(&id(number), Part::Message);
    let recipient_of = |index| bench.store.sealed_of(&id(8), Part::Recipient(index));

    let sealed = message(1);
    let mut changed = sealed.clone();
    *changed.last_mut().expect("not empty") ^= 1;
    bench.store.overwrite(&sealed, &changed);
    let sealed = message(2);
    bench.store.overwrite(&sealed, &sealed[..sealed.len() - 1]);
    let sealed = message(3);
    bench.store.overwrite(&sealed, b"rubbish");
    let sealed = message(4);
    bench.store.overwrite(&sealed, &[b"\x01".as_slice(), &sealed[1..]].concat());
    let (five, six) = (message(5), message(6));
    bench.store.overwrite(&five, b"aside");
    bench.store.overwrite(&six, &five);
    bench.store.overwrite(b"aside", &six);
    let (first, second) = (recipient_of(1), recipient_of(2));
    bench.store.overwrite(&first, b"aside");
    bench.store.overwrite(&second, &first);
    bench.store.overwrite(b"aside", &second);

    assert_eq!(ids_of(&bench.take(&worker, &Lane::inbound(), 10).await), [delivery_id(&id(7), 0)]);
    for number in 1..=6 {
        assert_eq!(code_of(bench, &id(number), 0).await, "broken_seal", "{number}");
    }
    // Their message is there: who has it may find them anew.
    let items = bench.take(&worker, &lane(), 10).await;
    let carried: Vec<_> =
        items.iter().map(|work| (work.payload == payload(&id(8)).as_bytes(), &work.recipient)).collect();
    let third = recipient(3).into_bytes();
    assert_eq!(carried, [(true, &second), (true, &first), (true, &third)]);
}

pub(crate) async fn what_was_stored_before_there_were_keys_is_read_unless_it_is_forbidden<S: Store>(
    bench: &mut Sealed<S>,
) {
    let worker = owner("worker");
    bench.store.change_keys(&[], true);
    bench.accept_all(&[old_message(&id(1)), old_message(&id(2)), old_message(&id(3))]).await;
    for routing in bench.take(&worker, &Lane::inbound(), 2).await {
        bench.expand(&worker, routing.lease, &[old_delivery(), old_delivery()]).await;
    }
    bench.store.change_keys(&["new"], true);
    let routing = bench.take_one(&worker, &Lane::inbound()).await;
    assert_eq!(routing.payload, old_message(&id(3)).payload);
    bench.expand(&worker, routing.lease, &[old_delivery()]).await;
    for work in bench.take(&worker, &lane(), 3).await {
        assert_eq!(work.recipient, old_delivery().recipient);
        bench.deliver(&worker, vec![work]).await;
    }

    bench.store.change_keys(&["new"], false);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    assert_eq!(code_of(bench, &id(2), 2).await, "unsealed");
    assert_eq!(code_of(bench, &id(3), 1).await, "unsealed");
    assert_eq!(bench.requeue(&[delivery_id(&id(2), 2), delivery_id(&id(3), 1)]).await.requeued, 2);
    bench.store.change_keys(&["new"], true);
    bench.deliver_all(&lane()).await;
    bench.assert_at_rest().await;
}

pub(crate) async fn a_sealed_message_takes_no_recipient_that_is_not<S: Store>(bench: &mut Sealed<S>) {
    let worker = owner("worker");
    bench.store.change_keys(&["new"], true);
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let sealed = bench.store.sealed_of(&id(1), Part::Recipient(1));
    bench.store.overwrite(&sealed, &old_delivery().recipient);
    let items = bench.take(&worker, &lane(), 10).await;
    let carried: Vec<_> = items.iter().map(|work| work.recipient.clone()).collect();
    assert_eq!(carried, [Vec::new(), recipient(2).into_bytes()]);
}

pub(crate) async fn what_a_sweep_takes_over_is_opened_too<S: Store>(bench: &mut Sealed<S>) {
    let (gone, next) = (owner("gone"), owner("next"));
    bench.store.change_keys(&["other"], true);
    bench.send(&id(1), &[sms(1)]).await;
    bench.store.change_keys(&["new", "other"], true);
    bench.send(&id(2), &[sms(2)]).await;
    assert_eq!(bench.take(&gone, &lane(), 10).await.len(), 2);
    bench.store.change_keys(&["new"], true);
    let (items, buried) = bench.recover(&next, &lane()).await;
    assert_eq!(ids_of(&items), [delivery_id(&id(2), 1)]);
    assert_eq!(items[0].recipient, recipient(2).as_bytes());
    assert_eq!((buried.len(), buried[0].cause), (1, DeadCause::Undecryptable));
    assert!(bench.letter(&delivery_id(&id(1), 1)).await.maybe_sent);
}

pub(crate) async fn people_are_shown_masked_to_who_has_the_key_and_not_at_all_to_others<S: Store>(
    bench: &mut Sealed<S>,
) {
    let worker = owner("worker");
    bench.send(&id(1), &[sms(1), sms(2)]).await;
    let mut items = bench.take(&worker, &lane(), 10).await;
    bench.settle(&worker, items.remove(0).lease, Settlement::Delivered).await;
    bench.settle(&worker, items.remove(0).lease, bench.dead(DeadCause::Permanent)).await;
    for (names, shown) in [(&["new"][..], [Some(label(1)), Some(label(2))]), (&["other"], [None, None])] {
        bench.store.change_keys(names, true);
        let status = bench.queue().status(&id(1)).await.expect("asked").expect("known");
        let destinations: Vec<_> =
            status.deliveries.into_iter().map(|delivery| delivery.destination).collect();
        assert_eq!(destinations, shown);
        let letters = bench.letters(&DeadFilter::default()).await;
        assert_eq!((letters.len(), &letters[0].destination), (1, &shown[1]));
        assert_eq!(bench.letter(&delivery_id(&id(1), 2)).await.destination, shown[1]);
    }
    assert!(!bench.store.keeps(&label(1)), "readable it is nowhere");
}
