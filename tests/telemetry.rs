//! Traces: one for each message, across programs and retries, for a collector that may be in any state.

use std::time::Duration;

use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::NewMessage;

use crate::support::collector::{Collector, Sent};
use crate::support::installation::{Installation, PHONES, SLACK, sid};
use crate::support::ledger::{Allowed, Ledger, SENDER};
use crate::support::provider::{AUTH_TOKEN, Provider, Reply};
use crate::support::redis_server::RedisServer;

const TEXT: &str = "Your code is 493817";

const FAST: &str = "[retry]\nbase = \"50ms\"\n\n\
    [channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// How many of the spans are named so.
fn count(spans: &[Sent], name: &str) -> usize {
    spans.iter().filter(|span| span.text("name") == name).count()
}

fn only<'s>(spans: &'s [Sent], name: &str) -> &'s Sent {
    let mut named = spans.iter().filter(|span| span.text("name") == name);
    let one = named.next().unwrap_or_else(|| panic!("no span is named {name}: {spans:#?}"));
    assert!(named.next().is_none(), "more than one span is named {name}");
    one
}

#[tokio::test]
async fn one_trace_leads_from_the_webhook_to_every_attempt_across_both_programs() {
    let (provider, collector, redis) = (Provider::start(), Collector::start(), RedisServer::start());
    provider.script(PHONES[0], [Reply::status(503)]);
    provider.always(PHONES[1], Reply::twilio_error(400, 21211));
    let more = format!("{FAST}[log]\nformat = \"json\"\n\n{}", collector.settings());
    let installation = Installation::redis(&provider, &redis.url(), &more);
    let mut ingress = installation.start("sms-ingress").await;
    let mut worker = installation.start("sms-worker").await;
    let posted =
        installation.poster().post_with(ingress.ingress, &sid(1), SENDER, TEXT, &[TRACEPARENT]).await;
    assert_eq!(posted, Some(200));
    installation.wait_until_done(&sid(1)).await;
    // What waits to be sent is sent before the end.
    assert_eq!((ingress.stop(), worker.stop()), (Some(0), Some(0)));

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.text("traceId") == TRACE), "{spans:#?}");
    assert_eq!(spans.len(), 7, "{spans:#?}");
    let request = only(&spans, "POST /twilio/sms");
    assert_eq!((request.kind(), request.service.as_str()), (2, "sms-ingress"));
    assert_eq!(request.text("parentSpanId"), "b7ad6b7169203331");
    assert_eq!(request.attribute("http.request.method"), Some("POST"));
    assert_eq!(request.attribute("http.route"), Some("/twilio/sms"));
    assert_eq!(request.attribute("http.response.status_code"), Some("200"));
    let publish = only(&spans, "send in");
    assert_eq!((publish.kind(), publish.service.as_str()), (4, "sms-ingress"));
    assert_eq!(publish.text("parentSpanId"), request.text("spanId"));
    assert_eq!(publish.attribute("sms_broadcaster.result"), Some("accepted"));

    // Everything a worker does follows from the hand-over, a retry no less than a first attempt.
    let work: Vec<&Sent> = spans.iter().filter(|span| span.kind() == 5).collect();
    for span in &work {
        assert_eq!(span.service, "sms-worker");
        assert_eq!(span.text("parentSpanId"), publish.text("spanId"));
        assert_eq!(span.links(), [publish.text("spanId")]);
    }
    for span in work.iter().chain([&publish]) {
        assert_eq!(span.attribute("messaging.system"), Some("redis"));
        assert_eq!(span.attribute("messaging.message.id"), Some(sid(1).as_str()));
    }
    let routing = only(&spans, "route in");
    assert_eq!(routing.attribute("sms_broadcaster.match"), Some("subscriber"));
    assert_eq!(routing.attribute("sms_broadcaster.deliveries"), Some("3"));
    assert_eq!((count(&spans, "deliver sms"), count(&spans, "deliver slack")), (3, 1));
    let attempts = |delivery: &str| -> Vec<(Option<&str>, Option<&str>, bool)> {
        let mut found: Vec<_> = work
            .iter()
            .filter(|span| span.attribute("sms_broadcaster.delivery") == Some(delivery))
            .map(|span| {
                (span.attribute("sms_broadcaster.attempt"), span.attribute("error.type"), span.failed())
            })
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(attempts("1"), [(Some("1"), Some("server"), true), (Some("2"), None, false)]);
    assert_eq!(attempts("2"), [(Some("1"), Some("recipient"), true)]);
    assert_eq!(attempts("3"), [(Some("1"), None, false)]);

    // The log leads to the trace, and the trace to the log.
    for (program, line, lines) in [(&ingress, "webhook", 1), (&worker, "routed", 1), (&worker, "attempt", 4)]
    {
        let log: Vec<serde_json::Value> =
            program.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let written: Vec<_> = log.iter().filter(|entry| entry["message"] == line).collect();
        assert_eq!(written.len(), lines, "{line}: {log:#?}");
        for entry in written {
            assert_eq!(
                (&entry["trace_id"], &entry["message_id"]),
                (&TRACE.into(), &sid(1).into()),
                "{entry}"
            );
        }
    }

    // What a collector gets says nothing of people; what providers get says nothing of traces.
    let slack_host = provider.api_base().replace("http://", "");
    for request in collector.requests() {
        assert_eq!(request.header("content-type"), Some("application/json"));
        let sent =
            format!("{} {:?} {}", request.target, request.headers, String::from_utf8_lossy(&request.body));
        let ours = PHONES.map(|phone| &phone[1..]);
        for secret in ["493817", TEXT, &SENDER[1..], "5005550006", AUTH_TOKEN, &slack_host, "Example", "/mfa"]
            .iter()
            .chain(&ours)
        {
            assert!(!sent.contains(secret), "{secret} was sent to the collector: {sent}");
        }
    }
    assert_eq!(provider.requests().len(), 4);
    assert!(provider.requests().iter().all(|request| request.header("traceparent").is_none()));
}

