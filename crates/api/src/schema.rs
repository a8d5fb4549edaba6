//! Schema fragments that the derive macros cannot make by themselves.

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// The schema of a [`jiff::Timestamp`] field, for `#[schemars(with = "...")]`.
pub(crate) struct DateTime;

impl JsonSchema for DateTime {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DateTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Any JSON: the engine writes it and refuses versions it does not know, so the API server must not prune it.
pub(crate) fn any(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// An object of another API, kept whole.
pub(crate) fn whole_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A transition rule: none of these fields of the object changes, appears or disappears.
///
/// The shorter `self.?field == oldSelf.?field` is refused by the API server, which cannot estimate what it costs.
pub(crate) fn unchanged(required: &[&str], optional: &[&str]) -> String {
    let required = required.iter().map(|field| format!("self.{field} == oldSelf.{field}"));
    let optional = optional.iter().map(|field| {
        format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
    });
    required.chain(optional).collect::<Vec<_>>().join(" && ")
}

/// A map from component to version.
pub(crate) fn components(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 256 },
        "x-kubernetes-validations": [{
            "rule": "self.all(name, size(name) >= 1 && size(name) <= 128)",
            "message": "component names must have 1 to 128 characters"
        }]
    })
}

/// The standard list of conditions, merged by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status last changed from one value to another."
                },
                "message": { "type": "string", "maxLength": 32768, "description": "Details for people; may be empty." },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation this condition was set for."
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why the condition has this status: one CamelCase word for programs."
                },
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "True, False or Unknown."
                },
                "type": {
                    "type": "string", "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                    "description": "The name of the condition, in CamelCase."
                }
            }
        }
    })
}

/// Optional fields become absent-or-valid instead of absent-or-null-or-valid.
pub(crate) fn without_nullable(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(props) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            strip(props);
        }
    }
    crd
}

fn strip(props: &mut JSONSchemaProps) {
    props.nullable = None;
    if let Some(values) = &mut props.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for child in props.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        strip(child);
    }
    match &mut props.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => strip(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(strip),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut props.additional_properties {
        strip(values);
    }
}
