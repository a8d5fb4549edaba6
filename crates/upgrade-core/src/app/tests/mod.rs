//! Preflight and plans on facts made by hand: what is refused, and in which order things are done.

mod builders;
mod keeping;
mod plans;
mod refusals;
