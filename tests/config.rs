//! The configuration file: its defaults, its faults with their lines, and what it never shows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret;
use sms_broadcaster::channel::sms::SmsSender;
use sms_broadcaster::config::{CONFIG_VARIABLE, Config, FILE_NAME, LogFormat, QueueChoice, find};
use sms_broadcaster::delivery::ChannelId;
use sms_broadcaster::document::Fault;
use sms_broadcaster::ingress::LoopGuard;
use sms_broadcaster::message::Address;
use sms_broadcaster::queue::contract::Rate;
use sms_broadcaster::queue::redis::Durability;
use sms_broadcaster::retry::RetryPolicy;
use sms_broadcaster::seal::{KeyId, SealingKey};
use sms_broadcaster::subscribers::Subscribers;

const SID: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "f00df00df00df00df00df00df00df00d";
const PHONE: &str = "+15005550006";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "TWILIO_SID" => SID,
        "TWILIO_AUTH_TOKEN" => TOKEN,
        "MFA_FROM_PHONE" => PHONE,
        "MFA_SLACK_WEBHOOK" => "https://hooks.slack.com/services/T000/B000/webhooksecret",
        "REDIS_URL" => "redis://relay:redissecret@10.1.2.3:6379/4",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    Config::parse(text, Path::new("/conf/c.toml"), &env)
}

/// The least that a configuration must say.
fn minimal() -> String {
    "[ingress]\n\
     public_url = \"https://mfa.example.com\"\n\
     [twilio]\n\
     account_sid = \"${TWILIO_SID}\"\n\
     auth_tokens = [\"${TWILIO_AUTH_TOKEN}\"]\n\
     from = \"${MFA_FROM_PHONE}\"\n"
        .to_owned()
}

/// The minimal configuration without the lines that start with `key`, then `more`.
fn without(key: &str, more: &str) -> String {
    let kept: Vec<String> =
        minimal().lines().filter(|line| !line.starts_with(key)).map(str::to_owned).collect();
    kept.join("\n") + "\n" + more
}

fn told(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// Asserts that `text` has exactly one fault, at `line`, whose message holds `part`.
fn assert_one_fault(text: &str, line: usize, part: &str) {
    let faults = parse(text).expect_err(&format!("no fault in:\n{text}"));
    let told = told(&faults);
    assert_eq!(faults.len(), 1, "{told:?} in:\n{text}");
    assert_eq!((faults[0].line, faults[0].file.as_str()), (line, "/conf/c.toml"), "{told:?} in:\n{text}");
    assert!(faults[0].message.contains(part), "{part:?} is not in {told:?}");
}

/// The same for one section put after the six minimal lines: line 7 is its header.
fn assert_one_fault_in(section: &str, line: usize, part: &str) {
    assert_one_fault(&(minimal() + section), line, part);
}

#[test]
fn what_is_not_said_is_the_default_of_the_contract() {
    let config = parse(&minimal()).unwrap();
    assert_eq!(config.subscribers, PathBuf::from("/conf/subscribers.toml"));
    assert_eq!(config.ingress.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ingress.max_body, 65_536);
    assert_eq!(config.ingress.rate_per_ip, Some(Rate { interval: Duration::from_millis(20), burst: 50 }));
    assert!(config.ingress.trusted_proxies.is_empty());
    assert_eq!(config.ingress.loop_guard, LoopGuard::against([Address::parse(PHONE).unwrap()]));
    assert_eq!(config.ingress.deadline, Duration::from_secs(600));
    assert_eq!(config.ops_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.twilio.public_url.as_written(), "https://mfa.example.com");
    assert_eq!(config.twilio.account_sid.as_str(), SID);
    assert_eq!(config.sms.api_base, "https://api.twilio.com");
    assert_eq!((config.sms.user.as_str(), config.sms.password.expose_secret()), (SID, TOKEN));
    assert_eq!(config.sms.sender, SmsSender::From(Address::parse(PHONE).expect("a number")));
    let QueueChoice::Embedded { path } = &config.queue else { panic!("{:?}", config.queue) };
    assert_eq!(path, &PathBuf::from("/conf/data/queue.db"));
    assert_eq!(config.queue_settings.lease, Duration::from_secs(15));
    assert_eq!(config.queue_settings.retention, Duration::from_secs(86_400));
    assert_eq!(config.queue_settings.capacity, 1_000_000);
    assert_eq!(config.worker.concurrency, 64);
    assert_eq!(config.worker.lease, Duration::from_secs(15));
    assert_eq!(config.worker.drain, Duration::from_secs(25));
    assert_eq!(config.worker.deadline, Duration::from_secs(600));
    let policy = RetryPolicy {
        base: Duration::from_secs(1),
        factor: 2.0,
        cap: Duration::from_secs(30),
        max_attempts: 8,
    };
    assert_eq!(config.retry, policy);
    assert_eq!(config.channels.len(), 2);
    for plan in config.channels.values() {
        assert_eq!(plan.timeout, Duration::from_secs(10));
        assert_eq!(plan.limits.lane, Some(Rate { interval: Duration::from_millis(100), burst: 10 }));
        assert_eq!(plan.limits.destination, Some(Rate { interval: Duration::from_secs(1), burst: 3 }));
    }
    assert_eq!(
        (config.sms.timeout, config.slack.timeout),
        (Duration::from_secs(10), Duration::from_secs(10))
    );
    assert_eq!(config.templates[&ChannelId::sms()], "MFA challenge from {name}\n{body}");
    assert_eq!(
        config.templates[&ChannelId::slack()],
        "*New MFA challenge*\n From: {name}\n\n```\n{body}\n```"
    );
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, tracing::Level::INFO));
    assert!(config.telemetry.collector.is_none());
    assert!((config.telemetry.sample_ratio - 1.0).abs() < f64::EPSILON);
    assert_eq!(config.destination_secret(), TOKEN.as_bytes());
}

