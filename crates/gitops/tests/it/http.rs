//! Over HTTP: shallow copies that are deepened, logins, certificates, servers that say no, and answers that get lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use upgrade_core::Failure;
use upgrade_core::ports::{Ancestry, GitManager, Repository};

use crate::server::{Behaviour, CHAIN, DIRECT, Server};
use crate::world::*;

const TOKEN: &str = "t0ken-that-must-not-leak";

fn serve(world: &World, behaviour: Behaviour) -> (Server, Repository) {
    let server = Server::start(world.dir.path().to_path_buf(), behaviour, None);
    let repository = repository(&server.url());
    (server, repository)
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

fn hook(world: &World, script: &str) {
    let hooks = world.path().join("hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    let path = hooks.join("pre-receive");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn assert_no_token(failure: &Failure) {
    let text = format!("{failure} {failure:?} {}", failure.hint);
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("bot:{TOKEN}"));
    assert!(!text.contains(TOKEN) && !text.contains(&encoded), "{text}");
}

#[tokio::test]
async fn a_commit_is_pushed_from_a_shallow_copy() {
    let world = World::new();
    world.age(120);
    let (server, repository) = serve(&world, Behaviour::default());
    let manager = world.manager("a", |_| {});
    assert_eq!(manager.head(&app(), &repository).await.unwrap(), world.head().to_string());
    let fetches = server.behaviour.fetches.load(Ordering::SeqCst);
    assert!(fetches > 0);
    manager.head(&app(), &repository).await.unwrap();
    assert_eq!(server.behaviour.fetches.load(Ordering::SeqCst), fetches, "nothing is fetched when nothing has changed");

    let record = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(world.numstat(&record.sha), [(2, 2, RELEASE_PATH.to_owned())]);
    assert!(
        std::process::Command::new("git")
            .arg("-C")
            .arg(world.path())
            .args(["fsck", "--strict"])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap(), record);
    world.age(30);
    let back = request(&repository, "op-2", &[(chart(), "1.5.0", "1.4.0")]);
    assert_eq!(manager.commit(&app(), &back).await.unwrap().sha, world.head().to_string());
}

#[tokio::test]
async fn a_server_that_sends_more_than_is_taken_is_told_to_stop() {
    let world = World::new();
    let (_server, repository) = serve(&world, Behaviour::default());
    let manager = world.manager("a", |options| options.max_received_bytes = 16);
    let failure = manager.head(&app(), &repository).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-too-much", false));
    let enough = world.manager("a", |_| {});
    assert_eq!(enough.head(&app(), &repository).await.unwrap(), world.head().to_string(), "the copy is none the worse");
}

#[tokio::test]
async fn ancestry_deepens_as_far_as_it_must_and_no_further_than_it_may() {
    let world = World::new();
    let first = world.head().to_string();
    let fillers = world.age(260);
    let (_server, repository) = serve(&world, Behaviour::default());
    let head = world.head().to_string();
    let old = fillers[59].to_string();

    let manager = world.manager("a", |options| options.depths = vec![50, 250]);
    let ask = async |a: &str| manager.ancestry(&app(), &repository, a, &head).await.unwrap();
    assert_eq!(ask(&fillers[250].to_string()).await, Ancestry::Contained);
    assert_eq!(ask(&old).await, Ancestry::Contained, "200 commits back");
    assert_eq!(ask(&first).await, Ancestry::Unknown, "beyond the limit");
    assert_eq!(ask(&"1".repeat(40)).await, Ancestry::Unknown, "not seen is not absent");

    let deep = world.manager("b", |options| options.depths = vec![50, 500]);
    let ask = async |a: &str, b: &str| deep.ancestry(&app(), &repository, a, b).await.unwrap();
    assert_eq!(ask(&first, &head).await, Ancestry::Contained);
    assert_eq!(ask(&"1".repeat(40), &head).await, Ancestry::NotContained, "the whole history was seen");
    assert_eq!(ask(&head, &old).await, Ancestry::NotContained);

    // The copy goes on working after it was deepened, over many commits to tell the server of.
    let newer = world.age(40).pop().unwrap().to_string();
    assert_eq!(deep.head(&app(), &repository).await.unwrap(), newer);
    assert_eq!(ask(&head, &newer).await, Ancestry::Contained);
    assert_eq!(ask(&first, &newer).await, Ancestry::Contained);
}

#[tokio::test]
async fn the_log_deepens_too_and_says_when_it_cannot_tell() {
    let world = World::new();
    let first = world.head().to_string();
    world.age(80);
    world.push("release", &[(RELEASE_PATH, &format!("{RELEASE}#\n"))]);
    let (_server, repository) = serve(&world, Behaviour::default());
    let head = world.head().to_string();
    let deep = world.manager("a", |options| options.depths = vec![50, 500]);
    assert_eq!(deep.log(&app(), &repository, &first, &head, 10).await.unwrap(), Some(vec!["release".to_owned()]));
    let flat = world.manager("b", |options| options.depths = vec![50]);
    assert_eq!(flat.log(&app(), &repository, &first, &head, 10).await.unwrap(), None);
}

#[tokio::test]
async fn an_old_commit_of_ours_is_found_and_an_undecidable_search_is_an_error() {
    let world = World::new();
    let (_server, repository) = serve(&world, Behaviour::default());
    let ours = world.manager("a", |_| {}).commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    world.age(120);
    let other = world.manager("b", |_| {});
    assert_eq!(other.find(&app(), &repository, "op-1").await.unwrap(), Some(ours));
    assert_eq!(other.find(&app(), &repository, "op-2").await.unwrap(), None, "the whole history is here");

    let flat = world.manager("c", |options| options.depths = vec![50]);
    let failure = flat.find(&app(), &repository, "op-1").await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-history-too-long", false));
    let failure = flat.commit(&app(), &bump(&repository, "op-2")).await.unwrap_err();
    assert_eq!(failure.code, "git-history-too-long", "rather than make a second commit");
    let recent = world.manager("d", |options| {
        options.depths = vec![50];
        options.search_back = jiff::SignedDuration::from_hours(2);
    });
    assert_eq!(recent.find(&app(), &repository, "op-2").await.unwrap(), None, "older commits cannot be ours");
}

#[tokio::test]
async fn a_lost_race_over_http_is_retried() {
    let world = World::new();
    let (_server, repository) = serve(&world, Behaviour::default());
    let other = world.clone();
    let manager = world.manager("a", |options| {
        options.before_push = Some(Arc::new(move |attempt| {
            if attempt == 1 {
                other.push("faster", &[("README.md", "faster\n")]);
            }
        }));
    });
    let record = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(world.file("README.md"), "faster\n");
}

#[tokio::test]
async fn an_answer_that_gets_lost_after_the_push_is_no_second_commit() {
    let world = World::new();
    let (server, repository) = serve(&world, Behaviour::default());
    server.behaviour.lose_next_answer.store(true, Ordering::SeqCst);
    let record = world.manager("a", |_| {}).commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    assert!(!server.behaviour.lose_next_answer.load(Ordering::SeqCst), "it was lost");
    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(world.numstat(&record.sha), [(2, 2, RELEASE_PATH.to_owned())]);
}

#[tokio::test]
async fn a_branch_that_may_not_be_pushed_is_denied_with_the_servers_words_but_not_our_token() {
    let world = World::new();
    hook(&world, &format!("#!/bin/sh\necho 'main is protected; you sent {TOKEN}' >&2\nexit 1\n"));
    let behaviour = Behaviour { authorization: Some(basic("bot", TOKEN)), ..Behaviour::default() };
    let (_server, mut repository) = serve(&world, behaviour);
    repository.secret = Some("git-write".into());
    let head = world.head();
    let secrets = secret(&[("username", "bot"), ("password", TOKEN)]);
    let manager = world.manager_with("a", secrets, |_| {});
    let failure = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-denied", false));
    assert!(failure.message.contains("pre-receive hook declined"), "{failure}");
    assert!(failure.message.contains("main is protected; you sent [redacted]"), "{failure}");
    assert_no_token(&failure);
    assert_eq!(world.head(), head);
}

#[tokio::test]
async fn passwords_and_bearer_tokens_are_accepted() {
    for (name, wanted, keys) in [
        ("password", basic("bot", TOKEN), vec![("username", "bot"), ("password", TOKEN)]),
        ("bearer", format!("Bearer {TOKEN}"), vec![("bearerToken", TOKEN)]),
    ] {
        let world = World::new();
        let behaviour = Behaviour { authorization: Some(wanted), ..Behaviour::default() };
        let (_server, mut repository) = serve(&world, behaviour);
        repository.secret = Some("git-write".into());
        let manager = world.manager_with(name, secret(&keys), |_| {});
        assert_eq!(manager.head(&app(), &repository).await.unwrap(), world.head().to_string(), "{name}");
        let record = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap();
        assert_eq!(record.sha, world.head().to_string(), "{name}");
    }
}

#[tokio::test]
async fn wrong_and_missing_credentials_are_denied_and_never_shown() {
    let world = World::new();
    let behaviour = Behaviour { authorization: Some(basic("bot", "right")), ..Behaviour::default() };
    let (server, mut repository) = serve(&world, behaviour);
    let failure = world.manager("a", |_| {}).head(&app(), &repository).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-denied", false), "{failure}");
    assert_eq!(server.behaviour.authorized.load(Ordering::SeqCst), 0);
    repository.secret = Some("git-write".into());
    for keys in [vec![("username", "bot"), ("password", TOKEN)], vec![("bearerToken", TOKEN)]] {
        let failure = world.manager_with("b", secret(&keys), |_| {}).head(&app(), &repository).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("git-denied", false), "{failure}");
        assert_no_token(&failure);
    }
    let failure = world.manager("c", |_| {}).head(&app(), &repository).await.unwrap_err();
    assert_eq!(failure.code, "git-credentials");
}

