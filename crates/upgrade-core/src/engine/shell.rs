//! The thin part: gathers facts, applies one decision, writes the journal.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::decide::{Decision, Facts, GuardState, Observation, decide, settle};
use super::journal::{Course, Journal, MAX_ERROR, MAX_INTENT, Outcome};
use super::plan::{Direction, Plan, PlanError, Step};
use crate::ports::{Clock, JournalStore, Revision, SaveError, Stored};
use crate::{Coded, Failure};

/// Everything a runner may know while it works on a step.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// The whole plan.
    pub plan: &'a Plan,
    /// The journal, as it is stored.
    pub journal: &'a Journal,
    /// The step.
    pub step: &'a Step,
    /// Which half of it.
    pub direction: Direction,
    /// The instant of the decision.
    pub now: Timestamp,
}

impl<'a> StepContext<'a> {
    /// The intent as written; `Null` before it is.
    pub fn intent(&self) -> &'a Value {
        self.journal.entry(&self.step.id).map_or(&Value::Null, |entry| &entry.intent)
    }

    /// When the step was first begun in this direction.
    pub fn started_at(&self) -> Timestamp {
        self.journal.entry(&self.step.id).map_or(self.now, |entry| entry.started_at)
    }

    /// A token that is the same each time this attempt is continued, and different for every other attempt.
    pub fn token(&self) -> String {
        let attempt = self.journal.entry(&self.step.id).map_or(0, |entry| entry.attempt);
        let half = if self.direction == Direction::Do { "do" } else { "undo" };
        format!("{}/{}/{half}/{attempt}", self.plan.operation, self.step.id)
    }
}

/// What is known once an effect was made.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It was asked for: look whether it is there.
    Made,
    /// The answer to the write is itself the evidence.
    Proven(Value),
}

/// Carries out the steps of one workflow.
///
/// - **Flow**: `prepare` (read-only) gives the intent, which is written; then `observe`; if the effect is absent `act`, and
///   `observe` again, now and later, until it is done, failed or overdue.
/// - **Guarantees** asked of an implementation: `act` makes at most one external effect, the one the intent describes, and
///   is harmless when repeated; `observe` and `prepare` make none.
/// - **Assumptions**: after a crash anything may be called again, in another process.
/// - **Cancellation**: every await point; the next call finds what was made.
/// - **Errors**: a failure says itself whether trying again can help; the engine owns deadlines and pauses.
#[async_trait]
pub trait StepRunner: Send + Sync {
    /// The name of the workflows it understands.
    fn workflows(&self) -> &'static [&'static str];
    /// What is about to be done, in full, with the UIDs and versions it was decided on; checks that must hold right before the
    /// effect belong here too. At most 512 bytes.
    async fn prepare(&self, cx: StepContext<'_>) -> Result<Value, Failure>;
    /// Makes the effect.
    async fn act(&self, cx: StepContext<'_>) -> Result<Effect, Failure>;
    /// Looks at the world.
    async fn observe(&self, cx: StepContext<'_>) -> Result<Observation, Failure>;
}

/// What an operation must hold to have effects: leadership, a lock.
///
/// - **Flow**: asked before each decision, and again right before each effect.
/// - **Guarantees** asked of an implementation: it says `Held` only if nobody else may act before a call that begins now is over. It
///   answers at once, from memory: whoever implements it renews in the background.
/// - **Assumptions**: what is lost may be held again later. The engine asks anew each time and remembers nothing.
/// - **Cancellation**: nothing to cancel: it does not wait.
/// - **Errors**: none. What cannot be known is `Lost`, with the name of what it is about.
pub trait Guard: Send + Sync {
    /// Whether everything is still held.
    fn state(&self) -> GuardState;
}

/// What has been asked of a running operation from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signals {
    /// To go back, if that is still possible.
    pub cancel: bool,
    /// To let go, because what the operation is about is going away; and what that is, for people.
    pub let_go: Option<String>,
}

/// What one tick did.
#[derive(Debug, Clone, PartialEq)]
pub enum Tick {
    /// The journal has changed: tick again at once.
    Progressed,
    /// Nothing to do before this instant.
    Wait(Timestamp),
    /// The operation has ended; leftovers, if any, are looked after by later ticks from this instant on.
    Ended(Outcome, Option<Timestamp>),
}

/// Why a tick could not be made. Nothing is lost: the next tick goes on from the journal.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No plan is stored for the operation.
    #[error("no plan is stored for operation {0}")]
    NoPlan(String),
    /// The stored plan cannot be continued here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A guard was lost.
    #[error("this process may not act any more: {0}")]
    GuardLost(String),
    /// The journal could not be read or written.
    #[error("the journal could not be read or written: {0}")]
    Store(#[source] Failure),
}

impl Coded for EngineError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoPlan(_) => "no-plan",
            Self::Plan(error) => error.code(),
            Self::GuardLost(_) => "guard-lost",
            Self::Store(_) => "journal-unavailable",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::NoPlan(_) => "the request's status was removed: restore it, or make a new request".into(),
            Self::Plan(error) => error.hint(),
            Self::GuardLost(_) => "another instance goes on from the journal".into(),
            Self::Store(failure) => failure.hint.clone(),
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Store(failure) => failure.retryable,
            Self::NoPlan(_) | Self::Plan(_) | Self::GuardLost(_) => false,
        }
    }
}

