//! A small model of what app operations work on: Git, Flux, volumes, pods and a store, on a clock of its own.
//!
//! Everything is in one [`State`] that only changes inside a port call or while the clock moves. Each port call is counted, and
//! any of them can be made to go wrong. What must hold at every instant is checked by [`rules`] as the model moves; a breach is
//! noted, not acted on, so that a test sees all of them.

mod delivery;
mod drive;
mod flux;
mod git;
mod pods;
mod ports;
mod rules;
mod storage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

pub(super) use drive::{Journey, Meddle, Trouble};
pub(super) use flux::Object;
pub(super) use pods::{Behaviour, Cron};
pub(super) use storage::Write;

use crate::Failure;
use crate::engine::{GuardState, Journal, MemoryStore, Plan};
use crate::ports::{
    BlockedVersion, Clock, HealthReport, JournalStore, Piece, Pin, PinValue, RestorePointRecord, Revision, SaveError,
    Stored, WorkloadFacts,
};

/// An app by a HelmRelease, as simple as it can be.
pub(super) const RELEASE: Setup = Setup {
    release: true,
    declares_suspend: false,
    declares_replicas: false,
    as_found: None,
    online: false,
    bootstrap: false,
    always: false,
    substitutes: false,
};
/// The same by plain manifests.
pub(super) const PLAIN: Setup = Setup { release: false, ..RELEASE };

/// What happens to one port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies before the call has an effect.
    CrashBefore,
    /// The process dies after it, before it knows.
    CrashAfter,
    /// No answer, no effect; trying again helps.
    Unreachable,
    /// The effect is made, and the answer is lost.
    ReplyLost,
    /// Refused for good, no effect.
    Refused,
    /// It works, and the process loses what it must hold to act.
    GuardLost,
}

/// How the app is delivered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Setup {
    /// By a release below a root; else by plain manifests below one.
    pub(super) release: bool,
    /// Git declares `spec.suspend` of the app's own object, so that its parent must be held too.
    pub(super) declares_suspend: bool,
    /// The manifest says how many replicas there are.
    pub(super) declares_replicas: bool,
    /// `spec.suspend` of the app's own object as found.
    pub(super) as_found: Option<bool>,
    /// Snapshots are taken while the app runs.
    pub(super) online: bool,
    /// The root is applied from a repository of its own, which the app does not name.
    pub(super) bootstrap: bool,
    /// What failed is rolled back whatever it loses.
    pub(super) always: bool,
    /// The app's own Kustomization carries the version itself, and substitutes it in what it applies.
    pub(super) substitutes: bool,
}

/// The whole model.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) setup: Setup,
    pub(super) now: Timestamp,
    /// What each port call was, in order, since counting began.
    pub(super) calls: Vec<&'static str>,
    /// The calls that go wrong, by their numbers.
    pub(super) faults: Vec<(usize, Fault)>,
    pub(super) crashed: bool,
    pub(super) guard_lost: bool,
    /// What somebody does right after the next call of that name.
    pub(super) after: Option<(&'static str, Meddle)>,
    pub(super) git: git::Git,
    pub(super) source: flux::Source,
    /// The root and the app's own object, in this order.
    pub(super) objects: Vec<Object>,
    /// How long the latter works at a time.
    own_takes: SignedDuration,
    pub(super) deployment: pods::Deployment,
    pub(super) pods: Vec<pods::Pod>,
    /// Whether there is also a pod without the data, always ready.
    pub(super) frontend: bool,
    /// How a workload without data is that only 1.1.0 has, if it has one.
    pub(super) worker: Option<HealthReport>,
    /// A CronJob that mounts the data, if there is one.
    pub(super) cron: Option<Cron>,
    /// Workloads without data that are delivered and never have a pod.
    pub(super) aside: Vec<WorkloadFacts>,
    /// Until when no pod can be made, as when a quota is used up.
    pub(super) no_pods_until: Option<Timestamp>,
    /// When all pods go once, as when a node is lost.
    pub(super) interrupt_in: Option<Timestamp>,
    /// The containers of its pods end then, and are back at once.
    pub(super) restart_in: Option<Timestamp>,
    pub(super) restarted: Option<Timestamp>,
    /// Until when a node has the volume mounted after its last pod.
    pub(super) unmounts_at: Option<Timestamp>,
    pub(super) storage: storage::Storage,
    pub(super) points: BTreeMap<String, RestorePointRecord>,
    pub(super) replaced: Vec<String>,
    pub(super) current: Vec<PinValue>,
    pub(super) blocked: Vec<BlockedVersion>,
    /// How versions behave that do not simply work.
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    /// Since when the app is healthy without interruption.
    pub(super) healthy_since: Option<Timestamp>,
    /// What the operation that ran last has found.
    pub(super) found: Option<drive::Found>,
    /// The operation that runs, for the rules.
    pub(super) running: Option<rules::Running>,
    /// What the target would deliver; what is delivered now, when there is nothing else.
    pub(super) renders: Option<Vec<Piece>>,
    /// The claims that are delivered with the app.
    pub(super) delivered_claims: Vec<String>,
    /// Workloads that others deliver.
    pub(super) strangers: Vec<WorkloadFacts>,
    /// The claims that the app names.
    pub(super) named: Vec<String>,
    /// The template of commit messages.
    pub(super) template: Option<String>,
    /// What a person accepts by name.
    pub(super) accepts: Vec<String>,
    /// Pins besides the one of the app.
    pub(super) pins: Vec<Pin>,
    /// Rules that were broken.
    pub(super) breaches: Vec<String>,
    uids: u32,
}

