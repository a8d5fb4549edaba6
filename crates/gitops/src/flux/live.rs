//! One object as the API server has it: read whole, because pins may name any field of it.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch};
use kube::core::GroupVersionKind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use upgrade_core::ports::ObjectRef;
use windlass_api::call::{CallError, patch_params};

use super::error::FluxError;

/// Asks a Flux controller to reconcile; its status repeats the value when it has.
pub(super) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// Group of Flux's Kustomization.
pub(super) const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
/// Group of Flux's HelmRelease.
pub(super) const HELM: &str = "helm.toolkit.fluxcd.io";
/// Group of Flux's sources.
pub(super) const SOURCE: &str = "source.toolkit.fluxcd.io";

/// How often a lost race is tried again with what is there then.
const ATTEMPTS: u32 = 5;

/// An object as read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Live {
    pub(super) object: ObjectRef,
    pub(super) json: Value,
}

impl Live {
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    pub(super) fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.json.pointer("/metadata/deletionTimestamp").is_some()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.json.pointer("/metadata/annotations")?.get(key)?.as_str()
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.json.pointer("/metadata/labels")?.get(key)?.as_str()
    }

    /// `spec.suspend` exactly as found.
    pub(super) fn suspend(&self) -> Option<bool> {
        self.json.pointer("/spec/suspend").and_then(Value::as_bool)
    }

    /// The object as a type that knows its fields.
    pub(super) fn typed<K: DeserializeOwned>(&self) -> Result<K, FluxError> {
        serde_json::from_value(self.json.clone())
            .map_err(|error| FluxError::Unreadable { object: self.object.to_string(), why: error.to_string() })
    }

    /// What the labels `<group>/name` and `<group>/namespace` name.
    pub(super) fn labelled(&self, group: &str, kind: &str) -> Option<ObjectRef> {
        let name = self.label(&format!("{group}/name"))?;
        let namespace = self.label(&format!("{group}/namespace"))?;
        Some(ObjectRef::new(group, kind, namespace, name))
    }
}

/// The resources we know without asking the API server.
pub(super) fn known(object: &ObjectRef) -> Result<ApiResource, FluxError> {
    let refuse = |why: String| FluxError::Unsupported { object: object.to_string(), why };
    if object.namespace.is_empty() {
        return Err(refuse("no namespace is named".into()));
    }
    let (version, plural) = match (object.group.as_str(), object.kind.as_str()) {
        (HELM, "HelmRelease") => ("v2", "helmreleases"),
        (KUSTOMIZE, "Kustomization") => ("v1", "kustomizations"),
        (SOURCE, "GitRepository") => ("v1", "gitrepositories"),
        (SOURCE, "OCIRepository") => ("v1", "ocirepositories"),
        (SOURCE, "HelmRepository") => ("v1", "helmrepositories"),
        (SOURCE, "HelmChart") => ("v1", "helmcharts"),
        (SOURCE, "Bucket") => ("v1", "buckets"),
        ("apps", "Deployment") => ("v1", "deployments"),
        ("apps", "StatefulSet") => ("v1", "statefulsets"),
        ("apps", "DaemonSet") => ("v1", "daemonsets"),
        ("apps", "ReplicaSet") => ("v1", "replicasets"),
        ("batch", "CronJob") => ("v1", "cronjobs"),
        ("batch", "Job") => ("v1", "jobs"),
        (group, kind) => return Err(refuse(format!("kind {kind} of group {group:?} is not known"))),
    };
    let kind = GroupVersionKind::gvk(&object.group, version, &object.kind);
    Ok(ApiResource::from_gvk_with_plural(&kind, plural))
}

/// The resource as rights are given for it: `plural.group`.
fn plural(resource: &ApiResource) -> String {
    if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) }
}

/// Reads and patches single objects.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) client: Client,
}

