//! The ports but the delivery, over the model.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::super::builders::{cron_job, deployment, piece};
use super::World;
use crate::Failure;
use crate::ports::{
    ActiveOperation, Ancestry, AppRef, AppStore, Aside, BlockedVersion, ClaimFacts, ClaimState, CommitRecord,
    CommitRequest, GitManager, HealthChecker, HealthReport, Holder, HttpCheck, Neighbour, ObjectRef, Pin, PinFacts,
    PinValue, PodFact, ProtectedVolume, ReclaimPolicy, Rendered, Renderer, Rendering, ReplacedVolume, Repository,
    RestorePointRecord, RestorePoints, Rights, SnapshotManager, SnapshotRequest, SnapshotState, VolumeState,
    WorkloadFacts, WorkloadState, Workloads,
};

/// The workload that only 1.1.0 has.
fn worker_object() -> ObjectRef {
    ObjectRef { name: "worker".into(), ..deployment() }
}

#[async_trait]
impl GitManager for World {
    async fn head(&self, _: &AppRef, _: &Repository) -> Result<String, Failure> {
        self.call("git.head", |state| Ok(state.reach_git()?.head().sha.clone())).await
    }

    async fn pins(&self, _: &AppRef, _: &Repository, commit: &str, pins: &[Pin]) -> Result<Vec<PinFacts>, Failure> {
        self.call("git.pins", |state| state.reach_git()?.pins(commit, pins)).await
    }

    async fn commit(&self, _: &AppRef, request: &CommitRequest) -> Result<CommitRecord, Failure> {
        self.call("git.commit", |state| state.commit(request)).await
    }

    async fn find(&self, _: &AppRef, _: &Repository, operation: &str) -> Result<Option<CommitRecord>, Failure> {
        self.call("git.find", |state| Ok(state.reach_git()?.find(operation))).await
    }

    async fn ancestry(&self, _: &AppRef, _: &Repository, commit: &str, descendant: &str) -> Result<Ancestry, Failure> {
        self.call("git.ancestry", |state| state.reach_git()?.ancestry(commit, descendant)).await
    }

    async fn files(
        &self,
        _: &AppRef,
        _: &Repository,
        _: &str,
        _: &str,
        _: &[PinValue],
    ) -> Result<BTreeMap<String, String>, Failure> {
        Ok(BTreeMap::new())
    }

    async fn log(
        &self,
        _: &AppRef,
        _: &Repository,
        from: &str,
        to: &str,
        _: usize,
    ) -> Result<Option<Vec<String>>, Failure> {
        self.call("git.log", |state| state.reach_git()?.log(from, to)).await
    }
}

#[async_trait]
impl SnapshotManager for World {
    async fn claims(
        &self,
        _: &AppRef,
        _: &str,
        names: &[(String, String)],
        _: Option<String>,
    ) -> Result<Vec<ClaimFacts>, Failure> {
        self.call("volumes.claims", |state| {
            Ok(names.iter().filter_map(|(name, _)| state.storage.facts(name)).collect())
        })
        .await
    }

