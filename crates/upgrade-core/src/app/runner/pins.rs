//! Git, and everything between Git and the cluster that shows a version.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Work;
use crate::Failure;
use crate::app::build::deadlines;
use crate::app::message::fill;
use crate::engine::{Cause, Course, Direction, Observation, StepState};
use crate::ports::{Ancestry, Carrier, CarrierKind, CommitRequest, DeliveryRole, ObjectRef, Pin, PinValue, Repository};
use crate::version::or_no_version;

/// How long a server may go on with a push that nobody waits for any more: its hooks run on.
const LATE_PUSH: SignedDuration = SignedDuration::from_mins(5);
/// Noted of a push whose answer was never seen.
const UNANSWERED: &str = "unanswered";

impl Work<'_> {
    fn repository(&self, name: &str) -> Result<&Repository, Failure> {
        let found = self.inputs.repositories.iter().find(|repository| repository.name == name);
        found.ok_or_else(|| super::not_planned("repository", name))
    }

    /// The repositories whose commits the object shows.
    fn read_by(&self, object: &ObjectRef) -> impl Iterator<Item = &Repository> {
        let read: Vec<&Repository> =
            self.inputs.repositories.iter().filter(|one| self.inputs.reads(object, &one.name)).collect();
        read.into_iter()
    }

    /// The key under which a commit of this operation is found again.
    fn commit_key(&self, direction: Direction) -> String {
        match direction {
            Direction::Do => self.cx.plan.operation.clone(),
            Direction::Undo => format!("{}/revert", self.cx.plan.operation),
        }
    }

    fn changes_in(&self, repository: &str) -> Vec<(&PinValue, &PinValue)> {
        self.inputs.changes().filter(|(_, to)| to.pin.repository == repository).collect()
    }

    pub(super) async fn prepare_commit(&self, repository: &str) -> Result<Value, Failure> {
        self.gate().await?;
        let head = self.ports.git.head(&self.inputs.app, self.repository(repository)?).await?;
        Ok(json!({"head": head, "at": self.cx.now.to_string()}))
    }

    pub(super) async fn commit(&self, repository: &str, direction: Direction) -> Result<(), Failure> {
        let changes = self.changes_in(repository);
        let (expected, wanted): (Vec<_>, Vec<_>) = match direction {
            Direction::Do => changes.into_iter().map(|(from, to)| (from.value.clone(), to.clone())).unzip(),
            Direction::Undo => changes.into_iter().map(|(from, to)| (to.value.clone(), from.clone())).unzip(),
        };
        let remote = self.repository(repository)?;
        let template = remote.message_template.as_deref();
        let message = template.map_or_else(|| self.inputs.message.clone(), |text| fill(text, &self.inputs, repository));
        let message = match direction {
            Direction::Do => message,
            Direction::Undo => format!("Revert \"{}\"", message.lines().next().unwrap_or_default()),
        };
        let request = CommitRequest {
            repository: remote.clone(),
            changes: wanted,
            expected,
            message,
            operation: self.commit_key(direction),
        };
        self.ports.git.commit(&self.inputs.app, &request).await.map(|_| ())
    }

    pub(super) async fn is_committed(&self, repository: &str) -> Result<Observation, Failure> {
        // The attempt before this one was never answered, or its process died: nothing else would tell that later.
        let noted = self.cx.journal.evidence(&self.cx.step.id).get(UNANSWERED).is_some();
        let intended_at = self.intended("at").and_then(|at| at.parse().ok()).unwrap_or(self.cx.started_at());
        if !noted && self.cx.now > intended_at {
            return Ok(Observation::Pending {
                waiting_for: format!("an answer of {repository} about the commit"),
                look_again_in: SignedDuration::ZERO,
                sighted: Some(json!({UNANSWERED: true})),
            });
        }
        let key = self.commit_key(Direction::Do);
        let found = self.ports.git.find(&self.inputs.app, self.repository(repository)?, &key).await?;
        Ok(match found {
            Some(commit) => Observation::Done(json!({"sha": commit.sha, "parent": commit.parent})),
            None => Observation::absent(),
        })
    }

    /// Whether a push of this operation may still land: it was begun, and neither a refusal nor the commit was ever seen. Its
    /// time counts from the end of the operation, which is after every push.
    pub(super) fn may_still_land(&self, repository: &str) -> bool {
        let (id, journal) = (format!("commit/push/{repository}"), self.cx.journal);
        let Some(entry) = journal.entry(&id).filter(|entry| entry.begun && entry.state != StepState::Undone) else {
            return false;
        };
        if entry.evidence.get("sha").is_some() {
            return false;
        }
        let was_refused = matches!(
            &journal.course,
            Course::Back(Cause::StepFailed { step, failure })
                if *step == id && !failure.retryable && failure.code != "deadline-exceeded"
        );
        if was_refused && entry.evidence.get(UNANSWERED).is_none() {
            return false;
        }
        journal.finished_at.is_none_or(|end| self.cx.now.duration_since(end) < LATE_PUSH)
    }

    /// The revert is there, or nothing of ours is left to be reverted.
    pub(super) async fn is_reverted(&self, repository: &str) -> Result<Observation, Failure> {
        let app = &self.inputs.app;
        let remote = self.repository(repository)?;
        if self.ports.git.find(app, remote, &self.commit_key(Direction::Do)).await?.is_none() {
            if self.may_still_land(repository) {
                return Ok(Observation::pending(format!("a push that {repository} has never answered"), 1000));
            }
            return Ok(Observation::Done(json!({"neverPushed": true})));
        }
        let head = self.ports.git.head(app, remote).await?;
        let ours: Vec<PinValue> = self.changes_in(repository).into_iter().map(|(_, to)| to.clone()).collect();
        Ok(match self.showing_at(remote, &head, &ours).await? {
            Some(_) => Observation::absent(),
            None => Observation::Done(json!({"head": head})),
        })
    }

    /// The first of `values` that `commit` carries, as text.
    async fn showing_at(
        &self,
        repository: &Repository,
        commit: &str,
        values: &[PinValue],
    ) -> Result<Option<String>, Failure> {
        let values: Vec<&PinValue> = values.iter().filter(|value| value.pin.repository == repository.name).collect();
        if values.is_empty() {
            return Ok(None);
        }
        let pins: Vec<Pin> = values.iter().map(|value| value.pin.clone()).collect();
        let found = self.ports.git.pins(&self.inputs.app, repository, commit, &pins).await?;
        let shown = found.iter().zip(values).find(|(found, value)| found.value == value.value);
        Ok(shown.map(|(found, _)| format!("{} {}", found.pin.component, found.value)))
    }

    /// Whether the branch head, an artifact or a live object shows one of the values that change, and which.
    pub(super) async fn carrier_showing(&self, values: &[PinValue]) -> Result<Option<String>, Failure> {
        let app = &self.inputs.app;
        let changing: Vec<PinValue> =
            values.iter().filter(|value| self.inputs.changes().any(|(_, to)| to.pin == value.pin)).cloned().collect();
        let carriers = self.ports.delivery.carriers(app, &self.inputs.own, &self.inputs.sources, &changing).await?;
        for repository in self.inputs.repositories.iter().filter(|one| self.inputs.changes_in(&one.name)) {
            let head = self.ports.git.head(app, repository).await?;
            if let Some(shown) = self.showing_at(repository, &head, &changing).await? {
                return Ok(Some(format!("{shown} at the head of {}", repository.branch)));
            }
            let artifacts = carriers.iter().filter(|carrier| carrier.kind == CarrierKind::Artifact);
            for artifact in artifacts.filter(|artifact| self.inputs.reads(&artifact.object, &repository.name)) {
                let Some(commit) = artifact.shows.as_deref().filter(|commit| *commit != head) else { continue };
                if let Some(shown) = self.showing_at(repository, commit, &changing).await? {
                    return Ok(Some(format!("{shown} in the artifact of {}", artifact.object)));
                }
            }
        }
        for live in carriers.iter().filter(|carrier| carrier.kind == CarrierKind::LiveSpec) {
            let value = changing.iter().find(|value| value.pin.component == live.component);
            if let (Some(shows), Some(value)) = (&live.shows, value)
                && *shows == value.value
            {
                return Ok(Some(format!("{} {shows} in {}", live.component, live.object)));
            }
        }
        Ok(None)
    }

    pub(super) async fn no_carrier_shows_target(&self) -> Result<Observation, Failure> {
        let committed = self.inputs.repositories.iter().any(|one| self.begun(&format!("commit/push/{}", one.name)));
        if !committed {
            return Ok(Observation::Done(json!({"committed": false})));
        }
        // A leftover at once: what is undone after it must not wait.
        if let Some(late) = self.inputs.repositories.iter().find(|one| self.may_still_land(&one.name)) {
            let why = format!("a push that {} has never answered may still land", late.name);
            return Err(Failure::permanent("commit-not-undone", why).with_hint("it is looked for again by itself"));
        }
        if let Some(shows) = self.carrier_showing(&self.inputs.to).await? {
            return Ok(Observation::Absent(format!("{shows} to go away")));
        }
        Ok(match self.source_at_work().await? {
            Some(source) => Observation::Absent(format!("{source} to look again")),
            None => Observation::Done(json!({"committed": true})),
        })
    }

    /// A source that may be in the middle of a fetch which was begun before the commit was taken back. It has ended once a token of this
    /// step is answered, by whatever came of the next one.
    async fn source_at_work(&self) -> Result<Option<&ObjectRef>, Failure> {
        let asked = format!("{}/", self.cx.token());
        for source in &self.inputs.sources {
            if !self.read_by(source).any(|repository| self.inputs.changes_in(&repository.name)) {
                continue;
            }
            let found = self.ports.delivery.suspension(source).await?.filter(|found| found.suspend != Some(true));
            if found.is_some_and(|found| !found.handled.unwrap_or_default().starts_with(&asked)) {
                return Ok(Some(source));
            }
        }
        Ok(None)
    }

    /// Waits, once nothing shows a version any more that is undone, for those who may have it still: a parent that works all the time, in
    /// a run that has begun before; and what is let go now, in its cache.
    pub(super) async fn still_applies(&self, released: &ObjectRef) -> Result<Option<Observation>, Failure> {
        for parent in &self.inputs.shared {
            if let Some(waits) = self.is_behind(parent).await? {
                return Ok(Some(Observation::pending(waits, 1000)));
            }
        }
        let carriers = self.cx.journal.entry("commit/carriers").filter(|entry| entry.begun);
        let applies = self.inputs.root(released).is_some_and(|root| root.role == DeliveryRole::Manifests);
        let Some(carriers) = carriers.filter(|_| applies) else { return Ok(None) };
        // A person decides what becomes of a commit that is kept.
        if self.why_the_commit_stays().is_some() {
            return Ok(None);
        }
        // Since when nothing shows it is known only from that step: until then this one is left over, too.
        self.commit_is_undone()?;
        let settled = self.has_settled(carriers.finished_at.unwrap_or(self.cx.now));
        Ok((!matches!(settled, Observation::Done(_))).then_some(settled))
    }

    /// Whether a run of an object may still be at work with another commit than its source shows. Its runs follow each other, so there is
    /// none once it has tried that.
    async fn is_behind(&self, object: &ObjectRef) -> Result<Option<String>, Failure> {
        let read: Vec<&Repository> = self.read_by(object).filter(|one| self.inputs.changes_in(&one.name)).collect();
        if read.is_empty() {
            return Ok(None);
        }
        let found = self.ports.delivery.suspension(object).await?;
        if found.is_none_or(|found| found.suspend == Some(true)) {
            return Ok(None);
        }
        let attempted = self.ports.delivery.attempted(object).await?;
        let carriers =
            self.ports.delivery.carriers(&self.inputs.app, &self.inputs.own, &self.inputs.sources, &[]).await?;
        let is_read = |one: &Carrier| read.iter().any(|repository| self.inputs.reads(&one.object, &repository.name));
        let artifacts = carriers.iter().filter(|one| one.kind == CarrierKind::Artifact && is_read(one));
        let shown: Vec<&String> = artifacts.filter_map(|one| one.shows.as_ref()).collect();
        if attempted.as_ref().is_some_and(|attempted| shown.contains(&attempted)) {
            return Ok(None);
        }
        // It may have another source by now.
        for repository in &read {
            let head = self.ports.git.head(&self.inputs.app, repository).await?;
            if attempted.as_ref() == Some(&head) {
                return Ok(None);
            }
        }
        Ok(Some(match shown.first() {
            Some(commit) => format!("{object} to try {}", brief(commit)),
            None => format!("the source of {object} to have an artifact"),
        }))
    }

    /// Whether the caches of the delivery tool have followed what its sources show since then.
    pub(super) fn has_settled(&self, since: Timestamp) -> Observation {
        let rest = deadlines::CACHES.saturating_sub(self.cx.now.duration_since(since));
        if rest.is_positive() {
            let waiting_for = "the caches of the delivery tool to follow its sources".into();
            Observation::Pending { waiting_for, look_again_in: rest, sighted: None }
        } else {
            Observation::Done(json!({"since": since.to_string()}))
        }
    }

    /// The artifact holds our commit *and* our value: a later commit may have taken it away again.
    pub(super) async fn is_fetched(&self, source: &ObjectRef) -> Result<Observation, Failure> {
        let app = &self.inputs.app;
        let sources = std::slice::from_ref(source);
        let carriers = self.ports.delivery.carriers(app, &self.inputs.own, sources, &[]).await?;
        let artifact = carriers.iter().find(|one| one.kind == CarrierKind::Artifact && one.object == *source);
        let Some(commit) = artifact.and_then(|artifact| artifact.shows.clone()) else {
            return Ok(Observation::Absent(format!("{source} to fetch anything")));
        };
        for repository in self.read_by(source) {
            let Some(ours) = self.seen(&format!("commit/push/{}", repository.name), "sha") else { continue };
            match self.ports.git.ancestry(app, repository, &ours, &commit).await? {
                Ancestry::Contained => {}
                Ancestry::NotContained => {
                    return Ok(Observation::Absent(format!("{source} to fetch {}", brief(&ours))));
                }
                Ancestry::Unknown => {
                    return Ok(Observation::Absent(format!(
                        "it to be known whether {} holds {}",
                        brief(&commit),
                        brief(&ours)
                    )));
                }
            }
            self.still_ours(repository, &commit).await?;
        }
        Ok(Observation::Done(json!({"commit": commit})))
    }

    /// Refuses when a commit that contains ours carries another value: somebody has decided otherwise.
    pub(super) async fn still_ours(&self, repository: &Repository, commit: &str) -> Result<(), Failure> {
        let changes = self.changes_in(&repository.name);
        let pins: Vec<Pin> = changes.iter().map(|(_, to)| to.pin.clone()).collect();
        let found = self.ports.git.pins(&self.inputs.app, repository, commit, &pins).await?;
        match found.iter().zip(&changes).find(|(found, (_, to))| found.value != to.value) {
            None => Ok(()),
            Some((found, (_, to))) => Err(Failure::permanent(
                "superseded",
                format!(
                    "{} is {} at {}, not {}: somebody changed it",
                    to.pin.component,
                    found.value,
                    brief(commit),
                    to.value
                ),
            )
            .with_hint("decide which version is wanted, then ask anew")),
        }
    }

    /// The commits known to contain ours, among those that sources and manifests objects show.
    pub(super) async fn containing_commits(&self) -> Result<Vec<String>, Failure> {
        let app = &self.inputs.app;
        let carriers = self.ports.delivery.carriers(app, &self.inputs.own, &self.inputs.sources, &[]).await?;
        let artifacts = carriers.into_iter().filter(|one| one.kind == CarrierKind::Artifact);
        let mut shown: Vec<(ObjectRef, String)> = artifacts.filter_map(|one| Some((one.object, one.shows?))).collect();
        for object in self.manifests_objects() {
            shown.extend(self.ports.delivery.attempted(object).await?.map(|commit| (object.clone(), commit)));
        }
        // Each commit once, with the repositories that those who show it read.
        let mut commits: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (object, commit) in shown {
            commits.entry(commit).or_default().extend(self.read_by(&object).map(|repository| repository.name.as_str()));
        }
        let mut containing = Vec::new();
        for (commit, read) in commits {
            let mut contains = !read.is_empty() || self.inputs.changes().next().is_none();
            for repository in self.inputs.repositories.iter().filter(|one| read.contains(one.name.as_str())) {
                let Some(ours) = self.seen(&format!("commit/push/{}", repository.name), "sha") else { continue };
                if self.ports.git.ancestry(app, repository, &ours, &commit).await? == Ancestry::Contained {
                    self.still_ours(repository, &commit).await?;
                } else {
                    contains = false;
                }
            }
            if contains {
                containing.push(commit);
            }
        }
        Ok(containing)
    }

    fn manifests_objects(&self) -> impl Iterator<Item = &ObjectRef> {
        let held =
            self.inputs.roots.iter().filter(|root| root.role == DeliveryRole::Manifests).map(|root| &root.object);
        held.chain(&self.inputs.shared)
    }

    pub(super) async fn spec_names_target(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let carriers = self.ports.delivery.carriers(&self.inputs.app, &self.inputs.own, &[], &self.inputs.to).await?;
        let mut names = Vec::new();
        for live in carriers.iter().filter(|one| one.kind == CarrierKind::LiveSpec && one.object == *object) {
            let Some(wanted) = self.inputs.to.iter().find(|value| value.pin.component == live.component) else {
                continue;
            };
            match &live.shows {
                Some(shows) if *shows == wanted.value => names.push(format!("{} {shows}", live.component)),
                other => {
                    let seen = other.as_deref().map_or("nothing", or_no_version);
                    return Ok(Observation::Absent(format!(
                        "{object} to name {} {}: it names {seen}",
                        live.component, wanted.value
                    )));
                }
            }
        }
        if names.is_empty() {
            return Ok(Observation::Absent(format!("{object} to name a version")));
        }
        Ok(Observation::Done(json!({"names": names})))
    }

    pub(super) async fn is_attempted(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let Some(attempted) = self.ports.delivery.attempted(object).await? else {
            return Ok(Observation::Absent(format!("{object} to apply anything")));
        };
        for repository in self.read_by(object) {
            let Some(ours) = self.seen(&format!("commit/push/{}", repository.name), "sha") else { continue };
            if self.ports.git.ancestry(&self.inputs.app, repository, &ours, &attempted).await? != Ancestry::Contained {
                return Ok(Observation::Absent(format!("{object} to apply {}", brief(&ours))));
            }
        }
        Ok(Observation::Done(json!({"attempted": attempted})))
    }

    /// The same, by a run that was begun with the present spec. One that its parent has let go may still be at work with the spec of
    /// before: runs of one object follow each other, so its answer to this step, which began later, is of another run.
    pub(super) async fn has_attempted(&self, object: &ObjectRef) -> Result<Observation, Failure> {
        let seen = self.is_attempted(object).await?;
        let declared = self.inputs.root(object).is_some_and(|root| root.declared);
        if !declared || !self.inputs.names_a_version(object) || !matches!(seen, Observation::Done(_)) {
            return Ok(seen);
        }
        let handled = self.ports.delivery.suspension(object).await?.and_then(|found| found.handled);
        let asked = format!("{}/", self.cx.token());
        Ok(match handled.is_some_and(|handled| handled.starts_with(&asked)) {
            true => seen,
            false => Observation::Absent(format!("{object} to run with its newest spec")),
        })
    }

    pub(super) async fn poke(&self, object: &ObjectRef) -> Result<(), Failure> {
        self.ports.delivery.poke(object, &self.poke_token()).await
    }

    pub(super) async fn poke_parents(&self) -> Result<(), Failure> {
        let token = self.poke_token();
        for object in self.manifests_objects().chain(&self.inputs.chart_sources) {
            self.ports.delivery.poke(object, &token).await?;
        }
        Ok(())
    }

    pub(super) async fn poke_own(&self) -> Result<(), Failure> {
        let token = self.poke_token();
        for object in &self.inputs.own {
            self.ports.delivery.poke(object, &token).await?;
        }
        Ok(())
    }

    pub(super) async fn poke_all(&self) -> Result<(), Failure> {
        let token = self.poke_token();
        for object in &self.inputs.sources {
            self.ports.delivery.poke(object, &token).await?;
        }
        self.poke_parents().await
    }
}

/// A commit as people write it.
fn brief(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}
