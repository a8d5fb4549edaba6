//! Releases are encoded here as Helm encodes them, and read back.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encode(release: &Value) -> Vec<u8> {
    STANDARD.encode(gzip(release.to_string().as_bytes())).into_bytes()
}

const MANIFEST: &str = "---
# Source: notes/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: notes
data:
  text: |
    --- not a separator
    ---
---
# Source: notes/templates/app.yaml
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: notes
spec:
  replicas: 1
";

fn release(revision: i64, status: &str) -> Value {
    json!({
        "name": "notes", "namespace": "apps", "version": revision,
        "info": {
            "first_deployed": "2026-11-01T10:00:00.123456789+01:00", "last_deployed": "2026-11-20T14:30:00Z", "deleted": "",
            "status": status, "description": "Upgrade complete", "notes": "hello"
        },
        "chart": {
            "metadata": { "name": "notes", "version": "1.4.0", "appVersion": "2.0.0", "apiVersion": "v2" },
            "templates": [{ "name": "x", "data": "e30=" }], "values": { "a": 1 }, "lock": null
        },
        "config": { "password": "hunter2" },
        "manifest": MANIFEST,
        "hooks": [{ "name": "migrate", "kind": "Job", "path": "notes/templates/migrate.yaml", "manifest": "kind: Job", "events": ["pre-upgrade"] }],
        "apply_method": "ssa"
    })
}

#[test]
fn a_release_is_read_as_helm_wrote_it() {
    let read = decode(&encode(&release(3, "deployed")), DEFAULT_INFLATED_LIMIT).unwrap();
    assert_eq!(
        (read.name.as_str(), read.namespace.as_str(), read.revision, read.status),
        ("notes", "apps", 3, Status::Deployed)
    );
    assert_eq!(
        (read.chart.name.as_str(), read.chart.version.as_str(), read.chart.app_version.as_deref()),
        ("notes", "1.4.0", Some("2.0.0"))
    );
    assert_eq!(read.first_deployed.unwrap().to_string(), "2026-11-01T09:00:00.123456789Z");
    assert_eq!(read.last_deployed.unwrap().to_string(), "2026-11-20T14:30:00Z");
    assert_eq!(read.config["password"], "hunter2");
    assert_eq!(read.manifest, MANIFEST);
    assert_eq!(read.description, "Upgrade complete");
    let hook = Hook { name: "migrate".into(), kind: "Job".into(), events: vec!["pre-upgrade".into()] };
    assert_eq!(read.hooks, [hook]);
}

#[test]
fn older_forms_are_read_too() {
    let mut old = release(1, "superseded");
    old["info"]["first_deployed"] = json!("");
    old["info"].as_object_mut().unwrap().remove("last_deployed");
    old["config"] = Value::Null;
    old["hooks"] = Value::Null;
    old["chart"]["metadata"].as_object_mut().unwrap().remove("appVersion");
    let plain = format!("{}\n", STANDARD.encode(old.to_string()));
    let read = decode(plain.as_bytes(), DEFAULT_INFLATED_LIMIT).unwrap();
    assert_eq!((read.first_deployed, read.last_deployed, read.chart.app_version), (None, None, None));
    assert_eq!(read.config, Value::Null);
}

#[test]
fn every_status_is_known() {
    for (text, status, pending) in [
        ("deployed", Status::Deployed, false),
        ("superseded", Status::Superseded, false),
        ("failed", Status::Failed, false),
        ("uninstalled", Status::Uninstalled, false),
        ("uninstalling", Status::Uninstalling, true),
        ("pending-install", Status::PendingInstall, true),
        ("pending-upgrade", Status::PendingUpgrade, true),
        ("pending-rollback", Status::PendingRollback, true),
        ("unknown", Status::Unknown, false),
        ("something-new", Status::Unknown, false),
    ] {
        let read = decode(&encode(&release(1, text)), DEFAULT_INFLATED_LIMIT).unwrap();
        assert_eq!((read.status, read.status.is_pending()), (status, pending), "{text}");
    }
}

