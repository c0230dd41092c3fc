//! The loop of one channel's lane: slots, claim, one task per delivery.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::appetite::Supplied;
use super::attempt::{AttemptParts, Known, attempt};
use super::patience::Patience;
use super::readdress::Readdress;
use super::recorder::Recorder;
use super::run::Shared;
use super::settings::ChannelPlan;
use super::slots::{Place, Slot, Slots};
use super::store_time::StoreTime;
use crate::channel::contract::Channel;
use crate::clock::Timestamp;
use crate::delivery::ChannelId;
use crate::queue::contract::{Claim, Claimed, Lane, Room, Work};
use crate::template::Templates;

/// The longest a loop waits before it asks again: what another process makes ready rings no bell here.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long a loop waits that was handed nothing but suspects it may not run yet.
const SUSPECT_WAIT: Duration = Duration::from_millis(100);

/// How long a lane does not ask for work after what was made for it was handed out with its routing: its bell rings
/// for that, too.
const HANDED_OUT: Duration = Duration::from_millis(20);

/// One channel's lane in this process.
pub(super) struct ChannelLane {
    shared: Arc<Shared>,
    lane: Lane,
    parts: Arc<AttemptParts>,
    slots: Arc<Slots>,
    running: Mutex<JoinSet<()>>,
    /// When work was handed out with its routing.
    handed_out: Mutex<Option<Instant>>,
    /// Told of work that was made and not handed out with its routing.
    left: Notify,
}

impl ChannelLane {
    pub(super) fn new(
        shared: Arc<Shared>,
        recorder: Recorder,
        channel: Arc<dyn Channel>,
        plan: ChannelPlan,
        slots: Arc<Slots>,
        templates: Arc<Templates>,
        readdress: Arc<Readdress>,
    ) -> Self {
        let id = channel.id();
        let lane = Lane::of(&id);
        let parts = Arc::new(AttemptParts {
            shared: Arc::clone(&shared),
            recorder,
            channel,
            id,
            lane: lane.clone(),
            plan,
            templates,
            readdress,
        });
        Self {
            shared,
            lane,
            parts,
            slots,
            running: Mutex::new(JoinSet::new()),
            handed_out: Mutex::new(None),
            left: Notify::new(),
        }
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(super) fn channel(&self) -> &ChannelId {
        &self.parts.id
    }

    /// What can be begun with at once: no more than `most`, and nothing that a claim would leave where it is.
    pub(super) fn room(&self, most: usize) -> (Room, Vec<Place>) {
        let closed = self.shared.shutdown.is_cancelled() || !self.slots.busy().is_empty();
        let places = self.slots.places(if closed { 0 } else { most });
        (Room { lane: self.lane.clone(), max: places.len(), limits: self.parts.plan.limits }, places)
    }

    /// Work for this lane was made.
    pub(super) fn was_made(&self, supplied: &Supplied) {
        if supplied.handed_out > 0 {
            *self.handed_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        if supplied.left > 0 {
            self.left.notify_one();
        }
    }

    /// Begins with work that was handed out with its routing, once there is a slot for it.
    pub(super) fn begin(&self, work: Work, known: Known, place: Place, time: StoreTime, asked: Instant) {
        let hold = self.shared.held.hold(work.lease.key().clone(), asked);
        let parts = Arc::clone(&self.parts);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.spawn(async move {
            if let Some(slot) = place.slot().await {
                attempt(&parts, work, Some(known), hold, slot, time).await;
            }
        });
        while running.try_join_next().is_some() {}
    }

    /// Waits out what is rung for what was handed out already; not where other work was made.
    async fn let_ring(&self) {
        let handed_out = *self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        if handed_out.is_some_and(|at| at.elapsed() < HANDED_OUT) {
            let _ = tokio::time::timeout(HANDED_OUT, self.left.notified()).await;
        }
    }

    /// Claims and starts deliveries until the shutdown.
    pub(super) async fn run(self: Arc<Self>) {
        let shutdown = self.shared.shutdown.clone();
        let mut patience = Patience::new();
        let mut has_work = false;
        while let Some(slots) = shutdown.run_until_cancelled(self.slots.take(has_work)).await {
            let asked = Instant::now();
            // Not cut short by the shutdown: what the store hands out must reach us, to be given back.
            match self.claim(slots.len()).await {
                Ok(claimed) => {
                    patience.reset();
                    has_work = claimed.wait == Some(Duration::ZERO);
                    self.handle(claimed, slots, asked).await;
                }
                Err(error) => {
                    drop(slots);
                    patience.after("asking for deliveries", &error, &shutdown).await;
                }
            }
        }
    }

    async fn claim(&self, max: usize) -> Result<Claimed, crate::queue::contract::QueueError> {
        let busy = self.slots.busy();
        let claim = Claim {
            owner: &self.shared.owner,
            lane: &self.lane,
            max,
            limits: self.parts.plan.limits,
            busy: &busy,
        };
        self.shared.queue.claim(claim).await
    }

    async fn handle(&self, claimed: Claimed, slots: Vec<Slot>, asked: Instant) {
        self.shared.metrics.claimed(self.lane.as_str(), claimed.now);
        self.shared.note_buried(&claimed.buried);
        self.shared.note_recreated(claimed.recreated);
        let (wanted, got) = (slots.len(), claimed.items.len());
        let has_more = claimed.wait == Some(Duration::ZERO) || claimed.rate_limited;
        self.shared.appetite.claimed(&self.parts.id, got, has_more);
        let gave_back = self.start(claimed.items, slots, claimed.now, asked).await;
        let shutdown = &self.shared.shutdown;
        if gave_back {
            shutdown.run_until_cancelled(tokio::time::sleep(SUSPECT_WAIT)).await;
        } else if got < wanted && claimed.wait != Some(Duration::ZERO) {
            let longest = claimed.wait.map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT));
            if claimed.rate_limited {
                // Ready work is there and may not go yet: only time helps, the bell would ring at once.
                let since = Instant::now();
                shutdown.run_until_cancelled(tokio::time::sleep(longest)).await;
                self.shared.metrics.rate_limited(self.lane.as_str(), since.elapsed().as_secs_f64());
            } else {
                let waited = self.shared.queue.wait(&self.lane, &claimed.mark, longest);
                match shutdown.run_until_cancelled(waited).await {
                    Some(Err(error)) => {
                        Patience::new().after("waiting for deliveries", &error, shutdown).await;
                    }
                    _ => self.let_ring().await,
                }
            }
        }
    }

