//! The two pure functions that are the engine: what comes next, and what an observation does to the journal.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::journal::{Cause, Course, Entry, Journal, MAX_ERROR, MAX_EVIDENCE, MAX_WAITING, Outcome, StepState};
use super::plan::{Direction, Plan, Step, Stretch};
use crate::Failure;

/// Whether the operation may still have effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardState {
    /// Everything it must hold is held.
    Held,
    /// Something was lost, and what.
    Lost(String),
}

/// What the shell knows besides plan and journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether somebody asked to cancel.
    pub cancel: bool,
    /// What the operation is about is going away, and why nothing can be put right there any more.
    pub let_go: Option<String>,
    /// Leadership, locks.
    pub guard: GuardState,
}

/// What comes next. Exactly one is applied at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write the intent of this step, then make it so.
    Begin {
        /// Position in the plan.
        step: usize,
        /// Which half of the step.
        direction: Direction,
    },
    /// The intent is written: look whether its effect is there, make it so if it is absent.
    Observe {
        /// Position in the plan.
        step: usize,
        /// Which half of the step.
        direction: Direction,
    },
    /// Nothing to do before this instant.
    Wait {
        /// The instant.
        until: Timestamp,
    },
    /// Write into the journal that the operation goes back from here.
    TurnBack(Cause),
    /// Write into the journal that only what is held outside is put back from here, and why.
    LetGo(String),
    /// Write into the journal that the operation has ended.
    Close(Outcome),
    /// It has ended, and nothing of it is left to be tried again.
    Rest(Outcome),
    /// A guard is lost: no effect, no write.
    Halt(String),
}

/// What was seen of a step's effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// It is not there, nor on its way: make it. The text is what is waited for once it was made, for people.
    Absent(String),
    /// It is on its way.
    Pending {
        /// What is missing, for people.
        waiting_for: String,
        /// When looking again makes sense.
        look_again_in: SignedDuration,
        /// Something seen on the way that must not be forgotten, whatever the end; replaces what was noted before.
        sighted: Option<Value>,
    },
    /// It is there, with the evidence.
    Done(Value),
    /// It will not come.
    Failed(Failure),
    /// Undoing it would take what may be needed: it stays, and why.
    Kept(Failure),
}

impl Observation {
    /// Not there; once it was made, it is waited for to show.
    pub fn absent() -> Self {
        Self::Absent("its effect to show".into())
    }

    /// On its way; look again soon.
    pub fn pending(waiting_for: impl Into<String>, millis: i64) -> Self {
        Self::Pending {
            waiting_for: waiting_for.into(),
            look_again_in: SignedDuration::from_millis(millis),
            sighted: None,
        }
    }
}

/// The longest pause that is ever written.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// Longest pause between two looks at something that is on its way.
const MAX_PACE: SignedDuration = SignedDuration::from_secs(5);
/// Pause before a leftover is tried again.
const HEAL_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// Says what comes next. Total: there is an answer for every journal, also for one no engine would have written.
pub fn decide(plan: &Plan, journal: &Journal, facts: &Facts, now: Timestamp) -> Decision {
    let next = match (&journal.outcome, &journal.course, &facts.let_go) {
        (_, Course::Forward | Course::Back(_), Some(why)) => Decision::LetGo(why.clone()),
        (Some(outcome), ..) => heal(plan, journal, outcome, now),
        (None, Course::Forward, None) => forward(plan, journal, facts, now),
        (None, Course::Back(cause), None) => back(plan, journal, cause, now),
        (None, Course::LetGo { why }, _) => let_go(plan, journal, why, now),
    };
    match (&facts.guard, next) {
        (GuardState::Held, next) => next,
        (GuardState::Lost(_), next @ (Decision::Wait { .. } | Decision::Rest(_) | Decision::Halt(_))) => next,
        (GuardState::Lost(what), _) => Decision::Halt(what.clone()),
    }
}

fn forward(plan: &Plan, journal: &Journal, facts: &Facts, now: Timestamp) -> Decision {
    let irrevocable = journal.irrevocable(plan);
    if facts.cancel && !irrevocable {
        return Decision::TurnBack(Cause::Cancelled);
    }
    let failed = |step: &Step, failure: Failure| {
        let step = step.id.clone();
        if irrevocable {
            Decision::Close(Outcome::Failed { step, failure })
        } else {
            Decision::TurnBack(Cause::StepFailed { step, failure })
        }
    };
    for (at, step) in plan.steps.iter().enumerate() {
        let entry = journal.entry(&step.id);
        let next = match entry.map(|entry| (entry, entry.state)) {
            None => Decision::Begin { step: at, direction: Direction::Do },
            Some((_, StepState::Done)) => continue,
            Some((entry, StepState::Doing)) => continue_step(at, entry, Direction::Do, now),
            Some((entry, _)) => return failed(step, entry.error.clone().unwrap_or_else(unexplained)),
        };
        return match (bound(plan, journal, at), next) {
            (Some((stretch, end)), _) if end <= now => failed(step, out_of_time(stretch, step, entry)),
            (Some((_, end)), Decision::Wait { until }) => Decision::Wait { until: until.min(end) },
            (_, next) => next,
        };
    }
    Decision::Close(Outcome::Succeeded)
}

