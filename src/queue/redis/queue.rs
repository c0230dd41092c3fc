//! The workers' and the ingress's side of the port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, ScriptInvocation};
use tokio::time::Instant;

use super::fault::not_understood;
use super::finder::another_number;
use super::partition::Partition;
use super::proof::Proof;
use super::reply::{buried, fields, list, millis, moment, optional_text, read, text, timestamp, work};
use super::scripts::{Prefix, Scripts, begin};
use super::server::Server;
use crate::clock::{Clock, Timestamp};
use crate::delivery::{Attempt, DeadCause, DeliveryId, Settlement};
use crate::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, Expanded, Expansion, HandedOut, Housekept, Lane, LaneLimits, Lease,
    LeaseKey, MAX_BATCH, Mark, NewMessage, Owner, Queue, QueueError, QueueSettings, Rate, Room, Settle,
    Settled, Swept, Unrecorded,
};

/// The cursor and the mark of a beginning, in the words of the server.
const BEGINNING: &str = "0-0";

/// What is shorter is no wait: the server counts in whole milliseconds, and 0 is for ever.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Deliveries that one call of the expanding script makes, one expansion more or less: the server does
/// nothing else meanwhile.
const EXPANDED_AT_ONCE: usize = 256;

/// One shard of a queue on a Redis that many processes share: everything about the messages that belong
/// to it. Cheap to make; connects when it is first asked.
pub(super) struct Shard {
    pub(super) server: Arc<Server>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) prefix: Prefix,
    pub(super) partition: Partition,
    /// The whole store's, but for what is shared out.
    pub(super) settings: QueueSettings,
    pub(super) clock: Clock,
    birth: Birth,
}

/// Which store it was that was last asked.
#[derive(Default)]
struct Birth(Mutex<Option<String>>);

impl Birth {
    /// Whether `now` is not the birth that was seen before: the store was emptied, or another is in its place.
    fn is_another(&self, now: String) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(now.clone());
        before.is_some_and(|before| before != now)
    }
}

impl Shard {
    /// One of the shards of a store, on `server`. Time is the server's, unless `clock` is a manual one.
    pub(super) fn new(
        partition: Partition,
        server: Arc<Server>,
        scripts: Arc<Scripts>,
        settings: &QueueSettings,
        clock: Clock,
    ) -> Self {
        Self {
            server,
            scripts,
            prefix: Prefix::of_shard(partition.number),
            partition,
            settings: partition.share_of(settings),
            clock,
            birth: Birth::default(),
        }
    }

    /// The destination of a piece of work, `None` when there is none (any more).
    pub(super) async fn destination_of(&self, work: &DeliveryId) -> Result<Option<String>, QueueError> {
        let mut ask = redis::cmd("HGET");
        ask.arg(self.prefix.key(&format!("m:{}", work.message))).arg(format!("r{}", work.index));
        let route = optional_text(self.server.work.command(&ask).await?)?;
        let destination = route.as_deref().and_then(|route| route.split('|').nth(1));
        Ok(destination.filter(|name| !name.is_empty()).map(str::to_owned))
    }

    /// Holds destinations that were paused in another shard: lane, destination and until when, each.
    pub(super) async fn hold(&self, paused: &[(Lane, String, Timestamp)]) -> Result<(), QueueError> {
        let mut call = self.call(&self.scripts.hold);
        for (lane, destination, until) in paused {
            call.arg(lane.as_str()).arg(destination).arg(moment(*until));
        }
        self.server.work.script(&call).await.map(drop)
    }

