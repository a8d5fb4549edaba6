//! An upgrade that a rollback takes over: while it is still being watched, and as what it ends.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::app::AppInputs;
use upgrade_core::app::after::{Sighting, Situation, sighting, what_each_loses};
use upgrade_core::app::handover::{TakeOver, farthest, gone};
use upgrade_core::app::inherit::{Operation, Settled, settled};
use upgrade_core::app::rollback;
use upgrade_core::engine::{self, Journal, Plan};
use upgrade_core::ports::AppRef;
use windlass_api::{OperationKind, Outcome};

use super::ask::Other;
use super::{QUEUE_PAUSE, ReconcileError, Turn, inputs_of};
use crate::kinds::Request;
use crate::status;

/// The rollback that says what becomes of an upgrade.
pub(super) struct Taker {
    pub(super) name: String,
    pub(super) how_far: TakeOver,
    /// What its status says.
    pub(super) message: String,
}

impl Taker {
    pub(super) fn undone(&self) -> String {
        format!("rollback {} was undone: {}", self.name, self.message)
    }
}

impl<K: Request> Turn<'_, K> {
    /// The rollback that has begun to take this upgrade over: one whose plan says so. That it is the app's active operation is not enough,
    /// because one that is not planned yet may still be refused.
    pub(super) async fn taker(&self) -> Result<Option<Taker>, Failure> {
        let others = self.others_of_app().await?;
        let rollbacks = others.iter().filter(|other| !other.is_upgrade && other.planned);
        let rollbacks = rollbacks.filter_map(|other| Some((other, other.operation()?, other.over)));
        if let Some((other, how_far)) = farthest(&self.uid, rollbacks) {
            return Ok(Some(Taker { name: other.name.clone(), how_far, message: other.message.clone() }));
        }
        // The automatic one is named before it has begun, and follows a failure only.
        let automatic = rollback::request_name(&self.request.name_any(), &self.uid);
        let is_there = |name: &String| others.iter().any(|other| !other.is_upgrade && other.name == *name);
        let named = self.request.status().and_then(|status| status.rollback.clone());
        match named.filter(|name| *name != automatic && !is_there(name)) {
            Some(name) => {
                let how_far = gone(self.has_succeeded(&name).await?);
                Ok(Some(Taker { name, how_far, message: "it was deleted".to_owned() }))
            }
            None => Ok(None),
        }
    }

    /// Whether the app says of a rollback that it ended last, and well.
    async fn has_succeeded(&self, rollback: &str) -> Result<bool, Failure> {
        let Some(app) = self.app_ref() else { return Ok(false) };
        let last = self.context.apps.last(&app).await?;
        let asked_at = self.request.creation_timestamp().map(|at| at.0);
        Ok(last.is_some_and(|last| {
            let is_it = last.kind == OperationKind::RollbackRequest && last.name == rollback;
            is_it && last.outcome == Outcome::Succeeded && asked_at.is_none_or(|at| last.finished_at >= at)
        }))
    }

    /// What a rollback that takes this upgrade over makes of it while it is still being watched; nothing if there is none.
    pub(super) async fn give_way(&self, plan: &Plan, journal: &Journal) -> Result<Option<Action>, ReconcileError> {
        let active = self.app.as_ref().and_then(|app| app.status.as_ref()?.active_operation.as_ref());
        let mine = active.is_some_and(|active| active.uid == self.uid);
        if K::KIND != OperationKind::UpgradeRequest || mine || self.let_go.is_some() {
            return Ok(None);
        }
        let Some(taker) = self.taker().await? else { return Ok(None) };
        match taker.how_far {
            TakeOver::Pending => {
                self.say_begun(plan, journal, &taker).await?;
                return Ok(Some(Action::requeue(QUEUE_PAUSE)));
            }
            TakeOver::Made => {
                let message = format!("rollback {} took over", taker.name);
                self.finish_as_rolled_back(plan, journal, &taker.name, &message).await?;
            }
            TakeOver::GivenBack => self.finish_as_given_back(plan, journal, &taker).await?,
        }
        Ok(Some(Action::requeue(Duration::ZERO)))
    }

    /// A rollback has taken over and may still be undone: until it cannot, nothing is over.
    pub(super) async fn say_begun(&self, plan: &Plan, journal: &Journal, taker: &Taker) -> Result<(), Failure> {
        let message = format!("{}; rollback {} has begun", status::message(plan, journal), taker.name);
        if self.request.status().and_then(|status| status.message.as_ref()) != Some(&message) {
            self.say_rolling_back(&message, &taker.name).await?;
        }
        Ok(())
    }

    pub(super) async fn say_rolling_back(&self, message: &str, rollback: &str) -> Result<(), Failure> {
        let mut fields = self.working("RollingBack", message);
        if let Value::Object(fields) = &mut fields {
            fields.insert("rollback".into(), rollback.into());
        }
        self.patch_status(fields).await
    }

    /// Nobody has watched the new version since the rollback began, and what it holds is as it was: a person decides.
    async fn finish_as_given_back(&self, plan: &Plan, journal: &Journal, taker: &Taker) -> Result<(), ReconcileError> {
        let mut message = format!("{}; {}", status::message(plan, journal), taker.undone());
        if let Some((inputs, app)) = inputs_of(plan).zip(self.app_ref()) {
            let (seen, taken_at) = self.look_at_target(plan, journal, &inputs, &app).await?;
            let since = taken_at.map(|at| at.to_string()).unwrap_or_default();
            let policy = inputs.auto_rollback;
            let restorable = taken_at.is_some();
            let situation = Situation { policy, seen, restorable, taken_at: &since, refused: true };
            message = format!("{message}. {}", what_each_loses(situation));
        }
        let more = json!({"rollback": taker.name, "leftovers": status::leftovers(plan, journal)});
        self.finish_with(Outcome::NeedsRollback, &message, more, true).await
    }

    /// What a decision about an upgrade that is not to go on rests on: what was seen of its target, and since when a restore loses what
    /// was written, if there is something to restore.
    pub(super) async fn look_at_target(
        &self,
        plan: &Plan,
        journal: &Journal,
        inputs: &AppInputs,
        app: &AppRef,
    ) -> Result<(Sighting, Option<Timestamp>), Failure> {
        let pods = self.context.ports.workloads.pods(&self.namespace, &inputs.watched, &inputs.claim_names()).await?;
        let point = self.context.ports.restore_points.get(app, &inputs.restore_point).await?;
        let point = point.filter(|point| point.void.is_empty() && !point.volumes.is_empty());
        Ok((sighting(plan, journal, inputs, &pods), point.map(|point| point.taken_at)))
    }

    /// What a rollback has taken over stays listed until one has succeeded: it may still fail.
    pub(super) async fn finish_as_rolled_back(
        &self,
        plan: &Plan,
        journal: &Journal,
        rollback: &str,
        message: &str,
    ) -> Result<(), ReconcileError> {
        let mut left = status::taken_over(plan, journal, rollback);
        // It may be over already: then it did not clear the list of an upgrade that was not over itself.
        let others = self.others_of_app().await?;
        let heir = others.iter().find(|other| !other.is_upgrade && other.name == rollback).and_then(Other::operation);
        let success = heir.filter(|heir| heir.journal.outcome == Some(engine::Outcome::Succeeded));
        if let (Some(success), Some(inputs)) = (success, inputs_of(plan)) {
            let mine = Operation { plan, journal, inputs: &inputs };
            let step = |left: &Value| left["object"].as_str().unwrap_or_default().to_owned();
            left.retain(|left| settled(&success, &mine, &step(left)) == Settled::No);
        }
        // One that is over, or gone since, has said already how the app is, and is the later operation.
        let is_last = others.iter().any(|other| !other.is_upgrade && other.name == rollback && !other.over);
        let more = json!({"rollback": rollback, "leftovers": left});
        self.finish_with(Outcome::RolledBack, message, more, is_last).await
    }
}
