//! From the sections of the file to the settings. Every default that is not a settings type's own stands
//! here, and every check that needs more than one value.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use tracing::Level;

use super::settings::{Config, LogFormat, LogSettings, QueueChoice};
use super::urls::{parse_api_base, parse_collector, parse_redis_url};
use crate::channel::slack::SlackSettings;
use crate::channel::sms::{SmsSender, SmsSettings};
use crate::delivery::ChannelId;
use crate::document::{Frequency, LONGEST, Section};
use crate::ingress::{IngressSettings, LoopGuard, Patience};
use crate::message::{AccountSid, Address, Malformed};
use crate::queue::contract::{LaneLimits, QueueSettings, Rate};
use crate::queue::redis::{Durability, RedisAddress, RedisSettings, TlsFiles};
use crate::retry::RetryPolicy;
use crate::seal::{Keyring, SealingKey};
use crate::source::twilio::{MAX_TOKENS, PublicUrl, TwilioSettings};
use crate::subscribers::parse_sender;
use crate::telemetry::TelemetrySettings;
use crate::template::{DEFAULT_SLACK, DEFAULT_SMS, Templates};
use crate::worker::settings::{ChannelPlan, WorkerSettings};

/// A deadline or delay of any length that stores can count: they count milliseconds.
const ANY_LENGTH: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// Below this a lease may end between two renewals on a busy machine.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

/// Reads the whole file; `None` after at least one fault was noted.
pub(super) fn build(root: &Section<'_>, path: &Path) -> Option<Config> {
    let folder = path.parent().unwrap_or(Path::new(""));
    root.later("source");
    let subscribers = root.parsed("subscribers", file_path).unwrap_or("subscribers.toml".into());

    let ingress = root.table("ingress", ingress);
    let (ops_listen, ops_line) = root
        .table("ops", |ops| (ops.parsed("listen", listen).unwrap_or(loopback(9464)), ops.line_of("listen")));
    let twilio = root.table("twilio", twilio);
    let times = root.table("message", message);
    let (queue, spool, capacity, keys) = root.table("queue", |section| queue(section, folder));
    let (worker, lease_line) = root.table("worker", |section| worker(section, times.deadline));
    let retry = root.table("retry", retry);
    let channels = root.table("channel", |channels| {
        let lease = (worker.lease, lease_line);
        let shards = match &queue {
            QueueChoice::Redis(redis) => redis.shards as u64,
            QueueChoice::Embedded { .. } => 1,
        };
        let sms = channels.table("sms", |section| channel(section, lease, shards));
        let slack = channels.table("slack", |section| channel(section, lease, shards));
        BTreeMap::from([(ChannelId::sms(), sms), (ChannelId::slack(), slack)])
    });
    let templates = root.table("templates", templates);
    let log = root.table("log", log);
    let telemetry = root.table("telemetry", telemetry);

    if ops_listen == ingress.listen && ops_listen.port() != 0 {
        root.fault(ops_line, "`ops.listen` must not be `ingress.listen`: metrics are not for the public");
    }

    let (public_url, twilio) = (ingress.public_url?, twilio?);
    let own_number = match &twilio.sender {
        SmsSender::From(number) => Some(number.clone()),
        SmsSender::Service(_) => None,
    };
    let guarded = if ingress.loop_guard { LoopGuard::against(own_number) } else { LoopGuard::off() };
    let timeout = |channel: &ChannelId| channels.get(channel).map(|plan: &ChannelPlan| plan.timeout);
    Some(Config {
        file: path.display().to_string(),
        subscribers: folder.join(subscribers),
        ingress: IngressSettings {
            listen: ingress.listen,
            max_body: ingress.max_body,
            rate_per_ip: ingress.rate_per_ip,
            trusted_proxies: ingress.trusted_proxies,
            loop_guard: guarded,
            deadline: times.deadline,
            patience: Patience::default(),
        },
        ops_listen,
        sms: SmsSettings {
            api_base: twilio.api_base,
            account_sid: twilio.account_sid.clone(),
            user: twilio.user,
            password: twilio.password,
            sender: twilio.sender,
            timeout: timeout(&ChannelId::sms())?,
        },
        slack: SlackSettings { timeout: timeout(&ChannelId::slack())? },
        twilio: TwilioSettings {
            public_url,
            account_sid: twilio.account_sid,
            auth_tokens: twilio.auth_tokens,
        },
        queue,
        spool,
        queue_settings: QueueSettings {
            lease: worker.lease,
            retention: times.retention,
            capacity,
            ..QueueSettings::default()
        },
        keys,
        retry,
        worker,
        channels,
        templates,
        log,
        telemetry,
    })
}

