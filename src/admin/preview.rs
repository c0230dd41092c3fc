//! Who would get a text, and how it would read. Nothing is sent or stored.

use std::time::Duration;

use crate::channel::sms;
use crate::code::{Recognised, Recogniser};
use crate::delivery::ChannelId;
use crate::message::{Body, InboundMessage};
use crate::subscribers::{Match, Subscribers};
use crate::template::{Fields, Templates};

/// What would become of a message.
#[derive(Clone, Debug)]
pub struct RoutePreview {
    /// The subscriber's name, or the fallback's.
    pub subscriber: String,
    /// How it was found.
    pub matched: Match,
    /// Whether the subscriber was chosen by the service that the text claims to be of.
    pub by_service: bool,
    /// Time from acceptance to the deadline.
    pub deadline: Duration,
    /// What was recognised in the text.
    pub found: Recognised,
    /// What would go out; nothing when the message is dropped.
    pub recipients: Vec<PreviewedDelivery>,
}

/// What one recipient would get.
#[derive(Clone, Debug)]
pub struct PreviewedDelivery {
    /// The channel.
    pub channel: ChannelId,
    /// What people may see of the recipient.
    pub destination: String,
    /// The text as it would be sent, escaped and cut for its channel.
    pub text: Body,
}

/// Routes and renders `message`. `default_deadline` is for subscribers without their own.
pub fn preview(
    subscribers: &Subscribers,
    templates: &Templates,
    recogniser: &Recogniser,
    message: &InboundMessage,
    default_deadline: Duration,
) -> RoutePreview {
    let found = recogniser.of(message);
    let route = subscribers.route(message, &found);
    let InboundMessage { from, to, body, .. } = message;
    let fields = Fields { name: route.name, body, from, to, found: &found };
    let recipients = route.recipients.iter().map(|recipient| {
        let channel = recipient.channel();
        let text = templates.render(&channel, &fields);
        let text = if channel == ChannelId::sms() {
            Body::new(sms::cut(text.expose(), sms::MAX_TEXT))
        } else {
            text
        };
        PreviewedDelivery { channel, destination: recipient.masked(), text }
    });
    RoutePreview {
        subscriber: route.name.to_owned(),
        matched: route.matched,
        by_service: route.by_service,
        deadline: route.deadline.of(&found, default_deadline),
        recipients: recipients.collect(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::super::{json, text};
    use super::*;
    use crate::message::{Address, MessageId};

    const FILE: &str = r##"
[[subscriber]]
name = "GitHub"
from = ["+15556667777"]
deadline = "90s"
sms = ["+14443332222"]
slack = [{ url = "https://hooks.slack.com/services/T0/B0/secret", channel = "#mfa" }]

[[subscriber]]
name = "Fernway people"
service = ["FERNWAY"]
deadline = "auto"
sms = ["+14443332222"]

[[subscriber]]
name = "Noise"
body = "promo"
drop = true

[fallback]
sms = ["+10009998765"]
"##;

    fn route(from: &str, body: &str) -> RoutePreview {
        let subscribers = Subscribers::parse(FILE, "subscribers.toml", std::path::Path::new(""), &|_| None);
        let message = InboundMessage {
            id: MessageId::of_source("preview", "1").unwrap(),
            source: "twilio".to_owned(),
            from: Address::parse(from).unwrap(),
            to: Address::parse("+15005550006").unwrap(),
            body: Body::new(body),
            trace: None,
        };
        preview(
            &subscribers.unwrap(),
            &Templates::default(),
            &Recogniser::new(),
            &message,
            Duration::from_secs(600),
        )
    }

    #[test]
    fn every_recipient_is_shown_masked_with_its_text() {
        let preview = route("+15556667777", "code `<1>`");
        let shown: serde_json::Value = serde_json::from_str(&json::route(&preview)).unwrap();
        let expected = serde_json::json!({
            "subscriber": "GitHub",
            "match": "subscriber",
            "deadline": "90s",
            "recognised": {
                "code": null,
                "service": null,
                "domain": null,
                "expires_in": null,
                "confidence": 0.0,
                "evidence": { "code": null, "service": null },
            },
            "recipients": [
                {
                    "channel": "sms",
                    "destination": "+1******2222",
                    "text": "MFA challenge from GitHub\ncode `<1>`",
                },
                {
                    "channel": "slack",
                    "destination": "hooks.slack.com/… #mfa",
                    "text": "*New MFA challenge*\n From: GitHub\n\n```\ncode ˋ&lt;1&gt;ˋ\n```",
                },
            ],
        });
        assert_eq!(shown, expected);
        let page = text::route(&preview, Style::PLAIN);
        assert!(
            page.starts_with("subscriber  GitHub\ndeadline    90s\ncode        -\nservice     -\n"),
            "{page}"
        );
        assert!(page.contains("\n\nsms  +1******2222\n  | MFA "), "{page}");
        assert!(!page.contains("secret") && !page.contains("4443332222"), "{page}");
    }

    #[test]
    fn what_was_recognised_is_shown_and_chooses_by_service_whatever_the_number() {
        for from in ["+19998887777", "72404"] {
            let preview = route(from, "481902 is your Fernway code. It expires in 2 minutes.");
            assert_eq!((preview.subscriber.as_str(), preview.by_service), ("Fernway people", true));
            assert_eq!(preview.deadline, Duration::from_secs(120));
            let page = text::route(&preview, Style::PLAIN);
            assert!(
                page.starts_with("subscriber  Fernway people (by its service)\ndeadline    2m\n"),
                "{page}"
            );
            assert!(page.contains("\ncode        481902 (by its noun)\nservice     Fernway (by "), "{page}");
            let shown: serde_json::Value = serde_json::from_str(&json::route(&preview)).unwrap();
            assert_eq!(shown["recognised"]["code"], "481902");
            assert_eq!(shown["recognised"]["expires_in"], "2m");
        }
    }

    #[test]
    fn the_fallback_takes_the_rest_and_what_is_dropped_goes_nowhere() {
        let fallback = route("AMAZON", "hello");
        assert_eq!((fallback.subscriber.as_str(), fallback.matched), ("Unknown", Match::Fallback));
        assert_eq!(fallback.deadline, Duration::from_secs(600));
        let dropped = route("AMAZON", "a promo");
        assert_eq!((dropped.subscriber.as_str(), dropped.matched), ("Noise", Match::Dropped));
        assert!(dropped.recipients.is_empty());
        assert!(text::route(&dropped, Style::PLAIN).starts_with("subscriber  Noise (drops it)\n"));
    }

    #[test]
    fn a_text_too_long_for_a_phone_is_shown_as_it_would_be_cut() {
        let long = route("AMAZON", &"x".repeat(2_000));
        let text = long.recipients[0].text.expose();
        assert_eq!(text.encode_utf16().count(), sms::MAX_TEXT);
        assert!(text.ends_with('…'));
    }
}
