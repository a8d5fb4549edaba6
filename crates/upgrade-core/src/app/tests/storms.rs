//! Several things go wrong in one operation, and in the rollback that follows it: the rules hold, and it ends.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::journeys::{assert_sound, refused, setups, with_each_fault};
use super::world::{Behaviour, Fault, PLAIN, RELEASE, Setup, Trouble, World};
use crate::app::after::FollowUp;
use crate::engine::Outcome;

/// Every way of delivery, and every policy that changes what follows.
fn setup() -> impl Strategy<Value = Setup> {
    let online = [Setup { online: true, ..PLAIN }, Setup { online: true, ..RELEASE }];
    let all: Vec<Setup> = setups().into_iter().chain(online).collect();
    (prop::sample::select(all), any::<bool>()).prop_map(|(setup, always)| Setup { always, ..setup })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::CrashBefore),
        3 => Just(Fault::CrashAfter),
        3 => Just(Fault::ReplyLost),
        2 => Just(Fault::Unreachable),
        2 => Just(Fault::Refused),
        1 => Just(Fault::GuardLost),
    ]
}

/// Some close together, so that what one of them began is met by the next, and some far apart.
fn faults() -> impl Strategy<Value = Vec<(usize, Fault)>> {
    let gap = prop_oneof![2 => 0_usize..10, 1 => 0_usize..160];
    prop::collection::vec((gap, fault()), 0..=6).prop_map(|steps| {
        let mut at = 0;
        let mut place = |(gap, fault)| {
            at += gap + 1;
            (at - 1, fault)
        };
        steps.into_iter().map(&mut place).collect()
    })
}

fn cancel() -> impl Strategy<Value = Option<usize>> {
    prop::option::weighted(0.3, 0_usize..100)
}

fn behaviour() -> impl Strategy<Value = Option<Behaviour>> {
    let broken = [Behaviour::Crashes, Behaviour::NeverReady, Behaviour::BreaksLater];
    prop::option::of(prop::sample::select(broken.to_vec()))
}

#[test]
fn an_upgrade_that_is_cancelled_and_refused_anything_is_undone_all_the_same() {
    for setup in [PLAIN, RELEASE] {
        let run = |trouble| {
            World::new(setup)
                .upgrade(Trouble { cancel_after: Some("release/fetch/gitrepository/flux-system/apps"), ..trouble })
        };
        with_each_fault(&format!("cancelled {setup:?}"), refused, run, |_, journey| {
            assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
        });
    }
}

#[test]
fn a_version_whose_pods_come_by_themselves_after_its_upgrade_has_failed_is_not_left_its_data() {
    for setup in [PLAIN, RELEASE].map(|setup| Setup { declares_replicas: true, ..setup }) {
        // Until then a quota is used up, so that nobody sees a pod of it before the rollback is decided on.
        let late = |faults| Trouble {
            faults,
            meddle: Some(("commit/carriers", |state| {
                state.no_pods_until = Some(state.now + SignedDuration::from_secs(15));
            })),
            ..Trouble::default()
        };
        let calm = World::new(setup).upgrade(Trouble::default()).calls();
        let released = calm.iter().position(|call| *call == "delivery.resume").unwrap();
        let calls = calm.iter().enumerate().skip(released).filter(|(_, call)| !refused(call).is_empty());
        for (at, name) in calls {
            let upgrade = World::new(setup).upgrade(late(vec![(at, Fault::Refused)]));
            let FollowUp::RollBack { restore_data, .. } = upgrade.follow_up() else { continue };
            upgrade.world.state().pass(SignedDuration::from_secs(20));
            let rollback = upgrade.roll_back(restore_data, Trouble::default());
            assert_sound(&rollback, &format!("{setup:?}, call {at} ({name}) refused"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_goes_wrong_the_rules_hold_and_it_ends(
        setup in setup(),
        behaviour in behaviour(),
        first in (faults(), cancel()),
        second in (faults(), cancel()),
        regrets in any::<bool>(),
    ) {
        let trouble = |(faults, cancel_at)| Trouble { faults, cancel_at, ..Trouble::default() };
        let world = World::new(setup);
        if let Some(behaviour) = behaviour {
            world.state().behaviours.insert("1.1.0".into(), behaviour);
        }
        let upgrade = world.upgrade(trouble(first));
        assert_sound(&upgrade, "the upgrade");
        let broken = behaviour.is_some() && !matches!(upgrade.outcome(), Outcome::Failed { .. } | Outcome::Undone(_));
        prop_assert!(!broken, "a version that does not work is a success");
        // A person may go back from a success, and decides where the operator asks; the model's copies of a running app are
        // not all that was acknowledged, so there is nothing to compare a restore from them with.
        let restore = match upgrade.follow_up() {
            FollowUp::RollBack { restore_data, loses_writes } => Some((restore_data, restore_data && !loses_writes)),
            FollowUp::Ask { .. } => Some((true, false)),
            FollowUp::Nothing => (regrets && upgrade.outcome() == &Outcome::Succeeded).then_some((true, false)),
        };
        if let Some((restore, unasked)) = restore.filter(|_| !setup.online) {
            let trouble = trouble(second);
            let rollback =
                if unasked { upgrade.roll_back_unasked(trouble) } else { upgrade.roll_back(restore, trouble) };
            assert_sound(&rollback, "the rollback");
        }
    }
}
