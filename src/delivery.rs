//! What goes out: a delivery, what happened to an attempt at it, and what is to become of it.
//!
//! Three questions, three types. A channel says what happened ([`Outcome`]), the retry policy says
//! what to do about it ([`Settlement`]), the queue says whether that was recorded.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use url::Url;

use crate::clock::Timestamp;
use crate::message::{Malformed, MessageId, PhoneNumber};

/// A channel's name: `sms`, `slack`, … (`[a-z0-9-]{1,32}`), safe in a key, a path and a metric label.
/// `in` is taken: it names the work that is not routed yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelId(Cow<'static, str>);

impl ChannelId {
    /// Reads a channel name.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let ok = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text != "in";
        if ok {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(Malformed("a channel is named [a-z0-9-]{1,32}"))
        }
    }

    /// Text messages by Twilio.
    pub fn sms() -> Self {
        Self(Cow::Borrowed("sms"))
    }

    /// Slack incoming webhooks.
    pub fn slack() -> Self {
        Self(Cow::Borrowed("slack"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ChannelId {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::parse(&text)
    }
}

impl From<ChannelId> for String {
    fn from(id: ChannelId) -> Self {
        id.0.into_owned()
    }
}

/// One delivery of one message: `{message id}/{index}`. Index 0 is the routing of the message
/// itself, 1 and up its recipients in the order the route named them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// Which of its deliveries.
    pub index: u16,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.message, self.index)
    }
}

impl FromStr for DeliveryId {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed("a delivery is named {message id}/{number}");
        let (message, index) = text.rsplit_once('/').ok_or(bad.clone())?;
        let message = MessageId::parse(message)?;
        let index = index.parse().map_err(|_| bad)?;
        Ok(Self { message, index })
    }
}

/// A webhook address. The whole of it is a secret: who knows it can post.
#[derive(Clone)]
pub struct WebhookUrl {
    /// As it was given: destinations are named by it.
    text: SecretString,
    url: Url,
}

impl WebhookUrl {
    /// Takes an absolute http or https URL that names a host and carries no user and password.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed("a webhook is an http or https URL");
        let url = Url::parse(text).map_err(|_| bad.clone())?;
        let plain = url.username().is_empty() && url.password().is_none();
        if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && plain {
            Ok(Self { text: SecretString::from(text.to_owned()), url })
        } else {
            Err(bad)
        }
    }

    /// The URL itself, for the store.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The URL itself, for the wire.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its host and nothing else: `hooks.slack.com/…`.
    pub fn masked(&self) -> String {
        format!("{}/…", self.url.host_str().unwrap_or("?"))
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl PartialEq for WebhookUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for WebhookUrl {}

impl Serialize for WebhookUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Where one delivery goes. Serialised, it is what the store keeps of a recipient; to the queue
/// those bytes are opaque.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "lowercase")]
pub enum Recipient {
    /// A phone.
    Sms {
        /// Its number.
        to: PhoneNumber,
    },
    /// A Slack incoming webhook.
    Slack {
        /// The webhook.
        url: WebhookUrl,
        /// Channel override; obeyed by legacy webhooks only.
        #[serde(rename = "slack_channel", default, skip_serializing_if = "Option::is_none")]
        channel: Option<String>,
        /// Display name override; obeyed by legacy webhooks only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// Icon override; obeyed by legacy webhooks only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        icon_emoji: Option<String>,
    },
}

impl Recipient {
    /// The channel that can reach it.
    pub fn channel(&self) -> ChannelId {
        match self {
            Self::Sms { .. } => ChannelId::sms(),
            Self::Slack { .. } => ChannelId::slack(),
        }
    }

    /// What people may see of it: a number without its middle, a host without its path.
    pub fn masked(&self) -> String {
        match self {
            Self::Sms { to } => to.masked(),
            Self::Slack { url, channel: Some(channel), .. } => format!("{} {channel}", url.masked()),
            Self::Slack { url, .. } => url.masked(),
        }
    }

    /// What the per-destination limits count by: the phone, or the webhook.
    fn endpoint(&self) -> &str {
        match self {
            Self::Sms { to } => to.as_str(),
            Self::Slack { url, .. } => url.expose(),
        }
    }
}

/// Name of a destination in the store: a keyed hash (HMAC-SHA256, 96 bits) of the channel and the
/// phone or webhook. It says nothing about them to who does not have the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey(String);

impl DestinationKey {
    /// Takes a key as stored (lower-case hexadecimal digits).
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The key as stored: 24 lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How much of the hash a key is.
const KEY_BYTES: usize = 12;

/// Makes [`DestinationKey`]s. Every worker of a fleet must be given the same secret, or limits and
/// pauses are not shared.
#[derive(Clone)]
pub struct DestinationKeyer(Hmac<Sha256>);

impl DestinationKeyer {
    /// A keyer from a secret that the whole fleet shares; `secret` may have any length.
    pub fn new(secret: &[u8]) -> Self {
        let mut key = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        key.update(b"sms-broadcaster destination v1\0");
        Self(key)
    }

    /// The key of a recipient's destination.
    pub fn key(&self, recipient: &Recipient) -> DestinationKey {
        let mut mac = self.0.clone();
        mac.update(recipient.channel().as_str().as_bytes());
        mac.update(b"\0");
        mac.update(recipient.endpoint().as_bytes());
        let mut key = String::with_capacity(2 * KEY_BYTES);
        for byte in &mac.finalize().into_bytes()[..KEY_BYTES] {
            let _ = write!(key, "{byte:02x}");
        }
        DestinationKey(key)
    }
}

impl fmt::Debug for DestinationKeyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DestinationKeyer")
    }
}

