//! What a scheduler decides about a pod: whether the node fits and whether its claims let it start.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::node;
use super::volumes::claim_name;
use crate::controllers::watched::Known;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Whether the pod needs a node, and from us.
pub(super) fn is_unscheduled(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_ref().is_none_or(String::is_empty)
        && pod.metadata.deletion_timestamp.is_none()
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler")
}

/// Binds the pod to the node if that is possible now; says why not in its status. Returns whether it is bound. A pod that is not
/// need be looked at again only when its claims change.
pub(super) async fn schedule(
    client: &Client,
    node: &str,
    pod: &Pod,
    claims: &Known<PersistentVolumeClaim>,
) -> kube::Result<bool> {
    let namespace = pod.namespace().unwrap_or_default();
    if !fits(pod, node) {
        let why = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
        return unschedulable(client, pod, why).await.map(|()| false);
    }
    let mut unbound = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(name) = claim_name(pod, volume) else { continue };
        match claims.get(&namespace, &name) {
            None => {
                let why = format!("persistentvolumeclaim \"{name}\" not found");
                return unschedulable(client, pod, &why).await.map(|()| false);
            }
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
                let why = format!("persistentvolumeclaim \"{name}\" is being deleted");
                return unschedulable(client, pod, &why).await.map(|()| false);
            }
            Some(claim) => match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Bound") => {}
                Some("Lost") => {
                    let why = format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume");
                    return unschedulable(client, pod, &why).await.map(|()| false);
                }
                _ => unbound.push(claim),
            },
        }
    }
    let mut waits = false;
    for claim in &unbound {
        if claim.annotations().contains_key(SELECTED_NODE) {
            continue;
        }
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
        let classes: Api<StorageClass> = Api::all(client.clone());
        let class = if class.is_empty() { None } else { classes.get_opt(&class).await? };
        waits |= class.and_then(|class| class.volume_binding_mode).as_deref() != Some("WaitForFirstConsumer");
    }
    if waits {
        let why = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
        return unschedulable(client, pod, why).await.map(|()| false);
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    for claim in unbound.iter().filter(|claim| !claim.annotations().contains_key(SELECTED_NODE)) {
        let patch = json!({ "metadata": { "uid": claim.metadata.uid, "annotations": { SELECTED_NODE: node } } });
        api.patch(&claim.name_any(), &manager(), &Patch::Merge(patch)).await?;
    }
    if !unbound.is_empty() {
        return Ok(false);
    }
    bind(client, node, pod).await.map(|()| true)
}

/// Whether the pod may run on the node: its selector, and the names in its required affinity.
fn fits(pod: &Pod, node: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let labels = node::labels(node);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
    let named = required.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| {
            let mut fields = term.match_fields.iter().flatten().filter(|field| field.key == "metadata.name");
            fields.all(|field| field.values.iter().flatten().any(|value| value == node))
        })
    });
    selected && named
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some("kube-scheduler".to_owned()), ..PatchParams::default() }
}

async fn bind(client: &Client, node: &str, pod: &Pod) -> kube::Result<()> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": pod.name_any(), "uid": pod.metadata.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let bound: kube::Result<Value> =
        api.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await;
    match bound {
        // Gone, or somebody else was first: the watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}

async fn unschedulable(client: &Client, pod: &Pod, why: &str) -> kube::Result<()> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut known = conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
    if known.any(|one| one.message.as_deref() == Some(why)) {
        return Ok(());
    }
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why });
    let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    match api.patch_status(&pod.name_any(), &manager(), &Patch::Strategic(patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}
