//! The line between the programs and Redis is bad: half open, reset, slow, or losing answers.

use std::time::{Duration, Instant};

use super::{FAST, IN_FLIGHT};
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, LOOK, Program, on_redis};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::Provider;
use crate::support::proxy::{Line, Proxy};
use crate::support::redis_server::RedisServer;

/// An ingress and two workers that reach Redis through one proxy.
struct Bench {
    installation: Installation,
    provider: Provider,
    ingress: Program,
    workers: [Program; 2],
    proxy: Proxy,
    _redis: RedisServer,
}

impl Bench {
    async fn start(seed: u64) -> Self {
        let provider = Provider::start();
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.port(), seed);
        let installation = Installation::redis(&provider, &redis.url(), FAST);
        let through = on_redis(&proxy.redis_url());
        let start = |program| installation.program(program).queue(&through).start();
        let ingress = start("sms-ingress").await;
        let workers = [start("sms-worker").await, start("sms-worker").await];
        Self { installation, provider, ingress, workers, proxy, _redis: redis }
    }

    /// Posts while `disturb` breaks the line and mends it, again and again for `time`; then everything must
    /// be in order, and nothing dead.
    async fn disturbed(
        self,
        name: &str,
        what: &str,
        time: Duration,
        mut disturb: impl AsyncFnMut(&Proxy),
    ) -> Self {
        let ledger = Ledger::new();
        let end = Instant::now() + time;
        let (mut number, mut faults) = (0, 0);
        while Instant::now() < end {
            let posting = {
                let (ledger, poster) = (ledger.clone(), self.installation.poster().clone());
                let (door, numbers) = (self.ingress.ingress, number..number + 40);
                tokio::spawn(async move { ledger.post_all(&poster, &[door], numbers, 8).await })
            };
            ledger.fault();
            faults += 1;
            disturb(&self.proxy).await;
            self.proxy.set(Line::Good);
            posting.await.unwrap();
            number += 40;
        }
        let allowed = Allowed { duplicates: faults * 2 * IN_FLIGHT, ..Allowed::default() };
        ledger.check(&self.installation, &self.provider, allowed).await.show(name, what);
        self
    }
}

/// One look after another for so long.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test]
async fn half_open_connections_are_given_up() {
    let mut chance = seeded("half_open_connections_are_given_up");
    let bench = Bench::start(0).await;
    let time = duration(Duration::from_secs(6), 0.02);
    let bench = bench
        .disturbed("half open", "every connection to Redis goes half open", time, async |proxy| {
            pass(Duration::from_millis(chance.u64(20..200))).await;
            proxy.freeze_connections();
        })
        .await;
    for worker in &bench.workers {
        let (_, metrics) = bench.installation.ops(worker, "metrics").await.expect("it answers");
        assert!(!metrics.contains("sms_broadcaster_queue_reconnects_total 0"), "it did not reconnect");
    }
}

#[tokio::test]
async fn reset_connections_are_made_anew() {
    let mut chance = seeded("reset_connections_are_made_anew");
    let bench = Bench::start(0).await;
    let time = duration(Duration::from_secs(4), 0.02);
    bench
        .disturbed("reset", "every connection to Redis is reset", time, async |proxy| {
            pass(Duration::from_millis(chance.u64(20..200))).await;
            proxy.set(Line::Reset);
            pass(Duration::from_millis(chance.u64(20..500))).await;
        })
        .await;
}

#[tokio::test]
async fn a_slow_redis_costs_time_and_nothing_else() {
    let mut chance = seeded("a_slow_redis_costs_time_and_nothing_else");
    let bench = Bench::start(0).await;
    let time = duration(Duration::from_secs(4), 0.02);
    bench
        .disturbed("slow", "Redis answers 20 to 300 ms late", time, async |proxy| {
            proxy.set(Line::Slow(Duration::from_millis(chance.u64(10..150))));
            pass(Duration::from_millis(chance.u64(500..1500))).await;
        })
        .await;
}

#[tokio::test]
async fn a_lost_answer_is_not_a_lost_or_doubled_effect() {
    let mut chance = seeded("a_lost_answer_is_not_a_lost_or_doubled_effect");
    let bench = Bench::start(chance.u64(..)).await;
    let time = duration(Duration::from_secs(5), 0.02);
    let bench = bench
        .disturbed(
            "lost answers",
            "5 to 30 % of Redis's answers are lost after the commit",
            time,
            async |proxy| {
                let before = proxy.answers_lost();
                proxy.set(Line::LosesAnswers(chance.u8(5..30)));
                pass(Duration::from_millis(chance.u64(500..1500))).await;
                while proxy.answers_lost() == before {
                    pass(LOOK).await;
                }
            },
        )
        .await;
    assert!(bench.proxy.answers_lost() > 0);
}
