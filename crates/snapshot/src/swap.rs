//! Restoring: a copy beside the original, then the volume behind a claim's name exchanged.
//!
//! The order of the calls is the workflow's. Each of them checks what makes it safe in the same breath: a volume is reserved
//! only while nobody has it and it is on Retain, a claim is deleted only while its volume is on Retain, and a claim is made
//! again only for a volume that is already reserved for it, because otherwise a new, empty volume could be bound to it.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use upgrade_core::ports::{Aside, ProtectedVolume, ReclaimPolicy, VolumeState};
use windlass_api::call::{CallError, JsonPatch, post_params};

use crate::csi::gone_is_done;
use crate::error::Kind;
use crate::labels::{HELPER, HELPER_OF, OPERATION};
use crate::manifest::SELECTED_NODE;
use crate::{CsiSnapshots, Error, facts, manifest, node};

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

impl CsiSnapshots {
    pub(crate) async fn make_helper(&self, aside: &Aside) -> Result<(), Error> {
        let Aside { namespace, helper, .. } = aside;
        if let Some(found) = self.read_claim(namespace, helper).await? {
            return is_the_helper(&found, aside);
        }
        let node = self.node_for(aside).await?;
        let claim = manifest::helper(aside, node.as_deref())?;
        match self.claims_in(namespace).create(&post_params(), &claim).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = CallError::on::<PersistentVolumeClaim>("create", namespace, helper)(error);
                match self.read_claim(namespace, helper).await {
                    Ok(Some(found)) if error.is_exists() => is_the_helper(&found, aside),
                    _ => Err(error.into()),
                }
            }
        }
    }

    /// The node a copy must be made for, if its class waits for the first consumer.
    async fn node_for(&self, aside: &Aside) -> Result<Option<String>, Error> {
        let unusable = |why: String| Error::StorageClass { claim: aside.claim.clone(), why };
        let class = manifest::storage_class(&aside.manifest);
        if class.is_empty() {
            return Err(unusable("it has no storage class, so nothing would make the copy's volume".into()));
        }
        let found = Api::<StorageClass>::all(self.client.clone()).get_opt(class).await;
        let found = found.map_err(CallError::on::<StorageClass>("get", "", class))?;
        let found = found.ok_or_else(|| unusable(format!("storage class {class} does not exist any more")))?;
        if found.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
            return Ok(None);
        }
        let needs =
            |why: &str| Error::NeedsConsumer { class: class.into(), helper: aside.helper.clone(), why: why.into() };
        let original = self.read_claim(&aside.namespace, &aside.claim).await?;
        let original = original.ok_or_else(|| needs("the original claim does not exist"))?;
        let volume = facts::named_volume(&original).ok_or_else(|| needs("the original claim names no volume"))?;
        let volume = self.read_volume(&volume).await?.ok_or_else(|| needs("the original volume does not exist"))?;
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        let nodes = nodes.map_err(CallError::on::<Node>("list", "", ""))?.items;
        let preferred = original.annotations().get(SELECTED_NODE).map(String::as_str);
        let node = node::pick(&nodes, &volume, preferred);
        node.map(Some).ok_or_else(|| needs("no node that is ready and takes pods can use the original volume"))
    }

    pub(crate) async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let Some(claim) = self.read_claim(namespace, name).await? else { return Ok(()) };
        let full_name = format!("{namespace}/{name}");
        let seen = claim.uid().unwrap_or_default();
        if seen != uid {
            let (kind, expected) = (Kind::Claim, uid.to_owned());
            return Err(Error::Replaced { kind, name: full_name, expected, found: seen });
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let helper = claim.labels().contains_key(HELPER) && claim.labels().contains_key(OPERATION);
        match facts::named_volume(&claim) {
            // It only ever holds a copy; what keeps the copy, if it is wanted, is the policy that the workflow set before.
            _ if helper => {}
            Some(volume) => match self.read_volume(&volume).await? {
                Some(found) => retained(&volume, &found, "the claim is not deleted")?,
                None => return Err(Error::Gone { kind: Kind::Volume, name: volume }),
            },
            None => {
                let seen = "it names no volume, and it is no helper claim of ours".into();
                return Err(Error::NotOurs { kind: Kind::Claim, name: full_name, seen });
            }
        }
        // The resource version as well: the claim must not have been given another volume since it was read.
        let as_read = Preconditions { uid: Some(seen), resource_version: claim.resource_version() };
        let done = self.claims_in(namespace).delete(name, &DeleteParams::default().preconditions(as_read)).await;
        gone_is_done(done.map(drop).map_err(CallError::on::<PersistentVolumeClaim>("delete", namespace, name)))
    }

    pub(crate) async fn reserve_volume(
        &self,
        volume: &ProtectedVolume,
        namespace: &str,
        claim: &str,
    ) -> Result<(), Error> {
        let found = self.the_volume(volume).await?;
        let now = facts::volume(&found)?;
        retained(&volume.name, &found, "it is not reserved")?;
        if reserved_for(&now, namespace, claim) {
            return Ok(());
        }
        if let Some((held_namespace, held_name, held_uid)) = &now.claim
            && now.phase == "Bound"
            && held_uid.is_some()
        {
            if (held_namespace.as_str(), held_name.as_str()) == (namespace, claim) {
                // The claim was made again already, or has had this volume all along: nothing is left to reserve.
                return Ok(());
            }
            return Err(not_released(volume, &now, format!("it still belongs to claim {held_namespace}/{held_name}")));
        }
        if !matches!(now.phase.as_str(), "Released" | "Available") {
            return Err(not_released(volume, &now, "it cannot be reserved".into()));
        }
        // The whole reference is replaced, so that neither UID nor resource version of the old claim is left in it.
        let reference =
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim });
        let mut patch = JsonPatch::for_uid(&volume.uid)
            .at_version(&found.resource_version().unwrap_or_default())
            .add(["spec", "claimRef"], reference);
        if found.annotations().contains_key(BOUND_BY_CONTROLLER) {
            // With it the controller would take the reservation back when it gives up a binding.
            patch = patch.remove(["metadata", "annotations", BOUND_BY_CONTROLLER]);
        }
        self.patch_volume(&volume.name, patch).await
    }

    pub(crate) async fn discard_volume(
        &self,
        volume: &ProtectedVolume,
        namespace: &str,
        helper: &str,
        helper_uid: &str,
    ) -> Result<(), Error> {
        let found = match self.the_volume(volume).await {
            Err(Error::Gone { .. }) => return Ok(()),
            found => found?,
        };
        let now = facts::volume(&found)?;
        let in_use = |by: String| Err(Error::InUse { volume: volume.name.clone(), by });
        let claimed = now.claim.clone().map(|(namespace, claim, _)| (namespace, claim));
        if let Some((namespace, claim)) = &claimed {
            // A claim that has just been made for it is not yet to be seen in the volume's phase.
            let claim = self.read_claim(namespace, claim).await?;
            if claim.as_ref().and_then(facts::named_volume).as_deref() == Some(&volume.name) {
                return in_use(format!(
                    "claim {namespace}/{}",
                    claim.map(|claim| claim.name_any()).unwrap_or_default()
                ));
            }
        }
        if now.phase == "Bound" && claimed != Some((namespace.into(), helper.into())) {
            return in_use(
                claimed.map_or("an unknown claim".into(), |(space, claim)| format!("claim {space}/{claim}")),
            );
        }
        let dead = (namespace.to_owned(), helper.to_owned(), Some(helper_uid.to_owned()));
        if now.claim == Some(dead) && now.reclaim_policy == ReclaimPolicy::Delete {
            return Ok(());
        }
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": helper, "uid": helper_uid
        });
        let patch = JsonPatch::for_uid(&volume.uid)
            .at_version(&found.resource_version().unwrap_or_default())
            .add(["spec", "claimRef"], reference)
            .add(["spec", "persistentVolumeReclaimPolicy"], "Delete");
        self.patch_volume(&volume.name, patch).await
    }

    pub(crate) async fn make_claim(
        &self,
        namespace: &str,
        name: &str,
        manifest: &Value,
        volume: &str,
        operation: &str,
    ) -> Result<(), Error> {
        if let Some(found) = self.read_claim(namespace, name).await? {
            return names_the_volume(&found, volume);
        }
        let claim = manifest::recreated(namespace, name, manifest, volume, operation)?;
        let found = self.read_volume(volume).await?;
        let found = found.ok_or_else(|| Error::Gone { kind: Kind::Volume, name: volume.into() })?;
        fits(&found, namespace, name, manifest)?;
        match self.claims_in(namespace).create(&post_params(), &claim).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = CallError::on::<PersistentVolumeClaim>("create", namespace, name)(error);
                match self.read_claim(namespace, name).await {
                    Ok(Some(found)) if error.is_exists() => names_the_volume(&found, volume),
                    _ => Err(error.into()),
                }
            }
        }
    }
}

