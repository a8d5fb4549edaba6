//! Compares kube-sim with a real API server: `cargo run -p kube-sim --example against_a_real_server -- KUBECONFIG [SEEDS] [STEPS]`.
//! The server should be a bare etcd and kube-apiserver; controllers change objects under the comparison.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "its output is its purpose")]

use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use kube_sim::{SimServer, differential};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

async fn prepare(client: &Client, namespace: &str) -> kube::Result<()> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).map_err(kube::Error::SerdeError)?;
    ignore_existing(namespaces.create(&PostParams::default(), &object).await)?;
    let kind = kube::api::ApiResource::erase::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >(&());
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let object = serde_json::from_value(differential::definition()).map_err(kube::Error::SerdeError)?;
    ignore_existing(definitions.create(&PostParams::default(), &object).await)
}

fn ignore_existing<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: against_a_real_server KUBECONFIG [SEEDS] [STEPS]");
        std::process::exit(2);
    };
    let seeds: u64 = arguments.next().map_or(Ok(20), |s| s.parse())?;
    let steps: usize = arguments.next().map_or(Ok(60), |s| s.parse())?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let real = Client::try_from(config)?;
    let sim = SimServer::new(kube_sim::Config { latency: Duration::ZERO, ..Default::default() }).client();
    let run = std::process::id();
    let mut kinds: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut total = 0;
    for seed in 0..seeds {
        let namespace = format!("diff-{run}-{seed}");
        prepare(&real, &namespace).await?;
        prepare(&sim, &namespace).await?;
        tokio::time::sleep(Duration::from_millis(if seed == 0 { 2000 } else { 0 })).await;
        let mut first = true;
        for difference in differential::run(&real, &sim, &namespace, seed, steps).await {
            total += 1;
            if first {
                println!("seed {seed} step {}: {}", difference.step, difference.request);
                difference
                    .at
                    .iter()
                    .for_each(|(at, left, right)| println!("    {at}\n      real {left}\n      sim  {right}"));
                first = false;
            }
            for (at, left, right) in &difference.at {
                let entry = kinds.entry(at.clone()).or_insert_with(|| {
                    (
                        0,
                        format!(
                            "seed {seed} step {}: {}\n    real {left}\n    sim  {right}",
                            difference.step, difference.request
                        ),
                    )
                });
                entry.0 += 1;
            }
        }
    }
    for (at, (count, first)) in &kinds {
        println!("{count:5} {at}\n    {first}");
    }
    println!("{total} of {} answers differ", seeds * steps as u64);
    Ok(())
}
