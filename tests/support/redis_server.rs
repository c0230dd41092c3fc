//! A real redis-server of a test's own: free port, empty folder, ended with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::installation::command;
use super::ports::free_port;
use super::waiting::until;

/// The longest an answer, or its start, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running redis-server. Dropping it kills the process and removes its folder.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
    extra: Vec<String>,
    under: Vec<String>,
}

impl RedisServer {
    /// Starts one with AOF and no eviction. What it answered is with the operating system, so killing it
    /// loses nothing: with `appendfsync everysec` it would put off writing for up to 2 s while the disk is
    /// busy, and answer all the same.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further options: `&["--maxmemory", "4mb"]`.
    pub(crate) fn start_with(extra: &[&str]) -> Self {
        Self::start_under(&[], extra)
    }

    /// Starts one by the words `under`, which end in becoming it, with further options.
    pub(crate) fn start_under(under: &[&str], extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
        let (under, extra) = (owned(under), owned(extra));
        let port = free_port();
        let child = spawn(&under, port, folder.path(), &extra);
        Self { child, port, folder, extra, under }
    }

    /// `redis://127.0.0.1:{port}`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it as `kill -9` does; the data stay.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.under, self.port, self.folder.path(), &self.extra);
    }

    /// Starts it again on the same port and data, with other options than before.
    pub(crate) fn restart_with(&mut self, extra: &[&str]) {
        self.extra = extra.iter().map(|&option| option.to_owned()).collect();
        self.restart();
    }

    /// Its process id, for signals.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends one command, words without blanks, and returns the raw reply.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("redis-server answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).expect("the command is written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        reply.strip_suffix("+OK\r\n").unwrap_or(&reply).trim_end().to_owned()
    }

    /// A number that `INFO` tells under this name.
    pub(crate) fn info(&self, name: &str) -> u64 {
        let page = self.command("INFO");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {page}"))
    }

    /// How many consumers the group of this stream has; 0 without one.
    pub(crate) fn consumers(&self, stream: &str) -> usize {
        let page = self.command(&format!("XINFO CONSUMERS sq1:{{0}}:{stream} w"));
        let count = page.strip_prefix('*').and_then(|rest| rest.lines().next()?.parse().ok());
        count.unwrap_or(0)
    }

    /// Makes it a replica of `master`, and waits until it has everything.
    pub(crate) async fn follow(&self, master: &RedisServer) {
        let answer = self.command(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        assert!(answer.starts_with("+OK"), "{answer}");
        until("the replica is connected", || {
            self.command("INFO replication").lines().any(|line| line == "master_link_status:up")
        })
        .await;
    }

    /// Waits until it has everything that `master`, which it follows, has by now: a replica hears of it later.
    pub(crate) async fn catch_up_with(&self, master: &RedisServer) {
        let by_now = master.info("master_repl_offset");
        until("the replica has what its master has", || self.info("slave_repl_offset") >= by_now).await;
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts one, and waits until it says itself that it is ready: somebody else may answer at its port.
fn spawn(under: &[String], port: u16, folder: &Path, extra: &[String]) -> Child {
    let mut child = command(under, "redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder)
        .args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "no",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
            // A replica's copy is begun when it asks, not five seconds later in case another asks too.
            "--repl-diskless-sync-delay",
            "0",
        ])
        .args(extra)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server can be started; ./test installs it");
    let log = BufReader::new(child.stdout.take().expect("its standard output"));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // To the end, so that it never waits for us.
        for line in log.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let (end, mut said) = (Instant::now() + PATIENCE, Vec::new());
    while !said.last().is_some_and(|line: &String| line.contains("Ready to accept connections")) {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => said.push(line),
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("redis-server is not ready ({why}); it said {said:#?}");
            }
        }
    }
    child
}
