//! Which candidate is the code: a score for each, from its shape and from the words around it.
//!
//! The weights were set by hand and then nudged on labelled messages; `docs/recognition.md` says how well they
//! do on sources that had no part in it. They are relative to [`Weights::threshold`].

use super::candidates::{Candidate, Shape};
use super::lexicon::{Class, Span, Words, is_solid, is_word_letter};
use super::reading::Reading;
use super::service::POSSESSIVES;

/// How much each sign counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// What a candidate needs to be shown.
    pub(super) threshold: f32,
    /// A keyword before the candidate, by strength.
    pub(super) before: [f32; 3],
    /// A keyword after it, by strength.
    pub(super) after: [f32; 3],
    /// Each character between a keyword and the candidate behind it.
    pub(super) distance_before: f32,
    /// Each character between the candidate and a keyword behind it.
    pub(super) distance_after: f32,
    /// Each sentence that ends between a keyword and the candidate behind it.
    pub(super) break_before: f32,
    /// Each sentence that ends between the candidate and a keyword behind it.
    pub(super) break_after: f32,
    /// Nothing but "is", ":", quotes between keyword and candidate.
    pub(super) linked: f32,
    /// Little and no punctuation between them.
    pub(super) near: f32,
    /// "123456 is your …".
    pub(super) opens: f32,
    /// Another long number between them.
    pub(super) crossed: f32,
    /// "is" or ":" right before the candidate, the keyword further away.
    pub(super) led: f32,
    /// No keyword at all.
    pub(super) no_keyword: f32,
    /// Begins a line.
    pub(super) line_start: f32,
    /// Ends a line.
    pub(super) line_end: f32,
    /// In brackets or quotes.
    pub(super) bracketed: f32,
    /// Right after "use", "enter".
    pub(super) acted: f32,
    /// The text warns or tells how long something is valid.
    pub(super) context: f32,
    /// A short text with one number.
    pub(super) short: f32,
    /// The text is this number and a line on how long it is valid.
    pub(super) alone: f32,
    /// After the name of another number.
    pub(super) numbered: f32,
    /// After "call", "text to".
    pub(super) called: f32,
    /// The text sells something.
    pub(super) promo: f32,
    /// The text is about a parcel.
    pub(super) parcel: f32,
    /// The keyword is one of another code.
    pub(super) decoyed: f32,
    /// The text is about prepaid energy.
    pub(super) energy: f32,
    /// The text reports movements of money.
    pub(super) ledger: f32,
    /// Reads as a year.
    pub(super) year: f32,
    /// Said to be void.
    pub(super) void: f32,
    /// A shape that needs a keyword right beside it and has none.
    pub(super) unlinked: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            threshold: 5.0,
            before: [1.6, 3.2, 4.2],
            after: [1.3, 3.0, 4.0],
            distance_before: 0.035,
            distance_after: 0.04,
            break_before: 0.7,
            break_after: 1.0,
            linked: 2.4,
            near: 1.1,
            opens: 1.5,
            crossed: 1.5,
            led: 1.1,
            no_keyword: 3.0,
            line_start: 0.9,
            line_end: 0.5,
            bracketed: 0.6,
            acted: 1.5,
            context: 0.6,
            short: 0.5,
            alone: 5.5,
            numbered: 3.2,
            called: 4.0,
            promo: 2.5,
            parcel: 3.5,
            decoyed: 4.0,
            energy: 4.0,
            ledger: 1.5,
            year: 1.2,
            void: 4.0,
            unlinked: 3.0,
        }
    }
}

/// A word that speaks for a one-time code.
#[derive(Clone, Copy, Debug)]
struct Keyword {
    span: Span,
    /// 0 for an act, 1 for a bare noun, 2 for a one-time code by name.
    strength: usize,
    /// Stands in "never share your …".
    warned: bool,
}

/// A candidate and how much speaks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    pub(super) candidate: Candidate,
    pub(super) score: f32,
    /// Strength of the best keyword, 1 to 3; 0 without one.
    pub(super) strength: u8,
}

/// The keywords of a text and what else is said in it.
pub(super) struct Scorer<'a> {
    reading: &'a Reading<'a>,
    words: &'a Words,
    weights: &'a Weights,
    keywords: Vec<Keyword>,
    /// Nouns that name another kind of code.
    decoys: Vec<Span>,
    /// For every byte, and the end: runs of four digits or more that began before it.
    numbers: Vec<u16>,
    candidates: &'a [Candidate],
}

