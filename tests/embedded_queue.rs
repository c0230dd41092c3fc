//! What only the embedded queue promises: its file, its locks, its shared commits, its recovery.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{
    Attempt, ChannelId, DeadCause, DeliveryId, DeliveryState, DestinationKey, Reason, Settlement,
};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, DeadFilter, Expansion, Lane, LaneLimits, Lease, NewDelivery,
    NewMessage, Owner, Queue, QueueAdmin, QueueError, QueueSettings, Rate, Requeued, Settle, Settled, Work,
};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use tempfile::TempDir;
use tokio::time::timeout;

const GUARD: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A queue in a folder of its own, with a clock that is moved by hand.
struct Bench {
    folder: TempDir,
    clock: Clock,
    queue: EmbeddedQueue,
}

impl Bench {
    fn new() -> Self {
        Self::with(QueueSettings::default())
    }

    fn with(settings: QueueSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_767_225_600_000));
        let queue = EmbeddedQueue::open(&folder.path().join("queue.db"), settings, clock.clone()).unwrap();
        Self { folder, clock, queue }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    /// A way to the tables past the queue, for looking and for doing damage.
    fn back_door(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    async fn accept(&self, ids: &[MessageId]) {
        let answers = self.queue.accept(&ids.iter().map(message).collect::<Vec<_>>()).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Acceptance::Accepted), "{answers:?}");
    }

    async fn claim(&self, owner: &Owner, lane: &Lane, max: usize) -> Claimed {
        let limits = LaneLimits::default();
        self.queue.claim(Claim { owner, lane, max, limits, busy: &[] }).await.unwrap()
    }

    /// Accepts one message and makes `destinations` its deliveries by text message.
    async fn accept_and_route(&self, owner: &Owner, id: &MessageId, destinations: &[&str]) {
        self.accept(std::slice::from_ref(id)).await;
        let claimed = self.claim(owner, &Lane::inbound(), 128).await;
        let batch = claimed.items.into_iter().map(|work| expansion(work.lease, destinations)).collect();
        let answers = self.queue.expand(owner, batch).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Settled::Expanded), "{answers:?}");
    }

    async fn settle_one(&self, owner: &Owner, work: Work, settlement: Settlement) -> Settled {
        let batch = vec![Settle { lease: work.lease, settlement }];
        self.queue.settle(owner, batch).await.unwrap().pop().unwrap()
    }

    /// Housekeeping, the upkeep that follows its answer included.
    async fn look_after_the_file(&self) {
        self.queue.housekeep().await.unwrap();
        // An error is for the caller's next call to find.
        let _ = self.queue.ping().await;
    }

    /// Nothing is wrong.
    async fn assert_sound(&self) {
        assert_eq!(self.queue.audit().await.unwrap(), Vec::<String>::new());
        assert_eq!(self.queue.stats().await.unwrap().conservation_error, 0);
    }

    /// Ends the service in an orderly way and starts it anew.
    fn restarted(self) -> Self {
        let Self { folder, clock, queue } = self;
        drop(queue);
        let path = folder.path().join("queue.db");
        let queue = EmbeddedQueue::open(&path, QueueSettings::default(), clock.clone()).unwrap();
        Self { folder, clock, queue }
    }

    /// What a loss of power at this moment would leave on the disk, opened by a new service.
    fn crashed(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["queue.db", "queue.db-wal"] {
            fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        let clock = self.clock.clone();
        let path = folder.path().join("queue.db");
        let queue = EmbeddedQueue::open(&path, QueueSettings::default(), clock.clone()).unwrap();
        Self { folder, clock, queue }
    }
}

fn sms() -> Lane {
    Lane::of(&ChannelId::sms())
}

fn id(number: usize) -> MessageId {
    MessageId::of_source("test", &number.to_string()).unwrap()
}

fn delivery_id(message: usize, index: u16) -> DeliveryId {
    DeliveryId { message: id(message), index }
}

fn message(id: &MessageId) -> NewMessage {
    NewMessage {
        id: id.clone(),
        payload: format!("text of {id}").into_bytes(),
        deadline: 5 * MINUTE,
        age: Duration::ZERO,
    }
}

fn new_delivery(destination: &str) -> NewDelivery {
    NewDelivery {
        channel: ChannelId::sms(),
        destination: DestinationKey::from_stored(destination),
        label: format!("label of {destination}"),
        recipient: format!("recipient {destination}").into_bytes(),
    }
}

fn expansion(lease: Lease, destinations: &[&str]) -> Expansion {
    Expansion {
        lease,
        subscriber: "team".to_owned(),
        deadline: 5 * MINUTE,
        deliveries: destinations.iter().map(|destination| new_delivery(destination)).collect(),
    }
}

fn failed(at: Timestamp) -> Attempt {
    Attempt {
        at,
        outcome: "retry".to_owned(),
        reason: Reason::Server,
        status: Some(503),
        code: None,
        ambiguous: false,
    }
}

fn dead(cause: DeadCause, at: Timestamp) -> Settlement {
    Settlement::Dead { cause, attempt: Some(failed(at)) }
}

