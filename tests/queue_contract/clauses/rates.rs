//! Who has to wait: Q10 rates, Q11 pauses, Q12 no head-of-line blocking.

use std::time::Duration;

use sms_broadcaster::delivery::{ChannelId, DeadCause, DeliveryState, DestinationKey, Settlement};
use sms_broadcaster::queue::contract::{
    BUSY_DELAY, Claim, Lane, LaneLimits, MAX_BATCH, Owner, Rate, Settled, Work,
};

use crate::queue_contract::bench::{
    Bench, HOUR, MINUTE, SECOND, delivery_id, destination, every, failed, id, ids_of, lane, owner, slack, sms,
};
use crate::queue_contract::gcra::Gcra;
use crate::queue_contract::harness::Store;

const MILLI: Duration = Duration::from_millis(1);

fn of_lane(rate: Option<Rate>) -> LaneLimits {
    LaneLimits { lane: rate, destination: None }
}

fn of_destination(rate: Option<Rate>) -> LaneLimits {
    LaneLimits { lane: None, destination: rate }
}

/// The numbers of the destinations that work goes to.
fn destinations(items: &[Work]) -> Vec<u32> {
    let number = |key: &DestinationKey| u32::from_str_radix(key.as_str(), 16).expect("a number");
    let mut all: Vec<u32> = items.iter().flat_map(|work| work.destination.as_ref().map(number)).collect();
    all.sort_unstable();
    all
}

pub(crate) async fn q10_a_lane_starts_with_its_burst_and_goes_on_at_its_rate<S: Store>(bench: &mut Bench<S>) {
    let owners = [owner("one"), owner("two")];
    bench.send_many((1..=60).map(id), 1, HOUR).await;
    let limits = of_lane(every(100 * MILLI, 5));
    let lane = lane();
    let ask = |owner, max| Claim { owner, lane: &lane, max, limits, busy: &[] };
    let claimed = bench.claim(ask(&owners[0], 3)).await;
    assert_eq!((claimed.items.len(), claimed.rate_limited), (3, false));
    let claimed = bench.claim(ask(&owners[1], 50)).await;
    assert_eq!((claimed.items.len(), claimed.rate_limited), (2, true), "the burst is shared");
    assert_eq!(claimed.wait, Some(100 * MILLI));

    for step in 0..20 {
        bench.advance(99 * MILLI);
        let early = bench.claim(ask(&owners[step % 2], 50)).await;
        assert_eq!((early.items.len(), early.wait, early.rate_limited), (0, Some(MILLI), true));
        bench.advance(MILLI);
        assert_eq!(bench.claim(ask(&owners[step % 2], 50)).await.items.len(), 1, "step {step}");
        assert_eq!(bench.claim(ask(&owners[1 - step % 2], 50)).await.items.len(), 0, "step {step}");
    }
    // Quiet earns a burst and no more.
    bench.advance(HOUR / 2);
    let (items, _) = bench.take_all(&owners[0], &lane, limits, &[]).await;
    assert_eq!(items.len(), 5);
    // Another lane has its own.
    let other = Lane::of(&ChannelId::slack());
    bench.send(&id(100), &[slack(1), slack(2), slack(3), slack(4), slack(5), slack(6)]).await;
    let (items, _) = bench.take_all(&owners[0], &other, limits, &[]).await;
    assert_eq!(items.len(), 5);
}

