//! A TCP proxy between a program and a server, to break the line between them in every way a network can.
//!
//! It runs on a thread of its own, so it goes on whatever the test does.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::installation::signal;

/// What happens to what is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Line {
    /// It arrives.
    Good,
    /// It waits, either way, until the line changes; connections can be opened and lead nowhere.
    BlackHole,
    /// Each piece arrives so much later, either way.
    Slow(Duration),
    /// New connections are reset, and so are those there are when they are next used.
    Reset,
    /// Requests arrive; with this probability in per cent the answer does not, and the connection is reset
    /// in its place.
    LosesAnswers(u8),
}

/// When a trap kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the server hears of the call.
    Before,
    /// When the server has done it, and before the caller hears of it.
    After,
}

/// Kills the process that uses the line when it calls a script of Redis.
#[derive(Clone, Debug)]
pub(crate) struct Trap {
    /// Words that only this script has. It must be loaded by this line.
    pub(crate) script: &'static str,
    /// Only a call that has this argument.
    pub(crate) argument: &'static str,
    /// When.
    pub(crate) moment: Moment,
}

/// A running proxy. Dropping it ends every connection.
pub(crate) struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Connections accepted so far.
    accepted: AtomicU64,
    /// Connections with a lower number than this are frozen for ever.
    frozen_before: AtomicU64,
    /// Answers lost so far.
    answers_lost: AtomicU64,
    trap: Mutex<Option<Set>>,
}

/// A trap that is set.
#[derive(Clone)]
struct Set {
    trap: Trap,
    /// What the script is called by, once it was loaded.
    name: String,
    /// Whom it kills; it waits until that is known.
    victim: watch::Receiver<Option<u32>>,
}

impl Shared {
    fn trap(&self) -> Option<Set> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The script of the trap has this name.
    fn name_script(&self, name: String) {
        if let Some(set) = self.trap.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            set.name = name;
        }
    }

    /// Nothing that is answered from now on arrives.
    fn freeze(&self) {
        self.frozen_before.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Proxy {
    /// Starts one in front of `port` of this machine. `seed` decides which answers are lost.
    pub(crate) fn start(port: u16, seed: u64) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a socket of this system");
        let (line, follow) = watch::channel(Line::Good);
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let thread = {
            let (stop, shared) = (stop.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let accepting = accept(listener, port, follow, shared, seed);
                    stop.run_until_cancelled(accepting).await;
                });
            })
        };
        Self { address, line, shared, stop, thread: Some(thread) }
    }

    /// `redis://` and its address.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on the line is so.
    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// The connections there are now go half open: neither side hears of the other again, nor of the end.
    /// New ones are as good as the line.
    pub(crate) fn freeze_connections(&self) {
        self.shared.freeze();
        // Whoever waits looks again.
        self.line.send_modify(|_| {});
    }

    /// Sets a trap for a process that is started now; its id is to be sent.
    pub(crate) fn set_trap(&self, trap: Trap) -> watch::Sender<Option<u32>> {
        let (tell, victim) = watch::channel(None);
        let set = Set { trap, name: String::new(), victim };
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        tell
    }

    /// Answers lost so far.
    pub(crate) fn answers_lost(&self) -> u64 {
        self.shared.answers_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    port: u16,
    line: watch::Receiver<Line>,
    shared: Arc<Shared>,
    seed: u64,
) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let chance = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let passage = Passage { number, line: line.clone(), shared: Arc::clone(&shared), chance };
        tokio::spawn(async move {
            // Either side may break off at any time.
            let _ = passage.serve(client, port).await;
        });
    }
}

/// One connection.
struct Passage {
    number: u64,
    line: watch::Receiver<Line>,
    shared: Arc<Shared>,
    chance: fastrand::Rng,
}

/// What is to happen to one piece.
enum Fate {
    Passes,
    Breaks,
}

impl Passage {
    async fn serve(mut self, client: TcpStream, port: u16) -> io::Result<()> {
        client.set_nodelay(true)?;
        if matches!(self.fate(false).await, Fate::Breaks) {
            return client.set_zero_linger();
        }
        let server = TcpStream::connect(("127.0.0.1", port)).await;
        let Ok(server) = server else { return client.set_zero_linger() };
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut back = Self {
            number: self.number,
            line: self.line.clone(),
            shared: Arc::clone(&self.shared),
            chance: self.chance.fork(),
        };
        tokio::select! {
            ended = self.pump(from_client, to_server, false) => ended,
            ended = back.pump(from_server, to_client, true) => ended,
        }
    }

