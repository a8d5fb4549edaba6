//! What a target changes about claims and workloads: seen, refused, and accepted by name.

use super::builders::{claim, deployment, facts, kustomization, piece, release, release_facts, rollback, upgrade_to};
use super::world::{Setup, Trouble, World};
use crate::app::changes::{blind_spots, changes};
use crate::app::facts::AppFacts;
use crate::app::{preflight, upgrade};
use crate::engine::Outcome;
use crate::ports::{ObjectRef, Piece, Rendered, Rendering, WorkloadKind};

fn pvc(name: &str) -> ObjectRef {
    ObjectRef::new("", "PersistentVolumeClaim", "notes", name)
}

fn set(name: &str) -> ObjectRef {
    ObjectRef::new("apps", "StatefulSet", "notes", name)
}

/// The ordinary app, which delivers `delivered` and would deliver `pieces`.
fn rendering(delivered: &[ObjectRef], pieces: Vec<Piece>) -> AppFacts {
    let mut facts = facts();
    let rendered = Rendered::Pieces(pieces);
    facts.renderings = vec![Rendering { of: kustomization("notes"), delivered: delivered.to_vec(), rendered }];
    facts
}

fn names(facts: &AppFacts) -> Vec<String> {
    changes(facts).into_iter().map(|change| change.name).collect()
}

#[test]
fn each_change_of_a_claim_or_a_workload_has_its_name() {
    let web = deployment();
    let claims = |name: &str| piece(&pvc(name), &[]);
    let elsewhere = piece(&ObjectRef::new("", "PersistentVolumeClaim", "elsewhere", "x"), &[]);
    let renamed = Piece { claim_templates: vec!["store".into()], ..piece(&set("notes"), &["data"]) };
    let cases: Vec<(&[&str], Vec<Piece>)> = vec![
        (&[], vec![piece(&web, &["data"]), claims("data")]),
        (&["drop-claim/data"], vec![piece(&web, &["data"])]),
        (&["drop-claim/data"], vec![piece(&web, &[]), claims("data")]),
        (&["add-claim/more"], vec![piece(&web, &["data", "more"]), claims("data")]),
        (&["add-claim/other", "drop-claim/data"], vec![piece(&web, &["other"]), claims("other")]),
        (&["remove-workload/Deployment/notes"], vec![claims("data")]),
        (&["add-claim/store-notes-0", "remove-workload/Deployment/notes"], vec![claims("data"), renamed]),
        // What is in another namespace is a neighbour's.
        (&[], vec![piece(&web, &["data"]), claims("data"), elsewhere]),
    ];
    for (expected, pieces) in cases {
        let facts = rendering(&[web.clone(), pvc("data")], pieces);
        assert_eq!(names(&facts), expected, "{:?}", facts.renderings);
    }
}

#[test]
fn the_claims_of_a_stateful_set_are_known_by_their_templates() {
    let with = |templates: &[&str]| {
        let claim_templates = templates.iter().map(|one| (*one).to_owned()).collect();
        let mut facts = rendering(&[set("db")], vec![Piece { claim_templates, ..piece(&set("db"), &[]) }]);
        facts.workloads[0].object = set("db");
        facts.workloads[0].kind = WorkloadKind::StatefulSet;
        facts.workloads[0].claims = vec!["data-db-0".into(), "data-db-1".into()];
        facts.claims = vec![claim("data-db-0"), claim("data-db-1")];
        names(&facts)
    };
    assert_eq!(with(&["data"]), [""; 0]);
    assert_eq!(with(&["data", "log"]), ["add-claim/log-db-0"]);
    assert_eq!(with(&["dat"]), ["add-claim/dat-db-0", "drop-claim/data-db-0", "drop-claim/data-db-1"]);
}

#[test]
fn what_cannot_be_rendered_is_refused_where_volumes_are_and_told_elsewhere() {
    let mut plain = facts();
    let unknown = |of| Rendering { of, delivered: Vec::new(), rendered: Rendered::Unknown("it has components".into()) };
    plain.renderings = vec![unknown(kustomization("notes"))];
    assert_eq!(names(&plain), ["unrendered/Kustomization/notes"]);
    assert_eq!(blind_spots(&plain), [""; 0]);
    plain.claims.clear();
    assert_eq!(names(&plain), [""; 0]);
    assert_eq!(blind_spots(&plain).len(), 1);
    let mut chart = release_facts();
    chart.renderings = vec![unknown(release())];
    assert_eq!(names(&chart), [""; 0]);
    assert!(blind_spots(&chart)[0].contains("it has components"));
    assert!(preflight::upgrade(&upgrade_to("1.1.0"), &chart).warnings.iter().any(|one| one.contains("components")));
}

