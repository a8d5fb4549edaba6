//! Operations of one app that follow each other: who is at work, who takes over, and what stays listed.

use kube::runtime::controller::Action;
use upgrade_core::Failure;
use upgrade_core::app::rollback::request_name;
use upgrade_core::engine::Cause;
use upgrade_core::ports::{AppRef, RestorePointRecord};
use windlass_api::{ManagedApp, RestorePoint, RollbackRequest, UpgradeRequest};

use super::estate::Estate;
use super::*;
use crate::reconcile::QUEUE_PAUSE;
use crate::status;

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_waits_for_its_turn_sees_what_the_turn_before_it_has_changed() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    let turn = estate.cluster.context.turn_of("notes/notes");
    let held = turn.lock().await;
    let cached = Arc::new(estate.api::<UpgradeRequest>().get("up").await.unwrap());
    let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
    let (plan, journal) = estate.record(&rollback, &["release/resume/x"], &[&upgrade.uid().unwrap()]);
    estate.write(&rollback, json!({ "plan": plan, "journal": journal })).await;
    estate.activate(&rollback).await;
    let later = reconcile(cached.clone(), estate.cluster.context.clone()).await.unwrap();
    assert_eq!(later, Action::requeue(QUEUE_PAUSE));
    assert_eq!(estate.status_of(&upgrade).await.outcome, None, "it did not wait");
    drop(held);
    reconcile(cached, estate.cluster.context.clone()).await.unwrap();
    let status = estate.status_of(&upgrade).await;
    assert_eq!(status.outcome, Some(windlass_api::Outcome::RolledBack), "{:?}", status.journal);
    assert_eq!(status.rollback.as_deref(), Some("back"));
    // The rollback may still fail: what is not as it was found stays listed until one has succeeded.
    let left: Vec<&str> = status.leftovers.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left, ["pv on Retain"]);
    estate.turn(&upgrade).await;
    assert_eq!(estate.status_of(&upgrade).await, status, "it goes on after it gave way");
}

#[tokio::test]
async fn requests_that_wait_for_the_turn_of_one_app_leave_their_places_to_others() {
    let estate = Estate::new().await;
    let turn = estate.cluster.context.turn_of("notes/notes");
    let _held = turn.lock().await;
    let mut waiting = Vec::new();
    for number in 0..8 {
        let upgrade = estate.upgrade(&format!("up-{number}")).await;
        waiting.push(reconcile(Arc::new(upgrade), estate.cluster.context.clone()));
    }
    let looks = futures::future::join_all(waiting);
    for look in tokio::time::timeout(Duration::from_secs(30), looks).await.unwrap() {
        assert_eq!(look.unwrap(), Action::requeue(QUEUE_PAUSE));
    }
}

#[tokio::test]
async fn an_upgrade_that_is_watched_is_over_only_when_its_rollback_cannot_be_undone() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    let before = estate.status_of(&upgrade).await;
    let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
    let taken = upgrade.uid().unwrap();
    let (plan, journal) = estate.record(&rollback, &["suspend/x"], &[&taken]);
    estate.write(&rollback, json!({ "plan": plan, "journal": journal })).await;
    estate.activate(&rollback).await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!((status.outcome, status.phase.as_deref()), (None, Some("RollingBack")), "{:?}", status.message);
    assert_eq!((status.rollback.as_deref(), &status.journal), (Some("back"), &before.journal));

    let (_, journal) = estate.record(&rollback, &["suspend/x", "release/resume/x"], &[&taken]);
    estate.write(&rollback, json!({ "journal": journal })).await;
    estate.turn(&upgrade).await;
    assert_eq!(estate.status_of(&upgrade).await.outcome, Some(windlass_api::Outcome::RolledBack));
}

