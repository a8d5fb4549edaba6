//! What changed from one look at a request to the next: a reducer without any I/O.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use upgrade_core::engine::{Cause, Course, Entry, Step, StepState};

use crate::request::Request;
use crate::table::{Style, paint};
use crate::text::{clean, count, took};
use crate::view::plan::{Record, record, state_word};

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub(crate) enum Change {
    /// It has no plan yet, and says why.
    Waiting {
        /// Why.
        message: String,
    },
    /// The plan is made, and it begins.
    Accepted {
        /// How many steps there are.
        steps: usize,
    },
    /// A step came into another state.
    Step {
        /// Which.
        step: StepRef,
        /// The state.
        state: StepState,
        /// How long it took, where it has ended.
        took: Option<String>,
        /// What failed.
        error: Option<String>,
    },
    /// A running step waits for something else than before.
    WaitsFor {
        /// Which.
        step: StepRef,
        /// What for.
        waiting_for: String,
    },
    /// A running step has failed, and is tried again.
    TriesAgain {
        /// Which.
        step: StepRef,
        /// What failed.
        error: String,
    },
    /// From here on it goes back.
    TurnsBack {
        /// Why.
        why: String,
    },
    /// Plan or journal are of another version of Windlass: only the phase is known.
    Phase {
        /// The phase.
        phase: String,
        /// The message.
        message: String,
    },
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepRef {
    number: usize,
    total: usize,
    id: String,
    title: String,
}

/// What was seen of one step.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    state: StepState,
    waiting_for: String,
    error: Option<String>,
}

/// What was seen of a request so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    accepted: bool,
    turned_back: bool,
    said: String,
    steps: BTreeMap<String, Seen>,
    /// What goes on now, and since when.
    current: Option<(String, Timestamp)>,
}

impl Progress {
    /// Looks at the request; says what is new.
    pub(crate) fn advance(&mut self, request: &Request) -> Vec<Change> {
        let record = match record(request) {
            Ok(Some(record)) => record,
            Ok(None) => return self.before_the_plan(request),
            Err(_) => return self.phase_only(request),
        };
        let mut changes = Vec::new();
        // A plan without a journal is one that nobody will carry out.
        let Some(journal) = &record.journal else { return changes };
        if !std::mem::replace(&mut self.accepted, true) {
            changes.push(Change::Accepted { steps: record.plan.steps.len() });
        }
        let turns_back = match &journal.course {
            Course::Forward => None,
            Course::Back(Cause::Cancelled) => Some("cancelled".into()),
            Course::Back(Cause::StepFailed { failure, .. }) => Some(failure.to_string()),
            Course::LetGo { why } => Some(why.clone()),
        };
        if let Some(why) = turns_back
            && !std::mem::replace(&mut self.turned_back, true)
        {
            changes.push(Change::TurnsBack { why });
        }
        for entry in &journal.entries {
            self.step(&record, entry, &mut changes);
        }
        let busy = |entry: &&Entry| matches!(entry.state, StepState::Doing | StepState::Undoing);
        self.current = journal.entries.iter().find(busy).and_then(|entry| {
            let (step, _) = find(&record, &entry.step)?;
            Some((describe(&step, entry.state, &entry.waiting_for), entry.started_at))
        });
        changes
    }

    fn before_the_plan(&mut self, request: &Request) -> Vec<Change> {
        let message = request.status().and_then(|status| status.message.clone()).unwrap_or_default();
        let over = request.status().is_some_and(|status| status.outcome.is_some());
        if over || message.is_empty() || message == self.said {
            return Vec::new();
        }
        self.said.clone_from(&message);
        vec![Change::Waiting { message }]
    }

    fn phase_only(&mut self, request: &Request) -> Vec<Change> {
        let status = request.status().cloned().unwrap_or_default();
        let (phase, message) = (status.phase.unwrap_or_default(), status.message.unwrap_or_default());
        let said = format!("{phase}: {message}");
        if said == self.said || status.outcome.is_some() {
            return Vec::new();
        }
        self.said = said;
        vec![Change::Phase { phase, message }]
    }

