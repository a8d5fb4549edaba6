//! Conditions that `kubectl wait`, kstatus and Flux understand.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object is as its spec wants it, and observed at its present generation.
pub const READY: &str = "Ready";
/// kstatus: work is going on; present only while `True`.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: work has stopped and only a person can help; present only while `True`.
pub const STALLED: &str = "Stalled";
/// A request ended as it was meant to, like a Job.
pub const COMPLETE: &str = "Complete";
/// A request ended otherwise, like a Job.
pub const FAILED: &str = "Failed";
/// A newer version than the running one is allowed by the app's policy.
pub const UPDATE_AVAILABLE: &str = "UpdateAvailable";

/// The three values of a condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Nobody can say.
    Unknown,
}

impl ConditionStatus {
    /// As Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition of this type, if there is one.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Adds or replaces a condition. `lastTransitionTime` moves to `now` only when the status changes.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let existing = conditions.iter_mut().find(|condition| condition.type_ == type_);
    let since = match &existing {
        Some(existing) if existing.status == status.as_str() => existing.last_transition_time.clone(),
        _ => Time(now),
    };
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match existing {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_when_the_status_changes() {
        let (start, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mut list = Vec::new();
        set_condition(&mut list, READY, ConditionStatus::False, "Upgrading", "a", Some(1), start);
        set_condition(&mut list, READY, ConditionStatus::False, "Soaking", "b", Some(2), later);
        let ready = condition(&list, READY).unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.message.as_str(), ready.observed_generation),
            ("Soaking", "b", Some(2))
        );
        assert_eq!(ready.last_transition_time, Time(start));
        set_condition(&mut list, READY, ConditionStatus::True, "Succeeded", "", Some(2), later);
        assert_eq!(condition(&list, READY).unwrap().last_transition_time, Time(later));
        assert_eq!(list.len(), 1);
        assert!(condition(&list, STALLED).is_none());
    }
}
