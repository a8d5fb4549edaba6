//! The port, on a cluster.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_trait::async_trait;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::core::{DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use upgrade_core::Failure;
use upgrade_core::ports::{AppRef, Holder, ObjectRef, PodFact, WorkloadFacts, WorkloadState, Workloads};
use windlass_api::call::CallError;
use windlass_api::foreign::{HelmRelease, Inventory, InventoryEntry, Kustomization};

use crate::find::{self, Everything, Own};
use crate::objects::ended;
use crate::pods::{self, Middle};
use crate::{Error, holders, scale};

/// Workloads of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct KubeWorkloads {
    client: Client,
}

/// All objects of a kind in a namespace.
pub(crate) async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let found = Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    Ok(found.map_err(CallError::on::<K>("list", namespace, ""))?.items)
}

/// What is between the pods of a namespace and their workloads.
pub(crate) async fn middle(client: &Client, namespace: &str) -> Result<Middle, Error> {
    Ok(Middle { replica_sets: list(client, namespace).await?, jobs: list(client, namespace).await? })
}

impl KubeWorkloads {
    /// Works with the rights of `client`; nothing is cached.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// What the delivery objects say they deliver, and the namespaces to look in.
    async fn own(&self, app: &AppRef, objects: &[ObjectRef]) -> Result<(Own, BTreeSet<String>), Error> {
        let mut own = Own { objects: objects.to_vec(), inventory: BTreeSet::new() };
        let mut namespaces = BTreeSet::from([app.namespace.clone()]);
        for object in objects {
            let (target, inventory) = match (object.group.as_str(), object.kind.as_str()) {
                ("helm.toolkit.fluxcd.io", "HelmRelease") => {
                    let release: HelmRelease = self.delivery(object).await?;
                    // Without a target, Helm installs next to the object.
                    let target = release.spec.target_namespace.unwrap_or_else(|| object.namespace.clone());
                    (Some(target), release.status.and_then(|status| status.inventory))
                }
                ("kustomize.toolkit.fluxcd.io", "Kustomization") => {
                    let applied: Kustomization = self.delivery(object).await?;
                    (applied.spec.target_namespace, applied.status.and_then(|status| status.inventory))
                }
                _ => return Err(Error::NotADelivery(object.clone())),
            };
            namespaces.extend(target);
            own.inventory.extend(inventory.iter().flat_map(delivered));
        }
        let of_workloads = own.inventory.iter().filter(|object| scale::resource(object).is_some());
        namespaces.extend(of_workloads.map(|object| object.namespace.clone()));
        Ok((own, namespaces))
    }

