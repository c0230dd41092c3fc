//! What is stored, and how a database file is told to be ours.

use rusqlite::Connection;

/// Written into the file's header (`PRAGMA application_id`): "smsq". A file without it is another's.
pub(super) const APPLICATION_ID: u32 = 0x736d_7371;

/// Written into the file's header (`PRAGMA user_version`): the version of the tables below. It rises
/// when an older program could no longer work with them.
pub(super) const VERSION: u32 = 1;

/// Every table and index. All of it is `IF NOT EXISTS`, so that it also mends a file from which
/// somebody dropped a part.
///
/// * `message`: identity, text and the sums over its pieces. `pending` counts pieces that have not
///   ended, `letters` its dead letters that can be shown. `payload` is NULL once nothing needs it;
///   `expires_at` is NULL while anything is pending.
/// * `work`: one row per piece. `place` says where it is (see [`super::piece::Place`]); columns that
///   do not belong to the place are NULL, except that `turn` and `ready_at` outlive a hand-out, so
///   that what is given back stands where it stood. A row with `died_at` is a dead letter.
/// * `gate`: per lane (`destination` empty) and destination, the state of its rate (`tat_us`, see
///   [`super::gcra`]), its pause, and when its parked work may go on. A destination has parked work
///   exactly if `wake_at` is not NULL. From `quiet_at` on a row without `wake_at` says nothing.
/// * `lane`: the lanes that ever had work.
/// * `book`: the counters (see [`super::books`]).
///
/// Every question asked while work flows is answered by one of the indexes; they are partial, so a
/// piece is in the one of its place only.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS message (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    payload     BLOB,
    accepted_at INTEGER NOT NULL,
    subscriber  TEXT NOT NULL DEFAULT '',
    pending     INTEGER NOT NULL,
    letters     INTEGER NOT NULL DEFAULT 0,
    expires_at  INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS work (
    message     INTEGER NOT NULL,
    idx         INTEGER NOT NULL CHECK (idx BETWEEN 0 AND 65535),
    lane        TEXT NOT NULL,
    destination TEXT,
    label       TEXT,
    recipient   BLOB,
    place       TEXT NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    pauses      INTEGER NOT NULL DEFAULT 0,
    handed_out  INTEGER NOT NULL DEFAULT 0,
    maybe_sent  INTEGER NOT NULL DEFAULT 0,
    deadline    INTEGER NOT NULL,
    turn        INTEGER,
    ready_at    INTEGER,
    woken       INTEGER NOT NULL DEFAULT 0,
    due         INTEGER,
    owner       TEXT,
    lease_no    INTEGER,
    lease_until INTEGER,
    history     TEXT,
    cause       TEXT,
    died_at     INTEGER,
    PRIMARY KEY (message, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gate (
    lane        TEXT NOT NULL,
    destination TEXT NOT NULL,
    tat_us      INTEGER NOT NULL,
    held_until  INTEGER,
    wake_at     INTEGER,
    quiet_at    INTEGER NOT NULL,
    PRIMARY KEY (lane, destination)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lane (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS book (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS message_expiry ON message (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_ready  ON work (lane, turn)        WHERE place = 'ready';
CREATE INDEX IF NOT EXISTS work_leased ON work (lane, lease_until) WHERE place = 'leased';
CREATE INDEX IF NOT EXISTS work_due    ON work (lane, due)         WHERE place = 'delayed';
CREATE INDEX IF NOT EXISTS work_parked ON work (lane, destination, deadline) WHERE place = 'parked';
CREATE INDEX IF NOT EXISTS work_overdue ON work (deadline) WHERE place IN ('ready', 'delayed', 'parked');
CREATE INDEX IF NOT EXISTS letter_by_time ON work (died_at) WHERE died_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS letter_by_cause ON work (cause, died_at) WHERE died_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS gate_wake  ON gate (lane, wake_at)    WHERE wake_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS gate_held  ON gate (lane, held_until) WHERE held_until IS NOT NULL;
CREATE INDEX IF NOT EXISTS gate_quiet ON gate (quiet_at)         WHERE wake_at IS NULL;
";

/// The names of everything in a whole file, for the audit.
pub(super) const NAMES: [&str; 16] = [
    "message",
    "work",
    "gate",
    "lane",
    "book",
    "message_expiry",
    "work_ready",
    "work_leased",
    "work_due",
    "work_parked",
    "work_overdue",
    "letter_by_time",
    "letter_by_cause",
    "gate_wake",
    "gate_held",
    "gate_quiet",
];

/// Makes what is missing. To be called within a transaction.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_names_is_what_the_schema_makes() {
        let connection = Connection::open_in_memory().unwrap();
        make(&connection).unwrap();
        make(&connection).unwrap();
        let mut statement =
            connection.prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'").unwrap();
        let mut made: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut named = NAMES.map(str::to_owned).to_vec();
        made.sort();
        named.sort();
        assert_eq!(made, named);
    }
}
