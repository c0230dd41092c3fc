//! What arrives: the identity, the people and the text of one inbound message.
//!
//! Every type here has private fields and one fallible way in, so a value that exists is well
//! formed. Texts and numbers of people do not print: `Debug` masks them and there is no `Display`.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::trace::TraceContext;

/// Why a value could not become a domain type. Says what was expected, never what was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Identity of one message: a Twilio MessageSid (`SM` or `MM` and 32 hexadecimal digits), or
/// `{source}:{id}` for any other door.
///
/// It is the key that makes a message be accepted once, so it is compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Reads a Twilio MessageSid.
    pub fn twilio(sid: &str) -> Result<Self, Malformed> {
        let hex = sid.strip_prefix("SM").or_else(|| sid.strip_prefix("MM"));
        match hex {
            Some(hex) if is_hex_32(hex) => Ok(Self(sid.into())),
            _ => Err(Malformed("a MessageSid is SM or MM and 32 hexadecimal digits")),
        }
    }

    /// Names a message of another source by that source's own id (1 to 128 visible ASCII characters).
    pub fn of_source(source: &str, id: &str) -> Result<Self, Malformed> {
        let source_ok = (1..=32).contains(&source.len())
            && source.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let id_ok = (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if source_ok && id_ok {
            Ok(Self(format!("{source}:{id}").into()))
        } else {
            Err(Malformed("a message id of another source is {source}:{its id}"))
        }
    }

    /// Reads either form.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        match text.split_once(':') {
            Some((source, id)) => Self::of_source(source, id),
            None => Self::twilio(text),
        }
    }

    /// The id as it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MessageId {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::parse(&text)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// A Twilio account: `AC` and 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountSid(String);

impl AccountSid {
    /// Reads an account SID.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        match text.strip_prefix("AC") {
            Some(hex) if is_hex_32(hex) => Ok(Self(text.to_owned())),
            _ => Err(Malformed("an account SID is AC and 32 hexadecimal digits")),
        }
    }

    /// The SID as Twilio writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_hex_32(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One end of an inbound message: E.164, a short code, an alphanumeric sender id or a channel
