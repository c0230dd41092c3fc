//! One piece of work as a row holds it, and its moves from place to place.

use rusqlite::types::ValueRef;
use rusqlite::{Row, params};

use super::statements;
use super::writer::Step;
use crate::clock::Timestamp;
use crate::delivery::{Attempt, DeadCause, DeliveryId, DestinationKey};
use crate::message::MessageId;
use crate::queue::contract::{Buried, Lane};

/// Where a piece of work is. One column, so it cannot be in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// May be handed out, in the order of `turn`.
    Ready,
    /// In the hands of `owner` until `lease_until`.
    Leased,
    /// Not before `due`.
    Delayed,
    /// Until its destination may have work again.
    Parked,
    /// Ended.
    Delivered,
    /// Ended.
    Dead,
    /// Ended.
    Expired,
    /// Ended: a routing that became deliveries.
    Expanded,
}

impl Place {
    pub(super) const ALL: [Self; 8] = [
        Self::Ready,
        Self::Leased,
        Self::Delayed,
        Self::Parked,
        Self::Delivered,
        Self::Dead,
        Self::Expired,
        Self::Expanded,
    ];

    /// The word in the column.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Delayed => "delayed",
            Self::Parked => "parked",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Expanded => "expanded",
        }
    }

    /// Reads the word. One that no program of ours wrote is taken for an end, so that it is never
    /// handed out; the audit names it.
    pub(super) fn read(word: &str) -> Self {
        Self::ALL.into_iter().find(|place| place.as_str() == word).unwrap_or(Self::Dead)
    }

    /// Where work goes that dies of `cause`.
    pub(super) fn of_dead(cause: DeadCause) -> Self {
        match cause {
            DeadCause::Expired => Self::Expired,
            _ => Self::Dead,
        }
    }

    /// Whether work here has not ended.
    pub(super) const fn is_pending(self) -> bool {
        matches!(self, Self::Ready | Self::Leased | Self::Delayed | Self::Parked)
    }
}

/// Whose a leased piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) owner: String,
    /// Names this hand-out: a later one, even to the same owner, has another.
    pub(super) lease_no: i64,
    pub(super) until: Timestamp,
}

/// Whether a row can be worked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It can.
    Whole,
    /// Its message id is not one.
    Unreadable,
    /// Its message is lost.
    Lost,
}

/// A row of `work` but for the recipient and the history, which few moves need.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) seq: i64,
    pub(super) id: DeliveryId,
    pub(super) fate: Fate,
    pub(super) lane: String,
    pub(super) destination: Option<String>,
    pub(super) place: Place,
    pub(super) attempts: u32,
    pub(super) pauses: u32,
    pub(super) handed_out: u32,
    pub(super) maybe_sent: bool,
    pub(super) deadline: Timestamp,
    /// Its turn among the ready work of its lane, and since when it has it.
    pub(super) turn: Option<(i64, Timestamp)>,
    /// Whether it was woken from the park, or given back, so that the rest of the park does not send it
    /// there.
    pub(super) woken: bool,
    pub(super) due: Option<Timestamp>,
    pub(super) holder: Option<Holder>,
    pub(super) subscriber: String,
}

/// The text of a column. Bytes that are no text must not stop the row's neighbours, so they are
/// replaced rather than refused.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u32> {
    let value: i64 = row.get(column)?;
    Ok(u32::try_from(value.max(0)).unwrap_or(u32::MAX))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

impl Piece {
    /// The name a message gets whose own cannot be read, or is lost.
    pub(super) fn stand_in(seq: i64) -> MessageId {
        MessageId::of_source("raw", &format!("embedded-{seq}")).expect("a source and a number make an id")
    }

