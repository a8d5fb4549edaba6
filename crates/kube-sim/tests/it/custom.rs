//! Custom resources: schemas, defaults, CEL rules, status, scale, discovery.

use super::{code, from, server};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::conditions;
use kube_sim::SimServer;
use serde_json::{Value, json};
use std::time::Duration;

fn definition() -> CustomResourceDefinition {
    from(json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "replicas": {"type": "integer", "default": 1},
                    "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed may not change"}]},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                    "x-kubernetes-validations": [{"rule": "self.size >= self.replicas", "message": "size must cover replicas"}]},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}}))
}

async fn widgets(server: &SimServer) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    let established =
        kube::runtime::wait::await_condition(definitions, "widgets.example.com", conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(10), established).await.unwrap().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    Api::namespaced_with(server.client(), "default", &resource)
}

fn widget(name: &str, spec: &Value) -> DynamicObject {
    from(json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}))
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_is_pruned_defaulted_and_validated() {
    let server = server();
    let api = widgets(&server).await;
    let made = api
        .create(&PostParams::default(), &widget("w", &json!({"size": 3, "odd": 1, "free": {"x": 1}})))
        .await
        .unwrap();
    assert_eq!(made.data["spec"], json!({"size": 3, "free": {"x": 1}, "replicas": 1}));
    assert_eq!(made.metadata.generation, Some(1));
    for bad in [json!({}), json!({"size": 0}), json!({"size": "many"}), json!({"size": 1, "replicas": 2})] {
        assert_eq!(code(api.create(&PostParams::default(), &widget("bad", &bad)).await.unwrap_err()), 422, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn transition_rules_see_the_old_value() {
    let server = server();
    let api = widgets(&server).await;
    api.create(&PostParams::default(), &widget("w", &json!({"size": 3, "fixed": "a"}))).await.unwrap();
    let change = |v: &str| Patch::Merge(json!({"spec": {"fixed": v, "size": 4}}));
    api.patch("w", &PatchParams::default(), &change("a")).await.unwrap();
    let error = api.patch("w", &PatchParams::default(), &change("b")).await.unwrap_err();
    assert!(error.to_string().contains("fixed may not change"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn status_and_scale_are_apart_from_the_spec() {
    let server = server();
    let api = widgets(&server).await;
    api.create(&PostParams::default(), &widget("w", &json!({"size": 3}))).await.unwrap();
    let seen = api
        .patch_status(
            "w",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"size": 9}, "status": {"replicas": 2}})),
        )
        .await
        .unwrap();
    assert_eq!((seen.data["spec"]["size"].clone(), seen.data["status"]["replicas"].clone()), (json!(3), json!(2)));
    assert_eq!(seen.metadata.generation, Some(1));
    let scale =
        api.patch_scale("w", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 2}}))).await.unwrap();
    assert_eq!(scale.status.unwrap().replicas, 2);
    assert_eq!(api.get("w").await.unwrap().data["spec"]["replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn strategic_patches_are_not_for_custom_resources() {
    let server = server();
    let api = widgets(&server).await;
    api.create(&PostParams::default(), &widget("w", &json!({"size": 3}))).await.unwrap();
    let error =
        api.patch("w", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"size": 4}}))).await.unwrap_err();
    assert_eq!(code(error), 415);
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_it_and_deleting_the_definition_deletes_it() {
    let server = server();
    let api = widgets(&server).await;
    api.create(&PostParams::default(), &widget("w", &json!({"size": 3}))).await.unwrap();
    let found = kube::discovery::Discovery::new(server.client()).run().await.unwrap();
    let (resource, _) = found.resolve_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget")).unwrap();
    assert_eq!(resource.plural, "widgets");
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(code(definitions.get("widgets.example.com").await.unwrap_err()), 404);
    assert_eq!(code(api.list(&ListParams::default()).await.unwrap_err()), 404);
}

#[tokio::test(start_paused = true)]
async fn a_definition_with_a_broken_rule_is_refused() {
    let server = server();
    let mut broken = definition();
    let schema = broken.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
    let spec = schema.properties.as_mut().unwrap().get_mut("spec").unwrap();
    spec.x_kubernetes_validations.as_mut().unwrap()[0].rule = "self.size >=".into();
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    assert_eq!(code(definitions.create(&PostParams::default(), &broken).await.unwrap_err()), 422);
}
