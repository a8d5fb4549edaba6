//! Whole operations as a person and an operator make them: facts, preflight, plan, engine, a new process after each crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::builders::{release, release_pin, spec, substituted_pin, upgrade_to};
use super::rules::Running;
use super::{Fault, State, World, Write};
use crate::Failure;
use crate::app::after::{FollowUp, Situation, follow_up, sighting};
use crate::app::facts::{AppFacts, FactPorts, gather};
use crate::app::inherit::Operation;
use crate::app::preflight;
use crate::app::{AppInputs, AppPorts, AppRunner, AppSpec, AutoRollback, Consistency, RollbackAsk, rollback, upgrade};
use crate::engine::{
    Effect, Engine, EngineError, Journal, Observation, Outcome, Plan, Signals, StepContext, StepRunner, StepState, Tick,
};
use crate::ports::{Clock, JournalStore, ReclaimPolicy, RestorePointRecord, Workloads};

/// What somebody else does to the world.
pub(in crate::app::tests) type Meddle = fn(&mut State);

/// What goes wrong while an operation runs.
#[derive(Clone, Default)]
pub(in crate::app::tests) struct Trouble {
    /// Port calls, by their numbers.
    pub(in crate::app::tests) faults: Vec<(usize, Fault)>,
    /// Cancelled from this tick on.
    pub(in crate::app::tests) cancel_at: Option<usize>,
    /// Cancelled once this step is done.
    pub(in crate::app::tests) cancel_after: Option<&'static str>,
    /// Somebody does something once this step is done; before the first one when it is empty.
    pub(in crate::app::tests) meddle: Option<(&'static str, Meddle)>,
}

/// The runner, whose effects are noted when they are begun without the guard.
struct Watched<'a> {
    runner: AppRunner,
    world: &'a World,
}

#[async_trait]
impl StepRunner for Watched<'_> {
    fn workflows(&self) -> &'static [&'static str] {
        self.runner.workflows()
    }

    async fn prepare(&self, cx: StepContext<'_>) -> Result<Value, Failure> {
        self.runner.prepare(cx).await
    }

    async fn act(&self, cx: StepContext<'_>) -> Result<Effect, Failure> {
        {
            let mut state = self.world.state();
            if state.guard_lost {
                state.breach(format!("{} is done without the guard", cx.step.id));
            }
        }
        self.runner.act(cx).await
    }

    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure> {
        self.runner.observe(cx).await
    }
}

/// What an operation finds and puts back when it is undone: another may have left something, and lists that itself.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::app::tests) struct Found {
    holds: Vec<Option<String>>,
    suspends: Vec<Option<bool>>,
    frozen: bool,
    live: String,
    replicas: i32,
    policy: Option<ReclaimPolicy>,
}

impl Found {
    fn new(state: &State) -> Self {
        Self {
            holds: state.objects.iter().map(|one| one.held_by.clone()).collect(),
            suspends: state.objects.iter().map(|one| one.suspend).collect(),
            frozen: state.deployment.frozen,
            live: state.deployment.version.clone(),
            replicas: state.deployment.replicas,
            policy: state.storage.volume_of("data").map(|volume| volume.policy),
        }
    }
}

/// An operation that has ended.
pub(in crate::app::tests) struct Journey {
    pub(in crate::app::tests) world: Arc<World>,
    pub(in crate::app::tests) plan: Plan,
    pub(in crate::app::tests) journal: Journal,
}

/// Runs what never waits for anything outside.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    poll(future).expect("nothing here waits for anything outside")
}

