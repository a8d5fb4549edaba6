//! Applies and prunes objects as kustomize-controller's resource manager does.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};

use super::super::Clock;
use super::super::kstatus::{self, Wait};
use super::super::objects::{Cluster, Manifest, ObjectId, is_marked, wants_mark};

/// Field manager of everything that is applied.
pub(super) const MANAGER: &str = "kustomize-controller";
const GROUP: &str = "kustomize.toolkit.fluxcd.io";
/// Between two looks at what has to be there, or gone, before the next step.
const STAGE_INTERVAL: Duration = Duration::from_secs(2);
const STAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Managers whose fields are taken over, by the beginning of their name and the operation.
const TAKEN_OVER: [(&str, &str); 4] =
    [("kubectl", "Apply"), ("kubectl", "Update"), ("before-first-apply", "Update"), (MANAGER, "Update")];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Kinds in the order of their application; all others come after the first and before the last.
const FIRST: [&str; 23] = [
    "CustomResourceDefinition",
    "Namespace",
    "ClusterRole",
    "ClusterClass",
    "RuntimeClass",
    "PriorityClass",
    "StorageClass",
    "VolumeSnapshotClass",
    "IngressClass",
    "GatewayClass",
    "ClusterRoleBinding",
    "ResourceQuota",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "Service",
    "LimitRange",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

fn order(id: &ObjectId) -> (usize, &str, &str, &str, &str) {
    let position = FIRST.iter().position(|kind| *kind == id.kind);
    let last = LAST.iter().position(|kind| *kind == id.kind);
    let index = position.or_else(|| last.map(|last| FIRST.len() + 1 + last)).unwrap_or(FIRST.len());
    (index, &id.group, &id.kind, &id.namespace, &id.name)
}

/// In which stage an object is applied; the next one begins when this one is there.
fn stage(id: &ObjectId) -> usize {
    match id.kind.as_str() {
        "CustomResourceDefinition" | "Namespace" | "ClusterRole" => 0,
        kind if kind.ends_with("Class") => 1,
        _ => 2,
    }
}

/// What was done with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: ObjectId,
    pub(super) version: String,
    /// It is marked to be passed over.
    pub(super) skipped: bool,
}

/// Applies and prunes for one Kustomization.
pub(super) struct Applier<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Clock,
    /// The labels that say whose the objects are.
    pub(super) owner: BTreeMap<String, String>,
    /// Whether objects with immutable changes are made anew.
    pub(super) force: bool,
}

/// The labels of what a Kustomization applies.
pub(super) fn owner_labels(namespace: &str, name: &str) -> BTreeMap<String, String> {
    [("name", name), ("namespace", namespace)].map(|(key, value)| (format!("{GROUP}/{key}"), value.to_owned())).into()
}

/// One object of a stage that the server accepts.
struct Accepted {
    manifest: Manifest,
    api: Api<DynamicObject>,
    needs_apply: bool,
}

