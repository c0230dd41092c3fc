//! The reference: what a queue may answer, as plainly as it can be said.
//!
//! It does not foretell which work a claim hands out and in what order. It judges whether what was
//! handed out could be, and whether anything was left behind that should not.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::delivery::{DeadCause, DeliveryId, DeliveryState, DestinationKey, Settlement};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, BUSY_DELAY, Buried, Claim, Claimed, DeadLetter, Lane, LeaseKey, MAX_HAND_OUTS, MessageStatus,
    NewDelivery, NewMessage, Owner, QueueSettings, Requeued, SUSPECT_HAND_OUTS, Settled, Stats, Work,
};

use super::gcra::Gcra;

/// Where a piece of work is.
#[derive(Clone, Debug)]
enum Place {
    /// Ready, or until `due` delayed, or parked: that is the store's business.
    Waiting {
        due: Timestamp,
    },
    /// In hand.
    Leased {
        key: LeaseKey,
        owner: Owner,
        until: Timestamp,
    },
    Delivered,
    /// A routing that became deliveries.
    Expanded,
    /// Dead or expired; `is_letter` until somebody purges it.
    Dead {
        cause: DeadCause,
        died_at: Timestamp,
        is_letter: bool,
    },
}

#[derive(Clone, Debug)]
struct Piece {
    lane: Lane,
    destination: Option<DestinationKey>,
    label: Option<String>,
    recipient: Vec<u8>,
    deadline: Timestamp,
    attempts: u32,
    pauses: u32,
    handed_out: u32,
    maybe_sent: bool,
    failures: usize,
    /// Hand-outs beyond `handed_out` of which only a store in parts knows whether they count.
    unsure: u32,
    /// Being suspected, it may be put off until then at the latest.
    put_off: Timestamp,
    place: Place,
}

#[derive(Clone, Debug)]
struct Message {
    payload: Vec<u8>,
    subscriber: String,
    accepted_at: Timestamp,
    pieces: BTreeMap<u16, Piece>,
    ended_at: Option<Timestamp>,
}

/// A destination within a lane.
type Gate = (Lane, DestinationKey);

#[derive(Debug)]
pub(crate) struct Model {
    settings: QueueSettings,
    /// Each part of the store has its share of a rate.
    parts: u32,
    now: Timestamp,
    messages: BTreeMap<MessageId, Message>,
    holds: BTreeMap<Gate, Timestamp>,
    lane_rates: BTreeMap<Lane, Gcra>,
    destination_rates: BTreeMap<Gate, Gcra>,
    /// Until when work may be put off because a claim met its destination busy or over its rate.
    put_off: BTreeMap<Gate, Timestamp>,
    /// When owners were heard of.
    heard: HashMap<Owner, Timestamp>,
    accepted: u64,
    duplicates: u64,
    /// Pieces forgotten together with their message.
    forgotten: BTreeMap<DeliveryState, u64>,
}

impl Piece {
    fn is_pending(&self) -> bool {
        matches!(self.place, Place::Waiting { .. } | Place::Leased { .. })
    }

    fn is_waiting(&self) -> bool {
        matches!(self.place, Place::Waiting { .. })
    }

    fn is_delivery(&self) -> bool {
        self.destination.is_some()
    }

    /// Which of the four it counts as; a routing that ended well counts as nothing.
    fn state(&self) -> Option<DeliveryState> {
        match self.place {
            Place::Waiting { .. } | Place::Leased { .. } => Some(DeliveryState::Pending),
            Place::Delivered => Some(DeliveryState::Delivered),
            Place::Dead { cause, .. } => Some(cause.state()),
            Place::Expanded => None,
        }
    }

    fn gate(&self) -> Option<Gate> {
        self.destination.clone().map(|destination| (self.lane.clone(), destination))
    }

    fn is_in_hands_of(&self, owner: &Owner, key: &LeaseKey) -> bool {
        matches!(&self.place, Place::Leased { key: held, owner: holder, .. } if held == key && holder == owner)
    }

    /// Whether its next hand-out makes it one that runs alone.
    fn is_suspect(&self) -> bool {
        self.handed_out + self.unsure + 1 >= SUSPECT_HAND_OUTS
    }

