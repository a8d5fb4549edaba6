//! Builders of Flux objects for the tests of this module: each starts as a healthy app shows itself.

use serde_json::{Value, json};
use upgrade_core::ports::{ObjectRef, Pin, PinPart, PinValue};

use super::live::{HELM, KUSTOMIZE, Live, SOURCE};

/// The commit that is ours.
pub(super) const OURS: &str = "0123456789abcdef0123456789abcdef01234567";
/// One that does not contain it.
pub(super) const OLDER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

pub(super) fn revision(commit: &str) -> String {
    format!("main@sha1:{commit}")
}

pub(super) fn ready(reason: &str, message: &str, status: &str) -> Value {
    condition("Ready", status, reason, message)
}

pub(super) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

pub(super) fn release_object() -> ObjectRef {
    ObjectRef::new(HELM, "HelmRelease", "notes", "notes")
}

pub(super) fn apps_object() -> ObjectRef {
    ObjectRef::new(KUSTOMIZE, "Kustomization", "flux-system", "apps")
}

fn live(object: &ObjectRef, version: &str, mut json: Value) -> Live {
    json["apiVersion"] = format!("{}/{version}", object.group).into();
    json["kind"] = object.kind.clone().into();
    json["metadata"]["name"] = object.name.clone().into();
    json["metadata"]["namespace"] = object.namespace.clone().into();
    json["metadata"]["uid"] = format!("uid-of-{}", object.name).into();
    json["metadata"]["generation"] = 3.into();
    json["metadata"]["annotations"] = json!({ "reconcile.fluxcd.io/requestedAt": "t9" });
    json["status"]["lastHandledReconcileAt"] = "t9".into();
    json["status"]["observedGeneration"] = 3.into();
    Live { object: object.clone(), json }
}

/// A HelmRelease on chart 1.1.0 with image tag 2.0, released and ready.
pub(super) fn release() -> Live {
    let mut release = live(
        &release_object(),
        "v2",
        json!({
            "spec": {
                "chart": { "spec": { "chart": "notes", "version": "1.1.0", "sourceRef": { "kind": "HelmRepository", "name": "charts" } } },
                "values": { "image": { "tag": "2.0" } }
            },
            "status": {
                "lastAttemptedGeneration": 3,
                "lastAttemptedConfigDigest": "sha256:new",
                "helmChart": "notes/notes-notes",
                "storageNamespace": "notes",
                "history": [
                    { "name": "notes", "namespace": "notes", "version": 5, "status": "deployed", "action": "upgrade", "chartName": "notes", "chartVersion": "1.1.0", "configDigest": "sha256:new" },
                    { "name": "notes", "namespace": "notes", "version": 4, "status": "superseded", "action": "upgrade", "chartName": "notes", "chartVersion": "1.0.0", "configDigest": "sha256:old" }
                ],
                "conditions": [ready("UpgradeSucceeded", "fine", "True")]
            }
        }),
    );
    release.json["metadata"]["labels"] =
        json!({ "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system" });
    release
}

/// A Kustomization that has applied our commit.
pub(super) fn kustomization() -> Live {
    live(
        &apps_object(),
        "v1",
        json!({
            "spec": { "prune": true, "wait": true, "sourceRef": { "kind": "GitRepository", "name": "flux-system" } },
            "status": {
                "lastAttemptedRevision": revision(OURS),
                "lastAppliedRevision": revision(OURS),
                "inventory": { "entries": [
                    { "id": "notes_notes_helm.toolkit.fluxcd.io_HelmRelease", "v": "v2" },
                    { "id": "notes_web_apps_Deployment", "v": "v1" }
                ] },
                "conditions": [ready("ReconciliationSucceeded", "Applied revision", "True")]
            }
        }),
    )
}

/// A Git source with our commit.
pub(super) fn git_repository() -> Live {
    live(
        &ObjectRef::new(SOURCE, "GitRepository", "flux-system", "flux-system"),
        "v1",
        json!({
            "spec": { "url": "https://git.example.com/apps.git", "ref": { "branch": "main" } },
            "status": {
                "artifact": { "revision": revision(OURS) },
                "conditions": [ready("Succeeded", "stored artifact", "True")]
            }
        }),
    )
}

/// Where [`release`] takes its chart from.
pub(super) fn helm_repository() -> Live {
    let repository = ObjectRef::new(SOURCE, "HelmRepository", "notes", "charts");
    live(&repository, "v1", json!({ "spec": { "url": "https://charts.example.com" }, "status": {} }))
}

/// The chart of [`release`].
pub(super) fn helm_chart() -> Live {
    live(
        &ObjectRef::new(SOURCE, "HelmChart", "notes", "notes-notes"),
        "v1",
        json!({
            "spec": { "chart": "notes", "version": "1.1.0", "sourceRef": { "kind": "HelmRepository", "name": "charts" } },
            "status": { "artifact": { "revision": "1.1.0" }, "conditions": [ready("ChartPullSucceeded", "", "True")] }
        }),
    )
}

pub(super) fn pin(component: &str, object: &str, field: &str, value: &str) -> PinValue {
    let part = PinPart::Whole;
    let (component, repository, path) = (component.into(), "apps".into(), "apps/notes/release.yaml".into());
    PinValue {
        pin: Pin { component, repository, path, object: object.into(), field: field.into(), part },
        value: value.into(),
    }
}

/// The two pins of [`release`].
pub(super) fn release_pins() -> Vec<PinValue> {
    vec![
        pin("chart", "HelmRelease/notes", "spec.chart.spec.version", "1.1.0"),
        pin("image/notes", "HelmRelease/notes", "spec.values.image.tag", "2.0"),
    ]
}
