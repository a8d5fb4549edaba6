//! Whether Git, the sources and the live objects agree: what does not, cannot be told apart from what an upgrade changes.

use super::Verdict;
use crate::app::AppSpec;
use crate::app::facts::{AppFacts, fetches, same_repository};
use crate::image;
use crate::ports::{
    DeliveryFacts, DeliveryObject, DeliveryRole, ObjectRef, PinValue, Readiness, Repository, SourceFacts,
};
use crate::version::or_no_version;

/// Every pin must show in the cluster, with Git's value: what does not show cannot be gated.
pub(super) fn git_is_live(verdict: &mut Verdict, facts: &AppFacts) {
    for found in facts.repositories.iter().flat_map(|repository| &repository.pins) {
        let component = &found.pin.component;
        let mut shown = facts.live.iter().filter(|carrier| carrier.component == *component).peekable();
        if shown.peek().is_none() {
            let message = format!("{component} was not found in any live object");
            verdict.refuse("pin-not-live", message, "name the field that the live object takes its version from");
        }
        for carrier in shown {
            match &carrier.shows {
                Some(value) if *value == found.value => {}
                Some(value) => {
                    let (git, live) = (&found.value, or_no_version(value));
                    let message = format!("{component} is {git} in Git and {live} in {}", carrier.object);
                    verdict.refuse(
                        "live-differs-from-git",
                        message,
                        "let the delivery settle, or find out who changed it",
                    );
                }
                None => {
                    let message = format!("{component} cannot be told from {}", carrier.object);
                    verdict.refuse(
                        "pin-not-live",
                        message,
                        "name the field that the live object takes its version from",
                    );
                }
            }
        }
    }
}

/// Health is judged by the images that a pin is about. What that judgement cannot recognise today, it would wait for in vain once
/// the release cannot be taken back.
pub(super) fn images_are_pinned(verdict: &mut Verdict, facts: &AppFacts) {
    let pins = facts.repositories.iter().flat_map(|repository| &repository.pins);
    for found in pins.filter(|found| found.pin.component.starts_with("image/")) {
        let pin = PinValue { pin: found.pin.clone(), value: found.value.clone() };
        let (component, value) = (&pin.pin.component, &pin.value);
        let mut is_about_any = false;
        for workload in facts.workloads.iter().filter(|workload| workload.delivered) {
            for (container, reference) in &workload.images {
                if !image::belongs(&pin, container, reference) {
                    continue;
                }
                is_about_any = true;
                if !image::runs(&pin, reference) {
                    let object = &workload.object;
                    let message = format!("{component} is {value} in Git, and {object} has the image {reference}");
                    let hint = "let the delivery settle; the image's tag must be the value as it stands in Git";
                    verdict.refuse("image-differs-from-pin", message, hint);
                }
            }
        }
        if !is_about_any {
            let message = format!("no container of the app has an image that {component} is the version of");
            let hint = "call the component image/REPOSITORY, by the last part of the image's repository";
            verdict.refuse("pin-without-container", message, hint);
        }
    }
}

pub(super) fn sources(verdict: &mut Verdict, spec: &AppSpec, facts: &AppFacts) {
    if facts.delivery.sources.is_empty() {
        verdict.refuse("no-git-source", "no Git source was found above the app", "only sources in Git can be gated");
    }
    for repository in &spec.repositories {
        is_fetched(verdict, facts, repository);
    }
    comes_from_ours(verdict, spec, facts);
    let ours = |source: &&SourceFacts| spec.repositories.iter().any(|repository| fetches(source, repository));
    for source in facts.delivery.sources.iter().filter(ours) {
        if source.commit.is_none() {
            let message = format!("{} has no artifact yet", source.object);
            verdict.refuse("source-without-artifact", message, "wait until it has fetched once");
        }
    }
}

/// What is written must be what some source fetches, and takes.
pub(super) fn is_fetched(verdict: &mut Verdict, facts: &AppFacts, repository: &Repository) {
    let sources = &facts.delivery.sources;
    for source in sources.iter().filter(|source| source.verifies && fetches(source, repository)) {
        let message = format!("{} accepts signed commits only, and Windlass cannot sign here", source.object);
        verdict.refuse("source-verifies", message, "commit the versions by hand, or take spec.verify off the source");
    }
    if sources.is_empty() || sources.iter().any(|source| fetches(source, repository)) {
        return;
    }
    match sources.iter().find(|source| same_repository(&source.url, &repository.url)) {
        None => {
            let message = format!("no source of the app reads {}", repository.name);
            let hint = "name the repository that the app's GitRepository reads";
            verdict.refuse("repository-not-the-source", message, hint);
        }
        Some(SourceFacts { object, branch: Some(branch), .. }) => {
            let message = format!("{object} follows branch {branch}, and {} would be written", repository.branch);
            verdict.refuse("branch-not-the-source", message, "write the branch that is delivered");
        }
        Some(SourceFacts { object, branch: None, .. }) => {
            let message = format!("{object} follows a tag, a range or a commit, not a branch");
            verdict.refuse("source-not-a-branch", message, "let it follow a branch");
        }
    }
}

