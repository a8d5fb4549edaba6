//! The order in which things are done, and what each plan promises to put back.

use jiff::SignedDuration;

use super::builders::{
    at, bootstrapped, claim, deployment, facts, git_repository, kustomization, release, release_facts, rollback,
    substituted_pin, upgrade_to, workload,
};
use crate::app::facts::AppFacts;
use crate::app::{self, AppInputs, Consistency, RollbackAsk, collide, roots, upgrade};
use crate::engine::{Plan, PlanError};
use crate::ports::{ClaimFacts, ObjectRef, Pin, ReclaimPolicy, Repository, VolumeRecord, WorkloadFacts};
use serde_json::json;

fn ids(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.id.as_str()).collect()
}

fn upgrade_plan(facts: &AppFacts) -> Plan {
    let mut ask = upgrade_to("1.1.0");
    if facts.delivery.objects.iter().any(|object| object.object == release()) {
        ask.app.own = vec![release()];
    }
    upgrade::plan(&ask, facts).unwrap()
}

fn rollback_plan() -> Plan {
    let (ask, facts) = rollback();
    app::rollback::plan(&ask, &facts).unwrap()
}

fn inputs(plan: &Plan) -> AppInputs {
    serde_json::from_value(plan.inputs.clone()).unwrap()
}

#[test]
fn an_upgrade_of_plain_manifests_goes_in_this_order() {
    assert_eq!(
        ids(&upgrade_plan(&facts())),
        [
            "suspend/kustomization/flux-system/notes",
            "protect/data",
            "stop/deployment/notes/notes",
            "stop/wait",
            "snapshot/take/data",
            "snapshot/verify/data",
            "snapshot/retain/data",
            "snapshot/record",
            "stage/kustomization/flux-system/notes",
            "commit/carriers",
            "commit/push/apps",
            "release/fetch/gitrepository/flux-system/apps",
            "release/freeze/deployment/notes/notes",
            "release/resume/kustomization/flux-system/notes",
            "release/attempt/kustomization/flux-system/notes",
            "release/unfreeze/deployment/notes/notes",
            "release/start/deployment/notes/notes",
            "verify/healthy",
            "verify/soak",
            "finish/unprotect/data",
            "finish/record",
        ]
    );
}

#[test]
fn only_sources_that_fetch_a_written_repository_are_asked_for_the_commit() {
    for mut facts in [facts(), release_facts()] {
        facts.delivery = bootstrapped(facts.delivery);
        let plan = upgrade_plan(&facts);
        let fetched: Vec<&str> = ids(&plan).into_iter().filter(|id| id.starts_with("release/fetch/")).collect();
        assert_eq!(fetched, ["release/fetch/gitrepository/flux-system/apps"]);
        let inputs = inputs(&plan);
        assert!(inputs.reads(&kustomization("root"), "apps") && inputs.reads(&git_repository("apps"), "apps"));
        assert!(!inputs.reads(&kustomization("flux-system"), "apps"));
        assert!(inputs.shared.contains(&kustomization("flux-system")), "it must keep running all the same");
    }
}

#[test]
fn each_of_two_written_repositories_is_waited_for_at_its_own_source() {
    let mut facts = facts();
    facts.delivery = bootstrapped(facts.delivery);
    facts.delivery.sources[1].branch = Some("main".into());
    let mut ask = upgrade_to("1.1.0");
    ask.app.repositories.push(Repository {
        name: "fleet".into(),
        url: "https://git.test/team/fleet.git".into(),
        ..ask.app.repositories[0].clone()
    });
    let mut other = facts.repositories[0].clone();
    other.repository = ask.app.repositories[1].clone();
    other.pins[0].pin.repository = "fleet".into();
    facts.repositories.push(other);
    let both = upgrade::plan(&ask, &facts).unwrap();
    assert_eq!(ids(&both).iter().filter(|id| id.starts_with("release/fetch/")).count(), 2);
    let inputs = inputs(&both);
    let reads = |name: &str, repository: &str| inputs.reads(&git_repository(name), repository);
    assert!(reads("apps", "apps") && reads("flux-system", "fleet"));
    assert!(!reads("apps", "fleet") && !reads("flux-system", "apps"));
    // One that gets no commit has none to wait for.
    facts.repositories[1].pins[0].value = "1.1.0".into();
    let one = upgrade::plan(&ask, &facts).unwrap();
    assert!(!ids(&one).contains(&"release/fetch/gitrepository/flux-system/flux-system"));
}

