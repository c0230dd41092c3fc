//! For long, with one trouble after another, nothing grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{FAST, IN_FLIGHT};
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, LOOK, PHONES, on_redis};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::proxy::{Line, Proxy};
use crate::support::redis_server::RedisServer;

/// Messages in a row, and how often such a row begins.
const ROW: u32 = 10;
const EVERY: Duration = Duration::from_secs(1);

/// What is over is forgotten after a minute, so that what is kept does not grow by being kept.
const SHORT_MEMORY: &str = "[message]\ndeadline = \"60s\"\nretention = \"60s\"\n\n";

/// So long it takes until as much is forgotten as comes in, and the allocators have what they need.
const WARM_UP: Duration = Duration::from_secs(120);

/// One look at what may grow.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    /// Of Redis, in KiB.
    used: u64,
    /// Of the ingress, in KiB.
    resident: u64,
    consumers: usize,
}

/// The mean of what is seen in a part of the time.
fn mean(samples: &[Sample], from: Duration, to: Duration, what: fn(&Sample) -> u64) -> f64 {
    let values: Vec<u64> =
        samples.iter().filter(|sample| sample.at >= from && sample.at < to).map(what).collect();
    values.iter().sum::<u64>() as f64 / values.len().max(1) as f64
}

#[tokio::test]
async fn for_as_long_as_it_goes_on_nothing_grows() {
    let mut chance = seeded("for_as_long_as_it_goes_on_nothing_grows");
    let time = duration(Duration::from_secs(10), 0.6);
    let provider = Provider::start();
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port(), 0);
    let more = format!("{SHORT_MEMORY}{FAST}");
    let installation = Installation::redis(&provider, &redis.url(), &more);
    let through = on_redis(&proxy.redis_url());
    let ingress = installation.program("sms-ingress").queue(&through).start().await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(installation.program("sms-worker").queue(&through).start().await);
    }
    let ledger = Ledger::new();
    let is_over = Arc::new(AtomicBool::new(false));
    let posting = {
        let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                every.tick().await;
                ledger.post_all(&poster, &[door], number..number + ROW, 4).await;
                number += ROW;
            }
        })
    };

    let began = Instant::now();
    let (mut samples, mut kills, mut troubles) = (Vec::new(), 0, 0);
    while began.elapsed() < time {
        ledger.fault();
        troubles += 1;
        let so_long = Duration::from_millis(chance.u64(500..3000));
        match chance.u8(..4) {
            0 => {
                let victim = chance.usize(..workers.len());
                workers[victim].kill();
                kills += 1;
                workers[victim] = installation.program("sms-worker").queue(&through).spawn();
                tokio::time::sleep(so_long).await;
            }
            1 => {
                proxy.set(Line::Slow(Duration::from_millis(chance.u64(25..250))));
                tokio::time::sleep(so_long).await;
                proxy.set(Line::Good);
            }
            2 => {
                provider.always(PHONES[0], Reply::status(429).header("Retry-After", "2"));
                tokio::time::sleep(so_long).await;
                provider.always(PHONES[0], Reply::ok());
            }
            _ => {
                proxy.set(Line::Reset);
                tokio::time::sleep(LOOK * 5).await;
                proxy.set(Line::Good);
                tokio::time::sleep(so_long).await;
            }
        }
        let consumers = ["in", "rdy:sms", "rdy:slack"].map(|stream| redis.consumers(stream));
        samples.push(Sample {
            at: began.elapsed(),
            used: redis.info("used_memory") / 1024,
            resident: ingress.resident(),
            consumers: consumers.into_iter().max().unwrap_or(0),
        });
    }
    is_over.store(true, Ordering::Relaxed);
    posting.await.expect("all texts are taken");

    // Whoever was killed is remembered for an hour.
    let most = samples.iter().map(|sample| sample.consumers).max().unwrap_or(0);
    assert!(most <= workers.len() + kills, "{most} consumers of {} workers", workers.len() + kills);
    let mut kept = String::new();
    if time >= WARM_UP * 2 {
        let half = WARM_UP + (time - WARM_UP) / 2;
        for (what, of, slack) in [
            ("used_memory", (|sample| sample.used) as fn(&Sample) -> u64, 512.0),
            ("resident memory of the ingress", |sample| sample.resident, 2048.0),
        ] {
            let (before, after) = (mean(&samples, WARM_UP, half, of), mean(&samples, half, time * 2, of));
            kept += &format!("; {what} {before:.0}, then {after:.0} KiB");
            assert!(after <= before * 1.1 + slack, "{what} grew from {before:.0} to {after:.0} KiB");
        }
    }
    let duplicates = troubles * 3 * IN_FLIGHT;
    let allowed = Allowed { duplicates, forgotten: true, ..Allowed::default() };
    let mut figures = ledger.check(&installation, &provider, allowed).await;
    assert_eq!(ledger.missing(&provider), Vec::<u32>::new(), "answered 200 and never arrived");
    // The store has forgotten most of them.
    (figures.messages, figures.deliveries) = (ledger.taken(), 3 * ledger.taken());
    let what = format!("{} s of kills ({kills}), a slow and a broken line, 429s{kept}", time.as_secs());
    figures.show("soak", &what);
}
