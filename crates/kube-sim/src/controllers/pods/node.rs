//! The node object: registration, and the volumes in use. Any small kubelet can use [`ready_status`] and [`VolumesInUse`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Mutex;

const MANAGER: &str = "kubelet";

/// How long a node still reports a volume that nothing uses any more, also when the pod is gone from the API: a kubelet says so with
/// its next status, up to ten seconds later.
pub const NODE_STATUS_LAG: Duration = Duration::from_millis(300);

/// Makes the Node exist, ready and schedulable. Its conditions are not renewed: nothing here ends a node that is silent.
pub(super) async fn register(client: &Client, name: &str, now: Timestamp) -> kube::Result<()> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": labels(name) },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(node)).await?;
    nodes.patch_status(name, &merge(), &Patch::Merge(ready_status(name, now))).await.map(drop)
}

/// The labels of the node.
pub(super) fn labels(name: &str) -> BTreeMap<String, String> {
    let labels = [("kubernetes.io/arch", "amd64"), ("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux")];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn merge() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// A merge patch that makes the node `name` ready as of `now`, with room for everything.
#[must_use]
pub fn ready_status(name: &str, now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now,
                "lastTransitionTime": now })
    };
    let room = json!({ "cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti" });
    json!({ "status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [
            { "type": "InternalIP", "address": "127.0.0.1" },
            { "type": "Hostname", "address": name },
        ],
        "nodeInfo": {
            "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "linux",
            "osImage": "test", "containerRuntimeVersion": "processes://1", "kubeletVersion": "v1.36.3",
            "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ],
    }})
}

/// `status.volumesInUse` of the node: a volume is listed before the first container that uses it starts, and until some time after
/// the last one has ended.
pub struct VolumesInUse {
    client: Client,
    node: String,
    /// Volume to the UIDs of the pods that use it. Held across the write, so that writes keep their order.
    users: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl VolumesInUse {
    /// Of the node of that name; nothing is in use.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node, users: Mutex::default() }
    }

    /// Writes the list as it is.
    ///
    /// # Errors
    /// When the API server refuses; the list is written anew with the next change.
    pub async fn publish(&self) -> kube::Result<()> {
        self.write(&*self.users.lock().await).await
    }

    /// Adds `volumes` for the pod; returns once the API server has them.
    ///
    /// # Errors
    /// When the API server refuses; to be called again.
    pub async fn add(&self, uid: &str, volumes: &[String]) -> kube::Result<()> {
        let mut users = self.users.lock().await;
        for volume in volumes {
            users.entry(volume.clone()).or_default().insert(uid.to_owned());
        }
        self.write(&users).await
    }

    /// Removes everything of the pod; returns once the API server knows.
    ///
    /// # Errors
    /// When the API server refuses; to be called again.
    pub async fn remove(&self, uid: &str) -> kube::Result<()> {
        let mut users = self.users.lock().await;
        for pods in users.values_mut() {
            pods.remove(uid);
        }
        users.retain(|_, pods| !pods.is_empty());
        self.write(&users).await
    }

    async fn write(&self, users: &BTreeMap<String, BTreeSet<String>>) -> kube::Result<()> {
        let volumes: Vec<&String> = users.keys().collect();
        let patch = json!({ "status": { "volumesInUse": volumes } });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch_status(&self.node, &merge(), &Patch::Merge(patch)).await.map(drop)
    }
}
