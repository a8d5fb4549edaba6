//! The app: it keeps numbered records in a file on its volume and acknowledges each only once it is durable.
//!
//! | Version | What it does |
//! |---|---|
//! | `1.x.y` | plain; file format 1; refuses to start on format 2 |
//! | `2.x.y` | migrates format 1 to format 2 in place at start; there is no way back |
//! | `3.0.0` | overwrites part of its data at start and never becomes ready |
//! | `4.0.0` | serves and acknowledges, then turns unready for good |
//!
//! Other versions do not exist: their image cannot be pulled.

mod program;
mod store;
mod version;

pub use program::NotesImages;
pub use store::{Format, FormatPolicy, Store, StoreError, Summary};
pub use version::{AppVersion, Behaviour, UnknownVersion};
