//! What goes to the two outputs, and what the exit code says.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use sms_broadcaster::document::Fault;
use sms_broadcaster::message::Malformed;
use sms_broadcaster::queue::contract::QueueError;

/// Why it did not go well. A line each on the standard error.
pub(crate) enum Failure {
    /// Exit code 2: the command line, or the files.
    Usage(Vec<String>),
    /// Exit code 1: the world.
    Failed(Vec<String>),
    /// Whoever read our output has seen enough (`| head`).
    NobodyReads,
}

impl Failure {
    pub(crate) fn usage(why: impl Display) -> Self {
        Self::Usage(vec![why.to_string()])
    }

    pub(crate) fn failed(why: impl Display) -> Self {
        Self::Failed(vec![why.to_string()])
    }

    /// A flag's value is not what it should be. The value is not told: it may be somebody's number.
    pub(crate) fn of(flag: &'static str) -> impl FnOnce(Malformed) -> Self {
        move |malformed| Self::usage(format_args!("{flag}: {malformed}"))
    }

    pub(crate) fn tell(self) -> ExitCode {
        let (code, lines) = match self {
            Self::Usage(lines) => (2, lines),
            Self::Failed(lines) => (1, lines),
            Self::NobodyReads => (0, Vec::new()),
        };
        for line in lines {
            complain("error", line);
        }
        ExitCode::from(code)
    }
}

impl From<Vec<Fault>> for Failure {
    fn from(faults: Vec<Fault>) -> Self {
        Self::Usage(faults.iter().map(ToString::to_string).collect())
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::failed(error)
    }
}

/// A line on the standard error. When nobody reads that either, the exit code still tells.
pub(crate) fn complain(kind: &str, what: impl Display) {
    let _ = writeln!(std::io::stderr(), "{kind}: {what}");
}

/// Writes an answer to the standard output.
pub(crate) fn show(page: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(page.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
        Err(error) => Err(Failure::failed(format_args!("the output cannot be written: {}", error.kind()))),
    }
}

pub(crate) fn show_json(json: &str) -> Result<(), Failure> {
    show(&format!("{json}\n"))
}
