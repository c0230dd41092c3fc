//! The rows about the ingress.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use tokio::io::AsyncWriteExt;

use super::bench::{Bench, Cost, WARM_UP, percentile};
use crate::load::{Load, Pace, Sent};
use crate::peers::start_ceiling;
use crate::process::Process;
use crate::redis::{Fsync, Redis};
use crate::report::{Asked, Report};
use crate::wire::Incoming;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 11\r\n\r\n<Response/>";

/// What the generator does against a server that only reads and answers, on one thread as well.
pub(super) fn generator(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "generator";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of this runtime");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut incoming = Incoming::default();
                    while let Ok(Some(_)) = incoming.next(&mut stream).await {
                        let _ = stream.write_all(ANSWER).await;
                    }
                });
            }
        });
    });
    for _ in 0..bench.rounds {
        let sent = bench.full_speed(port).run();
        report.note(ROW, "requests against a server that only answers", "/s", sent.accepted_per_second());
        let each = sent.cpu.as_secs_f64() * 1e6 / sent.accepted() as f64;
        report.note(ROW, "processor time of the generator for a request", "µs", each);
    }
    Ok(())
}

fn all_accepted(sent: &Sent, who: &str) -> io::Result<()> {
    match sent.refused() {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("{who} refused some: {:?}", sent.answers))),
    }
}

/// One contender of the row `accept`: brings load and notes what came of it. Returns webhooks a second.
fn contend(
    bench: &Bench,
    report: &mut Report,
    name: &str,
    (port, process): (u16, &Process),
    redis: Option<&Redis>,
) -> io::Result<f64> {
    const ROW: &str = "accept";
    let (cost, redis_cost) = (Cost::of(process), redis.map(|redis| Cost::of(&redis.process)));
    let sent = bench.full_speed(port).run();
    all_accepted(&sent, name)?;
    // Processor time is counted with the warm-up.
    let all = u64::from(sent.next);
    report.note(ROW, &format!("{name}: webhooks"), "/s", sent.accepted_per_second());
    report.note(ROW, &format!("{name}: answer p50"), "ms", percentile(&sent.answered_after, 0.5));
    report.note(ROW, &format!("{name}: answer p99"), "ms", percentile(&sent.answered_after, 0.99));
    report.note(ROW, &format!("{name}: processor time of a webhook"), "µs", cost.each(all));
    if let Some(redis_cost) = redis_cost {
        report.note(ROW, &format!("{name}: processor time of Redis for it"), "µs", redis_cost.each(all));
    }
    let share = sent.cpu.as_secs_f64() / sent.elapsed.as_secs_f64() * 100.0;
    report.note(ROW, &format!("{name}: the generator's share of a core"), "%", share);
    Ok(sent.accepted_per_second())
}

pub(super) fn accept(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "accept";
    for _ in 0..bench.rounds {
        let ours = {
            let redis = bench.redis(Fsync::EverySecond)?;
            let installation = bench.on_redis(&redis, "", "")?;
            let ingress = installation.start("sms-ingress")?;
            contend(bench, report, "SMS Broadcaster", (ingress.ingress, &ingress.process), Some(&redis))?
        };
        if let Some(peers) = &bench.peers {
            let redis = bench.redis(Fsync::EverySecond)?;
            let peer = peers.start("ingress.mjs", redis.port, &bench.receiver.url())?;
            let bullmq =
                contend(bench, report, "Express + BullMQ", (peer.port, &peer.process), Some(&redis))?;
            report.note(ROW, "SMS Broadcaster to Express + BullMQ", "×", ours / bullmq);
            drop(peer);
            let peer = peers.start("express.mjs", redis.port, &bench.receiver.url())?;
            let name = "Express, sends before it answers";
            let express = contend(bench, report, name, (peer.port, &peer.process), None)?;
            report.note(ROW, "SMS Broadcaster to Express, sends before it answers", "×", ours / express);
            bench.quiet();
        }
        let ceiling = start_ceiling()?;
        let bare = contend(bench, report, "bare axum", (ceiling.port, &ceiling.process), None)?;
        report.note(ROW, "SMS Broadcaster to bare axum", "%", ours / bare * 100.0);
        let redis = bench.redis(Fsync::EverySecond)?;
        report.note(ROW, "redis-benchmark: SET of 600 bytes", "/s", redis_benchmark(redis.port)?);
    }
    let measure = "signed webhooks accepted per second, against Express + BullMQ";
    report.ask(ROW, measure, "SMS Broadcaster to Express + BullMQ", Asked::AtLeast(8.0, 12.0));
    let measure = "the same, against a bare axum handler";
    report.ask(ROW, measure, "SMS Broadcaster to bare axum", Asked::AtLeast(35.0, 50.0));
    Ok(())
}

