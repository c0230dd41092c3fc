//! The server's clock is put forward, and back.

use std::time::Duration;

use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::Settlement;
use sms_broadcaster::queue::contract::{
    Cursor, Lane, LaneLimits, Owner, Queue, QueueAdmin, QueueSettings, Rate, Settled,
};

use super::bench::{Bench, LEASE, MINUTE, failed, id, ids, queue_on, sms};

/// The clock of a bench is put back.
fn put_back(bench: &mut Bench, by: Duration) {
    bench.clock = Clock::manual(bench.clock.now().minus(by));
    bench.queue = queue_on(&bench.server, QueueSettings::default(), &bench.clock);
}

#[tokio::test]
async fn a_clock_that_is_put_forward_lets_each_lease_run_out_once() {
    let bench = Bench::new();
    let (first, second) = (Owner::new("first"), Owner::new("second"));
    for number in 0..40 {
        bench.accept_and_route(&first, &id(number), &["a"]).await;
    }
    let mut held = bench.claim(&first, &sms(), 128).await.items;
    bench.clock.advance(2 * MINUTE);
    let taken = bench.sweep(&second, &sms()).await.items;
    assert_eq!((held.len(), taken.len()), (40, 40));
    let again = bench.queue.sweep(&second, &sms(), 128, Cursor::default()).await.unwrap();
    assert!(again.items.is_empty(), "what was just taken over is taken over again");
    // Those who held it are not believed when they failed, and are when they succeeded.
    let now = bench.clock.now();
    let retry = Settlement::RetryAt { due: now.plus(MINUTE), attempt: failed(now) };
    assert_eq!(bench.settle(&first, held.pop().unwrap(), retry).await, Settled::LostLease);
    for work in held {
        assert_eq!(
            bench.settle(&first, work, Settlement::Delivered).await,
            Settled::Delivered { late: true }
        );
    }
    for work in taken {
        bench.settle(&second, work, Settlement::Delivered).await;
    }
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().delivered, 40);
}

/// What was written of the future waits for it; what is new does not.
#[tokio::test]
async fn a_clock_that_is_put_back_holds_up_what_had_a_time_and_nothing_else() {
    let mut bench = Bench::new();
    let (gone, owner) = (Owner::new("gone"), Owner::new("owner"));
    bench.clock.advance(60 * MINUTE);
    for number in 0..4 {
        bench.accept_and_route(&gone, &id(number), &["a"]).await;
    }
    let mut held = bench.claim(&gone, &sms(), 128).await.items;
    let now = bench.clock.now();
    let retry = Settlement::RetryAt { due: now.plus(MINUTE), attempt: failed(now) };
    assert_eq!(bench.settle(&gone, held.pop().unwrap(), retry).await, Settled::Delayed);

    put_back(&mut bench, 10 * MINUTE);
    // A worker that lives goes on: its leases count from the clock as it is.
    let kept = held.pop().unwrap();
    let lost = bench.queue.renew(&gone, std::slice::from_ref(kept.lease.key())).await.unwrap();
    assert!(lost.is_empty());
    assert_eq!(bench.settle(&gone, kept, Settlement::Delivered).await, Settled::Delivered { late: false });
    for number in 10..20 {
        bench.accept_and_route(&owner, &id(number), &["b"]).await;
    }
    assert_eq!(bench.drain(&owner).await, 10);
    assert!(bench.sweep(&owner, &sms()).await.items.is_empty());
    bench.housekeep().await;
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().pending, 3);

    // By the time that was, leases run out and delays end as they would have.
    bench.clock.advance(11 * MINUTE + LEASE);
    let swept = bench.sweep(&owner, &sms()).await.items;
    assert_eq!(swept.len(), 2);
    for work in swept {
        bench.settle(&owner, work, Settlement::Delivered).await;
    }
    assert_eq!(bench.drain(&owner).await, 1);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_shuts_a_rate_for_no_longer_than_its_burst() {
    let mut bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept(&ids(0..10)).await;
    let rate = Rate { interval: Duration::from_secs(2), burst: 3 };
    let limits = LaneLimits { lane: Some(rate), destination: None };
    assert_eq!(bench.claim_within(&owner, &Lane::inbound(), 10, limits).await.items.len(), 3);
    put_back(&mut bench, 60 * MINUTE);
    let shut = bench.claim_within(&owner, &Lane::inbound(), 10, limits).await;
    assert!(shut.items.is_empty() && shut.wait <= Some(Duration::from_secs(2)), "{:?}", shut.wait);
    bench.clock.advance(Duration::from_secs(6));
    assert_eq!(bench.claim_within(&owner, &Lane::inbound(), 10, limits).await.items.len(), 3);
}
