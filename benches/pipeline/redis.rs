//! A Redis server for one measurement, and what it counts.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Process, free_port, pause};

/// When the server flushes its log to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    /// Once a second.
    EverySecond,
    /// Before it answers.
    Always,
}

/// A running server; it keeps its file in a folder that goes with it.
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) port: u16,
    _folder: TempDir,
}

/// What a server has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Requests that came over a connection: scripts, blocking reads and the rest, not the commands
    /// within scripts.
    pub(crate) requests: f64,
    /// Bytes received and sent.
    pub(crate) bytes: f64,
}

impl Redis {
    /// Starts an empty server: append-only file, no snapshots, everything else as it comes.
    pub(crate) fn start(fsync: Fsync, log: &Path) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        command.args(["--appendfsync", if fsync == Fsync::Always { "always" } else { "everysec" }]);
        command.arg("--dir").arg(folder.path());
        let process = Process::start(command, log)?;
        let end = Instant::now() + Duration::from_secs(10);
        while ask(port, "PING").is_err() {
            if Instant::now() > end {
                return Err(io::Error::other("redis-server does not start"));
            }
            pause(Duration::from_millis(1));
        }
        Ok(Self { process, port, _folder: folder })
    }

    /// What it has counted so far.
    pub(crate) fn counted(&self) -> io::Result<Counted> {
        let stats = ask(self.port, "INFO stats")?;
        let commands = ask(self.port, "INFO commandstats")?;
        let number = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        // What runs inside a script is counted too, and none of it is one of these.
        let from_outside = ["evalsha", "eval", "xread", "ping", "script|load", "brpoplpush", "bzpopmin"];
        let calls = commands.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            from_outside.contains(&name).then(|| rest.split(',').next()?.parse::<f64>().ok())?
        });
        let bytes = number("total_net_input_bytes") + number("total_net_output_bytes");
        Ok(Counted { requests: calls.sum(), bytes })
    }

    /// Memory the server uses for data, in MiB.
    pub(crate) fn used_memory(&self) -> io::Result<f64> {
        let memory = ask(self.port, "INFO memory")?;
        let line = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0 / 1024.0)
    }
}

/// Sends one line and returns the answer as it is.
fn ask(port: u16, line: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // QUIT makes the server close behind its answer.
    stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with('-') { Err(io::Error::other(answer)) } else { Ok(answer) }
}
