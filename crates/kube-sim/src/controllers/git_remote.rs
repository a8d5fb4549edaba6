//! A Git repository on disk that plays a Git host for simulations.

use std::fs;
use std::path::{Path, PathBuf};

use git2::build::TreeUpdateBuilder;
use git2::{Commit, FileMode, Repository, Signature, Time};

use super::{Clock, Error};

/// The branch that commits go to.
const BRANCH: &str = "refs/heads/main";

/// A bare repository at a `file://` URL. Commits depend on nothing but their content and the clock, so that the same run makes
/// the same hashes.
pub struct GitRemote {
    folder: PathBuf,
    clock: Clock,
}

impl GitRemote {
    /// Makes an empty repository at `folder`, or takes the one that is there.
    ///
    /// # Errors
    /// [`Error::Source`] when there is something else, or the folder cannot be written.
    pub fn open(folder: PathBuf, clock: Clock) -> Result<Self, Error> {
        if folder.exists() {
            Repository::open_bare(&folder).map_err(said)?;
            return Ok(Self { folder, clock });
        }
        let mut options = git2::RepositoryInitOptions::new();
        // Templates of the machine may bring hooks, and whoever commits through files refuses repositories with hooks.
        options.bare(true).initial_head(BRANCH).external_template(false);
        Repository::init_opts(&folder, &options).map_err(said)?;
        Ok(Self { folder, clock })
    }

    /// Where to fetch from and push to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// Commits changes of files to `main`: a path with its new content, or with `None` to remove it. Returns the hash.
    ///
    /// Blocks for a moment, which under virtual time takes no time.
    ///
    /// # Errors
    /// [`Error::Source`] when git refuses, for instance while the repository is out of reach.
    pub fn commit(&self, changes: &[(&str, Option<&str>)], message: &str) -> Result<String, Error> {
        let repository = Repository::open_bare(&self.folder).map_err(said)?;
        let parent = match repository.find_reference(BRANCH) {
            Ok(branch) => Some(branch.peel_to_commit().map_err(said)?),
            Err(_) => None,
        };
        let before = match &parent {
            Some(parent) => parent.tree().map_err(said)?,
            None => {
                let empty = repository.treebuilder(None).and_then(|builder| builder.write()).map_err(said)?;
                repository.find_tree(empty).map_err(said)?
            }
        };
        let mut update = TreeUpdateBuilder::new();
        for (path, content) in changes {
            match content {
                Some(content) => {
                    update.upsert(*path, repository.blob(content.as_bytes()).map_err(said)?, FileMode::Blob);
                }
                None => {
                    update.remove(*path);
                }
            }
        }
        let tree = update.create_updated(&repository, &before).map_err(said)?;
        let tree = repository.find_tree(tree).map_err(said)?;
        let at = Time::new((self.clock)().as_second(), 0);
        let author = Signature::new("sim", "sim@example.com", &at).map_err(said)?;
        let parents: Vec<&Commit<'_>> = parent.iter().collect();
        let id = repository.commit(Some(BRANCH), &author, &author, message, &tree, &parents).map_err(said)?;
        Ok(id.to_string())
    }

    /// The hash of the newest commit on `main`; `None` when there is none or the repository is out of reach.
    #[must_use]
    pub fn head(&self) -> Option<String> {
        let repository = Repository::open_bare(&self.folder).ok()?;
        Some(repository.find_reference(BRANCH).ok()?.peel_to_commit().ok()?.id().to_string())
    }

    /// A file at the newest commit on `main`.
    ///
    /// # Errors
    /// [`Error::Source`] when there is no such file, or it is no text.
    pub fn read(&self, path: &str) -> Result<String, Error> {
        let repository = Repository::open_bare(&self.folder).map_err(said)?;
        let tree = repository.find_reference(BRANCH).and_then(|branch| branch.peel_to_tree()).map_err(said)?;
        let object = tree.get_path(Path::new(path)).and_then(|entry| entry.to_object(&repository)).map_err(said)?;
        let blob = object.peel_to_blob().map_err(said)?;
        let text = std::str::from_utf8(blob.content());
        Ok(text.map_err(|error| Error::Source(format!("{path} is no text: {error}")))?.to_owned())
    }

    /// All commits on `main`, newest first.
    ///
    /// # Errors
    /// [`Error::Source`] when the repository cannot be read.
    pub fn log(&self) -> Result<Vec<LoggedCommit>, Error> {
        let repository = Repository::open_bare(&self.folder).map_err(said)?;
        let mut walk = repository.revwalk().map_err(said)?;
        walk.push_ref(BRANCH).map_err(said)?;
        walk.map(|id| logged(&repository, id?)).collect::<Result<_, _>>().map_err(said)
    }

    /// Takes the repository out of reach of everybody, or puts it back. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Source`] when the folder cannot be moved.
    pub fn set_reachable(&self, reachable: bool) -> Result<(), Error> {
        let away = self.folder.with_extension("away");
        let (from, to): (&Path, &Path) = if reachable { (&away, &self.folder) } else { (&self.folder, &away) };
        if !from.exists() {
            return Ok(());
        }
        fs::rename(from, to).map_err(|error| Error::Source(format!("{}: {error}", from.display())))
    }
}

/// A commit, as `git log --numstat` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCommit {
    /// Full hex id.
    pub id: String,
    /// Full hex id of its tree.
    pub tree: String,
    /// First line of the message.
    pub subject: String,
    /// Lines added and removed, and the path, of each file that it changes.
    pub changes: Vec<(usize, usize, String)>,
}

fn logged(repository: &Repository, id: git2::Oid) -> Result<LoggedCommit, git2::Error> {
    let commit = repository.find_commit(id)?;
    let before = commit.parents().next().map(|parent| parent.tree()).transpose()?;
    let diff = repository.diff_tree_to_tree(before.as_ref(), Some(&commit.tree()?), None)?;
    let mut changes = Vec::new();
    for number in 0..diff.deltas().len() {
        let Some(patch) = git2::Patch::from_diff(&diff, number)? else { continue };
        let (_, added, removed) = patch.line_stats()?;
        let path = patch.delta().new_file().path().unwrap_or(Path::new(""));
        changes.push((added, removed, path.display().to_string()));
    }
    let subject = commit.summary().ok().flatten().unwrap_or_default().to_owned();
    Ok(LoggedCommit { id: id.to_string(), tree: commit.tree_id().to_string(), subject, changes })
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn said(error: git2::Error) -> Error {
    Error::Source(format!("git: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_same_commits_have_the_same_hashes() {
        let made = || {
            let dir = tempfile::tempdir().unwrap();
            let clock: Clock = Arc::new(|| Timestamp::from_second(1_000_000).unwrap());
            let remote = GitRemote::open(dir.path().join("a.git"), clock).unwrap();
            let first = remote.commit(&[("a/b.yaml", Some("x: 1\n")), ("c", Some(""))], "one").unwrap();
            remote.set_reachable(false).unwrap();
            assert_eq!(remote.head(), None);
            assert!(remote.commit(&[("c", None)], "away").is_err());
            remote.set_reachable(true).unwrap();
            let second = remote.commit(&[("a/b.yaml", None)], "two").unwrap();
            assert_eq!(remote.head(), Some(second.clone()));
            let log = remote.log().unwrap();
            assert_eq!(
                (log[0].subject.as_str(), log[0].changes.as_slice()),
                ("two", &[(0, 1, "a/b.yaml".to_owned())][..])
            );
            assert_eq!(remote.read("c").unwrap(), "");
            assert!(remote.read("a/b.yaml").is_err());
            (first, second)
        };
        assert_eq!(made(), made());
    }
}
