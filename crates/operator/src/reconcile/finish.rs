//! The end of an operation: what follows, who lets go of the app, what the status says.

use std::time::Duration;

use kube::api::{ObjectMeta, Patch};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::app::after::{FollowUp, follow_up, sighting};
use upgrade_core::engine::{self, Cause, Journal, Plan};
use upgrade_core::ports::{ActiveOperation, AppStore as _};
use windlass_api::call::{CallError, patch_params, post_params};
use windlass_api::{
    COMPLETE, ConditionStatus, FAILED, OperationKind, Outcome, READY, RECONCILING, RollbackData, RollbackRequest,
    RollbackRequestSpec, RollbackTo, STALLED, Subject, UpgradeRequest, set_condition,
};

use super::ask::AUTOMATIC;
use super::{ReconcileError, Turn, inputs_of};
use crate::kinds::{Either, Request};
use crate::metrics::Ended;
use crate::status;
use crate::store::{RequestStore, failed};

impl<K: Request> Turn<'_, K> {
    /// The engine has ended the operation: says how, and hands over to a rollback where one follows.
    pub(super) async fn conclude(
        &self,
        store: &RequestStore<K>,
        outcome: &engine::Outcome,
    ) -> Result<(), ReconcileError> {
        let stored = upgrade_core::ports::JournalStore::load(store, &self.uid).await?;
        let Some(stored) = stored else { return Ok(()) };
        let (plan, journal) = (stored.plan, stored.journal);
        let message = status::message(&plan, &journal);
        let (verdict, message) = match outcome {
            engine::Outcome::Succeeded => {
                self.settle_inherited(&plan).await?;
                (Outcome::Succeeded, message)
            }
            engine::Outcome::Undone(cause) => match (cause, journal.leftovers(&plan).is_empty()) {
                (Cause::Cancelled, true) => (Outcome::Cancelled, message),
                (Cause::StepFailed { .. }, true) => (Outcome::Undone, message),
                (_, false) => (Outcome::Failed, message),
            },
            engine::Outcome::LetGo { .. } => (Outcome::Failed, message),
            // Nobody could take over where nothing can be made any more.
            engine::Outcome::Failed { .. } if self.let_go.is_some() => (Outcome::Failed, message),
            engine::Outcome::Failed { .. } => self.after_failure(&plan, &journal, outcome, &message).await?,
        };
        self.finish(verdict, &message).await
    }

    async fn after_failure(
        &self,
        plan: &Plan,
        journal: &Journal,
        outcome: &engine::Outcome,
        message: &str,
    ) -> Result<(Outcome, String), ReconcileError> {
        let (Either::Upgrade(upgrade), Some(inputs), Some(app)) =
            (self.request.either(), inputs_of(plan), self.app_ref())
        else {
            return Ok((Outcome::Failed, message.to_owned()));
        };
        let pods = self.context.ports.workloads.pods(&self.namespace, &inputs.watched, &inputs.claim_names()).await?;
        let seen = sighting(plan, journal, &inputs, &pods);
        let point = self.context.ports.restore_points.get(&app, &inputs.restore_point).await?;
        let point = point.filter(|point| point.void.is_empty() && !point.volumes.is_empty());
        let taken_at = point.as_ref().map(|point| point.taken_at);
        let since = taken_at.map(|at| at.to_string()).unwrap_or_default();
        match follow_up(outcome, inputs.auto_rollback, seen, point.is_some(), &since) {
            FollowUp::Nothing => Ok((Outcome::Failed, message.to_owned())),
            FollowUp::Ask { choices } => Ok((Outcome::NeedsRollback, format!("{message}. {choices}"))),
            FollowUp::RollBack { restore_data, loses_writes } => {
                let name = rollback_name(&upgrade.name_any());
                let spec = RollbackRequestSpec {
                    subject: Subject::managed_app(&app.name),
                    to: RollbackTo { upgrade_request: Some(upgrade.name_any()), restore_point: None },
                    data: if restore_data { RollbackData::Restore } else { RollbackData::Keep },
                    acknowledge_loss_since: taken_at.filter(|_| loses_writes),
                    reason: Some(message.chars().take(1024).collect()),
                    requested_by: Some("windlass-operator".into()),
                    dry_run: None,
                    accept: Vec::new(),
                    cancel: None,
                };
                let uid = self.create_rollback(&name, spec).await?;
                let heir =
                    ActiveOperation { kind: OperationKind::RollbackRequest.as_str().into(), name: name.clone(), uid };
                let active = self.context.apps.acquire(&app, &heir, Some(self.uid.clone())).await?;
                tracing::info!(rollback = %name, active = %active.name, "a rollback takes over");
                Ok((Outcome::RolledBack, format!("{message}; rolled back by {name}")))
            }
        }
    }

    /// What earlier operations had left is put right by a success that took it over: their lists say so.
    async fn settle_inherited(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(inputs) = inputs_of(plan) else { return Ok(()) };
        for other in self.others().await? {
            if !(other.same_app && other.over && other.leaves && inputs.take_over.contains(&other.uid)) {
                continue;
            }
            let patch = Patch::Merge(json!({"metadata": {"uid": other.uid}, "status": {"leftovers": []}}));
            let written = if other.is_upgrade {
                let api: Api<UpgradeRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
                api.patch_status(&other.name, &patch_params(), &patch).await.map(|_| ())
            } else {
                let api: Api<RollbackRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
                api.patch_status(&other.name, &patch_params(), &patch).await.map(|_| ())
            };
            match written.map_err(CallError::on::<UpgradeRequest>("patch", &self.namespace, &other.name)) {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    async fn create_rollback(&self, name: &str, spec: RollbackRequestSpec) -> Result<String, Failure> {
        let api: Api<RollbackRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let mut request = RollbackRequest::new(name, spec);
        request.metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.namespace.clone()),
            labels: Some([(AUTOMATIC.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let made = api.create(&post_params(), &request).await;
        match made.map_err(CallError::on::<RollbackRequest>("create", &self.namespace, name)) {
            Ok(made) => Ok(made.uid().unwrap_or_default()),
            Err(error) if error.is_exists() => {
                let found = api.get(name).await.map_err(CallError::on::<RollbackRequest>("get", &self.namespace, name));
                found.map(|found| found.uid().unwrap_or_default()).map_err(|error| failed(&error))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// A rollback has taken over while this upgrade was still being watched.
    pub(super) async fn give_way(&self) -> Result<Action, ReconcileError> {
        self.finish(Outcome::RolledBack, "a rollback took over").await?;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Writes how it ended. The outcome is written last: until then everything before it is done again after a crash.
    pub(super) async fn finish(&self, outcome: Outcome, message: &str) -> Result<(), ReconcileError> {
        let now = self.context.clock.now();
        let dry_run = self.request.is_dry_run();
        if let Some(app) = self.app_ref().filter(|_| !dry_run) {
            let last = json!({
                "kind": K::KIND, "name": self.request.name_any(), "uid": self.uid,
                "outcome": outcome, "finishedAt": now, "message": message,
            });
            self.context.apps.record_last(&app, last).await?;
            let (ready, reason) = readiness(outcome);
            if let Some(ready) = ready {
                self.context.apps.set_ready(&app, ready, reason, message).await?;
            }
            self.context.apps.release(&app, &self.uid).await?;
        }
        let good = matches!(outcome, Outcome::Succeeded | Outcome::NothingToDo | Outcome::Planned);
        let generation = self.request.meta().generation;
        let mut conditions = Vec::new();
        let mut set = |type_: &str, holds: bool| {
            let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
            set_condition(&mut conditions, type_, status, &format!("{outcome:?}"), message, generation, now);
        };
        set(if good { COMPLETE } else { FAILED }, true);
        set(READY, good);
        set(RECONCILING, false);
        set(STALLED, !good);
        let mut fields = json!({
            "outcome": outcome, "phase": format!("{outcome:?}"), "message": message, "finishedAt": now,
            "conditions": conditions, "observedGeneration": generation,
        });
        // What a rollback takes over is the rollback's to put right, and to list if it cannot.
        if let (Outcome::RolledBack, Value::Object(fields)) = (outcome, &mut fields) {
            fields.insert("leftovers".into(), json!([]));
        }
        self.patch_status(fields).await?;
        let labels = Ended { kind: K::KIND.as_str().into(), outcome: format!("{outcome:?}") };
        self.context.metrics.ended.get_or_create(&labels).inc();
        self.context.events.publish(&*self.request, self.app.as_ref(), !good, &format!("{outcome:?}"), message).await;
        Ok(())
    }

    pub(super) async fn patch_status(&self, status: Value) -> Result<(), Failure> {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = self.request.name_any();
        let patch = Patch::Merge(json!({"metadata": {"uid": self.uid}, "status": status}));
        let written = api.patch_status(&name, &patch_params(), &patch).await;
        match written.map_err(CallError::on::<K>("patch", &self.namespace, &name)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Whether the app is ready after an operation ended like this; `None` when that says nothing about the app.
fn readiness(outcome: Outcome) -> (Option<bool>, &'static str) {
    match outcome {
        Outcome::Succeeded => (Some(true), "Succeeded"),
        Outcome::Cancelled | Outcome::Undone => (Some(true), "AsFound"),
        Outcome::NeedsRollback => (Some(false), "NeedsRollback"),
        Outcome::Failed => (Some(false), "Failed"),
        Outcome::RolledBack => (Some(false), "RollingBack"),
        Outcome::NothingToDo | Outcome::Planned | Outcome::Refused => (None, ""),
    }
}

/// Deterministic, so that a crash never makes two.
fn rollback_name(upgrade: &str) -> String {
    let head: String = upgrade.chars().take(54).collect();
    format!("{}-rollback", head.trim_end_matches(['-', '.']))
}
