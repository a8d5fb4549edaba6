//! Processes that cannot outlive the kubelet.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Name of the variable by which processes of a kubelet are found again after it crashed.
pub(super) const ROOT_DIR: &str = "ROOT_DIR";

/// What to run.
#[derive(Debug)]
pub(super) struct Launch {
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) dir: PathBuf,
    /// Where standard output and error are appended.
    pub(super) output: PathBuf,
}

type Request = (Launch, oneshot::Sender<std::io::Result<Child>>);

/// Starts processes from one thread that lives as long as the kubelet: the kernel ties "die with your parent" to the
/// thread that forked, and a runtime's worker threads may end earlier.
pub(super) struct Spawner(std::sync::mpsc::Sender<Request>);

impl Spawner {
    pub(super) fn start() -> anyhow::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel::<Request>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                for (launch, reply) in receiver {
                    // A requester that went away drops the child, which kills it.
                    drop(reply.send(spawn(&launch)));
                }
            })
            .context("starting the spawner thread")?;
        Ok(Self(sender))
    }

    pub(super) async fn spawn(&self, launch: Launch) -> std::io::Result<Process> {
        let (reply, answer) = oneshot::channel();
        let gone = || std::io::Error::other("the spawner thread is gone");
        self.0.send((launch, reply)).map_err(|_| gone())?;
        let child = answer.await.map_err(|_| gone())??;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw).ok_or_else(gone)?;
        Ok(Process { child, pid })
    }
}

fn spawn(launch: &Launch) -> std::io::Result<Child> {
    let output = File::options().create(true).append(true).open(&launch.output)?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(&launch.argv)
        .env_clear()
        .envs(launch.env.iter().map(|(key, value)| (key, value)))
        .current_dir(&launch.dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// A running process and whatever it started (one process group).
pub(super) struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// A handle for signals, of use until [`Self::wait`] has returned.
    pub(super) fn signals(&self) -> Signals {
        Signals(self.pid)
    }

    /// Waits for the process to end, then removes what is left of its group.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // The group is empty as a rule; then there is nothing to signal.
        killpg(self.pid, Signal::SIGKILL).ok();
        Ok(status)
    }
}

/// Signals to a process that was not waited for yet. (One that ended in between is reported by `wait`.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Signals(Pid);

impl Signals {
    /// SIGTERM to the process itself, as a container's first process gets it.
    pub(super) fn terminate(self) {
        kill(self.0, Signal::SIGTERM).ok();
    }

    /// SIGKILL to the process and what it started.
    pub(super) fn kill(self) {
        killpg(self.0, Signal::SIGKILL).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while it was not waited for: afterwards the number may belong to somebody else.
        if self.child.id().is_some() {
            self.signals().kill();
        }
    }
}

/// Exit code as a container runtime reports it: 128 + signal when a signal ended the process.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Kills what processes of an earlier kubelet on the same directory had started themselves. (The processes themselves died
/// with it.) They are told by the [`ROOT_DIR`] they inherited.
pub(super) fn kill_stale(pods_dir: &Path) {
    let mut mark = OsString::from(format!("{ROOT_DIR}="));
    mark.push(pods_dir);
    mark.push("/");
    let mark = mark.as_encoded_bytes();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(mark)) {
            tracing::warn!(pid, "killing a process of an earlier kubelet");
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}
