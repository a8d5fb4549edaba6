//! The node: how pods live and end.

use super::cluster::{Cluster, condition, template};
use async_trait::async_trait;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube_sim::controllers::pods::node::NODE_STATUS_LAG;
use kube_sim::controllers::pods::{Behaviour, Container, Event, Program, Scripted};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

fn images() -> Scripted {
    let stops_in = |seconds| Behaviour::Serve {
        ready_after: Some(Duration::from_secs(1)),
        stop_after: Duration::from_secs(seconds),
    };
    Scripted::new()
        .with("quick:*", stops_in(5))
        .with("stubborn:*", stops_in(3600))
        .with("never:*", Behaviour::never_ready())
        .with("good:*", Behaviour::exit(0))
        .with("bad:*", Behaviour::exit(2))
}

fn pod(name: &str, image: &str) -> Value {
    let mut pod = template("bare", image);
    (pod["apiVersion"], pod["kind"], pod["metadata"]["name"]) = (json!("v1"), json!("Pod"), json!(name));
    pod
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True"
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_may_end_by_itself_and_is_killed_when_its_time_is_over() {
    for (image, seconds, code) in [("quick:1", 5, 0), ("stubborn:1", 30, 137)] {
        let cluster = Cluster::new(images());
        cluster.create(pod("p", image)).await;
        cluster.until_pod(is_ready).await;
        let asked = Instant::now();
        cluster.pod_api().delete("p", &DeleteParams::default()).await.unwrap();
        let going = cluster.until_pod(|pod| !pod["metadata"]["deletionTimestamp"].is_null()).await;
        assert!(is_ready(&going), "{image}: it serves while it stops");
        cluster.no_pods().await;
        assert_eq!(asked.elapsed().as_secs(), seconds, "{image}");
        let history = cluster.history();
        assert_eq!(history.runs[0].exit_code, Some(code), "{image}");
        assert_eq!(history.entries.last().unwrap().event, Event::Removed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_brings_the_end_forward() {
    let cluster = Cluster::new(images());
    cluster.create(pod("p", "stubborn:1")).await;
    cluster.until_pod(is_ready).await;
    let asked = Instant::now();
    cluster.pod_api().delete("p", &DeleteParams::default()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    cluster.pod_api().delete("p", &DeleteParams::default().grace_period(2)).await.unwrap();
    cluster.no_pods().await;
    assert_eq!(asked.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_stays_with_its_result() {
    for (image, phase, code) in [("good:1", "Succeeded", 0), ("bad:1", "Failed", 2)] {
        let cluster = Cluster::new(images());
        let mut once = pod("p", image);
        once["spec"]["restartPolicy"] = json!("Never");
        cluster.create(once).await;
        let ended = cluster.until_pod(|pod| pod["status"]["phase"] == phase).await;
        assert_eq!(ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        sleep(Duration::from_secs(600)).await;
        assert_eq!(cluster.history().runs.len(), 1);
        cluster.pod_api().delete("p", &DeleteParams::default()).await.unwrap();
        cluster.no_pods().await;
    }
}

#[tokio::test(start_paused = true)]
async fn on_failure_starts_again_only_what_failed() {
    for (image, phase, runs) in [("good:1", "Succeeded", 1), ("bad:1", "Running", 4)] {
        let cluster = Cluster::new(images());
        let mut once = pod("p", image);
        once["spec"]["restartPolicy"] = json!("OnFailure");
        cluster.create(once).await;
        sleep(Duration::from_secs(40)).await;
        assert_eq!(cluster.until_pod(|_| true).await["status"]["phase"], phase);
        assert_eq!(cluster.history().runs.len(), runs);
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_before_the_others() {
    let cluster = Cluster::new(images());
    let mut with_init = pod("p", "quick:1");
    with_init["spec"]["initContainers"] =
        json!([{"name": "first", "image": "good:1"}, {"name": "second", "image": "good:2"}]);
    cluster.create(with_init).await;
    let starting =
        cluster.until_pod(|pod| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    assert_eq!(starting["status"]["phase"], "Pending");
    assert_eq!(condition(&starting, "Initialized")["status"], "False");
    assert_eq!(starting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    cluster.until_pod(is_ready).await;
    let runs = cluster.history().runs;
    let names: Vec<&str> = runs.iter().map(|run| run.container.as_str()).collect();
    assert_eq!(names, ["first", "second", "main"]);
    assert!(runs.windows(2).all(|pair| pair[0].until_ms.unwrap() <= pair[1].from_ms));
}

#[tokio::test(start_paused = true)]
async fn a_container_without_probes_is_ready_when_it_runs() {
    let cluster = Cluster::new(images());
    let mut simple = pod("p", "never:1");
    simple["spec"]["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
    cluster.create(simple).await;
    let ready = cluster.until_pod(is_ready).await;
    assert_eq!(ready["status"]["phase"], "Running");
    assert!(ready["status"]["podIP"].as_str().unwrap().starts_with("10.244."));
    assert!(ready["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_that_never_succeeds_has_the_container_killed() {
    let cluster = Cluster::new(images());
    let mut slow = pod("p", "never:1");
    slow["spec"]["containers"][0]["startupProbe"] =
        json!({"httpGet": {"port": 80}, "periodSeconds": 5, "failureThreshold": 4});
    cluster.create(slow).await;
    cluster.until_pod(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let run = &cluster.history().runs[0];
    assert_eq!((run.until_ms.unwrap() - run.from_ms, run.ready_ms), (20_000, None));
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_its_claim_is_unschedulable() {
    let cluster = Cluster::new(images());
    let mut waiting = pod("p", "quick:1");
    waiting["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    cluster.create(waiting).await;
    let stuck = cluster.until_pod(|pod| condition(pod, "PodScheduled")["status"] == "False").await;
    assert_eq!(condition(&stuck, "PodScheduled")["reason"], "Unschedulable");
    assert_eq!(condition(&stuck, "PodScheduled")["message"], "persistentvolumeclaim \"data\" not found");
    cluster
        .create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "csi", "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    cluster
        .until_pod(|pod| {
            condition(pod, "PodScheduled")["message"].as_str().unwrap_or_default().contains("unbound immediate")
        })
        .await;
    assert!(cluster.history().runs.is_empty());
    cluster.bind("data").await;
    cluster.until_pod(is_ready).await;
    let history = cluster.history();
    let order: Vec<Event> = history.entries.iter().map(|entry| entry.event).collect();
    assert_eq!(order, [Event::KubeletStarted, Event::VolumeInUse, Event::Starting, Event::Ready]);
    assert_eq!(history.runs[0].claims[0].handle, "h-data");
    cluster.pod_api().delete("p", &DeleteParams::default()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.volumes_in_use().await, ["kubernetes.io/csi/csi.test^h-data"], "its program has not ended");
    cluster.no_pods().await;
    assert!(!cluster.volumes_in_use().await.is_empty(), "the node has not said so yet");
    sleep(NODE_STATUS_LAG).await;
    sleep(Duration::from_millis(100)).await;
    assert!(cluster.volumes_in_use().await.is_empty());
    let order: Vec<Event> = cluster.history().entries.iter().skip(4).map(|entry| entry.event).collect();
    assert_eq!(order, [Event::Stopped, Event::VolumeReleased, Event::Removed]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_starts_its_containers_anew() {
    let cluster = Cluster::new(Scripted::new());
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    // The cluster's own node pulls nothing; this one replaces it.
    cluster.stop.cancel();
    sleep(Duration::from_secs(1)).await;
    let power_cut = tokio::spawn(cluster.node(images(), first.clone()));
    cluster.create(pod("p", "quick:1")).await;
    let before = cluster.until_pod(is_ready).await;
    first.cancel();
    power_cut.await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(is_ready(&cluster.until_pod(|_| true).await), "nobody has said otherwise");
    let _again = tokio::spawn(cluster.node(images(), second.clone()));
    sleep(Duration::from_millis(500)).await;
    assert!(!is_ready(&cluster.until_pod(|_| true).await));
    let after = cluster.until_pod(is_ready).await;
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
    let runs = cluster.history().runs;
    assert_eq!(runs.len(), 2);
    assert!(runs[0].until_ms.unwrap() <= runs[1].from_ms && runs[0].exit_code.is_none());
    second.cancel();
}

/// Ends well if it finds what its pod promises.
struct Reader;

#[async_trait]
impl Program for Reader {
    async fn run(&self, container: Container) -> i32 {
        let file = |path: &str| std::fs::read_to_string(container.mounts[path].join("key")).unwrap_or_default();
        let env = |name: &str| container.env.get(name).map_or("", String::as_str);
        let right = file("/config") == "from the map"
            && container.mounts["/scratch"].is_dir()
            && env("SECRET") == "s3cret"
            && env("GREETING") == "hello p"
            && container.command == ["run", "hello p"];
        i32::from(!right)
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_its_variables_and_files() {
    let cluster = Cluster::new(images().with("reader:*", Reader));
    let mut reader = pod("p", "reader:1");
    reader["spec"]["restartPolicy"] = json!("Never");
    reader["spec"]["volumes"] =
        json!([{"name": "config", "configMap": {"name": "c"}}, {"name": "scratch", "emptyDir": {}}]);
    let container = &mut reader["spec"]["containers"][0];
    container["command"] = json!(["run", "$(GREETING)"]);
    container["volumeMounts"] =
        json!([{"name": "config", "mountPath": "/config"}, {"name": "scratch", "mountPath": "/scratch"}]);
    container["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": "hello $(NAME)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
    ]);
    cluster.create(reader).await;
    sleep(Duration::from_secs(20)).await;
    let pod = cluster.pods().await;
    assert_eq!(pod[0].name_any(), "p");
    let map: k8s_openapi::api::core::v1::ConfigMap =
        super::from(json!({"metadata": {"name": "c"}, "data": {"key": "from the map"}}));
    kube::Api::namespaced(cluster.client.clone(), "default").create(&Default::default(), &map).await.unwrap();
    cluster
        .until_pod(|pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let secret: k8s_openapi::api::core::v1::Secret =
        super::from(json!({"metadata": {"name": "s"}, "stringData": {"key": "s3cret"}}));
    kube::Api::namespaced(cluster.client.clone(), "default").create(&Default::default(), &secret).await.unwrap();
    cluster.until_pod(|pod| pod["status"]["phase"] == "Succeeded").await;
}
