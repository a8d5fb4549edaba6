//! StatefulSets on a simulated cluster.

use super::cluster::{Cluster, Writer, condition, image, workload};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams};
use kube_sim::controllers::pods::{Behaviour, Scripted};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

fn images() -> Scripted {
    let slow = Behaviour::Serve { ready_after: Some(Duration::from_secs(5)), stop_after: Duration::from_secs(4) };
    Scripted::new().with("app:*", slow).with("never:*", Behaviour::never_ready()).with("writer:*", Writer)
}

fn with_claims(image: &str, replicas: i32) -> Value {
    let mut set = workload("StatefulSet", "db", replicas, image);
    set["spec"]["serviceName"] = json!("db");
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data", "subPath": "inner"}]);
    container["env"] = json!([{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "csi", "resources": {"requests": {"storage": "1Gi"}}}}]);
    set
}

fn revisions(set: &Value) -> (&Value, &Value) {
    (&set["status"]["currentRevision"], &set["status"]["updateRevision"])
}

#[tokio::test(start_paused = true)]
async fn pods_are_made_in_order_and_replaced_newest_first() {
    let cluster = Cluster::new(images());
    cluster.create(workload("StatefulSet", "db", 3, "app:1")).await;
    let first = cluster.settled("StatefulSet", "db", 3).await;
    assert_eq!(revisions(&first).0, revisions(&first).1);
    assert_eq!(first["status"]["currentReplicas"], 3);
    assert_eq!(cluster.pod_names().await, ["db-0", "db-1", "db-2"]);
    let runs = cluster.history().runs;
    assert!(runs.windows(2).all(|pair| pair[1].from_ms > pair[0].ready_ms.unwrap()), "{runs:#?}");
    cluster.patch("StatefulSet", "db", image("app:2")).await;
    let second = cluster
        .until("StatefulSet", "db", |set| {
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
                && set["status"]["updatedReplicas"] == 3
                && set["status"]["readyReplicas"] == 3
                && revisions(set).0 == revisions(set).1
        })
        .await;
    assert_ne!(revisions(&first).1, revisions(&second).1);
    let runs = cluster.history().runs;
    let replaced: Vec<&str> = runs[3..].iter().map(|run| run.pod.name.as_str()).collect();
    assert_eq!(replaced, ["db-2", "db-1", "db-0"]);
    let pod = &cluster.pods().await[0];
    assert_eq!(pod.labels()["controller-revision-hash"], second["status"]["updateRevision"]);
    let old = runs.iter().find(|run| run.pod.name == "db-2" && run.image == "app:1").unwrap();
    assert!(runs[3].from_ms > old.until_ms.unwrap(), "the name is free only when the old pod is gone");
}

