//! Stores that earlier and later versions wrote to, and programs of two versions on one store.
//!
//! What is stored has a version in its name or its header (`sq1:`, `user_version`), which changes when an older
//! program could no longer work with it. All else that another version may add is no hindrance.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use super::{FAST, IN_FLIGHT, STEADY};
use crate::support::chance::is_chaos;
use crate::support::installation::{Installation, LOOK, Launch, RECIPIENTS, sid};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Names a folder with the programs of an earlier version, which then share a store with ours. Without it ours
/// stand in for them.
const FORMER: &str = "SMS_BROADCASTER_FORMER";

/// What a later version may have written of a message that is not routed: members of its text, fields of its
/// record, fields of its entry.
const LATER_MESSAGE: &str = "local record, stream = KEYS[1], KEYS[2] \
    local text, state = unpack(redis.call('HMGET', record, 'ct', 's0')) \
    local entry = redis.call('XADD', stream, '*', 'm', ARGV[1], 'i', 0, 'later', 'yes') \
    redis.call('XDEL', stream, string.match(state, '|e([^|]+)$')) \
    redis.call('HSET', record, 'ct', string.sub(text, 1, -2) .. ',\"later\":{\"a\":[1]}}', 'later', 'yes', \
    's0', (string.gsub(state, '|e[^|]+$', '|e' .. entry))) \
    return 1";

/// The same of a delivery: members of its recipient, fields of its record.
const LATER_DELIVERY: &str = "local recipient = redis.call('HGET', KEYS[1], 'rc1') \
    redis.call('HSET', KEYS[1], 'rc1', string.sub(recipient, 1, -2) .. ',\"later\":{\"a\":[1]}}', 'z1', 'yes') \
    return 1";

fn run(connection: &mut redis::Connection, script: &str, keys: &[String], argument: &str) {
    let mut call = redis::cmd("EVAL");
    call.arg(script).arg(keys.len()).arg(keys).arg(argument);
    assert_eq!(call.query::<i64>(connection), Ok(1));
}

fn record(number: u32) -> String {
    format!("sq1:{{0}}:m:{}", sid(number))
}

/// Every recipient answers so from now on.
fn always(provider: &Provider, reply: impl Fn() -> Reply) {
    for recipient in RECIPIENTS {
        provider.always(recipient, reply());
    }
}

#[tokio::test]
async fn what_other_versions_wrote_to_redis_is_delivered_and_what_is_not_ours_is_left_alone() {
    let provider = Provider::start();
    always(&provider, || Reply::status(503).header("Retry-After", "2"));
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), STEADY);
    let ingress = installation.start("sms-ingress").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..9, 4).await;

    let client = redis::Client::open(redis.url()).expect("an address");
    let mut connection = client.get_connection().expect("the server answers");
    for number in 0..3 {
        run(&mut connection, LATER_MESSAGE, &[record(number), "sq1:{0}:in".to_owned()], &sid(number));
    }
    redis.command("HSET sq1:{0}:stat later 7");
    redis.command("SET sq1:{0}:later:thing 1");
    // The first versions kept no birth of the store.
    redis.command("HDEL sq1:{0}:stat born");

    let _worker = installation.start("sms-worker").await;
    provider.wait_until("each was tried", |requests| requests.len() >= 27).await;
    for number in 0..6 {
        run(&mut connection, LATER_DELIVERY, &[record(number)], "");
    }
    // Nor did they count a message's letters before there was one, as ours do not.
    for number in 6..9 {
        redis.command(&format!("HDEL {} lt", record(number)));
    }
    always(&provider, Reply::ok);
    for number in 0..9 {
        installation.wait_until_done(&sid(number)).await;
    }
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    let page = String::from_utf8_lossy(&repaired.stdout);
    assert!(page.contains("later:thing is not ours"), "{page}");
    assert_eq!(redis.command("GET sq1:{0}:later:thing"), "$1\r\n1");
    redis.command("DEL sq1:{0}:later:thing");
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("versions", "records with fields that only a later or an earlier version knows");
}

