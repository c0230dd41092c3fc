//! Measures the programs as a whole, beside what they may be compared with.
//!
//! `cargo bench --bench pipeline` runs every row and writes `docs/benchmarks.md`; `-- --quick` a short form
//! that only prints; `-- deliver latency` some rows, and only prints. It needs redis-server, and node and npm
//! for the rows with peers.

mod ceiling;
mod chart;
mod environment;
#[path = "../fixtures.rs"]
mod fixtures;
mod load;
mod ours;
mod peers;
mod process;
mod receiver;
mod redis;
mod report;
mod rows;
mod webhooks;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::environment::Environment;
use crate::report::Report;
use crate::rows::{Bench, ROWS};

#[derive(Parser)]
#[command(about = "Measures the programs as a whole, beside what they may be compared with")]
struct Arguments {
    /// Rows to run; all when none is named.
    rows: Vec<String>,
    /// A short form: one round, short measurements.
    #[arg(long)]
    quick: bool,
    /// Rounds of every row.
    #[arg(long)]
    rounds: Option<u32>,
    /// Length of one measurement, in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Given by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The bare handler alone, for another load generator.
    Ceiling {
        /// Where it listens on loopback.
        #[arg(long)]
        port: u16,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.part {
        Some(Part::Ceiling { port }) => ceiling::run(port),
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> std::io::Result<()> {
    let unknown = arguments.rows.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str()));
    if let Some(name) = unknown {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(std::io::Error::other(format!("there is no row {name}; there are {}", names.join(", "))));
    }
    let began = Instant::now();
    let environment = Environment::look();
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 });
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { 2 } else { 4 });
    let bench = Bench::prepare(rounds.max(1), Duration::from_secs(seconds.max(1)), arguments.quick)?;
    let mut report = Report::default();
    for row in ROWS {
        if arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row.name) {
            eprintln!("{}: {} ({:.0} s so far)", row.name, row.says, began.elapsed().as_secs_f64());
            (row.run)(&bench, &mut report)?;
        }
    }
    let environment = environment.words();
    println!("{}", report.markdown(&environment));
    if arguments.rows.is_empty() && !arguments.quick {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        report.write(&environment, &docs.join("benchmarks.md"), &docs.join("img"))?;
        eprintln!("docs/benchmarks.md is written");
    }
    eprintln!("{:.0} s in all", began.elapsed().as_secs_f64());
    Ok(())
}
