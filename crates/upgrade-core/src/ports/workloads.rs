//! What runs: who mounts the claims, stopping it, putting it back.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AppRef, ObjectRef};
use crate::Failure;

/// The kinds that can be stopped, and those that are only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// apps/v1 ReplicaSet without a controller.
    ReplicaSet,
    /// batch/v1 CronJob: suspended instead of scaled.
    CronJob,
    /// batch/v1 Job: cannot be stopped safely.
    Job,
    /// apps/v1 DaemonSet: cannot be scaled.
    DaemonSet,
    /// A pod without a controller.
    Pod,
    /// A pod whose controller is none of the above.
    Other,
}

impl WorkloadKind {
    /// Whether the kind can be stopped and put back.
    pub fn can_stop(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::ReplicaSet | Self::CronJob)
    }
}

/// One workload, as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadFacts {
    /// The object.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// Its kind.
    pub kind: WorkloadKind,
    /// `spec.replicas`; 0 for kinds without it.
    pub replicas: i32,
    /// `spec.suspend` of a CronJob as found.
    pub suspend: Option<bool>,
    /// Names of the claims its pods mount, in its namespace; for a StatefulSet, all ordinals that exist or will.
    pub claims: Vec<String>,
    /// Whether one of the app's own delivery objects delivers it.
    pub delivered: bool,
    /// Container images of its template: `(container, image)`.
    pub images: Vec<(String, String)>,
    /// What makes stopping it unsafe, by refusal code with an explanation (`when-scaled-delete`, `keda`, `daemon-set`,
    /// `bare-pod`, `running-job`, `owned-by-operator`, ...).
    pub refusals: Vec<(String, String)>,
    /// Worth telling (an autoscaler, for example).
    pub warnings: Vec<String>,
}

/// Something that still has one of the claims: a pod, a node or an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The claim.
    pub claim: String,
    /// The pod, the node that still has the volume in use, or the attachment.
    pub by: ObjectRef,
    /// Why it counts, for people (`Running`, `Succeeded`, `volumesInUse`).
    pub why: String,
}

/// One pod of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFact {
    /// The pod.
    pub object: ObjectRef,
    /// Its UID.
    pub uid: String,
    /// Its controller chain's workload, when known.
    pub workload: Option<ObjectRef>,
    /// Images of its containers: `(container, image)`.
    pub images: Vec<(String, String)>,
    /// Whether it is Ready, or was once, as far as its conditions tell.
    pub served: bool,
    /// Claims it mounts.
    pub claims: Vec<String>,
}

/// A workload's scale, at one resource version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadState {
    /// UID now.
    pub uid: String,
    /// Resource version of what was read.
    pub resource_version: String,
    /// Its generation: every change of its spec, its replicas among them, makes the next one. Of some kinds a change of
    /// annotations does, too.
    pub generation: i64,
    /// `spec.replicas`; 0 for kinds without it.
    pub replicas: i32,
    /// `spec.suspend` of a CronJob.
    pub suspend: Option<bool>,
    /// Container images of the template.
    pub images: Vec<(String, String)>,
}

/// Finds, stops and puts back workloads.
///
/// - **Flow**: `find` for facts; `stop` each; `holders` until none is left; `start` with the recorded numbers.
/// - **Guarantees**: replicas change through the scale subresource only, so that no ownership is left behind; `stop` writes
///   only if the object is still as it has just read it, `start` only if it still has the resource version given.
/// - **Assumptions**: what is stopped is suspended above, so that nobody scales it back.
/// - **Cancellation**: any call may be dropped and repeated.
/// - **Errors**: `workload-gone`, `workload-replaced`, `cannot-stop`, `pod-in-use`, `unknown-delivery` (permanent);
///   `changed-meanwhile` and `api-*` (retryable).
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Workloads: Send + Sync {
    /// Every workload of the app's namespace that one of `own` delivers, and every other one there that mounts one of their claims
    /// or one of `claims`.
    async fn find(&self, app: &AppRef, own: &[ObjectRef], claims: &[String]) -> Result<Vec<WorkloadFacts>, Failure>;
    /// Names of the claims in the app's namespace that one of `own` delivers itself, whether or not anything mounts them.
    async fn delivered_claims(&self, app: &AppRef, own: &[ObjectRef]) -> Result<Vec<String>, Failure>;
    /// The workload now; `None` when it is gone.
    async fn state(&self, workload: &ObjectRef) -> Result<Option<WorkloadState>, Failure>;
    /// Scales to 0, or suspends a CronJob.
    async fn stop(&self, workload: &ObjectRef, uid: &str) -> Result<(), Failure>;
    /// Puts replicas (or a CronJob's `suspend`) back as recorded, if the object still has `resource_version`.
    async fn start(
        &self,
        workload: &ObjectRef,
        uid: &str,
        resource_version: &str,
        replicas: i32,
        suspend: Option<bool>,
    ) -> Result<(), Failure>;
    /// Who still has one of the claims, or a volume of them in use.
    async fn holders(&self, namespace: &str, claims: &[String]) -> Result<Vec<Holder>, Failure>;
    /// Deletes a pod that has ended, or whose workload is scaled to 0 and which cannot end by itself, with its UID.
    async fn remove_pod(&self, pod: &ObjectRef, uid: &str) -> Result<(), Failure>;
    /// The pods that mount one of `claims` or belong to one of `workloads`.
    async fn pods(&self, namespace: &str, workloads: &[ObjectRef], claims: &[String]) -> Result<Vec<PodFact>, Failure>;
}
