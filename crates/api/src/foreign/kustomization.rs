//! Flux `Kustomization`, `kustomize.toolkit.fluxcd.io/v1`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Inventory;

/// Where `disabled` keeps kustomize-controller from applying an object, as an annotation or a label.
pub const RECONCILE: &str = "kustomize.toolkit.fluxcd.io/reconcile";
/// Our mark beside such an annotation: we wrote it, and we alone take it away.
pub const KEPT_BY_US: &str = "upgrades.windlass.dev/kept-from-git";

/// What somebody else wrote on an object that keeps kustomize-controller from applying it, as `key: value`. It reads annotations
/// and labels, in any case of letters.
#[must_use]
pub fn kept_from_git<'a>(
    annotation: impl Fn(&str) -> Option<&'a str>,
    label: impl Fn(&str) -> Option<&'a str>,
) -> Option<String> {
    const SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
    let says = |value: Option<&'a str>, words: &[&str]| {
        value.filter(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
    };
    let ours = annotation(KEPT_BY_US).is_some();
    let found = says(annotation(RECONCILE).filter(|_| !ours), &["disabled"]).or(says(label(RECONCILE), &["disabled"]));
    let ssa = ["ignore", "ifnotpresent"];
    let found = found.map(|value| (RECONCILE, value));
    let found = found.or_else(|| Some((SSA, says(annotation(SSA), &ssa).or(says(label(SSA), &ssa))?)));
    found.map(|(key, value)| format!("{key}: {value}"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_kept_from_git_by_an_annotation_or_a_label_that_is_not_ours() {
        type Marks = &'static [(&'static str, &'static str)];
        const SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
        let cases: [(Marks, Marks, bool); 8] = [
            (&[(RECONCILE, "Disabled")], &[], true),
            (&[(RECONCILE, "disabled"), (KEPT_BY_US, "true")], &[], false),
            (&[(RECONCILE, "disabled"), (KEPT_BY_US, "true")], &[(RECONCILE, "disabled")], true),
            (&[], &[(RECONCILE, "disabled")], true),
            (&[(RECONCILE, "enabled")], &[], false),
            (&[(SSA, "IfNotPresent")], &[], true),
            (&[], &[(SSA, "Ignore")], true),
            (&[(SSA, "Merge"), ("kustomize.toolkit.fluxcd.io/prune", "disabled")], &[], false),
        ];
        for (annotations, labels, kept) in cases {
            let get = |of: Marks| move |key: &str| of.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            let found = kept_from_git(get(annotations), get(labels));
            assert_eq!(found.is_some(), kept, "{annotations:?} {labels:?}: {found:?}");
        }
    }
}
