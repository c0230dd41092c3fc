//! Programs whose clocks are wrong, and jump: time is the store's.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::UNLIMITED;
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, Launch};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::Provider;
use crate::support::redis_server::RedisServer;

/// A wall clock for programs that are started under it; it is as wrong as a file says, whenever they look.
struct WrongClock {
    folder: TempDir,
    library: PathBuf,
}

impl WrongClock {
    /// One, if libfaketime is installed (`./test` does that where it may).
    fn find() -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|library| library.exists())?;
        Some(Self { folder: tempfile::tempdir().expect("a temporary folder"), library })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("wrong-by")
    }

    /// From now on it is wrong by so many seconds.
    fn set(&self, seconds: i64) {
        // Put in place as a whole: somebody may be reading it.
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("the folder is ours");
        fs::rename(next, self.file()).expect("the folder is ours");
    }

    fn start<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        let preload = format!("LD_PRELOAD={}", self.library.display());
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file().display());
        launch.under(&["env", &preload, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"])
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_an_hour_and_jumps_changes_nothing() {
    let Some(clock) = WrongClock::find() else {
        println!("not tested: libfaketime is not installed");
        return;
    };
    let mut chance = seeded("a_clock_that_is_wrong_by_an_hour_and_jumps_changes_nothing");
    let provider = Provider::start();
    let redis = RedisServer::start();
    // Leases and deadlines as they are by default: a clock that is believed by an hour shows.
    let installation = Installation::redis(&provider, &redis.url(), UNLIMITED);
    clock.set(3600);
    let ingress = clock.start(installation.program("sms-ingress")).start().await;
    let wrong = clock.start(installation.program("sms-worker")).start().await;
    let right = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    let mut number = 0;
    let end = Instant::now() + duration(Duration::from_secs(4), 0.01);
    while Instant::now() < end {
        ledger.fault();
        clock.set(chance.i64(-3600..3600));
        ledger.post_all(installation.poster(), &[ingress.ingress], number..number + 20, 8).await;
        number += 20;
    }
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("clock", "the clock of an ingress and of one of two workers jumps by up to an hour");
    for worker in [&wrong, &right] {
        installation.wait_for_metric(worker, "sms_broadcaster_leases_reclaimed_total 0").await;
    }
    // To the minute: both began within less than an hour.
    let [began, rightly] = [&wrong, &right].map(|worker| worker.log().first().expect("a line").clone());
    assert_ne!(began.get(..16), rightly.get(..16), "its clock was right: there was no fault");
}
