//! One request: what was asked for, how far it is, how it ended.

use jiff::Timestamp;
use serde::Serialize;
use windlass_api::{
    Components, Duration, Leftover, OperationStatus, Outcome, RecordedCommit, RollbackData, RollbackTo,
};

use super::plan::{PlanView, record};
use crate::error::CliError;
use crate::request::Request;
use crate::table::{Cell, fields, render};
use crate::text::{components, instant};

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestView {
    pub(crate) request: String,
    pub(crate) namespace: String,
    pub(crate) app: String,
    pub(crate) asked: Asked,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<String>,
    dry_run: bool,
    cancelled: bool,
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) phase: Option<String>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended_for: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) down_for: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_point: Option<String>,
    commits: Vec<RecordedCommit>,
    leftovers: Vec<Leftover>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub(crate) enum Asked {
    Upgrade { target: Components },
    Rollback { to: RollbackTo, data: RollbackData },
}

impl Asked {
    /// In a few words.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Upgrade { target } => components(target),
            Self::Rollback { to, data } => {
                let place = match (&to.upgrade_request, &to.restore_point) {
                    (Some(upgrade), _) => format!("before {upgrade}"),
                    (None, Some(point)) => format!("to {point}"),
                    (None, None) => "to -".into(),
                };
                match data {
                    RollbackData::Restore => format!("{place}, data restored"),
                    RollbackData::Keep => format!("{place}, data kept"),
                }
            }
        }
    }
}

impl From<&Request> for RequestView {
    fn from(request: &Request) -> Self {
        let status: OperationStatus = request.status().cloned().unwrap_or_default();
        let (asked, reason, requested_by) = match request {
            Request::Upgrade(request) => (
                Asked::Upgrade { target: request.spec.target.components.clone() },
                request.spec.reason.clone(),
                request.spec.requested_by.clone(),
            ),
            Request::Rollback(request) => (
                Asked::Rollback { to: request.spec.to.clone(), data: request.spec.data },
                request.spec.reason.clone(),
                request.spec.requested_by.clone(),
            ),
        };
        Self {
            request: request.reference().to_string(),
            namespace: request.meta().namespace.clone().unwrap_or_default(),
            app: request.app().to_owned(),
            asked,
            reason,
            requested_by,
            dry_run: request.is_dry_run(),
            cancelled: request.is_cancelled(),
            created_at: request.created(),
            phase: status.phase,
            outcome: status.outcome,
            message: status.message,
            started_at: status.started_at,
            finished_at: status.finished_at,
            suspended_for: status.suspended_for,
            down_for: status.down_for,
            restore_point: status.restore_point,
            commits: status.commits,
            leftovers: status.leftovers,
        }
    }
}

/// What `show upgrade` and `show rollback` write.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    #[serde(flatten)]
    request: RequestView,
    plan: Option<PlanView>,
}

impl Shown {
    /// With the plan, which must be readable.
    pub(crate) fn of(request: &Request) -> Result<Self, CliError> {
        let plan = record(request)?.as_ref().map(PlanView::from);
        Ok(Self { request: request.into(), plan })
    }

    /// For people.
    pub(crate) fn text(&self, now: Timestamp, color: bool, program: &str) -> String {
        let mut text = summary(&self.request, color);
        if let Some(plan) = &self.plan {
            text.push('\n');
            text.push_str(&plan.steps(now, color));
        }
        if self.request.outcome.is_none() {
            text.push_str(&format!(
                "\nFollow it: {program} wait {} -n {}\n",
                self.request.request, self.request.namespace
            ));
        }
        text
    }

    /// The plan alone, for `plan`.
    pub(crate) fn plan_text(&self, color: bool) -> String {
        let Some(plan) = &self.plan else { return String::new() };
        let mut lines = vec![("App", format!("{}/{}", self.request.namespace, self.request.app))];
        lines.extend(plan.effects());
        // The operator adds its warnings to the message of a planned request.
        lines.extend(self.request.message.iter().map(|message| ("Message", message.clone())));
        format!("{}\n{}", fields(&lines), plan.planned_steps(color))
    }
}

