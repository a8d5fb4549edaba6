//! Fetches one reference of a Git repository and packs its tree. Blocking: run it off the async threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use git2::{
    AutotagOption, Commit, Cred, CredentialType, ErrorCode, FetchOptions, ObjectType, Oid, RemoteCallbacks, Repository,
    TreeWalkMode, TreeWalkResult,
};

use super::artifact::{Packed, pack};
use super::flux_objects::GitReference;

/// User name and password (or token).
pub(super) type BasicAuth = (String, String);

/// What a reference held.
#[derive(Debug)]
pub(super) struct Fetched {
    /// As Flux writes it: `main@sha1:<40 hex>`.
    pub(super) revision: String,
    /// 40 hex digits.
    pub(super) commit: String,
    /// Gzipped tar of the tree.
    pub(super) archive: Vec<u8>,
}

/// Fetches `reference` of `url` into the bare repository at `cache` and packs the tree it names.
///
/// # Errors
/// A sentence saying what git said.
pub(super) fn fetch(
    cache: &Path,
    url: &str,
    reference: &GitReference,
    auth: Option<&BasicAuth>,
) -> Result<Fetched, String> {
    let said = |what: &str| {
        let what = what.to_owned();
        move |error: git2::Error| format!("{what}: {}", error.message())
    };
    let repository = match Repository::open_bare(cache) {
        Ok(repository) => repository,
        Err(_) => {
            fs::create_dir_all(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
            Repository::init_bare(cache).map_err(said("creating the cache"))?
        }
    };
    let (remote_ref, label) = reference.remote_ref()?;
    // Git fetches nothing and says nothing when the reference is gone, so that a stale copy must not survive.
    const LOCAL: &str = "refs/windlass/fetched";
    match repository.find_reference(LOCAL).and_then(|mut stale| stale.delete()) {
        Err(error) if error.code() != ErrorCode::NotFound => return Err(said("clearing the cache")(error)),
        _ => {}
    }
    let mut remote = repository.remote_anonymous(url).map_err(said("bad URL"))?;
    let mut options = FetchOptions::new();
    options.download_tags(AutotagOption::None).remote_callbacks(callbacks(auth));
    let refspec = format!("+{remote_ref}:{LOCAL}");
    remote.fetch(&[refspec.as_str()], Some(&mut options), None).map_err(said("unable to clone"))?;
    let head = repository.find_reference(LOCAL).map_err(|_| format!("couldn't find remote ref \"{remote_ref}\""))?;
    let tip = head.peel_to_commit().map_err(said("reading the commit"))?;
    let commit = match &reference.commit {
        None => tip,
        Some(hash) => pinned(&repository, &tip, hash)?,
    };
    let id = commit.id().to_string();
    let revision = label.map_or_else(|| format!("sha1:{id}"), |label| format!("{label}@sha1:{id}"));
    let archive = archive(&repository, &commit)?;
    Ok(Fetched { revision, commit: id, archive })
}

/// The pinned commit, which must be part of the branch.
fn pinned<'a>(repository: &'a Repository, tip: &Commit<'a>, hash: &str) -> Result<Commit<'a>, String> {
    let said = |error: git2::Error| format!("commit {hash}: {}", error.message());
    let id = Oid::from_str(hash).map_err(said)?;
    let reachable = id == tip.id() || repository.graph_descendant_of(tip.id(), id).map_err(said)?;
    if !reachable {
        return Err(format!("commit {hash} is not on the branch"));
    }
    repository.find_commit(id).map_err(said)
}

fn callbacks(auth: Option<&BasicAuth>) -> RemoteCallbacks<'_> {
    let mut callbacks = RemoteCallbacks::new();
    let mut asked = false;
    callbacks.credentials(move |_, _, allowed| match auth {
        Some((user, password)) if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) && !asked => {
            // Asked a second time, they were wrong the first time.
            asked = true;
            Cred::userpass_plaintext(user, password)
        }
        _ => Err(git2::Error::from_str("authentication required")),
    });
    callbacks
}

