//! From a message to its route.
//!
//! Every subscriber is listed under its most selective condition: its senders, else our numbers, else its
//! services, else none of them. For one message only the lists that its sender, receiver and service lead to
//! are looked at, merged back into the order of the file, so that the first match still wins over every kind
//! of condition.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use regex::Regex;

use super::deadline::Deadline;
use super::senders::{SenderPattern, fold};
use crate::code::Recognised;
use crate::delivery::Recipient;
use crate::document::Fault;
use crate::message::InboundMessage;

/// How a route was found: the `match` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// A subscriber's conditions hold.
    Subscriber,
    /// Nobody's do.
    Fallback,
    /// Whoever takes it wants it dropped.
    Dropped,
}

impl Match {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Subscriber, Self::Fallback, Self::Dropped];

    /// The word used in labels, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscriber => "subscriber",
            Self::Fallback => "fallback",
            Self::Dropped => "dropped",
        }
    }
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'s> {
    /// The subscriber's name, or the fallback's.
    pub name: &'s str,
    /// How it was found.
    pub matched: Match,
    /// Whether the subscriber was chosen by the service that the text claims to be of, among others.
    pub by_service: bool,
    /// When nothing is sent any more.
    pub deadline: Deadline,
    /// The recipients, each once, in the order of the file; none exactly when the message is dropped.
    pub recipients: &'s [Recipient],
}

/// What is done with a matching message.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) deadline: Deadline,
    /// Line of `deadline`, or of the table without one.
    pub(super) deadline_line: usize,
    pub(super) drop: bool,
    pub(super) recipients: Vec<Recipient>,
}

/// One `[[subscriber]]`; an empty list and `None` are conditions that were not given.
pub(super) struct Subscriber {
    pub(super) line: usize,
    pub(super) from: Vec<SenderPattern>,
    /// Folded.
    pub(super) to: Vec<String>,
    pub(super) body: Option<Regex>,
    /// Folded.
    pub(super) service: Vec<String>,
    pub(super) target: Target,
}

impl Subscriber {
    /// Whether all given conditions hold; `from`, `to` and `service` are folded.
    fn takes(&self, from: &str, to: &str, service: Option<&str>, body: &str) -> bool {
        let sender_ok = self.from.is_empty()
            || self.from.iter().any(|pattern| match pattern {
                SenderPattern::Exact(sender) => sender == from,
                SenderPattern::Prefix(prefix) => from.starts_with(prefix.as_str()),
            });
        sender_ok
            && (self.to.is_empty() || self.to.iter().any(|ours| ours == to))
            && (self.service.is_empty() || self.service.iter().any(|one| Some(one.as_str()) == service))
            && self.body.as_ref().is_none_or(|pattern| pattern.is_match(body))
    }

    fn asks_for_senders_only(&self) -> bool {
        self.to.is_empty() && self.service.is_empty() && self.body.is_none()
    }
}

/// Positions of subscribers, ascending.
type Positions = Vec<usize>;

/// Where to look for the subscribers that may take a message.
#[derive(Default)]
struct Index {
    exact: HashMap<String, Positions>,
    prefix: HashMap<String, Positions>,
    /// Those without `from`, by `to`.
    to: HashMap<String, Positions>,
    /// Those without either, by `service`.
    service: HashMap<String, Positions>,
    /// Those with none of them.
    open: Positions,
}

impl Index {
    fn of(subscribers: &[Subscriber]) -> Self {
        let mut index = Self::default();
        for (position, subscriber) in subscribers.iter().enumerate() {
            for pattern in &subscriber.from {
                let list = match pattern {
                    SenderPattern::Exact(sender) => index.exact.entry(sender.clone()),
                    SenderPattern::Prefix(prefix) => index.prefix.entry(prefix.clone()),
                };
                push(list.or_default(), position);
            }
            if subscriber.from.is_empty() {
                for to in &subscriber.to {
                    push(index.to.entry(to.clone()).or_default(), position);
                }
                if subscriber.to.is_empty() {
                    for service in &subscriber.service {
                        push(index.service.entry(service.clone()).or_default(), position);
                    }
                    if subscriber.service.is_empty() {
                        push(&mut index.open, position);
                    }
                }
            }
        }
        index
    }

    /// The lists that a sender leads to: its own, and that of every prefix of it. At most 64 look-ups
    /// more or less, for an address has no more characters.
    fn by_sender<'i>(&'i self, sender: &'i str) -> impl Iterator<Item = &'i Positions> {
        let prefixes = sender.char_indices().map(move |(at, c)| &sender[..at + c.len_utf8()]);
        self.exact.get(sender).into_iter().chain(prefixes.filter_map(|prefix| self.prefix.get(prefix)))
    }

