//! Talks to the remote through libgit2: its head, fetches of bounded depth, and pushes that are never forced.

use std::cell::{Cell, RefCell};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode, FetchOptions, Oid, PushOptions,
    RemoteCallbacks, RemoteRedirect,
};

use super::credentials::Login;
use super::endpoint::{Endpoint, Scheme};
use super::history::Broken;
use super::known_hosts::{self, Verdict};
use super::session::Session;
use crate::{GitopsError, Result};

/// Keeps the newest fetched commit, so that the next fetch can say what is here already.
const TIP: &str = "refs/windlass/tip";
/// A ref that no remote has.
const NOTHING: &str = "+refs/windlass/nothing:refs/windlass/nothing";
/// What a server says is kept up to here, in bytes.
const MAX_SERVER_TEXT: usize = 2048;

/// How a push ended, as far as is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The branch is our commit now.
    Landed,
    /// The branch was not, or is no longer, what the commit was made on. Nothing was written.
    Lost,
    /// The remote said no, for this reason.
    Refused(String),
}

/// What the callbacks of one connection saw.
#[derive(Default)]
struct Notes {
    /// An error of our own, more telling than the one that libgit2 makes of it.
    error: RefCell<Option<GitopsError>>,
    server_text: RefCell<Vec<u8>>,
    logins: Cell<u32>,
    is_lost: Cell<bool>,
    /// The remote's answer for the branch: `None` when it gave none.
    report: RefCell<Option<Option<String>>>,
}

impl Session {
    /// The head of the branch, asked from the remote; afterwards that commit is here.
    pub(super) fn tip(&self) -> Result<Oid> {
        // A fetch of nothing is the one way to list that refuses redirects.
        let tip = self.exchange(NOTHING, 0)?;
        let local = self.local()?;
        if is_here(&local, tip) { Ok(tip) } else { self.fetch(1) }
    }

    fn branch_in(&self, heads: &[git2::RemoteHead<'_>]) -> Result<Oid> {
        let name = self.branch_ref();
        heads.iter().find(|head| head.name() == name).map(git2::RemoteHead::oid).ok_or_else(|| {
            GitopsError::BranchMissing { repository: self.name(), branch: self.repository.branch.clone() }
        })
    }

    /// Fetches the last `depth` commits of the branch and returns its head. File remotes are always fetched whole: libgit2
    /// knows no shallow fetches there.
    pub(super) fn fetch(&self, depth: u32) -> Result<Oid> {
        tracing::debug!(repository = self.repository.name, depth, "fetching");
        let local = self.local()?;
        if depth > 1 {
            // With many commits to offer, libgit2's negotiation of a deeper history goes several rounds and loses its way.
            // Offering none is a fresh clone of that depth.
            if let Ok(mut tip) = local.find_reference(TIP) {
                tip.delete().map_err(|error| self.cache(&error))?;
            }
        }
        let depth = if self.endpoint.is_remote() { i32::try_from(depth).unwrap_or(i32::MAX) } else { 0 };
        let tip = self.exchange(&format!("+{}:{TIP}", self.branch_ref()), depth)?;
        if is_here(&local, tip) {
            return Ok(tip);
        }
        // libgit2 does not fetch what it believes to have.
        Err(self.broken(Broken(format!("commit {tip} cannot be read after it was fetched"))))
    }

    /// Fetches by one refspec, and returns the head of the branch.
    fn exchange(&self, refspec: &str, depth: i32) -> Result<Oid> {
        let local = self.local()?;
        let notes = Notes::default();
        self.link.heard();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks(&notes))
            .follow_redirects(RemoteRedirect::None)
            .update_fetchhead(false)
            .download_tags(AutotagOption::None)
            .depth(depth);
        let mut remote = local.remote_anonymous(&self.link.url).map_err(|error| self.explain(&error, &notes))?;
        remote.fetch(&[refspec], Some(&mut options), None).map_err(|error| self.explain(&error, &notes))?;
        self.branch_in(remote.list().map_err(|error| self.explain(&error, &notes))?)
    }

