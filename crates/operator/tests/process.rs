//! The program as it runs in its pod: what it serves, what it logs, how it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly, in their helper functions too")]

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use windlass_api::UpgradeRequest;

/// A busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster on which Windlass is installed, and a request for an app that is not there.
async fn cluster() -> SimServer {
    let server = SimServer::new(Config { always_allow: true, ..Config::default() });
    let client = server.client();
    for crd in windlass_api::crds() {
        Api::<CustomResourceDefinition>::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "windlass-system" } })).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let request: UpgradeRequest = serde_json::from_value(json!({
        "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": { "name": "up" },
        "spec": { "subject": { "kind": "ManagedApp", "name": "nobody" }, "target": { "components": { "chart": "1" } } }
    }))
    .unwrap();
    Api::default_namespaced(client).create(&PostParams::default(), &request).await.unwrap();
    server
}

fn operator(folder: &Path, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_windlass-operator"))
        .args(["--namespace", "windlass-system", "--lease-seconds", "3", "--log", "info,windlass_operator=debug"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--git-cache={}", folder.join("git").display()))
        .env("KUBECONFIG", folder.join("kubeconfig"))
        .stdin(Stdio::null())
        .stdout(File::create(folder.join("stdout")).unwrap())
        .stderr(File::create(folder.join("log")).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Status line, headers and body of an answer; nothing while nobody listens.
async fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return String::new() };
    let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(asked.as_bytes()).await.is_ok() {
        stream.read_to_string(&mut answer).await.unwrap_or_default();
    }
    answer
}

async fn until(folder: &Path, port: u16, path: &str, expected: &str) -> String {
    let seen = async {
        loop {
            let answer = get(port, path).await;
            if answer.contains(expected) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("no {expected} at {path}: {}", log()))
}

#[tokio::test]
async fn it_serves_its_state_logs_json_and_ends_when_told() {
    let server = cluster().await;
    let door = server.listen_as(Identity::admin()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("kubeconfig"), door.kubeconfig()).unwrap();
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut operator = operator(folder, port);

    let metrics = until(folder, port, "/metrics", "outcome=\"Refused\"} 1\n").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    for line in [
        "windlass_leader 1",
        "windlass_decisions_total 0",
        "windlass_operations_ended_total{kind=\"UpgradeRequest\",outcome=\"Refused\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let alive = get(port, "/livez").await;
    assert!(alive.starts_with("HTTP/1.1 200 OK\r\n") && alive.ends_with("\r\n\r\nok"), "{alive}");
    until(folder, port, "/readyz", "HTTP/1.1 200 OK\r\n").await;
    assert!(get(port, "/").await.starts_with("HTTP/1.1 404 "));

    let pid = operator.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, operator.wait()).await.unwrap().unwrap();
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    assert!(ended.success(), "{ended}: {log}");
    let mut messages = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&line["level"].as_str().unwrap()), "{line}");
        messages.push(line["fields"]["message"].as_str().unwrap_or_else(|| panic!("no message: {line}")).to_owned());
    }
    for message in ["leading", "stopping at the next safe point"] {
        assert!(messages.iter().any(|said| said == message), "{messages:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("stdout")).unwrap(), "");
}
