//! A warehouse: the world of the second workflow, with faults on a script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::Failure;
use crate::engine::{
    Direction, Effect, Engine, EngineError, Guard, GuardState, Journal, MemoryStore, Observation, Plan, Signals, Step,
    StepContext, StepRunner, StepState, Tick,
};
use crate::ports::{Clock, JournalStore, Revision, SaveError, Stored};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It works.
    None,
    /// The effect is made, and the process dies before it knows.
    CrashAfterEffect,
    /// The process dies before the effect.
    CrashBeforeEffect,
    /// It is refused, and may work later.
    Transient,
    /// It is refused for good.
    Permanent,
    /// The effect is made but shows only much later.
    Slow,
    /// The effect is made, and the answer is an error.
    ReplyLost,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Crates that are on the upper shelf.
    pub(super) lifted: BTreeSet<String>,
    /// When a slow effect shows.
    shows_at: BTreeMap<String, Timestamp>,
    /// Faults of the next calls to `act`, in order.
    pub(super) script: Vec<Fault>,
    /// Every effect that was made, in order: `+id` and `-id`.
    pub(super) effects: Vec<String>,
    /// What can not be put down any more.
    pub(super) stuck: BTreeSet<String>,
    pub(super) crashed: bool,
    pub(super) guard_lost: bool,
    /// How often the journal was written.
    pub(super) saves: usize,
    /// The call of `prepare` during which the guard goes, by its number.
    pub(super) guard_goes_at: Option<usize>,
    /// How often a tick ended because of that.
    pub(super) halts: usize,
    /// Steps that could not be undone in time, at any time.
    pub(super) left_over: BTreeSet<String>,
    preparations: usize,
    /// The step that was prepared last, until something was done.
    prepared: Option<String>,
    now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Warehouse {
    pub(super) state: Mutex<State>,
}

impl State {
    pub(super) fn now_in_seconds(&self) -> i64 {
        self.now.as_second()
    }
}

impl Warehouse {
    pub(super) fn with(script: Vec<Fault>) -> Self {
        Self { state: Mutex::new(State { script, ..State::default() }) }
    }
}

#[async_trait]
impl StepRunner for Warehouse {
    fn workflows(&self) -> &'static [&'static str] {
        &["warehouse"]
    }

    async fn prepare(&self, cx: StepContext<'_>) -> Result<Value, Failure> {
        let mut state = self.state.lock().unwrap();
        // What was never lifted may be "put down" all the same: a failed step is undone without knowing how far it came.
        let made = cx.direction == Direction::Do && state.lifted.contains(&cx.step.id);
        assert!(!made, "{} is prepared although its effect is there", cx.step.id);
        state.prepared = Some(cx.step.id.clone());
        state.guard_lost |= state.guard_goes_at == Some(state.preparations);
        state.preparations += 1;
        Ok(json!({"crate": cx.step.id}))
    }

    async fn act(&self, cx: StepContext<'_>) -> Result<Effect, Failure> {
        let mut state = self.state.lock().unwrap();
        assert!(!state.crashed, "a dead process acts");
        assert!(!state.guard_lost, "an effect without its guard");
        assert_eq!(state.prepared.take(), Some(cx.step.id.clone()), "an effect on an old judgement");
        assert_eq!(cx.intent()["crate"], json!(cx.step.id), "an effect without its intent in the journal");
        let fault = if state.script.is_empty() { Fault::None } else { state.script.remove(0) };
        let refused = match fault {
            Fault::CrashBeforeEffect => {
                state.crashed = true;
                return Err(Failure::transient("crash", "died"));
            }
            Fault::Transient => return Err(Failure::transient("busy", "the lift is busy")),
            Fault::Permanent => return Err(Failure::permanent("too-heavy", "the crate is too heavy")),
            _ if cx.direction == Direction::Undo && state.stuck.contains(&cx.step.id) => true,
            _ => false,
        };
        if refused {
            return Err(Failure::transient("stuck", "the crate is stuck"));
        }
        let id = cx.step.id.clone();
        let lift = cx.direction == Direction::Do;
        assert_ne!(state.lifted.contains(&id), lift, "the effect of {id} is made twice");
        if lift {
            state.lifted.insert(id.clone());
        } else {
            state.lifted.remove(&id);
        }
        state.effects.push(format!("{}{id}", if lift { '+' } else { '-' }));
        match fault {
            Fault::CrashAfterEffect => {
                state.crashed = true;
                Err(Failure::transient("crash", "died"))
            }
            Fault::ReplyLost => Err(Failure::transient("reply-lost", "no answer")),
            Fault::Slow => {
                let shows = state.now + SignedDuration::from_secs(20);
                state.shows_at.insert(id, shows);
                Ok(Effect::Made)
            }
            _ => Ok(Effect::Made),
        }
    }

    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure> {
        let state = self.state.lock().unwrap();
        if state.crashed {
            return Err(Failure::transient("crash", "died"));
        }
        let up = state.lifted.contains(&cx.step.id);
        if up != (cx.direction == Direction::Do) {
            return Ok(Observation::absent());
        }
        match state.shows_at.get(&cx.step.id) {
            Some(at) if *at > state.now => Ok(Observation::pending("the crate to arrive", 1000)),
            _ => Ok(Observation::Done(json!({"shelf": if up { "upper" } else { "lower" }}))),
        }
    }
}

