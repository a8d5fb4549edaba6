//! The end of restore points, of their copies and of replaced volumes, and what is decided too late.

use kube::api::DeleteParams;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};
use upgrade_core::ports::{CopyRecord, Disposal, Leaving};
use windlass_api::RestorePoint;
use windlass_snapshot::COPIES;

use super::*;

/// A cluster whose controllers stand still: each test makes the moment that it is about.
async fn by_hand() -> Cluster {
    let mut cluster = cluster().await;
    cluster.controllers = None;
    cluster
}

impl Cluster {
    /// As the binder does it.
    async fn phase(&self, volume: &str, phase: &str) {
        let status = json!({ "status": { "phase": phase } });
        self.volumes().patch_status(volume, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// As the protection controller does once no pod has the claim.
    async fn let_go(&self, claim: &str) {
        self.free(&self.claims(), claim).await;
        assert!(self.claim(claim).await.is_none());
    }

    fn snapshots_in(&self) -> Api<VolumeSnapshot> {
        Api::namespaced(self.server.client(), NS)
    }

    fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.server.client())
    }

    /// A snapshot of ours that is ready, with its content on Retain and the finalizer that the driver's sidecar puts on it.
    async fn copied(&self) -> CopyRecord {
        let snapshot = make::<VolumeSnapshot>(
            &self.snapshots_in(),
            json!({
                "metadata": {
                    "name": "s", "labels": { "upgrades.windlass.dev/operation": "op" }, "finalizers": ["test/as-source"]
                },
                "spec": { "source": { "persistentVolumeClaimName": "data" }, "volumeSnapshotClassName": "snap" }
            }),
        )
        .await;
        let uid = snapshot.uid().unwrap();
        make::<VolumeSnapshotContent>(
            &self.contents(),
            json!({
                "metadata": { "name": "c", "finalizers": ["test/bound"] },
                "spec": {
                    "volumeSnapshotRef": { "name": "s", "namespace": NS, "uid": uid }, "deletionPolicy": "Retain",
                    "driver": "d", "source": { "volumeHandle": "h-old" }
                }
            }),
        )
        .await;
        let done = json!({ "status": { "snapshotHandle": "sh", "readyToUse": true } });
        self.contents().patch_status("c", &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
        let done = json!({ "status": { "boundVolumeSnapshotContentName": "c", "readyToUse": true } });
        self.snapshots_in().patch_status("s", &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
        CopyRecord {
            namespace: NS.into(),
            snapshot: "s".into(),
            snapshot_uid: uid,
            content: "c".into(),
            handle: "sh".into(),
            driver: "d".into(),
        }
    }

    async fn free<K>(&self, api: &Api<K>, name: &str)
    where
        K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let free = json!({ "metadata": { "finalizers": null } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    }

    async fn policy(&self) -> String {
        self.contents().get("c").await.unwrap().spec.deletion_policy.unwrap()
    }
}

fn waits(leaving: Leaving) -> String {
    match leaving {
        Leaving::Going(what) => what,
        Leaving::Gone => "gone".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_goes_back_to_delete_before_its_snapshot_goes() {
    let cluster = by_hand().await;
    let copy = cluster.copied().await;
    let port = &cluster.snapshots;
    assert_eq!(waits(port.drop_copy(&copy).await.unwrap()), "snapshot content c to be on Delete");
    assert_eq!(cluster.policy().await, "Delete");
    assert!(cluster.snapshots_in().get("s").await.unwrap().metadata.deletion_timestamp.is_none());
    for _ in 0..2 {
        assert_eq!(waits(port.drop_copy(&copy).await.unwrap()), "snapshot default/s to be gone");
    }
    assert!(cluster.snapshots_in().get("s").await.unwrap().metadata.deletion_timestamp.is_some());
    // As the snapshot controller does it: the content goes, then the snapshot.
    cluster.contents().delete("c", &DeleteParams::default()).await.unwrap();
    cluster.free(&cluster.contents(), "c").await;
    assert_eq!(waits(port.drop_copy(&copy).await.unwrap()), "snapshot default/s to be gone");
    cluster.free(&cluster.snapshots_in(), "s").await;
    for _ in 0..2 {
        assert_eq!(port.drop_copy(&copy).await.unwrap(), Leaving::Gone);
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_whose_snapshot_somebody_deleted_is_not_leaked() {
    let cluster = by_hand().await;
    let copy = cluster.copied().await;
    cluster.snapshots_in().delete("s", &DeleteParams::default()).await.unwrap();
    cluster.free(&cluster.snapshots_in(), "s").await;
    let port = &cluster.snapshots;
    assert_eq!(waits(port.drop_copy(&copy).await.unwrap()), "snapshot content c to be on Delete");
    for _ in 0..2 {
        assert_eq!(waits(port.drop_copy(&copy).await.unwrap()), "snapshot content c to be gone");
    }
    assert!(cluster.contents().get("c").await.unwrap().metadata.deletion_timestamp.is_some());
    cluster.free(&cluster.contents(), "c").await;
    assert_eq!(port.drop_copy(&copy).await.unwrap(), Leaving::Gone);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_recorded_copy_is_left_alone() {
    let cluster = by_hand().await;
    let copy = cluster.copied().await;
    let port = &cluster.snapshots;
    // A snapshot of the same name, made later, with a content of its own.
    let earlier = CopyRecord { snapshot_uid: "earlier".into(), ..copy.clone() };
    assert_eq!(port.drop_copy(&earlier).await.unwrap(), Leaving::Gone);
    let other_handle = CopyRecord { handle: "other".into(), ..copy.clone() };
    assert_eq!(port.drop_copy(&other_handle).await.unwrap_err().code, "not-ours");
    let unlabel = json!({ "metadata": { "labels": null } });
    cluster.snapshots_in().patch("s", &PatchParams::default(), &Patch::Merge(&unlabel)).await.unwrap();
    assert_eq!(port.drop_copy(&copy).await.unwrap_err().code, "not-ours");
    assert_eq!(cluster.policy().await, "Retain");
    assert!(cluster.snapshots_in().get("s").await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_given_back_only_when_its_claim_has_released_it() {
    let cluster = by_hand().await;
    let volume = cluster.protected(&cluster.old).await;
    let port = &cluster.snapshots;
    port.set_policy(&volume, ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(port.user(&cluster.old, NS, "data").await.unwrap().as_deref(), Some("claim default/data"));
    assert_eq!(code(port.reclaim(&volume, NS, "data").await), "volume-phase");
    let uid = cluster.claim("data").await.unwrap().uid;
    port.drop_claim(NS, "data", &uid).await.unwrap();
    cluster.let_go("data").await;
    cluster.phase(&cluster.old, "Released").await;
    assert_eq!(code(port.reclaim(&volume, NS, "other").await), "volume-in-use");
    let other = ProtectedVolume { uid: "other".into(), ..volume.clone() };
    assert_eq!(code(port.reclaim(&other, NS, "data").await), "volume-replaced");

    let attachments: Api<k8s_openapi::api::storage::v1::VolumeAttachment> = Api::all(cluster.server.client());
    let attached = json!({
        "metadata": { "name": "a" },
        "spec": { "attacher": "d", "nodeName": "node-1", "source": { "persistentVolumeName": &cluster.old } }
    });
    make(&attachments, attached).await;
    assert_eq!(port.user(&cluster.old, NS, "data").await.unwrap().as_deref(), Some("node node-1"));
    attachments.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(port.user(&cluster.old, NS, "data").await.unwrap(), None);
    assert_eq!(port.volume(&cluster.old).await.unwrap().unwrap().reclaim_policy, ReclaimPolicy::Retain);
    for _ in 0..2 {
        port.reclaim(&volume, NS, "data").await.unwrap();
    }
    assert_eq!(port.volume(&cluster.old).await.unwrap().unwrap().reclaim_policy, ReclaimPolicy::Delete);
    cluster.volumes().delete(&cluster.old, &DeleteParams::default()).await.unwrap();
    cluster.free(&cluster.volumes(), &cluster.old).await;
    assert_eq!(code(port.reclaim(&volume, NS, "data").await), "done");
}

#[tokio::test(start_paused = true)]
async fn a_restore_point_waits_for_its_copies_and_is_changed_only_as_it_was_read() {
    let cluster = by_hand().await;
    let clock = Arc::new(At("2026-11-20T15:00:00Z".parse().unwrap()));
    let store = RestorePointStore::new(cluster.server.client(), clock, SignedDuration::from_hours(48));
    store.save(&record()).await.unwrap();
    let points: Api<RestorePoint> = Api::namespaced(cluster.server.client(), NS);
    let saved = points.get("notes-1").await.unwrap();
    assert_eq!(saved.finalizers(), [COPIES]);
    // One that was made before there was a finalizer gets it.
    cluster.free(&points, "notes-1").await;
    let bare = points.get("notes-1").await.unwrap();
    let held = store.hold(&bare).await.unwrap();
    assert_eq!(held.finalizers(), [COPIES]);
    assert_eq!(store.hold(&bare).await.unwrap_err().code, "changed-meanwhile");

    let looked = store.set_usable(&held, Some(false), Some("snapshot s of claim data is gone")).await.unwrap();
    let status = looked.status.clone().unwrap();
    assert_eq!((status.usable, status.observed_generation), (Some(false), looked.metadata.generation));
    assert_eq!(code(store.expire(&held).await), "changed-meanwhile");
    let usable = store.set_usable(&looked, Some(true), None).await.unwrap();
    assert_eq!(usable.status.clone().unwrap().reason, None);

    store.expire(&usable).await.unwrap();
    let leaving = points.get("notes-1").await.unwrap();
    assert!(leaving.metadata.deletion_timestamp.is_some());
    store.let_go(&leaving).await.unwrap();
    assert!(points.get_opt("notes-1").await.unwrap().is_none());
    store.let_go(&leaving).await.unwrap();
}

/// As by a leader whose answer was stuck until its successor had changed the object.
#[tokio::test(start_paused = true)]
async fn no_policy_is_changed_on_what_has_changed_since_it_was_read() {
    let cluster = by_hand().await;
    cluster.copied().await;
    let volume = cluster.protected(&cluster.old).await;
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("patch"), Fault::Latency(Duration::from_secs(2))).times(2));
    let port = CsiSnapshots::new(faults.client(&cluster.server, Identity::user("windlass")));
    let touched = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let touch = Patch::Merge(json!({ "metadata": { "annotations": { "touched": "yes" } } }));
        cluster.volumes().patch(&cluster.old, &PatchParams::default(), &touch).await.unwrap();
        cluster.contents().patch("c", &PatchParams::default(), &touch).await.unwrap();
    };
    let (kept, given_up, ()) = tokio::join!(
        port.set_policy(&volume, ReclaimPolicy::Retain),
        port.set_content_policy("c", ReclaimPolicy::Delete),
        touched
    );
    assert_eq!((code(kept).as_str(), code(given_up).as_str()), ("changed-meanwhile", "changed-meanwhile"));
    assert_eq!(cluster.volume(&cluster.old).await.unwrap().reclaim_policy, ReclaimPolicy::Delete);
    assert_eq!(cluster.contents().get("c").await.unwrap().spec.deletion_policy.as_deref(), Some("Retain"));
    assert_eq!(code(port.set_policy(&volume, ReclaimPolicy::Retain).await), "done");
    assert_eq!(code(port.set_content_policy("c", ReclaimPolicy::Delete).await), "done");
}
