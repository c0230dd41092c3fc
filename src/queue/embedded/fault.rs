//! What SQLite's errors mean for a caller.

use std::sync::OnceLock;

use rusqlite::{Error, ErrorCode, ffi};

use crate::queue::contract::QueueError;

/// Nothing that needs space is taken.
pub(super) fn out_of_space() -> QueueError {
    QueueError::Exhausted("the disk has no space for it".to_owned())
}

/// The caller's view of an error. The texts are ours: SQLite's name columns and files, and no more is
/// needed than its code.
pub(super) fn queue_error(error: &Error) -> QueueError {
    let code = error.sqlite_error().map_or(0, |inner| inner.extended_code);
    if is_lack_of_space(error) {
        return out_of_space();
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::OutOfMemory) => QueueError::Exhausted("no memory for the queue".to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            QueueError::Unusable(format!("its file is damaged (SQLite {code})"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            QueueError::Unavailable("another process holds its file".to_owned())
        }
        Some(ErrorCode::SystemIoFailure) => {
            QueueError::Unavailable(format!("its file cannot be read or written (SQLite {code})"))
        }
        Some(_) => QueueError::Unavailable(format!("SQLite error {code}")),
        None => QueueError::Unavailable("a row of its file cannot be read".to_owned()),
    }
}

/// Whether nothing may be done with the file after this error. A failed write or `fsync` leaves it
/// unknown what the disk holds; trying again can report success for data that is lost.
pub(super) fn is_final(error: &Error) -> bool {
    !is_lack_of_space(error)
        && matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
}

/// Whether the disk is full: another, smaller transaction may still succeed.
pub(super) fn is_lack_of_space(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|inner| {
        // The index of the log is extended by writing to it, and that says why not less clearly.
        inner.code == ErrorCode::DiskFull || inner.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// Whether the store still works. Once broken it stays so until it is opened anew.
#[derive(Debug, Default)]
pub(super) struct Health(OnceLock<QueueError>);

impl Health {
    /// Fails with what broke the store, if something did.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Notes what broke it; the first reason stays.
    pub(super) fn fail(&self, error: QueueError) {
        if self.0.set(error.clone()).is_ok() {
            tracing::error!(%error, "the embedded queue stops");
        }
    }
}
