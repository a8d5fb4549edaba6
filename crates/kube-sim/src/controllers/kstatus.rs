//! What an object's status means, by the rules that Flux and Helm share (kstatus), and waiting until it means "done".
//!
//! Written anew on purpose, beside `windlass_workloads::kstatus`: these stand-ins are what the operator is tested against, and a
//! mistake in a rule that both shared would be seen by no test. Besides, this crate stands alone.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use super::Clock;
use super::conditions;
use super::objects::{Cluster, ObjectId};

/// What a status means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// As its spec asks.
    Current,
    InProgress,
    /// It will not get there by waiting.
    Failed,
    Terminating,
    NotFound,
    /// It could not be read.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How long a pod may be unscheduled before that counts as a failure.
const SCHEDULE_WINDOW: i64 = 15;

/// The verdict over an object as read; `None` for one that does not exist.
pub(super) fn status(object: Option<&DynamicObject>, now: Timestamp) -> Status {
    let Some(object) = object else { return Status::NotFound };
    if object.metadata.deletion_timestamp.is_some() {
        return Status::Terminating;
    }
    let observed = number(object, "/status/observedGeneration");
    if observed.is_some() && object.metadata.generation.is_some() && observed != object.metadata.generation {
        return Status::InProgress;
    }
    if is_true(object, "Reconciling") {
        return Status::InProgress;
    }
    if is_true(object, "Stalled") {
        return Status::Failed;
    }
    let (api_version, kind) =
        object.types.as_ref().map_or(("", ""), |types| (types.api_version.as_str(), types.kind.as_str()));
    let done = match (api_version.split_once('/').map_or("", |(group, _)| group), kind) {
        ("apps", "Deployment") => return deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") => replica_set(object),
        ("batch", "Job") => return job(object),
        ("", "Pod") => return pod(object, now),
        ("", "PersistentVolumeClaim") => text(object, "/status/phase") == "Bound",
        ("apiextensions.k8s.io", "CustomResourceDefinition") => is_true(object, "Established"),
        _ => condition(object, "Ready").is_none() || is_true(object, "Ready"),
    };
    if done { Status::Current } else { Status::InProgress }
}

fn deployment(object: &DynamicObject) -> Status {
    if reason(object, "Progressing") == "ProgressDeadlineExceeded" {
        return Status::Failed;
    }
    // Without a deadline the controller does not report progress at all.
    let deadline = number(object, "/spec/progressDeadlineSeconds");
    let has_progressed = deadline.is_none_or(|deadline| deadline == i64::from(i32::MAX))
        || (is_true(object, "Progressing") && reason(object, "Progressing") == "NewReplicaSetAvailable");
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [all, updated, ready, available] =
        ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].map(|field| count(object, field));
    let has_pods =
        all == wanted && updated >= wanted && available >= updated && ready >= wanted && is_true(object, "Available");
    if has_pods && has_progressed { Status::Current } else { Status::InProgress }
}

fn stateful_set(object: &DynamicObject) -> bool {
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return true;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [all, ready, current, updated] =
        ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas"].map(|field| count(object, field));
    let has_pods = all == wanted && ready >= wanted;
    match number(object, "/spec/updateStrategy/rollingUpdate/partition") {
        Some(partition) => has_pods && updated >= wanted - partition,
        None => {
            let is_one = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
            has_pods && current >= wanted && is_one
        }
    }
}

fn daemon_set(object: &DynamicObject) -> bool {
    let counts = ["currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"];
    let wanted = number(object, "/status/desiredNumberScheduled");
    number(object, "/status/observedGeneration").is_some()
        && wanted.is_some_and(|wanted| counts.iter().all(|field| count(object, field) >= wanted))
}

fn replica_set(object: &DynamicObject) -> bool {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let counts = ["fullyLabeledReplicas", "availableReplicas", "readyReplicas"];
    !is_true(object, "ReplicaFailure")
        && counts.iter().all(|field| count(object, field) >= wanted)
        && count(object, "replicas") <= wanted
}

/// Flux and Helm wait for the end of a Job; a running one is not enough.
fn job(object: &DynamicObject) -> Status {
    if is_true(object, "Failed") {
        Status::Failed
    } else if is_true(object, "Complete") {
        Status::Current
    } else {
        Status::InProgress
    }
}

