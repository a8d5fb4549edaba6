//! The reference of the objects as a page, written from their schemas.

use std::fmt::Write as _;

use serde_json::Value;

/// Every field of every object as Markdown: its type, whether it is required, what it means, and the rules of admission.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# The objects\n\nEvery field of every object, as the API server checks them. Lists are written `field[]`, maps \
         `field{}`; fields in bold are required where the object around them is given.\n",
    );
    for crd in crate::crds() {
        // Types that serialise into a cluster's objects serialise into JSON.
        page += &section(&serde_json::to_value(&crd).unwrap_or_default());
    }
    page
}

fn section(crd: &Value) -> String {
    let names = at(crd, "/spec/names");
    let (kind, plural) = (text(at(names, "/kind")), text(at(names, "/plural")));
    let short: Vec<&str> = at(names, "/shortNames").as_array().into_iter().flatten().map(text).collect();
    let mut page = format!("\n## {kind}\n\n`{plural}`, short `{}`.\n", short.join("`, `"));
    for version in at(crd, "/spec/versions").as_array().into_iter().flatten() {
        let schema = at(version, "/schema/openAPIV3Schema");
        for part in ["spec", "status"] {
            let mut fields = Fields::default();
            fields.walk(part, at(schema, &format!("/properties/{part}")), false);
            page += &fields.page(part);
        }
    }
    page
}

/// What one part of an object has.
#[derive(Default)]
struct Fields {
    rows: Vec<String>,
    rules: Vec<String>,
}

impl Fields {
    fn walk(&mut self, path: &str, schema: &Value, required: bool) {
        if path.contains('.') {
            let name = if required { format!("**`{path}`**") } else { format!("`{path}`") };
            self.rows.push(format!("| {name} | {} | {} |", kind(schema), in_a_cell(text(at(schema, "/description")))));
        }
        self.below(path, schema);
    }

    fn below(&mut self, path: &str, schema: &Value) {
        for rule in at(schema, "/x-kubernetes-validations").as_array().into_iter().flatten() {
            self.rules.push(format!("- `{path}`: {}", text(at(rule, "/message"))));
        }
        let required: Vec<&str> = at(schema, "/required").as_array().into_iter().flatten().map(text).collect();
        for (name, field) in at(schema, "/properties").as_object().into_iter().flatten() {
            self.walk(&format!("{path}.{name}"), field, required.contains(&name.as_str()));
        }
        if at(schema, "/items").is_object() {
            self.below(&format!("{path}[]"), at(schema, "/items"));
        }
        if at(schema, "/additionalProperties").is_object() {
            self.below(&format!("{path}{{}}"), at(schema, "/additionalProperties"));
        }
    }

    fn page(&self, part: &str) -> String {
        let mut page = format!("\n### {part}\n\n| Field | Type | Meaning |\n|---|---|---|\n{}\n", self.rows.join("\n"));
        if !self.rules.is_empty() {
            let _ = write!(page, "\nRules:\n\n{}\n", self.rules.join("\n"));
        }
        page
    }
}

/// The type of a field in words, with its bounds.
fn kind(schema: &Value) -> String {
    if let Some(values) = at(schema, "/enum").as_array() {
        return values.iter().map(|value| format!("`{}`", text(value))).collect::<Vec<_>>().join(", ");
    }
    let name = match text(at(schema, "/type")) {
        "array" => format!("list of {}", kind(at(schema, "/items"))),
        "object" if at(schema, "/additionalProperties").is_object() => {
            format!("map to {}", kind(at(schema, "/additionalProperties")))
        }
        "" => "any".to_owned(),
        other => match text(at(schema, "/format")) {
            "" => other.to_owned(),
            format => format!("{other} ({format})"),
        },
    };
    let bounds: Vec<String> = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "length from"),
        ("maxLength", "length to"),
        ("minItems", "items from"),
        ("maxItems", "items to"),
    ]
    .into_iter()
    .filter_map(|(key, words)| schema.get(key).and_then(Value::as_number).map(|bound| format!("{words} {bound}")))
    .collect();
    if bounds.is_empty() { name } else { format!("{name}; {}", bounds.join(", ")) }
}

/// What is there, or nothing.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    static NOTHING: Value = Value::Null;
    value.pointer(pointer).unwrap_or(&NOTHING)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Line breaks and bars would end a cell.
fn in_a_cell(description: &str) -> String {
    description.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_a_schema_names_is_on_the_page_with_its_meaning() {
        let page = reference();
        for (field, words) in [
            ("| **`spec.delivery`** |", "object"),
            (
                "| **`spec.git.pins[].component`** | string; length from 1, length to 128 |",
                "What the scalar is the version of",
            ),
            ("| `spec.git.pins[].part` | `Whole`, `Tag`, `Digest` |", "Which part of a scalar"),
            ("| `status.conditions` |", "list of"),
        ] {
            let row = page.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("no row {field}"));
            assert!(row.contains(words) && row.replace("\\|", "").matches('|').count() == 4, "{row}");
        }
        assert!(page.contains("- `spec.git.pins[].path`: a repository path must be relative"));
    }

    #[test]
    fn no_field_is_without_a_meaning() {
        let silent: Vec<String> = reference()
            .lines()
            .filter(|line| line.starts_with("| ") && line.ends_with("|  |"))
            .map(String::from)
            .collect();
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