/// The shared deadline that ends first of those that a step is under, and when that is.
fn bound<'a>(plan: &'a Plan, journal: &Journal, at: usize) -> Option<(&'a Stretch, Timestamp)> {
    let position = |id: &str| plan.step(id).map(|(at, _)| at);
    plan.stretches
        .iter()
        .filter(|stretch| position(&stretch.from).is_some_and(|from| from <= at))
        .filter(|stretch| position(&stretch.to).is_some_and(|to| at <= to))
        .filter_map(|stretch| Some((stretch, later(journal.entry(&stretch.from)?.started_at, stretch.deadline)?)))
        .min_by_key(|(_, end)| *end)
}

fn back(plan: &Plan, journal: &Journal, cause: &Cause, now: Timestamp) -> Decision {
    for (at, step) in plan.steps.iter().enumerate().rev() {
        let Some(entry) = journal.entry(&step.id).filter(|entry| entry.begun && step.undo.is_some()) else { continue };
        match entry.state {
            StepState::Undone | StepState::Leftover | StepState::Kept => {}
            StepState::Undoing => return continue_step(at, entry, Direction::Undo, now),
            StepState::Doing | StepState::Done | StepState::Failed => {
                return Decision::Begin { step: at, direction: Direction::Undo };
            }
        }
    }
    Decision::Close(Outcome::Undone(cause.clone()))
}

/// Newest first, what is held outside is put back; the rest goes away by itself, or is listed.
fn let_go(plan: &Plan, journal: &Journal, why: &str, now: Timestamp) -> Decision {
    for (at, step) in plan.steps.iter().enumerate().rev() {
        let Some(entry) = journal.entry(&step.id).filter(|_| is_held_outside(plan, journal, step)) else { continue };
        match entry.state {
            StepState::Undone | StepState::Leftover | StepState::Kept => {}
            StepState::Undoing => return continue_step(at, entry, Direction::Undo, now),
            StepState::Doing | StepState::Done | StepState::Failed => {
                return Decision::Begin { step: at, direction: Direction::Undo };
            }
        }
    }
    Decision::Close(Outcome::LetGo { why: why.to_owned() })
}

fn is_held_outside(plan: &Plan, journal: &Journal, step: &Step) -> bool {
    let begun = journal.entry(&step.id).is_some_and(|entry| entry.begun);
    begun && step.outside && step.undo.is_some() && !journal.is_released(plan, step)
}

/// After the end only leftovers are touched, newest first, each when it is due; and what is held outside, once all is let go.
fn heal(plan: &Plan, journal: &Journal, outcome: &Outcome, now: Timestamp) -> Decision {
    let mut soonest: Option<Timestamp> = None;
    let lets_go = journal.let_go().is_some();
    for (at, step) in plan.steps.iter().enumerate().rev() {
        let Some(entry) = journal.entry(&step.id).filter(|entry| entry.begun && step.undo.is_some()) else { continue };
        let outside = is_held_outside(plan, journal, step);
        if lets_go && !outside {
            continue;
        }
        let next = match entry.state {
            StepState::Undoing => continue_step(at, entry, Direction::Undo, now),
            StepState::Leftover => match left_alone_until(entry, now) {
                Some(until) => Decision::Wait { until },
                None => Decision::Begin { step: at, direction: Direction::Undo },
            },
            StepState::Doing | StepState::Done | StepState::Failed if lets_go => {
                Decision::Begin { step: at, direction: Direction::Undo }
            }
            StepState::Doing | StepState::Done | StepState::Failed | StepState::Undone | StepState::Kept => continue,
        };
        match next {
            Decision::Wait { until } => soonest = Some(soonest.map_or(until, |earlier| earlier.min(until))),
            due => return due,
        }
    }
    soonest.map_or_else(|| Decision::Rest(outcome.clone()), |until| Decision::Wait { until })
}

fn continue_step(at: usize, entry: &Entry, direction: Direction, now: Timestamp) -> Decision {
    match left_alone_until(entry, now) {
        Some(until) => Decision::Wait { until },
        None if entry.retry || !entry.begun => Decision::Begin { step: at, direction },
        None => Decision::Observe { step: at, direction },
    }
}

/// Until when a step is left alone. What is further ahead than any pause was written by a clock that was ahead, and is not believed.
fn left_alone_until(entry: &Entry, now: Timestamp) -> Option<Timestamp> {
    entry.look_again.filter(|until| *until > now && until.duration_since(now) <= MAX_PAUSE)
}

fn unexplained() -> Failure {
    Failure::permanent("journal-inconsistent", "the journal shows a step that is neither done nor on its way")
        .with_hint("this is a defect of Windlass: please report it with the request's status")
}