    /// Whether it may be poison.
    fn may_be_poison(&self) -> bool {
        self.handed_out + self.unsure >= MAX_HAND_OUTS
    }

    fn wait_until(&mut self, due: Timestamp) {
        self.place = Place::Waiting { due };
    }
}

impl Model {
    pub(crate) fn new(settings: &QueueSettings, now: Timestamp, parts: u32) -> Self {
        Self {
            parts,
            settings: settings.clone(),
            now,
            messages: BTreeMap::new(),
            holds: BTreeMap::new(),
            lane_rates: BTreeMap::new(),
            destination_rates: BTreeMap::new(),
            put_off: BTreeMap::new(),
            heard: HashMap::new(),
            accepted: 0,
            duplicates: 0,
            forgotten: BTreeMap::new(),
        }
    }

    pub(crate) fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    fn pieces(&self) -> impl Iterator<Item = (DeliveryId, &Piece)> {
        self.messages.iter().flat_map(|(message, record)| {
            let name = |index| DeliveryId { message: message.clone(), index };
            record.pieces.iter().map(move |(index, piece)| (name(*index), piece))
        })
    }

    /// Everything that ever was, dead letters first: what an operator may name.
    pub(crate) fn nameable(&self) -> Vec<DeliveryId> {
        let mut all: Vec<_> = self.pieces().collect();
        all.sort_by_key(|(_, piece)| !self.is_shown(piece));
        all.into_iter().map(|(id, _)| id).collect()
    }

    fn piece(&self, id: &DeliveryId) -> Option<&Piece> {
        self.messages.get(&id.message).and_then(|message| message.pieces.get(&id.index))
    }

    fn piece_mut(&mut self, id: &DeliveryId) -> Result<&mut Piece> {
        let message = self.messages.get_mut(&id.message);
        message
            .and_then(|message| message.pieces.get_mut(&id.index))
            .with_context(|| format!("{id} never was"))
    }

    /// Whether a message is still known: pending, or ended less than the retention ago.
    fn is_known(&self, message: &Message) -> bool {
        message.ended_at.is_none_or(|ended| ended.plus(self.settings.retention) > self.now)
    }

    fn is_shown(&self, piece: &Piece) -> bool {
        matches!(piece.place, Place::Dead { died_at, is_letter: true, .. }
            if died_at.plus(self.settings.retention) > self.now)
    }

    fn held_until(&self, piece: &Piece) -> Timestamp {
        let held = piece.gate().and_then(|gate| self.holds.get(&gate).copied());
        held.unwrap_or(Timestamp::from_millis(0))
    }

    fn is_held(&self, piece: &Piece) -> bool {
        self.held_until(piece) > self.now
    }

    /// Whether the owner of its lease was heard of in the second half of it.
    fn is_outlived(&self, piece: &Piece) -> bool {
        let Place::Leased { owner, until, .. } = &piece.place else { return false };
        self.heard.get(owner).is_some_and(|heard| *heard >= until.minus(self.settings.lease / 2))
    }

    /// The moment by which waiting work must be to be had; `None` when it is not, or must not be.
    fn free_at(&self, piece: &Piece) -> Option<Timestamp> {
        let Place::Waiting { due } = piece.place else { return None };
        if piece.deadline <= self.now || piece.may_be_poison() {
            return None;
        }
        let put_off = piece.gate().and_then(|gate| self.put_off.get(&gate).copied()).unwrap_or(due);
        Some(due.max(self.held_until(piece)).max(put_off).max(piece.put_off))
    }

    // Steps, each judged by what the store answered.

    pub(crate) fn accepted(&mut self, batch: &[NewMessage], answers: &[Acceptance]) -> Result<()> {
        ensure!(batch.len() == answers.len(), "one answer each");
        for (new, answer) in batch.iter().zip(answers) {
            let open = self.messages.values().filter(|message| message.ended_at.is_none()).count();
            let expected = match self.messages.get(&new.id) {
                Some(message) if self.is_known(message) => Acceptance::Duplicate,
                _ if open as u64 >= self.settings.capacity => Acceptance::Full,
                _ => Acceptance::Accepted,
            };
            ensure!(*answer == expected, "{}: {answer:?}, not {expected:?}", new.id);
            match expected {
                Acceptance::Duplicate => self.duplicates += 1,
                Acceptance::Full | Acceptance::Spooled => {}
                Acceptance::Accepted => self.begin(new),
            }
        }
        Ok(())
    }

