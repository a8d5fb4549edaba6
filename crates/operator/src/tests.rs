//! The operator's own wiring on an API server: every port is the real one, and the tests play the controllers around it.

mod ending;
mod estate;
mod events;
mod leading;
mod stuck;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use kube_sim::{Config, SimServer};
use serde_json::{Value, from_value, json};
use tokio_util::sync::CancellationToken;
use upgrade_core::app::AppStep;
use upgrade_core::engine::{
    Cause, Course, Engine, Entry, Journal, MemoryStore, Outcome, Plan, Signals, Step, StepState, Tick,
};
use upgrade_core::ports::{Clock, JournalStore as _, ObjectRef};
use windlass_api::UpgradeRequest;
use windlass_api::foreign::Kustomization;

use crate::context::Context;
use crate::lease::Elector;
use crate::reconcile::reconcile;
use crate::{Args, Embedding, SystemClock, run};

pub(crate) const NS: &str = "notes";

pub(crate) struct Cluster {
    pub(crate) server: SimServer,
    pub(crate) context: Arc<Context>,
}

pub(crate) async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &from_value(object).unwrap()).await.unwrap()
}

/// An operator that leads, and a namespace for the app.
pub(crate) async fn cluster() -> Cluster {
    cluster_through(SimServer::client, true).await
}

/// The same, with the operator's own way to the server, and perhaps not leading.
pub(crate) async fn cluster_through(through: impl FnOnce(&SimServer) -> Client, leads: bool) -> Cluster {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = SimServer::new(Config { always_allow: true, latency: Duration::ZERO, ..Config::default() });
    let client = server.client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    make(
        &crds,
        json!({
            "metadata": { "name": "kustomizations.kustomize.toolkit.fluxcd.io" },
            "spec": {
                "group": "kustomize.toolkit.fluxcd.io", "scope": "Namespaced",
                "names": { "plural": "kustomizations", "singular": "kustomization", "kind": "Kustomization" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }
                }]
            }
        }),
    )
    .await;
    for crd in windlass_api::crds() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    for name in [NS, "flux-system"] {
        make::<Namespace>(&Api::all(client.clone()), json!({ "metadata": { "name": name } })).await;
    }
    let args = Args::parse_from(["windlass-operator", "--namespace", "default"]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let term = SignedDuration::from_secs(300);
    let mut elector = Elector::new(client, "default", "me".into(), term, clock.clone());
    let context = run::context(
        &args,
        &through(&server),
        Embedding { clock, ..Embedding::of_this_process() },
        &elector,
        "me",
        &CancellationToken::new(),
    )
    .unwrap();
    if leads {
        elector.round().await;
    }
    assert_eq!(context.leadership.is_held(), leads);
    Cluster { server, context: Arc::new(context) }
}

fn root() -> ObjectRef {
    ObjectRef::new("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", NS)
}

/// An app with one claim, delivered by a Kustomization in another namespace, its version in a repository nobody can reach.
fn inputs(root_uid: &str) -> Value {
    let pin = json!({
        "component": "image/notes", "repository": "apps", "path": "apps/notes/notes.yaml", "object": "Deployment/notes",
        "field": "spec.template.spec.containers[name=notes].image", "part": "Tag"
    });
    json!({
        "app": { "namespace": NS, "name": "notes", "uid": "app" }, "request": "notes-1", "own": [root()],
        "roots": [{ "object": root(), "uid": root_uid, "role": "Manifests", "own": true, "asFound": null, "adopted": false }],
        "shared": [], "sources": [], "chartSources": [],
        "repositories": [{
            "name": "apps", "url": "https://git.invalid/apps.git", "branch": "main", "paths": ["apps/notes/"],
            "secret": "git-write", "authorName": "Windlass", "authorEmail": "windlass@test"
        }],
        "from": [{ "pin": pin, "value": "1.0.0" }], "to": [{ "pin": pin, "value": "1.1.0" }],
        "workloads": [], "watched": [],
        "claims": [{
            "namespace": NS, "name": "data", "uid": "c", "volume": "pv", "volumeUid": "u", "reclaimPolicy": "Delete",
            "driver": "d", "handle": "h", "capacity": 1, "snapshotClass": "snap", "foundBy": "named", "refusals": [],
            "manifest": { "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } }
            } }
        }],
        "stopped": true, "restorePoint": "notes-op", "restore": null,
        "health": { "timeout": "1m", "soak": "0s", "http": [] }, "autoRollback": "IfNeverReady", "takeOver": [],
        "message": "Upgrade notes", "reason": ""
    })
}

