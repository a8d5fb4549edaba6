//! Somebody else changes the world in the middle of an operation: what rested on it is not done, and nothing is lost.

use jiff::SignedDuration;

use super::world::{Behaviour, Journey, Meddle, PLAIN, RELEASE, Setup, State, Trouble, World};
use crate::app::after::FollowUp;
use crate::engine::{Cause, Outcome};
use crate::ports::ReclaimPolicy;

pub(super) fn upgrade(setup: Setup, after: &'static str, act: Meddle) -> Journey {
    World::new(setup).upgrade(Trouble { meddle: Some((after, act)), ..Trouble::default() })
}

/// The rollback of an upgrade to a version that dies on start.
pub(super) fn rollback(setup: Setup, after: &'static str, act: Meddle) -> Journey {
    let world = World::new(setup);
    world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
    let failed = world.upgrade(Trouble::default());
    failed.roll_back(true, Trouble { meddle: Some((after, act)), ..Trouble::default() })
}

/// Sound, apart from what the meddling itself broke.
fn assert_sound_but(journey: &Journey, meddled: &str) {
    let mut faults = journey.faults();
    faults.retain(|fault| meddled.is_empty() || !fault.contains(meddled));
    assert!(faults.is_empty(), "{faults:#?}\n{:?}", journey.outcome());
}

pub(super) fn assert_undone(journey: &Journey, code: &str) {
    assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
    assert_eq!(journey.failure(), code);
}

pub(super) fn committed(journey: &Journey) -> bool {
    journey.calls().contains(&"git.commit")
}

#[test]
fn nothing_is_committed_once_the_suspension_is_not_ours() {
    for setup in [PLAIN, RELEASE] {
        let resumed = upgrade(setup, "snapshot/record", |state| state.own().suspend = None);
        assert_undone(&resumed, "hold-lost");
        assert!(!committed(&resumed));
        assert_sound_but(&resumed, "");
        let taken = upgrade(setup, "snapshot/record", |state| state.own().held_by = Some("another".into()));
        assert_undone(&taken, "hold-lost");
        assert!(!committed(&taken));
        let replaced = upgrade(setup, "snapshot/record", |state| state.own().uid = "another".into());
        assert_undone(&replaced, "hold-lost");
        assert!(!committed(&replaced));
    }
}

#[test]
fn a_barrier_whose_token_somebody_else_overwrote_is_asked_for_again() {
    for setup in [PLAIN, RELEASE] {
        let world = World::new(setup);
        world.state().after = Some(("delivery.suspend", |state| state.own().requested = "by hand".into()));
        let journey = world.upgrade(Trouble::default());
        assert_eq!(journey.outcome(), &Outcome::Succeeded);
        let suspended = journey.calls().into_iter().filter(|call| *call == "delivery.suspend").count();
        assert_eq!(suspended, 2, "once more, and not all the time");
        assert_sound_but(&journey, "");
    }
}

#[test]
fn a_snapshot_that_is_another_one_by_now_is_not_restored() {
    let changes: [Meddle; 3] = [
        |state| state.storage.snapshots.values_mut().for_each(|snapshot| snapshot.uid = "another".into()),
        |state| state.storage.snapshots.values_mut().for_each(|snapshot| snapshot.cut_at = Some(state.now)),
        |state| state.storage.snapshots.clear(),
    ];
    for change in changes {
        let before = rollback(PLAIN, "protect/data", change);
        assert!(matches!(before.outcome(), Outcome::Undone(_)), "{:?}", before.outcome());
        assert!(before.failure().starts_with("snapshot-"), "{}", before.failure());
        assert!(!before.calls().contains(&"volumes.restore_aside"));

        let world = World::new(PLAIN);
        world.state().behaviours.insert("1.1.0".into(), Behaviour::Crashes);
        let failed = world.upgrade(Trouble::default());
        world.state().after = Some(("volumes.restore_aside", change));
        let during = failed.roll_back(true, Trouble::default());
        assert!(matches!(during.outcome(), Outcome::Undone(_)), "{:?}", during.outcome());
        assert!(during.failure().starts_with("snapshot-"), "{}", during.failure());
        assert!(
            !during.calls().contains(&"volumes.drop_claim") || during.world.state().storage.claims.contains_key("data")
        );
    }
}

