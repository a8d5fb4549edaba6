//! Which workloads an app has, and who else mounts its claims: from lists of everything in a namespace.
//!
//! A claim is found through templates as well as through pods, because a workload that is scaled to 0 today mounts it
//! tomorrow, and because pods of an earlier template may still mount what the template does not name any more.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde_json::Value;
use upgrade_core::ports::{ObjectRef, WorkloadFacts, WorkloadKind};
use windlass_api::foreign::kept_from_git;

use crate::objects::{claims, controller, ended, images, owner_object, stateful_set_claims};

/// What the app's own delivery objects deliver.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// The delivery objects themselves: their names are in labels of what they deliver.
    pub(crate) objects: Vec<ObjectRef>,
    /// What they list in their status, where they do.
    pub(crate) inventory: BTreeSet<ObjectRef>,
}

impl Own {
    fn delivers(&self, object: &ObjectRef, meta: &ObjectMeta) -> bool {
        let labels = meta.labels.as_ref();
        let label = |key: String| labels.and_then(|labels| labels.get(&key)).map(String::as_str);
        self.inventory.contains(object)
            || self.objects.iter().any(|own| {
                // Both Flux controllers label what they apply with their group.
                label(format!("{}/name", own.group)) == Some(&own.name)
                    && label(format!("{}/namespace", own.group)) == Some(&own.namespace)
            })
    }
}

/// Everything of one namespace that can mount or scale something.
#[derive(Debug, Default)]
pub(crate) struct Everything {
    pub(crate) namespace: String,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) stateful_sets: Vec<StatefulSet>,
    pub(crate) daemon_sets: Vec<DaemonSet>,
    pub(crate) replica_sets: Vec<ReplicaSet>,
    pub(crate) cron_jobs: Vec<CronJob>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) pods: Vec<Pod>,
    /// Names of the claims that exist.
    pub(crate) claims: Vec<String>,
    pub(crate) autoscalers: Vec<HorizontalPodAutoscaler>,
    /// KEDA's, if it is installed.
    pub(crate) scaled_objects: Vec<DynamicObject>,
}

/// A workload before it is known whether it matters.
struct Candidate {
    facts: WorkloadFacts,
    /// Refusals that only matter if it mounts one of the claims.
    dangers: Vec<(String, String)>,
}

/// The workloads of a namespace that `own` delivers, and all others that mount one of their claims or one of `asked`.
pub(crate) fn find(everything: &Everything, own: &Own, asked: &[String]) -> Vec<WorkloadFacts> {
    let mut candidates = Candidates { everything, own, found: BTreeMap::new(), by_uid: BTreeMap::new() };
    candidates.collect();
    let found: Vec<Candidate> = candidates.found.into_values().collect();

    let mut theirs: BTreeSet<&str> = asked.iter().map(String::as_str).collect();
    theirs.extend(found.iter().filter(|c| c.facts.delivered).flat_map(|c| c.facts.claims.iter().map(String::as_str)));
    let theirs: BTreeSet<String> = theirs.into_iter().map(str::to_owned).collect();
    found
        .into_iter()
        .filter_map(|candidate| {
            let mounts = candidate.facts.claims.iter().any(|claim| theirs.contains(claim));
            let mut facts = candidate.facts;
            if mounts {
                facts.refusals.extend(candidate.dangers);
            }
            (facts.delivered || mounts).then_some(facts)
        })
        .collect()
}

/// Names of the claims in `namespace` that `own` delivers itself. What has an owner was made by that, also if it carries the
/// labels of what it was made for.
pub(crate) fn delivered_claims<'m>(
    namespace: &str,
    claims: impl Iterator<Item = &'m ObjectMeta>,
    own: &Own,
) -> Vec<String> {
    let delivered = claims.filter_map(|meta| {
        let name = meta.name.clone()?;
        let object = ObjectRef::new("", "PersistentVolumeClaim", namespace, &name);
        let has_owner = meta.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        (own.inventory.contains(&object) || (!has_owner && own.delivers(&object, meta))).then_some(name)
    });
    delivered.collect()
}

struct Candidates<'a> {
    everything: &'a Everything,
    own: &'a Own,
    found: BTreeMap<ObjectRef, Candidate>,
    /// The workload that stands for an object's pods, by the object's UID.
    by_uid: BTreeMap<String, ObjectRef>,
}

