//! Workloads in every state that an upgrade passes through, and their verdicts.
#![allow(clippy::needless_pass_by_value, reason = "values are made where they are passed")]

use serde_json::{from_value, json};
use upgrade_core::ports::{Pin, PinPart};

use super::*;

/// Two minutes after the pods were made.
const NOW: &str = "2026-01-01T00:02:00Z";

fn pins() -> Vec<PinValue> {
    let pin = Pin {
        component: "image/notes".into(),
        repository: "apps".into(),
        path: "f".into(),
        object: "HelmRelease/notes".into(),
        field: "spec.values.image.tag".into(),
        part: PinPart::Whole,
    };
    vec![PinValue { pin, value: "2.0".into() }]
}

fn deployment() -> Value {
    json!({
        "metadata": { "name": "notes", "namespace": "n", "uid": "d", "generation": 3, "annotations": { "deployment.kubernetes.io/revision": "2" } },
        "spec": { "replicas": 1, "progressDeadlineSeconds": 600, "template": { "spec": { "containers": [{ "name": "main", "image": "r/notes:2.0" }] } } },
        "status": {
            "observedGeneration": 3, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": [
                { "type": "Available", "status": "True" },
                { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastUpdateTime": "2026-01-01T01:00:00Z" }
            ]
        }
    })
}

fn replica_sets() -> Vec<ReplicaSet> {
    let set = |uid: &str, revision: &str| {
        from_value(json!({ "metadata": { "name": uid, "uid": uid, "annotations": { "deployment.kubernetes.io/revision": revision } } })).unwrap()
    };
    vec![set("old", "1"), set("new", "2")]
}

fn pod(of: &str, image: &str, container: Value) -> Value {
    json!({
        "metadata": {
            "name": format!("notes-{of}"), "namespace": "n", "uid": format!("pod-{of}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": of, "uid": of, "controller": true }]
        },
        "spec": { "containers": [{ "name": "main", "image": image }] },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": if container.is_null() { "True" } else { "False" } }],
            "containerStatuses": if container.is_null() { json!([]) } else { json!([container]) }
        }
    })
}

fn good() -> Value {
    pod("new", "r/notes:2.0", Value::Null)
}

fn waiting(reason: &str, restarts: i64) -> Value {
    json!({
        "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
        "state": { "waiting": { "reason": reason, "message": "m" } },
        "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } }
    })
}

fn judge_as(kind: WorkloadKind, name: &str, object: Option<Value>, pods: &[Value]) -> Findings {
    let group = if matches!(kind, WorkloadKind::Job | WorkloadKind::CronJob) { "batch" } else { "apps" };
    let workload = ObjectRef::new(group, &format!("{kind:?}"), "n", name);
    let pods: Vec<Pod> = pods.iter().map(|pod| from_value(pod.clone()).unwrap()).collect();
    let seen = Seen {
        workload: &workload,
        object: object.map(|object| (kind, from_value(object).unwrap())),
        pods: pods.iter().collect(),
        replica_sets: &replica_sets(),
    };
    findings(&[seen], &pins(), NOW.parse().unwrap())
}

fn judge(object: Option<Value>, pods: &[Value]) -> Findings {
    judge_as(WorkloadKind::Deployment, "notes", object, pods)
}

fn is_waiting(findings: &Findings, reason: &str) {
    assert!(findings.broken.is_empty(), "{findings:?}");
    assert!(findings.waiting.iter().any(|waiting| waiting.contains(reason)), "{reason}: {findings:?}");
}

#[test]
fn a_rolled_out_deployment_of_the_target_is_well() {
    let findings = judge(Some(deployment()), &[good()]);
    assert_eq!(findings, Findings { well: vec!["Deployment n/notes: 1 pods ready".into()], ..Findings::default() });
}

#[test]
fn a_container_that_is_well_again_is_known_to_have_ended() {
    let running = |ended: &str| {
        let last = json!({ "terminated": { "exitCode": 1, "finishedAt": ended } });
        json!({
            "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
            "state": { "running": {} }, "lastState": last
        })
    };
    let pods = ["2026-01-01T00:00:05Z", "2026-01-01T00:00:03Z"].map(|ended| pod("new", "r/notes:2.0", running(ended)));
    let findings = judge(Some(deployment()), &pods);
    assert_eq!(findings.restarted, Some("2026-01-01T00:00:05Z".parse().unwrap()), "{findings:?}");
}

