//! Which claims of a StatefulSet go with it or with their pod: they are given an owner, and the garbage collector does the rest.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::json;

use super::world::{World, controller_reference};

/// `(whenDeleted, whenScaled)`: whether claims go.
fn deletes(spec: &StatefulSetSpec) -> (bool, bool) {
    let policy = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let deletes = |word: Option<String>| word.as_deref() == Some("Delete");
    (deletes(policy.when_deleted), deletes(policy.when_scaled))
}

/// The owner of a claim that is made now.
pub(super) fn owners_at_birth(set: &StatefulSet, spec: &StatefulSetSpec) -> Option<Vec<OwnerReference>> {
    deletes(spec).0.then(|| vec![controller_reference(set)])
}

/// Gives the claims of a pod the owner that the policy asks for; `condemned` pods are those that scaling down removes.
pub(super) async fn apply(
    world: &mut World,
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    pod: &Pod,
    claims: &[String],
    condemned: bool,
) -> kube::Result<()> {
    let owner = match deletes(spec) {
        (_, true) if condemned => Some(controller_reference(pod)),
        (true, _) => Some(controller_reference(set)),
        (false, _) => None,
    };
    let namespace = set.namespace().unwrap_or_default();
    for name in claims {
        let Some(claim) = world.claims.get(&namespace, name).cloned() else { continue };
        let ours = |one: &OwnerReference| {
            Some(&one.uid) == set.metadata.uid.as_ref() || one.kind == "Pod" && one.name == pod.name_any()
        };
        let known = claim.owner_references();
        let mut owners: Vec<OwnerReference> = known.iter().filter(|one| !ours(one)).cloned().collect();
        owners.extend(owner.clone());
        let same = owners.len() == known.len() && owners.iter().all(|one| known.iter().any(|its| its.uid == one.uid));
        if !same {
            world.patch(&*claim, json!({ "metadata": { "ownerReferences": owners } })).await?;
        }
    }
    Ok(())
}

/// Whether a claim still goes with an earlier pod of that name: the next one must wait until it is gone.
pub(super) fn is_stale(world: &World, set: &StatefulSet, claims: &[String]) -> bool {
    let namespace = set.namespace().unwrap_or_default();
    let mut known = claims.iter().filter_map(|name| world.claims.get(&namespace, name));
    known.any(|claim| claim.owner_references().iter().any(|owner| owner.kind == "Pod"))
}
