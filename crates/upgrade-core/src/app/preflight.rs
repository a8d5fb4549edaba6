//! What forbids an operation, by name, before anything has an effect.
//!
//! Two lists, because they serve different moments: an upgrade starts from order and refuses disorder; a rollback must work in
//! the mess an upgrade left, and refuses only what would make it unsafe.

use serde::{Deserialize, Serialize};

use super::facts::AppFacts;
use super::{AppSpec, RollbackAsk, UpgradeAsk, changes, message, retention, rollback, upgrade, watch};
use crate::ports::PinFacts;
use crate::version::{Range, Version, is_downgrade};

mod agreement;

use agreement::{comes_before_it_is_let_go, git_is_live, images_are_pinned, is_fetched, parent_is_ready, sources};

/// One reason not to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Stable, kebab-case.
    pub code: String,
    /// What was seen.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// The verdict: refused when there is any refusal. Warnings are shown with the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Why not.
    pub refusals: Vec<Refusal>,
    /// Worth knowing.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Whether the operation may begin.
    pub fn passed(&self) -> bool {
        self.refusals.is_empty()
    }

    /// Whether everything that was refused may pass by itself while the delivery settles: worth waiting a little.
    pub fn may_pass_soon(&self) -> bool {
        const SETTLING: [&str; 6] = [
            "parent-not-ready",
            "readiness-unknown",
            "live-differs-from-git",
            "image-differs-from-pin",
            "source-without-artifact",
            "unready-snapshot",
        ];
        !self.passed() && self.refusals.iter().all(|refusal| SETTLING.contains(&refusal.code.as_str()))
    }

    fn refuse(&mut self, code: &str, message: impl Into<String>, hint: &str) {
        let refusal = Refusal { code: code.into(), message: message.into(), hint: hint.into() };
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }
}

/// Judges an upgrade.
pub fn upgrade(ask: &UpgradeAsk, facts: &AppFacts) -> Verdict {
    let mut verdict = Verdict::default();
    common(&mut verdict, &ask.app, facts, &ask.take_over);
    targets(&mut verdict, ask, facts);
    git_is_live(&mut verdict, facts);
    images_are_pinned(&mut verdict, facts);
    sources(&mut verdict, &ask.app, facts);
    let (from, to) = upgrade::targets(ask, facts);
    comes_before_it_is_let_go(&mut verdict, facts, &from, &to);
    for object in &facts.delivery.objects {
        for (code, message) in &object.refusals {
            verdict.refuse(code, format!("{}: {message}", object.object), "");
        }
        verdict.warnings.extend(object.warnings.iter().map(|warning| format!("{}: {warning}", object.object)));
        parent_is_ready(&mut verdict, object);
    }
    for workload in facts.workloads.iter().filter(|workload| workload.delivered) {
        // Also when it mounts nothing: the version would not reach it.
        for (code, message) in workload.refusals.iter().filter(|(code, _)| code == "frozen") {
            verdict.refuse(code, format!("{}: {message}", workload.object), "");
        }
    }
    ships_along(&mut verdict, facts);
    left_out(&mut verdict, &ask.app, facts);
    accepted(&mut verdict, &ask.app, changes::changes(facts));
    verdict.warnings.extend(changes::blind_spots(facts));
    watched(&mut verdict, ask, facts);
    let unread = ask.app.versions.unread.iter();
    verdict.warnings.extend(unread.map(|field| format!("{field} is set, and has no effect yet")));
    if facts.claims.is_empty() {
        verdict
            .warnings
            .push("no claims were found: nothing is snapshotted, and a rollback cannot bring data back".into());
    }
    verdict
}

