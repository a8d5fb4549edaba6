//! Whole upgrades and rollbacks in the model: undisturbed, and with one port call after the other going wrong.

use jiff::SignedDuration;

use super::world::{Behaviour, Fault, Journey, PLAIN, RELEASE, Setup, Trouble, World};
use crate::app::after::FollowUp;
use crate::engine::{Cause, Outcome};
use crate::ports::HealthReport;

/// Git declares `suspend: false` of the app's own object.
const DECLARED: Setup = Setup { declares_suspend: true, as_found: Some(false), ..PLAIN };

/// The app's own Kustomization carries the version, and its manifests say how many replicas there are.
pub(super) const SUBSTITUTED: Setup = Setup { substitutes: true, declares_replicas: true, ..PLAIN };

/// Every way of delivery that changes the order of things.
pub(super) fn setups() -> Vec<Setup> {
    vec![
        PLAIN,
        Setup { declares_replicas: true, as_found: Some(false), ..PLAIN },
        DECLARED,
        RELEASE,
        Setup { bootstrap: true, ..PLAIN },
        Setup { bootstrap: true, ..RELEASE },
        Setup { release: true, declares_replicas: true, ..DECLARED },
        SUBSTITUTED,
        Setup { substitutes: true, ..PLAIN },
        Setup { substitutes: true, declares_replicas: true, ..DECLARED },
    ]
}

pub(super) fn assert_sound(journey: &Journey, about: &str) {
    let faults = journey.faults();
    assert!(faults.is_empty(), "{about}: {faults:#?}\noutcome {:?}\n{:#?}", journey.outcome(), journey.calls());
}

/// An upgrade to a version that dies on start, after which the rollback is due.
fn failed(setup: Setup) -> Journey {
    let world = World::new(setup);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
    world.upgrade(Trouble::default())
}

#[test]
fn an_upgrade_ends_with_the_new_version_and_everything_as_found() {
    for setup in setups().into_iter().chain([Setup { online: true, ..PLAIN }, Setup { online: true, ..RELEASE }]) {
        let journey = World::new(setup).upgrade(Trouble::default());
        assert_eq!(journey.outcome(), &Outcome::Succeeded, "{setup:?}");
        assert_sound(&journey, &format!("{setup:?}"));
        assert_eq!(journey.follow_up(), FollowUp::Nothing);
    }
}

#[test]
fn a_workload_that_the_target_adds_must_be_healthy_too() {
    for setup in [PLAIN, RELEASE] {
        for (report, code) in [
            (HealthReport::Healthy { evidence: String::new(), restarted: None }, None),
            (HealthReport::Broken("the worker crashes".into()), Some("unhealthy")),
            (HealthReport::Waiting("the worker is not ready".into()), Some("deadline")),
        ] {
            let world = World::new(setup);
            world.state().worker = Some(report);
            let journey = world.upgrade(Trouble::default());
            match (code, journey.outcome()) {
                (None, Outcome::Succeeded) => {}
                (Some(code), Outcome::Failed { step, failure }) => {
                    assert_eq!(step, "verify/healthy");
                    assert!(failure.code.contains(code), "{failure:?}");
                }
                (_, outcome) => panic!("{outcome:?}"),
            }
        }
    }
}

#[test]
fn commits_are_written_as_the_template_says_and_reverts_name_them() {
    let world = World::new(RELEASE);
    world.state().template = Some("{app}: {components} {from} to {to}\n\nFor {request}".into());
    let upgrade = world.upgrade(Trouble { cancel_after: Some("commit/push/apps"), ..Trouble::default() });
    assert_sound(&upgrade, "with a template");
    let messages: Vec<String> = world.state().git.commits.iter().map(|commit| commit.message.clone()).collect();
    assert_eq!(messages[1], "notes: image/notes 1.0.0 to 1.1.0\n\nFor notes-1");
    assert_eq!(messages[2], "Revert \"notes: image/notes 1.0.0 to 1.1.0\"");
}

