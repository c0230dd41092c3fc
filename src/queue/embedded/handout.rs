//! Handing out: `claim` and `sweep`.

use std::collections::HashSet;

use rusqlite::params;

use super::gate::{Gates, OF_THE_LANE};
use super::piece::{Fate, Holder, Piece};
use super::statements::{self, at_most};
use super::writer::Step;
use crate::clock::Timestamp;
use crate::delivery::DeadCause;
use crate::queue::contract::{
    BUSY_DELAY, Buried, Claim, Claimed, Cursor, Lane, LaneLimits, Lease, LeaseKey, MAX_BATCH, MAX_HAND_OUTS,
    SUSPECT_HAND_OUTS, Swept, Work,
};

/// The most ready pieces one claim looks at, so that a long line of work that may not go now does not
/// hold up the writer.
const LOOKED_AT: usize = 512;

/// The most delayed pieces, and the most parked ones, that one claim makes ready.
const MADE_READY: usize = 128;

/// The most destinations one claim wakes.
const WOKEN_DESTINATIONS: usize = 64;

/// A [`Claim`] that owns what it names.
pub(super) struct Asked {
    owner: String,
    lane: String,
    max: usize,
    limits: LaneLimits,
    busy: HashSet<String>,
}

impl From<Claim<'_>> for Asked {
    fn from(claim: Claim<'_>) -> Self {
        Self {
            owner: claim.owner.as_str().to_owned(),
            lane: claim.lane.as_str().to_owned(),
            max: claim.max.min(MAX_BATCH),
            limits: claim.limits,
            busy: claim.busy.iter().map(|key| key.as_str().to_owned()).collect(),
        }
    }
}

/// What is to become of a piece that was looked at.
enum Verdict {
    HandOut,
    Bury(DeadCause),
    Park,
    PutOff,
}

pub(super) fn claim(step: &mut Step<'_>, asked: &Asked) -> rusqlite::Result<Claimed> {
    let lane = asked.lane.as_str();
    step.owners.hear(&asked.owner, step.now);
    let mark = step.bells.mark(lane);
    let mut gates = Gates::new(lane);
    promote(step, lane)?;
    wake(step, asked, &mut gates)?;

    let now = step.now;
    let room = gates.of(step, OF_THE_LANE)?.room(asked.limits.lane, now, asked.max);
    let (mut items, mut buried, mut looked) = (Vec::new(), Vec::new(), 0);
    while items.len() < room && looked < LOOKED_AT {
        let ask = (room - items.len()).min(LOOKED_AT - looked);
        let candidates = step.pieces(statements::READY, params![lane, at_most(ask)])?;
        if candidates.is_empty() {
            break;
        }
        looked += candidates.len();
        for candidate in candidates {
            step.mend(&candidate)?;
            let has_suspect = items.iter().any(is_suspect);
            match weigh(step, asked, &mut gates, &candidate, has_suspect)? {
                Verdict::HandOut => items.extend(hand_out(step, &asked.owner, candidate)?),
                Verdict::Bury(cause) => buried.push(step.bury(candidate, cause)?),
                Verdict::Park => park(step, candidate)?,
                Verdict::PutOff => put_off(step, candidate)?,
            }
        }
    }
    let lane_gate = gates.of(step, OF_THE_LANE)?;
    lane_gate.spend(asked.limits.lane, now, items.len());
    let lane_opens = asked.limits.lane.map(|rate| lane_gate.opens_at(rate, now));
    gates.write(step)?;

    let more = step.row(statements::ANY_READY, params![lane], |_| Ok(()))?.is_some();
    let rate_limited = more && items.len() == room && room < asked.max;
    let ready_again = match lane_opens {
        _ if !more => None,
        Some(opens) if rate_limited => Some(opens),
        _ => Some(now),
    };
    let next_due = step.row(statements::NEXT_DUE, params![lane], |row| row.get(0))?;
    let next_wake = step.row(statements::NEXT_WAKE, params![lane], |row| row.get(0))?;
    let wait = [ready_again, next_due.map(Timestamp::from_millis), next_wake.map(Timestamp::from_millis)]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.since(now));
    Ok(Claimed { items, buried, wait, rate_limited, mark, now, recreated: std::mem::take(&mut step.mended) })
}

