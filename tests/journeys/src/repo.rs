//! The repository of a journey, as another person with a clone of their own sees it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::estate::Remote;

/// A clone.
pub(crate) struct Repo {
    folder: TempDir,
    /// The date of its commits, where that is not the machine's.
    date: Option<&'static str>,
}

impl Repo {
    /// A new repository with these files as its first commit, pushed to the remote.
    pub(crate) fn create(remote: &Remote, files: &[(String, String)]) -> anyhow::Result<Self> {
        let repo = Self { folder: TempDir::new_in(&remote.clones)?, date: remote.date };
        repo.git(&["init", "--quiet", "--initial-branch=main"])?;
        repo.git(&["config", "user.name", "A Person"])?;
        repo.git(&["config", "user.email", "person@example.com"])?;
        repo.git(&["remote", "add", "origin", &remote.own_url])?;
        repo.write(files)?;
        repo.git(&["add", "--all"])?;
        repo.git(&["commit", "--quiet", "--message", "Add the app"])?;
        repo.git(&["push", "--quiet", "origin", "main"])?;
        Ok(repo)
    }

    /// Another clone of a repository that exists.
    pub(crate) fn clone(remote: &Remote) -> anyhow::Result<Self> {
        let repo = Self { folder: TempDir::new_in(&remote.clones)?, date: remote.date };
        repo.git(&["init", "--quiet", "--initial-branch=main"])?;
        repo.git(&["config", "user.name", "A Person"])?;
        repo.git(&["config", "user.email", "person@example.com"])?;
        repo.git(&["remote", "add", "origin", &remote.own_url])?;
        repo.pull()?;
        Ok(repo)
    }

    fn write(&self, files: &[(String, String)]) -> anyhow::Result<()> {
        for (path, text) in files {
            let file = self.path().join(path);
            std::fs::create_dir_all(file.parent().context("no folder")?)?;
            std::fs::write(file, text)?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs git and returns what it printed.
    pub(crate) fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("git");
        command.current_dir(self.path()).args(args).env("GIT_TERMINAL_PROMPT", "0");
        if let Some(date) = self.date {
            command.env("GIT_AUTHOR_DATE", date).env("GIT_COMMITTER_DATE", date);
        }
        let output = command.output()?;
        if !output.status.success() {
            // The remote's address holds a token: only git's own words are shown.
            bail!("git {}: {}", args.first().unwrap_or(&""), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Brings the clone to the remote's head.
    pub(crate) fn pull(&self) -> anyhow::Result<()> {
        self.git(&["fetch", "--quiet", "origin"])?;
        self.git(&["reset", "--quiet", "--hard", "origin/main"])?;
        Ok(())
    }

    /// Commits a change of files on top of the remote's head and pushes it.
    pub(crate) fn push(&self, files: &[(String, String)], message: &str) -> anyhow::Result<()> {
        self.pull()?;
        self.write(files)?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])?;
        self.git(&["push", "--quiet", "origin", "main"])?;
        Ok(())
    }

    /// Number of commits at the remote's head.
    pub(crate) fn commits(&self) -> anyhow::Result<usize> {
        self.pull()?;
        Ok(self.git(&["rev-list", "--count", "HEAD"])?.trim().parse()?)
    }

    /// `added deleted path` of each file of a commit.
    pub(crate) fn numstat(&self, commit: &str) -> anyhow::Result<String> {
        let text = self.git(&["show", "--numstat", "--format=", commit])?;
        Ok(text.trim().replace('\t', " "))
    }

    pub(crate) fn read(&self, path: &str) -> anyhow::Result<String> {
        self.pull()?;
        Ok(std::fs::read_to_string(self.path().join(path))?)
    }
}