#[test]
fn nothing_is_committed_once_something_ran_on_the_data() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "snapshot/record", |state| state.deployment.replicas = 2);
        assert_undone(&journey, "started-since-cut");
        assert!(!committed(&journey));
        assert_sound_but(&journey, "the restore point is not void");
    }
}

/// Somebody starts the app, which serves for a moment, and stops it again.
fn starts_and_stops(state: &mut State) {
    state.scale(1);
    state.pass(SignedDuration::from_secs(1));
    state.scale(0);
    state.pass(SignedDuration::from_secs(2));
}

#[test]
fn nothing_is_committed_once_something_ran_and_stopped_again_since_the_cut() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "snapshot/record", starts_and_stops);
        assert_undone(&journey, "started-since-cut");
        assert!(!committed(&journey));
        assert_sound_but(&journey, "the restore point is not void");
        let committed = upgrade(setup, "release/fetch/gitrepository/flux-system/apps", starts_and_stops);
        assert_undone(&committed, "started-since-cut");
        assert_sound_but(&committed, "the restore point is not void");
    }
}

#[test]
fn one_change_of_a_stopped_workload_by_somebody_else_beside_our_own_mark_is_no_start() {
    let annotates: Meddle = |state| state.deployment.revision += 1;
    for setup in [PLAIN, RELEASE] {
        assert_eq!(upgrade(setup, "snapshot/record", annotates).outcome(), &Outcome::Succeeded);
        assert_eq!(rollback(setup, "swap/delete/data", annotates).outcome(), &Outcome::Succeeded);
    }
}

#[test]
fn a_pod_of_anybody_on_the_claim_stops_the_commit() {
    let journey = upgrade(PLAIN, "snapshot/record", |state| {
        state.unmounts_at = Some(state.now + SignedDuration::from_secs(60));
    });
    assert_undone(&journey, "started-since-cut");
    assert!(!committed(&journey));
}

#[test]
fn nothing_is_committed_once_the_claim_is_another_one() {
    let journey = upgrade(PLAIN, "snapshot/record", |state| {
        state.storage.claims.get_mut("data").unwrap().volume = Some("pv-other".into());
    });
    assert_undone(&journey, "claim-changed");
    assert!(!committed(&journey));
}

#[test]
fn nothing_is_released_once_something_ran_on_the_data_and_the_commit_is_taken_back() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "release/fetch/gitrepository/flux-system/apps", |state| {
            state.deployment.replicas = 2;
        });
        assert_undone(&journey, "started-since-cut");
        assert_eq!(journey.world.state().git.commits.len(), 3, "one bump, one revert");
        assert_sound_but(&journey, "the restore point is not void");
    }
}

#[test]
fn nothing_is_released_once_the_suspension_is_not_ours() {
    let journey = upgrade(RELEASE, "release/fetch/gitrepository/flux-system/apps", |state| {
        state.own().held_by = Some("another".into());
    });
    assert_undone(&journey, "hold-lost");
}

#[test]
fn a_value_that_somebody_else_commits_first_wins() {
    let journey = upgrade(PLAIN, "snapshot/record", |state| state.git.push("1.2.0", None, "Mine"));
    assert_undone(&journey, "superseded");
    assert_eq!(journey.world.state().git.head().message, "Mine");
}

#[test]
fn a_value_that_somebody_else_commits_on_top_is_not_released_by_us() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "commit/push/apps", |state| state.git.push("1.2.0", None, "Mine"));
        assert_undone(&journey, "superseded");
        let state = journey.world.state();
        assert_eq!(state.git.head().message, "Mine", "their commit is not reverted");
        let ran = state.storage.acknowledged.iter().any(|write| write.version == "1.1.0");
        assert!(!ran, "the superseded version never ran");
    }
}

#[test]
fn a_version_that_is_superseded_after_its_release_is_left_to_a_person() {
    for setup in [PLAIN, RELEASE] {
        let last = if setup.release {
            "release/resume/helmrelease/notes/notes"
        } else {
            "release/start/deployment/notes/notes"
        };
        let world = World::new(setup);
        world.state().behaviours.insert("1.1.0".into(), Behaviour::NeverReady);
        world.state().behaviours.insert("1.2.0".into(), Behaviour::NeverReady);
        let journey = world.upgrade(Trouble {
            meddle: Some((last, |state| state.git.push("1.2.0", None, "Mine"))),
            ..Trouble::default()
        });
        assert!(matches!(journey.outcome(), Outcome::Failed { .. }));
        assert_eq!(journey.failure(), "superseded");
        assert!(matches!(journey.follow_up(), FollowUp::Ask { .. }));
    }
}

