#![doc = include_str!("../README.md")]

mod document;
mod edit;
mod image;
mod path;
mod quote;
mod refusal;
mod resolve;
mod tree;

pub use document::{Document, DocumentInfo, documents};
pub use edit::{Part, Scalar, Style, get, set, text};
pub use path::{Path, Step};
pub use quote::{Kind, Reading};
pub use refusal::{Position, Refusal};
