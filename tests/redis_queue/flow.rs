//! The way of work through the store, as far as Redis has a say in it.

use std::time::Duration;

use sms_broadcaster::delivery::{ChannelId, DeadCause, DeliveryState, DestinationKey, Settlement};
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Cursor, DeadFilter, Lane, LaneLimits, MAX_HAND_OUTS, Mark, Owner, Queue, QueueAdmin,
    QueueSettings, Rate, Requeued, Room, SUSPECT_HAND_OUTS, Settle, Settled,
};
use tokio::time::timeout;

use super::bench::{
    Bench, DAY, GUARD, LEASE, MINUTE, dead, delivery_id, expansion, failed, id, ids, message, queue_on, sms,
};
use crate::support::installation::LOOK;
use crate::support::redis_server::RedisServer;

#[tokio::test]
async fn a_message_goes_all_its_way() {
    let bench = Bench::new();
    bench.queue.prepare().await.unwrap();
    let owner = Owner::new("worker");
    let lane = sms();
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c"]).await;
    assert_eq!(bench.queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Duplicate]);

    let mut items = bench.claim(&owner, &lane, 10).await.items;
    assert_eq!(items.len(), 3);
    let (third, second, first) = (items.pop().unwrap(), items.pop().unwrap(), items.pop().unwrap());
    assert_eq!(first.payload, b"text of test:1");
    assert_eq!(first.recipient, b"recipient a");
    assert_eq!(first.subscriber, "team");
    assert_eq!(first.destination, Some(DestinationKey::from_stored("a")));
    assert_eq!(first.accepted_at, bench.clock.now());
    assert_eq!(first.deadline, bench.clock.now().plus(5 * MINUTE));
    assert_eq!((first.attempts, first.pauses, first.handed_out), (0, 0, 1));
    bench.assert_sound().await;

    let now = bench.clock.now();
    let later = now.plus(Duration::from_secs(2));
    let retry = Settlement::RetryAt { due: later, attempt: failed(now) };
    assert_eq!(bench.settle(&owner, first, Settlement::Delivered).await, Settled::Delivered { late: false });
    assert_eq!(bench.settle(&owner, second, retry).await, Settled::Delayed);
    let gone = dead(DeadCause::Permanent, now);
    assert_eq!(bench.settle(&owner, third, gone).await, Settled::Dead(DeadCause::Permanent));
    bench.assert_sound().await;

    let nothing = bench.claim(&owner, &lane, 10).await;
    assert!(nothing.items.is_empty());
    assert_eq!(nothing.wait, Some(Duration::from_secs(2)));
    bench.clock.advance(Duration::from_secs(2));
    let again = bench.claim(&owner, &lane, 10).await.items.pop().unwrap();
    assert_eq!((again.attempts, again.handed_out), (1, 1));
    bench.settle(&owner, again, Settlement::Delivered).await;

    let status = bench.queue.status(&id(1)).await.unwrap().unwrap();
    let states: Vec<_> = status.deliveries.iter().map(|d| (d.state, d.attempts)).collect();
    assert!(status.expanded);
    assert_eq!(
        states,
        [(DeliveryState::Delivered, 1), (DeliveryState::Delivered, 2), (DeliveryState::Dead, 1)]
    );
    let listed = bench.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    let letter = bench.queue.dead_letter(&delivery_id(1, 3)).await.unwrap().unwrap();
    assert_eq!(listed, std::slice::from_ref(&letter.letter));
    assert_eq!(letter.payload.as_deref(), Some(b"text of test:1".as_slice()));
    assert_eq!(letter.letter.history, [failed(now)]);
    assert_eq!(letter.letter.destination.as_deref(), Some("label of c"));
    assert_eq!((letter.letter.channel.as_str(), letter.letter.subscriber.as_str()), ("sms", "team"));

    let requeued = bench.queue.requeue(&[delivery_id(1, 3), delivery_id(1, 3)], MINUTE).await.unwrap();
    assert_eq!(requeued, Requeued { requeued: 1, skipped: 0, unknown: 1 });
    bench.assert_sound().await;
    let revived = bench.claim(&owner, &lane, 10).await.items.pop().unwrap();
    assert_eq!((revived.attempts, revived.handed_out), (0, 1));
    assert_eq!(revived.deadline, bench.clock.now().plus(MINUTE));
    bench.settle(&owner, revived, Settlement::Delivered).await;

    let stats = bench.queue.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.duplicates), (1, 1));
    assert_eq!((stats.delivered, stats.dead, stats.expired, stats.pending), (3, 0, 0, 0));
    bench.assert_sound().await;
    let record = bench.redis("HKEYS ~m:test:1");
    assert!(!record.contains("ct") && !record.contains("rc") && !record.contains("h1"), "{record}");

    bench.clock.advance(DAY);
    bench.housekeep().await;
    assert_eq!(bench.queue.status(&id(1)).await.unwrap(), None);
    assert_eq!(bench.queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
    bench.assert_sound().await;
}

