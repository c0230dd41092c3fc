//! What is measured, in the sizes it has in use: a login code, a webhook of Twilio's, 10,000 subscribers.

use std::hint::black_box;
use std::path::Path;

use secrecy::SecretString;
use sms_broadcaster::code::{Recognised, Recogniser};
use sms_broadcaster::delivery::ChannelId;
use sms_broadcaster::message::{AccountSid, Address, Body, InboundMessage, MessageId};
use sms_broadcaster::source::twilio::{PublicUrl, Request, SOURCE, TwilioSettings, TwilioSource, sign};
use sms_broadcaster::subscribers::Subscribers;
use sms_broadcaster::template::{Fields, Templates};

/// The account, its token and the URL it calls.
pub(crate) const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const PUBLIC_URL: &str = "https://mfa.example.com";
pub(crate) const TARGET: &str = "/twilio/sms";

/// Our number, and the sender of every message.
pub(crate) const TO: &str = "+15005550006";
pub(crate) const FROM: &str = "+12223334444";

/// What it says.
pub(crate) const TEXT: &str = "493817 is your verification code. It expires in 10 minutes.";

/// How many subscribers there are.
const SUBSCRIBERS: usize = 10_000;

/// The body of a webhook and its signature.
pub(crate) fn webhook(sid: &str, text: &str) -> (Vec<u8>, String) {
    // The fields that Twilio sends with every text message, in its order.
    let form = [
        ("ToCountry", "US"),
        ("ToState", "CA"),
        ("SmsMessageSid", sid),
        ("NumMedia", "0"),
        ("ToCity", "SAN FRANCISCO"),
        ("FromZip", "94105"),
        ("SmsSid", sid),
        ("FromState", "CA"),
        ("SmsStatus", "received"),
        ("FromCity", "SAN FRANCISCO"),
        ("Body", text),
        ("FromCountry", "US"),
        ("To", TO),
        ("ToZip", "94105"),
        ("NumSegments", "1"),
        ("MessageSid", sid),
        ("AccountSid", ACCOUNT),
        ("From", FROM),
        ("ApiVersion", "2010-04-01"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let signature = sign(&SecretString::from(TOKEN), &format!("{PUBLIC_URL}{TARGET}"), &form);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    (body.into_bytes(), signature)
}

/// What verifies [`webhook`].
pub(crate) fn source() -> TwilioSource {
    TwilioSource::new(TwilioSettings {
        public_url: PublicUrl::parse(PUBLIC_URL).expect("a URL"),
        account_sid: AccountSid::parse(ACCOUNT).expect("an account"),
        auth_tokens: vec![SecretString::from(TOKEN)],
    })
}

/// The check of one webhook: signature in every spelling worth trying, then the fields.
pub(crate) fn verifying(signature: Option<&str>) -> impl Fn() -> bool + use<> {
    let (source, (body, signed)) = (source(), webhook("SM0123456789abcdef0123456789abcdef", TEXT));
    let signature = signature.map_or(signed, str::to_owned);
    move || {
        let request = Request {
            post: true,
            target: TARGET,
            content_type: Some("application/x-www-form-urlencoded"),
            signature: Some(signature.as_bytes()),
            body: black_box(&body),
        };
        source.verify(&request).is_ok()
    }
}

/// The route of one message after another among [`SUBSCRIBERS`]: some senders are listed by prefix, some
/// with a pattern on the text, the last ones not at all.
pub(crate) fn matching() -> impl FnMut() -> usize {
    let subscribers = subscribers();
    let messages: Vec<_> = (0..256).map(|step| message(&sender(step * SUBSCRIBERS / 250))).collect();
    let found = Recogniser::new().recognise(TEXT, None);
    let mut turn = 0;
    move || {
        turn = (turn + 1) % messages.len();
        subscribers.route(black_box(&messages[turn]), black_box(&found)).recipients.len()
    }
}

/// The text that `channel` sends.
pub(crate) fn rendering(channel: &str) -> impl Fn() -> Body + use<> {
    let (templates, message) = (Templates::default(), message(FROM));
    let channel = ChannelId::parse(channel).expect("a channel");
    let found = Recognised::default();
    move || {
        let InboundMessage { from, to, body, .. } = &message;
        let fields = Fields { name: "Example", body, from, to, found: &found };
        templates.render(&channel, black_box(&fields))
    }
}

/// A message from `from`.
pub(crate) fn message(from: &str) -> InboundMessage {
    InboundMessage {
        id: MessageId::twilio(&format!("SM{:032x}", 1)).expect("an id"),
        source: SOURCE.to_owned(),
        from: Address::parse(from).expect("an address"),
        to: Address::parse(TO).expect("an address"),
        body: Body::new(TEXT),
        trace: None,
    }
}

/// The sender of subscriber `number`.
fn sender(number: usize) -> String {
    format!("+1222{number:07}")
}

/// So many subscribers, each with a sender of its own and two recipients; one in ten by prefix, one in
/// ten with a pattern on the text as well.
fn subscribers() -> Subscribers {
    let mut text = String::new();
    for number in 0..SUBSCRIBERS {
        let star = if number % 10 == 3 { "*" } else { "" };
        let pattern = if number % 10 == 7 { "body = \"(?i)code\"\n" } else { "" };
        text += &format!(
            "[[subscriber]]\nname = \"Subscriber {number}\"\nfrom = [\"{}{star}\"]\n{pattern}\
             sms = [\"+14443332222\"]\nslack = [\"https://hooks.slack.com/services/T0/B0/{number}\"]\n",
            sender(number)
        );
    }
    text += "[fallback]\nname = \"Unknown\"\nsms = [\"+14443332222\"]\n";
    Subscribers::parse(&text, "subscribers.toml", Path::new("."), &|_| None)
        .unwrap_or_else(|faults| panic!("{faults:?}"))
}
