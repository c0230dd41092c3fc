//! The Redis server, as it describes itself.

use prometheus::{IntCounter, IntGauge};

use super::make::{int_counter, int_gauge};
use super::process::Metrics;

/// What a server says of itself that an operator must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisCondition {
    /// Bytes its data take.
    pub used_memory: u64,
    /// Its limit in bytes; 0 is none.
    pub max_memory: u64,
    /// Keys it deleted for want of memory since it started.
    pub evicted_keys: u64,
    /// Whether its policy is to refuse writes rather than to delete.
    pub is_noeviction: bool,
    /// Whether it appends every write to a file.
    pub has_aof: bool,
    /// Whether its last writes to that file, its last rewrite of it and its last snapshot all worked.
    pub is_persisting: bool,
    /// Replicas that are connected.
    pub replicas: u64,
}

/// What is shown of the Redis server.
pub struct RedisMetrics {
    used_memory: IntGauge,
    max_memory: IntGauge,
    evicted_keys: IntCounter,
    noeviction: IntGauge,
    aof_enabled: IntGauge,
    persistence_ok: IntGauge,
    replicas: IntGauge,
}

impl RedisMetrics {
    /// Registers the series of a process whose store is a Redis server.
    pub fn register(metrics: &Metrics) -> Self {
        let registry = metrics.registry();
        Self {
            used_memory: int_gauge(registry, "redis_used_memory_bytes", "Memory that Redis uses."),
            max_memory: int_gauge(
                registry,
                "redis_max_memory_bytes",
                "Memory that Redis may use; 0 is no limit.",
            ),
            evicted_keys: int_counter(
                registry,
                "redis_evicted_keys_total",
                "Keys that Redis deleted for want of memory: each may have been a message.",
            ),
            noeviction: int_gauge(
                registry,
                "redis_noeviction",
                "Whether Redis refuses writes rather than delete data when memory is short.",
            ),
            aof_enabled: int_gauge(
                registry,
                "redis_aof_enabled",
                "Whether Redis appends every write to a file.",
            ),
            persistence_ok: int_gauge(
                registry,
                "redis_persistence_ok",
                "Whether the last writes, rewrite and snapshot of Redis to its disk worked.",
            ),
            replicas: int_gauge(registry, "redis_connected_replicas", "Replicas connected to Redis."),
        }
    }

    /// Shows what the server said just now.
    pub fn show(&self, condition: &RedisCondition) {
        self.used_memory.set(condition.used_memory.cast_signed());
        self.max_memory.set(condition.max_memory.cast_signed());
        // The server counts from its start; ours goes on over its restarts.
        self.evicted_keys.inc_by(condition.evicted_keys.saturating_sub(self.evicted_keys.get()));
        self.noeviction.set(condition.is_noeviction.into());
        self.aof_enabled.set(condition.has_aof.into());
        self.persistence_ok.set(condition.is_persisting.into());
        self.replicas.set(condition.replicas.cast_signed());
    }
}
