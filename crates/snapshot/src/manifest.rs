//! A claim as it is recorded, and the claims that are made from the record.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};
use upgrade_core::ports::Aside;

use crate::labels::{HELPER, HELPER_OF, OPERATION, PREFIX};
use crate::{Error, bytes};

/// Written by the control plane about one binding; on another they would be wrong. `selected-node` among them would pin the
/// claim to a node.
const BINDING: [&str; 3] = ["pv.kubernetes.io/", "volume.beta.kubernetes.io/", "volume.kubernetes.io/"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Where the content comes from and what it is bound to: never part of a claim that is made again.
const CONTENT_FIELDS: [&str; 4] = ["volumeName", "dataSource", "dataSourceRef", "selector"];

/// The resource of claims, for reading them whole: fields that this build does not know must survive a swap.
#[must_use]
pub fn claims() -> ApiResource {
    ApiResource::erase::<PersistentVolumeClaim>(&())
}

/// What is recorded of a claim: `{metadata: {labels, annotations}, spec}`.
///
/// Owners are not recorded. The only owner that is accepted at all is a StatefulSet, whose controller puts itself back on the
/// claims of its pods; an owner that was replaced meanwhile would have the new claim collected.
#[must_use]
pub fn record(claim: &DynamicObject) -> Value {
    let labels: Map<String, Value> = claim
        .labels()
        .iter()
        .filter(|(key, _)| !key.starts_with(PREFIX))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let annotations: Map<String, Value> = claim
        .annotations()
        .iter()
        .filter(|(key, _)| {
            !key.starts_with(PREFIX) && *key != LAST_APPLIED && !BINDING.iter().any(|prefix| key.starts_with(prefix))
        })
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let mut spec = claim.data.get("spec").cloned().unwrap_or_else(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        for field in CONTENT_FIELDS {
            spec.remove(field);
        }
    }
    json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec })
}

/// What a recorded claim asks for, in bytes.
pub fn request(claim: &str, manifest: &Value) -> Result<i64, Error> {
    let unusable = |why: &str| Error::Manifest { claim: claim.into(), why: why.into() };
    let text = manifest
        .pointer("/spec/resources/requests/storage")
        .and_then(Value::as_str)
        .ok_or_else(|| unusable("it does not say how much storage it asks for"))?;
    bytes(text).map_err(|source| Error::Quantity { of: format!("the size claim {claim} asks for"), source })
}

/// The storage class of a recorded claim; empty when it has none.
#[must_use]
pub fn storage_class(manifest: &Value) -> &str {
    manifest.pointer("/spec/storageClassName").and_then(Value::as_str).unwrap_or_default()
}

/// The volume mode of a recorded claim.
#[must_use]
pub fn volume_mode(manifest: &Value) -> &str {
    manifest.pointer("/spec/volumeMode").and_then(Value::as_str).unwrap_or("Filesystem")
}

/// The claim made again: as recorded, naming `volume`, with our label.
pub fn recreated(
    namespace: &str,
    name: &str,
    manifest: &Value,
    volume: &str,
    operation: &str,
) -> Result<DynamicObject, Error> {
    let mut claim = object(namespace, name, manifest)?;
    claim.labels_mut().insert(OPERATION.into(), operation.into());
    if let Some(spec) = claim.data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("volumeName".into(), json!(volume));
    }
    Ok(claim)
}

/// The helper claim: class and modes as recorded, at least as large as the original and `aside.size`, from the snapshot, and
/// with no label or annotation of the app, so that nothing that selects the app's claims finds it.
pub fn helper(aside: &Aside, node: Option<&str>) -> Result<DynamicObject, Error> {
    let size = request(&aside.claim, &aside.manifest)?.max(aside.size);
    let mut bare = aside.manifest.clone();
    if let Some(bare) = bare.as_object_mut() {
        bare.insert("metadata".into(), json!({}));
    }
    let mut claim = object(&aside.namespace, &aside.helper, &bare)?;
    claim.labels_mut().insert(OPERATION.into(), aside.operation.clone());
    claim.labels_mut().insert(HELPER.into(), "true".into());
    claim.annotations_mut().insert(HELPER_OF.into(), aside.claim.clone());
    if let Some(node) = node {
        claim.annotations_mut().insert(SELECTED_NODE.into(), node.into());
    }
    if let Some(spec) = claim.data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("resources".into(), json!({ "requests": { "storage": size.to_string() } }));
        spec.insert(
            "dataSource".into(),
            json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": aside.snapshot }),
        );
    }
    Ok(claim)
}