    async fn pump(
        &mut self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        answers: bool,
    ) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        let mut requests = Vec::new();
        loop {
            let length = from.read(&mut piece).await?;
            if matches!(self.fate(answers && length > 0).await, Fate::Breaks) {
                // The client's socket is the one that matters: it is reset rather than closed.
                let client: &TcpStream = if answers { to.as_ref() } else { from.as_ref() };
                return client.set_zero_linger();
            }
            if length == 0 {
                return to.shutdown().await;
            }
            if !answers && self.shared.trap().is_some() {
                requests.extend_from_slice(&piece[..length]);
                self.pass_requests(&mut requests, &mut to).await?;
                continue;
            }
            to.write_all(&piece[..length]).await?;
        }
    }

    /// Passes on whole requests, up to the one that the trap waits for.
    async fn pass_requests(&self, requests: &mut Vec<u8>, to: &mut OwnedWriteHalf) -> io::Result<()> {
        while let Some((words, length)) = first_request(requests) {
            let Some(set) = self.shared.trap() else { break };
            if is_word(&words, 0, "SCRIPT") && is_word(&words, 1, "LOAD") && words.len() == 3 {
                let text = words[2];
                if text.windows(set.trap.script.len()).any(|part| part == set.trap.script.as_bytes()) {
                    self.shared
                        .name_script(Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect());
                }
            }
            let has_argument = words.iter().skip(3).any(|word| *word == set.trap.argument.as_bytes());
            if is_word(&words, 0, "EVALSHA") && is_word(&words, 1, &set.name) && has_argument {
                self.shared.freeze();
                if set.trap.moment == Moment::After {
                    to.write_all(&requests[..length]).await?;
                    let server = to.peer_addr()?;
                    done(server).await?;
                }
                let mut victim = set.victim;
                if let Ok(pid) = victim.wait_for(Option::is_some).await {
                    signal(pid.expect("it is some"), "KILL");
                }
                return std::future::pending().await;
            }
            to.write_all(&requests[..length]).await?;
            requests.drain(..length);
        }
        Ok(())
    }

    /// Waits as long as the line makes a piece wait.
    async fn fate(&mut self, is_answer: bool) -> Fate {
        loop {
            let line = *self.line.borrow_and_update();
            let frozen = self.number < self.shared.frozen_before.load(Ordering::SeqCst);
            match line {
                _ if frozen => std::future::pending().await,
                Line::Good => return Fate::Passes,
                Line::Reset => return Fate::Breaks,
                Line::LosesAnswers(percent) if is_answer && self.chance.u8(..100) < percent => {
                    self.shared.answers_lost.fetch_add(1, Ordering::SeqCst);
                    return Fate::Breaks;
                }
                Line::LosesAnswers(_) => return Fate::Passes,
                Line::Slow(delay) => {
                    tokio::time::sleep(delay).await;
                    return Fate::Passes;
                }
                // The sender is gone with the proxy.
                Line::BlackHole => {
                    if self.line.changed().await.is_err() {
                        return Fate::Breaks;
                    }
                }
            }
        }
    }
}

/// Waits until the server has done what it was sent before: it takes what has arrived in turn.
async fn done(server: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(b"PING\r\n").await?;
    connection.read_exact(&mut [0; 7]).await.map(drop)
}

fn is_word(words: &[&[u8]], at: usize, word: &str) -> bool {
    words.get(at).is_some_and(|have| have.eq_ignore_ascii_case(word.as_bytes()))
}

/// The words of the first request and its length, once it is whole. A request is an array of bulk strings
/// (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
fn first_request(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let number = |from: usize, kind: u8| {
        let line = bytes.get(from..)?;
        let end = line.windows(2).position(|two| two == b"\r\n")?;
        assert_eq!(line[0], kind, "a request of another form");
        let number: usize = std::str::from_utf8(&line[1..end]).ok()?.parse().ok()?;
        Some((number, from + end + 2))
    };
    let (count, mut at) = number(0, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, from) = number(at, b'$')?;
        words.push(bytes.get(from..from + length)?);
        at = from + length + 2;
    }
    (at <= bytes.len()).then_some((words, at))
}
