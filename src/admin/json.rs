//! The answers for programs: one JSON value on one line each. The names of the fields are a contract.

use serde::Serialize;
use serde_json::json;

use super::digest::{MessageState, Totals};
use super::doctor::Examination;
use super::letters::{Purged, Returned};
use super::preview::RoutePreview;
use crate::clock::Timestamp;
use crate::code::{Code, CodeEvidence, Recognised, ServiceEvidence};
use crate::document::duration_text;
use crate::message::{InboundMessage, MessageId};
use crate::queue::contract::{DeadLetter, DeadLetterText, DeliveryStatus, MessageStatus, Stats};

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values with texts as keys always serialise")
}

/// A time as JSON has it: RFC 3339, UTC, milliseconds.
fn rfc3339<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// `stats --json`: the counts of the store.
pub fn stats(stats: &Stats) -> String {
    line(&Totals::of(stats))
}

#[derive(Serialize)]
struct Letter<'a> {
    id: String,
    message_id: &'a str,
    channel: &'a str,
    destination: Option<&'a str>,
    subscriber: Option<&'a str>,
    cause: &'static str,
    attempts: u32,
    maybe_sent: bool,
    #[serde(serialize_with = "rfc3339")]
    accepted_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    died_at: Timestamp,
    last_error: Option<String>,
}

impl<'a> From<&'a DeadLetter> for Letter<'a> {
    fn from(letter: &'a DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            message_id: letter.id.message.as_str(),
            channel: &letter.channel,
            destination: letter.destination.as_deref().filter(|label| !label.is_empty()),
            subscriber: Some(letter.subscriber.as_str()).filter(|name| !name.is_empty()),
            cause: letter.cause.as_str(),
            attempts: letter.attempts,
            maybe_sent: letter.maybe_sent,
            accepted_at: letter.accepted_at,
            died_at: letter.died_at,
            last_error: letter.history.last().map(|attempt| attempt.summary()),
        }
    }
}

/// `dead list --json`: an array.
pub fn letters(letters: &[DeadLetter]) -> String {
    line(&letters.iter().map(Letter::from).collect::<Vec<_>>())
}

#[derive(Serialize)]
struct LetterInFull<'a> {
    #[serde(flatten)]
    letter: Letter<'a>,
    history: Vec<Attempt>,
    #[serde(flatten)]
    revealed: Option<Revealed>,
}

#[derive(Serialize)]
struct Attempt {
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
    outcome: String,
    reason: &'static str,
    status: Option<u16>,
}

/// All null when the text is gone.
#[derive(Serialize)]
struct Revealed {
    body: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// `dead show --json`: one letter and its attempts, oldest first; with `reveal` also what it says, who
/// sent it and to which number of ours.
pub fn letter(letter: &DeadLetterText, reveal: bool) -> String {
    let attempts = letter.letter.history.iter().map(|attempt| Attempt {
        at: attempt.at,
        outcome: attempt.outcome.clone(),
        reason: attempt.reason.as_str(),
        status: attempt.status,
    });
    let revealed = reveal.then(|| {
        let message = revealed(letter);
        let part =
            |part: fn(&InboundMessage) -> &str| message.as_ref().map(|message| part(message).to_owned());
        Revealed {
            body: part(|message| message.body.expose()),
            from: part(|message| message.from.as_str()),
            to: part(|message| message.to.as_str()),
        }
    });
    line(&LetterInFull { letter: Letter::from(&letter.letter), history: attempts.collect(), revealed })
}

/// The message of a letter, `None` when it is gone or unreadable.
pub(super) fn revealed(letter: &DeadLetterText) -> Option<InboundMessage> {
    let payload = letter.payload.as_ref()?;
    InboundMessage::from_payload(&letter.letter.id.message, payload).ok()
}

/// `requeue --json`.
pub fn returned(returned: &Returned) -> String {
    line(&json!({ "requeued": returned.requeued, "skipped": returned.skipped }))
}

/// `purge --json`.
pub fn purged(purged: &Purged) -> String {
    line(&json!({ "purged": purged.purged }))
}

/// `doctor --json`.
pub fn examined(examination: &Examination) -> String {
    let Examination { findings, done, left, is_sound } = examination;
    line(&json!({ "sound": is_sound, "findings": findings, "done": done, "left": left }))
}

/// What was recognised in a text: `inspect --json`, and a part of `route --json`. Nothing found is null.
#[derive(Serialize)]
struct Found<'a> {
    code: Option<&'a str>,
    service: Option<&'a str>,
    domain: Option<&'a str>,
    expires_in: Option<String>,
    confidence: f64,
    evidence: FoundBy,
}

