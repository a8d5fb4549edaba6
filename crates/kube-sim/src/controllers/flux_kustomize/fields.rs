//! The fields of a Kustomization, and which of them the stand-in does not know.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::conditions::Conditions;
use super::super::flux_objects::{SourceName, SourceRef, duration};
use super::super::objects::ObjectId;

/// The shortest time that the apply and the health checks are given.
const MIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `spec` of a Kustomization, as far as it is understood.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KustomizationSpec {
    pub(super) source_ref: SourceRef,
    pub(super) path: String,
    interval: String,
    retry_interval: Option<String>,
    timeout: Option<String>,
    pub(super) prune: bool,
    pub(super) deletion_policy: Option<String>,
    pub(super) wait: bool,
    pub(super) health_checks: Vec<HealthCheck>,
    pub(super) suspend: bool,
    pub(super) target_namespace: Option<String>,
    pub(super) depends_on: Vec<SourceName>,
    pub(super) force: bool,
    pub(super) common_metadata: CommonMetadata,
    pub(super) images: Vec<Image>,
    pub(super) post_build: Option<PostBuild>,
}

impl KustomizationSpec {
    pub(super) fn interval(&self) -> Duration {
        duration(Some(&self.interval), Duration::from_secs(60))
    }

    pub(super) fn retry_interval(&self) -> Duration {
        duration(self.retry_interval.as_deref(), self.interval())
    }

    pub(super) fn timeout(&self) -> Duration {
        let default = self.interval().saturating_sub(MIN_TIMEOUT);
        duration(self.timeout.as_deref(), default).max(MIN_TIMEOUT)
    }
}

/// One entry of `spec.healthChecks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HealthCheck {
    api_version: String,
    kind: String,
    name: String,
    namespace: String,
}

impl HealthCheck {
    /// The object and its version.
    pub(super) fn target(&self) -> (ObjectId, String) {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        let [kind, namespace, name] = [&self.kind, &self.namespace, &self.name].map(Clone::clone);
        (ObjectId { group: group.to_owned(), kind, namespace, name }, version.to_owned())
    }
}

/// Labels and annotations for all objects.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CommonMetadata {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// An image to be changed, wherever a container has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) new_name: Option<String>,
    pub(super) new_tag: Option<String>,
    pub(super) digest: Option<String>,
}

/// `spec.postBuild`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PostBuild {
    pub(super) substitute: BTreeMap<String, String>,
    pub(super) substitute_strategy: Option<String>,
}

/// Fields that change what is applied and that the stand-in does not know.
const UNKNOWN: [&str; 13] = [
    "buildMetadata",
    "components",
    "decryption",
    "healthCheckExprs",
    "ignore",
    "ignoreMissingComponents",
    "kubeConfig",
    "namePrefix",
    "nameSuffix",
    "patches",
    "patchesJson6902",
    "patchesStrategicMerge",
    "serviceAccountName",
];

/// The first field that asks for something the stand-in does not do.
pub(super) fn unsupported(spec: &Value) -> Option<String> {
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    if let Some(field) = UNKNOWN.iter().find(|field| spec.get(**field).is_some_and(is_set)) {
        return Some(format!("spec.{field}"));
    }
    if spec.pointer("/postBuild/substituteFrom").is_some_and(is_set) {
        return Some("spec.postBuild.substituteFrom".to_owned());
    }
    let dependencies = spec.get("dependsOn").and_then(Value::as_array).into_iter().flatten();
    if dependencies.into_iter().any(|dependency| dependency.get("readyExpr").is_some_and(is_set)) {
        return Some("spec.dependsOn[].readyExpr".to_owned());
    }
    match spec.pointer("/sourceRef/kind").and_then(Value::as_str) {
        Some("GitRepository") => None,
        kind => Some(format!("spec.sourceRef.kind {}", kind.unwrap_or("(none)"))),
    }
}

/// `status` of a Kustomization.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KustomizationStatus {
    pub(super) observed_generation: i64,
    pub(super) last_handled_reconcile_at: Option<String>,
    pub(super) last_applied_revision: Option<String>,
    pub(super) last_attempted_revision: Option<String>,
    pub(super) inventory: Option<Inventory>,
    pub(super) conditions: Conditions,
}

/// What was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inventory {
    pub(super) entries: Vec<Entry>,
}

/// One applied object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    id: String,
    v: String,
}

impl Entry {
    pub(super) fn new(id: &ObjectId, version: &str) -> Self {
        Self { id: id.entry(), v: version.to_owned() }
    }

    pub(super) fn target(&self) -> Option<(ObjectId, String)> {
        Some((ObjectId::from_entry(&self.id)?, self.v.clone()))
    }

    pub(super) fn is_same_object(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_done_is_named() {
        let with = |field: &str, value: Value| {
            let mut spec = json!({ "sourceRef": { "kind": "GitRepository", "name": "a" } });
            spec[field] = value;
            unsupported(&spec)
        };
        assert_eq!(with("prune", json!(true)), None);
        assert_eq!(with("patches", json!([])), None);
        assert_eq!(with("patches", json!([{}])).as_deref(), Some("spec.patches"));
        assert_eq!(with("decryption", json!({ "provider": "sops" })).as_deref(), Some("spec.decryption"));
        let from = json!({ "substituteFrom": [{ "kind": "ConfigMap", "name": "a" }] });
        assert_eq!(with("postBuild", from).as_deref(), Some("spec.postBuild.substituteFrom"));
        let gated = json!([{ "name": "a", "readyExpr": "true" }]);
        assert_eq!(with("dependsOn", gated).as_deref(), Some("spec.dependsOn[].readyExpr"));
        let bucket = json!({ "kind": "Bucket", "name": "a" });
        assert_eq!(with("sourceRef", bucket).as_deref(), Some("spec.sourceRef.kind Bucket"));
    }

    #[test]
    fn times_follow_from_the_interval() {
        let spec = |value: Value| serde_json::from_value::<KustomizationSpec>(value).unwrap();
        let short = spec(json!({ "interval": "1m" }));
        assert_eq!((short.timeout(), short.retry_interval()), (MIN_TIMEOUT, Duration::from_secs(60)));
        let set = spec(json!({ "interval": "10m", "timeout": "2m", "retryInterval": "15s" }));
        assert_eq!((set.timeout(), set.retry_interval()), (Duration::from_secs(120), Duration::from_secs(15)));
        assert_eq!(spec(json!({ "interval": "10m", "timeout": "5s" })).timeout(), MIN_TIMEOUT);
    }
}
