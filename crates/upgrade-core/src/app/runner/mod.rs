//! Carries out the steps of app plans through the ports: each step's reads, its one effect, and how to tell that it is there.

mod data;
mod gate;
mod hold;
mod others;
mod pins;
mod restore;
mod verify;
mod workload;

use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::changes::drop_claim;
use super::{AppInputs, AppStep, rollback, upgrade};
use crate::Failure;
use crate::engine::{Direction, Effect, Observation, StepContext, StepRunner};
use crate::ports::{
    AppStore, ClaimFacts, Delivery, GitManager, HealthChecker, RestorePoints, SnapshotManager, VolumeRecord, Workloads,
};

/// The ports that app operations need.
#[derive(Clone)]
pub struct AppPorts {
    /// Delivery.
    pub delivery: Arc<dyn Delivery>,
    /// Git.
    pub git: Arc<dyn GitManager>,
    /// Volumes.
    pub snapshots: Arc<dyn SnapshotManager>,
    /// Workloads.
    pub workloads: Arc<dyn Workloads>,
    /// Health.
    pub health: Arc<dyn HealthChecker>,
    /// Apps.
    pub apps: Arc<dyn AppStore>,
    /// Restore points.
    pub restore_points: Arc<dyn RestorePoints>,
}

/// Runs the workflows of this module.
pub struct AppRunner {
    ports: AppPorts,
}

impl AppRunner {
    /// A runner over these ports.
    pub fn new(ports: AppPorts) -> Self {
        Self { ports }
    }
}

/// One step with everything at hand.
struct Work<'a> {
    ports: &'a AppPorts,
    inputs: AppInputs,
    action: AppStep,
    cx: StepContext<'a>,
}

#[async_trait]
impl StepRunner for AppRunner {
    fn workflows(&self) -> &'static [&'static str] {
        &[upgrade::WORKFLOW, rollback::WORKFLOW]
    }

    async fn prepare(&self, cx: StepContext<'_>) -> Result<Value, Failure> {
        self.work(cx)?.prepare().await
    }

    async fn act(&self, cx: StepContext<'_>) -> Result<Effect, Failure> {
        let work = self.work(cx)?;
        work.act().await?;
        Ok(match work.action {
            AppStep::NoteReplaced | AppStep::Block | AppStep::RecordCurrent => Effect::Proven(json!({"written": true})),
            _ => Effect::Made,
        })
    }

    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure> {
        self.work(cx)?.observe().await
    }
}

impl AppRunner {
    fn work<'a>(&'a self, cx: StepContext<'a>) -> Result<Work<'a>, Failure> {
        let inputs = decode(&cx.plan.inputs, "the plan's inputs")?;
        let action = decode(&cx.step.action, "the step's action")?;
        Ok(Work { ports: &self.ports, inputs, action, cx })
    }
}

fn decode<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, Failure> {
    serde_json::from_value(value.clone()).map_err(|error| {
        Failure::permanent("plan-unreadable", format!("{what} cannot be read: {error}"))
            .with_hint("let the version of Windlass that made the plan finish it")
    })
}

