//! The flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sms_broadcaster::admin::{self, Selection};
use sms_broadcaster::delivery::DeadCause;
use sms_broadcaster::queue::contract::DeadFilter;

/// Looks into SMS Broadcaster and lends a hand: checks, test messages, counts, dead letters.
#[derive(Parser)]
#[command(name = "smsctl", version)]
pub(crate) struct Flags {
    /// Configuration file [default: $SMS_BROADCASTER_CONFIG, ./sms-broadcaster.toml, /etc/sms-broadcaster/config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check the configuration, the subscribers and whether the queue can be reached
    Check,
    /// Show who would get a text, and how it would read; sends nothing
    Route(RouteFlags),
    /// Show what is recognised in a text: one-time code, service; needs no configuration
    Inspect(InspectFlags),
    /// Post a signed test message to the ingress, as Twilio would
    Send(SendFlags),
    /// Show the counts of the queue
    Stats(StatsFlags),
    /// Look at dead letters, send them back, forget them
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Send dead letters back to the queue (short for `dead requeue`)
    Requeue(RequeueFlags),
    /// Show where the deliveries of one message stand
    Status(StatusFlags),
    /// Look whether the store holds what it must, beside the running service; exit code 1 if not
    Doctor(DoctorFlags),
    /// Make a key for queue.encryption_keys; needs no configuration
    Keygen(KeygenFlags),
}

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, newest first
    List(ListFlags),
    /// Show one dead letter and every attempt at it
    Show(ShowFlags),
    /// Send dead letters back to the queue, each alone, with a fresh deadline
    Requeue(RequeueFlags),
    /// Forget dead letters
    Purge(PurgeFlags),
}

#[derive(Args)]
pub(crate) struct MessageFlags {
    /// Who sends it: a number, a short code or a name
    #[arg(long, value_name = "SENDER")]
    pub(crate) from: String,
    /// Our number that receives it [default: twilio.from of the configuration]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) to: Option<String>,
    /// What it says
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) body: String,
}

#[derive(Args)]
pub(crate) struct RouteFlags {
    #[command(flatten)]
    pub(crate) message: MessageFlags,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct InspectFlags {
    /// Who sends it: a number, a short code or a name
    #[arg(long, value_name = "SENDER", conflicts_with = "stdin")]
    pub(crate) from: Option<String>,
    /// What it says
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "stdin")]
    pub(crate) body: Option<String>,
    /// Read one JSON object {"text": …, "from": …} a line, and answer each with one, in order
    #[arg(long, conflicts_with = "body")]
    pub(crate) stdin: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct SendFlags {
    #[command(flatten)]
    pub(crate) message: MessageFlags,
    /// Where to post it [default: /twilio/sms at ingress.listen of the configuration]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Its MessageSid: SM and 32 hexadecimal digits [default: a random one]
    #[arg(long, value_name = "SID")]
    pub(crate) sid: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct StatsFlags {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args)]
pub(crate) struct DoctorFlags {
    /// Put right what can be: work that lost its place goes back to its lane, what can never be delivered
    /// becomes a dead letter, counts are taken anew
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct KeygenFlags {
    /// Its name: letters, digits, dots, dashes and underscores, at most 32 [default: k, the date and four
    /// random digits]
    #[arg(long, value_name = "NAME")]
    pub(crate) id: Option<String>,
}

#[derive(Args)]
pub(crate) struct StatusFlags {
    /// The message: a MessageSid, or the name of a source, a colon and its id
    pub(crate) message_id: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct FilterFlags {
    /// Only of this channel: sms, slack, or in for messages whose routing died
    #[arg(long, value_parser = admin::parse_channel)]
    pub(crate) channel: Option<String>,
    /// Only of this cause: permanent, exhausted, expired, poison, unroutable or undecryptable
    #[arg(long, value_parser = admin::parse_cause)]
    pub(crate) cause: Option<DeadCause>,
    /// Only of the subscriber of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) subscriber: Option<String>,
    /// Only what died at most so long ago, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = admin::parse_since)]
    pub(crate) since: Option<Duration>,
}

impl FilterFlags {
    fn is_empty(&self) -> bool {
        self.channel.is_none() && self.cause.is_none() && self.subscriber.is_none() && self.since.is_none()
    }
}

impl From<FilterFlags> for DeadFilter {
    fn from(flags: FilterFlags) -> Self {
        let FilterFlags { channel, cause, subscriber, since } = flags;
        Self { channel, cause, subscriber, since }
    }
}

#[derive(Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    pub(crate) filter: FilterFlags,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ShowFlags {
    /// The dead letter
    pub(crate) id: String,
    /// Show its text too, who sent it and to which number
    #[arg(long)]
    pub(crate) reveal: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ChoiceFlags {
    /// The dead letters
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// All that pass the filters; needs --yes, or --dry-run to look first
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: FilterFlags,
    /// Yes, all of them
    #[arg(long)]
    pub(crate) yes: bool,
    /// Change nothing, only say what would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl ChoiceFlags {
    /// The letters they choose, or what speaks against it.
    pub(crate) fn selection(self) -> Result<Selection, &'static str> {
        match (self.all, self.filter.is_empty(), self.yes || self.dry_run) {
            (false, true, _) => Ok(Selection::Named(self.ids)),
            (false, false, _) => Err("filters choose among all letters: give --all, or ids alone"),
            (true, _, true) => Ok(Selection::Every(self.filter.into())),
            (true, _, false) => Err("--all needs --yes; look first with --dry-run"),
        }
    }
}

#[derive(Args)]
pub(crate) struct RequeueFlags {
    #[command(flatten)]
    pub(crate) choice: ChoiceFlags,
    /// Time they get, from now on [default: message.deadline of the configuration]
    #[arg(long, value_name = "DURATION", value_parser = admin::parse_deadline)]
    pub(crate) deadline: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct PurgeFlags {
    #[command(flatten)]
    pub(crate) choice: ChoiceFlags,
}
