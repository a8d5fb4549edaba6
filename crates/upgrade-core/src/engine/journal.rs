//! What has been done of a plan.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Direction, Plan, Step};
use crate::Failure;

/// The most bytes of what was seen of one step; what is larger is refused by [`settle`](super::settle).
pub(super) const MAX_EVIDENCE: usize = 1536;
/// The most bytes of one intent; what is larger is refused before anything is done.
pub(super) const MAX_INTENT: usize = 512;
/// The most bytes of the last error of a step.
pub(super) const MAX_ERROR: usize = 768;
/// The most bytes of what a step waits for.
pub(super) const MAX_WAITING: usize = 256;
/// The most bytes of the entry of a step that is done, without the step's id, for the check that a plan's record fits its
/// store: the last number is for keys, states, numbers and four instants.
pub(super) const MAX_DONE: usize = MAX_EVIDENCE + MAX_INTENT + 384;
/// The most bytes of that of any other: only it has an error, and something that it waits for.
pub(super) const MAX_ENTRY: usize = MAX_DONE + MAX_ERROR + MAX_WAITING;
/// The most bytes of a journal besides its entries, without ids: why it turned back and how it ended, each with an error.
pub(super) const MAX_FRAME: usize = 2 * MAX_ERROR + 640;

/// Where one step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StepState {
    /// The intent is written: its effect may or may not exist.
    Doing,
    /// Its effect was seen.
    Done,
    /// It did not succeed; part of its effect may exist.
    Failed,
    /// The intent to undo is written.
    Undoing,
    /// Its effect is gone, or never was.
    Undone,
    /// Undoing did not succeed in time: its effect is still there, and undoing it is tried again from time to time.
    Leftover,
    /// Undoing would take what may be needed: its effect stays until a person decides, and is not touched again.
    Kept,
}

/// What is known of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The step's id.
    pub step: String,
    /// Where it stands.
    pub state: StepState,
    /// How often it was tried in the present direction, from 1.
    pub attempt: u32,
    /// Whether an intent was ever written, so that an effect may exist. False when preparing it already failed.
    pub begun: bool,
    /// Whether the last attempt failed in a way that is worth another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
    /// What was about to be done, written before it was.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub intent: Value,
    /// What was seen when it was done.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// First begun in any direction.
    pub began_at: Timestamp,
    /// First begun in the present direction.
    pub started_at: Timestamp,
    /// Ended in the present direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Not to be looked at before. Later looks that saw nothing new are not written: a journal has no heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_again: Option<Timestamp>,
    /// What it waits for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting_for: String,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Why an operation turned back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// A step failed.
    StepFailed {
        /// The step.
        step: String,
        /// Its failure.
        failure: Failure,
    },
    /// Somebody asked for it, in time.
    Cancelled,
}

/// Which way an operation goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Course {
    /// Towards the goal.
    Forward,
    /// Back to where it started. One-way.
    Back(Cause),
    /// What the operation is about is going away: only what it holds outside of that is put back. One-way, from any other
    /// course, also after the point of no return and after the end.
    LetGo {
        /// What is going away.
        why: String,
    },
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// It turned back before the point of no return; what could be undone was.
    Undone(Cause),
    /// A step failed after the point of no return.
    Failed {
        /// The step.
        step: String,
        /// Its failure.
        failure: Failure,
    },
    /// What it was about went away; what it held outside of that was put back.
    LetGo {
        /// What went away.
        why: String,
    },
}

/// Something an ended operation has left in the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// The step that holds it.
    pub step: String,
    /// What it is.
    pub what: String,
    /// Why it is still there.
    pub why: String,
    /// Whether undoing it is still being tried.
    pub retried: bool,
}

/// The record of an operation. At most one entry a step, in the order they were first begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Hash of the plan it belongs to.
    pub plan_hash: String,
    /// Which way it goes.
    pub course: Course,
    /// One entry for each step that was begun.
    pub entries: Vec<Entry>,
    /// When the operation began.
    pub started_at: Timestamp,
    /// How it ended. Healing a leftover afterwards changes entries, never this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

impl Journal {
    /// An empty journal for a plan.
    pub fn new(plan: &Plan, now: Timestamp) -> Self {
        Self {
            plan_hash: plan.hash.clone(),
            course: Course::Forward,
            entries: Vec::new(),
            started_at: now,
            outcome: None,
            finished_at: None,
        }
    }

