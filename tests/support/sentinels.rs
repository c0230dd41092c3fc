//! A master, a replica, and three sentinels who watch over them: real processes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::free_port;
use super::redis_server::RedisServer;
use super::waiting::until;

/// What the sentinels call the master.
pub(crate) const MASTER: &str = "main";

/// So many ms without an answer a master that lives may be: on a busy machine it has to wait for its turn.
const PATIENT: u32 = 60_000;

/// The same when it was killed. A replica that has heard nothing from it for more than ten times as long is not made
/// master, and a test may have cut it off before.
const IMPATIENT: u32 = 2_000;

/// The longest a sentinel may take to answer before it is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// Dropping it ends all of them.
pub(crate) struct Guarded {
    /// The master at the beginning, and its replica.
    pub(crate) servers: [RedisServer; 2],
    sentinels: Vec<(Child, u16, TempDir)>,
}

impl Guarded {
    /// Starts them, and waits until everybody knows everybody.
    pub(crate) async fn start() -> Self {
        let (master, replica) = (RedisServer::start(), RedisServer::start());
        replica.follow(&master).await;
        let mut guarded = Self { servers: [master, replica], sentinels: Vec::new() };
        for _ in 0..3 {
            guarded.add_sentinel();
        }
        let ports: Vec<u16> = guarded.sentinels.iter().map(|(_, port, _)| *port).collect();
        for port in ports {
            until("the sentinels know each other and the replica", || {
                let known = ask(port, "MASTER");
                let says = |field: &str, value: &str| {
                    known.chunks_exact(2).any(|pair| pair[0] == field && pair[1] == value)
                };
                says("num-slaves", "1") && says("num-other-sentinels", "2") && says("flags", "master")
            })
            .await;
        }
        guarded
    }

    fn add_sentinel(&mut self) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, master) = (free_port(), self.servers[0].port());
        let file = folder.path().join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} {PATIENT}\nsentinel failover-timeout {MASTER} 10000\n",
            folder.path().display()
        );
        std::fs::write(&file, settings).expect("the folder is ours");
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server can be started; ./test installs it");
        self.sentinels.push((child, port, folder));
    }

    /// `redis+sentinel://127.0.0.1:{port},…/main`.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|(_, port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// Has them make the replica master, while the master lives.
    pub(crate) async fn demote(&self) {
        // Who is master must be known to be settled: another time it may be too early.
        until("a sentinel begins a failover", || {
            self.sentinels.iter().any(|(_, port, _)| tell(*port, "FAILOVER") == Some("OK".to_owned()))
        })
        .await;
    }

    /// Kills the master, and waits until the replica is master.
    pub(crate) async fn lose_master(&mut self) {
        self.servers[0].kill();
        self.give_up_after(IMPATIENT).await;
        self.wait_for_master(1).await;
        self.give_up_after(PATIENT).await;
    }

    /// From now on the sentinels believe that a master is dead that has not answered for so many ms.
    async fn give_up_after(&self, ms: u32) {
        for (_, port, _) in &self.sentinels {
            until("a sentinel takes its orders", || {
                let order = ["SENTINEL", "SET", MASTER, "down-after-milliseconds", &ms.to_string()];
                say(*port, &order) == Some("OK".to_owned())
            })
            .await;
        }
    }

    /// Waits until all sentinels call this server master.
    pub(crate) async fn wait_for_master(&self, server: usize) {
        let port = self.servers[server].port().to_string();
        for (_, sentinel, _) in &self.sentinels {
            until("the sentinels have another master", || {
                ask(*sentinel, "GET-MASTER-ADDR-BY-NAME").last() == Some(&port)
            })
            .await;
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for (child, _, _) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a sentinel answers about the master; nothing if it does not answer.
fn ask(port: u16, what: &str) -> Vec<String> {
    tell(port, what).unwrap_or_default()
}

/// Says something about the master to a sentinel; nothing if it refuses or does not answer.
fn tell<T: redis::FromRedisValue>(port: u16, what: &str) -> Option<T> {
    say(port, &["SENTINEL", what, MASTER])
}

/// Gives an order to a sentinel; nothing if it refuses or does not answer.
fn say<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> Option<T> {
    let asked = redis::Client::open(("127.0.0.1", port))
        .and_then(|client| client.get_connection_with_timeout(ANSWER));
    let mut connection = asked.ok()?;
    let _ = connection.set_read_timeout(Some(ANSWER));
    redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).ok()
}