fn pod(object: &DynamicObject, now: Timestamp) -> Status {
    match text(object, "/status/phase") {
        "Succeeded" | "Failed" => Status::Current,
        "Running" if is_true(object, "Ready") => Status::Current,
        "Running" if is_crash_looping(object) => Status::Failed,
        "Pending" if reason(object, "PodScheduled") == "Unschedulable" => {
            let made = object.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0);
            if now.duration_since(made).as_secs() < SCHEDULE_WINDOW { Status::InProgress } else { Status::Failed }
        }
        _ => Status::InProgress,
    }
}

fn is_crash_looping(pod: &DynamicObject) -> bool {
    let statuses = pod.data.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses
        .into_iter()
        .flatten()
        .any(|status| status.pointer("/state/waiting/reason").and_then(Value::as_str) == Some("CrashLoopBackOff"))
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    conditions::find(object.data.get("status"), kind)
}

fn is_true(object: &DynamicObject, kind: &str) -> bool {
    conditions::is_true(object.data.get("status"), kind)
}

fn reason<'a>(object: &'a DynamicObject, kind: &str) -> &'a str {
    condition(object, kind).and_then(|condition| condition.get("reason")).and_then(Value::as_str).unwrap_or_default()
}

fn text<'a>(object: &'a DynamicObject, path: &str) -> &'a str {
    object.data.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &DynamicObject, path: &str) -> Option<i64> {
    object.data.pointer(path)?.as_i64()
}

fn count(object: &DynamicObject, field: &str) -> i64 {
    object.data.get("status").and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

/// A look at one object.
pub(super) async fn look(
    cluster: &Cluster,
    clock: &Clock,
    id: &ObjectId,
    version: &str,
) -> (Status, Option<DynamicObject>) {
    match cluster.get(id, version).await {
        Ok(object) => (status(object.as_ref(), clock()), object),
        Err(error) => {
            tracing::debug!(object = %id, %error, "looking at its status");
            (Status::Unknown, None)
        }
    }
}

/// How to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// Between two looks at everything.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Whether a workload that wants no pods, and has none, is done whatever else its status says.
    pub(super) zero_is_done: bool,
}

/// Waits until all objects are current, one has failed, or the time is over.
///
/// # Errors
/// What Flux says then; it names the objects.
pub(super) async fn wait(
    cluster: &Cluster,
    clock: &Clock,
    objects: &[(ObjectId, String)],
    how: Wait,
) -> Result<(), String> {
    let deadline = Instant::now() + how.timeout;
    loop {
        let mut open = Vec::new();
        for (id, version) in objects {
            let (mut status, object) = look(cluster, clock, id, version).await;
            if how.zero_is_done && status == Status::InProgress && object.as_ref().is_some_and(wants_no_pods) {
                status = Status::Current;
            }
            if status != Status::Current {
                open.push((id, status));
            }
        }
        let is_over = Instant::now() >= deadline;
        if open.is_empty() {
            return Ok(());
        }
        let failed = open.iter().any(|(_, status)| *status == Status::Failed);
        if failed || is_over {
            let named = open.iter().filter(|(_, status)| is_over || *status == Status::Failed);
            let list: Vec<String> = named.map(|(id, status)| format!("{id} status: '{status}'")).collect();
            let what = if is_over { "timeout waiting for" } else { "failed early due to stalled resources" };
            return Err(format!("{what}: [{}]", list.join(", ")));
        }
        tokio::time::sleep_until((Instant::now() + how.interval).min(deadline)).await;
    }
}

