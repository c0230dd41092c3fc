//! Nothing tells a secret: every way to fail is gone by real programs at their most talkative, and then all
//! they wrote, count and answer is searched.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::support::installation::{Installation, LOOK, PHONES, Program, SLACK, on_redis, sid};
use crate::support::provider::{AUTH_TOKEN, Provider, Reply};
use crate::support::redis_server::RedisServer;
use crate::support::wire;

const FAST: &str = "[worker]\nlease = \"2s\"\n\n[retry]\nbase = \"50ms\"\ncap = \"100ms\"\nmax_attempts = 2\n\n\
    [channel.sms]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\ntimeout = \"1s\"\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [templates]\nsms = \"{code} of {service}: {body}\"\nslack = \"{code}, {expires_in}: {body}\"\n\n";

const SENDER: &str = "+12223334444";

/// The password of the Redis server.
const REDIS_PASSWORD: &str = "redis-password-in-the-url";

/// What no output may hold, whoever said it first: numbers without what is the same for all, addresses,
/// tokens, keys.
const SECRETS: [&str; 8] = [
    "2223334444",
    "5005550006",
    "2025550147",
    "2025550169",
    "/slack/mfa",
    AUTH_TOKEN,
    REDIS_PASSWORD,
    "azEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// The text of the message `number`, and its code as it is written there: digits, digits in groups, letters.
/// Every message has its own, so that what is found tells where.
fn text(number: u32) -> (String, String) {
    let digits = format!("{}", 730_019 + 1_733 * number);
    let code = match number % 3 {
        0 => digits,
        1 => format!("{}-{}", &digits[..3], &digits[3..]),
        _ => digits.bytes().map(|digit| char::from(b'Q' - (digit - b'0'))).collect(),
    };
    (format!("Your Example code is {code}, not for others"), code)
}

/// What tells the message `number`: its text, its code however it is spelled, the halves of one of letters (those of
/// one of digits are in any time), and the hashes that anybody could try all codes against.
fn tales(number: u32) -> Vec<String> {
    let (text, code) = text(number);
    let typed = code.replace('-', "");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut tales = vec![hex(&Sha256::digest(&typed)), hex(&Sha1::digest(&typed))];
    if typed.starts_with(char::is_alphabetic) {
        tales.extend([typed[..4].to_owned(), typed[2..].to_owned(), typed.to_lowercase()]);
    }
    tales.extend([text, code, typed]);
    tales
}

/// Everything that was said, by whom.
struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, by: impl Into<String>, what: impl Into<String>) {
        self.0.push((by.into(), what.into()));
    }

    fn log(&mut self, by: &str, program: &Program) {
        self.add(by, program.log().join("\n"));
    }

    fn smsctl(&mut self, installation: &Installation, arguments: &[&str]) {
        let output = installation.smsctl(arguments);
        let both = [output.stdout, output.stderr].concat();
        self.add(format!("smsctl {arguments:?}"), String::from_utf8_lossy(&both));
    }

    /// Which of the texts up to `messages` and of the secrets can be read where.
    fn secrets(&self, messages: u32) -> Vec<String> {
        let mut wanted: Vec<String> = SECRETS.iter().map(|secret| (*secret).to_owned()).collect();
        wanted.extend((0..messages).flat_map(tales));
        let mut found = Vec::new();
        for (by, what) in &self.0 {
            for secret in wanted.iter().filter(|secret| what.contains(secret.as_str())) {
                let line = what.lines().find(|line| line.contains(secret.as_str())).unwrap_or("(over lines)");
                found.push(format!("{secret} from {by}: {line}"));
            }
        }
        found
    }
}

/// One way a destination can answer for each, all telling what they were told.
fn ways_to_fail(echo: &str) -> Vec<Reply> {
    let say = |status| Reply::status(status).body(echo);
    vec![
        say(200),
        say(400).header("Content-Type", "application/json"),
        Reply::twilio_error(400, 21211),
        say(401),
        say(404),
        say(500),
        say(503).header("Retry-After", echo),
        Reply::status(302).header("Location", &format!("http://127.0.0.1:9/{echo}")),
        say(429).header("Retry-After", "0"),
        Reply::hang(),
        Reply::close(),
        say(201).then_close(),
        say(201).then_hang(),
    ]
}

