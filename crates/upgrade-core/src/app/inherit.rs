//! What operations of one app leave to those after them: what was found before all of them, and what a success has put right.

use std::collections::BTreeSet;

use serde_json::Value;

use super::build::id;
use super::facts::AppFacts;
use super::{AppInputs, PlannedWorkload};
use crate::engine::{Journal, Plan, StepState};
use crate::ports::{ClaimFacts, ObjectRef, ReclaimPolicy, ReplacedVolume, WorkloadFacts};

/// One operation, for questions about it and others of its app.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// Its plan.
    pub plan: &'a Plan,
    /// What was done of it.
    pub journal: &'a Journal,
    /// The inputs of the plan.
    pub inputs: &'a AppInputs,
}

impl Operation<'_> {
    fn has_done(&self, step: &str) -> bool {
        self.journal.entry(step).is_some_and(|entry| entry.state == StepState::Done)
    }

    fn has_undone(&self, step: &str) -> bool {
        self.journal.entry(step).is_some_and(|entry| entry.state == StepState::Undone)
    }

    fn seen(&self, step: &str, field: &str) -> Option<String> {
        self.journal.evidence(step).get(field).and_then(Value::as_str).map(str::to_owned)
    }

    /// The volume that it restored for a claim: name and UID.
    fn restored(&self, claim: &str) -> Option<(String, String)> {
        let step = format!("restore/aside/{claim}");
        self.seen(&step, "volume").zip(self.seen(&step, "volumeUid"))
    }

    /// Whether it has put back itself what it found of a claim's volume: what is there now is newer.
    fn has_disarmed(&self, claim: &str) -> bool {
        let unprotected = format!("finish/unprotect/{claim}");
        let stays = self.seen(&unprotected, "stays").is_some();
        (self.has_done(&unprotected) && !stays) || self.has_undone(&format!("protect/{claim}"))
    }

    /// The same of a workload.
    fn has_put_back(&self, workload: &ObjectRef) -> bool {
        self.has_done(&id("release/start", workload)) || self.has_undone(&id("stop", workload))
    }

    /// What it found and has not put back itself, for one that comes after it: with the volumes that it restored beside those that were there, because the claims
    /// may be on either, and the policy as found belongs to both.
    pub fn as_left(&self) -> AppInputs {
        let mut inputs = self.inputs.clone();
        inputs.workloads.retain(|found| !self.has_put_back(&found.object));
        inputs.claims.retain(|found| !self.has_disarmed(&found.name));
        let restored = self.inputs.restore.iter().flat_map(|point| &point.volumes);
        for record in restored.filter(|record| !self.has_disarmed(&record.claim)) {
            let Some((volume, volume_uid)) = self.restored(&record.claim) else { continue };
            let found = self.inputs.claim(&record.claim);
            let made_with = self.journal.evidence(&format!("restore/aside/{}", record.claim)).get("policy").cloned();
            let made_with = made_with.and_then(|policy| serde_json::from_value(policy).ok());
            let policy = found.map(|found| found.reclaim_policy).or(record.reclaim_policy).or(made_with);
            inputs.claims.push(ClaimFacts {
                namespace: self.inputs.app.namespace.clone(),
                name: record.claim.clone(),
                uid: String::new(),
                manifest: record.manifest.clone(),
                volume,
                volume_uid,
                reclaim_policy: policy.unwrap_or(ReclaimPolicy::Retain),
                driver: record.driver.clone(),
                handle: String::new(),
                capacity: record.size,
                snapshot_class: None,
                found_by: "restored".into(),
                refusals: Vec::new(),
            });
        }
        inputs
    }

    /// The volume that it put out of use for a claim without having come to note it.
    fn replaced(&self, claim: &str) -> Option<ReplacedVolume> {
        let found = self.inputs.claim(claim)?;
        (self.has_done(&format!("swap/delete/{claim}")) && !self.has_done("finish/replaced")).then(|| ReplacedVolume {
            volume: found.volume.clone(),
            uid: found.volume_uid.clone(),
            handle: found.handle.clone(),
            claim: found.name.clone(),
            claim_uid: found.uid.clone(),
        })
    }

    fn has_volume(&self, uid: &str) -> bool {
        self.inputs.claims.iter().any(|claim| claim.volume_uid == uid)
    }
}

