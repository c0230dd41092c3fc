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
    NewMessage { id: id.clone(), payload: format!("text of {id}").into_bytes(), deadline: 5 * MINUTE }
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
