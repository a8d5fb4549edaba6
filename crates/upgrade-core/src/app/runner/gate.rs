//! What must hold right before a version is committed, and again right before it is released: everything the restore point
//! rests on is still true.

use serde_json::Value;

use super::Work;
use crate::Failure;
use crate::app::build::id;
use crate::engine::StepState;
use crate::ports::{ObjectRef, WorkloadKind};

impl Work<'_> {
    /// Refuses when a suspension is not ours any more, a claim is not the planned one, or something has started on the data.
    pub(super) async fn gate(&self) -> Result<(), Failure> {
        self.suspensions_are_ours().await?;
        self.claims_are_the_planned_ones().await?;
        if self.inputs.stopped && !self.has_released_another() {
            self.nothing_has_started(true).await?;
        }
        Ok(())
    }

    /// Whether another object was released by this operation already: pods may be the target's.
    fn has_released_another(&self) -> bool {
        let steps = self.inputs.roots.iter().map(|root| id("release/resume", &root.object));
        steps
            .filter(|step| *step != self.cx.step.id)
            .any(|step| self.cx.journal.entry(&step).is_some_and(|entry| entry.state == StepState::Done))
    }

    /// For the swap of claims, which the claims themselves do not survive unchanged.
    pub(super) async fn suspended_and_idle(&self) -> Result<(), Failure> {
        self.suspensions_are_ours().await?;
        // Once the first claim is deleted, what ran before it has no say any more: going on is the only way.
        self.nothing_has_started(!self.cx.journal.irrevocable(self.cx.plan)).await
    }

    async fn suspensions_are_ours(&self) -> Result<(), Failure> {
        for root in &self.inputs.roots {
            let resumed = id("release/resume", &root.object);
            if self.begun(&resumed) {
                continue;
            }
            let found = self.ports.delivery.suspension(&root.object).await?;
            // Its parent lets it go when Git declares `suspend`; the hold stays until we take it away.
            let let_go = root.declared && self.has_released_another();
            let ours = found.as_ref().is_some_and(|found| {
                found.held_by.as_deref() == Some(self.cx.plan.operation.as_str())
                    && (found.suspend == Some(true) || let_go)
                    && found.uid == root.uid
            });
            if !ours {
                return Err(Failure::permanent(
                    "hold-lost",
                    format!("the suspension of {} is not ours any more", root.object),
                )
                .with_hint("find out who resumed it; the restore point of this operation is void"));
            }
        }
        Ok(())
    }

    async fn claims_are_the_planned_ones(&self) -> Result<(), Failure> {
        for claim in &self.inputs.claims {
            if self.has_released_another() && self.is_dropped(&claim.name) {
                continue;
            }
            let found = self.ports.snapshots.claim(&claim.namespace, &claim.name).await?;
            let restored = self.seen(&format!("restore/aside/{}", claim.name), "volume");
            let volume = restored.unwrap_or_else(|| claim.volume.clone());
            let same = found.as_ref().is_some_and(|found| {
                found.volume.as_deref() == Some(volume.as_str()) && found.phase == "Bound" && !found.deleting
            });
            if !same {
                let seen = found.map_or("it is gone".to_owned(), |found| {
                    format!("it is {} to volume {}", found.phase, found.volume.as_deref().unwrap_or("none"))
                });
                return Err(Failure::permanent(
                    "claim-changed",
                    format!("claim {} is not bound to volume {volume} any more: {seen}", claim.name),
                ));
            }
        }
        Ok(())
    }

    /// Nothing may run, or have run, on the data since it was cut: else the restore point does not hold every write.
    async fn nothing_has_started(&self, or_been_changed: bool) -> Result<(), Failure> {
        let claims = self.inputs.claim_names();
        let holders = self.ports.workloads.holders(&self.inputs.app.namespace, &claims).await?;
        if let Some(holder) = holders.first() {
            return Err(started(&format!("{} holds claim {} ({})", holder.by, holder.claim, holder.why)));
        }
        for workload in &self.inputs.workloads {
            let Some(state) = self.ports.workloads.state(&workload.object).await? else { continue };
            if state.replicas > 0 {
                return Err(started(&format!("{} was scaled up by somebody else", workload.object)));
            }
            // Up and down again leaves no pod behind, but is two changes. One alone cannot have started it: its replicas are 0 before
            // and after. The mark that freezes a Deployment counts as a change of it, too, and is ours.
            let stopped = self.cx.journal.evidence(&id("stop", &workload.object));
            let is_frozen =
                workload.kind == WorkloadKind::Deployment && self.begun(&id("release/freeze", &workload.object));
            let allowed = 1 + i64::from(is_frozen);
            let most = stopped.get("generation").and_then(Value::as_i64).map(|at| at.saturating_add(allowed));
            if or_been_changed && most.is_some_and(|most| state.generation > most) {
                return Err(started(&format!(
                    "{} was changed more than once by somebody else, and may have run",
                    workload.object
                )));
            }
        }
        let workloads: Vec<ObjectRef> = self.inputs.workloads.iter().map(|workload| workload.object.clone()).collect();
        let pods = self.ports.workloads.pods(&self.inputs.app.namespace, &workloads, &claims).await?;
        if let Some(pod) = pods.iter().find(|pod| pod.claims.iter().any(|claim| claims.contains(claim))) {
            return Err(started(&format!("{} mounts a claim", pod.object)));
        }
        Ok(())
    }
}

fn started(what: &str) -> Failure {
    Failure::permanent("started-since-cut", format!("{what}, although the app was stopped for this operation"))
        .with_hint("find out who started it; the restore point of this operation is void")
}
