//! Writing: always at the version that was read, so that nothing is decided on what has changed meanwhile.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::objects::{Kind, Name, Object, uid};
use super::{Trouble, Volumes};

impl Volumes {
    pub(super) fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let (client, resource) = (self.context.client.clone(), kind.resource());
        if namespace.is_empty() {
            Api::all_with(client, &resource)
        } else {
            Api::namespaced_with(client, namespace, &resource)
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.context.clock)()
    }

    /// The present time as objects have it, in whole seconds.
    pub(super) fn now_text(&self) -> String {
        seconds(self.now())
    }

    /// Merges `patch` into the object, if it still is as it was read.
    pub(super) async fn patch(
        &self,
        manager: &str,
        kind: Kind,
        object: &Object,
        mut patch: Value,
    ) -> Result<Object, Trouble> {
        at_version(&mut patch, object);
        let api = self.api(kind, &object.namespace().unwrap_or_default());
        let done = api.patch(&object.name_any(), &params(manager), &Patch::Merge(patch)).await?;
        Ok(self.learn(kind, done))
    }

    /// Merges `status` into the object's status, if it still is as it was read. A field with null is removed.
    pub(super) async fn patch_status(
        &self,
        manager: &str,
        kind: Kind,
        object: &Object,
        status: Value,
    ) -> Result<Object, Trouble> {
        let mut patch = json!({ "status": status });
        at_version(&mut patch, object);
        let api = self.api(kind, &object.namespace().unwrap_or_default());
        let done = api.patch_status(&object.name_any(), &params(manager), &Patch::Merge(patch)).await?;
        Ok(self.learn(kind, done))
    }

    fn learn(&self, kind: Kind, object: DynamicObject) -> Object {
        let object = Arc::new(object);
        self.world().learn(kind, &object);
        object
    }

    /// Makes the object have the finalizers, or not.
    pub(super) async fn finalizers(
        &self,
        manager: &str,
        kind: Kind,
        object: &Object,
        change: &[(&str, bool)],
    ) -> Result<Object, Trouble> {
        let mut finalizers = object.finalizers().to_vec();
        for (finalizer, wanted) in change {
            if !wanted {
                finalizers.retain(|found| found != finalizer);
            } else if !finalizers.iter().any(|found| found == finalizer) {
                finalizers.push((*finalizer).to_owned());
            }
        }
        if finalizers == object.finalizers() {
            return Ok(Arc::clone(object));
        }
        self.patch(manager, kind, object, json!({ "metadata": { "finalizers": finalizers } })).await
    }

    /// Creates an object; one of that name that is there already is as good.
    pub(super) async fn create(&self, manager: &str, kind: Kind, object: Value) -> Result<(), Trouble> {
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| Trouble::Told(error.to_string()))?;
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        match self.api(kind, &object.namespace().unwrap_or_default()).create(&params, &object).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// Deletes this very object.
    pub(super) async fn delete(&self, kind: Kind, object: &Object) -> Result<(), Trouble> {
        let this = Preconditions { uid: object.metadata.uid.clone(), ..Preconditions::default() };
        let api = self.api(kind, &object.namespace().unwrap_or_default());
        match api.delete(&object.name_any(), &DeleteParams::default().preconditions(this)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// Reads an object from the server itself, where the watches may lag behind.
    pub(super) async fn read(&self, kind: Kind, (namespace, name): &Name) -> Result<Option<Object>, Trouble> {
        Ok(self.api(kind, namespace).get_opt(name).await?.map(Arc::new))
    }

    /// Reads all objects of a namespace from the server itself.
    pub(super) async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<DynamicObject>, Trouble> {
        Ok(self.api(kind, namespace).list(&ListParams::default()).await?.items)
    }

    /// Posts an event about the object, unless the same was posted before. Nothing depends on it, so that a refusal is not an
    /// error.
    pub(super) async fn event(
        &self,
        component: &str,
        (kind, object): (Kind, &DynamicObject),
        sort: &str,
        reason: &str,
        message: &str,
    ) {
        let digest = Sha256::digest(format!("{}/{reason}/{message}", uid(object)));
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        if !self.posted.lock().unwrap_or_else(PoisonError::into_inner).insert(hash.clone()) {
            return;
        }
        let about = kind.resource();
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        let now = self.now_text();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": format!("{}.{hash}", object.name_any()), "namespace": namespace },
            "involvedObject": {
                "apiVersion": about.api_version, "kind": about.kind, "namespace": object.namespace(),
                "name": object.name_any(), "uid": uid(object),
            },
            "type": sort, "reason": reason, "message": message, "source": { "component": component },
            "reportingComponent": component, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        });
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Event"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), &namespace, &resource);
        let posted = match serde_json::from_value(event) {
            Ok(event) => api.create(&PostParams::default(), &event).await.map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = posted {
            tracing::debug!(reason, message, error, "event");
        }
    }
}

/// A time as objects have it, in whole seconds.
pub(super) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn params(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

fn at_version(patch: &mut Value, object: &DynamicObject) {
    let version = object.metadata.resource_version.clone();
    crate::server::json::set(patch, &["metadata", "resourceVersion"], version);
}
