//! The controller of restore points: whether they can still be restored, when they expire, and how they go.
//!
//! A look is taken when a restore point or its app changes (so also after each operation), and every few minutes. What is to be
//! done is decided in the core; here it is gathered and carried out, one app at a time and only while this instance leads.

mod end;
mod look;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt as _};
use upgrade_core::Failure;
use upgrade_core::app::replaced::CutFrom;
use upgrade_core::app::retention::RequestFacts;
use upgrade_core::engine::{Guard, GuardState};
use upgrade_core::ports::{AppRef, Disposal, SnapshotManager};
use windlass_api::call::CallError;
use windlass_api::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest};
use windlass_snapshot::RestorePointStore;

use crate::apps::ManagedApps;
use crate::context::Context;
use crate::kinds::{Either, Request};
use crate::metrics::Code;
use crate::store::failed;

/// How often one is looked at when nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How often what is on its way is looked at.
const LOOK_SOON: Duration = Duration::from_secs(2);
/// How often an instance that does not lead asks whether it does.
const STAND_BY: Duration = Duration::from_secs(5);

/// Runs until the context is stopping.
pub(crate) async fn run(context: Arc<Context>) {
    let points: Api<RestorePoint> = Api::all(context.client.clone());
    let apps: Api<ManagedApp> = Api::all(context.client.clone());
    let stopping = context.stopping.clone();
    let controller = Controller::new(points, watcher::Config::default());
    let known = controller.store();
    controller
        .with_config(Config::default().concurrency(4))
        .watches(apps, watcher::Config::default(), move |app: ManagedApp| {
            let (namespace, name) = (app.namespace(), app.name_any());
            let of_app = |point: &Arc<RestorePoint>| point.namespace() == namespace && point.spec.subject.name == name;
            known
                .state()
                .iter()
                .filter(|point| of_app(point))
                .map(|point| ObjectRef::from_obj(&**point))
                .collect::<Vec<_>>()
        })
        .graceful_shutdown_on(async move { stopping.cancelled().await })
        .run(reconcile, on_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, kind = "RestorePoint", "reconcile");
            }
        })
        .await;
}

async fn reconcile(point: Arc<RestorePoint>, context: Arc<Context>) -> Result<Action, Failure> {
    if !context.leadership.is_held() || context.stopping.is_cancelled() {
        return Ok(Action::requeue(STAND_BY));
    }
    let namespace = point.namespace().unwrap_or_default();
    let app = AppRef { namespace, name: point.spec.subject.name.clone(), uid: String::new() };
    // No operation of the app makes a step meanwhile, and none begins.
    let Some(_turn) = context.turn(&format!("{}/{}", app.namespace, app.name)).await else {
        return Ok(Action::requeue(LOOK_SOON));
    };
    let keeper = Keeper {
        client: context.client.clone(),
        store: context.points.clone(),
        snapshots: &*context.ports.snapshots,
        disposal: &*context.disposal,
        apps: &context.apps,
        guard: &*context.leadership,
        now: context.clock.now(),
        app,
    };
    let pause = keeper.take(&point).await?;
    Ok(pause.map_or_else(Action::await_change, Action::requeue))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(point: Arc<RestorePoint>, error: &Failure, context: Arc<Context>) -> Action {
    context.metrics.errors.get_or_create(&Code { code: error.code.clone() }).inc();
    let (namespace, name) = (point.namespace().unwrap_or_default(), point.name_any());
    tracing::warn!(kind = "RestorePoint", namespace, name, code = error.code, %error, "tried again");
    Action::requeue(if error.retryable { LOOK_SOON } else { LOOK_EVERY })
}

/// Everything that one look at one restore point needs.
struct Keeper<'a> {
    client: Client,
    store: RestorePointStore,
    snapshots: &'a dyn SnapshotManager,
    disposal: &'a dyn Disposal,
    apps: &'a ManagedApps,
    guard: &'a dyn Guard,
    now: Timestamp,
    /// The app, by name: a restore point outlives it.
    app: AppRef,
}

