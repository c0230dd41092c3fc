//! How many segments a text takes on its way to a phone, each of which is paid for.
//!
//! 3GPP TS 23.038: a text of the GSM 7-bit alphabet has 160 characters in one segment, 153 in each of several; one
//! character of another alphabet makes all of it UCS-2, with 70 and 67.

/// The GSM 7-bit default alphabet (3GPP TS 23.038, 6.2.1) beyond the letters, digits and signs that ASCII shares
/// with it.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./:;<=>?¡ÄÖÑÜ§¿äöñüà";

/// Its extension table (6.2.1.1): two characters' room each.
const EXTENSION: &str = "^{}\\[~]|€\u{c}";

/// What a character takes of a segment's room; `None` when the alphabet does not have it.
pub fn septets(c: char) -> Option<usize> {
    if c.is_ascii_alphanumeric() || BASIC.contains(c) {
        Some(1)
    } else if EXTENSION.contains(c) {
        Some(2)
    } else {
        None
    }
}

/// How a text travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// The first character that makes all of it UCS-2, if there is one.
    pub foreign: Option<char>,
    /// What it takes, in septets or UTF-16 units.
    pub units: usize,
    /// How many segments.
    pub count: usize,
}

impl Segments {
    /// Those of `text`. Twilio may need one more where a character would be cut in two, which is not counted.
    pub fn of(text: &str) -> Self {
        let foreign = text.chars().find(|c| septets(*c).is_none());
        let (units, [one, many]) = match foreign {
            None => (text.chars().filter_map(septets).sum(), [160, 153]),
            Some(_) => (text.encode_utf16().count(), [70, 67]),
        };
        Self { foreign, units, count: if units <= one { 1 } else { usize::div_ceil(units, many) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_127_characters_and_ten_more() {
        // Of the 128 places of the table one is the escape to the extension.
        let basic = ('\0'..='\u{ffff}').filter(|c| septets(*c) == Some(1)).count();
        assert_eq!(basic, 127);
        assert_eq!(('\0'..='\u{ffff}').filter(|c| septets(*c) == Some(2)).count(), 10);
        for c in ['`', 'ç', 'á', 'ł', 'я', '…', '\u{2019}', '\t'] {
            assert_eq!(septets(c), None, "{c}");
        }
    }

    #[test]
    fn one_foreign_character_makes_it_ucs_2() {
        let of = |text: &str| Segments::of(text);
        assert_eq!(of(&"x".repeat(160)), Segments { foreign: None, units: 160, count: 1 });
        assert_eq!(of(&"x".repeat(161)).count, 2);
        assert_eq!(of(&"x".repeat(307)).count, 3);
        assert_eq!(of(&"€".repeat(80)).count, 1);
        assert_eq!(of(&"€".repeat(81)).count, 2);
        assert_eq!(of("naïve"), Segments { foreign: Some('ï'), units: 5, count: 1 });
        assert_eq!(of(&"я".repeat(71)).count, 2);
        assert_eq!(of(&"🔑".repeat(35)).count, 1);
        assert_eq!(of(&"🔑".repeat(36)).count, 2);
        assert_eq!(of("").count, 1);
    }
}
