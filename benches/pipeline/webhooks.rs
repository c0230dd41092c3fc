//! Signed requests, made before the clock starts.

use std::sync::Arc;

use crate::fixtures::{TARGET, webhook};

/// What stands in front of a message's number in its text; the receiver finds it there.
pub(crate) const MARK: &str = "mark";

/// Digits of a message's number.
pub(crate) const DIGITS: usize = 8;

/// Requests numbered from 0, each of another message.
#[derive(Clone)]
pub(crate) struct Webhooks {
    ready: Arc<Vec<Vec<u8>>>,
}

impl Webhooks {
    /// The first `count`, made now.
    pub(crate) fn prepare(count: u32) -> Self {
        Self { ready: Arc::new((0..count).map(request).collect()) }
    }

    /// Calls `send` with request `number`, signed now if it was not before.
    pub(crate) fn with<T>(&self, number: u32, send: impl FnOnce(&[u8]) -> T) -> T {
        match self.ready.get(number as usize) {
            Some(request) => send(request),
            None => send(&request(number)),
        }
    }
}

/// What message `number` says.
pub(crate) fn text(number: u32) -> String {
    format!("493817 is your code. {MARK}{number:0DIGITS$}")
}

fn request(number: u32) -> Vec<u8> {
    let (body, signature) = webhook(&format!("SM{number:032x}"), &text(number));
    let mut request = format!(
        "POST {TARGET} HTTP/1.1\r\nHost: mfa.example.com\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n\
         X-Twilio-Signature: {signature}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}
