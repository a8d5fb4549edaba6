//! The end of copies and of replaced volumes.
//!
//! A content on Retain outlives its snapshot, and nothing would ever delete it: so it is set to Delete first, and only then the
//! snapshot goes. A content whose snapshot somebody has deleted already is deleted itself.

use async_trait::async_trait;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt as _};
use upgrade_core::Failure;
use upgrade_core::ports::{CopyRecord, Disposal, Leaving, ProtectedVolume, ReclaimPolicy};
use windlass_api::call::{CallError, JsonPatch, patch_params};
use windlass_api::foreign::{VolumeSnapshot, VolumeSnapshotContent};

use crate::csi::{gone_is_done, policy_name};
use crate::error::Kind;
use crate::labels::OPERATION;
use crate::{CsiSnapshots, Error, facts};

impl CsiSnapshots {
    async fn end_copy(&self, copy: &CopyRecord) -> Result<Leaving, Error> {
        let CopyRecord { namespace, snapshot: name, .. } = copy;
        let snapshot = self.read_snapshot(namespace, name).await?;
        // Another object of that name is another copy.
        let snapshot = snapshot.filter(|found| found.uid().as_ref() == Some(&copy.snapshot_uid));
        let bound =
            snapshot.as_ref().and_then(|found| found.status.as_ref()?.bound_volume_snapshot_content_name.clone());
        let content = match bound.or_else(|| Some(copy.content.clone()).filter(|name| !name.is_empty())) {
            Some(name) => self.read_content(&name).await?,
            None => None,
        };
        let of_this = content.as_ref().is_none_or(|content| is_of(content, copy));
        let Some(snapshot) = snapshot else {
            return match content.filter(|_| of_this) {
                Some(content) => self.end_content(&content).await,
                None => Ok(Leaving::Gone),
            };
        };
        let full_name = format!("{namespace}/{name}");
        let not_ours = |seen: &str| Error::NotOurs { kind: Kind::Snapshot, name: full_name.clone(), seen: seen.into() };
        if !snapshot.labels().contains_key(OPERATION) {
            return Err(not_ours("it does not carry our label"));
        }
        if !of_this {
            return Err(not_ours("its content is not the copy that was recorded"));
        }
        if let Some(waiting) = self.to_delete(content.as_ref()).await? {
            return Ok(waiting);
        }
        if snapshot.metadata.deletion_timestamp.is_none() {
            let only_this = DeleteParams::default()
                .preconditions(Preconditions { uid: snapshot.uid(), resource_version: snapshot.resource_version() });
            let done = self.snapshots_in(namespace).delete(name, &only_this).await;
            gone_is_done(done.map(drop).map_err(CallError::on::<VolumeSnapshot>("delete", namespace, name)))?;
        }
        let errors = [
            snapshot.status.and_then(|status| status.error),
            content.and_then(|content| content.status).and_then(|status| status.error),
        ];
        Ok(going(&format!("snapshot {full_name}"), errors.into_iter().flatten().find_map(|error| error.message)))
    }

    /// A content that no snapshot owns any more.
    async fn end_content(&self, content: &VolumeSnapshotContent) -> Result<Leaving, Error> {
        if let Some(waiting) = self.to_delete(Some(content)).await? {
            return Ok(waiting);
        }
        let name = content.name_any();
        if content.metadata.deletion_timestamp.is_none() {
            let only_this = DeleteParams::default()
                .preconditions(Preconditions { uid: content.uid(), resource_version: content.resource_version() });
            let done = self.contents().delete(&name, &only_this).await;
            gone_is_done(done.map(drop).map_err(CallError::on::<VolumeSnapshotContent>("delete", "", &name)))?;
        }
        let error = content.status.as_ref().and_then(|status| status.error.as_ref()?.message.clone());
        Ok(going(&format!("snapshot content {name}"), error))
    }

