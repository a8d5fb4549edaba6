//! Structural schemas of custom resources: pruning, defaulting, validation.

use super::error::Cause;
use super::fields::item_element;
use super::json;
use super::shape::{ListKind, Shape};
use serde_json::{Map, Value};

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not name, and reports the paths removed. `root` objects keep their type and metadata.
pub(crate) fn prune(schema: &Value, value: &mut Value, root: bool, path: &str, removed: &mut Vec<String>) {
    let keeps_unknown = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let is_object = root || flag(schema, "x-kubernetes-embedded-resource");
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            let mut gone = Vec::new();
            for (key, child) in map.iter_mut() {
                let child_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if is_object && OBJECT_FIELDS.contains(&key.as_str()) {
                    continue;
                }
                if let Some(found) = properties.and_then(|p| p.get(key)) {
                    prune(found, child, false, &child_path, removed);
                } else if let Some(found) = additional.filter(|a| a.is_object()) {
                    prune(found, child, false, &child_path, removed);
                } else if additional != Some(&Value::Bool(true)) && !keeps_unknown {
                    gone.push(key.clone());
                    removed.push(child_path);
                }
            }
            for key in gone {
                map.shift_remove(&key);
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(item_schema, item, false, &format!("{path}[{index}]"), removed);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of missing fields; a null for a field that may not be null counts as missing.
pub(crate) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (key, child_schema) in properties {
                    if let Some(given) = child_schema.get("default") {
                        let missing = map.get(key).is_none_or(|v| v.is_null() && !flag(child_schema, "nullable"));
                        if missing {
                            map.insert(key.clone(), given.clone());
                        }
                    }
                    if let Some(child) = map.get_mut(key) {
                        default(child_schema, child);
                    }
                }
            }
            if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                let named = schema.get("properties").and_then(Value::as_object);
                for (key, child) in map.iter_mut() {
                    if !named.is_some_and(|p| p.contains_key(key)) {
                        default(additional, child);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(item_schema, item));
            }
        }
        _ => {}
    }
}

/// Nulls of fields that may not be null and have no default are dropped, as a real server does.
pub(crate) fn drop_bad_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            map.retain(|key, v| !v.is_null() || properties.get(key).is_none_or(|s| flag(s, "nullable")));
            for (key, child) in map.iter_mut() {
                if let Some(child_schema) = properties.get(key) {
                    drop_bad_nulls(child_schema, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                items.iter_mut().for_each(|item| drop_bad_nulls(item_schema, item));
            }
        }
        _ => {}
    }
}

fn type_matches(schema: &Value, value: &Value) -> bool {
    if flag(schema, "x-kubernetes-int-or-string") {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.get("type").and_then(Value::as_str) {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Some("number") => value.is_number(),
        Some(_) => true,
    }
}

/// Checks a value against its schema.
pub(crate) fn validate(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    let shown = if path.is_empty() { "<nil>" } else { path };
    if !type_matches(schema, value) {
        let expected =
            if flag(schema, "x-kubernetes-int-or-string") { "integer,string" } else { json::str_at(schema, &["type"]) };
        let seen = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        causes.push(Cause::type_invalid(
            path,
            value,
            format!("{shown} in body must be of type {expected}: \"{seen}\""),
        ));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let listed: Vec<String> =
            allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        causes.push(Cause::not_supported(path, value, &listed));
    }
    match value {
        Value::String(text) => validate_string(schema, value, text, path, causes),
        Value::Number(_) => validate_number(schema, value, path, causes),
        Value::Array(items) => validate_list(schema, value, items, path, causes),
        Value::Object(map) => validate_map(schema, value, map, path, causes),
        _ => {}
    }
    validate_branches(schema, value, path, causes);
}

fn validate_string(schema: &Value, value: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(min) = schema.get("minLength").and_then(Value::as_u64)
        && length < min
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should be at least {min} chars long")));
    }
    if let Some(max) = schema.get("maxLength").and_then(Value::as_u64)
        && length > max
    {
        causes.push(Cause::too_long(path, max));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !regex::Regex::new(pattern).is_ok_and(|r| r.is_match(text))
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
    }
    let format_ok = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("date") => text.parse::<jiff::civil::Date>().is_ok(),
        _ => true,
    };
    if !format_ok {
        let format = json::str_at(schema, &["format"]);
        causes.push(Cause::invalid(path, value, format!("{path} in body must be of type {format}: {value}")));
    }
}

fn validate_number(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else { return };
    if let Some(min) = schema.get("minimum").filter(|m| m.is_number()) {
        let bound = min.as_f64().unwrap_or(f64::NEG_INFINITY);
        let exclusive = flag(schema, "exclusiveMinimum");
        if number < bound || (exclusive && number <= bound) {
            let word = if exclusive { "greater than" } else { "greater than or equal to" };
            causes.push(Cause::invalid(path, value, format!("{path} in body should be {word} {min}")));
        }
    }
    if let Some(max) = schema.get("maximum").filter(|m| m.is_number()) {
        let bound = max.as_f64().unwrap_or(f64::INFINITY);
        let exclusive = flag(schema, "exclusiveMaximum");
        if number > bound || (exclusive && number >= bound) {
            let word = if exclusive { "less than" } else { "less than or equal to" };
            causes.push(Cause::invalid(path, value, format!("{path} in body should be {word} {max}")));
        }
    }
    if let Some(step) = schema.get("multipleOf").and_then(Value::as_f64)
        && step != 0.0
        && (number / step).fract() != 0.0
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should be a multiple of {step}")));
    }
}

