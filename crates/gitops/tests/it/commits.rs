//! Commits: what they change, how often they are made, and what stops them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use git2::FileMode;
use upgrade_core::ports::{GitManager, PinPart};

use crate::world::*;

#[tokio::test]
async fn a_bump_changes_one_line_per_pin_and_no_other_byte() {
    let world = World::new();
    let before = world.head();
    let record = world.manager("a", |_| {}).commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap();

    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(record.parent, before.to_string());
    assert_eq!(record.repository, "apps");
    assert_eq!(world.numstat(&record.sha), [(2, 2, RELEASE_PATH.to_owned())]);
    let expected = RELEASE.replace("1.4.0", "1.5.0").replace("2.0.0", "2.1.0");
    assert_eq!(world.file(RELEASE_PATH), expected);
    let git = world.git();
    let commit = git.find_commit(world.head()).unwrap();
    assert_eq!(commit.message(), Ok("Upgrade notes\n\nBecause it is time.\n\nWindlass-Operation: op-1\n"));
    assert_eq!((commit.author().name(), commit.author().email()), (Ok("Windlass"), Ok("windlass@example.org")));
    assert_eq!(commit.time().seconds(), now().as_second());
}

#[tokio::test]
async fn line_endings_and_comments_and_modes_survive() {
    let crlf = "# kept\r\nkind: HelmRelease\r\nmetadata:\r\n  name: notes\r\nspec:\r\n  version: \"1.4.0\" # kept\t\r\n  x: |\r\n    1.4.0\r\n# no newline";
    let world = World::with(&[("README.md", "hello\n")]);
    let blob = world.git().blob(crlf.as_bytes()).unwrap();
    world.push_entries("windows", &[("apps/notes/crlf.yaml", blob, FileMode::BlobExecutable)], now().as_second() - 60);
    let pin = pin("chart", "apps/notes/crlf.yaml", "HelmRelease/notes", "spec.version");
    let request = request(&world.repository(), "op-1", &[(pin, "1.4.0", "1.5.0")]);
    let record = world.manager("a", |_| {}).commit(&app(), &request).await.unwrap();

    assert_eq!(world.file("apps/notes/crlf.yaml"), crlf.replacen("1.4.0", "1.5.0", 1));
    assert_eq!(world.numstat(&record.sha), [(1, 1, "apps/notes/crlf.yaml".to_owned())]);
    let tree = world.git().find_commit(world.head()).unwrap().tree_id();
    let git = world.git();
    let entry = git.find_tree(tree).unwrap().get_path("apps/notes/crlf.yaml".as_ref()).unwrap();
    assert_eq!(entry.filemode(), i32::from(FileMode::BlobExecutable));
}

#[tokio::test]
async fn a_lost_race_on_another_file_is_retried_on_the_new_head() {
    let world = World::new();
    let (other, calls) = (world.clone(), Arc::new(AtomicU32::new(0)));
    let seen = calls.clone();
    let manager = world.manager("a", |options| {
        options.before_push = Some(Arc::new(move |attempt| {
            seen.fetch_add(1, Ordering::SeqCst);
            if attempt <= 2 {
                other.push("somebody was faster", &[("README.md", &format!("hello {attempt}\n"))]);
            }
        }));
    });
    let record = manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap();

    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(record.sha, world.head().to_string());
    assert_eq!(world.file("README.md"), "hello 2\n", "the other's commits are still there");
    assert_eq!(world.numstat(&record.sha), [(2, 2, RELEASE_PATH.to_owned())]);
}

#[tokio::test]
async fn a_lost_race_in_the_same_file_keeps_the_others_edit() {
    let world = World::new();
    let other = world.clone();
    let theirs = RELEASE.replace("# last words", "# their words");
    let text = theirs.clone();
    let manager = world.manager("a", |options| {
        options.before_push = Some(Arc::new(move |attempt| {
            if attempt == 1 {
                other.push("their words", &[(RELEASE_PATH, &text)]);
            }
        }));
    });
    manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap();
    assert_eq!(world.file(RELEASE_PATH), theirs.replace("1.4.0", "1.5.0").replace("2.0.0", "2.1.0"));
}

