//! What a plan of this workflow stores as its inputs, and the parts that upgrades and rollbacks share.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::facts::AppFacts;
use super::{AppStep, AutoRollback, HealthPolicy, Reader, stage};
use crate::engine::Step;
use crate::ports::{
    AppRef, ClaimFacts, DeliveryFacts, DeliveryObject, DeliveryRole, HeadCommit, ObjectRef, PinValue, Repository,
    RestorePointRecord, WorkloadKind,
};

/// A delivery object that the operation suspends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// The object.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// What it does.
    pub role: DeliveryRole,
    /// Whether it is one of the app's own.
    pub own: bool,
    /// `spec.suspend` to be put back; absent is not `false`.
    pub as_found: Option<bool>,
    /// Whether an earlier operation of this app held it: then a version that the data does not belong to may be waiting in Git.
    pub adopted: bool,
    /// Whether Git declares its `suspend`: then its parent lets it go as soon as that is resumed itself.
    #[serde(default)]
    pub declared: bool,
}

/// A workload that the operation stops and puts back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWorkload {
    /// The object.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// Its kind.
    pub kind: WorkloadKind,
    /// Replicas to put back.
    pub replicas: i32,
    /// A CronJob's `suspend` to put back.
    pub suspend: Option<bool>,
    /// Images of its template as found, `(container, image)`.
    pub images: Vec<(String, String)>,
    /// Whether one of the app's own delivery objects delivers it.
    pub delivered: bool,
    /// Whether the target does not have it any more, which a person has accepted: it is stopped and not put back.
    #[serde(default)]
    pub removed: bool,
}

/// All resolved inputs of an app plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInputs {
    /// The app.
    pub app: AppRef,
    /// Name of the request.
    pub request: String,
    /// The app's own delivery objects.
    pub own: Vec<ObjectRef>,
    /// What is suspended, parents first.
    pub roots: Vec<Root>,
    /// Parents that must keep running meanwhile: held shared.
    pub shared: Vec<ObjectRef>,
    /// Git sources of the chain that fetch one of the repositories.
    pub sources: Vec<ObjectRef>,
    /// Who shows commits of which repository.
    #[serde(default)]
    pub readers: Vec<Reader>,
    /// Where release objects take their charts from: asked to look again before a release, or a new chart stays unknown.
    pub chart_sources: Vec<ObjectRef>,
    /// Repositories.
    pub repositories: Vec<Repository>,
    /// What the pins carry at the start.
    pub from: Vec<PinValue>,
    /// What they shall carry, in the same order.
    pub to: Vec<PinValue>,
    /// What is stopped; empty when nothing is.
    pub workloads: Vec<PlannedWorkload>,
    /// The app's own workloads, whose health counts.
    pub watched: Vec<ObjectRef>,
    /// Those whose health does not: at 0 replicas as found, or nothing that could be judged.
    #[serde(default)]
    pub unwatched: Vec<ObjectRef>,
    /// Components whose images only those have: health cannot tell their version.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// The app's claims as found.
    pub claims: Vec<ClaimFacts>,
    /// Whether the app is stopped.
    pub stopped: bool,
    /// The heads that `from` was read at.
    #[serde(default)]
    pub heads: Vec<HeadCommit>,
    /// Name of the restore point: to be made by an upgrade, to be used by a rollback; empty without data.
    pub restore_point: String,
    /// What a rollback restores; `None` when it keeps the data, and for upgrades.
    pub restore: Option<RestorePointRecord>,
    /// When the app counts as healthy.
    pub health: HealthPolicy,
    /// What happens when it fails after its release.
    pub auto_rollback: AutoRollback,
    /// Operations whose holds may be taken over.
    pub take_over: Vec<String>,
    /// First line and body of the commit message.
    pub message: String,
    /// Why, for blocked versions.
    pub reason: String,
    /// What the target changes about claims and workloads, as a person has accepted it.
    #[serde(default)]
    pub accepted: Vec<String>,
    /// Whether data is restored and nobody has acknowledged a loss: then a pod that has served stops it while it can be undone.
    #[serde(default)]
    pub unacknowledged: bool,
}

impl AppInputs {
    /// The pins that change: target values, with those they replace.
    pub fn changes(&self) -> impl Iterator<Item = (&PinValue, &PinValue)> {
        self.from.iter().zip(&self.to).filter(|(from, to)| from.value != to.value)
    }

    /// How long one stage of the delivery may take: the app is stopped meanwhile.
    fn delivery_deadline(&self) -> SignedDuration {
        self.health.timeout.min(deadlines::DELIVERY)
    }