/// Why an attempt ended as it did. Closed and small: a metric label, a log field and part of a dead
/// letter at once. Details (status, provider code) stand beside it, never in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It worked.
    Ok,
    /// The provider asks us to slow down (429).
    RateLimited,
    /// No answer within the channel's `timeout`, or a 408.
    Timeout,
    /// No connection, so nothing was sent.
    Connect,
    /// The connection broke after the request was written.
    Broken,
    /// The provider failed (5xx, 425).
    Server,
    /// The provider is busy or in conflict, says a provider code.
    Busy,
    /// The provider does not know, or no longer serves, this recipient.
    Recipient,
    /// Our account, credentials or sending number are refused.
    Account,
    /// This text is refused.
    Content,
    /// Refused for another reason: any other 4xx, a redirect, an answer that is not the provider's.
    Rejected,
    /// The address must never be dialled (link-local, cloud metadata).
    Forbidden,
    /// The stored recipient or message cannot be read.
    Unreadable,
    /// A fault of ours; the attempt was abandoned.
    Internal,
}

impl Reason {
    /// Every reason, for metrics that start at 0.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::RateLimited,
        Self::Timeout,
        Self::Connect,
        Self::Broken,
        Self::Server,
        Self::Busy,
        Self::Recipient,
        Self::Account,
        Self::Content,
        Self::Rejected,
        Self::Forbidden,
        Self::Unreadable,
        Self::Internal,
    ];

    /// The word used in labels, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Server => "server",
            Self::Busy => "busy",
            Self::Recipient => "recipient",
            Self::Account => "account",
            Self::Content => "content",
            Self::Rejected => "rejected",
            Self::Forbidden => "forbidden",
            Self::Unreadable => "unreadable",
            Self::Internal => "internal",
        }
    }

    /// Reads the word [`Reason::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What happened at the provider. Said by a channel, which knows nothing about budgets.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted by the provider.
    Delivered {
        /// HTTP status of the answer.
        status: Option<u16>,
    },
    /// It may work later.
    Retry {
        /// Why not now.
        reason: Reason,
        /// HTTP status of the answer, `None` without one.
        status: Option<u16>,
        /// The provider's own code or word, short and free of people's data (`20429`, `no_service`).
        code: Option<String>,
        /// What `Retry-After` asked for.
        after: Option<Duration>,
        /// Whether the request was written and no answer came: it may have been delivered.
        ambiguous: bool,
    },
    /// It will never work.
    Permanent {
        /// Why.
        reason: Reason,
        /// HTTP status of the answer, `None` without one.
        status: Option<u16>,
        /// The provider's own code or word.
        code: Option<String>,
    },
}

