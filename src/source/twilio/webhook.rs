//! From a raw request to a verified message.

use secrecy::SecretString;

use super::form::{Form, Said};
use super::public_url::PublicUrl;
use super::signature::{MAX_HMACS, appended, is_signed, names_body};
use crate::message::{AccountSid, Address, Body, InboundMessage, MessageId};
use crate::source::verified::{Refusal, Verified};

/// The name of this door in metrics and stored messages.
pub const SOURCE: &str = "twilio";

/// Tokens that can be told apart: with more, the bound on HMACs would leave no room to try both
/// spellings of the port with each.
pub const MAX_TOKENS: usize = MAX_HMACS / 2;

/// What is needed to tell Twilio's requests from others.
#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// What Twilio calls; a `Host` header has no say.
    pub public_url: PublicUrl,
    /// The account whose messages are taken.
    pub account_sid: AccountSid,
    /// Every one of these may have signed; at most [`MAX_TOKENS`].
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

/// Verifies and reads Twilio's requests.
pub struct TwilioSource(TwilioSettings);

impl TwilioSource {
    /// A source for `settings`.
    pub fn new(settings: TwilioSettings) -> Self {
        Self(settings)
    }

    /// Proves that `request` is Twilio's and reads its message: the fields of a form, or of the query of
    /// a GET.
    pub fn verify(&self, request: &Request<'_>) -> Result<Verified<InboundMessage>, Refusal> {
        let signature = request.signature.ok_or(Refusal::BadSignature)?;
        let (_, query) = request.target.split_once('?').unwrap_or_default();
        let is_form = request.post && request.content_type.is_some_and(is_form);
        // A body that is no form is signed through its name in the URL, or not at all.
        if !is_form && !request.body.is_empty() && !names_body(query, request.body) {
            return Err(Refusal::BadSignature);
        }
        let form = if is_form { Form::parse(request.body) } else { Form::empty() };
        let urls = self.0.public_url.spellings(request.target);
        if !is_signed(&self.0.auth_tokens, &urls, &appended(form.fields()), signature) {
            return Err(Refusal::BadSignature);
        }
        let fields = if request.post { form } else { Form::parse(query.as_bytes()) };
        self.read(&fields).map(Verified::new)
    }

    fn read(&self, form: &Form<'_>) -> Result<InboundMessage, Refusal> {
        let account = words(form, "AccountSid", "AccountSid is missing", "AccountSid is malformed")?;
        if account != self.0.account_sid.as_str() {
            return Err(Refusal::Malformed("AccountSid is not ours"));
        }
        let id = words(form, "MessageSid", "MessageSid is missing", "MessageSid is malformed")?;
        let from = words(form, "From", "From is missing", "From is malformed")?;
        let to = words(form, "To", "To is missing", "To is malformed")?;
        let body = match form.said("Body") {
            Said::Nothing => String::new(),
            // A text that is no UTF-8 is worth more with a few signs replaced than not at all.
            Said::One(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Said::Contradiction => return Err(Refusal::Malformed("Body contradicts itself")),
        };
        Ok(InboundMessage {
            id: MessageId::twilio(id).map_err(|_| Refusal::Malformed("MessageSid is malformed"))?,
            source: SOURCE.to_owned(),
            from: Address::parse(from).map_err(|_| Refusal::Malformed("From is malformed"))?,
            to: Address::parse(to).map_err(|_| Refusal::Malformed("To is malformed"))?,
            body: Body::new(body),
            trace: None,
        })
    }
}

/// The one value of a field that must be there.
fn words<'f>(
    form: &'f Form<'_>,
    name: &'static str,
    missing: &'static str,
    malformed: &'static str,
) -> Result<&'f str, Refusal> {
    match form.said(name) {
        Said::Nothing => Err(Refusal::Malformed(missing)),
        Said::One(bytes) => std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed(malformed)),
        Said::Contradiction => Err(Refusal::Malformed("a field contradicts itself")),
    }
}

fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::signature::sign;
    use super::*;

    const ACCOUNT: &str = "AC00000000000000000000000000000001";
    const SID: &str = "SM0123456789abcdef0123456789abcdef";
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=UTF-8");

    fn source(public_url: &str, tokens: &[&str]) -> TwilioSource {
        TwilioSource::new(TwilioSettings {
            public_url: PublicUrl::parse(public_url).unwrap(),
            account_sid: AccountSid::parse(ACCOUNT).unwrap(),
            auth_tokens: tokens.iter().map(|&token| SecretString::from(token)).collect(),
        })
    }

    fn here() -> TwilioSource {
        source("https://x.example", &["t"])
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

    /// The signature of `text` alone.
    fn signature(text: &str) -> String {
        sign(&SecretString::from("t"), text, &[])
    }

    /// Posts `fields` to `target`, signed with `token` for `signed_url`.
    fn post(
        source: &TwilioSource,
        target: &str,
        token: &str,
        signed_url: &str,
        fields: &[(String, String)],
    ) -> Result<InboundMessage, Refusal> {
        let signature = sign(&SecretString::from(token), signed_url, fields);
        let body = encode(fields);
        let request = Request {
            post: true,
            target,
            content_type: FORM,
            signature: Some(signature.as_bytes()),
            body: body.as_bytes(),
        };
        source.verify(&request).map(Verified::into_inner)
    }

    #[test]
    fn ports_and_users_are_tried_in_every_spelling_that_twilio_uses() {
        for (public_url, signed_url, expected) in [
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
            ("https://x.example", "https://u:p@x.example/twilio/sms", false),
            ("https://x.example/hooks/", "https://x.example/hooks/twilio/sms", true),
            ("https://[::1]:8443", "https://[::1]/twilio/sms", true),
            ("https://X.example", "https://X.example/twilio/sms", true),
            ("https://X.example", "https://x.example/twilio/sms", false),
            ("https://x.example", "https://other.example/twilio/sms", false),
        ] {
            let taken = post(&source(public_url, &["t"]), "/twilio/sms", "t", signed_url, &message(&[]));
            assert_eq!(taken.is_ok(), expected, "{public_url} called, {signed_url} signed");
        }
    }

    #[test]
    fn apostrophes_may_be_signed_raw_or_escaped_and_nothing_else_is_normalised() {
        for (target, signed, expected) in [
            ("/?n=O'Neil", "/?n=O'Neil", true),
            ("/?n=O'Neil", "/?n=O%27Neil", true),
            ("/?n=O%27Neil", "/?n=O'Neil", true),
            ("/?n=a%2bb", "/?n=a%2Bb", false),
            ("/?n=a+b", "/?n=a%20b", false),
            ("/?b=1&a=2", "/?b=1&a=2", true),
            ("/?b=1&a=2", "/?a=2&b=1", false),
            ("/twilio/sms?", "/twilio/sms?", true),
            ("/twilio/sms?", "/twilio/sms", false),
            ("/twilio/sms", "/twilio/sms/", false),
            ("/", "/", true),
            ("/", "", true),
            ("/?a=1", "?a=1", true),
        ] {
            let url = format!("https://x.example{signed}");
            assert_eq!(
                post(&here(), target, "t", &url, &message(&[])).is_ok(),
                expected,
                "{target} {signed}"
            );
        }
    }

    #[test]
    fn every_configured_token_is_taken_and_no_other() {
        let source = source("https://x.example", &["new", "old"]);
        let with = |token| post(&source, "/", token, "https://x.example/", &message(&[]));
        assert!(with("new").is_ok() && with("old").is_ok());
        assert_eq!(with("stolen").unwrap_err(), Refusal::BadSignature);
        assert_eq!(with("").unwrap_err(), Refusal::BadSignature);
    }

    #[test]
    fn each_of_as_many_tokens_as_may_be_configured_is_tried_with_and_without_the_port() {
        let tokens: Vec<String> = (0..MAX_TOKENS).map(|number| format!("token{number}")).collect();
        let source = source("https://x.example", &tokens.iter().map(String::as_str).collect::<Vec<_>>());
        for token in &tokens {
            for url in ["https://x.example/twilio/sms", "https://x.example:443/twilio/sms"] {
                assert!(post(&source, "/twilio/sms", token, url, &message(&[])).is_ok(), "{token} {url}");
            }
        }
    }

    #[test]
    fn a_get_signs_the_url_alone_and_has_no_body() {
        let target = format!("/?{}", encode(&message(&[])));
        let signed = signature(&format!("https://x.example{target}"));
        let request = Request {
            post: false,
            target: &target,
            content_type: None,
            signature: Some(signed.as_bytes()),
            body: b"",
        };
        assert_eq!(here().verify(&request).unwrap().get().id.as_str(), SID);
        let other = target.replace("493817", "000000");
        for forged in [
            Request { target: &other, ..request },
            Request { body: b"Body=another", ..request },
            Request { body: b"Body=another", content_type: FORM, ..request },
        ] {
            assert_eq!(here().verify(&forged).unwrap_err(), Refusal::BadSignature);
        }
    }

    #[test]
    fn fields_of_a_posts_query_are_signed_with_the_url_and_are_no_fields_of_the_message() {
        let target = "/?From=%2B19998887777&Extra=1";
        let taken = post(&here(), target, "t", &format!("https://x.example{target}"), &message(&[])).unwrap();
        assert_eq!(taken.from.as_str(), "+12223334444");
        let nothing = post(&here(), "/?a=1", "t", "https://x.example/?a=1", &[]);
        assert_eq!(nothing.unwrap_err(), Refusal::Malformed("AccountSid is missing"));
    }

    #[test]
    fn a_body_that_is_no_form_must_be_named_by_its_hash_in_the_signed_url() {
        let named = "/?bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let verify = |target: &str, content_type, body: &[u8]| {
            let signature = signature(&format!("https://x.example{target}"));
            let signature = Some(signature.as_bytes());
            here().verify(&Request { post: true, target, content_type, signature, body }).map(|_| ())
        };
        // Proved to be Twilio's, but no message.
        let proved = Err(Refusal::Malformed("AccountSid is missing"));
        for content_type in [None, Some("application/json"), Some("text/plain"), Some("")] {
            assert_eq!(verify(named, content_type, b"{}"), proved);
            assert_eq!(verify(named, content_type, b"{ }"), Err(Refusal::BadSignature));
            assert_eq!(verify("/", content_type, b"{}"), Err(Refusal::BadSignature));
            assert_eq!(verify("/", content_type, b""), proved);
        }
        // A form is signed by its fields, whatever its URL says of a hash.
        assert_eq!(verify(named, FORM, b"{}"), Err(Refusal::BadSignature));
        let of_another = format!("https://x.example{named}");
        assert!(post(&here(), named, "t", &of_another, &message(&[])).is_ok());
    }

    #[test]
    fn a_signature_that_is_missing_or_rubbish_is_a_forgery_and_no_fault() {
        let body = encode(&message(&[]));
        let right = sign(&SecretString::from("t"), "https://x.example/", &message(&[]));
        let longer = format!("{right} ");
        for signature in [
            None,
            Some(&b""[..]),
            Some(b"\xff\xfe"),
            Some(b"abc"),
            Some(&[b'A'; 9000]),
            Some(&right.as_bytes()[..27]),
            Some(longer.as_bytes()),
        ] {
            let request =
                Request { post: true, target: "/", content_type: FORM, signature, body: body.as_bytes() };
            assert_eq!(here().verify(&request).unwrap_err(), Refusal::BadSignature);
        }
    }

    #[test]
    fn verified_fields_are_checked_one_by_one_and_never_repeated() {
        let with = |name: &str, value: Option<&str>| {
            let mut fields = message(&[]);
            fields.retain(|(have, _)| have != name);
            fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
            post(&here(), "/", "t", "https://x.example/", &fields)
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
        for sender in ["72404", "AMAZON", "My Bank", "whatsapp:+12223334444", "+12223334444", " "] {
            assert_eq!(with("From", Some(sender)).unwrap().from.as_str(), sender);
        }
        assert!(with("MessageSid", Some("MM0123456789abcdef0123456789abcdef")).is_ok());
    }

    #[test]
    fn a_field_may_be_repeated_and_must_not_contradict_itself() {
        for name in ["AccountSid", "MessageSid", "From", "To", "Body"] {
            let fields = message(&[(name, "another")]);
            let refused = post(&here(), "/", "t", "https://x.example/", &fields).unwrap_err();
            assert!(matches!(refused, Refusal::Malformed(_)), "{name}: {refused:?}");
        }
        let mut twice = message(&[]);
        twice.extend(message(&[]));
        assert!(post(&here(), "/", "t", "https://x.example/", &twice).is_ok());
        assert!(post(&here(), "/", "t", "https://x.example/", &message(&[("X", "1"), ("X", "2")])).is_ok());
    }

    #[test]
    fn what_is_no_text_is_signed_as_it_came_and_refused_only_where_it_matters() {
        let verify = |fields: &[(&str, &[u8])]| {
            let mut body = Vec::new();
            for (name, value) in fields {
                body.extend_from_slice(name.as_bytes());
                body.push(b'=');
                value.iter().for_each(|byte| body.extend_from_slice(format!("%{byte:02X}").as_bytes()));
                body.push(b'&');
            }
            let mut signed = b"https://x.example/".to_vec();
            signed.extend(appended(Form::parse(&body).fields()));
            // What `sign` appends is text; these bytes are not.
            let signature = super::super::signature::tests::sign_bytes("t", &signed);
            let signature = Some(signature.as_bytes());
            let request = Request { post: true, target: "/", content_type: FORM, signature, body: &body };
            here().verify(&request).map(Verified::into_inner)
        };
        let base = |from: &'static [u8], body: &'static [u8]| {
            [
                ("AccountSid", ACCOUNT.as_bytes()),
                ("MessageSid", SID.as_bytes()),
                ("From", from),
                ("To", b"+15005550006"),
                ("Body", body),
            ]
        };
        assert_eq!(verify(&base(b"AMAZON", b"code \xff1")).unwrap().body.expose(), "code \u{fffd}1");
        assert_eq!(
            verify(&base(b"AMAZ\xffN", b"code")).unwrap_err(),
            Refusal::Malformed("From is malformed")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(body: Vec<u8>, target in "/[ -~]{0,40}", signature: Vec<u8>, post: bool) {
            for content_type in [None, FORM, Some("text/plain")] {
                let signature = Some(&signature[..]);
                let request = Request { post, target: &target, content_type, signature, body: &body };
                prop_assert_eq!(here().verify(&request).unwrap_err(), Refusal::BadSignature);
            }
        }

        #[test]
        fn what_is_signed_verifies_and_no_changed_byte_does(
            fields in prop::collection::vec(("[a-zA-Z]{1,8}", "\\PC{0,20}"), 0..8),
            at: prop::sample::Index,
            by in 1..=255_u8,
        ) {
            let mut all = message(&[]);
            all.extend(fields);
            prop_assume!(all.iter().skip(5).all(|(name, _)| !message(&[]).iter().any(|(own, _)| own == name)));
            let signature = sign(&SecretString::from("t"), "https://x.example/", &all);
            let body = encode(&all);
            let verify = |signature: &[u8], body: &[u8]| {
                let signature = Some(signature);
                here().verify(&Request { post: true, target: "/", content_type: FORM, signature, body })
            };
            prop_assert!(verify(signature.as_bytes(), body.as_bytes()).is_ok());

            let mut changed = signature.clone().into_bytes();
            let place = at.index(changed.len());
            changed[place] ^= by;
            prop_assert!(verify(&changed, body.as_bytes()).is_err());

            // Another byte of the body is another text, unless it is another way to write the same.
            let mut changed = body.clone().into_bytes();
            let place = at.index(changed.len());
            changed[place] ^= by;
            let same = appended(Form::parse(&changed).fields()) == appended(Form::parse(body.as_bytes()).fields());
            let refused = matches!(verify(signature.as_bytes(), &changed), Err(Refusal::BadSignature));
            prop_assert_eq!(refused, !same);
        }
    }
}
