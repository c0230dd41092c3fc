//! The lane `in`: from one message to one delivery per recipient, in one step of the store.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::appetite::{LONGEST, Supplied};
use super::attempt::Known;
use super::deliver::{ChannelLane, LONGEST_WAIT};
use super::patience::Patience;
use super::recorder::{Mate, Recorder};
use super::run::Shared;
use super::store_time::StoreTime;
use crate::clock::Timestamp;
use crate::code::{CodeEvidence, Recognised, ServiceEvidence};
use crate::delivery::{
    Attempt, DeadCause, DeliveryId, DestinationKey, DestinationKeyer, Outcome, Reason, Recipient, Settlement,
};
use crate::message::InboundMessage;
use crate::queue::contract::{
    Claim, Expanded, Expansion, HandedOut, Lane, LaneLimits, MAX_BATCH, NewDelivery, Room, Settle, Settled,
    Work,
};
use crate::retry::Progress;
use crate::subscribers::{Match, Subscribers};
use crate::telemetry::ActiveSpan;
use crate::trace::TraceContext;

/// How long the routing of one part of the store may hold up the others.
const LATE: Duration = Duration::from_millis(250);

/// Messages that there should be room for before more are asked for, and how long that is waited for.
const FEW: usize = 16;
const NO_ROOM: Duration = Duration::from_millis(5);

/// Routes messages.
pub(super) struct Fanout {
    shared: Arc<Shared>,
    recorder: Recorder,
    subscribers: watch::Receiver<Arc<Subscribers>>,
    keyer: DestinationKeyer,
    deadline: Duration,
    lanes: Vec<Arc<ChannelLane>>,
    lane: Lane,
    /// Messages that were claimed and have no places in their lanes yet.
    being_routed: Arc<AtomicUsize>,
    /// The routing of parts of the store that took too long.
    late: Mutex<Vec<JoinHandle<()>>>,
}

/// Messages that are counted for as long as it lives.
struct Counted {
    counter: Arc<AtomicUsize>,
    messages: usize,
}

impl Counted {
    fn of(counter: &Arc<AtomicUsize>, messages: usize) -> Self {
        counter.fetch_add(messages, Ordering::Relaxed);
        Self { counter: Arc::clone(counter), messages }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.messages, Ordering::Relaxed);
    }
}

/// What routing one message came to.
enum Decided {
    Routed(Expansion, Routed),
    Failed(Settle, ActiveSpan),
}

/// A message that was routed, as the attempts at its deliveries need it.
struct Routed {
    routing: DeliveryId,
    message: Arc<InboundMessage>,
    found: Arc<Recognised>,
    accepted_at: Timestamp,
    subscriber: String,
    /// With the lane of each.
    recipients: Vec<(Recipient, DestinationKey, usize)>,
    told: Told,
    span: ActiveSpan,
}

impl Routed {
    /// The work that a delivery of it is, and its lane. What is stored of it needs not be read: it is known.
    fn handed_out(&self, out: HandedOut, mate: Mate) -> Option<(usize, Work, Known)> {
        let place = usize::from(out.lease.key().work.index).checked_sub(1)?;
        let (recipient, destination, lane) = self.recipients.get(place)?;
        let known = Known {
            message: Arc::clone(&self.message),
            found: Arc::clone(&self.found),
            recipient: recipient.clone(),
            mate,
        };
        let work = Work {
            lease: out.lease,
            payload: Vec::new(),
            subscriber: self.subscriber.clone(),
            recipient: Vec::new(),
            destination: Some(destination.clone()),
            attempts: 0,
            pauses: 0,
            deadline: out.deadline,
            accepted_at: self.accepted_at,
            handed_out: 1,
        };
        Some((*lane, work, known))
    }
}

/// Who gets a message, and until when.
struct Route {
    subscriber: String,
    deadline: Duration,
    deliveries: Vec<NewDelivery>,
    /// The same deliveries, in order.
    recipients: Vec<(Recipient, DestinationKey, usize)>,
    told: Told,
    found: Recognised,
}

/// What the log says of a route: how it was found, and what told the code and the service. Never what they are.
#[derive(Clone, Copy)]
struct Told {
    matched: Match,
    by_service: bool,
    code: Option<CodeEvidence>,
    service: Option<ServiceEvidence>,
}

