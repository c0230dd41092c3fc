//! The recogniser: from a text to what it holds.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::addresses::Addresses;
use super::candidates::{Shape, candidates};
use super::domain_line::domain_line;
use super::expiry::expires_in;
use super::lexicon::{Class, Lexicon, Span};
use super::masking::cover;
use super::reading::Reading;
use super::scoring::{Scored, Scorer, Weights};
use super::service::{ServiceName, service_of};
use crate::message::InboundMessage;

const LEXICON: &str = include_str!("lexicon.txt");
const BRANDS: &str = include_str!("brands.txt");

/// A one-time code as a person would type it: no blanks, no separating hyphens, no `G-`. Secret.
#[derive(Clone)]
pub struct Code(SecretString);

impl Code {
    fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The code itself. For the text that goes out and for an operator who asks, never for a log.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(masked)")
    }
}

/// What told the code. The word is fit for logs and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeEvidence {
    /// A line `@host #code`.
    DomainLine,
    /// A word that names a one-time code.
    Keyword,
    /// A bare "code", "PIN", "password".
    Noun,
    /// What to do with it: "log in with", "enter".
    Act,
    /// Its shape and place alone.
    Shape,
}

impl CodeEvidence {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DomainLine => "domain_line",
            Self::Keyword => "keyword",
            Self::Noun => "noun",
            Self::Act => "act",
            Self::Shape => "shape",
        }
    }

    /// What it is called in a sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::DomainLine => "domain-bound line",
            Self::Keyword => "keyword",
            Self::Noun => "noun",
            Self::Act => "verb",
            Self::Shape => "shape",
        }
    }
}

/// What told the service. The word is fit for logs and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEvidence {
    /// The text is signed at its front: `[Name]`, `【Name】`.
    Sign,
    /// `Name: …`, or a first line of its own.
    Prefix,
    /// "your Name code", "to log in to Name".
    Phrase,
    /// The text is signed at its end.
    Signature,
    /// A well-known name stands in the text.
    Brand,
    /// The host of a line `@host #code`, or of a link.
    Domain,
    /// The name the sender goes by.
    Sender,
}

impl ServiceEvidence {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Prefix => "prefix",
            Self::Phrase => "phrase",
            Self::Signature => "signature",
            Self::Brand => "brand",
            Self::Domain => "domain",
            Self::Sender => "sender",
        }
    }

    /// What it is called in a sentence.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Brand => "well-known name",
            other => other.as_str(),
        }
    }
}

/// What was recognised in a text. All of it is the sender's claim.
#[derive(Clone, Debug, Default)]
pub struct Recognised {
    /// The one-time code.
    pub code: Option<Code>,
    /// Whose code it is, as the text or the sender has it; at most 64 printable characters.
    pub service: Option<String>,
    /// The host of a line `@host #code`, in small letters.
    pub domain: Option<String>,
    /// How long the text says the code lives.
    pub expires_in: Option<Duration>,
    /// How sure the code is, 0 to 1; 0 without one.
    pub confidence: f32,
    /// What told the code.
    pub code_evidence: Option<CodeEvidence>,
    /// What told the service.
    pub service_evidence: Option<ServiceEvidence>,
}

fn built_in() -> Lexicon {
    let brands = BRANDS.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split(", "));
    Lexicon::new(LEXICON, brands.map(str::trim).filter(|brand| !brand.is_empty()))
}

/// Recognises one-time codes. Made once; asking it changes nothing.
pub struct Recogniser {
    lexicon: LazyLock<Lexicon>,
    weights: Weights,
}

impl Default for Recogniser {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Recogniser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recogniser")
    }
}

impl Recogniser {
    /// Reads nothing yet: the words are read when the first text comes, in a few milliseconds, so that a program that
    /// is sent none needs neither the time nor the memory.
    pub fn new() -> Self {
        Self { lexicon: LazyLock::new(built_in), weights: Weights::default() }
    }

