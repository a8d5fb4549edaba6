//! What we write on our objects to know them again.

/// Label: the operation that made the object.
pub const OPERATION: &str = "upgrades.windlass.dev/operation";

/// Label: the restore point a snapshot belongs to.
pub const RESTORE_POINT: &str = "upgrades.windlass.dev/restore-point";

/// Label: a claim that only holds a restored copy until the swap; nobody's but ours.
pub const HELPER: &str = "upgrades.windlass.dev/helper";

/// Finalizer of a restore point: its copies are deleted before it goes.
pub const COPIES: &str = "upgrades.windlass.dev/copies";

/// Annotation of a helper: the claim whose data it holds. Not a label, because names of claims may be longer.
pub(crate) const HELPER_OF: &str = "upgrades.windlass.dev/helper-of";

/// Annotation of a snapshot: the UID of the claim when it was asked for.
pub(crate) const CLAIM_UID: &str = "upgrades.windlass.dev/claim-uid";

/// Annotation of a snapshot: the driver of the claim's volume when it was asked for.
pub(crate) const DRIVER: &str = "upgrades.windlass.dev/driver";

/// Annotation of a snapshot: the driver's handle of the claim's volume when it was asked for. What the content says it was
/// made from is compared with this, because by then the claim may have another volume.
pub(crate) const VOLUME_HANDLE: &str = "upgrades.windlass.dev/volume-handle";

/// Everything of ours starts like this.
pub(crate) const PREFIX: &str = "upgrades.windlass.dev/";
