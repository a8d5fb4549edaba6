//! The health port, on a cluster: reads the workloads and their pods, weighs them, and makes the HTTP checks last.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};
use upgrade_core::Failure;
use upgrade_core::ports::{AppRef, Clock, HealthChecker, HealthReport, HttpCheck, ObjectRef, PinValue};

use crate::http::Answer;
use crate::pods::Middle;
use crate::verdict::{self, Findings, Seen};
use crate::workloads::{list, middle};
use crate::{Error, http, scale};

/// Judges apps of one cluster. Cheap to clone.
///
/// # What is judged
/// Every workload given must exist, have been seen by its controller at its newest generation, be as its spec asks by
/// [`kstatus`](crate::kstatus), and have at least one pod. Every pod that has not ended must be made from the newest template, run the
/// pinned images, and be Ready; one that is still stopping is waited for. A Job must be complete; a CronJob need only have the
/// pinned images in its template, and an app of nothing but those is never healthy.
///
/// A pin `image/<name>` is about the containers whose repository is `<name>` or ends in `/<name>`, or the one that the pin's field names
/// (`containers[name=web].image`). A pin that is about no container at all keeps the app from being healthy. Pins of other
/// components are not judged here: what a chart's version made of the workloads is the delivery's to say.
///
/// Then every HTTP check must be answered with 2xx or 3xx, within its timeout, by every ready address of its Service (the first
/// 16). A ready address need not be one of the pods above: the Service decides.
///
/// # What is broken
/// A pod of the newest template and the pinned images with a container in `ErrImageNeverPull` or `InvalidImageName`, in
/// `CrashLoopBackOff` after its second restart, or, once it has had two minutes, in `ImagePullBackOff`, `ErrImagePull`,
/// `CreateContainerConfigError` or `CreateContainerError`; a failed Job; a Deployment past its progress deadline, if all its newest pods are older than that finding and none is ready. A pod that
/// cannot be scheduled, and a check that is not answered, are waited for however long it takes: the caller has the deadline.
#[derive(Clone)]
pub struct KubeHealth {
    client: Client,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
}

impl KubeHealth {
    /// `http` must not follow redirects; [`http_client`](crate::http_client) makes such a client.
    #[must_use]
    pub fn new(client: Client, http: reqwest::Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, http, clock }
    }

    async fn findings(&self, workloads: &[ObjectRef], pins: &[PinValue]) -> Result<Findings, Error> {
        // The workloads first: a pod that is gone by the time pods are read must not hide behind an older count.
        let mut objects = Vec::new();
        for workload in workloads {
            let known = scale::resource(workload).is_some();
            objects.push((workload, if known { scale::read(&self.client, workload).await? } else { None }));
        }
        let mut namespaces: BTreeMap<&str, (Middle, Vec<Pod>)> = BTreeMap::new();
        for workload in workloads {
            let namespace = workload.namespace.as_str();
            if !namespaces.contains_key(namespace) {
                let pods = list(&self.client, namespace).await?;
                namespaces.insert(namespace, (middle(&self.client, namespace).await?, pods));
            }
        }
        let mut seen = Vec::new();
        for (workload, object) in objects {
            let Some((middle, pods)) = namespaces.get(workload.namespace.as_str()) else { continue };
            let belongs = |pod: &&Pod| {
                let itself = workload.kind == "Pod" && pod.name_any() == workload.name;
                itself || middle.workload(pod).as_ref() == Some(workload)
            };
            let pods = pods.iter().filter(belongs).collect();
            seen.push(Seen { workload, object, pods, replica_sets: &middle.replica_sets });
        }
        Ok(verdict::findings(&seen, pins, self.clock.now()))
    }

    async fn judge(
        &self,
        app: &AppRef,
        workloads: &[ObjectRef],
        pins: &[PinValue],
        checks: &[HttpCheck],
    ) -> Result<HealthReport, Error> {
        let Findings { broken, waiting, mut well, restarted } = self.findings(workloads, pins).await?;
        if !broken.is_empty() {
            return Ok(HealthReport::Broken(broken.join("; ")));
        }
        if !waiting.is_empty() {
            return Ok(HealthReport::Waiting(waiting.join("; ")));
        }
        for check in checks {
            match http::check(&self.client, &self.http, &app.namespace, check).await? {
                Answer::Good(seen) => well.push(seen),
                Answer::Waiting(why) => return Ok(HealthReport::Waiting(why)),
            }
        }
        Ok(HealthReport::Healthy { evidence: well.join("; "), restarted })
    }
}

#[async_trait]
impl HealthChecker for KubeHealth {
    async fn check(
        &self,
        app: &AppRef,
        workloads: &[ObjectRef],
        pins: &[PinValue],
        http: &[HttpCheck],
    ) -> Result<HealthReport, Failure> {
        Ok(self.judge(app, workloads, pins, http).await?)
    }
}
