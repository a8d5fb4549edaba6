//! What becomes of a volume that a restore put out of use, once the time it is kept for is over.
//!
//! This is the one place where deleting a volume that once held an app's data is wanted, so it must be exactly that volume, as
//! the restore left it: Released by the claim it was bound to, on Retain, and used by nobody. Whatever else is found is
//! somebody's doing, and is left alone.
//!
//! On some storage a snapshot lives inside the volume it was cut from and goes with it, without a word. So a volume stays as long
//! as there is a restore point that was cut from it, and goes together with the last one.

use jiff::Timestamp;

use crate::ports::{ReclaimPolicy, ReplacedVolume, VolumeState};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet: its time is not over.
    Keep,
    /// Have it deleted.
    Reclaim,
    /// It is being deleted.
    Going,
    /// Nothing but these restore points keeps it: copies of theirs were cut from it, and may go with it.
    Needed(Vec<String>),
    /// It stays noted, with why it is still there.
    Wait(String),
    /// It is not noted any more, and why: gone, or not ours to delete.
    Forget(String),
}

/// The volumes that the copies of a restore point were cut from, by name and handle. Of one that is void no copy is restored, so it
/// has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutFrom {
    /// The restore point.
    pub point: String,
    /// Name and handle of each volume.
    pub volumes: Vec<(String, String)>,
}

/// Decides. `namespace` is that of its claim; `state` the volume now, `None` when there is none of that name; `user` whoever
/// still has it; `points` every restore point that can still be wanted.
pub fn fate(
    noted: &ReplacedVolume,
    keep_until: Timestamp,
    namespace: &str,
    state: Option<&VolumeState>,
    user: Option<&str>,
    points: &[CutFrom],
    now: Timestamp,
) -> Fate {
    if now < keep_until {
        return Fate::Keep;
    }
    let forget = |why: &str| Fate::Forget(why.to_owned());
    let Some(state) = state else { return forget("it is gone") };
    let differs = |recorded: &str, seen: &str| !recorded.is_empty() && recorded != seen;
    if differs(&noted.uid, &state.uid) || differs(&noted.handle, &state.handle) {
        return forget("another volume has its name now");
    }
    let of_its_claim = state.claim.as_ref().is_some_and(|(its_namespace, claim, uid)| {
        let uid = uid.as_deref().unwrap_or_default();
        its_namespace == namespace && *claim == noted.claim && !uid.is_empty() && !differs(&noted.claim_uid, uid)
    });
    match (state.phase.as_str(), state.reclaim_policy) {
        ("Bound", _) => forget("it is in use again"),
        _ if !of_its_claim => forget("it does not name its old claim any more: somebody has plans for it"),
        ("Released", ReclaimPolicy::Retain) => match user {
            Some(user) => Fate::Wait(format!("{user} has it")),
            None => match needed_by(noted, state, points) {
                points if points.is_empty() => Fate::Reclaim,
                points => Fate::Needed(points),
            },
        },
        ("Released", ReclaimPolicy::Delete) => Fate::Going,
        (phase, _) => Fate::Wait(format!("it is {phase}: see its events")),
    }
}

/// The restore points with a copy that was cut from this volume. After a restore of the cluster's objects it may have another name.
fn needed_by(noted: &ReplacedVolume, state: &VolumeState, points: &[CutFrom]) -> Vec<String> {
    let is_it = |(name, handle): &(String, String)| {
        *name == noted.volume || (!handle.is_empty() && [&noted.handle, &state.handle].contains(&handle))
    };
    points.iter().filter(|point| point.volumes.iter().any(is_it)).map(|point| point.point.clone()).collect()
}

/// Whether a volume keeps the restore point that it is noted on from expiring. One that only waits for the end of that very restore
/// point does not, or each would wait for the other for ever.
pub fn holds(fate: &Fate, point: &str) -> bool {
    match fate {
        Fate::Forget(_) => false,
        Fate::Needed(points) => points.iter().any(|other| other != point),
        Fate::Keep | Fate::Reclaim | Fate::Going | Fate::Wait(_) => true,
    }
}
