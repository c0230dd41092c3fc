//! The subscribers file: its faults with their lines, and what its routes say.

use std::path::Path;
use std::time::Duration;

use sms_broadcaster::code::Recognised;
use sms_broadcaster::delivery::Recipient;
use sms_broadcaster::document::Fault;
use sms_broadcaster::message::{Address, Body, InboundMessage, MessageId};
use sms_broadcaster::subscribers::{Deadline, Match, Route, Subscribers};

const WEBHOOK: &str = "https://hooks.slack.com/services/T000/B000/webhooksecret";

const FALLBACK: &str = "[fallback]\nname = \"Unknown\"\nsms = [\"+14443332222\"]\n";

fn env(name: &str) -> Option<String> {
    (name == "MFA_SLACK_WEBHOOK").then(|| WEBHOOK.to_owned())
}

fn parse(text: &str) -> Result<Subscribers, Vec<Fault>> {
    Subscribers::parse(text, "s.toml", Path::new(""), &env)
}

fn message(from: &str, body: &str) -> InboundMessage {
    InboundMessage {
        id: MessageId::parse("SM0123456789abcdef0123456789abcdef").unwrap(),
        source: "twilio".into(),
        from: Address::parse(from).unwrap(),
        to: Address::parse("+15005550006").unwrap(),
        body: Body::new(body),
        trace: None,
    }
}

/// Routes a text of which nothing was recognised.
fn route<'s>(all: &'s Subscribers, message: &InboundMessage) -> Route<'s> {
    all.route(message, &Recognised::default())
}

/// Asserts the one fault of a subscriber that starts at line 4, after the fallback's three lines.
fn assert_one_fault(subscriber: &str, line: usize, part: &str) {
    let text = format!("{FALLBACK}{subscriber}");
    let faults = parse(&text).expect_err(&text);
    assert_eq!(faults.len(), 1, "{faults:?} in:\n{text}");
    assert_eq!(faults[0].line, line, "{faults:?} in:\n{text}");
    assert!(faults[0].message.contains(part), "{part:?} is not in {faults:?}");
}

#[test]
fn the_example_routes_as_it_says() {
    let all = parse(include_str!("../deploy/subscribers.example.toml")).unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.warnings().is_empty());
    let auth0 = message("+12223334444", "Your code is 493817");
    let found = route(&all, &auth0);
    assert_eq!(
        (found.name, found.matched, found.deadline),
        ("Auth0 Test MFA", Match::Subscriber, Deadline::Default)
    );
    assert_eq!(found.recipients.len(), 3);
    assert!(matches!(&found.recipients[2], Recipient::Slack { url, .. } if url.expose() == WEBHOOK));
    assert_eq!(route(&all, &message("+15556667777", "")).recipients.len(), 1);
    let stranger = message("72404", "");
    assert_eq!(route(&all, &stranger).name, "Unknown");
    assert_eq!(route(&all, &stranger).matched, Match::Fallback);
}

#[test]
fn what_is_to_be_dropped_has_no_recipients() {
    let text =
        "[[subscriber]]\nname = \"Ads\"\nfrom = \"72404\"\ndrop = true\nsms = []\n[fallback]\ndrop = true\n";
    let all = parse(text).unwrap();
    let ad = message("72404", "");
    assert_eq!((route(&all, &ad).name, route(&all, &ad).matched), ("Ads", Match::Dropped));
    assert!(route(&all, &ad).recipients.is_empty());
    let other = message("72405", "");
    assert_eq!((route(&all, &other).name, route(&all, &other).matched), ("Unknown", Match::Dropped));
}

#[test]
fn the_same_recipient_twice_is_one_delivery() {
    let text = format!(
        "[fallback]\nsms = [\"+14443332222\", \"+14443332222\"]\nslack = [\"{WEBHOOK}\", {{ url = \"${{MFA_SLACK_WEBHOOK}}\" }}, \
         {{ url = \"{WEBHOOK}\", channel = \"#mfa\", username = \"B\", icon_emoji = \":key:\" }}]\ndeadline = \"5m\"\n"
    );
    let all = parse(&text).unwrap();
    let any = message("72404", "");
    let route = route(&all, &any);
    assert_eq!(route.recipients.len(), 3, "{:?}", route.recipients);
    assert_eq!(route.deadline, Deadline::Fixed(Duration::from_secs(300)));
    let Recipient::Slack { channel, username, icon_emoji, .. } = &route.recipients[2] else { panic!() };
    let given = [channel, username, icon_emoji].map(|option| option.as_deref());
    assert_eq!(given, [Some("#mfa"), Some("B"), Some(":key:")]);
}