impl<'a> Scorer<'a> {
    /// `words` must hold none within links and host names.
    pub(super) fn new(
        reading: &'a Reading<'a>,
        words: &'a Words,
        candidates: &'a [Candidate],
        weights: &'a Weights,
    ) -> Self {
        let mut scorer = Self {
            reading,
            words,
            weights,
            keywords: Vec::new(),
            decoys: Vec::new(),
            numbers: count_numbers(reading.bytes()),
            candidates,
        };
        scorer.collect();
        scorer
    }

    /// All candidates with their scores, best first.
    pub(super) fn scored(&self) -> Vec<Scored> {
        let mut scored: Vec<Scored> = self.candidates.iter().map(|candidate| self.score(candidate)).collect();
        scored.sort_by(|a, b| b.score.total_cmp(&a.score));
        scored
    }

    /// Where the keywords are.
    pub(super) fn keywords(&self) -> impl Iterator<Item = Span> {
        self.keywords.iter().filter(|keyword| keyword.strength > 0).map(|keyword| keyword.span)
    }

    fn collect(&mut self) {
        let lookalikes = self.words.of(Class::Lookalike);
        let otp = self.words.of(Class::Otp);
        let hidden = |span: &Span| covered(lookalikes, *span);
        let (mut keywords, mut decoys) = (Vec::new(), Vec::new());
        let receipt = self.is_receipt();
        let approval = |span: &Span| receipt && self.is_approval(*span);
        for span in otp.iter().filter(|span| !hidden(span) && !approval(span)) {
            keywords.push(self.keyword(*span, 2));
        }
        for span in self.words.of(Class::Noun) {
            if covered(otp, *span) {
                if hidden(span) && !otp.iter().any(|one| one.holds(*span) && !hidden(one)) {
                    decoys.push(*span);
                }
            } else if hidden(span) || self.is_decoy(*span) || self.is_of_a_thing(*span) {
                decoys.push(*span);
            } else if !approval(span) {
                let strength = if self.is_qualified(*span) { 2 } else { 1 };
                keywords.push(self.keyword(*span, strength));
            }
        }
        let nouns = self.words.of(Class::Noun);
        for span in self.words.of(Class::Act) {
            if !hidden(span) && !covered(otp, *span) && !covered(nouns, *span) {
                keywords.push(self.keyword(*span, 0));
            }
        }
        keywords.sort_by_key(|keyword| keyword.span.start);
        (self.keywords, self.decoys) = (keywords, decoys);
    }

    fn keyword(&self, span: Span, strength: usize) -> Keyword {
        let warnings = self.words.starting(Class::Secrecy, span.start.saturating_sub(90), span.start + 1);
        let warned = warnings.iter().any(|warning| {
            warning.start < span.start
                && (warning.end <= span.start || warning.holds(span))
                && self.reading.distance(warning.end.min(span.start), span.start) <= 28
                && self.reading.breaks(warning.start, span.start) == 0
                && self.numbers_between(warning.start, span.start) == 0
        });
        Keyword { span, strength, warned }
    }

    /// Whether a word beside the noun makes it another kind of code: "promo code", "código de descuento".
    fn is_decoy(&self, noun: Span) -> bool {
        let text = self.reading.line();
        let before = self.words.starting(Class::Decoy, noun.start.saturating_sub(40), noun.start);
        let beside = |gap: &str| gap.len() <= 2 && gap.chars().all(|c| matches!(c, ' ' | '-' | '/' | '\''));
        if before.iter().any(|decoy| decoy.end <= noun.start && beside(&text[decoy.end..noun.start])) {
            return true;
        }
        let after = self.words.starting(Class::Decoy, noun.end, (noun.end + 24).min(text.len()));
        after.iter().any(|decoy| {
            let gap = text[noun.end..decoy.start].trim();
            matches!(
                gap,
                "" | "de"
                    | "di"
                    | "do"
                    | "da"
                    | "du"
                    | "del"
                    | "de la"
                    | "d'"
                    | "za"
                    | "\u{437}\u{430}"
                    | "\u{434}\u{43b}\u{44f}"
                    | "\u{43d}\u{430}"
                    | "per"
                    | "per il"
                    | "pro"
                    | "pri"
                    | "na"
                    | "para"
                    | "pour"
                    | "for pickup"
            ) && !gap.contains(|c: char| c.is_ascii_digit())
        })
    }

