//! Plans with the state of their steps, from what the engine has stored.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use upgrade_core::app::{AppInputs, AutoRollback};
use upgrade_core::engine::{Entry, Journal, Plan, StepState};
use windlass_api::Duration;

use crate::error::CliError;
use crate::request::Request;
use crate::table::{Cell, Style, render};
use crate::text::{count, took};

/// The engine's own records, as stored in a status.
pub(crate) struct Record {
    pub(crate) plan: Plan,
    pub(crate) journal: Option<Journal>,
}

/// Reads plan and journal; `None` before there is a plan.
pub(crate) fn record(request: &Request) -> Result<Option<Record>, CliError> {
    let unreadable = |error: &dyn std::error::Error| CliError::PlanUnreadable {
        request: request.reference().to_string(),
        message: error.to_string(),
    };
    let Some(status) = request.status() else { return Ok(None) };
    let Some(plan) = &status.plan else { return Ok(None) };
    let plan: Plan = serde_json::from_value(plan.clone()).map_err(|error| unreadable(&error))?;
    if plan.plan_version != Plan::VERSION {
        return Err(CliError::PlanUnreadable {
            request: request.reference().to_string(),
            message: format!("it has version {}, and only {} is known", plan.plan_version, Plan::VERSION),
        });
    }
    let journal = status.journal.clone().map(serde_json::from_value).transpose().map_err(|error| unreadable(&error))?;
    Ok(Some(Record { plan, journal }))
}

