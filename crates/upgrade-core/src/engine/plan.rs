//! What an operation will do, fixed before it starts.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::journal;
use crate::Coded;

/// Whether a step is being done or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Towards the goal.
    Do,
    /// Back to where the operation started.
    Undo,
}

/// One step of a plan: at most one external effect, and possibly its undoing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Stable and unique within the plan: `snapshot/take/data`.
    pub id: String,
    /// For people, in the present tense: `take a snapshot of claim data`.
    pub title: String,
    /// What the workflow's runner needs to know; opaque to the engine.
    pub action: Value,
    /// How long the step may take from its first attempt, before it counts as failed.
    #[serde(with = "crate::duration")]
    pub deadline: SignedDuration,
    /// How undoing it is called, for people; `None` when there is nothing to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// How long undoing it is tried before it counts as a leftover (and is tried again from time to time). Short, because
    /// whatever is undone after it waits: an app that could run again must not stay down because a host is unreachable.
    #[serde(with = "crate::duration", default = "undo_deadline", skip_serializing_if = "is_undo_deadline")]
    pub undo_deadline: SignedDuration,
    /// From the moment this step's intent is written, nothing is undone any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub point_of_no_return: bool,
    /// What stays behind in the world once the step was begun, until it is undone or released: `HelmRelease notes/notes suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// Ids of earlier steps whose hold ends when this step is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<String>,
    /// Whether what it holds lies outside of what the operation is about, so that it is undone also when all the rest is let go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
}

impl Step {
    /// A step without undo that holds nothing.
    pub fn new(id: impl Into<String>, title: impl Into<String>, action: Value, deadline: SignedDuration) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            action,
            deadline,
            undo: None,
            undo_deadline: undo_deadline(),
            point_of_no_return: false,
            holds: None,
            releases: Vec::new(),
            outside: false,
        }
    }

    /// Adds how undoing it is called.
    #[must_use]
    pub fn undone_by(mut self, title: impl Into<String>) -> Self {
        self.undo = Some(title.into());
        self
    }

    /// Adds what stays behind until it is undone or released.
    #[must_use]
    pub fn holding(mut self, what: impl Into<String>) -> Self {
        self.holds = Some(what.into());
        self
    }

    /// Adds an earlier step whose hold ends with this one.
    #[must_use]
    pub fn releasing(mut self, step: impl Into<String>) -> Self {
        self.releases.push(step.into());
        self
    }

    /// Makes it the point of no return.
    #[must_use]
    pub fn irrevocable(mut self) -> Self {
        self.point_of_no_return = true;
        self
    }

    /// Has it undone also when all the rest is let go.
    #[must_use]
    pub fn outside(mut self) -> Self {
        self.outside = true;
        self
    }
}

/// Neighbouring steps that share one deadline, besides each its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stretch {
    /// What they do together, for people: `stop and copy the app`.
    pub title: String,
    /// Id of the first step. The time counts from its first attempt.
    pub from: String,
    /// Id of the last step.
    pub to: String,
    /// How long all of them may take together. A step that is not done by then has failed.
    #[serde(with = "crate::duration")]
    pub deadline: SignedDuration,
}

fn undo_deadline() -> SignedDuration {
    SignedDuration::from_secs(30)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_undo_deadline(deadline: &SignedDuration) -> bool {
    *deadline == undo_deadline()
}

/// An ordered list of steps with everything they were computed from.
///
/// A plan never changes once it is stored: later edits of the app do not reach a running operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// [`Plan::VERSION`] of the engine that made it. An engine refuses a version it does not know.
    pub plan_version: u32,
    /// Which workflow's runner understands the actions: `app-upgrade`.
    pub workflow: String,
    /// The unique id of the operation, the request's UID.
    pub operation: String,
    /// All resolved inputs.
    pub inputs: Value,
    /// The steps.
    pub steps: Vec<Step>,
    /// Deadlines that several steps share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stretches: Vec<Stretch>,
    /// SHA-256, in hex, over everything above.
    pub hash: String,
}

/// Why a plan was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two steps have the same id.
    #[error("two steps of the plan are called {0:?}")]
    DuplicateStep(String),
    /// A step releases one that does not come before it.
    #[error("step {step:?} releases {released:?}, which does not come before it")]
    UnknownRelease {
        /// The step.
        step: String,
        /// What it claims to release.
        released: String,
    },
    /// A shared deadline names steps that are not there, or in the wrong order.
    #[error("the plan has no stretch of steps from {from:?} to {to:?}")]
    UnknownStretch {
        /// The first step.
        from: String,
        /// The last.
        to: String,
    },
    /// There is nothing to do.
    #[error("the plan has no steps")]
    Empty,
    /// Plan and journal could outgrow the store.
    #[error("the plan could need {needed} bytes with its journal, and {} fit", Plan::MAX_RECORD)]
    TooLarge {
        /// Bytes.
        needed: usize,
    },
    /// It was made by another engine.
    #[error("the plan has version {found}, and this engine knows only {}", Plan::VERSION)]
    UnknownVersion {
        /// Its version.
        found: u32,
    },
    /// It is not what was accepted.
    #[error("the plan's content does not match its hash")]
    Altered,
    /// The workflow has no runner here.
    #[error("the plan is for workflow {found:?}, which is not run here")]
    UnknownWorkflow {
        /// Its workflow.
        found: String,
    },
}

