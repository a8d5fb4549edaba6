//! Restore points on an API server: the parts of the snapshot controllers are played by the tests.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube_sim::{Config, SimServer};
use serde_json::{Value, from_value, json};
use upgrade_core::ports::ReclaimPolicy;
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotContent};
use windlass_snapshot::CsiSnapshots;

use super::*;
use crate::clock::SystemClock;

const NS: &str = "notes";
const NOW: &str = "2026-11-20T15:00:00Z";

struct Cluster {
    server: SimServer,
    csi: CsiSnapshots,
    apps: ManagedApps,
    leads: Leads,
}

struct Leads(bool);

impl Guard for Leads {
    fn state(&self) -> GuardState {
        if self.0 { GuardState::Held } else { GuardState::Lost("leadership".into()) }
    }
}

async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
}

/// An app that keeps one restore point, or those of the last hour.
async fn cluster() -> Cluster {
    let server = SimServer::new(Config { always_allow: true, latency: Duration::ZERO, ..Config::default() });
    let client = server.client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (plural, kind, scope) in [
        ("volumesnapshots", "VolumeSnapshot", "Namespaced"),
        ("volumesnapshotcontents", "VolumeSnapshotContent", "Cluster"),
    ] {
        make(&crds, json!({
            "metadata": { "name": format!("{plural}.snapshot.storage.k8s.io"), "annotations": { "api-approved.kubernetes.io": "test" } },
            "spec": {
                "group": "snapshot.storage.k8s.io", "scope": scope,
                "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }
                }]
            }
        }))
        .await;
    }
    for crd in windlass_api::crds() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    make::<Namespace>(&Api::all(client.clone()), json!({ "metadata": { "name": NS } })).await;
    let cluster = Cluster {
        csi: CsiSnapshots::new(client.clone()),
        apps: ManagedApps::new(client, Arc::new(SystemClock::new())),
        leads: Leads(true),
        server,
    };
    make(
        &cluster.api::<ManagedApp>(),
        json!({
            "metadata": { "name": "notes" },
            "spec": {
                "delivery": { "flux": { "objects": [{ "kind": "HelmRelease", "name": "notes" }] } },
                "snapshots": { "retention": { "keepLast": 1, "maxAge": "1h" } }
            }
        }),
    )
    .await;
    cluster
}

