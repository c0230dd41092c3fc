//! From the URL of the settings to what the client needs.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionInfo, IntoConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use crate::queue::contract::QueueError;

/// Kinds of addresses that the configuration may name and this version cannot use.
const NOT_YET: &[(&str, &str)] = &[
    ("rediss://", "TLS (rediss://)"),
    ("valkeys://", "TLS (valkeys://)"),
    ("redis+sentinel://", "Redis Sentinel (redis+sentinel://)"),
];

/// Kinds of addresses that this version can use.
const KNOWN: &[&str] = &["redis://", "valkey://", "unix://", "redis+unix://", "valkey+unix://"];

/// A silent peer is found out after 10 + 3 * 3 seconds, a half-open one after 15.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

fn unusable(text: impl Into<String>) -> QueueError {
    QueueError::Unusable(text.into())
}

/// Reads the URL. The error never repeats it: it may carry a password.
pub(super) fn parse(url: &SecretString) -> Result<ConnectionInfo, QueueError> {
    let url = url.expose_secret().trim();
    if let Some((_, name)) = NOT_YET.iter().find(|(scheme, _)| url.starts_with(scheme)) {
        return Err(unusable(format!("{name} is not available in this version")));
    }
    if !KNOWN.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(unusable("the Redis URL does not begin with redis:// or unix://"));
    }
    // A password may hold a comma, a list of servers has one behind it.
    if url.rsplit('@').next().is_some_and(|servers| servers.contains(',')) {
        return Err(unusable("a list of servers (Redis Cluster) is not available in this version"));
    }
    let info = url.into_connection_info().map_err(|_| unusable("the Redis URL cannot be read"))?;
    if info.redis_settings().db() < 0 {
        return Err(unusable("the Redis URL names an impossible database"));
    }
    let keepalive =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(UNACKNOWLEDGED);
    Ok(info.set_tcp_settings(tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match parse(&SecretString::from(url)) {
            Err(QueueError::Unusable(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_this_version_can_use_is_taken() {
        for url in [
            "redis://127.0.0.1",
            "redis://127.0.0.1:6380/3",
            "redis://user:se%2Ccret@redis.internal:6379/0",
            "redis://:se,cret@redis.internal",
            "unix:///run/redis.sock",
        ] {
            assert!(parse(&SecretString::from(url)).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_this_version_cannot_use_is_refused_by_name() {
        for url in ["rediss://h", "redis+sentinel://h/main", "redis://a:1,redis://b:2", "redis://u:p@a:1,b:2"]
        {
            assert!(refusal(url).ends_with("is not available in this version"), "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_repeated() {
        for url in [
            "",
            "hunter2",
            "http://u:hunter2@h",
            "redis://u:hunter2@",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h/hunter2",
            "redis://u:hunter2@0.0.0.0",
            "redis://u:hunter2@h/-1",
        ] {
            assert!(!refusal(url).contains("hunter2"), "{url}");
        }
    }
}
