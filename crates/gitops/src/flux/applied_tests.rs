//! The predicate, clause by clause: everything healthy is done, and each single thing that is not is seen.

use serde_json::{Value, json};
use upgrade_core::ports::{Applied, ObjectRef};

use super::super::fixtures::{
    OLDER, OURS, apps_object, condition, git_repository, helm_chart, kustomization, ready, release, release_object,
    revision,
};
use super::{ManifestsReading, PinReading, Reading, ReleaseReading, applied, failing_objects};

/// The objects of one reading, still as JSON so that a test can change any field.
struct World {
    release: Value,
    kustomization: Value,
    source: Value,
    chart: Value,
    /// Whether the app is the Kustomization with its Deployment, and not the HelmRelease below it.
    plain: bool,
    shows: Option<&'static str>,
}

impl World {
    fn release() -> Self {
        Self {
            release: release().json,
            kustomization: kustomization().json,
            source: git_repository().json,
            chart: helm_chart().json,
            plain: false,
            shows: Some("1.1.0"),
        }
    }

    fn plain() -> Self {
        Self { plain: true, ..Self::release() }
    }

    fn verdict(&self) -> Applied {
        let typed = |json: &Value| json.clone();
        let pinned = if self.plain { ObjectRef::new("apps", "Deployment", "notes", "web") } else { release_object() };
        let releases = ReleaseReading {
            object: release_object(),
            release: serde_json::from_value(typed(&self.release)).unwrap(),
            chart: (!self.chart.is_null()).then(|| serde_json::from_value(typed(&self.chart)).unwrap()),
            chart_version: Some("1.1.0".into()),
        };
        let manifests = ManifestsReading {
            object: apps_object(),
            kustomization: serde_json::from_value(typed(&self.kustomization)).unwrap(),
            source: (!self.source.is_null()).then(|| serde_json::from_value(typed(&self.source)).unwrap()),
            own: self.plain,
            carries: true,
        };
        let reading = Reading {
            manifests: vec![manifests],
            releases: if self.plain { Vec::new() } else { vec![releases] },
            pins: vec![PinReading {
                component: "chart".into(),
                object: pinned,
                wanted: "1.1.0".into(),
                shows: self.shows.map(Into::into),
            }],
        };
        applied(&reading, &["ffffffffffffffffffffffffffffffffffffffff".into(), OURS.into()])
    }
}

fn pending(world: &World) -> String {
    match world.verdict() {
        Applied::Pending(missing) => missing,
        other => panic!("{other:?}"),
    }
}

fn neighbours(world: &World) -> Vec<String> {
    match world.verdict() {
        Applied::Done { neighbours, .. } => neighbours,
        other => panic!("{other:?}"),
    }
}

/// Sets a field, or removes it when the value is null.
fn set(json: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match json.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        parent => parent[key] = value,
    }
}

fn add_condition(json: &mut Value, condition: Value) {
    json["status"]["conditions"].as_array_mut().unwrap().push(condition);
}

const TOKEN: &str = "/metadata/annotations/reconcile.fluxcd.io~1requestedAt";

fn ask_again(json: &mut Value) {
    *json.pointer_mut(TOKEN).unwrap() = "t10".into();
}

#[test]
fn everything_healthy_is_done_and_says_what_proves_it() {
    let Applied::Done { evidence, neighbours } = World::release().verdict() else { panic!("not done") };
    assert!(evidence.contains("release 5 of chart 1.1.0 is deployed"), "{evidence}");
    assert!(evidence.contains(OURS), "{evidence}");
    assert_eq!(neighbours, Vec::<String>::new());
    assert!(matches!(World::plain().verdict(), Applied::Done { .. }));
}

