//! The queue port: what every back-end promises, in batches, in the words of the domain.
//!
//! A *message* is accepted once and becomes *work*: first one piece in the lane `in` (its routing,
//! index 0), then, when that is expanded, one piece per recipient (index 1 and up) in the lane of
//! the recipient's channel. A piece of work is in exactly one place: ready, leased, delayed (due
//! later, or parked because its destination is over its rate or paused), or ended.
//!
//! The clauses. Every back-end passes one test per clause, stamped from one suite.
//!
//! * **Q1 once** — a message id is accepted once, for as long as the message lives and `retention`
//!   after its last delivery ended; every repeat answers [`Acceptance::Duplicate`] and changes
//!   nothing but the count.
//! * **Q2 durable** — `accept` returns only after the store holds the message as its durability
//!   level says.
//! * **Q3 capacity** — beyond `capacity` unfinished messages `accept` answers [`Acceptance::Full`]
//!   and stores nothing. A duplicate is a duplicate even then, and where memory or disk are full.
//! * **Q4 one lease** — a piece of work is leased to one owner at a time; nobody else gets it before
//!   its lease ran out unrenewed, or was released.
//! * **Q5 success from anyone, failure from the owner** — `Settlement::Delivered` and an expansion are
//!   taken from whoever brings them while the work is pending, and clear any twin; every other
//!   settlement only from the current owner by its current lease, else [`Settled::LostLease`]: who lost
//!   work and took it again has no say by the lease it lost.
//! * **Q6 one end** — work ends once. What ended answers [`Settled::Stale`]; only the operator's
//!   requeue brings dead work back, nothing brings delivered work back.
//! * **Q7 expansion is one step** — the routing ends and its deliveries appear together, or neither;
//!   expanding twice creates nothing twice.
//! * **Q8 time** — delayed work is not handed out before it is due, by the store's clock.
//! * **Q9 deadline** — work whose deadline passed is never handed out; it ends as expired, at the
//!   latest at the next `housekeep`, wherever it waits. Leased work is its owner's until settled:
//!   then a retry or pause that points to the deadline or past it ends it as expired.
//! * **Q10 rates** — `claim` hands out, per lane and per destination, at most what the limits of the
//!   request allow (GCRA), over all owners together.
//! * **Q11 pause** — a `Pause` holds its destination for every owner until its time, costs no attempt,
//!   and a longer pause is not shortened by a shorter one.
//! * **Q12 no head-of-line blocking** — a destination that is over its rate, paused or named busy in
//!   the request delays only its own work; in a lane's order, work of other destinations passes it.
//! * **Q13 crashes are counted apart** — every hand-out of the same work after a lost lease raises its
//!   `handed_out`; more than [`MAX_HAND_OUTS`] end it as poison. Attempts, pauses, renewals and
//!   releases do not. Nor does a hand-out that its owner outlived: one that was heard of, by a claim, a
//!   renewal or a sweep, when at least half of the lease was over and it was not renewed. It lives, so the
//!   answer or the lease was lost and the work did not take it down; such work goes on until it is settled
//!   or its deadline is over. Of work that is suspected (see [`SUSPECT_HAND_OUTS`]) a call hands out one
//!   piece.
//! * **Q14 recovery** — `sweep` takes over work whose lease ran out, all of it in the course of several
//!   calls that pass the cursor on, and notes that it may have been sent.
//! * **Q15 release** — released work is ready at once, as if it had not been handed out.
//! * **Q16 quarantine** — an entry that cannot be read is buried with its bytes; its neighbours do not
//!   notice.
//! * **Q17 dead letters** — dead and expired work keeps text, recipient, cause and every failed attempt
//!   for `retention`, then vanishes; the number kept is bounded, the oldest go first.
//! * **Q18 requeue** — a dead letter goes back as if new, alone, with a fresh deadline; twice is once.
//! * **Q19 nothing is kept after success** — when the last delivery of a message was delivered, its text
//!   and recipients are gone; what remains (identity, states) goes after `retention`.
//! * **Q20 conservation** — at every moment accepted = delivered + dead + expired + pending, and pending
//!   is what can be found ready, leased or delayed.
//! * **Q21 self-healing** — a structure of the store that somebody removed is made anew, and what is
//!   still there is handed out again.
//! * **Q22 safe to repeat** — every call may be repeated after an error without harm: a lost answer is
//!   not a lost or doubled effect.
//! * **Q23 repair** — `repair` puts right whatever `audit` finds: work that lost its place goes back to its
//!   lane, what can never be delivered is a dead letter, and counts are taken anew; on a sound store it
//!   does nothing, and work in hand stays its owner's.
//! * **Q24 hand-out with the routing** — an expansion may hand out to its bringer what it makes, as far as he has
//!   room in its lane: what a claim of his would have handed out at that moment, leased as by a claim, and nothing
//!   where other work of the lane is ready.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use thiserror::Error;

