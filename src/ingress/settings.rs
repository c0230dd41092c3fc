//! What the ingress is told.

use std::net::SocketAddr;
use std::time::Duration;

use super::loop_guard::LoopGuard;
use crate::queue::contract::Rate;

/// Settings of the webhook receiver.
#[derive(Clone, Debug)]
pub struct IngressSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The largest body taken, in bytes.
    pub max_body: usize,
    /// Requests per client address; `None` is no limit.
    pub rate_per_ip: Option<Rate>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Which messages are dropped because they are our own.
    pub loop_guard: LoopGuard,
    /// Time from acceptance to the deadline of a message.
    pub deadline: Duration,
    /// How long it waits for others.
    pub patience: Patience,
}

/// How long the ingress waits for the two it depends on.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the client: its body must arrive in this time.
    pub body: Duration,
    /// For the store, counted from the last byte of the request: then the answer is 503.
    pub store: Duration,
}

impl Default for Patience {
    /// 10 s and 2.5 s: Twilio gives a webhook 15 s in all, and a refusal must come within 3 s.
    fn default() -> Self {
        Self { body: Duration::from_secs(10), store: Duration::from_millis(2500) }
    }
}
