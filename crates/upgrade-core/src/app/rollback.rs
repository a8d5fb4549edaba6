//! The plan of a rollback: data and Git back together, by the order in which no crash can lose a copy.
//!
//! Restore aside while the app still runs, stop, free the restored volumes, reserve each for its claim, and only then delete
//! and make the claims anew; Git goes back after the data is back.

use jiff::Timestamp;

use super::build::{
    AppInputs, chart_sources, commit_and_release_steps, deadlines, derived_name, heads, roots, shared, stop_steps,
    suspend_steps, verify_steps,
};
use super::changes::{Change, drop_claim, remove_workload};
use super::facts::AppFacts;
use super::inherit::{claims_as_found, planned_workloads};
use super::upgrade::{protect, unprotect};
use super::watch::{Watch, watch};
use super::{AppStep, RollbackAsk, readers};
use crate::engine::{Plan, PlanError, Step};
use crate::ports::{ObjectRef, PinValue, RestorePointRecord};

/// Name of the workflow in plans.
pub const WORKFLOW: &str = "app-rollback";

/// The name of the request that rolls an upgrade back by itself: the same each time it is asked for, and never that of a request for
/// an earlier upgrade of the same name.
pub fn request_name(upgrade: &str, operation: &str) -> String {
    derived_name(upgrade, operation, "rollback")
}

/// The versions an upgrade started from, as a restore point without data: for rollbacks that keep the data of an app whose
/// volumes were not snapshotted.
pub fn versions_before(upgrade: &AppInputs, operation: &str, taken_at: Timestamp) -> RestorePointRecord {
    RestorePointRecord {
        name: String::new(),
        app: upgrade.app.clone(),
        operation: operation.to_owned(),
        taken_at,
        stopped: false,
        pins: upgrade.from.clone(),
        commits: upgrade.heads.clone(),
        volumes: Vec::new(),
        void: String::new(),
    }
}

/// The resolved inputs of a rollback. Preflight must have passed on the same facts.
pub fn inputs(ask: &RollbackAsk, facts: &AppFacts) -> AppInputs {
    let (from, to) = targets(ask, facts);
    let roots = roots(&facts.delivery, &ask.take_over);
    let mut claims: Vec<String> = facts.claims.iter().map(|claim| claim.name.clone()).collect();
    claims.extend(ask.restore_point.volumes.iter().map(|volume| volume.claim.clone()));
    let point = &ask.restore_point;
    let mut accepted = left_behind(ask, facts);
    let is_removed = |object: &ObjectRef| accepted.contains(&remove_workload(object));
    let mut workloads = planned_workloads(facts, &claims, &ask.inherited);
    for workload in &mut workloads {
        workload.removed = is_removed(&workload.object);
    }
    accepted.extend(ask.app.versions.accepted_claim_changes.iter().cloned());
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
        claims: claims_as_found(facts, &ask.inherited),
        stopped: true,
        heads: heads(facts),
        restore_point: point.name.clone(),
        restore: ask.restore_data.then(|| point.clone()),
        health: ask.app.health.clone(),
        auto_rollback: ask.app.auto_rollback,
        take_over: ask.take_over.clone(),
        reason: ask.reason.clone(),
        accepted,
        unacknowledged: ask.restore_data && !ask.is_acknowledged(),
    }
}

