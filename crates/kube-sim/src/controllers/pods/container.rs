//! One container: pulled, started, asked for its readiness, restarted, stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, ContainerStateTerminated, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::environment::{self, Mounts};
use super::lifetime::{grace, starts_again};
use super::pod::PodContext;
use super::programs::{Container, Program, Readiness};
use super::runlog::{Entry, Event, PodRef};
use super::status::{Kind, set_ended, set_running, set_waiting};

/// The kubelet's waits: after the second crash, and the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// How long the first restart, which needs no back-off, takes.
const RESTART: Duration = Duration::from_secs(1);
/// Exit code of a process that was killed.
const KILLED: i32 = 137;

/// Runs the container, again and again as the pod's restart policy says; returns when it will not be started any more.
/// Returns whether its last run succeeded.
pub(super) async fn run(pod: &PodContext, container: &Spec, kind: Kind) -> bool {
    let mut crashes = 0;
    let mut last_end: Option<Instant> = None;
    loop {
        let mut stop = pod.stop.clone();
        let prepared = tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return false,
            prepared = prepare(pod, container, kind) => prepared,
        };
        let succeeded = start_and_supervise(pod, container, kind, prepared).await == 0;
        if !starts_again(&pod.pod, kind, succeeded) || pod.stop.borrow().is_some() {
            return succeeded;
        }
        // A container that ran for long starts over.
        let calm = last_end.is_some_and(|end| end.elapsed() > LONGEST_BACKOFF * 2);
        crashes = if calm { 1 } else { crashes + 1 };
        last_end = Some(Instant::now());
        let wait = backoff(crashes);
        if crashes > 1 {
            let message = format!(
                "back-off {}s restarting failed container={} pod={}",
                wait.as_secs(),
                container.name,
                pod.pod.name_any()
            );
            pod.reporter.update(kind, &container.name, |status| set_waiting(status, "CrashLoopBackOff", &message));
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(Option::is_some) => return false,
            () = sleep(wait) => {}
        }
        pod.reporter.update(kind, &container.name, |status| status.restart_count += 1);
    }
}

/// The wait after so many crashes.
fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 | 1 => RESTART,
        more => FIRST_BACKOFF.saturating_mul(1_u32.checked_shl(more - 2).unwrap_or(u32::MAX)).min(LONGEST_BACKOFF),
    }
}

struct Prepared {
    program: Arc<dyn Program>,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    mounts: Mounts,
}

/// Pulls and configures until that works, saying meanwhile why it does not.
async fn prepare(pod: &PodContext, container: &Spec, kind: Kind) -> Prepared {
    let image = container.image.clone().unwrap_or_default();
    let mut attempts = 0_u32;
    loop {
        attempts += 1;
        let wait = backoff(attempts + 1);
        let (reason, message) = match pod.context.images.program(&image) {
            Some(program) => match configure(pod, container, program).await {
                Ok(prepared) => return prepared,
                Err(message) => ("CreateContainerConfigError", message),
            },
            None => {
                let why = format!("failed to pull and unpack image \"{image}\": not found");
                pod.reporter.update(kind, &container.name, |status| set_waiting(status, "ErrImagePull", &why));
                sleep(RESTART).await;
                ("ImagePullBackOff", format!("Back-off pulling image \"{image}\": ErrImagePull: {why}"))
            }
        };
        pod.reporter.update(kind, &container.name, |status| set_waiting(status, reason, &message));
        sleep(wait).await;
    }
}

async fn configure(pod: &PodContext, container: &Spec, program: Arc<dyn Program>) -> Result<Prepared, String> {
    if container.lifecycle.is_some() || container.restart_policy.is_some() {
        return Err("this kubelet knows neither lifecycle hooks nor sidecars among the init containers".to_owned());
    }
    let mounts = mounts(pod, container)?;
    let base = vec![
        ("HOSTNAME".to_owned(), pod.pod.name_any()),
        // What the field of that name is resolved by.
        ("POD_IP".to_owned(), pod.address.to_string()),
    ];
    // Programs find their folders by the mounts: variables stay as they are written.
    let env = environment::resolve(&pod.context.client, &pod.pod, container, base, &Mounts::new()).await?;
    let env: BTreeMap<String, String> = env.into_iter().collect();
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    let command = words.map(|word| environment::expand(word, &env)).collect();
    Ok(Prepared { program, command, env, mounts })
}

fn mounts(pod: &PodContext, container: &Spec) -> Result<Mounts, String> {
    let mut mounts = Mounts::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = pod.volumes.directories.get(&mount.name).ok_or_else(|| format!("no volume {}", mount.name))?;
        let folder: PathBuf = match &mount.sub_path {
            None => volume.clone(),
            Some(inside) => {
                let folder = volume.join(inside);
                if !folder.exists() {
                    let made = std::fs::create_dir_all(&folder);
                    made.map_err(|error| format!("subPath {inside} of volume {}: {error}", mount.name))?;
                }
                folder
            }
        };
        if mount.sub_path_expr.is_some() {
            return Err(format!("volume {}: this kubelet does not know subPathExpr", mount.name));
        }
        mounts.insert(mount.mount_path.clone(), folder);
    }
    Ok(mounts)
}

/// Entry of the run log about a container.
fn entry(pod: &PodContext, container: &Spec, event: Event) -> Entry {
    Entry {
        pod: Some(PodRef::of(&pod.pod)),
        container: Some(container.name.clone()),
        image: container.image.clone(),
        claims: pod.volumes.claims.clone(),
        ..Entry::bare(event)
    }
}

