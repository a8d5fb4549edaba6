//! The cluster: an API server in this process, every stand-in as a client of its own, and folders for what has bytes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::Client;
use kube_sim::controllers::flux_helm::{self, HelmContext};
use kube_sim::controllers::flux_kustomize::{self, KustomizeContext};
use kube_sim::controllers::flux_source::{self, SourceContext};
use kube_sim::controllers::pods::{self, PodsContext, RunLog, VolumeFolders};
use kube_sim::controllers::volumes::driver::FolderDriver;
use kube_sim::controllers::volumes::{self, DRIVER, VolumesContext};
use kube_sim::controllers::workloads::{self, WorkloadsContext};
use kube_sim::controllers::{ChartRegistry, Clock, GitRemote, HelmSim, MemoryArtifacts, flux_chart};
use kube_sim::{Config, Identity, SimServer};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use windlass_helm::ChartTemplates;

use crate::app::NotesImages;
use crate::charts::Charts;
use crate::{IMAGE_REPOSITORY, apply};

/// How often the Flux stand-ins look again at what is not ready.
const DEPENDENCY_INTERVAL: Duration = Duration::from_secs(1);
/// How stale kustomize-controller's view of its sources may be: long enough for a reconcile right after a resume to apply the old
/// revision, as the real one does now and then.
const SOURCE_LAG: Duration = Duration::from_millis(300);

/// How a playground is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The same seed gives the same names and the same order of simultaneous requests.
    pub seed: u64,
    /// The time at which it starts; from then on it follows `tokio::time`, virtual or not.
    pub epoch: Timestamp,
    /// The folder below which it keeps its own, temporary one; the machine's place for those when `None`.
    pub below: Option<PathBuf>,
    /// The name of that folder, for runs that are to be compared request by request; one that is not taken when `None`.
    pub folder: Option<String>,
}

/// A cluster with Flux, CSI and one node. Dropping it ends everything and removes its folder.
pub struct Playground {
    server: SimServer,
    notes: NotesImages,
    runs: RunLog,
    driver: Arc<FolderDriver>,
    source: SourceContext,
    fetching: Mutex<Option<CancellationToken>>,
    stop: CancellationToken,
    folder: TempDir,
}

struct Folders(Arc<FolderDriver>);

impl VolumeFolders for Folders {
    fn folder(&self, driver: &str, handle: &str) -> Option<PathBuf> {
        if driver == DRIVER { self.0.volume_folder(handle) } else { None }
    }
}

