//! HelmReleases with the in-process Helm, below a Kustomization and alone.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube_sim::controllers::helm_storage;
use serde_json::json;

use super::*;

/// A Deployment without `replicas`.
const OMITS: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector:
    matchLabels: {app: notes}
  template:
    metadata:
      labels: {app: notes}
    spec:
      containers:
        - name: main
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
"#;

fn with_replicas() -> String {
    OMITS.replace("spec:\n  selector", "spec:\n  replicas: {{ .Values.replicas | default 1 }}\n  selector")
}

fn release(version: &str, tag: &str, extra: &Value) -> String {
    let mut spec = json!({ "interval": "5m", "timeout": "30s",
        "chart": { "spec": { "chart": "notes", "version": version, "sourceRef": { "kind": "HelmRepository", "name": "charts" } } },
        "values": { "image": { "tag": tag } } });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let release = json!({ "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
        "metadata": { "name": "notes", "namespace": APPS }, "spec": spec });
    let repository = json!({ "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmRepository",
        "metadata": { "name": "charts", "namespace": APPS }, "spec": { "interval": "5m", "url": "https://charts.test/stable" } });
    format!("{repository}\n---\n{release}\n")
}

async fn commit(world: &World, version: &str, tag: &str, extra: &Value) -> String {
    let commit = world.remote.commit(&[("apps/r.yaml", Some(&release(version, tag, extra)))], version).unwrap();
    if world.exists("GitRepository", FLUX, "apps").await {
        world.poke("GitRepository", FLUX, "apps", &commit).await;
    } else {
        world.deliver(json!({ "wait": true })).await;
    }
    commit
}

fn releases(version: &'static str, status: &'static str) -> impl Fn(&Value) -> bool {
    move |object| {
        let newest = &object["status"]["history"][0];
        newest["chartVersion"] == version && newest["status"] == status && condition(object, "Reconciling").is_null()
    }
}

async fn records(world: &World) -> Vec<(i64, String, String)> {
    let stored = helm_storage::list(&world.client, APPS, "notes").await.unwrap();
    stored.iter().map(|one| (one.version(), one.status(), one.chart("version"))).collect()
}

