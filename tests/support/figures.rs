//! What a fault test measured, as one line of a table.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

/// Names the file that lines are appended to; `./test --chaos` makes the table of docs/guarantees.md of it.
const FILE: &str = "SMS_BROADCASTER_FIGURES";

/// What a fault test measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Faults that were made.
    pub(crate) faults: usize,
    /// Messages that were answered 200.
    pub(crate) messages: usize,
    /// Their deliveries.
    pub(crate) deliveries: usize,
    /// Deliveries that ended dead or expired, all of them allowed to.
    pub(crate) dead: usize,
    /// Messages answered 200 that are nowhere. The check fails if there are any that may not be.
    pub(crate) lost: usize,
    /// Sends that were accepted beyond the first.
    pub(crate) duplicates: usize,
    /// As many as there may be.
    pub(crate) duplicates_bound: usize,
    /// From the answer to the first acceptance, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// For each fault, how long it took until everything that was answered before it had arrived, sorted.
    pub(crate) recoveries: Vec<Duration>,
}

impl Figures {
    /// Shows them as the line of the test `name`, which did `what`.
    pub(crate) fn show(&self, name: &str, what: &str) {
        let line = format!(
            "| {name} | {what} | {} | {} | {} | {} | {} | {} of {} | {} | {} |",
            self.faults,
            self.messages,
            self.deliveries,
            self.dead,
            self.lost,
            self.duplicates,
            self.duplicates_bound,
            both(&self.latencies),
            both(&self.recoveries),
        );
        println!("{line}");
        if let Ok(file) = std::env::var(FILE) {
            let opened = OpenOptions::new().create(true).append(true).open(&file);
            // One write, so that lines of tests that run side by side stay whole.
            let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
            written.unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

/// Median and 99th percentile, in seconds.
fn both(sorted: &[Duration]) -> String {
    if sorted.is_empty() {
        return "–".to_owned();
    }
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize].as_secs_f64();
    format!("{:.2} / {:.2}", at(0.5), at(0.99))
}
