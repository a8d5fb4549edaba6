//! What tools and people read of a request that waits, runs, or cannot be continued.

use k8s_openapi::api::core::v1::Namespace;
use windlass_api::{ManagedApp, OperationStatus, Outcome, UpgradeRequest, condition};
use windlass_workloads::kstatus::{Status, verdict};

use super::estate::Estate;
use super::*;
use crate::kinds::Request;

impl Estate {
    async fn kstatus<K: Request>(&self, request: &K) -> Status {
        let found = self.api::<K>().get(&request.name_any()).await.unwrap();
        verdict(Some(&serde_json::to_value(found).unwrap())).status
    }

    pub(super) async fn ready(&self) -> (String, String) {
        let app = self.api::<ManagedApp>().get("notes").await.unwrap();
        let ready = condition(&app.status.unwrap_or_default().conditions, "Ready").cloned().unwrap();
        (ready.status, ready.reason)
    }

    /// An upgrade in the middle, with a plan of a version that nobody here knows.
    async fn of_another_version(&self) -> (UpgradeRequest, OperationStatus) {
        let upgrade = self.watched("up").await;
        let before = self.status_of(&upgrade).await;
        self.write(&upgrade, json!({ "plan": { "planVersion": 9999 } })).await;
        (upgrade, before)
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_turn_is_in_progress() {
    let estate = Estate::new().await;
    estate.watched("first").await;
    let second = estate.upgrade("second").await;
    estate.turn(&second).await;
    assert_eq!(estate.status_of(&second).await.phase.as_deref(), Some("Queued"));
    assert_eq!(estate.kstatus(&second).await, Status::InProgress);
}

#[tokio::test]
async fn a_request_that_runs_is_in_progress() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!((status.outcome, estate.kstatus(&upgrade).await), (None, Status::InProgress), "{status:?}");
}

#[tokio::test]
async fn a_record_that_cannot_be_continued_here_is_said_on_the_request_and_on_the_app_and_once() {
    let estate = Estate::new().await;
    let (upgrade, before) = estate.of_another_version().await;
    estate.turn(&upgrade).await;
    let stuck = estate.status_of(&upgrade).await;
    assert!(stuck.message.as_deref().unwrap().contains("plan-version-unknown"), "{stuck:?}");
    assert_eq!((stuck.outcome, stuck.phase.as_deref()), (None, Some("Stuck")));
    assert_eq!(estate.kstatus(&upgrade).await, Status::Failed);
    assert_eq!(estate.ready().await, ("False".into(), "OperationStuck".into()));

    let version = async || estate.api::<UpgradeRequest>().get("up").await.unwrap().resource_version();
    let written = version().await;
    estate.turn(&upgrade).await;
    assert_eq!(version().await, written, "said again");

    // The version that knows the plan goes on.
    estate.write(&upgrade, json!({ "plan": before.plan })).await;
    estate.turn(&upgrade).await;
    assert_eq!(estate.kstatus(&upgrade).await, Status::InProgress);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_does_not_keep_a_namespace_that_goes() {
    let estate = Estate::new().await;
    let (upgrade, _) = estate.of_another_version().await;
    let client = estate.cluster.server.client();
    let finalizers = json!({ "metadata": { "finalizers": ["upgrades.windlass.dev/operation"] } });
    let requests = estate.api::<UpgradeRequest>();
    requests.patch("up", &PatchParams::default(), &Patch::Merge(&finalizers)).await.unwrap();
    Api::<Namespace>::all(client).delete(NS, &DeleteParams::default()).await.unwrap();
    requests.delete("up", &DeleteParams::default()).await.unwrap();
    estate.turn(&upgrade).await;
    assert!(requests.get_opt("up").await.unwrap().is_none());
}

#[tokio::test]
async fn a_rollback_that_is_undone_leaves_an_app_that_needs_one() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
    let (plan, mut journal) = estate.record(&rollback, &[], &[&upgrade.uid().unwrap()]);
    journal.outcome = Some(upgrade_core::engine::Outcome::Undone(Cause::Cancelled));
    estate.write(&rollback, json!({ "plan": plan, "journal": journal })).await;
    // It needs one whether or not it has left anything: an app without volumes leaves nothing.
    estate.write(&upgrade, json!({ "outcome": "RolledBack", "rollback": "back", "leftovers": [] })).await;
    estate.activate(&rollback).await;
    estate.turn(&rollback).await;
    assert_eq!(estate.status_of(&rollback).await.outcome, Some(Outcome::Cancelled));
    assert_eq!(estate.ready().await, ("False".into(), "NeedsRollback".into()));
}