/// Lets parked work of destinations whose time has come stand in line again: as much as each may
/// have, earliest deadline first. It is weighed again when its turn comes.
fn wake(step: &mut Step<'_>, asked: &Asked, gates: &mut Gates<'_>) -> rusqlite::Result<()> {
    let (lane, now) = (asked.lane.as_str(), step.now);
    let awake =
        step.rows(statements::AWAKE, params![lane, now.as_millis(), at_most(WOKEN_DESTINATIONS)], |row| {
            row.get::<_, String>(0)
        })?;
    let mut budget = MADE_READY;
    for destination in awake {
        if budget == 0 {
            break;
        }
        let gate = gates.of(step, &destination)?;
        if let Some(held_until) = gate.held(now) {
            gate.wake_at = Some(held_until);
            continue;
        }
        if asked.busy.contains(&destination) {
            gate.wake_at = Some(now.plus(BUSY_DELAY));
            continue;
        }
        let rate = asked.limits.destination;
        let room = gate.room(rate, now, budget);
        if let (0, Some(rate)) = (room, rate) {
            gate.wake_at = Some(gate.opens_at(rate, now));
            continue;
        }
        let mut parked = step.pieces(statements::PARKED, params![lane, destination, at_most(room + 1)])?;
        let more = parked.len() > room;
        parked.truncate(room);
        budget -= parked.len();
        // The rest may go when there is room again behind what goes now.
        let mut behind = *gate;
        behind.spend(rate, now, room);
        let next = rate.map_or(now, |rate| behind.opens_at(rate, now));
        gate.wake_at = more.then_some(next);
        for mut piece in parked {
            piece.make_ready(step.books.next_turn(), now, true);
            step.save(&piece)?;
        }
    }
    Ok(())
}

/// Lets delayed work that is due stand in line.
fn promote(step: &mut Step<'_>, lane: &str) -> rusqlite::Result<()> {
    let now = step.now;
    for mut piece in step.pieces(statements::DUE, params![lane, now.as_millis(), at_most(MADE_READY)])? {
        piece.make_ready(step.books.next_turn(), now, false);
        step.save(&piece)?;
    }
    Ok(())
}

/// What is to become of a ready piece whose turn it is. A place in its destination's rate is taken
/// with the verdict to hand it out.
fn weigh(
    step: &Step<'_>,
    asked: &Asked,
    gates: &mut Gates<'_>,
    piece: &Piece,
    has_suspect: bool,
) -> rusqlite::Result<Verdict> {
    let now = step.now;
    if let Some(cause) = unfit(piece, now) {
        return Ok(Verdict::Bury(cause));
    }
    if has_suspect && would_be_suspect(piece) {
        return Ok(Verdict::PutOff);
    }
    let Some(destination) = &piece.destination else { return Ok(Verdict::HandOut) };
    let gate = gates.of(step, destination)?;
    let not_before = if let Some(held_until) = gate.held(now) {
        Some(held_until)
    } else if asked.busy.contains(destination) {
        Some(now.plus(BUSY_DELAY))
    } else {
        let shut = asked.limits.destination.filter(|rate| gate.room(Some(*rate), now, 1) == 0);
        shut.map(|rate| gate.opens_at(rate, now))
    };
    if let Some(at) = not_before {
        gate.wake_by(at);
        return Ok(Verdict::Park);
    }
    // Others of its destination wait already; it does not overtake them.
    if gate.wake_at.is_some() && !piece.woken {
        return Ok(Verdict::Park);
    }
    gate.spend(asked.limits.destination, now, 1);
    Ok(Verdict::HandOut)
}

/// Why a piece must not be handed out at all, if so.
fn unfit(piece: &Piece, now: Timestamp) -> Option<DeadCause> {
    if piece.fate != Fate::Whole || piece.handed_out >= MAX_HAND_OUTS {
        Some(DeadCause::Poison)
    } else if piece.deadline <= now {
        Some(DeadCause::Expired)
    } else {
        None
    }
}

fn park(step: &Step<'_>, mut piece: Piece) -> rusqlite::Result<()> {
    piece.park();
    step.save(&piece)
}

