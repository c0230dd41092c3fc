//! The public paths, and from a request to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes};

use super::client::client;
use super::intake::Intake;
use super::settings::IngressSettings;
use super::throttle::Throttle;
use crate::message::InboundMessage;
use crate::metrics::{IngressMetrics, WebhookResult};
use crate::queue::contract::{Acceptance, Queue, QueueError};
use crate::quiet::Quiet;
use crate::server::Peer;
use crate::source::twilio::{self, SOURCE, TwilioSettings, TwilioSource};
use crate::source::verified::{Refusal, Verified};
use crate::telemetry::{ActiveSpan, Tracer};
use crate::trace::TraceContext;

/// The header Twilio signs in.
const SIGNATURE: &str = "x-twilio-signature";

/// The header that says which trace a request is part of.
const TRACEPARENT: &str = "traceparent";

/// What a client is told to wait when the store is full or away.
const SOON: Duration = Duration::from_secs(1);

struct Ingress {
    settings: IngressSettings,
    source: TwilioSource,
    throttle: Option<Throttle>,
    intake: Intake,
    metrics: Arc<IngressMetrics>,
    quiet: Quiet,
    tracer: Tracer,
}

/// The public routes. Must be called within a tokio runtime: it starts the task that stores.
pub fn router(
    settings: IngressSettings,
    twilio: TwilioSettings,
    queue: Arc<dyn Queue>,
    metrics: Arc<IngressMetrics>,
    tracer: Tracer,
) -> Router {
    let ingress = Arc::new(Ingress {
        source: TwilioSource::new(twilio),
        throttle: settings.rate_per_ip.and_then(Throttle::new),
        intake: Intake::start(queue, settings.patience.store),
        settings,
        metrics,
        quiet: Quiet::default(),
        tracer,
    });
    Router::new()
        .route("/", any(webhook))
        .route("/twilio/sms", any(webhook))
        .fallback(unknown)
        .with_state(ingress)
}

