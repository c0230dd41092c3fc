//! Whose code it is: the name a text is signed with, speaks of, or is sent under.
//!
//! From the most to the least telling: a sign at the front, `Name: …`, "your Name code", a sign at the end, a
//! well-known name, a host, the name the sender goes by. Whatever is found is what the sender says.

use super::addresses::Addresses;
use super::lexicon::{Class, Span, Words, is_solid, is_word_letter};
use super::reading::{Reading, folded, is_invisible};
use super::recogniser::ServiceEvidence;

/// What a name is looked for in.
pub(super) struct ServiceName<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) words: &'a Words,
    pub(super) addresses: &'a Addresses,
    /// Where the code stands, unless a line `@host #code` told it.
    pub(super) code: Option<Span>,
    /// Whether the text holds a code at all.
    pub(super) has_code: bool,
}

/// The longest name, in characters.
const LONGEST: usize = 40;

/// The most words of a name.
const MOST_WORDS: usize = 5;

/// The service that a text is of, and what told it.
pub(super) fn service_of(
    context: &ServiceName<'_>,
    domain: Option<&str>,
    sender: Option<&str>,
) -> Option<(String, ServiceEvidence)> {
    use ServiceEvidence as By;
    let by_text = || {
        context
            .sign()
            .map(|name| (name, By::Sign))
            .or_else(|| context.prefix().map(|name| (name, By::Prefix)))
    };
    let by_owner = || context.before_keyword().map(|name| (name, By::Phrase));
    let by_phrase = || context.phrase().map(|name| (name, By::Phrase));
    let by_closing = || context.closing_sign().map(|name| (name, By::Signature));
    let by_end = || context.signature().map(|name| (name, By::Signature));
    let by_sender = || sender_name(sender?).map(|name| (name, By::Sender));
    let by_brand = || context.brand().map(|name| (name, By::Brand));
    let by_domain = || domain.map(|host| (host_name(host), By::Domain));
    let by_host = || context.host().map(|name| (name, By::Domain));
    if context.has_code {
        by_text()
            .or_else(by_closing)
            .or_else(by_owner)
            .or_else(by_end)
            .or_else(by_phrase)
            .or_else(by_domain)
            .or_else(by_sender)
            .or_else(by_brand)
            .or_else(by_host)
    } else {
        by_text().or_else(by_domain).or_else(by_sender)
    }
}

/// A word of the comparable text.
#[derive(Clone, Copy, Debug)]
struct Word {
    span: Span,
    /// Has a capital, letters and digits both, or is of a script without capitals.
    proper: bool,
    /// Has a capital, or letters and digits both.
    capital: bool,
}

const OPENING: &str = "[\u{3010}(\u{3014}<\u{3016}*\u{ab}\"\u{300a}\u{300c}\u{300e}{";
const CLOSING: &str = "]\u{3011})\u{3015}>\u{3017}*\u{bb}\"\u{300b}\u{300d}\u{300f}}";

