//! The SQL that runs while work flows, in one place so that one test can look at every plan.

/// A query for pieces of work with what [`super::piece::Piece`] holds. The message is joined from the
/// left: a piece whose message somebody deleted must still be found, or it would block its lane.
macro_rules! pieces {
    ($which:literal) => {
        concat!(
            "SELECT w.message, w.idx, m.id, w.lane, w.destination, w.place, w.attempts, w.pauses, w.handed_out, ",
            "w.maybe_sent, w.deadline, w.turn, w.ready_at, w.woken, w.due, w.owner, w.lease_no, w.lease_until, ",
            "m.subscriber, m.seq FROM work w LEFT JOIN message m ON m.seq = w.message ",
            $which
        )
    };
}
pub(super) use pieces;

/// A number of rows as SQLite takes it.
pub(super) fn at_most(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

pub(super) const BOOKS: &str = "SELECT name, value FROM book";
pub(super) const BOOK: &str =
    "INSERT INTO book (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

// Messages.
pub(super) const KNOWN: &str = "SELECT seq, expires_at FROM message WHERE id = ?1";
pub(super) const NEW_MESSAGE: &str =
    "INSERT INTO message (id, payload, accepted_at, pending) VALUES (?1, ?2, ?3, 1)";
pub(super) const MESSAGE_EXPANDED: &str = "UPDATE message SET subscriber = ?2, pending = pending + ?3 WHERE seq = ?1 RETURNING accepted_at, pending";
pub(super) const PIECE_ENDED: &str =
    "UPDATE message SET pending = pending - 1, letters = letters + ?2 WHERE seq = ?1 RETURNING pending";
pub(super) const MESSAGE_ENDED: &str = "UPDATE message SET expires_at = ?2, \
     payload = CASE WHEN letters = 0 THEN NULL ELSE payload END WHERE seq = ?1";
pub(super) const LETTER_DROPPED: &str = "UPDATE message SET letters = letters - 1, \
     payload = CASE WHEN letters = 1 AND pending = 0 THEN NULL ELSE payload END WHERE seq = ?1";
pub(super) const PIECE_REVIVED: &str = "UPDATE message SET pending = pending + 1, letters = letters - 1, \
     expires_at = NULL WHERE seq = ?1 RETURNING pending";
pub(super) const RENAME_UNREADABLE: &str = "UPDATE message SET id = ?2 WHERE seq = ?1";
pub(super) const ADOPT: &str = "INSERT OR IGNORE INTO message (seq, id, accepted_at, pending, letters) \
     SELECT ?1, ?2, ?3, COALESCE(SUM(place IN ('ready', 'leased', 'delayed', 'parked')), 0), \
     COALESCE(SUM(died_at IS NOT NULL), 0) FROM work WHERE message = ?1";
pub(super) const EXPIRED_RECORDS: &str =
    "SELECT seq FROM message WHERE expires_at IS NOT NULL AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
pub(super) const DELETE_MESSAGE: &str = "DELETE FROM message WHERE seq = ?1";
pub(super) const DELETE_WORK_OF: &str = "DELETE FROM work WHERE message = ?1";
pub(super) const LETTERS_OF: &str = "SELECT cause FROM work WHERE message = ?1 AND died_at IS NOT NULL";

// Pieces of work.
pub(super) const LANE: &str = "INSERT OR IGNORE INTO lane (name) VALUES (?1)";
pub(super) const NEW_WORK: &str = "INSERT INTO work \
     (message, idx, lane, destination, label, recipient, place, deadline, turn, ready_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'ready', ?7, ?8, ?9)";
pub(super) const ONE: &str =
    pieces!("WHERE w.message = (SELECT seq FROM message WHERE id = ?1) AND w.idx = ?2");
pub(super) const READY: &str = pieces!("WHERE w.place = 'ready' AND w.lane = ?1 ORDER BY w.turn LIMIT ?2");
pub(super) const LAPSED: &str = pieces!(
    "WHERE w.place = 'leased' AND w.lane = ?1 AND w.lease_until <= ?2 ORDER BY w.lease_until LIMIT ?3"
);
pub(super) const DUE: &str =
    pieces!("WHERE w.place = 'delayed' AND w.lane = ?1 AND w.due <= ?2 ORDER BY w.due LIMIT ?3");
pub(super) const PARKED: &str = pieces!(
    "WHERE w.place = 'parked' AND w.lane = ?1 AND w.destination = ?2 \
     ORDER BY w.deadline, w.message, w.idx LIMIT ?3"
);
pub(super) const OVERDUE: &str = pieces!(
    "WHERE w.place IN ('ready', 'delayed', 'parked') AND w.deadline <= ?1 ORDER BY w.deadline LIMIT ?2"
);
pub(super) const ANY_READY: &str = "SELECT 1 FROM work WHERE place = 'ready' AND lane = ?1 LIMIT 1";
pub(super) const ANY_PARKED: &str =
    "SELECT 1 FROM work WHERE place = 'parked' AND lane = ?1 AND destination = ?2 LIMIT 1";
pub(super) const NEXT_DUE: &str =
    "SELECT due FROM work WHERE place = 'delayed' AND lane = ?1 ORDER BY due LIMIT 1";
pub(super) const BURDEN: &str = "SELECT m.payload, m.accepted_at, w.recipient FROM work w \
     JOIN message m ON m.seq = w.message WHERE w.message = ?1 AND w.idx = ?2";
pub(super) const SAVE: &str = "UPDATE work SET place = ?3, attempts = ?4, pauses = ?5, handed_out = ?6, \
     maybe_sent = ?7, turn = ?8, ready_at = ?9, woken = ?10, due = ?11, owner = ?12, lease_no = ?13, \
     lease_until = ?14 WHERE message = ?1 AND idx = ?2";
pub(super) const RENEW: &str = "UPDATE work SET lease_until = ?5 \
     WHERE message = (SELECT seq FROM message WHERE id = ?1) AND idx = ?2 \
     AND place = 'leased' AND owner = ?3 AND lease_no = ?4";
pub(super) const HISTORY: &str = "SELECT history FROM work WHERE message = ?1 AND idx = ?2";
pub(super) const SET_HISTORY: &str = "UPDATE work SET history = ?3 WHERE message = ?1 AND idx = ?2";
pub(super) const SUCCEEDED: &str = "UPDATE work SET place = ?3, turn = NULL, ready_at = NULL, \
     due = NULL, owner = NULL, lease_no = NULL, lease_until = NULL, recipient = NULL, history = NULL \
     WHERE message = ?1 AND idx = ?2";

// Dead letters.
pub(super) const BURY: &str = "UPDATE work SET cause = ?3, died_at = ?4 WHERE message = ?1 AND idx = ?2";
pub(super) const MAYBE_SENT: &str = "UPDATE work SET maybe_sent = 1 WHERE message = ?1 AND idx = ?2";
pub(super) const LETTER: &str = "SELECT w.message, w.idx, w.lane, w.place, w.cause, w.died_at, m.pending, \
     m.payload IS NOT NULL AND (w.idx = 0 OR w.recipient IS NOT NULL) \
     FROM work w JOIN message m ON m.seq = w.message \
     WHERE w.message = (SELECT seq FROM message WHERE id = ?1) AND w.idx = ?2 AND w.died_at IS NOT NULL";
pub(super) const OLDEST_LETTER: &str = "SELECT message, idx, cause FROM work \
     WHERE cause = ?1 AND died_at IS NOT NULL ORDER BY died_at LIMIT 1";
pub(super) const OLD_LETTERS: &str = "SELECT message, idx, cause FROM work \
     WHERE died_at IS NOT NULL AND died_at <= ?1 ORDER BY died_at LIMIT ?2";
pub(super) const DROP_LETTER: &str = "UPDATE work SET cause = NULL, died_at = NULL, recipient = NULL, \
     history = NULL WHERE message = ?1 AND idx = ?2";
pub(super) const REVIVE: &str = "UPDATE work SET place = 'ready', attempts = 0, pauses = 0, handed_out = 0, \
     maybe_sent = 0, woken = 0, deadline = ?3, turn = ?4, ready_at = ?5, history = NULL, cause = NULL, \
     died_at = NULL WHERE message = ?1 AND idx = ?2";

// Gates.
pub(super) const GATE: &str =
    "SELECT tat_us, held_until, wake_at FROM gate WHERE lane = ?1 AND destination = ?2";
pub(super) const SET_GATE: &str = "INSERT INTO gate (lane, destination, tat_us, held_until, wake_at, quiet_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (lane, destination) DO UPDATE SET tat_us = excluded.tat_us, \
     held_until = excluded.held_until, wake_at = excluded.wake_at, quiet_at = excluded.quiet_at";
pub(super) const AWAKE: &str = "SELECT destination FROM gate WHERE lane = ?1 AND wake_at IS NOT NULL \
     AND wake_at <= ?2 ORDER BY wake_at LIMIT ?3";
pub(super) const NEXT_WAKE: &str =
    "SELECT wake_at FROM gate WHERE lane = ?1 AND wake_at IS NOT NULL ORDER BY wake_at LIMIT 1";
pub(super) const QUIET_GATES: &str =
    "SELECT lane, destination FROM gate WHERE wake_at IS NULL AND quiet_at <= ?1 ORDER BY quiet_at LIMIT ?2";
pub(super) const DELETE_GATE: &str = "DELETE FROM gate WHERE lane = ?1 AND destination = ?2";

// Once, at the start of a service.
pub(super) const RECOVER: &str = "UPDATE work SET place = 'ready', owner = NULL, lease_no = NULL, \
     lease_until = NULL, maybe_sent = (maybe_sent OR idx > 0) WHERE place = 'leased'";

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, StatementStatus};

    use super::*;
    use crate::queue::embedded::{file, schema};

    /// All but the books, which are read as a whole.
    const EVERY: [&str; 45] = [
        BOOK,
        KNOWN,
        NEW_MESSAGE,
        MESSAGE_EXPANDED,
        PIECE_ENDED,
        MESSAGE_ENDED,
        LETTER_DROPPED,
        PIECE_REVIVED,
        RENAME_UNREADABLE,
        ADOPT,
        EXPIRED_RECORDS,
        DELETE_MESSAGE,
        DELETE_WORK_OF,
        LETTERS_OF,
        LANE,
        NEW_WORK,
        ONE,
        READY,
        LAPSED,
        DUE,
        PARKED,
        OVERDUE,
        ANY_READY,
        ANY_PARKED,
        NEXT_DUE,
        BURDEN,
        SAVE,
        RENEW,
        HISTORY,
        SET_HISTORY,
        SUCCEEDED,
        BURY,
        MAYBE_SENT,
        LETTER,
        OLDEST_LETTER,
        OLD_LETTERS,
        DROP_LETTER,
        REVIVE,
        GATE,
        SET_GATE,
        AWAKE,
        NEXT_WAKE,
        QUIET_GATES,
        DELETE_GATE,
        RECOVER,
    ];

    /// How SQLite means to run `sql`, one line a step.
    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for parameter in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(parameter, 1).unwrap();
        }
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>(3).unwrap());
        }
        steps
    }

    #[test]
    fn no_statement_is_left_out() {
        let here = include_str!("statements.rs").lines();
        let constants = here.filter(|line| line.starts_with("pub(super) const ")).count();
        assert_eq!(EVERY.len() + 1, constants);
    }

    #[test]
    fn every_statement_finds_its_rows_by_an_index_and_sorts_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        file::set_up(&connection).unwrap();
        schema::make(&connection).unwrap();
        for sql in EVERY {
            for step in plan(&connection, sql) {
                let by_index =
                    step.starts_with("SEARCH") || step.contains("SUBQUERY") || step == "SCAN CONSTANT ROW";
                // One row of all leased ones is what `RECOVER` wants.
                let all_of_an_index = sql == RECOVER && step.contains("USING INDEX work_leased");
                assert!(by_index || all_of_an_index, "{sql}\n{step}");
            }
        }
    }

    #[test]
    fn no_statement_is_prepared_anew_for_another_value() {
        let connection = Connection::open_in_memory().unwrap();
        file::set_up(&connection).unwrap();
        schema::make(&connection).unwrap();
        for sql in EVERY {
            let mut statement = connection.prepare(sql).unwrap();
            for value in 1..4 {
                for parameter in 1..=statement.parameter_count() {
                    statement.raw_bind_parameter(parameter, value).unwrap();
                }
                // What comes of it does not matter, and a constraint may object.
                let mut rows = statement.raw_query();
                while rows.next().is_ok_and(|row| row.is_some()) {}
            }
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
        }
    }

    #[test]
    fn claim_sweep_expiry_and_park_use_the_index_made_for_them() {
        let connection = Connection::open_in_memory().unwrap();
        file::set_up(&connection).unwrap();
        schema::make(&connection).unwrap();
        for (sql, index) in [
            (READY, "work_ready"),
            (LAPSED, "work_leased"),
            (DUE, "work_due"),
            (PARKED, "work_parked"),
            (OVERDUE, "work_overdue"),
            (EXPIRED_RECORDS, "message_expiry"),
            (OLD_LETTERS, "letter_by_time"),
            (OLDEST_LETTER, "letter_by_cause"),
            (AWAKE, "gate_wake"),
            (NEXT_WAKE, "gate_wake"),
            (QUIET_GATES, "gate_quiet"),
        ] {
            let plan = plan(&connection, sql).join("\n");
            assert!(plan.contains(index), "{sql}\n{plan}");
        }
    }
}
