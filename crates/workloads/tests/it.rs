//! The ports against an API server. The parts of the workload controllers are played by the tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests, helpers included")]

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use kube_sim::faults::{Fault, Faults, Matcher, Rule};
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, from_value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Clock, HealthChecker, HealthReport, HttpCheck, ObjectRef, Pin, PinPart, PinValue, Workloads,
};
use windlass_workloads::{KubeHealth, KubeWorkloads, http_client};

const NS: &str = "default";

fn server() -> SimServer {
    SimServer::new(Config { always_allow: true, latency: std::time::Duration::ZERO, ..Config::default() })
}

fn app() -> AppRef {
    AppRef { namespace: NS.into(), name: "notes".into(), uid: "app".into() }
}

fn code(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.code, |()| "done".into())
}

async fn make<K>(client: &Client, object: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    Api::<K>::namespaced(client.clone(), NS).create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "notes" } },
        "spec": {
            "containers": [{ "name": "main", "image": image }],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }]
        }
    })
}

async fn deployment(client: &Client) -> (ObjectRef, Deployment) {
    let labels = json!({ "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": NS });
    let made = make::<Deployment>(client, json!({
        "metadata": { "name": "notes", "labels": labels, "annotations": { "deployment.kubernetes.io/revision": "1" } },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "notes" } }, "template": template("r/notes:2.0") }
    }))
    .await;
    (ObjectRef::new("apps", "Deployment", NS, "notes"), made)
}

#[tokio::test]
async fn stopping_leaves_no_owner_of_replicas_behind_and_starting_needs_the_version_that_was_seen() {
    let server = server();
    let client = server.client();
    let (object, made) = deployment(&client).await;
    let port = KubeWorkloads::new(client.clone());
    let uid = made.uid().unwrap();
    assert_eq!(code(port.stop(&object, "other").await), "workload-replaced");
    for _ in 0..2 {
        port.stop(&object, &uid).await.unwrap();
    }
    let stopped = port.state(&object).await.unwrap().unwrap();
    assert_eq!((stopped.replicas, stopped.uid.as_str()), (0, uid.as_str()));
    let api = Api::<Deployment>::namespaced(client, NS);
    for entry in api.get("notes").await.unwrap().managed_fields() {
        let plainly =
            entry.subresource.as_deref().unwrap_or_default().is_empty() && entry.manager.as_deref() == Some("windlass");
        assert!(!plainly, "{entry:?}");
    }

    let touch = json!({ "metadata": { "annotations": { "touched": "yes" } } });
    api.patch("notes", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
    let stale = port.start(&object, &uid, &stopped.resource_version, 3, None).await.unwrap_err();
    assert_eq!((stale.code.as_str(), stale.retryable), ("changed-meanwhile", true));
    let seen = port.state(&object).await.unwrap().unwrap();
    for _ in 0..2 {
        port.start(&object, &uid, &seen.resource_version, 3, None).await.unwrap();
    }
    assert_eq!(port.state(&object).await.unwrap().unwrap().replicas, 3);
    let gone = ObjectRef { name: "gone".into(), ..object };
    assert_eq!(code(port.stop(&gone, &uid).await), "workload-gone");
    assert_eq!(port.state(&gone).await.unwrap(), None);
    let daemons = ObjectRef::new("example.com", "Thing", NS, "x");
    assert_eq!(code(port.stop(&daemons, &uid).await), "cannot-stop");
}

/// As by a leader whose answer was stuck until its successor had done everything and started the workload again.
#[tokio::test(start_paused = true)]
async fn what_has_changed_since_it_was_read_is_not_stopped() {
    let server = server();
    let client = server.client();
    let (object, made) = deployment(&client).await;
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("patch"), Fault::Latency(std::time::Duration::from_secs(1))).times(1));
    let port = KubeWorkloads::new(faults.client(&server, Identity::user("windlass")));
    let touched = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let touch = json!({ "metadata": { "annotations": { "touched": "yes" } } });
        let api = Api::<Deployment>::namespaced(client.clone(), NS);
        api.patch("notes", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
    };
    let uid = made.uid().unwrap();
    let (stopped, ()) = tokio::join!(port.stop(&object, &uid), touched);
    let stale = stopped.unwrap_err();
    assert_eq!((stale.code.as_str(), stale.retryable), ("changed-meanwhile", true));
    assert_eq!(port.state(&object).await.unwrap().unwrap().replicas, 3);
    port.stop(&object, &uid).await.unwrap();
    assert_eq!(port.state(&object).await.unwrap().unwrap().replicas, 0);
}

