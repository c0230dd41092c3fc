//! What is wrong in a file, and where.

use std::fmt;

/// One fault (or warning) in a file. Its message never holds a value from the file, which might be a
/// secret; it says what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named to us.
    pub file: String,
    /// The line, counted from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for Fault {}
