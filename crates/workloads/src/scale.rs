//! Stopping and starting one workload.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use upgrade_core::ports::{ObjectRef, WorkloadKind, WorkloadState};
use windlass_api::call::{CallError, JsonPatch, patch_params};

use crate::Error;
use crate::objects::images;

/// How the workload kinds are addressed; `None` for kinds that nothing is known about.
pub(crate) fn resource(object: &ObjectRef) -> Option<(WorkloadKind, ApiResource)> {
    Some(match (object.group.as_str(), object.kind.as_str()) {
        ("apps", "Deployment") => (WorkloadKind::Deployment, ApiResource::erase::<Deployment>(&())),
        ("apps", "StatefulSet") => (WorkloadKind::StatefulSet, ApiResource::erase::<StatefulSet>(&())),
        ("apps", "ReplicaSet") => (WorkloadKind::ReplicaSet, ApiResource::erase::<ReplicaSet>(&())),
        ("apps", "DaemonSet") => (WorkloadKind::DaemonSet, ApiResource::erase::<DaemonSet>(&())),
        ("batch", "CronJob") => (WorkloadKind::CronJob, ApiResource::erase::<CronJob>(&())),
        ("batch", "Job") => (WorkloadKind::Job, ApiResource::erase::<Job>(&())),
        ("", "Pod") => (WorkloadKind::Pod, ApiResource::erase::<Pod>(&())),
        _ => return None,
    })
}

/// `plural.group`, as roles write it.
pub(crate) fn resource_name(resource: &ApiResource) -> String {
    if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) }
}

/// The workload as the API server returns it, by its own kind.
pub(crate) async fn read(client: &Client, object: &ObjectRef) -> Result<Option<(WorkloadKind, DynamicObject)>, Error> {
    let (kind, resource) = resource(object).ok_or_else(|| Error::CannotStop(object.clone()))?;
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &object.namespace, &resource);
    let found = api.get_opt(&object.name).await;
    let name = resource_name(&resource);
    let found = found.map_err(CallError::on_resource("get", &name, &object.namespace, &object.name))?;
    Ok(found.map(|found| (kind, found)))
}

/// What a workload's scale is.
pub(crate) fn state(kind: WorkloadKind, object: &DynamicObject) -> WorkloadState {
    let replicas = match kind {
        WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::ReplicaSet => {
            let written = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            i32::try_from(written).unwrap_or(i32::MAX)
        }
        _ => 0,
    };
    WorkloadState {
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        replicas,
        suspend: object
            .data
            .pointer("/spec/suspend")
            .and_then(Value::as_bool)
            .filter(|_| kind == WorkloadKind::CronJob),
        images: template(kind, object).as_ref().map(images).unwrap_or_default(),
    }
}

/// The pod spec of a workload's template; of a Pod, its own.
pub(crate) fn template(kind: WorkloadKind, object: &DynamicObject) -> Option<PodSpec> {
    let path = match kind {
        WorkloadKind::Pod => "/spec",
        WorkloadKind::CronJob => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    serde_json::from_value(object.data.pointer(path)?.clone()).ok()
}

/// The workload of that UID.
async fn the_workload(
    client: &Client,
    workload: &ObjectRef,
    uid: &str,
) -> Result<(WorkloadKind, WorkloadState), Error> {
    let (kind, found) = read(client, workload).await?.ok_or_else(|| Error::Gone(workload.clone()))?;
    if !kind.can_stop() {
        return Err(Error::CannotStop(workload.clone()));
    }
    let state = state(kind, &found);
    if state.uid == uid {
        Ok((kind, state))
    } else {
        Err(Error::Replaced { object: workload.to_string(), expected: uid.into(), found: state.uid })
    }
}

/// Scales to 0, or suspends, what was just read: since an answer that took long somebody may have started it again.
pub(crate) async fn stop(client: &Client, workload: &ObjectRef, uid: &str) -> Result<(), Error> {
    let (kind, now) = the_workload(client, workload, uid).await?;
    let patch = JsonPatch::for_uid(uid).at_version(&now.resource_version);
    if kind == WorkloadKind::CronJob {
        if now.suspend == Some(true) {
            return Ok(());
        }
        return patch_object(client, workload, patch.add(["spec", "suspend"], true)).await;
    }
    if now.replicas == 0 {
        return Ok(());
    }
    patch_scale(client, workload, patch.add(["spec", "replicas"], 0)).await
}

/// Puts replicas or `suspend` back, if the object is still the one of `resource_version`.
pub(crate) async fn start(
    client: &Client,
    workload: &ObjectRef,
    uid: &str,
    resource_version: &str,
    replicas: i32,
    suspend: Option<bool>,
) -> Result<(), Error> {
    let (kind, now) = the_workload(client, workload, uid).await?;
    let done = if kind == WorkloadKind::CronJob { now.suspend == suspend } else { now.replicas == replicas };
    if done {
        return Ok(());
    }
    if now.resource_version != resource_version {
        return Err(Error::Changed {
            object: workload.to_string(),
            expected: resource_version.into(),
            found: now.resource_version,
        });
    }
    let patch = JsonPatch::for_uid(uid).at_version(resource_version);
    match (kind, suspend) {
        (WorkloadKind::CronJob, Some(suspend)) => {
            patch_object(client, workload, patch.add(["spec", "suspend"], suspend)).await
        }
        (WorkloadKind::CronJob, None) => patch_object(client, workload, patch.remove(["spec", "suspend"])).await,
        _ => patch_scale(client, workload, patch.add(["spec", "replicas"], replicas)).await,
    }
}

async fn patch_scale(client: &Client, workload: &ObjectRef, patch: JsonPatch) -> Result<(), Error> {
    let (_, resource) = resource(workload).ok_or_else(|| Error::CannotStop(workload.clone()))?;
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &workload.namespace, &resource);
    let done = api.patch_scale(&workload.name, &patch_params(), &patch.build()).await;
    let name = format!("{}/scale", resource_name(&resource));
    done.map_err(CallError::on_resource("patch", &name, &workload.namespace, &workload.name))?;
    Ok(())
}

async fn patch_object(client: &Client, workload: &ObjectRef, patch: JsonPatch) -> Result<(), Error> {
    let (_, resource) = resource(workload).ok_or_else(|| Error::CannotStop(workload.clone()))?;
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &workload.namespace, &resource);
    let done = api.patch(&workload.name, &patch_params(), &patch.build()).await;
    let name = resource_name(&resource);
    done.map_err(CallError::on_resource("patch", &name, &workload.namespace, &workload.name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_replicas_are_one_and_only_cron_jobs_have_suspend() {
        let object = |spec: Value| -> DynamicObject {
            serde_json::from_value(
                json!({ "metadata": { "name": "x", "uid": "u", "resourceVersion": "7" }, "spec": spec }),
            )
            .unwrap()
        };
        let template = json!({ "spec": { "containers": [{ "name": "c", "image": "i:1" }] } });
        let deployment = state(WorkloadKind::Deployment, &object(json!({ "template": template, "suspend": true })));
        assert_eq!((deployment.replicas, deployment.suspend), (1, None));
        assert_eq!(deployment.images, [("c".into(), "i:1".into())]);
        let cron = state(
            WorkloadKind::CronJob,
            &object(json!({ "suspend": false, "jobTemplate": { "spec": { "template": template } } })),
        );
        assert_eq!((cron.replicas, cron.suspend, cron.images.len()), (0, Some(false), 1));
    }
}
