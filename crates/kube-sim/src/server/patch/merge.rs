//! JSON merge patch (RFC 7386).

use crate::server::error::ApiError;
use serde_json::{Map, Value};

/// Merges `body` into the object: members are replaced, null removes.
pub(crate) fn patch(object: &mut Value, body: &[u8]) -> Result<(), ApiError> {
    let patch: Value =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if !patch.is_object() {
        return Err(ApiError::bad_request("error decoding patch: a merge patch must be an object"));
    }
    merge(object, &patch);
    Ok(())
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_removes_and_lists_are_replaced() {
        let mut object = json!({"a": {"x": 1, "y": 2}, "l": [1, 2]});
        patch(&mut object, br#"{"a": {"x": null, "z": {"n": null, "m": 1}}, "l": [3]}"#).unwrap();
        assert_eq!(object, json!({"a": {"y": 2, "z": {"m": 1}}, "l": [3]}));
    }
}
