//! The ingress: verified, stored, answered.
//!
//! Nothing about routes, templates or channels happens here. Requests that wait share one call to the
//! store: while one batch is there the next gathers, so there is no timer and no waiting when idle.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::{IngressMetrics, WebhookResult};
use crate::queue::contract::{Acceptance, MAX_BATCH, NewMessage, Queue, QueueError, Rate};
use crate::quiet::Quiet;
use crate::server::Peer;
use crate::source::twilio::{self, SOURCE, TwilioSettings, TwilioSource};
use crate::source::verified::Refusal;

/// The body must arrive in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a request waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_millis(2500);
/// Requests that may wait for the store.
const WAITING: usize = 4096;
/// Client addresses remembered before idle ones are forgotten.
const CLIENTS: usize = 10_000;

/// Settings of the webhook receiver.
#[derive(Clone, Debug)]
pub struct IngressSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The largest body taken, in bytes.
    pub max_body: usize,
    /// Requests per client address; `None` is no limit.
    pub rate_per_ip: Option<Rate>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Our own sending number, whose messages are dropped; `None` when the loop guard is off or the
    /// number is not known (a messaging service).
    pub loop_guard: Option<String>,
    /// Time from acceptance to the deadline of a message.
    pub deadline: Duration,
}

type Answer = Result<Acceptance, QueueError>;
type Waiting = (NewMessage, oneshot::Sender<Answer>);

struct Ingress {
    settings: IngressSettings,
    source: TwilioSource,
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
    store: mpsc::Sender<Waiting>,
    metrics: Arc<IngressMetrics>,
    quiet: Quiet,
}

/// The public routes. Must be called within a tokio runtime: it starts the task that stores.
pub fn router(
    settings: IngressSettings,
    twilio: TwilioSettings,
    queue: Arc<dyn Queue>,
    metrics: Arc<IngressMetrics>,
) -> Router {
    let (store, waiting) = mpsc::channel(WAITING);
    tokio::spawn(commit(queue, waiting));
    let limiter = settings.rate_per_ip.and_then(quota).map(RateLimiter::keyed);
    let source = TwilioSource::new(twilio);
    let ingress = Arc::new(Ingress { settings, source, limiter, store, metrics, quiet: Quiet::default() });
    Router::new()
        .route("/", any(webhook))
        .route("/twilio/sms", any(webhook))
        .fallback(unknown)
        .with_state(ingress)
}

fn quota(rate: Rate) -> Option<Quota> {
    Some(Quota::with_period(rate.interval)?.allow_burst(NonZeroU32::new(rate.burst)?))
}

/// Stores what waits, batch by batch, until every asker is gone.
async fn commit(queue: Arc<dyn Queue>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut gathered: Vec<Waiting> = Vec::with_capacity(MAX_BATCH);
    while waiting.recv_many(&mut gathered, MAX_BATCH).await > 0 {
        let (batch, askers): (Vec<NewMessage>, Vec<_>) = gathered.drain(..).unzip();
        let accepted = queue.accept(&batch).await;
        for (position, asker) in askers.into_iter().enumerate() {
            let answer = match &accepted {
                Ok(answers) => {
                    answers.get(position).copied().ok_or(QueueError::Unavailable("no answer".into()))
                }
                Err(error) => Err(error.clone()),
            };
            // Whoever no longer waits is not told; the message is stored all the same.
            let _ = asker.send(answer);
        }
    }
}

async fn unknown(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    if ingress.is_throttled(&request) { ingress.throttled() } else { StatusCode::NOT_FOUND.into_response() }
}

async fn webhook(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let began = Instant::now();
    let response = ingress.handle(request).await;
    ingress.metrics.webhook_duration.observe(began.elapsed().as_secs_f64());
    response
}

