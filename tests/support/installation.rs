//! An installation of the product: a folder with its files, and real programs running on it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::config::Config;
use sms_broadcaster::seal::{KeyId, SealingKey};
use sms_broadcaster::setup::Store;
use sms_broadcaster::source::twilio::sign;
use tempfile::TempDir;

use super::ports::free_port;
use super::provider::{ACCOUNT_SID, AUTH_TOKEN, Provider};

/// Two phones and a Slack channel that get everything.
pub(crate) const PHONES: [&str; 2] = ["+12025550147", "+12025550169"];
/// The name of the Slack webhook.
pub(crate) const SLACK: &str = "mfa";

/// Who gets every message.
pub(crate) const RECIPIENTS: [&str; 3] = [PHONES[0], PHONES[1], SLACK];

/// The longest a program may take to become ready, or a condition to come true.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at something that is to change.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// A folder with a configuration and subscribers.
pub(crate) struct Installation {
    folder: TempDir,
    poster: Poster,
    queue: String,
    more: String,
    provider: String,
}

/// Posts signed webhooks as Twilio does. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Poster {
    client: Client,
}

/// A program about to be started.
pub(crate) struct Launch<'a> {
    installation: &'a Installation,
    program: &'a str,
    queue: String,
    more: String,
    ports: [u16; 2],
    under: Vec<String>,
    path: PathBuf,
}

/// One running program; dropping it kills the process.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// Who reads what it writes, to its end.
    readers: Vec<JoinHandle<()>>,
    /// Where its ingress listens, if it has one.
    pub(crate) ingress: u16,
    /// Where it serves `/metrics` and the like.
    pub(crate) ops: u16,
}

impl Installation {
    /// One on the embedded queue. `more` is appended to the configuration.
    pub(crate) fn embedded(provider: &Provider, more: &str) -> Self {
        Self::with_queue(provider, "backend = \"embedded\"\npath = \"queue.db\"", more)
    }

    /// One on a Redis server.
    pub(crate) fn redis(provider: &Provider, url: &str, more: &str) -> Self {
        Self::with_queue(provider, &on_redis(url), more)
    }

