//! One Deployment of two pods that write to one claim.

use jiff::{SignedDuration, Timestamp};

use super::super::builders::{cron_job, deployment};
use super::{State, Write};
use crate::Failure;
use crate::ports::{HealthReport, Holder, ObjectRef, PodFact, WorkloadFacts, WorkloadKind, WorkloadState};

/// How a version behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::tests) enum Behaviour {
    /// It changes the data and dies, over and over.
    Crashes,
    /// It changes the data and is never ready.
    NeverReady,
    /// It is ready and writes, and breaks a second later.
    BreaksLater,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Deployment {
    pub(in crate::app::tests) replicas: i32,
    pub(in crate::app::tests) version: String,
    pub(in crate::app::tests) frozen: bool,
    /// Its resource version, and its generation.
    pub(in crate::app::tests) revision: u64,
}

impl Deployment {
    pub(super) fn new() -> Self {
        Self { replicas: 2, version: "1.0.0".into(), frozen: false, revision: 1 }
    }

    fn images(&self) -> Vec<(String, String)> {
        vec![("notes".into(), format!("registry.test/notes:{}", self.version))]
    }
}

/// A CronJob that mounts the data, as far as its `suspend` goes.
#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Cron {
    pub(in crate::app::tests) suspend: Option<bool>,
    /// Whether whoever delivers it has written that.
    pub(in crate::app::tests) is_declared: bool,
    /// What its manifest says, by version.
    declares: fn(&str) -> Option<bool>,
    revision: u64,
}

impl Cron {
    /// One that is as 1.0.0 declares it.
    pub(in crate::app::tests) fn new(declares: fn(&str) -> Option<bool>) -> Self {
        let suspend = declares("1.0.0");
        Self { suspend, is_declared: suspend.is_some(), declares, revision: 1 }
    }

    /// Somebody writes `suspend`.
    pub(in crate::app::tests) fn write(&mut self, suspend: Option<bool>, declared: bool) {
        self.revision += u64::from(self.suspend != suspend);
        (self.suspend, self.is_declared) = (suspend, declared);
    }

    pub(super) fn apply(&mut self, version: &str) {
        match (self.declares)(version) {
            Some(suspend) => self.write(Some(suspend), true),
            None if self.is_declared => self.write(None, false),
            None => {}
        }
    }
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Pod {
    name: String,
    uid: String,
    pub(in crate::app::tests) version: String,
    created: Timestamp,
    pub(in crate::app::tests) started: Option<Timestamp>,
    pub(in crate::app::tests) ready: bool,
    served: bool,
    ends_at: Option<Timestamp>,
    wrote_at: Timestamp,
}

const UID: &str = "uid-of-deployment";

impl State {
    pub(super) fn behaviour(&self, version: &str) -> Option<Behaviour> {
        self.behaviours.get(version).copied()
    }

    pub(super) fn turn_pods(&mut self) {
        let now = self.now;
        if self.interrupt_in.take_if(|at| *at <= now).is_some() {
            self.pods.clear();
        }
        let restarts = self.restart_in.take_if(|at| *at <= now).is_some();
        if restarts {
            self.restarted = Some(now);
        }
        let wanted = usize::try_from(self.deployment.replicas).unwrap();
        let version = self.deployment.version.clone();
        let old = self.pods.iter().any(|pod| pod.version != version);
        // Those of another version go first, all of them, as with `strategy: Recreate`.
        for at in 0..self.pods.len() {
            let too_many = at >= wanted || self.pods[at].version != version;
            let pod = &mut self.pods[at];
            if too_many && pod.ends_at.is_none() {
                pod.ends_at = Some(now + SignedDuration::from_millis(300));
                pod.ready = false;
            }
        }
        let before = self.pods.len();
        self.pods.retain(|pod| pod.ends_at.is_none_or(|at| at > now));
        if before > 0 && self.pods.is_empty() {
            self.unmounts_at = Some(now + SignedDuration::from_millis(200));
        }
        let quota = self.no_pods_until.is_none_or(|until| until <= now);
        while quota && !old && self.pods.len() < wanted {
            let uid = self.uid("pod");
            self.pods.push(Pod {
                name: uid.replace("uid", "notes"),
                uid,
                version: version.clone(),
                created: now,
                started: None,
                ready: false,
                served: false,
                ends_at: None,
                wrote_at: now,
            });
            self.unmounts_at = None;
        }
        if self.unmounts_at.is_some_and(|at| at <= now) {
            self.unmounts_at = None;
            self.storage.flush("data");
        }
        for at in 0..self.pods.len() {
            self.turn_pod(at);
        }
        let healthy = matches!(self.health(&self.deployment.version.clone()), HealthReport::Healthy { .. });
        self.healthy_since = if healthy { self.healthy_since.filter(|_| !restarts).or(Some(now)) } else { None };
    }

