//! Puts a worker together, runs it, and brings it to rest.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::appetite::Appetite;
use super::deliver::ChannelLane;
use super::fanout::Fanout;
use super::held::Held;
use super::readdress::Readdress;
use super::recorder::Recorder;
use super::settings::{ChannelPlan, WorkerSettings};
use super::slots::Slots;
use super::suspects::Suspects;
use super::upkeep;
use crate::channel::contract::Channel;
use crate::code::Recogniser;
use crate::delivery::DestinationKeyer;
use crate::metrics::WorkerMetrics;
use crate::queue::contract::{Buried, Owner, Queue};
use crate::retry::RetryPolicy;
use crate::subscribers::Subscribers;
use crate::telemetry::Tracer;
use crate::template::Templates;

/// Everything a worker is given; it makes none of it.
pub struct WorkerParts {
    /// The store.
    pub queue: Arc<dyn Queue>,
    /// The ways out, each with its plan.
    pub channels: Vec<(Arc<dyn Channel>, ChannelPlan)>,
    /// Who gets what; the newest value is used for each message.
    pub subscribers: watch::Receiver<Arc<Subscribers>>,
    /// What it says.
    pub templates: Templates,
    /// What texts hold.
    pub recogniser: Arc<Recogniser>,
    /// What to do about failures.
    pub retry: RetryPolicy,
    /// Names destinations in the store.
    pub keyer: DestinationKeyer,
    /// What is counted.
    pub metrics: Arc<WorkerMetrics>,
    /// Sizes and times.
    pub settings: WorkerSettings,
    /// This process.
    pub owner: Owner,
    /// What was done, for whoever looks at traces.
    pub tracer: Tracer,
}

/// What every part of a running worker shares.
pub(super) struct Shared {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) owner: Owner,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) held: Arc<Held>,
    pub(super) suspects: Suspects,
    pub(super) appetite: Appetite,
    pub(super) retry: RetryPolicy,
    pub(super) recogniser: Arc<Recogniser>,
    pub(super) tracer: Tracer,
    /// No new work.
    pub(super) shutdown: CancellationToken,
    /// The drain is over: leave everything as it is.
    pub(super) abandon: CancellationToken,
}

impl Shared {
    /// Counts and logs work that ended inside the store instead of being handed out.
    pub(super) fn note_buried(&self, buried: &[Buried]) {
        for ended in buried {
            self.metrics.died(ended.lane.as_str(), ended.cause);
            tracing::warn!(
                message_id = %ended.delivery.message, delivery = %ended.delivery, channel = %ended.lane,
                subscriber = ended.subscriber, attempts = ended.attempts, cause = ended.cause.as_str(),
                "delivery ended without being sent"
            );
        }
    }

    /// Counts a structure of the store that had to be made anew.
    pub(super) fn note_recreated(&self, recreated: bool) {
        if recreated {
            self.metrics.stream_group_recreated.inc();
            tracing::error!("a structure of the store was gone and was made anew: the store has lost data");
        }
    }
}

/// A worker, ready to run.
pub struct Worker {
    parts: WorkerParts,
}

impl Worker {
    /// A worker of `parts`.
    pub fn new(parts: WorkerParts) -> Self {
        Self { parts }
    }

    /// Works until `shutdown`, then drains: no new work; what is in flight ends and is recorded, for at
    /// most `drain`; what is left after that is somebody else's when its leases run out.
    pub async fn run(self, shutdown: CancellationToken) {
        let WorkerParts {
            queue,
            channels,
            subscribers,
            templates,
            recogniser,
            retry,
            keyer,
            metrics,
            settings,
            owner,
            tracer,
        } = self.parts;
        let abandon = CancellationToken::new();
        let stop_renewing = CancellationToken::new();
        let held = Held::new(settings.lease);
        let shared = Arc::new(Shared {
            queue: Arc::clone(&queue),
            owner: owner.clone(),
            metrics: Arc::clone(&metrics),
            held: Arc::clone(&held),
            suspects: Suspects::new(),
            appetite: Appetite::of(channels.iter().map(|(channel, _)| channel.id())),
            retry,
            recogniser: Arc::clone(&recogniser),
            tracer,
            shutdown: shutdown.clone(),
            abandon: abandon.clone(),
        });
        let (recorder, mut recording) =
            Recorder::start(Arc::clone(&queue), owner.clone(), Arc::clone(&held), abandon.clone());
        let renewing =
            tokio::spawn(held.renew(Arc::clone(&queue), owner.clone(), metrics, stop_renewing.clone()));

        let templates = Arc::new(templates);
        let readdress = Arc::new(Readdress::new(subscribers.clone(), recogniser, keyer.clone()));
        let lanes: Vec<Arc<ChannelLane>> = channels
            .into_iter()
            .map(|(channel, plan)| {
                let slots = Slots::new(settings.concurrency);
                shared.metrics.slots(channel.id().as_str(), settings.concurrency);
                let (shared, recorder) = (Arc::clone(&shared), recorder.clone());
                let (templates, readdress) = (Arc::clone(&templates), Arc::clone(&readdress));
                Arc::new(ChannelLane::new(shared, recorder, channel, plan, slots, templates, readdress))
            })
            .collect();
        let fanout = Arc::new(Fanout::new(
            Arc::clone(&shared),
            recorder,
            subscribers,
            keyer,
            settings.deadline,
            lanes.clone(),
        ));

        let mut loops = JoinSet::new();
        loops.spawn(Arc::clone(&fanout).run());
        loops.spawn(upkeep::sweep_routings(Arc::clone(&shared), fanout));
        loops.spawn(upkeep::housekeep(Arc::clone(&shared)));
        for lane in &lanes {
            loops.spawn(Arc::clone(lane).run());
            loops.spawn(upkeep::sweep_deliveries(Arc::clone(&shared), Arc::clone(lane)));
        }
        drop(shared);

        let watched = async {
            while let Some(ended) = loops.join_next().await {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    // A loop that is gone would be missed silently: end, and be started anew.
                    tracing::error!("a loop of the worker failed; stopping");
                    shutdown.cancel();
                }
            }
            for lane in &lanes {
                lane.finish().await;
            }
        };
        let drained = async {
            shutdown.cancelled().await;
            tokio::time::sleep(settings.drain).await;
        };
        tokio::select! {
            () = watched => {}
            () = drained => tracing::warn!("the drain took too long: leaving what is in flight to others"),
        }
        abandon.cancel();
        for lane in &lanes {
            lane.abort().await;
        }
        drop(lanes);
        loops.shutdown().await;
        while recording.join_next().await.is_some() {}
        stop_renewing.cancel();
        let _ = renewing.await;
        if let Err(error) = queue.retire(&owner).await {
            tracing::debug!(%error, "this worker's name stays in the store for now");
        }
    }
}