fn duration(duration: Option<Duration>) -> String {
    duration.map(|duration| crate::text::took(duration.as_signed())).unwrap_or_default()
}

/// The request without its steps: what follows an operation at its end, and heads `show`.
pub(crate) fn summary(request: &RequestView, color: bool) -> String {
    let state = match (request.outcome, &request.phase) {
        (Some(outcome), _) => format!("{outcome:?}"),
        (None, Some(phase)) => phase.clone(),
        (None, None) => "not begun".into(),
    };
    let flags = match (request.dry_run, request.cancelled) {
        (true, _) => " (plan only)",
        (false, true) => " (cancelled)",
        (false, false) => "",
    };
    let took = match (request.started_at, request.finished_at) {
        (Some(start), Some(end)) => crate::text::took(end.duration_since(start)),
        _ => String::new(),
    };
    let commits: Vec<String> = request
        .commits
        .iter()
        .map(|commit| format!("{} in {}", commit.sha.get(..12).unwrap_or(&commit.sha), commit.repository))
        .collect();
    let mut text = fields(&[
        ("Request", format!("{}{flags}", request.request)),
        ("App", format!("{}/{}", request.namespace, request.app)),
        ("Asked", request.asked.in_words()),
        ("Reason", request.reason.clone().unwrap_or_default()),
        ("By", request.requested_by.clone().unwrap_or_default()),
        ("State", state),
        ("Message", request.message.clone().unwrap_or_default()),
        ("Started", request.started_at.map(instant).unwrap_or_default()),
        ("Took", took),
        ("Suspended", duration(request.suspended_for)),
        ("Stopped", duration(request.down_for)),
        ("Restore point", request.restore_point.clone().unwrap_or_default()),
        ("Commits", commits.join(", ")),
    ]);
    if !request.leftovers.is_empty() {
        let rows: Vec<Vec<Cell>> = request
            .leftovers
            .iter()
            .map(|left| vec![Cell::from(&left.what), Cell::from(&left.why), instant(left.since).into()])
            .collect();
        text.push('\n');
        text.push_str(&render(&["LEFT BEHIND", "WHY", "SINCE"], &rows, color));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_running_upgrade_is_shown_with_its_steps() {
        let shown = Shown::of(&samples::running_upgrade()).unwrap();
        assert_eq!(
            shown.text(samples::now(), false, "windlass"),
            "\
Request:  upgrade/notes-2
App:      notes/notes
Asked:    chart=1.4.1
Reason:   CVE-2026-0001
By:       jane
State:    Snapshotting
Message:  take a snapshot of claim data: waiting for the driver
Started:  2026-11-20T14:29:00Z

#   STATE   TOOK   STEP
1   done    2s     suspend HelmRelease notes/notes
2   doing   58s    take a snapshot of claim data: waiting for the driver
3   -       -      push the commit (point of no return)
4   -       -      wait until it is healthy

Follow it: windlass wait upgrade/notes-2 -n notes
"
        );
    }

    #[test]
    fn what_was_left_behind_is_listed() {
        let text = Shown::of(&samples::failed_rollback()).unwrap().text(samples::now(), false, "windlass");
        assert_eq!(
            text,
            "\
Request:        rollback/notes-2-rollback
App:            notes/notes
Asked:          before notes-2, data restored
State:          Failed
Message:        it did not work
Started:        2026-11-20T14:29:00Z
Took:           50s
Suspended:      40s
Stopped:        30s
Restore point:  notes-2
Commits:        0123456789ab in apps

LEFT BEHIND                         WHY                       SINCE
HelmRelease notes/notes suspended   the value is not in Git   2026-11-20T14:29:50Z
"
        );
    }

    #[test]
    fn a_request_is_one_document() {
        let value = serde_json::to_value(Shown::of(&samples::running_upgrade()).unwrap()).unwrap();
        assert_eq!(value["request"], "upgrade/notes-2");
        assert_eq!(value["asked"]["target"]["chart"], "1.4.1");
        assert_eq!(value["outcome"], serde_json::Value::Null);
        assert_eq!(value["plan"]["steps"][1]["state"], "Doing");
        assert_eq!(value["plan"]["steps"][1]["deadline"], "10m");
    }
}
