//! The way into the store: many requests share one call.
//!
//! While one batch is being stored the next one gathers, so there is no timer, no waiting when idle, and
//! under load one round trip and one sync for up to [`MAX_BATCH`] messages.

use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::message::InboundMessage;
use crate::queue::contract::{Acceptance, MAX_BATCH, NewMessage, Queue, QueueError};
use crate::source::verified::Verified;

/// Messages that may wait for a part of the store beside the batch that is being stored.
const WAITING: usize = 4096;

/// The pause after a store that is away, doubling from the first to the second: short beside what a
/// failover takes, long beside what a refused call costs.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

type Answer = Result<Acceptance, QueueError>;

/// A message, and who waits for it to be stored.
type Waiting = (NewMessage, Asker);

struct Asker {
    /// From then on nobody waits.
    until: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Stores verified messages, whatever door they came by. Dropping it ends its tasks when all that wait are served.
pub struct Intake {
    queue: Arc<dyn Queue>,
    /// For each part of the store: one that is away keeps nobody waiting who goes to another.
    waiting: Vec<mpsc::Sender<Waiting>>,
    patience: Duration,
}

impl Intake {
    /// One that stores in `queue` and lets nobody wait longer than `patience`. Starts a task for each of its parts.
    pub fn start(queue: Arc<dyn Queue>, patience: Duration) -> Self {
        let start_one = |_| {
            let (sender, waiting) = mpsc::channel(WAITING);
            tokio::spawn(commit(Arc::clone(&queue), waiting));
            sender
        };
        let waiting = (0..queue.parts()).map(start_one).collect();
        Self { queue, waiting, patience }
    }

    /// Stores `message`, which lives for `deadline`, and says what became of it.
    ///
    /// A store that is away is tried again for as long as the patience lasts; every other error is final.
    /// After an error the message may be stored all the same: a repeat then is a duplicate.
    pub async fn take(&self, message: &Verified<InboundMessage>, deadline: Duration) -> Answer {
        let message = message.get();
        let message = NewMessage {
            id: message.id.clone(),
            payload: message.to_payload(),
            deadline,
            age: Duration::ZERO,
        };
        let until = Instant::now() + self.patience;
        let (asker, answer) = oneshot::channel();
        let stored = async {
            let gone = || broken("the intake has ended");
            let part = &self.waiting[self.queue.part_of(&message.id)];
            part.send((message, Asker { until, answer: asker })).await.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        };
        timeout_at(until, stored).await.unwrap_or_else(|_| Err(broken("no answer in time")))
    }

    /// Messages that wait while a batch of others is being stored.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(|part| part.max_capacity() - part.capacity()).sum()
    }
}

/// Stores what waits, batch by batch, until nobody can ask any more.
async fn commit(queue: Arc<dyn Queue>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch: Vec<Waiting> = Vec::with_capacity(MAX_BATCH);
    let mut pause = FIRST_PAUSE;
    loop {
        // With some left over from a store that was away, whoever came meanwhile is taken along; with
        // none, this waits for somebody.
        if batch.is_empty() && waiting.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        while batch.len() < MAX_BATCH
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        // What was refused already is not stored behind its sender's back, before those who still wait.
        let now = Instant::now();
        let (messages, askers): (Vec<_>, Vec<_>) =
            batch.drain(..).filter(|(_, asker)| asker.until > now).unzip();
        if messages.is_empty() {
            continue;
        }
        // A call that outlasts everybody's patience is given up, or it would keep out all who come after.
        let last = askers.iter().map(|asker| asker.until).max().unwrap_or(now);
        let accepted = timeout_at(last, accept(&*queue, &messages)).await;
        match accepted.unwrap_or_else(|_| Err(broken("no answer in time"))) {
            Ok(answers) => {
                pause = FIRST_PAUSE;
                tell(askers, answers.into_iter().map(Ok));
            }
            Err(QueueError::Unavailable(_)) => {
                batch = messages.into_iter().zip(askers).collect();
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => tell(askers, iter::repeat(Err(error))),
        }
    }
}

/// Whoever no longer waits is not told; the message is stored all the same.
fn tell(askers: Vec<Asker>, answers: impl Iterator<Item = Answer>) {
    for (asker, answer) in askers.into_iter().zip(answers) {
        let _ = asker.answer.send(answer);
    }
}

/// One call to the store. A store that panics or miscounts must not take the ingress with it.
async fn accept(queue: &dyn Queue, messages: &[NewMessage]) -> Result<Vec<Acceptance>, QueueError> {
    let answers = AssertUnwindSafe(queue.accept(messages)).catch_unwind().await;
    let answers = answers.map_err(|_| broken("the call to the store panicked"))??;
    if answers.len() == messages.len() { Ok(answers) } else { Err(broken("the store miscounted")) }
}

fn broken(why: &str) -> QueueError {
    QueueError::Unavailable(why.to_owned())
}
