//! The list of journeys.

mod checks;
mod ended;
mod failing;
mod killed;
mod meddling;
mod neighbours;
mod refusals;
mod rollbacks;
mod succeeding;
mod traps;

use futures::future::LocalBoxFuture;

use crate::world::World;

/// One journey: what it is called, and what is done and seen.
pub(crate) struct Journey {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a World) -> LocalBoxFuture<'a, anyhow::Result<String>>,
}

macro_rules! journey {
    ($name:literal, $path:path) => {
        Journey { name: $name, run: |world| Box::pin($path(world)) }
    };
}

/// All of them, in the order they are run.
pub(crate) const ALL: &[Journey] = &[
    journey!("01-deployment-by-kustomization", succeeding::deployment),
    journey!("02-statefulset-by-helmrelease", succeeding::statefulset),
    journey!("03-never-ready-is-rolled-back", failing::never_ready),
    journey!("03-statefulset-never-ready-is-rolled-back", traps::never_ready),
    journey!("03-git-unreachable-after-the-push", failing::git_unreachable),
    journey!("03-fails-in-the-soak-asks", failing::fails_in_the_soak),
    journey!("03-fails-in-the-soak-always", failing::fails_in_the_soak_always),
    journey!("04-a-person-rolls-back", succeeding::a_person_rolls_back),
    journey!("04-to-an-older-restore-point", rollbacks::to_an_older_point),
    journey!("04-during-verify", rollbacks::during_verify),
    journey!("05-a-snapshot-never-gets-ready", failing::snapshot_never_ready),
    journey!("06-an-unrelated-push", meddling::unrelated_push),
    journey!("06-our-own-line-superseded", meddling::superseded),
    journey!("07-refusals", refusals::refusals),
    journey!("07-a-rollback-where-an-upgrade-is-refused", refusals::rollback_works),
    journey!("08-dry-run-changes-nothing", succeeding::dry_run),
    journey!("09-cancel", meddling::cancel),
    journey!("09-cancel-after-the-push", meddling::cancel_after_the_push),
    journey!("09-deletion", meddling::deletion),
    journey!("09-cancel-in-a-rollback", rollbacks::cancel),
    journey!("09-deletion-in-a-rollback", rollbacks::deletion),
    journey!("10-killed", killed::killed),
    journey!("10-terminated", meddling::terminated),
    journey!("11-neighbours", neighbours::both_at_once),
    journey!("11-a-neighbour-fails", neighbours::failure),
    journey!("traps-19-stalled-and-suspended", traps::stalled),
    journey!("traps-20-success-without-pods", traps::success_without_pods),
    journey!("traps-21-replicas-too-early", traps::replicas_too_early),
    journey!("traps-22-helm-timeout", traps::timeout_by_state),
];