fn unusable(result: Result<EmbeddedQueue, QueueError>) -> String {
    match result {
        Err(QueueError::Unusable(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

fn open(path: &Path) -> Result<EmbeddedQueue, QueueError> {
    EmbeddedQueue::open(path, QueueSettings::default(), Clock::system())
}

fn open_beside(path: &Path, clock: &Clock) -> Result<EmbeddedQueue, QueueError> {
    EmbeddedQueue::open_beside(path, QueueSettings::default(), clock.clone())
}

#[tokio::test]
async fn a_message_goes_all_its_way() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = sms();
    bench.accept_and_route(&owner, &id(1), &["a", "b", "c"]).await;
    assert_eq!(bench.queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Duplicate]);

    let mut items = bench.claim(&owner, &lane, 10).await.items;
    assert_eq!(items.len(), 3);
    let (third, second, first) = (items.pop().unwrap(), items.pop().unwrap(), items.pop().unwrap());
    assert_eq!(first.payload, b"text of test:1");
    assert_eq!(first.recipient, b"recipient a");
    assert_eq!(first.subscriber, "team");
    assert_eq!((first.attempts, first.pauses, first.handed_out), (0, 0, 1));

    let now = bench.clock.now();
    let later = now.plus(Duration::from_secs(2));
    let retry = Settlement::RetryAt { due: later, attempt: failed(now) };
    assert_eq!(
        bench.settle_one(&owner, first, Settlement::Delivered).await,
        Settled::Delivered { late: false }
    );
    assert_eq!(bench.settle_one(&owner, second, retry).await, Settled::Delayed);
    let gone = dead(DeadCause::Permanent, now);
    assert_eq!(bench.settle_one(&owner, third, gone).await, Settled::Dead(DeadCause::Permanent));
    bench.assert_sound().await;

    let nothing = bench.claim(&owner, &lane, 10).await;
    assert!(nothing.items.is_empty());
    assert_eq!(nothing.wait, Some(Duration::from_secs(2)));
    bench.clock.advance(Duration::from_secs(2));
    let again = bench.claim(&owner, &lane, 10).await.items.pop().unwrap();
    assert_eq!((again.attempts, again.handed_out), (1, 1));
    bench.settle_one(&owner, again, Settlement::Delivered).await;

    let status = bench.queue.status(&id(1)).await.unwrap().unwrap();
    let states: Vec<_> = status.deliveries.iter().map(|d| (d.state, d.attempts)).collect();
    assert!(status.expanded);
    assert_eq!(
        states,
        [(DeliveryState::Delivered, 1), (DeliveryState::Delivered, 2), (DeliveryState::Dead, 1)]
    );
    let letter = bench.queue.dead_letter(&delivery_id(1, 3)).await.unwrap().unwrap();
    assert_eq!(letter.payload.as_deref(), Some(b"text of test:1".as_slice()));
    assert_eq!(letter.letter.history, [failed(now)]);
    assert_eq!(letter.letter.destination.as_deref(), Some("label of c"));

    let requeued = bench.queue.requeue(&[delivery_id(1, 3), delivery_id(1, 3)], MINUTE).await.unwrap();
    assert_eq!(requeued, Requeued { requeued: 1, skipped: 0, unknown: 1 });
    let revived = bench.claim(&owner, &lane, 10).await.items.pop().unwrap();
    assert_eq!((revived.attempts, revived.handed_out), (0, 1));
    assert_eq!(revived.deadline, bench.clock.now().plus(MINUTE));
    bench.settle_one(&owner, revived, Settlement::Delivered).await;

    let stats = bench.queue.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.duplicates), (1, 1));
    assert_eq!((stats.delivered, stats.dead, stats.expired, stats.pending), (3, 0, 0, 0));
    bench.assert_sound().await;

    bench.clock.advance(DAY);
    bench.queue.housekeep().await.unwrap();
    assert_eq!(bench.queue.status(&id(1)).await.unwrap(), None);
    assert_eq!(rows(&bench, "message") + rows(&bench, "work") + rows(&bench, "gate"), 0);
    assert_eq!(bench.queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
    bench.assert_sound().await;
}

fn rows(bench: &Bench, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    bench.back_door().query_row(&sql, [], |row| row.get(0)).unwrap()
}

// ---- starting, stopping, crashing

#[tokio::test]
async fn after_a_crash_work_in_hand_is_ready_at_once_with_its_hand_out_counted() {
    let bench = Bench::new();
    let owner = Owner::new("dies");
    bench.accept_and_route(&owner, &id(1), &["a", "b"]).await;
    bench.accept(&[id(2)]).await;
    assert_eq!(bench.claim(&owner, &sms(), 1).await.items.len(), 1);
    assert_eq!(bench.claim(&owner, &Lane::inbound(), 1).await.items.len(), 1);

    let after = bench.crashed();
    after.assert_sound().await;
    let heir = Owner::new("lives");
    let items = after.claim(&heir, &sms(), 10).await.items;
    let seen: Vec<_> = items.iter().map(|work| (work.lease.key().work.index, work.handed_out)).collect();
    assert_eq!(seen, [(1, 2), (2, 1)], "the one that was in hand stands where it stood");
    assert_eq!(after.claim(&heir, &Lane::inbound(), 10).await.items[0].handed_out, 2);

    let now = after.clock.now();
    for work in items {
        after.settle_one(&heir, work, dead(DeadCause::Permanent, now)).await;
    }
    let letters = after.queue.dead_letters(&DeadFilter::default(), 10).await.unwrap();
    let maybe: Vec<_> = letters.iter().map(|letter| (letter.id.index, letter.maybe_sent)).collect();
    assert_eq!(maybe, [(2, false), (1, true)]);
}

#[tokio::test]
async fn after_an_orderly_end_work_that_was_released_does_not_count_as_handed_out() {
    let bench = Bench::new();
    let owner = Owner::new("leaves");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    let work = bench.claim(&owner, &sms(), 1).await.items.pop().unwrap();
    bench.queue.release(&owner, vec![work.lease]).await.unwrap();
    bench.queue.retire(&owner).await.unwrap();

    let after = bench.restarted();
    let work = after.claim(&Owner::new("next"), &sms(), 1).await.items.pop().unwrap();
    assert_eq!(work.handed_out, 1);
    after.assert_sound().await;
}

#[tokio::test]
async fn work_that_takes_the_service_down_again_and_again_is_poison() {
    let mut bench = Bench::new();
    bench.accept_and_route(&Owner::new("router"), &id(1), &["a"]).await;
    for round in 1..=4 {
        let items = bench.claim(&Owner::new("dies"), &sms(), 1).await.items;
        assert_eq!(items[0].handed_out, round);
        bench = bench.crashed();
    }
    let claimed = bench.claim(&Owner::new("spared"), &sms(), 1).await;
    assert!(claimed.items.is_empty());
    assert_eq!(claimed.buried.len(), 1);
    assert_eq!(claimed.buried[0].cause, DeadCause::Poison);
    let letter = bench.queue.dead_letter(&delivery_id(1, 1)).await.unwrap().unwrap().letter;
    assert!(letter.maybe_sent);
    bench.assert_sound().await;
}

#[tokio::test]
async fn what_was_accepted_is_on_the_disk_when_the_answer_comes() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.accept(&[id(number)]).await;
        let image = bench.crashed();
        assert_eq!(image.queue.accept(&[message(&id(number))]).await.unwrap(), [Acceptance::Duplicate]);
    }
}