/// What Redis and the sockets do with a plain command from as many connections.
fn redis_benchmark(port: u16) -> io::Result<f64> {
    let output = Command::new("redis-benchmark")
        .args([
            "-p",
            &port.to_string(),
            "-c",
            "64",
            "-n",
            "100000",
            "-r",
            "100000",
            "-d",
            "600",
            "-t",
            "set",
            "--csv",
        ])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("\"SET\""));
    let field = line.and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok());
    field.ok_or_else(|| io::Error::other("redis-benchmark says nothing"))
}

pub(super) fn answer(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "answer";
    for _ in 0..bench.rounds {
        let redis = bench.redis(Fsync::EverySecond)?;
        let installation = bench.on_redis(&redis, "", "")?;
        let ingress = installation.start("sms-ingress")?;
        let sent = bench.full_speed(ingress.ingress).run();
        all_accepted(&sent, "the ingress")?;
        let half = (sent.accepted_per_second() / 2.0) as u32;
        let pace = Pace::PerSecond(half);
        let sent = Load { pace, first: sent.next, ..bench.full_speed(ingress.ingress) }.run();
        all_accepted(&sent, "the ingress")?;
        report.note(ROW, "webhooks", "/s", sent.accepted_per_second());
        report.note(ROW, "answer p50", "ms", percentile(&sent.answered_after, 0.5));
        report.note(ROW, "answer p99", "ms", percentile(&sent.answered_after, 0.99));
    }
    let measure = "ingress answer p99 at half its maximum rate";
    report.ask(ROW, measure, "answer p99", Asked::AtMost(10.0, 5.0));
    Ok(())
}

pub(super) fn disk(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "disk";
    for _ in 0..bench.rounds {
        let mut rates = [0.0; 2];
        let ways = [("everysec", Fsync::EverySecond, ""), ("always", Fsync::Always, "durability = \"disk\"")];
        for (place, (name, fsync, queue)) in ways.into_iter().enumerate() {
            let redis = bench.redis(fsync)?;
            let installation = bench.on_redis(&redis, queue, "")?;
            let ingress = installation.start("sms-ingress")?;
            let sent = bench.full_speed(ingress.ingress).run();
            all_accepted(&sent, name)?;
            rates[place] = sent.accepted_per_second();
            report.note(ROW, &format!("appendfsync {name}: webhooks"), "/s", rates[place]);
        }
        report.note(ROW, "always to everysec", "%", rates[1] / rates[0] * 100.0);
    }
    report.ask(
        ROW,
        "ingress under `durability = \"disk\"`",
        "always to everysec",
        Asked::AtLeast(50.0, 70.0),
    );
    Ok(())
}

pub(super) fn embedded(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "embedded";
    for _ in 0..bench.rounds {
        let installation = bench.embedded("", "")?;
        let program = installation.start("sms-broadcaster")?;
        let received = bench.receiver.received();
        let cost = Cost::of(&program.process);
        let sent = bench.full_speed(program.ingress).run();
        all_accepted(&sent, "the embedded queue")?;
        report.note(ROW, "webhooks", "/s", sent.accepted_per_second());
        report.note(ROW, "answer p99", "ms", percentile(&sent.answered_after, 0.99));
        report.note(
            ROW,
            "processor time of a webhook, deliveries included",
            "µs",
            cost.each(u64::from(sent.next)),
        );
        let delivered =
            (bench.receiver.received() - received) as f64 / (bench.length + WARM_UP).as_secs_f64();
        report.note(ROW, "deliveries at the same time", "/s", delivered);
        drop(program);
        bench.quiet();
    }
    let measure = "embedded: accepted durable messages per second at 64 connections";
    report.ask(ROW, measure, "webhooks", Asked::AtLeast(5_000.0, 15_000.0));
    Ok(())
}
