//! The beginning of a request: its turn, the facts, the verdict, the plan.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use kube::api::Patch;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;
use upgrade_core::Failure;
use upgrade_core::app::preflight::{self, Verdict};
use upgrade_core::app::{collide, facts, rollback, upgrade};
use upgrade_core::engine::{Journal, Plan, PlanError};
use upgrade_core::ports::{ActiveOperation, AppStore as _, JournalStore as _, Revision, SaveError};
use windlass_api::Outcome;
use windlass_api::call::{CallError, patch_params};

use super::ask::{Ask, Other};
use super::{QUEUE_PAUSE, ReconcileError, Turn, inputs_of};
use crate::conditions::bounded;
use crate::kinds::Request;
use crate::resolve;
use crate::store::{RequestStore, failed, is_planned};

/// Keeps a request's object until its operation has ended.
pub(crate) const FINALIZER: &str = "upgrades.windlass.dev/operation";
/// How long refusals that may pass by themselves are waited for.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);

impl<K: Request> Turn<'_, K> {
    pub(super) async fn start(&self) -> Result<Action, ReconcileError> {
        if self.request.cancelled() {
            self.finish(Outcome::Cancelled, "cancelled before it began").await?;
            return Ok(Action::requeue(Duration::ZERO));
        }
        let Some(app) = &self.app else {
            let message =
                format!("there is no ManagedApp {} in namespace {}", self.request.subject().name, self.namespace);
            self.finish(Outcome::Refused, &message).await?;
            return Ok(Action::requeue(Duration::ZERO));
        };
        let who = resolve::app_ref(app);
        let dry_run = self.request.is_dry_run();
        if !dry_run {
            self.add_finalizer().await?;
        }
        let others = self.others().await?;
        let superseded = self.superseded(&others);
        let at_work = |other: &&Other| other.same_app && other.is_at_work() && superseded.as_ref() != Some(&other.uid);
        if let Some(other) = others.iter().find(at_work).filter(|_| !dry_run) {
            let ActiveOperation { kind, name, .. } = other.active();
            return self.wait_for(&format!("waiting for {kind} {name}")).await;
        }
        // A rollback that is to take an upgrade over is judged first: until its plan is stored the upgrade goes on, and if it is
        // refused nothing has happened to it.
        if !dry_run && superseded.is_none() {
            let active = self.context.apps.acquire(&who, &self.me(), None).await?;
            if active.uid != self.uid {
                return self.wait_for(&format!("waiting for {} {}", active.kind, active.name)).await;
            }
        }
        let ask = match self.ask(app, &others).await {
            Ok(ask) => ask,
            Err(failure) if failure.retryable => return Err(failure.into()),
            Err(failure) => return self.refuse(&refusal(&failure.code, &failure.message, &failure.hint)).await,
        };
        let facts = facts::gather(self.context.fact_ports(), ask.spec(), ask.point(), ask.targets()).await;
        let facts = match facts {
            Ok(facts) => facts,
            Err(failure) if failure.retryable => return Err(failure.into()),
            Err(failure) => return self.refuse(&refusal(&failure.code, &failure.message, &failure.hint)).await,
        };
        let running: BTreeSet<&str> =
            others.iter().filter(|other| !other.over).map(|other| other.uid.as_str()).collect();
        let held = facts.delivery.objects.iter().find(|object| {
            object
                .held_by
                .as_deref()
                .is_some_and(|holder| running.contains(holder) && !ask.take_over().iter().any(|one| one == holder))
        });
        if let Some(held) = held.filter(|_| !dry_run) {
            return self.wait_for(&format!("waiting for the operation that holds {}", held.object)).await;
        }
        let (verdict, plan) = match &ask {
            Ask::Upgrade(ask) => (preflight::upgrade(ask, &facts), upgrade::plan(ask, &facts)),
            Ask::Rollback(ask) => (preflight::rollback(ask, &facts), rollback::plan(ask, &facts)),
        };
        if !verdict.passed() {
            let age = self.request.creation_timestamp().map(|at| self.context.clock.now().duration_since(at.0));
            if verdict.may_pass_soon() && age.is_some_and(|age| age < SETTLE) {
                return self.wait_for(&refusals(&verdict)).await;
            }
            return self.refuse_by(&verdict).await;
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(PlanError::Empty) => return self.refuse("there is nothing to do").await,
            Err(error) => return self.refuse(&error.to_string()).await,
        };
        // Two plans that are stored at once would overlook each other.
        let _planning = self.context.planning.lock().await;
        let others = self.others().await?;
        let mine = inputs_of(&plan);
        let collision = others
            .iter()
            .filter(|other| !other.over && !ask.take_over().contains(&other.uid))
            .find(|other| mine.as_ref().zip(other.inputs.as_ref()).is_some_and(|(mine, theirs)| collide(mine, theirs)));
        if let Some(other) = collision.filter(|_| !dry_run) {
            return self.wait_for(&format!("waiting for {}, which works below the same root", other.name)).await;
        }
        if !dry_run && superseded.is_some() {
            let active = self.context.apps.acquire(&who, &self.me(), superseded).await?;
            if active.uid != self.uid {
                return self.wait_for(&format!("waiting for {} {}", active.kind, active.name)).await;
            }
        }
        self.accept(plan, &verdict, dry_run).await
    }

    async fn accept(&self, plan: Plan, verdict: &Verdict, dry_run: bool) -> Result<Action, ReconcileError> {
        for warning in &verdict.warnings {
            self.context.events.publish(&*self.request, self.app.as_ref(), true, "PreflightWarning", warning).await;
        }
        if dry_run {
            let mut message = format!("{} steps; nothing was changed", plan.steps.len());
            for warning in &verdict.warnings {
                message.push_str("; ");
                message.push_str(warning);
            }
            self.finish_with(Outcome::Planned, &message, json!({"plan": plan}), true).await?;
            return Ok(Action::requeue(Duration::ZERO));
        }
        let store = RequestStore::new(self.context.client.clone(), &*self.request);
        let journal = Journal::new(&plan, self.context.clock.now());
        let expected = self.fresh_revision().await?;
        match store.save(&self.uid, &plan, &journal, Some(expected)).await {
            Ok(_) | Err(SaveError::Conflict) => Ok(Action::requeue(Duration::ZERO)),
            Err(SaveError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// The version of a request that had no plan when it was read: the finalizer and the queue's messages have moved it since. Fails if
    /// somebody else has begun or ended it meanwhile.
    pub(super) async fn fresh_revision(&self) -> Result<Revision, Failure> {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = self.request.name_any();
        let found =
            api.get(&name).await.map_err(CallError::on::<K>("get", &self.namespace, &name)).map_err(|e| failed(&e))?;
        let taken = found.status().is_some_and(|status| status.outcome.is_some() || is_planned(status));
        if taken || found.uid().as_deref() != Some(self.uid.as_str()) {
            return Err(Failure::transient("changed-meanwhile", "it was begun, ended or replaced meanwhile"));
        }
        Ok(Revision(found.resource_version().unwrap_or_default()))
    }

    async fn wait_for(&self, message: &str) -> Result<Action, ReconcileError> {
        let message = &*bounded(message);
        let known = self.request.status().and_then(|status| status.message.as_deref());
        if known != Some(message) {
            self.patch_status(self.working("Queued", message)).await?;
        }
        Ok(Action::requeue(QUEUE_PAUSE))
    }

    async fn refuse(&self, message: &str) -> Result<Action, ReconcileError> {
        self.finish(Outcome::Refused, message).await?;
        Ok(Action::requeue(Duration::ZERO))
    }

    async fn refuse_by(&self, verdict: &Verdict) -> Result<Action, ReconcileError> {
        let nothing = verdict.refusals.iter().all(|refusal| refusal.code == "nothing-to-do");
        let outcome = if nothing { Outcome::NothingToDo } else { Outcome::Refused };
        self.finish(outcome, &refusals(verdict)).await?;
        Ok(Action::requeue(Duration::ZERO))
    }

    async fn add_finalizer(&self) -> Result<(), Failure> {
        if self.request.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(());
        }
        let mut finalizers = self.request.finalizers().to_vec();
        finalizers.push(FINALIZER.into());
        self.patch_finalizers(&finalizers).await
    }

    pub(super) async fn drop_finalizer(&self) -> Result<(), Failure> {
        if !self.request.finalizers().iter().any(|one| one == FINALIZER) {
            return Ok(());
        }
        let rest: Vec<String> = self.request.finalizers().iter().filter(|one| *one != FINALIZER).cloned().collect();
        self.patch_finalizers(&rest).await
    }

    async fn patch_finalizers(&self, finalizers: &[String]) -> Result<(), Failure> {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let name = self.request.name_any();
        let version = self.request.resource_version();
        let metadata = json!({"uid": self.uid, "resourceVersion": version, "finalizers": finalizers});
        let written = api.patch(&name, &patch_params(), &Patch::Merge(json!({"metadata": metadata}))).await;
        match written.map_err(CallError::on::<K>("patch", &self.namespace, &name)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn refusals(verdict: &Verdict) -> String {
    let texts: Vec<String> =
        verdict.refusals.iter().map(|found| refusal(&found.code, &found.message, &found.hint)).collect();
    texts.join("; ")
}

/// One reason not to begin, as it stands in the request's message.
fn refusal(code: &str, message: &str, hint: &str) -> String {
    let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
    format!("{code}: {message}{hint}")
}
