//! The thread that writes: it gathers what waits for it into one transaction (group commit).
//!
//! While one transaction is being written to the disk, callers queue up; the next takes all of them.
//! So a lone call is committed at once and a crowd shares its `fsync`s, without a timer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::{mpsc, oneshot};

use super::books::Books;
use super::doorbell::Doorbells;
use super::fault::{self, Health};
use super::mending::Watch;
use super::owners::Owners;
use super::upkeep::{self, Upkeep};
use crate::clock::{Clock, Timestamp};
use crate::queue::contract::{QueueError, QueueSettings};

/// The most calls that share one transaction.
const GROUP: usize = 256;

/// Calls that may wait for the thread; further ones wait for a place.
const WAITING: usize = 1024;

/// What a call works with: the open transaction, the books, the time.
pub(super) struct Step<'a> {
    connection: &'a Connection,
    pub(super) settings: &'a QueueSettings,
    pub(super) bells: &'a Doorbells,
    /// The time at which the whole call happens.
    pub(super) now: Timestamp,
    /// Whether every page of the disk counts.
    pub(super) is_out_of_space: bool,
    pub(super) books: Books,
    pub(super) owners: &'a Owners,
    /// Whether a missing part of the store was made anew and nobody was told yet.
    pub(super) mended: bool,
    /// Lanes to ring for once the transaction is committed.
    rung: BTreeSet<String>,
    /// Whether to look after the file once the transaction is committed.
    upkeep: bool,
}

impl Step<'_> {
    /// Runs a statement; returns how many rows it changed.
    pub(super) fn run(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    /// The first row of a query, `None` when there is none.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.connection.prepare_cached(sql)?.query_row(parameters, read).optional()
    }

    /// Every row of a query.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.connection.prepare_cached(sql)?.query_map(parameters, read)?.collect()
    }

    /// The number SQLite gave the row inserted last.
    pub(super) fn last_row(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Rings for `lane` once this is committed.
    pub(super) fn ring(&mut self, lane: &str) {
        if !self.rung.contains(lane) {
            self.rung.insert(lane.to_owned());
        }
    }

    /// Looks after the file once this is committed.
    pub(super) fn ask_for_upkeep(&mut self) {
        self.upkeep = true;
    }

    /// Gives up to `pages` unused pages back to the file system.
    pub(super) fn shrink(&self, pages: u32) -> rusqlite::Result<()> {
        // It gives back one page with each row it returns.
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Pages of the file, and how many of them are unused.
    pub(super) fn pages(&self) -> rusqlite::Result<(i64, i64)> {
        let all = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let unused = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        Ok((all, unused))
    }
}

/// A call that waits for the thread. It may be run more than once: if the group it was in cannot be
/// committed as one, each of the group gets a transaction of its own.
trait Job: Send {
    /// Whether it puts something new into the queue: it is not even tried while there is no space.
    fn fills(&self) -> bool;
    fn run(&mut self, step: &mut Step<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, verdict: Result<(), QueueError>);
}

struct Call<I, F, T> {
    /// Declared before `reply` so that it is let go before the caller hears anything, even if that is
    /// only that nobody will answer.
    input: Arc<I>,
    fills: bool,
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, QueueError>>,
}

impl<I, F, T> Job for Call<I, F, T>
where
    I: Send + Sync,
    F: Fn(&mut Step<'_>, &I) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn fills(&self) -> bool {
        self.fills
    }

    fn run(&mut self, step: &mut Step<'_>) -> rusqlite::Result<()> {
        self.result = Some((self.work)(step, &self.input)?);
        Ok(())
    }

    fn answer(self: Box<Self>, verdict: Result<(), QueueError>) {
        let Self { input, work, result, reply, .. } = *self;
        drop((input, work));
        let answer = verdict
            .and_then(|()| result.ok_or_else(|| QueueError::Unavailable("the call was not run".to_owned())));
        // Nobody listens any more when the caller gave up; what was done is done.
        let _ = reply.send(answer);
    }
}

/// The way to the thread. Dropping it lets the thread finish what waits, close the file and end.
pub(super) struct Desk {
    sender: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    /// Has `work` done and waits until it is committed. `input` is lent to the work and comes back.
    pub(super) async fn ask_with<I, F, T>(&self, input: I, work: F) -> (I, Result<T, QueueError>)
    where
        I: Send + Sync + 'static,
        F: Fn(&mut Step<'_>, &I) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.send(input, false, work).await
    }

