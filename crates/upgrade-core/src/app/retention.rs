//! Which restore points of an app are kept, and which expire; and whether one can be restored at all.
//!
//! A restore point is kept while it is among the newest usable ones *or* young enough: either reason is enough. It expires only
//! when both are gone, nothing needs it, and a newer usable one is proven. "Not known" is never a reason to delete.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::ports::{SnapshotState, VolumeRecord};

/// What the owner of an app wants kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// So many of the newest usable ones are kept, however old. At least one is, whatever this says.
    pub keep_last: usize,
    /// One that is younger is kept, however many there are.
    pub max_age: SignedDuration,
}

/// Whether a restore point can be restored, as its snapshots look now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usability {
    /// Every snapshot is what was taken, ready, and bound both ways.
    Usable,
    /// It must not be, or cannot be, and why.
    Unusable(String),
    /// It could not be told.
    Unknown,
}

/// A restore point, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointFacts {
    /// Its name.
    pub name: String,
    /// When its data was cut, or when it was made if that is not known.
    pub taken_at: Timestamp,
    /// Whether it was voided: then no copy of it may be restored, and none stands for another.
    pub void: bool,
    /// Whether it can be restored.
    pub usable: Usability,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether volumes that a restore replaced are still noted on it and do not go together with it ([`super::replaced::holds`]): the
    /// note is all that is known of them.
    pub holds_volumes: bool,
}

/// A request of the same app, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// Kind and name, for people.
    pub name: String,
    /// The restore points it names, took or restores; the restore point of an upgrade that it names among them.
    pub points: Vec<String>,
    /// Whether it has ended.
    pub over: bool,
    /// Whether it ended and left something to be put right.
    pub leaves: bool,
}

/// What becomes of a restore point, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep(String),
    /// It goes.
    Expire(String),
}

/// What is wrong with one copy of a restore point; `None` when it can be restored. `state` is `None` when its snapshot is gone.
pub fn problem(volume: &VolumeRecord, state: Option<&SnapshotState>) -> Option<String> {
    let (snapshot, claim) = (&volume.snapshot, &volume.claim);
    let Some(state) = state else { return Some(format!("snapshot {snapshot} of claim {claim} is gone")) };
    let problem = if state.uid != volume.snapshot_uid {
        "it was replaced by another object of the same name"
    } else if state.handle.as_ref().is_some_and(|handle| *handle != volume.handle) {
        "its content stands for another copy"
    } else if let Some(mismatch) = &state.mismatch {
        mismatch
    } else if !state.ready {
        "it is not ready to use"
    } else if state.cut_at.zip(volume.cut_at).is_some_and(|(now, then)| is_another(now, then)) {
        // A snapshot whose content and copy are lost is cut again by the snapshot controllers, from the data of today.
        "it was cut again, from later data"
    } else {
        return None;
    };
    Some(format!("snapshot {snapshot} of claim {claim}: {problem}"))
}

/// Whether two instants are those of two cuts. Drivers give the same one with more or fewer digits.
fn is_another(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() > SignedDuration::from_secs(1)
}

/// The unfinished request that a restore point is held for, if any. While there is one its copies stay, even if a person has
/// deleted it.
pub fn held_for(point: &str, requests: &[RequestFacts]) -> Option<String> {
    let unfinished = requests.iter().find(|request| !request.over && request.points.iter().any(|one| one == point));
    unfinished.map(|request| format!("{} needs it and has not ended", request.name))
}

/// Decides about every restore point of one app.
pub fn retention(
    points: &[PointFacts],
    policy: RetentionPolicy,
    now: Timestamp,
    requests: &[RequestFacts],
) -> BTreeMap<String, Fate> {
    let mut usable: Vec<&PointFacts> = points.iter().filter(|point| counts(point)).collect();
    usable.sort_by(|one, other| order(other).cmp(&order(one)));
    let fate = |point: &PointFacts| {
        let newer = usable.iter().filter(|other| order(other) > order(point)).count();
        judge(point, newer, policy, now, requests)
    };
    points.iter().map(|point| (point.name.clone(), fate(point))).collect()
}

/// Whether it may stand for an older one.
fn counts(point: &PointFacts) -> bool {
    !point.void && !point.deleting && point.usable == Usability::Usable
}

/// Newest last; the name makes it an order also for two of one instant.
fn order(point: &PointFacts) -> (Timestamp, &str) {
    (point.taken_at, &point.name)
}

fn judge(
    point: &PointFacts,
    newer_usable: usize,
    policy: RetentionPolicy,
    now: Timestamp,
    requests: &[RequestFacts],
) -> Fate {
    let keep = |why: &str| Fate::Keep(why.to_owned());
    if point.deleting {
        return keep("it is being deleted already");
    }
    // The restore point of an upgrade that has not succeeded yet may still be voided, and then the one before is the last.
    if let Some(request) = requests.iter().find(|request| !request.over) {
        return Fate::Keep(format!("{} has not ended", request.name));
    }
    let needs = |request: &&RequestFacts| request.leaves && request.points.contains(&point.name);
    if let Some(request) = requests.iter().find(needs) {
        return Fate::Keep(format!("{} has left something to be put right with it", request.name));
    }
    if point.holds_volumes {
        return keep("volumes that a restore replaced are noted on it");
    }
    let max_age = crate::duration::format(policy.max_age);
    if now.duration_since(point.taken_at) < policy.max_age {
        return Fate::Keep(format!("it is younger than {max_age}"));
    }
    if point.void {
        return Fate::Expire(format!("it is void and older than {max_age}"));
    }
    match &point.usable {
        Usability::Unknown => return keep("it could not be told whether it can be restored"),
        Usability::Unusable(_) | Usability::Usable if newer_usable == 0 => {
            return keep("there is no newer one that is proven usable");
        }
        Usability::Unusable(why) => return Fate::Expire(format!("it is not usable ({why}) and older than {max_age}")),
        Usability::Usable => {}
    }
    let keep_last = policy.keep_last.max(1);
    if newer_usable < keep_last {
        return Fate::Keep(format!("it is one of the newest {keep_last} that are usable"));
    }
    Fate::Expire(format!("it is older than {max_age}, and {newer_usable} newer ones are usable"))
}