    fn begin(&mut self, new: &NewMessage) {
        self.accepted += 1;
        let routing = Piece {
            lane: Lane::inbound(),
            destination: None,
            label: None,
            recipient: Vec::new(),
            deadline: self.now.plus(new.deadline),
            attempts: 0,
            pauses: 0,
            handed_out: 0,
            maybe_sent: false,
            failures: 0,
            unsure: 0,
            put_off: self.now,
            place: Place::Waiting { due: self.now },
        };
        let message = Message {
            payload: new.payload.clone(),
            subscriber: String::new(),
            accepted_at: self.now,
            pieces: BTreeMap::from([(0, routing)]),
            ended_at: None,
        };
        if let Some(former) = self.messages.insert(new.id.clone(), message) {
            for state in former.pieces.values().filter_map(Piece::state) {
                *self.forgotten.entry(state).or_default() += 1;
            }
        }
    }

    pub(crate) fn claimed(&mut self, claim: &Claim<'_>, claimed: &Claimed) -> Result<()> {
        ensure!(claimed.now == self.now, "another clock");
        ensure!(claimed.items.len() <= claim.max, "more than asked for");
        self.heard.insert(claim.owner.clone(), self.now);
        self.note_put_off(claim);
        let lane_rate = self.lane_rates.entry(claim.lane.clone()).or_default();
        let room = lane_rate.room(claim.limits.lane, self.now);
        ensure!(claimed.items.len() <= room, "{} items, the lane allows {room}", claimed.items.len());
        lane_rate.spend(claim.limits.lane, self.now, claimed.items.len());
        for work in &claimed.items {
            let id = &work.lease.key().work;
            let piece = self.piece(id).with_context(|| format!("{id} never was"))?;
            let Place::Waiting { due } = piece.place else { bail!("{id} is not to be had: {piece:?}") };
            ensure!(due <= self.now, "{id} is early: {piece:?}");
            ensure!(!self.is_held(piece), "{id} goes to a paused destination");
            ensure!(piece.lane == *claim.lane, "{id} is of another lane");
            if let Some(gate) = piece.gate() {
                ensure!(!claim.busy.contains(&gate.1), "{id} goes to a busy destination");
                let rate = self.destination_rates.entry(gate).or_default();
                ensure!(rate.room(claim.limits.destination, self.now) > 0, "{id} is over its rate");
                rate.spend(claim.limits.destination, self.now, 1);
            }
            self.hand_out(work, claim.owner)?;
        }
        self.one_suspect_at_most(claim.lane, &claimed.items)?;
        for buried in &claimed.buried {
            ensure!(buried.lane == *claim.lane, "{buried:?} is of another lane");
            let id = &buried.delivery;
            ensure!(self.piece(id).is_some_and(Piece::is_waiting), "{id} was not to be buried");
            self.buried(buried)?;
        }
        self.comes_back_in_time(claim, claimed)
    }

    /// Of suspects one is handed out; the others may have been put off for its sake.
    fn one_suspect_at_most(&mut self, lane: &Lane, items: &[Work]) -> Result<()> {
        let suspects = items.iter().filter(|work| work.handed_out >= SUSPECT_HAND_OUTS).count();
        ensure!(suspects <= 1, "{suspects} suspects at once");
        if suspects == 1 {
            let until = self.now.plus(BUSY_DELAY);
            let pieces = self.messages.values_mut().flat_map(|message| message.pieces.values_mut());
            let others = pieces.filter(|piece| piece.lane == *lane && piece.is_suspect());
            others.for_each(|piece| piece.put_off = until);
        }
        Ok(())
    }

    /// Work that this claim may have met and put off.
    fn note_put_off(&mut self, claim: &Claim<'_>) {
        let by_rate = claim.limits.destination.map(|rate| {
            // A rate opens on a whole millisecond.
            self.now.plus(rate.interval * self.parts + Duration::from_millis(1))
        });
        let gates: Vec<Gate> = self.pieces().filter_map(|(_, piece)| piece.gate()).collect();
        for gate in gates.into_iter().filter(|gate| gate.0 == *claim.lane) {
            let by_business = claim.busy.contains(&gate.1).then(|| self.now.plus(BUSY_DELAY));
            for until in by_rate.into_iter().chain(by_business) {
                let put_off = self.put_off.entry(gate.clone()).or_insert(until);
                *put_off = until.max(*put_off);
            }
        }
    }

