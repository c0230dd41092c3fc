//! Twilio's inbound message webhook: is it Twilio's, and what does it say.
//!
//! The signature scheme (Twilio, "Security: validating requests"): HMAC-SHA1 with the account's auth
//! token over the URL that Twilio called, followed, for a form, by each distinct name in ascending
//! order with each of its distinct values in ascending order; base64. Twilio's own libraries try the
//! URL in several spellings because its back end is not consistent about ports and apostrophes; so
//! does [`TwilioSource::verify`]. The URL is what `public_url` says, never what a `Host` header says.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::verified::{Refusal, Verified};
use crate::message::{AccountSid, Address, Body, InboundMessage, MessageId};

/// The name of this door in metrics and stored messages.
pub const SOURCE: &str = "twilio";

/// HMACs computed for one request at most, over all spellings and tokens.
const MAX_HMACS: usize = 12;

/// What is needed to tell Twilio's requests from others.
#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// Origin (and path prefix) that Twilio calls, without a trailing slash; may carry user and password.
    pub public_url: url::Url,
    /// The account whose messages are taken.
    pub account_sid: AccountSid,
    /// Every one of these may have signed.
    pub auth_tokens: Vec<SecretString>,
}

/// A request as it came over the wire.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Whether the method is POST; otherwise it is GET.
    pub post: bool,
    /// Path and query exactly as received.
    pub target: &'a str,
    /// The `Content-Type` header, if any.
    pub content_type: Option<&'a str>,
    /// The `X-Twilio-Signature` header, if any.
    pub signature: Option<&'a [u8]>,
    /// The whole body.
    pub body: &'a [u8],
}

/// Form fields in the order of the wire, percent-decoded.
type Fields = Vec<(String, String)>;

/// Verifies and reads Twilio's requests.
pub struct TwilioSource {
    settings: TwilioSettings,
    /// `scheme://[user@]host[:port]` in every spelling worth trying, likeliest first.
    origins: Vec<String>,
    prefix: String,
}

impl TwilioSource {
    /// A source for `settings`.
    pub fn new(settings: TwilioSettings) -> Self {
        let url = &settings.public_url;
        let prefix = url.path().trim_end_matches('/').to_owned();
        let origins = origins(url);
        Self { settings, origins, prefix }
    }

    /// Proves that `request` is Twilio's and reads its message.
    pub fn verify(&self, request: &Request<'_>) -> Result<Verified, Refusal> {
        let signature = request.signature.ok_or(Refusal::Forged)?;
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let fields = self.signed_fields(request, query)?;
        let appended = if request.post { appended(&fields) } else { Vec::new() };
        if !self.is_signed(request.target, &appended, signature) {
            return Err(Refusal::Forged);
        }
        self.read(&fields).map(Verified::new)
    }

    /// The fields the signature covers, by the rule of the request's kind. A body that is no form must
    /// be named by its SHA-256 in the (signed) URL.
    fn signed_fields(&self, request: &Request<'_>, query: &str) -> Result<Fields, Refusal> {
        if !request.post {
            return Ok(parse_form(query.as_bytes()));
        }
        let is_form = request.content_type.is_none_or(is_form);
        if is_form && (request.content_type.is_some() || request.body.is_empty()) {
            return Ok(parse_form(request.body));
        }
        let named = parse_form(query.as_bytes()).into_iter().find(|(name, _)| name == "bodySHA256");
        let (_, named) = named.ok_or(Refusal::Forged)?;
        let digest: String = Sha256::digest(request.body).iter().map(|byte| format!("{byte:02x}")).collect();
        if bool::from(digest.as_bytes().ct_eq(named.as_bytes())) {
            Ok(Vec::new())
        } else {
            Err(Refusal::Forged)
        }
    }

    /// Spelling by spelling, each with every token, up to [`MAX_HMACS`] in all: with one token every
    /// spelling is tried, with more the likeliest ones.
    fn is_signed(&self, target: &str, appended: &[u8], signature: &[u8]) -> bool {
        let tokens = &self.settings.auth_tokens;
        let spellings = self.spellings(target);
        let tries = spellings.iter().flat_map(|url| tokens.iter().map(move |token| (token, url)));
        // No short cut on success: how long it takes says nothing about which one it was.
        let mut signed = false;
        for (token, url) in tries.take(MAX_HMACS) {
            let expected = hmac_base64(token, url.as_bytes(), appended);
            signed |= bool::from(expected.as_bytes().ct_eq(signature));
        }
        signed
    }

