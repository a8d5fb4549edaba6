//! The ports against an API server: what is written, what is refused, and that every call can be repeated. Claims, volumes and
//! snapshots are looked after by kube-sim's stand-ins for their controllers, over folders with real bytes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "these are tests, helpers included")]

mod ending;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use kube_sim::controllers::volumes::driver::{Control, FolderDriver};
use kube_sim::controllers::volumes::{self, DRIVER, VolumesContext};
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, from_value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Aside, ClaimState, Clock, HeadCommit, Pin, PinPart, PinValue, ProtectedVolume, ReclaimPolicy,
    ReplacedVolume, RestorePointRecord, RestorePoints, SnapshotManager, SnapshotRequest, VolumeRecord, VolumeState,
};
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotContent};
use windlass_snapshot::{CsiSnapshots, RestorePointStore};

const NS: &str = "default";

struct Cluster {
    server: SimServer,
    snapshots: CsiSnapshots,
    driver: Arc<FolderDriver>,
    /// The volume of claim `data`.
    old: String,
    _root: tempfile::TempDir,
    /// Who looks after claims, volumes and snapshots, while they do.
    controllers: Option<DropGuard>,
}

/// A cluster with storage and the snapshot API, and claim `data`, bound to a volume on Delete.
async fn cluster() -> Cluster {
    let server = SimServer::new(Config { always_allow: true, ..Config::default() });
    let client = server.client();
    let root = tempfile::tempdir().unwrap();
    let clock: kube_sim::controllers::Clock = {
        let server = server.clone();
        Arc::new(move || server.now())
    };
    let driver = Arc::new(FolderDriver::open(root.path(), clock.clone()).unwrap());
    let stop = CancellationToken::new();
    let context = VolumesContext { client: client.clone(), clock, driver: driver.clone(), driver_name: DRIVER.into() };
    for object in volumes::snapshot_crds().into_iter().chain(volumes::classes(DRIVER).unwrap()) {
        let object: DynamicObject = from_value(object).unwrap();
        let kind = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in windlass_api::crds() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    tokio::spawn(volumes::run(context, stop.clone()));
    let mut cluster = Cluster {
        snapshots: CsiSnapshots::new(client),
        server,
        driver,
        old: String::new(),
        _root: root,
        controllers: Some(stop.drop_guard()),
    };
    make::<PersistentVolumeClaim>(
        &cluster.claims(),
        json!({
            "metadata": { "name": "data", "labels": { "app": "notes" } },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "rig", "resources": { "requests": { "storage": "1Gi" } } }
        }),
    )
    .await;
    settle().await;
    cluster.old = cluster.claim("data").await.unwrap().volume.unwrap();
    cluster
}

async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
}

/// Lets the controllers do what they have to.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

impl Cluster {
    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.server.client(), NS)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.server.client())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.server.client(), NS)
    }

    async fn protected(&self, name: &str) -> ProtectedVolume {
        let uid = self.volumes().get(name).await.unwrap().uid().unwrap();
        ProtectedVolume { name: name.into(), uid }
    }

    async fn claim(&self, name: &str) -> Option<ClaimState> {
        self.snapshots.claim(NS, name).await.unwrap()
    }

    async fn volume(&self, name: &str) -> Option<VolumeState> {
        self.snapshots.volume(name).await.unwrap()
    }

    /// The claim `data` goes, its volume stays.
    async fn release(&self) -> ProtectedVolume {
        let volume = self.protected(&self.old).await;
        self.snapshots.set_policy(&volume, ReclaimPolicy::Retain).await.unwrap();
        let uid = self.claim("data").await.unwrap().uid;
        self.snapshots.drop_claim(NS, "data", &uid).await.unwrap();
        settle().await;
        assert_eq!(self.volume(&self.old).await.unwrap().phase, "Released");
        volume
    }

    fn write(&self, volume: &str, bytes: &str) {
        std::fs::write(self.driver.volume_folder(volume).unwrap().join("file"), bytes).unwrap();
    }

    fn read(&self, volume: &str) -> Option<String> {
        std::fs::read_to_string(self.driver.volume_folder(volume)?.join("file")).ok()
    }
}

fn app() -> AppRef {
    AppRef { namespace: NS.into(), name: "notes".into(), uid: "app".into() }
}