/// What a person has to accept by name before a rollback begins: it would leave something on the newer version, or newer data below the
/// older one, or put back what was put back before.
pub fn changes(ask: &RollbackAsk, facts: &AppFacts) -> Vec<Change> {
    let mut found = Vec::new();
    let point = &ask.restore_point;
    for then in point.pins.iter().filter(|then| !ask.app.pins.contains(&then.pin)) {
        let component = &then.pin.component;
        let what = format!(
            "the app does not name the pin of {component} in {} any more: it would not go back to {}",
            then.pin.path, then.value
        );
        found.push(Change { name: format!("leave-pin/{component}"), code: "pin-not-named", what });
    }
    let own = ask.before.iter().flat_map(|before| &before.own);
    for object in own.filter(|object| !ask.app.own.contains(object)) {
        let what = format!("the app does not name {object} any more, which delivered it: it would not be held");
        found.push(Change {
            name: format!("leave-object/{}/{}", object.kind, object.name),
            code: "object-not-named",
            what,
        });
    }
    if !ask.restore_data {
        return found;
    }
    let goes = left_behind(ask, facts);
    for claim in facts.claims.iter().filter(|claim| !claim.uid.is_empty()) {
        let name = &claim.name;
        match point.volumes.iter().find(|volume| volume.claim == *name) {
            None if goes.contains(&drop_claim(name)) => {}
            None => {
                let what = format!(
                    "restore point {} has no copy of claim {name}: the older version would start on it as it is",
                    point.name
                );
                found.push(Change { name: format!("keep-claim/{name}"), code: "claim-not-in-restore-point", what });
            }
            // Each restore makes the claim anew: what was acknowledged, or accepted, before one does not count after it.
            Some(volume) if volume.claim_uid != claim.uid => {
                let uid: String = claim.uid.chars().take(8).collect();
                let what = format!(
                    "claim {name} was made anew after it was copied, by a restore or by hand: what was written to the new one would be replaced"
                );
                found.push(Change { name: format!("restore-again/{name}/{uid}"), code: "claim-made-anew", what });
            }
            Some(_) => {}
        }
    }
    found
}

/// What came with the version that is left, by the names under which a person would accept that it goes: such a workload must not
/// start on the restored data, and neither it nor a claim that nothing else mounts is there for long.
fn left_behind(ask: &RollbackAsk, facts: &AppFacts) -> Vec<String> {
    let Some(before) = &ask.before else { return Vec::new() };
    let was_there = |object: &ObjectRef| {
        before.watched.contains(object)
            || before.unwatched.contains(object)
            || before.workload(object).is_some()
            || before.accepted.contains(&remove_workload(object))
    };
    let workloads = facts.workloads.iter().filter(|found| found.delivered && !was_there(&found.object));
    let mut goes: Vec<String> = workloads.map(|found| remove_workload(&found.object)).collect();
    let had = |claim: &str| {
        before.claim(claim).is_some() || ask.restore_point.volumes.iter().any(|volume| volume.claim == claim)
    };
    let stays = |claim: &str| {
        let mut mounting = facts.workloads.iter().filter(|found| found.claims.iter().any(|one| one == claim));
        mounting.any(|found| !goes.contains(&remove_workload(&found.object)))
    };
    let claims = facts.claims.iter().filter(|found| !had(&found.name) && !stays(&found.name));
    let claims: Vec<String> = claims.map(|found| drop_claim(&found.name)).collect();
    goes.extend(claims);
    goes
}

/// Every pin of the restore point with what it carries now, and with what it carried then.
pub fn targets(ask: &RollbackAsk, facts: &AppFacts) -> (Vec<PinValue>, Vec<PinValue>) {
    let found = facts.repositories.iter().flat_map(|repository| &repository.pins);
    found
        .map(|found| {
            let then = ask.restore_point.pins.iter().find(|then| then.pin == found.pin);
            let value = then.map_or(&found.value, |then| &then.value);
            (
                PinValue { pin: found.pin.clone(), value: found.value.clone() },
                PinValue { pin: found.pin.clone(), value: value.clone() },
            )
        })
        .unzip()
}

fn message(ask: &RollbackAsk, from: &[PinValue], to: &[PinValue]) -> String {
    let mut changes: Vec<String> = from
        .iter()
        .zip(to)
        .filter(|(from, to)| from.value != to.value)
        .map(|(from, to)| format!("{} {} -> {}", to.pin.component, from.value, to.value))
        .collect();
    changes.dedup();
    let mut text = format!("Roll back {}: {}", ask.app.app.name, changes.join(", "));
    if !ask.reason.is_empty() {
        text.push_str("\n\n");
        text.push_str(&ask.reason);
    }
    text
}