    fn turn_pod(&mut self, at: usize) {
        let now = self.now;
        let pod = self.pods[at].clone();
        let Some(started) = pod.started else {
            let due = now.duration_since(pod.created) >= SignedDuration::from_millis(100);
            if due && pod.ends_at.is_none() && self.storage.is_bound("data") {
                self.may_start(&pod.version);
                self.storage.write("data", Write { version: pod.version.clone(), acknowledged: false, at: now });
                self.pods[at].started = Some(now);
            }
            return;
        };
        let age = now.duration_since(started);
        let ready = match self.behaviour(&pod.version) {
            None => age >= SignedDuration::from_millis(200),
            Some(Behaviour::Crashes | Behaviour::NeverReady) => false,
            Some(Behaviour::BreaksLater) => {
                age >= SignedDuration::from_millis(200) && age < SignedDuration::from_millis(1500)
            }
        };
        self.pods[at].ready = ready && pod.ends_at.is_none();
        self.pods[at].served |= ready;
        if ready && now.duration_since(pod.wrote_at) >= SignedDuration::from_millis(200) {
            self.pods[at].wrote_at = now;
            self.storage.write("data", Write { version: pod.version, acknowledged: true, at: now });
        }
    }

    pub(super) fn health(&self, version: &str) -> HealthReport {
        if self.pods.is_empty() || self.deployment.replicas == 0 {
            return HealthReport::Waiting("there are no pods".into());
        }
        if self.deployment.version != version {
            return HealthReport::Waiting(format!("the template is {}", self.deployment.version));
        }
        let broken = |pod: &Pod| match self.behaviour(&pod.version) {
            Some(Behaviour::Crashes) => pod.started.is_some(),
            Some(Behaviour::BreaksLater) => {
                pod.started.is_some_and(|at| self.now.duration_since(at).as_millis() > 1500)
            }
            _ => false,
        };
        if self.pods.iter().any(broken) {
            return HealthReport::Broken("a pod crashes over and over".into());
        }
        let rolled_out = self.pods.len() == usize::try_from(self.deployment.replicas).unwrap();
        if rolled_out && self.pods.iter().all(|pod| pod.ready && pod.version == version) {
            return HealthReport::Healthy {
                evidence: format!("{} pods ready", self.pods.len()),
                restarted: self.restarted,
            };
        }
        HealthReport::Waiting("pods are not ready".into())
    }

