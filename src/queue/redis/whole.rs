//! A store in one or more shards: the port over all of them. Each shard is a queue of its own, and what
//! concerns one message concerns one shard; here is what is more than that.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{FutureExt, join_all};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::address::RedisAddress;
use super::finder::Finder;
use super::link::lock;
use super::partition::{Partition, home_of};
use super::queue::{SHORTEST_WAIT, Shard, entry_of};
use super::scripts::Scripts;
use super::server::Server;
use super::settings::RedisSettings;
use crate::clock::{Clock, Timestamp};
use crate::delivery::Settlement;
use crate::message::MessageId;
use crate::metrics::RedisCondition;
use crate::queue::contract::{
    Acceptance, BUSY_DELAY, Claim, Claimed, Cursor, Expanded, Expansion, HandedOut, Housekept, Lane, Lease,
    LeaseKey, Mark, NewMessage, Owner, Queue, QueueError, QueueSettings, Room, SUSPECT_HAND_OUTS, Settle,
    Settled, Swept, Unrecorded, Work,
};

/// A queue on a Redis that many processes share, or on a Redis Cluster. Cheap to make; connects when it is
/// first asked.
pub struct RedisQueue {
    pub(super) shards: Vec<Arc<Shard>>,
    /// What stands behind them: one for all of them, or on a cluster, where each finds its own, one for each.
    servers: Vec<Arc<Server>>,
    /// The shard that the next claim of a lane begins with.
    turns: Mutex<HashMap<Lane, usize>>,
    /// Waits at a server that outlived the call they were begun for.
    listening: Mutex<HashMap<(Lane, usize), Listening>>,
    clock: Clock,
}

/// Whether something was heard at a server. A task, for it must go on while nobody waits for it: it may just be
/// making a connection, and all who need one wait for whoever does.
type Listening = AbortOnDropHandle<Result<bool, QueueError>>;

/// Parts of a batch by shard, each with the places it had in the batch.
type Parted<T> = Vec<(usize, Vec<usize>, Vec<T>)>;

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisQueue")
    }
}

impl RedisQueue {
    /// A queue on the Redis of `settings`. Does not connect. Time is the server's, unless `clock` is a
    /// manual one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Unusable`] for a URL that cannot be read; the text does not repeat it.
    pub fn new(settings: RedisSettings, queue: QueueSettings, clock: Clock) -> Result<Self, QueueError> {
        let unusable = |why: &str| QueueError::Unusable(format!("the Redis URL cannot be used: {why}"));
        let address = RedisAddress::parse(settings.url.expose_secret()).map_err(unusable)?;
        let of = settings.shards.max(1);
        let server_of = |number| {
            let finder = Finder::new(address.clone(), settings.tls.clone(), Partition { number, of });
            Arc::new(Server::new(finder, settings.durability))
        };
        let servers: Vec<_> = (0..if address.is_cluster() { of } else { 1 }).map(server_of).collect();
        let scripts = Arc::new(Scripts::new());
        let shard = |number| {
            let server = servers.get(number).unwrap_or(&servers[0]);
            let (scripts, clock) = (Arc::clone(&scripts), clock.clone());
            Arc::new(Shard::new(Partition { number, of }, Arc::clone(server), scripts, &queue, clock))
        };
        let shards = (0..of).map(shard).collect();
        Ok(Self { shards, servers, turns: Mutex::default(), listening: Mutex::default(), clock })
    }

    /// Connections that replaced a lost one, since this queue was made.
    pub fn reconnects(&self) -> u64 {
        self.servers.iter().map(|server| server.source.reconnects()).sum()
    }

    /// Shards whose server was away when it was last asked.
    pub fn shards_away(&self) -> usize {
        self.shards.iter().filter(|shard| shard.server.source.is_away()).count()
    }

