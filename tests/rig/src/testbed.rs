//! A rig that stays: started in the background, found again by a state file, stopped by another command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;
use crate::rig::{ADMIN, Rig};

/// How long a rig may take to come up or go down.
const PATIENCE: Duration = Duration::from_secs(180);

/// What others need to know of a running rig.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    pid: i32,
    /// Kernel's start time of the process: a process id alone may be somebody else's by now.
    started: String,
    dir: PathBuf,
    kubeconfig: PathBuf,
    helm: PathBuf,
    volumes: PathBuf,
    logs: PathBuf,
    gitea_url: String,
    gitea_user: String,
    gitea_token: String,
    seconds_to_start: f64,
}

fn state_dir() -> PathBuf {
    std::env::temp_dir().join(format!("windlass-testbed-{}", unistd::getuid()))
}

fn state_file() -> PathBuf {
    state_dir().join("state.json")
}

fn read_state() -> anyhow::Result<Option<State>> {
    match fs::read(state_file()) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// When a process was started, in ticks since boot: field 22 of its `stat`, counted after the name in parentheses.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

impl State {
    fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }
}

/// Starts a rig in the background and waits until it is ready. Returns what to tell the user.
///
/// # Errors
/// When the rig does not come up; with the end of what it said.
pub fn up() -> anyhow::Result<String> {
    if let Some(state) = read_state()? {
        if state.is_alive() {
            return Ok(format!("The rig is up already, in {}.", state.dir.display()));
        }
        clean_up(&state)?;
    }
    fs::create_dir_all(state_dir())?;
    let log = state_dir().join("supervisor.log");
    let output = fs::File::create(&log)?;
    // A session of its own, so that closing the terminal does not take the rig with it.
    let mut supervisor = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .arg("supervise")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("starting the supervisor")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(state) = read_state()?
            && state.is_alive()
        {
            return Ok(format!(
                "The rig is up after {:.1} s, in {}. Enter it with: eval \"$(cargo xtask testbed env)\"",
                state.seconds_to_start,
                state.dir.display()
            ));
        }
        if let Some(status) = supervisor.try_wait()? {
            bail!("the rig did not come up ({status}):\n{}", fs::read_to_string(&log).unwrap_or_default());
        }
        if Instant::now() > deadline {
            // It ends its servers with itself.
            supervisor.kill()?;
            bail!("the rig did not come up within {PATIENCE:?}; see {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Stops the rig that [`up`] started. Returns what to tell the user.
///
/// # Errors
/// When it does not end in time.
pub fn down() -> anyhow::Result<String> {
    let Some(state) = read_state()? else { return Ok("No rig is up.".to_owned()) };
    let deadline = Instant::now() + PATIENCE;
    if state.is_alive() {
        match kill(Pid::from_raw(state.pid), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("stopping the rig"),
        }
    }
    while state.is_alive() {
        if Instant::now() > deadline {
            bail!("the rig (process {}) does not end", state.pid);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    clean_up(&state)?;
    Ok("The rig is down.".to_owned())
}

/// Removes what a supervisor leaves behind that was killed.
fn clean_up(state: &State) -> anyhow::Result<()> {
    for folder in [&state.dir, &state_dir()] {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// How to enter the rig, as lines for a shell.
///
/// # Errors
/// When no rig is up.
pub fn env() -> anyhow::Result<String> {
    let state = read_state()?.filter(State::is_alive).context("no rig is up: run `cargo xtask testbed up`")?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let variables = [
        ("KUBECONFIG", path(&state.kubeconfig)),
        ("WINDLASS_RIG_DIR", path(&state.dir)),
        ("WINDLASS_RIG_LOGS", path(&state.logs)),
        ("WINDLASS_RIG_VOLUMES", path(&state.volumes)),
        ("WINDLASS_RIG_HELM", path(&state.helm)),
        ("WINDLASS_RIG_GITEA_URL", state.gitea_url),
        ("WINDLASS_RIG_GITEA_USER", state.gitea_user),
        ("WINDLASS_RIG_GITEA_TOKEN", state.gitea_token),
    ];
    Ok(variables.iter().fold(String::new(), |text, (name, value)| text + &format!("export {name}='{value}'\n")))
}

/// Runs a rig until SIGTERM or SIGINT; what [`up`] starts in the background.
///
/// # Errors
/// When it cannot be started, or a component ends by itself.
pub async fn supervise() -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let rig = tokio::select! {
        rig = Rig::start(Options::default()) => rig?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let pid = i32::try_from(std::process::id())?;
    let gitea = rig.gitea()?;
    let state = State {
        pid,
        started: start_time(pid).context("reading this process's start time")?,
        dir: rig.dir().to_owned(),
        kubeconfig: rig.kubeconfig_for(ADMIN)?,
        helm: rig.helm(),
        volumes: rig.volumes_dir(),
        logs: rig.logs_dir(),
        gitea_url: gitea.url().to_owned(),
        gitea_user: gitea.admin().to_owned(),
        gitea_token: gitea.token().to_owned(),
        seconds_to_start: rig.started_in().as_secs_f64(),
    };
    let unfinished = state_dir().join("state.new");
    fs::write(&unfinished, serde_json::to_vec_pretty(&state)?)?;
    fs::rename(&unfinished, state_file())?;
    let mut watch = tokio::time::interval(Duration::from_secs(5));
    let mut reported = String::new();
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = watch.tick() => if let Err(error) = rig.check() {
                let text = format!("{error:#}");
                if text != reported {
                    tracing::error!("{text}");
                    reported = text;
                }
            }
        }
    }
    rig.stop()
}
