//! JSON patch (RFC 6902), with `test`.

use crate::server::error::ApiError;
use serde_json::Value;

/// Applies the operations in order; nothing is changed if one fails.
pub(crate) fn patch(object: &mut Value, body: &[u8]) -> Result<(), ApiError> {
    let operations: json_patch::Patch =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    json_patch::patch(object, &operations).map_err(|e| {
        ApiError::unprocessable(format!("the server rejected our request due to an error in our request: {e}"))
    })
}