impl Cluster {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.server.client(), NS)
    }

    fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.server.client())
    }

    fn keeper(&self, now: &str) -> Keeper<'_> {
        let client = self.server.client();
        let clock = Arc::new(SystemClock::new());
        Keeper {
            store: RestorePointStore::new(client.clone(), clock, SignedDuration::from_hours(1)),
            client,
            snapshots: &self.csi,
            disposal: &self.csi,
            apps: &self.apps,
            guard: &self.leads,
            now: now.parse().unwrap(),
            app: AppRef { namespace: NS.into(), name: "notes".into(), uid: String::new() },
        }
    }

    /// A restore point with one copy that is ready, bound both ways and on Retain; so many hours old.
    async fn point(&self, name: &str, hours: i64) {
        self.point_of(name, hours, "h").await;
    }

    /// The same, of the volume with that handle.
    async fn point_of(&self, name: &str, hours: i64, volume: &str) {
        let now: Timestamp = NOW.parse().unwrap();
        let snapshot = make(
            &self.api::<VolumeSnapshot>(),
            json!({
                "metadata": {
                    "name": name,
                    "labels": { "upgrades.windlass.dev/operation": "op" },
                    "annotations": { "upgrades.windlass.dev/driver": "d", "upgrades.windlass.dev/volume-handle": volume }
                },
                "spec": { "source": { "persistentVolumeClaimName": "data" } }
            }),
        )
        .await;
        make(&self.contents(), json!({
            "metadata": { "name": format!("c-{name}") },
            "spec": {
                "volumeSnapshotRef": { "name": name, "namespace": NS, "uid": snapshot.uid() }, "deletionPolicy": "Retain",
                "driver": "d", "source": { "volumeHandle": volume }
            }
        }))
        .await;
        let done = json!({ "status": { "snapshotHandle": format!("s-{name}"), "readyToUse": true } });
        self.contents()
            .patch_status(&format!("c-{name}"), &PatchParams::default(), &Patch::Merge(&done))
            .await
            .unwrap();
        let done = json!({ "status": { "boundVolumeSnapshotContentName": format!("c-{name}"), "readyToUse": true } });
        let snapshots = self.api::<VolumeSnapshot>();
        snapshots.patch_status(name, &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
        make(&self.api::<RestorePoint>(), json!({
            "metadata": { "name": name },
            "spec": {
                "subject": { "kind": "ManagedApp", "name": "notes" }, "takenAt": now - SignedDuration::from_hours(hours),
                "consistency": "Stopped", "components": { "chart": "1.4.0" }, "request": "op",
                "data": [{
                    "type": "Volume", "claim": { "name": "data", "uid": "c", "spec": { "storageClassName": "fast" } },
                    "volume": format!("pv-{volume}"), "volumeHandle": volume, "driver": "d", "snapshot": name, "snapshotUid": snapshot.uid(),
                    "content": format!("c-{name}"), "handle": format!("s-{name}"), "size": "1"
                }]
            }
        }))
        .await;
    }

    async fn get(&self, name: &str) -> Option<RestorePoint> {
        self.api::<RestorePoint>().get_opt(name).await.unwrap()
    }

    /// One look, as the controller takes it.
    async fn look_at(&self, now: &str, name: &str) -> Result<Option<Duration>, Failure> {
        match self.get(name).await {
            Some(point) => self.keeper(now).take(&point).await,
            None => Ok(None),
        }
    }

    async fn look(&self, name: &str) -> Option<Duration> {
        self.look_at(NOW, name).await.unwrap()
    }

    /// As the snapshot controller does it: what is deleted with its policy on Delete goes.
    async fn snapshot_goes(&self, name: &str) {
        assert!(self.api::<VolumeSnapshot>().get_opt(name).await.unwrap().is_none());
        let content = self.contents().get(&format!("c-{name}")).await.unwrap();
        assert_eq!(content.spec.deletion_policy.as_deref(), Some("Delete"), "it would leak");
        self.contents().delete(&format!("c-{name}"), &DeleteParams::default()).await.unwrap();
    }

    async fn request(&self, over: bool) {
        let requests = self.api::<windlass_api::RollbackRequest>();
        if requests.get_opt("back").await.unwrap().is_none() {
            make(&requests, json!({
                "metadata": { "name": "back" },
                "spec": { "subject": { "kind": "ManagedApp", "name": "notes" }, "to": { "restorePoint": "old" }, "data": "Restore" }
            }))
            .await;
        }
        let status = json!({ "status": { "outcome": over.then_some("Succeeded") } });
        requests.patch_status("back", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// A volume that a restore put out of use.
    async fn released(&self, handle: &str) -> PersistentVolume {
        let name = format!("pv-{handle}");
        let volume = make(&self.volumes(), json!({
            "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": { "namespace": NS, "name": "data", "uid": "c" }, "csi": { "driver": "d", "volumeHandle": handle }
            }
        }))
        .await;
        let phase = json!({ "status": { "phase": "Released" } });
        self.volumes().patch_status(&name, &PatchParams::default(), &Patch::Merge(phase)).await.unwrap();
        volume
    }

    /// The same, noted on a restore point; its time is over.
    async fn replaced(&self, handle: &str, noted_on: &str) {
        let volume = self.released(handle).await;
        let noted = json!({ "status": { "replacedVolumes": [
            { "volume": volume.name_any(), "keepUntil": NOW, "uid": volume.uid(), "handle": handle, "claim": "data", "claimUid": "c" }
        ] } });
        self.api::<RestorePoint>()
            .patch_status(noted_on, &PatchParams::default(), &Patch::Merge(&noted))
            .await
            .unwrap();
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.server.client())
    }

    async fn policy(&self, volume: &str) -> ReclaimPolicy {
        self.csi.volume(volume).await.unwrap().unwrap().reclaim_policy
    }

    /// As the provisioner does it: what is on Delete goes.
    async fn volume_goes(&self, volume: &str) {
        assert_eq!(self.policy(volume).await, ReclaimPolicy::Delete, "it would stay");
        self.volumes().delete(volume, &DeleteParams::default()).await.unwrap();
        let free = json!({ "metadata": { "finalizers": null } });
        let _ = self.volumes().patch(volume, &PatchParams::default(), &Patch::Merge(&free)).await;
    }

    /// Why each volume that is noted on it is still there.
    async fn reasons(&self, name: &str) -> Vec<String> {
        let noted = self.get(name).await.unwrap().status.unwrap().replaced_volumes;
        noted.into_iter().map(|one| one.reason).collect()
    }

    async fn is_leaving(&self, name: &str) -> bool {
        self.get(name).await.is_none_or(|point| point.metadata.deletion_timestamp.is_some())
    }
}

