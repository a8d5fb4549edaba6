//! What can go wrong in the command itself, with a stable code, what to do next, and the exit code.

use windlass_api::call::CallError;

use crate::Exit;

/// An error of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// No runtime.
    #[error("could not start: {0}")]
    Runtime(std::io::Error),
    /// Standard output or standard error.
    #[error("could not write the output: {0}")]
    Output(#[from] std::io::Error),
    /// A result that cannot be written in the format asked for.
    #[error("could not write the result as {format}: {message}")]
    Format {
        /// `JSON` or `YAML`.
        format: &'static str,
        /// Why.
        message: String,
    },
    /// The kubeconfig.
    #[error("no cluster: {0}")]
    Kubeconfig(String),
    /// The API server refused or could not be reached.
    #[error(transparent)]
    Api(#[from] CallError),
    /// No live operator, so that a request would only lie there.
    #[error("no operator is running in namespace {namespace}: {seen}. Nothing was changed")]
    NoOperator {
        /// Where it was looked for.
        namespace: String,
        /// What was seen.
        seen: String,
    },
    /// Whether there is an operator could not be read.
    #[error("whether an operator is running in namespace {namespace} cannot be told: {source}. Nothing was changed")]
    OperatorUnknown {
        /// Where it was looked for.
        namespace: String,
        /// Why not.
        source: CallError,
    },
    /// An object that is not there.
    #[error("there is no {what} in namespace {namespace}")]
    NotFound {
        /// Kind and name.
        what: String,
        /// Where it was looked for.
        namespace: String,
        /// What to do.
        hint: String,
    },
    /// A request was deleted while it was followed.
    #[error("{request} was deleted while it was followed: how it ended is not known")]
    Gone {
        /// The request.
        request: String,
    },
    /// A request was asked for, and the answer did not come.
    #[error("{source}. {request} may have been made all the same")]
    MaybeMade {
        /// The request.
        request: String,
        /// Where.
        namespace: String,
        /// Whether it would only plan.
        only_plans: bool,
        /// What came instead of the answer.
        source: Box<CallError>,
    },
    /// A name that an upgrade and a rollback have.
    #[error("{name} is the name of an upgrade and of a rollback")]
    AmbiguousRequest {
        /// The name.
        name: String,
    },
    /// Another operation is active.
    #[error("{active} works on {app}. Nothing was changed")]
    Busy {
        /// The app.
        app: String,
        /// The other operation.
        active: String,
    },
    /// A version without a component, where there are several (or none).
    #[error("{app} has {}, so the component must be named", if components.is_empty() { "no pins that are known".into() } else { format!("several components ({})", components.join(", ")) })]
    ComponentNotNamed {
        /// The app.
        app: String,
        /// Its components.
        components: Vec<String>,
        /// The version.
        version: String,
    },
    /// Something else than one name, or `app` and one name.
    #[error("an app is named by its name alone, or by `app` and its name")]
    AppNotNamed,
    /// The same component twice.
    #[error("component {component} is given two versions")]
    ComponentTwice {
        /// The component.
        component: String,
    },
    /// There is no upgrade that a rollback would obviously be meant for.
    #[error("where {app} shall go back to must be named: {why}")]
    NoObviousRollback {
        /// The app.
        app: String,
        /// Why it cannot be guessed.
        why: String,
    },
    /// The question cannot be asked.
    #[error("this needs a confirmation, and there is no terminal to ask on. Nothing was changed")]
    NotConfirmed {
        /// The flags that answer it.
        flags: String,
    },
    /// The answer was no.
    #[error("not confirmed. Nothing was changed")]
    Declined,
    /// `explain` of something else.
    #[error("no code {0:?} is known")]
    UnknownCode(String),
    /// A plan or journal of another version of Windlass.
    #[error("the plan of {request} cannot be read by this version of windlass: {message}")]
    PlanUnreadable {
        /// The request.
        request: String,
        /// Why.
        message: String,
    },
    /// The demo did not go as it should.
    #[error("the demo broke off: {0}. Its cluster is gone, and no other one was touched")]
    Demo(String),
}

impl CliError {
    /// A stable, kebab-case name: the key of `windlass explain`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Runtime(_) => "cannot-start",
            Self::Output(_) | Self::Format { .. } => "cannot-write-output",
            Self::Kubeconfig(_) => "no-cluster",
            Self::Api(error) => error.code(),
            Self::NoOperator { .. } => "no-operator",
            Self::OperatorUnknown { .. } => "operator-unknown",
            Self::NotFound { .. } => "not-found",
            Self::Gone { .. } => "request-gone",
            Self::MaybeMade { .. } => "request-maybe-made",
            Self::AmbiguousRequest { .. } => "request-ambiguous",
            Self::Busy { .. } => "app-busy",
            Self::ComponentNotNamed { .. } => "component-not-named",
            Self::AppNotNamed => "app-not-named",
            Self::ComponentTwice { .. } => "component-twice",
            Self::NoObviousRollback { .. } => "rollback-target-not-named",
            Self::NotConfirmed { .. } => "not-confirmed",
            Self::Declined => "declined",
            Self::UnknownCode(_) => "unknown-code",
            Self::PlanUnreadable { .. } => "plan-unreadable",
            Self::Demo(_) => "demo-failed",
        }
    }

    /// What to do next; empty when there is nothing better than the message.
    pub(crate) fn hint(&self, program: &str) -> String {
        match self {
            Self::Kubeconfig(_) => "name a kubeconfig or a context: --kubeconfig, --context, KUBECONFIG".into(),
            Self::Api(error) => error.hint(),
            Self::NoOperator { .. } => {
                "start the operator (its Deployment is windlass-operator), or say where it runs: --operator-namespace"
                    .into()
            }
            Self::OperatorUnknown { namespace, source } => match source.hint() {
                hint if hint.is_empty() => String::new(),
                _ if source.code() == "api-forbidden" => {
                    format!("ask for the right to get leases.coordination.k8s.io in namespace {namespace}")
                }
                hint => hint,
            },
            Self::NotFound { hint, .. } => hint.clone(),
            Self::MaybeMade { only_plans: true, .. } => {
                "it changes nothing, and may be deleted; repeat the command".into()
            }
            Self::MaybeMade { request, namespace, .. } => {
                let named = format!("{request} -n {namespace}");
                format!("look before you repeat it: {program} wait {named}; to stop it: {program} cancel {named}")
            }
            Self::AmbiguousRequest { name } => format!("say which one: upgrade/{name} or rollback/{name}"),
            Self::Busy { active, .. } => format!("follow it: {program} wait {active}"),
            Self::ComponentNotNamed { components, version, .. } => match components.first() {
                Some(component) => format!("for example --to {component}={version}"),
                None => format!("--to COMPONENT={version}"),
            },
            Self::NoObviousRollback { .. } => {
                "name an upgrade to take back (--to-request, see history) or a restore point (--to, see snapshots)"
                    .into()
            }
            Self::NotConfirmed { flags } => format!("read what is said above, and repeat the command with {flags}"),
            Self::UnknownCode(_) => format!("list them all: {program} explain"),
            Self::Demo(_) => {
                "please report it with what was printed above; --keep leaves the cluster for a look".into()
            }
            Self::PlanUnreadable { .. } => "use the windlass of the operator's version".into(),
            _ => String::new(),
        }
    }

    /// Whether it is only that nobody reads the output any more.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::AmbiguousRequest { .. }
            | Self::ComponentNotNamed { .. }
            | Self::AppNotNamed
            | Self::ComponentTwice { .. }
            | Self::NoObviousRollback { .. }
            | Self::NotConfirmed { .. }
            | Self::UnknownCode(_) => Exit::Usage,
            Self::Busy { .. } => Exit::Busy,
            Self::Gone { .. } | Self::MaybeMade { only_plans: false, .. } => Exit::Unknown,
            _ => Exit::Unexpected,
        }
    }
}

/// For results of what was done: that nobody reads them any more changes nothing about how it ended.
pub(crate) fn unless_closed(written: Result<(), CliError>) -> Result<(), CliError> {
    match written {
        Err(error) if error.is_closed_output() => Ok(()),
        written => written,
    }
}
