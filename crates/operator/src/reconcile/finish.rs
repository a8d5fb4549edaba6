//! The end of an operation: what follows, who lets go of the app, what the status says.

use kube::api::{ObjectMeta, Patch};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::app::after::{FollowUp, Situation, follow_up};
use upgrade_core::app::handover::{Fate, Successor, TakeOver, fate};
use upgrade_core::app::inherit::{Operation, Settled, settled};
use upgrade_core::app::rollback;
use upgrade_core::engine::{self, Cause, Journal, Plan};
use upgrade_core::ports::{AppRef, AppStore as _, ReplacedVolume, Revision};
use windlass_api::call::{CallError, patch_params, post_params};
use windlass_api::{
    Condition, Leftover, OperationKind, Outcome, RollbackData, RollbackRequest, RollbackRequestSpec, RollbackTo,
    Subject, UpgradeRequest,
};

use super::ask::{AUTOMATIC, Other};
use super::handover::Taker;
use super::{QUEUE_PAUSE, ReconcileError, Turn, inputs_of};
use crate::conditions::{self, Said};
use crate::kinds::{Either, Request};
use crate::metrics::Ended;
use crate::status;
use crate::store::{RequestStore, failed, is_planned, record};

impl<K: Request> Turn<'_, K> {
    /// The engine has ended the operation: says how, and hands over to a rollback where one follows. The answer is when to look
    /// again, if that rollback has not begun yet.
    pub(super) async fn conclude(
        &self,
        store: &RequestStore<K>,
        outcome: &engine::Outcome,
    ) -> Result<Option<Action>, ReconcileError> {
        let stored = upgrade_core::ports::JournalStore::load(store, &self.uid).await?;
        let Some(stored) = stored else { return Ok(None) };
        let (plan, journal) = (stored.plan, stored.journal);
        let message = status::summary(&plan, &journal);
        let (verdict, message) = match outcome {
            engine::Outcome::Succeeded => {
                self.settle_inherited(&plan, &journal).await?;
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
            engine::Outcome::Failed { .. } => match self.after_failure(&plan, &journal, outcome, &message).await? {
                After::End(verdict, message) => (verdict, message),
                After::RolledBackBy(rollback) => {
                    let message = format!("{}; rolled back by {rollback}", status::message(&plan, &journal));
                    self.finish_as_rolled_back(&plan, &journal, &rollback, &message).await?;
                    return Ok(None);
                }
                After::Wait => return Ok(Some(Action::requeue(QUEUE_PAUSE))),
            },
        };
        self.finish(verdict, &message).await?;
        Ok(None)
    }

    async fn after_failure(
        &self,
        plan: &Plan,
        journal: &Journal,
        outcome: &engine::Outcome,
        message: &str,
    ) -> Result<After, ReconcileError> {
        let (Either::Upgrade(upgrade), Some(inputs), Some(app)) =
            (self.request.either(), inputs_of(plan), self.app_ref())
        else {
            return Ok(After::End(Outcome::Failed, message.to_owned()));
        };
        let name = rollback::request_name(&upgrade.name_any(), &self.uid);
        let heir = self.heir(&name).await?;
        let taker = self.taker().await?;
        let given_back = match &taker {
            Some(taker) if taker.how_far == TakeOver::Made => return Ok(After::RolledBackBy(taker.name.clone())),
            Some(taker) if taker.how_far == TakeOver::Pending => {
                self.say_begun(plan, journal, taker).await?;
                return Ok(After::Wait);
            }
            given_back => given_back.as_ref(),
        };
        // Once it is made nothing is decided anew, but if it did not begin, or was undone, a person has to choose.
        let successor = self.successor(&name, heir.as_ref());
        let unmade = match fate(given_back.map(Taker::undone), &name, successor) {
            Fate::RolledBack => return Ok(After::RolledBackBy(name)),
            Fate::Wait => return Ok(After::Wait),
            Fate::Decide => None,
            Fate::Ask { why } => Some(why),
        };
        let (seen, taken_at) = self.look_at_target(plan, journal, &inputs, &app).await?;
        let since = taken_at.map(|at| at.to_string()).unwrap_or_default();
        let situation = Situation {
            policy: inputs.auto_rollback,
            seen,
            restorable: taken_at.is_some(),
            taken_at: &since,
            refused: unmade.is_some(),
        };
        let failed = unmade.map_or_else(|| message.to_owned(), |why| format!("{message}; {why}"));
        Ok(match follow_up(outcome, situation) {
            FollowUp::Nothing => After::End(Outcome::Failed, failed),
            FollowUp::Ask { choices } => After::End(Outcome::NeedsRollback, format!("{failed}. {choices}")),
            FollowUp::RollBack { restore_data, loses_writes } => {
                let reason = status::message(plan, journal);
                let spec = RollbackRequestSpec {
                    subject: Subject::managed_app(&app.name),
                    to: RollbackTo { upgrade_request: Some(upgrade.name_any()), restore_point: None },
                    data: if restore_data { RollbackData::Restore } else { RollbackData::Keep },
                    acknowledge_loss_since: taken_at.filter(|_| loses_writes),
                    reason: Some(reason.chars().take(1024).collect()),
                    requested_by: Some("windlass-operator".into()),
                    dry_run: None,
                    accept: Vec::new(),
                    cancel: None,
                };
                self.create_rollback(&name, spec).await?;
                let message = format!("{reason}; waiting for rollback {name} to begin");
                self.say_rolling_back(&message, &name).await?;
                tracing::info!(rollback = %name, "a rollback is to take over");
                After::Wait
            }
        })
    }

    /// What earlier operations had left is put right by a success that took it over: their lists say so. What it has not put right
    /// stays on them.
    async fn settle_inherited(&self, plan: &Plan, journal: &Journal) -> Result<(), Failure> {
        let (Some(inputs), Some(app)) = (inputs_of(plan), self.app_ref()) else { return Ok(()) };
        let mine = Operation { plan, journal, inputs: &inputs };
        for other in self.others_of_app().await? {
            let Some(theirs) = other.operation().filter(|_| other.over && inputs.take_over.contains(&other.uid)) else {
                continue;
            };
            let mut left = Vec::new();
            for leftover in &other.leftovers {
                let settled = match settled(&mine, &theirs, &leftover.object) {
                    Settled::Yes => true,
                    Settled::No => false,
                    Settled::ByNoting(volume) => self.note_replaced(&app, &theirs.inputs.restore_point, volume).await?,
                };
                if !settled {
                    left.push(leftover.clone());
                }
            }
            if left.len() < other.leftovers.len() {
                self.patch_leftovers(&other, &left).await?;
            }
        }
        Ok(())
    }

    /// Notes a volume on the restore point that it was replaced from; not when that is gone.
    async fn note_replaced(&self, app: &AppRef, point: &str, volume: ReplacedVolume) -> Result<bool, Failure> {
        let points = &self.context.ports.restore_points;
        if points.get(app, point).await?.is_none() {
            return Ok(false);
        }
        points.replaced(app, point, &[volume]).await?;
        Ok(true)
    }

    async fn patch_leftovers(&self, other: &Other, left: &[Leftover]) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({"metadata": {"uid": other.uid}, "status": {"leftovers": left}}));
        let written = if other.is_upgrade {
            let api: Api<UpgradeRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
            api.patch_status(&other.name, &patch_params(), &patch).await.map(|_| ())
        } else {
            let api: Api<RollbackRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
            api.patch_status(&other.name, &patch_params(), &patch).await.map(|_| ())
        };
        match written.map_err(CallError::on::<UpgradeRequest>("patch", &self.namespace, &other.name)) {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The request that rolls this upgrade back by itself, if it is there.
    async fn heir(&self, name: &str) -> Result<Option<RollbackRequest>, Failure> {
        let api: Api<RollbackRequest> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let found = api.get_opt(name).await;
        found.map_err(CallError::on::<RollbackRequest>("get", &self.namespace, name)).map_err(|error| failed(&error))
    }

    /// What is seen of the request that rolls this upgrade back by itself.
    fn successor(&self, name: &str, heir: Option<&RollbackRequest>) -> Successor {
        let named = self.request.status().and_then(|status| status.rollback.as_deref());
        let Some(heir) = heir else {
            return if named == Some(name) { Successor::Deleted } else { Successor::Unmade };
        };
        if !is_heir(heir, &self.request.name_any()) {
            return Successor::NotOurs;
        }
        let Some(status) = &heir.status else { return Successor::Waiting };
        match status.outcome {
            _ if is_planned(status) => Successor::Begun,
            Some(outcome) => {
                let message = status.message.as_deref().unwrap_or_default();
                Successor::Ended { how: format!("{outcome:?}: {message}") }
            }
            None => Successor::Waiting,
        }
    }

    async fn create_rollback(&self, name: &str, spec: RollbackRequestSpec) -> Result<(), Failure> {
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
            Ok(_) => Ok(()),
            // Whose it is shows when it is looked at.
            Err(error) if error.is_exists() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    pub(super) async fn finish(&self, outcome: Outcome, message: &str) -> Result<(), ReconcileError> {
        self.finish_with(outcome, message, json!({}), true).await
    }

    /// Lets go of the app. One that has no plan has changed nothing: an operation that it was to take over goes on.
    async fn release(&self, app: &AppRef) -> Result<(), Failure> {
        let planned = self.request.status().is_some_and(|status| status.plan.is_some());
        let others = if planned { Vec::new() } else { self.others_of_app().await? };
        match others.iter().find(|other| other.is_at_work()) {
            Some(other) => self.context.apps.acquire(app, &other.active(), Some(self.uid.clone())).await.map(|_| ()),
            None => self.context.apps.release(app, &self.uid).await,
        }
    }

    /// The upgrade that a rollback has taken over and, being undone itself, given back to nobody.
    async fn not_put_right(&self, outcome: Outcome) -> Result<Option<String>, Failure> {
        let undone = matches!(outcome, Outcome::Cancelled | Outcome::Undone);
        let Some((plan, _)) = record(&*self.request)?.filter(|_| undone) else { return Ok(None) };
        let taken = inputs_of(&plan).map(|inputs| inputs.take_over).unwrap_or_default();
        let me = self.request.name_any();
        // One that is not over yet says so itself.
        let half_way = |other: &Other| {
            taken.contains(&other.uid)
                && other.outcome == Some(Outcome::RolledBack)
                && other.rollback.as_deref() == Some(me.as_str())
        };
        Ok(self.others_of_app().await?.into_iter().find(half_way).map(|other| other.name))
    }

    /// Writes how it ended. The outcome is written last: until then everything before it is done again after a crash.
    pub(super) async fn finish_with(
        &self,
        outcome: Outcome,
        message: &str,
        more: Value,
        is_last: bool,
    ) -> Result<(), ReconcileError> {
        let message = &*conditions::bounded(message);
        // One that had no plan when it was read may have been begun by a successor since: then its end is not ours to say.
        let planned = self.request.status().is_some_and(is_planned);
        let revision = if planned { None } else { Some(self.fresh_revision().await?) };
        let now = self.context.clock.now();
        let dry_run = self.request.is_dry_run();
        if let Some(app) = self.app_ref().filter(|_| !dry_run) {
            let last = json!({
                "kind": K::KIND, "name": self.request.name_any(), "uid": self.uid,
                "outcome": outcome, "finishedAt": now, "message": message,
            });
            if is_last {
                self.context.apps.record_last(&app, last).await?;
            }
            let (ready, reason) = readiness(K::KIND, outcome);
            if let Some(ready) = ready.filter(|_| is_last) {
                self.context.apps.set_ready(&app, ready, reason, message).await?;
            } else if let Some(upgrade) = self.not_put_right(outcome).await? {
                let message =
                    format!("{message}. UpgradeRequest {upgrade}, which it had taken over, is half way: roll it back");
                self.context.apps.set_ready(&app, false, "NeedsRollback", &message).await?;
            }
            self.release(&app).await?;
        }
        let good = matches!(outcome, Outcome::Succeeded | Outcome::NothingToDo | Outcome::Planned);
        let generation = self.request.meta().generation;
        let conditions = conditions::ended(&self.conditions(), outcome, Said { reason: "", message, generation, now });
        let mut fields = json!({
            "outcome": outcome, "phase": format!("{outcome:?}"), "message": message, "finishedAt": now,
            "conditions": conditions, "observedGeneration": generation,
        });
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        self.patch_status_at(fields, revision).await?;
        let labels = Ended { kind: K::KIND.as_str().into(), outcome: format!("{outcome:?}") };
        self.context.metrics.ended.get_or_create(&labels).inc();
        self.context.events.publish(&*self.request, self.app.as_ref(), !good, &format!("{outcome:?}"), message).await;
        Ok(())
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        self.request.status().map(|status| status.conditions.clone()).unwrap_or_default()
    }

    /// The status of a request that is not over.
    pub(super) fn working(&self, phase: &str, message: &str) -> Value {
        let message = &*conditions::bounded(message);
        let generation = self.request.meta().generation;
        let said = Said { reason: phase, message, generation, now: self.context.clock.now() };
        let conditions = conditions::working(&self.conditions(), said);
        json!({"phase": phase, "message": message, "conditions": conditions, "observedGeneration": generation})
    }

    pub(super) async fn patch_status(&self, status: Value) -> Result<(), Failure> {
        self.patch_status_at(status, None).await
    }

    /// Only if the request is still at that version, if one is given.
    async fn patch_status_at(&self, status: Value, revision: Option<Revision>) -> Result<(), Failure> {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = self.request.name_any();
        let mut metadata = json!({"uid": self.uid});
        if let (Some(revision), Value::Object(fields)) = (revision, &mut metadata) {
            fields.insert("resourceVersion".into(), json!(revision.0));
        }
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
        let written = api.patch_status(&name, &patch_params(), &patch).await;
        match written.map_err(CallError::on::<K>("patch", &self.namespace, &name)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Whether the app is ready after an operation ended like this; `None` when that says nothing about the app.
fn readiness(kind: OperationKind, outcome: Outcome) -> (Option<bool>, &'static str) {
    match outcome {
        // What a rollback found may have been broken.
        Outcome::Cancelled | Outcome::Undone if kind == OperationKind::RollbackRequest => (None, ""),
        Outcome::Succeeded => (Some(true), "Succeeded"),
        Outcome::Cancelled | Outcome::Undone => (Some(true), "AsFound"),
        Outcome::NeedsRollback => (Some(false), "NeedsRollback"),
        Outcome::Failed => (Some(false), "Failed"),
        Outcome::RolledBack => (Some(false), "RollingBack"),
        Outcome::NothingToDo | Outcome::Planned | Outcome::Refused => (None, ""),
    }
}

/// What follows a failure after the point of no return.
enum After {
    /// Nothing by itself.
    End(Outcome, String),
    /// This rollback has taken over.
    RolledBackBy(String),
    /// A rollback was made, and has not begun.
    Wait,
}

/// Whether a request was made by the operator to roll back the upgrade of this name.
fn is_heir(rollback: &RollbackRequest, upgrade: &str) -> bool {
    rollback.labels().get(AUTOMATIC).is_some_and(|value| value == "true")
        && rollback.spec.to.upgrade_request.as_deref() == Some(upgrade)
}
