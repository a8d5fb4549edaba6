//! Whether the commit runs, healthy, and stays so; and what is recorded at the end.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Work;
use crate::Failure;
use crate::app::changes::remove_workload;
use crate::app::rollback;
use crate::app::watch::{is_meant_to_run, keeps_pods, runs_image_of};
use crate::engine::Observation;
use crate::ports::{
    Applied, BlockedVersion, ClaimFacts, HealthReport, ObjectRef, PinValue, ReplacedVolume, WorkloadFacts,
};

impl Work<'_> {
    /// The whole predicate. That a pod of the target was ever ready is noted at once and never forgotten: from then on it may
    /// have acknowledged writes.
    pub(super) async fn is_healthy(&self) -> Result<Observation, Failure> {
        if !self.has_served() && self.serves_now().await? {
            return Ok(Observation::Pending {
                waiting_for: "the whole release to be healthy".into(),
                look_again_in: jiff::SignedDuration::ZERO,
                sighted: Some(json!({"served": true, "since": self.cx.now.to_string()})),
            });
        }
        let contains = self.containing_commits().await?;
        let inputs = &self.inputs;
        let (applied, neighbours) =
            match self.ports.delivery.applied(&inputs.app, &inputs.own, &inputs.to, &contains).await? {
                Applied::Done { evidence, neighbours } => (evidence, neighbours),
                Applied::Pending(missing) => {
                    // A crash loop is reported before the delivery tool has given up waiting for it.
                    if let HealthReport::Broken(why) = self.health().await? {
                        return Ok(Observation::Failed(unhealthy(why)));
                    }
                    return Ok(Observation::pending(missing, 250));
                }
                Applied::Failed(why) => {
                    return Ok(Observation::Failed(Failure::permanent("release-failed", why)));
                }
            };
        Ok(match self.health().await? {
            HealthReport::Healthy { evidence, .. } => Observation::Done(json!({
                "served": true, "since": self.served_since(), "applied": brief(applied), "health": brief(evidence),
                "neighbours": brief(neighbours.join("; ")),
            })),
            HealthReport::Waiting(missing) => Observation::pending(missing, 250),
            HealthReport::Broken(why) => Observation::Failed(unhealthy(why)),
        })
    }

    /// Healthy without interruption for the soak time; any interruption starts it again, until the deadline.
    pub(super) async fn stays_healthy(&self) -> Result<Observation, Failure> {
        let soak = self.inputs.health.soak;
        let noted = self.cx.journal.evidence(&self.cx.step.id);
        let time = |key: &str| noted.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
        match self.health().await? {
            // A container that is back before the next look was away all the same.
            HealthReport::Healthy { evidence, restarted } => {
                match time("healthySince").filter(|_| restarted <= time("restarted")) {
                    Some(since) if self.cx.now.duration_since(since) >= soak => {
                        Ok(Observation::Done(json!({"healthySince": since.to_string(), "health": brief(evidence)})))
                    }
                    Some(since) => {
                        let left = soak.saturating_sub(self.cx.now.duration_since(since));
                        Ok(Observation::Pending {
                            waiting_for: until(since, soak),
                            look_again_in: left.min(jiff::SignedDuration::from_secs(1)),
                            sighted: None,
                        })
                    }
                    None => Ok(Observation::Pending {
                        waiting_for: until(self.cx.now, soak),
                        look_again_in: soak.min(jiff::SignedDuration::from_secs(1)),
                        sighted: Some(json!({
                            "healthySince": self.cx.now.to_string(),
                            "restarted": restarted.map(|at| at.to_string()),
                        })),
                    }),
                }
            }
            HealthReport::Waiting(missing) => Ok(Observation::Pending {
                waiting_for: missing,
                look_again_in: jiff::SignedDuration::from_millis(500),
                sighted: Some(json!({"healthySince": null})),
            }),
            HealthReport::Broken(why) => Ok(Observation::Failed(unhealthy(why))),
        }
    }

    async fn health(&self) -> Result<HealthReport, Failure> {
        let inputs = &self.inputs;
        let seen = |pin: &&PinValue| !inputs.unseen.contains(&pin.pin.component);
        let mut watched = None;
        if inputs.watched.iter().any(keeps_pods) {
            let pins: Vec<PinValue> = inputs.to.iter().filter(seen).cloned().collect();
            let report = self.health_of(&inputs.watched, &pins).await?;
            if !matches!(report, HealthReport::Healthy { .. }) {
                return Ok(report);
            }
            watched = Some(report);
        }
        // Looked for when all else is well, because it asks much of the API server.
        let added = self.added().await?;
        if let Some(report) = watched.filter(|_| added.is_empty()) {
            return Ok(report);
        }
        let shows = |pin: &&PinValue| seen(pin) || added.iter().any(|found| runs_image_of(found, pin));
        let pins: Vec<PinValue> = inputs.to.iter().filter(shows).cloned().collect();
        let all: Vec<ObjectRef> =
            inputs.watched.iter().cloned().chain(added.into_iter().map(|found| found.object)).collect();
        if !all.iter().any(keeps_pods) && self.cx.plan.workflow == rollback::WORKFLOW {
            // Whoever stopped an app and asks for its older version gets it as they left it.
            let evidence = "nothing of the app is meant to run".into();
            return Ok(HealthReport::Healthy { evidence, restarted: None });
        }
        self.health_of(&all, &pins).await
    }

    async fn health_of(&self, workloads: &[ObjectRef], pins: &[PinValue]) -> Result<HealthReport, Failure> {
        let inputs = &self.inputs;
        self.ports.health.check(&inputs.app, workloads, pins, &inputs.health.http).await
    }

    /// What is delivered and was not there when the plan was made: a Kustomization that does not wait is Ready without it. What nobody
    /// meant to run, and what ends by itself, is the delivery's to judge.
    async fn added(&self) -> Result<Vec<WorkloadFacts>, Failure> {
        let inputs = &self.inputs;
        let found = self.ports.workloads.find(&inputs.app, &inputs.own, &[]).await?;
        let is_added = |found: &WorkloadFacts| {
            found.delivered
                && found.object.namespace == inputs.app.namespace
                && !inputs.watched.contains(&found.object)
                && !inputs.accepted.contains(&remove_workload(&found.object))
        };
        Ok(found.into_iter().filter(|found| is_added(found) && is_meant_to_run(found.kind, found.replicas)).collect())
    }

    fn has_served(&self) -> bool {
        self.cx.journal.evidence(&self.cx.step.id).get("served").and_then(Value::as_bool).unwrap_or(false)
    }

    fn served_since(&self) -> String {
        let noted = self.cx.journal.evidence(&self.cx.step.id).get("since").and_then(Value::as_str);
        noted.map_or_else(|| self.cx.now.to_string(), str::to_owned)
    }

    async fn serves_now(&self) -> Result<bool, Failure> {
        let inputs = &self.inputs;
        let claims = inputs.claim_names();
        let pods = self.ports.workloads.pods(&inputs.app.namespace, &inputs.watched, &claims).await?;
        Ok(pods.iter().any(|pod| pod.served && inputs.has_data_of(pod)))
    }

    pub(super) async fn block(&self) -> Result<(), Failure> {
        let versions: Vec<BlockedVersion> = self
            .inputs
            .changes()
            .map(|(from, _)| BlockedVersion {
                component: from.pin.component.clone(),
                version: from.value.clone(),
                reason: self.inputs.reason.clone(),
                request: self.inputs.request.clone(),
                since: self.cx.now,
            })
            .collect();
        self.ports.apps.block(&self.inputs.app, &versions).await
    }

    pub(super) async fn note_replaced(&self) -> Result<(), Failure> {
        let restored = self.inputs.restore.as_ref().map(|point| point.volumes.as_slice()).unwrap_or_default();
        let is_restored = |claim: &&ClaimFacts| restored.iter().any(|volume| volume.claim == claim.name);
        let replaced: Vec<ReplacedVolume> = self
            .inputs
            .claims
            .iter()
            .filter(is_restored)
            .map(|claim| ReplacedVolume {
                volume: claim.volume.clone(),
                uid: claim.volume_uid.clone(),
                handle: claim.handle.clone(),
                claim: claim.name.clone(),
                claim_uid: claim.uid.clone(),
            })
            .collect();
        self.ports.restore_points.replaced(&self.inputs.app, &self.inputs.restore_point, &replaced).await
    }
}

/// The same words at each look: what changes is written, and a journal has no heartbeats.
fn until(since: Timestamp, soak: jiff::SignedDuration) -> String {
    let end = since.checked_add(soak).ok().and_then(|end| end.round(jiff::Unit::Second).ok());
    end.map_or_else(|| "lasting health".to_owned(), |end| format!("health to last until {end}"))
}

/// A large app must not fail because the proof of its health is long.
fn brief(mut text: String) -> String {
    crate::failure::truncate(&mut text, 300);
    text
}

fn unhealthy(why: String) -> Failure {
    Failure::permanent("unhealthy", why)
}
