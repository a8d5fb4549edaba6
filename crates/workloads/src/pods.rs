//! Pods and the workloads they belong to.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use upgrade_core::ports::{ObjectRef, PodFact};

use crate::objects::{claims, controller, images, owner_object};

/// What stands between pods and their workloads.
#[derive(Debug, Default)]
pub(crate) struct Middle {
    pub(crate) replica_sets: Vec<ReplicaSet>,
    pub(crate) jobs: Vec<Job>,
}

impl Middle {
    /// The workload at the top of a pod's chain of controllers.
    pub(crate) fn workload(&self, pod: &Pod) -> Option<ObjectRef> {
        let namespace = pod.namespace().unwrap_or_default();
        let owner = controller(&pod.metadata)?;
        let has_uid = |uid: &Option<String>| uid.as_ref() == Some(&owner.uid);
        let sets = self.replica_sets.iter().map(|set| &set.metadata).filter(|meta| has_uid(&meta.uid));
        let mut between = sets.chain(self.jobs.iter().map(|job| &job.metadata).filter(|meta| has_uid(&meta.uid)));
        let top = between.next().and_then(controller).unwrap_or(owner);
        Some(owner_object(top, &namespace))
    }
}

/// Facts about a pod.
pub(crate) fn fact(pod: &Pod, middle: &Middle) -> PodFact {
    let namespace = pod.namespace().unwrap_or_default();
    let name = pod.name_any();
    let spec = pod.spec.as_ref();
    PodFact {
        object: ObjectRef::new("", "Pod", &namespace, &name),
        uid: pod.uid().unwrap_or_default(),
        workload: middle.workload(pod),
        images: spec.map(images).unwrap_or_default(),
        served: served(pod),
        claims: spec.map(|spec| claims(spec, Some(&name))).unwrap_or_default(),
    }
}

/// Whether a pod is Ready or was once. A kubelet writes Ready as False when it first sees the pod, no later than Initialized becomes
/// True, and moves `lastTransitionTime` only when the status changes (`updateLastTransitionTime` in its status manager): False since later than
/// that was True in between. Times are in whole seconds, so that a pod which was ready only within the second of its start is missed.
fn served(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let Some(ready) = find("Ready") else { return false };
    if ready.status == "True" {
        return true;
    }
    let since = |kind: &str| find(kind).and_then(|condition| condition.last_transition_time.as_ref());
    let initialized = find("Initialized").is_some_and(|condition| condition.status == "True");
    initialized && since("Ready").zip(since("Initialized")).is_some_and(|(unready, begun)| unready.0 > begun.0)
}

/// Statuses of all containers, init containers first.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let debug = status.and_then(|status| status.ephemeral_container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main).chain(debug)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [] }, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_was_ready_once_has_served_also_when_it_is_not_any_more() {
        let condition = |kind: &str, status: &str, second: u32| json!({ "type": kind, "status": status, "lastTransitionTime": format!("2026-01-01T00:00:{second:02}Z") });
        let served = |ready: Value, initialized: Value| served(&pod(&json!({ "conditions": [ready, initialized] })));
        assert!(served(condition("Ready", "True", 9), condition("Initialized", "True", 2)), "ready now");
        assert!(served(condition("Ready", "False", 9), condition("Initialized", "True", 2)), "ready once");
        assert!(!served(condition("Ready", "False", 2), condition("Initialized", "True", 2)), "never ready");
        assert!(!served(condition("Ready", "False", 2), condition("Initialized", "True", 8)), "after init containers");
        assert!(!served(condition("Ready", "False", 9), condition("Initialized", "False", 2)), "not started");
        let going = json!({ "metadata": { "name": "p", "deletionTimestamp": "2026-01-01T00:01:00Z" },
            "status": { "conditions": [condition("Ready", "True", 9)] } });
        assert!(super::served(&from_value(going).unwrap()), "on its way out");
    }

    #[test]
    fn a_pods_workload_is_at_the_top_of_its_controllers() {
        let owned = |kind: &str, uid: &str, by: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": by, "uid": uid, "controller": true }]);
        let set = |uid: &str, owners: Value| -> ReplicaSet {
            from_value(json!({ "metadata": { "name": "rs", "uid": uid, "ownerReferences": owners } })).unwrap()
        };
        let middle = Middle {
            replica_sets: vec![set("r1", owned("Deployment", "d1", "notes")), set("r2", json!([]))],
            jobs: vec![],
        };
        for (kind, uid, expected) in [
            ("ReplicaSet", "r1", "Deployment n/notes"),
            ("ReplicaSet", "r2", "ReplicaSet n/x"),
            ("StatefulSet", "s1", "StatefulSet n/x"),
        ] {
            let mut pod = pod(&json!({}));
            pod.metadata.owner_references = from_value(owned(kind, uid, "x")).unwrap();
            assert_eq!(middle.workload(&pod).unwrap().to_string(), expected);
        }
        assert_eq!(middle.workload(&pod(&json!({}))), None);
    }
}
