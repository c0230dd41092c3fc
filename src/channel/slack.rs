//! Slack incoming webhooks, and whatever speaks like one (Mattermost, Rocket.Chat).
//!
//! Facts from Slack's pages on incoming webhooks and their errors: success is 200 with the text `ok`;
//! a failure is a status and one word. The same word comes with different statuses in different years,
//! so the word is looked at first.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use serde::Serialize;

use crate::channel::contract::{Channel, Dispatch};
use crate::channel::http::{Answer, Ending, HttpClient, NoAnswer, Post, Verdict, headers};
use crate::delivery::{ChannelId, Outcome, Reason, Recipient};

/// Display name of the sender where the recipient names none.
pub const DEFAULT_USERNAME: &str = "MFA Broadcaster";

/// Icon of the sender where the recipient names none.
pub const DEFAULT_ICON: &str = ":key:";

/// What Slack's error words mean for an attempt.
pub const ERROR_WORDS: &[(&str, Verdict)] = &[
    ("action_prohibited", Verdict::Permanent(Reason::Account)),
    ("channel_is_archived", Verdict::Permanent(Reason::Recipient)),
    ("channel_not_found", Verdict::Permanent(Reason::Recipient)),
    ("invalid_blocks", Verdict::Permanent(Reason::Content)),
    ("invalid_payload", Verdict::Permanent(Reason::Content)),
    ("invalid_token", Verdict::Permanent(Reason::Account)),
    ("no_active_hooks", Verdict::Permanent(Reason::Recipient)),
    ("no_service", Verdict::Permanent(Reason::Recipient)),
    ("no_service_id", Verdict::Permanent(Reason::Recipient)),
    ("no_team", Verdict::Permanent(Reason::Recipient)),
    ("no_text", Verdict::Permanent(Reason::Content)),
    ("posting_to_general_channel_denied", Verdict::Permanent(Reason::Account)),
    ("rate_limited", Verdict::Retry(Reason::RateLimited)),
    ("rollup_error", Verdict::Retry(Reason::Server)),
    ("server_error", Verdict::Retry(Reason::Server)),
    ("team_disabled", Verdict::Permanent(Reason::Recipient)),
    ("too_many_attachments", Verdict::Permanent(Reason::Content)),
    ("user_not_found", Verdict::Permanent(Reason::Recipient)),
];

/// Settings of the `slack` channel.
#[derive(Clone, Debug)]
pub struct SlackSettings {
    /// The longest one attempt may take, connection and answer included.
    pub timeout: Duration,
}

/// The `slack` channel.
#[derive(Debug)]
pub struct SlackChannel {
    settings: SlackSettings,
    headers: HeaderMap,
    http: HttpClient,
}

impl SlackChannel {
    /// A channel that posts with `http`.
    pub fn new(settings: SlackSettings, http: HttpClient) -> Self {
        Self { settings, headers: headers("application/json", None), http }
    }
}

/// The message on the wire. `channel`, `username` and `icon_emoji` are obeyed by legacy webhooks only,
/// others ignore them. Unfurling is off: a bot that fetches a one-time link would use it up.
#[derive(Serialize)]
struct Payload<'a> {
    username: &'a str,
    icon_emoji: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    text: &'a str,
    unfurl_links: bool,
    unfurl_media: bool,
}

#[async_trait]
impl Channel for SlackChannel {
    fn id(&self) -> ChannelId {
        ChannelId::slack()
    }

    async fn deliver(&self, dispatch: Dispatch) -> Outcome {
        let Recipient::Slack { url, channel, username, icon_emoji } = &dispatch.recipient else {
            return Outcome::Permanent { reason: Reason::Unreadable, status: None, code: None };
        };
        let payload = Payload {
            username: username.as_deref().unwrap_or(DEFAULT_USERNAME),
            icon_emoji: icon_emoji.as_deref().unwrap_or(DEFAULT_ICON),
            channel: channel.as_deref(),
            text: dispatch.text.expose(),
            unfurl_links: false,
            unfurl_media: false,
        };
        let post = Post {
            url: url.url(),
            headers: &self.headers,
            body: serde_json::to_vec(&payload).expect("a struct of strings always serialises"),
            timeout: self.settings.timeout,
            write_within: dispatch.time_left,
        };
        self.http.attempt(post, outcome).await
    }
}

