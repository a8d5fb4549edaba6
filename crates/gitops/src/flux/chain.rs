//! What preflight wants to know about one object of the chain, from the object as read.

use serde_json::Value;
use upgrade_core::ports::{DeliveryObject, DeliveryRole, ObjectRef, Readiness, SourceFacts};
use windlass_api::call::FIELD_MANAGER;
use windlass_api::foreign::{
    GitRepository, HelmAction, HelmRelease, InventoryEntry, Kustomization, RECONCILE, SourceReference, kept_from_git,
};
use windlass_api::{Condition, READY, condition};

use super::error::FluxError;
use super::hold::{HELD_BY, as_found};
use super::live::{HELM, KUSTOMIZE, Live, SOURCE};
use super::revision::{commit, is_exact};

/// A refusal code and its explanation.
type Refusal = (String, String);

fn refusal(code: &str, why: impl Into<String>) -> Refusal {
    (code.to_owned(), why.into())
}

fn readiness(conditions: &[Condition]) -> Readiness {
    match condition(conditions, READY) {
        Some(ready) if ready.status == "True" => Readiness::Ready,
        Some(ready) if ready.status == "False" => Readiness::NotReady(format!("{}: {}", ready.reason, ready.message)),
        _ => Readiness::Unknown,
    }
}

/// The Kustomization whose labels are on the object; `None` for a root. A Kustomization that applies itself, as the one of
/// a bootstrapped cluster does, is a root.
pub(super) fn parent(live: &Live) -> Option<ObjectRef> {
    live.labelled(KUSTOMIZE, "Kustomization").filter(|parent| *parent != live.object)
}

/// The source that `reference` names, in `namespace` unless it says another.
pub(super) fn source_object(reference: &SourceReference, namespace: &str) -> ObjectRef {
    ObjectRef::new(SOURCE, &reference.kind, reference.namespace.as_deref().unwrap_or(namespace), &reference.name)
}

/// The facts that the object tells about itself.
pub(super) fn facts(live: &Live, own: bool) -> Result<DeliveryObject, FluxError> {
    let mut facts = DeliveryObject {
        object: live.object.clone(),
        uid: live.uid().to_owned(),
        role: DeliveryRole::Manifests,
        own,
        parent: parent(live),
        source: None,
        suspend: live.suspend(),
        suspend_declared: declares_suspend(live),
        held_by: live.annotation(HELD_BY).map(ToOwned::to_owned),
        held_as_found: live.annotation(HELD_BY).and_then(|_| as_found(live)),
        readiness: Readiness::Unknown,
        live: Vec::new(),
        refusals: marks(live),
        warnings: Vec::new(),
    };
    match (live.object.group.as_str(), live.object.kind.as_str()) {
        (HELM, "HelmRelease") => release_facts(&mut facts, live)?,
        (KUSTOMIZE, "Kustomization") => manifests_facts(&mut facts, live)?,
        _ => {
            let why = "only HelmReleases and Kustomizations of Flux deliver apps".to_owned();
            return Err(FluxError::Unsupported { object: live.object.to_string(), why });
        }
    }
    Ok(facts)
}

/// Whether whoever applies the object from Git owns `spec.suspend`. What others set by hand is owned by an update.
///
/// A hold of ours takes the field from them, and so does putting a `false` back: then it counts as declared as long as what is or was
/// before us is that `false`, which `flux resume` never leaves.
fn declares_suspend(live: &Live) -> bool {
    let before = if live.annotation(HELD_BY).is_some() { as_found(live).flatten() } else { live.suspend() };
    if before == Some(false) && owners(live, "suspend").any(|(manager, _)| manager == FIELD_MANAGER) {
        return true;
    }
    owners(live, "suspend").any(|(manager, operation)| {
        manager != FIELD_MANAGER && (operation == "Apply" || manager.starts_with("kustomize-controller"))
    })
}

/// Who owns a field of the spec, and by which operation.
pub(super) fn owners<'l>(live: &'l Live, field: &str) -> impl Iterator<Item = (&'l str, &'l str)> {
    let place = format!("/fieldsV1/f:spec/f:{field}");
    let entries = live.json.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    entries.filter(move |entry| entry.pointer(&place).is_some()).map(|entry| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        (text("manager"), text("operation"))
    })
}

