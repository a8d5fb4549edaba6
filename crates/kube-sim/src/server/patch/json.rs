//! JSON patch (RFC 6902), with `test`.

use crate::server::error::ApiError;
use serde_json::Value;

/// Applies the operations in order; nothing is changed if one fails.
pub(crate) fn patch(object: &mut Value, body: &[u8]) -> Result<(), ApiError> {
    let operations: json_patch::Patch =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    let mut patched = object.clone();
    for operation in operations.0 {
        if let json_patch::PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && patched.pointer(test.path.as_str()).is_none()
        {
            // A real server takes a missing member for null here; kube's `finalizer` relies on it.
            continue;
        }
        json_patch::patch(&mut patched, &[operation]).map_err(|e| {
            ApiError::unprocessable(format!("the server rejected our request due to an error in our request: {e}"))
        })?;
    }
    *object = patched;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_changes_if_one_operation_fails() {
        let mut object = json!({"a": 1});
        let body = br#"[{"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 7}]"#;
        assert_eq!(patch(&mut object, body).unwrap_err().code(), 422);
        assert_eq!(object, json!({"a": 1}));
        let body = br#"[{"op": "test", "path": "/c", "value": null}, {"op": "add", "path": "/c", "value": 3}]"#;
        patch(&mut object, body).unwrap();
        assert_eq!(object, json!({"a": 1, "c": 3}));
    }
}
