//! A server that answers, and is not the one to talk to; and one that does not answer at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};
use tokio::time::timeout;

use super::bench::GUARD;
use crate::support::pretend_redis::PretendRedis;

fn queue_at(server: &PretendRedis) -> RedisQueue {
    let at = RedisSettings::at(SecretString::from(server.url()));
    RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
}

async fn until_back(queue: &RedisQueue) {
    let back = timeout(GUARD, async {
        while let Err(error) = queue.ping().await {
            assert!(matches!(error, QueueError::Unavailable(_)), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    back.await.expect("the queue works again");
}

/// What the script of a ping answers.
const ONE_SHARD: &str = ":1\r\n";

/// What a store that was never used says of its books.
const NO_BOOKS: &str = "$-1\r\n";

#[tokio::test]
async fn a_connection_to_the_wrong_server_is_replaced_by_one_to_the_right_one() {
    for refusal in [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "MOVED 8142 127.0.0.1:1",
    ] {
        // As behind a name or a proxy: what a connection led to it leads to for ever.
        let server = PretendRedis::start_each(move |connection, words| match (connection, &*words[0]) {
            (_, "HGET") => NO_BOOKS.to_owned(),
            (0, _) => format!("-{refusal}\r\n"),
            _ => ONE_SHARD.to_owned(),
        })
        .await;
        let queue = queue_at(&server);
        // Of what a cluster does with its slots nobody hears.
        let is_hidden = refusal.starts_with("MOVED") || refusal.starts_with("CLUSTERDOWN");
        assert_eq!(queue.ping().await.is_ok(), is_hidden, "{refusal}");
        until_back(&queue).await;
        assert_eq!((server.connections(), queue.reconnects()), (2, 1), "{refusal}");
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced() {
    let server = PretendRedis::start_each(|connection, words| match (connection, &*words[0]) {
        (_, "HGET") => NO_BOOKS.to_owned(),
        (0, _) => String::new(),
        _ => ONE_SHARD.to_owned(),
    })
    .await;
    let queue = queue_at(&server);
    until_back(&queue).await;
    assert_eq!(server.connections(), 2);
    assert_eq!(server.count("EVALSHA"), 3, "one silence may be a slow answer, two are none");
}

#[tokio::test]
async fn a_server_that_loads_for_long_is_not_overrun() {
    let is_loading = Arc::new(AtomicBool::new(true));
    let loads = Arc::clone(&is_loading);
    let server = PretendRedis::start(move |_| match loads.load(Ordering::Relaxed) {
        true => "-LOADING Redis is loading the dataset in memory\r\n".to_owned(),
        false => ONE_SHARD.to_owned(),
    })
    .await;
    let queue = queue_at(&server);
    for _ in 0..1_000 {
        let refused = queue.ping().await;
        assert_eq!(
            refused,
            Err(QueueError::Unavailable("the server is loading its data (LOADING)".to_owned()))
        );
    }
    // All but a few fail without an attempt, though each new connection answers at first.
    assert!(server.connections() < 20, "{} connections", server.connections());
    is_loading.store(false, Ordering::Relaxed);
    until_back(&queue).await;
}
