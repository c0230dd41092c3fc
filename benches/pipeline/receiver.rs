//! The receiver: Twilio's API and Slack webhooks as fast as they can be, on one thread.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::process::pause;
use crate::webhooks::{DIGITS, MARK};
use crate::wire::Incoming;

/// What Twilio's API and a Slack webhook answer, head and body.
struct Answers {
    created: Vec<u8>,
    ok: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let created = r#"{"sid":"SM00000000000000000000000000000000","status":"queued","code":null}"#;
        Self {
            created: answer("201 Created", "application/json", created),
            ok: answer("200 OK", "text/html", "ok"),
        }
    }
}

/// An answer whose length is that of its body: one byte too many, and no client keeps the connection.
fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// One message that arrived: its number, and when.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) number: u32,
    pub(crate) at: Instant,
}

struct Shared {
    answers: Answers,
    received: AtomicU64,
    delay_ms: AtomicU64,
    arrivals: Mutex<Vec<Arrival>>,
}

/// A running receiver; its thread ends with the program.
pub(crate) struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Starts one on a free port.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            answers: Answers::new(),
            received: AtomicU64::default(),
            delay_ms: AtomicU64::default(),
            arrivals: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(accept(listener, serving))
        });
        Ok(Self { port, shared })
    }

    /// Where it listens, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it answers so much later.
    pub(crate) fn answer_after(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Requests so far.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// What arrived since this was last asked.
    pub(crate) fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.shared.arrivals.lock().expect("nothing panics while it holds this"))
    }

    /// Waits until `count` requests came in all, or nothing came for `patience`. Whether they came.
    pub(crate) fn wait_for(&self, count: u64, patience: Duration) -> bool {
        let (mut last, mut since) = (self.received(), Instant::now());
        while self.received() < count {
            pause(Duration::from_millis(2));
            if self.received() != last {
                (last, since) = (self.received(), Instant::now());
            } else if since.elapsed() > patience {
                return false;
            }
        }
        true
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of this runtime");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&shared)));
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming::default();
    while let Some(request) = incoming.next(&mut stream).await? {
        let is_slack = request.head.starts_with(b"POST /slack");
        let answer = if is_slack { &shared.answers.ok } else { &shared.answers.created };
        if let Some(number) = number_in(request.body) {
            let arrival = Arrival { number, at: Instant::now() };
            shared.arrivals.lock().expect("nothing panics while it holds this").push(arrival);
        }
        shared.received.fetch_add(1, Ordering::Relaxed);
        let delay = shared.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        stream.write_all(answer).await?;
    }
    Ok(())
}

/// The number of the message whose text is in `body`, in whatever encoding.
fn number_in(body: &[u8]) -> Option<u32> {
    let at = body.windows(MARK.len()).rposition(|window| window == MARK.as_bytes())?;
    let digits = body.get(at + MARK.len()..at + MARK.len() + DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
