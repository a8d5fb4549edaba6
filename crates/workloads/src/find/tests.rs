//! Namespaces as they are found, and what is made of them.
#![allow(clippy::needless_pass_by_value, reason = "values are made where they are passed")]

use serde::de::DeserializeOwned;
use serde_json::{from_value, json};

use super::*;

fn as_is<T: DeserializeOwned>(value: Value) -> T {
    from_value(value).unwrap()
}

fn template(claim: &str) -> Value {
    json!({ "spec": {
        "containers": [{ "name": "main", "image": "registry.example/notes:1.0" }],
        "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }]
    } })
}

fn meta(name: &str, extra: &Value) -> Value {
    let mut meta = json!({ "name": name, "namespace": "notes", "uid": format!("{name}-uid") });
    for (key, value) in extra.as_object().unwrap() {
        meta[key] = value.clone();
    }
    meta
}

fn owner(api: &str, kind: &str, name: &str) -> Value {
    json!({ "ownerReferences": [{ "apiVersion": api, "kind": kind, "name": name, "uid": format!("{name}-uid"), "controller": true }] })
}

fn labels() -> Value {
    json!({ "labels": { "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": "flux-system" } })
}

fn deployment(name: &str, claim: &str, extra: &Value) -> Deployment {
    as_is(
        json!({ "metadata": meta(name, extra), "spec": { "replicas": 2, "selector": {}, "template": template(claim) } }),
    )
}

fn pod(name: &str, claim: &str, extra: &Value) -> Pod {
    as_is(json!({ "metadata": meta(name, extra), "spec": template(claim)["spec"], "status": { "phase": "Running" } }))
}

fn own() -> Own {
    let release = ObjectRef::new("helm.toolkit.fluxcd.io", "HelmRelease", "flux-system", "notes");
    Own { objects: vec![release], inventory: BTreeSet::new() }
}

fn world() -> Everything {
    Everything { namespace: "notes".into(), ..Everything::default() }
}

fn seen(everything: &Everything, own: &Own, asked: &[&str]) -> Vec<String> {
    let asked: Vec<String> = asked.iter().map(|&name| name.into()).collect();
    find(everything, own, &asked)
        .iter()
        .map(|facts| {
            let codes: Vec<&str> = facts.refusals.iter().map(|(code, _)| code.as_str()).collect();
            let delivered = if facts.delivered { "own" } else { "other" };
            format!(
                "{} {} {delivered} [{}] [{}]",
                facts.object.kind,
                facts.object.name,
                facts.claims.join(","),
                codes.join(",")
            )
        })
        .collect()
}

#[test]
fn the_apps_own_workloads_and_all_who_share_their_claims_are_found() {
    let mut all = world();
    all.deployments = vec![
        deployment("notes", "data", &labels()),
        deployment("backup", "data", &json!({})),
        deployment("stranger", "other", &json!({})),
    ];
    assert_eq!(seen(&all, &own(), &[]), ["Deployment backup other [data] []", "Deployment notes own [data] []"]);
    assert_eq!(seen(&all, &Own::default(), &["other"]), ["Deployment stranger other [other] []"]);
    let inventory = BTreeSet::from([ObjectRef::new("apps", "Deployment", "notes", "stranger")]);
    assert_eq!(seen(&all, &Own { objects: vec![], inventory }, &[]), ["Deployment stranger own [other] []"]);
    let facts = find(&all, &own(), &[]).pop().unwrap();
    assert_eq!((facts.replicas, facts.images), (2, vec![("main".into(), "registry.example/notes:1.0".into())]));
}

