//! The fields of Flux objects that the stand-ins read, and how they write a status.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Error;

pub(super) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
pub(super) const FORCE_AT: &str = "reconcile.fluxcd.io/forceAt";
pub(super) const RESET_AT: &str = "reconcile.fluxcd.io/resetAt";
pub(super) const FINALIZER: &str = "finalizers.fluxcd.io";

/// `spec` of a GitRepository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GitRepositorySpec {
    pub(super) url: String,
    #[serde(rename = "ref")]
    pub(super) reference: GitReference,
    pub(super) secret_ref: Option<LocalRef>,
    pub(super) interval: String,
    pub(super) timeout: Option<String>,
    pub(super) suspend: bool,
}

/// `spec.ref` of a GitRepository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GitReference {
    pub(super) branch: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) semver: Option<String>,
    pub(super) name: Option<String>,
    pub(super) commit: Option<String>,
}

impl GitReference {
    /// The reference to fetch, and what stands before the `@` of the revision.
    pub(super) fn remote_ref(&self) -> Result<(String, Option<String>), String> {
        if self.semver.is_some() {
            return Err("the stand-in does not know spec.ref.semver".to_owned());
        }
        Ok(match (&self.name, &self.tag, &self.branch) {
            (Some(name), ..) => (name.clone(), Some(name.clone())),
            (None, Some(tag), _) => (format!("refs/tags/{tag}"), Some(tag.clone())),
            (None, None, branch) => {
                let label = branch.clone().or_else(|| self.commit.is_none().then(|| "master".to_owned()));
                (format!("refs/heads/{}", branch.as_deref().unwrap_or("master")), label)
            }
        })
    }
}

/// A reference by name, to an object in the same namespace.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct LocalRef {
    pub(super) name: String,
}

/// A reference to a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceRef {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
}

/// `spec` of a HelmRepository or OCIRepository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RepositorySpec {
    pub(super) url: String,
    #[serde(rename = "ref")]
    pub(super) reference: Option<OciReference>,
    pub(super) interval: String,
    pub(super) suspend: bool,
}

/// `spec.ref` of an OCIRepository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OciReference {
    pub(super) tag: Option<String>,
    pub(super) semver: Option<String>,
    pub(super) digest: Option<String>,
}

/// `spec` of a HelmChart, and `spec.chart.spec` of a HelmRelease.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HelmChartSpec {
    pub(super) chart: String,
    pub(super) version: Option<String>,
    pub(super) source_ref: SourceRef,
    pub(super) interval: Option<String>,
    pub(super) reconcile_strategy: Option<String>,
    pub(super) suspend: bool,
}

/// `spec` of a HelmRelease.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HelmReleaseSpec {
    pub(super) chart: Option<ChartTemplate>,
    pub(super) chart_ref: Option<SourceRef>,
    pub(super) release_name: Option<String>,
    pub(super) target_namespace: Option<String>,
    pub(super) storage_namespace: Option<String>,
    pub(super) suspend: bool,
    pub(super) interval: String,
    pub(super) timeout: Option<String>,
    pub(super) depends_on: Vec<SourceName>,
    pub(super) install: ActionSpec,
    pub(super) upgrade: ActionSpec,
    pub(super) rollback: ActionSpec,
    pub(super) uninstall: ActionSpec,
    pub(super) max_history: Option<u32>,
    pub(super) values: Option<Value>,
    pub(super) values_from: Vec<ValuesFrom>,
    pub(super) drift_detection: Option<Value>,
    pub(super) post_renderers: Option<Value>,
    pub(super) test: Option<Value>,
}

/// `spec.chart` of a HelmRelease.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ChartTemplate {
    pub(super) spec: HelmChartSpec,
}

/// A name with an optional namespace.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SourceName {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

/// `spec.install`, `upgrade`, `rollback` or `uninstall`; each uses some of the fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ActionSpec {
    pub(super) timeout: Option<String>,
    pub(super) disable_wait: bool,
    pub(super) disable_hooks: bool,
    pub(super) create_namespace: bool,
    pub(super) strategy: Option<StrategySpec>,
    pub(super) remediation: Option<RemediationSpec>,
}

/// `strategy` of an install or upgrade.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StrategySpec {
    pub(super) name: String,
    pub(super) retry_interval: Option<String>,
}

