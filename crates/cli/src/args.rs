//! The command line. What is said here is what `--help` shows.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use windlass_api::{AutoRollback, Duration, OperationKind, RollbackData};
use windlass_operator::manifests::NAMESPACE;

/// Upgrades of Kubernetes apps that cannot lose data and cannot get stuck half way
///
/// The operator does the work: this command makes requests, follows them, and shows what became of them. Ctrl-C detaches from
/// an operation and never stops it (see `cancel`).
///
/// Exit codes: 0 done, or nothing to do; 1 unexpected; 2 usage; 3 refused by the preflight; 4 not reached, everything is as
/// before; 5 failed and not put right; 6 another operation is active (--no-queue); 8 outcome unknown: a timeout, a lost
/// answer, output that nobody reads; 9 changes pending (plan --exit-code); 130 and 143 detached by a signal.
#[derive(Debug, Clone, Parser)]
#[command(name = "windlass", version, max_term_width = 100)]
pub struct Cli {
    /// Flags of all verbs.
    #[command(flatten)]
    pub common: Common,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of all verbs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The namespace of the app; that of the kubeconfig's context by default
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig to use; KUBECONFIG or ~/.kube/config by default
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How results are written; json is one document, or one line per event while an operation is followed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Whether to use colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// The namespace the operator runs in
    #[arg(
        long,
        global = true,
        env = "WINDLASS_OPERATOR_NAMESPACE",
        default_value = NAMESPACE,
        value_name = "NAMESPACE"
    )]
    pub operator_namespace: String,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On terminals
    #[default]
    Auto,
    /// Also into files and pipes
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// List the apps, what they run, and what is going on
    #[command(visible_alias = "ls")]
    List {
        /// Of all namespaces
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
    },
    /// Show an app, or the steps of an upgrade or rollback
    Show {
        /// What to show.
        #[command(subcommand)]
        what: ShowWhat,
    },
    /// Show what an upgrade or a rollback would do, without doing it
    ///
    /// The operator makes the plan: a request that only plans is created, and deleted again.
    Plan {
        /// What to plan.
        #[command(subcommand)]
        what: PlanWhat,
        /// Exit with 9 when the plan would change something
        #[arg(long, global = true)]
        exit_code: bool,
    },
    /// Upgrade an app, data included, or leave it as it was
    Upgrade {
        /// What to upgrade.
        #[command(subcommand)]
        what: UpgradeWhat,
    },
    /// Take an app back to what it was before an upgrade, with or without its data
    Rollback {
        /// What to roll back.
        #[command(subcommand)]
        what: RollbackWhat,
    },
    /// List the upgrades and rollbacks of an app, newest first
    History {
        /// The app
        #[arg(value_name = "APP", num_args = 1..=2, required = true)]
        app: Vec<String>,
    },
    /// List the restore points of an app, newest first
    #[command(visible_alias = "restorepoints")]
    Snapshots {
        /// The app
        #[arg(value_name = "APP", num_args = 1..=2, required = true)]
        app: Vec<String>,
    },
    /// Cancel an upgrade or a rollback
    ///
    /// Before the point of no return everything is undone; after it the operation goes on to a consistent end. This cannot be
    /// taken back.
    Cancel {
        /// The request, as in upgrade/NAME, rollback/NAME or NAME
        request: RequestArg,
    },
    /// Allow a version again that was rolled back
    Unblock {
        /// The app
        #[arg(value_name = "APP", num_args = 1..=2, required = true)]
        app: Vec<String>,
        /// The component
        #[arg(long)]
        component: String,
        /// Its version
        #[arg(long = "version", value_name = "VERSION")]
        blocked: String,
    },
    /// Follow an upgrade or a rollback until its end; the exit code says how it ended
    Wait {
        /// The request, as in upgrade/NAME, rollback/NAME or NAME
        request: RequestArg,
        /// How long to wait; for ever by default
        #[arg(long, value_name = "DURATION")]
        timeout: Option<Duration>,
    },
    /// Say what a code means, and what to do about it
    Explain {
        /// The code, as in an error or a refusal; all are listed when left out
        code: Option<String>,
    },
    /// Print the custom resource definitions
    Crd,
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the reference pages of the commands and the codes
    #[command(hide = true)]
    Reference {
        /// The folder they are written to
        #[arg(long, value_name = "FOLDER")]
        into: PathBuf,
    },
    /// Show it all on a simulated cluster: an upgrade, a rollback with data, an operator that is killed
    ///
    /// Needs no cluster and no network, leaves nothing behind, and takes less than a minute.
    Demo(Demo),
}

/// The demo.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Leave the cluster running until Ctrl-C, and print its KUBECONFIG
    #[arg(long)]
    pub keep: bool,
    /// Be the demo's operator
    #[arg(long, hide = true)]
    pub run_operator: bool,
    /// The operator's arguments
    #[arg(last = true, hide = true, requires = "run_operator")]
    pub operator_args: Vec<String>,
}

/// What to show.
#[derive(Debug, Clone, Subcommand)]
pub enum ShowWhat {
    /// An app
    App {
        /// Its name
        name: String,
    },
    /// An upgrade: its plan, and how far it is
    #[command(alias = "upgraderequest", alias = "ureq")]
    Upgrade {
        /// The name of the request
        name: String,
    },
    /// A rollback: its plan, and how far it is
    #[command(alias = "rollbackrequest", alias = "rreq")]
    Rollback {
        /// The name of the request
        name: String,
    },
}

/// What to plan.
#[derive(Debug, Clone, Subcommand)]
pub enum PlanWhat {
    /// An upgrade of an app
    App(UpgradeApp),
    /// A rollback of an app
    Rollback {
        /// What to roll back.
        #[command(subcommand)]
        what: PlanRollback,
    },
}

