//! Deployments: one ReplicaSet per template, and the way from one to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::json;

use super::deployment_status::{self, Rollout};
use super::pods::{claim, created, is_finished, is_going};
use super::revisions::hash;
use super::world::{Again, World, controller, controller_reference};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let Some(deployment) = world.deployments.get(namespace, name).cloned() else { return Ok(None) };
    let Some(spec) = deployment.spec.clone() else { return Ok(None) };
    let mut sets: Vec<Arc<ReplicaSet>> = claim(world, &*deployment, &spec.selector).await?;
    sets.sort_by_key(|set| (created(&set.metadata), set.name_any()));
    let mut rollout = Rollout { newest: newest(&spec, &sets), sets, created: None };
    if is_going(&deployment.metadata) {
        return deployment_status::write(world, &deployment, &rollout).await;
    }
    if spec.paused == Some(true) {
        keep_size(world, &spec, &mut rollout).await?;
        return deployment_status::write(world, &deployment, &rollout).await;
    }
    let deployment = number_revisions(world, &deployment, &mut rollout).await?;
    if spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        recreate(world, &deployment, &spec, &mut rollout).await?;
    } else {
        roll(world, &deployment, &spec, &mut rollout).await?;
    }
    let again = deployment_status::write(world, &deployment, &rollout).await?;
    clean_up(world, &deployment, &rollout).await?;
    Ok(again)
}

pub(super) fn wanted(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// How many pods may be more than wanted, and how many of the wanted may be missing.
pub(super) fn bounds(spec: &DeploymentSpec) -> (i32, i32) {
    let Some(rolling) = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref()) else {
        return (0, 0);
    };
    let surge = scaled(rolling.max_surge.as_ref(), wanted(spec), true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), wanted(spec), false);
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

fn scaled(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            percent.saturating_mul(of).saturating_add(if up { 99 } else { 0 }) / 100
        }
    }
}

fn bare_template(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    template
}

/// The oldest ReplicaSet that has the Deployment's template.
fn newest(spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = bare_template(&spec.template);
    let has_it = |set: &&Arc<ReplicaSet>| {
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(bare_template).as_ref() == Some(&template)
    };
    sets.iter().find(has_it).cloned()
}

fn revision(meta: &ObjectMeta) -> i64 {
    let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The newest ReplicaSet gets the highest number, and the Deployment names it.
async fn number_revisions(
    world: &mut World,
    deployment: &Arc<Deployment>,
    rollout: &mut Rollout,
) -> kube::Result<Arc<Deployment>> {
    let Some(newest) = rollout.newest.clone() else { return Ok(Arc::clone(deployment)) };
    let next = rollout.old().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1;
    let number = revision(&newest.metadata).max(next);
    let mut annotations = passed_on(deployment);
    annotations.insert(REVISION.to_owned(), number.to_string());
    if annotations.iter().any(|(key, value)| newest.annotations().get(key) != Some(value)) {
        let set = world.patch(&*newest, json!({ "metadata": { "annotations": annotations } })).await?;
        rollout.replace(&set);
    }
    name_revision(world, deployment, number).await
}

async fn name_revision(world: &mut World, deployment: &Arc<Deployment>, number: i64) -> kube::Result<Arc<Deployment>> {
    if revision(&deployment.metadata) == number {
        return Ok(Arc::clone(deployment));
    }
    let patch = json!({ "metadata": { "annotations": { REVISION: number.to_string() } } });
    world.patch(&**deployment, patch).await
}

/// The annotations that a ReplicaSet has from its Deployment.
fn passed_on(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = |key: &str| key == "kubectl.kubernetes.io/last-applied-configuration" || key == REVISION;
    let kept = deployment.annotations().iter().filter(|(key, _)| !own(key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn create_newest(
    world: &mut World,
    deployment: &Arc<Deployment>,
    spec: &DeploymentSpec,
    rollout: &mut Rollout,
    replicas: i32,
) -> kube::Result<()> {
    let hash = hash(&spec.template);
    let labelled = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH.to_owned(), hash.clone());
        labels
    };
    let mut template = spec.template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    let labels = labelled(meta.labels.take());
    meta.labels = Some(labels.clone());
    template.metadata = Some(meta);
    let number = rollout.sets.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1;
    let mut annotations = passed_on(deployment);
    annotations.insert(REVISION.to_owned(), number.to_string());
    let (surge, _) = bounds(spec);
    annotations.insert("deployment.kubernetes.io/desired-replicas".to_owned(), wanted(spec).to_string());
    annotations.insert("deployment.kubernetes.io/max-replicas".to_owned(), (wanted(spec) + surge).to_string());
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(&**deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector {
                match_labels: Some(labelled(spec.selector.match_labels.clone())),
                match_expressions: spec.selector.match_expressions.clone(),
            },
            template: Some(template),
        }),
        status: None,
    };
    let set = world.create(&set).await?;
    rollout.created = Some(set.name_any());
    rollout.newest = Some(Arc::clone(&set));
    rollout.sets.push(set);
    name_revision(world, deployment, number).await.map(drop)
}