/// Writes what was seen of a step into its entry. The entry must have been begun or attempted before; if it was not, nothing
/// is written and the next decision begins it.
///
/// [`Observation::Absent`] after the effect was made counts as on its way: the world has not caught up yet.
pub fn settle(journal: &mut Journal, step: &Step, direction: Direction, seen: Observation, now: Timestamp) {
    let Some(entry) = journal.entry_mut(&step.id) else { return };
    let limit = if direction == Direction::Do { step.deadline } else { step.undo_deadline };
    let late = now.duration_since(entry.started_at) >= limit;
    match seen {
        Observation::Done(evidence) => match oversized(&evidence) {
            Some(failure) => fail(entry, direction, failure, now),
            None => {
                entry.state = if direction == Direction::Do { StepState::Done } else { StepState::Undone };
                if direction == Direction::Do {
                    entry.evidence = evidence;
                }
                entry.finished_at = Some(now);
                entry.look_again = None;
                entry.waiting_for.clear();
                entry.retry = false;
                entry.error = None;
            }
        },
        Observation::Absent(waiting_for) | Observation::Pending { waiting_for, .. } if late => {
            let failure = overdue(step, direction, limit, entry, &waiting_for);
            fail(entry, direction, failure, now);
        }
        Observation::Absent(waiting_for) => wait(entry, waiting_for, SignedDuration::from_millis(200), now),
        Observation::Pending { waiting_for, look_again_in, sighted } => {
            if let Some(sighted) = sighted.filter(|sighted| direction == Direction::Do && oversized(sighted).is_none())
            {
                entry.evidence = sighted;
            }
            wait(entry, waiting_for, look_again_in, now);
        }
        Observation::Failed(failure) if failure.retryable && !late => {
            entry.error = Some(failure.bounded(MAX_ERROR));
            entry.retry = true;
            entry.look_again = later(now, backoff(entry.attempt));
        }
        Observation::Failed(failure) => fail(entry, direction, failure, now),
        Observation::Kept(failure) => {
            fail(entry, direction, failure, now);
            if direction == Direction::Undo {
                (entry.state, entry.look_again) = (StepState::Kept, None);
            }
        }
    }
}

fn wait(entry: &mut Entry, waiting_for: String, pause: SignedDuration, now: Timestamp) {
    entry.waiting_for = waiting_for;
    crate::failure::truncate(&mut entry.waiting_for, MAX_WAITING);
    let pause = pause.max(pace(now.duration_since(entry.started_at)));
    entry.look_again = later(now, pause.min(MAX_PAUSE));
}

/// What has taken long is looked at less often: a twentieth of the wait, so that no wait becomes longer by more than that.
fn pace(waited: SignedDuration) -> SignedDuration {
    (waited / 20).min(MAX_PACE)
}

fn fail(entry: &mut Entry, direction: Direction, failure: Failure, now: Timestamp) {
    entry.error = Some(failure.bounded(MAX_ERROR));
    entry.finished_at = Some(now);
    entry.retry = false;
    match direction {
        Direction::Do => {
            entry.state = StepState::Failed;
            entry.look_again = None;
        }
        Direction::Undo => {
            entry.state = StepState::Leftover;
            entry.look_again = later(now, HEAL_AFTER);
        }
    }
}

fn overdue(step: &Step, direction: Direction, limit: SignedDuration, entry: &Entry, waiting_for: &str) -> Failure {
    let title = step.undo.as_ref().filter(|_| direction == Direction::Undo).unwrap_or(&step.title);
    let limit = crate::duration::format(limit);
    let last = entry.error.as_ref().map(|error| format!("; last error: {}", error.message)).unwrap_or_default();
    let message = format!("could not {title} within {limit}: still waiting for {waiting_for}{last}");
    Failure::permanent("deadline-exceeded", message)
        .with_hint(entry.error.as_ref().map(|error| error.hint.clone()).unwrap_or_default())
}

/// The failure of a step that was not done when the time it shares with others was over.
fn out_of_time(stretch: &Stretch, step: &Step, entry: Option<&Entry>) -> Failure {
    let waiting_for = entry.map(|entry| entry.waiting_for.as_str()).filter(|text| !text.is_empty());
    let doing = waiting_for.map_or_else(|| format!("about to {}", step.title), |text| format!("waiting for {text}"));
    let error = entry.and_then(|entry| entry.error.as_ref());
    let last = error.map(|error| format!("; last error: {}", error.message)).unwrap_or_default();
    let (title, limit) = (&stretch.title, crate::duration::format(stretch.deadline));
    Failure::permanent("deadline-exceeded", format!("could not {title} within {limit}: still {doing}{last}"))
        .with_hint(error.map(|error| error.hint.clone()).unwrap_or_default())
        .bounded(MAX_ERROR)
}

fn oversized(evidence: &Value) -> Option<Failure> {
    let size = evidence.to_string().len();
    (size > MAX_EVIDENCE).then(|| {
        Failure::permanent("evidence-too-large", format!("{size} bytes of evidence, and {MAX_EVIDENCE} fit a step"))
    })
}

/// Doubles from half a second.
fn backoff(attempt: u32) -> SignedDuration {
    let doublings = attempt.saturating_sub(1).min(10);
    SignedDuration::from_millis(500_i64 << doublings).min(MAX_PAUSE)
}

fn later(now: Timestamp, pause: SignedDuration) -> Option<Timestamp> {
    now.checked_add(pause).ok()
}
