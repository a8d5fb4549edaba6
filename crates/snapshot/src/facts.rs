//! Facts about claims and volumes, from the objects as they were read.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;
use upgrade_core::ports::{ClaimFacts, ClaimState, ReclaimPolicy, VolumeState};
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotClass};

use crate::labels::OPERATION;
use crate::{Error, bytes, class, manifest};

const FORCE: &str = "kustomize.toolkit.fluxcd.io/force";

/// Everything that claims are judged against, read once.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// All volumes of the cluster: two of them may share a handle.
    pub volumes: Vec<PersistentVolume>,
    /// All snapshot classes.
    pub classes: Vec<VolumeSnapshotClass>,
    /// All snapshots of the claims' namespace.
    pub snapshots: Vec<VolumeSnapshot>,
    /// The class the app asks for.
    pub class: Option<String>,
}

/// Facts about a claim that does not exist.
#[must_use]
pub fn missing(namespace: &str, name: &str, found_by: &str) -> ClaimFacts {
    ClaimFacts {
        namespace: namespace.into(),
        name: name.into(),
        uid: String::new(),
        manifest: Value::Null,
        volume: String::new(),
        volume_uid: String::new(),
        reclaim_policy: ReclaimPolicy::Delete,
        driver: String::new(),
        handle: String::new(),
        capacity: 0,
        snapshot_class: None,
        found_by: found_by.into(),
        refusals: vec![("claim-missing".into(), format!("claim {namespace}/{name} does not exist"))],
    }
}

/// Facts about a claim.
pub fn claim(claim: &DynamicObject, found_by: &str, world: &World) -> Result<ClaimFacts, Error> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let uid = claim.uid().unwrap_or_default();
    let mut refusals = of_the_claim_itself(claim, world);
    let mut refuse = |code: &str, why: String| refusals.push((code.to_owned(), why));

    let volume_name = named_volume(claim).unwrap_or_default();
    let phase = phase(claim);
    if phase != "Bound" || volume_name.is_empty() {
        refuse("claim-not-bound", format!("claim {name} is {phase}"));
    }
    let mut facts = ClaimFacts {
        uid: uid.clone(),
        manifest: manifest::record(claim),
        refusals: Vec::new(),
        ..missing(&namespace, &name, found_by)
    };
    let volume = world.volumes.iter().find(|volume| volume.name_any() == volume_name);
    match volume {
        None if volume_name.is_empty() => {}
        None => refuse("volume-mismatch", format!("claim {name} names volume {volume_name}, which does not exist")),
        Some(volume) => {
            let state = self::volume(volume)?;
            let here = (namespace, name.clone(), Some(uid));
            if state.claim.as_ref() != Some(&here) {
                let seen = state.claim.as_ref().map_or("no claim".into(), |(namespace, name, uid)| {
                    format!("{namespace}/{name} with the UID {}", uid.as_deref().unwrap_or("(none)"))
                });
                refuse("volume-mismatch", format!("claim {name} names volume {volume_name}, which names {seen}"));
            }
            if volume.metadata.deletion_timestamp.is_some() {
                refuse("volume-terminating", format!("volume {volume_name} of claim {name} is being deleted"));
            }
            if state.driver.is_empty() {
                refuse("not-csi", format!("volume {volume_name} of claim {name} is not made by a CSI driver"));
            } else {
                for other in &world.volumes {
                    if other.name_any() != volume_name && csi(other) == Some((&state.driver, &state.handle)) {
                        let other = other.name_any();
                        refuse("shared-handle", format!("volumes {volume_name} and {other} are the same storage"));
                    }
                }
                match class::resolve(world.class.as_deref(), &state.driver, &world.classes) {
                    Ok(class) => facts.snapshot_class = Some(class),
                    Err(refusal) => refuse(refusal.code(), format!("claim {name}: {refusal}")),
                }
            }
            facts.volume = volume_name;
            facts.volume_uid = state.uid;
            facts.reclaim_policy = state.reclaim_policy;
            facts.driver = state.driver;
            facts.handle = state.handle;
            facts.capacity = state.capacity;
        }
    }
    facts.refusals = refusals;
    Ok(facts)
}

