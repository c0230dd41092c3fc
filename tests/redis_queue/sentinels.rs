//! A master that sentinels know of, and that changes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Acceptance, Queue, QueueError, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};
use tokio::time::timeout;

use super::bench::{GUARD, id, message};
use crate::support::installation::Installation;
use crate::support::ledger::{Allowed, Ledger};
use crate::support::ports::free_port;
use crate::support::pretend_redis::{PretendRedis, bulk};
use crate::support::provider::Provider;
use crate::support::redis_server::RedisServer;
use crate::support::sentinels::Guarded;

/// A sentinel that names whom the test wants.
struct Sentinel {
    pretend: PretendRedis,
    named: Arc<AtomicU16>,
}

impl Sentinel {
    async fn naming(server: &RedisServer) -> Self {
        let named = Arc::new(AtomicU16::new(server.port()));
        let says = Arc::clone(&named);
        let answer = move |words: &[String]| {
            let asked: Vec<&str> = words.iter().map(String::as_str).collect();
            match asked[..] {
                ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"] => {
                    format!("*2\r\n{}{}", bulk("127.0.0.1"), bulk(&says.load(Ordering::Relaxed).to_string()))
                }
                _ => "*-1\r\n".to_owned(),
            }
        };
        Self { pretend: PretendRedis::start(answer).await, named }
    }

    fn name(&self, server: &RedisServer) {
        self.named.store(server.port(), Ordering::Relaxed);
    }

    fn host(&self) -> String {
        self.pretend.url().replace("redis://", "")
    }

    fn queue(&self) -> RedisQueue {
        queue_at(&format!("redis+sentinel://{}/main", self.host()))
    }
}

fn queue_at(url: &str) -> RedisQueue {
    let at = RedisSettings::at(SecretString::from(url));
    RedisQueue::new(at, QueueSettings::default(), Clock::system()).unwrap()
}

async fn refusal(queue: &RedisQueue) -> String {
    match timeout(GUARD, queue.ping()).await.unwrap() {
        Err(QueueError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn until_back(queue: &RedisQueue) {
    let back = timeout(GUARD, async {
        while queue.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    back.await.expect("the queue works again");
}

#[tokio::test]
async fn whom_a_sentinel_names_must_be_a_master() {
    let (master, replica) = (RedisServer::start(), RedisServer::start());
    replica.follow(&master).await;
    let sentinel = Sentinel::naming(&replica).await;
    let queue = sentinel.queue();
    assert_eq!(refusal(&queue).await, "whom the sentinels call master is none");
    sentinel.name(&master);
    until_back(&queue).await;
    assert_eq!(queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
}

#[tokio::test]
async fn a_master_that_is_one_no_more_is_left_for_the_new_one() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let sentinel = Sentinel::naming(&old).await;
    let queue = sentinel.queue();
    queue.prepare().await.unwrap();
    assert_eq!(queue.accept(&[message(&id(1))]).await.unwrap(), [Acceptance::Accepted]);
    // The connections stay, and what they lead to answers PING as ever.
    old.command(&format!("REPLICAOF 127.0.0.1 {}", new.port()));
    sentinel.name(&new);
    let stored = timeout(GUARD, async {
        loop {
            match queue.accept(&[message(&id(2))]).await {
                Ok(answers) => break answers,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    assert_eq!(stored.await.expect("the new master is found"), [Acceptance::Accepted]);
    assert!(new.command("EXISTS sq1:{0}:m:test:2").starts_with(":1"));
}

#[tokio::test]
async fn one_sentinel_that_knows_is_enough() {
    let master = RedisServer::start();
    let knows = Sentinel::naming(&master).await;
    // One never answers, nobody is at the next, one knows other masters only.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let ignorant = PretendRedis::start(|_| "*-1\r\n".to_owned()).await;
    let others = format!(
        "127.0.0.1:{silent_port},127.0.0.1:{},{}",
        free_port(),
        ignorant.url().replace("redis://", "")
    );
    let queue = queue_at(&format!("redis+sentinel://{others},{}/main", knows.host()));
    timeout(GUARD, queue.prepare()).await.unwrap().unwrap();

    let queue = queue_at(&format!("redis+sentinel://{}/main", ignorant.url().replace("redis://", "")));
    assert!(refusal(&queue).await.contains("no sentinel knows the master"));
}

#[tokio::test]
async fn a_master_that_is_killed_is_replaced_and_nothing_that_a_replica_had_is_lost() {
    let provider = Provider::start();
    let mut guarded = Guarded::start().await;
    let queue = format!("backend = \"redis\"\nurl = \"{}\"\ndurability = \"replica\"", guarded.url());
    let fast = "[channel.sms]\nrate_per_destination = \"off\"\nrate = \"off\"\n\n\
                [channel.slack]\nrate_per_destination = \"off\"\nrate = \"off\"\n\n[worker]\nlease = \"11s\"\n";
    let installation = Installation::with_queue(&provider, &queue, fast);
    let mut ingress = installation.start("sms-ingress").await;
    let mut worker = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    let poster = installation.poster();
    ledger.post_all(poster, &[ingress.ingress], 0..30, 4).await;

    // Killed while texts come in; those that are refused are brought again.
    let during = tokio::spawn({
        let (ledger, poster, to) = (Arc::clone(&ledger), poster.clone(), ingress.ingress);
        async move { ledger.post_all(&poster, &[to], 30..230, 4).await }
    });
    while ledger.taken() < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ledger.fault();
    guarded.lose_master().await;
    // The old one comes back with what it had, and learns who is master now. Until then there is no replica, so
    // nothing is taken.
    let [old, new] = &mut guarded.servers;
    old.restart();
    old.follow(new).await;
    during.await.expect("all texts are taken");
    // A send that was done and whose record was lost with the master is done once more.
    let allowed = Allowed { duplicates: 200, ..Allowed::default() };
    ledger.check(&installation, &provider, allowed).await;
    assert_eq!((ingress.stop(), worker.stop()), (Some(0), Some(0)));
}
