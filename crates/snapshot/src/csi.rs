//! The port, on a cluster: facts, protection and snapshots. Restoring is in [`crate::swap`].

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use upgrade_core::Failure;
use upgrade_core::ports::{
    AppRef, Aside, ClaimFacts, ClaimState, ProtectedVolume, ReclaimPolicy, SnapshotManager, SnapshotRequest,
    SnapshotState, VolumeState,
};
use windlass_api::call::{CallError, JsonPatch, patch_params, post_params};
use windlass_api::foreign::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, VolumeSnapshotSource, VolumeSnapshotSpec,
};

use crate::error::Kind;
use crate::labels::{CLAIM_UID, DRIVER, OPERATION, RESTORE_POINT, VOLUME_HANDLE};
use crate::{Error, class, facts, manifest, state};

/// Volumes and snapshots of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct CsiSnapshots {
    pub(crate) client: Client,
}

impl CsiSnapshots {
    /// Works with the rights of `client`; nothing is cached.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub(crate) fn claims_in(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &manifest::claims())
    }

    pub(crate) fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    pub(crate) fn snapshots_in(&self, namespace: &str) -> Api<VolumeSnapshot> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn contents(&self) -> Api<VolumeSnapshotContent> {
        Api::all(self.client.clone())
    }

    pub(crate) async fn read_claim(&self, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let claim = self.claims_in(namespace).get_opt(name).await;
        Ok(claim.map_err(CallError::on::<PersistentVolumeClaim>("get", namespace, name))?)
    }

    pub(crate) async fn read_volume(&self, name: &str) -> Result<Option<PersistentVolume>, Error> {
        Ok(self.volumes().get_opt(name).await.map_err(CallError::on::<PersistentVolume>("get", "", name))?)
    }

    /// The volume of that name and UID.
    pub(crate) async fn the_volume(&self, volume: &ProtectedVolume) -> Result<PersistentVolume, Error> {
        let name = volume.name.clone();
        let found = self.read_volume(&name).await?.ok_or(Error::Gone { kind: Kind::Volume, name: name.clone() })?;
        let uid = found.uid().unwrap_or_default();
        if uid == volume.uid {
            Ok(found)
        } else {
            Err(Error::Replaced { kind: Kind::Volume, name, expected: volume.uid.clone(), found: uid })
        }
    }

    pub(crate) async fn patch_volume(&self, name: &str, patch: JsonPatch) -> Result<(), Error> {
        let done = self.volumes().patch(name, &patch_params(), &patch.build()).await;
        done.map_err(CallError::on::<PersistentVolume>("patch", "", name))?;
        Ok(())
    }

    pub(crate) async fn read_snapshot(&self, namespace: &str, name: &str) -> Result<Option<VolumeSnapshot>, Error> {
        let snapshot = self.snapshots_in(namespace).get_opt(name).await;
        Ok(snapshot.map_err(CallError::on::<VolumeSnapshot>("get", namespace, name))?)
    }

    pub(crate) async fn read_content(&self, name: &str) -> Result<Option<VolumeSnapshotContent>, Error> {
        Ok(self.contents().get_opt(name).await.map_err(CallError::on::<VolumeSnapshotContent>("get", "", name))?)
    }

    /// Everything claims of a namespace are judged against. Without the snapshot API there are no classes and no snapshots.
    async fn world(&self, namespace: &str, class: Option<String>) -> Result<facts::World, Error> {
        let all = ListParams::default();
        let volumes = self.volumes().list(&all).await.map_err(CallError::on::<PersistentVolume>("list", "", ""))?.items;
        let classes = Api::<VolumeSnapshotClass>::all(self.client.clone()).list(&all).await;
        let classes = none_if_not_served(classes.map_err(CallError::on::<VolumeSnapshotClass>("list", "", "")))?;
        let snapshots = self.snapshots_in(namespace).list(&all).await;
        let snapshots = none_if_not_served(snapshots.map_err(CallError::on::<VolumeSnapshot>("list", namespace, "")))?;
        Ok(facts::World { volumes, classes, snapshots, class })
    }

    async fn facts(
        &self,
        namespace: &str,
        names: &[(String, String)],
        class: Option<String>,
    ) -> Result<Vec<ClaimFacts>, Error> {
        let world = self.world(namespace, class).await?;
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (name, found_by) in names {
            if !seen.insert(name) {
                continue;
            }
            all.push(match self.read_claim(namespace, name).await? {
                Some(claim) => facts::claim(&claim, found_by, &world)?,
                None => facts::missing(namespace, name, found_by),
            });
        }
        Ok(all)
    }

    async fn change_policy(&self, volume: &ProtectedVolume, policy: ReclaimPolicy) -> Result<(), Error> {
        let found = self.the_volume(volume).await?;
        let now = facts::volume(&found)?;
        let written = found.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        if written == Some(policy_name(policy)) {
            return Ok(());
        }
        if policy == ReclaimPolicy::Delete && now.phase != "Bound" {
            return Err(Error::VolumePhase {
                volume: volume.name.clone(),
                phase: now.phase,
                refused: "not set to Delete, it would be deleted at once".into(),
                passes: false,
            });
        }
        // Since an answer that took long somebody may have put the policy back.
        let patch = JsonPatch::for_uid(&volume.uid).at_version(&found.resource_version().unwrap_or_default());
        let path = ["spec", "persistentVolumeReclaimPolicy"];
        self.patch_volume(&volume.name, patch.add(path, policy_name(policy))).await
    }

    async fn take(&self, request: &SnapshotRequest) -> Result<(), Error> {
        let SnapshotRequest { namespace, name, claim, .. } = request;
        if let Some(found) = self.read_snapshot(namespace, name).await? {
            return ours(&found, request);
        }
        let found = self.read_claim(namespace, claim).await?;
        let found = found.ok_or_else(|| Error::Gone { kind: Kind::Claim, name: format!("{namespace}/{claim}") })?;
        let uid = found.uid().unwrap_or_default();
        if uid != request.claim_uid {
            let (expected, name) = (request.claim_uid.clone(), format!("{namespace}/{claim}"));
            return Err(Error::Replaced { kind: Kind::Claim, name, expected, found: uid });
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Err(Error::ClaimTerminating(format!("{namespace}/{claim}")));
        }
        let volume = facts::named_volume(&found).ok_or_else(|| Error::ClaimNotBound {
            claim: format!("{namespace}/{claim}"),
            seen: "it names no volume".into(),
        })?;
        let volume = self.read_volume(&volume).await?.ok_or(Error::Gone { kind: Kind::Volume, name: volume })?;
        let volume = facts::volume(&volume)?;
        let classes = Api::<VolumeSnapshotClass>::all(self.client.clone()).get_opt(&request.class).await;
        let classes: Vec<_> =
            classes.map_err(CallError::on::<VolumeSnapshotClass>("get", "", &request.class))?.into_iter().collect();
        class::resolve(Some(&request.class), &volume.driver, &classes)
            .map_err(|refusal| Error::Class(format!("snapshot of claim {namespace}/{claim}: {refusal}"), refusal))?;

        let snapshot = new_snapshot(request, &volume);
        match self.snapshots_in(namespace).create(&post_params(), &snapshot).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = CallError::on::<VolumeSnapshot>("create", namespace, name)(error);
                // Somebody was faster: us, before a crash, or a stranger.
                match self.read_snapshot(namespace, name).await {
                    Ok(Some(found)) if error.is_exists() => ours(&found, request),
                    _ => Err(error.into()),
                }
            }
        }
    }

    async fn change_content_policy(&self, name: &str, policy: ReclaimPolicy) -> Result<(), Error> {
        let content = self.read_content(name).await?;
        let content = content.ok_or_else(|| Error::Gone { kind: Kind::Content, name: name.into() })?;
        if content.spec.deletion_policy.as_deref() == Some(policy_name(policy)) {
            return Ok(());
        }
        if policy == ReclaimPolicy::Delete {
            let back = &content.spec.volume_snapshot_ref;
            let snapshot = match (&back.namespace, &back.name) {
                (Some(namespace), Some(name)) => self.read_snapshot(namespace, name).await?,
                _ => None,
            };
            let ours = snapshot.is_some_and(|snapshot| {
                snapshot.labels().contains_key(OPERATION) && back.uid.is_some() && snapshot.metadata.uid == back.uid
            });
            if !ours {
                let seen = "its snapshot is not there, or does not carry our label".into();
                return Err(Error::NotOurs { kind: Kind::Content, name: name.into(), seen });
            }
        }
        let patch = JsonPatch::for_uid(&content.uid().unwrap_or_default())
            .at_version(&content.resource_version().unwrap_or_default())
            .add(["spec", "deletionPolicy"], policy_name(policy))
            .build();
        let done = self.contents().patch(name, &patch_params(), &patch).await;
        done.map_err(CallError::on::<VolumeSnapshotContent>("patch", "", name))?;
        Ok(())
    }

    async fn delete_snapshot(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let Some(found) = self.read_snapshot(namespace, name).await? else { return Ok(()) };
        let full_name = format!("{namespace}/{name}");
        let seen = found.uid().unwrap_or_default();
        if seen != uid {
            let (kind, expected) = (Kind::Snapshot, uid.to_owned());
            return Err(Error::Replaced { kind, name: full_name, expected, found: seen });
        }
        if !found.labels().contains_key(OPERATION) {
            let seen = "it does not carry our label".into();
            return Err(Error::NotOurs { kind: Kind::Snapshot, name: full_name, seen });
        }
        let only_this = DeleteParams::default()
            .preconditions(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() });
        let done = self.snapshots_in(namespace).delete(name, &only_this).await;
        gone_is_done(done.map(drop).map_err(CallError::on::<VolumeSnapshot>("delete", namespace, name)))
    }
}

