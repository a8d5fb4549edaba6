//! What people see of an operation, derived from its plan and journal alone.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use upgrade_core::Failure;
use upgrade_core::engine::{Cause, Course, Entry, Journal, Outcome, Plan, StepState};
use windlass_api::Duration;

/// The fields of the status that follow from plan and journal, as a merge patch.
pub fn derive(plan: &Plan, journal: &Journal) -> Value {
    let commits: Vec<Value> = journal
        .entries
        .iter()
        .filter_map(|entry| {
            let repository = entry.step.strip_prefix("commit/push/")?;
            let sha = entry.evidence.get("sha")?;
            Some(json!({"repository": repository, "sha": sha, "parent": entry.evidence.get("parent")}))
        })
        .collect();
    let restore_point = plan.inputs.get("restorePoint").and_then(Value::as_str).filter(|name| !name.is_empty());
    let leftovers = if journal.outcome.is_some() { leftovers(plan, journal) } else { Vec::new() };
    let mut fields = json!({
        "message": summary(plan, journal),
        "startedAt": journal.started_at,
        "finishedAt": journal.finished_at,
        "suspendedFor": suspended_for(journal).map(|duration| duration.to_string()),
        "downFor": down_for(journal).map(|duration| duration.to_string()),
        "restorePoint": restore_point,
        "commits": commits,
        "leftovers": leftovers,
    });
    // After the end the phase is the outcome, which is not for the journal alone to say.
    let over = matches!(&journal.outcome, Some(outcome) if !matches!(outcome, Outcome::LetGo { .. }));
    if let Value::Object(fields) = &mut fields
        && !over
    {
        fields.insert("phase".into(), phase(plan, journal).into());
    }
    fields
}

/// What a rollback has taken over from an operation, for its status.
pub fn taken_over(plan: &Plan, journal: &Journal, rollback: &str) -> Vec<Value> {
    let mut left = leftovers(plan, journal);
    for left in &mut left {
        left["why"] = format!("rollback {rollback} has taken it over, and none has succeeded yet").into();
    }
    left
}

/// The sentence for people, and how much is left.
pub fn summary(plan: &Plan, journal: &Journal) -> String {
    let message = message(plan, journal);
    match journal.leftovers(plan).len() {
        left if left > 0 && journal.outcome.is_some() => format!("{message}; {left} left: see status.leftovers"),
        _ => message,
    }
}

/// What an ended operation has left, for the status.
pub fn leftovers(plan: &Plan, journal: &Journal) -> Vec<Value> {
    let since = journal.finished_at.unwrap_or(journal.started_at);
    journal
        .leftovers(plan)
        .into_iter()
        .map(|left| {
            let why = if left.retried { format!("{}; it is tried again", left.why) } else { left.why };
            json!({"what": left.what, "object": left.step, "why": why, "since": since})
        })
        .collect()
}

/// The entry that is being worked on.
fn current(journal: &Journal) -> Option<&Entry> {
    let busy = |entry: &&Entry| matches!(entry.state, StepState::Doing | StepState::Undoing);
    journal.entries.iter().find(busy).or(journal.entries.last())
}

/// One word for people.
pub fn phase(plan: &Plan, journal: &Journal) -> String {
    let ended = match &journal.outcome {
        Some(Outcome::Succeeded) => Some("Succeeded"),
        Some(Outcome::Undone(Cause::Cancelled)) => Some("Cancelled"),
        Some(Outcome::Undone(Cause::StepFailed { .. })) => Some("Undone"),
        Some(Outcome::Failed { .. }) => Some("Failed"),
        Some(Outcome::LetGo { .. }) => Some("LetGo"),
        None if journal.course != Course::Forward => Some("Undoing"),
        None => None,
    };
    if let Some(ended) = ended {
        return ended.into();
    }
    let step = current(journal).map_or("", |entry| entry.step.as_str());
    let step = if step.is_empty() { plan.steps.first().map_or("", |step| step.id.as_str()) } else { step };
    let (verb, rest) = step.split_once('/').unwrap_or((step, ""));
    match (verb, rest) {
        ("suspend", _) => "Suspending",
        ("protect", _) => "Protecting",
        ("stop", _) => "Stopping",
        ("snapshot", _) => "Snapshotting",
        ("stage" | "commit", _) => "Committing",
        ("release", _) => "Releasing",
        ("verify", "soak") => "Soaking",
        ("verify", _) => "Verifying",
        ("restore", _) => "Restoring",
        ("swap", _) => "SwappingVolumes",
        ("finish", _) => "Finishing",
        _ => "Running",
    }
    .into()
}

