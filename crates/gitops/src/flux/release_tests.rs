//! Whether the newest stored release, the spec and the live template belong together.

use serde_json::{Value, json};
use upgrade_core::ports::ObjectRef;
use windlass_api::foreign::HelmRelease;
use windlass_helm::{Chart, Hook, Release, Status};

use super::super::fixtures::{release, release_object, release_pins};
use super::super::live::Live;
use super::{has_template, hooks_before, is_asked_for, storage, wanted_chart_version};

fn template(tag: &str) -> Value {
    json!({ "spec": { "containers": [{ "name": "notes", "image": format!("notes:{tag}") }] } })
}

fn stored() -> Release {
    let manifest = |namespace: Value, tag: &str| {
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": { "name": "notes", "namespace": namespace },
            "spec": { "template": template(tag) }
        });
        format!("---\n{object}\n")
    };
    Release {
        name: "notes".into(),
        namespace: "notes".into(),
        revision: 5,
        status: Status::PendingUpgrade,
        description: String::new(),
        first_deployed: None,
        last_deployed: None,
        chart: Chart { name: "notes".into(), version: "1.1.0".into(), app_version: None },
        config: json!({ "image": { "tag": "2.0" }, "fromElsewhere": 1 }),
        manifest: manifest(json!("other"), "0") + &manifest(Value::Null, "2.0"),
        hooks: vec![
            Hook {
                name: "migrate".into(),
                kind: "Job".into(),
                events: vec!["post-install".into(), "pre-upgrade".into()],
            },
            Hook { name: "smoke".into(), kind: "Pod".into(), events: vec!["test".into()] },
        ],
    }
}

fn asked(stored: &Release, live: &Live) -> Result<(), String> {
    is_asked_for(stored, live, &live.typed().unwrap(), &release_pins())
}

#[test]
fn a_release_in_progress_made_from_the_pinned_spec_is_the_one() {
    for status in [Status::PendingUpgrade, Status::PendingInstall, Status::Deployed] {
        assert_eq!(asked(&Release { status, ..stored() }, &release()), Ok(()));
    }
}

#[test]
fn a_release_of_anything_else_is_not() {
    let chart = Chart { version: "1.0.0".into(), ..stored().chart };
    let rows: Vec<(&str, Release)> = vec![
        ("is Failed", Release { status: Status::Failed, ..stored() }),
        ("is Superseded", Release { status: Status::Superseded, ..stored() }),
        ("is PendingRollback", Release { status: Status::PendingRollback, ..stored() }),
        ("is of chart 1.0.0", Release { chart, ..stored() }),
        ("made with 1.0 as image/notes", Release { config: json!({ "image": { "tag": "1.0" } }), ..stored() }),
        ("made with nothing as image/notes", Release { config: json!({}), ..stored() }),
    ];
    for (expected, stored) in rows {
        let difference = asked(&stored, &release()).unwrap_err();
        assert!(difference.contains(expected), "{difference}");
    }
}

#[test]
fn a_spec_that_does_not_show_the_pins_yet_asks_for_something_else() {
    let mut old = release();
    old.json["spec"]["chart"]["spec"]["version"] = "1.0.0".into();
    assert!(asked(&stored(), &old).unwrap_err().contains("asks for 1.0.0 as chart, not 1.1.0"));
    old = release();
    old.json["spec"]["values"]["image"]["tag"] = "1.0".into();
    assert!(asked(&stored(), &old).unwrap_err().contains("asks for 1.0 as image/notes, not 2.0"));
}

#[test]
fn all_inline_values_must_be_in_the_release() {
    let mut newer = release();
    newer.json["spec"]["values"]["debug"] = false.into();
    assert!(asked(&stored(), &newer).unwrap_err().contains("not made with its newest values"));
    newer.json["spec"]["values"]["debug"] = Value::Null;
    assert_eq!(asked(&stored(), &newer), Ok(()), "a null asks for the chart's default");
}

#[test]
fn the_live_template_is_compared_with_the_manifest_of_the_same_object() {
    let live = |tag: &str| Live {
        object: ObjectRef::new("apps", "StatefulSet", "notes", "notes"),
        json: json!({ "spec": { "template": template(tag) } }),
    };
    assert_eq!(has_template(&stored(), &live("2.0"), "/spec/template"), Ok(()));
    assert!(
        has_template(&stored(), &live("1.0"), "/spec/template").unwrap_err().contains("containers[0].image is not")
    );
    let other = Live { object: ObjectRef::new("apps", "Deployment", "notes", "notes"), ..live("2.0") };
    assert!(has_template(&stored(), &other, "/spec/template").unwrap_err().contains("has no Deployment notes/notes"));
    let elsewhere = Release { namespace: "elsewhere".into(), ..stored() };
    assert!(has_template(&elsewhere, &live("2.0"), "/spec/template").unwrap_err().contains("has no StatefulSet"));
}

#[test]
fn the_storage_is_where_helm_controller_says_or_would_put_it() {
    let at = |spec: Value, status: Value| {
        let release: HelmRelease =
            serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap();
        storage(&release_object(), &release)
    };
    let pair = |namespace: &str, name: &str| Some((namespace.to_owned(), name.to_owned()));
    assert_eq!(at(json!({}), json!({})), pair("notes", "notes"));
    assert_eq!(at(json!({ "targetNamespace": "prod" }), json!({})), pair("notes", "prod-notes"));
    assert_eq!(at(json!({ "releaseName": "n", "storageNamespace": "s" }), json!({})), pair("s", "n"));
    let status = json!({ "storageNamespace": "old", "history": [{ "name": "shortened-0123", "namespace": "notes" }] });
    assert_eq!(at(json!({ "releaseName": "n" }), status), pair("old", "shortened-0123"));
    assert_eq!(at(json!({ "targetNamespace": "x".repeat(60) }), json!({})), None, "a hash we do not compute");
}

#[test]
fn the_wanted_chart_version_is_the_pin_or_an_exact_version() {
    let wanted = |version: &str, kind: &str, pins: &[_]| {
        let mut live = release();
        live.json["spec"]["chart"]["spec"]["version"] = version.into();
        live.json["spec"]["chart"]["spec"]["sourceRef"]["kind"] = kind.into();
        wanted_chart_version(&live.object, &live.typed().unwrap(), pins)
    };
    assert_eq!(wanted("1.0.0", "HelmRepository", &release_pins()).as_deref(), Some("1.1.0"));
    assert_eq!(wanted("1.0.0", "HelmRepository", &[]).as_deref(), Some("1.0.0"));
    assert_eq!(wanted("^1", "HelmRepository", &[]), None);
    assert_eq!(wanted("1.0.0", "GitRepository", &release_pins()), None);
}

#[test]
fn hooks_that_run_while_the_app_is_stopped_are_named() {
    assert_eq!(hooks_before(&stored()), ["Job/migrate"]);
}
