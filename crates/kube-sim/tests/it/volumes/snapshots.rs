//! Snapshots: cutting, restoring, deleting.

use super::{Cluster, SNAPSHOTS, from_snapshot, handle, name};
use kube_sim::controllers::volumes::DRIVER;
use kube_sim::controllers::volumes::driver::{CallName, Control, Rule};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_restored_volume_has_the_bytes_of_the_moment_of_the_cut_and_not_of_the_request() {
    let cluster = Cluster::new().await;
    let (_, source) = cluster.bound("data", json!({})).await;
    cluster.write(&source, "at the request");
    let slow = Rule::slow(CallName::CreateSnapshot, Duration::from_secs(5));
    cluster.driver.control(&Control { rules: vec![slow], ..Control::default() }).unwrap();
    cluster.snapshot("s", "data", None).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.write(&source, "at the cut");
    let claim = cluster.claim_now("data").await;
    let held = json!("snapshot.storage.kubernetes.io/pvc-as-source-protection");
    assert!(claim["metadata"]["finalizers"].as_array().unwrap().contains(&held));
    cluster.settle().await;
    cluster.write(&source, "later");

    let (snapshot, content) = (cluster.snapshot_now("s").await, cluster.content_of("s").await);
    assert_eq!(name(&content), format!("snapcontent-{}", snapshot["metadata"]["uid"].as_str().unwrap()));
    assert_eq!(snapshot["status"]["readyToUse"], true);
    assert_eq!(snapshot["status"]["restoreSize"], "1Mi");
    assert_eq!(snapshot["status"]["error"], Value::Null);
    assert_eq!(content["status"]["readyToUse"], true);
    assert_eq!(content["status"]["restoreSize"], 1 << 20);
    let handles = content["status"]["snapshotHandle"].as_str().unwrap();
    assert_eq!(handles, format!("snapshot-{}", snapshot["metadata"]["uid"].as_str().unwrap()));
    let cut = jiff::Timestamp::from_nanosecond(content["status"]["creationTime"].as_i64().unwrap().into()).unwrap();
    assert_eq!(snapshot["status"]["creationTime"], cut.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    assert_eq!(content["spec"]["source"]["volumeHandle"], handle(&source));
    assert_eq!(content["spec"]["volumeSnapshotRef"]["uid"], snapshot["metadata"]["uid"]);
    assert_eq!(content["spec"]["driver"], DRIVER);
    assert_eq!(content["metadata"]["annotations"], Value::Null, "nothing is being cut any more");
    assert_eq!(
        snapshot["metadata"]["finalizers"],
        json!([
            "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
            "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
        ])
    );
    assert!(!cluster.claim_now("data").await["metadata"]["finalizers"].as_array().unwrap().contains(&held));

    let (_, restored) = cluster.bound("restored", from_snapshot("s")).await;
    assert_eq!(cluster.read(&restored).as_deref(), Some("at the cut"));
    let finalizers = cluster.snapshot_now("s").await["metadata"]["finalizers"].as_array().unwrap().len();
    assert_eq!(finalizers, 2, "the provisioner has let go of it");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_deleted_while_it_is_cut_goes_when_the_cut_has_ended() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({})).await;
    let slow = Rule::slow(CallName::CreateSnapshot, Duration::from_secs(4));
    cluster.driver.control(&Control { rules: vec![slow], ..Control::default() }).unwrap();
    cluster.snapshot("s", "data", None).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    cluster.delete("VolumeSnapshot", "s").await;
    cluster.settle().await;
    cluster.settle().await;
    assert_eq!(cluster.snapshot_now("s").await, Value::Null);
    assert_eq!(std::fs::read_dir(cluster.driver.snapshot_folder("").unwrap_or_default()).map_or(0, Iterator::count), 0);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_never_ready_is_not_restored_and_holds_the_claim_it_was_cut_from() {
    let cluster = Cluster::new().await;
    let (_, source) = cluster.bound("data", json!({})).await;
    cluster.snapshot("s", "data", Some("rig-never-ready")).await;
    cluster.claim("restored", from_snapshot("s")).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let snapshot = cluster.snapshot_now("s").await;
    assert_eq!(snapshot["status"]["readyToUse"], false);
    assert!(snapshot["status"]["creationTime"].is_string(), "it is cut");
    assert_eq!(cluster.claim_now("restored").await["status"]["phase"], "Pending");
    let seen = cluster.events("restored").await;
    let refused = "error getting handle for DataSource Type VolumeSnapshot by Name s: snapshot s is not Ready";
    assert!(seen.contains(&format!("ProvisioningFailed: {refused}")), "{seen:?}");

    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert!(cluster.claim_now("data").await["metadata"]["deletionTimestamp"].is_string());
    cluster.delete("PersistentVolumeClaim", "restored").await;
    cluster.delete("VolumeSnapshot", "s").await;
    cluster.settle().await;
    assert_eq!((cluster.snapshot_now("s").await, cluster.claim_now("data").await), (Value::Null, Value::Null));
    assert_eq!(cluster.read(&source), None);
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_forgetful_storage_die_with_their_volume_and_still_say_that_they_are_ready() {
    let cluster = Cluster::new().await;
    let (_, source) = cluster.bound("data", json!({ "storageClassName": "rig-forgetful" })).await;
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    let content = cluster.content_of("s").await;
    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert_eq!(cluster.read(&source), None);
    assert_eq!(cluster.driver.snapshot_folder(content["status"]["snapshotHandle"].as_str().unwrap()), None);
    assert_eq!(cluster.snapshot_now("s").await["status"]["readyToUse"], true);
    cluster.claim("restored", from_snapshot("s")).await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("restored").await["status"]["phase"], "Pending");
    let seen = cluster.events("restored").await.join("\n");
    assert!(seen.contains("rpc error: code = NotFound desc = snapshot"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_snapshot_takes_its_copy_along_or_leaves_it_as_its_content_says() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({})).await;
    let mut copies = Vec::new();
    for snapshot in ["gone", "kept"] {
        cluster.snapshot(snapshot, "data", None).await;
        cluster.settle().await;
        copies.push(cluster.content_of(snapshot).await);
    }
    let folder =
        |content: &Value| cluster.driver.snapshot_folder(content["status"]["snapshotHandle"].as_str().unwrap());
    cluster.patch("VolumeSnapshotContent", name(&copies[1]), json!({ "spec": { "deletionPolicy": "Retain" } })).await;
    for snapshot in ["gone", "kept"] {
        cluster.delete("VolumeSnapshot", snapshot).await;
    }
    cluster.settle().await;
    for snapshot in ["gone", "kept"] {
        assert_eq!(cluster.snapshot_now(snapshot).await, Value::Null);
    }
    let there = |content: &Value| cluster.get("VolumeSnapshotContent", name(content).to_owned().leak());
    assert_eq!((there(&copies[0]).await, folder(&copies[0])), (Value::Null, None));
    assert!(there(&copies[1]).await.is_object() && folder(&copies[1]).is_some());

    // A content without its snapshot goes without the bytes, and they come back through a content made by hand.
    cluster.delete("VolumeSnapshotContent", name(&copies[1])).await;
    cluster.settle().await;
    assert_eq!(there(&copies[1]).await, Value::Null);
    let copy = copies[1]["status"]["snapshotHandle"].clone();
    cluster
        .create(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent", "metadata": { "name": "by-hand" },
            "spec": {
                "deletionPolicy": "Retain", "driver": DRIVER, "source": { "snapshotHandle": copy },
                "volumeSnapshotRef": { "namespace": "default", "name": "again" },
            },
        }))
        .await;
    cluster
        .create(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": "again" },
            "spec": { "source": { "volumeSnapshotContentName": "by-hand" } },
        }))
        .await;
    cluster.settle().await;
    let (snapshot, content) = (cluster.snapshot_now("again").await, cluster.content_of("again").await);
    assert_eq!(snapshot["status"]["readyToUse"], true);
    assert_eq!(content["spec"]["volumeSnapshotRef"]["uid"], snapshot["metadata"]["uid"]);
    cluster.bound("restored", from_snapshot("again")).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_not_deleted_while_a_volume_is_made_from_it() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({})).await;
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    let slow = Rule::slow(CallName::CreateVolume, Duration::from_secs(8));
    cluster.driver.control(&Control { rules: vec![slow], ..Control::default() }).unwrap();
    cluster.claim("restored", from_snapshot("s")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.delete("VolumeSnapshot", "s").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(cluster.snapshot_now("s").await["metadata"]["deletionTimestamp"].is_string());
    let seen = cluster.events("s").await;
    assert!(seen.contains(&"SnapshotDeletePending: Snapshot is being used to restore a PVC".to_owned()), "{seen:?}");
    cluster.settle().await;
    assert_eq!(cluster.claim_now("restored").await["status"]["phase"], "Bound");
    assert_eq!(cluster.snapshot_now("s").await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_ready_snapshot_that_loses_its_content_is_cut_again_if_its_copy_is_gone_as_well() {
    let cluster = Cluster::new().await;
    let (_, source) = cluster.bound("data", json!({})).await;
    cluster.write(&source, "first");
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    let first = cluster.content_of("s").await;
    let unheld = json!({ "metadata": { "finalizers": null } });
    cluster.write(&source, "second");
    cluster.driver.delete_snapshot(first["status"]["snapshotHandle"].as_str().unwrap()).await.unwrap();
    cluster.patch("VolumeSnapshotContent", name(&first), unheld).await;
    cluster.delete("VolumeSnapshotContent", name(&first)).await;
    cluster.settle().await;
    let second = cluster.content_of("s").await;
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(cluster.snapshot_now("s").await["status"]["readyToUse"], true);
    let seen = cluster.events("s").await;
    assert!(seen.contains(&"SnapshotContentMissing: VolumeSnapshotContent is missing".to_owned()), "{seen:?}");
    let (_, restored) = cluster.bound("restored", from_snapshot("s")).await;
    assert_eq!(cluster.read(&restored).as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_restored_or_cut_says_why() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({ "resources": { "requests": { "storage": "2Mi" } } })).await;
    cluster.snapshot("s", "data", None).await;
    cluster.snapshot("unclassed", "data", Some("none")).await;
    cluster.claim("pending", json!({ "storageClassName": "rig-wait" })).await;
    cluster.snapshot("unbound", "pending", Some("rig")).await;
    cluster.settle().await;
    let error = |snapshot: Value| snapshot["status"]["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        error(cluster.snapshot_now("unclassed").await),
        "Failed to get snapshot class with error volumesnapshotclass.snapshot.storage.k8s.io \"none\" not found"
    );
    assert!(error(cluster.snapshot_now("unbound").await).contains("the PVC pending is not yet bound to a PV"));

    cluster.create(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "foreign" }, "provisioner": "other",
    }))
    .await;
    cluster.claim("small", from_snapshot("s")).await;
    cluster.claim("gone", from_snapshot("nothing")).await;
    let mut foreign = from_snapshot("s");
    foreign["storageClassName"] = json!("foreign");
    cluster.claim("foreign", foreign).await;
    cluster.settle().await;
    for (claim, why) in [
        ("small", "requested volume size 1048576 is less than the size 2097152 for the source snapshot s"),
        ("gone", "error getting snapshot nothing from api server"),
        ("foreign", "Waiting for a volume to be created either by the external provisioner 'other'"),
    ] {
        let seen = cluster.events(claim).await.join("\n");
        assert!(seen.contains(why), "{claim}: {seen}");
        assert_eq!(cluster.claim_now(claim).await["status"]["phase"], "Pending", "{claim}");
    }
    // Once what was missing is there, it goes on by itself.
    cluster
        .create(json!({
            "apiVersion": format!("{SNAPSHOTS}/v1"), "kind": "VolumeSnapshotClass", "metadata": { "name": "none" },
            "driver": DRIVER, "deletionPolicy": "Delete",
        }))
        .await;
    let node = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "node-1" } } });
    cluster.patch("PersistentVolumeClaim", "pending", node).await;
    cluster.settle().await;
    for snapshot in ["unclassed", "unbound"] {
        let status = cluster.snapshot_now(snapshot).await["status"].clone();
        assert_eq!((&status["readyToUse"], &status["error"]), (&json!(true), &Value::Null), "{snapshot}");
    }
}