#[derive(Serialize)]
struct FoundBy {
    code: Option<&'static str>,
    service: Option<&'static str>,
}

impl<'a> From<&'a Recognised> for Found<'a> {
    fn from(found: &'a Recognised) -> Self {
        Self {
            code: found.code.as_ref().map(Code::expose),
            service: found.service.as_deref(),
            domain: found.domain.as_deref(),
            expires_in: found.expires_in.map(duration_text),
            confidence: (f64::from(found.confidence) * 100.0).round() / 100.0,
            evidence: FoundBy {
                code: found.code_evidence.map(CodeEvidence::as_str),
                service: found.service_evidence.map(ServiceEvidence::as_str),
            },
        }
    }
}

/// `inspect --json`: what was recognised in a text.
pub fn recognised(found: &Recognised) -> String {
    line(&Found::from(found))
}

/// `inspect --stdin`, for a line that holds no text: nothing recognised, and why.
pub fn not_inspected(why: &str) -> String {
    line(&json!({ "code": null, "service": null, "error": why }))
}

#[derive(Serialize)]
struct Message<'a> {
    message_id: &'a str,
    state: MessageState,
    #[serde(serialize_with = "rfc3339")]
    deadline: Timestamp,
    deliveries: &'a [DeliveryStatus],
}

/// `status --json`: where the deliveries of one message stand.
pub fn status(message: &MessageStatus) -> String {
    line(&Message {
        message_id: message.id.as_str(),
        state: MessageState::of(message),
        deadline: message.deadline,
        deliveries: &message.deliveries,
    })
}

#[derive(Serialize)]
struct Route<'a> {
    subscriber: &'a str,
    r#match: &'static str,
    deadline: String,
    recognised: Found<'a>,
    recipients: Vec<RouteRecipient<'a>>,
}

#[derive(Serialize)]
struct RouteRecipient<'a> {
    channel: &'a str,
    destination: &'a str,
    text: &'a str,
}

/// `route --json`: who would get a text, what is recognised in it, and how it would read. The deadline is a length of time, as it
/// is written in the files.
pub fn route(preview: &RoutePreview) -> String {
    let recipients = preview.recipients.iter().map(|delivery| RouteRecipient {
        channel: delivery.channel.as_str(),
        destination: &delivery.destination,
        text: delivery.text.expose(),
    });
    line(&Route {
        subscriber: &preview.subscriber,
        r#match: preview.matched.as_str(),
        deadline: duration_text(preview.deadline),
        recognised: Found::from(&preview.found),
        recipients: recipients.collect(),
    })
}

