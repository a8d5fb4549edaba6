//! Claims that are delivered with the app and that nothing mounts today: the next version may, so they are looked after, too.

use std::sync::Arc;

use super::builders::{deployment, rollback, upgrade_to, workload};
use super::world::{Behaviour, PLAIN, RELEASE, Setup, Trouble, World};
use crate::app::AppInputs;
use crate::app::facts::AppFacts;
use crate::app::preflight;
use crate::engine::{Outcome, Plan};
use crate::ports::{ObjectRef, WorkloadFacts};

/// An app with a claim that is mounted, and `archive`, which is only delivered.
fn world(setup: Setup, is_bound: bool) -> Arc<World> {
    let world = World::new(setup);
    {
        let mut state = world.state();
        state.storage.add_claim("archive", is_bound);
        state.delivered_claims = vec!["archive".into(), "data".into()];
    }
    world
}

fn claims(plan: &Plan) -> Vec<String> {
    let inputs: AppInputs = serde_json::from_value(plan.inputs.clone()).unwrap();
    inputs.claim_names()
}

fn facts(world: &World) -> AppFacts {
    world.facts(&world.spec(), None, None)
}

/// What preflight refuses and what it warns of about `archive`.
fn said(world: &World, facts: &AppFacts) -> (Vec<String>, Vec<String>) {
    let mut ask = upgrade_to("1.1.0");
    ask.app = world.spec();
    let verdict = preflight::upgrade(&ask, facts);
    let refused = verdict.refusals.into_iter().map(|refusal| refusal.code).collect();
    (refused, verdict.warnings.into_iter().filter(|warning| warning.contains("claim archive")).collect())
}

#[test]
fn one_is_protected_copied_and_restored_like_the_others() {
    for setup in [PLAIN, RELEASE] {
        let world = world(setup, true);
        world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
        let failed = world.upgrade(Trouble::default());
        assert_eq!(claims(&failed.plan), ["data", "archive"]);
        let copied: Vec<String> =
            world.state().points.values().flat_map(|point| &point.volumes).map(|one| one.claim.clone()).collect();
        assert_eq!(copied, ["data", "archive"]);
        let back = failed.roll_back(true, Trouble::default());
        assert_eq!(back.outcome(), &Outcome::Succeeded);
        assert_eq!(back.faults(), [""; 0]);
        let state = world.state();
        assert_ne!(state.storage.claims["archive"].volume.as_deref(), Some("pv-archive"), "it is on its copy");
        assert_eq!(state.replaced, ["pv-archive", "pv-data"]);
    }
}

#[test]
fn one_that_was_never_bound_stops_nothing_and_is_told() {
    let world = world(PLAIN, false);
    let facts = facts(&world);
    let (refused, warned) = said(&world, &facts);
    assert_eq!((refused.len(), warned.len()), (0, 1), "{refused:?} {warned:?}");
    assert!(warned[0].contains("never bound"), "{warned:?}");
    // Named, it is a person's wish that it is copied.
    world.state().named = vec!["data".into(), "archive".into()];
    assert_eq!(said(&world, &self::facts(&world)).0, ["claim-not-bound"]);
    world.state().named.clear();
    let journey = world.upgrade(Trouble::default());
    assert_eq!((journey.outcome(), claims(&journey.plan)), (&Outcome::Succeeded, vec!["data".to_owned()]));
}

#[test]
fn one_that_only_others_mount_is_theirs_and_is_told() {
    let world = world(PLAIN, true);
    let object = ObjectRef { name: "reports".into(), ..deployment() };
    let stranger = WorkloadFacts { object, claims: vec!["archive".into()], delivered: false, ..workload() };
    world.state().strangers = vec![stranger];
    let facts = facts(&world);
    assert_eq!(facts.claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["data"]);
    let (refused, warned) = said(&world, &facts);
    assert_eq!((refused.len(), warned.len()), (0, 1), "{refused:?} {warned:?}");
    assert!(warned[0].contains("Deployment notes/reports mounts it"), "{warned:?}");
}

#[test]
fn one_that_is_not_among_the_named_claims_is_left_alone_and_told() {
    let world = world(PLAIN, true);
    world.state().named = vec!["data".into()];
    let facts = facts(&world);
    assert_eq!(facts.claims.len(), 1);
    let (refused, warned) = said(&world, &facts);
    assert_eq!((refused.len(), warned.len()), (0, 1), "{refused:?} {warned:?}");
}

#[test]
fn one_that_cannot_be_copied_refuses_an_upgrade_and_no_rollback() {
    let world = world(PLAIN, true);
    world.state().storage.not_csi = vec!["archive".into()];
    assert_eq!(said(&world, &facts(&world)).0, ["not-csi"]);
    let (mut ask, _) = rollback();
    ask.app = world.spec();
    let facts = world.facts(&ask.app, Some(&ask.restore_point), None);
    assert_eq!(facts.claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>(), ["data"]);
    let verdict = preflight::rollback(&ask, &facts);
    assert!(!verdict.refusals.iter().any(|refusal| refusal.code == "not-csi"), "{:?}", verdict.refusals);
    assert!(verdict.warnings.iter().any(|warning| warning.contains("claim archive")), "{:?}", verdict.warnings);
    // One that the restore point has must be as it was.
    ask.restore_point.volumes[0].claim = "archive".into();
    let facts = world.facts(&ask.app, Some(&ask.restore_point), None);
    let verdict = preflight::rollback(&ask, &facts);
    assert!(verdict.refusals.iter().any(|refusal| refusal.code == "not-csi"), "{:?}", verdict.refusals);
}