#[tokio::test]
async fn what_a_routing_makes_is_handed_out_with_it_where_there_is_room_and_nothing_waits() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = Lane::of(&ChannelId::sms());
    let mut handed_out = Vec::new();
    for (number, max) in [(1, 2), (2, 1), (3, 2)] {
        bench.queue.accept(&[message(&id(number))]).await.unwrap();
        let routing = bench.claim(&owner, &Lane::inbound(), 1).await.items.pop().unwrap();
        let room = [Room { lane: lane.clone(), max, limits: LaneLimits::default() }];
        let batch = vec![expansion(routing.lease, &["a", "b"])];
        let expanded = bench.queue.expand_and_claim(&owner, batch, &room).await.unwrap();
        handed_out.push(expanded.handed_out.len());
    }
    // Of the second one is left, so of the third nobody gets any before that.
    assert_eq!(handed_out, [2, 1, 0]);
    assert_eq!(bench.claim(&owner, &lane, 10).await.items.len(), 3);
    bench.assert_sound().await;
}

#[tokio::test]
async fn what_is_kept_of_a_finished_message_is_small() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let mut long = message(&id(1));
    long.payload = vec![b'.'; 500];
    bench.queue.accept(&[long]).await.unwrap();
    let routing = bench.claim(&owner, &Lane::inbound(), 1).await.items.pop().unwrap();
    bench.queue.expand(&owner, vec![expansion(routing.lease, &["a", "b"])]).await.unwrap();
    assert!(bench.redis("OBJECT ENCODING ~m:test:1").contains("hashtable"));
    assert_eq!(bench.drain(&owner).await, 2);
    assert!(bench.redis("OBJECT ENCODING ~m:test:1").contains("listpack"));
    assert_ne!(bench.redis("TTL ~m:test:1"), ":-1");
    bench.assert_sound().await;
}

#[tokio::test]
async fn by_the_servers_own_clock_everything_works_as_well() {
    let server = RedisServer::start();
    let clock = sms_broadcaster::clock::Clock::system();
    // Who is heard of in the second half of a lease lives: a busy machine does not hold a sweep up for that long.
    let settings = QueueSettings { lease: Duration::from_secs(2), ..QueueSettings::default() };
    let queue = queue_on(&server, settings, &clock);
    let bench = Bench { server, clock, queue };
    let (first, second) = (Owner::new("first"), Owner::new("second"));
    bench.accept_and_route(&first, &id(1), &["a", "b"]).await;
    let limits = LaneLimits {
        lane: Some(Rate { interval: MINUTE, burst: 5 }),
        destination: Some(Rate { interval: MINUTE, burst: 1 }),
    };
    let claimed = bench.claim_within(&first, &sms(), 10, limits).await;
    assert_eq!(claimed.items.len(), 2);
    let keys: Vec<_> = claimed.items.iter().map(|work| work.lease.key().clone()).collect();
    assert_eq!(bench.queue.renew(&first, &keys).await.unwrap(), []);
    assert_eq!(bench.queue.renew(&second, &keys).await.unwrap(), keys);
    let sweep_both = async |owner: &Owner| {
        let taken_over = timeout(GUARD, async {
            let mut items = Vec::new();
            while items.len() < 2 {
                items.extend(bench.sweep(owner, &sms()).await.items);
                tokio::time::sleep(LOOK).await;
            }
            items
        });
        taken_over.await.unwrap()
    };
    assert!(sweep_both(&second).await.iter().all(|work| work.handed_out == 2));
    // The second lives, so losing it again is not the work's fault.
    for work in sweep_both(&second).await {
        assert_eq!(work.handed_out, 2);
        bench.settle(&second, work, Settlement::Delivered).await;
    }
    bench.assert_sound().await;
}