    /// What `text` holds. `sender` is who sent it, where that is known.
    ///
    /// Linear in the text, of which a very long one is read at both ends only.
    pub fn recognise(&self, text: &str, sender: Option<&str>) -> Recognised {
        let reading = Reading::of(text);
        let mut words = self.lexicon.find(&reading);
        let addresses = Addresses::of(&reading);
        if !addresses.spans.is_empty() {
            for class in [
                Class::Otp,
                Class::Noun,
                Class::Kind,
                Class::Act,
                Class::Lookalike,
                Class::Decoy,
                Class::Promo,
                Class::Parcel,
            ] {
                words.keep(class, |span| !addresses.touch(*span));
            }
        }
        let bound = domain_line(text);
        let candidates = candidates(&reading, &words, &addresses);
        let scorer = Scorer::new(&reading, &words, &candidates, &self.weights);
        let mut found = Recognised { expires_in: expires_in(&reading, &words), ..Recognised::default() };
        let mut code_span = None;
        if let Some(line) = bound {
            found.code = Some(Code::new(line.code.to_owned()));
            found.domain = Some(line.host.to_ascii_lowercase());
            found.confidence = 1.0;
            found.code_evidence = Some(CodeEvidence::DomainLine);
        } else if let Some((best, confidence)) = self.choose(&reading, &scorer.scored()) {
            let span = best.candidate.span;
            let typed = reading.typed(span.start, span.end);
            found.code = Some(Code::new(match best.candidate.shape {
                Shape::MixedGroups => typed,
                _ => typed.chars().filter(char::is_ascii_alphanumeric).collect(),
            }));
            found.confidence = confidence;
            found.code_evidence = Some(match best.strength {
                3 => CodeEvidence::Keyword,
                2 => CodeEvidence::Noun,
                1 => CodeEvidence::Act,
                _ => CodeEvidence::Shape,
            });
            code_span = Some(span);
        }
        let context = ServiceName {
            reading: &reading,
            words: &words,
            addresses: &addresses,
            code: code_span,
            has_code: found.code.is_some(),
        };
        if let Some((name, evidence)) = service_of(&context, found.domain.as_deref(), sender) {
            found.service = Some(name);
            found.service_evidence = Some(evidence);
        }
        found
    }

    /// What a message that arrived holds.
    pub fn of(&self, message: &InboundMessage) -> Recognised {
        self.recognise(message.body.expose(), Some(message.from.as_str()))
    }

    /// `text` for somebody who may not see its code: without anything that may be one, without any digit of
    /// whatever script, without words of four or more capitals.
    pub fn masked(&self, text: &str) -> String {
        let reading = Reading::of(text);
        let words = self.lexicon.find(&reading);
        let addresses = Addresses::of(&reading);
        let candidates = candidates(&reading, &words, &addresses).into_iter().map(|candidate| candidate.span);
        let spans = candidates.chain(addresses.spans.iter().copied());
        let mut secrets: Vec<_> = spans.map(|span| reading.origin(span.start, span.end)).collect();
        if let Some(line) = domain_line(text) {
            secrets.push(line.start..line.start + line.host.len() + " #@".len() + line.code.len());
            // Such a code may be letters only, so that nothing else gives it away where it stands once more.
            let again = text.match_indices(line.code);
            secrets.extend(again.map(|(at, code)| at..at + code.len()));
        }
        cover(text, secrets)
    }

    /// The best candidate and how sure it is, if any is good enough.
    fn choose(&self, reading: &Reading<'_>, scored: &[Scored]) -> Option<(Scored, f32)> {
        let best = *scored.first()?;
        let over = best.score - self.weights.threshold;
        let Span { start, end } = best.candidate.span;
        if over < 0.0 || reading.is_respelled(start, end) {
            return None;
        }
        let value = |one: &Scored| {
            let Span { start, end } = one.candidate.span;
            reading.bytes()[start..end].iter().copied().filter(u8::is_ascii_alphanumeric).collect::<Vec<u8>>()
        };
        let rival = scored[1..].iter().find(|other| value(other) != value(&best));
        let lead = rival.map_or(10.0, |rival| best.score - rival.score);
        let sure = 1.0 - (-0.45 * over).exp() * 0.5;
        let distinct = (0.55 + 0.15 * lead).min(1.0);
        Some((best, sure * distinct))
    }
}