    /// How long a held object's spec may take to name the version: the object above it may still wait for the health of what it applied
    /// last, and applies nothing before that ends.
    fn spec_deadline(&self) -> SignedDuration {
        self.delivery_deadline().max(deadlines::HEALTH_CHECK)
    }

    /// Names of the claims.
    pub fn claim_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.claims.iter().map(|claim| claim.name.clone()).collect();
        for volume in self.restore.iter().flat_map(|point| &point.volumes) {
            if !names.contains(&volume.claim) {
                names.push(volume.claim.clone());
            }
        }
        names
    }

    /// The claim as found.
    pub fn claim(&self, name: &str) -> Option<&ClaimFacts> {
        self.claims.iter().find(|claim| claim.name == name)
    }

    /// The planned workload.
    pub fn workload(&self, object: &ObjectRef) -> Option<&PlannedWorkload> {
        self.workloads.iter().find(|workload| workload.object == *object)
    }

    /// Whether that object itself shows a pin.
    pub fn names_a_version(&self, object: &ObjectRef) -> bool {
        self.to.iter().any(|value| value.pin.shows_in(object))
    }

    /// The suspended object.
    pub fn root(&self, object: &ObjectRef) -> Option<&Root> {
        self.roots.iter().find(|root| root.object == *object)
    }
}

/// Deadlines of steps that nobody configures, generous enough for what they wait for.
pub(super) mod deadlines {
    use jiff::SignedDuration;

    /// A barrier waits for a running Helm action, whose own timeout is 5 minutes unless configured.
    pub(crate) const BARRIER: SignedDuration = SignedDuration::from_mins(10);
    /// One write, retried.
    pub(crate) const WRITE: SignedDuration = SignedDuration::from_mins(2);
    /// A fetch or an application by the delivery tool, retried by its own rules.
    pub(crate) const DELIVERY: SignedDuration = SignedDuration::from_mins(5);
    /// The caches of a controller follow the API server within a fraction of a second, by their watches; many times that.
    pub(crate) const CACHES: SignedDuration = SignedDuration::from_secs(5);
    /// kustomize-controller waits at least half a minute for the health of what it has applied; twice that, with a margin.
    pub(crate) const HEALTH_CHECK: SignedDuration = SignedDuration::from_secs(75);
}

/// The fewest delivery objects whose suspension holds the app, parents first.
///
/// A release object alone, unless Git declares its `suspend`: then its parent would undo the suspension and must be suspended
/// too, and so on upwards.
pub fn roots(facts: &DeliveryFacts, take_over: &[String]) -> Vec<Root> {
    let mut held: Vec<&DeliveryObject> = Vec::new();
    for own in facts.objects.iter().filter(|object| object.own) {
        let mut object = Some(own);
        while let Some(current) = object {
            if !held.iter().any(|other| other.object == current.object) {
                held.push(current);
            }
            object = current
                .parent
                .as_ref()
                .filter(|_| current.suspend_declared)
                .and_then(|parent| facts.objects.iter().find(|other| other.object == *parent));
        }
    }
    // `facts.objects` has roots first, so its order is the order to suspend in.
    facts
        .objects
        .iter()
        .filter(|object| held.iter().any(|other| other.object == object.object))
        .map(|object| {
            let adopted = object.held_by.as_ref().is_some_and(|holder| take_over.contains(holder));
            let as_found = if adopted { object.held_as_found.unwrap_or(object.suspend) } else { object.suspend };
            Root {
                object: object.object.clone(),
                uid: object.uid.clone(),
                role: object.role,
                own: object.own,
                as_found,
                adopted,
                declared: object.suspend_declared,
            }
        })
        .collect()
}

/// Where the app's release objects take their charts from.
pub(super) fn chart_sources(facts: &DeliveryFacts) -> Vec<ObjectRef> {
    let releases = facts.objects.iter().filter(|object| object.own && object.role == DeliveryRole::Release);
    let mut sources: Vec<ObjectRef> = releases.filter_map(|object| object.source.clone()).collect();
    sources.sort();
    sources.dedup();
    sources
}

/// The parents that are not suspended themselves but must keep running.
pub(super) fn shared(facts: &DeliveryFacts, roots: &[Root]) -> Vec<ObjectRef> {
    facts
        .objects
        .iter()
        .filter(|object| !roots.iter().any(|root| root.object == object.object))
        .map(|object| object.object.clone())
        .collect()
}

/// The heads of the repositories, as they were read together with the pins.
pub(super) fn heads(facts: &AppFacts) -> Vec<HeadCommit> {
    let heads = facts.repositories.iter();
    heads.map(|one| HeadCommit { repository: one.repository.name.clone(), sha: one.head.clone() }).collect()
}