/// `send --json`: the id of the message that the ingress took.
pub fn sent(id: &MessageId) -> String {
    line(&json!({ "message_id": id.as_str() }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::delivery::{Attempt as Failed, DeadCause, DeliveryId, Reason};
    use crate::message::{Address, Body};

    fn message() -> InboundMessage {
        InboundMessage {
            id: MessageId::of_source("test", "1").unwrap(),
            source: "twilio".to_owned(),
            from: Address::parse("+12223334444").unwrap(),
            to: Address::parse("+15005550006").unwrap(),
            body: Body::new("code 493817"),
            trace: None,
        }
    }

    fn dead(payload: Option<Vec<u8>>) -> DeadLetterText {
        let failed = Failed {
            at: Timestamp::from_millis(1_500),
            outcome: "retry".to_owned(),
            reason: Reason::Server,
            status: Some(503),
            code: Some("20500".to_owned()),
            ambiguous: false,
        };
        DeadLetterText {
            letter: DeadLetter {
                id: DeliveryId { message: message().id, index: 2 },
                channel: "sms".to_owned(),
                destination: Some("+1******2222".to_owned()),
                subscriber: "GitHub".to_owned(),
                cause: DeadCause::Exhausted,
                attempts: 1,
                maybe_sent: true,
                accepted_at: Timestamp::from_millis(1_000),
                died_at: Timestamp::from_millis(2_000),
                history: vec![failed],
            },
            payload,
        }
    }

    fn parsed(line: &str) -> Value {
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_letter_has_the_fields_of_the_contract() {
        let expected = json!({
            "id": "test:1/2",
            "message_id": "test:1",
            "channel": "sms",
            "destination": "+1******2222",
            "subscriber": "GitHub",
            "cause": "exhausted",
            "attempts": 1,
            "maybe_sent": true,
            "accepted_at": "1970-01-01T00:00:01.000Z",
            "died_at": "1970-01-01T00:00:02.000Z",
            "last_error": "server, HTTP 503, code 20500",
        });
        assert_eq!(parsed(&letters(&[dead(None).letter])), json!([expected]));
        assert_eq!(letters(&[]), "[]");

        let mut shown = parsed(&letter(&dead(None), false));
        let history = shown.as_object_mut().unwrap().remove("history").unwrap();
        assert_eq!(shown, expected);
        let at = "1970-01-01T00:00:01.500Z";
        let attempt = json!({"at": at, "outcome": "retry", "reason": "server", "status": 503});
        assert_eq!(history, json!([attempt]));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let mut letter = dead(None).letter;
        letter.destination = None;
        letter.subscriber = String::new();
        letter.history.clear();
        let shown = parsed(&letters(&[letter]));
        for field in ["destination", "subscriber", "last_error"] {
            assert_eq!(shown[0][field], Value::Null, "{field}");
        }
    }

    #[test]
    fn only_revealing_shows_the_text_and_its_people() {
        let found = dead(Some(message().to_payload()));
        let hidden = letter(&found, false);
        for secret in ["493817", "2223334444", "5005550006", "body", "from"] {
            assert!(!hidden.contains(secret), "{hidden}");
        }
        let shown = parsed(&letter(&found, true));
        assert_eq!(shown["body"], "code 493817");
        assert_eq!((&shown["from"], &shown["to"]), (&json!("+12223334444"), &json!("+15005550006")));
        assert_eq!(shown["id"], "test:1/2");
        for gone in [None, Some(b"\xffsealed".to_vec())] {
            let shown = parsed(&letter(&dead(gone), true));
            assert_eq!((&shown["body"], &shown["from"]), (&Value::Null, &Value::Null));
            assert!(shown.as_object().unwrap().contains_key("to"));
        }
    }

    #[test]
    fn the_store_s_counts_have_the_fields_of_the_contract() {
        let expected = json!({
            "accepted": 3,
            "duplicates": 0,
            "deliveries": {"delivered": 0, "dead": 0, "expired": 0, "pending": 0},
            "ready": 0,
            "leased": 0,
            "delayed": 0,
            "dead_letters": 2,
            "oldest_ready_age_s": 0.0,
        });
        let counts = Stats { accepted: 3, dead_letters: vec![(DeadCause::Poison, 2)], ..Stats::default() };
        assert_eq!(parsed(&stats(&counts)), expected);
    }

    #[test]
    fn a_message_has_the_fields_of_the_contract() {
        use crate::delivery::DeliveryState;
        let delivery = DeliveryStatus {
            channel: "slack".to_owned(),
            destination: Some("hooks.slack.com/…".to_owned()),
            state: DeliveryState::Pending,
            attempts: 2,
        };
        let message = MessageStatus {
            id: message().id,
            expanded: true,
            deadline: Timestamp::from_millis(600_000),
            deliveries: vec![delivery],
        };
        let delivery = json!({
            "channel": "slack", "destination": "hooks.slack.com/…", "state": "pending", "attempts": 2
        });
        let expected = json!({
            "message_id": "test:1",
            "state": "expanded",
            "deadline": "1970-01-01T00:10:00.000Z",
            "deliveries": [delivery],
        });
        assert_eq!(parsed(&status(&message)), expected);
    }

    #[test]
    fn results_of_changes_are_counts() {
        let counts = Returned { requeued: 2, skipped: 1, unknown: vec!["x".to_owned()] };
        assert_eq!(parsed(&returned(&counts)), json!({"requeued": 2, "skipped": 1}));
        assert_eq!(purged(&Purged { purged: 4, unknown: Vec::new() }), r#"{"purged":4}"#);
        assert_eq!(sent(&message().id), r#"{"message_id":"test:1"}"#);
    }
}
