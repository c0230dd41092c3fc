//! An installation of a test's own: two files, a store with letters in it, and the real `smsctl`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{Attempt, ChannelId, DeadCause, DestinationKey, Reason, Settlement};
use sms_broadcaster::message::{Address, Body, InboundMessage, MessageId};
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Expansion, Lane, LaneLimits, MAX_BATCH, NewDelivery, NewMessage, Owner, Queue,
    QueueAdmin, QueueSettings, Settle, Settled, Work,
};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};
use tempfile::TempDir;

use crate::support::redis_server::RedisServer;

/// A command that takes longer hangs.
const GUARD: Duration = Duration::from_secs(30);

/// One text message exhausted its attempts, one Slack message was delivered.
pub(crate) const ROUTED: &str = "SMaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// One text message expired, one Slack message was refused for good.
pub(crate) const LOST: &str = "SMbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// Not routed yet.
pub(crate) const WAITING: &str = "SMcccccccccccccccccccccccccccccccc";

const ACCOUNT_SID: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const OUR_NUMBER: &str = "+15005550006";
const TOKEN: &str = "f00df00df00df00df00df00df00df00d";
const SENDER: &str = "+12223334444";
const PHONE: &str = "+14443332222";
const WEBHOOK: &str = "https://hooks.slack.com/services/T000/B000/webhooksecret";
const TEXT: &str = "Your code is 493817";

/// None of these may be shown by a command that was not told to.
const SECRETS: [&str; 6] = [TOKEN, "2223334444", "4443332222", "5005550006", "webhooksecret", "493817"];

/// Both sides of a store.
pub(crate) trait Store: Queue + QueueAdmin {}

impl<T: Queue + QueueAdmin> Store for T {}

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    /// The service's handle of the store, while it is open.
    pub(crate) queue: Option<Arc<dyn Store>>,
    /// The server of a store on Redis.
    pub(crate) redis: Option<RedisServer>,
}