impl Candidates<'_> {
    fn collect(&mut self) {
        let all = self.everything;
        for item in &all.deployments {
            let spec = item.spec.as_ref();
            let template = spec.and_then(|spec| spec.template.spec.as_ref());
            let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
            self.add("apps", WorkloadKind::Deployment, &item.metadata, template, replicas);
        }
        for item in &all.stateful_sets {
            let spec = item.spec.as_ref();
            let template = spec.and_then(|spec| spec.template.spec.as_ref());
            let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let object = self.add("apps", WorkloadKind::StatefulSet, &item.metadata, template, replicas);
            self.mounts(&object, stateful_set_claims(item, &all.claims));
            let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
            if policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete") {
                let why = format!("{object} deletes its claims when it is scaled down (whenScaled: Delete)");
                self.danger(&object, "when-scaled-delete", why);
            }
        }
        for item in &all.daemon_sets {
            let template = item.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            let object = self.add("apps", WorkloadKind::DaemonSet, &item.metadata, template, 0);
            self.danger(&object, "daemon-set", format!("{object} mounts a claim and cannot be scaled to 0"));
        }
        for item in &all.replica_sets {
            let spec = item.spec.as_ref();
            let template = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref());
            if self.belongs_to_a_known_controller(&item.metadata) {
                continue;
            }
            if controller(&item.metadata).is_some() {
                self.foreign(&item.metadata, template.map(|spec| claims(spec, None)).unwrap_or_default());
                continue;
            }
            let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
            self.add("apps", WorkloadKind::ReplicaSet, &item.metadata, template, replicas);
        }
        for item in &all.cron_jobs {
            let template = item.spec.job_template.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            let object = self.add("batch", WorkloadKind::CronJob, &item.metadata, template, 0);
            if let Some(candidate) = self.found.get_mut(&object) {
                candidate.facts.suspend = item.spec.suspend;
            }
        }
        for item in all.jobs.iter().filter(|job| !is_finished(job)) {
            let spec = item.spec.as_ref();
            let template = spec.and_then(|spec| spec.template.spec.as_ref());
            let object = self.add("batch", WorkloadKind::Job, &item.metadata, template, 0);
            let asleep = spec.and_then(|spec| spec.suspend) == Some(true)
                && item.status.as_ref().and_then(|status| status.active).unwrap_or(0) == 0;
            if !asleep {
                self.danger(
                    &object,
                    "running-job",
                    format!("{object} runs and cannot be stopped without losing its work"),
                );
            }
        }
        // An ended pod writes nothing and owns nothing; whether it still holds a claim is a question of its own.
        for item in all.pods.iter().filter(|pod| !ended(pod)) {
            let mounted = item.spec.as_ref().map(|spec| claims(spec, None)).unwrap_or_default();
            if let Some(workload) = controller(&item.metadata).and_then(|owner| self.by_uid.get(&owner.uid)).cloned() {
                self.mounts(&workload, mounted);
            } else if controller(&item.metadata).is_some() {
                self.foreign(&item.metadata, mounted);
            } else {
                let object = self.add("", WorkloadKind::Pod, &item.metadata, item.spec.as_ref(), 0);
                self.danger(&object, "bare-pod", format!("{object} has no controller: nothing would start it again"));
            }
        }
        self.autoscaling();
    }

    fn add(
        &mut self,
        group: &str,
        kind: WorkloadKind,
        meta: &ObjectMeta,
        template: Option<&PodSpec>,
        replicas: i32,
    ) -> ObjectRef {
        let name = meta.name.clone().unwrap_or_default();
        // The names of the variants are the names of the kinds.
        let object = ObjectRef::new(group, &format!("{kind:?}"), &self.everything.namespace, &name);
        let uid = meta.uid.clone().unwrap_or_default();
        self.by_uid.insert(uid.clone(), object.clone());
        let delivered = self.own.delivers(&object, meta);
        let facts = WorkloadFacts {
            object: object.clone(),
            uid,
            kind,
            replicas,
            suspend: None,
            claims: template.map(|spec| claims(spec, None)).unwrap_or_default(),
            delivered,
            images: template.map(images).unwrap_or_default(),
            refusals: frozen(meta).filter(|_| delivered).into_iter().collect(),
            warnings: Vec::new(),
        };
        self.found.insert(object.clone(), Candidate { facts, dangers: Vec::new() });
        if let Some(owner) = controller(meta).filter(|owner| !(owner.kind == "CronJob" && kind == WorkloadKind::Job)) {
            let (owner_kind, owner) = (&owner.kind, &owner.name);
            let why = format!("{object} belongs to {owner_kind} {owner}, which would start it again");
            self.danger(&object, "owned-by-operator", why);
        }
        object
    }

    /// Whether the controller of `meta` is itself a candidate; then its pods are the controller's.
    fn belongs_to_a_known_controller(&mut self, meta: &ObjectMeta) -> bool {
        let Some(workload) = controller(meta).and_then(|owner| self.by_uid.get(&owner.uid)).cloned() else {
            return false;
        };
        self.by_uid.insert(meta.uid.clone().unwrap_or_default(), workload);
        true
    }

    /// Something whose controller is of a kind that nothing is known about: the controller is the workload.
    fn foreign(&mut self, meta: &ObjectMeta, mounted: Vec<String>) {
        let Some(owner) = controller(meta) else { return };
        let object = owner_object(owner, &self.everything.namespace);
        if !self.found.contains_key(&object) {
            let facts = WorkloadFacts {
                object: object.clone(),
                uid: owner.uid.clone(),
                kind: WorkloadKind::Other,
                replicas: 0,
                suspend: None,
                claims: Vec::new(),
                delivered: self.own.inventory.contains(&object),
                images: Vec::new(),
                refusals: Vec::new(),
                warnings: Vec::new(),
            };
            self.found.insert(object.clone(), Candidate { facts, dangers: Vec::new() });
            let why = format!("{object} runs pods of its own, and only its operator can stop them");
            self.danger(&object, "owned-by-operator", why);
        }
        self.by_uid.insert(owner.uid.clone(), object.clone());
        self.by_uid.insert(meta.uid.clone().unwrap_or_default(), object.clone());
        self.mounts(&object, mounted);
    }

    fn mounts(&mut self, object: &ObjectRef, more: Vec<String>) {
        if let Some(candidate) = self.found.get_mut(object) {
            candidate.facts.claims.extend(more);
            candidate.facts.claims.sort();
            candidate.facts.claims.dedup();
        }
    }

    fn danger(&mut self, object: &ObjectRef, code: &str, why: String) {
        if let Some(candidate) = self.found.get_mut(object) {
            candidate.dangers.push((code.into(), why));
        }
    }

    fn autoscaling(&mut self) {
        for scaler in &self.everything.autoscalers {
            let target = &scaler.spec.scale_target_ref;
            let Some(object) = self.target(target.api_version.as_deref(), &target.kind, &target.name) else { continue };
            let name = scaler.name_any();
            if scaler.spec.min_replicas == Some(0) {
                let why = format!("HorizontalPodAutoscaler {name} may scale {object} up from 0");
                self.danger(&object, "autoscaler-from-zero", why);
            } else if let Some(candidate) = self.found.get_mut(&object) {
                let warning =
                    format!("HorizontalPodAutoscaler {name} scales {object}; it rests while there are 0 replicas");
                candidate.facts.warnings.push(warning);
            }
        }
        for scaler in &self.everything.scaled_objects {
            let text = |path: &str| scaler.data.pointer(path).and_then(Value::as_str);
            let Some(name) = text("/spec/scaleTargetRef/name") else { continue };
            let kind = text("/spec/scaleTargetRef/kind").unwrap_or("Deployment");
            let api = text("/spec/scaleTargetRef/apiVersion").unwrap_or("apps/v1");
            let Some(object) = self.target(Some(api), kind, name) else { continue };
            if !is_paused(scaler) {
                let scaler = scaler.name_any();
                let why = format!("ScaledObject {scaler} may start {object} at any time, and is not paused");
                self.danger(&object, "keda", why);
            }
        }
    }

    fn target(&self, api: Option<&str>, kind: &str, name: &str) -> Option<ObjectRef> {
        let group = api.and_then(|api| api.split_once('/')).map_or("", |(group, _)| group);
        let object = ObjectRef::new(group, kind, &self.everything.namespace, name);
        self.found.contains_key(&object).then_some(object)
    }
}

/// What somebody wrote on a workload that keeps its Kustomization from applying it. What a chart made is not applied by one.
fn frozen(meta: &ObjectMeta) -> Option<(String, String)> {
    fn get<'m>(of: Option<&'m BTreeMap<String, String>>, key: &str) -> Option<&'m str> {
        of.and_then(|all| all.get(key)).map(String::as_str)
    }
    let (annotations, labels) = (meta.annotations.as_ref(), meta.labels.as_ref());
    if get(labels, "helm.toolkit.fluxcd.io/name").is_some() {
        return None;
    }
    let mark = kept_from_git(|key| get(annotations, key), |key| get(labels, key))?;
    Some(("frozen".into(), format!("has {mark}, so Git does not reach it")))
}

/// Whether a ScaledObject leaves a workload at 0 alone.
fn is_paused(scaler: &DynamicObject) -> bool {
    let annotation = |key: &str| scaler.annotations().get(key).map(String::as_str);
    annotation("autoscaling.keda.sh/paused") == Some("true")
        || annotation("autoscaling.keda.sh/paused-replicas") == Some("0")
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions
        .iter()
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

#[cfg(test)]
mod tests;
