//! What the back-end is told.

use secrecy::SecretString;

/// How safe an accepted message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of any process (AOF, fsync every second).
    Process,
    /// Survives the loss of power (AOF, fsync always).
    Disk,
}

/// Where the Redis is.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://[user:password@]host[:port][/db]`. Secret: it may carry a password.
    pub url: SecretString,
    /// What the operator wants an accepted message to survive.
    pub durability: Durability,
}

impl RedisSettings {
    /// The server at `url`, with the defaults of everything else.
    pub fn at(url: SecretString) -> Self {
        Self { url, durability: Durability::Process }
    }
}
