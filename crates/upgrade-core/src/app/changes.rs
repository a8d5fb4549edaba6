//! What a target would change about volumes and about what is stopped for them, by name.
//!
//! A claim that is dropped takes its data with it, one that is added has no copy, and a workload that is gone cannot be put
//! back. Each change has a name, and an upgrade with changes begins only when a person accepts each of them by its name.

use super::facts::AppFacts;
use crate::ports::{DeliveryRole, ObjectRef, Piece, Rendered, Rendering, WorkloadFacts, WorkloadKind};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// How it is accepted: `drop-claim/data`, `add-claim/data`, `remove-workload/Deployment/notes`, `unrendered/Kustomization/notes`.
    pub name: String,
    /// The refusal it is while nobody accepts it.
    pub code: &'static str,
    /// What would happen, for people.
    pub what: String,
}

/// The name under which a dropped claim is accepted.
pub fn drop_claim(claim: &str) -> String {
    format!("drop-claim/{claim}")
}

/// The name under which a removed workload is accepted.
pub fn remove_workload(workload: &ObjectRef) -> String {
    format!("remove-workload/{}/{}", workload.kind, workload.name)
}

/// Everything that the target would change, sorted and each once.
pub fn changes(facts: &AppFacts) -> Vec<Change> {
    let mut found = Changes { facts, found: Vec::new() };
    for rendering in &facts.renderings {
        match &rendering.rendered {
            Rendered::Pieces(pieces) => found.compare(rendering, pieces),
            Rendered::Unknown(why) => found.unknown(rendering, why),
        }
    }
    found.found.sort();
    found.found.dedup_by(|one, other| one.name == other.name);
    found.found
}

/// Workloads without claims that the target does not have any more: nothing has to be accepted about them, and nothing is waited for.
pub fn passing(facts: &AppFacts) -> Vec<ObjectRef> {
    let goes = |workload: &&WorkloadFacts| {
        workload.claims.is_empty()
            && facts.renderings.iter().any(|rendering| match &rendering.rendered {
                Rendered::Pieces(pieces) => {
                    rendering.delivered.contains(&workload.object)
                        && !pieces.iter().any(|piece| piece.object == workload.object)
                }
                Rendered::Unknown(_) => false,
            })
    };
    facts.workloads.iter().filter(goes).map(|workload| workload.object.clone()).collect()
}

/// What cannot be rendered and is no reason to refuse: charts, which Helm alone can render, and objects of an app without volumes.
pub fn blind_spots(facts: &AppFacts) -> Vec<String> {
    let unknown = |rendering: &&Rendering| !is_refused(facts, rendering);
    let renderings = facts.renderings.iter().filter(unknown);
    renderings
        .filter_map(|rendering| match &rendering.rendered {
            Rendered::Unknown(why) => Some(format!(
                "what {} would deliver cannot be told, so dropped, added or renamed claims and workloads would not be seen: {why}",
                rendering.of
            )),
            Rendered::Pieces(_) => None,
        })
        .collect()
}

/// Whether not knowing what an object delivers has to be accepted by name.
fn is_refused(facts: &AppFacts, rendering: &Rendering) -> bool {
    let role = facts.delivery.objects.iter().find(|object| object.object == rendering.of).map(|object| object.role);
    role != Some(DeliveryRole::Release) && !facts.claims.is_empty()
}

struct Changes<'a> {
    facts: &'a AppFacts,
    found: Vec<Change>,
}

