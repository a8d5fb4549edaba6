//! The operator as a child process, so that it can be killed.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use windlass_rig::{Binaries, Rig, free_port};

use super::{OPERATOR_USER, Operator, SYSTEM};

/// The program `windlass-operator`, next to this one.
pub(crate) struct ChildProcess {
    program: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
    cache: PathBuf,
    helm: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl ChildProcess {
    pub(crate) fn new(rig: &Rig) -> anyhow::Result<Self> {
        let mine = std::env::current_exe()?;
        let program = mine.with_file_name("windlass-operator");
        anyhow::ensure!(program.is_file(), "{} is not built: cargo build -p windlass-operator", program.display());
        Ok(Self {
            program,
            kubeconfig: rig.kubeconfig_for(OPERATOR_USER)?,
            log: rig.dir().join("logs/windlass-operator.log"),
            cache: rig.dir().join("windlass-git"),
            helm: Binaries::locate()?.helm(),
            port: free_port()?,
            child: Mutex::new(None),
        })
    }

    /// Sends it a signal, if it runs.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if let Some(child) = &*self.child.lock().unwrap_or_else(PoisonError::into_inner) {
            nix::sys::signal::kill(Pid::from_raw(child.id().try_into()?), signal)?;
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Operator for ChildProcess {
    fn start(&self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        // It must not outlive the tests. The parent is the process, and this thread lives as long as it does.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(["--namespace", SYSTEM, "--lease-seconds", "3", "--log", "info,windlass_operator=debug"])
            .arg(format!("--listen=127.0.0.1:{}", self.port))
            .arg(format!("--git-cache={}", self.cache.display()))
            .arg(format!("--helm={}", self.helm.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("starting the operator")?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    fn freeze(&self, frozen: bool) -> anyhow::Result<bool> {
        self.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        Ok(true)
    }

    fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    async fn terminate(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.signal(Signal::SIGTERM)?;
        let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            anyhow::bail!("it does not run");
        };
        let status = child.wait()?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(began.elapsed())
    }

    async fn is_ready(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let client = reqwest::Client::builder().no_proxy().build();
        match client {
            Ok(client) => client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()),
            Err(_) => false,
        }
    }

    fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
