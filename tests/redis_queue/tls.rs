//! Connections by TLS, to a real server with certificates of the test's own.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Acceptance, Lane, Mark, Queue, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings, TlsFiles};
use tempfile::TempDir;
use tokio::time::timeout;

use super::bench::{GUARD, id, message};
use crate::support::certificates::{Authority, Pair};
use crate::support::ports::free_port;
use crate::support::provider::Provider;
use crate::support::redis_server::RedisServer;

/// A server that also listens by TLS.
struct TlsServer {
    server: RedisServer,
    port: u16,
    folder: TempDir,
    authority: Authority,
    ca: std::path::PathBuf,
}

/// The options of a server that shows this certificate and, if it `asks`, wants one to be shown.
fn options(port: u16, ca: &Path, own: &Pair, asks: bool) -> Vec<String> {
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let asks = if asks { "yes" } else { "no" };
    [
        ["--tls-port".to_owned(), port.to_string()],
        ["--tls-ca-cert-file".to_owned(), path(ca)],
        ["--tls-cert-file".to_owned(), path(&own.certificate)],
        ["--tls-key-file".to_owned(), path(&own.key)],
        ["--tls-auth-clients".to_owned(), asks.to_owned()],
    ]
    .concat()
}

impl TlsServer {
    /// One whose certificate is for `name`.
    fn start(name: &str, asks: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new();
        let ca = authority.write(folder.path().join("ca.crt"));
        let own = authority.issue(folder.path(), "server", name);
        let port = free_port();
        let options = options(port, &ca, &own, asks);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Self { server: RedisServer::start_with(&options), port, folder, authority, ca }
    }

    fn queue(&self, tls: TlsFiles) -> RedisQueue {
        let url = SecretString::from(format!("rediss://127.0.0.1:{}", self.port));
        let at = RedisSettings { tls, ..RedisSettings::at(url) };
        RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
    }

    fn vouched_for(&self) -> TlsFiles {
        TlsFiles { ca: Some(self.ca.clone()), own: None }
    }
}

async fn refusal(queue: &RedisQueue) -> String {
    match timeout(GUARD, queue.ping()).await.unwrap() {
        Err(QueueError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_vouched_for_is_worked_with() {
    let tls = TlsServer::start("127.0.0.1", false);
    let queue = tls.queue(tls.vouched_for());
    queue.prepare().await.unwrap();
    assert_eq!(queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
    // The doorbell too comes by TLS.
    let (lane, mark) = (Lane::inbound(), Mark::default());
    let rung = queue.wait(&lane, &mark, Duration::from_secs(20));
    timeout(GUARD, rung).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_or_that_is_another_is_sent_nothing() {
    let tls = TlsServer::start("127.0.0.1", false);
    assert!(refusal(&tls.queue(TlsFiles::default())).await.contains("nobody we trust vouches for it"));
    let stranger = Authority::new().write(tls.folder.path().join("stranger.crt"));
    let queue = tls.queue(TlsFiles { ca: Some(stranger), own: None });
    assert!(refusal(&queue).await.contains("nobody we trust vouches for it"));

    let other = TlsServer::start("redis.example", false);
    assert!(refusal(&other.queue(other.vouched_for())).await.contains("it is another host's"));

    for server in [&tls, &other] {
        assert!(server.server.command("DBSIZE").starts_with(":0"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told_apart_from_one_that_is_away() {
    // Whoever speaks another language answers our greeting with an error in it.
    let another = Provider::start();
    let authority = another.api_base().replace("http", "rediss");
    let url = SecretString::from(authority);
    let queue = RedisQueue::new(RedisSettings::at(url), QueueSettings::default(), Clock::system()).unwrap();
    assert_eq!(refusal(&queue).await, "the server does not speak TLS as we do");
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let tls = TlsServer::start("127.0.0.1", true);
    refusal(&tls.queue(tls.vouched_for())).await;
    let own = tls.authority.issue(tls.folder.path(), "client", "sms-broadcaster");
    let files = TlsFiles { own: Some((own.certificate, own.key)), ..tls.vouched_for() };
    assert_eq!(files.check(), Ok(()));
    tls.queue(files).prepare().await.unwrap();
}

#[tokio::test]
async fn renewed_certificates_are_used_from_the_next_connection_on() {
    let mut tls = TlsServer::start("127.0.0.1", false);
    let queue = tls.queue(tls.vouched_for());
    queue.prepare().await.unwrap();
    // Authority and server are new; what the queue reads has the same name.
    let authority = Authority::new();
    let own = authority.issue(tls.folder.path(), "renewed", "127.0.0.1");
    authority.write(tls.ca.clone());
    let options = options(tls.port, &tls.ca, &own, false);
    tls.server.restart_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let back = timeout(GUARD, async {
        while queue.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    back.await.expect("it is trusted");
}

#[test]
fn files_that_hold_no_certificate_are_seen_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let missing = TlsFiles { ca: Some(folder.path().join("missing.crt")), own: None };
    assert!(missing.check().unwrap_err().contains("missing.crt cannot be read"));
    let empty = folder.path().join("empty.crt");
    std::fs::write(&empty, "").unwrap();
    assert!(TlsFiles { ca: Some(empty), own: None }.check().unwrap_err().contains("not in PEM form"));
    let (one, other) = (Authority::new(), Authority::new());
    let pair = one.issue(folder.path(), "one", "one");
    let ca = other.write(folder.path().join("ca.crt"));
    let good = TlsFiles { ca: Some(ca), own: Some((pair.certificate.clone(), pair.key)) };
    assert_eq!(good.check(), Ok(()));
    let no_key = TlsFiles { own: Some((pair.certificate.clone(), pair.certificate)), ..good };
    assert!(no_key.check().is_err());
}
