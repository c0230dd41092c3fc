//! What has the shape of a one-time code.

use super::addresses::Addresses;
use super::lexicon::{Class, Span, Words, is_word_letter};
use super::reading::Reading;

/// How a candidate is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `G-123456`.
    Prefixed,
    /// Four to eight digits.
    Digits,
    /// Digits in groups: `123-456`, `123 456`, `12-34-56`.
    Grouped,
    /// Characters one by one: `4 u 8 k`.
    Spelled,
    /// Three, nine or ten digits.
    Unusual,
    /// Letters and digits.
    Mixed,
    /// Letters and digits in two groups: `AB3-9XZ`.
    MixedGroups,
    /// Capital letters alone.
    Capitals,
    /// Small letters alone.
    Small,
}

impl Shape {
    /// Digits only, however grouped.
    pub(super) fn is_numeric(self) -> bool {
        matches!(self, Self::Prefixed | Self::Digits | Self::Grouped | Self::Unusual)
    }
}

/// Something that may be the code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) span: Span,
    pub(super) shape: Shape,
    /// Letters and digits in it.
    pub(super) length: usize,
    /// `#` stands right before it.
    pub(super) hash: bool,
    /// A word and a hyphen stand right before it.
    pub(super) hyphened: bool,
}

/// The most candidates that are weighed; a text with more holds no code that a person could find.
const MOST: usize = 64;

/// All candidates of a text, in order.
pub(super) fn candidates(reading: &Reading<'_>, words: &Words, addresses: &Addresses) -> Vec<Candidate> {
    let mut finder = Finder { reading, words, addresses, found: Vec::new() };
    finder.scan();
    finder.found.truncate(MOST);
    finder.found
}

struct Finder<'a> {
    reading: &'a Reading<'a>,
    words: &'a Words,
    addresses: &'a Addresses,
    found: Vec<Candidate>,
}