/// Judges a rollback.
pub fn rollback(ask: &RollbackAsk, facts: &AppFacts) -> Verdict {
    let mut verdict = Verdict::default();
    let point = &ask.restore_point;
    common(&mut verdict, &ask.app, facts, &ask.take_over);
    accepted(&mut verdict, &ask.app, rollback::changes(ask, facts));
    if !point.void.is_empty() && ask.restore_data {
        let message = format!("restore point {} must not be used any more: {}", point.name, point.void);
        verdict.refuse("restore-point-void", message, "choose another one: windlass snapshots");
    }
    let (from, to) = rollback::targets(ask, facts);
    for found in from.iter().filter(|found| !point.pins.iter().any(|then| then.pin == found.pin)) {
        let message = format!("restore point {} does not know the version of {}", point.name, found.pin.component);
        verdict.refuse("pin-not-recorded", message, "put this component's version back in Git by hand");
    }
    for expected in &ask.only_from {
        let found = from.iter().find(|found| found.pin == expected.pin);
        if found.is_none_or(|found| found.value != expected.value) {
            let seen = found.map_or("nothing", |found| found.value.as_str());
            let message = format!(
                "{} carries {seen} in Git, not {}: somebody changed it",
                expected.pin.component, expected.value
            );
            verdict.refuse("superseded", message, "decide which version is wanted, then ask for a rollback by hand");
        }
    }
    // Data of the older version below a version that nobody takes back would be the end of it.
    let put_back = from.iter().zip(&to).filter(|(from, to)| from.value != to.value).map(|(_, to)| &to.pin.repository);
    let put_back: Vec<&String> = put_back.collect();
    for repository in ask.app.repositories.iter().filter(|one| put_back.contains(&&one.name)) {
        is_fetched(&mut verdict, facts, repository);
    }
    comes_before_it_is_let_go(&mut verdict, facts, &from, &to);
    if ask.restore_data {
        restorable(&mut verdict, ask, facts);
    } else if from == to {
        verdict.refuse("nothing-to-do", "Git already carries these versions, and the data is to be kept", "");
    }
    let inputs = rollback::inputs(ask, facts);
    verdict.warnings.extend(watch::warnings(facts, &inputs.unwatched, &inputs.unseen));
    verdict
}

fn common(verdict: &mut Verdict, spec: &AppSpec, facts: &AppFacts, take_over: &[String]) {
    if !facts.missing_rights.is_empty() {
        let message = format!("rights are missing: {}", facts.missing_rights.join(", "));
        verdict.refuse("rights-missing", message, "apply the RBAC manifests of this version of Windlass");
    }
    if spec.pins.is_empty() {
        let hint = "name the scalars that carry the versions in spec.git.pins";
        verdict.refuse("no-pins", "the app names no pins, so there is nothing to change in Git", hint);
    }
    for object in &facts.delivery.objects {
        // Whoever may make an app could else have what others own suspended as a parent, by labels of their own making.
        for (code, message) in object.refusals.iter().filter(|(code, _)| code == "namespace-not-allowed") {
            verdict.refuse(code, format!("{}: {message}", object.object), "");
        }
        let ours = object.held_by.as_ref().is_some_and(|holder| take_over.contains(holder));
        if let Some(holder) = object.held_by.as_ref().filter(|_| !ours) {
            let message = format!("{} is held by operation {holder}", object.object);
            let hint = "find the request with this UID (kubectl get ureq,rreq -A): wait until it has ended; one that has ended has left this suspended, see its leftovers";
            verdict.refuse("held-by-other-operation", message, hint);
        } else if object.suspend == Some(true) && !ours {
            let message = format!("{} was suspended by somebody else", object.object);
            verdict.refuse("suspended-by-others", message, "find out why, and resume it: flux resume");
        }
    }
    for source in facts.delivery.sources.iter().filter(|source| source.suspend == Some(true)) {
        let message = format!("{} was suspended by somebody else", source.object);
        verdict.refuse("suspended-by-others", message, "find out why, and resume it: flux resume");
    }
    let pins = facts.repositories.iter().flat_map(|repository| &repository.pins);
    for found in pins {
        pin(verdict, found);
    }
    for repository in &spec.repositories {
        let unknown = repository.message_template.as_deref().map(message::unknown).unwrap_or_default();
        if !unknown.is_empty() {
            let message = format!("the messageTemplate of {} has {}", repository.name, unknown.join(", "));
            let hint = "use {app}, {namespace}, {components}, {from}, {to}, {reason} and {request} only";
            verdict.refuse("message-template", message, hint);
        }
    }
    neighbours(verdict, spec, facts);
    for workload in facts.workloads.iter().filter(|workload| !workload.claims.is_empty()) {
        let shares = workload.claims.iter().any(|claim| facts.claims.iter().any(|found| found.name == *claim));
        if !shares {
            continue;
        }
        if !workload.delivered {
            let message = format!("{} mounts a claim of the app, and is not delivered by it", workload.object);
            verdict.refuse("foreign-consumer", message, "stop it, or let the app's delivery objects deliver it");
        } else if !workload.kind.can_stop() && workload.refusals.is_empty() {
            let message = format!("{} mounts a claim of the app and cannot be stopped", workload.object);
            verdict.refuse("cannot-stop", message, "");
        }
        for (code, message) in &workload.refusals {
            verdict.refuse(code, format!("{}: {message}", workload.object), "");
        }
        verdict.warnings.extend(workload.warnings.iter().map(|warning| format!("{}: {warning}", workload.object)));
    }
    verdict.warnings.extend(
        facts.passed_over.iter().map(|(claim, why)| {
            format!("claim {claim} is delivered by the app, and neither protected nor copied: {why}")
        }),
    );
    for claim in &facts.claims {
        for (code, message) in &claim.refusals {
            if code != "claim-missing" || spec.snapshots.claims.contains(&claim.name) {
                verdict.refuse(code, format!("claim {}: {message}", claim.name), "");
            }
        }
    }
}