impl ServiceName<'_> {
    fn text(&self) -> &str {
        self.reading.text()
    }

    fn line(&self) -> &str {
        self.reading.line()
    }

    /// Whether a span is nothing but words that no name consists of.
    fn is_generic(&self, span: Span) -> bool {
        const CLASSES: [Class; 8] = [
            Class::Generic,
            Class::Noun,
            Class::Otp,
            Class::Kind,
            Class::Link,
            Class::Act,
            Class::Validity,
            Class::Month,
        ];
        self.is_made_of(&CLASSES, span)
    }

    /// Whether a span is nothing but words of these classes, and what joins them.
    fn is_made_of(&self, classes: &[Class], span: Span) -> bool {
        let text = self.line();
        let held = classes.iter().any(|class| {
            self.words
                .starting(*class, span.start.saturating_sub(60), span.start + 1)
                .iter()
                .any(|one| one.holds(span))
        });
        if held {
            return true;
        }
        let mut at = span.start;
        while at < span.end {
            let Some(c) = text[at..span.end].chars().next() else { break };
            if !is_name_letter(c) {
                at += c.len_utf8();
                continue;
            }
            let longest = classes.iter().filter_map(|class| {
                let here = self.words.starting(*class, at, at + 1).iter();
                here.filter(|one| one.end <= span.end).map(|one| one.end).max()
            });
            match longest.max() {
                Some(end) if end > at => at = end,
                _ => return false,
            }
        }
        true
    }

    /// The words of a span. Letters, digits, and what joins them within a name.
    fn words_in(&self, start: usize, end: usize) -> Vec<Word> {
        let text = self.line();
        let mut words = Vec::new();
        let mut at = start;
        while at < end && words.len() < 24 {
            let Some(c) = text[at..end].chars().next() else { break };
            if !is_name_letter(c) {
                at += c.len_utf8();
                continue;
            }
            let mut stop = at;
            let mut letters = text[at..end].char_indices().peekable();
            while let Some((offset, c)) = letters.next() {
                let next_is_letter = letters.peek().is_some_and(|(_, next)| is_name_letter(*next));
                if is_name_letter(c) || (matches!(c, '.' | '&' | '\'' | '+' | '-' | '!') && next_is_letter) {
                    stop = at + offset + c.len_utf8();
                } else {
                    break;
                }
            }
            let upper = self.reading.is_capital(at) || (at..stop).any(|at| self.reading.is_capital(at));
            let first = text[at..].chars().next().unwrap_or(' ');
            let cased = first.is_lowercase();
            let letters = text[at..stop].chars().any(char::is_alphabetic);
            let mixed =
                letters && text[at..stop].bytes().any(|byte| byte.is_ascii_digit()) && stop - at <= 12;
            let capital = letters && (upper || mixed);
            words.push(Word {
                span: Span { start: at, end: stop },
                proper: capital || (letters && !cased),
                capital,
            });
            at = stop;
        }
        words
    }

    /// Makes a name of a span: generic words at both ends dropped; nothing when nothing is left, or too much.
    fn name(&self, start: usize, end: usize) -> Option<String> {
        let words = self.words_in(start, end);
        let mut words = &words[..];
        while let Some((first, rest)) = words.split_first() {
            // "Banca Torrente": what is generic alone is a part of the name in front of one.
            let titled = first.capital
                && self.is_organisation(first.span)
                && rest.first().is_some_and(|next| next.capital && !self.is_generic(next.span));
            if titled || !self.is_generic(first.span) {
                break;
            }
            words = rest;
        }
        while let Some((last, rest)) = words.split_last() {
            // "Banque Avril": no month has a bank.
            let titled = last.capital
                && self.is_made_of(&[Class::Month], last.span)
                && rest.last().is_some_and(|before| before.capital && self.is_organisation(before.span));
            if titled || (!self.is_generic(last.span) && !self.is_reference(last.span)) {
                break;
            }
            words = rest;
        }
        let (first, last) = (words.first()?, words.last()?);
        if words.len() > MOST_WORDS {
            return None;
        }
        let mut span = Span { start: first.span.start, end: last.span.end };
        if let Some(host) = self.addresses.hosts.iter().find(|host| span.holds(**host)) {
            return Some(host_name(&self.text()[host.start..host.end]));
        }
        if is_solid_at(self.line(), span.start) {
            span = self.without_generic_ends(span)?;
        }
        if self.code.is_some_and(|code| code.overlaps(span))
            || self.holds_keyword(span)
            || self.begins_with_money(span)
        {
            return None;
        }
        self.display(span)
    }

    /// Whether a word is an account or a card of which only the end is told ("XX1290"), or an app hash.
    fn is_reference(&self, span: Span) -> bool {
        let word = &self.line()[span.start..span.end];
        let rest = word.trim_start_matches(['x', '*', '.']);
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let card =
            word.len() - rest.len() >= 2 && rest.len() >= 2 && rest.bytes().all(|byte| byte.is_ascii_digit());
        card || (word.len() >= 10 && digits >= 3 && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }

    /// Whether a span begins with an amount: "RM0", "Rs 500".
    fn begins_with_money(&self, span: Span) -> bool {
        self.words.at(Class::Currency, span.start).is_some_and(|currency| {
            let rest = self.line().get(currency.end..span.end).unwrap_or_default();
            rest.trim_start_matches(['.', ' ']).starts_with(|c: char| c.is_ascii_digit())
        })
    }

    /// Whether a word that warns stands right before a place: "JANGAN BERIKAN kode".
    fn is_warned(&self, at: usize) -> bool {
        let near = self.words.starting(Class::Secrecy, at.saturating_sub(60), at);
        near.iter().any(|one| one.end <= at && self.line()[one.end..at].trim().is_empty())
    }

    /// Cuts generic words off both ends of a name in a script without blanks.
    fn without_generic_ends(&self, mut span: Span) -> Option<Span> {
        const CLASSES: [Class; 6] =
            [Class::Generic, Class::Noun, Class::Otp, Class::Kind, Class::Link, Class::Act];
        loop {
            let inside = |one: &&Span| span.holds(**one) && one.start < one.end;
            let all = || {
                CLASSES
                    .into_iter()
                    .flat_map(|class| self.words.starting(class, span.start, span.end))
                    .filter(inside)
            };
            // A syllable of Korean may be a particle and the end of a name; a blank has told which.
            let syllable = |one: &Span| {
                matches!(self.line()[one.start..one.end].chars().next(), Some('\u{ac00}'..='\u{d7a3}'))
                    && one.end - one.start == 3
            };
            if let Some(end) =
                all().filter(|one| one.start == span.start && !syllable(one)).map(|one| one.end).max()
            {
                span.start = end;
            } else if let Some(start) =
                all().filter(|one| one.end == span.end && !syllable(one)).map(|one| one.start).min()
            {
                span.end = start;
            } else {
                return (span.start < span.end).then_some(span);
            }
            if span.start >= span.end {
                return None;
            }
        }
    }

    /// A span as it stands in the original, when it can be a name.
    fn display(&self, span: Span) -> Option<String> {
        let text = &self.line()[span.start..span.end];
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        let solid = text.chars().any(is_solid);
        let masked = text.chars().all(|c| matches!(c, 'x' | '*' | ' ' | '.' | '-') || c.is_ascii_digit());
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ');
        let fits = (letters >= 2 || (letters == 1 && digits == 1))
            && !masked
            && !plain
            && digits <= 6
            && !text.contains(['@', '/', '\\', '=']);
        if !fits || (solid && letters < 2) {
            return None;
        }
        let name: String = self
            .reading
            .original(span.start, span.end)
            .chars()
            .filter(|c| !is_invisible(*c) && !c.is_control())
            .collect();
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        (!name.is_empty() && name.chars().count() <= LONGEST).then_some(name)
    }

    fn holds_keyword(&self, span: Span) -> bool {
        [Class::Otp, Class::Noun].into_iter().any(|class| {
            self.words
                .starting(class, span.start, span.end)
                .iter()
                .any(|one| one.end <= span.end && (one.end - one.start) >= 3)
        })
    }

    /// Past marks that carriers and apps put first: `<#>`, `[#]`, `RM0.00`, `Fwd:`.
    fn front(&self) -> usize {
        let text = self.line();
        let mut at = 0;
        loop {
            let rest = &text[at..];
            let trimmed = rest.trim_start_matches([' ', '\u{3001}', '.', '-', '~', '|', '>']);
            let trimmed = [
                "<#>",
                "[#]",
                "rm0.00",
                "rm0",
                "fwd:",
                "fw:",
                "sms:",
                "free msg:",
                "freemsg:",
                "free msg-",
                "[free msg]",
                "msg:",
            ]
            .into_iter()
            .find_map(|mark| trimmed.strip_prefix(mark))
            .unwrap_or(trimmed);
            let next = text.len() - trimmed.len();
            if next == at {
                return at;
            }
            at = next;
        }
    }

    /// `[Name]`, `【Name】` at the front.
    fn sign(&self) -> Option<String> {
        let mut at = self.front();
        for _ in 0..3 {
            let (inside, after) = self.bracket(at)?;
            if let Some(name) = self.sign_name(inside) {
                return Some(name);
            }
            at = after + self.line()[after..].len() - self.line()[after..].trim_start().len();
        }
        None
    }

    /// The inside of a bracket that opens there, and where it ends.
    fn bracket(&self, at: usize) -> Option<(Span, usize)> {
        let text = self.text();
        let open = text[at..].chars().next()?;
        let closing = CLOSING.chars().nth(OPENING.chars().position(|c| c == open)?)?;
        let start = at + open.len_utf8();
        let length = text[start..].find(closing)?;
        let inside = &text[start..start + length];
        let fits = inside.chars().count() <= LONGEST && !inside.contains('\n') && !inside.trim().is_empty();
        fits.then_some((Span { start, end: start + length }, start + length + closing.len_utf8()))
    }

    fn sign_name(&self, inside: Span) -> Option<String> {
        if self.code.is_some_and(|code| code.overlaps(inside)) {
            return None;
        }
        let text = &self.line()[inside.start..inside.end];
        let trimmed = text.trim();
        let start = inside.start + text.len() - text.trim_start().len();
        // "<KXTQ>" is the reference that the page shows too.
        if self.text()[..inside.start].ends_with('<') && self.reading.is_capitals(inside.start, inside.end) {
            return None;
        }
        let span = Span { start, end: start + trimmed.len() };
        let words = self.words_in(span.start, span.end);
        if self.is_generic(span) || words.len() > MOST_WORDS {
            // "[LoginCode]": one word with a capital inside is a name all the same.
            let inner =
                |word: &Word| (word.span.start + 1..word.span.end).any(|at| self.reading.is_capital(at));
            let camel =
                |word: &Word| inner(word) && !self.reading.is_capitals(word.span.start, word.span.end);
            return if words.len() == 1 && camel(&words[0]) { self.display(words[0].span) } else { None };
        }
        // A sign may hold a keyword as part of a name ("1024CODE"), but then it is one word.
        self.name(span.start, span.end).or_else(|| if words.len() == 1 { self.display(span) } else { None })
    }

    /// `Name: …`, `Name - …`, `Name. …` or a first line of its own.
    fn prefix(&self) -> Option<String> {
        let start = self.front();
        let text = self.text();
        let rest = &text[start..];
        let first_line = rest.lines().next().unwrap_or_default();
        let window: usize = first_line.char_indices().nth(36).map_or(first_line.len(), |(at, _)| at);
        let head = &first_line[..window];
        if let Some(at) = head.find([':', '\u{17d6}']) {
            let name = self.prefix_name(start, start + at, 4);
            if name.is_some() {
                return name;
            }
        }
        for tie in [" - ", " | ", " / ", " > ", "| ", " -", "- "] {
            if let Some(at) = head.find(tie)
                && at > 0
                && let Some(name) = self.prefix_name(start, start + at, 3)
            {
                return Some(name);
            }
        }
        if let Some(at) = head.find(". ")
            && let Some(name) = self.prefix_name(start, start + at, 3)
        {
            return Some(name);
        }
        self.first_line(start, first_line)
    }

    /// A name of at most `most` words, each of them proper, that greets nobody.
    fn prefix_name(&self, start: usize, end: usize, most: usize) -> Option<String> {
        let words = self.words_in(start, end);
        let first = words.first()?;
        let greeting = GREETINGS.contains(&&self.line()[first.span.start..first.span.end]);
        // What happened to money is no name: "برداشت وجه", "انتقال به کارت".
        let span = Span { start: first.span.start, end: words.last()?.span.end };
        if self.is_made_of(
            &[
                Class::Ledger,
                Class::Number,
                Class::Generic,
                Class::Noun,
                Class::Otp,
                Class::Kind,
                Class::Link,
            ],
            span,
        ) {
            return None;
        }
        let proper = words.iter().filter(|word| !self.is_generic(word.span)).all(|word| {
            word.proper || self.is_particle(word.span) || (words.len() > 1 && self.is_organisation(word.span))
        });
        let count = words.iter().filter(|word| !self.is_generic(word.span)).count();
        let lone = words.len() == 1;
        if self.line()[start..end].contains([',', ';', '\u{3001}', '\u{3002}']) {
            return None;
        }
        if greeting || count > most || !(proper || lone) || self.begins_with_possessive(first) {
            return None;
        }
        if self.line()[start..end].contains(|c: char| c.is_ascii_digit())
            && self.code.is_some_and(|code| code.overlaps(Span { start, end }))
        {
            return None;
        }
        self.name(start, end)
    }

    fn begins_with_possessive(&self, word: &Word) -> bool {
        POSSESSIVES.contains(&&self.line()[word.span.start..word.span.end])
    }

    fn is_particle(&self, span: Span) -> bool {
        matches!(
            &self.line()[span.start..span.end],
            "of" | "and"
                | "the"
                | "de"
                | "la"
                | "du"
                | "di"
                | "da"
                | "do"
                | "von"
                | "for"
                | "van"
                | "y"
                | "e"
                | "et"
                | "und"
                | "al"
                | "el"
        )
    }

    /// Whether a word says what kind of house a name is of. In many languages it has a small letter.
    fn is_organisation(&self, span: Span) -> bool {
        ORGANISATIONS.contains(&&self.line()[span.start..span.end])
    }

    fn first_line(&self, start: usize, line: &str) -> Option<String> {
        let lines = self.text().lines().filter(|line| !line.trim().is_empty()).count();
        let length = line.chars().count();
        let digits = line.bytes().filter(u8::is_ascii_digit).count();
        if lines < 2
            || length > 30
            || digits > 2
            || line.trim_end().ends_with([':', '.', ',', '?', '\u{3001}', '\u{3002}'])
        {
            return None;
        }
        let most = if lines >= 3 { 4 } else { 3 };
        self.prefix_name(start, start + line.len(), most)
    }

    /// "your Name code", "code for Name", "log in to Name".
    fn phrase(&self) -> Option<String> {
        self.owned()
            .or_else(|| self.after_preposition())
            .or_else(|| self.small_before_keyword())
            .or_else(|| self.solid_phrase())
            .or_else(|| self.lead_word())
            .or_else(|| self.after_keyword())
            .or_else(|| self.bracketed())
    }

    fn keywords(&self) -> Vec<Span> {
        let mut all: Vec<Span> =
            self.words.of(Class::Otp).iter().chain(self.words.of(Class::Noun)).copied().collect();
        all.sort_unstable_by_key(|span| (span.start, span.end));
        all
    }

    /// The name right before a keyword: "Your Name verification code", "Name code: …".
    fn before_keyword(&self) -> Option<String> {
        let text = self.line();
        for keyword in self.keywords() {
            let from = text[..keyword.start].char_indices().rev().nth(60).map_or(0, |(at, _)| at);
            // Not across the end of a sentence, a bracket or the code.
            let from = text[from..keyword.start]
                .rfind(|c: char| {
                    matches!(
                        c,
                        ':' | ';'
                            | '('
                            | ')'
                            | '['
                            | ']'
                            | '"'
                            | '?'
                            | '\u{3001}'
                            | '\u{3002}'
                            | '\u{3010}'
                            | '\u{3011}'
                            | '\u{300d}'
                            | '='
                    )
                })
                .map_or(from, |at| from + at + 1);
            let from = (from..=keyword.start).find(|at| text.is_char_boundary(*at)).unwrap_or(keyword.start);
            let from = self
                .code
                .filter(|code| code.end > from && code.end <= keyword.start)
                .map_or(from, |code| code.end);
            let from = self.after_last_break(from, keyword.start);
            let words = self.words_in(from, keyword.start);
            let mut last = words.len();
            while last > 0
                && self.is_generic(words[last - 1].span)
                && !self.begins_with_possessive(&words[last - 1])
                && !self.is_order(words[last - 1].span)
            {
                last -= 1;
            }
            let mut first = last;
            while first > 0 && last - first < MOST_WORDS {
                let word = &words[first - 1];
                let generic = self.is_generic(word.span);
                let inner = first < last
                    && (self.is_particle(word.span) || word.capital)
                    && first >= 2
                    && words[first - 2].capital
                    && !self.is_generic(words[first - 2].span);
                if inner
                    || (word.capital
                        && !generic
                        && self.together(word, words.get(first).filter(|_| first < last)))
                {
                    first -= 1;
                } else {
                    break;
                }
            }
            // "Deel deze code": a capital that only begins a sentence names nothing.
            let lone =
                first + 1 == last && self.begins_sentence(words[first].span.start) && last < words.len();
            if first < last
                && !lone
                && !self.is_warned(words[first].span.start)
                && let Some(name) = self.name(words[first].span.start, words[last - 1].span.end)
            {
                return Some(name);
            }
        }
        None
    }

    /// A word in small letters right before a keyword that is owned or opens the text: "Your quill code".
    fn small_before_keyword(&self) -> Option<String> {
        let text = self.line();
        for keyword in self.keywords() {
            let from = text[..keyword.start].char_indices().rev().nth(40).map_or(0, |(at, _)| at);
            let words = self.words_in(from, keyword.start);
            let Some(at) = words.iter().rposition(|word| !self.is_generic(word.span)) else { continue };
            let word = &words[at];
            let owned = at >= 1 && &text[words[at - 1].span.start..words[at - 1].span.end] == "your";
            let opens = word.span.start <= self.front() + 1;
            let ascii = text.as_bytes()[word.span.start].is_ascii_alphanumeric();
            if (owned || opens)
                && ascii
                && !self.begins_with_possessive(word)
                && self.reading.breaks(word.span.end, keyword.start) == 0
            {
                let name = self.name(word.span.start, word.span.end);
                if name.is_some() {
                    return name;
                }
            }
        }
        None
    }

    /// Whether a word tells what to do ("use", "enter") and does not describe a code.
    fn is_order(&self, span: Span) -> bool {
        let exact = |class| self.words.at(class, span.start).is_some_and(|one| one.end >= span.end);
        exact(Class::Act) && !exact(Class::Kind) && !exact(Class::Otp)
    }

    /// Whether a sentence, but not the text, begins there.
    fn begins_sentence(&self, at: usize) -> bool {
        at > self.front() + 1
            && self.text()[..at].trim_end_matches(' ').ends_with(['.', '!', '?', '\n', '\u{3002}'])
    }

    /// "your Name account", "your Name card".
    fn owned(&self) -> Option<String> {
        let text = self.line();
        let letters = self.text().bytes().filter(u8::is_ascii_alphabetic).count();
        let capitals = (0..text.len())
            .filter(|at| text.as_bytes()[*at].is_ascii_alphabetic() && self.reading.is_capital(*at))
            .count();
        if capitals * 2 > letters {
            return None;
        }
        let end = text.char_indices().nth(400).map_or(text.len(), |(at, _)| at);
        let words = self.all_words(end);
        for (at, word) in words.iter().enumerate() {
            if !self.begins_with_possessive(word)
                || matches!(
                    &text[word.span.start..word.span.end],
                    "the" | "a" | "an" | "this" | "el" | "la" | "le" | "il" | "deze" | "dit"
                )
            {
                continue;
            }
            let rest = &words[at + 1..];
            let mut count = 0;
            while count < rest.len().min(MOST_WORDS)
                && (count == 0 || self.together(&rest[count - 1], Some(&rest[count])))
                && rest[count].capital
                && (count > 0 || !self.is_generic(rest[count].span))
            {
                count += 1;
            }
            if count == 0 || self.reading.distance(word.span.end, rest[0].span.start) > 2 {
                continue;
            }
            if let Some(name) = self.name(rest[0].span.start, rest[count - 1].span.end) {
                return Some(name);
            }
        }
        None
    }

    /// Whether a word and the next belong to one name: nothing but a blank between.
    fn together(&self, word: &Word, next: Option<&Word>) -> bool {
        next.is_none_or(|next| {
            self.line()[word.span.end..next.span.start].trim().is_empty()
                || matches!(&self.line()[word.span.end..next.span.start], "-" | " & " | " - ")
        })
    }

    fn after_last_break(&self, from: usize, to: usize) -> usize {
        let total = self.reading.breaks(from, to);
        if total == 0 {
            return from;
        }
        let mut at = to;
        while at > from && self.reading.breaks(at, to) == 0 {
            at -= 1;
        }
        // The last byte of what ends the sentence; it may have several.
        (at + 1..=to).find(|at| self.line().is_char_boundary(*at)).unwrap_or(to)
    }

    /// The proper words right behind a preposition: "code for Name", "log in to your Name account".
    fn after_preposition(&self) -> Option<String> {
        let text = self.line();
        let end = text.char_indices().nth(400).map_or(text.len(), |(at, _)| at);
        let words = self.all_words(end);
        let keywords = self.keywords();
        let acts: Vec<Span> =
            self.words.of(Class::Act).iter().chain(self.words.of(Class::Kind)).copied().collect();
        let paid = self.words.of(Class::Currency).iter().any(|currency| self.is_beside_digit(*currency));
        let mut best: Option<(usize, String)> = None;
        for (index, word) in words.iter().enumerate() {
            if !PREPOSITIONS.contains(&&text[word.span.start..word.span.end]) {
                continue;
            }
            let mut from = index + 1;
            while words.get(from).is_some_and(|next| {
                let determiner = &text[next.span.start..next.span.end];
                self.begins_with_possessive(next)
                    || matches!(
                        determiner,
                        "the"
                            | "el"
                            | "la"
                            | "le"
                            | "il"
                            | "dem"
                            | "der"
                            | "den"
                            | "het"
                            | "de"
                            | "o"
                            | "a"
                            | "account"
                            | "app"
                            | "application"
                            | "website"
                            | "site"
                            | "\u{441}\u{430}\u{439}\u{442}\u{435}"
                            | "\u{43f}\u{440}\u{438}\u{43b}\u{43e}\u{436}\u{435}\u{43d}\u{438}\u{435}"
                            | "aplicacion"
                            | "on"
                    )
            }) && from < index + 4
            {
                from += 1;
            }
            let mut to = from;
            while to < words.len() && to - from < MOST_WORDS {
                let next = &words[to];
                let joined = to == from || self.together(&words[to - 1], Some(next));
                let inner = to > from
                    && self.is_particle(next.span)
                    && words.get(to + 1).is_some_and(|after| after.capital && !self.is_generic(after.span));
                if joined
                    && self.is_near(word, next, to - from)
                    && ((next.capital && !self.is_generic(next.span)) || inner)
                {
                    to += 1;
                } else {
                    break;
                }
            }
            if from == to {
                continue;
            }
            let start = words[from].span.start;
            let near = |spans: &[Span], reach: usize| {
                spans.iter().any(|one| {
                    let (a, b) =
                        if one.end <= start { (one.end, start) } else { (start, one.start.max(start)) };
                    self.reading.breaks(a, b) == 0 && self.reading.distance(a, b) <= reach
                })
            };
            let preposition = &text[word.span.start..word.span.end];
            let welcome = index > 0
                && text[words[index - 1].span.start..words[index - 1].span.end] == *"welcome"
                && preposition == "to";
            // A login that is warned of comes from a place.
            let before =
                index.checked_sub(1).map_or("", |at| &text[words[at].span.start..words[at].span.end]);
            if preposition == "from" && matches!(before, "account" | "in" | "login" | "device" | "attempt") {
                continue;
            }
            // Money goes to people and to shops, which are not the ones who sent the code.
            if paid
                && matches!(
                    preposition,
                    "at" | "to"
                        | "from"
                        | "en"
                        | "a"
                        | "al"
                        | "bei"
                        | "an"
                        | "chez"
                        | "la"
                        | "tai"
                        | "cho"
                        | "\u{43d}\u{430}"
                        | "\u{432}"
                        | "u"
                        | "w"
                        | "na"
                        | "do"
                        | "di"
                        | "ke"
                        | "til"
                        | "till"
                        | "bij"
                )
            {
                continue;
            }
            let rank = if welcome {
                1
            } else if near(&keywords, 40) {
                0
            } else if near(&acts, 30) {
                1
            } else {
                continue;
            };
            let owned = words.get(to).is_some_and(|next| {
                matches!(
                    &text[next.span.start..next.span.end],
                    "account" | "app" | "konto" | "cuenta" | "conta" | "compte"
                )
            });
            let rank = rank * 2 + usize::from(!owned);
            if best.as_ref().is_some_and(|(known, _)| *known <= rank) {
                continue;
            }
            if let Some(name) = self.name(start, words[to - 1].span.end)
                && !self.is_money(start)
            {
                best = Some((rank, name));
            }
        }
        best.map(|(_, name)| name)
    }

    fn is_beside_digit(&self, span: Span) -> bool {
        let text = self.line();
        text[..span.start].trim_end_matches(' ').ends_with(|c: char| c.is_ascii_digit())
            || text[span.end..]
                .trim_start_matches([' ', '.', ':', '-'])
                .starts_with(|c: char| c.is_ascii_digit())
    }

    fn is_money(&self, at: usize) -> bool {
        self.words.at(Class::Currency, at).is_some()
    }

    fn is_near(&self, preposition: &Word, next: &Word, taken: usize) -> bool {
        taken > 0 || self.reading.distance(preposition.span.end, next.span.start) <= 24
    }

    fn all_words(&self, end: usize) -> Vec<Word> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < end && all.len() < 96 {
            let words = self.words_in(at, end);
            let Some(last) = words.last() else { break };
            at = last.span.end;
            all.extend(words);
        }
        all
    }

    /// A proper word right behind a keyword: "code de vérification Name", "kod Name to".
    fn after_keyword(&self) -> Option<String> {
        let text = self.line();
        for keyword in self.keywords() {
            let end =
                text[keyword.end..].char_indices().nth(40).map_or(text.len(), |(at, _)| keyword.end + at);
            let stop = text[keyword.end..end]
                .find([':', '.', ',', '(', '\u{3001}'])
                .map_or(end, |at| keyword.end + at);
            let words = self.words_in(keyword.end, stop);
            let Some(first) = words.first() else { continue };
            if !first.capital
                || self.is_generic(first.span)
                || !text[keyword.end..first.span.start].trim().is_empty()
                || is_solid(text[first.span.start..].chars().next().unwrap_or(' '))
            {
                continue;
            }
            let cased = text[first.span.start..].chars().next().is_some_and(char::is_lowercase);
            if !cased {
                continue;
            }
            let count = words.iter().take_while(|word| word.capital && !self.is_generic(word.span)).count();
            if let Some(name) = self.name(first.span.start, words[count - 1].span.end) {
                return Some(name);
            }
        }
        None
    }

    /// Chinese, Japanese and Korean: what stands between words that lead to a name and words that end one.
    fn solid_phrase(&self) -> Option<String> {
        let text = self.line();
        if text.is_ascii() {
            return None;
        }
        for lead in SOLID_LEADS {
            for (at, _) in text.match_indices(lead).take(4) {
                let start = at + lead.len();
                let rest = &text[start..];
                let longest = rest.char_indices().nth(20).map_or(rest.len(), |(at, _)| at);
                let rest = &rest[..longest];
                let Some(length) = SOLID_ENDS.iter().filter_map(|end| rest.find(end)).min() else { continue };
                let inside = rest[..length].trim();
                let from = start + rest.len() - rest.trim_start().len();
                let span = Span { start: from, end: from + inside.len() };
                let count = inside.chars().count();
                let clean = !inside.contains(|c: char| {
                    matches!(c, ':' | '\u{3001}' | '\u{3002}' | '\u{3010}' | '"' | '(' | '\u{300c}')
                }) && !inside.bytes().any(|byte| byte.is_ascii_digit());
                if (2..=14).contains(&count)
                    && clean
                    && !self.is_generic(span)
                    && let Some(name) = self.name(span.start, span.end)
                {
                    return Some(name);
                }
            }
        }
        for keyword in self.keywords() {
            // "Nameの認証コード", "Name認証コード".
            // Korean puts a blank between the name and its keyword.
            let head = text[..keyword.start].trim_end_matches(' ');
            let clause = head
                .rfind(|c: char| {
                    matches!(
                        c,
                        ' ' | ':'
                            | '\u{3001}'
                            | '\u{3002}'
                            | '\u{3011}'
                            | ']'
                            | '\u{300d}'
                            | '!'
                            | '"'
                            | '('
                            | ')'
                    )
                })
                .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
            let inside = head[clause..].trim_end_matches('\u{306e}');
            let kana = head[clause..].chars().any(|c| matches!(c, '\u{3040}'..='\u{30ff}'))
                || text[keyword.start..keyword.end].chars().any(|c| matches!(c, '\u{30a0}'..='\u{30ff}'));
            let count = inside.chars().count();
            let opened = text[..clause].ends_with(['(', '\u{300c}']) || clause <= self.front() + 1;
            let korean = inside.chars().any(|c| matches!(c, '\u{ac00}'..='\u{d7af}'));
            if (kana || (opened && is_solid_at(text, clause)) || korean)
                && (2..=20).contains(&count)
                && !self.is_generic(Span { start: clause, end: clause + inside.len() })
                && !inside.bytes().any(|byte| byte.is_ascii_digit())
                && let Some(name) = self.name(clause, clause + inside.len())
            {
                return Some(name);
            }
        }
        None
    }

    /// Scripts without capitals: the words behind "site", "app", "bank", "at".
    fn lead_word(&self) -> Option<String> {
        let text = self.line();
        if text.is_ascii() {
            return None;
        }
        for (lead, keeps) in LEADS {
            for (at, _) in text.match_indices(lead).take(3) {
                let begins = text[..at].chars().next_back().is_none_or(|c| !is_word_letter(c));
                let start = at + lead.len();
                if !begins || !text[start..].starts_with([' ', '-', '"']) {
                    continue;
                }
                let rest = &text[start..];
                let whole = &self.text()[start..];
                let end = rest.char_indices().nth(32).map_or(rest.len(), |(at, _)| at);
                let end = whole[..end]
                    .find(|c: char| {
                        matches!(c, ':' | '\n' | '.' | ',' | '\u{3001}' | '(' | '"' | '!')
                            || c.is_ascii_digit()
                    })
                    .unwrap_or(end);
                let words = self.words_in(start, start + end);
                let count = words.iter().take(3).take_while(|word| !self.is_generic(word.span)).count();
                if count == 0 || count > 3 {
                    continue;
                }
                let from = if *keeps { at } else { words[0].span.start };
                let span = Span { start: from, end: words[count - 1].span.end };
                let name = if *keeps { self.display(span) } else { self.name(span.start, span.end) };
                if name.is_some() {
                    return name;
                }
            }
        }
        None
    }

    /// The first bracket in the text that holds a name.
    fn bracketed(&self) -> Option<String> {
        let opening = self.line().match_indices(['[', '\u{3010}', '\u{300a}']).take(6);
        opening.filter_map(|(at, _)| self.bracket(at)).find_map(|(inside, _)| self.sign_name(inside))
    }

    /// The text without what may follow its last word.
    fn signed_text(&self) -> &str {
        let mut text = self.text().trim_end_matches([' ', '\n', '.', '!', '\u{3002}']);
        // An app hash, or a link to stop, stands behind the sign.
        while let Some(last) = self.addresses.spans.iter().find(|one| one.end == text.len() && one.start > 0)
        {
            text = self.text()[..last.start].trim_end_matches([' ', '\n', '.', '!', '\u{3002}']);
        }
        text
    }

    /// `【Name】` at the end.
    fn closing_sign(&self) -> Option<String> {
        let text = self.signed_text();
        let closing = text.chars().next_back()?;
        if let Some(open) = CLOSING.chars().position(|c| c == closing).and_then(|at| OPENING.chars().nth(at))
            && matches!(closing, ']' | '\u{3011}' | '\u{3015}' | '\u{3017}')
        {
            let inside_end = text.len() - closing.len_utf8();
            if let Some(at) = text[..inside_end].rfind(open) {
                let start = at + open.len_utf8();
                let inside = Span { start, end: inside_end };
                if self.reading.distance(start, inside_end) <= LONGEST
                    && !text[start..inside_end].contains('\n')
                    && let Some(name) = self.sign_name(inside)
                {
                    return Some(name);
                }
            }
        }
        None
    }

    /// `- Name`, "Team Name", or a last line of its own.
    fn signature(&self) -> Option<String> {
        let text = self.signed_text();
        let last_line = text.rfind('\n').map_or(0, |at| at + 1);
        let tail_from = text.char_indices().rev().nth(44).map_or(0, |(at, _)| at).max(last_line);
        let tail = &text[tail_from..];
        for tie in [
            "- ",
            "-",
            "~ ",
            "team ",
            "regards, ",
            "regards ",
            "thanks, ",
            "thank you, ",
            "from ",
            "\u{2022} ",
        ] {
            if let Some(at) = tail.rfind(tie) {
                let before = tail[..at].chars().next_back();
                // "-Name" is signed; "one-time" is a word.
                if before.is_some_and(|c| c.is_alphanumeric()) || (before.is_none() && tail_from > last_line)
                {
                    continue;
                }
                let start = tail_from + at + tie.len();
                let words = self.words_in(start, text.len());
                let proper = words.iter().all(|word| word.proper || self.is_particle(word.span));
                if proper
                    && (1..=4).contains(&words.len())
                    && let Some(name) = self.name(start, text.len())
                {
                    return Some(name);
                }
            }
        }
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        let line = &text[last_line..];
        let short = line.chars().count() <= 24 && !line.bytes().any(|byte| byte.is_ascii_digit());
        if lines >= 3 && short && !self.addresses.touch(Span { start: last_line, end: text.len() }) {
            return self.prefix_name(last_line, text.len(), 3);
        }
        None
    }

    /// The first well-known name in the text.
    fn brand(&self) -> Option<String> {
        // Google's codes carry their sender, but other texts borrow the form.
        let bare = self.words.of(Class::Otp).is_empty() && self.words.of(Class::Noun).is_empty();
        if bare && self.code.is_some_and(|code| self.line()[..code.start].ends_with("g-")) {
            return Some("Google".to_owned());
        }
        let all = self.words.of(Class::Brand);
        let fits = |span: &&Span| {
            let span = **span;
            let longer = all.iter().any(|other| *other != span && other.holds(span));
            !longer && !self.addresses.touch(span) && self.code.is_none_or(|code| !code.overlaps(span))
        };
        let found = all.iter().find(fits)?;
        self.display(*found)
    }

    /// The host of a link, where nothing else names the service.
    fn host(&self) -> Option<String> {
        let host = self.addresses.hosts.first()?;
        let name = &self.text()[host.start..host.end];
        let shortened = SHORTENERS.iter().any(|known| name == *known || name.ends_with(&format!(".{known}")));
        (!shortened).then(|| host_name(name))
    }
}

