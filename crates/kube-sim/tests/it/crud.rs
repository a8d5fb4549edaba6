//! Creating, reading, changing and deleting.

use super::{code, config_map, config_maps, deployment, from, server};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::{Resource, ResourceExt};
use kube_sim::server::{ApiError, AuditEntry};
use kube_sim::{Config, Identity, SimServer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt as _;

#[tokio::test(start_paused = true)]
async fn an_object_lives_from_create_to_delete() {
    let server = server();
    let maps = config_maps(&server);
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let error = maps.create(&PostParams::default(), &config_map("a", "2")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(s) if s.reason == "AlreadyExists"), "{error}");
    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("key".into(), "2".into());
    let changed = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(changed.resource_version(), made.resource_version());
    assert_eq!(changed.uid(), made.uid());
    let same = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(same.resource_version(), changed.resource_version(), "writing the same again is no write");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(maps.get("a").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn a_stale_write_is_refused() {
    let server = server();
    let maps = config_maps(&server);
    let first = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    let error = maps.replace("a", &PostParams::default(), &first).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(s) if s.code == 409 && s.reason == "Conflict"), "{error}");
    let stale = json!({"metadata": {"resourceVersion": first.resource_version()}, "data": {"key": "3"}});
    assert_eq!(code(maps.patch("a", &PatchParams::default(), &Patch::Merge(stale)).await.unwrap_err()), 409);
    let params = DeleteParams::default()
        .preconditions(kube::api::Preconditions { uid: Some("other".into()), resource_version: None });
    assert_eq!(code(maps.delete("a", &params).await.unwrap_err()), 409);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_answers_but_keeps_nothing() {
    let server = server();
    let maps = config_maps(&server);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(maps.create(&dry, &config_map("a", "1")).await.unwrap().uid().is_some());
    assert_eq!(code(maps.get("a").await.unwrap_err()), 404);
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let seen = maps.patch("a", &params, &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    assert_eq!(seen.data.unwrap()["key"], "2");
    maps.delete("a", &DeleteParams { dry_run: true, ..DeleteParams::default() }).await.unwrap();
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["key"], "1");
}

#[tokio::test(start_paused = true)]
async fn the_generation_moves_with_the_spec_and_status_is_apart() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let mut wish = deployment("d", None);
    wish["status"] = json!({"replicas": 7});
    let made = api.create(&PostParams::default(), &from(wish)).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().replicas, Some(1), "defaulted");
    assert_eq!(made.status.as_ref().and_then(|s| s.replicas), None, "status is not created");
    let status = api
        .patch_status(
            "d",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"replicas": 3}, "spec": {"replicas": 9}})),
        )
        .await
        .unwrap();
    assert_eq!((status.status.unwrap().replicas, status.spec.unwrap().replicas), (Some(3), Some(1)));
    assert_eq!(status.metadata.generation, Some(1));
    let spec = api
        .patch("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}, "status": {"replicas": 9}})))
        .await
        .unwrap();
    assert_eq!((spec.status.unwrap().replicas, spec.spec.unwrap().replicas), (Some(3), Some(2)));
    assert_eq!(spec.metadata.generation, Some(2));
    let labelled = api
        .patch("d", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}})))
        .await
        .unwrap();
    assert_eq!(labelled.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn bad_objects_are_refused_with_their_causes() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let mut bad = deployment("d", Some(-1));
    bad["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    let error = api.create(&PostParams::default(), &from(bad)).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    let fields: Vec<String> = status.details.unwrap().causes.into_iter().map(|c| c.field).collect();
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert_eq!(fields, ["spec.template.metadata.labels", "spec.replicas"]);
    api.create(&PostParams::default(), &from(deployment("d", None))).await.unwrap();
    let moved = json!({"spec": {"selector": {"matchLabels": {"app": "z"}}, "template": {"metadata": {"labels": {"app": "z"}}}}});
    assert_eq!(
        code(api.patch("d", &PatchParams::default(), &Patch::Merge(moved)).await.unwrap_err()),
        422,
        "selectors are immutable"
    );
    let maps = config_maps(&server);
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("Bad_Name", "1")).await.unwrap_err()), 422);
}

