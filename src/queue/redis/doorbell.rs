//! The doorbell: waiting for a lane's stream to grow, without taking anything from it.
//!
//! A read that blocks holds up everything else on its connection, and one that is given up goes on at
//! the server. So every wait has a connection for itself; one per lane is kept for the next, and a
//! wait that is dropped midway takes its connection with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::fault::{Blame, blame, describe, queue_error};
use super::link::{Patience, Source, lock};
use crate::queue::contract::QueueError;

/// The longest one read blocks: a server that moves away is noticed after that.
const BLOCK: Duration = Duration::from_secs(1);

/// How long an answer may take beyond that; a server may block a little longer than it was asked to.
const SLACK: Duration = Duration::from_secs(2);

/// All waits of a queue.
pub(super) struct Doorbells {
    source: Arc<Source>,
    patience: Mutex<Patience>,
    /// One connection for each stream nobody waits at just now.
    idle: Mutex<HashMap<String, MultiplexedConnection>>,
}

impl Doorbells {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, patience: Mutex::default(), idle: Mutex::default() }
    }

    /// Returns when `stream` has an entry after `mark`, or after `max`.
    pub(super) async fn wait(&self, stream: &str, mark: &str, max: Duration) -> Result<(), QueueError> {
        let end = Instant::now() + max;
        let kept = lock(&self.idle).remove(stream);
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let mut fresh = self.source.fresh(&self.patience).await?;
                fresh.set_response_timeout(BLOCK + SLACK);
                fresh
            }
        };
        let result = loop {
            let left = end.saturating_duration_since(Instant::now()).min(BLOCK);
            let Ok(block @ 1..) = u64::try_from(left.as_millis()) else { break Ok(()) };
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(1).arg("BLOCK").arg(block).arg("STREAMS").arg(stream).arg(mark);
            match read.query_async(&mut connection).await {
                Ok(Value::Nil) => self.answered(),
                Ok(_) => {
                    self.answered();
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                lock(&self.idle).insert(stream.to_owned(), connection);
                Ok(())
            }
            Err(error) => {
                if blame(&error) == Blame::None {
                    lock(&self.idle).insert(stream.to_owned(), connection);
                } else {
                    let reason = describe(&error);
                    lock(&self.patience).failed(&reason);
                    self.source.note_away(&reason);
                }
                Err(queue_error(&error))
            }
        }
    }

    fn answered(&self) {
        lock(&self.patience).reset();
        self.source.note_present();
    }
}
