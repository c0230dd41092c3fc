//! The whole configuration. Only programs and boot see it; everything else is given its own part.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use tracing::Level;

use super::read::build;
use crate::channel::slack::SlackSettings;
use crate::channel::sms::SmsSettings;
use crate::delivery::ChannelId;
use crate::document::{self, Environment, Fault};
use crate::ingress::IngressSettings;
use crate::queue::contract::QueueSettings;
use crate::queue::redis::RedisSettings;
use crate::retry::RetryPolicy;
use crate::seal::Keyring;
use crate::source::twilio::TwilioSettings;
use crate::subscribers::Subscribers;
use crate::telemetry::TelemetrySettings;
use crate::worker::settings::{ChannelPlan, WorkerSettings};

/// Which back-end the queue has.
#[derive(Clone, Debug)]
pub enum QueueChoice {
    /// A file of this machine.
    Embedded {
        /// The file; its folder need not exist yet.
        path: PathBuf,
    },
    /// A Redis server.
    Redis(RedisSettings),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// The least important level that is logged.
    pub level: Level,
}

/// Everything the configuration file says, with defaults filled in and all cross-checks passed. Its
/// `Debug` is [`Config::masked`].
#[derive(Clone)]
pub struct Config {
    /// The file it was read from, as it was named.
    pub file: String,
    /// The subscribers file.
    pub subscribers: PathBuf,
    /// The webhook receiver.
    pub ingress: IngressSettings,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub ops_listen: SocketAddr,
    /// What tells Twilio's requests from others.
    pub twilio: TwilioSettings,
    /// The `sms` channel.
    pub sms: SmsSettings,
    /// The `slack` channel.
    pub slack: SlackSettings,
    /// Which back-end the queue has.
    pub queue: QueueChoice,
    /// The folder in which the ingress keeps messages while Redis is away, if it is to.
    pub spool: Option<PathBuf>,
    /// What every back-end needs to know.
    pub queue_settings: QueueSettings,
    /// The keys that seal what the queue stores.
    pub keys: Keyring,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// The worker.
    pub worker: WorkerSettings,
    /// Time-outs and rates of every channel.
    pub channels: BTreeMap<ChannelId, ChannelPlan>,
    /// The template of every channel, as text that [`crate::template::Templates::parse`] takes.
    pub templates: BTreeMap<ChannelId, String>,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is traced, and for whom.
    pub telemetry: TelemetrySettings,
}

impl Config {
    /// Reads the file at `path`, or tells every fault in it, in the order of lines.
    ///
    /// `env` is where `${NAME}` is looked up ([`super::process_environment`] in a program). Relative paths in the
    /// file start in its folder. The subscribers file is not read.
    pub fn load(path: &Path, env: &Environment<'_>) -> Result<Self, Vec<Fault>> {
        document::load(path, env, |root| build(root, path))
    }

    /// Reads a configuration from its text, as if it stood in the file `path`.
    pub fn parse(text: &str, path: &Path, env: &Environment<'_>) -> Result<Self, Vec<Fault>> {
        let folder = path.parent().unwrap_or(Path::new(""));
        document::read(text, &path.display().to_string(), folder, env, |root| build(root, path))
    }

    /// What neither file shows alone: deadlines of subscribers beyond `message.retention`.
    pub fn check(&self, subscribers: &Subscribers) -> Vec<Fault> {
        subscribers.deadlines_beyond(self.queue_settings.retention)
    }

    /// The secret for [`crate::delivery::DestinationKeyer`]: of the first encryption key; without any, the
    /// first auth token.
    ///
    /// Every process of a fleet has it, and nobody who only sees the store does. When it changes,
    /// destinations get new names: pauses and rates start anew, work in the store is not harmed.
    pub fn destination_secret(&self) -> &[u8] {
        // There is always a first token: an empty list is a fault.
        let token =
            || self.twilio.auth_tokens.first().map_or(&[][..], |token| token.expose_secret().as_bytes());
        self.keys.destination_secret().unwrap_or_else(token)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}