impl Changes<'_> {
    fn claim(&mut self, name: String, what: String) {
        self.found.push(Change { name, code: "claims-would-change", what });
    }

    fn unknown(&mut self, rendering: &Rendering, why: &str) {
        if is_refused(self.facts, rendering) {
            let name = format!("unrendered/{}/{}", rendering.of.kind, rendering.of.name);
            let what = format!("what {} would deliver cannot be told: {why}", rendering.of);
            self.found.push(Change { name, code: "rendering-unknown", what });
        }
    }

    fn compare(&mut self, rendering: &Rendering, pieces: &[Piece]) {
        let facts = self.facts;
        let is_claim = |object: &ObjectRef| object.group.is_empty() && object.kind == "PersistentVolumeClaim";
        let rendered = |object: &ObjectRef| pieces.iter().find(|piece| piece.object == *object);
        let exists = |name: &str| facts.claims.iter().any(|claim| claim.name == name && !claim.uid.is_empty());
        for object in rendering.delivered.iter().filter(|object| is_claim(object) && rendered(object).is_none()) {
            if self.is_here(object) {
                let what = format!("claim {} is not in {} any more: it would be deleted", object.name, rendering.of);
                self.claim(drop_claim(&object.name), what);
            }
        }
        let here: Vec<&Piece> = pieces.iter().filter(|piece| self.is_here(&piece.object)).collect();
        for piece in here {
            let object = &piece.object;
            if is_claim(object) && !rendering.delivered.contains(object) && !exists(&object.name) {
                let what = format!("claim {} would be made: no copy of it can be taken before", object.name);
                self.claim(format!("add-claim/{}", object.name), what);
            }
            let live = facts.workloads.iter().find(|workload| workload.object == *object);
            self.mounts(piece, live);
        }
        let mounting = facts.workloads.iter().filter(|workload| !workload.claims.is_empty());
        for workload in mounting.filter(|workload| rendering.delivered.contains(&workload.object)) {
            if rendered(&workload.object).is_none() {
                let what = format!("{} is not in {} any more, and mounts claims", workload.object, rendering.of);
                let name = remove_workload(&workload.object);
                self.found.push(Change { name, code: "workloads-would-change", what });
            }
        }
    }

    fn is_here(&self, object: &ObjectRef) -> bool {
        self.facts
            .claims
            .iter()
            .map(|claim| &claim.namespace)
            .chain(self.facts.workloads.iter().map(|workload| &workload.object.namespace))
            .any(|namespace| *namespace == object.namespace)
    }

    /// What a workload mounts now, and would mount.
    fn mounts(&mut self, piece: &Piece, live: Option<&WorkloadFacts>) {
        let object = &piece.object;
        let mounted = live.map(|live| live.claims.as_slice()).unwrap_or_default();
        let is_set = live.is_some_and(|live| live.kind == WorkloadKind::StatefulSet);
        let from_template =
            |claim: &str| is_set && piece.claim_templates.iter().any(|template| is_of(claim, template, &object.name));
        for claim in mounted.iter().filter(|claim| !piece.claims.contains(claim) && !from_template(claim)) {
            self.claim(drop_claim(claim), format!("{object} would not mount claim {claim} any more"));
        }
        let exists = |name: &str| self.facts.claims.iter().any(|claim| claim.name == name && !claim.uid.is_empty());
        let more = piece.claims.iter().filter(|claim| !mounted.contains(claim) && !exists(claim));
        let mut added: Vec<String> = more.cloned().collect();
        for template in &piece.claim_templates {
            if !mounted.iter().any(|claim| is_of(claim, template, &object.name)) {
                added.push(format!("{template}-{}-0", object.name));
            }
        }
        for claim in added {
            let what = format!("{object} would mount claim {claim}, of which there is no copy");
            self.claim(format!("add-claim/{claim}"), what);
        }
    }
}

/// Whether a claim is one that a StatefulSet makes from a template: `TEMPLATE-NAME-ORDINAL`.
fn is_of(claim: &str, template: &str, set: &str) -> bool {
    let rest = claim.strip_prefix(template).and_then(|rest| rest.strip_prefix('-'));
    let ordinal = rest.and_then(|rest| rest.strip_prefix(set)).and_then(|rest| rest.strip_prefix('-'));
    ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.chars().all(|one| one.is_ascii_digit()))
}
