//! The one place where an HTTP exchange happens and becomes raw material for an [`Outcome`].
//!
//! One client for all channels: no redirects, no proxy from the environment, no compression, one
//! deadline over connection, headers and body, a bounded answer, and addresses checked whenever they
//! are dialled. What it hands out never holds a URL or a text, so neither can end up in a log.
//!
//! A provider cannot take a message back, so the difference that matters most is whether a failed
//! request may have been read: [`NoAnswer`] tells it apart.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use reqwest::{Method, Request};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::delivery::{Outcome, Reason};
use crate::forbidden::{is_forbidden, names_forbidden_address};

/// The most that is read of an answer's body, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024;

/// The longest `Retry-After` that is believed.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Part of an attempt's time that connecting may take, so that a name's second address gets a turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Well below the idle limits of common load balancers: a connection that is closed just as it is used
/// again costs an ambiguous attempt.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections kept to one host: as many as there may be attempts at once, or some would be made anew for each.
const POOL_IDLE: usize = 512;

/// The longest deadline that is set; beyond it the clock's arithmetic may overflow.
const FAR_AWAY: Duration = Duration::from_secs(24 * 3600);

/// No client could be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no HTTPS client: this machine has no readable root certificates (install ca-certificates)")]
pub struct NoRootCertificates;

/// A request to make.
pub struct Post<'a> {
    /// Where to. Secret.
    pub url: &'a Url,
    /// As [`headers`] makes them. They may hold a password: secret.
    pub headers: &'a HeaderMap,
    /// The body. Secret.
    pub body: Vec<u8>,
    /// The longest the whole exchange may take.
    pub timeout: Duration,
    /// How long it makes sense to begin: a request that could not be written by then is dropped.
    pub write_within: Duration,
}

/// The headers of every request with a body of `content_type` that names `basic`, HTTP Basic user and password. They
/// are the same for all requests of a channel, so it has them made once.
pub fn headers(content_type: &'static str, basic: Option<(&str, &SecretString)>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("sms-broadcaster/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some((user, password)) = basic {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        let mut value = HeaderValue::from_str(&format!("Basic {credentials}"))
            .expect("base64 is nothing but visible ASCII");
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

/// An answer of which at least status and headers arrived.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What `Retry-After` asks for, at most [`MAX_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The body, at most [`MAX_ANSWER`] bytes of it. It may echo what was sent: secret.
    pub body: Vec<u8>,
    /// How the body ended.
    pub ending: Ending,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was read.
    Complete,
    /// It is longer than [`MAX_ANSWER`]; the rest was not read.
    Cut,
    /// It did not come to its end.
    Lost(NoAnswer),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The address must not be dialled.
    Forbidden,
    /// The URL cannot be put on the wire.
    Unsendable,
    /// No connection, so nothing was sent.
    Connect,
    /// The time was up.
    Timeout {
        /// Whether the request may have been written by then.
        written: bool,
    },
    /// The connection broke, or spoke no HTTP, after the request was written.
    Broken,
}

impl From<NoAnswer> for Outcome {
    fn from(failure: NoAnswer) -> Self {
        let retry =
            |reason, ambiguous| Self::Retry { reason, status: None, code: None, after: None, ambiguous };
        let permanent = |reason| Self::Permanent { reason, status: None, code: None };
        match failure {
            NoAnswer::Forbidden => permanent(Reason::Forbidden),
            NoAnswer::Unsendable => permanent(Reason::Unreadable),
            NoAnswer::Connect => retry(Reason::Connect, false),
            NoAnswer::Timeout { written } => retry(Reason::Timeout, written),
            NoAnswer::Broken => retry(Reason::Broken, true),
        }
    }
}

/// What a table of a provider's codes, or a status, says about an attempt that did not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may work later.
    Retry(Reason),
    /// It will never work.
    Permanent(Reason),
}