/// What the ingress refuses, with everything in it that must not be told.
async fn refuse_much(installation: &Installation, program: &Program, number: u32) {
    let address = ([127, 0, 0, 1], program.ingress).into();
    let (text, _) = text(number);
    let body = format!("MessageSid={}&From=%2B12223334444&To=%2B15005550006&Body={text}", sid(number))
        .replace(' ', "+");
    let form = "Content-Type: application/x-www-form-urlencoded";
    for head in [
        format!("POST /twilio/sms HTTP/1.1\r\nHost: x\r\n{form}\r\nX-Twilio-Signature: {AUTH_TOKEN}\r\n"),
        format!("POST /twilio/sms HTTP/1.1\r\nHost: x\r\n{form}\r\n"),
        "POST /twilio/sms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Twilio-Signature: x\r\n"
            .to_owned(),
        format!("POST /nowhere/{} HTTP/1.1\r\nHost: x\r\n", &body["MessageSid=".len()..]),
        format!("DELETE /?{body} HTTP/1.1\r\nHost: x\r\n"),
        format!("NONSENSE {body}\r\n"),
    ] {
        let request = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        wire::ask(address, request).await;
    }
    let long = format!("{text} ").repeat(10_000);
    assert_eq!(installation.post(program.ingress, &sid(number), SENDER, &long).await, Some(413));
    // Signed, and wrong all the same.
    assert_eq!(installation.post(program.ingress, &text, SENDER, &text).await, Some(400));
    assert_eq!(installation.post(program.ingress, &sid(number), &text.repeat(3), &text).await, Some(400));
}

/// Waits until nothing is pending.
async fn until_at_rest(installation: &Installation) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let stats = installation.smsctl_json(&["stats", "--json"]);
        if stats["deliveries"]["pending"] == 0 {
            return;
        }
        assert!(Instant::now() < end, "{stats}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Goes every way, and returns how many messages there were.
async fn go_wrong(installation: &Installation, provider: &Provider, programs: &[&Program]) -> u32 {
    let door = programs[0].ingress;
    let mut number = 0;
    let ways = ways_to_fail("").len();
    for way in 0..ways {
        let (text, _) = text(number);
        let echo = format!("{text} {SENDER} {} {AUTH_TOKEN}", PHONES.join(" "));
        for destination in [PHONES[0], SLACK] {
            provider.script(
                destination,
                [ways_to_fail(&echo).swap_remove(way), ways_to_fail(&echo).swap_remove(way)],
            );
        }
        assert_eq!(installation.post(door, &sid(number), SENDER, &text).await, Some(200));
        // Again, and by a sender nobody knows.
        assert_eq!(installation.post(door, &sid(number), SENDER, &text).await, Some(200));
        until_at_rest(installation).await;
        number += 1;
    }
    // One of our own numbers: a loop.
    assert_eq!(installation.post(door, &sid(number), "+15005550006", &text(number).0).await, Some(200));
    refuse_much(installation, programs[0], number).await;
    number + 1
}

/// Everything the operator can ask for, but what reveals on purpose.
fn ask_everything(said: &mut Said, installation: &Installation) {
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    let letters = letters.as_array().expect("letters").clone();
    assert!(letters.len() > 10, "many ways to fail end in a letter: {letters:?}");
    for letter in &letters {
        let id = letter["id"].as_str().expect("an id");
        for arguments in [vec!["dead", "show", id], vec!["dead", "show", id, "--json"]] {
            said.smsctl(installation, &arguments);
        }
        let message = letter["message_id"].as_str().expect("an id");
        said.smsctl(installation, &["status", message]);
        said.smsctl(installation, &["status", message, "--json"]);
    }
    for arguments in [
        vec!["dead", "list"],
        vec!["dead", "list", "--json"],
        vec!["stats"],
        vec!["stats", "--json"],
        vec!["check"],
        vec!["dead", "requeue", "--all", "--dry-run"],
        vec!["dead", "show", "SM00/1"],
        vec!["status", "SM00"],
        vec!["dead", "requeue", "--all", "--yes", "--json"],
    ] {
        said.smsctl(installation, &arguments);
    }
}

async fn metrics(said: &mut Said, installation: &Installation, by: &str, program: &Program) {
    for path in ["metrics", "readyz", "healthz", "nowhere"] {
        let answer = installation.ops(program, path).await.expect("an answer").1;
        said.add(format!("/{path} of {by}"), answer);
    }
}

/// A faulty subscribers file, full of secrets, and the right one again.
async fn reload(installation: &Installation, program: &Program) {
    let path = installation.folder().join("subscribers.toml");
    let good = fs::read_to_string(&path).expect("a file");
    let bad =
        good.replace("\"+12025550147\"", "\"+12025550147 \", \"2025550169\"").replace("from = ", "form = ");
    installation.write_subscribers(&format!("{bad}\nslack = [\"ftp://127.0.0.1/slack/mfa\"\n"));
    installation.wait_for_metric(program, "sms_broadcaster_config_reload_success 0").await;
    installation.write_subscribers(&bad);
    program.signal("HUP");
    installation.write_subscribers(&good);
    installation.wait_for_metric(program, "sms_broadcaster_config_reload_success 1").await;
}

fn most_talkative(format: &str) -> String {
    format!("{FAST}[log]\nformat = \"{format}\"\nlevel = \"trace\"\n")
}

#[tokio::test]
async fn the_embedded_service_tells_no_secret_whatever_goes_wrong() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, &most_talkative("text"));
    let mut service = installation.start("sms-broadcaster").await;
    let messages = go_wrong(&installation, &provider, &[&service]).await;
    reload(&installation, &service).await;
    let mut said = Said(Vec::new());
    ask_everything(&mut said, &installation);
    until_at_rest(&installation).await;
    metrics(&mut said, &installation, "the service", &service).await;
    // One more in hand when it is killed, and the next finds it.
    provider.script(PHONES[0], [Reply::hang()]);
    assert_eq!(installation.post(service.ingress, &sid(99), SENDER, &text(messages).0).await, Some(200));
    service.kill();
    said.log("the service", &service);
    let mut next = installation.start("sms-broadcaster").await;
    until_at_rest(&installation).await;
    assert_eq!(next.stop(), Some(0));
    said.log("the next service", &next);
    assert_eq!(said.secrets(messages + 1), Vec::<String>::new());
}

