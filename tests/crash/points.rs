//! A worker is killed at every point of its way: before something is recorded, and when it is recorded and
//! the worker does not know.
//!
//! The line to Redis is what kills: it knows each script by its words, and ends the worker before a call is
//! passed on, or when it was done and before the answer is. After a provider took a text, the test itself
//! kills. So the programs have no fail-points of their own.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{FAST, STEADY};
use crate::support::installation::{Installation, PHONES, RECIPIENTS, on_redis};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::proxy::{Moment, Proxy, Trap};
use crate::support::redis_server::RedisServer;

const CLAIM: &str = "-- Hands out work of one lane.";
const EXPAND: &str = "-- Ends routings by making their deliveries";
const SETTLE: &str = "-- Records what is to become of work";
const RENEW: &str = "-- Extends leases to their full length";

/// An ingress that has taken one message, and nobody who delivers it yet.
struct Bench {
    provider: Provider,
    redis: RedisServer,
    proxy: Proxy,
    installation: Installation,
    ledger: Arc<Ledger>,
}

impl Bench {
    async fn start() -> Self {
        let provider = Provider::start();
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.port(), 0);
        let installation = Installation::redis(&provider, &redis.url(), STEADY);
        let ledger = Ledger::new();
        let ingress = installation.start("sms-ingress").await;
        assert!(ledger.post(installation.poster(), ingress.ingress, 0).await);
        Self { provider, redis, proxy, installation, ledger }
    }

    /// A worker is killed by the line at a call of `script` that has `argument`.
    async fn kill(&self, script: &'static str, argument: &'static str, moment: Moment) {
        // Every script is loaded by the line then, which learns what it is called by.
        self.redis.command("SCRIPT FLUSH");
        let trap = self.proxy.set_trap(Trap { script, argument, moment });
        let through = on_redis(&self.proxy.redis_url());
        // Its leases soon run out; who finishes has longer ones.
        let mut worker = self.installation.program("sms-worker").more(FAST).queue(&through).spawn();
        trap.send_replace(Some(worker.pid()));
        assert_eq!(worker.wait_for_end().await.code(), None, "it was not killed");
    }

    /// The same, and another finishes what it left.
    async fn trap(
        self,
        script: &'static str,
        argument: &'static str,
        moment: Moment,
        again: RangeInclusive<usize>,
    ) {
        self.kill(script, argument, moment).await;
        self.finish(&format!("killed {moment:?} a call with {argument:?}: {script}"), again).await;
    }

    /// Another worker finishes; so many deliveries are sent a second time, and none a third.
    async fn finish(self, what: &str, again: RangeInclusive<usize>) {
        self.ledger.fault();
        let _worker = self.installation.start("sms-worker").await;
        let allowed = Allowed { duplicates: *again.end(), ..Allowed::default() };
        let figures = self.ledger.check(&self.installation, &self.provider, allowed).await;
        figures.show("points", what);
        assert!(again.contains(&figures.duplicates), "{} sent again, {what}", figures.duplicates);
    }
}

const BOTH: [Moment; 2] = [Moment::Before, Moment::After];

#[tokio::test]
async fn killed_at_the_claim_of_a_routing_a_worker_leaves_nothing_to_be_sent_twice() {
    for moment in BOTH {
        Bench::start().await.trap(CLAIM, "in", moment, 0..=0).await;
    }
}

#[tokio::test]
async fn killed_at_an_expansion_a_worker_leaves_nothing_to_be_sent_twice() {
    for moment in BOTH {
        Bench::start().await.trap(EXPAND, "Example", moment, 0..=0).await;
    }
}

#[tokio::test]
async fn killed_at_the_claim_of_deliveries_a_worker_leaves_nothing_of_them_to_be_sent_twice() {
    for moment in BOTH {
        let bench = Bench::start().await;
        // So that the next one's first claim has something to claim.
        bench.kill(EXPAND, "Example", Moment::After).await;
        // The message to Slack, of the other lane, may be on its way.
        bench.trap(CLAIM, "sms", moment, 0..=1).await;
    }
}

#[tokio::test]
async fn killed_between_acceptance_and_record_a_worker_leaves_what_is_sent_twice() {
    Bench::start().await.trap(SETTLE, "sms", Moment::Before, 1..=3).await;
}

#[tokio::test]
async fn killed_when_it_is_recorded_a_worker_leaves_that_alone() {
    // It is one of three at least.
    Bench::start().await.trap(SETTLE, "sms", Moment::After, 0..=2).await;
}

#[tokio::test]
async fn killed_at_a_renewal_a_worker_leaves_its_leases_to_run_out() {
    for moment in BOTH {
        let bench = Bench::start().await;
        for phone in PHONES {
            // Taken, and not answered before the lease is renewed.
            bench.provider.script(phone, [Reply::ok().delayed(Duration::from_secs(60))]);
        }
        // How many were taken when the moment came is chance.
        bench.trap(RENEW, "sms", moment, 0..=3).await;
    }
}

#[tokio::test]
async fn killed_while_the_provider_answers_a_worker_leaves_what_was_sent_to_be_sent_twice() {
    let bench = Bench::start().await;
    for recipient in RECIPIENTS {
        bench.provider.script(recipient, [Reply::ok().delayed(Duration::from_secs(60))]);
    }
    let mut worker = bench.installation.program("sms-worker").more(FAST).spawn();
    bench.provider.wait_until("all three were taken", |requests| requests.len() == 3).await;
    worker.kill();
    bench.finish("killed after the provider took it", 3..=3).await;
}
