//! The database file: whose it is, whether it is sound, and how it is opened.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault;
use super::schema;
use super::statements;
use crate::queue::contract::QueueError;

/// How long to wait for the short transactions of another process.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Files up to this size are looked through when a service opens them.
const CHECKED_UP_TO: u64 = 256 * 1024 * 1024;

/// The size to which the log is cut back after a busy hour.
const LOG_KEPT: u64 = 16 * 1024 * 1024;

/// The connections to an open queue.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    /// Only of a service.
    pub(super) identity: Option<Identity>,
    /// Held for as long as the service lives.
    pub(super) lock: Option<File>,
}

/// Which file of the file system was opened.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file at `path`, as it is now.
    pub(super) fn of(path: &Path) -> Result<Self, QueueError> {
        let found = fs::metadata(path).map_err(|error| cannot("open", path, &error))?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// The path of a file that belongs to it.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }

    /// Fails when the path no longer leads to the file: what is written to it now would be gone with
    /// the process.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        match fs::metadata(&self.path) {
            Ok(found) if found.dev() == self.device && found.ino() == self.inode => Ok(()),
            Ok(_) => Err(QueueError::Unusable("its file was replaced under the running service".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(QueueError::Unusable("its file was removed under the running service".to_owned()))
            }
            // Not being able to look says nothing about the file.
            Err(_) => Ok(()),
        }
    }
}

/// Opens a queue for the one service it belongs to; makes it if there is none.
pub(super) fn open_for_service(path: &Path) -> Result<Opened, QueueError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| cannot("make the folder of", path, &error))?;
    }
    let path = &resolve(path)?;
    let lock = lock(path)?;
    if is_absent(path)? {
        create(path)?;
    }
    check_header(path)?;
    let connection = connect(path)?;
    verify(&connection, path)?;
    recover(&connection)
        .and_then(|()| allow_fold_on_close(&connection))
        .map_err(|error| explain("open", path, &error))?;
    Ok(Opened {
        reader: connect_to_read(path)?,
        writer: connection,
        identity: Some(Identity::of(path)?),
        lock: Some(lock),
    })
}

/// Opens a queue beside its service, or while there is none: nothing is recovered, and the log is
/// left to the service.
pub(super) fn open_beside(path: &Path) -> Result<Opened, QueueError> {
    if is_absent(path)? {
        return Err(QueueError::Unavailable(format!("no such queue file: {}", path.display())));
    }
    let path = &resolve(path)?;
    let reader = connect_to_read(path)?;
    check_through(&reader, path)?;
    let connection = connect(path)?;
    let prepared = connection
        .execute_batch("PRAGMA wal_autocheckpoint = 0")
        .and_then(|()| allow_fold_on_close(&connection));
    prepared.map_err(|error| explain("open", path, &error))?;
    Ok(Opened { reader, writer: connection, identity: None, lock: None })
}

/// The one name of a file, so that a link to it does not get a lock of its own.
fn resolve(path: &Path) -> Result<PathBuf, QueueError> {
    let resolved = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            fs::canonicalize(folder.unwrap_or(Path::new("."))).map(|folder| match path.file_name() {
                Some(name) => folder.join(name),
                None => folder,
            })
        }
        other => other,
    };
    resolved.map_err(|error| cannot("find", path, &error))
}

/// `path` with `suffix` behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, QueueError> {
    let lock_path = beside(path, ".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let file = file.map_err(|error| cannot("lock", path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(QueueError::Unusable(format!("another service process is running on {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(cannot("lock", path, &error)),
    }
}

/// Whether there is no file, or an empty one that holds nobody's data.
fn is_absent(path: &Path) -> Result<bool, QueueError> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(found.len() == 0),
        Ok(_) => Err(not_ours(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(cannot("open", path, &error)),
    }
}

/// Makes an empty queue under another name and moves it into place, so that a crash in between
/// leaves no half-made file that would be taken for a foreign one.
fn create(path: &Path) -> Result<(), QueueError> {
    let log = beside(path, "-wal");
    if fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
        return Err(QueueError::Unusable(format!(
            "{} is the log of a queue file that is gone; put the file back, or move the log away",
            log.display()
        )));
    }
    let draft = beside(path, ".new");
    for stale in [draft.clone(), beside(&draft, "-wal"), beside(&draft, "-shm"), log, beside(path, "-shm")] {
        match fs::remove_file(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("make", path, &error));
            }
            _ => {}
        }
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .map_err(|error| cannot("make", path, &error))?;
    fill(&draft).map_err(|error| explain("make", path, &error))?;
    let in_place = File::open(&draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&draft, path))
        .and_then(|()| File::open(path.parent().unwrap_or(Path::new("/"))))
        .and_then(|folder| folder.sync_all());
    in_place.map_err(|error| cannot("make", path, &error))
}