#[tokio::test]
async fn answers_that_may_pass_are_retryable_and_others_are_not() {
    let world = World::new();
    let (server, repository) = serve(&world, Behaviour::default());
    for (answer, code, retryable) in [
        ("503 Busy", "git-unreachable", true),
        ("429 Slow down", "git-unreachable", true),
        ("403 No", "git-denied", false),
        ("404 Nothing here", "git-denied", false),
    ] {
        *server.behaviour.answer.lock().unwrap() = Some(answer);
        let failure = world.manager("a", |_| {}).head(&app(), &repository).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (code, retryable), "{answer}: {failure}");
    }
    drop(server);
    let failure = world.manager("a", |_| {}).head(&app(), &repository).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-unreachable", true), "{failure}");
}

#[tokio::test]
async fn a_redirect_is_refused_and_named_whatever_it_looks_like_and_whenever_it_comes() {
    let world = World::new();
    let (server, repository) = serve(&world, Behaviour::default());
    for (answer, to) in [
        (
            "301 Moved\r\nLocation: http://localhost:1/new.git/info/refs?service=git-upload-pack",
            "http://localhost:1/new.git;",
        ),
        ("302 Found\r\nLocation: https://bot:hunter2@git.test/new.git?hunter2", "https://git.test/new.git;"),
        // libgit2 would follow the first and dereference a null pointer at the second.
        ("307 Moved\r\nLocation: /new.git/info/refs?service=git-upload-pack", "/new.git;"),
        ("308 Moved\r\nLocation: /new.git/info/refs", "/new.git;"),
        ("308 Moved", "a place that cannot be read;"),
    ] {
        for honest in [0, 1] {
            *server.behaviour.answer.lock().unwrap() = Some(answer);
            server.behaviour.honest.store(honest, Ordering::SeqCst);
            let manager = world.manager(&format!("{answer:.3}-{honest}"), |_| {});
            let failure = manager.head(&app(), &repository).await.unwrap_err();
            assert_eq!((failure.code.as_str(), failure.retryable), ("git-redirected", false), "{answer}: {failure}");
            assert!(failure.message.contains(to), "{failure}");
            assert!(failure.hint.contains("write that URL into spec.git.repositories"), "{}", failure.hint);
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn a_redirect_of_a_push_takes_the_credentials_nowhere() {
    let world = World::new();
    let elsewhere = Server::start(world.dir.path().to_path_buf(), Behaviour::default(), None);
    let location = format!("307 Moved\r\nLocation: {}/git-receive-pack", elsewhere.url());
    let behaviour = Behaviour { authorization: Some(basic("bot", TOKEN)), ..Behaviour::default() };
    let (server, mut repository) = serve(&world, behaviour);
    repository.secret = Some("git-write".into());
    let manager = world.manager_with("a", secret(&[("username", "bot"), ("password", TOKEN)]), |_| {});
    let head = manager.head(&app(), &repository).await.unwrap();
    *server.behaviour.answer.lock().unwrap() = Some(Box::leak(location.into_boxed_str()));
    // The head, the refs for the push; then comes the pack.
    server.behaviour.honest.store(2, Ordering::SeqCst);
    let failure = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-redirected", false), "{failure}");
    assert_eq!(world.head().to_string(), head);
    assert_eq!(elsewhere.behaviour.authorized.load(Ordering::SeqCst), 0);
    assert_eq!(elsewhere.behaviour.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn over_https_everything_works_with_nothing_but_the_root_in_the_secret() {
    let world = World::new();
    world.age(120);
    let behaviour = Behaviour { authorization: Some(format!("Bearer {TOKEN}")), ..Behaviour::default() };
    let server = Server::start(world.dir.path().to_path_buf(), behaviour, Some(CHAIN));
    let mut repository = repository(&format!("https://localhost:{}/apps.git", server.address.port()));
    repository.secret = Some("git-write".into());
    let root = include_str!("fixtures/chain-ca.pem");
    let manager = world.manager_with("a", secret(&[("bearerToken", TOKEN), ("caFile", root)]), |_| {});
    let head = manager.head(&app(), &repository).await.unwrap();
    assert_eq!(manager.pins(&app(), &repository, &head, &[chart()]).await.unwrap()[0].value, "1.4.0");
    let record = manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(manager.find(&app(), &repository, "op-1").await.unwrap(), Some(record.clone()));
    let contained = manager.ancestry(&app(), &repository, &head, &record.sha).await.unwrap();
    assert_eq!(contained, Ancestry::Contained);

    let (ca, both) = (include_str!("fixtures/ca.pem"), [include_str!("fixtures/ca.pem"), root].concat());
    let head = async |name: &str, ca: &str| {
        let manager = world.manager_with(name, secret(&[("bearerToken", TOKEN), ("ca.crt", ca)]), |_| {});
        manager.head(&app(), &repository).await
    };
    assert_eq!(head("both", &both).await.unwrap(), record.sha);
    let failure = head("other", ca).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-untrusted", false), "{failure}");
    assert_no_token(&failure);
}

#[tokio::test]
async fn a_certificate_authority_of_ones_own_is_the_only_one_that_counts() {
    let world = World::new();
    let behaviour = Behaviour { authorization: Some(basic("bot", TOKEN)), ..Behaviour::default() };
    let server = Server::start(world.dir.path().to_path_buf(), behaviour, Some(DIRECT));
    let (ca, other) = (include_str!("fixtures/ca.pem"), include_str!("fixtures/other-ca.pem"));
    let head = async |name: &str, host: &str, ca: Option<&str>, at: &str| {
        let mut keys = vec![("username", "bot"), ("password", TOKEN)];
        keys.extend(ca.map(|ca| ("caFile", ca)));
        let manager = world.manager_with(name, secret(&keys), |options| {
            options.clock = Arc::new(Still(at.parse().unwrap()));
        });
        let mut repository = repository(&format!("https://{host}:{}/apps.git", server.address.port()));
        repository.secret = Some("git-write".into());
        manager.head(&app(), &repository).await
    };
    let today = "2027-05-01T12:00:00Z";
    for (name, host, ca, at) in [
        ("none", "localhost", None, today),
        ("other", "localhost", Some(other), today),
        ("rubbish", "localhost", Some("rubbish"), today),
        ("expired", "localhost", Some(ca), "2200-01-01T00:00:00Z"),
        ("name", "127.0.0.2", Some(ca), today),
    ] {
        let failure = head(name, host, ca, at).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("git-untrusted", false), "{name}: {failure}");
        assert_no_token(&failure);
    }
    assert_eq!(server.behaviour.authorized.load(Ordering::SeqCst), 0, "no credentials before trust");
    assert_eq!(head("good", "localhost", Some(ca), today).await.unwrap(), world.head().to_string());
    assert_eq!(head("address", "127.0.0.1", Some(ca), today).await.unwrap(), world.head().to_string());
}
