//! The operator's listener: `/healthz`, `/readyz`, `/metrics`. Never on the public address.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// What the listener asks of its service.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Whether it can do its job now, by a real round trip, and one word how; else one word why not.
    async fn ready(&self) -> Result<&'static str, &'static str>;
    /// Everything it counts, in the Prometheus text format.
    async fn metrics(&self) -> String;
}

/// An answer of the probe that takes longer is a no.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The routes.
pub fn router(probe: Arc<dyn Probe>) -> Router {
    let readiness = Arc::clone(&probe);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match tokio::time::timeout(PROBE_TIMEOUT, readiness.ready()).await {
                    Ok(Ok(word)) => (StatusCode::OK, format!("{word}\n")),
                    Ok(Err(word)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{word}\n")),
                    Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "timeout\n".to_owned()),
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
                (kind, probe.metrics().await).into_response()
            }),
        )
}