    /// Begins a call of a script.
    pub(super) fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        begin(script, &self.prefix, &self.clock, &self.settings)
    }

    /// Which messages of a batch are known, where there is no room to accept any; `None` when none is.
    async fn only_known(
        &self,
        batch: &[NewMessage],
        proof: Proof,
    ) -> Result<Option<Vec<Acceptance>>, QueueError> {
        let mut call = self.call(&self.scripts.known);
        for message in batch {
            call.arg(message.id.as_str());
        }
        let known = numbers(self.server.intake.script_with_proof(&call, proof).await?, batch.len())?;
        let acceptance = |known| if known == 1 { Acceptance::Duplicate } else { Acceptance::Full };
        Ok(known.contains(&1).then(|| known.into_iter().map(acceptance).collect()))
    }

    pub(super) async fn try_expand(
        &self,
        owner: &Owner,
        batch: &[Expansion],
        room: &[Room],
    ) -> Result<Expanded, QueueError> {
        let mut room = room.to_vec();
        let mut expanded = Expanded {
            settled: Vec::with_capacity(batch.len()),
            handed_out: Vec::new(),
            now: self.clock.now(),
        };
        while expanded.settled.len() < batch.len() {
            let (begin, mut deliveries) = (expanded.settled.len(), 0);
            let fits = batch[begin..].iter().take_while(|expansion| {
                let fits = deliveries == 0 || deliveries + expansion.deliveries.len() <= EXPANDED_AT_ONCE;
                deliveries += expansion.deliveries.len();
                fits
            });
            let end = begin + fits.count();
            let Expanded { settled, handed_out, now } =
                self.expand_at_once(owner, &batch[begin..end], &room).await?;
            for room in &mut room {
                let used = handed_out.iter().filter(|out| out.lease.key().lane == room.lane);
                room.max = room.max.saturating_sub(used.count());
            }
            expanded.now = now;
            expanded.settled.extend(settled);
            let of_the_whole = |out: HandedOut| HandedOut { expansion: begin + out.expansion, ..out };
            expanded.handed_out.extend(handed_out.into_iter().map(of_the_whole));
        }
        Ok(expanded)
    }

    async fn expand_at_once(
        &self,
        owner: &Owner,
        batch: &[Expansion],
        room: &[Room],
    ) -> Result<Expanded, QueueError> {
        let mut call = self.call(&self.scripts.expand);
        call.arg(owner.as_str()).arg(room.len());
        for Room { lane, max, limits } in room {
            call.arg(lane.as_str()).arg(*max);
            call.arg(&self.share_of_rate(limits.lane)).arg(&self.share_of_rate(limits.destination));
        }
        for expansion in batch {
            call.arg(expansion.lease.key().work.message.as_str());
            call.arg(&expansion.subscriber).arg(millis(expansion.deadline)).arg(expansion.deliveries.len());
            for delivery in &expansion.deliveries {
                call.arg(delivery.channel.as_str()).arg(delivery.destination.as_str());
                call.arg(&delivery.label).arg(&delivery.recipient);
            }
        }
        let [now, ended, handed_out] = fields(self.server.work.script(&call).await?)?;
        let settled = |answer| match answer {
            1 => Settled::Expanded,
            _ => Settled::Stale { late_success: false },
        };
        Ok(Expanded {
            settled: numbers(ended, batch.len())?.into_iter().map(settled).collect(),
            handed_out: handed_out_of(handed_out, batch)?,
            now: timestamp(now)?,
        })
    }

    /// This shard's share of a limit, as scripts take it.
    fn share_of_rate(&self, limit: Option<Rate>) -> [u64; 2] {
        rate(limit.map(|limit| self.partition.share_of_rate(limit)))
    }

    pub(super) async fn try_settle(
        &self,
        owner: &Owner,
        batch: &[Settle],
    ) -> Result<Vec<Settled>, QueueError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // What arrived of one message is recorded together, whatever else is in the batch.
        let (mut arrived, mut others): (Vec<_>, Vec<_>) =
            (0..batch.len()).partition(|&place| matches!(batch[place].settlement, Settlement::Delivered));
        let message_of = |place: usize| &batch[place].lease.key().work.message;
        arrived.sort_by(|&one, &other| message_of(one).cmp(message_of(other)));
        let of_one_message = || arrived.chunk_by(|&one, &other| message_of(one) == message_of(other));

        let mut call = self.call(&self.scripts.settle);
        call.arg(owner.as_str()).arg(of_one_message().count());
        for places in of_one_message() {
            call.arg(message_of(places[0]).as_str()).arg(places.len());
            for key in places.iter().map(|&place| batch[place].lease.key()) {
                call.arg(key.lane.as_str()).arg(key.work.index).arg(&key.entry);
            }
        }
        for Settle { lease, settlement } in others.iter().map(|&place| &batch[place]) {
            let key = lease.key();
            let (kind, time, cause, attempt) = match settlement {
                Settlement::Delivered => continue,
                Settlement::RetryAt { due, attempt } => ("R", moment(*due), "", Some(attempt)),
                Settlement::Pause { until, attempt } => ("P", moment(*until), "", Some(attempt)),
                Settlement::Dead { cause, attempt } => ("D", 0, cause.as_str(), attempt.as_ref()),
            };
            call.arg(key.work.message.as_str()).arg(key.work.index).arg(&key.entry);
            call.arg(kind).arg(time).arg(cause).arg(attempt.map(line).unwrap_or_default());
            call.arg(u8::from(attempt.is_some_and(|attempt| attempt.ambiguous)));
        }
        let answers = list(self.server.work.script(&call).await?)?;
        if answers.len() != batch.len() {
            return Err(not_understood());
        }
        let mut places = arrived;
        places.append(&mut others);
        let mut placed: Vec<(usize, Settled)> = places
            .into_iter()
            .zip(answers)
            .map(|(place, answer)| Ok((place, settled(&text(answer)?)?)))
            .collect::<Result<_, QueueError>>()?;
        placed.sort_unstable_by_key(|(place, _)| *place);
        Ok(placed.into_iter().map(|(_, settled)| settled).collect())
    }

    pub(super) async fn try_release(&self, owner: &Owner, leases: &[Lease]) -> Result<(), QueueError> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut call = self.call(&self.scripts.release);
        call.arg(owner.as_str());
        for key in leases.iter().map(Lease::key) {
            call.arg(key.work.message.as_str()).arg(key.work.index).arg(&key.entry);
        }
        self.server.work.script(&call).await.map(|_| ())
    }
}

