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

/// Name of Gitea's administrator.
const ADMIN: &str = "rig-admin";

/// A running Gitea and how to enter it as its administrator.
#[derive(Debug, Clone)]
pub struct GitHost {
    url: String,
    password: String,
    token: String,
    http: reqwest::Client,
}

/// What is decided before the servers run.
#[derive(Debug)]
pub(crate) struct Plan {
    dir: PathBuf,
    url: String,
    database_port: u16,
    database_account: Option<Account>,
    password: String,
}

impl Plan {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            url: format!("http://127.0.0.1:{}", free_port()?),
            database_port: free_port()?,
            database_account: database_account()?,
            password: secret(),
        })
    }

    fn ini(&self) -> PathBuf {
        self.dir.join("gitea/app.ini")
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
             DISABLE_SSH = true\nOFFLINE_MODE = true\nSTATIC_ROOT_PATH = {static_root}\nLFS_START_SERVER = false\n\
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
        Ok(GitHost { url: self.url.clone(), password: self.password.clone(), token, http })
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