/// Between two looks of the upgrade: it must not take the rollback for one that has done something.
#[tokio::test]
async fn an_upgrade_that_was_being_watched_when_its_rollback_was_undone_needs_one_and_says_so() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
    let (plan, mut journal) = estate.record(&rollback, &[], &[&upgrade.uid().unwrap()]);
    journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
    let ended = json!({ "plan": plan, "journal": journal, "outcome": "Cancelled", "message": "cancelled by hand" });
    estate.write(&rollback, ended).await;
    estate.activate_with(Value::Null).await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!(status.outcome, Some(windlass_api::Outcome::NeedsRollback), "{:?}", status.message);
    let message = status.message.unwrap();
    for said in ["rollback back was undone: cancelled by hand. ", "leaving it keeps the new version as it is"] {
        assert!(message.contains(said), "{said:?} is not in: {message}");
    }
    let left: Vec<&str> = status.leftovers.iter().map(|left| left.what.as_str()).collect();
    assert_eq!((left, status.rollback.as_deref()), (vec!["pv on Retain"], Some("back")));
    assert_eq!(estate.ready().await, ("False".into(), "NeedsRollback".into()));
    let app = estate.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap();
    assert_eq!(app.last_operation.unwrap().name, "up");
}

/// The rollback is gone before the upgrade looks again: what the app says of it is all that is left to judge by.
#[tokio::test]
async fn an_upgrade_whose_rollback_had_begun_and_was_deleted_needs_one_unless_that_had_succeeded() {
    for (how, expected) in [
        (None, windlass_api::Outcome::NeedsRollback),
        (Some("Cancelled"), windlass_api::Outcome::NeedsRollback),
        (Some("Succeeded"), windlass_api::Outcome::RolledBack),
    ] {
        let estate = Estate::new().await;
        let upgrade = estate.watched("up").await;
        let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
        let (plan, journal) = estate.record(&rollback, &["suspend/x"], &[&upgrade.uid().unwrap()]);
        estate.write(&rollback, json!({ "plan": plan, "journal": journal })).await;
        estate.activate(&rollback).await;
        estate.turn(&upgrade).await;
        if let Some(outcome) = how {
            let app = estate.cluster.context.apps.clone();
            let last = json!({
                "kind": "RollbackRequest", "name": "back", "uid": rollback.uid(), "outcome": outcome,
                "finishedAt": estate.cluster.context.clock.now(),
            });
            let found = estate.api::<ManagedApp>().get("notes").await.unwrap();
            app.record_last(&crate::resolve::app_ref(&found), last).await.unwrap();
        }
        estate.api::<RollbackRequest>().delete("back", &DeleteParams::default()).await.unwrap();
        estate.activate_with(Value::Null).await;
        estate.turn(&upgrade).await;
        let status = estate.status_of(&upgrade).await;
        assert_eq!(status.outcome, Some(expected), "{how:?}: {:?}", status.message);
        let message = status.message.unwrap();
        let said = "rollback back was undone: it was deleted. ";
        let needs = expected == windlass_api::Outcome::NeedsRollback;
        assert_eq!(message.contains(said), needs, "{message}");
        // What a success has said of the app stays.
        let app = estate.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap();
        assert_eq!(app.last_operation.unwrap().name, if needs { "up" } else { "back" });
    }
}

#[tokio::test]
async fn a_rollback_that_is_refused_or_cancelled_leaves_the_upgrade_at_work() {
    for (crashed, cancelled) in [(false, false), (true, false), (true, true)] {
        let estate = Estate::new().await;
        let upgrade = estate.watched("up").await;
        let rollback = estate.rollback("back", json!({ "restorePoint": "nowhere" })).await;
        if crashed {
            // It had taken over and died before its plan was stored.
            estate.activate(&rollback).await;
            estate.turn(&upgrade).await;
            assert_eq!(
                estate.status_of(&upgrade).await.outcome,
                None,
                "the upgrade gave way to a rollback without a plan"
            );
            assert_eq!(estate.active().await.as_deref(), Some("back"));
        }
        if cancelled {
            let cancel = Patch::Merge(json!({ "spec": { "cancel": true } }));
            estate.api::<RollbackRequest>().patch("back", &PatchParams::default(), &cancel).await.unwrap();
        }
        estate.turn(&rollback).await;
        let ended = estate.status_of(&rollback).await;
        let expected = if cancelled { windlass_api::Outcome::Cancelled } else { windlass_api::Outcome::Refused };
        assert_eq!(ended.outcome, Some(expected), "{:?}", ended.message);
        assert_eq!(estate.active().await.as_deref(), Some("up"));
        estate.turn(&upgrade).await;
        assert_ne!(estate.status_of(&upgrade).await.outcome, Some(windlass_api::Outcome::RolledBack));
    }
}