#[test]
fn a_release_is_resumed_only_after_its_spec_names_the_target() {
    let plan = upgrade_plan(&release_facts());
    let ids = ids(&plan);
    let position = |id: &str| ids.iter().position(|one| *one == id).unwrap_or_else(|| panic!("{id} in {ids:?}"));
    assert!(position("release/spec/helmrelease/notes/notes") < position("release/resume/helmrelease/notes/notes"));
    assert!(!ids.iter().any(|id| id.contains("freeze") || id.contains("root")), "{ids:?}");
}

#[test]
fn a_release_that_no_pin_stands_in_is_resumed_without_waiting_for_a_version() {
    let mut facts = release_facts();
    let mut cache = facts.delivery.objects[1].clone();
    cache.object.name = "cache".into();
    facts.delivery.objects.push(cache);
    let plan = upgrade_plan(&facts);
    let ids = ids(&plan);
    for (id, is_there) in [
        ("release/spec/helmrelease/notes/notes", true),
        ("release/resume/helmrelease/notes/notes", true),
        ("release/spec/helmrelease/notes/cache", false),
        ("release/resume/helmrelease/notes/cache", true),
    ] {
        assert_eq!(ids.contains(&id), is_there, "{id} in {ids:?}");
    }
    let pin = &facts.repositories[0].pins[0].pin;
    for (object, stands) in [
        ("HelmRelease/notes", true),
        ("HelmRelease/notes/notes", true),
        ("HelmRelease/other/notes", false),
        ("#0", false),
    ] {
        assert_eq!(Pin { object: object.into(), ..pin.clone() }.stands_in(&release()), stands, "{object}");
    }
}

#[test]
fn a_kustomization_that_carries_the_version_itself_is_resumed_only_after_its_spec_names_it() {
    let spec = "release/spec/kustomization/flux-system/notes";
    let resume = "release/resume/kustomization/flux-system/notes";
    for (object, field, is_waited_for) in [
        ("Kustomization/notes", "spec.postBuild.substitute.VERSION", true),
        ("Kustomization/flux-system/notes", "spec.images[name=registry.test/notes].newTag", true),
        // Those of a kustomization file show in containers only: their object would never name them.
        ("Kustomization/notes", "images[name=registry.test/notes].newTag", false),
        ("Kustomization", "images[0].newTag", false),
        ("#0", "images[0].newTag", false),
        ("Deployment/notes", "spec.template.spec.containers[name=notes].image", false),
    ] {
        let mut facts = facts();
        let pin = Pin { object: object.into(), field: field.into(), ..facts.repositories[0].pins[0].pin.clone() };
        facts.repositories[0].pins[0].pin = pin.clone();
        let (mut ask, mut after) = rollback();
        after.repositories[0].pins[0].pin = pin.clone();
        ask.restore_point.pins[0].pin = pin;
        for plan in [upgrade_plan(&facts), app::rollback::plan(&ask, &after).unwrap()] {
            let at = |id: &str| plan.step(id).map(|(at, _)| at);
            assert_eq!(at(spec).is_some(), is_waited_for, "{object} {field}");
            assert!(at(spec).is_none_or(|at_spec| Some(at_spec) < at(resume)), "{object} {field}");
        }
    }
    let mut facts = facts();
    facts.repositories[0].pins[0].pin = substituted_pin();
    let waits = upgrade_plan(&facts).step(spec).unwrap().1.deadline;
    assert!(waits >= SignedDuration::from_secs(75), "the object above it may be waiting for health that long: {waits}");
}

#[test]
fn what_is_not_meant_to_run_is_listed_and_its_image_is_not_looked_for() {
    let mut facts = facts();
    let mut off = workload();
    (off.object.name, off.replicas) = ("off".into(), 0);
    off.claims.clear();
    off.images = vec![("off".into(), "registry.test/off:1.0.0".into())];
    facts.workloads.push(off.clone());
    let mut found = facts.repositories[0].pins[0].clone();
    found.pin.component = "image/off".into();
    found.pin.field = String::new();
    facts.repositories[0].pins.push(found);
    let planned = inputs(&upgrade_plan(&facts));
    assert_eq!((planned.watched, planned.unwatched), (vec![deployment()], vec![off.object.clone()]));
    assert_eq!(planned.unseen, ["image/off"]);
    // One that it shares with what runs is looked for there.
    facts.workloads[0].images.extend(off.images);
    assert_eq!(inputs(&upgrade_plan(&facts)).unseen, [""; 0]);
    // What is stopped at this moment counts as it was found before.
    let first = inputs(&upgrade_plan(&facts));
    facts.workloads[0].replicas = 0;
    let (mut ask, _) = rollback();
    ask.inherited = vec![first.clone()];
    ask.before = Some(first);
    let back = app::rollback::inputs(&ask, &facts);
    assert_eq!((back.watched, back.accepted), (vec![deployment()], Vec::new()));
}

