//! What has to be true before an acceptance is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Acceptance, Queue, QueueAdmin, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{Durability, RedisQueue, RedisSettings};
use tokio::time::timeout;

use super::bench::{GUARD, id, message};
use crate::support::pretend_redis::{PretendRedis, bulk};
use crate::support::redis_server::RedisServer;

fn queue_at(url: String, durability: Durability) -> RedisQueue {
    let at = RedisSettings { durability, ..RedisSettings::at(SecretString::from(url)) };
    RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
}

async fn accept(queue: &RedisQueue, number: usize) -> Result<Acceptance, QueueError> {
    let batch = [message(&id(number))];
    Ok(timeout(GUARD, queue.accept(&batch)).await.unwrap()?[0])
}

fn is_unavailable(result: &Result<Acceptance, QueueError>, because: &str) -> bool {
    matches!(result, Err(QueueError::Unavailable(why)) if why.contains(because))
}

fn signal(server: &RedisServer, name: &str) {
    let status = std::process::Command::new("kill").args([name, &server.pid().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits until a line of the server's `INFO replication` is `line`.
async fn until_replication_says(server: &RedisServer, line: &str) {
    let said = timeout(GUARD, async {
        while !server.command("INFO replication").lines().any(|have| have == line) {
            tokio::task::yield_now().await;
        }
    });
    said.await.expect("the replica is connected");
}

async fn replica_of(main: &RedisServer) -> RedisServer {
    let replica = RedisServer::start();
    replica.follow(main).await;
    replica
}

#[tokio::test]
async fn with_a_replica_wanted_nothing_is_safe_before_one_has_it() {
    let server = RedisServer::start();
    let queue = queue_at(server.url(), Durability::Replica);
    queue.prepare().await.unwrap();
    assert!(is_unavailable(&accept(&queue, 1).await, "no replica"));

    let replica = replica_of(&server).await;
    // The repeat finds it stored, and by now a replica has it too.
    assert_eq!(accept(&queue, 1).await.unwrap(), Acceptance::Duplicate);
    assert_eq!(accept(&queue, 2).await.unwrap(), Acceptance::Accepted);
    assert!(replica.command("EXISTS sq1:{0}:m:test:2").starts_with(":1"));

    signal(&replica, "-STOP");
    assert!(is_unavailable(&accept(&queue, 3).await, "no replica"));
    assert!(queue.status(&id(3)).await.unwrap().is_some(), "stored, and not safe");
    assert!(is_unavailable(&accept(&queue, 3).await, "no replica"), "no more safe by being asked twice");
    signal(&replica, "-CONT");
    until_replication_says(&replica, "master_link_status:up").await;
    assert_eq!(accept(&queue, 3).await.unwrap(), Acceptance::Duplicate);
}

#[tokio::test]
async fn disk_and_replica_wants_both() {
    let server = RedisServer::start_with(&["--appendfsync", "always"]);
    let queue = queue_at(server.url(), Durability::DiskAndReplica);
    queue.prepare().await.unwrap();
    assert!(is_unavailable(&accept(&queue, 1).await, "no replica"));
    let _replica = replica_of(&server).await;
    assert_eq!(accept(&queue, 1).await.unwrap(), Acceptance::Duplicate);
}

/// A server that was just started and says of itself what `about` says; scripts that store answer as if
/// they had, `WAITAOF` as told.
async fn newer_server(about: &'static str, waited: &'static str) -> PretendRedis {
    PretendRedis::start(move |words| match words[0].to_ascii_uppercase().as_str() {
        "INFO" => {
            bulk(&format!("redis_version:7.4.1\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n{about}"))
        }
        "CONFIG" => format!("*2\r\n{}{}", bulk("appendfsync"), bulk("everysec")),
        "EVALSHA" => format!("*1\r\n{}", bulk("accepted")),
        "WAITAOF" => waited.to_owned(),
        _ => "-ERR unexpected\r\n".to_owned(),
    })
    .await
}

#[tokio::test]
async fn a_server_whose_disk_can_be_waited_for_is_waited_for() {
    let server = newer_server("aof_enabled:1\r\n", "*2\r\n:1\r\n:0\r\n").await;
    let queue = queue_at(server.url(), Durability::Disk);
    assert_eq!(accept(&queue, 1).await.unwrap(), Acceptance::Accepted);
    assert_eq!(server.count("WAITAOF"), 1);

    let slow = newer_server("aof_enabled:1\r\n", "*2\r\n:0\r\n:0\r\n").await;
    let queue = queue_at(slow.url(), Durability::Disk);
    assert!(is_unavailable(&accept(&queue, 1).await, "not on the server's disk"));
}

#[tokio::test]
async fn what_a_busy_disk_keeps_from_being_written_is_not_answered_before_it_is() {
    // A kill loses what a server holds back while its disk is busy, though it has answered.
    let looks = Arc::new(AtomicUsize::new(0));
    let looked = Arc::clone(&looks);
    let server = PretendRedis::start(move |words| match words[0].to_ascii_uppercase().as_str() {
        "INFO" if words.len() == 2 => {
            let (size, held_back) = match looked.fetch_add(1, Ordering::Relaxed) {
                0 => (1_000, 300),
                1..5 => (1_000, 900),
                _ => (1_300, 600),
            };
            bulk(&format!(
                "aof_enabled:1\r\naof_base_size:90\r\naof_current_size:{size}\r\naof_buffer_length:{held_back}\r\n"
            ))
        }
        "INFO" => bulk("redis_version:7.0.15\r\nrole:master\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n"),
        "EVALSHA" => format!("*1\r\n{}", bulk("accepted")),
        _ => "-ERR unexpected\r\n".to_owned(),
    })
    .await;
    let queue = queue_at(server.url(), Durability::Process);
    assert_eq!(accept(&queue, 1).await.unwrap(), Acceptance::Accepted);
    assert_eq!(looks.load(Ordering::Relaxed), 6, "answered when it was written, not before and not later");

    // One whose disk does not come back in time.
    looks.store(1, Ordering::Relaxed);
    let stuck = newer_server("aof_enabled:1\r\naof_current_size:10\r\naof_buffer_length:5\r\n", "").await;
    let queue = queue_at(stuck.url(), Durability::Process);
    assert!(is_unavailable(&accept(&queue, 1).await, "has not written it yet"));
}

#[tokio::test]
async fn a_server_that_took_the_place_of_another_is_looked_at_again() {
    let mut server = RedisServer::start_with(&["--appendfsync", "always"]);
    let queue = queue_at(server.url(), Durability::Disk);
    queue.prepare().await.unwrap();
    assert_eq!(accept(&queue, 1).await.unwrap(), Acceptance::Accepted);
    // One that answers before it has synced.
    server.restart_with(&["--appendfsync", "everysec"]);
    let refused = timeout(GUARD, async {
        loop {
            match accept(&queue, 2).await {
                Err(QueueError::Unusable(why)) => break why,
                Err(_) => tokio::task::yield_now().await,
                Ok(answer) => panic!("{answer:?}"),
            }
        }
    });
    assert!(refused.await.unwrap().contains("appendfsync always"));
}
