//! Rules 1 and 2: what must exist before a version is committed, before a claim goes, and before a volume or a copy goes.

use kube_sim::controllers::pods::RunHistory;
use kube_sim::server::{Admission, Operation};
use serde_json::Value;
use upgrade_core::ports::CommitRequest;

use super::{Key, State, is_going, list, text};

/// Helper claims of ours begin so.
const HELPER: &str = "windlass-";

impl State {
    /// Pods that mount the claim and have not ended, also those that were told to, and processes on it.
    fn users_of(&self, namespace: &str, claim: &str) -> Vec<String> {
        let mounts = |pod: &&Value| {
            !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
                && list(pod, "/spec/volumes")
                    .iter()
                    .any(|volume| text(volume, "/persistentVolumeClaim/claimName") == claim)
        };
        let pods = self.within("pods", namespace).filter(mounts);
        let mut users: Vec<String> = pods.map(|pod| text(pod, "/metadata/name").to_owned()).collect();
        let history: RunHistory = self.runs.history();
        let on_it = history.runs.iter().filter(|run| {
            run.until_ms.is_none()
                && run.pod.namespace == namespace
                && run.claims.iter().any(|used| used.claim == claim)
        });
        users.extend(on_it.map(|run| format!("a process of {}", run.pod.name)));
        users
    }

    /// Whether the claim that a volume names is there and names that volume.
    fn is_claimed(&self, volume: &Value) -> bool {
        let (namespace, name) = (text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name"));
        self.get("persistentvolumeclaims", namespace, name).is_some_and(|claim| {
            text(claim, "/metadata/uid") == text(volume, "/spec/claimRef/uid")
                && text(claim, "/spec/volumeName") == text(volume, "/metadata/name")
        })
    }
}

impl State {
    /// The claim whose data a volume or a copy has, unless it is a helper.
    fn claim_in(&self, key: &Key, object: &Value) -> Option<(String, String)> {
        let (namespace, name) = match key.0.as_str() {
            "persistentvolumes" => (text(object, "/spec/claimRef/namespace"), text(object, "/spec/claimRef/name")),
            "volumesnapshots" => (key.1.as_str(), text(object, "/spec/source/persistentVolumeClaimName")),
            "volumesnapshotcontents" => {
                // Its snapshot may be going, too.
                let part = |field: &str| text(object, &format!("/spec/volumeSnapshotRef/{field}")).to_owned();
                let snapshot = ("volumesnapshots".to_owned(), part("namespace"), part("name"));
                return self.claim_in(&snapshot, self.objects.get(&snapshot)?);
            }
            _ => return None,
        };
        (!name.is_empty() && !name.starts_with(HELPER)).then(|| (namespace.to_owned(), name.to_owned()))
    }

