//! The embedded queue, on the bench.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueSettings};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use tempfile::TempDir;

use super::harness::{Breakage, Store};

/// The queue in a file of the test's own.
pub(crate) struct Embedded {
    folder: TempDir,
    // `None` only while it is being opened: the file has one service at a time.
    queue: Option<Arc<EmbeddedQueue>>,
}

const FILE: &str = "queue.db";

const BREAKAGES: &[Breakage] = &[
    Breakage {
        what: "work is in no place",
        how: "UPDATE work SET place = 'nowhere' WHERE place = 'ready'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "ready work has no turn",
        how: "UPDATE work SET turn = NULL WHERE place = 'ready'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "work in hand is nobody's",
        how: "UPDATE work SET owner = NULL WHERE place = 'leased'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "delayed work has no time",
        how: "UPDATE work SET due = NULL WHERE place = 'delayed'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "work is parked for nobody",
        how: "UPDATE work SET destination = NULL WHERE place = 'parked'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "nothing wakes the parked",
        how: "UPDATE gate SET wake_at = NULL",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the gates are gone", how: "DELETE FROM gate", lost: &[], is_told: false },
    Breakage {
        what: "gates are woken for nothing",
        how: "UPDATE gate SET wake_at = 5; INSERT INTO gate VALUES ('sms', '', 0, NULL, 5, 5), ('sms', 'x', 0, NULL, 5, 5)",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the lanes are forgotten", how: "DELETE FROM lane", lost: &[], is_told: false },
    Breakage {
        what: "the books are wrong",
        how: "UPDATE book SET value = value + 7 WHERE name IN ('made', 'open', 'letters.permanent'); \
              UPDATE book SET value = -3 WHERE name = 'dead'; UPDATE book SET value = 0 WHERE name = 'turn'",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the books are gone", how: "DELETE FROM book", lost: &[], is_told: false },
    Breakage {
        what: "messages count wrongly",
        how: "UPDATE message SET pending = 7, letters = 3",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "messages are deleted",
        how: "DELETE FROM message WHERE id IN ('test:1', 'test:3', 'test:5', 'test:6')",
        lost: &[1, 3, 5, 6],
        is_told: true,
    },
    Breakage {
        what: "routings are lost",
        how: "DELETE FROM work WHERE idx = 0 AND place IN ('ready', 'leased', 'expanded')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "routings that say they are not routed",
        how: "UPDATE work SET place = 'delayed', due = 5 WHERE place = 'expanded'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "a delivery that says it is a routing",
        how: "UPDATE work SET place = 'expanded' WHERE idx = 1 AND message = (SELECT seq FROM message WHERE id = 'test:3')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "ids cannot be read",
        how: "UPDATE message SET id = 'rubbish' WHERE id = 'test:3'; UPDATE message SET id = CAST(x'ff' AS TEXT) WHERE id = 'test:8'",
        lost: &[3, 8],
        is_told: false,
    },
    Breakage {
        what: "a text is lost",
        how: "UPDATE message SET payload = NULL WHERE id = 'test:9'",
        lost: &[9],
        is_told: true,
    },
    Breakage {
        what: "a recipient is lost",
        how: "UPDATE work SET recipient = NULL WHERE idx = 1 AND message = (SELECT seq FROM message WHERE id = 'test:3')",
        lost: &[3],
        is_told: true,
    },
    Breakage {
        what: "what is unfinished expires and what has ended does not",
        how: "UPDATE message SET expires_at = CASE WHEN expires_at IS NULL THEN 9000000000000 END",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "letters of another cause, and of what did not die",
        how: "UPDATE work SET cause = 'expired' WHERE died_at IS NOT NULL; \
              UPDATE work SET died_at = 5 WHERE place = 'parked'; UPDATE work SET cause = 'x' WHERE place = 'leased'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "letters of no cause",
        how: "UPDATE work SET cause = NULL WHERE died_at IS NOT NULL",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "more is kept than needed",
        how: "UPDATE work SET recipient = x'01', history = '[]', owner = 'x', due = 5, turn = 5 WHERE place = 'delivered'; \
              UPDATE message SET payload = x'01' WHERE id = 'test:8'",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "tables and indexes are gone",
        how: "DROP TABLE gate; DROP TABLE lane; DROP INDEX work_ready; DROP INDEX message_expiry",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the table of the books is gone", how: "DROP TABLE book", lost: &[], is_told: false },
];

impl Embedded {
    fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    fn back_door(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("the file can be opened beside its service")
    }
}

impl Store for Embedded {
    type Queue = EmbeddedQueue;
    const NAME: &'static str = "embedded";
    const RESTART_ENDS_LEASES: bool = true;

    async fn new(settings: &QueueSettings, clock: &Clock) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = Self { folder, queue: None };
        store.reopen(settings, clock).await;
        store
    }

    fn queue(&self) -> &Arc<EmbeddedQueue> {
        self.queue.as_ref().expect("open between two calls")
    }

    async fn clear(&mut self, settings: &QueueSettings, clock: &Clock) {
        *self = Self::new(settings, clock).await;
    }

    async fn reopen(&mut self, settings: &QueueSettings, clock: &Clock) {
        drop(self.queue.take());
        let queue = EmbeddedQueue::open(&self.path(), settings.clone(), clock.clone());
        self.queue = Some(Arc::new(queue.expect("the file can be opened")));
        self.queue().prepare().await.expect("a file fit for use");
    }

    async fn crash(&mut self, settings: &QueueSettings, clock: &Clock) {
        // What is in the file at this moment, without the tidy end that dropping is.
        let left = tempfile::tempdir().expect("a temporary folder");
        for name in [FILE, "queue.db-wal"] {
            fs::copy(self.folder.path().join(name), left.path().join(name)).expect("the file can be copied");
        }
        self.queue = None;
        self.folder = left;
        self.reopen(settings, clock).await;
    }

    fn age(&self, _by: Duration) {}

    fn put_garbage(&self, id: &str) -> u64 {
        let changed = self.back_door().execute("UPDATE message SET id = '?' WHERE id = ?1", [id]);
        assert_eq!(changed, Ok(1), "{id} is there");
        0
    }

    fn damage(&self) {
        self.back_door().execute_batch("DROP TABLE gate; DROP INDEX work_ready").expect("they were there");
    }

    fn breakages(&self) -> &'static [Breakage] {
        BREAKAGES
    }

    fn break_by(&self, how: &str) {
        self.back_door().execute_batch(how).expect("the statements run");
    }

    fn keeps(&self, text: &str) -> bool {
        let holds = |value: &Vec<u8>| value.windows(text.len()).any(|window| window == text.as_bytes());
        self.values().iter().any(holds)
    }

    fn values(&self) -> Vec<Vec<u8>> {
        let door = self.back_door();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
        let mut tables = door.prepare(tables).expect("a schema");
        let names: Vec<String> =
            tables.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("names");
        let mut values = Vec::new();
        for table in names {
            let mut statement = door.prepare(&format!("SELECT * FROM {table}")).expect("a table");
            let columns = statement.column_count();
            let mut rows = statement.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                for column in 0..columns {
                    if let Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = row.get_ref(column) {
                        values.push(bytes.to_vec());
                    }
                }
            }
        }
        values
    }

    fn overwrite(&self, old: &[u8], new: &[u8]) {
        let door = self.back_door();
        let change = |table: &str, column: &str| {
            let sql = format!("UPDATE {table} SET {column} = ?2 WHERE {column} = ?1");
            door.execute(&sql, [old, new]).expect("the file can be written beside its service")
        };
        assert_eq!(change("message", "payload") + change("work", "recipient"), 1, "it was there once");
    }

    fn records(&self) -> usize {
        let sql = "SELECT COUNT(*) FROM message";
        let count: i64 = self.back_door().query_row(sql, [], |row| row.get(0)).expect("a count");
        usize::try_from(count).expect("not negative")
    }
}