#[tokio::test]
async fn ingress_and_worker_tell_no_secret_whatever_goes_wrong() {
    let provider = Provider::start();
    let rule = format!(">{REDIS_PASSWORD}");
    let mut server = RedisServer::start_with(&["--user", "relay", "on", &rule, "~*", "&*", "+@all"]);
    let url = server.url().replace("redis://", &format!("redis://relay:{REDIS_PASSWORD}@"));
    let mut installation = Installation::redis(&provider, &url, &most_talkative("json"));
    installation.seal_with(&["k1"]);
    let mut ingress = installation.start("sms-ingress").await;
    let mut worker = installation.start("sms-worker").await;
    let mut messages = go_wrong(&installation, &provider, &[&ingress, &worker]).await;
    reload(&installation, &worker).await;
    let mut said = Said(Vec::new());
    ask_everything(&mut said, &installation);
    // A wrong password, and no server at all.
    let wrong = on_redis(&url.replace(REDIS_PASSWORD, &format!("{REDIS_PASSWORD}-not")));
    let mut stranger = installation.program("sms-worker").queue(&wrong).spawn();
    installation.wait_for_readiness(&mut stranger, 503).await;
    server.kill();
    let (text, _) = text(messages);
    messages += 1;
    assert_eq!(installation.post(ingress.ingress, &sid(98), SENDER, &text).await, Some(503));
    said.smsctl(&installation, &["stats"]);
    said.smsctl(&installation, &["check"]);
    server.restart();
    installation.wait_for_readiness(&mut ingress, 200).await;
    installation.wait_for_readiness(&mut worker, 200).await;
    until_at_rest(&installation).await;
    metrics(&mut said, &installation, "the ingress", &ingress).await;
    metrics(&mut said, &installation, "the worker", &worker).await;
    assert_eq!((ingress.stop(), worker.stop()), (Some(0), Some(0)));
    for (by, program) in [("the ingress", &ingress), ("the worker", &worker), ("the stranger", &stranger)] {
        said.log(by, program);
        for line in program.log() {
            assert!(serde_json::from_str::<Value>(&line).is_ok(), "not JSON: {line}");
        }
    }
    assert_eq!(said.secrets(messages), Vec::<String>::new());
}
