//! How work ends: its piece, its message, the books and the dead letter, in one step.

use rusqlite::params;

use super::piece::{Piece, Place};
use super::statements;
use super::writer::Step;
use crate::delivery::DeadCause;
use crate::queue::contract::Buried;

impl Step<'_> {
    /// Ends a piece at a `place` of success. Its recipient and history go at once.
    pub(super) fn succeed(&self, piece: &Piece, place: Place) -> rusqlite::Result<()> {
        self.run(statements::SUCCEEDED, params![piece.seq, piece.id.index, place.as_str()])?;
        Ok(())
    }

    /// Ends a pending piece as delivered.
    pub(super) fn deliver(&mut self, piece: &Piece) -> rusqlite::Result<()> {
        self.succeed(piece, Place::Delivered)?;
        self.books.delivered += 1;
        self.piece_ended(piece, 0)
    }

    /// Ends a pending piece as dead: it becomes a letter.
    pub(super) fn bury(&mut self, mut piece: Piece, cause: DeadCause) -> rusqlite::Result<Buried> {
        let left = piece.place;
        piece.end(Place::of_dead(cause));
        self.save(&piece)?;
        let died_at = self.now.as_millis();
        self.run(statements::BURY, params![piece.seq, piece.id.index, cause.as_str(), died_at])?;
        *self.books.ended(cause) += 1;
        *self.books.letters(cause) += 1;
        let buried = piece.buried(cause);
        piece.place = left;
        self.piece_ended(&piece, 1)?;
        self.make_room_for_letters(cause, 2)?;
        Ok(buried)
    }

    /// What follows from the end of a piece that was in `piece.place`.
    fn piece_ended(&mut self, piece: &Piece, letters: i64) -> rusqlite::Result<()> {
        if let (Place::Parked, Some(destination)) = (piece.place, &piece.destination) {
            self.left_the_park(&piece.lane, destination)?;
        }
        let pending: Option<i64> =
            self.row(statements::PIECE_ENDED, params![piece.seq, letters], |row| row.get(0))?;
        if pending == Some(0) {
            self.message_ended(piece.seq)?;
        }
        Ok(())
    }

    /// A message without pending work: its text goes unless a letter needs it, and what remains goes
    /// after `retention`.
    pub(super) fn message_ended(&mut self, seq: i64) -> rusqlite::Result<()> {
        let expires_at = self.now.plus(self.settings.retention).as_millis();
        self.run(statements::MESSAGE_ENDED, params![seq, expires_at])?;
        self.books.open -= 1;
        Ok(())
    }

    /// Removes a message and whatever is left of its pieces.
    pub(super) fn forget_message(&mut self, seq: i64) -> rusqlite::Result<()> {
        let causes = self.rows(statements::LETTERS_OF, params![seq], |row| super::piece::text(row, 0))?;
        for cause in causes.into_iter().flatten().filter_map(|word| DeadCause::parse(&word)) {
            *self.books.letters(cause) -= 1;
        }
        self.run(statements::DELETE_WORK_OF, params![seq])?;
        self.run(statements::DELETE_MESSAGE, params![seq])?;
        Ok(())
    }
}