/// Runs operations: one decision per [`Engine::tick`].
pub struct Engine<'a> {
    /// Where plans and journals are kept.
    pub store: &'a dyn JournalStore,
    /// Who carries the steps out.
    pub runner: &'a dyn StepRunner,
    /// What must be held.
    pub guard: &'a dyn Guard,
    /// Time.
    pub clock: &'a dyn Clock,
}

impl Engine<'_> {
    /// Applies exactly one decision.
    ///
    /// Cancellation: may be dropped at any await point, as a crash may happen at any; the next tick, in this process or
    /// another, continues from the journal.
    pub async fn tick(&self, operation: &str, signals: Signals) -> Result<Tick, EngineError> {
        let stored = self.store.load(operation).await.map_err(EngineError::Store)?;
        let Stored { plan, mut journal, revision } = stored.ok_or_else(|| EngineError::NoPlan(operation.to_owned()))?;
        plan.verify()?;
        if journal.plan_hash != plan.hash {
            return Err(PlanError::Altered.into());
        }
        if !self.runner.workflows().contains(&plan.workflow.as_str()) {
            return Err(PlanError::UnknownWorkflow { found: plan.workflow }.into());
        }
        let facts = Facts { cancel: signals.cancel, let_go: signals.let_go, guard: self.guard.state() };
        let now = self.clock.now();
        match decide(&plan, &journal, &facts, now) {
            Decision::Begin { step, direction } => self.begin(&plan, journal, revision, step, direction, now).await,
            Decision::Observe { step, direction } => {
                self.pursue(&plan, journal, revision, step, direction, now, false).await
            }
            Decision::Wait { until } => Ok(match journal.outcome {
                Some(outcome) => Tick::Ended(outcome, Some(until)),
                None => Tick::Wait(until),
            }),
            Decision::Rest(outcome) => Ok(Tick::Ended(outcome, None)),
            Decision::Halt(what) => Err(EngineError::GuardLost(what)),
            Decision::TurnBack(cause) => {
                journal.course = Course::Back(cause);
                self.save(&plan, &journal, revision).await?;
                Ok(Tick::Progressed)
            }
            Decision::LetGo(mut why) => {
                crate::failure::truncate(&mut why, MAX_ERROR);
                journal.course = Course::LetGo { why };
                self.save(&plan, &journal, revision).await?;
                Ok(Tick::Progressed)
            }
            Decision::Close(outcome) => {
                journal.outcome = Some(outcome);
                journal.finished_at = Some(now);
                self.save(&plan, &journal, revision).await?;
                Ok(Tick::Progressed)
            }
        }
    }

    /// Ticks until the operation has ended, leftovers or not. For embedders and the command line; an operator ticks itself.
    pub async fn run(&self, operation: &str, cancel: &(dyn Fn() -> bool + Sync)) -> Result<Outcome, EngineError> {
        loop {
            match self.tick(operation, Signals { cancel: cancel(), let_go: None }).await? {
                Tick::Progressed => {}
                Tick::Wait(until) => self.clock.sleep(until.duration_since(self.clock.now())).await,
                Tick::Ended(outcome, _) => return Ok(outcome),
            }
        }
    }

    async fn begin(
        &self,
        plan: &Plan,
        mut journal: Journal,
        revision: Revision,
        at: usize,
        direction: Direction,
        now: Timestamp,
    ) -> Result<Tick, EngineError> {
        let Some(step) = plan.steps.get(at) else { return Ok(Tick::Progressed) };
        // Another attempt: an effect whose answer was lost must be found before anything is judged as if it were not there.
        if journal.is_begun(step, direction) {
            let seen = self.runner.observe(StepContext { plan, journal: &journal, step, direction, now }).await;
            if !matches!(seen, Ok(Observation::Absent(_))) {
                settle(&mut journal, step, direction, seen.unwrap_or_else(Observation::Failed), self.clock.now());
                self.save(plan, &journal, revision).await?;
                return Ok(Tick::Progressed);
            }
        }
        journal.attempt(step, direction, now);
        let cx = StepContext { plan, journal: &journal, step, direction, now };
        let prepared = self.runner.prepare(cx).await.and_then(fits);
        match prepared {
            Ok(intent) => {
                journal.mark_begun(step, intent);
                let Some(revision) = self.save(plan, &journal, revision).await? else { return Ok(Tick::Progressed) };
                self.pursue(plan, journal, revision, at, direction, now, true).await
            }
            Err(failure) => {
                settle(&mut journal, step, direction, Observation::Failed(failure), now);
                self.save(plan, &journal, revision).await?;
                Ok(Tick::Progressed)
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call site each, and a struct would only rename them")]
    async fn pursue(
        &self,
        plan: &Plan,
        mut journal: Journal,
        revision: Revision,
        at: usize,
        direction: Direction,
        now: Timestamp,
        prepared: bool,
    ) -> Result<Tick, EngineError> {
        let Some(step) = plan.steps.get(at) else { return Ok(Tick::Progressed) };
        let cx = StepContext { plan, journal: &journal, step, direction, now };
        let mut seen = self.runner.observe(cx).await;
        if let Ok(Observation::Absent(_)) = seen {
            // The intent may be old: what must hold right before the effect is judged again.
            let still = if prepared { Ok(()) } else { self.runner.prepare(cx).await.map(|_| ()) };
            // After that, which may take long, and with nothing between it and the effect.
            if let GuardState::Lost(what) = self.guard.state() {
                return Err(EngineError::GuardLost(what));
            }
            seen = match still {
                Err(failure) => Err(failure),
                Ok(()) => match self.runner.act(cx).await {
                    Ok(Effect::Made) => self.runner.observe(cx).await,
                    Ok(Effect::Proven(evidence)) => Ok(Observation::Done(evidence)),
                    Err(failure) => Err(failure),
                },
            };
        }
        let seen = seen.unwrap_or_else(Observation::Failed);
        let before = journal.clone();
        settle(&mut journal, step, direction, seen, self.clock.now());
        if let Some(until) = journal.only_waits_longer_than(&before, step) {
            return Ok(match journal.outcome {
                Some(outcome) => Tick::Ended(outcome, Some(until)),
                None => Tick::Wait(until),
            });
        }
        self.save(plan, &journal, revision).await?;
        Ok(Tick::Progressed)
    }

    /// `None` when somebody else wrote first: what was decided on is no longer true, and the next tick decides again.
    async fn save(&self, plan: &Plan, journal: &Journal, expected: Revision) -> Result<Option<Revision>, EngineError> {
        match self.store.save(&plan.operation, plan, journal, Some(expected)).await {
            Ok(revision) => Ok(Some(revision)),
            Err(SaveError::Conflict) => Ok(None),
            Err(SaveError::Failed(failure)) => Err(EngineError::Store(failure)),
        }
    }
}

fn fits(intent: Value) -> Result<Value, Failure> {
    let size = intent.to_string().len();
    if size > MAX_INTENT {
        return Err(Failure::permanent("intent-too-large", format!("{size} bytes, and {MAX_INTENT} fit a step")));
    }
    Ok(intent)
}