#[tokio::test]
async fn a_pin_that_somebody_changes_meanwhile_is_superseded_and_says_what_was_found() {
    let world = World::new();
    let other = world.clone();
    let manager = world.manager("a", |options| {
        options.before_push = Some(Arc::new(move |_| {
            other.push("mine", &[(RELEASE_PATH, &RELEASE.replace("1.4.0", "1.9.9"))]);
        }));
    });
    let failure = manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("superseded", false));
    assert!(
        failure.message.contains(
            r#"chart (apps/notes/release.yaml HelmRelease/notes spec.chart.spec.version) is "1.9.9", not "1.4.0""#
        ),
        "{failure}"
    );
    assert!(!failure.message.contains("image/notes"), "only what differs is listed: {failure}");
    assert!(world.file(RELEASE_PATH).contains("1.9.9"));
}

#[tokio::test]
async fn races_without_end_are_given_up_and_can_be_tried_again() {
    let world = World::new();
    let (other, calls) = (world.clone(), Arc::new(AtomicU32::new(0)));
    let seen = calls.clone();
    let manager = world.manager("a", |options| {
        options.attempts = 3;
        options.before_push = Some(Arc::new(move |_| {
            let n = seen.fetch_add(1, Ordering::SeqCst);
            other.push("busy", &[("README.md", &format!("{n}\n"))]);
        }));
    });
    let failure = manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-race-lost", true));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(world.file(RELEASE_PATH), RELEASE);
}

#[tokio::test]
async fn a_crash_after_the_push_is_healed_by_the_trailer() {
    let world = World::new();
    let request = bump(&world.repository(), "op-1");
    let first = world.manager("a", |_| {}).commit(&app(), &request).await.unwrap();
    let after = world.push("somebody goes on", &[("README.md", "more\n")]);

    // Another process, with an empty cache, that knows nothing of the first.
    let second = world.manager("b", |_| {});
    assert_eq!(second.find(&app(), &request.repository, "op-1").await.unwrap().as_ref(), Some(&first));
    assert_eq!(second.commit(&app(), &request).await.unwrap(), first);
    assert_eq!(world.head(), after, "nothing was pushed a second time");
    assert_eq!(second.find(&app(), &request.repository, "op").await.unwrap(), None, "a prefix is another operation");
}

#[tokio::test]
async fn our_commit_is_returned_also_after_somebody_took_it_back() {
    let world = World::new();
    let manager = world.manager("a", |_| {});
    let request = bump(&world.repository(), "op-1");
    let first = manager.commit(&app(), &request).await.unwrap();
    world.push("Revert", &[(RELEASE_PATH, RELEASE)]);
    assert_eq!(manager.commit(&app(), &request).await.unwrap(), first);
    assert_eq!(world.file(RELEASE_PATH), RELEASE, "one operation never makes two commits");
}

#[tokio::test]
async fn values_that_somebody_else_put_there_are_not_claimed() {
    let world = World::new();
    let head = world.push("by hand", &[(RELEASE_PATH, &RELEASE.replace("1.4.0", "1.5.0").replace("2.0.0", "2.1.0"))]);
    let failure = world.manager("a", |_| {}).commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("already-there", false));
    assert_eq!(world.head(), head);
}

#[tokio::test]
async fn a_put_back_restores_our_scalars_and_keeps_what_came_after() {
    let world = World::new();
    let manager = world.manager("a", |_| {});
    let repository = world.repository();
    manager.commit(&app(), &bump(&repository, "op-1")).await.unwrap();
    let theirs = world.file(RELEASE_PATH).replace("# last words", "# their words");
    world.push("their words", &[(RELEASE_PATH, &theirs)]);
    let back = [(chart(), "1.5.0", "1.4.0"), (image(), "2.1.0", "2.0.0")];
    let record = manager.commit(&app(), &request(&repository, "op-1-revert", &back)).await.unwrap();
    assert_eq!(world.file(RELEASE_PATH), RELEASE.replace("# last words", "# their words"));
    assert_eq!(world.numstat(&record.sha), [(2, 2, RELEASE_PATH.to_owned())]);

    let failure = manager.commit(&app(), &request(&repository, "op-2-revert", &back)).await.unwrap_err();
    assert_eq!(failure.code, "already-there");
    world.push("a hotfix", &[(RELEASE_PATH, &theirs.replace("1.5.0", "1.5.1"))]);
    let failure = manager.commit(&app(), &request(&repository, "op-3-revert", &back)).await.unwrap_err();
    assert_eq!(failure.code, "superseded");
    assert!(world.file(RELEASE_PATH).contains("1.5.1"), "a hotfix is not rolled back");
}

