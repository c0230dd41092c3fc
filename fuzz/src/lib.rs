//! What every fuzz target does with its bytes: plain functions that panic when something is wrong, so
//! that libFuzzer runs them without end and `tests/fuzz_targets.rs` for a moment.
//!
//! None may panic for any bytes. Beyond that each holds what is read against something that is known
//! about it: a second way to compute it, or a bound it must keep.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use secrecy::SecretString;
use sms_broadcaster::channel::http::{Answer, Ending, MAX_RETRY_AFTER, NoAnswer, parse_retry_after};
use sms_broadcaster::channel::{slack, sms};
use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::code::Recognised;
use sms_broadcaster::config::Config;
use sms_broadcaster::delivery::Outcome;
use sms_broadcaster::document::Fault;
use sms_broadcaster::ingress::client;
use sms_broadcaster::message::{AccountSid, Address, Body, InboundMessage, MessageId};
use sms_broadcaster::source::twilio::{PublicUrl, Request, TwilioSettings, TwilioSource, sign};
use sms_broadcaster::source::verified::Refusal;
use sms_broadcaster::subscribers::Subscribers;

/// Takes any bytes, and panics when something is wrong.
pub type Target = fn(&[u8]);

/// Every target by its name: that of its file in `fuzz_targets/` and of its folder in `seeds/`.
pub const TARGETS: [(&str, Target); 7] = [
    ("webhook", webhook),
    ("configuration", configuration),
    ("subscribers", subscribers),
    ("retry_after", retry_after),
    ("provider_answer", provider_answer),
    ("forwarded_for", forwarded_for),
    ("stored_message", stored_message),
];

const FORM: &str = "application/x-www-form-urlencoded";
const SID: &str = "SM0123456789abcdef0123456789abcdef";

/// A request of Twilio's: target, content type and signature in a line each, then the body.
///
/// Nothing is taken with a signature that was made up, and nothing is a forgery that was signed by a
/// second implementation: the fields as a URL library reads them, in the order of Twilio's rule.
pub fn webhook(data: &[u8]) {
    let mut lines = data.splitn(4, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (target, content_type, signature, body) = (line(), line(), line(), line());
    let (Ok(target), Ok(content_type)) = (str::from_utf8(target), str::from_utf8(content_type)) else {
        return;
    };
    let source = TwilioSource::new(TwilioSettings {
        public_url: PublicUrl::parse("https://u:p@mfa.example.com:8443/in").expect("a URL"),
        account_sid: AccountSid::parse("AC0123456789abcdef0123456789abcdef").expect("a SID"),
        auth_tokens: vec![SecretString::from("new"), SecretString::from("old")],
    });
    for post in [true, false] {
        let content_type = Some(content_type);
        let request = Request { post, target, content_type, signature: Some(signature), body };
        assert_eq!(source.verify(&request).unwrap_err(), Refusal::BadSignature);

        let is_form = post && content_type == Some(FORM);
        let mut fields: Vec<(String, String)> = Vec::new();
        if is_form {
            fields.extend(form_urlencoded::parse(body).into_owned());
        } else if !body.is_empty() {
            continue;
        }
        // What is no text is signed as it came; the library reads it as something else.
        if fields.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}')) {
            continue;
        }
        let url = format!("https://u:p@mfa.example.com:8443/in{target}");
        let signature = sign(&SecretString::from("old"), &url, &fields);
        let signed = source.verify(&Request { signature: Some(signature.as_bytes()), ..request });
        assert_ne!(signed.map(|_| ()), Err(Refusal::BadSignature));
    }
}

/// A configuration file: read, or refused with faults that have a place in it. What is read is shown as
/// a document that can be read.
pub fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("/nowhere/sms-broadcaster.toml"), &environment) {
        Ok(config) => {
            let shown = config.masked();
            assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
        }
        Err(faults) => check_faults(&faults, text),
    }
}

/// A subscribers file: refused with faults, or a route for every message.
pub fn subscribers(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Subscribers::parse(text, "subscribers.toml", Path::new("/nowhere"), &environment) {
        Ok(subscribers) => {
            for from in ["+12223334444", "72404", "AMAZON", "whatsapp:+12223334444", "İ", "\u{200b}"] {
                let message = InboundMessage {
                    id: MessageId::twilio(SID).expect("a SID"),
                    source: "twilio".to_owned(),
                    from: Address::parse(from).expect("an address"),
                    to: Address::parse("+15005550006").expect("an address"),
                    body: Body::new("Your code is 204816"),
                    trace: None,
                };
                let found = Recognised { service: Some(from.to_owned()), ..Recognised::default() };
                assert!(!subscribers.route(&message, &found).name.is_empty());
            }
        }
        Err(faults) => check_faults(&faults, text),
    }
}

