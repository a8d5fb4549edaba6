//! Objects for the tests of what is shown.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use upgrade_core::engine::{Plan, Step};
use windlass_api::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest};

use crate::request::Request;

/// The present of all samples.
pub(crate) fn now() -> Timestamp {
    "2026-11-20T14:30:00Z".parse().unwrap()
}

pub(crate) fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn app() -> ManagedApp {
    from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "ManagedApp",
        "metadata": {"name": "notes", "namespace": "notes"},
        "spec": {
            "delivery": {"flux": {"objects": [{"kind": "HelmRelease", "name": "notes"}]}},
            "git": {"pins": [{"component": "chart", "repository": "apps", "path": "apps/notes/release.yaml",
                "object": "HelmRelease/notes", "field": "spec.chart.spec.version"}]},
        },
        "status": {
            "current": {"chart": "1.4.0", "image/notes": "2.0.0"},
            "blockedVersions": [{"component": "chart", "version": "1.3.9", "since": "2026-11-19T14:30:00Z",
                "reason": "pods crashed", "request": "notes-0"}],
            "activeOperation": {"kind": "UpgradeRequest", "name": "notes-2", "uid": "u2", "since": "2026-11-20T14:29:00Z"},
            "lastOperation": {"kind": "UpgradeRequest", "name": "notes-1", "uid": "u1", "outcome": "Succeeded",
                "finishedAt": "2026-11-20T12:30:00Z", "message": "done"},
            "conditions": [{"type": "Ready", "status": "False", "reason": "Upgrading", "message": "on its way",
                "lastTransitionTime": "2026-11-20T14:29:00Z"}],
        },
    }))
}

pub(crate) fn bare_app() -> ManagedApp {
    from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "ManagedApp",
        "metadata": {"name": "bare", "namespace": "other"},
        "spec": {"delivery": {"flux": {"objects": [{"kind": "HelmRelease", "name": "bare"}]}}},
    }))
}

/// Four steps, the third of which is the point of no return.
pub(crate) fn plan() -> Plan {
    let minutes = SignedDuration::from_mins;
    let steps = vec![
        Step::new("suspend/helmrelease/notes", "suspend HelmRelease notes/notes", Value::Null, minutes(1))
            .undone_by("resume HelmRelease notes/notes"),
        Step::new("snapshot/take/data", "take a snapshot of claim data", Value::Null, minutes(10))
            .undone_by("delete the snapshot"),
        Step::new("commit/push/apps", "push the commit", Value::Null, minutes(2)).irrevocable(),
        Step::new("verify/healthy", "wait until it is healthy", Value::Null, minutes(10)),
    ];
    Plan::new("app-upgrade", "u2", json!({}), steps).unwrap()
}

fn upgrade(status: &Value) -> Request {
    let request: UpgradeRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest",
        "metadata": {"name": "notes-2", "namespace": "notes", "uid": "u2", "creationTimestamp": "2026-11-20T14:28:59Z"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "target": {"components": {"chart": "1.4.1"}},
            "reason": "CVE-2026-0001", "requestedBy": "jane"},
        "status": status,
    }));
    request.into()
}

/// As an upgrade whose journal has these entries.
pub(crate) fn upgrade_with(entries: &Value, course: &Value) -> Request {
    upgrade(&json!({
        "plan": plan(),
        "phase": "Snapshotting",
        "message": "take a snapshot of claim data: waiting for the driver",
        "startedAt": "2026-11-20T14:29:00Z",
        "journal": {"planHash": "h", "course": course, "entries": entries, "startedAt": "2026-11-20T14:29:00Z"},
    }))
}

pub(crate) fn waiting_upgrade(message: &str) -> Request {
    upgrade(&json!({"phase": "Waiting", "message": message}))
}

pub(crate) fn planned_upgrade() -> Request {
    upgrade(
        &json!({"plan": plan(), "phase": "Planned", "outcome": "Planned", "message": "4 steps; nothing was changed"}),
    )
}

pub(crate) fn entry(step: &str, state: &str, waiting_for: &str) -> Value {
    json!({"step": step, "state": state, "attempt": 1, "begun": true, "beganAt": "2026-11-20T14:29:00Z", "startedAt": "2026-11-20T14:29:00Z",
        "waitingFor": waiting_for})
}

pub(crate) fn running_upgrade() -> Request {
    let mut first = entry("suspend/helmrelease/notes", "Done", "");
    first["finishedAt"] = json!("2026-11-20T14:29:02Z");
    let mut second = entry("snapshot/take/data", "Doing", "the driver");
    second["startedAt"] = json!("2026-11-20T14:29:02Z");
    upgrade_with(&json!([first, second]), &json!("forward"))
}

pub(crate) fn failed_rollback() -> Request {
    let request: RollbackRequest = from(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "RollbackRequest",
        "metadata": {"name": "notes-2-rollback", "namespace": "notes", "creationTimestamp": "2026-11-20T14:28:59Z"},
        "spec": {"subject": {"kind": "ManagedApp", "name": "notes"}, "to": {"upgradeRequest": "notes-2"}, "data": "Restore"},
        "status": {
            "phase": "Failed", "outcome": "Failed", "message": "it did not work", "restorePoint": "notes-2",
            "startedAt": "2026-11-20T14:29:00Z", "finishedAt": "2026-11-20T14:29:50Z",
            "suspendedFor": "40s", "downFor": "30s",
            "commits": [{"repository": "apps", "sha": "0123456789abcdef0123456789abcdef01234567"}],
            "leftovers": [{"what": "HelmRelease notes/notes suspended", "object": "suspend/helmrelease/notes",
                "why": "the value is not in Git", "since": "2026-11-20T14:29:50Z"}],
        },
    }));
    request.into()
}

/// The examples of the API, newest first.
pub(crate) fn restore_points() -> Vec<RestorePoint> {
    let text = include_str!("../../../api/examples/good/restore-point.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect()
}
