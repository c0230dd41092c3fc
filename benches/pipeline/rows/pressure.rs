//! The row about back-pressure: receivers that take about a hundredth of what arrives.

use std::io;
use std::time::Duration;

use super::bench::{Bench, percentile};
use crate::load::{Load, Pace};
use crate::process::pause;
use crate::redis::Fsync;
use crate::report::{Asked, Report};

/// Messages that arrive in a second.
const ARRIVING: u32 = 3_000;

/// How long a receiver takes for one: what a worker has in flight at most, sent at this pace, is about
/// a hundredth of three deliveries a message.
const SLOW: Duration = Duration::from_secs(4);

pub(super) fn pressure(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "pressure";
    let length = if bench.quick { Duration::from_secs(6) } else { Duration::from_secs(20) };
    // Reached when three quarters of the time are over.
    let capacity = ARRIVING * length.as_secs() as u32 / 4 * 3;
    let redis = bench.redis(Fsync::EverySecond)?;
    let installation = bench.on_redis(&redis, &format!("capacity = {capacity}"), "")?;
    let (ingress, worker) = (installation.start("sms-ingress")?, installation.start("sms-worker")?);
    bench.receiver.answer_after(SLOW);
    let received = bench.receiver.received();
    let load = Load { pace: Pace::PerSecond(ARRIVING), length, ..bench.full_speed(ingress.ingress) };
    let sending = load.start();
    let mut resident = Vec::new();
    while !sending.is_finished() {
        resident.push((ingress.process.resident(), worker.process.resident()));
        pause(Duration::from_millis(100));
    }
    let sent = sending.join().map_err(|_| io::Error::other("the generator failed"))?;
    let delivered = bench.receiver.received() - received;
    report.note(ROW, "webhooks", "/s", f64::from(sent.next) / length.as_secs_f64());
    report.note(
        ROW,
        "deliveries begun, of those that are wanted",
        "%",
        delivered as f64 / f64::from(sent.next * 3) * 100.0,
    );
    report.note(ROW, "answer p99", "ms", percentile(&sent.answered_after, 0.99));
    // From when everything is warm to the end.
    let settled = &resident[resident.len() / 4..];
    let growth =
        |of: fn(&(f64, f64)) -> f64| settled.last().map_or(0.0, of) - settled.first().map_or(0.0, of);
    report.note(ROW, "ingress: resident memory grows by", "MiB", growth(|(ingress, _)| *ingress));
    report.note(ROW, "worker: resident memory grows by", "MiB", growth(|(_, worker)| *worker));
    let before_refusal = sent.first_refusal.map_or(0, |(_, accepted)| accepted);
    report.note(
        ROW,
        "accepted before the first 503, of the capacity",
        "%",
        before_refusal as f64 / f64::from(capacity) * 100.0,
    );
    let others = sent.answers.keys().filter(|status| !matches!(status, 200 | 503)).count();
    report.note(ROW, "answers other than 200 and 503", "", others as f64);
    drop((worker, ingress));
    bench.quiet();
    report.ask(ROW, "receivers at 1 %: ingress answer p99", "answer p99", Asked::AtMost(10.0, 5.0));
    for name in ["ingress: resident memory grows by", "worker: resident memory grows by"] {
        report.ask(ROW, &format!("receivers at 1 %: {name}"), name, Asked::AtMost(4.0, 2.0));
    }
    let name = "accepted before the first 503, of the capacity";
    report.ask(ROW, &format!("receivers at 1 %: {name}"), name, Asked::AtLeast(99.0, 100.0));
    Ok(())
}
