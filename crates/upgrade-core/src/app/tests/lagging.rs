//! What the delivery tool still works on, or still has in its caches, although Git and its sources show something else by now.

use jiff::SignedDuration;

use super::journeys::{SUBSTITUTED, assert_sound};
use super::world::{Behaviour, Meddle, PLAIN, RELEASE, Setup, Trouble, World};
use crate::engine::{Cause, Outcome};

const FETCHED: &str = "release/fetch/gitrepository/flux-system/apps";

fn setups() -> [Setup; 5] {
    let declared = Setup { declares_suspend: true, as_found: Some(false), declares_replicas: true, ..PLAIN };
    [PLAIN, declared, RELEASE, Setup { release: true, ..declared }, SUBSTITUTED]
}

#[test]
fn a_release_that_failed_is_not_tried_again_on_restored_data_by_a_parent_that_is_behind() {
    for setup in setups() {
        let world = World::new(setup);
        world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
        let upgrade = world.upgrade(Trouble::default());
        assert_sound(&upgrade, &format!("upgrade {setup:?}"));
        let rollback = upgrade.roll_back_unasked(Trouble::default());
        assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{setup:?}");
        assert_sound(&rollback, &format!("rollback {setup:?}"));
    }
}

#[test]
fn what_was_fetched_and_taken_back_is_not_applied_from_a_cache_when_an_upgrade_is_cancelled() {
    for setup in setups() {
        let upgrade = World::new(setup).upgrade(Trouble { cancel_after: Some(FETCHED), ..Trouble::default() });
        assert_eq!(upgrade.outcome(), &Outcome::Undone(Cause::Cancelled), "{setup:?}");
        assert_sound(&upgrade, &format!("{setup:?}"));
    }
}

#[test]
fn what_a_source_is_still_fetching_is_waited_for_when_an_upgrade_is_cancelled() {
    for setup in setups() {
        let pushed = "commit/push/apps";
        let slow: Meddle = |state| state.fetch(SignedDuration::from_secs(8));
        let cancelled = Trouble { cancel_after: Some(pushed), meddle: Some((pushed, slow)), ..Trouble::default() };
        let upgrade = World::new(setup).upgrade(cancelled);
        assert_eq!(upgrade.outcome(), &Outcome::Undone(Cause::Cancelled), "{setup:?}");
        assert_sound(&upgrade, &format!("{setup:?}"));
    }
}

#[test]
fn what_a_parent_is_still_applying_is_waited_for_when_an_upgrade_is_cancelled() {
    for setup in setups() {
        let busy: Meddle = |state| state.root_applies_what_is_fetched(SignedDuration::from_secs(3));
        let cancelled = Trouble { cancel_after: Some(FETCHED), meddle: Some((FETCHED, busy)), ..Trouble::default() };
        let upgrade = World::new(setup).upgrade(cancelled);
        assert_eq!(upgrade.outcome(), &Outcome::Undone(Cause::Cancelled), "{setup:?}");
        assert_sound(&upgrade, &format!("{setup:?}"));
    }
}
