//! Dead letters: how many are kept, and how they go back or away.

use std::time::Duration;

use rusqlite::{Row, params};

use super::piece::{Place, text};
use super::statements::{self, at_most};
use super::writer::Step;
use crate::clock::Timestamp;
use crate::delivery::{DeadCause, DeliveryId};
use crate::queue::contract::Requeued;

/// A letter as it is dropped.
struct Letter {
    seq: i64,
    index: i64,
    /// `None` when nobody knows the word in its row.
    cause: Option<DeadCause>,
}

impl Letter {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let cause = text(row, 2)?.and_then(|word| DeadCause::parse(&word));
        Ok(Self { seq: row.get(0)?, index: row.get(1)?, cause })
    }
}

impl Step<'_> {
    /// From when on letters are too old to be kept: those that died then or before.
    pub(super) fn too_old(&self) -> Timestamp {
        self.now.minus(self.settings.retention)
    }

    /// Drops the oldest letters of `cause` beyond the number kept, at most `limit` of them.
    pub(super) fn make_room_for_letters(&mut self, cause: DeadCause, limit: usize) -> rusqlite::Result<bool> {
        let cap = i64::try_from(self.settings.dead_letter_cap).unwrap_or(i64::MAX);
        for _ in 0..limit {
            if *self.books.letters(cause) <= cap {
                return Ok(false);
            }
            match self.row(statements::OLDEST_LETTER, params![cause.as_str()], Letter::read)? {
                Some(letter) => self.drop_letter(&letter)?,
                None => return Ok(false),
            }
        }
        Ok(*self.books.letters(cause) > cap)
    }

    /// Drops letters that are too old, at most `limit`. Returns whether that was the limit.
    pub(super) fn drop_old_letters(&mut self, limit: usize) -> rusqlite::Result<bool> {
        let until = self.too_old().as_millis();
        let old = self.rows(statements::OLD_LETTERS, params![until, at_most(limit)], Letter::read)?;
        for letter in &old {
            self.drop_letter(letter)?;
        }
        Ok(old.len() == limit)
    }

    fn drop_letter(&mut self, letter: &Letter) -> rusqlite::Result<()> {
        self.run(statements::DROP_LETTER, params![letter.seq, letter.index])?;
        self.run(statements::LETTER_DROPPED, params![letter.seq])?;
        if let Some(cause) = letter.cause {
            *self.books.letters(cause) -= 1;
        }
        Ok(())
    }
}

/// A letter as an operator names it.
struct Named {
    seq: i64,
    index: i64,
    lane: String,
    place: Place,
    cause: Option<DeadCause>,
    died_at: Timestamp,
    message_pending: i64,
    /// Whether its text and recipient are still there.
    complete: bool,
}

fn named(step: &Step<'_>, id: &DeliveryId) -> rusqlite::Result<Option<Named>> {
    let found = step.row(statements::LETTER, params![id.message.as_str(), id.index], |row| {
        Ok(Named {
            seq: row.get(0)?,
            index: row.get(1)?,
            lane: text(row, 2)?.unwrap_or_default(),
            place: Place::read(&text(row, 3)?.unwrap_or_default()),
            cause: text(row, 4)?.and_then(|word| DeadCause::parse(&word)),
            died_at: Timestamp::from_millis(row.get(5)?),
            message_pending: row.get(6)?,
            complete: row.get(7)?,
        })
    })?;
    Ok(found.filter(|letter| !letter.place.is_pending() && letter.died_at > step.too_old()))
}

/// Sends letters back as if new.
pub(super) fn requeue(
    step: &mut Step<'_>,
    ids: &[DeliveryId],
    deadline: Duration,
) -> rusqlite::Result<Requeued> {
    let mut result = Requeued::default();
    for id in ids {
        let Some(letter) = named(step, id)? else {
            result.unknown += 1;
            continue;
        };
        if !letter.complete {
            result.skipped += 1;
            continue;
        }
        let turn = step.books.next_turn();
        let now = step.now.as_millis();
        let deadline = step.now.plus(deadline).as_millis();
        step.run(statements::REVIVE, params![letter.seq, letter.index, deadline, turn, now])?;
        step.run(statements::LANE, params![letter.lane])?;
        step.row(statements::PIECE_REVIVED, params![letter.seq], |_| Ok(()))?;
        if letter.message_pending == 0 {
            step.books.open += 1;
        }
        match letter.place {
            Place::Expired => step.books.expired -= 1,
            _ => step.books.dead -= 1,
        }
        if let Some(cause) = letter.cause {
            *step.books.letters(cause) -= 1;
        }
        step.ring(&letter.lane);
        result.requeued += 1;
    }
    Ok(result)
}

/// Forgets letters; returns how many there were.
pub(super) fn purge(step: &mut Step<'_>, ids: &[DeliveryId]) -> rusqlite::Result<u64> {
    let mut purged = 0;
    for id in ids {
        if let Some(letter) = named(step, id)? {
            step.drop_letter(&Letter { seq: letter.seq, index: letter.index, cause: letter.cause })?;
            purged += 1;
        }
    }
    Ok(purged)
}
