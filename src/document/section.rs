//! The tables of a document: which keys they have, and where.

use std::cell::RefCell;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::reference::resolve;
use super::source::Source;
use crate::message::Malformed;

/// A string of the document after its references were put in, and where it stands. Its `Debug` is masked,
/// and it is overwritten when it is dropped.
pub struct Text {
    value: Zeroizing<String>,
    line: usize,
    references: Vec<String>,
}

impl Text {
    /// The string.
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text(line {})", self.line)
    }
}

/// One table of the document, or the place where it would be.
///
/// A reader answers its default (or nothing) for a key that is not there, and, after noting the
/// fault, also for a value that is not what it should be. Which keys were asked for is remembered: the
/// rest are unknown.
pub struct Section<'d> {
    source: &'d Source<'d>,
    /// `None` when the file does not have it.
    table: Option<&'d DeTable<'d>>,
    /// Its name, with a dot at the end unless it is the root's.
    path: String,
    /// Where it starts; the enclosing one's line when it is not there.
    line: usize,
    known: RefCell<Vec<&'static str>>,
}

impl fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({}line {})", self.path, self.line)
    }
}

impl<'d> Section<'d> {
    pub(super) fn root(source: &'d Source<'d>, table: &'d DeTable<'d>) -> Self {
        Self { source, table: Some(table), path: String::new(), line: 1, known: RefCell::default() }
    }

    /// Notes a fault at `line`.
    pub fn fault(&self, line: usize, message: impl Into<String>) {
        self.source.fault(line, message.into());
    }

    /// Notes a fault of `key`: `` `ingress.listen` … ``, at the line of its value.
    pub fn fault_of(&self, key: &str, message: impl fmt::Display) {
        self.fault(self.line_of(key), format!("`{}{key}` {message}", self.path));
    }

    /// The line the section starts at.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether the file says anything about `key`, which is thereby known.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// The line of the value of `key`; the section's when it is not there.
    pub fn line_of(&self, key: &str) -> usize {
        match self.table.and_then(|table| table.get(key)) {
            Some(value) => self.source.line_at(value.span().start),
            None => self.line,
        }
    }

    /// Whether `key` is there as a list without entries.
    pub fn is_empty_list(&self, key: &'static str) -> bool {
        self.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty())
    }

    /// A key of a later version: known, and refused when it is there.
    pub fn later(&self, key: &'static str) {
        if self.has(key) {
            self.not_yet(key);
        }
    }

    /// Notes that what `key` says is for a later version.
    pub fn not_yet(&self, key: &str) {
        self.fault_of(key, "is not available in this version");
    }

    /// A table. When the file does not have it, `build` sees an empty one.
    pub fn table<T>(&self, key: &'static str, build: impl FnOnce(&Section<'d>) -> T) -> T {
        let absent = Section {
            source: self.source,
            table: None,
            path: format!("{}{key}.", self.path),
            line: self.line,
            known: RefCell::default(),
        };
        let Some(value) = self.get(key) else { return build(&absent) };
        match value.get_ref() {
            DeValue::Table(table) => self.within(key, value, table, build),
            other => {
                self.wrong_type(key, &format!("a table: [{}{key}]", self.path), other);
                build(&absent)
            }
        }
    }

    /// A table that must be there.
    pub fn required_table<T>(
        &self,
        key: &'static str,
        build: impl FnOnce(&Section<'d>) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.table(key, build);
        }
        self.fault(self.line, format!("[{}{key}] is required", self.path));
        None
    }

    /// A list of tables, `[[key]]`; empty when the file has none. What `build` refuses is left out.
    pub fn tables<T>(&self, key: &'static str, mut build: impl FnMut(&Section<'d>) -> Option<T>) -> Vec<T> {
        let mut list = Vec::new();
        let expected = format!("a list of tables: [[{}{key}]]", self.path);
        match self.get(key).map(Spanned::get_ref) {
            None => {}
            Some(DeValue::Array(items)) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => list.extend(self.within(key, item, table, &mut build)),
                        other => self.wrong_type(key, &expected, other),
                    }
                }
            }
            Some(other) => self.wrong_type(key, &expected, other),
        }
        list
    }

    pub(super) fn get(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().push(key);
        self.table?.get(key)
    }

    pub(super) fn within<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        table: &'d DeTable<'d>,
        build: impl FnOnce(&Section<'d>) -> T,
    ) -> T {
        let section = Section {
            source: self.source,
            table: Some(table),
            path: format!("{}{key}.", self.path),
            line: self.source.line_at(value.span().start),
            known: RefCell::default(),
        };
        let built = build(&section);
        section.refuse_unknown_keys();
        built
    }

    pub(super) fn string(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) -> Option<Text> {
        let line = self.source.line_at(value.span().start);
        let DeValue::String(raw) = value.get_ref() else {
            let found = article(value.get_ref());
            self.fault(line, format!("`{}{key}` must be {expected}, not {found}", self.path));
            return None;
        };
        match resolve(raw, self.source.folder, self.source.env) {
            Ok(resolved) => Some(Text { value: resolved.value, line, references: resolved.references }),
            Err(failures) => {
                for failure in failures {
                    self.fault(line, format!("`{}{key}`: {failure}", self.path));
                }
                None
            }
        }
    }

    pub(super) fn parse<T>(
        &self,
        key: &str,
        text: &Text,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        match parse(text.as_str()) {
            Ok(value) => Some(value),
            Err(Malformed(expected)) => {
                self.refuse(key, text, expected);
                None
            }
        }
    }

    /// Notes what was expected of `text`, and which references it came by: then the cause is there.
    pub(super) fn refuse(&self, key: &str, text: &Text, expected: &str) {
        let mut message = format!("`{}{key}`: {expected}", self.path);
        if !text.references.is_empty() {
            message.push_str(&format!(" (the value is of {})", text.references.join(", ")));
        }
        self.fault(text.line, message);
    }

    pub(super) fn wrong_type(&self, key: &str, expected: &str, found: &DeValue<'_>) {
        self.fault_of(key, format_args!("must be {expected}, not {}", article(found)));
    }

    pub(super) fn refuse_unknown_keys(&self) {
        let Some(table) = self.table else { return };
        let known = self.known.borrow();
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            let line = self.source.line_at(key.span().start);
            self.fault(line, format!("unknown key `{}{shown}`; {}", self.path, Nearest(name, &known)));
        }
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Help for an unknown key: the nearest known one, or all of them when none is near.
struct Nearest<'a>(&'a str, &'a [&'static str]);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, known) = self;
        let score = |known: &&str| strsim::jaro_winkler(name, known);
        match known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b))) {
            Some(nearest) if score(&nearest) >= 0.75 => write!(f, "did you mean `{nearest}`?"),
            Some(_) => {
                let mut names = known.to_vec();
                names.sort_unstable();
                names.dedup();
                write!(f, "known here: `{}`", names.join("`, `"))
            }
            None => write!(f, "none is known here"),
        }
    }
}