fn fill(draft: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Only an empty file takes `auto_vacuum`, so it comes first.
    connection.execute_batch(&format!(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; \
         PRAGMA application_id = {}; PRAGMA user_version = {};",
        schema::APPLICATION_ID,
        schema::VERSION
    ))?;
    connection.execute_batch("BEGIN")?;
    schema::make(&connection)?;
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, error)| error)
}

/// Looks at the first bytes of a file, before SQLite is let near it.
///
/// Only for a file that nobody in this process has open: closing any handle of a file takes away the
/// locks that SQLite holds on it (<https://sqlite.org/howtocorrupt.html>, section 2.2).
fn check_header(path: &Path) -> Result<(), QueueError> {
    let mut header = [0_u8; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(not_ours(path)),
        Err(error) => return Err(cannot("open", path, &error)),
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // Offsets of the database header, https://sqlite.org/fileformat2.html#the_database_header
    if !header.starts_with(b"SQLite format 3\0") || number(68) != schema::APPLICATION_ID {
        return Err(not_ours(path));
    }
    refuse_other_versions(number(60), path)
}

fn refuse_other_versions(version: u32, path: &Path) -> Result<(), QueueError> {
    if version == schema::VERSION {
        return Ok(());
    }
    let whose = if version > schema::VERSION { "a newer" } else { "an older" };
    Err(QueueError::Unusable(format!(
        "{} was written by {whose} version of this program (its format is {version}, this one's {})",
        path.display(),
        schema::VERSION
    )))
}

/// Looks at the same through a connection that can only read.
fn check_through(connection: &Connection, path: &Path) -> Result<(), QueueError> {
    let application: u32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|error| explain("open", path, &error))?;
    if application == schema::APPLICATION_ID { check_version(connection, path) } else { Err(not_ours(path)) }
}

fn check_version(connection: &Connection, path: &Path) -> Result<(), QueueError> {
    let version = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| explain("open", path, &error))?;
    refuse_other_versions(version, path)
}

fn connect(path: &Path) -> Result<Connection, QueueError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        forbid_fold_on_close(&connection)?;
        set_up(&connection)?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON; \
             PRAGMA secure_delete = ON; PRAGMA journal_size_limit = {LOG_KEPT};"
        ))?;
        Ok(connection)
    };
    open().map_err(|error| explain("open", path, &error))
}

fn connect_to_read(path: &Path) -> Result<Connection, QueueError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        set_up(&connection)?;
        Ok(connection)
    };
    open().map_err(|error| explain("open", path, &error))
}

pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Plans do not depend on what is bound. Else SQLite prepares a statement anew for every other value, which took
    // half of the writer's time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Sorting must not spill texts into temporary files.
    connection.execute_batch(
        "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; \
         PRAGMA cell_size_check = ON; PRAGMA cache_size = -12288;",
    )
}

/// Leaves the file as it is when the connection is closed: for files that are not to be touched.
pub(super) fn forbid_fold_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}

fn allow_fold_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(|_| ())
}

/// Looks through a file that is not too large for it.
fn verify(connection: &Connection, path: &Path) -> Result<(), QueueError> {
    check_version(connection, path)?;
    let size = fs::metadata(path).map_err(|error| cannot("open", path, &error))?.len();
    if size > CHECKED_UP_TO {
        tracing::info!(bytes = size, "the queue's file is too large to be looked through at the start");
        return Ok(());
    }
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| explain("open", path, &error))?;
    if finding == "ok" {
        Ok(())
    } else {
        Err(QueueError::Unusable(format!("{} is damaged; it was left as it is", path.display())))
    }
}

/// Whatever is leased belonged to a process that is gone: it is ready again at once, with its
/// hand-outs counted, and may have been sent.
fn recover(connection: &Connection) -> rusqlite::Result<()> {
    let recovered = connection.execute(statements::RECOVER, [])?;
    if recovered > 0 {
        tracing::info!(pieces = recovered, "work left behind by a process that ended is ready again");
    }
    Ok(())
}

fn not_ours(path: &Path) -> QueueError {
    QueueError::Unusable(format!("{} is not a queue of this program; it was left as it is", path.display()))
}

/// An error of the file system. At the start it is final: nobody changes rights while we wait.
fn cannot(verb: &str, path: &Path, error: &io::Error) -> QueueError {
    let text = format!("cannot {verb} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => QueueError::Exhausted(text),
        _ => QueueError::Unusable(text),
    }
}

fn explain(verb: &str, path: &Path, error: &rusqlite::Error) -> QueueError {
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return not_ours(path);
    }
    match fault::queue_error(error) {
        QueueError::Exhausted(why) => QueueError::Exhausted(why),
        QueueError::Unusable(_) => {
            QueueError::Unusable(format!("{} is damaged; it was left as it is", path.display()))
        }
        QueueError::Unavailable(why) => {
            QueueError::Unavailable(format!("cannot {verb} {}: {why}", path.display()))
        }
    }
}
