//! The operator as a child process: this very program, started with a hidden flag.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::Parser as _;

/// Starts, kills and starts again.
pub(super) struct OperatorProcess {
    kubeconfig: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
    /// How often it was killed.
    pub(super) killed: u32,
}

impl OperatorProcess {
    pub(super) fn new(kubeconfig: PathBuf, folder: &Path) -> Self {
        Self { kubeconfig, folder: folder.to_owned(), child: None, killed: 0 }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("operator.log")
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = Command::new(std::env::current_exe()?)
            .args(["demo", "--run-operator", "--", "--lease-seconds=3", "--allow-file-repositories"])
            .args(["--listen=127.0.0.1:0", "--log=info,windlass_operator=debug"])
            .arg(format!("--git-cache={}", self.folder.join("operator-git").display()))
            .env("KUBECONFIG", &self.kubeconfig)
            // It ends when this pipe does, however this process ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the operator")?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL: what it was doing is cut off.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            let status = child.wait()?;
            anyhow::ensure!(status.signal() == Some(9), "the operator had ended by itself: {status}");
            self.killed += 1;
        }
        Ok(())
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the child does: the operator, until its standard input ends.
pub(crate) fn main(args: &[String]) -> ExitCode {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        #[allow(clippy::exit, reason = "whoever started it is gone, so there is nobody to tell")]
        std::process::exit(1);
    });
    let args = std::iter::once("windlass-operator").chain(args.iter().map(String::as_str));
    windlass_operator::main_with(windlass_operator::Args::parse_from(args))
}