#[tokio::test]
async fn a_second_service_is_refused_by_whatever_name_it_calls_the_file_until_the_first_ends() {
    let bench = Bench::new();
    let link = bench.folder.path().join("link.db");
    std::os::unix::fs::symlink(bench.path(), &link).unwrap();
    for path in [bench.path(), link.clone()] {
        let why = unusable(open(&path));
        assert!(why.contains("another service process"), "{why}");
    }
    let path = bench.path();
    let Bench { folder, queue, .. } = bench;
    drop(queue);
    assert!(open(&path).is_ok());
    assert!(open(&link).is_ok());
    drop(folder);
}

#[tokio::test]
async fn an_operator_works_beside_the_running_service() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b"]).await;
    let mut items = bench.claim(&owner, &sms(), 2).await.items;
    let (in_hand, dying) = (items.remove(0), items.remove(0));
    bench.settle_one(&owner, dying, dead(DeadCause::Exhausted, bench.clock.now())).await;

    let beside = open_beside(&bench.path(), &bench.clock).unwrap();
    let stats = beside.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.dead, stats.pending), (1, 1, 1));
    let lane = stats.lanes.iter().find(|lane| lane.lane == "sms").unwrap();
    assert_eq!((lane.ready, lane.leased, lane.delayed), (0, 1, 0), "what is in hand stays in hand");
    assert!(beside.status(&id(1)).await.unwrap().is_some());
    let requeued = beside.requeue(&[delivery_id(1, 2)], MINUTE).await.unwrap();
    assert_eq!(requeued.requeued, 1);
    drop(beside);

    assert_eq!(
        bench.settle_one(&owner, in_hand, Settlement::Delivered).await,
        Settled::Delivered { late: false }
    );
    let again = bench.claim(&owner, &sms(), 2).await.items.pop().unwrap();
    assert_eq!(
        bench.settle_one(&owner, again, Settlement::Delivered).await,
        Settled::Delivered { late: false }
    );
    bench.assert_sound().await;
    assert_eq!(bench.queue.stats().await.unwrap().delivered, 2);
}

#[tokio::test]
async fn an_operator_finds_the_queue_as_the_ended_service_left_it() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a"]).await;
    bench.claim(&owner, &sms(), 1).await;
    let (path, clock) = (bench.path(), bench.clock.clone());
    let Bench { folder, queue, .. } = bench;
    drop(queue);
    let beside = open_beside(&path, &clock).unwrap();
    let stats = beside.stats().await.unwrap();
    assert_eq!(stats.lanes.iter().map(|lane| lane.leased).sum::<u64>(), 1);
    assert_eq!(beside.audit().await.unwrap(), Vec::<String>::new());
    drop((beside, folder));
}

// ---- whose file

