//! A Redis Cluster of three masters: real processes.

use super::ports::free_port;
use super::redis_server::RedisServer;
use super::waiting::until;

/// The last slot of a cluster, which are counted from 0.
const LAST_SLOT: u32 = 16_383;

/// So many ms without an answer a node that lives may be: on a busy machine it has to wait for its turn.
const PATIENT: u32 = 60_000;

/// The same when it was killed, and while a new cluster agrees on itself, which takes a multiple of it.
const IMPATIENT: u32 = 2_000;

/// Masters of a cluster.
pub(crate) const MASTERS: usize = 3;

/// Three masters with a third of the slots each, and where asked for behind them their replicas in the same order.
/// Dropping it ends them.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
    /// Where each talks to the others.
    buses: Vec<String>,
}

impl Cluster {
    /// Starts three masters, and waits until all nodes know that all slots are served.
    pub(crate) async fn start() -> Self {
        Self::start_nodes(MASTERS).await
    }

    /// The same with a replica for each, which has all that its master has.
    pub(crate) async fn start_with_replicas() -> Self {
        let cluster = Self::start_nodes(2 * MASTERS).await;
        let (masters, replicas) = cluster.nodes.split_at(MASTERS);
        for (number, replica) in replicas.iter().enumerate() {
            assert_eq!(replica.command(&format!("CLUSTER REPLICATE {}", cluster.id_of(number))), "+OK");
        }
        until("every master has its replica", || {
            masters.iter().all(|master| master.command("INFO replication").contains("state=online"))
        })
        .await;
        cluster
    }

    async fn start_nodes(count: usize) -> Self {
        let buses: Vec<String> = (0..count).map(|_| free_port().to_string()).collect();
        let start = |bus: &String| {
            RedisServer::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                &IMPATIENT.to_string(),
                "--cluster-port",
                bus,
            ])
        };
        let cluster = Self { nodes: buses.iter().map(start).collect(), buses };
        for (number, node) in (0..).zip(&cluster.nodes[..MASTERS]) {
            let (from, to) = (number * (LAST_SLOT + 1) / 3, (number + 1) * (LAST_SLOT + 1) / 3 - 1);
            assert_eq!(node.command(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "+OK");
        }
        for node in &cluster.nodes {
            for (other, bus) in cluster.nodes.iter().zip(&cluster.buses) {
                let answer = node.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port()));
                assert_eq!(answer, "+OK");
            }
        }
        until("all nodes serve all slots", || {
            let says = |node: &RedisServer, line: &str| {
                node.command("CLUSTER INFO").lines().any(|found| found.trim() == line)
            };
            let known = format!("cluster_known_nodes:{count}");
            cluster.nodes.iter().all(|node| says(node, "cluster_state:ok") && says(node, &known))
        })
        .await;
        give_up_after(PATIENT, &cluster.nodes);
        cluster
    }

    /// Kills a master, and waits until its replica is master.
    pub(crate) async fn lose(&mut self, master: usize) {
        self.nodes[master].kill();
        let (before, after) = (&self.nodes[..master], &self.nodes[master + 1..]);
        let others = || before.iter().chain(after);
        give_up_after(IMPATIENT, others());
        let replica = &self.nodes[master + MASTERS];
        until("its replica is the master", || replica.command("ROLE").contains("master")).await;
        give_up_after(PATIENT, others());
    }

    /// `redis+cluster://127.0.0.1:{port},…`.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The slot of a shard, and the node that has it.
    pub(crate) fn place_of(&self, shard: usize) -> (u32, usize) {
        let slot = self.nodes[0].command(&format!("CLUSTER KEYSLOT sq1:{{{shard}}}:stat"));
        let slot: u32 = slot.trim_start_matches(':').parse().expect("a slot");
        let has_it =
            |node: &RedisServer| !node.command(&format!("EXISTS sq1:{{{shard}}}:stat")).starts_with("-MOVED");
        (slot, self.nodes.iter().position(has_it).expect("somebody has it"))
    }

    /// The name of a node within the cluster.
    fn id_of(&self, node: usize) -> String {
        let answer = self.nodes[node].command("CLUSTER MYID");
        answer.lines().nth(1).expect("an id").trim().to_owned()
    }

    /// Moves a slot with all its keys, a few at a time, as `redis-cli --cluster reshard` does.
    pub(crate) async fn move_slot(&self, slot: u32, from: usize, to: usize) {
        let id = |node: usize| self.id_of(node);
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let order = |node: &RedisServer, what: &str| {
            assert_eq!(node.command(&format!("CLUSTER SETSLOT {slot} {what}")), "+OK", "{what}");
        };
        order(target, &format!("IMPORTING {}", id(from)));
        order(source, &format!("MIGRATING {}", id(to)));
        loop {
            let answer = source.command(&format!("CLUSTER GETKEYSINSLOT {slot} 10"));
            let keys: Vec<&str> =
                answer.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::trim).collect();
            if keys.is_empty() {
                break;
            }
            let move_them =
                format!("MIGRATE 127.0.0.1 {} \"\" 0 5000 KEYS {}", target.port(), keys.join(" "));
            let moved = source.command(&move_them);
            assert!(moved == "+OK" || moved == "+NOKEY", "{moved}");
            tokio::task::yield_now().await;
        }
        let owned = format!("NODE {}", id(to));
        order(target, &owned);
        order(source, &owned);
        for (number, node) in self.nodes[..MASTERS].iter().enumerate() {
            if number != from && number != to {
                order(node, &owned);
            }
        }
    }
}

/// From now on these nodes believe that a node is dead that has not answered for so many ms.
fn give_up_after<'a>(ms: u32, nodes: impl IntoIterator<Item = &'a RedisServer>) {
    for node in nodes {
        assert_eq!(node.command(&format!("CONFIG SET cluster-node-timeout {ms}")), "+OK");
    }
}