#[test]
fn a_version_that_never_served_is_rolled_back_with_its_data() {
    for setup in setups() {
        for behaviour in [Behaviour::Crashes, Behaviour::NeverReady] {
            let world = World::new(setup);
            world.state().behaviours.insert("1.1.0".into(), behaviour);
            let upgrade = world.upgrade(Trouble::default());
            assert!(matches!(upgrade.outcome(), Outcome::Failed { .. }), "{setup:?} {:?}", upgrade.outcome());
            assert_sound(&upgrade, &format!("{setup:?}"));
            assert_eq!(upgrade.follow_up(), FollowUp::RollBack { restore_data: true, loses_writes: false });
            let rollback = upgrade.roll_back_unasked(Trouble::default());
            assert_eq!(rollback.outcome(), &Outcome::Succeeded, "{setup:?}");
            assert_sound(&rollback, &format!("{setup:?} {behaviour:?}"));
            let state = world.state();
            assert_eq!(state.blocked.iter().map(|one| one.version.as_str()).collect::<Vec<_>>(), ["1.1.0"]);
            assert_eq!(state.replaced, ["pv-data"]);
            assert!(state.storage.volumes.contains_key("pv-data"), "what was replaced is kept");
        }
    }
}

#[test]
fn a_version_that_served_and_broke_asks_first() {
    let world = World::new(RELEASE);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::BreaksLater);
    let upgrade = world.upgrade(Trouble::default());
    assert!(matches!(upgrade.outcome(), Outcome::Failed { step, .. } if step.starts_with("verify/")));
    assert_sound(&upgrade, "served and broke");
    assert!(matches!(upgrade.follow_up(), FollowUp::Ask { .. }));
}

#[test]
fn a_version_that_has_soaked_stays_when_its_app_is_gone_at_the_end() {
    let run = |trouble| World::new(Setup { always: true, ..PLAIN }).upgrade(trouble);
    let last = run(Trouble::default()).calls().iter().position(|call| *call == "apps.set_current").unwrap();
    let journey = run(Trouble { faults: vec![(last, Fault::Refused)], ..Trouble::default() });
    assert!(matches!(journey.outcome(), Outcome::Failed { step, .. } if step == "finish/record"));
    assert!(matches!(journey.follow_up(), FollowUp::Ask { .. }), "{:?}", journey.follow_up());
}

#[test]
fn a_person_can_go_back_from_a_success_with_the_data_or_without() {
    for setup in [PLAIN, RELEASE] {
        let upgrade = World::new(setup).upgrade(Trouble::default());
        let world = upgrade.world.fork();
        let again = Journey { world, plan: upgrade.plan.clone(), journal: upgrade.journal.clone() };
        let restored = upgrade.roll_back(true, Trouble::default());
        assert_eq!(restored.outcome(), &Outcome::Succeeded);
        assert_sound(&restored, "with data");
        let kept = again.roll_back(false, Trouble::default());
        assert_eq!(kept.outcome(), &Outcome::Succeeded);
        assert_eq!(kept.world.state().storage.volumes.len(), 1, "no volume was touched");
        assert!(kept.world.state().breaches.iter().all(|breach| breach.starts_with("1.0.0 starts on data of")));
    }
}

/// Runs the operation once for each port call and each fault that makes a difference there.
pub(super) fn with_each_fault(
    about: &str,
    faults: fn(&str) -> &'static [Fault],
    run: impl Fn(Trouble) -> Journey,
    ends: impl Fn(&Journey, &Journey),
) {
    let calm = run(Trouble::default());
    assert_sound(&calm, about);
    for (at, name) in calm.calls().into_iter().enumerate() {
        for fault in faults(name) {
            let journey = run(Trouble { faults: vec![(at, *fault)], ..Trouble::default() });
            let about = format!("{about}, {fault:?} of call {at} ({name})");
            assert_sound(&journey, &about);
            ends(&calm, &journey);
        }
    }
}

/// What passes: a crash before a read is one after the write before it, so reads only fail.
fn passing(call: &str) -> &'static [Fault] {
    match call {
        "journal.load" => &[],
        "journal.save" => &[Fault::CrashBefore, Fault::CrashAfter],
        call if READS.contains(&call) => &[Fault::Unreachable],
        _ => &[Fault::CrashBefore, Fault::CrashAfter, Fault::Unreachable, Fault::ReplyLost],
    }
}