#[tokio::test]
async fn a_file_and_its_folder_are_made_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/queue.db");
    let queue = open(&path).unwrap();
    queue.accept(&[message(&id(1))]).await.unwrap();
    for name in ["queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock"] {
        let mode = fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_no_queue_to_work_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    match open_beside(&path, &Clock::system()) {
        Err(QueueError::Unavailable(why)) => assert!(why.contains("no such queue file"), "{why}"),
        _ => panic!("must be unavailable"),
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing behind");
}

/// Opening `path` is refused both ways, and leaves every byte of it.
fn assert_refused_untouched(path: &Path, expected: &str) {
    let before = fs::read(path).unwrap();
    let why = unusable(open(path));
    assert!(why.contains(expected), "{why}");
    assert!(!why.contains("text of"), "{why}");
    if expected != "damaged" {
        unusable(open_beside(path, &Clock::system()));
    }
    assert!(fs::read(path).unwrap() == before, "the file was touched");
}

#[tokio::test]
async fn foreign_files_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "not a database at all\n".repeat(500)).unwrap();
    assert_refused_untouched(&text, "not a queue of this program");

    let short = folder.path().join("short");
    fs::write(&short, "x").unwrap();
    assert_refused_untouched(&short, "not a queue of this program");

    let database = folder.path().join("accounts.db");
    let other = Connection::open(&database).unwrap();
    other.execute_batch("CREATE TABLE message (id TEXT); CREATE TABLE work (id TEXT);").unwrap();
    other.close().unwrap();
    assert_refused_untouched(&database, "not a queue of this program");

    unusable(open(folder.path()));
}

#[tokio::test]
async fn damaged_files_are_refused_untouched() {
    let bench = Bench::new();
    let ids: Vec<_> = (0..100).map(id).collect();
    bench.accept(&ids).await;
    let path = bench.path();
    let Bench { folder, queue, .. } = bench;
    drop(queue);
    let sound = fs::read(&path).unwrap();

    let mut scribbled = sound.clone();
    for (place, byte) in scribbled[4096..].iter_mut().enumerate().filter(|(place, _)| place % 7 == 0) {
        *byte = u8::try_from(place % 251).unwrap();
    }
    fs::write(&path, scribbled).unwrap();
    assert_refused_untouched(&path, "damaged");

    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert_refused_untouched(&path, "damaged");

    fs::write(&path, &sound).unwrap();
    assert!(open(&path).is_ok());
    drop(folder);
}

#[tokio::test]
async fn a_newer_versions_file_is_refused_untouched() {
    let bench = Bench::new();
    let path = bench.path();
    let Bench { folder, queue, .. } = bench;
    drop(queue);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    assert_refused_untouched(&path, "newer version");
    drop(folder);
}

#[tokio::test]
async fn the_log_of_a_file_that_is_gone_is_not_read_into_a_new_one() {
    let bench = Bench::new();
    bench.accept(&[id(1)]).await;
    let folder = tempfile::tempdir().unwrap();
    fs::copy(bench.folder.path().join("queue.db-wal"), folder.path().join("queue.db-wal")).unwrap();
    let why = unusable(open(&folder.path().join("queue.db")));
    assert!(why.contains("queue.db-wal"), "{why}");
    assert!(!folder.path().join("queue.db").exists());
}

#[tokio::test]
async fn a_half_made_file_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["queue.db", "queue.db.new", "queue.db.new-wal", "queue.db-wal", "queue.db-shm"] {
        fs::write(folder.path().join(name), if name.contains("new") { "half" } else { "" }).unwrap();
    }
    let queue = open(&folder.path().join("queue.db")).unwrap();
    assert_eq!(queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
}

#[tokio::test]
async fn a_file_removed_or_replaced_under_the_service_stops_it() {
    let bench = Bench::new();
    bench.look_after_the_file().await;
    assert_eq!(bench.queue.failure(), None);
    fs::rename(bench.path(), bench.folder.path().join("elsewhere")).unwrap();
    bench.look_after_the_file().await;
    let error = bench.queue.accept(&[message(&id(1))]).await.unwrap_err();
    assert!(matches!(&error, QueueError::Unusable(why) if why.contains("removed")), "{error}");
    assert_eq!(bench.queue.failure(), Some(error));
}

// ---- sharing commits

#[tokio::test]
async fn calls_that_wait_together_share_a_commit() {
    let bench = Bench::new();
    let before = bench.queue.commits();
    let queue = std::sync::Arc::new(bench.queue);

    // While somebody else writes, everything queues up behind the first call.
    let writing = Connection::open(bench.folder.path().join("queue.db")).unwrap();
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let queue = std::sync::Arc::clone(&queue);
        calls.spawn(async move { queue.accept(&[message(&id(number))]).await });
    }
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    writing.execute_batch("ROLLBACK").unwrap();

    let answers = timeout(GUARD, calls.join_all()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Ok(vec![Acceptance::Accepted])));
    let commits = queue.commits() - before;
    assert!(commits <= 3, "{commits} commits for 200 calls");
    assert_eq!(queue.audit().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn looking_for_work_where_there_is_none_writes_nothing() {
    let bench = Bench::new();
    bench.accept(&[id(1)]).await;
    let before = bench.queue.commits();
    let owner = Owner::new("idle");
    for _ in 0..10 {
        bench.claim(&owner, &sms(), 10).await;
        bench.queue.sweep(&owner, &sms(), 10, Cursor::default()).await.unwrap();
        bench.queue.housekeep().await.unwrap();
        bench.queue.ping().await.unwrap();
    }
    assert_eq!(bench.queue.commits(), before);
}

// ---- nothing left behind

fn files_contain(folder: &Path, marker: &[u8]) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| fs::read(path).unwrap().windows(marker.len()).any(|bytes| bytes == marker)).collect()
}

