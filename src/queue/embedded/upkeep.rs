//! How a service looks after its file: that it is still there and whole, that its log does not keep
//! what is gone, and that a full disk stops what fills the queue before what drains it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::fault::{self, Health};
use super::file::{self, Identity};
use crate::clock::Timestamp;

/// How often the log is folded into the database and emptied at the latest, so that the texts of
/// finished messages do not linger there.
const FOLD_EVERY: Duration = Duration::from_secs(10);

/// How often a reserve that was given up is tried for again.
const RESERVE_EVERY: Duration = Duration::from_secs(10);

/// The size of the reserve: about that of a log before it is folded.
const RESERVE: usize = 4 * 1024 * 1024;

/// What a service does beside the work.
pub(super) struct Upkeep {
    identity: Identity,
    reserve: Reserve,
    /// When the log was last emptied, and at which count of changed rows.
    folded: Option<(Timestamp, u64)>,
}

impl Upkeep {
    /// Begins it for a file that was just opened.
    pub(super) fn begin(identity: Identity) -> Self {
        let reserve = Reserve::set_aside(identity.beside(".reserve"));
        Self { identity, reserve, folded: None }
    }

    /// Between two transactions: the file's identity, its log, the reserve.
    pub(super) fn look_after(&mut self, connection: &Connection, health: &Health, now: Timestamp) {
        if let Err(error) = self.identity.check() {
            health.fail(error);
            return;
        }
        self.reserve.set_aside_again(now);
        let changes = connection.total_changes();
        let due =
            self.folded.is_none_or(|(at, seen)| seen != changes && (now.since(at) >= FOLD_EVERY || now < at));
        // Without a reserve the log's space on the disk is what is left to work with.
        if !due || self.is_out_of_space() {
            return;
        }
        // A reader that is in the middle of the log is not waited for: there is a next time.
        let emptied = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| fold(connection, "TRUNCATE"))
            .and_then(|done| connection.busy_timeout(file::BUSY_TIMEOUT).map(|()| done));
        match emptied {
            Ok(true) => self.folded = Some((now, changes)),
            Ok(false) => {}
            Err(error) => {
                let _ = connection.busy_timeout(file::BUSY_TIMEOUT);
                not_folded(&error, health);
            }
        }
    }

    /// After the disk was found full: gives the reserve to what drains the queue.
    pub(super) fn give_up_reserve(&mut self, now: Timestamp) {
        self.reserve.give_up(now);
    }

    /// Whether the disk is so full that nothing new is to be taken.
    pub(super) fn is_out_of_space(&self) -> bool {
        matches!(self.reserve.state, ReserveState::GivenUp(_))
    }
}

/// Folds the log into the database; whether it could be done as a whole. After that the log is written
/// from its start again.
fn fold(connection: &Connection, how: &str) -> rusqlite::Result<bool> {
    let sql = format!("PRAGMA wal_checkpoint({how})");
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}

/// Folds what can be folded without waiting, so that the log need not grow.
pub(super) fn fold_what_can_be(connection: &Connection, health: &Health) {
    if let Err(error) = fold(connection, "PASSIVE") {
        not_folded(&error, health);
    }
}

fn not_folded(error: &rusqlite::Error, health: &Health) {
    let meaning = fault::queue_error(error);
    if fault::is_final(error) {
        health.fail(meaning);
    } else {
        tracing::warn!(error = %meaning, "the queue's log cannot be folded into its file");
    }
}

/// A file of no content beside the database, whose space is given up when the disk is full. What was
/// accepted can then still be delivered; without it, not even a lease could be written down.
struct Reserve {
    path: PathBuf,
    state: ReserveState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReserveState {
    Kept,
    /// Nothing new is taken until it is back. Since when, or since when it was last tried for.
    GivenUp(Timestamp),
    /// The disk never had the space: there is nothing to wait for.
    Never,
}

impl Reserve {
    fn set_aside(path: PathBuf) -> Self {
        let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE as u64);
        let state = match if is_there { Ok(()) } else { fill(&path, RESERVE) } {
            Ok(()) => ReserveState::Kept,
            Err(error) => {
                tracing::warn!(%error, "no space can be kept in reserve for the queue");
                ReserveState::Never
            }
        };
        Self { path, state }
    }

    fn give_up(&mut self, now: Timestamp) {
        if self.state != ReserveState::Kept {
            return;
        }
        tracing::error!("the disk is full: nothing new is accepted, what was accepted goes on");
        self.state = ReserveState::GivenUp(now);
        // If it cannot be removed there is nothing to gain, and nothing to lose.
        let _ = fs::remove_file(&self.path);
    }

    /// Tries again after a while, and for more: what comes in next needs space as well.
    fn set_aside_again(&mut self, now: Timestamp) {
        let ReserveState::GivenUp(at) = self.state else { return };
        if now >= at && now.since(at) < RESERVE_EVERY {
            return;
        }
        let again = fill(&self.path, RESERVE + RESERVE / 4)
            .and_then(|()| OpenOptions::new().write(true).open(&self.path)?.set_len(RESERVE as u64));
        self.state = match again {
            Ok(()) => {
                tracing::info!("the disk has space again: new messages are accepted");
                ReserveState::Kept
            }
            Err(_) => ReserveState::GivenUp(now),
        };
    }
}

/// Makes a file of `size` bytes that take up space. On failure it leaves none.
fn fill(path: &PathBuf, size: usize) -> std::io::Result<()> {
    let write = || {
        let options = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).to_owned();
        let mut file = options.open(path)?;
        let block = [0_u8; 64 * 1024];
        for _ in 0..size / block.len() {
            file.write_all(&block)?;
        }
        Ok(())
    };
    write().inspect_err(|_| drop(fs::remove_file(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_up_space_until_it_is_given_up_and_comes_back_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        let at = Timestamp::from_millis(1_767_225_600_000);
        let size = || fs::metadata(&path).map(|found| found.len()).unwrap_or(0);
        let mut reserve = Reserve::set_aside(path.clone());
        assert_eq!((size(), reserve.state), (RESERVE as u64, ReserveState::Kept));
        reserve.give_up(at);
        assert_eq!(size(), 0);
        reserve.set_aside_again(at.plus(RESERVE_EVERY / 2));
        assert_eq!(size(), 0);
        reserve.set_aside_again(at.plus(RESERVE_EVERY));
        assert_eq!((size(), reserve.state), (RESERVE as u64, ReserveState::Kept));
    }

    #[test]
    fn a_disk_that_never_had_the_space_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::set_aside(folder.path().join("missing/reserve"));
        reserve.give_up(Timestamp::from_millis(0));
        assert_eq!(reserve.state, ReserveState::Never);
    }
}
