//! The audit: what must not be, looked for in everything there is, and put right on demand.
//!
//! Both go the same way: through all records, then all places, then the books. The store goes on working
//! meanwhile. Each record and each page is looked at in one step, so what is
//! found wrong in it was wrong; sums over all of them are compared only if the books did not change
//! between the beginning and the end.

use std::collections::{BTreeSet, HashSet};

use redis::{Script, Value};

use super::queue::Shard;
use super::reply::{fields, list, millis, read, text};
use crate::delivery::{ChannelId, DeadCause};
use crate::message::MessageId;
use crate::queue::contract::QueueError;

/// The most findings that are told; a store that is wrong in a million places needs no million lines.
const TOLD: usize = 1_000;

/// The most rounds of one repair: putting one thing right may move what a round has passed already.
const REPAIRS: usize = 4;

/// Keys asked for at once, records looked at at once, and entries.
const KEYS: usize = 500;
const RECORDS: usize = 8;
const ENTRIES: usize = 200;

#[derive(PartialEq, Eq)]
struct Books {
    made: i64,
    ended: [i64; 3],
    accepted: i64,
    lanes: BTreeSet<String>,
}

/// What a key is for, by its name without the prefix.
enum Kind<'a> {
    Record(&'a str),
    /// A stream of work.
    Lane(&'a str),
    /// A zset of a lane.
    OfLane(&'a str),
    /// It must go by itself: a rate, or what was moved out of the way.
    Passing,
    Known,
    Unknown,
}

fn kind(name: &str) -> Kind<'_> {
    match name.split_once(':') {
        None => match name {
            "stat" | "lanes" | "wk" | "dl" => Kind::Known,
            "in" => Kind::Lane("in"),
            _ => Kind::Unknown,
        },
        Some(("m", id)) => Kind::Record(id),
        Some(("rdy", lane)) if is_lane(lane) => Kind::Lane(lane),
        Some(("due" | "park" | "wake", lane)) if is_lane(lane) => Kind::OfLane(lane),
        Some(("held", _)) => Kind::Known,
        Some(("rl" | "aside", _)) => Kind::Passing,
        Some(("dead", cause)) if DeadCause::parse(cause).is_some() => Kind::Known,
        Some(_) => Kind::Unknown,
    }
}

fn is_lane(name: &str) -> bool {
    name == "in" || ChannelId::parse(name).is_ok()
}

/// A way through everything there is.
struct Round<'a> {
    queue: &'a Shard,
    /// Looks at a page of records, and at one of a structure.
    records: &'a Script,
    places: &'a Script,
    /// Whether records of other shards are told of; else they are passed over. Work cannot be moved from one shard to
    /// another in one step, and what is made ready here would be recorded there.
    tells_of_strays: bool,
    findings: Vec<String>,
    pending: i64,
}

/// What is wrong.
pub(super) async fn audit(queue: &Shard) -> Result<Vec<String>, QueueError> {
    let scripts = &queue.scripts;
    let mut round = Round::new(queue, &scripts.audit_records, &scripts.audit_places);
    round.tells_of_strays = true;
    let before = round.books().await?;
    let mut lanes = before.lanes.clone();
    for name in round.keys().await? {
        match kind(&name) {
            Kind::Lane(lane) | Kind::OfLane(lane) if !before.lanes.contains(lane) => {
                lanes.insert(lane.to_owned());
                round.find(format!("the lane {lane} is not listed"));
            }
            Kind::Passing if round.never_passes(&name).await? => {
                round.find(format!("the key {name} does not expire"));
            }
            Kind::Unknown => round.find(format!("the key {name} is not ours")),
            _ => {}
        }
    }
    round.all_places(&lanes).await?;
    let after = round.books().await?;
    if before == after {
        round.sums(&after);
    }
    Ok(round.told())
}

/// Puts right what is wrong; what was done. Keys that are not ours are left alone.
pub(super) async fn repair(queue: &Shard) -> Result<Vec<String>, QueueError> {
    let mut all = Vec::new();
    for _ in 0..REPAIRS {
        let done = repair_once(queue).await?;
        if done.is_empty() {
            break;
        }
        all.extend(done);
    }
    Ok(all)
}

async fn repair_once(queue: &Shard) -> Result<Vec<String>, QueueError> {
    let scripts = &queue.scripts;
    let mut round = Round::new(queue, &scripts.repair_records, &scripts.repair_places);
    let mut lanes = BTreeSet::new();
    for name in round.keys().await? {
        match kind(&name) {
            Kind::Lane(lane) | Kind::OfLane(lane) => drop(lanes.insert(lane.to_owned())),
            Kind::Passing if round.never_passes(&name).await? => {
                round.let_pass(&name).await?;
                round.find(format!("the key {name} did not expire"));
            }
            _ => {}
        }
    }
    lanes.extend(round.books().await?.lanes);
    // What the books say of structures of another type: they were moved out of the way.
    round.all_places(&lanes).await?;
    let done = queue.server.operator.script(&queue.call(&scripts.repair_books)).await?;
    round.find_all(done)?;
    Ok(round.told())
}

