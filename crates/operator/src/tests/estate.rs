//! An app and its requests, for tests about operations that meet.

use kube::api::ListParams;
use upgrade_core::Failure;
use windlass_api::{ManagedApp, OperationStatus, RollbackRequest, UpgradeRequest};

use super::*;
use crate::kinds::Request;
use crate::status;

/// An app, whose operations are what a test writes into their status.
pub(super) struct Estate {
    pub(super) cluster: Cluster,
}

impl Estate {
    pub(super) async fn new() -> Self {
        Self::on(cluster().await).await
    }

    pub(super) async fn on(cluster: Cluster) -> Self {
        let estate = Self { cluster };
        let app = json!({
            "metadata": { "name": "notes" },
            "spec": { "delivery": { "flux": { "objects": [{ "kind": "Kustomization", "name": NS, "namespace": "flux-system" }] } } }
        });
        make(&estate.api::<ManagedApp>(), app).await;
        estate
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.cluster.server.client(), NS)
    }

    pub(super) async fn upgrade(&self, name: &str) -> UpgradeRequest {
        let spec = json!({ "subject": { "kind": "ManagedApp", "name": "notes" }, "target": { "components": { "image/notes": "1.1.0" } } });
        make(&self.api(), json!({ "metadata": { "name": name }, "spec": spec })).await
    }

    pub(super) async fn rollback(&self, name: &str, to: Value) -> RollbackRequest {
        let spec = json!({ "subject": { "kind": "ManagedApp", "name": "notes" }, "to": to, "data": "Restore" });
        make(&self.api(), json!({ "metadata": { "name": name }, "spec": spec })).await
    }

    pub(super) async fn write<K: Request>(&self, request: &K, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<K>().patch_status(&request.name_any(), &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn status_of<K: Request>(&self, request: &K) -> OperationStatus {
        self.api::<K>().get(&request.name_any()).await.unwrap().status().cloned().unwrap_or_default()
    }

    pub(super) async fn turn<K: Request>(&self, request: &K) {
        let found = self.api::<K>().get(&request.name_any()).await.unwrap();
        reconcile(Arc::new(found), self.cluster.context.clone()).await.unwrap();
    }

    pub(super) async fn activate<K: Request>(&self, request: &K) {
        let active = json!({ "kind": K::KIND, "name": request.name_any(), "uid": request.uid(), "since": "2026-01-01T00:00:00Z" });
        self.activate_with(active).await;
    }

    pub(super) async fn activate_with(&self, active: Value) {
        let patch = Patch::Merge(json!({ "status": { "activeOperation": active } }));
        self.api::<ManagedApp>().patch_status("notes", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn active(&self) -> Option<String> {
        let app = self.api::<ManagedApp>().get("notes").await.unwrap();
        app.status.unwrap_or_default().active_operation.map(|active| active.name)
    }

    pub(super) async fn rollbacks(&self) -> Vec<String> {
        let found = self.api::<RollbackRequest>().list(&ListParams::default()).await.unwrap();
        found.iter().map(kube::ResourceExt::name_any).collect()
    }

    /// An upgrade that is being watched, past its point of no return.
    pub(super) async fn watched(&self, name: &str) -> UpgradeRequest {
        let upgrade = self.upgrade(name).await;
        let (plan, journal) = self.record(&upgrade, &["suspend/x", "protect/data", "release/resume/x"], &[]);
        self.write(&upgrade, json!({ "plan": plan, "journal": journal })).await;
        self.activate(&upgrade).await;
        upgrade
    }

    /// The same, which the engine has just ended because it failed.
    pub(super) async fn failed(&self, name: &str) -> UpgradeRequest {
        let upgrade = self.watched(name).await;
        let (plan, mut journal) = self.record(&upgrade, &["suspend/x", "protect/data", "release/resume/x"], &[]);
        let failure = Failure::permanent("unhealthy", "it crashes");
        journal.outcome = Some(Outcome::Failed { step: "verify/healthy".into(), failure });
        self.write(&upgrade, json!({ "journal": journal, "leftovers": status::leftovers(&plan, &journal) })).await;
        upgrade
    }

    /// A plan for a request of which these steps are done.
    pub(super) fn record<K: Request>(&self, request: &K, done: &[&str], take_over: &[&str]) -> (Plan, Journal) {
        let minute = SignedDuration::from_mins(1);
        let step = |id: &str, step: AppStep| Step::new(id, id, step.to_value(), minute);
        let claim = || "data".to_owned();
        let steps = vec![
            step("suspend/x", AppStep::Suspend { root: root() }).undone_by("resume x").holding("x suspended"),
            step("protect/data", AppStep::Protect { claim: claim() }).undone_by("back").holding("pv on Retain"),
            step("snapshot/take/data", AppStep::Snapshot { claim: claim() }).undone_by("delete the snapshot"),
            step("swap/delete/data", AppStep::DropClaim { claim: claim() }),
            step("release/resume/x", AppStep::AwaitStopped).irrevocable().releasing("suspend/x"),
            step("verify/healthy", AppStep::AwaitStopped),
            step("finish/unprotect/data", AppStep::AwaitStopped).releasing("protect/data"),
        ];
        let mut inputs = inputs("root");
        inputs["takeOver"] = json!(take_over);
        inputs["request"] = json!(request.name_any());
        let plan = Plan::new("app-upgrade", &request.uid().unwrap(), inputs, steps).unwrap();
        let mut journal = Journal::new(&plan, self.cluster.context.clock.now());
        journal.entries = done.iter().map(|step| entry(step, StepState::Done, &journal)).collect();
        (plan, journal)
    }
}
