//! What preflight is told about each object.

use serde_json::{Value, json};
use upgrade_core::ports::{DeliveryRole, Readiness};

use super::super::fixtures::{apps_object, git_repository, kustomization, release, release_object};
use super::super::live::Live;
use super::{FIELD_MANAGER, HELD_BY, facts, parent, parent_refusals, source_facts};

/// A change of some fields of an object.
type Change = &'static [(&'static str, &'static str)];

fn changed(mut live: Live, changes: Change) -> Live {
    for (pointer, value) in changes {
        let value: Value = serde_json::from_str(value).unwrap();
        let mut at = &mut live.json;
        for key in pointer.split('|') {
            at = match key.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[key],
            };
        }
        *at = value;
    }
    live
}

fn codes(live: &Live) -> Vec<String> {
    facts(live, true).unwrap().refusals.into_iter().map(|(code, _)| code).collect()
}

#[test]
fn a_plain_release_is_told_as_it_is() {
    let facts = facts(&release(), true).unwrap();
    assert_eq!(facts.role, DeliveryRole::Release);
    assert_eq!(facts.parent, Some(apps_object()));
    assert_eq!(facts.source.unwrap().to_string(), "HelmRepository notes/charts");
    assert_eq!(facts.suspend, None);
    assert_eq!(facts.readiness, Readiness::Ready);
    assert_eq!(facts.live, [("chart".to_owned(), "1.1.0".to_owned())]);
    assert_eq!((facts.refusals, facts.warnings), (Vec::new(), Vec::new()));
}

