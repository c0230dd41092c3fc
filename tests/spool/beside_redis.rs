//! The spool before a real Redis, in one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{DeadCause, Settlement};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, DeadFilter, Lane, LaneLimits, MAX_HAND_OUTS, NewMessage, Owner, Queue, QueueAdmin,
    QueueError, QueueSettings, Settle, Work,
};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};
use sms_broadcaster::queue::spool::{Spool, SpoolingQueue};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::installation::{LOOK, signal};
use crate::support::redis_server::RedisServer;

/// Ends a test that hangs.
const GUARD: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
/// What the ingress must have answered by.
const IN_TIME: Duration = Duration::from_secs(3);

struct Bench {
    clock: Clock,
    server: RedisServer,
    settings: QueueSettings,
    folder: TempDir,
    redis: Arc<RedisQueue>,
}

impl Bench {
    fn new(settings: QueueSettings) -> Self {
        Self::by(Clock::system(), settings)
    }

    fn by(clock: Clock, settings: QueueSettings) -> Self {
        let server = RedisServer::start();
        let at = RedisSettings::at(SecretString::from(server.url()));
        let redis = Arc::new(RedisQueue::new(at, settings.clone(), clock.clone()).unwrap());
        Self { clock, server, settings, folder: tempfile::tempdir().unwrap(), redis }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    fn open(&self) -> Arc<SpoolingQueue> {
        self.open_in(&self.folder())
    }

    fn open_in(&self, folder: &Path) -> Arc<SpoolingQueue> {
        let spool = Spool::open(folder, &self.settings, self.clock.clone()).unwrap();
        Arc::new(SpoolingQueue::new(self.redis.clone(), spool))
    }

    /// Everything that waits to be routed, in its order.
    async fn inbound(&self) -> Vec<Work> {
        let (owner, lane) = (Owner::new("worker"), Lane::inbound());
        let claim = Claim { owner: &owner, lane: &lane, max: 128, limits: LaneLimits::default(), busy: &[] };
        self.redis.claim(claim).await.unwrap().items
    }

    async fn inbound_ids(&self) -> Vec<MessageId> {
        self.inbound().await.iter().map(|work| work.lease.key().work.message.clone()).collect()
    }
}

/// A forwarder at work.
struct Forwarding {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Forwarding {
    fn start(spooling: &Arc<SpoolingQueue>) -> Self {
        Self::with_grace(spooling, GUARD)
    }

    fn with_grace(spooling: &Arc<SpoolingQueue>, grace: Duration) -> Self {
        let stop = CancellationToken::new();
        let (spooling, stopped) = (Arc::clone(spooling), stop.clone());
        let task = tokio::spawn(async move { spooling.forward(stopped, grace).await });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(GUARD, self.task).await.expect("it stops").expect("it does not panic");
    }

