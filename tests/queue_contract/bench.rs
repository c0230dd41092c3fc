//! A store on the bench: the port with its answers checked for what is always true, a clock moved by
//! hand, and the books the test keeps itself.

use std::time::Duration;

use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{
    Attempt, ChannelId, DeadCause, DeliveryId, DeliveryState, DestinationKey, Reason, Settlement,
};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, Buried, Claim, Claimed, Cursor, DeadFilter, DeadLetter, Expanded, Expansion, Housekept, Lane,
    LaneDepth, LaneLimits, Lease, LeaseKey, MAX_BATCH, NewDelivery, NewMessage, Owner, Queue, QueueAdmin,
    QueueSettings, Rate, Requeued, Room, Settle, Settled, Stats, Swept, Work,
};

use super::harness::Store;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// The suite's leases.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// The suite's retention.
pub(crate) const RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// The first moment of 2026. A test may let most of a year pass and still be behind the real time, as
/// the Redis back-end needs it.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Calls after which a store that still says "more" is taken to be going round in circles.
const ENDLESS: usize = 2_000;

/// What the suite gives every store, if a test does not say otherwise.
pub(crate) fn settings() -> QueueSettings {
    QueueSettings { lease: LEASE, retention: RETENTION, capacity: 100_000, dead_letter_cap: 10_000 }
}

pub(crate) struct Bench<S: Store> {
    pub(crate) store: S,
    pub(crate) clock: Clock,
    pub(crate) settings: QueueSettings,
    /// Pieces of work that were ever made, by what the store answered.
    made: u64,
    accepted: u64,
}

impl<S: Store> Bench<S> {
    pub(crate) async fn new() -> Self {
        let (clock, settings) = (Clock::manual(START), settings());
        let store = S::new(&settings, &clock).await;
        Self { store, clock, settings, made: 0, accepted: 0 }
    }

    pub(crate) fn queue(&self) -> &S::Queue {
        self.store.queue()
    }

    /// Starts the service anew with other settings.
    pub(crate) async fn reopen_with(&mut self, settings: QueueSettings) {
        self.settings = settings;
        self.store.reopen(&self.settings, &self.clock).await;
    }

    /// Forgets the store and what was noted of it.
    pub(crate) async fn start_anew(&mut self) {
        self.store.clear(&self.settings, &self.clock).await;
        (self.made, self.accepted) = (0, 0);
    }

    pub(crate) async fn reopen(&mut self) {
        self.store.reopen(&self.settings, &self.clock).await;
    }

    pub(crate) async fn crash(&mut self) {
        self.store.crash(&self.settings, &self.clock).await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.store.age(by);
    }

    pub(crate) fn put_garbage(&mut self, id: &MessageId) {
        self.made += self.store.put_garbage(id.as_str());
    }

    /// Counts messages that were accepted past the bench.
    pub(crate) fn note_accepted(&mut self, number: u64) {
        self.made += number;
        self.accepted += number;
    }

    // The way in.

    pub(crate) async fn accept_all(&mut self, batch: &[NewMessage]) -> Vec<Acceptance> {
        let answers = self.queue().accept(batch).await.expect("accepted");
        assert_eq!(answers.len(), batch.len(), "one answer each");
        self.note_accepted(answers.iter().filter(|answer| **answer == Acceptance::Accepted).count() as u64);
        answers
    }

    pub(crate) async fn accept(&mut self, id: &MessageId) -> Acceptance {
        self.accept_all(&[message(id)]).await[0]
    }

    /// Accepts new messages, however many.
    pub(crate) async fn accept_new(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        let batch: Vec<NewMessage> = ids.into_iter().map(|id| message(&id)).collect();
        for batch in batch.chunks(MAX_BATCH) {
            let answers = self.accept_all(batch).await;
            assert!(answers.iter().all(|answer| *answer == Acceptance::Accepted), "{answers:?}");
        }
    }

