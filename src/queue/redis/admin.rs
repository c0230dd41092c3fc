//! The operator's side of the port.

use std::cmp::Reverse;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::audit;
use super::fault::not_understood;
use super::queue::Shard;
use super::reply::{fields, list, millis, optional_text, read, text, timestamp};
use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadCause, DeliveryId, DeliveryState};
use crate::message::MessageId;
use crate::queue::contract::{
    DeadFilter, DeadLetter, DeadLetterText, DeliveryStatus, LaneDepth, MessageStatus, QueueAdmin, QueueError,
    Requeued, Stats,
};

/// Letters listed, and letters read, at once.
const PAGE: usize = 128;

#[async_trait]
impl QueueAdmin for Shard {
    async fn stats(&self) -> Result<Stats, QueueError> {
        let mut call = self.call(&self.scripts.stats);
        for cause in DeadCause::ALL {
            call.arg(cause.as_str());
        }
        let [accepted, duplicates, made, delivered, dead, expired, lanes, letters] =
            fields(self.server.operator.script(&call).await?)?;
        let (delivered, dead, expired) = (count(delivered)?, count(dead)?, count(expired)?);
        let lanes = list(lanes)?.into_iter().map(lane_depth).collect::<Result<Vec<_>, _>>()?;
        let letters = list(letters)?.into_iter().map(read).collect::<Result<Vec<u64>, _>>()?;
        let found: u64 = lanes.iter().map(|lane| lane.ready + lane.leased + lane.delayed).sum();
        let ended = i64::try_from(delivered + dead + expired).unwrap_or(i64::MAX);
        let pending = read::<i64>(made)?.saturating_sub(ended);
        Ok(Stats {
            accepted: count(accepted)?,
            duplicates: count(duplicates)?,
            delivered,
            dead,
            expired,
            pending,
            lanes,
            dead_letters: DeadCause::ALL.into_iter().zip(letters).collect(),
            conservation_error: pending.saturating_sub(i64::try_from(found).unwrap_or(i64::MAX)),
        })
    }

    async fn status(&self, id: &MessageId) -> Result<Option<MessageStatus>, QueueError> {
        let mut call = self.call(&self.scripts.status);
        call.arg(id.as_str());
        let answer = self.server.operator.script(&call).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let [is_routed, deadline, deliveries] = fields(answer)?;
        Ok(Some(MessageStatus {
            id: id.clone(),
            expanded: read::<u8>(is_routed)? == 1,
            deadline: timestamp(deadline)?,
            deliveries: list(deliveries)?.into_iter().map(delivery_status).collect::<Result<_, _>>()?,
        }))
    }

