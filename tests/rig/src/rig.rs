//! The rig itself: starts everything in the right order and as much at once as possible, and ends it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use tempfile::TempDir;
use windlass_playground::apply;

use crate::audit::AuditEvent;
use crate::binaries::Binaries;
use crate::cluster::{self, COMPONENTS, Cluster};
use crate::csi::{self, CallRecord, Control};
use crate::flux;
use crate::git_host::{self, GitHost};
use crate::lines::read_json_lines;
use crate::options::{Options, User};
use crate::process::{Server, Spec};
use crate::ready::Ready;
use crate::storage::Storage;

/// Name of the administrator of the API server.
pub const ADMIN: &str = "rig-admin";

/// Field manager of what [`Rig::apply_yaml`] applies.
const FIELD_MANAGER: &str = "rig";

/// How long one server may take to become ready; generous, because a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server with the way to see that it is ready.
#[derive(Debug)]
struct Component {
    server: Server,
    ready: Ready,
}

/// A cluster of real servers, a Git host and what plays the parts no server can be had for.
///
/// Everything listens on loopback and keeps its data in one folder. Dropping the rig ends all processes and removes the
/// folder; so does the end of this process, except that the folder stays.
pub struct Rig {
    // Dropped in this order: first the processes, then their folder.
    components: Mutex<Vec<Component>>,
    cluster: Cluster,
    storage: Storage,
    git_host: Option<GitHost>,
    users: Vec<User>,
    admin: Client,
    binaries: Binaries,
    http: reqwest::Client,
    started_in: Duration,
    dir: PathBuf,
    _folder: Option<TempDir>,
}

impl Rig {
    /// Starts a rig and waits until all of it is ready.
    ///
    /// # Errors
    /// When the servers are not built, or one of them ends early or is not ready in time; with the end of its log.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        // Whoever else uses rustls in this process may have chosen already, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let began = Instant::now();
        let binaries = Binaries::locate()?;
        let rig_binary = match &options.rig_binary {
            Some(path) => path.clone(),
            None => rig_binary()?,
        };
        // PostgreSQL runs as somebody else and must get through to its own folder, but need not see what else is here.
        let mut folder = tempfile::Builder::new()
            .prefix("windlass-rig-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()?;
        folder.disable_cleanup(options.keep_folder);
        let dir = folder.path().to_owned();
        let starter = Starter {
            logs: dir.join("logs"),
            components: Mutex::new(Vec::new()),
            // The API server's certificate does not exist yet, and nothing secret is sent.
            http: reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build()?,
        };
        fs::create_dir(&starter.logs)?;
        let mut users = vec![User::new(ADMIN, &["system:masters"])];
        users.extend(COMPONENTS.iter().map(|component| User::new(component, &["system:masters"])));
        users.extend(options.users.iter().cloned());
        let cluster = Cluster::prepare(&dir, &starter.logs, &users).await?;
        let storage = Storage::new(&dir);

        let (admin, git_host) = tokio::try_join!(
            starter.start_cluster(&options, &cluster, &storage, &binaries, &rig_binary, &dir),
            starter.start_git_host(&options, &binaries, &dir),
        )?;
        let rig = Self {
            components: starter.components,
            cluster,
            storage,
            git_host,
            users,
            admin,
            binaries,
            http: starter.http,
            started_in: began.elapsed(),
            dir,
            _folder: Some(folder),
        };
        rig.check()?;
        Ok(rig)
    }

