//! Which objects of the chain show what a repository of the app carries. All others, those of a bootstrap repository for
//! example, never hold a commit of ours, and show no version of the app.

use serde::{Deserialize, Serialize};

use super::AppInputs;
use super::facts::fetches;
use crate::ports::{DeliveryFacts, DeliveryRole, ObjectRef, Repository};

/// A source, or a manifests object that applies what that source has fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// The object.
    pub object: ObjectRef,
    /// Name of the repository whose commits it shows.
    pub repository: String,
}

/// Everything in the chain that shows commits of one of the repositories.
pub(super) fn readers(delivery: &DeliveryFacts, repositories: &[Repository]) -> Vec<Reader> {
    let mut readers = Vec::new();
    for source in &delivery.sources {
        let applied = delivery
            .objects
            .iter()
            .filter(|object| object.role == DeliveryRole::Manifests && object.source.as_ref() == Some(&source.object));
        let objects: Vec<&ObjectRef> =
            std::iter::once(&source.object).chain(applied.map(|object| &object.object)).collect();
        for repository in repositories.iter().filter(|repository| fetches(source, repository)) {
            let reads = |object: &&ObjectRef| Reader { object: (*object).clone(), repository: repository.name.clone() };
            readers.extend(objects.iter().map(reads));
        }
    }
    readers
}

/// The sources that fetch one of the repositories.
pub(super) fn sources(delivery: &DeliveryFacts, repositories: &[Repository]) -> Vec<ObjectRef> {
    let ours = delivery.sources.iter().filter(|source| repositories.iter().any(|one| fetches(source, one)));
    ours.map(|source| source.object.clone()).collect()
}

impl AppInputs {
    /// Whether the object shows commits of the repository. In a plan that does not say who reads what, everybody does.
    pub fn reads(&self, object: &ObjectRef, repository: &str) -> bool {
        let reads = |reader: &Reader| reader.object == *object && reader.repository == repository;
        self.readers.is_empty() || self.readers.iter().any(reads)
    }

    /// Whether the repository gets a commit.
    pub fn changes_in(&self, repository: &str) -> bool {
        self.changes().any(|(_, to)| to.pin.repository == repository)
    }
}
