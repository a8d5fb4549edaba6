//! An unchanged `kube::runtime::Controller` on virtual time.

use super::{config_map, config_maps, server};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use kube_sim::SimServer;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

struct Counter {
    api: Api<ConfigMap>,
    reconciles: AtomicU64,
}

async fn reconcile(object: Arc<ConfigMap>, counter: Arc<Counter>) -> Result<Action, kube::Error> {
    counter.reconciles.fetch_add(1, Ordering::SeqCst);
    let passes: u64 = object.annotations().get("passes").and_then(|p| p.parse().ok()).unwrap_or(0);
    if passes < 3 {
        let patch = json!({"metadata": {"annotations": {"passes": (passes + 1).to_string()}}});
        counter.api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(Action::requeue(HOUR))
}

async fn day(server: &SimServer) -> u64 {
    let api = config_maps(server);
    for n in 0..50 {
        api.create(&PostParams::default(), &config_map(&format!("m{n:02}"), "1")).await.unwrap();
    }
    let counter = Arc::new(Counter { api: api.clone(), reconciles: AtomicU64::new(0) });
    let running = Controller::new(api, watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), counter.clone())
        .for_each(|_| async {});
    let _ = tokio::time::timeout(24 * HOUR, running).await;
    counter.reconciles.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_controller_runs_for_a_day_and_each_day_is_the_same() {
    let first = server();
    let a = day(&first).await;
    let second = server();
    let b = day(&second).await;
    assert_eq!(a, b);
    assert!(a >= 50 * 24, "{a}");
    for (one, other) in first.audit().iter().zip(&second.audit()) {
        assert_eq!(one, other, "the first difference");
    }
    assert_eq!(first.trace_hash(), second.trace_hash());
    let (start, end) = (kube_sim::Config::default().epoch, first.now());
    assert!(end.duration_since(start).as_hours() >= 24);
}

#[tokio::test(start_paused = true)]
async fn the_finalizer_helper_cleans_up_before_the_object_goes() {
    let server = server();
    let api = config_maps(&server);
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let cleaned = Arc::new(AtomicU64::new(0));
    let running = Controller::new(api.clone(), watcher::Config::default())
        .run(
            |object: Arc<ConfigMap>, context: Arc<(Api<ConfigMap>, Arc<AtomicU64>)>| async move {
                finalizer(&context.0, "example.com/clean", object, |event| {
                    let cleanup = matches!(event, finalizer::Event::Cleanup(_));
                    context.1.fetch_add(u64::from(cleanup), Ordering::SeqCst);
                    async { Ok::<_, kube::Error>(Action::await_change()) }
                })
                .await
            },
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            Arc::new((api.clone(), cleaned.clone())),
        )
        .for_each(|_| async {});
    let script = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(api.get("a").await.unwrap().finalizers(), ["example.com/clean"]);
        api.delete("a", &Default::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(api.get_opt("a").await.unwrap().is_none());
    };
    tokio::select! { () = running => panic!("ended"), () = script => {} }
    assert_eq!(cleaned.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn events_of_the_recorder_are_seen_in_both_groups() {
    let server = server();
    let object = config_maps(&server).create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let recorder = Recorder::new(server.client(), Reporter { controller: "windlass".into(), instance: None });
    let event = Event {
        type_: EventType::Normal,
        reason: "Did".into(),
        note: Some("it".into()),
        action: "Do".into(),
        secondary: None,
    };
    recorder.publish(&event, &object.object_ref(&())).await.unwrap();
    recorder.publish(&event, &object.object_ref(&())).await.unwrap();
    let events: Api<CoreEvent> = Api::namespaced(server.client(), "default");
    let seen = events.list(&ListParams::default().fields("involvedObject.name=a,reason=Did")).await.unwrap().items;
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].message.as_deref(), seen[0].involved_object.name.as_deref()), (Some("it"), Some("a")));
    assert_eq!(seen[0].series.as_ref().and_then(|s| s.count), Some(2));
}
