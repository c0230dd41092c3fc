//! The ingress: verified, stored, answered.

use std::net::SocketAddr;
use std::time::Duration;

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
    /// Our own sending number, whose messages are dropped; `None` when the loop guard is off or the
    /// number is not known (a messaging service).
    pub loop_guard: Option<String>,
    /// Time from acceptance to the deadline of a message.
    pub deadline: Duration,
}