#[tokio::test]
async fn what_other_versions_wrote_to_the_embedded_store_is_delivered() {
    let provider = Provider::start();
    always(&provider, || Reply::status(503).header("Retry-After", "2"));
    let installation = Installation::embedded(&provider, STEADY);
    let mut service = installation.start("sms-broadcaster").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[service.ingress], 0..9, 4).await;
    provider.wait_until("each was tried", |requests| requests.len() >= 27).await;
    assert_eq!(service.stop(), Some(0));

    let file = Connection::open(installation.folder().join("queue.db")).expect("the service has ended");
    file.execute_batch(
        "ALTER TABLE message ADD COLUMN later TEXT DEFAULT 'yes'; \
         ALTER TABLE work ADD COLUMN later TEXT; \
         CREATE TABLE later (thing TEXT) STRICT; INSERT INTO later VALUES ('yes'); \
         CREATE INDEX later_index ON work (later); \
         INSERT INTO book (name, value) VALUES ('later', 7); \
         DROP INDEX work_due; \
         UPDATE message SET payload = CAST(substr(CAST(payload AS TEXT), 1, length(payload) - 1) \
         || ',\"later\":{\"a\":[1]}}' AS BLOB);",
    )
    .expect("a later version could do so");
    drop(file);

    always(&provider, Reply::ok);
    let mut service = installation.start("sms-broadcaster").await;
    ledger.post_all(installation.poster(), &[service.ingress], 9..18, 4).await;
    for number in 0..18 {
        installation.wait_until_done(&sid(number)).await;
    }
    let repaired = installation.smsctl(&["doctor", "--repair"]);
    let page = String::from_utf8_lossy(&repaired.stdout);
    assert!(page.contains("later is not ours") && page.contains("later_index is not ours"), "{page}");
    assert_eq!(service.stop(), Some(0));
    let file = Connection::open(installation.folder().join("queue.db")).expect("the service has ended");
    let kept: String =
        file.query_row("SELECT thing FROM later", [], |row| row.get(0)).expect("it is left alone");
    assert_eq!(kept, "yes");
    file.execute_batch("DROP TABLE later; DROP INDEX later_index").expect("they are there");
    drop(file);
    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("embedded versions", "columns, tables, indexes of a later version; one index missing");
}

/// A program of the former version, or of ours.
fn of<'a>(installation: &'a Installation, former: Option<&PathBuf>, program: &'a str) -> Launch<'a> {
    let launch = installation.program(program);
    match former {
        Some(folder) => launch.from(folder),
        None => launch,
    }
}

/// Forward and back again, one program after another, under load.
#[tokio::test]
async fn programs_of_two_versions_share_a_store_while_one_replaces_the_other() {
    let number = if is_chaos() { 400 } else { 60 };
    let former = env::var_os(FORMER).map(PathBuf::from);
    let provider = Provider::start();
    always(&provider, || Reply::ok().delayed(Duration::from_millis(50)));
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), FAST);
    let mut ingress = of(&installation, former.as_ref(), "sms-ingress").start().await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        workers.push(of(&installation, former.as_ref(), "sms-worker").start().await);
    }
    let ledger = Ledger::new();
    let posting = {
        let (ledger, poster, door) = (ledger.clone(), installation.poster().clone(), ingress.ingress);
        tokio::spawn(async move {
            for first in (0..number).step_by(4) {
                ledger.post_all(&poster, &[door], first..first + 4, 4).await;
                tokio::time::sleep(LOOK * 5).await;
            }
        })
    };
    for version in [None, former.as_ref()] {
        for worker in &mut workers {
            ledger.fault();
            // One way in order, the other way not.
            if version.is_none() {
                assert_eq!(worker.stop(), Some(0))
            } else {
                worker.kill()
            }
            *worker = of(&installation, version, "sms-worker").start().await;
        }
        ledger.fault();
        assert_eq!(ingress.stop(), Some(0));
        ingress = of(&installation, version, "sms-ingress").in_place_of(&ingress).start().await;
    }
    posting.await.expect("all texts are taken");
    let allowed = Allowed { duplicates: 2 * IN_FLIGHT, ..Allowed::default() };
    let figures = ledger.check(&installation, &provider, allowed).await;
    let which = if former.is_some() { "an earlier version" } else { "the same version" };
    figures.show("upgrade", &format!("every program replaced, one after another, by and with {which}"));
}
