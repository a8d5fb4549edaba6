//! Discovery in the old form (one document per group version) and the aggregated one, and the version.

use super::table::{Registry, ResourceDef};
use serde_json::{Value, json};

/// `/version`.
pub(crate) fn version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0-kube-sim", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64"})
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}]})
}

fn group_names(registry: &Registry) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (group, _) in registry.group_versions() {
        if !group.is_empty() && !names.contains(&group.as_str()) {
            names.push(group);
        }
    }
    names
}

fn versions_of<'a>(registry: &'a Registry, group: &str) -> Vec<&'a str> {
    registry.group_versions().iter().filter(|(g, _)| g == group).map(|(_, v)| v.as_str()).collect()
}

/// One group in the form of `/apis/<group>`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let versions: Vec<Value> = versions_of(registry, name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred}),
    )
}

/// `/apis`.
pub(crate) fn groups(registry: &Registry) -> Value {
    let listed: Vec<Value> = group_names(registry)
        .into_iter()
        .filter_map(|name| group(registry, name))
        .map(|mut group| {
            super::json::remove(&mut group, &["kind"]);
            super::json::remove(&mut group, &["apiVersion"]);
            group
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
}

/// `/api/v1` or `/apis/<group>/<version>`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    if !registry.group_versions().iter().any(|(g, v)| g == group && v == version) {
        return None;
    }
    let mut listed = Vec::new();
    for def in registry.in_group_version(group, version) {
        let mut entry = json!({"name": def.plural, "singularName": def.singular, "namespaced": def.namespaced, "kind": def.kind, "verbs": def.verbs()});
        if !def.short_names.is_empty() {
            super::json::set(&mut entry, &["shortNames"], def.short_names.clone());
        }
        if !def.categories.is_empty() {
            super::json::set(&mut entry, &["categories"], def.categories.clone());
        }
        listed.push(entry);
        for (name, verbs, kind, other) in def.subresources() {
            let mut entry = json!({"name": format!("{}/{name}", def.plural), "singularName": "", "namespaced": def.namespaced, "kind": kind, "verbs": verbs});
            if let Some((group, version)) = other {
                super::json::set(&mut entry, &["group"], group);
                super::json::set(&mut entry, &["version"], version);
            }
            listed.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}))
}

/// The media type of aggregated discovery, if the client accepts it.
pub(crate) fn aggregated_type(accept: &str) -> Option<&'static str> {
    let wants = |version: &str| {
        accept.split(',').any(|part| {
            part.contains("g=apidiscovery.k8s.io")
                && part.contains(&format!("v={version}"))
                && part.contains("as=APIGroupDiscoveryList")
        })
    };
    if wants("v2") {
        Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    } else if wants("v2beta1") {
        Some("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
    } else {
        None
    }
}

/// `/api` (core only) and `/apis` (all others) in the aggregated form.
pub(crate) fn aggregated(registry: &Registry, core: bool, media_type: &str) -> Value {
    let names = if core { vec![""] } else { group_names(registry) };
    let items: Vec<Value> = names
        .into_iter()
        .map(|group| {
            let versions: Vec<Value> = versions_of(registry, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        registry.in_group_version(group, version).map(|def| aggregated_resource(def)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let version = if media_type.contains("v2beta1") { "v2beta1" } else { "v2" };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

fn kind_of(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let mut entry = json!({"resource": def.plural, "responseKind": kind_of(&def.group, &def.version, &def.kind),
        "scope": if def.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": def.singular, "verbs": def.verbs()});
    if !def.short_names.is_empty() {
        super::json::set(&mut entry, &["shortNames"], def.short_names.clone());
    }
    if !def.categories.is_empty() {
        super::json::set(&mut entry, &["categories"], def.categories.clone());
    }
    let subresources: Vec<Value> = def
        .subresources()
        .into_iter()
        .map(|(name, verbs, kind, other)| {
            let (group, version) = other.unwrap_or((&def.group, &def.version));
            json!({"subresource": name, "responseKind": kind_of(group, version, &kind), "verbs": verbs})
        })
        .collect();
    if !subresources.is_empty() {
        super::json::set(&mut entry, &["subresources"], subresources);
    }
    entry
}