#[tokio::test]
async fn a_request_that_names_no_trace_begins_one_and_one_that_is_not_recorded_stays_so() {
    let (provider, collector) = (Provider::start(), Collector::start());
    let more = format!("{FAST}{}", collector.settings_for("user:pass%20word"));
    let installation = Installation::embedded(&provider, &more);
    let mut program = installation.start("sms-broadcaster").await;
    let unrecorded = TRACEPARENT.replace("-01", "-00");
    let cases: [&[&str]; 4] = [&[], &["00-no-trace-01"], &[TRACEPARENT, TRACEPARENT], &[&unrecorded]];
    for (number, traceparents) in (1..).zip(cases) {
        let poster = installation.poster();
        let posted = poster.post_with(program.ingress, &sid(number), SENDER, TEXT, traceparents).await;
        assert_eq!(posted, Some(200));
        installation.wait_until_done(&sid(number)).await;
    }
    // One that was stored before messages had traces is delivered like any other, and traced by nobody.
    let old = r#"{"v":1,"source":"twilio","from":"+12223334444","to":"+15005550006","body":"old"}"#;
    let old = NewMessage {
        id: MessageId::parse(&sid(5)).unwrap(),
        payload: old.as_bytes().to_vec(),
        deadline: Duration::from_secs(600),
        age: Duration::ZERO,
    };
    installation.store().queue.accept(&[old]).await.unwrap();
    let done = installation.wait_until_done(&sid(5)).await;
    assert!(done["deliveries"].as_array().unwrap().iter().all(|delivery| delivery["state"] == "delivered"));
    // A stranger's request is nothing to be traced.
    let stranger = reqwest::Client::new().post(format!("http://127.0.0.1:{}/", program.ingress));
    assert_eq!(stranger.header("traceparent", TRACEPARENT).send().await.unwrap().status(), 403);
    assert_eq!(program.stop(), Some(0));

    let spans = collector.spans();
    let mut begun: Vec<&Sent> = spans.iter().filter(|span| span.text("parentSpanId").is_empty()).collect();
    assert!(begun.iter().all(|span| span.text("name") == "POST /twilio/sms"), "{begun:#?}");
    begun.dedup_by_key(|span| span.text("traceId").to_owned());
    assert_eq!(begun.len(), 3, "{begun:#?}");
    for first in begun {
        assert_ne!(first.text("traceId"), TRACE);
        let of_trace = spans.iter().filter(|span| span.text("traceId") == first.text("traceId"));
        assert_eq!(of_trace.count(), 6);
    }
    assert_eq!(spans.len(), 18, "{spans:#?}");
    // The log says the trace all the same.
    assert!(program.log().iter().any(|line| line.contains("webhook") && line.contains(TRACE)));
    for request in collector.requests() {
        assert_eq!(request.target, "/v1/traces");
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNzIHdvcmQ="));
    }
}

