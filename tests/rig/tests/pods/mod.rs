//! Pods that run: the small kubelet, the versions of the app, and releases delivered by the Flux stand-ins.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use windlass_rig::Rig;
use windlass_rig::kubelet::{Run, read_run_log};

use super::wait_for;

const APPS: &str = "apps";

fn notes(claim: &str, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: notes, namespace: {APPS}}}\nspec:\n  replicas: 1\n  \
         strategy: {{type: Recreate}}\n  selector: {{matchLabels: {{app: notes}}}}\n  template:\n    \
         metadata: {{labels: {{app: notes}}}}\n    spec:\n      \
         initContainers: [{{name: first, image: busybox, args: [-c, \"test -d $DATA_DIR\"], \
         volumeMounts: [{{name: data, mountPath: /data}}]}}]\n      containers:\n      - name: notes\n        \
         image: registry.test/notes:{version}\n        ports: [{{name: http, containerPort: 8080}}]\n        \
         terminationMessagePolicy: FallbackToLogsOnError\n        \
         env: [{{name: DATA_DIR, value: /data}}, {{name: FAIL_AFTER_SECONDS, value: \"1\"}}]\n        \
         readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1, failureThreshold: 1}}\n        \
         volumeMounts: [{{name: data, mountPath: /data}}]\n      \
         volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]\n"
    )
}

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}, namespace: {APPS}}}\nspec:\n  \
         accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Mi}}}}\n"
    )
}

fn pods(rig: &Rig) -> Api<Pod> {
    Api::namespaced(rig.admin_client(), APPS)
}

/// The one pod of the app that is not being deleted.
async fn pod(rig: &Rig) -> Option<Pod> {
    let pods = pods(rig).list(&ListParams::default().labels("app=notes")).await.unwrap();
    pods.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none())
}

async fn ready_pod_of(rig: &Rig, version: &str) -> Pod {
    wait_for(&format!("{version} ready"), || async { pod(rig).await.filter(|pod| is(pod, version, true)) }).await
}

/// Whether the pod is of this version, and ready or not, with a process that runs.
fn is(pod: &Pod, version: &str, ready: bool) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().pop().unwrap_or_default();
    let running = container.state.is_some_and(|state| state.running.is_some());
    running && container.ready == ready && container.image == format!("registry.test/notes:{version}")
}

fn address(pod: &Pod) -> String {
    format!("http://{}:8080", pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap())
}

async fn get(pod: &Pod, path: &str) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}{path}", address(pod))).send().await.unwrap().json().await.unwrap()
}