#[test]
fn a_rollback_deletes_a_claim_only_when_its_copy_is_kept_freed_and_reserved_and_nothing_runs() {
    let plan = rollback_plan();
    let ids = ids(&plan);
    let position = |id: &str| ids.iter().position(|one| *one == id).unwrap_or_else(|| panic!("{id} in {ids:?}"));
    let order = [
        "protect/data",
        "restore/aside/data",
        "restore/retain/data",
        "stop/deployment/notes/notes",
        "stop/wait",
        "restore/free/data",
        "swap/reserve/data",
        "swap/delete/data",
        "swap/create/data",
        "swap/bound",
        "commit/push/apps",
        "release/resume/kustomization/flux-system/notes",
        "finish/block",
    ];
    for pair in order.windows(2) {
        assert!(position(pair[0]) < position(pair[1]), "{} after {}", pair[0], pair[1]);
    }
}

#[test]
fn what_came_with_the_version_that_is_left_is_stopped_and_not_started_on_the_restored_data() {
    let (mut ask, mut facts) = rollback();
    ask.before = Some(inputs(&upgrade_plan(&self::facts())));
    let worker = ObjectRef { name: "worker".into(), ..deployment() };
    let claims = vec!["data".into(), "cache".into()];
    facts.workloads.push(WorkloadFacts { object: worker.clone(), uid: "w".into(), claims, ..workload() });
    facts.claims.push(claim("cache"));
    let plan = app::rollback::plan(&ask, &facts).unwrap();
    let steps = ids(&plan);
    assert!(steps.contains(&"stop/deployment/notes/worker"), "{steps:?}");
    assert!(steps.contains(&"release/start/deployment/notes/notes"), "{steps:?}");
    assert!(!steps.contains(&"release/start/deployment/notes/worker"), "{steps:?}");
    let inputs = inputs(&plan);
    assert!(!inputs.watched.contains(&worker), "it is waited for");
    assert_eq!(inputs.accepted, ["remove-workload/Deployment/worker", "drop-claim/cache"]);
    // Not one that is mounted by what stays.
    facts.workloads[0].claims.push("cache".into());
    ask.app.versions.accepted_claim_changes = vec!["keep-claim/cache".into()];
    let inputs = self::inputs(&app::rollback::plan(&ask, &facts).unwrap());
    assert_eq!(inputs.accepted, ["remove-workload/Deployment/worker", "keep-claim/cache"]);
}

#[test]
fn only_a_restore_that_nobody_has_acknowledged_is_stopped_by_what_has_served() {
    let (ask, facts) = rollback();
    for (restore_data, since, expected) in
        [(true, None, true), (true, Some(100), false), (true, Some(101), true), (false, None, false)]
    {
        let acknowledged_loss_since = since.map(at);
        let ask = RollbackAsk { restore_data, acknowledged_loss_since, ..ask.clone() };
        assert_eq!(app::rollback::inputs(&ask, &facts).unacknowledged, expected, "{restore_data} {since:?}");
    }
}

#[test]
fn each_plan_has_one_point_of_no_return_and_it_is_the_first_write_that_cannot_be_taken_back() {
    let mut declared = release_facts();
    declared.delivery.objects[1].suspend_declared = true;
    let cases = [
        (upgrade_plan(&facts()), "release/resume/kustomization/flux-system/notes"),
        (upgrade_plan(&release_facts()), "release/resume/helmrelease/notes/notes"),
        // The parent lets go of what it declares as soon as it works again.
        (upgrade_plan(&declared), "release/resume/kustomization/flux-system/root"),
        (rollback_plan(), "swap/delete/data"),
    ];
    for (plan, expected) in cases {
        let found: Vec<&str> =
            plan.steps.iter().filter(|step| step.point_of_no_return).map(|step| step.id.as_str()).collect();
        assert_eq!(found, [expected]);
        for step in plan.steps.iter().take_while(|step| !step.point_of_no_return) {
            let changes =
                step.holds.is_some() || step.id.starts_with("commit/push") || step.id.starts_with("snapshot/take");
            assert!(!changes || step.undo.is_some(), "{} cannot be undone", step.id);
        }
    }
}

