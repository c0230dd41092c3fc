//! From the URL of the settings to what the client needs.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use url::Url;

use crate::forbidden::names_forbidden_address;

/// A silent peer is found out after 10 + 3 * 3 seconds, a half-open one after 15.
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// Where sentinels listen unless told otherwise.
const SENTINEL_PORT: u16 = 26_379;

/// What a URL must be; it is never repeated, it may carry a password.
const EXPECTED: &str = "a Redis URL: redis://[user:password@]host[:port][/db] (rediss:// with TLS) or \
                        redis+sentinel://[user:password@]host[:port],…/name[/db] or \
                        redis+cluster://[user:password@]host[:port],…";
const FORBIDDEN: &str = "link-local and cloud metadata addresses are never called";
const NO_DATABASES: &str = "a cluster has no databases: the path must be empty or /0";

/// Where a Redis is.
///
/// * `redis://[user:password@]host[:port][/db]`, or `rediss://` with TLS, or `unix:///path`: one server.
/// * `redis+sentinel://[user:password@]host[:port],…/name[/db]` (`rediss+sentinel://`): the master that these
///   sentinels call `name`. User and password are those of Redis; the sentinels' own are the parameters
///   `sentinel_username` and `sentinel_password`.
/// * `redis+cluster://[user:password@]host[:port],…` (`rediss+cluster://`), or `redis://` with more than one host: a
///   cluster, by some of its nodes.
#[derive(Clone)]
pub struct RedisAddress {
    pub(super) way: Way,
    /// The server; the sentinels; some nodes of the cluster.
    pub(super) seeds: Vec<ConnectionInfo>,
    /// How to log in at what they lead to.
    pub(super) login: RedisConnectionInfo,
    is_tls: bool,
    masked: String,
}

/// How the server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// The sentinels know where the master of this name is.
    Sentinel(String),
    /// Every node knows where each slot is.
    Cluster,
}

/// The parts of a URL that may name several hosts.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | '\\')) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold a comma, a list of hosts has one behind it.
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        Some(Self { scheme, user, hosts: hosts.split(',').collect(), path, query })
    }
}

impl RedisAddress {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// What it must be, without repeating it: it may carry a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if ["unix://", "redis+unix://", "valkey+unix://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Self::socket(text).ok_or(EXPECTED);
        }
        // In a list each may have been written out.
        let written_once =
            text.split_once("://").map(|(scheme, _)| text.replace(&format!(",{scheme}://"), ","));
        let text = written_once.as_deref().ok_or(EXPECTED)?;
        let parts = Parts::of(text).ok_or(EXPECTED)?;
        let (is_tls, is_sentinel, is_cluster) = match parts.scheme {
            "redis" | "valkey" => (false, false, parts.hosts.len() > 1),
            "rediss" | "valkeys" => (true, false, parts.hosts.len() > 1),
            "redis+sentinel" => (false, true, false),
            "rediss+sentinel" => (true, true, false),
            "redis+cluster" => (false, false, true),
            "rediss+cluster" => (true, false, true),
            _ => return Err(EXPECTED),
        };
        let (way, database) = if is_sentinel {
            let (name, database) = parts.path.split_once('/').unwrap_or((parts.path, ""));
            let name = percent_decode_str(name).decode_utf8().map_err(|_| EXPECTED)?.into_owned();
            if name.is_empty() {
                return Err(EXPECTED);
            }
            (Way::Sentinel(name), database)
        } else if is_cluster {
            (Way::Cluster, parts.path)
        } else {
            (Way::Direct, parts.path)
        };
        if !parts.query.is_empty() && !is_sentinel {
            return Err(EXPECTED);
        }
        let database = if database.is_empty() { 0 } else { database.parse::<u16>().map_err(|_| EXPECTED)? };
        if way == Way::Cluster && database > 0 {
            return Err(NO_DATABASES);
        }
        let port = is_sentinel.then_some(SENTINEL_PORT);
        let mut seeds = Vec::with_capacity(parts.hosts.len());
        for host in &parts.hosts {
            seeds.push(one_host(host, parts.user, is_tls, port)?);
        }
        let login = seeds.first().ok_or(EXPECTED)?.redis_settings().clone().set_db(database.into());
        let of_the_seeds = if is_sentinel { sentinel_login(parts.query)? } else { login.clone() };
        let seeds = seeds.into_iter().map(|seed| seed.set_redis_settings(of_the_seeds.clone())).collect();
        let masked = masked(&parts);
        Ok(Self { way, seeds, login, is_tls, masked })
    }

    fn socket(text: &str) -> Option<Self> {
        let info = text.into_connection_info().ok()?;
        if info.redis_settings().db() < 0 {
            return None;
        }
        let (login, masked) = (info.redis_settings().clone(), "unix://…".to_owned());
        Some(Self { way: Way::Direct, seeds: vec![info], login, is_tls: false, masked })
    }

    /// Whether the way there is by TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is a cluster's.
    pub fn is_cluster(&self) -> bool {
        self.way == Way::Cluster
    }

    /// What leads to a server that the seeds told of.
    pub(super) fn lead_to(&self, host: String, port: u16) -> ConnectionInfo {
        let addr = match self.is_tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        self.seeds[0].clone().set_addr(addr).set_redis_settings(self.login.clone())
    }
}

