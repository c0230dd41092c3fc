//! Sealing with real programs: what a thief finds in the store, and what becomes of messages while keys
//! change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis::Value;
use regex::Regex;
use serde_json::json;
use sms_broadcaster::seal::is_sealed;

use crate::support::installation::{Installation, LOOK, PHONES, Program, RECIPIENTS, SLACK, on_redis, sid};
use crate::support::provider::{Provider, Received, Reply};
use crate::support::redis_server::RedisServer;

const FAST: &str = "[worker]\nlease = \"12s\"\n\n[retry]\nbase = \"100ms\"\n\n\
    [channel.sms]\ntimeout = \"10s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n";
const SENDER: &str = "+12223334444";
const TEXT: &str = "Your code is 493817";

/// What a thief looks for: the text, its code, and the people in it, without what is the same for all numbers.
const SECRETS: [&str; 7] =
    [TEXT, "493817", "2223334444", "5005550006", "2025550147", "2025550169", "/slack/mfa"];

/// Which of the secrets can be read in `bytes`.
fn readable(bytes: &[u8]) -> Vec<&'static str> {
    let is_in = |secret: &&&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    SECRETS.iter().filter(is_in).copied().collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// What can be read in the files of `folder` whose names begin with `name`.
fn readable_in_files(folder: &Path, name: &str) -> Vec<String> {
    let mut paths = Vec::new();
    files(folder, &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let its_name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // A log may be gone between the listing and the reading.
        let Ok(bytes) = fs::read(&path) else { continue };
        if its_name.starts_with(name) {
            found.extend(readable(&bytes).into_iter().map(|secret| format!("{secret} in {its_name}")));
        }
    }
    found
}

/// What can be read in the names and dumps of a server's keys.
fn readable_in_dumps(server: &RedisServer) -> Vec<String> {
    let mut door =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("a server");
    let mut ask = |command: &mut redis::Cmd| command.query::<Value>(&mut door).expect("an answer");
    // Then a dump holds short and long texts alike as they are.
    ask(redis::cmd("CONFIG").arg("SET").arg("rdbcompression").arg("no"));
    let keys: Vec<Vec<u8>> = redis::from_redis_value(ask(redis::cmd("KEYS").arg("*"))).expect("names");
    assert!(keys.len() > 3, "a store that was used");
    let mut found = Vec::new();
    for key in keys {
        let dump: Option<Vec<u8>> =
            redis::from_redis_value(ask(redis::cmd("DUMP").arg(&key))).expect("a dump");
        let bytes = [key.as_slice(), &dump.unwrap_or_default()].concat();
        let name = String::from_utf8_lossy(&key);
        found.extend(readable(&bytes).into_iter().map(|secret| format!("{secret} in {name}")));
    }
    found
}

fn delivered_to(requests: &[Received], destination: &str) -> bool {
    requests.iter().any(|request| {
        request.destination == destination && request.accepted() && request.text().contains(TEXT)
    })
}

fn ended(channel: &str, state: &str, number: u32) -> String {
    format!("sms_broadcaster_deliveries_total{{channel=\"{channel}\",state=\"{state}\"}} {number}")
}

