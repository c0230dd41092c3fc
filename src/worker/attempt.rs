//! One attempt at one delivery, from work in hand to a recorded outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::held::Hold;
use super::readdress::Readdress;
use super::recorder::{Mate, Recorder};
use super::run::Shared;
use super::settings::ChannelPlan;
use super::slots::{SLOW_AFTER, Slot};
use super::store_time::StoreTime;
use crate::channel::contract::{Channel, Dispatch};
use crate::code::Recognised;
use crate::delivery::{Attempt, ChannelId, DeadCause, Outcome, Reason, Recipient, Settlement};
use crate::message::InboundMessage;
use crate::metrics::InFlight;
use crate::queue::contract::{Lane, Settle, Settled, Work};
use crate::retry::Progress;
use crate::seal::is_sealed;
use crate::telemetry::ActiveSpan;
use crate::template::{Fields, Templates};

/// A channel keeps its own time-out; this much later it is taken to hang.
const GRACE: Duration = Duration::from_millis(500);

/// What the attempts of one lane share.
pub(super) struct AttemptParts {
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) channel: Arc<dyn Channel>,
    pub(super) id: ChannelId,
    pub(super) lane: Lane,
    pub(super) plan: ChannelPlan,
    pub(super) templates: Arc<Templates>,
    pub(super) readdress: Arc<Readdress>,
}

/// What the router of a message knows of it, so that it need not be read again from what is stored.
pub(super) struct Known {
    pub(super) message: Arc<InboundMessage>,
    pub(super) found: Arc<Recognised>,
    pub(super) recipient: Recipient,
    /// Other deliveries of the message are in hand here, too.
    pub(super) mate: Mate,
}

/// An attempt that was made, and what is to become of its delivery.
struct Ended {
    outcome: Outcome,
    settlement: Settlement,
    /// Masked.
    destination: String,
    took: Duration,
    span: ActiveSpan,
}

/// Makes one attempt and records what came of it. Keeps `hold`, and a place among the `slot`s, until that is recorded.
pub(super) async fn attempt(
    parts: &AttemptParts,
    work: Work,
    known: Option<Known>,
    hold: Hold,
    mut slot: Slot,
    time: StoreTime,
) {
    let mut in_flight = parts.shared.metrics.in_flight(parts.id.as_str());
    let message = match &known {
        Some(known) => Some(Arc::clone(&known.message)),
        None => read_message(&work),
    };
    let trace = message.as_ref().and_then(|message| message.trace);
    let mut span = parts.shared.tracer.process("deliver", parts.lane.as_str(), &work.lease.key().work, trace);
    let (found, recipient, mate) = match (known, &message) {
        (Some(Known { found, recipient, mate, .. }), _) => (Some(found), Some(recipient), Some(mate)),
        (None, Some(message)) => (None, recipient(parts, &work, message, &span), None),
        (None, None) => (None, None, None),
    };
    let (Some(message), Some(recipient)) = (message, recipient) else {
        let outcome = Outcome::Permanent { reason: Reason::Unreadable, status: None, code: None };
        let cause = if is_unopened(&work.recipient) { DeadCause::Undecryptable } else { DeadCause::Poison };
        let settlement = Settlement::Dead { cause, attempt: Attempt::of(&outcome, time.now()) };
        span.attempted(work.attempts + 1, &outcome);
        let ended = Ended { outcome, settlement, destination: "?".to_owned(), took: Duration::ZERO, span };
        conclude(parts, work, ended, mate, time).await;
        return;
    };
    let destination = recipient.masked();
    if !hold.is_ours() {
        // Too late to begin: whoever has the lease decides.
        span.failed("lease_lost");
        tracing::debug!(delivery = %work.lease.key().work, trace_id = span.trace_id(), "the lease ran out before the attempt began");
        return;
    }
    let time_left = time.until(work.deadline);
    if time_left.is_zero() {
        let settlement = Settlement::Dead { cause: DeadCause::Expired, attempt: None };
        finish_unsent(parts, work, settlement, mate, span).await;
        return;
    }
    // Its routing has read the text already. That is not stored: reading it once more, where the template asks for
    // it, costs less than keeping it, and gives the same.
    let found = match found {
        Some(found) => found,
        None if parts.templates.tell_what_was_recognised(&parts.id) => {
            Arc::new(parts.shared.recogniser.of(&message))
        }
        None => Arc::default(),
    };
    let InboundMessage { from, to, body, .. } = &*message;
    let fields = Fields { name: &work.subscriber, body, from, to, found: &found };
    let text = parts.templates.render(&parts.id, &fields);
    let dispatch = Dispatch { delivery: work.lease.key().work.clone(), recipient, text, time_left };

    let began = Instant::now();
    let outcome = send(parts, dispatch, &work, &mut slot, &mut in_flight).await;
    let took = began.elapsed();
    slot.turn_to_recording(took).await;
    drop(in_flight);
    parts.shared.metrics.attempt(parts.id.as_str(), &outcome, took.as_secs_f64());
    span.attempted(work.attempts + 1, &outcome);
    let progress =
        Progress { attempts: work.attempts, pauses: work.pauses, deadline: work.deadline, now: time.now() };
    let settlement = parts.shared.retry.decide(&outcome, &progress, fastrand::f64());
    conclude(parts, work, Ended { outcome, settlement, destination, took, span }, mate, time).await;
    drop(hold);
}