/// The keys of a TOML text as `section.key`.
fn keys(text: &str) -> Vec<String> {
    fn walk(table: &toml::Table, path: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => walk(inner, &format!("{path}{key}."), keys),
                _ => keys.push(format!("{path}{key}")),
            }
        }
    }
    let mut keys = Vec::new();
    walk(&text.parse().unwrap(), "", &mut keys);
    keys
}

#[test]
fn the_example_file_says_every_key_and_nothing_but_defaults() {
    let example = include_str!("../deploy/sms-broadcaster.example.toml");
    let said = parse(example).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
    let effective = parse(&minimal()).unwrap().masked();
    assert_eq!(said.masked(), effective);
    let shown = keys(example);
    for key in keys(&effective) {
        assert!(shown.contains(&key), "{key} is not in the example");
    }

    // What is commented out can be put in, and is the default too where it has one.
    let redis = example
        .replace("backend = \"embedded\"", "backend = \"redis\"")
        .replace("# url = \"redis:", "url = \"redis:")
        .replace("# api_key_sid = \"SK...\"", &format!("api_key_sid = \"SK{}\"", &SID[2..]))
        .replace("# api_key_secret = \"${TWILIO_API_KEY_SECRET}\"", "api_key_secret = \"x\"")
        .replace("# otlp_endpoint = ", "otlp_endpoint = ")
        .replace("from = \"${MFA_FROM_PHONE}\"", "# from =")
        .replace(
            "# messaging_service_sid = \"MG...\"",
            &format!("messaging_service_sid = \"MG{}\"", &SID[2..]),
        );
    let redis = parse(&redis).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
    let default = parse(&(minimal() + "[queue]\nbackend = \"redis\"")).unwrap();
    let url = |config: &Config| match &config.queue {
        QueueChoice::Redis(redis) => redis.url.expose_secret().to_owned(),
        QueueChoice::Embedded { .. } => panic!("not Redis"),
    };
    assert_eq!(url(&redis), url(&default));
    assert_eq!(redis.sms.sender, SmsSender::Service(format!("MG{}", &SID[2..])));
    assert_eq!(redis.ingress.loop_guard, LoopGuard::against([]));
    assert_eq!(redis.sms.password.expose_secret(), "x");
    let collector = redis.telemetry.collector.expect("a collector");
    assert_eq!(collector.base.as_str(), "http://127.0.0.1:4318/");
}

#[test]
fn a_collector_of_traces_is_checked_and_shown_without_its_password() {
    let said = "[telemetry]\notlp_endpoint = \"https://us:pass@otlp.example/key/xyzzy\"\nsample_ratio = 0.25";
    let shown = parse(&(minimal() + said)).unwrap().masked();
    assert!(shown.contains("otlp_endpoint = \"https://***@otlp.example/…\"\nsample_ratio = 0.25"), "{shown}");
    assert!(!shown.contains("pass") && !shown.contains("xyzzy"), "{shown}");
    assert_one_fault_in("[telemetry]\notlp_endpoint = \"127.0.0.1:4318\"", 8, "http or https URL");
    assert_one_fault_in("[telemetry]\notlp_endpoint = \"http://169.254.169.254\"", 8, "metadata");
    assert_one_fault_in("[telemetry]\notlp_endpoint = \"http://c:4318/v1/traces\"", 8, "base URL");
    assert_one_fault_in("[telemetry]\nsample_ratio = 1.5", 8, "`telemetry.sample_ratio`");
    assert_one_fault_in("[telemetry]\nendpoint = \"http://127.0.0.1\"", 8, "did you mean `otlp_endpoint`?");
}