/// One text is in every state at once: Slack has it, one phone refused it, the other is being tried.
async fn one_of_each(provider: &Provider, installation: &Installation, program: &Program, number: u32) {
    provider.always(PHONES[0], Reply::twilio_error(400, 21211));
    provider.script(PHONES[1], [Reply::ok().delayed(Duration::from_secs(600))]);
    assert_eq!(installation.post(program.ingress, &sid(number), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(program, &ended("slack", "delivered", number)).await;
    installation.wait_for_metric(program, &ended("sms", "dead", number)).await;
    let on_its_way = |requests: &[Received]| requests.iter().any(|request| request.destination == PHONES[1]);
    provider.wait_until("the other phone is being tried", on_its_way).await;
}

/// Waits until `look` finds nothing.
async fn wait_until_gone(what: &str, look: impl Fn() -> Vec<String>) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let found = look();
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what}: {found:?}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn with_keys_a_stolen_redis_shows_no_text_and_nobody_whatever_state_they_are_in() {
    let (provider, server) = (Provider::start(), RedisServer::start());
    let mut installation = Installation::redis(&provider, &server.url(), FAST);
    installation.seal_with(&["k1"]);
    let program = installation.start("sms-broadcaster").await;
    one_of_each(&provider, &installation, &program, 1).await;
    assert_eq!(readable_in_dumps(&server), Vec::<String>::new());
    assert_eq!(readable_in_files(server.folder(), ""), Vec::<String>::new(), "nor do its files");
    // Who has the keys sees them masked.
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    assert_eq!(letters[0]["destination"], "+1******0147");
    assert_eq!(readable(letters.to_string().as_bytes()), Vec::<&str>::new());
    let id = letters[0]["id"].as_str().expect("an id").to_owned();
    let revealed = installation.smsctl_json(&["dead", "show", &id, "--reveal", "--json"]);
    assert_eq!((&revealed["body"], &revealed["from"]), (&json!(TEXT), &json!(SENDER)));
    installation.seal_with(&["other"]);
    let revealed = installation.smsctl_json(&["dead", "show", &id, "--reveal", "--json"]);
    assert_eq!((&revealed["body"], &revealed["destination"]), (&json!(null), &json!(null)));
}

/// What may stand in a store on Redis with keys, by the name of the key, the field and the value. Whatever else
/// turns up has to be told in SECURITY.md first, and then here.
const VISIBLE: &[(&str, &str, &str)] = &[
    // A message: when, how many, of which subscriber; its pieces, where they are, how they ended.
    ("m:ID", "acc|left|n|lt|gone", "N"),
    ("m:ID", "sub", "Example"),
    ("m:ID", r"s\d+", r"[PSDXE](\|[a-z0-9-]*)+"),
    ("m:ID", r"r\d+", "LANE\\|NAME\\|sealed:[A-Za-z0-9+/]+"),
    ("m:ID", r"x\d+", "[a-z]+\\|N"),
    ("m:ID", r"ct|rc\d+", "SEALED"),
    ("m:ID", r"h\d+", "HISTORY"),
    // The lanes: ids of messages, and destinations by their keyed names.
    ("in|rdy:LANE", "m", "ID"),
    ("in|rdy:LANE", "i|w", "N"),
    ("due:LANE", "", "ID\\|N"),
    ("park:LANE", "", "NAME\\|N\\|ID\\|N"),
    ("(wake|held):LANE", "", "NAME"),
    ("rl:LANE(:NAME)?", "", "N"),
    ("dl", "", "ID"),
    ("dead:[a-z]+", "", "ID\\|N"),
    ("lanes", "", "LANE"),
    // Programs by the names of their hosts, and counts.
    ("wk", "", "[A-Za-z0-9.-]+-[0-9a-f]{8}"),
    ("stat", "[A-Za-z]+", "-?N"),
];

fn whole(pattern: &str) -> Regex {
    let spelled = pattern
        .replace("ID", "SM[0-9a-f]{32}")
        .replace("LANE", "(in|sms|slack)")
        .replace("NAME", "[0-9a-f]{24}")
        .replace('N', r"\d+");
    Regex::new(&format!("^({spelled})$")).expect("a pattern")
}

/// Whether a value is of a form: a pattern, or `SEALED`, or `HISTORY`: attempts, one line of JSON each.
fn is_of(form: &str, value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    match form {
        "SEALED" => is_sealed(value),
        "HISTORY" => text.lines().all(|line| {
            let attempt: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).expect("JSON");
            let known = ["at", "outcome", "reason", "status", "code", "ambiguous"];
            attempt.keys().all(|key| known.contains(&key.as_str()))
        }),
        pattern => whole(pattern).is_match(&text),
    }
}