fn code(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.code, |()| "done".into())
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_never_deleted_while_its_volume_could_go_with_it() {
    let cluster = cluster().await;
    let uid = cluster.claim("data").await.unwrap().uid;
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "not-retained");
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", "other").await), "claim-replaced");
    assert!(!cluster.claim("data").await.unwrap().deleting);
    make(
        &cluster.pods(),
        json!({
            "metadata": { "name": "ended" },
            "spec": {
                "nodeName": "node-1", "containers": [{ "name": "main", "image": "app:1" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]
            }
        }),
    )
    .await;
    cluster.snapshots.set_policy(&cluster.protected(&cluster.old).await, ReclaimPolicy::Retain).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "done");
        settle().await;
        assert!(cluster.claim("data").await.unwrap().deleting, "a pod holds it");
    }
    cluster.pods().delete("ended", &DeleteParams::default().grace_period(0)).await.unwrap();
    settle().await;
    assert!(cluster.claim("data").await.is_none());
    assert_eq!(code(cluster.snapshots.drop_claim(NS, "data", &uid).await), "done");
}

#[tokio::test(start_paused = true)]
async fn policies_change_only_on_the_volume_that_was_meant_and_never_to_delete_on_an_unbound_one() {
    let cluster = cluster().await;
    let volume = cluster.protected(&cluster.old).await;
    let other = ProtectedVolume { uid: "other".into(), ..volume.clone() };
    assert_eq!(code(cluster.snapshots.set_policy(&other, ReclaimPolicy::Retain).await), "volume-replaced");
    for _ in 0..2 {
        assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Retain).await), "done");
    }
    assert_eq!(cluster.volume(&cluster.old).await.unwrap().reclaim_policy, ReclaimPolicy::Retain);
    assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Delete).await), "done");
    cluster.write(&cluster.old, "bytes");
    cluster.release().await;
    assert_eq!(code(cluster.snapshots.set_policy(&volume, ReclaimPolicy::Delete).await), "volume-phase");
    settle().await;
    assert_eq!(cluster.read(&cluster.old).as_deref(), Some("bytes"));
}

