//! Suspending, the hold that says who did, and letting go: what to write, decided on the object as read.

use serde_json::{Value, json};
use upgrade_core::ports::{Hold, ObjectRef, Suspension};

use super::error::FluxError;
use super::live::{Live, REQUESTED_AT};

/// Annotation: UID of the request that suspended the object.
pub const HELD_BY: &str = "upgrades.windlass.dev/held-by";
/// Where that operation stands.
const STAGE: &str = "upgrades.windlass.dev/hold-stage";
/// `spec.suspend` before: `absent`, `false` or `true`.
const AS_FOUND: &str = "upgrades.windlass.dev/hold-as-found";

fn as_found_text(suspend: Option<bool>) -> &'static str {
    match suspend {
        None => "absent",
        Some(false) => "false",
        Some(true) => "true",
    }
}

/// `spec.suspend` before the hold, as recorded by it.
pub(super) fn as_found(live: &Live) -> Option<Option<bool>> {
    match live.annotation(AS_FOUND)? {
        "absent" => Some(None),
        "false" => Some(Some(false)),
        "true" => Some(Some(true)),
        _ => None,
    }
}

/// What is known about the suspension of an object.
pub(super) fn suspension(live: &Live) -> Suspension {
    let handled = live.text("/status/lastHandledReconcileAt");
    Suspension {
        uid: live.uid().to_owned(),
        suspend: live.suspend(),
        held_by: live.annotation(HELD_BY).map(ToOwned::to_owned),
        stage: live.annotation(STAGE).map(ToOwned::to_owned),
        as_found: as_found(live),
        requested: live.annotation(REQUESTED_AT).map(ToOwned::to_owned),
        handled: (!handled.is_empty()).then(|| handled.to_owned()),
    }
}

fn held_by_other(object: &ObjectRef, operation: &str, holder: &str) -> FluxError {
    FluxError::HeldByOther { object: object.to_string(), operation: operation.to_owned(), holder: holder.to_owned() }
}

/// The patch that suspends; `None` when it is all there.
///
/// When the object is already held, by this operation or by one that is taken over, the state before *that* hold stays
/// recorded: what is found now is only our own suspension.
pub(super) fn suspend(live: &Live, hold: &Hold) -> Result<Option<Value>, FluxError> {
    let object = &live.object;
    if live.is_terminating() {
        // Deleting a suspended HelmRelease leaves its release behind for ever.
        return Err(FluxError::Terminating { object: object.to_string() });
    }
    let found = match live.annotation(HELD_BY) {
        None if live.suspend() == Some(true) => {
            return Err(FluxError::SuspendedByOthers { object: object.to_string() });
        }
        None => hold.as_found,
        Some(holder) if holder == hold.operation || hold.take_over.iter().any(|earlier| earlier == holder) => {
            as_found(live).unwrap_or(hold.as_found)
        }
        Some(holder) => return Err(held_by_other(object, &hold.operation, holder)),
    };
    let annotations = [
        (HELD_BY, hold.operation.as_str()),
        (STAGE, hold.stage.as_str()),
        (AS_FOUND, as_found_text(found)),
        (REQUESTED_AT, hold.token.as_str()),
    ];
    if live.suspend() == Some(true) && annotations.iter().all(|(key, value)| live.annotation(key) == Some(*value)) {
        return Ok(None);
    }
    let annotations: serde_json::Map<String, Value> =
        annotations.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Ok(Some(json!({ "metadata": { "annotations": annotations }, "spec": { "suspend": true } })))
}

/// The patch that changes the stage of our hold; `None` when it is there.
pub(super) fn set_stage(live: &Live, operation: &str, stage: &str) -> Result<Option<Value>, FluxError> {
    match live.annotation(HELD_BY) {
        Some(holder) if holder == operation => {}
        Some(holder) => return Err(held_by_other(&live.object, operation, holder)),
        None => return Err(FluxError::HoldLost { object: live.object.to_string(), operation: operation.to_owned() }),
    }
    if live.annotation(STAGE) == Some(stage) {
        return Ok(None);
    }
    Ok(Some(json!({ "metadata": { "annotations": { STAGE: stage } } })))
}

