//! The load generator: keep-alive connections on one thread, requests made in advance.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::process::own_thread_cpu;
use crate::webhooks::Webhooks;
use crate::wire::Incoming;

/// How late the timer may be without anybody being late.
const TIMER: Duration = Duration::from_millis(2);

/// When the next request goes out.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as a connection has its answer.
    Answered,
    /// So many a second, whether answered or not, as long as a connection is free.
    PerSecond(u32),
}

/// A run of the generator.
#[derive(Clone)]
pub(crate) struct Load {
    /// The port on loopback.
    pub(crate) port: u16,
    /// Connections at once.
    pub(crate) connections: usize,
    /// When requests go out.
    pub(crate) pace: Pace,
    /// How long.
    pub(crate) length: Duration,
    /// How much of that goes before anything counts.
    pub(crate) warm_up: Duration,
    /// The first message's number.
    pub(crate) first: u32,
    /// The number before which it ends, however much time is left.
    pub(crate) end: u32,
    /// What is sent.
    pub(crate) webhooks: Webhooks,
}

/// What came of a run; times and counts from the end of the warm-up on.
#[derive(Default)]
pub(crate) struct Sent {
    /// Answers by status; 0 is a connection that broke.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// From when a request was due to its answer, in milliseconds, ascending.
    pub(crate) answered_after: Vec<f64>,
    /// When each message went out; by number, from the first. Warm-up included.
    pub(crate) sent_at: Vec<Option<Instant>>,
    /// The number of the next message.
    pub(crate) next: u32,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// Processor time of the generator.
    pub(crate) cpu: Duration,
    /// When it began to count.
    pub(crate) began: Option<Instant>,
    /// When the first answer came that was not 200, and how many 200 there had been, warm-up included.
    pub(crate) first_refusal: Option<(Instant, u64)>,
}

impl Sent {
    /// Answers with 200 for each second.
    pub(crate) fn accepted_per_second(&self) -> f64 {
        self.accepted() as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers with 200.
    pub(crate) fn accepted(&self) -> u64 {
        self.answers.get(&200).copied().unwrap_or(0)
    }

    /// Every other end of a request.
    pub(crate) fn refused(&self) -> u64 {
        self.answers.values().sum::<u64>() - self.accepted()
    }
}

struct Run {
    load: Load,
    started: Instant,
    counts_from: Instant,
    ends: Instant,
    next: Cell<u32>,
    accepted_in_all: Cell<u64>,
    sent: RefCell<Sent>,
}

impl Load {
    /// Runs it on a thread of its own and returns what came of it.
    pub(crate) fn run(self) -> Sent {
        self.start().join().expect("the generator does not fail")
    }

    /// Starts it on a thread of its own.
    pub(crate) fn start(self) -> std::thread::JoinHandle<Sent> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(LocalSet::new().run_until(self.go()))
        })
    }

    async fn go(self) -> Sent {
        let started = Instant::now();
        let counts_from = started + self.warm_up;
        let run = Rc::new(Run {
            started,
            counts_from,
            ends: started + self.length,
            next: Cell::new(self.first),
            accepted_in_all: Cell::new(0),
            sent: RefCell::default(),
            load: self,
        });
        let connections: Vec<_> = (0..run.load.connections)
            .map(|_| tokio::task::spawn_local(Rc::clone(&run).keep_sending()))
            .collect();
        tokio::time::sleep_until(counts_from.into()).await;
        let (began, cpu) = (Instant::now(), own_thread_cpu());
        for connection in connections {
            connection.await.expect("a connection's task does not fail");
        }
        let mut sent = run.sent.take();
        sent.elapsed = began.elapsed();
        sent.cpu = own_thread_cpu().saturating_sub(cpu);
        sent.began = Some(began);
        sent.next = run.next.get();
        sent.answered_after.sort_by(f64::total_cmp);
        sent
    }
}

impl Run {
    async fn keep_sending(self: Rc<Self>) {
        while self.next_is_due() {
            if self.one_connection().await.is_err() {
                self.note(0, None);
                // Whoever does not listen is not asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn next_is_due(&self) -> bool {
        self.next.get() < self.load.end && Instant::now() < self.ends
    }

    async fn one_connection(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.load.port))).await?;
        stream.set_nodelay(true)?;
        let mut incoming = Incoming::default();
        let mut outgoing = Vec::new();
        while self.next_is_due() {
            let number = self.next.get();
            self.next.set(number + 1);
            let due = match self.load.pace {
                Pace::Answered => Instant::now(),
                Pace::PerSecond(rate) => {
                    let after = f64::from(number - self.load.first) / f64::from(rate);
                    let due = self.started + Duration::from_secs_f64(after);
                    tokio::time::sleep_until(due.into()).await;
                    let now = Instant::now();
                    // The timer's own resolution is nobody's delay; a busy generator's is.
                    if now - due < TIMER { now } else { due }
                }
            };
            self.load.webhooks.with(number, |request| {
                outgoing.clear();
                outgoing.extend_from_slice(request);
            });
            self.note_sent(number);
            stream.write_all(&outgoing).await?;
            match incoming.next(&mut stream).await? {
                Some(answer) => self.note(answer.status(), Some(due)),
                None => return Err(io::Error::other("closed")),
            }
        }
        Ok(())
    }

    fn note_sent(&self, number: u32) {
        let mut sent = self.sent.borrow_mut();
        let place = (number - self.load.first) as usize;
        if sent.sent_at.len() <= place {
            sent.sent_at.resize(place + 1, None);
        }
        sent.sent_at[place] = Some(Instant::now());
    }

    fn note(&self, status: u16, due: Option<Instant>) {
        let now = Instant::now();
        let mut sent = self.sent.borrow_mut();
        if status == 200 {
            self.accepted_in_all.set(self.accepted_in_all.get() + 1);
        } else if sent.first_refusal.is_none() {
            sent.first_refusal = Some((now, self.accepted_in_all.get()));
        }
        if now >= self.counts_from {
            *sent.answers.entry(status).or_default() += 1;
            if let Some(due) = due.filter(|due| *due >= self.counts_from) {
                sent.answered_after.push((now - due).as_secs_f64() * 1000.0);
            }
        }
    }
}
