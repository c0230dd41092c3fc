//! What the back-end is told.

use secrecy::SecretString;

use super::certificates::TlsFiles;

/// What an accepted message survives, beside the end of every process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the server's process: what was stored is with its kernel.
    Process,
    /// The loss of power: it is on the server's disk.
    Disk,
    /// The loss of the machine: a replica has it too.
    Replica,
    /// Both: it is on the server's disk, and a replica has it too.
    DiskAndReplica,
}

impl Durability {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Process, Self::Disk, Self::Replica, Self::DiskAndReplica];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
            Self::Replica => "replica",
            Self::DiskAndReplica => "disk+replica",
        }
    }

    /// Whether it takes the server's disk.
    pub fn needs_disk(self) -> bool {
        matches!(self, Self::Disk | Self::DiskAndReplica)
    }

    /// Whether it takes a replica.
    pub fn needs_replica(self) -> bool {
        matches!(self, Self::Replica | Self::DiskAndReplica)
    }
}

/// Where the Redis is.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// As [`super::RedisAddress`] reads it. Secret: it may carry a password.
    pub url: SecretString,
    /// The certificates of a connection by TLS.
    pub tls: TlsFiles,
    /// What the operator wants an accepted message to survive.
    pub durability: Durability,
    /// In how many shards the store is, at least 1. What is stored depends on it.
    pub shards: usize,
}

impl RedisSettings {
    /// The server at `url`, with the defaults of everything else.
    pub fn at(url: SecretString) -> Self {
        Self { url, tls: TlsFiles::default(), durability: Durability::Process, shards: 1 }
    }
}
