//! The RBAC authorizer: reads the roles and bindings that are stored in the server itself.

use super::Identity;
use super::error::ApiError;
use super::json;
use super::state::State;
use serde_json::{Value, json};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Set for requests that are no resource.
    pub(crate) path: String,
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn any(rule: &Value, field: &str, wanted: impl Fn(&str) -> bool) -> bool {
    json::list_at(rule, &[field]).iter().filter_map(Value::as_str).any(wanted)
}

fn allows(rule: &Value, asked: &Attributes) -> bool {
    if !any(rule, "verbs", |v| v == "*" || v == asked.verb) {
        return false;
    }
    if !asked.path.is_empty() {
        return any(rule, "nonResourceURLs", |url| {
            url == asked.path || url.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix))
        });
    }
    let full = if asked.subresource.is_empty() {
        asked.resource.clone()
    } else {
        format!("{}/{}", asked.resource, asked.subresource)
    };
    let names = json::list_at(rule, &["resourceNames"]);
    any(rule, "apiGroups", |g| g == "*" || g == asked.group)
        && any(rule, "resources", |r| {
            r == "*" || r == full || (!asked.subresource.is_empty() && r == format!("*/{}", asked.subresource))
        })
        && (names.is_empty() || names.iter().any(|n| n == &json!(asked.name)))
}

fn binds(subject: &Value, user: &Identity, namespace: &str) -> bool {
    let name = json::str_at(subject, &["name"]);
    match json::str_at(subject, &["kind"]) {
        "User" => name == user.name,
        "Group" => user.groups.iter().any(|g| g == name),
        "ServiceAccount" => {
            let home = match json::str_at(subject, &["namespace"]) {
                "" => namespace,
                given => given,
            };
            user.name == format!("system:serviceaccount:{home}:{name}")
        }
        _ => false,
    }
}

/// The rules that apply to a user, cluster-wide and in one namespace.
pub(crate) fn rules_of(state: &State, user: &Identity, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    if user.groups.iter().any(|g| g == "system:masters") {
        rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        return rules;
    }
    if user.groups.iter().any(|g| g == "system:authenticated") {
        // The roles system:discovery and system:basic-user, which every real cluster has.
        rules.push(json!({"verbs": ["get"], "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}));
        rules.push(json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}));
    }
    let mut collect = |kind: &str, scope: &str, name: &str| {
        let storage = (RBAC.to_owned(), if kind == "ClusterRole" { "clusterroles" } else { "roles" }.to_owned());
        let scope = if kind == "ClusterRole" { "" } else { scope };
        if let Some(role) = state.store.get(&storage, scope, name) {
            rules.extend(json::list_at(role, &["rules"]).iter().cloned());
            rules.extend(aggregated(state, role));
        }
    };
    for (plural, all_namespaces) in [("clusterrolebindings", true), ("rolebindings", false)] {
        for ((home, _), binding) in state.store.all(&(RBAC.to_owned(), plural.to_owned())) {
            if (all_namespaces || home == namespace)
                && json::list_at(binding, &["subjects"]).iter().any(|s| binds(s, user, home))
            {
                collect(json::str_at(binding, &["roleRef", "kind"]), home, json::str_at(binding, &["roleRef", "name"]));
            }
        }
    }
    rules
}

/// Rules of the roles that an aggregating role selects.
fn aggregated(state: &State, role: &Value) -> Vec<Value> {
    let selectors: Vec<_> = json::list_at(role, &["aggregationRule", "clusterRoleSelectors"])
        .iter()
        .filter_map(super::selectors::LabelSelector::from_object)
        .collect();
    if selectors.is_empty() {
        return Vec::new();
    }
    state
        .store
        .all(&(RBAC.to_owned(), "clusterroles".to_owned()))
        .filter(|(_, other)| selectors.iter().any(|s| s.matches(other)))
        .flat_map(|(_, other)| json::list_at(other, &["rules"]).to_vec())
        .collect()
}

/// Whether the user may do it.
pub(crate) fn is_allowed(state: &State, user: &Identity, asked: &Attributes) -> bool {
    state.config.always_allow || rules_of(state, user, &asked.namespace).iter().any(|rule| allows(rule, asked))
}

/// Refuses with 403 and a real server's words.
pub(crate) fn authorize(state: &State, user: &Identity, asked: &Attributes) -> Result<(), ApiError> {
    if is_allowed(state, user, asked) {
        return Ok(());
    }
    let user = &user.name;
    let verb = &asked.verb;
    if !asked.path.is_empty() {
        return Err(ApiError::forbidden_path(format!(
            "forbidden: User \"{user}\" cannot {verb} path \"{}\"",
            asked.path
        )));
    }
    let mut resource = asked.resource.clone();
    if !asked.subresource.is_empty() {
        resource = format!("{resource}/{}", asked.subresource);
    }
    let scope = if asked.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", asked.namespace)
    };
    let qualified =
        if asked.group.is_empty() { asked.resource.clone() } else { format!("{}.{}", asked.resource, asked.group) };
    let subject = if asked.name.is_empty() { qualified } else { format!("{qualified} \"{}\"", asked.name) };
    Err(ApiError::forbidden_path(format!(
        "{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}",
        asked.group
    )))
}

