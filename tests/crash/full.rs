//! The disk is full, or may not be written.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{IN_FLIGHT, STEADY};
use crate::support::installation::{Installation, RECIPIENTS};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Starts a program so that it hears of a file that grew too large by an error, not by a signal.
const UNHARMED: [&str; 3] = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];

/// What a refusal must have come by, and a second for the machine.
const IN_TIME: Duration = Duration::from_secs(4);

/// From now on `pid` may make no file larger than that; without a number, as large as it likes.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let limited =
        Command::new("prlimit").args([&format!("--pid={pid}"), &format!("--fsize={limit}:")]).status();
    assert!(limited.is_ok_and(|status| status.success()), "the process can be limited");
}

/// The largest file in a folder.
fn largest_file(folder: &Path) -> u64 {
    let sizes = fs::read_dir(folder).expect("a folder").map(|entry| {
        let found = entry.and_then(|entry| entry.metadata()).expect("a file");
        found.len()
    });
    sizes.max().expect("there are files")
}

/// Posts from `number` on until one is refused, and says which; every answer comes in time.
async fn until_refused(ledger: &Ledger, installation: &Installation, ingress: u16, number: u32) -> u32 {
    for number in number..number + 5_000 {
        let began = Instant::now();
        let is_taken = ledger.post(installation.poster(), ingress, number).await;
        assert!(began.elapsed() < IN_TIME, "answered only after {:?}", began.elapsed());
        if !is_taken {
            return number;
        }
    }
    panic!("nothing is refused");
}

#[tokio::test]
async fn a_redis_that_cannot_write_takes_nothing_new_and_loses_nothing() {
    let provider = Provider::start();
    let redis = RedisServer::start_under(&UNHARMED, &[]);
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let mut ingress = installation.start("sms-ingress").await;
    let mut workers = [installation.start("sms-worker").await, installation.start("sms-worker").await];
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..20, 4).await;

    let file = largest_file(&redis.folder().join("appendonlydir"));
    limit_files(redis.pid(), Some(file + 64 * 1024));
    ledger.fault();
    let refused = until_refused(&ledger, &installation, ingress.ingress, 20).await;
    installation.wait_for_readiness(&mut ingress, 503).await;
    installation.wait_for_readiness(&mut workers[0], 503).await;
    limit_files(redis.pid(), None);
    ledger.fault();
    ledger.post_all(installation.poster(), &[ingress.ingress], refused..refused + 20, 4).await;
    let allowed = Allowed { duplicates: 2 * IN_FLIGHT, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("disk of Redis", "Redis cannot write its append-only file (`MISCONF`)");
}

/// A disk of its own for a test, if one can be had: that takes the right to mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    /// Takes all the space there is.
    fn fill(&self) {
        let options = OpenOptions::new().create(true).append(true).to_owned();
        let mut ballast = options.open(self.0.path().join("ballast")).expect("the disk is ours");
        for size in [64 * 1024, 4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path().join("ballast")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever used it may not have ended yet.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// On a disk of its own, which is really full.
#[tokio::test]
async fn an_embedded_store_on_a_full_disk_takes_nothing_new_and_delivers_what_it_has() {
    let Some(disk) = SmallDisk::mount("24m") else {
        println!("not tested: no disk can be mounted here");
        return;
    };
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::status(503).header("Retry-After", "1"));
    }
    let file = disk.0.path().join("queue.db");
    let queue = format!("backend = \"embedded\"\npath = {:?}", file.to_str().expect("a path of ours"));
    let patient = STEADY.replace("[retry]\n", "[retry]\nmax_attempts = 1000\n");
    let installation = Installation::with_queue(&provider, &queue, &patient);
    let mut service = installation.start("sms-broadcaster").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[service.ingress], 0..40, 4).await;
    ledger.fault();
    disk.fill();
    let refused = until_refused(&ledger, &installation, service.ingress, 40).await;
    // Whoever repeats himself is told that it is there.
    assert!(ledger.post(installation.poster(), service.ingress, 0).await);

    // With the disk as full as before, everything arrives.
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("disk of the embedded store", "its disk is full");
    assert_eq!(figures.messages, refused as usize);

    disk.make_room();
    ledger.post_all(installation.poster(), &[service.ingress], refused..refused + 20, 4).await;
    ledger.check(&installation, &provider, Allowed::default()).await;
    assert_eq!(service.stop(), Some(0));
}

/// A write that fails for another reason: nobody knows what the disk holds then.
#[tokio::test]
async fn an_embedded_store_that_cannot_be_written_ends_its_service_and_what_was_answered_is_there() {
    let provider = Provider::start();
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::status(503).header("Retry-After", "1"));
    }
    let patient = STEADY.replace("[retry]\n", "[retry]\nmax_attempts = 1000\n");
    // It does not wait for records that nobody can write.
    let patient = patient.replace("[worker]\n", "[worker]\ndrain = \"5m\"\n");
    let installation = Installation::embedded(&provider, &patient);
    let mut service = installation.program("sms-broadcaster").under(&UNHARMED).start().await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[service.ingress], 0..40, 4).await;
    ledger.fault();
    // Less than its files have already: the next write anywhere fails.
    limit_files(service.pid(), Some(4096));
    until_refused(&ledger, &installation, service.ingress, 40).await;
    let ended = service.wait_for_end().await;
    assert_eq!(ended.code(), Some(1), "{:?}", service.log());

    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }
    let again = installation.program("sms-broadcaster").in_place_of(&service).start().await;
    ledger.post_all(installation.poster(), &[again.ingress], 100..120, 4).await;
    let allowed = Allowed { duplicates: IN_FLIGHT, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    figures.show("embedded store not writable", "every write to its file fails");
}
