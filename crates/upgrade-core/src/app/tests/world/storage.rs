//! Claims, volumes with what was written on them, snapshots with their contents, and the controllers that bind and reclaim.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::builders::claim as bound;
use super::State;
use crate::Failure;
use crate::ports::{
    Aside, ClaimFacts, ClaimState, ProtectedVolume, ReclaimPolicy, SnapshotRequest, SnapshotState, VolumeState,
};

/// One thing a pod has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app::tests) struct Write {
    /// Of the pod.
    pub(in crate::app::tests) version: String,
    /// Whether the pod was ready, so that somebody relies on it.
    pub(in crate::app::tests) acknowledged: bool,
    pub(in crate::app::tests) at: Timestamp,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Volume {
    pub(in crate::app::tests) uid: String,
    pub(in crate::app::tests) policy: ReclaimPolicy,
    handle: String,
    /// Name and UID of the claim it is for.
    pub(in crate::app::tests) claim: Option<(String, Option<String>)>,
    pub(in crate::app::tests) data: Vec<Write>,
    /// Written, and not on the disk before the volume is unmounted.
    pub(in crate::app::tests) dirty: Vec<Write>,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Claim {
    pub(in crate::app::tests) uid: String,
    pub(in crate::app::tests) volume: Option<String>,
    deleting: bool,
    operation: Option<String>,
    /// The snapshot it is restored from.
    source: Option<String>,
    made_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Snapshot {
    pub(in crate::app::tests) uid: String,
    pub(in crate::app::tests) operation: String,
    claim: String,
    made_at: Timestamp,
    pub(in crate::app::tests) cut_at: Option<Timestamp>,
    pub(in crate::app::tests) ready: bool,
    pub(in crate::app::tests) mismatch: Option<String>,
}

/// The storage's side of a snapshot.
#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Content {
    pub(in crate::app::tests) policy: ReclaimPolicy,
    pub(in crate::app::tests) data: Vec<Write>,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Storage {
    pub(in crate::app::tests) claims: BTreeMap<String, Claim>,
    pub(in crate::app::tests) volumes: BTreeMap<String, Volume>,
    pub(in crate::app::tests) snapshots: BTreeMap<String, Snapshot>,
    /// By the name of the snapshot they were cut for.
    pub(in crate::app::tests) contents: BTreeMap<String, Content>,
    /// A driver whose snapshots are cut and never ready to use.
    pub(in crate::app::tests) never_ready: bool,
    /// Claims on volumes that no CSI driver has made.
    pub(in crate::app::tests) not_csi: Vec<String>,
    /// A driver that hands out the original as its copy.
    pub(in crate::app::tests) copies_nothing: bool,
    /// Every write that somebody relies on.
    pub(in crate::app::tests) acknowledged: Vec<Write>,
}

fn gone(what: &str) -> Failure {
    Failure::permanent("gone", format!("{what} is gone"))
}

impl Storage {
    pub(super) fn new() -> Self {
        let claim = Claim {
            uid: "uid-of-data".into(),
            volume: Some("pv-data".into()),
            deleting: false,
            operation: None,
            source: None,
            made_at: Timestamp::UNIX_EPOCH,
        };
        let volume = Volume {
            uid: "uid-of-pv-data".into(),
            handle: "handle-pv-data".into(),
            policy: ReclaimPolicy::Delete,
            claim: Some(("data".into(), Some(claim.uid.clone()))),
            data: Vec::new(),
            dirty: Vec::new(),
        };
        Self {
            claims: BTreeMap::from([("data".into(), claim)]),
            volumes: BTreeMap::from([("pv-data".into(), volume)]),
            snapshots: BTreeMap::new(),
            contents: BTreeMap::new(),
            never_ready: false,
            not_csi: Vec::new(),
            copies_nothing: false,
            acknowledged: Vec::new(),
        }
    }

    /// A claim that nothing mounts, on a volume of its own or on none yet.
    pub(in crate::app::tests) fn add_claim(&mut self, name: &str, is_bound: bool) {
        let volume = is_bound.then(|| format!("pv-{name}"));
        let claim = Claim {
            uid: format!("uid-of-{name}"),
            volume: volume.clone(),
            deleting: false,
            operation: None,
            source: None,
            made_at: Timestamp::UNIX_EPOCH,
        };
        if let Some(volume) = volume {
            self.add_volume(&volume, name, &claim.uid);
        }
        self.claims.insert(name.into(), claim);
    }

    /// An empty volume of a claim.
    fn add_volume(&mut self, volume: &str, claim: &str, claim_uid: &str) {
        let (uid, handle) = (format!("uid-of-{volume}"), format!("handle-{volume}"));
        let claim = Some((claim.into(), Some(claim_uid.into())));
        let (policy, data, dirty) = (ReclaimPolicy::Delete, Vec::new(), Vec::new());
        self.volumes.insert(volume.into(), Volume { uid, policy, handle, claim, data, dirty });
    }

    pub(super) fn is_bound(&self, claim: &str) -> bool {
        self.claims.get(claim).is_some_and(|found| !found.deleting && self.phase_of_claim(found) == "Bound")
    }

    fn phase_of_claim(&self, claim: &Claim) -> &'static str {
        let Some(name) = &claim.volume else { return "Pending" };
        match self.volumes.get(name) {
            None => "Lost",
            Some(volume) if volume.claim.as_ref().is_some_and(|(_, uid)| uid.as_ref() == Some(&claim.uid)) => "Bound",
            Some(_) => "Pending",
        }
    }

    fn phase_of_volume(&self, name: &str) -> &'static str {
        let Some((claim, uid)) = self.volumes.get(name).and_then(|volume| volume.claim.as_ref()) else {
            return "Available";
        };
        match (uid, self.claims.get(claim)) {
            (None, _) => "Available",
            (Some(uid), Some(found)) if found.uid == *uid => "Bound",
            (Some(_), _) => "Released",
        }
    }

    /// The volume behind a claim.
    pub(in crate::app::tests) fn volume_of(&self, claim: &str) -> Option<&Volume> {
        self.volumes.get(self.claims.get(claim)?.volume.as_ref()?)
    }

    fn volume_of_mut(&mut self, claim: &str) -> Option<&mut Volume> {
        let name = self.claims.get(claim)?.volume.clone()?;
        self.volumes.get_mut(&name)
    }

    pub(super) fn write(&mut self, claim: &str, write: Write) {
        if write.acknowledged {
            self.acknowledged.push(write.clone());
        }
        if let Some(volume) = self.volume_of_mut(claim) {
            volume.dirty.push(write);
        }
    }

    pub(super) fn flush(&mut self, claim: &str) {
        if let Some(volume) = self.volume_of_mut(claim) {
            let dirty = std::mem::take(&mut volume.dirty);
            volume.data.extend(dirty);
        }
    }

    pub(super) fn facts(&self, name: &str) -> Option<ClaimFacts> {
        let claim = self.claims.get(name)?;
        let Some(volume_name) = claim.volume.clone() else {
            let refusals = vec![("claim-not-bound".into(), format!("claim {name} is Pending"))];
            let (volume, volume_uid, handle) = Default::default();
            return Some(ClaimFacts { uid: claim.uid.clone(), volume, volume_uid, handle, refusals, ..bound(name) });
        };
        let volume = self.volumes.get(&volume_name)?;
        Some(ClaimFacts {
            namespace: "notes".into(),
            name: name.into(),
            uid: claim.uid.clone(),
            manifest: json!({"spec": {"accessModes": ["ReadWriteOnce"]}}),
            volume_uid: volume.uid.clone(),
            reclaim_policy: volume.policy,
            driver: "csi.test".into(),
            handle: volume.handle.clone(),
            volume: volume_name,
            capacity: 1 << 24,
            snapshot_class: Some("csi".into()),
            found_by: "mounted".into(),
            refusals: self
                .not_csi
                .iter()
                .filter(|one| *one == name)
                .map(|one| ("not-csi".into(), one.clone()))
                .collect(),
        })
    }

    pub(super) fn claim_state(&self, name: &str) -> Option<ClaimState> {
        self.claims.get(name).map(|claim| ClaimState {
            uid: claim.uid.clone(),
            deleting: claim.deleting,
            phase: self.phase_of_claim(claim).into(),
            volume: claim.volume.clone(),
            operation: claim.operation.clone(),
        })
    }

    pub(super) fn volume_state(&self, name: &str) -> Option<VolumeState> {
        self.volumes.get(name).map(|volume| VolumeState {
            uid: volume.uid.clone(),
            reclaim_policy: volume.policy,
            phase: self.phase_of_volume(name).into(),
            claim: volume.claim.clone().map(|(claim, uid)| ("notes".into(), claim, uid)),
            driver: "csi.test".into(),
            handle: volume.handle.clone(),
            capacity: 1 << 24,
        })
    }

    pub(super) fn snapshot_state(&self, name: &str) -> Option<SnapshotState> {
        self.snapshots.get(name).map(|snapshot| {
            let content = self.contents.get(name);
            SnapshotState {
                uid: snapshot.uid.clone(),
                operation: snapshot.operation.clone(),
                content: content.map(|_| name.to_owned()),
                handle: content.map(|_| format!("snap-{name}")),
                cut_at: snapshot.cut_at,
                restore_size: content.map(|_| 1 << 24),
                ready: snapshot.ready,
                mismatch: snapshot.mismatch.clone(),
                retained: content.is_some_and(|content| content.policy == ReclaimPolicy::Retain),
                error: None,
                error_is_final: false,
            }
        })
    }

    fn the_volume(&mut self, volume: &ProtectedVolume) -> Result<&mut Volume, Failure> {
        let found = self.volumes.get_mut(&volume.name).ok_or_else(|| gone(&volume.name))?;
        if found.uid == volume.uid { Ok(found) } else { Err(Failure::permanent("volume-replaced", "another volume")) }
    }

    pub(super) fn set_policy(&mut self, volume: &ProtectedVolume, policy: ReclaimPolicy) -> Result<(), Failure> {
        if policy == ReclaimPolicy::Delete && self.phase_of_volume(&volume.name) != "Bound" {
            return Err(Failure::permanent("volume-phase", "it would be deleted at once"));
        }
        self.the_volume(volume)?.policy = policy;
        Ok(())
    }

    pub(super) fn set_content_policy(&mut self, content: &str, policy: ReclaimPolicy) -> Result<(), Failure> {
        self.contents.get_mut(content).ok_or_else(|| gone(content))?.policy = policy;
        Ok(())
    }

    pub(super) fn drop_snapshot(&mut self, name: &str, uid: &str) {
        if self.snapshots.get(name).is_none_or(|found| found.uid != uid) {
            return;
        }
        self.snapshots.remove(name);
        if self.contents.get(name).is_some_and(|content| content.policy == ReclaimPolicy::Delete) {
            self.contents.remove(name);
        }
    }

    pub(super) fn reserve(&mut self, volume: &ProtectedVolume, claim: &str) -> Result<(), Failure> {
        let phase = self.phase_of_volume(&volume.name);
        let found = self.the_volume(volume)?;
        if found.policy != ReclaimPolicy::Retain {
            return Err(Failure::permanent("not-retained", "it is not reserved"));
        }
        if phase == "Bound" {
            return match &found.claim {
                Some((name, _)) if name == claim => Ok(()),
                _ => Err(Failure::transient("volume-phase", "it still belongs to another claim")),
            };
        }
        found.claim = Some((claim.into(), None));
        Ok(())
    }

    pub(super) fn discard(&mut self, volume: &ProtectedVolume, helper: &str, uid: &str) -> Result<(), Failure> {
        let phase = self.phase_of_volume(&volume.name);
        let used = self.claims.values().any(|claim| claim.volume.as_ref() == Some(&volume.name));
        let Some(found) = self.volumes.get_mut(&volume.name) else { return Ok(()) };
        if used || phase == "Bound" {
            return Err(Failure::permanent("volume-in-use", "a claim uses it"));
        }
        found.claim = Some((helper.into(), Some(uid.into())));
        found.policy = ReclaimPolicy::Delete;
        Ok(())
    }
}

