//! Objects out of YAML documents, and how to reach them on the server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use kube::error::DiscoveryError;
use kube::{Client, ResourceExt};
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// Built-in kinds without a namespace.
pub(super) const CLUSTER_SCOPED: [&str; 17] = [
    "APIService",
    "CSIDriver",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeSnapshotClass",
];

/// Which object, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) group: String,
    pub(super) kind: String,
    /// Empty for objects without one.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectId {
    /// As in the inventories of Flux: `namespace_name_group_kind`.
    pub(super) fn entry(&self) -> String {
        // A colon is not allowed there, but in the names of roles.
        format!("{}_{}_{}_{}", self.namespace, self.name.replace(':', "__"), self.group, self.kind)
    }

    pub(super) fn from_entry(entry: &str) -> Option<Self> {
        let (rest, kind) = entry.rsplit_once('_')?;
        let (rest, group) = rest.rsplit_once('_')?;
        let (namespace, name) = rest.split_once('_')?;
        let [namespace, group, kind] = [namespace, group, kind].map(str::to_owned);
        Some(Self { group, kind, namespace, name: name.replace("__", ":") })
    }
}

impl fmt::Display for ObjectId {
    /// `Kind/namespace/name`, as Flux writes it in messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object as somebody wants it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    pub(super) id: ObjectId,
    pub(super) version: String,
    pub(super) body: Value,
}

impl Manifest {
    /// # Errors
    /// When kind, version or name is missing.
    pub(super) fn new(body: Value) -> Result<Self, String> {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if api_version.is_empty() || kind.is_empty() || name.is_empty() {
            return Err(format!("failed to decode Kubernetes apiVersion, kind and name from: {body}"));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let namespace = text("/metadata/namespace");
        let id = ObjectId { group: group.to_owned(), kind, namespace, name };
        Ok(Self { id, version: version.to_owned(), body })
    }

    pub(super) fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::gvk(&self.id.group, &self.version, &self.id.kind)
    }

    /// A map below `metadata`, made when it is missing.
    pub(super) fn metadata_map(&mut self, field: &str) -> Option<&mut Map<String, Value>> {
        let metadata = self.body.get_mut("metadata")?.as_object_mut()?;
        let map = metadata.entry(field).or_insert(Value::Null);
        if map.is_null() {
            *map = Value::Object(Map::new());
        }
        map.as_object_mut()
    }

    pub(super) fn set_namespace(&mut self, namespace: Option<&str>) {
        self.id.namespace = namespace.unwrap_or_default().to_owned();
        if let Some(metadata) = self.body.get_mut("metadata").and_then(Value::as_object_mut) {
            match namespace {
                Some(namespace) => metadata.insert("namespace".to_owned(), namespace.into()),
                None => metadata.shift_remove("namespace"),
            };
        }
    }
}

/// Reads the objects of a stream of YAML documents; lists are taken apart.
///
/// # Errors
/// A sentence, when a document is not YAML or not an object of the API.
pub(super) fn manifests(yaml: &str) -> Result<Vec<Manifest>, String> {
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let mut value = Value::deserialize(document).map_err(|error| error.to_string())?;
        if value.is_null() {
            continue;
        }
        let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
        match value.get_mut("items") {
            Some(Value::Array(items)) if is_list => {
                for item in std::mem::take(items) {
                    found.push(Manifest::new(item)?);
                }
            }
            _ => found.push(Manifest::new(value)?),
        }
    }
    Ok(found)
}

/// By group, version and kind: the resource, and whether it is namespaced.
type Kinds = BTreeMap<(String, String, String), (ApiResource, bool)>;

/// Objects of any kind on the server. What the server says about kinds is remembered.
pub(super) struct Cluster {
    pub(super) client: Client,
    kinds: Mutex<Kinds>,
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    /// The resource of a kind, and whether it is namespaced; `None` when the server does not know it.
    async fn kind(&self, gvk: &GroupVersionKind) -> kube::Result<Option<(ApiResource, bool)>> {
        let key = (gvk.group.clone(), gvk.version.clone(), gvk.kind.clone());
        if let Some(known) = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(known.clone()));
        }
        match kube::discovery::pinned_kind(&self.client, gvk).await {
            Ok((resource, capabilities)) => {
                let known = (resource, capabilities.scope == Scope::Namespaced);
                self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known.clone());
                Ok(Some(known))
            }
            Err(kube::Error::Discovery(DiscoveryError::MissingKind(_))) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether objects of that kind are in namespaces; `None` when the server does not know it.
    pub(super) async fn is_namespaced(&self, gvk: &GroupVersionKind) -> kube::Result<Option<bool>> {
        Ok(self.kind(gvk).await?.map(|(_, namespaced)| namespaced))
    }

    /// Where objects of that kind and namespace are; `None` when the server does not know the kind.
    pub(super) async fn api(
        &self,
        gvk: &GroupVersionKind,
        namespace: &str,
    ) -> kube::Result<Option<Api<DynamicObject>>> {
        Ok(self.kind(gvk).await?.map(|(resource, namespaced)| match namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        }))
    }

    /// The live object; `None` when it, or its kind, does not exist.
    pub(super) async fn get(&self, id: &ObjectId, version: &str) -> kube::Result<Option<DynamicObject>> {
        let gvk = GroupVersionKind::gvk(&id.group, version, &id.kind);
        match self.api(&gvk, &id.namespace).await? {
            Some(api) => api.get_opt(&id.name).await,
            None => Ok(None),
        }
    }
}

/// Whether a label or annotation of the object has the value, in any case of letters.
pub(super) fn is_marked(object: &DynamicObject, key: &str, value: &str) -> bool {
    [object.labels(), object.annotations()]
        .into_iter()
        .any(|map| map.get(key).is_some_and(|found| found.eq_ignore_ascii_case(value)))
}

/// [`is_marked`] for an object that is not there yet.
pub(super) fn wants_mark(manifest: &Manifest, key: &str, value: &str) -> bool {
    ["labels", "annotations"].into_iter().any(|map| {
        let found = manifest.body.get("metadata").and_then(|metadata| metadata.get(map)?.get(key)?.as_str());
        found.is_some_and(|found| found.eq_ignore_ascii_case(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_inventory_can_be_read_back() {
        for (namespace, name, group, kind) in
            [("apps", "notes", "apps", "Deployment"), ("", "system:view", "rbac.authorization.k8s.io", "ClusterRole")]
        {
            let [namespace, name, group, kind] = [namespace, name, group, kind].map(str::to_owned);
            let id = ObjectId { group, kind, namespace, name };
            assert_eq!(ObjectId::from_entry(&id.entry()), Some(id));
        }
        let id = ObjectId::from_entry("apps_notes_apps_Deployment").unwrap();
        assert_eq!(id.to_string(), "Deployment/apps/notes");
    }

    #[test]
    fn documents_are_read_one_by_one_and_lists_taken_apart() {
        let yaml = "---\n# nothing\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}\n";
        let names: Vec<String> =
            manifests(yaml).unwrap().iter().map(|one| format!("{}/{}", one.id, one.version)).collect();
        assert_eq!(names, ["ConfigMap/a/v1", "Deployment/b/v1"]);
        assert!(manifests("kind: A\n").unwrap_err().contains("apiVersion"));
        assert!(manifests("a: [").is_err());
    }
}
