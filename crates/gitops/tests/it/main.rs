//! The crate against real remotes: folders, and git's own HTTP server.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what tests share")]

mod commits;
mod http;
mod reads;
mod server;
mod world;
