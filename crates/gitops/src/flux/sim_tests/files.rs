//! A Git that has files and nothing else.

use std::collections::BTreeMap;

use async_trait::async_trait;
use upgrade_core::Failure;
use upgrade_core::ports::{
    Ancestry, AppRef, CommitRecord, CommitRequest, GitManager, Pin, PinFacts, PinValue, Repository,
};

/// Git, as far as rendering asks.
pub(super) struct Files(pub(super) BTreeMap<String, String>);

#[async_trait]
impl GitManager for Files {
    async fn files(
        &self,
        _: &AppRef,
        _: &Repository,
        _: &str,
        folder: &str,
        changes: &[PinValue],
    ) -> Result<BTreeMap<String, String>, Failure> {
        let below = |path: &String| path.starts_with(&format!("{folder}/"));
        // A comment names the pin of a line.
        let pinned = |line: &str| {
            changes.iter().find_map(|PinValue { pin, value }| {
                let comment = format!(" # {}", pin.component);
                let (key, _) = line.strip_suffix(&comment)?.rsplit_once(": ")?;
                Some(format!("{key}: '{value}'{comment}\n"))
            })
        };
        let edited = |text: &String| {
            text.lines().map(|line| pinned(line).unwrap_or_else(|| format!("{line}\n"))).collect::<String>()
        };
        Ok(self.0.iter().filter(|(path, _)| below(path)).map(|(path, text)| (path.clone(), edited(text))).collect())
    }

    async fn head(&self, _: &AppRef, _: &Repository) -> Result<String, Failure> {
        Err(not_asked())
    }

    async fn pins(&self, _: &AppRef, _: &Repository, _: &str, _: &[Pin]) -> Result<Vec<PinFacts>, Failure> {
        Err(not_asked())
    }

    async fn commit(&self, _: &AppRef, _: &CommitRequest) -> Result<CommitRecord, Failure> {
        Err(not_asked())
    }

    async fn find(&self, _: &AppRef, _: &Repository, _: &str) -> Result<Option<CommitRecord>, Failure> {
        Err(not_asked())
    }

    async fn ancestry(&self, _: &AppRef, _: &Repository, _: &str, _: &str) -> Result<Ancestry, Failure> {
        Err(not_asked())
    }

    async fn log(
        &self,
        _: &AppRef,
        _: &Repository,
        _: &str,
        _: &str,
        _: usize,
    ) -> Result<Option<Vec<String>>, Failure> {
        Err(not_asked())
    }
}

pub(super) fn repository(url: &str) -> Repository {
    Repository {
        name: "apps".into(),
        url: url.into(),
        branch: "main".into(),
        paths: Vec::new(),
        secret: None,
        author_name: String::new(),
        author_email: String::new(),
        message_template: None,
    }
}

fn not_asked() -> Failure {
    Failure::permanent("not-asked", "rendering does not ask this")
}
