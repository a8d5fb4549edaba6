//! `windlass rollback`: says what would be lost before it asks for it.

use jiff::Timestamp;
use kube::ResourceExt as _;
use windlass_api::{
    ManagedApp, Outcome, RestorePoint, RollbackData, RollbackRequestSpec, RollbackTo, Subject, UpgradeRequest,
};

use super::upgrade::{make_and_follow, may_begin};
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::request::{Draft, Request, of_app};
use crate::text::{ago, clean, components};
use crate::{Common, Exit, RollbackApp, RollbackWhat, Session, operator};

/// Where to go back to, and what that loses.
pub(super) struct Chosen {
    to: RollbackTo,
    /// For people, before anything is made.
    pub(super) loss: Vec<String>,
    /// Since when writes are lost, if data is restored.
    since: Option<Timestamp>,
    app: ManagedApp,
}

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    what: &RollbackWhat,
) -> Result<Exit, CliError> {
    let RollbackWhat::App { rollback: args, following } = what;
    let chosen = choose(session, cluster, args).await?;
    let mut spec = draft(session, args, &chosen);
    for line in &chosen.loss {
        session.printer.note(line);
    }
    if following.dry_run {
        return super::plan::show(session, cluster, common, Draft::Rollback(spec), args.asking.timeout, false).await;
    }
    operator::require(session, cluster, &common.operator_namespace).await?;
    may_begin(&chosen.app, following)?;
    if !following.yes {
        // --yes alone has read nothing, and is refused where something is lost.
        let flags = chosen.since.map_or("--yes".into(), |since| format!("--yes --acknowledge-loss-since {since}"));
        session.confirm("Go on?", &flags)?;
        // The loss was stated with its time, and a person has taken it.
        spec.acknowledge_loss_since = spec.acknowledge_loss_since.or(chosen.since);
    }
    make_and_follow(session, cluster, common, &Draft::Rollback(spec), following, args.asking.timeout).await
}

/// The request that the arguments ask for.
pub(super) fn draft(session: &Session, args: &RollbackApp, chosen: &Chosen) -> RollbackRequestSpec {
    RollbackRequestSpec {
        subject: Subject::managed_app(&args.name),
        to: chosen.to.clone(),
        data: args.data.into(),
        acknowledge_loss_since: args.acknowledge_loss_since,
        reason: args.asking.reason.clone(),
        requested_by: session.user.clone(),
        dry_run: None,
        accept: args.asking.accept.clone(),
        cancel: None,
    }
}

/// Finds where to go back to, and reads what that loses.
pub(super) async fn choose(session: &Session, cluster: &Cluster, args: &RollbackApp) -> Result<Chosen, CliError> {
    let app = cluster.app(session, &args.name).await?;
    let program = &session.program;
    let (to, point) = match (&args.to_request, &args.to) {
        (_, Some(point)) => {
            let to = RollbackTo { upgrade_request: None, restore_point: Some(point.clone()) };
            (to, Some(point.clone()))
        }
        (Some(upgrade), None) => {
            let hint = format!("see the history: {program} history {} -n {}", args.name, cluster.namespace);
            let found: UpgradeRequest = cluster.get(upgrade, &hint).await?;
            let point = found.status.as_ref().and_then(|status| status.restore_point.clone());
            (RollbackTo { upgrade_request: Some(upgrade.clone()), restore_point: None }, point)
        }
        (None, None) => {
            let requests = of_app(cluster, &args.name).await?;
            let upgrade =
                obvious(&requests).map_err(|why| CliError::NoObviousRollback { app: args.name.clone(), why })?;
            let point = upgrade.status.as_ref().and_then(|status| status.restore_point.clone());
            (RollbackTo { upgrade_request: Some(upgrade.name_any()), restore_point: None }, point)
        }
    };
    let point = match &point {
        Some(name) if args.to.is_some() => {
            let hint = format!("list them: {program} snapshots {} -n {}", args.name, cluster.namespace);
            Some(cluster.get::<RestorePoint>(name, &hint).await?)
        }
        // An upgrade that failed early names one that was never made.
        Some(name) => cluster.find::<RestorePoint>(name).await?,
        None => None,
    };
    let data: RollbackData = args.data.into();
    let place = match (&to.upgrade_request, &to.restore_point) {
        (Some(upgrade), _) => format!("the state before upgrade/{upgrade}"),
        (None, point) => format!("restore point {}", point.as_deref().unwrap_or_default()),
    };
    let mut loss = vec![format!("Roll back {}/{} to {place}.", cluster.namespace, args.name)];
    loss.extend(what_is_lost(data, point.as_ref(), session.clock.now()));
    let since = point.and_then(|point| point.spec.taken_at).filter(|_| data == RollbackData::Restore);
    Ok(Chosen { to, loss, since, app })
}

