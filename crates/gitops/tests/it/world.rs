//! A remote in a folder, other people who push to it, and a manager that works on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Oid, Repository as Git, RepositoryInitOptions, Signature, Time};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretSlice;
use tempfile::TempDir;
use upgrade_core::Failure;
use upgrade_core::ports::{AppRef, Clock, CommitRequest, Pin, PinPart, PinValue, Repository};
use windlass_gitops::git::{Credentials, Options, PlainGit, SecretKeys};

pub(crate) const RELEASE_PATH: &str = "apps/notes/release.yaml";
pub(crate) const RELEASE: &str = "# by hand, with care\n---\napiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: notes}\nspec:\n  chart:\n    spec:\n      version: '1.4.0'   # the chart\n  values:\n    image:\n      tag: 2.0.0 # {\"$imagepolicy\": \"notes:notes:tag\"}\n    # last words\n";

/// A clock that stands still.
pub(crate) struct Still(pub(crate) Timestamp);

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }
    async fn sleep(&self, _: SignedDuration) {}
}

pub(crate) fn now() -> Timestamp {
    "2027-05-01T12:00:00Z".parse().unwrap()
}

/// Secrets by name.
#[derive(Default)]
pub(crate) struct Known(pub(crate) BTreeMap<String, BTreeMap<String, String>>);

#[async_trait]
impl Credentials for Known {
    async fn secret(&self, _: &AppRef, name: &str) -> Result<SecretKeys, Failure> {
        let keys = self.0.get(name).ok_or_else(|| Failure::permanent("git-credentials", "no such secret"))?;
        Ok(keys.iter().map(|(key, value)| (key.clone(), SecretSlice::from(value.clone().into_bytes()))).collect())
    }
}

/// A bare repository with one commit on `main`, and a folder for copies.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(&[(RELEASE_PATH, RELEASE), ("README.md", "hello\n")])
    }

    pub(crate) fn with(files: &[(&str, &str)]) -> Arc<Self> {
        let world = Self { dir: TempDir::new().unwrap() };
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).initial_head("main");
        Git::init_opts(world.path(), &options).unwrap();
        world.push("first", files);
        Arc::new(world)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("apps.git")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    pub(crate) fn git(&self) -> Git {
        Git::open_bare(self.path()).unwrap()
    }

    pub(crate) fn head(&self) -> Oid {
        self.git().refname_to_id("refs/heads/main").unwrap()
    }

    /// Somebody else's commit on `main`, an hour before now.
    pub(crate) fn push(&self, message: &str, files: &[(&str, &str)]) -> Oid {
        let at = now().as_second() - 3600;
        self.push_at(message, files, at)
    }

    pub(crate) fn push_at(&self, message: &str, files: &[(&str, &str)], seconds: i64) -> Oid {
        let git = self.git();
        let entries: Vec<_> =
            files.iter().map(|(path, text)| (*path, git.blob(text.as_bytes()).unwrap(), FileMode::Blob)).collect();
        self.push_entries(message, &entries, seconds)
    }

    pub(crate) fn push_entries(&self, message: &str, entries: &[(&str, Oid, FileMode)], seconds: i64) -> Oid {
        let git = self.git();
        let parent = git.refname_to_id("refs/heads/main").ok().map(|id| git.find_commit(id).unwrap());
        let empty = git.find_tree(git.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let base = parent.as_ref().map_or(empty, |parent| parent.tree().unwrap());
        let mut update = TreeUpdateBuilder::new();
        for (path, id, mode) in entries {
            update.upsert(*path, *id, *mode);
        }
        let tree = git.find_tree(update.create_updated(&git, &base).unwrap()).unwrap();
        let who = Signature::new("Someone", "someone@example.org", &Time::new(seconds, 0)).unwrap();
        let parents: Vec<_> = parent.iter().collect();
        git.commit(Some("refs/heads/main"), &who, &who, message, &tree, &parents).unwrap()
    }

    /// `count` commits that do not matter, a second apart, before all others' time.
    pub(crate) fn age(&self, count: i64) -> Vec<Oid> {
        let start = now().as_second() - 7200 - count;
        (0..count).map(|n| self.push_at(&format!("filler {n}"), &[("log.txt", &format!("{n}\n"))], start + n)).collect()
    }

    pub(crate) fn file(&self, path: &str) -> String {
        self.file_at(self.head(), path)
    }

    pub(crate) fn file_at(&self, commit: Oid, path: &str) -> String {
        let git = self.git();
        let tree = git.find_commit(commit).unwrap().tree().unwrap();
        let blob = tree.get_path(path.as_ref()).unwrap().to_object(&git).unwrap().peel_to_blob().unwrap();
        String::from_utf8(blob.content().to_vec()).unwrap()
    }

    /// `(insertions, deletions, path)` of a commit against its parent.
    pub(crate) fn numstat(&self, commit: &str) -> Vec<(usize, usize, String)> {
        let git = self.git();
        let commit = git.find_commit(commit.parse().unwrap()).unwrap();
        let (old, new) = (commit.parent(0).unwrap().tree().unwrap(), commit.tree().unwrap());
        let diff = git.diff_tree_to_tree(Some(&old), Some(&new), None).unwrap();
        (0..diff.deltas().len())
            .map(|index| {
                let patch = git2::Patch::from_diff(&diff, index).unwrap().unwrap();
                let (_, insertions, deletions) = patch.line_stats().unwrap();
                (insertions, deletions, patch.delta().new_file().path().unwrap().display().to_string())
            })
            .collect()
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(Arc::new(Still(now())));
        options.allow_files = true;
        options
    }

    /// A manager with a cache of its own name.
    pub(crate) fn manager(&self, cache: &str, change: impl FnOnce(&mut Options)) -> PlainGit {
        self.manager_with(cache, Known::default(), change)
    }

    pub(crate) fn manager_with(&self, cache: &str, secrets: Known, change: impl FnOnce(&mut Options)) -> PlainGit {
        let mut options = self.options();
        change(&mut options);
        PlainGit::new(Arc::new(secrets), self.cache().join(cache), options)
    }

    pub(crate) fn repository(&self) -> Repository {
        repository(&self.url())
    }
}

