//! DaemonSets: one pod on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::pods::{claim, from_template, is_available, is_finished, is_going, is_ready, name_prefix, next_available};
use super::revisions;
use super::world::{Again, World, number, some};

const REVISION: &str = "controller-revision-hash";

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let Some(set) = world.daemon_sets.get(namespace, name).cloned() else { return Ok(None) };
    let Some(spec) = set.spec.clone() else { return Ok(None) };
    let pods: Vec<Arc<Pod>> = claim(world, &*set, &spec.selector).await?;
    let kept = revisions::keep(world, &*set, spec.selector.match_labels.clone(), &spec.template).await?;
    let hash = revisions::hash(&spec.template);
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(node(&pod).unwrap_or_default()).or_default().push(pod);
    }
    let nodes: Vec<String> =
        world.nodes.all().filter(|node| fits(&spec, node.labels())).map(|node| node.name_any()).collect();
    let acted =
        if is_going(&set.metadata) { Ok(()) } else { act(world, &set, &spec, &hash, &nodes, &mut by_node).await };
    let now = world.now();
    let first = |node: &String| by_node.get(node).and_then(|pods| pods.iter().find(|pod| !is_going(&pod.metadata)));
    let running: Vec<&Arc<Pod>> = nodes.iter().filter_map(first).collect();
    let count = |which: &dyn Fn(&Pod) -> bool| running.iter().filter(|pod| which(pod)).count();
    let available = count(&|pod| is_available(pod, spec.min_ready_seconds, now));
    let elsewhere = by_node.iter().filter(|(node, pods)| !nodes.contains(node) && !pods.is_empty()).count();
    let status = DaemonSetStatus {
        desired_number_scheduled: number(nodes.len()),
        current_number_scheduled: number(running.len()),
        number_misscheduled: number(elsewhere),
        number_ready: number(count(&is_ready)),
        updated_number_scheduled: some(count(&|pod| pod.labels().get(REVISION) == Some(&hash))),
        number_available: some(available),
        number_unavailable: some(nodes.len() - available),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    world.set_status(&*set, &status).await?;
    acted?;
    revisions::truncate(world, &*set, &[kept.name_any()], spec.revision_history_limit).await?;
    Ok(next_available(running.into_iter(), spec.min_ready_seconds, now))
}

/// The node that the pod is on, or made for.
fn node(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let made_for = || {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
    };
    spec.node_name.clone().or_else(made_for)
}

fn fits(spec: &DaemonSetSpec, labels: &BTreeMap<String, String>) -> bool {
    let wanted = spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

async fn act(
    world: &mut World,
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    hash: &str,
    nodes: &[String],
    by_node: &mut BTreeMap<String, Vec<Arc<Pod>>>,
) -> kube::Result<()> {
    for node in nodes {
        let pods = by_node.entry(node.clone()).or_default();
        // One that ended is replaced, but not before it is gone.
        for pod in pods.iter().filter(|pod| is_finished(pod) && !is_going(&pod.metadata)) {
            world.delete(&**pod).await?;
        }
        if pods.is_empty() {
            pods.push(world.create(&new_pod(set, spec, hash, node)).await?);
        }
    }
    for (_, pods) in by_node.iter().filter(|(node, _)| !nodes.contains(node)) {
        for pod in pods.iter().filter(|pod| !is_going(&pod.metadata)) {
            world.delete(&**pod).await?;
        }
    }
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let allowed = match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            (percent * nodes.len()).div_ceil(100)
        }
        None => 1,
    };
    let now = world.now();
    let serves = |pod: &Arc<Pod>| !is_going(&pod.metadata) && is_available(pod, spec.min_ready_seconds, now);
    let missing = nodes.iter().filter(|node| !by_node.get(*node).is_some_and(|pods| pods.iter().any(serves))).count();
    let mut spare = allowed.saturating_sub(missing);
    let old: Vec<&Arc<Pod>> = nodes
        .iter()
        .filter_map(|node| by_node.get(node))
        .flatten()
        .filter(|pod| !is_going(&pod.metadata) && pod.labels().get(REVISION).map(String::as_str) != Some(hash))
        .collect();
    for pod in old {
        // An old pod that does not serve can go without a loss.
        if !serves(pod) {
            world.delete(&**pod).await?;
        } else if spare > 0 {
            spare -= 1;
            world.delete(&**pod).await?;
        }
    }
    Ok(())
}

fn new_pod(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str) -> Pod {
    let mut pod = from_template(set, &spec.template);
    pod.metadata.generate_name = Some(name_prefix(&set.name_any()));
    pod.metadata.labels.get_or_insert_default().insert(REVISION.to_owned(), hash.to_owned());
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
    let required = NodeSelector { node_selector_terms: vec![term] };
    pod.spec.get_or_insert_default().affinity = Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    });
    pod
}