#[test]
fn every_clause_about_a_release_is_needed() {
    let rows: Vec<(&str, &str, Value)> = vec![
        ("is suspended", "/spec/suspend", json!(true)),
        ("has not answered the newest request", "/status/lastHandledReconcileAt", json!("t8")),
        ("has not answered the newest request", "/status/lastHandledReconcileAt", Value::Null),
        ("has not seen its newest spec", "/status/observedGeneration", json!(2)),
        ("has not tried its newest spec", "/status/lastAttemptedGeneration", json!(2)),
        ("has not tried its newest spec", "/status/lastAttemptedGeneration", Value::Null),
        ("is not ready: Ready=False", "/status/conditions/0", ready("UpgradeFailed", "no", "False")),
        ("is not ready: Ready=Unknown", "/status/conditions/0", ready("Progressing", "", "Unknown")),
        ("is not ready: Ready is not there", "/status/conditions", json!([])),
        ("has released nothing", "/status/history", json!([])),
        ("is failed, not deployed", "/status/history/0/status", json!("failed")),
        ("is pending-upgrade, not deployed", "/status/history/0/status", json!("pending-upgrade")),
        ("came from \"rollback\"", "/status/history/0/action", json!("rollback")),
        ("came from \"uninstall-remediation\"", "/status/history/0/action", json!("uninstall-remediation")),
        ("came from \"\"", "/status/history/0/action", Value::Null),
        ("is not of version 1.1.0", "/status/history/0/chartVersion", json!("1.0.0")),
        ("not made from the newest values", "/status/history/0/configDigest", json!("sha256:old")),
        ("not made from the newest values", "/status/lastAttemptedConfigDigest", Value::Null),
    ];
    for (expected, pointer, value) in rows {
        let mut world = World::release();
        set(&mut world.release, pointer, value);
        let missing = pending(&world);
        assert!(missing.contains(expected), "{pointer}: {missing}");
    }
    for (expected, condition) in [
        ("is working", condition("Reconciling", "True", "Progressing", "Running upgrade")),
        ("was remediated", condition("Remediated", "True", "RollbackSucceeded", "")),
        ("was remediated", condition("Remediated", "False", "RollbackFailed", "")),
    ] {
        let mut world = World::release();
        add_condition(&mut world.release, condition);
        assert!(pending(&world).contains(expected));
    }
}

#[test]
fn a_suspended_release_that_looks_healthy_on_the_new_version_is_not_done() {
    // What helm-controller writes while suspended: the new spec observed, the token handled, the old Ready=True left.
    let mut world = World::release();
    set(&mut world.release, "/spec/suspend", json!(true));
    set(&mut world.release, "/status/lastAttemptedGeneration", json!(2));
    set(&mut world.release, "/status/history/0/chartVersion", json!("1.0.0"));
    assert!(matches!(world.verdict(), Applied::Pending(_)));
    // The same status right after the resume, before the controller came by.
    set(&mut world.release, "/spec/suspend", Value::Null);
    ask_again(&mut world.release);
    assert!(matches!(world.verdict(), Applied::Pending(_)));
}

#[test]
fn a_controller_without_actions_in_its_history_is_understood() {
    let mut world = World::release();
    set(&mut world.release, "/status/history/0/action", Value::Null);
    set(&mut world.release, "/status/lastAttemptedReleaseAction", json!("upgrade"));
    assert!(matches!(world.verdict(), Applied::Done { .. }));
}

#[test]
fn stalled_is_final_only_as_an_answer_to_the_newest_request_by_a_running_controller() {
    let stalled = || {
        let mut world = World::release();
        add_condition(&mut world.release, condition("Stalled", "True", "RetriesExceeded", "Failed to upgrade"));
        set(&mut world.release, "/status/conditions/0", ready("UpgradeFailed", "timed out", "False"));
        world
    };
    let Applied::Failed(why) = stalled().verdict() else { panic!("not failed") };
    assert!(why.contains("RetriesExceeded"), "{why}");
    let mut old = stalled();
    ask_again(&mut old.release);
    assert!(pending(&old).contains("RetriesExceeded"));
    let mut suspended = stalled();
    set(&mut suspended.release, "/spec/suspend", json!(true));
    assert!(matches!(suspended.verdict(), Applied::Pending(_)));
    let mut unseen = stalled();
    set(&mut unseen.release, "/status/observedGeneration", json!(2));
    assert!(matches!(unseen.verdict(), Applied::Pending(_)));
}

#[test]
fn a_failed_upgrade_that_will_be_tried_again_is_not_final() {
    let mut world = World::release();
    set(&mut world.release, "/status/conditions/0", ready("UpgradeFailed", "timed out", "False"));
    set(&mut world.release, "/status/history/0/status", json!("failed"));
    add_condition(&mut world.release, condition("Reconciling", "True", "ProgressingWithRetry", ""));
    assert!(matches!(world.verdict(), Applied::Pending(_)));
}

#[test]
fn the_chart_must_be_of_the_wanted_version() {
    let mut world = World::release();
    set(&mut world.chart, "/status/artifact/revision", json!("1.1.0+2"));
    assert!(matches!(world.verdict(), Applied::Done { .. }), "what Flux appends does not count");
    set(&mut world.chart, "/status/artifact/revision", json!("1.0.0"));
    assert!(pending(&world).contains("is at 1.0.0, not 1.1.0"));
    world.chart = Value::Null;
    assert!(pending(&world).contains("is at no version"));
}

