//! Receivers that take about a hundredth of what arrives: nothing grows but the store, and that to its cap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::installation::{Installation, LOOK, PHONES, Program, SLACK, sid};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Unfinished messages that the store may hold.
const CAPACITY: u32 = 2_000;

/// Requests at once; as many may be on their way when the first is refused. A hundredth of the capacity is
/// more.
const POSTERS: u32 = 16;

/// Messages after which the programs have all they need to run.
const WARM_UP: u32 = 400;

/// Memory that may come on top of it, in KiB. What comes in meanwhile is more than three times as much, once.
const GROWTH: u64 = 6 * 1024;

/// What SQLite may keep of its file's pages in memory, in KiB: the embedded store's alone.
const PAGE_CACHE: u64 = 16 * 1024;

/// The longest text there is, so that whoever keeps messages in memory shows.
const TEXT_LENGTH: usize = 1_500;

/// The sender every message comes from.
const FROM: &str = "+12223334444";

/// Short of the time-out by far, and of the arrival rate by a hundred times with so few at once.
fn slow() -> Reply {
    Reply::ok().delayed(Duration::from_secs(4))
}

const FEW_AT_ONCE: &str = "[worker]\nconcurrency = 4\n\n[message]\ndeadline = \"6h\"\n\n\
    [channel.sms]\nrate = \"off\"\nrate_per_destination = \"off\"\n\n\
    [channel.slack]\nrate = \"off\"\nrate_per_destination = \"off\"\n";

fn always(provider: &Provider, reply: impl Fn() -> Reply) {
    for destination in PHONES.into_iter().chain([SLACK]) {
        provider.always(destination, reply());
    }
}

/// Posts messages from `from` on until `enough` says so of what was answered; the answers by status.
async fn post(
    installation: &Installation,
    ingress: u16,
    from: u32,
    enough: fn(&BTreeMap<u16, u32>) -> bool,
) -> BTreeMap<u16, u32> {
    let next = Arc::new(AtomicU32::new(from));
    let mut posting = JoinSet::new();
    let mut answers = BTreeMap::new();
    let start = |posting: &mut JoinSet<Option<u16>>| {
        let (poster, number) = (installation.poster().clone(), next.fetch_add(1, Ordering::Relaxed));
        posting
            .spawn(async move { poster.post(ingress, &sid(number), FROM, &"x".repeat(TEXT_LENGTH)).await });
    };
    (0..POSTERS).for_each(|_| start(&mut posting));
    while let Some(status) = posting.join_next().await {
        let status = status.expect("nothing panics").expect("the ingress answers, whatever else is slow");
        *answers.entry(status).or_default() += 1;
        if !enough(&answers) {
            start(&mut posting);
        }
    }
    answers
}

async fn withstands_slow_receivers(
    provider: &Provider,
    installation: &Installation,
    programs: &[Program],
    growth: u64,
) {
    always(provider, slow);
    let ingress = programs[0].ingress;
    let count = |answers: &BTreeMap<u16, u32>, status| answers.get(&status).copied().unwrap_or(0);

    let warm = post(installation, ingress, 0, |answers| answers.values().sum::<u32>() >= WARM_UP).await;
    assert_eq!(warm.keys().copied().collect::<Vec<_>>(), [200], "nothing is refused before the cap");
    let before: Vec<u64> = programs.iter().map(Program::resident).collect();

    // Until it is full, and as often again after that.
    let posted = count(&warm, 200);
    let answers =
        post(installation, ingress, posted, |answers| answers.get(&503).is_some_and(|full| *full >= 200))
            .await;
    let (accepted, ended) = (posted + count(&answers, 200), provider.requests().len() as u32 / 3);
    assert!(answers.keys().all(|status| matches!(status, 200 | 503)), "{answers:?}");
    assert!(accepted >= CAPACITY - POSTERS, "refused with room for {}", CAPACITY - accepted);
    assert!(accepted <= CAPACITY + ended, "accepted {accepted}, at most {ended} of them have ended");
    for (program, before) in programs.iter().zip(before) {
        let now = program.resident();
        assert!(now <= before + growth, "resident memory grew from {before} to {now} KiB");
    }
    let sent = provider.requests().len();
    assert!(
        sent < accepted as usize * 3 / 20,
        "the receivers were not slow: {sent} of {accepted} messages' sends"
    );

    // Who repeats himself is told that it is there, however full it is.
    let again = installation.poster().post(ingress, &sid(0), FROM, &"x".repeat(TEXT_LENGTH)).await;
    assert_eq!(again, Some(200));

    // Nobody has to be restarted when the receivers are themselves again.
    always(provider, Reply::ok);
    let end = Instant::now() + Duration::from_secs(60);
    let mut number = 1_000_000;
    while installation.post(ingress, &sid(number), FROM, "room again").await != Some(200) {
        assert!(Instant::now() < end, "still full");
        tokio::time::sleep(LOOK).await;
        number += 1;
    }
}

#[tokio::test]
async fn on_redis_slow_receivers_fill_the_store_to_its_cap_and_nothing_else() {
    let (provider, redis) = (Provider::start(), RedisServer::start());
    let queue = format!("backend = \"redis\"\nurl = \"{}\"\ncapacity = {CAPACITY}", redis.url());
    let installation = Installation::with_queue(&provider, &queue, FEW_AT_ONCE);
    let programs = [installation.start("sms-ingress").await, installation.start("sms-worker").await];
    withstands_slow_receivers(&provider, &installation, &programs, GROWTH).await;
}

#[tokio::test]
async fn embedded_slow_receivers_fill_the_store_to_its_cap_and_nothing_else() {
    let provider = Provider::start();
    let queue = format!("backend = \"embedded\"\npath = \"queue.db\"\ncapacity = {CAPACITY}");
    let installation = Installation::with_queue(&provider, &queue, FEW_AT_ONCE);
    let programs = [installation.start("sms-broadcaster").await];
    withstands_slow_receivers(&provider, &installation, &programs, GROWTH + PAGE_CACHE).await;
}