/// Two owners ask by turns for `span`, every `step`: what came per destination and moment is exactly
/// what the reference allows.
async fn count_exactly<S: Store>(
    bench: &mut Bench<S>,
    limits: LaneLimits,
    destinations_asked: &[u32],
    step: Duration,
    steps: usize,
) {
    let owners = [owner("one"), owner("two")];
    let mut lane_rate = Gcra::default();
    let mut rates = vec![Gcra::default(); destinations_asked.len()];
    for turn in 0..steps {
        let (items, _) = bench.take_all(&owners[turn % 2], &lane(), limits, &[]).await;
        let came = destinations(&items);
        let mut allowed = 0;
        for (number, rate) in destinations_asked.iter().zip(&mut rates) {
            let count = came.iter().filter(|came| *came == number).count();
            let room = rate.room(limits.destination, bench.now());
            assert!(count <= room, "turn {turn}: {count} to {number}, {room} allowed");
            rate.spend(limits.destination, bench.now(), count);
            allowed += room;
        }
        let room = lane_rate.room(limits.lane, bench.now());
        assert_eq!(came.len(), allowed.min(room), "turn {turn}: {came:?}");
        lane_rate.spend(limits.lane, bench.now(), came.len());
        bench.deliver(&owners[turn % 2], items).await;
        bench.advance(step);
    }
}

pub(crate) async fn q10_hand_outs_over_time_are_counted_exactly<S: Store>(bench: &mut Bench<S>) {
    // A third of a second is no whole number of milliseconds.
    let third = Rate { interval: Duration::from_micros(333_333), burst: 4 };
    bench.send_many((0..60).map(id), 1, HOUR).await;
    count_exactly(bench, of_lane(Some(third)), &[1], 70 * MILLI, 150).await;
}

pub(crate) async fn q10_each_destination_has_its_own_rate<S: Store>(bench: &mut Bench<S>) {
    for number in 1..=3_u32 {
        let first = 1_000 * number as usize;
        bench.send_many((first..first + 40).map(id), number, HOUR).await;
    }
    let rate = Rate { interval: Duration::from_micros(700_001), burst: 2 };
    count_exactly(bench, of_destination(Some(rate)), &[1, 2, 3], 250 * MILLI, 60).await;
}

pub(crate) async fn q10_the_rates_of_lane_and_destination_hold_together<S: Store>(bench: &mut Bench<S>) {
    for number in 1..=3_u32 {
        let first = 1_000 * number as usize;
        bench.send_many((first..first + 40).map(id), number, HOUR).await;
    }
    let limits = LaneLimits { lane: every(400 * MILLI, 3), destination: every(SECOND, 2) };
    count_exactly(bench, limits, &[1, 2, 3], 300 * MILLI, 60).await;
}

pub(crate) async fn q10_what_is_not_handed_out_costs_nothing<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_many((1..=20).map(id), 1, HOUR).await;
    let limits = LaneLimits { lane: every(MINUTE, 4), destination: every(MINUTE, 1) };
    let (items, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
    assert_eq!(destinations(&items), [1]);
    for (number, to) in [(101, 2), (102, 3), (103, 4), (104, 5)] {
        bench.send_within(&id(number), &[sms(to)], HOUR).await;
    }
    let (items, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
    assert_eq!(destinations(&items), [2, 3, 4], "three of four were left");
    // Work taken over had been granted.
    let (items, _) = bench.recover(&worker, &lane()).await;
    assert!(items.len() >= 4);
}

pub(crate) async fn q11_a_pause_holds_its_destination_for_every_owner_and_costs_no_attempt<S: Store>(
    bench: &mut Bench<S>,
) {
    let (first, second) = (owner("first"), owner("second"));
    bench.send_within(&id(1), &[sms(1), sms(1), sms(1), sms(2)], HOUR).await;
    let work = bench.take_one(&first, &lane()).await;
    let in_hand = bench.take_one(&second, &lane()).await;
    assert_eq!(bench.settle(&first, work.lease, bench.pause_for(MINUTE)).await, Settled::Delayed);
    assert_eq!(bench.depth(&lane()).await.paused, 1);
    bench.send_within(&id(2), &[sms(1), sms(3)], HOUR).await;

    let (items, _) = bench.take_all(&second, &lane(), LaneLimits::default(), &[]).await;
    assert_eq!(destinations(&items), [2, 3]);
    bench.deliver(&second, items).await;
    bench.deliver(&second, vec![in_hand]).await;
    bench.advance(MINUTE - MILLI);
    for owner in [&first, &second] {
        let nothing = bench.ask(owner, &lane(), 10).await;
        assert!(nothing.items.is_empty());
        assert_eq!(nothing.wait, Some(MILLI));
    }
    bench.advance(MILLI);
    assert_eq!(bench.depth(&lane()).await.paused, 0);
    let (items, _) = bench.take_all(&second, &lane(), LaneLimits::default(), &[]).await;
    assert_eq!(destinations(&items), [1, 1, 1]);
    let mut pauses: Vec<_> = items.iter().map(|work| (work.attempts, work.pauses, work.handed_out)).collect();
    pauses.sort_unstable();
    assert_eq!(pauses, [(0, 0, 1), (0, 0, 1), (0, 1, 1)]);
    bench.deliver(&second, items).await;
    assert!(bench.states(&id(1)).await.iter().all(|state| *state == (DeliveryState::Delivered, 1)));
}

pub(crate) async fn q11_a_longer_pause_is_not_shortened_by_a_shorter_one<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1), sms(1), sms(1), sms(1)], HOUR).await;
    let mut items = bench.take(&worker, &lane(), 3).await;
    for pause in [10 * SECOND, MINUTE, 5 * SECOND] {
        bench.settle(&worker, items.remove(0).lease, bench.pause_for(pause)).await;
    }
    assert_eq!(bench.ask(&worker, &lane(), 10).await.wait, Some(MINUTE));
    bench.advance(MINUTE - MILLI);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    bench.advance(MILLI);
    assert_eq!(bench.take(&worker, &lane(), 10).await.len(), 4);
}

