//! A real redis-server of a test's own: free port, empty folder, ended with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::installation::command;
use super::sentinels::until;

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
        // The port is free when asked and may be taken a moment later: the loser tries another.
        for _ in 0..20 {
            let port = free_port();
            let mut child = spawn(&under, port, folder.path(), &extra);
            if answers(port, &mut child) {
                return Self { child, port, folder, extra, under };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("redis-server did not start; is it installed? ./test installs it");
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
        assert!(answers(self.port, &mut self.child), "redis-server did not come back");
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
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out can be set");
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
        let end = Instant::now() + Duration::from_secs(30);
        while !self.command("INFO replication").lines().any(|line| line == "master_link_status:up") {
            assert!(Instant::now() < end, "the replica is not connected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

/// Ports that no system gives to connections by itself.
const PORTS: Range<u16> = 12_000..32_000;

/// A port that was free a moment ago, and another one at each call. One that the system chose might be given to a
/// connection of somebody's before it is listened on.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(fastrand::u32(..)));
    let number = u32::from(PORTS.end - PORTS.start);
    for _ in 0..number {
        let place = NEXT.fetch_add(1, Ordering::Relaxed) % number;
        let port = PORTS.start + u16::try_from(place).expect("it is in the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

fn spawn(under: &[String], port: u16, folder: &Path, extra: &[String]) -> Child {
    command(under, "redis-server")
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
        ])
        .args(extra)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server can be started; ./test installs it")
}

/// Whether it answers PING before it ends or ten seconds are over.
fn answers(port: u16, child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end && child.try_wait().ok().flatten().is_none() {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
            let mut reply = [0; 7];
            let asked = stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut reply));
            if asked.is_ok() && &reply == b"+PONG\r\n" {
                return true;
            }
        }
        std::thread::yield_now();
    }
    false
}
