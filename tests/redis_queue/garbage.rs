//! Whatever somebody writes into the store: no call fails, and those whose records nobody touched are
//! delivered, and a repair puts all of it right.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::env;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use sms_broadcaster::delivery::{DeliveryId, DeliveryState, Settlement};
use sms_broadcaster::queue::contract::{
    Claim, Cursor, DeadFilter, Lane, LaneLimits, Lease, LeaseKey, Owner, Queue, QueueAdmin, QueueError,
    QueueSettings, Settle,
};

use super::bench::{Bench, LEASE, MINUTE, expansion, failed, id, ids, message, sms};
use crate::support::redis_server::RedisServer;

/// Messages 0 to 3 are left alone, 4 to 7 are named by what is written.
const UNTOUCHED: usize = 4;
const ALL: usize = 8;

/// Structures that may be removed or replaced at any time: all that is in them can be made anew.
const STRUCTURES: &[&str] = &[
    "in",
    "rdy:sms",
    "due:sms",
    "park:sms",
    "wake:sms",
    "due:in",
    "wake:in",
    "held:sms",
    "lanes",
    "stat",
    "dl",
    "wk",
    "dead:poison",
    "dead:expired",
    "dead:permanent",
    "rl:sms",
    "rl:sms:a",
];

const FIELDS: &[&str] = &[
    "s0", "s1", "s2", "s3", "s9", "r1", "r2", "r3", "rc1", "h1", "x1", "x2", "left", "lt", "n", "acc", "ct",
    "gone", "sub", "raw",
];

const VALUES: &[&str] = &[
    "\"\"",
    "rubbish",
    "-1",
    "0",
    "7",
    "1e999",
    "nan",
    "99999999999999999999999",
    "P|0|0|0|0|5|",
    "P|0|0|0|0|99999999999999999999|",
    "P|9999999999|0|0|0|1767225900000|d",
    "P|0|0|0|0|1767225900000|d",
    "P|0|0|0|0|1767225900000|k",
    "P|0|0|99|0|1767225900000|k",
    "P|0|0|0|0|1767225900000|e1-1",
    "P|0|0|0|0|1767225900000|e99999999999999999999999-1",
    "P|0|0|0|0|1767225900000|e-",
    "P|x|y",
    "S|0|0|0|0|5|",
    "E|0|0|0|0|5|",
    "D|0|0|0|0|5|d",
    "in|a|label",
    "other|a|label",
    "a:b|c|d",
    "||",
    "poison|5",
    "poison|nan",
    "\"\\xff\\xfe\"",
];

const MEMBERS: &[&str] = &[
    "rubbish",
    "|",
    "test:5|1",
    "test:5|0",
    "test:0|0",
    "test:5|99999999999",
    "none:1|1",
    "a|000001767225900|test:5|1",
    "a|x|test:5|1",
    "a||test:5|1",
    "\"\\xff|1\"",
];

const SCORES: &[&str] = &["-inf", "inf", "0", "-5", "1.5", "1e300", "1767225700000"];

const ENTRIES: &[&str] = &[
    "garbage yes",
    "m test:5",
    "m test:5 i 1",
    "m test:5 i 0 w 1",
    "m test:0 i 0",
    "m test:5 i 99999999999",
    "m none:1 i 0",
    "m \"\\xff\" i 0",
    "\"\" \"\"",
];

