//! Where the server is just now, and a connection to it.
//!
//! Behind a URL may stand one server, sentinels who know the master, or nodes of a cluster who know the one that
//! has our keys. The latter two are asked again for every connection, so whatever moves is followed by
//! dropping the connection that led to the wrong place.

use std::sync::Mutex;
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, Runtime};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Value};

use super::address::{RedisAddress, Way};
use super::certificates::{Certificates, TlsFiles};
use super::fault::{Blame, blame, describe, describe_pool, is_on_the_way};
use super::link::lock;
use super::partition::Partition;
use super::reply::{list, read, text};
use super::scripts::Prefix;
use crate::queue::contract::QueueError;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// How long to wait for the pool.
const POOL: Duration = Duration::from_secs(2);

/// Connections being made at once.
const AT_ONCE: usize = 16;

/// How long sentinels and nodes may take to say where the server is. All are asked at once.
const DIRECTIONS: Duration = Duration::from_secs(1);

/// A connection is replaced after this time, so that a name that leads elsewhere by now is noticed even
/// while the old server answers.
const LIFETIME: Duration = Duration::from_secs(600);

/// The same where somebody can be asked: a master that was cut off from its sentinels still answers.
const LIFETIME_WHERE_FOUND: Duration = Duration::from_secs(30);

/// Finds one server and connects to it.
pub(super) struct Finder {
    address: RedisAddress,
    files: TlsFiles,
    /// On a cluster the shard that the server must have.
    partition: Partition,
    /// Its books, which say with how many shards the store was made.
    books: String,
    /// What the last connection came from.
    last: Mutex<Option<Found>>,
}

/// The field of the books that says with how many shards the store was made.
const MADE_WITH: &str = "shards";

/// What a store that has another number of shards is called.
pub(super) fn another_number(made_with: usize, asked: usize) -> QueueError {
    QueueError::Unusable(format!(
        "the store was made with {made_with} shard(s) and queue.shards is {asked}: set it back; another number \
         needs another, empty store"
    ))
}

/// Why there is no connection.
pub(super) enum NotFound {
    /// Nobody there, or not who should be.
    Away(String),
    /// Our keys are moving.
    OnTheWay(String),
    /// A store that is not ours to use.
    Another(QueueError),
}

impl From<String> for NotFound {
    fn from(why: String) -> Self {
        Self::Away(why)
    }
}

/// A server that was found.
#[derive(Clone)]
struct Found {
    host: ConnectionAddr,
    certificates: Certificates,
    pool: Pool,
}

impl Finder {
    /// Of the server that `address` leads to; on a cluster, the one that has the shard `partition`. What is stored
    /// there must be in as many shards.
    pub(super) fn new(address: RedisAddress, files: TlsFiles, partition: Partition) -> Self {
        if address.is_tls() {
            // Whoever comes second finds it installed, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let books = Prefix::of_shard(partition.number).key("stat");
        Self { address, files, partition, books, last: Mutex::default() }
    }

    /// Which shard it is for; `None` where one server has all.
    pub(super) fn shard(&self) -> Option<usize> {
        self.is_of_a_cluster().then_some(self.partition.number)
    }

    /// Whether it is a node of a cluster.
    pub(super) fn is_of_a_cluster(&self) -> bool {
        self.address.is_cluster()
    }

    /// How long a connection may be used.
    pub(super) fn lifetime(&self) -> Duration {
        if self.address.way == Way::Direct { LIFETIME } else { LIFETIME_WHERE_FOUND }
    }

    /// Finds the server and connects to it. The error is a text for people, without address.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, NotFound> {
        let certificates = if self.address.is_tls() { self.files.read()? } else { Certificates::default() };
        let target = match &self.address.way {
            Way::Direct => self.address.seeds[0].clone(),
            Way::Sentinel(name) => self.ask_sentinels(name, &certificates).await?,
            Way::Cluster => self.ask_nodes(&certificates).await?,
        };
        let pool = self.pool_to(target, certificates)?;
        // What is taken out of the pool leaves its place to the next.
        let taken = pool.get().await.map(Connection::take);
        let mut connection = taken.map_err(|error| describe_pool(&error))?;
        if matches!(self.address.way, Way::Sentinel(_)) {
            // A sentinel may not have heard yet; and a master that was replaced may not have heard either.
            let role: Result<Value, _> = redis::cmd("ROLE").query_async(&mut connection).await;
            let role = list(role.map_err(|error| describe(&error))?).map_err(|error| error.to_string())?;
            let role = role.into_iter().next().map(text).transpose().map_err(|error| error.to_string())?;
            if role.as_deref() != Some("master") {
                return Err("whom the sentinels call master is none".to_owned().into());
            }
        }
        self.look_into_the_books(&mut connection).await?;
        Ok(connection)
    }

