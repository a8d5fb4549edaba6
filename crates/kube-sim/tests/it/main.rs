//! The server as its clients see it: through an unchanged `kube` client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod cluster;
mod controller;
mod crud;
mod custom;
mod deployments;
mod faulty;
mod flux;
mod jobs;
mod kubectl;
mod nodes;
mod patches;
mod stateful_sets;
mod volumes;
mod watching;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube_sim::{Config, SimServer};
use serde_json::{Value, json};

fn server() -> SimServer {
    SimServer::new(Config { always_allow: true, ..Config::default() })
}

fn config_maps(server: &SimServer) -> Api<ConfigMap> {
    Api::namespaced(server.client(), "default")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name}, "data": {"key": value}}))
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("not an answer of the server: {other}"),
    }
}

fn deployment(name: &str, replicas: Option<i32>) -> Value {
    let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}}}});
    if let Some(replicas) = replicas {
        value["spec"]["replicas"] = json!(replicas);
    }
    value
}
