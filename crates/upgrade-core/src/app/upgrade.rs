//! The plan of an upgrade.

use jiff::SignedDuration;

use super::build::{
    AppInputs, chart_sources, commit_and_release_steps, deadlines, derived_name, heads, roots, shared, stop_steps,
    suspend_steps, verify_steps,
};
use super::facts::AppFacts;
use super::inherit::{claims_as_found, planned_workloads};
use super::watch::{Watch, watch};
use super::{AppStep, Consistency, UpgradeAsk, changes, readers};
use crate::engine::{Plan, PlanError, Step, Stretch};
use crate::ports::{ObjectRef, PinValue};

/// Name of the workflow in plans.
pub const WORKFLOW: &str = "app-upgrade";

/// The resolved inputs of an upgrade. Preflight must have passed on the same facts.
pub fn inputs(ask: &UpgradeAsk, facts: &AppFacts) -> AppInputs {
    let (from, to) = targets(ask, facts);
    let roots = roots(&facts.delivery, &ask.take_over);
    let found = claims_as_found(facts, &ask.inherited);
    let claims: Vec<String> = found.iter().map(|claim| claim.name.clone()).collect();
    let stopped = ask.app.snapshots.consistency == Consistency::Stopped && !claims.is_empty();
    let restore_point =
        if claims.is_empty() { String::new() } else { derived_name(&ask.app.app.name, &ask.operation, "") };
    let mut accepted = ask.app.versions.accepted_claim_changes.clone();
    accepted.extend(changes::passing(facts).iter().map(changes::remove_workload));
    let is_removed = |object: &ObjectRef| accepted.contains(&changes::remove_workload(object));
    let mut workloads = if stopped { planned_workloads(facts, &claims, &ask.inherited) } else { Vec::new() };
    for workload in &mut workloads {
        workload.removed = is_removed(&workload.object);
    }
    let Watch { watched, unwatched, unseen } = watch(facts, &workloads, &to, &accepted);
    AppInputs {
        app: ask.app.app.clone(),
        request: ask.name.clone(),
        own: ask.app.own.clone(),
        shared: shared(&facts.delivery, &roots),
        roots,
        sources: readers::sources(&facts.delivery, &ask.app.repositories),
        readers: readers::readers(&facts.delivery, &ask.app.repositories),
        chart_sources: chart_sources(&facts.delivery),
        repositories: ask.app.repositories.clone(),
        message: message(ask, &from, &to),
        from,
        to,
        workloads,
        watched,
        unwatched,
        unseen,
        claims: found,
        stopped,
        heads: heads(facts),
        restore_point,
        restore: None,
        health: ask.app.health.clone(),
        auto_rollback: ask.app.auto_rollback,
        take_over: ask.take_over.clone(),
        reason: ask.reason.clone(),
        accepted,
        unacknowledged: false,
    }
}

/// Every pin with its present value, and with the value it shall carry.
pub fn targets(ask: &UpgradeAsk, facts: &AppFacts) -> (Vec<PinValue>, Vec<PinValue>) {
    let pins = facts.repositories.iter().flat_map(|repository| &repository.pins);
    pins.map(|found| {
        let target = ask.targets.get(&found.pin.component).unwrap_or(&found.value);
        (
            PinValue { pin: found.pin.clone(), value: found.value.clone() },
            PinValue { pin: found.pin.clone(), value: target.clone() },
        )
    })
    .unzip()
}

fn message(ask: &UpgradeAsk, from: &[PinValue], to: &[PinValue]) -> String {
    let mut changes: Vec<String> = from
        .iter()
        .zip(to)
        .filter(|(from, to)| from.value != to.value)
        .map(|(from, to)| format!("{} {} -> {}", to.pin.component, from.value, to.value))
        .collect();
    changes.dedup();
    let mut text = format!("Upgrade {}: {}", ask.app.app.name, changes.join(", "));
    if !ask.reason.is_empty() {
        text.push_str("\n\n");
        text.push_str(&ask.reason);
    }
    text
}

