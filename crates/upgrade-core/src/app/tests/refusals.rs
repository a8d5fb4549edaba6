//! Every refusal by name, each from facts that differ from the ordinary ones in one thing.

use super::builders::{
    at, bootstrapped, claim, cron_job, facts, git_repository, release, release_facts, rollback, upgrade_to, workload,
};
use super::world::{Setup, World};
use crate::app::facts::AppFacts;
use crate::app::preflight::{self, Verdict};
use crate::app::{AppSpec, RollbackAsk, UpgradeAsk, upgrade};
use crate::ports::{AppRef, BlockedVersion, Neighbour, ObjectRef, PinValue, Readiness, WorkloadKind};

fn codes(verdict: &Verdict) -> Vec<&str> {
    verdict.refusals.iter().map(|refusal| refusal.code.as_str()).collect()
}

#[test]
fn an_ordinary_upgrade_and_an_ordinary_rollback_are_not_refused() {
    assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &facts())), [""; 0]);
    assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &release_facts())), [""; 0]);
    let (ask, facts) = rollback();
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), [""; 0]);
}

#[test]
fn a_repository_above_the_app_that_is_not_written_is_nobodys_business() {
    for mut facts in [facts(), release_facts()] {
        facts.delivery = bootstrapped(facts.delivery);
        assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &facts)), [""; 0]);
        // Another branch of the same address is another source, too.
        facts.delivery.sources[1].url = facts.delivery.sources[0].url.clone();
        facts.delivery.sources.reverse();
        assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &facts)), [""; 0]);
    }
}

type FactsChange = fn(&mut AppFacts);

#[test]
fn an_app_that_comes_from_a_repository_which_is_not_written_is_refused() {
    let cases: [(&str, FactsChange); 3] = [
        ("source-not-a-branch", |_| {}),
        ("repository-not-the-source", |facts| facts.delivery.sources[1].branch = Some("main".into())),
        ("branch-not-the-source", |facts| {
            facts.delivery.sources[1].branch = Some("prod".into());
            facts.delivery.sources[1].url = facts.delivery.sources[0].url.clone();
        }),
    ];
    for (code, change) in cases {
        for (mut facts, applier) in [(facts(), 2), (release_facts(), 1)] {
            facts.delivery = bootstrapped(facts.delivery);
            facts.delivery.objects[applier].source = Some(git_repository("flux-system"));
            change(&mut facts);
            assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &facts)), [code]);
        }
    }
}

fn neighbour(namespace: &str, own: Vec<ObjectRef>, claims: &[&str]) -> Neighbour {
    let app = AppRef { namespace: namespace.into(), name: "other".into(), uid: "other".into() };
    Neighbour { app, own, claims: claims.iter().map(|claim| (*claim).to_owned()).collect() }
}

type Change = fn(&mut UpgradeAsk, &mut AppFacts);

