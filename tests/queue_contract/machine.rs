//! The random walk: steps are done to a store and told to the model, which has to agree with all that
//! anybody can see after every one of them.

use std::cell::RefCell;
use std::env;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::{Attempt, ChannelId, DeadCause, DestinationKey, Settlement};
use sms_broadcaster::queue::contract::{
    Claim, Claimed, Cursor, DeadFilter, Expansion, Lane, LaneLimits, Lease, LeaseKey, MAX_BATCH, NewDelivery,
    NewMessage, Owner, Queue, QueueAdmin, QueueSettings, Rate, Settle,
};

use super::bench::{self, HOUR, MINUTE, START};
use super::harness::Store;
use super::model::Model;
use super::steps::{How, IDS, OWNERS, Step, step};

/// Calls after which a store that still says "more" is taken to be going round in circles.
const ENDLESS: usize = 200;

/// Time after which somebody must have been housekeeping.
const HOUSEKEPT_EVERY: Duration = Duration::from_secs(30 * 60);

const CASES: u32 = 40;
const STEPS: usize = 60;
const SEED: u64 = 20_261_124;

fn settings(parts: u32) -> QueueSettings {
    // Of a capacity every part has its share, so it cannot be said which message is one too many.
    let capacity = if parts == 1 { 7 } else { 1_000 };
    QueueSettings { retention: 6 * HOUR, capacity, ..bench::settings() }
}

/// What of `limits` the model can judge. The shares of the parts hold what one rate would, as long as it is the same
/// rate all the time.
fn judged(limits: LaneLimits, parts: u32) -> LaneLimits {
    let one = |rate: Option<Rate>| match parts {
        1 => rate,
        _ => rate.map(|_| Rate { interval: Duration::from_millis(700), burst: 2 * parts }),
    };
    LaneLimits { lane: one(limits.lane), destination: one(limits.destination) }
}

/// A number from the environment, to walk longer or elsewhere.
fn asked<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Walks at random, again and again, and shortens the first walk that goes wrong.
pub(crate) fn walk<S: Store>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = RefCell::new(runtime.block_on(S::new(&settings(S::PARTS), &Clock::manual(START))));
    walk_with(S::NAME, CASES, |steps| {
        let mut store = store.borrow_mut();
        runtime.block_on(async {
            let clock = Clock::manual(START);
            store.clear(&settings(S::PARTS), &clock).await;
            Walk::new(&mut *store, clock).take(steps).await
        })
    });
}

/// Walks on two back-ends at a time, which have to tell the same at every step. The order of work that
/// became ready in one step, and of work that was given back, is each one's own: whoever claims here
/// takes all there is.
pub(crate) fn walk_side_by_side<A: Store, B: Store>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let left = RefCell::new(runtime.block_on(A::new(&settings(A::PARTS), &Clock::manual(START))));
    let right = RefCell::new(runtime.block_on(B::new(&settings(A::PARTS), &Clock::manual(START))));
    walk_with("side by side", CASES / 3, |steps| {
        let (mut left, mut right) = (left.borrow_mut(), right.borrow_mut());
        runtime.block_on(async {
            let clocks = [Clock::manual(START), Clock::manual(START)];
            left.clear(&settings(A::PARTS), &clocks[0]).await;
            right.clear(&settings(A::PARTS), &clocks[1]).await;
            let [one, other] = clocks;
            let (mut one, mut other) = (Walk::new(&mut *left, one), Walk::new(&mut *right, other));
            for (number, step) in steps.iter().filter_map(comparable).enumerate() {
                let told = (one.tell(&step).await?, other.tell(&step).await?);
                let (by_one, by_other) = (told.0.join("\n  "), told.1.join("\n  "));
                ensure!(
                    told.0 == told.1,
                    "step {number}, {step:?}:\n{} says\n  {by_one}\n{} says\n  {by_other}",
                    A::NAME,
                    B::NAME
                );
            }
            Ok(())
        })
    });
}

/// A step as two back-ends can be compared by it: what a restart does to work in hand, and which work a
/// lane's own rate lets through first, is each one's own.
fn comparable(step: &Step) -> Option<Step> {
    match step {
        Step::Reopen { .. } => None,
        Step::Claim { owner, lane, limits, busy, .. } => {
            let limits = LaneLimits { lane: None, ..*limits };
            Some(Step::Claim { owner: *owner, lane: *lane, max: MAX_BATCH, limits, busy: *busy })
        }
        step => Some(step.clone()),
    }
}

