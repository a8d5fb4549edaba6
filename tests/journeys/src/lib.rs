//! Journeys: what a person does and sees, written once, run on the rig and on kube-sim.