/// One thing that somebody does, as a command.
fn damage() -> impl Strategy<Value = String> {
    let structure = || prop::sample::select(STRUCTURES);
    let victim = || UNTOUCHED..ALL;
    let field = || prop::sample::select(FIELDS);
    let value = || prop::sample::select(VALUES);
    let stream = || prop::sample::select(&["in", "rdy:sms", "rdy:other"][..]);
    let book = prop::sample::select(
        &["accepted", "duplicates", "made", "S", "D", "X", "mend", "mending", "reaped", "orphans"][..],
    );
    let zset = prop::sample::select(
        &["due:sms", "due:in", "park:sms", "wake:sms", "held:sms", "dl", "wk", "dead:poison"][..],
    );
    let group = prop::sample::select(
        &["XGROUP DESTROY", "XGROUP SETID $", "XGROUP SETID 0", "XGROUP DELCONSUMER", "XTRIM", "LAST"][..],
    );
    prop_oneof![
        3 => structure().prop_map(|key| format!("DEL ~{key}")),
        3 => (structure(), value()).prop_map(|(key, value)| format!("SET ~{key} {value}")),
        8 => (victim(), field(), value()).prop_map(|(id, field, value)| format!("HSET ~m:test:{id} {field} {value}")),
        2 => (victim(), field()).prop_map(|(id, field)| format!("HDEL ~m:test:{id} {field}")),
        1 => victim().prop_map(|id| format!("SET ~m:test:{id} rubbish")),
        1 => victim().prop_map(|id| format!("DEL ~m:test:{id}")),
        3 => (stream(), prop::sample::select(ENTRIES)).prop_map(|(key, entry)| format!("XADD ~{key} * {entry}")),
        4 => (zset, prop::sample::select(SCORES), prop::sample::select(MEMBERS))
            .prop_map(|(key, score, member)| format!("ZADD ~{key} {score} {member}")),
        1 => (prop::sample::select(SCORES), 0..ALL).prop_map(|(score, id)| format!("ZADD ~dl {score} test:{id}")),
        1 => prop::sample::select(SCORES).prop_map(|score| format!("ZADD ~wake:sms {score} a")),
        2 => (book, value()).prop_map(|(field, value)| format!("HSET ~stat {field} {value}")),
        2 => (group, stream()).prop_map(|(what, key)| match what {
            "XGROUP SETID $" => format!("XGROUP SETID ~{key} w $"),
            "XGROUP SETID 0" => format!("XGROUP SETID ~{key} w 0"),
            "XGROUP DELCONSUMER" => format!("XGROUP DELCONSUMER ~{key} w stranger"),
            "XTRIM" => format!("XTRIM ~{key} MAXLEN 1"),
            "LAST" => format!("XADD ~{key} 18446744073709551615-18446744073709551615 garbage yes"),
            _ => format!("XGROUP DESTROY ~{key} w"),
        }),
        1 => value().prop_map(|value| format!("SADD ~lanes {value}")),
    ]
}

/// Does everything that workers, ingress and operators do, until nothing more happens.
struct Party<'a> {
    bench: &'a Bench<&'a RedisServer>,
    owner: Owner,
    /// Leases of before the damage.
    old: Vec<LeaseKey>,
}

impl Party<'_> {
    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<(), QueueError> {
        self.bench.queue.settle(owner, batch).await.map(drop).map_err(|unrecorded| unrecorded.error)
    }

    async fn round(&self) -> Result<usize, QueueError> {
        let (queue, owner) = (&self.bench.queue, &self.owner);
        let mut done = 0;
        for lane in [Lane::inbound(), sms(), Lane::from_stored("other")] {
            let mut items = queue.sweep(owner, &lane, 64, Cursor::default()).await?.items;
            let limits = LaneLimits::default();
            items.extend(queue.claim(Claim { owner, lane: &lane, max: 64, limits, busy: &[] }).await?.items);
            done += items.len();
            let keys: Vec<LeaseKey> = items.iter().map(|work| work.lease.key().clone()).collect();
            queue.renew(owner, &keys).await?;
            let (routings, deliveries): (Vec<_>, Vec<_>) =
                items.into_iter().partition(|work| work.lease.key().work.index == 0);
            let routed = routings.into_iter().map(|work| expansion(work.lease, &["a", "b"])).collect();
            queue.expand(owner, routed).await.map_err(|unrecorded| unrecorded.error)?;
            let delivered = deliveries
                .into_iter()
                .map(|work| Settle { lease: work.lease, settlement: Settlement::Delivered });
            self.settle(owner, delivered.collect()).await?;
        }
        let kept = queue.housekeep().await?;
        Ok(done + usize::from(kept.more) + kept.expired.len())
    }

    /// What was in hand when the damage was done comes back to be settled.
    async fn come_back(&self) -> Result<(), QueueError> {
        let now = self.bench.clock.now();
        let attempt = || failed(now);
        self.bench.queue.renew(&self.owner, &self.old).await?;
        for (number, key) in self.old.iter().enumerate() {
            let lease = Lease::new(key.clone());
            let settlement = match number % 4 {
                0 => Settlement::RetryAt { due: now.plus(MINUTE / 2), attempt: attempt() },
                1 => Settlement::Pause { until: now.plus(MINUTE / 2), attempt: attempt() },
                2 => {
                    let released = self.bench.queue.release(&self.owner, vec![lease]).await;
                    released.map_err(|unrecorded| unrecorded.error)?;
                    continue;
                }
                _ => Settlement::Delivered,
            };
            self.settle(&self.owner, vec![Settle { lease, settlement }]).await?;
        }
        Ok(())
    }

    async fn operate(&self) -> Result<(), QueueError> {
        let queue = &self.bench.queue;
        queue.stats().await?;
        queue.audit().await?;
        for number in UNTOUCHED..ALL {
            queue.status(&id(number)).await?;
            queue.dead_letter(&DeliveryId { message: id(number), index: 1 }).await?;
        }
        let letters: Vec<DeliveryId> = queue
            .dead_letters(&DeadFilter::default(), 100)
            .await?
            .into_iter()
            .map(|letter| letter.id)
            .collect();
        let (first, second) = letters.split_at(letters.len() / 2);
        queue.requeue(first, MINUTE).await?;
        queue.purge(second).await?;
        Ok(())
    }
}

