//! Connections: one held per role, replaced when it fails, and never asked for in a hurry.
//!
//! A connection is multiplexed, so one serves every call of its role at once. The [`super::finder`] is where
//! new ones come from; nothing is checked out per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ScriptInvocation, Value};

use super::fault::{Blame, blame, describe, is_on_the_way, queue_error};
use super::finder::{Finder, NotFound};
use super::proof::{NoProof, Proof};
use crate::queue::contract::QueueError;

/// The pause after a failed attempt to connect: doubling from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Unanswered calls in a row after which a connection is given up: to a peer that vanished without a
/// word every call would time out for ever.
const SILENCES: u32 = 2;

/// For how long a call whose keys are on their way from one node to another is repeated before its caller
/// hears of it, and the pause between two looks.
const ON_THE_WAY: Duration = Duration::from_millis(1_500);
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// Why nothing was asked, or nothing done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: QueueError,
    /// Whether keys were on their way: worth another look in a moment.
    is_passing: bool,
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        Self { error, is_passing: false }
    }
}

/// A poisoned lock guards plain values here that are right at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where connections come from, and whether the server is there.
pub(super) struct Source {
    finder: Finder,
    is_away: AtomicBool,
    reconnects: AtomicU64,
    patience: Mutex<Patience>,
    /// One attempt at a time; whoever waited for one that failed does not repeat it.
    connecting: tokio::sync::Mutex<()>,
    /// Connections lost so far. Whoever loses one says so to all: the others lead to the same server.
    losses: AtomicU64,
}

impl Source {
    /// Connects to nothing yet.
    pub(super) fn new(finder: Finder) -> Self {
        Self {
            finder,
            is_away: AtomicBool::new(false),
            reconnects: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            patience: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// Connections that replaced a lost one.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// How many connections were lost; one made before the latest loss is not to be trusted.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Whether it leads to a node of a cluster.
    pub(super) fn is_of_a_cluster(&self) -> bool {
        self.finder.is_of_a_cluster()
    }

    /// Whether the server was away when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Our keys went to another node: nothing was lost, but no connection is to be trusted.
    pub(super) fn note_move(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was lost.
    pub(super) fn note_loss(&self, reason: &str) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        lock(&self.patience).failed(QueueError::Unavailable(reason.to_owned()).into());
        self.note_away(reason);
    }

    /// A call was answered.
    pub(super) fn note_answer(&self) {
        lock(&self.patience).reset();
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!(shard = self.finder.shard(), "Redis is back");
        }
    }

    /// One line however many notice.
    fn note_away(&self, reason: &str) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(shard = self.finder.shard(), reason, "Redis is away");
        }
    }

    /// The turn to make a connection, unless the last attempt was a moment ago.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Refusal> {
        lock(&self.patience).check()?;
        let alone = self.connecting.lock().await;
        lock(&self.patience).check()?;
        Ok(Turn { source: self, _alone: alone })
    }
}

/// The right to make a connection while nobody else does.
pub(super) struct Turn<'a> {
    source: &'a Source,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Makes one.
    pub(super) async fn connect(self) -> Result<MultiplexedConnection, Refusal> {
        self.source.finder.connect().await.map_err(|not_found| {
            let refusal = match not_found {
                NotFound::Away(reason) => {
                    self.source.note_away(&reason);
                    QueueError::Unavailable(reason).into()
                }
                NotFound::OnTheWay(reason) => {
                    Refusal { error: QueueError::Unavailable(reason), is_passing: true }
                }
                NotFound::Another(error) => error.into(),
            };
            lock(&self.source.patience).refused(refusal.clone());
            refusal
        })
    }
}

/// When to try to connect again.
#[derive(Default)]
struct Patience {
    failures: u32,
    not_before: Option<(Instant, Refusal)>,
}

