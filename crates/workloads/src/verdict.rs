//! The verdict over an app's workloads, from what was read of them.
//!
//! An app is well when each of its workloads is, at its newest generation, as its spec asks, has at least one pod, has no pod
//! on its way out, and every pod is Ready, of the newest template and of the pinned images. It is broken when a pod *of that
//! template and those images* shows what does not pass by itself; a pod of an earlier version may crash as it likes, it is only
//! waited for. Everything else, and everything that could not be read, is waiting.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;
use upgrade_core::image;
use upgrade_core::ports::{ObjectRef, PinValue, WorkloadKind};

use crate::kstatus::{self, Status};
use crate::objects::{controller, ended, images, ready};
use crate::pods::containers;
use crate::scale;

/// Crashes after which a container is given up on: the first ones are often only a neighbour that is not up yet.
const CRASHES: i32 = 2;

/// How long a container may fail to be made: a registry has hiccups, and a Secret may arrive after the pod.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// A workload as it was read.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) workload: &'a ObjectRef,
    /// `None` when it does not exist.
    pub(crate) object: Option<(WorkloadKind, DynamicObject)>,
    /// Its pods.
    pub(crate) pods: Vec<&'a Pod>,
    /// All ReplicaSets of its namespace.
    pub(crate) replica_sets: &'a [ReplicaSet],
}

/// What was found, before it is weighed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) broken: Vec<String>,
    pub(crate) waiting: Vec<String>,
    pub(crate) well: Vec<String>,
    /// When a container last ended and was started again.
    pub(crate) restarted: Option<Timestamp>,
}

/// Everything that is to be said about the workloads.
pub(crate) fn findings(seen: &[Seen<'_>], pins: &[PinValue], now: Timestamp) -> Findings {
    let mut findings = Findings::default();
    if seen.is_empty() {
        findings.waiting.push("no workload is known".into());
    }
    let mut matched = vec![false; pins.len()];
    for one in seen {
        workload(one, pins, &mut matched, now, &mut findings);
        let ends = one.pods.iter().copied().flat_map(last_ends);
        findings.restarted = ends.chain(findings.restarted).max();
    }
    for (pin, _) in
        pins.iter().zip(matched).filter(|(pin, matched)| pin.pin.component.starts_with("image/") && !matched)
    {
        findings.waiting.push(format!("no container runs an image that {} is the version of", pin.pin.component));
    }
    let without_pods = |one: &Seen<'_>| one.object.as_ref().is_none_or(|(kind, _)| !keeps_pods(*kind));
    if !seen.is_empty() && seen.iter().all(without_pods) {
        findings.waiting.push("none of the workloads keeps a pod running, so nothing can be seen to run".into());
    }
    findings
}

fn keeps_pods(kind: WorkloadKind) -> bool {
    !matches!(kind, WorkloadKind::CronJob | WorkloadKind::Job)
}

fn workload(seen: &Seen<'_>, pins: &[PinValue], matched: &mut [bool], now: Timestamp, findings: &mut Findings) {
    let name = seen.workload;
    if scale::resource(name).is_none() {
        return findings.waiting.push(format!("{name} is of a kind that cannot be judged"));
    }
    let Some((kind, object)) = &seen.object else {
        return findings.waiting.push(format!("{name} does not exist"));
    };
    let Ok(mut whole) = serde_json::to_value(object) else {
        return findings.waiting.push(format!("{name} cannot be read"));
    };
    // Lists leave out what they are lists of; the rules go by kind.
    if let (Some(whole), Some((_, resource))) = (whole.as_object_mut(), scale::resource(name)) {
        whole.insert("apiVersion".into(), resource.api_version.into());
        whole.insert("kind".into(), resource.kind.into());
    }
    let template = scale::template(*kind, object).as_ref().map(images).unwrap_or_default();
    for problem in wrong_images(&template, pins, matched) {
        findings.waiting.push(format!("the template of {name} has {problem}"));
    }
    let verdict = kstatus::verdict(Some(&whole));
    match kind {
        WorkloadKind::CronJob => return findings.well.push(format!("{name} has the target's template")),
        WorkloadKind::Job if has_condition(&whole, "Failed") => {
            return findings.broken.push(format!("{name} has failed: {}", verdict.message));
        }
        WorkloadKind::Job if has_condition(&whole, "Complete") => {
            return findings.well.push(format!("{name} is complete"));
        }
        WorkloadKind::Job => return findings.waiting.push(format!("{name} is not complete: {}", verdict.message)),
        _ => {}
    }
    let generation = |path: &str| whole.pointer(path).and_then(Value::as_i64);
    let observed = generation("/status/observedGeneration");
    if *kind != WorkloadKind::Pod && (observed.is_none() || observed != generation("/metadata/generation")) {
        return findings.waiting.push(format!("the controller of {name} has not seen its newest generation"));
    }

    let alive: Vec<&Pod> = seen.pods.iter().copied().filter(|pod| !ended(pod)).collect();
    let newest: Vec<&Pod> =
        alive.iter().copied().filter(|pod| is_newest(pod, *kind, &whole, seen.replica_sets)).collect();
    let mut waiting = Vec::new();
    for pod in &alive {
        let of_target = newest.iter().any(|newest| newest.uid() == pod.uid());
        let late = is_late(pod, now);
        pod_findings(pod, of_target, late, pins, matched, &mut findings.broken, &mut waiting);
    }
    if alive.is_empty() {
        waiting.push(format!("{name} has no pods"));
    }
    match verdict.status {
        Status::Current => {}
        Status::Failed if *kind != WorkloadKind::Deployment || deadline_passed_for(&newest, &whole) => {
            findings.broken.push(format!("{name}: {}", verdict.message));
        }
        _ => waiting.push(format!("{name}: {}", verdict.message)),
    }
    if waiting.is_empty() {
        findings.well.push(format!("{name}: {} pods ready", alive.len()));
    }
    findings.waiting.extend(waiting);
}

fn pod_findings(
    pod: &Pod,
    newest: bool,
    late: bool,
    pins: &[PinValue],
    matched: &mut [bool],
    broken: &mut Vec<String>,
    waiting: &mut Vec<String>,
) {
    let name = format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if pod.metadata.deletion_timestamp.is_some() {
        return waiting.push(format!("{name} is still stopping"));
    }
    if !newest {
        return waiting.push(format!("{name} is of an earlier template"));
    }
    let run = pod.spec.as_ref().map(images).unwrap_or_default();
    let wrong = wrong_images(&run, pins, matched);
    if !wrong.is_empty() {
        return waiting.push(format!("{name} runs {}", wrong.join(", ")));
    }
    let hopeless: Vec<String> = containers(pod).filter_map(|container| hopeless(container, late)).collect();
    if !hopeless.is_empty() {
        return broken.push(format!("{name}: {}", hopeless.join("; ")));
    }
    if !ready(pod) {
        waiting.push(format!("{name} is not ready{}", why_not_ready(pod)));
    }
}

/// Containers of pinned images that are not of the pinned version. Marks the pins that are about any of them.
fn wrong_images(run: &[(String, String)], pins: &[PinValue], matched: &mut [bool]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (pin, matched) in pins.iter().zip(matched) {
        for (container, reference) in run.iter().filter(|(container, image)| image::belongs(pin, container, image)) {
            *matched = true;
            if !image::runs(pin, reference) {
                wrong.push(format!("image {reference} in container {container} instead of {}", pin.value));
            }
        }
    }
    wrong
}

/// Whether the containers of a pod have had their time to be made: since it was put on a node, its init containers were through,
/// or a container ended last, whichever is the latest.
fn is_late(pod: &Pod, now: Timestamp) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let reached = conditions
        .iter()
        .filter(|one| matches!(one.type_.as_str(), "PodScheduled" | "Initialized") && one.status == "True")
        .filter_map(|one| one.last_transition_time.as_ref());
    let since = pod.metadata.creation_timestamp.iter().chain(reached).map(|time| time.0).chain(last_ends(pod)).max();
    since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
}

