//! What the delivery tool still works on, or still has in its caches, although Git and its sources show something else by now.

use jiff::SignedDuration;

use super::journeys::{assert_sound, setups};
use super::world::{Meddle, Trouble, World};
use crate::engine::{Cause, Outcome};

const FETCHED: &str = "release/fetch/gitrepository/flux-system/apps";

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