fn wants_no_pods(object: &DynamicObject) -> bool {
    let is_workload = object.types.as_ref().is_some_and(|types| {
        types.api_version == "apps/v1" && ["Deployment", "StatefulSet", "ReplicaSet"].contains(&types.kind.as_str())
    });
    let observed = number(object, "/status/observedGeneration");
    let is_seen = observed.is_none() || observed == object.metadata.generation;
    is_workload && is_seen && number(object, "/spec/replicas") == Some(0) && count(object, "replicas") == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(api_version: &str, kind: &str, spec: &Value, status_: &Value) -> Status {
        let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "a", "generation": 2 },
            "spec": spec, "status": status_ });
        status(Some(&serde_json::from_value(object).unwrap()), Timestamp::from_second(1_000).unwrap())
    }

    fn conditions(list: &[(&str, &str, &str)]) -> Value {
        list.iter().map(|(kind, status, reason)| json!({ "type": kind, "status": status, "reason": reason })).collect()
    }

    #[test]
    fn a_flux_object_is_judged_by_generation_and_conditions() {
        let release = |observed: i64, list: &[(&str, &str, &str)]| {
            let status = json!({ "observedGeneration": observed, "conditions": conditions(list) });
            verdict("helm.toolkit.fluxcd.io/v2", "HelmRelease", &json!({}), &status)
        };
        assert_eq!(release(1, &[("Ready", "True", "")]), Status::InProgress);
        assert_eq!(release(2, &[("Ready", "True", "")]), Status::Current);
        assert_eq!(release(2, &[("Ready", "False", "")]), Status::InProgress);
        assert_eq!(release(2, &[("Ready", "False", ""), ("Stalled", "True", "")]), Status::Failed);
        assert_eq!(release(2, &[("Reconciling", "True", ""), ("Stalled", "True", "")]), Status::InProgress);
        assert_eq!(verdict("example.com/v1", "Thing", &json!({}), &json!({})), Status::Current);
        assert_eq!(status(None, Timestamp::UNIX_EPOCH), Status::NotFound);
    }

    #[test]
    fn a_workload_needs_all_its_pods_of_the_newest_template() {
        let available = [("Available", "True", ""), ("Progressing", "True", "NewReplicaSetAvailable")];
        let counts = |n: i64| {
            json!({ "replicas": n, "updatedReplicas": n, "readyReplicas": n, "availableReplicas": n,
            "observedGeneration": 2, "conditions": conditions(&available) })
        };
        let spec = json!({ "replicas": 2, "progressDeadlineSeconds": 600 });
        assert_eq!(verdict("apps/v1", "Deployment", &spec, &counts(2)), Status::Current);
        assert_eq!(verdict("apps/v1", "Deployment", &spec, &counts(1)), Status::InProgress);
        let exceeded = json!({ "conditions": conditions(&[("Progressing", "False", "ProgressDeadlineExceeded")]) });
        assert_eq!(verdict("apps/v1", "Deployment", &spec, &exceeded), Status::Failed);
        let set = |current: &str| {
            json!({ "replicas": 1, "readyReplicas": 1, "currentReplicas": 1, "updatedReplicas": 1,
            "currentRevision": current, "updateRevision": "b" })
        };
        assert_eq!(verdict("apps/v1", "StatefulSet", &json!({ "replicas": 1 }), &set("b")), Status::Current);
        assert_eq!(verdict("apps/v1", "StatefulSet", &json!({ "replicas": 1 }), &set("a")), Status::InProgress);
    }

    #[test]
    fn jobs_claims_and_definitions_have_rules_of_their_own() {
        let job = |list: &[(&str, &str, &str)]| {
            verdict("batch/v1", "Job", &json!({}), &json!({ "conditions": conditions(list), "startTime": "x" }))
        };
        assert_eq!(job(&[]), Status::InProgress);
        assert_eq!(job(&[("Complete", "True", "")]), Status::Current);
        assert_eq!(job(&[("Failed", "True", "")]), Status::Failed);
        assert_eq!(
            verdict("v1", "PersistentVolumeClaim", &json!({}), &json!({ "phase": "Pending" })),
            Status::InProgress
        );
        assert_eq!(verdict("v1", "PersistentVolumeClaim", &json!({}), &json!({ "phase": "Bound" })), Status::Current);
        let crd = "apiextensions.k8s.io/v1";
        assert_eq!(verdict(crd, "CustomResourceDefinition", &json!({}), &json!({})), Status::InProgress);
        let unscheduled =
            json!({ "phase": "Pending", "conditions": conditions(&[("PodScheduled", "False", "Unschedulable")]) });
        assert_eq!(verdict("v1", "Pod", &json!({}), &unscheduled), Status::InProgress);
    }
}
