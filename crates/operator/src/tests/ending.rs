//! How the program ends: what it was doing decides when the next instance may begin.

use k8s_openapi::api::coordination::v1::Lease;
use kube_sim::Identity;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};

use super::*;
use crate::lease;

/// Who holds the lease after an operator was told to end while it looked at a request, whose answer comes or does not come.
async fn holder_after_the_end(answers: bool) -> Option<String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = SimServer::new(Config { always_allow: true, latency: Duration::ZERO, ..Config::default() });
    let crds: Api<CustomResourceDefinition> = Api::all(server.client());
    for crd in windlass_api::crds() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    let faults = Faults::new(1);
    if !answers {
        faults.add(Rule::new(Matcher::any().verb("get").resource("upgraderequests"), Fault::Hang));
    }
    let client = faults.client(&server, Identity::user("windlass"));
    let mut args = Args::parse_from(["windlass-operator", "--namespace", "default", "--identity", "one"]);
    args.listen = None;
    let stop = CancellationToken::new();
    let running = tokio::spawn(run::run(args, client, Embedding::of_this_process(), stop.clone()));
    let spec =
        json!({ "subject": { "kind": "ManagedApp", "name": "nobody" }, "target": { "components": { "chart": "1" } } });
    let requests: Api<UpgradeRequest> = Api::namespaced(server.client(), "default");
    make(&requests, json!({ "metadata": { "name": "up" }, "spec": spec })).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ended = requests.get("up").await.unwrap().status.and_then(|status| status.outcome);
    assert_eq!(ended.is_some(), answers, "{ended:?}");
    stop.cancel();
    running.await.unwrap().unwrap();
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    leases.get(lease::NAME).await.unwrap().spec.unwrap().holder_identity
}

#[tokio::test(start_paused = true)]
async fn who_ends_with_nothing_under_way_hands_the_lease_over() {
    assert_eq!(holder_after_the_end(true).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_ends_in_the_middle_of_a_step_leaves_the_lease_to_lapse() {
    let holder = holder_after_the_end(false).await.unwrap_or_default();
    assert!(holder.starts_with("one_"), "{holder:?}");
}