/// Every value of a server: the key's name without the shard's prefix, the field, the value.
fn contents(server: &RedisServer) -> Vec<(String, String, Vec<u8>)> {
    let mut door =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("a server");
    let mut ask = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query::<Value>(&mut door).expect("an answer")
    };
    let keys: Vec<String> = redis::from_redis_value(ask(&["KEYS", "*"])).expect("names");
    let mut found = Vec::new();
    for key in keys {
        let name = key.strip_prefix("sq1:{0}:").expect("our prefix").to_owned();
        let kind: String = redis::from_redis_value(ask(&["TYPE", &key])).expect("a type");
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        let plain = |value: Value| redis::from_redis_value::<Vec<Vec<u8>>>(value).expect("values");
        match kind.as_str() {
            "hash" => pairs = redis::from_redis_value(ask(&["HGETALL", &key])).expect("fields"),
            "stream" => {
                type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;
                let entries: Entries =
                    redis::from_redis_value(ask(&["XRANGE", &key, "-", "+"])).expect("entries");
                pairs.extend(entries.into_iter().flat_map(|(_, fields)| fields));
            }
            "zset" => {
                pairs.extend(plain(ask(&["ZRANGE", &key, "0", "-1"])).into_iter().map(|m| (String::new(), m)))
            }
            "set" => pairs.extend(plain(ask(&["SMEMBERS", &key])).into_iter().map(|m| (String::new(), m))),
            "string" => {
                pairs.push((String::new(), redis::from_redis_value(ask(&["GET", &key])).expect("a value")))
            }
            other => panic!("{key} is a {other}"),
        }
        found.extend(pairs.into_iter().map(|(field, value)| (name.clone(), field, value)));
    }
    found
}

#[tokio::test]
async fn with_keys_a_stolen_redis_shows_what_is_told_in_security_md_and_nothing_more() {
    let (provider, server) = (Provider::start(), RedisServer::start());
    // With rates, so that there are names of destinations in every place where there can be.
    let rated = FAST
        .replace("rate = \"off\"", "rate = \"100/m\"")
        .replace("rate_per_destination = \"off\"", "rate_per_destination = \"1/m\"");
    let mut installation = Installation::redis(&provider, &server.url(), &rated);
    installation.seal_with(&["k1"]);
    let program = installation.start("sms-broadcaster").await;
    one_of_each(&provider, &installation, &program, 1).await;
    provider.always(SLACK, Reply::too_many("60"));
    for number in 2..=6 {
        assert_eq!(installation.post(program.ingress, &sid(number), SENDER, TEXT).await, Some(200));
    }
    let is_paused = "sms_broadcaster_channel_paused{channel=\"slack\"} 1";
    installation.wait_for_metric(&program, is_paused).await;
    installation
        .wait_for_metric(&program, "sms_broadcaster_queue_depth{channel=\"in\",state=\"ready\"} 0")
        .await;

    let mut met = vec![false; VISIBLE.len()];
    for (key, field, value) in contents(&server) {
        let of = VISIBLE.iter().position(|(of_key, of_field, form)| {
            whole(of_key).is_match(&key) && whole(of_field).is_match(&field) && is_of(form, &value)
        });
        match of {
            Some(of) => met[of] = true,
            None => {
                panic!("{key} {field} holds {:?}, of which nobody was told", String::from_utf8_lossy(&value))
            }
        }
    }
    let (wanted, seen) = (["m:ID", "park:LANE", "(wake|held):LANE", "dead:[a-z]+", "wk"], met);
    for name in wanted {
        let is_met = VISIBLE.iter().zip(&seen).any(|((key, _, _), met)| *key == name && *met);
        assert!(is_met, "{name} was not there to be looked at");
    }
}

#[tokio::test]
async fn with_keys_a_stolen_disk_shows_no_text_and_nobody_whatever_state_they_are_in() {
    let provider = Provider::start();
    let mut installation = Installation::embedded(&provider, FAST);
    installation.seal_with(&["k1"]);
    let program = installation.start("sms-broadcaster").await;
    one_of_each(&provider, &installation, &program, 1).await;
    assert_eq!(readable_in_files(installation.folder(), "queue.db"), Vec::<String>::new());
}

