//! What Twilio signs, and whether a signature is one of those it may have made.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::form::{Form, Said};

/// HMACs computed for one request at most, over all spellings and tokens.
pub(super) const MAX_HMACS: usize = 12;

/// Signs as Twilio does: `url` as it is called, and the `form` that is posted to it (empty for GET).
/// Returns the value of `X-Twilio-Signature`.
pub fn sign(token: &SecretString, url: &str, form: &[(String, String)]) -> String {
    let fields = form.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    hmac_base64(token, url, &appended(fields))
}

/// What a form adds to the signed text: each distinct name, ascending by its bytes, with each of its
/// distinct values, ascending likewise; nothing between them, and an empty value leaves its name.
pub(super) fn appended<'f>(fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> Vec<u8> {
    let mut pairs: Vec<_> = fields.collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut text = Vec::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len()).sum());
    for (name, value) in pairs {
        text.extend_from_slice(name);
        text.extend_from_slice(value);
    }
    text
}

/// Whether one of `tokens` signed one of `urls` followed by `appended`.
///
/// URL by URL, each with every token, up to [`MAX_HMACS`] in all, so what is left out first is the
/// unlikeliest spelling. All are computed whatever the earlier ones say: how long it takes tells nothing
/// about which one it was.
pub(super) fn is_signed(tokens: &[SecretString], urls: &[String], appended: &[u8], signature: &[u8]) -> bool {
    let tries = urls.iter().flat_map(|url| tokens.iter().map(move |token| (token, url)));
    let mut signed = Choice::from(0);
    for (token, url) in tries.take(MAX_HMACS) {
        signed |= hmac_base64(token, url, appended).as_bytes().ct_eq(signature);
    }
    signed.into()
}

/// Whether the (signed) `query` names `body` by its SHA-256, in lower-case hexadecimal: Twilio's rule for
/// bodies that are no form.
pub(super) fn names_body(query: &str, body: &[u8]) -> bool {
    let query = Form::parse(query.as_bytes());
    let Said::One(named) = query.said("bodySHA256") else { return false };
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.as_bytes().ct_eq(named).into()
}

fn hmac_base64(token: &SecretString, url: &str, appended: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    mac.update(appended);
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The signature of text that need not be UTF-8.
    pub(in crate::source::twilio) fn sign_bytes(token: &str, signed: &[u8]) -> String {
        hmac_base64(&SecretString::from(token), "", signed)
    }

    fn text(form: &[u8]) -> Vec<u8> {
        appended(Form::parse(form).fields())
    }

    #[test]
    fn names_ascend_then_values_and_repetitions_count_once() {
        for (form, signed) in [
            (&b"b=2&a=1"[..], &b"a1b2"[..]),
            (b"a=2&a=1&a=2", b"a1a2"),
            (b"ReasonConferenceEnded=x&Reason=y", b"ReasonyReasonConferenceEndedx"),
            (b"callSid=3&CallSid=2&CALLSID=1", b"CALLSID1CallSid2callSid3"),
            (b"empty=&full=1", b"emptyfull1"),
            (b"a=+b+", b"a b "),
            (b"a=%ff%C3%A9", b"a\xff\xc3\xa9"),
        ] {
            assert_eq!(text(form), signed);
        }
    }

    #[test]
    fn names_above_the_basic_plane_are_ordered_by_code_point() {
        assert_eq!(text("😀=1&\u{ff5e}=2".as_bytes()), "\u{ff5e}2😀1".as_bytes());
    }

    #[test]
    fn hmacs_are_bounded_whatever_the_configuration() {
        let tokens = ["a", "b", "c"].map(SecretString::from);
        let urls: Vec<String> = (0..12).map(|number| format!("https://x.example/{number}")).collect();
        let signed = |url: usize| {
            let signature = sign(&tokens[2], &urls[url], &[]);
            is_signed(&tokens, &urls, b"", signature.as_bytes())
        };
        assert!(signed(3), "the last token is tried with the likely spellings");
        assert!(!signed(4), "and the unlikely ones are left out");
    }

    #[test]
    fn a_body_is_named_by_the_lower_case_hexadecimal_of_its_hash() {
        let right = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(names_body(&format!("a=1&bodySHA256={right}"), b"{}"));
        assert!(names_body(&format!("bodySHA256={right}&bodySHA256={right}"), b"{}"));
        for query in [
            String::new(),
            "bodySHA256".to_owned(),
            format!("bodysha256={right}"),
            format!("bodySHA256={}", right.to_uppercase()),
            format!("bodySHA256={right}0"),
            format!("bodySHA256={of_nothing}"),
            format!("bodySHA256={right}&bodySHA256={of_nothing}"),
        ] {
            assert!(!names_body(&query, b"{}"), "{query}");
        }
    }
}
