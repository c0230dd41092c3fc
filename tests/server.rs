//! The HTTP server against slow, greedy and broken clients, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sms_broadcaster::server::{Limits, serve_within};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::installation::Installation;
use crate::support::provider::Provider;
use crate::support::wire::{Wire, ask, guarded};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// Time enough for a request that was sent with its connection to be read, on a busy machine too.
const MOMENT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(3600);

/// Limits that no test meets by accident.
fn wide() -> Limits {
    Limits { head: LONG, idle: LONG, write: LONG, linger: LONG, connections: 100, ..Limits::default() }
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// `/held` waits for this, once it has rung `asked`.
    go_on: Arc<Notify>,
    asked: Arc<Notify>,
}

impl Server {
    async fn start(limits: Limits, drain: Duration) -> Self {
        let (go_on, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let held = (Arc::clone(&go_on), Arc::clone(&asked));
        let router = Router::new()
            .route("/", get(|| async { "fine" }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("as this test wants it")
                    }
                }),
            )
            .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
            .route(
                "/held",
                get(move || async move {
                    held.1.notify_one();
                    held.0.notified().await;
                    "held"
                }),
            );
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve_within(limits, listener, router, stop.clone(), drain));
        Self { address, stop, served, go_on, asked }
    }

    async fn is_fine(&self) {
        assert_eq!(ask(self.address, GET).await.body, "fine");
    }

    async fn ended(self) {
        self.stop.cancel();
        guarded(self.served).await.unwrap();
    }
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = Server::start(Limits { head: MOMENT, ..wide() }, MOMENT).await;
    for start in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut wire = Wire::connect(server.address).await;
        wire.send(start).await;
        assert!(wire.answer().await.is_none_or(|answer| answer.status == 408), "{start:?}");
    }
    server.is_fine().await;
}

#[tokio::test]
async fn an_idle_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let server = Server::start(Limits { head: MOMENT, ..wide() }, MOMENT).await;
    let mut idle = Wire::connect(server.address).await;
    for start in ["G", "GET / HTTP/1.1\r\n"] {
        idle.send(GET).await;
        assert_eq!(idle.answer().await.unwrap().body, "fine");
        // Its head takes too long, and all that time the other one was idle.
        let mut slow = Wire::connect(server.address).await;
        slow.send(GET).await;
        assert_eq!(slow.answer().await.unwrap().body, "fine");
        slow.send(start).await;
        slow.closed().await;
    }
    idle.send(GET).await;
    assert_eq!(idle.answer().await.unwrap().body, "fine");
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_is_closed_when_idle() {
    let server = Server::start(Limits { idle: MOMENT, ..wide() }, MOMENT).await;
    let mut wire = Wire::connect(server.address).await;
    for _ in 0..3 {
        wire.send(GET).await;
        assert_eq!(wire.answer().await.unwrap().body, "fine");
    }
    wire.closed().await;
}

#[tokio::test]
async fn heads_are_bounded_in_lines_and_bytes() {
    let server = Server::start(wide(), MOMENT).await;
    let many = "A: b\r\n".repeat(65);
    let large = format!("A: {}\r\n", "b".repeat(100_000));
    for headers in [many, large] {
        let answer = ask(server.address, format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        assert_eq!(answer.status, 431);
    }
    let endless = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let refused = ask(server.address, endless).await.status;
    assert!(refused == 431 || refused == 414, "{refused}");
    let usual = "A: b\r\n".repeat(50);
    assert_eq!(ask(server.address, format!("GET / HTTP/1.1\r\nHost: x\r\n{usual}\r\n")).await.status, 200);
}

#[tokio::test]
async fn beyond_so_many_connections_the_next_waits_for_one_to_end() {
    let server = Server::start(Limits { connections: 2, ..wide() }, MOMENT).await;
    let held = [Wire::connect(server.address).await, Wire::connect(server.address).await];
    for mut wire in held {
        // Answered, so it has its place; and kept open.
        wire.send(GET).await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        let next = tokio::spawn(ask(server.address, GET));
        drop(wire);
        assert_eq!(guarded(next).await.unwrap().body, "fine");
    }
}

#[tokio::test]
async fn a_full_house_keeps_nobody_out_for_longer_than_an_idle_client_may_stay() {
    let server = Server::start(Limits { connections: 1, head: MOMENT, ..wide() }, MOMENT).await;
    let _idle = Wire::connect(server.address).await;
    server.is_fine().await;
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_request_alone() {
    let server = Server::start(Limits { connections: 1, ..wide() }, MOMENT).await;
    for _ in 0..3 {
        assert_eq!(ask(server.address, GET.replace("/ ", "/panic ")).await.status, 500);
    }
    let mut wire = Wire::connect(server.address).await;
    wire.send(GET.replace("/ ", "/panic ")).await;
    wire.send(GET).await;
    assert_eq!(wire.answer().await.unwrap().status, 500);
    assert_eq!(wire.answer().await.unwrap().body, "fine");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_hung_up_on() {
    let server =
        Server::start(Limits { connections: 1, write: MOMENT, linger: MOMENT, ..wide() }, MOMENT).await;
    let mut deaf = Wire::connect(server.address).await;
    deaf.send(GET.replace("/ ", "/large ")).await;
    // Its place is the only one.
    server.is_fine().await;
}

#[tokio::test]
async fn at_the_end_idle_connections_are_closed_and_requests_in_flight_answered() {
    let server = Server::start(wide(), LONG).await;
    let mut idle = Wire::connect(server.address).await;
    idle.send(GET).await;
    assert_eq!(idle.answer().await.unwrap().body, "fine");
    let mut busy = Wire::connect(server.address).await;
    busy.send(GET.replace("/ ", "/held ")).await;
    server.asked.notified().await;

    server.stop.cancel();
    idle.closed().await;
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.go_on.notify_one();
    let answer = busy.answer().await.unwrap();
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("held", Some("close")));
    busy.closed().await;
    server.ended().await;
}

#[tokio::test]
async fn what_is_not_done_in_time_is_cut_off() {
    let server = Server::start(wide(), MOMENT).await;
    let mut busy = Wire::connect(server.address).await;
    busy.send(GET.replace("/ ", "/held ")).await;
    server.asked.notified().await;
    server.ended().await;
    assert!(busy.answer().await.is_none());
}

#[tokio::test]
async fn a_process_out_of_files_serves_again_when_some_are_closed() {
    let provider = Provider::start();
    let installation = Installation::embedded(&provider, "");
    let program = installation.start("sms-broadcaster").await;
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count();
    let limit = open_files() + 5;
    let (pid, files) = (program.pid().to_string(), format!("--nofile={limit}"));
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid, &files]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit (package util-linux) is needed");

    let address = SocketAddr::from(([127, 0, 0, 1], program.ingress));
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(Wire::connect(address).await);
    }
    // From now on it cannot accept, and there is somebody to be accepted.
    guarded(async {
        while open_files() < limit {
            tokio::task::yield_now().await;
        }
    })
    .await;
    held.clear();
    let sid = "SM00000000000000000000000000000001";
    guarded(async {
        while installation.post(program.ingress, sid, "+12223334444", "code 1").await != Some(200) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
