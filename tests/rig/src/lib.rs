//! The real rig: a supervisor for real servers, a CSI driver, a small kubelet and the app under test.