/// Answers `SelfSubjectAccessReview` and its relatives.
pub(crate) fn review(state: &State, user: &Identity, kind: &str, mut object: Value) -> Value {
    match kind {
        "SelfSubjectRulesReview" => {
            let namespace = json::str_at(&object, &["spec", "namespace"]).to_owned();
            let (paths, resources): (Vec<Value>, Vec<Value>) =
                rules_of(state, user, &namespace).into_iter().partition(|r| r.get("nonResourceURLs").is_some());
            json::set(
                &mut object,
                &["status"],
                json!({"incomplete": false, "resourceRules": resources, "nonResourceRules": paths}),
            );
        }
        "TokenReview" => {
            let found = state.tokens.get(json::str_at(&object, &["spec", "token"]));
            let status = match found {
                Some(user) => json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}}),
                None => json!({"authenticated": false, "error": "invalid bearer token"}),
            };
            json::set(&mut object, &["status"], status);
        }
        _ => {
            let subject = if kind.starts_with("Self") {
                user.clone()
            } else {
                let groups = json::list_at(&object, &["spec", "groups"]);
                Identity {
                    name: json::str_at(&object, &["spec", "user"]).to_owned(),
                    groups: groups.iter().filter_map(|g| g.as_str().map(str::to_owned)).collect(),
                }
            };
            let asked = json::at(&object, &["spec", "resourceAttributes"]);
            let text = |field: &str| json::str_at(asked, &[field]).to_owned();
            let attributes = Attributes {
                verb: if asked.is_object() {
                    text("verb")
                } else {
                    json::str_at(&object, &["spec", "nonResourceAttributes", "verb"]).to_owned()
                },
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                path: json::str_at(&object, &["spec", "nonResourceAttributes", "path"]).to_owned(),
            };
            let allowed = is_allowed(state, &subject, &attributes);
            json::set(&mut object, &["status"], json!({"allowed": allowed}));
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(verb: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.to_owned(),
            group: "apps".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
            path: String::new(),
        }
    }

    #[test]
    fn a_rule_covers_only_what_it_names() {
        let rule = json!({"verbs": ["get", "patch"], "apiGroups": ["apps"], "resources": ["deployments", "*/scale"], "resourceNames": ["a"]});
        assert!(allows(&rule, &ask("get", "deployments", "", "a")));
        assert!(allows(&rule, &ask("patch", "statefulsets", "scale", "a")));
        assert!(!allows(&rule, &ask("get", "deployments", "", "b")));
        assert!(!allows(&rule, &ask("list", "deployments", "", "")));
        assert!(!allows(&rule, &ask("get", "deployments", "status", "a")));
        assert!(!allows(&rule, &ask("update", "deployments", "", "a")));
    }
}
