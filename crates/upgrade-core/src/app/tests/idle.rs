//! What must not run for the moment, and what is not meant to run at all.

use jiff::SignedDuration;

use super::builders::{cron_job, workload};
use super::meddling::{assert_undone, committed, rollback, upgrade};
use super::world::{Cron, Journey, Meddle, PLAIN, RELEASE, State, Trouble, World};
use crate::engine::Outcome;
use crate::ports::{ObjectRef, WorkloadFacts, WorkloadKind};

/// What is delivered and never has a pod: a workload that is turned off, and an object whose operator runs pods.
fn idle() -> Vec<WorkloadFacts> {
    let without_data = |object: ObjectRef, kind| WorkloadFacts {
        object,
        kind,
        replicas: 0,
        claims: Vec::new(),
        images: Vec::new(),
        ..workload()
    };
    vec![
        without_data(ObjectRef::new("apps", "Deployment", "notes", "worker-off"), WorkloadKind::Deployment),
        without_data(ObjectRef::new("db.test", "Cluster", "notes", "db"), WorkloadKind::Other),
    ]
}

#[test]
fn what_is_not_meant_to_run_is_not_waited_for_after_the_release() {
    for setup in [PLAIN, RELEASE] {
        let world = World::new(setup);
        world.state().aside = idle();
        let journey = world.upgrade(Trouble::default());
        assert_eq!(journey.outcome(), &Outcome::Succeeded, "{setup:?}");
        assert_eq!(journey.faults(), [""; 0]);
        let rollback = journey.roll_back(true, Trouble::default());
        assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{setup:?}");
    }
}

#[test]
fn an_image_that_only_a_workload_at_no_replicas_has_is_not_waited_for() {
    let world = World::new(PLAIN);
    {
        let mut state = world.state();
        state.aside = idle();
        state.aside[0].images = vec![("worker".into(), "registry.test/worker:1.0.0".into())];
        let mut pin = super::builders::pin();
        (pin.component, pin.field) = ("image/worker".into(), "spec.image".into());
        state.pins = vec![pin];
    }
    let journey = world.upgrade(Trouble::default());
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
}

#[test]
fn an_app_that_somebody_has_scaled_to_nothing_gets_its_older_version_and_stays_so() {
    for setup in [PLAIN, RELEASE] {
        let upgrade = World::new(setup).upgrade(Trouble::default());
        assert_eq!(upgrade.outcome(), &Outcome::Succeeded);
        upgrade.world.state().scale(0);
        let rollback = upgrade.roll_back(true, Trouble::default());
        assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{setup:?}");
        let state = rollback.world.state();
        assert_eq!((state.deployment.replicas, state.deployment.version.as_str()), (0, "1.0.0"));
    }
}

#[test]
fn a_cron_job_that_somebody_lets_run_stops_the_commit() {
    for setup in [PLAIN, RELEASE] {
        let world = World::new(setup);
        world.state().cron = Some(Cron::new(|_| None));
        let journey = world.upgrade(Trouble {
            meddle: Some(("snapshot/record", |state| state.cron.as_mut().unwrap().write(Some(false), false))),
            ..Trouble::default()
        });
        assert_undone(&journey, "started-since-cut");
        assert!(!committed(&journey));
    }
}

#[test]
fn a_cron_job_is_stopped_for_the_copy_and_runs_again_at_the_end() {
    for setup in [PLAIN, RELEASE] {
        let world = World::new(setup);
        world.state().cron = Some(Cron::new(|_| None));
        let stopped = world.upgrade(Trouble {
            meddle: Some(("snapshot/record", |state| {
                assert_eq!(state.cron.as_ref().unwrap().suspend, Some(true));
            })),
            ..Trouble::default()
        });
        assert_eq!(stopped.outcome(), &Outcome::Succeeded);
        assert!(stopped.inputs().workload(&cron_job()).is_some());
        assert_eq!(stopped.world.state().cron.as_ref().unwrap().suspend, None);
    }
}

