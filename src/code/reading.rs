//! A text made comparable: one letter case, one kind of digit, no accents, nothing invisible.
//!
//! Senders write the same word in many ways: with and without accents (to stay within GSM-7), in full-width
//! letters, with Persian digits, with joiners between the digits. Everything after this file looks at one
//! spelling only, and can say for every byte of it where it came from.

use std::ops::Range;

use unicode_normalization::char::decompose_compatible;

/// The longest text that is read whole, in bytes. Of a longer one only the two ends are: a concatenated SMS has
/// at most 1600 characters, of three bytes each where they are Thai or Chinese.
const LONGEST: usize = 5 << 10;

/// Stands where the middle of an overlong text was left out.
const GAP: char = '\n';

/// A text and its comparable form.
pub(super) struct Reading<'t> {
    original: &'t str,
    folded: String,
    /// `folded` with a blank for every line end.
    line: String,
    /// For every byte of `folded`, and its end: the byte of `original` it came from.
    origin: Vec<u32>,
    /// For every byte of `folded`, and its end: how many characters are before it.
    column: Vec<u32>,
    /// For every byte of `folded`, and its end: how many sentences ended before it.
    sentence: Vec<u16>,
    /// For every byte of `folded`: whether it was a capital letter.
    capital: Vec<bool>,
}

impl<'t> Reading<'t> {
    /// Reads `original`, or both ends of it when it is very long.
    pub(super) fn of(original: &'t str) -> Self {
        let mut reading = Self {
            original,
            folded: String::with_capacity(original.len().min(LONGEST) + 16),
            line: String::new(),
            origin: Vec::with_capacity(original.len().min(LONGEST) + 16),
            column: Vec::new(),
            sentence: Vec::new(),
            capital: Vec::with_capacity(original.len().min(LONGEST) + 16),
        };
        if original.len() <= LONGEST {
            reading.read(original, 0);
        } else {
            let head = boundary(original, LONGEST / 2);
            let tail = boundary(original, original.len() - LONGEST / 2);
            reading.read(&original[..head], 0);
            reading.push(GAP, head, false);
            reading.read(&original[tail..], tail);
        }
        reading.origin.push(to_u32(original.len()));
        reading.line = reading.folded.replace('\n', " ");
        reading.measure();
        reading
    }

    /// The comparable form.
    pub(super) fn text(&self) -> &str {
        &self.folded
    }

    /// The comparable form as one line, of the same length.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// The comparable form, byte by byte.
    pub(super) fn bytes(&self) -> &[u8] {
        self.folded.as_bytes()
    }

    /// Characters between two places.
    pub(super) fn distance(&self, from: usize, to: usize) -> usize {
        self.column[to].saturating_sub(self.column[from]) as usize
    }

    /// Sentences or lines that end between two places.
    pub(super) fn breaks(&self, from: usize, to: usize) -> usize {
        usize::from(self.sentence[to].saturating_sub(self.sentence[from]))
    }

    /// Whether the byte was a capital letter in the original.
    pub(super) fn is_capital(&self, at: usize) -> bool {
        self.capital.get(at).copied().unwrap_or(false)
    }

    /// Whether every letter in a span was a capital.
    pub(super) fn is_capitals(&self, start: usize, end: usize) -> bool {
        let mut letters = self.folded[start..end].char_indices().filter(|(_, c)| c.is_alphabetic());
        letters.all(|(at, _)| self.capital[start + at])
    }

