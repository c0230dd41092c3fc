//! What the figures were made on.

use std::fs;
use std::process::Command;

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("not installed").to_owned()
}

fn one_minute_load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// The machine and its load before the run.
pub(crate) struct Environment {
    before: String,
}

impl Environment {
    /// Looks now.
    pub(crate) fn look() -> Self {
        Self { before: one_minute_load() }
    }

    /// One paragraph; looks at the load again.
    pub(crate) fn words(&self) -> String {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches(['\t', ' ', ':']);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let redis = first_line("redis-server", &["--version"]);
        let redis =
            redis.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or("not installed").to_owned();
        format!(
            "{cores} cores of {model}, Linux {}, {}, Redis {redis}, Node.js {}; load average {} before the run and {} \
             after it. {} of `sms-broadcaster` {}.",
            fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            first_line("rustc", &["--version"]),
            first_line("node", &["--version"]),
            self.before,
            one_minute_load(),
            "Release build",
            env!("CARGO_PKG_VERSION")
        )
    }
}