fn is_solid_at(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(is_solid)
}

fn is_name_letter(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, '\u{900}'..='\u{dff}' | '\u{e31}'..='\u{e4e}' | '\u{3099}' | '\u{309a}' | '\u{30fc}' | '\u{1000}'..='\u{109f}' | '\u{17b6}'..='\u{17d3}')
}

/// What a host is called: itself, without `www.`.
fn host_name(host: &str) -> String {
    let host = host.strip_prefix("www.").unwrap_or(host).trim_end_matches('.');
    host.chars().take(64).collect()
}

/// The name a sender goes by: an alphanumeric sender id, of Indian headers (`AD-HDFCBK-S`) the middle.
fn sender_name(sender: &str) -> Option<String> {
    let sender = sender.trim();
    if !sender.chars().any(char::is_alphabetic)
        || sender.contains(['+', ':', '@', '/'])
        || sender.chars().count() > 24
    {
        return None;
    }
    let parts: Vec<&str> = sender.split('-').collect();
    let header = |part: &str| part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let name = match parts[..] {
        [circle, name] | [circle, name, _]
            if circle.len() == 2 && circle.bytes().all(|byte| byte.is_ascii_alphabetic()) && header(name) =>
        {
            name
        }
        _ => sender,
    };
    let generic = [
        "info",
        "verify",
        "authmsg",
        "auth",
        "sms",
        "notice",
        "code",
        "otp",
        "alert",
        "infosms",
        "smsinfo",
        "verification",
        "security",
        "nxsms",
        "msg",
        "cloudotp",
        "smscode",
        "service",
        "unknown",
    ];
    let comparable = folded(name);
    (!generic.contains(&comparable.as_str())).then(|| name.to_owned())
}

