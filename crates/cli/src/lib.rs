//! The windlass command.