/// One sentence for people.
pub fn message(plan: &Plan, journal: &Journal) -> String {
    match &journal.outcome {
        Some(Outcome::Succeeded) => return "done".into(),
        Some(Outcome::Undone(cause)) => {
            let undone = journal.leftovers(plan).is_empty();
            return match cause {
                Cause::Cancelled if undone => "cancelled; everything is as it was found".into(),
                Cause::Cancelled => "cancelled; not everything is as it was found".into(),
                Cause::StepFailed { step, failure } => {
                    let rest = if undone { "what was begun was undone" } else { "not all that was begun was undone" };
                    format!("{}; {rest}", failed_step(plan, step, failure))
                }
            };
        }
        Some(Outcome::Failed { step, failure }) => return failed_step(plan, step, failure),
        Some(Outcome::LetGo { why }) => return format!("let go, because {why}"),
        None => {}
    }
    let Some(entry) = current(journal) else { return "about to begin".into() };
    let mut text = title(plan, &entry.step);
    if entry.state == StepState::Undoing {
        text = plan.step(&entry.step).and_then(|(_, step)| step.undo.clone()).unwrap_or(text);
    }
    match (&entry.error, entry.waiting_for.as_str()) {
        (Some(error), _) => format!("{text}: {error}"),
        (None, "") => text,
        (None, waiting) => format!("{text}: waiting for {waiting}"),
    }
}

/// A missed deadline names the step itself.
fn failed_step(plan: &Plan, step: &str, failure: &Failure) -> String {
    if failure.code == "deadline-exceeded" { failure.to_string() } else { format!("{}: {failure}", title(plan, step)) }
}

fn title(plan: &Plan, step: &str) -> String {
    plan.step(step).map_or_else(|| step.to_owned(), |(_, step)| step.title.clone())
}

fn starts_with<'a>(journal: &'a Journal, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
    journal.entries.iter().filter(move |entry| entry.step.starts_with(prefix) && entry.begun)
}

/// To the millisecond: more is noise to people.
fn measured(from: Timestamp, until: Timestamp) -> Duration {
    let millis = until.duration_since(from).as_millis();
    Duration::from_measured(SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
}

/// From the first suspension to the last resume (or undone suspension).
pub fn suspended_for(journal: &Journal) -> Option<Duration> {
    let from = starts_with(journal, "suspend/").map(|entry| entry.began_at).min()?;
    let resumed = starts_with(journal, "release/resume/").filter_map(|entry| entry.finished_at).max();
    let undone = starts_with(journal, "suspend/").filter(|entry| entry.state == StepState::Undone);
    let until = resumed.or_else(|| undone.filter_map(|entry| entry.finished_at).max())?;
    Some(measured(from, until))
}

/// From the first stop to the first ready pod (or the undone stop).
pub fn down_for(journal: &Journal) -> Option<Duration> {
    let from = starts_with(journal, "stop/").map(|entry| entry.began_at).min()?;
    let served = journal.evidence("verify/healthy").get("since").and_then(Value::as_str);
    let served: Option<Timestamp> = served.and_then(|text| text.parse().ok());
    let undone = starts_with(journal, "stop/").filter(|entry| entry.state == StepState::Undone);
    let until = served.or_else(|| undone.filter_map(|entry| entry.finished_at).max())?;
    Some(measured(from, until))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn journal(entries: &[Value]) -> Journal {
        let full = |entry: &Value| {
            let mut full = json!({"attempt": 1, "begun": true});
            json_patch::merge(&mut full, entry);
            full
        };
        let entries: Vec<Value> = entries.iter().map(full).collect();
        serde_json::from_value(json!({"course": "forward", "entries": entries, "planHash": "", "startedAt": at(0)}))
            .unwrap()
    }

    fn at(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}Z")
    }

    #[test]
    fn an_undone_operation_was_suspended_and_down_from_its_first_stop_to_its_last_undo() {
        let undone = |step: &str, began: u32, started: u32, finished: u32| json!({"step": step, "state": "Undone", "beganAt": at(began), "startedAt": at(started), "finishedAt": at(finished)});
        let journal = journal(&[undone("suspend/a", 1, 22, 23), undone("stop/deployment/a", 3, 20, 21)]);
        assert_eq!(suspended_for(&journal).unwrap().to_string(), "22s");
        assert_eq!(down_for(&journal).unwrap().to_string(), "18s");
    }
}
