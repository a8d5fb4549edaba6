//! Claims and volumes: binding, phases, reclaiming, protection.

use super::{Cluster, SNAPSHOTS, from_snapshot, handle, name};
use kube_sim::controllers::volumes::DRIVER;
use serde_json::{Value, json};

fn retain() -> Value {
    json!({ "spec": { "persistentVolumeReclaimPolicy": "Retain" } })
}

/// A volume made by hand.
fn volume(name: &str, size: &str, claim: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": size }, "storageClassName": "rig",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": claim, "csi": { "driver": DRIVER, "volumeHandle": name },
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_bound_to_a_new_volume_with_a_folder_for_its_bytes() {
    let cluster = Cluster::new().await;
    let (claim, volume) = cluster.bound("data", json!({ "storageClassName": null })).await;
    assert_eq!(name(&volume), format!("pvc-{}", claim["metadata"]["uid"].as_str().unwrap()));
    assert_eq!(claim["spec"]["storageClassName"], "rig");
    for (key, value) in [
        ("pv.kubernetes.io/bind-completed", "yes"),
        ("pv.kubernetes.io/bound-by-controller", "yes"),
        ("volume.kubernetes.io/storage-provisioner", DRIVER),
        ("volume.beta.kubernetes.io/storage-provisioner", DRIVER),
    ] {
        assert_eq!(claim["metadata"]["annotations"][key], value, "{key}");
    }
    assert_eq!(claim["status"]["capacity"]["storage"], "1Mi");
    assert_eq!(claim["status"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], DRIVER);
    assert_eq!(
        volume["metadata"]["finalizers"],
        json!(["external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"])
    );
    assert_eq!(cluster.read(&volume).as_deref(), Some(""));
    let idle = cluster.server.audit().iter().filter(|entry| entry.verb != "watch").count();
    cluster.settle().await;
    assert_eq!(cluster.server.audit().iter().filter(|entry| entry.verb != "watch").count(), idle, "it rests");
}

#[tokio::test(start_paused = true)]
async fn when_a_claim_goes_its_bytes_go_or_stay_as_the_policy_of_its_volume_says() {
    let cluster = Cluster::new().await;
    let (_, kept) = cluster.bound("kept", json!({})).await;
    let (_, gone) = cluster.bound("gone", json!({})).await;
    cluster.write(&kept, "bytes");
    cluster.patch("PersistentVolume", name(&kept), retain()).await;
    cluster.settle().await;
    let now = cluster.volume_now(name(&kept)).await;
    assert_eq!(now["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]), "the provisioner lets it go");
    for claim in ["kept", "gone"] {
        cluster.delete("PersistentVolumeClaim", claim).await;
    }
    cluster.settle().await;
    assert_eq!((cluster.claim_now("kept").await, cluster.claim_now("gone").await), (Value::Null, Value::Null));
    assert_eq!((cluster.volume_now(name(&gone)).await, cluster.read(&gone)), (Value::Null, None));
    assert_eq!(cluster.volume_now(name(&kept)).await["status"]["phase"], "Released");
    assert_eq!(cluster.read(&kept).as_deref(), Some("bytes"));

    // A new claim of the same name does not get the old volume.
    let (_, new) = cluster.bound("kept", json!({})).await;
    assert_ne!(name(&new), name(&kept));
    assert_eq!(cluster.volume_now(name(&kept)).await["status"]["phase"], "Released");

    let delete = json!({ "spec": { "persistentVolumeReclaimPolicy": "Delete" } });
    cluster.patch("PersistentVolume", name(&kept), delete).await;
    cluster.settle().await;
    assert_eq!((cluster.volume_now(name(&kept)).await, cluster.read(&kept)), (Value::Null, None), "it goes at once");
}

#[tokio::test(start_paused = true)]
async fn a_restored_volume_is_put_behind_a_claims_name_and_both_copies_exist_throughout() {
    let cluster = Cluster::new().await;
    let (claim, old) = cluster.bound("data", json!({})).await;
    cluster.write(&old, "before");
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    cluster.write(&old, "after");
    let (_, new) = cluster.bound("helper", from_snapshot("s")).await;
    let both = || (cluster.read(&old), cluster.read(&new));
    let copies = (Some("after".to_owned()), Some("before".to_owned()));
    assert_eq!(both(), copies);

    for volume in [&old, &new] {
        cluster.patch("PersistentVolume", name(volume), retain()).await;
    }
    cluster.delete("PersistentVolumeClaim", "helper").await;
    cluster.settle().await;
    assert_eq!(
        (cluster.volume_now(name(&new)).await["status"]["phase"].as_str(), both()),
        (Some("Released"), copies.clone())
    );

    let reserved = json!({ "spec": { "claimRef": { "name": "data", "uid": null, "resourceVersion": null } } });
    cluster.patch("PersistentVolume", name(&new), reserved).await;
    cluster.settle().await;
    assert_eq!(cluster.volume_now(name(&new)).await["status"]["phase"], "Available");
    assert_eq!(
        cluster.claim_now("data").await["spec"]["volumeName"],
        name(&old),
        "the claim that has a volume keeps it"
    );

    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert_eq!(
        (cluster.volume_now(name(&old)).await["status"]["phase"].as_str(), both()),
        (Some("Released"), copies.clone())
    );

    let (again, volume) = cluster.bound("data", json!({ "volumeName": name(&new) })).await;
    assert_eq!((name(&volume), both()), (name(&new), copies));
    assert_ne!(again["metadata"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(volume["spec"]["claimRef"]["uid"], again["metadata"]["uid"]);
    assert_eq!(volume["status"]["phase"], "Bound");
    assert_eq!(cluster.volume_now(name(&old)).await["status"]["phase"], "Released");
}

#[tokio::test(start_paused = true)]
async fn a_reserved_volume_is_taken_by_its_claim_alone_even_without_a_pod_or_passed_over_if_it_is_too_small() {
    let cluster = Cluster::new().await;
    let reserved = |claim: &str| json!({ "namespace": "default", "name": claim });
    let mut waiting = volume("for-wait", "1Mi", &reserved("wait"));
    waiting["spec"]["storageClassName"] = json!("rig-wait");
    cluster.create(waiting).await;
    cluster.create(volume("for-small", "1Ki", &reserved("small"))).await;
    cluster.settle().await;
    assert_eq!(cluster.volume_now("for-wait").await["status"]["phase"], "Available");

    let (_, other) = cluster.bound("other", json!({})).await;
    assert_ne!(name(&other), "for-wait");
    let (_, taken) = cluster.bound("wait", json!({ "storageClassName": "rig-wait" })).await;
    assert_eq!(name(&taken), "for-wait");
    assert_eq!(taken["metadata"]["annotations"], Value::Null, "it was not the binder's choice");
    let (_, empty) = cluster.bound("small", json!({})).await;
    assert_eq!((name(&empty).starts_with("pvc-"), cluster.read(&empty).as_deref()), (true, Some("")));
    assert_eq!(cluster.volume_now("for-small").await["status"]["phase"], "Available");
}

#[tokio::test(start_paused = true)]
async fn a_free_volume_of_the_class_is_taken_before_one_is_made_and_the_smallest_first() {
    let cluster = Cluster::new().await;
    for (name, size) in [("large", "9Mi"), ("fits", "2Mi"), ("small", "1Ki")] {
        cluster.create(volume(name, size, &Value::Null)).await;
    }
    cluster.settle().await;
    let (_, taken) = cluster.bound("data", json!({})).await;
    assert_eq!(name(&taken), "fits");
    assert_eq!(taken["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(cluster.claim_now("data").await["status"]["capacity"]["storage"], "2Mi");

    cluster.claim("picky", json!({ "volumeName": "small" })).await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("picky").await["status"]["phase"], "Pending");
    let seen = cluster.events("picky").await;
    assert_eq!(seen, ["VolumeMismatch: Cannot bind to requested volume \"small\": requested PV is too small"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_source_is_dropped_or_not_understood_is_provisioned_empty_or_not_at_all() {
    let cluster = Cluster::new().await;
    let (_, source) = cluster.bound("data", json!({})).await;
    cluster.write(&source, "bytes");
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    for (claim, spec) in [
        ("no-group", json!({ "dataSource": { "kind": "VolumeSnapshot", "name": "s" } })),
        ("other-kind", json!({ "dataSource": { "apiGroup": "example.com", "kind": "Backup", "name": "s" } })),
        (
            "elsewhere",
            json!({ "dataSourceRef": { "apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": "s", "namespace": "default" } }),
        ),
    ] {
        let (claim, volume) = cluster.bound(claim, spec).await;
        assert_eq!((&claim["spec"]["dataSource"], &claim["spec"]["dataSourceRef"]), (&Value::Null, &Value::Null));
        assert_eq!(cluster.read(&volume).as_deref(), Some(""));
    }
    let reference = json!({ "dataSourceRef": { "apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": "s" } });
    let (claim, restored) = cluster.bound("both", reference).await;
    assert_eq!(claim["spec"]["dataSource"], claim["spec"]["dataSourceRef"]);
    assert_eq!(cluster.read(&restored).as_deref(), Some("bytes"));

    let populated = json!({ "dataSourceRef": { "apiGroup": "example.com", "kind": "Backup", "name": "s" } });
    cluster.claim("populated", populated).await;
    cluster.claim("clone", json!({ "dataSource": { "kind": "PersistentVolumeClaim", "name": "data" } })).await;
    cluster.claim("selecting", json!({ "selector": { "matchLabels": { "a": "b" } } })).await;
    cluster.settle().await;
    for claim in ["populated", "clone", "selecting"] {
        assert_eq!(cluster.claim_now(claim).await["status"]["phase"], "Pending", "{claim}");
    }
    let seen = cluster.events("selecting").await;
    assert!(seen.contains(&"ProvisioningFailed: claim Selector is not supported".to_owned()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_volume_is_anothers_stays_pending_and_one_that_loses_its_volume_is_lost_for_good() {
    let cluster = Cluster::new().await;
    let (_, volume) = cluster.bound("data", json!({})).await;
    cluster.claim("late", json!({ "volumeName": name(&volume) })).await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("late").await["status"]["phase"], "Pending");
    let seen = cluster.events("late").await;
    assert_eq!(seen, [format!("FailedBinding: volume {:?} already bound to a different claim.", name(&volume))]);

    let bent =
        json!({ "spec": { "persistentVolumeReclaimPolicy": "Retain", "claimRef": { "name": "nobody", "uid": "u" } } });
    cluster.patch("PersistentVolume", name(&volume), bent).await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("data").await["status"]["phase"], "Lost");
    assert_eq!(cluster.volume_now(name(&volume)).await["status"]["phase"], "Released", "its claim has another UID");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_made_for_a_claim_which_has_another_one_is_deleted() {
    let cluster = Cluster::new().await;
    let (claim, volume) = cluster.bound("data", json!({})).await;
    let (_, second) = cluster.bound("other", json!({})).await;
    let reference = json!({ "spec": { "claimRef": { "name": "data", "uid": claim["metadata"]["uid"] } } });
    cluster.patch("PersistentVolume", name(&second), reference).await;
    cluster.settle().await;
    assert_eq!((cluster.volume_now(name(&second)).await, cluster.read(&second)), (Value::Null, None));
    assert_eq!(cluster.read(&volume).as_deref(), Some(""));
    assert_eq!(cluster.claim_now("other").await["status"]["phase"], "Lost");
}

#[tokio::test(start_paused = true)]
async fn pods_on_a_node_hold_a_claim_until_they_are_gone_also_those_that_have_ended() {
    let cluster = Cluster::new().await;
    let (_, volume) = cluster.bound("data", json!({})).await;
    cluster.pod("waiting", "data", None).await;
    cluster.pod("ended", "data", Some("node-1")).await;
    let ended = kube::api::Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
    cluster.api("Pod").patch_status("ended", &Default::default(), &ended).await.unwrap();
    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert!(cluster.claim_now("data").await["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(cluster.volume_now(name(&volume)).await["status"]["phase"], "Bound");

    cluster.delete("Pod", "ended").await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("data").await, Value::Null);
    assert_eq!(cluster.read(&volume), None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_for_its_first_consumer_gets_its_volume_when_a_node_is_chosen() {
    let cluster = Cluster::new().await;
    cluster.claim("data", json!({ "storageClassName": "rig-wait" })).await;
    cluster.settle().await;
    assert_eq!(cluster.claim_now("data").await["status"]["phase"], "Pending");
    assert_eq!(cluster.driver.calls().unwrap(), []);
    let seen = cluster.events("data").await;
    assert_eq!(seen, ["WaitForFirstConsumer: waiting for first consumer to be created before binding"]);
    let node = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "node-1" } } });
    cluster.patch("PersistentVolumeClaim", "data", node).await;
    cluster.settle().await;
    let claim = cluster.claim_now("data").await;
    assert_eq!(claim["status"]["phase"], "Bound");
    let volume = cluster.volume_now(claim["spec"]["volumeName"].as_str().unwrap()).await;
    assert!(cluster.driver.volume_folder(&handle(&volume)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_bound_cannot_go_before_its_claim_and_on_retain_it_leaves_its_bytes() {
    let cluster = Cluster::new().await;
    let (_, volume) = cluster.bound("data", json!({})).await;
    cluster.patch("PersistentVolume", name(&volume), retain()).await;
    cluster.settle().await;
    cluster.delete("PersistentVolume", name(&volume)).await;
    cluster.settle().await;
    assert_eq!(cluster.volume_now(name(&volume)).await["status"]["phase"], "Bound");
    assert_eq!(cluster.claim_now("data").await["status"]["phase"], "Bound");
    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert_eq!(cluster.volume_now(name(&volume)).await, Value::Null);
    assert_eq!(cluster.read(&volume).as_deref(), Some(""));
}
