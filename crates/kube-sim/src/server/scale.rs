//! The scale subresource.

use super::error::{ApiError, Cause};
use super::state::State;
use super::table::{ResourceDef, ScalePaths};
use super::write::{Call, Change, persist};
use super::{json, managed, patch};
use serde_json::{Value, json};

fn path(dotted: &str) -> Vec<&str> {
    dotted.trim_start_matches('.').split('.').collect()
}

fn selector_text(object: &Value, paths: &ScalePaths) -> String {
    if let Some(selector) = &paths.selector {
        return json::str_at(object, &path(selector)).to_owned();
    }
    let selector = json::at(object, &["spec", "selector"]);
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| value.as_str().map(|v| format!("{key}={v}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

fn paths(def: &ResourceDef) -> Result<&ScalePaths, ApiError> {
    def.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

/// The `Scale` of an object.
pub(crate) fn read(state: &State, call: &Call) -> Result<Value, ApiError> {
    let paths = paths(&call.def)?;
    let object = state
        .fetch(&call.def, &call.namespace, &call.name)
        .ok_or_else(|| ApiError::not_found(&call.def, &call.name))?;
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {},
        "status": {"replicas": json::int_at(&object, &path(&paths.status)).unwrap_or(0)}});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        json::copy_at(&object, &mut scale, &["metadata", field]);
    }
    if let Some(replicas) = json::int_at(&object, &path(&paths.spec)).filter(|r| *r != 0) {
        json::set(&mut scale, &["spec", "replicas"], replicas);
    }
    let selector = selector_text(&object, paths);
    if !selector.is_empty() {
        json::set(&mut scale, &["status", "selector"], selector);
    }
    Ok(scale)
}

/// Changes the number of replicas. Whoever owned that field before, owns it no longer.
pub(crate) fn write(state: &mut State, call: &mut Call, change: Change<'_>) -> Result<Value, ApiError> {
    let def = call.def.clone();
    let mut scale = read(state, call)?;
    match change {
        Change::Replace(sent) => scale = sent,
        Change::Json(body) => patch::json::patch(&mut scale, body)?,
        Change::Merge(body) => patch::merge::patch(&mut scale, body)?,
        Change::Strategic(body) => patch::strategic::patch(&mut scale, super::shape::Shape::Any, body)?,
        Change::Apply(sent) => patch::merge::patch(&mut scale, sent.to_string().as_bytes())?,
    }
    let mut object =
        state.fetch(&def, &call.namespace, &call.name).ok_or_else(|| ApiError::not_found(&def, &call.name))?;
    let sent = json::str_at(&scale, &["metadata", "resourceVersion"]);
    if !sent.is_empty() && sent != json::str_at(&object, &["metadata", "resourceVersion"]) {
        return Err(ApiError::modified(&def, &call.name));
    }
    let wanted = json::at(&scale, &["spec", "replicas"]);
    let replicas = if wanted.is_null() { Some(0) } else { wanted.as_i64() };
    let Some(replicas) = replicas.filter(|r| *r >= 0) else {
        let cause = Cause::invalid("spec.replicas", wanted, "must be greater than or equal to 0");
        return Err(ApiError::invalid("Scale", "autoscaling", &call.name, &[cause]));
    };
    let target = path(&paths(&def)?.spec);
    let changes = json::int_at(&object, &target) != Some(replicas);
    // Writing zero over zero changes owners, too: a `Scale` of zero has no field that anybody could own.
    if changes || replicas == 0 {
        let old = object.clone();
        if changes {
            json::set(&mut object, &target, replicas);
            let generation = json::int_at(&object, &["metadata", "generation"]).unwrap_or(0) + 1;
            json::set(&mut object, &["metadata", "generation"], generation);
        }
        let owned: Vec<String> = target.iter().map(|p| format!("f:{p}")).collect();
        let owned: Vec<&str> = owned.iter().map(String::as_str).collect();
        managed::track_scale(&def, &mut object, &owned, &call.manager, replicas);
        if !call.dry_run && !managed::same_but_times(&old, &object) {
            persist(state, &def, object);
        }
    }
    if call.dry_run {
        if replicas == 0 {
            json::remove(&mut scale, &["spec", "replicas"]);
        } else {
            json::set(&mut scale, &["spec", "replicas"], replicas);
        }
        return Ok(scale);
    }
    read(state, call)
}
