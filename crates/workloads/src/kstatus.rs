//! The verdict over one object from its own status, by the rules that Flux and Helm use (kstatus).
//!
//! In this order: an object that is being deleted is [`Status::Terminating`]; one whose controller has not seen its newest
//! generation, or that is `Reconciling`, is [`Status::InProgress`]; one that is `Stalled` is [`Status::Failed`]; then the rule of its
//! kind; then its `Ready` condition; and an object that says nothing is [`Status::Current`].
//!
//! It is the field's rule with its gaps, which callers must know: a running Job and a Pod that ended in failure are
//! Current, a StatefulSet or DaemonSet is never Failed, an object that no controller has looked at yet is Current, and a
//! StatefulSet with `OnDelete` is always Current. One thing differs: a Pod that cannot be scheduled stays InProgress however
//! long it takes, because a pure function has no clock.

use std::fmt;

use serde_json::Value;

/// What an object's status means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is as its spec asks.
    Current,
    /// It is on its way there.
    InProgress,
    /// It will not get there by waiting.
    Failed,
    /// It is being deleted.
    Terminating,
    /// It does not exist.
    NotFound,
    /// It cannot be told.
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A status and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The status.
    pub status: Status,
    /// For people.
    pub message: String,
}

/// The verdict over an object as the API server returned it; `None` for one that does not exist.
#[must_use]
pub fn verdict(object: Option<&Value>) -> Verdict {
    let Some(object) = object else { return new(Status::NotFound, "it does not exist") };
    if !object.is_object() {
        return new(Status::Unknown, "it is not an object");
    }
    if object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return new(Status::Terminating, "it is being deleted");
    }
    if let (Some(generation), Some(observed)) =
        (number(object, "/metadata/generation"), number(object, "/status/observedGeneration"))
        && generation != observed
    {
        let message = format!("its controller has seen generation {observed}, the newest is {generation}");
        return new(Status::InProgress, message);
    }
    if let Some(condition) = condition(object, "Reconciling").filter(|condition| condition.is("True")) {
        return new(Status::InProgress, condition.text());
    }
    if let Some(condition) = condition(object, "Stalled").filter(|condition| condition.is("True")) {
        return new(Status::Failed, condition.text());
    }
    let group = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let group = group.split_once('/').map_or("", |(group, _)| group);
    match (group, object.get("kind").and_then(Value::as_str).unwrap_or_default()) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        _ => by_ready(object),
    }
}

fn new(status: Status, message: impl Into<String>) -> Verdict {
    Verdict { status, message: message.into() }
}

/// The first of the checks that does not hold, as a reason to wait.
fn first_missing(checks: &[(bool, String)]) -> Option<Verdict> {
    checks.iter().find(|(missing, _)| *missing).map(|(_, message)| new(Status::InProgress, message.clone()))
}

fn by_ready(object: &Value) -> Verdict {
    match condition(object, "Ready") {
        Some(condition) if condition.is("True") => new(Status::Current, condition.text()),
        Some(condition) => new(Status::InProgress, condition.text()),
        None => new(Status::Current, "it reports no conditions"),
    }
}

fn deployment(object: &Value) -> Verdict {
    // Without a deadline the controller does not report progress at all.
    let deadline = number(object, "/spec/progressDeadlineSeconds");
    let mut progressed = deadline.is_none_or(|deadline| deadline == i64::from(i32::MAX));
    if let Some(progressing) = condition(object, "Progressing") {
        if progressing.reason == "ProgressDeadlineExceeded" {
            return new(Status::Failed, progressing.text());
        }
        progressed |= progressing.is("True") && progressing.reason == "NewReplicaSetAvailable";
    }
    let available_condition = condition(object, "Available").is_some_and(|condition| condition.is("True"));
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [all, updated, ready, available] =
        ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].map(|field| status(object, field));
    first_missing(&[
        (wanted > all, format!("{all} of {wanted} pods exist")),
        (wanted > updated, format!("{updated} of {wanted} pods are of the newest template")),
        (all > wanted, format!("{} pods are left to be removed", all - wanted)),
        (updated > available, format!("{available} of {updated} pods of the newest template are available")),
        (wanted > ready, format!("{ready} of {wanted} pods are ready")),
        (!progressed, "its newest ReplicaSet is not available".into()),
        (!available_condition, "it is not available".into()),
    ])
    .unwrap_or_else(|| new(Status::Current, format!("{ready} of {wanted} pods are ready")))
}