/// Whether work has seen several workers vanish. One of it is handed out at a time, so that a worker that
/// vanishes with it leaves no other such work one hand-out nearer to its end as poison.
fn is_suspect(work: &Work) -> bool {
    work.handed_out >= SUSPECT_HAND_OUTS
}

fn would_be_suspect(piece: &Piece) -> bool {
    piece.handed_out + 1 >= SUSPECT_HAND_OUTS
}

/// To be looked at again a little later, without having been handed out.
fn put_off(step: &Step<'_>, mut piece: Piece) -> rusqlite::Result<()> {
    piece.delay(step.now.plus(BUSY_DELAY));
    step.save(&piece)
}

/// Leases a piece to `owner` and takes its burden out of the store.
fn hand_out(step: &mut Step<'_>, owner: &str, mut piece: Piece) -> rusqlite::Result<Option<Work>> {
    let lease_no = step.books.next_lease();
    let until = step.now.plus(step.settings.lease);
    piece.lease(Holder { owner: owner.to_owned(), lease_no, until });
    step.save(&piece)?;
    step.row(statements::BURDEN, params![piece.seq, piece.id.index], |row| {
        Ok(Work {
            lease: Lease::new(LeaseKey {
                lane: Lane::from_stored(&piece.lane),
                work: piece.id.clone(),
                entry: lease_no.to_string(),
            }),
            payload: row.get::<_, Option<Vec<u8>>>(0)?.unwrap_or_default(),
            subscriber: piece.subscriber.clone(),
            recipient: row.get::<_, Option<Vec<u8>>>(2)?.unwrap_or_default(),
            destination: piece.destination_key(),
            attempts: piece.attempts,
            pauses: piece.pauses,
            deadline: piece.deadline,
            accepted_at: Timestamp::from_millis(row.get(1)?),
            handed_out: piece.handed_out,
        })
    })
}

/// What the cursor says while there is more to take over. Whatever is taken over leaves the front of
/// the line of lapsed leases, so there is nothing to remember but that.
const MORE: &str = "more";

/// Takes over work whose lease ran out. Rates do not matter: it had been granted.
pub(super) fn sweep(step: &mut Step<'_>, owner: &str, lane: &str, max: usize) -> rusqlite::Result<Swept> {
    let now = step.now;
    let max = max.min(MAX_BATCH);
    step.owners.hear(owner, now);
    let lapsed = step.pieces(statements::LAPSED, params![lane, now.as_millis(), at_most(max)])?;
    let more = max > 0 && lapsed.len() == max;
    let (mut items, mut buried): (Vec<Work>, Vec<Buried>) = (Vec::new(), Vec::new());
    for mut piece in lapsed {
        step.mend(&piece)?;
        piece.maybe_sent |= piece.is_delivery();
        if piece.holder.as_ref().is_some_and(|holder| step.owners.outlived(holder, step.settings.lease)) {
            // That hand-out does not count.
            piece.handed_out = piece.handed_out.saturating_sub(1);
        }
        if let Some(cause) = unfit(&piece, now) {
            buried.push(step.bury(piece, cause)?);
        } else if park_if_held(step, &mut piece)? {
            step.save(&piece)?;
        } else if would_be_suspect(&piece) && items.iter().any(is_suspect) {
            put_off(step, piece)?;
        } else {
            items.extend(hand_out(step, owner, piece)?);
        }
    }
    let cursor = if more { Cursor(MORE.to_owned()) } else { Cursor::default() };
    Ok(Swept { items, buried, cursor, now, recreated: std::mem::take(&mut step.mended) })
}

/// A pause that began after the work was handed out holds it all the same.
fn park_if_held(step: &Step<'_>, piece: &mut Piece) -> rusqlite::Result<bool> {
    let Some(destination) = piece.destination.clone() else { return Ok(false) };
    let mut gate = step.gate(&piece.lane, &destination)?;
    let Some(held_until) = gate.held(step.now) else { return Ok(false) };
    gate.wake_by(held_until);
    step.set_gate(&piece.lane, &destination, gate)?;
    piece.park();
    Ok(true)
}
