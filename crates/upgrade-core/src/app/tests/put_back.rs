//! What was as found is put back, and what somebody has written since is left alone.

use super::builders::workload;
use super::inheriting::Ended;
use super::world::{Behaviour, Cron, Journey, PLAIN, RELEASE, Setup, Trouble, World};
use crate::app::{self, upgrade};
use crate::engine::{Outcome, StepState};
use crate::ports::ReclaimPolicy;

fn suspend(journey: &Journey) -> Option<bool> {
    journey.world.state().cron.as_ref().unwrap().suspend
}

fn upgraded(setup: Setup, declares: fn(&str) -> Option<bool>) -> Journey {
    let world = World::new(setup);
    world.state().cron = Some(Cron::new(declares));
    let journey = world.upgrade(Trouble::default());
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
    journey
}

#[test]
fn a_cron_job_ends_as_the_newest_manifest_says_and_else_as_it_was_found() {
    type Case = (fn(&str) -> Option<bool>, Option<bool>, Option<bool>);
    let cases: [Case; 5] = [
        // What its manifests say of each version, and how it ends after the upgrade and after the way back.
        (|_| None, None, None),
        (|_| Some(false), Some(false), Some(false)),
        (|version| (version == "1.1.0").then_some(true), Some(true), None),
        (|version| Some(version == "1.1.0"), Some(true), Some(false)),
        (|version| Some(version == "1.0.0"), Some(false), Some(true)),
    ];
    for setup in [PLAIN, RELEASE] {
        for (at, (declares, after, back)) in cases.into_iter().enumerate() {
            let upgrade = upgraded(setup, declares);
            assert_eq!(suspend(&upgrade), after, "case {at} of {setup:?}");
            let rollback = upgrade.roll_back(true, Trouble::default());
            assert_eq!(rollback.outcome(), &Outcome::Succeeded);
            assert_eq!(suspend(&rollback), back, "case {at} of {setup:?}, back");
        }
    }
}

#[test]
fn a_cron_job_that_a_person_has_suspended_stays_so() {
    for setup in [PLAIN, RELEASE] {
        let world = World::new(setup);
        let mut cron = Cron::new(|_| None);
        cron.write(Some(true), false);
        world.state().cron = Some(cron);
        let before = world.upgrade(Trouble::default());
        assert_eq!((before.outcome(), suspend(&before)), (&Outcome::Succeeded, Some(true)));

        let upgrade = upgraded(setup, |_| None);
        upgrade.world.state().cron.as_mut().unwrap().write(Some(true), false);
        let rollback = upgrade.roll_back(false, Trouble::default());
        assert_eq!((rollback.outcome(), suspend(&rollback)), (&Outcome::Succeeded, Some(true)));
    }
}

#[test]
fn a_cron_job_that_an_undone_upgrade_meets_running_is_left_so() {
    let world = World::new(RELEASE);
    world.state().cron = Some(Cron::new(|_| None));
    let journey = world.upgrade(Trouble {
        meddle: Some(("snapshot/record", |state| state.cron.as_mut().unwrap().write(Some(false), false))),
        ..Trouble::default()
    });
    assert!(matches!(journey.outcome(), Outcome::Undone(_)));
    assert_eq!(suspend(&journey), Some(false));
}

#[test]
fn a_reclaim_policy_that_somebody_has_set_since_an_upgrade_outlives_its_rollback() {
    let set = |journey: &Journey| {
        let mut state = journey.world.state();
        let volume = state.storage.volumes.get_mut("pv-data").unwrap();
        assert_eq!(volume.policy, ReclaimPolicy::Delete, "the upgrade has put it back");
        volume.policy = ReclaimPolicy::Retain;
    };
    for restore_data in [false, true] {
        let upgrade = World::new(RELEASE).upgrade(Trouble::default());
        set(&upgrade);
        let rollback = upgrade.roll_back(restore_data, Trouble::default());
        assert_eq!(rollback.outcome(), &Outcome::Succeeded);
        let state = rollback.world.state();
        assert_eq!(state.storage.volume_of("data").unwrap().policy, ReclaimPolicy::Retain);
    }
}