    /// What the servers say of their memory and their disks, by `INFO`: sums, and the worst of what is no
    /// number. A server that several shards are on is one; one that is away is left out, unless all are.
    pub async fn condition(&self) -> Result<RedisCondition, QueueError> {
        let (mut conditions, mut error) = (BTreeMap::new(), None);
        for answer in join_all(self.servers.iter().map(|server| server.condition())).await {
            match answer {
                Ok((server, condition)) => drop(conditions.insert(server, condition)),
                Err(why) => error = Some(why),
            }
        }
        if let Some(error) = error.filter(|_| conditions.is_empty()) {
            return Err(error);
        }
        let both = |one: RedisCondition, other: RedisCondition| RedisCondition {
            used_memory: one.used_memory + other.used_memory,
            max_memory: match one.max_memory.min(other.max_memory) {
                0 => 0,
                _ => one.max_memory + other.max_memory,
            },
            evicted_keys: one.evicted_keys + other.evicted_keys,
            is_noeviction: one.is_noeviction && other.is_noeviction,
            has_aof: one.has_aof && other.has_aof,
            is_persisting: one.is_persisting && other.is_persisting,
            replicas: one.replicas.min(other.replicas),
        };
        Ok(conditions.into_values().reduce(both).unwrap_or_default())
    }

    /// The shard that a message belongs to.
    pub(super) fn home(&self, message: &MessageId) -> &Arc<Shard> {
        &self.shards[home_of(message, self.shards.len())]
    }

    /// The shards whose server is not known to be away. Those that are away are asked in the background whether
    /// they are back, so that nobody's work waits for their silence; if all are, all are asked.
    fn there(&self) -> Vec<usize> {
        let (away, there): (Vec<usize>, Vec<usize>) =
            (0..self.shards.len()).partition(|&number| self.shards[number].server.source.is_away());
        if there.is_empty() {
            return away;
        }
        for shard in away.into_iter().map(|number| &self.shards[number]) {
            if let Some(knock) = shard.server.knock() {
                let shard = Arc::clone(shard);
                tokio::spawn(async move {
                    let _ = shard.ping().await;
                    drop(knock);
                });
            }
        }
        there
    }

    /// Parts a batch by the shards that its messages belong to.
    fn parted<T>(&self, batch: impl IntoIterator<Item = T>, message: impl Fn(&T) -> &MessageId) -> Parted<T> {
        let mut parts: BTreeMap<usize, (Vec<usize>, Vec<T>)> = BTreeMap::new();
        for (place, item) in batch.into_iter().enumerate() {
            let (places, items) = parts.entry(home_of(message(&item), self.shards.len())).or_default();
            places.push(place);
            items.push(item);
        }
        parts.into_iter().map(|(shard, (places, items))| (shard, places, items)).collect()
    }