/// Where nothing runs, nothing would tell whether the target does: it would be waited for in vain once it is released.
fn watched(verdict: &mut Verdict, ask: &UpgradeAsk, facts: &AppFacts) {
    let inputs = upgrade::inputs(ask, facts);
    verdict.warnings.extend(watch::warnings(facts, &inputs.unwatched, &inputs.unseen));
    for object in changes::passing(facts) {
        verdict.warnings.push(format!("{object} is not in the target any more, and is not waited for"));
    }
    if !inputs.watched.iter().any(watch::keeps_pods) && !watch::is_any_coming(facts) {
        let hint = "let one of its Deployments, StatefulSets, ReplicaSets or DaemonSets run, then ask anew";
        verdict.refuse("nothing-to-watch", "nothing of the app is meant to run, so its health could not be told", hint);
    }
}

/// Naming the claims is a choice that loses data when it was not meant.
fn left_out(verdict: &mut Verdict, spec: &AppSpec, facts: &AppFacts) {
    let named = &spec.snapshots.claims;
    if named.is_empty() || !spec.snapshots.enabled {
        return;
    }
    for workload in facts.workloads.iter().filter(|workload| workload.delivered) {
        let left_out = workload.claims.iter().filter(|claim| !named.contains(claim));
        verdict.warnings.extend(left_out.map(|claim| {
            let object = &workload.object;
            format!("claim {claim} of {object} is not in spec.snapshots.claims: no copy is taken, and a rollback leaves it alone")
        }));
    }
    let is_mounted = |claim: &String| facts.workloads.iter().any(|one| one.delivered && one.claims.contains(claim));
    let unmounted = facts.delivered_claims.iter().filter(|claim| !named.contains(claim) && !is_mounted(claim));
    verdict.warnings.extend(unmounted.map(|claim| {
        format!("claim {claim}, which nothing mounts, is not in spec.snapshots.claims: no copy is taken, and a rollback leaves it alone")
    }));
}

/// Two apps of one namespace that are about the same things would undo each other's work. Of one delivery object, an app is
/// what is in its own namespace, so apps of different namespaces may share it.
fn neighbours(verdict: &mut Verdict, spec: &AppSpec, facts: &AppFacts) {
    for other in facts.neighbours.iter().filter(|other| other.app.namespace == spec.app.namespace) {
        for object in other.own.iter().filter(|object| spec.own.contains(object)) {
            let message = format!("{object} is named by the app {} as well", other.app);
            verdict.refuse("app-overlaps", message, "let one ManagedApp stand for it");
        }
        let shared = other.claims.iter().filter(|claim| facts.claims.iter().any(|found| found.name == **claim));
        for claim in shared {
            let message = format!("claim {claim} is named by the app {} as well", other.app);
            verdict.refuse("claim-of-another-app", message, "restoring it would change that app's data: separate them");
        }
    }
}

/// What the target would change has to be accepted by name, and nothing else may be: a name with a typo accepts nothing.
fn accepted(verdict: &mut Verdict, spec: &AppSpec, changes: Vec<changes::Change>) {
    let names = &spec.versions.accepted_claim_changes;
    for unknown in names.iter().filter(|name| !changes.iter().any(|change| change.name == **name)) {
        let possible: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        let hint = if possible.is_empty() {
            "take it out of spec.accept".to_owned()
        } else {
            format!("take it out of spec.accept; these can be accepted: {}", possible.join(", "))
        };
        let message = format!("spec.accept names {unknown}, and this operation brings no such change");
        verdict.refuse("accept-unknown", message, &hint);
    }
    for change in changes {
        if names.contains(&change.name) {
            verdict.warnings.push(format!("accepted as {}: {}", change.name, change.what));
        } else {
            let hint = format!("if that is meant, accept it by name: spec.accept: [{}]", change.name);
            verdict.refuse(change.code, change.what, &hint);
        }
    }
}