#[tokio::test]
async fn nothing_is_recorded_where_the_ratio_is_0() {
    let (provider, collector) = (Provider::start(), Collector::start());
    let more = format!("{FAST}{}sample_ratio = 0.0\n", collector.settings());
    let installation = Installation::embedded(&provider, &more);
    let mut program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    installation.wait_until_done(&sid(1)).await;
    assert_eq!(program.stop(), Some(0));
    assert!(collector.requests().is_empty());
    let lines = program.log();
    let attempts: Vec<_> = lines.iter().filter(|line| line.contains("attempt")).collect();
    assert!(attempts.len() == 3 && attempts.iter().all(|line| line.contains("trace_id=")), "{attempts:?}");
}

#[tokio::test]
async fn spans_that_are_not_taken_are_sent_again_or_counted() {
    let (provider, collector) = (Provider::start(), Collector::start());
    let installation = Installation::embedded(&provider, &format!("{FAST}{}", collector.settings()));
    let program = installation.start("sms-broadcaster").await;
    let spans = |result: &str| format!("sms_broadcaster_telemetry_spans_total{{result=\"{result}\"}}");

    // What is refused is refused for good.
    collector.always(Reply::status(400));
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, &format!("{} 6", spans("failed"))).await;
    assert!(program.log().iter().any(|line| line.contains("not taken") && line.contains("status 400")));

    // What is put off is sent again, the very same.
    let before = collector.requests().len();
    collector.always(Reply::status(200).body("{}"));
    collector.script([Reply::status(503).header("Retry-After", "0")]);
    assert_eq!(installation.post(program.ingress, &sid(2), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, &format!("{} 6", spans("exported"))).await;
    let requests = &collector.requests()[before..];
    assert_eq!((requests[0].status, requests[1].status), (Some(503), Some(200)));
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(collector.spans().len(), 6);

    // What a good answer leaves out is counted as well.
    collector.always(Reply::status(200).body(r#"{"partialSuccess":{"rejectedSpans":"1000"}}"#));
    assert_eq!(installation.post(program.ingress, &sid(3), SENDER, TEXT).await, Some(200));
    installation.wait_for_metric(&program, &format!("{} 12", spans("failed"))).await;
    installation.wait_for_metric(&program, &format!("{} 6", spans("exported"))).await;
    installation.wait_for_metric(&program, &format!("{} 0", spans("dropped"))).await;
}

#[tokio::test]
async fn a_collector_that_hangs_stops_no_delivery_and_no_drain() {
    let (provider, collector) = (Provider::start(), Collector::start());
    collector.always(Reply::hang());
    let installation = Installation::embedded(&provider, &format!("{FAST}{}", collector.settings()));
    let mut program = installation.start("sms-broadcaster").await;
    let ledger = Ledger::new();
    // More spans than may wait.
    ledger.post_all(installation.poster(), &[program.ingress], 0..900, 16).await;
    ledger.check(&installation, &provider, Allowed::default()).await;
    collector.wait_until("it was asked", |requests| !requests.is_empty()).await;
    let (_, metrics) = installation.ops(&program, "metrics").await.unwrap();
    let dropped = "sms_broadcaster_telemetry_spans_total{result=\"dropped\"} ";
    let dropped = metrics.lines().find_map(|line| line.strip_prefix(dropped)).expect("the series");
    assert_ne!(dropped, "0", "the buffer has no end");
    program.signal("TERM");
    assert_eq!(program.wait_for_end().await.code(), Some(0));
    // It did not wait for the request to end, nor for those that would follow.
    assert!(program.log().iter().any(|line| line.contains("the collector took too long")));
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_not_there_stops_no_delivery() {
    let provider = Provider::start();
    // Nobody listens on a port that was free.
    let nobody = crate::support::ports::free_port();
    let more = format!("{FAST}[telemetry]\notlp_endpoint = \"http://127.0.0.1:{nobody}\"\n");
    let installation = Installation::embedded(&provider, &more);
    let mut program = installation.start("sms-broadcaster").await;
    assert_eq!(installation.post(program.ingress, &sid(1), SENDER, TEXT).await, Some(200));
    installation.wait_until_done(&sid(1)).await;
    assert_eq!(provider.received(SLACK).len(), 1);
    assert_eq!(program.stop(), Some(0));
}