impl Verdict {
    /// What the status alone says, whoever the provider: 429, 408, 425 and 5xx may pass, everything
    /// else stays.
    pub const fn of_status(status: u16) -> Self {
        match status {
            429 => Self::Retry(Reason::RateLimited),
            408 => Self::Retry(Reason::Timeout),
            425 | 500..=599 => Self::Retry(Reason::Server),
            _ => Self::Permanent(Reason::Rejected),
        }
    }
}

impl Answer {
    /// The outcome of an attempt that was answered with this and judged so. `code` is the provider's own
    /// code or word.
    pub fn judged(&self, verdict: Verdict, code: Option<String>) -> Outcome {
        let status = Some(self.status);
        match verdict {
            Verdict::Retry(reason) => {
                Outcome::Retry { reason, status, code, after: self.retry_after, ambiguous: false }
            }
            Verdict::Permanent(reason) => Outcome::Permanent { reason, status, code },
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes, {:?})", self.status, self.body.len(), self.ending)
    }
}

/// The client all channels share. Clones share its connections.
#[derive(Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    clock: Clock,
}

impl HttpClient {
    /// A client that trusts the system's root certificates. `clock` serves to read `Retry-After` dates
    /// of servers that do not tell the time.
    pub fn new(clock: Clock) -> Result<Self, NoRootCertificates> {
        let client = builder(system_lookup()).build().map_err(|_| NoRootCertificates)?;
        Ok(Self { client, clock })
    }

    /// A client that trusts no certificate, so `https` always fails: for a machine without root
    /// certificates whose destinations are all plain `http`.
    pub fn for_plain_http(clock: Clock) -> Self {
        Self::untrusting(clock, system_lookup())
    }

    fn untrusting(clock: Clock, lookup: Lookup) -> Self {
        let builder = builder(lookup).tls_certs_only([]);
        let client = builder.build().expect("without certificates to read there is nothing to fail");
        Self { client, clock }
    }

    /// Makes one exchange and says what happened: `read` tells what an answer means, everything else is the
    /// same for every channel.
    pub async fn attempt(&self, post: Post<'_>, read: impl FnOnce(&Answer) -> Outcome) -> Outcome {
        match self.post(post).await {
            Ok(answer) => read(&answer),
            Err(failure) => failure.into(),
        }
    }

    /// Makes one exchange. `Ok` means status and headers came; the answer's [`Ending`] tells about the
    /// body.
    pub async fn post(&self, post: Post<'_>) -> Result<Answer, NoAnswer> {
        if names_forbidden_address(post.url) {
            return Err(NoAnswer::Forbidden);
        }
        let now = Instant::now();
        let deadline = now + post.timeout.min(FAR_AWAY);
        let write_by = deadline.min(now + post.write_within.min(FAR_AWAY));

        let gate = Arc::new(Gate::default());
        let body = GuardedBody { bytes: Some(Bytes::from(post.body)), gate: Arc::clone(&gate) };
        let mut request = Request::new(Method::POST, post.url.clone());
        request.headers_mut().clone_from(post.headers);
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        let mut sending = pin!(self.client.execute(request));

        let mut sent = timeout_at(write_by, &mut sending).await;
        if sent.is_err() && !gate.call_off() {
            // It may be out already: an answer, even a late one, says more than giving up.
            sent = timeout_at(deadline, &mut sending).await;
        }
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(why(&error, gate.taken())),
            Err(_) => return Err(NoAnswer::Timeout { written: gate.taken() }),
        };

        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), &self.clock);
        let (body, ending) = read_body(response, deadline).await;
        Ok(Answer { status, retry_after, body, ending })
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

fn builder(lookup: Lookup) -> reqwest::ClientBuilder {
    // Fails when somebody installed one before, and then theirs serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE)
        .dns_resolver(CheckedResolver { lookup })
}

/// Reads the body to its end, the limit or the deadline.
async fn read_body(mut response: reqwest::Response, deadline: Instant) -> (Vec<u8>, Ending) {
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = MAX_ANSWER - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return (body, Ending::Cut);
                }
            }
            Ok(Ok(None)) => return (body, Ending::Complete),
            Ok(Err(_)) => return (body, Ending::Lost(NoAnswer::Broken)),
            Err(_) => return (body, Ending::Lost(NoAnswer::Timeout { written: true })),
        }
    }
}