#[test]
fn a_change_is_refused_until_it_is_accepted_by_its_name_and_a_typo_accepts_nothing() {
    let facts = rendering(&[deployment(), pvc("data")], vec![piece(&set("other"), &[])]);
    let codes = |accepted: &[&str]| {
        let mut ask = upgrade_to("1.1.0");
        ask.app.versions.accepted_claim_changes = accepted.iter().map(|name| (*name).to_owned()).collect();
        let verdict = preflight::upgrade(&ask, &facts);
        verdict.refusals.into_iter().map(|refusal| refusal.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&[]), ["claims-would-change", "workloads-would-change"]);
    assert_eq!(codes(&["drop-claim/data"]), ["workloads-would-change"]);
    assert_eq!(codes(&["drop-claim/data", "remove-workload/Deployment/notes"]), [""; 0]);
    let typo = codes(&["drop-claim/dta", "remove-workload/Deployment/notes"]);
    assert_eq!(typo, ["accept-unknown", "claims-would-change"]);
    let (mut ask, facts) = rollback();
    ask.app.versions.accepted_claim_changes = vec!["drop-claim/data".into()];
    assert_eq!(preflight::rollback(&ask, &facts).refusals[0].code, "accept-unknown");
}

#[test]
fn a_removed_workload_is_stopped_and_not_put_back_and_its_hold_ends() {
    let facts = rendering(&[deployment(), pvc("data")], vec![piece(&pvc("data"), &[])]);
    let mut ask = upgrade_to("1.1.0");
    ask.app.versions.accepted_claim_changes = vec!["remove-workload/Deployment/notes".into()];
    let plan = upgrade::plan(&ask, &facts).unwrap();
    let ids: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert!(ids.contains(&"stop/deployment/notes/notes") && ids.contains(&"release/freeze/deployment/notes/notes"));
    assert!(!ids.iter().any(|id| id.starts_with("release/start")), "{ids:?}");
    for step in plan.steps.iter().filter(|step| step.holds.is_some()) {
        assert!(plan.steps.iter().any(|later| later.releases.contains(&step.id)), "nothing releases {}", step.id);
    }
    let inputs = upgrade::inputs(&ask, &facts);
    assert_eq!(inputs.watched, []);
    assert_eq!(inputs.accepted, ["remove-workload/Deployment/notes"]);
}

#[test]
fn a_workload_without_data_that_the_target_drops_is_neither_accepted_nor_waited_for() {
    let worker = ObjectRef { name: "worker".into(), ..deployment() };
    let mut facts = rendering(&[deployment(), worker.clone()], vec![piece(&deployment(), &["data"])]);
    let mut found = facts.workloads[0].clone();
    (found.object, found.claims) = (worker.clone(), Vec::new());
    facts.workloads.push(found);
    let ask = upgrade_to("1.1.0");
    let verdict = preflight::upgrade(&ask, &facts);
    assert!(verdict.passed(), "{:?}", verdict.refusals);
    assert!(verdict.warnings.iter().any(|one| one.contains("worker is not in the target")), "{:?}", verdict.warnings);
    let inputs = upgrade::inputs(&ask, &facts);
    assert_eq!(inputs.watched, [deployment()]);
    assert_eq!(inputs.accepted, ["remove-workload/Deployment/worker"], "where it stays, it is not looked at");
    // Not knowing what is delivered is no reason to leave anything out.
    facts.renderings[0].rendered = Rendered::Unknown("it has components".into());
    assert_eq!(upgrade::inputs(&ask, &facts).watched, [deployment(), worker]);
}

#[test]
fn a_claim_that_the_target_drops_leaves_its_volume_on_retain() {
    let world = World::new(Setup::default());
    {
        let mut state = world.state();
        state.renders = Some(vec![piece(&deployment(), &[])]);
        state.accepts = vec!["drop-claim/data".into()];
    }
    let journey = world.upgrade(Trouble {
        meddle: Some(("verify/soak", |state| {
            state.storage.claims.remove("data");
        })),
        ..Trouble::default()
    });
    assert_eq!(journey.outcome(), &Outcome::Succeeded);
    assert_eq!(journey.journal.evidence("finish/unprotect/data")["stays"], "Retain");
    assert!(world.state().storage.volumes.contains_key("pv-data"));
}
