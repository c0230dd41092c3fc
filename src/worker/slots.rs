//! How much a lane may have in flight, so that one hanging destination cannot take it all.
//!
//! An attempt takes a slot before its work is claimed. One that is still running after
//! [`SLOW_AFTER`] moves to a larger slow side and gives its slot back, so the lane goes on. Of the slow
//! side one destination gets a quarter of the lane's concurrency; beyond that the claims name it busy
//! and leave its work where it is.
//!
//! One that has ended moves to a third side while its outcome is recorded: the next may begin meanwhile. That
//! side has the lane's concurrency too, so what was sent and is not recorded stays bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::delivery::DestinationKey;
use crate::queue::contract::MAX_BATCH;

/// An attempt that takes longer no longer counts as quick.
pub(super) const SLOW_AFTER: Duration = Duration::from_millis(250);

/// The slow side is this many times the lane's concurrency.
const SLOW_FACTOR: usize = 4;

/// How long a lane that has work ready waits for more slots before it claims: a claim costs the store much the
/// same for one piece as for several.
const GATHER: Duration = Duration::from_millis(1);

/// The part of a lane's slots that is enough for a claim not to wait for more.
const ENOUGH: usize = 4;

/// A lane's slots.
pub(super) struct Slots {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    recording: Arc<Semaphore>,
    /// Slots that are worth a claim.
    enough: usize,
    slow_per_destination: usize,
    slow_by_destination: Mutex<HashMap<DestinationKey, usize>>,
}

/// One slot, held by one attempt.
pub(super) struct Slot {
    slots: Arc<Slots>,
    permit: Option<OwnedSemaphorePermit>,
    /// Set once it counts as slow.
    slow_for: Option<DestinationKey>,
}

impl Slots {
    /// Slots for `concurrency` attempts.
    pub(super) fn new(concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            quick: Arc::new(Semaphore::new(concurrency)),
            slow: Arc::new(Semaphore::new(concurrency * SLOW_FACTOR)),
            recording: Arc::new(Semaphore::new(concurrency)),
            enough: concurrency / ENOUGH,
            slow_per_destination: (concurrency / 4).max(1),
            slow_by_destination: Mutex::new(HashMap::new()),
        })
    }

    fn slow_counts(&self) -> MutexGuard<'_, HashMap<DestinationKey, usize>> {
        self.slow_by_destination.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a free slot, then takes all that are free, up to a batch. `has_work`: more work is ready than
    /// was claimed, so it gathers some slots first, but not for long.
    pub(super) async fn take(self: &Arc<Self>, has_work: bool) -> Vec<Slot> {
        let first = Arc::clone(&self.quick).acquire_owned().await;
        let mut taken: Vec<Slot> = first.ok().into_iter().map(|permit| self.slot(permit)).collect();
        taken.extend(self.take_free(MAX_BATCH - 1));
        if has_work && taken.len() < self.enough {
            let lacking = u32::try_from(self.enough - taken.len()).unwrap_or(u32::MAX);
            let more = timeout(GATHER, Arc::clone(&self.quick).acquire_many_owned(lacking)).await;
            if let Ok(Ok(mut more)) = more {
                taken.extend(std::iter::from_fn(|| more.split(1)).map(|permit| self.slot(permit)));
            }
            taken.extend(self.take_free(MAX_BATCH - taken.len()));
        }
        taken
    }

    /// Takes what is free now, up to `most`.
    pub(super) fn take_free(self: &Arc<Self>, most: usize) -> Vec<Slot> {
        let permits = std::iter::from_fn(|| Arc::clone(&self.quick).try_acquire_owned().ok());
        permits.take(most).map(|permit| self.slot(permit)).collect()
    }

    fn slot(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        Slot { slots: Arc::clone(self), permit: Some(permit), slow_for: None }
    }

    /// Destinations that have their share of the slow side.
    pub(super) fn busy(&self) -> Vec<DestinationKey> {
        let counts = self.slow_counts();
        counts
            .iter()
            .filter(|(_, count)| **count >= self.slow_per_destination)
            .map(|(key, _)| key.clone())
            .collect()
    }
}

impl Slot {
    /// Moves to the slow side, if there is room, and gives the quick slot back. Returns whether it did.
    pub(super) fn turn_slow(&mut self, destination: &DestinationKey) -> bool {
        if self.slow_for.is_some() {
            return false;
        }
        let room = Arc::clone(&self.slots.slow).try_acquire_owned().ok();
        let moves = room.is_some();
        if moves {
            self.permit = room;
        }
        // Counted even when it must keep its quick slot: its destination is slow all the same.
        *self.slots.slow_counts().entry(destination.clone()).or_default() += 1;
        self.slow_for = Some(destination.clone());
        moves
    }

    /// Its attempt has ended: once there is room among those whose outcome is being recorded it moves there and
    /// gives back what it had.
    pub(super) async fn turn_to_recording(&mut self) {
        self.end_slow();
        if let Ok(room) = Arc::clone(&self.slots.recording).acquire_owned().await {
            self.permit = Some(room);
        }
    }

    /// Its destination no longer has it in hand.
    fn end_slow(&mut self) {
        if let Some(destination) = self.slow_for.take() {
            let mut counts = self.slots.slow_counts();
            if let Some(count) = counts.get_mut(&destination) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&destination);
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end_slow();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(name: &str) -> DestinationKey {
        DestinationKey::from_stored(name)
    }

    #[tokio::test]
    async fn slow_attempts_give_their_slots_back_and_mark_their_destination_busy() {
        let slots = Slots::new(4);
        let mut taken = slots.take(false).await;
        assert_eq!(taken.len(), 4);
        assert!(slots.take_free(1).is_empty());
        assert!(slots.busy().is_empty());

        assert!(taken[0].turn_slow(&destination("a")));
        assert!(!taken[0].turn_slow(&destination("a")));
        assert_eq!(slots.busy(), [destination("a")]);
        assert_eq!(slots.take_free(9).len(), 1);

        taken.clear();
        assert!(slots.busy().is_empty());
        assert_eq!(slots.take(false).await.len(), 4);
    }

    #[tokio::test]
    async fn the_slow_side_is_bounded_too() {
        let slots = Slots::new(1);
        let mut slow = Vec::new();
        for _ in 0..SLOW_FACTOR {
            let mut slot = slots.take(false).await.remove(0);
            assert!(slot.turn_slow(&destination("a")));
            slow.push(slot);
        }
        let mut last = slots.take(false).await.remove(0);
        assert!(!last.turn_slow(&destination("b")));
        assert!(slots.take_free(1).is_empty(), "no room on the slow side: the quick slot is kept");
        drop(last);
        assert_eq!(slots.take_free(1).len(), 1);
    }

    #[tokio::test]
    async fn an_attempt_that_has_ended_makes_room_while_it_is_recorded_but_not_without_bound() {
        let slots = Slots::new(2);
        let mut recording = slots.take(false).await;
        for slot in &mut recording {
            assert!(slot.turn_slow(&destination("a")));
            slot.turn_to_recording().await;
        }
        assert!(slots.busy().is_empty(), "nothing of it is sent any more");
        let mut next = slots.take(false).await;
        assert_eq!(next.len(), 2);
        let waits = next[0].turn_to_recording();
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending(), "as many are recorded as may be");
        recording.pop();
        waits.await;
        assert_eq!(slots.take_free(9).len(), 1);
    }
}
