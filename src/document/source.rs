//! From the text of a file to its root section, and to all its faults.

use std::cell::RefCell;
use std::path::Path;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::reference::Environment;
use super::section::Section;

/// What all sections of one document share.
pub(super) struct Source<'d> {
    pub(super) file: &'d str,
    pub(super) folder: &'d Path,
    pub(super) env: &'d Environment<'d>,
    /// Byte offset of the start of every line.
    line_starts: Vec<usize>,
    faults: RefCell<Vec<Fault>>,
}

impl Source<'_> {
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    pub(super) fn fault(&self, line: usize, message: String) {
        self.faults.borrow_mut().push(Fault { file: self.file.to_owned(), line, message });
    }
}

/// Reads `text` as TOML and hands its root to `build`.
///
/// `file` is the name used in faults, `folder` where a relative `${file:…}` starts, `env` where `${NAME}`
/// is looked up. `build` returns `None` only after it noted a fault. The result is what it built, or
/// every fault of the file in the order of lines. Text that is not TOML is told as far as the parser can
/// follow it, and `build` is not asked.
pub fn read<T>(
    text: &str,
    file: &str,
    folder: &Path,
    env: &Environment<'_>,
    build: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let line_starts =
        std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1));
    let source = Source { file, folder, env, line_starts: line_starts.collect(), faults: RefCell::default() };
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    for error in &errors {
        // After a key that is there twice the rest is sound; after anything else it may be a guess.
        readable &= error.message() == "duplicate key";
        // What is missing at the end is missing on the last line that says something.
        let offset = error.span().map_or(text.len(), |span| span.start).min(text.trim_end().len());
        // The message alone: the error's `Display` would show the line, which may hold a secret.
        source.fault(source.line_at(offset), error.message().to_owned());
    }
    let mut built = None;
    if readable {
        let section = Section::root(&source, root.get_ref());
        built = build(&section);
        section.refuse_unknown_keys();
    }
    let mut faults = source.faults.into_inner();
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    match built {
        Some(built) if faults.is_empty() => Ok(built),
        None if faults.is_empty() => {
            unreachable!("a document is refused only with a fault: {file}")
        }
        _ => Err(faults),
    }
}

/// Reads the file at `path` as [`read`] does; it is its own folder's.
pub fn load<T>(
    path: &Path,
    env: &Environment<'_>,
    build: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let file = path.display().to_string();
    let whole = |line, message| vec![Fault { file: file.clone(), line, message }];
    let bytes = std::fs::read(path).map_err(|error| whole(0, format!("cannot be read: {}", error.kind())))?;
    // It may hold secrets, whatever the advice is.
    let bytes = Zeroizing::new(bytes);
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            return Err(whole(line, "is not UTF-8 text".to_owned()));
        }
    };
    read(text, &file, path.parent().unwrap_or(Path::new("")), env, build)
}
