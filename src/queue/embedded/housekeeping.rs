//! What has to be done without anybody asking for it: ends, forgetting, tidying.

use rusqlite::params;

use super::statements::{self, at_most};
use super::writer::Step;
use crate::delivery::DeadCause;
use crate::queue::contract::Housekept;

/// The most of each kind that one call does.
const BOUND: usize = 128;

/// Unused pages below which the file is not made smaller: they will be needed again.
const PAGES_KEPT: i64 = 1_024;

/// Pages given back to the file system by one call.
const PAGES_GIVEN_BACK: u32 = 256;

pub(super) fn housekeep(step: &mut Step<'_>) -> rusqlite::Result<Housekept> {
    let now = step.now.as_millis();
    let mut kept = Housekept::default();

    let overdue = step.pieces(statements::OVERDUE, params![now, at_most(BOUND)])?;
    kept.more |= overdue.len() == BOUND;
    for piece in overdue {
        step.mend(&piece)?;
        kept.expired.push(step.bury(piece, DeadCause::Expired)?);
    }

    kept.more |= step.drop_old_letters(BOUND)?;
    for cause in DeadCause::ALL {
        kept.more |= step.make_room_for_letters(cause, BOUND)?;
    }

    let records: Vec<i64> =
        step.rows(statements::EXPIRED_RECORDS, params![now, at_most(BOUND)], |row| row.get(0))?;
    kept.more |= records.len() == BOUND;
    for seq in records {
        step.forget_message(seq)?;
    }

    let quiet = step.rows(statements::QUIET_GATES, params![now, at_most(BOUND)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    kept.more |= quiet.len() == BOUND;
    for (lane, destination) in quiet {
        step.run(statements::DELETE_GATE, params![lane, destination])?;
    }

    step.owners.forget(step.now);
    let (pages, unused) = step.pages()?;
    if (unused > PAGES_KEPT && unused > pages / 4) || (step.is_out_of_space && unused > 0) {
        step.shrink(PAGES_GIVEN_BACK)?;
    }
    step.ask_for_upkeep();
    Ok(kept)
}