#[tokio::test]
async fn after_success_no_text_and_no_recipient_is_left_in_any_file() {
    const MARKER: &[u8] = b"493-817-secret";
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = sms();
    let secret = |length: usize| MARKER.repeat(length / MARKER.len() + 1);
    // Sizes on both sides of a page, so that whole and split rows are covered.
    let batch: Vec<_> = (0..60)
        .map(|number| NewMessage {
            payload: secret([10, 300, 3_900, 9_000][number % 4]),
            ..message(&id(number))
        })
        .collect();
    bench.queue.accept(&batch).await.unwrap();
    for work in bench.claim(&owner, &Lane::inbound(), 128).await.items {
        let mut expansion = expansion(work.lease, &["a", "b", "c"]);
        for delivery in &mut expansion.deliveries {
            delivery.recipient = secret(200);
        }
        bench.queue.expand(&owner, vec![expansion]).await.unwrap();
    }
    assert!(!files_contain(bench.folder.path(), MARKER).is_empty());
    loop {
        let items = bench.claim(&owner, &lane, 7).await.items;
        if items.is_empty() {
            break;
        }
        for work in items {
            bench.settle_one(&owner, work, Settlement::Delivered).await;
        }
    }
    bench.look_after_the_file().await;
    assert_eq!(files_contain(bench.folder.path(), MARKER), Vec::<PathBuf>::new());
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_purged_letter_leaves_nothing_in_any_file() {
    const MARKER: &[u8] = b"text of test:1";
    let bench = Bench::new();
    let owner = Owner::new("worker");
    bench.accept_and_route(&owner, &id(1), &["a", "b"]).await;
    let now = bench.clock.now();
    for work in bench.claim(&owner, &sms(), 2).await.items {
        bench.settle_one(&owner, work, dead(DeadCause::Permanent, now)).await;
    }
    assert_eq!(bench.queue.purge(&[delivery_id(1, 1)]).await.unwrap(), 1);
    let letter = bench.queue.dead_letter(&delivery_id(1, 2)).await.unwrap().unwrap();
    assert_eq!(letter.payload.as_deref(), Some(MARKER));
    assert_eq!(bench.queue.purge(&[delivery_id(1, 1), delivery_id(1, 2)]).await.unwrap(), 1);
    bench.look_after_the_file().await;
    assert_eq!(files_contain(bench.folder.path(), MARKER), Vec::<PathBuf>::new());
    let stats = bench.queue.stats().await.unwrap();
    assert_eq!((stats.dead, stats.pending), (2, 0));
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_file_that_was_large_becomes_small_again() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    for round in 0..20 {
        let batch: Vec<_> = (0..100)
            .map(|number| NewMessage { payload: vec![b'x'; 6_000], ..message(&id(round * 100 + number)) })
            .collect();
        bench.queue.accept(&batch).await.unwrap();
    }
    let large = bench.back_door().pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)).unwrap();
    loop {
        let items = bench.claim(&owner, &Lane::inbound(), 128).await.items;
        if items.is_empty() {
            break;
        }
        let batch = items.into_iter().map(|work| expansion(work.lease, &[])).collect();
        bench.queue.expand(&owner, batch).await.unwrap();
    }
    for _ in 0..large / 200 {
        bench.queue.housekeep().await.unwrap();
    }
    let small = bench.back_door().pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)).unwrap();
    assert!(small * 4 < large * 3, "{large} pages became {small}");
    bench.assert_sound().await;
}

// ---- waiting

#[tokio::test]
async fn a_ring_between_claim_and_wait_is_not_missed() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let mark = bench.claim(&owner, &Lane::inbound(), 1).await.mark;
    bench.accept(&[id(1)]).await;
    timeout(GUARD / 2, bench.queue.wait(&Lane::inbound(), &mark, GUARD)).await.unwrap().unwrap();

    let mark = bench.claim(&owner, &sms(), 1).await.mark;
    let work = bench.claim(&owner, &Lane::inbound(), 1).await.items.pop().unwrap();
    bench.queue.expand(&owner, vec![expansion(work.lease, &["a"])]).await.unwrap();
    timeout(GUARD / 2, bench.queue.wait(&sms(), &mark, GUARD)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_that_is_dropped_takes_nothing_and_one_without_a_ring_ends_in_time() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = Lane::inbound();
    let mark = bench.claim(&owner, &lane, 1).await.mark;
    let dropped = timeout(Duration::from_millis(1), bench.queue.wait(&lane, &mark, GUARD)).await;
    assert!(dropped.is_err());
    let short = bench.queue.wait(&lane, &mark, Duration::from_millis(1));
    timeout(GUARD, short).await.unwrap().unwrap();
    bench.accept(&[id(1)]).await;
    timeout(GUARD / 2, bench.queue.wait(&lane, &mark, GUARD)).await.unwrap().unwrap();
    assert_eq!(bench.claim(&owner, &lane, 1).await.items.len(), 1);
}