use crate::clock::Timestamp;
use crate::delivery::{Attempt, ChannelId, DeadCause, DeliveryId, DeliveryState, DestinationKey, Settlement};
use crate::message::MessageId;

/// Hand-outs of one piece of work to workers that then vanished, after which it is poison: it ends on
/// the hand-out that would exceed this number.
pub const MAX_HAND_OUTS: u32 = 4;

/// Hand-outs from which on work is suspected of taking its worker down, and is to be run alone: a call hands
/// out one such piece at most, and puts the others off by [`BUSY_DELAY`].
pub const SUSPECT_HAND_OUTS: u32 = 3;

/// The largest batch any call takes; callers cut larger ones.
pub const MAX_BATCH: usize = 128;

/// What a back-end needs to know beside its address.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How long dead letters and dedup records live.
    pub retention: Duration,
    /// Accepted and unfinished messages beyond which `accept` refuses.
    pub capacity: u64,
    /// Dead letters kept per cause; the oldest make room.
    pub dead_letter_cap: u64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            retention: Duration::from_secs(24 * 3600),
            capacity: 1_000_000,
            dead_letter_cap: 100_000,
        }
    }
}

/// One incarnation of one process. A new process never uses an old name, so a lease tells the dead
/// from the living.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// `{host}-{8 random hexadecimal digits}`; characters of `host` other than `[A-Za-z0-9.-]` become `-`.
    pub fn new(host: &str) -> Self {
        let host: String = host
            .chars()
            .take(64)
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' })
            .collect();
        Self(format!("{host}-{:08x}", fastrand::u32(..)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A queue within the store: `in` for routing, or a channel's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(String);

impl Lane {
    /// Work that is not routed yet.
    pub fn inbound() -> Self {
        Self("in".to_owned())
    }

    /// Deliveries of one channel.
    pub fn of(channel: &ChannelId) -> Self {
        Self(channel.as_str().to_owned())
    }

    /// A lane by its stored name.
    pub fn from_stored(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name: also the `channel` label of metrics.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message to accept.
#[derive(Clone)]
pub struct NewMessage {
    /// Identity and dedup key.
    pub id: MessageId,
    /// What to keep of it; opaque.
    pub payload: Vec<u8>,
    /// Time from its receipt to its deadline, until a route says otherwise.
    pub deadline: Duration,
    /// Time since its receipt, zero unless it was kept elsewhere meanwhile. The message counts as accepted
    /// then.
    pub age: Duration,
}

impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("NewMessage");
        shown
            .field("id", &self.id)
            .field("payload", &Length(&self.payload))
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// What may be told of bytes that may be a text or somebody's number: how many they are.
struct Length<'a>(&'a [u8]);

impl fmt::Debug for Length<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What became of a message brought to `accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Stored now.
    Accepted,
    /// Stored before.
    Duplicate,
    /// Refused: the store is at its capacity, or has no room left.
    Full,
    /// Kept beside the store, which is away or full, as durably; the store gets it later. Only a
    /// [`super::spool::SpoolingQueue`] answers this.
    Spooled,
}

/// A rate: one every `interval`, and up to `burst` at once after quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time that one hand-out costs. Whole microseconds, at least one.
    pub interval: Duration,
    /// Hand-outs allowed at once, at least one.
    pub burst: u32,
}

/// The limits of a lane; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneLimits {
    /// For the lane, over the whole fleet.
    pub lane: Option<Rate>,
    /// For each destination, over the whole fleet.
    pub destination: Option<Rate>,
}

/// A request for work.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Who asks.
    pub owner: &'a Owner,
    /// From which lane.
    pub lane: &'a Lane,
    /// At most how much; `1..=MAX_BATCH`.
    pub max: usize,
    /// The lane's limits.
    pub limits: LaneLimits,
    /// Destinations that the asker has enough of in hand: their work is put off by
    /// [`BUSY_DELAY`], as if they were over their rate.
    pub busy: &'a [DestinationKey],
}

/// How long work for a destination that the claimer named busy is put off.
pub const BUSY_DELAY: Duration = Duration::from_millis(200);

/// Names a lease, to renew it. Copies of it are harmless; settling takes the [`Lease`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// The lane.
    pub lane: Lane,
    /// The work.
    pub work: DeliveryId,
    /// The back-end's own name for this hand-out: a later one of the same work, even to the same owner,
    /// has another.
    pub entry: String,
}

/// The right to settle one piece of work. Not `Clone`, and settling consumes it: settling twice does
/// not compile. An unreachable store gives it back.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(LeaseKey);

impl Lease {
    /// For back-ends, and for tests that play one.
    pub fn new(key: LeaseKey) -> Self {
        Self(key)
    }

    /// Its name.
    pub fn key(&self) -> &LeaseKey {
        &self.0
    }
}

/// Work in hand.
pub struct Work {
    /// The right to settle it.
    pub lease: Lease,
    /// The message, as accepted. Empty if it is gone.
    pub payload: Vec<u8>,
    /// The subscriber's name; empty for work that is not routed.
    pub subscriber: String,
    /// The recipient, as expanded; empty for work that is not routed, and where it cannot be had.
    pub recipient: Vec<u8>,
    /// The destination's key; `None` for work that is not routed.
    pub destination: Option<DestinationKey>,
    /// Attempts that failed so far.
    pub attempts: u32,
    /// Pauses so far.
    pub pauses: u32,
    /// When it must have ended, by the store's clock.
    pub deadline: Timestamp,
    /// When the message was accepted, by the store's clock.
    pub accepted_at: Timestamp,
    /// Hand-outs of this work that count, this one included; reset by every retry, pause and requeue.
    pub handed_out: u32,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Work");
        shown.field("lease", &self.lease).field("payload", &Length(&self.payload));
        shown.field("subscriber", &self.subscriber).field("recipient", &Length(&self.recipient));
        shown.field("destination", &self.destination).field("attempts", &self.attempts);
        shown.field("pauses", &self.pauses).field("deadline", &self.deadline);
        shown.field("accepted_at", &self.accepted_at).field("handed_out", &self.handed_out).finish()
    }
}

/// Where a waiter stands in a lane; opaque. From [`Claimed::mark`] to [`Queue::wait`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub String);

/// Work that ended inside a call of ours without being handed out: expired, poison or unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Which.
    pub delivery: DeliveryId,
    /// In which lane.
    pub lane: Lane,
    /// The subscriber's name; empty for work that was not routed.
    pub subscriber: String,
    /// Why.
    pub cause: DeadCause,
    /// Failed attempts it had.
    pub attempts: u32,
}

/// The answer to a [`Claim`].
#[derive(Debug)]
pub struct Claimed {
    /// The work, oldest first.
    pub items: Vec<Work>,
    /// Work that ended instead of being handed out.
    pub buried: Vec<Buried>,
    /// When to ask again at the latest, if nothing rings before: zero when there is more to look at
    /// right now, `None` when nothing is scheduled.
    pub wait: Option<Duration>,
    /// Of `wait`, whether the lane's own rate is what holds ready work back.
    pub rate_limited: bool,
    /// Where to wait from.
    pub mark: Mark,
    /// The store's time at the call.
    pub now: Timestamp,
    /// Whether a removed structure had to be made anew (Q21).
    pub recreated: bool,
}

/// Where a sweep of a lane stands; opaque. Starts and ends as `Default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub String);

/// The answer to a sweep.
#[derive(Debug)]
pub struct Swept {
    /// Work taken over, leased to the caller.
    pub items: Vec<Work>,
    /// Work that ended instead.
    pub buried: Vec<Buried>,
    /// Where to go on.
    pub cursor: Cursor,
    /// The store's time at the call.
    pub now: Timestamp,
    /// Whether a removed structure had to be made anew (Q21).
    pub recreated: bool,
}

/// One delivery to create.
#[derive(Clone)]
pub struct NewDelivery {
    /// The channel, and so the lane.
    pub channel: ChannelId,
    /// The destination's key.
    pub destination: DestinationKey,
    /// What people may see of the recipient.
    pub label: String,
    /// The recipient; opaque.
    pub recipient: Vec<u8>,
}

impl fmt::Debug for NewDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("NewDelivery");
        shown.field("channel", &self.channel).field("destination", &self.destination);
        shown.field("label", &self.label).field("recipient", &Length(&self.recipient)).finish()
    }
}

/// The end of a routing: from one message to its deliveries.
#[derive(Debug)]
pub struct Expansion {
    /// The routing's lease.
    pub lease: Lease,
    /// The subscriber's name.
    pub subscriber: String,
    /// Time from acceptance to the deadline of these deliveries.
    pub deadline: Duration,
    /// The deliveries; none when the route drops the message. At most 512.
    pub deliveries: Vec<NewDelivery>,
}

/// What an expander can begin with at once, in one lane.
#[derive(Clone, Debug)]
pub struct Room {
    /// The lane.
    pub lane: Lane,
    /// How many deliveries.
    pub max: usize,
    /// The lane's limits.
    pub limits: LaneLimits,
}

/// A delivery that was handed out by the call that made it.
#[derive(Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// Which of the batch's expansions made it, counted from 0; which of its deliveries, says the lease.
    pub expansion: usize,
    /// The right to settle it.
    pub lease: Lease,
    /// When it must have ended, by the store's clock.
    pub deadline: Timestamp,
}

