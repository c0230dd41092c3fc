//! What a section can be asked for: one reader for each kind of value.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::quantity::{
    Frequency, LONGEST, duration_text, parse_duration, parse_frequency, parse_size, size_text,
};
use super::section::{Section, Text};
use crate::message::Malformed;

impl<'d> Section<'d> {
    /// A boolean.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.get(key).map(Spanned::get_ref) {
            None => default,
            Some(DeValue::Boolean(flag)) => *flag,
            Some(other) => {
                self.wrong_type(key, "true or false", other);
                default
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let number = match self.get(key).map(Spanned::get_ref) {
            None => return default,
            Some(DeValue::Integer(number)) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            Some(other) => {
                self.wrong_type(key, "a whole number", other);
                return default;
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                self.fault_of(key, Between(range.start(), range.end()));
                default
            }
        }
    }

    /// A number within `range`, with or without a fraction.
    pub fn number(&self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let number = match self.get(key).map(Spanned::get_ref) {
            None => return default,
            Some(DeValue::Float(number)) => number.as_str().parse::<f64>().ok(),
            Some(DeValue::Integer(number)) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|number| i32::try_from(number).ok())
                .map(f64::from),
            Some(other) => {
                self.wrong_type(key, "a number", other);
                return default;
            }
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                self.fault_of(key, Between(range.start(), range.end()));
                default
            }
        }
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Option<Text> {
        self.string(key, "a string", self.get(key)?)
    }

    /// What `parse` makes of a string.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        let text = self.text(key)?;
        self.parse(key, &text, parse)
    }

    /// What `parse` makes of a string that must be there.
    pub fn required<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key);
            return None;
        }
        self.parsed(key, parse)
    }

    /// Notes that a key that must be there is not.
    pub fn missing(&self, key: &str) {
        self.fault_of(key, "is required");
    }

    /// What `parse` makes of every string of a list; a single string is a list of one. `None` when the
    /// key is not there. Faulty entries are left out.
    pub fn list<T>(
        &self,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, Malformed>,
    ) -> Option<Vec<T>> {
        let items = self.items(key, "a string or a list of strings")?;
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            let text = self.string(key, "a list of strings", item);
            list.extend(text.and_then(|text| self.parse(key, &text, &mut parse)));
        }
        Some(list)
    }

    /// The same for a list whose entries may be tables too, which `table` reads.
    pub fn list_or_tables<T>(
        &self,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, Malformed>,
        mut table: impl FnMut(&Section<'d>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(key, "a string, a table or a list of them")?;
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            if let DeValue::Table(inner) = item.get_ref() {
                list.extend(self.within(key, item, inner, &mut table));
            } else {
                let text = self.string(key, "a list of strings and tables", item);
                list.extend(text.and_then(|text| self.parse(key, &text, &mut parse)));
            }
        }
        Some(list)
    }

    /// A duration with its unit, within `range`; see [`parse_duration`]. `None` when it is not there.
    pub fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.quantity(key, DURATION)?;
        self.duration_of(key, &text, range)
    }

    /// The same, or `word` in its place, which is `Some(None)`.
    pub fn duration_or_word(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        word: &str,
    ) -> Option<Option<Duration>> {
        let text = self.quantity(key, DURATION)?;
        if text.as_str() == word {
            return Some(None);
        }
        self.duration_of(key, &text, range).map(Some)
    }

    fn duration_of(
        &self,
        key: &'static str,
        text: &Text,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.parse(key, text, parse_duration)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let (shortest, longest) = (duration_text(*range.start()), duration_text(*range.end()));
        if *range.end() >= LONGEST {
            self.fault_of(key, format_args!("must be at least {shortest}"));
        } else {
            self.fault_of(key, format_args!("must be between {shortest} and {longest}"));
        }
        None
    }

    /// A size with its unit, in bytes, within `range`; see [`parse_size`].
    pub fn size(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let text = self.quantity(key, "a size with its unit, in quotes: \"64KiB\"");
        let size = text.and_then(|text| self.parse(key, &text, parse_size));
        let Some(size) = size else { return default };
        if !range.contains(&size) {
            self.fault_of(key, Between(&size_text(*range.start()), &size_text(*range.end())));
            return default;
        }
        size
    }

    /// A rate; see [`parse_frequency`]. `None` when it is `"off"`. `default` is written the same way.
    pub fn frequency(&self, key: &'static str, default: &'static str) -> Option<Frequency> {
        let text = self.quantity(key, "a rate, in quotes: \"10/s\" or \"off\"");
        let frequency = text.and_then(|text| self.parse(key, &text, parse_frequency));
        frequency.unwrap_or_else(|| parse_frequency(default).expect("a default is a rate"))
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else { return default };
        match words.iter().find(|(word, _)| *word == text.as_str()) {
            Some((_, meaning)) => *meaning,
            None => {
                let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                self.refuse(key, &text, &format!("is one of {}", known.join(", ")));
                default
            }
        }
    }

    fn items(&self, key: &'static str, expected: &str) -> Option<Vec<&'d Spanned<DeValue<'d>>>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().collect()),
            DeValue::String(_) | DeValue::Table(_) => Some(vec![value]),
            other => {
                self.wrong_type(key, expected, other);
                None
            }
        }
    }

    fn quantity(&self, key: &'static str, expected: &str) -> Option<Text> {
        self.string(key, expected, self.get(key)?)
    }
}