fn pin(verdict: &mut Verdict, found: &PinFacts) {
    let place = format!("{} {} {}", found.pin.path, found.pin.object, found.pin.field);
    if found.image_policy_marker {
        let message = format!("{place} is written by Flux image automation ($imagepolicy marker)");
        verdict.refuse("image-policy-marker", message, "remove the marker, or let image automation do the upgrades");
    }
    if found.sops {
        let message = format!("{} is encrypted with SOPS: changing it would break its signature", found.pin.path);
        verdict.refuse("sops-file", message, "move the version into a file that is not encrypted");
    }
    if found.value.parse::<Version>().is_err() && found.value.parse::<Range>().is_ok_and(|range| !range.is_exact()) {
        let message = format!("{place} carries the range {:?}, which moves without a commit", found.value);
        verdict.refuse("version-range", message, "pin an exact version");
    }
}

fn targets(verdict: &mut Verdict, ask: &UpgradeAsk, facts: &AppFacts) {
    let (from, to) = upgrade::targets(ask, facts);
    for component in ask.targets.keys().filter(|component| !to.iter().any(|value| value.pin.component == **component)) {
        let message = format!("no pin carries the version of {component}");
        verdict.refuse("unknown-component", message, "name one of the app's components: windlass show app");
    }
    if !to.is_empty() && from == to {
        verdict.refuse("nothing-to-do", "Git already carries these versions", "");
    }
    for (from, to) in from.iter().zip(&to).filter(|(from, to)| from.value != to.value) {
        let component = &to.pin.component;
        if let Some(blocked) = facts.blocked.iter().find(|one| one.component == *component && one.version == to.value) {
            let why = if blocked.reason.is_empty() { "no reason was given" } else { &blocked.reason };
            let message = format!("{component} {} was rolled back by {}: {why}", to.value, blocked.request);
            verdict.refuse("version-blocked", message, "windlass unblock app, once the reason is gone");
        }
        if ask.app.versions.skip.contains(&to.value) {
            verdict.refuse("version-skipped", format!("{component} {} is in spec.policy.skip", to.value), "");
        }
        let target = match to.value.parse::<Version>() {
            Ok(target) => target,
            Err(error) => {
                let message = format!("{component} {:?} cannot be compared: {error}", to.value);
                verdict.refuse("version-not-semver", message, "choose a tag that is a semantic version");
                continue;
            }
        };
        if let Some(text) = &ask.app.versions.constraint {
            match text.parse::<Range>() {
                Ok(range) if range.matches(&target) => {}
                Ok(_) => {
                    let message = format!("{component} {} lies outside of {text}", to.value);
                    verdict.refuse(
                        "outside-constraint",
                        message,
                        "change spec.policy.constraint, or choose another version",
                    );
                }
                Err(error) => {
                    verdict.refuse("constraint-malformed", format!("spec.policy.constraint: {error}"), "");
                }
            }
        }
        match from.value.parse::<Version>() {
            Ok(current) if is_downgrade(&current, &target) => {
                let message = format!("{component} {} is older than {}", to.value, from.value);
                verdict.refuse(
                    "downgrade",
                    message,
                    "windlass rollback app brings the data of the older version back too",
                );
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("{component} {:?} in Git cannot be compared: {error}", from.value);
                verdict.refuse("version-not-semver", message, "pin a semantic version in Git first");
            }
        }
    }
}

fn ships_along(verdict: &mut Verdict, facts: &AppFacts) {
    for repository in &facts.repositories {
        let name = &repository.repository.name;
        match &repository.ships_along {
            None => verdict.warnings.push(format!("{name}: which other commits ship along could not be told")),
            Some(commits) => {
                verdict.warnings.extend(commits.iter().map(|commit| format!("{name}: ships along: {commit}")));
            }
        }
    }
}

fn restorable(verdict: &mut Verdict, ask: &RollbackAsk, facts: &AppFacts) {
    let point = &ask.restore_point;
    // What was copied while it ran has acknowledged more since.
    let loses_writes = ask.loses_writes || !point.stopped && !point.volumes.is_empty();
    if loses_writes && !ask.is_acknowledged() {
        let message = format!("everything written since {} is lost when the data is restored", point.taken_at);
        let hint =
            format!("acknowledge it: --acknowledge-loss-since {}, or keep the data: --data keep", point.taken_at);
        verdict.refuse("loss-not-acknowledged", message, &hint);
    }
    for volume in &point.volumes {
        let claim = &volume.claim;
        let state = facts.restorable.iter().find(|(name, _)| name == claim).and_then(|(_, state)| state.as_ref());
        let Some(problem) = retention::problem(volume, state) else { continue };
        let code = if state.is_none() { "snapshot-gone" } else { "snapshot-not-usable" };
        verdict.refuse(code, problem, "choose another restore point: windlass snapshots");
    }
}