/// The answer to expansions.
#[derive(Debug)]
pub struct Expanded {
    /// What became of each, in order.
    pub settled: Vec<Settled>,
    /// Deliveries leased to the caller, in the order in which they were made.
    pub handed_out: Vec<HandedOut>,
    /// The store's time at the call.
    pub now: Timestamp,
}

/// Work to settle, and how.
#[derive(Debug)]
pub struct Settle {
    /// The right to.
    pub lease: Lease,
    /// How.
    pub settlement: Settlement,
}

/// Whether and how a settlement or expansion was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The routing ended and its deliveries are ready.
    Expanded,
    /// Delivered. `late`: the bringer no longer held the lease.
    Delivered {
        /// Whether the lease was somebody else's, or nobody's.
        late: bool,
    },
    /// Will be handed out again when due.
    Delayed,
    /// Ended; a retry or pause beyond the deadline becomes `Expired`.
    Dead(DeadCause),
    /// It had ended before; nothing was changed. `late_success`: a delivery that came after a dead
    /// end, which is noted on the letter.
    Stale {
        /// Whether it was a success for dead or expired work.
        late_success: bool,
    },
    /// The lease is another's now, who decides; nothing was changed.
    LostLease,
}

/// The store could not be asked; everything brought along comes back.
#[derive(Debug)]
pub struct Unrecorded<T> {
    /// What was to be recorded.
    pub batch: Vec<T>,
    /// Why it was not.
    pub error: QueueError,
}

