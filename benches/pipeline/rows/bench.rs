//! What every row has at hand.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::load::{Load, Pace, Sent};
use crate::ours::{Ours, Program, Recipients, Store};
use crate::peers::Peers;
use crate::process::{Process, pause};
use crate::receiver::Receiver;
use crate::redis::{Fsync, Redis};
use crate::webhooks::Webhooks;

/// Connections of the load generator, in every row.
pub(crate) const CONNECTIONS: usize = 64;

/// Recipients of a message.
pub(crate) const RECIPIENTS: u64 = 3;

/// Time a program gets to become as fast as it will be: a just-in-time compiler needs it.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1500);

/// What every row has at hand.
pub(crate) struct Bench {
    /// How often each row is measured.
    pub(crate) rounds: u32,
    /// How long each measurement takes.
    pub(crate) length: Duration,
    /// Whether to be short rather than exact.
    pub(crate) quick: bool,
    pub(crate) receiver: Receiver,
    /// `None` without Node.js.
    pub(crate) peers: Option<Peers>,
    pub(crate) webhooks: Webhooks,
}

impl Bench {
    /// Makes the requests, starts the receiver, installs the peers.
    pub(crate) fn prepare(rounds: u32, length: Duration, quick: bool) -> io::Result<Self> {
        let peers = Peers::install();
        if let Err(error) = &peers {
            eprintln!("without the peers on Node.js: {error}");
        }
        let prepared = if quick { 60_000 } else { 200_000 };
        Ok(Self {
            rounds,
            length,
            quick,
            receiver: Receiver::start()?,
            peers: peers.ok(),
            webhooks: Webhooks::prepare(prepared),
        })
    }

    /// Where what is not ours logs.
    pub(crate) fn log(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.log")
    }

    /// A fresh Redis.
    pub(crate) fn redis(&self, fsync: Fsync) -> io::Result<Redis> {
        Redis::start(fsync, &self.log())
    }

    /// An installation of ours on `redis`.
    pub(crate) fn on_redis(&self, redis: &Redis, queue: &str, more: &str) -> io::Result<Ours> {
        Ours::new(Store::Redis(redis.port), Recipients::PhonesAndSlack, &self.receiver.url(), queue, more)
    }

    /// An installation of ours with a file.
    pub(crate) fn embedded(&self, queue: &str, more: &str) -> io::Result<Ours> {
        Ours::new(Store::Embedded, Recipients::PhonesAndSlack, &self.receiver.url(), queue, more)
    }

    /// A run at full speed on `port`, for as long as a measurement takes.
    pub(crate) fn full_speed(&self, port: u16) -> Load {
        Load {
            port,
            connections: CONNECTIONS,
            pace: Pace::Answered,
            length: self.length + WARM_UP,
            warm_up: WARM_UP,
            first: 0,
            end: u32::MAX,
            webhooks: self.webhooks.clone(),
        }
    }

    /// Brings the messages from `first` to `end` in, all of them.
    pub(crate) fn fill(&self, port: u16, first: u32, end: u32) -> io::Result<Sent> {
        let length = Duration::from_secs(600);
        let sent = Load { first, end, length, warm_up: Duration::ZERO, ..self.full_speed(port) }.run();
        match sent.accepted() {
            accepted if accepted == u64::from(end - first) => Ok(sent),
            accepted => {
                Err(io::Error::other(format!("of {} messages {accepted} were accepted", end - first)))
            }
        }
    }

    /// Deliveries per second that arrive at the receiver in a measurement that begins once they have
    /// come for a while. Ends early when nothing comes any more.
    pub(crate) fn arrivals_per_second(&self) -> f64 {
        let before = self.receiver.received();
        self.receiver.wait_for(before + 1, Duration::from_secs(10));
        pause(WARM_UP);
        self.receiver.take_arrivals();
        pause(self.length);
        let arrivals = self.receiver.take_arrivals();
        match (arrivals.first(), arrivals.last()) {
            (Some(first), Some(last)) if last.at > first.at => {
                (arrivals.len() - 1) as f64 / (last.at - first.at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// Waits until nothing has come to the receiver for a second, so that one measurement's rest does
    /// not reach the next.
    pub(crate) fn quiet(&self) {
        self.receiver.answer_after(Duration::ZERO);
        self.receiver.wait_for(u64::MAX, Duration::from_millis(300));
        self.receiver.take_arrivals();
    }
}

/// The processor time of a program, to be read once more later.
pub(crate) struct Cost<'p> {
    process: &'p Process,
    before: Duration,
}

impl<'p> Cost<'p> {
    /// Begins to count.
    pub(crate) fn of(process: &'p Process) -> Self {
        Self { process, before: process.cpu() }
    }

    /// Microseconds for each of `count`.
    pub(crate) fn each(&self, count: u64) -> f64 {
        (self.process.cpu() - self.before).as_secs_f64() * 1e6 / count.max(1) as f64
    }
}

/// The value below which `share` of `ascending` lie.
pub(crate) fn percentile(ascending: &[f64], share: f64) -> f64 {
    let place = (ascending.len() as f64 * share) as usize;
    ascending.get(place.min(ascending.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The most memory that `program` had resident during the next `length`, in MiB.
pub(crate) fn highest_while(program: &Program, length: Duration) -> f64 {
    let end = Instant::now() + length;
    let mut highest = 0.0_f64;
    while Instant::now() < end {
        highest = highest.max(program.process.resident());
        pause(Duration::from_millis(50));
    }
    highest
}