    /// "código de cita", "codice della tessera": a one-time code is of an action ("de verificación", "di accesso"), and
    /// what is of a thing that no word of the lexicon names is another kind of code.
    fn is_of_a_thing(&self, noun: Span) -> bool {
        let text = self.reading.line();
        // Doors and members' cards have codes that nobody warns of.
        if self.words.any(Class::Secrecy) || self.words.any(Class::Validity) {
            return false;
        }
        let Some(rest) = OF.iter().find_map(|of| text[noun.end..].strip_prefix(of)) else { return false };
        let start = text.len() - rest.len();
        let end = start + rest.find(|c: char| !is_word_letter(c)).unwrap_or(rest.len());
        let known = [
            Class::Otp,
            Class::Noun,
            Class::Kind,
            Class::Act,
            Class::Link,
            Class::Generic,
            Class::Secrecy,
            Class::Validity,
            Class::Brand,
        ];
        let word = &text[start..end];
        word.chars().count() >= 4
            && !self.reading.is_capital(start)
            && !ACTIONS.iter().any(|ending| word.ends_with(ending))
            && !known.into_iter().any(|class| self.words.at(class, start).is_some())
    }

    /// Whether the text tells of a payment that is done: it has money and what moved it, and warns of nothing.
    fn is_receipt(&self) -> bool {
        let moved = self.words.of(Class::Ledger).len();
        (moved >= 2
            || (moved == 1 && (self.words.any(Class::Currency) || self.reading.text().contains(" *"))))
            && !self.words.any(Class::Secrecy)
            && !self.words.any(Class::Validity)
    }

    /// Whether a keyword is the "authorization code" that a receipt has as one of its fields: it is nobody's, nothing is
    /// to be done with it, and behind its number begins the next field, or much else is told of accounts.
    fn is_approval(&self, keyword: Span) -> bool {
        let text = self.reading.line();
        let sentence = text[..keyword.start].rfind(['.', ';', ':', '!', '\u{3002}']).map_or(0, |at| at + 1);
        let before = text[sentence..keyword.start].trim_start();
        if !APPROVALS.iter().any(|part| text[keyword.start..keyword.end].contains(part)) {
            return false;
        }
        let owned = before.split(' ').next().is_some_and(|word| POSSESSIVES.contains(&word));
        if owned || self.is_acted(keyword.start) {
            return false;
        }
        let value = text[keyword.end..].trim_start_matches([' ', ':', '#', '-']);
        let digits = value.bytes().take_while(u8::is_ascii_digit).count();
        let field = digits >= 4 && self.ends_clause(text.len() - value.len() + digits);
        field || self.words.of(Class::Ledger).len() >= 2
    }

    /// Whether a word near the noun makes it a one-time code.
    fn is_qualified(&self, noun: Span) -> bool {
        let near = |from: usize, to: usize| {
            self.reading.distance(from, to) <= 20
                && self.reading.breaks(from, to) == 0
                && !self.reading.bytes()[from..to].iter().any(u8::is_ascii_digit)
        };
        let before = self.words.starting(Class::Kind, noun.start.saturating_sub(80), noun.start);
        let after = self.words.starting(Class::Kind, noun.end, noun.end + 60);
        before.iter().any(|kind| kind.end <= noun.start && near(kind.end, noun.start))
            || after.iter().any(|kind| near(noun.end, kind.start))
    }

    fn numbers_between(&self, from: usize, to: usize) -> u16 {
        self.numbers[to].saturating_sub(self.numbers[from.min(to)])
    }

    fn score(&self, candidate: &Candidate) -> Scored {
        let weights = self.weights;
        let Span { start, end } = candidate.span;
        let best = self.best_keyword(candidate);
        let mut score = self.shape_score(candidate) + best.score;
        let has_context = self.words.any(Class::Secrecy) || self.words.any(Class::Validity);
        let (starts, ends) = self.line_edges(start, end);

        if best.strength == 0 {
            score -= weights.no_keyword;
            if starts && ends && has_context && self.is_only_number() {
                score += weights.alone;
            }
            if candidate.shape == Shape::Prefixed {
                score += weights.alone;
            }
            if !(starts && ends) && self.is_what_was_warned_of(candidate) {
                score += weights.alone;
            }
        } else if !best.linked && self.is_led(start) {
            score += weights.led;
        }
        if starts {
            score += weights.line_start;
        }
        if ends {
            score += weights.line_end;
        }
        if self.is_bracketed(start, end) {
            score += weights.bracketed;
        }
        if self.is_acted(start) || (best.strength == 1 && self.is_means(start)) {
            score += weights.acted;
        }
        if has_context {
            score += weights.context;
        }
        if self.reading.distance(0, self.reading.text().len()) <= 40 && self.is_only_number() {
            score += weights.short;
        }
        score -= self.penalties(candidate, &best);
        Scored { candidate: *candidate, score, strength: best.strength }
    }