#[tokio::test(start_paused = true)]
async fn strict_validation_refuses_unknown_fields_and_the_default_drops_them() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let mut odd = deployment("d", None);
    odd["spec"]["replica"] = json!(3);
    let url = "/apis/apps/v1/namespaces/default/deployments";
    let post =
        |query: &str| http::Request::post(format!("{url}?{query}")).body(serde_json::to_vec(&odd).unwrap()).unwrap();
    let error = server.client().request::<Value>(post("fieldValidation=Strict")).await.unwrap_err();
    assert!(error.to_string().contains("unknown field \"spec.replica\""), "{error}");
    let made: Value = server.client().request(post("")).await.unwrap();
    assert!(made["spec"].get("replica").is_none());
    assert!(api.get("d").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = server();
    let maps = config_maps(&server);
    let mut held = config_map("a", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let left = maps.delete("a", &DeleteParams::default()).await.unwrap().left().expect("still there");
    assert!(left.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(code(maps.patch("a", &PatchParams::default(), &Patch::Merge(more)).await.unwrap_err()), 422);
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert_eq!(code(maps.get("a").await.unwrap_err()), 404);
}

async fn owned(api: &Api<ConfigMap>, name: &str, owner: &ConfigMap, block: bool) {
    let mut object = config_map(name, "x");
    let mut reference = owner.owner_ref(&()).unwrap();
    reference.block_owner_deletion = Some(block);
    object.metadata.owner_references = Some(vec![reference]);
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn names(api: &Api<ConfigMap>) -> Vec<String> {
    api.list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(start_paused = true)]
async fn dependents_follow_their_owner_in_each_policy() {
    let server = server();
    let maps = config_maps(&server);
    let settle = || tokio::time::sleep(Duration::from_secs(1));
    let owner = maps.create(&PostParams::default(), &config_map("owner", "1")).await.unwrap();
    owned(&maps, "child", &owner, true).await;
    let child = maps.get("child").await.unwrap();
    owned(&maps, "grandchild", &child, true).await;

    let delete = |policy| DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    maps.delete("owner", &delete(PropagationPolicy::Orphan)).await.unwrap();
    settle().await;
    assert_eq!(names(&maps).await, ["child", "grandchild"]);
    assert!(maps.get("child").await.unwrap().metadata.owner_references.is_none());

    let left = maps.delete("child", &delete(PropagationPolicy::Foreground)).await.unwrap();
    assert!(left.left().unwrap().finalizers().contains(&"foregroundDeletion".to_owned()));
    settle().await;
    assert!(names(&maps).await.is_empty());

    let owner = maps.create(&PostParams::default(), &config_map("owner", "1")).await.unwrap();
    owned(&maps, "child", &owner, false).await;
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    assert_eq!(names(&maps).await, ["child"], "background means later");
    settle().await;
    assert!(names(&maps).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_contents_with_it() {
    let server = server();
    let namespaces: Api<Namespace> = Api::all(server.client());
    namespaces.create(&PostParams::default(), &from(json!({"metadata": {"name": "app"}}))).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "app");
    let mut held = config_map("held", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.create(&PostParams::default(), &config_map("free", "1")).await.unwrap();
    namespaces.delete("app", &DeleteParams::default()).await.unwrap();
    let refused = maps.create(&PostParams::default(), &config_map("late", "1")).await.unwrap_err();
    assert!(refused.to_string().contains("being terminated"), "{refused}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(names(&maps).await, ["held"]);
    assert_eq!(namespaces.get("app").await.unwrap().status.unwrap().phase.as_deref(), Some("Terminating"));
    maps.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(namespaces.get("app").await.unwrap_err()), 404);
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("later", "1")).await.unwrap_err()), 404);
}

fn pod(name: &str, ready: bool) -> (Pod, Value) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]}});
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    (from(pod), status)
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let server = server();
    let pods: Api<Pod> = Api::namespaced(server.client(), "default");
    pods.create(&PostParams::default(), &pod("p", true).0).await.unwrap();
    let left = pods.delete("p", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(left.metadata.deletion_grace_period_seconds, Some(30));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(pods.get("p").await.is_ok(), "only the kubelet ends it");
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    assert_eq!(code(pods.get("p").await.unwrap_err()), 404);
    let mut unscheduled = pod("q", true).0;
    unscheduled.spec.as_mut().unwrap().node_name = None;
    pods.create(&PostParams::default(), &unscheduled).await.unwrap();
    pods.delete("q", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(pods.get("q").await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_respects_the_budget() {
    let server = server();
    let pods: Api<Pod> = Api::namespaced(server.client(), "default");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(server.client(), "default");
    budgets
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}})))
        .await
        .unwrap();
    for name in ["p", "q"] {
        let (object, status) = pod(name, true);
        pods.create(&PostParams::default(), &object).await.unwrap();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    pods.evict("p", &EvictParams::default()).await.unwrap();
    assert_eq!(code(pods.evict("q", &EvictParams::default()).await.unwrap_err()), 429);
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_of_one_state() {
    let server = server();
    let maps = config_maps(&server);
    for n in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{n}"), "1")).await.unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    maps.delete("m3", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("m2a", "1")).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let rest = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    let seen: Vec<String> = first.items.iter().chain(&rest.items).map(ResourceExt::name_any).collect();
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"], "the state of the first page");
    server.compact();
    maps.create(&PostParams::default(), &config_map("z", "1")).await.unwrap();
    assert_eq!(code(maps.list(&ListParams::default().continue_token(&token)).await.unwrap_err()), 410);
}

#[tokio::test(start_paused = true)]
async fn selectors_choose_by_label_and_field() {
    let server = server();
    let secrets: Api<Secret> = Api::namespaced(server.client(), "default");
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "")] {
        let labels = if tier.is_empty() { json!({}) } else { json!({"tier": tier}) };
        secrets
            .create(
                &PostParams::default(),
                &from(json!({"metadata": {"name": name, "labels": labels}, "stringData": {"k": "v"}})),
            )
            .await
            .unwrap();
    }
    let found = async |params: ListParams| -> Vec<String> {
        secrets.list(&params).await.unwrap().items.iter().map(ResourceExt::name_any).collect()
    };
    assert_eq!(found(ListParams::default().labels("tier in (web,db),tier!=db")).await, ["a"]);
    assert_eq!(found(ListParams::default().labels("!tier")).await, ["c"]);
    assert_eq!(found(ListParams::default().fields("metadata.name!=b,type=Opaque")).await, ["a", "c"]);
    assert_eq!(code(secrets.list(&ListParams::default().fields("spec.what=x")).await.unwrap_err()), 400);
    let data = secrets.get("a").await.unwrap().data.unwrap();
    assert_eq!(data["k"].0, b"v");
}

