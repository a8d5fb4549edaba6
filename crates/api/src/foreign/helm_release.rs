//! Flux `HelmRelease`, `helm.toolkit.fluxcd.io/v2`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Inventory, SourceReference};

/// What should be released.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helm.toolkit.fluxcd.io",
    version = "v2",
    kind = "HelmRelease",
    plural = "helmreleases",
    namespaced,
    status = "HelmReleaseStatus",
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Flux HelmRelease: the part of it that Windlass reads."
)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmReleaseSpec {
    /// The chart, unless `chart_ref` names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart: Option<ChartTemplate>,
    /// Another object that holds the chart and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart_ref: Option<ChartReference>,
    /// The name of the Helm release, if not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_name: Option<String>,
    /// Where it is installed, if not in its own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_namespace: Option<String>,
    /// Where Helm keeps its release Secrets, if not in the object's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_namespace: Option<String>,
    /// Absent is not the same as `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How often it is reconciled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long one Helm action may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Another cluster, if the release goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_config: Option<Value>,
    /// How it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<HelmAction>,
    /// How it is upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<HelmAction>,
    /// Helm tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Value>,
    /// Drift detection and correction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_detection: Option<Value>,
    /// The values in the object itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Value>,
    /// Values from ConfigMaps and Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values_from: Vec<ValuesReference>,
}

/// The chart of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChartTemplate {
    /// The chart.
    pub spec: ChartTemplateSpec,
}

/// The chart of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChartTemplateSpec {
    /// Its name in a Helm repository, or its path in another source.
    pub chart: String,
    /// Its version or a range; absent means the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it comes from.
    pub source_ref: SourceReference,
    /// `ChartVersion` (default) or `Revision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconcile_strategy: Option<String>,
}

/// An object that holds a chart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChartReference {
    /// `OCIRepository`, `HelmChart` or `ExternalArtifact`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, if another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How a release is installed or upgraded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmAction {
    /// What happens after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<HelmStrategy>,
    /// How a failure is remediated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation>,
    /// Replace objects that cannot be patched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Do not wait for the workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_wait: Option<bool>,
    /// Do not run hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_hooks: Option<bool>,
    /// How long this action may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// `Skip`, `Create` or `CreateReplace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crds: Option<String>,
}

/// What happens after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmStrategy {
    /// `RemediateOnFailure` (default) or `RetryOnFailure`.
    pub name: String,
    /// How long to wait between retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_interval: Option<String>,
}

/// How a failure is remediated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Remediation {
    /// How often to try again; 0 when absent, below 0 for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// Whether the last failure is remediated as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediate_last_failure: Option<bool>,
    /// `rollback` (default) or `uninstall`; of upgrades only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
}

/// Values from a ConfigMap or a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValuesReference {
    /// `ConfigMap` or `Secret`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The key in it; `values.yaml` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values_key: Option<String>,
    /// The place in the values that the key's content goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_path: Option<String>,
    /// Whether it may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// What was released.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmReleaseStatus {
    /// Also moved on while suspended: proves nothing by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempted_generation: Option<i64>,
    /// The chart version of the last attempt; for OCI with `+<digest>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// The digest of the values of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempted_config_digest: Option<String>,
    /// `install` or `upgrade`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempted_release_action: Option<String>,
    /// The last token that was handled, also while suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The last `forceAt` that was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_force_at: Option<String>,
    /// The last `resetAt` that was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reset_at: Option<String>,
    /// The HelmChart made for it, as `<namespace>/<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helm_chart: Option<String>,
    /// Where Helm keeps its release Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_namespace: Option<String>,
    /// Failures since the last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// Failed upgrades since the last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_failures: Option<i64>,
    /// The releases, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HelmReleaseSnapshot>,
    /// The objects of the release; older controllers do not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Ready, Released, Remediated, Reconciling, Stalled and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One release in the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HelmReleaseSnapshot {
    /// The name of the Helm release.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its Helm revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// `deployed`, `superseded`, `failed`, ...
    pub status: String,
    /// `install`, `upgrade`, `rollback`, `uninstall` or `uninstall-remediation`; older controllers do not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The name of the chart.
    pub chart_name: String,
    /// The version of the chart.
    pub chart_version: String,
    /// The app version that the chart names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The digest of the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
    /// The digest of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}
