//! The operator's side of the port, over all shards: what is counted is added up, and what is named is looked
//! for where it belongs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::partition::NAMED_BY_THE_STORE;
use super::queue::Shard;
use super::whole::RedisQueue;
use crate::delivery::DeliveryId;
use crate::message::MessageId;
use crate::queue::contract::{
    DeadFilter, DeadLetter, DeadLetterText, LaneDepth, MessageStatus, QueueAdmin, QueueError, Requeued, Stats,
};

impl RedisQueue {
    /// Asks every shard. The operator is not to take a part for the whole: one that fails fails all.
    async fn all<T>(
        &self,
        ask: impl AsyncFn(Arc<Shard>) -> Result<T, QueueError>,
    ) -> Result<Vec<T>, QueueError> {
        join_all(self.shards.iter().map(|shard| ask(Arc::clone(shard)))).await.into_iter().collect()
    }

    /// The shards that may have a message.
    fn shards_of(&self, message: &MessageId) -> Vec<&Arc<Shard>> {
        match message.as_str().starts_with(NAMED_BY_THE_STORE) {
            true => self.shards.iter().collect(),
            false => vec![self.home(message)],
        }
    }

    /// Letters by the shard that has them, or may have them.
    fn by_shard(&self, ids: &[DeliveryId]) -> Vec<(Arc<Shard>, Vec<DeliveryId>)> {
        let mut parts: BTreeMap<usize, Vec<DeliveryId>> = BTreeMap::new();
        for id in ids {
            for shard in self.shards_of(&id.message) {
                parts.entry(shard.partition.number).or_default().push(id.clone());
            }
        }
        parts.into_iter().map(|(number, ids)| (Arc::clone(&self.shards[number]), ids)).collect()
    }

    /// Findings of one of several shards say of which.
    fn labelled(shard: &Shard, findings: Vec<String>) -> Vec<String> {
        let number = shard.partition.number;
        match shard.partition.of {
            1 => findings,
            _ => findings.into_iter().map(|finding| format!("shard {number}: {finding}")).collect(),
        }
    }
}

/// Adds up the counts of one lane in two shards.
fn add(lane: &mut LaneDepth, other: &LaneDepth) {
    lane.ready += other.ready;
    lane.leased += other.leased;
    lane.delayed += other.delayed;
    lane.oldest_ready_age_s = lane.oldest_ready_age_s.max(other.oldest_ready_age_s);
    // A pause is told to all shards.
    lane.paused = lane.paused.max(other.paused);
}

#[async_trait]
impl QueueAdmin for RedisQueue {
    /// Each shard's counts are taken in one step, one shard's after the other's.
    async fn stats(&self) -> Result<Stats, QueueError> {
        let mut lanes: BTreeMap<String, LaneDepth> = BTreeMap::new();
        let mut whole: Option<Stats> = None;
        for stats in self.all(async |shard| shard.stats().await).await? {
            for lane in &stats.lanes {
                match lanes.get_mut(&lane.lane) {
                    Some(known) => add(known, lane),
                    None => drop(lanes.insert(lane.lane.clone(), lane.clone())),
                }
            }
            let Some(whole) = &mut whole else {
                whole = Some(stats);
                continue;
            };
            whole.accepted += stats.accepted;
            whole.duplicates += stats.duplicates;
            whole.delivered += stats.delivered;
            whole.dead += stats.dead;
            whole.expired += stats.expired;
            whole.pending += stats.pending;
            whole.conservation_error += stats.conservation_error;
            for ((_, letters), (_, more)) in whole.dead_letters.iter_mut().zip(&stats.dead_letters) {
                *letters += more;
            }
        }
        Ok(Stats { lanes: lanes.into_values().collect(), ..whole.unwrap_or_default() })
    }

    async fn status(&self, id: &MessageId) -> Result<Option<MessageStatus>, QueueError> {
        for shard in self.shards_of(id) {
            if let Some(status) = shard.status(id).await? {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    async fn dead_letters(&self, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let lists = join_all(self.shards.iter().map(|shard| shard.dead_letters(filter, limit))).await;
        let mut letters = lists.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        letters.sort_by_key(|letter| Reverse(letter.died_at));
        letters.truncate(limit);
        Ok(letters)
    }

    async fn dead_letter(&self, id: &DeliveryId) -> Result<Option<DeadLetterText>, QueueError> {
        for shard in self.shards_of(&id.message) {
            if let Some(letter) = shard.dead_letter(id).await? {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    async fn requeue(&self, ids: &[DeliveryId], deadline: Duration) -> Result<Requeued, QueueError> {
        let mut whole = Requeued::default();
        for (shard, ids) in self.by_shard(ids) {
            let done = shard.requeue(&ids, deadline).await?;
            whole.requeued += done.requeued;
            whole.skipped += done.skipped;
        }
        // One of which the store made the name was asked for in every shard.
        whole.unknown = (ids.len() as u64).saturating_sub(whole.requeued + whole.skipped);
        Ok(whole)
    }

    async fn purge(&self, ids: &[DeliveryId]) -> Result<u64, QueueError> {
        let mut purged = 0;
        for (shard, ids) in self.by_shard(ids) {
            purged += shard.purge(&ids).await?;
        }
        Ok(purged)
    }

    async fn audit(&self) -> Result<Vec<String>, QueueError> {
        Ok(self.all(async |shard| Ok(Self::labelled(&shard, shard.audit().await?))).await?.concat())
    }

    async fn repair(&self) -> Result<Vec<String>, QueueError> {
        let mut done = Vec::new();
        // One after the other: each keeps its server busy.
        for shard in &self.shards {
            done.extend(Self::labelled(shard, shard.repair().await?));
        }
        Ok(done)
    }
}
