//! Whether a server may be used at all.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::link::lock;
use super::proof::Disk;
use super::reply::{list, read, text};
use super::server::Server;
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

    /// Its version, if it tells one.
    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.says("redis_version").split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next().flatten(), parts.next().flatten());
        Some((major?, minor.unwrap_or(0)))
    }

    /// Why it must not be used, if so. `as_node`: by an address of a cluster.
    fn objection(&self, as_node: bool) -> Option<String> {
        if self.version()? < OLDEST {
            let (version, (major, minor)) = (self.says("redis_version"), OLDEST);
            return Some(format!("Redis {version} is too old: {major}.{minor} or later, or Valkey"));
        }
        if self.says("cluster_enabled") == "1" && !as_node {
            return Some(
                "it is a node of a Redis Cluster: the URL of one is redis+cluster://node, or a list of nodes"
                    .to_owned(),
            );
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

/// The first version whose disk can be waited for.
const WAITS_FOR_THE_DISK: (u32, u32) = (7, 2);

/// A server as it was when it was looked at.
#[derive(Clone, Copy)]
pub(super) struct Looked {
    /// The losses there had been: after the next one it may be another server.
    losses: u64,
    disk: Disk,
}

impl Server {
    /// How the disk of the server is reached that stands there now. Asks once per connection lost,
    /// so that a server that took the place of another is looked at as the first one was.
    pub(super) async fn disk(&self) -> Result<Disk, QueueError> {
        let losses = self.source.losses();
        let known = lock(&self.looked).filter(|looked| looked.losses == losses);
        match known {
            Some(looked) => Ok(looked.disk),
            None => self.look_at_the_server().await,
        }
    }

    /// Asks the server what it is, and refuses one that would lose messages.
    pub(super) async fn look_at_the_server(&self) -> Result<Disk, QueueError> {
        let losses = self.source.losses();
        let about = About::read(&text(self.operator.command(&redis::cmd("INFO")).await?)?);
        if about.says("redis_version").is_empty() {
            return Err(QueueError::Unavailable("the server does not say what it is".to_owned()));
        }
        if let Some(why) = about.objection(self.source.is_of_a_cluster()) {
            return Err(QueueError::Unusable(why));
        }
        if about.says("role") == "slave" {
            let why = "the server is a replica";
            self.source.note_loss(why);
            return Err(QueueError::Unavailable(why.to_owned()));
        }
        let has_aof = about.says("aof_enabled") == "1";
        let disk = match self.durability.needs_disk() {
            true => self.disk_of(&about, has_aof).await?,
            false => {
                if !has_aof && !self.warned_of_no_aof.swap(true, Ordering::Relaxed) {
                    tracing::warn!("appendonly is off: accepted messages end with the server's process");
                }
                Disk::BeforeItAnswers
            }
        };
        let has_replica = !matches!(about.says("connected_slaves"), "" | "0");
        if self.durability.needs_replica()
            && !has_replica
            && !self.warned_of_no_replica.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                durability = self.durability.as_str(),
                "no replica is connected: messages are refused until one is"
            );
        }
        *lock(&self.looked) = Some(Looked { losses, disk });
        Ok(disk)
    }

    /// How its disk is reached, if it is.
    async fn disk_of(&self, about: &About, has_aof: bool) -> Result<Disk, QueueError> {
        let level = self.durability.as_str();
        if !has_aof {
            return Err(QueueError::Unusable(format!("durability \"{level}\" needs appendonly yes")));
        }
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("appendfsync");
        let policy = match self.operator.command(&ask).await {
            Ok(answer) => list(answer)?.into_iter().nth(1).map(read::<String>).transpose()?,
            Err(QueueError::Unavailable(why)) if why.contains("NOPERM") || why.contains("ERR") => None,
            Err(error) => return Err(error),
        };
        let can_wait = about.version().is_some_and(|version| version >= WAITS_FOR_THE_DISK);
        match policy.as_deref() {
            Some("always") => Ok(Disk::BeforeItAnswers),
            _ if can_wait => Ok(Disk::WhenAsked),
            Some(_) => Err(QueueError::Unusable(format!(
                "durability \"{level}\" needs appendfsync always (or Redis 7.2, which can be waited for)"
            ))),
            None => Err(QueueError::Unusable(format!(
                "durability \"{level}\" needs appendfsync always, and the server does not let us look \
                 (CONFIG GET)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(info: &str) -> Option<String> {
        About::read(info).objection(false)
    }

    #[test]
    fn a_recent_server_that_evicts_nothing_may_be_used() {
        assert_eq!(objection("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(objection("redis_version:7.2.4\r\nvalkey_version:8.1.0\r\ncluster_enabled:0\r\n"), None);
        assert_eq!(objection("redis_version:8.6.0-rc1\r\n"), None);
    }

    #[test]
    fn a_node_of_a_cluster_may_be_used_as_one() {
        let node =
            About::read("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:1\r\n");
        assert_eq!(node.objection(true), None);
        assert!(node.objection(false).is_some());
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