/// What is written on the object that keeps Git from reaching it, or gives it to somebody else.
fn marks(live: &Live) -> Vec<Refusal> {
    let mut found = Vec::new();
    if let Some(mark) = kept_by_others(live) {
        found.push(refusal("frozen", format!("has {mark}, so Git does not reach it")));
    }
    for (label, owner) in [
        ("helm.toolkit.fluxcd.io/name", "a HelmRelease"),
        ("resourceset.fluxcd.controlplane.io/name", "a ResourceSet"),
        ("argocd.argoproj.io/instance", "Argo CD"),
    ] {
        if let Some(name) = live.label(label) {
            let why = format!("is applied by {owner} ({name}), which would undo a suspension");
            found.push(refusal("parent-unsupported", why));
        }
    }
    found
}

/// The value of [`RECONCILE`] that keeps kustomize-controller from applying one live object.
pub(super) const DISABLED: &str = "disabled";

/// What somebody else wrote on the object that keeps kustomize-controller from applying it.
pub(super) fn kept_by_others(live: &Live) -> Option<String> {
    kept_from_git(|key| live.annotation(key), |key| live.label(key))
}

/// Whether kustomize-controller passes the object over. It looks at annotations and labels, in any case of letters.
pub(super) fn is_frozen(live: &Live) -> bool {
    [live.annotation(RECONCILE), live.label(RECONCILE)]
        .into_iter()
        .flatten()
        .any(|value| value.eq_ignore_ascii_case(DISABLED))
}

fn manifests_facts(facts: &mut DeliveryObject, live: &Live) -> Result<(), FluxError> {
    let kustomization: Kustomization = live.typed()?;
    let spec = &kustomization.spec;
    let object = &live.object;
    facts.source = Some(source_object(&spec.source_ref, &object.namespace));
    facts.readiness = readiness(kustomization.status.as_ref().map_or(&[][..], |status| &status.conditions));
    if spec.force == Some(true) {
        facts.refusals.push(refusal(
            "force",
            "has spec.force: true: objects that cannot be patched, claims too, are deleted and made anew",
        ));
    }
    if spec.kube_config.is_some() {
        facts.refusals.push(remote_cluster());
    }
    if spec.source_ref.kind != "GitRepository" {
        let why = format!("takes its files from {} {}, not from Git", spec.source_ref.kind, spec.source_ref.name);
        facts.refusals.push(refusal("oci-source", why));
    }
    if !spec.images.is_empty() {
        facts.warnings.push("has spec.images, which stand above the images in its files".to_owned());
    }
    Ok(())
}

fn remote_cluster() -> Refusal {
    refusal("remote-cluster", "has spec.kubeConfig: what it delivers is in a cluster we do not see")
}

fn release_facts(facts: &mut DeliveryObject, live: &Live) -> Result<(), FluxError> {
    let release: HelmRelease = live.typed()?;
    let spec = &release.spec;
    let object = &live.object;
    let status = release.status.clone().unwrap_or_default();
    facts.role = DeliveryRole::Release;
    facts.readiness = readiness(&status.conditions);
    if spec.kube_config.is_some() {
        facts.refusals.push(remote_cluster());
    }
    if let Some(chart) = spec.chart.as_ref().map(|chart| &chart.spec) {
        facts.source = Some(source_object(&chart.source_ref, &object.namespace));
        if let Some(version) = &chart.version {
            facts.live.push(("chart".to_owned(), version.clone()));
        }
        if chart.source_ref.kind == "Bucket" {
            let why =
                format!("takes its chart from Bucket {}, which cannot be asked to look again", chart.source_ref.name);
            facts.refusals.push(refusal("chart-source-unsupported", why));
        }
        if is_versioned_source(&chart.source_ref.kind) {
            let version = chart.version.as_deref().unwrap_or("none, which is the newest");
            if !chart.version.as_deref().is_some_and(is_exact) {
                facts.refusals.push(refusal(
                    "version-range",
                    format!("asks for chart version {version}: it can move without a commit"),
                ));
            }
        } else {
            facts.warnings.push(format!(
                "its chart comes from a {}: it changes with every commit there, whatever its version",
                chart.source_ref.kind
            ));
        }
    }
    if let Some(chart) = &spec.chart_ref {
        let why = format!("its chart version is in {} {}, not in itself", chart.kind, chart.name);
        facts.refusals.push(refusal("chart-ref", why));
    }
    values_from(facts, &release);
    remediation(facts, &release);
    target_change(facts, &release, live);
    let drift = spec.drift_detection.as_ref().and_then(|drift| drift.get("mode")).and_then(Value::as_str);
    if drift == Some("enabled") && facts.suspend_declared {
        // What lets it go may be the old commit still: drift detection would then start the old version on the data.
        let why = "has drift detection, and Git declares its spec.suspend: a parent that resumes it may start the old version";
        facts.refusals.push(refusal("drift-detection", why));
    }
    if let Some(mode) = drift.filter(|mode| *mode != "disabled") {
        facts.warnings.push(format!("drift detection ({mode}) undoes our changes unless it is suspended"));
    }
    Ok(())
}

