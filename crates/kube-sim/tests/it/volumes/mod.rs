//! The stand-ins for volumes and snapshots, with real bytes in real folders.

mod binding;
mod driving;
mod snapshots;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube_sim::SimServer;
use kube_sim::controllers::Clock;
use kube_sim::controllers::volumes::driver::FolderDriver;
use kube_sim::controllers::volumes::{DRIVER, VolumesContext, classes, run, snapshot_crds};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

/// A cluster with the stand-ins, the rig's classes and nothing else.
struct Cluster {
    server: SimServer,
    driver: Arc<FolderDriver>,
    _root: tempfile::TempDir,
    _stop: DropGuard,
}

impl Cluster {
    async fn new() -> Self {
        let server = super::server();
        let root = tempfile::tempdir().unwrap();
        let clock: Clock = {
            let server = server.clone();
            Arc::new(move || server.now())
        };
        let driver = Arc::new(FolderDriver::open(root.path(), clock.clone()).unwrap());
        let stop = CancellationToken::new();
        let context =
            VolumesContext { client: server.client(), clock, driver: driver.clone(), driver_name: DRIVER.into() };
        let cluster = Self { server, driver, _root: root, _stop: stop.clone().drop_guard() };
        for object in snapshot_crds().into_iter().chain(classes(DRIVER).unwrap()) {
            cluster.create(object).await;
        }
        tokio::spawn(run(context, stop));
        cluster
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let group = match kind {
            "VolumeSnapshot" | "VolumeSnapshotContent" | "VolumeSnapshotClass" => SNAPSHOTS,
            "StorageClass" | "CSIDriver" => "storage.k8s.io",
            "CustomResourceDefinition" => "apiextensions.k8s.io",
            _ => "",
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        match kind {
            "PersistentVolumeClaim" | "Pod" | "VolumeSnapshot" | "Event" => {
                Api::default_namespaced_with(self.server.client(), &resource)
            }
            _ => Api::all_with(self.server.client(), &resource),
        }
    }

    async fn create(&self, object: Value) -> Value {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let made = self.api(&kind).create(&PostParams::default(), &super::from(object)).await.unwrap();
        json!(made)
    }

    /// The object, or null.
    async fn get(&self, kind: &str, name: &str) -> Value {
        json!(self.api(kind).get_opt(name).await.unwrap())
    }

    async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Makes a claim for 1Mi of class `rig`, changed by `change`.
    async fn claim(&self, name: &str, change: Value) -> Value {
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "rig",
                "resources": { "requests": { "storage": "1Mi" } },
            },
        });
        for (key, value) in change.as_object().unwrap() {
            claim["spec"][key] = value.clone();
        }
        self.create(claim).await
    }

    /// A claim that is bound, and its volume.
    async fn bound(&self, name: &str, change: Value) -> (Value, Value) {
        self.claim(name, change).await;
        self.settle().await;
        let claim = self.claim_now(name).await;
        assert_eq!(claim["status"]["phase"], "Bound", "{claim:#}");
        let volume = self.volume_now(claim["spec"]["volumeName"].as_str().unwrap()).await;
        (claim, volume)
    }

    async fn claim_now(&self, name: &str) -> Value {
        self.get("PersistentVolumeClaim", name).await
    }

    async fn volume_now(&self, name: &str) -> Value {
        self.get("PersistentVolume", name).await
    }

    /// Asks for a snapshot of a claim.
    async fn snapshot(&self, name: &str, claim: &str, class: Option<&str>) {
        let mut snapshot = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": name },
            "spec": { "source": { "persistentVolumeClaimName": claim } },
        });
        if let Some(class) = class {
            snapshot["spec"]["volumeSnapshotClassName"] = json!(class);
        }
        self.create(snapshot).await;
    }

    async fn snapshot_now(&self, name: &str) -> Value {
        self.get("VolumeSnapshot", name).await
    }

    /// The content that a snapshot is bound to.
    async fn content_of(&self, snapshot: &str) -> Value {
        let snapshot = self.snapshot_now(snapshot).await;
        self.get("VolumeSnapshotContent", snapshot["status"]["boundVolumeSnapshotContentName"].as_str().unwrap()).await
    }

    /// A pod that names a claim.
    async fn pod(&self, name: &str, claim: &str, node: Option<&str>) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "containers": [{ "name": "main", "image": "app:1" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }],
            },
        });
        if let Some(node) = node {
            pod["spec"]["nodeName"] = json!(node);
        }
        self.create(pod).await;
    }

    /// Whatever is going on has happened, or fails again and again.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    /// Reasons and messages of the events about an object.
    async fn events(&self, name: &str) -> Vec<String> {
        let events = self.api("Event").list(&ListParams::default()).await.unwrap().items;
        let about = events.iter().filter(|event| event.data["involvedObject"]["name"] == name);
        let text = |event: &DynamicObject| {
            format!("{}: {}", event.data["reason"].as_str().unwrap(), event.data["message"].as_str().unwrap())
        };
        about.map(text).collect()
    }

    fn write(&self, volume: &Value, bytes: &str) {
        std::fs::write(self.driver.volume_folder(&handle(volume)).unwrap().join("file"), bytes).unwrap();
    }

    /// The bytes of a volume: `None` when there is no such volume, empty when nobody wrote.
    fn read(&self, volume: &Value) -> Option<String> {
        let folder = self.driver.volume_folder(&handle(volume))?;
        Some(std::fs::read_to_string(folder.join("file")).unwrap_or_default())
    }
}

fn handle(volume: &Value) -> String {
    volume["spec"]["csi"]["volumeHandle"].as_str().unwrap().to_owned()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn from_snapshot(name: &str) -> Value {
    json!({ "dataSource": { "apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": name } })
}