/// A plan, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanView {
    changes: Vec<Change>,
    stops: Vec<String>,
    claims: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    restore_point: String,
    restores_data: bool,
    auto_rollback: Option<AutoRollback>,
    steps: Vec<StepView>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    component: String,
    from: String,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView {
    number: usize,
    id: String,
    title: String,
    /// `None` until it was begun.
    state: Option<StepState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    point_of_no_return: bool,
    deadline: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    waiting_for: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<&Record> for PlanView {
    fn from(record: &Record) -> Self {
        let plan = &record.plan;
        let inputs: Option<AppInputs> = serde_json::from_value(plan.inputs.clone()).ok();
        let inputs = inputs.as_ref();
        let entry = |id: &str| record.journal.as_ref().and_then(|journal| journal.entry(id));
        Self {
            changes: inputs
                .into_iter()
                .flat_map(AppInputs::changes)
                .map(|(from, to)| Change {
                    component: to.pin.component.clone(),
                    from: from.value.clone(),
                    to: to.value.clone(),
                })
                .collect(),
            stops: inputs
                .into_iter()
                .filter(|inputs| inputs.stopped)
                .flat_map(|inputs| inputs.workloads.iter().map(|workload| workload.object.to_string()))
                .collect(),
            claims: inputs.map(AppInputs::claim_names).unwrap_or_default(),
            restore_point: inputs.map(|inputs| inputs.restore_point.clone()).unwrap_or_default(),
            restores_data: inputs.is_some_and(|inputs| inputs.restore.is_some()),
            auto_rollback: inputs.map(|inputs| inputs.auto_rollback),
            steps: plan
                .steps
                .iter()
                .zip(1..)
                .map(|(step, number)| {
                    let entry = entry(&step.id);
                    StepView {
                        number,
                        id: step.id.clone(),
                        title: step.title.clone(),
                        state: entry.map(|entry| entry.state),
                        undo: step.undo.clone(),
                        point_of_no_return: step.point_of_no_return,
                        deadline: Duration::from_measured(step.deadline),
                        started_at: entry.map(|entry| entry.started_at),
                        finished_at: entry.and_then(|entry| entry.finished_at),
                        waiting_for: entry.map(|entry| entry.waiting_for.clone()).unwrap_or_default(),
                        error: entry.and_then(|entry: &Entry| entry.error.as_ref()).map(ToString::to_string),
                    }
                })
                .collect(),
        }
    }
}

/// A step's state in a word.
pub(crate) fn state_word(state: Option<StepState>) -> (&'static str, Style) {
    match state {
        None => ("-", Style::Dim),
        Some(StepState::Doing) => ("doing", Style::Busy),
        Some(StepState::Done) => ("done", Style::Good),
        Some(StepState::Failed) => ("failed", Style::Bad),
        Some(StepState::Undoing) => ("undoing", Style::Busy),
        Some(StepState::Undone) => ("undone", Style::Dim),
        Some(StepState::Leftover) => ("left over", Style::Bad),
    }
}

impl PlanView {
    /// `chart 1.4.0 -> 1.4.1`, or that no version changes.
    pub(crate) fn changes(&self) -> String {
        if self.changes.is_empty() {
            return "no version changes".into();
        }
        let changes =
            self.changes.iter().map(|change| format!("{} {} -> {}", change.component, change.from, change.to));
        changes.collect::<Vec<_>>().join(", ")
    }

    /// What it means for the app, before it is begun.
    pub(crate) fn effects(&self) -> Vec<(&'static str, String)> {
        let downtime = if self.stops.is_empty() {
            "nothing is stopped".to_owned()
        } else {
            format!("{} stopped: {}", count(self.stops.len(), "workload"), self.stops.join(", "))
        };
        let data = match (self.claims.as_slice(), self.restores_data) {
            ([], _) => "no claims: nothing is copied, and no data can be brought back".to_owned(),
            (claims, true) => {
                format!("{} put back from {}: {}", count(claims.len(), "claim"), self.restore_point, claims.join(", "))
            }
            (claims, false) if self.restore_point.is_empty() => {
                format!("{} left alone: {}", count(claims.len(), "claim"), claims.join(", "))
            }
            (claims, false) => {
                format!("{} copied to {}: {}", count(claims.len(), "claim"), self.restore_point, claims.join(", "))
            }
        };
        vec![("Changes", self.changes()), ("Downtime", downtime), ("Data", data)]
    }

    /// The steps of a plan that was not begun: what undoes each, and within which time it must be done.
    pub(crate) fn planned_steps(&self, color: bool) -> String {
        let passed = self.steps.iter().position(|step| step.point_of_no_return).unwrap_or(self.steps.len());
        let rows: Vec<Vec<Cell>> = self
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| {
                let undo = match &step.undo {
                    _ if step.point_of_no_return => Cell::styled("point of no return", Style::Busy),
                    Some(undo) if at < passed => undo.into(),
                    _ => Cell::styled("-", Style::Dim),
                };
                vec![step.number.to_string().into(), Cell::from(&step.title), step.deadline.to_string().into(), undo]
            })
            .collect();
        render(&["#", "STEP", "WITHIN", "UNDONE BY"], &rows, color)
    }

    /// The steps with their states.
    pub(crate) fn steps(&self, now: Timestamp, color: bool) -> String {
        let rows: Vec<Vec<Cell>> = self
            .steps
            .iter()
            .map(|step| {
                let (word, style) = state_word(step.state);
                let span: Option<SignedDuration> =
                    step.started_at.map(|start| step.finished_at.unwrap_or(now).duration_since(start));
                let mut title = step.title.clone();
                let ended = matches!(step.state, Some(StepState::Done | StepState::Undone));
                match (&step.error, step.waiting_for.as_str()) {
                    (Some(error), _) if !ended => title.push_str(&format!(": {error}")),
                    (_, waiting) if !waiting.is_empty() && !ended => {
                        title.push_str(&format!(": waiting for {waiting}"));
                    }
                    _ if step.point_of_no_return => title.push_str(" (point of no return)"),
                    _ => {}
                }
                vec![
                    step.number.to_string().into(),
                    Cell::styled(word, style),
                    span.map_or_else(|| "-".into(), took).into(),
                    title.into(),
                ]
            })
            .collect();
        render(&["#", "STATE", "TOOK", "STEP"], &rows, color)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_plan_says_what_undoes_each_step_and_from_where_nothing_does() {
        let record = record(&samples::planned_upgrade()).unwrap().unwrap();
        assert_eq!(
            PlanView::from(&record).planned_steps(false),
            "\
#   STEP                              WITHIN   UNDONE BY
1   suspend HelmRelease notes/notes   1m       resume HelmRelease notes/notes
2   take a snapshot of claim data     10m      delete the snapshot
3   push the commit                   2m       point of no return
4   wait until it is healthy          10m      -
"
        );
    }

    #[test]
    fn running_steps_say_what_they_wait_for() {
        let record = record(&samples::running_upgrade()).unwrap().unwrap();
        assert_eq!(
            PlanView::from(&record).steps(samples::now(), false),
            "\
#   STATE   TOOK   STEP
1   done    2s     suspend HelmRelease notes/notes
2   doing   58s    take a snapshot of claim data: waiting for the driver
3   -       -      push the commit (point of no return)
4   -       -      wait until it is healthy
"
        );
    }

    #[test]
    fn a_plan_of_another_version_is_not_guessed_at() {
        let mut request = samples::planned_upgrade();
        let Request::Upgrade(upgrade) = &mut request else { panic!("not an upgrade") };
        let plan = upgrade.status.as_mut().unwrap().plan.as_mut().unwrap();
        plan["planVersion"] = serde_json::json!(99);
        let error = record(&request).err().unwrap();
        assert_eq!(error.code(), "plan-unreadable");
    }
}
