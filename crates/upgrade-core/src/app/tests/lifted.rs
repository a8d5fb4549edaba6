//! Somebody else lifts a suspension after the commit: the target runs on the data without having been released by us.

use jiff::SignedDuration;

use super::journeys::SUBSTITUTED;
use super::world::{Behaviour, Journey, Meddle, PLAIN, RELEASE, Setup, Trouble, World};
use crate::app::after::FollowUp;
use crate::engine::Outcome;
use crate::ports::ReclaimPolicy;

/// As `flux resume` does, or a commit that ships along.
const LIFT: Meddle = |state| {
    state.own().suspend = None;
    state.pass(SignedDuration::from_secs(2));
};

const FETCHED: &str = "release/fetch/gitrepository/flux-system/apps";
const NAMED: &str = "release/spec/helmrelease/notes/notes";

/// Where Git says how many replicas there are, the target starts in the moment it is let go.
fn setups() -> [(Setup, &'static str); 4] {
    let starts = |setup| Setup { declares_replicas: true, ..setup };
    [
        (starts(RELEASE), NAMED),
        (starts(PLAIN), FETCHED),
        (SUBSTITUTED, "release/spec/kustomization/flux-system/notes"),
        (starts(RELEASE), FETCHED),
    ]
}

fn upgrade(setup: Setup, behaviour: Option<Behaviour>, trouble: Trouble) -> Journey {
    let world = World::new(setup);
    world.state().behaviours.extend(behaviour.map(|behaviour| ("1.1.0".to_owned(), behaviour)));
    world.upgrade(trouble)
}

/// Apart from what the lifting itself broke.
fn faults(journey: &Journey) -> Vec<String> {
    let mut faults = journey.faults();
    faults.retain(|fault| !fault.ends_with(" before it was released"));
    faults
}

fn assert_way_back(journey: &Journey, about: &str) {
    let state = journey.world.state();
    let kept = state.storage.contents.values().all(|content| content.policy == ReclaimPolicy::Retain);
    assert!(kept && !state.storage.contents.is_empty(), "{about}: the copy is not kept");
    assert!(!state.storage.snapshots.is_empty(), "{about}: the snapshot is gone");
    assert!(state.points.values().all(|point| point.void.is_empty()), "{about}: the restore point is void");
}

#[test]
fn a_target_that_somebody_else_has_let_go_is_gone_on_with_and_the_way_back_is_kept() {
    for (setup, after) in setups() {
        for behaviour in [None, Some(Behaviour::Crashes), Some(Behaviour::NeverReady)] {
            let about = format!("{setup:?} {after} {behaviour:?}");
            let journey = upgrade(setup, behaviour, Trouble { meddle: Some((after, LIFT)), ..Trouble::default() });
            let succeeded = journey.outcome() == &Outcome::Succeeded;
            assert!(
                succeeded || matches!(journey.outcome(), Outcome::Failed { .. }),
                "{about}: {:?}",
                journey.outcome()
            );
            assert_eq!(succeeded, behaviour.is_none(), "{about}: {:?}", journey.outcome());
            assert_eq!(faults(&journey), [""; 0], "{about}");
            assert_way_back(&journey, &about);
            // What ran before anybody looked may have acknowledged something.
            let asks = matches!(journey.follow_up(), FollowUp::Ask { .. });
            assert_eq!(asks, !succeeded && !journey.inputs().workloads.is_empty() && ran(&journey), "{about}");
        }
    }
}

fn ran(journey: &Journey) -> bool {
    journey.journal.entries.iter().any(|entry| entry.intent.get("ran").is_some_and(|ran| ran == true))
}

#[test]
fn who_lifts_a_suspension_of_what_does_not_start_by_itself_has_released_it_and_changed_nothing_else() {
    let trouble = || Trouble { meddle: Some((NAMED, LIFT)), ..Trouble::default() };
    let journey = upgrade(RELEASE, Some(Behaviour::Crashes), trouble());
    assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
    assert_eq!(faults(&journey), [""; 0]);
    assert_eq!(journey.follow_up(), FollowUp::RollBack { restore_data: true, loses_writes: false });
    assert_eq!(journey.roll_back_unasked(Trouble::default()).outcome(), &Outcome::Succeeded);
}

#[test]
fn an_upgrade_that_is_undone_while_its_target_may_run_on_the_data_keeps_the_way_back_and_says_so() {
    for (setup, after) in setups().into_iter().take(2) {
        for behaviour in [None, Some(Behaviour::Crashes)] {
            let about = format!("{setup:?} {after} {behaviour:?}");
            let trouble = Trouble { cancel_after: Some(after), meddle: Some((after, LIFT)), ..Trouble::default() };
            let journey = upgrade(setup, behaviour, trouble);
            assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{about}: {:?}", journey.outcome());
            assert_way_back(&journey, &about);
            let left = journey.journal.leftovers(&journey.plan);
            for step in ["commit/push/apps", "snapshot/record", "snapshot/retain/data", "snapshot/take/data"] {
                let kept = left
                    .iter()
                    .find(|left| left.step == step)
                    .unwrap_or_else(|| panic!("{about}: {step} not in {left:#?} {:?}", journey.world.state().breaches));
                assert!(!kept.retried && kept.why.contains("the target may have run on the data"), "{about}: {kept:?}");
            }
            {
                let state = journey.world.state();
                assert_eq!(state.git.head().version, "1.1.0", "{about}: the old version comes back by a revert");
                let older = state.breaches.iter().find(|breach| breach.starts_with("1.0.0 starts"));
                assert_eq!(older, None, "{about}");
            }
            // A person chooses, and what the old version had acknowledged is there.
            let rollback = journey.roll_back(true, Trouble::default());
            assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{about}");
            assert_eq!(faults(&rollback), [""; 0], "{about}");
        }
    }
}

#[test]
fn what_is_kept_from_being_applied_stays_so_until_the_commit_is_undone_when_somebody_else_has_let_it_go() {
    let plain = Setup { declares_replicas: true, ..PLAIN };
    let steps = [(plain, "release/freeze/deployment/notes/notes"), (SUBSTITUTED, setups()[2].1)];
    for (setup, after) in steps {
        let trouble = Trouble { cancel_after: Some(after), meddle: Some((after, LIFT)), ..Trouble::default() };
        let journey = upgrade(setup, None, trouble);
        assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
        assert_eq!(journey.faults(), [""; 0], "{setup:?}");
        let ran = journey.world.state().storage.acknowledged.iter().any(|write| write.version == "1.1.0");
        assert!(!ran, "{setup:?}");
    }
}

#[test]
fn a_commit_whose_lifted_target_has_not_run_is_taken_back_and_in_doubt_the_copy_is_kept() {
    let trouble = Trouble { cancel_after: Some(NAMED), meddle: Some((NAMED, LIFT)), ..Trouble::default() };
    let journey = upgrade(RELEASE, None, trouble);
    assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
    // The template has changed to and fro: that may have been a start.
    assert_way_back(&journey, "cancelled");
    let state = journey.world.state();
    assert_eq!((state.git.head().version.as_str(), state.deployment.replicas), ("1.0.0", 2));
    assert!(state.pods.iter().all(|pod| pod.version == "1.0.0"));
}

#[test]
fn a_commit_goes_back_where_only_the_old_version_can_have_run() {
    // Lifted before anything names the target; with Online the old version runs all the time.
    let started: Meddle = |state| {
        state.own().suspend = None;
        state.deployment.replicas = 2;
    };
    let online = Setup { online: true, ..RELEASE };
    for (setup, meddle) in [(RELEASE, started), (online, LIFT)] {
        let after = "commit/push/apps";
        let trouble = Trouble { cancel_after: Some(after), meddle: Some((after, meddle)), ..Trouble::default() };
        let journey = upgrade(setup, None, trouble);
        assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{setup:?}: {:?}", journey.outcome());
        let state = journey.world.state();
        assert_eq!(state.git.head().version, "1.0.0", "{setup:?}");
        assert!(!state.storage.acknowledged.iter().any(|write| write.version == "1.1.0"), "{setup:?}");
    }
}

#[test]
fn what_waits_for_a_commit_that_stays_is_not_tried_for_ever() {
    let (setup, after) = setups()[1];
    let trouble = Trouble { cancel_after: Some(after), meddle: Some((after, LIFT)), ..Trouble::default() };
    let journey = upgrade(setup, None, trouble);
    let left = journey.journal.leftovers(&journey.plan);
    let waits = |step: &str| ["commit/carriers", "stage/", "release/freeze/"].iter().any(|verb| step.starts_with(verb));
    let retried: Vec<&str> =
        left.iter().filter(|left| left.retried && waits(&left.step)).map(|left| left.step.as_str()).collect();
    assert_eq!(retried, [""; 0]);
    assert!(left.iter().any(|left| left.step == "commit/carriers" && !left.retried), "{left:#?}");
}