#[tokio::test]
async fn no_request_begins_while_another_of_its_app_is_at_work_whatever_the_app_says() {
    let estate = Estate::new().await;
    estate.watched("up").await;
    estate.activate_with(Value::Null).await;
    let next = estate.upgrade("next").await;
    estate.turn(&next).await;
    let status = estate.status_of(&next).await;
    assert_eq!(status.message.as_deref(), Some("waiting for UpgradeRequest up"));
    assert_eq!(estate.active().await, None);
}

#[tokio::test]
async fn a_failed_upgrade_is_rolled_back_by_a_request_of_its_own_whatever_was_called_like_it_before() {
    let estate = Estate::new().await;
    let old = estate.rollback("up-rollback", json!({ "upgradeRequest": "up" })).await;
    estate.write(&old, json!({ "outcome": "Succeeded", "message": "done" })).await;
    let upgrade = estate.failed("up").await;
    let leftovers = estate.status_of(&upgrade).await.leftovers;
    assert!(!leftovers.is_empty());
    estate.turn(&upgrade).await;
    let name = request_name("up", &upgrade.uid().unwrap());
    assert_eq!(estate.rollbacks().await, [name.clone(), "up-rollback".into()]);
    // Until it has begun nothing is over, and everything that is held is listed and the app is the upgrade's.
    let status = estate.status_of(&upgrade).await;
    assert_eq!((status.outcome, status.rollback, status.leftovers), (None, Some(name.clone()), leftovers));
    assert_eq!(estate.active().await.as_deref(), Some("up"));
    estate.turn(&upgrade).await;
    assert_eq!(estate.rollbacks().await.len(), 2);

    let made = estate.api::<RollbackRequest>().get(&name).await.unwrap();
    let (plan, journal) = estate.record(&made, &["suspend/x"], &[&upgrade.uid().unwrap()]);
    estate.write(&made, json!({ "plan": plan, "journal": journal })).await;
    estate.activate(&made).await;
    estate.turn(&upgrade).await;
    // It may still be undone, and then the upgrade's end is another.
    let status = estate.status_of(&upgrade).await;
    assert_eq!(status.outcome, None);
    assert!(status.message.is_some_and(|message| message.ends_with("has begun")));
    let (_, journal) = estate.record(&made, &["suspend/x", "release/resume/x"], &[&upgrade.uid().unwrap()]);
    estate.write(&made, json!({ "journal": journal })).await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!(status.outcome, Some(windlass_api::Outcome::RolledBack));
    assert_eq!(status.leftovers.len(), 1);
    assert_eq!(estate.active().await, Some(name));
}

#[tokio::test]
async fn an_upgrade_whose_rollback_was_undone_asks_and_makes_no_other() {
    let estate = Estate::new().await;
    let upgrade = estate.failed("up").await;
    let leftovers = estate.status_of(&upgrade).await.leftovers;
    estate.turn(&upgrade).await;
    let name = request_name("up", &upgrade.uid().unwrap());
    let made = estate.api::<RollbackRequest>().get(&name).await.unwrap();
    let (plan, mut journal) = estate.record(&made, &[], &[&upgrade.uid().unwrap()]);
    let failure = Failure::permanent("served-meanwhile", "notes-1 has become ready");
    journal.outcome = Some(Outcome::Undone(Cause::StepFailed { step: "stop/wait".into(), failure }));
    estate.write(&made, json!({ "plan": plan, "journal": journal })).await;
    estate.activate(&made).await;
    estate.turn(&upgrade).await;
    assert_eq!(estate.status_of(&upgrade).await.outcome, None, "it has not let go of the app yet");

    estate.turn(&made).await;
    let undone = estate.status_of(&made).await;
    assert_eq!(undone.outcome, Some(windlass_api::Outcome::Undone), "{:?}", undone.message);
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!(status.outcome, Some(windlass_api::Outcome::NeedsRollback), "{:?}", status.message);
    let message = status.message.unwrap();
    for said in [&*format!("rollback {name} was undone: "), "has become ready", "rolling back and keeping the data"] {
        assert!(message.contains(said), "{said:?} is not in: {message}");
    }
    assert_eq!((status.leftovers, status.rollback), (leftovers, Some(name.clone())));
    assert_eq!((estate.rollbacks().await, estate.active().await), (vec![name], None));
}

