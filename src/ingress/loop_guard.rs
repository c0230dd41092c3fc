//! Messages that we sent ourselves: passing one on would send it to us again, without end.

use std::fmt;

use crate::message::Address;

/// Knows our own sending numbers, as far as the configuration tells: the numbers of a messaging service
/// are Twilio's to choose.
#[derive(Clone, PartialEq, Eq)]
pub struct LoopGuard {
    /// `None` is off.
    own: Option<Vec<Address>>,
}

impl LoopGuard {
    /// One that lets everything through.
    pub const fn off() -> Self {
        Self { own: None }
    }

    /// One that stops what `own` numbers or sender names send.
    pub fn against(own: impl IntoIterator<Item = Address>) -> Self {
        Self { own: Some(own.into_iter().collect()) }
    }

    /// Whether it is on, even if it knows no number.
    pub fn is_on(&self) -> bool {
        self.own.is_some()
    }

    /// Whether a message from `sender` is our own. A channel's prefix (`whatsapp:`) and the case of a name
    /// make no difference.
    pub fn stops(&self, sender: &Address) -> bool {
        let sender = bare(sender);
        self.own.iter().flatten().any(|own| bare(own).eq_ignore_ascii_case(sender))
    }
}

fn bare(address: &Address) -> &str {
    let text = address.as_str();
    text.split_once(':').map_or(text, |(_, number)| number)
}

impl fmt::Debug for LoopGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            // An address masks itself.
            Some(own) => f.debug_tuple("LoopGuard").field(own).finish(),
            None => f.write_str("LoopGuard(off)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn stops(own: &str, sender: &str) -> bool {
        LoopGuard::against([address(own)]).stops(&address(sender))
    }

    #[test]
    fn our_own_number_is_known_by_any_channel_and_in_any_case() {
        assert!(stops("+15005550006", "+15005550006"));
        assert!(stops("+15005550006", "whatsapp:+15005550006"));
        assert!(stops("whatsapp:+15005550006", "+15005550006"));
        assert!(stops("ACME", "Acme"));
        assert!(!stops("+15005550006", "+15005550007"));
        assert!(!stops("+15005550006", "15005550006"));
        assert!(!stops("72404", "724"));
    }

    #[test]
    fn off_is_off_and_on_may_know_nobody() {
        let sender = address("+15005550006");
        assert!(!LoopGuard::off().stops(&sender) && !LoopGuard::off().is_on());
        let nobody = LoopGuard::against([]);
        assert!(!nobody.stops(&sender) && nobody.is_on());
    }

    #[test]
    fn it_does_not_print_numbers() {
        let shown = format!("{:?}", LoopGuard::against([address("+15005550006")]));
        assert_eq!(shown, "LoopGuard([+1******0006])");
    }
}