/// Why the store could not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// It cannot be reached, or not now. The effect of the call is unknown; repeat it.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// It takes nothing new now (out of memory or disk). Nothing was stored.
    #[error("the queue is full: {0}")]
    Exhausted(String),
    /// It must not be used: evicting, too old, corrupt, or another's. Repeating will not help.
    #[error("the queue must not be used: {0}")]
    Unusable(String),
}

/// What [`Queue::housekeep`] did.
#[derive(Debug, Default)]
pub struct Housekept {
    /// Work whose deadline passed while it waited.
    pub expired: Vec<Buried>,
    /// Whether there is more to do right now.
    pub more: bool,
}

/// The workers' and the ingress's side of the store.
///
/// A store may be in several parts, any of which may be away while the others work: a batch that has to do with
/// several fails if one of them does. Whoever brings batches of one part each, by [`Queue::part_of`], is not
/// concerned by the others.
#[async_trait]
pub trait Queue: Send + Sync {
    /// In how many parts the store is.
    fn parts(&self) -> usize {
        1
    }

    /// The part, counted from 0, that a message and its work belong to.
    fn part_of(&self, _message: &MessageId) -> usize {
        0
    }

    /// Looks whether the store may be used and makes what it lacks. To be called until it says yes;
    /// [`QueueError::Unusable`] is final.
    async fn prepare(&self) -> Result<(), QueueError>;

