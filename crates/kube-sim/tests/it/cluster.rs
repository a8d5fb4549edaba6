//! A whole cluster under virtual time: the server, the workload controllers and a node.

use super::server;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube_sim::SimServer;
use kube_sim::controllers::pods::{self, PodsContext, RunHistory, RunLog, Scripted, VolumeFolders};
use kube_sim::controllers::workloads::{self, WorkloadsContext};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(super) const DRIVER: &str = "csi.test";

/// Volumes are folders under one directory.
struct Folders(PathBuf);

impl VolumeFolders for Folders {
    fn folder(&self, driver: &str, handle: &str) -> Option<PathBuf> {
        let folder = self.0.join(handle);
        (driver == DRIVER && folder.is_dir()).then_some(folder)
    }
}

pub(super) struct Cluster {
    pub(super) server: SimServer,
    pub(super) client: Client,
    pub(super) runs: RunLog,
    pub(super) volumes: tempfile::TempDir,
    pub(super) stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    pub(super) fn new(images: Scripted) -> Self {
        Self::on(server(), images)
    }

    pub(super) fn on(server: SimServer, images: Scripted) -> Self {
        let cluster = Self {
            client: server.client(),
            server,
            runs: RunLog::default(),
            volumes: tempfile::tempdir().unwrap(),
            stop: CancellationToken::new(),
        };
        let clock = cluster.clock();
        let context = WorkloadsContext { client: cluster.client.clone(), clock };
        tokio::spawn(workloads::run(context, cluster.stop.clone()));
        tokio::spawn(cluster.node(images, cluster.stop.clone()));
        cluster
    }

    fn clock(&self) -> kube_sim::controllers::Clock {
        let server = self.server.clone();
        Arc::new(move || server.now())
    }

    /// A run of the node, to be spawned.
    pub(super) fn node(&self, images: Scripted, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let context = PodsContext {
            client: self.client.clone(),
            clock: self.clock(),
            node: "node-1".into(),
            images: Arc::new(images),
            volumes: Arc::new(Folders(self.volumes.path().to_owned())),
            runs: self.runs.clone(),
        };
        pods::run(context, stop)
    }

    pub(super) fn api(&self, kind: &str) -> Api<DynamicObject> {
        let group = match kind {
            "Job" | "CronJob" => "batch",
            "Pod" | "PersistentVolumeClaim" | "Event" => "",
            _ => "apps",
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    pub(super) fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(super) async fn create(&self, object: Value) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        self.api(&kind).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub(super) async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(super) async fn scale(&self, kind: &str, name: &str, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.api(kind).patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the object is as wanted.
    pub(super) async fn until(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        let mut last = Value::Null;
        while started.elapsed() < Duration::from_secs(1800) {
            if let Some(object) = self.api(kind).get_opt(name).await.unwrap() {
                last = serde_json::to_value(object).unwrap();
                if wanted(&last) {
                    return last;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{kind} {name} is never as wanted; at the end it is {last:#}")
    }

    /// Waits until the workload has so many ready pods, all of its newest template, and no others.
    pub(super) async fn settled(&self, kind: &str, name: &str, replicas: i64) -> Value {
        self.until(kind, name, |object| {
            let count = |field: &str| object["status"][field].as_i64().unwrap_or(0);
            object["metadata"]["generation"] == object["status"]["observedGeneration"]
                && ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
                    .iter()
                    .all(|field| count(field) == replicas)
        })
        .await
    }

    pub(super) async fn pods(&self) -> Vec<Pod> {
        self.pod_api().list(&ListParams::default()).await.unwrap().items
    }

    pub(super) async fn pod_names(&self) -> Vec<String> {
        self.pods().await.iter().map(kube::ResourceExt::name_any).collect()
    }

    /// The only pod, once it is as wanted.
    pub(super) async fn until_pod(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1800) {
            if let Some(pod) = self.pods().await.first() {
                let value = serde_json::to_value(pod).unwrap();
                if wanted(&value) {
                    return value;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("never as wanted: {:#?}", self.pods().await)
    }

    pub(super) async fn no_pods(&self) {
        let started = Instant::now();
        while !self.pods().await.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(1800), "{:?}", self.pod_names().await);
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn history(&self) -> RunHistory {
        self.runs.history()
    }

    pub(super) async fn volumes_in_use(&self) -> Vec<String> {
        let node = Api::<Node>::all(self.client.clone()).get("node-1").await.unwrap();
        node.status.and_then(|status| status.volumes_in_use).unwrap_or_default()
    }

    /// Binds the claim to a new volume, as a provisioner does.
    pub(super) async fn bind(&self, claim: &str) {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), "default");
        let found = claims.get(claim).await.unwrap();
        let uid = found.metadata.uid.unwrap();
        let (volume, handle) = (format!("pvc-{uid}"), format!("h-{claim}"));
        std::fs::create_dir_all(self.volumes.path().join(&handle)).unwrap();
        let object: k8s_openapi::api::core::v1::PersistentVolume = super::from(json!({
            "metadata": {"name": volume},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "claimRef": {"namespace": "default", "name": claim, "uid": uid},
                "csi": {"driver": DRIVER, "volumeHandle": handle}},
        }));
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
        let params = PatchParams::default();
        claims.patch(claim, &params, &Patch::Merge(json!({"spec": {"volumeName": volume}}))).await.unwrap();
        claims.patch_status(claim, &params, &Patch::Merge(json!({"status": {"phase": "Bound"}}))).await.unwrap();
    }

    /// Binds every claim a moment after it was made, for ever.
    pub(super) async fn bind_all(&self) {
        loop {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), "default");
            for claim in claims.list(&ListParams::default()).await.unwrap().items {
                if claim.status.and_then(|status| status.phase).as_deref() == Some("Pending") {
                    self.bind(claim.metadata.name.as_deref().unwrap()).await;
                }
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Writes its image into the first file it can, and serves.
pub(super) struct Writer;

#[async_trait]
impl pods::Program for Writer {
    async fn run(&self, container: pods::Container) -> i32 {
        let Some(folder) = container.mounts.get("/data") else { return 3 };
        std::fs::write(folder.join(container.env.get("WHO").map_or("nobody", String::as_str)), &container.image)
            .unwrap();
        container.readiness.set(true);
        container.stop.cancelled().await;
        0
    }
}

/// A pod template with one container that says when it is ready.
pub(super) fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image, "readinessProbe": {"httpGet": {"port": 80}}}]},
    })
}

pub(super) fn workload(kind: &str, name: &str, replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image)}})
}

pub(super) fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": image, "readinessProbe": {"httpGet": {"port": 80}}}]}}}})
}

pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}
