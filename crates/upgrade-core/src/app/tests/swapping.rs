//! The swap of claims when the claim comes up on a volume that nobody has chosen.

use jiff::SignedDuration;

use super::world::{Behaviour, Fault, Journey, Meddle, PLAIN, RELEASE, Setup, Trouble, World};
use crate::engine::Outcome;
use crate::ports::ReclaimPolicy;

/// An upgrade to a version that dies on start.
fn failed(setup: Setup) -> Journey {
    let world = World::new(setup);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
    world.upgrade(Trouble::default())
}

/// Its rollback, with something that somebody does right after the claim has gone.
fn roll_back(failed: &Journey, act: Meddle, faults: Vec<(usize, Fault)>) -> Journey {
    let (plan, journal) = (failed.plan.clone(), failed.journal.clone());
    let forked = Journey { world: failed.world.fork(), plan, journal };
    forked.roll_back(true, Trouble { meddle: Some(("swap/delete/data", act)), faults, ..Trouble::default() })
}

const EMPTY: Meddle = |state| state.make_claim_on_empty_volume("data");

/// The empty volumes are all there, and none would go with its claim.
fn empty_volumes(journey: &Journey) -> Vec<ReclaimPolicy> {
    let state = journey.world.state();
    let empty = state.storage.volumes.iter().filter(|(name, _)| name.starts_with("uid-empty-pv"));
    empty.map(|(_, volume)| volume.policy).collect()
}

#[test]
fn a_claim_that_came_up_on_an_empty_volume_is_made_again_on_the_restored_one() {
    for setup in [PLAIN, RELEASE] {
        let journey = roll_back(&failed(setup), EMPTY, Vec::new());
        assert_eq!(journey.outcome(), &Outcome::Succeeded);
        assert_eq!(journey.faults(), [""; 0]);
        assert_eq!(empty_volumes(&journey), [ReclaimPolicy::Retain], "somebody may have put something on it");
    }
}

#[test]
fn that_survives_a_crash_before_and_after_every_call() {
    let failed = failed(RELEASE);
    let calm = roll_back(&failed, EMPTY, Vec::new());
    let calls = calm.calls();
    let from = calls.iter().position(|call| *call == "volumes.reserve").unwrap();
    for (at, call) in calls.iter().enumerate().skip(from) {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ReplyLost] {
            if *call == "journal.load" || (fault == Fault::ReplyLost && call.starts_with("journal")) {
                continue;
            }
            let journey = roll_back(&failed, EMPTY, vec![(at, fault)]);
            assert_eq!(journey.end(), calm.end(), "{fault:?} of call {at} ({call})");
            assert_eq!(journey.faults(), [""; 0], "{fault:?} of call {at} ({call})");
        }
    }
}

#[test]
fn a_claim_on_an_empty_volume_is_not_touched_while_somebody_uses_it() {
    let journey = roll_back(
        &failed(RELEASE),
        |state| {
            state.make_claim_on_empty_volume("data");
            state.unmounts_at = Some(state.now + SignedDuration::from_secs(60));
        },
        Vec::new(),
    );
    assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
    assert_eq!(journey.failure(), "started-since-cut");
    assert_eq!(empty_volumes(&journey), [ReclaimPolicy::Delete], "it is not touched");
    let dropped = journey.calls().into_iter().filter(|call| *call == "volumes.drop_claim").count();
    assert_eq!(dropped, 2, "the helper and the original");
}

#[test]
fn a_claim_on_an_empty_volume_stays_once_the_suspension_is_not_ours() {
    let journey = roll_back(
        &failed(RELEASE),
        |state| {
            state.make_claim_on_empty_volume("data");
            state.own().held_by = Some("another".into());
        },
        Vec::new(),
    );
    assert_eq!(journey.failure(), "hold-lost");
    assert!(journey.world.state().breaches.is_empty(), "{:?}", journey.world.state().breaches);
}

#[test]
fn a_claim_that_names_a_volume_and_is_not_bound_yet_is_waited_for() {
    let unbound: Meddle = |state| {
        state.make_claim_on_empty_volume("data");
        for (name, volume) in &mut state.storage.volumes {
            if name.starts_with("uid-empty-pv") {
                volume.claim = None;
            }
        }
    };
    let journey = roll_back(&failed(RELEASE), unbound, Vec::new());
    assert_eq!(journey.failure(), "deadline-exceeded");
    assert_eq!(empty_volumes(&journey), [ReclaimPolicy::Delete], "it is not touched");
}

#[test]
fn a_claim_that_somebody_makes_anew_all_the_time_ends_at_the_deadline_and_loses_nothing() {
    fn again(state: &mut super::world::State) {
        // As soon as the name is free, which it is a moment after the claim was told to go.
        state.pass(SignedDuration::from_millis(100));
        state.make_claim_on_empty_volume("data");
        state.after = Some(("volumes.drop_claim", again));
    }
    let journey = roll_back(&failed(RELEASE), again, Vec::new());
    assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
    assert_eq!(journey.failure(), "deadline-exceeded");
    let state = journey.world.state();
    assert!(state.storage.volumes.contains_key("pv-data"));
    assert!(state.breaches.is_empty(), "{:?}", state.breaches);
}