pub(crate) async fn q11_a_pause_beyond_the_deadline_of_its_bearer_holds_the_others<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_within(&id(1), &[sms(1)], MINUTE).await;
    bench.send_within(&id(2), &[sms(1)], HOUR).await;
    let work = bench.take_one(&worker, &lane()).await;
    let answer = bench.settle(&worker, work.lease, bench.pause_for(2 * MINUTE)).await;
    assert_eq!(answer, Settled::Dead(DeadCause::Expired));
    bench.advance(2 * MINUTE - MILLI);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty());
    bench.advance(MILLI);
    assert_eq!(ids_of(&bench.take(&worker, &lane(), 10).await), [delivery_id(&id(2), 1)]);
    // A pause that is over holds nothing.
    bench.send_within(&id(3), &[sms(4), sms(4)], HOUR).await;
    let work = bench.take_one(&worker, &lane()).await;
    let over = Settlement::Pause { until: bench.now().minus(SECOND), attempt: failed(bench.now()) };
    assert_eq!(bench.settle(&worker, work.lease, over).await, Settled::Delayed);
    assert_eq!(bench.take(&worker, &lane(), 10).await.len(), 2);
}

/// Claims, ten at a time, until work for `other` comes, which stands behind everything else.
async fn gets_through<S: Store>(
    bench: &Bench<S>,
    limits: LaneLimits,
    busy: &[DestinationKey],
    other: u32,
) -> Vec<Work> {
    let (owner, lane): (Owner, Lane) = (owner("worker"), lane());
    let mut items = Vec::new();
    for _ in 0..8 {
        let claimed = bench.claim(Claim { owner: &owner, lane: &lane, max: 10, limits, busy }).await;
        let is_idle = claimed.items.is_empty() && claimed.wait != Some(Duration::ZERO);
        items.extend(claimed.items);
        if destinations(&items).contains(&other) {
            return items;
        }
        assert!(!is_idle, "it sends the worker to sleep while other work is ready");
    }
    panic!("work of another destination does not come within eight calls");
}