    /// "Never give this code to anyone. 123456": the only number, a sentence of its own at the end, behind a warning
    /// that speaks of codes.
    fn is_what_was_warned_of(&self, candidate: &Candidate) -> bool {
        let Span { start, end } = candidate.span;
        let (before, after) = (&self.reading.text()[..start], &self.reading.text()[end..]);
        candidate.shape.is_numeric()
            && candidate.length >= 4
            && after.trim_matches([' ', '.', '\n']).is_empty()
            && before.trim_end_matches([' ', '\n']).ends_with(['.', '!', '\u{3002}'])
            && self.is_only_number()
            && self.words.any(Class::Secrecy)
            && (self.words.any(Class::Noun) || self.words.any(Class::Otp))
    }

    fn shape_score(&self, candidate: &Candidate) -> f32 {
        let Span { start, end } = candidate.span;
        match candidate.shape {
            Shape::Prefixed => 5.0,
            Shape::Digits => {
                let digits = &self.reading.bytes()[start..end];
                let base = match candidate.length {
                    6 => 3.2,
                    5 => 2.4,
                    4 | 8 => 2.3,
                    _ => 2.2,
                };
                let year = digits.len() == 4 && (digits.starts_with(b"19") || digits.starts_with(b"20"));
                base - if year { self.weights.year } else { 0.0 }
            }
            Shape::Grouped => 2.3,
            Shape::Spelled => 1.0,
            Shape::Unusual => -1.0 - if candidate.length == 3 { 1.0 } else { 0.0 },
            Shape::Mixed => {
                let capitals = self.reading.is_capitals(start, end);
                let letters = candidate.length
                    - self.reading.bytes()[start..end].iter().filter(|b| b.is_ascii_digit()).count();
                let odd = !capitals && (start..end).any(|at| self.reading.is_capital(at));
                0.8 + if capitals { 0.5 } else { 0.0 } + if odd && letters >= 2 { 0.3 } else { 0.0 }
            }
            Shape::MixedGroups => 1.0,
            Shape::Capitals | Shape::Small => -1.5,
        }
    }

    fn best_keyword(&self, candidate: &Candidate) -> Best {
        let Span { start, end } = candidate.span;
        let (starts, ends) = self.line_edges(start, end);
        // A number with a line to itself is what the lines before it speak of.
        let alone = starts && ends && start > 0 && candidate.shape.is_numeric();
        // 110 characters are at most 440 bytes.
        let reach = if alone { 1_000 } else { 520 };
        let first = self.keywords.partition_point(|keyword| keyword.span.start < start.saturating_sub(reach));
        let mut best = Best { score: 0.0, strength: 0, linked: false };
        for keyword in &self.keywords[first..] {
            if keyword.span.start > end + 280 {
                break;
            }
            let found = if keyword.span.end <= start {
                self.keyword_before(keyword, start, alone)
            } else if keyword.span.start >= end {
                self.keyword_after(keyword, end)
            } else {
                None
            };
            if let Some(found) = found {
                if found.score > best.score {
                    best = Best { linked: found.linked || best.linked, ..found };
                } else {
                    best.linked |= found.linked;
                }
            }
        }
        best
    }

    fn keyword_before(&self, keyword: &Keyword, start: usize, alone: bool) -> Option<Best> {
        let weights = self.weights;
        let from = keyword.span.end;
        let aside = self.aside(from, start);
        let distance = self.reading.distance(from, start) - self.reading.distance(aside.start, aside.end);
        let breaks = self.reading.breaks(from, start) - self.reading.breaks(aside.start, aside.end);
        if !alone && (distance > 110 || breaks > 2) {
            return None;
        }
        let linked = distance <= 34 && self.is_link(from, start);
        if keyword.warned && !linked {
            return None;
        }
        let led = breaks == 0 && self.is_led(start);
        let mut score = weights.before[keyword.strength];
        let far = weights.distance_before * to_f32(distance) * if led { 0.5 } else { 1.0 };
        let broken = weights.break_before * to_f32(breaks);
        score -= if alone { far.min(1.4) + broken.min(1.4) } else { far + broken };
        if keyword.warned {
            score -= 1.5;
        }
        if linked {
            score += weights.linked;
        } else if distance <= 14
            && !self.reading.line()[from..start].contains(['.', ',', ';', '!', '?', '\u{3001}', '\u{3002}'])
        {
            score += weights.near;
        }
        if self.numbers_between(from, start) > self.numbers_between(aside.start, aside.end) {
            score -= weights.crossed * if led { 0.5 } else { 1.0 };
        }
        (score > 0.0).then_some(Best { score, strength: as_strength(keyword), linked })
    }

