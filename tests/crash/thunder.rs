//! Everybody comes back at once, and everything is due at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{UNLIMITED, make_due, until_delayed};

use crate::support::chance::is_chaos;
use crate::support::installation::{Installation, RECIPIENTS};
use crate::support::ledger::{Allowed, Ledger};
use crate::support::provider::{Provider, Reply};
use crate::support::redis_server::RedisServer;

/// Time enough for what waits an hour.
const LONG: &str = "[message]\ndeadline = \"6h\"\n\n";

/// Workers that start together.
const WORKERS: usize = 12;

/// A script that calls more commands holds up everybody. The most has a claim: of a hundred pieces that it makes ready
/// and up to 256 that it looks at, ten for each.
const LONGEST_SCRIPT: usize = 3_560;

/// Counts the commands that scripts call. How long they take says more of the machine, and of who else works on it.
struct Monitor {
    counting: JoinHandle<Calls>,
}

/// What scripts called.
#[derive(Debug, Default)]
struct Calls {
    scripts: usize,
    commands: usize,
    longest: usize,
}

impl Monitor {
    /// What is done when it has seen all it is to see.
    const END: &str = "end-of-the-monitor";

    fn start(redis: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("the server answers");
        stream.write_all(b"MONITOR\r\n").expect("it can be asked");
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().expect("an answer").expect("an answer"), "+OK");
        let counting = std::thread::spawn(move || {
            let mut calls = Calls::default();
            let mut of_this_script = 0;
            // A script's line comes before those of the commands it calls.
            for line in lines.map_while(Result::ok).take_while(|line| !line.contains(Self::END)) {
                if line.contains(" lua] ") {
                    of_this_script += 1;
                    calls.commands += 1;
                    calls.longest = calls.longest.max(of_this_script);
                } else {
                    of_this_script = 0;
                    calls.scripts += usize::from(line.contains("] \"EVALSHA\" "));
                }
            }
            calls
        });
        Self { counting }
    }

    fn end(self, redis: &RedisServer) -> Calls {
        redis.command(&format!("ECHO {}", Self::END));
        self.counting.join().expect("it counts")
    }
}

#[tokio::test]
async fn workers_that_start_together_on_work_that_is_due_together_hold_up_nobody() {
    let number: u32 = if is_chaos() { 2_000 } else { 250 };
    let provider = Provider::start();
    let later = || Reply::status(503).header("Retry-After", "3600");
    for recipient in RECIPIENTS {
        provider.always(recipient, later());
    }
    let redis = RedisServer::start();
    let installation = Installation::redis(&provider, &redis.url(), &format!("{LONG}{UNLIMITED}"));
    let ingress = installation.start("sms-ingress").await;
    let mut first = installation.start("sms-worker").await;
    let ledger = Ledger::new();
    ledger.post_all(installation.poster(), &[ingress.ingress], 0..number, 16).await;
    until_delayed(&installation, 3 * u64::from(number)).await;
    assert_eq!(first.stop(), Some(0));
    for recipient in RECIPIENTS {
        provider.always(recipient, Reply::ok());
    }

    let monitor = Monitor::start(&redis);
    let soon = Duration::from_secs(2);
    let asked = Instant::now();
    assert_eq!(make_due(&redis, soon), 3 * u64::from(number));
    ledger.fault();
    let mut workers: Vec<_> = (0..WORKERS).map(|_| installation.program("sms-worker").spawn()).collect();

    let figures = ledger.check(&installation, &provider, Allowed::default()).await;
    figures.show("thunder", &format!("{WORKERS} workers start together, everything is due in one second"));
    let requests = provider.requests();
    let first =
        requests.iter().filter(|request| request.accepted()).map(|request| request.at.into_std()).min();
    assert!(first.expect("all arrived") >= asked + soon, "some were sent early");
    let calls = monitor.end(&redis);
    println!("{calls:?}");
    assert!(calls.scripts > 0 && calls.longest > 0, "nothing was seen: {calls:?}");
    assert!(calls.longest <= LONGEST_SCRIPT, "a script called {} commands", calls.longest);

    for worker in &mut workers {
        installation.wait_for_readiness(worker, 200).await;
    }
    assert!(redis.consumers("rdy:sms") <= WORKERS);
    for worker in &mut workers {
        worker.signal("TERM");
    }
    for worker in &mut workers {
        assert_eq!(worker.wait_for_end().await.code(), Some(0));
    }
    for stream in ["in", "rdy:sms", "rdy:slack"] {
        assert_eq!(redis.consumers(stream), 0, "{stream}: workers that left are remembered");
    }
}
