//! What a delivery object would deliver, as far as it can be told without changing anything.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AppRef, ObjectRef, PinValue, Repository};
use crate::Failure;

/// One object that would be delivered, as far as volumes are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// The object, in the namespace it would have.
    pub object: ObjectRef,
    /// Names of the claims that its pod template mounts.
    pub claims: Vec<String>,
    /// Names of a StatefulSet's claim templates.
    pub claim_templates: Vec<String>,
}

/// What would be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rendered {
    /// These objects and no others.
    Pieces(Vec<Piece>),
    /// It cannot be told, and why. Never to be read as "the same as now".
    Unknown(String),
}

/// What one delivery object delivers now, and would deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendering {
    /// The delivery object.
    pub of: ObjectRef,
    /// What it says that it delivers now.
    pub delivered: Vec<ObjectRef>,
    /// What it would deliver.
    pub rendered: Rendered,
}

/// Renders what a delivery object would deliver.
///
/// - **Flow**: once for each of the app's own objects, before an upgrade is judged.
/// - **Guarantees**: read-only. What cannot be rendered in full is [`Rendered::Unknown`]; nothing is left out in silence.
/// - **Assumptions**: the delivery tool renders the same files in the same way.
/// - **Cancellation**: read-only.
/// - **Errors**: those of the API server and of Git (retryable); a file that cannot be used is `Unknown`, no error.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Renderer: Send + Sync {
    /// What `object` delivers now, and would deliver from the commits in `at` with `changes` made to them.
    async fn render(
        &self,
        app: &AppRef,
        object: &ObjectRef,
        at: &[(Repository, String)],
        changes: &[PinValue],
    ) -> Result<Rendering, Failure>;
}
