//! A client that sends bytes, and so can say what no HTTP library says.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What takes longer hangs.
const GUARD: Duration = Duration::from_secs(30);

/// A connection to a server under test.
pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes read beyond the last answer.
    ahead: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Fails the test when `what` takes forever.
pub(crate) async fn guarded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, what).await.expect("it hangs")
}

/// Sends `request` on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::connect(address).await;
    wire.send(request).await;
    wire.answer().await.expect("an answer")
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = guarded(TcpStream::connect(address)).await.expect("somebody listens");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes; whether the other side has left its end open for all of them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        guarded(self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Reads one whole answer; `None` when the connection ends without one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.ahead.drain(..end).collect()).expect("a head is text");
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.ahead.len() < length {
            assert!(self.more().await, "the answer breaks off");
        }
        answer.body = String::from_utf8(self.ahead.drain(..length).collect()).expect("text");
        Some(answer)
    }

    /// Waits until the other side closes. Panics if it says something instead.
    pub(crate) async fn closed(mut self) {
        assert!(!self.more().await, "said instead: {:?}", String::from_utf8_lossy(&self.ahead));
    }

    /// Reads on; whether there was more.
    async fn more(&mut self) -> bool {
        guarded(self.stream.read_buf(&mut self.ahead)).await.is_ok_and(|count| count > 0)
    }
}