pub(crate) async fn q12_a_destination_over_its_rate_delays_only_its_own_work<S: Store>(bench: &mut Bench<S>) {
    bench.send_many((1..=500).map(id), 1, HOUR).await;
    bench.send_within(&id(0), &[sms(2)], HOUR).await;
    let items = gets_through(bench, of_destination(every(HOUR, 1)), &[], 2).await;
    assert_eq!(destinations(&items), [1, 2]);
    // Nor does it delay the next that comes.
    bench.send_within(&id(501), &[sms(3)], HOUR).await;
    let items = gets_through(bench, of_destination(every(HOUR, 1)), &[], 3).await;
    assert_eq!(destinations(&items), [3]);
    assert_eq!(bench.places(&lane()).await, (0, 3, 499));
}

pub(crate) async fn q12_a_paused_destination_delays_only_its_own_work<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    bench.send_many((1..=500).map(id), 1, HOUR).await;
    bench.send_within(&id(0), &[sms(2)], HOUR).await;
    let work = bench.take_one(&worker, &lane()).await;
    bench.settle(&worker, work.lease, bench.pause_for(HOUR / 2)).await;
    assert_eq!(destinations(&gets_through(bench, LaneLimits::default(), &[], 2).await), [2]);
    bench.advance(HOUR / 2);
    let (items, _) = bench.take_all(&worker, &lane(), LaneLimits::default(), &[]).await;
    assert_eq!(items.len(), 500, "and then all of it comes");
}

pub(crate) async fn q12_a_busy_destination_delays_only_its_own_work_and_only_for_a_moment<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    bench.send_many((1..=500).map(id), 1, HOUR).await;
    bench.send_within(&id(0), &[sms(2)], HOUR).await;
    let busy = [destination(1), destination(77)];
    assert_eq!(destinations(&gets_through(bench, LaneLimits::default(), &busy, 2).await), [2]);
    bench.advance(BUSY_DELAY - MILLI);
    assert!(bench.take(&worker, &lane(), 10).await.is_empty(), "put off for everybody");
    bench.advance(MILLI);
    let (items, _) = bench.take_all(&worker, &lane(), LaneLimits::default(), &busy).await;
    assert!(items.is_empty(), "still busy");
    bench.advance(BUSY_DELAY);
    let (items, calls) = bench.take_all(&worker, &lane(), LaneLimits::default(), &[]).await;
    assert_eq!(items.len(), 500);
    assert!(calls <= 2 * 500_usize.div_ceil(MAX_BATCH) + 4, "{calls} calls");
}

pub(crate) async fn q12_waiting_work_of_a_destination_goes_by_deadline_and_is_not_overtaken<S: Store>(
    bench: &mut Bench<S>,
) {
    let worker = owner("worker");
    for (number, minutes) in [(1, 50), (2, 40), (3, 30), (4, 45)] {
        bench.send_within(&id(number), &[sms(1)], minutes * MINUTE).await;
    }
    let limits = of_destination(every(MINUTE, 1));
    let mut order = Vec::new();
    for turn in 0..5 {
        let (items, _) = bench.take_all(&worker, &lane(), limits, &[]).await;
        order.extend(ids_of(&items));
        if turn == 0 {
            // Later than the rest, and the last to be due.
            bench.send_within(&id(5), &[sms(1)], HOUR).await;
        }
        bench.advance(MINUTE);
        bench.deliver(&worker, items).await;
    }
    assert_eq!(order, [1, 3, 2, 4, 5].map(|number| delivery_id(&id(number), 1)));
}

pub(crate) async fn q12_a_lane_goes_oldest_first<S: Store>(bench: &mut Bench<S>) {
    let worker = owner("worker");
    for number in 1..=6 {
        bench.send(&id(number), &[sms(u32::try_from(number).expect("small"))]).await;
        bench.advance(SECOND);
    }
    let first = bench.ask(&worker, &lane(), 4).await;
    assert_eq!(ids_of(&first.items), [1, 2, 3, 4].map(|number| delivery_id(&id(number), 1)));
    assert_eq!(first.wait, Some(Duration::ZERO), "there is more");
    let rest = bench.take(&worker, &lane(), 4).await;
    assert_eq!(ids_of(&rest), [5, 6].map(|number| delivery_id(&id(number), 1)));
}