fn record(number: i64, status: &str, version: &str) -> (i64, String, String) {
    (number, status.to_owned(), version.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_release_is_installed_and_upgraded_with_helms_records() {
    let world = World::new().await;
    world.publish("1.0.0", &with_replicas());
    world.publish("1.1.0", &with_replicas());
    let first = commit(&world, "1.0.0", "1.0", &json!({})).await;
    let object = world.release(|object| ready(object) && releases("1.0.0", "deployed")(object)).await;
    assert_eq!(object["status"]["history"][0]["action"], "install");
    assert_eq!(object["status"]["inventory"]["entries"], json!([{ "id": "apps_notes_apps_Deployment", "v": "v1" }]));
    world.kustomization(|object| holds(object, &first)).await;
    let live = world.get("Deployment", APPS, "notes").await;
    assert_eq!(live["metadata"]["labels"]["helm.toolkit.fluxcd.io/name"], "notes");
    assert_eq!(live["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    assert_eq!(live["metadata"]["annotations"]["meta.helm.sh/release-name"], "notes");
    assert_eq!(owner_of(&live, "replicas").as_deref(), Some("helm Apply"));

    commit(&world, "1.1.0", "1.1", &json!({})).await;
    world.release(|object| ready(object) && releases("1.1.0", "deployed")(object)).await;
    assert_eq!(records(&world).await, [record(1, "superseded", "1.0.0"), record(2, "deployed", "1.1.0")]);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), APPS);
    let stored = secrets.get("sh.helm.release.v1.notes.v2").await.unwrap();
    assert_eq!(stored.type_.as_deref(), Some("helm.sh/release.v1"));
    let labels = stored.metadata.labels.clone().unwrap();
    let label = |key: &str| labels[key].as_str();
    assert_eq!([label("owner"), label("name"), label("status"), label("version")], ["helm", "notes", "deployed", "2"]);
    let payload = stored.data.as_ref().map(|data| data["release"].0.as_slice());
    let name = "sh.helm.release.v1.notes.v2";
    let read = windlass_helm::StoredSecret { name, type_: stored.type_.as_deref(), payload }.release().unwrap();
    assert_eq!(
        (read.revision, read.status, read.chart.version.as_str()),
        (2, windlass_helm::Status::Deployed, "1.1.0")
    );
    assert_eq!(read.config, json!({ "image": { "tag": "1.1" } }));
    assert!(read.last_deployed > read.first_deployed, "{:?} {:?}", read.first_deployed, read.last_deployed);
    let documents = windlass_helm::documents(&read.manifest);
    assert_eq!(documents.len(), 1, "{}", read.manifest);

    world.api("HelmRelease", APPS).delete("notes", &Default::default()).await.unwrap();
    world.wait("Deployment", APPS, "notes", Value::is_null).await;
    assert_eq!(secrets.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chart_without_replicas_leaves_zero_pods_and_is_ready() {
    let world = World::new().await;
    world.publish("1.0.0", OMITS);
    world.publish("1.1.0", OMITS);
    commit(&world, "1.0.0", "1.0", &json!({})).await;
    world.release(ready).await;
    world.scale(APPS, "notes", 0).await;
    commit(&world, "1.1.0", BROKEN, &json!({})).await;
    let begin = tokio::time::Instant::now();
    world.release(|object| ready(object) && releases("1.1.0", "deployed")(object)).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(typed_deployment(&world).await.spec.unwrap().replicas, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_chart_with_replicas_takes_them_back_whoever_scaled() {
    for by_subresource in [true, false] {
        let world = World::new().await;
        world.publish("1.0.0", &with_replicas());
        world.publish("1.1.0", &with_replicas());
        commit(&world, "1.0.0", "1.0", &json!({})).await;
        world.release(ready).await;
        let owner = if by_subresource {
            world.scale(APPS, "notes", 0).await;
            None
        } else {
            world.patch("Deployment", APPS, "notes", "windlass", json!({ "spec": { "replicas": 0 } })).await;
            Some("windlass Update")
        };
        assert_eq!(owner_of(&world.get("Deployment", APPS, "notes").await, "replicas").as_deref(), owner);
        commit(&world, "1.1.0", "1.1", &json!({})).await;
        world.release(|object| ready(object) && releases("1.1.0", "deployed")(object)).await;
        assert_eq!(typed_deployment(&world).await.spec.unwrap().replicas, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_release_makes_its_kustomization_fail_early_and_never_count_as_applied() {
    let world = World::new().await;
    world.publish("1.0.0", OMITS);
    world.publish("1.1.0", OMITS);
    let first = commit(&world, "1.0.0", "1.0", &json!({})).await;
    world.kustomization(|object| holds(object, &first)).await;
    let second = commit(&world, "1.1.0", BROKEN, &json!({})).await;
    let object = world.release(|object| is(object, "Stalled", "True")).await;
    assert_eq!(condition(&object, "Stalled")["reason"], "RetriesExceeded");
    assert_eq!(condition(&object, "Ready")["reason"], "UpgradeFailed");
    assert_eq!(records(&world).await, [record(1, "deployed", "1.0.0"), record(2, "failed", "1.1.0")]);
    world.suspend("HelmRelease", APPS, "notes", Some(true), "t-1").await;
    world.release(|object| handled(object, "t-1")).await;

    let third = commit(&world, "1.0.0", "1.0", &json!({})).await;
    let revision = |commit: &str| format!("main@sha1:{commit}");
    let object = world
        .kustomization(|object| {
            object["status"]["lastAttemptedRevision"] == revision(&third) && is(object, "Ready", "False")
        })
        .await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap();
    assert!(
        message.contains("failed early due to stalled resources: [HelmRelease/apps/notes status: 'Failed']"),
        "{message}"
    );
    assert_eq!(object["status"]["lastAppliedRevision"], revision(&first), "neither {second} nor {third}");
    assert_eq!(world.get("HelmRelease", APPS, "notes").await["spec"]["chart"]["spec"]["version"], "1.0.0");

    world.suspend("HelmRelease", APPS, "notes", None, "t-2").await;
    world.release(|object| ready(object) && releases("1.0.0", "deployed")(object)).await;
    let expected = [record(1, "superseded", "1.0.0"), record(2, "failed", "1.1.0"), record(3, "deployed", "1.0.0")];
    assert_eq!(records(&world).await, expected);
    world.kustomization(|object| holds(object, &third)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_upgrade_is_retried_or_rolled_back_as_the_spec_says() {
    for (extra, expected) in [
        (json!({ "upgrade": { "strategy": { "name": "RetryOnFailure", "retryInterval": "10s" } } }), "retried"),
        (json!({ "upgrade": { "remediation": { "retries": 1, "strategy": "rollback" } } }), "rolled back"),
    ] {
        let world = World::new().await;
        world.publish("1.0.0", OMITS);
        world.publish("1.1.0", OMITS);
        commit(&world, "1.0.0", "1.0", &extra).await;
        world.release(ready).await;
        commit(&world, "1.1.0", BROKEN, &extra).await;
        if expected == "retried" {
            world.release(|object| object["status"]["history"][0]["version"] == 4).await;
            let stored = records(&world).await;
            assert_eq!(
                stored[..3],
                [record(1, "deployed", "1.0.0"), record(2, "failed", "1.1.0"), record(3, "failed", "1.1.0")]
            );
        } else {
            let object = world.release(|object| is(object, "Stalled", "True")).await;
            assert_eq!(condition(&object, "Remediated")["reason"], "RollbackSucceeded");
            let stored: Vec<_> = records(&world)
                .await
                .iter()
                .map(|(number, status, version)| format!("{number} {status} {version}"))
                .collect();
            assert_eq!(stored.last().unwrap(), "5 deployed 1.0.0", "{stored:?}");
            let image = typed_deployment(&world).await.spec.unwrap().template.spec.unwrap().containers[0].image.clone();
            assert_eq!(image.as_deref(), Some("registry.test/notes:1.0"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_run_before_the_upgrade_and_stop_it_when_they_fail() {
    let world = World::new().await;
    let hook = |tag: &str| {
        format!(
            "{OMITS}---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: migrate\n  annotations: {{helm.sh/hook: 'pre-upgrade'}}\n\
             spec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: main, image: 'registry.test/notes:{tag}'}}]\n"
        )
    };
    world.publish("1.0.0", &hook("1"));
    world.publish("1.1.0", &hook("2"));
    world.publish("1.2.0", &hook(BROKEN));
    commit(&world, "1.0.0", "1.0", &json!({})).await;
    world.release(ready).await;
    assert!(!world.exists("Job", APPS, "migrate").await, "not at an install");
    commit(&world, "1.1.0", "1.1", &json!({})).await;
    world.release(|object| ready(object) && releases("1.1.0", "deployed")(object)).await;
    assert!(world.exists("Job", APPS, "migrate").await);
    commit(&world, "1.2.0", "1.2", &json!({})).await;
    let object = world.release(|object| is(object, "Stalled", "True")).await;
    assert!(
        condition(&object, "Ready")["message"].as_str().unwrap().contains("pre-upgrade hooks failed"),
        "{object:#}"
    );
    let live = world.get("Deployment", APPS, "notes").await;
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "registry.test/notes:1.1");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_controller_dies_stays_pending_and_is_unlocked_by_the_next() {
    let world = World::new().await;
    world.publish("1.0.0", OMITS);
    world.publish("1.1.0", OMITS);
    commit(&world, "1.0.0", "1.0", &json!({})).await;
    world.release(ready).await;
    commit(&world, "1.1.0", BROKEN, &json!({})).await;
    let secret = "sh.helm.release.v1.notes.v2";
    world.wait("Secret", APPS, secret, |secret| secret["metadata"]["labels"]["status"] == "pending-upgrade").await;
    world.stop_helm.cancel();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(records(&world).await.last(), Some(&record(2, "pending-upgrade", "1.1.0")));
    tokio::spawn(flux_helm::run(world.helm.clone(), world.stop.clone()));
    world.wait("Secret", APPS, secret, |secret| secret["metadata"]["labels"]["status"] == "failed").await;
    commit(&world, "1.0.0", "1.0", &json!({})).await;
    world.release(|object| ready(object) && releases("1.0.0", "deployed")(object)).await;
    let stored = records(&world).await;
    assert_eq!(stored.iter().filter(|(_, status, _)| status == "deployed").count(), 1, "{stored:?}");
}

#[tokio::test(start_paused = true)]
async fn a_chart_that_needs_more_than_the_renderer_knows_is_refused_with_its_place() {
    let world = World::new().await;
    world.publish("1.0.0", &format!("{OMITS}{{{{- range .Values.list }}}}\n{{{{- end }}}}\n"));
    commit(&world, "1.0.0", "1.0", &json!({})).await;
    let object = world.release(|object| is(object, "Released", "False")).await;
    let message = condition(&object, "Released")["message"].as_str().unwrap();
    let expected = "notes/templates/deployment.yaml:15: the renderer does not know {{ range .Values.list }}";
    assert!(message.contains(expected), "{message}");
}