    /// Every URL that Twilio may have signed for `target`, likeliest first.
    fn spellings(&self, target: &str) -> Vec<String> {
        let mut targets = vec![target.to_owned()];
        // Twilio signs an apostrophe of the query now raw, now escaped.
        if target.contains('\'') {
            targets.push(target.replace('\'', "%27"));
        } else if target.contains("%27") {
            targets.push(target.replace("%27", "'"));
        }
        // A webhook registered without any path is called with `/` and may be signed without.
        if target == "/" {
            targets.push(String::new());
        }
        let all = targets.iter().flat_map(|target| {
            self.origins.iter().map(move |origin| format!("{origin}{}{target}", self.prefix))
        });
        all.collect()
    }

    fn read(&self, fields: &Fields) -> Result<InboundMessage, Refusal> {
        let field =
            |name: &str| fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
        let missing = |what| Refusal::Malformed(what);
        let account = field("AccountSid").ok_or(missing("AccountSid is missing"))?;
        if account != self.settings.account_sid.as_str() {
            return Err(Refusal::Malformed("AccountSid is not ours"));
        }
        let id = field("MessageSid").ok_or(missing("MessageSid is missing"))?;
        let from = field("From").ok_or(missing("From is missing"))?;
        let to = field("To").ok_or(missing("To is missing"))?;
        Ok(InboundMessage {
            id: MessageId::twilio(id).map_err(|_| Refusal::Malformed("MessageSid is malformed"))?,
            source: SOURCE.to_owned(),
            from: Address::parse(from).map_err(|_| Refusal::Malformed("From is malformed"))?,
            to: Address::parse(to).map_err(|_| Refusal::Malformed("To is malformed"))?,
            body: Body::new(field("Body").unwrap_or_default()),
        })
    }
}

/// Signs as Twilio does: `url` as it is called, and the `form` that is posted to it (empty for GET).
/// Returns the value of `X-Twilio-Signature`.
pub fn sign(token: &SecretString, url: &str, form: &[(String, String)]) -> String {
    hmac_base64(token, url.as_bytes(), &appended(form))
}

/// The origin of `url` in every spelling worth trying: user and password kept and dropped, the port
/// written and not written.
fn origins(url: &url::Url) -> Vec<String> {
    let scheme = url.scheme();
    let host = url.host_str().unwrap_or_default();
    let user = match (url.username(), url.password()) {
        ("", None) => None,
        (user, None) => Some(format!("{user}@")),
        (user, Some(password)) => Some(format!("{user}:{password}@")),
    };
    // The URL type drops a default port: written or not, both spellings are tried.
    let ports = match url.port() {
        Some(port) => [format!(":{port}"), String::new()],
        None => [String::new(), if scheme == "https" { ":443".to_owned() } else { ":80".to_owned() }],
    };
    let users = user.into_iter().chain([String::new()]);
    let pairs = users.flat_map(|user| ports.clone().map(|port| (user.clone(), port)));
    pairs.map(|(user, port)| format!("{scheme}://{user}{host}{port}")).collect()
}

fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn parse_form(bytes: &[u8]) -> Fields {
    form_urlencoded::parse(bytes).into_owned().collect()
}

/// What a form adds to the signed text: names ascending by bytes, the distinct values of each likewise,
/// nothing between them.
fn appended(fields: &[(String, String)]) -> Vec<u8> {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in fields {
        sorted.entry(name).or_default().insert(value);
    }
    let pairs = sorted.iter().flat_map(|(name, values)| values.iter().map(move |value| [*name, *value]));
    pairs.flatten().flat_map(str::bytes).collect()
}