    async fn send<I, F, T>(&self, input: I, fills: bool, work: F) -> (I, Result<T, QueueError>)
    where
        I: Send + Sync + 'static,
        F: Fn(&mut Step<'_>, &I) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let input = Arc::new(input);
        let (reply, answer) = oneshot::channel();
        let call = Call { input: Arc::clone(&input), fills, work, result: None, reply };
        let sender = self.sender.as_ref().expect("taken only when the desk is dropped");
        let answer = match sender.send(Box::new(call)).await {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        (Arc::into_inner(input).expect("a call lets go of its input before it answers"), answer)
    }

    /// Has `work` done and waits until it is committed.
    pub(super) async fn ask<F, T>(&self, work: F) -> Result<T, QueueError>
    where
        F: Fn(&mut Step<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.send((), false, move |step, ()| work(step)).await.1
    }

    /// The same for work that puts something new into the queue.
    pub(super) async fn ask_to_fill<F, T>(&self, work: F) -> Result<T, QueueError>
    where
        F: Fn(&mut Step<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.send((), true, move |step, ()| work(step)).await.1
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded queue's writer ended by a panic");
        }
    }
}

fn stopped() -> QueueError {
    QueueError::Unavailable("its writer has stopped".to_owned())
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) settings: QueueSettings,
    pub(super) clock: Clock,
    pub(super) bells: Arc<Doorbells>,
    pub(super) health: Arc<Health>,
    /// Transactions committed that changed something.
    pub(super) commits: Arc<AtomicU64>,
    /// Only of the service: it looks after the file.
    pub(super) upkeep: Option<Upkeep>,
    pub(super) watch: Watch,
    pub(super) owners: Owners,
    /// Whether a missing part of the store was made anew and nobody was told yet.
    pub(super) mended: bool,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(self) -> std::io::Result<Desk> {
        let (sender, inbox) = mpsc::channel(WAITING);
        let thread =
            std::thread::Builder::new().name("queue-writer".to_owned()).spawn(move || self.work(inbox))?;
        Ok(Desk { sender: Some(sender), thread: Some(thread) })
    }

    fn work(mut self, mut inbox: mpsc::Receiver<Box<dyn Job>>) {
        let mut group = Vec::with_capacity(GROUP);
        while inbox.blocking_recv_many(&mut group, GROUP) > 0 {
            let asked = self.serve(std::mem::take(&mut group));
            if self.health.check().is_err() {
                continue;
            }
            if self.is_out_of_space() {
                upkeep::fold_what_can_be(&self.connection, &self.health);
            }
            if asked && let Some(upkeep) = &mut self.upkeep {
                upkeep.look_after(&self.connection, &self.health, self.clock.now());
            }
        }
        if self.health.check().is_err() {
            // Closing would write the log into the database: not into one that is broken.
            let _ = super::file::forbid_fold_on_close(&self.connection);
        }
    }

    /// Runs a group, commits it and answers. Returns whether somebody asked for upkeep.
    fn serve(&mut self, group: Vec<Box<dyn Job>>) -> bool {
        if let Err(error) = self.health.check() {
            for job in group {
                job.answer(Err(error.clone()));
            }
            return false;
        }
        let mut group = self.without_those_that_fill(group);
        if group.is_empty() {
            return false;
        }
        match self.transact(&mut group) {
            Ok(Committed { verdicts, upkeep }) => {
                for (job, verdict) in group.into_iter().zip(verdicts) {
                    job.answer(verdict);
                }
                upkeep
            }
            Err(error) if fault::is_lack_of_space(&error) => {
                if let Some(upkeep) = &mut self.upkeep {
                    upkeep.give_up_reserve(self.clock.now());
                }
                upkeep::fold_what_can_be(&self.connection, &self.health);
                // What drains the queue needs little space; it must not fail for what fills it.
                let mut asked = false;
                for job in self.without_those_that_fill(group) {
                    asked |= self.serve_alone(job);
                }
                asked
            }
            Err(error) => {
                let verdict = self.condemn(&error);
                for job in group {
                    job.answer(Err(verdict.clone()));
                }
                false
            }
        }
    }

    fn is_out_of_space(&self) -> bool {
        self.upkeep.as_ref().is_some_and(Upkeep::is_out_of_space)
    }

    /// While there is no space, refuses what would put something new into the queue.
    fn without_those_that_fill(&self, group: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if !self.is_out_of_space() {
            return group;
        }
        let (filling, draining): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.fills());
        for job in filling {
            job.answer(Err(fault::out_of_space()));
        }
        draining
    }

    /// Gives one job a transaction of its own.
    fn serve_alone(&mut self, job: Box<dyn Job>) -> bool {
        let mut group = [job];
        let outcome = self
            .health
            .check()
            .and_then(|()| self.transact(&mut group).map_err(|error| self.condemn(&error)));
        let [job] = group;
        match outcome {
            Ok(Committed { mut verdicts, upkeep }) => {
                job.answer(verdicts.pop().unwrap_or(Ok(())));
                upkeep
            }
            Err(error) => {
                job.answer(Err(error));
                false
            }
        }
    }

    /// What a transaction's error means, for the callers and for the store.
    fn condemn(&self, error: &rusqlite::Error) -> QueueError {
        let verdict = fault::queue_error(error);
        if fault::is_final(error) {
            self.health.fail(verdict.clone());
        }
        verdict
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<Committed> {
        let outcome = self.attempt(group);
        if outcome.is_err() && !self.connection.is_autocommit() {
            // It can only fail by having been rolled back already.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        outcome
    }

    fn attempt(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<Committed> {
        self.fixed("BEGIN IMMEDIATE")?;
        let changes_before = self.connection.total_changes();
        let now = self.clock.now();
        self.mended |= self.watch.mend_if_changed(&self.connection, now)?;
        let books = Books::load(&self.connection)?;
        let mut step = Step {
            connection: &self.connection,
            settings: &self.settings,
            bells: &self.bells,
            now,
            is_out_of_space: self.is_out_of_space(),
            books,
            owners: &self.owners,
            mended: self.mended,
            rung: BTreeSet::new(),
            upkeep: false,
        };
        let mut verdicts = Vec::with_capacity(group.len());
        if let [job] = group {
            job.run(&mut step)?;
            verdicts.push(Ok(()));
        } else {
            for job in group {
                verdicts.push(self.run_apart(job.as_mut(), &mut step)?);
            }
        }
        let Step { books: new_books, rung, upkeep, mended, .. } = step;
        new_books.save(books, &self.connection)?;
        self.fixed("COMMIT")?;
        self.mended = mended;
        if self.connection.total_changes() != changes_before {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        for lane in rung {
            self.bells.ring(&lane);
        }
        Ok(Committed { verdicts, upkeep })
    }

    /// Runs one job of several so that its failure undoes nothing but its own work. An error returned
    /// is the whole group's.
    fn run_apart(&self, job: &mut dyn Job, step: &mut Step<'_>) -> rusqlite::Result<Result<(), QueueError>> {
        self.fixed("SAVEPOINT job")?;
        let books = step.books;
        let verdict = match job.run(step) {
            Ok(()) => Ok(()),
            // Some errors end the transaction, and with it the work of all before this one.
            Err(error)
                if self.connection.is_autocommit()
                    || fault::is_final(&error)
                    || fault::is_lack_of_space(&error) =>
            {
                return Err(error);
            }
            Err(error) => {
                self.fixed("ROLLBACK TO job")?;
                step.books = books;
                Err(fault::queue_error(&error))
            }
        };
        self.fixed("RELEASE job")?;
        Ok(verdict)
    }

    fn fixed(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// A committed group.
struct Committed {
    verdicts: Vec<Result<(), QueueError>>,
    upkeep: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use rusqlite::{ffi, params};

    use super::*;
    use crate::message::MessageId;
    use crate::queue::contract::{Acceptance, NewMessage};
    use crate::queue::embedded::file::Identity;
    use crate::queue::embedded::{intake, schema, statements};

    fn writer(connection: Connection) -> Writer {
        schema::make(&connection).unwrap();
        Writer {
            connection,
            settings: QueueSettings::default(),
            clock: Clock::manual(Timestamp::from_millis(1_767_225_600_000)),
            bells: Arc::default(),
            health: Arc::default(),
            commits: Arc::default(),
            upkeep: None,
            watch: Watch::default(),
            owners: Owners::default(),
            mended: false,
        }
    }

    type Answer = oneshot::Receiver<Result<(), QueueError>>;

    fn call(work: impl Fn(&mut Step<'_>) -> rusqlite::Result<()> + Send + 'static) -> (Box<dyn Job>, Answer) {
        let (reply, answer) = oneshot::channel();
        let work = move |step: &mut Step<'_>, (): &()| work(step);
        (Box::new(Call { input: Arc::new(()), fills: false, work, result: None, reply }), answer)
    }

    /// Work that leaves a lane named `name` and counts one accepted.
    fn leave(name: &'static str) -> (Box<dyn Job>, Answer) {
        call(move |step| {
            step.books.accepted += 1;
            step.run(statements::LANE, params![name]).map(|_| ())
        })
    }

    fn lanes(writer: &Writer) -> Vec<String> {
        let mut statement = writer.connection.prepare("SELECT name FROM lane ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_job_that_fails_undoes_its_own_work_and_nothing_of_its_mates() {
        let mut writer = writer(Connection::open_in_memory().unwrap());
        let (before, before_answer) = leave("before");
        let (failing, failing_answer) = call(|step| {
            step.books.accepted += 100;
            step.run(statements::LANE, params!["undone"])?;
            step.run("INSERT INTO book (name, value) VALUES ('x', 'no number')", []).map(|_| ())
        });
        let (after, after_answer) = leave("after");
        writer.serve(vec![before, failing, after]);
        assert_eq!(before_answer.blocking_recv().unwrap(), Ok(()));
        assert!(matches!(failing_answer.blocking_recv().unwrap(), Err(QueueError::Unavailable(_))));
        assert_eq!(after_answer.blocking_recv().unwrap(), Ok(()));
        assert_eq!(lanes(&writer), ["after", "before"]);
        assert_eq!(Books::load(&writer.connection).unwrap().accepted, 2);
        assert_eq!(writer.commits.load(Ordering::Relaxed), 1);
        assert_eq!(writer.health.check(), Ok(()));
    }

    #[test]
    fn a_full_disk_refuses_what_fills_the_queue_and_lets_it_drain_until_there_is_space_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.db");
        let reserve = folder.path().join("full.db.reserve");
        let mut writer = writer(Connection::open(&path).unwrap());
        writer.upkeep = Some(Upkeep::begin(Identity::of(&path).unwrap()));
        assert!(reserve.exists());
        let limit = |writer: &Writer, more: i64| {
            let pages: i64 =
                writer.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
            let sql = format!("PRAGMA max_page_count = {}", pages + more);
            writer.connection.query_row(&sql, [], |_| Ok(())).unwrap();
        };
        let fill = || {
            let (reply, answer) = oneshot::channel();
            let work = |step: &mut Step<'_>, (): &()| {
                step.run(statements::NEW_MESSAGE, params!["test:1", vec![7_u8; 100_000], 0]).map(|_| ())
            };
            let call = Call { input: Arc::new(()), fills: true, work, result: None, reply };
            (Box::new(call) as Box<dyn Job>, answer)
        };
        let is_full =
            |answer: Answer| matches!(answer.blocking_recv().unwrap(), Err(QueueError::Exhausted(_)));

        let message = |id| NewMessage {
            id: MessageId::of_source("test", id).unwrap(),
            payload: Vec::new(),
            deadline: std::time::Duration::from_secs(60),
            age: std::time::Duration::ZERO,
        };
        let known = [message("known"), message("new")];
        let accepted = known[..1].to_vec();
        let (first, first_answer) = call(move |step| intake::accept(step, &accepted).map(drop));
        writer.serve(vec![first]);
        assert_eq!(first_answer.blocking_recv().unwrap(), Ok(()));

        limit(&writer, 2);
        let ((large, large_answer), (small, small_answer)) = (fill(), leave("small"));
        writer.serve(vec![large, small]);
        assert!(is_full(large_answer));
        assert_eq!(small_answer.blocking_recv().unwrap(), Ok(()));
        assert_eq!(lanes(&writer), ["in", "small"]);
        assert!(!reserve.exists());
        let (repeated, repeated_answer) = call(move |step| {
            let answers = intake::only_known(step, &known)?;
            assert_eq!(answers, Some(vec![Acceptance::Duplicate, Acceptance::Full]));
            assert_eq!(intake::only_known(step, &known[1..])?, None);
            Ok(())
        });
        writer.serve(vec![repeated]);
        assert_eq!(repeated_answer.blocking_recv().unwrap(), Ok(()));
        assert_eq!(Books::load(&writer.connection).unwrap().duplicates, 1);

        limit(&writer, 1_000);
        let (untried, untried_answer) = fill();
        writer.serve(vec![untried]);
        assert!(is_full(untried_answer), "what comes in waits until the reserve is back");

        let upkeep = writer.upkeep.as_mut().unwrap();
        upkeep.look_after(&writer.connection, &writer.health, writer.clock.now());
        assert!(!reserve.exists());
        writer.clock.advance(std::time::Duration::from_secs(10));
        upkeep.look_after(&writer.connection, &writer.health, writer.clock.now());
        assert!(reserve.exists());
        let (taken, taken_answer) = fill();
        writer.serve(vec![taken]);
        assert_eq!(taken_answer.blocking_recv().unwrap(), Ok(()));
        assert_eq!(writer.health.check(), Ok(()));
    }

    #[test]
    fn after_a_failed_write_nothing_is_tried_again() {
        let mut writer = writer(Connection::open_in_memory().unwrap());
        let (mate, mate_answer) = leave("mate");
        let (failing, failing_answer) =
            call(|_| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)));
        writer.serve(vec![mate, failing]);
        assert!(matches!(mate_answer.blocking_recv().unwrap(), Err(QueueError::Unavailable(_))));
        assert!(matches!(failing_answer.blocking_recv().unwrap(), Err(QueueError::Unavailable(_))));
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        let (later, later_answer) = call(move |_| {
            seen.store(true, Ordering::Relaxed);
            Ok(())
        });
        writer.serve(vec![later]);
        assert!(matches!(later_answer.blocking_recv().unwrap(), Err(QueueError::Unavailable(_))));
        assert!(!asked.load(Ordering::Relaxed));
        assert_eq!(lanes(&writer), Vec::<String>::new());
    }
}
