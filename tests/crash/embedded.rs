//! The service on the embedded store is killed at any moment of a message's way. What its file has then says
//! exactly what is to be sent again: what the provider has taken and the file does not have as delivered.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::STEADY;
use crate::support::chance::{duration, seeded};
use crate::support::installation::{Installation, Program, RECIPIENTS, sid};
use crate::support::ledger::{Allowed, Ledger, text};
use crate::support::provider::{Provider, Reply};

/// Where the file has each piece of a message, by index; none if it does not know the message.
fn places(folder: &Path, number: u32) -> BTreeMap<u32, String> {
    // In a copy: to look into it would bring it up to date.
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in ["queue.db", "queue.db-wal"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).expect("the files are ours");
        }
    }
    let connection = Connection::open(copy.path().join("queue.db")).expect("the copy opens");
    let mut statement = connection
        .prepare("SELECT w.idx, w.place FROM work w JOIN message m ON m.seq = w.message WHERE m.id = ?1")
        .expect("the tables are there");
    let rows = statement.query_map([sid(number)], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("they can be read").map(|row| row.expect("it can be read")).collect()
}

/// How often each recipient took message `number`.
fn sent(provider: &Provider, number: u32) -> [usize; 3] {
    let (requests, text) = (provider.requests(), text(number));
    RECIPIENTS.map(|recipient| {
        let to_it = requests.iter().filter(|request| request.destination == recipient && request.accepted());
        to_it.filter(|request| request.text().contains(&text)).count()
    })
}

/// How far a message had come, in a word.
fn stage(places: &BTreeMap<u32, String>, sent: [usize; 3]) -> &'static str {
    let is = |index: u32, place: &str| places.get(&index).is_some_and(|have| have == place);
    match places.get(&0).map(String::as_str) {
        None => "not stored",
        Some("ready") => "stored",
        Some("leased") => "its routing in hand",
        _ if (1..=3).all(|index| is(index, "delivered")) => "delivered",
        _ if sent.iter().sum::<usize>() > 0 => "sent",
        _ if (1..=3).any(|index| is(index, "leased")) => "in hand",
        _ => "routed",
    }
}

struct Bench {
    provider: Provider,
    installation: Installation,
    service: Program,
    ledger: Arc<Ledger>,
    /// Sends that had to be repeated, exactly.
    repeats: usize,
}

impl Bench {
    async fn start() -> Self {
        let provider = Provider::start();
        let installation = Installation::embedded(&provider, STEADY);
        let service = installation.start("sms-broadcaster").await;
        Self { provider, installation, service, ledger: Ledger::new(), repeats: 0 }
    }

    fn post(&self, number: u32) -> JoinHandle<bool> {
        let (ledger, poster, door) =
            (Arc::clone(&self.ledger), self.installation.poster().clone(), self.service.ingress);
        tokio::spawn(async move { ledger.post(&poster, door, number).await })
    }

    /// Kills it under the post of message `number`, and starts it again; then exactly that is sent of the
    /// message which the file did not have as delivered. Returns how far it had come.
    async fn kill_and_follow(&mut self, number: u32, posting: JoinHandle<bool>) -> &'static str {
        self.ledger.fault();
        self.service.kill();
        let is_taken = posting.await.expect("the post ends");
        self.provider.wait_until_alone().await;
        let (before, places) = (sent(&self.provider, number), places(self.installation.folder(), number));
        assert!(!is_taken || !places.is_empty(), "answered 200 and not stored");
        let again = self.installation.program("sms-broadcaster").in_place_of(&self.service);
        self.service = again.start().await;
        if !places.is_empty() {
            self.installation.wait_until_done(&sid(number)).await;
        }
        let expected = [1, 2, 3].map(|index: u32| {
            let is_delivered = places.get(&index).is_some_and(|place| place == "delivered");
            before[index as usize - 1] + usize::from(!places.is_empty() && !is_delivered)
        });
        assert_eq!(sent(&self.provider, number), expected, "killed with {before:?} sent and {places:?}");
        self.repeats += expected.iter().map(|times| times.saturating_sub(1)).sum::<usize>();
        stage(&places, before)
    }

    async fn check(mut self, what: &str) {
        let allowed = Allowed { duplicates: self.repeats, ..Allowed::default() };
        let figures = self.ledger.check(&self.installation, &self.provider, allowed).await;
        figures.show("embedded points", what);
        assert_eq!(figures.duplicates, self.repeats);
        assert_eq!(self.service.stop(), Some(0));
    }
}

