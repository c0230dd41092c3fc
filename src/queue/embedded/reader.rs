//! The thread that answers the operator's questions, each from one snapshot, while work goes on.

use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::fault::{self, Health};
use crate::clock::{Clock, Timestamp};
use crate::queue::contract::{QueueError, QueueSettings};

/// Questions that may wait; further ones wait for a place.
const WAITING: usize = 64;

/// What a question is answered from.
pub(super) struct Snapshot<'a> {
    pub(super) connection: &'a Connection,
    pub(super) settings: &'a QueueSettings,
    pub(super) now: Timestamp,
}

type Question = Box<dyn FnOnce(Result<&Snapshot<'_>, QueueError>) + Send>;

/// The way to the thread. Dropping it ends the thread.
pub(super) struct Desk {
    sender: Option<mpsc::Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's own.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) settings: QueueSettings,
    pub(super) clock: Clock,
    pub(super) health: Arc<Health>,
}

impl Reader {
    /// Starts the thread.
    pub(super) fn start(self) -> std::io::Result<Desk> {
        let (sender, inbox) = mpsc::channel(WAITING);
        let thread =
            std::thread::Builder::new().name("queue-reader".to_owned()).spawn(move || self.work(inbox))?;
        Ok(Desk { sender: Some(sender), thread: Some(thread) })
    }

    fn work(mut self, mut inbox: mpsc::Receiver<Question>) {
        while let Some(question) = inbox.blocking_recv() {
            if let Err(error) = self.health.check() {
                question(Err(error));
                continue;
            }
            match self.connection.transaction_with_behavior(TransactionBehavior::Deferred) {
                Ok(transaction) => question(Ok(&Snapshot {
                    connection: &transaction,
                    settings: &self.settings,
                    now: self.clock.now(),
                })),
                Err(error) => question(Err(fault::queue_error(&error))),
            }
        }
    }
}

impl Desk {
    /// Has a question answered.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |snapshot| {
            let answer =
                snapshot.and_then(|snapshot| question(snapshot).map_err(|error| fault::queue_error(&error)));
            // Nobody listens any more when the asker gave up.
            let _ = reply.send(answer);
        });
        let stopped = || QueueError::Unavailable("its reader has stopped".to_owned());
        let sender = self.sender.as_ref().expect("taken only when the desk is dropped");
        sender.send(question).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded queue's reader ended by a panic");
        }
    }
}
