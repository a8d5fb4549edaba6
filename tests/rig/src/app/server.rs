//! The app's HTTP side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{AppArgs, AppVersion, Behaviour, Format, Store, StoreError};

/// Answer of `GET /records`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsReport {
    /// How many records there are.
    pub count: u64,
    /// Number of the last one; 0 when there is none.
    pub last: u64,
    /// SHA-256 over all records, independent of the file format.
    pub checksum: String,
    /// Layout on disk.
    pub format: Format,
}

/// Answer of `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Version the process behaves as.
    pub version: String,
}

struct App {
    store: Store,
    version: AppVersion,
    started: Instant,
    fail_after: Duration,
}

impl App {
    fn is_ready(&self) -> bool {
        match self.version.behaviour() {
            Behaviour::Plain | Behaviour::MigratesItsData => true,
            Behaviour::CorruptsItsData => false,
            Behaviour::FailsInTheSoak => self.started.elapsed() < self.fail_after,
        }
    }
}

pub(super) async fn serve(args: &AppArgs, store: Store) -> anyhow::Result<()> {
    let fail_after = Duration::try_from_secs_f64(args.fail_after_seconds).context("FAIL_AFTER_SECONDS")?;
    // Both are taken before the first request can be answered, so that no stop signal finds the default handler.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let address = (args.pod_ip, args.port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {}:{}", args.pod_ip, args.port))?;
    let app = App { store, version: args.app_version, started: Instant::now(), fail_after };
    let router = Router::new()
        .route("/records", post(append).get(records))
        .route("/healthz", get(health))
        .route("/livez", get(|| async { "alive" }))
        .route("/version", get(version))
        .with_state(Arc::new(app));
    tracing::info!(version = %args.app_version, address = %listener.local_addr()?, "serving");
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        })
        .await
        .context("serving")
}

async fn append(State(app): State<Arc<App>>, text: String) -> Response {
    if !app.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response();
    }
    let appended = tokio::task::spawn_blocking(move || app.store.append(&text)).await;
    match appended {
        Ok(Ok(number)) => (StatusCode::CREATED, Json(serde_json::json!({ "number": number }))).into_response(),
        Ok(Err(error @ StoreError::BadRecord)) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Ok(Err(error)) => (StatusCode::INSUFFICIENT_STORAGE, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn records(State(app): State<Arc<App>>) -> Json<RecordsReport> {
    let summary = app.store.summary();
    Json(RecordsReport { count: summary.last, last: summary.last, checksum: summary.checksum, format: summary.format })
}

async fn health(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.is_ready() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}

async fn version(State(app): State<Arc<App>>) -> Json<VersionReport> {
    Json(VersionReport { version: app.version.to_string() })
}