fn request(claim: &ClaimState) -> SnapshotRequest {
    SnapshotRequest {
        namespace: NS.into(),
        name: "s".into(),
        claim: "data".into(),
        claim_uid: claim.uid.clone(),
        class: "rig".into(),
        operation: "op".into(),
        restore_point: "rp".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_swapped_step_by_step_and_every_step_can_be_repeated() {
    let cluster = cluster().await;
    let port = &cluster.snapshots;
    cluster.write(&cluster.old, "before");
    port.snapshot(&request(&cluster.claim("data").await.unwrap())).await.unwrap();
    settle().await;
    cluster.write(&cluster.old, "after");
    let size = port.snapshot_state(NS, "s").await.unwrap().unwrap().restore_size.unwrap();
    assert_eq!(size, 1 << 30);

    let facts = port.claims(&app(), NS, &[("data".into(), "named".into())], None).await.unwrap().remove(0);
    assert_eq!((facts.refusals.as_slice(), facts.snapshot_class.as_deref()), (&[][..], Some("rig")));
    assert_eq!((facts.volume.as_str(), facts.handle.as_str()), (cluster.old.as_str(), cluster.old.as_str()));
    port.set_policy(&cluster.protected(&cluster.old).await, ReclaimPolicy::Retain).await.unwrap();
    let aside = Aside {
        namespace: NS.into(),
        helper: "data-aside".into(),
        snapshot: "s".into(),
        claim: "data".into(),
        manifest: facts.manifest.clone(),
        size,
        operation: "op".into(),
    };
    for _ in 0..2 {
        port.restore_aside(&aside).await.unwrap();
    }
    let stranger = Aside { operation: "other".into(), ..aside.clone() };
    assert_eq!(code(port.restore_aside(&stranger).await), "not-ours");

    settle().await;
    let helper = cluster.claim("data-aside").await.unwrap();
    let new = cluster.protected(helper.volume.as_deref().unwrap()).await;
    let both = || (cluster.read(&cluster.old), cluster.read(&new.name));
    let copies = (Some("after".to_owned()), Some("before".to_owned()));
    assert_eq!((helper.phase.as_str(), both()), ("Bound", copies.clone()));
    assert_eq!(code(port.reserve(&new, NS, "data").await), "not-retained");
    port.set_policy(&new, ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(code(port.reserve(&new, NS, "data").await), "volume-phase");
    port.drop_claim(NS, "data-aside", &helper.uid).await.unwrap();
    settle().await;
    assert_eq!(cluster.volume(&new.name).await.unwrap().phase, "Released");
    assert_eq!(code(port.recreate(NS, "data", &facts.manifest, &new.name, "op").await), "claim-taken");
    for _ in 0..2 {
        port.reserve(&new, NS, "data").await.unwrap();
        settle().await;
        assert_eq!(cluster.volume(&new.name).await.unwrap().phase, "Available");
    }
    let reserved = cluster.volumes().get(&new.name).await.unwrap();
    assert!(!reserved.annotations().contains_key("pv.kubernetes.io/bound-by-controller"));
    let reference = reserved.spec.unwrap().claim_ref.unwrap();
    assert_eq!((reference.name.as_deref(), reference.uid, reference.resource_version), (Some("data"), None, None));

    port.drop_claim(NS, "data", &facts.uid).await.unwrap();
    assert_eq!(code(port.recreate(NS, "data", &facts.manifest, &new.name, "op").await), "claim-terminating");
    settle().await;
    assert_eq!((cluster.volume(&cluster.old).await.unwrap().phase.as_str(), both()), ("Released", copies.clone()));
    for _ in 0..2 {
        port.recreate(NS, "data", &facts.manifest, &new.name, "op").await.unwrap();
        settle().await;
    }
    let made = cluster.claim("data").await.unwrap();
    assert_eq!((made.phase.as_str(), made.volume.as_deref()), ("Bound", Some(new.name.as_str())));
    assert_eq!((made.operation.as_deref(), both()), (Some("op"), copies));
    assert_eq!(cluster.claims().get("data").await.unwrap().labels()["app"], "notes");
    let bound = cluster.volume(&new.name).await.unwrap();
    assert_eq!((bound.phase.as_str(), bound.claim), ("Bound", Some((NS.into(), "data".into(), Some(made.uid)))));
    let old = cluster.volume(&cluster.old).await.unwrap();
    assert_eq!((old.phase.as_str(), old.reclaim_policy), ("Released", ReclaimPolicy::Retain));
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_made_again_for_a_volume_that_is_not_reserved_for_it() {
    let cluster = cluster().await;
    let manifest = json!({ "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "rig", "resources": { "requests": { "storage": "1Gi" } } } });
    cluster.snapshots.set_policy(&cluster.protected(&cluster.old).await, ReclaimPolicy::Retain).await.unwrap();
    let refused = cluster.snapshots.recreate(NS, "other", &manifest, &cluster.old, "op").await;
    assert_eq!(code(refused), "volume-not-reserved");
    assert_eq!(code(cluster.snapshots.recreate(NS, "other", &manifest, "pv-none", "op").await), "volume-gone");
    assert!(cluster.claim("other").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_given_up_only_while_no_claim_has_it_and_then_it_goes_with_its_bytes() {
    let cluster = cluster().await;
    let volume = cluster.protected(&cluster.old).await;
    cluster.write(&cluster.old, "bytes");
    assert_eq!(code(cluster.snapshots.discard(&volume, NS, "helper", "h").await), "volume-in-use");
    cluster.release().await;
    cluster.snapshots.reserve(&volume, NS, "data").await.unwrap();
    settle().await;
    assert_eq!(cluster.read(&cluster.old).as_deref(), Some("bytes"));
    for _ in 0..2 {
        cluster.snapshots.discard(&volume, NS, "helper", "h").await.unwrap();
        settle().await;
        assert_eq!(cluster.read(&cluster.old), None);
        assert!(cluster.volume(&cluster.old).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_taken_once_proven_by_both_objects_and_dropped_only_if_it_is_ours() {
    let cluster = cluster().await;
    let request = request(&cluster.claim("data").await.unwrap());
    let port = &cluster.snapshots;
    let replaced = SnapshotRequest { claim_uid: "other".into(), ..request.clone() };
    assert_eq!(code(port.snapshot(&replaced).await), "claim-replaced");
    for _ in 0..2 {
        port.snapshot(&request).await.unwrap();
    }
    let stranger = SnapshotRequest { operation: "other".into(), ..request };
    assert_eq!(code(port.snapshot(&stranger).await), "not-ours");
    let state = port.snapshot_state(NS, "s").await.unwrap().unwrap();
    assert!(!state.ready);

    settle().await;
    let state = port.snapshot_state(NS, "s").await.unwrap().unwrap();
    assert_eq!((state.ready, &state.mismatch, state.retained, &state.error), (true, &None, false, &None));
    assert!(state.cut_at.is_some() && cluster.driver.snapshot_folder(state.handle.as_deref().unwrap()).is_some());
    let content = state.content.clone().unwrap();
    port.set_content_policy(&content, ReclaimPolicy::Retain).await.unwrap();
    assert!(port.snapshot_state(NS, "s").await.unwrap().unwrap().retained);
    port.set_content_policy(&content, ReclaimPolicy::Delete).await.unwrap();
    assert_eq!(code(port.drop_snapshot(NS, "s", "other").await), "snapshot-replaced");
    let objects: Api<VolumeSnapshot> = Api::namespaced(cluster.server.client(), NS);
    let label = |value: Value| Patch::Merge(json!({ "metadata": { "labels": value } }));
    let labels = json!(objects.get("s").await.unwrap().labels());
    objects.patch("s", &PatchParams::default(), &label(Value::Null)).await.unwrap();
    assert_eq!(code(port.drop_snapshot(NS, "s", &state.uid).await), "not-ours");
    port.set_content_policy(&content, ReclaimPolicy::Retain).await.unwrap();
    assert_eq!(code(port.set_content_policy(&content, ReclaimPolicy::Delete).await), "not-ours");
    assert!(port.snapshot_state(NS, "s").await.unwrap().is_some());

    // Ours again and on Delete, it goes with its content and the bytes.
    objects.patch("s", &PatchParams::default(), &label(labels)).await.unwrap();
    port.set_content_policy(&content, ReclaimPolicy::Delete).await.unwrap();
    port.drop_snapshot(NS, "s", &state.uid).await.unwrap();
    settle().await;
    let contents: Api<VolumeSnapshotContent> = Api::all(cluster.server.client());
    assert!(port.snapshot_state(NS, "s").await.unwrap().is_none());
    assert!(contents.get_opt(&content).await.unwrap().is_none());
    assert_eq!(cluster.driver.snapshot_folder(state.handle.as_deref().unwrap()), None);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_cut_and_not_ready_is_told_apart_and_blocks_its_claim() {
    let cluster = cluster().await;
    cluster.driver.control(&Control { never_ready: true, ..Control::default() }).unwrap();
    let port = &cluster.snapshots;
    port.snapshot(&request(&cluster.claim("data").await.unwrap())).await.unwrap();
    settle().await;
    let state = port.snapshot_state(NS, "s").await.unwrap().unwrap();
    assert_eq!((state.ready, state.mismatch, state.cut_at.is_some()), (false, None, true));
    let facts = port.claims(&app(), NS, &[("data".into(), "named".into())], None).await.unwrap().remove(0);
    let codes: Vec<&str> = facts.refusals.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["unready-snapshot"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_storage_is_read_with_whether_waiting_helps() {
    use kube_sim::controllers::volumes::driver::{CallName, FailureCode, Rule};
    let cluster = cluster().await;
    let port = &cluster.snapshots;
    for (code, is_final) in [(FailureCode::Unavailable, false), (FailureCode::InvalidArgument, true)] {
        let failing = Rule::fail(CallName::CreateSnapshot, code);
        cluster.driver.control(&Control { rules: vec![failing], ..Control::default() }).unwrap();
        let name = format!("s-{is_final}");
        let request = SnapshotRequest { name: name.clone(), ..request(&cluster.claim("data").await.unwrap()) };
        port.snapshot(&request).await.unwrap();
        settle().await;
        let state = port.snapshot_state(NS, &name).await.unwrap().unwrap();
        assert!(!state.ready && state.error.is_some());
        assert_eq!(state.error_is_final, is_final, "{:?}", state.error);
    }
}

#[tokio::test(start_paused = true)]
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
            reclaim_policy: Some(ReclaimPolicy::Delete),
        }],
        commits: vec![HeadCommit { repository: "apps".into(), sha: "0a".repeat(20) }],
        void: String::new(),
    }
}

#[tokio::test(start_paused = true)]
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

    let noted = |volume: &str| ReplacedVolume {
        volume: volume.into(),
        uid: format!("{volume}-uid"),
        handle: "h".into(),
        claim: "data".into(),
        claim_uid: "c".into(),
    };
    for volumes in [&[noted("pv-old")][..], &[noted("pv-old")], &[noted("pv-old"), noted("pv-2")]] {
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
    let first = &status.replaced_volumes[0];
    assert_eq!((first.uid.as_str(), first.claim.as_str(), first.claim_uid.as_str()), ("pv-old-uid", "data", "c"));
}

#[tokio::test(start_paused = true)]
async fn the_server_refuses_a_patch_that_was_decided_on_something_else_and_it_can_be_tried_again() {
    use windlass_api::call::{CallError, JsonPatch, patch_params};
    let cluster = cluster().await;
    let seen = cluster.volumes().get(&cluster.old).await.unwrap();
    let uid = seen.uid().unwrap();
    let touched = Patch::Merge(json!({ "metadata": { "labels": { "touched": "yes" } } }));
    cluster.volumes().patch(&cluster.old, &PatchParams::default(), &touched).await.unwrap();
    let stale = JsonPatch::for_uid(&uid).at_version(&seen.resource_version().unwrap());
    for patch in [JsonPatch::for_uid("other"), stale] {
        let patch = patch.add(["spec", "persistentVolumeReclaimPolicy"], "Retain").build();
        let refused = cluster.volumes().patch(&cluster.old, &patch_params(), &patch).await.unwrap_err();
        let refused = CallError::on::<PersistentVolume>("patch", "", &cluster.old)(refused);
        assert!(refused.is_conflict() && refused.is_retryable(), "{refused}");
    }
    assert_eq!(cluster.volume(&cluster.old).await.unwrap().reclaim_policy, ReclaimPolicy::Delete);
}