    /// Reads a row of one of the `pieces!` queries.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let seq = row.get(0)?;
        let message = text(row, 2)?.and_then(|id| MessageId::parse(&id).ok());
        let joined: Option<i64> = row.get(19)?;
        let fate = match (&message, joined) {
            (_, None) => Fate::Lost,
            (None, Some(_)) => Fate::Unreadable,
            (Some(_), Some(_)) => Fate::Whole,
        };
        let turn: Option<i64> = row.get(11)?;
        let ready_at = time(row, 12)?.unwrap_or(Timestamp::from_millis(0));
        let until = time(row, 17)?.unwrap_or(Timestamp::from_millis(0));
        Ok(Self {
            seq,
            id: DeliveryId { message: message.unwrap_or_else(|| Self::stand_in(seq)), index: row.get(1)? },
            fate,
            lane: text(row, 3)?.unwrap_or_default(),
            destination: text(row, 4)?,
            place: Place::read(&text(row, 5)?.unwrap_or_default()),
            attempts: count(row, 6)?,
            pauses: count(row, 7)?,
            handed_out: count(row, 8)?,
            maybe_sent: row.get(9)?,
            deadline: Timestamp::from_millis(row.get(10)?),
            turn: turn.map(|turn| (turn, ready_at)),
            woken: row.get(13)?,
            due: time(row, 14)?,
            holder: match (text(row, 15)?, row.get(16)?) {
                (Some(owner), Some(lease_no)) => Some(Holder { owner, lease_no, until }),
                _ => None,
            },
            subscriber: text(row, 18)?.unwrap_or_default(),
        })
    }

    /// Whether `owner` holds it by the hand-out named `entry`.
    pub(super) fn is_held_by(&self, owner: &str, entry: &str) -> bool {
        self.place == Place::Leased
            && self
                .holder
                .as_ref()
                .is_some_and(|holder| holder.owner == owner && holder.lease_no.to_string() == entry)
    }

    /// Whether it is a delivery; the rest are routings, which send nothing.
    pub(super) fn is_delivery(&self) -> bool {
        self.id.index > 0
    }

    /// Its destination's key.
    pub(super) fn destination_key(&self) -> Option<DestinationKey> {
        self.destination.as_deref().map(DestinationKey::from_stored)
    }

    /// The report of its end inside a call.
    pub(super) fn buried(&self, cause: DeadCause) -> Buried {
        Buried {
            delivery: self.id.clone(),
            lane: Lane::from_stored(&self.lane),
            subscriber: self.subscriber.clone(),
            cause,
            attempts: self.attempts,
        }
    }

    /// At the end of its lane's line.
    pub(super) fn make_ready(&mut self, turn: i64, now: Timestamp, woken: bool) {
        self.leave();
        self.place = Place::Ready;
        self.turn = Some((turn, now));
        self.woken = woken;
    }

    /// Into the hands of `holder`. It keeps its turn, for the case that it is given back.
    pub(super) fn lease(&mut self, holder: Holder) {
        let turn = self.turn;
        self.leave();
        self.place = Place::Leased;
        self.turn = turn;
        self.holder = Some(holder);
        self.handed_out = self.handed_out.saturating_add(1);
    }

    /// Back to where it was before it was handed out, as if it had not been: what was parked since does
    /// not go before it.
    pub(super) fn give_back(&mut self) {
        let turn = self.turn;
        self.leave();
        self.place = Place::Ready;
        self.turn = turn;
        self.woken = true;
        self.handed_out = self.handed_out.saturating_sub(1);
    }

    /// Away until `due`.
    pub(super) fn delay(&mut self, due: Timestamp) {
        self.leave();
        self.place = Place::Delayed;
        self.due = Some(due);
    }

    /// Away until its destination may have work.
    pub(super) fn park(&mut self) {
        self.leave();
        self.place = Place::Parked;
        self.woken = false;
    }

    /// To its end.
    pub(super) fn end(&mut self, place: Place) {
        self.leave();
        self.place = place;
        self.woken = false;
    }

    /// Wipes off what belongs to another place than its own; `turn` is for work in hand that has none.
    pub(super) fn keep_to_its_place(&mut self, turn: i64, now: Timestamp) {
        match self.place {
            Place::Leased => self.turn = self.turn.or(Some((turn, now))),
            Place::Ready => {}
            _ => self.turn = None,
        }
        if self.place != Place::Leased {
            self.holder = None;
        }
        if self.place != Place::Delayed {
            self.due = None;
        }
    }

    fn leave(&mut self) {
        self.turn = None;
        self.due = None;
        self.holder = None;
    }
}

