//! The status of a pod: what the containers do, put in the API's words, and its writing. Any small kubelet can use it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod,
    PodSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::controllers::Clock;

/// Whether a container is one of the init containers or an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the ordinary ones start.
    Init,
    /// An ordinary container.
    Main,
}

#[derive(Debug, Clone, Default)]
struct Containers {
    init: Vec<ContainerStatus>,
    main: Vec<ContainerStatus>,
    /// Set once the volumes are there and the pod has an address.
    pod_ip: Option<String>,
    /// No process will start any more.
    ended: bool,
    /// When the pod was first seen here, or by an earlier kubelet.
    start: Option<Time>,
    /// Of each condition, the state and since when.
    since: BTreeMap<String, (bool, Time)>,
}

/// Collects what the containers report and writes it to the API.
pub struct Reporter {
    client: Client,
    pod: Arc<Pod>,
    clock: Clock,
    containers: Mutex<Containers>,
    changed: Notify,
}

impl Reporter {
    /// For `pod`, whose earlier status tells what an earlier kubelet did. Writes nothing yet.
    #[must_use]
    pub fn new(client: Client, pod: Arc<Pod>, clock: Clock) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let earlier = pod.status.clone().unwrap_or_default();
        let fresh = |containers: &[k8s_openapi::api::core::v1::Container],
                     earlier: Option<Vec<ContainerStatus>>,
                     waiting: &str| {
            let earlier = earlier.unwrap_or_default();
            let of = |container: &k8s_openapi::api::core::v1::Container| {
                let known = earlier.iter().find(|status| status.name == container.name);
                let mut status = ContainerStatus {
                    name: container.name.clone(),
                    image: container.image.clone().unwrap_or_default(),
                    restart_count: known.map_or(0, |known| known.restart_count),
                    started: Some(false),
                    ..ContainerStatus::default()
                };
                set_waiting(&mut status, waiting, "");
                status
            };
            containers.iter().map(of).collect::<Vec<_>>()
        };
        let init = spec.init_containers.unwrap_or_default();
        let waiting = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let containers = Containers {
            main: fresh(&spec.containers, earlier.container_statuses, waiting),
            init: fresh(&init, earlier.init_container_statuses, "PodInitializing"),
            start: Some(earlier.start_time.unwrap_or_else(|| clock().into())),
            since: earlier
                .conditions
                .into_iter()
                .flatten()
                .filter_map(|one| Some((one.type_, (one.status == "True", one.last_transition_time?))))
                .collect(),
            ..Containers::default()
        };
        Self { client, pod, clock, containers: Mutex::new(containers), changed: Notify::new() }
    }

    /// Changes the status of one container; the change is written soon.
    pub fn update(&self, kind: Kind, name: &str, change: impl FnOnce(&mut ContainerStatus)) {
        self.change(|containers| {
            let list = match kind {
                Kind::Init => &mut containers.init,
                Kind::Main => &mut containers.main,
            };
            if let Some(status) = list.iter_mut().find(|status| status.name == name) {
                change(status);
            }
        });
    }

    /// Gives the pod its address, which also says that its volumes are there.
    pub fn set_address(&self, pod_ip: String) {
        self.change(|containers| containers.pod_ip = Some(pod_ip));
    }

    /// Asks for the status to be written as it is.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// Says that no process will start any more; what is still waiting never ran.
    pub fn end(&self) {
        self.change(|containers| containers.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut Containers)) {
        change(&mut self.containers.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Writes every change for as long as it is polled.
    pub async fn publish_changes(&self) {
        loop {
            self.changed.notified().await;
            if let Err(error) = self.publish().await {
                tracing::warn!(pod = self.pod.name_any(), %error, "writing the pod's status");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                self.changed.notify_one();
            }
        }
    }

    /// Writes the status as it is now. A pod that is gone (or another one of that name) is left alone.
    ///
    /// # Errors
    /// When the API server refuses for another reason.
    pub async fn publish(&self) -> kube::Result<()> {
        let now = (self.clock)();
        let status = pod_status(&self.pod, &mut self.containers.lock().unwrap_or_else(PoisonError::into_inner), now);
        let patch = json!({ "metadata": { "uid": self.pod.metadata.uid }, "status": status });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        let params = PatchParams { field_manager: Some("kubelet".to_owned()), ..PatchParams::default() };
        match api.patch_status(&self.pod.name_any(), &params, &Patch::Strategic(patch)).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => result.map(drop),
        }
    }
}