/// Makes a provisioner that waits for the first consumer act as if a pod had been placed on that node.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

fn object(namespace: &str, name: &str, manifest: &Value) -> Result<DynamicObject, Error> {
    let unusable = |why: String| Error::Manifest { claim: name.into(), why };
    let mut spec = match manifest.get("spec") {
        Some(Value::Object(spec)) => spec.clone(),
        _ => return Err(unusable("it has no spec".into())),
    };
    for field in CONTENT_FIELDS {
        spec.remove(field);
    }
    let mut claim = DynamicObject::new(name, &claims()).within(namespace);
    if let Some(metadata) = manifest.get("metadata") {
        let recorded: Recorded =
            serde_json::from_value(metadata.clone()).map_err(|error| unusable(format!("its metadata: {error}")))?;
        claim.meta_mut().labels = Some(recorded.labels);
        claim.meta_mut().annotations = Some(recorded.annotations);
    }
    claim.data = json!({ "spec": spec });
    Ok(claim)
}

#[derive(serde::Deserialize)]
struct Recorded {
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data", "namespace": "notes", "uid": "u1", "resourceVersion": "7",
                "finalizers": ["kubernetes.io/pvc-protection"],
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "o" }],
                "labels": { "app": "notes", OPERATION: "earlier" },
                "annotations": {
                    "meta.helm.sh/release-name": "notes", LAST_APPLIED: "{}",
                    "pv.kubernetes.io/bind-completed": "yes", SELECTED_NODE: "node-1",
                    "volume.beta.kubernetes.io/storage-provisioner": "csi"
                }
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem",
                "resources": { "requests": { "storage": "50Mi" }, "limits": { "storage": "60Mi" } },
                "volumeName": "pv-1", "selector": { "matchLabels": { "a": "b" } },
                "dataSource": { "kind": "VolumeSnapshot", "name": "old" },
                "dataSourceRef": { "kind": "VolumeSnapshot", "name": "old" },
                "newer": { "kept": [1] }
            },
            "status": { "phase": "Bound" }
        }))
        .unwrap()
    }

    #[test]
    fn a_record_holds_what_the_claim_is_and_nothing_of_its_binding() {
        assert_eq!(
            record(&live()),
            json!({
                "metadata": { "labels": { "app": "notes" }, "annotations": { "meta.helm.sh/release-name": "notes" } },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem",
                    "resources": { "requests": { "storage": "50Mi" }, "limits": { "storage": "60Mi" } },
                    "newer": { "kept": [1] }
                }
            })
        );
    }

    #[test]
    fn a_claim_made_again_differs_only_in_volume_and_our_label() {
        let claim = recreated("notes", "data", &record(&live()), "pv-2", "op").unwrap();
        let mut again = claim.clone();
        again.labels_mut().remove(OPERATION);
        assert_eq!(claim.labels()[OPERATION], "op");
        assert_eq!(claim.data["spec"]["volumeName"], "pv-2");
        assert_eq!(record(&again), record(&live()));
        assert!(claim.meta().uid.is_none() && claim.meta().owner_references.is_none());
    }

    #[test]
    fn a_helper_asks_for_the_larger_size_and_looks_like_nobodys() {
        let aside = |size| Aside {
            namespace: "notes".into(),
            helper: "h".into(),
            snapshot: "snap".into(),
            claim: "data".into(),
            manifest: record(&live()),
            size,
            operation: "op".into(),
        };
        let large = helper(&aside(1 << 30), Some("node-1")).unwrap();
        assert_eq!(large.data["spec"]["resources"], json!({ "requests": { "storage": "1073741824" } }));
        assert_eq!(large.data["spec"]["dataSource"]["name"], "snap");
        assert_eq!(large.data["spec"]["storageClassName"], "fast");
        assert_eq!(large.annotations()[SELECTED_NODE], "node-1");
        assert_eq!(large.labels().keys().collect::<Vec<_>>(), [HELPER, OPERATION]);
        let small = helper(&aside(0), None).unwrap();
        assert_eq!(small.data["spec"]["resources"]["requests"]["storage"], "52428800");
    }

    #[test]
    fn a_record_without_a_size_or_a_spec_is_refused() {
        assert!(recreated("n", "c", &json!({}), "pv", "op").is_err());
        assert!(request("c", &json!({ "spec": {} })).is_err());
    }
}
