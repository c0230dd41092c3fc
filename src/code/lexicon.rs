//! The words of `lexicon.txt`, all looked for in one pass.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::reading::{Reading, folded};

/// What a word says about the numbers near it. The sections of `lexicon.txt` explain each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Otp,
    Noun,
    Kind,
    Act,
    Decoy,
    Lookalike,
    Link,
    Secrecy,
    Validity,
    Seconds,
    Minutes,
    Hours,
    Days,
    Unit,
    Number,
    Call,
    Promo,
    Parcel,
    Energy,
    Ledger,
    Void,
    Currency,
    Month,
    Generic,
    Brand,
}

impl Class {
    const NAMED: [(&'static str, Self); 24] = [
        ("otp", Self::Otp),
        ("noun", Self::Noun),
        ("kind", Self::Kind),
        ("act", Self::Act),
        ("decoy", Self::Decoy),
        ("lookalike", Self::Lookalike),
        ("link", Self::Link),
        ("secrecy", Self::Secrecy),
        ("validity", Self::Validity),
        ("seconds", Self::Seconds),
        ("minutes", Self::Minutes),
        ("hours", Self::Hours),
        ("days", Self::Days),
        ("unit", Self::Unit),
        ("number", Self::Number),
        ("call", Self::Call),
        ("promo", Self::Promo),
        ("parcel", Self::Parcel),
        ("energy", Self::Energy),
        ("ledger", Self::Ledger),
        ("void", Self::Void),
        ("currency", Self::Currency),
        ("month", Self::Month),
        ("generic", Self::Generic),
    ];
    const COUNT: usize = Self::Brand as usize + 1;
}

/// Where a word stands in the comparable text: bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The words found in one text, by class, in the order of their starts.
pub(super) struct Words([Vec<Span>; Class::COUNT]);

impl Words {
    pub(super) fn of(&self, class: Class) -> &[Span] {
        &self.0[class as usize]
    }

    pub(super) fn any(&self, class: Class) -> bool {
        !self.of(class).is_empty()
    }

    pub(super) fn keep(&mut self, class: Class, keep: impl FnMut(&Span) -> bool) {
        self.0[class as usize].retain(keep);
    }

    /// Those that start in `from..to`.
    pub(super) fn starting(&self, class: Class, from: usize, to: usize) -> &[Span] {
        let all = self.of(class);
        let first = all.partition_point(|span| span.start < from);
        let last = all.partition_point(|span| span.start < to);
        &all[first..last.max(first)]
    }

    /// Whether one of them starts exactly there.
    pub(super) fn at(&self, class: Class, start: usize) -> Option<Span> {
        self.starting(class, start, start + 1).iter().copied().max_by_key(|span| span.end)
    }
}

/// One way a spelling counts.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Meaning {
    class: Class,
    /// The words of a phrase behind one with an ending left open.
    tail: Vec<String>,
    /// May go on.
    open: bool,
    /// May have begun before.
    compound: bool,
    /// Counts only in capitals.
    capitals: bool,
    /// Counts only with a capital at its front.
    initial: bool,
}

impl Meaning {
    const fn of(class: Class) -> Self {
        Self { class, tail: Vec::new(), open: false, compound: false, capitals: false, initial: false }
    }
}

/// How a script treats the edges of words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// Blanks between words: Latin, Cyrillic, Greek, …
    Spaced,
    /// Blanks, and particles written onto the front of a word: Arabic, Hebrew.
    Prefixing,
    /// Blanks, and endings written onto the back: the scripts of India.
    Inflecting,
    /// None: Han, kana, Hangul (whose particles follow without one), Thai, Lao, Khmer, Burmese.
    Solid,
    /// No letter.
    Other,
}