const GREETINGS: &[&str] = &[
    "hi",
    "hello",
    "dear",
    "hey",
    "hola",
    "bonjour",
    "salut",
    "ciao",
    "hallo",
    "guten",
    "liebe",
    "lieber",
    "estimado",
    "estimada",
    "caro",
    "cara",
    "cher",
    "chere",
    "gentile",
    "ola",
    "beste",
    "hei",
    "hej",
    "sayin",
    "merhaba",
    "здравствуите",
    "уважаемыи",
    "привет",
    "kepada",
    "halo",
    "سلام",
    "عزیزی",
    "مرحبا",
    "שלום",
    "good",
    "re",
    "sehr",
    "bpk",
    "yth",
];

/// What banks, posts, insurers and shops are called in front of or behind their names.
const ORGANISATIONS: &[&str] = &[
    "bank",
    "banka",
    "banca",
    "banco",
    "banque",
    "banki",
    "bankasi",
    "pankki",
    "bankas",
    "banku",
    "ngan",
    "hang",
    "банк",
    "банка",
    "τραπεζα",
    "posta",
    "posti",
    "poste",
    "correos",
    "pojistovna",
    "sporitelna",
    "stedionica",
    "kasse",
    "kassa",
    "caja",
    "caixa",
    "cassa",
    "caisse",
];