#[test]
fn each_reason_not_to_upgrade_is_refused_by_name() {
    let cases: &[(&str, Change)] = &[
        ("rights-missing", |_, facts| facts.missing_rights.push("patch persistentvolumes in the cluster".into())),
        ("no-pins", |ask, _| ask.app.pins.clear()),
        ("unknown-component", |ask, _| {
            ask.targets.insert("chart".into(), "2.0.0".into());
        }),
        ("nothing-to-do", |ask, _| {
            ask.targets.insert("image/notes".into(), "1.0.0".into());
        }),
        ("downgrade", |ask, _| {
            ask.targets.insert("image/notes".into(), "0.9.0".into());
        }),
        ("version-not-semver", |ask, _| {
            ask.targets.insert("image/notes".into(), "latest".into());
        }),
        ("outside-constraint", |ask, _| ask.app.versions.constraint = Some("<1.1".into())),
        ("constraint-malformed", |ask, _| ask.app.versions.constraint = Some(">>1".into())),
        ("version-skipped", |ask, _| ask.app.versions.skip.push("1.1.0".into())),
        ("version-blocked", |_, facts| {
            facts.blocked.push(BlockedVersion {
                component: "image/notes".into(),
                version: "1.1.0".into(),
                reason: "it lost data".into(),
                request: "notes-0".into(),
                since: at(1),
            });
        }),
        ("image-policy-marker", |_, facts| facts.repositories[0].pins[0].image_policy_marker = true),
        ("sops-file", |_, facts| facts.repositories[0].pins[0].sops = true),
        ("version-range", |_, facts| facts.repositories[0].pins[0].value = ">=1.0 <2".into()),
        ("live-differs-from-git", |_, facts| facts.live[0].shows = Some("0.9.0".into())),
        ("pin-not-live", |_, facts| facts.live[0].shows = None),
        ("pin-not-live", |_, facts| facts.live.clear()),
        ("pin-without-container", |_, facts| {
            facts.workloads[0].images[0] = ("web".into(), "registry.test/nginx:1.0.0".into());
        }),
        ("pin-without-container", |_, facts| facts.workloads.clear()),
        ("image-differs-from-pin", |_, facts| facts.workloads[0].images[0].1 = "registry.test/notes:v1.0.0".into()),
        ("suspended-by-others", |_, facts| facts.delivery.objects[0].suspend = Some(true)),
        ("suspended-by-others", |_, facts| facts.delivery.sources[0].suspend = Some(true)),
        ("held-by-other-operation", |_, facts| {
            facts.delivery.objects[1].suspend = Some(true);
            facts.delivery.objects[1].held_by = Some("another".into());
        }),
        ("force", |_, facts| facts.delivery.objects[1].refusals.push(("force".into(), "spec.force is set".into()))),
        ("parent-not-ready", |_, facts| facts.delivery.objects[0].readiness = Readiness::NotReady("broken".into())),
        ("readiness-unknown", |_, facts| facts.delivery.objects[0].readiness = Readiness::Unknown),
        ("no-git-source", |_, facts| facts.delivery.sources.clear()),
        ("source-not-a-branch", |_, facts| facts.delivery.sources[0].branch = None),
        ("source-verifies", |_, facts| facts.delivery.sources[0].verifies = true),
        ("source-without-artifact", |_, facts| facts.delivery.sources[0].commit = None),
        ("branch-not-the-source", |_, facts| facts.delivery.sources[0].branch = Some("release".into())),
        ("repository-not-the-source", |_, facts| facts.delivery.sources[0].url = "https://git.test/x".into()),
        ("message-template", |ask, _| ask.app.repositories[0].message_template = Some("Bump to {version}".into())),
        ("app-overlaps", |ask, facts| {
            facts.neighbours.push(neighbour("notes", ask.app.own.clone(), &[]));
        }),
        ("claim-of-another-app", |_, facts| facts.neighbours.push(neighbour("notes", Vec::new(), &["data"]))),
        ("accept-unknown", |ask, _| ask.app.versions.accepted_claim_changes.push("drop-claim/data".into())),
        ("foreign-consumer", |_, facts| facts.workloads[0].delivered = false),
        ("cannot-stop", |_, facts| facts.workloads[0].kind = WorkloadKind::DaemonSet),
        ("when-scaled-delete", |_, facts| {
            facts.workloads[0].refusals.push(("when-scaled-delete".into(), "it would delete the claims".into()));
        }),
        ("frozen", |_, facts| {
            facts.workloads[0].claims.clear();
            facts.workloads[0].refusals.push(("frozen".into(), "has reconcile: disabled".into()));
        }),
        ("nothing-to-watch", |_, facts| facts.workloads[0].replicas = 0),
        ("nothing-to-watch", |_, facts| {
            facts.workloads[0].kind = WorkloadKind::CronJob;
            facts.workloads[0].object = cron_job();
        }),
        ("nothing-to-watch", |_, facts| {
            facts.workloads[0].kind = WorkloadKind::Other;
            facts.workloads[0].object = ObjectRef::new("db.test", "Cluster", "notes", "db");
        }),
        ("not-csi", |_, facts| facts.claims[0].refusals.push(("not-csi".into(), "a hostPath".into()))),
    ];
    for (code, change) in cases {
        let (mut ask, mut facts) = (upgrade_to("1.1.0"), facts());
        change(&mut ask, &mut facts);
        let verdict = preflight::upgrade(&ask, &facts);
        assert!(codes(&verdict).contains(code), "{code} is not among {:?}", codes(&verdict));
    }
}

