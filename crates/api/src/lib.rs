//! The Windlass custom resources, and the few fields of foreign objects it reads.
