//! OpenAPI v3, as much as kubectl needs to know that the server validates fields itself: paths, kinds and parameters.
//!
//! Custom resources show their schema; built-in kinds are shown as objects without a schema of their own.

use super::table::{Registry, ResourceDef, Source};
use serde_json::{Map, Value, json};

/// `/openapi/v3`: where the documents of each group version are.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in registry.group_versions() {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn parameter(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn component(def: &ResourceDef) -> String {
    let group =
        if def.group.is_empty() { "core".to_owned() } else { def.group.split('.').rev().collect::<Vec<_>>().join(".") };
    format!("{group}.{}.{}", def.version, def.kind)
}

fn operation(def: &ResourceDef, action: &str, verb: &str) -> Value {
    let mut out = json!({
        "operationId": format!("{verb}{}", component(def).replace('.', "")),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": def.group, "version": def.version, "kind": def.kind},
        "responses": {"200": {"description": "OK", "content": {"application/json":
            {"schema": {"$ref": format!("#/components/schemas/{}", component(def))}}}}},
    });
    if matches!(action, "post" | "put" | "patch") {
        super::json::set(
            &mut out,
            &["parameters"],
            json!([
                parameter("dryRun", "string"),
                parameter("fieldManager", "string"),
                parameter("fieldValidation", "string"),
                parameter("force", "boolean")
            ]),
        );
    }
    out
}

/// `/openapi/v3/apis/<group>/<version>`.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    if !registry.group_versions().iter().any(|(g, v)| g == group && v == version) {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    for def in registry.in_group_version(group, version) {
        let base = if def.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", def.plural)
        } else {
            format!("{root}/{}", def.plural)
        };
        paths.insert(
            base.clone(),
            json!({"get": operation(def, "list", "list"), "post": operation(def, "post", "create")}),
        );
        paths.insert(
            format!("{base}/{{name}}"),
            json!({"get": operation(def, "get", "read"), "put": operation(def, "put", "replace"),
                "patch": operation(def, "patch", "patch"), "delete": operation(def, "delete", "delete")}),
        );
        let mut schema = match &def.source {
            Source::Crd(version) => version.schema.clone(),
            Source::Builtin { .. } => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        super::json::set(
            &mut schema,
            &["x-kubernetes-group-version-kind"],
            json!([{"group": def.group, "version": def.version, "kind": def.kind}]),
        );
        schemas.insert(component(def), schema);
    }
    Some(
        json!({"openapi": "3.0.0", "info": {"title": "kube-sim", "version": "v1.36.0"}, "paths": paths, "components": {"schemas": schemas}}),
    )
}