/// The upgrade that a rollback without a place is for: the last operation of the app, if that was one.
fn obvious(newest_first: &[Request]) -> Result<&UpgradeRequest, String> {
    let began = |request: &&Request| {
        let outcome = request.status().and_then(|status| status.outcome);
        let without_effect = matches!(
            outcome,
            Some(Outcome::NothingToDo | Outcome::Planned | Outcome::Refused | Outcome::Cancelled | Outcome::Undone)
        );
        !request.is_dry_run() && !without_effect && request.status().is_some_and(|status| status.plan.is_some())
    };
    let last = newest_first.iter().find(began);
    match last {
        None => Err("no upgrade of it has begun".into()),
        Some(Request::Upgrade(upgrade)) => {
            let status = upgrade.status.as_ref();
            let by = status.and_then(|status| status.rollback.as_deref());
            // A rollback that had no effect has put nothing right, also where nothing is listed as left.
            let is_undone = |request: &Request| {
                matches!(request, Request::Rollback(rollback) if Some(&*rollback.name_any()) == by)
                    && request.status().and_then(|status| status.outcome) != Some(Outcome::Succeeded)
            };
            match status.and_then(|status| status.outcome) {
                Some(Outcome::RolledBack)
                    if status.is_some_and(|status| status.leftovers.is_empty())
                        && !newest_first.iter().any(is_undone) =>
                {
                    Err(format!("its last upgrade, {}, was rolled back already", upgrade.name_any()))
                }
                _ => Ok(upgrade),
            }
        }
        Some(rollback) => Err(format!("the last operation was a rollback, {}", rollback.reference())),
    }
}

