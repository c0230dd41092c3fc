//! `subscribers.toml`: from its text to [`Subscribers`], or to all its faults.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use super::deadline::Deadline;
use super::matching::{Subscriber, Subscribers, Target};
use super::senders::{SenderPattern, fold, parse_sender};
use crate::delivery::{Recipient, WebhookUrl};
use crate::document::{self, Environment, Fault, LONGEST, Section};
use crate::forbidden::names_forbidden_address;
use crate::message::{Malformed, PhoneNumber};

/// The most recipients one match may have: what one expansion of the queue takes.
const MOST_RECIPIENTS: usize = 512;

/// The most memory one compiled pattern may take. Matching is linear in the text whatever the pattern;
/// this bounds what the pattern itself costs.
const LARGEST_PATTERN: usize = 1 << 20;

impl Subscribers {
    /// Reads the text of a subscribers file.
    ///
    /// `file_name` is the name used in faults, `folder` where a relative `${file:…}` starts, `env` where
    /// `${NAME}` is looked up. Every fault is told, in the order of lines.
    pub fn parse(
        text: &str,
        file_name: &str,
        folder: &Path,
        env: &Environment<'_>,
    ) -> Result<Self, Vec<Fault>> {
        document::read(text, file_name, folder, env, |root| build(root, file_name))
    }

    /// Reads the subscribers file at `path`; relative `${file:…}` start in its folder.
    pub fn load(path: &Path, env: &Environment<'_>) -> Result<Self, Vec<Fault>> {
        document::load(path, env, |root| build(root, &path.display().to_string()))
    }
}

fn build(root: &Section<'_>, file: &str) -> Option<Subscribers> {
    let mut patterns = HashMap::new();
    let subscribers = root.tables("subscriber", |section| subscriber(section, &mut patterns));
    let fallback = root.required_table("fallback", |section| target(section, Some("Unknown")));
    Some(Subscribers::new(file, subscribers, fallback?))
}

/// Equal patterns are compiled once: many subscribers may share one.
type Patterns = HashMap<String, Regex>;

fn subscriber(section: &Section<'_>, patterns: &mut Patterns) -> Option<Subscriber> {
    section.later("source");
    let from = condition(section, "from", SenderPattern::parse);
    let to = condition(section, "to", |text| parse_sender(text).map(|address| fold(address.as_str())));
    let body = section.parsed("body", |text| pattern(text, patterns));
    let service = condition(section, "service", parse_service);
    let conditions = ["from", "to", "body", "source", "service"];
    if !conditions.into_iter().any(|condition| section.has(condition)) {
        section.fault(
            section.line(),
            "a subscriber needs a condition: `from`, `to`, `service` or `body`; [fallback] takes the rest",
        );
    }
    let target = target(section, None)?;
    Some(Subscriber { line: section.line(), from, to, body, service, target })
}

/// A list of what must hold. One that is there and empty would hold for no message, or for all: a slip.
fn condition<T>(
    section: &Section<'_>,
    key: &'static str,
    parse: impl FnMut(&str) -> Result<T, Malformed>,
) -> Vec<T> {
    let list = section.list(key, parse);
    if section.is_empty_list(key) {
        section.fault_of(key, "must not be empty");
    }
    list.unwrap_or_default()
}

fn target(section: &Section<'_>, default_name: Option<&str>) -> Option<Target> {
    let name = match default_name {
        Some(default) if !section.has("name") => Some(default.to_owned()),
        _ => section.required("name", parse_name),
    };
    let deadline = section.duration_or_word("deadline", Duration::from_millis(1)..=LONGEST, "auto");
    let deadline = match deadline {
        None => Deadline::Default,
        Some(None) => Deadline::Auto,
        Some(Some(deadline)) => Deadline::Fixed(deadline),
    };
    let drop = section.flag("drop", false);
    let sms = section.list("sms", |text| PhoneNumber::parse(text).map(|to| Recipient::Sms { to }));
    let slack = section.list_or_tables("slack", slack_url, slack_table);
    let given = |key| section.has(key) && !section.is_empty_list(key);
    let anyone = given("sms") || given("slack");
    if drop && anyone {
        section.fault_of("drop", "is true, so there must be no recipients");
    }
    if !drop && !anyone {
        section.fault(section.line(), "no recipients: give `sms` or `slack`, or `drop = true`");
    }
    let mut recipients: Vec<Recipient> = Vec::new();
    for recipient in sms.into_iter().flatten().chain(slack.into_iter().flatten()) {
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    if recipients.len() > MOST_RECIPIENTS {
        section.fault(section.line(), format!("at most {MOST_RECIPIENTS} recipients"));
    }
    Some(Target { name: name?, deadline, deadline_line: section.line_of("deadline"), drop, recipients })
}

/// Reads a subscriber's name: 1 to 64 printable characters, for it stands in texts, lists and filters.
pub fn parse_name(text: &str) -> Result<String, Malformed> {
    let ok = !text.trim().is_empty() && text.chars().count() <= 64 && !text.chars().any(char::is_control);
    if ok { Ok(text.to_owned()) } else { Err(Malformed("a name is 1 to 64 printable characters")) }
}

/// Reads a service as an operator names it: what `smsctl inspect` shows, in any letter case.
fn parse_service(text: &str) -> Result<String, Malformed> {
    let ok = parse_name(text).is_ok() && text.trim() == text;
    if ok { Ok(fold(text)) } else { Err(Malformed("a service is 1 to 64 printable characters")) }
}

fn pattern(text: &str, patterns: &mut Patterns) -> Result<Regex, Malformed> {
    if text.is_empty() {
        return Err(Malformed("an empty pattern holds for every text, which is what [fallback] is for"));
    }
    if let Some(known) = patterns.get(text) {
        return Ok(known.clone());
    }
    let regex = RegexBuilder::new(text).size_limit(LARGEST_PATTERN).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => Malformed("the pattern is too large"),
        _ => Malformed("not a regular expression (look-around and back-references are not supported)"),
    })?;
    patterns.insert(text.to_owned(), regex.clone());
    Ok(regex)
}

fn slack_url(text: &str) -> Result<Recipient, Malformed> {
    Ok(Recipient::Slack { url: parse_webhook(text)?, channel: None, username: None, icon_emoji: None })
}

fn slack_table(section: &Section<'_>) -> Option<Recipient> {
    let url = section.required("url", parse_webhook);
    let channel = section.parsed("channel", parse_name);
    let username = section.parsed("username", parse_name);
    let icon_emoji = section.parsed("icon_emoji", parse_name);
    Some(Recipient::Slack { url: url?, channel, username, icon_emoji })
}

/// Reads a webhook as it may stand in the file: an http or https URL that is not link-local and not a
/// cloud's metadata service.
pub fn parse_webhook(text: &str) -> Result<WebhookUrl, Malformed> {
    let webhook = WebhookUrl::parse(text)?;
    let url = url::Url::parse(text).map_err(|_| Malformed("a webhook is an http or https URL"))?;
    if names_forbidden_address(&url) {
        return Err(Malformed("link-local and cloud metadata addresses are never called"));
    }
    Ok(webhook)
}
