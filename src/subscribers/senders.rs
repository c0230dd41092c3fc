//! Senders as an operator writes them, and as they are compared.

use crate::message::{Address, Malformed, PhoneNumber};

/// What a `from` entry says.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum SenderPattern {
    /// This sender, folded.
    Exact(String),
    /// Every sender that starts so, folded.
    Prefix(String),
}

impl SenderPattern {
    /// Reads an exact sender, or a prefix ending in `*`.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let Some(prefix) = text.strip_suffix('*') else {
            return parse_sender(text).map(|address| Self::Exact(fold(address.as_str())));
        };
        if prefix.is_empty() {
            return Err(Malformed("\"*\" is every sender, which is what [fallback] is for"));
        }
        let ok = Address::parse(prefix).is_ok()
            && !prefix.contains('*')
            && !prefix.starts_with(char::is_whitespace)
            && number_part(prefix).is_none_or(|digits| {
                digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0')
            });
        if ok {
            Ok(Self::Prefix(fold(prefix)))
        } else {
            Err(Malformed("a prefix is the start of a sender and one `*` at its end: \"+1222*\""))
        }
    }
}

/// Reads a sender, or a number of our own: E.164, a short code (3 to 8 digits), an alphanumeric sender
/// id, or a channel address such as `whatsapp:+15005550006`.
///
/// A number without its `+`, or with blanks or dashes, is refused: it would never match what Twilio sends.
pub fn parse_sender(text: &str) -> Result<Address, Malformed> {
    let address = Address::parse(text).map_err(|_| Malformed("a sender is 1 to 64 printable characters"))?;
    if text.contains('*') {
        return Err(Malformed("`*` stands only at the end of a `from` entry: \"+1222*\""));
    }
    if text.trim() != text {
        return Err(Malformed("a sender neither starts nor ends with a blank"));
    }
    if let Some(digits) = number_part(text) {
        PhoneNumber::parse(&format!("+{digits}"))?;
    } else if text.bytes().all(|b| b.is_ascii_digit()) && !(3..=8).contains(&text.len()) {
        return Err(Malformed("a phone number starts with +; a short code has 3 to 8 digits"));
    }
    Ok(address)
}

/// What follows the `+` of a number, be it plain or behind a channel's name.
fn number_part(text: &str) -> Option<&str> {
    text.strip_prefix('+').or_else(|| text.split_once(":+").map(|(_, digits)| digits))
}

/// The form senders are compared in: alphanumeric ids are case-insensitive.
pub(super) fn fold(sender: &str) -> String {
    // Letter by letter, so that the start of a folded sender is the folded start of it.
    sender.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_numbers_short_codes_names_and_channel_addresses() {
        for good in
            ["+12223334444", "72404", "AMAZON", "My Bank", "whatsapp:+12223334444", "messenger:123", "O2"]
        {
            assert!(parse_sender(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " +12223334444",
            "+1 222 333 4444",
            "+1-222-333-4444",
            "12223334444",
            "12",
            "+12*",
            "+0123456789",
            "whatsapp:+1",
            "a\nb",
        ] {
            assert!(parse_sender(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_ends_in_one_star() {
        for good in ["+1222*", "+*", "AMA*", "724*", "whatsapp:+1*"] {
            assert!(matches!(SenderPattern::parse(good), Ok(SenderPattern::Prefix(_))), "{good}");
        }
        for bad in ["*", "**", "+1*2*", "+12a*", "+1 222*", " a*", "+0*", "+1234567890123456*"] {
            assert!(SenderPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
