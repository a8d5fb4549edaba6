//! A journal store in memory: for tests, and for embedders whose operations need not survive the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{Journal, Plan};
use crate::Failure;
use crate::ports::{JournalStore, Revision, SaveError, Stored};

/// Keeps records in memory, with the same compare-and-swap as a real store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<String, (Plan, Journal, u64)>>,
}

#[async_trait]
impl JournalStore for MemoryStore {
    async fn load(&self, operation: &str) -> Result<Option<Stored>, Failure> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(operation).map(|(plan, journal, revision)| Stored {
            plan: plan.clone(),
            journal: journal.clone(),
            revision: Revision(revision.to_string()),
        }))
    }

    async fn save(
        &self,
        operation: &str,
        plan: &Plan,
        journal: &Journal,
        expected: Option<Revision>,
    ) -> Result<Revision, SaveError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.get(operation).map(|(_, _, revision)| *revision);
        if found.map(|revision| revision.to_string()) != expected.map(|revision| revision.0) {
            return Err(SaveError::Conflict);
        }
        let next = found.unwrap_or(0) + 1;
        records.insert(operation.to_owned(), (plan.clone(), journal.clone(), next));
        Ok(Revision(next.to_string()))
    }
}
