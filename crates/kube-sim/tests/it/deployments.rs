//! Deployments, ReplicaSets and DaemonSets on a simulated cluster.

use super::cluster::{Cluster, condition, image, template, workload};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use kube_sim::controllers::pods::{Behaviour, Scripted};
use kube_sim::{Config, SimServer};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

fn images() -> Scripted {
    let slow = Behaviour::Serve { ready_after: Some(Duration::from_secs(5)), stop_after: Duration::from_secs(4) };
    Scripted::new().with("app:*", slow).with("never:*", Behaviour::never_ready()).with("crash:*", Behaviour::exit(1))
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_keeps_old_pods_until_new_ones_are_ready() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 2, "app:1")).await;
    let first = cluster.settled("Deployment", "web", 2).await;
    assert_eq!(first["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(condition(&first, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(condition(&first, "Available")["status"], "True");
    cluster.patch("Deployment", "web", image("app:2")).await;
    let second = cluster.settled("Deployment", "web", 2).await;
    assert_eq!(second["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    sleep(Duration::from_secs(60)).await;
    let pods = cluster.pods().await;
    assert_eq!(pods.len(), 2);
    let sets = cluster.api("ReplicaSet").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.iter().map(|set| set.data["spec"]["replicas"].as_i64().unwrap()).sum::<i64>(), 2);
    assert_eq!(sets.len(), 2);
    let newest = sets.iter().find(|set| set.annotations()["deployment.kubernetes.io/revision"] == "2").unwrap();
    for pod in &pods {
        let owner = &pod.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), &owner.uid, owner.controller),
            ("ReplicaSet", &newest.uid().unwrap(), Some(true))
        );
        assert_eq!(pod.labels()["pod-template-hash"], newest.labels()["pod-template-hash"]);
    }
    let runs = cluster.history().runs;
    assert_eq!(runs.len(), 4);
    let mut ready: Vec<i64> = runs.iter().filter(|run| run.image == "app:2").map(|run| run.ready_ms.unwrap()).collect();
    let mut ended: Vec<i64> = runs.iter().filter(|run| run.image == "app:1").map(|run| run.until_ms.unwrap()).collect();
    ready.sort_unstable();
    ended.sort_unstable();
    assert!(ready.iter().zip(&ended).all(|(ready, ended)| ended > ready), "an old pod went first: {runs:#?}");
}

