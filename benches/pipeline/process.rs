//! Programs under measurement, and what they use of the machine.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program; dropping it kills it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`, its output going to `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { child: command.spawn()? })
    }

    /// Starts `command` and waits until it says `ready` on a line of its own.
    pub(crate) fn start_and_hear(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Self { child: command.spawn()? };
        let output = process.child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let mut lines = BufReader::new(output).lines();
        match lines.find(|line| line.as_ref().is_ok_and(|line| line == "ready")) {
            Some(_) => Ok(process),
            None => Err(io::Error::other(format!("{command:?} ended before it was ready"))),
        }
    }

    /// Waits until `path` of `port` answers 200, asking every half millisecond.
    pub(crate) fn wait_until_ready(&mut self, port: u16, path: &str) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !get(port, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("a program ended before it was ready: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other("a program is not ready after 30 s"));
            }
            pause(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Processor time so far, in user and system mode.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The fields behind the name, which may hold blanks itself: utime and stime are the 14th and 15th.
        let behind = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks: u64 =
            behind.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Processor time of its first thread so far; of Redis that is the one that runs commands.
    pub(crate) fn main_thread_cpu(&self) -> Duration {
        let id = self.child.id();
        on_cpu(&format!("/proc/{id}/task/{id}/schedstat"))
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
        kib / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of the calling thread so far.
pub(crate) fn own_thread_cpu() -> Duration {
    on_cpu("/proc/thread-self/schedstat")
}

/// The first field of a `schedstat` file: nanoseconds on a processor.
fn on_cpu(file: &str) -> Duration {
    let stat = fs::read_to_string(file).unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// Waits for time to pass, which is what a measurement is made of.
#[expect(clippy::disallowed_methods, reason = "a measurement lasts as long as it lasts")]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// A port that is free now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The whole answer to a GET.
pub(crate) fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