#[tokio::test]
async fn a_snapshot_that_somebody_deletes_shows_and_is_counted() {
    let cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.point("new", 0).await;
    for name in ["old", "new"] {
        // A first look holds the restore point, so that it never goes before its copies.
        cluster.look(name).await;
        assert_eq!(cluster.get(name).await.unwrap().status.unwrap().usable, Some(true), "{name}");
        assert!(cluster.get(name).await.unwrap().finalizers().len() == 1);
    }
    let app = cluster.api::<ManagedApp>().get("notes").await.unwrap();
    let status = app.status.clone().unwrap();
    assert_eq!((status.restore_points, status.observed_generation), (Some(2), app.metadata.generation));

    cluster.api::<VolumeSnapshot>().delete("new", &DeleteParams::default()).await.unwrap();
    cluster.look("new").await;
    let status = cluster.get("new").await.unwrap().status.unwrap();
    let why = "snapshot new of claim data is gone";
    assert_eq!((status.usable, status.reason.as_deref()), (Some(false), Some(why)));
    assert_eq!(cluster.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap().restore_points, Some(1));
    // The older one is the only way back now, however old it is.
    cluster.look("old").await;
    assert!(!cluster.is_leaving("old").await);
}

#[tokio::test]
async fn an_old_one_expires_and_takes_its_copies_with_it() {
    let cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.look("old").await;
    assert!(!cluster.is_leaving("old").await, "the only one");
    cluster.point("new", 0).await;
    cluster.look("new").await;
    cluster.request(false).await;
    cluster.look("old").await;
    assert!(!cluster.is_leaving("old").await, "a request has not ended");
    cluster.request(true).await;
    cluster.look("old").await;
    cluster.look("new").await;
    assert!(cluster.is_leaving("old").await && !cluster.is_leaving("new").await);

    assert_eq!(cluster.look("old").await, Some(LOOK_SOON));
    assert_eq!(cluster.get("old").await.unwrap().spec.void, "it is being deleted");
    cluster.look("old").await;
    cluster.snapshot_goes("old").await;
    assert_eq!(cluster.look("old").await, None);
    assert!(cluster.get("old").await.is_none());
    let content = cluster.contents().get("c-new").await.unwrap();
    assert_eq!(content.spec.deletion_policy.as_deref(), Some("Retain"), "the other copy is not touched");
}

#[tokio::test]
async fn one_that_only_says_that_it_is_usable_is_no_proof() {
    let cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.point("new", 0).await;
    cluster.look("new").await;
    // Since that look somebody has deleted its snapshot.
    cluster.api::<VolumeSnapshot>().delete("new", &DeleteParams::default()).await.unwrap();
    cluster.look("old").await;
    assert!(!cluster.is_leaving("old").await);
}

#[tokio::test]
async fn deleting_one_by_hand_deletes_its_copies_once_nobody_needs_it() {
    let cluster = cluster().await;
    cluster.point("old", 0).await;
    cluster.look("old").await;
    cluster.request(false).await;
    cluster.api::<RestorePoint>().delete("old", &DeleteParams::default()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cluster.look("old").await, Some(LOOK_SOON));
    }
    let held = cluster.get("old").await.unwrap();
    assert_eq!(held.spec.void, "", "it can still be restored");
    let reason = held.status.unwrap().reason.unwrap();
    assert_eq!(reason, "it is to be deleted, but RollbackRequest back needs it and has not ended");
    cluster.request(true).await;
    cluster.look("old").await;
    cluster.look("old").await;
    cluster.snapshot_goes("old").await;
    cluster.look("old").await;
    assert!(cluster.get("old").await.is_none());
    assert_eq!(cluster.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap().restore_points, Some(0));
}

