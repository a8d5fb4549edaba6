//! Refusals of built-in kinds that clients rely on: required fields, immutable fields, names.
//!
//! This is a choice of a real server's rules, not all of them; what is not here is accepted.

use super::error::Cause;
use super::json::{at, list_at, remove, str_at};
use super::selectors::LabelSelector;
use super::table::ResourceDef;
use serde_json::{Value, json};

/// Whether `name` may name an object: lowercase RFC 1123 subdomain (or label), RBAC names are freer.
pub(crate) fn check_name(def: &ResourceDef, name: &str) -> Option<Cause> {
    if def.group == "rbac.authorization.k8s.io" {
        let bad = name == "." || name == ".." || name.contains(['/', '%']);
        return bad.then(|| Cause::invalid("metadata.name", &json!(name), "may not contain '/' or '%'"));
    }
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let labels_only = matches!((def.group.as_str(), def.kind.as_str()), ("", "Namespace" | "Service"));
    let (limit, kind) = if labels_only { (63, "label") } else { (253, "subdomain") };
    let fine = if labels_only { label(name) } else { name.split('.').all(label) };
    (!fine || name.len() > limit).then(|| {
        Cause::invalid(
            "metadata.name",
            &json!(name),
            format!(
                "a lowercase RFC 1123 {kind} must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                 with an alphanumeric character, and be no longer than {limit} characters"
            ),
        )
    })
}

fn immutable(old: &Value, new: &Value, path: &[&str], causes: &mut Vec<Cause>) {
    if at(old, path) != at(new, path) {
        causes.push(Cause::invalid(path.join("."), at(new, path), "field is immutable"));
    }
}