/// What a command left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The standard output as JSON: one value on one line, and nothing else.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Asserts that it went well without a word on the standard error, and hides nobody's secrets.
    pub(crate) fn fine(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.discreet()
    }

    /// Asserts that it failed with `code`, one line on the standard error that holds `part`, and no
    /// secret.
    pub(crate) fn failed(self, code: i32, part: &str) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("error: ") && self.err.contains(part), "{part:?}: {}", self.err);
        self.discreet()
    }

    fn discreet(self) -> Self {
        for secret in SECRETS {
            assert!(!self.out.contains(secret), "{secret} in {}", self.out);
            assert!(!self.err.contains(secret), "{secret} in {}", self.err);
        }
        assert!(!self.out.contains('\u{1b}'), "colours without a terminal: {:?}", self.out);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code().expect("it was not killed"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Bench {
    /// The two files, and no store yet.
    pub(crate) fn without_store() -> Self {
        Self::with(None)
    }

    /// The two files, and an empty Redis server.
    pub(crate) fn with_redis(server: RedisServer) -> Self {
        Self::with(Some(server))
    }

    fn with(redis: Option<RedisServer>) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), queue: None, redis };
        bench.write_config("");
        bench.write_subscribers("");
        bench
    }

    /// A filled store whose service is not running.
    pub(crate) async fn alone() -> Self {
        let mut bench = Self::beside_service().await;
        bench.queue = None;
        bench
    }

    /// A filled store that a service has open: this test.
    pub(crate) async fn beside_service() -> Self {
        let mut bench = Self::without_store();
        let queue = EmbeddedQueue::open(&bench.store(), QueueSettings::default(), Clock::system()).unwrap();
        fill(&queue).await;
        bench.queue = Some(Arc::new(queue));
        bench
    }

    /// A filled store on a Redis server of its own.
    pub(crate) async fn on_redis() -> Self {
        let mut bench = Self::with_redis(RedisServer::start());
        let url = SecretString::from(bench.redis.as_ref().unwrap().url());
        let settings = RedisSettings::at(url);
        let queue = RedisQueue::new(settings, QueueSettings::default(), Clock::system()).unwrap();
        queue.prepare().await.unwrap();
        fill(&queue).await;
        bench.queue = Some(Arc::new(queue));
        bench
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    /// Has a message count its pending deliveries wrongly, behind the back of whoever has the store open.
    pub(crate) fn miscount(&self, sid: &str) {
        if let Some(server) = &self.redis {
            assert_eq!(server.command(&format!("HSET sq1:{{0}}:m:{sid} left 7")), ":0");
        } else {
            let file = rusqlite::Connection::open(self.store()).unwrap();
            assert_eq!(file.execute("UPDATE message SET pending = 7 WHERE id = ?1", [sid]).unwrap(), 1);
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("relay.toml")
    }

    /// Writes the least that a configuration must say, then `more`.
    pub(crate) fn write_config(&self, more: &str) {
        let queue = match &self.redis {
            Some(server) => format!("backend = \"redis\"\nurl = \"{}\"", server.url()),
            None => "path = \"queue.db\"".to_owned(),
        };
        let text = format!(
            "[ingress]\n\
             public_url = \"https://mfa.example.com/in\"\n\
             listen = \"127.0.0.1:1\"\n\
             [twilio]\n\
             account_sid = \"{ACCOUNT_SID}\"\n\
             auth_tokens = [\"${{TWILIO_AUTH_TOKEN}}\"]\n\
             from = \"{OUR_NUMBER}\"\n\
             [queue]\n\
             {queue}\n\
             {more}"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// Writes subscribers: `more`, GitHub and a fallback.
    pub(crate) fn write_subscribers(&self, more: &str) {
        let text = format!(
            "{more}\n\
             [[subscriber]]\n\
             name = \"GitHub\"\n\
             from = [\"{SENDER}\"]\n\
             sms = [\"{PHONE}\"]\n\
             slack = [\"${{MFA_SLACK_WEBHOOK}}\"]\n\
             [fallback]\n\
             sms = [\"{PHONE}\"]\n"
        );
        std::fs::write(self.folder.path().join("subscribers.toml"), text).unwrap();
    }

    /// `smsctl --config … arguments`, in an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(self.folder.path());
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Runs it to its end.
    pub(crate) fn smsctl(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }
}

/// `smsctl` with nothing but the secrets of the configuration in its environment.
pub(crate) fn bare_command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smsctl"));
    command
        .current_dir(folder)
        .env_clear()
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .env("MFA_SLACK_WEBHOOK", WEBHOOK)
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(mut command: Command) -> Ran {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Waits for the end of a command whose outputs are piped.
pub(crate) fn finish(child: Child) -> Ran {
    let pid = child.id().to_string();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(GUARD) {
        Ok(output) => output.unwrap().into(),
        Err(_) => {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
            panic!("smsctl hangs");
        }
    }
}

fn message_id(sid: &str) -> MessageId {
    MessageId::twilio(sid).unwrap()
}

fn new_message(sid: &str) -> NewMessage {
    let message = InboundMessage {
        id: message_id(sid),
        source: "twilio".to_owned(),
        from: Address::parse(SENDER).unwrap(),
        to: Address::parse(OUR_NUMBER).unwrap(),
        body: Body::new(TEXT),
        trace: None,
    };
    NewMessage {
        id: message_id(sid),
        payload: message.to_payload(),
        deadline: Duration::from_secs(600),
        age: Duration::ZERO,
    }
}

/// Puts three messages into an empty store, each in another state, and offers one of them twice.
async fn fill(queue: &dyn Store) {
    let owner = Owner::new("bench");
    let accepted = [Acceptance::Accepted; 2];
    assert_eq!(queue.accept(&[new_message(ROUTED), new_message(LOST)]).await.unwrap(), accepted);
    assert_eq!(queue.accept(&[new_message(ROUTED)]).await.unwrap(), [Acceptance::Duplicate]);

    let batch = claim(queue, &owner, &Lane::inbound()).await.into_iter().map(expansion).collect();
    assert_eq!(queue.expand(&owner, batch).await.unwrap(), [Settled::Expanded; 2]);
    // Now, so that nothing else is claimed with the others.
    assert_eq!(queue.accept(&[new_message(WAITING)]).await.unwrap(), [Acceptance::Accepted]);

    let texts = claim(queue, &owner, &Lane::of(&ChannelId::sms())).await;
    let busy = attempt("retry", Reason::Server, Some(503), Some("20500"));
    settle(queue, &owner, texts, |sid| match sid {
        ROUTED => Settlement::Dead { cause: DeadCause::Exhausted, attempt: Some(busy.clone()) },
        _ => Settlement::Dead { cause: DeadCause::Expired, attempt: None },
    })
    .await;
    let slack = claim(queue, &owner, &Lane::of(&ChannelId::slack())).await;
    let refused = attempt("permanent", Reason::Recipient, Some(404), Some("no_service"));
    settle(queue, &owner, slack, |sid| match sid {
        ROUTED => Settlement::Delivered,
        _ => Settlement::Dead { cause: DeadCause::Permanent, attempt: Some(refused.clone()) },
    })
    .await;
}

/// Adds `count` messages with one dead text message each. The waiting message shares their fate.
pub(crate) async fn add_dead_letters(queue: &dyn Store, count: usize) {
    let owner = Owner::new("bench");
    let sids: Vec<String> = (0..count).map(|number| format!("MM{number:032x}")).collect();
    // Room for the waiting one in a claim.
    for batch in sids.chunks(MAX_BATCH - 1) {
        let messages: Vec<NewMessage> = batch.iter().map(|sid| new_message(sid)).collect();
        assert!(queue.accept(&messages).await.unwrap().iter().all(|answer| *answer == Acceptance::Accepted));
        let routed = claim(queue, &owner, &Lane::inbound()).await.into_iter().map(|work| {
            let mut expansion = expansion(work);
            expansion.deliveries.truncate(1);
            expansion
        });
        queue.expand(&owner, routed.collect()).await.unwrap();
        let texts = claim(queue, &owner, &Lane::of(&ChannelId::sms())).await;
        let dead = |_: &str| Settlement::Dead { cause: DeadCause::Exhausted, attempt: None };
        settle(queue, &owner, texts, dead).await;
    }
}

pub(crate) async fn claim(queue: &dyn Store, owner: &Owner, lane: &Lane) -> Vec<Work> {
    let claim = Claim { owner, lane, max: 128, limits: LaneLimits::default(), busy: &[] };
    queue.claim(claim).await.unwrap().items
}

pub(crate) async fn settle(
    queue: &dyn Store,
    owner: &Owner,
    work: Vec<Work>,
    settlement: impl Fn(&str) -> Settlement,
) {
    let batch = work.into_iter().map(|work| {
        let settlement = settlement(work.lease.key().work.message.as_str());
        Settle { lease: work.lease, settlement }
    });
    let settled = queue.settle(owner, batch.collect()).await.unwrap();
    let ended = |settled: &Settled| matches!(settled, Settled::Dead(_) | Settled::Delivered { late: false });
    assert!(!settled.is_empty() && settled.iter().all(ended), "{settled:?}");
}

fn expansion(work: Work) -> Expansion {
    let delivery = |channel: ChannelId, key: &str, label: &str, recipient: Value| NewDelivery {
        channel,
        destination: DestinationKey::from_stored(&key.repeat(24)),
        label: label.to_owned(),
        recipient: recipient.to_string().into_bytes(),
    };
    let phone = serde_json::json!({"channel": "sms", "to": PHONE});
    let webhook = serde_json::json!({"channel": "slack", "url": WEBHOOK});
    Expansion {
        lease: work.lease,
        subscriber: "GitHub".to_owned(),
        deadline: Duration::from_secs(600),
        deliveries: vec![
            delivery(ChannelId::sms(), "a", "+1******2222", phone),
            delivery(ChannelId::slack(), "b", "hooks.slack.com/…", webhook),
        ],
    }
}

fn attempt(outcome: &str, reason: Reason, status: Option<u16>, code: Option<&str>) -> Attempt {
    Attempt {
        at: Timestamp::from_millis(1_767_225_600_000),
        outcome: outcome.to_owned(),
        reason,
        status,
        code: code.map(str::to_owned),
        ambiguous: false,
    }
}