#[test]
fn a_service_is_a_condition_of_its_own_and_a_deadline_may_be_left_to_the_text() {
    let text = format!(
        "{FALLBACK}[[subscriber]]\nname = \"A\"\nservice = \"GitHub\"\ndeadline = \"auto\"\nsms = [\"+14443332222\"]\n"
    );
    let all = parse(&text).unwrap();
    let found = Recognised { service: Some("github".to_owned()), ..Recognised::default() };
    let any = message("72404", "x");
    let chosen = all.route(&any, &found);
    assert_eq!((chosen.name, chosen.by_service, chosen.deadline), ("A", true, Deadline::Auto));
    assert_eq!(route(&all, &any).name, "Unknown");
}

#[test]
fn a_name_may_serve_twice() {
    // Conditions of one table must all hold; "either" is written as two tables of one name.
    let text = format!(
        "{FALLBACK}[[subscriber]]\nname = \"A\"\nfrom = \"72404\"\ndrop = true\n\
         [[subscriber]]\nname = \"A\"\nbody = \"auth0\"\ndrop = true\n"
    );
    let all = parse(&text).unwrap();
    assert_eq!(route(&all, &message("72404", "")).name, "A");
    assert_eq!(route(&all, &message("1234", "auth0")).name, "A");
}

#[test]
fn every_fault_of_a_subscriber_has_its_line() {
    let head = "[[subscriber]]\nname = \"A\"\n";
    let from = "[[subscriber]]\nname = \"A\"\nfrom = [\"+12223334444\"]\n";
    let sms = "sms = [\"+14443332222\"]\n";
    let cases = [
        (format!("{head}{sms}"), 4, "a subscriber needs a condition"),
        (format!("[[subscriber]]\nfrom = \"72404\"\n{sms}"), 4, "`subscriber.name` is required"),
        (format!("[[subscriber]]\nname = \"\"\nfrom = \"72404\"\n{sms}"), 5, "a name is 1 to 64"),
        (from.to_owned(), 4, "no recipients"),
        (format!("{from}sms = []\n"), 4, "no recipients"),
        (format!("{from}drop = false\n"), 4, "no recipients"),
        (format!("{from}{sms}drop = true\n"), 8, "there must be no recipients"),
        (format!("{from}sms = [\n\"+14443332222\",\n\"4443332222\",\n]\n"), 9, "E.164"),
        (format!("{from}sms = [5]\n"), 7, "must be a list of strings, not a whole number"),
        (format!("{from}slack = [\"hooks.slack.com/x\"]\n"), 7, "http or https URL"),
        (format!("{from}slack = [\"https://u:p@hooks.slack.com/x\"]\n"), 7, "http or https URL"),
        (format!("{from}slack = [\"http://169.254.169.254/latest\"]\n"), 7, "metadata"),
        (format!("{from}slack = [\"${{NOT_SET}}\"]\n"), 7, "`NOT_SET` is not set"),
        (format!("{from}slack = [{{ channel = \"#mfa\" }}]\n"), 7, "`subscriber.slack.url` is required"),
        (
            format!("{from}slack = [{{ url = \"{WEBHOOK}\", chanel = \"#mfa\" }}]\n"),
            7,
            "did you mean `channel`?",
        ),
        (format!("{head}from = [\"12223334444\"]\n{sms}"), 6, "starts with +"),
        (format!("{head}from = [\"+1 222 333 4444\"]\n{sms}"), 6, "E.164"),
        (format!("{head}from = [\"*\"]\n{sms}"), 6, "[fallback]"),
        (format!("{head}from = [\"+1*2\"]\n{sms}"), 6, "`*` stands only at the end"),
        (format!("{head}from = []\n{sms}"), 6, "must not be empty"),
        (format!("{head}to = [\"+1500*\"]\n{sms}"), 6, "`*`"),
        (format!("{head}body = \"(\"\n{sms}"), 6, "not a regular expression"),
        (format!("{head}body = \"(?=a)\"\n{sms}"), 6, "look-around"),
        (format!("{head}body = \"\"\n{sms}"), 6, "an empty pattern"),
        (format!("{head}body = '\\w{{1000}}{{1000}}'\n{sms}"), 6, "too large"),
        (format!("{from}{sms}deadline = 5\n"), 8, "a duration with its unit"),
        (format!("{from}{sms}deadline = \"0s\"\n"), 8, "at least 1ms"),
        (format!("{from}{sms}source = [\"office-sim\"]\n"), 8, "not available in this version"),
        (format!("{from}{sms}service = []\n"), 8, "must not be empty"),
        (format!("{from}{sms}service = [\"GitHub \"]\n"), 8, "a service is 1 to 64"),
        (format!("{from}{sms}deadline = \"automatic\"\n"), 8, "not a duration"),
        (format!("{from}{sms}form = \"x\"\n"), 8, "did you mean `from`?"),
        ("[[subscribers]]\nname = \"A\"\n".to_owned(), 4, "did you mean `subscriber`?"),
        ("[subscriber]\nname = \"A\"\n".to_owned(), 4, "[[subscriber]]"),
    ];
    for (text, line, part) in &cases {
        assert_one_fault(text, *line, part);
    }
}

