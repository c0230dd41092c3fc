//! The demonstration: everything at work on this machine, with stand-ins for Twilio's API and for a
//! Slack webhook. Needs no account, configuration or network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Router, body};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::boot::{self, Roles, Service};
use crate::channel::http::HttpClient;
use crate::clock::Clock;
use crate::config::{LogFormat, LogSettings};
use crate::seal::{self, KeyId, SealingKey};
use crate::server;
use crate::setup::Setup;
use crate::source::twilio;

const ACCOUNT: &str = "AC00000000000000000000000000000000";
/// Signs the demonstration's webhooks; known to everybody, worth nothing.
const TOKEN: &str = "demo-token-of-no-account";
const FROM: &str = "+12025550123";
const TO: &str = "+15005550006";
const TEXT: &str = "Example Bank: your login code is 493817. It expires in 10 minutes.";
const PHONES: [&str; 2] = ["+12025550147", "+12025550169"];
/// How long the example may take to arrive everywhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// One text that reached a stand-in.
struct Arrival {
    at: Instant,
    whom: String,
    text: String,
}

/// Runs the demonstration; with `once` it ends when the example arrived everywhere: 0, or 1 if it did
/// not within 10 s.
pub fn run(once: bool) -> ExitCode {
    boot::start_logging(LogSettings { format: LogFormat::Text, level: tracing::Level::WARN });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demonstrate(once)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("the example did not arrive everywhere within {} s", PATIENCE.as_secs());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A folder that is removed at the end, whatever the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn demonstrate(once: bool) -> anyhow::Result<bool> {
    let folder =
        Folder(std::env::temp_dir().join(format!("sms-broadcaster-demo-{:016x}", fastrand::u64(..))));
    std::fs::create_dir(&folder.0).context("cannot make a temporary folder")?;
    let shutdown = CancellationToken::new();
    boot::end_on_signals(shutdown.clone())?;

    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let providers = TcpListener::bind(("127.0.0.1", 0)).await?;
    let provider = providers.local_addr()?;
    // The stand-ins outlive the service, which may still be sending while it drains.
    let stand_ins = CancellationToken::new();
    let serving =
        tokio::spawn(server::serve(providers, stand_in(arrived), stand_ins.clone(), Duration::from_secs(1)));

    let (ingress, ops) = (free_address().await?, free_address().await?);
    let setup = write_configuration(&folder.0, provider, ingress, ops)?;
    let http = HttpClient::for_plain_http(Clock::system());
    let roles = Roles { ingress: true, worker: Some(setup.subscribers) };
    let service = Service::start(setup.config, roles, http, shutdown.clone()).await?;

    println!("SMS Broadcaster is running on this machine, with stand-ins for Twilio and Slack.\n");
    println!("An example message arrives at {TO}, signed as Twilio signs:\n    {TEXT}\n");
    let sent = Instant::now();
    let answered = post_webhook(ingress, &webhook_form()).await?;
    anyhow::ensure!(answered == 200, "the webhook was answered {answered}");
    println!("  {:>7.1} ms  the webhook is stored and answered", milliseconds(sent));

    let expected = PHONES.len() + 1;
    let mut reached = Vec::new();
    while reached.len() < expected {
        let left = PATIENCE.saturating_sub(sent.elapsed());
        let arrival = tokio::select! {
            arrival = tokio::time::timeout(left, arrivals.recv()) => arrival,
            () = shutdown.cancelled() => break,
        };
        let Ok(Some(arrival)) = arrival else { break };
        show(&arrival, sent);
        if arrival.text.contains("493817") && !reached.contains(&arrival.whom) {
            reached.push(arrival.whom);
        }
    }
    let everywhere = reached.len() == expected;

    if !once && everywhere && !shutdown.is_cancelled() {
        println!("\nTry more (Ctrl-C ends it):\n{}\n", curl_line(ingress));
        println!("Metrics: http://{ops}/metrics");
        loop {
            tokio::select! {
                Some(arrival) = arrivals.recv() => show(&arrival, arrival.at),
                () = shutdown.cancelled() => break,
            }
        }
    }
    shutdown.cancel();
    service.join().await?;
    stand_ins.cancel();
    let _ = serving.await;
    Ok(everywhere)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn show(arrival: &Arrival, sent: Instant) {
    let after = arrival.at.duration_since(sent).as_secs_f64() * 1000.0;
    println!("  {after:>7.1} ms  {}", arrival.whom);
    for line in arrival.text.lines() {
        println!("                | {line}");
    }
}

/// Twilio's Messages API and one Slack webhook, as far as the demonstration needs them.
fn stand_in(arrived: mpsc::UnboundedSender<Arrival>) -> Router {
    Router::new()
        .route(&format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json"), post(take_sms))
        .route("/slack", post(take_slack))
        .with_state(arrived)
}

async fn take_sms(
    State(arrived): State<mpsc::UnboundedSender<Arrival>>,
    form: body::Bytes,
) -> (StatusCode, &'static str) {
    let field = |name: &str| {
        let mut fields = form_urlencoded::parse(&form);
        fields.find(|(have, _)| have == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let (whom, text) = (format!("phone {}", field("To")), field("Body"));
    let _ = arrived.send(Arrival { at: Instant::now(), whom, text });
    (StatusCode::CREATED, r#"{"status":"queued"}"#)
}

async fn take_slack(
    State(arrived): State<mpsc::UnboundedSender<Arrival>>,
    json: body::Bytes,
) -> &'static str {
    let posted: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
    let word = |name: &str| posted[name].as_str().unwrap_or_default().to_owned();
    let (whom, text) = (format!("Slack {}", word("channel")), word("text"));
    let _ = arrived.send(Arrival { at: Instant::now(), whom, text });
    "ok"
}

/// An address on loopback that nobody listens on now.
async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?)
}

fn write_configuration(
    folder: &Path,
    provider: SocketAddr,
    ingress: SocketAddr,
    ops: SocketAddr,
) -> anyhow::Result<Setup> {
    let config = format!(
        "[ingress]\nlisten = \"{ingress}\"\npublic_url = \"http://{ingress}\"\n\n[ops]\nlisten = \"{ops}\"\n\n\
         [twilio]\naccount_sid = \"{ACCOUNT}\"\nauth_tokens = [\"{TOKEN}\"]\nfrom = \"{TO}\"\n\
         api_base = \"http://{provider}\"\n\n[queue]\npath = \"queue.db\"\nencryption_keys = \"${{file:queue.key}}\"\n"
    );
    let [first, second] = PHONES;
    let target = format!(
        "sms = [\"{first}\", \"{second}\"]\nslack = {{ url = \"http://{provider}/slack\", channel = \"#mfa\" }}\n"
    );
    let subscribers = format!(
        "[[subscriber]]\nname = \"Example Bank\"\nfrom = [\"{FROM}\"]\n{target}\n[fallback]\nname = \"Unknown\"\n{target}"
    );
    let path = folder.join("sms-broadcaster.toml");
    std::fs::write(&path, config)?;
    let key = SealingKey::written(&KeyId::parse("demo").expect("a name"), &seal::random());
    std::fs::write(folder.join("queue.key"), key.expose_secret())?;
    std::fs::write(folder.join("subscribers.toml"), subscribers)?;
    Setup::load(&path, &|_| None).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })
}

/// The fields Twilio posts for an inbound text.
fn webhook_form() -> Vec<(String, String)> {
    let sid = format!("SM{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let fields = [
        ("MessageSid", sid.as_str()),
        ("SmsSid", sid.as_str()),
        ("SmsMessageSid", sid.as_str()),
        ("AccountSid", ACCOUNT),
        ("From", FROM),
        ("To", TO),
        ("Body", TEXT),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
        ("SmsStatus", "received"),
        ("ApiVersion", "2010-04-01"),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn signature(ingress: SocketAddr, form: &[(String, String)]) -> String {
    twilio::sign(&SecretString::from(TOKEN), &format!("http://{ingress}/twilio/sms"), form)
}

async fn post_webhook(ingress: SocketAddr, form: &[(String, String)]) -> anyhow::Result<u16> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client
        .post(format!("http://{ingress}/twilio/sms"))
        .header("X-Twilio-Signature", signature(ingress, form))
        .form(form)
        .timeout(PATIENCE);
    Ok(request.send().await?.status().as_u16())
}

/// A `curl` command that posts one more signed message.
fn curl_line(ingress: SocketAddr) -> String {
    let form = webhook_form();
    let fields: Vec<String> =
        form.iter().map(|(name, value)| format!("  --data-urlencode '{name}={value}'")).collect();
    format!(
        "curl http://{ingress}/twilio/sms -H 'X-Twilio-Signature: {}' \\\n{}",
        signature(ingress, &form),
        fields.join(" \\\n")
    )
}