#[tokio::test]
async fn a_copy_that_is_not_ours_any_more_is_said_and_not_looked_at_all_the_time() {
    let cluster = cluster().await;
    cluster.point("old", 0).await;
    cluster.look("old").await;
    let unlabel = json!({ "metadata": { "labels": null } });
    cluster.api::<VolumeSnapshot>().patch("old", &PatchParams::default(), &Patch::Merge(&unlabel)).await.unwrap();
    cluster.api::<RestorePoint>().delete("old", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.look("old").await, Some(LOOK_EVERY));
    let before = cluster.get("old").await.unwrap();
    assert!(before.status.clone().unwrap().reason.unwrap().contains("does not carry our label"));
    // A look that finds nothing new writes nothing, or each look would call for the next.
    assert_eq!(cluster.look("old").await, Some(LOOK_EVERY));
    assert_eq!(cluster.get("old").await.unwrap().resource_version(), before.resource_version());
}

#[tokio::test]
async fn a_namespace_that_goes_is_not_kept_and_takes_no_copy_with_it() {
    let cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.look("old").await;
    cluster.request(false).await;
    let namespaces: Api<Namespace> = Api::all(cluster.server.client());
    namespaces.delete(NS, &DeleteParams::default()).await.unwrap();
    cluster.api::<RestorePoint>().delete("old", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.look("old").await, None);
    assert!(cluster.get("old").await.is_none());
    assert_eq!(cluster.contents().get("c-old").await.unwrap().spec.deletion_policy.as_deref(), Some("Retain"));
}

#[tokio::test]
async fn an_instance_that_has_lost_its_leadership_destroys_nothing() {
    let mut cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.point("new", 0).await;
    cluster.look("old").await;
    cluster.look("new").await;
    cluster.leads.0 = false;
    assert_eq!(cluster.look_at(NOW, "new").await.map(|_| ()), Ok(()));
    assert_eq!(cluster.look_at(NOW, "old").await.unwrap_err().code, "guard-lost");
    assert!(!cluster.is_leaving("old").await);
    cluster.api::<RestorePoint>().delete("old", &DeleteParams::default()).await.unwrap();
    assert_eq!(cluster.look_at(NOW, "old").await.unwrap_err().code, "guard-lost");
    assert_eq!(cluster.get("old").await.unwrap().spec.void, "");
}

#[tokio::test]
async fn a_replaced_volume_is_deleted_after_its_time_and_its_note_goes_with_it() {
    let cluster = cluster().await;
    cluster.point("old", 2).await;
    cluster.point("new", 0).await;
    cluster.look("new").await;
    let volume = cluster.released("replaced").await;
    let noted = json!({ "status": { "replacedVolumes": [
        { "volume": "pv-replaced", "keepUntil": NOW, "uid": volume.uid(), "handle": "replaced", "claim": "data", "claimUid": "c" },
        { "volume": "pv-gone", "keepUntil": NOW, "claim": "data" },
        { "volume": "pv-later", "keepUntil": "2026-11-20T15:01:00Z", "claim": "data" }
    ] } });
    cluster.api::<RestorePoint>().patch_status("old", &PatchParams::default(), &Patch::Merge(&noted)).await.unwrap();
    let policy = async || cluster.policy("pv-replaced").await;
    let notes = async || {
        let noted = cluster.get("old").await.unwrap().status.unwrap().replaced_volumes;
        noted.into_iter().map(|one| format!("{} {}", one.volume, one.reason)).collect::<Vec<_>>()
    };

    cluster.look_at("2026-11-20T14:59:59Z", "old").await.unwrap();
    assert_eq!((policy().await, notes().await.len()), (ReclaimPolicy::Retain, 3));
    cluster.request(false).await;
    cluster.look("old").await;
    assert_eq!(policy().await, ReclaimPolicy::Retain, "a request has not ended");
    assert_eq!(notes().await, ["pv-replaced RollbackRequest back has not ended", "pv-later "]);
    cluster.request(true).await;
    assert_eq!(cluster.look("old").await, Some(LOOK_SOON));
    assert_eq!(policy().await, ReclaimPolicy::Delete);
    assert!(!cluster.is_leaving("old").await, "its notes are all that is known of the volumes");
    assert_eq!(notes().await, ["pv-replaced it is being deleted", "pv-later "]);
    cluster.look("old").await;
    assert_eq!(notes().await, ["pv-replaced it is being deleted", "pv-later "]);
    cluster.volume_goes("pv-replaced").await;
    assert_eq!(cluster.look("old").await, Some(Duration::from_secs(60)));
    assert_eq!(notes().await, ["pv-later "]);
    cluster.look_at("2026-11-20T15:01:00Z", "old").await.unwrap();
    assert!(cluster.is_leaving("old").await, "nothing is noted on it any more");
}

