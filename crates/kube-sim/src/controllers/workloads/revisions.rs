//! Templates by their hash, and the ControllerRevisions that keep the earlier ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::world::{Held, World, controller, controller_reference};

/// The letters of hashes in names: none that make words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const LABEL: &str = "controller.kubernetes.io/hash";

/// A short name for a template: equal for equal ones.
pub(super) fn hash(template: &PodTemplateSpec) -> String {
    // The types keep their maps sorted, so that equal templates have equal texts.
    let text = serde_json::to_string(template).unwrap_or_default();
    let letter = |byte: &u8| LETTERS.get(usize::from(*byte) % LETTERS.len()).copied().map(char::from);
    Sha256::digest(text).iter().take(10).filter_map(letter).collect()
}

/// The template that a revision keeps.
pub(super) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = &revision.data.as_ref()?.0;
    let mut template = data.pointer("/spec/template")?.clone();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    serde_json::from_value(template).ok()
}

fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".to_owned(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

/// The revisions that `owner` controls, oldest first.
pub(super) fn history<O: Held>(world: &World, owner: &O) -> Vec<Arc<ControllerRevision>> {
    let namespace = owner.namespace().unwrap_or_default();
    let own = |revision: &&Arc<ControllerRevision>| {
        controller(&revision.metadata).map(|owner| &owner.uid) == owner.meta().uid.as_ref()
    };
    let mut revisions: Vec<_> = world.revisions.within(&namespace).filter(own).cloned().collect();
    revisions.sort_by_key(|revision| (revision.revision, revision.name_any()));
    revisions
}

/// The revision that keeps `template`, made or moved to the end if need be.
pub(super) async fn keep<O: Held>(
    world: &mut World,
    owner: &O,
    labels: Option<BTreeMap<String, String>>,
    template: &PodTemplateSpec,
) -> kube::Result<Arc<ControllerRevision>> {
    let history = history(world, owner);
    let next = history.last().map_or(0, |last| last.revision) + 1;
    let hash = hash(template);
    if let Some(known) = history.iter().find(|revision| revision.labels().get(LABEL) == Some(&hash)) {
        return if known.revision + 1 == next {
            Ok(Arc::clone(known))
        } else {
            world.patch(&**known, json!({ "revision": next })).await
        };
    }
    let mut labels = labels.unwrap_or_default();
    labels.insert(LABEL.to_owned(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name_any())),
            namespace: owner.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(template))),
        revision: next,
    };
    world.create(&revision).await
}

/// Deletes the oldest revisions that nobody uses, but for the last `limit` of them.
pub(super) async fn truncate<O: Held>(
    world: &mut World,
    owner: &O,
    used: &[String],
    limit: Option<i32>,
) -> kube::Result<()> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let mut unused = history(world, owner);
    unused.retain(|revision| !used.contains(&revision.name_any()));
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        world.delete(&**revision).await?;
    }
    Ok(())
}
