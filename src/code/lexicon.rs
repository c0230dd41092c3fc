//! The words of `lexicon.txt`, looked up wherever a word begins.

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

/// One way a spelling counts. Spellings and tails are bytes of [`Lexicon::letters`], the tail right behind.
#[derive(Clone, Copy)]
struct Meaning {
    at: u32,
    /// How many entries before this one is the last whose spelling this one begins with, or has; 0: there is none.
    back: u16,
    length: u8,
    /// Length of the words of a phrase behind one with an ending left open: `*` before each.
    tail: u8,
    class: Class,
    /// May go on.
    open: bool,
    /// Counts only in capitals.
    capitals: bool,
    /// Counts only with a capital at its front.
    initial: bool,
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
///
/// A sorted table over one string: half a megabyte where an automaton took several, and as much again while it
/// was made.
pub(super) struct Lexicon {
    letters: String,
    /// Sorted by spelling.
    meanings: Vec<Meaning>,
    /// For every byte, and the end: how many spellings begin with a lesser one.
    first: [u16; 257],
}

impl Lexicon {
    /// Reads the text of a lexicon and a list of brand names.
    ///
    /// Both are part of the program; a fault in them is one of the program and is found by its tests.
    pub(super) fn new<'b>(text: &str, brands: impl Iterator<Item = &'b str>) -> Self {
        let mut list = List {
            letters: String::with_capacity(3 * text.len()),
            meanings: Vec::with_capacity(text.len() / 5),
        };
        let mut class = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                class = Class::NAMED.iter().find(|(known, _)| *known == name).map(|(_, class)| *class);
                debug_assert!(class.is_some(), "unknown class {name}");
                continue;
            }
            let (Some(class), Some((_, entries))) = (class, line.split_once(':')) else { continue };
            for entry in folded(entries).split(", ").map(str::trim) {
                let (entry, capitals) = entry.strip_prefix('^').map_or((entry, false), |rest| (rest, true));
                expand(&mut String::new(), entry, &mut |spelling| {
                    list.add(spelling, class, capitals, false);
                });
            }
        }
        for brand in brands {
            let (brand, initial) = brand.strip_prefix('^').map_or((brand, false), |rest| (rest, true));
            list.add(&folded(brand), Class::Brand, false, initial);
        }
        list.sorted()
    }

    /// Every word of `reading`.
    pub(super) fn find(&self, reading: &Reading<'_>) -> Words {
        let text = reading.line();
        let mut words = Words(std::array::from_fn(|_| Vec::new()));
        for (start, c) in text.char_indices() {
            if c == ' ' || !begins(&text[..start], c) {
                continue;
            }
            for meaning in self.beginning(&text[start..]) {
                if let Some(end) =
                    whole(text, start + usize::from(meaning.length), self.tail(meaning), meaning.open)
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

    /// The meanings of every spelling that `text` begins with.
    fn beginning(&self, text: &str) -> impl Iterator<Item = &Meaning> {
        let text = text.as_bytes();
        let letter = usize::from(text[0]);
        let (from, to) = (usize::from(self.first[letter]), usize::from(self.first[letter + 1]));
        let here = &self.meanings[from..to];
        // Whatever begins the text begins the last spelling that sorts before it, too: that one lies between both.
        let after = here.partition_point(|meaning| self.spelling(meaning) <= text);
        let nearest = after.checked_sub(1);
        let shared = nearest.map_or(0, |at| {
            let pairs = self.spelling(&here[at]).iter().zip(text);
            pairs.take_while(|(one, other)| one == other).count()
        });
        let chain = std::iter::successors(nearest, |at| match here[*at].back {
            0 => None,
            back => Some(at - usize::from(back)),
        });
        chain.map(|at| &here[at]).filter(move |meaning| usize::from(meaning.length) <= shared)
    }

    fn spelling(&self, meaning: &Meaning) -> &[u8] {
        let at = meaning.at as usize;
        &self.letters.as_bytes()[at..at + usize::from(meaning.length)]
    }

    fn tail(&self, meaning: &Meaning) -> &str {
        let at = meaning.at as usize + usize::from(meaning.length);
        &self.letters[at..at + usize::from(meaning.tail)]
    }
}

/// A lexicon that is being read.
struct List {
    letters: String,
    meanings: Vec<Meaning>,
}

impl List {
    /// Adds a spelling as the file has it, folded and written out. Nothing is added of one without letters.
    fn add(&mut self, spelling: &str, class: Class, capitals: bool, initial: bool) {
        let (spelling, open) = match spelling.strip_suffix('*') {
            Some(stem) => (stem.trim_end(), true),
            None => (spelling, false),
        };
        let mut parts = spelling.split("* ");
        let at = self.letters.len();
        self.write(parts.next().unwrap_or_default());
        let end = self.letters.len();
        if end == at {
            return;
        }
        for part in parts {
            self.letters.push('*');
            self.write(part);
        }
        let length = |from, to| u8::try_from(to - from).expect("no phrase of the lexicon has 256 bytes");
        self.meanings.push(Meaning {
            at: u32::try_from(at).expect("the lexicon is part of the program and far from any limit"),
            back: 0,
            length: length(at, end),
            tail: length(end, self.letters.len()),
            class,
            open,
            capitals,
            initial,
        });
    }

    /// Writes a text whose parts may have been joined with a blank too many.
    fn write(&mut self, text: &str) {
        let mut blank = true;
        for c in text.chars() {
            if c != ' ' || !blank {
                self.letters.push(c);
            }
            blank = c == ' ';
        }
    }

    fn sorted(self) -> Lexicon {
        let Self { letters, mut meanings } = self;
        let spelling = |meaning: &Meaning| {
            let at = meaning.at as usize;
            &letters.as_bytes()[at..at + usize::from(meaning.length)]
        };
        let key = |meaning: &Meaning| {
            let tail = meaning.at as usize + usize::from(meaning.length);
            let tail = &letters.as_bytes()[tail..tail + usize::from(meaning.tail)];
            (spelling(meaning), tail, meaning.class as u8, meaning.open, meaning.capitals, meaning.initial)
        };
        meanings.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
        meanings.dedup_by(|one, other| key(one) == key(other));
        let mut begun: Vec<usize> = Vec::new();
        for at in 0..meanings.len() {
            while begun
                .pop_if(|last| !spelling(&meanings[at]).starts_with(spelling(&meanings[*last])))
                .is_some()
            {}
            if let Some(last) = begun.last() {
                meanings[at].back = to_u16(at - last);
            }
            begun.push(at);
        }
        let below = |byte| meanings.partition_point(|meaning| usize::from(spelling(meaning)[0]) < byte);
        let first = std::array::from_fn(|byte| to_u16(below(byte)));
        Lexicon { letters, meanings, first }
    }
}

fn to_u16(count: usize) -> u16 {
    u16::try_from(count).expect("the lexicon has fewer than 65,536 spellings")
}

/// Where the word ends whose spelling ends at `end`, if it is that word and not a part of another.
fn whole(text: &str, end: usize, tail: &str, open: bool) -> Option<usize> {
    let mut end = end;
    for part in tail.split('*').skip(1) {
        let rest = &text[ends(text, end, true)?..];
        let rest = rest.strip_prefix([' ', '-'])?.strip_prefix(part)?;
        end = text.len() - rest.len();
    }
    ends(text, end, open)
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

/// Gives `each` what `head` and `entry` make, with `~` and `(a|b)` written out.
fn expand(head: &mut String, entry: &str, each: &mut dyn FnMut(&str)) {
    let written = head.len();
    let choice = entry.find(['~', '(']).and_then(|at| {
        let inside = match entry[at..].strip_prefix('~') {
            Some(rest) => ("| |-", rest),
            None => entry[at + 1..].split_once(')').filter(|(inside, _)| inside.contains('|'))?,
        };
        Some((&entry[..at], inside))
    });
    if let Some((before, (choices, rest))) = choice {
        head.push_str(before);
        let begun = head.len();
        for choice in choices.split('|') {
            head.push_str(choice);
            expand(head, rest, each);
            head.truncate(begun);
        }
    } else {
        head.push_str(entry);
        each(head);
    }
    head.truncate(written);
}