impl Playground {
    /// Starts everything on the present runtime.
    ///
    /// # Errors
    /// When its folder cannot be made, or the API server refuses what it should install.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        match &options.folder {
            Some(name) => builder.prefix(name).rand_bytes(0),
            None => builder.prefix("windlass-"),
        };
        let folder = match &options.below {
            Some(below) => builder.tempdir_in(below),
            None => builder.tempdir(),
        };
        let folder = folder.context("making a temporary folder")?;
        let server = SimServer::new(Config { seed: options.seed, epoch: options.epoch, ..Config::default() });
        let clock: Clock = {
            let server = server.clone();
            Arc::new(move || server.now())
        };
        let driver = Arc::new(FolderDriver::open(&folder.path().join("csi"), clock.clone())?);
        for name in ["git", "charts"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let artifacts = Arc::new(MemoryArtifacts::default());
        let playground = Self {
            notes: NotesImages::new(IMAGE_REPOSITORY),
            runs: RunLog::default(),
            source: SourceContext {
                client: client_of(&server, "source-controller"),
                artifacts: artifacts.clone(),
                cache: folder.path().join("source-controller"),
                clock: clock.clone(),
            },
            fetching: Mutex::new(None),
            stop: CancellationToken::new(),
            driver,
            server,
            folder,
        };
        playground.install().await?;
        playground.run_stand_ins(&clock, &artifacts);
        playground.fetching(true);
        Ok(playground)
    }

    async fn install(&self) -> anyhow::Result<()> {
        let flux = kube_sim::controllers::flux_crds();
        let mut yaml: Vec<String> = flux.iter().map(serde_yaml_ng::to_string).collect::<Result<_, _>>()?;
        yaml.push("apiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n".to_owned());
        for object in volumes::snapshot_crds().iter().chain(&volumes::classes(DRIVER)?) {
            yaml.push(serde_yaml_ng::to_string(object)?);
        }
        apply(&self.client(), "playground", &yaml.join("---\n")).await
    }

    fn run_stand_ins(&self, clock: &Clock, artifacts: &Arc<MemoryArtifacts>) {
        let stop = || self.stop.clone();
        let client = |name: &str| client_of(&self.server, name);
        let kubelet = PodsContext {
            client: client("node"),
            clock: clock.clone(),
            node: "node".to_owned(),
            images: Arc::new(self.notes.clone()),
            volumes: Arc::new(Folders(self.driver.clone())),
            runs: self.runs.clone(),
        };
        tokio::spawn(pods::run(kubelet, stop()));
        let workloads = WorkloadsContext { client: client("controller-manager"), clock: clock.clone() };
        tokio::spawn(workloads::run(workloads, stop()));
        let volumes = VolumesContext {
            client: client("csi"),
            clock: clock.clone(),
            driver: self.driver.clone(),
            driver_name: DRIVER.to_owned(),
        };
        tokio::spawn(volumes::run(volumes, stop()));
        let kustomize = KustomizeContext {
            client: client("kustomize-controller"),
            artifacts: artifacts.clone(),
            clock: clock.clone(),
            dependency_interval: DEPENDENCY_INTERVAL,
            source_lag: SOURCE_LAG,
        };
        tokio::spawn(flux_kustomize::run(kustomize, stop()));
        let helm = client("helm-controller");
        let helm = HelmContext {
            helm: Arc::new(HelmSim::new(helm.clone(), clock.clone())),
            client: helm,
            artifacts: artifacts.clone(),
            clock: clock.clone(),
            dependency_interval: DEPENDENCY_INTERVAL,
            retry: Duration::from_millis(750),
        };
        tokio::spawn(flux_helm::run(helm, stop()));
    }

    /// Starts or stops source-controller: without it nothing new is fetched.
    pub fn fetching(&self, on: bool) {
        let mut running = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = running.take() {
            stop.cancel();
        }
        if on {
            let stop = self.stop.child_token();
            tokio::spawn(flux_source::run(self.source.clone(), stop.clone()));
            let charts = ChartRegistry::new(self.charts());
            tokio::spawn(flux_chart::run(self.source.clone(), charts, stop.clone()));
            *running = Some(stop);
        }
    }

    /// Makes all repositories unreachable, or reachable again.
    ///
    /// # Errors
    /// When their folder cannot be moved.
    pub fn git(&self, reachable: bool) -> std::io::Result<()> {
        let (here, away) = (self.folder.path().join("git"), self.folder.path().join("git-away"));
        if reachable == here.is_dir() {
            return Ok(());
        }
        if reachable { std::fs::rename(away, here) } else { std::fs::rename(here, away) }
    }

    /// The repository of that name, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn repository(&self, name: &str) -> anyhow::Result<GitRemote> {
        let folder = self.folder.path().join("git").join(format!("{name}.git"));
        Ok(GitRemote::open(folder, self.source.clock.clone())?)
    }

    /// The API server.
    #[must_use]
    pub fn server(&self) -> &SimServer {
        &self.server
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// The app's images and running instances.
    #[must_use]
    pub fn notes(&self) -> &NotesImages {
        &self.notes
    }

    /// What ran when.
    #[must_use]
    pub fn runs(&self) -> &RunLog {
        &self.runs
    }

    /// The volumes and snapshots.
    #[must_use]
    pub fn driver(&self) -> &FolderDriver {
        &self.driver
    }

    /// The folder with the chart repositories, `<host>/<path>` each.
    #[must_use]
    pub fn charts(&self) -> PathBuf {
        self.folder.path().join("charts")
    }

    /// What renders the charts in those, for whoever wants to know what they would make.
    #[must_use]
    pub fn templates(&self) -> Arc<dyn ChartTemplates> {
        Arc::new(Charts(ChartRegistry::new(self.charts())))
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Each stand-in is somebody of its own in the audit log.
fn client_of(server: &SimServer, name: &str) -> Client {
    server.client_as(Identity::user(format!("system:{name}")).in_group("system:masters"))
}
