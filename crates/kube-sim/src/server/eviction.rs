//! Subresources of pods and service accounts that are actions: eviction, binding, token.

use super::delete::{self, DeleteOptions};
use super::error::ApiError;
use super::selectors::LabelSelector;
use super::state::State;
use super::write::{Call, persist};
use super::{Identity, json};
use serde_json::{Value, json};

/// Deletes a pod unless a PodDisruptionBudget forbids it. The budget is computed from the pods of the moment, so that no
/// disruption controller needs to run.
pub(crate) fn evict(state: &mut State, call: &Call, body: &Value) -> Result<Value, ApiError> {
    let pod = state
        .fetch(&call.def, &call.namespace, &call.name)
        .ok_or_else(|| ApiError::not_found(&call.def, &call.name))?;
    let options = DeleteOptions::from_body(json::at(body, &["deleteOptions"]));
    let counts = !matches!(json::str_at(&pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending");
    if counts {
        let budgets = ("policy".to_owned(), "poddisruptionbudgets".to_owned());
        let matching: Vec<_> = state
            .store
            .all(&budgets)
            .filter(|((namespace, _), budget)| *namespace == call.namespace && selects(budget, &pod))
            .map(|((_, name), budget)| (name.clone(), budget.clone()))
            .collect();
        match matching.as_slice() {
            [] => {}
            [(name, budget)] => check_budget(state, call, name, budget)?,
            _ => {
                return Err(ApiError::internal(
                    "this pod has more than one PodDisruptionBudget, which the eviction subresource does not support",
                ));
            }
        }
    }
    delete::delete(state, call, &options)?;
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

fn selects(budget: &Value, pod: &Value) -> bool {
    LabelSelector::from_object(json::at(budget, &["spec", "selector"])).is_some_and(|s| s.matches(pod))
}

fn is_healthy(pod: &Value) -> bool {
    json::at(pod, &["metadata", "deletionTimestamp"]).is_null()
        && json::list_at(pod, &["status", "conditions"])
            .iter()
            .any(|c| json::str_at(c, &["type"]) == "Ready" && json::str_at(c, &["status"]) == "True")
}

/// A number or a percentage of `total`, rounded up.
fn resolve(amount: &Value, total: i64) -> Option<i64> {
    match amount {
        Value::Number(n) => n.as_i64(),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            Some((percent * total + 99) / 100)
        }
        _ => None,
    }
}

fn check_budget(state: &State, call: &Call, name: &str, budget: &Value) -> Result<(), ApiError> {
    let pods: Vec<_> = state
        .store
        .all(&call.def.storage)
        .filter(|((namespace, _), pod)| {
            *namespace == call.namespace
                && selects(budget, pod)
                && !matches!(json::str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
        })
        .map(|(_, pod)| pod)
        .collect();
    let total = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let healthy = i64::try_from(pods.iter().filter(|p| is_healthy(p)).count()).unwrap_or(i64::MAX);
    let needed = match resolve(json::at(budget, &["spec", "minAvailable"]), total) {
        Some(minimum) => minimum,
        None => total - resolve(json::at(budget, &["spec", "maxUnavailable"]), total).unwrap_or(0),
    };
    if healthy > needed {
        return Ok(());
    }
    Err(ApiError::disruption_budget(
        format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"),
        name,
    ))
}

/// Puts a pod on a node.
pub(crate) fn bind(state: &mut State, call: &Call, body: &Value) -> Result<Value, ApiError> {
    let def = call.def.clone();
    let mut pod =
        state.fetch(&def, &call.namespace, &call.name).ok_or_else(|| ApiError::not_found(&def, &call.name))?;
    let node = json::str_at(&pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(ApiError::conflict(
            &def,
            &call.name,
            format!("pod {} is already assigned to node \"{node}\"", call.name),
        ));
    }
    json::set(&mut pod, &["spec", "nodeName"], json::at(body, &["target", "name"]).clone());
    let mut conditions: Vec<Value> = json::list_at(&pod, &["status", "conditions"])
        .iter()
        .filter(|c| json::str_at(c, &["type"]) != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": state.now_text()}));
    json::set(&mut pod, &["status", "conditions"], conditions);
    if !call.dry_run {
        persist(state, &def, pod);
    }
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

/// Issues a bearer token for a service account; it is valid as long as the server runs.
pub(crate) fn issue_token(state: &mut State, call: &Call, mut body: Value) -> Result<Value, ApiError> {
    if state.fetch(&call.def, &call.namespace, &call.name).is_none() {
        return Err(ApiError::not_found(&call.def, &call.name));
    }
    let token = format!("sim.{}", state.seeded.uid());
    state.tokens.insert(token.clone(), Identity::service_account(&call.namespace, &call.name));
    let seconds = json::int_at(&body, &["spec", "expirationSeconds"]).unwrap_or(3600);
    let until = state.now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
    json::set(
        &mut body,
        &["status"],
        json!({"token": token, "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}),
    );
    Ok(body)
}