/// How near to the end of a lease a test looks.
const EDGE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn two_owners_share_a_lane_and_one_takes_over_from_the_other() {
    let bench = Bench::new();
    let (first, second) = (Owner::new("first"), Owner::new("second"));
    bench.accept(&ids(0..10)).await;
    let mine = bench.claim(&first, &Lane::inbound(), 6).await.items;
    let yours = bench.claim(&second, &Lane::inbound(), 6).await.items;
    assert_eq!((mine.len(), yours.len()), (6, 4));
    let held: Vec<_> = mine.iter().map(|work| work.lease.key().clone()).collect();

    // The server's own clock goes on beside the test's and says how long a lease has been idle: an edge of a
    // millisecond would be one for it too.
    bench.clock.advance(LEASE - EDGE);
    let yours_held: Vec<_> = yours.iter().map(|work| work.lease.key().clone()).collect();
    assert_eq!(bench.queue.renew(&second, &yours_held).await.unwrap(), []);
    assert!(bench.sweep(&second, &Lane::inbound()).await.items.is_empty());
    bench.clock.advance(EDGE);

    // The first is gone; two sweeps with a small batch find all of its work, and not the second's own.
    let mut cursor = Cursor::default();
    let mut found = Vec::new();
    loop {
        let swept = bench.queue.sweep(&second, &Lane::inbound(), 4, cursor).await.unwrap();
        found.extend(swept.items);
        cursor = swept.cursor;
        if cursor == Cursor::default() {
            break;
        }
    }
    let mut names: Vec<_> = found.iter().map(|work| &work.lease.key().work).collect();
    names.sort();
    assert_eq!(names, held.iter().map(|key| &key.work).collect::<Vec<_>>());
    assert!(found.iter().all(|work| work.handed_out == 2));
    assert_eq!(bench.queue.renew(&first, &held).await.unwrap(), held);
    bench.assert_sound().await;

    // What the first did in time is true all the same; what it failed at is not its to say.
    let mut late = mine.into_iter();
    let routed = expansion(late.next().unwrap().lease, &["a"]);
    assert_eq!(bench.queue.expand(&first, vec![routed]).await.unwrap(), [Settled::Expanded]);
    let failed = dead(DeadCause::Unroutable, bench.clock.now());
    assert_eq!(bench.settle(&first, late.next().unwrap(), failed).await, Settled::LostLease);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_late_success_clears_the_twin_wherever_it_waits() {
    let bench = Bench::new();
    let (slow, quick) = (Owner::new("slow"), Owner::new("quick"));
    bench.accept_and_route(&slow, &id(1), &["a", "b", "c"]).await;
    let late = bench.claim(&slow, &sms(), 10).await.items;
    bench.clock.advance(LEASE);
    let mut twins = bench.sweep(&quick, &sms()).await.items;
    let now = bench.clock.now();
    // One delayed, one parked, one ready again.
    let attempt = failed(now);
    let retry = Settlement::RetryAt { due: now.plus(MINUTE), attempt: attempt.clone() };
    bench.settle(&quick, twins.remove(0), retry).await;
    let pause = Settlement::Pause { until: now.plus(MINUTE), attempt };
    bench.settle(&quick, twins.remove(0), pause).await;
    bench.queue.release(&quick, vec![twins.remove(0).lease]).await.unwrap();
    bench.assert_sound().await;

    for work in late {
        assert_eq!(bench.settle(&slow, work, Settlement::Delivered).await, Settled::Delivered { late: true });
        bench.assert_sound().await;
    }
    let lane = &bench.queue.stats().await.unwrap().lanes[1];
    assert_eq!((lane.ready, lane.leased, lane.delayed), (0, 0, 0));
    assert_eq!(bench.redis("EXISTS ~wake:sms ~park:sms ~due:sms"), ":0");
}

#[tokio::test]
async fn releases_and_renewals_do_not_count_as_hand_outs_and_crashes_do() {
    let bench = Bench::new();
    let mut owner = Owner::new("worker");
    bench.accept(&ids(1..2)).await;
    let lane = Lane::inbound();
    let mut work = bench.claim(&owner, &lane, 1).await.items.pop().unwrap();
    for crash in 2..=MAX_HAND_OUTS {
        bench.queue.renew(&owner, &[work.lease.key().clone()]).await.unwrap();
        bench.clock.advance(LEASE);
        owner = Owner::new("worker");
        work = bench.sweep(&owner, &lane).await.items.pop().unwrap();
        assert_eq!(work.handed_out, crash);
        bench.queue.release(&owner, vec![work.lease]).await.unwrap();
        work = bench.claim(&owner, &lane, 1).await.items.pop().unwrap();
        assert_eq!(work.handed_out, crash);
    }
    assert!(work.handed_out > SUSPECT_HAND_OUTS);
    bench.clock.advance(LEASE);
    let swept = bench.sweep(&Owner::new("worker"), &lane).await;
    assert!(swept.items.is_empty());
    assert_eq!(swept.buried[0].cause, DeadCause::Poison);
    bench.assert_sound().await;
}

#[tokio::test]
async fn work_swept_for_a_paused_destination_waits_with_its_crashes_counted() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    bench.accept_and_route(&owner, &id(2), &["a"]).await;
    let mut works = bench.claim(&owner, &sms(), 10).await.items;
    let now = bench.clock.now();
    let pause = Settlement::Pause { until: now.plus(MINUTE), attempt: failed(now) };
    assert_eq!(bench.settle(&owner, works.pop().unwrap(), pause).await, Settled::Delayed);
    bench.clock.advance(LEASE);
    assert!(bench.sweep(&Owner::new("next"), &sms()).await.items.is_empty());
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().lanes[1].paused, 1);

    bench.clock.advance(MINUTE - LEASE);
    let mut handed: Vec<_> =
        bench.claim(&owner, &sms(), 10).await.items.iter().map(|w| (w.handed_out, w.pauses)).collect();
    handed.sort_unstable();
    assert_eq!(handed, [(1, 1), (2, 0)]);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_destination_over_its_rate_holds_up_nobody_else_and_loses_nothing() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let many: Vec<&str> = std::iter::repeat_n("slow", 400).chain(["quick"]).collect();
    bench.accept_and_route(&owner, &id(1), &many).await;
    let limits =
        LaneLimits { lane: None, destination: Some(Rate { interval: Duration::from_secs(1), burst: 2 }) };
    let mut names = Vec::new();
    // More than one look is needed to come past them; each says that there is more to look at.
    loop {
        let claimed = bench.claim_within(&owner, &sms(), 10, limits).await;
        names.extend(claimed.items.into_iter().map(|work| String::from_utf8(work.recipient).unwrap()));
        if claimed.wait != Some(Duration::ZERO) {
            assert_eq!(claimed.wait, Some(Duration::from_secs(1)));
            assert!(!claimed.rate_limited);
            break;
        }
    }
    assert_eq!(names, ["recipient slow", "recipient slow", "recipient quick"]);
    bench.assert_sound().await;

    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.claim_within(&owner, &sms(), 10, limits).await.items.len(), 1);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.claim_within(&owner, &sms(), 10, limits).await.items.len(), 2);
    // Without a limit all of it may go.
    bench.clock.advance(Duration::from_secs(10));
    let mut rest = 0;
    loop {
        let claimed = bench.claim(&owner, &sms(), 128).await;
        rest += claimed.items.len();
        if claimed.items.is_empty() && claimed.wait != Some(Duration::ZERO) {
            break;
        }
    }
    assert_eq!(rest, 400 - 5);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_lane_at_its_rate_says_so_and_when_to_come_back() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..10)).await;
    let rate = Rate { interval: Duration::from_secs(2), burst: 3 };
    let limits = LaneLimits { lane: Some(rate), destination: None };
    let first = bench.claim_within(&owner, &Lane::inbound(), 10, limits).await;
    assert_eq!((first.items.len(), first.rate_limited), (3, true));
    assert_eq!(first.wait, Some(Duration::from_secs(2)));
    let second = bench.claim_within(&owner, &Lane::inbound(), 10, limits).await;
    assert_eq!((second.items.len(), second.rate_limited), (0, true));
    // Work that is there already does not ring.
    let inbound = Lane::inbound();
    let rung = timeout(Duration::from_millis(300), bench.queue.wait(&inbound, &second.mark, MINUTE));
    assert!(rung.await.is_err());
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.claim_within(&owner, &Lane::inbound(), 10, limits).await.items.len(), 1);
}