#[test]
fn what_is_damaged_is_refused_by_name() {
    let whole = gzip(release(1, "deployed").to_string().as_bytes());
    let b64 = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    let without = |pointer: &str, key: &str| {
        let mut damaged = release(1, "deployed");
        damaged.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        encode(&damaged)
    };
    for (payload, code) in [
        (b"".to_vec(), "helm-not-a-release"),
        (b"\x1f\x8b\x08 not base64".to_vec(), "helm-not-base64"),
        (b64(&whole[..whole.len() / 2]), "helm-not-gzip"),
        (b64(&[&whole[..], b"garbage"].concat()), "helm-not-gzip"),
        (b64(b"{\"name\": \"notes\""), "helm-not-a-release"),
        (b64(b"[]"), "helm-not-a-release"),
        (without("", "name"), "helm-not-a-release"),
        (without("", "version"), "helm-not-a-release"),
        (without("/info", "status"), "helm-not-a-release"),
        (without("/chart/metadata", "version"), "helm-not-a-release"),
    ] {
        let error = decode(&payload, DEFAULT_INFLATED_LIMIT).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.hint().is_empty() && !error.is_retryable());
    }
}

#[test]
fn a_bomb_is_not_inflated() {
    let limit = 1024 * 1024;
    let bomb = STANDARD.encode(gzip(&vec![b' '; 4 * limit]));
    assert!(bomb.len() < 10_000, "small enough for a Secret: {}", bomb.len());
    assert_eq!(decode(bomb.as_bytes(), limit), Err(HelmError::TooLarge { limit }));
    let json = release(1, "deployed").to_string();
    let payload = STANDARD.encode(gzip(json.as_bytes()));
    assert!(decode(payload.as_bytes(), json.len()).is_ok(), "the limit itself is allowed");
    assert_eq!(decode(payload.as_bytes(), json.len() - 1), Err(HelmError::TooLarge { limit: json.len() - 1 }));
    assert!(decode(STANDARD.encode(&json).as_bytes(), json.len() - 1).is_err(), "also without gzip");
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    let deep = format!("{{\"name\":\"n\",\"config\":{}", "[".repeat(100_000));
    assert_eq!(
        decode(STANDARD.encode(deep).as_bytes(), DEFAULT_INFLATED_LIMIT).unwrap_err().code(),
        "helm-not-a-release"
    );
    assert_eq!(documents(&"[".repeat(2_000))[0].object, None);
}

#[test]
fn no_value_is_shown_by_errors_or_debug_output() {
    let mut wrong = release(1, "deployed");
    wrong["version"] = json!("hunter2");
    let error = decode(&encode(&wrong), DEFAULT_INFLATED_LIMIT).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let read = decode(&encode(&release(1, "deployed")), DEFAULT_INFLATED_LIMIT).unwrap();
    assert!(!format!("{read:?}").contains("hunter2"));
    let secret = documents("kind: Secret\nmetadata: {name: s}\nstringData: {p: hunter2}\n");
    assert!(!format!("{secret:?}").contains("hunter2"));
}

#[test]
fn a_secret_must_be_what_its_type_and_name_say() {
    let payload = encode(&release(3, "deployed"));
    let secret = |name, type_, payload| StoredSecret { name, type_, payload }.release();
    let (name, ok) = ("sh.helm.release.v1.notes.v3", Some(payload.as_slice()));
    assert_eq!(secret(name, Some(SECRET_TYPE), ok).unwrap().revision, 3);
    for (name, type_, payload, code) in [
        (name, Some("Opaque"), ok, "helm-wrong-type"),
        (name, None, ok, "helm-wrong-type"),
        (name, Some(SECRET_TYPE), None, "helm-no-payload"),
        ("sh.helm.release.v1.notes.v4", Some(SECRET_TYPE), ok, "helm-wrong-name"),
        ("sh.helm.release.v1.other.v3", Some(SECRET_TYPE), ok, "helm-wrong-name"),
    ] {
        assert_eq!(secret(name, type_, payload).unwrap_err().code(), code);
    }
}

#[test]
fn secret_names_are_taken_apart() {
    for (name, parsed) in [
        ("sh.helm.release.v1.notes.v12", Some(("notes", 12))),
        ("sh.helm.release.v1.notes.v2.v3", Some(("notes.v2", 3))),
        ("sh.helm.release.v1.notes", None),
        ("sh.helm.release.v1.notes.v0", None),
        ("sh.helm.release.v1.notes.vx", None),
        ("sh.helm.release.v1..v1", None),
        ("notes.v1", None),
    ] {
        assert_eq!(parse_secret_name(name), parsed, "{name}");
    }
}

