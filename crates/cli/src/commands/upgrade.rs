//! `windlass upgrade`, and what it shares with `plan` and `rollback`: making a request and following it.

use std::collections::BTreeMap;

use serde_json::json;
use windlass_api::{Components, Duration, ManagedApp, Subject, UpgradeRequestSpec, UpgradeTarget};

use super::make::{Made, make};
use super::outcome::{leave, until_the_end};
use crate::cluster::Cluster;
use crate::error::{CliError, unless_closed};
use crate::request::Draft;
use crate::text::clean;
use crate::view::apps::{active, component_names};
use crate::{Common, Exit, Following, OutputFormat, Session, TargetArg, UpgradeApp, UpgradeWhat, operator};

pub(super) async fn run(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    what: &UpgradeWhat,
) -> Result<Exit, CliError> {
    let UpgradeWhat::App { upgrade: args, following } = what;
    let app = cluster.app(session, &args.name).await?;
    let spec = draft(session, &app, args)?;
    if following.dry_run {
        return super::plan::show(session, cluster, common, Draft::Upgrade(spec), args.asking.timeout, false).await;
    }
    operator::require(session, cluster, &common.operator_namespace).await?;
    may_begin(&app, following)?;
    // An upgrade destroys nothing, so that a script need not say --yes; a person at a terminal gets a moment to look.
    if session.answers.is_some() && !following.yes {
        let current = app.status.as_ref().map(|status| status.current.clone()).unwrap_or_default();
        let text = format!("Upgrade {}/{}: {}", cluster.namespace, args.name, steps(&current, &spec));
        session.printer.note(&clean(&text));
        let to: Vec<String> =
            spec.target.components.iter().map(|(name, version)| format!("{name}={version}")).collect();
        let plan = format!("{} plan app {} -n {} --to {}", session.program, args.name, cluster.namespace, to.join(","));
        session.printer.note(&clean(&format!("What that means, step by step: {plan}")));
        session.confirm("Go on?", "--yes")?;
    }
    make_and_follow(session, cluster, common, &Draft::Upgrade(spec), following, args.asking.timeout).await
}

/// The request that the arguments ask for.
pub(super) fn draft(session: &Session, app: &ManagedApp, args: &UpgradeApp) -> Result<UpgradeRequestSpec, CliError> {
    Ok(UpgradeRequestSpec {
        subject: Subject::managed_app(&args.name),
        target: UpgradeTarget { components: targets(&args.name, &component_names(app), &args.to)? },
        reason: args.asking.reason.clone(),
        requested_by: session.user.clone(),
        dry_run: None,
        auto_rollback: args.auto_rollback.map(Into::into),
        accept: args.asking.accept.clone(),
        cancel: None,
    })
}

/// Versions by component. A version alone is for the only component there is.
fn targets(app: &str, components: &[String], to: &[TargetArg]) -> Result<Components, CliError> {
    let mut targets = BTreeMap::new();
    for target in to {
        let component = match (&target.component, components) {
            (Some(component), _) => component,
            (None, [only]) => only,
            (None, several) => {
                return Err(CliError::ComponentNotNamed {
                    app: app.to_owned(),
                    components: several.to_vec(),
                    version: target.version.clone(),
                });
            }
        };
        if targets.insert(component.clone(), target.version.clone()).is_some() {
            return Err(CliError::ComponentTwice { component: component.clone() });
        }
    }
    Ok(targets)
}

fn steps(current: &Components, spec: &UpgradeRequestSpec) -> String {
    let steps = spec.target.components.iter().map(|(component, version)| {
        let from = current.get(component).map_or("?", String::as_str);
        format!("{component} {from} -> {version}")
    });
    steps.collect::<Vec<_>>().join(", ")
}

/// With `--no-queue` another operation is a reason not to begin. A courtesy: the operator is who lets one at a time work.
pub(super) fn may_begin(app: &ManagedApp, following: &Following) -> Result<(), CliError> {
    match active(app).filter(|_| following.no_queue) {
        Some(active) => {
            Err(CliError::Busy { app: app.metadata.name.clone().unwrap_or_default(), active: active.to_string() })
        }
        None => Ok(()),
    }
}

/// Makes the request; follows it, unless that is not wanted.
pub(super) async fn make_and_follow(
    session: &mut Session,
    cluster: &Cluster,
    common: &Common,
    draft: &Draft,
    following: &Following,
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let request = match make(session, cluster, draft).await? {
        Made::Request(request) => request,
        Made::Signal(exit, reference) => {
            let why = "detached before the answer came; it may have been made";
            return leave(session, cluster, common.output, &reference, why, exit);
        }
    };
    let reference = request.reference();
    if following.no_wait {
        let namespace = &cluster.namespace;
        let value = json!({"request": reference.to_string(), "namespace": namespace});
        unless_closed(session.printer.result(common.output, "Created", &value, |_| format!("{reference} created\n")))?;
        session.printer.note(&format!("Follow it: {} wait {reference} -n {namespace}", session.program));
        return Ok(Exit::Done);
    }
    if common.output == OutputFormat::Json {
        let value = json!({"request": reference.to_string(), "namespace": cluster.namespace});
        unless_closed(session.printer.json_line("Created", &value))?;
    } else {
        session.printer.note(&format!("{reference} created; Ctrl-C detaches, and the operation goes on."));
    }
    until_the_end(session, cluster, common.output, &request, timeout).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(words: &[&str]) -> Vec<TargetArg> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn a_version_alone_is_for_the_only_component() {
        let one = ["chart".to_owned()];
        assert_eq!(targets("notes", &one, &to(&["1.4.1"])).unwrap()["chart"], "1.4.1");
        let two = ["chart".to_owned(), "image/notes".to_owned()];
        let error = targets("notes", &two, &to(&["1.4.1"])).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("component-not-named", Exit::Usage));
        assert_eq!(
            error.to_string(),
            "notes has several components (chart, image/notes), so the component must be named"
        );
        assert_eq!(error.hint("windlass"), "for example --to chart=1.4.1");
        assert!(targets("notes", &[], &to(&["1.4.1"])).is_err());
        let named = targets("notes", &two, &to(&["chart=1.4.1", "image/notes=2.0.1"])).unwrap();
        assert_eq!(named.len(), 2);
    }

    #[test]
    fn a_component_has_one_version() {
        let error = targets("notes", &[], &to(&["chart=1", "chart=2"])).unwrap_err();
        assert_eq!(error.code(), "component-twice");
    }
}
