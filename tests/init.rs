//! `sms-broadcaster init`: flags, questions, files that load, and nothing overwritten or half written.

use std::io::Cursor;
use std::path::Path;

use clap::Parser;
use secrecy::ExposeSecret;
use sms_broadcaster::channel::sms::SmsSender;
use sms_broadcaster::config::Config;
use sms_broadcaster::init::{InitArgs, run};
use sms_broadcaster::message::Address;
use sms_broadcaster::seal::{KeyId, SealingKey};
use sms_broadcaster::subscribers::Subscribers;

const SID: &str = "AC0123456789abcdef0123456789abcdef";
const WEBHOOK: &str = "https://hooks.slack.com/services/T000/B000/webhooksecret";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: InitArgs,
}

struct Ran {
    code: u8,
    output: String,
    errors: String,
    unread: String,
}

fn init(folder: &Path, flags: &[&str], typed: &str, is_terminal: bool) -> Ran {
    let folder = folder.to_str().unwrap();
    let cli = Cli::parse_from(["init", "--dir", folder].iter().chain(flags));
    let mut input = Cursor::new(typed.as_bytes().to_vec());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let code = run(&cli.args, &mut input, &mut output, &mut errors, is_terminal);
    let read = usize::try_from(input.position()).unwrap();
    Ran {
        code,
        output: String::from_utf8(output).unwrap(),
        errors: String::from_utf8(errors).unwrap(),
        unread: typed[read..].to_owned(),
    }
}

const ALL: [&str; 8] = [
    "--public-url",
    "https://mfa.example.com/",
    "--account-sid",
    SID,
    "--from",
    "+15005550006",
    "--sms",
    "+14443332222",
];

fn env(name: &str) -> Option<String> {
    match name {
        "TWILIO_AUTH_TOKEN" => Some("token".into()),
        "MFA_SLACK_WEBHOOK" => Some(WEBHOOK.into()),
        "MFA_SLACK_WEBHOOK_2" => Some(format!("{WEBHOOK}2")),
        "MFA_PUBLIC_URL" => Some("https://user:hookpassword@mfa.example.com".into()),
        _ => None,
    }
}

/// Loads what was written.
fn load(folder: &Path) -> (Config, Subscribers) {
    let config = Config::load(&folder.join("sms-broadcaster.toml"), &env).unwrap();
    let subscribers = Subscribers::load(&config.subscribers, &env).unwrap();
    (config, subscribers)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn recipients(subscribers: &Subscribers) -> (String, usize) {
    use sms_broadcaster::message::{Address, Body, InboundMessage, MessageId};
    let message = InboundMessage {
        id: MessageId::parse("SM0123456789abcdef0123456789abcdef").unwrap(),
        source: "twilio".into(),
        from: Address::parse("72404").unwrap(),
        to: Address::parse("+15005550006").unwrap(),
        body: Body::new("x"),
        trace: None,
    };
    let route = subscribers.route(&message, &sms_broadcaster::code::Recognised::default());
    (route.name.to_owned(), route.recipients.len())
}

#[test]
fn flags_alone_make_files_that_load() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("new folder");
    let flags: Vec<&str> = ALL
        .into_iter()
        .chain(["--name", "Team \"${A}\" #1", "--sms", "+10009998765", "--slack", WEBHOOK, "--yes"])
        .chain(["--slack", "https://hooks.slack.com/services/T000/B000/webhooksecret2", "--slack", WEBHOOK])
        .collect();
    let ran = init(&home, &flags, "never read\n", true);
    assert_eq!((ran.code, ran.errors.as_str(), ran.unread.as_str()), (0, "", "never read\n"));
    let (config, subscribers) = load(&home);
    assert_eq!(config.twilio.public_url.as_written(), "https://mfa.example.com");
    assert_eq!(config.sms.sender, SmsSender::From(Address::parse("+15005550006").expect("a number")));
    assert_eq!(recipients(&subscribers), ("Team \"${A}\" #1".to_owned(), 4));
    for part in [
        "TWILIO_AUTH_TOKEN",
        "MFA_SLACK_WEBHOOK ",
        "MFA_SLACK_WEBHOOK_2",
        "smsctl check --config '",
        "sms-broadcaster run",
        "https://mfa.example.com/twilio/sms#rc=5&rp=all",
    ] {
        assert!(ran.output.contains(part), "{part} is not in:\n{}", ran.output);
    }
}

