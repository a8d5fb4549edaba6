//! What every reconcile needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::sync::{Mutex, OwnedMutexGuard};
use upgrade_core::Failure;
use upgrade_core::app::facts::FactPorts;
use upgrade_core::app::{AppPorts, AppRunner};
use upgrade_core::ports::{Clock, Disposal};
use windlass_api::call::CallError;
use windlass_gitops::flux::FluxRenderer;
use windlass_snapshot::RestorePointStore;

use crate::apps::ManagedApps;
use crate::events::Events;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::rights::OwnRights;
use crate::store::failed;

/// How long the turn of an app is waited for: others that only look have ended by then.
const MOMENT: Duration = Duration::from_millis(200);

/// Shared by all reconciles.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) ports: AppPorts,
    pub(crate) runner: AppRunner,
    pub(crate) apps: ManagedApps,
    pub(crate) points: RestorePointStore,
    pub(crate) disposal: Arc<dyn Disposal>,
    pub(crate) rights: OwnRights,
    pub(crate) renderer: FluxRenderer,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// Held from the look at other plans until the own one is stored, so that two never overlook each other.
    pub(crate) planning: Mutex<()>,
    /// One lock for each app: operations of one app take turns.
    pub(crate) turns: std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Set at the end: no new decision is begun.
    pub(crate) stopping: tokio_util::sync::CancellationToken,
    /// Of how many kinds of requests all objects were seen.
    pub(crate) kinds_seen: AtomicU8,
}

/// Why nothing can be put right in a namespace any more, if it is being deleted.
pub(crate) async fn let_go(client: &Client, namespace: &str) -> Result<Option<String>, Failure> {
    let found = Api::<Namespace>::all(client.clone()).get_opt(namespace).await;
    let found = found.map_err(CallError::on::<Namespace>("get", "", namespace)).map_err(|error| failed(&error))?;
    let goes = found.is_none_or(|found| found.metadata.deletion_timestamp.is_some());
    Ok(goes.then(|| format!("namespace {namespace} is being deleted")))
}

impl Context {
    /// Whether the API server has answered, and all requests of both kinds were seen.
    pub(crate) fn is_ready(&self) -> bool {
        self.kinds_seen.load(Ordering::Relaxed) >= 2
    }

    /// The turn of an app; `None` if others keep it for longer than a moment, because who waits has a place that other apps need. Whoever
    /// is there when it is given up gets it in the order of coming, so that those who take it again and again shut nobody out.
    pub(crate) async fn turn(&self, app: &str) -> Option<OwnedMutexGuard<()>> {
        tokio::time::timeout(MOMENT, self.turn_of(app).lock_owned()).await.ok()
    }

    pub(crate) fn turn_of(&self, app: &str) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        turns.retain(|name, turn| name == app || Arc::strong_count(turn) > 1);
        turns.entry(app.to_owned()).or_default().clone()
    }

    pub(crate) fn fact_ports(&self) -> FactPorts<'_> {
        FactPorts {
            delivery: &*self.ports.delivery,
            git: &*self.ports.git,
            snapshots: &*self.ports.snapshots,
            workloads: &*self.ports.workloads,
            apps: &*self.ports.apps,
            rights: &self.rights,
            renderer: &self.renderer,
        }
    }
}
