//! What every reconcile needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use tokio::sync::Mutex;
use upgrade_core::app::facts::FactPorts;
use upgrade_core::app::{AppPorts, AppRunner};
use upgrade_core::ports::Clock;

use crate::apps::ManagedApps;
use crate::events::Events;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::rights::OwnRights;

/// Shared by all reconciles.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) ports: AppPorts,
    pub(crate) runner: AppRunner,
    pub(crate) apps: ManagedApps,
    pub(crate) rights: OwnRights,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// Held from the look at other plans until the own one is stored, so that two never overlook each other.
    pub(crate) planning: Mutex<()>,
    /// One lock for each app: operations of one app take turns.
    pub(crate) turns: std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Set at the end: no new decision is begun.
    pub(crate) stopping: tokio_util::sync::CancellationToken,
    pub(crate) synced: AtomicBool,
}

impl Context {
    pub(crate) fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
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
        }
    }
}
