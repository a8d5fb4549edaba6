//! Jobs and CronJobs on a simulated cluster.

use super::cluster::{Cluster, condition};
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube_sim::controllers::pods::{Behaviour, Scripted};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

fn images() -> Scripted {
    Scripted::new()
        .with("good:*", Behaviour::exit(0))
        .with("bad:*", Behaviour::exit(1))
        .with("long:*", Behaviour::serve())
}

fn job(name: &str, image: &str, spec: &Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}}});
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

#[tokio::test(start_paused = true)]
async fn a_job_is_complete_when_enough_pods_succeeded() {
    let cluster = Cluster::new(images());
    cluster.create(job("once", "good:1", &json!({"completions": 3, "parallelism": 2}))).await;
    let done = cluster.until("Job", "once", |job| condition(job, "Complete")["status"] == "True").await;
    assert_eq!((&done["status"]["succeeded"], &done["status"]["active"]), (&json!(3), &Value::Null));
    assert!(done["status"]["completionTime"].is_string());
    assert_eq!(condition(&done, "SuccessCriteriaMet")["status"], "True");
    let pods = cluster.pods().await;
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod.finalizers().is_empty()), "{pods:#?}");
    assert!(pods.iter().all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded")));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_too_often_has_failed() {
    let cluster = Cluster::new(images());
    cluster.create(job("broken", "bad:1", &json!({"backoffLimit": 2, "ttlSecondsAfterFinished": 100}))).await;
    let failed = cluster.until("Job", "broken", |job| condition(job, "Failed")["status"] == "True").await;
    assert_eq!(condition(&failed, "Failed")["reason"], "BackoffLimitExceeded");
    assert_eq!(failed["status"]["failed"], 3);
    let starts: Vec<i64> = cluster.history().runs.iter().map(|run| run.from_ms / 1000).collect();
    assert!(starts[1] - starts[0] >= 10 && starts[2] - starts[1] >= 20, "{starts:?}");
    sleep(Duration::from_secs(150)).await;
    assert!(cluster.api("Job").get_opt("broken").await.unwrap().is_none());
    cluster.no_pods().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_has_failed() {
    let cluster = Cluster::new(images());
    cluster.create(job("slow", "long:1", &json!({"activeDeadlineSeconds": 60}))).await;
    let failed = cluster.until("Job", "slow", |job| condition(job, "Failed")["status"] == "True").await;
    assert_eq!(condition(&failed, "Failed")["reason"], "DeadlineExceeded");
    assert!(cluster.history().runs[0].until_ms.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pods_until_it_is_resumed() {
    let cluster = Cluster::new(images());
    cluster.create(job("later", "good:1", &json!({"suspend": true}))).await;
    let suspended = cluster.until("Job", "later", |job| condition(job, "Suspended")["status"] == "True").await;
    assert!(suspended["status"]["startTime"].is_null());
    sleep(Duration::from_secs(600)).await;
    assert!(cluster.pods().await.is_empty());
    cluster.patch("Job", "later", json!({"spec": {"suspend": false}})).await;
    let done = cluster.until("Job", "later", |job| condition(job, "Complete")["status"] == "True").await;
    assert_eq!(condition(&done, "Suspended")["status"], "False");
    cluster.create(job("running", "long:1", &json!({}))).await;
    cluster.until("Job", "running", |job| job["status"]["ready"] == 1).await;
    cluster.patch("Job", "running", json!({"spec": {"suspend": true}})).await;
    let suspended = cluster.until("Job", "running", |job| condition(job, "Suspended")["status"] == "True").await;
    assert_eq!(suspended["status"]["active"], Value::Null);
    sleep(Duration::from_secs(60)).await;
    assert!(cluster.pods().await.iter().all(|pod| !pod.name_any().starts_with("running")));
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_jobs_until_it_is_suspended() {
    let cluster = Cluster::new(images());
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": {
        "schedule": "*/5 * * * *", "successfulJobsHistoryLimit": 2, "jobTemplate": {"spec": {}}}});
    cron["spec"]["jobTemplate"]["spec"] = job("", "good:1", &json!({}))["spec"].clone();
    cluster.create(cron.clone()).await;
    sleep(Duration::from_secs(1250)).await;
    assert_eq!(cluster.history().runs.len(), 4);
    let jobs = cluster.api("Job").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(jobs.len(), 2, "older ones are removed");
    assert_eq!(jobs[0].owner_references()[0].kind, "CronJob");
    cluster.patch("CronJob", "tick", json!({"spec": {"suspend": true}})).await;
    sleep(Duration::from_secs(1250)).await;
    assert_eq!(cluster.history().runs.len(), 4);
    cluster.patch("CronJob", "tick", json!({"spec": {"suspend": null}})).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.history().runs.len(), 5, "of the times that were missed, the last one counts");
    cron["metadata"]["name"] = json!("odd");
    cron["spec"]["schedule"] = json!("0 0 1-7 * 1");
    cluster.create(cron).await;
    let event = cluster.until("Event", "odd.unparseableschedule", |_| true).await;
    assert_eq!(event["reason"], "UnparseableSchedule");
}
