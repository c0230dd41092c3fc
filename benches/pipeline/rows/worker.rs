//! The rows about the worker.

use std::io;
use std::time::Duration;

use super::bench::{Bench, Cost, RECIPIENTS, WARM_UP, percentile};
use crate::load::{Load, Pace, Sent};
use crate::ours::{Ours, Recipients, Store};
use crate::process::pause;
use crate::receiver::Arrival;
use crate::redis::Fsync;
use crate::report::{Asked, Report};

pub(super) fn deliver(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "deliver";
    let waiting = if bench.quick { 40_000 } else { 80_000 };
    for _ in 0..bench.rounds {
        let redis = bench.redis(Fsync::EverySecond)?;
        let installation = bench.on_redis(&redis, "", "")?;
        bench.fill(installation.start("sms-ingress")?.ingress, 0, waiting)?;
        let worker = installation.start("sms-worker")?;
        let (before, cost, redis_cost) =
            (bench.receiver.received(), Cost::of(&worker.process), Cost::of(&redis.process));
        let ours = bench.arrivals_per_second();
        let delivered = bench.receiver.received() - before;
        report.note(ROW, "SMS Broadcaster: deliveries", "/s", ours);
        report.note(ROW, "SMS Broadcaster: processor time of a delivery", "µs", cost.each(delivered));
        report.note(ROW, "SMS Broadcaster: processor time of Redis for it", "µs", redis_cost.each(delivered));
        drop(worker);
        bench.quiet();

        let Some(peers) = &bench.peers else { continue };
        for (name, client) in [("BullMQ", "undici"), ("BullMQ with fetch", "fetch")] {
            let redis = bench.redis(Fsync::EverySecond)?;
            let ingress = peers.start("ingress.mjs", redis.port, &bench.receiver.url())?;
            bench.fill(ingress.port, 0, waiting / 4)?;
            drop(ingress);
            let worker = peers.start_with(client, "worker.mjs", redis.port, &bench.receiver.url())?;
            let (before, cost, redis_cost) =
                (bench.receiver.received(), Cost::of(&worker.process), Cost::of(&redis.process));
            let bullmq = bench.arrivals_per_second();
            let delivered = bench.receiver.received() - before;
            report.note(ROW, &format!("{name}: deliveries"), "/s", bullmq);
            report.note(ROW, &format!("{name}: processor time of a delivery"), "µs", cost.each(delivered));
            let of_redis = format!("{name}: processor time of Redis for it");
            report.note(ROW, &of_redis, "µs", redis_cost.each(delivered));
            report.note(ROW, &format!("SMS Broadcaster to {name}"), "×", ours / bullmq);
            drop(worker);
            bench.quiet();
        }
    }
    let measure = "deliveries per second from a standing backlog, against a BullMQ worker";
    report.ask(ROW, measure, "SMS Broadcaster to BullMQ", Asked::AtLeast(6.0, 10.0));
    let measure = "the same, where that worker posts with the built-in `fetch`";
    report.ask(ROW, measure, "SMS Broadcaster to BullMQ with fetch", Asked::AtLeast(6.0, 10.0));
    Ok(())
}

/// From when each message went out to each of its arrivals, in milliseconds, ascending; without those of
/// the warm-up.
fn transit(sent: &Sent, arrivals: &[Arrival]) -> Vec<f64> {
    let took = |arrival: &Arrival| {
        let sent_at = (*sent.sent_at.get(arrival.number as usize)?)?;
        (sent_at >= sent.began?).then(|| (arrival.at - sent_at).as_secs_f64() * 1000.0)
    };
    let mut took: Vec<f64> = arrivals.iter().filter_map(took).collect();
    took.sort_by(f64::total_cmp);
    took
}

pub(super) fn latency(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "latency";
    for _ in 0..bench.rounds {
        for name in ["Redis", "embedded"] {
            let redis = bench.redis(Fsync::EverySecond)?;
            let (installation, programs) = match name {
                "Redis" => (bench.on_redis(&redis, "", "")?, &["sms-ingress", "sms-worker"][..]),
                _ => (bench.embedded("", "")?, &["sms-broadcaster"][..]),
            };
            let running: Vec<_> =
                programs.iter().map(|name| installation.start(name)).collect::<Result<_, _>>()?;
            bench.receiver.take_arrivals();
            let received = bench.receiver.received();
            let load = Load { pace: Pace::PerSecond(200), ..bench.full_speed(running[0].ingress) };
            let sent = load.run();
            let expected = received + u64::from(sent.next) * RECIPIENTS;
            if !bench.receiver.wait_for(expected, Duration::from_secs(5)) {
                return Err(io::Error::other("not every delivery arrived"));
            }
            let transit = transit(&sent, &bench.receiver.take_arrivals());
            report.note(ROW, &format!("{name}: p50"), "ms", percentile(&transit, 0.5));
            report.note(ROW, &format!("{name}: p99"), "ms", percentile(&transit, 0.99));
            drop(running);
            bench.quiet();
        }
    }
    for name in ["Redis", "embedded"] {
        let measure = format!("webhook sent → receiver has it at 200 messages/s, {name}");
        report.ask(ROW, &format!("{measure}, p50"), &format!("{name}: p50"), Asked::AtMost(4.0, 2.0));
        report.ask(ROW, &format!("{measure}, p99"), &format!("{name}: p99"), Asked::AtMost(20.0, 10.0));
    }
    Ok(())
}

