//! Follows a request until its end, a signal, or the time that was given. The operation itself is never touched.

mod progress;

use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, interval};

use progress::{Change, Progress};

use crate::cluster::Cluster;
use crate::error::CliError;
use crate::printer::document;
use crate::request::{Request, RequestRef, watch};
use crate::text::{clean, instant};
use crate::{Exit, OutputFormat, Session};

/// How often a live line is drawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a line is written when nothing changes, so that nobody takes silence for death.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often losing sight of the request is reported.
const COMPLAINT: Duration = Duration::from_secs(10);

/// How following ended.
pub(crate) enum End {
    /// The request has an outcome.
    Over(Box<Request>),
    /// A signal came.
    Signal(Exit),
    /// The time was over.
    Timeout,
    /// Nobody reads the changes any more.
    Unread,
}

/// Follows this request, and no other of its name, until the end; `deadline` ends it sooner. With JSON the changes are
/// results, otherwise progress.
pub(crate) async fn follow(
    session: &mut Session,
    cluster: &Cluster,
    request: &Request,
    format: OutputFormat,
    deadline: Option<Instant>,
) -> Result<End, CliError> {
    session.signals.catch()?;
    let reference = &request.reference();
    let uid = request.meta().uid.as_deref();
    let mut stream = watch(cluster, reference);
    let mut progress = Progress::default();
    let mut complained: Option<Instant> = None;
    let mut said = Instant::now();
    let mut ticks = interval(REDRAW);
    let timeout = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    loop {
        tokio::select! {
            biased;
            exit = session.signals.next() => return Ok(End::Signal(exit)),
            item = stream.next() => match item {
                Some(Ok(Some(request))) if request.meta().uid.as_deref() == uid => {
                    complained = None;
                    let mut unread = false;
                    for change in progress.advance(&request) {
                        said = Instant::now();
                        match show(session, reference, &change, format) {
                            Err(error) if error.is_closed_output() => unread = true,
                            shown => shown?,
                        }
                    }
                    if request.status().is_some_and(|status| status.outcome.is_some()) {
                        session.printer.clear_live();
                        return Ok(End::Over(Box::new(request)));
                    }
                    if unread {
                        return Ok(End::Unread);
                    }
                }
                // Another one of this name is not the one that was there.
                Some(Ok(_)) | None => return Err(CliError::Gone { request: reference.to_string() }),
                Some(Err(error)) => {
                    if let Some(refused) = refusal(&error) {
                        return Err(CliError::Api(refused(reference, &cluster.namespace)));
                    }
                    if complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
                        complained = Some(Instant::now());
                        let error = clean(&error.to_string());
                        session.printer.note(&format!("lost sight of {reference}, looking again: {error}"));
                    }
                }
            },
            () = &mut timeout => return Ok(End::Timeout),
            _ = ticks.tick() => {
                let now = session.clock.now();
                if session.printer.is_live() && format != OutputFormat::Json {
                    session.printer.show_live(&progress.live(now));
                } else if said.elapsed() >= HEARTBEAT && format != OutputFormat::Json {
                    said = Instant::now();
                    session.printer.note(&format!("{}  still: {}", instant(now), progress.live(now)));
                }
            }
        }
    }
}

/// A missing right does not come back by waiting.
fn refusal(
    error: &kube::runtime::watcher::Error,
) -> Option<impl FnOnce(&RequestRef, &str) -> windlass_api::call::CallError> {
    use kube::runtime::watcher::Error;
    use windlass_api::call::CallError;
    let status = match error {
        Error::InitialListFailed(kube::Error::Api(status)) | Error::WatchStartFailed(kube::Error::Api(status)) => {
            status
        }
        _ => return None,
    };
    let status = (status.code == 403).then(|| status.clone())?;
    Some(move |reference: &RequestRef, namespace: &str| {
        let resource = format!("{}s.{}", reference.kind.as_str().to_ascii_lowercase(), windlass_api::GROUP);
        CallError::on_resource("watch", &resource, namespace, &reference.name)(kube::Error::Api(status))
    })
}

fn show(session: &mut Session, reference: &RequestRef, change: &Change, format: OutputFormat) -> Result<(), CliError> {
    let now = session.clock.now();
    let printer = &mut session.printer;
    match format {
        OutputFormat::Json => return printer.out(&format!("{}\n", event(reference, change, now)?)),
        _ if printer.is_live() && change.is_fleeting() => {}
        _ if printer.is_live() => printer.note(&change.line(printer.color_err())),
        _ => printer.note(&format!("{}  {}", instant(now), change.line(printer.color_err()))),
    }
    Ok(())
}

/// One line of JSON for a change.
fn event(reference: &RequestRef, change: &Change, now: Timestamp) -> Result<serde_json::Value, CliError> {
    let mut value = document("Event", &json!({"time": now, "request": reference.to_string()}))?;
    let fields = serde_json::to_value(change)
        .map_err(|error| CliError::Format { format: "JSON", message: error.to_string() })?;
    if let (Some(value), serde_json::Value::Object(fields)) = (value.as_object_mut(), fields) {
        value.extend(fields);
    }
    Ok(value)
}
