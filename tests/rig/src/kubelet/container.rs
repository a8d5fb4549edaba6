//! One container: pulled, started, probed, restarted, stopped.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube_sim::controllers::pods::environment::{self, Mounts};
use kube_sim::controllers::pods::lifetime::{Stop, grace, starts_again};
use kube_sim::controllers::pods::status::{Kind, Reporter, set_ended, set_running, set_waiting};
use kube_sim::controllers::pods::volumes::PodVolumes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Context;
use super::images::Pulled;
use super::probes::{Health, Target};
use super::process::{Launch, Process, ROOT_DIR, exit_code};
use super::runlog::{Entry, Event, PodRef};
use super::volumes;

/// What the containers of a pod share.
pub(super) struct PodContext {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) volumes: PodVolumes,
    pub(super) address: Ipv4Addr,
    pub(super) dir: PathBuf,
    pub(super) stop: Stop,
}

/// Runs the container, again and again as the pod's restart policy says; returns when it will not be started any more.
/// Returns whether its last run succeeded.
pub(super) async fn run(pod: &PodContext, container: &Container, kind: Kind) -> bool {
    let mut restarts = 0;
    let mut crashes = 0;
    loop {
        let mut stop = pod.stop.clone();
        let prepared = tokio::select! {
            prepared = prepare(pod, container, kind) => prepared,
            _ = stop.wait_for(Option::is_some) => return false,
        };
        let started = Instant::now();
        let code = start_and_supervise(pod, container, kind, prepared).await;
        let succeeded = code == 0;
        if !starts_again(&pod.pod, kind, succeeded) || pod.stop.borrow().is_some() {
            return succeeded;
        }
        restarts += 1;
        let calm = Duration::from_millis(pod.context.args.crash_backoff_max_ms) * 2;
        crashes = if started.elapsed() > calm { 1 } else { crashes + 1 };
        let wait = pod.context.args.crash_backoff(crashes);
        let message = format!("back-off {wait:?} restarting failed container={}", container.name);
        pod.reporter.update(kind, &container.name, |status| {
            set_waiting(status, "CrashLoopBackOff", &message);
            status.restart_count += 1;
        });
        tracing::debug!(pod = pod.pod.name_any(), container = container.name, restarts, "restarting");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(Option::is_some) => return false,
        }
    }
}

struct Prepared {
    image_id: String,
    launch: Launch,
    mounts: Mounts,
}

/// Pulls and configures until that works, saying meanwhile why it does not.
async fn prepare(pod: &PodContext, container: &Container, kind: Kind) -> Prepared {
    let image = container.image.clone().unwrap_or_default();
    let mut attempts = 0_u32;
    loop {
        let (reason, message, wait) = match pod.context.images.pull(&image) {
            Ok(pulled) => match configure(pod, container, pulled).await {
                Ok(prepared) => return prepared,
                Err(message) => ("CreateContainerConfigError", message, Duration::from_millis(500)),
            },
            Err(error) => {
                attempts += 1;
                let wait = pod.context.args.crash_backoff(attempts);
                pod.reporter.update(kind, &container.name, |status| {
                    set_waiting(status, "ErrImagePull", &error.to_string());
                });
                tokio::time::sleep(wait / 2).await;
                ("ImagePullBackOff", format!("Back-off pulling image \"{image}\": {error}"), wait / 2)
            }
        };
        pod.reporter.update(kind, &container.name, |status| set_waiting(status, reason, &message));
        tokio::time::sleep(wait).await;
    }
}

async fn configure(pod: &PodContext, container: &Container, pulled: Pulled) -> Result<Prepared, String> {
    if container.lifecycle.is_some() || container.restart_policy.is_some() {
        return Err("the rig's kubelet knows neither lifecycle hooks nor sidecars among the init containers".to_owned());
    }
    let root = pod.dir.join("root").join(&container.name);
    std::fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let (mounts, mount_env) = volumes::mount(&pod.volumes, container, &root)?;
    let mut base: Vec<(String, String)> = vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), pod.pod.name_any()),
        ("HOME".to_owned(), root.display().to_string()),
        ("POD_IP".to_owned(), pod.address.to_string()),
        (ROOT_DIR.to_owned(), root.display().to_string()),
    ];
    base.extend(pulled.env);
    base.extend(mount_env);
    if let Some(port) = container.ports.iter().flatten().next() {
        base.push(("PORT".to_owned(), port.container_port.to_string()));
    }
    let env = environment::resolve(&pod.context.client, &pod.pod, container, base, &mounts).await?;
    let known = env.iter().cloned().collect();
    let word = |word: &String| environment::on_host(&environment::expand(word, &known), &mounts);
    let given = |words: &Option<Vec<String>>| words.iter().flatten().map(word).collect::<Vec<_>>();
    let mut argv = given(&container.command);
    if argv.is_empty() {
        argv = pulled.entrypoint;
    }
    argv.extend(given(&container.args));
    let dir = container.working_dir.as_ref().map_or_else(
        || root.clone(),
        |dir| match environment::on_host(dir, &mounts) {
            real if real != *dir => real.into(),
            inside => root.join(inside.trim_start_matches('/')),
        },
    );
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let namespace = pod.pod.namespace().unwrap_or_default();
    let log = format!("{namespace}_{}_{}_{}.log", pod.pod.name_any(), uid(&pod.pod), container.name);
    let output = pod.context.args.pods_dir.join("logs").join(log);
    Ok(Prepared { image_id: pulled.id, launch: Launch { argv, env, dir, output }, mounts })
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// Entry of the run log about a container.
fn entry(pod: &PodContext, container: &Container, event: Event) -> Entry {
    Entry {
        pod: Some(PodRef::of(&pod.pod)),
        container: Some(container.name.clone()),
        image: container.image.clone(),
        claims: pod.volumes.claims.clone(),
        ..Entry::bare(event)
    }
}