impl Applier<'_> {
    /// Applies everything, stage by stage. Nothing of a stage is applied when the server would refuse a part of it.
    ///
    /// # Errors
    /// What kustomize-controller says then.
    pub(super) async fn apply_all(&self, mut objects: Vec<Manifest>) -> Result<Vec<Change>, String> {
        for object in &mut objects {
            let labels = self.owner.iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
            if let Some(map) = object.metadata_map("labels") {
                map.extend(labels);
            }
        }
        objects.sort_by(|a, b| order(&a.id).cmp(&order(&b.id)));
        let mut changes = Vec::new();
        for number in 0..3 {
            let part: Vec<Manifest> = objects.iter().filter(|object| stage(&object.id) == number).cloned().collect();
            let done = self.apply_stage(part).await?;
            if number < 2 {
                let made = done.iter().map(|change| (change.id.clone(), change.version.clone())).collect::<Vec<_>>();
                let how = Wait { interval: STAGE_INTERVAL, timeout: STAGE_TIMEOUT, zero_is_done: false };
                kstatus::wait(self.cluster, self.clock, &made, how).await?;
            }
            changes.extend(done);
        }
        Ok(changes)
    }

    async fn apply_stage(&self, objects: Vec<Manifest>) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        let mut accepted = Vec::new();
        for object in objects {
            let (change, ready) = self.try_out(object).await?;
            changes.push(change);
            accepted.extend(ready);
        }
        for Accepted { manifest, api, .. } in accepted.iter().filter(|one| one.needs_apply) {
            let applied = api.patch(&manifest.id.name, &params(false), &Patch::Apply(&manifest.body)).await;
            applied.map_err(|error| format!("{} apply failed: {}", manifest.id, said(&error)))?;
        }
        Ok(changes)
    }

    /// Asks the server what it would make of an object, and prepares the live one.
    async fn try_out(&self, mut object: Manifest) -> Result<(Change, Option<Accepted>), String> {
        let id = object.id.clone();
        let failed = |what: &str, error: &kube::Error| format!("{id} {what}: {}", said(error));
        let gvk = object.gvk();
        let namespaced = self.cluster.is_namespaced(&gvk).await.map_err(|error| failed("dry-run failed", &error))?;
        let Some(namespaced) = namespaced else {
            let version = if gvk.group.is_empty() { gvk.version } else { format!("{}/{}", gvk.group, gvk.version) };
            return Err(format!("{id} dry-run failed: no matches for kind \"{}\" in version \"{version}\"", gvk.kind));
        };
        if !namespaced {
            object.set_namespace(None);
        } else if object.id.namespace.is_empty() {
            return Err(format!("{id} namespace not specified: the server could not find the requested resource"));
        }
        let api = self.cluster.api(&gvk, &object.id.namespace).await;
        let api = api.map_err(|error| failed("dry-run failed", &error))?;
        let Some(api) = api else { return Err(format!("{id} dry-run failed: the kind has gone")) };
        let existing = api.get_opt(&object.id.name).await.map_err(|error| failed("query failed", &error))?;
        let change = Change { id: object.id.clone(), version: object.version.clone(), skipped: false };
        if is_skipped(&object, existing.as_ref()) {
            return Ok((Change { skipped: true, ..change }, None));
        }
        let dry = api.patch(&object.id.name, &params(true), &Patch::Apply(&object.body)).await;
        let dry = match (dry, &existing) {
            (Ok(dry), _) => dry,
            (Err(error), Some(live)) if is_immutable(&error) && self.forces(&object, live) => {
                self.remove(&api, live).await?;
                let accepted = Accepted { manifest: object, api, needs_apply: true };
                return Ok((change, Some(accepted)));
            }
            (Err(error), _) => return Err(dry_run_failed(&id, &error)),
        };
        let mut needs_apply = true;
        if let Some(live) = &existing {
            let cleaned = clean_up(&api, &object, live).await;
            let cleaned = cleaned.map_err(|error| failed("metadata.managedFields cleanup failed", &error))?;
            needs_apply = cleaned || has_drifted(live, &dry);
        }
        Ok((change, Some(Accepted { manifest: object, api, needs_apply })))
    }

    fn forces(&self, object: &Manifest, live: &DynamicObject) -> bool {
        let key = format!("{GROUP}/force");
        self.force || wants_mark(object, &key, "enabled") || is_marked(live, &key, "enabled")
    }

    /// Deletes an object that will be made anew, and waits until it is gone.
    async fn remove(&self, api: &Api<DynamicObject>, live: &DynamicObject) -> Result<(), String> {
        let name = live.name_any();
        let failed = |error: kube::Error| format!("{name} immutable field detected, failed to delete object: {error}");
        delete(api, live).await.map_err(failed)?;
        while api.get_opt(&name).await.map_err(failed)?.is_some() {
            tokio::time::sleep(STAGE_INTERVAL).await;
        }
        Ok(())
    }

    /// Deletes objects that are ours and not marked to stay; the last applied go first.
    ///
    /// # Errors
    /// What failed, with the objects of which it is not known whether they are gone.
    pub(super) async fn prune(
        &self,
        mut objects: Vec<(ObjectId, String)>,
    ) -> Result<(), (String, Vec<(ObjectId, String)>)> {
        objects.sort_by(|(a, _), (b, _)| order(b).cmp(&order(a)));
        let (mut errors, mut left) = (String::new(), Vec::new());
        for (id, version) in objects {
            if let Err(error) = self.prune_one(&id, &version).await {
                errors.push_str(&format!("{id} delete failed: {};", said(&error)));
                left.push((id, version));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err((format!("delete failed, errors: {errors}"), left)) }
    }

    async fn prune_one(&self, id: &ObjectId, version: &str) -> kube::Result<()> {
        let gvk = kube::core::GroupVersionKind::gvk(&id.group, version, &id.kind);
        let Some(api) = self.cluster.api(&gvk, &id.namespace).await? else { return Ok(()) };
        let Some(live) = api.get_opt(&id.name).await? else { return Ok(()) };
        let is_ours = self.owner.iter().all(|(key, value)| live.labels().get(key) == Some(value));
        let stays = [("prune", "disabled"), ("reconcile", "disabled"), ("ssa", "Ignore")]
            .iter()
            .any(|(key, value)| is_marked(&live, &format!("{GROUP}/{key}"), value));
        if is_ours && !stays { delete(&api, &live).await } else { Ok(()) }
    }
}