    /// One with these lines as its `[queue]`.
    pub(crate) fn with_queue(provider: &Provider, queue: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Whoever comes second finds it installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The ingress closes a connection that was idle for ten seconds; a request that meets that moment would
        // get no answer.
        let client = Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(5)).build();
        let client = client.expect("a client");
        let installation = Self {
            folder,
            poster: Poster { client },
            queue: queue.to_owned(),
            more: more.to_owned(),
            provider: provider.api_base(),
        };
        let target = format!("sms = {PHONES:?}\nslack = [\"{}\"]\n", provider.slack_url(SLACK));
        installation.write_subscribers(&format!(
            "[[subscriber]]\nname = \"Example\"\nfrom = [\"+12223334444\"]\n{target}\n[fallback]\nname = \"Unknown\"\n{target}"
        ));
        installation.write_config("operator.toml", [0, 0], &installation.queue, &installation.more);
        installation
    }

    /// What starts from now on, and `smsctl`, has these keys; equal names are equal keys.
    pub(crate) fn seal_with(&mut self, names: &[&str]) {
        let key = |name: &&str| {
            let mut bytes = [0; 32];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            let id = KeyId::parse(name).expect("a name");
            format!("{:?}", SealingKey::written(&id, &bytes).expose_secret())
        };
        let keys: Vec<String> = names.iter().map(key).collect();
        let unsealed = self.queue.split("\nencryption_keys").next().expect("lines");
        self.queue = format!("{unsealed}\nencryption_keys = [{}]", keys.join(", "));
        self.write_config("operator.toml", [0, 0], &self.queue, &self.more);
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the subscribers file.
    pub(crate) fn write_subscribers(&self, text: &str) {
        fs::write(self.folder().join("subscribers.toml"), text).expect("the folder is ours");
    }

    fn write_config(&self, name: &str, [ingress, ops]: [u16; 2], queue: &str, more: &str) -> PathBuf {
        let file = self.folder().join(name);
        let config = format!(
            "[ingress]\nlisten = \"127.0.0.1:{ingress}\"\npublic_url = \"https://mfa.example.com\"\nrate_per_ip = \"off\"\n\n\
             [ops]\nlisten = \"127.0.0.1:{ops}\"\n\n[twilio]\naccount_sid = \"{ACCOUNT_SID}\"\n\
             auth_tokens = [\"{AUTH_TOKEN}\"]\nfrom = \"+15005550006\"\napi_base = \"{}\"\n\n[queue]\n{queue}\n\n{more}\n",
            self.provider
        );
        fs::write(&file, config).expect("the folder is ours");
        file
    }

    /// Starts a program and waits until it is ready.
    pub(crate) async fn start(&self, program: &str) -> Program {
        self.program(program).start().await
    }

    /// A program to be started in a way of its own.
    pub(crate) fn program<'a>(&'a self, program: &'a str) -> Launch<'a> {
        let (queue, more) = (self.queue.clone(), self.more.clone());
        let (ports, path) = ([free_port(), free_port()], path_of(program).into());
        Launch { installation: self, program, queue, more, ports, under: Vec::new(), path }
    }

    /// Who posts to it.
    pub(crate) fn poster(&self) -> &Poster {
        &self.poster
    }

    /// The operator's way into the store.
    pub(crate) fn store(&self) -> Store {
        let config = Config::load(&self.folder().join("operator.toml"), &|_| None).unwrap_or_else(|faults| {
            panic!("{}", faults.iter().map(ToString::to_string).collect::<String>())
        });
        Store::open(&config, Clock::system()).expect("the store opens")
    }

    /// Runs `smsctl`.
    pub(crate) fn smsctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smsctl"));
        command.arg("--config").arg(self.folder().join("operator.toml")).args(arguments);
        command.stdin(Stdio::null()).output().expect("smsctl starts")
    }

    /// Runs `smsctl` for an answer in JSON.
    pub(crate) fn smsctl_json(&self, arguments: &[&str]) -> Value {
        let output = self.smsctl(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "smsctl {arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).expect("one JSON value")
    }

    /// Waits until every delivery of a message has ended; what `smsctl status --json` says then.
    pub(crate) async fn wait_until_done(&self, sid: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.smsctl_json(&["status", sid, "--json"]);
            if status["state"] == "done" {
                return status;
            }
            assert!(Instant::now() < end, "not done in {PATIENCE:?}: {status}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Status and body of a path of the ops listener; `None` when nobody answers.
    pub(crate) async fn ops(&self, program: &Program, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}/{path}", program.ops);
        let answer = self.poster.client.get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }

    /// Posts a signed webhook; the status of the answer, `None` without one.
    pub(crate) async fn post(&self, ingress: u16, sid: &str, from: &str, body: &str) -> Option<u16> {
        self.poster.post(ingress, sid, from, body).await
    }

    /// Waits until a metric of `program` has a line that equals `line`.
    pub(crate) async fn wait_for_metric(&self, program: &Program, line: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.ops(program, "metrics").await.map(|(_, text)| text).unwrap_or_default();
            if text.lines().any(|have| have == line) {
                return;
            }
            assert!(Instant::now() < end, "{line} did not come true; the last metrics were\n{text}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until `/readyz` answers with `status`.
    pub(crate) async fn wait_for_readiness(&self, program: &mut Program, status: u16) {
        let end = Instant::now() + PATIENCE;
        while self.ops(program, "readyz").await.is_none_or(|(have, _)| have != status) {
            assert!(Instant::now() < end, "/readyz is not {status} in {PATIENCE:?}");
            assert!(program.has_ended().is_none(), "the program ended: {:?}", program.log());
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The lines of `[queue]` for a Redis server.
pub(crate) fn on_redis(url: &str) -> String {
    format!("backend = \"redis\"\nurl = \"{url}\"")
}

impl Poster {
    /// Posts a signed webhook; the status of the answer, `None` without one.
    pub(crate) async fn post(&self, ingress: u16, sid: &str, from: &str, body: &str) -> Option<u16> {
        self.post_with(ingress, sid, from, body, &[]).await
    }

    /// Posts a signed webhook that says it is part of these traces.
    pub(crate) async fn post_with(
        &self,
        ingress: u16,
        sid: &str,
        from: &str,
        body: &str,
        traceparents: &[&str],
    ) -> Option<u16> {
        let form = [
            ("AccountSid", ACCOUNT_SID),
            ("MessageSid", sid),
            ("From", from),
            ("To", "+15005550006"),
            ("Body", body),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let signature = sign(&SecretString::from(AUTH_TOKEN), "https://mfa.example.com/twilio/sms", &form);
        let request = self.client.post(format!("http://127.0.0.1:{ingress}/twilio/sms"));
        let mut request =
            request.header("X-Twilio-Signature", signature).form(&form).timeout(Duration::from_secs(10));
        for traceparent in traceparents {
            request = request.header("traceparent", *traceparent);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }
}

impl Launch<'_> {
    /// With other lines as its `[queue]`: by another way to the same store, say.
    pub(crate) fn queue(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.queue);
        self
    }

    /// With these lines in place of what the installation's configuration ends with.
    pub(crate) fn more(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.more);
        self
    }

    /// Started by these words, which end in becoming it: `env NAME=value`, say.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The program of that name in another folder: of another version.
    pub(crate) fn from(mut self, folder: &Path) -> Self {
        self.path = folder.join(self.program);
        self
    }

    /// On the ports of one that ended.
    pub(crate) fn in_place_of(mut self, ended: &Program) -> Self {
        self.ports = [ended.ingress, ended.ops];
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Program {
        let installation = self.installation;
        let mut program = self.spawn();
        installation.wait_for_readiness(&mut program, 200).await;
        program
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Program {
        let ports @ [ingress, ops] = self.ports;
        let name = format!("{}-{ops}.toml", self.program);
        let config = self.installation.write_config(&name, ports, &self.queue, &self.more);
        let mut child = command(&self.under, &self.path)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = Arc::default();
        let readers = vec![
            keep(child.stdout.take().expect("its standard output"), &lines),
            keep(child.stderr.take().expect("its standard error"), &lines),
        ];
        Program { child, lines, readers, ingress, ops }
    }
}

/// Reads to the end so that the program never waits for us. What it says is also shown when the test fails.
fn keep(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            println!("{line}");
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

impl Program {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_to_the_end();
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let status = self.child.wait().ok()?;
        self.read_to_the_end();
        status.code()
    }

    /// Once it has ended: all it wrote is in its log.
    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// Sends a signal by its short name.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// How it ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("it is our child")?;
        self.read_to_the_end();
        Some(status)
    }

    /// Waits for its end.
    pub(crate) async fn wait_for_end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(Instant::now() < end, "it has not ended in {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything it wrote so far, line by line; all it ever wrote once it is known to have ended.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time it has used so far, its own and the kernel's for it.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process is there");
        // After the name, which may hold blanks: state is field 3, user and system time are 14 and 15.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap_or(0))
            .sum();
        // A tick is 10 ms for user space on every Linux.
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by its short name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "the process can be signalled");
}

/// A command that is `program`, started by the words of `under` if there are any.
pub(crate) fn command(under: &[String], program: impl AsRef<OsStr>) -> Command {
    match under {
        [] => Command::new(program),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(program);
            command
        }
    }
}

/// A MessageSid for each number.
pub(crate) fn sid(number: u32) -> String {
    format!("SM{number:032x}")
}

/// Where a program was built.
pub(crate) fn path_of(program: &str) -> &'static str {
    match program {
        "sms-broadcaster" => env!("CARGO_BIN_EXE_sms-broadcaster"),
        "sms-ingress" => env!("CARGO_BIN_EXE_sms-ingress"),
        "sms-worker" => env!("CARGO_BIN_EXE_sms-worker"),
        _ => panic!("no such program"),
    }
}
