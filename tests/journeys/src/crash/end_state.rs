//! What is there at the end, written so that two runs which did the same compare equal: names that come from uids are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_rig::csi::{CallName, CallRecord};

use crate::estate::OPERATOR_USER;
use crate::fixture::App;
use crate::world::World;

/// Kinds whose managed fields and marks are compared.
const TOUCHED: [(&str, &str, &str); 9] = [
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "v2", "HelmRelease"),
    ("source.toolkit.fluxcd.io", "v1", "GitRepository"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "PersistentVolume"),
    ("snapshot.storage.k8s.io", "v1", "VolumeSnapshot"),
    ("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent"),
];

impl World {
    async fn every(&self, group: &str, version: &str, kind: &str) -> anyhow::Result<Vec<Value>> {
        let (resource, _) = discovery::pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = api.list(&ListParams::default()).await?;
        let mut all: Vec<Value> = found.items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        all.sort_by_key(|object| object["metadata"]["name"].to_string());
        Ok(all)
    }

    /// The state of an app and of everything around it.
    pub(crate) async fn end_state(&self, app: &App) -> anyhow::Result<Value> {
        let own = windlass_api::GROUP;
        let mut requests: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for kind in ["UpgradeRequest", "RollbackRequest"] {
            for request in self.every(own, windlass_api::VERSION, kind).await? {
                let status = &request["status"];
                // An automatic rollback has the uid of its upgrade in its name.
                let upgrade = request["spec"]["to"]["upgradeRequest"].as_str();
                let name = upgrade.or(request["metadata"]["name"].as_str()).unwrap_or_default();
                // Two rollbacks of one upgrade have the same key.
                requests.entry(format!("{kind}/{name}")).or_default().push(json!({
                    "phase": status["phase"], "outcome": status["outcome"], "leftovers": status["leftovers"],
                    "made": made(&request), "carried": carried(&request),
                }));
            }
        }
        // Their names come from uids, and so does their order.
        requests.values_mut().for_each(|all| all.sort_by_key(ToString::to_string));
        let mut touched = BTreeMap::new();
        for (group, version, kind) in TOUCHED {
            let mut all = Vec::new();
            for object in self.every(group, version, kind).await? {
                all.push(marks(&object));
            }
            // Volumes and snapshots are named after uids: what they carry is compared, not their order.
            all.sort_by_key(ToString::to_string);
            touched.insert(kind, all);
        }
        let mut claims = BTreeMap::new();
        for claim in &app.claims {
            let volume = self.volume_of(&app.name, claim).await?;
            let spec = volume.spec.context("a volume without spec")?;
            let handle = spec.csi.context("a volume that is not CSI")?.volume_handle;
            claims.insert(
                claim.clone(),
                json!({"policy": spec.persistent_volume_reclaim_policy, "bytes": digest(&self.estate.volume_folder(&handle))?}),
            );
        }
        app.repo.pull()?;
        let managed = self.every(own, windlass_api::VERSION, "ManagedApp").await?;
        let managed: Vec<Value> = managed
            .iter()
            .map(|one| json!({"current": one["status"]["current"], "active": one["status"]["activeOperation"], "blocked": blocked(one)}))
            .collect();
        let points = self.every(own, windlass_api::VERSION, "RestorePoint").await?;
        let points: Vec<Value> = points
            .iter()
            .map(|one| json!({"void": one["spec"]["void"], "usable": one["status"]["usable"], "components": one["spec"]["components"]}))
            .collect();
        let count = |found: Vec<Value>| found.len();
        let calls = self.estate.driver_calls()?;
        let (volumes, snapshots) = kept_by_driver(&calls);
        let refs = self.refs(app)?;
        Ok(json!({
            "requests": requests, "touched": touched, "claims": claims, "apps": managed, "restorePoints": points,
            "git": {
                "tree": app.repo.git(&["rev-parse", "HEAD^{tree}"])?.trim(), "commits": app.repo.commits()?,
                "refs": ref_names(&refs),
            },
            "driver": {"volumes": volumes.len(), "snapshots": snapshots.len()},
            "volumes": count(self.every("", "v1", "PersistentVolume").await?),
            "snapshots": count(self.every("snapshot.storage.k8s.io", "v1", "VolumeSnapshot").await?),
            "contents": count(self.every("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent").await?),
            "pods": self.ready_pods(&app.name).await?.into_iter().map(|(_, image)| image).collect::<Vec<_>>(),
        }))
    }
}