impl State {
    pub(super) fn snapshot(&mut self, request: &SnapshotRequest) -> Result<(), Failure> {
        if self.storage.claims.get(&request.claim).is_none_or(|claim| claim.uid != request.claim_uid) {
            return Err(gone(&request.claim));
        }
        let uid = self.uid("snapshot");
        self.storage.snapshots.entry(request.name.clone()).or_insert(Snapshot {
            uid,
            operation: request.operation.clone(),
            claim: request.claim.clone(),
            made_at: self.now,
            cut_at: None,
            ready: false,
            mismatch: None,
        });
        Ok(())
    }

    pub(in crate::app::tests) fn make_claim(
        &mut self,
        name: &str,
        volume: Option<&str>,
        source: Option<&str>,
        operation: &str,
    ) {
        let (uid, made_at) = (self.uid("claim"), self.now);
        self.storage.claims.entry(name.to_owned()).or_insert(Claim {
            uid,
            volume: volume.map(ToOwned::to_owned),
            deleting: false,
            operation: Some(operation.into()),
            source: source.map(ToOwned::to_owned),
            made_at,
        });
    }

    /// Somebody makes a claim anew, and the cluster gives it a new and empty volume.
    pub(in crate::app::tests) fn make_claim_on_empty_volume(&mut self, name: &str) {
        let volume = self.uid("empty-pv");
        self.make_claim(name, Some(&volume), None, "somebody");
        let uid = self.storage.claims.get(name).map(|claim| claim.uid.clone()).unwrap_or_default();
        self.storage.add_volume(&volume, name, &uid);
    }