    /// Whoever sleeps for as long as the answer says misses nothing.
    fn comes_back_in_time(&self, claim: &Claim<'_>, claimed: &Claimed) -> Result<()> {
        let lane_opens = claim
            .limits
            .lane
            .map(|rate| self.now.plus(rate.interval * self.parts + Duration::from_millis(1)));
        for (id, piece) in self.pieces().filter(|(_, piece)| piece.lane == *claim.lane) {
            let Some(free_at) = self.free_at(piece) else { continue };
            let latest = lane_opens.map_or(free_at, |opens| free_at.max(opens)).max(self.now);
            let asks_at = claimed.wait.map(|wait| self.now.plus(wait));
            ensure!(
                asks_at.is_some_and(|at| at <= latest),
                "{id} is forgotten: {:?}, {piece:?}",
                claimed.wait
            );
        }
        Ok(())
    }

    /// After claims without limits until nothing more came: what is still here must have a reason.
    pub(crate) fn drained(&self, lane: &Lane) -> Result<()> {
        for (id, piece) in self.pieces().filter(|(_, piece)| piece.lane == *lane) {
            let is_free = self.free_at(piece).is_some_and(|free_at| free_at <= self.now);
            ensure!(!is_free, "{id} was left behind: {piece:?}");
        }
        Ok(())
    }

    /// Notes a hand-out and compares all that came with it.
    fn hand_out(&mut self, work: &Work, owner: &Owner) -> Result<()> {
        let key = work.lease.key();
        let (now, lease) = (self.now, self.settings.lease);
        let message = self.messages.get(&key.work.message).context("no such message")?;
        ensure!(work.payload == message.payload, "{}: another text", key.work);
        ensure!(work.subscriber == message.subscriber, "{}: another subscriber", key.work);
        ensure!(work.accepted_at == message.accepted_at, "{}: accepted another time", key.work);
        let piece = self.piece_mut(&key.work)?;
        ensure!(piece.deadline > now, "{} is overdue", key.work);
        ensure!(key.lane == piece.lane && work.recipient == piece.recipient, "{key:?}, {piece:?}");
        ensure!(work.destination == piece.destination, "{}: another destination", key.work);
        piece.handed_out += 1;
        if (piece.handed_out..=piece.handed_out + piece.unsure).contains(&work.handed_out) {
            (piece.handed_out, piece.unsure) = (work.handed_out, 0);
        }
        ensure!(piece.handed_out <= MAX_HAND_OUTS, "{} is poison", key.work);
        let told = (work.attempts, work.pauses, work.handed_out, work.deadline);
        let known = (piece.attempts, piece.pauses, piece.handed_out, piece.deadline);
        ensure!(told == known, "{}: {told:?}, not {known:?}", key.work);
        piece.place = Place::Leased { key: key.clone(), owner: owner.clone(), until: now.plus(lease) };
        Ok(())
    }

    /// Notes that pending work ended inside a call, which must have been for a reason.
    fn buried(&mut self, buried: &Buried) -> Result<()> {
        let (now, id) = (self.now, &buried.delivery);
        let subscriber = self.messages.get(&id.message).map(|message| message.subscriber.clone());
        let piece = self.piece_mut(id)?;
        let is_right = match buried.cause {
            DeadCause::Expired => piece.deadline <= now,
            DeadCause::Poison => piece.may_be_poison(),
            _ => false,
        };
        ensure!(piece.is_pending() && is_right, "{buried:?}: {piece:?}");
        let told = (&buried.lane, Some(&buried.subscriber), buried.attempts);
        ensure!(told == (&piece.lane, subscriber.as_ref(), piece.attempts), "{buried:?}: {piece:?}");
        self.die(id, buried.cause)
    }

