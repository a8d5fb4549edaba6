//! What becomes of a volume that a restore put out of use, once the time it is kept for is over.
//!
//! This is the one place where deleting a volume that once held an app's data is wanted, so it must be exactly that volume, as
//! the restore left it: Released by the claim it was bound to, on Retain, and used by nobody. Whatever else is found is
//! somebody's doing, and is left alone.

use jiff::Timestamp;

use crate::ports::{ReclaimPolicy, ReplacedVolume, VolumeState};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet: its time is not over.
    Keep,
    /// Have it deleted.
    Reclaim,
    /// It stays noted, with why it is still there.
    Wait(String),
    /// It is not noted any more, and why: gone, or not ours to delete.
    Forget(String),
}

/// Decides. `namespace` is that of its claim; `state` the volume now, `None` when there is none of that name; `user` whoever
/// still has it.
pub fn fate(
    noted: &ReplacedVolume,
    keep_until: Timestamp,
    namespace: &str,
    state: Option<&VolumeState>,
    user: Option<&str>,
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
            None => Fate::Reclaim,
        },
        ("Released", ReclaimPolicy::Delete) => Fate::Wait("it is being deleted".into()),
        (phase, _) => Fate::Wait(format!("it is {phase}: see its events")),
    }
}