/// Words for whose something is. A name does not begin with one.
pub(super) const POSSESSIVES: &[&str] = &[
    "your",
    "the",
    "my",
    "uw",
    "je",
    "jouw",
    "din",
    "ditt",
    "dein",
    "deine",
    "deinen",
    "deinem",
    "deiner",
    "ihr",
    "ihre",
    "ihren",
    "ihrem",
    "votre",
    "ton",
    "ta",
    "tu",
    "su",
    "tus",
    "sus",
    "seu",
    "sua",
    "teu",
    "tuo",
    "tua",
    "suo",
    "il",
    "vas",
    "vase",
    "tvuj",
    "twoj",
    "twoje",
    "ваш",
    "ваша",
    "вашего",
    "твои",
    "a",
    "an",
    "this",
    "deres",
    "jullie",
    "onze",
    "our",
    "votre",
    "deze",
    "dit",
    "diesen",
    "dieser",
    "diese",
    "dieses",
    "ce",
    "cet",
    "cette",
    "este",
    "esta",
    "el",
    "la",
    "le",
    "les",
    "lo",
    "questo",
    "denne",
    "dette",
    "den",
    "detta",
    "ten",
    "tento",
    "этот",
    "эту",
    "цей",
    "that",
    "o",
    "os",
    "het",
    "de",
    "mit",
    "ezt",
    "bu",
    "ini",
    "der",
    "die",
    "das",
    "dem",
];

