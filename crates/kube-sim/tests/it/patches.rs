//! The four kinds of patches, and who owns what.

use super::{code, config_map, config_maps, deployment, from, server};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn a_json_patch_tests_before_it_writes() {
    let server = server();
    let maps = config_maps(&server);
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let patch = |old: &str, new: &str| -> Patch<ConfigMap> {
        Patch::Json(from(
            json!([{"op": "test", "path": "/data/key", "value": old}, {"op": "replace", "path": "/data/key", "value": new}]),
        ))
    };
    maps.patch("a", &PatchParams::default(), &patch("1", "2")).await.unwrap();
    assert_eq!(code(maps.patch("a", &PatchParams::default(), &patch("1", "3")).await.unwrap_err()), 422);
    assert_eq!(maps.get("a").await.unwrap().data.unwrap()["key"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_strategic_patch_keeps_the_other_containers() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let mut two = deployment("d", None);
    two["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "side", "image": "side:1"}));
    api.create(&PostParams::default(), &from(two)).await.unwrap();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "app:2"}]}}}});
    let patched = api.patch("d", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let containers = patched.spec.unwrap().template.spec.unwrap().containers;
    let images: Vec<&str> = containers.iter().filter_map(|c| c.image.as_deref()).collect();
    assert_eq!(images, ["app:2", "side:1"]);
}

async fn apply(api: &Api<Deployment>, manager: &str, force: bool, body: &Value) -> kube::Result<Value> {
    let mut params = PatchParams::apply(manager);
    params.force = force;
    api.patch("d", &params, &Patch::Apply(body)).await.map(|d| serde_json::to_value(d).unwrap())
}

fn owners(object: &Value, field: &str) -> Vec<String> {
    object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["fieldsV1"].pointer(field).is_some())
        .map(|e| e["manager"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn apply_conflicts_force_and_dropped_fields() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap();
    apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap();
    assert_eq!(api.get("d").await.unwrap().metadata.generation, Some(1));

    let scale =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0}});
    let kube::Error::Api(status) = apply(&api, "me", false, &scale).await.unwrap_err() else { panic!() };
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"helm\": .spec.replicas");
    assert_eq!(status.details.unwrap().causes[0].field, ".spec.replicas");
    let forced = apply(&api, "me", true, &scale).await.unwrap();
    assert_eq!(owners(&forced, "/f:spec/f:replicas"), ["me"]);
    assert_eq!(forced["spec"]["replicas"], 0);

    let let_go =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"mine": "1"}}});
    let left = apply(&api, "me", false, &let_go).await.unwrap();
    assert_eq!(left["spec"]["replicas"], 1, "removed, then defaulted");
    let gone =
        apply(&api, "me", false, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}))
            .await
            .unwrap();
    assert!(gone["metadata"].get("labels").is_none());
}

#[tokio::test(start_paused = true)]
async fn applied_containers_are_merged_by_name() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "app", false, &deployment("d", None)).await.unwrap();
    let sidecar = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}});
    let both = apply(&api, "mesh", false, &sidecar).await.unwrap();
    assert_eq!(both["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let without =
        apply(&api, "mesh", false, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}))
            .await
            .unwrap();
    let containers = without["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["name"], "main");
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_what_it_changes() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap();
    let params = PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() };
    api.patch("d", &params, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
    let seen = serde_json::to_value(api.get("d").await.unwrap()).unwrap();
    assert_eq!(owners(&seen, "/f:spec/f:replicas"), ["editor"]);
    let kube::Error::Api(status) = apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"editor\" using apps/v1: .spec.replicas");
}

#[tokio::test(start_paused = true)]
async fn scaling_takes_the_field_from_its_owner() {
    let server = server();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap();
    let scale =
        api.patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}}))).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas.unwrap_or(0), 0);
    let seen = serde_json::to_value(api.get("d").await.unwrap()).unwrap();
    assert_eq!((seen["spec"]["replicas"].clone(), seen["metadata"]["generation"].clone()), (json!(0), json!(2)));
    assert!(owners(&seen, "/f:spec/f:replicas").is_empty());
    let scale = async |replicas: u32| {
        let params = PatchParams { field_manager: Some("me".into()), ..PatchParams::default() };
        api.patch_scale("d", &params, &Patch::Merge(json!({"spec": {"replicas": replicas}}))).await.unwrap();
        owners(&serde_json::to_value(api.get("d").await.unwrap()).unwrap(), "/f:spec/f:replicas")
    };
    assert!(scale(4).await.is_empty(), "nobody owned it, nobody does");
    let back = apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap();
    assert_eq!(back["spec"]["replicas"], 2, "no conflict after scaling to zero");
    assert_eq!(scale(3).await, ["me"], "taken from its owner");
    let kube::Error::Api(status) = apply(&api, "helm", false, &deployment("d", Some(2))).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"me\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[tokio::test(start_paused = true)]
async fn an_apply_creates_and_needs_a_manager() {
    let server = server();
    let maps = config_maps(&server);
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}});
    maps.patch("x", &PatchParams::apply("me"), &Patch::Apply(&body)).await.unwrap();
    let seen = serde_json::to_value(maps.get("x").await.unwrap()).unwrap();
    assert_eq!(seen["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    assert_eq!(seen["metadata"]["managedFields"][0]["operation"], "Apply");
}
