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
    /// `None` when its inputs cannot be read: not the same as no effects.
    effects: Option<Effects>,
    steps: Vec<StepView>,
}

/// What a plan means for the app.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Effects {
    changes: Vec<Change>,
    stops: Vec<String>,
    claims: Vec<String>,
    restore_point: String,
    restores_data: bool,
    auto_rollback: AutoRollback,
    accepted: Vec<String>,
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
        let entry = |id: &str| record.journal.as_ref().and_then(|journal| journal.entry(id));
        Self {
            effects: inputs.as_ref().map(Effects::from),
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
        Some(StepState::Kept) => ("kept", Style::Bad),
    }
}

impl From<&AppInputs> for Effects {
    fn from(inputs: &AppInputs) -> Self {
        let stopped = inputs.workloads.iter().filter(|_| inputs.stopped);
        Self {
            changes: inputs
                .changes()
                .map(|(from, to)| Change {
                    component: to.pin.component.clone(),
                    from: from.value.clone(),
                    to: to.value.clone(),
                })
                .collect(),
            stops: stopped.map(|workload| workload.object.to_string()).collect(),
            claims: inputs.claim_names(),
            restore_point: inputs.restore_point.clone(),
            restores_data: inputs.restore.is_some(),
            auto_rollback: inputs.auto_rollback,
            accepted: inputs.accepted.clone(),
        }
    }
}

impl Effects {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let changes =
            self.changes.iter().map(|change| format!("{} {} -> {}", change.component, change.from, change.to));
        let changes = changes.collect::<Vec<_>>().join(", ");
        let downtime = if self.stops.is_empty() {
            "nothing is stopped".to_owned()
        } else {
            format!("{} stopped: {}", count(self.stops.len(), "workload"), self.stops.join(", "))
        };
        let claims = |what: &str| format!("{} {what}: {}", count(self.claims.len(), "claim"), self.claims.join(", "));
        let data = match (self.claims.is_empty(), self.restores_data, self.restore_point.as_str()) {
            (true, ..) => "no claims: nothing is copied, and no data can be brought back".to_owned(),
            (_, true, point) => claims(&format!("put back from {point}")),
            (_, false, "") => claims("left alone"),
            (_, false, point) => claims(&format!("copied to {point}")),
        };
        let changes = if changes.is_empty() { "no version changes".to_owned() } else { changes };
        let mut lines = vec![("Changes", changes), ("Downtime", downtime), ("Data", data)];
        if !self.accepted.is_empty() {
            lines.push(("Accepted", self.accepted.join(", ")));
        }
        lines
    }
}

impl PlanView {
    /// What it means for the app, before it is begun.
    pub(crate) fn effects(&self) -> Vec<(&'static str, String)> {
        match &self.effects {
            Some(effects) => effects.lines(),
            None => vec![("Effects", "cannot be read by this version of windlass: see the steps".into())],
        }
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
    fn what_a_plan_means_is_said_and_never_guessed() {
        let record = record(&samples::planned_upgrade()).unwrap().unwrap();
        let unreadable = PlanView::from(&record);
        assert_eq!(
            unreadable.effects(),
            [("Effects", "cannot be read by this version of windlass: see the steps".to_owned())]
        );
        let mut effects = Effects {
            changes: vec![Change { component: "chart".into(), from: "1.4.0".into(), to: "1.4.1".into() }],
            stops: vec!["StatefulSet notes/notes".into()],
            claims: vec!["data-notes-0".into(), "logs".into()],
            restore_point: "notes-2".into(),
            restores_data: false,
            auto_rollback: AutoRollback::default(),
            accepted: Vec::new(),
        };
        let lines = |effects: &Effects| effects.lines().into_iter().map(|(_, line)| line).collect::<Vec<_>>();
        assert_eq!(
            lines(&effects),
            [
                "chart 1.4.0 -> 1.4.1",
                "1 workload stopped: StatefulSet notes/notes",
                "2 claims copied to notes-2: data-notes-0, logs"
            ]
        );
        effects.restores_data = true;
        assert_eq!(lines(&effects)[2], "2 claims put back from notes-2: data-notes-0, logs");
        effects.claims.clear();
        assert_eq!(lines(&effects)[2], "no claims: nothing is copied, and no data can be brought back");
        effects.accepted = vec!["drop-claim/logs".into(), "add-claim/more".into()];
        assert_eq!(effects.lines()[3], ("Accepted", "drop-claim/logs, add-claim/more".to_owned()));
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
