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

fn accept_one(step: &mut Step<'_>, new: &NewMessage) -> rusqlite::Result<Acceptance> {
    let id = new.id.as_str();
    let known =
        step.row(statements::KNOWN, params![id], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)))?;
    if let Some((seq, expires_at)) = known {
        if expires_at.is_none_or(|at| at > step.now.as_millis()) {
            step.books.duplicates += 1;
            return Ok(Acceptance::Duplicate);
        }
        // Its time is over; that housekeeping has not come by yet makes no difference.
        step.forget_message(seq)?;
    }
    if step.books.open >= i64::try_from(step.settings.capacity).unwrap_or(i64::MAX) {
        return Ok(Acceptance::Full);
    }
    let now = step.now;
    step.run(statements::NEW_MESSAGE, params![id, new.payload, now.as_millis()])?;
    let seq = step.last_row();
    add_work(step, seq, 0, &Lane::inbound(), None, now.plus(new.deadline))?;
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
