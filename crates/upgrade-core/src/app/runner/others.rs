//! What somebody else may have released: an object of ours that was let go by another hand carries out the commit without us.

use super::Work;
use crate::Failure;
use crate::app::build::id;
use crate::app::{AppStep, Root, upgrade};
use crate::engine::{Observation, StepState};
use crate::image;
use crate::ports::{DeliveryRole, PinValue};

impl Work<'_> {
    /// Whether the release of an upgrade has happened by another hand: what is marked as ours is not suspended any more and names the
    /// target. From then on going back would discard what that has written, and start the old version on it.
    pub(super) async fn is_released_by_others(&self) -> Result<bool, Failure> {
        if self.cx.plan.workflow != upgrade::WORKFLOW {
            return Ok(false);
        }
        for root in &self.inputs.roots {
            if self.is_lifted(root).await? && self.is_at_target(root).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_lifted(&self, root: &Root) -> Result<bool, Failure> {
        // Its parent lets it go when Git declares `suspend`.
        if root.declared && self.has_released_another() {
            return Ok(false);
        }
        let found = self.ports.delivery.suspension(&root.object).await?;
        Ok(found.is_some_and(|found| found.suspend != Some(true) && self.is_marked(root, &found)))
    }

    async fn is_at_target(&self, root: &Root) -> Result<bool, Failure> {
        let names = self.inputs.names_a_version(&root.object);
        if names && !matches!(self.spec_names_target(&root.object).await?, Observation::Done(_)) {
            return Ok(false);
        }
        Ok(match root.role {
            DeliveryRole::Release => names,
            DeliveryRole::Manifests => matches!(self.is_attempted(&root.object).await?, Observation::Done(_)),
        })
    }

    /// What has started since the data was cut, if anything has. Where the app was not stopped, something ran all the time.
    pub(super) async fn has_run(&self) -> Result<Option<String>, Failure> {
        if self.inputs.claims.is_empty() {
            return Ok(None);
        }
        if !self.inputs.stopped {
            return Ok(Some("the app was not stopped".into()));
        }
        match self.nothing_has_started(true).await {
            Ok(_) => Ok(None),
            Err(failure) if failure.code == "started-since-cut" => Ok(Some(failure.message)),
            Err(failure) => Err(failure),
        }
    }

    /// Why the way back is not taken away by an undo: the target may have run on the data, although this operation has released nothing.
    /// What is only suspended by us and shows the old version was started by somebody, and it is the old version's data.
    pub(super) async fn target_may_have_run(&self) -> Result<Option<Failure>, Failure> {
        if !self.may_be_committed() {
            return Ok(None);
        }
        let Some(ran) = self.has_run().await? else { return Ok(None) };
        let Some(why) = self.why_the_target().await? else { return Ok(None) };
        let message = format!("{why}, and {ran}: the target may have run on the data");
        let hint = "the copies and the commit stay: roll back with the data or without, or leave the new version";
        Ok(Some(Failure::permanent("target-may-have-run", message).with_hint(hint)))
    }

    /// Why a commit was kept, if one was.
    pub(super) fn why_the_commit_stays(&self) -> Option<Failure> {
        let mut commits = self.cx.journal.entries.iter().filter(|entry| entry.step.starts_with("commit/push/"));
        commits.find(|entry| entry.state == StepState::Kept)?.error.clone()
    }

    fn may_be_committed(&self) -> bool {
        let names = self.inputs.repositories.iter().map(|one| &one.name);
        names
            .into_iter()
            .any(|name| self.seen(&format!("commit/push/{name}"), "sha").is_some() || self.may_still_land(name))
    }

    /// The objects that should be suspended and are not. One that a later operation holds is not let go.
    pub(super) async fn let_go_by_others(&self) -> Result<Vec<&Root>, Failure> {
        let mut let_go = Vec::new();
        for root in &self.inputs.roots {
            // What this operation has let go itself, undoing, says nothing about others.
            let held = self.cx.journal.entry(&id("suspend", &root.object));
            if held.is_some_and(|entry| entry.state == StepState::Undone) {
                continue;
            }
            let found = self.ports.delivery.suspension(&root.object).await?;
            if found.is_none_or(|found| found.suspend != Some(true)) {
                let_go.push(root);
            }
        }
        Ok(let_go)
    }

    async fn why_the_target(&self) -> Result<Option<String>, Failure> {
        let inputs = &self.inputs;
        // A commit goes back where only the old version can have run. A copy stays: that has written since it was cut.
        let in_doubt = !matches!(self.action, AppStep::Commit { .. });
        for root in self.let_go_by_others().await? {
            if in_doubt || self.is_at_target(root).await? {
                return Ok(Some(format!("{} was let go by somebody else", root.object)));
            }
        }
        for workload in &inputs.workloads {
            let state = self.ports.workloads.state(&workload.object).await?;
            if state.is_some_and(|state| self.shows_target(&state.images)) {
                return Ok(Some(format!("{} has the template of the target", workload.object)));
            }
        }
        let pods = self.ports.workloads.pods(&inputs.app.namespace, &[], &inputs.claim_names()).await?;
        let of_target = pods.iter().find(|pod| inputs.has_data_of(pod) && self.shows_target(&pod.images));
        Ok(of_target.map(|pod| format!("{} is of the target", pod.object)))
    }

    fn shows_target(&self, images: &[(String, String)]) -> bool {
        let runs = |pin: &PinValue, container: &str, reference: &str| {
            image::belongs(pin, container, reference) && image::runs(pin, reference)
        };
        self.inputs.changes().any(|(from, to)| {
            images.iter().any(|(container, image)| runs(to, container, image) && !runs(from, container, image))
        })
    }
}