fn hmac_base64(token: &SecretString, url: &[u8], appended: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(url);
    mac.update(appended);
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "AC00000000000000000000000000000001";
    const SID: &str = "SM0123456789abcdef0123456789abcdef";

    fn source(public_url: &str, tokens: &[&str]) -> TwilioSource {
        TwilioSource::new(TwilioSettings {
            public_url: url::Url::parse(public_url).unwrap(),
            account_sid: AccountSid::parse(ACCOUNT).unwrap(),
            auth_tokens: tokens.iter().map(|&token| SecretString::from(token)).collect(),
        })
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn encode(fields: &[(String, String)]) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
    }

    fn message(extra: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut fields = pairs(&[
            ("AccountSid", ACCOUNT),
            ("MessageSid", SID),
            ("From", "+12223334444"),
            ("To", "+15005550006"),
            ("Body", "Your code is 493817"),
        ]);
        fields.extend(pairs(extra));
        fields
    }

    /// Posts `fields` to `target`, signed with `token` for `signed_url`.
    fn post(
        source: &TwilioSource,
        target: &str,
        token: &str,
        signed_url: &str,
        fields: &[(String, String)],
    ) -> Result<Verified, Refusal> {
        let signature = sign(&SecretString::from(token), signed_url, fields);
        source.verify(&Request {
            post: true,
            target,
            content_type: Some("application/x-www-form-urlencoded; charset=UTF-8"),
            signature: Some(signature.as_bytes()),
            body: encode(fields).as_bytes(),
        })
    }

    #[test]
    fn ports_and_users_are_tried_in_every_spelling_that_twilio_uses() {
        let cases = [
            ("https://x.example", "https://x.example/twilio/sms", true),
            ("https://x.example", "https://x.example:443/twilio/sms", true),
            ("https://x.example:443", "https://x.example/twilio/sms", true),
            ("http://x.example", "http://x.example:80/twilio/sms", true),
            ("https://x.example:8443", "https://x.example:8443/twilio/sms", true),
            ("https://x.example:8443", "https://x.example/twilio/sms", true),
            ("https://x.example:8443", "https://x.example:443/twilio/sms", false),
            ("https://x.example", "http://x.example/twilio/sms", false),
            ("https://u:p@x.example:8443", "https://u:p@x.example:8443/twilio/sms", true),
            ("https://u:p@x.example:8443", "https://u:p@x.example/twilio/sms", true),
            ("https://u:p@x.example:8443", "https://x.example/twilio/sms", true),
            ("https://x.example/hooks/", "https://x.example/hooks/twilio/sms", true),
            ("https://[::1]:8443", "https://[::1]/twilio/sms", true),
            ("https://x.example", "https://other.example/twilio/sms", false),
        ];
        for (public_url, signed_url, expected) in cases {
            let verified = post(&source(public_url, &["t"]), "/twilio/sms", "t", signed_url, &message(&[]));
            assert_eq!(verified.is_ok(), expected, "{public_url} called, {signed_url} signed");
        }
    }

    #[test]
    fn apostrophes_may_be_signed_raw_or_escaped_and_nothing_else_is_normalised() {
        let source = source("https://x.example", &["t"]);
        for (target, signed, expected) in [
            ("/?n=O'Neil", "/?n=O'Neil", true),
            ("/?n=O'Neil", "/?n=O%27Neil", true),
            ("/?n=O%27Neil", "/?n=O'Neil", true),
            ("/?n=a%2bb", "/?n=a%2Bb", false),
            ("/?n=a+b", "/?n=a%20b", false),
            ("/?", "/?", true),
            ("/", "", true),
            ("/twilio/sms", "/twilio/sms/", false),
        ] {
            let url = format!("https://x.example{signed}");
            assert_eq!(
                post(&source, target, "t", &url, &message(&[])).is_ok(),
                expected,
                "{target} {signed}"
            );
        }
    }

    #[test]
    fn every_configured_token_is_taken_and_no_other() {
        let source = source("https://x.example", &["new", "old"]);
        let url = "https://x.example/";
        assert!(post(&source, "/", "new", url, &message(&[])).is_ok());
        assert!(post(&source, "/", "old", url, &message(&[])).is_ok());
        assert_eq!(post(&source, "/", "stolen", url, &message(&[])).unwrap_err(), Refusal::Forged);
        assert_eq!(post(&source, "/", "", url, &message(&[])).unwrap_err(), Refusal::Forged);
    }

    #[test]
    fn a_get_signs_the_url_alone() {
        let source = source("https://x.example", &["t"]);
        let target = format!("/?{}", encode(&message(&[])));
        let signature = sign(&SecretString::from("t"), &format!("https://x.example{target}"), &[]);
        let request = Request {
            post: false,
            target: &target,
            content_type: None,
            signature: Some(signature.as_bytes()),
            body: b"",
        };
        assert_eq!(source.verify(&request).unwrap().message().id.as_str(), SID);
        let other = target.replace("493817", "000000");
        assert_eq!(source.verify(&Request { target: &other, ..request }).unwrap_err(), Refusal::Forged);
    }

    #[test]
    fn a_body_that_is_no_form_must_be_named_by_its_hash_in_the_signed_url() {
        let source = source("https://x.example", &["t"]);
        let body: &[u8] = br#"{"hello":"there"}"#;
        let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        let verify = |target: &str, body: &[u8]| {
            let signature = sign(&SecretString::from("t"), &format!("https://x.example{target}"), &[]);
            let content_type = Some("application/json");
            source.verify(&Request {
                post: true,
                target,
                content_type,
                signature: Some(signature.as_bytes()),
                body,
            })
        };
        // Proved to be Twilio's, but no message.
        let named = format!("/?bodySHA256={digest}");
        assert_eq!(verify(&named, body).unwrap_err(), Refusal::Malformed("AccountSid is missing"));
        assert_eq!(verify(&named, b"{}").unwrap_err(), Refusal::Forged);
        assert_eq!(
            verify(&format!("/?bodySHA256={}", digest.to_uppercase()), body).unwrap_err(),
            Refusal::Forged
        );
        assert_eq!(verify("/", body).unwrap_err(), Refusal::Forged);
    }

    #[test]
    fn a_signature_that_is_missing_or_rubbish_is_a_forgery_and_no_fault() {
        let source = source("https://x.example", &["t"]);
        let body = encode(&message(&[]));
        for signature in [None, Some(&b""[..]), Some(b"\xff\xfe"), Some(b"abc"), Some(&[b'A'; 9000])] {
            let content_type = Some("application/x-www-form-urlencoded");
            let request = Request { post: true, target: "/", content_type, signature, body: body.as_bytes() };
            assert_eq!(source.verify(&request).unwrap_err(), Refusal::Forged);
        }
    }

    #[test]
    fn verified_fields_are_checked_one_by_one_and_never_repeated() {
        let source = source("https://x.example", &["t"]);
        let with = |name: &str, value: Option<&str>| {
            let mut fields = message(&[]);
            fields.retain(|(have, _)| have != name);
            fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
            post(&source, "/", "t", "https://x.example/", &fields).map(|verified| verified.message().clone())
        };
        for (name, value, words) in [
            ("AccountSid", None, "AccountSid is missing"),
            ("AccountSid", Some("AC00000000000000000000000000000002"), "AccountSid is not ours"),
            ("MessageSid", None, "MessageSid is missing"),
            ("MessageSid", Some("SM1"), "MessageSid is malformed"),
            ("From", None, "From is missing"),
            ("From", Some(""), "From is malformed"),
            ("To", None, "To is missing"),
            ("To", Some("a\nb"), "To is malformed"),
        ] {
            assert_eq!(with(name, value).unwrap_err(), Refusal::Malformed(words), "{name} {value:?}");
        }
        assert_eq!(with("Body", None).unwrap().body.expose(), "");
        for sender in ["72404", "AMAZON", "My Bank", "whatsapp:+12223334444", "+12223334444"] {
            assert_eq!(with("From", Some(sender)).unwrap().from.as_str(), sender);
        }
        assert!(with("MessageSid", Some("MM0123456789abcdef0123456789abcdef")).is_ok());
    }

    #[test]
    fn hmacs_are_bounded_whatever_the_configuration() {
        let source = source("https://u:p@x.example:8443", &["a", "b", "c"]);
        let tries = source.spellings("/?q='").len() * 3;
        assert!(tries > MAX_HMACS, "the bound is what this test is about");
        let last_tried = &source.spellings("/?q='")[MAX_HMACS / 3 - 1];
        assert!(post(&source, "/?q='", "c", last_tried, &message(&[])).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(body: Vec<u8>, target in "/[ -~]{0,40}", signature: Vec<u8>, post: bool) {
            let source = source("https://x.example", &["t"]);
            for content_type in [None, Some("application/x-www-form-urlencoded"), Some("text/plain")] {
                let signature = Some(&signature[..]);
                let request = Request { post, target: &target, content_type, signature, body: &body };
                prop_assert!(source.verify(&request).is_err());
            }
        }

        #[test]
        fn what_is_signed_verifies(fields in prop::collection::vec(("[a-zA-Z]{1,8}", "\\PC{0,20}"), 0..8)) {
            let source = source("https://x.example", &["t"]);
            let mut all = message(&[]);
            all.extend(fields);
            prop_assert!(post(&source, "/", "t", "https://x.example/", &all).is_ok());
        }
    }
}