    /// Pushes `new`, made on `parent`.
    ///
    /// # Errors
    /// When the outcome is not known, or the remote could not be reached at all.
    pub(super) fn push(&self, new: Oid, parent: Oid) -> Result<Pushed> {
        if self.endpoint.scheme == Scheme::File {
            return self.push_to_folder(new, parent);
        }
        let local = self.local()?;
        let notes = Notes::default();
        self.link.heard();
        let branch = self.branch_ref();
        let mut callbacks = self.callbacks(&notes);
        callbacks.push_negotiation(|updates| {
            // The last look before anything is sent: the server compares with what it says here.
            let is_expected =
                updates.len() == 1 && updates.iter().all(|update| update.src() == parent && update.dst() == new);
            notes.is_lost.set(!is_expected);
            if is_expected && !self.is_abandoned() { Ok(()) } else { Err(git2::Error::from_str("not pushed")) }
        });
        callbacks.push_update_reference(|name, status| {
            if name == branch {
                notes.report.replace(Some(status.map(str::to_owned)));
            }
            Ok(())
        });
        let mut options = PushOptions::new();
        options.remote_callbacks(callbacks).follow_redirects(RemoteRedirect::None);
        let mut remote = local.remote_anonymous(&self.link.url).map_err(|error| self.explain(&error, &notes))?;
        let result = remote.push(&[format!("{new}:{branch}")], Some(&mut options));
        drop(options);
        match (result, notes.report.take()) {
            _ if notes.is_lost.get() => Ok(Pushed::Lost),
            (_, Some(Some(reason))) => Ok(Pushed::Refused(self.with_server_text(&reason, &notes))),
            (Ok(()), Some(None)) => Ok(Pushed::Landed),
            (Ok(()), None) => Err(self.unreachable("it did not say whether it took the push")),
            (Err(error), _) if error.code() == ErrorCode::NotFastForward => Ok(Pushed::Lost),
            (Err(error), _) => Err(self.explain(&error, &notes)),
        }
    }