impl Coded for PlanError {
    fn code(&self) -> &'static str {
        match self {
            Self::DuplicateStep(_) | Self::UnknownRelease { .. } | Self::UnknownStretch { .. } | Self::Empty => {
                "plan-malformed"
            }
            Self::TooLarge { .. } => "plan-too-large",
            Self::UnknownVersion { .. } => "plan-version-unknown",
            Self::Altered => "plan-altered",
            Self::UnknownWorkflow { .. } => "plan-workflow-unknown",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::TooLarge { .. } => "split the app into several that are upgraded one after the other".into(),
            Self::UnknownVersion { .. } | Self::UnknownWorkflow { .. } => {
                "let the version of Windlass that made the plan finish it".into()
            }
            Self::Altered => {
                "restore the request's status; else put the app back by hand (operations: If Windlass is gone), then remove the request's finalizer"
                    .into()
            }
            _ => "this is a defect of Windlass: please report it".into(),
        }
    }

    fn is_retryable(&self) -> bool {
        false
    }
}

impl Plan {
    /// The version of plans that this engine makes and understands.
    pub const VERSION: u32 = 1;
    /// The most bytes a plan and its journal may ever take together, as JSON: a third of what etcd takes in one request.
    pub const MAX_RECORD: usize = 512 * 1024;

    /// Makes a plan, or refuses one that is malformed or could outgrow the store.
    pub fn new(workflow: &str, operation: &str, inputs: Value, steps: Vec<Step>) -> Result<Self, PlanError> {
        let mut plan = Self {
            plan_version: Self::VERSION,
            workflow: workflow.into(),
            operation: operation.into(),
            inputs,
            steps,
            stretches: Vec::new(),
            hash: String::new(),
        };
        plan.seal()?;
        Ok(plan)
    }

    /// The plan with one more deadline that several steps share, or a refusal as by [`Plan::new`].
    pub fn bounded_by(mut self, stretch: Stretch) -> Result<Self, PlanError> {
        self.stretches.push(stretch);
        self.seal()?;
        Ok(self)
    }

    fn seal(&mut self) -> Result<(), PlanError> {
        self.check_shape()?;
        self.hash = self.content_hash();
        self.leaves_room_for(0)
    }

    /// Refuses when a plan like this one with so many more steps, without undo, could not be stored with its journal: for
    /// workflows that may have to be followed by a longer one.
    pub fn leaves_room_for(&self, more_steps: usize) -> Result<(), PlanError> {
        let size = json_len(self);
        let step = size / self.steps.len().max(1);
        let ids = self.steps.iter().map(|step| json_len(&step.id));
        let longest = ids.clone().max().unwrap_or(0);
        // Each entry names its step, and so do the reason to turn back and the end.
        let named = ids.sum::<usize>() + (more_steps + 2) * longest;
        // An operation goes on only from what is done, and then undoes what can be: so one step at most stays unfinished without that.
        let undoable = self.steps.iter().filter(|step| step.undo.is_some()).count();
        let done = self.steps.len() - undoable + more_steps;
        let entries = (undoable + 1) * journal::MAX_ENTRY + done * journal::MAX_DONE + journal::MAX_FRAME;
        let needed = size + more_steps * step + entries + named;
        if needed > Self::MAX_RECORD {
            return Err(PlanError::TooLarge { needed });
        }
        Ok(())
    }

    /// Refuses a plan that this engine cannot continue: another version, or not what was accepted.
    pub fn verify(&self) -> Result<(), PlanError> {
        if self.plan_version != Self::VERSION {
            return Err(PlanError::UnknownVersion { found: self.plan_version });
        }
        if self.hash != self.content_hash() {
            return Err(PlanError::Altered);
        }
        self.check_shape()
    }

    /// The step of that id and its position.
    pub fn step(&self, id: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.id == id)
    }

    fn check_shape(&self) -> Result<(), PlanError> {
        if self.steps.is_empty() {
            return Err(PlanError::Empty);
        }
        let mut seen = std::collections::BTreeSet::new();
        for step in &self.steps {
            if let Some(released) = step.releases.iter().find(|id| !seen.contains(id.as_str())) {
                return Err(PlanError::UnknownRelease { step: step.id.clone(), released: released.clone() });
            }
            if !seen.insert(step.id.as_str()) {
                return Err(PlanError::DuplicateStep(step.id.clone()));
            }
        }
        for stretch in &self.stretches {
            let (from, to) = (self.step(&stretch.from), self.step(&stretch.to));
            if from.zip(to).is_none_or(|((from, _), (to, _))| from > to) {
                let (from, to) = (stretch.from.clone(), stretch.to.clone());
                return Err(PlanError::UnknownStretch { from, to });
            }
        }
        Ok(())
    }

    /// The hash is taken over sorted JSON without nulls, so that it survives a store that reorders keys or drops nulls, as
    /// JSON merge patches do.
    fn content_hash(&self) -> String {
        let mut content = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = content.as_object_mut() {
            fields.remove("hash");
        }
        drop_nulls(&mut content);
        content.sort_all_objects();
        let digest = Sha256::digest(content.to_string().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn json_len<T: Serialize>(value: &T) -> usize {
    serde_json::to_string(value).map_or(usize::MAX / 2, |text| text.len())
}
