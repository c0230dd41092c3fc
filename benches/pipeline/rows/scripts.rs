//! The row about the scripts: what Redis itself spends on one piece of work in every transition.

use std::io;
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::delivery::{DestinationKeyer, Recipient, Settlement};
use sms_broadcaster::message::{MessageId, PhoneNumber};
use sms_broadcaster::queue::contract::{
    Claim, Expansion, Lane, LaneLimits, MAX_BATCH, NewDelivery, NewMessage, Owner, Queue, QueueError,
    QueueSettings, Settle, Work,
};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::bench::Bench;
use crate::fixtures::{FROM, TOKEN, message};
use crate::redis::{Fsync, Redis};
use crate::report::Report;

const ROW: &str = "scripts";

/// Deliveries claimed and settled at once: a worker's concurrency by default, or one.
const BATCHES: [usize; 2] = [64, 1];

pub(super) fn scripts(bench: &Bench, report: &mut Report) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for _ in 0..bench.rounds {
        for batch in BATCHES {
            let redis = bench.redis(Fsync::EverySecond)?;
            let driver = Driver::new(&redis, batch).map_err(io::Error::other)?;
            runtime.block_on(driver.walk(report)).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Takes messages through the queue as ingress and worker do, batch by batch.
struct Driver<'r> {
    redis: &'r Redis,
    queue: RedisQueue,
    owner: Owner,
    batch: usize,
    messages: usize,
}

impl<'r> Driver<'r> {
    fn new(redis: &'r Redis, batch: usize) -> Result<Self, QueueError> {
        let url = SecretString::from(format!("redis://127.0.0.1:{}", redis.port));
        let queue = RedisQueue::new(RedisSettings::at(url), QueueSettings::default(), Clock::system())?;
        Ok(Self { redis, queue, owner: Owner::new("bench"), batch, messages: (batch * 100).min(5_120) })
    }

    async fn walk(&self, report: &mut Report) -> Result<(), QueueError> {
        self.queue.prepare().await?;
        let batch = self.batch;
        let mut spent = |name: &str, before: Duration, pieces: usize| {
            let each = (self.redis.process.main_thread_cpu() - before).as_secs_f64() * 1e6 / pieces as f64;
            report.note(ROW, &format!("{name}, {batch} at once"), "µs", each);
        };
        let now = || self.redis.process.main_thread_cpu();

        let new: Vec<NewMessage> = (0..self.messages).map(new_message).collect();
        let before = now();
        for part in new.chunks(batch) {
            self.queue.accept(part).await?;
        }
        spent("accept a message", before, self.messages);

        let before = now();
        let mut routings = Vec::with_capacity(self.messages);
        while routings.len() < self.messages {
            routings.extend(self.claim(&Lane::inbound()).await?);
        }
        spent("claim a message", before, self.messages);

        let mut expansions: Vec<_> = routings.into_iter().map(expansion).collect();
        let before = now();
        while !expansions.is_empty() {
            let part = expansions.drain(..batch.min(expansions.len())).collect();
            self.queue.expand(&self.owner, part).await.map_err(|unrecorded| unrecorded.error)?;
        }
        spent("expand a message to 3 deliveries", before, self.messages);

        let lane = Lane::from_stored("sms");
        let (mut claiming, mut settling, mut deliveries) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let before = now();
            let claimed = self.claim(&lane).await?;
            claiming += now() - before;
            if claimed.is_empty() {
                break;
            }
            deliveries += claimed.len();
            let delivered = |work: Work| Settle { lease: work.lease, settlement: Settlement::Delivered };
            let settles = claimed.into_iter().map(delivered).collect();
            let before = now();
            self.queue.settle(&self.owner, settles).await.map_err(|unrecorded| unrecorded.error)?;
            settling += now() - before;
        }
        spent("claim a delivery", now() - claiming, deliveries);
        spent("settle a delivery", now() - settling, deliveries);
        Ok(())
    }

    async fn claim(&self, lane: &Lane) -> Result<Vec<Work>, QueueError> {
        let (owner, max, limits) = (&self.owner, self.batch.min(MAX_BATCH), LaneLimits::default());
        let claim = Claim { owner, lane, max, limits, busy: &[] };
        Ok(self.queue.claim(claim).await?.items)
    }
}

fn new_message(number: usize) -> NewMessage {
    NewMessage {
        id: MessageId::twilio(&format!("SM{number:032x}")).expect("an id"),
        payload: message(FROM).to_payload(),
        deadline: Duration::from_secs(600),
        age: Duration::ZERO,
    }
}

fn expansion(work: Work) -> Expansion {
    let keyer = DestinationKeyer::new(TOKEN.as_bytes());
    let delivery = |phone| {
        let recipient = Recipient::Sms { to: PhoneNumber::parse(phone).expect("a number") };
        NewDelivery {
            channel: recipient.channel(),
            destination: keyer.key(&recipient),
            label: recipient.masked(),
            recipient: serde_json::to_vec(&recipient).expect("plain strings"),
        }
    };
    let deliveries = ["+14443332222", "+10009998765", "+16667778888"].map(delivery).into();
    let deadline = Duration::from_secs(600);
    Expansion { lease: work.lease, subscriber: "Example".to_owned(), deadline, deliveries }
}