    async fn delivery<K>(&self, object: &ObjectRef) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let found = Api::<K>::namespaced(self.client.clone(), &object.namespace).get_opt(&object.name).await;
        let found = found.map_err(CallError::on::<K>("get", &object.namespace, &object.name))?;
        found.ok_or_else(|| Error::Gone(object.clone()))
    }

    async fn everything(&self, namespace: &str) -> Result<Everything, Error> {
        let client = &self.client;
        Ok(Everything {
            namespace: namespace.into(),
            deployments: list(client, namespace).await?,
            stateful_sets: list(client, namespace).await?,
            daemon_sets: list(client, namespace).await?,
            replica_sets: list(client, namespace).await?,
            cron_jobs: list(client, namespace).await?,
            jobs: list(client, namespace).await?,
            pods: list(client, namespace).await?,
            claims: self.claims(namespace).await?.iter().map(ResourceExt::name_any).collect(),
            autoscalers: list(client, namespace).await?,
            scaled_objects: self.scaled_objects(namespace).await?,
        })
    }

    async fn claims(&self, namespace: &str) -> Result<Vec<PartialObjectMeta<PersistentVolumeClaim>>, Error> {
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        let claims = claims.list_metadata(&ListParams::default()).await;
        Ok(claims.map_err(CallError::on::<PersistentVolumeClaim>("list", namespace, ""))?.items)
    }

    async fn claims_of(&self, app: &AppRef, own: &[ObjectRef]) -> Result<Vec<String>, Error> {
        let (own, _) = self.own(app, own).await?;
        let claims = self.claims(&app.namespace).await?;
        Ok(find::delivered_claims(&app.namespace, claims.iter().map(|claim| &claim.metadata), &own))
    }

    /// KEDA's objects; none when KEDA is not installed.
    async fn scaled_objects(&self, namespace: &str) -> Result<Vec<DynamicObject>, Error> {
        let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
        let resource = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let found = api.list(&ListParams::default()).await;
        match found.map_err(CallError::on_resource("list", "scaledobjects.keda.sh", namespace, "")) {
            Ok(found) => Ok(found.items),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn found(&self, app: &AppRef, own: &[ObjectRef], claims: &[String]) -> Result<Vec<WorkloadFacts>, Error> {
        let (own, namespaces) = self.own(app, own).await?;
        let mut all = Vec::new();
        for namespace in &namespaces {
            all.extend(find::find(&self.everything(namespace).await?, &own, claims));
        }
        Ok(all)
    }

    async fn held(&self, namespace: &str, claims: &[String]) -> Result<Vec<Holder>, Error> {
        let all = ListParams::default();
        let mut held = holders::pods(&list::<Pod>(&self.client, namespace).await?, claims);
        let nodes = Api::<Node>::all(self.client.clone()).list(&all).await;
        let nodes = nodes.map_err(CallError::on::<Node>("list", "", ""))?.items;
        let attachments = Api::<VolumeAttachment>::all(self.client.clone()).list(&all).await;
        let attachments = attachments.map_err(CallError::on::<VolumeAttachment>("list", "", ""))?.items;
        let existing = list::<PersistentVolumeClaim>(&self.client, namespace).await?;
        for claim in existing.iter().filter(|claim| claims.contains(&claim.name_any())) {
            let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) else { continue };
            let found = Api::<PersistentVolume>::all(self.client.clone()).get_opt(volume).await;
            let found = found.map_err(CallError::on::<PersistentVolume>("get", "", volume))?;
            held.extend(found.iter().flat_map(|found| holders::nodes(&nodes, &claim.name_any(), found)));
            held.extend(holders::attachments(&attachments, &claim.name_any(), volume));
        }
        Ok(held)
    }

    async fn remove(&self, pod: &ObjectRef, uid: &str) -> Result<(), Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let found = api.get_opt(&pod.name).await;
        let found = found.map_err(CallError::on::<Pod>("get", &pod.namespace, &pod.name))?;
        // A pod of the same name with another UID is another pod: the one that was meant is gone.
        let Some(found) = found.filter(|found| found.uid().as_deref() == Some(uid)) else { return Ok(()) };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if !ended(&found) {
            self.belongs_to_nobody_who_wants_it(pod, &found).await?;
        }
        let this = Preconditions { uid: Some(uid.into()), ..Preconditions::default() };
        let done = api.delete(&pod.name, &DeleteParams::default().preconditions(this)).await;
        match done.map_err(CallError::on::<Pod>("delete", &pod.namespace, &pod.name)) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Refuses unless the pod's workload is one that is scaled to 0.
    async fn belongs_to_nobody_who_wants_it(&self, pod: &ObjectRef, found: &Pod) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::PodInUse { pod: pod.to_string(), why });
        let Some(workload) = middle(&self.client, &pod.namespace).await?.workload(found) else {
            return refuse("it has no controller and has not ended".into());
        };
        let Some((kind, _)) = scale::resource(&workload) else {
            return refuse(format!("it belongs to {workload}, which cannot be stopped"));
        };
        let state = scale::read(&self.client, &workload).await?.map(|(kind, found)| scale::state(kind, &found));
        match state {
            Some(state) if kind.can_stop() && state.suspend.is_none() && state.replicas == 0 => Ok(()),
            Some(state) => refuse(format!("it belongs to {workload}, which has {} replicas", state.replicas)),
            None => refuse(format!("it belongs to {workload}, which does not exist: the cluster removes it")),
        }
    }

    async fn pods_of(
        &self,
        namespace: &str,
        workloads: &[ObjectRef],
        claims: &[String],
    ) -> Result<Vec<PodFact>, Error> {
        let middle = middle(&self.client, namespace).await?;
        let pods = list::<Pod>(&self.client, namespace).await?;
        let facts = pods.iter().map(|pod| pods::fact(pod, &middle)).filter(|fact| {
            fact.workload.as_ref().is_some_and(|workload| workloads.contains(workload))
                || workloads.contains(&fact.object)
                || fact.claims.iter().any(|claim| claims.contains(claim))
        });
        Ok(facts.collect())
    }
}

fn delivered(inventory: &Inventory) -> impl Iterator<Item = ObjectRef> {
    inventory
        .entries
        .iter()
        .filter_map(InventoryEntry::object)
        .map(|object| ObjectRef::new(object.group, object.kind, object.namespace, object.name))
}

#[async_trait]
impl Workloads for KubeWorkloads {
    async fn find(&self, app: &AppRef, own: &[ObjectRef], claims: &[String]) -> Result<Vec<WorkloadFacts>, Failure> {
        Ok(self.found(app, own, claims).await?)
    }

    async fn delivered_claims(&self, app: &AppRef, own: &[ObjectRef]) -> Result<Vec<String>, Failure> {
        Ok(self.claims_of(app, own).await?)
    }

    async fn state(&self, workload: &ObjectRef) -> Result<Option<WorkloadState>, Failure> {
        let found = scale::read(&self.client, workload).await?;
        Ok(found.map(|(kind, found)| scale::state(kind, &found)))
    }

    async fn stop(&self, workload: &ObjectRef, uid: &str) -> Result<(), Failure> {
        Ok(scale::stop(&self.client, workload, uid).await?)
    }

    async fn start(
        &self,
        workload: &ObjectRef,
        uid: &str,
        resource_version: &str,
        replicas: i32,
        suspend: Option<bool>,
    ) -> Result<(), Failure> {
        Ok(scale::start(&self.client, workload, uid, resource_version, replicas, suspend).await?)
    }

    async fn holders(&self, namespace: &str, claims: &[String]) -> Result<Vec<Holder>, Failure> {
        Ok(self.held(namespace, claims).await?)
    }

    async fn remove_pod(&self, pod: &ObjectRef, uid: &str) -> Result<(), Failure> {
        Ok(self.remove(pod, uid).await?)
    }

    async fn pods(&self, namespace: &str, workloads: &[ObjectRef], claims: &[String]) -> Result<Vec<PodFact>, Failure> {
        Ok(self.pods_of(namespace, workloads, claims).await?)
    }
}
