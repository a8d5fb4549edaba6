//! The version stands in the app's own Kustomization object, whose spec something else applies: it is let go with that version, or not
//! at all.

use jiff::SignedDuration;

use super::builders::{facts, kustomization, release, release_facts, rollback, substituted_pin, upgrade_to};
use super::journeys::{SUBSTITUTED, assert_sound};
use super::world::{Behaviour, Meddle, Setup, Trouble, World};
use crate::app::facts::AppFacts;
use crate::app::preflight::{self, Verdict};
use crate::engine::Outcome;

/// Longer than a reconciliation takes, shorter than the spec is waited for.
const BUSY: Meddle = |state| state.root_is_busy(SignedDuration::from_secs(40));

#[test]
fn a_parent_that_is_slow_to_apply_the_spec_starts_no_version_that_the_data_does_not_belong_to() {
    for setup in [SUBSTITUTED, Setup { declares_replicas: false, ..SUBSTITUTED }] {
        let world = World::new(setup);
        world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
        let busy = || Trouble { meddle: Some(("commit/push/apps", BUSY)), ..Trouble::default() };
        let upgrade = world.upgrade(busy());
        assert!(matches!(upgrade.outcome(), Outcome::Failed { step, .. } if step == "verify/healthy"), "{setup:?}");
        assert_sound(&upgrade, &format!("upgrade {setup:?}"));
        let rollback = upgrade.roll_back_unasked(busy());
        assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{setup:?}");
        assert_sound(&rollback, &format!("rollback {setup:?}"));
    }
}

#[test]
fn a_run_that_a_declared_suspend_let_go_with_the_spec_of_before_is_over_before_a_workload_is_applied() {
    let setup = Setup { declares_suspend: true, as_found: Some(false), ..SUBSTITUTED };
    let world = World::new(setup);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
    let upgrade = world.upgrade(Trouble::default());
    // Its own run takes long, so that it is still at work with the version before when its spec names the one it goes back to.
    let slow: Meddle = |state| state.own_is_slow(SignedDuration::from_secs(3));
    let fetched = "release/fetch/gitrepository/flux-system/apps";
    let trouble = Trouble { meddle: Some((fetched, slow)), ..Trouble::default() };
    let rollback = upgrade.roll_back_unasked(trouble);
    assert_eq!(rollback.outcome(), &Outcome::Succeeded);
    assert_sound(&rollback, "rollback");
}

#[test]
fn a_parent_that_never_applies_the_spec_has_an_upgrade_undone() {
    let never: Meddle = |state| state.root_is_busy(SignedDuration::from_mins(3));
    let trouble = Trouble { meddle: Some(("commit/push/apps", never)), ..Trouble::default() };
    let upgrade = World::new(SUBSTITUTED).upgrade(trouble);
    assert!(matches!(upgrade.outcome(), Outcome::Undone(_)), "{:?}", upgrade.outcome());
    assert_eq!(upgrade.failure(), "deadline-exceeded");
    assert_sound(&upgrade, "undone");
}

fn codes(verdict: &Verdict) -> Vec<&str> {
    verdict.refusals.iter().map(|refusal| refusal.code.as_str()).collect()
}

/// What an upgrade and a rollback are refused for, with these facts.
fn refused(change: fn(&mut AppFacts)) -> [Vec<String>; 2] {
    let owned = |verdict: &Verdict| codes(verdict).into_iter().map(str::to_owned).collect();
    let mut before = facts();
    before.repositories[0].pins[0].pin = substituted_pin();
    before.live[0].object = kustomization("notes");
    change(&mut before);
    let (mut ask, mut after) = rollback();
    after.repositories[0].pins[0].pin = substituted_pin();
    ask.restore_point.pins[0].pin = substituted_pin();
    ask.app.pins = vec![substituted_pin()];
    change(&mut after);
    [owned(&preflight::upgrade(&upgrade_to("3.0.0"), &before)), owned(&preflight::rollback(&ask, &after))]
}

/// A release of the app that its own Kustomization applies.
fn with_a_release(facts: &mut AppFacts) {
    let mut own = release_facts().delivery.objects[1].clone();
    own.parent = Some(kustomization("notes"));
    facts.delivery.objects.push(own);
}

#[test]
fn what_would_be_let_go_before_its_version_has_come_is_refused() {
    let none: [Vec<String>; 2] = Default::default();
    assert_eq!(refused(|_| {}), none);
    let through = ["version-through-parent"].map(|code| vec![code.to_owned()]);
    let through = [through[0].clone(), through[0].clone()];
    assert_eq!(refused(with_a_release), through);
    // Also when there is one that is not the app's own between them, or when it is a Kustomization itself.
    assert_eq!(
        refused(|facts| {
            with_a_release(facts);
            let mut between = facts.delivery.objects[1].clone();
            (between.object, between.own) = (kustomization("between"), false);
            between.parent = Some(kustomization("notes"));
            facts.delivery.objects[2].parent = Some(between.object.clone());
            facts.delivery.objects.insert(2, between);
        }),
        through
    );
    assert_eq!(
        refused(|facts| {
            let mut below = facts.delivery.objects[1].clone();
            (below.object, below.parent) = (kustomization("below"), Some(kustomization("notes")));
            facts.delivery.objects.push(below);
        }),
        through
    );
    // One that names its own is waited for.
    assert_eq!(
        refused(|facts| {
            with_a_release(facts);
            let mut chart = facts.repositories[0].pins[0].clone();
            (chart.pin.component, chart.pin.object) = ("image/notes".into(), format!("HelmRelease/{}", release().name));
            chart.pin.field = "spec.values.image.tag".into();
            facts.repositories[0].pins.push(chart);
        })[0],
        [""; 0]
    );
    // Nothing would ever write the version on what nobody applies.
    let alone = refused(|facts| facts.delivery.objects[1].parent = None);
    assert_eq!(alone, [["not-from-git"].map(str::to_owned), ["not-from-git"].map(str::to_owned)]);
}