    /// Whether the store is in as many shards as we think: with another number, messages would be looked for in
    /// the wrong ones. On a cluster this also shows whether it is the right node.
    async fn look_into_the_books(&self, connection: &mut MultiplexedConnection) -> Result<(), NotFound> {
        let mut ask = redis::cmd("HGET");
        ask.arg(&self.books).arg(MADE_WITH);
        match ask.query_async::<Value>(connection).await {
            // What is no number is for the scripts to find.
            Ok(found) => match read::<usize>(found) {
                Ok(number) if number != self.partition.of => {
                    Err(NotFound::Another(another_number(number, self.partition.of)))
                }
                _ => Ok(()),
            },
            Err(error) if is_on_the_way(&error) && blame(&error) == Blame::None => Ok(()),
            Err(error) if is_on_the_way(&error) => Err(NotFound::OnTheWay(describe(&error))),
            Err(error) if blame(&error) == Blame::None => Ok(()),
            Err(error) => Err(describe(&error).into()),
        }
    }

    /// The pool of the last connection, or a new one if that went elsewhere or certificates are new.
    fn pool_to(&self, target: ConnectionInfo, certificates: Certificates) -> Result<Pool, String> {
        let mut last = lock(&self.last);
        if let Some(found) = &*last
            && found.host == *target.addr()
            && found.certificates == certificates
        {
            return Ok(found.pool.clone());
        }
        let host = target.addr().clone();
        let manager = Manager::new_with_config(certificates.put_into(target)?, quick(CONNECT, ANSWER))
            .map_err(|error| describe(&error))?;
        let pool = Pool::builder(manager)
            .max_size(AT_ONCE)
            .wait_timeout(Some(POOL))
            .create_timeout(Some(POOL))
            .recycle_timeout(Some(POOL))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| "no pool of connections can be made".to_owned())?;
        *last = Some(Found { host, certificates, pool: pool.clone() });
        Ok(pool)
    }

    async fn ask_sentinels(&self, name: &str, certificates: &Certificates) -> Result<ConnectionInfo, String> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let found = self.ask_seeds(&[ask], certificates, |_, answers| master(answers)).await;
        let (host, port) = found.map_err(|why| format!("no sentinel knows the master: {why}"))?;
        Ok(self.address.lead_to(host, port))
    }

    async fn ask_nodes(&self, certificates: &Certificates) -> Result<ConnectionInfo, String> {
        let (mut slot, mut slots) = (redis::cmd("CLUSTER"), redis::cmd("CLUSTER"));
        slot.arg("KEYSLOT").arg(&self.books);
        slots.arg("SLOTS");
        let found = self.ask_seeds(&[slot, slots], certificates, node_of_slot).await;
        let (host, port) = found.map_err(|why| format!("no node knows where our keys are: {why}"))?;
        Ok(self.address.lead_to(host, port))
    }

    /// Asks all seeds at once; the first who knows is believed. The error is the last one's.
    async fn ask_seeds<T>(
        &self,
        commands: &[Cmd],
        certificates: &Certificates,
        understand: impl Fn(&ConnectionAddr, Vec<Value>) -> Result<T, QueueError>,
    ) -> Result<T, String> {
        let mut asked: FuturesUnordered<_> = self
            .address
            .seeds
            .iter()
            .map(async |seed| {
                let answers = tokio::time::timeout(DIRECTIONS, ask(seed, commands, certificates)).await;
                let answers = answers.map_err(|_| "no answer in time".to_owned())??;
                understand(seed.addr(), answers).map_err(|error| match error {
                    QueueError::Unavailable(why) | QueueError::Exhausted(why) | QueueError::Unusable(why) => {
                        why
                    }
                })
            })
            .collect();
        let mut last_error = String::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(known) => return Ok(known),
                Err(why) => last_error = why,
            }
        }
        Err(last_error)
    }
}

