//! Brings what was kept to the store, oldest first, and finds out when the store is back.
//!
//! A message is forgotten here after the store has it. A crash between the two forwards it once more,
//! which the store knows for a duplicate.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::spooling::SpoolingQueue;
use super::store::Kept;
use crate::queue::contract::{Acceptance, NewMessage, QueueError};

/// The pause after a failed attempt: doubling from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often house is kept while there is nothing to do.
const IDLE: Duration = Duration::from_secs(30);

/// What one attempt came to.
enum Attempt {
    /// The spool is empty.
    Idle,
    /// Some were forwarded; there may be more.
    Forwarded,
    /// Not now.
    Failed,
}

struct Forwarder<'a> {
    spooling: &'a SpoolingQueue,
    /// Taken from the spool and not yet the store's.
    in_hand: Vec<Kept>,
    forwarded: usize,
    /// The longest that one of them was kept.
    latest: Duration,
}

impl SpoolingQueue {
    /// Forwards until `stop`, and then what can still be forwarded, for at most `grace`.
    pub async fn forward(&self, stop: CancellationToken, grace: Duration) {
        let mut forwarder =
            Forwarder { spooling: self, in_hand: Vec::new(), forwarded: 0, latest: Duration::ZERO };
        forwarder.run(&stop, grace).await;
        let leases: Vec<_> = forwarder.in_hand.into_iter().map(|kept| kept.lease).collect();
        let _ = self.spool.give_back(leases).await;
    }
}

impl Forwarder<'_> {
    /// Is not dropped midway: what was taken from the spool at that moment would be nobody's.
    async fn run(&mut self, stop: &CancellationToken, grace: Duration) {
        let (mut pause, mut end) = (FIRST_PAUSE, None);
        loop {
            if stop.is_cancelled() && *end.get_or_insert(Instant::now() + grace) <= Instant::now() {
                return;
            }
            let attempt = match self.attempt().await {
                Ok(attempt) => attempt,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    Attempt::Failed
                }
            };
            match attempt {
                Attempt::Forwarded => pause = FIRST_PAUSE,
                Attempt::Idle if stop.is_cancelled() => return,
                Attempt::Idle => {
                    pause = FIRST_PAUSE;
                    let _ = self.spooling.spool.housekeep().await;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(IDLE) => {}
                        () = self.spooling.kept.notified() => {}
                    }
                }
                Attempt::Failed => {
                    // Neither by what comes meanwhile, which is behind what waits, nor by `stop` is this cut
                    // short: at the end it is tried for as long as there is time.
                    tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 4.0)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, QueueError> {
        let SpoolingQueue { queue, spool, .. } = self.spooling;
        if self.in_hand.is_empty() {
            self.in_hand = spool.oldest().await?;
        }
        if self.in_hand.is_empty() {
            self.tell();
            if !self.spooling.is_spooling() {
                return Ok(Attempt::Idle);
            }
            return Ok(match queue.ping().await {
                Ok(()) => {
                    self.spooling.store_is_back();
                    Attempt::Idle
                }
                Err(_) => Attempt::Failed,
            });
        }
        let now = spool.now();
        let batch: Vec<NewMessage> = self.in_hand.iter().map(|kept| kept.message(now)).collect();
        let answers = match queue.accept(&batch).await {
            Ok(answers) if answers.len() == batch.len() => answers,
            Ok(_) => return Ok(Attempt::Failed),
            Err(error) => {
                self.spooling.store_is_away(&error.to_string());
                return Ok(Attempt::Failed);
            }
        };
        self.spooling.store_is_back();
        let mut stored = Vec::with_capacity(batch.len());
        for (kept, answer) in std::mem::take(&mut self.in_hand).into_iter().zip(answers) {
            match answer {
                Acceptance::Accepted | Acceptance::Duplicate => {
                    self.latest = self.latest.max(kept.age(now));
                    stored.push(kept.lease);
                }
                Acceptance::Full | Acceptance::Spooled => self.in_hand.push(kept),
            }
        }
        self.forwarded += stored.len();
        let is_stuck = stored.is_empty();
        spool.forwarded(stored).await?;
        Ok(if is_stuck { Attempt::Failed } else { Attempt::Forwarded })
    }

    /// Says what was late, and by how much.
    fn tell(&mut self) {
        if self.forwarded > 0 {
            let (messages, late_s) = (self.forwarded, self.latest.as_secs_f64());
            tracing::info!(
                messages,
                late_s,
                "the spool is empty: everything kept is in the store, so much late"
            );
            (self.forwarded, self.latest) = (0, Duration::ZERO);
        }
    }
}
