//! Stopping workloads and putting them back.

use serde_json::{Value, json};

use super::{Work, gone, replaced};
use crate::Failure;
use crate::app::{AppInputs, PlannedWorkload};
use crate::engine::{Direction, Observation};
use crate::ports::{Holder, ObjectRef, TemplateMatch, WorkloadKind};

impl Work<'_> {
    fn workload(&self, object: &ObjectRef) -> Result<&PlannedWorkload, Failure> {
        self.inputs.workload(object).ok_or_else(|| super::not_planned("workload", &object.name))
    }

    pub(super) async fn prepare_workload(&self, object: &ObjectRef) -> Result<Value, Failure> {
        let planned = self.workload(object)?;
        let Some(state) = self.ports.workloads.state(object).await? else {
            if self.cx.direction == Direction::Undo {
                return Ok(json!({"gone": true}));
            }
            return Err(gone(object));
        };
        if state.uid != planned.uid && self.cx.direction == Direction::Do && !self.is_release() {
            return Err(replaced(object));
        }
        Ok(json!({"uid": state.uid, "resourceVersion": state.resource_version, "replicas": state.replicas}))
    }

    /// A release may have made the workload anew; stopping must meet the one that was planned.
    fn is_release(&self) -> bool {
        self.cx.step.id.starts_with("release/")
    }

    pub(super) async fn stop(&self, object: &ObjectRef) -> Result<(), Failure> {
        let uid = &self.workload(object)?.uid;
        self.ports.workloads.stop(object, uid).await
    }

    pub(super) async fn is_stopped(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let planned = self.workload(object)?;
        let state = self.ports.workloads.state(object).await?.ok_or_else(|| gone(object))?;
        if state.uid != planned.uid {
            return Err(replaced(object));
        }
        let stopped = match planned.kind {
            WorkloadKind::CronJob => state.suspend == Some(true),
            _ => state.replicas == 0,
        };
        if !stopped {
            return Ok(Observation::absent());
        }
        Ok(Observation::Done(json!({
            "replicasFound": planned.replicas, "suspendFound": planned.suspend, "generation": state.generation,
        })))
    }

    /// The undo of a stop: never while the live template is another version's than the data's.
    pub(super) async fn is_started_again(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let planned = self.workload(object)?;
        let Some(state) = self.ports.workloads.state(object).await? else {
            return Ok(Observation::Done(json!({"gone": true})));
        };
        let back = match planned.kind {
            WorkloadKind::CronJob => !is_still_ours(planned, state.suspend),
            _ => state.replicas == planned.replicas,
        };
        if back {
            return Ok(Observation::Done(json!({"replicas": state.replicas})));
        }
        if state.images != planned.images {
            return Ok(Observation::pending(format!("the template of {object} to be what it was"), 1000));
        }
        Ok(Observation::absent())
    }

    pub(super) async fn start_again(&self, object: &ObjectRef) -> Result<(), Failure> {
        let planned = self.workload(object)?;
        let state = self.ports.workloads.state(object).await?.ok_or_else(|| gone(object))?;
        if state.images != planned.images {
            return Ok(());
        }
        let version = &state.resource_version;
        self.ports.workloads.start(object, &state.uid, version, planned.replicas, planned.suspend).await
    }

    /// A restore that nobody has acknowledged a loss for goes on only while no pod with the data has ever served. That is known until
    /// the pods are gone, and everything can still be undone until then.
    pub(super) async fn nothing_served(&self) -> Result<(), Failure> {
        let inputs = &self.inputs;
        let Some(point) = inputs.restore.as_ref().filter(|_| inputs.unacknowledged) else { return Ok(()) };
        let pods = self.ports.workloads.pods(&inputs.app.namespace, &[], &inputs.claim_names()).await?;
        let Some(pod) = pods.iter().find(|pod| pod.served && inputs.has_data_of(pod)) else { return Ok(()) };
        let since = point.taken_at;
        let message = format!("{} has become ready: what it wrote since {since} would be lost", pod.object);
        let hint = format!("acknowledge it: --acknowledge-loss-since {since}, or keep the data: --data keep");
        Err(Failure::permanent("served-meanwhile", message).with_hint(hint))
    }

    pub(super) async fn nothing_holds(&self) -> Result<Observation, Failure> {
        self.nothing_served().await?;
        let claims = self.inputs.claim_names();
        let holders = self.ports.workloads.holders(&self.inputs.app.namespace, &claims).await?;
        if holders.is_empty() {
            return Ok(Observation::Done(json!({"stoppedAt": self.cx.now.to_string()})));
        }
        if holders.iter().any(has_ended) {
            return Ok(Observation::absent());
        }
        let names: Vec<String> =
            holders.iter().take(3).map(|holder| format!("{} ({})", holder.by, holder.why)).collect();
        Ok(Observation::pending(format!("the claims to be let go by {}", names.join(", ")), 100))
    }

    /// Ended pods still protect their claims from deletion; they hold no process.
    pub(super) async fn remove_ended_pods(&self) -> Result<(), Failure> {
        let claims = self.inputs.claim_names();
        let namespace = &self.inputs.app.namespace;
        let holders = self.ports.workloads.holders(namespace, &claims).await?;
        let Some(ended) = holders.iter().find(|holder| has_ended(holder)) else { return Ok(()) };
        // Its conditions go with it.
        self.nothing_served().await?;
        let pods = self.ports.workloads.pods(namespace, &[], &claims).await?;
        match pods.iter().find(|pod| pod.object == ended.by) {
            Some(pod) => self.ports.workloads.remove_pod(&pod.object, &pod.uid).await,
            None => Ok(()),
        }
    }

    pub(super) async fn freeze(&self, object: &ObjectRef, frozen: bool) -> Result<(), Failure> {
        let uid = &self.workload(object)?.uid;
        self.ports.delivery.freeze(object, uid, frozen).await
    }

    pub(super) async fn is_frozen(&self, object: &ObjectRef, wanted: bool) -> Result<Observation, Failure> {
        let removed = self.inputs.workload(object).is_some_and(|planned| planned.removed);
        if removed && !wanted && self.ports.workloads.state(object).await?.is_none() {
            return Ok(Observation::Done(json!({"gone": true})));
        }
        let frozen = self.ports.delivery.is_frozen(object).await?;
        // Nothing else keeps the target from a workload whose delivery somebody has let go.
        if frozen && self.cx.direction == Direction::Undo && !self.let_go_by_others().await?.is_empty() {
            self.commit_is_undone()?;
        }
        Ok(if frozen == wanted { Observation::Done(json!({"frozen": frozen})) } else { Observation::absent() })
    }

    /// Replicas go back only in a write on the very object whose template was seen to be the target's: a moment earlier the
    /// other version would start on the data.
    pub(super) async fn is_put_back(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let planned = self.workload(object)?;
        match self.template(object).await? {
            TemplateMatch::Target { replicas, .. } if planned.kind != WorkloadKind::CronJob => {
                if replicas > 0 || planned.replicas == 0 {
                    return Ok(Observation::Done(json!({"replicas": replicas})));
                }
                Ok(Observation::absent())
            }
            TemplateMatch::Target { keeps_suspended, .. } => {
                let state = self.ports.workloads.state(object).await?.ok_or_else(|| gone(object))?;
                if keeps_suspended || !is_still_ours(planned, state.suspend) {
                    return Ok(Observation::Done(json!({"suspend": state.suspend})));
                }
                Ok(Observation::absent())
            }
            TemplateMatch::Not(seen) => Ok(Observation::Absent(format!("the template of {object} to change: {seen}"))),
        }
    }

    /// This step begins when nothing is frozen any more, so its pokes are the ones to be answered.
    async fn template(&self, object: &ObjectRef) -> Result<TemplateMatch, Failure> {
        let AppInputs { own, from, to, .. } = &self.inputs;
        self.ports.delivery.template(own, object, from, to, &self.cx.token()).await
    }

    pub(super) async fn put_back(&self, object: &ObjectRef) -> Result<(), Failure> {
        let planned = self.workload(object)?;
        let TemplateMatch::Target { resource_version, .. } = self.template(object).await? else {
            return self.poke_own().await;
        };
        let state = self.ports.workloads.state(object).await?.ok_or_else(|| gone(object))?;
        self.ports.workloads.start(object, &state.uid, &resource_version, planned.replicas, planned.suspend).await
    }
}

/// Whether a CronJob's `suspend` is still what stopping it wrote. What anybody has written since is newer than what was found.
fn is_still_ours(planned: &PlannedWorkload, suspend: Option<bool>) -> bool {
    suspend == Some(true) && planned.suspend != Some(true)
}

fn has_ended(holder: &Holder) -> bool {
    matches!(holder.why.as_str(), "Succeeded" | "Failed")
}