/// A step's id, from its verb and what it is about.
pub(super) fn id(verb: &str, about: &ObjectRef) -> String {
    format!("{verb}/{}/{}/{}", about.kind.to_lowercase(), about.namespace, about.name)
}

/// Suspends every root, parents first.
pub(super) fn suspend_steps(inputs: &AppInputs) -> Vec<Step> {
    inputs
        .roots
        .iter()
        .map(|root| {
            let step = AppStep::Suspend { root: root.object.clone() };
            Step::new(
                id("suspend", &root.object),
                format!("suspend {}", root.object),
                step.to_value(),
                deadlines::BARRIER,
            )
            .undone_by(format!("resume {}", root.object))
            .holding(format!("{} suspended", root.object))
            .outside()
        })
        .collect()
}

/// Stops every workload and waits until nothing holds a claim.
pub(super) fn stop_steps(inputs: &AppInputs, deadline: SignedDuration) -> Vec<Step> {
    if inputs.workloads.is_empty() {
        return Vec::new();
    }
    let mut steps: Vec<Step> = inputs
        .workloads
        .iter()
        .map(|workload| {
            let step = AppStep::Stop { workload: workload.object.clone() };
            Step::new(
                id("stop", &workload.object),
                format!("stop {}", workload.object),
                step.to_value(),
                deadlines::WRITE,
            )
            .undone_by(format!("start {} again", workload.object))
            .holding(format!("{} stopped", workload.object))
        })
        .collect();
    let title = "wait until no pod holds a claim and no volume is mounted";
    steps.push(Step::new("stop/wait", title, AppStep::AwaitStopped.to_value(), deadline));
    steps
}

/// From a pushed commit (if there is one to make) to running pods: commit, fetch, release in the order that starts nothing too
/// early, put replicas back.
pub(super) fn commit_and_release_steps(inputs: &AppInputs, release_is_irrevocable: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let commits = inputs.changes().next().is_some();
    if commits {
        for root in &inputs.roots {
            let step = AppStep::Stage { root: root.object.clone(), stage: stage::COMMITTING.into() };
            let title = format!("write on {} that a version is being committed", root.object);
            steps.push(
                Step::new(id("stage", &root.object), title, step.to_value(), deadlines::WRITE)
                    .undone_by(format!("write on {} that nothing is committed any more", root.object)),
            );
        }
        steps.push(
            Step::new(
                "commit/carriers",
                "note where the version shows",
                AppStep::Carriers.to_value(),
                deadlines::WRITE,
            )
            .undone_by("wait until no source and no live object shows the version any more"),
        );
        for repository in &inputs.repositories {
            if !inputs.changes_in(&repository.name) {
                continue;
            }
            let step = AppStep::Commit { repository: repository.name.clone() };
            let title = format!("commit and push the version to {}", repository.name);
            let id = format!("commit/push/{}", repository.name);
            steps.push(
                Step::new(id, title, step.to_value(), deadlines::WRITE)
                    .undone_by(format!("revert the commit in {}", repository.name)),
            );
        }
        let shows_one = |source: &&ObjectRef| {
            let mut written = inputs.repositories.iter().filter(|one| inputs.changes_in(&one.name));
            written.any(|one| inputs.reads(source, &one.name))
        };
        for source in inputs.sources.iter().filter(shows_one) {
            let step = AppStep::Fetch { source: source.clone() };
            let title = format!("wait until {source} has fetched the commit");
            steps.push(Step::new(id("release/fetch", source), title, step.to_value(), inputs.delivery_deadline()));
        }
    }
    steps.extend(release_steps(inputs, release_is_irrevocable));
    steps
}

