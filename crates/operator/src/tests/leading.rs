//! What an instance that leads no more still does: it looks, and writes nothing.

use k8s_openapi::api::apps::v1::Deployment;
use kube_sim::Identity;
use kube_sim::faults::{Fault, Faults, Matcher, Rule};

use super::estate::Estate;
use super::*;

#[tokio::test]
async fn no_port_of_an_instance_that_does_not_lead_writes_anything() {
    let cluster = cluster_through(SimServer::client, false).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.server.client(), NS);
    let labels = json!({ "app": "notes" });
    let template =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let spec = json!({ "replicas": 3, "selector": { "matchLabels": labels }, "template": template });
    let made = make(&deployments, json!({ "metadata": { "name": "notes" }, "spec": spec })).await;
    let object = ObjectRef::new("apps", "Deployment", NS, "notes");
    let workloads = &cluster.context.ports.workloads;
    let refused = workloads.stop(&object, &made.uid().unwrap()).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retryable), ("guard-lost", true), "{refused}");
    assert_eq!(workloads.state(&object).await.unwrap().unwrap().replicas, 3);
}

/// Its first look took so long that a successor has begun meanwhile: only the version of the request tells, if its clock stood still.
#[tokio::test(start_paused = true)]
async fn a_request_that_somebody_else_has_begun_meanwhile_is_not_refused() {
    let faults = Faults::new(1);
    let slow = Matcher::any().verb("list").resource("rollbackrequests");
    faults.add(Rule::new(slow, Fault::Latency(Duration::from_secs(1))).times(1));
    let through = |server: &SimServer| faults.client(server, Identity::user("windlass"));
    let estate = Estate::on(cluster_through(through, true).await).await;
    // One that is refused.
    let rollback = estate.rollback("back", json!({ "restorePoint": "nowhere" })).await;
    let turn = tokio::spawn(reconcile(Arc::new(rollback.clone()), estate.cluster.context.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (plan, journal) = estate.record(&rollback, &["suspend/x"], &[]);
    estate.write(&rollback, json!({ "plan": plan, "journal": journal })).await;
    let error = turn.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "changed-meanwhile", "{error}");
    let status = estate.status_of(&rollback).await;
    assert_eq!((status.outcome, status.plan.is_some()), (None, true), "{:?}", status.message);
    assert_eq!(estate.active().await.as_deref(), Some("back"), "the app was let go");
}