    /// What stands in brackets between two places, as one span: an aside takes a keyword no further from its code.
    fn aside(&self, from: usize, to: usize) -> Span {
        let gap = &self.reading.text()[from..to];
        let inside = gap.find(" (").and_then(|open| {
            let close = gap[open..].find(')')?;
            Some(Span { start: from + open, end: from + open + close + 1 })
        });
        inside.unwrap_or(Span { start: from, end: from })
    }

    fn keyword_after(&self, keyword: &Keyword, end: usize) -> Option<Best> {
        let weights = self.weights;
        let to = keyword.span.start;
        let distance = self.reading.distance(end, to);
        let breaks = self.reading.breaks(end, to);
        if distance > 70 || breaks > 1 || keyword.warned {
            return None;
        }
        let opens = breaks == 0 && distance <= 44 && self.opens_with_link(end, to);
        let mut score = weights.after[keyword.strength];
        score -= weights.distance_after * to_f32(distance);
        score -= weights.break_after * to_f32(breaks);
        if opens {
            score += weights.opens;
        }
        if self.numbers_between(end, to) > 0 {
            score -= weights.crossed;
        }
        (score > 0.0).then_some(Best { score, strength: as_strength(keyword), linked: opens })
    }

    /// Whether nothing but linking words, keywords and punctuation stands between two places.
    fn is_link(&self, from: usize, to: usize) -> bool {
        let text = self.reading.line();
        let classes = [Class::Link, Class::Noun, Class::Otp, Class::Kind];
        let mut at = from;
        'words: while at < to {
            let Some(c) = text[at..to].chars().next() else { break };
            if is_word_letter(c) || is_solid(c) {
                let longest = classes.into_iter().filter_map(|class| {
                    self.words
                        .starting(class, at, at + 1)
                        .iter()
                        .filter(|span| span.end <= to)
                        .map(|span| span.end)
                        .max()
                });
                match longest.max() {
                    Some(end) => {
                        at = end;
                        continue 'words;
                    }
                    None => return false,
                }
            }
            if c.is_ascii_digit() || matches!(c, ';' | '!' | '?' | '/' | '&' | '+') {
                return false;
            }
            at += c.len_utf8();
        }
        true
    }

    /// Whether what follows a candidate links it to the keyword behind it.
    fn opens_with_link(&self, end: usize, to: usize) -> bool {
        let gap = &self.reading.line()[end..to];
        let rest = gap.trim_start_matches([
            ' ', '"', '\'', ')', ']', '\u{300d}', '\u{300f}', '\u{3011}', '>', '-', '=', ':', '*',
        ]);
        let at = to - rest.len();
        rest.is_empty()
            || rest.starts_with(['(', '\u{300c}'])
            || self.words.at(Class::Link, at).is_some()
            || self.words.at(Class::Kind, at).is_some()
            || self.words.at(Class::Generic, at).is_some()
    }

    /// "is", ":" and the like right before a place.
    fn is_led(&self, start: usize) -> bool {
        let text = &self.reading.line()[..start];
        let text =
            text.trim_end_matches([' ', '"', '\'', '\u{300c}', '\u{300e}', '\u{3010}', '[', '(', '<', '*']);
        if text.ends_with([':', '=']) {
            return true;
        }
        let at = text.len();
        let links = self.words.starting(Class::Link, at.saturating_sub(24), at);
        links.iter().any(|link| link.end == at && LEADING.contains(&&text[link.start..link.end]))
    }

    /// "WELCOME15", "BDAY2026": a word that can be said and a number, as vouchers have it.
    fn is_word_and_number(&self, candidate: &Candidate) -> bool {
        let bytes = &self.reading.bytes()[candidate.span.start..candidate.span.end];
        let letters = bytes.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        candidate.shape == Shape::Mixed
            && letters >= 4
            && (1..=4).contains(&(bytes.len() - letters))
            && bytes[letters..].iter().all(u8::is_ascii_digit)
            && bytes[..letters].iter().any(|byte| b"aeiou".contains(byte))
    }

    fn line_edges(&self, start: usize, end: usize) -> (bool, bool) {
        let text = self.reading.text();
        let before = text[..start].trim_end_matches(' ');
        let after = text[end..].trim_start_matches([' ', '.']);
        (before.is_empty() || before.ends_with('\n'), after.is_empty() || after.starts_with('\n'))
    }

    fn is_bracketed(&self, start: usize, end: usize) -> bool {
        let text = self.reading.line();
        let before = text[..start].trim_end_matches(' ');
        let after = text[end..].trim_start_matches(' ');
        before.ends_with(['\u{300c}', '\u{300e}', '\u{3010}', '[', '(', '<', '"', '\'', '*', '\u{3014}'])
            && after
                .starts_with(['\u{300d}', '\u{300f}', '\u{3011}', ']', ')', '>', '"', '\'', '*', '\u{3015}'])
    }

    /// "use", "enter" and at most an article or a keyword right before a place.
    fn is_acted(&self, start: usize) -> bool {
        let acts = self.words.starting(Class::Act, start.saturating_sub(60), start);
        acts.iter().any(|act| {
            act.end <= start && self.reading.distance(act.end, start) <= 24 && self.is_link(act.end, start)
        })
    }

    /// "Activate your profile with 123456": what a thing is done with.
    fn is_means(&self, start: usize) -> bool {
        let before = self.reading.line()[..start].trim_end_matches(' ');
        [" with", " mit", " con", " avec", " com", " met", " med"].iter().any(|word| before.ends_with(word))
    }

    /// Whether the text holds one candidate made of digits.
    fn is_only_number(&self) -> bool {
        self.candidates.iter().filter(|candidate| candidate.shape.is_numeric()).count() == 1
    }

    fn penalties(&self, candidate: &Candidate, best: &Best) -> f32 {
        let weights = self.weights;
        let Span { start, end } = candidate.span;
        let mut penalty = 0.0;
        let weak = best.strength < 3;
        if self.is_named(Class::Number, start, NUMBER_LINKS, best) {
            penalty += weights.numbered;
        }
        // "88213#" is typed into a telephone.
        let keyed = candidate.shape.is_numeric() && self.reading.bytes().get(end) == Some(&b'#');
        if keyed || self.is_named(Class::Call, start, CALL_LINKS, best) {
            penalty += weights.called;
        }
        if self.is_void(start, end) {
            penalty += weights.void;
        }
        if self.is_decoyed(start, end) {
            penalty += weights.decoyed;
        }
        if self.words.any(Class::Promo) && (weak || !best.linked) {
            penalty += weights.promo;
            if weak {
                // A code that is not said to verify anything, in a text that sells: most likely a voucher.
                penalty += 2.0 + to_f32((self.words.of(Class::Promo).len() - 1).min(3));
            }
            if matches!(candidate.shape, Shape::Mixed | Shape::Capitals | Shape::MixedGroups | Shape::Small) {
                penalty += 1.5;
            }
        }
        if self.words.any(Class::Parcel) && weak {
            penalty += weights.parcel + 1.5 * to_f32((self.words.of(Class::Parcel).len() - 1).min(3));
        }
        if self.words.any(Class::Energy) && weak {
            penalty += weights.energy;
        }
        if weak && self.words.of(Class::Ledger).len() >= 2 {
            penalty += weights.ledger;
        }
        if weak && self.is_word_and_number(candidate) {
            penalty += 1.5;
        }
        if candidate.hash && !best.linked {
            penalty += weights.numbered;
        }
        if candidate.hyphened && !best.linked {
            penalty += 1.0;
        }
        if self.is_range(start) {
            penalty += 3.0;
        }
        penalty += match candidate.shape {
            Shape::Unusual if !best.linked => weights.unlinked,
            Shape::Mixed | Shape::MixedGroups if best.strength < 2 => {
                let told = self.has_capital(start, end)
                    && self.is_acted(start)
                    && (self.keywords().next().is_some() || self.words.any(Class::Validity));
                if told { 0.0 } else { weights.unlinked }
            }
            Shape::Mixed if !best.linked && !self.has_capital(start, end) => 2.0,
            Shape::Spelled if weak && !best.linked => 1.5,
            Shape::Capitals => self.capitals_penalty(start, end, best),
            Shape::Small => {
                if best.linked && self.ends_clause(end) {
                    0.0
                } else {
                    6.0
                }
            }
            _ => 0.0,
        };
        penalty
    }

    fn has_capital(&self, start: usize, end: usize) -> bool {
        (start..end).any(|at| self.reading.is_capital(at))
    }

    /// Capitals alone are a code only right behind its name, and not in a text full of capitals.
    fn capitals_penalty(&self, start: usize, end: usize, best: &Best) -> f32 {
        let text = self.reading.line();
        let word_before = text[..start].trim_end_matches(|c: char| !is_word_letter(c));
        let from = word_before.rfind(|c: char| !is_word_letter(c)).map_or(0, |at| at + 1);
        let from =
            (from..=word_before.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(word_before.len());
        let loud_before = word_before.len() - from >= 2 && self.reading.is_capitals(from, word_before.len());
        let after = text[end..].trim_start_matches(|c: char| !is_word_letter(c));
        let next = text.len() - after.len();
        let next_end =
            next + after.chars().take_while(|c| is_word_letter(*c)).map(char::len_utf8).sum::<usize>();
        let loud_after = next_end - next >= 2
            && self.reading.is_capitals(next, next_end)
            && self.reading.breaks(end, next) == 0;
        let behind = best.linked
            && self.keywords.iter().any(|keyword| {
                keyword.strength > 0
                    && keyword.span.end <= start
                    && self.reading.distance(keyword.span.end, start) <= 16
                    && self.is_link(keyword.span.end, start)
            });
        let name = loud_before && !self.keywords.iter().any(|keyword| keyword.span.end == word_before.len());
        if !behind || name || loud_after { 6.0 } else { 0.0 }
    }

    /// Whether a clause or line ends there.
    fn ends_clause(&self, end: usize) -> bool {
        let after = self.reading.text()[end..].trim_start_matches([' ', '"']);
        after.is_empty() || after.starts_with(['\n', '.', ',', ';', '(', '\u{3001}', '\u{3002}'])
    }

    /// Whether a word of `class` stands right before a place, with nothing but `links` between.
    fn is_named(&self, class: Class, start: usize, links: &[&str], best: &Best) -> bool {
        let text = self.reading.line();
        let names = self.words.starting(class, start.saturating_sub(72), start);
        names.iter().any(|name| {
            if name.end > start || self.reading.breaks(name.end, start) > 0 {
                return false;
            }
            let gap = &text[name.end..start];
            if self.reading.distance(name.end, start) > 22 {
                return false;
            }
            let mut says = false;
            let words_fit = gap
                .split(|c: char| !is_word_letter(c) && !is_solid(c) && c != '\'')
                .filter(|word| !word.is_empty())
                .all(|word| {
                    says |= matches!(
                        word,
                        "is" | "are"
                            | "es"
                            | "est"
                            | "ist"
                            | "la"
                            | "\u{662f}"
                            | "\u{4e3a}"
                            | "\u{70ba}"
                            | "e"
                            | "to"
                    );
                    links.contains(&word)
                });
            if !words_fit || gap.contains([';', '!', '?', ',']) {
                return false;
            }
            // A word that is also a part of a keyword names the code and nothing else.
            let part = self.keywords.iter().any(|keyword| {
                keyword.strength > 0
                    && (keyword.span.overlaps(*name)
                        || (keyword.span.start >= name.end && keyword.span.end <= start))
            });
            if part {
                return false;
            }
            // "Your OTP for this transaction is …": the verb belongs to the keyword.
            !(says && best.strength >= 2)
        })
    }

    fn is_void(&self, start: usize, end: usize) -> bool {
        let to = (end + 60).min(self.reading.text().len());
        let words = self.words.starting(Class::Void, start.saturating_sub(60), to);
        words.iter().any(|word| {
            if word.end <= start {
                self.reading.distance(word.end, start) <= 14 && self.reading.breaks(word.end, start) == 0
            } else {
                self.reading.distance(end, word.start.max(end)) <= 10
                    && self.reading.breaks(end, word.start.max(end)) == 0
            }
        })
    }

    fn is_decoyed(&self, start: usize, end: usize) -> bool {
        let hidden = self.decoys.iter().chain(self.words.of(Class::Lookalike));
        hidden.into_iter().any(|decoy| {
            if decoy.end <= start {
                self.reading.distance(decoy.end, start) <= 24
                    && self.reading.breaks(decoy.end, start) == 0
                    && self.numbers_between(decoy.end, start) == 0
                    && !self.keywords.iter().any(|keyword| {
                        keyword.strength > 0 && keyword.span.start >= decoy.end && keyword.span.end <= start
                    })
            } else {
                decoy.start >= end
                    && self.reading.distance(end, decoy.start) <= 24
                    && self.reading.breaks(end, decoy.start) == 0
                    && !self.keywords.iter().any(|keyword| {
                        keyword.strength > 0 && keyword.span.start >= end && keyword.span.end <= decoy.start
                    })
            }
        })
    }

    /// "10 to 1234", "text YES to 1234".
    fn is_range(&self, start: usize) -> bool {
        let before = self.reading.line()[..start].trim_end_matches(' ');
        let Some(rest) =
            [" to", " from", " &", " and", " de", " zu"].iter().find_map(|word| before.strip_suffix(word))
        else {
            return false;
        };
        rest.ends_with(|c: char| c.is_ascii_digit())
    }
}