async fn append(pod: &Pod, text: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(format!("{}/records", address(pod))).body(text.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn scale<K>(rig: &Rig, name: &str, replicas: u32)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(rig.admin_client(), APPS);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    api.patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn volumes_in_use(rig: &Rig) -> Vec<String> {
    let nodes: Api<Node> = Api::all(rig.admin_client());
    nodes.get("rig-node").await.unwrap().status.unwrap().volumes_in_use.unwrap_or_default()
}

async fn gone(rig: &Rig) {
    wait_for("all pods gone", || async {
        pods(rig).list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
}

/// Stops the app, runs another version, and waits until `seen` says what it is after.
async fn run_version<T>(rig: &Rig, claim: &str, version: &str, mut seen: impl FnMut(&Pod) -> Option<T>) -> (Pod, T) {
    scale::<Deployment>(rig, "notes", 0).await;
    gone(rig).await;
    rig.apply_yaml(&notes(claim, version)).await.unwrap();
    // In between, the pod template may still be the old one.
    let image = format!("registry.test/notes:{version}");
    wait_for(&format!("{version} seen"), || {
        let pod = pod(rig);
        let image = image.clone();
        async move {
            pod.await
                .filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_ref() == Some(&image)))
        }
    })
    .await;
    let began = Instant::now();
    loop {
        if let Some(pod) = pod(rig).await
            && let Some(found) = seen(&pod)
        {
            return (pod, found);
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{version} did not get there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn waiting(pod: &Pod) -> Option<(String, String)> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
    let waiting = container.state?.waiting?;
    let last = container.last_state.and_then(|state| state.terminated).and_then(|ended| ended.message);
    Some((waiting.reason?, last.or(waiting.message).unwrap_or_default()))
}

async fn an_app_runs_on_its_volume_and_stops(rig: &Rig) {
    rig.apply_yaml(&format!("{}---\n{}", claim("data"), notes("data", "1.0.0"))).await.unwrap();
    let running = ready_pod_of(rig, "1.0.0").await;
    assert_eq!(append(&running, "one").await, (201, json!({ "number": 1 })));
    assert_eq!(append(&running, "two").await, (201, json!({ "number": 2 })));
    assert_eq!(get(&running, "/records").await["count"], 2);
    assert_eq!(volumes_in_use(rig).await.len(), 1);

    scale::<Deployment>(rig, "notes", 0).await;
    gone(rig).await;
    // The node says so a moment later.
    let began = Instant::now();
    while !volumes_in_use(rig).await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "still in use: {:?}", volumes_in_use(rig).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let history = read_run_log(&rig.kubelet_run_log()).unwrap();
    let runs: Vec<&Run> = history.runs.iter().collect();
    let [first, app] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((first.exit_code, app.exit_code), (Some(0), Some(0)));
    assert!(first.until_ms.unwrap() <= app.from_ms && app.from_ms <= app.ready_ms.unwrap());
    assert_eq!(app.claims[0].claim, "data");
    println!("process start to ready: {} ms", app.ready_ms.unwrap() - app.from_ms);
}

async fn every_version_does_what_it_is_for(rig: &Rig) {
    let (pod, ()) = run_version(rig, "data", "2.0.0", |pod| is(pod, "2.0.0", true).then_some(())).await;
    let records = get(&pod, "/records").await;
    assert_eq!((&records["count"], &records["format"]), (&json!(2), &json!("v2")));

    let crashing =
        |pod: &Pod| waiting(pod).filter(|(reason, _)| reason == "CrashLoopBackOff").map(|(_, message)| message);
    let (_, message) = run_version(rig, "data", "1.1.0", crashing).await;
    assert!(message.contains("the data is in format 2"), "{message}");

    let (_, why) = run_version(rig, "data", "9.0.0", waiting_for_image).await;
    assert!(why.contains("no such version"), "{why}");

    rig.apply_yaml(&claim("other")).await.unwrap();
    let (pod, ()) = run_version(rig, "other", "4.0.0", |pod| is(pod, "4.0.0", true).then_some(())).await;
    assert_eq!(append(&pod, "kept").await.0, 201);
    wait_for("4.0.0 unready again", || async { self::pod(rig).await.filter(|pod| is(pod, "4.0.0", false)) }).await;
    assert_eq!(append(&pod, "refused").await.0, 503);

    run_version(rig, "other", "3.0.0", |pod| is(pod, "3.0.0", false).then_some(())).await;
    let (_, message) = run_version(rig, "other", "1.0.0", crashing).await;
    assert!(message.contains("corrupt"), "{message}");
}

fn waiting_for_image(pod: &Pod) -> Option<String> {
    waiting(pod).filter(|(reason, _)| reason == "ErrImagePull").map(|(_, message)| message)
}

/// Processes of the app whose volume is below `folder`.
fn app_processes(folder: &Path) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mark = format!("DATA_DIR={}/", folder.display());
    entries
        .filter(|entry| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join("environ")).unwrap_or_default()).contains(&mark)
        })
        .count()
}