    fn die(&mut self, id: &DeliveryId, cause: DeadCause) -> Result<()> {
        let died_at = self.now;
        self.piece_mut(id)?.place = Place::Dead { cause, died_at, is_letter: true };
        self.look_for_the_end(&id.message);
        Ok(())
    }

    fn look_for_the_end(&mut self, id: &MessageId) {
        let now = self.now;
        if let Some(message) = self.messages.get_mut(id) {
            let is_pending = message.pieces.values().any(Piece::is_pending);
            message.ended_at = if is_pending { None } else { Some(message.ended_at.unwrap_or(now)) };
        }
    }

    /// A whole round of sweeps through a lane.
    pub(crate) fn swept(
        &mut self,
        owner: &Owner,
        lane: &Lane,
        items: &[Work],
        buried: &[Buried],
    ) -> Result<()> {
        let now = self.now;
        self.heard.insert(owner.clone(), now);
        let is_lapsed = |piece: &Piece| {
            piece.lane == *lane && matches!(piece.place, Place::Leased { until, .. } if until <= now)
        };
        let lapsed: Vec<DeliveryId> =
            self.pieces().filter(|(_, piece)| is_lapsed(piece)).map(|(id, _)| id).collect();
        for id in items.iter().map(|work| &work.lease.key().work).chain(buried.iter().map(|it| &it.delivery))
        {
            ensure!(lapsed.contains(id), "{id} was not to be taken over: {:?}", self.piece(id));
        }
        let in_parts = self.parts > 1;
        for id in &lapsed {
            let is_outlived = self.piece(id).is_some_and(|piece| self.is_outlived(piece));
            let piece = self.piece_mut(id)?;
            piece.maybe_sent |= piece.is_delivery();
            if is_outlived {
                piece.handed_out -= 1;
                // Not every part has heard of every owner.
                piece.unsure += u32::from(in_parts);
            }
        }
        for work in items {
            let id = &work.lease.key().work;
            let is_held = self.piece(id).is_some_and(|piece| self.is_held(piece));
            ensure!(!is_held, "{id} goes to a paused destination");
            self.hand_out(work, owner)?;
        }
        let has_suspect = items.iter().any(|work| work.handed_out >= SUSPECT_HAND_OUTS);
        for buried in buried {
            self.buried(buried)?;
        }
        let remaining = lapsed.into_iter().filter(|id| self.piece(id).is_some_and(is_lapsed));
        for id in remaining.collect::<Vec<_>>() {
            let is_held = self.piece(&id).is_some_and(|piece| self.is_held(piece));
            let piece = self.piece_mut(&id)?;
            let is_fit = piece.deadline > now && piece.handed_out < MAX_HAND_OUTS;
            let is_put_off = has_suspect && piece.is_suspect();
            ensure!((is_held || is_put_off) && is_fit, "the sweep left {id} behind: {piece:?}");
            // It waits with the rest for the end of the pause, or for its turn.
            piece.wait_until(now);
            piece.put_off = now.plus(BUSY_DELAY);
        }
        Ok(())
    }

    pub(crate) fn expanded(
        &mut self,
        id: &DeliveryId,
        subscriber: &str,
        deadline: Duration,
        to: &[NewDelivery],
        answer: Settled,
    ) -> Result<()> {
        if !self.piece(id).is_some_and(Piece::is_pending) {
            ensure!(answer == Settled::Stale { late_success: false }, "{id} had ended: {answer:?}");
            return Ok(());
        }
        ensure!(answer == Settled::Expanded, "{id} was pending: {answer:?}");
        let now = self.now;
        let message = self.messages.get_mut(&id.message).context("no such message")?;
        subscriber.clone_into(&mut message.subscriber);
        message.pieces.get_mut(&0).context("no routing")?.place = Place::Expanded;
        for (index, new) in (1..).zip(to) {
            let piece = Piece {
                lane: Lane::of(&new.channel),
                destination: Some(new.destination.clone()),
                label: Some(new.label.clone()),
                recipient: new.recipient.clone(),
                deadline: message.accepted_at.plus(deadline),
                attempts: 0,
                pauses: 0,
                handed_out: 0,
                maybe_sent: false,
                failures: 0,
                unsure: 0,
                put_off: now,
                place: Place::Waiting { due: now },
            };
            message.pieces.insert(index, piece);
        }
        self.look_for_the_end(&id.message);
        Ok(())
    }

