//! Watches: from a revision, with selectors, bookmarks, and 410.

use super::{config_map, config_maps, server};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube_sim::SimServer;
use serde_json::json;
use std::time::Duration;

async fn next(stream: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin)) -> String {
    let event = tokio::time::timeout(Duration::from_secs(600), stream.next())
        .await
        .expect("in time")
        .expect("not ended")
        .unwrap();
    match event {
        WatchEvent::Added(o) => format!("+{}", o.name_any()),
        WatchEvent::Modified(o) => format!("~{}", o.name_any()),
        WatchEvent::Deleted(o) => format!("-{}", o.name_any()),
        WatchEvent::Bookmark(_) => "bookmark".to_owned(),
        WatchEvent::Error(e) => format!("{}", e.code),
    }
}

async fn write(maps: &Api<ConfigMap>, name: &str, value: &str, label: Option<&str>) {
    let body = json!({"metadata": {"labels": {"l": label}}, "data": {"key": value}});
    if maps.get_opt(name).await.unwrap().is_some() {
        maps.patch(name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
    } else {
        let mut object = config_map(name, value);
        object.metadata.labels = label.map(|l| [("l".to_owned(), l.to_owned())].into());
        maps.create(&PostParams::default(), &object).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_starts_at_its_revision_and_follows() {
    let server = server();
    let maps = config_maps(&server);
    write(&maps, "a", "1", None).await;
    let revision = server.revision().to_string();
    write(&maps, "a", "2", None).await;
    let mut stream = maps.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "~a");
    write(&maps, "b", "1", None).await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(next(&mut stream).await, "+b");
    assert_eq!(next(&mut stream).await, "-a");
    assert_eq!(next(&mut stream).await, "bookmark");
    let mut fresh = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert_eq!(next(&mut fresh).await, "+b", "initial state first");
}

#[tokio::test(start_paused = true)]
async fn objects_enter_and_leave_a_selection() {
    let server = server();
    let maps = config_maps(&server);
    let params = WatchParams::default().labels("l=x");
    let mut stream = maps.watch(&params, &server.revision().to_string()).await.unwrap().boxed();
    write(&maps, "a", "1", None).await;
    write(&maps, "a", "2", Some("x")).await;
    write(&maps, "a", "3", Some("x")).await;
    write(&maps, "a", "4", Some("y")).await;
    for wanted in ["+a", "~a", "-a"] {
        assert_eq!(next(&mut stream).await, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_compacted_revision_is_gone() {
    let server = server();
    let maps = config_maps(&server);
    let revision = server.revision().to_string();
    write(&maps, "a", "1", None).await;
    server.compact();
    let mut stream = maps.watch(&WatchParams::default(), &revision).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "410");
}

async fn names_seen(server: &SimServer, config: watcher::Config) -> Vec<String> {
    let maps = config_maps(server);
    write(&maps, "a", "1", None).await;
    let stream = watcher(maps.clone(), config).applied_objects();
    let collected = stream.take(3).map_ok(|o| o.name_any()).try_collect::<Vec<_>>();
    let writer = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        write(&maps, "b", "1", None).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        server.compact();
        write(&maps, "c", "1", None).await;
    };
    tokio::join!(tokio::time::timeout(Duration::from_secs(5000), collected), writer).0.expect("in time").unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_watcher_of_kube_works_with_both_strategies() {
    assert_eq!(names_seen(&server(), watcher::Config::default()).await, ["a", "b", "c"]);
    assert_eq!(names_seen(&server(), watcher::Config::default().streaming_lists()).await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_watchers_see_metadata_only() {
    let server = server();
    let maps = config_maps(&server);
    write(&maps, "a", "1", Some("x")).await;
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(server.client(), "default");
    let mut stream = watcher(metadata, watcher::Config::default()).applied_objects().boxed();
    let seen = stream.next().await.unwrap().unwrap();
    assert_eq!((seen.name_any().as_str(), seen.labels()["l"].as_str()), ("a", "x"));
}