/// Runs the program to its end and returns its exit code.
async fn start_and_supervise(pod: &PodContext, container: &Spec, kind: Kind, prepared: Prepared) -> i32 {
    let context = &pod.context;
    context.record(entry(pod, container, Event::Starting));
    let since: Time = (context.clock)().into();
    let uid = pod.pod.uid().unwrap_or_default();
    pod.reporter.update(kind, &container.name, |status| {
        let image = format!("sim://{}", container.image.as_deref().unwrap_or_default());
        set_running(status, since.clone(), image, &format!("sim://{uid}-{}", container.name));
    });
    let code = supervise(pod, container, kind, prepared).await;
    context.record(Entry { exit_code: Some(code), ..entry(pod, container, Event::Stopped) });
    pod.reporter.update(kind, &container.name, |status| {
        let end = ContainerStateTerminated {
            exit_code: code,
            reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
            started_at: Some(since.clone()),
            finished_at: Some((context.clock)().into()),
            ..ContainerStateTerminated::default()
        };
        set_ended(status, kind, end);
    });
    code
}

async fn supervise(pod: &PodContext, container: &Spec, kind: Kind, prepared: Prepared) -> i32 {
    let (readiness, answers) = Readiness::new();
    let asked_to_end = CancellationToken::new();
    let Prepared { program, command, env, mounts } = prepared;
    let running = program.run(Container {
        namespace: pod.pod.namespace().unwrap_or_default(),
        pod: pod.pod.name_any(),
        uid: pod.pod.uid().unwrap_or_default(),
        pod_ip: pod.address.to_string(),
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        command,
        env,
        mounts,
        stop: asked_to_end.clone(),
        readiness,
    });
    tokio::pin!(running);
    let mut probes = Probes::new(pod, container, kind, answers);
    probes.look();
    let mut stop = pod.stop.clone();
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            Ok(()) = probes.answers.changed() => probes.look(),
            code = &mut running => return code,
            // The deadline may be brought forward while the program is already being stopped.
            Ok(deadline) = async { stop.changed().await.map(|()| *stop.borrow()) } => {
                asked_to_end.cancel();
                kill_at = deadline.or(kill_at);
            }
            () = sleep_until(probes.patient_until.unwrap_or_else(Instant::now)), if probes.patient_until.is_some() => {
                probes.patient_until = None;
                probes.look();
            }
            () = sleep_until(probes.give_up.unwrap_or_else(Instant::now)), if probes.give_up.is_some() => {
                probes.give_up = None;
                asked_to_end.cancel();
                kill_at = kill_at.or(Some(Instant::now() + grace(&pod.pod)));
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => return KILLED,
        }
    }
}

/// What the probes of a container have found.
struct Probes<'a> {
    pod: &'a PodContext,
    container: &'a Spec,
    kind: Kind,
    answers: watch::Receiver<bool>,
    /// Whether the container has not started until a probe says so.
    startup: bool,
    started: bool,
    ready: bool,
    /// When the readiness probe asks for the first time, while that lies ahead.
    patient_until: Option<Instant>,
    /// When a startup probe that never succeeds has the container killed.
    give_up: Option<Instant>,
}

impl<'a> Probes<'a> {
    fn new(pod: &'a PodContext, container: &'a Spec, kind: Kind, answers: watch::Receiver<bool>) -> Self {
        let startup = container.startup_probe.as_ref().filter(|_| kind == Kind::Main);
        let give_up = startup.map(|probe| Instant::now() + patience(probe));
        let delay = container.readiness_probe.as_ref().and_then(|probe| probe.initial_delay_seconds);
        let delay = delay.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        let patient_until = delay.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let startup = give_up.is_some();
        Self { pod, container, kind, answers, startup, started: false, ready: false, patient_until, give_up }
    }

    /// Turns the program's answer into `started` and `ready`; what has no probe is so as soon as the container runs.
    fn look(&mut self) {
        let answer = *self.answers.borrow_and_update();
        if !self.started && (!self.startup || answer) {
            self.started = true;
            self.give_up = None;
            self.pod.reporter.update(self.kind, &self.container.name, |status| status.started = Some(true));
        }
        let asked = self.patient_until.is_none();
        let ready = self.started && (self.container.readiness_probe.is_none() || (asked && answer));
        if self.kind == Kind::Main && ready != self.ready {
            self.ready = ready;
            let event = if ready { Event::Ready } else { Event::Unready };
            self.pod.context.record(entry(self.pod, self.container, event));
            self.pod.reporter.update(self.kind, &self.container.name, |status| status.ready = ready);
        }
    }
}

/// How long a probe may fail.
fn patience(probe: &Probe) -> Duration {
    let number = |value: Option<i32>, default: u64| value.map_or(default, |value| u64::try_from(value).unwrap_or(0));
    let tries = number(probe.failure_threshold, 3).saturating_mul(number(probe.period_seconds, 10));
    Duration::from_secs(number(probe.initial_delay_seconds, 0).saturating_add(tries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_quick_and_the_waits_double_up_to_five_minutes() {
        let waits: Vec<u64> = (1..=8).map(|crashes| backoff(crashes).as_secs()).collect();
        assert_eq!(waits, [1, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff(u32::MAX).as_secs(), 300);
    }
}