fn read_message(work: &Work) -> Option<Arc<InboundMessage>> {
    InboundMessage::from_payload(&work.lease.key().work.message, &work.payload).ok().map(Arc::new)
}

/// Whom the work is for. A recipient that cannot be read is found anew, by routing the message again.
fn recipient(
    parts: &AttemptParts,
    work: &Work,
    message: &InboundMessage,
    span: &ActiveSpan,
) -> Option<Recipient> {
    let delivery = &work.lease.key().work;
    let stored = serde_json::from_slice(&work.recipient).ok();
    if let Some(recipient) = stored.filter(|recipient: &Recipient| recipient.channel() == parts.id) {
        return Some(recipient);
    }
    let recipient = parts.readdress.recipient(message, work, &parts.id);
    tracing::warn!(
        message_id = %delivery.message, trace_id = span.trace_id(), %delivery, found = recipient.is_some(),
        "the recipient cannot be read; the message was routed again"
    );
    recipient
}

/// Whether a recipient is one that no key opened, or that had to be sealed and was not.
fn is_unopened(recipient: &[u8]) -> bool {
    recipient.is_empty() || is_sealed(recipient)
}

/// Hands the text to the channel. A panic there is one failed attempt.
async fn send(
    parts: &AttemptParts,
    dispatch: Dispatch,
    work: &Work,
    slot: &mut Slot,
    in_flight: &mut InFlight,
) -> Outcome {
    let failed =
        |reason, ambiguous| Outcome::Retry { reason, status: None, code: None, after: None, ambiguous };
    let sending = AssertUnwindSafe(parts.channel.deliver(dispatch)).catch_unwind();
    tokio::pin!(sending);
    let began = Instant::now();
    let clock = tokio::time::sleep_until(began + SLOW_AFTER);
    tokio::pin!(clock);
    let mut turned = false;
    loop {
        tokio::select! {
            sent = &mut sending => {
                return sent.unwrap_or_else(|_| {
                    tracing::error!(delivery = %work.lease.key().work, "the channel failed inside");
                    failed(Reason::Internal, true)
                });
            }
            () = &mut clock => {
                if std::mem::replace(&mut turned, true) {
                    return failed(Reason::Timeout, true);
                }
                clock.as_mut().reset(began + parts.plan.timeout + GRACE);
                if let Some(destination) = &work.destination
                    && slot.turn_slow(destination)
                {
                    in_flight.turn_slow();
                }
            }
        }
    }
}

/// Records a settlement that no attempt stands behind.
async fn finish_unsent(
    parts: &AttemptParts,
    work: Work,
    settlement: Settlement,
    mate: Option<Mate>,
    mut span: ActiveSpan,
) {
    let delivery = work.lease.key().work.clone();
    if let Some(Settled::Dead(cause)) =
        parts.recorder.settle(Settle { lease: work.lease, settlement }, mate).await
    {
        parts.shared.metrics.died(parts.lane.as_str(), cause);
        span.failed(cause.as_str());
        tracing::warn!(
            message_id = %delivery.message, trace_id = span.trace_id(), %delivery, channel = %parts.lane, subscriber = work.subscriber,
            attempts = work.attempts, cause = cause.as_str(), "delivery ended without being sent"
        );
    }
}

/// Records the settlement, counts what came of it, and writes the one line of this attempt.
async fn conclude(parts: &AttemptParts, work: Work, ended: Ended, mate: Option<Mate>, time: StoreTime) {
    let Ended { outcome, settlement, destination, took, mut span } = ended;
    let age = time.now().since(work.accepted_at);
    let delivery = work.lease.key().work.clone();
    let settled = parts.recorder.settle(Settle { lease: work.lease, settlement }, mate).await;
    let metrics = &parts.shared.metrics;
    let recorded = match settled {
        Some(Settled::Delivered { late }) => {
            metrics.delivered(parts.id.as_str());
            metrics.delivered_after(parts.id.as_str(), age.as_secs_f64());
            if late {
                metrics.late_successes.inc();
            }
            "delivered"
        }
        Some(Settled::Dead(cause)) => {
            metrics.died(parts.lane.as_str(), cause);
            cause.as_str()
        }
        Some(Settled::Delayed) => "delayed",
        Some(Settled::Stale { late_success }) => {
            if late_success {
                metrics.late_successes.inc();
            }
            "stale"
        }
        Some(Settled::LostLease) => "lost_lease",
        Some(Settled::Expanded) | None => "unrecorded",
    };
    span.resulted(recorded);
    // A field in common with every other line about a message: `message_id`.
    let (took_ms, age_ms) = (took.as_millis() as u64, age.as_millis() as u64);
    let (code, status) = (outcome.code(), outcome.status());
    let attempt = work.attempts + 1;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                message_id = %delivery.message, trace_id = span.trace_id(), %delivery, channel = %parts.lane,
                subscriber = work.subscriber, destination, attempt, outcome = outcome.as_str(), reason = outcome.reason().as_str(), status, code,
                took_ms, age_ms, recorded, "attempt"
            )
        };
    }
    match outcome {
        Outcome::Delivered { .. } => line!(info),
        Outcome::Retry { .. } | Outcome::Permanent { .. } => line!(warn),
    }
}