/// When the containers of a pod ended that were started again.
fn last_ends(pod: &Pod) -> impl Iterator<Item = Timestamp> {
    containers(pod)
        .filter_map(|container| Some(container.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
}

/// What does not pass by itself, in the words of the kubelet. What may pass is given up on when it is `late`.
fn hopeless(container: &ContainerStatus, late: bool) -> Option<String> {
    let name = &container.name;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    match reason {
        "ErrImageNeverPull" | "InvalidImageName" => Some(format!("container {name}: {reason}: {message}")),
        "ImagePullBackOff" | "ErrImagePull" | "CreateContainerConfigError" | "CreateContainerError" if late => {
            Some(format!("container {name}: {reason}: {message}"))
        }
        "CrashLoopBackOff" if container.restart_count >= CRASHES => {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let last = last.map_or("unknown".into(), |last| {
                format!("{}, exit code {}", last.reason.as_deref().unwrap_or("ended"), last.exit_code)
            });
            Some(format!("container {name} crashed {} times ({last})", container.restart_count))
        }
        _ => None,
    }
}

fn why_not_ready(pod: &Pod) -> String {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        return format!(": not scheduled: {}", condition.message.as_deref().unwrap_or("no reason given"));
    }
    let waiting = containers(pod).find_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
        Some(format!(": container {} waits: {reason}", container.name))
    });
    waiting.unwrap_or_default()
}

/// Whether a pod is made from the workload's newest template. Where nothing tells templates apart, it is: images still have to match.
fn is_newest(pod: &Pod, kind: WorkloadKind, workload: &Value, replica_sets: &[ReplicaSet]) -> bool {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    match kind {
        WorkloadKind::Deployment => {
            let newest = workload.pointer("/metadata/annotations").and_then(|all| all.get(REVISION)?.as_str());
            let owner = controller(&pod.metadata).map(|owner| &owner.uid);
            let set = replica_sets.iter().find(|set| set.metadata.uid.as_ref() == owner);
            let its = set.and_then(|set| set.annotations().get(REVISION)).map(String::as_str);
            newest.is_none() || its == newest
        }
        WorkloadKind::StatefulSet => {
            let newest = workload.pointer("/status/updateRevision").and_then(Value::as_str);
            let its = pod.labels().get("controller-revision-hash").map(String::as_str);
            newest.is_none() || its == newest
        }
        _ => true,
    }
}

/// Whether a passed progress deadline is about the pods that are there now. The condition of an earlier rollout stays for a moment
/// under the new generation; then a pod is younger than it, or one of them is ready.
fn deadline_passed_for(newest: &[&Pod], deployment: &Value) -> bool {
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array);
    let progressing =
        conditions.into_iter().flatten().find(|condition| condition.get("type") == Some(&"Progressing".into()));
    let updated =
        progressing.and_then(|condition| condition.get("lastUpdateTime")?.as_str()?.parse::<Timestamp>().ok());
    let Some(updated) = updated else { return false };
    let before = |pod: &&Pod| pod.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 < updated);
    !newest.is_empty() && newest.iter().all(before) && !newest.iter().any(|pod| ready(pod))
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some(kind)
            && condition.get("status").and_then(Value::as_str) == Some("True")
    })
}

#[cfg(test)]
mod tests;
