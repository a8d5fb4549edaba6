//! Bringing a request body into the form of its kind.

use super::error::ApiError;
use super::table::Source;
use super::write::{Call, FieldValidation};
use super::{defaults, json, schema};
use serde_json::Value;

/// Checks that a body is of the kind and in the namespace that the path says.
pub(crate) fn check_identity(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the body of the request was not an object"));
    }
    let def = &call.def;
    json::set_default(object, &["apiVersion"], def.api_version());
    json::set_default(object, &["kind"], def.kind.clone());
    let (api_version, kind) = (json::str_at(object, &["apiVersion"]), json::str_at(object, &["kind"]));
    if kind != def.kind || api_version != def.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) or its kind ({kind}) does not match the expected API version ({}) and kind ({})",
            def.api_version(),
            def.kind
        )));
    }
    let namespace = json::str_at(object, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != call.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if def.namespaced {
        json::set(object, &["metadata", "namespace"], call.namespace.clone());
    } else {
        json::remove(object, &["metadata", "namespace"]);
    }
    Ok(())
}

/// Brings a body into the form of its kind: types checked, unknown fields pruned, defaults filled in.
pub(crate) fn conform(call: &mut Call, mut object: Value) -> Result<Value, ApiError> {
    let mut unknown = Vec::new();
    let def = call.def.clone();
    let mut object = match &def.source {
        Source::Builtin { decode, .. } => {
            let mut decoded = decode(object.clone()).map_err(|e| {
                ApiError::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: {e}",
                    def.kind, def.version, def.kind
                ))
            })?;
            unknown_fields(&object, &decoded, "", &mut unknown);
            json::drop_nulls(&mut decoded);
            drop_empty(&mut decoded, true);
            if def.is("apps", "deployments")
                && let Some(Value::Object(status)) = decoded.get_mut("status")
            {
                status.retain(|_, v| v.as_i64() != Some(0));
            }
            defaults::apply(&def, &mut decoded);
            decoded
        }
        Source::Crd(version) => {
            conform_metadata(&mut object, &mut unknown)?;
            schema::prune(&version.schema, &mut object, true, "", &mut unknown);
            schema::default(&version.schema, &mut object);
            schema::drop_bad_nulls(&version.schema, &mut object);
            object
        }
    };
    json::set(&mut object, &["apiVersion"], def.api_version());
    json::set(&mut object, &["kind"], def.kind.clone());
    match call.field_validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let listed: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            return Err(ApiError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                def.kind,
                def.version,
                def.kind,
                listed.join(", ")
            )));
        }
        FieldValidation::Warn => call.warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\""))),
        _ => {}
    }
    Ok(object)
}

fn conform_metadata(object: &mut Value, unknown: &mut Vec<String>) -> Result<(), ApiError> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    let given = json::at(object, &["metadata"]).clone();
    let typed: ObjectMeta =
        serde_json::from_value(if given.is_null() { Value::Object(serde_json::Map::new()) } else { given.clone() })
            .map_err(|e| ApiError::bad_request(format!("metadata: {e}")))?;
    let mut decoded = serde_json::to_value(typed).map_err(|e| ApiError::internal(e.to_string()))?;
    unknown_fields(&given, &decoded, "metadata", unknown);
    drop_empty(&mut decoded, false);
    json::object_mut(object).insert("metadata".to_owned(), decoded);
    Ok(())
}

fn unknown_fields(given: &Value, decoded: &Value, path: &str, out: &mut Vec<String>) {
    match (given, decoded) {
        (Value::Object(given), Value::Object(decoded)) => {
            for (key, value) in given {
                let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match decoded.get(key) {
                    Some(found) => unknown_fields(value, found, &child, out),
                    None if value.is_null() => {}
                    None => out.push(child),
                }
            }
        }
        (Value::Array(given), Value::Array(decoded)) => {
            for (index, (g, d)) in given.iter().zip(decoded).enumerate() {
                unknown_fields(g, d, &format!("{path}[{index}]"), out);
            }
        }
        _ => {}
    }
}

/// Maps that Go leaves out when they are empty.
const OMITTED_WHEN_EMPTY: &[&str] = &[
    "labels",
    "annotations",
    "data",
    "binaryData",
    "stringData",
    "nodeSelector",
    "matchLabels",
    "limits",
    "requests",
    "parameters",
];

fn drop_empty(value: &mut Value, deep: bool) {
    match value {
        Value::Object(map) => {
            map.retain(|key, v| match v {
                Value::Array(items) => !items.is_empty() || key == "managedFields",
                Value::Object(inner) => !(inner.is_empty() && OMITTED_WHEN_EMPTY.contains(&key.as_str())),
                _ => true,
            });
            if deep {
                map.values_mut().for_each(|v| drop_empty(v, true));
            }
        }
        Value::Array(items) if deep => items.iter_mut().for_each(|v| drop_empty(v, true)),
        _ => {}
    }
}

/// An applied configuration: unknown fields pruned, but no defaults, for it owns only what it names.
pub(crate) fn conform_applied(call: &mut Call, mut applied: Value) -> Result<Value, ApiError> {
    let mut unknown = Vec::new();
    match &call.def.source {
        Source::Builtin { decode, .. } => {
            let decoded = decode(applied.clone())
                .map_err(|e| ApiError::bad_request(format!("failed to create typed patch object: {e}")))?;
            unknown_fields(&applied, &decoded, "", &mut unknown);
        }
        Source::Crd(version) => schema::prune(&version.schema, &mut applied, true, "", &mut unknown),
    }
    if unknown.is_empty() {
        json::drop_nulls(&mut applied);
        return Ok(applied);
    }
    // Unlike other writes, an apply with fields that are not in the schema is refused whatever the validation says.
    let path = unknown.first().cloned().unwrap_or_default();
    Err(ApiError::custom(
        500,
        "",
        format!(
            "failed to create typed patch object ({}{}; {}, Kind={}): .{path}: field not declared in schema",
            if call.def.is_crd() { "/".to_owned() } else { format!("{}/", call.namespace) },
            call.name,
            call.def.api_version(),
            call.def.kind
        ),
    ))
}