#[derive(Clone, Copy, Debug)]
struct Best {
    score: f32,
    strength: u8,
    linked: bool,
}

fn as_strength(keyword: &Keyword) -> u8 {
    u8::try_from(keyword.strength + 1).unwrap_or(3)
}

fn to_f32(count: usize) -> f32 {
    f32::from(u16::try_from(count).unwrap_or(u16::MAX))
}

fn covered(spans: &[Span], span: Span) -> bool {
    // The longest phrase of the lexicon is far shorter than this.
    let first = spans.partition_point(|one| one.start < span.start.saturating_sub(160));
    spans[first..].iter().take_while(|one| one.start <= span.start).any(|one| one.holds(span) && *one != span)
}

fn count_numbers(bytes: &[u8]) -> Vec<u16> {
    let mut counts = Vec::with_capacity(bytes.len() + 1);
    let (mut run, mut count) = (0_u8, 0_u16);
    for (at, byte) in bytes.iter().enumerate() {
        counts.push(count);
        run = if byte.is_ascii_digit() { run.saturating_add(1) } else { 0 };
        // The year of a date is no number that a code could be taken for.
        let year = at >= 5 && matches!(bytes[at - 4], b'.' | b'/' | b'-') && bytes[at - 5].is_ascii_digit();
        if run == 4 && !year {
            count = count.saturating_add(1);
        }
    }
    counts.push(count);
    counts
}

