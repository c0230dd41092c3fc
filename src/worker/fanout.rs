//! The lane `in`: from one message to one delivery per recipient, in one step of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::deliver::LONGEST_WAIT;
use super::patience::Patience;
use super::recorder::Recorder;
use super::run::Shared;
use super::store_time::StoreTime;
use crate::clock::Timestamp;
use crate::code::{CodeEvidence, ServiceEvidence};
use crate::delivery::{
    Attempt, ChannelId, DeadCause, DeliveryId, DestinationKeyer, Outcome, Reason, Settlement,
};
use crate::message::InboundMessage;
use crate::queue::contract::{
    Claim, Expansion, Lane, LaneLimits, MAX_BATCH, NewDelivery, Settle, Settled, Work,
};
use crate::retry::Progress;
use crate::subscribers::{Match, Subscribers};
use crate::telemetry::ActiveSpan;
use crate::trace::TraceContext;

/// How long the routing of one part of the store may hold up the others.
const LATE: Duration = Duration::from_millis(250);

/// Routes messages.
pub(super) struct Fanout {
    shared: Arc<Shared>,
    recorder: Recorder,
    subscribers: watch::Receiver<Arc<Subscribers>>,
    keyer: DestinationKeyer,
    deadline: Duration,
    channels: BTreeSet<ChannelId>,
    lane: Lane,
}

/// The channels of the deliveries they make, one for each.
fn channels(expansions: &[Expansion]) -> impl Iterator<Item = &ChannelId> {
    expansions.iter().flat_map(|expansion| &expansion.deliveries).map(|delivery| &delivery.channel)
}