    pub(crate) async fn expand_and_claim(
        &mut self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Expanded {
        let sizes: Vec<usize> = batch.iter().map(|expansion| expansion.deliveries.len()).collect();
        let expanded = self.queue().expand_and_claim(owner, batch, room).await.expect("expanded");
        assert_eq!(expanded.settled.len(), sizes.len(), "one answer each");
        for (answer, size) in expanded.settled.iter().zip(sizes) {
            if *answer == Settled::Expanded {
                self.made = self.made + size as u64 - 1;
            }
        }
        expanded
    }

    pub(crate) async fn expand_all(&mut self, owner: &Owner, batch: Vec<Expansion>) -> Vec<Settled> {
        let expanded = self.expand_and_claim(owner, batch, &[]).await;
        assert!(expanded.handed_out.is_empty(), "nobody asked for any");
        expanded.settled
    }

    pub(crate) async fn expand(&mut self, owner: &Owner, lease: Lease, to: &[NewDelivery]) -> Settled {
        self.expand_all(owner, vec![expansion(lease, to)]).await[0]
    }

    /// Accepts a message and makes `to` its deliveries.
    pub(crate) async fn send(&mut self, id: &MessageId, to: &[NewDelivery]) {
        self.send_within(id, to, 5 * MINUTE).await;
    }

    /// The same with a deadline of its own.
    pub(crate) async fn send_within(&mut self, id: &MessageId, to: &[NewDelivery], deadline: Duration) {
        let router = Owner::new("router");
        self.accept_new([id.clone()]).await;
        let routing = self.take_one(&router, &Lane::inbound()).await;
        assert_eq!(routing.lease.key().work, delivery_id(id, 0));
        let expansion = Expansion { deadline, ..expansion(routing.lease, to) };
        assert_eq!(self.expand_all(&router, vec![expansion]).await, [Settled::Expanded]);
    }

    /// Sends one message to `destination` for each id.
    pub(crate) async fn send_many(
        &mut self,
        ids: impl IntoIterator<Item = MessageId>,
        destination: u32,
        deadline: Duration,
    ) {
        let router = Owner::new("router");
        self.accept_new(ids).await;
        loop {
            let routings = self.take(&router, &Lane::inbound(), MAX_BATCH).await;
            if routings.is_empty() {
                return;
            }
            let expand = |work: Work| Expansion { deadline, ..expansion(work.lease, &[sms(destination)]) };
            self.expand_all(&router, routings.into_iter().map(expand).collect()).await;
        }
    }

    // Hand-outs.

    pub(crate) async fn claim(&self, claim: Claim<'_>) -> Claimed {
        let max = claim.max;
        let claimed = self.queue().claim(claim).await.expect("claimed");
        assert!(claimed.items.len() <= max, "{} of at most {max}", claimed.items.len());
        assert_eq!(claimed.now, self.now(), "the store goes by the clock it was given");
        claimed
    }

    /// A claim without limits.
    pub(crate) async fn ask(&self, owner: &Owner, lane: &Lane, max: usize) -> Claimed {
        self.claim(Claim { owner, lane, max, limits: LaneLimits::default(), busy: &[] }).await
    }

    pub(crate) async fn take(&self, owner: &Owner, lane: &Lane, max: usize) -> Vec<Work> {
        self.ask(owner, lane, max).await.items
    }

    pub(crate) async fn take_one(&self, owner: &Owner, lane: &Lane) -> Work {
        let mut items = self.take(owner, lane, 1).await;
        items.pop().unwrap_or_else(|| panic!("something is ready in {lane}"))
    }

    /// Claims until nothing more comes: what came, and how many calls that took.
    pub(crate) async fn take_all(
        &self,
        owner: &Owner,
        lane: &Lane,
        limits: LaneLimits,
        busy: &[DestinationKey],
    ) -> (Vec<Work>, usize) {
        let mut all = Vec::new();
        for calls in 1..=ENDLESS {
            let claimed = self.claim(Claim { owner, lane, max: MAX_BATCH, limits, busy }).await;
            let is_quiet = claimed.items.is_empty() && claimed.wait != Some(Duration::ZERO);
            all.extend(claimed.items);
            if is_quiet {
                return (all, calls);
            }
        }
        panic!("{} pieces came and still there is more", all.len());
    }

    /// A whole round of sweeps, `max` at a time.
    pub(crate) async fn sweep(&self, owner: &Owner, lane: &Lane, max: usize) -> (Vec<Work>, Vec<Buried>) {
        let (mut items, mut buried, mut cursor) = (Vec::new(), Vec::new(), Cursor::default());
        for _ in 0..ENDLESS {
            let swept: Swept = self.queue().sweep(owner, lane, max, cursor).await.expect("swept");
            assert!(swept.items.len() + swept.buried.len() <= max, "no more than was asked for");
            items.extend(swept.items);
            buried.extend(swept.buried);
            cursor = swept.cursor;
            if cursor == Cursor::default() {
                return (items, buried);
            }
        }
        panic!("a sweep that never comes round");
    }

    /// Work that workers which vanished had in hand, by whatever way it comes back: their leases run
    /// out, and `owner` sweeps and asks.
    pub(crate) async fn recover(&self, owner: &Owner, lane: &Lane) -> (Vec<Work>, Vec<Buried>) {
        self.advance(LEASE + SECOND);
        let (mut items, mut buried) = self.sweep(owner, lane, MAX_BATCH).await;
        let claimed = self.ask(owner, lane, MAX_BATCH).await;
        items.extend(claimed.items);
        buried.extend(claimed.buried);
        (items, buried)
    }

    // What becomes of it.

    pub(crate) async fn settle_all(&self, owner: &Owner, batch: Vec<(Lease, Settlement)>) -> Vec<Settled> {
        let size = batch.len();
        let batch = batch.into_iter().map(|(lease, settlement)| Settle { lease, settlement }).collect();
        let answers = self.queue().settle(owner, batch).await.expect("settled");
        assert_eq!(answers.len(), size, "one answer each");
        answers
    }

    pub(crate) async fn settle(&self, owner: &Owner, lease: Lease, settlement: Settlement) -> Settled {
        self.settle_all(owner, vec![(lease, settlement)]).await[0]
    }

    /// Delivers work in hand.
    pub(crate) async fn deliver(&self, owner: &Owner, items: Vec<Work>) {
        for (at, work) in items.into_iter().enumerate() {
            let answer = self.settle(owner, work.lease, Settlement::Delivered).await;
            assert_eq!(answer, Settled::Delivered { late: false }, "item {at}");
        }
    }

    /// Takes everything out of a lane and delivers it.
    pub(crate) async fn deliver_all(&self, lane: &Lane) {
        let owner = Owner::new("finisher");
        let (items, _) = self.take_all(&owner, lane, LaneLimits::default(), &[]).await;
        self.deliver(&owner, items).await;
    }

    pub(crate) fn retry_at(&self, due: Timestamp) -> Settlement {
        Settlement::RetryAt { due, attempt: failed(self.now()) }
    }

    pub(crate) fn retry_in(&self, delay: Duration) -> Settlement {
        self.retry_at(self.now().plus(delay))
    }

    pub(crate) fn pause_for(&self, delay: Duration) -> Settlement {
        Settlement::Pause { until: self.now().plus(delay), attempt: failed(self.now()) }
    }

    pub(crate) fn dead(&self, cause: DeadCause) -> Settlement {
        Settlement::Dead { cause, attempt: Some(failed(self.now())) }
    }

    pub(crate) async fn renew(&self, owner: &Owner, keys: &[LeaseKey]) -> Vec<LeaseKey> {
        self.queue().renew(owner, keys).await.expect("renewed")
    }

    pub(crate) async fn release(&self, owner: &Owner, leases: Vec<Lease>) {
        self.queue().release(owner, leases).await.expect("released");
    }

    /// Housekeeping until there is no more to do: what expired, and how many calls that took.
    pub(crate) async fn housekeep(&self) -> (Vec<Buried>, usize) {
        let mut expired = Vec::new();
        for calls in 1..=ENDLESS {
            let kept = self.queue().housekeep().await.expect("kept");
            expired.extend(kept.expired);
            if !kept.more {
                return (expired, calls);
            }
        }
        panic!("housekeeping that never ends");
    }

    pub(crate) async fn housekeep_once(&self) -> Housekept {
        self.queue().housekeep().await.expect("kept")
    }

    // What the operator sees.

    pub(crate) async fn stats(&self) -> Stats {
        self.queue().stats().await.expect("stats")
    }

    /// The lane's counts; zeros when it never had work.
    pub(crate) async fn depth(&self, lane: &Lane) -> LaneDepth {
        let lanes = self.stats().await.lanes;
        lanes.into_iter().find(|depth| depth.lane == lane.as_str()).unwrap_or_else(|| LaneDepth {
            lane: lane.to_string(),
            ready: 0,
            leased: 0,
            delayed: 0,
            oldest_ready_age_s: 0.0,
            paused: 0,
        })
    }

    /// Ready, leased and delayed work of a lane.
    pub(crate) async fn places(&self, lane: &Lane) -> (u64, u64, u64) {
        let depth = self.depth(lane).await;
        (depth.ready, depth.leased, depth.delayed)
    }

    /// State and attempts of each delivery of a message.
    pub(crate) async fn states(&self, id: &MessageId) -> Vec<(DeliveryState, u32)> {
        let status = self.queue().status(id).await.expect("status");
        let status = status.unwrap_or_else(|| panic!("{id} is known"));
        status.deliveries.iter().map(|delivery| (delivery.state, delivery.attempts)).collect()
    }

    pub(crate) async fn letters(&self, filter: &DeadFilter) -> Vec<DeadLetter> {
        self.queue().dead_letters(filter, 10_000).await.expect("letters")
    }

    /// The one letter of a delivery.
    pub(crate) async fn letter(&self, id: &DeliveryId) -> DeadLetter {
        let found = self.queue().dead_letter(id).await.expect("asked");
        found.unwrap_or_else(|| panic!("{id} is a dead letter")).letter
    }

    pub(crate) async fn has_letter(&self, id: &DeliveryId) -> bool {
        self.queue().dead_letter(id).await.expect("asked").is_some()
    }

    pub(crate) async fn requeue(&self, ids: &[DeliveryId]) -> Requeued {
        self.queue().requeue(ids, 10 * MINUTE).await.expect("requeued")
    }

    pub(crate) async fn purge(&self, ids: &[DeliveryId]) -> u64 {
        self.queue().purge(ids).await.expect("purged")
    }

    // The end.

    /// Nothing leaks and the sums are right.
    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.queue().audit().await.expect("audited"), Vec::<String>::new());
        let stats = self.stats().await;
        assert_eq!(stats.conservation_error, 0, "{stats:?}");
        let pending = u64::try_from(stats.pending).expect("nothing is owed");
        let ended = stats.delivered + stats.dead + stats.expired;
        assert_eq!(ended + pending, self.made, "every piece of work ended once or is pending: {stats:?}");
        assert_eq!(stats.accepted, self.accepted, "{stats:?}");
    }

    /// Nothing is pending anywhere.
    pub(crate) async fn assert_at_rest(&self) {
        let stats = self.stats().await;
        assert_eq!(stats.pending, 0, "{stats:?}");
        for lane in stats.lanes {
            let counts = (lane.ready, lane.leased, lane.delayed, lane.paused);
            assert_eq!(counts, (0, 0, 0, 0), "{}", lane.lane);
            assert!(lane.oldest_ready_age_s.abs() < f64::EPSILON, "{lane:?}");
        }
    }
}