/// address such as `whatsapp:+15005550006`. 1 to 64 printable characters, kept as received.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    /// Takes an address as received.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }

    fn check(text: &str) -> Result<(), Malformed> {
        let length = text.chars().count();
        if (1..=64).contains(&length) && !text.chars().any(char::is_control) {
            Ok(())
        } else {
            Err(Malformed("an address is 1 to 64 printable characters"))
        }
    }

    /// The address as received. For matching and for the wire, never for a log.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address with most digits of a phone number covered; short codes and names stay readable.
    pub fn masked(&self) -> String {
        mask_number(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl TryFrom<String> for Address {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::check(&text).map(|()| Self(text))
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

/// A phone number in E.164: `+`, then 7 to 15 digits, the first not zero.
///
/// There is no `Display`: it reaches a log only through [`PhoneNumber::masked`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads an E.164 number.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }

    fn check(text: &str) -> Result<(), Malformed> {
        let digits = text.strip_prefix('+').unwrap_or("");
        let ok = (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if ok { Ok(()) } else { Err(Malformed("a phone number is E.164: + and 7 to 15 digits")) }
    }

    /// The number, for the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number with its middle covered: `+1******2222`.
    pub fn masked(&self) -> String {
        mask_number(&self.0)
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl TryFrom<String> for PhoneNumber {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::check(&text).map(|()| Self(text))
    }
}

impl From<PhoneNumber> for String {
    fn from(number: PhoneNumber) -> Self {
        number.0
    }
}

/// Covers the digits of anything that looks like a phone number (seven digits or more), all but the
/// first and the last four. Shorter texts are names or short codes, which identify no person.
fn mask_number(text: &str) -> String {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    if digits < 7 {
        return text.to_owned();
    }
    let mut seen = 0;
    text.chars()
        .map(|c| {
            if !c.is_ascii_digit() {
                return c;
            }
            seen += 1;
            if seen == 1 || seen > digits - 4 { c } else { '*' }
        })
        .collect()
}

/// The text of a message. Secret: it holds one-time codes.
#[derive(Clone)]
pub struct Body(SecretString);

impl Body {
    /// Takes the text as received; it may be empty.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself. Only rendering, sealing and an explicit `--reveal` may ask.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.expose().len())
    }
}

/// One text that reached us, whatever the door.
#[derive(Clone, Debug)]
pub struct InboundMessage {
    /// Its identity and dedup key.
    pub id: MessageId,
    /// The door it came by: `twilio`, or the name of a `[[source]]`.
    pub source: String,
    /// Who sent it.
    pub from: Address,
    /// Our number that received it.
    pub to: Address,
    /// What it says.
    pub body: Body,
    /// The trace that its acceptance is part of, if that is known.
    pub trace: Option<TraceContext>,
}

/// The stored form, version 1. Unknown fields are ignored so that a rollback can read what a newer
/// program wrote.
#[derive(Serialize, Deserialize)]
struct StoredV1 {
    v: u8,
    source: String,
    from: Address,
    to: Address,
    body: String,
    /// A `traceparent`. What older programs wrote has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

impl InboundMessage {
    /// The bytes a queue keeps for this message, all but its id. To the queue they are opaque.
    pub fn to_payload(&self) -> Vec<u8> {
        let stored = StoredV1 {
            v: 1,
            source: self.source.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            body: self.body.expose().to_owned(),
            trace: self.trace.map(|trace| trace.to_string()),
        };
        serde_json::to_vec(&stored).expect("a struct of strings always serialises")
    }

    /// Reads what [`InboundMessage::to_payload`] wrote.
    pub fn from_payload(id: &MessageId, payload: &[u8]) -> Result<Self, Malformed> {
        let stored: StoredV1 =
            serde_json::from_slice(payload).map_err(|_| Malformed("the stored message is unreadable"))?;
        if stored.v != 1 {
            return Err(Malformed("the stored message has an unknown version"));
        }
        Ok(Self {
            id: id.clone(),
            source: stored.source,
            from: stored.from,
            to: stored.to,
            body: Body::new(stored.body),
            // One that cannot be read is not worth a message.
            trace: stored.trace.and_then(|trace| TraceContext::parse(&trace)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "SM0123456789abcdef0123456789abcdef";

    #[test]
    fn message_ids_are_twilio_sids_or_named_by_their_source() {
        assert_eq!(MessageId::parse(SID).unwrap().as_str(), SID);
        assert!(MessageId::parse("MM0123456789ABCDEF0123456789abcdef").is_ok());
        assert_eq!(MessageId::parse("office-sim:42").unwrap().as_str(), "office-sim:42");
        for bad in [
            "",
            "SM",
            "SM0123",
            &SID[1..],
            "CA0123456789abcdef0123456789abcdef",
            ":1",
            "a:",
            "A:1",
            "a:b c",
            "a:b\n",
        ] {
            assert!(MessageId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn phone_numbers_are_e164() {
        assert!(PhoneNumber::parse("+14443332222").is_ok());
        for bad in [
            "14443332222",
            "+04443332222",
            "+1444",
            "+1444333222a",
            "+1234567890123456",
            "",
            "+",
            "+１４４４３３３２２２２",
        ] {
            assert!(PhoneNumber::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_of_people_are_masked_and_short_codes_are_not() {
        assert_eq!(PhoneNumber::parse("+14443332222").unwrap().masked(), "+1******2222");
        assert_eq!(format!("{:?}", PhoneNumber::parse("+14443332222").unwrap()), "+1******2222");
        assert_eq!(
            format!("{:?}", Address::parse("whatsapp:+14443332222").unwrap()),
            "whatsapp:+1******2222"
        );
        assert_eq!(Address::parse("72404").unwrap().masked(), "72404");
        assert_eq!(Address::parse("AMAZON").unwrap().masked(), "AMAZON");
    }

    #[test]
    fn addresses_are_printable_and_bounded() {
        assert!(Address::parse("").is_err());
        assert!(Address::parse("a\u{7}").is_err());
        assert!(Address::parse(&"x".repeat(65)).is_err());
        assert!(Address::parse(&"é".repeat(64)).is_ok());
    }

    #[test]
    fn a_message_survives_its_stored_form_and_never_prints_its_text() {
        let message = InboundMessage {
            id: MessageId::parse(SID).unwrap(),
            source: "twilio".into(),
            from: Address::parse("+12223334444").unwrap(),
            to: Address::parse("+15005550006").unwrap(),
            body: Body::new("Your code is 493817 \"quoted\"\n✓"),
            trace: None,
        };
        let back = InboundMessage::from_payload(&message.id, &message.to_payload()).unwrap();
        assert_eq!(back.body.expose(), message.body.expose());
        assert_eq!(back.from, message.from);
        let shown = format!("{back:?}");
        assert!(!shown.contains("493817") && !shown.contains("2223334444"), "{shown}");
        assert!(InboundMessage::from_payload(&message.id, b"\xff{").is_err());
        assert!(
            InboundMessage::from_payload(
                &message.id,
                br#"{"v":9,"source":"t","from":"1","to":"2","body":""}"#
            )
            .is_err()
        );
    }

    #[test]
    fn a_trace_is_stored_with_the_message_and_missed_by_nobody() {
        let id = MessageId::parse(SID).unwrap();
        let stored =
            |trace: &str| format!(r#"{{"v":1,"source":"twilio","from":"1","to":"2","body":"x"{trace}}}"#);
        let read = |trace: &str| InboundMessage::from_payload(&id, stored(trace).as_bytes()).unwrap();
        // What was written before messages had traces is as it was, and written again the same.
        let old = read("");
        assert!(old.trace.is_none());
        assert_eq!(old.to_payload(), stored("").as_bytes());

        let trace = r#","trace":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01""#;
        let new = read(trace);
        assert_eq!(new.trace.unwrap().trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(new.to_payload(), stored(trace).as_bytes());
        // A spoiled trace costs the trace.
        assert!(read(r#","trace":"00-no""#).trace.is_none());
    }
}
