//! Text messages by Twilio's Messages API.
//!
//! Twilio has no idempotency key for creating a message: an attempt that ends without an answer may
//! have sent it. What limits the damage is `ValidityPeriod`, after which Twilio itself gives up.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::channel::contract::{Channel, Dispatch};
use crate::channel::http::{Answer, HttpClient, Post, Verdict, headers};
use crate::channel::twilio_codes::rule;
use crate::code::bound_last_line;
use crate::delivery::{ChannelId, Outcome, Reason, Recipient};
use crate::message::{AccountSid, Address, Malformed, PhoneNumber};

/// The longest text Twilio takes, in UTF-16 units (error 21617 beyond it).
pub const MAX_TEXT: usize = 1600;

/// The longest `ValidityPeriod` Twilio takes, in seconds.
const MAX_VALIDITY: u64 = 36_000;

/// Who a text is sent by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmsSender {
    /// A number or sender id of ours: Twilio's `From`.
    From(Address),
    /// A messaging service (`MG` and 32 hexadecimal digits): Twilio's `MessagingServiceSid`.
    Service(String),
}

/// Settings of the `sms` channel.
#[derive(Clone, Debug)]
pub struct SmsSettings {
    /// Origin of Twilio's API, without a trailing slash.
    pub api_base: String,
    /// The account that sends; part of the path.
    pub account_sid: AccountSid,
    /// HTTP Basic user: the account SID, or an API key's SID.
    pub user: String,
    /// HTTP Basic password: the auth token, or the API key's secret.
    pub password: SecretString,
    /// Who it comes from.
    pub sender: SmsSender,
    /// The longest one attempt may take, connection and answer included.
    pub timeout: Duration,
}

/// The `sms` channel.
#[derive(Debug)]
pub struct SmsChannel {
    settings: SmsSettings,
    url: Url,
    headers: HeaderMap,
    http: HttpClient,
}

impl SmsChannel {
    /// A channel that sends with `http`. Fails when `api_base` is no http or https URL.
    pub fn new(settings: SmsSettings, http: HttpClient) -> Result<Self, Malformed> {
        let bad = || Malformed("api_base is an http or https URL without user, query and fragment");
        let base = Url::parse(&settings.api_base).map_err(|_| bad())?;
        let plain = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !plain || !matches!(base.scheme(), "http" | "https") {
            return Err(bad());
        }
        let base = base.as_str().trim_end_matches('/');
        let account = settings.account_sid.as_str();
        let url = Url::parse(&format!("{base}/2010-04-01/Accounts/{account}/Messages.json"));
        let headers =
            headers("application/x-www-form-urlencoded", Some((&settings.user, &settings.password)));
        Ok(Self { url: url.map_err(|_| bad())?, headers, settings, http })
    }

    /// The form of Twilio's "create a message".
    fn form(&self, to: &PhoneNumber, text: &str, time_left: Duration) -> String {
        // Of texts with few signs that take three bytes, as most are, it never grows.
        let form = String::with_capacity(160 + text.len() + text.len() / 4);
        let mut form = form_urlencoded::Serializer::new(form);
        form.append_pair("To", to.as_str());
        match &self.settings.sender {
            SmsSender::From(from) => form.append_pair("From", from.as_str()),
            SmsSender::Service(service) => form.append_pair("MessagingServiceSid", service),
        };
        form.append_pair("Body", &cut(text, MAX_TEXT));
        form.append_pair("ValidityPeriod", &time_left.as_secs().clamp(1, MAX_VALIDITY).to_string());
        form.finish()
    }
}

#[async_trait]
impl Channel for SmsChannel {
    fn id(&self) -> ChannelId {
        ChannelId::sms()
    }

    async fn deliver(&self, dispatch: Dispatch) -> Outcome {
        let Recipient::Sms { to } = &dispatch.recipient else {
            return Outcome::Permanent { reason: Reason::Unreadable, status: None, code: None };
        };
        let post = Post {
            url: &self.url,
            headers: &self.headers,
            body: self.form(to, dispatch.text.expose(), dispatch.time_left).into_bytes(),
            timeout: self.settings.timeout,
            write_within: dispatch.time_left,
        };
        self.http.attempt(post, outcome).await
    }
}

