//! Rule 5: one instance acts, on one operation of an app at a time.

use kube_sim::server::{Admission, Operation};
use serde_json::Value;

use super::{Key, State, text};
use crate::estate::{INSTANCE, SYSTEM};

/// Ours on a suspended object.
const HELD_BY: &str = "/metadata/annotations/upgrades.windlass.dev~1held-by";

/// Nobody writes but the holder of the lease within its term; steps are noted only of the app's active operation, and only that one
/// takes hold of an object.
pub(super) fn before_write(state: &mut State, write: &Admission<'_>, key: &Key, subject: &Value) {
    let (resource, namespace, name) = key;
    if matches!(resource.as_str(), "leases" | "events" | "selfsubjectaccessreviews") {
        return;
    }
    let instance = write.user.groups.iter().find_map(|group| group.strip_prefix(INSTANCE)).unwrap_or_default();
    if let Some(why) = state.may_not_act(instance) {
        state.broken("5", format!("instance {instance} wrote {resource} {name} {why}"));
    }
    if write.operation != Operation::Update {
        return;
    }
    // Also of one that is being deleted.
    let before = state.objects.get(key).cloned().unwrap_or_default();
    match resource.as_str() {
        "upgraderequests" | "rollbackrequests" => {
            let journal = |request: &Value| request.pointer("/status/journal").cloned().unwrap_or_default();
            let ended = !text(&before, "/status/outcome").is_empty();
            if !ended && journal(&before) != journal(subject) {
                let app = state.get("managedapps", namespace, text(subject, "/spec/subject/name"));
                let active = app.map(|app| text(app, "/status/activeOperation/uid").to_owned()).unwrap_or_default();
                if active != text(subject, "/metadata/uid") {
                    state.broken("5", format!("{resource} {name} made a step while {active:?} was active"));
                }
            }
        }
        "kustomizations" | "helmreleases" => {
            let holder = text(subject, HELD_BY);
            let is_active = |app: &Value| text(app, "/status/activeOperation/uid") == holder;
            let taken = !holder.is_empty() && holder != text(&before, HELD_BY);
            if taken && !state.all("managedapps").any(is_active) {
                state.broken("5", format!("{resource} {name} was taken by {holder}, which is not active"));
            }
        }
        _ => {}
    }
}

impl State {
    /// Why an instance may not write now.
    fn may_not_act(&self, instance: &str) -> Option<String> {
        let Some(lease) = self.get("leases", SYSTEM, "windlass-operator") else {
            return Some("while there was no lease".to_owned());
        };
        let holder = text(lease, "/spec/holderIdentity");
        if holder.rsplit_once('_').map(|(_, instance)| instance) != Some(instance) {
            return Some(format!("while {holder:?} held the lease"));
        }
        let term = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or_default();
        let over = self.lease_written.is_some_and(|at| at.elapsed().as_secs() >= term);
        over.then(|| "after its term".to_owned())
    }
}