pub(crate) fn lane() -> Lane {
    Lane::of(&ChannelId::sms())
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner::new(name)
}

pub(crate) fn id(number: usize) -> MessageId {
    MessageId::of_source("test", &number.to_string()).expect("an id")
}

pub(crate) fn delivery_id(message: &MessageId, index: u16) -> DeliveryId {
    DeliveryId { message: message.clone(), index }
}

pub(crate) fn payload(id: &MessageId) -> String {
    format!("text of {id}.")
}

pub(crate) fn message(id: &MessageId) -> NewMessage {
    NewMessage {
        id: id.clone(),
        payload: payload(id).into_bytes(),
        deadline: 5 * MINUTE,
        age: Duration::ZERO,
    }
}

pub(crate) fn destination(number: u32) -> DestinationKey {
    DestinationKey::from_stored(&format!("{number:024x}"))
}

pub(crate) fn label(number: u32) -> String {
    format!("+1****{number:04}")
}

pub(crate) fn recipient(number: u32) -> String {
    format!("recipient {number}.")
}

pub(crate) fn delivery(channel: ChannelId, number: u32) -> NewDelivery {
    NewDelivery {
        channel,
        destination: destination(number),
        label: label(number),
        recipient: recipient(number).into_bytes(),
    }
}

pub(crate) fn sms(number: u32) -> NewDelivery {
    delivery(ChannelId::sms(), number)
}