/// A workload that was there before mounts a claim by now that has no copy.
fn scaled_up(facts: &mut AppFacts) {
    facts.claims.push(claim("data-1"));
    facts.workloads[0].claims.push("data-1".into());
}

type RollbackChange = fn(&mut RollbackAsk, &mut AppFacts);

#[test]
fn who_sets_what_has_no_effect_yet_is_told() {
    let mut ask = upgrade_to("1.1.0");
    ask.app.versions.unread = vec!["spec.policy.windows".into()];
    let verdict = preflight::upgrade(&ask, &facts());
    assert!(verdict.passed());
    assert!(verdict.warnings.contains(&"spec.policy.windows is set, and has no effect yet".to_owned()));
}

/// Who names a field may have no right to read it.
#[test]
fn what_is_read_where_a_version_should_be_is_shown_only_if_it_is_one() {
    for (live, is_shown) in [
        ("0.9.0", true),
        ("v1.4", true),
        ("4.0.1.929", true),
        ("sha256:0a1b", true),
        ("c2VjcmV0LXBhc3M=", false),
        ("1.a", false),
    ] {
        let mut facts = facts();
        facts.live[0].shows = Some(live.into());
        let refusals = preflight::upgrade(&upgrade_to("1.1.0"), &facts).refusals;
        let refusal = refusals.iter().find(|refusal| refusal.code == "live-differs-from-git").unwrap();
        assert_eq!(refusal.message.contains(live), is_shown, "{}", refusal.message);
    }
}

#[test]
fn each_reason_not_to_roll_back_is_refused_by_name() {
    let cases: &[(&str, RollbackChange)] = &[
        ("restore-point-void", |ask, _| ask.restore_point.void = "the old version ran again".into()),
        ("namespace-not-allowed", |_, facts| {
            facts.delivery.objects[0].refusals.push(("namespace-not-allowed".into(), "x".into()));
        }),
        ("pin-not-recorded", |ask, _| ask.restore_point.pins.clear()),
        ("loss-not-acknowledged", |ask, _| ask.loses_writes = true),
        ("loss-not-acknowledged", |ask, _| {
            ask.loses_writes = true;
            ask.acknowledged_loss_since = Some(at(101));
        }),
        // What was copied while it ran has acknowledged more since.
        ("loss-not-acknowledged", |ask, _| ask.restore_point.stopped = false),
        ("snapshot-gone", |_, facts| facts.restorable[0].1 = None),
        ("snapshot-not-usable", |_, facts| facts.restorable[0].1.as_mut().unwrap().ready = false),
        ("snapshot-not-usable", |_, facts| facts.restorable[0].1.as_mut().unwrap().uid = "other".into()),
        ("snapshot-not-usable", |_, facts| facts.restorable[0].1.as_mut().unwrap().cut_at = Some(at(5000))),
        ("snapshot-not-usable", |_, facts| facts.restorable[0].1.as_mut().unwrap().mismatch = Some("unbound".into())),
        ("superseded", |ask, _| {
            ask.only_from = vec![PinValue { pin: ask.app.pins[0].clone(), value: "3.0.0".into() }];
        }),
        ("repository-not-the-source", |_, facts| facts.delivery.sources[0].url = "https://git.test/x".into()),
        ("branch-not-the-source", |_, facts| facts.delivery.sources[0].branch = Some("release".into())),
        ("source-not-a-branch", |_, facts| facts.delivery.sources[0].branch = None),
        // The data would be swapped, and the commit that goes with it never be fetched.
        ("source-verifies", |_, facts| facts.delivery.sources[0].verifies = true),
        ("foreign-consumer", |_, facts| {
            let mut other = workload();
            other.object = ObjectRef::new("apps", "Deployment", "notes", "reader");
            other.delivered = false;
            facts.workloads.push(other);
        }),
        ("pin-not-named", |ask, _| {
            let mut pin = ask.app.pins[0].clone();
            pin.component = "chart".into();
            ask.restore_point.pins.push(PinValue { pin, value: "1.0.0".into() });
        }),
        ("pin-not-named", |ask, _| {
            ask.restore_data = false;
            ask.app.pins[0].field = "spec.elsewhere".into();
        }),
        ("object-not-named", |ask, _| {
            let mut before = upgrade::inputs(&upgrade_to("2.0.0"), &self::facts());
            before.own.push(release());
            ask.before = Some(before);
        }),
        ("claim-not-in-restore-point", |_, facts| scaled_up(facts)),
        ("claim-not-in-restore-point", |ask, facts| {
            ask.before = Some(upgrade::inputs(&upgrade_to("2.0.0"), &self::facts()));
            scaled_up(facts);
        }),
        ("claim-made-anew", |_, facts| facts.claims[0].uid = "another".into()),
        ("nothing-to-do", |ask, facts| {
            ask.restore_data = false;
            facts.repositories[0].pins[0].value = "1.0.0".into();
        }),
    ];
    for (code, change) in cases {
        let (mut ask, mut facts) = rollback();
        change(&mut ask, &mut facts);
        let verdict = preflight::rollback(&ask, &facts);
        assert!(codes(&verdict).contains(code), "{code} is not among {:?}", codes(&verdict));
    }
}

