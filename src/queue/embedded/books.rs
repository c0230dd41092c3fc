//! The books: counters since the store was made, kept in the same transaction as what they count.

use rusqlite::{Connection, params};

use super::statements;
use crate::delivery::DeadCause;

/// The counters, as one value: a step that fails puts the old value back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// Messages accepted.
    pub(super) accepted: i64,
    /// Duplicates turned away.
    pub(super) duplicates: i64,
    /// Deliveries ever made; an unrouted message is one.
    pub(super) made: i64,
    /// Deliveries delivered.
    pub(super) delivered: i64,
    /// Deliveries dead, but for the expired, less those requeued.
    pub(super) dead: i64,
    /// Deliveries expired, less those requeued.
    pub(super) expired: i64,
    /// Messages with pending work.
    pub(super) open: i64,
    /// The last turn given to ready work: the order in which work became ready.
    pub(super) turn: i64,
    /// The last lease number given.
    pub(super) lease: i64,
    /// Dead letters kept, in the order of [`DeadCause::ALL`].
    letters: [i64; DeadCause::ALL.len()],
}

impl Books {
    /// What is pending by the books.
    pub(super) fn pending(&self) -> i64 {
        self.made - self.delivered - self.dead - self.expired
    }

    /// The count of ended deliveries that `cause` belongs to.
    pub(super) fn ended(&mut self, cause: DeadCause) -> &mut i64 {
        match cause {
            DeadCause::Expired => &mut self.expired,
            _ => &mut self.dead,
        }
    }

    /// The dead letters kept for `cause`.
    pub(super) fn letters(&mut self, cause: DeadCause) -> &mut i64 {
        let place = DeadCause::ALL.iter().position(|known| *known == cause);
        &mut self.letters[place.expect("ALL holds every cause")]
    }

    /// The next turn.
    pub(super) fn next_turn(&mut self) -> i64 {
        self.turn += 1;
        self.turn
    }

    /// The next lease number.
    pub(super) fn next_lease(&mut self) -> i64 {
        self.lease += 1;
        self.lease
    }

    fn entries(&mut self) -> [(&'static str, &mut i64); 15] {
        let [permanent, exhausted, expired_letters, poison, unroutable, undecryptable] = &mut self.letters;
        [
            ("accepted", &mut self.accepted),
            ("duplicates", &mut self.duplicates),
            ("made", &mut self.made),
            ("delivered", &mut self.delivered),
            ("dead", &mut self.dead),
            ("expired", &mut self.expired),
            ("open", &mut self.open),
            ("turn", &mut self.turn),
            ("lease", &mut self.lease),
            ("letters.permanent", permanent),
            ("letters.exhausted", exhausted),
            ("letters.expired", expired_letters),
            ("letters.poison", poison),
            ("letters.unroutable", unroutable),
            ("letters.undecryptable", undecryptable),
        ]
    }

    /// Reads the books; what is not there is 0.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut books = Self::default();
        let mut statement = connection.prepare_cached(statements::BOOKS)?;
        let mut rows = statement.query([])?;
        let mut entries = books.entries();
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_bytes()?;
            if let Some((_, value)) = entries.iter_mut().find(|(known, _)| known.as_bytes() == name) {
                **value = row.get(1)?;
            }
        }
        Ok(books)
    }

    /// Writes what differs from `before`.
    pub(super) fn save(mut self, mut before: Self, connection: &Connection) -> rusqlite::Result<()> {
        for ((name, value), (_, old)) in self.entries().into_iter().zip(before.entries()) {
            if value != old {
                connection.prepare_cached(statements::BOOK)?.execute(params![name, *value])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::embedded::schema;

    #[test]
    fn books_read_back_what_was_written() {
        let connection = Connection::open_in_memory().unwrap();
        schema::make(&connection).unwrap();
        let mut books = Books::default();
        for (place, (_, value)) in books.entries().into_iter().enumerate() {
            *value = i64::try_from(place).unwrap() + 1;
        }
        books.save(Books::default(), &connection).unwrap();
        assert_eq!(Books::load(&connection).unwrap(), books);
    }

    #[test]
    fn every_cause_has_its_own_count_under_its_own_name() {
        for cause in DeadCause::ALL {
            let mut books = Books::default();
            *books.letters(cause) = 1;
            let name = format!("letters.{}", cause.as_str());
            let counted: Vec<_> =
                books.entries().into_iter().filter(|(_, value)| **value == 1).map(|(name, _)| name).collect();
            assert_eq!(counted, [name]);
        }
    }
}
