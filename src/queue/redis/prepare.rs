//! Whether a server may be used at all.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::queue::Shard;
use super::reply::{list, read, text};
use super::settings::Durability;
use crate::queue::contract::QueueError;

/// The oldest server whose scripts carry flags and whose streams clean up after deleted entries. Valkey
/// says 7.2.4 or later.
const OLDEST: (u32, u32) = (7, 0);

/// What a server says of itself.
pub(super) struct About(HashMap<String, String>);

impl About {
    pub(super) fn read(info: &str) -> Self {
        let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn says(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Why it must not be used, if so.
    fn objection(&self) -> Option<String> {
        let version = self.says("redis_version");
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next().flatten(), parts.next().flatten());
        if (major?, minor.unwrap_or(0)) < OLDEST {
            let (major, minor) = OLDEST;
            return Some(format!("Redis {version} is too old: {major}.{minor} or later, or Valkey"));
        }
        if self.says("cluster_enabled") == "1" {
            return Some("Redis Cluster is not available in this version".to_owned());
        }
        match self.says("maxmemory_policy") {
            "" | "noeviction" => None,
            policy => Some(format!(
                "maxmemory-policy is {policy}: the server would delete messages when memory is short; set \
                 it to noeviction"
            )),
        }
    }
}

impl Shard {
    /// Asks the server what it is, and refuses one that would lose messages.
    pub(super) async fn look_at_the_server(&self) -> Result<(), QueueError> {
        let about = About::read(&text(self.operator.command(&redis::cmd("INFO")).await?)?);
        if about.says("redis_version").is_empty() {
            return Err(QueueError::Unavailable("the server does not say what it is".to_owned()));
        }
        if let Some(why) = about.objection() {
            return Err(QueueError::Unusable(why));
        }
        if about.says("role") == "slave" {
            return Err(QueueError::Unavailable("the server is a replica".to_owned()));
        }
        let has_aof = about.says("aof_enabled") == "1";
        match self.durability {
            Durability::Disk => self.insist_on_the_disk(has_aof).await,
            Durability::Process => {
                if !has_aof && !self.warned_of_no_aof.swap(true, Ordering::Relaxed) {
                    tracing::warn!("appendonly is off: accepted messages end with the server's process");
                }
                Ok(())
            }
        }
    }

    async fn insist_on_the_disk(&self, has_aof: bool) -> Result<(), QueueError> {
        if !has_aof {
            return Err(QueueError::Unusable("durability \"disk\" needs appendonly yes".to_owned()));
        }
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("appendfsync");
        match self.operator.command(&ask).await {
            Ok(answer) => {
                match list(answer)?.into_iter().nth(1).map(read::<String>).transpose()?.as_deref() {
                    Some("always") => Ok(()),
                    _ => Err(QueueError::Unusable("durability \"disk\" needs appendfsync always".to_owned())),
                }
            }
            Err(QueueError::Unavailable(why)) if why.contains("NOPERM") || why.contains("ERR") => {
                Err(QueueError::Unusable(
                    "durability \"disk\" needs appendfsync always, and the server does not let us look \
                     (CONFIG GET)"
                        .to_owned(),
                ))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(info: &str) -> Option<String> {
        About::read(info).objection()
    }

    #[test]
    fn a_recent_server_that_evicts_nothing_may_be_used() {
        assert_eq!(objection("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(objection("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\ncluster_enabled:0\r\n"), None);
        assert_eq!(objection("redis_version:8.6.0-rc1\r\n"), None);
    }

    #[test]
    fn an_old_an_evicting_and_a_clustered_server_must_not_be_used() {
        for info in [
            "redis_version:6.2.14\r\nmaxmemory_policy:noeviction",
            "redis_version:7.2.4\r\nmaxmemory_policy:volatile-ttl",
            "redis_version:7.2.4\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:1",
        ] {
            assert!(objection(info).is_some(), "{info}");
        }
    }
}
