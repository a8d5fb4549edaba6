//! Which jobs a change of an object brings.

use kube::api::DynamicObject;
use serde_json::Value;

use super::objects::{
    BEING_CREATED, Kind, Name, Object, bound_content, claim_of, cluster, data_snapshot, deleting, is_ready, name_of,
    own_content, phase, snapshot_of, source_claim, text, value, volume_name,
};
use super::queue::{Job, Role};
use super::world::World;
use crate::server::json::{list_at, str_at};

/// Calls `add` for every job that a change concerns. `world` is already as after the change.
pub(super) fn of(world: &World, kind: Kind, old: Option<&Object>, new: Option<&Object>, add: &mut impl FnMut(Job)) {
    let Some(object) = new.or(old) else { return };
    let both: Vec<&Object> = old.into_iter().chain(new).collect();
    let name = name_of(object);
    let mut add = |role: Role, name: Name| add(Job { role, name });
    match kind {
        Kind::Claim => {
            for role in [Role::BindClaim, Role::ProtectClaim, Role::Provision, Role::SourceClaim] {
                add(role, name.clone());
            }
            for volume in both.iter().map(|claim| volume_name(claim)).filter(|volume| !volume.is_empty()) {
                add(Role::BindVolume, cluster(volume));
            }
            for volume in world.all(Kind::Volume).filter(|volume| claim_of(volume).as_ref() == Some(&name)) {
                add(Role::BindVolume, name_of(volume));
            }
            let source = data_snapshot(object);
            for snapshot in world.all(Kind::Snapshot) {
                let cut_from_it = source_claim(snapshot).as_ref() == Some(&name) && !is_ready(snapshot);
                if cut_from_it || (deleting(snapshot) && source.as_ref() == Some(&name_of(snapshot))) {
                    add(Role::Snapshot, name_of(snapshot));
                }
            }
        }
        Kind::Volume => {
            for role in [Role::BindVolume, Role::ProtectVolume, Role::Reclaim] {
                add(role, name.clone());
            }
            for claim in both.iter().filter_map(|volume| claim_of(volume)) {
                add(Role::BindClaim, claim);
            }
            let free = new.is_some_and(|volume| phase(volume) == "Available");
            for claim in world.all(Kind::Claim) {
                if volume_name(claim) == name.1 || (free && volume_name(claim).is_empty()) {
                    add(Role::BindClaim, name_of(claim));
                }
            }
        }
        Kind::Pod => {
            for claim in both.iter().flat_map(|pod| claims_of(pod)) {
                add(Role::ProtectClaim, claim);
            }
        }
        Kind::Class => {
            for claim in world.all(Kind::Claim).filter(|claim| volume_name(claim).is_empty()) {
                add(Role::BindClaim, name_of(claim));
                add(Role::Provision, name_of(claim));
            }
        }
        Kind::Attachment => add(Role::Reclaim, cluster(text(object, &["spec", "source", "persistentVolumeName"]))),
        Kind::Snapshot => {
            add(Role::Snapshot, name.clone());
            for content in bound_content(object).map(str::to_owned).into_iter().chain([own_content(object)]) {
                add(Role::Content, cluster(&content));
            }
            for claim in world.all(Kind::Claim).filter(|claim| data_snapshot(claim).as_ref() == Some(&name)) {
                add(Role::Provision, name_of(claim));
            }
            if let Some(claim) = source_claim(object) {
                add(Role::SourceClaim, claim);
            }
        }
        Kind::Content => {
            add(Role::Content, name.clone());
            add(Role::Snapshot, snapshot_of(object));
            if old.zip(new).is_none_or(|(old, new)| matters_to_snapshotter(old, new)) {
                add(Role::Cut, name);
            }
        }
        Kind::SnapshotClass => {
            for snapshot in world.all(Kind::Snapshot).filter(|snapshot| !is_ready(snapshot)) {
                add(Role::Snapshot, name_of(snapshot));
            }
            for content in world.all(Kind::Content).filter(|content| !is_ready(content)) {
                add(Role::Cut, name_of(content));
            }
        }
    }
}

/// Whether the snapshotter looks at a content again because of this change. What it writes itself is no reason: else a
/// refusal of the driver would be tried again at once, for ever.
fn matters_to_snapshotter(old: &Object, new: &Object) -> bool {
    let others = |content: &Object| {
        let metadata = &content.metadata;
        let mut annotations = metadata.annotations.clone().unwrap_or_default();
        annotations.remove(BEING_CREATED);
        (annotations, metadata.labels.clone(), metadata.deletion_timestamp.clone(), content.data.get("spec").cloned())
    };
    (is_ready(new) && !is_ready(old)) || others(old) != others(new)
}

/// The claims that a pod names, those made for the pod alone included.
pub(super) fn claims_of(pod: &DynamicObject) -> Vec<Name> {
    let (namespace, pod_name) = name_of(pod);
    let claim = |volume: &Value| match str_at(volume, &["persistentVolumeClaim", "claimName"]) {
        "" if volume.get("ephemeral").is_some_and(Value::is_object) => {
            Some(format!("{pod_name}-{}", str_at(volume, &["name"])))
        }
        "" => None,
        named => Some(named.to_owned()),
    };
    let claims = list_at(value(pod, &["spec"]), &["volumes"]).iter().filter_map(claim);
    claims.map(|claim| (namespace.clone(), claim)).collect()
}
