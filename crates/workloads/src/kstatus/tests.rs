//! Tables of statuses as controllers write them.
#![allow(clippy::needless_pass_by_value, reason = "values are made where they are passed")]

use serde_json::{Value, json};

use super::Status::{Current, Failed, InProgress, NotFound, Terminating, Unknown};
use super::*;

fn object(api: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({ "apiVersion": api, "kind": kind, "metadata": { "name": "x", "generation": 2 }, "spec": spec, "status": status })
}

fn status_of(object: &Value) -> Status {
    verdict(Some(object)).status
}

fn table(api: &str, kind: &str, rows: &[(Value, Value, Status)]) {
    for (spec, status, expected) in rows {
        let seen = verdict(Some(&object(api, kind, spec.clone(), status.clone())));
        assert_eq!(seen.status, *expected, "{kind} {spec} {status}: {}", seen.message);
    }
}

#[test]
fn what_holds_for_every_kind_comes_first() {
    assert_eq!(verdict(None).status, NotFound);
    assert_eq!(verdict(Some(&json!("text"))).status, Unknown);
    let ready = json!({ "observedGeneration": 2, "conditions": [{ "type": "Ready", "status": "True" }] });
    let mut thing = object("example.com/v1", "Thing", json!({}), ready);
    assert_eq!(status_of(&thing), Current);
    thing["status"]["conditions"][0]["status"] = json!("Unknown");
    assert_eq!(status_of(&thing), InProgress);
    thing["status"]["conditions"] = json!([{ "type": "Stalled", "status": "True", "reason": "R", "message": "m" }]);
    assert_eq!(verdict(Some(&thing)), Verdict { status: Failed, message: "R: m".into() });
    thing["status"]["conditions"] =
        json!([{ "type": "Stalled", "status": "True" }, { "type": "Reconciling", "status": "True" }]);
    assert_eq!(status_of(&thing), InProgress);
    thing["status"]["observedGeneration"] = json!(1);
    thing["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    assert_eq!(status_of(&thing), InProgress);
    thing["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(status_of(&thing), Terminating);
    assert_eq!(status_of(&object("v1", "ConfigMap", json!({}), json!({}))), Current);
}

#[test]
fn deployments() {
    let done = |change: fn(&mut Value)| {
        let mut status = json!({
            "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "conditions": [
                { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" },
                { "type": "Available", "status": "True" }
            ]
        });
        change(&mut status);
        status
    };
    let spec = || json!({ "replicas": 2, "progressDeadlineSeconds": 600 });
    table(
        "apps/v1",
        "Deployment",
        &[
            (spec(), done(|_| {}), Current),
            (spec(), done(|s| s["replicas"] = json!(1)), InProgress),
            (spec(), done(|s| s["updatedReplicas"] = json!(1)), InProgress),
            (spec(), done(|s| s["replicas"] = json!(3)), InProgress),
            (spec(), done(|s| s["availableReplicas"] = json!(1)), InProgress),
            (spec(), done(|s| s["readyReplicas"] = json!(1)), InProgress),
            (spec(), done(|s| s["conditions"][0]["reason"] = json!("ReplicaSetUpdated")), InProgress),
            (spec(), done(|s| s["conditions"][1]["status"] = json!("False")), InProgress),
            (spec(), done(|s| s["conditions"][0]["reason"] = json!("ProgressDeadlineExceeded")), Failed),
            (json!({ "replicas": 2 }), done(|s| s["conditions"][0]["reason"] = json!("Other")), Current),
            (json!({ "replicas": 0 }), json!({ "conditions": [{ "type": "Available", "status": "True" }] }), Current),
            (spec(), json!({}), InProgress),
        ],
    );
}

#[test]
fn stateful_sets() {
    let done = |change: fn(&mut Value)| {
        let mut status = json!({
            "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "currentReplicas": 2, "updatedReplicas": 2,
            "currentRevision": "a", "updateRevision": "a"
        });
        change(&mut status);
        status
    };
    let partition = |partition: i64| json!({ "replicas": 2, "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition } } });
    let plain = || json!({ "replicas": 2 });
    table(
        "apps/v1",
        "StatefulSet",
        &[
            (plain(), done(|_| {}), Current),
            (plain(), done(|s| s["readyReplicas"] = json!(1)), InProgress),
            (plain(), done(|s| s["replicas"] = json!(3)), InProgress),
            (plain(), done(|s| s["currentReplicas"] = json!(1)), InProgress),
            (plain(), done(|s| s["updateRevision"] = json!("b")), InProgress),
            (partition(0), done(|s| s["updatedReplicas"] = json!(1)), InProgress),
            (partition(0), done(|_| {}), Current),
            (partition(1), done(|s| s["updatedReplicas"] = json!(1)), Current),
            (json!({ "replicas": 2, "updateStrategy": { "type": "OnDelete" } }), json!({}), Current),
        ],
    );
}

#[test]
fn the_other_kinds() {
    let daemons = |ready: i64| json!({ "observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": ready });
    table(
        "apps/v1",
        "DaemonSet",
        &[(json!({}), daemons(2), Current), (json!({}), daemons(1), InProgress), (json!({}), json!({}), InProgress)],
    );
    let replicas = |ready: i64, all: i64| json!({ "replicas": all, "fullyLabeledReplicas": 1, "availableReplicas": 1, "readyReplicas": ready });
    table(
        "apps/v1",
        "ReplicaSet",
        &[
            (json!({ "replicas": 1 }), replicas(1, 1), Current),
            (json!({ "replicas": 1 }), replicas(0, 1), InProgress),
            (json!({ "replicas": 1 }), replicas(1, 2), InProgress),
            (
                json!({ "replicas": 1 }),
                json!({ "conditions": [{ "type": "ReplicaFailure", "status": "True" }] }),
                InProgress,
            ),
        ],
    );
    let job = |condition: &str| json!({ "startTime": "t", "conditions": [{ "type": condition, "status": "True" }] });
    table(
        "batch/v1",
        "Job",
        &[
            (json!({}), job("Complete"), Current),
            (json!({}), job("Failed"), Failed),
            (json!({}), job("Suspended"), Current),
            (json!({}), json!({ "startTime": "t", "active": 1 }), Current),
            (json!({}), json!({}), InProgress),
        ],
    );
    let running = |reason: &str| json!({ "phase": "Running", "containerStatuses": [{ "name": "c", "state": { "waiting": { "reason": reason } } }] });
    table(
        "v1",
        "Pod",
        &[
            (json!({}), json!({ "phase": "Succeeded" }), Current),
            (json!({}), json!({ "phase": "Failed" }), Current),
            (json!({}), json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }), Current),
            (json!({}), running("ContainerCreating"), InProgress),
            (json!({}), running("CrashLoopBackOff"), Failed),
            (
                json!({}),
                json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] }),
                InProgress,
            ),
            (json!({}), json!({}), Unknown),
        ],
    );
    table(
        "v1",
        "PersistentVolumeClaim",
        &[
            (json!({}), json!({ "phase": "Bound" }), Current),
            (json!({}), json!({ "phase": "Lost" }), InProgress),
            (json!({}), json!({}), InProgress),
        ],
    );
}
