//! `smsctl send` against a real ingress, and against what is none.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sms_broadcaster::clock::Timestamp;
use sms_broadcaster::config::Config;
use sms_broadcaster::message::InboundMessage;
use sms_broadcaster::metrics::{IngressMetrics, Metrics};
use sms_broadcaster::queue::contract::{Lane, Owner};
use sms_broadcaster::source::twilio::SOURCE;
use sms_broadcaster::telemetry::Tracer;
use sms_broadcaster::{ingress, server};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bench::{Bench, OUR_NUMBER, Ran, bare_command, claim, run};
use super::{assert_fields, stats};
use crate::support::provider::{Provider, Reply};

const SID: &str = "SM0123456789abcdef0123456789abcdef";

/// An ingress on the bench's store, at the address its configuration names. It ends with the guard.
async fn start_ingress(bench: &Bench) -> DropGuard {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listen_at(bench, &listener.local_addr().unwrap().to_string());
    let env = |name: &str| (name != "NO").then(|| "f00df00df00df00df00df00df00df00d".to_owned());
    let config = Config::load(&bench.config(), &env).unwrap();
    let metrics = Metrics::new(Timestamp::from_millis(0));
    let metrics = Arc::new(IngressMetrics::register(&metrics, &[SOURCE]));
    let router =
        ingress::router(config.ingress, config.twilio, bench.queue.clone().unwrap(), metrics, Tracer::off());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(listener, router, stop.clone(), Duration::ZERO));
    stop.drop_guard()
}

fn listen_at(bench: &Bench, address: &str) {
    let text = std::fs::read_to_string(bench.config()).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix("listen = ") {
        Some(_) => format!("listen = \"{address}\""),
        None => line.to_owned(),
    });
    std::fs::write(bench.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
}

fn send(bench: &Bench, more: &[&str]) -> Ran {
    bench.smsctl(&[&["send", "--from", "72404", "--body", "hello & + ü\n%41"], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_signed_as_the_ingress_checks_it_and_stored() {
    let bench = Bench::beside_service().await;
    let _ingress = start_ingress(&bench).await;
    let id = send(&bench, &["--json"]).fine().json();
    assert_fields(&id, &["message_id"]);
    let id = id["message_id"].as_str().unwrap().to_owned();
    let named = send(&bench, &["--sid", SID]).fine();
    assert_eq!(named.out, format!("{SID}\n"));
    assert_eq!(stats(&bench)["accepted"], 5);
    assert_eq!(bench.smsctl(&["status", &id, "--json"]).fine().json()["state"], "accepted");

    send(&bench, &["--sid", SID]).fine();
    assert_eq!((&stats(&bench)["accepted"], &stats(&bench)["duplicates"]), (&json!(5), &json!(2)));

    let queue = &**bench.queue.as_ref().unwrap();
    let work = claim(queue, &Owner::new("worker"), &Lane::inbound()).await;
    let stored = work.iter().find(|work| work.lease.key().work.message.as_str() == id).unwrap();
    let message = InboundMessage::from_payload(&stored.lease.key().work.message, &stored.payload).unwrap();
    assert_eq!((message.from.as_str(), message.to.as_str()), ("72404", OUR_NUMBER));
    assert_eq!(message.body.expose(), "hello & + ü\n%41");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_goes_where_the_flag_says() {
    let bench = Bench::beside_service().await;
    let _ingress = start_ingress(&bench).await;
    let config = std::fs::read_to_string(bench.config()).unwrap();
    let address = config.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap().trim_matches('"');
    // From now on the ingress is not where the configuration says.
    listen_at(&bench, "127.0.0.1:0");
    send(&bench, &[]).failed(2, "--url");
    let at = |path: &str| send(&bench, &["--url", &format!("http://{address}{path}")]);
    for path in ["", "/", "/twilio/sms", "/twilio/sms?a=it's&b=%20c"] {
        at(path).fine();
    }
    let ran = at("/elsewhere").failed(1, "answered 404");
    assert_eq!(ran.out, "");
    assert_eq!(stats(&bench)["accepted"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_our_own_number_is_warned_of() {
    let bench = Bench::beside_service().await;
    let _ingress = start_ingress(&bench).await;
    let mut command = bare_command(bench.folder.path());
    command.env("TWILIO_AUTH_TOKEN", "another");
    command.arg("--config").arg(bench.config()).args(["send", "--from", "72404", "--body", "x"]);
    run(command).failed(1, "answered 403");
    let looped = bench.smsctl(&["send", "--from", OUR_NUMBER, "--body", "x"]);
    assert_eq!(looped.code, 0);
    assert!(looped.err.starts_with("warning: ") && looped.err.contains("loop_guard"), "{}", looped.err);
    assert_eq!(stats(&bench)["accepted"], 3);
}

#[test]
fn an_answer_that_is_not_200_and_a_missing_one_are_told_apart() {
    let bench = Bench::without_store();
    listen_at(&bench, &deserted_address());
    send(&bench, &[]).failed(1, "cannot be reached");

    let provider = Provider::start();
    let secret = format!("{}/webhooksecret?token=493817", provider.api_base());
    let to = |number: &str| send(&bench, &["--to", number, "--url", &secret]);
    provider.always("+15005550001", Reply::status(503).body("no"));
    provider.always("+15005550002", Reply::status(302).header("Location", "http://127.0.0.1:1/"));
    provider.always("+15005550003", Reply::close());
    provider.always("+15005550004", Reply::status(204));
    to("+15005550001").failed(1, "answered 503: it is over its rate");
    to("+15005550002").failed(1, "answered 302: it leads elsewhere");
    to("+15005550003").failed(1, "gave no answer");
    to("+15005550004").failed(1, "answered 204");

    let request = provider.received("+15005550001").pop().unwrap();
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("x-twilio-signature").map(str::len), Some(28));
    let field = |name: &str| request.field(name).unwrap();
    assert_eq!((field("MessageSid"), field("SmsSid")), (field("SmsMessageSid"), field("MessageSid")));
    assert!(field("MessageSid").starts_with("SM") && field("AccountSid").starts_with("AC"));
    assert_eq!((field("From").as_str(), field("Body").as_str()), ("72404", "hello & + ü\n%41"));
    assert_eq!((field("NumMedia").as_str(), field("NumSegments").as_str()), ("0", "1"));
    assert_eq!((field("ApiVersion").as_str(), field("SmsStatus").as_str()), ("2010-04-01", "received"));
}

/// An address at which nobody listens any more.
fn deserted_address() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}