#[test]
fn what_a_failed_upgrade_had_armed_and_stopped_is_put_back_by_its_rollback() {
    let world = World::new(RELEASE);
    world.state().cron = Some(Cron::new(|_| None));
    world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
    let failed = world.upgrade(Trouble::default());
    assert!(matches!(failed.outcome(), Outcome::Failed { .. }));
    let rollback = failed.roll_back(true, Trouble::default());
    assert_eq!(rollback.outcome(), &Outcome::Succeeded);
    assert_eq!(rollback.faults(), [""; 0]);
    assert_eq!(suspend(&rollback), None);
}

#[test]
fn an_operation_leaves_to_the_next_only_what_it_has_not_put_back() {
    let left = |step: &str, state: StepState, evidence: serde_json::Value| {
        let ended =
            Ended::new(upgrade::plan(&super::builders::upgrade_to("1.1.0"), &super::builders::facts()).unwrap())
                .with("stop/deployment/notes/notes", StepState::Done, serde_json::json!({}))
                .with("protect/data", StepState::Done, serde_json::json!({}));
        let mut ended = ended;
        ended.journal.entries.retain(|entry| entry.step != step);
        let left = ended.with(step, state, evidence).operation().as_left();
        (left.workloads.len(), left.claims.len())
    };
    let nothing = serde_json::json!({});
    let stays = serde_json::json!({"stays": "Retain"});
    assert_eq!(left("verify/healthy", StepState::Failed, nothing.clone()), (1, 1));
    assert_eq!(left("release/start/deployment/notes/notes", StepState::Done, nothing.clone()), (0, 1));
    assert_eq!(left("release/start/deployment/notes/notes", StepState::Failed, nothing.clone()), (1, 1));
    assert_eq!(left("stop/deployment/notes/notes", StepState::Undone, nothing.clone()), (0, 1));
    assert_eq!(left("stop/deployment/notes/notes", StepState::Leftover, nothing.clone()), (1, 1));
    assert_eq!(left("finish/unprotect/data", StepState::Done, nothing.clone()), (1, 0));
    assert_eq!(left("finish/unprotect/data", StepState::Done, stays), (1, 1));
    assert_eq!(left("protect/data", StepState::Undone, nothing), (1, 0));
}

#[test]
fn a_restored_volume_whose_policy_was_put_back_is_not_inherited_either() {
    let (ask, facts) = super::builders::rollback();
    let seen = serde_json::json!({"volume": "pv-restored", "volumeUid": "uid-of-restored", "policy": "Delete"});
    let ended =
        Ended::new(app::rollback::plan(&ask, &facts).unwrap()).with("restore/aside/data", StepState::Done, seen);
    assert_eq!(ended.operation().as_left().claims.len(), 2);
    let ended = ended.with("finish/unprotect/data", StepState::Done, serde_json::json!({}));
    assert_eq!(ended.operation().as_left().claims, []);
}

#[test]
fn what_is_not_stopped_and_not_armed_any_more_is_as_it_is_found_now() {
    let mut first = upgrade::inputs(&super::builders::upgrade_to("1.1.0"), &super::builders::facts());
    first.workloads[0].kind = crate::ports::WorkloadKind::CronJob;
    first.workloads[0].suspend = None;
    first.claims[0].reclaim_policy = ReclaimPolicy::Retain;
    let (mut ask, mut facts) = super::builders::rollback();
    ask.inherited = vec![first];
    facts.workloads[0] =
        crate::ports::WorkloadFacts { kind: crate::ports::WorkloadKind::CronJob, replicas: 0, ..workload() };
    for (now, expected) in [(Some(true), None), (Some(false), Some(false))] {
        facts.workloads[0].suspend = now;
        assert_eq!(app::rollback::inputs(&ask, &facts).workloads[0].suspend, expected);
    }
    assert_eq!(app::rollback::inputs(&ask, &facts).claims[0].reclaim_policy, ReclaimPolicy::Delete);
}
