//! How the server is, for the metrics: a healthy answer to every call may come from a server that has
//! stopped writing to its disk.

use super::prepare::About;
use super::reply::text;
use super::server::Server;
use crate::metrics::RedisCondition;
use crate::queue::contract::QueueError;

impl Server {
    /// What the server says of its memory and its disk, by `INFO`, and which server it is.
    pub(super) async fn condition(&self) -> Result<(String, RedisCondition), QueueError> {
        let about = About::read(&text(self.operator.command(&redis::cmd("INFO")).await?)?);
        Ok((about.says("run_id").to_owned(), condition(&about)))
    }
}

fn condition(about: &About) -> RedisCondition {
    let number = |name| about.says(name).parse().unwrap_or(0);
    // A server that was never asked to write one says "ok"; one that does not know the word is not blamed.
    let worked = |name| matches!(about.says(name), "ok" | "");
    RedisCondition {
        used_memory: number("used_memory"),
        max_memory: number("maxmemory"),
        evicted_keys: number("evicted_keys"),
        is_noeviction: matches!(about.says("maxmemory_policy"), "noeviction" | ""),
        has_aof: about.says("aof_enabled") == "1",
        is_persisting: worked("aof_last_write_status")
            && worked("aof_last_bgrewrite_status")
            && worked("rdb_last_bgsave_status"),
        replicas: number("connected_slaves"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_write_to_its_disk_is_seen() {
        let healthy = "used_memory:1048576\r\nmaxmemory:4194304\r\nmaxmemory_policy:noeviction\r\n\
                       aof_enabled:1\r\naof_last_write_status:ok\r\naof_last_bgrewrite_status:ok\r\n\
                       rdb_last_bgsave_status:ok\r\nevicted_keys:0\r\nconnected_slaves:1\r\n";
        let expected = RedisCondition {
            used_memory: 1_048_576,
            max_memory: 4_194_304,
            evicted_keys: 0,
            is_noeviction: true,
            has_aof: true,
            is_persisting: true,
            replicas: 1,
        };
        assert_eq!(condition(&About::read(healthy)), expected);
        for word in ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"] {
            let ill = healthy.replace(&format!("{word}:ok"), &format!("{word}:err"));
            assert_eq!(condition(&About::read(&ill)), RedisCondition { is_persisting: false, ..expected });
        }
        let evicting =
            healthy.replace("noeviction", "allkeys-lru").replace("evicted_keys:0", "evicted_keys:7");
        let expected = RedisCondition { is_noeviction: false, evicted_keys: 7, ..expected };
        assert_eq!(condition(&About::read(&evicting)), expected);
    }
}
