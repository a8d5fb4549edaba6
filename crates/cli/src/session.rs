//! Everything outside that a command touches.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;

use kube::Client;
use serde_json::json;
use upgrade_core::ports::Clock;

use crate::error::CliError;
use crate::printer::standard_streams;
use crate::table::{Style, paint};
use crate::text::clean;
use crate::{ColorChoice, Common, OutputFormat, Printer, Signals, SystemClock};

/// Streams, clock, signals, terminal and cluster of one command.
pub struct Session {
    /// Where results and progress go.
    pub printer: Printer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What makes it leave an operation that it follows.
    pub signals: Signals,
    /// How the command is called, for the commands it suggests: `windlass` or `kubectl windlass`.
    pub program: String,
    /// Who asks, for people.
    pub user: Option<String>,
    /// Answers to questions; `None` when nobody can be asked.
    pub answers: Option<Box<dyn BufRead + Send>>,
    /// A client to use instead of the one that the kubeconfig describes.
    pub client: Option<Client>,
}

impl Session {
    /// A session without signals, terminal, cluster and user, on the machine's clock.
    #[must_use]
    pub fn new(printer: Printer) -> Self {
        let program = "windlass".to_owned();
        let (clock, signals) = (Arc::new(SystemClock::default()), Signals::default());
        Self { printer, clock, signals, program, user: None, answers: None, client: None }
    }

    /// The session of this process.
    pub(crate) fn of_process(common: &Common, program: String) -> Self {
        let (out, err) = standard_streams();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |terminal: bool| match common.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !dumb && !no_color,
        };
        let (out_terminal, err_terminal) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let live = err_terminal && !dumb;
        let asks = err_terminal && std::io::stdin().is_terminal();
        Self {
            printer: Printer::new(out, err).on_terminal(colored(out_terminal), colored(err_terminal), live),
            signals: Signals::of_process(),
            program,
            user: std::env::var("USER").ok().filter(|user| !user.is_empty() && user.len() <= 253),
            answers: asks.then(|| Box::new(BufReader::new(std::io::stdin())) as Box<dyn BufRead + Send>),
            ..Self::new(Printer::new(Box::new(std::io::sink()), Box::new(std::io::sink())))
        }
    }

    /// Asks a question that only `yes` or `y` answers with yes. Where nobody can be asked, `flags` say what answers it.
    pub(crate) fn confirm(&mut self, question: &str, flags: &str) -> Result<(), CliError> {
        let Some(answers) = &mut self.answers else { return Err(CliError::NotConfirmed { flags: flags.into() }) };
        self.printer.ask(&format!("{question} [y/N]"));
        let mut line = String::new();
        answers.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(CliError::Declined),
        }
    }

    /// Says what went wrong: for people on standard error, and as a document where one was asked for.
    pub(crate) fn fail(&mut self, format: OutputFormat, error: &CliError) {
        let hint = error.hint(&self.program);
        let red = paint("error:", Style::Bad, self.printer.color_err());
        self.printer.note(&format!("{red} {}", clean(&error.to_string())));
        if !hint.is_empty() {
            self.printer.note(&format!("  next: {}", clean(&hint)));
        }
        self.printer.note(&format!("  code: {} ({} explain {0})", error.code(), self.program));
        let value = json!({
            "code": error.code(), "message": error.to_string(), "hint": hint, "exitCode": error.exit().code(),
        });
        // It has been said above already.
        let _ = match format {
            OutputFormat::Table => Ok(()),
            OutputFormat::Json => self.printer.json_line("Error", &value),
            OutputFormat::Yaml => self.printer.result(format, "Error", &value, |_| String::new()),
        };
    }
}

/// How people called this program: as a plugin of kubectl it is two words.
pub(crate) fn program_name(argument: Option<OsString>) -> String {
    let argument = argument.unwrap_or_default();
    let name = Path::new(&argument).file_stem().and_then(|name| name.to_str()).unwrap_or("windlass");
    if name == "kubectl-windlass" { "kubectl windlass".into() } else { "windlass".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_of_kubectl_calls_itself_by_two_words() {
        assert_eq!(program_name(Some("/usr/bin/kubectl-windlass".into())), "kubectl windlass");
        assert_eq!(program_name(Some("./windlass".into())), "windlass");
        assert_eq!(program_name(None), "windlass");
    }
}
