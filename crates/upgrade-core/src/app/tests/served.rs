//! When a version counts as having served, so that going back may lose what it acknowledged.

use jiff::SignedDuration;
use serde_json::json;

use super::builders::{facts, kustomization, release_facts, upgrade_to};
use super::inheriting::Ended;
use super::meddling::upgrade;
use super::world::{Behaviour, Journey, Meddle, PLAIN, RELEASE, Setup, State, Trouble, World};
use crate::app;
use crate::app::after::{FollowUp, Sighting, may_have_served, sighting};
use crate::app::inherit::Operation;
use crate::engine::{Outcome, StepState};

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
fn a_release_beside_workloads_that_are_kept_from_being_applied_may_have_made_pods() {
    let mut facts = facts();
    let mut own = release_facts().delivery.objects[1].clone();
    own.parent = Some(kustomization("root"));
    facts.delivery.objects.push(own);
    let held = || {
        let plan = app::upgrade::plan(&upgrade_to("1.1.0"), &facts).unwrap();
        Ended::new(plan).with("release/resume/kustomization/flux-system/notes", StepState::Done, json!({}))
    };
    let let_go = held().with("release/resume/helmrelease/notes/notes", StepState::Done, json!({}));
    let by_its_parent = {
        let mut facts = facts.clone();
        facts.delivery.objects[2].suspend_declared = true;
        let plan = app::upgrade::plan(&upgrade_to("1.1.0"), &facts).unwrap();
        Ended::new(plan).with("release/resume/kustomization/flux-system/root", StepState::Done, json!({}))
    };
    for (ended, created) in [(held(), false), (let_go, true), (by_its_parent, true)] {
        let Operation { plan, journal, inputs } = ended.operation();
        assert!(journal.irrevocable(plan));
        assert_eq!(sighting(plan, journal, inputs, &[]), Sighting { created, served: false });
    }
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

#[test]
fn what_the_old_version_acknowledged_after_a_copy_of_the_running_app_is_not_discarded_unasked() {
    // Before anybody looks for what serves, the last pod of the old version has gone.
    let gone: Meddle = |state| state.pass(SignedDuration::from_secs(5));
    for (setup, released) in
        [(PLAIN, "release/resume/kustomization/flux-system/notes"), (RELEASE, "release/resume/helmrelease/notes/notes")]
    {
        let world = World::new(Setup { online: true, ..setup });
        world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
        let upgrade = world.upgrade(Trouble { meddle: Some((released, gone)), ..Trouble::default() });
        assert!(matches!(upgrade.outcome(), Outcome::Failed { step, .. } if step == "verify/healthy"));
        let noted = upgrade.journal.evidence("verify/healthy").get("served").is_some();
        assert!(!noted, "somebody has seen it");
        assert!(world.state().pods.iter().all(|pod| pod.version == "1.1.0" && !pod.ready));
        let FollowUp::Ask { choices } = upgrade.follow_up() else { panic!("{:?}", upgrade.follow_up()) };
        assert!(choices.contains("loses what was written since"), "{choices}");
        let inputs = upgrade.inputs();
        let operation = Operation { plan: &upgrade.plan, journal: &upgrade.journal, inputs: &inputs };
        assert!(may_have_served(&operation, false));
    }
}

/// An upgrade to a version that is not ready within its time.
fn never_ready(setup: Setup) -> Journey {
    let world = World::new(setup);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
    world.upgrade(Trouble::default())
}

/// It is ready after all, and acknowledges writes.
fn serves(state: &mut State) {
    state.behaviours.remove("1.1.0");
    state.pass(SignedDuration::from_millis(200));
}

#[test]
fn what_a_version_acknowledges_while_its_rollback_begins_is_not_discarded_unasked() {
    for setup in [PLAIN, RELEASE] {
        // Long before the stop, right before it, and when its pods are on their way out.
        for step in ["", "restore/retain/data", "stop/deployment/notes/notes"] {
            let upgrade = never_ready(setup);
            let expected = FollowUp::RollBack { restore_data: true, loses_writes: false };
            assert_eq!(upgrade.follow_up(), expected);
            let meddle: Meddle = serves;
            let rollback = upgrade.roll_back_unasked(Trouble { meddle: Some((step, meddle)), ..Trouble::default() });
            assert!(matches!(rollback.outcome(), Outcome::Undone(_)), "after {step:?}: {:?}", rollback.outcome());
            assert_eq!(rollback.failure(), "served-meanwhile", "after {step:?}");
            let stopped = rollback.calls().contains(&"workloads.stop");
            assert_eq!(stopped, step.starts_with("stop/"), "after {step:?}: it is stopped for nothing");
            let faults = rollback.faults();
            assert!(faults.is_empty(), "after {step:?}: {faults:#?}");
            let state = rollback.world.state();
            assert_eq!(state.storage.claims["data"].volume.as_deref(), Some("pv-data"), "after {step:?}");
            assert!(state.storage.acknowledged.iter().any(|write| write.version == "1.1.0"), "it never served");
            assert_eq!(state.deployment.replicas, 2, "after {step:?}");
        }
    }
}

#[test]
fn who_has_taken_the_loss_is_not_asked_again() {
    let trouble = Trouble { meddle: Some(("restore/retain/data", serves)), ..Trouble::default() };
    let rollback = never_ready(PLAIN).roll_back(true, trouble);
    assert_eq!(rollback.outcome(), &Outcome::Succeeded);
}

#[test]
fn an_upgrade_that_is_over_may_have_served_since_whatever_its_journal_says() {
    let upgrade = never_ready(PLAIN);
    let inputs = upgrade.inputs();
    let operation = Operation { plan: &upgrade.plan, journal: &upgrade.journal, inputs: &inputs };
    assert!(!may_have_served(&operation, false));
    assert!(may_have_served(&operation, true));
    let succeeded = World::new(PLAIN).upgrade(Trouble::default());
    let operation = Operation { plan: &succeeded.plan, journal: &succeeded.journal, inputs: &inputs };
    assert!(may_have_served(&operation, false));
}