impl Outcome {
    /// `delivered`, `retry` or `permanent`: the metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Retry { .. } => "retry",
            Self::Permanent { .. } => "permanent",
        }
    }

    /// The reason; [`Reason::Ok`] for a delivery.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Delivered { .. } => Reason::Ok,
            Self::Retry { reason, .. } | Self::Permanent { reason, .. } => *reason,
        }
    }

    /// The HTTP status of the answer, if one came.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status } | Self::Retry { status, .. } | Self::Permanent { status, .. } => {
                *status
            }
        }
    }

    /// The provider's own code or word, if it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Delivered { .. } => None,
            Self::Retry { code, .. } | Self::Permanent { code, .. } => code.as_deref(),
        }
    }
}

/// Why a delivery is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadCause {
    /// The provider refused for good.
    Permanent,
    /// Every attempt failed.
    Exhausted,
    /// Its deadline passed.
    Expired,
    /// It took its worker down again and again, or cannot be read.
    Poison,
    /// No route leads anywhere.
    Unroutable,
    /// No key opens it.
    Undecryptable,
}

impl DeadCause {
    /// Every cause.
    pub const ALL: [Self; 6] = [
        Self::Permanent,
        Self::Exhausted,
        Self::Expired,
        Self::Poison,
        Self::Unroutable,
        Self::Undecryptable,
    ];

    /// The word used in labels, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Unroutable => "unroutable",
            Self::Undecryptable => "undecryptable",
        }
    }

    /// Reads the word [`DeadCause::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }

    /// Which of the two disjoint counts it belongs to: `expired` for itself, `dead` for the rest.
    pub const fn state(self) -> DeliveryState {
        match self {
            Self::Expired => DeliveryState::Expired,
            _ => DeliveryState::Dead,
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not ended: ready, leased, or waiting for its time.
    Pending,
    /// The provider has it.
    Delivered,
    /// Given up, by any cause but the deadline.
    Dead,
    /// Given up at its deadline.
    Expired,
}

impl DeliveryState {
    /// The word used in labels, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Expired => "expired",
        }
    }
}

/// What is kept of one attempt that did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// `retry` or `permanent`.
    pub outcome: String,
    /// Why.
    pub reason: Reason,
    /// HTTP status, if an answer came.
    pub status: Option<u16>,
    /// The provider's own code or word, at most 64 visible ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the request was written and no answer came.
    #[serde(default)]
    pub ambiguous: bool,
}

impl Attempt {
    /// The record of `outcome`, `None` for a delivery.
    pub fn of(outcome: &Outcome, at: Timestamp) -> Option<Self> {
        let ambiguous = match outcome {
            Outcome::Delivered { .. } => return None,
            Outcome::Retry { ambiguous, .. } => *ambiguous,
            Outcome::Permanent { .. } => false,
        };
        let code = outcome.code().map(|code| code.chars().filter(char::is_ascii_graphic).take(64).collect());
        Some(Self {
            at,
            outcome: outcome.as_str().to_owned(),
            reason: outcome.reason(),
            status: outcome.status(),
            code,
            ambiguous,
        })
    }

    /// One line for people: `server, HTTP 503` or `recipient, HTTP 400, code 21211`.
    pub fn summary(&self) -> String {
        let mut text = self.reason.as_str().to_owned();
        if let Some(status) = self.status {
            text.push_str(&format!(", HTTP {status}"));
        }
        if let Some(code) = &self.code {
            text.push_str(&format!(", code {code}"));
        }
        text
    }
}

