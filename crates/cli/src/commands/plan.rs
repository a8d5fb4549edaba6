//! `windlass plan`: a request that only plans is made, shown, and deleted again.

use serde_json::json;
use tokio::time::Instant;
use windlass_api::{Duration, Outcome};

use super::make::{Made, make};
use super::outcome::detached_document;
use super::{rollback, upgrade};
use crate::cluster::Cluster;
use crate::error::{CliError, unless_closed};
use crate::follow::{End, follow};
use crate::request::{Draft, Request, delete};
use crate::text::clean;
use crate::view::request::Shown;
use crate::{Common, Exit, OutputFormat, PlanRollback, PlanWhat, Session, operator};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    what: &PlanWhat,
    exit_code: bool,
) -> Result<Exit, CliError> {
    let (draft, timeout) = match what {
        PlanWhat::App(args) => {
            let app = cluster.app(session, &args.name).await?;
            (Draft::Upgrade(upgrade::draft(session, &app, args)?), args.asking.timeout)
        }
        PlanWhat::Rollback { what: PlanRollback::App(args) } => {
            let chosen = rollback::choose(session, cluster, args).await?;
            for line in &chosen.loss {
                session.printer.note(line);
            }
            (Draft::Rollback(rollback::draft(session, args, &chosen)), args.asking.timeout)
        }
    };
    show(session, cluster, common, draft, timeout, exit_code).await
}

/// Makes the plan through the operator and shows it.
pub(super) async fn show(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    mut draft: Draft,
    timeout: Option<Duration>,
    exit_code: bool,
) -> Result<Exit, CliError> {
    operator::require(session, cluster, &common.operator_namespace).await?;
    draft.set_dry_run();
    let request = match make(session, cluster, &draft).await? {
        Made::Request(request) => request,
        Made::Signal(exit, reference) => {
            let text = format!("Nothing was changed; {reference} may have been made, only plans and may be deleted.");
            session.printer.note(&text);
            return detached_document(session, cluster, common.output, &reference, "detached", None, exit);
        }
    };
    let reference = request.reference();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout.as_std()));
    // Only the plan is the result here, not the events on the way to it.
    let quiet = OutputFormat::Table;
    let end = follow(session, cluster, &request, quiet, deadline).await;
    // Whatever happened: what only planned must not lie around.
    let deleted = tokio::select! {
        biased;
        exit = session.signals.next() => {
            session.printer.note(&format!("{reference} only planned and may be deleted."));
            return detached_document(session, cluster, common.output, &reference, "detached", None, exit);
        }
        deleted = delete(cluster, &request) => deleted,
    };
    if let Err(error) = deleted {
        session.printer.note(&format!("{reference} only planned and may be deleted: {}", clean(&error.to_string())));
    }
    let (exit, why) = match end? {
        End::Over(request) => return print(session, common, &request, exit_code),
        End::Signal(exit) => (exit, "detached".to_owned()),
        _ => {
            let timeout = timeout.unwrap_or_default();
            session.printer.note(&format!("No plan after {timeout}. Nothing was changed."));
            (Exit::Unknown, format!("no plan after {timeout}"))
        }
    };
    detached_document(session, cluster, common.output, &reference, &why, None, exit)
}

fn print(session: &mut Session, common: &Common, request: &Request, exit_code: bool) -> Result<Exit, CliError> {
    let status = request.status().cloned().unwrap_or_default();
    let message = status.message.unwrap_or_default();
    let exit = match status.outcome {
        Some(Outcome::Planned) if exit_code => Exit::ChangesPending,
        Some(outcome) => Exit::of_outcome(outcome),
        None => Exit::Unknown,
    };
    let shown = Shown::of(request)?;
    let value = json!({"exitCode": exit.code(), "result": shown});
    unless_closed(session.printer.result(common.output, "Plan", &value, |color| match status.outcome {
        Some(Outcome::Planned) => shown.plan_text(color),
        _ => String::new(),
    }))?;
    match status.outcome {
        Some(Outcome::Planned) => {}
        Some(Outcome::NothingToDo) => session.printer.note(&format!("Nothing to do: {}", clean(&message))),
        Some(Outcome::Refused) => {
            session.printer.note("Refused; nothing was changed:");
            for refusal in refusals(&message) {
                session.printer.note(&format!("  - {refusal}"));
            }
        }
        // As when somebody else cancels it.
        Some(other) => session.printer.note(&format!("No plan: {other:?}: {}", clean(&message))),
        None => {}
    }
    Ok(exit)
}

/// The operator joins its refusals with `; `, each beginning with its code, as in `pin-not-utf8`.
fn refusals(message: &str) -> Vec<String> {
    let mut refusals: Vec<String> = Vec::new();
    for part in message.split("; ") {
        let code = part.split_once(": ").map(|(code, _)| code).unwrap_or_default();
        let begins = code.starts_with(|first: char| first.is_ascii_lowercase())
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match refusals.last_mut().filter(|_| !begins) {
            Some(last) => {
                last.push_str("; ");
                last.push_str(part);
            }
            None => refusals.push(part.to_owned()),
        }
    }
    refusals.iter().map(|refusal| clean(refusal)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_listed_one_a_line() {
        let message = "no-pins: the app names none (name some; in the spec); downgrade: chart 1 is older than 2";
        assert_eq!(
            refusals(message),
            ["no-pins: the app names none (name some; in the spec)", "downgrade: chart 1 is older than 2"]
        );
        let message = "downgrade: older; pin-not-utf8: latin.yaml; 2: not a code";
        assert_eq!(refusals(message), ["downgrade: older", "pin-not-utf8: latin.yaml; 2: not a code"]);
        assert_eq!(refusals("there is nothing to do"), ["there is nothing to do"]);
    }
}
