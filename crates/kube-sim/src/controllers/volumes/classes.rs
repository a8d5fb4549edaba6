//! What a cluster must have for the stand-ins to work with: the driver, its classes, and the kinds of snapshots.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::objects::SNAPSHOTS;

/// Name of the driver in [`CLASSES`].
pub const DRIVER: &str = "csi.rig.windlass.dev";

/// The CSIDriver, StorageClasses and VolumeSnapshotClasses of the rig, as YAML documents.
///
/// StorageClasses: `rig` (the default), `rig-wait` (waits for the first consumer), `rig-forgetful` (volumes take their
/// snapshots with them). VolumeSnapshotClasses: `rig` (the default), `rig-never-ready`.
pub const CLASSES: &str = include_str!("classes.yaml");

/// The objects of [`CLASSES`] for a driver of another name.
///
/// # Errors
/// When the name makes the documents unreadable.
pub fn classes(driver: &str) -> Result<Vec<Value>, serde_yaml_ng::Error> {
    let yaml = CLASSES.replace(DRIVER, driver);
    serde_yaml_ng::Deserializer::from_str(&yaml).map(Value::deserialize).collect()
}

/// Minimal definitions of VolumeSnapshot, VolumeSnapshotContent and VolumeSnapshotClass, for servers that lack the real ones:
/// all fields that the stand-ins write, with their types.
#[must_use]
pub fn snapshot_crds() -> Vec<Value> {
    let error = json!({ "type": "object", "properties": {
        "time": { "type": "string", "format": "date-time" }, "message": { "type": "string" },
    }});
    let reference = json!({ "type": "object", "properties": {
        "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "namespace": { "type": "string" },
        "name": { "type": "string" }, "uid": { "type": "string" }, "resourceVersion": { "type": "string" },
        "fieldPath": { "type": "string" },
    }});
    let source = |one: &str, other: &str| {
        json!({ "type": "object",
            "properties": { one: { "type": "string" }, other: { "type": "string" } },
            "x-kubernetes-validations": [
                { "rule": "self == oldSelf", "message": "source is immutable" },
                { "rule": format!("has(self.{one}) != has(self.{other})"), "message": "exactly one source must be set" },
            ],
        })
    };
    let policy = json!({ "type": "string", "enum": ["Delete", "Retain"] });
    let snapshot = json!({
        "spec": { "type": "object", "required": ["source"], "properties": {
            "source": source("persistentVolumeClaimName", "volumeSnapshotContentName"),
            "volumeSnapshotClassName": { "type": "string", "minLength": 1 },
        }},
        "status": { "type": "object", "properties": {
            "boundVolumeSnapshotContentName": { "type": "string" },
            "creationTime": { "type": "string", "format": "date-time" },
            "readyToUse": { "type": "boolean" },
            "restoreSize": { "x-kubernetes-int-or-string": true },
            "error": error, "volumeGroupSnapshotName": { "type": "string" },
        }},
    });
    let content = json!({
        "spec": { "type": "object", "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
            "properties": {
                "volumeSnapshotRef": reference, "deletionPolicy": policy, "driver": { "type": "string" },
                "source": source("volumeHandle", "snapshotHandle"),
                "sourceVolumeMode": { "type": "string" }, "volumeSnapshotClassName": { "type": "string" },
            },
        },
        "status": { "type": "object", "properties": {
            "snapshotHandle": { "type": "string" },
            "creationTime": { "type": "integer", "format": "int64" },
            "restoreSize": { "type": "integer", "format": "int64", "minimum": 0 },
            "readyToUse": { "type": "boolean" }, "error": error, "volumeGroupSnapshotHandle": { "type": "string" },
        }},
    });
    let class = json!({
        "driver": { "type": "string" }, "deletionPolicy": policy,
        "parameters": { "type": "object", "additionalProperties": { "type": "string" } },
    });
    let required = ["driver", "deletionPolicy"];
    vec![
        definition("VolumeSnapshot", "volumesnapshots", "Namespaced", &["spec"], &snapshot),
        definition("VolumeSnapshotContent", "volumesnapshotcontents", "Cluster", &["spec"], &content),
        definition("VolumeSnapshotClass", "volumesnapshotclasses", "Cluster", &required, &class),
    ]
}

fn definition(kind: &str, plural: &str, scope: &str, required: &[&str], properties: &Value) -> Value {
    let mut version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": { "type": "object", "required": required, "properties": properties } },
    });
    if properties.get("status").is_some() {
        crate::server::json::set(&mut version, &["subresources", "status"], json!({}));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{SNAPSHOTS}"),
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter" },
        },
        "spec": {
            "group": SNAPSHOTS, "scope": scope,
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": [version],
        },
    })
}
