//! Makes and pushes one commit: find it, or edit, commit and push; on a lost race, all of it again on the new head.

use std::collections::BTreeMap;

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Oid, Signature, Time};
use gix::ObjectId;
use gix::objs::tree::EntryKind;
use upgrade_core::ports::{CommitRecord, CommitRequest};

use super::TRAILER;
use super::history::{Broken, record};
use super::pins::Edited;
use super::remote::Pushed;
use super::session::Session;
use crate::{GitopsError, Result};

impl Session {
    /// The commit of an operation, looked for at the present head.
    ///
    /// # Errors
    /// [`GitopsError::HistoryTooLong`] when the depth limit leaves it open.
    pub(super) fn find(&self, operation: &str) -> Result<Option<CommitRecord>> {
        self.check_operation(operation)?;
        let tip = self.tip()?;
        self.find_below(tip, operation)
    }

    fn find_below(&self, tip: Oid, operation: &str) -> Result<Option<CommitRecord>> {
        let tip = self.id(&tip.to_string())?;
        let not_before = self.options.clock.now().as_second().saturating_sub(self.options.search_back.as_secs());
        match self.ask(|history| history.find(tip, operation, not_before))? {
            Some(found) => Ok(found.map(|found| record(&self.repository.name, found))),
            None => Err(GitopsError::HistoryTooLong {
                repository: self.name(),
                operation: operation.to_owned(),
                depth: self.max_depth(),
                days: self.options.search_back.as_hours() / 24,
            }),
        }
    }

    /// See [`GitManager::commit`](upgrade_core::ports::GitManager::commit).
    pub(super) fn commit(&self, request: &CommitRequest) -> Result<CommitRecord> {
        self.check_request(request)?;
        let attempts = self.options.attempts.max(1);
        for attempt in 1..=attempts {
            if self.is_abandoned() {
                return Err(self.unreachable("it took too long"));
            }
            let tip = self.tip()?;
            // First of all, because an earlier call may have pushed without hearing the answer.
            if let Some(found) = self.find_below(tip, &request.operation)? {
                return Ok(found);
            }
            let edited = self.edit(self.id(&tip.to_string())?, request)?;
            let new = self.make_commit(tip, &edited, request)?;
            if let Some(hook) = &self.options.before_push {
                hook(attempt);
            }
            match self.push(new, tip) {
                Ok(Pushed::Landed) => {
                    tracing::info!(repository = self.repository.name, commit = %new, "pushed");
                    return Ok(record(&self.repository.name, (self.id(&new.to_string())?, self.id(&tip.to_string())?)));
                }
                Ok(Pushed::Lost) => {}
                // Servers word a lost race in many ways; whether it was one, the head tells.
                Ok(Pushed::Refused(why)) if self.tip()? == tip => {
                    return Err(GitopsError::Denied { repository: self.name(), why });
                }
                Ok(Pushed::Refused(_)) => {}
                // The outcome is unknown: the head tells, if it can be asked.
                Err(error) => match self.tip().and_then(|tip| self.find_below(tip, &request.operation)) {
                    Ok(Some(found)) => return Ok(found),
                    _ => return Err(error),
                },
            }
            tracing::debug!(repository = self.repository.name, attempt, "another commit came first");
        }
        Err(GitopsError::RaceLost { repository: self.name(), attempts })
    }

    fn check_operation(&self, operation: &str) -> Result<()> {
        if operation.is_empty()
            || operation.len() > 253
            || operation.trim() != operation
            || operation.contains(char::is_control)
        {
            return Err(self.request_refused("its operation is not one short line"));
        }
        Ok(())
    }

    fn request_refused(&self, why: &str) -> GitopsError {
        GitopsError::RequestRefused { repository: self.name(), why: why.to_owned() }
    }