/// What to plan a rollback of.
#[derive(Debug, Clone, Subcommand)]
pub enum PlanRollback {
    /// An app that is delivered through Git
    App(RollbackApp),
}

/// What to upgrade.
#[derive(Debug, Clone, Subcommand)]
pub enum UpgradeWhat {
    /// An app that is delivered through Git
    App {
        /// The upgrade.
        #[command(flatten)]
        upgrade: UpgradeApp,
        /// How the request is made and followed.
        #[command(flatten)]
        following: Following,
    },
}

/// What to roll back.
#[derive(Debug, Clone, Subcommand)]
pub enum RollbackWhat {
    /// An app that is delivered through Git
    App {
        /// The rollback.
        #[command(flatten)]
        rollback: RollbackApp,
        /// How the request is made and followed.
        #[command(flatten)]
        following: Following,
    },
}

/// An upgrade of an app.
#[derive(Debug, Clone, Args)]
pub struct UpgradeApp {
    /// The app
    pub name: String,
    /// The version to upgrade to, or COMPONENT=VERSION; may be repeated
    #[arg(long = "to", required = true, value_delimiter = ',', value_name = "[COMPONENT=]VERSION")]
    pub to: Vec<TargetArg>,
    /// When a failure after the release is rolled back by itself; the app's policy by default. Without a value: always
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub auto_rollback: Option<UpgradePolicy>,
    /// What is asked for besides.
    #[command(flatten)]
    pub asking: Asking,
}

/// A rollback of an app.
#[derive(Debug, Clone, Args)]
pub struct RollbackApp {
    /// The app
    pub name: String,
    /// Back to what was before this upgrade; the last operation of the app by default
    #[arg(long, value_name = "UPGRADE")]
    pub to_request: Option<String>,
    /// Back to what this restore point holds
    #[arg(long = "to", value_name = "RESTOREPOINT", conflicts_with = "to_request")]
    pub to: Option<String>,
    /// What happens to the data
    #[arg(long, value_enum, default_value_t)]
    pub data: DataChoice,
    /// Take the loss of everything that was written since this time, as the refusal names it
    #[arg(long, value_name = "TIME")]
    pub acknowledge_loss_since: Option<Timestamp>,
    /// What is asked for besides.
    #[command(flatten)]
    pub asking: Asking,
}

/// What every request has, also one that only plans.
#[derive(Debug, Clone, Default, Args)]
pub struct Asking {
    /// Why, for people: it is written into the commit
    #[arg(long)]
    pub reason: Option<String>,
    /// Accept a change that the preflight refuses, by the name it gives, as drop-claim/NAME; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub accept: Vec<String>,
    /// How long to follow (the operation itself goes on); for ever by default
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// How a request is made and followed.
#[derive(Debug, Clone, Default, Args)]
pub struct Following {
    /// Make the plan, show it, and change nothing
    #[arg(long, conflicts_with_all = ["no_wait", "no_queue"])]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Do not follow: return as soon as the request is made
    #[arg(long)]
    pub no_wait: bool,
    /// Do not wait for another operation of the app to end: exit with 6
    #[arg(long)]
    pub no_queue: bool,
}

/// When a failure is rolled back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UpgradePolicy {
    /// Only if the new version was never ready, so that no acknowledged write is lost
    IfNeverReady,
    /// Also if the new version has served, and its writes are lost
    Always,
    /// Never: stop and ask
    Never,
}

impl From<UpgradePolicy> for AutoRollback {
    fn from(policy: UpgradePolicy) -> Self {
        match policy {
            UpgradePolicy::IfNeverReady => Self::IfNeverReady,
            UpgradePolicy::Always => Self::Always,
            UpgradePolicy::Never => Self::Never,
        }
    }
}

/// What a rollback does with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DataChoice {
    /// Put the data of the restore point back; what was written since is lost to the app
    #[default]
    Restore,
    /// Leave the data as it is
    Keep,
}

impl From<DataChoice> for RollbackData {
    fn from(choice: DataChoice) -> Self {
        match choice {
            DataChoice::Restore => Self::Restore,
            DataChoice::Keep => Self::Keep,
        }
    }
}

/// A version, with or without the component it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetArg {
    /// The component, if named.
    pub component: Option<String>,
    /// The version.
    pub version: String,
}

impl FromStr for TargetArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (component, version) = match text.split_once('=') {
            Some((component, version)) => (Some(component.to_owned()), version),
            None => (None, text),
        };
        if version.is_empty() || component.as_ref().is_some_and(String::is_empty) {
            return Err("expected VERSION or COMPONENT=VERSION, neither of them empty");
        }
        Ok(Self { component, version: version.to_owned() })
    }
}

/// A request, with or without its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestArg {
    /// Its kind, if named.
    pub kind: Option<OperationKind>,
    /// Its name.
    pub name: String,
}

impl FromStr for RequestArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once('/') {
            None => (None, text),
            Some((kind, name)) => {
                // `kubectl create -o name` writes the plural with its group.
                let kind = kind.strip_suffix(".upgrades.windlass.dev").unwrap_or(kind);
                let kind = match kind.to_ascii_lowercase().as_str() {
                    "upgrade" | "upgraderequest" | "upgraderequests" | "ureq" => OperationKind::UpgradeRequest,
                    "rollback" | "rollbackrequest" | "rollbackrequests" | "rreq" => OperationKind::RollbackRequest,
                    _ => return Err("the kind of a request is upgrade or rollback"),
                };
                (Some(kind), name)
            }
        };
        if name.is_empty() || name.contains('/') {
            return Err("expected NAME, upgrade/NAME or rollback/NAME");
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;