fn entry(step: &str, state: StepState, journal: &Journal) -> Entry {
    Entry {
        step: step.into(),
        state,
        attempt: 1,
        begun: true,
        retry: false,
        intent: json!({}),
        evidence: json!({}),
        began_at: journal.started_at,
        started_at: journal.started_at,
        finished_at: None,
        look_again: None,
        waiting_for: String::new(),
        error: None,
    }
}

/// A namespace is deleted in the middle of an upgrade whose commit is pushed, before or after the point of no return.
async fn a_namespace_goes(released: bool, turned_back: bool, over: bool) {
    let cluster = cluster().await;
    let client = cluster.server.client();
    let roots: Api<Kustomization> = Api::namespaced(client.clone(), "flux-system");
    let held = make(&roots, json!({ "metadata": { "name": NS }, "spec": { "suspend": true, "path": "./apps" } })).await;
    let requests: Api<UpgradeRequest> = Api::namespaced(client.clone(), NS);
    let request = make(&requests, json!({
        "metadata": { "name": "notes-1", "finalizers": ["upgrades.windlass.dev/operation"] },
        "spec": { "subject": { "kind": "ManagedApp", "name": "notes" }, "target": { "components": { "image/notes": "1.1.0" } } }
    }))
    .await;
    let uid = request.uid().unwrap();
    let marks = json!({ "metadata": { "annotations": {
        "upgrades.windlass.dev/held-by": uid, "upgrades.windlass.dev/hold-stage": "committing",
        "upgrades.windlass.dev/hold-as-found": "absent"
    } } });
    roots.patch(NS, &PatchParams::default(), &Patch::Merge(&marks)).await.unwrap();

    let minute = SignedDuration::from_mins(1);
    let step = |id: &str, step: AppStep| Step::new(id, id, step.to_value(), minute);
    let suspend = format!("suspend/kustomization/flux-system/{NS}");
    let steps = vec![
        step(&suspend, AppStep::Suspend { root: root() }).undone_by("resume it").holding("it suspended").outside(),
        step("protect/data", AppStep::Protect { claim: "data".into() })
            .undone_by("back")
            .holding("volume pv on Retain"),
        step("commit/push/apps", AppStep::Commit { repository: "apps".into() }).undone_by("revert it"),
        step("release/start", AppStep::AwaitStopped).irrevocable(),
        step("verify/healthy", AppStep::Verify),
    ];
    let plan = Plan::new("app-upgrade", &uid, inputs(&held.uid().unwrap()), steps).unwrap();
    let mut journal = Journal::new(&plan, cluster.context.clock.now());
    let mut done = vec![suspend.as_str(), "protect/data", "commit/push/apps"];
    done.extend(released.then_some("release/start"));
    journal.entries = done.into_iter().map(|step| entry(step, StepState::Done, &journal)).collect();
    journal.entries.push(entry("verify/healthy", StepState::Doing, &journal));
    if !released {
        journal.entries.pop();
    }
    if turned_back {
        journal.course = Course::Back(Cause::Cancelled);
    }
    let mut status = json!({ "plan": plan, "journal": journal });
    if over {
        let failure = upgrade_core::Failure::permanent("unhealthy", "x");
        journal.outcome = Some(Outcome::Failed { step: "verify/healthy".into(), failure });
        let left = json!([{ "what": "it suspended", "object": suspend, "why": "x", "since": journal.started_at }]);
        status = json!({ "plan": plan, "journal": journal, "outcome": "NeedsRollback", "leftovers": left });
    }
    let status = json!({ "status": status });
    requests.patch_status("notes-1", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();

    Api::<Namespace>::all(client.clone()).delete(NS, &DeleteParams::default()).await.unwrap();
    requests.delete("notes-1", &DeleteParams::default()).await.unwrap();
    let mut seen = None;
    for _ in 0..10 {
        let Some(request) = requests.get_opt("notes-1").await.unwrap() else { break };
        seen = request.status.clone();
        reconcile(Arc::new(request), cluster.context.clone()).await.unwrap();
    }
    assert!(requests.get_opt("notes-1").await.unwrap().is_none(), "it keeps the namespace: {seen:#?}");
    let root = roots.get(NS).await.unwrap();
    assert_eq!((root.spec.suspend, root.annotations().get("upgrades.windlass.dev/held-by")), (None, None));
    // What stays is said as long as there is somebody to read it.
    let left: Vec<String> =
        seen.unwrap().leftovers.into_iter().map(|left| format!("{}: {}", left.what, left.why)).collect();
    assert_eq!(left, ["volume pv on Retain: namespace notes is being deleted"]);
}

#[tokio::test]
async fn a_namespace_that_goes_before_the_release_keeps_nothing_suspended_outside() {
    a_namespace_goes(false, false, false).await;
}

#[tokio::test]
async fn a_namespace_that_goes_while_an_upgrade_is_undone_keeps_nothing_suspended_outside() {
    a_namespace_goes(false, true, false).await;
}

#[tokio::test]
async fn a_namespace_that_goes_after_the_release_keeps_nothing_suspended_outside() {
    a_namespace_goes(true, false, false).await;
}

#[tokio::test]
async fn a_namespace_that_goes_long_after_a_failure_is_not_kept_by_what_it_left() {
    a_namespace_goes(true, false, true).await;
}

#[tokio::test]
async fn a_request_that_is_deleted_in_a_namespace_that_stays_is_only_cancelled() {
    let cluster = cluster().await;
    assert_eq!(crate::context::let_go(&cluster.server.client(), NS).await, Ok(None));
    let gone = crate::context::let_go(&cluster.server.client(), "nowhere").await.unwrap();
    assert_eq!(gone.as_deref(), Some("namespace nowhere is being deleted"));
}

/// A trial restore of `data`, driven as far as it comes by itself.
struct Trial {
    cluster: Cluster,
    store: MemoryStore,
}

impl Trial {
    async fn new() -> Self {
        let cluster = cluster().await;
        let classes: Api<StorageClass> = Api::all(cluster.server.client());
        make(&classes, json!({ "metadata": { "name": "fast" }, "provisioner": "d", "reclaimPolicy": "Retain" })).await;
        let step = |id: &str, step: AppStep| Step::new(id, id, step.to_value(), SignedDuration::from_mins(1));
        let claim = || "data".to_owned();
        let steps = vec![
            step("snapshot/verify/data", AppStep::VerifySnapshot { claim: claim() }),
            step("snapshot/restore/data", AppStep::TryRestore { claim: claim() }).undone_by("delete it"),
            step("snapshot/discard/data", AppStep::DropTrial { claim: claim() }).releasing("snapshot/restore/data"),
        ];
        let plan = Plan::new("app-upgrade", "0f1e2d3c-op", inputs("u"), steps).unwrap();
        let mut journal = Journal::new(&plan, cluster.context.clock.now());
        let mut verified = entry("snapshot/verify/data", StepState::Done, &journal);
        verified.evidence = json!({ "size": 3_000_000_000_i64 });
        journal.entries.push(verified);
        let store = MemoryStore::default();
        store.save(&plan.operation, &plan, &journal, None).await.unwrap();
        Self { cluster, store }
    }

    async fn tick(&self, cancel: bool, times: usize) -> Tick {
        let context = &self.cluster.context;
        let engine =
            Engine { store: &self.store, runner: &context.runner, guard: &*context.leadership, clock: &*context.clock };
        let mut last = Tick::Progressed;
        for _ in 0..times {
            last = engine.tick("0f1e2d3c-op", Signals { cancel, let_go: None }).await.unwrap();
            if let Tick::Wait(until) = last {
                context.clock.sleep(until.duration_since(context.clock.now())).await;
            }
        }
        last
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.cluster.server.client(), NS)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.cluster.server.client())
    }

    /// As the provisioner and the binder do it.
    async fn bind(&self, handle: &str) {
        let helper = self.claims().get("windlass-restore-0f1e2d3c-data").await.unwrap();
        let size = &helper.spec.as_ref().unwrap().resources.as_ref().unwrap().requests.as_ref().unwrap()["storage"];
        assert_eq!(size.0, "3000000000");
        make(&self.volumes(), json!({
            "metadata": { "name": "pv-trial" },
            "spec": {
                "capacity": { "storage": "3Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": { "namespace": NS, "name": helper.name_any(), "uid": helper.uid() },
                "csi": { "driver": "d", "volumeHandle": handle }
            }
        }))
        .await;
        let bound = json!({ "status": { "phase": "Bound" } });
        self.volumes().patch_status("pv-trial", &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
        let named = json!({ "spec": { "volumeName": "pv-trial" } });
        self.claims().patch(&helper.name_any(), &PatchParams::default(), &Patch::Merge(&named)).await.unwrap();
        self.claims().patch_status(&helper.name_any(), &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
    }

    async fn policy(&self) -> String {
        self.volumes().get("pv-trial").await.unwrap().spec.unwrap().persistent_volume_reclaim_policy.unwrap()
    }

    /// As the protection controller does it: a claim that is being deleted and that no pod has goes.
    async fn helper_goes(&self) {
        let helper = self.claims().get("windlass-restore-0f1e2d3c-data").await.unwrap();
        assert!(helper.metadata.deletion_timestamp.is_some());
        let free = json!({ "metadata": { "finalizers": null } });
        self.claims().patch(&helper.name_any(), &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
        let released = json!({ "status": { "phase": "Released" } });
        self.volumes().patch_status("pv-trial", &PatchParams::default(), &Patch::Merge(&released)).await.unwrap();
    }

    async fn outcome(&self) -> Option<Outcome> {
        self.store.load("0f1e2d3c-op").await.unwrap().unwrap().journal.outcome
    }
}

#[tokio::test]
async fn a_trial_copy_is_bound_and_then_given_up_with_its_bytes_whatever_its_class_says() {
    let trial = Trial::new().await;
    trial.tick(false, 2).await;
    trial.bind("h-trial").await;
    trial.tick(false, 8).await;
    assert_eq!(trial.policy().await, "Delete");
    trial.helper_goes().await;
    trial.tick(false, 6).await;
    assert_eq!(trial.outcome().await, Some(Outcome::Succeeded));
    assert_eq!(trial.policy().await, "Delete");
}

#[tokio::test]
async fn a_trial_that_is_cut_short_leaves_no_copy() {
    let trial = Trial::new().await;
    trial.tick(false, 2).await;
    trial.bind("h-trial").await;
    trial.tick(true, 6).await;
    assert_eq!(trial.policy().await, "Delete");
    trial.helper_goes().await;
    trial.tick(true, 6).await;
    assert!(matches!(trial.outcome().await, Some(Outcome::Undone(_))));
}

#[tokio::test]
async fn a_trial_that_got_the_original_itself_is_not_deleted() {
    let trial = Trial::new().await;
    trial.tick(false, 2).await;
    trial.bind("h").await;
    trial.tick(false, 8).await;
    assert_eq!(trial.policy().await, "Retain");
    let helper = trial.claims().get("windlass-restore-0f1e2d3c-data").await.unwrap();
    assert!(helper.metadata.deletion_timestamp.is_none());
}