/// Whether the pod has run to its end.
#[must_use]
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn pod_status(pod: &Pod, containers: &mut Containers, at: Timestamp) -> Value {
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = phase(&spec, containers);
    let finished = phase == "Succeeded";
    let initialized = containers.init.iter().all(succeeded) || containers.main.iter().any(has_run);
    let unready: Vec<&str> =
        containers.main.iter().filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    let why_unready = || {
        let (reason, message) = match phase {
            "Succeeded" => ("PodCompleted", String::new()),
            "Failed" => ("PodFailed", String::new()),
            _ => ("ContainersNotReady", format!("containers with unready status: {unready:?}")),
        };
        (reason, message)
    };
    let mut since = std::mem::take(&mut containers.since);
    let mut condition = |kind: &str, ok: bool, why: Option<(&str, String)>| {
        let now = || (ok, at.into());
        let entry = since.entry(kind.to_owned()).or_insert_with(now);
        if entry.0 != ok {
            *entry = now();
        }
        let state = if ok { "True" } else { "False" };
        let (reason, message) = why.unzip();
        json!({ "type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": entry.1,
                "observedGeneration": pod.metadata.generation })
    };
    let ready = unready.is_empty() && !containers.main.is_empty() && !finished;
    let not_initialized = (!initialized).then(|| ("ContainersNotInitialized", String::new()));
    let not_ready = || (!ready).then(why_unready);
    let conditions = [
        condition("PodReadyToStartContainers", containers.pod_ip.is_some(), None),
        condition("Initialized", initialized, not_initialized),
        condition("Ready", ready, not_ready()),
        condition("ContainersReady", ready, not_ready()),
    ];
    containers.since = since;
    json!({
        "phase": phase,
        "observedGeneration": pod.metadata.generation,
        "hostIP": "127.0.0.1",
        "hostIPs": [{ "ip": "127.0.0.1" }],
        "podIP": containers.pod_ip,
        "podIPs": containers.pod_ip.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
        "startTime": containers.start,
        "conditions": conditions,
        "initContainerStatuses": containers.init,
        "containerStatuses": containers.main,
    })
}

fn phase(spec: &PodSpec, containers: &Containers) -> &'static str {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let init_failed = containers.init.iter().any(|status| exit(status).is_some_and(|code| code != 0));
    if init_failed && (policy == "Never" || containers.ended) {
        return "Failed";
    }
    if containers.ended {
        // Containers that never ran were prevented from it, which is not success.
        return if containers.main.iter().all(succeeded) { "Succeeded" } else { "Failed" };
    }
    let waiting = containers.main.iter().any(|status| !has_run(status));
    let running = containers.main.iter().any(is_running);
    let stopped = containers.main.iter().all(|status| exit(status).is_some());
    let all_well = containers.main.iter().all(succeeded);
    match policy {
        _ if !containers.init.iter().all(succeeded) || waiting => "Pending",
        _ if running => "Running",
        "OnFailure" | "Never" if stopped && all_well => "Succeeded",
        "Never" if stopped => "Failed",
        _ => "Running",
    }
}

fn exit(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code)
}