#[tokio::test]
async fn a_caller_that_gives_up_harms_nobody() {
    let bench = Bench::new();
    for number in 0..20 {
        let batch = [message(&id(number))];
        let call = bench.queue.accept(&batch);
        // Polled once, then dropped: it may or may not have been taken.
        let _ = timeout(Duration::ZERO, call).await;
    }
    bench.queue.ping().await.unwrap();
    bench.assert_sound().await;
    let again: Vec<_> = (0..20).map(|number| message(&id(number))).collect();
    bench.queue.accept(&again).await.unwrap();
    assert_eq!(bench.queue.stats().await.unwrap().accepted, 20);
}

// ---- the park

#[tokio::test]
async fn parked_work_goes_on_at_its_destinations_rate_and_in_the_order_of_deadlines() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = sms();
    bench.accept_and_route(&owner, &id(1), &["slow", "slow", "slow", "other"]).await;
    let limits = LaneLimits {
        lane: None,
        destination: Some(Rate { interval: Duration::from_millis(1_000), burst: 1 }),
    };
    let claim = || bench.queue.claim(Claim { owner: &owner, lane: &lane, max: 10, limits, busy: &[] });
    let indexes = |claimed: &Claimed| -> Vec<u16> {
        claimed.items.iter().map(|work| work.lease.key().work.index).collect()
    };

    let first = claim().await.unwrap();
    assert_eq!(indexes(&first), [1, 4]);
    assert_eq!((first.wait, first.rate_limited), (Some(Duration::from_secs(1)), false));
    for expected in [2, 3] {
        let early = claim().await.unwrap();
        assert!(early.items.is_empty());
        bench.assert_sound().await;
        bench.clock.advance(early.wait.unwrap());
        assert_eq!(indexes(&claim().await.unwrap()), [expected]);
    }
    assert_eq!(claim().await.unwrap().wait, None);
    bench.assert_sound().await;
}

#[tokio::test]
async fn a_destination_with_a_long_line_does_not_hold_up_the_rest() {
    let bench = Bench::new();
    let owner = Owner::new("worker");
    let lane = sms();
    let many = vec!["flooded"; 400];
    for number in 0..3 {
        bench.accept_and_route(&owner, &id(number), &many).await;
    }
    bench.accept_and_route(&owner, &id(9), &["quiet"]).await;
    let flooded = [DestinationKey::from_stored("flooded")];
    let mut found = Vec::new();
    let mut calls = 0;
    while found.is_empty() {
        calls += 1;
        let limits = LaneLimits::default();
        let claimed = bench
            .queue
            .claim(Claim { owner: &owner, lane: &lane, max: 16, limits, busy: &flooded })
            .await
            .unwrap();
        assert!(calls < 10 && (!claimed.items.is_empty() || claimed.wait == Some(Duration::ZERO)));
        found.extend(claimed.items);
    }
    assert_eq!(found[0].lease.key().work, delivery_id(9, 1));
    bench.assert_sound().await;
}

// ---- damage

#[tokio::test]
async fn the_audit_finds_planted_damage() {
    let damages: [(&str, &str); 14] = [
        ("UPDATE work SET place = 'lost' WHERE idx = 1", "in no place"),
        ("UPDATE work SET turn = NULL WHERE idx = 1", "no turn"),
        ("UPDATE work SET place = 'leased' WHERE idx = 1", "no owner"),
        ("UPDATE work SET due = 1 WHERE idx = 1", "no time"),
        ("UPDATE work SET place = 'parked', turn = NULL WHERE idx = 1", "nothing wakes"),
        ("DELETE FROM work WHERE idx = 1", "counts its pending work wrongly"),
        ("DELETE FROM message", "belongs to no message"),
        ("DELETE FROM lane", "lane that is not listed"),
        ("UPDATE message SET expires_at = 5", "no expiry, or the reverse"),
        ("UPDATE message SET payload = NULL", "lacks one that is needed"),
        ("UPDATE message SET id = 'unreadable'", "unreadable id"),
        ("UPDATE book SET value = value + 1 WHERE name = 'made'", "the books say 3 pending"),
        ("UPDATE work SET died_at = 5 WHERE idx = 1", "did not die"),
        ("DROP INDEX work_parked", "work_parked is missing"),
    ];
    for (damage, expected) in damages {
        let bench = Bench::new();
        bench.accept_and_route(&Owner::new("router"), &id(1), &["a", "b"]).await;
        bench.assert_sound().await;
        bench.back_door().execute_batch(damage).unwrap();
        let findings = bench.queue.audit().await.unwrap();
        assert!(findings.iter().any(|line| line.contains(expected)), "{damage}\n{findings:#?}");
        assert!(findings.iter().all(|line| !line.contains("text of") && !line.contains("recipient a")));
    }
}