#[test]
fn the_newest_and_the_deployed_revision_are_chosen_by_number() {
    let history = |list: &[(i64, &str)]| -> Vec<Release> {
        list.iter()
            .map(|(revision, status)| decode(&encode(&release(*revision, status)), DEFAULT_INFLATED_LIMIT).unwrap())
            .collect()
    };
    let revision = |release: Option<&Release>| release.map(|release| release.revision);
    let failed = history(&[(10, "failed"), (9, "deployed"), (2, "superseded")]);
    assert_eq!((revision(newest(&failed)), revision(deployed(&failed))), (Some(10), Some(9)));
    let crossed = history(&[(3, "deployed"), (5, "deployed"), (4, "superseded")]);
    assert_eq!(revision(deployed(&crossed)), Some(5));
    let never = history(&[(1, "failed")]);
    assert_eq!((revision(newest(&never)), revision(deployed(&never))), (Some(1), None));
    assert_eq!((newest(&[]), deployed(&[])), (None, None));
}

#[test]
fn a_manifest_is_cut_at_its_separators_only() {
    let parts = documents(MANIFEST);
    assert_eq!(
        parts.iter().map(|part| (part.kind(), part.name())).collect::<Vec<_>>(),
        [("ConfigMap", "notes"), ("StatefulSet", "notes")]
    );
    assert_eq!(parts[0].object.as_ref().unwrap()["data"]["text"], "--- not a separator\n---\n");
    assert_eq!(parts[1].source.as_deref(), Some("notes/templates/app.yaml"));
    let odd = "kind: A\n--- # comment\nkind: B\n---\n\n---   \r\n# nothing\n--- {kind: C}\n---\nkind: D\n...\n---";
    assert_eq!(documents(odd).iter().map(Document::kind).collect::<Vec<_>>(), ["A", "B", "C", "D"]);
    assert!(documents("").is_empty());
    assert_eq!(documents("kind: A\ntext: a\n---b: c\n").len(), 1, "three dashes and a word are a key");
}

#[test]
fn the_items_of_a_list_are_objects_of_their_own() {
    let parts = documents(
        "kind: List\nitems:\n- kind: A\n  metadata: {name: a}\n- kind: B\n  metadata: {name: b}\n---\nkind: List\n",
    );
    assert_eq!(parts.iter().map(Document::name).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_workload_is_found_by_kind_and_name() {
    let parts = documents(MANIFEST);
    assert_eq!(find(&parts, "StatefulSet", "notes", None).unwrap().unwrap()["spec"]["replicas"], 1);
    assert_eq!(find(&parts, "StatefulSet", "notes", Some("apps")).unwrap().unwrap()["spec"]["replicas"], 1);
    assert_eq!(find(&parts, "Deployment", "notes", None), Ok(None));
}

#[test]
fn not_finding_something_is_no_answer_while_a_document_is_unreadable() {
    let parts = documents(&format!("{MANIFEST}---\n# Source: notes/templates/bad.yaml\nkind: [\n"));
    assert!(find(&parts, "StatefulSet", "notes", None).is_ok(), "what is readable is found");
    let error = find(&parts, "Deployment", "notes", None).unwrap_err();
    assert_eq!(error.code(), "helm-unreadable-manifest");
    assert!(error.to_string().contains("bad.yaml"));
}

#[test]
fn an_object_that_is_there_twice_is_told_apart_by_namespace_or_refused() {
    let parts = documents(
        "kind: A\nmetadata: {name: x, namespace: one}\n---\nkind: A\nmetadata: {name: x, namespace: two}\nyes: it is\n",
    );
    assert_eq!(find(&parts, "A", "x", None).unwrap_err().code(), "helm-ambiguous-object");
    assert_eq!(find(&parts, "A", "x", Some("two")).unwrap().unwrap()["yes"], "it is");
    assert_eq!(find(&parts, "A", "x", Some("three")), Ok(None));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes, 10_000);
        let _ = decode(STANDARD.encode(&bytes).as_bytes(), 10_000);
        let _ = decode(STANDARD.encode(gzip(&bytes)).as_bytes(), 100);
    }

    #[test]
    fn a_flipped_bit_is_refused_or_harmless(position in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = gzip(release(1, "deployed").to_string().as_bytes());
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        if let Ok(read) = decode(STANDARD.encode(&bytes).as_bytes(), DEFAULT_INFLATED_LIMIT) {
            prop_assert_eq!(read, decode(&encode(&release(1, "deployed")), DEFAULT_INFLATED_LIMIT).unwrap());
        }
    }

    #[test]
    fn arbitrary_manifests_never_panic(text in "([-a-z:\\[\\]{}&* #|\n]|---\n|kind: List\n){0,40}") {
        let parts = documents(&text);
        let _ = find(&parts, "a", "b", Some("c"));
    }
}