impl Keeper<'_> {
    /// Looks once; says when to look again, `None` when there is nothing to look at any more.
    async fn take(&self, point: &RestorePoint) -> Result<Option<Duration>, Failure> {
        // Decisions rest on what the server has, not on what the cache had.
        match self.again(point).await? {
            None => Ok(None),
            Some(point) if point.metadata.deletion_timestamp.is_some() => self.end(point).await,
            Some(point) => self.look(point).await.map(Some),
        }
    }

    /// The same restore point as the server has it; `None` when it is gone.
    async fn again(&self, point: &RestorePoint) -> Result<Option<RestorePoint>, Failure> {
        let (namespace, name) = (self.app.namespace.as_str(), point.name_any());
        let api: Api<RestorePoint> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(&name).await.map_err(CallError::on::<RestorePoint>("get", namespace, &name));
        Ok(found.map_err(|error| failed(&error))?.filter(|found| found.uid() == point.uid()))
    }

    /// Right before every effect that destroys something.
    fn may_act(&self) -> Result<(), Failure> {
        match self.guard.state() {
            GuardState::Held => Ok(()),
            GuardState::Lost(what) => Err(Failure::transient("guard-lost", format!("{what} was lost"))),
        }
    }

    /// The restore points of the app.
    async fn points(&self) -> Result<Vec<RestorePoint>, Failure> {
        let mut points = self.all_points().await?;
        points.retain(|point| point.spec.subject.name == self.app.name);
        Ok(points)
    }

    /// Those of all apps of the namespace.
    async fn all_points(&self) -> Result<Vec<RestorePoint>, Failure> {
        let api: Api<RestorePoint> = Api::namespaced(self.client.clone(), &self.app.namespace);
        let found = api.list(&ListParams::default()).await;
        let found = found.map_err(CallError::on::<RestorePoint>("list", &self.app.namespace, ""));
        Ok(found.map_err(|error| failed(&error))?.items)
    }

    /// What the copies of restore points were cut from, those of other apps too: a claim may have been another app's.
    async fn cut_from(&self) -> Result<Vec<CutFrom>, Failure> {
        let mut points = self.all_points().await?;
        points.retain(|point| point.spec.void.is_empty());
        let cut_from = |point: &RestorePoint| {
            let volumes = point.spec.data.iter().map(|data| (data.volume.clone(), data.volume_handle.clone()));
            CutFrom { point: point.name_any(), volumes: volumes.collect() }
        };
        Ok(points.iter().map(cut_from).collect())
    }

    /// The requests of the app. What cannot be read fails the whole look: nothing is deleted on half a list.
    async fn requests(&self) -> Result<Vec<RequestFacts>, Failure> {
        let upgrades: Vec<UpgradeRequest> = self.requests_of().await?;
        let rollbacks: Vec<RollbackRequest> = self.requests_of().await?;
        let took = |name: &str| {
            let upgrade = upgrades.iter().find(|upgrade| upgrade.name_any() == name);
            upgrade.map(used_by).unwrap_or_default()
        };
        let mut all: Vec<RequestFacts> = upgrades.iter().map(facts).collect();
        for rollback in &rollbacks {
            let mut facts = facts(rollback);
            facts.points.extend(rollback.spec.to.restore_point.clone());
            facts.points.extend(rollback.spec.to.upgrade_request.as_deref().map(took).unwrap_or_default());
            all.push(facts);
        }
        Ok(all)
    }

    async fn requests_of<K: Request>(&self) -> Result<Vec<K>, Failure> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.app.namespace);
        let found = api.list(&ListParams::default()).await;
        let found =
            found.map_err(CallError::on::<K>("list", &self.app.namespace, "")).map_err(|error| failed(&error))?;
        Ok(found.items.into_iter().filter(|request| request.subject().name == self.app.name).collect())
    }
}

fn facts<K: Request>(request: &K) -> RequestFacts {
    let kind = match request.either() {
        Either::Upgrade(_) => "UpgradeRequest",
        Either::Rollback(_) => "RollbackRequest",
    };
    let status = request.status();
    RequestFacts {
        name: format!("{kind} {}", request.name_any()),
        points: used_by(request),
        over: status.is_some_and(|status| status.outcome.is_some()),
        leaves: status.is_some_and(|status| !status.leftovers.is_empty()),
    }
}

/// The restore points that a request has taken or restores, by its status and by its plan.
fn used_by<K: Request>(request: &K) -> Vec<String> {
    let Some(status) = request.status() else { return Vec::new() };
    let planned = status.plan.as_ref().and_then(|plan| plan.pointer("/inputs/restorePoint")?.as_str());
    let named = planned.filter(|name| !name.is_empty()).map(str::to_owned);
    status.restore_point.clone().into_iter().chain(named).collect()
}
