//! How much a lane may have in flight, so that one hanging destination cannot take it all.
//!
//! An attempt takes a slot before its work is claimed. One that is still running after
//! [`SLOW_AFTER`] moves to a larger slow side and gives its slot back, so the lane goes on. Of the slow
//! side one destination gets a quarter of the lane's concurrency; beyond that the claims name it busy
//! and leave its work where it is.
//!
//! One that has ended moves to a third side while its outcome is recorded: the next may begin meanwhile. That
//! side has the lane's concurrency too, so what was sent and is not recorded stays bounded.
//!
//! What the store hands out as it is made waits in line for a slot, in its [`Place`], so that the next attempt
//! begins when one ends. The line is no longer than what the lane, as quick as it was of late, gets done in
//! [`LONGEST_LINE`]. Once anything of the lane is slow there is none: what would have to wait here goes to whoever
//! is free.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
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

/// How long what is in line may take to begin.
const LONGEST_LINE: Duration = Duration::from_millis(20);

/// The line, compared to the lane's concurrency, is no longer than this.
const LINE_FACTOR: usize = 4;

/// Attempts whose average tells how quick the lane is.
const OF_LATE: u64 = 64;

/// A lane's slots.
pub(super) struct Slots {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    recording: Arc<Semaphore>,
    concurrency: usize,
    /// Places that are taken.
    in_line: AtomicUsize,
    /// How long an attempt takes on average, in microseconds; 0 before the first.
    took_us: AtomicU64,
    /// Told when there is more room than there was.
    freed: Notify,
    /// Slots that are worth a claim.
    enough: usize,
    slow_per_destination: usize,
    slow_by_destination: Mutex<HashMap<DestinationKey, usize>>,
}

/// A place in the line for a slot.
pub(super) struct Place {
    slots: Arc<Slots>,
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
            concurrency,
            in_line: AtomicUsize::new(0),
            took_us: AtomicU64::new(0),
            freed: Notify::new(),
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

    /// How long the line may be now.
    fn longest_line(&self) -> usize {
        let took = u128::from(self.took_us.load(Ordering::Relaxed));
        if took == 0 || !self.slow_counts().is_empty() {
            return 0;
        }
        let done_meanwhile = self.concurrency as u128 * LONGEST_LINE.as_micros() / took;
        usize::try_from(done_meanwhile).unwrap_or(usize::MAX).min(self.concurrency * LINE_FACTOR)
    }

    /// How many places there are now: free slots, and the line.
    pub(super) fn room(&self) -> usize {
        let all = self.quick.available_permits() + self.longest_line();
        all.saturating_sub(self.in_line.load(Ordering::Relaxed))
    }

    /// Takes places, up to `most`.
    pub(super) fn places(self: &Arc<Self>, most: usize) -> Vec<Place> {
        let number = most.min(self.room());
        self.in_line.fetch_add(number, Ordering::Relaxed);
        (0..number).map(|_| Place { slots: Arc::clone(self) }).collect()
    }

    /// Waits until there are so many places, or as many as the lane can run at once.
    pub(super) async fn has_room(&self, count: usize) {
        let count = count.min(self.concurrency);
        loop {
            let freed = self.freed.notified();
            if self.room() >= count {
                return;
            }
            freed.await;
        }
    }

    /// An attempt was over after `took`.
    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let average = match self.took_us.load(Ordering::Relaxed) {
            0 => took,
            before => (before * (OF_LATE - 1)).saturating_add(took) / OF_LATE,
        };
        // Another attempt's note in between is lost: it is an average.
        self.took_us.store(average.max(1), Ordering::Relaxed);
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

impl Place {
    /// Waits for a slot. `None` never happens while the lane is there.
    pub(super) async fn slot(self) -> Option<Slot> {
        let permit = Arc::clone(&self.slots.quick).acquire_owned().await.ok()?;
        Some(self.slots.slot(permit))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.in_line.fetch_sub(1, Ordering::Relaxed);
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

    /// Its attempt is over, after `took`: once there is room among those whose outcome is being recorded it moves
    /// there and gives back what it had.
    pub(super) async fn turn_to_recording(&mut self, took: Duration) {
        self.end_slow();
        self.slots.note(took);
        if let Ok(room) = Arc::clone(&self.slots.recording).acquire_owned().await {
            self.permit = Some(room);
            self.slots.freed.notify_waiters();
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
        self.permit = None;
        self.slots.freed.notify_waiters();
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
            slot.turn_to_recording(Duration::ZERO).await;
        }
        assert!(slots.busy().is_empty(), "nothing of it is sent any more");
        let mut next = slots.take(false).await;
        assert_eq!(next.len(), 2);
        let waits = next[0].turn_to_recording(Duration::ZERO);
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending(), "as many are recorded as may be");
        recording.pop();
        waits.await;
        assert_eq!(slots.take_free(9).len(), 1);
    }

    #[tokio::test]
    async fn the_line_is_as_long_as_the_lane_is_quick() {
        let slots = Slots::new(4);
        assert_eq!(slots.room(), 4, "nothing is known yet: free slots, and no line");
        let after = |took| {
            slots.took_us.store(0, Ordering::Relaxed);
            slots.note(took);
            slots.room()
        };
        assert_eq!(after(LONGEST_LINE * 10), 4);
        assert_eq!(after(LONGEST_LINE), 4 + 4);
        assert_eq!(after(LONGEST_LINE / 2), 4 + 8);
        assert_eq!(after(Duration::from_micros(1)), 4 + 4 * LINE_FACTOR, "not without bound");

        let mut places = slots.places(100);
        assert_eq!((places.len(), slots.room()), (4 + 4 * LINE_FACTOR, 0));
        let has_room = slots.has_room(2);
        tokio::pin!(has_room);
        assert!(futures_util::poll!(&mut has_room).is_pending());
        let mut running: Vec<Slot> = Vec::new();
        for _ in 0..4 {
            running.extend(places.pop().unwrap().slot().await);
        }
        assert_eq!(slots.room(), 0, "they run now");
        let waits = places.pop().unwrap().slot();
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(running);
        let first = waits.await;
        assert!(first.is_some());
        has_room.await;

        let mut first = first.unwrap();
        first.turn_slow(&destination("a"));
        drop(places);
        assert_eq!(slots.room(), 4, "something is slow: free slots, and no line");
    }
}
