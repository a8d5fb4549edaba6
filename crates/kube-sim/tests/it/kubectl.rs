//! The machine's kubectl against the server on a loopback port: what people and scripts do.

use super::deployment;
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

struct Kubectl {
    home: tempfile::TempDir,
}

impl Kubectl {
    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    fn output(&self, args: &[&str], input: Option<&Value>) -> std::process::Output {
        let mut child = Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", self.config())
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = input.map(ToString::to_string).unwrap_or_default();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    async fn run(&self, args: &[&str], input: Option<Value>) -> String {
        let (config, owned): (PathBuf, Vec<String>) = (self.config(), args.iter().map(|a| (*a).to_owned()).collect());
        assert!(config.exists());
        let output = tokio::task::block_in_place(|| {
            let args: Vec<&str> = owned.iter().map(String::as_str).collect();
            self.output(&args, input.as_ref())
        });
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "kubectl {args:?}: {out}{err}");
        out
    }
}

fn has_kubectl() -> bool {
    Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_gets_applies_patches_scales_waits_and_deletes() {
    if !has_kubectl() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        assert!(!ci, "nothing is skipped in CI: install kubectl");
        eprintln!("skipped: there is no kubectl on this machine");
        return;
    }
    let server = SimServer::new(Config { latency: Duration::ZERO, ..Config::default() });
    let listening = server.listen_as(Identity::admin()).await.unwrap();
    let kubectl = Kubectl { home: tempfile::tempdir().unwrap() };
    std::fs::write(kubectl.config(), listening.kubeconfig()).unwrap();

    let applied = kubectl.run(&["apply", "--server-side", "-f", "-"], Some(deployment("web", Some(2)))).await;
    assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
    let table = kubectl.run(&["get", "deployments"], None).await;
    assert!(table.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    0/2"), "{table}");
    kubectl.run(&["scale", "deployment/web", "--replicas=5"], None).await;
    assert_eq!(kubectl.run(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], None).await, "5");
    kubectl
        .run(
            &[
                "patch",
                "deployment",
                "web",
                "-p",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"app:2"}]}}}}"#,
            ],
            None,
        )
        .await;
    let image =
        kubectl.run(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"], None).await;
    assert_eq!(image, "app:2");
    kubectl
        .run(
            &[
                "patch",
                "deployment",
                "web",
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":{"conditions":[{"type":"Available","status":"True"}]}}"#,
            ],
            None,
        )
        .await;
    kubectl.run(&["wait", "--for=condition=Available", "deployment/web", "--timeout=10s"], None).await;
    kubectl.run(&["label", "deployment", "web", "tier=front"], None).await;
    assert_eq!(
        kubectl.run(&["get", "deploy", "-l", "tier in (front)", "-o", "name"], None).await.trim(),
        "deployment.apps/web"
    );

    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}});
    kubectl.run(&["apply", "-f", "-"], Some(map.clone())).await;
    let mut changed = map;
    changed["data"]["k"] = json!("w");
    assert_eq!(kubectl.run(&["apply", "-f", "-"], Some(changed)).await.trim(), "configmap/m configured");
    assert_eq!(kubectl.run(&["get", "cm", "m", "-o", "jsonpath={.data.k}"], None).await, "w");
    // `kubectl create namespace` sends protobuf, which this server does not read.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}});
    kubectl.run(&["create", "-f", "-"], Some(namespace)).await;
    kubectl.run(&["delete", "namespace", "app", "--timeout=20s"], None).await;
    kubectl.run(&["delete", "configmap", "m"], None).await;
    kubectl.run(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=20s"], None).await;
    assert_eq!(kubectl.run(&["get", "all", "-A", "-o", "name"], None).await, "");
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}});
    let allowed = kubectl.run(&["create", "-f", "-", "-o", "jsonpath={.status.allowed}"], Some(review)).await;
    assert_eq!(allowed, "true");
    assert!(
        kubectl.run(&["api-resources", "--api-group=apps", "-o", "name"], None).await.contains("statefulsets.apps")
    );

    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
    kubectl.run(&["apply", "-f", "-"], Some(definition)).await;
    kubectl.run(&["wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s"], None).await;
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}});
    kubectl.run(&["apply", "-f", "-"], Some(widget)).await;
    let table = kubectl.run(&["get", "widgets"], None).await;
    assert!(table.starts_with("NAME   SIZE\nw      3"), "{table}");
    let unknown =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": {"siz": 3}});
    let refused = tokio::task::block_in_place(|| kubectl.output(&["apply", "-f", "-"], Some(&unknown)));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown field \"spec.siz\""), "{refused:?}");
}
