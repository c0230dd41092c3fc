//! Numbers, spans of time and foreign words, fit for a terminal.

use std::borrow::Cow;
use std::time::Duration;

/// A number with its thousands apart: `1,204,000`.
pub(super) fn count(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what is counted: `1 letter`, `1,204 letters`.
pub(super) fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A span of time in its two largest units: `350ms`, `4.2s`, `3m 20s`, `2h 5m`, `6d 1h`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, large_unit, small: u64, small_unit| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit} {small}{small_unit}"),
    };
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        // Cut, not rounded: 59.97 s must not read `60.0s`.
        1..60 => format!("{seconds}.{}s", span.subsec_millis() / 100),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Seconds as the store tells them; what is no length of time is none.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// `text` without what would move the cursor or colour the screen: texts and names come from strangers.
/// Line ends and tabs of a text stay only with `lines`.
pub(super) fn harmless(text: &str, lines: bool) -> Cow<'_, str> {
    let harms = |c: char| {
        let moves_text = matches!(
            c,
            // What turns the reading direction can make one text look like another.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        (c.is_control() && !(lines && matches!(c, '\n' | '\t'))) || moves_text
    };
    if text.contains(harms) {
        Cow::Owned(text.chars().map(|c| if harms(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Columns that `text` takes on a terminal, near enough for tables: East Asian characters and emoji are
/// two wide, marks that join what is before them are none (Unicode Annex 11).
pub(super) fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match c {
            '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
            '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff00}'..='\u{ff60}'
            | '\u{ffe0}'..='\u{ffe6}'
            | '\u{1f300}'..='\u{1faff}'
            | '\u{20000}'..='\u{3fffd}' => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_204_000, "-1,204,000")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(counted(1, "letter"), "1 letter");
        assert_eq!(counted(0, "letter"), "0 letters");
    }

    #[test]
    fn spans_have_their_two_largest_units() {
        for (millis, text) in [
            (0, "0ms"),
            (350, "350ms"),
            (4_260, "4.2s"),
            (59_999, "59.9s"),
            (60_000, "1m"),
            (200_900, "3m 20s"),
            (3_600_000, "1h"),
            (7_500_000, "2h 5m"),
            (522_000_000, "6d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(1.5), Duration::from_millis(1_500));
    }

    #[test]
    fn wide_characters_count_twice_and_marks_not_at_all() {
        for (text, columns) in [("", 0), ("a…é", 3), ("日本", 4), ("e\u{301}", 1), ("🔑x", 3)] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn words_of_strangers_cannot_drive_a_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\u{202e}c", false), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c");
        assert_eq!(harmless("one\n\ttwo\u{9b}", true), "one\n\ttwo\u{fffd}");
        assert!(matches!(harmless("plain ✓ text", false), Cow::Borrowed(_)));
    }
}