#[tokio::test(start_paused = true)]
async fn going_back_to_an_earlier_template_uses_its_replica_set_again() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 1, "app:1")).await;
    cluster.settled("Deployment", "web", 1).await;
    cluster.patch("Deployment", "web", image("app:2")).await;
    cluster.settled("Deployment", "web", 1).await;
    cluster.patch("Deployment", "web", image("app:1")).await;
    let last = cluster.settled("Deployment", "web", 1).await;
    assert_eq!(last["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(cluster.api("ReplicaSet").list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn recreate_waits_until_the_old_pods_are_gone() {
    let cluster = Cluster::new(images());
    let mut deployment = workload("Deployment", "web", 2, "app:1");
    deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create(deployment).await;
    cluster.settled("Deployment", "web", 2).await;
    cluster.patch("Deployment", "web", image("app:2")).await;
    cluster.settled("Deployment", "web", 2).await;
    let runs = cluster.history().runs;
    let end = runs.iter().filter(|run| run.image == "app:1").map(|run| run.until_ms.unwrap()).max().unwrap();
    let start = runs.iter().filter(|run| run.image == "app:2").map(|run| run.from_ms).min().unwrap();
    assert!(start > end, "{runs:#?}");
    assert_eq!(cluster.pods().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_stops_the_rollout_and_passes_the_deadline() {
    let cluster = Cluster::new(images());
    let mut deployment = workload("Deployment", "web", 1, "app:1");
    deployment["spec"]["progressDeadlineSeconds"] = json!(60);
    cluster.create(deployment).await;
    cluster.settled("Deployment", "web", 1).await;
    cluster.patch("Deployment", "web", image("missing:2")).await;
    let stuck = cluster
        .until("Deployment", "web", |one| condition(one, "Progressing")["reason"] == "ProgressDeadlineExceeded")
        .await;
    assert_eq!(condition(&stuck, "Progressing")["status"], "False");
    assert_eq!(condition(&stuck, "Available")["status"], "True");
    let pods = cluster.pods().await;
    let bad = pods.iter().find(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("missing:2"));
    let bad = serde_json::to_value(bad.unwrap()).unwrap();
    assert_eq!(bad["status"]["phase"], "Pending");
    assert_eq!(bad["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert_eq!(cluster.history().runs.len(), 1);
    cluster.patch("Deployment", "web", image("app:3")).await;
    let done = cluster.settled("Deployment", "web", 1).await;
    assert_eq!(condition(&done, "Progressing")["reason"], "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_crashes_is_started_again_ever_more_rarely() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 1, "crash:1")).await;
    let pod = cluster
        .until_pod(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["state"]["waiting"]["reason"] == "CrashLoopBackOff" && container["restartCount"] == 3
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    sleep(Duration::from_secs(3600)).await;
    let starts: Vec<i64> = cluster.history().runs.iter().map(|run| run.from_ms).collect();
    let waits: Vec<i64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
    assert_eq!(&waits[..8], [2, 11, 21, 41, 81, 161, 301, 301]);
}

#[tokio::test(start_paused = true)]
async fn scaling_to_zero_removes_the_pods() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 3, "app:1")).await;
    cluster.settled("Deployment", "web", 3).await;
    cluster.scale("Deployment", "web", 0).await;
    let idle = cluster.settled("Deployment", "web", 0).await;
    assert_eq!(condition(&idle, "Available")["status"], "True");
    assert_eq!(cluster.pods().await.len(), 3, "they are stopping, and not in the numbers");
    cluster.no_pods().await;
    cluster.scale("Deployment", "web", 1).await;
    cluster.settled("Deployment", "web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_deployment_ends_what_it_owns() {
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        let cluster = Cluster::new(images());
        cluster.create(workload("Deployment", "web", 2, "app:1")).await;
        cluster.settled("Deployment", "web", 2).await;
        cluster.api("Deployment").delete("web", &params).await.unwrap();
        cluster.no_pods().await;
        sleep(Duration::from_secs(5)).await;
        assert!(cluster.api("Deployment").get_opt("web").await.unwrap().is_none());
        assert!(cluster.api("ReplicaSet").list(&ListParams::default()).await.unwrap().items.is_empty());
        assert_eq!(cluster.history().runs.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_adopts_the_pods_its_selector_takes() {
    let cluster = Cluster::new(images());
    let mut pod = template("web", "app:1");
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    pod["metadata"]["name"] = json!("bare");
    cluster.create(pod).await;
    let mut set = workload("ReplicaSet", "web", 1, "app:1");
    set["apiVersion"] = json!("apps/v1");
    cluster.create(set).await;
    cluster.until("ReplicaSet", "web", |set| set["status"]["readyReplicas"] == 1).await;
    let pods = cluster.pods().await;
    assert_eq!(cluster.pod_names().await, ["bare"]);
    assert_eq!(pods[0].owner_references()[0].name, "web");
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_starts_no_rollout() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 1, "app:1")).await;
    cluster.settled("Deployment", "web", 1).await;
    cluster.patch("Deployment", "web", json!({"spec": {"paused": true}})).await;
    cluster.patch("Deployment", "web", image("app:2")).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.history().runs.len(), 1);
    cluster.patch("Deployment", "web", json!({"spec": {"paused": null}})).await;
    cluster.settled("Deployment", "web", 1).await;
    assert_eq!(cluster.history().runs[1].image, "app:2");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_has_one_pod_on_the_node_and_replaces_it() {
    let cluster = Cluster::new(images());
    let mut set = workload("DaemonSet", "agent", 1, "app:1");
    set["spec"].as_object_mut().unwrap().remove("replicas");
    cluster.create(set).await;
    let well = |set: &Value| {
        let fields = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        set["metadata"]["generation"] == set["status"]["observedGeneration"]
            && fields.iter().all(|field| set["status"][field] == 1)
    };
    cluster.until("DaemonSet", "agent", well).await;
    cluster.patch("DaemonSet", "agent", image("app:2")).await;
    cluster.until("DaemonSet", "agent", well).await;
    let images: Vec<String> = cluster.history().runs.into_iter().map(|run| run.image).collect();
    assert_eq!(images, ["app:1", "app:2"]);
    assert_eq!(cluster.pods().await.len(), 1);
}

/// A rollout, a crash loop, a StatefulSet and their ends.
async fn scenario(seed: u64) -> SimServer {
    let server = SimServer::new(Config { seed, always_allow: true, ..Config::default() });
    let cluster = Cluster::on(server.clone(), images());
    for name in ["a", "b"] {
        cluster.create(workload("Deployment", name, 3, "app:1")).await;
        cluster.create(workload("StatefulSet", name, 2, "app:1")).await;
    }
    cluster.create(workload("Deployment", "bad", 2, "crash:1")).await;
    for name in ["a", "b"] {
        cluster.settled("Deployment", name, 3).await;
        cluster.settled("StatefulSet", name, 2).await;
        cluster.patch("Deployment", name, image("app:2")).await;
        cluster.patch("StatefulSet", name, image("app:2")).await;
    }
    for name in ["a", "b"] {
        cluster.settled("Deployment", name, 3).await;
        cluster.api("StatefulSet").delete(name, &DeleteParams::default()).await.unwrap();
    }
    sleep(Duration::from_secs(600)).await;
    server
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_cluster() {
    let (first, second) = (scenario(7).await, scenario(7).await);
    for (one, other) in first.audit().iter().zip(&second.audit()) {
        assert_eq!(one, other, "the first difference");
    }
    assert_eq!(first.trace_hash(), second.trace_hash());
    assert_ne!(first.trace_hash(), scenario(8).await.trace_hash());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_at_rest_asks_for_nothing() {
    let cluster = Cluster::new(images());
    cluster.create(workload("Deployment", "web", 3, "app:1")).await;
    cluster.create(workload("StatefulSet", "db", 2, "app:1")).await;
    cluster.settled("Deployment", "web", 3).await;
    cluster.settled("StatefulSet", "db", 2).await;
    sleep(Duration::from_secs(60)).await;
    let before = cluster.server.audit().len();
    sleep(Duration::from_secs(200)).await;
    // Watches end by themselves after some minutes.
    let asked: Vec<_> =
        cluster.server.audit().split_off(before).into_iter().filter(|one| one.verb != "watch").collect();
    assert!(asked.is_empty(), "{asked:#?}");
    let writes = cluster
        .server
        .audit()
        .iter()
        .filter(|one| one.verb != "watch" && one.verb != "get" && one.verb != "list")
        .count();
    assert!(writes < 60, "{writes} writes for five pods");
}