#[tokio::test(start_paused = true)]
async fn a_partition_keeps_the_first_pods_as_they_are() {
    let cluster = Cluster::new(images());
    let mut set = workload("StatefulSet", "db", 3, "app:1");
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    cluster.create(set).await;
    cluster.settled("StatefulSet", "db", 3).await;
    cluster.patch("StatefulSet", "db", image("app:2")).await;
    sleep(Duration::from_secs(120)).await;
    let images = |pods: Vec<k8s_openapi::api::core::v1::Pod>| -> Vec<String> {
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect()
    };
    assert_eq!(images(cluster.pods().await), ["app:1", "app:1", "app:2"]);
    let set = cluster.until("StatefulSet", "db", |set| set["status"]["readyReplicas"] == 3).await;
    assert_ne!(revisions(&set).0, revisions(&set).1);
    // A pod below the partition comes back as it was.
    cluster.pod_api().delete("db-0", &DeleteParams::default()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(images(cluster.pods().await), ["app:1", "app:1", "app:2"]);
}

#[tokio::test(start_paused = true)]
async fn parallel_sets_do_not_wait_for_one_another() {
    let cluster = Cluster::new(images());
    let mut set = workload("StatefulSet", "db", 3, "never:1");
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    cluster.create(set).await;
    cluster.until("StatefulSet", "db", |set| set["status"]["replicas"] == 3).await;
    cluster.patch("StatefulSet", "db", image("app:2")).await;
    cluster.settled("StatefulSet", "db", 3).await;
    cluster.scale("StatefulSet", "db", 0).await;
    cluster.no_pods().await;
    let runs = cluster.history().runs;
    let ends: Vec<i64> = runs.iter().filter(|run| run.image == "app:2").map(|run| run.until_ms.unwrap()).collect();
    assert!(ends.iter().max().unwrap() - ends.iter().min().unwrap() < 1000, "{runs:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_ordered_set_is_stuck_on_a_pod_that_never_becomes_ready() {
    let cluster = Cluster::new(images());
    cluster.create(workload("StatefulSet", "db", 2, "app:1")).await;
    cluster.settled("StatefulSet", "db", 2).await;
    cluster.patch("StatefulSet", "db", image("never:2")).await;
    sleep(Duration::from_secs(120)).await;
    cluster.patch("StatefulSet", "db", image("app:3")).await;
    sleep(Duration::from_secs(3600)).await;
    let pods = cluster.pods().await;
    let images: Vec<&str> =
        pods.iter().map(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()).collect();
    assert_eq!(images, ["app:1", "never:2"], "the good template does not replace the broken pod");
    // Only by hand.
    cluster.pod_api().delete("db-1", &DeleteParams::default()).await.unwrap();
    cluster.settled("StatefulSet", "db", 2).await;
}

#[tokio::test(start_paused = true)]
async fn claims_stay_when_a_set_shrinks_and_are_used_again() {
    let cluster = Cluster::new(images());
    let test = async {
        cluster.create(with_claims("writer:1", 2)).await;
        cluster.settled("StatefulSet", "db", 2).await;
        let mut in_use = cluster.volumes_in_use().await;
        in_use.sort();
        assert_eq!(in_use, ["kubernetes.io/csi/csi.test^h-data-db-0", "kubernetes.io/csi/csi.test^h-data-db-1"]);
        let written = cluster.volumes.path().join("h-data-db-1/inner/db-1");
        assert_eq!(std::fs::read_to_string(&written).unwrap(), "writer:1");
        cluster.scale("StatefulSet", "db", 0).await;
        cluster.no_pods().await;
        sleep(Duration::from_secs(1)).await;
        assert!(cluster.volumes_in_use().await.is_empty());
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
        let kept = claims.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|claim| claim.owner_references().is_empty()));
        std::fs::remove_file(&written).unwrap();
        cluster.scale("StatefulSet", "db", 2).await;
        cluster.settled("StatefulSet", "db", 2).await;
        assert!(written.exists());
        assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 2);
    };
    tokio::select! { () = cluster.bind_all() => {}, () = test => {} }
}

#[tokio::test(start_paused = true)]
async fn claims_go_with_their_pod_or_set_if_the_policy_says_so() {
    let cluster = Cluster::new(images());
    let test = async {
        let mut set = with_claims("writer:1", 2);
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
        cluster.create(set).await;
        cluster.settled("StatefulSet", "db", 2).await;
        cluster.scale("StatefulSet", "db", 1).await;
        let going = |claim: &Value| !claim["metadata"]["deletionTimestamp"].is_null();
        cluster.until("PersistentVolumeClaim", "data-db-1", going).await;
        let kept = cluster.until("PersistentVolumeClaim", "data-db-0", |_| true).await;
        assert!(!going(&kept) && kept["metadata"]["ownerReferences"].is_null());
        let policy = json!({"whenScaled": "Retain", "whenDeleted": "Delete"});
        cluster.patch("StatefulSet", "db", json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}})).await;
        let owned = |claim: &Value| claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
        cluster.until("PersistentVolumeClaim", "data-db-0", owned).await;
        cluster.api("StatefulSet").delete("db", &DeleteParams::default()).await.unwrap();
        cluster.until("PersistentVolumeClaim", "data-db-0", going).await;
    };
    tokio::select! { () = cluster.bind_all() => {}, () = test => {} }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim_and_for_the_volume() {
    let cluster = Cluster::new(images());
    let class: k8s_openapi::api::storage::v1::StorageClass = super::from(json!({
        "metadata": {"name": "csi"}, "provisioner": "csi.test", "volumeBindingMode": "WaitForFirstConsumer"}));
    Api::all(cluster.client.clone()).create(&Default::default(), &class).await.unwrap();
    cluster.create(with_claims("writer:1", 1)).await;
    let selected = |claim: &Value| claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "node-1";
    cluster.until("PersistentVolumeClaim", "data-db-0", selected).await;
    sleep(Duration::from_secs(600)).await;
    let pod = cluster.until_pod(|_| true).await;
    assert!(pod["spec"]["nodeName"].is_null());
    assert!(cluster.history().runs.is_empty());
    cluster.bind("data-db-0").await;
    let pod = cluster.until_pod(|pod| condition(pod, "Ready")["status"] == "True").await;
    assert_eq!(condition(&pod, "PodScheduled")["status"], "True");
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], true);
}