    async fn set_policy(&self, volume: &ProtectedVolume, policy: ReclaimPolicy) -> Result<(), Failure> {
        self.call("volumes.set_policy", |state| state.storage.set_policy(volume, policy)).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<(), Failure> {
        self.call("volumes.snapshot", |state| state.snapshot(request)).await
    }

    async fn snapshot_state(&self, _: &str, name: &str) -> Result<Option<SnapshotState>, Failure> {
        self.call("volumes.snapshot_state", |state| Ok(state.storage.snapshot_state(name))).await
    }

    async fn set_content_policy(&self, content: &str, policy: ReclaimPolicy) -> Result<(), Failure> {
        self.call("volumes.set_content_policy", |state| state.storage.set_content_policy(content, policy)).await
    }

    async fn drop_snapshot(&self, _: &str, name: &str, uid: &str) -> Result<(), Failure> {
        self.call("volumes.drop_snapshot", |state| {
            state.storage.drop_snapshot(name, uid);
            Ok(())
        })
        .await
    }

    async fn restore_aside(&self, aside: &Aside) -> Result<(), Failure> {
        self.call("volumes.restore_aside", |state| state.restore_aside(aside)).await
    }

    async fn claim(&self, _: &str, name: &str) -> Result<Option<ClaimState>, Failure> {
        self.call("volumes.claim", |state| Ok(state.storage.claim_state(name))).await
    }

    async fn volume(&self, name: &str) -> Result<Option<VolumeState>, Failure> {
        self.call("volumes.volume", |state| Ok(state.storage.volume_state(name))).await
    }

    async fn drop_claim(&self, _: &str, name: &str, uid: &str) -> Result<(), Failure> {
        self.call("volumes.drop_claim", |state| state.drop_claim(name, uid)).await
    }

    async fn reserve(&self, volume: &ProtectedVolume, _: &str, claim: &str) -> Result<(), Failure> {
        self.call("volumes.reserve", |state| state.storage.reserve(volume, claim)).await
    }

    async fn discard(&self, volume: &ProtectedVolume, _: &str, helper: &str, uid: &str) -> Result<(), Failure> {
        self.call("volumes.discard", |state| state.storage.discard(volume, helper, uid)).await
    }

    async fn recreate(&self, _: &str, name: &str, _: &Value, volume: &str, operation: &str) -> Result<(), Failure> {
        self.call("volumes.recreate", |state| state.recreate(name, volume, operation)).await
    }
}

#[async_trait]
impl Workloads for World {
    async fn find(&self, _: &AppRef, _: &[ObjectRef], asked: &[String]) -> Result<Vec<WorkloadFacts>, Failure> {
        self.call("workloads.find", |state| {
            let worker = state.worker.is_some() && state.deployment.version == "1.1.0";
            let worker =
                worker.then(|| WorkloadFacts { object: worker_object(), claims: Vec::new(), ..state.workload_facts() });
            let mounts_one = |one: &&WorkloadFacts| one.claims.iter().any(|claim| asked.contains(claim));
            let strangers: Vec<WorkloadFacts> = state.strangers.iter().filter(mounts_one).cloned().collect();
            let others = worker.into_iter().chain(state.cron_facts()).chain(state.aside.clone()).chain(strangers);
            Ok([state.workload_facts()].into_iter().chain(others).collect())
        })
        .await
    }

    async fn delivered_claims(&self, _: &AppRef, _: &[ObjectRef]) -> Result<Vec<String>, Failure> {
        Ok(self.state().delivered_claims.clone())
    }

    async fn state(&self, workload: &ObjectRef) -> Result<Option<WorkloadState>, Failure> {
        self.call("workloads.state", |state| Ok(Some(state.workload_state(workload)))).await
    }

    async fn stop(&self, workload: &ObjectRef, uid: &str) -> Result<(), Failure> {
        self.call("workloads.stop", |state| state.stop(workload, uid)).await
    }

    async fn start(
        &self,
        workload: &ObjectRef,
        uid: &str,
        resource_version: &str,
        replicas: i32,
        suspend: Option<bool>,
    ) -> Result<(), Failure> {
        self.call("workloads.start", |state| {
            if *workload == cron_job() {
                return state.put_cron_back(resource_version, suspend);
            }
            state.start(uid, resource_version, replicas)
        })
        .await
    }

    async fn holders(&self, _: &str, claims: &[String]) -> Result<Vec<Holder>, Failure> {
        self.call("workloads.holders", |state| Ok(state.holders(claims))).await
    }

    async fn remove_pod(&self, pod: &ObjectRef, _: &str) -> Result<(), Failure> {
        self.call("workloads.remove_pod", |_| Err(Failure::permanent("pod-runs", format!("{pod} has not ended")))).await
    }

