//! Flux from commit to pod on virtual time: the stand-ins together, as their neighbours see them.

mod kustomize;
mod releases;
mod runs;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use kube_sim::controllers::flux_helm::HelmContext;
use kube_sim::controllers::flux_kustomize::KustomizeContext;
use kube_sim::controllers::flux_source::SourceContext;
use kube_sim::controllers::{
    ChartRegistry, Clock, GitRemote, HelmSim, MemoryArtifacts, flux_chart, flux_crds, flux_helm, flux_kustomize,
    flux_source,
};
use kube_sim::{Config, SimServer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const FLUX: &str = "flux-system";
const APPS: &str = "apps";
/// Whose tag never starts.
const BROKEN: &str = "broken";

#[derive(Clone, Copy, Default)]
struct Knobs {
    seed: u64,
    source_lag: Duration,
}

struct World {
    server: SimServer,
    client: Client,
    remote: GitRemote,
    charts: PathBuf,
    helm: HelmContext,
    stop: CancellationToken,
    /// Stops the helm stand-in alone.
    stop_helm: CancellationToken,
    _dir: Option<tempfile::TempDir>,
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl World {
    async fn new() -> Self {
        Self::with(Knobs::default()).await
    }

    async fn with(knobs: Knobs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self::at(dir.path().to_owned(), knobs).await;
        world._dir = Some(dir);
        world
    }

    /// A cluster with all of Flux, and a Git host with one repository, below a folder.
    async fn at(dir: PathBuf, knobs: Knobs) -> Self {
        let server = SimServer::new(Config { always_allow: true, seed: knobs.seed, ..Config::default() });
        let client = server.client();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in flux_crds() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let clock: Clock = Arc::new({
            let server = server.clone();
            move || server.now()
        });
        let remote = GitRemote::open(dir.join("apps.git"), clock.clone()).unwrap();
        let charts = dir.join("charts/charts.test/stable");
        fs::create_dir_all(&charts).unwrap();
        let artifacts = Arc::new(MemoryArtifacts::default());
        let source = SourceContext {
            client: client.clone(),
            artifacts: artifacts.clone(),
            cache: dir.join("cache"),
            clock: clock.clone(),
        };
        let kustomize = KustomizeContext {
            client: client.clone(),
            artifacts: artifacts.clone(),
            clock: clock.clone(),
            dependency_interval: Duration::from_secs(30),
            source_lag: knobs.source_lag,
        };
        let helm = HelmContext {
            client: client.clone(),
            artifacts,
            helm: Arc::new(HelmSim::new(client.clone(), clock.clone())),
            clock,
            dependency_interval: Duration::from_secs(30),
            retry: Duration::from_secs(1),
        };
        let stop = CancellationToken::new();
        tokio::spawn(flux_source::run(source.clone(), stop.clone()));
        tokio::spawn(flux_chart::run(source, ChartRegistry::new(dir.join("charts")), stop.clone()));
        tokio::spawn(flux_kustomize::run(kustomize, stop.clone()));
        let stop_helm = stop.child_token();
        tokio::spawn(flux_helm::run(helm.clone(), stop_helm.clone()));
        tokio::spawn(pods(client.clone()));
        let world = Self { server, client, remote, charts, helm, stop, stop_helm, _dir: None };
        for name in [FLUX, APPS] {
            world.create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await;
        }
        world
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = match kind {
            "GitRepository" | "HelmRepository" | "HelmChart" => resource("source.toolkit.fluxcd.io", "v1", kind),
            "Kustomization" => resource("kustomize.toolkit.fluxcd.io", "v1", kind),
            "HelmRelease" => resource("helm.toolkit.fluxcd.io", "v2", kind),
            "Deployment" => resource("apps", "v1", kind),
            "Job" => resource("batch", "v1", kind),
            "Namespace" => return Api::all_with(self.client.clone(), &resource("", "v1", kind)),
            _ => resource("", "v1", kind),
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    async fn create(&self, object: Value) {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, namespace) = (text("/kind"), text("/metadata/namespace"));
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.api(&kind, &namespace).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn get(&self, kind: &str, namespace: &str, name: &str) -> Value {
        serde_json::to_value(self.api(kind, namespace).get(name).await.unwrap()).unwrap()
    }

    async fn exists(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.api(kind, namespace).get_opt(name).await.unwrap().is_some()
    }

    async fn patch(&self, kind: &str, namespace: &str, name: &str, manager: &str, patch: Value) {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.api(kind, namespace).patch(name, &params, &Patch::Merge(patch)).await.unwrap();
    }

    async fn scale(&self, namespace: &str, name: &str, replicas: i32) {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.api("Deployment", namespace).patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until a predicate holds, and returns the object of which it does.
    async fn wait(&self, kind: &str, namespace: &str, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let limit = tokio::time::Instant::now() + Duration::from_secs(600);
        loop {
            let found = self.api(kind, namespace).get_opt(name).await.unwrap();
            let found = found.map_or(Value::Null, |found| serde_json::to_value(found).unwrap());
            if holds(&found) {
                return found;
            }
            assert!(tokio::time::Instant::now() < limit, "{kind} {name} at the end: {found:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn kustomization(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait("Kustomization", FLUX, "apps", holds).await
    }

    async fn release(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait("HelmRelease", APPS, "notes", holds).await
    }

    /// Suspends or resumes with a token in the same patch, as a barrier does.
    async fn suspend(&self, kind: &str, namespace: &str, name: &str, suspend: Option<bool>, token: &str) {
        let annotations = json!({ "reconcile.fluxcd.io/requestedAt": token });
        let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "suspend": suspend } });
        self.patch(kind, namespace, name, "windlass", patch).await;
    }

    async fn poke(&self, kind: &str, namespace: &str, name: &str, token: &str) {
        let annotations = json!({ "reconcile.fluxcd.io/requestedAt": token });
        self.patch(kind, namespace, name, "windlass", json!({ "metadata": { "annotations": annotations } })).await;
    }

    /// A GitRepository and a Kustomization for the folder `apps`; `extra` goes into the latter's spec.
    async fn deliver(&self, extra: Value) {
        self.create(json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": { "name": "apps", "namespace": FLUX },
            "spec": { "interval": "1m", "url": self.remote.url(), "ref": { "branch": "main" } },
        }))
        .await;
        let mut spec = json!({ "interval": "1m", "path": "./apps", "prune": true, "timeout": "1m",
            "sourceRef": { "kind": "GitRepository", "name": "apps" } });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.create(json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": { "name": "apps", "namespace": FLUX }, "spec": spec,
        }))
        .await;
    }

    /// Puts a chart into the repository `https://charts.test/stable`.
    fn publish(&self, version: &str, template: &str) {
        let chart = self.charts.join(format!("notes-{version}"));
        fs::create_dir_all(chart.join("templates")).unwrap();
        fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: notes\nversion: {version}\n")).unwrap();
        fs::write(chart.join("values.yaml"), "image: {repository: registry.test/notes, tag: none}\n").unwrap();
        fs::write(chart.join("templates/deployment.yaml"), template).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Plays the deployment controller and the kubelet: what has another tag than `broken` runs, and Jobs end.
async fn pods(client: Client) {
    let watch = |kind| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        watcher(api, watcher::Config::default()).applied_objects().boxed()
    };
    let deployments = watch(resource("apps", "v1", "Deployment"));
    let jobs = watch(resource("batch", "v1", "Job"));
    let mut changed = futures::stream::select(deployments, jobs);
    while let Some(Ok(object)) = changed.next().await {
        let (namespace, name) = (object.namespace().unwrap(), object.name_any());
        let text = object.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        let runs = !text.ends_with(BROKEN);
        let (kind, status) = if object.types.as_ref().unwrap().kind == "Job" {
            if object.data["status"].get("conditions").is_some() {
                continue;
            }
            let end = if runs { "Complete" } else { "Failed" };
            ("Job", json!({ "conditions": [{ "type": end, "status": "True" }] }))
        } else {
            let (wanted, generation) = (object.data["spec"]["replicas"].as_i64().unwrap(), object.metadata.generation);
            if object.data["status"]["observedGeneration"].as_i64() == generation {
                continue;
            }
            let ready = if runs { wanted } else { 0 };
            let condition = |kind: &str, holds: bool, reason: &str| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason });
            let conditions = [
                condition("Available", ready == wanted, ""),
                condition(
                    "Progressing",
                    true,
                    if ready == wanted { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" },
                ),
            ];
            (
                "Deployment",
                json!({ "observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
                "readyReplicas": ready, "availableReplicas": ready, "conditions": conditions }),
            )
        };
        let api: Api<DynamicObject> = Api::namespaced_with(
            client.clone(),
            &namespace,
            &resource(if kind == "Job" { "batch" } else { "apps" }, "v1", kind),
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await;
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array();
    list.and_then(|list| list.iter().find(|one| one["type"] == kind)).unwrap_or(&Value::Null)
}

fn is(object: &Value, kind: &str, status: &str) -> bool {
    condition(object, kind)["status"] == status
}

fn ready(object: &Value) -> bool {
    is(object, "Ready", "True")
}

fn holds(object: &Value, commit: &str) -> bool {
    object["status"]["lastAppliedRevision"] == format!("main@sha1:{commit}")
}

fn handled(object: &Value, token: &str) -> bool {
    object["status"]["lastHandledReconcileAt"] == token
}

fn workload(name: &str, tag: &str, replicas: Option<i32>) -> String {
    let mut object = super::deployment(name, replicas);
    object["metadata"]["namespace"] = APPS.into();
    object["spec"]["template"]["spec"]["containers"][0]["image"] = format!("registry.test/notes:{tag}").into();
    serde_json::to_string(&object).unwrap()
}

fn config(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {APPS}}}\ndata: {{key: '{value}'}}\n"
    )
}

/// The manager and operation of the entry that owns a field below `spec`.
fn owner_of(object: &Value, field: &str) -> Option<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let owner = entries.iter().find(|entry| entry.pointer(&format!("/fieldsV1/f:spec/f:{field}")).is_some())?;
    Some(format!("{} {}", owner["manager"].as_str().unwrap(), owner["operation"].as_str().unwrap()))
}

async fn typed_deployment(world: &World) -> Deployment {
    Api::namespaced(world.client.clone(), APPS).get("notes").await.unwrap()
}