fn script(c: char) -> Script {
    match c {
        'a'..='z' | 'A'..='Z' => Script::Spaced,
        '\0'..='\u{bf}' => Script::Other,
        '\u{590}'..='\u{7ff}' => Script::Prefixing,
        '\u{900}'..='\u{dff}' => Script::Inflecting,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' => Script::Solid,
        '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => Script::Solid,
        '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{312f}' => Script::Solid,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' => Script::Solid,
        '\u{20000}'..='\u{3ffff}' => Script::Solid,
        c if c.is_alphabetic() => Script::Spaced,
        _ => Script::Other,
    }
}

/// A letter of a script that puts blanks between words.
pub(super) fn is_word_letter(c: char) -> bool {
    matches!(script(c), Script::Spaced | Script::Prefixing | Script::Inflecting)
}

/// A letter of a script without blanks between words.
pub(super) fn is_solid(c: char) -> bool {
    script(c) == Script::Solid
}

/// Letters that stand for "the", "and", "in", "to" in front of an Arabic or Hebrew word.
const PARTICLES: &str =
    "\u{627}\u{644}\u{648}\u{628}\u{641}\u{6a9}\u{5d4}\u{5d5}\u{5d1}\u{5dc}\u{5de}\u{5e9}\u{5db}";

/// The longest ending that an open word may have, in letters.
const LONGEST_ENDING: usize = 8;

/// All words, ready to be looked for.
pub(super) struct Lexicon {
    finder: AhoCorasick,
    meanings: Vec<Vec<Meaning>>,
}

impl Lexicon {
    /// Reads the text of a lexicon and a list of brand names.
    ///
    /// Both are part of the program; a fault in them is one of the program and is found by its tests.
    pub(super) fn new<'b>(text: &str, brands: impl Iterator<Item = &'b str>) -> Self {
        let mut spellings: HashMap<String, Vec<Meaning>> = HashMap::new();
        let mut add = |spelling: &str, meaning: Meaning| {
            let spelling = folded(spelling);
            if !spelling.is_empty() {
                let meanings = spellings.entry(spelling).or_default();
                if !meanings.contains(&meaning) {
                    meanings.push(meaning);
                }
            }
        };
        let mut class = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                class = Class::NAMED.iter().find(|(known, _)| *known == name).map(|(_, class)| *class);
                debug_assert!(class.is_some(), "unknown class {name}");
                continue;
            }
            let (Some(class), Some((_, entries))) = (class, line.split_once(':')) else { continue };
            for entry in entries.split(", ").map(str::trim) {
                let (entry, capitals) = entry.strip_prefix('^').map_or((entry, false), |rest| (rest, true));
                let (entry, compound) = match entry.strip_prefix('*') {
                    Some(rest) => (rest, true),
                    None => (entry, false),
                };
                for spelling in expand(entry) {
                    let (spelling, open) = match spelling.strip_suffix('*') {
                        Some(stem) => (stem.trim_end(), true),
                        None => (spelling.as_str(), false),
                    };
                    let mut parts = spelling.split("* ");
                    let first = parts.next().unwrap_or_default();
                    let tail = parts.map(folded).collect();
                    add(first, Meaning { tail, open, compound, capitals, ..Meaning::of(class) });
                }
            }
        }
        for brand in brands {
            let (brand, initial) = brand.strip_prefix('^').map_or((brand, false), |rest| (rest, true));
            add(brand, Meaning { class: Class::Brand, initial, ..Meaning::of(Class::Brand) });
        }
        let (spellings, meanings): (Vec<_>, Vec<_>) = spellings.into_iter().unzip();
        let finder = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&spellings)
            .expect("the lexicon is part of the program and far from any limit");
        Self { finder, meanings }
    }

    /// Every word of `reading`.
    pub(super) fn find(&self, reading: &Reading<'_>) -> Words {
        let text = reading.line();
        let mut words = Words(std::array::from_fn(|_| Vec::new()));
        for found in self.finder.find_overlapping_iter(text) {
            let (start, end) = (found.start(), found.end());
            for meaning in &self.meanings[found.pattern().as_usize()] {
                if let Some(end) = whole(text, start, end, meaning)
                    && (!meaning.capitals || reading.is_capitals(start, end))
                    && (!meaning.initial || reading.is_capital(start))
                {
                    words.0[meaning.class as usize].push(Span { start, end });
                }
            }
        }
        for spans in &mut words.0 {
            spans.sort_unstable_by_key(|span| (span.start, span.end));
        }
        words
    }
}

