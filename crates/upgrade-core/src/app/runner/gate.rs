//! What must hold right before a version is committed, and again right before it is released: everything the restore point
//! rests on is still true.

use serde_json::{Value, json};

use super::Work;
use crate::Failure;
use crate::app::build::id;
use crate::app::{Root, upgrade};
use crate::engine::StepState;
use crate::ports::{Holder, ObjectRef, Suspension, WorkloadKind};

impl Work<'_> {
    /// Refuses when a suspension is not ours any more, a claim is not the planned one, or something has started on the data.
    pub(super) async fn gate(&self) -> Result<(), Failure> {
        self.suspensions_are_ours().await?;
        self.claims_are_the_planned_ones(self.has_released_another()).await?;
        if self.inputs.stopped && !self.has_released_another() {
            self.nothing_has_started(true).await?;
        }
        Ok(())
    }

    /// Whether another object was released by this operation already: pods may be the target's.
    pub(super) fn has_released_another(&self) -> bool {
        let steps = self.inputs.roots.iter().map(|root| id("release/resume", &root.object));
        steps
            .filter(|step| *step != self.cx.step.id)
            .any(|step| self.cx.journal.entry(&step).is_some_and(|entry| entry.state == StepState::Done))
    }

    /// For the swap of claims, which the claims themselves do not survive unchanged. Once the first claim is deleted, what ran before
    /// has no say any more, and going on is the only way: then what is in the way is waited for.
    ///
    /// What the generations of the stopped workloads are is noted with it: a change after that may have run on the restored data.
    pub(super) async fn suspended_and_idle(&self) -> Result<Value, Failure> {
        let passed = self.cx.journal.irrevocable(self.cx.plan);
        let found = match self.suspensions_are_ours().await {
            Ok(()) => self.nothing_has_started(!passed).await,
            Err(lost) => Err(lost),
        };
        match found {
            Err(failure) if passed && !failure.retryable => {
                let hint = match failure.code.as_str() {
                    "hold-lost" => "suspend it again (flux suspend): the claims are waited with until then",
                    _ => "scale it to 0, or suspend it if it is a CronJob: the claims are waited with until then",
                };
                Err(Failure::transient(&failure.code, failure.message).with_hint(hint))
            }
            found => found.map(|generations| json!({"generations": generations})),
        }
    }

    /// The generation of a stopped workload, by its place in the plan, from which on it must not have run: that when the first claim
    /// was made anew, else that when it was stopped.
    fn idle_since(&self, at: usize, workload: &ObjectRef) -> Option<i64> {
        let first = self.cx.plan.steps.iter().find(|step| step.id.starts_with("swap/create/"));
        let swapped = first.and_then(|step| self.cx.journal.entry(&step.id)).filter(|entry| entry.begun);
        let then = swapped.and_then(|entry| entry.intent.get("generations")?.get(at)?.as_i64());
        then.or_else(|| self.cx.journal.evidence(&id("stop", workload)).get("generation").and_then(Value::as_i64))
    }

    /// Whether the hold on the object is this operation's.
    pub(super) fn is_marked(&self, root: &Root, found: &Suspension) -> bool {
        found.held_by.as_deref() == Some(self.cx.plan.operation.as_str()) && found.uid == root.uid
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
            let ours =
                found.is_some_and(|found| self.is_marked(root, &found) && (found.suspend == Some(true) || let_go));
            if !ours {
                return Err(Failure::permanent(
                    "hold-lost",
                    format!("the suspension of {} is not ours any more", root.object),
                )
                .with_hint(self.hint("resumed")));
            }
        }
        Ok(())
    }

    /// What to do when somebody has interfered. Only an upgrade that is undone for it gives up copies of its own.
    fn hint(&self, how: &str) -> String {
        let undone = self.cx.plan.workflow == upgrade::WORKFLOW && !self.cx.journal.irrevocable(self.cx.plan);
        let copies = if undone {
            "the copies of this operation do not hold everything any more"
        } else {
            "its restore point stays"
        };
        format!("find out who {how} it; {copies}")
    }

    /// What the target drops may be gone once it is `released`.
    pub(super) async fn claims_are_the_planned_ones(&self, released: bool) -> Result<(), Failure> {
        for claim in &self.inputs.claims {
            if released && self.is_dropped(&claim.name) {
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
    ///
    /// Answers with the generation of each stopped workload.
    pub(super) async fn nothing_has_started(&self, or_been_changed: bool) -> Result<Vec<Option<i64>>, Failure> {
        let claims = self.inputs.claim_names();
        let holders = self.ports.workloads.holders(&self.inputs.app.namespace, &claims).await?;
        if !holders.is_empty() {
            let held = |holder: &Holder| format!("{} holds claim {} ({})", holder.by, holder.claim, holder.why);
            let first: Vec<String> = holders.iter().take(3).map(held).collect();
            return Err(self.started(&first.join(", ")));
        }
        let mut generations = Vec::new();
        for (at, workload) in self.inputs.workloads.iter().enumerate() {
            let state = self.ports.workloads.state(&workload.object).await?;
            generations.push(state.as_ref().map(|state| state.generation));
            let Some(state) = state else { continue };
            let is_started = match workload.kind {
                WorkloadKind::CronJob => state.suspend != Some(true),
                _ => state.replicas > 0,
            };
            if is_started {
                return Err(self.started(&format!("{} was started by somebody else", workload.object)));
            }
            // Up and down again leaves no pod behind, but is two changes. One alone cannot have started it: its replicas are 0 before
            // and after. The mark that freezes a Deployment counts as a change of it, too, and is ours.
            let is_frozen =
                workload.kind == WorkloadKind::Deployment && self.begun(&id("release/freeze", &workload.object));
            let allowed = 1 + i64::from(is_frozen);
            let most = self.idle_since(at, &workload.object).map(|since| since.saturating_add(allowed));
            if or_been_changed && most.is_some_and(|most| state.generation > most) {
                return Err(self.started(&format!(
                    "{} was changed more than once by somebody else, and may have run",
                    workload.object
                )));
            }
        }
        let workloads: Vec<ObjectRef> = self.inputs.workloads.iter().map(|workload| workload.object.clone()).collect();
        let pods = self.ports.workloads.pods(&self.inputs.app.namespace, &workloads, &claims).await?;
        if let Some(pod) = pods.iter().find(|pod| pod.claims.iter().any(|claim| claims.contains(claim))) {
            return Err(self.started(&format!("{} mounts a claim", pod.object)));
        }
        Ok(generations)
    }

    fn started(&self, what: &str) -> Failure {
        Failure::permanent("started-since-cut", format!("{what}, although the app was stopped for this operation"))
            .with_hint(self.hint("started"))
    }
}
