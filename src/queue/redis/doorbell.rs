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

use super::fault::{Blame, blame, describe, queue_error};
use super::link::{Refusal, Source, lock};
use crate::queue::contract::QueueError;

/// The longest one read blocks: a server that moves away is noticed after that.
const BLOCK: Duration = Duration::from_secs(1);

/// How long an answer may take beyond that; a server may block a little longer than it was asked to.
const SLACK: Duration = Duration::from_secs(2);

/// All waits of a queue.
pub(super) struct Doorbells {
    source: Arc<Source>,
    /// One connection for each stream nobody waits at just now, with the losses before it was made.
    idle: Mutex<HashMap<String, (MultiplexedConnection, u64)>>,
}

impl Doorbells {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, idle: Mutex::default() }
    }

    /// Listens at streams of this server, each from a mark, for a second or `max` if that is less; whether one
    /// of them has an entry after its mark.
    pub(super) async fn listen(
        &self,
        streams: &[String],
        marks: &[String],
        max: Duration,
    ) -> Result<bool, QueueError> {
        let (Some(name), Ok(block @ 1..)) = (streams.first(), u64::try_from(max.min(BLOCK).as_millis()))
        else {
            return Ok(false);
        };
        let losses = self.source.losses();
        let kept = lock(&self.idle).remove(name).filter(|(_, made_at)| *made_at == losses);
        let mut connection = match kept {
            Some((connection, _)) => connection,
            None => self.connect().await.map_err(|refusal| refusal.error)?,
        };
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(block).arg("STREAMS").arg(streams).arg(marks);
        match read.query_async::<Value>(&mut connection).await {
            Ok(answer) => {
                self.source.note_answer();
                lock(&self.idle).insert(name.clone(), (connection, losses));
                Ok(answer != Value::Nil)
            }
            Err(error) => {
                match blame(&error) {
                    Blame::None => drop(lock(&self.idle).insert(name.clone(), (connection, losses))),
                    // Only the first who notices.
                    _ if self.source.losses() != losses => {}
                    _ if error.code() == Some("MOVED") => self.source.note_move(),
                    _ => self.source.note_loss(&describe(&error)),
                }
                Err(queue_error(&error))
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Refusal> {
        let mut fresh = self.source.turn().await?.connect().await?;
        fresh.set_response_timeout(BLOCK + SLACK);
        Ok(fresh)
    }
}