#[test]
fn every_clause_about_the_source_is_needed() {
    let rows: Vec<(&str, &str, Value)> = vec![
        ("is suspended", "/spec/suspend", json!(true)),
        ("has not answered the newest request", "/status/lastHandledReconcileAt", json!("t8")),
        ("has not seen its newest spec", "/status/observedGeneration", json!(2)),
        ("without our commit", "/status/artifact/revision", json!(revision(OLDER))),
        ("without our commit", "/status/artifact/revision", json!(format!("sha256:{OURS}"))),
        ("no artifact, without our commit", "/status/artifact", Value::Null),
        ("is not ready", "/status/conditions/0", ready("GitOperationFailed", "", "False")),
        ("is not ready", "/status/conditions", json!([])),
    ];
    for (expected, pointer, value) in rows {
        for mut world in [World::release(), World::plain()] {
            set(&mut world.source, pointer, value.clone());
            let missing = pending(&world);
            assert!(missing.contains(expected), "{pointer}: {missing}");
        }
    }
    let mut world = World::release();
    world.source = Value::Null;
    assert!(pending(&world).contains("is gone"));
}

#[test]
fn a_source_that_gave_up_before_our_commit_is_final_and_after_it_is_not() {
    let mut world = World::release();
    set(&mut world.source, "/status/conditions/0", ready("URLInvalid", "", "False"));
    add_condition(&mut world.source, condition("Stalled", "True", "URLInvalid", ""));
    assert!(matches!(world.verdict(), Applied::Pending(_)));
    set(&mut world.source, "/status/artifact/revision", json!(revision(OLDER)));
    assert!(matches!(world.verdict(), Applied::Failed(_)));
}

#[test]
fn a_branch_head_beyond_our_commit_is_as_good() {
    let mut world = World::release();
    let beyond = json!("release/a@b@sha1:ffffffffffffffffffffffffffffffffffffffff");
    set(&mut world.source, "/status/artifact/revision", beyond.clone());
    set(&mut world.kustomization, "/status/lastAttemptedRevision", beyond.clone());
    set(&mut world.kustomization, "/status/lastAppliedRevision", beyond);
    assert!(matches!(world.verdict(), Applied::Done { .. }));
}

#[test]
fn every_clause_about_a_kustomization_is_needed() {
    let rows: Vec<(&str, &str, Value)> = vec![
        ("is suspended", "/spec/suspend", json!(true)),
        ("has not answered the newest request", "/status/lastHandledReconcileAt", json!("t8")),
        ("has tried main@sha1:aaaa", "/status/lastAttemptedRevision", json!(revision(OLDER))),
        ("has tried no revision", "/status/lastAttemptedRevision", Value::Null),
        ("has applied main@sha1:aaaa", "/status/lastAppliedRevision", json!(revision(OLDER))),
        ("is not settled", "/status/observedGeneration", json!(2)),
    ];
    for (expected, pointer, value) in rows {
        for mut world in [World::release(), World::plain()] {
            set(&mut world.kustomization, pointer, value.clone());
            let missing = pending(&world);
            assert!(missing.contains(expected), "{pointer}: {missing}");
        }
    }
    for (pointer, value) in [
        ("/status/conditions/0", ready("Progressing", "", "Unknown")),
        ("/status/conditions/0", ready("BuildFailed", "no such file", "False")),
        ("/status/conditions/0", ready("ReconciliationFailed", "dry-run failed", "False")),
        ("/status/conditions", json!([])),
    ] {
        let mut world = World::plain();
        set(&mut world.kustomization, pointer, value);
        assert!(pending(&world).contains("is not settled"));
    }
    let mut world = World::plain();
    add_condition(&mut world.kustomization, condition("Reconciling", "True", "Progressing", ""));
    assert!(pending(&world).contains("is not settled"));
}