/// Where the word that a spelling is found in ends, if it is that word and not a part of another.
fn whole(text: &str, start: usize, end: usize, meaning: &Meaning) -> Option<usize> {
    let first = text[start..end].chars().next()?;
    if !meaning.compound && !begins(&text[..start], first) {
        return None;
    }
    let mut end = end;
    for part in &meaning.tail {
        let rest = &text[ends(text, end, true)?..];
        let rest = rest.strip_prefix([' ', '-'])?.strip_prefix(part.as_str())?;
        end = text.len() - rest.len();
    }
    ends(text, end, meaning.open)
}

/// Where the word ends whose spelling ends at `end`; an open one may go on.
fn ends(text: &str, end: usize, open: bool) -> Option<usize> {
    let last = text[..end].chars().next_back()?;
    match script(last) {
        Script::Solid => Some(end),
        Script::Other if !last.is_ascii_digit() => Some(end),
        Script::Inflecting => Some(word_end(text, end)),
        _ => {
            let rest = &text[end..];
            let next = rest.chars().next();
            if last.is_ascii_digit() {
                return (!next.is_some_and(|next| next.is_ascii_digit() || is_word_letter(next)))
                    .then_some(end);
            }
            if !next.is_some_and(is_word_letter) {
                Some(end)
            } else if open {
                let longer = word_end(text, end);
                (text[end..longer].chars().count() <= LONGEST_ENDING).then_some(longer)
            } else {
                None
            }
        }
    }
}

fn begins(before: &str, first: char) -> bool {
    let previous = before.chars().next_back();
    match script(first) {
        Script::Solid => true,
        Script::Other if first.is_ascii_digit() => {
            !previous.is_some_and(|previous| previous.is_ascii_digit() || is_word_letter(previous))
        }
        Script::Other => true,
        Script::Prefixing => {
            let mut letters = before.chars().rev();
            for _ in 0..3 {
                match letters.next() {
                    Some(c) if is_word_letter(c) => {
                        if !PARTICLES.contains(c) {
                            return false;
                        }
                    }
                    _ => return true,
                }
            }
            !letters.next().is_some_and(is_word_letter)
        }
        Script::Spaced | Script::Inflecting => !previous.is_some_and(is_word_letter),
    }
}

fn word_end(text: &str, from: usize) -> usize {
    let rest = &text[from..];
    // The vowel signs of Indic scripts are not letters to Unicode, but they do not end a word.
    let more = rest
        .chars()
        .take(2 * LONGEST_ENDING)
        .take_while(|c| is_word_letter(*c) || script(*c) == Script::Inflecting);
    from + more.map(char::len_utf8).sum::<usize>()
}

/// Writes out `~` and `(a|b)`.
fn expand(entry: &str) -> Vec<String> {
    let Some(at) = entry.find(['~', '(']) else { return vec![entry.to_owned()] };
    let head = &entry[..at];
    let (choices, rest): (Vec<&str>, &str) = match entry[at..].strip_prefix('~') {
        Some(rest) => (vec!["", " ", "-"], rest),
        None => match entry[at + 1..].split_once(')') {
            Some((inside, rest)) if inside.contains('|') => (inside.split('|').collect(), rest),
            _ => return vec![entry.to_owned()],
        },
    };
    let rests = expand(rest);
    let mut all = Vec::with_capacity(choices.len() * rests.len());
    for choice in choices {
        for rest in &rests {
            all.push(format!("{head}{choice}{rest}"));
        }
    }
    all
}