    /// What stands in the original where the span came from.
    pub(super) fn original(&self, start: usize, end: usize) -> &'t str {
        &self.original[self.origin(start, end)]
    }

    /// The bytes of the original that the span came from.
    pub(super) fn origin(&self, start: usize, end: usize) -> Range<usize> {
        let from = self.origin[start] as usize;
        if start >= end {
            return from..from;
        }
        // The last character of the span may have folded to several; all of it belongs to the span.
        let last = self.origin[end - 1] as usize;
        let width = self.original[last..].chars().next().map_or(0, char::len_utf8);
        from..(last + width).max(from)
    }

    /// A span as a person would type it: comparable digits and letters, capitals kept.
    pub(super) fn typed(&self, start: usize, end: usize) -> String {
        let letters = self.folded[start..end].char_indices();
        letters.map(|(at, c)| if self.capital[start + at] { c.to_ascii_uppercase() } else { c }).collect()
    }

    /// Whether the span has letters that the text does not: in a word `đ` compares as `d`, to type it is another.
    pub(super) fn is_respelled(&self, start: usize, end: usize) -> bool {
        let respelled = |c: char| !c.is_ascii() && fold_one(c).is_some_and(|same| same.is_ascii_alphabetic());
        self.original(start, end).chars().any(respelled)
    }

    fn read(&mut self, text: &str, offset: usize) {
        let mut blank = true;
        let mut past = 0;
        for (at, c) in text.char_indices() {
            if at < past {
                continue;
            }
            let (c, width) = if c == '&' { entity(&text[at..]) } else { (c, 1) };
            past = at + width;
            let at = offset + at;
            if c.is_ascii() {
                match c {
                    '\n' => self.line_end(at, &mut blank),
                    '\r' if text.as_bytes().get(at - offset + 1) == Some(&b'\n') => {}
                    '\r' => self.line_end(at, &mut blank),
                    ' ' | '\t' | '\u{b}' | '\u{c}' => {
                        if !blank {
                            self.push(' ', at, false);
                        }
                        blank = true;
                    }
                    c if c.is_ascii_control() => {}
                    c => {
                        self.push(c.to_ascii_lowercase(), at, c.is_ascii_uppercase());
                        blank = false;
                    }
                }
            } else if is_invisible(c) {
            } else if c.is_whitespace() {
                if matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') {
                    self.line_end(at, &mut blank);
                } else {
                    if !blank {
                        self.push(' ', at, false);
                    }
                    blank = true;
                }
            } else {
                self.fold(c, at);
                blank = false;
            }
        }
    }

    fn line_end(&mut self, at: usize, blank: &mut bool) {
        if self.folded.ends_with(' ') {
            self.folded.pop();
            self.origin.pop();
            self.capital.pop();
        }
        self.push('\n', at, false);
        *blank = true;
    }

    fn fold(&mut self, c: char, at: usize) {
        if let Some(same) = fold_one(c) {
            self.push(same, at, is_capital(c));
            return;
        }
        let capital = is_capital(c);
        decompose_compatible(c, |part| {
            if is_accent(part) {
                return;
            }
            if part.is_ascii() {
                self.push(part.to_ascii_lowercase(), at, capital || part.is_ascii_uppercase());
            } else {
                let part = fold_one(part).unwrap_or(part);
                let lower = part.to_lowercase().next().unwrap_or(part);
                self.push(fold_one(lower).unwrap_or(lower), at, capital);
            }
        });
    }

    fn push(&mut self, c: char, at: usize, capital: bool) {
        self.folded.push(c);
        for _ in 0..c.len_utf8() {
            self.origin.push(to_u32(at));
            self.capital.push(capital);
        }
    }

    /// Counts characters and sentences.
    fn measure(&mut self) {
        let (mut column, mut sentence) = (0_u32, 0_u16);
        self.column.reserve(self.folded.len() + 1);
        self.sentence.reserve(self.folded.len() + 1);
        let mut letters = self.folded.char_indices().peekable();
        while let Some((at, c)) = letters.next() {
            for _ in 0..c.len_utf8() {
                self.column.push(column);
                self.sentence.push(sentence);
            }
            column += 1;
            let ends = match c {
                '\n' | '\u{3002}' | '\u{964}' | '\u{ff61}' | '\u{6d4}' => true,
                '!' | '?' | '\u{61f}' => letters.peek().is_none_or(|(_, next)| !next.is_ascii_digit()),
                '.' => {
                    // A stop before a small letter belongs to an abbreviation.
                    let rest = &self.folded[at + 1..];
                    let after = rest.trim_start_matches(' ');
                    let next = after.chars().next();
                    after.len() < rest.len()
                        && next.is_some_and(|next| {
                            let small = next.is_lowercase() && !self.capital[self.folded.len() - after.len()];
                            !small
                        })
                }
                _ => false,
            };
            sentence = sentence.saturating_add(u16::from(ends));
        }
        self.column.push(column);
        self.sentence.push(sentence);
    }
}

