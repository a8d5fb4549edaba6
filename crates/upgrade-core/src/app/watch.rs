//! By which workloads the health of an app is told.

use super::build::PlannedWorkload;
use super::changes::remove_workload;
use super::facts::AppFacts;
use crate::image;
use crate::ports::{ObjectRef, PinValue, Rendered, WorkloadFacts, WorkloadKind};

/// Whether a workload is waited for: somebody means it to run, and what it does can be judged. Of what nobody means to run there is
/// never a pod, what ends by itself is gone one day, and of other kinds nothing is known: waiting for those would never end.
pub(super) fn is_meant_to_run(kind: WorkloadKind, replicas: i32) -> bool {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::ReplicaSet => replicas > 0,
        WorkloadKind::DaemonSet | WorkloadKind::CronJob => true,
        WorkloadKind::Job | WorkloadKind::Pod | WorkloadKind::Other => false,
    }
}

/// Whether an object of that kind has a pod all the time: an app of nothing else is never seen to run.
pub(super) fn keeps_pods(object: &ObjectRef) -> bool {
    object.group == "apps" && matches!(object.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet" | "DaemonSet")
}

/// What is delivered, by whether it is waited for.
pub(super) struct Watch {
    /// It is.
    pub(super) watched: Vec<ObjectRef>,
    /// It is not, although it stays.
    pub(super) unwatched: Vec<ObjectRef>,
    /// Components whose images only the latter have.
    pub(super) unseen: Vec<String>,
}

/// Sorts what is delivered and stays. What is stopped right now counts as it was found before.
pub(super) fn watch(facts: &AppFacts, planned: &[PlannedWorkload], pins: &[PinValue], removed: &[String]) -> Watch {
    let as_found = |found: &WorkloadFacts| {
        let planned = planned.iter().find(|planned| planned.object == found.object);
        planned.map_or(found.replicas, |planned| planned.replicas)
    };
    let stays = |found: &&WorkloadFacts| found.delivered && !removed.contains(&remove_workload(&found.object));
    let (watched, unwatched): (Vec<_>, Vec<_>) =
        facts.workloads.iter().filter(stays).partition(|found| is_meant_to_run(found.kind, as_found(found)));
    let has = |workloads: &[&WorkloadFacts], pin: &PinValue| workloads.iter().any(|one| runs_image_of(one, pin));
    let unseen = pins.iter().filter(|pin| has(&unwatched, pin) && !has(&watched, pin));
    let mut unseen: Vec<String> = unseen.map(|pin| pin.pin.component.clone()).collect();
    unseen.dedup();
    let objects = |found: Vec<&WorkloadFacts>| found.into_iter().map(|found| found.object.clone()).collect();
    Watch { unseen, watched: objects(watched), unwatched: objects(unwatched) }
}

/// Whether the pin is about a container of the workload.
pub(super) fn runs_image_of(workload: &WorkloadFacts, pin: &PinValue) -> bool {
    workload.images.iter().any(|(container, reference)| image::belongs(pin, container, reference))
}

/// Whether the target brings a workload that keeps pods and is not there yet.
pub(super) fn is_any_coming(facts: &AppFacts) -> bool {
    facts.renderings.iter().any(|rendering| match &rendering.rendered {
        Rendered::Pieces(pieces) => pieces.iter().any(|piece| {
            keeps_pods(&piece.object) && !facts.workloads.iter().any(|found| found.object == piece.object)
        }),
        Rendered::Unknown(_) => false,
    })
}

/// What is to be told about the workloads that are not waited for.
pub(super) fn warnings(facts: &AppFacts, unwatched: &[ObjectRef], unseen: &[String]) -> Vec<String> {
    let of = |object: &&ObjectRef| facts.workloads.iter().find(|found| found.object == **object);
    let mut warnings: Vec<String> = unwatched
        .iter()
        .filter_map(|object| {
            let why = match of(&object)?.kind {
                WorkloadKind::Job | WorkloadKind::Pod => "it ends by itself",
                WorkloadKind::Other => "its kind is not known here",
                _ => "it is at 0 replicas, and is left so",
            };
            Some(format!("the health of {object} is not looked at: {why}"))
        })
        .collect();
    warnings.extend(unseen.iter().map(|component| {
        format!("nothing that is watched has an image of {component}: whether its version runs is not looked at")
    }));
    warnings
}