    /// Starts a task for each piece of work; at the shutdown gives it back instead. Returns whether
    /// suspects were given back.
    pub(super) async fn start(
        &self,
        items: Vec<Work>,
        slots: Vec<Slot>,
        now: Timestamp,
        asked: Instant,
    ) -> bool {
        if items.is_empty() {
            return false;
        }
        if self.shared.shutdown.is_cancelled() {
            let leases = items.into_iter().map(|work| work.lease).collect();
            if let Err(unrecorded) = self.shared.queue.release(&self.shared.owner, leases).await {
                tracing::debug!(error = %unrecorded.error, "unstarted deliveries could not be given back");
            }
            return false;
        }
        let (admitted, gave_back) =
            self.shared.suspects.admit(&*self.shared.queue, &self.shared.owner, items).await;
        let store_time = StoreTime::new(now, asked);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for ((work, guard), slot) in admitted.into_iter().zip(slots) {
            let hold = self.shared.held.hold(work.lease.key().clone(), asked);
            let parts = Arc::clone(&self.parts);
            running.spawn(async move {
                attempt(&parts, work, None, hold, slot, store_time).await;
                drop(guard);
            });
        }
        while running.try_join_next().is_some() {}
        gave_back
    }

    fn take_running(&self) -> JoinSet<()> {
        std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for everything in flight.
    pub(super) async fn finish(&self) {
        let mut running = self.take_running();
        while running.join_next().await.is_some() {}
    }

    /// Ends everything in flight as it is.
    pub(super) async fn abort(&self) {
        self.take_running().shutdown().await;
    }
}
