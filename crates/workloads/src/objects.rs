//! Small readings of objects that everything here needs: controllers, claims, images.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use upgrade_core::ports::ObjectRef;

/// The controller of an object, if it has one.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_deref().unwrap_or_default().iter().find(|owner| owner.controller == Some(true))
}

/// An owner as an object of the same namespace.
pub(crate) fn owner_object(owner: &OwnerReference, namespace: &str) -> ObjectRef {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    ObjectRef::new(group, &owner.kind, namespace, &owner.name)
}

/// Names of the claims a pod made from `spec` mounts. `pod` is its name, for volumes whose claim is made with the pod; templates
/// have none, and such claims are not theirs to keep.
pub(crate) fn claims(spec: &PodSpec, pod: Option<&str>) -> Vec<String> {
    let mut claims: Vec<String> = Vec::new();
    for volume in spec.volumes.as_deref().unwrap_or_default() {
        if let Some(claim) = &volume.persistent_volume_claim {
            claims.push(claim.claim_name.clone());
        } else if let (Some(_), Some(pod)) = (&volume.ephemeral, pod) {
            claims.push(format!("{pod}-{}", volume.name));
        }
    }
    claims.sort();
    claims.dedup();
    claims
}

/// `(container, image)` of init containers and containers, in their order.
pub(crate) fn images(spec: &PodSpec) -> Vec<(String, String)> {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    init.iter()
        .chain(&spec.containers)
        .map(|container| (container.name.clone(), container.image.clone().unwrap_or_default()))
        .collect()
}

/// How many claims are named for ordinals that a StatefulSet may only have one day: its replicas are any number that somebody wrote.
const MOST_ORDINALS: i32 = 1000;

/// Names of the claims of a StatefulSet: those its template names, those of the ordinals it has or will have, and those of
/// `existing` that other ordinals left behind, because they are mounted again as soon as it grows.
pub(crate) fn stateful_set_claims(set: &StatefulSet, existing: &[String]) -> Vec<String> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let mut names = spec.template.spec.as_ref().map(|template| claims(template, None)).unwrap_or_default();
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let most = MOST_ORDINALS / i32::try_from(templates.len()).unwrap_or(MOST_ORDINALS).max(1);
    let replicas = spec.replicas.unwrap_or(1).min(most);
    for template in templates {
        let prefix = format!("{}-{}-", template.name_any(), set.name_any());
        names.extend((start..start.saturating_add(replicas)).map(|ordinal| format!("{prefix}{ordinal}")));
        names.extend(existing.iter().filter(|name| ordinal(name, &prefix)).cloned());
    }
    names.sort();
    names.dedup();
    names
}

fn ordinal(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) && (rest == "0" || !rest.starts_with('0'))
    })
}

/// Whether a pod has ended and will not run again.
pub(crate) fn ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A pod's phase; `Unknown` when it has none yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
}

/// Whether a pod is Ready and not on its way out.
pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_stateful_set_owns_the_claims_of_its_ordinals_and_of_those_it_had() {
        let set: StatefulSet = from_value(json!({
            "metadata": { "name": "db" },
            "spec": {
                "replicas": 2, "ordinals": { "start": 3 }, "serviceName": "db", "selector": {},
                "template": { "spec": { "containers": [], "volumes": [{ "name": "x", "persistentVolumeClaim": { "claimName": "shared" } }] } },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" } }]
            }
        }))
        .unwrap();
        let existing = ["data-db-0", "data-db-3", "data-db-x", "data-db-01", "data-dbx-0", "other"].map(String::from);
        assert_eq!(stateful_set_claims(&set, &existing), ["data-db-0", "data-db-3", "data-db-4", "shared"]);
        let mut idle = set;
        idle.spec.as_mut().unwrap().replicas = Some(0);
        assert_eq!(stateful_set_claims(&idle, &existing), ["data-db-0", "data-db-3", "shared"]);
        let mut endless = idle;
        endless.spec.as_mut().unwrap().replicas = Some(i32::MAX);
        let far = ["data-db-2000000000".to_owned()];
        let named = stateful_set_claims(&endless, &far);
        assert!(named.len() < 1100 && named.contains(&far[0]), "{} names", named.len());
    }

    #[test]
    fn claims_made_with_a_pod_belong_to_the_pod_and_not_to_its_template() {
        let spec: PodSpec = from_value(json!({
            "containers": [],
            "volumes": [
                { "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } },
                { "name": "b", "persistentVolumeClaim": { "claimName": "data" } },
                { "name": "c", "persistentVolumeClaim": { "claimName": "data", "readOnly": true } },
                { "name": "d", "emptyDir": {} }
            ]
        }))
        .unwrap();
        assert_eq!(claims(&spec, None), ["data"]);
        assert_eq!(claims(&spec, Some("p")), ["data", "p-scratch"]);
    }
}