/// Whether `spec.chart.spec.version` has a meaning for charts of this source.
pub(super) fn is_versioned_source(kind: &str) -> bool {
    kind == "HelmRepository"
}

/// Values of a reference with a target path may stand above the inline ones, where the pins are; all others stand below.
fn values_from(facts: &mut DeliveryObject, release: &HelmRelease) {
    let inline = release.spec.values.as_ref();
    for reference in &release.spec.values_from {
        let target = reference.target_path.as_deref().unwrap_or_default();
        let source = format!("{} {}", reference.kind, reference.name);
        let overridden = inline.filter(|_| !target.is_empty()).and_then(|inline| overlapping(inline, target));
        match overridden {
            Some(place) => facts.refusals.push(refusal(
                "values-from",
                format!("takes {target} from {source}, which can override spec.values.{place}"),
            )),
            None => facts.warnings.push(format!("also takes values from {source}: a change there is released too")),
        }
    }
}

/// The part of `target` that the inline values have too; a path we cannot read overlaps with everything.
fn overlapping(inline: &Value, target: &str) -> Option<String> {
    if target.contains(['\\', '[', '{']) {
        return Some(target.to_owned());
    }
    let mut at = inline;
    let mut place: Vec<&str> = Vec::new();
    for key in target.split('.') {
        match at {
            Value::Object(fields) => at = fields.get(key)?,
            _ => break,
        }
        place.push(key);
    }
    Some(place.join("."))
}

/// What helm-controller would do by itself after a failure. It restores manifests but no data.
fn remediation(facts: &mut DeliveryObject, release: &HelmRelease) {
    if let Some(upgrade) = release.spec.upgrade.as_ref().filter(|upgrade| remediates(upgrade)) {
        let strategy = upgrade.remediation.as_ref().and_then(|remediation| remediation.strategy.as_deref());
        let (code, what) = match strategy {
            Some("uninstall") => ("remediation-uninstall", "uninstalls"),
            _ => ("remediation-rollback", "rolls back"),
        };
        let why = format!("{what} a failed upgrade by itself, without the data; use strategy RetryOnFailure");
        facts.refusals.push(refusal(code, why));
    }
    let history = release.status.as_ref().map_or(&[][..], |status| &status.history);
    // Install remediation can only strike while no release was ever good; then there is nothing to upgrade either.
    let is_installed = history.iter().any(|release| ["deployed", "superseded"].contains(&release.status.as_str()));
    if !is_installed && release.spec.install.as_ref().is_some_and(remediates) {
        let why = "has no good release, and uninstalls a failed install by itself";
        facts.refusals.push(refusal("remediation-uninstall", why));
    }
}

fn remediates(action: &HelmAction) -> bool {
    let retries_only = action.strategy.as_ref().is_some_and(|strategy| strategy.name == "RetryOnFailure");
    let remediation = action.remediation.as_ref();
    let retries = remediation.and_then(|remediation| remediation.retries).unwrap_or_default();
    let last = remediation.and_then(|remediation| remediation.remediate_last_failure) == Some(true);
    !retries_only && (retries != 0 || last)
}

