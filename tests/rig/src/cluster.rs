//! The API server and what belongs to every cluster: etcd, controllers, scheduler, fake nodes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;

use crate::binaries::Binaries;
use crate::options::User;
use crate::ports::free_port;
use crate::process::{self, Spec};
use crate::ready::Ready;

const AUDIT_POLICY: &str = include_str!("../manifests/audit-policy.yaml");
/// How long a kind may take to be served after it was defined.
const SERVED: Duration = Duration::from_secs(30);
const STAGES: &str = include_str!("../manifests/kwok-stages.yaml");

/// Servers of the rig that talk to the API server, each as a user of its own so that the audit log tells them apart.
pub(crate) const COMPONENTS: [&str; 10] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "csi-provisioner",
    "csi-snapshotter",
    "snapshot-controller",
    "kustomize-controller",
    "source-controller",
    "helm-controller",
    "kubelet",
];

/// Files and addresses of one cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
    url: String,
    port: u16,
    etcd_url: String,
    etcd_peer_url: String,
}

impl Cluster {
    /// Writes the files that the servers read: keys, tokens, policies and a kubeconfig per user.
    pub(crate) async fn prepare(dir: &Path, logs: &Path, users: &[User]) -> anyhow::Result<Self> {
        let dir = dir.to_owned();
        fs::create_dir_all(dir.join("kubeconfigs"))?;
        let port = free_port()?;
        let cluster = Self {
            url: format!("https://127.0.0.1:{port}"),
            port,
            etcd_url: format!("http://127.0.0.1:{}", free_port()?),
            etcd_peer_url: format!("http://127.0.0.1:{}", free_port()?),
            dir,
        };
        let key = cluster.file("service-account.key");
        // EC, because an RSA pair takes a noticeable part of a second; in the old form, the only one in which the API
        // server finds the public half too.
        let openssl =
            Spec::new("openssl", "openssl").args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", &key]);
        process::run(&openssl, logs).await.context("making the service account key")?;
        fs::write(cluster.dir.join("audit-policy.yaml"), AUDIT_POLICY)?;
        fs::write(cluster.dir.join("kwok-stages.yaml"), STAGES)?;
        let mut tokens = String::new();
        for (number, user) in users.iter().enumerate() {
            writeln!(tokens, "{},{},uid-{number},\"{}\"", user.token, user.name, user.groups.join(","))?;
            fs::write(cluster.kubeconfig(&user.name), cluster.kubeconfig_text(user)?)?;
        }
        fs::write(cluster.dir.join("tokens.csv"), tokens)?;
        Ok(cluster)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Where the kubeconfig of a user is.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join("kubeconfigs").join(user.replace([':', '/'], "_"))
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    fn kubeconfig_text(&self, user: &User) -> anyhow::Result<String> {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rig", "cluster": {
                "server": self.url,
                "certificate-authority": self.file("certificates/apiserver.crt"),
            }}],
            "users": [{"name": user.name, "user": {"token": user.token}}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": user.name, "namespace": "default"}}],
            "current-context": "rig",
        });
        Ok(serde_yaml_ng::to_string(&config)?)
    }

    /// A client that acts as `user`.
    pub(crate) async fn client(&self, user: &str) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).with_context(|| format!("no user {user}"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    pub(crate) fn etcd(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = Spec::new("etcd", binaries.server("etcd"))
            .arg(format!("--data-dir={}", self.file("etcd")))
            .arg(format!("--listen-client-urls={}", self.etcd_url))
            .arg(format!("--advertise-client-urls={}", self.etcd_url))
            .arg(format!("--listen-peer-urls={}", self.etcd_peer_url))
            .arg(format!("--initial-advertise-peer-urls={}", self.etcd_peer_url))
            .arg(format!("--initial-cluster=default={}", self.etcd_peer_url))
            // The data lives as long as the rig, and a power cut is not part of any test.
            .args(["--unsafe-no-fsync", "--log-level=warn"]);
        (spec, Ready::Http(format!("{}/health", self.etcd_url)))
    }

    pub(crate) fn api_server(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = Spec::new("kube-apiserver", binaries.server("kube-apiserver"))
            .arg(format!("--etcd-servers={}", self.etcd_url))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            // A loopback address is not allowed as an endpoint, and nothing here uses the `kubernetes` service.
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--cert-dir={}", self.file("certificates")))
            .arg(format!("--service-account-key-file={}", self.file("service-account.key")))
            .arg(format!("--service-account-signing-key-file={}", self.file("service-account.key")))
            .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24"])
            .arg(format!("--token-auth-file={}", self.file("tokens.csv")))
            .args(["--authorization-mode=RBAC", "--allow-privileged=true"])
            .arg(format!("--audit-policy-file={}", self.file("audit-policy.yaml")))
            .arg(format!("--audit-log-path={}", self.audit_log().display()))
            // Large enough never to be rotated away from a reader.
            .arg("--audit-log-maxsize=10000");
        (spec, Ready::Http(format!("{}/readyz", self.url)))
    }

    pub(crate) fn controller_manager(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = self
            .component("kube-controller-manager", binaries)
            .arg(format!("--service-account-private-key-file={}", self.file("service-account.key")))
            .arg(format!("--root-ca-file={}", self.file("certificates/apiserver.crt")))
            .args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"])
            .arg("--controllers=*,-nodeipam,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle");
        (spec, Ready::Started)
    }

    pub(crate) fn scheduler(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = self.component("kube-scheduler", binaries);
        (
            spec.args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"]),
            Ready::Started,
        )
    }

    pub(crate) fn kwok(&self, binaries: &Binaries) -> (Spec, Ready) {
        let spec = self
            .component("kwok", binaries)
            .arg(format!("--config={}", self.file("kwok-stages.yaml")))
            // The node of our own kubelet has no such annotation.
            .args(["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"])
            .args(["--node-ip=127.0.0.1", "--cidr=10.2.0.0/16", "--node-lease-duration-seconds=40"])
            // It looks for a configuration in the home directory otherwise.
            .env("HOME", self.dir.to_string_lossy());
        (spec, Ready::Started)
    }

    /// A program that is told its kubeconfig by `--kubeconfig` and is named after its binary.
    pub(crate) fn component(&self, name: &str, binaries: &Binaries) -> Spec {
        Spec::new(name, binaries.server(name)).arg(format!("--kubeconfig={}", self.kubeconfig(name).display()))
    }

    /// What every rig has from the start, besides the CRDs.
    pub(crate) fn objects(fake_nodes: u32) -> String {
        let mut yaml = String::from(kube_sim::controllers::volumes::CLASSES);
        yaml.push_str("\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: flux-system}\n");
        for number in 0..fake_nodes {
            // The taint keeps pods that mean to run for real off nodes that only pretend.
            let node = format!(
                "---\n\
                 apiVersion: v1\n\
                 kind: Node\n\
                 metadata:\n  \
                   name: fake-{number}\n  \
                   annotations: {{kwok.x-k8s.io/node: fake}}\n  \
                   labels: {{kubernetes.io/hostname: fake-{number}, kubernetes.io/os: linux, type: fake}}\n\
                 spec:\n  \
                   taints: [{{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}}]\n"
            );
            yaml.push_str(&node);
        }
        yaml
    }
}

/// Waits until every version of these definitions is served: a controller that comes up before gives up for good.
pub(crate) async fn served(client: &Client, definitions: &[String]) -> anyhow::Result<()> {
    for definition in definitions {
        for document in serde_yaml_ng::Deserializer::from_str(definition) {
            let crd = serde_json::Value::deserialize(document)?;
            let text = |value: &serde_json::Value, path: &str| {
                value.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
            };
            let group = text(&crd, "/spec/group");
            let versions = crd.pointer("/spec/versions").and_then(serde_json::Value::as_array);
            for version in versions.into_iter().flatten() {
                if version.pointer("/served") == Some(&serde_json::Value::Bool(true)) {
                    version_served(client, &format!("{group}/{}", text(version, "/name"))).await?;
                }
            }
        }
    }
    Ok(())
}

async fn version_served(client: &Client, group_version: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + SERVED;
    loop {
        match client.list_api_group_resources(group_version).await {
            Ok(found) if !found.resources.is_empty() => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!("{group_version} is not served"));
            }
            Ok(_) if Instant::now() > deadline => anyhow::bail!("{group_version} is served without any kind"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