    pub(crate) fn settled(
        &mut self,
        owner: &Owner,
        key: &LeaseKey,
        settlement: &Settlement,
        answer: Settled,
    ) -> Result<()> {
        let (now, id) = (self.now, &key.work);
        let is_success = *settlement == Settlement::Delivered;
        let known = self.messages.get(&id.message).is_some_and(|message| self.is_known(message));
        let Some(piece) = self.piece(id).filter(|piece| piece.is_pending()) else {
            let died = self.piece(id).is_some_and(|piece| matches!(piece.place, Place::Dead { .. }));
            let is_letter = self.piece(id).is_some_and(|piece| self.is_shown(piece));
            let Settled::Stale { late_success } = answer else { bail!("{id} had ended: {answer:?}") };
            // Of what is purged or forgotten the store need not know any more that it was dead.
            let is_right = late_success == (is_success && died) || !(late_success || known && is_letter);
            ensure!(is_right, "{id}: {answer:?}, {:?}", self.piece(id));
            if late_success {
                self.piece_mut(id)?.maybe_sent = true;
            }
            return Ok(());
        };
        let is_holder = piece.is_in_hands_of(owner, key);
        if is_success {
            ensure!(answer == Settled::Delivered { late: !is_holder }, "{id}: {answer:?}, {piece:?}");
            self.piece_mut(id)?.place = Place::Delivered;
            self.look_for_the_end(&id.message);
            return Ok(());
        }
        if !is_holder {
            ensure!(answer == Settled::LostLease, "{id}: {answer:?}, {piece:?}");
            return Ok(());
        }
        let (due, attempt) = match settlement {
            Settlement::RetryAt { due, attempt } => (Some(*due), Some(attempt)),
            Settlement::Pause { until, attempt } => (Some(*until), Some(attempt)),
            Settlement::Dead { attempt, .. } => (None, attempt.as_ref()),
            Settlement::Delivered => (None, None),
        };
        let gate = piece.gate();
        let piece = self.piece_mut(id)?;
        if let Some(attempt) = attempt {
            piece.failures += 1;
            piece.maybe_sent |= attempt.ambiguous && piece.is_delivery();
        }
        (piece.handed_out, piece.unsure) = (0, 0);
        match settlement {
            Settlement::Pause { .. } => piece.pauses += 1,
            _ => piece.attempts += u32::from(attempt.is_some()),
        }
        let deadline = piece.deadline;
        if let (Settlement::Pause { until, .. }, Some(gate)) = (settlement, gate) {
            let hold = self.holds.entry(gate).or_insert(*until);
            *hold = (*until).max(*hold);
        }
        match (due, settlement) {
            (Some(due), _) if due < deadline => {
                ensure!(answer == Settled::Delayed, "{id}: {answer:?}");
                let due = if matches!(settlement, Settlement::Pause { .. }) { now } else { due };
                self.piece_mut(id)?.wait_until(due);
                Ok(())
            }
            (Some(_), _) => {
                ensure!(answer == Settled::Dead(DeadCause::Expired), "{id}: {answer:?}");
                self.die(id, DeadCause::Expired)
            }
            (None, Settlement::Dead { cause, .. }) => {
                ensure!(answer == Settled::Dead(*cause), "{id}: {answer:?}");
                self.die(id, *cause)
            }
            (None, _) => bail!("not a settlement"),
        }
    }

    pub(crate) fn renewed(&mut self, owner: &Owner, keys: &[LeaseKey], lost: &[LeaseKey]) -> Result<()> {
        let until = self.now.plus(self.settings.lease);
        if !keys.is_empty() {
            self.heard.insert(owner.clone(), self.now);
        }
        for key in keys {
            let is_holder = self.piece(&key.work).is_some_and(|piece| piece.is_in_hands_of(owner, key));
            ensure!(is_holder != lost.contains(key), "{key:?}: {:?}", self.piece(&key.work));
            if is_holder {
                self.piece_mut(&key.work)?.place =
                    Place::Leased { key: key.clone(), owner: owner.clone(), until };
            }
        }
        ensure!(lost.iter().all(|key| keys.contains(key)), "lost what was not asked for");
        Ok(())
    }