    /// How long [`Rig::start`] took.
    #[must_use]
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Ends all processes, newest first, and removes the folder.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end_processes();
        match self._folder.take() {
            Some(folder) => folder.close().context("removing the rig's folder"),
            None => Ok(()),
        }
    }

    fn end_processes(&self) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(component) = components.pop() {
            component.server.kill();
        }
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder with the output of every component, `<name>.log`.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The folder in which a volume's bytes are, under its handle (which is the name of its PersistentVolume).
    #[must_use]
    pub fn volumes_dir(&self) -> PathBuf {
        csi::volumes_dir(&self.storage.root)
    }

    /// The folder in which a snapshot's bytes are, under its handle.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        csi::snapshots_dir(&self.storage.root)
    }

    /// The file of the CSI driver's calls; [`Rig::csi_calls`] reads it.
    #[must_use]
    pub fn csi_log(&self) -> PathBuf {
        csi::call_log(&self.storage.root)
    }

    /// The file in which the small kubelet says what it ran, and when.
    #[must_use]
    pub fn kubelet_run_log(&self) -> PathBuf {
        run_log(&self.dir)
    }

    /// All calls the CSI driver has answered, in the order of the answers.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn csi_calls(&self) -> anyhow::Result<Vec<CallRecord>> {
        read_json_lines(&self.csi_log())
    }

    /// Makes the CSI driver behave in this way from its next call on.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn control_csi(&self, control: &Control) -> anyhow::Result<()> {
        Ok(control.write(&csi::control_file(&self.storage.root))?)
    }

    /// All requests the API server has answered so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit(&self) -> anyhow::Result<Vec<AuditEvent>> {
        read_json_lines(&self.cluster.audit_log())
    }

    /// The file that [`Rig::audit`] reads.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.cluster.audit_log()
    }

    /// A client that may do everything.
    #[must_use]
    pub fn admin_client(&self) -> Client {
        self.admin.clone()
    }

    /// A client that acts as the user of that name.
    ///
    /// # Errors
    /// When no such user was named in the options.
    pub async fn client_for(&self, user: &str) -> anyhow::Result<Client> {
        self.cluster.client(&self.user(user)?.name).await
    }

    /// The kubeconfig of the user of that name ([`ADMIN`] for the administrator).
    ///
    /// # Errors
    /// When no such user was named in the options.
    pub fn kubeconfig_for(&self, user: &str) -> anyhow::Result<PathBuf> {
        Ok(self.cluster.kubeconfig(&self.user(user)?.name))
    }

    fn user(&self, name: &str) -> anyhow::Result<&User> {
        let found = self.users.iter().find(|user| user.name == name);
        found.with_context(|| format!("the rig was started without a user {name}"))
    }

    /// Applies YAML documents of any kinds as the administrator, in order, by server-side apply.
    ///
    /// # Errors
    /// When a kind stays unknown for ten seconds or the server refuses an object.
    pub async fn apply_yaml(&self, yaml: &str) -> anyhow::Result<()> {
        apply(&self.admin, FIELD_MANAGER, yaml).await
    }

    /// The Git host.
    ///
    /// # Errors
    /// When the rig was started without one.
    pub fn gitea(&self) -> anyhow::Result<&GitHost> {
        self.git_host.as_ref().context("the rig was started without a Git host")
    }

    /// The Helm binary of the rig.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.binaries.helm()
    }

    /// Names of the components, in the order of their start.
    #[must_use]
    pub fn components(&self) -> Vec<String> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|component| component.server.name().to_owned()).collect()
    }

    /// Process ids of the components that run, in the order of their start.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().filter_map(|component| component.server.pid()).collect()
    }

    /// Asks one component to end and waits for it, at most ten seconds.
    ///
    /// # Errors
    /// When there is no component of that name.
    pub fn stop_component(&self, name: &str) -> anyhow::Result<()> {
        self.with_component(name, |component| {
            component.server.stop(Duration::from_secs(10));
            Ok(())
        })
    }

    /// Ends one component and what it started at once, as a crash would.
    ///
    /// # Errors
    /// When there is no component of that name.
    pub fn kill_component(&self, name: &str) -> anyhow::Result<()> {
        self.with_component(name, |component| {
            component.server.kill();
            Ok(())
        })
    }

    /// Starts a stopped component again, with the same arguments and ports, and waits until it is ready.
    ///
    /// # Errors
    /// When there is no component of that name, or it does not become ready.
    pub async fn start_component(&self, name: &str) -> anyhow::Result<()> {
        let ready = self.with_component(name, |component| {
            component.server.start()?;
            Ok(component.ready.clone())
        })?;
        let deadline = Instant::now() + PATIENCE;
        while !ready.look(&self.http).await {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{name} was not ready after {PATIENCE:?}; see {}", self.logs_dir().display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn with_component<T>(&self, name: &str, act: impl FnOnce(&Component) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let found = components.iter().find(|component| component.server.name() == name);
        act(found.with_context(|| format!("the rig was started without a component {name}"))?)
    }

    /// Looks whether every component that should run does.
    ///
    /// # Errors
    /// When one has ended by itself; with the end of its log.
    pub fn check(&self) -> anyhow::Result<()> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        for Component { server, .. } in components.iter() {
            if let Some(status) = server.exited() {
                bail!("{} has ended ({status}); the end of its log:{}", server.name(), server.tail());
            }
        }
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end_processes();
    }
}

