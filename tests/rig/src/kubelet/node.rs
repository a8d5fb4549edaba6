//! The node object: registration and heartbeat.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use kube_sim::controllers::pods::node::ready_status;
use serde_json::json;

use super::KubeletArgs;

const MANAGER: &str = "rig-kubelet";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Makes the Node (and its CSINode) exist, ready and schedulable.
pub(super) async fn register(client: &Client, args: &KubeletArgs) -> kube::Result<()> {
    let mut labels: BTreeMap<String, String> = args.labels.iter().cloned().collect();
    labels.insert("kubernetes.io/hostname".to_owned(), args.node_name.clone());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": args.node_name, "labels": labels },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    let apply = PatchParams::apply(MANAGER).force();
    let node = nodes.patch(&args.node_name, &apply, &Patch::Apply(node)).await?;
    nodes
        .patch_status(&args.node_name, &merge(), &Patch::Merge(ready_status(&args.node_name, Timestamp::now())))
        .await?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: args.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let csi_node = CSINode {
        metadata: ObjectMeta {
            name: Some(args.node_name.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec {
            drivers: vec![CSINodeDriver {
                name: args.csi_driver.clone(),
                node_id: args.node_name.clone(),
                ..CSINodeDriver::default()
            }],
        },
    };
    let csi_nodes: Api<CSINode> = Api::all(client.clone());
    match csi_nodes.create(&PostParams::default(), &csi_node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let spec = json!({ "spec": csi_node.spec });
            csi_nodes.patch(&args.node_name, &merge(), &Patch::Merge(spec)).await?;
        }
        result => drop(result?),
    }
    renew_lease(client, args).await
}

/// Renews the lease and the conditions for ever; a renewal that fails is tried again at the next beat.
pub(super) async fn heartbeat(client: &Client, args: &KubeletArgs) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let beat = async {
            nodes
                .patch_status(&args.node_name, &merge(), &Patch::Merge(ready_status(&args.node_name, Timestamp::now())))
                .await?;
            renew_lease(client, args).await
        };
        if let Err(error) = beat.await {
            tracing::warn!(%error, "heartbeat");
        }
    }
}

async fn renew_lease(client: &Client, args: &KubeletArgs) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let spec = LeaseSpec {
        holder_identity: Some(args.node_name.clone()),
        lease_duration_seconds: Some(40),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": args.node_name }, "spec": spec,
    });
    match leases.patch(&args.node_name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(lease)).await {
        // The API server makes the namespace by itself a moment after it started; the next beat finds it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

fn merge() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}