    /// The entry of a step, if it was begun.
    pub fn entry(&self, step: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.step == step)
    }

    /// When to look at the step again, if that is all in which this journal differs from what it was before the look.
    pub(super) fn only_waits_longer_than(&self, before: &Self, step: &Step) -> Option<Timestamp> {
        let until = self.entry(&step.id)?.look_again?;
        let mut same = before.clone();
        same.entry_mut(&step.id)?.look_again = Some(until);
        (same == *self).then_some(until)
    }

    pub(super) fn entry_mut(&mut self, step: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.step == step)
    }

    /// What was seen when a step was done; `Null` when it was not.
    pub fn evidence(&self, step: &str) -> &Value {
        self.entry(step).map_or(&Value::Null, |entry| &entry.evidence)
    }

    /// Whether the point of no return was passed: from the moment its intent is written.
    pub fn irrevocable(&self, plan: &Plan) -> bool {
        plan.steps.iter().any(|step| step.point_of_no_return && self.entry(&step.id).is_some_and(|entry| entry.begun))
    }

    /// What the operation holds at this moment: while it runs this is work in progress, after its end these are leftovers.
    pub fn leftovers(&self, plan: &Plan) -> Vec<Leftover> {
        plan.steps.iter().filter_map(|step| self.leftover(plan, step)).collect()
    }

    fn leftover(&self, plan: &Plan, step: &Step) -> Option<Leftover> {
        let entry = self.entry(&step.id).filter(|entry| entry.begun && entry.state != StepState::Undone)?;
        let tried = matches!(entry.state, StepState::Leftover | StepState::Undoing | StepState::Kept);
        let goes_on = tried && entry.state != StepState::Kept;
        let healing = self.outcome.is_some() && goes_on && (step.outside || self.let_go().is_none());
        let what = step.holds.clone().or_else(|| (tried && self.outcome.is_some()).then(|| step.title.clone()))?;
        if self.is_released(plan, step) {
            return None;
        }
        let why = match (&entry.error, self.let_go()) {
            (_, Some(why)) if !healing => why.to_owned(),
            (Some(error), _) if entry.state != StepState::Done => error.message.clone(),
            _ if !entry.waiting_for.is_empty() => format!("waiting for {}", entry.waiting_for),
            _ => "nothing has undone it yet".into(),
        };
        Some(Leftover { step: step.id.clone(), what, why, retried: healing })
    }

    /// What is going away, if the operation was let go for that.
    pub fn let_go(&self) -> Option<&str> {
        match &self.course {
            Course::LetGo { why } => Some(why),
            Course::Forward | Course::Back(_) => None,
        }
    }

    /// Whether a later step has ended what this one holds.
    pub(super) fn is_released(&self, plan: &Plan, step: &Step) -> bool {
        plan.steps.iter().any(|later| later.releases.contains(&step.id) && self.is_done(&later.id))
    }

    fn is_done(&self, step: &str) -> bool {
        self.entry(step).is_some_and(|entry| entry.state == StepState::Done)
    }

    /// Whether an intent of this half of the step was written.
    pub(super) fn is_begun(&self, step: &Step, direction: Direction) -> bool {
        let state = match direction {
            Direction::Do => StepState::Doing,
            Direction::Undo => StepState::Undoing,
        };
        self.entry(&step.id).is_some_and(|entry| entry.begun && entry.state == state)
    }

    /// Writes the intent of the present attempt: from here on its effect may exist.
    pub(super) fn mark_begun(&mut self, step: &Step, intent: Value) {
        if let Some(entry) = self.entry_mut(&step.id) {
            entry.begun = true;
            entry.intent = intent;
        }
    }

    /// Another attempt at a step, without an intent: its effect is not to be made yet.
    pub(super) fn attempt(&mut self, step: &Step, direction: Direction, now: Timestamp) {
        let state = match direction {
            Direction::Do => StepState::Doing,
            Direction::Undo => StepState::Undoing,
        };
        let fresh = Entry {
            step: step.id.clone(),
            state,
            attempt: 1,
            begun: false,
            retry: false,
            intent: Value::Null,
            evidence: Value::Null,
            began_at: now,
            started_at: now,
            finished_at: None,
            look_again: None,
            waiting_for: String::new(),
            error: None,
        };
        let at = self.entries.iter().position(|entry| entry.step == step.id);
        let earlier = at.map(|at| self.entries.remove(at));
        let entry = match earlier {
            None => fresh,
            Some(earlier) if earlier.state == state => Entry {
                attempt: earlier.attempt.saturating_add(1),
                started_at: earlier.started_at,
                error: earlier.error.clone(),
                ..fresh.after(&earlier)
            },
            Some(earlier) => fresh.after(&earlier),
        };
        let at = at.unwrap_or(self.entries.len());
        self.entries.insert(at, entry);
    }
}

impl Entry {
    /// Keeps what is known from earlier attempts: that an effect may exist, and what was seen of it.
    fn after(self, earlier: &Self) -> Self {
        Self { begun: earlier.begun, began_at: earlier.began_at, evidence: earlier.evidence.clone(), ..self }
    }
}