#[test]
fn a_shared_parent_that_fails_on_another_app_is_told_and_fails_nothing() {
    let trouble = "health check failed after 30s: timeout waiting for: [Deployment/other/other status: 'InProgress']";
    for (reason, status) in
        [("HealthCheckFailed", "False"), ("ReconciliationFailed", "False"), ("Progressing", "Unknown")]
    {
        let mut world = World::release();
        set(&mut world.kustomization, "/status/conditions/0", ready(reason, trouble, status));
        set(&mut world.kustomization, "/status/lastAppliedRevision", json!(revision(OLDER)));
        set(&mut world.kustomization, "/status/observedGeneration", json!(1));
        let told = neighbours(&world);
        assert!(told.len() == 1 && told[0].contains("Deployment/other/other"), "{told:?}");
        // But it must have tried our commit, and this status must be an answer to our request.
        let mut untried = World { kustomization: world.kustomization.clone(), ..World::release() };
        set(&mut untried.kustomization, "/status/lastAttemptedRevision", json!(revision(OLDER)));
        assert!(matches!(untried.verdict(), Applied::Pending(_)));
        ask_again(&mut world.kustomization);
        assert!(matches!(world.verdict(), Applied::Pending(_)));
    }
}

#[test]
fn a_parent_in_between_without_any_request_of_ours_may_be_at_its_first_try() {
    let mut world = World::release();
    set(&mut world.kustomization, "/status/conditions/0", ready("Progressing", "", "Unknown"));
    set(&mut world.kustomization, "/metadata/annotations", Value::Null);
    assert!(pending(&world).contains("is not settled"));
}

#[test]
fn a_stalled_shared_parent_is_final_only_when_our_commit_was_not_tried() {
    let mut world = World::release();
    set(&mut world.kustomization, "/status/conditions/0", ready("InvalidCELExpression", "", "False"));
    add_condition(&mut world.kustomization, condition("Stalled", "True", "InvalidCELExpression", ""));
    assert_eq!(neighbours(&world).len(), 1);
    set(&mut world.kustomization, "/status/lastAttemptedRevision", json!(revision(OLDER)));
    assert!(matches!(world.verdict(), Applied::Failed(_)));
    ask_again(&mut world.kustomization);
    assert!(matches!(world.verdict(), Applied::Pending(_)));
}

#[test]
fn an_own_kustomization_is_judged_by_the_pinned_objects_in_its_failed_health_check() {
    let fails_on = |objects: &str| {
        let mut world = World::plain();
        let message = format!("health check failed after 30s: timeout waiting for: [{objects}]");
        set(&mut world.kustomization, "/status/conditions/0", ready("HealthCheckFailed", &message, "False"));
        set(&mut world.kustomization, "/status/lastAppliedRevision", json!(revision(OLDER)));
        set(&mut world.kustomization, "/status/observedGeneration", json!(1));
        add_condition(&mut world.kustomization, condition("Reconciling", "True", "ProgressingWithRetry", ""));
        world
    };
    assert_eq!(neighbours(&fails_on("Deployment/other/web status: 'InProgress'")).len(), 1);
    let ours = "HelmRelease/x/x status: 'Failed': a, b, Deployment/notes/web status: 'InProgress'";
    assert!(pending(&fails_on(ours)).contains("is not settled"));
    assert!(pending(&fails_on("")).contains("is not settled"), "a message that names nothing clears nobody");
}

#[test]
fn an_own_kustomization_that_gave_up_is_final() {
    let mut world = World::plain();
    set(&mut world.kustomization, "/status/conditions/0", ready("AccessDenied", "", "False"));
    add_condition(&mut world.kustomization, condition("Stalled", "True", "AccessDenied", "not allowed"));
    assert!(matches!(world.verdict(), Applied::Failed(_)));
    set(&mut world.kustomization, "/spec/suspend", json!(true));
    assert!(matches!(world.verdict(), Applied::Pending(_)));
}

#[test]
fn a_pin_that_shows_something_else_or_nothing_is_not_applied() {
    for shows in [Some("1.2.0"), None] {
        let world = World { shows, ..World::release() };
        assert!(pending(&world).contains("for chart, not 1.1.0"));
    }
    assert!(matches!(applied(&Reading::default(), &[OURS.into()]), Applied::Pending(_)));
}

#[test]
fn the_objects_of_a_failed_health_check_are_read_from_its_message() {
    let message = "health check failed after 1.2s: failed early due to stalled resources: [HelmRelease/a/b status: 'Failed': x: [y], ClusterThing/c status: 'InProgress', can't determine status for Job/d/e]";
    assert_eq!(failing_objects(message), ["HelmRelease/a/b", "ClusterThing/c", "Job/d/e"]);
    assert_eq!(failing_objects("timeout waiting for: [Job/d/e status: 'InProgress', Job/d/"), Vec::<&str>::new());
    assert_eq!(failing_objects("context canceled"), Vec::<&str>::new());
}