fn archive(repository: &Repository, commit: &Commit<'_>) -> Result<Vec<u8>, String> {
    let said = |error: git2::Error| format!("reading the tree: {}", error.message());
    let mut files = BTreeMap::new();
    let mut failed = None;
    let walk = commit.tree().map_err(said)?.walk(TreeWalkMode::PreOrder, |folder, entry| {
        if entry.kind() != Some(ObjectType::Blob) {
            return TreeWalkResult::Ok;
        }
        match repository.find_blob(entry.id()) {
            Ok(blob) => {
                let path = format!("{folder}{}", String::from_utf8_lossy(entry.name_bytes()));
                let file = match entry.filemode() {
                    0o120_000 => Packed::Link(String::from_utf8_lossy(blob.content()).into_owned()),
                    mode => Packed::File { content: blob.content().to_vec(), executable: mode == 0o100_755 },
                };
                files.insert(path, file);
                TreeWalkResult::Ok
            }
            Err(error) => {
                failed = Some(error);
                TreeWalkResult::Abort
            }
        }
    });
    if let Some(error) = failed {
        return Err(said(error));
    }
    walk.map_err(said)?;
    pack(&files).map_err(|error| format!("packing the tree: {error}"))
}

#[cfg(test)]
mod tests {
    use git2::Signature;

    use super::super::artifact::unpack;
    use super::*;

    fn commit(repository: &Repository, branch: &str, content: &str) -> String {
        let blob = repository.blob(content.as_bytes()).unwrap();
        let mut builder = repository.treebuilder(None).unwrap();
        builder.insert("a.yaml", blob, 0o100_644).unwrap();
        let tree = repository.find_tree(builder.write().unwrap()).unwrap();
        let author = Signature::now("a", "a@b").unwrap();
        let name = format!("refs/heads/{branch}");
        let parent = repository.find_reference(&name).ok().map(|parent| parent.peel_to_commit().unwrap());
        let parents: Vec<&Commit<'_>> = parent.iter().collect();
        repository.commit(Some(&name), &author, &author, content, &tree, &parents).unwrap().to_string()
    }

    fn on(branch: &str) -> GitReference {
        GitReference { branch: Some(branch.to_owned()), ..GitReference::default() }
    }

    #[test]
    fn the_head_of_a_branch_is_fetched_and_packed() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(dir.path().join("origin")).unwrap();
        let url = format!("file://{}", dir.path().join("origin").display());
        let cache = dir.path().join("cache");
        for content in ["x: 1\n", "x: 2\n"] {
            let id = commit(&origin, "feature/a@b", content);
            let fetched = fetch(&cache, &url, &on("feature/a@b"), None).unwrap();
            assert_eq!(fetched.revision, format!("feature/a@b@sha1:{id}"));
            let expected = Packed::File { content: content.as_bytes().to_vec(), executable: false };
            assert_eq!(unpack(&fetched.archive).unwrap()["a.yaml"], expected);
        }
    }

    #[test]
    fn a_branch_that_is_gone_is_an_error_although_it_was_fetched_before() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(dir.path().join("origin")).unwrap();
        let url = format!("file://{}", dir.path().join("origin").display());
        let cache = dir.path().join("cache");
        commit(&origin, "main", "x: 1\n");
        fetch(&cache, &url, &on("main"), None).unwrap();
        origin.find_reference("refs/heads/main").unwrap().delete().unwrap();
        assert!(fetch(&cache, &url, &on("main"), None).unwrap_err().contains("refs/heads/main"));
    }

    #[test]
    fn a_pinned_commit_must_be_on_the_branch() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(dir.path().join("origin")).unwrap();
        let url = format!("file://{}", dir.path().join("origin").display());
        let first = commit(&origin, "main", "x: 1\n");
        commit(&origin, "main", "x: 2\n");
        let other = commit(&origin, "other", "x: 3\n");
        let at = |hash: &str| GitReference { commit: Some(hash.to_owned()), ..on("main") };
        let cache = dir.path().join("cache");
        assert_eq!(fetch(&cache, &url, &at(&first), None).unwrap().revision, format!("main@sha1:{first}"));
        assert!(fetch(&cache, &url, &at(&other), None).is_err());
    }
}
