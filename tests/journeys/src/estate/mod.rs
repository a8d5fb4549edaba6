//! What journeys run on, as a person finds it: a cluster, Git, an app to talk to, an operator that can be killed, and the logs.

mod in_process;
mod operator;
mod real;
mod sim;

pub(crate) use in_process::INSTANCE;
pub(crate) use real::RealEstate;
pub(crate) use sim::SimEstate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::Client;
use serde_json::Value;
use upgrade_core::ports::Clock;
use windlass_rig::csi::{CallRecord, Control};
use windlass_rig::kubelet::Entry;

/// The identity of the operator: what its roles say and nothing else.
pub(crate) const OPERATOR_USER: &str = "windlass";
/// Its namespace.
pub(crate) const SYSTEM: &str = "windlass-system";

/// A repository on the Git host.
pub(crate) struct Remote {
    /// The URL for the cluster.
    pub(crate) url: String,
    /// The URL for a person, with their credentials in it.
    pub(crate) own_url: String,
    /// The date for commits, where that must not be the machine's.
    pub(crate) date: Option<&'static str>,
    /// The folder for a person's clones.
    pub(crate) clones: PathBuf,
}

/// Somebody who is faster.
pub(crate) type Rival = Box<dyn FnOnce() + Send>;

/// User and token for the Git host.
pub(crate) type Login = (String, String);

/// One request that the API server has answered.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) user: String,
    /// Whether it was one that changes something, and was granted.
    pub(crate) wrote: bool,
    pub(crate) resource: String,
    /// Namespace and name of what it was about, where they were logged.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.resource, self.namespace, self.name)
    }
}

/// The app's pod, for its users. Clones talk to the same pod.
#[async_trait]
pub(crate) trait AppClient: Send + Sync {
    /// Writes one record; `false` when it was not acknowledged.
    async fn append(&self, text: &str) -> bool;
    /// The app's own report of its records: count and checksum.
    async fn records(&self) -> anyhow::Result<Value>;
}

/// Starts, kills and restarts the operator.
#[async_trait(?Send)]
pub(crate) trait Operator {
    fn start(&self) -> anyhow::Result<()>;
    /// Has it stand still (or go on), where that can be had; `false` where it cannot.
    fn freeze(&self, frozen: bool) -> anyhow::Result<bool>;
    /// Cuts off what it is doing.
    fn kill(&self) -> anyhow::Result<()>;
    /// Tells it to end, as a rollout does, and says how long that took.
    async fn terminate(&self) -> anyhow::Result<Duration>;
    async fn is_ready(&self) -> bool;
    /// The end of its log.
    fn log_tail(&self, lines: usize) -> String;
}

/// What journeys run on.
#[async_trait(?Send)]
pub(crate) trait Estate {
    /// A client that may do everything.
    fn client(&self) -> Client;
    /// The name of whoever uses that client.
    fn person(&self) -> String;
    fn operator(&self) -> &dyn Operator;
    /// The time of everything that runs here.
    fn clock(&self) -> Arc<dyn Clock>;
    /// How long to look away at most, not to miss a step of the operator.
    fn glance(&self) -> Duration;
    /// An empty repository of that name, or the one that is there.
    async fn repository(&self, name: &str) -> anyhow::Result<Remote>;
    /// What the Git host asks for.
    fn login(&self) -> Option<Login>;
    /// The folder with the chart repositories, `<host>/<path>` each.
    fn charts(&self) -> PathBuf;
    /// The address of a chart repository.
    fn chart_url(&self, name: &str) -> String {
        format!("https://charts.test/{name}")
    }
    async fn app(&self, namespace: &str, pod: &str) -> anyhow::Result<Arc<dyn AppClient>>;
    /// What the kubelet did.
    fn runs(&self) -> anyhow::Result<Vec<Entry>>;
    /// What the CSI driver was asked, and how it answered.
    fn driver_calls(&self) -> anyhow::Result<Vec<CallRecord>>;
    fn control_driver(&self, control: &Control) -> anyhow::Result<()>;
    /// Folder with the bytes of a volume.
    fn volume_folder(&self, handle: &str) -> PathBuf;
    /// Every request the API server has answered.
    fn requests(&self) -> anyhow::Result<Vec<Request>>;
    /// Stops (or starts) source-controller: nothing new is fetched.
    async fn fetching(&self, on: bool) -> anyhow::Result<()>;
    /// Makes the Git host unreachable for everybody (or reachable).
    async fn git(&self, reachable: bool) -> anyhow::Result<()>;
    /// Has this done once in that repository after the operator's next edit, before its push is taken.
    fn outrun(&self, repository: &str, rival: Rival) -> anyhow::Result<()>;
}