fn of_the_claim_itself(claim: &DynamicObject, world: &World) -> Vec<(String, String)> {
    let name = claim.name_any();
    let mut refusals = Vec::new();
    let mut refuse = |code: &str, why: String| refusals.push((code.to_owned(), why));
    if claim.metadata.deletion_timestamp.is_some() {
        refuse("claim-terminating", format!("claim {name} is being deleted"));
    }
    for owner in claim.owner_references() {
        let stateful_set = owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/");
        // A pod as owner takes the claim with it when it goes, controller or not.
        if (owner.controller == Some(true) && !stateful_set) || owner.kind == "Pod" {
            let (kind, owner) = (&owner.kind, &owner.name);
            refuse("owned-by-operator", format!("claim {name} belongs to {kind} {owner}, which looks after it itself"));
        }
    }
    if claim.annotations().get(FORCE).is_some_and(|value| value.eq_ignore_ascii_case("enabled")) {
        refuse(
            "force-annotation",
            format!("claim {name} carries {FORCE}: Flux may delete it and make it again, empty"),
        );
    }
    for snapshot in &world.snapshots {
        let of_this = snapshot.spec.source.persistent_volume_claim_name.as_deref() == Some(&name);
        let ready = snapshot.status.as_ref().and_then(|status| status.ready_to_use) == Some(true);
        if of_this && !ready {
            let snapshot = snapshot.name_any();
            refuse(
                "unready-snapshot",
                format!("snapshot {snapshot} of claim {name} is not ready: until it is, the claim cannot be deleted"),
            );
        }
    }
    refusals
}

/// A claim now.
#[must_use]
pub fn claim_state(claim: &DynamicObject) -> ClaimState {
    ClaimState {
        uid: claim.uid().unwrap_or_default(),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        phase: phase(claim),
        volume: named_volume(claim),
        operation: claim.labels().get(OPERATION).cloned(),
    }
}

/// A volume now.
pub fn volume(volume: &PersistentVolume) -> Result<VolumeState, Error> {
    let spec = volume.spec.as_ref();
    let (driver, handle) = csi(volume).unwrap_or_default();
    let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    Ok(VolumeState {
        uid: volume.uid().unwrap_or_default(),
        reclaim_policy: match spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) {
            Some("Retain") => ReclaimPolicy::Retain,
            // `Recycle` deletes the data as well.
            _ => ReclaimPolicy::Delete,
        },
        phase: volume.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Pending".into()),
        claim: spec.and_then(|spec| spec.claim_ref.as_ref()).map(|claim| {
            (
                claim.namespace.clone().unwrap_or_default(),
                claim.name.clone().unwrap_or_default(),
                claim.uid.clone().filter(|uid| !uid.is_empty()),
            )
        }),
        driver: driver.to_owned(),
        handle: handle.to_owned(),
        capacity: capacity.map_or(Ok(0), |capacity| bytes(&capacity.0)).map_err(|source| Error::Quantity {
            of: format!("the capacity of volume {}", volume.name_any()),
            source,
        })?,
    })
}

/// Driver and handle of a CSI volume.
fn csi(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some((&csi.driver, &csi.volume_handle))
}

fn phase(claim: &DynamicObject) -> String {
    claim.data.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending").to_owned()
}

