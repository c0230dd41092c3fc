//! Connections: one held per role, replaced when it fails, and never asked for in a hurry.
//!
//! A connection is multiplexed, so one serves every call of its role at once. The pool is where new
//! ones come from; nothing is checked out per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::{Connection, Manager, Pool, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, RedisResult, ScriptInvocation, Value};

use super::fault::{Blame, blame, describe, describe_pool, queue_error};
use crate::queue::contract::QueueError;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// How long to wait for the pool.
const POOL: Duration = Duration::from_secs(2);

/// Connections being made at once.
const AT_ONCE: usize = 16;

/// The pause after a failed attempt to connect: doubling from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Unanswered calls in a row after which a connection is given up: to a peer that vanished without a
/// word every call would time out for ever.
const SILENCES: u32 = 2;

/// A poisoned lock guards plain values here that are right at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where connections come from, and whether the server is there.
pub(super) struct Source {
    pool: Pool,
    is_away: AtomicBool,
    reconnects: AtomicU64,
}

impl Source {
    /// Connects to nothing yet.
    pub(super) fn new(address: ConnectionInfo) -> Result<Self, QueueError> {
        let cannot = |_| QueueError::Unusable("no pool of connections can be made".to_owned());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_pipeline_buffer_size(1_000);
        let manager = Manager::new_with_config(address, config)
            .map_err(|_| QueueError::Unusable("the Redis URL cannot be used".to_owned()))?;
        let pool = Pool::builder(manager)
            .max_size(AT_ONCE)
            .wait_timeout(Some(POOL))
            .create_timeout(Some(POOL))
            .recycle_timeout(Some(POOL))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(cannot)?;
        Ok(Self { pool, is_away: AtomicBool::new(false), reconnects: AtomicU64::new(0) })
    }

    /// Connections that replaced a lost one.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        match self.pool.get().await {
            // What is taken out of the pool leaves its place to the next.
            Ok(connection) => Ok(Connection::take(connection)),
            Err(error) => Err(describe_pool(&error)),
        }
    }

    /// The server answered.
    pub(super) fn note_present(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis is back");
        }
    }

    /// The server did not answer, or is not the one to talk to. One line however many notice.
    pub(super) fn note_away(&self, reason: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "Redis is away");
        }
    }
}

/// When to try to connect again.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
    not_before: Option<Instant>,
    reason: String,
}

impl Patience {
    /// Fails fast while it is too early.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        match self.not_before {
            Some(at) if Instant::now() < at => Err(QueueError::Unavailable(self.reason.clone())),
            _ => Ok(()),
        }
    }

    /// A connection could not be made.
    pub(super) fn refused(&mut self, reason: &str) {
        self.failures = self.failures.max(1);
        self.failed(reason);
    }

    /// A connection was lost, or could not be made. After the first loss the next attempt may be made
    /// at once.
    pub(super) fn failed(&mut self, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        reason.clone_into(&mut self.reason);
        self.not_before = (self.failures > 1).then(|| {
            let doublings = (self.failures - 2).min(10);
            let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            // Many processes lose one server at the same moment.
            Instant::now() + pause.mul_f64(1.0 + fastrand::f64() / 4.0)
        });
    }

    /// A call was answered.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

impl Source {
    /// A new connection, unless the last attempt was a moment ago.
    pub(super) async fn fresh(
        &self,
        patience: &Mutex<Patience>,
    ) -> Result<MultiplexedConnection, QueueError> {
        lock(patience).check()?;
        self.connect().await.map_err(|reason| {
            lock(patience).refused(&reason);
            self.note_away(&reason);
            QueueError::Unavailable(reason)
        })
    }
}

/// The connection of one role.
#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Which of the connections this role had; an error of an older one says nothing about this.
    generation: u64,
    silences: u32,
}

/// One role's way to the server.
pub(super) struct Link {
    source: Arc<Source>,
    slot: Mutex<Slot>,
    patience: Mutex<Patience>,
    /// One attempt at a time; whoever waits takes its result.
    connecting: tokio::sync::Mutex<()>,
}

impl Link {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            slot: Mutex::default(),
            patience: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// Runs a script. The server is sent its hash, and its text only if it does not know it.
    pub(super) async fn script(&self, script: &ScriptInvocation<'_>) -> Result<Value, QueueError> {
        let (mut connection, generation) = self.connection().await?;
        let result = script.invoke_async(&mut connection).await;
        self.judge(generation, result)
    }

    /// Runs a command.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, QueueError> {
        let (mut connection, generation) = self.connection().await?;
        let result = command.query_async(&mut connection).await;
        self.judge(generation, result)
    }

    fn held(&self) -> Option<(MultiplexedConnection, u64)> {
        let slot = lock(&self.slot);
        slot.connection.clone().map(|connection| (connection, slot.generation))
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), QueueError> {
        if let Some(held) = self.held() {
            return Ok(held);
        }
        lock(&self.patience).check()?;
        let _turn = self.connecting.lock().await;
        if let Some(held) = self.held() {
            return Ok(held);
        }
        let connection = self.source.fresh(&self.patience).await?;
        let mut slot = lock(&self.slot);
        if slot.generation > 0 {
            self.source.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        slot.generation += 1;
        slot.silences = 0;
        slot.connection = Some(connection.clone());
        Ok((connection, slot.generation))
    }

    /// Draws the conclusions from a result.
    fn judge(&self, generation: u64, result: RedisResult<Value>) -> Result<Value, QueueError> {
        let error = match result {
            Ok(value) => {
                self.answered(generation);
                return Ok(value);
            }
            Err(error) => error,
        };
        match blame(&error) {
            Blame::None => self.answered(generation),
            Blame::Silence => self.silent(generation),
            Blame::Connection => self.lost(generation, &describe(&error)),
        }
        Err(queue_error(&error))
    }

    fn answered(&self, generation: u64) {
        let mut slot = lock(&self.slot);
        if slot.generation == generation {
            slot.silences = 0;
            drop(slot);
            lock(&self.patience).reset();
            self.source.note_present();
        }
    }

    fn silent(&self, generation: u64) {
        let mut slot = lock(&self.slot);
        if slot.generation != generation {
            return;
        }
        slot.silences += 1;
        if slot.silences >= SILENCES {
            drop(slot);
            self.lost(generation, "no answer in time");
        }
    }

    fn lost(&self, generation: u64, reason: &str) {
        let mut slot = lock(&self.slot);
        if slot.generation != generation || slot.connection.take().is_none() {
            return;
        }
        drop(slot);
        lock(&self.patience).failed(reason);
        self.source.note_away(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_loss_the_first_attempt_is_made_at_once_and_the_next_ones_ever_later() {
        let mut patience = Patience::default();
        patience.failed("lost");
        assert!(patience.check().is_ok());
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            patience.refused("refused");
            assert_eq!(patience.check(), Err(QueueError::Unavailable("refused".to_owned())));
            let pause = patience.not_before.unwrap().saturating_duration_since(Instant::now());
            assert!(pause <= LONGEST_PAUSE.mul_f64(1.25));
            longest = longest.max(pause);
        }
        assert!(longest > Duration::from_millis(900));
        patience.reset();
        assert!(patience.check().is_ok());
    }

    #[test]
    fn a_server_that_was_never_there_is_not_asked_twice_in_a_row() {
        let mut patience = Patience::default();
        patience.refused("refused");
        assert!(patience.check().is_err());
    }
}
