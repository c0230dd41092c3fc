//! What a client may take of a server.

use std::time::Duration;

/// Connections where the process's limit of open files is not known.
const FEW_CONNECTIONS: usize = 512;
/// Connections however many files may be open.
const MANY_CONNECTIONS: usize = 4096;

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request's head must arrive in this time once it has begun; a new connection's first one as well.
    pub head: Duration,
    /// An idle connection is closed after it. Longer than the minute for which common proxies keep theirs, or
    /// they would send a request just as we close, and answer 502 for us.
    pub idle: Duration,
    /// An answer must make progress in this time.
    pub write: Duration,
    /// How long a connection that is being closed goes on reading what its client still sends.
    pub linger: Duration,
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Headers of one request.
    pub headers: usize,
    /// Bytes of a request's head. A whole message fits into the URL of a GET.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            connections: affordable_connections(),
            headers: 64,
            head_bytes: 32 * 1024,
        }
    }
}

/// Half of the files the process may open, so that the store and the providers keep theirs whatever
/// clients do.
fn affordable_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_open_files(&limits).map_or(FEW_CONNECTIONS, |files| (files / 2).clamp(1, MANY_CONNECTIONS))
}

/// The soft limit of open files in the words of proc(5).
fn soft_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read_from_its_table() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             7                    7                    processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(soft_open_files(table), Some(1024));
        assert_eq!(soft_open_files("Max open files  unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(soft_open_files(""), None);
        assert!((1..=MANY_CONNECTIONS).contains(&affordable_connections()));
    }
}