/// What routing one message came to.
enum Routed {
    To(Expansion, Told, ActiveSpan),
    Failed(Settle, ActiveSpan),
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
        channels: BTreeSet<ChannelId>,
    ) -> Self {
        Self { shared, recorder, subscribers, keyer, deadline, channels, lane: Lane::inbound() }
    }

    /// Claims and routes until the shutdown.
    pub(super) async fn run(self: Arc<Self>) {
        let shutdown = self.shared.shutdown.clone();
        let mut patience = Patience::new();
        let mut late = Vec::new();
        while !shutdown.is_cancelled() {
            let asked = Instant::now();
            let claim = Claim {
                owner: &self.shared.owner,
                lane: &self.lane,
                max: MAX_BATCH,
                limits: LaneLimits::default(),
                busy: &[],
            };
            match self.shared.queue.claim(claim).await {
                Ok(claimed) => {
                    patience.reset();
                    self.shared.metrics.claimed(self.lane.as_str(), claimed.now);
                    self.shared.note_buried(&claimed.buried);
                    self.shared.note_recreated(claimed.recreated);
                    let idle = claimed.items.len() < MAX_BATCH && claimed.wait != Some(Duration::ZERO);
                    self.route(claimed.items, claimed.now, asked, &mut late).await;
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
        join_all(late).await;
    }

    /// Routes work in hand and records it; returns when that is done, or given up with the drain. Of a store in
    /// several parts, those that take too long go on by themselves, and are then among the `late`: the others' work
    /// does not wait for them.
    pub(super) async fn route(
        self: &Arc<Self>,
        items: Vec<Work>,
        now: Timestamp,
        asked: Instant,
        late: &mut Vec<JoinHandle<()>>,
    ) {
        let queue = &self.shared.queue;
        if queue.parts() == 1 {
            return self.route_part(items, now, asked).await;
        }
        let mut parts: BTreeMap<usize, Vec<Work>> = BTreeMap::new();
        for work in items {
            parts.entry(queue.part_of(&work.lease.key().work.message)).or_default().push(work);
        }
        let route = |items| {
            let fanout = Arc::clone(self);
            tokio::spawn(async move { fanout.route_part(items, now, asked).await })
        };
        let mut routing: Vec<_> = parts.into_values().map(route).collect();
        let _ = tokio::time::timeout(LATE, join_all(routing.iter_mut())).await;
        late.extend(routing);
        late.retain(|part| !part.is_finished());
    }

    async fn route_part(&self, items: Vec<Work>, now: Timestamp, asked: Instant) {
        if items.is_empty() {
            return;
        }
        let _holds: Vec<_> =
            items.iter().map(|work| self.shared.held.hold(work.lease.key().clone(), asked)).collect();
        let time = StoreTime::new(now, asked);
        // A routing that takes its worker down must not take its neighbours along again and again.
        let (admitted, _) = self.shared.suspects.admit(&*self.shared.queue, &self.shared.owner, items).await;
        let (suspects, others): (Vec<_>, Vec<_>) =
            admitted.into_iter().partition(|(_, guard)| guard.is_some());
        self.record(others.into_iter().map(|(work, _)| work).collect(), time).await;
        for (work, guard) in suspects {
            self.record(vec![work], time).await;
            drop(guard);
        }
    }

    async fn record(&self, items: Vec<Work>, time: StoreTime) {
        let subscribers = Arc::clone(&self.subscribers.borrow());
        let mut expansions = Vec::with_capacity(items.len());
        let mut matches = Vec::with_capacity(items.len());
        for work in items {
            match self.decide(work, &subscribers, time) {
                Routed::To(expansion, told, span) => {
                    let delivery = expansion.lease.key().work.clone();
                    matches.push((delivery, expansion.subscriber.clone(), told, span));
                    expansions.push(expansion);
                }
                Routed::Failed(settle, span) => self.fail(settle, span).await,
            }
        }
        let made: Vec<ChannelId> = channels(&expansions).cloned().collect();
        let Some(settled) = self.expand(expansions).await else { return };
        self.shared.appetite.routed(made.iter());
        for ((delivery, subscriber, told, span), settled) in matches.into_iter().zip(settled) {
            if settled == Settled::Expanded {
                self.shared.metrics.routed(told.matched);
                tracing::info!(
                    message_id = %delivery.message, trace_id = span.trace_id(), subscriber,
                    matched = told.matched.as_str(), by_service = told.by_service,
                    code_by = told.code.map(CodeEvidence::as_str),
                    service_by = told.service.map(ServiceEvidence::as_str), "routed"
                );
            }
        }
    }

    fn decide(&self, work: Work, subscribers: &Subscribers, time: StoreTime) -> Routed {
        let delivery = &work.lease.key().work;
        let Ok(message) = InboundMessage::from_payload(&delivery.message, &work.payload) else {
            let outcome = Outcome::Permanent { reason: Reason::Unreadable, status: None, code: None };
            let attempt = Attempt::of(&outcome, time.now());
            let settlement = Settlement::Dead { cause: DeadCause::Poison, attempt };
            let span = self.span(delivery, None);
            return Routed::Failed(Settle { lease: work.lease, settlement }, span);
        };
        let mut span = self.span(delivery, message.trace);
        let routed = catch_unwind(AssertUnwindSafe(|| self.deliveries(&message, subscribers)));
        match routed {
            Ok((subscriber, deadline, deliveries, told)) => {
                let lost = deliveries.is_empty() && told.matched != Match::Dropped;
                if lost {
                    let settlement = Settlement::Dead { cause: DeadCause::Unroutable, attempt: None };
                    return Routed::Failed(Settle { lease: work.lease, settlement }, span);
                }
                span.routed(told.matched.as_str(), deliveries.len());
                Routed::To(Expansion { lease: work.lease, subscriber, deadline, deliveries }, told, span)
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
                Routed::Failed(Settle { lease: work.lease, settlement }, span)
            }
        }
    }

    fn span(&self, routing: &DeliveryId, trace: Option<TraceContext>) -> ActiveSpan {
        self.shared.tracer.process("route", self.lane.as_str(), routing, trace)
    }

    fn deliveries(
        &self,
        message: &InboundMessage,
        subscribers: &Subscribers,
    ) -> (String, Duration, Vec<NewDelivery>, Told) {
        let found = self.shared.recogniser.of(message);
        let route = subscribers.route(message, &found);
        let deliveries = route
            .recipients
            .iter()
            .filter(|recipient| self.channels.contains(&recipient.channel()))
            .map(|recipient| NewDelivery {
                channel: recipient.channel(),
                destination: self.keyer.key(recipient),
                label: recipient.masked(),
                recipient: serde_json::to_vec(recipient).expect("a recipient is plain strings"),
            })
            .collect();
        let told = Told {
            matched: route.matched,
            by_service: route.by_service,
            code: found.code_evidence,
            service: found.service_evidence,
        };
        (route.name.to_owned(), route.deadline.of(&found, self.deadline), deliveries, told)
    }

    async fn fail(&self, settle: Settle, mut span: ActiveSpan) {
        let delivery = settle.lease.key().work.clone();
        if let Some(Settled::Dead(cause)) = self.recorder.settle(settle).await {
            self.shared.metrics.died(self.lane.as_str(), cause);
            span.failed(cause.as_str());
            tracing::error!(
                message_id = %delivery.message, trace_id = span.trace_id(), cause = cause.as_str(),
                "message could not be routed"
            );
        }
    }

    /// Brings expansions to the store until it has them; `None` when given up with the drain.
    async fn expand(&self, mut expansions: Vec<Expansion>) -> Option<Vec<Settled>> {
        if expansions.is_empty() {
            return Some(Vec::new());
        }
        let mut patience = Patience::new();
        loop {
            match self.shared.queue.expand(&self.shared.owner, expansions).await {
                Ok(settled) => return Some(settled),
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
