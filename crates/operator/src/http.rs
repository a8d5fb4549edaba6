//! Liveness, readiness and metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// Serves until `stop` and never returns but with an error: the end of the operator is not this server's to say.
/// Without an address nothing is served. Errors: the address cannot be listened on.
pub(crate) async fn serve(
    listen: Option<SocketAddr>,
    context: Arc<Context>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Some(listen) = listen else { return std::future::pending().await };
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen} for liveness and metrics: give another address with --listen")
    })?;
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await?;
    std::future::pending().await
}

/// Ready means: the API server has answered and the controllers have seen their objects. A standby is ready too.
async fn ready(State(context): State<Arc<Context>>) -> impl IntoResponse {
    if context.is_ready() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting") }
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let mut text = String::new();
    context.metrics.leader.set(i64::from(context.leadership.is_held()));
    match prometheus_client::encoding::text::encode(&mut text, &context.metrics.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
