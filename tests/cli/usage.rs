//! The command line and the files behind it: what is refused, with which code and words.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use sms_broadcaster::seal::SealingKey;

use super::assert_fields;
use super::bench::{Bench, ROUTED, bare_command, finish, run};
use crate::support::redis_server::RedisServer;

const GUARD: Duration = Duration::from_secs(30);

#[test]
fn help_and_version_need_no_configuration() {
    let bench = Bench::without_store();
    let plain = |arguments: &[&str]| {
        let mut command = bare_command(bench.folder.path());
        command.args(arguments);
        run(command).fine().out
    };
    let help = plain(&["--help"]);
    for command in
        ["check", "route", "inspect", "send", "stats", "dead", "requeue", "status", "keygen", "--config"]
    {
        assert!(help.contains(command), "{command}: {help}");
    }
    assert!(plain(&["dead", "--help"]).contains("purge"));
    assert!(plain(&["requeue", "--help"]).contains("--dry-run"));
    assert_eq!(plain(&["--version"]), format!("smsctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_fresh_key_is_one_line_that_the_configuration_takes() {
    let bench = Bench::without_store();
    let keygen = |arguments: &[&str]| {
        let mut command = bare_command(bench.folder.path());
        command.arg("keygen").args(arguments);
        run(command)
    };
    let (one, other) = (keygen(&[]).fine().out, keygen(&[]).fine().out);
    assert_ne!(one, other);
    for line in [&one, &other] {
        assert!(line.starts_with('k') && line.ends_with('\n') && line.lines().count() == 1, "{line}");
        SealingKey::parse(line.trim_end()).unwrap();
    }
    let named = keygen(&["--id", "spring.2027"]).fine().out;
    assert_eq!(SealingKey::parse(named.trim_end()).unwrap().id().as_str(), "spring.2027");
    keygen(&["--id", "no name"]).failed(2, "--id: a key is named");

    std::fs::write(bench.folder.path().join("queue.key"), &one).unwrap();
    bench.write_config("encryption_keys = \"${file:queue.key}\"");
    let name = one.split(':').next().unwrap();
    assert!(bench.smsctl(&["check"]).fine().out.contains(&format!("{name} seals")));
}

#[test]
fn the_configuration_is_named_before_or_behind_the_command_or_found() {
    let bench = Bench::without_store();
    let config = bench.config();
    let config = config.to_str().unwrap();
    let with = |arguments: &[&str], variable: Option<&str>| {
        let mut command = bare_command(bench.folder.path());
        command.args(arguments);
        if let Some(path) = variable {
            command.env("SMS_BROADCASTER_CONFIG", path);
        }
        run(command)
    };
    with(&["--config", config, "check"], None).fine();
    with(&["check", "--config", config], None).fine();
    with(&["dead", "list", "--config", config], None).failed(1, "no such queue file");
    with(&["check"], Some(config)).fine();
    with(&["check", "--config", config], Some("/nowhere.toml")).fine();
    with(&["check"], Some("/nowhere.toml")).failed(2, "/nowhere.toml: cannot be read");
    std::fs::rename(bench.config(), bench.folder.path().join("sms-broadcaster.toml")).unwrap();
    with(&["check"], None).fine();
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let bench = Bench::without_store();
    for arguments in [
        &["frobnicate"] as &[&str],
        &[],
        &["stats", "--nonsense"],
        &["dead"],
        &["dead", "show"],
        &["dead", "requeue"],
        &["dead", "purge", "--yes"],
        &["requeue", "SM/1", "--all"],
        &["requeue", "--all", "--yes", "--cause", "bored"],
        &["requeue", "--all", "--yes", "--since", "5"],
        &["requeue", "SM/1", "--deadline", "0s"],
        &["dead", "list", "--limit", "0"],
        &["dead", "list", "--channel", "SMS"],
        &["status"],
        &["route", "--from", "+12223334444"],
        &["send", "--body", "x"],
    ] {
        let ran = bench.smsctl(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
    bench.smsctl(&["requeue", "SM/1", "--channel", "sms"]).failed(2, "--all");
    bench.smsctl(&["send", "--from", "+1", "--body", "x", "--sid", "SM1"]).failed(2, "--sid");
    bench.smsctl(&["send", "--from", "+1", "--body", "x", "--url", "nowhere"]).failed(2, "--url");
    let long = "1".repeat(65);
    bench.smsctl(&["route", "--from", &long, "--body", "x"]).failed(2, "--from");
    bench.smsctl(&["route", "--from", "+1", "--to", "", "--body", "x"]).failed(2, "--to");
}

#[test]
fn a_store_that_is_not_made_yet_is_fine_to_check_and_told_by_the_others() {
    let bench = Bench::without_store();
    assert!(bench.smsctl(&["check"]).fine().out.contains("not made yet"));
    for command in
        [&["stats", "--json"] as &[&str], &["dead", "list"], &["status", ROUTED], &["stats", "--watch"]]
    {
        let ran = bench.smsctl(command).failed(1, "a service makes it at its first start");
        assert_eq!(ran.out, "");
    }
    assert!(!bench.store().exists(), "looking makes nothing");
}

#[test]
fn a_store_that_must_not_be_used_is_told_by_check() {
    let bench = Bench::without_store();
    std::fs::write(bench.store(), "this is a diary").unwrap();
    let ran = bench.smsctl(&["check"]).failed(2, "queue.db is not a queue");
    assert_eq!(ran.out, "");
    bench.smsctl(&["stats"]).failed(1, "must not be used");
    assert_eq!(std::fs::read(bench.store()).unwrap(), b"this is a diary");
}

#[test]
fn a_redis_that_is_gone_or_must_not_be_used_is_told() {
    let mut bench = Bench::with_redis(RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]));
    let ran = bench.smsctl(&["check"]).failed(2, "must not be used");
    assert_eq!(ran.out, "");
    bench.redis.as_mut().unwrap().kill();
    bench.smsctl(&["check"]).failed(2, "unavailable");
    for command in [&["stats", "--json"] as &[&str], &["requeue", "--all", "--yes"], &["status", ROUTED]] {
        let ran = bench.smsctl(command).failed(1, "unavailable");
        assert_eq!(ran.out, "");
        assert!(!ran.err.contains("redis://"), "{}", ran.err);
    }
}

#[test]
fn check_tells_every_fault_of_both_files_with_its_line() {
    let bench = Bench::without_store();
    bench.write_config("capacity = 0\n[retry]\nbase = \"soon\"\n[templates]\nsms = \"{nmae}\"\n");
    bench.write_subscribers("[[subscriber]]\nname = \"A\"\nsms = [\"12\"]\n");
    let ran = bench.smsctl(&["check"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
    let starts = [
        "relay.toml:10: ",
        "relay.toml:12: ",
        "relay.toml:14: ",
        "subscribers.toml:1: ",
        "subscribers.toml:3: ",
    ];
    for start in starts {
        let line = ran.err.lines().find(|line| line.contains(start));
        assert!(line.is_some_and(|line| line.starts_with("error: ")), "{start}: {}", ran.err);
    }
    assert_eq!(ran.err.lines().count(), 5, "{}", ran.err);
    let of_config = bench.smsctl(&["stats"]);
    assert_eq!((of_config.code, of_config.err.lines().count()), (2, 3), "{}", of_config.err);
}

#[test]
fn check_warns_of_a_template_that_costs_a_segment() {
    let bench = Bench::without_store();
    let ran = |template: &str| {
        bench.write_config(&format!("[templates]\nsms = \"{template}\"\n"));
        bench.smsctl(&["check"])
    };
    assert!(ran("{service}: {code} {body}").err.is_empty());
    let ran = ran("\u{1f511} {body}");
    let warned = ran.err;
    assert_eq!(ran.code, 0, "a warning is no fault: {warned}");
    assert!(warned.starts_with("warning: templates.sms: ") && warned.contains("UCS-2"), "{warned}");
}

#[test]
fn check_tells_warnings_and_deadlines_no_record_lasts_for() {
    let bench = Bench::without_store();
    let first = "[[subscriber]]\nname = \"A\"\nfrom = [\"+1222*\"]\nsms = [\"+14443332222\"]\n";
    bench.write_subscribers(first);
    let ran = bench.smsctl(&["check"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 3), "{}", ran.err);
    assert!(ran.err.starts_with("warning: ") && ran.err.contains("subscribers.toml:6: "), "{}", ran.err);
    bench.write_subscribers(&format!("{first}deadline = \"48h\"\n"));
    bench.smsctl(&["check"]).failed(2, "subscribers.toml:5: ");
}

#[test]
fn a_route_is_shown_with_its_texts_and_people_masked() {
    let bench = Bench::without_store();
    let ask = |from: &str, body: &str| {
        let arguments = ["route", "--from", from, "--body", body, "--json"];
        bench.smsctl(&arguments).fine().json()
    };
    let route = ask("+12223334444", "hello <you>");
    assert_fields(&route, &["subscriber", "match", "deadline", "recipients", "recognised"]);
    let head = (&route["subscriber"], &route["match"], &route["deadline"]);
    assert_eq!(head, (&json!("GitHub"), &json!("subscriber"), &json!("10m")));
    let recipients: &Vec<Value> = route["recipients"].as_array().unwrap();
    let sms = json!({
        "channel": "sms",
        "destination": "+1******2222",
        "text": "MFA challenge from GitHub\nhello <you>",
    });
    assert_eq!((recipients.len(), &recipients[0]), (2, &sms));
    assert_eq!(recipients[1]["destination"], "hooks.slack.com/…");
    assert!(recipients[1]["text"].as_str().unwrap().contains("hello &lt;you&gt;"));
    let fallback = ask("72404", "-- hyphens are fine");
    assert_eq!((&fallback["subscriber"], &fallback["match"]), (&json!("Unknown"), &json!("fallback")));
    assert_eq!(fallback["recipients"].as_array().unwrap().len(), 1);
    bench.write_subscribers("[[subscriber]]\nname = \"Noise\"\nto = [\"+15005550009\"]\ndrop = true\n");
    let dropped = ["route", "--from", "x", "--to", "+15005550009", "--body", "", "--json"];
    let dropped = bench.smsctl(&dropped).fine().json();
    assert_eq!((&dropped["match"], &dropped["recipients"]), (&json!("dropped"), &json!([])));
    let page = bench.smsctl(&["route", "--from", "+12223334444", "--body", "hello"]).fine().out;
    assert!(page.contains("\nsms  +1******2222\n  | MFA challenge from GitHub\n  | hello\n"), "{page}");
    assert!(!bench.store().exists());
}

#[test]
fn without_a_number_of_our_own_the_receiver_must_be_named() {
    let bench = Bench::without_store();
    let text = std::fs::read_to_string(bench.config()).unwrap();
    let service = "messaging_service_sid = \"MG0123456789abcdef0123456789abcdef\"";
    let lines = text.lines().map(|line| if line.starts_with("from ") { service } else { line });
    std::fs::write(bench.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    bench.smsctl(&["send", "--from", "72404", "--body", "x"]).failed(2, "--to is needed");
    bench.smsctl(&["route", "--from", "72404", "--body", "x"]).failed(2, "--to is needed");
    bench.smsctl(&["route", "--from", "72404", "--to", "+15005550009", "--body", "x"]).fine();
}

#[tokio::test]
async fn a_letter_whose_text_is_gone_is_skipped() {
    let bench = Bench::beside_service().await;
    let store = rusqlite::Connection::open(bench.store()).unwrap();
    store.execute("UPDATE message SET payload = NULL WHERE id = ?1", [ROUTED]).unwrap();
    let id = format!("{ROUTED}/1");
    let gone = json!({"requeued": 0, "skipped": 1});
    assert_eq!(bench.smsctl(&["requeue", &id, "--dry-run", "--json"]).fine().json(), gone);
    assert_eq!(bench.smsctl(&["requeue", &id, "--json"]).fine().json(), gone);
    let page = bench.smsctl(&["requeue", "--all", "--yes"]).fine().out;
    assert_eq!(page, "Requeued 2 dead letters, skipped 1 (the text is gone).\n");
    let shown = bench.smsctl(&["dead", "show", &id, "--reveal", "--json"]).fine().json();
    assert_eq!((&shown["body"], &shown["from"], &shown["to"]), (&Value::Null, &Value::Null, &Value::Null));
}

#[tokio::test]
async fn watching_goes_on_line_by_line_until_interrupted() {
    let bench = Bench::beside_service().await;
    for json in [false, true] {
        let mut command = bench.command(&["stats", "--watch"]);
        if json {
            command.arg("--json");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        for _ in 0..2 {
            let line = lines.recv_timeout(GUARD).unwrap();
            let expected = if json { "{\"accepted\":3," } else { "accepted=3 duplicates=1 delivered=1 " };
            assert!(line.contains(expected), "{line}");
        }
        let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupt.unwrap().success());
        finish(child).fine();
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let bench = Bench::alone().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(&["dead", "list"]);
    finish(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap()).fine();
}