fn walk_with(name: &str, cases: u32, walk: impl Fn(&[Step]) -> Result<()>) {
    let seed = asked("QUEUE_CONTRACT_SEED", SEED);
    let steps = asked("QUEUE_CONTRACT_STEPS", STEPS);
    let config = Config {
        cases: asked("QUEUE_CONTRACT_CASES", cases),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    println!("{name}: {} walks of up to {steps} steps, QUEUE_CONTRACT_SEED={seed}", config.cases);
    let result = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..=steps), |steps| {
        walk(&steps).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(error) = result {
        panic!("{name}, QUEUE_CONTRACT_SEED={seed}: {error}");
    }
}

/// What a claim answered, but for the order.
fn in_any_order(claimed: &Claimed) -> String {
    let mut items: Vec<_> =
        claimed.items.iter().map(|work| format!("{} ({})", work.lease.key().work, work.handed_out)).collect();
    let mut buried: Vec<_> = claimed.buried.iter().map(|ended| ended.delivery.to_string()).collect();
    items.sort();
    buried.sort();
    format!("items {items:?}, buried {buried:?}, wait {:?}", claimed.wait)
}

/// A lease and whose it was.
type Held = (Owner, LeaseKey);

struct Walk<'a, S: Store> {
    store: &'a mut S,
    clock: Clock,
    settings: QueueSettings,
    model: Model,
    owners: Vec<Owner>,
    /// Leases that somebody believes to have.
    held: Vec<Held>,
    /// Leases of the past.
    past: Vec<Held>,
    texts: usize,
    /// What the store told in the last step that the model leaves open, order apart.
    told: Vec<String>,
}

impl<'a, S: Store> Walk<'a, S> {
    fn new(store: &'a mut S, clock: Clock) -> Self {
        let settings = settings(S::PARTS);
        let model = Model::new(&settings, clock.now(), S::PARTS);
        let owners = (0..OWNERS).map(|_| Owner::new("walker")).collect();
        Self {
            store,
            clock,
            settings,
            model,
            owners,
            held: Vec::new(),
            past: Vec::new(),
            texts: 0,
            told: Vec::new(),
        }
    }

    async fn take(mut self, steps: &[Step]) -> Result<()> {
        for (number, step) in steps.iter().enumerate() {
            self.step(step).await.with_context(|| format!("step {number}, {step:?}"))?;
            self.look().await.with_context(|| format!("after step {number}, {step:?}"))?;
        }
        self.come_to_rest().await.context("at the end")
    }