fn succeeded(status: &ContainerStatus) -> bool {
    exit(status) == Some(0)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// Running, ended, or ended before and about to be started again.
fn has_run(status: &ContainerStatus) -> bool {
    is_running(status) || exit(status).is_some() || status.last_state.is_some()
}

/// Puts the container into `waiting`, keeping its last end if it had one.
pub fn set_waiting(status: &mut ContainerStatus, reason: &str, message: &str) {
    keep_last_end(status);
    let message = (!message.is_empty()).then(|| message.to_owned());
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
    (status.ready, status.started) = (false, Some(false));
}

/// Puts the container into `running`, keeping its last end if it had one. Its id is `id` and the count of restarts.
pub fn set_running(status: &mut ContainerStatus, since: Time, image_id: String, id: &str) {
    keep_last_end(status);
    let running = ContainerStateRunning { started_at: Some(since) };
    status.state = Some(ContainerState { running: Some(running), ..ContainerState::default() });
    status.image_id = image_id;
    status.container_id = Some(format!("{id}-{}", status.restart_count));
}

/// Puts the container into `terminated`. Its id is filled in.
pub fn set_ended(status: &mut ContainerStatus, kind: Kind, end: ContainerStateTerminated) {
    // A finished init container counts as ready: it has done its part.
    (status.ready, status.started) = (kind == Kind::Init && end.exit_code == 0, Some(false));
    let terminated = ContainerStateTerminated { container_id: status.container_id.clone(), ..end };
    status.state = Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() });
}

fn keep_last_end(status: &mut ContainerStatus) {
    if let Some(ended) = status.state.take().filter(|state| state.terminated.is_some()) {
        status.last_state = Some(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> ContainerStatus {
        let terminated = ContainerStateTerminated { exit_code: code, ..Default::default() };
        ContainerStatus {
            state: Some(ContainerState { terminated: Some(terminated), ..Default::default() }),
            ..ContainerStatus::default()
        }
    }

    fn running() -> ContainerStatus {
        let running = ContainerStateRunning::default();
        ContainerStatus {
            state: Some(ContainerState { running: Some(running), ..Default::default() }),
            ..ContainerStatus::default()
        }
    }

    fn waiting() -> ContainerStatus {
        let mut status = ContainerStatus::default();
        set_waiting(&mut status, "ContainerCreating", "");
        status
    }

    fn crash_looping() -> ContainerStatus {
        let mut status = ended(1);
        set_waiting(&mut status, "CrashLoopBackOff", "");
        status
    }

    #[test]
    fn the_phase_is_what_kubernetes_would_say() {
        let cases: Vec<(&str, Vec<ContainerStatus>, Vec<ContainerStatus>, &str)> = vec![
            ("Always", vec![], vec![waiting()], "Pending"),
            ("Always", vec![running()], vec![waiting()], "Pending"),
            ("Always", vec![crash_looping()], vec![waiting()], "Pending"),
            ("Never", vec![ended(1)], vec![waiting()], "Failed"),
            ("Always", vec![ended(0)], vec![running()], "Running"),
            ("Always", vec![], vec![running(), waiting()], "Pending"),
            ("Always", vec![], vec![crash_looping()], "Running"),
            ("Never", vec![], vec![ended(0)], "Succeeded"),
            ("Never", vec![], vec![ended(0), ended(2)], "Failed"),
            ("Never", vec![], vec![ended(2), running()], "Running"),
            ("OnFailure", vec![], vec![ended(0)], "Succeeded"),
        ];
        for (policy, init, main, expected) in cases {
            let spec = PodSpec { restart_policy: Some(policy.to_owned()), ..PodSpec::default() };
            let containers = Containers { init, main, ..Containers::default() };
            assert_eq!(phase(&spec, &containers), expected, "{policy} {containers:?}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let old: Time = Timestamp::UNIX_EPOCH.into();
        let mut containers = Containers { main: vec![running()], ..Containers::default() };
        containers.since.insert("Ready".to_owned(), (false, old.clone()));
        let since = |containers: &mut Containers| {
            pod_status(&Pod::default(), containers, Timestamp::from_second(1).unwrap())["conditions"][2].clone()
        };
        assert_eq!(since(&mut containers)["lastTransitionTime"], json!(old));
        containers.main[0].ready = true;
        assert_ne!(since(&mut containers)["lastTransitionTime"], json!(old));
    }

    #[test]
    fn a_pod_that_was_stopped_has_ended() {
        for (main, expected) in
            [(vec![ended(0)], "Succeeded"), (vec![ended(143)], "Failed"), (vec![waiting()], "Failed")]
        {
            let containers = Containers { main, ended: true, ..Containers::default() };
            assert_eq!(phase(&PodSpec::default(), &containers), expected);
        }
    }
}