#[test]
fn everything_that_is_held_is_released_by_the_same_plan() {
    for plan in [upgrade_plan(&facts()), upgrade_plan(&release_facts()), rollback_plan()] {
        for step in plan.steps.iter().filter(|step| step.holds.is_some()) {
            let released = plan.steps.iter().any(|later| later.releases.contains(&step.id));
            assert!(released, "nothing releases {}", step.id);
        }
    }
}

#[test]
fn a_release_that_its_parent_lets_go_waits_for_the_caches_before() {
    let released = |facts: &AppFacts| {
        let ids = upgrade_plan(facts).steps.into_iter().map(|step| step.id);
        ids.filter(|id| id.starts_with("release/")).collect::<Vec<_>>()
    };
    let mut facts = release_facts();
    assert!(!released(&facts).contains(&"release/settle".into()), "its spec is waited for while it is held");
    facts.delivery.objects[1].suspend_declared = true;
    let expected = [
        "release/fetch/gitrepository/flux-system/apps",
        "release/settle",
        "release/resume/kustomization/flux-system/root",
        "release/spec/helmrelease/notes/notes",
        "release/resume/helmrelease/notes/notes",
    ];
    assert_eq!(released(&facts)[..expected.len()], expected);
}

#[test]
fn a_declared_suspend_holds_the_parent_too() {
    let mut facts = release_facts();
    let alone = roots(&facts.delivery, &[]);
    assert_eq!(alone.iter().map(|root| &root.object).collect::<Vec<_>>(), [&release()]);
    facts.delivery.objects[1].suspend_declared = true;
    let both = roots(&facts.delivery, &[]);
    assert_eq!(both.iter().map(|root| &root.object).collect::<Vec<_>>(), [&kustomization("root"), &release()]);
}

#[test]
fn what_an_inherited_operation_found_is_what_is_put_back() {
    let first = inputs(&upgrade_plan(&facts()));
    let (mut ask, mut facts) = rollback();
    ask.take_over = vec!["0f1e2d3c-op".into()];
    ask.inherited = vec![first];
    facts.workloads[0].replicas = 0;
    facts.claims[0].reclaim_policy = ReclaimPolicy::Retain;
    facts.delivery.objects[1].suspend = Some(true);
    facts.delivery.objects[1].held_by = Some("0f1e2d3c-op".into());
    facts.delivery.objects[1].held_as_found = Some(Some(false));
    let inherited = inputs(&app::rollback::plan(&ask, &facts).unwrap());
    assert_eq!(inherited.workloads[0].replicas, 2);
    assert_eq!(inherited.claims[0].reclaim_policy, ReclaimPolicy::Delete);
    assert_eq!(inherited.roots[0].as_found, Some(false));
    assert!(inherited.roots[0].adopted);
}

#[test]
fn a_claim_that_is_gone_is_made_anew_and_not_deleted() {
    let (ask, mut facts) = rollback();
    facts.claims[0].uid.clear();
    let plan = app::rollback::plan(&ask, &facts).unwrap();
    let ids = ids(&plan);
    assert!(!ids.contains(&"swap/delete/data") && !ids.contains(&"protect/data"), "{ids:?}");
    assert!(plan.step("swap/create/data").is_some_and(|(_, step)| step.point_of_no_return));
    // Its restored volume does not stay on Retain unsaid: it is held until its policy is put right.
    assert!(plan.step("restore/retain/data").is_some_and(|(_, step)| step.holds.is_some()));
    assert_eq!(plan.step("finish/unprotect/data").unwrap().1.releases, ["restore/retain/data"]);
}

#[test]
fn each_snapshot_is_restored_aside_before_the_commit_if_that_is_asked_for() {
    let mut ask = upgrade_to("1.1.0");
    ask.app.snapshots.verify_restore = true;
    let plan = upgrade::plan(&ask, &facts()).unwrap();
    let snapshots: Vec<&str> = ids(&plan).into_iter().filter(|id| id.starts_with("snapshot/")).collect();
    assert_eq!(
        snapshots,
        [
            "snapshot/take/data",
            "snapshot/verify/data",
            "snapshot/retain/data",
            "snapshot/restore/data",
            "snapshot/discard/data",
            "snapshot/record",
        ]
    );
    let tried = plan.step("snapshot/restore/data").unwrap().1;
    assert!(tried.undo.is_some() && tried.holds.is_some());
    assert_eq!(plan.step("snapshot/discard/data").unwrap().1.releases, ["snapshot/restore/data"]);
}

