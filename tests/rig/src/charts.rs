//! Chart repositories over HTTP, for whoever does not take a folder for one: the helm program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use kube_sim::controllers::ChartRegistry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves the folders in which the stand-in of source-controller looks for charts, so that both see the same. Ends when dropped.
pub struct ChartServer {
    root: PathBuf,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl ChartServer {
    /// Serves the repositories below `root`, `<host>/<path>` each, on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(root: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for charts")?;
        let address = listener.local_addr()?;
        let app = Router::new().fallback(serve).with_state((ChartRegistry::new(root.to_owned()), address));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { root: root.to_owned(), address, task })
    }

    /// The address of a repository.
    #[must_use]
    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}", self.address)
    }

    /// The folder to publish the charts of a repository in.
    #[must_use]
    pub fn folder(&self, repository: &str) -> PathBuf {
        self.root.join(self.address.to_string()).join(repository)
    }
}

impl Drop for ChartServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(State((charts, address)): State<(ChartRegistry, SocketAddr)>, uri: Uri) -> (StatusCode, Vec<u8>) {
    let (repository, file) = uri.path().rsplit_once('/').unwrap_or_default();
    let url = format!("http://{address}{repository}");
    if file == "index.yaml" {
        return match charts.index(&url) {
            Ok(index) => (StatusCode::OK, index.into_bytes()),
            Err(error) => (StatusCode::NOT_FOUND, error.to_string().into_bytes()),
        };
    }
    // Names and versions may both have hyphens.
    let stem = file.strip_suffix(".tgz").unwrap_or_default();
    let splits = stem.match_indices('-').filter_map(|(at, _)| Some((stem.get(..at)?, stem.get(at + 1..)?)));
    let found = splits.filter_map(|(name, version)| charts.find(&url, name, version).ok()).next();
    found.map_or_else(|| (StatusCode::NOT_FOUND, Vec::new()), |(_, packed)| (StatusCode::OK, packed))
}
