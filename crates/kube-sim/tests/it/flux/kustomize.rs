//! Kustomizations: what is applied, when it is not, and what the status says meanwhile.

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::json;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_commit_is_applied_and_what_leaves_git_is_pruned() {
    let world = World::new().await;
    let first = world
        .remote
        .commit(&[("apps/a.yaml", Some(&config("a", "one"))), ("apps/b.yaml", Some(&config("b", "one")))], "first")
        .unwrap();
    world.deliver(json!({ "wait": true })).await;
    let object = world.kustomization(|object| holds(object, &first) && ready(object)).await;
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
    assert_eq!(condition(&object, "Reconciling"), &Value::Null);
    assert_eq!(condition(&object, "Ready")["reason"], "ReconciliationSucceeded");
    assert_eq!(condition(&object, "Healthy")["reason"], "Succeeded");
    let entries = json!([{ "id": "apps_a__ConfigMap", "v": "v1" }, { "id": "apps_b__ConfigMap", "v": "v1" }]);
    assert_eq!(object["status"]["inventory"]["entries"], entries);
    let applied = world.get("ConfigMap", APPS, "a").await;
    let labels = json!({ "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": FLUX });
    assert_eq!(applied["metadata"]["labels"], labels);

    world
        .patch(
            "ConfigMap",
            APPS,
            "b",
            "x",
            json!({ "metadata": { "annotations": { "kustomize.toolkit.fluxcd.io/prune": "disabled" } } }),
        )
        .await;
    let second = world
        .remote
        .commit(&[("apps/a.yaml", None), ("apps/b.yaml", None), ("apps/c.yaml", Some(&config("c", "two")))], "second")
        .unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-1").await;
    world.kustomization(|object| holds(object, &second)).await;
    assert!(!world.exists("ConfigMap", APPS, "a").await);
    assert!(world.exists("ConfigMap", APPS, "b").await, "it is marked to stay");
    assert!(world.exists("ConfigMap", APPS, "c").await);

    world.api("Kustomization", FLUX).delete("apps", &DeleteParams::default()).await.unwrap();
    world.wait("Kustomization", FLUX, "apps", Value::is_null).await;
    assert!(!world.exists("ConfigMap", APPS, "c").await);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_object_answers_a_request_and_applies_nothing() {
    let world = World::new().await;
    let first = world.remote.commit(&[("apps/a.yaml", Some(&config("a", "one")))], "first").unwrap();
    world.deliver(json!({})).await;
    world.kustomization(|object| holds(object, &first)).await;
    world.suspend("Kustomization", FLUX, "apps", Some(true), "t-1").await;
    let object = world.kustomization(|object| handled(object, "t-1")).await;
    assert!(ready(&object), "the old condition stays: {object:#}");
    assert_eq!(object["status"]["observedGeneration"], 2, "it was ready, and so its generation counts as seen");

    world.remote.commit(&[("apps/a.yaml", Some(&config("a", "two")))], "second").unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-2").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.get("ConfigMap", APPS, "a").await["data"]["key"], "one");
    world.api("Kustomization", FLUX).delete("apps", &DeleteParams::default()).await.unwrap();
    world.wait("Kustomization", FLUX, "apps", Value::is_null).await;
    assert!(world.exists("ConfigMap", APPS, "a").await, "deleting a suspended object prunes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_barrier_waits_for_a_running_health_check_and_leaves_the_generation_behind() {
    let world = World::new().await;
    world.remote.commit(&[("apps/a.yaml", Some(&workload("notes", BROKEN, Some(1))))], "first").unwrap();
    world.deliver(json!({ "wait": true })).await;
    let object = world.kustomization(|object| is(object, "Healthy", "Unknown")).await;
    assert!(object["status"]["lastAttemptedRevision"].is_string(), "written before the check");
    assert!(object["status"].get("lastAppliedRevision").is_none(), "{object:#}");
    world.suspend("Kustomization", FLUX, "apps", Some(true), "t-1").await;
    let begin = tokio::time::Instant::now();
    let object = world.kustomization(|object| handled(object, "t-1")).await;
    assert!(begin.elapsed() > Duration::from_secs(50), "only when the check was over: {:?}", begin.elapsed());
    assert_eq!(condition(&object, "Ready")["reason"], "HealthCheckFailed");
    let message = condition(&object, "Ready")["message"].as_str().unwrap();
    assert!(message.ends_with("timeout waiting for: [Deployment/apps/notes status: 'InProgress']"), "{message}");
    assert_eq!(condition(&object, "Reconciling")["reason"], "ProgressingWithRetry");
    assert_eq!((&object["status"]["observedGeneration"], &object["metadata"]["generation"]), (&json!(-1), &json!(2)));
    assert!(object["status"].get("lastAppliedRevision").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_live_object_marked_as_disabled_is_passed_over() {
    let world = World::new().await;
    let file = |tag: &str| workload("notes", tag, None);
    let first = world.remote.commit(&[("apps/a.yaml", Some(&file("1.0")))], "first").unwrap();
    world.deliver(json!({ "wait": true })).await;
    world.kustomization(|object| holds(object, &first)).await;
    let mark =
        |value: Value| json!({ "metadata": { "annotations": { "kustomize.toolkit.fluxcd.io/reconcile": value } } });
    world.patch("Deployment", APPS, "notes", "windlass", mark(json!("disabled"))).await;
    let second = world.remote.commit(&[("apps/a.yaml", Some(&file("2.0")))], "second").unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-1").await;
    let object = world.kustomization(|object| holds(object, &second)).await;
    assert_eq!(object["status"]["inventory"]["entries"][0]["id"], "apps_notes_apps_Deployment");
    let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&world.get("Deployment", APPS, "notes").await), "registry.test/notes:1.0");
    world.patch("Deployment", APPS, "notes", "windlass", mark(Value::Null)).await;
    world.poke("Kustomization", FLUX, "apps", "t-2").await;
    world.wait("Deployment", APPS, "notes", |object| image(object) == "registry.test/notes:2.0").await;
}

#[tokio::test(start_paused = true)]
async fn a_suspension_by_kubectl_is_removed_by_the_next_apply_and_ours_is_kept() {
    let world = World::new().await;
    let file = |interval: &str| {
        format!(
            "apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {{name: charts, namespace: {APPS}}}\n\
             spec: {{interval: {interval}, url: 'https://charts.test/stable'}}\n"
        )
    };
    let first = world.remote.commit(&[("apps/a.yaml", Some(&file("5m")))], "first").unwrap();
    world.deliver(json!({})).await;
    world.kustomization(|object| holds(object, &first)).await;
    let suspend = json!({ "spec": { "suspend": true } });
    let mut interval = 5;
    for (manager, kept) in [("windlass", true), ("kubectl-patch", false)] {
        world.patch("HelmRepository", APPS, "charts", manager, json!({ "spec": { "suspend": null } })).await;
        world.patch("HelmRepository", APPS, "charts", manager, suspend.clone()).await;
        interval += 1;
        let next = world.remote.commit(&[("apps/a.yaml", Some(&file(&format!("{interval}m"))))], "next").unwrap();
        world.poke("GitRepository", FLUX, "apps", &format!("t-{manager}")).await;
        world.kustomization(|object| holds(object, &next)).await;
        let object = world.get("HelmRepository", APPS, "charts").await;
        assert_eq!(object["spec"].get("suspend").is_some(), kept, "{manager}: {object:#}");
        assert_eq!(owner_of(&object, "interval").as_deref(), Some("kustomize-controller Apply"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_right_after_a_resume_applies_what_the_cache_has() {
    let world = World::with(Knobs { source_lag: Duration::from_secs(20), ..Knobs::default() }).await;
    let first = world.remote.commit(&[("apps/a.yaml", Some(&config("a", "one")))], "first").unwrap();
    world.deliver(json!({})).await;
    world.kustomization(|object| holds(object, &first)).await;
    world.suspend("Kustomization", FLUX, "apps", Some(true), "t-1").await;
    world.kustomization(|object| handled(object, "t-1")).await;
    let second = world.remote.commit(&[("apps/a.yaml", Some(&config("a", "two")))], "second").unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-2").await;
    let revision = format!("main@sha1:{second}");
    world.wait("GitRepository", FLUX, "apps", |source| source["status"]["artifact"]["revision"] == revision).await;
    world.suspend("Kustomization", FLUX, "apps", None, "t-3").await;
    let object = world.kustomization(|object| handled(object, "t-3")).await;
    assert!(ready(&object) && holds(&object, &first), "the old revision, although the source has the new: {object:#}");
    world.kustomization(|object| holds(object, &second)).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_stand_in_does_not_know_is_refused_by_name() {
    let world = World::new().await;
    world.remote.commit(&[("apps/kustomization.yaml", Some("resources: []\ngenerators: [x]\n"))], "first").unwrap();
    world.deliver(json!({ "patches": [{ "patch": "x" }] })).await;
    let object = world.kustomization(|object| is(object, "Stalled", "True")).await;
    let message = |object: &Value| condition(object, "Ready")["message"].as_str().unwrap().to_owned();
    assert_eq!(condition(&object, "Ready")["reason"], "Unsupported");
    assert!(message(&object).ends_with("spec.patches"));
    world.patch("Kustomization", FLUX, "apps", "x", json!({ "spec": { "patches": null } })).await;
    let object =
        world.kustomization(|object| !message(object).ends_with("spec.patches") && is(object, "Ready", "False")).await;
    assert!(message(&object).ends_with("generators in apps/kustomization.yaml"), "{object:#}");
    assert_eq!(condition(&object, "Ready")["reason"], "Unsupported");
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_fails_its_stage_before_anything_of_it_is_applied() {
    let world = World::new().await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: extra}\n";
    let bad = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: z, namespace: extra}\nspec: {replicas: 1}\n";
    let files = [
        ("apps/a.yaml", Some(config("a", "one"))),
        ("apps/n.yaml", Some(namespace.to_owned())),
        ("apps/z.yaml", Some(bad.to_owned())),
    ];
    let files: Vec<(&str, Option<&str>)> = files.iter().map(|(path, text)| (*path, text.as_deref())).collect();
    world.remote.commit(&files, "first").unwrap();
    world.deliver(json!({})).await;
    let object = world
        .kustomization(|object| {
            is(object, "Ready", "False") && condition(object, "Ready")["reason"] == "ReconciliationFailed"
        })
        .await;
    assert!(
        condition(&object, "Ready")["message"]
            .as_str()
            .unwrap()
            .starts_with("Deployment/extra/z dry-run failed (Invalid)"),
        "{object:#}"
    );
    assert!(world.exists("Namespace", "", "extra").await, "of the stage before");
    assert!(!world.exists("ConfigMap", APPS, "a").await);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_must_have_applied_the_same_revision() {
    let world = World::new().await;
    let first = world
        .remote
        .commit(
            &[("apps/a.yaml", Some(&workload("notes", BROKEN, Some(1)))), ("more/b.yaml", Some(&config("b", "one")))],
            "first",
        )
        .unwrap();
    world.deliver(json!({ "wait": true })).await;
    world.create(json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": { "name": "more", "namespace": APPS },
        "spec": { "interval": "1m", "path": "more", "prune": true, "dependsOn": [{ "name": "apps", "namespace": FLUX }],
            "sourceRef": { "kind": "GitRepository", "name": "apps", "namespace": FLUX } },
    })).await;
    let more = |object: &Value| condition(object, "Ready")["reason"] == "DependencyNotReady";
    world.wait("Kustomization", APPS, "more", more).await;
    let second = world.remote.commit(&[("apps/a.yaml", Some(&workload("notes", "1.0", Some(1))))], "second").unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-1").await;
    let object = world.wait("Kustomization", APPS, "more", ready).await;
    assert!(holds(&object, &second) && !holds(&object, &first));
}

#[tokio::test(start_paused = true)]
async fn a_git_host_out_of_reach_turns_the_source_not_ready_and_keeps_its_artifact() {
    let world = World::new().await;
    let first = world.remote.commit(&[("apps/a.yaml", Some(&config("a", "one")))], "first").unwrap();
    world.deliver(json!({})).await;
    world.kustomization(|object| holds(object, &first)).await;
    world.remote.set_reachable(false).unwrap();
    world.poke("GitRepository", FLUX, "apps", "t-1").await;
    let source = world.wait("GitRepository", FLUX, "apps", |source| is(source, "Ready", "False")).await;
    assert_eq!(condition(&source, "Ready")["reason"], "GitOperationFailed");
    assert_eq!(source["status"]["artifact"]["revision"], format!("main@sha1:{first}"));
    let requests = world.server.audit().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let more = world.server.audit().len() - requests;
    assert!(more < 300, "{more} requests in ten minutes");
    world.remote.set_reachable(true).unwrap();
    let second = world.remote.commit(&[("apps/a.yaml", Some(&config("a", "two")))], "second").unwrap();
    world.kustomization(|object| holds(object, &second)).await;
    world.wait("GitRepository", FLUX, "apps", ready).await;
}
