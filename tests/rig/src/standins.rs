//! The stand-ins for Flux's source-controller and helm-controller as programs; see [`kube_sim::controllers`].
//!
//! They take the options of the real ones, so that a rig starts either in the same way. The helm stand-in needs
//! `KUBECONFIG`, which it hands to helm.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use jiff::Timestamp;
use kube::Client;
use kube_sim::controllers::flux_helm::HelmContext;
use kube_sim::controllers::flux_source::SourceContext;
use kube_sim::controllers::{ArtifactStore, ChartRegistry, Clock, Error, HelmCli, flux_chart, flux_helm, flux_source};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Options that the controllers of Flux share.
#[derive(Debug, Clone, clap::Args)]
pub struct ControllerArgs {
    /// Where to answer `/readyz` and `/healthz`.
    #[arg(long)]
    pub health_addr: SocketAddr,
    /// Longest wait before a failed reconcile is tried again; accepted for likeness, the stand-ins wait half a second.
    #[arg(long, hide = true)]
    pub max_retry_delay: Option<String>,
    /// Wait before a failed Helm action is tried again.
    #[arg(long, default_value = "750ms", value_parser = parse_duration)]
    pub min_retry_delay: Duration,
    /// Options of the real controllers that mean nothing to a stand-in.
    #[command(flatten)]
    pub ignored: Ignored,
}

/// Accepted, because a rig starts the real controllers with them.
#[derive(Debug, Clone, clap::Args)]
#[allow(missing_docs, reason = "the flags are those of the controllers")]
pub struct Ignored {
    #[arg(long, hide = true)]
    pub metrics_addr: Option<String>,
    #[arg(long, hide = true)]
    pub events_addr: Option<String>,
    #[arg(long, hide = true)]
    pub enable_leader_election: Option<String>,
    #[arg(long, hide = true)]
    pub watch_all_namespaces: Option<String>,
    #[arg(long, hide = true)]
    pub kube_api_qps: Option<String>,
    #[arg(long, hide = true)]
    pub kube_api_burst: Option<String>,
}

/// Options of the source stand-in.
#[derive(Debug, Clone, clap::Args)]
pub struct SourceArgs {
    #[command(flatten)]
    common: ControllerArgs,
    /// Folder for artifacts and fetched repositories.
    #[arg(long)]
    storage_path: PathBuf,
    /// Where to serve artifacts.
    #[arg(long)]
    storage_addr: SocketAddr,
    /// Host and port under which the artifacts are found.
    #[arg(long)]
    storage_adv_addr: String,
    /// Folder with the chart repositories, `<host>/<path>` each; by default `charts` in the storage.
    #[arg(long)]
    charts_path: Option<PathBuf>,
}

/// Options of the helm stand-in.
#[derive(Debug, Clone, clap::Args)]
pub struct HelmArgs {
    #[command(flatten)]
    common: ControllerArgs,
    /// The helm binary, version 4.
    #[arg(long)]
    helm: PathBuf,
    /// Kubeconfig for helm.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Folder for temporary files.
    #[arg(long, env = "TMPDIR", default_value = "/tmp/windlass-helm-controller")]
    work_path: PathBuf,
    /// How often to look again at a dependency that is not ready.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    requeue_dependency: Duration,
}

/// Labels for `helm-labels`.
#[derive(Debug, Clone, clap::Args)]
pub struct LabelArgs {
    /// `key=value`.
    labels: Vec<String>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(parsed).map_err(|error| error.to_string())
}

fn clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// Artifacts as files, served over loopback HTTP as source-controller does.
struct HttpArtifacts {
    folder: PathBuf,
    address: String,
    http: reqwest::Client,
}