fn validate_list(schema: &Value, value: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let count = items.len() as u64;
    if let Some(min) = schema.get("minItems").and_then(Value::as_u64)
        && count < min
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should have at least {min} items")));
    }
    if let Some(max) = schema.get("maxItems").and_then(Value::as_u64)
        && count > max
    {
        causes.push(Cause::too_many(path, count, max));
    }
    if let Some(item_schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            validate(item_schema, item, &format!("{path}[{index}]"), causes);
        }
    }
    let shape = Shape::of_schema(schema);
    let kind = shape.list_kind();
    if kind != ListKind::Atomic {
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(element) = item_element(shape, &kind, item)
                && !seen.insert(element.clone())
            {
                let shown = match &kind {
                    ListKind::Map(_) => serde_json::from_str(element.trim_start_matches("k:")).unwrap_or(Value::Null),
                    _ => item.clone(),
                };
                causes.push(Cause::duplicate(format!("{path}[{index}]"), &shown));
            }
        }
    }
}

fn validate_map(schema: &Value, value: &Value, map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for name in json::list_at(schema, &["required"]).iter().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            causes.push(Cause::required(join(name), ""));
        }
    }
    let count = map.len() as u64;
    if let Some(min) = schema.get("minProperties").and_then(Value::as_u64)
        && count < min
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should have at least {min} properties")));
    }
    if let Some(max) = schema.get("maxProperties").and_then(Value::as_u64)
        && count > max
    {
        causes.push(Cause::too_many(path, count, max));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|a| a.is_object());
    for (key, child) in map {
        if path.is_empty() && OBJECT_FIELDS.contains(&key.as_str()) {
            continue;
        }
        if let Some(found) = properties.and_then(|p| p.get(key)).or(additional) {
            validate(found, child, &join(key), causes);
        }
    }
}

fn validate_branches(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let passes = |branch: &Value| {
        let mut found = Vec::new();
        validate(branch, value, path, &mut found);
        found.is_empty()
    };
    if flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for branch in json::list_at(schema, &["allOf"]) {
        validate(branch, value, path, causes);
    }
    let any_of = json::list_at(schema, &["anyOf"]);
    if !any_of.is_empty() && !any_of.iter().any(passes) {
        causes.push(Cause::invalid(path, value, format!("{path} in body must validate at least one schema (anyOf)")));
    }
    let one_of = json::list_at(schema, &["oneOf"]);
    if !one_of.is_empty() && one_of.iter().filter(|b| passes(b)).count() != 1 {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if let Some(not) = schema.get("not")
        && passes(not)
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body must not validate the schema (not)")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
            "name": {"type": "string", "pattern": "^[a-z]+$"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                      "items": {"type": "object", "properties": {"n": {"type": "integer"}, "p": {"type": "string", "default": "TCP"}}}}
        }}}})
    }

    #[test]
    fn unknown_fields_are_pruned_except_where_preserved() {
        let mut value = json!({"apiVersion": "a/v1", "metadata": {"x": 1}, "spec": {"size": 1, "what": 2, "free": {"any": 1}}, "more": 1});
        let mut removed = Vec::new();
        prune(&schema(), &mut value, true, "", &mut removed);
        assert_eq!(removed, ["spec.what", "more"]);
        assert_eq!(value, json!({"apiVersion": "a/v1", "metadata": {"x": 1}, "spec": {"size": 1, "free": {"any": 1}}}));
    }

    #[test]
    fn defaults_are_filled_in_lists_too() {
        let mut value = json!({"spec": {"size": 1, "ports": [{"n": 1}]}});
        default(&schema(), &mut value);
        assert_eq!(value, json!({"spec": {"size": 1, "ports": [{"n": 1, "p": "TCP"}], "mode": "A"}}));
    }

    #[test]
    fn each_broken_rule_is_reported_at_its_field() {
        let mut causes = Vec::new();
        let value = json!({"spec": {"size": 0, "mode": "C", "name": "N1", "ports": [{"n": 1}, {"n": 1}]}});
        validate(&schema(), &value, "", &mut causes);
        let mut fields: Vec<&str> = causes.iter().map(Cause::field).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["spec.mode", "spec.name", "spec.ports[1]", "spec.size"]);
        causes.clear();
        validate(&schema(), &json!({"spec": {"size": "three"}}), "", &mut causes);
        assert_eq!(causes.len(), 1);
        causes.clear();
        validate(&schema(), &json!({"spec": {}}), "", &mut causes);
        assert_eq!(causes[0].field(), "spec.size");
    }
}
