//! A packed chart, rendered into objects and hooks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::artifact::{Packed, unpack};
use super::super::charts::{ChartMetadata, chart_metadata};
use super::super::flux_objects::merge_values;
use super::super::helm_backend::ReleaseRequest;
use super::super::helm_cli::HelmCli;
use super::super::objects::{Manifest, manifests};
use super::template::{self, Context};

/// Kinds in the order in which Helm installs them; others come last.
const INSTALL_ORDER: [&str; 36] = [
    "PriorityClass",
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
];

fn position(kind: &str) -> usize {
    INSTALL_ORDER.iter().position(|known| *known == kind).unwrap_or(INSTALL_ORDER.len())
}

const HOOK: &str = "helm.sh/hook";
const EVENTS: [&str; 9] = [
    "pre-install",
    "post-install",
    "pre-upgrade",
    "post-upgrade",
    "pre-rollback",
    "post-rollback",
    "pre-delete",
    "post-delete",
    "test",
];
const DELETE_POLICIES: [&str; 3] = ["before-hook-creation", "hook-succeeded", "hook-failed"];
/// What `Chart.yaml` may say without changing what is rendered.
const METADATA: [&str; 12] = [
    "apiVersion",
    "name",
    "version",
    "appVersion",
    "description",
    "type",
    "home",
    "sources",
    "maintainers",
    "icon",
    "keywords",
    "annotations",
];

/// What a release consists of, in the parts of Helm's record.
pub(super) struct Rendered {
    /// The chart as the record has it.
    pub(super) chart: Value,
    pub(super) manifest: String,
    pub(super) hooks: Vec<Value>,
}

/// Renders the chart of a request.
///
/// # Errors
/// A sentence: file, line and construct that is not known, or what is wrong with the chart.
pub(super) fn render(request: &ReleaseRequest) -> Result<Rendered, String> {
    let metadata = chart_metadata(&request.chart).map_err(|error| error.to_string())?;
    let files = files(request)?;
    check(&files)?;
    let defaults = match files.get("values.yaml") {
        Some(text) => serde_yaml_ng::from_str(text).map_err(|error| format!("values.yaml: {error}"))?,
        None => Value::Null,
    };
    let defaults = if defaults.is_null() { json!({}) } else { defaults };
    let values = merge_values(defaults.clone(), request.values.clone());
    let context = Context { values: &values, release: &request.name, namespace: &request.namespace, chart: &metadata };
    let (mut objects, mut hooks) = (Vec::new(), Vec::new());
    for (path, text) in files.iter().filter(|(path, _)| is_template(path)) {
        let file = format!("{}/{path}", metadata.name);
        let rendered = template::render(&file, text, &context)?;
        let labelled = HelmCli::add_labels(&rendered, &request.labels)?;
        for object in manifests(&labelled).map_err(|why| format!("{file}: {why}"))? {
            match annotation(&object, HOOK).map(str::to_owned) {
                Some(events) => hooks.push(hook(&file, &object, &events)?),
                None => objects.push((file.clone(), object)),
            }
        }
    }
    objects.sort_by(|(a_file, a), (b_file, b)| {
        (position(&a.id.kind), &a.id.kind, &a.id.name, a_file).cmp(&(
            position(&b.id.kind),
            &b.id.kind,
            &b.id.name,
            b_file,
        ))
    });
    let manifest = objects.iter().map(|(file, object)| format!("---\n# Source: {file}\n{}\n", object.body)).collect();
    Ok(Rendered { chart: record(&metadata, &files, &defaults)?, manifest, hooks })
}

pub(super) fn annotation<'a>(object: &'a Manifest, key: &str) -> Option<&'a str> {
    object.body.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// The chart's text files, by their path in the chart.
fn files(request: &ReleaseRequest) -> Result<BTreeMap<String, String>, String> {
    let files = unpack(&request.chart).map_err(|error| format!("unpacking the chart: {error}"))?;
    let inside = files.into_iter().filter_map(|(path, file)| {
        let path = path.split_once('/')?.1.to_owned();
        match file {
            Packed::File { content, .. } => Some((path, String::from_utf8_lossy(&content).into_owned())),
            Packed::Link(_) => None,
        }
    });
    Ok(inside.collect())
}

fn is_template(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("templates/") && !name.starts_with('_') && name != "NOTES.txt"
}

fn check(files: &BTreeMap<String, String>) -> Result<(), String> {
    let not_known = |what: &str| Err(format!("the renderer does not know {what}"));
    for path in files.keys() {
        let is_yaml = [".yaml", ".yml"].iter().any(|ending| path.ends_with(ending));
        if path.starts_with("charts/") || path.starts_with("crds/") || path == "values.schema.json" {
            return not_known(path);
        }
        if is_template(path) && !is_yaml {
            return not_known(path);
        }
    }
    let text = files.get("Chart.yaml").map(String::as_str).unwrap_or_default();
    let fields: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("Chart.yaml: {error}"))?;
    let unknown = fields.as_object().and_then(|map| map.keys().find(|field| !METADATA.contains(&field.as_str())));
    if let Some(field) = unknown {
        return not_known(&format!("{field} in Chart.yaml"));
    }
    match fields.get("type").and_then(Value::as_str) {
        None | Some("application") => Ok(()),
        Some(other) => not_known(&format!("charts of type {other}")),
    }
}

fn record(metadata: &ChartMetadata, files: &BTreeMap<String, String>, values: &Value) -> Result<Value, String> {
    let text = files.get("Chart.yaml").map(String::as_str).unwrap_or_default();
    let mut fields: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("Chart.yaml: {error}"))?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("version".to_owned(), metadata.version.clone().into());
    }
    Ok(json!({ "metadata": fields, "lock": null, "templates": [], "values": values, "schema": null, "files": [] }))
}

/// A hook in the form of Helm's record.
fn hook(file: &str, object: &Manifest, events: &str) -> Result<Value, String> {
    let refuse = |what: String| Err(format!("{file}: the renderer does not know {what} (hook {})", object.id));
    let list = |text: &str| text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>();
    let events = list(events);
    if let Some(event) = events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        return refuse(format!("the event {event}"));
    }
    let policies = annotation(object, "helm.sh/hook-delete-policy").map(list);
    let policies = policies.unwrap_or_else(|| vec!["before-hook-creation".to_owned()]);
    if let Some(policy) = policies.iter().find(|policy| !DELETE_POLICIES.contains(&policy.as_str())) {
        return refuse(format!("the delete policy {policy}"));
    }
    if annotation(object, "helm.sh/hook-output-log-policy").is_some() {
        return refuse("helm.sh/hook-output-log-policy".to_owned());
    }
    if object.id.kind == "Pod" {
        return refuse("hooks that are pods".to_owned());
    }
    let weight = match annotation(object, "helm.sh/hook-weight") {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(weight) => weight,
            Err(_) => return refuse(format!("the weight {text}")),
        },
    };
    Ok(json!({
        "name": object.id.name, "kind": object.id.kind, "path": file, "manifest": object.body.to_string(),
        "events": events, "weight": weight, "delete_policies": policies,
        "last_run": { "started_at": "", "completed_at": "", "phase": "" },
    }))
}
