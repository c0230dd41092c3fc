//! An installation of the product: a folder with its files, and real programs running on it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use secrecy::SecretString;
use sms_broadcaster::source::twilio::sign;
use tempfile::TempDir;

use super::provider::{ACCOUNT_SID, AUTH_TOKEN, Provider};

/// Two phones and a Slack channel that get everything.
pub(crate) const PHONES: [&str; 2] = ["+12025550147", "+12025550169"];
/// The name of the Slack webhook.
pub(crate) const SLACK: &str = "mfa";

/// A folder with a configuration and subscribers.
pub(crate) struct Installation {
    folder: TempDir,
    client: Client,
    queue: String,
    more: String,
    provider: String,
}

/// One running program; dropping it kills the process.
pub(crate) struct Program {
    child: Child,
    /// Where its ingress listens, if it has one.
    pub(crate) ingress: u16,
    /// Where it serves `/metrics` and the like.
    pub(crate) ops: u16,
}

impl Installation {
    /// One on the embedded queue. `more` is appended to the configuration.
    pub(crate) fn embedded(provider: &Provider, more: &str) -> Self {
        Self::new(provider, "backend = \"embedded\"\npath = \"queue.db\"", more)
    }

    /// One on a Redis server.
    pub(crate) fn redis(provider: &Provider, url: &str, more: &str) -> Self {
        Self::new(provider, &format!("backend = \"redis\"\nurl = \"{url}\""), more)
    }

    fn new(provider: &Provider, queue: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let target = format!("sms = {PHONES:?}\nslack = [\"{}\"]\n", provider.slack_url(SLACK));
        let subscribers = format!(
            "[[subscriber]]\nname = \"Example\"\nfrom = [\"+12223334444\"]\n{target}\n[fallback]\nname = \"Unknown\"\n{target}"
        );
        fs::write(folder.path().join("subscribers.toml"), subscribers).expect("the folder is ours");
        // Whoever comes second finds it installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { folder, client, queue: queue.to_owned(), more: more.to_owned(), provider: provider.api_base() }
    }

    /// Starts a program and waits until it is ready.
    pub(crate) async fn start(&self, program: &str) -> Program {
        let (ingress, ops) = (free_port(), free_port());
        let file = self.folder.path().join(format!("{program}-{ops}.toml"));
        let config = format!(
            "[ingress]\nlisten = \"127.0.0.1:{ingress}\"\npublic_url = \"https://mfa.example.com\"\nrate_per_ip = \"off\"\n\n\
             [ops]\nlisten = \"127.0.0.1:{ops}\"\n\n[twilio]\naccount_sid = \"{ACCOUNT_SID}\"\n\
             auth_tokens = [\"{AUTH_TOKEN}\"]\nfrom = \"+15005550006\"\napi_base = \"{}\"\n\n[queue]\n{}\n\n{}\n",
            self.provider, self.queue, self.more
        );
        fs::write(&file, config).expect("the folder is ours");
        let mut child = Command::new(path_of(program))
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = child.stderr.take().expect("its standard error");
        // Read to the end so that the program never waits for us; shown when the test fails.
        std::thread::spawn(move || {
            BufReader::new(errors).lines().map_while(Result::ok).for_each(|line| println!("{line}"))
        });
        let program = Program { child, ingress, ops };
        let end = Instant::now() + Duration::from_secs(30);
        while self.ops(&program, "readyz").await.is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < end, "not ready in 30 s");
            tokio::task::yield_now().await;
        }
        program
    }

    /// Status and body of a path of the ops listener; `None` when nobody answers.
    pub(crate) async fn ops(&self, program: &Program, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}/{path}", program.ops);
        let answer = self.client.get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }

    /// Posts a signed webhook; the status of the answer, `None` without one.
    pub(crate) async fn post(&self, ingress: u16, sid: &str, from: &str, body: &str) -> Option<u16> {
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
        let request =
            request.header("X-Twilio-Signature", signature).form(&form).timeout(Duration::from_secs(10));
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Waits until a metric of `program` has a line that equals `line`.
    pub(crate) async fn wait_for_metric(&self, program: &Program, line: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.ops(program, "metrics").await.map(|(_, text)| text).unwrap_or_default();
            if text.lines().any(|have| have == line) {
                return;
            }
            assert!(Instant::now() < end, "{line} did not come true; the last metrics were\n{text}");
            tokio::task::yield_now().await;
        }
    }
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
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "the program can be signalled");
        self.child.wait().ok()?.code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A MessageSid for each number.
pub(crate) fn sid(number: u32) -> String {
    format!("SM{number:032x}")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn path_of(program: &str) -> &'static str {
    match program {
        "sms-broadcaster" => env!("CARGO_BIN_EXE_sms-broadcaster"),
        "sms-ingress" => env!("CARGO_BIN_EXE_sms-ingress"),
        "sms-worker" => env!("CARGO_BIN_EXE_sms-worker"),
        _ => panic!("no such program"),
    }
}