#[tokio::test]
async fn cron_jobs_are_suspended_and_put_back_as_found() {
    let server = server();
    let client = server.client();
    let made = make::<CronJob>(&client, json!({
        "metadata": { "name": "nightly" },
        "spec": { "schedule": "@daily", "suspend": false, "jobTemplate": { "spec": { "template": template("r/notes:2.0") } } }
    }))
    .await;
    let (object, uid) = (ObjectRef::new("batch", "CronJob", NS, "nightly"), made.uid().unwrap());
    let port = KubeWorkloads::new(client);
    for _ in 0..2 {
        port.stop(&object, &uid).await.unwrap();
    }
    let stopped = port.state(&object).await.unwrap().unwrap();
    assert_eq!(stopped.suspend, Some(true));
    port.start(&object, &uid, &stopped.resource_version, 0, Some(false)).await.unwrap();
    assert_eq!(port.state(&object).await.unwrap().unwrap().suspend, Some(false));
}

#[tokio::test]
async fn the_apps_workloads_are_found_without_keda_being_installed() {
    let server = server();
    let client = server.client();
    let crd = json!({
        "metadata": { "name": "helmreleases.helm.toolkit.fluxcd.io" },
        "spec": {
            "group": "helm.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": { "plural": "helmreleases", "singular": "helmrelease", "kind": "HelmRelease" },
            "versions": [{
                "name": "v2", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }
            }]
        }
    });
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &from_value(crd).unwrap()).await.unwrap();
    deployment(&client).await;
    let port = KubeWorkloads::new(client.clone());
    let own = [ObjectRef::new("helm.toolkit.fluxcd.io", "HelmRelease", NS, "notes")];
    assert_eq!(port.find(&app(), &own, &[]).await.unwrap_err().code, "workload-gone");
    make::<windlass_api::foreign::HelmRelease>(
        &client,
        json!({ "metadata": { "name": "notes" }, "spec": { "interval": "1m" } }),
    )
    .await;
    let found = port.find(&app(), &own, &[]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].delivered, found[0].claims.as_slice(), found[0].replicas),
        (true, &["data".to_owned()][..], 3)
    );
    // A claim that nothing mounts is the app's as well.
    let labels = json!({ "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": NS });
    for (name, labels) in [("archive", labels), ("other", json!({}))] {
        make::<PersistentVolumeClaim>(
            &client,
            json!({
                "metadata": { "name": name, "labels": labels },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } }
            }),
        )
        .await;
    }
    assert_eq!(port.delivered_claims(&app(), &own).await.unwrap(), ["archive"]);
    let strange = [ObjectRef::new("argoproj.io", "Application", NS, "notes")];
    assert_eq!(port.find(&app(), &strange, &[]).await.unwrap_err().code, "unknown-delivery");
}

/// A ReplicaSet of the deployment with one pod, as the controllers make them.
async fn roll_out(client: &Client, deployment: &Deployment, image: &str) -> Pod {
    let owner = |api: &str, kind: &str, name: &str, uid: Option<String>| json!([{ "apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true }]);
    let set = make::<ReplicaSet>(
        client,
        json!({
            "metadata": {
                "name": "notes-1", "annotations": { "deployment.kubernetes.io/revision": "1" },
                "ownerReferences": owner("apps/v1", "Deployment", "notes", deployment.uid())
            },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "notes" } }, "template": template(image) }
        }),
    )
    .await;
    let mut pod = template(image);
    pod["metadata"] =
        json!({ "name": "notes-1-x", "ownerReferences": owner("apps/v1", "ReplicaSet", "notes-1", set.uid()) });
    pod["spec"]["nodeName"] = json!("node");
    make::<Pod>(client, pod).await
}

