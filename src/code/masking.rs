//! A text fit to be looked at by somebody who may not see its code.

use std::ops::Range;

use super::reading::{digit, is_invisible};

/// What stands for whatever is covered, however long it is.
const COVER: &str = "\u{2022}\u{2022}\u{2022}\u{2022}";

/// `text` without `secrets` (byte ranges of it, at character boundaries), without anything that holds a digit
/// of any script, and without words of four or more capitals. Not even the length of a code is left.
pub(super) fn cover(text: &str, mut secrets: Vec<Range<usize>>) -> String {
    secrets.extend(words(text).filter(|word| is_secret(&text[word.clone()])));
    secrets.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets {
        if secret.end <= at {
            continue;
        }
        // What touches or overlaps the last one is covered together with it.
        if secret.start > at || !out.ends_with(COVER) {
            out.push_str(&text[at..secret.start.max(at)]);
            out.push_str(COVER);
        }
        at = secret.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Runs of letters, digits and what may stand inside a code, a link or a number.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        while rest.next_if(|(_, c)| !is_part(*c)).is_some() {}
        let start = rest.peek()?.0;
        let mut end = start;
        while let Some((at, c)) = rest.next_if(|(_, c)| is_part(*c)) {
            end = at + c.len_utf8();
        }
        Some(start..end)
    })
}

fn is_part(c: char) -> bool {
    let sign = matches!(c, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{dff}' | '\u{e31}'..='\u{e4e}');
    c.is_alphanumeric() || sign || is_invisible(c) || "-/+=_%?&.:#@".contains(c)
}

fn is_secret(word: &str) -> bool {
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let capitals = word.chars().filter(|c| c.is_uppercase()).count();
    word.chars().any(|c| c.is_numeric() || digit(c).is_some()) || (letters >= 4 && capitals == letters)
}