#[test]
fn a_webhook_may_be_given_as_a_reference() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = ALL.to_vec();
    flags.extend(["--slack", "${TEAM_HOOK}", "--slack", WEBHOOK, "--slack", "${MFA_SLACK_WEBHOOK}"]);
    flags.extend(["--slack", "${file:hooks/other}", "--slack", "${TEAM_HOOK}"]);
    let ran = init(folder.path(), &flags, "", false);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let written = std::fs::read_to_string(folder.path().join("subscribers.toml")).unwrap();
    let expected = r#"slack = ["${TEAM_HOOK}", "${MFA_SLACK_WEBHOOK_2}", "${MFA_SLACK_WEBHOOK}", "${file:hooks/other}"]"#;
    assert!(written.contains(expected), "{written}");
    assert!(ran.output.contains("  TEAM_HOOK "), "{}", ran.output);
    for bad in ["${", "${}", "${A B}", "${file:}", "x${TEAM_HOOK}"] {
        assert_eq!(init(&folder.path().join("no"), &["--slack", bad], "", false).code, 2, "{bad}");
    }
}

#[test]
fn the_hint_about_sealing_needs_its_marks_taken_out_and_a_key_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let ran = init(folder.path(), &ALL, "", false);
    assert!(ran.output.contains("`smsctl keygen > queue.key`"), "{}", ran.output);
    let (config, _) = load(folder.path());
    assert!(config.keys.is_empty());
    let path = folder.path().join("sms-broadcaster.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let uncommented = text.replace("# [queue]", "[queue]").replace("# encryption_keys", "encryption_keys");
    std::fs::write(&path, uncommented).unwrap();
    let key = SealingKey::written(&KeyId::parse("k1").unwrap(), &[7; 32]);
    std::fs::write(folder.path().join("queue.key"), format!("{}\n", key.expose_secret())).unwrap();
    let (config, _) = load(folder.path());
    assert_eq!(config.keys.ids().map(KeyId::as_str).collect::<Vec<_>>(), ["k1"]);
}

#[test]
fn secrets_are_neither_written_nor_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = ALL.to_vec();
    flags[1] = "https://user:hookpassword@mfa.example.com";
    flags.extend(["--slack", WEBHOOK]);
    let ran = init(folder.path(), &flags, "", false);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    let mut seen = ran.output.clone();
    for file in files(folder.path()) {
        seen += &std::fs::read_to_string(folder.path().join(file)).unwrap();
    }
    assert!(!seen.contains("webhooksecret") && !seen.contains("hookpassword"), "{seen}");
    let (config, _) = load(folder.path());
    assert_eq!(config.twilio.public_url.as_written(), "https://user:hookpassword@mfa.example.com");
    assert!(ran.output.contains("${MFA_PUBLIC_URL}/twilio/sms#rc=5&rp=all"), "{}", ran.output);

    let bad = init(folder.path(), &["--slack", &WEBHOOK["https://".len()..]], "", false);
    assert_eq!(bad.code, 2);
    assert!(!bad.errors.contains("webhooksecret"), "{}", bad.errors);
    let args = Cli::parse_from(["init", "--slack", WEBHOOK]).args;
    assert!(!format!("{args:?}").contains("webhooksecret"));
}

#[test]
fn a_messaging_service_may_send() {
    let folder = tempfile::tempdir().unwrap();
    let service = format!("MG{}", &SID[2..]);
    let mut flags = ALL.to_vec();
    flags[5] = &service;
    assert_eq!(init(folder.path(), &flags, "", false).code, 0);
    assert_eq!(load(folder.path()).0.sms.sender, SmsSender::Service(service));
}

