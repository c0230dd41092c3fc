//! The queue on Redis, on the bench.

use std::sync::Arc;
use std::time::Duration;

use redis::{Client, Connection, Script};
use sms_broadcaster::clock::Clock;
use sms_broadcaster::queue::contract::{Queue, QueueSettings};
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::harness::{Breakage, Store};
use crate::support::redis_server::RedisServer;

/// The queue on a redis-server of the test's own.
pub(crate) type OnRedis = InShards<1>;

/// The same, in so many shards.
pub(crate) struct InShards<const SHARDS: usize> {
    server: RedisServer,
    queue: Arc<RedisQueue>,
}

/// Writes every command to the disk before it is answered, so that a kill loses nothing.
const ALWAYS: [&str; 2] = ["--appendfsync", "always"];

/// What the scripts below are written in.
const WORDS: &str = "local call = redis.call \
     local function of(name) return 'sq1:{0}:' .. name end \
     local function record(id) return of('m:test:' .. id) end \
     local function entry(id, index) \
     return string.match(call('HGET', record(id), 's' .. index), '|e([^|]*)$') end ";

const BREAKAGES: &[Breakage] = &[
    Breakage {
        what: "an entry is deleted",
        how: "call('XDEL', of('rdy:sms'), entry(3, 1))",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "a leased entry is deleted",
        how: "call('XDEL', of('rdy:sms'), entry(4, 1))",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "a leased entry is acknowledged by a stranger",
        how: "call('XACK', of('rdy:sms'), 'w', entry(4, 1))",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "a group skips what it has not read",
        how: "call('XGROUP', 'SETID', of('rdy:sms'), 'w', '$')",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "a delay is removed", how: "call('DEL', of('due:sms'))", lost: &[], is_told: false },
    Breakage {
        what: "the park is removed",
        how: "call('DEL', of('park:sms'), of('wake:sms'))",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "nothing wakes the parked",
        how: "call('DEL', of('wake:sms'))",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "the groups are destroyed",
        how: "call('XGROUP', 'DESTROY', of('in'), 'w') call('XGROUP', 'DESTROY', of('rdy:sms'), 'w')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "the streams are deleted",
        how: "call('DEL', of('in'), of('rdy:sms'))",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the lanes are forgotten", how: "call('DEL', of('lanes'))", lost: &[], is_told: false },
    Breakage {
        what: "the books are wrong",
        how: "call('HSET', of('stat'), 'made', 99, 'S', -3, 'D', 'rubbish')",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the books are gone", how: "call('DEL', of('stat'))", lost: &[], is_told: false },
    Breakage {
        what: "messages count wrongly",
        how: "call('HSET', record(3), 'left', 7, 'lt', 'x') call('HSET', record(7), 'lt', 0)",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "the deadlines are gone", how: "call('DEL', of('dl'))", lost: &[], is_told: false },
    Breakage {
        what: "everything but the records is gone",
        how: "for _, key in ipairs(call('KEYS', '*')) do \
              if not string.find(key, ':m:', 1, true) then call('DEL', key) end end",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "records are deleted",
        how: "for _, id in ipairs({ 1, 3, 5, 6 }) do call('DEL', record(id)) end",
        lost: &[1, 3, 5, 6],
        is_told: true,
    },
    Breakage {
        what: "routings are lost",
        how: "call('HDEL', record(1), 's0') call('HDEL', record(9), 's0') call('HDEL', record(3), 'n')",
        lost: &[],
        is_told: false,
    },
    Breakage { what: "a state is lost", how: "call('HDEL', record(3), 's1')", lost: &[], is_told: false },
    Breakage {
        what: "a state that says it is a routing",
        how: "call('HSET', record(3), 's1', 'E|0|0|0|0|1767229200000|')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "states cannot be read",
        how: "call('HSET', record(1), 's0', 'rubbish') call('HSET', record(3), 's1', 'P|x')",
        lost: &[1, 3],
        is_told: true,
    },
    Breakage { what: "a text is lost", how: "call('HDEL', record(9), 'ct')", lost: &[9], is_told: true },
    Breakage {
        what: "a recipient is lost",
        how: "call('HDEL', record(3), 'rc1')",
        lost: &[3],
        is_told: true,
    },
    Breakage {
        what: "what is unfinished expires and what has ended does not",
        how: "call('PEXPIRE', record(3), 60000) call('PERSIST', record(8)) call('HDEL', record(7), 'gone')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "letters are not listed, and listed that are none",
        how: "call('DEL', of('dead:permanent')) call('ZADD', of('dead:poison'), 5, 'test:3|1')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "letters that cannot be read, or of what did not die",
        how: "call('HSET', record(7), 'x1', 'rubbish') call('HSET', record(3), 'x1', 'poison|5')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "more is kept than needed",
        how: "call('HSET', record(8), 'rc1', 'x', 'h1', 'y', 'ct', 'z', 's1', 'S|0|0|0|0|5|d')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "strays stand everywhere",
        how: "call('XADD', of('in'), '*', 'm', 'test:3', 'i', 1) call('XADD', of('rdy:sms'), '*', 'm', 'test:3', 'i', 1) \
              call('ZADD', of('due:sms'), 5, 'test:3|1') call('ZADD', of('due:sms'), 5, 'rubbish') \
              call('ZADD', of('park:sms'), 0, 'x|000000000000005|test:3|1') call('ZADD', of('wake:sms'), 5, 'x') \
              call('ZADD', of('dl'), 5, 'test:none')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "things of another type stand everywhere",
        how: "for _, name in ipairs({ 'in', 'due:sms', 'wake:sms', 'dl', 'wk', 'lanes', 'stat' }) do \
              call('DEL', of(name)) call('SET', of(name), 'rubbish') end",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "records that are none",
        how: "call('SET', record(77), 'x') call('HSET', record(78), 'x', 'y') call('HSET', of('m:odd'), 'x', 'y')",
        lost: &[],
        is_told: false,
    },
    Breakage {
        what: "a rate is there for ever",
        how: "call('SET', of('rl:sms'), 5)",
        lost: &[],
        is_told: false,
    },
];

impl<const SHARDS: usize> InShards<SHARDS> {
    async fn open(server: &RedisServer, settings: &QueueSettings, clock: &Clock) -> Arc<RedisQueue> {
        let place = RedisSettings { shards: SHARDS, ..RedisSettings::at(server.url().into()) };
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

impl<const SHARDS: usize> Store for InShards<SHARDS> {
    type Queue = RedisQueue;
    const NAME: &'static str = "redis";
    const RESTART_ENDS_LEASES: bool = false;
    const PARTS: u32 = SHARDS as u32;

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

    fn breakages(&self) -> &'static [Breakage] {
        BREAKAGES
    }

    fn break_by(&self, how: &str) {
        self.run(&format!("{WORDS}{how} return 0"), "");
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