/// What each choice loses, in sentences.
fn what_is_lost(data: RollbackData, point: Option<&RestorePoint>, now: Timestamp) -> Vec<String> {
    let lines: Vec<String> = match (data, point) {
        (RollbackData::Keep, _) => vec![
            "The data is kept as it is: nothing is lost, but the old version starts on data that the new one may have changed."
                .into(),
        ],
        (RollbackData::Restore, None) => vec![
            "There is no restore point, so there is no data to bring back: the operator will refuse, unless none is needed (--data keep)."
                .into(),
        ],
        (RollbackData::Restore, Some(point)) => {
            let claims: Vec<&str> = point.spec.data.iter().map(|data| data.claim.name.as_str()).collect();
            let mut lines = vec![format!(
                "Restore point {} holds {} and {}.",
                point.name_any(),
                components(&point.spec.components),
                if claims.is_empty() { "no volumes".into() } else { format!("the volumes of {}", claims.join(", ")) },
            )];
            if !point.spec.void.is_empty() {
                lines.push(format!("It must not be used any more: {}", point.spec.void));
            }
            lines.push(match point.spec.taken_at {
                Some(at) => format!(
                    "EVERYTHING WRITTEN SINCE {at} ({} ago) IS LOST to the app; the replaced volumes are kept aside for a while.",
                    ago(Some(at), now)
                ),
                None => "Since when writes would be lost is not known: its volumes were not copied yet.".into(),
            });
            lines
        }
    };
    lines.iter().map(|line| clean(line)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::samples;

    fn ended(kind: &str, name: &str, outcome: &str) -> Request {
        let status = json!({"outcome": outcome, "plan": {}});
        let subject = json!({"kind": "ManagedApp", "name": "notes"});
        if kind == "upgrade" {
            let request: UpgradeRequest = samples::from(json!({
                "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "UpgradeRequest", "metadata": {"name": name},
                "spec": {"subject": subject, "target": {"components": {"chart": "1"}}}, "status": status}));
            request.into()
        } else {
            let request: windlass_api::RollbackRequest = samples::from(json!({
                "apiVersion": "upgrades.windlass.dev/v1alpha1", "kind": "RollbackRequest", "metadata": {"name": name},
                "spec": {"subject": subject, "to": {"upgradeRequest": "u"}, "data": "Keep"}, "status": status}));
            request.into()
        }
    }

    #[test]
    fn only_the_last_operation_is_rolled_back_without_naming_it() {
        let chosen = |requests: &[Request]| obvious(requests).map(UpgradeRequest::name_any);
        assert_eq!(chosen(&[ended("upgrade", "b", "Refused"), ended("upgrade", "a", "Succeeded")]), Ok("a".into()));
        assert_eq!(chosen(&[ended("upgrade", "a", "NeedsRollback")]), Ok("a".into()));
        assert_eq!(
            chosen(&[ended("rollback", "r", "Succeeded"), ended("upgrade", "a", "Succeeded")]),
            Err("the last operation was a rollback, rollback/r".into())
        );
        assert_eq!(
            chosen(&[ended("upgrade", "a", "RolledBack")]),
            Err("its last upgrade, a, was rolled back already".into())
        );
        let mut left = ended("upgrade", "a", "RolledBack");
        if let Request::Upgrade(upgrade) = &mut left {
            let leftover = json!({"what": "x", "object": "stop/x", "why": "x", "since": "2026-01-01T00:00:00Z"});
            upgrade.status.as_mut().unwrap().leftovers = vec![samples::from(leftover)];
        }
        assert_eq!(chosen(&[ended("rollback", "r", "Undone"), left.clone()]), Ok("a".into()));
        assert!(chosen(&[ended("rollback", "r", "Failed"), left]).is_err());
        let mut nothing_left = ended("upgrade", "a", "RolledBack");
        if let Request::Upgrade(upgrade) = &mut nothing_left {
            upgrade.status.as_mut().unwrap().rollback = Some("r".into());
        }
        assert_eq!(chosen(&[ended("rollback", "r", "Undone"), nothing_left]), Ok("a".into()));
        assert_eq!(chosen(&[]), Err("no upgrade of it has begun".into()));
    }

    #[test]
    fn the_loss_is_stated_with_its_time() {
        let points = samples::restore_points();
        assert_eq!(
            what_is_lost(RollbackData::Restore, points.first(), samples::now()),
            [
                "Restore point notes-2f6c holds chart=1.4.0 and the volumes of data-notes-0.",
                "EVERYTHING WRITTEN SINCE 2026-11-20T14:29:58Z (2s ago) IS LOST to the app; the replaced volumes are kept aside for a while.",
            ]
        );
        let void = what_is_lost(RollbackData::Restore, points.get(1), samples::now());
        assert_eq!(void[1], "It must not be used any more: the app was started again before the release");
        let mut forged = points[1].clone();
        forged.spec.void = "\u{1b}[1A\u{1b}[2KNothing is lost".into();
        forged.spec.components.insert("chart\r".into(), "1\u{9b}2K".into());
        let lines = what_is_lost(RollbackData::Restore, Some(&forged), samples::now());
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        assert!(what_is_lost(RollbackData::Keep, points.first(), samples::now())[0].contains("nothing is lost"));
        assert!(what_is_lost(RollbackData::Restore, None, samples::now())[0].contains("no restore point"));
    }
}
