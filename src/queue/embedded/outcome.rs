//! What owners bring back: settlements, renewals, work given up unstarted.

use rusqlite::params;

use super::piece::{Piece, Place};
use super::statements;
use super::writer::Step;
use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadCause, Settlement};
use crate::queue::contract::{Lease, LeaseKey, Settle, Settled};

/// Records what is to become of work.
pub(super) fn settle(step: &mut Step<'_>, owner: &str, batch: &[Settle]) -> rusqlite::Result<Vec<Settled>> {
    batch.iter().map(|settle| settle_one(step, owner, settle)).collect()
}

fn settle_one(step: &mut Step<'_>, owner: &str, settle: &Settle) -> rusqlite::Result<Settled> {
    let key = settle.lease.key();
    let Some(piece) = step.piece(&key.work)? else { return Ok(Settled::Stale { late_success: false }) };
    if !piece.place.is_pending() {
        return stale(step, &piece, &settle.settlement);
    }
    let is_holder = piece.is_held_by(owner, &key.entry);
    match &settle.settlement {
        Settlement::Delivered => {
            step.deliver(&piece)?;
            Ok(Settled::Delivered { late: !is_holder })
        }
        _ if !is_holder => Ok(Settled::LostLease),
        Settlement::RetryAt { due, attempt } => retry(step, piece, *due, attempt),
        Settlement::Pause { until, attempt } => pause(step, piece, *until, attempt),
        Settlement::Dead { cause, attempt } => give_up(step, piece, *cause, attempt.as_ref()),
    }
}

/// Ended work stays as it is; but a delivery that comes after a dead end is noted on the letter.
fn stale(step: &Step<'_>, piece: &Piece, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let died = matches!(piece.place, Place::Dead | Place::Expired);
    let late_success = died && *settlement == Settlement::Delivered;
    if late_success {
        step.run(statements::MAYBE_SENT, params![piece.seq, piece.id.index])?;
    }
    Ok(Settled::Stale { late_success })
}

/// Notes an attempt that did not deliver.
fn note(step: &Step<'_>, piece: &mut Piece, attempt: &Attempt) -> rusqlite::Result<()> {
    piece.maybe_sent |= attempt.ambiguous && piece.is_delivery();
    piece.handed_out = 0;
    step.note_attempt(piece, attempt)
}

fn retry(
    step: &mut Step<'_>,
    mut piece: Piece,
    due: Timestamp,
    attempt: &Attempt,
) -> rusqlite::Result<Settled> {
    note(step, &mut piece, attempt)?;
    piece.attempts = piece.attempts.saturating_add(1);
    delay(step, piece, due)
}

fn delay(step: &mut Step<'_>, mut piece: Piece, due: Timestamp) -> rusqlite::Result<Settled> {
    if due >= piece.deadline {
        return expire(step, piece);
    }
    piece.delay(due);
    step.save(&piece)?;
    // Whoever waits for this lane has not counted with it.
    step.ring(&piece.lane);
    Ok(Settled::Delayed)
}

fn pause(
    step: &mut Step<'_>,
    mut piece: Piece,
    until: Timestamp,
    attempt: &Attempt,
) -> rusqlite::Result<Settled> {
    note(step, &mut piece, attempt)?;
    piece.pauses = piece.pauses.saturating_add(1);
    let Some(destination) = piece.destination.clone() else { return delay(step, piece, until) };
    let mut gate = step.gate(&piece.lane, &destination)?;
    let held_until = gate.hold(until);
    // Parked work of this destination cannot go before that either.
    gate.wake_at = gate.wake_at.map(|_| held_until);
    let ends = until >= piece.deadline;
    if !ends {
        gate.wake_at = Some(held_until);
    }
    step.set_gate(&piece.lane, &destination, gate)?;
    if ends {
        return expire(step, piece);
    }
    piece.park();
    step.save(&piece)?;
    step.ring(&piece.lane);
    Ok(Settled::Delayed)
}

fn expire(step: &mut Step<'_>, piece: Piece) -> rusqlite::Result<Settled> {
    step.bury(piece, DeadCause::Expired)?;
    Ok(Settled::Dead(DeadCause::Expired))
}

fn give_up(
    step: &mut Step<'_>,
    mut piece: Piece,
    cause: DeadCause,
    attempt: Option<&Attempt>,
) -> rusqlite::Result<Settled> {
    if let Some(attempt) = attempt {
        note(step, &mut piece, attempt)?;
        piece.attempts = piece.attempts.saturating_add(1);
    }
    step.bury(piece, cause)?;
    Ok(Settled::Dead(cause))
}

/// Extends leases; returns those that are not `owner`'s.
pub(super) fn renew(
    step: &mut Step<'_>,
    owner: &str,
    leases: &[LeaseKey],
) -> rusqlite::Result<Vec<LeaseKey>> {
    if !leases.is_empty() {
        step.owners.hear(owner, step.now);
    }
    let until = step.now.plus(step.settings.lease).as_millis();
    let mut lost = Vec::new();
    for key in leases {
        // An entry that is no number was never a lease of ours.
        let renewed = match key.entry.parse::<i64>() {
            Ok(lease_no) => {
                let id = key.work.message.as_str();
                step.run(statements::RENEW, params![id, key.work.index, owner, lease_no, until])?
            }
            Err(_) => 0,
        };
        if renewed == 0 {
            lost.push(key.clone());
        }
    }
    Ok(lost)
}

/// Takes back work that was not started.
pub(super) fn release(step: &mut Step<'_>, owner: &str, leases: &[Lease]) -> rusqlite::Result<()> {
    for lease in leases {
        let key = lease.key();
        if let Some(mut piece) = step.piece(&key.work)?.filter(|piece| piece.is_held_by(owner, &key.entry)) {
            piece.give_back();
            step.save(&piece)?;
            step.ring(&piece.lane);
        }
    }
    Ok(())
}
