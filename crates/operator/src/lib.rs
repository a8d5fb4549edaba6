//! The Windlass operator.