const DURATION: &str = "a duration with its unit, in quotes: \"10s\"";

/// What a number must be.
struct Between<'a, T>(&'a T, &'a T);

impl<T: fmt::Display> fmt::Display for Between<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be between {} and {}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::read;
    use super::*;

    fn faults_of<T>(text: &str, build: impl FnOnce(&Section<'_>) -> T) -> Vec<String> {
        let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
        match read(text, "f.toml", Path::new(""), &env, |root| Some(build(root))) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let faults = faults_of("a = 1\n\n[b]\nlisten = 1\nlistne = 2\n", |root| {
            root.integer("a", 0, 0..=9);
            root.table("b", |b| b.integer("listen", 0, 0..=9));
        });
        assert_eq!(faults, ["f.toml:5: unknown key `b.listne`; did you mean `listen`?"]);
        let faults = faults_of("zz = 1", |root| root.flag("alpha", true));
        assert_eq!(faults, ["f.toml:1: unknown key `zz`; known here: `alpha`"]);
    }

    #[test]
    fn every_fault_is_told_in_the_order_of_lines() {
        let faults = faults_of("z = \"x\"\na = 10\nm = \"5\"\n", |root| {
            root.integer("a", 0, 0..=9);
            root.duration("m", Duration::ZERO..=LONGEST);
            root.flag("z", true);
            root.required("gone", |text| Ok(text.to_owned()));
        });
        assert_eq!(
            faults,
            [
                "f.toml:1: `z` must be true or false, not a string",
                "f.toml:1: `gone` is required",
                "f.toml:2: `a` must be between 0 and 9",
                "f.toml:3: `m`: a duration needs a unit: \"250ms\", \"10s\", \"10m\" or \"24h\"",
            ]
        );
    }

    #[test]
    fn what_is_not_toml_is_told_by_line_without_the_line_itself() {
        let faults = faults_of("a = 1\nsecret = \"hunter2\nb = 2\n", |_| ());
        assert!(faults[0].starts_with("f.toml:2: "), "{faults:?}");
        assert!(!faults.concat().contains("hunter2"));
        let faults =
            faults_of("a = 1\nb = 2\na = 3\nc = 4", |root| (root.flag("b", true), root.flag("a", true)));
        assert!(faults.iter().any(|fault| fault == "f.toml:3: duplicate key"), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("f.toml:4: unknown key `c`")), "{faults:?}");
    }

    #[test]
    fn a_faulty_value_is_blamed_on_its_reference_and_not_shown() {
        let faults = faults_of("a = [\n\"2\",\n\"${SECRET}\"\n]", |root| {
            root.list("a", |text| text.parse::<u8>().map_err(|_| Malformed("not a number")))
        });
        assert_eq!(faults, ["f.toml:3: `a`: not a number (the value is of ${SECRET})"]);
    }

    #[test]
    fn a_list_may_be_a_single_string_and_may_hold_tables() {
        let word = |text: &str| Ok(text.to_owned());
        let read = |text: &str| {
            read(text, "f", Path::new(""), &|_| None, |root| {
                root.list_or_tables("a", word, |table| table.required("b", word))
            })
        };
        assert_eq!(read("a = 'x'").unwrap(), ["x"]);
        assert_eq!(read("a = ['x', { b = 'y' }]").unwrap(), ["x", "y"]);
        assert_eq!(read("a = { b = 'y' }").unwrap(), ["y"]);
        assert_eq!(read("a = ['x', 1]").unwrap_err()[0].line, 1);
        assert!(read("a = [{ c = 'y' }]").unwrap_err().len() == 2);
    }

    #[test]
    fn integers_may_be_written_any_way_toml_knows_and_stay_within_bounds() {
        for (text, good) in [("0x10", true), ("1_000", true), ("-1", false), ("99999999999999999999", false)]
        {
            assert_eq!(
                faults_of(&format!("a = {text}"), |root| root.integer("a", 1, 1..=2_000)).is_empty(),
                good
            );
        }
        for (text, good) in [("2", true), ("2.5", true), ("nan", false), ("inf", false), ("0.5", false)] {
            assert_eq!(
                faults_of(&format!("a = {text}"), |root| root.number("a", 1.0, 1.0..=9.0)).is_empty(),
                good
            );
        }
    }
}