#[test]
fn what_is_said_is_what_counts() {
    let text = without("public_url", "").replace(
        "[ingress]",
        "[ingress]\npublic_url = \"https://u:p@mfa.example.com/hooks/\"\nloop_guard = false",
    ) + "[queue]\nbackend = \"redis\"\nurl = \"${REDIS_URL}\"\ndurability = \"disk\"\nshards = 1\nspool = \"kept\"\ncapacity = 5\nencryption_keys = []\n\
           [channel.slack]\nrate = \"off\"\nrate_per_destination = \"30/m\"\nburst_per_destination = 1\ntimeout = \"4s\"\n\
           [worker]\nlease = \"5s\"\n[channel.sms]\ntimeout = \"4999ms\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n\
           [templates]\nsms = \"{body}\"\n[message]\ndeadline = \"1h\"\nretention = \"1h\"\n[retry]\nfactor = 3\n\
           [ops]\nlisten = \"[::1]:0\"";
    let config = parse(&text).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
    assert_eq!(config.twilio.public_url.as_written(), "https://u:p@mfa.example.com/hooks");
    assert_eq!(config.ingress.loop_guard, LoopGuard::off());
    let QueueChoice::Redis(redis) = &config.queue else { panic!() };
    assert_eq!(
        (redis.url.expose_secret(), redis.durability),
        (&*env("REDIS_URL").unwrap(), Durability::Disk)
    );
    assert_eq!(config.spool, Some(Path::new("/conf/kept").to_owned()));
    assert_eq!(config.queue_settings.capacity, 5);
    assert_eq!(
        (config.queue_settings.lease, config.worker.lease),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    let slack = &config.channels[&ChannelId::slack()];
    assert_eq!(slack.limits.lane, None);
    assert_eq!(slack.limits.destination, Some(Rate { interval: Duration::from_secs(2), burst: 1 }));
    assert_eq!((slack.timeout, config.slack.timeout), (Duration::from_secs(4), Duration::from_secs(4)));
    assert_eq!(config.templates[&ChannelId::sms()], "{body}");
    assert_eq!(config.ingress.deadline, Duration::from_secs(3600));
    assert_eq!(config.retry.factor, 3.0);
}

#[test]
fn a_slow_rate_per_address_still_lets_one_through_at_once() {
    let config = parse(&minimal().replace("[twilio]", "rate_per_ip = \"30/m\"\n[twilio]")).unwrap();
    assert_eq!(config.ingress.rate_per_ip, Some(Rate { interval: Duration::from_secs(2), burst: 1 }));
    let config = parse(&minimal().replace("[twilio]", "rate_per_ip = \"off\"\n[twilio]")).unwrap();
    assert_eq!(config.ingress.rate_per_ip, None);
}

#[test]
fn required_keys_are_asked_for_where_they_belong() {
    assert_one_fault(&without("public_url", ""), 1, "`ingress.public_url` is required");
    assert_one_fault(&without("account_sid", ""), 3, "`twilio.account_sid` is required");
    assert_one_fault(&without("auth_tokens", ""), 3, "`twilio.auth_tokens` is required");
    assert_one_fault(&without("from", ""), 3, "`twilio.from` is required");
    let told = told(&parse("").unwrap_err());
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn every_fault_of_a_single_value_has_its_line() {
    let cases = [
        // (section after the six minimal lines, line, part of the message)
        ("[ops]\nlisten = \"localhost:1\"", 8, "`ops.listen`"),
        ("[ops]\nlisten = 9464", 8, "must be a string"),
        ("[message]\n\ndeadline = 10", 9, "a duration with its unit"),
        ("[message]\ndeadline = \"10\"", 8, "needs a unit"),
        ("[message]\ndeadline = \"0s\"", 8, "at least 1ms"),
        ("[message]\ndeadline = \"soon\"", 8, "not a duration"),
        ("[worker]\nlease = \"1999ms\"", 8, "at least 2s"),
        ("[worker]\nconcurrency = 0", 8, "between 1 and 10000"),
        ("[worker]\nconcurrency = \"64\"", 8, "a whole number, not a string"),
        ("[worker]\nconcurrency = 1.5", 8, "a whole number, not a number"),
        ("[retry]\nfactor = 0.5", 8, "between 1 and 100"),
        ("[retry]\nfactor = nan", 8, "between 1 and 100"),
        ("[retry]\nmax_attempts = 0", 8, "between 1 and 1000"),
        ("[channel.sms]\nrate = 10", 8, "a rate, in quotes"),
        ("[channel.sms]\nrate = \"10\"", 8, "not a rate"),
        ("[channel.sms]\nrate = \"0/s\"", 8, "\"off\" is no limit"),
        ("[channel.sms]\nburst = 0", 8, "between 1"),
        ("[channel.slack]\nrate_per_destination = \"1/d\"", 8, "not a rate"),
        ("[log]\nformat = \"xml\"", 8, "one of \"text\", \"json\""),
        ("[log]\nlevel = \"loud\"", 8, "one of \"error\""),
        ("[templates]\nsms = \"\"", 8, "must not be empty"),
        ("[templates]\nsms = \"{bdy}\"", 8, "is not a template"),
        ("[templates]\nslack = \"{body\"", 8, "is not a template"),
        ("[queue]\nbackend = \"kafka\"", 8, "one of \"embedded\", \"redis\""),
        ("[queue]\npath = \"\"", 8, "must not be empty"),
        ("[queue]\ncapacity = 0", 8, "`queue.capacity`"),
        ("[queue]\nbackend = \"redis\"\nurl = \"http://a\"", 9, "a Redis URL"),
        ("[queue]\nbackend = \"redis\"\nurl = \"redis://169.254.1.1\"", 9, "metadata"),
        ("[queue]\nbackend = \"redis\"\nurl = \"redis+sentinel://a,b\"", 9, "redis+sentinel://"),
        ("[queue]\nbackend = \"redis\"\ntls_ca_file = \"ca.pem\"", 9, "without a `rediss://` URL"),
        (
            "[queue]\nbackend = \"redis\"\nurl = \"rediss://a\"\ntls_ca_file = \"no.pem\"",
            10,
            "no.pem cannot be read",
        ),
        ("[queue]\nbackend = \"redis\"\ntls_key_file = \"k\"\nurl = \"rediss://a\"", 9, "go together"),
        ("[queue]\nurl = \"redis://127.0.0.1\"", 8, "backend = \"redis\""),
        ("[queue]\ndurability = \"quantum\"", 8, "one of \"process\""),
        ("[queue]\nspool = \"spool\"", 8, "says nothing without `backend = \"redis\"`"),
    ];
    for (section, line, part) in cases {
        assert_one_fault_in(section, line, part);
    }
}

#[test]
fn every_fault_of_the_ingress_and_of_twilio_has_its_line() {
    let ingress = [
        ("listen = \"8080\"", "an address and a port"),
        ("max_body = 65536", "a size with its unit"),
        ("max_body = \"65536\"", "needs a unit"),
        ("max_body = \"0B\"", "between 1B and 64MiB"),
        ("max_body = \"1GiB\"", "between 1B and 64MiB"),
        ("rate_per_ip = \"fast\"", "not a rate"),
        ("trusted_proxies = [\"10.0.0.0/33\"]", "a network"),
        ("trusted_proxies = [\"proxy\"]", "a network"),
        ("loop_guard = \"yes\"", "true or false"),
    ];
    for (line, part) in ingress {
        assert_one_fault(&minimal().replace("[twilio]", &format!("{line}\n[twilio]")), 3, part);
    }
    for url in ["mfa.example.com", "ftp://a", "https://a/?x=1", "https://a/#x", "https://"] {
        assert_one_fault(&minimal().replace("https://mfa.example.com", url), 2, "http or https URL");
    }
    let twilio = [
        ("account_sid", "account_sid = \"AC123\"", "an account SID"),
        ("auth_tokens", "auth_tokens = []", "must not be empty"),
        ("auth_tokens", "auth_tokens = [\"\"]", "a secret must not be empty"),
        ("auth_tokens", "auth_tokens = [\"${EMPTY}\"]", "(the value is of ${EMPTY})"),
        ("auth_tokens", "auth_tokens = \" x\"", "start or end with a blank"),
        ("auth_tokens", "auth_tokens = 5", "a list of strings"),
        ("from", "from = \"15005550006\"", "starts with +"),
        ("from", "from = \"\"", "1 to 64"),
        ("from", "from = \"MG0123456789abcdef0123456789abcdef\"", "messaging_service_sid"),
        ("from", "messaging_service_sid = \"MG1\"", "MG and 32"),
    ];
    for (key, line, part) in twilio {
        assert_one_fault(&without(key, line), 6, part);
    }
    let more = [
        ("messaging_service_sid = \"MG0123456789abcdef0123456789abcdef\"", "beside `from`"),
        ("api_key_sid = \"SK0123456789abcdef0123456789abcdef\"", "needs `api_key_secret`"),
        ("api_key_secret = \"x\"", "needs `api_key_sid`"),
        ("api_base = \"api.twilio.com\"", "http or https URL"),
        ("api_base = \"http://169.254.169.254\"", "metadata"),
        ("api_base = \"http://[fe80::1]/\"", "metadata"),
        ("api_base = \"http://metadata.google.internal\"", "metadata"),
    ];
    for (line, part) in more {
        assert_one_fault(&(minimal() + line), 7, part);
    }
    for base in ["http://127.0.0.1:4010", "http://10.0.0.9/", "http://[::1]:1"] {
        parse(&(minimal() + &format!("api_base = \"{base}\""))).unwrap();
    }
}

#[test]
fn values_that_contradict_each_other_are_faults_where_one_of_them_was_said() {
    assert_one_fault_in("[channel.sms]\ntimeout = \"15s\"", 8, "shorter than `worker.lease`");
    assert_one_fault_in("[channel.slack]\n\ntimeout = \"20s\"", 9, "shorter than `worker.lease`");
    let faults = parse(&(minimal() + "[worker]\nlease = \"10s\"")).unwrap_err();
    assert!(faults.iter().all(|fault| fault.line == 8), "{:?}", told(&faults));
    assert_one_fault_in("[message]\nretention = \"9m\"", 8, "shorter than `message.deadline`");
    assert_one_fault_in("[message]\ndeadline = \"25h\"", 8, "shorter than `message.deadline`");
    assert_one_fault_in("[message]\ndeadline = \"2h\"\nretention = \"1h\"", 9, "shorter than");
    assert_one_fault_in("[retry]\nbase = \"1m\"", 8, "shorter than `retry.base`");
    assert_one_fault_in("[ops]\nlisten = \"127.0.0.1:8080\"", 8, "`ingress.listen`");
}

#[test]
fn keys_of_later_versions_are_known_and_refused() {
    let later = "is not available in this version";
    assert_one_fault_in("[[source]]\nname = \"office-sim\"\nkind = \"smsgate\"", 7, later);
}

#[test]
fn shards_are_of_redis_and_each_has_a_part_of_every_burst() {
    assert_one_fault_in("[queue]\nshards = 2", 8, "says nothing without");
    let of_redis = |more: &str| format!("{}[queue]\nbackend = \"redis\"\nshards = 16\n{more}", minimal());
    let config = parse(&of_redis("url = \"redis+cluster://a\"")).unwrap();
    let limits = &config.channels[&ChannelId::sms()].limits;
    assert_eq!((limits.lane.unwrap().burst, limits.destination.unwrap().burst), (16, 16));
    let faults = parse(&of_redis("[channel.sms]\nburst = 20\nburst_per_destination = 3")).unwrap_err();
    assert!(told(&faults).len() == 1 && told(&faults)[0].contains("queue.shards"), "{:?}", told(&faults));
    let off = "[channel.sms]\nrate_per_destination = \"off\"\nburst_per_destination = 3";
    assert!(parse(&of_redis(off)).is_ok());
}

/// `name` and 32 bytes, all of them `fill`.
fn sealing_key(name: &str, fill: u8) -> String {
    let id = KeyId::parse(name).unwrap();
    SealingKey::written(&id, &[fill; 32]).expose_secret().to_owned()
}

#[test]
fn keys_seal_in_the_order_in_which_they_stand_and_name_the_destinations() {
    let (one, other) = (sealing_key("k1", 1), sealing_key("k2", 2));
    let with = |keys: &str| {
        let text = minimal() + &format!("[queue]\nencryption_keys = {keys}\n");
        parse(&text).unwrap_or_else(|faults| panic!("{:?}", told(&faults)))
    };
    let config = with(&format!("[\"{one}\", \"{other}\"]"));
    assert_eq!(config.keys.ids().map(KeyId::as_str).collect::<Vec<_>>(), ["k1", "k2"]);
    assert!(config.masked().contains("encryption_keys = [\"k1:***\", \"k2:***\"]"), "{}", config.masked());
    assert!(config.masked().contains("accept_unsealed = true"), "{}", config.masked());
    assert!(!config.masked().contains("AQEB") && !format!("{config:?} {:?}", config.keys).contains("AQEB"));
    config.masked().parse::<toml::Table>().unwrap();
    let alone = with(&format!("\"{one}\""));
    assert_eq!(alone.destination_secret(), config.destination_secret());
    let turned = with(&format!("[\"{other}\", \"{one}\"]"));
    assert_ne!(turned.destination_secret(), config.destination_secret());
    for secret in [config.destination_secret(), turned.destination_secret()] {
        assert_ne!(secret, TOKEN.as_bytes());
    }
    assert!(with("[]").keys.is_empty());
    assert_eq!(with("[]").destination_secret(), TOKEN.as_bytes());
    let strict = with(&format!("[\"{one}\"]\naccept_unsealed = false"));
    assert!(!strict.keys.accepts_unsealed() && strict.masked().contains("accept_unsealed = false"));
}

#[test]
fn every_fault_of_a_key_has_its_line_and_never_the_key() {
    let (one, other) = (sealing_key("k1", 1), sealing_key("k2", 2));
    let bytes = one.strip_prefix("k1:").unwrap();
    for (third, part) in [
        (format!("k3:{}", &bytes[..40]), "exactly 32 bytes"),
        (format!("k3:{bytes}AAAA"), "32 bytes"),
        ("k3:not base64 at all".to_owned(), "NAME:KEY, 32 bytes in base64"),
        (bytes.to_owned(), "NAME:KEY"),
        (format!("k 3:{bytes}"), "named [A-Za-z0-9._-]{1,32}"),
        (format!(":{bytes}"), "named"),
        (sealing_key("k1", 3), "another key has this name already"),
        (sealing_key("k3", 1), "this key is there already, under another name"),
        ("k3:${NO_SUCH}".to_owned(), "`NO_SUCH` is not set"),
    ] {
        let section = format!("[queue]\nencryption_keys = [\n\"{one}\",\n\"{other}\",\n\"{third}\",\n]");
        assert_one_fault_in(&section, 11, part);
        let faults = parse(&(minimal() + &section)).unwrap_err();
        assert!(!format!("{faults:?}").contains(&bytes[4..20]), "{faults:?}");
    }
    assert_one_fault_in("[queue]\naccept_unsealed = false", 8, "needs `encryption_keys`");
    assert_one_fault_in(
        "[queue]\nencryption_keys = []\naccept_unsealed = false",
        9,
        "needs `encryption_keys`",
    );
    assert_one_fault_in("[queue]\nencryption_keys = 5", 8, "must be");
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_known_one() {
    for (section, line, part) in [
        ("[queue]\nbackand = \"redis\"", 8, "`queue.backand`; did you mean `backend`?"),
        ("[ingres]\n", 7, "`ingres`; did you mean `ingress`?"),
        ("[worker]\nconcurency = 5", 8, "did you mean `concurrency`?"),
        ("[channel.sms]\nrate_per_destinations = \"1/s\"", 8, "did you mean `rate_per_destination`?"),
        ("[channel.telegram]\ntimeout = \"1s\"", 7, "`channel.telegram`; known here: `slack`, `sms`"),
        ("[templates]\ntelegram = \"x\"", 8, "known here: `slack`, `sms`"),
        ("[log]\nlevels = \"info\"", 8, "did you mean `level`?"),
    ] {
        assert_one_fault_in(section, line, part);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "subscriber = 1\n\
                [ingress]\n\
                public_url = \"nowhere\"\n\
                listen = \"here\"\n\
                [twilio]\n\
                account_sid = \"${NOT_SET}\"\n\
                auth_tokens = [\n\
                \"${ALSO_NOT_SET}\",\n\
                \"${file:gone}\"]\n\
                [message]\n\
                deadline = 5\n\
                [queue]\n\
                shards = 3\n\
                shards = 4\n\
                [channel.sms]\n\
                timeout = \"1h\"\n";
    let faults = parse(text).unwrap_err();
    let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 6, 8, 9, 11, 13, 14, 16], "{:#?}", told(&faults));
}

#[test]
fn what_is_not_toml_is_told_by_its_line() {
    for (text, line) in
        [("[ingress\nx = 1", 1), ("[a]\nb = \n", 2), ("a = 1\nb = \"open\nc = 2", 2), ("a = [1,\n2\n\n\n", 2)]
    {
        let faults = parse(text).unwrap_err();
        assert!(faults.iter().any(|fault| fault.line == line), "{text:?}: {:?}", told(&faults));
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let faults = Config::load(&path, &env).unwrap_err();
    assert_eq!((faults.len(), faults[0].line), (1, 0));
    assert!(faults[0].to_string().starts_with(&format!("{}: ", path.display())));
    std::fs::write(&path, b"a = 1\n# \xff\n").unwrap();
    assert_eq!(Config::load(&path, &env).unwrap_err()[0].line, 2);
}

#[test]
fn references_bring_variables_and_files_relative_to_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/token"), "second-token\n").unwrap();
    let text = minimal()
        .replace("[\"${TWILIO_AUTH_TOKEN}\"]", "[\"${TWILIO_AUTH_TOKEN}\", \"${file:secrets/token}\"]")
        .replace("[ingress]", "subscribers = \"lists/who.toml\"\n[ingress]")
        + "[templates]\nsms = \"$${body} {body}\"";
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, &env).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
    let tokens: Vec<&str> = config.twilio.auth_tokens.iter().map(|token| token.expose_secret()).collect();
    assert_eq!(tokens, [TOKEN, "second-token"]);
    assert_eq!(config.subscribers, folder.path().join("lists/who.toml"));
    assert_eq!(config.templates[&ChannelId::sms()], "${body} {body}");
}

#[test]
fn the_shown_configuration_and_every_fault_are_free_of_secrets() {
    let text = minimal()
        .replace("https://mfa.example.com", "https://hookuser:hookpassword@mfa.example.com/secretpath")
        .replace(
            "from =",
            "api_key_sid = \"SK0123456789abcdef0123456789abcdef\"\napi_key_secret = \"keysecret\"\nfrom =",
        )
        + "api_base = \"https://api.twilio.com/privatepath\"\n[queue]\nbackend = \"redis\"\nurl = \"${REDIS_URL}\"\n";
    let config = parse(&text).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
    let shown = config.masked();
    for page in [shown.clone(), format!("{config:?}"), format!("{config:#?}")] {
        for secret in [
            TOKEN,
            PHONE,
            &PHONE[3..],
            "hookuser",
            "hookpassword",
            "secretpath",
            "privatepath",
            "keysecret",
            "SK0123456789",
            "redissecret",
            "relay",
        ] {
            assert!(!page.contains(secret), "{secret} is in:\n{page}");
        }
    }
    for part in [
        "public_url = \"https://***@mfa.example.com/…\"",
        "auth_tokens = [\"***\"]",
        "from = \"+1******0006\"",
        "url = \"redis://***@10.1.2.3:6379/…\"",
        "api_base = \"https://api.twilio.com/…\"",
        "rate = \"10/s\"",
        "retention = \"24h\"",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    shown.parse::<toml::Table>().unwrap();

    // The same secrets in the wrong places.
    let wrong = format!(
        "[ingress]\npublic_url = \"{TOKEN}\"\nlisten = \"${{TWILIO_AUTH_TOKEN}}\"\n[twilio]\naccount_sid = \"{TOKEN}\"\n\
         auth_tokens = [\"{TOKEN} \"]\nfrom = \"1{}\"\n[queue]\nbackend = \"${{TWILIO_AUTH_TOKEN}}\"\nurl = \"x{TOKEN}\"\n\
         [message]\ndeadline = \"{TOKEN}\"\n[channel.sms]\nrate = \"{TOKEN}\"\n[log]\nlevel = \"{TOKEN}\"\nformat = \"${{{TOKEN}-}}\"\n",
        &PHONE[1..]
    );
    let faults = parse(&wrong).unwrap_err();
    assert!(faults.len() >= 11, "{:#?}", told(&faults));
    let broken = parse(&format!("[twilio]\nauth_tokens = [\"{TOKEN}\nfrom = \"{PHONE}\n")).unwrap_err();
    for fault in faults.iter().chain(&broken) {
        let shown = format!("{fault} {fault:?}");
        assert!(!shown.contains(TOKEN) && !shown.contains(&PHONE[1..]), "{shown}");
    }
}

#[test]
fn a_deadline_of_a_subscriber_must_not_outlast_retention() {
    let config = parse(&(minimal() + "[message]\nretention = \"1h\"")).unwrap();
    let text = "[[subscriber]]\nname = \"A\"\nfrom = \"72404\"\nsms = \"+14443332222\"\ndeadline = \"61m\"\n\
                [fallback]\ndeadline = \"1h\"\ndrop = true\n";
    let subscribers = Subscribers::parse(text, "s.toml", Path::new(""), &env).unwrap();
    let faults = config.check(&subscribers);
    assert_eq!(told(&faults), ["s.toml:5: `deadline` must not be longer than `message.retention`"]);
}

#[test]
fn the_file_is_sought_by_flag_then_variable_then_folder() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| (name == CONFIG_VARIABLE).then(|| "/by/variable.toml".to_owned());
    let empty = |name: &str| (name == CONFIG_VARIABLE).then(String::new);
    let flag = Path::new("/by/flag.toml");
    std::fs::write(folder.path().join(FILE_NAME), "").unwrap();
    assert_eq!(find(Some(flag), &named, folder.path()).unwrap(), flag);
    assert_eq!(find(None, &named, folder.path()).unwrap(), Path::new("/by/variable.toml"));
    assert_eq!(find(None, &empty, folder.path()).unwrap(), folder.path().join(FILE_NAME));
    assert_eq!(find(None, &|_| None, folder.path()).unwrap(), folder.path().join(FILE_NAME));
}

/// Pieces that make a text look like a configuration.
fn piece() -> impl Strategy<Value = String> {
    let words: Vec<&str> = vec![
        "[ingress]\n",
        "[twilio]\n",
        "[queue]\n",
        "[message]\n",
        "[worker]\n",
        "[retry]\n",
        "[channel.sms]\n",
        "[channel]\n",
        "[[source]]\n",
        "[[subscriber]]\n",
        "[fallback]\n",
        "name",
        "from",
        "to",
        "body",
        "sms",
        "slack",
        "url",
        "deadline",
        "timeout",
        "rate",
        "burst",
        "lease",
        "listen",
        "auth_tokens",
        "drop",
        "path",
        "capacity",
        " = ",
        " = [",
        "]\n",
        "\n",
        ", ",
        "{ ",
        " }",
        "\"",
        "\"\"\"",
        "'",
        "\"${A}\"",
        "\"${\"",
        "1",
        "-1",
        "1e400",
        "nan",
        "true",
        "\"10s\"",
        "\"1/s\"",
        "\"off\"",
        "\"64KiB\"",
        "\"+12223334444\"",
        "\"+1*\"",
        "\"(\"",
        "\"https://a/\"",
        "2020-01-01",
        "0x10",
        "99999999999999999999",
        "é",
        "\u{0}",
        "\\",
        ".",
        "#",
    ];
    prop_oneof![4 => prop::sample::select(words).prop_map(str::to_owned), 1 => "\\PC{0,6}", 1 => "[ -~\n]{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused_with_a_line_of_its_own(
        pieces in prop::collection::vec(piece(), 0..40),
        at in 0usize..400,
        whole in any::<bool>(),
    ) {
        let soup: String = pieces.concat();
        let text = if whole {
            let mut text = include_str!("../deploy/sms-broadcaster.example.toml").to_owned();
            let at = (at * 17).min(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &soup);
            }
            text
        } else {
            soup
        };
        let lines = text.lines().count().max(1);
        let config = parse(&text).map(|_| ());
        let subscribers = Subscribers::parse(&text, "s", Path::new("/nowhere"), &|_| None).map(|_| ());
        for faults in [config, subscribers].into_iter().filter_map(Result::err) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!((1..=lines).contains(&fault.line), "{fault} of {lines} in {text:?}");
            }
        }
    }
}