    async fn pods(&self, _: &str, _: &[ObjectRef], _: &[String]) -> Result<Vec<PodFact>, Failure> {
        self.call("workloads.pods", |state| Ok(state.pod_facts())).await
    }
}

#[async_trait]
impl HealthChecker for World {
    async fn check(
        &self,
        _: &AppRef,
        workloads: &[ObjectRef],
        pins: &[PinValue],
        _: &[HttpCheck],
    ) -> Result<HealthReport, Failure> {
        self.call("health.check", |state| {
            let app = state.health(&pins[0].value);
            if let Some(idle) = state.aside.iter().find(|one| workloads.contains(&one.object)) {
                return Ok(HealthReport::Waiting(format!("{} has no pods", idle.object)));
            }
            if let Some(pin) = pins.iter().find(|pin| pin.pin.component != "image/notes") {
                return Ok(HealthReport::Waiting(format!("no container runs an image of {}", pin.pin.component)));
            }
            let worker = state.worker.clone().filter(|_| workloads.contains(&worker_object()));
            Ok(if matches!(app, HealthReport::Healthy { .. }) { worker.unwrap_or(app) } else { app })
        })
        .await
    }
}

#[async_trait]
impl AppStore for World {
    async fn acquire(
        &self,
        _: &AppRef,
        operation: &ActiveOperation,
        _: Option<String>,
    ) -> Result<ActiveOperation, Failure> {
        Ok(operation.clone())
    }

    async fn release(&self, _: &AppRef, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn blocked(&self, _: &AppRef) -> Result<Vec<BlockedVersion>, Failure> {
        self.call("apps.blocked", |state| Ok(state.blocked.clone())).await
    }

    async fn block(&self, _: &AppRef, versions: &[BlockedVersion]) -> Result<(), Failure> {
        self.call("apps.block", |state| {
            state.blocked = versions.to_vec();
            Ok(())
        })
        .await
    }

    async fn neighbours(&self, _: &AppRef) -> Result<Vec<Neighbour>, Failure> {
        Ok(Vec::new())
    }

    async fn set_current(&self, _: &AppRef, pins: &[PinValue]) -> Result<(), Failure> {
        self.call("apps.set_current", |state| {
            state.may_record();
            state.current = pins.to_vec();
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl RestorePoints for World {
    async fn save(&self, record: &RestorePointRecord) -> Result<(), Failure> {
        self.call("points.save", |state| {
            state.points.entry(record.name.clone()).or_insert_with(|| record.clone());
            Ok(())
        })
        .await
    }

    async fn get(&self, _: &AppRef, name: &str) -> Result<Option<RestorePointRecord>, Failure> {
        self.call("points.get", |state| Ok(state.points.get(name).cloned())).await
    }

    async fn void(&self, _: &AppRef, name: &str, reason: &str) -> Result<(), Failure> {
        self.call("points.void", |state| {
            if let Some(point) = state.points.get_mut(name) {
                point.void = reason.into();
            }
            Ok(())
        })
        .await
    }

    async fn replaced(&self, _: &AppRef, _: &str, volumes: &[ReplacedVolume]) -> Result<(), Failure> {
        self.call("points.replaced", |state| {
            state.replaced = volumes.iter().map(|one| one.volume.clone()).collect();
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Renderer for World {
    async fn render(
        &self,
        _: &AppRef,
        object: &ObjectRef,
        _: &[(Repository, String)],
        _: &[PinValue],
    ) -> Result<Rendering, Failure> {
        self.call("renderer.render", |state| {
            let rendered = match &state.renders {
                Some(pieces) => Rendered::Pieces(pieces.clone()),
                None if state.setup.release => Rendered::Unknown("it is a chart".into()),
                None => Rendered::Pieces(vec![piece(&deployment(), &["data"])]),
            };
            Ok(Rendering { of: object.clone(), delivered: vec![deployment()], rendered })
        })
        .await
    }
}

#[async_trait]
impl Rights for World {
    async fn missing(&self, _: &AppRef, _: &[String]) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }
}