fn is_the_helper(found: &DynamicObject, aside: &Aside) -> Result<(), Error> {
    let name = format!("{}/{}", aside.namespace, aside.helper);
    let text = |path: &str| found.data.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let same = |seen: Option<&String>, expected: &str| seen.is_some_and(|seen| seen == expected);
    if !same(found.labels().get(OPERATION), &aside.operation) || !found.labels().contains_key(HELPER) {
        let seen = found
            .labels()
            .get(OPERATION)
            .map_or("it carries no label of ours".into(), |operation| format!("it belongs to operation {operation}"));
        return Err(Error::NotOurs { kind: Kind::Claim, name, seen });
    }
    if !same(found.annotations().get(HELPER_OF), &aside.claim) || text("/spec/dataSource/name") != aside.snapshot {
        let seen = format!("it is restored from snapshot {}", text("/spec/dataSource/name"));
        return Err(Error::NotOurs { kind: Kind::Claim, name, seen });
    }
    if found.metadata.deletion_timestamp.is_some() { Err(Error::ClaimTerminating(name)) } else { Ok(()) }
}

fn names_the_volume(found: &DynamicObject, volume: &str) -> Result<(), Error> {
    let claim = format!("{}/{}", found.namespace().unwrap_or_default(), found.name_any());
    if found.metadata.deletion_timestamp.is_some() {
        return Err(Error::ClaimTerminating(claim));
    }
    match facts::named_volume(found) {
        Some(named) if named == volume => Ok(()),
        // Made by somebody else, it is bound to the volume that is reserved for its name, and waiting will tell.
        seen => Err(Error::ClaimTaken { claim, volume: volume.into(), seen }),
    }
}

