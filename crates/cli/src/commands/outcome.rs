//! From a request to an exit code: followed to its end, and on into the rollback that took it over.

use serde_json::json;
use tokio::time::Instant;
use windlass_api::{Duration, Outcome};

use crate::cluster::Cluster;
use crate::error::{CliError, unless_closed};
use crate::follow::{End, follow};
use crate::request::{Request, RequestRef, rollback_of};
use crate::table::paint;
use crate::text::clean;
use crate::view::apps::outcome_style;
use crate::view::request::{RequestView, summary};
use crate::{Exit, OutputFormat, Session};

/// Follows, says how it ended, and maps that to the exit code.
pub(super) async fn until_the_end(
    session: &mut Session,
    cluster: &Cluster,
    format: OutputFormat,
    request: &Request,
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout.as_std()));
    let reference = &request.reference();
    let request = match follow(session, cluster, request, format, deadline).await? {
        End::Over(request) => request,
        other => return detached(session, cluster, format, reference, &other, timeout),
    };
    let Some(outcome) = outcome_of(&request) else { return Ok(Exit::Unknown) };
    if outcome != Outcome::RolledBack {
        return finished(session, format, &request, None, Exit::of_outcome(outcome));
    }
    say_how_it_ended(session, format, &request);
    // They are caught by now, so that nobody else ends a look that takes long.
    let found = tokio::select! {
        biased;
        exit = session.signals.next() => {
            return detached(session, cluster, format, reference, &End::Signal(exit), timeout);
        }
        found = rollback_of(cluster, &request) => found?,
    };
    let Some(rollback) = found else {
        session.printer.note("The rollback that took over is not there any more: how it ended is not known.");
        return finished(session, format, &request, None, Exit::Unknown);
    };
    if format != OutputFormat::Json {
        session.printer.note(&format!("Following {}.", rollback.reference()));
    }
    match follow(session, cluster, &rollback, format, deadline).await? {
        End::Over(after) => {
            let exit = outcome_of(&after).map_or(Exit::Unknown, Exit::of_rollback_after_failure);
            finished(session, format, &request, Some(&after), exit)
        }
        other => detached(session, cluster, format, &rollback.reference(), &other, timeout),
    }
}

fn outcome_of(request: &Request) -> Option<Outcome> {
    request.status().and_then(|status| status.outcome)
}

/// One line on standard error: the most important one comes last.
fn say_how_it_ended(session: &mut Session, format: OutputFormat, request: &Request) {
    if format == OutputFormat::Json {
        return;
    }
    let Some(outcome) = outcome_of(request) else { return };
    let message = request.status().and_then(|status| status.message.clone()).unwrap_or_default();
    let word = paint(&format!("{outcome:?}"), outcome_style(outcome), session.printer.color_err());
    session.printer.note(&format!("{}: {word}: {}", request.reference(), clean(&message)));
}

/// The result: of the request, and of the rollback that took it over.
fn finished(
    session: &mut Session,
    format: OutputFormat,
    request: &Request,
    rollback: Option<&Request>,
    exit: Exit,
) -> Result<Exit, CliError> {
    let (request, rollback) = (RequestView::from(request), rollback.map(RequestView::from));
    let value = json!({"request": request, "rollback": rollback, "exitCode": exit.code()});
    unless_closed(match format {
        OutputFormat::Json => session.printer.json_line("Result", &value),
        _ => session.printer.result(format, "Result", &value, |color| {
            let mut text = summary(&request, color);
            if let Some(rollback) = &rollback {
                text.push('\n');
                text.push_str(&summary(rollback, color));
            }
            text
        }),
    })?;
    if exit != Exit::Done {
        let next = next_command(&request, rollback.as_ref(), &session.program);
        if format == OutputFormat::Table && !next.is_empty() {
            session.printer.note(&format!("Next: {}", clean(&next)));
        }
    }
    Ok(exit)
}

/// What a person may do after a bad end. Only an upgrade that passed its point of no return can be rolled back; one that failed before
/// it has left something, and its restore point is void.
fn next_command(request: &RequestView, rollback: Option<&RequestView>, program: &str) -> String {
    let (app, namespace) = (&request.app, &request.namespace);
    let last = rollback.unwrap_or(request);
    let without_effect = matches!(last.outcome, Some(Outcome::Refused | Outcome::Cancelled | Outcome::Undone));
    match (last.outcome, request.request.split_once('/')) {
        (_, Some(("upgrade", name)))
            if last.outcome == Some(Outcome::NeedsRollback) || (without_effect && rollback.is_some()) =>
        {
            format!(
                "choose: {program} rollback app {app} -n {namespace} --to-request {name} [--data keep], or leave it as it is"
            )
        }
        (Some(Outcome::Failed), _) => format!("see what is left: {program} show app {app} -n {namespace}"),
        _ => String::new(),
    }
}

/// The operation goes on without us.
fn detached(
    session: &mut Session,
    cluster: &Cluster,
    format: OutputFormat,
    reference: &RequestRef,
    end: &End,
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let (exit, why) = match end {
        End::Signal(exit) => (*exit, "detached".to_owned()),
        End::Unread => (Exit::Unknown, "nobody reads the output any more".to_owned()),
        _ => (Exit::Unknown, format!("not over after {}", timeout.unwrap_or_default())),
    };
    leave(session, cluster, format, reference, &format!("{why}; the operation goes on"), exit)
}

/// Leaves a request to itself: says why and how to go on with it, also in place of a result.
pub(super) fn leave(
    session: &mut Session,
    cluster: &Cluster,
    format: OutputFormat,
    reference: &RequestRef,
    why: &str,
    exit: Exit,
) -> Result<Exit, CliError> {
    let (program, namespace) = (&session.program, &cluster.namespace);
    let again = format!("{program} wait {reference} -n {namespace}");
    let text = format!(
        "{reference}: {why}.\n  follow it again: {again}\n  cancel it: {program} cancel {reference} -n {namespace}"
    );
    session.printer.note(&text);
    detached_document(session, cluster, format, reference, why, Some(&again), exit)
}

/// What is written in place of a result by a command that leaves before there is one.
pub(super) fn detached_document(
    session: &mut Session,
    cluster: &Cluster,
    format: OutputFormat,
    reference: &RequestRef,
    why: &str,
    again: Option<&str>,
    exit: Exit,
) -> Result<Exit, CliError> {
    let value = json!({
        "request": reference.to_string(), "namespace": cluster.namespace, "reason": why, "followAgain": again,
        "exitCode": exit.code(),
    });
    unless_closed(match format {
        OutputFormat::Table => Ok(()),
        OutputFormat::Json => session.printer.json_line("Detached", &value),
        OutputFormat::Yaml => session.printer.result(format, "Detached", &value, |_| String::new()),
    })?;
    Ok(exit)
}