#[tokio::test]
async fn a_replaced_volume_with_copies_inside_goes_together_with_the_restore_point() {
    let cluster = cluster().await;
    cluster.point_of("old", 2, "h-old").await;
    cluster.replaced("h-old", "old").await;
    cluster.look("old").await;
    assert_eq!(cluster.policy("pv-h-old").await, ReclaimPolicy::Retain, "the copy could go with it");
    assert_eq!(cluster.reasons("old").await, ["copies of restore point old were cut from it"]);
    assert!(!cluster.is_leaving("old").await, "it is the only way back");

    // A newer one takes over, and neither waits for the other.
    cluster.point_of("new", 0, "h-new").await;
    cluster.look("new").await;
    cluster.look("old").await;
    assert!(cluster.is_leaving("old").await);
    for _ in 0..2 {
        assert_eq!(cluster.look("old").await, Some(LOOK_SOON));
        assert_eq!(cluster.policy("pv-h-old").await, ReclaimPolicy::Retain, "the copy is still there");
    }
    cluster.snapshot_goes("old").await;
    assert_eq!(cluster.look("old").await, Some(LOOK_SOON));
    let reason = cluster.get("old").await.unwrap().status.unwrap().reason.unwrap();
    assert_eq!(reason, "it is being deleted: volume pv-h-old: it is being deleted");
    cluster.volume_goes("pv-h-old").await;
    assert_eq!(cluster.look("old").await, None);
    assert!(cluster.get("old").await.is_none());
}

#[tokio::test]
async fn a_replaced_volume_stays_with_its_note_while_another_restore_point_was_cut_from_it() {
    let cluster = cluster().await;
    cluster.point_of("old", 2, "h-old").await;
    cluster.point_of("new", 0, "h-new").await;
    // The app was rolled back to the older one: what it replaced is what the newer one was cut from.
    cluster.replaced("h-new", "old").await;
    cluster.look("new").await;
    cluster.look("old").await;
    assert_eq!(cluster.policy("pv-h-new").await, ReclaimPolicy::Retain);
    assert_eq!(cluster.reasons("old").await, ["copies of restore point new were cut from it"]);
    assert!(!cluster.is_leaving("old").await, "its note is all that is known of the volume");

    // No copy of a void one is ever restored.
    let void = json!({ "spec": { "void": "the old version ran again" } });
    cluster.api::<RestorePoint>().patch("new", &PatchParams::default(), &Patch::Merge(&void)).await.unwrap();
    cluster.look("old").await;
    assert_eq!(cluster.policy("pv-h-new").await, ReclaimPolicy::Delete);
}

#[tokio::test]
async fn a_restore_point_deleted_by_hand_does_not_take_a_volume_that_another_was_cut_from() {
    let cluster = cluster().await;
    cluster.point_of("old", 0, "h-old").await;
    cluster.point_of("new", 0, "h-new").await;
    cluster.look("old").await;
    cluster.look("new").await;
    cluster.replaced("h-new", "old").await;
    cluster.api::<RestorePoint>().delete("old", &DeleteParams::default()).await.unwrap();
    cluster.look("old").await;
    cluster.look("old").await;
    cluster.snapshot_goes("old").await;
    cluster.look("old").await;
    assert!(cluster.get("old").await.is_none());
    assert_eq!(cluster.policy("pv-h-new").await, ReclaimPolicy::Retain);
}