#[test]
fn every_key_of_the_example_is_really_read() {
    // A key nobody reads would be refused as unknown; one that is read and not used would pass. Each of
    // these changes must therefore show.
    let example = include_str!("../deploy/sms-broadcaster.example.toml");
    let before = parse(example).unwrap();
    let changes = BTreeMap::from([
        ("subscribers = \"subscribers.toml\"", "subscribers = \"others.toml\""),
        ("listen = \"127.0.0.1:8080\"", "listen = \"127.0.0.1:8081\""),
        ("max_body = \"64KiB\"", "max_body = \"65KiB\""),
        ("rate_per_ip = \"50/s\"", "rate_per_ip = \"51/s\""),
        ("trusted_proxies = []", "trusted_proxies = [\"10.0.0.0/8\"]"),
        ("loop_guard = true", "loop_guard = false"),
        ("listen = \"127.0.0.1:9464\"", "listen = \"127.0.0.1:9465\""),
        ("path = \"data/queue.db\"", "path = \"queue.db\""),
        ("capacity = 1_000_000", "capacity = 1_000_001"),
        ("encryption_keys = []", "encryption_keys = [\"k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"]"),
        ("deadline = \"10m\"", "deadline = \"11m\""),
        ("retention = \"24h\"", "retention = \"25h\""),
        ("concurrency = 64", "concurrency = 65"),
        ("lease = \"15s\"", "lease = \"16s\""),
        ("drain = \"25s\"", "drain = \"26s\""),
        ("base = \"1s\"", "base = \"2s\""),
        ("factor = 2.0", "factor = 2.5"),
        ("cap = \"30s\"", "cap = \"31s\""),
        ("max_attempts = 8", "max_attempts = 9"),
        ("timeout = \"10s\"", "timeout = \"9s\""),
        ("rate = \"10/s\"", "rate = \"11/s\""),
        ("burst = 10", "burst = 11"),
        ("rate_per_destination = \"1/s\"", "rate_per_destination = \"2/s\""),
        ("burst_per_destination = 3", "burst_per_destination = 4"),
        ("format = \"text\"", "format = \"json\""),
        ("level = \"info\"", "level = \"warn\""),
        ("sms = \"MFA challenge", "sms = \"Challenge"),
        ("slack = \"*New MFA", "slack = \"*MFA"),
        ("https://api.twilio.com", "https://api.example.com"),
        ("https://mfa.example.com", "https://mfa.example.org"),
    ]);
    for (old, new) in changes {
        assert!(example.contains(old), "{old}");
        let after = parse(&example.replace(old, new)).unwrap_or_else(|faults| panic!("{:?}", told(&faults)));
        assert_ne!(after.masked(), before.masked(), "{new}");
    }
}