/// `None` when it waits for ever: the process is dead.
fn poll<F: Future>(future: F) -> Option<F::Output> {
    let future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// How long leftovers are looked after.
fn give_up(journal: &Journal) -> Timestamp {
    journal.finished_at.unwrap_or(Timestamp::MAX).saturating_add(SignedDuration::from_mins(10)).unwrap()
}

impl World {
    pub(in crate::app::tests) fn spec(&self) -> AppSpec {
        let mut spec = spec();
        let setup = self.state().setup;
        if setup.release {
            spec.own = vec![release()];
            spec.pins = vec![release_pin()];
        }
        if setup.substitutes {
            spec.pins = vec![substituted_pin()];
        }
        spec.pins.extend(self.state().pins.clone());
        if setup.always {
            spec.auto_rollback = AutoRollback::Always;
        }
        if setup.online {
            spec.snapshots.consistency = Consistency::Online;
        }
        spec.snapshots.claims.clone_from(&self.state().named);
        spec.repositories[0].message_template.clone_from(&self.state().template);
        spec.snapshots.deadline = SignedDuration::from_secs(20);
        spec.health.timeout = SignedDuration::from_secs(20);
        spec.health.soak = SignedDuration::from_secs(2);
        spec
    }

    pub(in crate::app::tests) fn facts(
        &self,
        spec: &AppSpec,
        point: Option<&RestorePointRecord>,
        targets: Option<&BTreeMap<String, String>>,
    ) -> AppFacts {
        let ports = FactPorts {
            delivery: self,
            git: self,
            snapshots: self,
            workloads: self,
            apps: self,
            rights: self,
            renderer: self,
        };
        block_on(gather(ports, spec, point, targets)).unwrap()
    }

    /// An upgrade from 1.0.0 to 1.1.0.
    pub(in crate::app::tests) fn upgrade(self: &Arc<Self>, trouble: Trouble) -> Journey {
        let mut ask = upgrade_to("1.1.0");
        ask.app = self.spec();
        ask.app.versions.accepted_claim_changes = self.state().accepts.clone();
        let facts = self.facts(&ask.app, None, Some(&ask.targets));
        let verdict = preflight::upgrade(&ask, &facts);
        assert!(verdict.passed(), "{:?}", verdict.refusals);
        self.run(upgrade::plan(&ask, &facts).unwrap(), trouble)
    }

    fn run(self: &Arc<Self>, plan: Plan, trouble: Trouble) -> Journey {
        let inputs: AppInputs = serde_json::from_value(plan.inputs.clone()).unwrap();
        {
            let mut state = self.state();
            let volume = state.volume_name();
            state.found = Some(Found::new(&state));
            state.running = Some(Running {
                operation: plan.operation.clone(),
                rollback: (plan.workflow == rollback::WORKFLOW).then(|| inputs.restore.is_some()),
                from: inputs.from[0].value.clone(),
                to: inputs.to[0].value.clone(),
                stopped: inputs.stopped,
                soak: inputs.health.soak,
                volume,
                released: false,
            });
            state.calls.clear();
        }
        let journal = self.drive(&plan, trouble);
        let mut state = self.state();
        state.pass(SignedDuration::from_secs(3));
        state.running = None;
        drop(state);
        Journey { world: Arc::clone(self), plan, journal }
    }

    fn ports(self: &Arc<Self>) -> AppPorts {
        AppPorts {
            delivery: Arc::clone(self) as _,
            git: Arc::clone(self) as _,
            snapshots: Arc::clone(self) as _,
            workloads: Arc::clone(self) as _,
            health: Arc::clone(self) as _,
            apps: Arc::clone(self) as _,
            restore_points: Arc::clone(self) as _,
        }
    }

    /// Ticks and sleeps, with a new process after each crash, until nothing is left to be done.
    fn drive(self: &Arc<Self>, plan: &Plan, trouble: Trouble) -> Journal {
        let operation = plan.operation.as_str();
        let start = Journal::new(plan, self.now());
        block_on(self.save(operation, plan, &start, None)).unwrap();
        {
            let mut state = self.state();
            state.calls.clear();
            state.faults = trouble.faults;
        }
        let mut meddle = trouble.meddle;
        let mut journal = start;
        for tick in 0..3000 {
            let done = |step: &str| journal.entry(step).is_some_and(|entry| entry.state == StepState::Done);
            if let Some((_, act)) = meddle.take_if(|(step, _)| step.is_empty() || done(step)) {
                act(&mut self.state());
            }
            let cancel = trouble.cancel_after.is_some_and(done) || trouble.cancel_at.is_some_and(|at| at <= tick);
            let runner = Watched { runner: AppRunner::new(self.ports()), world: self };
            let engine = Engine { store: &**self, runner: &runner, guard: &**self, clock: &**self };
            match poll(engine.tick(operation, Signals { cancel, let_go: None })) {
                Some(Ok(Tick::Progressed)) => {}
                Some(Ok(Tick::Wait(until))) => self.pass_until(until),
                Some(Ok(Tick::Ended(_, Some(until)))) if until < give_up(&journal) => self.pass_until(until),
                Some(Ok(Tick::Ended(..))) => break,
                Some(Err(EngineError::Store(_))) => self.state().pass(SignedDuration::from_secs(1)),
                Some(Err(EngineError::GuardLost(_))) => {
                    let mut state = self.state();
                    state.guard_lost = false;
                    state.pass(SignedDuration::from_secs(1));
                }
                Some(Err(error)) => panic!("{error}"),
                None => {
                    let mut state = self.state();
                    assert!(state.crashed, "a tick waits for ever");
                    state.crashed = false;
                    state.pass(SignedDuration::from_secs(3));
                }
            }
            journal = block_on(self.journals.load(operation)).unwrap().unwrap().journal;
        }
        let mut state = self.state();
        state.faults.clear();
        state.guard_lost = false;
        drop(state);
        journal
    }

    fn pass_until(&self, until: Timestamp) {
        let mut state = self.state();
        let pause = until.duration_since(state.now).max(SignedDuration::from_millis(1));
        state.pass(pause);
    }
}

impl Journey {
    pub(in crate::app::tests) fn inputs(&self) -> AppInputs {
        serde_json::from_value(self.plan.inputs.clone()).unwrap()
    }

    pub(in crate::app::tests) fn outcome(&self) -> &Outcome {
        self.journal.outcome.as_ref().unwrap_or_else(|| panic!("it never ended: {:#?}", self.journal.entries.last()))
    }

    /// The code of the failure that ended it or turned it back; empty when there was none.
    pub(in crate::app::tests) fn failure(&self) -> String {
        match self.outcome() {
            Outcome::Failed { failure, .. } | Outcome::Undone(crate::engine::Cause::StepFailed { failure, .. }) => {
                failure.code.clone()
            }
            Outcome::Succeeded | Outcome::LetGo { .. } | Outcome::Undone(crate::engine::Cause::Cancelled) => {
                String::new()
            }
        }
    }

    pub(in crate::app::tests) fn calls(&self) -> Vec<&'static str> {
        self.world.state().calls.clone()
    }

    /// What the operator would do now.
    pub(in crate::app::tests) fn follow_up(&self) -> FollowUp {
        let inputs = self.inputs();
        let pods = block_on(self.world.pods("notes", &inputs.watched, &inputs.claim_names())).unwrap();
        let seen = sighting(&self.plan, &self.journal, &inputs, &pods);
        let restorable =
            self.world.state().points.get(&inputs.restore_point).is_some_and(|point| point.void.is_empty());
        let policy = inputs.auto_rollback;
        follow_up(self.outcome(), Situation { policy, seen, restorable, taken_at: "then", refused: false })
    }

    /// The rollback of this upgrade, with its data or without, as a person asks for it who takes the loss.
    pub(in crate::app::tests) fn roll_back(&self, restore_data: bool, trouble: Trouble) -> Journey {
        self.roll_back_as(restore_data, trouble, |_| {})
    }

    /// The rollback that nobody has asked for.
    pub(in crate::app::tests) fn roll_back_unasked(&self, trouble: Trouble) -> Journey {
        self.roll_back_as(true, trouble, |ask| {
            ask.acknowledged_loss_since = None;
            ask.loses_writes = false;
        })
    }

    fn roll_back_as(&self, restore_data: bool, trouble: Trouble, change: fn(&mut RollbackAsk)) -> Journey {
        let world = &self.world;
        let inputs = self.inputs();
        let point = world.state().points[&inputs.restore_point].clone();
        let as_left = Operation { plan: &self.plan, journal: &self.journal, inputs: &inputs }.as_left();
        let mut ask = RollbackAsk {
            operation: "9a8b7c6d-op".into(),
            name: "notes-1-rollback".into(),
            app: world.spec(),
            acknowledged_loss_since: Some(point.taken_at),
            restore_point: point.clone(),
            restore_data,
            loses_writes: true,
            block: true,
            reason: String::new(),
            only_from: inputs.to.clone(),
            take_over: vec![self.plan.operation.clone()],
            before: Some(inputs.clone()),
            inherited: vec![as_left],
        };
        change(&mut ask);
        let facts = world.facts(&ask.app, Some(&point), None);
        let verdict = preflight::rollback(&ask, &facts);
        assert!(verdict.passed(), "{:?}", verdict.refusals);
        world.run(rollback::plan(&ask, &facts).unwrap(), trouble)
    }

    /// Everything that is wrong with how it went and how it ended.
    pub(in crate::app::tests) fn faults(&self) -> Vec<String> {
        let state = self.world.state();
        let inputs = self.inputs();
        let mut wrong = state.breaches.clone();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("at the end: {what}"));
            }
        };
        let version = match self.outcome() {
            Outcome::Failed { .. } => {
                let listed = self.journal.leftovers(&self.plan);
                let held = state.objects.iter().any(|one| one.held_by.is_some());
                must(!held || listed.iter().any(|left| left.what.contains("suspended")), "a suspension is not listed");
                let stopped = state.deployment.replicas == 0;
                must(!stopped || listed.iter().any(|left| left.what.contains("stopped")), "a stop is not listed");
                return wrong;
            }
            Outcome::Succeeded => &inputs.to[0].value,
            Outcome::Undone(_) | Outcome::LetGo { .. } => &inputs.from[0].value,
        };
        let undone = matches!(self.outcome(), Outcome::Undone(_));
        must(state.git.head().version == *version, "the head carries another version");
        let now = Found::new(&state);
        // A rollback begins in what a failed upgrade has left.
        let found = state.found.as_ref().filter(|_| undone && self.plan.workflow == rollback::WORKFLOW);
        let put_back = |same: fn(&Found, &Found) -> bool| found.is_some_and(|found| same(found, &now));
        must(now.live == *version || put_back(|a, b| a.live == b.live), "another version is live");
        // A hold stays, with all that waits for it, while anything shows the version that the data is not of: when it was held
        // before, or when the version that goes away with the rollback's commit was live before that. Then it is listed.
        let left = self.journal.leftovers(&self.plan);
        let held = put_back(|found, now| found.holds.iter().zip(&now.holds).all(|(a, b)| a.is_some() || b.is_none()));
        let live = found.is_some_and(|found| inputs.restore.is_none() && found.live == inputs.to[0].value);
        let stays = (held || live) && left.iter().any(|left| left.what.contains("suspended"));
        must(left.is_empty() || stays, &format!("left over: {left:?}"));
        let as_found = now.suspends[1] == inputs.roots.last().unwrap().as_found;
        must(as_found || put_back(|a, b| a.suspends == b.suspends) || stays, "suspend is not as it was found");
        let free = now.holds.iter().all(Option::is_none);
        must(free || put_back(|a, b| a.holds == b.holds) || stays, "a hold is left");
        must(!now.frozen || put_back(|a, b| a.frozen == b.frozen), "the workload is still kept from being applied");
        let deletes = now.policy == Some(ReclaimPolicy::Delete);
        must(deletes || put_back(|a, b| a.policy == b.policy), "the reclaim policy is not as found");
        must(now.replicas == 2 || put_back(|a, b| a.replicas == b.replicas), "the replicas are not as found");
        let claim = state.storage.volume_of("data");
        let helpers = state.storage.claims.keys().filter(|name| name.starts_with("windlass-")).count();
        must(helpers == 0, "a helper claim is left");
        let operation = &self.plan.operation;
        if undone {
            let snapshots = state.storage.snapshots.values().any(|one| one.operation == *operation);
            must(!snapshots, "a snapshot of what was undone is left");
            let points = state.points.values().filter(|point| point.operation == *operation);
            must(points.into_iter().all(|point| !point.void.is_empty()), "its restore point can still be used");
        }
        let data: Vec<&Write> = claim.iter().flat_map(|volume| volume.data.iter().chain(&volume.dirty)).collect();
        let foreign = data.iter().any(|write| write.version.as_str() > version.as_str());
        must(!foreign || inputs.restore.is_none() && self.plan.workflow == rollback::WORKFLOW, "newer data is left");
        let kept = |write: &&Write| match &inputs.restore {
            Some(point) if !undone => write.version == *version && write.at <= point.taken_at,
            _ => true,
        };
        let lost = state.storage.acknowledged.iter().filter(kept).any(|write| !data.contains(&write));
        must(!lost, "a write that somebody relied on is lost");
        wrong
    }

    /// The end, without names that depend on how it was reached.
    pub(in crate::app::tests) fn end(&self) -> String {
        let state = self.world.state();
        let outcome = match self.outcome() {
            Outcome::Succeeded => "succeeded".to_owned(),
            Outcome::Undone(cause) => format!("undone {cause:?}"),
            Outcome::LetGo { why } => format!("let go {why}"),
            Outcome::Failed { step, failure } => format!("failed {step} {}", failure.code),
        };
        let keys: Vec<String> = state.git.commits.iter().map(|commit| commit.key.clone().unwrap_or_default()).collect();
        let volumes: Vec<_> = state.storage.volumes.values().map(|volume| volume.policy).collect();
        let contents: Vec<_> = state.storage.contents.values().map(|content| content.policy).collect();
        let points: Vec<_> = state.points.values().map(|point| (&point.name, &point.void)).collect();
        let blocked: Vec<&String> = state.blocked.iter().map(|one| &one.version).collect();
        let current: Vec<&String> = state.current.iter().map(|one| &one.value).collect();
        format!(
            "{outcome}; {keys:?}; live {} x{}; {volumes:?} {contents:?} {points:?} {blocked:?} {current:?}",
            state.deployment.version, state.deployment.replicas
        )
    }
}
