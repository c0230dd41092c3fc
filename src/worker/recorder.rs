//! Records settlements in batches, and keeps them until the store has them.
//!
//! Whoever settles waits for its answer and keeps its slot meanwhile, so what is unrecorded is bounded
//! by what may be in flight. While one batch is at the store the next one gathers; as long as other work is
//! in hand that may end any moment, it does so for a little longer. What arrived of one message costs the store
//! less together: it waits for its mates, the message's other deliveries that are in hand here, but not for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// How long an outcome waits for its mates.
const MATES: Duration = Duration::from_millis(10);

/// A delivery among others of its message that are in hand here, until its outcome reaches the recorder, or there is
/// none.
pub(super) struct Mate(Arc<AtomicUsize>);

impl Mate {
    /// As many as the message has deliveries in hand.
    pub(super) fn several(count: usize) -> impl Iterator<Item = Self> {
        let outstanding = Arc::new(AtomicUsize::new(count));
        (0..count).map(move |_| Self(Arc::clone(&outstanding)))
    }

    /// How many of them are outstanding, this one no longer.
    fn come(self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}

impl Drop for Mate {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Entry {
    settle: Settle,
    answer: oneshot::Sender<Settled>,
    /// Its mates that are still outstanding.
    outstanding: Option<Arc<AtomicUsize>>,
    since: Instant,
}

impl Entry {
    fn waits_for_mates(&self) -> bool {
        let outstanding = self.outstanding.as_ref().is_some_and(|mates| mates.load(Ordering::Relaxed) > 0);
        outstanding && self.since.elapsed() < MATES
    }
}

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
    pub(super) async fn settle(&self, settle: Settle, mate: Option<Mate>) -> Option<Settled> {
        let (answer, settled) = oneshot::channel();
        let part = self.queue.part_of(&settle.lease.key().work.message);
        let (outstanding, since) = (mate.map(Mate::come), Instant::now());
        self.entries[part].send(Entry { settle, answer, outstanding, since }).await.ok()?;
        settled.await.ok()
    }
}

/// Waits for an entry, or until the first of those that wait for their mates has waited long enough. `false`: there
/// is none, and no more come.
async fn next(gathered: &mut Vec<Entry>, waiting: &mut mpsc::Receiver<Entry>) -> bool {
    let room = MAX_BATCH.saturating_sub(gathered.len()).max(1);
    let Some(until) = gathered.iter().map(|entry| entry.since + MATES).min() else {
        return waiting.recv_many(gathered, room).await > 0;
    };
    let more = timeout_at(until, waiting.recv_many(gathered, room)).await;
    if more.is_ok_and(|came| came == 0) {
        tokio::time::sleep_until(until).await;
    }
    true
}

/// Waits a little for more, unless nothing else is in hand.
async fn gather(gathered: &mut Vec<Entry>, waiting: &mut mpsc::Receiver<Entry>, held: &Held) {
    let until = Instant::now() + GATHER;
    let ready = |gathered: &[Entry]| gathered.iter().filter(|entry| !entry.waits_for_mates()).count();
    while gathered.len() < MAX_BATCH.min(held.count()) && ready(gathered) < ENOUGH {
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
    while next(&mut gathered, &mut waiting).await {
        gather(&mut gathered, &mut waiting, &held).await;
        let ready = gathered.extract_if(.., |entry| !entry.waits_for_mates()).take(MAX_BATCH);
        let (mut batch, answers): (Vec<Settle>, Vec<_>) =
            ready.map(|entry| (entry.settle, entry.answer)).unzip();
        while !batch.is_empty() {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::delivery::{DeliveryId, Settlement};
    use crate::message::MessageId;
    use crate::queue::contract::{Lane, Lease, LeaseKey};

    fn entry(index: u16, mate: Option<Mate>) -> Entry {
        let work = DeliveryId { message: MessageId::of_source("test", "1").unwrap(), index };
        let lease = Lease::new(LeaseKey { lane: Lane::from_stored("sms"), work, entry: index.to_string() });
        let (answer, _) = oneshot::channel();
        let settle = Settle { lease, settlement: Settlement::Delivered };
        // However slow the test is, it has not waited long.
        let since = Instant::now() + Duration::from_secs(3600);
        Entry { settle, answer, outstanding: mate.map(Mate::come), since }
    }

    #[tokio::test]
    async fn an_outcome_waits_for_its_mates_but_not_for_long() {
        assert!(!entry(1, None).waits_for_mates());
        let mut mates = Mate::several(3);
        let first = entry(1, mates.next());
        assert!(first.waits_for_mates(), "two are outstanding");
        let second = entry(2, mates.next());
        let third = mates.next();
        assert!(first.waits_for_mates() && second.waits_for_mates());
        drop(third);
        assert!(!first.waits_for_mates() && !second.waits_for_mates(), "the last came to nothing");

        let mut mates = Mate::several(2);
        let (mut first, _outstanding) = (entry(1, mates.next()), mates.next());
        assert!(first.waits_for_mates());
        first.since = Instant::now() - MATES;
        assert!(!first.waits_for_mates());
    }

    #[tokio::test]
    async fn what_waits_for_its_mates_is_looked_at_again_in_time_and_after_the_last_entry() {
        let (send, mut waiting) = mpsc::channel(4);
        let mut mates = Mate::several(2);
        let mut gathered = vec![entry(1, mates.next())];
        let _outstanding = mates.next();
        assert!(next(&mut gathered, &mut waiting).now_or_never().is_none());
        send.send(entry(2, None)).await.unwrap();
        assert_eq!(next(&mut gathered, &mut waiting).now_or_never(), Some(true));
        assert_eq!(gathered.len(), 2);
        drop(send);
        gathered.iter_mut().for_each(|entry| entry.since = Instant::now());
        assert!(next(&mut gathered, &mut waiting).await);
        assert!(!gathered[0].waits_for_mates(), "the last entry was one, and it waited long enough");
        gathered.clear();
        assert!(!next(&mut gathered, &mut waiting).await);
    }
}