/// Runs the process to its end and returns its exit code.
async fn start_and_supervise(pod: &PodContext, container: &Container, kind: Kind, prepared: Prepared) -> i32 {
    let Prepared { image_id, launch, mounts } = prepared;
    let target = Target {
        context: Arc::clone(&pod.context),
        container: container.clone(),
        address: pod.address,
        env: launch.env.clone(),
        mounts,
        dir: launch.dir.clone(),
    };
    let output = launch.output.clone();
    let output_from = std::fs::metadata(&output).map_or(0, |file| file.len());
    let log = &pod.context.log;
    log.write(&entry(pod, container, Event::Starting));
    let since: Time = Timestamp::now().into();
    let mut process = match pod.context.spawner.spawn(launch).await {
        Ok(process) => process,
        Err(error) => {
            log.write(&Entry { exit_code: Some(128), ..entry(pod, container, Event::Stopped) });
            report_end(pod, container, kind, &since, 128, "StartError", Some(error.to_string()));
            return 128;
        }
    };
    pod.reporter.update(kind, &container.name, |status| {
        set_running(status, since.clone(), image_id, &format!("process://{}-{}", uid(&pod.pod), container.name));
    });
    let ended = supervise(pod, container, kind, &mut process, target).await;
    let (code, failure) = match ended {
        Ok(status) => (exit_code(status), None),
        Err(error) => (255, Some(error.to_string())),
    };
    log.write(&Entry { exit_code: Some(code), ..entry(pod, container, Event::Stopped) });
    let message = failure.or_else(|| {
        let from_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        (code != 0 && from_log).then(|| tail(&output, output_from))
    });
    report_end(pod, container, kind, &since, code, if code == 0 { "Completed" } else { "Error" }, message);
    code
}

fn report_end(
    pod: &PodContext,
    container: &Container,
    kind: Kind,
    since: &Time,
    code: i32,
    reason: &str,
    message: Option<String>,
) {
    let end = ContainerStateTerminated {
        exit_code: code,
        reason: Some(reason.to_owned()),
        message,
        started_at: Some(since.clone()),
        finished_at: Some(Timestamp::now().into()),
        ..ContainerStateTerminated::default()
    };
    pod.reporter.update(kind, &container.name, |status| set_ended(status, kind, end));
}

async fn supervise(
    pod: &PodContext,
    container: &Container,
    kind: Kind,
    process: &mut Process,
    target: Target,
) -> std::io::Result<ExitStatus> {
    let (sender, mut health) = mpsc::channel(4);
    let probing = async move {
        match kind {
            Kind::Init => drop(sender.send(Health::Started).await),
            Kind::Main => target.watch(sender).await,
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(probing);
    let mut stop = pod.stop.clone();
    let signals = process.signals();
    let wait = process.wait();
    tokio::pin!(wait);
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = &mut wait => return ended,
            // Readiness is still asked while the process is being stopped, as a kubelet does.
            () = &mut probing => {}
            Some(health) = health.recv() => match health {
                Health::Kill(why) if kill_at.is_none() => {
                    tracing::info!(pod = pod.pod.name_any(), container = container.name, why, "stopping");
                    kill_at = Some(Instant::now() + grace(&pod.pod));
                    signals.terminate();
                }
                health => take_health(pod, container, kind, &health),
            },
            // The deadline may be brought forward while the process is already being stopped.
            Ok(deadline) = async { stop.changed().await.map(|()| *stop.borrow()) } => {
                if kill_at.is_none() {
                    signals.terminate();
                }
                kill_at = deadline.or(kill_at);
            }
            () = tokio::time::sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                signals.kill();
                return wait.await;
            }
        }
    }
}

fn take_health(pod: &PodContext, container: &Container, kind: Kind, health: &Health) {
    match health {
        Health::Started => pod.reporter.update(kind, &container.name, |status| status.started = Some(true)),
        Health::Ready(ready) => {
            let event = if *ready { Event::Ready } else { Event::Unready };
            pod.context.log.write(&entry(pod, container, event));
            pod.reporter.update(kind, &container.name, |status| status.ready = *ready);
        }
        Health::Kill(_) => {}
    }
}

/// The end of what this run of the container wrote.
fn tail(path: &std::path::Path, from: u64) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0).min(text.len()).max(text.len().saturating_sub(2048));
    String::from_utf8_lossy(text.split_at(from).1).into_owned()
}