    pub(super) fn restore_aside(&mut self, aside: &Aside) -> Result<(), Failure> {
        if !self.storage.snapshots.contains_key(&aside.snapshot) {
            return Err(gone(&aside.snapshot));
        }
        self.make_claim(&aside.helper, None, Some(&aside.snapshot), &aside.operation);
        Ok(())
    }

    pub(super) fn drop_claim(&mut self, name: &str, uid: &str) -> Result<(), Failure> {
        let Some(found) = self.storage.claims.get(name).cloned() else { return Ok(()) };
        if found.uid != uid {
            return Err(Failure::permanent("claim-replaced", "another claim"));
        }
        if found.source.is_none() {
            let policy = self.storage.volume_of(name).map(|volume| volume.policy);
            if policy != Some(ReclaimPolicy::Retain) {
                return Err(Failure::permanent("not-retained", "the claim is not deleted"));
            }
            self.may_drop_claim(name);
        }
        if let Some(claim) = self.storage.claims.get_mut(name) {
            claim.deleting = true;
        }
        Ok(())
    }

    pub(super) fn recreate(&mut self, name: &str, volume: &str, operation: &str) -> Result<(), Failure> {
        match self.storage.claims.get(name) {
            Some(found) if found.volume.as_deref() == Some(volume) => return Ok(()),
            Some(_) => return Err(Failure::transient("claim-taken", "there is a claim of that name")),
            None => {}
        }
        let reserved = self.storage.volumes.get(volume).and_then(|volume| volume.claim.clone());
        if reserved != Some((name.to_owned(), None)) {
            return Err(Failure::permanent("volume-not-reserved", "another volume could be bound"));
        }
        self.make_claim(name, Some(volume), None, operation);
        Ok(())
    }

