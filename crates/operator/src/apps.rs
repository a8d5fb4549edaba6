//! What is kept about an app, in the status of its ManagedApp.

use std::sync::Arc;

use async_trait::async_trait;
use kube::api::{ListParams, Patch};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::ports::{ActiveOperation, AppRef, AppStore, BlockedVersion, Clock, Neighbour, PinValue};
use windlass_api::call::{CallError, patch_params};
use windlass_api::{LastOperation, ManagedApp, ManagedAppStatus, OperationKind, RollbackRequest, UpgradeRequest};

use crate::resolve;
use crate::store::failed;

/// How often a compare-and-swap is tried again before it is left to the caller.
const ATTEMPTS: usize = 5;

/// Keeps apps in the cluster.
#[derive(Clone)]
pub struct ManagedApps {
    client: Client,
    clock: Arc<dyn Clock>,
}

impl ManagedApps {
    /// Reads and writes with this client.
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock }
    }

    async fn read(&self, app: &AppRef) -> Result<ManagedApp, Failure> {
        let api: Api<ManagedApp> = Api::namespaced(self.client.clone(), &app.namespace);
        let found = api.get_opt(&app.name).await;
        let found =
            found.map_err(CallError::on::<ManagedApp>("get", &app.namespace, &app.name)).map_err(|e| failed(&e))?;
        found
            .filter(|found| found.uid().as_deref() == Some(app.uid.as_str()))
            .ok_or_else(|| Failure::permanent("app-gone", format!("ManagedApp {app} is gone")))
    }

    /// Changes the status by compare-and-swap. `change` gives the merge patch for what was read, or `None` for no change.
    async fn change<T>(
        &self,
        app: &AppRef,
        change: impl Fn(&ManagedAppStatus) -> (T, Option<Value>) + Send,
    ) -> Result<T, Failure> {
        let api: Api<ManagedApp> = Api::namespaced(self.client.clone(), &app.namespace);
        let mut attempt = 0;
        loop {
            let found = self.read(app).await?;
            let (answer, patch) = change(&found.status.clone().unwrap_or_default());
            let Some(mut status) = patch else { return Ok(answer) };
            if let Some(fields) = status.as_object_mut() {
                fields.insert("observedGeneration".into(), json!(found.metadata.generation));
            }
            let metadata = json!({"uid": app.uid, "resourceVersion": found.resource_version()});
            let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
            let written = api.patch_status(&app.name, &patch_params(), &patch).await;
            match written.map_err(CallError::on::<ManagedApp>("patch", &app.namespace, &app.name)) {
                Ok(_) => return Ok(answer),
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// The operation that ended last.
    pub(crate) async fn last(&self, app: &AppRef) -> Result<Option<LastOperation>, Failure> {
        Ok(self.read(app).await?.status.and_then(|status| status.last_operation))
    }

    /// Records how an operation ended, for people.
    pub(crate) async fn record_last(&self, app: &AppRef, last: Value) -> Result<(), Failure> {
        self.change(app, |_| ((), Some(json!({"lastOperation": last})))).await
    }

    /// Writes how many usable restore points the app has, and that its spec was read for that.
    pub(crate) async fn set_restore_points(&self, app: &AppRef, usable: i32) -> Result<(), Failure> {
        let generation = self.read(app).await?.metadata.generation;
        self.change(app, |status| {
            let same = status.restore_points == Some(usable) && status.observed_generation == generation;
            ((), (!same).then(|| json!({"restorePoints": usable})))
        })
        .await
    }

    /// Writes the Ready condition.
    pub(crate) async fn set_ready(
        &self,
        app: &AppRef,
        ready: bool,
        reason: &str,
        message: &str,
    ) -> Result<(), Failure> {
        use windlass_api::{ConditionStatus, READY, condition, set_condition};
        let now = self.clock.now();
        let generation = self.read(app).await?.metadata.generation;
        self.change(app, |status| {
            let wanted = if ready { ConditionStatus::True } else { ConditionStatus::False };
            let same = condition(&status.conditions, READY).is_some_and(|found| {
                found.status == wanted.as_str() && found.reason == reason && found.message == message
            });
            let mut conditions = status.conditions.clone();
            set_condition(&mut conditions, READY, wanted, reason, message, generation, now);
            ((), (!same).then(|| json!({"conditions": conditions})))
        })
        .await
    }

    /// Whether the request that is recorded as active has ended or is gone, so that nobody will let go of the app any more.
    async fn is_stale(&self, app: &AppRef, active: &windlass_api::ActiveOperation) -> Result<bool, Failure> {
        let ended = |uid: Option<String>, status: Option<&windlass_api::OperationStatus>| {
            uid.as_deref() != Some(active.uid.as_str()) || status.is_some_and(|status| status.outcome.is_some())
        };
        let name = &active.name;
        let stale = match active.kind {
            OperationKind::UpgradeRequest => {
                let api: Api<UpgradeRequest> = Api::namespaced(self.client.clone(), &app.namespace);
                let found =
                    api.get_opt(name).await.map_err(CallError::on::<UpgradeRequest>("get", &app.namespace, name));
                found.map(|found| found.is_none_or(|request| ended(request.uid(), request.status.as_ref())))
            }
            OperationKind::RollbackRequest => {
                let api: Api<RollbackRequest> = Api::namespaced(self.client.clone(), &app.namespace);
                let found =
                    api.get_opt(name).await.map_err(CallError::on::<RollbackRequest>("get", &app.namespace, name));
                found.map(|found| found.is_none_or(|request| ended(request.uid(), request.status.as_ref())))
            }
        };
        stale.map_err(|error| failed(&error))
    }
}

fn kind_of(kind: &str) -> OperationKind {
    if kind == OperationKind::RollbackRequest.as_str() {
        OperationKind::RollbackRequest
    } else {
        OperationKind::UpgradeRequest
    }
}

#[async_trait]
impl AppStore for ManagedApps {
    async fn acquire(
        &self,
        app: &AppRef,
        operation: &ActiveOperation,
        instead_of: Option<String>,
    ) -> Result<ActiveOperation, Failure> {
        let active = self.read(app).await?.status.and_then(|status| status.active_operation);
        let mut replaceable = instead_of;
        if let Some(active) = active.filter(|active| active.uid != operation.uid)
            && replaceable.as_ref() != Some(&active.uid)
            && self.is_stale(app, &active).await?
        {
            replaceable = Some(active.uid.clone());
        }
        let now = self.clock.now();
        self.change(app, |status| match &status.active_operation {
            Some(active) if active.uid == operation.uid => (operation.clone(), None),
            Some(active) if replaceable.as_ref() != Some(&active.uid) => {
                let kind = active.kind.as_str().to_owned();
                (ActiveOperation { kind, name: active.name.clone(), uid: active.uid.clone() }, None)
            }
            _ => {
                let active = windlass_api::ActiveOperation {
                    kind: kind_of(&operation.kind),
                    name: operation.name.clone(),
                    uid: operation.uid.clone(),
                    since: now,
                };
                (operation.clone(), Some(json!({"activeOperation": active})))
            }
        })
        .await
    }

    async fn release(&self, app: &AppRef, operation: &str) -> Result<(), Failure> {
        let released = self
            .change(app, |status| {
                let ours = status.active_operation.as_ref().is_some_and(|active| active.uid == operation);
                ((), ours.then(|| json!({"activeOperation": null})))
            })
            .await;
        match released {
            Err(failure) if failure.code == "app-gone" => Ok(()),
            other => other,
        }
    }

    async fn blocked(&self, app: &AppRef) -> Result<Vec<BlockedVersion>, Failure> {
        let status = self.read(app).await?.status.unwrap_or_default();
        Ok(status
            .blocked_versions
            .into_iter()
            .map(|blocked| BlockedVersion {
                component: blocked.component,
                version: blocked.version,
                reason: blocked.reason,
                request: blocked.request,
                since: blocked.since,
            })
            .collect())
    }

    async fn block(&self, app: &AppRef, versions: &[BlockedVersion]) -> Result<(), Failure> {
        self.change(app, |status| {
            let mut blocked = status.blocked_versions.clone();
            for version in versions {
                if !blocked.iter().any(|one| one.component == version.component && one.version == version.version) {
                    blocked.push(windlass_api::BlockedVersion {
                        component: version.component.clone(),
                        version: version.version.clone(),
                        since: version.since,
                        reason: version.reason.clone(),
                        request: version.request.clone(),
                    });
                }
            }
            let changed = blocked.len() != status.blocked_versions.len();
            ((), changed.then(|| json!({"blockedVersions": blocked})))
        })
        .await
    }

    async fn neighbours(&self, app: &AppRef) -> Result<Vec<Neighbour>, Failure> {
        let api: Api<ManagedApp> = Api::all(self.client.clone());
        let found = api.list(&ListParams::default()).await;
        let found = found.map_err(CallError::on::<ManagedApp>("list", "", "")).map_err(|error| failed(&error))?;
        let others = found.items.iter().filter(|other| other.uid().as_deref() != Some(app.uid.as_str()));
        Ok(others
            .map(|other| Neighbour {
                app: resolve::app_ref(other),
                own: resolve::own(other),
                claims: other.spec.snapshots.claims.clone(),
            })
            .collect())
    }

    async fn set_current(&self, app: &AppRef, pins: &[PinValue]) -> Result<(), Failure> {
        let current: serde_json::Map<String, Value> =
            pins.iter().map(|value| (value.pin.component.clone(), json!(value.value))).collect();
        self.change(app, |_| ((), Some(json!({"current": current})))).await
    }
}
