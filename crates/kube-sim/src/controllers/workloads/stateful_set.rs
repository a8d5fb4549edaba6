//! StatefulSets: numbered pods with claims of their own, made and replaced in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;

use super::pods::{claim, from_template, is_available, is_finished, is_going, is_ready, next_available, phase};
use super::world::{Again, World, number, some};
use super::{retention, revisions};

const REVISION: &str = "controller-revision-hash";

pub(super) async fn reconcile(world: &mut World, namespace: &str, name: &str) -> kube::Result<Again> {
    let Some(set) = world.stateful_sets.get(namespace, name).cloned() else { return Ok(None) };
    let Some(spec) = set.spec.clone() else { return Ok(None) };
    let pods: Vec<Arc<Pod>> = claim(world, &*set, &spec.selector).await?;
    let update = revisions::keep(world, &*set, labels(&spec.selector), &spec.template).await?;
    let before = set.status.clone().unwrap_or_default();
    let known = revisions::history(world, &*set);
    let current = before.current_revision.and_then(|name| known.iter().find(|one| one.name_any() == name).cloned());
    let current = current.unwrap_or_else(|| Arc::clone(&update));
    let current_template = revisions::template(&current).unwrap_or_else(|| spec.template.clone());
    let mut state = State {
        update: update.name_any(),
        current: current.name_any(),
        current_template,
        pods: pods.into_iter().filter_map(|pod| Some((ordinal(name, &pod)?, pod))).collect(),
        set: Arc::clone(&set),
        spec,
    };
    let acted = if is_going(&set.metadata) { Ok(()) } else { act(world, &mut state).await };
    let status = status(world, &state);
    world.set_status(&*set, &status).await?;
    acted?;
    let mut used: Vec<String> = state.pods.values().filter_map(|pod| revision(pod).map(str::to_owned)).collect();
    used.extend([state.update.clone(), state.current.clone()]);
    used.extend(status.current_revision);
    revisions::truncate(world, &*set, &used, state.spec.revision_history_limit).await?;
    Ok(next_available(state.pods.values(), state.spec.min_ready_seconds, world.now()))
}

/// A StatefulSet as it is now.
struct State {
    set: Arc<StatefulSet>,
    spec: StatefulSetSpec,
    /// Names of the revisions.
    update: String,
    current: String,
    current_template: PodTemplateSpec,
    /// By ordinal.
    pods: BTreeMap<i32, Arc<Pod>>,
}