fn environment(name: &str) -> Option<String> {
    (!name.starts_with('_')).then(|| format!("value of {name}"))
}

fn check_faults(faults: &[Fault], text: &str) {
    assert!(!faults.is_empty());
    let lines = text.lines().count() + 1;
    assert!(faults.iter().all(|fault| fault.line <= lines), "{faults:?}");
    assert!(faults.is_sorted_by_key(|fault| fault.line), "{faults:?}");
}

/// The value of `Retry-After`: a bounded time, and a number of seconds is what it says.
pub fn retry_after(data: &[u8]) {
    let Ok(value) = str::from_utf8(data) else { return };
    for now in [0, 1_795_485_831_103, i64::MAX] {
        let read = parse_retry_after(value, Timestamp::from_millis(now));
        assert!(read.is_none_or(|after| after <= MAX_RETRY_AFTER), "{value:?}: {read:?}");
        let digits = value.trim();
        if digits.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(seconds) = digits.parse::<u32>()
        {
            let expected = Duration::from_secs(seconds.into()).min(MAX_RETRY_AFTER);
            assert_eq!(read, Some(expected), "{value:?}");
        }
    }
}

/// An answer of a provider: a status in a line, then the body. Only what the contract calls a success is
/// one, and of the body nothing is kept but a code or a word.
pub fn provider_answer(data: &[u8]) {
    let (status, body) = data.split_at(data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len()));
    let status: Option<u16> = str::from_utf8(status).ok().and_then(|status| status.parse().ok());
    let Some(status) = status.filter(|status| (100..=999).contains(status)) else { return };
    let body = body.get(1..).unwrap_or_default();
    let broken = NoAnswer::Broken;
    for ending in [Ending::Complete, Ending::Cut, Ending::Lost(broken)] {
        let answer = Answer { status, retry_after: None, body: body.to_vec(), ending };
        let (text, chat) = (sms::outcome(&answer), slack::outcome(&answer));
        assert_eq!(matches!(text, Outcome::Delivered { .. }), status / 100 == 2, "{text:?}");
        let is_ok = status == 200 && ending == Ending::Complete && body.trim_ascii() == b"ok";
        assert_eq!(matches!(chat, Outcome::Delivered { .. }), is_ok, "{chat:?}");
        for outcome in [text, chat] {
            let (Outcome::Retry { code, .. } | Outcome::Permanent { code, .. }) = outcome else { continue };
            let word = code.unwrap_or_default();
            let short =
                word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            assert!(short, "{word:?}");
        }
    }
}

/// `X-Forwarded-For`, one header a line: a stranger is never believed, and behind a trusted proxy the
/// client is that proxy or an address that is named, and always the one the proxy itself has added.
pub fn forwarded_for(data: &[u8]) {
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|net| net.parse().ok()).collect();
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let (stranger, proxy) = (IpAddr::from([198, 51, 100, 4]), IpAddr::from([10, 0, 0, 1]));
    assert_eq!(client(stranger, &headers, &trusted), stranger);

    let mut possible = HashSet::from([proxy]);
    for value in &headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>() {
        let hops = value.as_bytes().split(|&byte| byte == b',').filter_map(|hop| str::from_utf8(hop).ok());
        possible.extend(hops.filter_map(|hop| {
            let hop = hop.trim();
            let socket = || hop.parse::<SocketAddr>().ok().map(|socket| socket.ip());
            hop.parse::<IpAddr>().ok().or_else(socket).map(network)
        }));
    }
    assert!(possible.contains(&client(proxy, &headers, &trusted)));

    headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
    assert_eq!(client(proxy, &headers, &trusted), IpAddr::from([203, 0, 113, 9]));
}

/// What an address is counted as.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// A message as it is stored: refused, or one that is stored as it was read.
pub fn stored_message(data: &[u8]) {
    let id = MessageId::twilio(SID).expect("a SID");
    if let Ok(message) = InboundMessage::from_payload(&id, data) {
        let again = InboundMessage::from_payload(&id, &message.to_payload()).expect("what was written");
        assert_eq!(
            (&again.source, &again.from, &again.to, again.body.expose()),
            (&message.source, &message.from, &message.to, message.body.expose())
        );
    }
}