impl Ingress {
    async fn handle(&self, request: Request) -> Response {
        if self.is_throttled(&request) {
            return self.throttled();
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
            Err(status) => {
                let result = match status {
                    StatusCode::PAYLOAD_TOO_LARGE => WebhookResult::TooLarge,
                    _ => WebhookResult::Malformed,
                };
                return self.refuse(status, result, "body not taken");
            }
        };
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let verified = self.source.verify(&twilio::Request {
            post,
            target,
            content_type: text(&head.headers, header::CONTENT_TYPE.as_str()),
            signature: head.headers.get("x-twilio-signature").map(HeaderValue::as_bytes),
            body: &body,
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(Refusal::Forged) => {
                return self.refuse(
                    StatusCode::FORBIDDEN,
                    WebhookResult::BadSignature,
                    "not signed by Twilio",
                );
            }
            Err(Refusal::Malformed(why)) => {
                return self.refuse(StatusCode::BAD_REQUEST, WebhookResult::Malformed, why);
            }
        };
        let message = verified.message();
        if self.settings.loop_guard.as_deref() == Some(message.from.as_str()) {
            self.metrics.webhook(SOURCE, WebhookResult::Looped);
            tracing::info!(message_id = %message.id, "our own message came back; dropped");
            return taken();
        }
        let new = NewMessage {
            id: message.id.clone(),
            payload: message.to_payload(),
            deadline: self.settings.deadline,
        };
        self.store(new).await
    }

    async fn read(&self, body: Body) -> Result<Vec<u8>, StatusCode> {
        let limited = Limited::new(body, self.settings.max_body);
        match tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                Err(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }

    async fn store(&self, new: NewMessage) -> Response {
        let id = new.id.clone();
        let (asker, answer) = oneshot::channel();
        let stored = async {
            self.store.send((new, asker)).await.ok()?;
            answer.await.ok()
        };
        let result = match tokio::time::timeout(STORE_TIMEOUT, stored).await {
            Ok(Some(Ok(Acceptance::Accepted))) => WebhookResult::Accepted,
            Ok(Some(Ok(Acceptance::Duplicate))) => WebhookResult::Duplicate,
            Ok(Some(Ok(Acceptance::Full))) => {
                return self.refuse(StatusCode::SERVICE_UNAVAILABLE, WebhookResult::Unavailable, "full");
            }
            Ok(Some(Err(_)) | None) | Err(_) => {
                return self.refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    WebhookResult::Unavailable,
                    "unavailable",
                );
            }
        };
        self.metrics.webhook(SOURCE, result);
        tracing::info!(message_id = %id, result = result.as_str(), "webhook");
        taken()
    }

    fn is_throttled(&self, request: &Request) -> bool {
        let Some(limiter) = &self.limiter else { return false };
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let Some(peer) = peer else { return false };
        if limiter.len() > CLIENTS {
            limiter.retain_recent();
        }
        let client = client(peer, request.headers(), &self.settings.trusted_proxies);
        limiter.check_key(&client).is_err()
    }

    fn throttled(&self) -> Response {
        // Twilio takes a 429 for a plain failure; a 503 it repeats if asked to.
        self.refuse(StatusCode::SERVICE_UNAVAILABLE, WebhookResult::Throttled, "too many requests")
    }

    fn refuse(&self, status: StatusCode, result: WebhookResult, why: &'static str) -> Response {
        self.metrics.webhook(SOURCE, result);
        if let Some(left_out) = self.quiet.admits(result.as_str(), Instant::now()) {
            tracing::warn!(
                result = result.as_str(),
                status = status.as_u16(),
                why,
                left_out,
                "webhook refused"
            );
        }
        let mut response = (status, why).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer that makes Twilio do nothing: an empty TwiML document.
fn taken() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"))], "<Response/>").into_response()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whom a request is counted for: the connection's other end, or, behind trusted proxies, the last
/// address in `X-Forwarded-For` that is not one of them. IPv6 clients count by their /64.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut found = peer.to_canonical();
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    for hop in hops.iter().rev() {
        if !is_trusted(found) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        found = address.to_canonical();
    }
    match found {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_alone() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 203.0.113.9, 10.0.0.7"));
        let of = |peer: &str| client(peer.parse().unwrap(), &headers, &trusted).to_string();
        assert_eq!(of("10.0.0.1"), "203.0.113.9");
        assert_eq!(of("::ffff:10.0.0.1"), "203.0.113.9");
        assert_eq!(of("198.51.100.4"), "198.51.100.4");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