    fn step(&mut self, record: &Record, entry: &Entry, changes: &mut Vec<Change>) {
        let Some((reference, step)) = find(record, &entry.step) else { return };
        let error = entry.error.as_ref().map(ToString::to_string);
        let seen = Seen { state: entry.state, waiting_for: entry.waiting_for.clone(), error: error.clone() };
        let before = self.steps.insert(entry.step.clone(), seen.clone());
        let running = matches!(entry.state, StepState::Doing | StepState::Undoing);
        if before.as_ref().is_none_or(|before| before.state != entry.state) {
            let ended = entry.finished_at.filter(|_| !running);
            changes.push(Change::Step {
                step: titled(reference.clone(), step, entry.state),
                state: entry.state,
                took: ended.map(|end| took(end.duration_since(entry.started_at))),
                error: error
                    .clone()
                    .filter(|_| matches!(entry.state, StepState::Failed | StepState::Leftover | StepState::Kept)),
            });
        }
        if !running || before.as_ref() == Some(&seen) {
            return;
        }
        let step = titled(reference, step, entry.state);
        if let Some(error) =
            error.filter(|error| before.as_ref().and_then(|before| before.error.as_ref()) != Some(error))
        {
            changes.push(Change::TriesAgain { step, error });
        } else if !entry.waiting_for.is_empty()
            && before.as_ref().is_none_or(|before| before.waiting_for != entry.waiting_for)
        {
            changes.push(Change::WaitsFor { step, waiting_for: entry.waiting_for.clone() });
        }
    }

    /// What goes on at this moment, for a line that changes.
    pub(crate) fn live(&self, now: Timestamp) -> String {
        match &self.current {
            Some((text, since)) => format!("{text} ({})", took(now.duration_since(*since).max(SignedDuration::ZERO))),
            None if self.accepted => "about to go on".into(),
            None if self.said.is_empty() => "waiting for the operator to take it up".into(),
            None => clean(&self.said),
        }
    }
}

fn find<'a>(record: &'a Record, id: &str) -> Option<(StepRef, &'a Step)> {
    let (at, step) = record.plan.step(id)?;
    let total = record.plan.steps.len();
    Some((StepRef { number: at + 1, total, id: id.to_owned(), title: step.title.clone() }, step))
}

/// A step that is being undone is called by what undoes it.
fn titled(mut reference: StepRef, step: &Step, state: StepState) -> StepRef {
    if matches!(state, StepState::Undoing | StepState::Undone | StepState::Leftover | StepState::Kept) {
        reference.title = step.undo.clone().unwrap_or(reference.title);
    }
    reference
}

fn describe(step: &StepRef, state: StepState, waiting_for: &str) -> String {
    let doing = if state == StepState::Undoing { "undoing: " } else { "" };
    let waiting = if waiting_for.is_empty() { String::new() } else { format!(": waiting for {waiting_for}") };
    clean(&format!("{} {doing}{}{waiting}", number(step), step.title))
}

/// Which of how many, as wide as the widest.
fn number(step: &StepRef) -> String {
    let width = step.total.to_string().len();
    format!("[{:>width$}/{}]", step.number, step.total)
}

impl Change {
    /// One line for people.
    pub(crate) fn line(&self, color: bool) -> String {
        let place = |step: &StepRef| format!("{} {}", number(step), clean(&step.title));
        match self {
            Self::Waiting { message } => clean(message),
            Self::Accepted { steps } => format!("accepted: {}", count(*steps, "step")),
            Self::Step { step, state, took, error } => {
                let (word, style) = state_word(Some(*state));
                let took = took.as_ref().map(|took| format!(" ({took})")).unwrap_or_default();
                let error = error.as_ref().map(|error| format!(": {}", clean(error))).unwrap_or_default();
                format!("{}: {}{took}{error}", place(step), paint(word, style, color))
            }
            Self::WaitsFor { step, waiting_for } => format!("{}: waiting for {}", place(step), clean(waiting_for)),
            Self::TriesAgain { step, error } => {
                format!("{}: {}: {}", place(step), paint("trying again", Style::Busy, color), clean(error))
            }
            Self::TurnsBack { why } => {
                format!("{}: {}; what was begun is undone", paint("turning back", Style::Busy, color), clean(why))
            }
            Self::Phase { phase, message } => clean(&format!("{phase}: {message}")),
        }
    }

