//! When what was just stored is safe: asked after the script that stored it, on the same connection,
//! before anybody is told that it was.
//!
//! A proof speaks of everything that was written before it was asked for, by whoever. So a repeat, which
//! finds a duplicate and counts it, waits for the first one's safety as well: a message whose proof fell
//! short is not called safe by being there.
//!
//! Why `process` needs a proof at all: with `appendfsync everysec` the server puts off writing while the
//! last `fsync` has not come back, for up to two seconds, and answers all the same. A kill at that moment
//! loses what was answered, although the disk lost nothing (Redis 7 and 8, `flushAppendOnlyFile`).

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::prepare::About;
use super::reply::{list, read, text};
use super::settings::Durability;
use crate::queue::contract::QueueError;

/// The longest a proof may take. With the script before it an answer still comes in time for whoever
/// called us.
const LONGEST: Duration = Duration::from_secs(1);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// How a server comes to have something on its disk before it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// It writes and syncs before every answer (`appendfsync always`).
    BeforeItAnswers,
    /// It can be waited for (`WAITAOF`, from 7.2 on).
    WhenAsked,
}

/// What has to be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) disk: Option<Disk>,
    pub(super) replica: bool,
}

/// Why there is none.
pub(super) enum NoProof {
    /// The server answered, and it was not enough.
    FellShort(QueueError),
    /// It did not answer as it should.
    Failed(RedisError),
}

impl From<RedisError> for NoProof {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

impl From<QueueError> for NoProof {
    fn from(error: QueueError) -> Self {
        Self::FellShort(error)
    }
}

impl Proof {
    /// What a level of durability takes on a server whose disk is reached like this.
    pub(super) fn of(durability: Durability, disk: Disk) -> Self {
        Self { disk: durability.needs_disk().then_some(disk), replica: durability.needs_replica() }
    }

    /// Waits for it. The message was stored, whatever comes of this.
    pub(super) async fn await_on(self, connection: &mut MultiplexedConnection) -> Result<(), NoProof> {
        if self.replica {
            let mut wait = redis::cmd("WAIT");
            wait.arg(1).arg(LONGEST.as_millis() as u64);
            let replicas: i64 = read(wait.query_async(connection).await?)?;
            if replicas < 1 {
                return Err(short("no replica has it yet"));
            }
        }
        match self.disk {
            Some(Disk::BeforeItAnswers) => Ok(()),
            Some(Disk::WhenAsked) => {
                let mut wait = redis::cmd("WAITAOF");
                wait.arg(1).arg(0).arg(LONGEST.as_millis() as u64);
                let answer = list(wait.query_async(connection).await?)?;
                let local: i64 = answer.into_iter().next().map_or(Ok(0), read)?;
                if local < 1 { Err(short("it is not on the server's disk yet")) } else { Ok(()) }
            }
            None => written(connection).await,
        }
    }
}

/// Waits until the server has handed to its kernel what it has stored so far.
async fn written(connection: &mut MultiplexedConnection) -> Result<(), NoProof> {
    let end = Instant::now() + LONGEST;
    let mut ahead = None;
    loop {
        let answer: Value = redis::cmd("INFO").arg("persistence").query_async(connection).await?;
        ahead = match Ahead::next(ahead, &About::read(&text(answer)?)) {
            Some(ahead) => Some(ahead),
            None => return Ok(()),
        };
        if Instant::now() >= end {
            return Err(short("the server has not written it yet"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn short(why: &str) -> NoProof {
    NoProof::FellShort(QueueError::Unavailable(why.to_owned()))
}

/// How long the append-only file must become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ahead {
    length: u64,
    /// The file it began with; a rewrite begins another, whose length says nothing about this one.
    base: u64,
}

impl Ahead {
    /// What is still to be waited for, `None` when all is written, or there is no such file.
    fn next(before: Option<Self>, about: &About) -> Option<Self> {
        let number = |name: &str| about.says(name).parse::<u64>().unwrap_or(0);
        let unwritten = number("aof_buffer_length");
        if about.says("aof_enabled") != "1" || unwritten == 0 {
            return None;
        }
        let (length, base) = (number("aof_current_size"), number("aof_base_size"));
        match before.filter(|before| before.base == base) {
            Some(before) if length >= before.length => None,
            Some(before) => Some(before),
            None => Some(Self { length: length + unwritten, base }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(before: Option<Ahead>, size: u64, base: u64, unwritten: u64) -> Option<Ahead> {
        let info = format!(
            "aof_enabled:1\r\naof_current_size:{size}\r\naof_base_size:{base}\r\naof_buffer_length:{unwritten}\r\n"
        );
        Ahead::next(before, &About::read(&info))
    }

    #[test]
    fn what_was_unwritten_at_the_first_look_has_to_be_written_and_no_more() {
        assert_eq!(look(None, 100, 10, 0), None);
        let ahead = look(None, 100, 10, 50);
        assert_eq!(ahead, Some(Ahead { length: 150, base: 10 }));
        // Others go on storing.
        assert_eq!(look(ahead, 100, 10, 900), ahead);
        assert_eq!(look(ahead, 149, 10, 900), ahead);
        assert_eq!(look(ahead, 150, 10, 900), None);
        assert_eq!(look(ahead, 100, 10, 0), None);
    }

    #[test]
    fn a_rewritten_file_is_measured_anew() {
        let ahead = look(None, 100, 10, 50);
        let anew = look(ahead, 30, 20, 5);
        assert_eq!(anew, Some(Ahead { length: 35, base: 20 }));
        assert_eq!(look(anew, 35, 20, 7), None);
    }

    #[test]
    fn a_server_without_such_a_file_has_nothing_to_prove() {
        assert_eq!(Ahead::next(None, &About::read("aof_enabled:0\r\naof_buffer_length:9\r\n")), None);
        assert_eq!(Ahead::next(None, &About::read("")), None);
    }
}