#[test]
fn a_claim_is_delivered_by_its_label_or_the_inventory_and_not_because_its_maker_passed_labels_on() {
    let claims: Vec<ObjectMeta> = [
        meta("labelled", &labels()),
        meta("listed", &owner("v1", "ConfigMap", "notes")),
        meta("strange", &json!({})),
        meta("others", &json!({ "labels": { "helm.toolkit.fluxcd.io/name": "notes", "helm.toolkit.fluxcd.io/namespace": "x" } })),
        meta("made", &json!({ "labels": labels()["labels"], "ownerReferences": owner("v1", "Cluster", "pg")["ownerReferences"] })),
    ]
    .into_iter()
    .map(as_is)
    .collect();
    let inventory = ["notes", "other"].iter().zip(["listed", "strange"]);
    let inventory = inventory.map(|(namespace, name)| ObjectRef::new("", "PersistentVolumeClaim", namespace, name));
    let own = Own { inventory: inventory.collect(), ..own() };
    assert_eq!(delivered_claims("notes", claims.iter(), &own), ["labelled", "listed"]);
}

#[test]
fn pods_are_counted_for_the_workload_at_the_top_of_their_chain() {
    let mut all = world();
    all.deployments = vec![deployment("notes", "data", &labels())];
    all.replica_sets = vec![as_is(
        json!({ "metadata": meta("notes-1", &owner("apps/v1", "Deployment", "notes")), "spec": { "selector": {}, "template": template("old") } }),
    )];
    all.pods = vec![pod("notes-1-x", "old", &owner("apps/v1", "ReplicaSet", "notes-1"))];
    // The pod of an earlier template still mounts what the newest template does not name.
    assert_eq!(seen(&all, &own(), &[]), ["Deployment notes own [data,old] []"]);
}

#[test]
fn what_cannot_be_stopped_is_refused_by_its_name_but_only_if_it_mounts_a_claim() {
    let set = |policy: &str| {
        json!({
            "metadata": meta("db", &json!({})),
            "spec": {
                "replicas": 1, "serviceName": "db", "selector": {}, "template": template("data"),
                "persistentVolumeClaimRetentionPolicy": { "whenScaled": policy, "whenDeleted": "Delete" }
            }
        })
    };
    let one = |fill: &dyn Fn(&mut Everything)| {
        let mut all = world();
        fill(&mut all);
        assert_eq!(seen(&all, &own(), &["unmounted"]), [""; 0]);
        seen(&all, &own(), &["data"])
    };
    assert_eq!(
        one(&|all| all.stateful_sets = vec![as_is(set("Delete"))]),
        ["StatefulSet db other [data] [when-scaled-delete]"]
    );
    assert_eq!(one(&|all| all.stateful_sets = vec![as_is(set("Retain"))]), ["StatefulSet db other [data] []"]);
    assert_eq!(
        one(&|all| all.daemon_sets = vec![as_is(
            json!({ "metadata": meta("d", &json!({})), "spec": { "selector": {}, "template": template("data") } })
        )]),
        ["DaemonSet d other [data] [daemon-set]"]
    );
    assert_eq!(one(&|all| all.pods = vec![pod("p", "data", &json!({}))]), ["Pod p other [data] [bare-pod]"]);
    assert_eq!(
        one(&|all| all.pods = vec![pod("pg-1", "data", &owner("postgresql.cnpg.io/v1", "Cluster", "pg"))]),
        ["Cluster pg other [data] [owned-by-operator]"]
    );
    assert_eq!(
        one(&|all| all.deployments = vec![deployment("made", "data", &owner("example.com/v1", "App", "a"))]),
        ["Deployment made other [data] [owned-by-operator]"]
    );
}

