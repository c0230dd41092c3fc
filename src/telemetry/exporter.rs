//! The task that sends spans to the collector.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::settings::TelemetrySettings;
use super::span::Span;
use super::tracer::{Recorder, Tracer};
use super::wire::{Resource, encode};
use crate::channel::http::{HttpClient, Post, headers};
use crate::clock::Clock;
use crate::metrics::TelemetryMetrics;
use crate::quiet::Quiet;

/// Spans that may wait; at most some 2 MB.
const WAITING: usize = 4096;

/// Spans of one request.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// The longest one request may take; OTLP's own default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses before a batch that was not taken is sent again; after the last one it is given up.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The longest pause a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long the last spans may take at the end of a process.
const FLUSH: Duration = Duration::from_secs(2);

/// Sends what its [`Tracer`] makes.
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    url: Url,
    headers: HeaderMap,
    resource: Resource,
    http: HttpClient,
    metrics: TelemetryMetrics,
    quiet: Quiet,
}

/// What became of one request.
enum Sent {
    /// Taken, but for so many spans.
    Taken { rejected: u64 },
    /// Not now; the collector may say how long to wait.
    NotNow { why: String, after: Option<Duration> },
    /// Never.
    Refused { why: String },
}

/// What makes spans, and what sends them. Without a collector nothing is made, and there is nothing to send.
///
/// `system` is what the queue is (`redis`, `sqlite`).
pub fn start(
    settings: TelemetrySettings,
    system: &'static str,
    resource: Resource,
    http: HttpClient,
    clock: Clock,
    metrics: TelemetryMetrics,
) -> (Tracer, Option<Exporter>) {
    let Some(collector) = settings.collector else { return (Tracer::off(), None) };
    let (sender, spans) = mpsc::channel(WAITING);
    let dropped = metrics.dropped.clone();
    let sample_ratio = settings.sample_ratio;
    let tracer = Tracer::new(Recorder { spans: sender, dropped, clock, sample_ratio, system });
    let mut url = collector.base.clone();
    url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
    let basic = collector.basic.as_ref().map(|(user, password)| (user.as_str(), password));
    let headers = headers("application/json", basic);
    let exporter = Exporter { spans, url, headers, resource, http, metrics, quiet: Quiet::default() };
    (tracer, Some(exporter))
}

impl Exporter {
    /// Sends until `stop`; then what waits, for at most two seconds.
    pub async fn run(mut self, stop: CancellationToken) {
        let flushed = async {
            stop.cancelled().await;
            sleep(FLUSH).await;
        };
        let sending = async {
            loop {
                let batch = self.gather(&stop).await;
                if batch.is_empty() {
                    return;
                }
                self.send(&batch, &stop).await;
            }
        };
        tokio::select! {
            () = sending => {}
            () = flushed => tracing::warn!("the collector took too long: the last spans are lost"),
        }
    }

    /// The next spans; none at the end.
    async fn gather(&mut self, stop: &CancellationToken) -> Vec<Span> {
        let mut batch = Vec::with_capacity(BATCH);
        if stop.run_until_cancelled(self.spans.recv_many(&mut batch, BATCH)).await.is_some() {
            let fill = async {
                while batch.len() < BATCH && !batch.is_empty() {
                    let room = BATCH - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        break;
                    }
                }
            };
            let _ = stop.run_until_cancelled(timeout(GATHER, fill)).await;
        }
        while batch.len() < BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    /// Sends one batch, more than once if need be, and counts what became of it.
    async fn send(&self, batch: &[Span], stop: &CancellationToken) {
        let spans = batch.len() as u64;
        let body = encode(&self.resource, batch);
        let mut pauses = PAUSES.into_iter();
        loop {
            let why = match self.post(body.clone()).await {
                Sent::Taken { rejected } => {
                    let rejected = rejected.min(spans);
                    self.metrics.exported.inc_by(spans - rejected);
                    self.metrics.failed.inc_by(rejected);
                    return;
                }
                Sent::NotNow { why, after } => match pauses.next() {
                    Some(pause) => {
                        let pause = after.unwrap_or(pause).min(LONGEST_PAUSE);
                        // At the end there is no time to be patient: once more, at once.
                        let _ = stop.run_until_cancelled(sleep(pause)).await;
                        continue;
                    }
                    None => why,
                },
                Sent::Refused { why } => why,
            };
            self.metrics.failed.inc_by(spans);
            if let Some(left_out) = self.quiet.admits("spans", Instant::now()) {
                tracing::warn!(why, spans, left_out, "spans were not taken by the collector");
            }
            return;
        }
    }

    async fn post(&self, body: Vec<u8>) -> Sent {
        let post =
            Post { url: &self.url, headers: &self.headers, body, timeout: TIMEOUT, write_within: TIMEOUT };
        match self.http.post(post).await {
            Ok(answer) => match answer.status {
                200..=299 => Sent::Taken { rejected: rejected(&answer.body) },
                // These may be sent again: <https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>.
                429 | 502 | 503 | 504 => {
                    Sent::NotNow { why: format!("status {}", answer.status), after: answer.retry_after }
                }
                status => Sent::Refused { why: format!("status {status}") },
            },
            Err(failure) => Sent::NotNow { why: format!("{failure:?}"), after: None },
        }
    }
}

/// How many spans an answer says were not taken although it is a good one.
fn rejected(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    // A 64-bit number: in JSON a string, though some collectors write a number.
    match &answer["partialSuccess"]["rejectedSpans"] {
        Value::String(count) => count.parse().unwrap_or(0),
        count => count.as_u64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::telemetry::Collector;

    #[tokio::test]
    async fn at_the_end_everything_that_waits_is_gathered() {
        let collector = Collector { base: Url::parse("http://127.0.0.1:1").unwrap(), basic: None };
        let settings = TelemetrySettings { collector: Some(collector), ..TelemetrySettings::default() };
        let (clock, resource) =
            (Clock::system(), Resource { service: "sms-worker", instance: String::new() });
        let metrics = TelemetryMetrics::register(&Metrics::new(clock.now()));
        let http = HttpClient::for_plain_http(clock.clone());
        let (tracer, exporter) = start(settings, "redis", resource, http, clock, metrics);
        let mut exporter = exporter.unwrap();
        for _ in 0..BATCH + 88 {
            tracer.request("GET", "/", Instant::now(), None);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        for expected in [BATCH, 88, 0] {
            assert_eq!(exporter.gather(&stop).await.len(), expected);
        }
    }

    #[test]
    fn an_answer_may_say_that_some_spans_were_not_taken() {
        assert_eq!(rejected(b"{}"), 0);
        assert_eq!(rejected(b""), 0);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":2}}"#), 2);
    }
}