    /// Does the same in every shard, and says what each answered; the first error, if all failed. One shard that
    /// is away is no reason to leave the others.
    async fn everywhere<T>(
        &self,
        call: impl AsyncFn(Arc<Shard>) -> Result<T, QueueError>,
    ) -> Result<Vec<T>, QueueError> {
        let calls = self.there().into_iter().map(|number| call(Arc::clone(&self.shards[number])));
        let (mut answers, mut error) = (Vec::new(), None);
        for answer in join_all(calls).await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(why) => error = error.or(Some(why)),
            }
        }
        error.filter(|_| answers.is_empty()).map_or(Ok(answers), Err)
    }

    /// Holds the destinations of pauses that were settled just now in the other shards too. One that cannot be
    /// reached will be told by the provider itself.
    async fn hold_elsewhere(&self, home: usize, paused: Vec<(LeaseKey, Timestamp)>) {
        let mut held = Vec::with_capacity(paused.len());
        for (key, until) in paused {
            if let Ok(Some(destination)) = self.shards[home].destination_of(&key.work).await {
                held.push((key.lane, destination, until));
            }
        }
        if held.is_empty() {
            return;
        }
        let others = self.there().into_iter().filter(|&number| number != home);
        for held in join_all(others.map(|number| self.shards[number].hold(&held))).await {
            if let Err(error) = held {
                tracing::debug!(%error, "a shard does not know of a pause");
            }
        }
    }

    /// Of several suspects keeps one, as one call must hand out no more: the others go back as if they had not
    /// been handed out.
    async fn keep_one_suspect(&self, owner: &Owner, claimed: &mut Claimed) {
        let mut has_suspect = false;
        let surplus: Vec<_> = claimed
            .items
            .extract_if(.., |work| {
                let is_suspect = work.handed_out >= SUSPECT_HAND_OUTS;
                is_suspect && std::mem::replace(&mut has_suspect, true)
            })
            .map(|work| work.lease)
            .collect();
        if surplus.is_empty() {
            return;
        }
        if let Err(unrecorded) = self.release(owner, surplus).await {
            // Their leases run out and somebody sweeps them.
            tracing::debug!(error = %unrecorded.error, "suspects could not be given back");
        }
        claimed.wait = Some(claimed.wait.map_or(BUSY_DELAY, |wait| wait.min(BUSY_DELAY)));
    }

    /// Keeps back work that somebody put into another shard than its own: nothing that became of it could be
    /// recorded, and it would be sent until its deadline.
    fn keep_what_is_at_home(&self, shard: usize, items: &mut Vec<Work>) {
        items.retain(|work| {
            let delivery = &work.lease.key().work;
            let home = self.shards[shard].partition.home_of_stray(&delivery.message);
            if let Some(home) = home {
                tracing::error!(%delivery, shard, home, "work stands in the wrong shard and is not sent");
            }
            home.is_none()
        });
    }

    fn first_shard_on(&self, server: usize) -> usize {
        let is_on_it = |shard: &Arc<Shard>| Arc::ptr_eq(&shard.server, &self.servers[server]);
        self.shards.iter().position(is_on_it).unwrap_or(0)
    }

    /// Waits at one server for work of `lane` in the shards that are on it.
    fn listen(&self, server: usize, lane: &Lane, marks: &[String], max: Duration) -> Listening {
        let number_of = |shard: &Arc<Shard>| shard.partition.number;
        let on_it = self.shards.iter().filter(|shard| Arc::ptr_eq(&shard.server, &self.servers[server]));
        let (streams, marks): (Vec<String>, Vec<String>) = on_it
            .map(|shard| {
                let mark = marks.get(number_of(shard)).cloned().unwrap_or_default();
                (shard.prefix.stream_of(lane), entry_of(&Mark(mark)))
            })
            .unzip();
        let at = Arc::clone(&self.servers[server]);
        AbortOnDropHandle::new(tokio::spawn(async move { at.doorbells.listen(&streams, &marks, max).await }))
    }
}

/// The marks of all shards, in order.
fn marks_of(mark: &Mark) -> Vec<String> {
    mark.0.split(' ').map(str::to_owned).collect()
}

/// Puts what several shards answered together. `marks` has a place for each.
fn together(answers: Vec<(usize, Claimed)>, of: usize) -> Option<Claimed> {
    let mut marks = vec![String::new(); of];
    let mut whole: Option<Claimed> = None;
    for (shard, mut claimed) in answers {
        marks[shard] = std::mem::take(&mut claimed.mark.0);
        let Some(whole) = &mut whole else {
            whole = Some(claimed);
            continue;
        };
        whole.items.append(&mut claimed.items);
        whole.buried.append(&mut claimed.buried);
        whole.recreated |= claimed.recreated;
        // Whoever is ahead decides: better too early to give work up than too late.
        whole.now = whole.now.max(claimed.now);
        if claimed.wait.is_some_and(|wait| whole.wait.is_none_or(|soonest| wait < soonest)) {
            (whole.wait, whole.rate_limited) = (claimed.wait, claimed.rate_limited);
        }
    }
    whole.map(|whole| Claimed { mark: Mark(marks.join(" ")), ..whole })
}

#[async_trait]
impl Queue for RedisQueue {
    fn parts(&self) -> usize {
        self.shards.len()
    }

    fn part_of(&self, message: &MessageId) -> usize {
        home_of(message, self.shards.len())
    }

    /// Looks at every server; the first that must not be used, or that is away, is the error.
    async fn prepare(&self) -> Result<(), QueueError> {
        let mut answers = join_all(self.shards.iter().map(|shard| shard.prepare())).await;
        answers.sort_by_key(|answer| !matches!(answer, Err(QueueError::Unusable(_))));
        answers.into_iter().collect()
    }

