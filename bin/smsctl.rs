//! `smsctl`, the operator's command line: flags, configuration, one operation, an exit code.

use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use secrecy::ExposeSecret;
use sms_broadcaster::admin::{self, Style, TestMessage, json, text};
use sms_broadcaster::channel::sms::SmsSender;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::code::Recogniser;
use sms_broadcaster::config::{self, Config, QueueChoice, process_environment};
use sms_broadcaster::message::{Address, Body, InboundMessage, MessageId};
use sms_broadcaster::queue::contract::QueueError;
use sms_broadcaster::seal::{self, KeyId, Keyring, SealingKey};
use sms_broadcaster::setup::{Setup, Store};
use sms_broadcaster::source::twilio::SOURCE;
use tokio::time::{MissedTickBehavior, interval};

use answer::{Failure, complain, show, show_json};
use flags::{
    Command, DeadCommand, DoctorFlags, Flags, KeygenFlags, ListFlags, MessageFlags, PurgeFlags, RequeueFlags,
    RouteFlags, SendFlags, ShowFlags, StatsFlags, StatusFlags,
};

#[path = "smsctl/answer.rs"]
mod answer;
#[path = "smsctl/flags.rs"]
mod flags;
#[path = "smsctl/inspect.rs"]
mod inspect;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format_args!("cannot start: {}", error.kind())).tell(),
    };
    match runtime.block_on(run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

async fn run(flags: Flags) -> Result<(), Failure> {
    let Flags { config, command } = flags;
    let folder = std::env::current_dir().unwrap_or_default();
    let file = || config::find(config.as_deref(), &process_environment, &folder).map_err(Failure::usage);
    match command {
        Command::Inspect(flags) => inspect::run(flags),
        Command::Check => check(&file()?).await,
        Command::Route(flags) => route(&file()?, flags),
        Command::Send(flags) => send(&file()?, flags).await,
        Command::Stats(flags) => stats(&file()?, &flags).await,
        Command::Dead(DeadCommand::List(flags)) => list(&file()?, flags).await,
        Command::Dead(DeadCommand::Show(flags)) => show_letter(&file()?, &flags).await,
        Command::Dead(DeadCommand::Requeue(flags)) | Command::Requeue(flags) => {
            requeue(&file()?, flags).await
        }
        Command::Dead(DeadCommand::Purge(flags)) => purge(&file()?, flags).await,
        Command::Status(flags) => status(&file()?, &flags).await,
        Command::Doctor(flags) => doctor(&file()?, &flags).await,
        Command::Keygen(flags) => keygen(&flags),
    }
}

fn load(file: &Path) -> Result<Config, Failure> {
    Ok(Config::load(file, &process_environment)?)
}

fn open(config: &Config) -> Result<Store, Failure> {
    match Store::open(config, Clock::system()) {
        Err(error) if is_not_made_yet(config) => {
            Err(Failure::failed(format_args!("{error} (a service makes it at its first start)")))
        }
        opened => Ok(opened?),
    }
}

/// Whether the store is a file that no service has made yet.
fn is_not_made_yet(config: &Config) -> bool {
    match &config.queue {
        QueueChoice::Embedded { path } => match path.metadata() {
            Ok(found) => found.is_file() && found.len() == 0,
            Err(error) => error.kind() == ErrorKind::NotFound,
        },
        QueueChoice::Redis(_) => false,
    }
}

fn style() -> Style {
    Style::of(std::io::stdout().is_terminal(), &process_environment)
}

async fn check(file: &Path) -> Result<(), Failure> {
    let Setup { config, subscribers, templates } = Setup::load(file, &process_environment)?;
    for warning in subscribers.warnings() {
        complain("warning", warning);
    }
    for warning in admin::about_templates(&templates) {
        complain("warning", warning);
    }
    let queue = if is_not_made_yet(&config) {
        "not made yet; a service makes it at its first start"
    } else {
        reach(&config).await.map_err(|error| Failure::usage(format_args!("queue: {error}")))?;
        "reached"
    };
    let queue = match &config.queue {
        QueueChoice::Embedded { path } => format!("{}: {queue}", path.display()),
        QueueChoice::Redis(_) => format!("redis: {queue}"),
    };
    let mut checked = vec![
        ("configuration", config.file.clone()),
        ("subscribers", format!("{}: {}", config.subscribers.display(), subscribers_text(subscribers.len()))),
        ("queue", queue),
    ];
    checked.extend(keys_text(&config.keys).map(|text| ("keys", text)));
    show(&text::checked(&checked, style()))
}

/// Which keys there are; `None` without any.
fn keys_text(keys: &Keyring) -> Option<String> {
    let mut names = keys.ids();
    let first = names.next()?;
    let others: String = names.map(|name| format!(", {name} opens too")).collect();
    Some(format!("{first} seals{others}"))
}

fn subscribers_text(count: usize) -> String {
    match count {
        1 => "1 subscriber and the fallback".to_owned(),
        count => format!("{count} subscribers and the fallback"),
    }
}

async fn reach(config: &Config) -> Result<(), QueueError> {
    let store = Store::open(config, Clock::system())?;
    store.queue.prepare().await?;
    store.queue.ping().await
}

fn route(file: &Path, flags: RouteFlags) -> Result<(), Failure> {
    let Setup { config, subscribers, templates } = Setup::load(file, &process_environment)?;
    let TestMessage { id, from, to, body } = message(&config, flags.message, admin::random_message_id())?;
    let message = InboundMessage { id, source: SOURCE.to_owned(), from, to, body, trace: None };
    let preview =
        admin::preview(&subscribers, &templates, &Recogniser::new(), &message, config.worker.deadline);
    if flags.json { show_json(&json::route(&preview)) } else { show(&text::route(&preview, style())) }
}

async fn send(file: &Path, flags: SendFlags) -> Result<(), Failure> {
    let config = load(file)?;
    let id = match flags.sid {
        Some(sid) => MessageId::twilio(&sid).map_err(Failure::of("--sid"))?,
        None => admin::random_message_id(),
    };
    let url = match flags.url {
        Some(url) => admin::parse_webhook_url(&url).map_err(Failure::of("--url"))?,
        None => admin::webhook_at(config.ingress.listen)
            .ok_or_else(|| Failure::usage("ingress.listen has port 0: give the address with --url"))?,
    };
    let message = message(&config, flags.message, id)?;
    admin::post(&message, &config.twilio, &url).await.map_err(Failure::failed)?;
    if flags.json { show_json(&json::sent(&message.id)) } else { show(&text::sent(&message.id)) }
}

/// The message of the flags. Says so when the ingress would drop it.
fn message(config: &Config, flags: MessageFlags, id: MessageId) -> Result<TestMessage, Failure> {
    let to = match (flags.to, &config.sms.sender) {
        (Some(to), _) => to,
        (None, SmsSender::From(number)) => number.as_str().to_owned(),
        (None, SmsSender::Service(_)) => {
            let why = "--to is needed: the configuration names a messaging service and no number";
            return Err(Failure::usage(why));
        }
    };
    let from = Address::parse(&flags.from).map_err(Failure::of("--from"))?;
    let to = Address::parse(&to).map_err(Failure::of("--to"))?;
    if config.ingress.loop_guard.stops(&from) {
        complain("warning", "--from is our own sending number: ingress.loop_guard drops what comes from it");
    }
    Ok(TestMessage { id, from, to, body: Body::new(flags.body) })
}

async fn stats(file: &Path, flags: &StatsFlags) -> Result<(), Failure> {
    let store = open(&load(file)?)?;
    if flags.watch {
        return watch(&store, flags.json).await;
    }
    let stats = store.admin.stats().await?;
    if flags.json { show_json(&json::stats(&stats)) } else { show(&text::stats(&stats, style())) }
}

/// Looks every second until Ctrl-C. A store that goes away after the first look may come back.
async fn watch(store: &Store, as_json: bool) -> Result<(), Failure> {
    let style = style();
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut looks = interval(Duration::from_secs(1));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = false;
    loop {
        tokio::select! {
            _ = &mut stop => return Ok(()),
            _ = looks.tick() => {}
        }
        match store.admin.stats().await {
            Ok(stats) if as_json => show_json(&json::stats(&stats))?,
            Ok(stats) if style.redraws() => show(&text::stats_screen(&stats, !seen, style))?,
            Ok(stats) => show(&text::stats_line(&stats, Clock::system().now()))?,
            Err(error) if seen => complain("error", error),
            Err(error) => return Err(error.into()),
        }
        seen = true;
    }
}

async fn list(file: &Path, flags: ListFlags) -> Result<(), Failure> {
    let store = open(&load(file)?)?;
    let limit = usize::try_from(flags.limit).unwrap_or(usize::MAX);
    let letters = store.admin.dead_letters(&flags.filter.into(), limit).await?;
    if flags.json {
        show_json(&json::letters(&letters))
    } else {
        show(&text::letters(&letters, limit, style()))
    }
}

async fn show_letter(file: &Path, flags: &ShowFlags) -> Result<(), Failure> {
    let store = open(&load(file)?)?;
    // What cannot be the name of a letter is the name of none.
    let found = match flags.id.parse() {
        Ok(id) => store.admin.dead_letter(&id).await?,
        Err(_) => None,
    };
    let Some(letter) = found else {
        return Err(Failure::Failed(not_found(std::slice::from_ref(&flags.id))));
    };
    if flags.json {
        show_json(&json::letter(&letter, flags.reveal))
    } else {
        show(&text::letter(&letter, flags.reveal, style()))
    }
}

async fn requeue(file: &Path, flags: RequeueFlags) -> Result<(), Failure> {
    let (as_json, dry_run) = (flags.choice.json, flags.choice.dry_run);
    let selection = flags.choice.selection().map_err(Failure::usage)?;
    let config = load(file)?;
    let store = open(&config)?;
    let deadline = flags.deadline.unwrap_or(config.worker.deadline);
    let returned = if dry_run {
        admin::would_requeue(&*store.admin, &selection).await
    } else {
        admin::requeue(&*store.admin, &selection, deadline).await
    };
    let returned = returned.map_err(Failure::failed)?;
    if as_json { show_json(&json::returned(&returned)) } else { show(&text::returned(&returned, dry_run)) }?;
    all_found(&returned.unknown)
}

async fn purge(file: &Path, flags: PurgeFlags) -> Result<(), Failure> {
    let (as_json, dry_run) = (flags.choice.json, flags.choice.dry_run);
    let selection = flags.choice.selection().map_err(Failure::usage)?;
    let store = open(&load(file)?)?;
    let purged = if dry_run {
        admin::would_purge(&*store.admin, &selection).await
    } else {
        admin::purge(&*store.admin, &selection).await
    };
    let purged = purged.map_err(Failure::failed)?;
    if as_json { show_json(&json::purged(&purged)) } else { show(&text::purged(&purged, dry_run)) }?;
    all_found(&purged.unknown)
}

fn all_found(unknown: &[String]) -> Result<(), Failure> {
    if unknown.is_empty() { Ok(()) } else { Err(Failure::Failed(not_found(unknown))) }
}

fn not_found(names: &[String]) -> Vec<String> {
    let line = |name: &String| format!("no dead letter {} (see smsctl dead list)", name.escape_debug());
    names.iter().map(line).collect()
}

async fn doctor(file: &Path, flags: &DoctorFlags) -> Result<(), Failure> {
    let store = open(&load(file)?)?;
    let examination = admin::examine(&*store.admin, flags.repair).await?;
    if flags.json {
        show_json(&json::examined(&examination))
    } else {
        show(&text::examined(&examination, flags.repair, style()))
    }?;
    if examination.is_sound { Ok(()) } else { Err(Failure::failed("the store does not hold what it must")) }
}

/// Prints one line and nothing else, so that it can be the content of a file.
fn keygen(flags: &KeygenFlags) -> Result<(), Failure> {
    let id = match &flags.id {
        Some(id) => KeyId::parse(id).map_err(Failure::of("--id"))?,
        None => KeyId::dated(Clock::system().now(), seal::random()),
    };
    show(&format!("{}\n", SealingKey::written(&id, &seal::random()).expose_secret()))
}

async fn status(file: &Path, flags: &StatusFlags) -> Result<(), Failure> {
    let store = open(&load(file)?)?;
    let found = match MessageId::parse(&flags.message_id) {
        Ok(id) => store.admin.status(&id).await?,
        Err(_) => None,
    };
    let Some(message) = found else {
        let name = flags.message_id.escape_debug();
        let why = "it was never accepted, or its record is gone after message.retention";
        return Err(Failure::failed(format_args!("no message {name}: {why}")));
    };
    if flags.json { show_json(&json::status(&message)) } else { show(&text::status(&message, style())) }
}