fn release_steps(inputs: &AppInputs, irrevocable: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let plain = inputs.roots.iter().any(|root| root.own && root.role == DeliveryRole::Manifests);
    let frozen: Vec<&PlannedWorkload> =
        if plain { inputs.workloads.iter().filter(|workload| workload.delivered).collect() } else { Vec::new() };
    for workload in &frozen {
        let step = AppStep::Freeze { workload: workload.object.clone() };
        let title = format!("keep {} from being applied", workload.object);
        steps.push(
            Step::new(id("release/freeze", &workload.object), title, step.to_value(), deadlines::WRITE)
                .undone_by(format!("let {} be applied again", workload.object))
                .holding(format!("{} kept from being applied", workload.object)),
        );
    }
    // Its parent lets such a release go in the very write that brings the version, and would bring the one before if its cache were
    // behind. Kept from being applied it cannot be: a parent that waits for its health would wait in vain.
    if inputs.roots.iter().any(|root| root.own && root.role == DeliveryRole::Release && root.declared) {
        let title = "wait until the caches of the delivery tool have followed its sources";
        steps.push(Step::new("release/settle", title, AppStep::Settle.to_value(), deadlines::WRITE));
    }
    let mut passed = !irrevocable;
    for root in &inputs.roots {
        // Let go before its parent has applied the commit, it would release what its spec named before. One that shows no pin names
        // no version that could be waited for.
        if root.own && inputs.names_a_version(&root.object) {
            let step = AppStep::AwaitSpec { object: root.object.clone(), parent: None };
            let title = format!("wait until the spec of {} names the version", root.object);
            steps.push(Step::new(id("release/spec", &root.object), title, step.to_value(), inputs.spec_deadline()));
        }
        let step = AppStep::Resume { root: root.object.clone() };
        let mut resume = Step::new(
            id("release/resume", &root.object),
            format!("resume {}", root.object),
            step.to_value(),
            deadlines::WRITE,
        )
        .releasing(id("suspend", &root.object));
        // The first one may create a pod of the target, also when it is a parent: a parent is only held because Git declares
        // `suspend` below it, so it lets go of what is below as soon as it works again.
        if !passed {
            resume = resume.irrevocable();
            passed = true;
        }
        steps.push(resume);
        if root.own && root.role == DeliveryRole::Manifests {
            let step = AppStep::AwaitAttempt { object: root.object.clone() };
            let title = format!("wait until {} works on the commit", root.object);
            // What its parent has let go is asked for a run of its own, and a run may wait for health.
            let runs_again = root.declared && inputs.names_a_version(&root.object);
            let deadline = if runs_again { inputs.health.timeout } else { inputs.delivery_deadline() };
            steps.push(Step::new(id("release/attempt", &root.object), title, step.to_value(), deadline));
        }
    }
    for workload in &frozen {
        let step = AppStep::Unfreeze { workload: workload.object.clone() };
        let title = format!("let {} be applied", workload.object);
        steps.push(
            Step::new(id("release/unfreeze", &workload.object), title, step.to_value(), deadlines::WRITE)
                .releasing(id("release/freeze", &workload.object)),
        );
    }
    for workload in inputs.workloads.iter().filter(|workload| !workload.removed) {
        let step = AppStep::PutBack { workload: workload.object.clone() };
        let title = format!("put {} back to {} replicas", workload.object, workload.replicas);
        steps.push(
            Step::new(id("release/start", &workload.object), title, step.to_value(), inputs.health.timeout)
                .releasing(id("stop", &workload.object)),
        );
    }
    steps
}

/// Verify and soak.
pub(super) fn verify_steps(inputs: &AppInputs) -> Vec<Step> {
    let health = &inputs.health;
    let mut healthy = Step::new(
        "verify/healthy",
        "wait until the commit runs and is healthy",
        AppStep::Verify.to_value(),
        health.timeout,
    );
    // What the target does not have stays stopped for good.
    for workload in inputs.workloads.iter().filter(|workload| workload.removed) {
        healthy = healthy.releasing(id("stop", &workload.object));
    }
    let mut steps = vec![healthy];
    if health.soak.is_positive() {
        let deadline = health.soak.saturating_add(health.timeout);
        let title = format!("wait until it has stayed healthy for {}", crate::duration::format(health.soak));
        steps.push(Step::new("verify/soak", title, AppStep::Soak.to_value(), deadline));
    }
    steps
}

/// The first eight characters of an operation's UID that may stand in names.
pub(super) fn short(operation: &str) -> String {
    operation.chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>().to_lowercase()
}

/// A deterministic object name of at most 63 characters: `prefix-<short>-about`, cut with a hash when it would be longer.
pub(super) fn derived_name(prefix: &str, operation: &str, about: &str) -> String {
    use sha2::{Digest, Sha256};
    let name = if about.is_empty() {
        format!("{prefix}-{}", short(operation))
    } else {
        format!("{prefix}-{}-{about}", short(operation))
    };
    if name.len() <= 63 {
        return name;
    }
    let digest = Sha256::digest(name.as_bytes());
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let head: String = name.chars().take(54).collect();
    format!("{}-{hash}", head.trim_end_matches(['-', '.']))
}

/// Whether two operations must not run at the same time: one suspends what the other suspends or needs running.
pub fn collide(one: &AppInputs, other: &AppInputs) -> bool {
    let held = |inputs: &AppInputs, object: &ObjectRef| inputs.roots.iter().any(|root| root.object == *object);
    one.app == other.app
        || one.roots.iter().any(|root| held(other, &root.object) || other.shared.contains(&root.object))
        || other.roots.iter().any(|root| one.shared.contains(&root.object))
}