const PREPOSITIONS: &[&str] = &[
    "for",
    "to",
    "into",
    "on",
    "at",
    "with",
    "in",
    "from",
    "by",
    "of",
    "via",
    "using",
    "access",
    "de",
    "del",
    "da",
    "do",
    "di",
    "du",
    "dal",
    "della",
    "dello",
    "para",
    "pour",
    "por",
    "per",
    "sur",
    "chez",
    "su",
    "no",
    "na",
    "em",
    "en",
    "al",
    "a",
    "la",
    "au",
    "con",
    "von",
    "fur",
    "bei",
    "zu",
    "zum",
    "zur",
    "beim",
    "im",
    "mit",
    "auf",
    "voor",
    "bij",
    "van",
    "naar",
    "op",
    "met",
    "fra",
    "fran",
    "till",
    "til",
    "hos",
    "pa",
    "av",
    "af",
    "for",
    "do",
    "w",
    "na",
    "dla",
    "z",
    "ze",
    "od",
    "k",
    "ke",
    "ve",
    "v",
    "pro",
    "pre",
    "za",
    "u",
    "za",
    "pri",
    "icin",
    "untuk",
    "dari",
    "ke",
    "di",
    "pada",
    "cho",
    "tai",
    "cua",
    "vao",
    "tren",
    "ya",
    "kwa",
    "sa",
    "ng",
    "в",
    "на",
    "для",
    "от",
    "у",
    "з",
    "до",
    "від",
    "за",
    "в сервисе",
    "στο",
    "στη",
    "στην",
    "για",
    "απο",
    "فی",
    "علی",
    "من",
    "ل",
    "الی",
    "ב",
    "ל",
    "של",
    "מ",
    "در",
    "به",
    "برای",
    "welcome",
];

