//! As much of HTTP/1.1 as both ends of the bench need: messages with a `Content-Length`.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// One connection's unread bytes.
#[derive(Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    used: usize,
}

/// One message: its head, and its body.
pub(crate) struct Message<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        let digits = self.head.get(9..12).unwrap_or_default();
        digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')))
    }
}

impl Incoming {
    /// The next message; `None` when the other side has closed.
    pub(crate) async fn next(&mut self, stream: &mut TcpStream) -> io::Result<Option<Message<'_>>> {
        self.bytes.drain(..self.used);
        self.used = 0;
        loop {
            if let Some((head, length)) = measure(&self.bytes)? {
                self.used = head + length;
                let (head, body) = self.bytes[..self.used].split_at(head);
                return Ok(Some(Message { head, body }));
            }
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Lengths of head and body of the message that `bytes` begin with, once all of it is there.
fn measure(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = &bytes[..end + 4];
    let length = match header(head, b"content-length:") {
        Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()),
        // An answer of unknown length would be read wrongly.
        None if header(head, b"transfer-encoding:").is_some() => None,
        None => Some(0),
    };
    let length = length.ok_or_else(|| io::Error::other("a message without a length"))?;
    Ok((bytes.len() >= head.len() + length).then_some((head.len(), length)))
}

fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let lines = head.split(|byte| *byte == b'\n');
    lines
        .filter(|line| line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        .map(|line| &line[name.len()..])
        .next()
}