impl<'a> Round<'a> {
    fn new(queue: &'a Shard, records: &'a Script, places: &'a Script) -> Self {
        Self { queue, records, places, tells_of_strays: false, findings: Vec::new(), pending: 0 }
    }

    /// Everything that was found, in order.
    fn told(mut self) -> Vec<String> {
        self.findings.sort();
        self.findings.dedup();
        if self.findings.len() > TOLD {
            self.findings.truncate(TOLD);
            self.findings.push("and more".to_owned());
        }
        self.findings
    }

    async fn all_places(&mut self, lanes: &BTreeSet<String>) -> Result<(), QueueError> {
        for lane in lanes {
            for which in ["stream", "due", "park", "wake"] {
                self.page_through(which, lane).await?;
            }
        }
        for cause in DeadCause::ALL {
            self.page_through("dead", cause.as_str()).await?;
        }
        self.page_through("dl", "").await
    }

    fn find(&mut self, finding: String) {
        // A few more than are told, so that it is known that there are.
        if self.findings.len() <= 2 * TOLD {
            self.findings.push(finding);
        }
    }

    fn find_all(&mut self, findings: Value) -> Result<(), QueueError> {
        for finding in list(findings)? {
            self.find(text(finding)?);
        }
        Ok(())
    }

    async fn books(&mut self) -> Result<Books, QueueError> {
        let call = self.queue.call(&self.queue.scripts.audit_books);
        let [made, delivered, dead, expired, accepted, lanes, findings] =
            fields(self.queue.server.operator.script(&call).await?)?;
        self.find_all(findings)?;
        Ok(Books {
            made: read(made)?,
            ended: [read(delivered)?, read(dead)?, read(expired)?],
            accepted: read(accepted)?,
            lanes: list(lanes)?.into_iter().map(text).collect::<Result<_, _>>()?,
        })
    }

    /// Goes through all keys. Records are looked at on the way, the names of the others returned.
    async fn keys(&mut self) -> Result<Vec<String>, QueueError> {
        let (mut cursor, mut others, mut seen) = ("0".to_owned(), Vec::new(), HashSet::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(self.queue.prefix.key("*")).arg("COUNT").arg(KEYS);
            let [next, keys] = fields(self.queue.server.operator.command(&scan).await?)?;
            let mut records = Vec::new();
            for key in list(keys)? {
                let key = text(key)?;
                let name = key.strip_prefix(self.queue.prefix.as_str()).unwrap_or(&key).to_owned();
                if !seen.insert(name.clone()) {
                    continue;
                }
                match kind(&name) {
                    Kind::Record(id) => {
                        let home = MessageId::parse(id).ok();
                        let home = home.and_then(|id| self.queue.partition.home_of_stray(&id));
                        if let Some(home) = home.filter(|_| self.tells_of_strays) {
                            self.find(format!("message {id} belongs to shard {home}"));
                        }
                        if home.is_none() || self.tells_of_strays {
                            records.push(id.to_owned());
                        }
                    }
                    _ => others.push(name),
                }
            }
            for ids in records.chunks(RECORDS) {
                self.look_at_records(ids).await?;
            }
            cursor = text(next)?;
            if cursor == "0" {
                return Ok(others);
            }
        }
    }

    async fn look_at_records(&mut self, ids: &[String]) -> Result<(), QueueError> {
        let mut call = self.queue.call(self.records);
        call.arg(ids);
        let [findings, pending] = fields(self.queue.server.operator.script(&call).await?)?;
        self.pending += read::<i64>(pending)?;
        self.find_all(findings)
    }

    async fn page_through(&mut self, which: &str, of: &str) -> Result<(), QueueError> {
        let mut from = if which == "stream" { "0-0" } else { "0" }.to_owned();
        while !from.is_empty() {
            let mut call = self.queue.call(self.places);
            call.arg(which).arg(of).arg(&from).arg(ENTRIES);
            let [next, findings] = fields(self.queue.server.operator.script(&call).await?)?;
            self.find_all(findings)?;
            from = text(next)?;
        }
        Ok(())
    }

    async fn never_passes(&self, name: &str) -> Result<bool, QueueError> {
        let mut ask = redis::cmd("PTTL");
        ask.arg(self.queue.prefix.key(name));
        Ok(read::<i64>(self.queue.server.operator.command(&ask).await?)? == -1)
    }

    async fn let_pass(&self, name: &str) -> Result<(), QueueError> {
        let mut order = redis::cmd("PEXPIRE");
        order.arg(self.queue.prefix.key(name)).arg(millis(self.queue.settings.retention)).arg("NX");
        self.queue.server.operator.command(&order).await.map(drop)
    }

    fn sums(&mut self, books: &Books) {
        let booked = books.made - books.ended.iter().sum::<i64>();
        if booked != self.pending {
            self.find(format!("the books say {booked} pending deliveries, there are {}", self.pending));
        }
    }
}