#[test]
fn what_a_rollback_would_leave_or_replace_is_accepted_by_its_name_alone() {
    let (mut ask, mut facts) = rollback();
    let mut before = upgrade::inputs(&upgrade_to("2.0.0"), &self::facts());
    before.own.push(release());
    ask.before = Some(before);
    let mut pin = ask.app.pins[0].clone();
    pin.component = "chart".into();
    ask.restore_point.pins.push(PinValue { pin, value: "1.0.0".into() });
    facts.claims[0].uid = "0123456789".into();
    scaled_up(&mut facts);
    let names =
        ["leave-pin/chart", "leave-object/HelmRelease/notes", "restore-again/data/01234567", "keep-claim/data-1"];
    ask.app.versions.accepted_claim_changes = names.map(Into::into).into();
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), [""; 0]);
    // What was accepted before another restore is not accepted after it.
    facts.claims[0].uid = "another-0123".into();
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), ["accept-unknown", "claim-made-anew"]);
}

#[test]
fn without_its_data_a_rollback_asks_nothing_about_claims() {
    let (mut ask, mut facts) = rollback();
    ask.restore_data = false;
    facts.claims[0].uid = "another".into();
    scaled_up(&mut facts);
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), [""; 0]);
}

#[test]
fn a_claim_that_is_still_to_be_made_has_no_newer_data() {
    let (ask, mut facts) = rollback();
    scaled_up(&mut facts);
    facts.claims[1].uid.clear();
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), [""; 0]);
}

#[test]
fn the_claims_of_a_restore_point_are_looked_at_whatever_the_app_says_about_copies() {
    let world = World::new(Setup::default());
    let mut spec = world.spec();
    spec.snapshots.enabled = false;
    let found = |point| world.facts(&spec, point, None).claims.len();
    let (ask, _) = rollback();
    assert_eq!((found(None), found(Some(&ask.restore_point))), (0, 1));
}