/// A deletion whose object is not there any more has done what it should.
pub(crate) fn gone_is_done(done: Result<(), CallError>) -> Result<(), Error> {
    match done {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn none_if_not_served<K: Clone>(list: Result<kube::core::ObjectList<K>, CallError>) -> Result<Vec<K>, Error> {
    match list {
        Ok(list) => Ok(list.items),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn policy_name(policy: ReclaimPolicy) -> &'static str {
    match policy {
        ReclaimPolicy::Retain => "Retain",
        ReclaimPolicy::Delete => "Delete",
    }
}

fn new_snapshot(request: &SnapshotRequest, volume: &VolumeState) -> VolumeSnapshot {
    let source = VolumeSnapshotSource {
        persistent_volume_claim_name: Some(request.claim.clone()),
        ..VolumeSnapshotSource::default()
    };
    let spec = VolumeSnapshotSpec { source, volume_snapshot_class_name: Some(request.class.clone()) };
    let mut snapshot = VolumeSnapshot::new(&request.name, spec);
    snapshot.metadata.namespace = Some(request.namespace.clone());
    snapshot.labels_mut().extend([
        (OPERATION.to_owned(), request.operation.clone()),
        (RESTORE_POINT.to_owned(), request.restore_point.clone()),
    ]);
    snapshot.annotations_mut().extend([
        (CLAIM_UID.to_owned(), request.claim_uid.clone()),
        (DRIVER.to_owned(), volume.driver.clone()),
        (VOLUME_HANDLE.to_owned(), volume.handle.clone()),
    ]);
    snapshot
}

/// Whether a snapshot that is there already is the one asked for.
fn ours(found: &VolumeSnapshot, request: &SnapshotRequest) -> Result<(), Error> {
    let same = |seen: Option<&String>, expected: &str| seen.is_some_and(|seen| seen == expected);
    let of_this = found.spec.source.persistent_volume_claim_name.as_ref();
    if same(found.labels().get(OPERATION), &request.operation)
        && same(found.annotations().get(CLAIM_UID), &request.claim_uid)
        && same(of_this, &request.claim)
    {
        return Ok(());
    }
    let operation = found.labels().get(OPERATION).map_or("no operation", String::as_str);
    Err(Error::NotOurs {
        kind: Kind::Snapshot,
        name: format!("{}/{}", request.namespace, request.name),
        seen: format!(
            "it is of claim {} and {operation}, not of claim {} and {}",
            of_this.map_or("(none)", String::as_str),
            request.claim,
            request.operation
        ),
    })
}

#[async_trait]
impl SnapshotManager for CsiSnapshots {
    async fn claims(
        &self,
        _: &AppRef,
        namespace: &str,
        names: &[(String, String)],
        class: Option<String>,
    ) -> Result<Vec<ClaimFacts>, Failure> {
        Ok(self.facts(namespace, names, class).await?)
    }

    async fn set_policy(&self, volume: &ProtectedVolume, policy: ReclaimPolicy) -> Result<(), Failure> {
        Ok(self.change_policy(volume, policy).await?)
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<(), Failure> {
        Ok(self.take(request).await?)
    }

    async fn snapshot_state(&self, namespace: &str, name: &str) -> Result<Option<SnapshotState>, Failure> {
        let Some(snapshot) = self.read_snapshot(namespace, name).await? else { return Ok(None) };
        let named = snapshot.status.as_ref().and_then(|status| status.bound_volume_snapshot_content_name.as_deref());
        let content = match named {
            Some(named) => self.read_content(named).await?,
            None => None,
        };
        Ok(Some(state::snapshot(&snapshot, content.as_ref())?))
    }

    async fn set_content_policy(&self, content: &str, policy: ReclaimPolicy) -> Result<(), Failure> {
        Ok(self.change_content_policy(content, policy).await?)
    }

    async fn drop_snapshot(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Failure> {
        Ok(self.delete_snapshot(namespace, name, uid).await?)
    }

    async fn restore_aside(&self, aside: &Aside) -> Result<(), Failure> {
        Ok(self.make_helper(aside).await?)
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<ClaimState>, Failure> {
        Ok(self.read_claim(namespace, name).await?.as_ref().map(facts::claim_state))
    }

    async fn volume(&self, name: &str) -> Result<Option<VolumeState>, Failure> {
        let volume = self.read_volume(name).await?;
        Ok(volume.as_ref().map(facts::volume).transpose()?)
    }

    async fn drop_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Failure> {
        Ok(self.delete_claim(namespace, name, uid).await?)
    }

    async fn reserve(&self, volume: &ProtectedVolume, namespace: &str, claim: &str) -> Result<(), Failure> {
        Ok(self.reserve_volume(volume, namespace, claim).await?)
    }

    async fn discard(
        &self,
        volume: &ProtectedVolume,
        namespace: &str,
        helper: &str,
        helper_uid: &str,
    ) -> Result<(), Failure> {
        Ok(self.discard_volume(volume, namespace, helper, helper_uid).await?)
    }

    async fn recreate(
        &self,
        namespace: &str,
        name: &str,
        manifest: &Value,
        volume: &str,
        operation: &str,
    ) -> Result<(), Failure> {
        Ok(self.make_claim(namespace, name, manifest, volume, operation).await?)
    }
}