impl Objects {
    fn api(&self, object: &ObjectRef, resource: &ApiResource) -> Api<DynamicObject> {
        if object.namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), &object.namespace, resource)
        }
    }

    async fn get_as(&self, resource: &ApiResource, object: &ObjectRef) -> Result<Option<Live>, FluxError> {
        let found = self.api(object, resource).get_opt(&object.name).await;
        let found = found.map_err(CallError::on_resource("get", &plural(resource), &object.namespace, &object.name))?;
        let Some(found) = found else { return Ok(None) };
        let json = serde_json::to_value(found)
            .map_err(|error| FluxError::Unreadable { object: object.to_string(), why: error.to_string() })?;
        Ok(Some(Live { object: object.clone(), json }))
    }

    /// The object, or `None` when there is none.
    pub(super) async fn find(&self, object: &ObjectRef) -> Result<Option<Live>, FluxError> {
        self.get_as(&known(object)?, object).await
    }

    /// The object.
    pub(super) async fn get(&self, object: &ObjectRef) -> Result<Live, FluxError> {
        self.find(object).await?.ok_or_else(|| FluxError::Gone { object: object.to_string() })
    }

    /// An object of any kind, of this version of its API group; also `None` when the kind is not served.
    pub(super) async fn find_any(&self, object: &ObjectRef, version: &str) -> Result<Option<Live>, FluxError> {
        if let Ok(resource) = known(object) {
            return self.get_as(&resource, object).await;
        }
        let kind = GroupVersionKind::gvk(&object.group, version, &object.kind);
        match kube::discovery::pinned_kind(&self.client, &kind).await {
            Ok((resource, _)) => self.get_as(&resource, object).await,
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(error) => {
                let resource = format!("{}.{}", object.kind, object.group);
                let error = CallError::on_resource("get", &resource, &object.namespace, &object.name)(error);
                if error.is_not_found() { Ok(None) } else { Err(error.into()) }
            }
        }
    }

    async fn patch(&self, object: &ObjectRef, patch: &Value) -> Result<(), Refused> {
        let resource = known(object).map_err(Refused::Error)?;
        let api = self.api(object, &resource);
        let written = api.patch(&object.name, &patch_params(), &Patch::Merge(patch)).await;
        match written.map_err(CallError::on_resource("patch", &plural(&resource), &object.namespace, &object.name)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(Refused::Conflict),
            Err(error) if error.is_not_found() => Err(Refused::Gone),
            Err(error) => Err(Refused::Error(error.into())),
        }
    }

    /// Writes without looking: for content that is right whatever the object is by now.
    pub(super) async fn merge(&self, object: &ObjectRef, patch: &Value) -> Result<(), FluxError> {
        self.patch(object, patch).await.map_err(|refused| match refused {
            Refused::Conflict => FluxError::ChangedMeanwhile { object: object.to_string(), attempts: 1 },
            Refused::Gone => FluxError::Gone { object: object.to_string() },
            Refused::Error(error) => error,
        })
    }

    /// Reads the object, lets `decide` make a merge patch of it, and writes that if the object is still as it was read.
    ///
    /// A lost race is decided again on what is there then, a bounded number of times. `None` from `decide` writes nothing.
    pub(super) async fn edit(
        &self,
        object: &ObjectRef,
        uid: &str,
        decide: impl Fn(&Live) -> Result<Option<Value>, FluxError> + Send + Sync,
    ) -> Result<(), FluxError> {
        let replaced =
            |found: String| FluxError::Replaced { object: object.to_string(), expected: uid.to_owned(), found };
        for _ in 0..ATTEMPTS {
            let live = self.find(object).await?.ok_or_else(|| replaced("it does not exist".into()))?;
            if live.uid() != uid {
                return Err(replaced(format!("its UID is {}", live.uid())));
            }
            let Some(mut patch) = decide(&live)? else { return Ok(()) };
            // The version makes the write fail when anything changed since, also when it became another object.
            if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("uid".into(), uid.into());
                metadata.insert("resourceVersion".into(), live.resource_version().into());
            }
            match self.patch(object, &patch).await {
                Ok(()) => return Ok(()),
                Err(Refused::Conflict) => {}
                Err(Refused::Gone) => return Err(replaced("it was deleted meanwhile".into())),
                Err(Refused::Error(error)) => return Err(error),
            }
        }
        Err(FluxError::ChangedMeanwhile { object: object.to_string(), attempts: ATTEMPTS })
    }
}

/// Why a patch was not taken.
enum Refused {
    /// The object is not as it was read.
    Conflict,
    Gone,
    Error(FluxError),
}