async fn delete(api: &Api<DynamicObject>, live: &DynamicObject) -> kube::Result<()> {
    let preconditions = Preconditions { uid: live.uid(), resource_version: None };
    match api.delete(&live.name_any(), &DeleteParams::background().preconditions(preconditions)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

fn params(dry_run: bool) -> PatchParams {
    PatchParams { dry_run, ..PatchParams::apply(MANAGER).force() }
}

fn is_skipped(object: &Manifest, live: Option<&DynamicObject>) -> bool {
    let (reconcile, ssa) = (format!("{GROUP}/reconcile"), format!("{GROUP}/ssa"));
    let excluded = [(&reconcile, "disabled"), (&ssa, "Ignore")]
        .into_iter()
        .any(|(key, value)| wants_mark(object, key, value) || live.is_some_and(|live| is_marked(live, key, value)));
    excluded || (live.is_some() && wants_mark(object, &ssa, "IfNotPresent"))
}

/// What an error of the server says.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn dry_run_failed(id: &ObjectId, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => format!("{id} not found: {}", status.message),
        kube::Error::Api(status) => format!("{id} dry-run failed ({}): {}", status.reason, status.message),
        other => format!("{id} dry-run failed: {other}"),
    }
}

fn is_immutable(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    matches!(status.code, 409 | 422)
        || status.message.contains("is immutable")
        || status.message.contains("immutable field")
}

/// Whether the apply would change anything but the bookkeeping.
fn has_drifted(live: &DynamicObject, dry: &DynamicObject) -> bool {
    let content = |object: &DynamicObject| {
        let mut data = object.data.clone();
        if let Some(data) = data.as_object_mut() {
            data.remove("status");
        }
        data
    };
    live.labels() != dry.labels() || live.annotations() != dry.annotations() || content(live) != content(dry)
}

/// Takes over the fields of managers that stand for a person's kubectl, so that the next apply removes what it does not
/// name. Says whether there was anything to do.
async fn clean_up(api: &Api<DynamicObject>, object: &Manifest, live: &DynamicObject) -> kube::Result<bool> {
    let ssa = format!("{GROUP}/ssa");
    if wants_mark(object, &ssa, "Merge") || is_marked(live, &ssa, "Merge") {
        return Ok(false);
    }
    let mut operations = Vec::new();
    if live.annotations().contains_key(LAST_APPLIED) {
        let path = format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1"));
        operations.push(json!({ "op": "remove", "path": path }));
    }
    let managed = serde_json::to_value(live.managed_fields()).unwrap_or_default();
    if let Some(entries) = take_over(&managed) {
        operations.push(json!({ "op": "replace", "path": "/metadata/managedFields", "value": entries }));
    }
    if operations.is_empty() {
        return Ok(false);
    }
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations)).map_err(kube::Error::SerdeError)?;
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&live.name_any(), &params, &Patch::<()>::Json(patch)).await?;
    Ok(true)
}