/// The character that a text's first characters stand for, and how many those are: some senders escape what they
/// send for a page, `&#x27;` for `'`. An `&` that begins no such thing is itself.
fn entity(text: &str) -> (char, usize) {
    const NAMES: [(&str, char); 6] =
        [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''), ("nbsp", ' ')];
    let end = text.bytes().take(9).position(|byte| byte == b';');
    let meant = end.and_then(|end| {
        let name = &text[1..end];
        let number = match name.strip_prefix('#') {
            Some(digits) => match digits.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => digits.parse().ok(),
            },
            None => None,
        };
        let named = || NAMES.iter().find(|(known, _)| *known == name).map(|(_, c)| *c);
        let c = number.and_then(char::from_u32).or_else(named)?;
        // A digit that is escaped is no code that anybody typed, and what is covered must stand as it is.
        (!c.is_alphanumeric()).then_some((c, end + 1))
    });
    meant.unwrap_or(('&', 1))
}

/// The first place from `at` on where no character is cut in two.
fn boundary(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// Folds a text in the way a message is, so that both compare.
pub(super) fn folded(text: &str) -> String {
    let mut reading = Reading {
        original: text,
        folded: String::new(),
        line: String::new(),
        origin: Vec::new(),
        column: Vec::new(),
        sentence: Vec::new(),
        capital: Vec::new(),
    };
    reading.read(text, 0);
    reading.folded
}

fn to_u32(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn is_capital(c: char) -> bool {
    c.is_uppercase()
}

/// Characters that nobody sees and that senders, or those who forward, put between others.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{20e3}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Accents and vowel points that senders leave out at will. Vowels of Indic scripts and the voicing of kana
/// are not among them.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}'
        | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e8}')
}

/// What one character is the same as, where that is one character and not what Unicode's compatibility
/// decomposition says. `None` leaves it to that.
fn fold_one(c: char) -> Option<char> {
    Some(match c {
        // A full-width comma becomes no comma: `，` between a code and `10分钟` would make one number.
        '\u{ff0c}' | '\u{fe50}' | '\u{60c}' => '\u{3001}',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => '-',
        '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2032}' | '\u{2bc}' | '`' | '\u{b4}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' => '"',
        '\u{131}' | '\u{130}' => 'i',
        '\u{111}' | '\u{110}' | '\u{f0}' | '\u{d0}' => 'd',
        '\u{142}' | '\u{141}' => 'l',
        '\u{f8}' | '\u{d8}' => 'o',
        '\u{3c2}' => '\u{3c3}',
        '\u{649}' | '\u{64a}' => '\u{6cc}',
        '\u{643}' => '\u{6a9}',
        '\u{629}' | '\u{6c0}' | '\u{6d5}' | '\u{6c1}' | '\u{6be}' => '\u{647}',
        '\u{2026}' | '\u{6a9}' | '\u{6cc}' | '\u{647}' => c,
        // Hangul would fall apart into its letters.
        '\u{ac00}'..='\u{d7a3}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{3001}'..='\u{303f}' => c,
        _ => return digit(c),
    })
}

/// The first of every ten decimal digits in Unicode (general category Nd), but for ASCII.
const ZEROS: [u32; 64] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0,
    0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50,
    0x11d50, 0x11da0, 0x11f50, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6,
    0x1e140, 0x1e950,
];

/// The ASCII digit of the same value.
pub(super) fn digit(c: char) -> Option<char> {
    let code = u32::from(c);
    if code < ZEROS[0] {
        return None;
    }
    let after = ZEROS.partition_point(|zero| *zero <= code);
    let value = code - ZEROS[after - 1];
    (value < 10).then(|| char::from(b'0' + u8::try_from(value).unwrap_or_default()))
}