/// `[ingress]` before what other sections add to it.
struct Ingress {
    listen: SocketAddr,
    public_url: Option<PublicUrl>,
    max_body: usize,
    rate_per_ip: Option<Rate>,
    trusted_proxies: Vec<IpNet>,
    loop_guard: bool,
}

fn ingress(section: &Section<'_>) -> Ingress {
    const LARGEST_BODY: u64 = 64 << 20;
    let max_body = section.size("max_body", 64 << 10, 1..=LARGEST_BODY);
    // One second's worth at once: Twilio sends in bursts from few addresses.
    let rate_per_ip = section
        .frequency("rate_per_ip", "50/s")
        .map(|rate| Rate { interval: rate.interval(), burst: rate.per_second() });
    Ingress {
        listen: section.parsed("listen", listen).unwrap_or(loopback(8080)),
        public_url: section.required("public_url", PublicUrl::parse),
        max_body: usize::try_from(max_body).expect("64 MiB fit any address space"),
        rate_per_ip,
        trusted_proxies: section.list("trusted_proxies", network).unwrap_or_default(),
        loop_guard: section.flag("loop_guard", true),
    }
}

/// `[twilio]`, complete.
struct Twilio {
    account_sid: AccountSid,
    auth_tokens: Vec<SecretString>,
    user: String,
    password: SecretString,
    sender: SmsSender,
    api_base: String,
}

fn twilio(section: &Section<'_>) -> Option<Twilio> {
    let account_sid = section.required("account_sid", AccountSid::parse);
    if !section.has("auth_tokens") {
        section.missing("auth_tokens");
    } else if section.is_empty_list("auth_tokens") {
        section.fault_of("auth_tokens", "must not be empty");
    }
    let auth_tokens = section.list("auth_tokens", secret).unwrap_or_default();
    if auth_tokens.len() > MAX_TOKENS {
        section.fault_of(
            "auth_tokens",
            format_args!("must be at most {MAX_TOKENS}: the old and the new one are enough"),
        );
    }
    let key_sid = section
        .parsed("api_key_sid", |text| sid(text, "SK", "an API key's SID is SK and 32 hexadecimal digits"));
    let key_secret = section.parsed("api_key_secret", secret);
    for (one, other) in [("api_key_sid", "api_key_secret"), ("api_key_secret", "api_key_sid")] {
        if section.has(one) && !section.has(other) {
            section.fault_of(one, format_args!("needs `{other}` too"));
        }
    }
    let from = section.parsed("from", own_number);
    let service = section.parsed("messaging_service_sid", messaging_service);
    match (section.has("from"), section.has("messaging_service_sid")) {
        (true, true) => {
            section.fault_of("messaging_service_sid", "must not stand beside `from`: give one of them");
        }
        (false, false) => section
            .fault(section.line(), "`twilio.from` is required (or `messaging_service_sid` in its place)"),
        _ => {}
    }
    let api_base = section.parsed("api_base", parse_api_base).unwrap_or("https://api.twilio.com".to_owned());

    let account_sid = account_sid?;
    let first_token = auth_tokens.first()?.clone();
    let (user, password) =
        key_sid.zip(key_secret).unwrap_or_else(|| (account_sid.as_str().to_owned(), first_token));
    let sender = from.map(SmsSender::From).or(service.map(SmsSender::Service))?;
    Some(Twilio { account_sid, auth_tokens, user, password, sender, api_base })
}

/// `[message]`.
struct Times {
    deadline: Duration,
    retention: Duration,
}

fn message(section: &Section<'_>) -> Times {
    let retention = QueueSettings::default().retention;
    let times = Times {
        deadline: section.duration("deadline", ANY_LENGTH).unwrap_or(Duration::from_secs(600)),
        retention: section.duration("retention", ANY_LENGTH).unwrap_or(retention),
    };
    if times.retention < times.deadline {
        let key = if section.has("retention") { "retention" } else { "deadline" };
        section
            .fault(section.line_of(key), "`message.retention` must not be shorter than `message.deadline`");
    }
    times
}

