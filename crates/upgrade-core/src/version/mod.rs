//! Versions, ranges and their order.
