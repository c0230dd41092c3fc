//! Servers that must not be used.

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{Durability, RedisQueue, RedisSettings};

use crate::support::redis_server::RedisServer;

async fn prepared(server: &RedisServer, durability: Durability) -> Result<(), QueueError> {
    let settings = RedisSettings { durability, ..RedisSettings::at(SecretString::from(server.url())) };
    RedisQueue::new(settings, QueueSettings::default(), Clock::system()).unwrap().prepare().await
}

fn is_unusable(result: &Result<(), QueueError>, because: &str) -> bool {
    matches!(result, Err(QueueError::Unusable(why)) if why.contains(because))
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-lru", "allkeys-random"] {
        let server = RedisServer::start_with(&["--maxmemory-policy", policy]);
        assert!(is_unusable(&prepared(&server, Durability::Process).await, policy));
    }
}

#[tokio::test]
async fn durability_of_the_disk_needs_a_server_that_writes_every_time() {
    let server = RedisServer::start();
    assert!(is_unusable(&prepared(&server, Durability::Disk).await, "appendfsync"));
    server.command("CONFIG SET appendfsync always");
    assert_eq!(prepared(&server, Durability::Disk).await, Ok(()));
    server.command("CONFIG SET appendonly no");
    assert!(is_unusable(&prepared(&server, Durability::Disk).await, "appendonly"));
    assert_eq!(prepared(&server, Durability::Process).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_hides_its_configuration_will_do_unless_the_disk_is_asked_for() {
    let server = RedisServer::start();
    server.command("ACL SETUSER default -config");
    assert_eq!(prepared(&server, Durability::Process).await, Ok(()));
    assert!(is_unusable(&prepared(&server, Durability::Disk).await, "CONFIG GET"));
}

#[test]
fn a_url_of_another_kind_is_refused_before_anything_is_asked() {
    for url in ["http://:hunter2@h", "redis+sentinel://hunter2@h", "redis://:hunter2@a,,b", "hunter2"] {
        let settings = RedisSettings::at(SecretString::from(url));
        match RedisQueue::new(settings, QueueSettings::default(), Clock::system()) {
            Err(QueueError::Unusable(why)) => assert!(!why.contains("hunter2"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