#[test]
fn everything_from_the_first_stop_to_the_record_shares_one_deadline() {
    for (consistency, from) in
        [(Consistency::Stopped, "stop/deployment/notes/notes"), (Consistency::Online, "snapshot/take/data")]
    {
        let mut ask = upgrade_to("1.1.0");
        ask.app.snapshots.consistency = consistency;
        let plan = upgrade::plan(&ask, &facts()).unwrap();
        let [stretch] = plan.stretches.as_slice() else { panic!("{:?}", plan.stretches) };
        assert_eq!((stretch.from.as_str(), stretch.to.as_str()), (from, "snapshot/record"));
        assert_eq!(stretch.deadline, ask.app.snapshots.deadline);
    }
    let mut without_data = facts();
    without_data.claims.clear();
    assert_eq!(upgrade_plan(&without_data).stretches, []);
}

#[test]
fn what_is_suspended_is_resumed_even_when_all_the_rest_is_let_go() {
    for plan in [upgrade_plan(&facts()), upgrade_plan(&release_facts()), rollback_plan()] {
        for step in &plan.steps {
            assert_eq!(step.outside, step.id.starts_with("suspend/"), "{}", step.id);
        }
    }
}

#[test]
fn the_heads_that_the_versions_were_read_at_are_recorded() {
    let heads = inputs(&upgrade_plan(&facts())).heads;
    assert_eq!(
        heads.iter().map(|head| (head.repository.as_str(), head.sha.as_str())).collect::<Vec<_>>(),
        [("apps", "c0")]
    );
}

#[test]
fn online_stops_nothing() {
    let mut ask = upgrade_to("1.1.0");
    ask.app.snapshots.consistency = Consistency::Online;
    let plan = upgrade::plan(&ask, &facts()).unwrap();
    assert!(!ids(&plan).iter().any(|id| id.starts_with("stop/") || id.starts_with("release/start")));
}

#[test]
fn an_upgrade_whose_rollback_could_not_be_stored_is_refused() {
    // As long as names and specs are where there are many claims.
    let name = |at: usize| format!("data-of-the-store-notes-database-{at}");
    let manifest = json!({
        "labels": {"app.kubernetes.io/name": "notes", "app.kubernetes.io/instance": "notes-production"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem",
                 "resources": {"requests": {"storage": "100Gi"}}},
    });
    let with_claims = |mut facts: AppFacts, count: usize| {
        let claims = (0..count).map(|at| ClaimFacts { manifest: manifest.clone(), ..claim(&name(at)) });
        facts.claims = claims.collect();
        facts.workloads[0].claims = facts.claims.iter().map(|claim| claim.name.clone()).collect();
        facts
    };
    for verify_restore in [false, true] {
        let mut ask = upgrade_to("1.1.0");
        ask.app.snapshots.verify_restore = verify_restore;
        let upgrade = |count| upgrade::plan(&ask, &with_claims(facts(), count));
        let most = (1..60).take_while(|count| upgrade(*count).is_ok()).last().unwrap();
        assert!((12..59).contains(&most), "{most} claims");
        assert!(matches!(upgrade(most + 1), Err(PlanError::TooLarge { .. })));
        let (mut ask, facts) = rollback();
        let copies = (0..most).map(|at| VolumeRecord {
            claim: name(at),
            claim_uid: format!("uid-of-{}", name(at)),
            manifest: manifest.clone(),
            ..ask.restore_point.volumes[0].clone()
        });
        ask.restore_point.volumes = copies.collect();
        app::rollback::plan(&ask, &with_claims(facts, most)).unwrap();
    }
}

#[test]
fn operations_collide_when_one_suspends_what_the_other_needs() {
    let mut other = inputs(&upgrade_plan(&facts()));
    other.app.name = "other".into();
    let mine = inputs(&upgrade_plan(&facts()));
    assert!(collide(&mine, &other), "both suspend the same object");
    let release = inputs(&upgrade_plan(&release_facts()));
    let mut neighbour = release.clone();
    neighbour.app.name = "neighbour".into();
    neighbour.roots[0].object.name = "neighbour".into();
    assert!(!collide(&release, &neighbour), "both need the same parent running");
    neighbour.roots[0].object = kustomization("root");
    assert!(collide(&release, &neighbour), "one suspends the parent that the other needs");
}

#[test]
fn names_are_deterministic_and_fit_a_label() {
    let plan = upgrade_plan(&facts());
    assert_eq!(inputs(&plan).restore_point, "notes-0f1e2d3c");
    assert_eq!(plan.hash, upgrade_plan(&facts()).hash);
    let long = crate::app::build::derived_name("a-rather-long-name-of-an-app", "0f1e2d3c-op", &"x".repeat(60));
    assert!(long.len() <= 63, "{long}");
}