#[tokio::test(start_paused = true)]
async fn rights_come_from_the_roles_in_the_server() {
    let server = SimServer::new(Config::default());
    let admin = server.client();
    let robot = Identity::service_account("default", "robot");
    let maps: Api<ConfigMap> = Api::namespaced(server.client_as(robot.clone()), "default");
    let refused = maps.list(&ListParams::default()).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("User \"system:serviceaccount:default:robot\" cannot list resource \"configmaps\""),
        "{refused}"
    );
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::namespaced(admin.clone(), "default");
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(admin, "default");
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    roles.create(&PostParams::default(), &from(role)).await.unwrap();
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]});
    bindings.create(&PostParams::default(), &from(binding)).await.unwrap();
    assert!(maps.list(&ListParams::default()).await.is_ok());
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err()), 403);
    let elsewhere: Api<ConfigMap> = Api::namespaced(server.client_as(robot), "kube-system");
    assert_eq!(code(elsewhere.list(&ListParams::default()).await.unwrap_err()), 403);
}

#[tokio::test(start_paused = true)]
async fn hooks_judge_and_the_audit_log_remembers() {
    let server = server();
    server.add_admission_hook(Arc::new(|write| {
        if write.resource == "configmaps" && write.object["data"]["key"] == "bad" {
            return Err(ApiError::custom(400, "BadRequest", "admission webhook denied the request"));
        }
        Ok(())
    }));
    let maps: Api<ConfigMap> = Api::namespaced(server.client_as(Identity::user("jane")), "default");
    maps.create(&PostParams::default(), &config_map("good", "fine")).await.unwrap();
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("b", "bad")).await.unwrap_err()), 400);
    let log: Vec<AuditEntry> = server.audit();
    let seen: Vec<(&str, &str, &str, &str, u16)> =
        log.iter().map(|e| (e.user.as_str(), e.verb.as_str(), e.resource.as_str(), e.name.as_str(), e.code)).collect();
    assert_eq!(seen, [("jane", "create", "configmaps", "good", 201), ("jane", "create", "configmaps", "", 400)]);
}

#[tokio::test(start_paused = true)]
async fn logs_are_what_the_hook_says() {
    let server = server();
    let pods: Api<Pod> = Api::namespaced(server.client(), "default");
    let whole = LogParams::default();
    assert_eq!(code(pods.logs("web", &whole).await.unwrap_err()), 404);
    server.set_log_source(Arc::new(|namespace: &str, pod: &str, container: Option<&str>| {
        (pod == "web").then(|| format!("{namespace}/{pod}/{}", container.unwrap_or("-")))
    }));
    assert_eq!(pods.logs("web", &whole).await.unwrap(), "default/web/-");
    let of_main = LogParams { container: Some("main".into()), ..LogParams::default() };
    assert_eq!(pods.logs("web", &of_main).await.unwrap(), "default/web/main");
    assert_eq!(code(pods.logs("other", &whole).await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_identity_is_asked_by_whom_the_token_says() {
    let server = server();
    server.add_token("secret", Identity::user("jane"));
    let mut codes = Vec::new();
    for token in [None, Some("Bearer secret"), Some("Bearer guessed")] {
        let mut request = http::Request::get("/api/v1/namespaces/default/configmaps");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        codes.push(server.anonymous_service().oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!(codes, [200, 200, 401]);
    let users: Vec<String> = server.audit().into_iter().take(2).map(|entry| entry.user).collect();
    assert_eq!(users, ["system:anonymous", "jane"]);
}