    /// A real round trip, through the same machinery as the work.
    async fn ping(&self) -> Result<(), QueueError>;

    /// Stores messages: one answer each, in order. At most [`MAX_BATCH`].
    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError>;

    /// Asks for work.
    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError>;

    /// Ends routings: one answer each, in order. Of what that makes, the store may hand out to the caller what
    /// a claim would hand out first, as far as there is `room` in its lane: a round trip less for each
    /// delivery. A store that never does is right too.
    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>>;

    /// Ends routings: one answer each, in order.
    async fn expand(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
    ) -> Result<Vec<Settled>, Unrecorded<Expansion>> {
        self.expand_and_claim(owner, batch, &[]).await.map(|expanded| expanded.settled)
    }

    /// Records what is to become of work: one answer each, in order.
    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>>;

    /// Extends leases to their full length from now. Returns those that are no longer the owner's.
    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError>;

    /// Gives work back unstarted; somebody else may have it at once.
    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>>;

    /// Takes over up to `max` pieces of work of `lane` whose lease ran out.
    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError>;

    /// Ends overdue work, drops old letters, forgets dead owners; bounded, to be called about once a
    /// second by everybody.
    async fn housekeep(&self) -> Result<Housekept, QueueError>;

    /// Forgets an owner that leaves and holds nothing.
    async fn retire(&self, owner: &Owner) -> Result<(), QueueError>;

    /// Waits until `lane` may have work newer than `mark`, or for `max`. A doorbell, not a promise: it
    /// takes nothing and may ring for nothing. Dropping it is safe.
    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError>;
}

/// Counts of one lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneDepth {
    /// The lane's name.
    pub lane: String,
    /// Work that may be handed out.
    pub ready: u64,
    /// Work in hand.
    pub leased: u64,
    /// Work that waits for its time.
    pub delayed: u64,
    /// Age of the oldest ready work, in seconds; 0 without any.
    pub oldest_ready_age_s: f64,
    /// Destinations that are paused now.
    pub paused: u64,
}

/// Counts of the whole store, taken in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Messages accepted since the store was made.
    pub accepted: u64,
    /// Duplicates turned away since then.
    pub duplicates: u64,
    /// Deliveries delivered.
    pub delivered: u64,
    /// Deliveries dead, but for the expired.
    pub dead: u64,
    /// Deliveries expired.
    pub expired: u64,
    /// Deliveries not ended, by the books: all ever created less all ended. An unrouted message is one.
    pub pending: i64,
    /// The lanes that ever had work.
    pub lanes: Vec<LaneDepth>,
    /// Dead letters that can be shown, by cause; every cause is there.
    pub dead_letters: Vec<(DeadCause, u64)>,
    /// `pending` less what was found ready, leased and delayed: 0, or the store was tampered with.
    pub conservation_error: i64,
}

/// One delivery as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    /// The channel; `in` for a message that is not routed.
    pub channel: String,
    /// What people may see of the recipient.
    pub destination: Option<String>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts made so far: the failed ones, and the one that delivered.
    pub attempts: u32,
}

/// One message as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageStatus {
    /// The message.
    pub id: MessageId,
    /// Whether it was routed.
    pub expanded: bool,
    /// The latest deadline of its deliveries.
    pub deadline: Timestamp,
    /// Its deliveries, in order; none before it is routed, unless its routing itself died.
    pub deliveries: Vec<DeliveryStatus>,
}

/// A dead letter, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which delivery.
    pub id: DeliveryId,
    /// The channel; `in` when its routing died.
    pub channel: String,
    /// What people may see of the recipient, `None` when there is none.
    pub destination: Option<String>,
    /// The subscriber's name; empty when there is none.
    pub subscriber: String,
    /// Why it died.
    pub cause: DeadCause,
    /// Failed attempts.
    pub attempts: u32,
    /// Whether it may have been sent all the same.
    pub maybe_sent: bool,
    /// When the message was accepted.
    pub accepted_at: Timestamp,
    /// When it died.
    pub died_at: Timestamp,
    /// Every failed attempt, oldest first (the latest 32).
    pub history: Vec<Attempt>,
}

