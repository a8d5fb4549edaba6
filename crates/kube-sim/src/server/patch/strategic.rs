//! Strategic merge patch: lists of built-in kinds are merged by their merge key.
//!
//! Directives: `$patch: delete | replace`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use crate::server::error::ApiError;
use crate::server::shape::Shape;
use serde_json::{Map, Value};

/// Merges `body` into an object of the given shape.
pub(crate) fn patch(object: &mut Value, shape: Shape<'_>, body: &[u8]) -> Result<(), ApiError> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    let (Value::Object(target), Value::Object(patch)) = (object, &patch) else {
        return Err(ApiError::bad_request("error decoding patch: a strategic merge patch must be an object"));
    };
    merge_map(target, patch, shape)
}

fn merge_map(target: &mut Map<String, Value>, patch: &Map<String, Value>, shape: Shape<'_>) -> Result<(), ApiError> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = patch.clone();
            target.retain(|key, _| !key.starts_with('$'));
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(ApiError::bad_request(format!("unknown patch type found: {other}"))),
    }
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| keep.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(Value::Array(items)) = target.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        let child = shape.field(key);
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(members) => match target.get_mut(key) {
                Some(Value::Object(existing)) => merge_map(existing, members, child)?,
                _ => {
                    let mut fresh = Map::new();
                    merge_map(&mut fresh, members, child)?;
                    target.insert(key.clone(), Value::Object(fresh));
                }
            },
            Value::Array(items) => {
                let order = patch.get(&format!("$setElementOrder/{key}")).and_then(Value::as_array);
                let existing = match target.get(key) {
                    Some(Value::Array(existing)) => existing.clone(),
                    _ => Vec::new(),
                };
                let merged = merge_list(existing, items, child, order)?;
                target.insert(key.clone(), Value::Array(merged));
            }
            plain => {
                target.insert(key.clone(), plain.clone());
            }
        }
    }
    for (key, value) in patch {
        let Some(field) = key.strip_prefix("$setElementOrder/") else { continue };
        if patch.contains_key(field) {
            continue;
        }
        if let (Some(Value::Array(items)), Some(order)) = (target.get_mut(field), value.as_array()) {
            let server = items.clone();
            reorder(items, order, shape.field(field).patch_merge_key().as_deref(), &server);
        }
    }
    Ok(())
}

fn merge_list(
    mut existing: Vec<Value>,
    patch: &[Value],
    shape: Shape<'_>,
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, ApiError> {
    let server = existing.clone();
    if shape.merges_values() {
        for item in patch {
            if !existing.contains(item) {
                existing.push(item.clone());
            }
        }
        reorder(&mut existing, order.map_or(patch, Vec::as_slice), None, &server);
        return Ok(existing);
    }
    let Some(merge_key) = shape.patch_merge_key() else { return Ok(patch.to_vec()) };
    let merge_key = merge_key.as_str();
    if patch.iter().any(|p| p.get("$patch").and_then(Value::as_str) == Some("replace")) {
        return Ok(patch.iter().filter(|p| p.get("$patch").is_none()).cloned().collect());
    }
    for item in patch {
        let Value::Object(members) = item else {
            return Err(ApiError::bad_request("list item of a strategic merge patch is not an object"));
        };
        let Some(key) = members.get(merge_key) else {
            return Err(ApiError::bad_request(format!("map: {item} does not contain declared merge key: {merge_key}")));
        };
        let position = existing.iter().position(|e| e.get(merge_key) == Some(key));
        if members.get("$patch").and_then(Value::as_str) == Some("delete") {
            existing.retain(|e| e.get(merge_key) != Some(key));
            continue;
        }
        match position.and_then(|at| existing.get_mut(at)) {
            Some(Value::Object(found)) => merge_map(found, members, shape.item())?,
            _ => {
                let mut fresh = Map::new();
                merge_map(&mut fresh, members, shape.item())?;
                existing.push(Value::Object(fresh));
            }
        }
    }
    reorder(&mut existing, order.map_or(patch, Vec::as_slice), Some(merge_key), &server);
    Ok(existing)
}

/// Puts the items that the patch names in its order. The others are inserted before the first named item that stood behind
/// them on the server.
fn reorder(items: &mut Vec<Value>, order: &[Value], merge_key: Option<&str>, server: &[Value]) {
    let same = |a: &Value, b: &Value| match merge_key {
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    };
    let place = |item: &Value| server.iter().position(|s| same(s, item));
    let (mut named, others): (Vec<Value>, Vec<Value>) = items.drain(..).partition(|i| order.iter().any(|o| same(o, i)));
    named.sort_by_key(|item| order.iter().position(|o| same(o, item)));
    let mut from = 0;
    for item in others {
        let mine = place(&item);
        let at = named
            .iter()
            .skip(from)
            .position(|n| place(n) > mine && mine.is_some())
            .map_or(named.len(), |found| from + found);
        named.insert(at, item);
        from = at + 1;
    }
    *items = named;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::shape;
    use serde_json::json;

    fn deployment() -> Value {
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": {
            "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}],
            "tolerations": [{"key": "t"}]}}}})
    }

    fn patched(patch_body: &Value) -> Value {
        let mut object = deployment();
        patch(&mut object, Shape::of_type(shape::type_def("Deployment")), patch_body.to_string().as_bytes()).unwrap();
        object
    }

    #[test]
    fn containers_and_env_are_merged_by_name_and_tolerations_replaced() {
        let got = patched(&json!({"spec": {"template": {"spec": {
            "containers": [{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}], "tolerations": [{"key": "u"}]}}}}));
        let spec = &got["spec"]["template"]["spec"];
        assert_eq!(spec["containers"][0]["image"], "a:2");
        assert_eq!(spec["containers"][0]["env"], json!([{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]));
        assert_eq!(spec["containers"][1]["image"], "b:1");
        assert_eq!(spec["tolerations"], json!([{"key": "u"}]));
    }

    #[test]
    fn directives_delete_replace_retain_and_order() {
        let got =
            patched(&json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "c:1"}, {"name": "a", "$patch": "delete"}]}}}}));
        assert_eq!(got["spec"]["strategy"], json!({"type": "Recreate"}));
        let names: Vec<&str> = got["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["c", "b"]);
    }

    #[test]
    fn an_item_without_its_merge_key_is_refused() {
        let mut object = deployment();
        let body = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}).to_string();
        let error = patch(&mut object, Shape::of_type(shape::type_def("Deployment")), body.as_bytes()).unwrap_err();
        assert_eq!(error.code(), 400);
    }
}