/// `remediation` of an install or upgrade.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RemediationSpec {
    pub(super) retries: i64,
    pub(super) remediate_last_failure: Option<bool>,
    pub(super) strategy: Option<String>,
}

/// One entry of `spec.valuesFrom`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ValuesFrom {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) values_key: Option<String>,
    pub(super) target_path: Option<String>,
    pub(super) optional: bool,
}

/// The spec of an object, typed.
pub(super) fn spec<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, Error> {
    part(object, "spec")
}

/// The status of an object, typed; what is missing takes its default.
pub(super) fn status<T: DeserializeOwned + Default>(object: &DynamicObject) -> Result<T, Error> {
    if object.data.get("status").is_none_or(Value::is_null) { Ok(T::default()) } else { part(object, "status") }
}

fn part<T: DeserializeOwned>(object: &DynamicObject, part: &str) -> Result<T, Error> {
    let value = object.data.get(part).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|source| Error::Spec { object: describe(object), source })
}

/// `Kind namespace/name`.
pub(super) fn describe(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// The request that the object's status has to acknowledge.
pub(super) fn requested_at(object: &DynamicObject) -> Option<String> {
    object.annotations().get(REQUESTED_AT).cloned()
}

/// A Go duration such as `5m0s`; `default` when absent or not one.
pub(super) fn duration(text: Option<&str>, default: Duration) -> Duration {
    let parsed = text.and_then(|text| text.parse::<jiff::SignedDuration>().ok());
    parsed.and_then(|parsed| Duration::try_from(parsed).ok()).unwrap_or(default)
}

/// Reads an object anew; `None` when it is gone.
pub(super) async fn read(
    client: &Client,
    resource: &ApiResource,
    namespace: &str,
    name: &str,
) -> Result<Option<DynamicObject>, Error> {
    Ok(api(client, resource, namespace).get_opt(name).await?)
}

pub(super) fn api(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// Writes a status. Its absent top-level fields must be serialised as `null`, which removes them. Writing to an object that
/// is gone is no error.
pub(super) async fn write_status(
    client: &Client,
    resource: &ApiResource,
    object: &DynamicObject,
    manager: &str,
    status: &impl Serialize,
) -> Result<(), Error> {
    let api = api(client, resource, &object.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let patch = json!({ "metadata": { "uid": object.metadata.uid }, "status": status });
    match api.patch_status(&object.name_any(), &params, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Makes the finalizers of the object what `wanted` says about ours.
pub(super) async fn set_finalizer(
    client: &Client,
    resource: &ApiResource,
    object: &DynamicObject,
    wanted: bool,
) -> Result<(), Error> {
    let mut finalizers: Vec<String> = object.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    // With the resource version, so that nobody else's finalizer is lost.
    let patch = json!({ "metadata": {
        "resourceVersion": object.metadata.resource_version, "finalizers": finalizers,
    }});
    let api = api(client, resource, &object.namespace().unwrap_or_default());
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// Lays `over` on `under`, as Helm merges values.
pub(super) fn merge_values(under: Value, over: Value) -> Value {
    match (under, over) {
        (Value::Object(mut under), Value::Object(over)) => {
            for (key, value) in over {
                let merged = match under.remove(&key) {
                    Some(before) => merge_values(before, value),
                    None => value,
                };
                under.insert(key, merged);
            }
            Value::Object(under)
        }
        (_, over) => over,
    }
}

/// JSON with sorted keys, for digests.
pub(super) fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, canonical(value))).collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [("5m0s", 300.0), ("1h", 3600.0), ("1h30m", 5400.0), ("500ms", 0.5), ("10s", 10.0)] {
            assert_eq!(duration(Some(text), Duration::ZERO).as_secs_f64(), seconds, "{text}");
        }
        assert_eq!(duration(Some("soon"), Duration::from_secs(7)), Duration::from_secs(7));
    }

    #[test]
    fn values_are_merged_deeply_and_lists_replaced() {
        let merged = merge_values(json!({"a": {"b": 1, "c": [1, 2]}, "d": 1}), json!({"a": {"c": [3]}, "d": null}));
        assert_eq!(merged, json!({"a": {"b": 1, "c": [3]}, "d": null}));
    }
}
