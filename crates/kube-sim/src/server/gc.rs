//! What goes on in the background: owner garbage collection, ends of namespaces and of custom resources.
//!
//! A real cluster has controllers for this. Here one sweep does it, a moment after a change that may call for it.

use super::Identity;
use super::delete::{self, DeleteOptions};
use super::error::ApiError;
use super::json;
use super::state::{State, present};
use super::table::{ResourceDef, StorageKey};
use super::write::{Call, FieldValidation, persist};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object in the owner graph.
struct Node {
    storage: StorageKey,
    namespace: String,
    name: String,
    object: Arc<Value>,
}

/// Runs until there is nothing left to do. Returns whether anything was done.
pub(crate) fn sweep(state: &mut State) -> bool {
    let mut any = false;
    // Each round deletes or unblocks something, so this ends; the bound only guards against hooks that refuse for ever.
    for _ in 0..1000 {
        let did = collect_round(state) | end_namespaces(state) | end_custom_resources(state);
        if !did {
            break;
        }
        any = true;
    }
    any
}

fn call(state: &State, storage: &StorageKey, namespace: &str, name: &str, user: &str) -> Option<Call> {
    let def = state.registry.find_resource(&storage.0, &storage.1)?;
    Some(Call {
        def,
        user: Identity::user(user).in_group("system:masters"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: String::new(),
        dry_run: false,
        force: false,
        manager: "kube-controller-manager".to_owned(),
        field_validation: FieldValidation::Ignore,
        warnings: Vec::new(),
    })
}

fn remove(state: &mut State, node: &Node, propagation: &str) -> bool {
    let Some(call) = call(
        state,
        &node.storage,
        &node.namespace,
        &node.name,
        "system:serviceaccount:kube-system:generic-garbage-collector",
    ) else {
        return false;
    };
    let options = DeleteOptions {
        propagation: Some(propagation.to_owned()),
        uid: Some(json::str_at(&node.object, &["metadata", "uid"]).to_owned()),
        ..DeleteOptions::default()
    };
    let before = state.store.revision();
    let result: Result<Value, ApiError> = delete::delete(state, &call, &options);
    result.is_ok() && state.store.revision() > before
}

fn rewrite(state: &mut State, node: &Node, change: impl FnOnce(&mut Value)) -> bool {
    let Some(def) = state.registry.find_resource(&node.storage.0, &node.storage.1) else { return false };
    let Some(current) = state.store.get(&node.storage, &node.namespace, &node.name).cloned() else { return false };
    let mut object = present(&def, &current);
    change(&mut object);
    persist(state, &def, object);
    true
}

fn drop_finalizer(object: &mut Value, finalizer: &str) {
    let kept: Vec<Value> =
        json::list_at(object, &["metadata", "finalizers"]).iter().filter(|f| *f != finalizer).cloned().collect();
    if kept.is_empty() {
        json::remove(object, &["metadata", "finalizers"]);
    } else {
        json::set(object, &["metadata", "finalizers"], kept);
    }
}

fn drop_owners(object: &mut Value, gone: &BTreeSet<String>) {
    let kept: Vec<Value> = json::list_at(object, &["metadata", "ownerReferences"])
        .iter()
        .filter(|o| !gone.contains(json::str_at(o, &["uid"])))
        .cloned()
        .collect();
    if kept.is_empty() {
        json::remove(object, &["metadata", "ownerReferences"]);
    } else {
        json::set(object, &["metadata", "ownerReferences"], kept);
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    json::list_at(object, &["metadata", "finalizers"]).iter().any(|f| f == finalizer)
}

fn is_deleting(object: &Value) -> bool {
    !json::at(object, &["metadata", "deletionTimestamp"]).is_null()
}

fn owners(object: &Value) -> &[Value] {
    json::list_at(object, &["metadata", "ownerReferences"])
}

fn collect_round(state: &mut State) -> bool {
    let mut by_uid: BTreeMap<String, Node> = BTreeMap::new();
    for storage in state.store.storages() {
        for ((namespace, name), object) in state.store.all(storage) {
            let node = Node {
                storage: storage.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                object: object.clone(),
            };
            by_uid.insert(json::str_at(object, &["metadata", "uid"]).to_owned(), node);
        }
    }
    let mut dependents: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in by_uid.values() {
        for owner in owners(&node.object) {
            dependents.entry(json::str_at(owner, &["uid"])).or_default().push(node);
        }
    }
    let mut did = false;
    for (uid, node) in &by_uid {
        let below = dependents.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
        if is_deleting(&node.object) && has_finalizer(&node.object, "orphan") {
            let gone = BTreeSet::from([uid.clone()]);
            for dependent in below {
                did |= rewrite(state, dependent, |object| drop_owners(object, &gone));
            }
            did |= rewrite(state, node, |object| drop_finalizer(object, "orphan"));
        }
        if is_deleting(&node.object) && has_finalizer(&node.object, "foregroundDeletion") {
            let blocked = below.iter().any(|dependent| {
                owners(&dependent.object)
                    .iter()
                    .any(|o| json::str_at(o, &["uid"]) == uid && json::at(o, &["blockOwnerDeletion"]) == true)
            });
            if !blocked {
                did |= rewrite(state, node, |object| drop_finalizer(object, "foregroundDeletion"));
            }
        }
        did |= collect_dependent(state, &by_uid, node, !below.is_empty());
    }
    did
}

/// Deletes a node whose owners are all gone or wait for it.
fn collect_dependent(state: &mut State, by_uid: &BTreeMap<String, Node>, node: &Node, has_dependents: bool) -> bool {
    let references = owners(&node.object);
    if references.is_empty() || is_deleting(&node.object) {
        return false;
    }
    let (mut solid, mut waiting, mut dangling) = (0, 0, BTreeSet::new());
    for reference in references {
        let uid = json::str_at(reference, &["uid"]);
        let group = json::str_at(reference, &["apiVersion"]).split_once('/').map_or("", |(g, _)| g);
        let Some(owner_def) = state.registry.find_kind(group, json::str_at(reference, &["kind"])) else {
            // A kind that is not served cannot be judged: keep the object.
            return false;
        };
        let owner = by_uid.get(uid).filter(|o| !owner_def.namespaced || o.namespace == node.namespace);
        match owner {
            None => {
                dangling.insert(uid.to_owned());
            }
            Some(owner) if is_deleting(&owner.object) && has_finalizer(&owner.object, "foregroundDeletion") => {
                waiting += 1;
            }
            Some(_) => solid += 1,
        }
    }
    if solid > 0 {
        return !dangling.is_empty() && rewrite(state, node, |object| drop_owners(object, &dangling));
    }
    if waiting > 0 && has_dependents {
        return remove(state, node, "Foreground");
    }
    remove(state, node, "Background")
}

fn namespaced_defs(state: &State) -> Vec<Arc<ResourceDef>> {
    let mut seen = BTreeSet::new();
    state
        .registry
        .all()
        .filter(|d| d.namespaced && !d.is_virtual() && seen.insert(d.storage.clone()))
        .cloned()
        .collect()
}

fn end_namespaces(state: &mut State) -> bool {
    let ending: Vec<String> = state
        .store
        .all(&(String::new(), "namespaces".to_owned()))
        .filter(|(_, object)| is_deleting(object))
        .map(|((_, name), _)| name.clone())
        .collect();
    let mut did = false;
    for namespace in ending {
        let mut left = 0;
        for def in namespaced_defs(state) {
            let names: Vec<String> = state
                .store
                .all(&def.storage)
                .filter(|((ns, _), _)| *ns == namespace)
                .map(|((_, name), _)| name.clone())
                .collect();
            for name in names {
                let Some(call) = call(
                    state,
                    &def.storage,
                    &namespace,
                    &name,
                    "system:serviceaccount:kube-system:namespace-controller",
                ) else {
                    continue;
                };
                let already = state.fetch(&def, &namespace, &name).is_some_and(|o| is_deleting(&o));
                if !already {
                    let options =
                        DeleteOptions { propagation: Some("Background".to_owned()), ..DeleteOptions::default() };
                    did |= delete::delete(state, &call, &options).is_ok();
                }
                left += usize::from(state.store.get(&def.storage, &namespace, &name).is_some());
            }
        }
        if left == 0
            && let Some(def) = state.registry.find("", "v1", "namespaces")
            && let Some(mut object) = state.fetch(&def, "", &namespace)
            && !json::list_at(&object, &["spec", "finalizers"]).is_empty()
        {
            json::set(&mut object, &["spec", "finalizers"], json!([]));
            persist(state, &def, object);
            did = true;
        }
    }
    did
}

/// A definition that is being deleted takes its objects with it.
fn end_custom_resources(state: &mut State) -> bool {
    const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
    let definitions = ("apiextensions.k8s.io".to_owned(), "customresourcedefinitions".to_owned());
    let ending: Vec<Arc<Value>> = state
        .store
        .all(&definitions)
        .filter(|(_, object)| is_deleting(object) && has_finalizer(object, CLEANUP))
        .map(|(_, object)| object.clone())
        .collect();
    let mut did = false;
    for definition in ending {
        let storage = (
            json::str_at(&definition, &["spec", "group"]).to_owned(),
            json::str_at(&definition, &["spec", "names", "plural"]).to_owned(),
        );
        let keys: Vec<(String, String)> = state.store.all(&storage).map(|(key, _)| key.clone()).collect();
        for (namespace, name) in &keys {
            let Some(call) = call(state, &storage, namespace, name, "system:apiserver") else { continue };
            let already = state.store.get(&storage, namespace, name).is_some_and(|o| is_deleting(o));
            did |= !already && delete::delete(state, &call, &DeleteOptions::default()).is_ok();
        }
        if state.store.all(&storage).next().is_none() {
            let name = json::str_at(&definition, &["metadata", "name"]).to_owned();
            let node = Node { storage: definitions.clone(), namespace: String::new(), name, object: definition };
            did |= rewrite(state, &node, |object| drop_finalizer(object, CLEANUP));
        }
    }
    did
}