#[test]
fn the_fallback_is_needed_and_has_no_conditions() {
    let faults = parse("").unwrap_err();
    assert_eq!(faults[0].to_string(), "s.toml:1: [fallback] is required");
    let faults = parse("[fallback]\nname = \"U\"\n").unwrap_err();
    assert_eq!((faults.len(), faults[0].line), (1, 1), "{faults:?}");
    let faults = parse(&format!("{FALLBACK}from = \"72404\"\n")).unwrap_err();
    assert!(faults[0].message.contains("unknown key `fallback.from`"), "{faults:?}");
}

#[test]
fn too_many_recipients_for_one_step_are_a_fault() {
    let phones: Vec<String> = (0..513).map(|i| format!("\"+1444333{i:04}\"")).collect();
    let faults = parse(&format!("[fallback]\nsms = [{}]\n", phones.join(", "))).unwrap_err();
    assert_eq!(faults[0].to_string(), "s.toml:1: at most 512 recipients");
    assert!(parse(&format!("[fallback]\nsms = [{}]\n", phones[..512].join(", "))).is_ok());
}

#[test]
fn all_faults_are_told_at_once_and_none_shows_a_person_or_a_webhook() {
    let text = format!(
        "[[subscriber]]\nfrom = [\"+12223334444 \"]\nsms = [\"14443332222\"]\nslack = [\"x{WEBHOOK}\", {{ url = \"y{WEBHOOK}\" }}]\n\
         [[subscriber]]\nname = \"B\"\nbody = \"({WEBHOOK}\"\n"
    );
    let faults = parse(&text).unwrap_err();
    let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 1, 2, 3, 4, 4, 5, 7], "{faults:#?}");
    let shown = format!("{faults:?}");
    assert!(
        !shown.contains("webhooksecret") && !shown.contains("443332222") && !shown.contains("2223334444")
    );
}

#[test]
fn ten_thousand_subscribers_are_read_and_routed_in_the_order_of_the_file() {
    let mut text = FALLBACK.to_owned();
    for i in 0..10_000 {
        text += &format!(
            "[[subscriber]]\nname = \"n{i}\"\nfrom = [\"+1222{i:07}\"]\nsms = [\"+1444{i:07}\"]\nslack = [\"${{MFA_SLACK_WEBHOOK}}\"]\n"
        );
    }
    text += "[[subscriber]]\nname = \"late\"\nfrom = [\"+1222*\"]\nsms = [\"+14443332222\"]\n";
    let all = parse(&text).unwrap();
    assert_eq!(all.len(), 10_001);
    assert!(all.warnings().is_empty());
    for (from, name) in [
        ("+12220000000", "n0"),
        ("+12220009999", "n9999"),
        ("+12220010000", "late"),
        ("+13330000000", "Unknown"),
    ] {
        assert_eq!(route(&all, &message(from, "")).name, name);
    }
    // A fault at the very end has its line too.
    let faults = parse(&(text.clone() + "nmae = 1\n")).unwrap_err();
    assert_eq!(faults[0].line, text.lines().count() + 1);
}

#[test]
fn a_file_is_loaded_with_its_own_folder_for_references() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("subscribers.toml");
    std::fs::write(folder.path().join("hook"), format!("{WEBHOOK}\n")).unwrap();
    std::fs::write(&path, "[fallback]\nslack = \"${file:hook}\"\n").unwrap();
    let all = Subscribers::load(&path, &|_| None).unwrap();
    assert!(all.is_empty());
    assert!(!format!("{all:?}").contains("webhooksecret"));
    let any = message("72404", "");
    assert!(!format!("{:?}", route(&all, &any)).contains("webhooksecret"));
    assert!(Subscribers::load(&folder.path().join("gone"), &env).is_err());
}