#[tokio::test]
async fn two_calls_for_one_operation_make_one_commit() {
    let world = World::new();
    let manager = Arc::new(world.manager("a", |_| {}));
    let elsewhere = world.manager("b", |_| {});
    let request = bump(&world.repository(), "op-1");
    let (app, head) = (app(), world.head().to_string());
    let (a, b, c) =
        tokio::join!(manager.commit(&app, &request), manager.commit(&app, &request), elsewhere.commit(&app, &request));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert_eq!((&a, &a), (&b, &c));
    assert_eq!(a.parent, head);
}

#[tokio::test]
async fn paths_outside_the_allowed_ones_are_refused() {
    let world = World::with(&[(RELEASE_PATH, RELEASE), ("apps/notes-old/release.yaml", RELEASE), ("x.yaml", RELEASE)]);
    let head = world.head();
    let manager = world.manager("a", |_| {});
    for path in [
        "apps/notes-old/release.yaml",
        "x.yaml",
        "apps/notes/../notes-old/release.yaml",
        "/apps/notes/release.yaml",
        "apps/notes/.git/config",
        "apps/notes/",
        "",
    ] {
        let change = (pin("chart", path, "HelmRelease/notes", "spec.chart.spec.version"), "1.4.0", "1.5.0");
        let failure = manager.commit(&app(), &request(&world.repository(), "op-1", &[change])).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("path-not-allowed", false), "{path}: {failure}");
        assert!(!failure.hint.is_empty());
    }
    let mut closed = world.repository();
    closed.paths.clear();
    let failure = manager.commit(&app(), &bump(&closed, "op-1")).await.unwrap_err();
    assert_eq!(failure.code, "path-not-allowed", "no path means no writes");
    assert_eq!(world.head(), head);
}

#[tokio::test]
async fn what_is_not_a_small_plain_text_file_is_refused() {
    let world = World::new();
    let git = world.git();
    let blob = |bytes: &[u8]| git.blob(bytes).unwrap();
    let entries = [
        ("apps/notes/link.yaml", blob(b"release.yaml"), FileMode::Link),
        ("apps/notes/dir", blob(b"../notes"), FileMode::Link),
        ("apps/notes/sub", world.head(), FileMode::Commit),
        ("apps/notes/large.yaml", blob(format!("{RELEASE}{}", "#".repeat(1 << 20)).as_bytes()), FileMode::Blob),
        ("apps/notes/latin.yaml", blob(b"version: \xe9\n"), FileMode::Blob),
        ("apps/notes/template.yaml", blob(b"version: {{ .Values.x }}\n"), FileMode::Blob),
    ];
    let head = world.push_entries("traps", &entries, now().as_second() - 60);
    let manager = world.manager("a", |_| {});
    for (path, code) in [
        ("apps/notes/link.yaml", "pin-file-symlink"),
        ("apps/notes/dir/release.yaml", "pin-file-symlink"),
        ("apps/notes/sub", "pin-file-submodule"),
        ("apps/notes/sub/release.yaml", "pin-file-submodule"),
        ("apps/notes/large.yaml", "pin-file-too-large"),
        ("apps/notes/latin.yaml", "pin-not-utf8"),
        ("apps/notes/nothing.yaml", "pin-file-missing"),
        ("apps/notes/release.yaml/x", "pin-file-missing"),
    ] {
        let pin = pin("chart", path, "HelmRelease/notes", "spec.chart.spec.version");
        let change = (pin.clone(), "1.4.0", "1.5.0");
        let failure = manager.commit(&app(), &request(&world.repository(), "op-1", &[change])).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), (code, false), "{path}: {failure}");
        assert!(!failure.hint.is_empty());
        let failure = manager.pins(&app(), &world.repository(), &head.to_string(), &[pin]).await.unwrap_err();
        assert_eq!(failure.code, code, "reading refuses the same");
    }
    assert_eq!(world.head(), head);
}

