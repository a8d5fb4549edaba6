//! What all controllers say about pods: which are theirs, which count, and how they are made.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::world::{Held, World, controller, controller_reference};

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(super) fn is_going(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Neither ended nor on its way out.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_going(&pod.metadata)
}

/// Since when the pod is Ready, if it is.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the pod has been Ready for so many seconds.
pub(super) fn is_available(pod: &Pod, min_ready_seconds: Option<i32>, now: Timestamp) -> bool {
    let seconds = i64::from(min_ready_seconds.unwrap_or(0));
    ready_since(pod).is_some_and(|since| seconds == 0 || now.duration_since(since).as_secs() >= seconds)
}

/// How long it takes until `since` lies `seconds` back, at least a millisecond.
pub(super) fn until(since: Timestamp, seconds: i64, now: Timestamp) -> Duration {
    let left = SignedDuration::from_secs(seconds) - now.duration_since(since);
    Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(1))
}

/// When the next of the pods that are Ready, but not yet for long enough, will be available.
pub(super) fn next_available<'a>(
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    min_ready_seconds: Option<i32>,
    now: Timestamp,
) -> Option<Duration> {
    let seconds = min_ready_seconds.unwrap_or(0);
    let waiting = pods.filter(|pod| !is_available(pod, min_ready_seconds, now)).filter_map(|pod| ready_since(pod));
    waiting.map(|since| until(since, i64::from(seconds), now)).min()
}

pub(super) fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |Time(time)| *time)
}

/// Whether the selector, which must not be empty, takes the object.
pub(super) fn selects(selector: &LabelSelector, object: &impl ResourceExt) -> bool {
    let parsed = Selector::try_from(selector.clone()).ok();
    parsed.is_some_and(|parsed| *selector != LabelSelector::default() && parsed.matches(object.labels()))
}

/// The objects that `owner` controls, after it has adopted those its selector takes that nobody controls, and released those
/// it does not take any more.
pub(super) async fn claim<O, K>(world: &mut World, owner: &O, selector: &LabelSelector) -> kube::Result<Vec<Arc<K>>>
where
    O: Resource<DynamicType = ()>,
    K: Held,
{
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let all: Vec<Arc<K>> = K::known(world).within(&namespace).cloned().collect();
    let mut own = Vec::new();
    for object in all {
        let fits = selects(selector, &*object);
        match controller(object.meta()) {
            Some(controller) if Some(&controller.uid) == owner.meta().uid.as_ref() => {
                if fits || is_going(object.meta()) || is_going(owner.meta()) {
                    own.push(object);
                } else {
                    let owners = object.meta().owner_references.iter().flatten();
                    let others: Vec<&OwnerReference> =
                        owners.filter(|one| Some(&one.uid) != owner.meta().uid.as_ref()).collect();
                    world.patch(&*object, json!({ "metadata": { "ownerReferences": others } })).await?;
                }
            }
            None if fits && !is_going(object.meta()) && !is_going(owner.meta()) => {
                let mut owners = object.meta().owner_references.clone().unwrap_or_default();
                owners.push(controller_reference(owner));
                own.push(world.patch(&*object, json!({ "metadata": { "ownerReferences": owners } })).await?);
            }
            _ => {}
        }
    }
    Ok(own)
}

/// A pod as the template describes it, without a name.
pub(super) fn from_template<O: Resource<DynamicType = ()>>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The beginning of generated pod names, short enough to leave room for the end.
pub(super) fn name_prefix(owner: &str) -> String {
    format!("{}-", owner.chars().take(57).collect::<String>())
}
