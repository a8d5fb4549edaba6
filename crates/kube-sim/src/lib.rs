
pub mod faults;
pub mod server;

pub use server::{Config, Identity, SimServer};