#[tokio::test]
async fn killed_at_any_moment_the_embedded_service_sends_again_what_its_file_lacks_and_nothing_else() {
    let mut chance = seeded("killed_at_any_moment_the_embedded_service");
    let end = Instant::now() + duration(Duration::from_secs(10), 0.03);
    let mut bench = Bench::start().await;
    let mut stages: BTreeMap<&str, usize> = BTreeMap::new();
    let mut number = 0;
    while Instant::now() < end || number < 4 {
        let posting = bench.post(number);
        // The whole way takes about ten milliseconds.
        let moment = Duration::from_micros(chance.u64(..14_000));
        tokio::time::sleep(moment).await;
        *stages.entry(bench.kill_and_follow(number, posting).await).or_default() += 1;
        number += 1;
    }
    bench.check(&format!("killed within 14 ms of a post: {stages:?}")).await;
}

#[tokio::test]
async fn killed_before_a_commit_the_embedded_service_has_done_nothing_of_it() {
    let mut bench = Bench::start().await;
    let writer = Connection::open(bench.installation.folder().join("queue.db")).expect("it opens beside");

    // Of an acceptance: what waits behind somebody's write is not answered, and not there.
    writer.execute_batch("BEGIN IMMEDIATE").expect("the service is idle");
    let mut posting = bench.post(0);
    let answered = tokio::time::timeout(Duration::from_millis(300), &mut posting).await;
    assert!(answered.is_err(), "answered before it was stored");
    let killing = bench.kill_and_follow(0, posting);
    // The next one could not open it.
    let let_go = async { writer.execute_batch("ROLLBACK").expect("nothing was done") };
    assert_eq!(tokio::join!(killing, let_go).0, "not stored");

    // Of the record of deliveries: the provider has them, and the file does not say so.
    let answer = watch::Sender::new(false);
    for recipient in RECIPIENTS {
        bench.provider.script(recipient, [Reply::ok().held(&answer)]);
    }
    let posting = bench.post(1);
    bench.provider.wait_until("all three were taken", |requests| requests.len() == 3).await;
    writer.execute_batch("BEGIN IMMEDIATE").expect("the service waits for the provider");
    answer.send_replace(true);
    // Most likely the answers are there, and the record of them waits for us; before, it comes to the same.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let killing = bench.kill_and_follow(1, posting);
    let let_go = async { writer.execute_batch("ROLLBACK").expect("nothing was done") };
    assert_eq!(tokio::join!(killing, let_go).0, "sent");
    assert_eq!(bench.repeats, 3);

    drop(writer);
    bench.check("killed before the commit of an acceptance, of a record").await;
}

#[tokio::test]
async fn killed_while_the_provider_answers_the_embedded_service_sends_that_again() {
    let mut bench = Bench::start().await;
    for recipient in RECIPIENTS {
        bench.provider.script(recipient, [Reply::ok().delayed(Duration::from_secs(60))]);
    }
    let posting = bench.post(0);
    bench.provider.wait_until("all three were taken", |requests| requests.len() == 3).await;
    assert_eq!(bench.kill_and_follow(0, posting).await, "sent");
    assert_eq!(bench.repeats, 3);
    // And when all is recorded there is nothing to repeat.
    let posting = bench.post(1);
    bench.provider.wait_until("the next one was taken too", |requests| requests.len() == 9).await;
    bench.installation.wait_until_done(&sid(1)).await;
    assert_eq!(bench.kill_and_follow(1, posting).await, "delivered");
    assert_eq!(bench.repeats, 3);
    bench.check("killed while the provider answers, and when all is recorded").await;
}