#[async_trait]
impl ArtifactStore for HttpArtifacts {
    async fn put(&self, path: &str, content: Bytes) -> Result<String, Error> {
        let file = self.folder.join(path);
        let next = file.with_extension("next");
        let written = async {
            if let Some(parent) = file.parent() {
                tokio::fs::create_dir_all(parent).await?;
            }
            tokio::fs::write(&next, &content).await?;
            tokio::fs::rename(&next, &file).await
        };
        let failed = |error: std::io::Error| Error::Source(format!("storing {}: {error}", file.display()));
        written.await.map_err(failed)?;
        Ok(format!("http://{}/{path}", self.address))
    }

    async fn get(&self, url: &str) -> Result<Bytes, Error> {
        let failed = |error: reqwest::Error| Error::Source(format!("artifact {url}: {error}"));
        let answer = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        answer.bytes().await.map_err(failed)
    }
}

async fn serve_file(State(folder): State<PathBuf>, uri: Uri) -> Response {
    let path = Path::new(uri.path().trim_start_matches('/'));
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match tokio::fs::read(folder.join(path)).await {
        Ok(content) => content.into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve(address: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    axum::serve(listener, router).await.context("serving")
}

fn health() -> Router {
    Router::new().route("/readyz", get(|| async { "ok" })).route("/healthz", get(|| async { "ok" }))
}

/// Runs the stand-in for source-controller until `stop` is cancelled.
///
/// # Errors
/// When it cannot listen or has no client.
pub async fn source_controller(args: SourceArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = args.storage_path.join("artifacts");
    let http = reqwest::Client::builder().no_proxy().build()?;
    let artifacts = Arc::new(HttpArtifacts { folder: folder.clone(), address: args.storage_adv_addr.clone(), http });
    let charts = args.charts_path.clone().unwrap_or_else(|| args.storage_path.join("charts"));
    let context = SourceContext {
        client: Client::try_default().await?,
        artifacts,
        cache: args.storage_path.join("repositories"),
        clock: clock(),
    };
    let files = Router::new().fallback(get(serve_file)).with_state(folder);
    tokio::select! {
        () = flux_source::run(context.clone(), stop.clone()) => Ok(()),
        () = flux_chart::run(context, ChartRegistry::new(charts), stop) => Ok(()),
        served = serve(args.storage_addr, files) => served,
        served = serve(args.common.health_addr, health()) => served,
    }
}

/// Runs the stand-in for helm-controller until `stop` is cancelled; a helm process in flight is then killed.
///
/// # Errors
/// When it cannot listen or has no client.
pub async fn helm_controller(args: HelmArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let this = std::env::current_exe()?.display().to_string();
    let labeller = [this, "helm-labels".to_owned()];
    // Reconciles run on the main thread, so that the kernel ends helm exactly when this process ends.
    let helm = args.helm.display().to_string();
    let command = ["setpriv", "--pdeathsig", "KILL", "--", &helm].map(str::to_owned).to_vec();
    let helm = HelmCli::new(command, args.kubeconfig.clone(), args.work_path.clone(), &labeller)?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let context = HelmContext {
        client: Client::try_default().await?,
        artifacts: Arc::new(HttpArtifacts { folder: args.work_path.clone(), address: String::new(), http }),
        helm: Arc::new(helm),
        clock: clock(),
        dependency_interval: args.requeue_dependency,
        retry: args.common.min_retry_delay,
    };
    tokio::select! {
        () = flux_helm::run(context, stop) => Ok(()),
        served = serve(args.common.health_addr, health()) => served,
    }
}

/// The post-renderer that the helm stand-in gives to helm: labels every object on standard input.
///
/// # Errors
/// When the input is not YAML.
#[allow(clippy::print_stdout, reason = "a filter's output is its purpose")]
pub fn helm_labels(args: &LabelArgs) -> anyhow::Result<()> {
    let labels: BTreeMap<String, String> = args
        .labels
        .iter()
        .filter_map(|label| label.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut manifests = String::new();
    std::io::stdin().read_to_string(&mut manifests)?;
    print!("{}", HelmCli::add_labels(&manifests, &labels).map_err(anyhow::Error::msg)?);
    Ok(())
}
