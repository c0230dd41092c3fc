//! The audit: what must not be, looked for in everything there is.
//!
//! The store goes on working meanwhile. Each record and each page is looked at in one step, so what is
//! found wrong in it was wrong; sums over all of them are compared only if the books did not change
//! between the beginning and the end.

use std::collections::{BTreeSet, HashSet};

use redis::Value;

use super::queue::Shard;
use super::reply::{fields, list, read, text};
use crate::delivery::DeadCause;
use crate::queue::contract::QueueError;

/// The most findings that are told; a store that is wrong in a million places needs no million lines.
const TOLD: usize = 1_000;

/// Keys asked for at once, records looked at at once, and entries.
const KEYS: usize = 500;
const RECORDS: usize = 32;
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
        Some(("rdy", lane)) => Kind::Lane(lane),
        Some(("due", lane)) => Kind::OfLane(lane),
        Some(("park", lane)) => Kind::OfLane(lane),
        Some(("wake", lane)) => Kind::OfLane(lane),
        Some(("held", _)) => Kind::Known,
        Some(("rl" | "aside", _)) => Kind::Passing,
        Some(("dead", cause)) if DeadCause::parse(cause).is_some() => Kind::Known,
        Some(_) => Kind::Unknown,
    }
}

struct Audit<'a> {
    queue: &'a Shard,
    findings: Vec<String>,
    pending: i64,
}

pub(super) async fn audit(queue: &Shard) -> Result<Vec<String>, QueueError> {
    let mut audit = Audit { queue, findings: Vec::new(), pending: 0 };
    let before = audit.books().await?;
    let mut lanes = before.lanes.clone();
    for name in audit.keys().await? {
        match kind(&name) {
            Kind::Lane(lane) | Kind::OfLane(lane) if !before.lanes.contains(lane) => {
                lanes.insert(lane.to_owned());
                audit.find(format!("the lane {lane} is not listed"));
            }
            Kind::Passing => audit.passing(&name).await?,
            Kind::Unknown => audit.find(format!("the key {name} is not ours")),
            Kind::Record(_) | Kind::Lane(_) | Kind::OfLane(..) | Kind::Known => {}
        }
    }
    for lane in &lanes {
        for which in ["stream", "due", "park", "wake"] {
            audit.places(which, lane).await?;
        }
    }
    for cause in DeadCause::ALL {
        audit.places("dead", cause.as_str()).await?;
    }
    audit.places("dl", "").await?;
    let after = audit.books().await?;
    if before == after {
        audit.sums(&after);
    }
    audit.findings.sort();
    audit.findings.dedup();
    if audit.findings.len() > TOLD {
        audit.findings.truncate(TOLD);
        audit.findings.push("and more".to_owned());
    }
    Ok(audit.findings)
}

impl Audit<'_> {
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
            fields(self.queue.operator.script(&call).await?)?;
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
            let [next, keys] = fields(self.queue.operator.command(&scan).await?)?;
            let mut records = Vec::new();
            for key in list(keys)? {
                let key = text(key)?;
                let name = key.strip_prefix(self.queue.prefix.as_str()).unwrap_or(&key).to_owned();
                if !seen.insert(name.clone()) {
                    continue;
                }
                match kind(&name) {
                    Kind::Record(id) => records.push(id.to_owned()),
                    _ => others.push(name),
                }
            }
            for ids in records.chunks(RECORDS) {
                self.records(ids).await?;
            }
            cursor = text(next)?;
            if cursor == "0" {
                return Ok(others);
            }
        }
    }

    async fn records(&mut self, ids: &[String]) -> Result<(), QueueError> {
        let mut call = self.queue.call(&self.queue.scripts.audit_records);
        call.arg(ids);
        let [findings, pending] = fields(self.queue.operator.script(&call).await?)?;
        self.pending += read::<i64>(pending)?;
        self.find_all(findings)
    }

    async fn places(&mut self, which: &str, of: &str) -> Result<(), QueueError> {
        let mut from = if which == "stream" { "0-0" } else { "0" }.to_owned();
        while !from.is_empty() {
            let mut call = self.queue.call(&self.queue.scripts.audit_places);
            call.arg(which).arg(of).arg(&from).arg(ENTRIES);
            let [next, findings] = fields(self.queue.operator.script(&call).await?)?;
            self.find_all(findings)?;
            from = text(next)?;
        }
        Ok(())
    }

    async fn passing(&mut self, name: &str) -> Result<(), QueueError> {
        let mut ask = redis::cmd("PTTL");
        ask.arg(self.queue.prefix.key(name));
        if read::<i64>(self.queue.operator.command(&ask).await?)? == -1 {
            self.find(format!("the key {name} does not expire"));
        }
        Ok(())
    }

    fn sums(&mut self, books: &Books) {
        let booked = books.made - books.ended.iter().sum::<i64>();
        if booked != self.pending {
            self.find(format!("the books say {booked} pending deliveries, there are {}", self.pending));
        }
    }
}