impl State {
    fn new(setup: Setup) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut state = Self {
            setup,
            now,
            calls: Vec::new(),
            faults: Vec::new(),
            crashed: false,
            guard_lost: false,
            after: None,
            git: git::Git::new(),
            source: flux::Source::new(),
            objects: Object::chain(setup, now),
            own_takes: SignedDuration::from_millis(200),
            deployment: pods::Deployment::new(),
            pods: Vec::new(),
            frontend: false,
            worker: None,
            cron: None,
            aside: Vec::new(),
            no_pods_until: None,
            interrupt_in: None,
            restart_in: None,
            restarted: None,
            unmounts_at: None,
            storage: storage::Storage::new(),
            points: BTreeMap::new(),
            replaced: Vec::new(),
            current: Vec::new(),
            blocked: Vec::new(),
            behaviours: BTreeMap::new(),
            healthy_since: None,
            found: None,
            running: None,
            renders: None,
            delivered_claims: Vec::new(),
            strangers: Vec::new(),
            named: Vec::new(),
            template: None,
            accepts: Vec::new(),
            pins: Vec::new(),
            breaches: Vec::new(),
            uids: 0,
        };
        state.pass(SignedDuration::from_secs(5));
        // A reconciliation that began before anybody asked for a suspension: what the barrier is for.
        let until = state.now + SignedDuration::from_millis(500);
        state.objects[1].begin(until);
        state
    }

    pub(super) fn uid(&mut self, what: &str) -> String {
        self.uids += 1;
        format!("uid-{what}-{}", self.uids)
    }

    pub(super) fn breach(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.breaches.contains(&what) {
            self.breaches.push(what);
        }
    }

    /// Time passes, and every controller works.
    pub(super) fn pass(&mut self, duration: SignedDuration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = end.min(self.now + SignedDuration::from_millis(50));
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.turn_git();
        self.turn_source();
        self.turn_objects();
        self.turn_pods();
        self.turn_storage();
        self.check();
    }
}

/// The model behind every port.
pub(super) struct World {
    state: Mutex<State>,
    journals: MemoryStore,
}

impl World {
    pub(super) fn new(setup: Setup) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(setup)), journals: MemoryStore::default() })
    }

    /// Another world that is like this one, without its journals.
    pub(super) fn fork(&self) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(self.state().clone()), journals: MemoryStore::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// One port call: counted, and wrong if it is one that shall be.
    async fn call<T: Send>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut State) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let fault = {
            let mut state = self.state();
            assert!(!state.crashed, "a dead process calls {name}");
            state.pass(SignedDuration::from_millis(10));
            let at = state.calls.len();
            state.calls.push(name);
            let fault = state.faults.iter().find(|(when, _)| *when == at).map(|(_, fault)| *fault);
            state.crashed = fault == Some(Fault::CrashBefore);
            fault
        };
        match fault {
            Some(Fault::CrashBefore) => std::future::pending().await,
            Some(Fault::Unreachable) => {
                return Err(Failure::transient("api-unreachable", format!("{name}: no answer")));
            }
            Some(Fault::Refused) => return Err(Failure::permanent("api-refused", format!("{name}: refused"))),
            _ => {}
        }
        let result = {
            let mut state = self.state();
            let result = effect(&mut state);
            if let Some((_, act)) = state.after.take_if(|(after, _)| *after == name) {
                act(&mut state);
            }
            state.check();
            state.crashed = fault == Some(Fault::CrashAfter);
            state.guard_lost |= fault == Some(Fault::GuardLost);
            result
        };
        match fault {
            Some(Fault::CrashAfter) => std::future::pending().await,
            Some(Fault::ReplyLost) => {
                Err(Failure::transient("api-unreachable", format!("{name}: the answer was lost")))
            }
            _ => result,
        }
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    async fn sleep(&self, duration: SignedDuration) {
        self.state().pass(duration);
    }
}

impl crate::engine::Guard for World {
    fn state(&self) -> GuardState {
        match World::state(self).guard_lost {
            true => GuardState::Lost("its lease".into()),
            false => GuardState::Held,
        }
    }
}

#[async_trait]
impl JournalStore for World {
    async fn load(&self, operation: &str) -> Result<Option<Stored>, Failure> {
        self.call("journal.load", |_| Ok(())).await?;
        self.journals.load(operation).await
    }

    async fn save(
        &self,
        operation: &str,
        plan: &Plan,
        journal: &Journal,
        expected: Option<Revision>,
    ) -> Result<Revision, SaveError> {
        // Stored while the call is under way, so that a crash after it has lost the answer and not the journal.
        self.call("journal.save", |_| Ok(drive::block_on(self.journals.save(operation, plan, journal, expected))))
            .await?
    }
}