const SOLID_LEADS: &[&str] = &[
    "登录您的",
    "登入您的",
    "登录你的",
    "注册成为",
    "正在登录",
    "正在登入",
    "正在注册",
    "正在使用",
    "正在註冊",
    "用于登录",
    "用於登入",
    "用于注册",
    "用于",
    "前往",
    "来自",
    "來自",
    "欢迎使用",
    "歡迎使用",
    "欢迎注册",
    "欢迎加入",
    "感谢使用",
    "感謝使用",
    "感谢您使用",
    "您的",
    "你的",
    "登录",
    "登入",
    "注册",
];

const SOLID_ENDS: &[&str] = &[
    "账户",
    "账号",
    "帐号",
    "帳號",
    "帳戶",
    "帐户",
    "验证",
    "驗證",
    "登录",
    "登入",
    "app",
    "客户端",
    "平台",
    "网站",
    "網站",
    "用户",
    "会员",
    "會員",
    "动态",
    "動態",
    "\u{3001}",
    "\u{3002}",
    "!",
    "的",
    "服务",
    "服務",
    "密码",
    "密碼",
    ",",
];

/// Words of scripts without capitals that a name follows, and whether they are part of it.
const LEADS: &[(&str, bool)] = &[
    ("سامانه", false),
    ("در سایت", false),
    ("سایت", false),
    ("اپلیکیشن", false),
    ("برنامه", false),
    ("فروشگاه", false),
    ("ورود به", false),
    ("کیف\u{200c}پول", false),
    ("کیفپول", false),
    ("بانک", true),
    ("تطبیق", false),
    ("لتطبیق", false),
    ("موقع", false),
    ("منصه", false),
    ("بنک", true),
    ("مصرف", true),
    ("فی", false),
    ("الی", false),
    ("من", false),
    ("באתר", false),
    ("לאתר", false),
    ("אתר", false),
    ("אפליקציית", false),
    ("בנק", true),
    ("של", false),
];

const SHORTENERS: &[&str] = &[
    "bit.ly",
    "t.co",
    "tinyurl.com",
    "goo.gl",
    "ow.ly",
    "is.gd",
    "cutt.ly",
    "rb.gy",
    "t.ly",
    "lnkd.in",
    "wa.me",
    "t.me",
    "rebrand.ly",
    "onelink.me",
    "app.link",
    "smsurl.in",
    "t.cn",
    "dwz.cn",
    "url.cn",
    "mpurl.cn",
    "clck.ru",
    "vk.cc",
];