/// Shows hosts, and neither user, password, path nor parameters.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What leads to one host of a list.
fn one_host(
    host: &str,
    user: Option<&str>,
    is_tls: bool,
    default_port: Option<u16>,
) -> Result<ConnectionInfo, &'static str> {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let text = format!("{}://{user}{host}", if is_tls { "rediss" } else { "redis" });
    let mut url = Url::parse(&text).map_err(|_| EXPECTED)?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(EXPECTED);
    }
    if names_forbidden_address(&url) {
        return Err(FORBIDDEN);
    }
    if url.port().is_none() && default_port.is_some() {
        url.set_port(default_port).map_err(|()| EXPECTED)?;
    }
    let info = url.into_connection_info().map_err(|_| EXPECTED)?;
    let keepalive =
        TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(UNACKNOWLEDGED);
    Ok(info.set_tcp_settings(tcp))
}

/// How to log in at the sentinels themselves.
fn sentinel_login(query: &str) -> Result<RedisConnectionInfo, &'static str> {
    let mut login = RedisConnectionInfo::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        login = match &*name {
            "sentinel_username" => login.set_username(value),
            "sentinel_password" => login.set_password(value),
            _ => return Err(EXPECTED),
        };
    }
    Ok(login)
}

fn masked(parts: &Parts<'_>) -> String {
    let user = if parts.user.is_some() { "***@" } else { "" };
    let path = if parts.path.trim_matches('/').is_empty() && parts.query.is_empty() { "" } else { "/…" };
    format!("{}://{user}{}{path}", parts.scheme, parts.hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> RedisAddress {
        RedisAddress::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"))
    }

    fn hosts(address: &RedisAddress) -> Vec<String> {
        address.seeds.iter().map(|seed| seed.addr().to_string()).collect()
    }

    #[test]
    fn one_server_is_gone_to_directly() {
        for (url, host, database) in [
            ("redis://127.0.0.1", "127.0.0.1:6379", 0),
            ("redis://127.0.0.1:6380/3", "127.0.0.1:6380", 3),
            ("rediss://user:se%2Ccret@redis.internal:6379/0", "redis.internal:6379", 0),
            ("redis://:se,cret@redis.internal", "redis.internal:6379", 0),
            ("valkey://[::1]:6379", "::1:6379", 0),
        ] {
            let address = read(url);
            assert_eq!(address.way, Way::Direct, "{url}");
            assert_eq!(hosts(&address), [host], "{url}");
            assert_eq!(address.login.db(), database, "{url}");
            assert_eq!(address.is_tls(), url.starts_with("rediss"), "{url}");
        }
        assert_eq!(read("unix:///run/redis.sock").way, Way::Direct);
        let address = read("redis://user:se%2Ccret@redis.internal");
        assert_eq!((address.login.username(), address.login.password()), (Some("user"), Some("se,cret")));
    }

    #[test]
    fn sentinels_know_a_master_by_name_and_have_logins_of_their_own() {
        let address = read("redis+sentinel://:pw@a,b:5000,[::1]/my%2Dmaster/2?sentinel_password=spw");
        assert_eq!(address.way, Way::Sentinel("my-master".to_owned()));
        assert_eq!(hosts(&address), ["a:26379", "b:5000", "::1:26379"]);
        assert_eq!((address.login.db(), address.login.password()), (2, Some("pw")));
        let sentinel = address.seeds[1].redis_settings();
        assert_eq!((sentinel.db(), sentinel.username(), sentinel.password()), (0, None, Some("spw")));
        let master = read("rediss+sentinel://u:pw@a/m").lead_to("10.0.0.1".to_owned(), 6379);
        assert!(matches!(master.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert_eq!(master.redis_settings().username(), Some("u"));
    }

    #[test]
    fn a_list_is_a_cluster() {
        for url in [
            "redis://u:p@a:1,b:2",
            "redis://u:p@a:1,redis://b:2",
            "redis://u:p@a:1,b:2/0",
            "redis+cluster://u:p@a:1,b:2",
        ] {
            let address = read(url);
            assert_eq!(address.way, Way::Cluster, "{url}");
            assert_eq!(hosts(&address), ["a:1", "b:2"], "{url}");
            assert_eq!(address.seeds[1].redis_settings().password(), Some("p"), "{url}");
        }
        assert_eq!(read("rediss+cluster://a").way, Way::Cluster, "by one of its nodes");
        assert!(read("rediss+cluster://a").is_tls());
        for url in ["redis://a,b/1", "redis+cluster://a/1"] {
            assert!(RedisAddress::parse(url).is_err(), "{url}: a cluster has no databases");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_not_repeated() {
        for url in [
            "",
            "hunter2",
            "http://u:hunter2@h",
            "redis://u:hunter2@",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h/hunter2",
            "redis://u:hunter2@0.0.0.0",
            "redis://u:hunter2@h/-1",
            "redis://u:hunter2@h?db=1",
            "rediss://u:hunter2@h#insecure",
            "redis://u:hunter2@a,,b",
            "redis+sentinel://u:hunter2@h",
            "redis+sentinel://u:hunter2@h/m?password=hunter2",
            "redis://u:hunter2@a,169.254.1.1",
            "redis+sentinel://metadata.google.internal/m",
        ] {
            let why = RedisAddress::parse(url).expect_err(url);
            assert!(!why.contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn what_is_shown_is_where_and_not_how() {
        for (url, shown) in [
            ("redis://:pw@127.0.0.1:6379/3", "redis://***@127.0.0.1:6379/…"),
            ("redis://u:p@a:1,b:2", "redis://***@a:1,b:2"),
            ("rediss+sentinel://a,b:5/main?sentinel_password=pw", "rediss+sentinel://a,b:5/…"),
        ] {
            assert_eq!(read(url).to_string(), shown);
            assert_eq!(format!("{:?}", read(url)), shown);
        }
    }
}