impl Step<'_> {
    /// Runs one of the `pieces!` queries.
    pub(super) fn pieces(
        &self,
        sql: &'static str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<Vec<Piece>> {
        self.rows(sql, parameters, Piece::read)
    }

    /// The piece that `id` names, `None` when there is none.
    pub(super) fn piece(&self, id: &DeliveryId) -> rusqlite::Result<Option<Piece>> {
        self.row(statements::ONE, params![id.message.as_str(), id.index], Piece::read)
    }

    /// Writes a piece back.
    pub(super) fn save(&self, piece: &Piece) -> rusqlite::Result<()> {
        let holder = piece.holder.as_ref();
        self.run(
            statements::SAVE,
            params![
                piece.seq,
                piece.id.index,
                piece.place.as_str(),
                piece.attempts,
                piece.pauses,
                piece.handed_out,
                piece.maybe_sent,
                piece.turn.map(|(turn, _)| turn),
                piece.turn.map(|(_, since)| since.as_millis()),
                piece.woken,
                piece.due.map(Timestamp::as_millis),
                holder.map(|holder| &holder.owner),
                holder.map(|holder| holder.lease_no),
                holder.map(|holder| holder.until.as_millis()),
            ],
        )?;
        Ok(())
    }

    /// Adds a failed attempt to a piece's history, of which the latest 32 are kept.
    pub(super) fn note_attempt(&self, piece: &Piece, attempt: &Attempt) -> rusqlite::Result<()> {
        const KEPT: usize = 32;
        let key = params![piece.seq, piece.id.index];
        let stored = self.row(statements::HISTORY, key, |row| text(row, 0))?.flatten();
        let mut history = read_history(stored.as_deref());
        history.push(attempt.clone());
        let surplus = history.len().saturating_sub(KEPT);
        let json = serde_json::to_string(&history[surplus..]).expect("attempts always serialise");
        self.run(statements::SET_HISTORY, params![piece.seq, piece.id.index, json])?;
        Ok(())
    }

    /// Deals with a row that cannot be worked with, so that it can be buried and shown: a message whose
    /// name cannot be read gets another, and so does one that is lost.
    pub(super) fn mend(&self, piece: &Piece) -> rusqlite::Result<()> {
        match piece.fate {
            Fate::Whole => {}
            Fate::Unreadable => {
                tracing::error!(seq = piece.seq, "a stored message has an unreadable id");
                self.run(statements::RENAME_UNREADABLE, params![piece.seq, piece.id.message.as_str()])?;
            }
            Fate::Lost => {
                tracing::error!(seq = piece.seq, index = piece.id.index, "work lost its message");
                self.adopt(piece.seq)?;
            }
        }
        Ok(())
    }

    /// Puts something in the place of a message that is lost, so that its work is somebody's. Returns its
    /// name.
    pub(super) fn adopt(&self, seq: i64) -> rusqlite::Result<MessageId> {
        let id = Piece::stand_in(seq);
        self.run(statements::ADOPT, params![seq, id.as_str(), self.now.as_millis()])?;
        Ok(id)
    }
}

/// The history in a column; one that cannot be read is empty, for it must not hold up the delivery.
pub(super) fn read_history(json: Option<&str>) -> Vec<Attempt> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_and_an_unknown_one_is_an_end() {
        for place in Place::ALL {
            assert_eq!(Place::read(place.as_str()), place);
        }
        assert!(!Place::read("nowhere").is_pending());
    }

    #[test]
    fn a_stand_in_name_is_a_message_id() {
        assert_eq!(
            Piece::stand_in(i64::MAX),
            MessageId::parse(&format!("raw:embedded-{}", i64::MAX)).unwrap()
        );
    }
}
