//! Protecting volumes, taking snapshots, proving them, recording the restore point.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Work, gone, replaced};
use crate::Failure;
use crate::app::build::derived_name;
use crate::engine::{Direction, Observation};
use crate::ports::{
    ClaimFacts, ProtectedVolume, ReclaimPolicy, RestorePointRecord, SnapshotRequest, SnapshotState, VolumeRecord,
};

fn volume_of(claim: &ClaimFacts) -> ProtectedVolume {
    ProtectedVolume { name: claim.volume.clone(), uid: claim.volume_uid.clone() }
}

impl Work<'_> {
    pub(super) fn snapshot_name(&self, claim: &str) -> String {
        derived_name(&self.inputs.app.name, &self.cx.plan.operation, claim)
    }

    pub(super) async fn protect(&self, claim: &str, direction: Direction) -> Result<(), Failure> {
        let claim = self.claim(claim)?;
        let policy = if direction == Direction::Do { ReclaimPolicy::Retain } else { claim.reclaim_policy };
        self.ports.snapshots.set_policy(&volume_of(claim), policy).await
    }

    pub(super) async fn is_protected(&self, claim: &str, direction: Direction) -> Result<Observation, Failure> {
        let claim = self.claim(claim)?;
        let state = self.ports.snapshots.volume(&claim.volume).await?;
        let Some(state) = state else {
            if direction == Direction::Undo {
                return Ok(Observation::Done(json!({"gone": true})));
            }
            return Err(gone(format!("volume {}", claim.volume)));
        };
        if state.uid != claim.volume_uid {
            return Err(replaced(format!("volume {}", claim.volume)));
        }
        let wanted = if direction == Direction::Do { ReclaimPolicy::Retain } else { claim.reclaim_policy };
        // On an unbound volume the policy as found would delete the data at once.
        if direction == Direction::Undo && state.phase != "Bound" && wanted == ReclaimPolicy::Delete {
            return Err(Failure::permanent(
                "volume-unbound",
                format!("volume {} is {}, so it stays on Retain", claim.volume, state.phase),
            ));
        }
        if state.reclaim_policy == wanted {
            return Ok(Observation::Done(json!({"volume": claim.volume, "found": claim.reclaim_policy})));
        }
        Ok(Observation::absent())
    }

    /// The volume that a claim is on at the end, which after a restore is the restored one, and the policy it shall have there.
    fn at_the_end(&self, claim: &str) -> Result<(ProtectedVolume, ReclaimPolicy), Failure> {
        let step = format!("restore/aside/{claim}");
        let restored = self.seen(&step, "volume").zip(self.seen(&step, "volumeUid"));
        let restored = restored.map(|(name, uid)| ProtectedVolume { name, uid });
        if let Some(found) = self.inputs.claim(claim) {
            return Ok((restored.unwrap_or_else(|| volume_of(found)), found.reclaim_policy));
        }
        // The claim was gone before: what its volume had when it was copied, else what its class has given the restored one.
        let made_with = self.cx.journal.evidence(&step).get("policy").cloned().unwrap_or_default();
        let recorded = self.volume_record(claim)?.reclaim_policy;
        let policy = recorded.or_else(|| serde_json::from_value(made_with).ok()).unwrap_or(ReclaimPolicy::Retain);
        Ok((restored.ok_or_else(|| super::not_planned("restored volume of claim", claim))?, policy))
    }

    pub(super) async fn unprotect(&self, claim: &str) -> Result<(), Failure> {
        let (volume, policy) = self.at_the_end(claim)?;
        self.ports.snapshots.set_policy(&volume, policy).await
    }

    pub(super) async fn is_unprotected(&self, claim: &str) -> Result<Observation, Failure> {
        let (volume, policy) = self.at_the_end(claim)?;
        let state =
            self.ports.snapshots.volume(&volume.name).await?.ok_or_else(|| gone(format!("volume {}", volume.name)))?;
        if state.reclaim_policy == policy {
            return Ok(Observation::Done(json!({"volume": volume.name, "policy": state.reclaim_policy})));
        }
        if state.phase != "Bound" {
            let namespace = &self.inputs.app.namespace;
            let is_gone = self.is_dropped(claim) && self.ports.snapshots.claim(namespace, claim).await?.is_none();
            if is_gone {
                // Its data is nobody's now; deleting it is a person's decision.
                return Ok(Observation::Done(json!({"volume": volume.name, "stays": state.reclaim_policy})));
            }
            return Ok(Observation::pending(format!("volume {} to be bound", volume.name), 500));
        }
        Ok(Observation::absent())
    }

    pub(super) async fn snapshot(&self, claim: &str) -> Result<(), Failure> {
        let facts = self.claim(claim)?;
        let request = SnapshotRequest {
            namespace: facts.namespace.clone(),
            name: self.snapshot_name(claim),
            claim: facts.name.clone(),
            claim_uid: facts.uid.clone(),
            class: facts.snapshot_class.clone().unwrap_or_default(),
            operation: self.cx.plan.operation.clone(),
            restore_point: self.inputs.restore_point.clone(),
        };
        self.ports.snapshots.snapshot(&request).await
    }

    async fn snapshot_state(&self, claim: &str) -> Result<Option<SnapshotState>, Failure> {
        let facts = self.claim(claim)?;
        let name = self.snapshot_name(claim);
        let state = self.ports.snapshots.snapshot_state(&facts.namespace, &name).await?;
        match state {
            Some(state) if state.operation != self.cx.plan.operation => {
                Err(Failure::permanent("not-ours", format!("snapshot {name} belongs to somebody else"))
                    .with_hint("remove it, then ask anew"))
            }
            other => Ok(other),
        }
    }

    pub(super) async fn is_snapshot(&self, claim: &str, direction: Direction) -> Result<Observation, Failure> {
        let state = self.snapshot_state(claim).await?;
        Ok(match (direction, state) {
            (Direction::Do, Some(state)) => Observation::Done(json!({"uid": state.uid})),
            (Direction::Undo, None) => Observation::Done(json!({"gone": true})),
            (Direction::Do, None) | (Direction::Undo, Some(_)) => Observation::absent(),
        })
    }

    pub(super) async fn drop_snapshot(&self, claim: &str) -> Result<(), Failure> {
        let namespace = self.claim(claim)?.namespace.clone();
        match self.snapshot_state(claim).await? {
            Some(state) => self.ports.snapshots.drop_snapshot(&namespace, &self.snapshot_name(claim), &state.uid).await,
            None => Ok(()),
        }
    }

    /// Ready *and* verified bound both ways: ready alone is a remembered fact.
    pub(super) async fn is_restorable(&self, claim: &str) -> Result<Observation, Failure> {
        let name = self.snapshot_name(claim);
        let state = self.snapshot_state(claim).await?.ok_or_else(|| gone(format!("snapshot {name}")))?;
        if self.seen(&format!("snapshot/take/{claim}"), "uid").is_some_and(|uid| uid != state.uid) {
            return Err(replaced(format!("snapshot {name}")));
        }
        if let Some(error) = state.error.as_ref().filter(|_| !state.ready) {
            if state.error_is_final {
                return Ok(Observation::Failed(Failure::permanent(
                    "snapshot-failed",
                    format!("snapshot {name}: {error}"),
                )));
            }
            return Ok(Observation::pending(format!("snapshot {name} to be ready; the driver says: {error}"), 500));
        }
        let (Some(content), Some(handle)) = (&state.content, &state.handle) else {
            return Ok(Observation::pending(format!("snapshot {name} to be cut"), 100));
        };
        let Some(cut_at) = state.cut_at else {
            return Ok(Observation::pending(format!("the time at which snapshot {name} was cut"), 100));
        };
        if !state.ready {
            return Ok(Observation::pending(format!("snapshot {name} to be ready to use"), 100));
        }
        if let Some(mismatch) = state.mismatch {
            return Ok(Observation::Failed(Failure::permanent(
                "snapshot-mismatch",
                format!("snapshot {name}: {mismatch}"),
            )));
        }
        Ok(Observation::Done(json!({
            "snapshot": name, "uid": state.uid, "content": content, "handle": handle,
            "cutAt": cut_at.to_string(), "size": state.restore_size,
        })))
    }

    pub(super) async fn retain_snapshot(&self, claim: &str, direction: Direction) -> Result<(), Failure> {
        let content = match self.snapshot_state(claim).await? {
            Some(SnapshotState { content: Some(content), .. }) => content,
            _ => return Ok(()),
        };
        let policy = if direction == Direction::Do { ReclaimPolicy::Retain } else { ReclaimPolicy::Delete };
        self.ports.snapshots.set_content_policy(&content, policy).await
    }

    pub(super) async fn is_snapshot_retained(&self, claim: &str, direction: Direction) -> Result<Observation, Failure> {
        let wanted = direction == Direction::Do;
        match self.snapshot_state(claim).await? {
            None if !wanted => Ok(Observation::Done(json!({"gone": true}))),
            None => Err(gone(format!("snapshot {}", self.snapshot_name(claim)))),
            Some(state) if state.retained == wanted => Ok(Observation::Done(json!({"retained": wanted}))),
            Some(_) => Ok(Observation::absent()),
        }
    }

    pub(super) async fn save_restore_point(&self) -> Result<(), Failure> {
        let mut volumes = Vec::new();
        for claim in &self.inputs.claims {
            let step = format!("snapshot/verify/{}", claim.name);
            let cut_at: Timestamp = self
                .must_have_seen(&step, "cutAt")?
                .parse()
                .map_err(|_| super::not_planned("cut of claim", &claim.name))?;
            let restore_size = self.cx.journal.evidence(&step).get("size").and_then(Value::as_i64).unwrap_or(0);
            volumes.push(VolumeRecord {
                claim: claim.name.clone(),
                claim_uid: claim.uid.clone(),
                manifest: claim.manifest.clone(),
                volume: claim.volume.clone(),
                volume_handle: claim.handle.clone(),
                driver: claim.driver.clone(),
                snapshot: self.snapshot_name(&claim.name),
                snapshot_uid: self.must_have_seen(&step, "uid")?,
                content: self.must_have_seen(&step, "content")?,
                handle: self.must_have_seen(&step, "handle")?,
                size: restore_size.max(claim.capacity),
                cut_at: Some(cut_at),
                reclaim_policy: Some(claim.reclaim_policy),
            });
        }
        let taken_at = volumes.iter().filter_map(|volume| volume.cut_at).min().unwrap_or(self.cx.now);
        let record = RestorePointRecord {
            name: self.inputs.restore_point.clone(),
            app: self.inputs.app.clone(),
            operation: self.cx.plan.operation.clone(),
            taken_at,
            stopped: self.inputs.stopped,
            pins: self.inputs.from.clone(),
            commits: self.inputs.heads.clone(),
            volumes,
            void: String::new(),
        };
        self.ports.restore_points.save(&record).await
    }

    pub(super) async fn void_restore_point(&self) -> Result<(), Failure> {
        let reason = "the upgrade it was taken for was undone, and the old version runs on the data again";
        self.ports.restore_points.void(&self.inputs.app, &self.inputs.restore_point, reason).await
    }

    pub(super) async fn is_recorded(&self, direction: Direction) -> Result<Observation, Failure> {
        let found = self.ports.restore_points.get(&self.inputs.app, &self.inputs.restore_point).await?;
        Ok(match (direction, found) {
            (Direction::Do, Some(record)) if record.operation == self.cx.plan.operation => {
                Observation::Done(json!({"restorePoint": record.name, "takenAt": record.taken_at.to_string()}))
            }
            (Direction::Do, Some(record)) => Observation::Failed(Failure::permanent(
                "not-ours",
                format!("restore point {} belongs to operation {}", record.name, record.operation),
            )),
            (Direction::Undo, None) => Observation::Done(json!({"gone": true})),
            (Direction::Undo, Some(record)) if !record.void.is_empty() => {
                Observation::Done(json!({"void": record.void}))
            }
            (Direction::Do, None) | (Direction::Undo, Some(_)) => Observation::absent(),
        })
    }
}