#[tokio::test]
async fn with_keys_a_stolen_spool_shows_no_text_and_what_was_in_it_is_delivered() {
    let (provider, mut server) = (Provider::start(), RedisServer::start());
    let queue = format!("{}\nspool = \"spool\"", on_redis(&server.url()));
    let mut installation = Installation::with_queue(&provider, &queue, FAST);
    let mut program = installation.start("sms-ingress").await;
    server.kill();
    let look = || readable_in_files(installation.folder(), "spool.db");
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    assert!(look().len() >= 3, "the search would find it");
    program.kill();
    std::fs::remove_dir_all(installation.folder().join("spool")).expect("it is there");

    installation.seal_with(&["k1"]);
    let program = installation.start("sms-ingress").await;
    assert_eq!(installation.post(program.ingress, &sid(2), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, "sms_broadcaster_spool_messages 1").await;
    assert_eq!(readable_in_files(installation.folder(), "spool.db"), Vec::<String>::new());
    server.restart();
    let worker = installation.start("sms-worker").await;
    installation.wait_for_metric(&worker, &ended("sms", "delivered", 2)).await;
}

#[tokio::test]
async fn without_keys_a_text_is_gone_from_redis_when_its_last_recipient_has_it() {
    let (provider, server) = (Provider::start(), RedisServer::start());
    let installation = Installation::redis(&provider, &server.url(), FAST);
    provider.always(PHONES[1], Reply::too_many("1"));
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, &ended("slack", "delivered", 1)).await;
    assert!(readable_in_dumps(&server).len() >= 3, "the search would find it");
    provider.always(PHONES[1], Reply::ok());
    installation.wait_for_metric(&program, &ended("sms", "delivered", 2)).await;
    assert_eq!(readable_in_dumps(&server), Vec::<String>::new());
}

#[tokio::test]
async fn without_keys_a_text_is_gone_from_the_disk_soon_after_its_last_recipient_has_it() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, FAST);
    let look = || readable_in_files(installation.folder(), "queue.db");
    let program = installation.start("sms-broadcaster").await;
    for number in 1..=2 {
        provider.always(PHONES[1], Reply::too_many("1"));
        assert_eq!(installation.post(program.ingress, &sid(number), SENDER, TEXT).await, Some(200));
        installation.wait_for_metric(&program, &ended("slack", "delivered", number)).await;
        assert!(look().len() >= 3, "the search would find it");
        provider.always(PHONES[1], Reply::ok());
        installation.wait_for_metric(&program, &ended("sms", "delivered", 2 * number)).await;
        wait_until_gone("still on the disk", look).await;
    }
}