    /// libgit2 pushes to folders without comparing the old head and without running hooks, so both is done here.
    fn push_to_folder(&self, new: Oid, parent: Oid) -> Result<Pushed> {
        let outside = |error: git2::Error| self.unreachable(error.message());
        let remote = git2::Repository::open_bare(&self.endpoint.path).map_err(outside)?;
        for hook in ["pre-receive", "update", "reference-transaction", "post-receive"] {
            if remote.path().join("hooks").join(hook).exists() {
                return Ok(Pushed::Refused(format!("it has a {hook} hook, which a push to a folder would not run")));
            }
        }
        let local = self.local()?;
        let mut pack = local.packbuilder().map_err(|error| self.cache(&error))?;
        let mut walk = local.revwalk().map_err(|error| self.cache(&error))?;
        walk.push(new).and_then(|()| walk.hide(parent)).map_err(|error| self.cache(&error))?;
        pack.insert_walk(&mut walk).map_err(|error| self.cache(&error))?;
        let objects = remote.odb().map_err(outside)?;
        let mut writer = objects.packwriter().map_err(outside)?;
        let mut result = Ok(());
        pack.foreach(|bytes| {
            result = std::io::Write::write_all(&mut writer, bytes);
            result.is_ok()
        })
        .map_err(|error| self.cache(&error))?;
        result.map_err(|error| self.unreachable(error.to_string()))?;
        writer.commit().map_err(outside)?;
        if self.is_abandoned() {
            return Err(self.unreachable("it took too long"));
        }
        match remote.reference_matching(&self.branch_ref(), new, true, parent, "windlass") {
            Ok(_) => Ok(Pushed::Landed),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Locked) => Ok(Pushed::Lost),
            Err(error) => Err(outside(error)),
        }
    }

    fn callbacks<'s>(&'s self, notes: &'s Notes) -> RemoteCallbacks<'s> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(|_, _, allowed| self.log_in(allowed, notes));
        callbacks.certificate_check(|certificate, _| {
            let key = certificate.as_hostkey().ok_or_else(|| "it shows an unknown kind of certificate".to_owned());
            match key.and_then(|key| self.check_host_key(key.hostkey())) {
                Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                Err(why) => {
                    notes.error.replace(Some(GitopsError::Untrusted { repository: self.name(), why }));
                    Err(git2::Error::from_str("not trusted"))
                }
            }
        });
        callbacks.transfer_progress(|progress| {
            let limit = self.options.max_received_bytes;
            let received = u64::try_from(progress.received_bytes()).unwrap_or(u64::MAX);
            if received > limit {
                notes.error.replace(Some(GitopsError::TooMuch { repository: self.name(), limit }));
            }
            received <= limit && !self.is_abandoned()
        });
        callbacks.sideband_progress(|text| {
            let mut kept = notes.server_text.borrow_mut();
            let room = MAX_SERVER_TEXT.saturating_sub(kept.len());
            kept.extend(text.iter().take(room));
            !self.is_abandoned()
        });
        callbacks
    }

    fn log_in(&self, allowed: CredentialType, notes: &Notes) -> Result<Cred, git2::Error> {
        let refuse = |why: &str| {
            notes.error.replace(Some(GitopsError::Denied { repository: self.name(), why: why.to_owned() }));
            git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, "no further credentials")
        };
        // libgit2 asks again for as long as the server says no.
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(&self.endpoint.user);
        }
        notes.logins.set(notes.logins.get() + 1);
        if notes.logins.get() > 1 {
            let is_encrypted = matches!(&self.keys.login, Login::Key { passphrase: Some(_), .. });
            let or = if is_encrypted { ", or password is not the passphrase of identity" } else { "" };
            return Err(refuse(&format!("it does not accept the key{or}")));
        }
        match &self.keys.login {
            Login::Key { private, public, passphrase } if allowed.contains(CredentialType::SSH_MEMORY) => {
                Cred::ssh_key_from_memory(&self.endpoint.user, public.as_deref(), private, passphrase.as_deref())
            }
            _ => Err(refuse("it does not offer the kind of login that the credentials are for")),
        }
    }

    fn check_host_key(&self, key: Option<&[u8]>) -> Result<(), String> {
        let key = key.ok_or("it shows no host key")?;
        let known = self.keys.known_hosts.as_deref().unwrap_or_default();
        let Endpoint { host, port, .. } = &self.endpoint;
        match known_hosts::check(known, host, *port, key) {
            Verdict::Trusted => Ok(()),
            Verdict::Revoked => Err("its host key is revoked in known_hosts".to_owned()),
            Verdict::UnknownHost => Err(format!("{host} port {port} is not in known_hosts")),
            Verdict::OtherKey { types } => Err(format!(
                "{host} port {port} shows a host key ({}) that is not among those in known_hosts ({})",
                known_hosts::kind(key),
                types.join(", ")
            )),
        }
    }

    fn with_server_text(&self, reason: &str, notes: &Notes) -> String {
        let text = String::from_utf8_lossy(&notes.server_text.borrow()).into_owned();
        self.keys.redact(format!("{reason} {text}").replace(&self.link.url, &self.endpoint.url).trim())
    }

    fn cache(&self, error: &git2::Error) -> GitopsError {
        GitopsError::Cache { repository: self.name(), why: self.keys.redact(error.message()) }
    }

    /// Makes of libgit2's error, and of what the callbacks saw, one of ours.
    fn explain(&self, error: &git2::Error, notes: &Notes) -> GitopsError {
        if let Some(own) = notes.error.take().or_else(|| self.link.heard()) {
            return own;
        }
        if self.is_abandoned() {
            return self.unreachable("it took too long");
        }
        let why = self.with_server_text(error.message(), notes);
        let repository = self.name();
        match (error.code(), error.class()) {
            (ErrorCode::Certificate, _) => GitopsError::Untrusted { repository, why },
            (ErrorCode::Auth, _) => GitopsError::Denied { repository, why },
            (ErrorCode::Eof, ErrorClass::Ssh) if is_refusal(error.message()) => GitopsError::Denied { repository, why },
            (_, ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Indexer | ErrorClass::Object)
                if self.endpoint.is_remote() =>
            {
                GitopsError::Cache { repository, why }
            }
            _ => GitopsError::Unreachable { repository, why },
        }
    }
}

fn is_here(local: &git2::Repository, commit: Oid) -> bool {
    local.find_commit(commit).is_ok_and(|commit| commit.tree().is_ok())
}

/// Whether what a server says over SSH, before it hangs up, will be the same next time. SSH has no status for that, only
/// words; those that are not known here are taken for a trouble that passes.
fn is_refusal(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "not found",
        "not be found",
        "cannot find",
        "does not exist",
        "does not appear to be a git repository",
        "denied",
        "authorized",
        "not allowed",
        "permission",
        "write access",
        "read only",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusals_of_known_hosts_are_final_and_their_troubles_are_not() {
        for text in [
            "ERROR: Repository not found.",
            "ERROR: Permission to org/apps.git denied to deploy key",
            "ERROR: The key you are authenticating with has been marked as read only.",
            "remote: ERROR: This deploy key does not have write access to this project.",
            "ERROR: The project you were looking for could not be found or you don't have permission to view it.",
            "error: Deploy Key: 5:key is not authorized to write apps/over-ssh.",
            "error: Cannot find repository: apps/over-ssh",
            "fatal: '/srv/apps.git' does not appear to be a git repository",
        ] {
            assert!(is_refusal(text), "{text}");
        }
        for text in ["error: Internal Server Error", "GitLab is currently unable to handle this request", ""] {
            assert!(!is_refusal(text), "{text}");
        }
    }
}