#[tokio::test]
async fn a_message_with_an_unreadable_id_is_buried_with_its_bytes_and_its_neighbours_go_on() {
    let bench = Bench::new();
    bench.accept(&[id(1), id(2), id(3)]).await;
    let damage = "UPDATE message SET id = CAST(x'ff00' AS TEXT) WHERE id = 'test:2'";
    bench.back_door().execute_batch(damage).unwrap();
    let claimed = bench.claim(&Owner::new("worker"), &Lane::inbound(), 10).await;
    let handed_out: Vec<_> = claimed.items.iter().map(|work| work.lease.key().work.message.clone()).collect();
    assert_eq!(handed_out, [id(1), id(3)]);
    assert_eq!(claimed.buried.len(), 1);
    let letter = bench.queue.dead_letter(&claimed.buried[0].delivery).await.unwrap().unwrap();
    assert_eq!(letter.letter.cause, DeadCause::Poison);
    assert_eq!(letter.payload.as_deref(), Some(b"text of test:2".as_slice()));
    bench.assert_sound().await;
}

#[tokio::test]
async fn what_is_left_of_a_message_that_was_deleted_is_a_letter_and_does_not_block_its_lane() {
    let bench = Bench::new();
    bench.accept(&[id(1), id(2)]).await;
    bench.back_door().execute_batch("DELETE FROM message WHERE id = 'test:1'").unwrap();
    let claimed = bench.claim(&Owner::new("worker"), &Lane::inbound(), 10).await;
    assert_eq!((claimed.items.len(), claimed.buried.len()), (1, 1));
    let letter = bench.queue.dead_letter(&claimed.buried[0].delivery).await.unwrap().unwrap();
    assert_eq!((letter.letter.cause, letter.payload), (DeadCause::Poison, None));
    bench.assert_sound().await;
}

#[tokio::test]
async fn tables_that_somebody_dropped_are_made_anew_and_nothing_that_is_left_is_lost() {
    for table in ["gate", "lane", "book", "work"] {
        let bench = Bench::new();
        let owner = Owner::new("worker");
        let lane = sms();
        bench.accept_and_route(&owner, &id(1), &["a", "a"]).await;
        let limits = LaneLimits { lane: None, destination: Some(Rate { interval: MINUTE, burst: 1 }) };
        let claim = || bench.queue.claim(Claim { owner: &owner, lane: &lane, max: 10, limits, busy: &[] });
        let in_hand = claim().await.unwrap().items.pop().unwrap();

        bench.back_door().execute_batch(&format!("DROP TABLE {table}")).unwrap();
        let claimed = claim().await.unwrap();
        assert!(claimed.recreated, "{table}");
        assert!(!claim().await.unwrap().recreated);
        let rerouted = bench.claim(&owner, &Lane::inbound(), 1).await.items;
        let left = if table == "work" { (0, 1) } else { (usize::from(table == "gate"), 0) };
        assert_eq!((claimed.items.len(), rerouted.len()), left, "{table}");
        bench.assert_sound().await;
        let settled = bench.settle_one(&owner, in_hand, Settlement::Delivered).await;
        let known = table != "work";
        assert_eq!(settled == Settled::Delivered { late: false }, known, "{table}");
        bench.assert_sound().await;
    }
}

// ---- everything at once

/// Workers that claim, settle in every way, give back, renew, stall and die at random; a service that
/// is killed now and then. `seed` makes it the same every time.
struct Storm {
    bench: Bench,
    dice: fastrand::Rng,
    owners: Vec<(Owner, Vec<Work>)>,
    /// Who holds what until when: nobody else may get it before.
    held: BTreeMap<DeliveryId, (Owner, Timestamp)>,
}

const STORM_RATES: LaneLimits = LaneLimits {
    lane: Some(Rate { interval: Duration::from_millis(1), burst: 40 }),
    destination: Some(Rate { interval: Duration::from_millis(5), burst: 8 }),
};

impl Storm {
    fn new(seed: u64) -> Self {
        let settings = QueueSettings { dead_letter_cap: 200, ..QueueSettings::default() };
        let owners = (0..4).map(|_| (Owner::new("storm"), Vec::new())).collect();
        Self {
            bench: Bench::with(settings),
            dice: fastrand::Rng::with_seed(seed),
            owners,
            held: BTreeMap::new(),
        }
    }

    fn note_hand_outs(&mut self, who: usize, items: Vec<Work>) {
        let now = self.bench.clock.now();
        for work in items {
            let id = work.lease.key().work.clone();
            assert!(work.deadline > now, "handed out after its deadline");
            let owner = self.owners[who].0.clone();
            let until = now.plus(QueueSettings::default().lease);
            if let Some((other, other_until)) = self.held.insert(id, (owner.clone(), until)) {
                assert!(other == owner || other_until <= now, "two owners at once");
            }
            self.owners[who].1.push(work);
        }
    }

    async fn claim(&mut self, who: usize) {
        let lane = if self.dice.bool() { sms() } else { Lane::inbound() };
        let owner = self.owners[who].0.clone();
        let busy: Vec<_> = (0..self.dice.usize(..3)).map(|_| self.destination()).collect();
        let busy: Vec<_> = busy.iter().map(|name| DestinationKey::from_stored(name)).collect();
        let max = self.dice.usize(1..40);
        let limits = STORM_RATES;
        let claimed = self
            .bench
            .queue
            .claim(Claim { owner: &owner, lane: &lane, max, limits, busy: &busy })
            .await
            .unwrap();
        assert!(claimed.items.len() <= max);
        self.note_hand_outs(who, claimed.items);
    }

