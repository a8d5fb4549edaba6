//! Who still has a claim: pods, nodes and attachments.
//!
//! Every pod counts that names the claim, also one that has ended, because its object keeps the claim from going, and one that
//! is not scheduled yet, because it may be at any moment. A volume in a node's `volumesInUse` is not flushed yet.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt as _;
use upgrade_core::ports::{Holder, ObjectRef};

use crate::objects::{claims, phase};

/// Pods that mount one of the claims.
pub(crate) fn pods(pods: &[Pod], wanted: &[String]) -> Vec<Holder> {
    let mut holders = Vec::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let name = pod.name_any();
        let mut why = phase(pod).to_owned();
        if pod.metadata.deletion_timestamp.is_some() {
            why = format!("{why}, being deleted");
        } else if spec.node_name.is_none() {
            why = format!("{why}, not scheduled yet");
        }
        for claim in claims(spec, Some(&name)).into_iter().filter(|claim| wanted.contains(claim)) {
            let by = ObjectRef::new("", "Pod", &pod.namespace().unwrap_or_default(), &name);
            holders.push(Holder { claim, by, why: why.clone() });
        }
    }
    holders
}

/// Nodes that have the volume of a claim in use.
pub(crate) fn nodes(nodes: &[Node], claim: &str, volume: &PersistentVolume) -> Vec<Holder> {
    let Some(csi) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else { return Vec::new() };
    let unique = format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle);
    let uses = |node: &&Node| {
        let in_use = node.status.as_ref().and_then(|status| status.volumes_in_use.as_deref()).unwrap_or_default();
        in_use.contains(&unique)
    };
    let by = |node: &Node| ObjectRef::new("", "Node", "", &node.name_any());
    let holder = |node: &Node| Holder { claim: claim.into(), by: by(node), why: "volumesInUse".into() };
    nodes.iter().filter(uses).map(holder).collect()
}

/// Attachments of the volume of a claim, whether they are done or under way.
pub(crate) fn attachments(attachments: &[VolumeAttachment], claim: &str, volume: &str) -> Vec<Holder> {
    attachments
        .iter()
        .filter(|attachment| attachment.spec.source.persistent_volume_name.as_deref() == Some(volume))
        .map(|attachment| Holder {
            claim: claim.into(),
            by: ObjectRef::new("storage.k8s.io", "VolumeAttachment", "", &attachment.name_any()),
            why: format!("attached to node {}", attachment.spec.node_name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn ended_and_unscheduled_pods_hold_their_claims_too() {
        let pod = |name: &str, claim: &str, node: Option<&str>, phase: &str| -> Pod {
            from_value(json!({
                "metadata": { "name": name, "namespace": "n" },
                "spec": { "containers": [], "nodeName": node, "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] },
                "status": { "phase": phase }
            }))
            .unwrap()
        };
        let all = [
            pod("a", "data", Some("w"), "Running"),
            pod("b", "data", Some("w"), "Succeeded"),
            pod("c", "data", None, "Pending"),
            pod("d", "other", Some("w"), "Running"),
        ];
        let seen: Vec<String> =
            pods(&all, &["data".into()]).iter().map(|holder| format!("{} {}", holder.by.name, holder.why)).collect();
        assert_eq!(seen, ["a Running", "b Succeeded", "c Pending, not scheduled yet"]);
    }

    #[test]
    fn a_node_holds_a_volume_by_driver_and_handle() {
        let node: Node = from_value(json!({
            "metadata": { "name": "w" }, "status": { "volumesInUse": ["kubernetes.io/csi/d^h1"] }
        }))
        .unwrap();
        let volume = |handle: &str| -> PersistentVolume {
            from_value(
                json!({ "metadata": { "name": "pv" }, "spec": { "csi": { "driver": "d", "volumeHandle": handle } } }),
            )
            .unwrap()
        };
        assert_eq!(nodes(std::slice::from_ref(&node), "data", &volume("h1")).len(), 1);
        assert_eq!(nodes(&[node], "data", &volume("h")), []);
    }

    #[test]
    fn an_attachment_that_is_not_done_yet_counts() {
        let attachment: VolumeAttachment = from_value(json!({
            "metadata": { "name": "at" },
            "spec": { "attacher": "d", "nodeName": "w", "source": { "persistentVolumeName": "pv" } },
            "status": { "attached": false }
        }))
        .unwrap();
        assert_eq!(attachments(std::slice::from_ref(&attachment), "data", "pv").len(), 1);
        assert_eq!(attachments(&[attachment], "data", "pv-2"), []);
    }
}