pub(crate) fn secret(pairs: &[(&str, &str)]) -> Known {
    let keys = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Known(BTreeMap::from([("git-write".to_owned(), keys)]))
}

pub(crate) fn app() -> AppRef {
    AppRef { namespace: "notes".into(), name: "notes".into(), uid: "1".into() }
}

pub(crate) fn repository(url: &str) -> Repository {
    Repository {
        name: "apps".into(),
        url: url.into(),
        branch: "main".into(),
        paths: vec!["apps/notes/".into()],
        secret: None,
        author_name: "Windlass".into(),
        author_email: "windlass@example.org".into(),
        message_template: None,
    }
}

pub(crate) fn pin(component: &str, path: &str, object: &str, field: &str) -> Pin {
    Pin {
        component: component.into(),
        repository: "apps".into(),
        path: path.into(),
        object: object.into(),
        field: field.into(),
        part: PinPart::Whole,
    }
}

pub(crate) fn chart() -> Pin {
    pin("chart", RELEASE_PATH, "HelmRelease/notes", "spec.chart.spec.version")
}

pub(crate) fn image() -> Pin {
    pin("image/notes", RELEASE_PATH, "HelmRelease/notes", "spec.values.image.tag")
}

/// A change of pins from one value to another.
pub(crate) fn request(repository: &Repository, operation: &str, changes: &[(Pin, &str, &str)]) -> CommitRequest {
    CommitRequest {
        repository: repository.clone(),
        changes: changes.iter().map(|(pin, _, to)| PinValue { pin: pin.clone(), value: (*to).into() }).collect(),
        expected: changes.iter().map(|(_, from, _)| (*from).into()).collect(),
        message: "Upgrade notes\n\nBecause it is time.".into(),
        operation: operation.into(),
    }
}

/// The chart from 1.4.0 to 1.5.0 and the image from 2.0.0 to 2.1.0.
pub(crate) fn bump(repository: &Repository, operation: &str) -> CommitRequest {
    request(repository, operation, &[(chart(), "1.4.0", "1.5.0"), (image(), "2.0.0", "2.1.0")])
}