    /// Whether a live line shows it well enough: it is about what goes on just now.
    pub(crate) fn is_fleeting(&self) -> bool {
        match self {
            Self::WaitsFor { .. } | Self::Waiting { .. } | Self::Phase { .. } => true,
            Self::Step { state, .. } => matches!(state, StepState::Doing | StepState::Undoing),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::samples::{self, entry, upgrade_with, waiting_upgrade};

    fn lines(progress: &mut Progress, request: &Request) -> Vec<String> {
        progress.advance(request).iter().map(|change| change.line(false)).collect()
    }

    #[test]
    fn each_change_is_said_once() {
        let mut progress = Progress::default();
        let queued = waiting_upgrade("waiting for UpgradeRequest notes-1");
        assert_eq!(lines(&mut progress, &queued), ["waiting for UpgradeRequest notes-1"]);
        assert_eq!(lines(&mut progress, &queued), [""; 0]);
        let running = samples::running_upgrade();
        assert_eq!(
            lines(&mut progress, &running),
            [
                "accepted: 4 steps",
                "[1/4] suspend HelmRelease notes/notes: done (2s)",
                "[2/4] take a snapshot of claim data: doing",
                "[2/4] take a snapshot of claim data: waiting for the driver",
            ]
        );
        assert_eq!(lines(&mut progress, &running), [""; 0]);
        assert_eq!(progress.live(samples::now()), "[2/4] take a snapshot of claim data: waiting for the driver (58s)");
    }

    #[test]
    fn a_failure_and_the_way_back_are_told_in_order() {
        let mut progress = Progress::default();
        let forward = json!("forward");
        let mut second = entry("snapshot/take/data", "Doing", "");
        let first = entry("suspend/helmrelease/notes", "Done", "");
        lines(&mut progress, &upgrade_with(&json!([first, second]), &forward));

        let error = json!({"code": "quota-exceeded", "message": "no quota", "retryable": true});
        second["error"] = error.clone();
        let failing = upgrade_with(&json!([first, second]), &forward);
        assert_eq!(lines(&mut progress, &failing), ["[2/4] take a snapshot of claim data: trying again: no quota"]);
        assert_eq!(lines(&mut progress, &failing), [""; 0]);

        second["state"] = json!("Failed");
        let back = json!({"back": {"stepFailed": {"step": "snapshot/take/data", "failure": error}}});
        let undoing = entry("suspend/helmrelease/notes", "Undoing", "the barrier");
        assert_eq!(
            lines(&mut progress, &upgrade_with(&json!([undoing, second]), &back)),
            [
                "turning back: no quota; what was begun is undone",
                "[1/4] resume HelmRelease notes/notes: undoing",
                "[1/4] resume HelmRelease notes/notes: waiting for the barrier",
                "[2/4] take a snapshot of claim data: failed: no quota",
            ]
        );
        let undone = entry("suspend/helmrelease/notes", "Undone", "");
        assert_eq!(
            lines(&mut progress, &upgrade_with(&json!([undone, second]), &back)),
            ["[1/4] resume HelmRelease notes/notes: undone"]
        );
    }

    #[test]
    fn a_change_is_one_json_object() {
        let mut progress = Progress::default();
        let changes = progress.advance(&samples::running_upgrade());
        assert_eq!(
            serde_json::to_value(&changes[1]).unwrap(),
            json!({"type": "Step", "state": "Done", "took": "2s", "error": null, "step":
                {"number": 1, "total": 4, "id": "suspend/helmrelease/notes", "title": "suspend HelmRelease notes/notes"}})
        );
    }

    #[test]
    fn a_plan_of_another_version_is_followed_by_its_phase() {
        let mut request = samples::running_upgrade();
        let Request::Upgrade(upgrade) = &mut request else { panic!("not an upgrade") };
        upgrade.status.as_mut().unwrap().plan.as_mut().unwrap()["planVersion"] = json!(99);
        let mut progress = Progress::default();
        let expected = "Snapshotting: take a snapshot of claim data: waiting for the driver";
        assert_eq!(lines(&mut progress, &request), [expected]);
        assert_eq!(lines(&mut progress, &request), [""; 0]);
    }
}
