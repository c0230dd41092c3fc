//! What every worker does for all: takes over from the vanished, ends what is overdue.
//!
//! No leader: each process asks about once a second, at times of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::deliver::ChannelLane;
use super::fanout::Fanout;
use super::patience::Patience;
use super::run::Shared;
use crate::queue::contract::{Cursor, Lane, QueueError, Swept, Work};

/// The most one sweep takes over.
const SWEEP_BATCH: usize = 32;

/// When to look again: about once a second, and for the first time soon after the start, so that workers
/// that never live long take over from each other all the same.
#[derive(Default)]
struct Rounds {
    begun: bool,
}

impl Rounds {
    /// Waits for the next round; `false` at the shutdown.
    async fn next(&mut self, shared: &Shared) -> bool {
        let pause = if self.begun { 500..1500 } else { 0..250 };
        self.begun = true;
        let pause = tokio::time::sleep(Duration::from_millis(fastrand::u64(pause)));
        shared.shutdown.run_until_cancelled(pause).await.is_some()
    }
}

/// Takes over deliveries of one lane, as many as there are free slots.
pub(super) async fn sweep_deliveries(shared: Arc<Shared>, lane: Arc<ChannelLane>) {
    let mut cursor = Cursor::default();
    let mut patience = Patience::new();
    let mut rounds = Rounds::default();
    while rounds.next(&shared).await {
        loop {
            let slots = lane.slots().take_free(SWEEP_BATCH);
            if slots.is_empty() {
                break;
            }
            let asked = Instant::now();
            let swept = shared.queue.sweep(&shared.owner, lane.lane(), slots.len(), cursor.clone()).await;
            let Some((items, swept)) = note(&shared, swept, &mut cursor, &mut patience).await else { break };
            lane.start(items, slots, swept.now, asked).await;
            if swept.finished {
                break;
            }
        }
    }
}

/// Takes over routings.
pub(super) async fn sweep_routings(shared: Arc<Shared>, fanout: Arc<Fanout>) {
    let lane = Lane::inbound();
    let mut cursor = Cursor::default();
    let mut patience = Patience::new();
    let mut rounds = Rounds::default();
    while rounds.next(&shared).await {
        loop {
            let asked = Instant::now();
            let swept = shared.queue.sweep(&shared.owner, &lane, SWEEP_BATCH, cursor.clone()).await;
            let Some((items, swept)) = note(&shared, swept, &mut cursor, &mut patience).await else { break };
            fanout.route(items, swept.now, asked).await;
            if swept.finished {
                break;
            }
        }
    }
}

struct SweptRound {
    now: crate::clock::Timestamp,
    /// The cursor came round, so this round has seen everything.
    finished: bool,
}

async fn note(
    shared: &Shared,
    swept: Result<Swept, QueueError>,
    cursor: &mut Cursor,
    patience: &mut Patience,
) -> Option<(Vec<Work>, SweptRound)> {
    match swept {
        Ok(swept) => {
            patience.reset();
            shared.note_buried(&swept.buried);
            shared.note_recreated(swept.recreated);
            shared.metrics.leases_reclaimed.inc_by((swept.items.len() + swept.buried.len()) as u64);
            let finished = swept.cursor == Cursor::default();
            *cursor = swept.cursor;
            Some((swept.items, SweptRound { now: swept.now, finished }))
        }
        Err(error) => {
            patience.after("looking for work of vanished workers", &error, &shared.shutdown).await;
            None
        }
    }
}

/// Ends overdue work, drops old letters, forgets dead owners.
pub(super) async fn housekeep(shared: Arc<Shared>) {
    let mut patience = Patience::new();
    let mut rounds = Rounds::default();
    while rounds.next(&shared).await {
        loop {
            match shared.queue.housekeep().await {
                Ok(kept) => {
                    patience.reset();
                    shared.note_buried(&kept.expired);
                    if !kept.more || shared.shutdown.is_cancelled() {
                        break;
                    }
                }
                Err(error) => {
                    patience.after("housekeeping", &error, &shared.shutdown).await;
                    break;
                }
            }
        }
    }
}
