//! The ports against an API server: what is written, what is refused, and that every call can be repeated. The parts of the
//! volume controllers are played by the tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests, helpers included")]

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, from_value, json};
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Aside, ClaimState, Clock, Pin, PinPart, PinValue, ProtectedVolume, ReclaimPolicy, RestorePointRecord,
    RestorePoints, SnapshotManager, SnapshotRequest, VolumeRecord,
};
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use windlass_snapshot::{CsiSnapshots, RestorePointStore};

const NS: &str = "default";

struct Cluster {
    server: SimServer,
    snapshots: CsiSnapshots,
}

/// A cluster with the snapshot API, the class `fast` for driver `d`, and claim `data` bound to volume `pv-old` on Delete.
async fn cluster() -> Cluster {
    let server = SimServer::new(Config { always_allow: true, latency: std::time::Duration::ZERO, ..Config::default() });
    let client = server.client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (plural, kind, scope) in [
        ("volumesnapshots", "VolumeSnapshot", "Namespaced"),
        ("volumesnapshotcontents", "VolumeSnapshotContent", "Cluster"),
        ("volumesnapshotclasses", "VolumeSnapshotClass", "Cluster"),
    ] {
        let crd = json!({
            "metadata": { "name": format!("{plural}.snapshot.storage.k8s.io"), "annotations": { "api-approved.kubernetes.io": "test" } },
            "spec": {
                "group": "snapshot.storage.k8s.io", "scope": scope,
                "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }
                }]
            }
        });
        crds.create(&PostParams::default(), &from_value(crd).unwrap()).await.unwrap();
    }
    for crd in windlass_api::crds() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    make::<StorageClass>(&Api::all(client.clone()), json!({ "metadata": { "name": "fast" }, "provisioner": "d" }))
        .await;
    let class = json!({ "metadata": { "name": "snap" }, "driver": "d", "deletionPolicy": "Delete" });
    make::<VolumeSnapshotClass>(&Api::all(client.clone()), class).await;
    let cluster = Cluster { snapshots: CsiSnapshots::new(client), server };
    let claim = make::<PersistentVolumeClaim>(&cluster.claims(), json!({
        "metadata": { "name": "data", "labels": { "app": "notes" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "pv-old", "resources": { "requests": { "storage": "1Gi" } } }
    }))
    .await;
    cluster.provision("pv-old", "h-old", &claim).await;
    cluster
}

async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
}

impl Cluster {
    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.server.client(), NS)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.server.client())
    }

    /// As a provisioner and the binder do it: a volume on Delete, bound to the claim.
    async fn provision(&self, volume: &str, handle: &str, claim: &PersistentVolumeClaim) -> PersistentVolume {
        let made = make::<PersistentVolume>(&self.volumes(), json!({
            "metadata": { "name": volume, "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": { "namespace": NS, "name": claim.name_any(), "uid": claim.uid(), "resourceVersion": claim.resource_version() },
                "csi": { "driver": "d", "volumeHandle": handle }
            }
        }))
        .await;
        self.phase(volume, "Bound").await;
        let bound = json!({ "spec": { "volumeName": volume } });
        self.claims().patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
        let bound = json!({ "status": { "phase": "Bound" } });
        self.claims().patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
        made
    }

    async fn phase(&self, volume: &str, phase: &str) {
        let status = json!({ "status": { "phase": phase } });
        self.volumes().patch_status(volume, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// As the protection controller does once no pod has the claim.
    async fn let_go(&self, claim: &str) {
        let gone = json!({ "metadata": { "finalizers": null } });
        let _ = self.claims().patch(claim, &PatchParams::default(), &Patch::Merge(&gone)).await;
        assert!(self.claim(claim).await.is_none());
    }

    async fn protected(&self, name: &str) -> ProtectedVolume {
        let uid = self.volumes().get(name).await.unwrap().uid().unwrap();
        ProtectedVolume { name: name.into(), uid }
    }

    async fn claim(&self, name: &str) -> Option<ClaimState> {
        self.snapshots.claim(NS, name).await.unwrap()
    }
}

fn app() -> AppRef {
    AppRef { namespace: NS.into(), name: "notes".into(), uid: "app".into() }
}

fn code(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.code, |()| "done".into())
}

#[tokio::test]
async fn a_claim_is_never_deleted_while_its_volume_could_go_with_it() {
    let cluster = cluster().await;
    let uid = cluster.claim("data").await.unwrap().uid;
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "not-retained");
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", "other").await), "claim-replaced");
    assert!(cluster.claim("data").await.is_some());
    cluster.snapshots.set_policy(&cluster.protected("pv-old").await, ReclaimPolicy::Retain).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "done");
        assert!(cluster.claim("data").await.unwrap().deleting);
    }
    cluster.let_go("data").await;
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "done");
}