impl Guard for Warehouse {
    fn state(&self) -> GuardState {
        match self.state.lock().unwrap().guard_lost {
            true => GuardState::Lost("the key of the warehouse".into()),
            false => GuardState::Held,
        }
    }
}

/// A store that a dead process cannot write to any more.
struct Reachable<'a> {
    store: MemoryStore,
    warehouse: &'a Warehouse,
}

#[async_trait]
impl JournalStore for Reachable<'_> {
    async fn load(&self, operation: &str) -> Result<Option<Stored>, Failure> {
        self.store.load(operation).await
    }

    async fn save(
        &self,
        operation: &str,
        plan: &Plan,
        journal: &Journal,
        expected: Option<Revision>,
    ) -> Result<Revision, SaveError> {
        if self.warehouse.state.lock().unwrap().crashed {
            return Err(Failure::transient("crash", "died").into());
        }
        {
            let mut state = self.warehouse.state.lock().unwrap();
            state.saves += 1;
            let left = journal.entries.iter().filter(|entry| entry.state == StepState::Leftover);
            state.left_over.extend(left.map(|entry| entry.step.clone()));
        }
        self.store.save(operation, plan, journal, expected).await
    }
}

#[async_trait]
impl Clock for Warehouse {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap().now
    }

    async fn sleep(&self, duration: SignedDuration) {
        let mut state = self.state.lock().unwrap();
        state.now += duration.max(SignedDuration::ZERO);
    }
}

/// Lifts crates a, b, c, ... one after the other; `irrevocable` is the position of the point of no return.
pub(super) fn plan(crates: usize, irrevocable: Option<usize>) -> Plan {
    let steps = (0..crates)
        .map(|at| {
            let id = char::from(b'a' + u8::try_from(at).unwrap()).to_string();
            let mut step = Step::new(&id, format!("lift {id}"), json!({}), SignedDuration::from_secs(60))
                .undone_by(format!("put {id} down"))
                .holding(format!("{id} lifted"));
            step.undo_deadline = step.deadline;
            if irrevocable == Some(at) { step.irrevocable() } else { step }
        })
        .collect();
    Plan::new("warehouse", "op", json!({}), steps).unwrap()
}

/// Drives an operation like an operator would: ticks, sleeps, and a new process after each crash. Ends after the first end that
/// needs no further healing, or after `most` ticks.
pub(super) fn drive(warehouse: &Warehouse, plan: &Plan, cancel_at_tick: Option<usize>, most: usize) -> Journal {
    let cancel = |tick| Signals { cancel: cancel_at_tick.is_some_and(|at| tick >= at), let_go: None };
    drive_with(warehouse, plan, cancel, most)
}

/// As [`drive`], with what is asked at each tick.
pub(super) fn drive_with(
    warehouse: &Warehouse,
    plan: &Plan,
    signals: impl Fn(usize) -> Signals,
    most: usize,
) -> Journal {
    let store = Reachable { store: MemoryStore::default(), warehouse };
    block_on(async {
        let journal = Journal::new(plan, warehouse.now());
        store.save("op", plan, &journal, None).await.unwrap();
        for tick in 0..most {
            let engine = Engine { store: &store, runner: warehouse, guard: warehouse, clock: warehouse };
            match engine.tick("op", signals(tick)).await {
                Ok(Tick::Progressed) => {}
                Ok(Tick::Wait(until) | Tick::Ended(_, Some(until))) => {
                    let pause = until.duration_since(warehouse.now());
                    warehouse.sleep(pause).await;
                }
                Ok(Tick::Ended(_, None)) => break,
                Err(EngineError::GuardLost(_)) => {
                    let seen = |state: &State| (state.effects.len(), state.saves);
                    let before = seen(&warehouse.state.lock().unwrap());
                    let _ = engine.tick("op", signals(tick)).await;
                    let mut state = warehouse.state.lock().unwrap();
                    assert_eq!(seen(&state), before, "something is done without the guard");
                    state.guard_lost = false;
                    state.halts += 1;
                }
                Err(EngineError::Store(_)) if warehouse.state.lock().unwrap().crashed => {}
                Err(error) => panic!("{error}"),
            }
            let crashed = std::mem::take(&mut warehouse.state.lock().unwrap().crashed);
            if crashed {
                warehouse.sleep(SignedDuration::from_secs(5)).await;
            }
        }
        store.load("op").await.unwrap().unwrap().journal
    })
}

/// Nothing here ever waits on anything outside, so one poll after the other ends it.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
