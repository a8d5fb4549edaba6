//! The real rig.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::Value;
use upgrade_core::ports::Clock;
use windlass_cli::SystemClock;
use windlass_rig::csi::{CallRecord, Control};
use windlass_rig::kubelet::Entry;
use windlass_rig::{ADMIN, ChartServer, Options, Rig, User};

use super::operator::ChildProcess;
use super::{AppClient, Estate, Login, OPERATOR_USER, Operator, Remote, Request, Rival};

/// Where the stand-in of source-controller looks for charts.
const CHARTS: &str = "source-controller/charts";

/// Where a person's clones are.
const CLONES: &str = "clones";

/// Where Gitea keeps the repositories of the team.
const REPOSITORIES: &str = "gitea/data/gitea-repositories/team";

/// Keeps the first push waiting, once it has sent everything, until somebody faster has pushed: then the branch is not what it was made on.
const OUTRUN: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.." && mv outrun-armed outrun-caught 2>/dev/null || exit 0
for _ in $(seq 600); do [ -e outrun-caught ] || exit 0; sleep 0.05; done
exit 1
"#;

/// A rig and the operator's process.
pub(crate) struct RealEstate {
    // Dropped first: it talks to the rig.
    operator: ChildProcess,
    charts: ChartServer,
    rig: Rig,
}

impl RealEstate {
    /// Starts the rig; the operator is not started yet.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let options = Options { users: vec![User::new(OPERATOR_USER, &[])], ..Options::default() };
        let rig = Rig::start(options).await?;
        println!("rig up in {:.1} s", rig.started_in().as_secs_f64());
        let charts = ChartServer::start(&rig.dir().join(CHARTS)).await?;
        Ok(Self { operator: ChildProcess::new(&rig)?, charts, rig })
    }
}

#[async_trait(?Send)]
impl Estate for RealEstate {
    fn client(&self) -> Client {
        self.rig.admin_client()
    }

    fn person(&self) -> String {
        ADMIN.to_owned()
    }

    fn operator(&self) -> &dyn Operator {
        &self.operator
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::default())
    }

    fn glance(&self) -> Duration {
        // A step is several requests, of a few milliseconds each.
        Duration::from_millis(2)
    }

    async fn repository(&self, name: &str) -> anyhow::Result<Remote> {
        let git = self.rig.gitea()?;
        let url = git.clone_url("team", name);
        if git.api(reqwest::Method::GET, &format!("/repos/team/{name}"), None).await.is_err() {
            git.create_repo("team", name).await?;
        }
        let clones = self.rig.dir().join(CLONES);
        std::fs::create_dir_all(&clones)?;
        Ok(Remote { url, own_url: git.clone_url_with_token("team", name), date: None, clones })
    }

    fn login(&self) -> Option<Login> {
        let git = self.rig.gitea().ok()?;
        Some((git.admin().to_owned(), git.token().to_owned()))
    }

    fn charts(&self) -> PathBuf {
        self.rig.dir().join(CHARTS)
    }

    fn chart_url(&self, name: &str) -> String {
        // Helm itself takes charts from there, too.
        self.charts.url(name)
    }

    async fn app(&self, namespace: &str, pod: &str) -> anyhow::Result<Arc<dyn AppClient>> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let ip = pods.get(pod).await?.status.and_then(|status| status.pod_ip).context("the pod has no address")?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Arc::new(HttpApp { client, url: format!("http://{ip}:8080/records") }))
    }

    fn runs(&self) -> anyhow::Result<Vec<Entry>> {
        let text = std::fs::read_to_string(self.rig.kubelet_run_log())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn driver_calls(&self) -> anyhow::Result<Vec<CallRecord>> {
        self.rig.csi_calls()
    }

    fn control_driver(&self, control: &Control) -> anyhow::Result<()> {
        self.rig.control_csi(control)
    }

    fn volume_folder(&self, handle: &str) -> PathBuf {
        self.rig.volumes_dir().join(handle)
    }

    fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let request = |event: windlass_rig::AuditEvent| {
            let (wrote, resource) = (event.is_write(), event.resource().unwrap_or_default());
            let object = event.object_ref.unwrap_or_default();
            Request { user: event.user.username, wrote, resource, namespace: object.namespace, name: object.name }
        };
        Ok(self.rig.audit()?.into_iter().map(request).collect())
    }

    async fn fetching(&self, on: bool) -> anyhow::Result<()> {
        if on {
            self.rig.start_component("source-controller").await
        } else {
            self.rig.kill_component("source-controller")
        }
    }

    async fn git(&self, reachable: bool) -> anyhow::Result<()> {
        if reachable { self.rig.start_component("gitea").await } else { self.rig.stop_component("gitea") }
    }

    fn outrun(&self, repository: &str, rival: Rival) -> anyhow::Result<()> {
        let hooks = self.rig.dir().join(REPOSITORIES).join(format!("{repository}.git/hooks"));
        let hook = hooks.join("pre-receive.d/outrun");
        std::fs::write(&hook, OUTRUN).with_context(|| hook.display().to_string())?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(hooks.join("outrun-armed"), "")?;
        std::thread::spawn(move || {
            let (began, caught) = (Instant::now(), hooks.join("outrun-caught"));
            while began.elapsed() < Duration::from_secs(180) {
                if caught.exists() {
                    rival();
                    let _ = std::fs::remove_file(&caught);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(())
    }
}

/// The app's HTTP side.
struct HttpApp {
    client: reqwest::Client,
    url: String,
}

#[async_trait]
impl AppClient for HttpApp {
    async fn append(&self, text: &str) -> bool {
        let answer = self.client.post(&self.url).body(text.to_owned()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn records(&self) -> anyhow::Result<Value> {
        Ok(self.client.get(&self.url).send().await?.error_for_status()?.json().await?)
    }
}