#[tokio::test]
async fn a_busy_destination_is_put_off() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b"]).await;
    let busy = [DestinationKey::from_stored("a")];
    let claim = Claim { owner: &owner, lane: &sms(), max: 10, limits: LaneLimits::default(), busy: &busy };
    let claimed = bench.queue.claim(claim).await.unwrap();
    assert_eq!(claimed.items.len(), 1);
    assert_eq!(claimed.wait, Some(Duration::from_millis(200)));
    bench.assert_sound().await;
    bench.clock.advance(Duration::from_millis(200));
    assert_eq!(bench.claim(&owner, &sms(), 10).await.items.len(), 1);
}

#[tokio::test]
async fn overdue_work_ends_wherever_it_waits_but_in_its_owners_hands() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c", "d"]).await;
    let mut works = bench.claim(&owner, &sms(), 3).await.items;
    let now = bench.clock.now();
    let retry = Settlement::RetryAt { due: now.plus(4 * MINUTE), attempt: failed(now) };
    bench.settle(&owner, works.remove(0), retry).await;
    let pause = Settlement::Pause { until: now.plus(4 * MINUTE), attempt: failed(now) };
    bench.settle(&owner, works.remove(0), pause).await;
    bench.accept(&ids(2..3)).await;
    bench.clock.advance(5 * MINUTE);

    let mut expired = bench.housekeep().await;
    expired.sort();
    assert_eq!(expired, [delivery_id(1, 1), delivery_id(1, 2), delivery_id(1, 4), delivery_id(2, 0)]);
    bench.assert_sound().await;
    // In hand it is the owner's: released, it ends at once.
    bench.queue.release(&owner, vec![works.remove(0).lease]).await.unwrap();
    assert_eq!(bench.housekeep().await, [delivery_id(1, 3)]);
    let stats = bench.queue.stats().await.unwrap();
    assert_eq!((stats.expired, stats.pending), (5, 0));
    bench.assert_sound().await;
}