    /// The subscribers that may take a message, each once, in the order of the file.
    fn candidates<'i>(
        &'i self,
        from: &'i str,
        to: &'i str,
        service: Option<&str>,
    ) -> impl Iterator<Item = usize> {
        let by_service = service.and_then(|service| self.service.get(service));
        let lists = self.by_sender(from).chain(self.to.get(to)).chain(by_service).chain([&self.open]);
        let mut rests: Vec<&[usize]> = lists.map(Vec::as_slice).collect();
        std::iter::from_fn(move || {
            let first = rests.iter().filter_map(|rest| rest.first().copied()).min()?;
            for rest in &mut rests {
                if rest.first() == Some(&first) {
                    *rest = &rest[1..];
                }
            }
            Some(first)
        })
    }
}

fn push(list: &mut Positions, position: usize) {
    if list.last() != Some(&position) {
        list.push(position);
    }
}

/// All of `subscribers.toml`, ready to route. Cheap to ask; a new file makes a new one.
pub struct Subscribers {
    file: String,
    subscribers: Vec<Subscriber>,
    fallback: Target,
    index: Index,
    warnings: Vec<Fault>,
}

impl Subscribers {
    pub(super) fn new(file: &str, subscribers: Vec<Subscriber>, fallback: Target) -> Self {
        let index = Index::of(&subscribers);
        let mut this = Self { file: file.to_owned(), subscribers, fallback, index, warnings: Vec::new() };
        this.warnings = this.unreachable_senders();
        this
    }

