//! Flux `Kustomization`, `kustomize.toolkit.fluxcd.io/v1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Inventory;

/// What should be applied.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kustomize.toolkit.fluxcd.io",
    version = "v1",
    kind = "Kustomization",
    plural = "kustomizations",
    namespaced,
    status = "KustomizationStatus",
    schema = "disabled",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Flux Kustomization: the part of it that Windlass reads."
)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizationSpec {
    /// Absent is not the same as `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Where the manifests come from.
    pub source_ref: SourceReference,
    /// The folder in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether objects that left the source are deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// Whether all objects must become healthy; makes `health_checks` ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Whether objects that cannot be patched are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// How often it is reconciled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How often it is tried again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_interval: Option<String>,
    /// How long applying and health checks may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// A namespace put on all objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_namespace: Option<String>,
    /// Another cluster, if the objects go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_config: Option<Value>,
    /// Substitutions after the build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_build: Option<Value>,
    /// Patches that are not in the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Value>,
    /// Images that are not in the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Value>,
    /// How the source is decrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decryption: Option<Value>,
}

/// A Flux source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceReference {
    /// `GitRepository`, `OCIRepository`, `HelmRepository`, `Bucket` or `ExternalArtifact`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, if another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What was applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizationStatus {
    /// May stay behind while suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The revision that was applied *and* passed its health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,
    /// The revision of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,
    /// The last token that was handled, also while suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The objects it manages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Ready, Healthy, Reconciling and Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