    fn destination(&mut self) -> String {
        format!("d{}", self.dice.u8(..20))
    }

    async fn settle(&mut self, who: usize) {
        let (owner, in_hand) = &mut self.owners[who];
        let owner = owner.clone();
        let work = std::mem::take(in_hand);
        let (mut settle, mut expand, mut release) = (Vec::new(), Vec::new(), Vec::new());
        let now = self.bench.clock.now();
        for work in work {
            let roll = self.dice.u8(..20);
            self.held.remove(&work.lease.key().work);
            let soon = now.plus(Duration::from_millis(self.dice.u64(..3_000)));
            let attempt = failed(now);
            let settlement = match roll {
                0 => Settlement::RetryAt { due: soon, attempt },
                1 => Settlement::Pause { until: soon, attempt },
                2 => dead(DeadCause::Permanent, now),
                3 => Settlement::RetryAt { due: now.plus(DAY), attempt },
                4 => {
                    release.push(work.lease);
                    continue;
                }
                _ if work.destination.is_none() => {
                    let destinations: Vec<_> = (0..3).map(|_| self.destination()).collect();
                    let names: Vec<_> = destinations.iter().map(String::as_str).collect();
                    expand.push(expansion(work.lease, &names));
                    continue;
                }
                _ => Settlement::Delivered,
            };
            settle.push(Settle { lease: work.lease, settlement });
        }
        let queue = &self.bench.queue;
        queue.settle(&owner, settle).await.unwrap();
        queue.expand(&owner, expand).await.unwrap();
        queue.release(&owner, release).await.unwrap();
    }

    async fn renew(&mut self, who: usize) {
        let (owner, in_hand) = &self.owners[who];
        let keys: Vec<_> = in_hand.iter().map(|work| work.lease.key().clone()).collect();
        let lost = self.bench.queue.renew(owner, &keys).await.unwrap();
        let until = self.bench.clock.now().plus(QueueSettings::default().lease);
        for key in keys.iter().filter(|key| !lost.contains(key)) {
            self.held.insert(key.work.clone(), (owner.clone(), until));
        }
    }

    async fn sweep(&mut self, who: usize) {
        let lane = if self.dice.bool() { sms() } else { Lane::inbound() };
        let swept = self.bench.queue.sweep(&self.owners[who].0, &lane, 20, Cursor::default()).await.unwrap();
        self.note_hand_outs(who, swept.items);
    }

    async fn step(&mut self) {
        let who = self.dice.usize(..self.owners.len());
        match self.dice.u8(..24) {
            0..=7 => self.claim(who).await,
            8..=15 => self.settle(who).await,
            16 | 17 => self.renew(who).await,
            18 | 19 => self.sweep(who).await,
            20 => self.owners[who] = (Owner::new("storm"), Vec::new()),
            21 => self.bench.clock.advance(Duration::from_millis(self.dice.u64(..4_000))),
            22 => drop(self.bench.queue.housekeep().await.unwrap()),
            _ => self.bench.clock.advance(Duration::from_millis(self.dice.u64(..200))),
        }
    }

    /// The whole service dies; its workers with it.
    fn crash(&mut self) {
        let image = self.bench.crashed();
        self.bench = image;
        self.held.clear();
        for (owner, in_hand) in &mut self.owners {
            *owner = Owner::new("storm");
            in_hand.clear();
        }
    }
}

#[tokio::test]
async fn a_storm_of_a_thousand_messages_and_dying_workers_loses_nothing() {
    let mut storm = Storm::new(20_261_124);
    let mut accepted = 0;
    let mut round = 0_usize;
    loop {
        round += 1;
        assert!(round < 100_000, "it does not come to rest");
        if accepted < 1_000 && storm.dice.u8(..3) == 0 {
            let ids: Vec<_> = (accepted..accepted + 20).map(id).collect();
            storm.bench.accept(&ids).await;
            accepted += 20;
        }
        storm.step().await;
        if round.is_multiple_of(400) {
            storm.crash();
        }
        if round.is_multiple_of(100) {
            storm.bench.assert_sound().await;
            if accepted == 1_000 && storm.bench.queue.stats().await.unwrap().pending == 0 {
                break;
            }
        }
    }
    let stats = storm.bench.queue.stats().await.unwrap();
    assert_eq!((stats.accepted, stats.pending), (1_000, 0));
    let ended = stats.delivered + stats.dead + stats.expired;
    assert!(ended > 2_000 && stats.delivered > 1_000, "{stats:?}");
    storm.bench.clock.advance(2 * DAY);
    while storm.bench.queue.housekeep().await.unwrap().more {}
    storm.bench.queue.housekeep().await.unwrap();
    storm.bench.assert_sound().await;
    for table in ["message", "work", "gate"] {
        assert_eq!(rows(&storm.bench, table), 0, "{table}");
    }
}
