//! Heads, facts, ancestry, logs, and what happens when the remote or the local copy is not as it should be.

use std::net::TcpListener;
use std::time::Duration;

use upgrade_core::ports::{Ancestry, GitManager, Repository};

use crate::world::*;

#[tokio::test]
async fn the_head_is_asked_from_the_remote_every_time() {
    let world = World::new();
    let manager = world.manager("a", |_| {});
    assert_eq!(manager.head(&app(), &world.repository()).await.unwrap(), world.head().to_string());
    let next = world.push("next", &[("README.md", "2\n")]);
    assert_eq!(manager.head(&app(), &world.repository()).await.unwrap(), next.to_string());
    let mut other = world.repository();
    other.branch = "nothing".into();
    let failure = manager.head(&app(), &other).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-branch-missing", false));
}

#[tokio::test]
async fn facts_are_read_at_the_commit_asked_for() {
    let world = World::new();
    let first = world.head().to_string();
    world.push("later", &[(RELEASE_PATH, &RELEASE.replace("1.4.0", "9.9.9"))]);
    let facts =
        world.manager("a", |_| {}).pins(&app(), &world.repository(), &first, &[chart(), image()]).await.unwrap();
    assert_eq!((facts[0].value.as_str(), facts[0].image_policy_marker), ("1.4.0", false));
    assert_eq!((facts[1].value.as_str(), facts[1].image_policy_marker), ("2.0.0", true));
    assert!(facts.iter().all(|fact| !fact.sops));
    assert_eq!(facts[0].pin, chart());
}

#[tokio::test]
async fn encrypted_files_are_seen_per_file() {
    let two = "kind: HelmRelease\nmetadata: {name: a}\nspec: {suspend: false, version: '1'}\n---\nkind: HelmRelease\nmetadata: {name: b}\nspec: {version: '2'}\n";
    let sops = format!("{two}---\nkind: Secret\nmetadata: {{name: c}}\nsops:\n  mac: ENC[x]\n");
    let named = "kind: ConfigMap\nmetadata: {name: a}\nspec: {version: '3'}\nsops: just a word\n";
    let world =
        World::with(&[("apps/notes/two.yaml", two), ("apps/notes/sops.yaml", &sops), ("apps/notes/word.yaml", named)]);
    let pins = [
        pin("a", "apps/notes/two.yaml", "HelmRelease/a", "spec.version"),
        pin("b", "apps/notes/two.yaml", "HelmRelease/b", "spec.version"),
        pin("c", "apps/notes/sops.yaml", "#1", "spec.version"),
        pin("d", "apps/notes/word.yaml", "ConfigMap", "spec.version"),
    ];
    let manager = world.manager("a", |_| {});
    let facts = manager.pins(&app(), &world.repository(), &world.head().to_string(), &pins).await.unwrap();
    let seen: Vec<_> = facts.iter().map(|fact| (&*fact.value, fact.sops)).collect();
    assert_eq!(seen, [("1", false), ("2", false), ("2", true), ("3", false)]);

    let wrong = pin("e", "apps/notes/two.yaml", "HelmRelease", "spec.version");
    let failure = manager.pins(&app(), &world.repository(), &world.head().to_string(), &[wrong]).await.unwrap_err();
    assert_eq!(failure.code, "pin-document-ambiguous");
}

#[tokio::test]
async fn ancestry_is_told_both_ways_when_the_whole_history_is_here() {
    let world = World::new();
    let first = world.head().to_string();
    let second = world.push("second", &[("README.md", "2\n")]).to_string();
    let manager = world.manager("a", |_| {});
    let ask = async |a: &str, b: &str| manager.ancestry(&app(), &world.repository(), a, b).await.unwrap();
    assert_eq!(ask(&first, &second).await, Ancestry::Contained);
    assert_eq!(ask(&second, &second).await, Ancestry::Contained);
    assert_eq!(ask(&second, &first).await, Ancestry::NotContained);
    let nobody = "1".repeat(40);
    assert_eq!(ask(&nobody, &second).await, Ancestry::NotContained);
    assert_eq!(ask(&second, &nobody).await, Ancestry::Unknown, "a commit that nobody has may contain anything");
    let failure = manager.ancestry(&app(), &world.repository(), "main", &first).await.unwrap_err();
    assert_eq!(failure.code, "git-request-refused");
}

#[tokio::test]
async fn the_log_lists_what_would_ship_along_below_our_paths() {
    let world = World::new();
    let from = world.head().to_string();
    world.push("elsewhere", &[("README.md", "2\n")]);
    world.push("below\n\nwith a body", &[("apps/notes/extra.yaml", "a: 1\n")]);
    world.push("neighbour", &[("apps/notes-old/x.yaml", "a: 1\n")]);
    let to = world.push("release", &[(RELEASE_PATH, &format!("{RELEASE}#\n"))]).to_string();
    world.push("too late", &[("apps/notes/extra.yaml", "a: 2\n")]);
    let manager = world.manager("a", |_| {});
    let log = async |repository: &Repository, limit| {
        manager.log(&app(), repository, &from, &to, limit).await.unwrap().unwrap()
    };
    let repository = world.repository();
    assert_eq!(log(&repository, 10).await, ["release", "below"]);
    assert_eq!(log(&repository, 1).await, ["release"]);
    let mut everywhere = repository.clone();
    everywhere.paths.clear();
    assert_eq!(log(&everywhere, 10).await, ["release", "neighbour", "below", "elsewhere"]);
}

