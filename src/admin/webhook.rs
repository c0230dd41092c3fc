//! A test message: the request Twilio makes for an inbound text, signed as Twilio signs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use thiserror::Error;
use url::Url;

use crate::forbidden::names_forbidden_address;
use crate::message::{Address, Body, Malformed, MessageId};
use crate::source::twilio::{PublicUrl, TwilioSettings, sign};

/// Where the ingress takes Twilio's messages.
const PATH: &str = "/twilio/sms";

/// What Twilio sends as `ApiVersion` (<https://www.twilio.com/docs/messaging/guides/webhook-request>).
const API_VERSION: &str = "2010-04-01";

/// Twilio gives a webhook 15 seconds (error 11200 beyond it).
const PATIENCE: Duration = Duration::from_secs(15);

/// A text to be posted as if it had just come in.
#[derive(Clone, Debug)]
pub struct TestMessage {
    /// Its MessageSid.
    pub id: MessageId,
    /// Who sent it.
    pub from: Address,
    /// Our number that received it.
    pub to: Address,
    /// What it says.
    pub body: Body,
}

/// Why the ingress did not take a test message. Names no more of a URL than its host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// There is nothing that could sign.
    #[error("there is no auth token to sign with")]
    NoToken,
    /// No HTTPS client could be made.
    #[error("no HTTPS client: this machine has no readable root certificates (install ca-certificates)")]
    NoRootCertificates,
    /// Nobody answered.
    #[error("{host} cannot be reached; is the ingress running there?")]
    Unreachable {
        /// Host and port.
        host: String,
    },
    /// No answer in time, or a broken one. It may have been taken.
    #[error("{host} gave no answer; the message may have been taken (see smsctl status)")]
    NoAnswer {
        /// Host and port.
        host: String,
    },
    /// An answer other than 200.
    #[error("{host} answered {status}: {}", meaning(*.status))]
    Refused {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
    },
}

/// What a status other than 200 means when an ingress says it.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "the form is malformed, or another account's; is its configuration this one?",
        403 => "it refuses the signature; does it have the same auth token and public_url?",
        404 | 405 => "this is not the address of the webhook, which is /twilio/sms",
        413 => "the text is larger than ingress.max_body",
        503 => "it is over its rate, its queue is full, or the queue cannot be reached; try again",
        300..=399 => "it leads elsewhere, and Twilio's messages are not led; give the final address",
        _ => "an ingress does not say this; is something else listening there?",
    }
}

/// A MessageSid that nobody has: `SM` and 32 random hexadecimal digits.
pub fn random_message_id() -> MessageId {
    let sid = format!("SM{:032x}", fastrand::u128(..));
    MessageId::twilio(&sid).expect("SM and 32 hexadecimal digits are a MessageSid")
}