    pub(crate) fn released(&mut self, owner: &Owner, keys: &[LeaseKey]) -> Result<()> {
        let now = self.now;
        for key in keys {
            if self.piece(&key.work).is_some_and(|piece| piece.is_in_hands_of(owner, key)) {
                let piece = self.piece_mut(&key.work)?;
                piece.handed_out -= 1;
                piece.wait_until(now);
            }
        }
        Ok(())
    }

    /// A service that started and took back what its predecessor had in hand.
    pub(crate) fn leases_ended(&mut self) {
        let now = self.now;
        for piece in self.messages.values_mut().flat_map(|message| message.pieces.values_mut()) {
            if matches!(piece.place, Place::Leased { .. }) {
                piece.maybe_sent |= piece.is_delivery();
                piece.wait_until(now);
            }
        }
    }

    /// Housekeeping until there was no more to do.
    pub(crate) fn housekept(&mut self, expired: &[Buried]) -> Result<()> {
        for buried in expired {
            let is_waiting = self.piece(&buried.delivery).is_some_and(Piece::is_waiting);
            ensure!(is_waiting && buried.cause == DeadCause::Expired, "{buried:?}");
            self.buried(buried)?;
        }
        for (id, piece) in self.pieces() {
            ensure!(!piece.is_waiting() || piece.deadline > self.now, "{id} is overdue: {piece:?}");
        }
        Ok(())
    }

    pub(crate) fn requeued(
        &mut self,
        ids: &[DeliveryId],
        deadline: Duration,
        answer: Requeued,
    ) -> Result<()> {
        let (now, mut expected) = (self.now, Requeued::default());
        for id in ids {
            if !self.piece(id).is_some_and(|piece| self.is_shown(piece)) {
                expected.unknown += 1;
                continue;
            }
            expected.requeued += 1;
            let piece = self.piece_mut(id)?;
            (piece.attempts, piece.pauses, piece.handed_out, piece.failures) = (0, 0, 0, 0);
            piece.unsure = 0;
            piece.maybe_sent = false;
            piece.deadline = now.plus(deadline);
            piece.wait_until(now);
            self.look_for_the_end(&id.message);
        }
        ensure!(answer == expected, "{answer:?}, not {expected:?}");
        Ok(())
    }

    pub(crate) fn purged(&mut self, ids: &[DeliveryId], answer: u64) -> Result<()> {
        let mut expected = 0;
        for id in ids {
            if self.piece(id).is_some_and(|piece| self.is_shown(piece)) {
                expected += 1;
                if let Place::Dead { is_letter, .. } = &mut self.piece_mut(id)?.place {
                    *is_letter = false;
                }
            }
        }
        ensure!(answer == expected, "{answer} purged, not {expected}");
        Ok(())
    }

    // What everybody can see at any moment.

    pub(crate) fn agrees_with_stats(&self, stats: &Stats) -> Result<()> {
        let mut counts = self.forgotten.clone();
        for state in self.pieces().filter_map(|(_, piece)| piece.state()) {
            *counts.entry(state).or_default() += 1;
        }
        let count = |state| counts.get(&state).copied().unwrap_or(0);
        let known = (
            (self.accepted, self.duplicates),
            (count(DeliveryState::Delivered), count(DeliveryState::Dead), count(DeliveryState::Expired)),
            (i64::try_from(count(DeliveryState::Pending))?, 0),
        );
        let told = (
            (stats.accepted, stats.duplicates),
            (stats.delivered, stats.dead, stats.expired),
            (stats.pending, stats.conservation_error),
        );
        ensure!(told == known, "{told:?}, not {known:?}");
        for depth in &stats.lanes {
            let of_lane =
                || self.pieces().map(|(_, piece)| piece).filter(|it| it.lane.as_str() == depth.lane);
            let waiting = of_lane().filter(|piece| piece.is_waiting()).count() as u64;
            let pending = of_lane().filter(|piece| piece.is_pending()).count() as u64;
            let told = (depth.ready + depth.delayed, depth.ready + depth.delayed + depth.leased);
            ensure!(told == (waiting, pending), "{depth:?}: {waiting} wait, {pending} pending");
            let is_held =
                |(gate, until): &(&Gate, &Timestamp)| gate.0.as_str() == depth.lane && **until > self.now;
            let paused = self.holds.iter().filter(is_held).count() as u64;
            ensure!(depth.paused == paused, "{depth:?}: {paused} paused");
        }
        let in_lanes: u64 = stats.lanes.iter().map(|depth| depth.ready + depth.leased + depth.delayed).sum();
        ensure!(in_lanes == count(DeliveryState::Pending), "{in_lanes} in the lanes");
        for (cause, number) in &stats.dead_letters {
            let is_one = |piece: &Piece| matches!(piece.place, Place::Dead { cause: of, .. } if of == *cause);
            let shown =
                self.pieces().filter(|(_, piece)| is_one(piece) && self.is_shown(piece)).count() as u64;
            ensure!(*number == shown, "{number} letters of {cause:?}, not {shown}");
        }
        Ok(())
    }

