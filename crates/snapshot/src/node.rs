//! Where a volume that waits for its first consumer shall be made.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume};
use kube::ResourceExt;

/// A node on which the old volume could be used: the preferred one if it still can, else the first by name that is ready and
/// takes pods. A copy made elsewhere might be out of the app's reach.
pub(crate) fn pick(nodes: &[Node], old: &PersistentVolume, preferred: Option<&str>) -> Option<String> {
    let mut fitting: Vec<String> =
        nodes.iter().filter(|node| takes_pods(node) && reaches(node, old)).map(ResourceExt::name_any).collect();
    fitting.sort();
    match preferred {
        Some(preferred) if fitting.iter().any(|name| name == preferred) => Some(preferred.to_owned()),
        _ => fitting.into_iter().next(),
    }
}

fn takes_pods(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !cordoned && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn reaches(node: &Node, volume: &PersistentVolume) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return true };
    required.node_selector_terms.iter().any(|term| term_matches(term, node))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |requirement: &NodeSelectorRequirement| node.labels().get(&requirement.key).cloned();
    let field = |requirement: &NodeSelectorRequirement| (requirement.key == "metadata.name").then(|| node.name_any());
    // A term that asks for nothing matches nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, label(requirement).as_deref()))
        && fields.iter().all(|requirement| holds(requirement, field(requirement).as_deref()))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn node(name: &str, zone: &str, ready: &str, cordoned: bool) -> Node {
        from_value(json!({
            "metadata": { "name": name, "labels": { "zone": zone } },
            "spec": { "unschedulable": cordoned },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] }
        }))
        .unwrap()
    }

    fn volume(terms: &Value) -> PersistentVolume {
        from_value(json!({
            "metadata": { "name": "pv" },
            "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": terms } } }
        }))
        .unwrap()
    }

    #[test]
    fn the_copy_is_made_where_the_original_can_be_used() {
        let nodes = [
            node("a", "1", "False", false),
            node("b", "1", "True", true),
            node("d", "2", "True", false),
            node("c", "2", "True", false),
            node("e", "1", "True", false),
        ];
        let zone =
            |values: Value| json!([{ "matchExpressions": [{ "key": "zone", "operator": "In", "values": values }] }]);
        let by_name = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["d"] }] }]);
        for (terms, preferred, expected) in [
            (zone(json!(["2"])), None, Some("c")),
            (zone(json!(["2"])), Some("d"), Some("d")),
            (zone(json!(["2"])), Some("e"), Some("c")),
            (zone(json!(["1"])), Some("b"), Some("e")),
            (zone(json!(["3"])), Some("e"), None),
            (by_name, None, Some("d")),
            (json!([{}]), None, None),
        ] {
            assert_eq!(pick(&nodes, &volume(&terms), preferred).as_deref(), expected, "{terms} {preferred:?}");
        }
        let anywhere = from_value(json!({ "metadata": { "name": "pv" }, "spec": {} })).unwrap();
        assert_eq!(pick(&nodes, &anywhere, None).as_deref(), Some("c"));
    }
}