/// What an answer of Twilio's means: the code in its body where it is listed, else its status.
pub fn outcome(answer: &Answer) -> Outcome {
    if (200..=299).contains(&answer.status) {
        // Accepted, whatever the body says or however it broke off.
        return Outcome::Delivered { status: Some(answer.status) };
    }
    let code = error_code(&answer.body);
    let verdict = match (answer.status, code.and_then(rule)) {
        // Turned away before it was looked at, so nothing else in the answer can be about the message.
        (429, _) => Verdict::Retry(Reason::RateLimited),
        (_, Some(rule)) => rule.verdict,
        (409, None) => Verdict::Retry(Reason::Busy),
        (401 | 403 | 404, None) => Verdict::Permanent(Reason::Account),
        (status, None) => Verdict::of_status(status),
    };
    answer.judged(verdict, code.map(|code| code.to_string()))
}

/// The `code` of Twilio's error body. The body may as well be a page of some proxy, and `code` null.
fn error_code(body: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Number(u32),
        Text(String),
    }
    #[derive(Deserialize)]
    struct ErrorBody {
        code: Option<Code>,
    }
    let code = match serde_json::from_slice::<ErrorBody>(body).ok()?.code? {
        Code::Number(code) => code,
        Code::Text(code) => code.parse().ok()?,
    };
    // Twilio's have five digits. Whoever answers in its place may echo something else, which must not be kept.
    (10_000..=99_999).contains(&code).then_some(code)
}

/// `text` if it has at most `limit` UTF-16 units, else as much of its beginning as fits with `…` behind
/// it. What looks like one character to people (an accented letter, an emoji of several parts) is not
/// cut in two. A last line `@host #code` stays, whole: what is cut is the text before it.
pub fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit || text.encode_utf16().count() <= limit {
        return Cow::Borrowed(text);
    }
    if let Some(at) = bound_last_line(text) {
        let line = &text[at.clone()];
        let left = limit.saturating_sub(line.encode_utf16().count() + 1);
        let before = text[..at.start].trim_end();
        if left > 0 && !before.is_empty() {
            return Cow::Owned(format!("{}\n{line}", cut_end(before, left)));
        }
    }
    cut_end(text, limit)
}