/// Reads what an expansion handed out. A delivery that cannot be read is left to its lease.
fn handed_out_of(value: redis::Value, batch: &[Expansion]) -> Result<Vec<HandedOut>, QueueError> {
    let words = list(value)?;
    let one = |words: &[redis::Value]| {
        let [expansion, index, entry, deadline] = fields(redis::Value::Array(words.to_vec()))?;
        let (expansion, index): (usize, u16) = (read(expansion)?, read(index)?);
        let made_by = batch.get(expansion).ok_or_else(not_understood)?;
        let delivery = usize::from(index).checked_sub(1).and_then(|place| made_by.deliveries.get(place));
        let lane = Lane::of(&delivery.ok_or_else(not_understood)?.channel);
        let work = DeliveryId { message: made_by.lease.key().work.message.clone(), index };
        let lease = Lease::new(LeaseKey { lane, work, entry: read(entry)? });
        Ok(HandedOut { expansion, lease, deadline: timestamp(deadline)? })
    };
    words.chunks(4).map(one).collect()
}

/// An attempt as one line of the history.
fn line(attempt: &Attempt) -> String {
    serde_json::to_string(attempt).expect("a struct of plain values always serialises")
}

fn settled(word: &str) -> Result<Settled, QueueError> {
    Ok(match word {
        "delivered" => Settled::Delivered { late: false },
        "late" => Settled::Delivered { late: true },
        "delayed" => Settled::Delayed,
        "stale" => Settled::Stale { late_success: false },
        "stale_success" => Settled::Stale { late_success: true },
        "lost" => Settled::LostLease,
        cause => Settled::Dead(DeadCause::parse(cause).ok_or_else(not_understood)?),
    })
}

fn numbers(value: redis::Value, expected: usize) -> Result<Vec<u8>, QueueError> {
    let numbers = list(value)?.into_iter().map(read).collect::<Result<Vec<u8>, _>>()?;
    if numbers.len() == expected { Ok(numbers) } else { Err(not_understood()) }
}

/// A rate as scripts take it: microseconds for one, burst.
fn rate(rate: Option<Rate>) -> [u64; 2] {
    // A year for one, and a burst of it, is as good as never, and stays exact in a script's numbers.
    const SLOWEST_US: u64 = 365 * 24 * 3_600 * 1_000_000;
    rate.map_or([0, 0], |rate| {
        let interval = u64::try_from(rate.interval.as_micros()).unwrap_or(SLOWEST_US).clamp(1, SLOWEST_US);
        [interval, u64::from(rate.burst).clamp(1, (SLOWEST_US / interval).max(1))]
    })
}