    async fn dead_letters(&self, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let mut listed = Listed::new(filter);
        let mut found = Vec::new();
        while found.len() < limit {
            let ids = listed.next_page(self).await?;
            if ids.is_empty() {
                break;
            }
            let letters = self.letters(&ids, false).await?;
            found.extend(letters.into_iter().map(|text| text.letter).filter(|letter| filter.admits(letter)));
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError> {
        Ok(self.letters(std::slice::from_ref(id), true).await?.pop())
    }

    async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError> {
        let mut call = self.call(&self.scripts.requeue);
        call.arg(millis(deadline));
        for id in ids {
            call.arg(id.message.as_str()).arg(id.index);
        }
        let [requeued, skipped, unknown] = fields(self.server.operator.script(&call).await?)?;
        Ok(Requeued { requeued: read(requeued)?, skipped: read(skipped)?, unknown: read(unknown)? })
    }

    async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError> {
        let mut call = self.call(&self.scripts.purge);
        for id in ids {
            call.arg(id.message.as_str()).arg(id.index);
        }
        read(self.server.operator.script(&call).await?)
    }

    async fn audit(&self) -> Result<Vec<String>, QueueError> {
        audit::audit(self).await
    }

    async fn repair(&self) -> Result<Vec<String>, QueueError> {
        audit::repair(self).await
    }
}

/// A count by the books, which somebody may have tampered with.
fn count(value: Value) -> Result<u64, QueueError> {
    Ok(u64::try_from(read::<i64>(value)?).unwrap_or(0))
}

fn lane_depth(value: Value) -> Result<LaneDepth, QueueError> {
    let [lane, ready, leased, due, parked, age_ms, paused] = fields(value)?;
    Ok(LaneDepth {
        lane: text(lane)?,
        ready: read(ready)?,
        leased: read(leased)?,
        delayed: read::<u64>(due)? + read::<u64>(parked)?,
        oldest_ready_age_s: Duration::from_millis(read(age_ms)?).as_secs_f64(),
        paused: read(paused)?,
    })
}

fn delivery_status(value: Value) -> Result<DeliveryStatus, QueueError> {
    let [channel, destination, state, failed] = fields(value)?;
    let state = match text(state)?.as_str() {
        "S" => DeliveryState::Delivered,
        "D" => DeliveryState::Dead,
        "X" => DeliveryState::Expired,
        _ => DeliveryState::Pending,
    };
    Ok(DeliveryStatus {
        channel: text(channel)?,
        destination: optional_text(destination)?,
        state,
        attempts: read::<u32>(failed)?.saturating_add(u32::from(state == DeliveryState::Delivered)),
    })
}

fn letter(id: DeliveryId, value: Value) -> Result<DeadLetterText, QueueError> {
    let [
        channel,
        destination,
        subscriber,
        cause,
        attempts,
        maybe_sent,
        accepted_at,
        died_at,
        history,
        payload,
    ] = fields(value)?;
    let letter = DeadLetter {
        id,
        channel: text(channel)?,
        destination: optional_text(destination)?,
        subscriber: text(subscriber)?,
        cause: DeadCause::parse(&text(cause)?).ok_or_else(not_understood)?,
        attempts: read(attempts)?,
        maybe_sent: read::<u8>(maybe_sent)? == 1,
        accepted_at: timestamp(accepted_at)?,
        died_at: timestamp(died_at)?,
        history: text(history)?
            .lines()
            .filter_map(|line| serde_json::from_str::<Attempt>(line).ok())
            .collect(),
    };
    let payload = if payload == Value::Nil { None } else { Some(read(payload)?) };
    Ok(DeadLetterText { letter, payload })
}

impl Shard {
    /// Reads letters; what is none, or cannot be shown, is left out.
    async fn letters(&self, ids: &[DeliveryId], with_text: bool) -> Result<Vec<DeadLetterText>, QueueError> {
        let mut call = self.call(&self.scripts.letters);
        call.arg(u8::from(with_text));
        for id in ids {
            call.arg(id.message.as_str()).arg(id.index);
        }
        let answers = list(self.server.operator.script(&call).await?)?;
        let letters = ids.iter().zip(answers).filter(|(_, answer)| *answer != Value::Nil);
        Ok(letters.filter_map(|(id, answer)| letter(id.clone(), answer).ok()).collect())
    }
}

/// The letters of several causes, newest first, page by page.
struct Listed {
    causes: Vec<OfCause>,
    /// Those that died in the last so many milliseconds.
    since_ms: Option<i64>,
    /// A letter that is added while the list is read moves the others along.
    seen: HashSet<DeliveryId>,
}

struct OfCause {
    cause: DeadCause,
    offset: usize,
    /// Read and not yet passed on, newest first.
    ahead: VecDeque<(Timestamp, DeliveryId)>,
    is_at_end: bool,
}

impl Listed {
    fn new(filter: &DeadFilter) -> Self {
        let causes =
            DeadCause::ALL.into_iter().filter(|cause| filter.cause.is_none_or(|only| only == *cause));
        Self {
            causes: causes
                .map(|cause| OfCause { cause, offset: 0, ahead: VecDeque::new(), is_at_end: false })
                .collect(),
            since_ms: filter.since.map(millis),
            seen: HashSet::new(),
        }
    }

    /// The next letters; none at the end.
    async fn next_page(&mut self, queue: &Shard) -> Result<Vec<DeliveryId>, QueueError> {
        let mut page = Vec::new();
        while page.len() < PAGE {
            for of_cause in &mut self.causes {
                if of_cause.ahead.is_empty() && !of_cause.is_at_end {
                    of_cause.read_on(queue, self.since_ms).await?;
                }
            }
            let newest = self
                .causes
                .iter_mut()
                .filter(|of_cause| !of_cause.ahead.is_empty())
                .min_by_key(|of_cause| Reverse(of_cause.ahead.front().map(|(died_at, _)| *died_at)));
            let Some((_, id)) = newest.and_then(|of_cause| of_cause.ahead.pop_front()) else { break };
            if self.seen.insert(id.clone()) {
                page.push(id);
            }
        }
        Ok(page)
    }
}

impl OfCause {
    async fn read_on(&mut self, queue: &Shard, since_ms: Option<i64>) -> Result<(), QueueError> {
        let mut call = queue.call(&queue.scripts.list);
        call.arg(self.cause.as_str()).arg(since_ms.map(|ms| ms.to_string()).unwrap_or_default());
        call.arg(self.offset).arg(PAGE);
        let [looked_at, letters] = fields(queue.server.operator.script(&call).await?)?;
        let looked_at: usize = read(looked_at)?;
        self.offset += looked_at;
        self.is_at_end = looked_at < PAGE;
        for letter in list(letters)? {
            let [message, index, died_at] = fields(letter)?;
            // What is no letter is the audit's to tell.
            let Ok(message) = MessageId::parse(&text(message)?) else { continue };
            self.ahead.push_back((timestamp(died_at)?, DeliveryId { message, index: read(index)? }));
        }
        Ok(())
    }
}