fn stateful_set(object: &Value) -> Verdict {
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return new(Status::Current, "it is updated by hand (OnDelete)");
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [all, ready, current, updated] =
        ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas"].map(|field| status(object, field));
    let seen = [
        (wanted > all, format!("{all} of {wanted} pods exist")),
        (wanted > ready, format!("{ready} of {wanted} pods are ready")),
        (all > wanted, format!("{} pods are left to be removed", all - wanted)),
    ];
    if let Some(verdict) = first_missing(&seen) {
        return verdict;
    }
    if let Some(partition) = number(object, "/spec/updateStrategy/rollingUpdate/partition") {
        let due = wanted - partition;
        return first_missing(&[(updated < due, format!("{updated} of {due} pods are updated"))])
            .unwrap_or_else(|| new(Status::Current, format!("{ready} of {wanted} pods are ready")));
    }
    let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let revisions = (text("/status/currentRevision"), text("/status/updateRevision"));
    first_missing(&[
        (wanted > current, format!("{current} of {wanted} pods are current")),
        (revisions.0 != revisions.1, format!("it moves from revision {} to {}", revisions.0, revisions.1)),
    ])
    .unwrap_or_else(|| new(Status::Current, format!("{ready} of {wanted} pods are ready")))
}

fn daemon_set(object: &Value) -> Verdict {
    if number(object, "/metadata/generation").is_none() || number(object, "/status/observedGeneration").is_none() {
        return new(Status::InProgress, "its controller has not looked at it yet");
    }
    let Some(wanted) = number(object, "/status/desiredNumberScheduled") else {
        return new(Status::InProgress, "its controller has not counted nodes yet");
    };
    let [current, updated, available, ready] =
        ["currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"]
            .map(|field| status(object, field));
    first_missing(&[
        (wanted > current, format!("{current} of {wanted} pods exist")),
        (wanted > updated, format!("{updated} of {wanted} pods are of the newest template")),
        (wanted > available, format!("{available} of {wanted} pods are available")),
        (wanted > ready, format!("{ready} of {wanted} pods are ready")),
    ])
    .unwrap_or_else(|| new(Status::Current, format!("{ready} of {wanted} pods are ready")))
}

fn replica_set(object: &Value) -> Verdict {
    if let Some(condition) = condition(object, "ReplicaFailure").filter(|condition| condition.is("True")) {
        return new(Status::InProgress, condition.text());
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [all, labelled, available, ready] =
        ["replicas", "fullyLabeledReplicas", "availableReplicas", "readyReplicas"].map(|field| status(object, field));
    first_missing(&[
        (wanted > labelled, format!("{labelled} of {wanted} pods have all labels")),
        (wanted > available, format!("{available} of {wanted} pods are available")),
        (wanted > ready, format!("{ready} of {wanted} pods are ready")),
        (all > wanted, format!("{} pods are left to be removed", all - wanted)),
    ])
    .unwrap_or_else(|| new(Status::Current, format!("{ready} of {wanted} pods are ready")))
}

fn job(object: &Value) -> Verdict {
    for (kind, verdict) in [("Complete", Status::Current), ("Failed", Status::Failed), ("Suspended", Status::Current)] {
        if let Some(condition) = condition(object, kind).filter(|condition| condition.is("True")) {
            return new(verdict, condition.text());
        }
    }
    if object.pointer("/status/startTime").is_none_or(Value::is_null) {
        return new(Status::InProgress, "it has not started");
    }
    let [active, failed] = ["active", "failed"].map(|field| status(object, field));
    new(Status::Current, format!("it runs: {active} pods are active, {failed} have failed"))
}

fn pod(object: &Value) -> Verdict {
    let ready = condition(object, "Ready").is_some_and(|condition| condition.is("True"));
    match object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default() {
        "Succeeded" => new(Status::Current, "it has ended"),
        "Failed" => new(Status::Current, "it has ended in failure"),
        "Running" if ready => new(Status::Current, "it is ready"),
        "Running" => {
            let looping = crash_looping(object);
            if looping.is_empty() {
                new(Status::InProgress, "it runs but is not ready")
            } else {
                new(Status::Failed, format!("containers crash again and again: {}", looping.join(", ")))
            }
        }
        "Pending" => match condition(object, "PodScheduled").filter(|condition| condition.is("False")) {
            Some(condition) => new(Status::InProgress, condition.text()),
            None => new(Status::InProgress, "it is pending"),
        },
        phase => new(Status::Unknown, format!("its phase is `{phase}`")),
    }
}

fn crash_looping(pod: &Value) -> Vec<&str> {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses
        .into_iter()
        .flatten()
        .filter(|status| status.pointer("/state/waiting/reason").and_then(Value::as_str) == Some("CrashLoopBackOff"))
        .filter_map(|status| status.get("name")?.as_str())
        .collect()
}

fn claim(object: &Value) -> Verdict {
    match object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending") {
        "Bound" => new(Status::Current, "it is bound"),
        phase => new(Status::InProgress, format!("it is {phase}")),
    }
}

struct Condition<'a> {
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl Condition<'_> {
    fn is(&self, status: &str) -> bool {
        self.status == status
    }

    fn text(&self) -> String {
        match (self.reason, self.message) {
            ("", message) => message.into(),
            (reason, "") => reason.into(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |key| found.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
}

fn number(object: &Value, path: &str) -> Option<i64> {
    object.pointer(path)?.as_i64()
}

fn status(object: &Value, field: &str) -> i64 {
    object.get("status").and_then(|status| status.get(field)).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
