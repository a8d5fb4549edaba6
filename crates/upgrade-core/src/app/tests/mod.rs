//! Preflight and plans on facts made by hand, and whole operations in a small model of everything they work on.

mod builders;
mod changing;
mod delivered;
mod idle;
mod inheriting;
mod journeys;
mod keeping;
mod lagging;
mod lifted;
mod meddling;
mod plans;
mod put_back;
mod refusals;
mod served;
mod storms;
mod substituted;
mod swapping;
mod world;