#[test]
fn without_a_terminal_missing_flags_are_named_and_nothing_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for (is_terminal, flags) in [(false, vec![]), (true, vec!["--yes"])] {
        let ran = init(folder.path(), &flags, "https://mfa.example.com\n", is_terminal);
        assert_eq!(ran.code, 2);
        assert_eq!(ran.unread, "https://mfa.example.com\n");
        for flag in ["--public-url", "--account-sid", "--from", "--sms", "--slack"] {
            assert!(ran.errors.contains(flag), "{}", ran.errors);
        }
        assert!(!ran.errors.contains("--name"));
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn faulty_flags_are_all_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--public-url",
        "mfa.example.com",
        "--account-sid",
        "AC1",
        "--from",
        "5005550006",
        "--name",
        "",
        "--sms",
        "4443332222",
        "--slack",
        "x",
    ];
    let ran = init(folder.path(), &flags, "", true);
    assert_eq!(ran.code, 2);
    let told: Vec<&str> = ran.errors.lines().collect();
    assert_eq!(told.len(), 6, "{told:?}");
    for (line, flag) in
        told.iter().zip(["--public-url", "--account-sid", "--from", "--name", "--sms", "--slack"])
    {
        assert!(line.starts_with(&format!("error: {flag}: ")), "{line}");
    }
}

#[test]
fn a_person_is_asked_for_what_is_missing_until_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let typed = format!(
        "mfa.example.com\nhttps://mfa.example.com\n  {SID}  \n5005550006\n+15005550006\n\n\n+14443332222\n444\n\n{WEBHOOK}\n\n\nleft over\n"
    );
    let ran = init(folder.path(), &[], &typed, true);
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("At least one phone or webhook"), "{}", ran.output);
    let (_, subscribers) = load(folder.path());
    assert_eq!(recipients(&subscribers), ("MFA".to_owned(), 2));
}

#[test]
fn a_person_is_not_asked_for_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let ran = init(folder.path(), &ALL, "left over\n", true);
    assert_eq!((ran.code, ran.unread.as_str()), (0, "left over\n"));

    let other = tempfile::tempdir().unwrap();
    let flags: Vec<&str> = ALL.into_iter().skip(2).collect();
    let ran = init(other.path(), &flags, "https://mfa.example.com\nTeam\n", true);
    assert_eq!(ran.code, 0, "{}", ran.errors);
    assert_eq!(recipients(&load(other.path()).1), ("Team".to_owned(), 1));
}

#[test]
fn a_person_who_leaves_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for typed in
        ["", "https://mfa.example.com\n", &format!("https://mfa.example.com\n{SID}\n+15005550006\n\n")]
    {
        let ran = init(folder.path(), &[], typed, true);
        assert_eq!(ran.code, 2, "{typed:?}");
        assert!(ran.errors.contains("--sms"), "{}", ran.errors);
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn nothing_is_overwritten_and_nothing_is_half_written() {
    for existing in ["sms-broadcaster.toml", "subscribers.toml"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(existing), "mine").unwrap();
        let ran = init(folder.path(), &ALL, "", false);
        assert_eq!(ran.code, 1);
        assert!(ran.errors.contains(existing), "{}", ran.errors);
        assert_eq!(files(folder.path()), [existing]);
        assert_eq!(std::fs::read_to_string(folder.path().join(existing)).unwrap(), "mine");
        // Nor is anybody asked in vain.
        let asked = init(folder.path(), &[], "left over\n", true);
        assert_eq!((asked.code, asked.unread.as_str()), (1, "left over\n"));
    }
}

#[test]
fn a_folder_that_cannot_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let ran = init(&folder.path().join("file/inside"), &ALL, "", false);
    assert_eq!(ran.code, 1);
    assert!(ran.errors.contains("nothing was written"), "{}", ran.errors);
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("elsewhere.toml", folder.path().join("subscribers.toml")).unwrap();
    assert_eq!(init(folder.path(), &ALL, "", false).code, 1);
    assert_eq!(files(folder.path()), ["subscribers.toml"]);
}
