//! ReplicaSets: so many pods of one template.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::pods::{
    claim, created, from_template, is_active, is_available, is_going, is_ready, name_prefix, next_available, phase,
    ready_since,
};
use super::world::{Again, World, number, some};

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let Some(set) = world.replica_sets.get(namespace, name).cloned() else { return Ok(None) };
    let Some(spec) = set.spec.clone() else { return Ok(None) };
    let mut pods: Vec<Arc<Pod>> = claim(world, &*set, &spec.selector).await?;
    pods.retain(|pod| is_active(pod));
    let failure = if is_going(&set.metadata) { None } else { manage(world, &set, &mut pods).await.err() };
    let now = world.now();
    let template_labels = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    let template_labels = template_labels.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let count = |which: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| which(pod)).count();
    let status = ReplicaSetStatus {
        replicas: number(pods.len()),
        fully_labeled_replicas: some(count(&|pod| {
            template_labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })),
        ready_replicas: some(count(&is_ready)),
        available_replicas: some(count(&|pod| is_available(pod, spec.min_ready_seconds, now))),
        observed_generation: set.metadata.generation,
        conditions: failure_condition(world, &set, failure.as_ref()),
        ..ReplicaSetStatus::default()
    };
    world.set_status(&*set, &status).await?;
    match failure {
        Some(error) => Err(error),
        None => Ok(next_available(pods.iter(), spec.min_ready_seconds, now)),
    }
}

/// Makes or deletes what is missing or too much; `pods` are those that remain.
async fn manage(world: &mut World, set: &ReplicaSet, pods: &mut Vec<Arc<Pod>>) -> kube::Result<()> {
    let spec = set.spec.clone().unwrap_or_default();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    while pods.len() < wanted {
        let mut pod = from_template(set, &spec.template.clone().unwrap_or_default());
        pod.metadata.generate_name = Some(name_prefix(&set.name_any()));
        pods.push(world.create(&pod).await?);
    }
    if pods.len() > wanted {
        pods.sort_by_key(|pod| dispensable(pod));
        for pod in pods.drain(..pods.len() - wanted).collect::<Vec<_>>() {
            world.delete(&*pod).await?;
        }
    }
    Ok(())
}

/// The order in which pods are given up: those that serve least first.
fn dispensable(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let running = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let restarts: i32 = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .sum();
    let recent = (Reverse(ready_since(pod)), Reverse(restarts), Reverse(created(&pod.metadata)));
    (assigned, running, is_ready(pod), cost, recent, pod.name_any())
}

fn failure_condition(
    world: &World,
    set: &ReplicaSet,
    failure: Option<&kube::Error>,
) -> Option<Vec<ReplicaSetCondition>> {
    let error = failure?;
    let message = error.to_string();
    let known = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut known = known.filter(|one| one.type_ == "ReplicaFailure" && one.message.as_ref() == Some(&message));
    let since = known.next().and_then(|one| one.last_transition_time.clone()).unwrap_or_else(|| world.time());
    Some(vec![ReplicaSetCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        reason: Some("FailedCreate".to_owned()),
        message: Some(message),
        last_transition_time: Some(since),
    }])
}