fn retained(name: &str, volume: &PersistentVolume, refused: &'static str) -> Result<(), Error> {
    if facts::volume(volume)?.reclaim_policy == ReclaimPolicy::Retain {
        return Ok(());
    }
    let seen = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    Err(Error::NotRetained { volume: name.into(), seen: seen.unwrap_or_else(|| "no policy".into()), refused })
}

fn reserved_for(volume: &VolumeState, namespace: &str, claim: &str) -> bool {
    volume.claim.as_ref().is_some_and(|(its_namespace, its_claim, uid)| {
        (its_namespace.as_str(), its_claim.as_str()) == (namespace, claim) && uid.is_none()
    })
}

fn not_released(volume: &ProtectedVolume, now: &VolumeState, refused: String) -> Error {
    Error::VolumePhase {
        volume: volume.name.clone(),
        phase: now.phase.clone(),
        refused,
        // A claim that is being deleted leaves its volume Bound for a moment; a failed volume stays failed.
        passes: now.phase != "Failed",
    }
}

/// What the binder does not check when both sides name each other.
fn fits(volume: &PersistentVolume, namespace: &str, claim: &str, manifest: &Value) -> Result<(), Error> {
    let name = volume.name_any();
    let now = facts::volume(volume)?;
    retained(&name, volume, "the claim is not made")?;
    if !reserved_for(&now, namespace, claim) {
        let seen = now.claim.map_or("it is reserved for none".into(), |(namespace, claim, uid)| {
            format!("it names {namespace}/{claim} with {}", uid.map_or("no UID".into(), |uid| format!("the UID {uid}")))
        });
        return Err(Error::NotReserved { volume: name, claim: format!("{namespace}/{claim}"), seen });
    }
    let spec = volume.spec.as_ref();
    let request = manifest::request(claim, manifest)?;
    let mode = spec.and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    let why = if now.capacity < request {
        format!("it has {} bytes, the claim asks for {request}", now.capacity)
    } else if mode != manifest::volume_mode(manifest) {
        format!("it has the volume mode {mode}, the claim asks for {}", manifest::volume_mode(manifest))
    } else if class != manifest::storage_class(manifest) {
        format!("it has the storage class `{class}`, the claim `{}`", manifest::storage_class(manifest))
    } else {
        return Ok(());
    };
    Err(Error::DoesNotFit { volume: name, claim: format!("{namespace}/{claim}"), why })
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn volume(change: impl Fn(&mut Value)) -> PersistentVolume {
        let mut volume = json!({
            "metadata": { "name": "pv-2", "uid": "u" },
            "spec": {
                "capacity": { "storage": "1Gi" }, "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "fast",
                "volumeMode": "Filesystem", "claimRef": { "namespace": "notes", "name": "data" },
                "csi": { "driver": "d", "volumeHandle": "h" }
            },
            "status": { "phase": "Available" }
        });
        change(&mut volume);
        from_value(volume).unwrap()
    }

    #[test]
    fn a_claim_is_made_only_for_a_retained_volume_that_is_reserved_for_it_and_fits() {
        use upgrade_core::Coded as _;
        let manifest =
            json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } } } });
        let code = |change: fn(&mut Value)| match fits(&volume(change), "notes", "data", &manifest) {
            Ok(()) => "fits",
            Err(error) => error.code(),
        };
        assert_eq!(code(|_| {}), "fits");
        assert_eq!(code(|v| v["spec"]["claimRef"] = Value::Null), "volume-not-reserved");
        assert_eq!(code(|v| v["spec"]["claimRef"]["uid"] = json!("old")), "volume-not-reserved");
        assert_eq!(code(|v| v["spec"]["claimRef"]["namespace"] = json!("other")), "volume-not-reserved");
        assert_eq!(code(|v| v["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete")), "not-retained");
        assert_eq!(code(|v| v["spec"]["capacity"]["storage"] = json!("1Mi")), "volume-does-not-fit");
        assert_eq!(code(|v| v["spec"]["volumeMode"] = json!("Block")), "volume-does-not-fit");
        assert_eq!(code(|v| v["spec"]["storageClassName"] = json!("slow")), "volume-does-not-fit");
    }
}
