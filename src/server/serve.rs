//! Accepting connections, serving each, and the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::limits::Limits;
use super::stream::{PatientStream, Turn};
use crate::quiet::Quiet;

/// The pause after a connection that could not be accepted: out of file descriptors, most likely, and
/// some are closed any moment.
const PAUSE: Duration = Duration::from_millis(50);

/// The address a connection came from; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves `router` on `listener` within the usual [`Limits`], until `shutdown`; see [`serve_within`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, drain: Duration) {
    serve_within(Limits::default(), listener, router, shutdown, drain).await;
}

/// Serves `router` on `listener` until `shutdown`. Then no connection is accepted any more, idle ones are
/// closed, requests in flight are answered, and what is not done after `drain` is cut off. Nothing of it
/// is left when this returns.
///
/// A handler that panics costs its own request, which is answered 500, and nothing else.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    let quiet = Quiet::default();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = shutdown.run_until_cancelled(next).await else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = quiet.admits("accept", Instant::now()) {
                    tracing::warn!(%error, left_out, "cannot accept a connection");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let connection = graceful.watch(connection(stream, peer, router.clone(), limits));
        let cut = cut.clone();
        tasks.spawn(async move {
            let _permit = permit;
            // A broken connection is its client's affair.
            let _ = cut.run_until_cancelled(connection).await;
        });
    }
    drop(listener);
    tasks.close();
    let drained = async {
        graceful.shutdown().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(drain, drained).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
}

/// One connection, ready to be served.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    // Answers are small and whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let turn = Turn::default();
    let stream = PatientStream::new(stream, turn.clone(), limits);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let ours = turn.take();
        let answered = answer(router.clone(), request);
        async move {
            let _ours = ours;
            answered.await
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // To hyper the time between two requests is part of the second one's head.
        .header_read_timeout(limits.idle)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service)
}

/// What is shared between requests is guarded by locks that a panic does not leave half changed.
async fn answer(router: Router, request: axum::extract::Request) -> Result<Response, Infallible> {
    let handled = AssertUnwindSafe(router.oneshot(request)).catch_unwind().await;
    handled.unwrap_or_else(|_| {
        tracing::error!("a request could not be answered: its handler panicked");
        Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response())
    })
}
