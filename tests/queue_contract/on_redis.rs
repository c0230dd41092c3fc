//! The queue on Redis, on the bench.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Connection, Script};
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::harness::Store;
use crate::support::redis_server::RedisServer;

/// The queue on a redis-server of the test's own.
pub(crate) struct OnRedis {
    server: RedisServer,
    queue: Arc<RedisQueue>,
}

/// Writes every command to the disk before it is answered, so that a kill loses nothing.
const ALWAYS: [&str; 2] = ["--appendfsync", "always"];

impl OnRedis {
    async fn open(server: &RedisServer, settings: &QueueSettings, clock: &Clock) -> Arc<RedisQueue> {
        let place = RedisSettings::at(server.url().into());
        let queue = RedisQueue::new(place, settings.clone(), clock.clone()).expect("the address is right");
        queue.prepare().await.expect("a server fit for use");
        Arc::new(queue)
    }

    fn back_door(&self) -> Connection {
        let client = Client::open(self.server.url()).expect("the address is right");
        client.get_connection().expect("the server answers")
    }

    fn run(&self, script: &str, argument: &str) -> i64 {
        Script::new(script).arg(argument).invoke(&mut self.back_door()).expect("the script runs")
    }
}

impl Store for OnRedis {
    type Queue = RedisQueue;
    const NAME: &'static str = "redis";
    const RESTART_ENDS_LEASES: bool = false;

    async fn new(settings: &QueueSettings, clock: &Clock) -> Self {
        let server = RedisServer::start_with(&ALWAYS);
        let queue = Self::open(&server, settings, clock).await;
        Self { server, queue }
    }

    fn queue(&self) -> &Arc<RedisQueue> {
        &self.queue
    }

    async fn clear(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.server.command("FLUSHALL");
        self.reopen(settings, clock).await;
    }

    async fn reopen(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.queue = Self::open(&self.server, settings, clock).await;
    }

    async fn crash(&mut self, settings: &QueueSettings, clock: &Clock) {
        self.server.restart();
        self.reopen(settings, clock).await;
    }

    fn age(&self, by: Duration) {
        let script = "for _, key in ipairs(redis.call('KEYS', '*')) do \
             local left = redis.call('PTTL', key) \
             if left >= 0 then redis.call('PEXPIRE', key, string.format('%.0f', left - ARGV[1])) end end \
             return 0";
        self.run(script, &by.as_millis().to_string());
    }

    fn put_garbage(&self, _id: &str) -> u64 {
        self.run("redis.call('XADD', 'sq1:{0}:in', '*', 'scribble', ARGV[1]) return 0", "on the wall");
        1
    }

    fn damage(&self) {
        let script = "local removed = 0 \
             for _, key in ipairs(redis.call('KEYS', '*')) do \
             if redis.call('TYPE', key).ok == 'stream' then \
             removed = removed + redis.call('XGROUP', 'DESTROY', key, 'w') end end return removed";
        assert!(self.run(script, "") > 0, "there was a group to remove");
    }

    fn keeps(&self, text: &str) -> bool {
        // A dump holds short and long texts alike as they are, once compression is off.
        self.server.command("CONFIG SET rdbcompression no");
        let script = "for _, key in ipairs(redis.call('KEYS', '*')) do \
             if string.find(redis.call('DUMP', key), ARGV[1], 1, true) then return 1 end end return 0";
        self.run(script, text) == 1
    }

    fn values(&self) -> Vec<Vec<u8>> {
        let script = "local values = {} \
             local function add(list) for _, value in ipairs(list) do \
             if type(value) == 'table' then add(value) else values[#values + 1] = value end end end \
             for _, key in ipairs(redis.call('KEYS', '*')) do local kind = redis.call('TYPE', key).ok \
             if kind == 'string' then add({ redis.call('GET', key) }) \
             elseif kind == 'hash' then add(redis.call('HGETALL', key)) \
             elseif kind == 'zset' then add(redis.call('ZRANGE', key, 0, -1)) \
             elseif kind == 'set' then add(redis.call('SMEMBERS', key)) \
             elseif kind == 'stream' then add(redis.call('XRANGE', key, '-', '+')) end end \
             return values";
        Script::new(script).invoke(&mut self.back_door()).expect("the script runs")
    }

    fn overwrite(&self, old: &[u8], new: &[u8]) {
        let script = "local number = 0 \
             for _, key in ipairs(redis.call('KEYS', 'sq1:*:m:*')) do local all = redis.call('HGETALL', key) \
             for at = 1, #all, 2 do if all[at + 1] == ARGV[1] then number = number + 1 \
             redis.call('HSET', key, all[at], ARGV[2]) end end end return number";
        let script = Script::new(script);
        let number: i64 = script.arg(old).arg(new).invoke(&mut self.back_door()).expect("the script runs");
        assert_eq!(number, 1, "it was there once");
    }

    fn records(&self) -> usize {
        let found = self.run("return #redis.call('KEYS', 'sq1:*:m:*')", "");
        usize::try_from(found).expect("a length")
    }
}