impl Finder<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.reading.bytes().get(at).copied().unwrap_or(b'\n')
    }

    fn before(&self, at: usize) -> u8 {
        if at == 0 { b'\n' } else { self.byte(at - 1) }
    }

    fn run_end(&self, at: usize) -> usize {
        at + self.reading.bytes()[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count()
    }

    fn digits_end(&self, at: usize) -> usize {
        at + self.reading.bytes()[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    fn scan(&mut self) {
        let mut at = 0;
        while at < self.reading.bytes().len() && self.found.len() < MOST {
            if !self.byte(at).is_ascii_alphanumeric() {
                at += 1;
                continue;
            }
            let end = self.run_end(at);
            if self.addresses.touch(Span { start: at, end }) {
                at = end;
                continue;
            }
            at = match self.spelled(at).or_else(|| self.grouped_letters(at, end)) {
                Some(after) => after,
                None if self.digits_end(at) == end => self.numbers(at),
                None => {
                    self.letters(at, end);
                    end
                }
            };
        }
    }

    fn push(&mut self, start: usize, end: usize, shape: Shape) {
        let length =
            self.reading.bytes()[start..end].iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
        let hash = self.before(start) == b'#';
        let hyphened = self.before(start) == b'-' && start >= 2 && self.byte(start - 2).is_ascii_alphabetic();
        self.found.push(Candidate { span: Span { start, end }, shape, length, hash, hyphened });
    }

    /// At least four single characters with single blanks between them.
    fn spelled(&mut self, start: usize) -> Option<usize> {
        if self.run_end(start) != start + 1 || matches!(self.before(start), b'-' | b'.' | b'_' | b'/') {
            return None;
        }
        let mut end = start;
        let (mut count, mut digits) = (0, 0);
        loop {
            count += 1;
            digits += usize::from(self.byte(end).is_ascii_digit());
            // No code is that long; looking on from each of many would take the square of them.
            if count > 10 {
                return None;
            }
            if self.byte(end + 1) == b' ' && self.run_end(end + 2) == end + 3 {
                end += 2;
            } else {
                break;
            }
        }
        if !(4..=10).contains(&count) || digits == 0 || is_word_letter_at(self.reading.text(), end + 1) {
            return None;
        }
        self.push(start, end + 1, Shape::Spelled);
        Some(end + 1)
    }

    /// `AB3-9XZ`: two groups of three to five capitals and digits.
    fn grouped_letters(&mut self, start: usize, middle: usize) -> Option<usize> {
        if self.byte(middle) != b'-' || !self.byte(middle + 1).is_ascii_alphanumeric() {
            return None;
        }
        let end = self.run_end(middle + 1);
        let (first, second) = (middle - start, end - middle - 1);
        let bytes = self.reading.bytes();
        let digits = bytes[start..end].iter().filter(|byte| byte.is_ascii_digit()).count();
        let letters = first + second - digits;
        let fits = (3..=5).contains(&first)
            && (3..=5).contains(&second)
            && digits > 0
            && letters > 0
            && self.reading.is_capitals(start, end)
            && self.is_free(start, end)
            && self.digits_end(start) != middle;
        // A word in front of a number is its prefix, not the first half of a code.
        let word = first > 3 && self.digits_end(middle + 1) == end && digits == second;
        if !fits || word || (digits == second && first == 3 && second > 3) || self.is_keyword(start, middle) {
            return None;
        }
        self.push(start, end, Shape::MixedGroups);
        Some(end)
    }

    fn is_keyword(&self, start: usize, end: usize) -> bool {
        let exact = |class| self.words.starting(class, start, start + 1).iter().any(|span| span.end == end);
        exact(Class::Otp) || exact(Class::Noun)
    }

    fn ends_keyword(&self, end: usize) -> bool {
        let ends = |class| {
            self.words.starting(class, end.saturating_sub(40), end).iter().any(|span| span.end == end)
        };
        ends(Class::Otp) || ends(Class::Noun)
    }

    /// Whether what surrounds a run of letters and digits does not make it a part of something longer.
    fn is_free(&self, start: usize, end: usize) -> bool {
        let (before, after) = (self.before(start), self.byte(end));
        let joined =
            |byte: u8| matches!(byte, b'_' | b'@' | b'/' | b'=' | b'&' | b'\\' | b'*' | b'+' | b'%' | b'$');
        let goes_on = matches!(after, b'-' | b'.' | b':' | b',' | b'\'')
            && self.byte(end + 1).is_ascii_alphanumeric()
            && !(after == b',' || after == b':');
        let came_from = matches!(before, b'-' | b'.' | b'\'')
            && start >= 2
            && self.byte(start - 2).is_ascii_alphanumeric();
        !joined(before) && !joined(after) && !goes_on && !came_from && before != b'#'
    }

    /// A run with letters in it.
    fn letters(&mut self, start: usize, end: usize) {
        let bytes = &self.reading.bytes()[start..end];
        let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            self.letters_alone(start, end);
            return;
        }
        let first_digit = bytes.iter().position(u8::is_ascii_digit).unwrap_or(0);
        let first_letter = bytes.iter().position(u8::is_ascii_alphabetic).unwrap_or(0);
        let tail = start + first_digit;
        if first_digit > 0 && self.digits_end(tail) == end {
            // `otp123456`; `rs1500`; `xx1234`.
            let covers =
                |class| self.words.starting(class, start, start + 1).iter().any(|span| span.end == tail);
            if self.is_keyword(start, tail) && (4..=8).contains(&digits) {
                self.push(tail, end, Shape::Digits);
                return;
            }
            if covers(Class::Currency) || bytes[..first_digit].iter().all(|byte| *byte == b'x') {
                return;
            }
        }
        if bytes.windows(2).any(|pair| pair == b"xx") {
            return;
        }
        let head = start + first_letter;
        if first_letter > 0 && bytes[first_letter..].iter().all(u8::is_ascii_alphabetic) {
            // `123456is your code`; `30gb`; `5min`.
            let covers =
                |class| self.words.starting(class, head, head + 1).iter().any(|span| span.end == end);
            if (4..=8).contains(&digits)
                && end - head > 1
                && (covers(Class::Link) || self.is_keyword(head, end))
            {
                self.push(start, head, Shape::Digits);
                return;
            }
            let units =
                [Class::Unit, Class::Seconds, Class::Minutes, Class::Hours, Class::Days, Class::Currency];
            if units.into_iter().any(covers) && (digits <= 3 || end - head > 1) {
                return;
            }
        }
        if (4..=10).contains(&(end - start)) && self.is_free(start, end) {
            self.push(start, end, Shape::Mixed);
        }
    }

    fn letters_alone(&mut self, start: usize, end: usize) {
        let text = self.reading.text();
        let inside = is_word_letter_before(text, start) || is_word_letter_at(text, end);
        if inside || !self.is_free(start, end) || self.is_known_word(start, end) {
            return;
        }
        let length = end - start;
        let capitals = (start..end).filter(|at| self.reading.is_capital(*at)).count();
        if capitals == length && (4..=8).contains(&length) {
            self.push(start, end, Shape::Capitals);
        } else if capitals == 0
            && (5..=8).contains(&length)
            && text[..start].trim_end_matches([' ', '"']).ends_with(':')
        {
            self.push(start, end, Shape::Small);
        }
    }

    fn is_known_word(&self, start: usize, end: usize) -> bool {
        const WORDS: [Class; 12] = [
            Class::Otp,
            Class::Noun,
            Class::Kind,
            Class::Act,
            Class::Decoy,
            Class::Link,
            Class::Generic,
            Class::Brand,
            Class::Validity,
            Class::Call,
            Class::Promo,
            Class::Number,
        ];
        let span = Span { start, end };
        let covers = |class: Class| {
            // A phrase that the word is a part of may begin a little earlier.
            self.words.starting(class, start.saturating_sub(24), end).iter().any(|one| one.holds(span))
        };
        WORDS.into_iter().any(covers)
    }

    /// Numbers, from the first digit of one on; returns where to go on.
    fn numbers(&mut self, start: usize) -> usize {
        let first = self.tight(start);
        let mut chains = vec![first];
        // Numbers with single blanks between them may be one.
        while let Some(last) = chains.last() {
            let at = last.end + 1;
            let more = self.byte(last.end) == b' '
                && self.byte(at).is_ascii_digit()
                && self.digits_end(at) == self.run_end(at)
                && chains.len() < 8;
            if !more {
                break;
            }
            let next = self.tight(at);
            chains.push(next);
        }
        let end = chains.last().map_or(start, |chain| chain.end);
        let lengths: Vec<usize> = chains.iter().map(|chain| chain.end - chain.start).collect();
        let plain = chains.iter().all(|chain| chain.is_plain());
        let total: usize = lengths.iter().sum();
        let boundary = self.is_free_number(start, end);
        if plain && chains.len() > 1 {
            let same = lengths.iter().all(|length| *length == lengths[0]);
            let grouped = same
                && ((chains.len() == 2 && matches!(lengths[0], 3 | 4))
                    || (chains.len() == 3 && matches!(lengths[0], 2 | 3)));
            if grouped && boundary && !self.counts_something(start, end, total) {
                self.push(start, end, if total > 8 { Shape::Unusual } else { Shape::Grouped });
                return end;
            }
            if chains.len() >= 3 && total >= 9 && lengths.iter().all(|length| *length <= 5) {
                return end;
            }
        }
        for chain in &chains {
            self.chain(chain);
        }
        end
    }

    /// A number and what is tied to it by `-`, `.`, `,`, `/`, `:` and more digits.
    fn tight(&self, start: usize) -> Chain {
        let mut groups = vec![Span { start, end: self.digits_end(start) }];
        let mut ties = Vec::new();
        while let Some(last) = groups.last().copied() {
            let tie = self.byte(last.end);
            let next = last.end + 1;
            let tied = matches!(tie, b'-' | b'.' | b',' | b'/' | b':' | b'\'')
                && self.byte(next).is_ascii_digit()
                && groups.len() < 12;
            if !tied {
                break;
            }
            let end = self.digits_end(next);
            if self.run_end(next) != end && !matches!(tie, b',' | b'.') {
                break;
            }
            // "123456,10分钟": the second number counts minutes and is not the first one's decimals.
            if matches!(tie, b',' | b'.') && last.end - last.start >= 4 && self.is_time(next, end) {
                break;
            }
            ties.push(tie);
            groups.push(Span { start: next, end });
        }
        let end = groups.last().map_or(start, |group| group.end);
        Chain { start, end, groups, ties }
    }

    /// Whether a unit of time follows.
    fn is_time(&self, start: usize, end: usize) -> bool {
        let after = if self.byte(end) == b' ' { end + 1 } else { end };
        let time = [Class::Seconds, Class::Minutes, Class::Hours, Class::Days];
        end - start <= 3 && time.into_iter().any(|class| self.words.at(class, after).is_some())
    }

    fn chain(&mut self, chain: &Chain) {
        let (start, end) = (chain.start, chain.end);
        if chain.is_plain() {
            let length = end - start;
            if self.is_free_number(start, end) && !self.counts_something(start, end, length) {
                if let Some(letter) = self.short_prefix(start) {
                    if (4..=8).contains(&length) {
                        self.push(start, end, if letter == b'g' { Shape::Prefixed } else { Shape::Digits });
                    }
                    return;
                }
                match length {
                    4..=8 => self.push(start, end, Shape::Digits),
                    3 | 9 | 10 => self.push(start, end, Shape::Unusual),
                    _ => {}
                }
            }
        } else if chain.ties.iter().all(|tie| *tie == b'-') && self.is_free_number(start, end) {
            let lengths: Vec<usize> = chain.groups.iter().map(|group| group.end - group.start).collect();
            let grouped = match lengths[..] {
                [3 | 4, 3 | 4] => true,
                [2, 2, 2] => !self.is_date(chain),
                [2, 3]
                | [3, 2]
                | [2, 3, 1]
                | [3, 3, 3]
                | [1, 1, 1, 1]
                | [1, 1, 1, 1, 1]
                | [1, 1, 1, 1, 1, 1] => true,
                _ => false,
            };
            if grouped {
                let total: usize = lengths.iter().sum();
                let odd = matches!(lengths[..], [2, 3] | [3, 2] | [2, 3, 1] | [3, 3, 3]);
                if !self.counts_something(start, end, total) {
                    self.push(start, end, if odd { Shape::Unusual } else { Shape::Grouped });
                }
            }
        }
    }

    /// Whether three groups of two read as a day, a month and a year of this century.
    fn is_date(&self, chain: &Chain) -> bool {
        let value = |group: &Span| self.reading.text()[group.start..group.end].parse::<u32>().unwrap_or(0);
        let [a, b, c] = chain.groups[..] else { return false };
        let (a, b, c) = (value(&a), value(&b), value(&c));
        let day = |n| (1..=31).contains(&n);
        let month = |n| (1..=12).contains(&n);
        let year = |n| (18..=39).contains(&n);
        (year(c) && ((day(a) && month(b)) || (month(a) && day(b)))) || (year(a) && month(b) && day(c))
    }

    /// The one or two letters and the hyphen that some senders put before their codes.
    fn short_prefix(&self, start: usize) -> Option<u8> {
        if self.before(start) != b'-' || start < 2 || !self.byte(start - 2).is_ascii_alphabetic() {
            return None;
        }
        let letters = self.reading.bytes()[..start - 1]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        let first = start - 1 - letters;
        (letters <= 2 && self.reading.is_capitals(first, start - 1)).then(|| self.byte(first))
    }

    fn is_free_number(&self, start: usize, end: usize) -> bool {
        let (mut before, mut after) = (self.before(start), self.byte(end));
        // "*123456*" is set in bold; "*1234" and "1234*56" are covered.
        let edge = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'*';
        if before == b'*'
            && after == b'*'
            && start >= 1
            && edge(self.before(start - 1))
            && edge(self.byte(end + 1))
        {
            (before, after) = (b' ', b' ');
        }
        // "OTP=1234": the keyword's value, where "id=1234" is a part of a link.
        if before == b'=' && self.ends_keyword(start - 1) {
            before = b':';
        }
        let masked_before = matches!(before, b'_' | b'*' | b'+' | b'=' | b'&' | b'\\' | b'~' | b'^')
            || self.reading.text()[..start].ends_with(['\u{2022}', '\u{2026}', '\u{d7}', '\u{25cf}'])
            || self.reading.text()[..start].ends_with("..");
        let masked_after = matches!(after, b'_' | b'*' | b'@' | b'=' | b'&' | b'%')
            || (after == b'#' && self.byte(end + 1).is_ascii_digit())
            || self.reading.text()[end..].starts_with(['\u{2022}', '\u{25cf}']);
        let percent = after == b' ' && self.byte(end + 1) == b'%';
        // "x-1234" covers a card; "-12" after a digit belongs to something longer.
        let tied = matches!(before, b'-' | b'.' | b',' | b'/' | b':')
            && start >= 2
            && (self.byte(start - 2).is_ascii_digit()
                || (before == b'-' && self.byte(start - 2) == b'x' && !is_letter(self.before(start - 2))));
        let slash = (before == b'/' && start >= 2 && is_letter(self.byte(start - 2)))
            || (after == b'/' && self.byte(end + 1).is_ascii_alphanumeric());
        !masked_before && !masked_after && !percent && !tied && !slash
    }

    /// Whether a number is an amount of money, of time or of things, or a part of a date.
    fn counts_something(&self, start: usize, end: usize, digits: usize) -> bool {
        if self.is_money(start, end) {
            return true;
        }
        let text = self.reading.text();
        let after = if self.byte(end) == b' ' || self.byte(end) == b'-' { end + 1 } else { end };
        let unit = [Class::Unit, Class::Seconds, Class::Minutes, Class::Hours, Class::Days]
            .into_iter()
            .filter_map(|class| self.words.at(class, after))
            .max_by_key(|span| span.end);
        if let Some(unit) = unit {
            let unit = &text[unit.start..unit.end];
            if digits <= 3 || LARGE_UNITS.contains(&unit) {
                return true;
            }
        }
        let month_before = self.words.starting(Class::Month, start.saturating_sub(16), start);
        let after_month = month_before.iter().any(|month| {
            text[month.end..start].chars().all(|c| matches!(c, ' ' | '-' | '.' | ',') || c.is_ascii_digit())
        });
        digits <= 4 && after_month
    }

    /// Whether a word that is also a currency ("som", "din") leads to a keyword: "12345 som engangskode".
    fn links_to_keyword(&self, word: Span) -> bool {
        let at = word.end + 1;
        let keyword = |class| self.words.at(class, at).is_some();
        self.words.at(Class::Link, word.start).is_some() && (keyword(Class::Otp) || keyword(Class::Noun))
    }

    /// Whether a currency stands right before or after.
    fn is_money(&self, start: usize, end: usize) -> bool {
        let text = self.reading.text();
        let before = self.words.starting(Class::Currency, start.saturating_sub(14), start);
        let near =
            |gap: &str| gap.len() <= 2 && gap.chars().all(|c| matches!(c, ' ' | '-' | '.' | ':' | '('));
        if before.iter().any(|currency| currency.end <= start && near(&text[currency.end..start])) {
            return true;
        }
        let spaced = usize::from(self.byte(end) == b' ');
        [end, end + spaced].into_iter().any(|at| {
            // A currency after the number, unless it belongs to the amount behind it: "123456 Rs 500".
            self.words.at(Class::Currency, at).is_some_and(|currency| {
                let rest = text[currency.end..].trim_start_matches([' ', '.', ':']);
                !rest.starts_with(|c: char| c.is_ascii_digit()) && !self.links_to_keyword(currency)
            })
        })
    }
}

/// Units that also count thousands.
const LARGE_UNITS: &[&str] = &[
    "kwh",
    "units",
    "points",
    "pts",
    "miles",
    "digits",
    "digit",
    "credits",
    "coins",
    "年",
    "元",
    "円",
    "원",
    "位",
    "桁",
    "자리",
    "ホ\u{309a}イント",
    "년",
    "am",
    "pm",
    "people",
    "times",
    "mb",
    "gb",
    "kb",
    "km",
    "sms",
    "messages",
    "shares",
    "years",
];

struct Chain {
    start: usize,
    end: usize,
    groups: Vec<Span>,
    ties: Vec<u8>,
}

impl Chain {
    fn is_plain(&self) -> bool {
        self.groups.len() == 1
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}

fn is_word_letter_at(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(is_word_letter)
}

fn is_word_letter_before(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(is_word_letter)
}