/// The plan. Errors: [`PlanError::TooLarge`] when the app has more claims than one plan can hold.
pub fn plan(ask: &UpgradeAsk, facts: &AppFacts) -> Result<Plan, PlanError> {
    let inputs = inputs(ask, facts);
    let deadline = ask.app.snapshots.deadline;
    let restores = ask.app.snapshots.verify_restore;
    let mut steps = suspend_steps(&inputs);
    for claim in &inputs.claims {
        steps.push(protect(&claim.name, &claim.volume));
    }
    let before = steps.len();
    steps.extend(stop_steps(&inputs, deadline));
    for claim in &inputs.claims {
        let name = &claim.name;
        let step = AppStep::Snapshot { claim: name.clone() };
        steps.push(
            Step::new(
                format!("snapshot/take/{name}"),
                format!("take a snapshot of claim {name}"),
                step.to_value(),
                deadline,
            )
            .undone_by(format!("delete the snapshot of claim {name}")),
        );
    }
    for claim in &inputs.claims {
        let name = &claim.name;
        let step = AppStep::VerifySnapshot { claim: name.clone() };
        let title = format!("prove the snapshot of claim {name} restorable");
        steps.push(Step::new(format!("snapshot/verify/{name}"), title, step.to_value(), deadline));
        let step = AppStep::RetainSnapshot { claim: name.clone() };
        let title = format!("keep the snapshot of claim {name} from being deleted with its object");
        steps.push(
            Step::new(format!("snapshot/retain/{name}"), title, step.to_value(), deadlines::WRITE)
                .undone_by(format!("let the snapshot of claim {name} be deleted with its object")),
        );
        if restores {
            steps.extend(trial(name, deadline));
        }
    }
    if !inputs.restore_point.is_empty() {
        let title = format!("write restore point {}", inputs.restore_point);
        steps.push(
            Step::new("snapshot/record", title, AppStep::SaveRestorePoint.to_value(), deadlines::WRITE)
                .undone_by(format!("void restore point {}", inputs.restore_point)),
        );
    }
    let copying = steps.get(before..).unwrap_or_default();
    let stretch = copying.first().zip(copying.last()).map(|(first, last)| Stretch {
        title: if inputs.stopped { "stop and copy the app".into() } else { "copy the app".into() },
        from: first.id.clone(),
        to: last.id.clone(),
        deadline,
    });
    steps.extend(commit_and_release_steps(&inputs, true));
    steps.extend(verify_steps(&inputs));
    for claim in &inputs.claims {
        steps.push(unprotect(&claim.name).releasing(format!("protect/{}", claim.name)));
    }
    let title = "record the versions the app runs now";
    steps.push(Step::new("finish/record", title, AppStep::RecordCurrent.to_value(), deadlines::WRITE));
    let mut plan = Plan::new(WORKFLOW, &ask.operation, serde_json::to_value(&inputs).unwrap_or_default(), steps)?;
    if let Some(stretch) = stretch {
        plan = plan.bounded_by(stretch)?;
    }
    // Its rollback has three steps more a claim, one with the trial, and a few of its own; for each claim it has the copy's record, and
    // one undo more. An upgrade that could not be rolled back is refused now.
    let more = if restores { 2 } else { 4 };
    plan.leaves_room_for(more * inputs.claims.len() + 4)?;
    Ok(plan)
}

/// Restores a snapshot aside and gives the copy up again: what binds is proven restorable, whatever the driver says.
fn trial(claim: &str, deadline: SignedDuration) -> [Step; 2] {
    let step = AppStep::TryRestore { claim: claim.to_owned() };
    let title = format!("restore the snapshot of claim {claim} into a volume of its own, to see that it can be");
    let made = Step::new(format!("snapshot/restore/{claim}"), title, step.to_value(), deadline)
        .undone_by(format!("delete the trial copy of claim {claim}"))
        .holding(format!("trial copy of claim {claim}"));
    let step = AppStep::DropTrial { claim: claim.to_owned() };
    let title = format!("delete the trial copy of claim {claim} again");
    let dropped = Step::new(format!("snapshot/discard/{claim}"), title, step.to_value(), deadline);
    [made.clone(), dropped.releasing(made.id)]
}

/// Arms a claim's volume for the time of the operation.
pub(super) fn protect(claim: &str, volume: &str) -> Step {
    let step = AppStep::Protect { claim: claim.to_owned() };
    let title = format!("keep volume {volume} of claim {claim} from being deleted with it");
    Step::new(format!("protect/{claim}"), title, step.to_value(), deadlines::WRITE)
        .undone_by(format!("put the reclaim policy of volume {volume} back"))
        .holding(format!("volume {volume} of claim {claim} on Retain"))
}

/// Disarms it.
pub(super) fn unprotect(claim: &str) -> Step {
    let step = AppStep::Unprotect { claim: claim.to_owned() };
    let title = format!("put the reclaim policy of claim {claim}'s volume back");
    Step::new(format!("finish/unprotect/{claim}"), title, step.to_value(), deadlines::WRITE)
}
