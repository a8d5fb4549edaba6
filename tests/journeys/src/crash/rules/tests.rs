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

fn run(event: Event) -> Entry {
    let pod = PodRef { namespace: "a".into(), name: "notes-0".into(), uid: "p".into() };
    let claims = vec![ClaimRef { claim: "data".into(), handle: "h".into() }];
    let (container, image) = (Some("notes".into()), Some("notes:1.0.0".into()));
    Entry { pod: Some(pod), container, image, claims, ..Entry::bare(event) }
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

#[test]
fn success_needs_all_pods_that_were_found_and_nothing_suspended() {
    let pod = |name: &str, image: &str| {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        json!({"metadata": {"name": name, "namespace": "a"}, "status": {"conditions": ready},
            "spec": {"containers": [{"image": image}]}})
    };
    let ends = |objects: &[(&str, Value)]| {
        let mut state = holding(objects);
        state.found.insert("a".into(), vec!["notes:1.0.0".into(), "notes:1.0.0".into()]);
        let end = upgrade(&[], "Succeeded");
        said(running::before_write, &mut state, Operation::Update, "upgraderequests", "status", &end).len()
    };
    let (one, two) = (("pods", pod("0", "notes:1.1.0")), ("pods", pod("1", "notes:1.1.0")));
    assert_eq!(ends(&[one.clone(), two.clone()]), 0);
    assert_eq!(ends(std::slice::from_ref(&one)), 1);
    assert_eq!(ends(&[one.clone(), ("pods", pod("1", "notes:1.0.0"))]), 1);
    let suspended = json!({"metadata": {"name": "notes", "namespace": "a"}, "spec": {"suspend": true}});
    assert_eq!(ends(&[one, two, ("helmreleases", suspended)]), 1);
}

#[test]
fn nothing_must_start_between_the_cut_and_the_release() {
    let cut = json!({"metadata": {"name": "s"}, "spec": {"volumeSnapshotRef": {"namespace": "a"}},
        "status": {"snapshotHandle": "h"}});
    let starts = |steps: &[&str]| {
        let request = ("upgraderequests", upgrade(steps, ""));
        let mut state = holding(&[request, ("volumesnapshotcontents", cut.clone())]);
        state.runs.record(run(Event::Starting));
        running::since_the_last_write(&mut state);
        state.broken.len()
    };
    assert_eq!(starts(&["stop/wait"]), 0);
    assert_eq!(starts(&["stop/wait", "snapshot/take/data"]), 1);
    assert_eq!(starts(&["snapshot/take/data", "release/resume/kustomization/a/a"]), 0);
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