/// The volume a claim names.
#[must_use]
pub fn named_volume(claim: &DynamicObject) -> Option<String> {
    let name = claim.data.pointer("/spec/volumeName").and_then(Value::as_str)?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn claim_json() -> Value {
        json!({
            "metadata": { "name": "data", "namespace": "notes", "uid": "c1" },
            "spec": { "volumeName": "pv-1", "resources": { "requests": { "storage": "1Gi" } } },
            "status": { "phase": "Bound" }
        })
    }

    fn volume_json(name: &str, handle: &str) -> Value {
        json!({
            "metadata": { "name": name, "uid": format!("{name}-uid") },
            "spec": {
                "capacity": { "storage": "1Gi" }, "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": { "namespace": "notes", "name": "data", "uid": "c1" },
                "csi": { "driver": "d", "volumeHandle": handle }
            },
            "status": { "phase": "Bound" }
        })
    }

    /// Changes of the claim, of its volume, and further objects of the world.
    fn codes(change: impl Fn(&mut Value, &mut Value, &mut World)) -> Vec<String> {
        let (mut claim, mut volume) = (claim_json(), volume_json("pv-1", "h1"));
        let class = json!({ "metadata": { "name": "snap" }, "driver": "d", "deletionPolicy": "Delete" });
        let mut world = World { classes: vec![from_value(class).unwrap()], ..World::default() };
        change(&mut claim, &mut volume, &mut world);
        world.volumes.push(from_value(volume).unwrap());
        let facts = super::claim(&from_value(claim).unwrap(), "named", &world).unwrap();
        facts.refusals.into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn a_bound_csi_claim_has_all_its_facts_and_no_refusal() {
        let class = json!({ "metadata": { "name": "snap" }, "driver": "d", "deletionPolicy": "Delete" });
        let world = World {
            volumes: vec![from_value(volume_json("pv-1", "h1")).unwrap()],
            classes: vec![from_value(class).unwrap()],
            ..World::default()
        };
        let facts = claim(&from_value(claim_json()).unwrap(), "named", &world).unwrap();
        assert_eq!(facts.refusals, []);
        assert_eq!((facts.volume.as_str(), facts.volume_uid.as_str()), ("pv-1", "pv-1-uid"));
        assert_eq!((facts.driver.as_str(), facts.handle.as_str(), facts.capacity), ("d", "h1", 1 << 30));
        assert_eq!((facts.snapshot_class.as_deref(), facts.reclaim_policy), (Some("snap"), ReclaimPolicy::Delete));
    }

    #[test]
    fn every_danger_is_refused_by_its_name() {
        let owner = |kind: &str, api: &str, controller: bool| json!([{ "apiVersion": api, "kind": kind, "name": "o", "uid": "u", "controller": controller }]);
        assert_eq!(codes(|claim, _, _| claim["status"]["phase"] = json!("Lost")), ["claim-not-bound"]);
        assert_eq!(
            codes(|claim, _, _| claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            ["claim-terminating"]
        );
        assert_eq!(codes(|_, volume, _| volume["spec"]["claimRef"]["uid"] = json!("c0")), ["volume-mismatch"]);
        assert_eq!(codes(|claim, _, _| claim["spec"]["volumeName"] = json!("pv-9")), ["volume-mismatch"]);
        assert_eq!(
            codes(|_, volume, _| volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            ["volume-terminating"]
        );
        assert_eq!(codes(|_, volume, _| volume["spec"]["csi"] = Value::Null), ["not-csi"]);
        assert_eq!(codes(|_, volume, _| volume["spec"]["csi"]["driver"] = json!("e")), ["no-snapshot-class"]);
        assert_eq!(codes(|_, _, world| world.class = Some("none".into())), ["no-snapshot-class"]);
        assert_eq!(
            codes(|_, _, world| world.volumes.push(from_value(volume_json("pv-2", "h1")).unwrap())),
            ["shared-handle"]
        );
        assert_eq!(codes(|_, _, world| world.volumes.push(from_value(volume_json("pv-2", "h2")).unwrap())), [""; 0]);
        assert_eq!(
            codes(|claim, _, _| claim["metadata"]["ownerReferences"] = owner("Cluster", "postgresql.cnpg.io/v1", true)),
            ["owned-by-operator"]
        );
        assert_eq!(
            codes(|claim, _, _| claim["metadata"]["ownerReferences"] = owner("Pod", "v1", false)),
            ["owned-by-operator"]
        );
        assert_eq!(
            codes(|claim, _, _| claim["metadata"]["ownerReferences"] = owner("StatefulSet", "apps/v1", true)),
            [""; 0]
        );
        assert_eq!(
            codes(|claim, _, _| claim["metadata"]["annotations"] = json!({ FORCE: "enabled" })),
            ["force-annotation"]
        );
    }

    #[test]
    fn a_snapshot_that_is_not_ready_blocks_only_its_own_claim() {
        let snapshot = |of: &str, ready: Value| {
            from_value(json!({
                "metadata": { "name": "s" }, "spec": { "source": { "persistentVolumeClaimName": of } },
                "status": { "readyToUse": ready }
            }))
            .unwrap()
        };
        for (of, ready, expected) in [
            ("data", json!(false), &["unready-snapshot"][..]),
            ("data", Value::Null, &["unready-snapshot"]),
            ("data", json!(true), &[]),
            ("other", json!(false), &[]),
        ] {
            assert_eq!(
                codes(|_, _, world| world.snapshots.push(snapshot(of, ready.clone()))),
                expected,
                "{of} {ready}"
            );
        }
    }

    #[test]
    fn an_unreadable_capacity_is_an_error_and_not_zero() {
        let mut volume = volume_json("pv-1", "h");
        volume["spec"]["capacity"]["storage"] = json!("lots");
        assert!(super::volume(&from_value(volume).unwrap()).is_err());
    }
}