#[test]
fn a_history_that_cannot_be_told_is_waited_for_and_never_believed() {
    let journey = upgrade(PLAIN, "commit/push/apps", |state| {
        state.git.shallow = true;
        state.git.push("1.1.0", None, "A neighbour's change");
    });
    assert_undone(&journey, "deadline-exceeded");
    assert_sound_but(&journey, "");
}

#[test]
fn a_snapshot_that_does_not_belong_to_its_content_is_no_restore_point() {
    let journey = upgrade(PLAIN, "snapshot/take/data", |state| {
        for snapshot in state.storage.snapshots.values_mut() {
            snapshot.mismatch = Some("its content names another snapshot".into());
        }
    });
    assert_undone(&journey, "snapshot-mismatch");
    assert!(!committed(&journey));
    assert_sound_but(&journey, "");
}

#[test]
fn a_suspension_by_others_is_left_as_it_is() {
    let journey = upgrade(PLAIN, "", |state| state.own().suspend = Some(true));
    assert_undone(&journey, "suspended-by-others");
    assert!(!journey.calls().contains(&"workloads.stop"));
    assert_eq!(journey.world.state().objects[1].suspend, Some(true));
}

#[test]
fn a_hold_of_another_operation_is_waited_for() {
    let journey = upgrade(PLAIN, "", |state| {
        state.own().suspend = Some(true);
        state.own().held_by = Some("another".into());
    });
    assert_undone(&journey, "held-by-other-operation");
    let state = journey.world.state();
    assert!(!state.calls.contains(&"workloads.stop"));
    assert_eq!(state.objects[1].held_by.as_deref(), Some("another"));
}

#[test]
fn an_interruption_starts_the_soak_again() {
    let journey = World::new(PLAIN).upgrade(Trouble {
        // The soak has noted a healthy beginning by then, and looks once a second.
        meddle: Some(("verify/healthy", |state| {
            state.interrupt_in = Some(state.now + SignedDuration::from_millis(1500));
            state.no_pods_until = Some(state.now + SignedDuration::from_millis(3500));
        })),
        ..Trouble::default()
    });
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
    assert_sound_but(&journey, "");
}

#[test]
fn a_container_that_is_back_before_the_next_look_starts_the_soak_again_too() {
    let journey = World::new(PLAIN).upgrade(Trouble {
        meddle: Some(("verify/healthy", |state| {
            state.restart_in = Some(state.now + SignedDuration::from_millis(1500));
        })),
        ..Trouble::default()
    });
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
    assert!(journey.world.state().restarted.is_some());
    assert_sound_but(&journey, "");
}

#[test]
fn while_git_cannot_be_reached_nothing_is_let_go_and_it_heals_by_itself() {
    for setup in [PLAIN, RELEASE] {
        let journey = World::new(setup).upgrade(Trouble {
            cancel_after: Some("commit/push/apps"),
            meddle: Some(("commit/push/apps", |state| {
                state.git.down_until = Some(state.now + SignedDuration::from_secs(120));
            })),
            ..Trouble::default()
        });
        assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
        assert_sound_but(&journey, "");
        assert!(journey.world.state().now.duration_since(journey.journal.started_at).as_secs() > 120);
        let gave_up = journey.journal.finished_at.unwrap().duration_since(journey.journal.started_at).as_secs();
        assert!(gave_up < 120, "the app ran again before Git could be reached: {gave_up} s");
    }
}