/// What a request says that it has made. Not by name: names come from uids.
pub(crate) fn made(request: &Value) -> Value {
    let status = &request["status"];
    json!({
        "rollback": status["rollback"].is_string(), "restorePoint": status["restorePoint"].is_string(),
        "commits": status["commits"].as_array().map_or(0, Vec::len),
    })
}

/// What keeps an object and what tells it apart: finalizers, labels, and whether it is being deleted. The values of our own labels are
/// uids.
pub(crate) fn carried(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let finalizers: BTreeSet<&str> =
        metadata["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let labels: BTreeMap<&String, Value> = metadata["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, if key.contains("windlass.dev") { Value::Null } else { value.clone() }))
        .collect();
    json!({"deleting": metadata["deletionTimestamp"].is_string(), "finalizers": finalizers, "labels": labels})
}

/// Volumes and snapshots that the driver has made and not deleted. By handle, as calls are repeated.
pub(crate) fn kept_by_driver(calls: &[CallRecord]) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut volumes, mut snapshots) = (BTreeSet::new(), BTreeSet::new());
    for call in calls.iter().filter(|call| call.result == "OK") {
        match call.call {
            CallName::CreateVolume => drop(volumes.insert(call.volume.as_str())),
            CallName::DeleteVolume => drop(volumes.remove(call.volume.as_str())),
            CallName::CreateSnapshot => drop(snapshots.insert(call.snapshot.as_str())),
            CallName::DeleteSnapshot => drop(snapshots.remove(call.snapshot.as_str())),
            CallName::ListSnapshots => {}
        }
    }
    (volumes, snapshots)
}

/// The names of all refs in what `git ls-remote` has printed, without the commits they are at.
pub(crate) fn ref_names(listed: &str) -> Vec<&str> {
    listed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect()
}

/// What an object carries of ours: fields we own, annotations, suspension, replicas; and of a claim or volume what it was asked to be,
/// but not who it is bound to.
pub(crate) fn marks(object: &Value) -> Value {
    let fields: Vec<Value> = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["manager"].as_str().is_some_and(|manager| manager.contains(OPERATOR_USER)))
        .filter_map(|entry| Some(json!([entry["operation"], entry["subresource"], without_poke(&entry["fieldsV1"])?])))
        .collect();
    let ours: Vec<&String> = object["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.contains("windlass.dev") || key.contains("/reconcile"))
        .map(|(key, _)| key)
        .collect();
    let spec = &object["spec"];
    json!({
        "fields": fields, "annotations": ours, "suspend": spec["suspend"], "replicas": spec["replicas"],
        "policy": spec["persistentVolumeReclaimPolicy"], "deletionPolicy": spec["deletionPolicy"],
        "phase": object["status"]["phase"], "carried": carried(object),
        "storage": {
            "modes": spec["accessModes"], "size": spec["resources"], "capacity": spec["capacity"],
            "class": spec["storageClassName"], "mode": spec["volumeMode"],
        },
    })
}

/// The fields of an entry but for a poke, if there are any: it is made while something is waited for, so that there may be none when
/// that came by itself.
fn without_poke(fields: &Value) -> Option<Value> {
    let mut fields = fields.clone();
    for (place, only) in [
        ("/f:metadata/f:annotations", "f:reconcile.fluxcd.io/requestedAt"),
        ("/f:metadata", "f:annotations"),
        ("", "f:metadata"),
    ] {
        let Some(inside) = fields.pointer_mut(place).and_then(Value::as_object_mut) else { continue };
        let is_poke = only.ends_with("requestedAt");
        let is_empty = |value: &Value| value.as_object().is_some_and(|all| all.keys().all(|key| key == "."));
        if is_poke || inside.get(only).is_some_and(is_empty) {
            inside.shift_remove(only);
        }
    }
    fields.as_object().is_some_and(|all| !all.is_empty()).then_some(fields)
}

fn blocked(app: &Value) -> Vec<String> {
    let all = app["status"]["blockedVersions"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| format!("{} {}", one["component"], one["version"])).collect()
}

/// A hash over names and bytes of all files below a folder.
fn digest(folder: &Path) -> anyhow::Result<String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    let mut hash = Sha256::new();
    for (path, bytes) in &files {
        hash.update(format!("{} {}\n", path.display(), bytes.len()));
        hash.update(bytes);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The paths at which two states differ, with both values.
pub(crate) fn difference(path: &str, one: &Value, other: &Value, into: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let (a, b) = (one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null));
                difference(&format!("{path}/{key}"), a, b, into);
            }
        }
        _ if one == other => {}
        _ => into.push(format!("{path}: {other} instead of {one}")),
    }
}