/// The plan. Errors: [`PlanError::TooLarge`] when the app has more claims than one plan can hold.
pub fn plan(ask: &RollbackAsk, facts: &AppFacts) -> Result<Plan, PlanError> {
    let inputs = inputs(ask, facts);
    let deadline = ask.app.snapshots.deadline;
    let mut steps = suspend_steps(&inputs);
    for claim in &inputs.claims {
        steps.push(protect(&claim.name, &claim.volume));
    }
    let volumes = inputs.restore.as_ref().map(|point| point.volumes.as_slice()).unwrap_or_default();
    for volume in volumes {
        let claim = &volume.claim;
        let step = AppStep::RestoreAside { claim: claim.clone() };
        let title = format!("restore snapshot {} of claim {claim} into a volume of its own", volume.snapshot);
        steps.push(
            Step::new(format!("restore/aside/{claim}"), title, step.to_value(), deadline)
                .undone_by(format!("delete the restored copy of claim {claim}")),
        );
        let step = AppStep::RetainAside { claim: claim.clone() };
        let title = format!("keep the restored volume of claim {claim} from being deleted with its helper claim");
        let retain = Step::new(format!("restore/retain/{claim}"), title, step.to_value(), deadlines::WRITE)
            .undone_by(format!("let the restored volume of claim {claim} be deleted with its helper claim"));
        // The hold of a claim that is there is that of its `protect`; one that is gone has none.
        let is_there = inputs.claim(claim).is_some();
        steps.push(if is_there {
            retain
        } else {
            retain.holding(format!("restored volume of claim {claim} on Retain"))
        });
    }
    steps.extend(stop_steps(&inputs, deadline));
    for volume in volumes {
        let claim = &volume.claim;
        let step = AppStep::DropHelper { claim: claim.clone() };
        let title = format!("free the restored volume of claim {claim}");
        steps.push(
            Step::new(format!("restore/free/{claim}"), title, step.to_value(), deadline)
                .undone_by(format!("give up the restored volume of claim {claim}")),
        );
    }
    for volume in volumes {
        let claim = &volume.claim;
        let step = AppStep::Reserve { claim: claim.clone() };
        let title = format!("reserve the restored volume for claim {claim}");
        steps.push(Step::new(format!("swap/reserve/{claim}"), title, step.to_value(), deadlines::WRITE));
    }
    let mut irrevocable = false;
    for volume in volumes {
        let claim = &volume.claim;
        if inputs.claim(claim).is_some() {
            let step = AppStep::DropClaim { claim: claim.clone() };
            let title = format!("delete claim {claim}; its volume stays");
            steps.push(once(
                &mut irrevocable,
                Step::new(format!("swap/delete/{claim}"), title, step.to_value(), deadline),
            ));
        }
        let step = AppStep::Recreate { claim: claim.clone() };
        let title = format!("create claim {claim} on the restored volume");
        steps.push(once(&mut irrevocable, Step::new(format!("swap/create/{claim}"), title, step.to_value(), deadline)));
    }
    if !volumes.is_empty() {
        let title = "wait until every claim is bound to its restored volume";
        steps.push(Step::new("swap/bound", title, AppStep::AwaitClaims.to_value(), deadline));
    }
    steps.extend(commit_and_release_steps(&inputs, !irrevocable));
    steps.extend(verify_steps(&inputs));
    if ask.block && inputs.changes().next().is_some() {
        let title = "block the version that was left behind";
        steps.push(Step::new("finish/block", title, AppStep::Block.to_value(), deadlines::WRITE));
    }
    if !volumes.is_empty() {
        let title = format!("note the replaced volumes on restore point {}", inputs.restore_point);
        steps.push(Step::new("finish/replaced", title, AppStep::NoteReplaced.to_value(), deadlines::WRITE));
    }
    for claim in &inputs.claims {
        steps.push(unprotect(&claim.name).releasing(format!("protect/{}", claim.name)));
    }
    for claim in volumes.iter().map(|volume| &volume.claim).filter(|claim| inputs.claim(claim).is_none()) {
        steps.push(unprotect(claim).releasing(format!("restore/retain/{claim}")));
    }
    let title = "record the versions the app runs now";
    steps.push(Step::new("finish/record", title, AppStep::RecordCurrent.to_value(), deadlines::WRITE));
    Plan::new(WORKFLOW, &ask.operation, serde_json::to_value(&inputs).unwrap_or_default(), steps)
}

/// Makes the first step it is asked about the point of no return.
fn once(done: &mut bool, step: Step) -> Step {
    if *done {
        return step;
    }
    *done = true;
    step.irrevocable()
}