#[test]
fn a_push_that_lands_after_it_was_given_up_is_reverted_before_anything_is_let_go() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "commit/carriers", |state| {
            state.git.hooks_take = Some(SignedDuration::from_secs(240));
            // Only the push is slow, and its revert is not.
            state.after = Some(("workloads.start", |state| state.git.hooks_take = None));
        });
        assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
        journey.world.state().pass(SignedDuration::from_secs(300));
        let keys: Vec<_> = journey.world.state().git.commits.iter().filter_map(|one| one.key.clone()).collect();
        assert_eq!(keys, ["0f1e2d3c-op", "0f1e2d3c-op/revert"]);
        assert_sound_but(&journey, "");
        assert!(journey.world.state().pods.iter().all(|pod| pod.version == "1.0.0"));
        let gave_up = journey.journal.finished_at.unwrap().duration_since(journey.journal.started_at).as_secs();
        assert!(gave_up < 240, "the operation had ended before: {gave_up} s");
    }
}

#[test]
fn a_push_that_never_lands_does_not_keep_the_app_suspended_for_ever() {
    let journey = upgrade(PLAIN, "commit/carriers", |state| {
        state.git.hooks_take = Some(SignedDuration::from_hours(100));
    });
    assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
    assert_sound_but(&journey, "");
    assert_eq!(journey.world.state().git.commits.len(), 1);
    let waited = journey.world.state().now.duration_since(journey.journal.finished_at.unwrap());
    assert!(waited.as_secs() >= 300, "{waited}");
}

#[test]
fn no_claim_is_deleted_while_a_copy_could_be_lost() {
    let cases: [(&str, Meddle, &str); 5] = [
        ("swap/reserve/data", |state| set_policy(state, "pv-data"), "not-retained"),
        ("swap/reserve/data", |state| set_policy(state, "uid-pv"), "not-retained"),
        ("swap/reserve/data", |state| state.deployment.replicas = 1, "started-since-cut"),
        ("swap/reserve/data", starts_and_stops, "started-since-cut"),
        ("swap/reserve/data", |state| state.own().suspend = None, "hold-lost"),
    ];
    for (after, act, code) in cases {
        let journey = rollback(RELEASE, after, act);
        assert_undone(&journey, code);
        assert!(!journey.calls().contains(&"volumes.recreate"), "{code}");
        let state = journey.world.state();
        assert_eq!(state.storage.claims["data"].volume.as_deref(), Some("pv-data"), "{code}");
    }
}

fn set_policy(state: &mut State, prefix: &str) {
    for (name, volume) in &mut state.storage.volumes {
        if name.starts_with(prefix) {
            volume.policy = ReclaimPolicy::Delete;
        }
    }
}

#[test]
fn only_an_undone_upgrade_says_that_its_copies_do_not_hold_everything() {
    let hint = |journey: &Journey| match journey.outcome() {
        Outcome::Undone(Cause::StepFailed { failure, .. }) => failure.hint.clone(),
        outcome => panic!("{outcome:?}"),
    };
    let upgraded = upgrade(PLAIN, "snapshot/record", |state| state.own().suspend = None);
    assert_eq!(
        hint(&upgraded),
        "find out who resumed it; the copies of this operation do not hold everything any more"
    );
    let lifted = rollback(RELEASE, "swap/reserve/data", |state| state.own().suspend = None);
    assert_eq!(hint(&lifted), "find out who resumed it; its restore point stays");
    let started = rollback(RELEASE, "swap/reserve/data", |state| state.deployment.replicas = 1);
    assert_eq!(hint(&started), "find out who started it; its restore point stays");
}

#[test]
fn a_helper_claim_does_not_go_before_its_volume_is_kept() {
    let journey = rollback(RELEASE, "stop/wait", |state| set_policy(state, "uid-pv"));
    assert_undone(&journey, "not-retained");
}

#[test]
fn a_rollback_never_goes_on_with_a_claim_on_another_volume() {
    let journey = rollback(RELEASE, "swap/delete/data", |state| {
        state.make_claim("data", Some("pv-data"), None, "somebody");
    });
    assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
    assert_eq!(journey.failure(), "claim-on-other-volume");
    assert!(!committed(&journey));
    assert!(journey.world.state().storage.volumes.len() >= 2, "both volumes are still there");
}

#[test]
fn a_workload_that_somebody_scaled_up_stops_the_commit_before_it_has_a_pod() {
    let journey = upgrade(PLAIN, "snapshot/record", |state| {
        state.no_pods_until = Some(state.now + SignedDuration::from_secs(2));
        state.deployment.replicas = 2;
    });
    assert_undone(&journey, "started-since-cut");
    assert!(!committed(&journey));
    assert_sound_but(&journey, "");
}