/// The managers as they should be; `None` when there is nothing to take over.
fn take_over(managed: &Value) -> Option<Value> {
    let entries = managed.as_array()?;
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_ours = |entry: &Value| text(entry, "manager") == MANAGER && text(entry, "operation") == "Apply";
    let is_theirs = |entry: &Value| {
        text(entry, "subresource").is_empty()
            && TAKEN_OVER.iter().any(|(name, operation)| {
                text(entry, "manager").starts_with(name) && text(entry, "operation") == *operation
            })
    };
    let mut ours = entries.iter().find(|entry| is_ours(entry)).cloned();
    let mut kept = Vec::new();
    let mut edited = false;
    for entry in entries.iter().filter(|entry| !is_ours(entry)) {
        if !is_theirs(entry) {
            kept.push(entry.clone());
            continue;
        }
        edited = true;
        match &mut ours {
            None => {
                let renamed = json!({ "manager": MANAGER, "operation": "Apply" });
                ours = Some(union(renamed, entry.clone()));
            }
            Some(ours) => {
                let theirs = json!({ "fieldsV1": entry.get("fieldsV1") });
                *ours = union(ours.take(), theirs);
            }
        }
    }
    kept.extend(ours);
    edited.then_some(Value::Array(kept))
}

/// What either has; where both have a value, it is the first one's.
fn union(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let mut all: Map<String, Value> = one;
            for (key, value) in other {
                let merged = match all.get(&key) {
                    Some(present) => union(present.clone(), value),
                    None => value,
                };
                all.insert(key, merged);
            }
            Value::Object(all)
        }
        (Value::Null, other) => other,
        (one, _) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_of_kubectl_are_taken_over_and_others_kept() {
        let entry = |manager: &str, operation: &str, subresource: &str, field: &str| {
            json!({ "manager": manager, "operation": operation, "subresource": subresource,
                "fieldsV1": { "f:spec": { field: {} } } })
        };
        let ours = entry(MANAGER, "Apply", "", "f:a");
        let windlass = entry("windlass", "Update", "", "f:b");
        let scale = entry("kubectl", "Update", "scale", "f:c");
        let untouched = json!([ours, windlass, scale]);
        assert_eq!(take_over(&untouched), None);
        let patched = entry("kubectl-patch", "Update", "", "f:suspend");
        let taken = take_over(&json!([ours, windlass, patched])).unwrap();
        let mut both = ours.clone();
        both["fieldsV1"]["f:spec"]["f:suspend"] = json!({});
        assert_eq!(taken, json!([windlass, both]));
        let first = take_over(&json!([patched])).unwrap();
        assert_eq!((&first[0]["manager"], &first[0]["operation"]), (&json!(MANAGER), &json!("Apply")));
    }

    #[test]
    fn namespaces_come_first_and_webhooks_last() {
        let id = |kind: &str| ObjectId {
            group: String::new(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: "a".to_owned(),
        };
        let mut kinds = ["ValidatingWebhookConfiguration", "HelmRelease", "Deployment", "Namespace"].map(id);
        kinds.sort_by(|a, b| order(a).cmp(&order(b)));
        let sorted: Vec<&str> = kinds.iter().map(|id| id.kind.as_str()).collect();
        assert_eq!(sorted, ["Namespace", "Deployment", "HelmRelease", "ValidatingWebhookConfiguration"]);
        assert_eq!(["Namespace", "StorageClass", "Deployment"].map(|kind| stage(&id(kind))), [0, 1, 2]);
    }
}
