//! Label and field selectors.

use super::error::ApiError;
use super::json;
use super::table::ResourceDef;
use serde_json::Value;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Equals(String),
    NotEquals(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    NotExists,
    Greater(i64),
    Less(i64),
}

/// A label selector; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LabelSelector(Vec<(String, Op)>);

impl FromStr for LabelSelector {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let bad = |why: &str| ApiError::bad_request(format!("unable to parse requirement: {why} in {text:?}"));
        let mut out = Vec::new();
        for part in split_top_level(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            if let Some(key) = part.strip_prefix('!') {
                out.push((key.trim().to_owned(), Op::NotExists));
            } else if let Some((head, list)) = part.strip_suffix(')').and_then(|p| p.split_once('(')) {
                let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
                let mut words = head.split_whitespace();
                let op = match (words.next(), words.next(), words.next()) {
                    (Some(key), Some("in"), None) => (key.to_owned(), Op::In(values)),
                    (Some(key), Some("notin"), None) => (key.to_owned(), Op::NotIn(values)),
                    _ => return Err(bad("expected 'in' or 'notin'")),
                };
                out.push(op);
            } else if let Some((key, value)) = part.split_once("!=") {
                out.push((key.trim().to_owned(), Op::NotEquals(value.trim().to_owned())));
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                out.push((key.trim().to_owned(), Op::Equals(value.trim().to_owned())));
            } else if let Some((key, value)) = part.split_once('>') {
                let bound = value.trim().parse().map_err(|_| bad("not a number"))?;
                out.push((key.trim().to_owned(), Op::Greater(bound)));
            } else if let Some((key, value)) = part.split_once('<') {
                let bound = value.trim().parse().map_err(|_| bad("not a number"))?;
                out.push((key.trim().to_owned(), Op::Less(bound)));
            } else if part.contains(char::is_whitespace) {
                return Err(bad("unexpected words"));
            } else {
                out.push((part.to_owned(), Op::Exists));
            }
        }
        if out.iter().any(|(key, _)| key.is_empty()) {
            return Err(bad("empty key"));
        }
        Ok(Self(out))
    }
}

fn split_top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    out.extend(text.get(start..));
    out
}

impl LabelSelector {
    /// From the form `{matchLabels, matchExpressions}` used inside objects; null selects nothing (`None`).
    pub(crate) fn from_object(selector: &Value) -> Option<Self> {
        selector.as_object()?;
        let mut out = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                out.push((key.clone(), Op::Equals(value.as_str().unwrap_or_default().to_owned())));
            }
        }
        for expression in json::list_at(selector, &["matchExpressions"]) {
            let key = json::str_at(expression, &["key"]).to_owned();
            let values =
                json::list_at(expression, &["values"]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            out.push((
                key,
                match json::str_at(expression, &["operator"]) {
                    "In" => Op::In(values),
                    "NotIn" => Op::NotIn(values),
                    "Exists" => Op::Exists,
                    "DoesNotExist" => Op::NotExists,
                    _ => return None,
                },
            ));
        }
        Some(Self(out))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = json::at(object, &["metadata", "labels"]);
        self.0.iter().all(|(key, op)| {
            let value = labels.get(key).and_then(Value::as_str);
            match op {
                Op::Equals(wanted) => value == Some(wanted),
                Op::NotEquals(unwanted) => value != Some(unwanted),
                Op::In(wanted) => value.is_some_and(|v| wanted.iter().any(|w| w == v)),
                Op::NotIn(unwanted) => value.is_none_or(|v| unwanted.iter().all(|w| w != v)),
                Op::Exists => value.is_some(),
                Op::NotExists => value.is_none(),
                Op::Greater(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
                Op::Less(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
            }
        })
    }
}

/// A field selector: `path=value` and `path!=value`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FieldSelector(Vec<(String, bool, String)>);

/// Fields that may be selected besides name and namespace, as on a real server.
fn supported(def: &ResourceDef) -> &'static [&'static str] {
    match (def.group.as_str(), def.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("batch", "jobs") => &["status.successful"],
        ("apps", "replicasets") | ("", "replicationcontrollers") => &["status.replicas"],
        _ => &[],
    }
}

impl FieldSelector {
    pub(crate) fn parse(def: &ResourceDef, text: &str) -> Result<Self, ApiError> {
        let mut out = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (path, negated, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, true, value)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, false, value)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector: {part:?}; can't understand '{part}'"
                )));
            };
            let path = path.trim();
            let known = path == "metadata.name"
                || (path == "metadata.namespace" && def.namespaced)
                || supported(def).contains(&path);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {path}")));
            }
            out.push((path.to_owned(), negated, value.trim().to_owned()));
        }
        Ok(Self(out))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, negated, wanted)| {
            let path: Vec<&str> = match path.as_str() {
                "source" => vec!["source", "component"],
                "status.successful" => vec!["status", "succeeded"],
                path => path.split('.').collect(),
            };
            let seen = match json::at(object, &path) {
                Value::String(text) => text.clone(),
                Value::Null if matches!(path.as_slice(), ["spec", "unschedulable" | "hostNetwork"]) => {
                    "false".to_owned()
                }
                Value::Null if matches!(path.as_slice(), ["status", "replicas" | "succeeded"]) => "0".to_owned(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (seen == *wanted) != *negated
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_label_requirement_is_understood() {
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "web", "n": "5"}}});
        for (text, wanted) in [
            ("app=a", true),
            ("app==a,tier!=db", true),
            ("app=b", false),
            ("app in (a, b)", true),
            ("app notin (a,b)", false),
            ("none notin (x)", true),
            ("tier", true),
            ("!tier", false),
            ("!none", true),
            ("none!=x", true),
            ("none=x", false),
            ("n>4", true),
            ("n<5", false),
            ("", true),
            ("app in (a),tier in (web,db)", true),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().matches(&object), wanted, "{text}");
        }
        assert!("app in".parse::<LabelSelector>().is_err());
        assert!("app within (a)".parse::<LabelSelector>().is_err());
    }

    #[test]
    fn a_null_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(LabelSelector::from_object(&Value::Null).is_none());
        assert!(LabelSelector::from_object(&json!({})).unwrap().matches(&json!({})));
    }
}