    pub(crate) fn agrees_with_status(&self, id: &MessageId, status: Option<&MessageStatus>) -> Result<()> {
        let message = self.messages.get(id).filter(|message| self.is_known(message));
        let (message, status) = match (message, status) {
            (Some(message), Some(status)) => (message, status),
            (None, None) => return Ok(()),
            (known, told) => bail!("{id}: {told:?}, not {known:?}"),
        };
        let is_expanded = message.pieces.get(&0).is_some_and(|it| matches!(it.place, Place::Expanded));
        ensure!(status.expanded == is_expanded, "{id}: {status:?}");
        let shown: Vec<&Piece> = message
            .pieces
            .iter()
            .filter(|(index, piece)| **index > 0 || matches!(piece.place, Place::Dead { .. }))
            .map(|(_, piece)| piece)
            .collect();
        ensure!(status.deliveries.len() == shown.len(), "{id}: {status:?}");
        for (told, piece) in status.deliveries.iter().zip(&shown) {
            let attempts = piece.attempts + u32::from(matches!(piece.place, Place::Delivered));
            let told_all = (told.channel.as_str(), &told.destination, Some(told.state), told.attempts);
            let known_all = (piece.lane.as_str(), &piece.label, piece.state(), attempts);
            ensure!(told_all == known_all, "{id}: {told:?}, {piece:?}");
        }
        let latest = shown.iter().map(|piece| piece.deadline).max();
        let latest = latest.or_else(|| message.pieces.get(&0).map(|routing| routing.deadline));
        ensure!(Some(status.deadline) == latest, "{id}: {status:?}, {latest:?}");
        Ok(())
    }

    pub(crate) fn agrees_with_letters(&self, letters: &[DeadLetter]) -> Result<()> {
        let shown: Vec<(DeliveryId, &Piece)> =
            self.pieces().filter(|(_, piece)| self.is_shown(piece)).collect();
        ensure!(letters.len() == shown.len(), "{} letters, not {}", letters.len(), shown.len());
        ensure!(letters.is_sorted_by(|a, b| a.died_at >= b.died_at), "newest first");
        for (id, piece) in shown {
            let letter = letters.iter().find(|letter| letter.id == id);
            let letter = letter.with_context(|| format!("{id} is not among the letters"))?;
            let message = self.messages.get(&id.message).context("no such message")?;
            let Place::Dead { cause, died_at, .. } = piece.place else { bail!("{id} is not dead") };
            ensure!((letter.cause, letter.died_at) == (cause, died_at), "{letter:?}, {piece:?}");
            let told = (letter.attempts, letter.maybe_sent, letter.history.len());
            ensure!(
                told == (piece.attempts, piece.maybe_sent, piece.failures.min(32)),
                "{letter:?}, {piece:?}"
            );
            let told = (letter.channel.as_str(), &letter.destination, &letter.subscriber, letter.accepted_at);
            let known = (piece.lane.as_str(), &piece.label, &message.subscriber, message.accepted_at);
            ensure!(told == known, "{letter:?}, {piece:?}");
        }
        Ok(())
    }

    /// The text of a letter's message.
    pub(crate) fn payload(&self, id: &MessageId) -> Option<&[u8]> {
        self.messages.get(id).map(|message| message.payload.as_slice())
    }

    /// Nothing is pending.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.pieces().any(|(_, piece)| piece.is_pending())
    }
}