/// What a payment's approval is called in.
const APPROVALS: &[&str] =
    &["authori", "auth code", "autori", "\u{430}\u{432}\u{442}\u{43e}\u{440}\u{438}\u{437}", "approval"];

/// "of", as far as it leads from "code" to what it is of.
const OF: &[&str] =
    &[" de la ", " del ", " della ", " dell'", " do ", " da ", " du ", " di ", " de l'", " d'", " de "];

/// How words for actions end.
const ACTIONS: &[&str] = &[
    "cion", "sion", "tion", "cao", "sao", "zione", "sione", "miento", "mento", "ment", "aje", "agem",
    "aggio", "age", "tie", "are",
];

/// Verbs and the like that lead to a value.
const LEADING: &[&str] = &[
    "is",
    "are",
    "es",
    "est",
    "e",
    "ist",
    "lautet",
    "la",
    "er",
    "ar",
    "on",
    "ir",
    "yra",
    "je",
    "este",
    "ay",
    "ni",
    "adalah",
    "ialah",
    "eshte",
    "glasi",
    "jest",
    "luidt",
    "kod",
    "为",
    "為",
    "是",
    "係",
    "は",
    "即",
    "هو",
    "هی",
    "הוא",
    "היא",
    "הינו",
    "ค\u{e37}อ",
    "от",
    "это",
    "е",
    "је",
    "ειναι",
    "ह\u{948}",
    "ዝ",
    "below",
    "below:",
    "here",
    "aqui",
    "folgender",
    "folgende",
    "following",
];

/// What may stand between the name of a number and the number.
const NUMBER_LINKS: &[&str] = &[
    "no", "nr", "number", "num", "id", "is", "of", "with", "in", "on", "code", "ending", "ref", "xx", "xxx",
    "xxxx", "x", "de", "n", "numero", "en", "el", "la", "est", "es", "ist", "e", "為", "为", "是", "号",
    "號", "\u{2116}",
];

/// What may stand between "call" and the number.
const CALL_LINKS: &[&str] = &[
    "us", "on", "at", "to", "al", "le", "la", "now", "free", "for", "no", "nr", "number", "or", "the", "our",
    "toll", "from", "a", "landline", "line", "claim", "customer", "care", "service", "centre", "center",
    "helpline", "hotline", "support", "me", "stop", "help", "yes", "ok", "win", "sms", "block", "へ", "到",
    "至", "на", "по",
];