/// The patch that lets go; `None` when nothing of ours is there any more.
pub(super) fn resume(
    live: &Live,
    operation: &str,
    as_found: Option<bool>,
    token: &str,
) -> Result<Option<Value>, FluxError> {
    match live.annotation(HELD_BY) {
        Some(holder) if holder == operation => {}
        Some(holder) => return Err(held_by_other(&live.object, operation, holder)),
        None if live.suspend() == Some(true) && as_found != Some(true) => {
            return Err(FluxError::SuspendedByOthers { object: live.object.to_string() });
        }
        None => return Ok(None),
    }
    let annotations = json!({ HELD_BY: null, STAGE: null, AS_FOUND: null, REQUESTED_AT: token });
    // A null removes the field: a `false` left behind would be owned by us and stand against Git for ever.
    Ok(Some(json!({ "metadata": { "annotations": annotations }, "spec": { "suspend": as_found } })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(suspend: Option<bool>, annotations: &[(&str, &str)]) -> Live {
        let mut json = json!({
            "metadata": { "uid": "u", "annotations": annotations.iter().copied().collect::<std::collections::BTreeMap<_, _>>() },
            "spec": {},
            "status": { "lastHandledReconcileAt": "t0" }
        });
        if let Some(suspend) = suspend {
            json["spec"]["suspend"] = suspend.into();
        }
        Live { object: ObjectRef::new("helm.toolkit.fluxcd.io", "HelmRelease", "notes", "notes"), json }
    }

    fn hold(take_over: &[&str]) -> Hold {
        Hold {
            operation: "op-2".into(),
            stage: "held".into(),
            as_found: None,
            token: "t1".into(),
            take_over: take_over.iter().map(ToString::to_string).collect(),
        }
    }

    fn code(result: Result<Option<Value>, FluxError>) -> &'static str {
        upgrade_core::Coded::code(&result.unwrap_err())
    }

    #[test]
    fn suspend_hold_and_token_are_one_write() {
        let patch = suspend(&live(None, &[]), &hold(&[])).unwrap().unwrap();
        assert_eq!(
            patch,
            json!({
                "metadata": { "annotations": {
                    "upgrades.windlass.dev/held-by": "op-2",
                    "upgrades.windlass.dev/hold-stage": "held",
                    "upgrades.windlass.dev/hold-as-found": "absent",
                    "reconcile.fluxcd.io/requestedAt": "t1"
                } },
                "spec": { "suspend": true }
            })
        );
    }

    #[test]
    fn a_suspension_by_others_is_refused_and_a_declared_false_is_not() {
        assert_eq!(code(suspend(&live(Some(true), &[]), &hold(&[]))), "suspended-by-others");
        assert!(suspend(&live(Some(false), &[]), &hold(&[])).unwrap().is_some());
    }

    #[test]
    fn a_hold_is_a_lock_even_when_somebody_lifted_the_suspension() {
        for found in [None, Some(true)] {
            assert_eq!(code(suspend(&live(found, &[(HELD_BY, "op-1")]), &hold(&[]))), "held-by-other-operation");
        }
    }

    #[test]
    fn a_taken_over_hold_keeps_what_was_found_before_it() {
        let held = live(Some(true), &[(HELD_BY, "op-1"), (AS_FOUND, "false"), (STAGE, "committed")]);
        let patch = suspend(&held, &hold(&["op-1"])).unwrap().unwrap();
        assert_eq!(patch["metadata"]["annotations"][AS_FOUND], "false");
        assert_eq!(patch["metadata"]["annotations"][HELD_BY], "op-2");
    }

    #[test]
    fn suspending_again_with_the_same_token_writes_nothing_and_with_a_new_one_only_asks_anew() {
        let mut held =
            live(Some(true), &[(HELD_BY, "op-2"), (STAGE, "held"), (AS_FOUND, "absent"), (REQUESTED_AT, "t1")]);
        assert_eq!(suspend(&held, &hold(&[])).unwrap(), None);
        held.json["metadata"]["annotations"][REQUESTED_AT] = "t0".into();
        assert!(suspend(&held, &hold(&[])).unwrap().is_some());
    }

    #[test]
    fn a_lifted_suspension_of_ours_is_put_back() {
        let lifted = live(None, &[(HELD_BY, "op-2"), (STAGE, "held"), (AS_FOUND, "absent"), (REQUESTED_AT, "t1")]);
        assert_eq!(suspend(&lifted, &hold(&[])).unwrap().unwrap()["spec"]["suspend"], true);
    }

    #[test]
    fn an_object_being_deleted_is_not_suspended() {
        let mut terminating = live(None, &[]);
        terminating.json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(code(suspend(&terminating, &hold(&[]))), "object-terminating");
    }

    #[test]
    fn resume_puts_back_exactly_what_was_found() {
        let held = live(Some(true), &[(HELD_BY, "op-2")]);
        for (found, expected) in [(None, Value::Null), (Some(false), json!(false))] {
            let patch = resume(&held, "op-2", found, "t2").unwrap().unwrap();
            assert_eq!(patch["spec"]["suspend"], expected);
            assert_eq!(
                patch["metadata"]["annotations"],
                json!({ HELD_BY: null, STAGE: null, AS_FOUND: null, REQUESTED_AT: "t2" })
            );
        }
    }

    #[test]
    fn resume_lets_go_of_nothing_that_is_not_ours() {
        assert_eq!(resume(&live(None, &[]), "op-2", None, "t").unwrap(), None, "already let go");
        assert_eq!(code(resume(&live(Some(true), &[]), "op-2", None, "t")), "suspended-by-others");
        assert_eq!(code(resume(&live(Some(true), &[(HELD_BY, "op-1")]), "op-2", None, "t")), "held-by-other-operation");
    }

    #[test]
    fn only_the_stage_of_a_hold_of_ours_changes() {
        let held = live(Some(true), &[(HELD_BY, "op-2"), (STAGE, "held")]);
        assert_eq!(
            set_stage(&held, "op-2", "committed").unwrap(),
            Some(json!({ "metadata": { "annotations": { STAGE: "committed" } } }))
        );
        assert_eq!(set_stage(&held, "op-2", "held").unwrap(), None);
        assert_eq!(code(set_stage(&held, "op-3", "held")), "held-by-other-operation");
        assert_eq!(code(set_stage(&live(Some(true), &[]), "op-2", "held")), "hold-lost");
    }

    #[test]
    fn a_suspension_is_read_as_it_is_written() {
        let held = live(Some(true), &[(HELD_BY, "op-2"), (STAGE, "held"), (AS_FOUND, "absent"), (REQUESTED_AT, "t1")]);
        assert_eq!(
            suspension(&held),
            Suspension {
                uid: "u".into(),
                suspend: Some(true),
                held_by: Some("op-2".into()),
                stage: Some("held".into()),
                as_found: Some(None),
                requested: Some("t1".into()),
                handled: Some("t0".into()),
            }
        );
        assert_eq!(suspension(&live(None, &[(AS_FOUND, "nonsense")])).as_found, None);
    }
}