impl State {
    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn wanted(&self) -> std::ops::Range<i32> {
        self.first()..self.first().saturating_add(self.spec.replicas.unwrap_or(1))
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn updates_itself(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// The first ordinal that is updated.
    fn partition(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        self.first() + rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.set.name_any())
    }

    /// Names of the claims of a pod, with their templates.
    fn claims(&self, ordinal: i32) -> Vec<(String, &PersistentVolumeClaim)> {
        let templates = self.spec.volume_claim_templates.iter().flatten();
        templates.map(|one| (format!("{}-{}", one.name_any(), self.pod_name(ordinal)), one)).collect()
    }
}

fn labels(selector: &LabelSelector) -> Option<BTreeMap<String, String>> {
    selector.match_labels.clone()
}

fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    pod.name_any().strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

fn revision(pod: &Pod) -> Option<&str> {
    pod.labels().get(REVISION).map(String::as_str)
}

/// Running and Ready, even on its way out: what its status says.
fn serves(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    serves(pod) && !is_going(&pod.metadata)
}

/// Does the next thing. In order, nothing is done while a pod before it is not available: a pod that never gets
/// there stops everything, its own replacement by a later template included, as on a real cluster.
async fn act(world: &mut World, state: &mut State) -> kube::Result<()> {
    let (set, spec) = (Arc::clone(&state.set), state.spec.clone());
    let mut condemned: Vec<i32> = state.pods.keys().copied().filter(|n| !state.wanted().contains(n)).collect();
    let unhealthy = state.pods.iter().filter(|(_, pod)| !is_healthy(pod)).map(|(ordinal, _)| *ordinal).min();
    for ordinal in state.wanted() {
        let names: Vec<String> = state.claims(ordinal).into_iter().map(|(name, _)| name).collect();
        let Some(pod) = state.pods.get(&ordinal).cloned() else {
            if retention::is_stale(world, &set, &names) {
                return Ok(());
            }
            let pod = create(world, state, ordinal).await?;
            state.pods.insert(ordinal, pod);
            if state.in_order() {
                return Ok(());
            }
            continue;
        };
        if is_finished(&pod) {
            if !is_going(&pod.metadata) {
                world.delete(&*pod).await?;
            }
            return Ok(());
        }
        if state.in_order() && (!is_healthy(&pod) || !is_available(&pod, spec.min_ready_seconds, world.now())) {
            return Ok(());
        }
        retention::apply(world, &set, &spec, &pod, &names, false).await?;
    }
    condemned.sort_unstable_by(|one, other| other.cmp(one));
    for ordinal in condemned {
        let Some(pod) = state.pods.get(&ordinal).cloned() else { continue };
        if is_going(&pod.metadata) {
            if state.in_order() {
                return Ok(());
            }
            continue;
        }
        if state.in_order() && !serves(&pod) && unhealthy != Some(ordinal) {
            return Ok(());
        }
        let names: Vec<String> = state.claims(ordinal).into_iter().map(|(name, _)| name).collect();
        retention::apply(world, &set, &spec, &pod, &names, true).await?;
        world.delete(&*pod).await?;
        if state.in_order() {
            return Ok(());
        }
    }
    update(world, state).await
}

/// Replaces the newest pod that is not of the newest template, if those after it are healthy.
async fn update(world: &mut World, state: &State) -> kube::Result<()> {
    if !state.updates_itself() {
        return Ok(());
    }
    let partition = state.partition();
    for (_, pod) in state.pods.iter().rev().filter(|(n, _)| **n >= partition && state.wanted().contains(n)) {
        if revision(pod) != Some(&state.update) && !is_going(&pod.metadata) {
            return world.delete(&**pod).await;
        }
        if !is_healthy(pod) {
            return Ok(());
        }
    }
    Ok(())
}

async fn create(world: &mut World, state: &State, ordinal: i32) -> kube::Result<Arc<Pod>> {
    let namespace = state.set.namespace().unwrap_or_default();
    let old = state.updates_itself() && ordinal < state.partition();
    let (template, revision) =
        if old { (&state.current_template, &state.current) } else { (&state.spec.template, &state.update) };
    let mut pod = from_template(&*state.set, template);
    let name = state.pod_name(ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    labels.insert(REVISION.to_owned(), revision.clone());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = state.spec.service_name.clone().filter(|service| !service.is_empty());
    let own = state.claims(ordinal);
    let mut volumes: Vec<Volume> = own
        .iter()
        .map(|(claim_name, template)| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name.clone(),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        })
        .collect();
    let shadowed = |volume: &Volume| own.iter().any(|(_, template)| template.name_any() == volume.name);
    volumes.extend(spec.volumes.take().into_iter().flatten().filter(|volume| !shadowed(volume)));
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
    for (claim_name, template) in &own {
        match world.claims.get(&namespace, claim_name) {
            Some(known) if is_going(&known.metadata) => {
                return Err(refusal(format!("claim {claim_name} is being deleted")));
            }
            Some(_) => {}
            None => {
                let claim = new_claim(state, claim_name, template);
                world.create(&claim).await?;
            }
        }
    }
    world.create(&pod).await
}

fn refusal(message: String) -> kube::Error {
    kube::Error::Service(message.into())
}

fn new_claim(state: &State, name: &str, template: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    let mut labels = template.labels().clone();
    labels.extend(state.spec.selector.match_labels.clone().unwrap_or_default());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: state.set.namespace(),
            labels: Some(labels),
            annotations: template.metadata.annotations.clone(),
            owner_references: retention::owners_at_birth(&state.set, &state.spec),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

fn status(world: &World, state: &State) -> StatefulSetStatus {
    let now = world.now();
    let count = |which: &dyn Fn(&Pod) -> bool| state.pods.values().filter(|pod| which(pod)).count();
    let of = |name: &str| count(&|pod| revision(pod) == Some(name) && !is_going(&pod.metadata));
    let (all, ready, updated) = (state.pods.len(), count(&serves), of(&state.update));
    let wanted = state.wanted().len();
    // Only when every pod is of the newest template does that become the current one.
    let done = state.updates_itself() && all == wanted && updated == wanted && ready == wanted;
    let (current_revision, current) =
        if done { (&state.update, updated) } else { (&state.current, of(&state.current)) };
    StatefulSetStatus {
        replicas: number(all),
        ready_replicas: some(ready),
        available_replicas: some(count(&|pod| serves(pod) && is_available(pod, state.spec.min_ready_seconds, now))),
        current_replicas: some(current),
        updated_replicas: some(updated),
        current_revision: Some(current_revision.clone()),
        update_revision: Some(state.update.clone()),
        observed_generation: state.set.metadata.generation,
        collision_count: Some(0),
        ..StatefulSetStatus::default()
    }
}