#[tokio::test]
async fn an_upgrade_that_gives_way_to_a_rollback_that_has_succeeded_lists_nothing() {
    let estate = Estate::new().await;
    let upgrade = estate.watched("up").await;
    let rollback = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
    let (plan, mut journal) = estate.record(&rollback, &[], &[&upgrade.uid().unwrap()]);
    journal.outcome = Some(Outcome::Succeeded);
    estate.write(&rollback, json!({ "plan": plan, "journal": journal, "outcome": "Succeeded" })).await;
    estate.activate_with(Value::Null).await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    assert_eq!((status.outcome, status.leftovers.len()), (Some(windlass_api::Outcome::RolledBack), 0));
    let app = estate.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap_or_default();
    assert_eq!(app.last_operation, None, "what the rollback has said about the app is overwritten");
}

#[tokio::test]
async fn an_upgrade_whose_rollback_does_not_begin_asks_and_keeps_its_list() {
    for (end, why) in [
        ("Refused", "it ended as Refused: suspended-by-others"),
        ("deleted", "it was deleted"),
        ("taken", "its name is taken"),
    ] {
        let estate = Estate::new().await;
        let upgrade = estate.failed("up").await;
        let leftovers = estate.status_of(&upgrade).await.leftovers;
        let name = request_name("up", &upgrade.uid().unwrap());
        if end == "taken" {
            estate.rollback(&name, json!({ "upgradeRequest": "up" })).await;
        } else {
            estate.turn(&upgrade).await;
            let made = estate.api::<RollbackRequest>().get(&name).await.unwrap();
            if end == "deleted" {
                estate.api::<RollbackRequest>().delete(&name, &DeleteParams::default()).await.unwrap();
            } else {
                estate.write(&made, json!({ "outcome": end, "message": "suspended-by-others" })).await;
            }
        }
        estate.turn(&upgrade).await;
        let status = estate.status_of(&upgrade).await;
        assert_eq!(status.outcome, Some(windlass_api::Outcome::NeedsRollback), "{end}");
        assert!(status.message.as_ref().is_some_and(|message| message.contains(why)), "{:?}", status.message);
        assert_eq!(status.leftovers, leftovers);
        assert_eq!(estate.active().await, None);
    }
}

#[tokio::test]
async fn what_an_ended_operation_has_left_is_not_touched_while_another_is_at_work() {
    let estate = Estate::new().await;
    let cancelled = estate.upgrade("cancelled").await;
    let (plan, mut journal) = estate.record(&cancelled, &[], &[]);
    journal.course = upgrade_core::engine::Course::Back(Cause::Cancelled);
    journal.entries = vec![entry("protect/data", StepState::Leftover, &journal)];
    journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
    let mut ended = json!({ "plan": plan, "journal": journal, "outcome": "Failed", "phase": "Failed" });
    ended["leftovers"] = json!(status::leftovers(&plan, &journal));
    estate.write(&cancelled, ended).await;
    let before = estate.status_of(&cancelled).await;

    let other = estate.watched("other").await;
    estate.turn(&cancelled).await;
    assert_eq!(estate.status_of(&cancelled).await, before, "it was healed beside another operation");
    estate.write(&other, json!({ "outcome": "NeedsRollback" })).await;
    estate.turn(&cancelled).await;
    let healed = estate.status_of(&cancelled).await;
    assert_eq!((healed.leftovers.len(), healed.phase.as_deref()), (0, Some("Failed")));
}