/// Every workload that mounts one of the claims and can be stopped. What an inherited operation found of it is what has to be
/// put back: it may be stopped at this moment.
pub(super) fn planned_workloads(facts: &AppFacts, claims: &[String], inherited: &[AppInputs]) -> Vec<PlannedWorkload> {
    let stops = |workload: &&WorkloadFacts| {
        workload.kind.can_stop() && workload.claims.iter().any(|claim| claims.contains(claim))
    };
    facts
        .workloads
        .iter()
        .filter(stops)
        .map(|workload| {
            let earlier = inherited.iter().flat_map(|inputs| &inputs.workloads).find(|found| found.uid == workload.uid);
            let stopped = workload.replicas == 0;
            PlannedWorkload {
                object: workload.object.clone(),
                uid: workload.uid.clone(),
                kind: workload.kind,
                replicas: earlier.filter(|_| stopped).map_or(workload.replicas, |found| found.replicas),
                suspend: earlier
                    .filter(|_| workload.suspend == Some(true))
                    .map_or(workload.suspend, |found| found.suspend),
                images: workload.images.clone(),
                delivered: workload.delivered,
                removed: false,
            }
        })
        .collect()
}

/// The claims as found, with the reclaim policies that inherited operations found before they armed the volumes.
pub(super) fn claims_as_found(facts: &AppFacts, inherited: &[AppInputs]) -> Vec<ClaimFacts> {
    let mut claims = facts.claims.clone();
    // A claim that is gone has nothing to be protected; a rollback makes it anew from its restore point.
    claims.retain(|claim| !claim.uid.is_empty());
    // One that is not on Retain is not armed any more: somebody has written that since.
    for claim in claims.iter_mut().filter(|claim| claim.reclaim_policy == ReclaimPolicy::Retain) {
        let earlier = inherited.iter().flat_map(|inputs| &inputs.claims);
        if let Some(found) = earlier.into_iter().find(|found| found.volume_uid == claim.volume_uid) {
            claim.reclaim_policy = found.reclaim_policy;
        }
    }
    claims
}

/// What has become of something that an operation had left, now that a later one of its app has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The success has put it right.
    Yes,
    /// It is a volume that the earlier operation replaced: once that is noted on its restore point, it is put right.
    ByNoting(ReplacedVolume),
    /// Nobody has put it right: it stays listed.
    No,
}

/// Judges what `earlier` had left with one of its steps, now that `success` has taken it over and succeeded.
pub fn settled(success: &Operation<'_>, earlier: &Operation<'_>, step: &str) -> Settled {
    let by = |holds: bool| if holds { Settled::Yes } else { Settled::No };
    // The way back that it has kept is the restore point's by now, and goes with that.
    if earlier.journal.entry(step).is_some_and(|entry| entry.state == StepState::Kept) {
        return Settled::Yes;
    }
    let parts: Vec<&str> = step.splitn(3, '/').collect();
    match parts.as_slice() {
        // The same object was held, stopped or marked by the success, and let go at its end.
        ["suspend" | "stop", ..] | ["release", "freeze", _] => by(success.plan.step(step).is_some()),
        ["protect", claim] => match (earlier.inputs.claim(claim), earlier.replaced(claim)) {
            (Some(found), _) if success.has_volume(&found.volume_uid) => Settled::Yes,
            (_, Some(replaced)) => Settled::ByNoting(replaced),
            _ => by(earlier.has_done("finish/replaced")),
        },
        ["restore", "retain", claim] if !is_going_back(earlier, step) => {
            by(earlier.restored(claim).is_none_or(|(_, uid)| success.has_volume(&uid)))
        }
        // Its own copies are nobody else's to delete.
        [verb, ..] if OF_ITS_OWN.contains(verb) => Settled::No,
        // What was committed and what was written on held objects: the success shows its own version.
        _ => Settled::Yes,
    }
}

/// Steps whose undo touches only what the operation made itself, under its own names.
const OF_ITS_OWN: [&str; 2] = ["snapshot", "restore"];

fn is_going_back(operation: &Operation<'_>, step: &str) -> bool {
    let entry = operation.journal.entry(step);
    entry.is_some_and(|entry| matches!(entry.state, StepState::Undoing | StepState::Leftover))
}

/// Whether an operation that has ended may go on undoing what it had to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healing {
    /// Nobody else is at work.
    Now,
    /// Another operation of the app is at work on the same things.
    Later,
    /// Another one has taken them over and has passed its point of no return: they are not what they were.
    Never,
}

/// Judges it by every other operation of the app that has a plan, each with whether its request is over.
pub fn healing<'a>(ended: &Operation<'_>, others: impl IntoIterator<Item = (Operation<'a>, bool)>) -> Healing {
    let touched: BTreeSet<&str> = ended
        .plan
        .steps
        .iter()
        .filter(|step| is_going_back(ended, &step.id))
        .filter_map(|step| step.id.split('/').next())
        .collect();
    let shared = touched.iter().any(|verb| !OF_ITS_OWN.contains(verb));
    let mut answer = Healing::Now;
    for (other, over) in others {
        let took_over = other.inputs.take_over.contains(&ended.plan.operation);
        if shared && took_over && other.journal.irrevocable(other.plan) {
            return Healing::Never;
        }
        if !over {
            answer = Healing::Later;
        }
    }
    answer
}
