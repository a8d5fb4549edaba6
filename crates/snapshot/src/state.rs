//! What a snapshot is worth, from its two objects.
//!
//! The snapshot object alone proves nothing: its content must name it back, by UID, and must have been made from the volume
//! that was meant. Errors have no code of their own; the gRPC code inside their text tells whether waiting helps, and a text
//! without one means wait.

use kube::{Resource as _, ResourceExt as _};
use upgrade_core::ports::SnapshotState;
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotContent};

use crate::labels::{DRIVER, OPERATION, VOLUME_HANDLE};
use crate::{Error, bytes};

/// The state of a snapshot. `content` is the object that the snapshot's status names, if it names one and it exists.
pub fn snapshot(snapshot: &VolumeSnapshot, content: Option<&VolumeSnapshotContent>) -> Result<SnapshotState, Error> {
    let status = snapshot.status.clone().unwrap_or_default();
    let content_status = content.and_then(|content| content.status.clone()).unwrap_or_default();
    let size = status.restore_size.as_deref().map(bytes).transpose().map_err(|source| Error::Quantity {
        of: format!("the restore size of snapshot {}", snapshot.name_any()),
        source,
    })?;
    let error = [status.error, content_status.error].into_iter().flatten().find_map(|error| error.message);
    // The content says it to the nanosecond, the snapshot to the second.
    let cut_at = content_status
        .creation_time
        .and_then(|nanoseconds| jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok())
        .or(status.creation_time);
    Ok(SnapshotState {
        uid: snapshot.uid().unwrap_or_default(),
        operation: snapshot.labels().get(OPERATION).cloned().unwrap_or_default(),
        content: status.bound_volume_snapshot_content_name.clone(),
        handle: content_status.snapshot_handle.filter(|handle| !handle.is_empty()),
        cut_at,
        restore_size: content_status.restore_size.or(size).filter(|size| *size > 0),
        ready: status.ready_to_use == Some(true) && content_status.ready_to_use == Some(true),
        mismatch: mismatch(snapshot, status.bound_volume_snapshot_content_name.as_deref(), content),
        retained: content.is_some_and(|content| content.spec.deletion_policy.as_deref() == Some("Retain")),
        error_is_final: error.as_deref().is_some_and(is_final),
        error,
    })
}

fn mismatch(snapshot: &VolumeSnapshot, named: Option<&str>, content: Option<&VolumeSnapshotContent>) -> Option<String> {
    if snapshot.meta().deletion_timestamp.is_some() {
        return Some("the snapshot is being deleted".into());
    }
    let Some(named) = named else { return Some("no content is bound yet".into()) };
    let Some(content) = content else { return Some(format!("content {named} does not exist")) };
    if content.meta().deletion_timestamp.is_some() {
        return Some(format!("content {named} is being deleted"));
    }
    let back = &content.spec.volume_snapshot_ref;
    let differs = |what: &str, expected: Option<&str>, seen: Option<&str>| {
        let (expected, seen) = (expected.unwrap_or("(none)"), seen.unwrap_or("(none)"));
        // What is not known on one side proves nothing, so two absent values differ as well.
        (expected != seen || expected == "(none)")
            .then(|| format!("content {named} has {what} {seen}, expected {expected}"))
    };
    let annotations = snapshot.annotations();
    differs("the snapshot name", snapshot.meta().name.as_deref(), back.name.as_deref())
        .or_else(|| differs("the namespace", snapshot.meta().namespace.as_deref(), back.namespace.as_deref()))
        .or_else(|| differs("the snapshot UID", snapshot.meta().uid.as_deref(), back.uid.as_deref()))
        .or_else(|| differs("the driver", annotations.get(DRIVER).map(String::as_str), Some(&content.spec.driver)))
        .or_else(|| {
            let seen = content.spec.source.volume_handle.as_deref();
            differs("the source volume", annotations.get(VOLUME_HANDLE).map(String::as_str), seen)
        })
}