/// A store with work in every place, damaged, and what becomes of it.
/// `is_repaired`: somebody has it repaired before the work goes on.
async fn survive(server: &RedisServer, damages: &[String], is_repaired: bool) -> Result<(), String> {
    server.command("FLUSHALL");
    let bench = Bench::with(server, QueueSettings::default());
    let owner = Owner::new("worker");
    let mut old = Vec::new();
    bench.accept(&ids(0..ALL)).await;
    let now = bench.clock.now();
    // One of each is not routed; of the others' deliveries some are delayed, parked, in hand and ready.
    let routings = bench.claim(&owner, &Lane::inbound(), 128).await.items;
    let (stay, go): (Vec<_>, Vec<_>) =
        routings.into_iter().partition(|work| [id(0), id(4)].contains(&work.lease.key().work.message));
    let leases = stay.into_iter().map(|work| work.lease).collect();
    bench.queue.release(&owner, leases).await.map_err(|unrecorded| unrecorded.error.to_string())?;
    let routed = go.into_iter().map(|work| expansion(work.lease, &["a", "b", "c", "d"])).collect();
    bench.queue.expand(&owner, routed).await.map_err(|unrecorded| unrecorded.error.to_string())?;
    for work in bench.claim(&owner, &sms(), 16).await.items {
        let settlement = match work.lease.key().work.index {
            1 => Settlement::RetryAt { due: now.plus(MINUTE), attempt: failed(now) },
            2 => Settlement::Pause { until: now.plus(MINUTE), attempt: failed(now) },
            _ => {
                old.push(work.lease.key().clone());
                continue;
            }
        };
        bench.settle(&owner, work, settlement).await;
    }

    for command in damages {
        // Whatever it answers: some commands do not fit what is there by then.
        bench.redis(command);
    }
    if is_repaired {
        repair(&bench).await?;
    } else if bench.redis("TYPE ~dl") != "+zset" {
        // Without it and the streams nothing but a look at everything finds what is unfinished.
        return Ok(());
    }
    let party = Party { bench: &bench, owner, old };
    let run = async {
        party.come_back().await?;
        party.operate().await?;
        bench.queue.accept(&[message(&id(6)), message(&id(9))]).await?;
        for _ in 0..4 {
            let mut rounds = 0;
            while party.round().await? > 0 && rounds < 100 {
                rounds += 1;
            }
            bench.clock.advance(LEASE * 3);
        }
        Ok::<(), QueueError>(())
    };
    run.await.map_err(|error| error.to_string())?;

    let mut open = BTreeSet::new();
    for number in (0..UNTOUCHED).chain([9]) {
        let status = bench.queue.status(&id(number)).await.map_err(|error| error.to_string())?;
        let delivered = status.is_some_and(|status| {
            status.expanded
                && status.deliveries.iter().all(|delivery| delivery.state == DeliveryState::Delivered)
        });
        if !delivered {
            open.insert(number);
        }
    }
    if !open.is_empty() {
        return Err(format!("{open:?} did not arrive\n{}", bench.redis("KEYS *")));
    }
    repair(&bench).await
}

/// Has everything put right.
async fn repair<S: Borrow<RedisServer>>(bench: &Bench<S>) -> Result<(), String> {
    let done = bench.queue.repair().await.map_err(|error| error.to_string())?;
    let left = bench.queue.audit().await.map_err(|error| error.to_string())?;
    let conservation_error = bench.queue.stats().await.map_err(|error| error.to_string())?.conservation_error;
    if left.is_empty() && conservation_error == 0 {
        return Ok(());
    }
    Err(format!("{left:#?} is left, conservation error {conservation_error}, after {done:#?}"))
}

#[test]
fn whatever_is_written_into_the_store_no_call_fails_and_the_others_are_delivered() {
    let asked = |name: &str, default: u64| {
        env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let seed = asked("QUEUE_CONTRACT_SEED", 20_261_124);
    let config = Config {
        cases: u32::try_from(asked("QUEUE_CONTRACT_CASES", 40)).expect("a number of cases"),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = RedisServer::start_with(&["--appendfsync", "no"]);
    let damages = prop::collection::vec(damage(), 1..=8);
    let result = TestRunner::new(config).run(&(damages, any::<bool>()), |(damages, is_repaired)| {
        runtime.block_on(survive(&server, &damages, is_repaired)).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("QUEUE_CONTRACT_SEED={seed}: {error}");
    }
}