    /// Ends it as a kill would: what is in hand stays in hand.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn id(number: usize) -> MessageId {
    MessageId::of_source("test", &number.to_string()).unwrap()
}

fn ids(numbers: std::ops::Range<usize>) -> Vec<MessageId> {
    numbers.map(id).collect()
}

fn message(number: usize) -> NewMessage {
    NewMessage {
        id: id(number),
        payload: format!("text {number}").into_bytes(),
        deadline: 10 * MINUTE,
        age: Duration::ZERO,
    }
}

async fn accept(queue: &SpoolingQueue, number: usize) -> Acceptance {
    queue.accept(&[message(number)]).await.unwrap()[0]
}

/// Waits until the spool holds `number` messages.
async fn until_spool_holds(spooling: &SpoolingQueue, number: u64) {
    let holds = timeout(GUARD, async {
        while spooling.spool().messages().await.unwrap() != number {
            tokio::time::sleep(LOOK).await;
        }
    });
    holds.await.unwrap_or_else(|_| panic!("the spool does not come to hold {number}"));
}

#[tokio::test]
async fn what_redis_cannot_take_is_kept_and_forwarded_in_order_and_once() {
    let mut bench = Bench::new(QueueSettings::default());
    let spooling = bench.open();
    let forwarding = Forwarding::start(&spooling);
    assert_eq!(accept(&spooling, 0).await, Acceptance::Accepted);
    assert_eq!(accept(&spooling, 0).await, Acceptance::Duplicate);
    assert!(!spooling.is_spooling());
    assert!(!spooling.can_take().await.unwrap());

    bench.server.kill();
    for number in 1..=200 {
        let began = Instant::now();
        assert_eq!(accept(&spooling, number).await, Acceptance::Spooled);
        assert!(began.elapsed() < IN_TIME);
    }
    assert_eq!(accept(&spooling, 7).await, Acceptance::Duplicate, "known to the spool");
    assert_eq!(accept(&spooling, 0).await, Acceptance::Spooled, "known to Redis alone");
    assert!(spooling.is_spooling());
    assert!(spooling.can_take().await.unwrap());
    assert_eq!(spooling.spool().messages().await.unwrap(), 201);

    bench.server.restart();
    until_spool_holds(&spooling, 0).await;
    assert!(!spooling.is_spooling());
    assert_eq!(accept(&spooling, 201).await, Acceptance::Accepted);
    assert_eq!(accept(&spooling, 7).await, Acceptance::Duplicate);
    let (first, second) = (bench.inbound_ids().await, bench.inbound_ids().await);
    assert_eq!([first, second].concat(), ids(0..202));
    let stats = bench.redis.stats().await.unwrap();
    assert_eq!(stats.accepted, 202);
    forwarding.stop().await;
}

#[tokio::test]
async fn a_messages_time_counts_from_its_receipt_and_one_that_came_too_late_is_a_letter() {
    let received = Timestamp::from_millis(1_767_225_600_000);
    let mut bench = Bench::by(Clock::manual(received), QueueSettings::default());
    let spooling = bench.open();
    bench.server.kill();
    let short = NewMessage { deadline: MINUTE, ..message(2) };
    assert_eq!(spooling.accept(&[message(1), short]).await.unwrap(), [Acceptance::Spooled; 2]);
    bench.clock.advance(2 * MINUTE);
    bench.server.restart();
    let forwarding = Forwarding::start(&spooling);
    until_spool_holds(&spooling, 0).await;
    let [work] = <[Work; 1]>::try_from(bench.inbound().await).unwrap();
    assert_eq!(work.lease.key().work.message, id(1));
    assert_eq!(work.payload, message(1).payload);
    assert_eq!((work.accepted_at, work.deadline), (received, received.plus(10 * MINUTE)));
    let letters = bench.redis.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((&letter.id.message, letter.cause), (&id(2), DeadCause::Expired));
    forwarding.stop().await;
}

#[tokio::test]
async fn a_crash_between_forwarding_and_forgetting_repeats_what_redis_knows() {
    let mut bench = Bench::new(QueueSettings::default());
    bench.server.kill();
    let spooling = bench.open();
    let batch: Vec<NewMessage> = (0..5).map(message).collect();
    assert_eq!(spooling.accept(&batch).await.unwrap(), [Acceptance::Spooled; 5]);
    drop(spooling);
    // The same files twice: as they were before the forwarder came to forget anything.
    let copy = bench.folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(bench.folder()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    bench.server.restart();
    for folder in [bench.folder(), copy] {
        let spooling = bench.open_in(&folder);
        let forwarding = Forwarding::start(&spooling);
        until_spool_holds(&spooling, 0).await;
        forwarding.stop().await;
    }
    let stats = bench.redis.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.duplicates), (5, 5));
    assert_eq!(bench.inbound_ids().await, ids(0..5));
}

#[tokio::test]
async fn a_message_that_was_in_hand_at_many_kills_is_forwarded_all_the_same() {
    let mut bench = Bench::new(QueueSettings::default());
    bench.server.kill();
    assert_eq!(accept(&bench.open(), 1).await, Acceptance::Spooled);
    for _ in 0..8 {
        let spooling = bench.open();
        let forwarding = Forwarding::start(&spooling);
        // It has the message in hand once it has found out that Redis is away.
        timeout(GUARD, async {
            while !spooling.is_spooling() {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
        .unwrap();
        forwarding.kill().await;
    }
    bench.server.restart();
    let spooling = bench.open();
    let forwarding = Forwarding::start(&spooling);
    until_spool_holds(&spooling, 0).await;
    assert_eq!(bench.inbound_ids().await, ids(1..2));
    forwarding.stop().await;
}

/// What was in hand at too many kills ends in the spool's queue, in the call that hands out others.
#[tokio::test]
async fn a_message_that_was_in_hand_at_many_kills_is_not_left_behind_by_those_that_came_later() {
    let mut bench = Bench::new(QueueSettings::default());
    bench.server.kill();
    assert_eq!(accept(&bench.open(), 1).await, Acceptance::Spooled);
    for _ in 0..MAX_HAND_OUTS {
        // As by a forwarder that is killed with it in hand.
        let file = bench.folder().join("spool.db");
        let queue = EmbeddedQueue::open(&file, bench.settings.clone(), bench.clock.clone()).unwrap();
        let (owner, lane) = (Owner::new("spool"), Lane::inbound());
        let claim = Claim { owner: &owner, lane: &lane, max: 1, limits: LaneLimits::default(), busy: &[] };
        assert_eq!(queue.claim(claim).await.unwrap().items.len(), 1);
    }
    let spooling = bench.open();
    assert_eq!(accept(&spooling, 2).await, Acceptance::Spooled);
    bench.server.restart();
    let forwarding = Forwarding::start(&spooling);
    until_spool_holds(&spooling, 0).await;
    let mut forwarded = bench.inbound_ids().await;
    forwarded.sort();
    assert_eq!(forwarded, ids(1..3));
    forwarding.stop().await;
}

/// A kill between the end of a message in the spool's queue and its return.
#[tokio::test]
async fn a_message_that_ended_in_the_spool_is_forwarded_all_the_same() {
    let bench = Bench::new(QueueSettings::default());
    let mut buried = 0;
    let file = bench.folder().join("spool.db");
    // Kept as a spool keeps it.
    let mut kept = message(1);
    kept.payload = [&[1][..], &600_000_u64.to_be_bytes(), &kept.payload].concat();
    for round in 0..=MAX_HAND_OUTS {
        let queue = EmbeddedQueue::open(&file, bench.settings.clone(), bench.clock.clone()).unwrap();
        if round == 0 {
            assert_eq!(queue.accept(std::slice::from_ref(&kept)).await.unwrap(), [Acceptance::Accepted]);
        }
        let (owner, lane) = (Owner::new("spool"), Lane::inbound());
        let claim = Claim { owner: &owner, lane: &lane, max: 1, limits: LaneLimits::default(), busy: &[] };
        buried += queue.claim(claim).await.unwrap().buried.len();
    }
    assert_eq!(buried, 1);
    let spooling = bench.open();
    let forwarding = Forwarding::start(&spooling);
    let forwarded = timeout(GUARD, async {
        loop {
            let ids = bench.inbound_ids().await;
            if !ids.is_empty() {
                return ids;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    assert_eq!(forwarded.await.expect("it is forwarded"), ids(1..2));
    forwarding.stop().await;
}

#[tokio::test]
async fn what_a_full_redis_has_no_room_for_waits_in_the_spool() {
    let bench = Bench::new(QueueSettings { capacity: 2, ..QueueSettings::default() });
    let spooling = bench.open();
    let forwarding = Forwarding::start(&spooling);
    let batch: Vec<NewMessage> = (0..4).map(message).collect();
    let answers = spooling.accept(&batch).await.unwrap();
    assert_eq!(answers[..2], [Acceptance::Accepted; 2]);
    assert_eq!(answers[2..], [Acceptance::Spooled; 2]);
    assert!(!spooling.is_spooling(), "full is not away");
    // As much room as is made is taken.
    for number in 0..4 {
        let mut waiting = Vec::new();
        timeout(GUARD, async {
            while waiting.is_empty() {
                waiting = bench.inbound().await;
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
        .unwrap();
        let owner = Owner::new("worker");
        for work in waiting {
            let dropped = Settle { lease: work.lease, settlement: Settlement::Delivered };
            bench.redis.settle(&owner, vec![dropped]).await.unwrap();
        }
        if bench.redis.stats().await.unwrap().delivered == 4 {
            assert!(number > 0, "it was full");
            break;
        }
    }
    assert_eq!(bench.redis.stats().await.unwrap().accepted, 4);
    assert_eq!(spooling.spool().messages().await.unwrap(), 0);
    forwarding.stop().await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_keeps_nobody_waiting() {
    let bench = Bench::new(QueueSettings::default());
    let spooling = bench.open();
    assert_eq!(accept(&spooling, 0).await, Acceptance::Accepted);
    signal(bench.server.pid(), "STOP");
    for number in 1..20 {
        let began = Instant::now();
        assert_eq!(accept(&spooling, number).await, Acceptance::Spooled);
        assert!(began.elapsed() < IN_TIME);
    }
    let forwarding = Forwarding::start(&spooling);
    signal(bench.server.pid(), "CONT");
    until_spool_holds(&spooling, 0).await;
    // The first that was kept had reached the server as well.
    let mut found = bench.inbound_ids().await;
    found.sort();
    let mut expected = ids(0..20);
    expected.sort();
    assert_eq!(found, expected);
    forwarding.stop().await;
}

#[tokio::test]
async fn a_spool_has_an_end_and_one_that_is_full_at_the_start_is_forwarded() {
    let mut bench = Bench::new(QueueSettings { capacity: 3, ..QueueSettings::default() });
    bench.server.kill();
    let spooling = bench.open();
    let batch: Vec<NewMessage> = (0..4).map(message).collect();
    let answers = spooling.accept(&batch).await.unwrap();
    assert_eq!(answers[..3], [Acceptance::Spooled; 3]);
    assert_eq!(answers[3], Acceptance::Full);
    drop(spooling);

    let spooling = bench.open();
    assert_eq!(accept(&spooling, 3).await, Acceptance::Full);
    let forwarding = Forwarding::start(&spooling);
    bench.server.restart();
    until_spool_holds(&spooling, 0).await;
    assert_eq!(bench.inbound_ids().await, ids(0..3));
    forwarding.stop().await;
}

#[tokio::test]
async fn a_spool_belongs_to_one_process() {
    let bench = Bench::new(QueueSettings::default());
    let first = bench.open();
    let second = Spool::open(&bench.folder(), &bench.settings, Clock::system());
    match second.map(|_| ()) {
        Err(QueueError::Unusable(why)) => assert!(why.starts_with("the spool: "), "{why}"),
        other => panic!("{other:?}"),
    }
    drop(first);
    bench.open();
}

#[tokio::test]
async fn a_forwarder_that_is_told_to_stop_brings_away_what_it_can() {
    let mut bench = Bench::new(QueueSettings::default());
    bench.server.kill();
    let spooling = bench.open();
    let batch: Vec<NewMessage> = (0..100).map(message).collect();
    spooling.accept(&batch).await.unwrap();
    // In vain, and then its time is over.
    Forwarding::with_grace(&spooling, LOOK).stop().await;
    assert_eq!(spooling.spool().messages().await.unwrap(), 100);
    bench.server.restart();
    Forwarding::start(&spooling).stop().await;
    assert_eq!(spooling.spool().messages().await.unwrap(), 0);
    assert_eq!(bench.inbound_ids().await, ids(0..100));
}