#[tokio::test]
async fn a_cancel_that_left_something_does_not_say_that_everything_is_as_it_was_found() {
    let estate = Estate::new().await;
    let upgrade = estate.upgrade("up").await;
    let (plan, mut journal) = estate.record(&upgrade, &[], &[]);
    journal.course = upgrade_core::engine::Course::Back(Cause::Cancelled);
    let mut left = entry("snapshot/take/data", StepState::Leftover, &journal);
    left.look_again = Some(journal.started_at + SignedDuration::from_secs(30));
    journal.entries = vec![left];
    journal.outcome = Some(Outcome::Undone(Cause::Cancelled));
    estate.write(&upgrade, json!({ "plan": plan, "journal": journal })).await;
    estate.activate(&upgrade).await;
    estate.turn(&upgrade).await;
    let status = estate.status_of(&upgrade).await;
    let message = "cancelled; not everything is as it was found; 1 left: see status.leftovers";
    assert_eq!((status.outcome, status.message.as_deref()), (Some(windlass_api::Outcome::Failed), Some(message)));
    let app = estate.api::<ManagedApp>().get("notes").await.unwrap().status.unwrap();
    assert_eq!(app.last_operation.unwrap().message.as_deref(), Some(message));
}

#[tokio::test]
async fn a_success_clears_only_what_it_has_put_right_and_notes_what_was_replaced() {
    for has_point in [true, false] {
        let estate = Estate::new().await;
        let app = AppRef { namespace: NS.into(), name: "notes".into(), uid: String::new() };
        let point = RestorePointRecord {
            name: "notes-op".into(),
            app: app.clone(),
            operation: "op".into(),
            taken_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            stopped: true,
            pins: Vec::new(),
            commits: Vec::new(),
            volumes: Vec::new(),
            void: String::new(),
        };
        if has_point {
            estate.cluster.context.ports.restore_points.save(&point).await.unwrap();
        }
        // A rollback that failed after the swap: the volume it replaced is on Retain, and noted nowhere.
        let back = estate.rollback("back", json!({ "upgradeRequest": "up" })).await;
        let (plan, mut journal) =
            estate.record(&back, &["suspend/x", "protect/data", "swap/delete/data", "release/resume/x"], &[]);
        let failure = Failure::permanent("unhealthy", "it crashes");
        journal.outcome = Some(Outcome::Failed { step: "verify/healthy".into(), failure });
        let leftover = |step: &str| json!({ "what": "x", "object": step, "why": "x", "since": "2026-01-01T00:00:00Z" });
        let left = json!([leftover("suspend/x"), leftover("protect/data"), leftover("stop/deployment/notes/other")]);
        estate.write(&back, json!({ "plan": plan, "journal": journal, "outcome": "Failed", "leftovers": left })).await;

        let next = estate.upgrade("next").await;
        let (mut plan, _) = estate.record(&next, &[], &[&back.uid().unwrap()]);
        plan.inputs["claims"][0]["volumeUid"] = json!("restored");
        let plan = Plan::new("app-upgrade", &next.uid().unwrap(), plan.inputs, plan.steps).unwrap();
        let mut journal = Journal::new(&plan, estate.cluster.context.clock.now());
        journal.outcome = Some(Outcome::Succeeded);
        estate.write(&next, json!({ "plan": plan, "journal": journal })).await;
        estate.activate(&next).await;
        estate.turn(&next).await;
        assert_eq!(estate.status_of(&next).await.outcome, Some(windlass_api::Outcome::Succeeded));
        let left: Vec<String> = estate.status_of(&back).await.leftovers.into_iter().map(|left| left.object).collect();
        let stays = "stop/deployment/notes/other";
        if has_point {
            assert_eq!(left, [stays]);
            let point = estate.api::<RestorePoint>().get("notes-op").await.unwrap();
            let noted: Vec<String> = point.status.unwrap().replaced_volumes.into_iter().map(|one| one.volume).collect();
            assert_eq!(noted, ["pv"]);
        } else {
            assert_eq!(left, ["protect/data", stays], "a volume that nobody noted is not listed any more");
        }
    }
}
