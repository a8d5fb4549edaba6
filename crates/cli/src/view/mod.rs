//! What is shown, as data: built from objects, written as text or as a document. Nothing here talks to anything.

pub(crate) mod apps;
pub(crate) mod history;
pub(crate) mod plan;
pub(crate) mod request;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod snapshots;