#[test]
fn nothing_is_never_well() {
    is_waiting(&super::findings(&[], &[], NOW.parse().unwrap()), "no workload is known");
    is_waiting(&judge(None, &[]), "does not exist");
    is_waiting(&judge(Some(deployment()), &[]), "has no pods");
    let mut empty = deployment();
    empty["spec"]["replicas"] = json!(0);
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        empty["status"][field] = json!(0);
    }
    is_waiting(&judge(Some(empty), &[]), "has no pods");
    let mut unseen = deployment();
    unseen["status"] = json!({});
    is_waiting(&judge(Some(unseen), &[good()]), "newest generation");
    let cron = json!({ "metadata": { "name": "c" }, "spec": { "jobTemplate": { "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "notes:2.0" }] } } } } } });
    is_waiting(&judge_as(WorkloadKind::CronJob, "c", Some(cron), &[]), "nothing can be seen to run");
}

#[test]
fn a_pod_of_another_version_is_waited_for_even_when_it_crashes() {
    is_waiting(
        &judge(Some(deployment()), &[good(), pod("old", "r/notes:1.0", waiting("CrashLoopBackOff", 9))]),
        "earlier template",
    );
    is_waiting(
        &judge(Some(deployment()), &[pod("new", "r/notes:1.0", waiting("CrashLoopBackOff", 9))]),
        "instead of 2.0",
    );
    let mut stopping = good();
    stopping["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    is_waiting(&judge(Some(deployment()), &[good(), stopping]), "still stopping");
}

#[test]
fn a_pin_that_no_container_is_about_is_never_taken_as_fulfilled() {
    let mut object = deployment();
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/other:2.0");
    is_waiting(
        &judge(Some(object), &[pod("new", "r/other:2.0", Value::Null)]),
        "no container runs an image that image/notes",
    );
}

#[test]
fn what_does_not_pass_by_itself_is_broken_with_its_reason() {
    for (reason, restarts, expected) in [
        ("ImagePullBackOff", 0, Some("ImagePullBackOff: m")),
        ("CreateContainerConfigError", 0, Some("CreateContainerConfigError: m")),
        ("CrashLoopBackOff", 2, Some("crashed 2 times (OOMKilled, exit code 137)")),
        ("CrashLoopBackOff", 1, None),
        ("ErrImagePull", 0, Some("ErrImagePull: m")),
        ("InvalidImageName", 0, Some("InvalidImageName: m")),
        ("ContainerCreating", 0, None),
    ] {
        let findings = judge(Some(deployment()), &[pod("new", "r/notes:2.0", waiting(reason, restarts))]);
        match expected {
            Some(expected) => assert!(findings.broken[0].contains(expected), "{findings:?}"),
            None => is_waiting(&findings, reason),
        }
    }
}

#[test]
fn what_a_registry_or_a_late_secret_may_still_bring_is_waited_for_two_minutes() {
    let just_now = json!("2026-01-01T00:00:01Z");
    let conditions = |type_: &str| json!([{ "type": type_, "status": "True", "lastTransitionTime": just_now }]);
    for reason in ["ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError", "CreateContainerError"] {
        let late = pod("new", "r/notes:2.0", waiting(reason, 0));
        assert_eq!(judge(Some(deployment()), std::slice::from_ref(&late)).broken.len(), 1, "{reason}");
        let mut young = [late.clone(), late.clone(), late.clone(), late.clone()];
        young[0]["metadata"]["creationTimestamp"] = just_now.clone();
        young[1]["status"]["conditions"] = conditions("PodScheduled");
        young[2]["status"]["conditions"] = conditions("Initialized");
        young[3]["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"] = just_now.clone();
        for young in young {
            is_waiting(&judge(Some(deployment()), &[young]), reason);
        }
    }
    let mut never = pod("new", "r/notes:2.0", waiting("InvalidImageName", 0));
    never["metadata"]["creationTimestamp"] = just_now;
    assert_eq!(judge(Some(deployment()), &[never]).broken.len(), 1);
}

#[test]
fn a_passed_deadline_counts_only_when_it_is_about_the_pods_of_now() {
    let mut late = deployment();
    late["status"]["conditions"][1]["reason"] = json!("ProgressDeadlineExceeded");
    let unready = |created: &str| {
        let mut pod = pod("new", "r/notes:2.0", waiting("ContainerCreating", 0));
        pod["metadata"]["creationTimestamp"] = json!(created);
        pod
    };
    assert!(!judge(Some(late.clone()), &[unready("2026-01-01T00:30:00Z")]).broken.is_empty());
    is_waiting(&judge(Some(late.clone()), &[unready("2026-01-01T01:30:00Z")]), "ProgressDeadlineExceeded");
    is_waiting(&judge(Some(late.clone()), &[good()]), "ProgressDeadlineExceeded");
    is_waiting(&judge(Some(late), &[]), "ProgressDeadlineExceeded");
}

#[test]
fn a_pod_of_a_stateful_set_must_be_of_its_update_revision() {
    let set = json!({
        "metadata": { "name": "notes", "generation": 1 },
        "spec": { "replicas": 1, "updateStrategy": { "type": "OnDelete" }, "template": { "spec": { "containers": [{ "name": "main", "image": "notes:2.0" }] } } },
        "status": { "observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updateRevision": "b" }
    });
    let with = |revision: &str| {
        let mut pod = good();
        pod["metadata"]["labels"] = json!({ "controller-revision-hash": revision });
        judge_as(WorkloadKind::StatefulSet, "notes", Some(set.clone()), &[pod])
    };
    is_waiting(&with("a"), "earlier template");
    assert!(with("b").waiting.is_empty());
}

#[test]
fn jobs_must_complete() {
    let job = |conditions: Value| {
        let spec = json!({ "template": { "spec": { "containers": [{ "name": "main", "image": "notes:2.0" }] } } });
        let object = json!({ "metadata": { "name": "j" }, "spec": spec, "status": { "startTime": "t", "conditions": conditions } });
        judge_as(WorkloadKind::Job, "j", Some(object), &[])
    };
    assert_eq!(job(json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" }])).broken.len(), 1);
    assert_eq!(job(json!([{ "type": "Complete", "status": "True" }])).well.len(), 1);
    is_waiting(&job(json!([])), "not complete");
}

#[test]
fn pods_that_have_ended_are_not_counted() {
    let mut evicted = good();
    evicted["metadata"]["uid"] = json!("evicted");
    evicted["status"]["phase"] = json!("Failed");
    assert!(judge(Some(deployment()), &[good(), evicted.clone()]).waiting.is_empty());
    is_waiting(&judge(Some(deployment()), &[evicted]), "has no pods");
}
