//! A list of conditions as Flux keeps it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest message the API accepts, in bytes.
const MAX_MESSAGE: usize = 32_768;

/// Conditions of one object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Conditions(Vec<Condition>);

impl Conditions {
    pub(super) fn get(&self, kind: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.type_ == kind)
    }

    pub(super) fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|condition| condition.status == "True")
    }

    pub(super) fn reason(&self, kind: &str) -> &str {
        self.get(kind).map_or("", |condition| &condition.reason)
    }

    pub(super) fn remove(&mut self, kind: &str) {
        self.0.retain(|condition| condition.type_ != kind);
    }

    /// Says that something is going on, which ends a stall.
    pub(super) fn reconciling(&mut self, at: &At, reason: &str, message: &str) {
        self.remove("Stalled");
        self.set(at, "Reconciling", "True", reason, message);
    }

    /// Says that nothing will go on until the spec changes.
    pub(super) fn stalled(&mut self, at: &At, reason: &str, message: &str) {
        self.remove("Reconciling");
        self.set(at, "Stalled", "True", reason, message);
    }

    /// Sets a condition; the time of transition changes only with the status.
    pub(super) fn set(&mut self, at: &At, kind: &str, status: &str, reason: &str, message: &str) {
        let before = self.get(kind).filter(|before| before.status == status);
        let since = before.map_or_else(|| Time(at.now), |before| before.last_transition_time.clone());
        let condition = Condition {
            last_transition_time: since,
            message: message.chars().take(MAX_MESSAGE / 4).collect(),
            observed_generation: Some(at.generation),
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: kind.to_owned(),
        };
        match self.0.iter_mut().find(|condition| condition.type_ == kind) {
            Some(present) => *present = condition,
            None => self.0.push(condition),
        }
    }
}

/// When, and of which generation of the object, a condition is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) now: Timestamp,
    pub(super) generation: i64,
}

/// The condition of that type in a status of any kind.
pub(super) fn find<'a>(status: Option<&'a Value>, kind: &str) -> Option<&'a Value> {
    let conditions = status?.get("conditions")?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
}

/// Whether the condition is True.
pub(super) fn is_true(status: Option<&Value>, kind: &str) -> bool {
    find(status, kind).and_then(|condition| condition.get("status")).and_then(Value::as_str) == Some("True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_transition_moves_only_with_the_status() {
        let at = |second| At { now: Timestamp::from_second(second).unwrap(), generation: second };
        let mut conditions = Conditions::default();
        conditions.set(&at(1), "Ready", "True", "A", "");
        conditions.set(&at(2), "Ready", "True", "B", "");
        assert_eq!(conditions.get("Ready").unwrap().last_transition_time.0, at(1).now);
        assert_eq!(conditions.reason("Ready"), "B");
        conditions.set(&at(3), "Ready", "False", "C", "");
        assert_eq!(conditions.get("Ready").unwrap().last_transition_time.0, at(3).now);
    }
}
