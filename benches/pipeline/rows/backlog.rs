//! The row about backlogs: as many deliveries a second, and as little memory, whether a thousand messages wait or
//! a million.

use std::io;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use sms_broadcaster::clock::Clock;
use sms_broadcaster::message::{Body, MessageId};
use sms_broadcaster::queue::contract::{Acceptance, MAX_BATCH, NewMessage, Queue, QueueError, QueueSettings};
use sms_broadcaster::queue::embedded::EmbeddedQueue;
use sms_broadcaster::queue::redis::{RedisQueue, RedisSettings};

use super::bench::{Bench, RECIPIENTS, WARM_UP};
use crate::fixtures::{FROM, message};
use crate::ours::{Ours, Program};
use crate::process::pause;
use crate::redis::{Fsync, Redis};
use crate::report::{Asked, Report};
use crate::webhooks::text;

const ROW: &str = "backlog";

/// A long backlog takes a while to be worked off: nothing may expire meanwhile.
const PATIENT: &str = "[message]\ndeadline = \"6h\"";
const DEADLINE: Duration = Duration::from_secs(6 * 3600);
const CAPACITY: u64 = 2_000_000;

/// The number of the first message of a backlog: those below are brought in by webhooks, which are signed in advance.
const FIRST: u32 = 10_000_000;

/// Puts messages into a store as an ingress does, without one: a million webhooks take their time.
fn fill(queue: &dyn Queue, count: u32) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filled: Result<bool, QueueError> = runtime.block_on(async {
        queue.prepare().await?;
        let mut all_accepted = true;
        for from in (FIRST..FIRST + count).step_by(MAX_BATCH) {
            let numbers = from..(from + MAX_BATCH as u32).min(FIRST + count);
            let answers = queue.accept(&numbers.map(new_message).collect::<Vec<_>>()).await?;
            all_accepted &= answers.iter().all(|answer| *answer == Acceptance::Accepted);
        }
        Ok(all_accepted)
    });
    match filled.map_err(io::Error::other)? {
        true => Ok(()),
        false => Err(io::Error::other("a message of the backlog was not accepted")),
    }
}

fn new_message(number: u32) -> NewMessage {
    let id = MessageId::twilio(&format!("SM{number:032x}")).expect("an id");
    let message = sms_broadcaster::message::InboundMessage {
        id: id.clone(),
        body: Body::new(text(number)),
        ..message(FROM)
    };
    NewMessage { id, payload: message.to_payload(), deadline: DEADLINE, age: Duration::ZERO }
}

fn settings() -> QueueSettings {
    QueueSettings { capacity: CAPACITY, ..QueueSettings::default() }
}

/// Measures with `size` messages waiting. What is delivered is brought in again, so that so many keep waiting.
fn measure(
    bench: &Bench,
    size: u32,
    ingress: u16,
    programs: &[(&str, &Program)],
) -> io::Result<(f64, Vec<f64>)> {
    let before = bench.receiver.received();
    let (began, mut next, mut counted) = (Instant::now(), 0, None);
    let mut highest = vec![0.0_f64; programs.len()];
    while began.elapsed() < WARM_UP + bench.length {
        if began.elapsed() > WARM_UP && counted.is_none() {
            bench.receiver.take_arrivals();
            counted = Some(Instant::now());
        }
        let gone = ((bench.receiver.received() - before) / RECIPIENTS) as u32;
        // Beyond a thousand a few more or less make no difference.
        if gone > next + size / 10 {
            next = bench.fill(ingress, next, gone)?.next;
        }
        for (highest, (_, program)) in highest.iter_mut().zip(programs) {
            *highest = highest.max(program.process.resident());
        }
        pause(Duration::from_millis(2));
    }
    let counted = counted.map_or(f64::NAN, |since| since.elapsed().as_secs_f64());
    Ok((bench.receiver.take_arrivals().len() as f64 / counted, highest))
}

fn on_redis(bench: &Bench, report: &mut Report, name: &str, size: u32) -> io::Result<f64> {
    let redis: Redis = bench.redis(Fsync::EverySecond)?;
    let installation = bench.on_redis(&redis, &format!("capacity = {CAPACITY}"), PATIENT)?;
    let url = SecretString::from(format!("redis://127.0.0.1:{}", redis.port));
    let queue =
        RedisQueue::new(RedisSettings::at(url), settings(), Clock::system()).map_err(io::Error::other)?;
    fill(&queue, size)?;
    report.note(ROW, &format!("{name} waiting: Redis, used memory"), "MiB", redis.used_memory()?);
    let (ingress, worker) = (installation.start("sms-ingress")?, installation.start("sms-worker")?);
    let programs = [("sms-ingress", &ingress), ("sms-worker", &worker)];
    note(bench, report, &format!("{name} waiting"), size, ingress.ingress, &programs)
}

fn embedded(bench: &Bench, report: &mut Report, name: &str, size: u32) -> io::Result<f64> {
    let installation: Ours = bench.embedded(&format!("capacity = {CAPACITY}"), PATIENT)?;
    {
        let queue = EmbeddedQueue::open(&installation.queue_file(), settings(), Clock::system());
        fill(&queue.map_err(io::Error::other)?, size)?;
    }
    let service = installation.start("sms-broadcaster")?;
    let programs = [("sms-broadcaster", &service)];
    note(bench, report, &format!("embedded, {name} waiting"), size, service.ingress, &programs)
}

fn note(
    bench: &Bench,
    report: &mut Report,
    what: &str,
    size: u32,
    ingress: u16,
    programs: &[(&str, &Program)],
) -> io::Result<f64> {
    let (rate, highest) = measure(bench, size, ingress, programs)?;
    report.note(ROW, &format!("{what}: deliveries"), "/s", rate);
    for ((program, _), highest) in programs.iter().zip(highest) {
        report.note(ROW, &format!("{what}: `{program}`, highest resident"), "MiB", highest);
    }
    Ok(rate)
}

pub(super) fn backlog(bench: &Bench, report: &mut Report) -> io::Result<()> {
    let sizes = [("1,000", 1_000), ("100,000", 100_000), ("1,000,000", 1_000_000)];
    let sizes = if bench.quick { &sizes[..2] } else { &sizes[..] };
    let slowest = ["slowest below the fastest", "embedded: slowest below the fastest"];
    for _ in 0..bench.rounds.div_ceil(3) {
        for (run, slowest) in [on_redis as fn(&_, &mut _, &_, _) -> _, embedded].into_iter().zip(slowest) {
            let (mut low, mut high) = (f64::MAX, 0.0_f64);
            for (name, size) in sizes {
                let rate = run(bench, report, name, *size)?;
                (low, high) = (low.min(rate), high.max(rate));
                bench.quiet();
            }
            report.note(ROW, slowest, "%", (1.0 - low / high) * 100.0);
        }
    }
    for (store, name) in ["Redis", "embedded"].into_iter().zip(slowest) {
        let measure = format!(
            "deliveries per second with 1 k, 100 k and 1 M waiting, {store}: slowest below the fastest"
        );
        report.ask(ROW, &measure, name, Asked::AtMost(15.0, 10.0));
    }
    let name = sizes.last().map_or("", |(name, _)| name);
    for program in
        ["", "embedded, "].into_iter().zip([&["sms-ingress", "sms-worker"][..], &["sms-broadcaster"]])
    {
        for program in
            program.1.iter().map(|own| format!("{}{name} waiting: `{own}`, highest resident", program.0))
        {
            report.ask(ROW, &format!("resident memory: {program}"), &program, Asked::AtMost(40.0, 30.0));
        }
    }
    Ok(())
}