    fn check_request(&self, request: &CommitRequest) -> Result<()> {
        self.check_operation(&request.operation)?;
        if request.changes.is_empty() || request.changes.len() != request.expected.len() {
            return Err(self.request_refused("it needs one expected value for each of at least one change"));
        }
        if let Some(change) = request.changes.iter().find(|change| change.pin.repository != self.repository.name) {
            return Err(self.request_refused(&format!("pin {} is in {}", change.pin.component, change.pin.repository)));
        }
        let target =
            |pin: &upgrade_core::ports::Pin| (pin.path.clone(), pin.object.clone(), pin.field.clone(), pin.part as u8);
        let mut targets: Vec<_> = request.changes.iter().map(|change| target(&change.pin)).collect();
        targets.sort();
        targets.dedup();
        if targets.len() != request.changes.len() {
            return Err(self.request_refused("two of its pins are the same scalar"));
        }
        if request.message.trim().is_empty() || request.message.contains('\0') {
            return Err(self.request_refused("its message is empty or has a NUL character"));
        }
        let trailer = format!("{}:", TRAILER.to_ascii_lowercase());
        if request.message.lines().any(|line| line.trim_start().to_ascii_lowercase().starts_with(&trailer)) {
            return Err(self.request_refused("its message has a Windlass-Operation trailer of its own"));
        }
        for change in &request.changes {
            self.check_writable(&change.pin.path)?;
        }
        Ok(())
    }

    fn make_commit(&self, parent: Oid, edited: &BTreeMap<String, Edited>, request: &CommitRequest) -> Result<Oid> {
        let local = self.local()?;
        let broken = |error: git2::Error| self.broken(Broken(error.message().to_owned()));
        let parent = local.find_commit(parent).map_err(broken)?;
        let base = parent.tree().map_err(broken)?;
        let mut update = TreeUpdateBuilder::new();
        for (path, file) in edited {
            let blob = local.blob(file.text.as_bytes()).map_err(broken)?;
            let mode = if file.kind == EntryKind::BlobExecutable { FileMode::BlobExecutable } else { FileMode::Blob };
            update.upsert(path.as_str(), blob, mode);
        }
        let tree = update.create_updated(&local, &base).and_then(|id| local.find_tree(id)).map_err(broken)?;
        self.check_files(&local, &base, &tree, edited)?;
        let now = Time::new(self.options.clock.now().as_second(), 0);
        let author = Signature::new(&self.repository.author_name, &self.repository.author_email, &now)
            .map_err(|_| self.request_refused("the name or address of the author cannot be used"))?;
        let message = format!("{}\n\n{TRAILER}: {}\n", request.message.trim(), request.operation);
        let Some(signer) = &self.options.signer else {
            return local.commit(None, &author, &author, &message, &tree, &[&parent]).map_err(broken);
        };
        let content = local.commit_create_buffer(&author, &author, &message, &tree, &[&parent]).map_err(broken)?;
        let signing = |why: &str| GitopsError::Signing { repository: self.name(), why: self.keys.redact(why) };
        let content = std::str::from_utf8(&content).map_err(|_| signing("the commit is not UTF-8"))?;
        let signature = signer.sign(content.as_bytes()).map_err(|why| signing(&why))?;
        local.commit_signed(content, &signature, None).map_err(broken)
    }

    /// Exactly the edited files differ between the two trees.
    fn check_files(
        &self,
        local: &git2::Repository,
        old: &git2::Tree<'_>,
        new: &git2::Tree<'_>,
        edited: &BTreeMap<String, Edited>,
    ) -> Result<()> {
        let diff = local.diff_tree_to_tree(Some(old), Some(new), None);
        let diff = diff.map_err(|error| self.broken(Broken(error.message().to_owned())))?;
        let is_edit = |delta: &git2::DiffDelta<'_>| {
            delta.status() == git2::Delta::Modified
                && delta
                    .new_file()
                    .path()
                    .and_then(std::path::Path::to_str)
                    .is_some_and(|path| edited.contains_key(path))
                && delta.old_file().mode() == delta.new_file().mode()
        };
        if diff.deltas().len() == edited.len() && diff.deltas().all(|delta| is_edit(&delta)) {
            return Ok(());
        }
        Err(GitopsError::UnexpectedDiff {
            repository: self.name(),
            expected: format!("{} file(s)", edited.len()),
            found: format!("{} file(s)", diff.deltas().len()),
        })
    }

    /// The commit asked about, for questions of history.
    pub(super) fn known(&self, hex: &str) -> Result<ObjectId> {
        let id = self.id(hex)?;
        self.need(id)?;
        Ok(id)
    }
}