/// Scales a ReplicaSet; returns whether that was a change.
async fn scale(
    world: &mut World,
    spec: &DeploymentSpec,
    rollout: &mut Rollout,
    set: &ReplicaSet,
    to: i32,
) -> kube::Result<bool> {
    if size(set) == to {
        return Ok(false);
    }
    let (surge, _) = bounds(spec);
    let annotations = json!({
        "deployment.kubernetes.io/desired-replicas": wanted(spec).to_string(),
        "deployment.kubernetes.io/max-replicas": (wanted(spec) + surge).to_string(),
    });
    let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": to } });
    let set = world.patch(set, patch).await?;
    rollout.replace(&set);
    Ok(true)
}

/// A paused Deployment starts no rollout, but is as large as it is asked to be.
async fn keep_size(world: &mut World, spec: &DeploymentSpec, rollout: &mut Rollout) -> kube::Result<()> {
    let active: Vec<Arc<ReplicaSet>> = rollout.sets.iter().filter(|set| size(set) > 0).cloned().collect();
    let set = match (active.as_slice(), &rollout.newest) {
        ([only], _) => Arc::clone(only),
        ([], Some(newest)) => Arc::clone(newest),
        _ => return Ok(()),
    };
    scale(world, spec, rollout, &set, wanted(spec)).await.map(drop)
}

/// All old pods go, and are really gone, before the first new one is made.
async fn recreate(
    world: &mut World,
    deployment: &Arc<Deployment>,
    spec: &DeploymentSpec,
    rollout: &mut Rollout,
) -> kube::Result<()> {
    let mut scaled = false;
    for set in rollout.old().cloned().collect::<Vec<_>>() {
        scaled |= scale(world, spec, rollout, &set, 0).await?;
    }
    if scaled || runs_old_pods(world, deployment, rollout) {
        return Ok(());
    }
    match rollout.newest.clone() {
        None => create_newest(world, deployment, spec, rollout, wanted(spec)).await,
        Some(newest) => scale(world, spec, rollout, &newest, wanted(spec)).await.map(drop),
    }
}

fn runs_old_pods(world: &World, deployment: &Deployment, rollout: &Rollout) -> bool {
    let namespace = deployment.namespace().unwrap_or_default();
    let is_old = |pod: &Arc<Pod>| {
        let owner = controller(&pod.metadata).map(|owner| &owner.uid);
        !is_finished(pod) && owner.is_some() && rollout.old().any(|set| set.metadata.uid.as_ref() == owner)
    };
    world.pods.within(&namespace).any(is_old)
}

async fn roll(
    world: &mut World,
    deployment: &Arc<Deployment>,
    spec: &DeploymentSpec,
    rollout: &mut Rollout,
) -> kube::Result<()> {
    let (surge, unavailable) = bounds(spec);
    let all: i32 = rollout.sets.iter().map(|set| size(set)).sum();
    let room = (wanted(spec) + surge - all).max(0);
    let Some(newest) = rollout.newest.clone() else {
        return create_newest(world, deployment, spec, rollout, room.min(wanted(spec))).await;
    };
    let target = match size(&newest) {
        many if many > wanted(spec) => wanted(spec),
        few => few + room.min(wanted(spec) - few),
    };
    if scale(world, spec, rollout, &newest, target).await? {
        return Ok(());
    }
    let least = wanted(spec) - unavailable;
    let mut spare = all - least - (size(&newest) - available(&newest));
    if spare <= 0 {
        return Ok(());
    }
    // First what serves nobody, then as many of the others as can be missed.
    for set in rollout.old().cloned().collect::<Vec<_>>() {
        let down = spare.min(size(&set) - available(&set)).max(0);
        spare -= down;
        scale(world, spec, rollout, &set, size(&set) - down).await?;
    }
    let mut spare = rollout.sets.iter().map(|set| available(set)).sum::<i32>() - least;
    for set in rollout.old().cloned().collect::<Vec<_>>() {
        let down = spare.min(size(&set)).max(0);
        spare -= down;
        scale(world, spec, rollout, &set, size(&set) - down).await?;
    }
    Ok(())
}

/// Deletes old ReplicaSets beyond the history limit once the rollout is complete.
async fn clean_up(world: &mut World, deployment: &Deployment, rollout: &Rollout) -> kube::Result<()> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut old: Vec<&Arc<ReplicaSet>> = rollout.old().collect();
    if !deployment_status::is_complete(deployment, rollout) || old.len() <= usize::try_from(limit).unwrap_or(0) {
        return Ok(());
    }
    old.sort_by_key(|set| revision(&set.metadata));
    let surplus = old.len() - usize::try_from(limit).unwrap_or(0);
    for set in old.into_iter().take(surplus) {
        let status = set.status.clone().unwrap_or_default();
        let seen = set.metadata.generation <= status.observed_generation;
        if status.replicas == 0 && size(set) == 0 && seen && !is_going(&set.metadata) {
            world.delete(&**set).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    #[test]
    fn a_rollout_can_always_move() {
        let bounds = |replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value| {
            let rolling = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
            let spec: DeploymentSpec = from_value(json!({
                "replicas": replicas, "selector": {}, "template": {}, "strategy": { "rollingUpdate": rolling }
            }))
            .unwrap();
            super::bounds(&spec)
        };
        assert_eq!(bounds(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(bounds(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(bounds(3, json!(0), json!(0)), (0, 1));
        assert_eq!(bounds(3, json!(2), json!("100%")), (2, 3));
    }
}
