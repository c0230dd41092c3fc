//! The rows about the programs as processes.

use std::io;
use std::time::Duration;

use super::bench::{Bench, highest_while};
use crate::process::pause;
use crate::redis::Fsync;
use crate::report::{Asked, Report};

const PROGRAMS: [&str; 3] = ["sms-ingress", "sms-worker", "sms-broadcaster"];

pub(super) fn start(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "start";
    let redis = bench.redis(Fsync::EverySecond)?;
    for _ in 0..bench.rounds * 3 {
        for name in PROGRAMS {
            let installation = match name {
                "sms-broadcaster" => bench.embedded("", "")?,
                _ => bench.on_redis(&redis, "", "")?,
            };
            let program = installation.start(name)?;
            report.note(ROW, name, "ms", program.ready_after.as_secs_f64() * 1000.0);
        }
    }
    for name in PROGRAMS {
        report.ask(ROW, &format!("start to ready: `{name}`"), name, Asked::AtMost(100.0, 50.0));
    }
    Ok(())
}

pub(super) fn memory(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "memory";
    for _ in 0..bench.rounds.min(3) {
        for name in PROGRAMS {
            let redis = bench.redis(Fsync::EverySecond)?;
            let installation = match name {
                "sms-broadcaster" => bench.embedded("", "")?,
                _ => bench.on_redis(&redis, "", "")?,
            };
            let program = installation.start(name)?;
            pause(Duration::from_secs(2));
            report.note(ROW, &format!("`{name}` idle"), "MiB", program.process.resident());
            let ingress = match name {
                "sms-worker" => Some(installation.start("sms-ingress")?),
                _ => None,
            };
            let port = ingress.as_ref().map_or(program.ingress, |ingress| ingress.ingress);
            let load = bench.full_speed(port).start();
            let highest = highest_while(&program, bench.length);
            let _ = load.join();
            report.note(ROW, &format!("`{name}` under full load"), "MiB", highest);
            drop(program);
            bench.quiet();
        }
    }
    for name in PROGRAMS {
        let idle = format!("`{name}` idle");
        report.ask(ROW, &format!("resident memory: {idle}"), &idle, Asked::AtMost(20.0, 12.0));
    }
    let loaded = "`sms-worker` under full load";
    report.ask(ROW, &format!("resident memory: {loaded}"), loaded, Asked::AtMost(40.0, 30.0));
    Ok(())
}
