//! One fake provider: Twilio's "create a message" and any number of Slack webhooks, over real HTTP on
//! loopback. It records every request and answers by a script.
//!
//! A destination is a phone number, or the name of a Slack webhook. Left alone, it checks requests the
//! way the real ones do and accepts good ones. It runs on a thread of its own, so it goes on answering
//! whatever the test does.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sms_broadcaster::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The only account the provider knows.
pub(crate) const ACCOUNT_SID: &str = "AC0123456789abcdef0123456789abcdef";

/// Its auth token.
pub(crate) const AUTH_TOKEN: &str = "fedcba9876543210fedcba9876543210";

/// How long [`Provider::wait_until`] waits before it fails the test.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a destination answers one request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    delay: Duration,
    held: Option<watch::Receiver<bool>>,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    AsProvider,
    Fixed { status: u16, headers: Vec<(String, String)>, body: String, then: Then },
    Hang,
    Close,
}

/// What follows a body that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    End,
    Hang,
    Close,
}

impl Reply {
    /// What the real provider says: acceptance of a good request, an error for a bad one.
    pub(crate) fn ok() -> Self {
        Self { delay: Duration::ZERO, held: None, how: How::AsProvider }
    }

    /// A status with an empty body.
    pub(crate) fn status(status: u16) -> Self {
        let how = How::Fixed { status, headers: Vec::new(), body: String::new(), then: Then::End };
        Self { delay: Duration::ZERO, held: None, how }
    }

    /// Twilio's error body with this code.
    pub(crate) fn twilio_error(status: u16, code: u32) -> Self {
        Self::status(status).header("Content-Type", "application/json").body(twilio_error(status, code))
    }

    /// 429, to be repeated after so many seconds or at that date.
    pub(crate) fn too_many(retry_after: &str) -> Self {
        Self::status(429).header("Retry-After", retry_after)
    }

    /// Reads the request and never answers.
    pub(crate) fn hang() -> Self {
        Self { delay: Duration::ZERO, held: None, how: How::Hang }
    }

    /// Reads the request and closes the connection.
    pub(crate) fn close() -> Self {
        Self { delay: Duration::ZERO, held: None, how: How::Close }
    }

    /// Adds a header to a fixed answer.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let How::Fixed { headers, .. } = &mut self.how {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets the body of a fixed answer.
    pub(crate) fn body(mut self, text: impl Into<String>) -> Self {
        if let How::Fixed { body, .. } = &mut self.how {
            *body = text.into();
        }
        self
    }

    /// The body of a fixed answer never ends.
    pub(crate) fn then_hang(self) -> Self {
        self.then(Then::Hang)
    }

    /// The body of a fixed answer breaks off.
    pub(crate) fn then_close(self) -> Self {
        self.then(Then::Close)
    }

    fn then(mut self, what: Then) -> Self {
        if let How::Fixed { then, .. } = &mut self.how {
            *then = what;
        }
        self
    }

    /// Waits before it does what it does.
    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits for the test to say `true` before it does what it does.
    pub(crate) fn held(mut self, until: &watch::Sender<bool>) -> Self {
        self.held = Some(until.subscribe());
        self
    }
}

/// One request that arrived whole.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When it had arrived.
    pub(crate) at: Instant,
    /// Phone number or webhook name; empty for a request that names none.
    pub(crate) destination: String,
    /// Path and query.
    pub(crate) target: String,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body.
    pub(crate) body: Bytes,
    /// The status it was, or is being, answered with; `None` when it hangs or is closed.
    pub(crate) status: Option<u16>,
}

impl Received {
    /// The fields of a form body, in order.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first field of that name in a form body.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.form().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A JSON body.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the provider took it as a message to send on.
    pub(crate) fn accepted(&self) -> bool {
        self.status.is_some_and(|status| status / 100 == 2)
    }

