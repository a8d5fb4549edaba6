//! The custom resource definitions as the API server will see them, and the examples that are applied to a real one elsewhere.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize as _;
use serde_json::Value;

use crate::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest, crds};

/// Calls `visit` with the dotted path and the schema of every node below `schema`.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{mark}"), &schema[key], visit);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    crds()
        .into_iter()
        .map(|crd| {
            let version = &crd.spec.versions[0];
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            (crd.spec.names.kind.clone(), serde_json::to_value(schema).unwrap())
        })
        .collect()
}

/// The paths of all nodes for which `wrong` is true.
fn offenders(wrong: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, node| {
            if wrong(path, node) {
                found.push(path.to_owned());
            }
        });
    }
    found
}

const NONE: [&str; 0] = [];

#[test]
fn every_field_is_described() {
    let undescribed = offenders(|path, node| {
        let is_field = !path.ends_with(']') && !path.ends_with('}');
        is_field && node["description"].as_str().is_none_or(|text| text.len() < 5 || text.contains("Auto-generated"))
    });
    assert_eq!(undescribed, NONE);
}

#[test]
fn no_integer_is_unsigned() {
    assert_eq!(offenders(|_, node| node["format"].as_str().is_some_and(|format| format.starts_with("uint"))), NONE);
}

#[test]
fn the_schemas_are_structural() {
    let untyped = offenders(|_, node| {
        let preserved = node["x-kubernetes-preserve-unknown-fields"] == true;
        (!preserved && !node["type"].is_string()) || node.get("$ref").is_some() || node.get("anyOf").is_some()
    });
    assert_eq!(untyped, NONE);
}

#[test]
fn nothing_is_nullable_and_nothing_has_a_default() {
    assert_eq!(offenders(|_, node| node["nullable"] == true || node.get("default").is_some()), NONE);
    let with_null = |node: &Value| node["enum"].as_array().is_some_and(|values| values.iter().any(Value::is_null));
    assert_eq!(offenders(|_, node| with_null(node)), NONE);
}

#[test]
fn what_rules_can_reach_is_bounded_so_that_their_cost_is_too() {
    let unbounded = offenders(|path, node| {
        let is_spec = path.split('.').nth(1) == Some("spec") && !path.starts_with("RestorePoint.spec.data");
        let bounded = match node["type"].as_str() {
            Some("string") => {
                node.get("maxLength").is_some() || node.get("enum").is_some() || node["format"] == "date-time"
            }
            Some("array") => node.get("maxItems").is_some(),
            Some("object") => node.get("additionalProperties").is_none() || node.get("maxProperties").is_some(),
            _ => true,
        };
        is_spec && !bounded
    });
    assert_eq!(unbounded, NONE);
}

#[test]
fn every_list_says_how_it_is_merged() {
    let silent = offenders(|path, node| {
        node["type"] == "array"
            && node.get("x-kubernetes-list-type").is_none()
            && !path.starts_with("RestorePoint.spec.data")
    });
    assert_eq!(silent, NONE);
}

#[test]
fn conditions_are_a_map_by_type_in_every_status() {
    for (kind, schema) in schemas() {
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]), "{kind}");
    }
}

#[test]
fn plan_and_journal_are_not_pruned() {
    for (kind, schema) in schemas().iter().filter(|(kind, _)| kind.ends_with("Request")) {
        for field in ["plan", "journal"] {
            let node = &schema["properties"]["status"]["properties"][field];
            assert_eq!(node["x-kubernetes-preserve-unknown-fields"], true, "{kind}.{field}");
        }
    }
}

#[test]
fn names_and_short_names_are_those_of_the_documentation() {
    let names: Vec<_> = crds()
        .iter()
        .map(|crd| {
            assert!(crd.spec.versions[0].subresources.as_ref().unwrap().status.is_some());
            assert_eq!(crd.spec.scope, "Namespaced");
            assert_eq!(crd.spec.names.categories.as_deref(), Some(&["windlass".to_owned()][..]));
            (crd.metadata.name.clone().unwrap(), crd.spec.names.short_names.clone().unwrap().join(","))
        })
        .collect();
    assert_eq!(
        names.iter().map(|(name, short)| (name.as_str(), short.as_str())).collect::<Vec<_>>(),
        [
            ("managedapps.upgrades.windlass.dev", "mapp"),
            ("upgraderequests.upgrades.windlass.dev", "ureq"),
            ("rollbackrequests.upgrades.windlass.dev", "rreq"),
            ("restorepoints.upgrades.windlass.dev", "rp"),
        ]
    );
}