async fn pod_status(client: &Client, status: Value) {
    let patch = json!({ "status": status });
    Api::<Pod>::namespaced(client.clone(), NS)
        .patch_status("notes-1-x", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pod_is_removed_only_when_it_has_ended_or_nobody_wants_it() {
    let server = server();
    let client = server.client();
    let (object, made) = deployment(&client).await;
    let pod = roll_out(&client, &made, "r/notes:1.0").await;
    pod_status(&client, json!({ "phase": "Pending" })).await;
    let port = KubeWorkloads::new(client.clone());
    let holders = port.holders(NS, &["data".into()]).await.unwrap();
    assert_eq!(
        holders.iter().map(|holder| format!("{} {}", holder.by, holder.why)).collect::<Vec<_>>(),
        ["Pod default/notes-1-x Pending"]
    );
    let (this, uid) = (ObjectRef::new("", "Pod", NS, "notes-1-x"), pod.uid().unwrap());
    assert_eq!(code(port.remove_pod(&this, &uid).await), "pod-in-use");
    assert_eq!(code(port.remove_pod(&this, "another pod of that name").await), "done");
    assert_eq!(port.pods(NS, std::slice::from_ref(&object), &[]).await.unwrap().len(), 1);
    port.stop(&object, &made.uid().unwrap()).await.unwrap();
    assert_eq!(code(port.remove_pod(&this, &uid).await), "done");
    // The API server gives the kubelet a grace period, so the object may still be there, on its way out.
    let left = Api::<Pod>::namespaced(client, NS).get_opt("notes-1-x").await.unwrap();
    assert!(left.is_none_or(|left| left.metadata.deletion_timestamp.is_some()));
}

/// Answers every request on a loopback address with the status line.
async fn answering(status: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

/// The clock of the machine, which the server uses too.
struct Now;

#[async_trait::async_trait]
impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    async fn sleep(&self, _: SignedDuration) {}
}

#[tokio::test]
async fn an_app_is_healthy_when_its_pods_are_and_its_service_answers() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = server();
    let client = server.client();
    let (object, made) = deployment(&client).await;
    let health = KubeHealth::new(client.clone(), http_client().unwrap(), Arc::new(Now));
    let pin = Pin {
        component: "image/notes".into(),
        repository: "apps".into(),
        path: "f".into(),
        object: "HelmRelease/notes".into(),
        field: "spec.values.image.tag".into(),
        part: PinPart::Whole,
    };
    let pins = [PinValue { pin, value: "2.0".into() }];
    let check =
        HttpCheck { service: "notes".into(), port: 80, path: "/healthz".into(), timeout: SignedDuration::from_secs(5) };
    let judge = async || {
        health.check(&app(), std::slice::from_ref(&object), &pins, std::slice::from_ref(&check)).await.unwrap()
    };
    let waits = |report: HealthReport, reason: &str| match report {
        HealthReport::Waiting(why) => assert!(why.contains(reason), "{why}"),
        other => panic!("{other:?}"),
    };
    waits(judge().await, "newest generation");

    let scale = json!({ "spec": { "replicas": 1 } });
    let api = Api::<Deployment>::namespaced(client.clone(), NS);
    let generation =
        api.patch("notes", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap().metadata.generation;
    roll_out(&client, &made, "r/notes:2.0").await;
    let status = json!({ "status": {
        "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [
            { "type": "Available", "status": "True" },
            { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" }
        ]
    } });
    api.patch_status("notes", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    waits(judge().await, "not ready");
    pod_status(&client, json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })).await;
    waits(judge().await, "service default/notes does not exist");

    make::<Service>(
        &client,
        json!({ "metadata": { "name": "notes" }, "spec": { "ports": [{ "name": "web", "port": 80 }] } }),
    )
    .await;
    waits(judge().await, "no ready address");
    let slice = |port: u16| {
        json!({
            "metadata": { "name": "notes-1", "labels": { "kubernetes.io/service-name": "notes" } }, "addressType": "IPv4",
            "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }], "ports": [{ "name": "web", "port": port }]
        })
    };
    make::<EndpointSlice>(&client, slice(answering("503 Service Unavailable").await)).await;
    waits(judge().await, "503");
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), NS);
    let redirecting = json!({ "ports": [{ "name": "web", "port": answering("302 Found").await }] });
    slices.patch("notes-1", &PatchParams::default(), &Patch::Merge(&redirecting)).await.unwrap();
    match judge().await {
        HealthReport::Healthy { evidence, restarted: None } => {
            assert!(evidence.contains("1 pods ready") && evidence.contains("notes:80/healthz"), "{evidence}");
        }
        other => panic!("{other:?}"),
    }
    pod_status(
        &client,
        json!({
            "conditions": [{ "type": "Ready", "status": "False" }],
            "containerStatuses": [{
                "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
                "state": { "waiting": { "reason": "CrashLoopBackOff" } }
            }]
        }),
    )
    .await;
    match judge().await {
        HealthReport::Broken(why) => assert!(why.contains("crashed 3 times"), "{why}"),
        other => panic!("{other:?}"),
    }
}
