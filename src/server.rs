//! An HTTP/1 server that slow and greedy clients cannot tie up, and that drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A request's head must arrive in this time; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: usize = 32 * 1024;

/// The address a connection came from; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves `router` on `listener` until `shutdown`, then finishes the requests in flight, for at most
/// `drain`.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, drain: Duration) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let Some((accepted, permit)) = shutdown.run_until_cancelled(accepted).await else { break };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A broken connection is its client's affair.
            let _ = watched.await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(drain, graceful.shutdown()).await;
}