    /// One shard that answers is enough: the store is at work.
    async fn ping(&self) -> Result<(), QueueError> {
        self.everywhere(async |shard| shard.ping().await).await.map(drop)
    }

    async fn accept(&self, batch: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
        let Some(first) = batch.first().map(|message| self.part_of(&message.id)) else {
            return Ok(Vec::new());
        };
        if batch.iter().all(|message| self.part_of(&message.id) == first) {
            return self.shards[first].accept(batch).await;
        }
        let parts = self.parted(batch.iter().cloned(), |message| &message.id);
        answered(&parts, |shard, messages| self.shards[shard].accept(messages)).await
    }

    /// Asks one shard, by turns, and then the others for a share each of what is left: with much to do one call
    /// gets it all, with little to do all are asked at once. A shard that is away is not waited for.
    async fn claim(&self, claim: Claim<'_>) -> Result<Claimed, QueueError> {
        let of = self.shards.len();
        if of == 1 {
            return self.shards[0].claim(claim).await;
        }
        let turn = {
            let mut turns = lock(&self.turns);
            let next = turns.entry(claim.lane.clone()).or_default();
            let turn = *next % of;
            *next = turn + 1;
            turn
        };
        let mut order = self.there();
        order.sort_by_key(|number| (number + of - turn) % of);
        let (mut answers, mut error) = (Vec::new(), None);
        let (mut room, mut at_once, mut unasked) = (claim.max, 1, &order[..]);
        while room > 0 && !unasked.is_empty() {
            let (asked, later) = unasked.split_at(at_once.min(room).min(unasked.len()));
            let (share, surplus) = (room / asked.len(), room % asked.len());
            let calls = asked.iter().enumerate().map(|(place, &number)| {
                let claim = Claim { max: share + usize::from(place < surplus), ..claim.clone() };
                self.shards[number].claim(claim).map(move |answer| (number, answer))
            });
            for (number, answer) in join_all(calls).await {
                match answer {
                    Ok(mut claimed) => {
                        self.keep_what_is_at_home(number, &mut claimed.items);
                        room = room.saturating_sub(claimed.items.len());
                        answers.push((number, claimed));
                    }
                    Err(why) => error = Some(why),
                }
            }
            (at_once, unasked) = (of, later);
        }
        let Some(mut claimed) = together(answers, of) else {
            return Err(error.expect("whoever does not answer fails"));
        };
        if !unasked.is_empty() {
            claimed.wait = Some(Duration::ZERO);
        }
        self.keep_one_suspect(claim.owner, &mut claimed).await;
        Ok(claimed)
    }

    /// Room is shared out among the shards that the batch concerns.
    async fn expand_and_claim(
        &self,
        owner: &Owner,
        batch: Vec<Expansion>,
        room: &[Room],
    ) -> Result<Expanded, Unrecorded<Expansion>> {
        if let [shard] = &self.shards[..] {
            return shard.expand_and_claim(owner, batch, room).await;
        }
        let parts = self.parted(batch, |expansion| &expansion.lease.key().work.message);
        let share = |room: &Room| Room { max: room.max / parts.len().max(1), ..room.clone() };
        let room: Vec<Room> = room.iter().map(share).collect();
        let calls = parts.iter().map(|(shard, _, part)| self.shards[*shard].try_expand(owner, part, &room));
        let answers: Result<Vec<_>, _> = join_all(calls).await.into_iter().collect();
        match answers {
            Ok(answers) => Ok(expanded_together(&parts, answers, self.clock.now())),
            Err(error) => Err(Unrecorded { batch: put_together(parts), error }),
        }
    }

