//! Reads Helm releases from their storage.