/// The version that is left behind did not touch what was restored.
fn assert_untouched(journey: &Journey) {
    let breaches = journey.world.state().breaches.clone();
    assert!(!breaches.iter().any(|one| one.contains("starts on the data that was restored")), "{breaches:#?}");
}

#[test]
fn a_claim_is_not_made_while_the_version_that_is_left_waits_for_it() {
    for setup in [PLAIN, RELEASE] {
        let scaled_up = rollback(setup, "swap/delete/data", |state| state.scale(2));
        assert!(matches!(scaled_up.outcome(), Outcome::Failed { step, .. } if step == "swap/create/data"));
        assert_eq!(scaled_up.failure(), "started-since-cut");
        assert!(!scaled_up.calls().contains(&"volumes.recreate"));
        assert_untouched(&scaled_up);
        let error = scaled_up.journal.entry("swap/create/data").unwrap().error.clone().unwrap();
        assert!(error.message.contains("Pod") && error.hint.contains("scale it to 0"), "{error:?}");
    }
}

#[test]
fn the_swap_goes_on_by_itself_once_nothing_is_in_its_way() {
    // Each is put right a moment later.
    let cases: [Meddle; 2] = [
        |state| {
            state.scale(2);
            state.after = Some(("workloads.holders", |state: &mut State| state.scale(0)));
        },
        |state| {
            state.own().suspend = None;
            state.after = Some(("delivery.suspension", |state: &mut State| state.own().suspend = Some(true)));
        },
    ];
    for setup in [PLAIN, RELEASE] {
        for meddle in cases {
            let journey = rollback(setup, "swap/delete/data", meddle);
            assert_eq!(journey.outcome(), &Outcome::Succeeded, "{setup:?}");
            assert!(journey.journal.entry("swap/create/data").unwrap().attempt > 1, "it was not in the way");
            assert_untouched(&journey);
        }
    }
}

#[test]
fn what_may_have_run_on_the_restored_data_is_not_followed_by_a_commit() {
    for setup in [PLAIN, RELEASE] {
        let journey = rollback(setup, "swap/create/data", |state| {
            state.no_pods_until = Some(state.now + SignedDuration::from_secs(60));
            state.scale(1);
            state.scale(0);
        });
        assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
        assert_eq!(journey.failure(), "started-since-cut");
        assert!(journey.calls().iter().filter(|call| **call == "git.commit").count() == 0);
    }
}

#[test]
fn no_volume_is_reserved_while_something_waits_for_its_claim() {
    let journey = rollback(RELEASE, "restore/free/data", |state| state.scale(1));
    assert_undone(&journey, "started-since-cut");
    assert!(!journey.calls().contains(&"volumes.reserve"));
}

#[test]
fn a_claim_on_another_volume_of_the_same_name_is_not_the_restored_one() {
    let journey = rollback(RELEASE, "swap/create/data", |state| {
        for (name, volume) in &mut state.storage.volumes {
            if name.starts_with("uid-pv") {
                volume.uid = "another".into();
            }
        }
    });
    assert_eq!(journey.failure(), "object-replaced");
    assert!(!committed(&journey));
}

#[test]
fn what_is_at_no_replicas_when_it_is_stopped_is_put_back_so_and_told() {
    let journey = upgrade(PLAIN, "", |_| {});
    assert_eq!(journey.inputs().unwatched, []);
    let world = World::new(PLAIN);
    world.state().aside = idle();
    let facts = world.facts(&world.spec(), None, None);
    let mut ask = super::builders::upgrade_to("1.1.0");
    ask.app = world.spec();
    let verdict = crate::app::preflight::upgrade(&ask, &facts);
    assert!(verdict.passed(), "{:?}", verdict.refusals);
    for told in ["worker-off is not looked at: it is at 0 replicas", "db is not looked at: its kind"] {
        assert!(verdict.warnings.iter().any(|one| one.contains(told)), "{told}: {:?}", verdict.warnings);
    }
}
