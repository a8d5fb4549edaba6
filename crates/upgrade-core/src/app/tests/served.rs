//! When a version counts as having served, so that going back may lose what it acknowledged.

use jiff::SignedDuration;

use super::meddling::upgrade;
use super::world::{Behaviour, PLAIN, Trouble, World};
use crate::app::after::FollowUp;
use crate::engine::Outcome;

#[test]
fn a_version_that_was_ready_for_a_moment_counts_as_having_served() {
    let world = World::new(PLAIN);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::BreaksLater);
    let journey = world.upgrade(Trouble {
        meddle: Some(("release/start/deployment/notes/notes", |state| {
            // Never healthy as a whole: one of its pods is missing, until all of them break.
            state.deployment.replicas = 3;
            state.pass(SignedDuration::from_millis(400));
            state.no_pods_until = Some(state.now + SignedDuration::from_secs(60));
            state.deployment.replicas = 4;
        })),
        ..Trouble::default()
    });
    assert!(matches!(journey.outcome(), Outcome::Failed { step, .. } if step == "verify/healthy"));
    {
        let mut state = world.state();
        state.behaviours.insert("1.1.0".into(), Behaviour::Crashes);
        state.pods.clear();
    }
    assert!(matches!(journey.follow_up(), FollowUp::Ask { .. }), "{:?}", journey.follow_up());
}

#[test]
fn a_pod_without_the_data_that_is_ready_all_the_time_is_no_reason_to_ask() {
    let world = World::new(PLAIN);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
    world.state().frontend = true;
    let journey = world.upgrade(Trouble::default());
    assert!(matches!(journey.outcome(), Outcome::Failed { step, .. } if step == "verify/healthy"));
    let expected = FollowUp::RollBack { restore_data: true, loses_writes: false };
    assert_eq!(journey.follow_up(), expected);
}

#[test]
fn a_version_that_soaked_has_served_whatever_its_pods_say_afterwards() {
    let journey = upgrade(PLAIN, "verify/healthy", |state| {
        state.pods.clear();
        state.no_pods_until = Some(state.now + SignedDuration::from_secs(60));
    });
    assert!(matches!(journey.outcome(), Outcome::Failed { step, .. } if step == "verify/soak"));
    assert!(matches!(journey.follow_up(), FollowUp::Ask { .. }));
}