#[tokio::test]
async fn letters_beyond_the_number_kept_and_beyond_their_time_go_oldest_first() {
    let settings = QueueSettings { dead_letter_cap: 3, ..QueueSettings::default() };
    let bench = Bench::with(RedisServer::start(), settings);
    let owner = Owner::new("worker");
    for number in 0..5 {
        bench.accept_and_route(&owner, &id(number), &["a"]).await;
        let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
        bench.settle(&owner, work, dead(DeadCause::Permanent, bench.clock.now())).await;
        bench.clock.advance(MINUTE);
    }
    let kept = |letters: Vec<sms_broadcaster::queue::contract::DeadLetter>| {
        letters.into_iter().map(|letter| letter.id).collect::<Vec<_>>()
    };
    let all = bench.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    assert_eq!(kept(all), [delivery_id(4, 1), delivery_id(3, 1), delivery_id(2, 1)]);
    let recent = DeadFilter { since: Some(2 * MINUTE), ..DeadFilter::default() };
    let recent = bench.queue.dead_letters(&recent, 10).await.unwrap();
    assert_eq!(kept(recent), [delivery_id(4, 1), delivery_id(3, 1)]);
    assert_eq!(bench.redis("HEXISTS ~m:test:0 ct"), ":0");
    assert_eq!(bench.queue.purge(&[delivery_id(3, 1), delivery_id(0, 1)]).await.unwrap(), 1);
    bench.assert_sound().await;

    bench.clock.advance(DAY - 2 * MINUTE);
    let left = bench.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    assert_eq!(kept(left), [delivery_id(4, 1)]);
    bench.housekeep().await;
    assert_eq!(bench.redis("ZCARD ~dead:permanent"), ":1");
    assert_eq!(bench.queue.stats().await.unwrap().dead, 5);
    bench.assert_sound().await;
}

