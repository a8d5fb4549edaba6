//! What somebody who may make an app, and no more, gets to see of others.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_read_of_a_delivery_object_where_the_app_has_nothing_to_say() {
    let world = World::new().await;
    let since = world.server.audit().len();
    let elsewhere = AppRef { namespace: "elsewhere".into(), ..app() };
    let failure = world.delivery.inspect(&elsewhere, &[release_object()]).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("namespace-not-allowed", false));
    assert_eq!(world.server.audit().len(), since, "nothing was asked for at all");
}

#[tokio::test(start_paused = true)]
async fn no_release_is_read_that_is_stored_where_the_app_has_nothing_to_say() {
    let world = World::new().await;
    let since = world.server.audit().len();
    world.change(&release_object(), json!({ "spec": { "storageNamespace": "victim" } })).await;
    world.status(&release_object(), json!({ "storageNamespace": null })).await;
    let failure = world.delivery.inspect(&app(), &[release_object()]).await.unwrap_err();
    assert_eq!(failure.code, "namespace-not-allowed");
    let audit = world.server.audit().split_off(since);
    assert!(!audit.iter().any(|entry| entry.resource == "secrets"), "{audit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pin_shows_nothing_of_a_secret_nor_of_another_namespace() {
    let world = World::new().await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.server.client());
    let victim = serde_json::from_value(json!({ "metadata": { "name": "victim" } })).unwrap();
    namespaces.create(&PostParams::default(), &victim).await.unwrap();
    for namespace in ["victim", "notes"] {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.server.client(), namespace);
        let secret = json!({ "metadata": { "name": "db" }, "stringData": { "password": "1.2.3" } });
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(world.server.client(), namespace);
        let map = json!({ "metadata": { "name": "db" }, "data": { "password": "1.2.3" } });
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
    let applied = ["victim_db__Secret", "notes_db__Secret", "victim_db__ConfigMap", "notes_db__ConfigMap"];
    let entries: Vec<Value> = applied.iter().map(|id| json!({ "id": id, "v": "v1" })).collect();
    world.status(&apps_object(), json!({ "inventory": { "entries": entries } })).await;
    let since = world.server.audit().len();
    let shown = async |object: &str| {
        let pins = [pin("x", object, "data.password", "x")];
        let carriers = world.delivery.carriers(&app(), &[apps_object()], &[], &pins).await.unwrap();
        carriers.into_iter().map(|carrier| carrier.shows).collect::<Vec<_>>()
    };
    assert_eq!(shown("ConfigMap/notes/db").await, [Some("1.2.3".to_owned())], "else this test sees nothing");
    for object in ["Secret/victim/db", "Secret/notes/db", "ConfigMap/victim/db"] {
        assert_eq!(shown(object).await, [None], "{object}");
    }
    let audit = world.server.audit().split_off(since);
    assert!(!audit.iter().any(|entry| entry.resource == "secrets" || entry.namespace == "victim"), "{audit:?}");
}