    async fn settle(&self, owner: &Owner, batch: Vec<Settle>) -> Result<Vec<Settled>, Unrecorded<Settle>> {
        if let [shard] = &self.shards[..] {
            return shard.settle(owner, batch).await;
        }
        let parts = self.parted(batch, |settle| &settle.lease.key().work.message);
        let settle = async |shard: usize, settles: &[Settle]| {
            let answers = self.shards[shard].try_settle(owner, settles).await?;
            let took = |settled: &Settled| matches!(settled, Settled::Delayed | Settled::Dead(_));
            let paused = settles.iter().zip(&answers).filter(|(_, settled)| took(settled));
            let paused = paused.filter_map(|(settle, _)| match settle.settlement {
                Settlement::Pause { until, .. } => Some((settle.lease.key().clone(), until)),
                _ => None,
            });
            self.hold_elsewhere(shard, paused.collect()).await;
            Ok(answers)
        };
        let answers = answered(&parts, settle).await;
        answers.map_err(|error| Unrecorded { batch: put_together(parts), error })
    }

    async fn renew(&self, owner: &Owner, leases: &[LeaseKey]) -> Result<Vec<LeaseKey>, QueueError> {
        let parts = self.parted(leases.iter().cloned(), |key| &key.work.message);
        let calls = parts.iter().map(|(shard, _, keys)| self.shards[*shard].renew(owner, keys));
        Ok(join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Only what could not be given back comes back.
    async fn release(&self, owner: &Owner, leases: Vec<Lease>) -> Result<(), Unrecorded<Lease>> {
        let parts = self.parted(leases, |lease| &lease.key().work.message);
        let calls = parts.iter().map(|(shard, _, leases)| self.shards[*shard].try_release(owner, leases));
        let answers = join_all(calls).await;
        let (mut batch, mut error) = (Vec::new(), None);
        for ((_, _, leases), answer) in parts.into_iter().zip(answers) {
            if let Err(why) = answer {
                batch.extend(leases);
                error = Some(why);
            }
        }
        error.map_or(Ok(()), |error| Err(Unrecorded { batch, error }))
    }

    /// Sweeps one shard after the other; those that are away are passed over.
    async fn sweep(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        cursor: Cursor,
    ) -> Result<Swept, QueueError> {
        let of = self.shards.len();
        if of == 1 {
            return self.shards[0].sweep(owner, lane, max, cursor).await;
        }
        // `{shard} {where in it}`
        let (from, mut inner) = match cursor.0.split_once(' ') {
            Some((shard, inner)) => (shard.parse().unwrap_or(0), inner.to_owned()),
            None => (0, String::new()),
        };
        let there = self.there();
        let mut error = None;
        for number in there.into_iter().filter(|&number| number >= from) {
            // Of another shard than the cursor was in.
            let cursor = if number == from { std::mem::take(&mut inner) } else { String::new() };
            match self.shards[number].sweep(owner, lane, max, Cursor(cursor)).await {
                Ok(mut swept) => {
                    self.keep_what_is_at_home(number, &mut swept.items);
                    let cursor = match swept.cursor {
                        Cursor(inner) if !inner.is_empty() => Cursor(format!("{number} {inner}")),
                        _ if number + 1 < of => Cursor(format!("{} ", number + 1)),
                        _ => Cursor::default(),
                    };
                    return Ok(Swept { cursor, ..swept });
                }
                Err(why) => error = Some(why),
            }
        }
        match error {
            Some(error) if from == 0 => Err(error),
            // The rest of this round is away. The next begins anew, or it would never come to the others.
            _ => Ok(Swept {
                items: Vec::new(),
                buried: Vec::new(),
                cursor: Cursor::default(),
                now: self.clock.now(),
                recreated: false,
            }),
        }
    }

    async fn housekeep(&self) -> Result<Housekept, QueueError> {
        let kept = self.everywhere(async |shard| shard.housekeep().await).await?;
        let more = kept.iter().any(|kept| kept.more);
        Ok(Housekept { expired: kept.into_iter().flat_map(|kept| kept.expired).collect(), more })
    }

    async fn retire(&self, owner: &Owner) -> Result<(), QueueError> {
        join_all(self.shards.iter().map(|shard| shard.retire(owner))).await.into_iter().collect()
    }

    async fn wait(&self, lane: &Lane, mark: &Mark, max: Duration) -> Result<(), QueueError> {
        if let [shard] = &self.shards[..] {
            return shard.wait(lane, mark, max).await;
        }
        let (end, marks) = (Instant::now() + max, marks_of(mark));
        let there = self.there();
        let is_there = |server| there.iter().any(|&shard| Arc::ptr_eq(&self.shards[shard].server, server));
        // What was begun for an earlier call goes on: giving it up would cost its connection.
        let mut listening: Vec<(usize, bool, Listening)> = Vec::with_capacity(self.servers.len());
        for (number, _) in self.servers.iter().enumerate().filter(|(_, server)| is_there(server)) {
            let kept = lock(&self.listening).remove(&(lane.clone(), number));
            let is_kept = kept.is_some();
            let begun = kept.unwrap_or_else(|| self.listen(number, lane, &marks, max));
            listening.push((number, is_kept, begun));
        }
        let result = loop {
            let heard = poll_fn(|cx| {
                let mut each = listening.iter_mut().enumerate();
                each.find_map(|(place, (_, _, heard))| match heard.poll_unpin(cx) {
                    Poll::Ready(heard) => Some(Poll::Ready((place, heard))),
                    Poll::Pending => None,
                })
                .unwrap_or(Poll::Pending)
            });
            let Ok((place, heard)) = timeout_at(end, heard).await else { break Ok(()) };
            let heard =
                heard.unwrap_or_else(|_| Err(QueueError::Unavailable("a wait failed inside".to_owned())));
            let (server, was_kept, _) = listening.swap_remove(place);
            let left = end.saturating_duration_since(Instant::now());
            match heard {
                Ok(true) => {
                    // Where it rang there is work.
                    lock(&self.turns).insert(lane.clone(), self.first_shard_on(server));
                    break Ok(());
                }
                _ if left < SHORTEST_WAIT => break Ok(()),
                Err(error) if !was_kept && listening.is_empty() => break Err(error),
                Err(_) if !was_kept => {}
                // A wait of an earlier call may have ended, or failed, long ago.
                Ok(false) | Err(_) => {
                    listening.push((server, false, self.listen(server, lane, &marks, left)));
                }
            }
        };
        let mut kept = lock(&self.listening);
        kept.extend(listening.into_iter().map(|(server, _, begun)| ((lane.clone(), server), begun)));
        result
    }
}

/// What the shards answer to the parts of a batch, one answer each, in the order of the whole; the first error if one
/// of them fails.
async fn answered<'a, T, R, F>(
    parts: &'a Parted<T>,
    ask: impl Fn(usize, &'a [T]) -> F,
) -> Result<Vec<R>, QueueError>
where
    F: Future<Output = Result<Vec<R>, QueueError>>,
{
    let calls = parts.iter().map(|(shard, _, items)| ask(*shard, items));
    let answers = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(in_order(parts.iter().map(|(_, places, _)| places), answers))
}

/// Brings answers of parts into the order of the whole.
fn in_order<'a, T>(places: impl Iterator<Item = &'a Vec<usize>>, answers: Vec<Vec<T>>) -> Vec<T> {
    let mut placed: Vec<(usize, T)> =
        places.zip(answers).flat_map(|(places, answers)| places.iter().copied().zip(answers)).collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, answer)| answer).collect()
}

/// What the shards answer to parts of expansions, as the answer to the whole. `now` is for no parts at all.
fn expanded_together(parts: &Parted<Expansion>, answers: Vec<Expanded>, now: Timestamp) -> Expanded {
    let (mut settled, mut handed_out) = (Vec::with_capacity(parts.len()), Vec::new());
    // Whoever is ahead decides: better too early to give work up than too late.
    let now = answers.iter().map(|answer| answer.now).max().unwrap_or(now);
    for ((_, places, _), answer) in parts.iter().zip(answers) {
        let of_the_whole = |out: HandedOut| HandedOut { expansion: places[out.expansion], ..out };
        handed_out.extend(answer.handed_out.into_iter().map(of_the_whole));
        settled.push(answer.settled);
    }
    Expanded { settled: in_order(parts.iter().map(|(_, places, _)| places), settled), handed_out, now }
}

/// A batch as it was before it was parted.
fn put_together<T>(parts: Parted<T>) -> Vec<T> {
    let (places, items): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|(_, places, items)| (places, items)).unzip();
    in_order(places.iter(), items)
}
