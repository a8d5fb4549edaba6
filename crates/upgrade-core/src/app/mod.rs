//! The journey of an app through Git.
