//! Workloads: who mounts what, stop, put back, and whether they are healthy.