#[test]
fn what_an_artifact_still_shows_is_not_let_go() {
    for setup in [PLAIN, RELEASE] {
        let fetched = "release/fetch/gitrepository/flux-system/apps";
        let journey = World::new(setup).upgrade(Trouble {
            cancel_after: Some(fetched),
            meddle: Some((fetched, |state| {
                state.git.down_until = Some(state.now + SignedDuration::from_secs(120));
            })),
            ..Trouble::default()
        });
        assert!(matches!(journey.outcome(), Outcome::Undone(_)), "{:?}", journey.outcome());
        assert_sound_but(&journey, "");
    }
}

#[test]
fn a_release_that_cannot_be_shown_to_hold_our_commit_is_no_success() {
    let journey = upgrade(PLAIN, "release/start/deployment/notes/notes", |state| {
        state.git.shallow = true;
        state.git.push("1.1.0", None, "A neighbour's change");
        state.pass(SignedDuration::from_secs(12));
    });
    assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
    assert_eq!(journey.failure(), "deadline-exceeded");
}

#[test]
fn a_delivery_that_somebody_stopped_is_no_success_however_healthy_the_app_is() {
    for setup in [PLAIN, RELEASE] {
        let journey = upgrade(setup, "release/start/deployment/notes/notes", |state| state.own().suspend = Some(true));
        assert!(matches!(journey.outcome(), Outcome::Failed { .. }), "{:?}", journey.outcome());
        assert_eq!(journey.failure(), "deadline-exceeded");
    }
}

#[test]
fn a_copy_that_is_the_original_itself_is_not_restored() {
    let journey = rollback(RELEASE, "protect/data", |state| state.storage.copies_nothing = true);
    assert_undone(&journey, "restored-onto-original");
    assert_eq!(journey.world.state().storage.claims["data"].volume.as_deref(), Some("pv-data"));
}

#[test]
fn a_snapshot_that_is_never_ready_is_waited_for_and_nothing_is_committed() {
    let journey = upgrade(PLAIN, "snapshot/take/data", |state| state.storage.never_ready = true);
    assert_undone(&journey, "deadline-exceeded");
    assert!(!committed(&journey));
    assert_sound_but(&journey, "");
}

#[test]
fn an_undo_does_not_start_a_version_that_the_data_does_not_belong_to() {
    let journey = World::new(PLAIN).upgrade(Trouble {
        cancel_after: Some("snapshot/record"),
        meddle: Some(("snapshot/record", |state| {
            state.deployment.version = "1.2.0".into();
            state.deployment.frozen = true;
        })),
        ..Trouble::default()
    });
    assert!(matches!(journey.outcome(), Outcome::Undone(_)));
    assert!(journey.journal.leftovers(&journey.plan).iter().any(|left| left.what.contains("stopped")));
    let state = journey.world.state();
    let data = state.storage.volume_of("data").unwrap();
    assert!(data.data.iter().chain(&data.dirty).all(|write| write.version == "1.0.0"), "1.2.0 ran");
}

#[test]
fn replicas_go_back_only_on_the_very_object_whose_template_was_looked_at() {
    // Somebody changes the template between the last look and the write: seen to be the target, judged again, looked at.
    fn looked(state: &mut State) {
        let is_target = state.deployment.version == "1.1.0" && !state.deployment.frozen;
        state.after = Some(if is_target { ("workloads.state", judged) } else { ("delivery.template", looked) });
    }
    fn judged(state: &mut State) {
        state.after = Some(("delivery.template", looked_again));
    }
    fn looked_again(state: &mut State) {
        state.deployment.frozen = true;
        state.deployment.version = "1.2.0".into();
        state.deployment.revision += 1;
    }
    let journey = upgrade(PLAIN, "release/unfreeze/deployment/notes/notes", looked);
    assert!(matches!(journey.outcome(), Outcome::Failed { step, .. } if step.starts_with("release/start")));
    let state = journey.world.state();
    let data = state.storage.volume_of("data").unwrap();
    assert!(data.data.iter().chain(&data.dirty).all(|write| write.version == "1.0.0"), "1.2.0 ran");
}
