//! A queue on a server of its own, and the words the tests are written in.

use std::borrow::Borrow;
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::{Clock, Timestamp};
use sms_broadcaster::delivery::{
    Attempt, ChannelId, DeadCause, DeliveryId, DestinationKey, Reason, Settlement,
};
use sms_broadcaster::message::MessageId;
use sms_broadcaster::queue::contract::{
    Acceptance, Claim, Claimed, Cursor, Expansion, Lane, LaneLimits, Lease, NewDelivery, NewMessage, Owner,
    Queue, QueueAdmin, QueueSettings, Settle, Settled, Swept, Work,
};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use crate::support::redis_server::RedisServer;

/// Ends a test that hangs.
pub(super) const GUARD: Duration = Duration::from_secs(30);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// Where a bench's clock begins: the first moment of 2026.
pub(super) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A queue on a server, with a clock that is moved by hand.
pub(super) struct Bench<Server: Borrow<RedisServer> = RedisServer> {
    pub(super) server: Server,
    pub(super) clock: Clock,
    pub(super) queue: RedisQueue,
}

/// Any queue on `server`.
pub(super) fn queue_on(server: &RedisServer, settings: QueueSettings, clock: &Clock) -> RedisQueue {
    let at = RedisSettings::at(SecretString::from(server.url()));
    RedisQueue::new(at, settings, clock.clone()).unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(RedisServer::start(), QueueSettings::default())
    }
}

impl<Server: Borrow<RedisServer>> Bench<Server> {
    pub(super) fn with(server: Server, settings: QueueSettings) -> Self {
        let clock = Clock::manual(START);
        let queue = queue_on(server.borrow(), settings, &clock);
        Self { server, clock, queue }
    }

    /// Sends a command past the queue; `~` is the prefix of our keys.
    pub(super) fn redis(&self, command: &str) -> String {
        self.server.borrow().command(&command.replace('~', "sq1:{0}:"))
    }

    pub(super) async fn accept(&self, ids: &[MessageId]) {
        let batch: Vec<_> = ids.iter().map(message).collect();
        let answers = self.queue.accept(&batch).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Acceptance::Accepted), "{answers:?}");
    }

    pub(super) async fn claim(&self, owner: &Owner, lane: &Lane, max: usize) -> Claimed {
        self.claim_within(owner, lane, max, LaneLimits::default()).await
    }

    pub(super) async fn claim_within(
        &self,
        owner: &Owner,
        lane: &Lane,
        max: usize,
        limits: LaneLimits,
    ) -> Claimed {
        self.queue.claim(Claim { owner, lane, max, limits, busy: &[] }).await.unwrap()
    }

    /// Accepts one message and makes `destinations` its deliveries by text message.
    pub(super) async fn accept_and_route(&self, owner: &Owner, id: &MessageId, destinations: &[&str]) {
        self.accept(std::slice::from_ref(id)).await;
        let claimed = self.claim(owner, &Lane::inbound(), 128).await;
        let batch = claimed.items.into_iter().map(|work| expansion(work.lease, destinations)).collect();
        let answers = self.queue.expand(owner, batch).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Settled::Expanded), "{answers:?}");
    }

    pub(super) async fn settle(&self, owner: &Owner, work: Work, settlement: Settlement) -> Settled {
        let batch = vec![Settle { lease: work.lease, settlement }];
        self.queue.settle(owner, batch).await.unwrap().pop().unwrap()
    }

    pub(super) async fn sweep(&self, owner: &Owner, lane: &Lane) -> Swept {
        self.queue.sweep(owner, lane, 128, Cursor::default()).await.unwrap()
    }

    /// Keeps house until there is no more to do; whatever expired.
    pub(super) async fn housekeep(&self) -> Vec<DeliveryId> {
        let mut expired = Vec::new();
        loop {
            let kept = self.queue.housekeep().await.unwrap();
            expired.extend(kept.expired.into_iter().map(|ended| ended.delivery));
            if !kept.more {
                return expired;
            }
        }
    }

    /// Hands out and delivers all that is ready, in every lane.
    pub(super) async fn drain(&self, owner: &Owner) -> usize {
        let mut delivered = 0;
        loop {
            let routings = self.claim(owner, &Lane::inbound(), 128).await.items;
            let batch: Vec<_> = routings.into_iter().map(|work| expansion(work.lease, &["a"])).collect();
            let routed = batch.len();
            self.queue.expand(owner, batch).await.unwrap();
            let works = self.claim(owner, &sms(), 128).await.items;
            let number = works.len();
            let batch = works
                .into_iter()
                .map(|work| Settle { lease: work.lease, settlement: Settlement::Delivered })
                .collect();
            self.queue.settle(owner, batch).await.unwrap();
            delivered += number;
            if routed + number == 0 {
                return delivered;
            }
        }
    }

    /// Nothing is wrong.
    pub(super) async fn assert_sound(&self) {
        assert_eq!(self.queue.audit().await.unwrap(), Vec::<String>::new());
        assert_eq!(self.queue.stats().await.unwrap().conservation_error, 0);
    }
}

pub(super) fn sms() -> Lane {
    Lane::of(&ChannelId::sms())
}

pub(super) fn id(number: usize) -> MessageId {
    MessageId::of_source("test", &number.to_string()).unwrap()
}

pub(super) fn ids(numbers: std::ops::Range<usize>) -> Vec<MessageId> {
    numbers.map(id).collect()
}

pub(super) fn delivery_id(message: usize, index: u16) -> DeliveryId {
    DeliveryId { message: id(message), index }
}

pub(super) fn message(id: &MessageId) -> NewMessage {
    NewMessage {
        id: id.clone(),
        payload: format!("text of {id}").into_bytes(),
        deadline: 5 * MINUTE,
        age: Duration::ZERO,
    }
}

pub(super) fn expansion(lease: Lease, destinations: &[&str]) -> Expansion {
    let delivery = |name: &&str| NewDelivery {
        channel: ChannelId::sms(),
        destination: DestinationKey::from_stored(name),
        label: format!("label of {name}"),
        recipient: format!("recipient {name}").into_bytes(),
    };
    let deliveries = destinations.iter().map(delivery).collect();
    Expansion { lease, subscriber: "team".to_owned(), deadline: 5 * MINUTE, deliveries }
}

pub(super) fn failed(at: Timestamp) -> Attempt {
    Attempt {
        at,
        outcome: "retry".to_owned(),
        reason: Reason::Server,
        status: Some(503),
        code: None,
        ambiguous: false,
    }
}

pub(super) fn dead(cause: DeadCause, at: Timestamp) -> Settlement {
    Settlement::Dead { cause, attempt: Some(failed(at)) }
}