#[async_trait]
impl Queue for Shard {
    async fn prepare(&self) -> Result<(), QueueError> {
        self.server.look_at_the_server().await?;
        self.ping().await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        let mut call = self.call(&self.scripts.ping);
        call.arg(self.partition.of);
        match read(self.server.work.script(&call).await?)? {
            made_with if made_with == self.partition.of => Ok(()),
            made_with => Err(another_number(made_with, self.partition.of)),
        }
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.call(&self.scripts.accept);
        call.arg(self.settings.capacity);
        for message in batch {
            call.arg(message.id.as_str()).arg(&message.payload);
            call.arg(millis(message.deadline)).arg(millis(message.age));
        }
        let disk = self.server.disk().await?;
        let proof = Proof::of(self.server.durability, disk);
        let answers = match self.server.intake.script_with_proof(&call, proof).await {
            Err(QueueError::Exhausted(why)) => {
                // Whoever repeats himself has nothing to wait for.
                let known = self.only_known(batch, proof).await;
                return known.ok().flatten().ok_or(QueueError::Exhausted(why));
            }
            answered => list(answered?)?,
        };
        // If a connection was lost meanwhile, it may have been another server that answered.
        if self.server.disk().await? != disk {
            return Err(QueueError::Unavailable("another server answered than was looked at".to_owned()));
        }
        if answers.len() != batch.len() {
            return Err(not_understood());
        }
        let acceptance = |answer| match text(answer)?.as_str() {
            "accepted" => Ok(Acceptance::Accepted),
            "duplicate" => Ok(Acceptance::Duplicate),
            "full" => Ok(Acceptance::Full),
            _ => Err(not_understood()),
        };
        answers.into_iter().map(acceptance).collect()
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        let mut call = self.call(&self.scripts.claim);
        call.arg(claim.lane.as_str()).arg(claim.owner.as_str()).arg(claim.max.min(MAX_BATCH));
        let LaneLimits { lane, destination } = claim.limits;
        call.arg(&self.share_of_rate(lane)).arg(&self.share_of_rate(destination));
        for destination in claim.busy {
            call.arg(destination.as_str());
        }
        let [now, recreated, wait, rate_limited, mark, items, ended] =
            fields(self.server.work.script(&call).await?)?;
        Ok(Claimed {
            items: work(items, claim.lane)?,
            buried: buried(ended)?,
            wait: u64::try_from(read::<i64>(wait)?).ok().map(Duration::from_millis),
            rate_limited: read::<u8>(rate_limited)? == 1,
            mark: Mark(text(mark)?),
            now: timestamp(now)?,
            recreated: read::<u8>(recreated)? == 1,
        })
    }

    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        match self.try_expand(owner, &batch, room).await {
            Ok(expanded) => Ok(expanded),
            Err(error) => Err(Unrecorded { batch, error }),
        }
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        match self.try_settle(owner, &batch).await {
            Ok(settled) => Ok(settled),
            Err(error) => Err(Unrecorded { batch, error }),
        }
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.call(&self.scripts.renew);
        call.arg(owner.as_str());
        for key in leases {
            call.arg(key.lane.as_str()).arg(&key.entry);
        }
        let lost = list(self.server.work.script(&call).await?)?;
        let key = |place| {
            let place: usize = read(place)?;
            place.checked_sub(1).and_then(|place| leases.get(place)).cloned().ok_or_else(not_understood)
        };
        lost.into_iter().map(key).collect()
    }

    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        match self.try_release(owner, &leases).await {
            Ok(()) => Ok(()),
            Err(error) => Err(Unrecorded { batch: leases, error }),
        }
    }

    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        let from = if cursor.0.is_empty() { BEGINNING } else { cursor.0.as_str() };
        let mut call = self.call(&self.scripts.sweep);
        call.arg(lane.as_str()).arg(owner.as_str()).arg(max.clamp(1, MAX_BATCH)).arg(from);
        let [now, recreated, next, items, ended, birth] = fields(self.server.work.script(&call).await?)?;
        let lost = self.birth.is_another(text(birth)?);
        if lost {
            // New books do not say yet how many shards there are.
            let _ = self.ping().await;
        }
        let next = text(next)?;
        Ok(Swept {
            items: work(items, lane)?,
            buried: buried(ended)?,
            cursor: if next == BEGINNING { Cursor::default() } else { Cursor(next) },
            now: timestamp(now)?,
            recreated: read::<u8>(recreated)? == 1 || lost,
        })
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        let mut call = self.call(&self.scripts.housekeep);
        for cause in DeadCause::ALL {
            call.arg(cause.as_str());
        }
        let [more, ended, mended] = fields(self.server.work.script(&call).await?)?;
        let mended: u64 = read(mended)?;
        if mended > 0 {
            tracing::error!(mended, "work had lost its place in the store and is ready again");
        }
        Ok(Housekept { expired: buried(ended)?, more: read::<u8>(more)? == 1 })
    }

    async fn retire(&self, owner: &Owner) -> Result<(), QueueError> {
        let mut call = self.call(&self.scripts.retire);
        call.arg(owner.as_str());
        self.server.work.script(&call).await.map(|_| ())
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        let end = Instant::now() + max;
        let (streams, marks) = ([self.prefix.stream_of(lane)], [entry_of(mark)]);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left < SHORTEST_WAIT || self.server.doorbells.listen(&streams, &marks, left).await? {
                return Ok(());
            }
        }
    }
}

/// The entry that a mark of one shard names.
pub(super) fn entry_of(mark: &Mark) -> String {
    if mark.0.is_empty() { BEGINNING.to_owned() } else { mark.0.clone() }
}
