//! Self-healing: parts of the store that somebody removed are made anew, and what is still there is
//! found again.

use rusqlite::{Connection, params};

use super::schema;
use crate::clock::Timestamp;

/// The tables from the rows that are left. Each statement does nothing where nothing is missing.
///
/// * A message of which no work is left is routed again: its text is there, and better a recipient
///   hears twice than never.
/// * Parked work whose gate is gone is woken now.
const FROM_WHAT_IS_LEFT: [&str; 5] = [
    "INSERT INTO work (message, idx, lane, place, deadline, turn, ready_at) \
     SELECT m.seq, 0, 'in', 'ready', ?1 + 300000, m.seq, ?1 FROM message m \
     WHERE m.pending > 0 AND NOT EXISTS (SELECT 1 FROM work w WHERE w.message = m.seq)",
    "UPDATE message SET \
     pending = (SELECT COUNT(*) FROM work w WHERE w.message = message.seq \
                AND w.place IN ('ready', 'leased', 'delayed', 'parked')), \
     letters = (SELECT COUNT(*) FROM work w WHERE w.message = message.seq AND w.died_at IS NOT NULL) \
     WHERE ?1 IS NOT NULL",
    "INSERT OR IGNORE INTO gate (lane, destination, tat_us, wake_at, quiet_at) \
     SELECT DISTINCT lane, destination, 0, ?1, ?1 FROM work WHERE place = 'parked' AND destination IS NOT NULL",
    "UPDATE gate SET wake_at = NULL WHERE ?1 IS NOT NULL AND wake_at IS NOT NULL AND NOT EXISTS (SELECT 1 \
     FROM work w WHERE w.place = 'parked' AND w.lane = gate.lane AND w.destination = gate.destination)",
    "INSERT OR IGNORE INTO lane (name) SELECT DISTINCT lane FROM work WHERE ?1 IS NOT NULL",
];

/// The books from the rows that are left: what ended and is forgotten cannot be counted any more, but
/// what is there adds up.
const BOOKS: &str = "INSERT OR REPLACE INTO book (name, value) \
     SELECT 'accepted', COUNT(*) FROM message \
     UNION ALL SELECT 'open', COUNT(*) FROM message WHERE pending > 0 \
     UNION ALL SELECT 'made', COUNT(*) FROM work WHERE place <> 'expanded' \
     UNION ALL SELECT 'delivered', COUNT(*) FROM work WHERE place = 'delivered' \
     UNION ALL SELECT 'dead', COUNT(*) FROM work WHERE place = 'dead' \
     UNION ALL SELECT 'expired', COUNT(*) FROM work WHERE place = 'expired' \
     UNION ALL SELECT 'turn', COALESCE(MAX(turn), 0) FROM work \
     UNION ALL SELECT 'lease', COALESCE(MAX(lease_no), 0) FROM work \
     UNION ALL SELECT 'letters.' || cause, COUNT(*) FROM work WHERE died_at IS NOT NULL GROUP BY cause";

fn present(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare("SELECT name FROM sqlite_schema")?.query_map([], |row| row.get(0))?.collect()
}

/// Notices that somebody changed the tables.
#[derive(Default)]
pub(super) struct Watch {
    /// SQLite's count of changes to the tables, when it was last looked whether all are there.
    seen: Option<i64>,
}

impl Watch {
    /// Looks, within the open transaction, whether anybody changed the tables since the last time, and
    /// makes anew what they took. Returns whether anything was missing.
    pub(super) fn mend_if_changed(
        &mut self,
        connection: &Connection,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        let version = |connection: &Connection| -> rusqlite::Result<i64> {
            connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
        };
        if self.seen == Some(version(connection)?) {
            return Ok(false);
        }
        let mended = mend(connection, now)?;
        self.seen = Some(version(connection)?);
        Ok(mended)
    }
}

/// Looks whether all tables and indexes are there; if not, makes them, within the open transaction.
/// Returns whether anything was missing.
fn mend(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    let present = present(connection)?;
    let missing: Vec<&str> =
        schema::NAMES.into_iter().filter(|name| !present.iter().any(|found| found == name)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    tracing::error!(missing = missing.join(" "), "parts of the queue's file were removed and are made anew");
    schema::make(connection)?;
    for sql in FROM_WHAT_IS_LEFT {
        connection.execute(sql, params![now.as_millis()])?;
    }
    if missing.iter().any(|name| ["book", "work", "message"].contains(name)) {
        connection.execute_batch(BOOKS)?;
    }
    Ok(true)
}