/// What an answer of Slack's means: the word in its body where it is listed, else its status.
pub fn outcome(answer: &Answer) -> Outcome {
    let body = answer.body.trim_ascii();
    match (answer.status, answer.ending) {
        (200, Ending::Complete) if body == b"ok" => return Outcome::Delivered { status: Some(200) },
        // The status alone promises nothing: whether it was taken stood in the part that is missing.
        (200, Ending::Lost(failure)) => return without_a_verdict(failure),
        _ => {}
    }
    let word = match answer.ending {
        Ending::Complete => error_word(body),
        Ending::Cut | Ending::Lost(_) => None,
    };
    let known = word.and_then(|word| ERROR_WORDS.iter().find(|(known, _)| *known == word));
    let verdict = match (answer.status, known) {
        (429, _) => Verdict::Retry(Reason::RateLimited),
        (200..=399, Some((_, Verdict::Permanent(reason)))) => Verdict::Permanent(*reason),
        (200..=399, _) => Verdict::Permanent(Reason::Rejected),
        (_, Some((_, verdict))) => *verdict,
        (status, None) => Verdict::of_status(status),
    };
    answer.judged(verdict, word.map(str::to_owned))
}

/// A 200 whose text did not arrive: like no answer, but the status is known.
fn without_a_verdict(failure: NoAnswer) -> Outcome {
    match Outcome::from(failure) {
        Outcome::Retry { reason, code, after, ambiguous, .. } => {
            Outcome::Retry { reason, status: Some(200), code, after, ambiguous }
        }
        other => other,
    }
}

/// The body, if it is a word like Slack's. Anything else may be a page, or an echo of what was sent.
fn error_word(body: &[u8]) -> Option<&str> {
    let word = std::str::from_utf8(body).ok()?;
    let ok = (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    ok.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, body: &str) -> Outcome {
        let body = body.as_bytes().to_vec();
        outcome(&Answer { status, retry_after: None, body, ending: Ending::Complete })
    }

    #[test]
    fn only_200_with_ok_is_a_success() {
        for body in ["ok", "ok\n", " ok\r\n"] {
            assert_eq!(judge(200, body), Outcome::Delivered { status: Some(200) }, "{body:?}");
        }
        for (status, body) in [
            (200, ""),
            (200, "OK"),
            (200, "okay"),
            (200, "{\"ok\":true}"),
            (201, "ok"),
            (204, ""),
            (302, "ok"),
        ] {
            let outcome = judge(status, body);
            assert_eq!(
                (outcome.as_str(), outcome.reason()),
                ("permanent", Reason::Rejected),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn the_word_counts_more_than_the_status_it_comes_with() {
        for status in [400, 403, 404, 410, 500] {
            let outcome = judge(status, "user_not_found");
            assert_eq!((outcome.as_str(), outcome.reason()), ("permanent", Reason::Recipient), "{status}");
            assert_eq!(outcome.code(), Some("user_not_found"));
        }
        assert_eq!(judge(400, "rollup_error").as_str(), "retry");
    }

    #[test]
    fn a_200_is_never_tried_again_and_a_429_always_is() {
        for (word, _) in ERROR_WORDS {
            assert_eq!(judge(200, word).as_str(), "permanent", "{word}");
            assert_eq!(judge(429, word).reason(), Reason::RateLimited, "{word}");
        }
    }

    #[test]
    fn a_body_that_is_no_word_is_not_kept() {
        for body in ["<html>no_service</html>", "code 493817", "493817", "No_Service", "é", &"x".repeat(65)]
        {
            assert_eq!(judge(404, body).code(), None, "{body}");
        }
        assert_eq!(judge(404, "some_new_word").code(), Some("some_new_word"));
    }

    #[test]
    fn a_200_that_breaks_off_may_have_been_delivered() {
        let answer = Answer {
            status: 200,
            retry_after: None,
            body: b"o".to_vec(),
            ending: Ending::Lost(NoAnswer::Broken),
        };
        let Outcome::Retry { reason, status, ambiguous, .. } = outcome(&answer) else {
            panic!("not a retry")
        };
        assert_eq!((reason, status, ambiguous), (Reason::Broken, Some(200), true));
    }

    #[test]
    fn the_words_are_in_order_and_named_once() {
        assert!(ERROR_WORDS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