    /// The text it carries, of either kind.
    pub(crate) fn text(&self) -> String {
        let slack = || self.json()?.get("text")?.as_str().map(str::to_owned);
        self.field("Body").or_else(slack).unwrap_or_default()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A running provider. Dropping it ends it and every open connection.
pub(crate) struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    scripts: HashMap<String, VecDeque<Reply>>,
    always: HashMap<String, Reply>,
    connections: usize,
    open: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

impl Provider {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let serving = (Arc::clone(&shared), stop.clone());
        let thread = std::thread::spawn(move || {
            let (shared, stop) = serving;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(stop.run_until_cancelled(accept(listener, shared)));
        });
        Self { address, shared, stop, thread: Some(thread) }
    }

    /// Where Twilio's API begins: the `api_base` of a configuration.
    pub(crate) fn api_base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of the Slack webhook `name`.
    pub(crate) fn slack_url(&self, name: &str) -> String {
        format!("http://{}/slack/{name}", self.address)
    }

    /// Answers the next requests of `destination` so, one after another, before anything else.
    pub(crate) fn script(&self, destination: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().scripts.entry(destination.to_owned()).or_default().extend(replies);
    }

    /// Answers `destination` so from now on, once its script is used up.
    pub(crate) fn always(&self, destination: &str, reply: Reply) {
        self.shared.lock().always.insert(destination.to_owned(), reply);
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// The requests for one destination so far, in the order of arrival.
    pub(crate) fn received(&self, destination: &str) -> Vec<Received> {
        let state = self.shared.lock();
        state.received.iter().filter(|request| request.destination == destination).cloned().collect()
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until nobody is connected: what was sent by a process that was killed has arrived then.
    pub(crate) async fn wait_until_alone(&self) {
        self.wait_for("nobody is connected", |state| state.open == 0).await;
    }

    /// Waits until so many more requests have arrived.
    pub(crate) async fn wait_for_more(&self, number: usize) {
        let wanted = self.shared.lock().received.len() + number;
        self.wait_until("more requests arrived", |requests| requests.len() >= wanted).await;
    }

    /// Waits until `condition` holds for all requests so far. Fails the test, saying `what` it waited for
    /// and what arrived instead, when that takes longer than [`PATIENCE`].
    pub(crate) async fn wait_until(&self, what: &str, condition: impl Fn(&[Received]) -> bool) {
        self.wait_for(what, |state| condition(&state.received)).await;
    }

    async fn wait_for(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if condition(&self.shared.lock()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let arrived: Vec<_> = self
                .requests()
                .iter()
                .rev()
                .take(20)
                .map(|request| format!("{} -> {:?}", request.destination, request.status))
                .collect();
            panic!("waited in vain until {what}; the last requests, newest first: {arrived:#?}");
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    loop {
        // A failed accept (too many open files) passes when the test closes some.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        {
            let mut state = shared.lock();
            state.connections += 1;
            state.open += 1;
        }
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    // It ends with an error whenever a script says "close".
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    shared.lock().open -= 1;
    shared.changed.notify_waiters();
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed by the script")
    }
}

impl std::error::Error for Closed {}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<ReplyBody>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let mut received = Received {
        at: Instant::now(),
        destination: String::new(),
        target: head.uri.to_string(),
        headers: head.headers,
        body,
        status: None,
    };
    received.destination = match head.uri.path().strip_prefix("/slack/") {
        Some(name) => name.to_owned(),
        None => received.field("To").unwrap_or_default(),
    };

    let Reply { delay, held, how } = {
        let mut state = shared.lock();
        let scripted = state.scripts.get_mut(&received.destination).and_then(VecDeque::pop_front);
        let reply = scripted.or_else(|| state.always.get(&received.destination).cloned());
        let mut reply = reply.unwrap_or_else(Reply::ok);
        if matches!(reply.how, How::AsProvider) {
            let number = state.received.len();
            reply.how = judge(&head.method, head.uri.path(), &received, number);
        }
        if let How::Fixed { status, .. } = &reply.how {
            received.status = Some(*status);
        }
        state.received.push(received);
        reply
    };
    shared.changed.notify_waiters();

    tokio::time::sleep(delay).await;
    if let Some(mut held) = held {
        // A test that has ended holds nothing any more.
        let _ = held.wait_for(|is_over| *is_over).await;
    }
    match how {
        How::Fixed { status, headers, body, then } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response
                .body(ReplyBody { text: Some(body.into()), flushed: false, then })
                .expect("a script of valid headers"))
        }
        How::Hang => std::future::pending().await,
        How::AsProvider | How::Close => Err(Closed),
    }
}

/// A body, and what follows it.
struct ReplyBody {
    text: Option<Bytes>,
    flushed: bool,
    then: Then,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        match (self.text.take(), self.then) {
            (Some(text), _) => Poll::Ready(Some(Ok(Frame::data(text)))),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Hang) => Poll::Pending,
            (None, Then::Close) if self.flushed => Poll::Ready(Some(Err(Closed))),
            // The server writes what it has when a body makes it wait.
            (None, Then::Close) => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.text, self.then) {
            (Some(text), Then::End) => SizeHint::with_exact(text.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// What the real provider would say to request `number`.
fn judge(method: &Method, path: &str, request: &Received, number: usize) -> How {
    let Reply { how, .. } = if path.starts_with("/slack/") {
        judge_slack(method, request)
    } else {
        judge_twilio(method, path, request, number)
    };
    how
}

fn judge_slack(method: &Method, request: &Received) -> Reply {
    let text = request.json().and_then(|json| Some(json.get("text")?.as_str()?.to_owned()));
    match (method, request.json(), text) {
        (&Method::POST, Some(_), Some(text)) if !text.is_empty() => Reply::status(200).body("ok"),
        (&Method::POST, Some(_), _) => Reply::status(400).body("no_text"),
        _ => Reply::status(400).body("invalid_payload"),
    }
}

fn judge_twilio(method: &Method, path: &str, request: &Received, number: usize) -> Reply {
    let basic = format!("Basic {}", STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}")));
    if request.header(AUTHORIZATION.as_str()) != Some(basic.as_str()) {
        return Reply::twilio_error(401, 20003);
    }
    if path != format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json") {
        return Reply::twilio_error(404, 20404);
    }
    let is_form = request
        .header(CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if method != Method::POST || !is_form {
        return Reply::twilio_error(405, 20004);
    }
    let field = |name| request.field(name).unwrap_or_default();
    let (to, from, service, body) = (field("To"), field("From"), field("MessagingServiceSid"), field("Body"));
    let validity = request.field("ValidityPeriod").map(|text| text.parse::<u32>().unwrap_or(0));
    let digits = to.strip_prefix('+').unwrap_or_default();
    let code = if to.is_empty() {
        21604
    } else if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) || to == from {
        21211
    } else if from.is_empty() == service.is_empty() {
        21603
    } else if body.is_empty() {
        21602
    } else if body.encode_utf16().count() > 1600 {
        21617
    } else if validity.is_some_and(|seconds| !(1..=36_000).contains(&seconds)) {
        20422
    } else {
        let created = created(&to, &from, &service, &body, number);
        return Reply::status(201).header("Content-Type", "application/json").body(created);
    };
    Reply::twilio_error(400, code)
}

/// Twilio's answer to a message it took.
fn created(to: &str, from: &str, service: &str, body: &str, number: usize) -> String {
    let sid = format!("SM{number:032x}");
    let now = UNIX_EPOCH + Duration::from_millis(Clock::system().now().as_millis().unsigned_abs());
    let date = httpdate::fmt_http_date(now).replace("GMT", "+0000");
    let given = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let uri = format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}.json");
    json!({
        "account_sid": ACCOUNT_SID,
        "api_version": "2010-04-01",
        "body": body,
        "date_created": date,
        "date_sent": null,
        "date_updated": date,
        "direction": "outbound-api",
        "error_code": null,
        "error_message": null,
        "from": given(from),
        "messaging_service_sid": given(service),
        "num_media": "0",
        "num_segments": if service.is_empty() { "1" } else { "0" },
        "price": null,
        "price_unit": "USD",
        "sid": sid,
        "status": if service.is_empty() { "queued" } else { "accepted" },
        "subresource_uris": { "media": uri.replace(".json", "/Media.json") },
        "to": to,
        "uri": uri,
    })
    .to_string()
}

fn twilio_error(status: u16, code: u32) -> String {
    json!({
        "code": code,
        "message": "The fake provider says no.",
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status,
    })
    .to_string()
}