impl Fanout {
    pub(super) fn new(
        shared: Arc<Shared>,
        recorder: Recorder,
        subscribers: watch::Receiver<Arc<Subscribers>>,
        keyer: DestinationKeyer,
        deadline: Duration,
        lanes: Vec<Arc<ChannelLane>>,
    ) -> Self {
        Self {
            shared,
            recorder,
            subscribers,
            keyer,
            deadline,
            lanes,
            lane: Lane::inbound(),
            being_routed: Arc::default(),
            late: Mutex::default(),
        }
    }

    /// Claims and routes until the shutdown. While one batch is being routed the next one is asked for.
    pub(super) async fn run(self: Arc<Self>) {
        let shutdown = self.shared.shutdown.clone();
        let mut patience = Patience::new();
        let mut routing: Option<AbortOnDropHandle<()>> = None;
        let mut idle = true;
        while !shutdown.is_cancelled() {
            let max = self.batch(idle).await;
            let asked = Instant::now();
            let claim = Claim {
                owner: &self.shared.owner,
                lane: &self.lane,
                max,
                limits: LaneLimits::default(),
                busy: &[],
            };
            match self.shared.queue.claim(claim).await {
                Ok(claimed) => {
                    patience.reset();
                    self.shared.metrics.claimed(self.lane.as_str(), claimed.now);
                    self.shared.note_buried(&claimed.buried);
                    self.shared.note_recreated(claimed.recreated);
                    idle = claimed.items.len() < max && claimed.wait != Some(Duration::ZERO);
                    if let Some(earlier) = routing.take() {
                        let _ = earlier.await;
                    }
                    let route = self.route(claimed.items, claimed.now, asked);
                    routing = Some(AbortOnDropHandle::new(tokio::spawn(route)));
                    if !idle {
                        shutdown.run_until_cancelled(self.shared.appetite.wait()).await;
                    } else {
                        let longest = claimed.wait.map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT));
                        let waited = self.shared.queue.wait(&self.lane, &claimed.mark, longest);
                        if let Some(Err(error)) = shutdown.run_until_cancelled(waited).await {
                            patience.after("waiting for messages", &error, &shutdown).await;
                        }
                    }
                }
                Err(error) => patience.after("asking for messages", &error, &shutdown).await,
            }
        }
        if let Some(earlier) = routing {
            let _ = earlier.await;
        }
        let late = std::mem::take(&mut *self.late());
        join_all(late).await;
    }

    fn late(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages to ask for: where work is handed out with its routing, as many as the lanes have room for
    /// now. Waits for that: until no lane has other work first, which it gets done in a moment if it is quick, and
    /// not for long if nothing waits to be routed; then, a little, for room. Lanes that go on having work, or no room,
    /// do not hold up the rest.
    async fn batch(&self, idle: bool) -> usize {
        let appetite = &self.shared.appetite;
        let per_message = appetite.per_message();
        let supplied: Vec<_> = self
            .lanes
            .iter()
            .zip(per_message)
            .enumerate()
            .filter(|(_, (_, average))| *average > 0.0)
            .collect();
        let all_dry = async {
            for (number, _) in &supplied {
                appetite.runs_dry(*number).await;
            }
        };
        let is_dry = timeout(if idle { NO_ROOM } else { LONGEST }, all_dry).await.is_ok();
        if supplied.is_empty() || !is_dry {
            return MAX_BATCH;
        }
        let have_room = async {
            for (_, (lane, average)) in &supplied {
                let messages = (FEW + self.being_routed.load(Ordering::Relaxed)) as f64;
                lane.slots().has_room((average * messages).ceil() as usize).await;
            }
        };
        let _ = timeout(NO_ROOM, have_room).await;
        let being_routed = self.being_routed.load(Ordering::Relaxed);
        let messages = supplied.iter().map(|(_, (lane, average))| {
            ((lane.slots().room() as f64 / average) as usize).saturating_sub(being_routed)
        });
        messages.min().map_or(MAX_BATCH, |messages| messages.clamp(FEW, MAX_BATCH))
    }

    /// Routes work in hand and records it; it is done when that is, or given up with the drain. Of a store in several
    /// parts, those that take too long go on by themselves: the others' work does not wait for them.
    pub(super) fn route(
        self: &Arc<Self>,
        items: Vec<Work>,
        now: Timestamp,
        asked: Instant,
    ) -> impl Future<Output = ()> + use<> {
        let mut parts: BTreeMap<usize, Vec<Work>> = BTreeMap::new();
        for work in items {
            parts.entry(self.shared.queue.part_of(&work.lease.key().work.message)).or_default().push(work);
        }
        let route = |items: Vec<Work>| {
            let (fanout, counted) = (Arc::clone(self), Counted::of(&self.being_routed, items.len()));
            async move { fanout.route_part(items, now, asked, counted).await }
        };
        let parts: Vec<_> = parts.into_values().map(route).collect();
        let fanout = Arc::clone(self);
        async move {
            if fanout.shared.queue.parts() == 1 {
                join_all(parts).await;
                return;
            }
            let mut routing: Vec<_> = parts.into_iter().map(tokio::spawn).collect();
            let _ = timeout(LATE, join_all(routing.iter_mut())).await;
            let mut late = fanout.late();
            late.extend(routing);
            late.retain(|part| !part.is_finished());
        }
    }

    async fn route_part(&self, items: Vec<Work>, now: Timestamp, asked: Instant, counted: Counted) {
        let _holds: Vec<_> =
            items.iter().map(|work| self.shared.held.hold(work.lease.key().clone(), asked)).collect();
        let time = StoreTime::new(now, asked);
        // A routing that takes its worker down must not take its neighbours along again and again.
        let (admitted, _) = self.shared.suspects.admit(&*self.shared.queue, &self.shared.owner, items).await;
        let (suspects, others): (Vec<_>, Vec<_>) =
            admitted.into_iter().partition(|(_, guard)| guard.is_some());
        self.record(others.into_iter().map(|(work, _)| work).collect(), time, Some(counted)).await;
        for (work, guard) in suspects {
            self.record(vec![work], time, None).await;
            drop(guard);
        }
    }

    /// Routes and records, and begins with what is handed out of that. What is `counted` is so until its places are
    /// taken.
    async fn record(&self, items: Vec<Work>, time: StoreTime, counted: Option<Counted>) {
        let subscribers = Arc::clone(&self.subscribers.borrow());
        let mut expansions = Vec::with_capacity(items.len());
        let mut routed = Vec::with_capacity(items.len());
        for work in items {
            match self.decide(work, &subscribers, time) {
                Decided::Routed(expansion, one) => {
                    expansions.push(expansion);
                    routed.push(one);
                }
                Decided::Failed(settle, span) => self.fail(settle, span).await,
            }
        }
        if expansions.is_empty() {
            return;
        }
        let mut made = vec![0; self.lanes.len()];
        for (_, _, lane) in routed.iter().flat_map(|routed| &routed.recipients) {
            made[*lane] += 1;
        }
        let (room, mut places): (Vec<Room>, Vec<_>) =
            self.lanes.iter().zip(&made).map(|(lane, made)| lane.room(*made)).unzip();
        drop(counted);
        let Some((expanded, asked)) = self.expand(expansions, &room).await else { return };

        let time = StoreTime::new(expanded.now, asked);
        let mut in_hand = vec![0; routed.len()];
        for out in &expanded.handed_out {
            in_hand[out.expansion] += 1;
        }
        let mut mates: Vec<_> = in_hand.into_iter().map(Mate::several).collect();
        for out in expanded.handed_out {
            let (routed, mate) = (&routed[out.expansion], mates[out.expansion].next());
            // What nobody asked for is left to its lease.
            if let Some((lane, work, known)) = mate.and_then(|mate| routed.handed_out(out, mate))
                && let Some(place) = places[lane].pop()
            {
                self.lanes[lane].begin(work, known, place, time, asked);
            }
        }
        let handed_out = room.iter().zip(&places).map(|(room, places)| room.max - places.len());
        let supplied: Vec<Supplied> = made
            .into_iter()
            .zip(handed_out)
            .zip(&room)
            .map(|((made, handed_out), room)| Supplied {
                room: room.max,
                handed_out,
                left: made - handed_out,
            })
            .collect();
        for (lane, supplied) in self.lanes.iter().zip(&supplied) {
            lane.was_made(supplied);
        }
        self.shared.appetite.routed(routed.len(), &supplied);
        for (routed, settled) in routed.into_iter().zip(expanded.settled) {
            if settled == Settled::Expanded {
                let Routed { routing, subscriber, told, span, .. } = routed;
                self.shared.metrics.routed(told.matched);
                tracing::info!(
                    message_id = %routing.message, trace_id = span.trace_id(), subscriber,
                    matched = told.matched.as_str(), by_service = told.by_service,
                    code_by = told.code.map(CodeEvidence::as_str),
                    service_by = told.service.map(ServiceEvidence::as_str), "routed"
                );
            }
        }
    }

    fn decide(&self, work: Work, subscribers: &Subscribers, time: StoreTime) -> Decided {
        let delivery = &work.lease.key().work;
        let Ok(message) = InboundMessage::from_payload(&delivery.message, &work.payload) else {
            let outcome = Outcome::Permanent { reason: Reason::Unreadable, status: None, code: None };
            let attempt = Attempt::of(&outcome, time.now());
            let settlement = Settlement::Dead { cause: DeadCause::Poison, attempt };
            let span = self.span(delivery, None);
            return Decided::Failed(Settle { lease: work.lease, settlement }, span);
        };
        let mut span = self.span(delivery, message.trace);
        let routed = catch_unwind(AssertUnwindSafe(|| self.deliveries(&message, subscribers)));
        match routed {
            Ok(Route { subscriber, deadline, deliveries, recipients, told, found }) => {
                let lost = deliveries.is_empty() && told.matched != Match::Dropped;
                if lost {
                    let settlement = Settlement::Dead { cause: DeadCause::Unroutable, attempt: None };
                    return Decided::Failed(Settle { lease: work.lease, settlement }, span);
                }
                span.routed(told.matched.as_str(), deliveries.len());
                let routed = Routed {
                    routing: delivery.clone(),
                    message: Arc::new(message),
                    found: Arc::new(found),
                    accepted_at: work.accepted_at,
                    subscriber: subscriber.clone(),
                    recipients,
                    told,
                    span,
                };
                let expansion = Expansion { lease: work.lease, subscriber, deadline, deliveries };
                Decided::Routed(expansion, routed)
            }
            Err(_) => {
                tracing::error!(message_id = %message.id, trace_id = span.trace_id(), "routing failed inside");
                span.failed(Reason::Internal.as_str());
                let outcome = Outcome::Retry {
                    reason: Reason::Internal,
                    status: None,
                    code: None,
                    after: None,
                    ambiguous: false,
                };
                let progress = Progress {
                    attempts: work.attempts,
                    pauses: work.pauses,
                    deadline: work.deadline,
                    now: time.now(),
                };
                let settlement = self.shared.retry.decide(&outcome, &progress, fastrand::f64());
                Decided::Failed(Settle { lease: work.lease, settlement }, span)
            }
        }
    }

    fn span(&self, routing: &DeliveryId, trace: Option<TraceContext>) -> ActiveSpan {
        self.shared.tracer.process("route", self.lane.as_str(), routing, trace)
    }

    fn deliveries(&self, message: &InboundMessage, subscribers: &Subscribers) -> Route {
        let found = self.shared.recogniser.of(message);
        let route = subscribers.route(message, &found);
        let mut deliveries = Vec::with_capacity(route.recipients.len());
        let mut recipients = Vec::with_capacity(route.recipients.len());
        for recipient in route.recipients {
            let channel = recipient.channel();
            let Some(lane) = self.lanes.iter().position(|lane| *lane.channel() == channel) else { continue };
            let destination = self.keyer.key(recipient);
            recipients.push((recipient.clone(), destination.clone(), lane));
            deliveries.push(NewDelivery {
                channel,
                destination,
                label: recipient.masked(),
                recipient: serde_json::to_vec(recipient).expect("a recipient is plain strings"),
            });
        }
        let told = Told {
            matched: route.matched,
            by_service: route.by_service,
            code: found.code_evidence,
            service: found.service_evidence,
        };
        let deadline = route.deadline.of(&found, self.deadline);
        Route { subscriber: route.name.to_owned(), deadline, deliveries, recipients, told, found }
    }

    async fn fail(&self, settle: Settle, mut span: ActiveSpan) {
        let delivery = settle.lease.key().work.clone();
        if let Some(Settled::Dead(cause)) = self.recorder.settle(settle, None).await {
            self.shared.metrics.died(self.lane.as_str(), cause);
            span.failed(cause.as_str());
            tracing::error!(
                message_id = %delivery.message, trace_id = span.trace_id(), cause = cause.as_str(),
                "message could not be routed"
            );
        }
    }

    /// Brings expansions to the store until it has them; with when it was asked. `None` when given up with the drain.
    async fn expand(&self, mut expansions: Vec<Expansion>, room: &[Room]) -> Option<(Expanded, Instant)> {
        let mut patience = Patience::new();
        loop {
            let asked = Instant::now();
            match self.shared.queue.expand_and_claim(&self.shared.owner, expansions, room).await {
                Ok(expanded) => return Some((expanded, asked)),
                Err(unrecorded) => {
                    expansions = unrecorded.batch;
                    patience.after("recording routes", &unrecorded.error, &self.shared.abandon).await;
                    if self.shared.abandon.is_cancelled() {
                        return None;
                    }
                }
            }
        }
    }
}
