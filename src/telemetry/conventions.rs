//! The spans there are, in the names of OpenTelemetry.
//!
//! One trace is the life of one message: its request, its hand-over to the queue, its routing, each attempt
//! at each delivery. What works on a stored message has the hand-over as its parent and is linked to it as
//! well: the parent makes one readable trace of minutes at most, the link is what the conventions ask for.
//!
//! Sources: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/> (status: development).

use std::time::Instant;

use super::span::Kind;
use super::tracer::{ActiveSpan, Tracer};
use crate::delivery::{DeliveryId, Outcome};
use crate::message::MessageId;
use crate::trace::TraceContext;

impl Tracer {
    /// A request at the ingress that arrived at `began`, as part of the trace that it names, else of one of
    /// its own. `route` is the path as it is registered, never one that a client made up.
    pub fn request(
        &self,
        method: &'static str,
        route: &str,
        began: Instant,
        incoming: Option<TraceContext>,
    ) -> ActiveSpan {
        let name = || format!("{method} {route}");
        let mut span = match incoming {
            Some(parent) => self.follow(parent, began, Kind::Server, name),
            None => self.begin(began, Kind::Server, name),
        };
        span.set("http.request.method", method);
        span.set_with("http.route", || route.to_owned());
        span
    }

    /// The hand-over of message `id` to the queue, for `request`.
    pub fn publish(&self, request: &ActiveSpan, id: &MessageId) -> ActiveSpan {
        let Some(parent) = request.context() else { return ActiveSpan::none() };
        let mut span = self.follow(parent, Instant::now(), Kind::Producer, || "send in".to_owned());
        self.describe(&mut span, "in", "send", "accept", id);
        span
    }

    /// Work on a stored message: `operation` (`route`, `deliver`) from `lane`. Without the trace it was stored
    /// with, no span.
    pub fn process(
        &self,
        operation: &'static str,
        lane: &str,
        delivery: &DeliveryId,
        stored: Option<TraceContext>,
    ) -> ActiveSpan {
        let Some(created) = stored else { return ActiveSpan::none() };
        let name = || format!("{operation} {lane}");
        let mut span = self.follow(created, Instant::now(), Kind::Consumer, name);
        span.link(created);
        self.describe(&mut span, lane, "process", operation, &delivery.message);
        span.set("sms_broadcaster.delivery", u32::from(delivery.index));
        span
    }

    fn describe(
        &self,
        span: &mut ActiveSpan,
        lane: &str,
        kind: &'static str,
        operation: &'static str,
        id: &MessageId,
    ) {
        span.set("messaging.system", self.system());
        span.set_with("messaging.destination.name", || lane.to_owned());
        span.set("messaging.operation.type", kind);
        span.set("messaging.operation.name", operation);
        span.set_with("messaging.message.id", || id.as_str().to_owned());
    }
}

impl ActiveSpan {
    /// The status of a request's answer; what is 500 or more went wrong.
    pub fn answered(&mut self, status: u16) {
        self.set("http.response.status_code", u32::from(status));
        if status >= 500 {
            self.set_with("error.type", || status.to_string());
            self.mark_failed();
        }
    }

    /// What became of it, in a word of ours.
    pub fn resulted(&mut self, result: &'static str) {
        self.set("sms_broadcaster.result", result);
    }

    /// That it went wrong, and why in a word of ours.
    pub fn failed(&mut self, why: &'static str) {
        self.set("error.type", why);
        self.mark_failed();
    }

    /// How many deliveries a routing made, and for what match.
    pub fn routed(&mut self, matched: &'static str, deliveries: usize) {
        self.set("sms_broadcaster.match", matched);
        self.set("sms_broadcaster.deliveries", u32::try_from(deliveries).unwrap_or(u32::MAX));
    }

    /// What happened in attempt number `attempt`.
    pub fn attempted(&mut self, attempt: u32, outcome: &Outcome) {
        self.set("sms_broadcaster.attempt", attempt);
        self.set("sms_broadcaster.outcome", outcome.as_str());
        if let Some(status) = outcome.status() {
            self.set("http.response.status_code", u32::from(status));
        }
        match outcome {
            Outcome::Delivered { .. } => {}
            Outcome::Retry { .. } | Outcome::Permanent { .. } => self.failed(outcome.reason().as_str()),
        }
    }
}
