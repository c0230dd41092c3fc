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

use super::harness::Store;

/// The queue in a file of the test's own.
pub(crate) struct Embedded {
    folder: TempDir,
    // `None` only while it is being opened: the file has one service at a time.
    queue: Option<Arc<EmbeddedQueue>>,
}

const FILE: &str = "queue.db";

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