impl Patience {
    /// Fails fast while it is too early.
    fn check(&self) -> Result<(), Refusal> {
        match &self.not_before {
            Some((at, refusal)) if Instant::now() < *at => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    /// A connection could not be made.
    fn refused(&mut self, refusal: Refusal) {
        self.failures = self.failures.max(1);
        self.failed(refusal);
    }

    /// A connection was lost, or could not be made. After the first loss the next attempt may be made
    /// at once.
    fn failed(&mut self, refusal: Refusal) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = (self.failures > 1).then(|| {
            let doublings = (self.failures - 2).min(10);
            let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
            // Many processes lose one server at the same moment.
            (Instant::now() + pause.mul_f64(1.0 + fastrand::f64() / 4.0), refusal)
        });
    }

    /// A call was answered.
    fn reset(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

/// The connection of one role.
#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Which of the connections this role had; an error of an older one says nothing about this.
    generation: u64,
    /// The losses there had been when it was made.
    losses: u64,
    silences: u32,
    /// When it is to be replaced.
    until: Option<Instant>,
}

/// What a server is asked.
#[derive(Clone, Copy)]
enum Request<'a> {
    Script(&'a ScriptInvocation<'a>),
    Proven(&'a ScriptInvocation<'a>, Proof),
    Command(&'a Cmd),
}

impl Request<'_> {
    async fn send(self, connection: &mut MultiplexedConnection) -> Result<Value, NoProof> {
        match self {
            Self::Script(script) => Ok(script.invoke_async(connection).await?),
            Self::Proven(script, proof) => {
                let answer = script.invoke_async(connection).await?;
                proof.await_on(connection).await?;
                Ok(answer)
            }
            Self::Command(command) => Ok(command.query_async(connection).await?),
        }
    }
}

/// A connection, for one request.
struct Held {
    connection: MultiplexedConnection,
    generation: u64,
    /// Whether it was there already, and so may have been lost unnoticed.
    is_kept: bool,
}

/// One role's way to the server.
pub(super) struct Link {
    source: Arc<Source>,
    slot: Mutex<Slot>,
}

impl Link {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, slot: Mutex::default() }
    }

    /// Runs a script. The server is sent its hash, and its text only if it does not know it.
    pub(super) async fn script(&self, script: &ScriptInvocation<'_>) -> Result<Value, QueueError> {
        self.ask(Request::Script(script)).await
    }

    /// Runs a script, and answers once what it stored is as safe as `proof` says.
    pub(super) async fn script_with_proof(
        &self,
        script: &ScriptInvocation<'_>,
        proof: Proof,
    ) -> Result<Value, QueueError> {
        self.ask(Request::Proven(script, proof)).await
    }

    /// Runs a command.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, QueueError> {
        self.ask(Request::Command(command)).await
    }

    /// Asks, again and again while our keys are on their way to another node: what a cluster does with its slots is
    /// no caller's business unless it takes long.
    async fn ask(&self, request: Request<'_>) -> Result<Value, QueueError> {
        let give_up = Instant::now() + ON_THE_WAY;
        loop {
            match self.ask_now(request).await {
                Err(refusal) if refusal.is_passing && Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_AGAIN.mul_f64(1.0 + fastrand::f64())).await;
                }
                answered => return answered.map_err(|refusal| refusal.error),
            }
        }
    }

    /// Asks, and once more if a connection that was kept turns out to lead nowhere (any more): it may have
    /// been cut while nobody used it. Whether the first request arrived is not known then, and does not
    /// matter: every script may be repeated. What was not answered in time is not asked again here: the
    /// caller's own time is limited.
    async fn ask_now(&self, request: Request<'_>) -> Result<Value, Refusal> {
        let mut held = self.connection().await?;
        let mut result = request.send(&mut held.connection).await;
        let is_lost = matches!(&result, Err(NoProof::Failed(error)) if blame(error) == Blame::Connection);
        if held.is_kept && is_lost {
            // The loss is noted, and whoever comes next finds a new connection.
            let _ = self.judge(held.generation, result);
            held = self.connection().await?;
            result = request.send(&mut held.connection).await;
        }
        self.judge(held.generation, result)
    }

    fn held(&self) -> Option<Held> {
        let mut slot = lock(&self.slot);
        if slot.losses != self.source.losses() || slot.until.is_some_and(|until| until <= Instant::now()) {
            slot.connection = None;
        }
        let connection = slot.connection.clone()?;
        Some(Held { connection, generation: slot.generation, is_kept: true })
    }

    async fn connection(&self) -> Result<Held, Refusal> {
        if let Some(held) = self.held() {
            return Ok(held);
        }
        let turn = self.source.turn().await?;
        if let Some(held) = self.held() {
            return Ok(held);
        }
        let losses = self.source.losses();
        let connection = turn.connect().await?;
        let mut slot = lock(&self.slot);
        if slot.generation > 0 {
            self.source.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        slot.generation += 1;
        slot.losses = losses;
        slot.silences = 0;
        let lifetime = self.source.finder.lifetime();
        slot.until = Some(Instant::now() + lifetime.mul_f64(1.0 + fastrand::f64() / 4.0));
        slot.connection = Some(connection.clone());
        Ok(Held { connection, generation: slot.generation, is_kept: false })
    }

    /// Draws the conclusions from a result.
    fn judge(&self, generation: u64, result: Result<Value, NoProof>) -> Result<Value, Refusal> {
        let error = match result {
            Ok(value) => {
                self.answered(generation);
                return Ok(value);
            }
            Err(NoProof::FellShort(error)) => {
                self.answered(generation);
                return Err(error.into());
            }
            Err(NoProof::Failed(error)) => error,
        };
        match blame(&error) {
            Blame::None => self.answered(generation),
            Blame::Silence => self.silent(generation),
            Blame::Connection => self.lost(generation, &error),
        }
        Err(Refusal { error: queue_error(&error), is_passing: is_on_the_way(&error) })
    }

    fn answered(&self, generation: u64) {
        let mut slot = lock(&self.slot);
        if slot.generation == generation {
            slot.silences = 0;
            drop(slot);
            self.source.note_answer();
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
            self.gone(generation, |source| source.note_loss("no answer in time"));
        }
    }

    fn lost(&self, generation: u64, error: &RedisError) {
        self.gone(generation, |source| match error.code() {
            Some("MOVED") => source.note_move(),
            _ => source.note_loss(&describe(error)),
        });
    }

    fn gone(&self, generation: u64, tell: impl FnOnce(&Source)) {
        let mut slot = lock(&self.slot);
        if slot.generation != generation || slot.connection.take().is_none() {
            return;
        }
        // Another role may have lost its connection to the same server a moment ago: one loss, told once.
        let is_known = slot.losses != self.source.losses();
        drop(slot);
        if !is_known {
            tell(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: &str) -> Refusal {
        QueueError::Unavailable(reason.to_owned()).into()
    }

    #[test]
    fn after_a_loss_the_first_attempt_is_made_at_once_and_the_next_ones_ever_later() {
        let mut patience = Patience::default();
        patience.failed(refusal("lost"));
        assert!(patience.check().is_ok());
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            patience.refused(refusal("refused"));
            assert_eq!(patience.check(), Err(refusal("refused")));
            let (at, _) = patience.not_before.as_ref().unwrap();
            let pause = at.saturating_duration_since(Instant::now());
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
        patience.refused(refusal("refused"));
        assert!(patience.check().is_err());
    }
}
