//! The `windlass` command: makes request objects, follows them, and shows what the operator says. It decides nothing.
//!
//! - [`Cli`] is the command line; each verb is a module of `commands`.
//! - [`Session`] is everything outside that a command touches: streams, clock, terminal, cluster.
//! - [`Exit`] is what a command ends with: the exit codes that scripts rely on.
//!
//! Results go to stdout, progress and questions to stderr.

mod args;
mod clock;
mod cluster;
mod codes;
mod commands;
mod demo;
mod error;
mod exit;
mod follow;
mod operator;
mod printer;
mod request;
mod session;
mod signals;
mod table;
mod text;
mod view;

pub use args::{
    Asking, Cli, ColorChoice, Common, DataChoice, Demo, Following, OutputFormat, PlanRollback, PlanWhat, RequestArg,
    RollbackApp, RollbackWhat, ShowWhat, TargetArg, UpgradeApp, UpgradePolicy, UpgradeWhat, Verb,
};
pub use clock::SystemClock;
pub use exit::Exit;
pub use printer::Printer;
pub use session::Session;
pub use signals::Signals;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

/// The program: parses, runs, and says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let program = session::program_name(std::env::args_os().next());
    let matches = Cli::command().bin_name(program.clone()).try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stream is the only thing that can go wrong here, and then there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    if let Verb::Demo(demo) = &cli.verb
        && demo.run_operator
    {
        return demo::operator::main(&demo.operator_args);
    }
    // Another provider may be installed already when this is embedded.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let mut session = Session::of_process(&cli.common, program);
            session.fail(cli.common.output, &error::CliError::Runtime(error));
            return Exit::Unexpected.into();
        }
    };
    let exit = runtime.block_on(async {
        let mut session = Session::of_process(&cli.common, program);
        run(&cli, &mut session).await
    });
    // A call that hangs, or a question nobody answers, must not keep the process alive.
    runtime.shutdown_background();
    exit.into()
}

/// Runs one command. Errors are printed; the answer is the exit code.
pub async fn run(cli: &Cli, session: &mut Session) -> Exit {
    let done = commands::run(cli, session).await;
    session.printer.clear_live();
    match done {
        Ok(exit) => exit,
        // Whoever read it has seen enough of what there is. Verbs that do something keep their own exit code.
        Err(error) if error.is_closed_output() => Exit::Done,
        Err(error) => {
            session.fail(cli.common.output, &error);
            error.exit()
        }
    }
}
