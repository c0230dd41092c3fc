//! Records settlements in batches, and keeps them until the store has them.
//!
//! Whoever settles waits for its answer and keeps its slot meanwhile, so what is unrecorded is bounded
//! by what may be in flight. While one batch is at the store the next one gathers; as long as other work is
//! in hand that may end any moment, it does so for a little longer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::held::Held;
use super::patience::Patience;
use crate::queue::contract::{MAX_BATCH, Owner, Queue, Settle, Settled};

/// How long a batch waits for what else may be about to end. Nobody waits for it: what it records has arrived.
const GATHER: Duration = Duration::from_millis(1);

/// A batch of this many does not wait for more.
const ENOUGH: usize = 64;

type Entry = (Settle, oneshot::Sender<Settled>);

/// Hands settlements to the recording tasks.
#[derive(Clone)]
pub(super) struct Recorder {
    queue: Arc<dyn Queue>,
    /// For each part of the store: one that is away keeps nothing back that belongs to another.
    entries: Vec<mpsc::Sender<Entry>>,
}

impl Recorder {
    /// Starts the recording; it ends when every `Recorder` is dropped, or gives up at `abandon`.
    pub(super) fn start(
        queue: Arc<dyn Queue>,
        owner: Owner,
        held: Arc<Held>,
        abandon: CancellationToken,
    ) -> (Self, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let start_one = |_| {
            let (entries, waiting) = mpsc::channel(MAX_BATCH);
            tasks.spawn(record(
                Arc::clone(&queue),
                owner.clone(),
                Arc::clone(&held),
                waiting,
                abandon.clone(),
            ));
            entries
        };
        let entries = (0..queue.parts()).map(start_one).collect();
        (Self { queue, entries }, tasks)
    }

    /// Records one settlement; returns once the store has it. `None`: given up at the end of the drain.
    pub(super) async fn settle(&self, settle: Settle) -> Option<Settled> {
        let (answer, settled) = oneshot::channel();
        let part = self.queue.part_of(&settle.lease.key().work.message);
        self.entries[part].send((settle, answer)).await.ok()?;
        settled.await.ok()
    }
}

/// Waits a little for more, unless nothing else is in hand.
async fn gather(gathered: &mut Vec<Entry>, waiting: &mut mpsc::Receiver<Entry>, held: &Held) {
    let until = Instant::now() + GATHER;
    while gathered.len() < ENOUGH.min(held.count()) {
        let more = waiting.recv_many(gathered, MAX_BATCH - gathered.len());
        if !timeout_at(until, more).await.is_ok_and(|came| came > 0) {
            break;
        }
    }
}

async fn record(
    queue: Arc<dyn Queue>,
    owner: Owner,
    held: Arc<Held>,
    mut waiting: mpsc::Receiver<Entry>,
    abandon: CancellationToken,
) {
    let mut patience = Patience::new();
    let mut gathered: Vec<Entry> = Vec::with_capacity(MAX_BATCH);
    while waiting.recv_many(&mut gathered, MAX_BATCH).await > 0 {
        gather(&mut gathered, &mut waiting, &held).await;
        let (mut batch, answers): (Vec<Settle>, Vec<_>) = gathered.drain(..).unzip();
        loop {
            match queue.settle(&owner, batch).await {
                Ok(settled) => {
                    patience.reset();
                    for (answer, settled) in answers.into_iter().zip(settled) {
                        // The asker may have been aborted; the record stands.
                        let _ = answer.send(settled);
                    }
                    break;
                }
                Err(unrecorded) => {
                    batch = unrecorded.batch;
                    patience.after("recording outcomes", &unrecorded.error, &abandon).await;
                    if abandon.is_cancelled() {
                        tracing::warn!(
                            outcomes = batch.len(),
                            "given up recording: others will repeat this work when its leases run out"
                        );
                        return;
                    }
                }
            }
        }
    }
}