#[tokio::test]
async fn a_worker_without_the_key_loses_nothing_and_a_requeue_delivers_once_it_has_it() {
    let (provider, server) = (Provider::start(), RedisServer::start());
    let mut installation = Installation::redis(&provider, &server.url(), FAST);
    installation.seal_with(&["old"]);
    let mut without = installation.start("sms-worker").await;
    installation.seal_with(&["new", "old"]);
    let ingress = installation.start("sms-ingress").await;
    assert_eq!(installation.post(ingress.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&without, &ended("in", "dead", 1)).await;
    assert!(provider.requests().is_empty());
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    for (field, value) in [
        ("cause", json!("undecryptable")),
        ("destination", json!(null)),
        ("last_error", json!("unreadable, code no_key:new")),
    ] {
        assert_eq!(letters[0][field], value, "{field}");
    }
    assert_eq!(without.stop(), Some(0));

    let with = installation.start("sms-worker").await;
    let id = format!("{}/0", sid(1));
    let requeued = installation.smsctl_json(&["requeue", &id, "--json"]);
    assert_eq!(requeued, json!({"requeued": 1, "skipped": 0}));
    let everywhere =
        |requests: &[Received]| RECIPIENTS.iter().all(|destination| delivered_to(requests, destination));
    provider.wait_until("everybody has it", everywhere).await;
    installation.wait_for_metric(&with, &ended("sms", "delivered", 2)).await;
    installation.wait_for_metric(&with, "sms_broadcaster_conservation_error 0").await;
    assert_eq!(provider.requests().len(), 3, "once each");
}

/// Changes fields of the only message's record, as whoever may write to Redis could.
fn tamper(server: &RedisServer, number: u32, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let mut door =
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("a server");
    let record = format!("sq1:{{0}}:m:{}", sid(number));
    let fields: Vec<(String, Vec<u8>)> =
        redis::cmd("HGETALL").arg(&record).query(&mut door).expect("a record");
    for (field, value) in fields {
        if let Some(new) = change(&field, value) {
            redis::cmd("HSET").arg(&record).arg(&field).arg(new).exec(&mut door).expect("a record");
        }
    }
}

#[tokio::test]
async fn whoever_may_write_to_the_store_cannot_send_a_sealed_text_to_themselves_or_keep_it_from_others() {
    const THIEF: &str = "+19995550100";
    let (provider, server) = (Provider::start(), RedisServer::start());
    for phone in PHONES {
        provider.always(phone, Reply::too_many("1"));
    }
    let mut installation = Installation::redis(&provider, &server.url(), FAST);
    installation.seal_with(&["k1"]);
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    provider.wait_until("both phones were tried", |requests| requests.len() >= 3).await;

    // One recipient is replaced by another, unsealed; a bit of the other is turned.
    tamper(&server, 1, |field, mut value| match field {
        "rc1" => Some(format!("{{\"channel\":\"sms\",\"to\":\"{THIEF}\"}}").into_bytes()),
        "rc2" => {
            value[40] ^= 1;
            Some(value)
        }
        _ => None,
    });
    for phone in PHONES {
        provider.always(phone, Reply::ok());
    }
    let both = |requests: &[Received]| PHONES.iter().all(|phone| delivered_to(requests, phone));
    provider.wait_until("both phones have it", both).await;
    installation.wait_for_metric(&program, &ended("sms", "delivered", 2)).await;
    for phone in PHONES {
        let accepted = provider.received(phone).iter().filter(|request| request.accepted()).count();
        assert_eq!(accepted, 1, "{phone}");
    }
    assert!(provider.received(THIEF).is_empty(), "by the route alone");

    // A message that was changed is sent to nobody.
    for phone in PHONES {
        provider.always(phone, Reply::too_many("1"));
    }
    let before = provider.requests().len();
    assert_eq!(installation.post(program.ingress, &sid(2), SENDER, TEXT).await, Some(200));
    provider.wait_until("both phones were tried", |requests| requests.len() >= before + 3).await;
    tamper(&server, 2, |field, mut value| {
        (field == "ct").then(|| {
            *value.last_mut().expect("not empty") ^= 1;
            value
        })
    });
    installation.wait_for_metric(&program, &ended("sms", "dead", 2)).await;
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    assert_eq!(letters[0]["last_error"], "unreadable, code broken_seal");
    assert_eq!(letters[1]["cause"], "undecryptable");
}

#[tokio::test]
async fn keys_are_changed_under_pending_work_and_nothing_is_lost() {
    let provider = Provider::start();
    for phone in PHONES {
        provider.script(phone, [Reply::too_many("2")]);
    }
    let mut installation = Installation::embedded(&provider, FAST);
    installation.seal_with(&["old"]);
    let mut program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    provider.wait_until("both phones were tried", |requests| requests.len() == 3).await;
    assert_eq!(program.stop(), Some(0));
    assert!(!delivered_to(&provider.requests(), PHONES[0]));

    installation.seal_with(&["new", "old"]);
    let mut program = installation.start("sms-broadcaster").await;
    installation.wait_for_metric(&program, &ended("sms", "delivered", 2)).await;
    assert_eq!(program.stop(), Some(0));
    installation.seal_with(&["new"]);
    let program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(2), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, &ended("sms", "delivered", 2)).await;
    assert_eq!(provider.requests().len(), 8);
}

#[tokio::test]
async fn a_service_without_keys_says_so_once() {
    const WARNING: &str = "queue.encryption_keys is not set";
    let provider = Provider::start();
    let mut installation = Installation::embedded(&provider, FAST);
    for expected in [1, 0] {
        let mut program = installation.start("sms-broadcaster").await;
        assert_eq!(program.stop(), Some(0));
        // Its last words are read a moment after its end.
        wait_until_gone("no word about the drain", || {
            let has_ended = program.log().iter().any(|line| line.contains("draining"));
            if has_ended { Vec::new() } else { program.log() }
        })
        .await;
        let warnings = program.log().iter().filter(|line| line.contains(WARNING)).count();
        assert_eq!(warnings, expected, "{:?}", program.log());
        installation.seal_with(&["k1"]);
    }
}