/// The back-end, the spool beside it, the capacity and the keys.
fn queue(section: &Section<'_>, folder: &Path) -> (QueueChoice, Option<PathBuf>, u64, Keyring) {
    #[derive(Clone, Copy, PartialEq)]
    enum Backend {
        Embedded,
        Redis,
    }
    let backend = section.word(
        "backend",
        Backend::Embedded,
        &[("embedded", Backend::Embedded), ("redis", Backend::Redis)],
    );
    let path = section.parsed("path", file_path).unwrap_or("data/queue.db".into());
    let url = section.parsed("url", parse_redis_url);
    if section.has("url") && !section.has("backend") {
        section.fault_of("url", "says nothing without `backend = \"redis\"`");
    }
    let tls = tls_files(section, folder, url.as_ref());
    let durability = section.word(
        "durability",
        Durability::Process,
        &Durability::ALL.map(|level| (level.as_str(), level)),
    );
    let shards = section.integer("shards", 1, 1..=1024);
    if shards > 1 && backend == Backend::Embedded {
        section.fault_of("shards", "says nothing without `backend = \"redis\"`");
    }
    let spool =
        section.text("spool").map(|spool| spool.as_str().to_owned()).filter(|spool| !spool.is_empty());
    if spool.is_some() && backend == Backend::Embedded {
        section.fault_of("spool", "says nothing without `backend = \"redis\"`");
    }
    let capacity = section.integer("capacity", QueueSettings::default().capacity, 1..=1_000_000_000_000);
    let choice = match backend {
        Backend::Embedded => QueueChoice::Embedded { path: folder.join(path) },
        Backend::Redis => {
            let url = url.unwrap_or_else(|| SecretString::from("redis://127.0.0.1:6379".to_owned()));
            let shards = usize::try_from(shards).unwrap_or(1);
            QueueChoice::Redis(RedisSettings { url, tls, durability, shards })
        }
    };
    (choice, spool.map(|spool| folder.join(spool)), capacity, keyring(section))
}

/// The files of a connection by TLS, read once to see whether they can be.
fn tls_files(section: &Section<'_>, folder: &Path, url: Option<&SecretString>) -> TlsFiles {
    const KEYS: [&str; 3] = ["tls_ca_file", "tls_cert_file", "tls_key_file"];
    let [ca, certificate, key] = KEYS.map(|key| section.parsed(key, file_path).map(|path| folder.join(path)));
    let is_tls =
        url.is_some_and(|url| RedisAddress::parse(url.expose_secret()).is_ok_and(|address| address.is_tls()));
    if certificate.is_some() != key.is_some() {
        let lone = if certificate.is_some() { KEYS[1] } else { KEYS[2] };
        section.fault_of(lone, "`tls_cert_file` and `tls_key_file` go together");
    }
    let files = TlsFiles { ca, own: certificate.zip(key) };
    if let Some(given) = KEYS.into_iter().find(|key| section.has(key)) {
        if !is_tls {
            section.fault_of(given, "says nothing without a `rediss://` URL");
        } else if let Err(why) = files.check() {
            section.fault_of(given, &why);
        }
    }
    files
}

/// The keys that seal what is stored. A name or key that is there twice is a rotation gone wrong.
fn keyring(section: &Section<'_>) -> Keyring {
    let mut keys = Vec::<SealingKey>::new();
    section.list("encryption_keys", |text| {
        let key = SealingKey::parse(text)?;
        if keys.iter().any(|other| other.id() == key.id()) {
            return Err(Malformed("another key has this name already"));
        }
        if keys.iter().any(|other| other.is_same_as(&key)) {
            return Err(Malformed("this key is there already, under another name"));
        }
        keys.push(key);
        Ok(())
    });
    let accept_unsealed = section.flag("accept_unsealed", true);
    let has_keys = section.has("encryption_keys") && !section.is_empty_list("encryption_keys");
    if !accept_unsealed && !has_keys {
        section.fault_of("accept_unsealed", "needs `encryption_keys`: without them nothing is sealed");
    }
    Keyring::new(keys, accept_unsealed)
}

/// The worker, and the line to blame its lease on.
fn worker(section: &Section<'_>, deadline: Duration) -> (WorkerSettings, usize) {
    let concurrency = section.integer("concurrency", 64, 1..=10_000);
    let settings = WorkerSettings {
        concurrency: usize::try_from(concurrency).expect("ten thousand fit any address space"),
        lease: section.duration("lease", SHORTEST_LEASE..=LONGEST).unwrap_or(QueueSettings::default().lease),
        drain: section.duration("drain", Duration::ZERO..=LONGEST).unwrap_or(Duration::from_secs(25)),
        deadline,
    };
    (settings, section.line_of("lease"))
}

fn retry(section: &Section<'_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let attempts = section.integer("max_attempts", default.max_attempts.into(), 1..=1_000);
    let policy = RetryPolicy {
        base: section.duration("base", ANY_LENGTH).unwrap_or(default.base),
        factor: section.number("factor", default.factor, 1.0..=100.0),
        cap: section.duration("cap", ANY_LENGTH).unwrap_or(default.cap),
        max_attempts: u32::try_from(attempts).expect("a thousand fit"),
    };
    if policy.cap < policy.base {
        let key = if section.has("cap") { "cap" } else { "base" };
        section.fault(section.line_of(key), "`retry.cap` must not be shorter than `retry.base`");
    }
    policy
}