pub(crate) fn slack(number: u32) -> NewDelivery {
    delivery(ChannelId::slack(), number)
}

pub(crate) const SUBSCRIBER: &str = "on-call";

pub(crate) fn expansion(lease: Lease, to: &[NewDelivery]) -> Expansion {
    Expansion { lease, subscriber: SUBSCRIBER.to_owned(), deadline: 5 * MINUTE, deliveries: to.to_vec() }
}

/// An attempt that failed at `at`.
pub(crate) fn failed(at: Timestamp) -> Attempt {
    Attempt {
        at,
        outcome: "retry".to_owned(),
        reason: Reason::Server,
        status: Some(503),
        code: Some("20503".to_owned()),
        ambiguous: false,
    }
}

/// The same lease once more, as a worker that was suspended would bring it.
pub(crate) fn again(key: &LeaseKey) -> Lease {
    Lease::new(key.clone())
}

pub(crate) fn key(work: &Work) -> LeaseKey {
    work.lease.key().clone()
}

pub(crate) fn ids_of(items: &[Work]) -> Vec<DeliveryId> {
    items.iter().map(|work| work.lease.key().work.clone()).collect()
}

pub(crate) fn every(interval: Duration, burst: u32) -> Option<Rate> {
    Some(Rate { interval, burst })
}
