//! Tests of the public interface.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints know tests, but not the helpers beside them"
)]

#[path = "it/cases.rs"]
mod cases;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/example.rs"]
mod example;
#[path = "it/fuzz_body.rs"]
mod fuzz_body;
#[path = "it/properties.rs"]
mod properties;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/support.rs"]
mod support;
