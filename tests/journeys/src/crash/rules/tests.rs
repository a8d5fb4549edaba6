//! Each rule has something that it does not let pass.

use kube_sim::Identity;
use kube_sim::controllers::pods::{ClaimRef, Entry, Event, PodRef};
use kube_sim::server::{Admission, Operation};
use serde_json::{Value, json};
use upgrade_core::ports::CommitRequest;

use super::{Key, State, acting, data, running, text};
use crate::estate::{INSTANCE, OPERATOR_USER, SYSTEM};

fn holding(objects: &[(&str, Value)]) -> State {
    let mut state = State::default();
    for (resource, object) in objects {
        state.objects.insert(key(resource, object), object.clone());
    }
    state
}

fn key(resource: &str, object: &Value) -> Key {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

type Judge = fn(&mut State, &Admission<'_>, &Key, &Value);

/// What a judge says to a write of the operator's first instance.
fn said(
    judge: Judge,
    state: &mut State,
    operation: Operation,
    resource: &str,
    subresource: &str,
    object: &Value,
) -> Vec<String> {
    let key = key(resource, object);
    let user = Identity::user(OPERATOR_USER).in_group(format!("{INSTANCE}1"));
    let (namespace, mut new) = (key.1.clone(), object.clone());
    let write = Admission {
        operation,
        user: &user,
        group: "",
        resource,
        subresource,
        namespace: &namespace,
        dry_run: false,
        object: &mut new,
        old: None,
    };
    judge(state, &write, &key, object);
    std::mem::take(&mut state.broken)
}

fn claim() -> Value {
    json!({"metadata": {"name": "data", "namespace": "a", "uid": "c"}, "spec": {"volumeName": "old"}})
}

fn volume(name: &str, phase: &str, policy: &str) -> Value {
    let of = json!({"namespace": "a", "name": "data", "uid": "c"});
    json!({"metadata": {"name": name}, "status": {"phase": phase},
        "spec": {"claimRef": of, "persistentVolumeReclaimPolicy": policy}})
}

fn run_of(tag: &str, event: Event) -> Entry {
    let pod = PodRef { namespace: "a".into(), name: "notes-0".into(), uid: "p".into() };
    let claims = vec![ClaimRef { claim: "data".into(), handle: "h".into() }];
    let (container, image) = (Some("notes".into()), Some(format!("notes:{tag}")));
    Entry { pod: Some(pod), container, image, claims, ..Entry::bare(event) }
}

fn run(event: Event) -> Entry {
    run_of("1.0.0", event)
}

fn upgrade(steps: &[&str], outcome: &str) -> Value {
    let entries: Vec<Value> = steps.iter().map(|step| json!({"step": step, "begun": true, "state": "Doing"})).collect();
    json!({"metadata": {"name": "up", "namespace": "a", "uid": "u"},
        "spec": {"subject": {"name": "notes"}, "target": {"components": {"image/notes": "1.1.0"}}},
        "status": {"journal": {"entries": entries}, "outcome": outcome}})
}

#[test]
fn a_claim_must_not_go_while_a_pod_that_was_told_to_end_still_runs() {
    let pod = json!({"metadata": {"name": "notes-0", "namespace": "a"}, "deleting": true, "status": {"phase": "Running"},
        "spec": {"nodeName": "node", "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}});
    let volumes = [volume("old", "Bound", "Retain"), volume("copy", "Available", "Retain")];
    let [old, copy] = volumes.map(|one| ("persistentvolumes", one));
    let mut state = holding(&[old, copy, ("pods", pod.clone())]);
    let delete =
        |state: &mut State| said(data::before_write, state, Operation::Delete, "persistentvolumeclaims", "", &claim());
    assert_eq!(delete(&mut state).len(), 1);
    state.objects.remove(&key("pods", &pod));
    assert!(delete(&mut state).is_empty());
    state.runs.record(run(Event::Starting));
    assert_eq!(delete(&mut state).len(), 1, "its process is still there");
}

#[test]
fn a_volume_must_not_be_let_go_when_its_claim_is_gone() {
    let kept = volume("old", "Bound", "Retain");
    let let_go = |state: &mut State, phase: &str| {
        said(data::before_write, state, Operation::Update, "persistentvolumes", "", &volume("old", phase, "Delete"))
            .len()
    };
    let mut state = holding(&[("persistentvolumes", kept.clone()), ("persistentvolumeclaims", claim())]);
    assert_eq!(let_go(&mut state, "Bound"), 0);
    assert_eq!(let_go(&mut state, "Released"), 1);
    assert_eq!(let_go(&mut holding(&[("persistentvolumes", kept)]), "Bound"), 1);
}

#[test]
fn a_version_must_not_be_committed_with_a_copy_of_fewer_claims_than_there_are() {
    let point = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"takenAt": "x", "data": []}});
    let mut state = holding(&[("restorepoints", point), ("persistentvolumeclaims", claim())]);
    let request: CommitRequest = serde_json::from_value(json!({
        "repository": {"name": "r", "url": "u", "branch": "main", "paths": [], "authorName": "", "authorEmail": ""},
        "changes": [], "expected": [], "message": "Upgrade notes", "operation": "u",
    }))
    .expect("a commit request");
    data::before_commit(&mut state, &request);
    assert_eq!(state.broken.len(), 1, "{:?}", state.broken);
}

/// What a success of `end` breaks when these objects are there and these pods have been ready for a while.
fn ends(objects: &[(&str, Value)], end: &Value, ready_for: std::time::Duration) -> Vec<String> {
    let mut state = holding(objects);
    state.found.insert("a".into(), vec!["notes:1.0.0".into(), "notes:1.0.0".into()]);
    let since = tokio::time::Instant::now() - ready_for;
    let pods = state.objects.keys().filter(|key| key.0 == "pods");
    state.ready_since = pods.map(|key| (key.clone(), since)).collect();
    said(running::before_write, &mut state, Operation::Update, "upgraderequests", "status", end)
}

fn pod(name: &str, image: &str) -> Value {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    json!({"metadata": {"name": name, "namespace": "a"}, "status": {"conditions": ready},
        "spec": {"containers": [{"image": image}]}})
}

/// An upgrade of the image that has succeeded and had committed `ours`.
fn success() -> Value {
    let mut end = upgrade(&["commit/push/apps"], "Succeeded");
    end["status"]["journal"]["entries"][0]["evidence"] = json!({"sha": "ours"});
    end
}

fn managed(kind: &str, namespace: &str) -> Value {
    json!({"metadata": {"name": "notes", "namespace": "a"}, "spec": {"health": {"soak": "10s"},
        "delivery": {"flux": {"objects": [{"kind": kind, "name": "notes", "namespace": namespace}]}}}})
}

fn kustomization(revision: &str) -> Value {
    json!({"metadata": {"name": "notes", "namespace": "flux"}, "spec": {}, "status": {"lastAppliedRevision": revision, "lastAttemptedRevision": revision}})
}

const LONG: std::time::Duration = std::time::Duration::from_secs(11);

#[tokio::test(start_paused = true)]
async fn success_needs_all_pods_that_were_found_and_nothing_suspended() {
    tokio::time::advance(LONG * 2).await;
    let broken = |pods: &[(&str, Value)], more: Option<(&'static str, Value)>| {
        let own =
            [("managedapps", managed("Kustomization", "flux")), ("kustomizations", kustomization("main@sha1:ours"))];
        let objects: Vec<_> = pods.iter().cloned().chain(own).chain(more).collect();
        ends(&objects, &success(), LONG)
    };
    let (one, two) = (("pods", pod("0", "notes:1.1.0")), ("pods", pod("1", "notes:1.1.0")));
    assert_eq!(broken(&[one.clone(), two.clone()], None), Vec::<String>::new());
    assert_eq!(broken(std::slice::from_ref(&one), None).len(), 1);
    assert_eq!(broken(&[one.clone(), ("pods", pod("1", "notes:1.0.0"))], None).len(), 1);
    let suspended = json!({"metadata": {"name": "notes", "namespace": "a"}, "spec": {"suspend": true}});
    assert_eq!(broken(&[one, two], Some(("helmreleases", suspended))).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn success_needs_pods_that_were_ready_for_the_soak_time() {
    tokio::time::advance(LONG * 2).await;
    let objects = [
        ("managedapps", managed("Kustomization", "flux")),
        ("kustomizations", kustomization("main@sha1:ours")),
        ("pods", pod("0", "notes:1.1.0")),
        ("pods", pod("1", "notes:1.1.0")),
    ];
    assert_eq!(ends(&objects, &success(), LONG), Vec::<String>::new());
    assert_eq!(ends(&objects, &success(), std::time::Duration::from_secs(9)).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn success_needs_our_commit_applied_and_the_release_of_it_deployed() {
    tokio::time::advance(LONG * 2).await;
    let broken = |kind: &str, namespace: &str, delivery: &[(&'static str, Value)], end: &Value| {
        let pods = [("pods", pod("0", "notes:1.1.0")), ("pods", pod("1", "notes:1.1.0"))];
        let objects: Vec<_> = pods
            .into_iter()
            .chain([("managedapps", managed(kind, namespace))])
            .chain(delivery.iter().cloned())
            .collect();
        ends(&objects, end, LONG).len()
    };
    let by_manifests =
        |revision: &str| broken("Kustomization", "flux", &[("kustomizations", kustomization(revision))], &success());
    assert_eq!(by_manifests("main@sha1:ours"), 0);
    assert_eq!(by_manifests("main@sha1:another"), 1);
    let unknown =
        broken("Kustomization", "flux", &[("kustomizations", kustomization("x"))], &upgrade(&[], "Succeeded"));
    assert_eq!(unknown, 1, "no commit was noted");

    let mut end = success();
    end["spec"]["target"]["components"]["chart"] = "1.1.0".into();
    let release = json!({
        "metadata": {"name": "notes", "namespace": "a", "generation": 3, "labels": {
            "kustomize.toolkit.fluxcd.io/name": "notes", "kustomize.toolkit.fluxcd.io/namespace": "flux"}},
        "spec": {}, "status": {"observedGeneration": 3, "history": [{"status": "deployed", "chartVersion": "1.1.0"}]}});
    let by_release = |release: Value, revision: &str| {
        broken("HelmRelease", "a", &[("helmreleases", release), ("kustomizations", kustomization(revision))], &end)
    };
    assert_eq!(by_release(release.clone(), "main@sha1:ours"), 0);
    assert_eq!(by_release(release.clone(), "main@sha1:another"), 1);
    for (pointer, value) in [
        ("/status/observedGeneration", json!(2)),
        ("/status/history/0/status", json!("failed")),
        ("/status/history/0/chartVersion", json!("1.0.0")),
    ] {
        let mut wrong = release.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        assert_eq!(by_release(wrong, "main@sha1:ours"), 1, "{pointer}");
    }
}

#[test]
fn nobody_deletes_the_only_copy_of_a_claims_data() {
    let snapshot = json!({"metadata": {"name": "s", "namespace": "a"}, "spec": {"source": {"persistentVolumeClaimName": "data"}},
        "status": {"readyToUse": true, "boundVolumeSnapshotContentName": "content"}});
    let content =
        json!({"metadata": {"name": "content"}, "spec": {"volumeSnapshotRef": {"namespace": "a", "name": "s"}}});
    let own = [("persistentvolumes", volume("old", "Bound", "Delete")), ("persistentvolumeclaims", claim())];
    let copy = [("volumesnapshots", snapshot.clone()), ("volumesnapshotcontents", content.clone())];
    let goes = |objects: &[&[(&str, Value)]], resource: &str, object: &Value| {
        let mut state = holding(&objects.concat());
        said(data::before_anybody_deletes, &mut state, Operation::Delete, resource, "", object).len()
    };
    let old = volume("old", "Bound", "Delete");
    assert_eq!(goes(&[&own, &copy], "persistentvolumes", &old), 0);
    assert_eq!(goes(&[&own], "persistentvolumes", &old), 1);
    let kept = [("persistentvolumes", volume("restored", "Available", "Retain"))];
    assert_eq!(goes(&[&own, &kept], "persistentvolumes", &old), 0);
    for (resource, object) in [("volumesnapshots", &snapshot), ("volumesnapshotcontents", &content)] {
        assert_eq!(goes(&[&own, &copy], resource, object), 0, "{resource}");
        assert_eq!(goes(&[&copy], resource, object), 1, "{resource}");
    }
    let mut unready = snapshot;
    unready["status"]["readyToUse"] = false.into();
    let unready = [("volumesnapshots", unready), ("volumesnapshotcontents", content)];
    assert_eq!(goes(&[&own, &unready], "persistentvolumes", &old), 1);
}

#[test]
fn nothing_must_start_between_the_cut_and_the_release() {
    let cut = json!({"metadata": {"name": "s"}, "spec": {"volumeSnapshotRef": {"namespace": "a"}},
        "status": {"snapshotHandle": "h"}});
    let starts = |tag: &str, steps: &[&str]| {
        let request = ("upgraderequests", upgrade(steps, ""));
        let mut state = holding(&[request, ("volumesnapshotcontents", cut.clone())]);
        state.runs.record(run_of(tag, Event::Starting));
        running::since_the_last_write(&mut state);
        state.broken.len()
    };
    assert_eq!(starts("1.0.0", &["stop/wait"]), 0);
    assert_eq!(starts("1.0.0", &["stop/wait", "snapshot/take/data"]), 1);
    assert_eq!(starts("1.1.0", &["snapshot/take/data", "release/resume/kustomization/a/a"]), 0);
    assert_eq!(starts("1.0.0", &["snapshot/take/data", "release/resume/kustomization/a/a"]), 1, "it is not the target");
}

#[test]
fn what_starts_once_the_old_version_is_released_again_is_that() {
    let starts = |tag: &str, steps: &[&str]| {
        let mut rollback = upgrade(steps, "");
        rollback["status"]["plan"] = json!({});
        let mut state = holding(&[("rollbackrequests", rollback)]);
        state.found.insert("a".into(), vec!["notes:1.0.0".into()]);
        state.runs.record(run_of(tag, Event::Starting));
        running::since_the_last_write(&mut state);
        state.broken.len()
    };
    assert_eq!(starts("1.1.0", &["suspend/x"]), 0);
    assert_eq!(starts("1.0.0", &["swap/delete/data"]), 1);
    assert_eq!(starts("1.0.0", &["swap/delete/data", "release/resume/kustomization/a/a"]), 0);
    assert_eq!(starts("1.1.0", &["swap/delete/data", "release/resume/kustomization/a/a"]), 1);
}

#[tokio::test]
async fn only_the_holder_of_the_lease_acts_and_only_on_the_active_operation() {
    let lease = |holder: &str| {
        json!({"metadata": {"name": "windlass-operator", "namespace": SYSTEM},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}})
    };
    let app = |active: &str| json!({"metadata": {"name": "notes", "namespace": "a"}, "status": {"activeOperation": {"uid": active}}});
    let steps = |holder: &str, active: &str| {
        let old = ("upgraderequests", upgrade(&["stop/wait"], ""));
        let mut state = holding(&[("leases", lease(holder)), ("managedapps", app(active)), old]);
        let next = upgrade(&["stop/wait", "snapshot/take/data"], "");
        said(acting::before_write, &mut state, Operation::Update, "upgraderequests", "status", &next).len()
    };
    assert_eq!(steps("windlass_1", "u"), 0);
    assert_eq!(steps("windlass_2", "u"), 1);
    assert_eq!(steps("windlass_1", "another"), 1);
}