#[test]
fn what_somebody_keeps_from_git_is_refused_whether_it_mounts_a_claim_or_not() {
    const RECONCILE: &str = "kustomize.toolkit.fluxcd.io/reconcile";
    let own = Own {
        objects: vec![ObjectRef::new("kustomize.toolkit.fluxcd.io", "Kustomization", "flux-system", "notes")],
        inventory: BTreeSet::new(),
    };
    let mut labels = json!({
        "kustomize.toolkit.fluxcd.io/name": "notes", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"
    });
    let with = |labels: &Value, annotations: Value| {
        let mut all = world();
        all.deployments = vec![deployment("notes", "data", &json!({ "labels": labels, "annotations": annotations }))];
        all.deployments[0].spec.as_mut().unwrap().template.spec.as_mut().unwrap().volumes = None;
        seen(&all, &own, &[])
    };
    let ours = json!({ RECONCILE: "disabled", "upgrades.windlass.dev/kept-from-git": "true" });
    assert_eq!(with(&labels, json!({})), ["Deployment notes own [] []"]);
    assert_eq!(with(&labels, json!({ RECONCILE: "disabled" })), ["Deployment notes own [] [frozen]"]);
    assert_eq!(with(&labels, ours), ["Deployment notes own [] []"], "an earlier operation left it");
    labels[RECONCILE] = "disabled".into();
    assert_eq!(with(&labels, json!({})), ["Deployment notes own [] [frozen]"]);
}

#[test]
fn jobs_matter_while_they_run() {
    let job = |suspend: bool, conditions: Value| -> Job {
        as_is(json!({
            "metadata": meta("j", &owner("batch/v1", "CronJob", "nightly")),
            "spec": { "suspend": suspend, "template": template("data") }, "status": { "conditions": conditions }
        }))
    };
    let cron: CronJob = as_is(json!({
        "metadata": meta("nightly", &json!({})),
        "spec": { "schedule": "@daily", "suspend": false, "jobTemplate": { "spec": { "template": template("data") } } }
    }));
    let with = |job: Job| Everything { jobs: vec![job], cron_jobs: vec![cron.clone()], ..world() };
    let idle = "CronJob nightly other [data] []";
    assert_eq!(seen(&with(job(false, json!([]))), &own(), &["data"]), [idle, "Job j other [data] [running-job]"]);
    assert_eq!(seen(&with(job(true, json!([]))), &own(), &["data"]), [idle, "Job j other [data] []"]);
    assert_eq!(seen(&with(job(false, json!([{ "type": "Complete", "status": "True" }]))), &own(), &["data"]), [idle]);
    let facts = find(&with(job(false, json!([]))), &own(), &["data".into()]);
    assert_eq!(facts[0].suspend, Some(false));
}

#[test]
fn autoscalers_that_would_start_it_again_are_refused_and_others_told() {
    let scaled = |annotations: Value| -> DynamicObject {
        as_is(
            json!({ "metadata": { "name": "s", "annotations": annotations }, "spec": { "scaleTargetRef": { "name": "notes" } } }),
        )
    };
    let hpa = |min: i64| -> HorizontalPodAutoscaler {
        as_is(
            json!({ "metadata": { "name": "h" }, "spec": { "minReplicas": min, "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "notes" } } }),
        )
    };
    let with = |scaled_objects, autoscalers| Everything {
        deployments: vec![deployment("notes", "data", &labels())],
        scaled_objects,
        autoscalers,
        ..world()
    };
    for (annotations, expected) in [
        (json!({}), "[keda]"),
        (json!({ "autoscaling.keda.sh/paused": "true" }), "[]"),
        (json!({ "autoscaling.keda.sh/paused-replicas": "0" }), "[]"),
        (json!({ "autoscaling.keda.sh/paused-replicas": "2" }), "[keda]"),
    ] {
        assert_eq!(
            seen(&with(vec![scaled(annotations.clone())], vec![]), &own(), &[]),
            [format!("Deployment notes own [data] {expected}")],
            "{annotations}"
        );
    }
    assert_eq!(seen(&with(vec![], vec![hpa(0)]), &own(), &[]), ["Deployment notes own [data] [autoscaler-from-zero]"]);
    let told = find(&with(vec![], vec![hpa(1)]), &own(), &[]);
    assert!(told[0].refusals.is_empty() && told[0].warnings.len() == 1);
}
