//! The row about what is pure computation. `cargo bench --bench hot_paths` looks at it more closely.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use super::bench::Bench;
use crate::fixtures::{matching, rendering, verifying};
use crate::report::{Asked, Report};

const TIMES: u32 = 50_000;

/// Microseconds for one call.
fn each<T>(mut call: impl FnMut() -> T) -> f64 {
    (0..TIMES / 10).for_each(|_| drop(black_box(call())));
    let began = Instant::now();
    (0..TIMES).for_each(|_| drop(black_box(call())));
    began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
}

pub(super) fn hot_paths(bench: &Bench, report: &mut Report) -> io::Result<()> {
    const ROW: &str = "hot-paths";
    const MATCHING: &str = "matching a sender among 10,000 subscribers";
    const VERIFYING: &str = "verifying a webhook of 19 fields and reading it";
    const RENDERING: &str = "rendering for Slack";
    for _ in 0..bench.rounds {
        report.note(ROW, MATCHING, "µs", each(matching()));
        report.note(ROW, VERIFYING, "µs", each(verifying(None)));
        report.note(ROW, RENDERING, "µs", each(rendering("slack")));
    }
    for name in [MATCHING, VERIFYING, RENDERING] {
        report.ask(ROW, name, name, Asked::AtMost(5.0, 2.0));
    }
    Ok(())
}