/// Where the ingress that listens at `listen` takes messages, seen from the same machine. `None` for
/// port 0, which is another at every start.
pub fn webhook_at(listen: SocketAddr) -> Option<Url> {
    let mut reachable = listen;
    if listen.ip().is_unspecified() {
        // "Every address" can be listened at and not be called.
        reachable.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    (listen.port() != 0)
        .then(|| Url::parse(&format!("http://{reachable}{PATH}")).expect("an address and a path make a URL"))
}

/// Reads the address to post to: an http or https URL.
pub fn parse_webhook_url(text: &str) -> Result<Url, Malformed> {
    match Url::parse(text) {
        Ok(url) if names_forbidden_address(&url) => {
            Err(Malformed("link-local and cloud metadata addresses are never called"))
        }
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(Malformed("the address of an ingress is an http or https URL")),
    }
}

/// Posts `message` to `url` and waits for the 200 with which the ingress takes it.
///
/// The signature is over `public_url` and what follows the origin in `url`: that is what the ingress
/// checks, wherever it is called. A path prefix of `public_url`, which a proxy takes away, is not doubled.
/// A redirect is not followed, and proxies of the environment are not used.
pub async fn post(message: &TestMessage, twilio: &TwilioSettings, url: &Url) -> Result<(), NotTaken> {
    let token = twilio.auth_tokens.first().ok_or(NotTaken::NoToken)?;
    let form = form(message, twilio.account_sid.as_str());
    let signature = sign(token, &signed_url(&twilio.public_url, url), &form);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    let client = client(url).map_err(|_| NotTaken::NoRootCertificates)?;
    let request = client
        .post(url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("X-Twilio-Signature", signature)
        .body(body);
    let host = host(url);
    match request.send().await {
        Ok(answer) if answer.status().as_u16() == 200 => Ok(()),
        Ok(answer) => Err(NotTaken::Refused { host, status: answer.status().as_u16() }),
        Err(error) if error.is_connect() || error.is_builder() => Err(NotTaken::Unreachable { host }),
        Err(_) => Err(NotTaken::NoAnswer { host }),
    }
}

fn client(url: &Url) -> reqwest::Result<reqwest::Client> {
    // Fails when somebody installed one before, and then theirs serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("smsctl/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .timeout(PATIENCE);
    // Plain http needs no certificates, which a small container may lack.
    let builder = if url.scheme() == "http" { builder.tls_certs_only([]) } else { builder };
    builder.build()
}

/// The fields Twilio sends with an inbound text; those about places and media depend on the sender.
fn form(message: &TestMessage, account_sid: &str) -> Vec<(String, String)> {
    let text = message.body.expose();
    let segments = segments(text).to_string();
    let fields = [
        ("SmsMessageSid", message.id.as_str()),
        ("NumMedia", "0"),
        ("SmsSid", message.id.as_str()),
        ("SmsStatus", "received"),
        ("Body", text),
        ("To", message.to.as_str()),
        ("NumSegments", &segments),
        ("MessageSid", message.id.as_str()),
        ("AccountSid", account_sid),
        ("From", message.from.as_str()),
        ("ApiVersion", API_VERSION),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Parts a text is sent in: 160 characters or 153 each when there are more, 70 and 67 UTF-16 units when
/// it is not plain (3GPP TS 23.040). Near enough for a test: the few accented letters of the plain
/// alphabet count as not plain.
fn segments(text: &str) -> usize {
    let (alone, each) = if text.is_ascii() { (160, 153) } else { (70, 67) };
    let units = text.encode_utf16().count();
    if units <= alone { 1 } else { units.div_ceil(each) }
}

/// What is signed for a request to `url`.
fn signed_url(public_url: &PublicUrl, url: &Url) -> String {
    let path = match url.path().strip_prefix(public_url.prefix()) {
        // Called from outside: the proxy takes the prefix away.
        Some(path) if public_url.has_origin_of(url) && path.starts_with('/') => path,
        _ => url.path(),
    };
    let query = url.query().map_or(String::new(), |query| format!("?{query}"));
    format!("{}{path}{query}", public_url.as_written())
}

/// Host and port, all that may be told of a URL.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(public_url: &str, url: &str) -> String {
        signed_url(&PublicUrl::parse(public_url).unwrap(), &Url::parse(url).unwrap())
    }

    #[test]
    fn the_signature_is_over_the_public_url_wherever_the_request_goes() {
        let local = "http://127.0.0.1:8080/twilio/sms";
        assert_eq!(signed("https://mfa.example.com", local), "https://mfa.example.com/twilio/sms");
        assert_eq!(signed("https://mfa.example.com/", local), "https://mfa.example.com/twilio/sms");
        assert_eq!(signed("https://mfa.example.com", "http://127.0.0.1:8080"), "https://mfa.example.com/");
        assert_eq!(signed("https://u:p@x.org:8443/in", local), "https://u:p@x.org:8443/in/twilio/sms");
        assert_eq!(signed("https://x.org", "http://[::1]:1/?a=b%20c#d"), "https://x.org/?a=b%20c");
    }

    #[test]
    fn a_prefix_that_a_proxy_takes_away_is_not_signed_twice() {
        let public = "https://x.org/in";
        assert_eq!(signed(public, "https://x.org/in/twilio/sms"), "https://x.org/in/twilio/sms");
        assert_eq!(signed(public, "https://x.org/twilio/sms"), "https://x.org/in/twilio/sms");
        assert_eq!(signed(public, "https://x.org/inner"), "https://x.org/in/inner");
        assert_eq!(signed(public, "https://other.org/in/twilio/sms"), "https://x.org/in/in/twilio/sms");
    }

    #[test]
    fn an_ingress_that_listens_everywhere_is_called_on_this_machine() {
        let at = |listen: &str| webhook_at(listen.parse().unwrap()).map(String::from);
        assert_eq!(at("127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080/twilio/sms");
        assert_eq!(at("0.0.0.0:80").unwrap(), "http://127.0.0.1/twilio/sms");
        assert_eq!(at("[::]:8080").unwrap(), "http://[::1]:8080/twilio/sms");
        assert_eq!(at("127.0.0.1:0"), None);
    }

    #[test]
    fn the_form_is_the_one_twilio_sends() {
        let message = TestMessage {
            id: random_message_id(),
            from: Address::parse("+12223334444").unwrap(),
            to: Address::parse("+15005550006").unwrap(),
            body: Body::new("Your code is 493817"),
        };
        let form = form(&message, "AC0123456789abcdef0123456789abcdef");
        let field = |wanted: &str| {
            form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).unwrap()
        };
        for sid in ["MessageSid", "SmsSid", "SmsMessageSid"] {
            assert_eq!(field(sid), message.id.as_str());
        }
        assert_eq!(field("AccountSid"), "AC0123456789abcdef0123456789abcdef");
        assert_eq!((field("From"), field("To")), ("+12223334444", "+15005550006"));
        assert_eq!((field("Body"), field("NumSegments")), ("Your code is 493817", "1"));
        assert_eq!((field("NumMedia"), field("SmsStatus")), ("0", "received"));
        assert_eq!(field("ApiVersion"), "2010-04-01");
    }

    #[test]
    fn long_texts_come_in_parts() {
        for (text, parts) in [("", 1), ("a", 1), (&"a".repeat(160), 1), (&"a".repeat(161), 2)] {
            assert_eq!(segments(text), parts, "{}", text.len());
        }
        assert_eq!(segments(&"é".repeat(70)), 1);
        assert_eq!(segments(&"😀".repeat(36)), 2);
        assert_eq!(segments(&"a".repeat(307)), 3);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(random_message_id(), random_message_id());
    }

    #[test]
    fn a_refusal_tells_the_status_and_no_more_of_the_url_than_its_host() {
        let url = parse_webhook_url("https://user:pw@x.org:8443/secret/path?token=1").unwrap();
        let told = NotTaken::Refused { host: host(&url), status: 403 }.to_string();
        assert!(told.starts_with("x.org:8443 answered 403: it refuses the signature"), "{told}");
        assert!(parse_webhook_url("http://169.254.169.254/latest").is_err());
        assert!(parse_webhook_url("ftp://x.org").is_err());
        assert!(parse_webhook_url("x.org/twilio/sms").is_err());
    }
}
