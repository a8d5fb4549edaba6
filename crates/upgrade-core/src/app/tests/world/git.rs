//! One branch whose commits carry the version of the app.

use jiff::{SignedDuration, Timestamp};

use super::super::builders::repository;
use super::State;
use super::rules::Running;
use crate::Failure;
use crate::ports::{Ancestry, CommitRecord, CommitRequest, Pin, PinFacts};

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Commit {
    pub(in crate::app::tests) sha: String,
    pub(in crate::app::tests) version: String,
    /// The trailer.
    pub(in crate::app::tests) key: Option<String>,
    pub(in crate::app::tests) message: String,
}

#[derive(Debug, Clone)]
pub(in crate::app::tests) struct Git {
    /// Oldest first.
    pub(in crate::app::tests) commits: Vec<Commit>,
    /// Whether ancestry cannot be told.
    pub(in crate::app::tests) shallow: bool,
    /// Until when nobody reaches it.
    pub(in crate::app::tests) down_until: Option<Timestamp>,
    /// How long its hooks take over a push, when that is longer than anybody waits.
    pub(in crate::app::tests) hooks_take: Option<SignedDuration>,
    /// Pushes that are still in the hooks, each with the head it was made on and when it lands.
    late: Vec<(Timestamp, String, Commit)>,
}

impl Git {
    pub(super) fn new() -> Self {
        let mut git =
            Self { commits: Vec::new(), shallow: false, down_until: None, hooks_take: None, late: Vec::new() };
        git.push("1.0.0", None, "Add notes");
        git
    }

    /// A commit by anybody.
    pub(in crate::app::tests) fn push(&mut self, version: &str, key: Option<String>, message: &str) {
        self.commits.push(Commit {
            sha: format!("c{}", self.commits.len()),
            version: version.into(),
            key,
            message: message.into(),
        });
    }

    pub(in crate::app::tests) fn head(&self) -> &Commit {
        self.commits.last().unwrap()
    }

    fn at(&self, sha: &str) -> Result<usize, Failure> {
        let found = self.commits.iter().position(|commit| commit.sha == sha);
        found.ok_or_else(|| Failure::permanent("commit-unknown", format!("{sha} is no commit")))
    }

    /// The version that a commit carries.
    pub(super) fn version(&self, sha: &str) -> String {
        self.at(sha).map_or_else(|_| String::new(), |at| self.commits[at].version.clone())
    }

    pub(super) fn find(&self, key: &str) -> Option<CommitRecord> {
        let at = self.commits.iter().position(|commit| commit.key.as_deref() == Some(key))?;
        let parent = at.checked_sub(1).map_or_else(String::new, |before| self.commits[before].sha.clone());
        Some(CommitRecord { repository: repository().name, sha: self.commits[at].sha.clone(), parent })
    }

    pub(super) fn ancestry(&self, commit: &str, descendant: &str) -> Result<Ancestry, Failure> {
        if self.shallow && commit != descendant {
            return Ok(Ancestry::Unknown);
        }
        // The branch does not have it: nothing is known of what it contains.
        let Ok(descendant) = self.at(descendant) else { return Ok(Ancestry::Unknown) };
        Ok(if self.at(commit)? <= descendant { Ancestry::Contained } else { Ancestry::NotContained })
    }

    pub(super) fn pins(&self, commit: &str, pins: &[Pin]) -> Result<Vec<PinFacts>, Failure> {
        let value = self.commits[self.at(commit)?].version.clone();
        let found =
            |pin: &Pin| PinFacts { pin: pin.clone(), value: value.clone(), image_policy_marker: false, sops: false };
        Ok(pins.iter().map(found).collect())
    }

    pub(super) fn log(&self, from: &str, to: &str) -> Result<Option<Vec<String>>, Failure> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        let between = self.commits.iter().take(to + 1).skip(from + 1).rev();
        Ok(Some(between.map(|commit| commit.message.clone()).collect()))
    }
}

impl State {
    /// What has been in the hooks long enough lands, if the head is still the one it was made on.
    pub(super) fn turn_git(&mut self) {
        let now = self.now;
        for (_, head, commit) in self.git.late.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            if self.git.head().sha == head {
                self.git.push(&commit.version, commit.key, &commit.message);
            }
        }
    }

    /// Git, if it can be reached.
    pub(super) fn reach_git(&self) -> Result<&Git, Failure> {
        match self.git.down_until.filter(|until| *until > self.now) {
            Some(_) => Err(Failure::transient("git-unreachable", "nobody answers")),
            None => Ok(&self.git),
        }
    }

    pub(super) fn commit(&mut self, request: &CommitRequest) -> Result<CommitRecord, Failure> {
        if let Some(made) = self.reach_git()?.find(&request.operation) {
            return Ok(made);
        }
        if request.expected != [self.git.head().version.clone()] {
            let message = format!("the head carries {}, not {:?}", self.git.head().version, request.expected);
            return Err(Failure::permanent("superseded", message));
        }
        let wanted = request.changes[0].value.clone();
        if let Some(running) = self.running.clone().filter(|running| running.operation == request.operation) {
            self.may_commit(&running);
        } else if self.running.as_ref().is_some_and(Running::restores) {
            self.breach("a rollback's own commit is reverted, and its data is back");
        }
        if let Some(hooks) = self.git.hooks_take {
            let (key, message) = (Some(request.operation.clone()), request.message.clone());
            let commit = Commit { sha: String::new(), version: wanted, key, message };
            self.git.late.push((self.now + hooks, self.git.head().sha.clone(), commit));
            return Err(Failure::transient("git-unreachable", "no answer within 2 minutes"));
        }
        self.git.push(&wanted, Some(request.operation.clone()), &request.message);
        Ok(self.git.find(&request.operation).unwrap())
    }
}