    /// Who gets `message`, of which `found` was recognised: the first subscriber in the order of the file all
    /// of whose conditions hold, else the fallback.
    pub fn route(&self, message: &InboundMessage, found: &Recognised) -> Route<'_> {
        let (from, to) = (fold(message.from.as_str()), fold(message.to.as_str()));
        let service = found.service.as_deref().map(fold);
        let (service, body) = (service.as_deref(), message.body.expose());
        let candidates =
            self.index.candidates(&from, &to, service).map(|position| &self.subscribers[position]);
        let mut matching = candidates.filter(|subscriber| subscriber.takes(&from, &to, service, body));
        let (target, matched, by_service) = match matching.next() {
            Some(subscriber) => (&subscriber.target, Match::Subscriber, !subscriber.service.is_empty()),
            None => (&self.fallback, Match::Fallback, false),
        };
        Route {
            name: &target.name,
            matched: if target.drop { Match::Dropped } else { matched },
            by_service,
            deadline: target.deadline,
            recipients: &target.recipients,
        }
    }

    /// How many `[[subscriber]]` there are.
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether there is nothing but the fallback.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// What is allowed but can hardly be meant: senders that an earlier subscriber always takes.
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// The deadlines longer than `retention`, as faults: a message must not outlive its own record.
    pub fn deadlines_beyond(&self, retention: Duration) -> Vec<Fault> {
        let targets = self.subscribers.iter().map(|subscriber| &subscriber.target).chain([&self.fallback]);
        targets
            .filter(|target| target.deadline.fixed().is_some_and(|deadline| deadline > retention))
            .map(|target| Fault {
                file: self.file.clone(),
                line: target.deadline_line,
                message: "`deadline` must not be longer than `message.retention`".to_owned(),
            })
            .collect()
    }

    /// An exact sender is never reached when an earlier subscriber takes it, or a prefix of it, on no
    /// other condition.
    fn unreachable_senders(&self) -> Vec<Fault> {
        let mut warnings = Vec::new();
        for (position, subscriber) in self.subscribers.iter().enumerate() {
            let exact = subscriber.from.iter().enumerate().filter_map(|(entry, pattern)| match pattern {
                SenderPattern::Exact(sender) => Some((entry, sender)),
                SenderPattern::Prefix(_) => None,
            });
            for (entry, sender) in exact {
                let takers = self.index.by_sender(sender).filter_map(|list| {
                    let earlier = list.iter().copied().take_while(|&other| other < position);
                    { earlier }.find(|&other| self.subscribers[other].asks_for_senders_only())
                });
                let taker = takers.min();
                if let Some(taker) = taker {
                    warnings.push(Fault {
                        file: self.file.clone(),
                        line: subscriber.line,
                        message: format!(
                            "entry {} of `from` is never reached: the subscriber of line {} takes this sender first",
                            entry + 1,
                            self.subscribers[taker].line
                        ),
                    });
                }
            }
        }
        warnings
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, senders and recipients of people stay out of logs.
        f.debug_struct("Subscribers")
            .field("file", &self.file)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Address, Body, MessageId};

    fn message(from: &str, to: &str, body: &str) -> InboundMessage {
        InboundMessage {
            id: MessageId::parse("SM0123456789abcdef0123456789abcdef").unwrap(),
            source: "twilio".into(),
            from: Address::parse(from).unwrap(),
            to: Address::parse(to).unwrap(),
            body: Body::new(body),
            trace: None,
        }
    }

    fn subscribers(text: &str) -> Subscribers {
        let text = format!("{text}\n[fallback]\nname = \"Unknown\"\nsms = [\"+14443332222\"]\n");
        Subscribers::parse(&text, "s.toml", Path::new(""), &|_| None).unwrap()
    }

    fn rule(name: &str, conditions: &str) -> String {
        format!("[[subscriber]]\nname = \"{name}\"\n{conditions}\nsms = [\"+14443332222\"]\n")
    }

    fn routed<'s>(all: &'s Subscribers, from: &str, to: &str, body: &str) -> &'s str {
        let found = Recognised { service: service_of(body), ..Recognised::default() };
        all.route(&message(from, to, body), &found).name
    }

    /// A stand-in for the recogniser: "Name: text".
    fn service_of(body: &str) -> Option<String> {
        body.split_once(": ").map(|(service, _)| service.to_owned())
    }

    const US: &str = "+15005550006";

    #[test]
    fn the_first_match_wins_over_every_kind_of_condition() {
        let kinds = [
            "from = [\"+12223334444\"]",
            "from = [\"+1222*\"]",
            "from = [\"+1*\"]",
            "to = [\"+15005550006\"]",
            "body = \"code\"",
            "service = [\"git\"]",
            "from = [\"+1222*\"]\nservice = [\"Git\", \"Hub\"]",
            "from = [\"+12223334444\"]\nbody = \"code\"",
        ];
        for (first, a) in kinds.iter().enumerate() {
            for b in &kinds[..first] {
                for (one, two) in [(a, b), (b, a)] {
                    let all = subscribers(&(rule("one", one) + &rule("two", two)));
                    assert_eq!(
                        routed(&all, "+12223334444", US, "Git: your code"),
                        "one",
                        "{one} before {two}"
                    );
                }
            }
        }
    }

    #[test]
    fn all_given_conditions_must_hold() {
        let all = subscribers(
            "[[subscriber]]\nname = \"A\"\nfrom = [\"+1222*\", \"AMAZON\"]\nto = [\"+15005550006\"]\nbody = \"(?i)auth0\"\nsms = \"+14443332222\"",
        );
        assert_eq!(routed(&all, "+12223334444", US, "AUTH0 code"), "A");
        assert_eq!(routed(&all, "amazon", US, "AUTH0 code"), "A");
        assert_eq!(routed(&all, "+13223334444", US, "AUTH0 code"), "Unknown");
        assert_eq!(routed(&all, "+12223334444", "+15005550007", "AUTH0 code"), "Unknown");
        assert_eq!(routed(&all, "+12223334444", US, "code"), "Unknown");
    }

    #[test]
    fn a_service_is_known_by_any_number_and_without_case() {
        let all = subscribers(
            &(rule("Git at night", "service = [\"GitHub\"]\nbody = \"night\"")
                + &rule("Ours", "service = [\"github\"]\nto = [\"+15005550007\"]")
                + &rule("Git", "service = [\"GitHub\", \"GitLab\"]")),
        );
        for from in ["+12223334444", "+13223334444", "72404", "VERIFY"] {
            assert_eq!(routed(&all, from, US, "GITHUB: code"), "Git");
            assert_eq!(routed(&all, from, US, "gitlab: code"), "Git");
            assert_eq!(routed(&all, from, US, "GitHub: night"), "Git at night");
            assert_eq!(routed(&all, from, "+15005550007", "GitHub: code"), "Ours");
            assert_eq!(routed(&all, from, US, "GitHubs: code"), "Unknown");
            assert_eq!(routed(&all, from, US, "code"), "Unknown");
        }
        let found = |service: &str| Recognised { service: Some(service.to_owned()), ..Recognised::default() };
        assert!(all.route(&message("72404", US, "code"), &found("GitHub")).by_service);
        assert!(!all.route(&message("72404", US, "code"), &found("Other")).by_service);
    }

    #[test]
    fn names_are_compared_without_case_and_channel_addresses_as_a_whole() {
        let all = subscribers(
            &(rule("name", "from = [\"ÉCOLE\", \"AmA*\"]")
                + &rule("whatsapp", "from = [\"whatsapp:+12223334444\"]")
                + &rule("short", "from = [\"72404\"]")),
        );
        assert_eq!(routed(&all, "école", US, ""), "name");
        assert_eq!(routed(&all, "AMAZON", US, ""), "name");
        assert_eq!(routed(&all, "whatsapp:+12223334444", US, ""), "whatsapp");
        assert_eq!(routed(&all, "+12223334444", US, ""), "Unknown");
        assert_eq!(routed(&all, "72404", US, ""), "short");
        assert_eq!(routed(&all, "724040", US, ""), "Unknown");
    }

    #[test]
    fn of_ten_thousand_subscribers_only_those_a_message_leads_to_are_looked_at() {
        let mut text = String::new();
        for i in 0..10_000 {
            let condition = if i % 2 == 0 {
                format!("from = [\"+1222{i:07}\"]")
            } else {
                format!("to = [\"+1333{i:07}\"]")
            };
            text += &rule(&format!("n{i}"), &condition);
            if i == 5_000 {
                text += &rule("prefix", "from = [\"+122200*\"]");
                text += &rule("word", "body = \"special\"");
            }
        }
        let all = subscribers(&text);
        let looked_at = |from: &str, to: &str| all.index.candidates(from, to, None).count();
        assert_eq!(looked_at("+12220009998", US), 3);
        assert_eq!(looked_at("+12229999999", US), 1);
        assert_eq!(looked_at("+12220000002", "+13330000003"), 4);
        assert_eq!(routed(&all, "+12220000002", US, "special"), "n2");
        assert_eq!(routed(&all, "+12220009998", US, "special"), "prefix");
        assert_eq!(routed(&all, "+12229999999", US, "special"), "word");
        assert_eq!(routed(&all, "+12229999999", "+13330000003", "special"), "n3");
        assert_eq!(routed(&all, "+12229999999", "+13330009999", "special"), "word");
        assert_eq!(routed(&all, "+12229999999", US, ""), "Unknown");
    }

    #[test]
    fn a_sender_that_an_earlier_subscriber_always_takes_is_warned_about() {
        let all = subscribers(
            &(rule("a", "from = [\"+12223334444\"]")
                + &rule("b", "from = [\"+15556667777\", \"+12223334444\"]")
                + &rule("c", "from = [\"72404\"]\nbody = \"x\"")
                + &rule("d", "from = [\"72404\"]")
                + &rule("e", "from = [\"+1999*\"]")
                + &rule("f", "from = [\"+19998887777\"]\nbody = \"x\"")),
        );
        let warnings: Vec<String> = all.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("s.toml:5: entry 2 of `from`"), "{warnings:?}");
        assert!(warnings[0].contains("line 1"), "{warnings:?}");
        assert!(warnings[1].starts_with("s.toml:22: "), "{warnings:?}");
    }

    #[test]
    fn debug_shows_no_person() {
        let shown = format!("{:?}", subscribers(&rule("a", "from = [\"+12223334444\"]")));
        assert!(!shown.contains("4443332222") && !shown.contains("2223334444"), "{shown}");
    }

    fn condition() -> impl Strategy<Value = String> {
        let sender =
            prop::sample::select(vec!["+1222333444", "+1222333444*", "+1222*", "+1*", "ABC", "ab*", "12345"]);
        let from = prop::collection::vec(sender, 0..3);
        let to = prop::option::of(prop::sample::select(vec!["+15005550006", "+15005550007"]));
        let body = prop::option::of(prop::sample::select(vec!["a", "^b", "."]));
        let service = prop::option::of(prop::sample::select(vec!["Git", "hub"]));
        (from, to, service, body).prop_filter_map("no condition", |(from, to, service, body)| {
            let mut text = String::new();
            if !from.is_empty() {
                text += &format!("from = {from:?}\n");
            }
            if let Some(to) = to {
                text += &format!("to = [{to:?}]\n");
            }
            if let Some(service) = service {
                text += &format!("service = [{service:?}]\n");
            }
            if let Some(body) = body {
                text += &format!("body = {body:?}\n");
            }
            (!text.is_empty()).then_some(text)
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_looking_at_every_subscriber_finds(
            conditions in prop::collection::vec(condition(), 0..12),
            from in prop::sample::select(vec!["+1222333444", "+12223334445", "+19", "abc", "ABD", "12345", "x"]),
            to in prop::sample::select(vec!["+15005550006", "+15005550008"]),
            body in prop::sample::select(vec!["", "a", "ba", "zzz", "GIT: a", "Hub: b", "Other: a"]),
        ) {
            let text: String =
                conditions.iter().enumerate().map(|(i, condition)| rule(&i.to_string(), condition)).collect();
            let all = subscribers(&text);
            let (folded_from, folded_to) = (fold(from), fold(to));
            let service = service_of(body).as_deref().map(fold);
            let takes = |one: &&Subscriber| one.takes(&folded_from, &folded_to, service.as_deref(), body);
            let expected = all.subscribers.iter().find(takes);
            let expected = expected.map_or("Unknown", |one| one.target.name.as_str());
            prop_assert_eq!(routed(&all, from, to, body), expected);
        }
    }
}
