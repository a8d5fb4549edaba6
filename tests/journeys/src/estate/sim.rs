//! The simulation: a playground under virtual time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use jiff::Timestamp;
use kube::Client;
use kube_sim::controllers::pods::RunLog;
use kube_sim::faults::Faults;
use kube_sim::{Identity, SimServer};
use serde_json::{Value, json};
use upgrade_core::ports::Clock;
use windlass_playground::app::NotesImages;
use windlass_playground::{Options, Playground};
use windlass_rig::csi::{CallRecord, Control};
use windlass_rig::kubelet::Entry;

use super::in_process::{InProcess, SimClock};
use super::{AppClient, Estate, Login, Operator, Remote, Request, Rival};
use crate::crash::Pushes;

/// How long a user of the app waits between two writes.
const BETWEEN_WRITES: Duration = Duration::from_millis(2);

/// A playground and the operator's task.
pub(crate) struct SimEstate {
    // Dropped first: it talks to the playground.
    operator: InProcess,
    faults: Faults,
    pushes: Pushes,
    playground: Playground,
}

impl SimEstate {
    /// Starts the playground; the operator is not started yet. Its lease will last so many seconds: a successor of one that was
    /// killed waits that long, and one that lives writes it three times as often. `folder` is a name that nobody else uses; it is part of the repositories' URLs.
    pub(crate) async fn start(seed: u64, lease: u16, folder: Option<&str>) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let options = Options {
            seed,
            epoch: Timestamp::from_second(1_767_225_600)?,
            // Every record is synchronised to its disk, which memory does quickest.
            below: memory.is_dir().then(|| memory.to_owned()),
            folder: folder.map(str::to_owned),
        };
        let playground = Playground::start(options).await?;
        let (faults, pushes) = (Faults::new(seed), Pushes::default());
        let operator = InProcess::new(&playground, faults.clone(), pushes.clone(), lease);
        Ok(Self { operator, faults, pushes, playground })
    }

    pub(crate) fn server(&self) -> &SimServer {
        self.playground.server()
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn runs_of_pods(&self) -> &RunLog {
        self.playground.runs()
    }

    pub(crate) fn pushes(&self) -> &Pushes {
        &self.pushes
    }
}

#[async_trait(?Send)]
impl Estate for SimEstate {
    fn client(&self) -> Client {
        self.playground.client()
    }

    fn person(&self) -> String {
        Identity::admin().name
    }

    fn operator(&self) -> &dyn Operator {
        &self.operator
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SimClock(self.server().clone()))
    }

    fn glance(&self) -> Duration {
        // A request takes a millisecond here.
        Duration::from_millis(1)
    }

    async fn repository(&self, name: &str) -> anyhow::Result<Remote> {
        let url = self.playground.repository(name)?.url();
        let clones = self.playground.folder().join("clones");
        std::fs::create_dir_all(&clones)?;
        Ok(Remote { own_url: url.clone(), url, date: Some("2026-01-01T00:00:00Z"), clones })
    }

    fn login(&self) -> Option<Login> {
        None
    }

    fn charts(&self) -> PathBuf {
        self.playground.charts()
    }

    async fn app(&self, namespace: &str, pod: &str) -> anyhow::Result<Arc<dyn AppClient>> {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Ok(Arc::new(Instance { notes: self.playground.notes().clone(), namespace, pod }))
    }

    fn runs(&self) -> anyhow::Result<Vec<Entry>> {
        Ok(self.playground.runs().entries())
    }

    fn driver_calls(&self) -> anyhow::Result<Vec<CallRecord>> {
        Ok(self.playground.driver().calls()?)
    }

    fn control_driver(&self, control: &Control) -> anyhow::Result<()> {
        Ok(self.playground.driver().control(control)?)
    }

    fn volume_folder(&self, handle: &str) -> PathBuf {
        self.playground.driver().volume_folder(handle).unwrap_or_default()
    }

    fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let request = |entry: kube_sim::server::AuditEntry| {
            let subresource =
                if entry.subresource.is_empty() { String::new() } else { format!("/{}", entry.subresource) };
            Request {
                wrote: entry.is_mutating() && entry.succeeded(),
                resource: format!("{}/{}{subresource}", entry.group, entry.resource),
                user: entry.user,
                namespace: entry.namespace,
                name: entry.name,
            }
        };
        Ok(self.server().audit().into_iter().map(request).collect())
    }

    async fn fetching(&self, on: bool) -> anyhow::Result<()> {
        self.playground.fetching(on);
        Ok(())
    }

    async fn git(&self, reachable: bool) -> anyhow::Result<()> {
        Ok(self.playground.git(reachable)?)
    }

    fn outrun(&self, _: &str, rival: Rival) -> anyhow::Result<()> {
        self.pushes.outrun(rival);
        Ok(())
    }
}

/// The app's instance in a pod.
struct Instance {
    notes: NotesImages,
    namespace: String,
    pod: String,
}

#[async_trait]
impl AppClient for Instance {
    async fn append(&self, text: &str) -> bool {
        tokio::time::sleep(BETWEEN_WRITES).await;
        matches!(self.notes.append(&self.namespace, &self.pod, text), Ok(Some(_)))
    }

    async fn records(&self) -> anyhow::Result<Value> {
        let summary = self.notes.summary(&self.namespace, &self.pod).context("nothing runs there")?;
        Ok(json!({"count": summary.last, "last": summary.last, "checksum": summary.checksum, "format": summary.format}))
    }
}