/// Checks a whole object of a built-in kind, and the step from `old` to it.
pub(crate) fn check(def: &ResourceDef, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match (def.group.as_str(), def.kind.as_str()) {
        ("apps", kind @ ("Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")) => {
            workload(new, &mut causes);
            if let Some(old) = old {
                if kind == "StatefulSet" {
                    stateful_set_update(old, new, &mut causes);
                } else {
                    immutable(old, new, &["spec", "selector"], &mut causes);
                }
            }
        }
        ("", "Pod") => {
            pod_spec(at(new, &["spec"]), "spec", &mut causes);
            if let Some(old) = old {
                pod_update(old, new, &mut causes);
            }
        }
        ("batch", "Job") => {
            pod_spec(at(new, &["spec", "template", "spec"]), "spec.template.spec", &mut causes);
            if !matches!(str_at(new, &["spec", "template", "spec", "restartPolicy"]), "Never" | "OnFailure") {
                causes.push(Cause::required(
                    "spec.template.spec.restartPolicy",
                    "valid values: \"OnFailure\", \"Never\"",
                ));
            }
            if let Some(old) = old {
                immutable(old, new, &["spec", "selector"], &mut causes);
                immutable(old, new, &["spec", "completions"], &mut causes);
                let suspended_and_unstarted =
                    at(old, &["spec", "suspend"]) == true && at(old, &["status", "startTime"]).is_null();
                if !suspended_and_unstarted {
                    immutable(old, new, &["spec", "template"], &mut causes);
                }
            }
        }
        ("batch", "CronJob") => {
            if str_at(new, &["spec", "schedule"]).is_empty() {
                causes.push(Cause::required("spec.schedule", ""));
            }
            pod_spec(
                at(new, &["spec", "jobTemplate", "spec", "template", "spec"]),
                "spec.jobTemplate.spec.template.spec",
                &mut causes,
            );
        }
        ("", "PersistentVolumeClaim") => claim(new, old, &mut causes),
        ("", "PersistentVolume") => volume(new, old, &mut causes),
        ("", "ConfigMap" | "Secret") => {
            if let Some(old) = old {
                if at(old, &["immutable"]) == true {
                    for field in ["data", "binaryData", "immutable"] {
                        if at(old, &[field]) != at(new, &[field]) {
                            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
                        }
                    }
                }
                if def.kind == "Secret" {
                    immutable(old, new, &["type"], &mut causes);
                }
            }
        }
        ("", "Service") => {
            if let Some(old) = old
                && !str_at(old, &["spec", "clusterIP"]).is_empty()
                && str_at(new, &["spec", "type"]) != "ExternalName"
            {
                immutable(old, new, &["spec", "clusterIP"], &mut causes);
            }
            if list_at(new, &["spec", "ports"]).is_empty()
                && str_at(new, &["spec", "clusterIP"]) != "None"
                && str_at(new, &["spec", "type"]) != "ExternalName"
            {
                causes.push(Cause::required("spec.ports", ""));
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            if str_at(new, &["provisioner"]).is_empty() {
                causes.push(Cause::required("provisioner", ""));
            }
            if let Some(old) = old {
                for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                    if at(old, &[field]) != at(new, &[field]) {
                        causes.push(Cause::forbidden(field, "updates to this field are forbidden."));
                    }
                }
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            if str_at(new, &["roleRef", "name"]).is_empty() {
                causes.push(Cause::required("roleRef.name", ""));
            }
            if let Some(old) = old
                && at(old, &["roleRef"]) != at(new, &["roleRef"])
            {
                causes.push(Cause::invalid("roleRef", at(new, &["roleRef"]), "cannot change roleRef"));
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => causes.extend(super::crd::validate(new)),
        ("coordination.k8s.io", "Lease") => {
            if let Some(seconds) = at(new, &["spec", "leaseDurationSeconds"]).as_i64()
                && seconds <= 0
            {
                causes.push(Cause::invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
            }
        }
        _ => {}
    }
    causes
}

fn workload(new: &Value, causes: &mut Vec<Cause>) {
    let selector = at(new, &["spec", "selector"]);
    match LabelSelector::from_object(selector) {
        // Decoding does not keep a missing selector apart from an empty one; the former is what people write by mistake.
        None => causes.push(Cause::required("spec.selector", "")),
        Some(parsed) if parsed.is_empty() => {
            causes.push(Cause::required("spec.selector", ""));
            let labels = at(new, &["spec", "template", "metadata", "labels"]);
            causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        Some(parsed) => {
            let template = json!({"metadata": at(new, &["spec", "template", "metadata"])});
            if !parsed.matches(&template) {
                let labels = at(new, &["spec", "template", "metadata", "labels"]);
                causes.push(Cause::invalid(
                    "spec.template.metadata.labels",
                    labels,
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
    if str_at(new, &["spec", "strategy", "type"]) == "Recreate"
        && !at(new, &["spec", "strategy", "rollingUpdate"]).is_null()
    {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::forbidden("spec.strategy.rollingUpdate", why));
    }
    if let Some(replicas) = at(new, &["spec", "replicas"]).as_i64()
        && replicas < 0
    {
        causes.push(Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0"));
    }
    // The volumes of a StatefulSet's claims are added to the pods only.
    let claims =
        list_at(new, &["spec", "volumeClaimTemplates"]).iter().map(|claim| str_at(claim, &["metadata", "name"]));
    pod_spec_with(at(new, &["spec", "template", "spec"]), claims, "spec.template.spec", causes);
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    pod_spec_with(spec, std::iter::empty(), path, causes);
}

/// Checks the spec of a pod that will have some `more` volumes.
fn pod_spec_with<'a>(spec: &'a Value, more: impl Iterator<Item = &'a str>, path: &str, causes: &mut Vec<Cause>) {
    let containers = list_at(spec, &["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&str> = list_at(spec, &["volumes"]).iter().map(|v| str_at(v, &["name"])).chain(more).collect();
    for (list, items) in [("containers", containers), ("initContainers", list_at(spec, &["initContainers"]))] {
        let mut names = std::collections::BTreeSet::new();
        for (index, container) in items.iter().enumerate() {
            let name = str_at(container, &["name"]);
            if name.is_empty() {
                causes.push(Cause::required(format!("{path}.{list}[{index}].name"), ""));
            } else if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.{list}[{index}].name"), &json!(name)));
            }
            if str_at(container, &["image"]).is_empty() {
                causes.push(Cause::required(format!("{path}.{list}[{index}].image"), ""));
            }
            let mut ports = std::collections::BTreeSet::new();
            for (at_port, port) in list_at(container, &["ports"]).iter().enumerate() {
                let name = str_at(port, &["name"]);
                if !name.is_empty() && !ports.insert(name) {
                    causes
                        .push(Cause::duplicate(format!("{path}.{list}[{index}].ports[{at_port}].name"), &json!(name)));
                }
            }
            for (at_mount, mount) in list_at(container, &["volumeMounts"]).iter().enumerate() {
                let volume = str_at(mount, &["name"]);
                if !volumes.contains(&volume) {
                    causes.push(Cause::not_found(
                        format!("{path}.{list}[{index}].volumeMounts[{at_mount}].name"),
                        volume,
                    ));
                }
            }
        }
    }
}

const STATEFUL_SET_MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn stateful_set_update(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        for field in STATEFUL_SET_MUTABLE {
            remove(&mut spec, &[field]);
        }
        spec
    };
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

fn pod_update(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "schedulingGates",
            "ephemeralContainers",
        ] {
            remove(&mut spec, &[field]);
        }
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(containers)) = spec.get_mut(list) {
                containers.iter_mut().for_each(|c| {
                    remove(c, &["image"]);
                });
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

fn claim(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if list_at(new, &["spec", "accessModes"]).is_empty() {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if at(new, &["spec", "resources", "requests", "storage"]).is_null() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
    let Some(old) = old else { return };
    let bound_now = str_at(old, &["spec", "volumeName"]).is_empty();
    let fixed = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        remove(&mut spec, &["resources", "requests"]);
        remove(&mut spec, &["volumeAttributesClassName"]);
        if bound_now {
            remove(&mut spec, &["volumeName"]);
        }
        // A class may be given later to a claim that had none.
        if at(old, &["spec", "storageClassName"]).is_null() {
            remove(&mut spec, &["storageClassName"]);
        }
        spec
    };
    let resized = at(old, &["spec", "resources", "requests"]) != at(new, &["spec", "resources", "requests"]);
    if fixed(old) != fixed(new) || (resized && str_at(old, &["status", "phase"]) != "Bound") {
        causes.push(Cause::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
}

const VOLUME_MUTABLE: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeAttributesClassName",
];

fn volume(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if at(new, &["spec", "capacity", "storage"]).is_null() {
        causes.push(Cause::required("spec.capacity", ""));
    }
    if list_at(new, &["spec", "accessModes"]).is_empty() {
        causes.push(Cause::required("spec.accessModes", ""));
    }
    let source = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        for field in VOLUME_MUTABLE {
            remove(&mut spec, &[field]);
        }
        remove(&mut spec, &["nodeAffinity"]);
        remove(&mut spec, &["volumeMode"]);
        spec
    };
    if source(new).as_object().is_none_or(serde_json::Map::is_empty) {
        causes.push(Cause::required("spec", "must specify a volume type"));
    }
    if let Some(old) = old {
        if source(old) != source(new) {
            causes.push(Cause::forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        immutable(old, new, &["spec", "volumeMode"], causes);
    }
}