/// What is to become of a delivery. Said by the retry policy, which knows nothing about HTTP or
/// stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done.
    Delivered,
    /// Try again at `due`; counts as an attempt.
    RetryAt {
        /// When, by the store's clock.
        due: Timestamp,
        /// The attempt that failed.
        attempt: Attempt,
    },
    /// The destination asks for quiet: nothing goes to it before `until`, from any worker. Costs no
    /// attempt. A delivery whose deadline is not later than `until` ends as expired.
    Pause {
        /// Until when, by the store's clock.
        until: Timestamp,
        /// The attempt that was turned away.
        attempt: Attempt,
    },
    /// Give up.
    Dead {
        /// Why.
        cause: DeadCause,
        /// The last attempt, if one was made just now.
        attempt: Option<Attempt>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_ids_survive_their_text() {
        for text in ["SM0123456789abcdef0123456789abcdef/0", "office-sim:a/b/c/12"] {
            assert_eq!(text.parse::<DeliveryId>().unwrap().to_string(), text);
        }
        for bad in ["SM0123456789abcdef0123456789abcdef", "x/1", "office-sim:a/-1", "office-sim:a/70000"] {
            assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn recipients_survive_their_stored_form_and_print_masked() {
        let slack = Recipient::Slack {
            url: WebhookUrl::parse("https://hooks.slack.com/services/T0/B0/secret").unwrap(),
            channel: Some("#mfa".into()),
            username: None,
            icon_emoji: None,
        };
        let sms = Recipient::Sms { to: PhoneNumber::parse("+14443332222").unwrap() };
        for recipient in [&slack, &sms] {
            let stored = serde_json::to_vec(recipient).unwrap();
            assert_eq!(&serde_json::from_slice::<Recipient>(&stored).unwrap(), recipient);
        }
        assert_eq!(slack.masked(), "hooks.slack.com/… #mfa");
        assert!(!format!("{slack:?} {sms:?}").contains("secret"));
        assert!(!format!("{slack:?} {sms:?}").contains("4443332222"));
    }

    #[test]
    fn destinations_are_named_by_a_keyed_hash_of_the_phone_or_webhook_alone() {
        let url = WebhookUrl::parse("https://hooks.slack.com/services/T0/B0/secret").unwrap();
        let with = |channel: Option<&str>| Recipient::Slack {
            url: url.clone(),
            channel: channel.map(str::to_owned),
            username: None,
            icon_emoji: None,
        };
        let keyer = DestinationKeyer::new(b"k");
        assert_eq!(keyer.key(&with(None)), keyer.key(&with(Some("#a"))));
        assert_ne!(keyer.key(&with(None)), DestinationKeyer::new(b"other").key(&with(None)));
        assert_eq!(keyer.key(&with(None)).as_str().len(), 24);
    }

    #[test]
    fn webhooks_are_http_urls_with_a_host() {
        for bad in ["", "hooks.slack.com/x", "ftp://a/b", "https://", "https://user:pw@a/b"] {
            assert!(WebhookUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(WebhookUrl::parse("http://127.0.0.1:8080/x").is_ok());
    }

    #[test]
    fn words_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        for cause in DeadCause::ALL {
            assert_eq!(DeadCause::parse(cause.as_str()), Some(cause));
        }
    }

    #[test]
    fn an_attempt_keeps_no_unprintable_or_endless_provider_words() {
        let outcome = Outcome::Permanent {
            reason: Reason::Rejected,
            status: Some(400),
            code: Some(format!("no\nservice {}", "x".repeat(200))),
        };
        let attempt = Attempt::of(&outcome, Timestamp::from_millis(0)).unwrap();
        assert_eq!(attempt.code.as_ref().unwrap().len(), 64);
        assert!(attempt.summary().starts_with("rejected, HTTP 400, code noservice"));
    }
}