/// One channel; `lease` comes with the line to blame it on.
fn channel(section: &Section<'_>, (lease, lease_line): (Duration, usize), shards: u64) -> ChannelPlan {
    let timeout = section.duration("timeout", ANY_LENGTH).unwrap_or(Duration::from_secs(10));
    if timeout >= lease {
        let line = if section.has("timeout") { section.line_of("timeout") } else { lease_line };
        section.fault(line, "`timeout` of a channel must be shorter than `worker.lease`");
    }
    let rate = |frequency: Option<Frequency>, key, default: u64| {
        let burst = section.integer(key, default.max(shards), 1..=1_000_000);
        if burst < shards && frequency.is_some() {
            section.fault_of(key, "must not be less than `queue.shards`: each shard has its share of a rate");
        }
        let burst = u32::try_from(burst).expect("a million fit");
        frequency.map(|frequency| Rate { interval: frequency.interval(), burst })
    };
    let limits = LaneLimits {
        lane: rate(section.frequency("rate", "10/s"), "burst", 10),
        destination: rate(section.frequency("rate_per_destination", "1/s"), "burst_per_destination", 3),
    };
    ChannelPlan { timeout, limits }
}

fn templates(section: &Section<'_>) -> BTreeMap<ChannelId, String> {
    let mut texts = BTreeMap::new();
    for (key, channel, default) in
        [("sms", ChannelId::sms(), DEFAULT_SMS), ("slack", ChannelId::slack(), DEFAULT_SLACK)]
    {
        let text = section.parsed(key, template).unwrap_or(default.to_owned());
        if let Err(fault) = Templates::parse(&channel, &text) {
            section.fault_of(key, format_args!("is not a template: {fault}"));
        }
        texts.insert(channel, text);
    }
    texts
}

fn log(section: &Section<'_>) -> LogSettings {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    LogSettings {
        format: section.word("format", LogFormat::Text, &formats),
        level: section.word("level", Level::INFO, &levels),
    }
}

fn telemetry(section: &Section<'_>) -> TelemetrySettings {
    let default = TelemetrySettings::default();
    TelemetrySettings {
        collector: section.parsed("otlp_endpoint", parse_collector),
        sample_ratio: section.number("sample_ratio", default.sample_ratio, 0.0..=1.0),
    }
}

/// What a template must be. An empty one would send empty texts, which every provider refuses.
fn template(text: &str) -> Result<String, Malformed> {
    if text.trim().is_empty() { Err(Malformed("a template must not be empty")) } else { Ok(text.to_owned()) }
}

fn file_path(text: &str) -> Result<PathBuf, Malformed> {
    if text.is_empty() || text.contains('\0') {
        Err(Malformed("a path must not be empty"))
    } else {
        Ok(PathBuf::from(text))
    }
}

fn listen(text: &str) -> Result<SocketAddr, Malformed> {
    text.parse().map_err(|_| Malformed("an address and a port: \"127.0.0.1:8080\" or \"[::]:8080\""))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, Malformed> {
    let single = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(single).map_err(|_| Malformed("a network is written \"10.0.0.0/8\""))
}

fn own_number(text: &str) -> Result<Address, Malformed> {
    if messaging_service(text).is_ok() {
        return Err(Malformed("this is a messaging service; it belongs in `messaging_service_sid`"));
    }
    parse_sender(text)
}

fn messaging_service(text: &str) -> Result<String, Malformed> {
    sid(text, "MG", "a messaging service is MG and 32 hexadecimal digits")
}

/// Reads who texts are sent by from one text: what looks like a messaging service's SID is one,
/// everything else is a number or sender id of ours.
pub fn parse_sender_identity(text: &str) -> Result<SmsSender, Malformed> {
    match messaging_service(text) {
        Ok(sid) => Ok(SmsSender::Service(sid)),
        Err(_) => own_number(text).map(SmsSender::From),
    }
}

fn secret(text: &str) -> Result<SecretString, Malformed> {
    if text.is_empty() || text.trim() != text || text.contains(char::is_control) {
        return Err(Malformed("a secret must not be empty, nor start or end with a blank"));
    }
    Ok(SecretString::from(text.to_owned()))
}

fn sid(text: &str, kind: &str, expected: &'static str) -> Result<String, Malformed> {
    let hex = text.strip_prefix(kind).unwrap_or("");
    let ok = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if ok { Ok(text.to_owned()) } else { Err(Malformed(expected)) }
}
