//! Definitions of the kinds of Flux, for servers that know none.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

/// Group, version, kind and plural.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("source", "v1", "GitRepository", "gitrepositories"),
    ("source", "v1", "HelmRepository", "helmrepositories"),
    ("source", "v1", "HelmChart", "helmcharts"),
    ("source", "v1", "OCIRepository", "ocirepositories"),
    ("source", "v1", "Bucket", "buckets"),
    ("kustomize", "v1", "Kustomization", "kustomizations"),
    ("helm", "v2", "HelmRelease", "helmreleases"),
];

/// The definitions of the kinds that the stand-ins know. Spec and status are open, unlike Flux's own; what they have of
/// those is what controllers rely on: the status is a subresource, and begins with an observed generation of -1, so that an
/// object that nobody has looked at is not taken for done.
#[must_use]
pub fn flux_crds() -> Vec<CustomResourceDefinition> {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let first = json!({ "observedGeneration": -1 });
    let status = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": first });
    let schema = json!({ "type": "object", "properties": { "spec": open, "status": status } });
    let definitions = KINDS.iter().filter_map(|(group, version, kind, plural)| {
        let group = format!("{group}.toolkit.fluxcd.io");
        let definition = json!({
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": { "plural": plural, "kind": kind, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "subresources": { "status": {} }, "schema": { "openAPIV3Schema": schema },
                }],
            },
        });
        serde_json::from_value(definition).ok()
    });
    definitions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_definition() {
        assert_eq!(flux_crds().len(), KINDS.len());
    }
}