#[tokio::test]
async fn a_commit_that_the_branch_does_not_have_is_said_to_be_unknown() {
    let world = World::new();
    let nobody = "1".repeat(40);
    let failure = world.manager("a", |_| {}).pins(&app(), &world.repository(), &nobody, &[chart()]).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-commit-unknown", false));
}

#[tokio::test]
async fn a_broken_copy_is_thrown_away_and_fetched_anew() {
    let world = World::new();
    let head = world.head().to_string();
    let manager = world.manager("a", |_| {});
    manager.pins(&app(), &world.repository(), &head, &[chart()]).await.unwrap();
    let copy = std::fs::read_dir(world.cache().join("a")).unwrap().next().unwrap().unwrap().path();
    let mut broken = 0;
    for folder in walk(&copy.join("objects")) {
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::write(&folder, "rubbish").unwrap();
        broken += 1;
    }
    assert!(broken > 0);
    let facts = manager.pins(&app(), &world.repository(), &head, &[chart()]).await.unwrap();
    assert_eq!(facts[0].value, "1.4.0");
    std::fs::write(copy.join("HEAD"), "rubbish").unwrap();
    manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap();
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn another_namespace_or_secret_never_sees_the_copy() {
    let world = World::new();
    let manager = world.manager("a", |_| {});
    let mut other = app();
    manager.head(&other, &world.repository()).await.unwrap();
    other.namespace = "evil".into();
    manager.head(&other, &world.repository()).await.unwrap();
    assert_eq!(std::fs::read_dir(world.cache().join("a")).unwrap().count(), 2);
}

#[tokio::test]
async fn files_are_refused_unless_enabled_and_missing_ones_may_come_back() {
    let world = World::new();
    let failure =
        world.manager("a", |options| options.allow_files = false).head(&app(), &world.repository()).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-url-refused", false));
    let failure = world.manager("b", |_| {}).head(&app(), &repository("file:///nowhere/x.git")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-unreachable", true));
}

#[tokio::test]
async fn a_server_that_never_answers_costs_one_timeout_per_call() {
    let world = World::new();
    for (scheme, repository, secrets, _listener) in silent_servers() {
        let manager = world.manager_with(scheme, secrets, |options| options.timeout = Duration::from_millis(200));
        // More often than copies can be left behind, so that calls which do not end would be noticed.
        for _ in 0..7 {
            let failure = manager.head(&app(), &repository).await.unwrap_err();
            assert_eq!((failure.code.as_str(), failure.retryable), ("git-unreachable", true), "{scheme}");
            assert!(failure.message.contains("no answer within"), "{scheme}: held up by the call before: {failure}");
        }
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_long_before_the_call_is() {
    let world = World::new();
    for (scheme, repository, secrets, _listener) in silent_servers() {
        let manager = world.manager_with(scheme, secrets, |options| options.silence = Duration::from_millis(200));
        let failure = manager.head(&app(), &repository).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("git-unreachable", true), "{scheme}");
        assert!(failure.message.contains("no answer within 200ms"), "{scheme}: {failure}");
    }
}

#[tokio::test]
async fn the_short_spelling_of_an_ssh_url_reaches_the_port_of_ssh() {
    let world = World::new();
    let (_, mut repository, secrets, _listener) = silent_servers().pop().unwrap();
    // Nobody else may listen on a loopback address of this test's own.
    repository.url = "git@127.77.77.77:org/apps.git".into();
    let failure = world.manager_with("a", secrets, |_| {}).head(&app(), &repository).await.unwrap_err();
    assert!(failure.message.contains("127.77.77.77 port 22"), "{failure}");
}

/// Servers that take connections and never say a word, with the repositories on them.
fn silent_servers() -> Vec<(&'static str, Repository, Known, TcpListener)> {
    let server = |scheme| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut repository = repository(&format!("{scheme}://{}/apps.git", listener.local_addr().unwrap()));
        repository.secret = Some("git-write".into());
        let keys = [("identity", "key"), ("known_hosts", "127.0.0.1 ssh-ed25519 AAAA"), ("password", "secret")];
        (scheme, repository, secret(&keys), listener)
    };
    ["http", "https", "ssh"].map(server).into()
}

#[tokio::test]
async fn the_manifests_below_a_folder_are_read_with_our_changes() {
    let world = World::with(&[
        (RELEASE_PATH, RELEASE),
        ("apps/notes/deep/claim.yml", "kind: PersistentVolumeClaim\n"),
        ("apps/notes/notes.txt", "no manifest"),
        ("apps/notes-old/x.yaml", "a: 1\n"),
    ]);
    let manager = world.manager("a", |_| {});
    let (repository, head) = (world.repository(), world.head().to_string());
    let changes = bump(&repository, "op-1").changes;
    let files = manager.files(&app(), &repository, &head, "apps/notes", &changes).await.unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["apps/notes/deep/claim.yml", RELEASE_PATH]);
    assert!(files[RELEASE_PATH].contains(&changes[0].value), "{}", files[RELEASE_PATH]);
    let files = async |folder| manager.files(&app(), &repository, &head, folder, &[]).await;
    assert_eq!(files("").await.unwrap().len(), 3);
    assert!(files("nowhere").await.unwrap().is_empty());
    assert!(files(RELEASE_PATH).await.unwrap().is_empty());
    let small = world.manager("b", |options| options.max_file_bytes = 1);
    let failure = small.files(&app(), &repository, &head, "", &[]).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-files-refused", false));
}