#[tokio::test]
async fn the_doorbell_rings_for_new_work_takes_nothing_and_may_be_dropped() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = Lane::inbound();
    let mark = bench.claim(&owner, &lane, 10).await.mark;
    for _ in 0..20 {
        let given_up = timeout(Duration::from_millis(10), bench.queue.wait(&lane, &mark, MINUTE));
        assert!(given_up.await.is_err());
    }
    let (rung, ()) = tokio::join!(timeout(GUARD, bench.queue.wait(&lane, &mark, 2 * MINUTE)), async {
        bench.accept(&ids(0..1)).await;
    });
    rung.unwrap().unwrap();
    // Rung again for the same, as nobody took it.
    timeout(GUARD, bench.queue.wait(&lane, &mark, 2 * MINUTE)).await.unwrap().unwrap();
    let claimed = bench.claim(&owner, &lane, 10).await;
    assert_eq!(claimed.items.len(), 1);
    assert_eq!(claimed.items[0].handed_out, 1);
    bench.queue.wait(&lane, &claimed.mark, Duration::from_millis(20)).await.unwrap();
    bench.queue.wait(&Lane::from_stored("nobody"), &Mark::default(), Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn owners_that_left_are_forgotten_and_those_that_hold_work_are_not() {
    let bench = Bench::new();
    let (leaver, holder, vanished) = (Owner::new("leaver"), Owner::new("holder"), Owner::new("vanished"));
    bench.accept(&ids(0..3)).await;
    let lane = Lane::inbound();
    let held = bench.claim(&holder, &lane, 1).await.items;
    for owner in [&leaver, &vanished] {
        let work = bench.claim(owner, &lane, 1).await.items.pop().unwrap();
        bench.queue.expand(owner, vec![expansion(work.lease, &[])]).await.unwrap();
    }
    bench.queue.retire(&leaver).await.unwrap();
    bench.queue.retire(&holder).await.unwrap();
    let consumers = || bench.redis("XINFO CONSUMERS ~in w");
    assert!(!consumers().contains(leaver.as_str()));
    assert!(consumers().contains(holder.as_str()));

    bench.clock.advance(2 * MINUTE);
    bench.housekeep().await;
    assert!(consumers().contains(vanished.as_str()));
    bench.clock.advance(Duration::from_secs(3600));
    let keys: Vec<_> = held.iter().map(|work| work.lease.key().clone()).collect();
    assert_eq!(bench.queue.renew(&holder, &keys).await.unwrap(), []);
    bench.housekeep().await;
    assert!(!consumers().contains(vanished.as_str()));
    assert!(consumers().contains(holder.as_str()));
}

#[tokio::test]
async fn a_large_route_is_made_in_one_step_and_its_batch_in_several() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..3)).await;
    let many: Vec<String> = (0..512).map(|number| format!("d{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let routings = bench.claim(&owner, &Lane::inbound(), 3).await.items;
    let batch = routings.into_iter().map(|work| expansion(work.lease, &many)).collect();
    assert_eq!(bench.queue.expand(&owner, batch).await.unwrap(), [Settled::Expanded; 3]);
    bench.assert_sound().await;
    let mut delivered = 0;
    while delivered < 3 * 512 {
        let works = bench.claim(&owner, &sms(), 128).await.items;
        delivered += works.len();
        let batch =
            works.into_iter().map(|work| Settle { lease: work.lease, settlement: Settlement::Delivered });
        bench.queue.settle(&owner, batch.collect()).await.unwrap();
    }
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().delivered, 3 * 512);
}

#[tokio::test]
async fn nothing_is_left_but_small_records_that_expire() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..50)).await;
    bench.drain(&owner).await;
    bench.assert_sound().await;
    let keys = bench.redis("KEYS ~*");
    for gone in ["due:", "park:", "wake:", "held:", "dead:", ":dl"] {
        assert!(!keys.contains(gone), "{gone} in {keys}");
    }
    assert_eq!(bench.redis("XLEN ~in"), ":0");
    assert_eq!(bench.redis("XLEN ~rdy:sms"), ":0");
}

#[tokio::test]
async fn a_history_keeps_the_latest_32_attempts() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    for _ in 0..40 {
        let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
        let now = bench.clock.now();
        bench.settle(&owner, work, Settlement::RetryAt { due: now, attempt: failed(now) }).await;
        bench.clock.advance(Duration::from_millis(1));
    }
    let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
    bench.settle(&owner, work, dead(DeadCause::Exhausted, bench.clock.now())).await;
    let letter = bench.queue.dead_letter(&delivery_id(1, 1)).await.unwrap().unwrap().letter;
    assert_eq!((letter.history.len(), letter.attempts), (32, 41));
    assert_eq!(letter.history[31], failed(bench.clock.now()));
}