async fn unknown(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    match ingress.throttled(&request) {
        Some(refused) => refused,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn webhook(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let began = Instant::now();
    let response = ingress.answer(request, began).await;
    ingress.metrics.webhook_duration.observe(began.elapsed().as_secs_f64());
    response
}

impl Ingress {
    async fn answer(&self, request: Request, began: Instant) -> Response {
        if let Some(refused) = self.throttled(&request) {
            return refused;
        }
        let post = match *request.method() {
            Method::POST => true,
            Method::GET => false,
            _ => {
                let allow = [(header::ALLOW, HeaderValue::from_static("GET, POST"))];
                return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
            }
        };
        let (head, body) = request.into_parts();
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let verified = self.source.verify(&twilio::Request {
            post,
            target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
            content_type: text(&head.headers, &header::CONTENT_TYPE),
            signature: head.headers.get(SIGNATURE).map(HeaderValue::as_bytes),
            body: &body,
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(Refusal::BadSignature) => {
                // The operator is told what is most likely wrong, a stranger is not.
                let why = if head.headers.contains_key(SIGNATURE) {
                    "the signature does not fit; is ingress.public_url what Twilio calls, and the token the account's?"
                } else {
                    "there is no signature"
                };
                self.note(StatusCode::FORBIDDEN, WebhookResult::BadSignature, why);
                return (StatusCode::FORBIDDEN, "not signed by Twilio").into_response();
            }
            Err(Refusal::Malformed(why)) => {
                return self.refuse(StatusCode::BAD_REQUEST, WebhookResult::Malformed, why);
            }
        };
        // Not before it is proved whose it is: strangers fill no traces.
        let method = if post { "POST" } else { "GET" };
        let mut span = self.tracer.request(method, head.uri.path(), began, traceparent(&head.headers));
        let response = self.store(verified, &mut span).await;
        span.answered(response.status().as_u16());
        response
    }

    /// Stores a message, and answers for it.
    async fn store(&self, verified: Verified<InboundMessage>, request: &mut ActiveSpan) -> Response {
        let id = verified.get().id.clone();
        if self.settings.loop_guard.stops(&verified.get().from) {
            self.metrics.webhook(SOURCE, WebhookResult::Looped);
            request.resulted(WebhookResult::Looped.as_str());
            tracing::info!(message_id = %id, trace_id = request.trace_id(), "our own message came back; dropped");
            return taken();
        }
        let mut publish = self.tracer.publish(request, &id);
        // Always there: a request has a trace, of its own if it came with none.
        let verified = match publish.context() {
            Some(trace) => verified.in_trace(trace),
            None => verified,
        };
        let mut unavailable = |why| {
            publish.failed(why);
            request.resulted(WebhookResult::Unavailable.as_str());
            tracing::debug!(message_id = %id, trace_id = request.trace_id(), why, "not stored");
            self.unavailable(why)
        };
        let result = match self.intake.take(&verified, self.settings.deadline).await {
            Ok(Acceptance::Accepted) => WebhookResult::Accepted,
            Ok(Acceptance::Duplicate) => WebhookResult::Duplicate,
            Ok(Acceptance::Spooled) => WebhookResult::Spooled,
            Ok(Acceptance::Full) => return unavailable("full"),
            Err(QueueError::Exhausted(_)) => return unavailable("out of memory"),
            Err(QueueError::Unavailable(_) | QueueError::Unusable(_)) => {
                return unavailable("unavailable");
            }
        };
        self.metrics.webhook(SOURCE, result);
        publish.resulted(result.as_str());
        request.resulted(result.as_str());
        tracing::info!(message_id = %id, trace_id = request.trace_id(), result = result.as_str(), "webhook");
        taken()
    }

    /// The whole body, or the refusal of one that is too large, too slow or broken.
    async fn read(&self, body: Body) -> Result<Bytes, Response> {
        let most = self.settings.max_body;
        let too_large = || {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            unread(self.refuse(status, WebhookResult::TooLarge, "the body is too large"))
        };
        // What announces too much need not be read to be refused.
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        let collected = Limited::new(body, most).collect();
        let malformed = |status, why| unread(self.refuse(status, WebhookResult::Malformed, why));
        match tokio::time::timeout(self.settings.patience.body, collected).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
            Ok(Err(_)) => Err(malformed(StatusCode::BAD_REQUEST, "the body is broken")),
            Err(_) => Err(malformed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        }
    }

    /// The refusal of a client that has had its share.
    fn throttled(&self, request: &Request) -> Option<Response> {
        let throttle = self.throttle.as_ref()?;
        let peer = request.extensions().get::<Peer>()?.0.ip();
        let client = client(peer, request.headers(), &self.settings.trusted_proxies);
        let wait = throttle.check(client).err()?;
        // Twilio takes a 429 for a plain failure; a 503 it repeats if asked to.
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let refused = self.refuse(status, WebhookResult::Throttled, "too many requests");
        Some(unread(retry_after(refused, wait)))
    }

    fn unavailable(&self, why: &'static str) -> Response {
        let refused = self.refuse(StatusCode::SERVICE_UNAVAILABLE, WebhookResult::Unavailable, why);
        retry_after(refused, SOON)
    }

    /// Counts, logs and answers. The words are ours and never hold anything of the request.
    fn refuse(&self, status: StatusCode, result: WebhookResult, why: &'static str) -> Response {
        self.note(status, result, why);
        (status, why).into_response()
    }

    /// Counts and logs a refusal.
    fn note(&self, status: StatusCode, result: WebhookResult, why: &'static str) {
        self.metrics.webhook(SOURCE, result);
        if let Some(left_out) = self.quiet.admits(result.as_str(), Instant::now()) {
            let (result, status) = (result.as_str(), status.as_u16());
            tracing::warn!(result, status, why, left_out, "webhook refused");
        }
    }
}

/// The answer that makes Twilio do nothing: an empty TwiML document. As `text/plain` it would be sent to
/// the sender as a reply.
fn taken() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"))], "<Response/>").into_response()
}

/// Says that the connection ends with this answer, as it does when a body was not read to its end: a client
/// or proxy that kept it would send its next request into the void.
fn unread(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Adds `Retry-After`: whole seconds, at least one.
fn retry_after(mut response: Response, wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// The trace that a request says it is part of; two answers are none.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut said = headers.get_all(TRACEPARENT).iter();
    let one = said.next().filter(|_| said.next().is_none())?;
    TraceContext::parse(one.to_str().ok()?)
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