    pub(super) fn turn_storage(&mut self) {
        self.cut_snapshots();
        let now = self.now;
        let mounted = !self.pods.is_empty();
        self.storage.claims.retain(|name, claim| !claim.deleting || (name == "data" && mounted));
        for (name, claim) in self.storage.claims.clone() {
            if let (None, Some(source)) = (&claim.volume, &claim.source) {
                if now.duration_since(claim.made_at) >= SignedDuration::from_millis(200) {
                    self.provision(&name, &claim.uid, source);
                }
            } else if let Some(volume) = claim.volume.and_then(|volume| self.storage.volumes.get_mut(&volume))
                && volume.claim == Some((name.clone(), None))
            {
                volume.claim = Some((name, Some(claim.uid)));
            }
        }
        let phases: Vec<String> = self.storage.volumes.keys().cloned().collect();
        for name in phases {
            let released = self.storage.phase_of_volume(&name) == "Released";
            if released && self.storage.volumes.get(&name).is_some_and(|one| one.policy == ReclaimPolicy::Delete) {
                self.storage.volumes.remove(&name);
            }
        }
    }

    fn cut_snapshots(&mut self) {
        let now = self.now;
        let mut cut = Vec::new();
        let never_ready = self.storage.never_ready;
        for (name, snapshot) in &mut self.storage.snapshots {
            let age = now.duration_since(snapshot.made_at);
            if snapshot.cut_at.is_none() && age >= SignedDuration::from_millis(100) {
                snapshot.cut_at = Some(now);
                cut.push((name.clone(), snapshot.claim.clone()));
            }
            snapshot.ready |= age >= SignedDuration::from_millis(300) && !never_ready;
        }
        for (name, claim) in cut {
            let data = self.storage.volume_of(&claim).map(|volume| volume.data.clone()).unwrap_or_default();
            self.storage.contents.insert(name, Content { policy: ReclaimPolicy::Delete, data });
        }
    }

    fn provision(&mut self, helper: &str, uid: &str, snapshot: &str) {
        let Some(content) = self.storage.contents.get(snapshot) else { return };
        let (data, name, volume_uid) = (content.data.clone(), self.uid("pv"), self.uid("of-pv"));
        let claim = Some((helper.to_owned(), Some(uid.to_owned())));
        let handle = if self.storage.copies_nothing { "handle-pv-data".into() } else { format!("handle-{name}") };
        let volume = Volume { uid: volume_uid, handle, policy: ReclaimPolicy::Delete, claim, data, dirty: Vec::new() };
        self.storage.volumes.insert(name.clone(), volume);
        if let Some(claim) = self.storage.claims.get_mut(helper) {
            claim.volume = Some(name);
        }
    }
}
