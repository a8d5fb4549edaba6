//! An in-process Kubernetes API server with stand-in controllers and faults, for tests.
