//! Volume snapshots through CSI: discover, protect, take, verify, restore, expire.
