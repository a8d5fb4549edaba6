//! Asking kustomize-controller, and whether it has applied everything since it was asked.

use upgrade_core::ports::ObjectRef;
use windlass_api::foreign::Kustomization;
use windlass_api::{READY, condition};

use super::live::{Live, REQUESTED_AT};

/// Whether a token of the same family is on the object and not answered yet.
pub(super) fn is_asked(live: &Live, token: &str) -> bool {
    let family = |token: &str| token.rsplit_once('/').map(|(family, _)| family.to_owned());
    live.annotation(REQUESTED_AT).is_some_and(|asked| {
        asked == token
            || (family(token).is_some()
                && family(asked) == family(token)
                && live.text("/status/lastHandledReconcileAt") != asked)
    })
}

/// `Ok` when the last run of a Kustomization began after it was asked by a token that begins with `asked`, was of its newest spec and
/// of what its source has, and came as far as to apply everything. All of it is written at the end of a run, in one write.
///
/// `lastAttemptedRevision` alone is written before anything is applied, and by a run that passed a frozen workload over.
pub(super) fn has_applied(
    object: &ObjectRef,
    kustomization: &Kustomization,
    fetched: Option<&str>,
    asked: &str,
) -> Result<(), String> {
    let status = kustomization.status.clone().unwrap_or_default();
    if !status.last_handled_reconcile_at.as_deref().is_some_and(|handled| handled.starts_with(asked)) {
        return Err(format!("{object} has not run since it was asked to"));
    }
    if status.observed_generation != kustomization.metadata.generation {
        return Err(format!("{object} has not seen its newest spec"));
    }
    let attempted = status.last_attempted_revision.as_deref();
    if attempted.is_none() || attempted != fetched {
        return Err(format!("{object} has not tried yet what its source has"));
    }
    let ready = condition(&status.conditions, READY);
    let has_applied = ready.is_some_and(|ready| match ready.status.as_str() {
        "True" => status.last_applied_revision.as_deref() == attempted,
        // Health is checked when everything is applied, and may hang on the very workload that is at 0 replicas.
        "False" => ready.reason == "HealthCheckFailed",
        _ => false,
    });
    if has_applied {
        return Ok(());
    }
    let why = ready.map_or("nothing".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message));
    Err(format!("{object} has not applied what its source has: it says {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::flux::fixtures::{OLDER, OURS, kustomization, ready, revision};

    #[test]
    fn only_a_run_that_was_asked_for_and_applied_everything_proves_a_template() {
        type Change = fn(&mut Value);
        let cases: [(&str, bool, Change); 10] = [
            ("asked and applied", true, |_| {}),
            ("another attempt of the same asking", true, |k| {
                k["status"]["lastHandledReconcileAt"] = json!("op/start/do/1/3");
            }),
            ("health checked after applying", true, |k| {
                k["status"]["conditions"] = json!([ready("HealthCheckFailed", "timeout", "False")]);
                k["status"]["lastAppliedRevision"] = json!(revision(OLDER));
            }),
            ("an earlier run", false, |k| k["status"]["lastHandledReconcileAt"] = json!("op/attempt/do/1/3")),
            ("never asked", false, |k| k["status"]["lastHandledReconcileAt"] = Value::Null),
            ("of an earlier spec", false, |k| k["metadata"]["generation"] = json!(4)),
            ("of an older revision", false, |k| {
                k["status"]["lastAttemptedRevision"] = json!(revision(OLDER));
                k["status"]["lastAppliedRevision"] = json!(revision(OLDER));
            }),
            ("failed before applying", false, |k| {
                k["status"]["conditions"] = json!([ready("BuildFailed", "no", "False")]);
            }),
            ("running again", false, |k| k["status"]["conditions"] = json!([ready("Progressing", "", "Unknown")])),
            ("nothing is said", false, |k| k["status"]["conditions"] = json!([])),
        ];
        for (what, expected, change) in cases {
            let mut live = kustomization();
            live.json["status"]["lastHandledReconcileAt"] = json!("op/start/do/1/0");
            change(&mut live.json);
            let found = has_applied(&live.object, &live.typed().unwrap(), Some(&revision(OURS)), "op/start/do/1");
            assert_eq!(found.is_ok(), expected, "{what}: {found:?}");
        }
        let live = kustomization();
        assert!(has_applied(&live.object, &live.typed().unwrap(), None, "").is_err(), "nothing is fetched");
    }

    #[test]
    fn a_question_of_the_same_family_stands_until_it_is_answered() {
        for (asked, handled, token, stands) in [
            ("op/do/1/0", "other", "op/do/1/1", true),
            ("op/do/1/0", "op/do/1/0", "op/do/1/1", false),
            ("op/do/1/0", "op/do/1/0", "op/do/1/0", true),
            ("other/0", "x", "op/do/1/1", false),
            ("plain", "x", "token", false),
        ] {
            let mut live = kustomization();
            live.json["metadata"]["annotations"][REQUESTED_AT] = asked.into();
            live.json["status"]["lastHandledReconcileAt"] = handled.into();
            assert_eq!(is_asked(&live, token), stands, "{asked} {handled} {token}");
        }
    }
}