#[test]
fn rules_have_a_cost_that_the_api_server_can_estimate() {
    let optional: Vec<_> = rules().into_iter().map(|(rule, _)| rule).filter(|rule| rule.contains(".?")).collect();
    assert_eq!(optional, NONE, "comparing optional values counts as unbounded, whatever the schema says");
}

#[test]
fn reserved_words_are_escaped_in_rules() {
    let reserved = ["as", "break", "const", "for", "if", "import", "namespace", "package", "return", "var", "void"];
    for rule in rules().iter().map(|(rule, _)| rule) {
        for word in reserved {
            for access in [format!(".{word}"), format!(".?{word}")] {
                let after = rule.split(&access).nth(1).and_then(|rest| rest.chars().next());
                let is_whole = rule.contains(&access) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_');
                assert!(!is_whole, "`{word}` must be written `__{word}__` in {rule}");
            }
        }
    }
}

/// All CEL rules with their messages.
fn rules() -> BTreeSet<(String, String)> {
    let mut rules = BTreeSet::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_else(|| panic!("{path} has a rule without a message"));
                rules.insert((rule["rule"].as_str().unwrap().to_owned(), message.to_owned()));
            }
        });
    }
    rules
}

/// The name, the first line and the documents of each example in a folder.
fn examples(folder: &str) -> Vec<(String, String, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
    let mut examples: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let documents =
                serde_yaml_ng::Deserializer::from_str(&text).map(|one| Value::deserialize(one).unwrap()).collect();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, text.lines().next().unwrap_or_default().to_owned(), documents)
        })
        .collect();
    examples.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!examples.is_empty());
    examples
}

/// Reads a document as the type of its kind and writes it again.
fn through_types(document: &Value) -> Result<Value, serde_json::Error> {
    fn through<T: serde::de::DeserializeOwned + serde::Serialize>(
        document: &Value,
    ) -> Result<Value, serde_json::Error> {
        serde_json::to_value(serde_json::from_value::<T>(document.clone())?)
    }
    match document["kind"].as_str().unwrap() {
        "ManagedApp" => through::<ManagedApp>(document),
        "UpgradeRequest" => through::<UpgradeRequest>(document),
        "RollbackRequest" => through::<RollbackRequest>(document),
        "RestorePoint" => through::<RestorePoint>(document),
        other => panic!("an example has the unknown kind {other}"),
    }
}

#[test]
fn good_examples_survive_a_round_trip_without_losing_a_field() {
    let mut kinds = BTreeSet::new();
    for (name, _, documents) in examples("good") {
        for document in documents {
            let again = through_types(&document).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(again, document, "{name}");
            kinds.insert(document["kind"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(kinds.len(), 4, "there is a good example of each kind");
}

#[test]
fn bad_examples_name_what_they_expect_and_every_rule_has_one() {
    let mut expected = Vec::new();
    for (name, first_line, documents) in examples("bad") {
        let fragment =
            first_line.strip_prefix("# expect: ").unwrap_or_else(|| panic!("{name} does not say what to expect"));
        assert!(!fragment.trim().is_empty() && !documents.is_empty(), "{name}");
        let names: BTreeSet<_> = documents.iter().map(|d| d["metadata"]["name"].to_string()).collect();
        assert_eq!(names.len(), 1, "{name}: several documents are versions of one object");
        for accepted in &documents[..documents.len() - 1] {
            through_types(accepted).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        expected.push(fragment.to_owned());
    }
    let untested: Vec<_> = rules()
        .into_iter()
        .map(|(_, message)| message)
        .filter(|message| !expected.iter().any(|fragment| message.contains(fragment)))
        .collect();
    assert_eq!(untested, NONE);
}