/// What brings the app's own objects must come from a repository of the app: a source above that is another one is none of our
/// business, but through this one no commit of ours would ever arrive.
fn comes_from_ours(verdict: &mut Verdict, spec: &AppSpec, facts: &AppFacts) {
    let DeliveryFacts { objects, sources } = &facts.delivery;
    let find = |wanted: &ObjectRef| objects.iter().find(|object| object.object == *wanted);
    for own in objects.iter().filter(|object| object.own) {
        let applier = match own.role {
            DeliveryRole::Manifests => Some(own),
            DeliveryRole::Release => own.parent.as_ref().and_then(find),
        };
        let source = applier.and_then(|applier| applier.source.as_ref());
        let Some(source) = source.and_then(|wanted| sources.iter().find(|source| source.object == *wanted)) else {
            continue;
        };
        let reads = |repository: &Repository| same_repository(&source.url, &repository.url);
        if spec.repositories.iter().any(|repository| fetches(source, repository)) {
            continue;
        }
        match &source.branch {
            None => {
                let message = format!("{} follows a tag, a range or a commit, not a branch", source.object);
                verdict.refuse("source-not-a-branch", message, "let it follow a branch");
            }
            Some(branch) if spec.repositories.iter().any(reads) => {
                let message = format!("{} comes from branch {branch}, which the app does not name", own.object);
                verdict.refuse("branch-not-the-source", message, "write the branch that is delivered");
            }
            Some(_) => {
                let message =
                    format!("{} comes from {}, which reads no repository of the app", own.object, source.object);
                let hint = "name the repository that the app's GitRepository reads";
                verdict.refuse("repository-not-the-source", message, hint);
            }
        }
    }
}

/// A version that stands in one of the app's own objects is waited for there while that is suspended, so something else has to apply it.
/// What gets its version from an own object above it names none that could be waited for: it would be let go with the one of before.
pub(super) fn comes_before_it_is_let_go(verdict: &mut Verdict, facts: &AppFacts, from: &[PinValue], to: &[PinValue]) {
    let objects = &facts.delivery.objects;
    let find = |wanted: &ObjectRef| objects.iter().find(|object| object.object == *wanted);
    let changing = |object: &ObjectRef| {
        let mut changes = from.iter().zip(to).filter(|(from, to)| from.value != to.value);
        changes.find(|(from, _)| from.pin.shows_in(object)).map(|(from, _)| &from.pin.component)
    };
    for own in objects.iter().filter(|object| object.own) {
        let object = &own.object;
        if let Some(component) = changing(object) {
            // The same of a release is told by the delivery itself.
            if own.role == DeliveryRole::Manifests && own.parent.is_none() {
                let message =
                    format!("{object} carries the version of {component} itself, and nothing else applies it");
                verdict.refuse("not-from-git", message, "let another Kustomization apply it from Git");
            }
            continue;
        }
        let above = std::iter::successors(Some(own), |object| object.parent.as_ref().and_then(find));
        for parent in above.skip(1).take(objects.len()).filter(|parent| parent.own) {
            if let Some(component) = changing(&parent.object) {
                let parent = &parent.object;
                let message = format!(
                    "{parent} carries the version of {component} and applies {object}, which could be let go with the one of before"
                );
                let hint = "let each object of the app name its own version, and pin it there";
                verdict.refuse("version-through-parent", message, hint);
            }
        }
    }
}

pub(super) fn parent_is_ready(verdict: &mut Verdict, object: &DeliveryObject) {
    match &object.readiness {
        Readiness::Ready => {}
        Readiness::NotReady(why) if object.own => {
            verdict.warnings.push(format!("{} is not ready: {why}", object.object));
        }
        Readiness::NotReady(why) => {
            let message = format!("{} is not ready: {why}", object.object);
            verdict.refuse(
                "parent-not-ready",
                message,
                "repair it first: a failure of its own would look like the app's",
            );
        }
        Readiness::Unknown => {
            let message = format!("{} does not say whether it is ready", object.object);
            verdict.refuse("readiness-unknown", message, "wait until it has been reconciled once");
        }
    }
}
