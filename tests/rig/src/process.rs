//! Child processes that cannot outlive this one: spawning, logs, stopping.
//!
//! The kernel's parent-death signal belongs to the *thread* that forked, so every child is spawned from one thread that
//! lives as long as the process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Lines of a log shown when a server dies.
const TAIL_LINES: usize = 15;

type SpawnRequest = (Command, Sender<io::Result<Child>>);

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<SpawnRequest>();
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                // A requester that is gone is no reason to stop serving the others.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (sender, reply) = channel();
    let gone = || io::Error::other("the spawning thread has ended");
    spawner.send((command, sender)).map_err(|_| gone())?;
    reply.recv().map_err(|_| gone())?
}

/// The account a server runs as.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How to start one server.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    directory: Option<PathBuf>,
    account: Option<Account>,
    death_signal: Signal,
}

impl Spec {
    pub(crate) fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            directory: None,
            account: None,
            death_signal: Signal::SIGKILL,
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Puts an argument before all others: the subcommand of a program that plays several parts.
    pub(crate) fn first_arg(mut self, arg: &str) -> Self {
        self.args.insert(0, arg.to_owned());
        self
    }

    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    pub(crate) fn account(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// The signal for the quickest clean end: sent when we die, and by [`Server::kill`].
    pub(crate) fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = signal;
        self
    }

    fn command(&self, log: File) -> io::Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg(format!("--pdeathsig={}", self.death_signal.as_str().trim_start_matches("SIG")));
        if let Some(account) = &self.account {
            command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
            command.arg("--clear-groups").env("USER", &account.name);
        }
        command.arg("--").arg(&self.program).args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        // A group of its own, so that what the server starts can be ended with it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// A server that can be stopped and started again with the same arguments.
#[derive(Debug)]
pub(crate) struct Server {
    spec: Spec,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts the server; its output is appended to `<logs>/<name>.log`.
    pub(crate) fn spawn(spec: Spec, logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{}.log", spec.name));
        let server = Self { spec, log, child: Mutex::new(None) };
        server.start()?;
        Ok(server)
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        // The guarded value is replaced whole, so a panic elsewhere cannot have left it half changed.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process unless it runs.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let command = self.spec.command(log)?;
        let spawned = spawn_from_lasting_thread(command)
            .with_context(|| format!("cannot start {} (setpriv of util-linux is needed)", self.spec.name))?;
        *child = Some(spawned);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// The exit status, if the process has been started and has ended by itself.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.child().as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Asks the process group to end, and kills it when `grace` has passed.
    pub(crate) fn stop(&self, grace: Duration) {
        self.end(Signal::SIGTERM, grace);
    }

    /// Ends the process group at once, as a crash would.
    pub(crate) fn kill(&self) {
        self.end(self.spec.death_signal, Duration::from_secs(3));
    }

    fn end(&self, signal: Signal, grace: Duration) {
        let Some(mut child) = self.child().take() else { return };
        let group = Pid::from_raw(child.id().cast_signed());
        if matches!(child.try_wait(), Ok(None)) {
            // Each call fails only when nothing of the group is left, which is the goal.
            let _ = killpg(group, signal);
            let deadline = Instant::now() + grace;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The last lines of the server's log.
    pub(crate) fn tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).fold(String::new(), |all, line| all + "\n    " + line)
    }

    /// Waits until `probe` says yes.
    ///
    /// # Errors
    /// When the process ends first or `limit` passes; both with the tail of its log.
    pub(crate) async fn wait_until<F>(&self, limit: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<()>
    where
        F: Future<Output = bool>,
    {
        let deadline = Instant::now() + limit;
        while !probe().await {
            if let Some(status) = self.exited() {
                bail!("{} ended early ({status}); the end of {}:{}", self.name(), self.log.display(), self.tail());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready after {limit:?}; {}:{}", self.name(), self.log.display(), self.tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short-lived command to its end.
///
/// # Errors
/// When it cannot be started or fails; with all it printed.
pub(crate) async fn run(spec: &Spec, logs: &Path) -> anyhow::Result<String> {
    let log = logs.join(format!("{}.log", spec.name));
    fs::remove_file(&log).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let server = Server::spawn(spec.clone(), logs)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = server.exited() {
            break status;
        }
        if Instant::now() > deadline {
            bail!("{} did not end within two minutes:{}", spec.name, server.tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    if !status.success() {
        bail!("{} failed ({status}):{}", spec.name, server.tail());
    }
    Ok(fs::read_to_string(log)?)
}
