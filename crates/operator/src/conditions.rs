//! The conditions of requests: what `kubectl wait`, kstatus and Flux read of an operation.

use std::borrow::Cow;

use jiff::Timestamp;
use windlass_api::{COMPLETE, Condition, ConditionStatus, FAILED, Outcome, READY, RECONCILING, STALLED, set_condition};

/// When and at which generation of the request something is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    /// One word, in CamelCase.
    pub(crate) reason: &'a str,
    /// For people.
    pub(crate) message: &'a str,
    pub(crate) generation: Option<i64>,
    pub(crate) now: Timestamp,
}

/// The most bytes of a message: the API server takes 32 KiB in a condition, and what it does not take would be tried for ever.
const MAX_MESSAGE: usize = 16 * 1024;

/// The message, cut where it is too long to be written.
pub(crate) fn bounded(message: &str) -> Cow<'_, str> {
    if message.len() <= MAX_MESSAGE {
        return Cow::Borrowed(message);
    }
    let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
    Cow::Owned(format!("{}…", message.get(..end).unwrap_or_default()))
}

/// Of a request that waits for its turn or is being worked on.
pub(crate) fn working(before: &[Condition], said: Said<'_>) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = before.iter().filter(|one| one.type_ != STALLED).cloned().collect();
    set(&mut conditions, READY, ConditionStatus::Unknown, said);
    // The message is said once: it changes with every step.
    set(&mut conditions, RECONCILING, ConditionStatus::True, Said { message: "", ..said });
    conditions
}

/// Of one that cannot be worked on until somebody has acted.
pub(crate) fn stalled(before: &[Condition], said: Said<'_>) -> Vec<Condition> {
    let mut conditions = without_kstatus(before);
    set(&mut conditions, READY, ConditionStatus::Unknown, said);
    set(&mut conditions, STALLED, ConditionStatus::True, said);
    conditions
}

/// Of one that is over. `said.reason` is ignored: the outcome is the reason.
pub(crate) fn ended(before: &[Condition], outcome: Outcome, said: Said<'_>) -> Vec<Condition> {
    let good = matches!(outcome, Outcome::Succeeded | Outcome::NothingToDo | Outcome::Planned);
    let reason = format!("{outcome:?}");
    let said = Said { reason: &reason, ..said };
    let mut conditions = without_kstatus(before);
    set(&mut conditions, if good { COMPLETE } else { FAILED }, ConditionStatus::True, said);
    set(&mut conditions, READY, if good { ConditionStatus::True } else { ConditionStatus::False }, said);
    if !good {
        set(&mut conditions, STALLED, ConditionStatus::True, said);
    }
    conditions
}

/// Those of kstatus are there only while they hold.
fn without_kstatus(before: &[Condition]) -> Vec<Condition> {
    before.iter().filter(|one| !matches!(one.type_.as_str(), RECONCILING | STALLED)).cloned().collect()
}

fn set(conditions: &mut Vec<Condition>, type_: &str, status: ConditionStatus, said: Said<'_>) {
    let Said { reason, message, generation, now } = said;
    set_condition(conditions, type_, status, reason, message, generation, now);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windlass_workloads::kstatus::{Status, verdict};

    use super::*;

    #[test]
    fn a_message_that_the_api_server_would_not_take_is_cut() {
        assert_eq!(bounded("short"), "short");
        let long = "ä".repeat(100_000);
        let cut = bounded(&long);
        assert!(cut.len() <= MAX_MESSAGE + 3 && cut.ends_with("ä…"), "{} bytes", cut.len());
    }

    fn said(reason: &'static str, second: i64) -> Said<'static> {
        Said { reason, message: "m", generation: Some(2), now: Timestamp::from_second(second).unwrap() }
    }

    fn kstatus(conditions: &[Condition]) -> Status {
        let object = json!({
            "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": {"generation": 2},
            "status": {"observedGeneration": 2, "conditions": conditions},
        });
        verdict(Some(&object)).status
    }

    #[test]
    fn a_tool_that_waits_by_kstatus_sees_a_request_as_it_is() {
        let queued = working(&[], said("Queued", 1));
        assert_eq!(kstatus(&queued), Status::InProgress);
        let running = working(&queued, said("Stopping", 2));
        assert_eq!(kstatus(&running), Status::InProgress);
        let stuck = stalled(&running, said("RecordUnreadable", 3));
        assert_eq!(kstatus(&stuck), Status::Failed);
        assert_eq!(kstatus(&working(&stuck, said("Stopping", 4))), Status::InProgress);
        for (outcome, expected) in [
            (Outcome::Succeeded, Status::Current),
            (Outcome::NothingToDo, Status::Current),
            (Outcome::Planned, Status::Current),
            (Outcome::Refused, Status::Failed),
            (Outcome::Cancelled, Status::Failed),
            (Outcome::Undone, Status::Failed),
            (Outcome::RolledBack, Status::Failed),
            (Outcome::NeedsRollback, Status::Failed),
            (Outcome::Failed, Status::Failed),
        ] {
            for before in [&running, &stuck] {
                assert_eq!(kstatus(&ended(before, outcome, said("", 5))), expected, "{outcome:?}");
            }
        }
    }

    #[test]
    fn what_only_holds_for_a_while_is_gone_afterwards_and_times_move_with_the_status_only() {
        let queued = working(&[], said("Queued", 1));
        let running = working(&queued, said("Stopping", 2));
        let since =
            |all: &[Condition]| all.iter().map(|one| one.last_transition_time.0.as_second()).collect::<Vec<_>>();
        assert_eq!((since(&running), running[0].reason.as_str()), (vec![1, 1], "Stopping"));
        let types = |all: &[Condition]| all.iter().map(|one| one.type_.clone()).collect::<Vec<_>>();
        let good = ended(&running, Outcome::Succeeded, said("", 3));
        assert_eq!((types(&good), since(&good)), (vec![READY.into(), COMPLETE.into()], vec![3, 3]));
        let bad = ended(&running, Outcome::Failed, said("", 3));
        assert_eq!(types(&bad), [READY, FAILED, STALLED]);
        assert_eq!(types(&working(&stalled(&running, said("X", 3)), said("Y", 4))), [READY, RECONCILING]);
    }
}
