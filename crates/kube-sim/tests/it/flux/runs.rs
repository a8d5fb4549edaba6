//! Whole runs, compared.

use std::time::Duration;

use serde_json::json;

use super::*;

async fn run(dir: PathBuf, seed: u64) -> (String, usize, Vec<String>) {
    let world = World::at(dir, Knobs { seed, ..Knobs::default() }).await;
    let files = |tag: &str| [("apps/a.yaml", workload("notes", tag, Some(1))), ("apps/b.yaml", config("b", tag))];
    let commit = |tag: &str| {
        let files = files(tag);
        let files: Vec<(&str, Option<&str>)> = files.iter().map(|(path, text)| (*path, Some(text.as_str()))).collect();
        world.remote.commit(&files, tag).unwrap()
    };
    let first = commit("1.0");
    world.deliver(json!({ "wait": true })).await;
    world.kustomization(|object| holds(object, &first)).await;
    commit(BROKEN);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let last = commit("1.1");
    world.poke("GitRepository", FLUX, "apps", "t-1").await;
    world.kustomization(|object| holds(object, &last)).await;
    let audit = world.server.audit();
    (world.server.trace_hash(), audit.len(), audit.iter().map(|entry| format!("{entry:?}")).collect())
}

#[test]
fn the_same_seed_gives_the_same_run_and_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let once = |seed| {
        // In a runtime of its own, so that everything of the run before has ended; at the same place, because objects name it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let place = dir.path().join("run");
        let result = runtime.block_on(run(place.clone(), seed));
        drop(runtime);
        fs::remove_dir_all(place).unwrap();
        result
    };
    let (one, requests, first) = once(7);
    let (other, _, second) = once(7);
    for (index, (a, b)) in first.iter().zip(&second).enumerate() {
        assert_eq!(a, b, "request {index}");
    }
    assert_eq!(one, other);
    assert!(requests < 3_000, "{requests} requests");
}