/// Turns the client's error, which may quote the URL, into what is safe to keep of it.
fn why(error: &reqwest::Error, written: bool) -> NoAnswer {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<ForbiddenAddress>() {
            return NoAnswer::Forbidden;
        }
        cause = error.source();
    }
    if error.is_builder() {
        NoAnswer::Unsendable
    } else if !written {
        NoAnswer::Connect
    } else if error.is_timeout() {
        NoAnswer::Timeout { written }
    } else {
        NoAnswer::Broken
    }
}

/// Stands between a request and the wire. The connection takes the body right before it writes headers
/// and body, so as long as it is not taken, certainly nothing was sent; and a request that was called
/// off cannot be taken any more.
#[derive(Default)]
struct Gate(AtomicU8);

impl Gate {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const CALLED_OFF: u8 = 2;

    /// Takes the request, unless it was called off.
    fn take(&self) -> bool {
        let before = self.0.compare_exchange(Self::WAITING, Self::TAKEN, Ordering::SeqCst, Ordering::SeqCst);
        matches!(before, Ok(_) | Err(Self::TAKEN))
    }

    /// Calls the request off, unless it was taken.
    fn call_off(&self) -> bool {
        let before =
            self.0.compare_exchange(Self::WAITING, Self::CALLED_OFF, Ordering::SeqCst, Ordering::SeqCst);
        matches!(before, Ok(_) | Err(Self::CALLED_OFF))
    }

    fn taken(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::TAKEN
    }
}

/// A request body behind a [`Gate`].
struct GuardedBody {
    bytes: Option<Bytes>,
    gate: Arc<Gate>,
}

