//! One function for each row of the table.

mod backlog;
mod bench;
mod hot_paths;
mod ingress;
mod pressure;
mod programs;
mod scripts;
mod worker;

pub(crate) use bench::Bench;

use std::io;

use crate::report::Report;

/// One row, or a few that are measured together.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) run: fn(&Bench, &mut Report) -> io::Result<()>,
}

/// All of them, in the order they are run.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "generator",
        says: "what the load generator and the receiver can do",
        run: ingress::generator,
    },
    Row { name: "hot-paths", says: "matching, verifying, rendering", run: hot_paths::hot_paths },
    Row { name: "start", says: "from the start of a process to its readiness", run: programs::start },
    Row { name: "accept", says: "signed webhooks accepted per second", run: ingress::accept },
    Row { name: "answer", says: "how long the ingress takes at half its maximum", run: ingress::answer },
    Row { name: "disk", says: "the ingress when Redis flushes before it answers", run: ingress::disk },
    Row {
        name: "embedded",
        says: "webhooks accepted per second by the embedded queue",
        run: ingress::embedded,
    },
    Row { name: "deliver", says: "deliveries per second from a standing backlog", run: worker::deliver },
    Row { name: "latency", says: "from the webhook to the receiver", run: worker::latency },
    Row { name: "workers", says: "1, 2 and 4 workers on a slow receiver", run: worker::workers },
    Row { name: "scripts", says: "what Redis spends on one piece of work", run: scripts::scripts },
    Row { name: "round-trips", says: "what a delivery costs Redis", run: worker::round_trips },
    Row { name: "memory", says: "resident memory, idle and under load", run: programs::memory },
    Row { name: "backlog", says: "1 k, 100 k and 1 M messages waiting", run: backlog::backlog },
    Row { name: "pressure", says: "receivers at a hundredth of what arrives", run: pressure::pressure },
];
