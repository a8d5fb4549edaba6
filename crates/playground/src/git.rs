//! A bare repository and what a person does with it, without the `git` program.

use std::path::{Path, PathBuf};

use anyhow::Context;
use git2::{IndexEntry, IndexTime, Oid, Repository, Signature, Time};

/// A bare repository with one branch, `main`.
#[derive(Debug, Clone)]
pub struct BareRepository {
    path: PathBuf,
}

/// A commit, as `git log` and `git show` tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full hex id.
    pub id: String,
    /// Full hex id of its tree.
    pub tree: String,
    /// First line of the message.
    pub subject: String,
    /// Who made it.
    pub author: String,
    /// Lines added and removed, and the path, of each file it changes.
    pub changes: Vec<(usize, usize, String)>,
}

impl BareRepository {
    /// Makes an empty one, or opens the one that is there.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.join("HEAD").is_file() {
            let mut options = git2::RepositoryInitOptions::new();
            // Templates of the machine may bring hooks, and repositories on files with hooks are refused.
            options.bare(true).initial_head("main").external_template(false);
            Repository::init_opts(path, &options).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Commits these files on top of the branch; other files stay. `seconds` is the time of the commit since 1970.
    ///
    /// # Errors
    /// When the repository cannot be written.
    pub fn commit(&self, files: &[(&str, &str)], message: &str, seconds: i64) -> anyhow::Result<String> {
        let repository = Repository::open_bare(&self.path)?;
        let parent = repository.find_reference("refs/heads/main").ok().and_then(|head| head.peel_to_commit().ok());
        let mut index = git2::Index::new()?;
        if let Some(parent) = &parent {
            index.read_tree(&parent.tree()?)?;
        }
        for (path, text) in files {
            index.add(&entry(path, repository.blob(text.as_bytes())?, text.len()))?;
        }
        let tree = repository.find_tree(index.write_tree_to(&repository)?)?;
        let author = Signature::new("A Person", "person@example.com", &Time::new(seconds, 0))?;
        let parents: Vec<_> = parent.iter().collect();
        let id = repository.commit(Some("refs/heads/main"), &author, &author, message, &tree, &parents)?;
        Ok(id.to_string())
    }

    /// A file at the head of the branch.
    ///
    /// # Errors
    /// When there is no such file, or it is no text.
    pub fn read(&self, path: &str) -> anyhow::Result<String> {
        let repository = Repository::open_bare(&self.path)?;
        let tree = repository.find_reference("refs/heads/main")?.peel_to_tree()?;
        let blob = tree.get_path(Path::new(path))?.to_object(&repository)?.peel_to_blob()?;
        Ok(std::str::from_utf8(blob.content()).with_context(|| format!("{path} is no text"))?.to_owned())
    }

    /// All commits of the branch, newest first.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub fn log(&self) -> anyhow::Result<Vec<Commit>> {
        let repository = Repository::open_bare(&self.path)?;
        let mut walk = repository.revwalk()?;
        walk.push_ref("refs/heads/main")?;
        let mut commits = Vec::new();
        for id in walk {
            let commit = repository.find_commit(id?)?;
            let before = commit.parent(0).ok().map(|parent| parent.tree()).transpose()?;
            let diff = repository.diff_tree_to_tree(before.as_ref(), Some(&commit.tree()?), None)?;
            let mut changes = Vec::new();
            for number in 0..diff.deltas().len() {
                let Some(patch) = git2::Patch::from_diff(&diff, number)? else { continue };
                let (_, added, removed) = patch.line_stats()?;
                let path = patch.delta().new_file().path().unwrap_or(Path::new(""));
                changes.push((added, removed, path.display().to_string()));
            }
            commits.push(Commit {
                id: commit.id().to_string(),
                tree: commit.tree_id().to_string(),
                subject: commit.summary().ok().flatten().unwrap_or_default().to_owned(),
                author: commit.author().name().unwrap_or_default().to_owned(),
                changes,
            });
        }
        Ok(commits)
    }
}

fn entry(path: &str, id: Oid, size: usize) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode: 0o100_644,
        uid: 0,
        gid: 0,
        file_size: u32::try_from(size).unwrap_or(u32::MAX),
        id,
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_keeps_other_files_and_says_what_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let repository = BareRepository::open(&folder.path().join("apps.git")).unwrap();
        repository.commit(&[("a/b.yaml", "x: 1\ny: 2\n"), ("c", "c\n")], "Add", 1).unwrap();
        let id = repository.commit(&[("a/b.yaml", "x: 1\ny: 3\n")], "Change\n\nWhy.", 2).unwrap();
        let log = repository.log().unwrap();
        assert_eq!((log.len(), log[0].id.as_str(), log[0].subject.as_str()), (2, id.as_str(), "Change"));
        assert_eq!(log[0].changes, [(1, 1, "a/b.yaml".to_owned())]);
        assert_eq!(repository.read("c").unwrap(), "c\n");
        assert!(BareRepository::open(repository.path()).unwrap().read("missing").is_err());
    }
}
