//! A Git host: Gitea on PostgreSQL.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::options::secret;
use crate::ports::free_port;
use crate::process::{self, Account, Spec};
use crate::ready::Ready;

/// The user of every SSH connection; the key tells who it is.
const SSH_USER: &str = "git";

/// Name of Gitea's administrator.
const ADMIN: &str = "rig-admin";

/// A running Gitea and how to enter it as its administrator.
#[derive(Debug, Clone)]
pub struct GitHost {
    url: String,
    password: String,
    token: String,
    ssh_port: u16,
    host_key: String,
    http: reqwest::Client,
}

/// What is decided before the servers run.
#[derive(Debug)]
pub(crate) struct Plan {
    dir: PathBuf,
    url: String,
    ssh_port: u16,
    database_port: u16,
    database_account: Option<Account>,
    password: String,
}

impl Plan {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            url: format!("http://127.0.0.1:{}", free_port()?),
            ssh_port: free_port()?,
            database_port: free_port()?,
            database_account: database_account()?,
            password: secret(),
        })
    }

    fn ini(&self) -> PathBuf {
        self.dir.join("gitea/app.ini")
    }

    fn host_key(&self) -> PathBuf {
        self.dir.join("gitea/host-key")
    }

    /// Makes the database cluster and Gitea's configuration.
    pub(crate) async fn prepare(&self, binaries: &Binaries, logs: &Path) -> anyhow::Result<()> {
        let database = self.dir.join("postgres");
        fs::create_dir_all(&database)?;
        fs::create_dir_all(self.dir.join("gitea"))?;
        if let Some(account) = &self.database_account {
            chown(&database, Some(account.uid), Some(account.gid))?;
        }
        fs::set_permissions(&database, fs::Permissions::from_mode(0o700))?;
        let initdb = Spec::new("initdb", binaries.postgres("initdb"))
            .arg(format!("--pgdata={}", database.display()))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
            .directory(&database)
            .account(self.database_account.clone());
        process::run(&initdb, logs).await?;
        // Gitea's own would be RSA of 4096 bits, which takes seconds.
        let host_key = Spec::new("ssh-keygen", "ssh-keygen").args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "rig",
            "-f",
            &self.host_key().to_string_lossy(),
        ]);
        process::run(&host_key, logs).await.context("making the Git host's key")?;
        fs::write(self.ini(), self.ini_text(binaries)?)?;
        Ok(())
    }

    fn ini_text(&self, binaries: &Binaries) -> anyhow::Result<String> {
        let user = unistd::User::from_uid(unistd::geteuid())?.context("the current user has no name")?.name;
        let port = self.url.rsplit(':').next().unwrap_or_default();
        let work = self.dir.join("gitea");
        Ok(format!(
            "APP_NAME = rig\nRUN_MODE = prod\nRUN_USER = {user}\nWORK_PATH = {work}\n\
             [server]\nPROTOCOL = http\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = {url}/\n\
             START_SSH_SERVER = true\nSSH_DOMAIN = 127.0.0.1\nSSH_PORT = {ssh_port}\nSSH_LISTEN_HOST = 127.0.0.1\n\
             BUILTIN_SSH_SERVER_USER = {SSH_USER}\nSSH_SERVER_HOST_KEYS = {host_key}\nSSH_ROOT_PATH = {work}/ssh\n\
             SSH_CREATE_AUTHORIZED_KEYS_FILE = false\nOFFLINE_MODE = true\nSTATIC_ROOT_PATH = {static_root}\nLFS_START_SERVER = false\n\
             [database]\nDB_TYPE = postgres\nHOST = 127.0.0.1:{database_port}\nNAME = postgres\nUSER = postgres\n\
             SSL_MODE = disable\n\
             [security]\nINSTALL_LOCK = true\nSECRET_KEY = {secret}\n\
             [log]\nMODE = console\nLEVEL = Info\n\
             [service]\nDISABLE_REGISTRATION = true\n\
             [repository]\nDEFAULT_BRANCH = main\n\
             [webhook]\nALLOWED_HOST_LIST = loopback\n\
             [cron]\nENABLED = false\n[indexer]\nISSUE_INDEXER_TYPE = db\n[queue]\nTYPE = channel\n\
             [actions]\nENABLED = false\n[packages]\nENABLED = false\n[mailer]\nENABLED = false\n",
            work = work.display(),
            url = self.url,
            ssh_port = self.ssh_port,
            host_key = self.host_key().display(),
            static_root = binaries.gitea_static().display(),
            database_port = self.database_port,
            secret = self.password,
        ))
    }

    pub(crate) fn database(&self, binaries: &Binaries) -> (Spec, Ready) {
        let database = self.dir.join("postgres");
        let spec = Spec::new("postgres", binaries.postgres("postgres"))
            .args(["-D", &database.to_string_lossy(), "-p", &self.database_port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            // The data lives as long as the rig.
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .directory(&database)
            .account(self.database_account.clone())
            // Ends its own children too, where SIGKILL would leave shared memory behind.
            .death_signal(Signal::SIGQUIT);
        (spec, Ready::Word(database.join("postmaster.pid"), "ready"))
    }

    fn command(&self, name: &str, binaries: &Binaries) -> Spec {
        let spec = Spec::new(name, binaries.gitea())
            .env("GITEA_WORK_DIR", self.dir.join("gitea").to_string_lossy())
            .env("HOME", self.dir.join("gitea").to_string_lossy());
        // The build is cached where only its owner may look, so Gitea has to run as that owner, even when it is root.
        if unistd::geteuid().is_root() { spec.env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true") } else { spec }
    }

    pub(crate) fn gitea(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = self.command("gitea", binaries).args(["web", "--config", &self.ini().to_string_lossy()]);
        (spec, Ready::Http(format!("{}/api/healthz", self.url)))
    }

    /// Makes the administrator; Gitea must be running.
    pub(crate) async fn enter(&self, binaries: &Binaries, logs: &Path) -> anyhow::Result<GitHost> {
        let create = self
            .command("gitea-admin", binaries)
            .args(["admin", "user", "create", "--config", &self.ini().to_string_lossy(), "--admin"])
            .args(["--username", ADMIN, "--password", &self.password, "--email", "rig-admin@example.com"])
            .arg("--must-change-password=false");
        process::run(&create, logs).await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        let answer = http
            .post(format!("{}/api/v1/users/{ADMIN}/tokens", self.url))
            .basic_auth(ADMIN, Some(&self.password))
            .json(&json!({"name": "rig", "scopes": ["all"]}))
            .send()
            .await?;
        let answer: Value = success(answer).await.context("making a Gitea token")?.json().await?;
        let token = answer.get("sha1").and_then(Value::as_str).context("Gitea's answer holds no token")?.to_owned();
        let host_key = fs::read_to_string(self.host_key().with_extension("pub"))?.trim().to_owned();
        let (url, password) = (self.url.clone(), self.password.clone());
        Ok(GitHost { url, password, token, ssh_port: self.ssh_port, host_key, http })
    }
}

/// PostgreSQL refuses to run as root.
fn database_account() -> anyhow::Result<Option<Account>> {
    if !unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = unistd::User::from_name("postgres")?.context("there is no user `postgres` to run PostgreSQL as")?;
    Ok(Some(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

impl GitHost {
    /// Base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Name of the administrator.
    #[must_use]
    pub fn admin(&self) -> &str {
        ADMIN
    }

    /// Password of the administrator.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// API token of the administrator, good for everything.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// URL to clone a repository from, without credentials.
    #[must_use]
    pub fn clone_url(&self, owner: &str, name: &str) -> String {
        format!("{}/{owner}/{name}.git", self.url)
    }

    /// The same with the administrator's credentials in it.
    #[must_use]
    pub fn clone_url_with_token(&self, owner: &str, name: &str) -> String {
        self.clone_url(owner, name).replacen("http://", &format!("http://{ADMIN}:{}@", self.token), 1)
    }

    /// The same over SSH.
    #[must_use]
    pub fn ssh_url(&self, owner: &str, name: &str) -> String {
        format!("ssh://{SSH_USER}@127.0.0.1:{}/{owner}/{name}.git", self.ssh_port)
    }

    /// The line for a file `known_hosts` by which the SSH server is known; from its own key file.
    #[must_use]
    pub fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}\n", self.ssh_port, self.host_key)
    }

    /// Lets the owner of an SSH key (its public half, as `ssh-keygen` writes it) read a repository, and `push` if told so.
    ///
    /// # Errors
    /// When Gitea cannot be reached or refuses, for instance because it knows the key already.
    pub async fn add_deploy_key(&self, owner: &str, name: &str, key: &str, push: bool) -> anyhow::Result<()> {
        let body = json!({"title": key, "key": key, "read_only": !push});
        self.api(reqwest::Method::POST, &format!("/repos/{owner}/{name}/keys"), Some(&body)).await?;
        Ok(())
    }

    /// Calls Gitea's REST API (`path` starts after `/api/v1`) as the administrator.
    ///
    /// # Errors
    /// When Gitea cannot be reached or does not answer with success; with what it said.
    pub async fn api(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let request = self.http.request(method.clone(), format!("{}/api/v1{path}", self.url));
        let request = request.header("Authorization", format!("token {}", self.token));
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = success(request.send().await?).await.with_context(|| format!("{method} {path}"))?;
        let text = answer.text().await?;
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// Creates a private, empty repository; the owner, unless it is the administrator, is made an organisation if it does
    /// not exist yet. Returns the URL to clone from, without credentials.
    ///
    /// # Errors
    /// When Gitea cannot be reached or refuses, for instance because the repository exists.
    pub async fn create_repo(&self, owner: &str, name: &str) -> anyhow::Result<String> {
        let known = self.http.get(format!("{}/api/v1/users/{owner}", self.url)).bearer_auth(&self.token).send().await?;
        if known.status() == StatusCode::NOT_FOUND {
            self.api(reqwest::Method::POST, "/orgs", Some(&json!({"username": owner}))).await?;
        }
        let body = json!({"name": name, "private": true, "default_branch": "main"});
        self.api(reqwest::Method::POST, &format!("/admin/users/{owner}/repos"), Some(&body)).await?;
        Ok(self.clone_url(owner, name))
    }
}

async fn success(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if !status.is_success() {
        bail!("Gitea answered {status}: {}", answer.text().await.unwrap_or_default());
    }
    Ok(answer)
}