/// Whether waiting will not help. The controllers try again for ever either way.
fn is_final(message: &str) -> bool {
    const FINAL: [&str; 6] =
        ["InvalidArgument", "NotFound", "Unimplemented", "PermissionDenied", "FailedPrecondition", "OutOfRange"];
    // The outermost code is the one the controller acts on.
    let Some((_, rest)) = message.split_once("rpc error: code = ") else { return false };
    FINAL.iter().any(|code| rest.strip_prefix(code).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pair() -> (Value, Value) {
        let snapshot = json!({
            "metadata": {
                "name": "s", "namespace": "notes", "uid": "su", "labels": { OPERATION: "op" },
                "annotations": { DRIVER: "d", VOLUME_HANDLE: "h" }
            },
            "spec": { "source": { "persistentVolumeClaimName": "data" } },
            "status": {
                "boundVolumeSnapshotContentName": "c", "readyToUse": true, "restoreSize": "1Gi",
                "creationTime": "2026-11-20T14:29:58Z"
            }
        });
        let content = json!({
            "metadata": { "name": "c", "uid": "cu" },
            "spec": {
                "volumeSnapshotRef": { "name": "s", "namespace": "notes", "uid": "su" },
                "deletionPolicy": "Retain", "driver": "d", "source": { "volumeHandle": "h" }
            },
            "status": {
                "snapshotHandle": "sh", "creationTime": 1_795_185_000_123_456_789_i64, "restoreSize": 1_073_741_824, "readyToUse": true
            }
        });
        (snapshot, content)
    }

    fn state(change: impl Fn(&mut Value, &mut Value)) -> SnapshotState {
        let (mut s, mut c) = pair();
        change(&mut s, &mut c);
        super::snapshot(&from_value(s).unwrap(), Some(&from_value(c).unwrap())).unwrap()
    }

    #[test]
    fn a_bound_pair_is_read_in_full() {
        let state = state(|_, _| {});
        assert_eq!(state.mismatch, None);
        assert!(state.ready && state.retained && state.error.is_none());
        assert_eq!(
            (state.handle.as_deref(), state.restore_size, state.operation.as_str()),
            (Some("sh"), Some(1 << 30), "op")
        );
        assert_eq!(state.cut_at.unwrap().as_nanosecond(), 1_795_185_000_123_456_789);
    }

    #[test]
    fn whatever_does_not_point_both_ways_is_a_mismatch() {
        let changes: [fn(&mut Value, &mut Value); 10] = [
            |_, c| c["spec"]["volumeSnapshotRef"]["uid"] = json!("other"),
            |_, c| c["spec"]["volumeSnapshotRef"]["name"] = json!("other"),
            |_, c| c["spec"]["volumeSnapshotRef"]["namespace"] = json!("other"),
            |_, c| c["spec"]["volumeSnapshotRef"]["uid"] = Value::Null,
            |_, c| c["spec"]["driver"] = json!("other"),
            |_, c| c["spec"]["source"] = json!({ "volumeHandle": "other" }),
            |_, c| c["spec"]["source"] = json!({ "snapshotHandle": "sh" }),
            |s, _| s["metadata"]["annotations"] = json!({}),
            |s, _| s["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            |s, _| s["status"] = json!({ "readyToUse": true }),
        ];
        for (index, change) in changes.iter().enumerate() {
            assert!(state(change).mismatch.is_some(), "change {index}");
        }
        let snapshot = from_value(pair().0).unwrap();
        let without = super::snapshot(&snapshot, None).unwrap();
        assert!(without.mismatch.is_some() && !without.ready && !without.retained);
    }

    #[test]
    fn ready_is_only_what_both_objects_say() {
        assert!(!state(|s, _| s["status"]["readyToUse"] = Value::Null).ready);
        assert!(!state(|_, c| c["status"]["readyToUse"] = json!(false)).ready);
        assert_eq!(
            state(|s, c| {
                s["status"]["restoreSize"] = Value::Null;
                c["status"]["restoreSize"] = json!(0);
            })
            .restore_size,
            None
        );
    }

    #[test]
    fn only_codes_that_do_not_pass_make_an_error_final() {
        for (message, expected) in [
            ("failed to take snapshot of the volume h: \"rpc error: code = InvalidArgument desc = no\"", true),
            ("rpc error: code = FailedPrecondition desc = not attached", true),
            ("rpc error: code = NotFound desc = x", true),
            ("rpc error: code = DeadlineExceeded desc = NotFound", false),
            ("rpc error: code = Unavailable desc = x", false),
            ("rpc error: code = Internal desc = x", false),
            ("rpc error: code = NotFoundish desc = x", false),
            ("VolumeSnapshotContent is missing", false),
        ] {
            let seen = state(|s, _| s["status"]["error"] = json!({ "message": message }));
            assert_eq!((seen.error.as_deref(), seen.error_is_final), (Some(message), expected), "{message}");
        }
    }
}
