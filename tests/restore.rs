//! A lost disk, and the copy of it that docs/operations.md tells to make: the store goes on from where the copy was
//! made. What waited is delivered, dead letters are there, nothing that had arrived by then arrives again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::installation::{Installation, LOOK, PHONES, Program, SLACK, sid};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

const FAST: &str = "[retry]\nbase = \"100ms\"\ncap = \"200ms\"\nmax_attempts = 1000\n\n\
    [channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";
const SENDER: &str = "+12223334444";
const PATIENCE: Duration = Duration::from_secs(60);

fn text(number: u32) -> String {
    format!("your code is {}", 100_000 + number)
}

/// How often a recipient took text `number`.
fn taken(provider: &Provider, recipient: &str, number: u32) -> usize {
    let (received, text) = (provider.received(recipient), text(number));
    received.iter().filter(|request| request.accepted() && request.text().contains(&text)).count()
}

/// A store in which one text has arrived in Slack, waits for a phone and is a dead letter of the other.
async fn begin(installation: &Installation, provider: &Provider, ingress: u16) {
    provider.always(PHONES[0], Reply::status(503));
    provider.always(PHONES[1], Reply::twilio_error(400, 21211));
    assert_eq!(installation.post(ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    let end = Instant::now() + PATIENCE;
    loop {
        let stats = installation.smsctl_json(&["stats", "--json"]);
        let deliveries = &stats["deliveries"];
        if deliveries["delivered"] == 1 && deliveries["dead"] == 1 && deliveries["pending"] == 1 {
            return;
        }
        assert!(Instant::now() < end, "{stats}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A text that comes in between the copy and the loss.
async fn go_on(installation: &Installation, provider: &Provider, ingress: u16) {
    assert_eq!(installation.post(ingress, &sid(2), SENDER, &text(2)).await, Some(200));
    provider
        .wait_until("the second text is in Slack", |requests| {
            requests.iter().any(|request| request.destination == SLACK && request.text().contains(&text(2)))
        })
        .await;
}

/// Everything works on the store that was put back.
async fn check(installation: &Installation, provider: &Provider, ingress: u16, worker: &Program) {
    for phone in PHONES {
        provider.always(phone, Reply::ok());
    }
    let done = installation.wait_until_done(&sid(1)).await;
    let states: Vec<&str> =
        done["deliveries"].as_array().unwrap().iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["delivered", "dead", "delivered"], "{done}");
    assert_eq!((taken(provider, PHONES[0], 1), taken(provider, SLACK, 1)), (1, 1));

    // The letter is there, and can be sent.
    let letters = installation.smsctl_json(&["dead", "list", "--json"]);
    assert_eq!(letters.as_array().map(Vec::len), Some(1), "{letters}");
    let requeued = installation.smsctl_json(&["requeue", "--all", "--yes", "--json"]);
    assert_eq!(requeued["requeued"], 1);
    installation.wait_until_done(&sid(1)).await;
    assert_eq!(taken(provider, PHONES[1], 1), 1);

    // Of what came in after the copy the store knows nothing: a repeat of it is taken as new.
    assert_eq!(installation.smsctl(&["status", &sid(2)]).status.code(), Some(1));
    assert_eq!(installation.post(ingress, &sid(2), SENDER, &text(2)).await, Some(200));
    installation.wait_until_done(&sid(2)).await;
    assert_eq!(taken(provider, SLACK, 2), 2);
    // A repeat of what it knows is not.
    assert_eq!(installation.post(ingress, &sid(1), SENDER, &text(1)).await, Some(200));
    installation.wait_for_metric(worker, "sms_broadcaster_conservation_error 0").await;
    assert_eq!(taken(provider, SLACK, 1), 1);
}

#[tokio::test]
async fn an_embedded_store_goes_on_from_a_copy_that_was_made_while_it_worked() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, FAST);
    let mut program = installation.start("sms-broadcaster").await;
    begin(&installation, &provider, program.ingress).await;
    let (file, copy) = (installation.folder().join("queue.db"), installation.folder().join("copy.db"));
    let backing_up = Connection::open(&file).unwrap();
    backing_up.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(backing_up);
    go_on(&installation, &provider, program.ingress).await;

    program.kill();
    for lost in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        let _ = fs::remove_file(installation.folder().join(lost));
    }
    fs::rename(&copy, &file).unwrap();
    let program = installation.start("sms-broadcaster").await;
    check(&installation, &provider, program.ingress, &program).await;
}

/// Waits until `INFO persistence` has such a line.
async fn wait_for_persistence(redis: &RedisServer, line: &str) {
    let end = Instant::now() + PATIENCE;
    while !redis.command("INFO persistence").lines().any(|have| have.trim() == line) {
        assert!(Instant::now() < end, "{line} did not come true");
        tokio::time::sleep(LOOK).await;
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// An ingress and a worker.
async fn services(installation: &Installation) -> [Program; 2] {
    [installation.start("sms-ingress").await, installation.start("sms-worker").await]
}

#[tokio::test]
async fn redis_goes_on_from_a_copy_of_its_append_only_files() {
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let [mut ingress, mut worker] = services(&installation).await;
    begin(&installation, &provider, ingress.ingress).await;
    assert_eq!(redis.command("CONFIG SET auto-aof-rewrite-percentage 0"), "+OK");
    redis.command("BGREWRITEAOF");
    wait_for_persistence(&redis, "aof_rewrite_in_progress:0").await;
    let (files, copy) = (redis.folder().join("appendonlydir"), installation.folder().join("copy"));
    copy_files(&files, &copy);
    go_on(&installation, &provider, ingress.ingress).await;

    ingress.kill();
    worker.kill();
    redis.kill();
    fs::remove_dir_all(&files).unwrap();
    copy_files(&copy, &files);
    redis.restart();
    let [ingress, worker] = services(&installation).await;
    check(&installation, &provider, ingress.ingress, &worker).await;
}

#[tokio::test]
async fn redis_goes_on_from_a_snapshot_once_it_was_started_without_its_append_only_file() {
    let provider = Provider::start();
    let mut redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let [mut ingress, mut worker] = services(&installation).await;
    begin(&installation, &provider, ingress.ingress).await;
    redis.command("BGSAVE");
    wait_for_persistence(&redis, "rdb_bgsave_in_progress:0").await;
    let (snapshot, copy) = (redis.folder().join("dump.rdb"), installation.folder().join("copy.rdb"));
    fs::copy(&snapshot, &copy).unwrap();
    go_on(&installation, &provider, ingress.ingress).await;

    ingress.kill();
    worker.kill();
    redis.kill();
    fs::remove_dir_all(redis.folder().join("appendonlydir")).unwrap();
    fs::copy(&copy, &snapshot).unwrap();
    // With its append-only file switched on and not there, it would start with nothing.
    redis.restart_with(&["--appendonly", "no"]);
    assert_eq!(redis.command("CONFIG SET appendonly yes"), "+OK");
    wait_for_persistence(&redis, "aof_rewrite_in_progress:0").await;
    redis.restart_with(&[]);
    let [ingress, worker] = services(&installation).await;
    check(&installation, &provider, ingress.ingress, &worker).await;
}