    pub(super) fn workload_facts(&self) -> WorkloadFacts {
        WorkloadFacts {
            object: deployment(),
            uid: UID.into(),
            kind: WorkloadKind::Deployment,
            replicas: self.deployment.replicas,
            suspend: None,
            claims: vec!["data".into()],
            delivered: true,
            images: self.deployment.images(),
            refusals: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn cron_facts(&self) -> Option<WorkloadFacts> {
        let cron = self.cron.as_ref()?;
        Some(WorkloadFacts {
            object: cron_job(),
            uid: UID.into(),
            kind: WorkloadKind::CronJob,
            replicas: 0,
            suspend: cron.suspend,
            ..self.workload_facts()
        })
    }

    pub(super) fn workload_state(&self, workload: &ObjectRef) -> WorkloadState {
        if let Some(cron) = self.cron.as_ref().filter(|_| *workload == cron_job()) {
            return WorkloadState {
                uid: UID.into(),
                resource_version: cron.revision.to_string(),
                generation: i64::try_from(cron.revision).unwrap(),
                replicas: 0,
                suspend: cron.suspend,
                images: self.deployment.images(),
            };
        }
        WorkloadState {
            uid: UID.into(),
            resource_version: self.deployment.revision.to_string(),
            generation: i64::try_from(self.deployment.revision).unwrap(),
            replicas: self.deployment.replicas,
            suspend: None,
            images: self.deployment.images(),
        }
    }

    /// Somebody scales it.
    pub(in crate::app::tests) fn scale(&mut self, replicas: i32) {
        self.deployment.replicas = replicas;
        self.deployment.revision += 1;
    }

    pub(super) fn put_cron_back(&mut self, resource_version: &str, suspend: Option<bool>) -> Result<(), Failure> {
        let cron = self.cron.as_mut().unwrap();
        if cron.revision.to_string() != resource_version {
            return Err(Failure::transient("changed-meanwhile", "the cron job has changed since it was read"));
        }
        cron.write(suspend, false);
        Ok(())
    }

    pub(super) fn stop(&mut self, workload: &ObjectRef, uid: &str) -> Result<(), Failure> {
        assert_eq!(uid, UID);
        self.may_stop();
        if *workload == cron_job() {
            let cron = self.cron.as_mut().unwrap();
            if cron.suspend != Some(true) {
                cron.write(Some(true), false);
            }
            return Ok(());
        }
        self.deployment.replicas = 0;
        self.deployment.revision += 1;
        Ok(())
    }

    pub(super) fn start(&mut self, uid: &str, resource_version: &str, replicas: i32) -> Result<(), Failure> {
        assert_eq!(uid, UID);
        if self.deployment.replicas == replicas {
            return Ok(());
        }
        if self.deployment.revision.to_string() != resource_version {
            return Err(Failure::transient("changed-meanwhile", "the deployment has changed since it was read"));
        }
        self.deployment.replicas = replicas;
        self.deployment.revision += 1;
        Ok(())
    }

    pub(super) fn holders(&self, claims: &[String]) -> Vec<Holder> {
        if !claims.iter().any(|claim| claim == "data") {
            return Vec::new();
        }
        let holder = |by: ObjectRef, why: &str| Holder { claim: "data".into(), by, why: why.into() };
        let pods = self.pods.iter().map(|pod| holder(ObjectRef::new("", "Pod", "notes", &pod.name), "Running"));
        let node = self.unmounts_at.map(|_| holder(ObjectRef::new("", "Node", "", "node"), "volumesInUse"));
        pods.chain(node).collect()
    }

    pub(super) fn pod_facts(&self) -> Vec<PodFact> {
        let fact = |pod: &Pod| PodFact {
            object: ObjectRef::new("", "Pod", "notes", &pod.name),
            uid: pod.uid.clone(),
            workload: Some(deployment()),
            images: vec![("notes".into(), format!("registry.test/notes:{}", pod.version))],
            served: pod.served,
            claims: vec!["data".into()],
        };
        let frontend = self.frontend.then(|| PodFact {
            object: ObjectRef::new("", "Pod", "notes", "frontend"),
            uid: "uid-of-frontend".into(),
            workload: Some(ObjectRef::new("apps", "Deployment", "notes", "frontend")),
            images: Vec::new(),
            served: true,
            claims: Vec::new(),
        });
        self.pods.iter().map(fact).chain(frontend).collect()
    }
}