#[tokio::test]
async fn policies_change_only_on_the_volume_that_was_meant_and_never_to_delete_on_an_unbound_one() {
    let cluster = cluster().await;
    let volume = cluster.protected("pv-old").await;
    let other = ProtectedVolume { uid: "other".into(), ..volume.clone() };
    assert_eq!(code(cluster.snapshots.set_policy(&other, ReclaimPolicy::Retain).await), "volume-replaced");
    for _ in 0..2 {
        assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Retain).await), "done");
    }
    assert_eq!(cluster.snapshots.volume("pv-old").await.unwrap().unwrap().reclaim_policy, ReclaimPolicy::Retain);
    cluster.phase("pv-old", "Released").await;
    assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Delete).await), "volume-phase");
    cluster.phase("pv-old", "Bound").await;
    assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Delete).await), "done");
}

#[tokio::test]
async fn a_claim_is_swapped_step_by_step_and_every_step_can_be_repeated() {
    let cluster = cluster().await;
    let port = &cluster.snapshots;
    let facts = port.claims(&app(), NS, &[("data".into(), "named".into())], None).await.unwrap().remove(0);
    assert_eq!((facts.refusals.as_slice(), facts.snapshot_class.as_deref()), (&[][..], Some("snap")));
    port.set_policy(&cluster.protected("pv-old").await, ReclaimPolicy::Retain).await.unwrap();
    let aside = Aside {
        namespace: NS.into(),
        helper: "data-aside".into(),
        snapshot: "s".into(),
        claim: "data".into(),
        manifest: facts.manifest.clone(),
        size: 0,
        operation: "op".into(),
    };
    for _ in 0..2 {
        port.restore_aside(&aside).await.unwrap();
    }
    let stranger = Aside { operation: "other".into(), ..aside.clone() };
    assert_eq!(code(port.restore_aside(&stranger).await), "not-ours");

    let helper = cluster.claims().get("data-aside").await.unwrap();
    cluster.provision("pv-new", "h-new", &helper).await;
    let new = cluster.protected("pv-new").await;
    assert_eq!(code(port.reserve(&new, NS, "data").await), "not-retained");
    port.set_policy(&new, ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(code(port.reserve(&new, NS, "data").await), "volume-phase");
    port.drop_claim(NS, "data-aside", &helper.uid().unwrap()).await.unwrap();
    cluster.let_go("data-aside").await;
    cluster.phase("pv-new", "Released").await;
    assert_eq!(code(port.recreate(NS, "data", &facts.manifest, "pv-new", "op").await), "claim-taken");
    for _ in 0..2 {
        port.reserve(&new, NS, "data").await.unwrap();
    }
    let reserved = cluster.volumes().get("pv-new").await.unwrap();
    assert!(!reserved.annotations().contains_key("pv.kubernetes.io/bound-by-controller"));
    let reference = reserved.spec.unwrap().claim_ref.unwrap();
    assert_eq!((reference.name.as_deref(), reference.uid, reference.resource_version), (Some("data"), None, None));

    port.drop_claim(NS, "data", &facts.uid).await.unwrap();
    assert_eq!(code(port.recreate(NS, "data", &facts.manifest, "pv-new", "op").await), "claim-terminating");
    cluster.let_go("data").await;
    for _ in 0..2 {
        port.recreate(NS, "data", &facts.manifest, "pv-new", "op").await.unwrap();
    }
    let made = cluster.claims().get("data").await.unwrap();
    assert_eq!(
        (made.labels()["app"].as_str(), made.spec.clone().unwrap().volume_name.as_deref()),
        ("notes", Some("pv-new"))
    );
    assert_eq!(cluster.claim("data").await.unwrap().operation.as_deref(), Some("op"));
    assert_eq!(port.volume("pv-old").await.unwrap().unwrap().reclaim_policy, ReclaimPolicy::Retain);
}

#[tokio::test]
async fn a_claim_is_not_made_again_for_a_volume_that_is_not_reserved_for_it() {
    let cluster = cluster().await;
    let manifest = json!({ "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } } } });
    cluster.snapshots.set_policy(&cluster.protected("pv-old").await, ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(code(cluster.snapshots.recreate(NS, "other", &manifest, "pv-old", "op").await), "volume-not-reserved");
    assert_eq!(code(cluster.snapshots.recreate(NS, "other", &manifest, "pv-none", "op").await), "volume-gone");
    assert!(cluster.claim("other").await.is_none());
}

#[tokio::test]
async fn a_copy_is_given_up_only_while_no_claim_has_it() {
    let cluster = cluster().await;
    let volume = cluster.protected("pv-old").await;
    assert_eq!(code(cluster.snapshots.discard(&volume, NS, "helper", "h").await), "volume-in-use");
    let uid = cluster.claim("data").await.unwrap().uid;
    cluster.snapshots.set_policy(&volume, ReclaimPolicy::Retain).await.unwrap();
    cluster.snapshots.drop_claim(NS, "data", &uid).await.unwrap();
    cluster.let_go("data").await;
    cluster.phase("pv-old", "Released").await;
    for _ in 0..2 {
        cluster.snapshots.discard(&volume, NS, "helper", "h").await.unwrap();
    }
    let now = cluster.snapshots.volume("pv-old").await.unwrap().unwrap();
    assert_eq!(now.reclaim_policy, ReclaimPolicy::Delete);
    assert_eq!(now.claim, Some((NS.into(), "helper".into(), Some("h".into()))));
}

#[tokio::test]
async fn a_snapshot_is_taken_once_proven_by_both_objects_and_dropped_only_if_it_is_ours() {
    let cluster = cluster().await;
    let request = SnapshotRequest {
        namespace: NS.into(),
        name: "s".into(),
        claim: "data".into(),
        claim_uid: cluster.claim("data").await.unwrap().uid,
        class: "snap".into(),
        operation: "op".into(),
        restore_point: "rp".into(),
    };
    let port = &cluster.snapshots;
    let replaced = SnapshotRequest { claim_uid: "other".into(), ..request.clone() };
    assert_eq!(code(port.snapshot(&replaced).await), "claim-replaced");
    for _ in 0..2 {
        port.snapshot(&request).await.unwrap();
    }
    let stranger = SnapshotRequest { operation: "other".into(), ..request };
    assert_eq!(code(port.snapshot(&stranger).await), "not-ours");
    let state = port.snapshot_state(NS, "s").await.unwrap().unwrap();
    assert!(!state.ready && state.mismatch.is_some());

    // As the snapshot controllers do it.
    let objects: Api<VolumeSnapshot> = Api::namespaced(cluster.server.client(), NS);
    let contents: Api<VolumeSnapshotContent> = Api::all(cluster.server.client());
    make(
        &contents,
        json!({
            "metadata": { "name": "c" },
            "spec": {
                "volumeSnapshotRef": { "name": "s", "namespace": NS, "uid": state.uid }, "deletionPolicy": "Delete",
                "driver": "d", "source": { "volumeHandle": "h-old" }
            }
        }),
    )
    .await;
    let done = json!({ "status": { "snapshotHandle": "sh", "readyToUse": true, "restoreSize": 1 } });
    contents.patch_status("c", &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
    let done = json!({ "status": { "boundVolumeSnapshotContentName": "c", "readyToUse": true } });
    objects.patch_status("s", &PatchParams::default(), &Patch::Merge(&done)).await.unwrap();
    let state = port.snapshot_state(NS, "s").await.unwrap().unwrap();
    assert_eq!((state.ready, state.mismatch, state.retained), (true, None, false));

    port.set_content_policy("c", ReclaimPolicy::Retain).await.unwrap();
    assert!(port.snapshot_state(NS, "s").await.unwrap().unwrap().retained);
    port.set_content_policy("c", ReclaimPolicy::Delete).await.unwrap();
    assert_eq!(code(port.drop_snapshot(NS, "s", "other").await), "snapshot-replaced");
    let unlabel = json!({ "metadata": { "labels": null } });
    objects.patch("s", &PatchParams::default(), &Patch::Merge(&unlabel)).await.unwrap();
    assert_eq!(code(port.drop_snapshot(NS, "s", &state.uid).await), "not-ours");
    port.set_content_policy("c", ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(code(port.set_content_policy("c", ReclaimPolicy::Delete).await), "not-ours");
    assert!(port.snapshot_state(NS, "s").await.unwrap().is_some());
}

#[tokio::test]
async fn a_missing_right_is_permanent_and_named() {
    let server = SimServer::new(Config::default());
    let nobody = Identity { name: "nobody".into(), groups: vec!["system:authenticated".into()] };
    let failure = CsiSnapshots::new(server.client_as(nobody)).volume("pv").await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("api-forbidden", false));
    assert_eq!(failure.hint, "grant Windlass the verb `get` on `persistentvolumes`");
}

struct At(Timestamp);

#[async_trait]
impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    async fn sleep(&self, _: SignedDuration) {}
}

fn record() -> RestorePointRecord {
    let pin = Pin {
        component: "chart".into(),
        repository: "apps".into(),
        path: "apps/notes/release.yaml".into(),
        object: "HelmRelease/notes".into(),
        field: "spec.chart.spec.version".into(),
        part: PinPart::Whole,
    };
    RestorePointRecord {
        name: "notes-1".into(),
        app: app(),
        operation: "op".into(),
        taken_at: "2026-11-20T14:29:58Z".parse().unwrap(),
        stopped: true,
        pins: vec![PinValue { pin, value: "1.4.0".into() }],
        volumes: vec![VolumeRecord {
            claim: "data".into(),
            claim_uid: "c".into(),
            manifest: json!({ "metadata": { "labels": {}, "annotations": {} }, "spec": { "storageClassName": "fast", "newer": { "deep": [1] } } }),
            volume: "pv-old".into(),
            driver: "d".into(),
            volume_handle: "h".into(),
            snapshot: "s".into(),
            snapshot_uid: "su".into(),
            content: "c".into(),
            handle: "sh".into(),
            size: 1 << 30,
            cut_at: Some("2026-11-20T14:29:58Z".parse().unwrap()),
        }],
        void: String::new(),
    }
}

#[tokio::test]
async fn a_restore_point_is_kept_as_it_was_saved_but_for_being_void() {
    let cluster = cluster().await;
    let clock = Arc::new(At("2026-11-20T15:00:00Z".parse().unwrap()));
    let store = RestorePointStore::new(cluster.server.client(), clock, SignedDuration::from_hours(48));
    assert_eq!(store.get(&app(), "notes-1").await.unwrap(), None);
    assert_eq!(code(store.void(&app(), "notes-1", "x").await), "restore-point-gone");
    for _ in 0..2 {
        store.save(&record()).await.unwrap();
    }
    assert_eq!(store.get(&app(), "notes-1").await.unwrap(), Some(record()));
    let other = RestorePointRecord { operation: "other".into(), ..record() };
    assert_eq!(code(store.save(&other).await), "not-ours");
    let wiki = AppRef { name: "wiki".into(), ..app() };
    assert_eq!(store.get(&wiki, "notes-1").await.unwrap_err().code, "not-ours");

    for volumes in [&["pv-old".to_owned()][..], &["pv-old".to_owned()], &["pv-old".to_owned(), "pv-2".to_owned()]] {
        store.replaced(&app(), "notes-1", volumes).await.unwrap();
    }
    store.void(&app(), "notes-1", "the app wrote").await.unwrap();
    store.void(&app(), "notes-1", "another reason").await.unwrap();
    assert_eq!(store.get(&app(), "notes-1").await.unwrap().unwrap().void, "the app wrote");
    let points: Api<windlass_api::RestorePoint> = Api::namespaced(cluster.server.client(), NS);
    let status = points.get("notes-1").await.unwrap().status.unwrap();
    assert_eq!((status.usable, status.reason.as_deref()), (Some(false), Some("the app wrote")));
    let kept: Vec<String> =
        status.replaced_volumes.iter().map(|kept| format!("{} {}", kept.volume, kept.keep_until)).collect();
    assert_eq!(kept, ["pv-old 2026-11-22T15:00:00Z", "pv-2 2026-11-22T15:00:00Z"]);
}

#[tokio::test]
async fn the_server_refuses_a_patch_that_was_decided_on_something_else_and_it_can_be_tried_again() {
    use windlass_api::call::{CallError, JsonPatch, patch_params};
    let cluster = cluster().await;
    let seen = cluster.volumes().get("pv-old").await.unwrap();
    let uid = seen.uid().unwrap();
    cluster.phase("pv-old", "Released").await;
    let stale = JsonPatch::for_uid(&uid).at_version(&seen.resource_version().unwrap());
    for patch in [JsonPatch::for_uid("other"), stale] {
        let patch = patch.add(["spec", "persistentVolumeReclaimPolicy"], "Retain").build();
        let refused = cluster.volumes().patch("pv-old", &patch_params(), &patch).await.unwrap_err();
        let refused = CallError::on::<PersistentVolume>("patch", "", "pv-old")(refused);
        assert!(refused.is_conflict() && refused.is_retryable(), "{refused}");
    }
    assert_eq!(cluster.snapshots.volume("pv-old").await.unwrap().unwrap().reclaim_policy, ReclaimPolicy::Delete);
}