const READS: [&str; 17] = [
    "delivery.suspension",
    "delivery.carriers",
    "delivery.attempted",
    "delivery.is_frozen",
    "delivery.template",
    "delivery.applied",
    "git.head",
    "git.pins",
    "git.find",
    "git.ancestry",
    "volumes.snapshot_state",
    "volumes.claim",
    "volumes.volume",
    "workloads.find",
    "workloads.state",
    "workloads.holders",
    "workloads.pods",
];

fn same_end(calm: &Journey, journey: &Journey) {
    assert_eq!(calm.end(), journey.end());
}

#[test]
fn an_upgrade_survives_a_crash_before_and_after_every_call() {
    for setup in [PLAIN, Setup { release: true, ..DECLARED }] {
        let about = format!("upgrade {setup:?}");
        with_each_fault(&about, passing, |trouble| World::new(setup).upgrade(trouble), same_end);
    }
}

#[test]
fn a_rollback_survives_a_crash_before_and_after_every_call() {
    for setup in [PLAIN, RELEASE] {
        let failed = failed(setup);
        let run = |trouble| {
            let (plan, journal) = (failed.plan.clone(), failed.journal.clone());
            Journey { world: failed.world.fork(), plan, journal }.roll_back_unasked(trouble)
        };
        with_each_fault(&format!("rollback {setup:?}"), passing, run, same_end);
    }
}

/// What does not pass: the API refuses for good.
pub(super) fn refused(call: &str) -> &'static [Fault] {
    if call.starts_with("journal.") { &[] } else { &[Fault::Refused] }
}

#[test]
fn an_upgrade_that_is_refused_anything_is_undone_or_ends_consistently() {
    for setup in [PLAIN, RELEASE] {
        let run = |trouble| World::new(setup).upgrade(trouble);
        with_each_fault(&format!("upgrade {setup:?}"), refused, run, |_, journey| {
            if matches!(journey.outcome(), Outcome::Failed { .. }) {
                let FollowUp::RollBack { restore_data, .. } = journey.follow_up() else { return };
                let rollback = journey.roll_back(restore_data, Trouble::default());
                assert_eq!(rollback.outcome(), &Outcome::Succeeded);
                assert_sound(&rollback, "the rollback of it");
            }
        });
    }
}

#[test]
fn an_upgrade_can_be_cancelled_after_every_step() {
    for setup in setups() {
        let calm = World::new(setup).upgrade(Trouble::default());
        for step in &calm.plan.steps {
            let id: &'static str = Box::leak(step.id.clone().into_boxed_str());
            let journey = World::new(setup).upgrade(Trouble { cancel_after: Some(id), ..Trouble::default() });
            assert_sound(&journey, &format!("{setup:?} cancelled after {id}"));
            let passed = journey.journal.irrevocable(&journey.plan);
            let expected = if passed { Outcome::Succeeded } else { Outcome::Undone(Cause::Cancelled) };
            assert_eq!(journey.outcome(), &expected, "{setup:?} cancelled after {id}");
        }
    }
}

#[test]
fn nothing_starts_while_the_app_is_held() {
    let world = World::new(PLAIN);
    let journey = world.upgrade(Trouble {
        // Long enough for every interval of the model to be over.
        meddle: Some(("snapshot/record", |state| state.pass(SignedDuration::from_secs(90)))),
        ..Trouble::default()
    });
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
    assert_sound(&journey, "a long pause");
}

#[test]
fn a_parent_that_lets_go_of_the_app_at_once_is_no_surprise() {
    for setup in [Setup { release: true, ..DECLARED }, DECLARED] {
        let journey = World::new(setup).upgrade(Trouble {
            meddle: Some(("release/resume/kustomization/flux-system/root", |state| {
                state.pass(SignedDuration::from_secs(5));
            })),
            ..Trouble::default()
        });
        assert_eq!(journey.outcome(), &Outcome::Succeeded, "{setup:?}");
        assert_sound(&journey, &format!("{setup:?}"));
    }
}