/// Asks one seed on a connection of its own.
async fn ask(
    seed: &ConnectionInfo,
    commands: &[Cmd],
    certificates: &Certificates,
) -> Result<Vec<Value>, String> {
    let client = Client::open(certificates.put_into(seed.clone())?).map_err(|error| describe(&error))?;
    let config = quick(DIRECTIONS, DIRECTIONS);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(|error| describe(&error))?;
    let mut answers = Vec::with_capacity(commands.len());
    for command in commands {
        answers.push(command.query_async(&mut connection).await.map_err(|error| describe(&error))?);
    }
    Ok(answers)
}

fn quick(connect: Duration, answer: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect))
        .set_response_timeout(Some(answer))
        .set_pipeline_buffer_size(1_000)
}

/// Where a sentinel says the master is: `[host, port]`.
fn master(answers: Vec<Value>) -> Result<(String, u16), QueueError> {
    let mut answer = answers.into_iter().map(list).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    match (answer.next(), answer.next()) {
        (Some(host), Some(port)) => Ok((text(host)?, read(port)?)),
        _ => Err(QueueError::Unavailable("it has no master of that name".to_owned())),
    }
}

/// Where a node says the master of our slot is: `CLUSTER KEYSLOT` and `CLUSTER SLOTS`, which is a list of
/// `[first slot, last slot, [host, port, …], …]`.
fn node_of_slot(asked: &ConnectionAddr, answers: Vec<Value>) -> Result<(String, u16), QueueError> {
    let mut answers = answers.into_iter();
    let (Some(slot), Some(ranges)) = (answers.next(), answers.next()) else {
        return Err(QueueError::Unavailable("it does not know".to_owned()));
    };
    let slot: u16 = read(slot)?;
    for range in list(ranges)? {
        let mut range = list(range)?.into_iter();
        let (Some(first), Some(last), Some(node)) = (range.next(), range.next(), range.next()) else {
            continue;
        };
        if (read::<u16>(first)?..=read::<u16>(last)?).contains(&slot) {
            let mut node = list(node)?.into_iter();
            let (Some(host), Some(port)) = (node.next(), node.next()) else { continue };
            let host = if host == Value::Nil { String::new() } else { text(host)? };
            // A node that does not know its own address is where it was asked.
            let host = match asked {
                ConnectionAddr::Tcp(asked, _) | ConnectionAddr::TcpTls { host: asked, .. }
                    if host.is_empty() =>
                {
                    asked.clone()
                }
                _ => host,
            };
            return Ok((host, read(port)?));
        }
    }
    Err(QueueError::Unavailable("nobody has our slot".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let node = Value::Array(vec![bulk(host), Value::Int(port), bulk("id"), Value::Array(Vec::new())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn a_slot_is_where_its_range_is() {
        let asked = ConnectionAddr::Tcp("asked".to_owned(), 1);
        let ranges = || Value::Array(vec![range(0, 99, "a", 10), range(100, 16_383, "", 20)]);
        let look = |slot| node_of_slot(&asked, vec![Value::Int(slot), ranges()]).unwrap();
        assert_eq!(look(99), ("a".to_owned(), 10));
        assert_eq!(look(100), ("asked".to_owned(), 20));
        assert!(node_of_slot(&asked, vec![Value::Int(1), Value::Array(Vec::new())]).is_err());
        assert!(
            node_of_slot(&asked, vec![Value::Int(1), Value::Array(vec![Value::Array(Vec::new())])]).is_err()
        );
    }

    #[test]
    fn a_sentinel_knows_a_master_or_none() {
        let answer = Value::Array(vec![bulk("10.0.0.1"), bulk("6379")]);
        assert_eq!(master(vec![answer]).unwrap(), ("10.0.0.1".to_owned(), 6379));
        assert!(master(vec![Value::Nil]).is_err());
    }
}