/// Changes that helm-controller carries out by uninstalling first, claims included.
fn target_change(facts: &mut DeliveryObject, release: &HelmRelease, live: &Live) {
    let object = &live.object;
    let spec = &release.spec;
    let status = release.status.clone().unwrap_or_default();
    let Some(newest) = status.history.first() else { return };
    let reinstalls = live.text("/spec/upgrade/chartNameChangeStrategy") != "InPlaceUpdate";
    let chart =
        spec.chart.as_ref().map(|chart| &chart.spec).filter(|chart| is_versioned_source(&chart.source_ref.kind));
    if let Some(chart) = chart.filter(|_| reinstalls) {
        let name = chart.chart.rsplit('/').next().unwrap_or_default();
        if !newest.chart_name.is_empty() && name != newest.chart_name {
            let why =
                format!("asks for chart {name} but {} is installed: it would be uninstalled first", newest.chart_name);
            facts.refusals.push(refusal("chart-name-change", why));
        }
    }
    let target = spec.target_namespace.as_deref().unwrap_or(&object.namespace);
    let storage = spec.storage_namespace.as_deref().unwrap_or(&object.namespace);
    let moves = (newest.namespace != target).then_some(("target namespace", target));
    let stored = status.storage_namespace.as_deref().unwrap_or(storage);
    let moves = moves.or_else(|| (stored != storage).then_some(("storage namespace", storage)));
    let renamed = spec.release_name.as_deref().filter(|name| *name != newest.name).map(|name| ("release name", name));
    if let Some((what, wanted)) = moves.or(renamed) {
        let why = format!("asks for {what} {wanted}, which is new: its release would be uninstalled first");
        facts.refusals.push(refusal("release-target-change", why));
    }
}

/// What is known about a Git source.
pub(super) fn source_facts(live: &Live) -> Result<SourceFacts, FluxError> {
    let source: GitRepository = live.typed()?;
    let status = source.status.clone().unwrap_or_default();
    Ok(SourceFacts {
        object: live.object.clone(),
        uid: live.uid().to_owned(),
        url: source.spec.url.clone(),
        branch: branch(&source),
        verifies: source.spec.verify.is_some(),
        suspend: source.spec.suspend,
        commit: status.artifact.as_ref().and_then(|artifact| commit(&artifact.revision)),
        readiness: readiness(&status.conditions),
    })
}

/// The branch that a Git source follows; `None` when it follows something else, which stands above the branch.
fn branch(source: &GitRepository) -> Option<String> {
    let Some(reference) = &source.spec.reference else { return Some("master".to_owned()) };
    let is_set = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    if is_set(&reference.commit) {
        return None;
    }
    if let Some(name) = reference.name.as_deref().filter(|name| !name.is_empty()) {
        return name.strip_prefix("refs/heads/").map(ToOwned::to_owned);
    }
    if is_set(&reference.semver) || is_set(&reference.tag) {
        return None;
    }
    Some(reference.branch.clone().filter(|branch| !branch.is_empty()).unwrap_or_else(|| "master".to_owned()))
}

/// What is wrong between an object and its parent: without a parent, or with one that does not apply it, no commit arrives.
pub(super) fn parent_refusals(child: &DeliveryObject, parent: Option<&Kustomization>) -> Vec<Refusal> {
    let object = &child.object;
    let Some(named) = &child.parent else {
        if child.role == DeliveryRole::Release {
            return vec![refusal("not-from-git", "has no labels of a Kustomization: nothing applies it from Git")];
        }
        return Vec::new();
    };
    let Some(parent) = parent else {
        return vec![refusal("not-from-git", format!("has the labels of {named}, which does not exist"))];
    };
    let inventory = parent.status.as_ref().and_then(|status| status.inventory.as_ref());
    let applies = inventory.is_some_and(|inventory| {
        inventory.entries.iter().filter_map(InventoryEntry::object).any(|entry| {
            let ObjectRef { group, kind, namespace, name } = object;
            (entry.group, entry.kind, entry.namespace, entry.name) == (group, kind, namespace, name)
        })
    });
    if applies {
        return Vec::new();
    }
    vec![refusal("not-from-git", format!("has the labels of {named}, which does not list it as its own"))]
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