async fn processes_die_with_the_kubelet_and_pods_come_back(rig: &Rig) {
    rig.apply_yaml(&claim("third")).await.unwrap();
    let (before, ()) = run_version(rig, "third", "1.0.0", |pod| is(pod, "1.0.0", true).then_some(())).await;
    append(&before, "kept").await;
    let folder = rig.volumes_dir();
    assert_eq!(app_processes(&folder), 1);
    rig.stop_component("kubelet").unwrap();
    wait_for("no process left", || async { (app_processes(&folder) == 0).then_some(()) }).await;
    rig.start_component("kubelet").await.unwrap();
    let after = wait_for("app back", || async {
        pod(rig).await.filter(|pod| is(pod, "1.0.0", true) && app_processes(&folder) == 1)
    })
    .await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(get(&after, "/records").await["count"], 1);
    scale::<Deployment>(rig, "notes", 0).await;
    gone(rig).await;
}

fn publish_chart(rig: &Rig, version: &str) {
    let chart = rig.dir().join("source-controller/charts/charts.test/stable").join(version);
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    let metadata = format!("apiVersion: v2\nname: notes\nversion: {version}\nappVersion: {version}\n");
    std::fs::write(chart.join("Chart.yaml"), metadata).unwrap();
    let template = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: {{ .Release.Name }}}\nspec:\n  \
        serviceName: notes\n  podManagementPolicy: Parallel\n  selector: {matchLabels: {app: notes}}\n  template:\n    \
        metadata: {labels: {app: notes}}\n    spec:\n      containers:\n      - name: notes\n        \
        image: registry.test/notes:{{ .Chart.AppVersion }}\n        ports: [{name: http, containerPort: 8080}]\n        \
        env: [{name: GREETING, value: \"{{ .Values.greeting }}\"}]\n        \
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}\n        \
        volumeMounts: [{name: data, mountPath: /data}]\n  volumeClaimTemplates:\n  - metadata: {name: data}\n    \
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n";
    std::fs::write(chart.join("templates/app.yaml"), template).unwrap();
}

fn releases(rig: &Rig) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("helm.toolkit.fluxcd.io", "v2", "HelmRelease");
    Api::namespaced_with(rig.admin_client(), APPS, &ApiResource::from_gvk(&kind))
}

async fn patch_release(rig: &Rig, patch: Value) {
    let params = PatchParams { field_manager: Some("windlass".into()), ..PatchParams::default() };
    releases(rig).patch("notes", &params, &Patch::Merge(patch)).await.unwrap();
}

/// `status reason` of a condition.
fn condition(release: &DynamicObject, kind: &str) -> String {
    let conditions = release.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |found| format!("{} {}", found["status"], found["reason"]).replace('"', ""))
}

async fn release_when(rig: &Rig, what: &str, is: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
    wait_for(what, || async { Some(releases(rig).get("notes").await.unwrap()).filter(|release| is(release)) }).await
}

fn version(version: &str) -> Value {
    json!({ "spec": { "chart": { "spec": { "version": version } } } })
}

/// Asks for a reconcile together with the suspension, and returns the release once that was acknowledged.
async fn barrier(rig: &Rig, token: &str) -> DynamicObject {
    let annotations = json!({ "reconcile.fluxcd.io/requestedAt": token });
    patch_release(rig, json!({ "metadata": { "annotations": annotations }, "spec": { "suspend": true } })).await;
    release_when(rig, &format!("barrier {token}"), |release| release.data["status"]["lastHandledReconcileAt"] == token)
        .await
}