/// A dead letter with its text.
#[derive(Clone)]
pub struct DeadLetterText {
    /// The letter.
    pub letter: DeadLetter,
    /// The message as accepted, `None` when it is gone.
    pub payload: Option<Vec<u8>>,
}

impl fmt::Debug for DeadLetterText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.payload.as_deref().map(Length);
        f.debug_struct("DeadLetterText").field("letter", &self.letter).field("payload", &payload).finish()
    }
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of this channel.
    pub channel: Option<String>,
    /// Of this cause.
    pub cause: Option<DeadCause>,
    /// Of this subscriber.
    pub subscriber: Option<String>,
    /// That died at most so long ago.
    pub since: Option<Duration>,
}

impl DeadFilter {
    /// Whether `letter` passes, `since` apart, which the store decides by its clock.
    pub fn admits(&self, letter: &DeadLetter) -> bool {
        self.channel.as_ref().is_none_or(|channel| *channel == letter.channel)
            && self.cause.is_none_or(|cause| cause == letter.cause)
            && self.subscriber.as_ref().is_none_or(|subscriber| *subscriber == letter.subscriber)
    }
}

/// What became of a requeue or purge: one count each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Back in the queue.
    pub requeued: u64,
    /// Known, but not to be requeued: its text is gone.
    pub skipped: u64,
    /// Not a dead letter (any more).
    pub unknown: u64,
}

/// The operator's side of the store.
#[async_trait]
pub trait QueueAdmin: Send + Sync {
    /// Counts.
    async fn stats(&self) -> Result<Stats, QueueError>;

    /// One message, `None` when it was never accepted or its record is gone.
    async fn status(&self, id: &MessageId) -> Result<Option<MessageStatus>, QueueError>;

    /// Dead letters, newest first, at most `limit`.
    async fn dead_letters(&self, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;

    /// One dead letter with its text.
    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError>;

    /// Sends dead letters back with a deadline `deadline` from now. At most [`MAX_BATCH`].
    async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError>;

    /// Forgets dead letters; returns how many there were. At most [`MAX_BATCH`].
    async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError>;

    /// Looks for what must not be: work in no place or in two, counts that do not add up, records
    /// without owner or expiry. Reads everything; one line per finding, none is good.
    async fn audit(&self) -> Result<Vec<String>, QueueError>;

    /// Puts right what [`QueueAdmin::audit`] finds, as far as it can be: work without a place goes back to
    /// its lane, what belongs to no work is removed, or buried if it is all that is left of a message,
    /// and counts are taken anew. What nobody can put right, and what is not ours, is left for the next
    /// audit to tell. May run while the store is at work, and again after an error. One line per thing
    /// done.
    async fn repair(&self) -> Result<Vec<String>, QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_recipients_are_shown_by_their_length() {
        let id = MessageId::of_source("test", "1").unwrap();
        let message = NewMessage {
            id: id.clone(),
            payload: b"493817".to_vec(),
            deadline: Duration::ZERO,
            age: Duration::ZERO,
        };
        let delivery = NewDelivery {
            channel: ChannelId::sms(),
            destination: DestinationKey::from_stored("d1"),
            label: "+1******2222".to_owned(),
            recipient: b"493817".to_vec(),
        };
        let key = LeaseKey {
            lane: Lane::inbound(),
            work: DeliveryId { message: id, index: 0 },
            entry: "1-0".to_owned(),
        };
        let work = Work {
            lease: Lease::new(key),
            payload: b"493817".to_vec(),
            subscriber: String::new(),
            recipient: b"493817".to_vec(),
            destination: None,
            attempts: 0,
            pauses: 0,
            deadline: Timestamp::from_millis(0),
            accepted_at: Timestamp::from_millis(0),
            handed_out: 1,
        };
        for shown in [format!("{message:?}"), format!("{delivery:?}"), format!("{work:?}")] {
            // As text, and as the numbers of its bytes.
            assert!(!shown.contains("493817") && !shown.contains("52, 57, 51"), "{shown}");
            assert!(shown.contains("6 bytes"), "{shown}");
        }
    }
}