#[test]
fn everything_that_makes_a_release_unsafe_is_refused_by_name() {
    let rows: Vec<(&str, Change)> = vec![
        ("version-range", &[("spec|chart|spec|version", "\">=1.0.0\"")]),
        ("version-range", &[("spec|chart|spec|version", "\"1.1\"")]),
        ("version-range", &[("spec|chart|spec|version", "null")]),
        ("chart-ref", &[("spec|chart", "null"), ("spec|chartRef", r#"{"kind":"OCIRepository","name":"notes"}"#)]),
        ("remote-cluster", &[("spec|kubeConfig", r#"{"secretRef":{"name":"x"}}"#)]),
        ("remediation-rollback", &[("spec|upgrade", r#"{"remediation":{"retries":3}}"#)]),
        ("remediation-rollback", &[("spec|upgrade", r#"{"remediation":{"retries":-1}}"#)]),
        ("remediation-rollback", &[("spec|upgrade", r#"{"remediation":{"remediateLastFailure":true}}"#)]),
        ("remediation-uninstall", &[("spec|upgrade", r#"{"remediation":{"retries":1,"strategy":"uninstall"}}"#)]),
        ("remediation-uninstall", &[("spec|install", r#"{"remediation":{"retries":1}}"#), ("status|history", "[]")]),
        ("chart-source-unsupported", &[("spec|chart|spec|sourceRef|kind", "\"Bucket\"")]),
        (
            "drift-detection",
            &[
                ("spec|driftDetection", r#"{"mode":"enabled"}"#),
                (
                    "metadata|managedFields",
                    r#"[{"manager":"kustomize-controller","operation":"Apply","fieldsV1":{"f:spec":{"f:suspend":{}}}}]"#,
                ),
            ],
        ),
        ("chart-name-change", &[("status|history|0|chartName", "\"notes-old\"")]),
        ("release-target-change", &[("spec|targetNamespace", "\"elsewhere\"")]),
        ("release-target-change", &[("spec|storageNamespace", "\"elsewhere\"")]),
        ("release-target-change", &[("spec|releaseName", "\"other\"")]),
        ("values-from", &[("spec|valuesFrom", r#"[{"kind":"Secret","name":"s","targetPath":"image.tag"}]"#)]),
        ("values-from", &[("spec|valuesFrom", r#"[{"kind":"Secret","name":"s","targetPath":"image"}]"#)]),
        ("values-from", &[("spec|valuesFrom", r#"[{"kind":"Secret","name":"s","targetPath":"a\\.b"}]"#)]),
        ("frozen", &[("metadata|annotations", r#"{"kustomize.toolkit.fluxcd.io/reconcile":"Disabled"}"#)]),
        ("frozen", &[("metadata|annotations", r#"{"kustomize.toolkit.fluxcd.io/ssa":"IfNotPresent"}"#)]),
        ("parent-unsupported", &[("metadata|labels|helm.toolkit.fluxcd.io/name", "\"umbrella\"")]),
        ("parent-unsupported", &[("metadata|labels|resourceset.fluxcd.controlplane.io/name", "\"set\"")]),
    ];
    for (code, changes) in rows {
        assert_eq!(codes(&changed(release(), changes)), [code], "{changes:?}");
    }
}

#[test]
fn what_cannot_hurt_an_upgrade_is_not_refused() {
    let rows: Vec<Change> = vec![
        &[("spec|upgrade", r#"{"remediation":{"retries":0}}"#)],
        &[("spec|upgrade", r#"{"strategy":{"name":"RetryOnFailure"},"remediation":{"retries":3}}"#)],
        // Install remediation of a release that has been installed can never strike again.
        &[("spec|install", r#"{"remediation":{"retries":3}}"#)],
        &[
            ("status|history|0|chartName", "\"old\""),
            ("spec|upgrade", r#"{"chartNameChangeStrategy":"InPlaceUpdate"}"#),
        ],
        &[("spec|chart|spec|chart", "\"library/notes\"")],
        &[("spec|releaseName", "\"notes\""), ("spec|targetNamespace", "\"notes\"")],
        &[("spec|driftDetection", r#"{"mode":"disabled"}"#)],
    ];
    for changes in rows {
        let facts = facts(&changed(release(), changes), true).unwrap();
        assert_eq!((facts.refusals, facts.warnings), (Vec::new(), Vec::new()), "{changes:?}");
    }
}

#[test]
fn what_a_person_should_know_is_a_warning() {
    let rows: Vec<(&str, Change)> = vec![
        ("drift detection (enabled)", &[("spec|driftDetection", r#"{"mode":"enabled"}"#)]),
        ("also takes values from ConfigMap c", &[("spec|valuesFrom", r#"[{"kind":"ConfigMap","name":"c"}]"#)]),
        ("also takes values", &[("spec|valuesFrom", r#"[{"kind":"Secret","name":"s","targetPath":"db.password"}]"#)]),
        ("its chart comes from a GitRepository", &[("spec|chart|spec|sourceRef|kind", "\"GitRepository\"")]),
    ];
    for (expected, changes) in rows {
        let facts = facts(&changed(release(), changes), true).unwrap();
        assert_eq!(facts.refusals, Vec::new(), "{changes:?}");
        assert!(facts.warnings.iter().any(|warning| warning.contains(expected)), "{:?}", facts.warnings);
    }
}

#[test]
fn everything_that_makes_a_kustomization_unsafe_is_refused_by_name() {
    let rows: Vec<(&str, Change)> = vec![
        ("force", &[("spec|force", "true")]),
        ("oci-source", &[("spec|sourceRef|kind", "\"OCIRepository\"")]),
        ("oci-source", &[("spec|sourceRef|kind", "\"Bucket\"")]),
        ("remote-cluster", &[("spec|kubeConfig", r#"{"secretRef":{"name":"x"}}"#)]),
    ];
    for (code, changes) in rows {
        assert_eq!(codes(&changed(kustomization(), changes)), [code], "{changes:?}");
    }
    assert_eq!(codes(&kustomization()), Vec::<String>::new());
}

#[test]
fn suspension_hold_and_readiness_are_told_as_found() {
    for (value, expected) in [("true", Some(true)), ("false", Some(false)), ("null", None)] {
        let live = match value {
            "true" => changed(kustomization(), &[("spec|suspend", "true")]),
            "false" => changed(kustomization(), &[("spec|suspend", "false")]),
            _ => kustomization(),
        };
        assert_eq!(facts(&live, false).unwrap().suspend, expected);
    }
    const HOLD: &str = r#"{"upgrades.windlass.dev/held-by":"op-1","upgrades.windlass.dev/hold-as-found":"absent"}"#;
    let held = facts(&changed(kustomization(), &[("metadata|annotations", HOLD)]), false).unwrap();
    assert_eq!((held.held_by.as_deref(), held.held_as_found), (Some("op-1"), Some(None)));
    let failed = changed(kustomization(), &[("status|conditions|0|status", "\"False\"")]);
    let Readiness::NotReady(why) = facts(&failed, false).unwrap().readiness else { panic!("ready") };
    assert_eq!(why, "ReconciliationSucceeded: Applied revision");
    let unknown = changed(kustomization(), &[("status", "{}")]);
    assert_eq!(facts(&unknown, false).unwrap().readiness, Readiness::Unknown);
}

#[test]
fn git_declares_suspend_when_the_applier_owns_it() {
    for (manager, operation, field, declared) in [
        ("kustomize-controller", "Apply", "f:suspend", true),
        ("flux", "Update", "f:suspend", false),
        ("windlass", "Update", "f:suspend", false),
        ("kustomize-controller", "Apply", "f:interval", false),
    ] {
        let mut live = kustomization();
        live.json["metadata"]["managedFields"] =
            json!([{ "manager": manager, "operation": operation, "fieldsV1": { "f:spec": { field: {} } } }]);
        assert_eq!(facts(&live, false).unwrap().suspend_declared, declared, "{manager} {field}");
    }
}

#[test]
fn what_git_declared_is_not_forgotten_because_a_hold_of_ours_took_the_field() {
    for (suspend, annotations, declared) in [
        (json!(true), json!({ HELD_BY: "op-1", "upgrades.windlass.dev/hold-as-found": "false" }), true),
        (json!(true), json!({ HELD_BY: "op-1", "upgrades.windlass.dev/hold-as-found": "absent" }), false),
        (json!(false), json!({}), true),
        (json!(null), json!({}), false),
    ] {
        let mut live = kustomization();
        live.json["spec"]["suspend"] = suspend;
        live.json["metadata"]["annotations"] = annotations.clone();
        live.json["metadata"]["managedFields"] =
            json!([{ "manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": { "f:spec": { "f:suspend": {} } } }]);
        assert_eq!(facts(&live, false).unwrap().suspend_declared, declared, "{annotations}");
    }
}

#[test]
fn a_kustomization_that_applies_itself_is_a_root() {
    let labels = r#"{"kustomize.toolkit.fluxcd.io/name":"apps","kustomize.toolkit.fluxcd.io/namespace":"flux-system"}"#;
    let mut itself = kustomization();
    itself.json["metadata"]["labels"] = serde_json::from_str(labels).unwrap();
    assert_eq!(parent(&itself), None);
    assert_eq!(parent(&release()), Some(apps_object()));
}

#[test]
fn a_parent_must_say_itself_that_it_applies_the_object() {
    let child = facts(&release(), true).unwrap();
    let parent = kustomization().typed().unwrap();
    assert_eq!(parent_refusals(&child, Some(&parent)), Vec::new());
    let mut stranger = parent;
    stranger.status.as_mut().unwrap().inventory.as_mut().unwrap().entries.remove(0);
    for refusals in [parent_refusals(&child, Some(&stranger)), parent_refusals(&child, None)] {
        assert_eq!(refusals[0].0, "not-from-git");
    }
    let mut orphan = child;
    orphan.parent = None;
    assert_eq!(parent_refusals(&orphan, None)[0].0, "not-from-git");
    let root = facts(&kustomization(), true).unwrap();
    assert_eq!(parent_refusals(&root, None), Vec::new(), "a root reads Git itself");
}

#[test]
fn only_a_followed_branch_is_a_branch() {
    for (reference, branch) in [
        ("null", Some("master")),
        ("{}", Some("master")),
        (r#"{"branch":"main"}"#, Some("main")),
        (r#"{"name":"refs/heads/feature/a"}"#, Some("feature/a")),
        (r#"{"name":"refs/tags/v1","branch":"main"}"#, None),
        (r#"{"tag":"v1","branch":"main"}"#, None),
        (r#"{"semver":">=1","branch":"main"}"#, None),
        (r#"{"commit":"0123","branch":"main"}"#, None),
        (r#"{"commit":"","branch":"main"}"#, Some("main")),
    ] {
        let mut source = git_repository();
        source.json["spec"]["ref"] = serde_json::from_str(reference).unwrap();
        assert_eq!(source_facts(&source).unwrap().branch.as_deref(), branch, "{reference}");
    }
}

#[test]
fn a_source_is_told_with_its_commit_and_whether_it_verifies() {
    let facts = source_facts(&git_repository()).unwrap();
    assert_eq!(facts.commit.as_deref(), Some(super::super::fixtures::OURS));
    assert!(!facts.verifies);
    let mut verifying = git_repository();
    verifying.json["spec"]["verify"] = json!({ "mode": "HEAD" });
    assert!(source_facts(&verifying).unwrap().verifies);
    assert_eq!(release_object(), release().object);
}