async fn a_release_follows_its_spec_as_with_flux(rig: &Rig) {
    for version in ["1.0.0", "1.1.0", "3.0.0"] {
        publish_chart(rig, version);
    }
    rig.apply_yaml(&format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {{name: stable, namespace: {APPS}}}\n\
         spec: {{interval: 10m, url: \"https://charts.test/stable\"}}\n---\n\
         apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {{name: notes, namespace: {APPS}}}\n\
         spec:\n  interval: 10m\n  timeout: 30s\n  values: {{greeting: \"yes\"}}\n  chart:\n    \
         spec: {{chart: notes, version: 1.0.0, sourceRef: {{kind: HelmRepository, name: stable}}}}\n"
    ))
    .await
    .unwrap();
    release_when(rig, "installed", |release| condition(release, "Ready") == "True InstallSucceeded").await;

    // A suspended release looks fine on a version that nothing was done about.
    barrier(rig, "one").await;
    patch_release(rig, version("1.1.0")).await;
    let release = release_when(rig, "observed while suspended", |release| {
        release.data["status"]["observedGeneration"].as_i64() == release.metadata.generation
    })
    .await;
    assert_eq!(condition(&release, "Ready"), "True InstallSucceeded");
    assert_eq!(release.data["status"]["history"][0]["chartVersion"], "1.0.0");
    patch_release(rig, json!({ "spec": { "suspend": null } })).await;
    let upgraded = |release: &DynamicObject| condition(release, "Ready") == "True UpgradeSucceeded";
    let release = release_when(rig, "upgraded", upgraded).await;
    let status = &release.data["status"];
    assert_eq!(status["history"][0]["chartVersion"], "1.1.0");
    assert_eq!(status["history"][0]["configDigest"], status["lastAttemptedConfigDigest"]);
    assert_eq!(status["history"][1]["status"], "superseded");

    // The chart says nothing about replicas, so neither does an upgrade.
    scale::<StatefulSet>(rig, "notes", 2).await;
    patch_release(rig, json!({ "spec": { "values": { "greeting": "no" } } })).await;
    release_when(rig, "upgraded again", |release| {
        release.data["status"]["history"][0]["version"] == 3 && upgraded(release)
    })
    .await;
    let sets: Api<StatefulSet> = Api::namespaced(rig.admin_client(), APPS);
    let set = sets.get("notes").await.unwrap();
    assert_eq!(set.status.unwrap().ready_replicas, Some(2));
    assert_eq!(set.metadata.labels.unwrap()["helm.toolkit.fluxcd.io/name"], "notes");

    // The barrier waits for an upgrade in flight, which fails here.
    let mut broken = version("3.0.0");
    broken["spec"]["timeout"] = "3s".into();
    patch_release(rig, broken).await;
    release_when(rig, "upgrading", |release| condition(release, "Ready") == "Unknown Progressing").await;
    let release = barrier(rig, "two").await;
    assert_eq!(condition(&release, "Ready"), "False UpgradeFailed");
    assert_eq!(condition(&release, "Stalled"), "True RetriesExceeded");
    assert_eq!(release.data["status"]["history"][0]["status"], "failed");
    assert_eq!(release.data["status"]["upgradeFailures"], 1);

    // With no pods there is nothing to wait for, whatever the version.
    scale::<StatefulSet>(rig, "notes", 0).await;
    gone(rig).await;
    patch_release(rig, json!({ "spec": { "suspend": null, "values": { "greeting": "maybe" } } })).await;
    release_when(rig, "ready without pods", upgraded).await;

    let api = releases(rig);
    api.delete("notes", &Default::default()).await.unwrap();
    wait_for("uninstalled", || async { api.get_opt("notes").await.unwrap().is_none().then_some(()) }).await;
    assert!(sets.get_opt("notes").await.unwrap().is_none_or(|set| set.metadata.deletion_timestamp.is_some()));
}

/// Takes a rig with storage, the kubelet and the Flux stand-ins, on which nothing else uses the kubelet meanwhile.
pub(crate) async fn pods_run_as_processes_and_releases_follow_flux(rig: &Rig) {
    rig.apply_yaml(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {APPS}}}\n")).await.unwrap();
    an_app_runs_on_its_volume_and_stops(rig).await;
    every_version_does_what_it_is_for(rig).await;
    processes_die_with_the_kubelet_and_pods_come_back(rig).await;
    a_release_follows_its_spec_as_with_flux(rig).await;
}