#[test]
fn a_rollback_works_in_the_mess_that_an_upgrade_left() {
    let (mut ask, mut facts) = rollback();
    ask.take_over = vec!["0f1e2d3c-op".into()];
    facts.delivery.objects[1].suspend = Some(true);
    facts.delivery.objects[1].held_by = Some("0f1e2d3c-op".into());
    facts.delivery.objects[0].readiness = Readiness::NotReady("health check failed".into());
    facts.live[0].shows = None;
    assert_eq!(codes(&preflight::rollback(&ask, &facts)), [""; 0]);
    assert!(!preflight::upgrade(&upgrade_to("3.0.0"), &facts).passed());
}

#[test]
fn acknowledging_the_whole_loss_is_enough() {
    let (mut ask, facts) = rollback();
    ask.loses_writes = true;
    ask.acknowledged_loss_since = Some(ask.restore_point.taken_at);
    assert!(preflight::rollback(&ask, &facts).passed());
}

#[test]
fn only_refusals_that_settle_by_themselves_are_waited_for() {
    let mut facts = facts();
    facts.delivery.objects[0].readiness = Readiness::Unknown;
    assert!(preflight::upgrade(&upgrade_to("1.1.0"), &facts).may_pass_soon());
    facts.delivery.objects[0].suspend = Some(true);
    assert!(!preflight::upgrade(&upgrade_to("1.1.0"), &facts).may_pass_soon());
}

#[test]
fn an_app_elsewhere_may_name_the_same_delivery_object_and_a_claim_of_the_same_name() {
    let mut facts = facts();
    let ask = upgrade_to("1.1.0");
    facts.neighbours.push(neighbour("elsewhere", ask.app.own.clone(), &["data"]));
    assert!(preflight::upgrade(&ask, &facts).passed());
}

#[test]
fn an_app_of_which_something_runs_is_upgraded_whatever_else_is_turned_off() {
    let mut facts = facts();
    let mut off = workload();
    (off.object.name, off.replicas, off.claims) = ("off".into(), 0, Vec::new());
    facts.workloads.push(off.clone());
    assert!(preflight::upgrade(&upgrade_to("1.1.0"), &facts).passed());
    facts.workloads.remove(0);
    assert_eq!(codes(&preflight::upgrade(&upgrade_to("1.1.0"), &facts)), ["nothing-to-watch"]);
    // A rollback is what may be needed then: it is told, and goes on.
    let (ask, mut facts) = rollback();
    facts.workloads[0].replicas = 0;
    let verdict = preflight::rollback(&ask, &facts);
    assert!(verdict.passed(), "{:?}", verdict.refusals);
    assert!(verdict.warnings.iter().any(|one| one.contains("at 0 replicas")), "{:?}", verdict.warnings);
}

#[test]
fn a_claim_that_only_a_neighbour_mounts_does_not_matter() {
    let mut facts = facts();
    let mut other = workload();
    other.object = ObjectRef::new("apps", "Deployment", "notes", "other");
    other.delivered = false;
    other.claims = vec!["elsewhere".into()];
    facts.workloads.push(other);
    assert!(preflight::upgrade(&upgrade_to("1.1.0"), &facts).passed());
}

#[test]
fn named_claims_are_all_that_is_copied_and_the_others_are_told() {
    let world = World::new(Setup::default());
    let found =
        |spec: &AppSpec| world.facts(spec, None, None).claims.into_iter().map(|claim| claim.name).collect::<Vec<_>>();
    let all = world.spec();
    assert_eq!(found(&all), ["data"]);
    world.state().named = vec!["other".into()];
    let named = world.spec();
    assert_eq!(found(&named), [""; 0], "the model has no claim of that name");
    let mut ask = upgrade_to("1.1.0");
    ask.app.snapshots.claims = vec!["data".into()];
    let mut facts = facts();
    facts.workloads[0].claims.push("cache".into());
    let verdict = preflight::upgrade(&ask, &facts);
    assert!(verdict.passed(), "{:?}", verdict.refusals);
    assert!(verdict.warnings.iter().any(|one| one.contains("claim cache")), "{:?}", verdict.warnings);
}