    /// Takes a step; what was told, and what can be seen after it.
    async fn tell(&mut self, step: &Step) -> Result<Vec<String>> {
        self.told.clear();
        self.step(step).await?;
        // The next step picks by number.
        self.held.sort_by(|(_, one), (_, other)| one.work.cmp(&other.work));
        self.past.sort_by(|(_, one), (_, other)| one.work.cmp(&other.work));
        let lanes = self.store.queue().stats().await?.lanes;
        self.told.extend(lanes.iter().map(|lane| {
            let (name, paused) = (&lane.lane, lane.paused);
            format!(
                "{name}: {} ready, {} leased, {} delayed, {paused} paused",
                lane.ready, lane.leased, lane.delayed
            )
        }));
        Ok(std::mem::take(&mut self.told))
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Accept { ids, deadline } => self.accept(ids, *deadline).await,
            Step::Claim { owner, lane, max, limits, busy } => {
                let busy: Vec<DestinationKey> =
                    busy.iter().map(|number| bench::destination(*number)).collect();
                self.claim(*owner, &lane_of(*lane), *max, judged(*limits, S::PARTS), &busy).await.map(drop)
            }
            Step::Drain { owner, lane } => self.drain(*owner, &lane_of(*lane)).await,
            Step::Finish { pick, how, keep } => {
                if self.held.is_empty() {
                    return Ok(());
                }
                let held = self.held.swap_remove(pick % self.held.len());
                if *keep {
                    self.past.push(held.clone());
                }
                self.finish(held, how).await
            }
            Step::Late { pick, how } => {
                if self.past.is_empty() {
                    return Ok(());
                }
                let held = self.past[pick % self.past.len()].clone();
                self.finish(held, how).await
            }
            Step::Renew { owner } => self.renew(*owner).await,
            Step::Release { owner, number } => self.release(*owner, *number).await,
            Step::Crash { owner } => {
                let gone = std::mem::replace(&mut self.owners[*owner], Owner::new("walker"));
                self.past.extend(self.held.extract_if(.., |(holder, _)| *holder == gone));
                Ok(())
            }
            Step::Sweep { owner, lane, max } => self.sweep(*owner, &lane_of(*lane), *max).await,
            Step::Advance { by } => self.advance(*by).await,
            Step::Housekeep => self.housekeep().await,
            Step::Requeue { picks, deadline } => {
                let ids = self.pick(picks);
                let answer = self.store.queue().requeue(&ids, *deadline).await?;
                self.model.requeued(&ids, *deadline, answer)
            }
            Step::Purge { picks } => {
                let ids = self.pick(picks);
                let answer = self.store.queue().purge(&ids).await?;
                self.model.purged(&ids, answer)
            }
            Step::Reopen { kill } => {
                if *kill {
                    self.store.crash(&self.settings, &self.clock).await;
                } else {
                    self.store.reopen(&self.settings, &self.clock).await;
                }
                if S::RESTART_ENDS_LEASES {
                    self.model.leases_ended();
                }
                Ok(())
            }
        }
    }

    async fn accept(&mut self, ids: &[usize], deadline: Duration) -> Result<()> {
        let mut batch = Vec::new();
        for number in ids {
            self.texts += 1;
            let payload = format!("text {} of {number}", self.texts).into_bytes();
            batch.push(NewMessage { id: bench::id(*number), payload, deadline, age: Duration::ZERO });
        }
        let answers = self.store.queue().accept(&batch).await?;
        self.model.accepted(&batch, &answers)
    }

    /// Returns whether there is more to be had now.
    async fn claim(
        &mut self,
        owner: usize,
        lane: &Lane,
        max: usize,
        limits: LaneLimits,
        busy: &[DestinationKey],
    ) -> Result<bool> {
        let owner = self.owners[owner].clone();
        let claim = Claim { owner: &owner, lane, max, limits, busy };
        let claimed = self.store.queue().claim(claim.clone()).await?;
        self.told.push(in_any_order(&claimed));
        self.model.claimed(&claim, &claimed)?;
        let is_more = !claimed.items.is_empty() || claimed.wait == Some(Duration::ZERO);
        self.held.extend(claimed.items.into_iter().map(|work| (owner.clone(), work.lease.key().clone())));
        Ok(is_more)
    }

    async fn drain(&mut self, owner: usize, lane: &Lane) -> Result<()> {
        for _ in 0..ENDLESS {
            if !self.claim(owner, lane, MAX_BATCH, LaneLimits::default(), &[]).await? {
                return self.model.drained(lane);
            }
        }
        anyhow::bail!("it always says that there is more")
    }

    async fn finish(&mut self, (owner, key): Held, how: &How) -> Result<()> {
        let now = self.clock.now();
        let attempt = |ambiguous| Attempt { ambiguous, ..bench::failed(now) };
        let is_routing = key.work.index == 0;
        let settlement = match how {
            How::Well { to, deadline } if is_routing => return self.route(&owner, &key, to, *deadline).await,
            How::Well { .. } => Settlement::Delivered,
            How::Retry { delay, ambiguous } => {
                Settlement::RetryAt { due: now.plus(*delay), attempt: attempt(*ambiguous) }
            }
            How::Pause { delay } if is_routing => {
                Settlement::RetryAt { due: now.plus(*delay), attempt: attempt(false) }
            }
            How::Pause { delay } => Settlement::Pause { until: now.plus(*delay), attempt: attempt(false) },
            How::Dead { has_attempt } => Settlement::Dead {
                cause: if is_routing { DeadCause::Unroutable } else { DeadCause::Permanent },
                attempt: has_attempt.then(|| attempt(false)),
            },
        };
        let batch = vec![Settle { lease: Lease::new(key.clone()), settlement: settlement.clone() }];
        let answers = self.store.queue().settle(&owner, batch).await.map_err(|it| it.error)?;
        ensure!(answers.len() == 1, "one answer each");
        self.model.settled(&owner, &key, &settlement, answers[0])
    }

    async fn route(
        &mut self,
        owner: &Owner,
        key: &LeaseKey,
        to: &[(usize, u32)],
        deadline: Duration,
    ) -> Result<()> {
        let deliveries: Vec<NewDelivery> =
            to.iter().map(|(lane, number)| bench::delivery(channel_of(*lane), *number)).collect();
        let expansion = Expansion {
            lease: Lease::new(key.clone()),
            subscriber: format!("team {}", to.len()),
            deadline,
            deliveries: deliveries.clone(),
        };
        let subscriber = expansion.subscriber.clone();
        let answers = self.store.queue().expand(owner, vec![expansion]).await.map_err(|it| it.error)?;
        ensure!(answers.len() == 1, "one answer each");
        self.model.expanded(&key.work, &subscriber, deadline, &deliveries, answers[0])
    }

    async fn renew(&mut self, owner: usize) -> Result<()> {
        let owner = &self.owners[owner];
        // Those of others, and of the past, are among them.
        let all =
            self.held.iter().chain(&self.past).filter(|(holder, key)| holder == owner || key.work.index == 1);
        let mut keys: Vec<LeaseKey> = all.map(|(_, key)| key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys.truncate(MAX_BATCH);
        let lost = self.store.queue().renew(owner, &keys).await?;
        self.model.renewed(owner, &keys, &lost)
    }

    async fn release(&mut self, owner: usize, number: usize) -> Result<()> {
        let owner = self.owners[owner].clone();
        let is_theirs = |(holder, _): &Held| *holder == owner;
        let all: Vec<Held> = self.held.iter().filter(|held| is_theirs(held)).take(number).cloned().collect();
        self.held.retain(|held| !all.contains(held));
        let keys: Vec<LeaseKey> = all.iter().map(|(_, key)| key.clone()).collect();
        let leases = keys.iter().cloned().map(Lease::new).collect();
        self.past.extend(all);
        self.store.queue().release(&owner, leases).await.map_err(|it| it.error)?;
        self.model.released(&owner, &keys)
    }

    async fn sweep(&mut self, owner: usize, lane: &Lane, max: usize) -> Result<()> {
        let owner = self.owners[owner].clone();
        let (mut items, mut buried, mut cursor) = (Vec::new(), Vec::new(), Cursor::default());
        for round in 0.. {
            ensure!(round < ENDLESS, "a sweep that never comes round");
            let swept = self.store.queue().sweep(&owner, lane, max, cursor).await?;
            ensure!(swept.items.len() + swept.buried.len() <= max, "more than asked for");
            items.extend(swept.items);
            buried.extend(swept.buried);
            cursor = swept.cursor;
            if cursor == Cursor::default() {
                break;
            }
        }
        self.model.swept(&owner, lane, &items, &buried)?;
        self.held.extend(items.into_iter().map(|work| (owner.clone(), work.lease.key().clone())));
        Ok(())
    }

    async fn advance(&mut self, by: Duration) -> Result<()> {
        let mut left = by;
        while left > HOUSEKEPT_EVERY {
            self.pass(HOUSEKEPT_EVERY);
            self.housekeep().await?;
            left -= HOUSEKEPT_EVERY;
        }
        self.pass(left);
        Ok(())
    }

    fn pass(&mut self, by: Duration) {
        self.clock.advance(by);
        self.store.age(by);
        self.model.set_time(self.clock.now());
    }

    async fn housekeep(&mut self) -> Result<()> {
        let mut expired = Vec::new();
        for _ in 0..ENDLESS {
            let kept = self.store.queue().housekeep().await?;
            expired.extend(kept.expired);
            if !kept.more {
                return self.model.housekept(&expired);
            }
        }
        anyhow::bail!("housekeeping that never ends")
    }

    fn pick(&self, picks: &[usize]) -> Vec<sms_broadcaster::delivery::DeliveryId> {
        let all = self.model.nameable();
        // Mostly dead letters, which come first.
        picks.iter().filter_map(|pick| all.get(pick % all.len().clamp(1, 12)).cloned()).collect()
    }

    /// Compares all there is to see.
    async fn look(&self) -> Result<()> {
        let queue = self.store.queue();
        let findings = queue.audit().await?;
        ensure!(findings.is_empty(), "the audit finds {findings:#?}");
        self.model.agrees_with_stats(&queue.stats().await?)?;
        for id in (0..IDS).map(bench::id) {
            self.model.agrees_with_status(&id, queue.status(&id).await?.as_ref())?;
        }
        self.model.agrees_with_letters(&queue.dead_letters(&DeadFilter::default(), 1_000).await?)
    }

    /// All work comes to an end, and in the end nothing is left.
    async fn come_to_rest(&mut self) -> Result<()> {
        for letter in self.store.queue().dead_letters(&DeadFilter::default(), 1_000).await? {
            let text = self.store.queue().dead_letter(&letter.id).await?.context("it was listed")?;
            ensure!(
                text.payload.as_deref() == self.model.payload(&letter.id.message),
                "{}: another text",
                letter.id
            );
        }
        // Deliver what comes, and recover what others hold, until nothing is pending.
        for _ in 0..40 {
            for lane in (0..3).map(lane_of) {
                self.sweep(0, &lane, 8).await?;
                self.drain(0, &lane).await?;
                while let Some(held) = self.held.pop() {
                    self.finish(held, &How::Well { to: vec![(1, 0)], deadline: HOUR }).await?;
                }
            }
            self.housekeep().await?;
            self.look().await?;
            if self.model.is_at_rest() {
                break;
            }
            self.advance(20 * MINUTE).await?;
        }
        ensure!(self.model.is_at_rest(), "some work never comes");
        self.advance(self.settings.retention + 2 * HOUR).await?;
        self.housekeep().await?;
        self.look().await?;
        let records = self.store.records();
        ensure!(records == 0, "{records} records are kept for ever");
        Ok(())
    }
}

fn channel_of(lane: usize) -> ChannelId {
    if lane == 1 { ChannelId::sms() } else { ChannelId::slack() }
}

fn lane_of(lane: usize) -> Lane {
    if lane == 0 { Lane::inbound() } else { Lane::of(&channel_of(lane)) }
}