    /// Whether the data of a claim is anywhere but in what goes: in its own volume, in one that is kept for it, or in a snapshot.
    fn has_another_copy(&self, namespace: &str, claim: &str, goes: &Key) -> bool {
        let stays = |resource: &str, namespace: &str, name: &str| {
            (resource, namespace, name) != (&goes.0, &goes.1, &goes.2) && self.get(resource, namespace, name).is_some()
        };
        let is_for_it = |volume: &&Value| {
            text(volume, "/spec/claimRef/namespace") == namespace && text(volume, "/spec/claimRef/name") == claim
        };
        let is_kept = |volume: &Value| {
            stays("persistentvolumes", "", text(volume, "/metadata/name"))
                && (self.is_claimed(volume) || text(volume, "/spec/persistentVolumeReclaimPolicy") == "Retain")
        };
        let is_whole = |snapshot: &Value| {
            text(snapshot, "/spec/source/persistentVolumeClaimName") == claim
                && snapshot.pointer("/status/readyToUse") == Some(&Value::Bool(true))
                && stays("volumesnapshots", namespace, text(snapshot, "/metadata/name"))
                && stays("volumesnapshotcontents", "", text(snapshot, "/status/boundVolumeSnapshotContentName"))
        };
        self.all("persistentvolumes").filter(is_for_it).any(is_kept)
            || self.within("volumesnapshots", namespace).any(is_whole)
    }
}

/// Rule 2, whoever writes: no volume, snapshot or content goes that is the only copy of a claim's data.
pub(super) fn before_anybody_deletes(state: &mut State, write: &Admission<'_>, key: &Key, subject: &Value) {
    if write.operation != Operation::Delete {
        return;
    }
    let Some((namespace, claim)) = state.claim_in(key, subject) else { return };
    if !state.has_another_copy(&namespace, &claim, key) {
        let (resource, _, name) = key;
        state.broken(
            "2",
            format!("{} deleted {resource} {name}, the only copy of {namespace}/{claim}", write.user.name),
        );
    }
}

/// Rule 2: no claim of an app is deleted unless its volume is on Retain, a restored copy is on Retain too, and nothing mounts it; no
/// volume is deleted, and none goes from Retain to Delete, which erases it, unless its claim is there.
pub(super) fn before_write(state: &mut State, write: &Admission<'_>, key: &Key, subject: &Value) {
    let (resource, namespace, name) = key;
    match (write.operation, resource.as_str()) {
        (Operation::Delete, "persistentvolumeclaims") if !name.starts_with(HELPER) => {
            let volume = text(subject, "/spec/volumeName");
            let policy = state
                .get("persistentvolumes", "", volume)
                .map(|found| text(found, "/spec/persistentVolumeReclaimPolicy").to_owned());
            if policy.as_deref() != Some("Retain") {
                state.broken("2", format!("claim {name} was deleted while its volume was on {policy:?}"));
            }
            let copy = state.all("persistentvolumes").any(|other| {
                text(other, "/metadata/name") != volume
                    && !is_going(other)
                    && text(other, "/spec/persistentVolumeReclaimPolicy") == "Retain"
                    && text(other, "/spec/claimRef/name") == name
                    && text(other, "/spec/claimRef/namespace") == namespace
            });
            if !copy {
                state.broken("2", format!("claim {name} was deleted without a restored copy that waits for it"));
            }
            let users = state.users_of(namespace, name);
            if !users.is_empty() {
                state.broken("2", format!("claim {name} was deleted while {users:?} used it"));
            }
        }
        (Operation::Delete, "persistentvolumes") => state.broken("2", format!("volume {name} was deleted")),
        (Operation::Update, "persistentvolumes") => {
            let policy = |object: &Value| text(object, "/spec/persistentVolumeReclaimPolicy").to_owned();
            let before = state.get("persistentvolumes", "", name).map(policy);
            let lets_go = before.as_deref() == Some("Retain") && policy(subject) == "Delete";
            if lets_go && (text(subject, "/status/phase") != "Bound" || !state.is_claimed(subject)) {
                let phase = text(subject, "/status/phase");
                state.broken("2", format!("volume {name} was let go while it was {phase}, or its claim was gone"));
            }
        }
        _ => {}
    }
}

/// Rule 1: every claim of the app has a snapshot that is ready, kept and bound both ways before a version is committed.
pub(super) fn before_commit(state: &mut State, request: &CommitRequest) {
    // Reverts and rollbacks put back what the data belongs to; their copies are checked where claims are swapped.
    let bumps = request.message.starts_with("Upgrade ");
    if !bumps {
        return;
    }
    let usable = |point: &&Value| !is_going(point) && text(point, "/spec/void").is_empty();
    let points = state.all("restorepoints").filter(usable);
    let Some(newest) = points.max_by_key(|point| text(point, "/spec/takenAt").to_owned()).cloned() else {
        state.broken("1", "a version is committed without a restore point");
        return;
    };
    let namespace = text(&newest, "/metadata/namespace").to_owned();
    let copied: Vec<&str> = list(&newest, "/spec/data").iter().map(|data| text(data, "/claim/name")).collect();
    let claims =
        state.within("persistentvolumeclaims", &namespace).map(|claim| text(claim, "/metadata/name").to_owned());
    let claims: Vec<String> = claims.filter(|name| !name.starts_with(HELPER)).collect();
    if claims.is_empty() || claims.iter().any(|claim| !copied.contains(&claim.as_str())) {
        state.broken("1", format!("a version is committed with copies of {copied:?}, and the claims are {claims:?}"));
    }
    for data in list(&newest, "/spec/data") {
        let (snapshot, content) = (text(data, "/snapshot"), text(data, "/content"));
        let taken = state.get("volumesnapshots", &namespace, snapshot).cloned().unwrap_or_default();
        let bound = state.get("volumesnapshotcontents", "", content).cloned().unwrap_or_default();
        let ready = taken.pointer("/status/readyToUse") == Some(&Value::Bool(true));
        let both = text(&taken, "/status/boundVolumeSnapshotContentName") == content
            && text(&bound, "/spec/volumeSnapshotRef/name") == snapshot
            && text(&bound, "/spec/volumeSnapshotRef/uid") == text(&taken, "/metadata/uid");
        let kept = text(&bound, "/spec/deletionPolicy") == "Retain";
        if !(ready && both && kept) {
            state.broken("1", format!("a version is committed while snapshot {snapshot} is ready: {ready}, bound both ways: {both}, kept: {kept}"));
        }
    }
}