    /// Sets a content to Delete, if it is not yet.
    async fn to_delete(&self, content: Option<&VolumeSnapshotContent>) -> Result<Option<Leaving>, Error> {
        let delete = policy_name(ReclaimPolicy::Delete);
        let Some(content) = content.filter(|found| found.spec.deletion_policy.as_deref() != Some(delete)) else {
            return Ok(None);
        };
        let name = content.name_any();
        let patch = JsonPatch::for_uid(&content.uid().unwrap_or_default())
            .at_version(&content.resource_version().unwrap_or_default())
            .add(["spec", "deletionPolicy"], delete)
            .build();
        let done = self.contents().patch(&name, &patch_params(), &patch).await;
        done.map_err(CallError::on::<VolumeSnapshotContent>("patch", "", &name))?;
        Ok(Some(Leaving::Going(format!("snapshot content {name} to be on Delete"))))
    }

    async fn user_of(&self, volume: &str, namespace: &str, claim: &str) -> Result<Option<String>, Error> {
        let found = self.read_claim(namespace, claim).await?;
        if found.as_ref().and_then(facts::named_volume).as_deref() == Some(volume) {
            return Ok(Some(format!("claim {namespace}/{claim}")));
        }
        let attachments = Api::<VolumeAttachment>::all(self.client.clone()).list(&ListParams::default()).await;
        let attachments = attachments.map_err(CallError::on::<VolumeAttachment>("list", "", ""))?;
        let of_it =
            attachments.into_iter().find(|one| one.spec.source.persistent_volume_name.as_deref() == Some(volume));
        Ok(of_it.map(|one| format!("node {}", one.spec.node_name)))
    }

    async fn give_back(&self, volume: &ProtectedVolume, namespace: &str, claim: &str) -> Result<(), Error> {
        let found = match self.the_volume(volume).await {
            Err(Error::Gone { .. }) => return Ok(()),
            found => found?,
        };
        let now = facts::volume(&found)?;
        let name = &volume.name;
        if now.phase != "Released" {
            let refused = "it is not deleted".into();
            return Err(Error::VolumePhase { volume: name.clone(), phase: now.phase, refused, passes: false });
        }
        let of_it = now.claim.as_ref().is_some_and(|(its_namespace, its_claim, uid)| {
            (its_namespace.as_str(), its_claim.as_str()) == (namespace, claim) && uid.is_some()
        });
        if !of_it {
            let by = now.claim.map_or("nobody".into(), |(namespace, claim, _)| format!("claim {namespace}/{claim}"));
            return Err(Error::InUse { volume: name.clone(), by });
        }
        let delete = policy_name(ReclaimPolicy::Delete);
        let written = found.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        if written == Some(delete) {
            return Ok(());
        }
        let patch = JsonPatch::for_uid(&volume.uid).at_version(&found.resource_version().unwrap_or_default());
        self.patch_volume(name, patch.add(["spec", "persistentVolumeReclaimPolicy"], delete)).await
    }
}

/// Whether a content is the copy that was recorded: of that snapshot, that driver and that handle.
fn is_of(content: &VolumeSnapshotContent, copy: &CopyRecord) -> bool {
    let back = &content.spec.volume_snapshot_ref;
    let handle = content.status.as_ref().and_then(|status| status.snapshot_handle.as_deref());
    back.uid.as_ref() == Some(&copy.snapshot_uid)
        && back.namespace.as_ref() == Some(&copy.namespace)
        && back.name.as_ref() == Some(&copy.snapshot)
        && content.spec.driver == copy.driver
        && handle.is_none_or(|handle| copy.handle.is_empty() || handle == copy.handle)
}

fn going(what: &str, error: Option<String>) -> Leaving {
    let error = error.map(|error| format!("; the driver says: {error}")).unwrap_or_default();
    Leaving::Going(format!("{what} to be gone{error}"))
}

#[async_trait]
impl Disposal for CsiSnapshots {
    async fn drop_copy(&self, copy: &CopyRecord) -> Result<Leaving, Failure> {
        Ok(self.end_copy(copy).await?)
    }

    async fn user(&self, volume: &str, namespace: &str, claim: &str) -> Result<Option<String>, Failure> {
        Ok(self.user_of(volume, namespace, claim).await?)
    }

    async fn reclaim(&self, volume: &ProtectedVolume, namespace: &str, claim: &str) -> Result<(), Failure> {
        Ok(self.give_back(volume, namespace, claim).await?)
    }
}
