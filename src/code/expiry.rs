//! How long a text says its code lives.

use std::time::Duration;

use super::lexicon::{Class, Span, Words, is_word_letter};
use super::reading::Reading;

/// Characters within which a duration must have a word of validity.
const REACH: usize = 44;

/// The longest life that is believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The first duration near a word of validity: "valid for 10 minutes", "5分钟内有效".
pub(super) fn expires_in(reading: &Reading<'_>, words: &Words) -> Option<Duration> {
    let units = [(Class::Seconds, 1), (Class::Minutes, 60), (Class::Hours, 3600), (Class::Days, 86_400)];
    let mut durations: Vec<(Span, Duration)> = Vec::new();
    for (class, seconds) in units {
        for unit in words.of(class) {
            if let Some((start, count)) = count_before(reading, unit.start) {
                let longest = durations.iter_mut().find(|(span, _)| span.start == start);
                let found = (Span { start, end: unit.end }, Duration::from_secs(u64::from(count) * seconds));
                match longest {
                    // "m" and "min" begin at the same place: the longer word is meant.
                    Some(other) if other.0.end < unit.end => *other = found,
                    Some(_) => {}
                    None => durations.push(found),
                }
            }
        }
    }
    durations.sort_by_key(|(span, _)| span.start);
    let valid = words.of(Class::Validity);
    let near = |span: &Span| {
        valid.iter().any(|word| {
            let (from, to) = if word.end <= span.start {
                (word.end, span.start)
            } else {
                (span.end, word.start.max(span.end))
            };
            word.overlaps(*span) || (reading.distance(from, to) <= REACH && reading.breaks(from, to) == 0)
        })
    };
    let found = durations.into_iter().find(|(span, _)| near(span)).map(|(_, duration)| duration)?;
    (!found.is_zero() && found <= LONGEST).then_some(found)
}

/// The count right before a unit, and where it starts.
fn count_before(reading: &Reading<'_>, unit: usize) -> Option<(usize, u32)> {
    let text = reading.line();
    let before = text[..unit].trim_end_matches([' ', '-', '(', ')']);
    if unit - before.len() > 2 {
        return None;
    }
    let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        let start = before.len() - digits;
        let longer = before[..start].ends_with(['-', ':', '.', ',', '/', '#', '*', '+'])
            || before[..start].ends_with(|c: char| c.is_ascii_alphanumeric());
        return (digits <= 4 && !longer)
            .then(|| before[start..].parse().ok())
            .flatten()
            .map(|count| (start, count));
    }
    NUMERALS.iter().find_map(|(word, count)| {
        let start = before.strip_suffix(word)?.len();
        let whole = !before[..start].chars().next_back().is_some_and(is_word_letter) || !word.is_ascii();
        whole.then_some((start, *count))
    })
}

/// Small numbers written out, as far as texts do.
const NUMERALS: &[(&str, u32)] = &[
    ("fifteen", 15),
    ("thirty", 30),
    ("twenty", 20),
    ("sixty", 60),
    ("one", 1),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("ten", 10),
    ("zehn", 10),
    ("funf", 5),
    ("drei", 3),
    ("zwei", 2),
    ("einer", 1),
    ("funfzehn", 15),
    ("cinco", 5),
    ("diez", 10),
    ("dos", 2),
    ("tres", 3),
    ("quince", 15),
    ("dez", 10),
    ("cinq", 5),
    ("dix", 10),
    ("deux", 2),
    ("quinze", 15),
    ("cinque", 5),
    ("dieci", 10),
    ("due", 2),
    ("vijf", 5),
    ("tien", 10),
    ("fem", 5),
    ("tio", 10),
    ("ti", 10),
    ("piec", 5),
    ("dziesiec", 10),
    ("пяти", 5),
    ("десяти", 10),
    ("пять", 5),
    ("十五", 15),
    ("三十", 30),
    ("二十", 20),
    ("十", 10),
    ("五", 5),
    ("三", 3),
    ("两", 2),
    ("兩", 2),
    ("二", 2),
    ("一", 1),
    ("دو", 2),
    ("ده", 10),
    ("پنج", 5),
    ("سه", 3),
    ("یک", 1),
    ("خمس", 5),
    ("عشر", 10),
    ("חמש", 5),
    ("עשר", 10),
    ("bes", 5),
    ("on", 10),
    ("iki", 2),
    ("uc", 3),
    ("lima", 5),
    ("sepuluh", 10),
    ("nam", 5),
    ("muoi", 10),
    ("प\u{93e}\u{902}च", 5),
    ("दस", 10),
    ("ห\u{0e49}า", 5),
];