fn run_log(dir: &Path) -> PathBuf {
    dir.join("kubelet-runs.jsonl")
}

/// Starts components; those started are ended again when it is dropped half way.
struct Starter {
    logs: PathBuf,
    components: Mutex<Vec<Component>>,
    http: reqwest::Client,
}

impl Starter {
    /// Starts a server and waits until it is ready.
    async fn start(&self, (spec, ready): (Spec, Ready)) -> anyhow::Result<()> {
        let server = Server::spawn(spec, &self.logs)?;
        server.wait_until(PATIENCE, || ready.look(&self.http)).await?;
        self.components.lock().unwrap_or_else(PoisonError::into_inner).push(Component { server, ready });
        Ok(())
    }

    async fn start_cluster(
        &self,
        options: &Options,
        cluster: &Cluster,
        storage: &Storage,
        binaries: &Binaries,
        rig: &Path,
        dir: &Path,
    ) -> anyhow::Result<Client> {
        self.start(cluster.etcd(binaries)).await?;
        self.start(cluster.api_server(binaries)).await?;
        let admin = cluster.client(ADMIN).await?;
        let mut specs = vec![cluster.controller_manager(binaries), cluster.scheduler(binaries)];
        // These need no custom resources, so they come up while the definitions are applied.
        let early = futures::future::try_join_all(specs.drain(..).map(|spec| self.start(spec)));
        let crds = binaries.crds()?;
        let definitions = futures::future::try_join_all(crds.iter().map(|crd| apply(&admin, FIELD_MANAGER, crd)));
        tokio::try_join!(early, definitions)?;
        cluster::served(&admin, &crds).await?;
        apply(&admin, FIELD_MANAGER, &Cluster::objects(options.fake_nodes)).await?;

        if options.fake_nodes > 0 {
            specs.push(cluster.kwok(binaries));
        }
        if options.storage {
            // The sidecars give up when the driver's socket is not there.
            self.start(storage.driver(rig)).await?;
            specs.extend(storage.controllers(cluster, binaries));
        }
        if options.kubelet {
            specs.push(kubelet(cluster, storage, rig, dir, &options.kubelet_args));
        }
        if options.kustomize_controller {
            specs.push(flux::kustomize_controller(cluster, binaries, dir)?);
        }
        if options.source_and_helm_controllers {
            specs.push(flux::source_controller(cluster, rig, dir)?);
            specs.push(flux::helm_controller(cluster, binaries, rig, dir)?);
        }
        futures::future::try_join_all(specs.into_iter().map(|spec| self.start(spec))).await?;
        Ok(admin)
    }

    async fn start_git_host(
        &self,
        options: &Options,
        binaries: &Binaries,
        dir: &Path,
    ) -> anyhow::Result<Option<GitHost>> {
        if !options.git_host {
            return Ok(None);
        }
        let plan = git_host::Plan::new(dir)?;
        plan.prepare(binaries, &self.logs).await?;
        self.start(plan.database(binaries)).await?;
        self.start(plan.gitea(binaries)).await?;
        Ok(Some(plan.enter(binaries, &self.logs).await?))
    }
}

fn kubelet(cluster: &Cluster, storage: &Storage, rig: &Path, dir: &Path, more: &[String]) -> (Spec, Ready) {
    let spec = Spec::new("kubelet", rig)
        .arg("kubelet")
        .arg(format!("--csi-driver={}", csi::DRIVER))
        .arg(format!("--volumes-dir={}", csi::volumes_dir(&storage.root).display()))
        .arg(format!("--pods-dir={}", dir.join("pods").display()))
        .arg(format!("--run-log={}", run_log(dir).display()))
        .args(more.iter().cloned())
        .env("KUBECONFIG", cluster.kubeconfig("kubelet").to_string_lossy());
    (spec, Ready::Started)
}

/// The program whose subcommands are the CSI driver, the kubelet and the stand-ins.
fn rig_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WINDLASS_RIG_BINARY") {
        return Ok(PathBuf::from(path));
    }
    const NAME: &str = "windlass-rig";
    let this = std::env::current_exe()?;
    if this.file_name().is_some_and(|name| name == NAME) {
        return Ok(this);
    }
    // Tests are one folder below the binaries.
    let near = this.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).find(|path| path.is_file());
    near.with_context(|| format!("there is no {NAME} next to {}: run `cargo build -p windlass-rig`", this.display()))
}
