//! Requests signed by Twilio's own library: `tests/data/signature_vectors.py` says how they were made.

use secrecy::SecretString;
use serde::Deserialize;
use sms_broadcaster::message::AccountSid;
use sms_broadcaster::source::twilio::{PublicUrl, Request, TwilioSettings, TwilioSource};
use sms_broadcaster::source::verified::Refusal;

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    public_url: String,
    tokens: Vec<String>,
    method: String,
    target: String,
    content_type: Option<String>,
    body: String,
    signature: String,
    accepted: bool,
    /// Whether it proves its origin, where that is not the same as being accepted.
    proved: Option<bool>,
    /// What the library says.
    library: Option<bool>,
}

#[test]
fn every_request_is_taken_or_refused_as_twilios_library_signs_it() {
    let vectors: Vectors = serde_json::from_str(include_str!("data/signature_vectors.json")).unwrap();
    assert!(vectors.cases.len() > 100);
    for case in &vectors.cases {
        let source = TwilioSource::new(TwilioSettings {
            public_url: PublicUrl::parse(&case.public_url).unwrap(),
            account_sid: AccountSid::parse(ACCOUNT).unwrap(),
            auth_tokens: case.tokens.iter().cloned().map(SecretString::from).collect(),
        });
        let verified = source.verify(&Request {
            post: case.method == "POST",
            target: &case.target,
            content_type: case.content_type.as_deref(),
            signature: Some(case.signature.as_bytes()),
            body: case.body.as_bytes(),
        });
        assert_eq!(verified.is_ok(), case.accepted, "{}: {verified:?}", case.name);
        let proved = !matches!(verified, Err(Refusal::BadSignature));
        assert_eq!(proved, case.proved.unwrap_or(case.accepted), "{}", case.name);
        assert!(case.library.is_none_or(|library| library == proved), "{}: the library differs", case.name);
    }
}