impl Work<'_> {
    async fn prepare(&self) -> Result<Value, Failure> {
        use AppStep as S;
        use Direction::{Do, Undo};
        match (&self.action, self.cx.direction) {
            (S::Suspend { root }, direction) => self.prepare_hold(root, direction).await,
            (S::Resume { root }, Do) => self.prepare_resume(root).await,
            (S::Commit { repository }, Do) => self.prepare_commit(repository).await,
            (S::Stop { workload }, Do) => {
                self.nothing_served().await?;
                self.prepare_workload(workload).await
            }
            (S::Stop { workload } | S::PutBack { workload }, _) => self.prepare_workload(workload).await,
            (S::RestoreAside { claim }, Do) => self.prepare_restore_aside(claim).await,
            (S::DropClaim { claim }, Do) => self.prepare_drop_claim(claim).await,
            (S::DropHelper { claim }, Do) => self.prepare_drop_helper(claim).await,
            // Whoever waits for the claim would start on the restored data in the moment it is there.
            (S::Reserve { .. } | S::Recreate { .. }, Do) => self.suspended_and_idle().await,
            (_, Do | Undo) => Ok(json!({})),
        }
    }

    async fn act(&self) -> Result<(), Failure> {
        use AppStep as S;
        use Direction::{Do, Undo};
        match (&self.action, self.cx.direction) {
            (S::Suspend { root }, Do) => self.suspend(root).await,
            (S::Suspend { root }, Undo) | (S::Resume { root }, Do) => self.resume(root).await,
            (S::Stage { root, stage }, Do) => self.set_stage(root, stage).await,
            (S::Stage { root, .. }, Undo) => self.set_stage(root, self.first_stage(root)).await,
            (S::Stop { workload }, Do) => self.stop(workload).await,
            (S::Stop { workload }, Undo) => self.start_again(workload).await,
            (S::PutBack { workload }, Do) => self.put_back(workload).await,
            (S::AwaitStopped, Do) => self.remove_ended_pods().await,
            (S::Freeze { workload }, Do) => self.freeze(workload, true).await,
            (S::Freeze { workload }, Undo) | (S::Unfreeze { workload }, Do) => self.freeze(workload, false).await,
            (S::Protect { claim }, direction) => self.protect(claim, direction).await,
            (S::Unprotect { claim }, Do) => self.unprotect(claim).await,
            (S::Snapshot { claim }, Do) => self.snapshot(claim).await,
            (S::Snapshot { claim }, Undo) => self.drop_snapshot(claim).await,
            (S::RetainSnapshot { claim }, direction) => self.retain_snapshot(claim, direction).await,
            (S::TryRestore { claim }, Do) => self.try_restore(claim).await,
            (S::TryRestore { claim }, Undo) | (S::DropTrial { claim }, Do) => self.drop_trial(claim).await,
            (S::SaveRestorePoint, Do) => self.save_restore_point().await,
            (S::SaveRestorePoint, Undo) => self.void_restore_point().await,
            (S::Commit { repository }, direction) => self.commit(repository, direction).await,
            (S::Carriers, Undo) => self.poke_all().await,
            (S::Fetch { source }, Do) => self.poke(source).await,
            (S::AwaitSpec { .. } | S::AwaitAttempt { .. }, Do) => self.poke_parents().await,
            (S::RestoreAside { claim }, Do) => self.restore_aside(claim).await,
            (S::RestoreAside { claim }, Undo) | (S::DropHelper { claim }, Do) => self.drop_helper(claim).await,
            (S::RetainAside { claim }, direction) => self.retain_aside(claim, direction).await,
            (S::DropHelper { claim }, Undo) => self.discard_aside(claim).await,
            (S::Reserve { claim }, Do) => self.reserve(claim).await,
            (S::DropClaim { claim }, Do) => self.drop_claim(claim).await,
            (S::Recreate { claim }, Do) => self.recreate(claim).await,
            (S::NoteReplaced, Do) => self.note_replaced().await,
            (S::Block, Do) => self.block().await,
            (S::RecordCurrent, Do) => self.ports.apps.set_current(&self.inputs.app, &self.inputs.to).await,
            _ => Ok(()),
        }
    }

    async fn observe(&self) -> Result<Observation, Failure> {
        use AppStep as S;
        let seen = self.look().await;
        // These wait until the commit is undone.
        let waits = self.cx.direction == Direction::Undo
            && matches!(self.action, S::Carriers | S::Stage { .. } | S::Freeze { .. });
        if waits
            && !matches!(seen, Ok(Observation::Done(_)))
            && let Some(why) = self.why_the_commit_stays()
        {
            return Ok(Observation::Kept(why));
        }
        let seen = seen?;
        // Undoing these takes the way back, or starts the old version.
        let takes_away = self.cx.direction == Direction::Undo
            && matches!(
                self.action,
                S::Commit { .. } | S::SaveRestorePoint | S::RetainSnapshot { .. } | S::Snapshot { .. }
            );
        if takes_away
            && matches!(seen, Observation::Absent(_))
            && let Some(why) = self.target_may_have_run().await?
        {
            return Ok(Observation::Kept(why));
        }
        Ok(seen)
    }

    async fn look(&self) -> Result<Observation, Failure> {
        use AppStep as S;
        use Direction::{Do, Undo};
        match (&self.action, self.cx.direction) {
            (S::Suspend { root }, Do) => self.is_suspended(root).await,
            (S::Suspend { root }, Undo) => self.is_let_go(root).await,
            (S::Resume { root }, Do) => self.is_resumed(root).await,
            (S::Stage { root, stage }, Do) => self.has_stage(root, stage).await,
            (S::Stage { root, .. }, Undo) => self.has_first_stage(root).await,
            (S::Stop { workload }, Do) => self.is_stopped(workload).await,
            (S::Stop { workload }, Undo) => self.is_started_again(workload).await,
            (S::PutBack { workload }, Do) => self.is_put_back(workload).await,
            (S::AwaitStopped, Do) => self.nothing_holds().await,
            (S::Freeze { workload }, Do) => self.is_frozen(workload, true).await,
            (S::Freeze { workload }, Undo) | (S::Unfreeze { workload }, Do) => self.is_frozen(workload, false).await,
            (S::Protect { claim }, direction) => self.is_protected(claim, direction).await,
            (S::Unprotect { claim }, Do) => self.is_unprotected(claim).await,
            (S::Snapshot { claim }, direction) => self.is_snapshot(claim, direction).await,
            (S::RetainSnapshot { claim }, direction) => self.is_snapshot_retained(claim, direction).await,
            (S::VerifySnapshot { claim }, Do) => self.is_restorable(claim).await,
            (S::TryRestore { claim }, Do) => self.is_tried(claim).await,
            (S::TryRestore { claim }, Undo) | (S::DropTrial { claim }, Do) => self.is_trial_gone(claim).await,
            (S::SaveRestorePoint, direction) => self.is_recorded(direction).await,
            (S::Commit { repository }, Do) => self.is_committed(repository).await,
            (S::Commit { repository }, Undo) => self.is_reverted(repository).await,
            (S::Carriers, Undo) => self.no_carrier_shows_target().await,
            (S::Fetch { source }, Do) => self.is_fetched(source).await,
            (S::AwaitSpec { object, .. }, Do) => self.spec_names_target(object).await,
            (S::AwaitAttempt { object }, Do) => self.has_attempted(object).await,
            (S::Settle, Do) => Ok(self.has_settled(self.cx.started_at())),
            (S::Verify, Do) => self.is_healthy().await,
            (S::Soak, Do) => self.stays_healthy().await,
            (S::RestoreAside { claim }, direction) => self.is_restored_aside(claim, direction).await,
            (S::RetainAside { claim }, direction) => self.is_aside_retained(claim, direction).await,
            (S::DropHelper { claim }, Do) => self.is_aside_free(claim).await,
            (S::DropHelper { claim }, Undo) => self.is_aside_discarded(claim).await,
            (S::Reserve { claim }, Do) => self.is_reserved(claim).await,
            (S::DropClaim { claim }, Do) => self.is_claim_gone(claim).await,
            (S::Recreate { claim }, Do) => self.is_recreated(claim).await,
            (S::AwaitClaims, Do) => self.are_claims_bound().await,
            (S::NoteReplaced | S::Block | S::RecordCurrent, Do) => Ok(Observation::absent()),
            (_, Do | Undo) => Ok(Observation::Done(json!({}))),
        }
    }

    /// A field of what an earlier step saw.
    fn seen(&self, step: &str, field: &str) -> Option<String> {
        self.cx.journal.evidence(step).get(field).and_then(Value::as_str).map(str::to_owned)
    }

    /// The same as [`Work::seen`], when the plan cannot have come this far without it.
    fn must_have_seen(&self, step: &str, field: &str) -> Result<String, Failure> {
        self.seen(step, field).ok_or_else(|| {
            Failure::permanent("evidence-missing", format!("step {step} has left no {field} in the journal"))
                .with_hint("this is a defect of Windlass: please report it with the request's status")
        })
    }

    /// A field of this step's intent.
    fn intended(&self, field: &str) -> Option<String> {
        self.cx.intent().get(field).and_then(Value::as_str).map(str::to_owned)
    }

    /// Whether a person has accepted that the target does not have this claim any more.
    fn is_dropped(&self, claim: &str) -> bool {
        self.inputs.accepted.contains(&drop_claim(claim))
    }

    fn begun(&self, step: &str) -> bool {
        self.cx.journal.entry(step).is_some_and(|entry| entry.begun)
    }

    fn claim(&self, name: &str) -> Result<&ClaimFacts, Failure> {
        self.inputs.claim(name).ok_or_else(|| not_planned("claim", name))
    }

    fn volume_record(&self, claim: &str) -> Result<&VolumeRecord, Failure> {
        let volumes = self.inputs.restore.as_ref().map(|point| point.volumes.as_slice()).unwrap_or_default();
        volumes.iter().find(|volume| volume.claim == claim).ok_or_else(|| not_planned("restored claim", claim))
    }

    /// A token for a poke: a new one every few seconds, so that a tool whose last try failed is asked again.
    fn poke_token(&self) -> String {
        let elapsed = self.cx.now.duration_since(self.cx.started_at()).as_secs();
        format!("{}/{}", self.cx.token(), elapsed / 5)
    }
}

fn not_planned(what: &str, name: &str) -> Failure {
    Failure::permanent("plan-inconsistent", format!("{what} {name} is not part of the plan"))
        .with_hint("this is a defect of Windlass: please report it with the request's status")
}

fn gone(what: impl std::fmt::Display) -> Failure {
    Failure::permanent("object-gone", format!("{what} is gone"))
}

fn replaced(what: impl std::fmt::Display) -> Failure {
    Failure::permanent("object-replaced", format!("{what} was replaced by another object of the same name"))
        .with_hint("find out who made it again, then ask anew")
}
