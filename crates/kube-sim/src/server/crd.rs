//! CustomResourceDefinitions: from the object to entries of the table of kinds.

use super::error::Cause;
use super::json;
use super::table::{ResourceDef, ScalePaths, Source};
use serde_json::{Value, json};
use std::sync::Arc;

/// One served version of a custom resource.
pub(crate) struct CrdVersion {
    pub(crate) schema: Value,
    pub(crate) columns: Vec<Column>,
    pub(crate) has_rules: bool,
    rules: kube_cel::CompiledSchema,
}

/// A column that `kubectl get` prints.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) priority: i64,
    pub(crate) description: String,
}

impl CrdVersion {
    /// Evaluates the CEL rules; rules that name `oldSelf` run only if there is an old object.
    pub(crate) fn check_rules(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Err(errors) = kube_cel::Validator::new().validate_compiled(&self.rules, new, old) else {
            return Vec::new();
        };
        let mut found: Vec<(String, String)> =
            errors.into_vec().into_iter().map(|e| (e.field_path, e.message)).collect();
        // The evaluator walks hash maps.
        found.sort();
        found
            .into_iter()
            .map(|(field, message)| {
                let pointer = field.split('.').try_fold(new, |v, k| v.get(k)).unwrap_or(&Value::Null);
                let shown = if pointer.is_object() { json!("object") } else { pointer.clone() };
                Cause::invalid(field, &shown, message)
            })
            .collect()
    }
}

/// Fills in what a real server fills in.
pub(crate) fn default(crd: &mut Value) {
    let kind = json::str_at(crd, &["spec", "names", "kind"]).to_owned();
    json::set_default(crd, &["spec", "names", "singular"], kind.to_lowercase());
    json::set_default(crd, &["spec", "names", "listKind"], format!("{kind}List"));
    json::set_default(crd, &["spec", "conversion"], json!({"strategy": "None"}));
}

/// Refusals of the definition itself.
pub(crate) fn validate(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = json::at(crd, &["spec"]);
    let (group, plural) = (json::str_at(spec, &["group"]), json::str_at(spec, &["names", "plural"]));
    let name = json::str_at(crd, &["metadata", "name"]);
    if name != format!("{plural}.{group}") {
        causes.push(Cause::invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group"));
    }
    if !matches!(json::str_at(spec, &["scope"]), "Namespaced" | "Cluster") {
        let supported = ["Cluster".to_owned(), "Namespaced".to_owned()];
        causes.push(Cause::not_supported("spec.scope", json::at(spec, &["scope"]), &supported));
    }
    let versions = json::list_at(spec, &["versions"]);
    if versions.iter().filter(|v| json::at(v, &["storage"]) == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &json!(versions.len()),
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = json::at(version, &["schema", "openAPIV3Schema"]);
        if schema.is_null() {
            causes.push(Cause::required(path, "schemas are required"));
            continue;
        }
        if json::str_at(schema, &["type"]) != "object" {
            causes.push(Cause::invalid(
                format!("{path}.type"),
                json::at(schema, &["type"]),
                "must be object at the root",
            ));
        }
        check_rules_compile(&kube_cel::compile_schema(schema), &path, &mut causes);
    }
    causes
}

fn check_rules_compile(schema: &kube_cel::CompiledSchema, path: &str, causes: &mut Vec<Cause>) {
    for error in schema.compilation_errors() {
        causes.push(Cause::invalid(format!("{path}.x-kubernetes-validations"), &json!("rule"), error.to_string()));
    }
    let mut names: Vec<_> = schema.properties.keys().collect();
    names.sort();
    for name in names {
        if let Some(child) = schema.properties.get(name) {
            check_rules_compile(child, &format!("{path}.properties[{name}]"), causes);
        }
    }
    if let Some(items) = &schema.items {
        check_rules_compile(items, &format!("{path}.items"), causes);
    }
    if let Some(additional) = &schema.additional_properties {
        check_rules_compile(additional, &format!("{path}.additionalProperties"), causes);
    }
}

/// The status that the real controllers write a moment after creation.
pub(crate) fn established_status(crd: &Value, now: &str) -> Value {
    let spec = json::at(crd, &["spec"]);
    let stored: Vec<&Value> = json::list_at(spec, &["versions"])
        .iter()
        .filter(|v| json::at(v, &["storage"]) == true)
        .map(|v| json::at(v, &["name"]))
        .collect();
    json!({
        "acceptedNames": json::at(spec, &["names"]),
        "conditions": [
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found", "lastTransitionTime": now},
            {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
             "message": "the initial names have been accepted", "lastTransitionTime": now},
        ],
        "storedVersions": stored,
    })
}

/// The table entries of a definition: one for each served version.
pub(crate) fn resources(crd: &Value) -> Vec<ResourceDef> {
    let spec = json::at(crd, &["spec"]);
    let names = json::at(spec, &["names"]);
    let text = |path: &str| json::str_at(names, &[path]).to_owned();
    let texts = |path: &str| -> Vec<String> {
        json::list_at(names, &[path]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let group = json::str_at(spec, &["group"]).to_owned();
    json::list_at(spec, &["versions"])
        .iter()
        .filter(|v| json::at(v, &["served"]) == true)
        .map(|version| {
            let schema = json::at(version, &["schema", "openAPIV3Schema"]).clone();
            let scale = json::at(version, &["subresources", "scale"]);
            let scale = scale.is_object().then(|| ScalePaths {
                spec: json::str_at(scale, &["specReplicasPath"]).to_owned(),
                status: json::str_at(scale, &["statusReplicasPath"]).to_owned(),
                selector: scale.get("labelSelectorPath").and_then(Value::as_str).map(str::to_owned),
            });
            let columns = json::list_at(version, &["additionalPrinterColumns"])
                .iter()
                .map(|c| Column {
                    name: json::str_at(c, &["name"]).to_owned(),
                    kind: json::str_at(c, &["type"]).to_owned(),
                    path: json::str_at(c, &["jsonPath"]).to_owned(),
                    priority: json::int_at(c, &["priority"]).unwrap_or(0),
                    description: json::str_at(c, &["description"]).to_owned(),
                })
                .collect();
            ResourceDef {
                group: group.clone(),
                version: json::str_at(version, &["name"]).to_owned(),
                kind: text("kind"),
                plural: text("plural"),
                singular: text("singular"),
                short_names: texts("shortNames"),
                categories: texts("categories"),
                namespaced: json::str_at(spec, &["scope"]) == "Namespaced",
                has_status: json::at(version, &["subresources", "status"]).is_object(),
                has_generation: true,
                scale,
                storage: (group.clone(), text("plural")),
                source: Source::Crd(Arc::new(CrdVersion {
                    has_rules: schema.to_string().contains("x-kubernetes-validations"),
                    rules: kube_cel::compile_schema(&schema),
                    schema,
                    columns,
                })),
            }
        })
        .collect()
}