#[derive(Debug, Error)]
#[error("the request was called off")]
struct CalledOff;

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = CalledOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CalledOff>>> {
        if !self.gate.take() {
            return Poll::Ready(Some(Err(CalledOff)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// Resolves a name to its addresses; ports are ignored.
type Lookup = Arc<dyn Fn(String) -> Found + Send + Sync>;
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

fn system_lookup() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

/// A resolver that refuses a name altogether when one of its addresses is forbidden: to dial the others
/// would make the outcome depend on their order.
struct CheckedResolver {
    lookup: Lookup,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let found = found.await?;
            if found.iter().any(|address| is_forbidden(address.ip())) {
                return Err(ForbiddenAddress.into());
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// Travels through the client's error chain from the resolver to [`why`].
#[derive(Debug, Error)]
#[error("the name leads to an address that is never dialled")]
struct ForbiddenAddress;

/// What the headers ask for. A date is measured by the server's own clock where it sends one.
fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = text(RETRY_AFTER)?;
    let server_time = text(DATE).and_then(parse_date);
    parse_retry_after(asked, server_time.unwrap_or_else(|| clock.now()))
}

/// Reads a `Retry-After`: seconds, which may have a fraction, or an HTTP date, counted from `now`. At
/// most [`MAX_RETRY_AFTER`]; a date in the past is zero; `None` for anything else.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let number = value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && value.bytes().filter(|&b| b == b'.').count() <= 1;
    let asked = if number {
        Duration::try_from_secs_f64(value.parse().ok()?).unwrap_or(MAX_RETRY_AFTER)
    } else {
        parse_date(value)?.since(now)
    };
    Some(asked.min(MAX_RETRY_AFTER))
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_485_831_000);

    fn client_that_finds(addresses: &[&str]) -> HttpClient {
        let found: Vec<SocketAddr> =
            addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
        HttpClient::untrusting(
            Clock::system(),
            Arc::new(move |_| {
                let found = found.clone();
                Box::pin(async move { Ok(found) })
            }),
        )
    }

    async fn post(client: &HttpClient, url: &str) -> Result<Answer, NoAnswer> {
        let url = Url::parse(url).unwrap();
        let timeout = Duration::from_secs(10);
        let body = b"x=1".to_vec();
        let post =
            Post { url: &url, headers: &headers("text/plain", None), body, timeout, write_within: timeout };
        client.post(post).await
    }

    #[tokio::test]
    async fn a_name_with_one_forbidden_address_is_refused_and_nothing_is_dialled() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://provider.invalid:{}/", listener.local_addr().unwrap().port());
        for addresses in [
            &["169.254.169.254"][..],
            &["127.0.0.1", "169.254.169.254"],
            &["::ffff:169.254.169.254", "127.0.0.1"],
            &["127.0.0.1", "fd00:ec2::254"],
        ] {
            let answer = post(&client_that_finds(addresses), &url).await;
            assert_eq!(answer.unwrap_err(), NoAnswer::Forbidden, "{addresses:?}");
        }
        let dialled = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(dialled.is_err(), "a connection was made");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_checked_again_for_every_new_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://provider.invalid:{}/", listener.local_addr().unwrap().port());
        // The name leads to a good address first, and then somebody turns it round.
        let asked = Arc::new(AtomicU8::new(0));
        let lookup = move |_| -> Found {
            let found =
                if asked.fetch_add(1, Ordering::SeqCst) == 0 { "127.0.0.1" } else { "169.254.169.254" };
            Box::pin(async move { Ok(vec![SocketAddr::new(found.parse().unwrap(), 0)]) })
        };
        let client = HttpClient::untrusting(Clock::system(), Arc::new(lookup));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(post(&client, &url), serve);
        assert_eq!(answer.unwrap().status, 204);
        for _ in 0..3 {
            assert_eq!(post(&client, &url).await.unwrap_err(), NoAnswer::Forbidden);
        }
    }

    #[tokio::test]
    async fn an_address_is_refused_however_it_is_written_before_anything_is_looked_up() {
        let never: Lookup = Arc::new(|name| panic!("{name} was looked up"));
        let client = HttpClient::untrusting(Clock::system(), never);
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9.254.0251.0xfe",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::]",
            "[2001:0:a9fe:a9fe::]",
            "[2001:db8::5efe:169.254.169.254]",
            "[fd00:ec2::254]",
            "metadata.google.internal",
            "100.100.100.200",
        ] {
            for url in [format!("http://{host}/"), format!("https://{host}:8443/x")] {
                assert_eq!(post(&client, &url).await.unwrap_err(), NoAnswer::Forbidden, "{url}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_with_good_addresses_is_dialled_where_the_resolver_says() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://provider.invalid:{}/", listener.local_addr().unwrap().port());
        let client = client_that_finds(&["127.0.0.1"]);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let (answer, request) = tokio::join!(post(&client, &url), serve);
        assert_eq!(answer.unwrap().status, 204);
        assert!(request.to_ascii_lowercase().contains("host: provider.invalid"), "{request}");
    }

    #[tokio::test]
    async fn no_more_of_an_answer_is_kept_than_the_limit() {
        for (length, kept, ending) in [
            (MAX_ANSWER, MAX_ANSWER, Ending::Complete),
            (MAX_ANSWER + 1, MAX_ANSWER, Ending::Cut),
            (50 * MAX_ANSWER, MAX_ANSWER, Ending::Cut),
        ] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                let head = format!("HTTP/1.1 500 No\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                // It hangs up when it has read enough.
                let _ = stream.write_all(&vec![b'x'; length]).await;
            };
            let client = client_that_finds(&[]);
            let (answer, ()) = tokio::join!(post(&client, &url), serve);
            let answer = answer.unwrap();
            assert_eq!((answer.body.len(), answer.ending), (kept, ending), "{length}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_a_failed_connection() {
        let answer = post(&client_that_finds(&[]), "http://provider.invalid/").await;
        assert_eq!(answer.unwrap_err(), NoAnswer::Connect);
    }

    #[tokio::test]
    async fn a_request_is_either_taken_or_called_off() {
        let body = |gate: &Arc<Gate>| GuardedBody { bytes: Some(Bytes::from("x")), gate: Arc::clone(gate) };
        let gate = Arc::new(Gate::default());
        assert_eq!(body(&gate).collect().await.unwrap().to_bytes(), "x");
        assert!(gate.taken() && !gate.call_off());
        let gate = Arc::new(Gate::default());
        assert!(gate.call_off() && gate.call_off());
        assert!(body(&gate).collect().await.is_err());
        assert!(!gate.taken());
    }

    #[test]
    fn statuses_that_may_pass_are_retried_and_all_others_are_not() {
        for status in 100..=999 {
            let expected = match status {
                429 => Verdict::Retry(Reason::RateLimited),
                408 => Verdict::Retry(Reason::Timeout),
                425 => Verdict::Retry(Reason::Server),
                _ if status / 100 == 5 => Verdict::Retry(Reason::Server),
                _ => Verdict::Permanent(Reason::Rejected),
            };
            assert_eq!(Verdict::of_status(status), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_a_fraction_or_a_date() {
        let seconds = |text: &str| parse_retry_after(text, NOW).map(|after| after.as_secs_f64());
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds(" 7 "), Some(7.0));
        assert_eq!(seconds("0.25"), Some(0.25));
        assert_eq!(seconds("1."), Some(1.0));
        assert_eq!(seconds(".5"), Some(0.5));
        assert_eq!(seconds("86400"), Some(3600.0));
        assert_eq!(seconds(&"9".repeat(400)), Some(3600.0));
        assert_eq!(seconds("Tue, 24 Nov 2026 02:04:21 GMT"), Some(30.0));
        assert_eq!(seconds("Tuesday, 24-Nov-26 02:04:21 GMT"), Some(30.0));
        assert_eq!(seconds("Tue Nov 24 02:04:21 2026"), Some(30.0));
        assert_eq!(seconds("Tue, 24 Nov 2026 02:00:00 GMT"), Some(0.0));
        assert_eq!(seconds("Wed, 25 Nov 2026 02:00:00 GMT"), Some(3600.0));
        for rubbish in
            ["", " ", ".", "-1", "+1", "1e3", "inf", "NaN", "1.2.3", "soon", "5s", "1,5", "2026-11-24", "٣"]
        {
            assert_eq!(seconds(rubbish), None, "{rubbish:?}");
        }
    }

    #[test]
    fn a_retry_after_date_is_measured_by_the_clock_of_who_sent_it() {
        let clock = Clock::manual(NOW);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Tue, 24 Nov 2026 02:04:21 GMT"));
        assert_eq!(retry_after(&headers, &clock), Some(Duration::from_secs(30)));
        headers.insert(DATE, HeaderValue::from_static("Tue, 24 Nov 2026 02:04:11 GMT"));
        assert_eq!(retry_after(&headers, &clock), Some(Duration::from_secs(10)));
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(retry_after(&headers, &clock), None);
    }

    proptest! {
        #[test]
        fn any_retry_after_is_bounded_and_never_panics(value in "\\PC*", now in any::<i64>()) {
            let after = parse_retry_after(&value, Timestamp::from_millis(now));
            prop_assert!(after.is_none_or(|after| after <= MAX_RETRY_AFTER));
        }

        #[test]
        fn whole_seconds_are_taken_as_they_are_up_to_the_cap(seconds in any::<u64>()) {
            let after = parse_retry_after(&seconds.to_string(), NOW).unwrap();
            prop_assert_eq!(after, Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        }

        #[test]
        fn a_date_is_the_time_until_it(ahead in 0_u64..3600) {
            let at = UNIX_EPOCH + Duration::from_millis(NOW.as_millis().unsigned_abs()) + Duration::from_secs(ahead);
            let after = parse_retry_after(&httpdate::fmt_http_date(at), NOW).unwrap();
            prop_assert_eq!(after, Duration::from_secs(ahead));
        }
    }
}