pub(super) fn workers(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "workers";
    let slow = Duration::from_millis(50);
    for _ in 0..bench.rounds {
        let mut rates = Vec::new();
        for (count, name) in [(1, "1 worker"), (2, "2 workers"), (4, "4 workers")] {
            let redis = bench.redis(Fsync::EverySecond)?;
            let store = Store::Redis(redis.port);
            let installation = Ours::new(store, Recipients::Phones, &bench.receiver.url(), "", "")?;
            // Some more than can be sent at 64 in flight, 50 ms each.
            let seconds = (bench.length + WARM_UP).as_secs_f64() + 1.0;
            let waiting = f64::from(count) * 64.0 / 0.05 * seconds / RECIPIENTS as f64;
            bench.fill(installation.start("sms-ingress")?.ingress, 0, waiting as u32)?;
            bench.receiver.answer_after(slow);
            let running: Vec<_> =
                (0..count).map(|_| installation.start("sms-worker")).collect::<Result<_, _>>()?;
            let rate = bench.arrivals_per_second();
            report.note(ROW, &format!("{name}: deliveries"), "/s", rate);
            rates.push(rate);
            drop(running);
            bench.quiet();
        }
        report.note(ROW, "2 workers to 1", "×", rates[1] / rates[0]);
        report.note(ROW, "4 workers to 1", "×", rates[2] / rates[0]);
    }
    report.ask(ROW, "2 workers against 1 on a slow receiver", "2 workers to 1", Asked::AtLeast(1.9, 1.98));
    report.ask(ROW, "4 workers against 1 on a slow receiver", "4 workers to 1", Asked::AtLeast(3.6, 3.92));
    Ok(())
}

pub(super) fn round_trips(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "round-trips";
    for (name, rate) in [("at 200 messages/s", 200), ("at 2,000 messages/s", 2_000)] {
        let redis = bench.redis(Fsync::EverySecond)?;
        let installation = bench.on_redis(&redis, "", "")?;
        let (ingress, worker) = (installation.start("sms-ingress")?, installation.start("sms-worker")?);
        let load = Load { pace: Pace::PerSecond(rate), ..bench.full_speed(ingress.ingress) };
        // Both ends of what is counted lie within the same steady flow.
        let sending = load.start();
        pause(WARM_UP);
        let (before, received) = (redis.counted()?, bench.receiver.received());
        pause(bench.length - Duration::from_millis(200));
        let (after, received) = (redis.counted()?, (bench.receiver.received() - received) as f64);
        let _ = sending.join();
        report.note(ROW, &format!("{name}: deliveries"), "/s", received / (bench.length.as_secs_f64() - 0.2));
        let trips = (after.requests - before.requests) / received;
        report.note(ROW, &format!("{name}: round trips a delivery, ingress included"), "", trips);
        report.note(
            ROW,
            &format!("{name}: bytes a delivery, both ways"),
            "",
            (after.bytes - before.bytes) / received,
        );
        drop((ingress, worker));
        bench.quiet();
    }
    let redis = bench.redis(Fsync::EverySecond)?;
    let installation = bench.on_redis(&redis, "", "")?;
    bench.fill(installation.start("sms-ingress")?.ingress, 0, if bench.quick { 20_000 } else { 40_000 })?;
    let worker = installation.start("sms-worker")?;
    bench.receiver.wait_for(bench.receiver.received() + 1_000, Duration::from_secs(10));
    let (before, received) = (redis.counted()?, bench.receiver.received());
    pause(Duration::from_secs(2));
    let (after, received) = (redis.counted()?, (bench.receiver.received() - received) as f64);
    let trips = (after.requests - before.requests) / received;
    report.note(ROW, "from a backlog: round trips a delivery, routing included", "", trips);
    report.note(
        ROW,
        "from a backlog: bytes a delivery, both ways",
        "",
        (after.bytes - before.bytes) / received,
    );
    drop(worker);
    bench.quiet();
    let name = "from a backlog: round trips a delivery, routing included";
    report.ask(ROW, "Redis round trips a delivery, from a backlog", name, Asked::Counted(0.1));
    Ok(())
}
