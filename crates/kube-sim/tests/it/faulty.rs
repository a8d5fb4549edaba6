//! Faults between client and server.

use super::{code, config_map, config_maps, server};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube_sim::faults::{CrashAt, Fault, Faults, Matcher, Rule};
use kube_sim::{Config, Identity, SimServer};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn maps(client: kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_of_a_request_that_was_executed() {
    let server = server();
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::mutating().resource("configmaps"), Fault::LostReply).times(1));
    faults.add(Rule::new(Matcher::mutating().resource("configmaps"), Fault::LostRequest).after(1).times(1));
    let api = maps(faults.client(&server, Identity::user("jane")));
    assert!(api.create(&PostParams::default(), &config_map("a", "1")).await.is_err());
    assert!(api.get("a").await.is_ok(), "reads are not touched, and it is there");
    assert!(api.create(&PostParams::default(), &config_map("b", "1")).await.is_err());
    assert!(api.get_opt("b").await.unwrap().is_none());
    assert_eq!(faults.trace().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_latency_strike_as_scripted() {
    let server = server();
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("get"), Fault::Refuse(503)).after(1).times(1));
    faults.add(Rule::new(Matcher::any().verb("create"), Fault::Latency(Duration::from_secs(9))));
    let api = maps(faults.client(&server, Identity::user("jane")));
    let before = tokio::time::Instant::now();
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(9));
    assert!(api.get("a").await.is_ok());
    assert_eq!(code(api.get("a").await.unwrap_err()), 503);
    assert!(api.get("a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stale_list_shows_the_past() {
    let server = server();
    let direct = config_maps(&server);
    for n in 0..4 {
        direct.create(&PostParams::default(), &config_map(&format!("m{n}"), "1")).await.unwrap();
    }
    let faults = Faults::new(1);
    faults.add(Rule::new(Matcher::any().verb("list").verb("get"), Fault::Stale(2)));
    let api = maps(faults.client(&server, Identity::user("jane")));
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert!(api.get_opt("m3").await.unwrap().is_none());
}

/// A small program: three writes. Returns how far it came.
async fn program(client: kube::Client, progress: Arc<AtomicU64>) {
    let api = maps(client);
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        api.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
        progress.store(n as u64 + 1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_point_kills_the_code_at_the_named_write() {
    for (at, written, known) in [(CrashAt::Before, 1, 1), (CrashAt::ReplyLost, 2, 1), (CrashAt::After, 2, 2)] {
        let server = server();
        let faults = Faults::new(1);
        let task: Arc<Mutex<Option<tokio::task::AbortHandle>>> = Arc::default();
        let to_kill = task.clone();
        faults.crash(
            "jane",
            2,
            at,
            Arc::new(move |crash| {
                assert_eq!((crash.number, crash.request.verb.as_str()), (2, "create"));
                to_kill.lock().unwrap().as_ref().unwrap().abort();
            }),
        );
        let progress = Arc::new(AtomicU64::new(0));
        let running = tokio::spawn(program(faults.client(&server, Identity::user("jane")), progress.clone()));
        *task.lock().unwrap() = Some(running.abort_handle());
        assert!(running.await.unwrap_err().is_cancelled(), "{at:?}");
        assert_eq!(config_maps(&server).list(&ListParams::default()).await.unwrap().items.len(), written, "{at:?}");
        assert_eq!(progress.load(Ordering::SeqCst), known, "{at:?}");
        let restarted = maps(faults.client(&server, Identity::user("jane")));
        restarted.create(&PostParams::default(), &config_map("after", "1")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_recovers_from_ended_and_delayed_watches() {
    let server = server();
    let faults = Faults::new(3);
    faults.add(Rule::new(Matcher::any().verb("watch"), Fault::EndWatch(2)));
    faults.add(Rule::new(Matcher::any().verb("watch"), Fault::DelayEvents(Duration::from_secs(2))));
    let api = maps(faults.client(&server, Identity::user("jane")));
    let seen = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(async |o| o.ok())
        .take(6);
    let direct = config_maps(&server);
    let writer = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for n in 0..6 {
            direct.create(&PostParams::default(), &config_map(&format!("m{n}"), "1")).await.unwrap();
        }
    };
    let (seen, ()) = tokio::join!(seen.map(|o| o.name_any()).collect::<Vec<_>>(), writer);
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4", "m5"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_gone_for_good() {
    let server = server();
    let faults = Faults::new(3);
    faults.add(Rule::new(Matcher::any().verb("watch"), Fault::DropEvents(50)));
    let api = maps(faults.client(&server, Identity::user("jane")));
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let watching = watcher(api, watcher::Config::default()).applied_objects().for_each(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready(())
    });
    let direct = config_maps(&server);
    let writer = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for n in 0..40 {
            direct.create(&PostParams::default(), &config_map(&format!("m{n}"), "1")).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    tokio::select! { () = watching => {}, () = writer => {} }
    let seen = count.load(Ordering::SeqCst);
    assert!((8..33).contains(&seen), "{seen}");
}

async fn storm(seed: u64) -> (String, Vec<String>) {
    let server = SimServer::new(Config { seed, always_allow: true, ..Config::default() });
    let faults = Faults::new(seed);
    faults.add(Rule::new(Matcher::any(), Fault::Jitter(Duration::from_millis(20))));
    faults.add(Rule::new(Matcher::mutating(), Fault::Refuse(500)).percent(20));
    faults.add(Rule::new(Matcher::mutating(), Fault::LostReply).percent(10));
    config_maps(&server).create(&PostParams::default(), &config_map("shared", "0")).await.unwrap();
    let writers = (0..8).map(|n| {
        let api = maps(faults.client(&server, Identity::user(format!("user{n}"))));
        async move {
            for turn in 0..10 {
                let patch = json!({"data": {format!("u{n}"): turn.to_string(), "last": n.to_string()}});
                let _ = api.patch("shared", &PatchParams::default(), &Patch::Merge(patch)).await;
            }
        }
    });
    futures::future::join_all(writers).await;
    (server.trace_hash(), faults.trace())
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_storm_and_another_seed_another_one() {
    let (first, trace) = storm(7).await;
    assert!(trace.len() > 80);
    assert_eq!(storm(7).await, (first.clone(), trace));
    assert_ne!(storm(8).await.0, first);
}
