//! The ceiling: axum with our verification and nothing behind it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use sms_broadcaster::source::twilio::{Request, TwilioSource};

use crate::fixtures::{TARGET, source};

/// Serves on `port` until it is killed.
pub(crate) fn run(port: u16) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("ready");
        let router = Router::new().route(TARGET, post(webhook)).with_state(Arc::new(source()));
        axum::serve(listener, router).await
    })
}

async fn webhook(
    State(source): State<Arc<TwilioSource>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Request {
        post: true,
        target: uri.path(),
        content_type: headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()),
        signature: headers.get("x-twilio-signature").map(|value| value.as_bytes()),
        body: &body,
    };
    match source.verify(&request) {
        Ok(_) => ([(header::CONTENT_TYPE, "text/xml")], "<Response/>").into_response(),
        Err(_) => StatusCode::FORBIDDEN.into_response(),
    }
}