#[tokio::test]
async fn a_tag_whose_digest_would_stay_is_refused_and_both_together_are_one_line() {
    let digest = |c: &str| format!("sha256:{}", c.repeat(64));
    let text = format!("kind: Deployment\nmetadata: {{name: web}}\nspec:\n  image: reg:5000/web:1.0@{}\n", digest("a"));
    let world = World::with(&[("apps/notes/web.yaml", &text)]);
    let manager = world.manager("a", |_| {});
    let mut tag = pin("image/web", "apps/notes/web.yaml", "Deployment/web", "spec.image");
    tag.part = PinPart::Tag;
    let mut hash = tag.clone();
    hash.part = PinPart::Digest;
    let alone = request(&world.repository(), "op-1", &[(tag.clone(), "1.0", "1.1")]);
    let failure = manager.commit(&app(), &alone).await.unwrap_err();
    assert_eq!(failure.code, "git-request-refused");
    assert!(failure.message.contains("digest"), "{failure}");

    let (old, new) = (digest("a"), digest("b"));
    let both = request(&world.repository(), "op-1", &[(tag, "1.0", "1.1"), (hash, &old, &new)]);
    let record = manager.commit(&app(), &both).await.unwrap();
    assert_eq!(world.file("apps/notes/web.yaml"), text.replace("1.0@", "1.1@").replace(&old, &new));
    assert_eq!(world.numstat(&record.sha), [(1, 1, "apps/notes/web.yaml".to_owned())]);
}

#[tokio::test]
async fn requests_that_contradict_themselves_are_refused() {
    let world = World::new();
    let manager = world.manager("a", |_| {});
    let good = bump(&world.repository(), "op-1");
    let mut cases = Vec::new();
    let mut case = |change: fn(&mut upgrade_core::ports::CommitRequest)| {
        let mut request = good.clone();
        change(&mut request);
        cases.push(request);
    };
    case(|request| request.expected.truncate(1));
    case(|request| request.changes.clear());
    case(|request| request.operation = "two\nlines".into());
    case(|request| request.operation.clear());
    case(|request| request.message = " ".into());
    case(|request| request.message = "x\n\nwindlass-operation: op-9".into());
    case(|request| request.changes[1] = request.changes[0].clone());
    case(|request| request.changes[0].pin.repository = "other".into());
    case(|request| request.repository.author_name = "<".into());
    case(|request| request.repository.branch = "a..b".into());
    for request in cases {
        let failure = manager.commit(&app(), &request).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("git-request-refused", false), "{failure}");
    }
}

#[tokio::test]
async fn a_signature_is_put_into_the_commit() {
    struct Fake;
    impl windlass_gitops::git::Signer for Fake {
        fn sign(&self, commit: &[u8]) -> Result<String, String> {
            assert!(String::from_utf8_lossy(commit).contains("Windlass-Operation: op-1"));
            Ok("-----BEGIN SSH SIGNATURE-----\nabc\n-----END SSH SIGNATURE-----".into())
        }
    }
    let world = World::new();
    let manager = world.manager("a", |options| options.signer = Some(Arc::new(Fake)));
    let record = manager.commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap();
    let (signature, _) = world.git().extract_signature(&record.sha.parse().unwrap(), None).unwrap();
    assert!(signature.starts_with(b"-----BEGIN SSH SIGNATURE-----\nabc"));
    assert_eq!(manager.find(&app(), &world.repository(), "op-1").await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_folder_with_hooks_is_not_pushed_around_them() {
    let world = World::new();
    let hooks = world.path().join("hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    std::fs::write(hooks.join("pre-receive"), "#!/bin/sh\nexit 1\n").unwrap();
    let failure = world.manager("a", |_| {}).commit(&app(), &bump(&world.repository(), "op-1")).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("git-denied", false));
    assert_eq!(world.file(RELEASE_PATH), RELEASE);
}

#[tokio::test]
async fn a_dropped_call_pushes_nothing() {
    let world = World::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (gate, started) = (std::sync::Mutex::new(receiver), std::sync::Mutex::new(Some(started)));
    let manager = world.manager("a", |options| {
        options.before_push = Some(Arc::new(move |_| {
            if let Some(started) = started.lock().unwrap().take() {
                started.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap();
            }
        }));
    });
    let request = bump(&world.repository(), "op-1");
    let app = app();
    tokio::select! {
        _ = manager.commit(&app, &request) => panic!("it waits at the gate"),
        started = has_started => started.unwrap(),
    }
    sender.send(()).unwrap();
    // The next call waits until the thread of the dropped one has ended.
    assert_eq!(manager.find(&app, &request.repository, "op-1").await.unwrap(), None);
    assert_eq!(world.file(RELEASE_PATH), RELEASE);
    manager.commit(&app, &request).await.unwrap();
}
