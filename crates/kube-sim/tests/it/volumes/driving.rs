//! Storage that fails or is slow, and runs that repeat.

use super::{Cluster, from_snapshot, name};
use kube_sim::controllers::volumes::driver::{CallName, Control, FailureCode, Rule};
use serde_json::{Value, json};
use std::time::Duration;

fn first(count: u32, rule: Rule) -> Control {
    Control { rules: vec![Rule { first: Some(count), ..rule }], ..Control::default() }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_made_is_tried_again_until_it_can_be() {
    let cluster = Cluster::new().await;
    let full = first(3, Rule::fail(CallName::CreateVolume, FailureCode::ResourceExhausted));
    cluster.driver.control(&full).unwrap();
    cluster.bound("data", json!({})).await;
    let results: Vec<String> = cluster.driver.calls().unwrap().into_iter().map(|call| call.result).collect();
    assert_eq!(results, ["ResourceExhausted", "ResourceExhausted", "ResourceExhausted", "OK"]);
    let seen = cluster.events("data").await.join("\n");
    assert!(seen.contains("ProvisioningFailed: rpc error: code = ResourceExhausted desc = "), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_volume_is_asked_for_again_and_made_once_even_if_its_claim_is_gone_by_then() {
    let cluster = Cluster::new().await;
    cluster.driver.control(&first(2, Rule::slow(CallName::CreateVolume, Duration::from_secs(25)))).unwrap();
    cluster.claim("data", json!({})).await;
    cluster.claim("gone", json!({})).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let seen = cluster.events("data").await.join("\n");
    assert!(seen.contains("rpc error: code = DeadlineExceeded"), "{seen}");
    cluster.delete("PersistentVolumeClaim", "gone").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.claim_now("data").await["status"]["phase"], "Bound");
    let volumes = cluster.api("PersistentVolume").list(&Default::default()).await.unwrap().items;
    assert_eq!(volumes.len(), 1, "the other volume was found and deleted");
    let calls = cluster.driver.calls().unwrap();
    let done = |name| calls.iter().filter(|call| call.call == name && call.result == "OK").count();
    assert!(done(CallName::CreateVolume) >= 2);
    assert!(done(CallName::DeleteVolume) >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_cut_says_so_and_recovers() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({})).await;
    let unavailable = first(4, Rule::fail(CallName::CreateSnapshot, FailureCode::Unavailable));
    cluster.driver.control(&unavailable).unwrap();
    cluster.snapshot("s", "data", None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = cluster.snapshot_now("s").await;
    let message = snapshot["status"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("failed to take snapshot of the volume"), "{message}");
    assert!(message.contains("rpc error: code = Unavailable desc = "), "{message}");
    assert_eq!(snapshot["status"]["readyToUse"], false);
    let content = cluster.content_of("s").await;
    let mark = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
    assert_eq!(content["metadata"]["annotations"][mark], "yes", "the driver may be cutting");
    cluster.settle().await;
    let snapshot = cluster.snapshot_now("s").await;
    assert_eq!((&snapshot["status"]["readyToUse"], &snapshot["status"]["error"]), (&json!(true), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_tried_again_in_its_own_time_and_ends_the_mark_of_being_cut() {
    let cluster = Cluster::new().await;
    cluster.bound("data", json!({})).await;
    let refusing = Rule::fail(CallName::CreateSnapshot, FailureCode::InvalidArgument);
    cluster.driver.control(&Control { rules: vec![refusing], ..Control::default() }).unwrap();
    cluster.snapshot("s", "data", None).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.content_of("s").await["metadata"]["annotations"], Value::Null);
    let tries = cluster.driver.calls().unwrap().len();
    assert!((8..20).contains(&tries), "{tries}");
    cluster.driver.control(&Control::default()).unwrap();
    cluster.settle().await;
    assert_eq!(cluster.snapshot_now("s").await["status"]["readyToUse"], true);
}

#[tokio::test(start_paused = true)]
async fn what_the_storage_will_not_delete_stays_until_it_does() {
    let cluster = Cluster::new().await;
    let (_, volume) = cluster.bound("data", json!({})).await;
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    let keeping = Control {
        keep_volumes_with_snapshots: true,
        rules: vec![Rule::fail(CallName::DeleteSnapshot, FailureCode::Internal)],
        ..Control::default()
    };
    cluster.driver.control(&keeping).unwrap();
    cluster.delete("VolumeSnapshot", "s").await;
    cluster.delete("PersistentVolumeClaim", "data").await;
    cluster.settle().await;
    assert!(cluster.snapshot_now("s").await["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(cluster.volume_now(name(&volume)).await["status"]["phase"], "Released");
    assert_eq!(cluster.read(&volume).as_deref(), Some(""));
    let seen = cluster.server.client();
    let events: kube::Api<k8s_openapi::api::core::v1::Event> = kube::Api::namespaced(seen, "default");
    let failed = events.list(&Default::default()).await.unwrap().items;
    assert!(failed.iter().any(|event| event.reason.as_deref() == Some("VolumeFailedDelete")));
    cluster.driver.control(&Control::default()).unwrap();
    cluster.settle().await;
    assert_eq!((cluster.snapshot_now("s").await, cluster.read(&volume)), (Value::Null, None));
    assert_eq!(cluster.volume_now(name(&volume)).await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn sizes_are_rounded_up_by_storage_that_does_so() {
    let cluster = Cluster::new().await;
    cluster.driver.control(&Control { round_up_to: Some(1 << 30), ..Control::default() }).unwrap();
    let (claim, volume) = cluster.bound("data", json!({})).await;
    assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi");
    assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
    cluster.snapshot("s", "data", None).await;
    cluster.settle().await;
    assert_eq!(cluster.snapshot_now("s").await["status"]["restoreSize"], "1Gi");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    async fn story() -> (Vec<kube_sim::server::AuditEntry>, String, Vec<String>) {
        let cluster = Cluster::new().await;
        let names: Vec<String> = (0..8).map(|number| format!("data-{number}")).collect();
        for name in &names {
            cluster.claim(name, json!({})).await;
        }
        cluster.settle().await;
        for name in &names {
            cluster.snapshot(&format!("{name}-s"), name, None).await;
            cluster.claim(&format!("{name}-r"), from_snapshot(&format!("{name}-s"))).await;
        }
        cluster.settle().await;
        for name in &names {
            cluster.delete("PersistentVolumeClaim", name).await;
            cluster.delete("VolumeSnapshot", &format!("{name}-s")).await;
        }
        cluster.settle().await;
        let calls = cluster.driver.calls().unwrap().into_iter();
        let calls = calls.map(|call| format!("{:?} {} {} {}", call.call, call.volume, call.snapshot, call.at_ms));
        (cluster.server.audit(), cluster.server.trace_hash(), calls.collect())
    }
    let (one, other) = (story().await, story().await);
    for (one, other) in one.0.iter().zip(&other.0) {
        assert_eq!(one, other, "the first difference");
    }
    assert_eq!((one.1, one.2), (other.1, other.2));
}
