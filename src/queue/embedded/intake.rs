//! The way in: acceptance, and the one step from a message to its deliveries.

use rusqlite::params;

use super::piece::Place;
use super::statements;
use super::writer::Step;
use crate::clock::Timestamp;
use crate::queue::contract::{Acceptance, Expansion, Lane, NewDelivery, NewMessage, Settled};

/// Accepts messages.
pub(super) fn accept(step: &mut Step<'_>, batch: &[NewMessage]) -> rusqlite::Result<Vec<Acceptance>> {
    batch.iter().map(|message| accept_one(step, message)).collect()
}

/// Says which messages are known, where there is no space to accept any; `None` when none is.
pub(super) fn only_known(
    step: &mut Step<'_>,
    batch: &[NewMessage],
) -> rusqlite::Result<Option<Vec<Acceptance>>> {
    let mut answers = Vec::with_capacity(batch.len());
    for new in batch {
        let is_known = known(step, new)?.is_some_and(|known| known.lives_at(step.now));
        step.books.duplicates += i64::from(is_known);
        answers.push(if is_known { Acceptance::Duplicate } else { Acceptance::Full });
    }
    Ok(answers.contains(&Acceptance::Duplicate).then_some(answers))
}

/// The record of a message that was accepted before.
struct Known {
    seq: i64,
    expires_at: Option<i64>,
}

impl Known {
    /// Whether its time is not over; that housekeeping has not come by yet makes no difference.
    fn lives_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now.as_millis())
    }
}

fn known(step: &Step<'_>, new: &NewMessage) -> rusqlite::Result<Option<Known>> {
    step.row(statements::KNOWN, params![new.id.as_str()], |row| {
        Ok(Known { seq: row.get(0)?, expires_at: row.get(1)? })
    })
}

fn accept_one(step: &mut Step<'_>, new: &NewMessage) -> rusqlite::Result<Acceptance> {
    let id = new.id.as_str();
    if let Some(known) = known(step, new)? {
        if known.lives_at(step.now) {
            step.books.duplicates += 1;
            return Ok(Acceptance::Duplicate);
        }
        step.forget_message(known.seq)?;
    }
    if step.books.open >= i64::try_from(step.settings.capacity).unwrap_or(i64::MAX) {
        return Ok(Acceptance::Full);
    }
    let received = step.now.minus(new.age);
    step.run(statements::NEW_MESSAGE, params![id, new.payload, received.as_millis()])?;
    let seq = step.last_row();
    add_work(step, seq, 0, &Lane::inbound(), None, received.plus(new.deadline))?;
    step.books.accepted += 1;
    step.books.made += 1;
    step.books.open += 1;
    Ok(Acceptance::Accepted)
}

fn add_work(
    step: &mut Step<'_>,
    seq: i64,
    index: i64,
    lane: &Lane,
    delivery: Option<&NewDelivery>,
    deadline: Timestamp,
) -> rusqlite::Result<()> {
    let turn = step.books.next_turn();
    step.run(statements::LANE, params![lane.as_str()])?;
    step.run(
        statements::NEW_WORK,
        params![
            seq,
            index,
            lane.as_str(),
            delivery.map(|delivery| delivery.destination.as_str()),
            delivery.map(|delivery| &delivery.label),
            delivery.map(|delivery| &delivery.recipient),
            deadline.as_millis(),
            turn,
            step.now.as_millis(),
        ],
    )?;
    step.ring(lane.as_str());
    Ok(())
}

/// Ends routings by making their deliveries. Whoever brings the route of a pending message is right.
pub(super) fn expand(step: &mut Step<'_>, batch: &[Expansion]) -> rusqlite::Result<Vec<Settled>> {
    batch.iter().map(|expansion| expand_one(step, expansion)).collect()
}

fn expand_one(step: &mut Step<'_>, expansion: &Expansion) -> rusqlite::Result<Settled> {
    let stale = Settled::Stale { late_success: false };
    let work = &expansion.lease.key().work;
    let Some(routing) = step.piece(work)?.filter(|piece| piece.place.is_pending() && !piece.is_delivery())
    else {
        return Ok(stale);
    };
    step.succeed(&routing, Place::Expanded)?;
    let count = i64::try_from(expansion.deliveries.len()).unwrap_or(i64::MAX);
    let message = step.row(
        statements::MESSAGE_EXPANDED,
        params![routing.seq, expansion.subscriber, count.saturating_sub(1)],
        |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)),
    )?;
    let Some((accepted_at, pending)) = message else { return Ok(stale) };
    let deadline = Timestamp::from_millis(accepted_at).plus(expansion.deadline);
    for (index, delivery) in (1..).zip(&expansion.deliveries) {
        let lane = Lane::of(&delivery.channel);
        add_work(step, routing.seq, index, &lane, Some(delivery), deadline)?;
    }
    step.books.made += count - 1;
    if pending == 0 {
        step.message_ended(routing.seq)?;
    }
    Ok(Settled::Expanded)
}
