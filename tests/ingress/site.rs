//! An ingress on a real socket, and what Twilio would send it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::ingress::{IngressSettings, LoopGuard, Patience, router};
use sms_broadcaster::message::{AccountSid, Address};
use sms_broadcaster::metrics::{IngressMetrics, Metrics};
use sms_broadcaster::server::serve;
use sms_broadcaster::source::twilio::{PublicUrl, SOURCE, TwilioSettings, sign};
use sms_broadcaster::telemetry::Tracer;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::store::MoodyStore;
use crate::support::wire::{Answer, ask};

pub(crate) const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const OUR_NUMBER: &str = "+15005550006";
pub(crate) const SENDER: &str = "+12225550123";
pub(crate) const TEXT: &str = "Your code is 493817";
const TOKEN: &str = "fedcba9876543210fedcba9876543210";
const URL: &str = "https://mfa.example.com";

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<MoodyStore>,
    metrics: Arc<Metrics>,
    _stop: DropGuard,
}

impl Site {
    /// One with the usual settings, but for the rate, which is off.
    pub(crate) async fn start() -> Self {
        Self::start_with(1_000_000, |_| ()).await
    }

    pub(crate) async fn start_with(capacity: u64, change: impl FnOnce(&mut IngressSettings)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = IngressSettings {
            listen: address,
            max_body: 4096,
            rate_per_ip: None,
            trusted_proxies: Vec::new(),
            loop_guard: LoopGuard::against([Address::parse(OUR_NUMBER).unwrap()]),
            deadline: Duration::from_secs(600),
            patience: Patience::default(),
        };
        change(&mut settings);
        let metrics = Arc::new(Metrics::new(Clock::system().now()));
        let counted = Arc::new(IngressMetrics::register(&metrics, &[SOURCE]));
        let store = Arc::new(MoodyStore::new(capacity));
        let routes = router(settings, twilio_settings(), store.clone(), counted, Tracer::off());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, routes, stop.clone(), Duration::ZERO));
        Self { address, store, metrics, _stop: stop.drop_guard() }
    }

    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        ask(self.address, request).await
    }

    /// Requests counted with this result.
    pub(crate) fn counted(&self, result: &str) -> u64 {
        let start = format!("sms_broadcaster_webhooks_total{{result=\"{result}\",source=\"twilio\"}} ");
        let page = self.metrics.render();
        page.lines().find_map(|line| line.strip_prefix(&start)).expect("a known result").parse().unwrap()
    }
}

pub(crate) fn twilio_settings() -> TwilioSettings {
    TwilioSettings {
        public_url: PublicUrl::parse(URL).unwrap(),
        account_sid: AccountSid::parse(ACCOUNT).unwrap(),
        auth_tokens: vec![SecretString::from(TOKEN)],
    }
}

/// A MessageSid for each number.
pub(crate) fn sid(number: u32) -> String {
    format!("SM{number:032x}")
}

/// A message as a form: the usual fields, with one of them changed, or left out.
pub(crate) fn form(sid: &str, change: (&str, Option<&str>)) -> Vec<(String, String)> {
    let usual = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", sid),
        ("From", SENDER),
        ("To", OUR_NUMBER),
        ("Body", TEXT),
        ("FromCity", ""),
    ];
    let kept = usual.into_iter().filter(|(name, _)| *name != change.0);
    let changed = change.1.map(|value| (change.0, value));
    kept.chain(changed).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

pub(crate) fn usual(number: u32) -> Vec<(String, String)> {
    form(&sid(number), ("", None))
}

pub(crate) fn encoded(form: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

pub(crate) fn signature(target: &str, form: &[(String, String)]) -> String {
    sign(&SecretString::from(TOKEN), &format!("{URL}{target}"), form)
}

/// A signed POST of `form`, with more header lines if there are any (each with its line end).
pub(crate) fn post_with(target: &str, form: &[(String, String)], headers: &str) -> String {
    let body = encoded(form);
    format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         X-Twilio-Signature: {}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        signature(target, form),
        body.len()
    )
}

pub(crate) fn post(target: &str, form: &[(String, String)]) -> String {
    post_with(target, form, "")
}

/// A signed GET of `form`.
pub(crate) fn get(path: &str, form: &[(String, String)], headers: &str, body: &str) -> String {
    let target = format!("{path}?{}", encoded(form));
    let signature = signature(&target, &[]);
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Twilio-Signature: {signature}\r\n{headers}\r\n{body}"
    )
}
