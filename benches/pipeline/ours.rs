//! Our programs, as an operator runs them: default configuration, but no rate limits.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fixtures::{ACCOUNT, PUBLIC_URL, TO, TOKEN};
use crate::process::{Process, free_port};

/// The store a program uses.
#[derive(Clone, Copy)]
pub(crate) enum Store {
    /// A Redis on this port.
    Redis(u16),
    /// The file of this installation.
    Embedded,
}

/// Who receives every message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Two phones and a Slack channel.
    PhonesAndSlack,
    /// Three phones.
    Phones,
}

/// A folder with configuration.
pub(crate) struct Ours {
    folder: TempDir,
    /// Not with the configuration: that folder is watched for changes, and every line would be one.
    logs: TempDir,
    provider: String,
    more: String,
}

/// A running program of ours.
pub(crate) struct Program {
    pub(crate) process: Process,
    /// Where its ingress listens, if it has one.
    pub(crate) ingress: u16,
    /// From the start of the process to its readiness.
    pub(crate) ready_after: Duration,
}

impl Ours {
    /// One that delivers to the receiver at `provider`. `queue` and `more` are appended to `[queue]` and to the file.
    pub(crate) fn new(
        store: Store,
        recipients: Recipients,
        provider: &str,
        queue: &str,
        more: &str,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let target = match recipients {
            Recipients::PhonesAndSlack => {
                format!("sms = [\"+14443332222\", \"+10009998765\"]\nslack = [\"{provider}/slack/mfa\"]\n")
            }
            Recipients::Phones => "sms = [\"+14443332222\", \"+10009998765\", \"+16667778888\"]\n".to_owned(),
        };
        let subscribers = format!(
            "[[subscriber]]\nname = \"Example\"\nfrom = [\"{}\"]\n{target}\n[fallback]\nname = \"Unknown\"\n{target}",
            crate::fixtures::FROM
        );
        fs::write(folder.path().join("subscribers.toml"), subscribers)?;
        let mut text = match store {
            Store::Redis(port) => format!("backend = \"redis\"\nurl = \"redis://127.0.0.1:{port}\"\n"),
            Store::Embedded => "backend = \"embedded\"\npath = \"queue.db\"\n".to_owned(),
        };
        let _ = writeln!(text, "{queue}\n\n{more}");
        let provider = provider.to_owned();
        Ok(Self { folder, logs: tempfile::tempdir()?, provider, more: text })
    }

    /// The file of the embedded queue.
    pub(crate) fn queue_file(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    /// Starts a program and waits until it is ready.
    pub(crate) fn start(&self, program: &str) -> io::Result<Program> {
        let (ingress, ops) = (free_port()?, free_port()?);
        let file = self.folder.path().join(format!("{program}-{ops}.toml"));
        let open = "rate = \"off\"\nrate_per_destination = \"off\"\n";
        let config = format!(
            "[ingress]\nlisten = \"127.0.0.1:{ingress}\"\npublic_url = \"{PUBLIC_URL}\"\nrate_per_ip = \"off\"\n\n\
             [ops]\nlisten = \"127.0.0.1:{ops}\"\n\n[twilio]\naccount_sid = \"{ACCOUNT}\"\nauth_tokens = [\"{TOKEN}\"]\n\
             from = \"{TO}\"\napi_base = \"{}\"\n\n[channel.sms]\n{open}\n[channel.slack]\n{open}\n[queue]\n{}\n",
            self.provider, self.more
        );
        fs::write(&file, config)?;
        let mut command = Command::new(path_of(program)?);
        if program == "sms-broadcaster" {
            command.arg("run");
        }
        command.arg("--config").arg(&file);
        let began = Instant::now();
        let mut process = Process::start(command, &self.logs.path().join(program))?;
        process.wait_until_ready(ops, "/readyz")?;
        Ok(Program { process, ingress, ready_after: began.elapsed() })
    }
}

/// The release build of a program: this bench has it built.
fn path_of(program: &str) -> io::Result<&'static str> {
    match program {
        "sms-broadcaster" => Ok(env!("CARGO_BIN_EXE_sms-broadcaster")),
        "sms-ingress" => Ok(env!("CARGO_BIN_EXE_sms-ingress")),
        "sms-worker" => Ok(env!("CARGO_BIN_EXE_sms-worker")),
        _ => Err(io::Error::other("no such program")),
    }
}