fn cut_end(text: &str, limit: usize) -> Cow<'_, str> {
    if text.encode_utf16().count() <= limit {
        return Cow::Borrowed(text);
    }
    let mut units = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > limit.saturating_sub(1) {
            break;
        }
        end = at + c.len_utf8();
    }
    // A cluster longer than this is no writing; it may be cut.
    const LONGEST_CLUSTER: usize = 32;
    let mut whole = end;
    for _ in 0..LONGEST_CLUSTER {
        if !splits_cluster(&text[..whole], &text[whole..]) {
            end = whole;
            break;
        }
        whole = text[..whole].char_indices().next_back().map_or(0, |(at, _)| at);
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// Whether what looks like one character lies on both sides of a cut. Knows the marks, joiners, skin
/// tones and flags that are common in texts, not every script's rules.
fn splits_cluster(before: &str, after: &str) -> bool {
    let (Some(last), Some(next)) = (before.chars().next_back(), after.chars().next()) else {
        return false;
    };
    let joiner = '\u{200d}';
    let extends = matches!(next,
        '\u{0300}'..='\u{036f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}');
    let regional = |c: &char| matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
    let half_a_flag = regional(&next) && before.chars().rev().take_while(regional).count() % 2 == 1;
    extends || next == joiner || last == joiner || half_a_flag || (last, next) == ('\r', '\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::http::Ending;
    use crate::clock::Clock;

    fn judge(status: u16, body: &str) -> Outcome {
        let body = body.as_bytes().to_vec();
        outcome(&Answer { status, retry_after: None, body, ending: Ending::Complete })
    }

    fn settings(api_base: &str) -> SmsSettings {
        SmsSettings {
            api_base: api_base.to_owned(),
            account_sid: AccountSid::parse("AC0123456789abcdef0123456789abcdef").unwrap(),
            user: "AC0123456789abcdef0123456789abcdef".to_owned(),
            password: SecretString::from("hush-hush"),
            sender: SmsSender::From(Address::parse("+15005550006").expect("an address")),
            timeout: Duration::from_secs(10),
        }
    }

    fn channel(api_base: &str) -> Result<SmsChannel, Malformed> {
        SmsChannel::new(settings(api_base), HttpClient::for_plain_http(Clock::system()))
    }

    #[test]
    fn the_api_base_is_an_origin_with_or_without_a_path_and_slash() {
        for (base, url) in [
            ("https://api.twilio.com", "https://api.twilio.com/2010-04-01/Accounts/"),
            ("https://api.twilio.com/", "https://api.twilio.com/2010-04-01/Accounts/"),
            ("http://127.0.0.1:9/twilio", "http://127.0.0.1:9/twilio/2010-04-01/Accounts/"),
        ] {
            assert!(channel(base).unwrap().url.as_str().starts_with(url), "{base}");
        }
        for base in
            ["", "api.twilio.com", "ftp://a", "https://u:p@a", "https://a?x=", "https://a#x", "https://"]
        {
            assert!(channel(base).is_err(), "{base}");
        }
        assert!(!format!("{:?}", channel("https://api.twilio.com").unwrap()).contains("hush-hush"));
    }

    #[test]
    fn the_validity_is_the_whole_seconds_left_within_what_twilio_takes() {
        let channel = channel("https://api.twilio.com").unwrap();
        let to = PhoneNumber::parse("+14443332222").unwrap();
        for (left, validity) in [
            (Duration::from_millis(1), "1"),
            (Duration::from_millis(1_999), "1"),
            (Duration::from_millis(599_999), "599"),
            (Duration::from_secs(36_001), "36000"),
            (Duration::MAX, "36000"),
        ] {
            let form = channel.form(&to, "x", left);
            assert!(form.ends_with(&format!("&ValidityPeriod={validity}")), "{form}");
        }
    }

    #[test]
    fn any_2xx_is_delivered_whatever_it_says() {
        for (status, body) in
            [(201, "{\"sid\":\"SM1\"}"), (200, ""), (202, "<html>"), (201, "{\"code\":21211}")]
        {
            assert_eq!(judge(status, body), Outcome::Delivered { status: Some(status) });
        }
        let answer = Answer { status: 201, retry_after: None, body: vec![], ending: Ending::Lost(NO_ANSWER) };
        assert_eq!(outcome(&answer).as_str(), "delivered");
    }

    const NO_ANSWER: crate::channel::http::NoAnswer = crate::channel::http::NoAnswer::Broken;

    #[test]
    fn a_listed_code_counts_more_than_the_status() {
        assert_eq!(judge(500, "{\"code\":21610}").reason(), Reason::Recipient);
        assert_eq!(judge(400, "{\"code\":20503}").as_str(), "retry");
        assert_eq!(judge(400, "{\"code\":20429}").reason(), Reason::RateLimited);
        assert_eq!(judge(429, "{\"code\":20003}").reason(), Reason::RateLimited);
        assert_eq!(judge(409, "{\"code\":20409}").as_str(), "retry");
    }

    #[test]
    fn without_a_listed_code_the_status_decides() {
        for (status, outcome, reason) in [
            (301, "permanent", Reason::Rejected),
            (400, "permanent", Reason::Rejected),
            (401, "permanent", Reason::Account),
            (403, "permanent", Reason::Account),
            (404, "permanent", Reason::Account),
            (408, "retry", Reason::Timeout),
            (409, "retry", Reason::Busy),
            (418, "permanent", Reason::Rejected),
            (425, "retry", Reason::Server),
            (429, "retry", Reason::RateLimited),
            (500, "retry", Reason::Server),
            (503, "retry", Reason::Server),
            (599, "retry", Reason::Server),
        ] {
            for body in ["", "<html>", "{}", "{\"code\":null}", "{\"code\":99999}", "[1]", "{\"code\":-1}"] {
                let judged = judge(status, body);
                assert_eq!((judged.as_str(), judged.reason()), (outcome, reason), "{status} {body}");
            }
        }
        assert_eq!(judge(400, "{\"code\":99999}").code(), Some("99999"));
        assert_eq!(judge(400, "{\"code\":\"21211\"}").code(), Some("21211"));
        for echoed in ["{\"code\":\"my code is 493817\"}", "{\"code\":493817}", "{\"code\":\"1234\"}"] {
            assert_eq!(judge(400, echoed).code(), None, "{echoed}");
        }
    }

    #[test]
    fn a_text_is_cut_at_1600_utf_16_units() {
        let fits = "x".repeat(1600);
        assert_eq!(cut(&fits, MAX_TEXT), fits);
        assert_eq!(cut(&"x".repeat(1601), MAX_TEXT), format!("{}…", "x".repeat(1599)));
        // An emoji counts two units and is not split: 1598 and the dots are all that fits.
        let emoji = "🔑".repeat(801);
        assert_eq!(cut(&emoji, MAX_TEXT), format!("{}…", "🔑".repeat(799)));
        let fits = "é".repeat(1600);
        assert_eq!(cut(&fits, MAX_TEXT), fits);
    }

    #[test]
    fn a_domain_bound_last_line_outlives_the_cut() {
        let line = "@fernway.example #481902";
        let text = format!("{}\n\n{line}", "x".repeat(2000));
        let left = MAX_TEXT - line.len() - 1;
        assert_eq!(cut(&text, MAX_TEXT), format!("{}…\n{line}", "x".repeat(left - 1)));
        assert_eq!(cut(&text, MAX_TEXT).encode_utf16().count(), MAX_TEXT);
        // One that does not end the text is cut like the rest.
        assert!(cut(&format!("{line}\n{}", "x".repeat(2000)), MAX_TEXT).ends_with("x…"));
        // Nor is more than the limit sent for its sake.
        assert_eq!(cut(&text, 10), "xxxxxxxxx…");
    }

    #[test]
    fn what_looks_like_one_character_is_not_cut_in_two() {
        for cluster in ["e\u{301}", "👍🏽", "👩‍👩‍👧", "🇩🇪", "❤\u{fe0f}", "\r\n", "🏴\u{e0067}\u{e0062}\u{e007f}"]
        {
            let units = cluster.encode_utf16().count();
            for inside in 1..units {
                let text = format!("{}{cluster}{}", "x".repeat(1599 - inside), "y".repeat(99));
                assert_eq!(cut(&text, MAX_TEXT), format!("{}…", "x".repeat(1599 - inside)), "{cluster:?}");
            }
        }
        let endless = format!("a{}", "\u{301}".repeat(5000));
        assert_eq!(cut(&endless, MAX_TEXT).encode_utf16().count(), 1600);
    }

    proptest! {
        #[test]
        fn a_cut_text_fits_and_is_a_beginning(text in "\\PC{0,80}", limit in 1_usize..60) {
            let result = cut(&text, limit);
            prop_assert!(result.encode_utf16().count() <= limit);
            if text.encode_utf16().count() > limit {
                prop_assert!(text.starts_with(result.strip_suffix('…').unwrap()));
            } else {
                prop_assert_eq!(&result, &text);
            }
        }

        #[test]
        fn no_error_body_makes_it_panic(body in any::<Vec<u8>>(), status in 100_u16..1000) {
            let answer = Answer { status, retry_after: None, body, ending: Ending::Cut };
            prop_assert_eq!(outcome(&answer).status(), Some(status));
        }
    }
}
