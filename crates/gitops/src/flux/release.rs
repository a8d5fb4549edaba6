//! The newest release in Helm's storage: what helm-controller has made of a HelmRelease, before its status says so.

use serde_json::Value;
use upgrade_core::ports::{ObjectRef, PinValue};
use upgrade_core::version::or_no_version;
use windlass_api::foreign::HelmRelease;
use windlass_helm::{Release, Status, documents, find};
use yaml_pin::Step;

use super::chain::is_versioned_source;
use super::live::Live;
use super::pins::{lookup, shown};
use super::revision::{is_exact, same_version};
use super::template;

/// The longest name a Helm release can have.
const MAX_RELEASE_NAME: usize = 53;

/// Where Helm keeps the releases of a HelmRelease: `(namespace, release name)`. `None` when it cannot be told yet.
pub(super) fn storage(object: &ObjectRef, release: &HelmRelease) -> Option<(String, String)> {
    let status = release.status.clone().unwrap_or_default();
    let spec = &release.spec;
    let namespace = status.storage_namespace.or_else(|| spec.storage_namespace.clone());
    let namespace = namespace.unwrap_or_else(|| object.namespace.clone());
    let composed = || match &spec.target_namespace {
        Some(target) => format!("{target}-{}", object.name),
        None => object.name.clone(),
    };
    let name = match status.history.first() {
        Some(newest) => newest.name.clone(),
        None => spec.release_name.clone().unwrap_or_else(composed),
    };
    // Longer names are shortened with a hash, which the first release will tell us.
    (!name.is_empty() && name.len() <= MAX_RELEASE_NAME).then_some((namespace, name))
}

/// The chart version that is asked for: that of the pins if they name it, else the spec's. `None` when the source of the
/// chart knows no versions, or when it is a range.
pub(super) fn wanted_chart_version(object: &ObjectRef, release: &HelmRelease, pins: &[PinValue]) -> Option<String> {
    let chart = release.spec.chart.as_ref().filter(|chart| is_versioned_source(&chart.spec.source_ref.kind))?;
    let pinned = pins.iter().find(|pin| is_of(pin, object) && pin.pin.field == "spec.chart.spec.version");
    pinned.map(|pin| pin.value.clone()).or_else(|| chart.spec.version.clone().filter(|version| is_exact(version)))
}

fn is_of(pin: &PinValue, object: &ObjectRef) -> bool {
    pin.pin.object == format!("{}/{}", object.kind, object.name)
}

/// Whether the release is the one that the HelmRelease's present spec asks for, and that spec the one the pins ask for.
pub(super) fn is_asked_for(
    stored: &Release,
    live: &Live,
    release: &HelmRelease,
    pins: &[PinValue],
) -> Result<(), String> {
    let what = format!("release {} of {}", stored.revision, live.object);
    // While helm-controller waits for the workloads, the release is pending.
    if !matches!(stored.status, Status::Deployed | Status::PendingUpgrade | Status::PendingInstall) {
        return Err(format!("{what} is {:?}", stored.status));
    }
    for pin in pins.iter().filter(|pin| is_of(pin, &live.object)) {
        let Ok(path) = pin.pin.field.parse::<yaml_pin::Path>() else {
            return Err(format!("the field of pin {} cannot be read: {}", pin.pin.component, pin.pin.field));
        };
        let show =
            |json: &Value, path: &yaml_pin::Path| lookup(json, path).and_then(|value| shown(value, pin.pin.part));
        let asked = show(&live.json, &path);
        if asked.as_ref() != Some(&pin.value) {
            let asked = asked.as_deref().map_or("nothing", or_no_version);
            return Err(format!("{} asks for {asked} as {}, not {}", live.object, pin.pin.component, pin.value));
        }
        let in_values = match path.steps() {
            [Step::Key(spec), Step::Key(values), rest @ ..] if spec == "spec" && values == "values" => {
                yaml_pin::Path::new(rest.to_vec())
            }
            _ => None,
        };
        if let Some(path) = in_values {
            let released = show(&stored.config, &path);
            if released.as_ref() != Some(&pin.value) {
                let released = released.as_deref().map_or("nothing", or_no_version);
                return Err(format!("{what} was made with {released} as {}, not {}", pin.pin.component, pin.value));
            }
        }
    }
    if let Some(wanted) = wanted_chart_version(&live.object, release, pins)
        && !same_version(&stored.chart.version, &wanted)
    {
        return Err(format!("{what} is of chart {}, not {wanted}", stored.chart.version));
    }
    // Inline values are in every release made from this spec; others may stand beside them.
    match release.spec.values.as_ref() {
        Some(values) if !has_values(&stored.config, values) => {
            Err(format!("{what} was not made with its newest values"))
        }
        _ => Ok(()),
    }
}

/// Whether all of `inline` is in the values of a release. Helm merges maps and replaces everything else.
fn has_values(released: &Value, inline: &Value) -> bool {
    match (released, inline) {
        (Value::Object(released), Value::Object(inline)) => inline.iter().all(|(key, value)| match released.get(key) {
            Some(found) => has_values(found, value),
            None => value.is_null(),
        }),
        (Value::Number(released), Value::Number(inline)) => released.as_f64() == inline.as_f64(),
        (released, inline) => released == inline,
    }
}

/// The hooks of the release that run before an upgrade or a rollback, when the app may be stopped.
pub(super) fn hooks_before(stored: &Release) -> Vec<String> {
    let runs_before = |events: &[String]| events.iter().any(|event| event == "pre-upgrade" || event == "pre-rollback");
    let hooks = stored.hooks.iter().filter(|hook| runs_before(&hook.events));
    hooks.map(|hook| format!("{}/{}", hook.kind, hook.name)).collect()
}

/// Whether the live workload has the pod template that the release's manifest has for it.
pub(super) fn has_template(stored: &Release, workload: &Live, pointer: &str) -> Result<(), String> {
    let Some(wanted) = declared(stored, workload, pointer)? else {
        return Err(format!("release {} has no {} with a pod template", stored.revision, workload.object));
    };
    let live = workload.json.pointer(pointer).unwrap_or(&Value::Null);
    template::carries_out(&wanted, live, "spec.template")
}

/// Whether the release's manifest says that the workload is suspended. Helm does not come to own what was as it wants it already.
pub(super) fn suspends(stored: &Release, workload: &Live) -> bool {
    declared(stored, workload, "/spec/suspend").is_ok_and(|suspend| suspend == Some(Value::Bool(true)))
}

/// What the release's manifest says at a place of a workload.
fn declared(stored: &Release, workload: &Live, pointer: &str) -> Result<Option<Value>, String> {
    let ObjectRef { kind, namespace, name, .. } = &workload.object;
    let documents = documents(&stored.manifest);
    let manifest = find(&documents, kind, name, Some(namespace)).map_err(|error| error.to_string())?;
    let is_there = |json: &&Value| {
        let declared = json.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        !declared.is_empty() || stored.namespace == *namespace
    };
    Ok(manifest.filter(is_there).and_then(|manifest| manifest.pointer(pointer)).cloned())
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
