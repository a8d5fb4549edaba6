//! The two streams: results on one, progress with at most one live line on the other.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::OutputFormat;
use crate::error::CliError;

/// `apiVersion` of everything that is written as JSON or YAML.
pub(crate) const API_VERSION: &str = "cli.windlass.dev/v1";

/// Where a command writes to.
pub struct Printer {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    color_out: bool,
    color_err: bool,
    live: bool,
    live_shown: bool,
}

impl Printer {
    /// A printer on two streams, without colours and live lines.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { out, err, color_out: false, color_err: false, live: false, live_shown: false }
    }

    /// Whether to use colours on each stream, and whether standard error can show a line that changes.
    #[must_use]
    pub fn on_terminal(mut self, color_out: bool, color_err: bool, live: bool) -> Self {
        (self.color_out, self.color_err, self.live) = (color_out, color_err, live);
        self
    }

    /// Whether progress is coloured.
    pub(crate) fn color_err(&self) -> bool {
        self.color_err
    }

    /// Whether progress is a live line.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// A result, as it is.
    pub(crate) fn out(&mut self, text: &str) -> Result<(), CliError> {
        self.clear_live();
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// A line of progress. Nothing is done about a closed stream: progress is not the result.
    pub(crate) fn note(&mut self, line: &str) {
        self.clear_live();
        let _ = writeln!(self.err, "{line}");
        let _ = self.err.flush();
    }

    /// A question, without an end of line.
    pub(crate) fn ask(&mut self, question: &str) {
        self.clear_live();
        let _ = write!(self.err, "{question} ");
        let _ = self.err.flush();
    }

    /// Replaces the live line; a no-op where there is none. Without wrapping, so that one line stays one line.
    pub(crate) fn show_live(&mut self, line: &str) {
        if self.live {
            let _ = write!(self.err, "\r\u{1b}[2K\u{1b}[?7l{line}\u{1b}[?7h");
            let _ = self.err.flush();
            self.live_shown = true;
        }
    }

    pub(crate) fn clear_live(&mut self) {
        if std::mem::take(&mut self.live_shown) {
            let _ = write!(self.err, "\r\u{1b}[2K");
            let _ = self.err.flush();
        }
    }

    /// A result in the format asked for: `text` for people, or one document of this kind.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        format: OutputFormat,
        kind: &str,
        value: &T,
        text: impl FnOnce(bool) -> String,
    ) -> Result<(), CliError> {
        let text = match format {
            OutputFormat::Table => text(self.color_out),
            OutputFormat::Json => format!("{:#}\n", document(kind, value)?),
            OutputFormat::Yaml => serde_yaml_ng::to_string(&document(kind, value)?)
                .map_err(|error| CliError::Format { format: "YAML", message: error.to_string() })?,
        };
        self.out(&text)
    }

    /// One line of JSON of this kind.
    pub(crate) fn json_line<T: Serialize>(&mut self, kind: &str, value: &T) -> Result<(), CliError> {
        let line = document(kind, value)?;
        self.out(&format!("{line}\n"))
    }
}

/// A value with `apiVersion` and `kind` before its fields; a list goes into `items`.
pub(crate) fn document<T: Serialize>(kind: &str, value: &T) -> Result<Value, CliError> {
    let value =
        serde_json::to_value(value).map_err(|error| CliError::Format { format: "JSON", message: error.to_string() })?;
    let mut document = json!({"apiVersion": API_VERSION, "kind": kind});
    match (&mut document, value) {
        (Value::Object(document), Value::Object(fields)) => document.extend(fields),
        (Value::Object(document), items) => {
            document.insert("items".into(), items);
        }
        _ => {}
    }
    Ok(document)
}

/// Standard output and standard error of this process.
pub(crate) fn standard_streams() -> (Box<dyn Write + Send>, Box<dyn Write + Send>) {
    (Box::new(io::stdout()), Box::new(io::stderr()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Both streams, in the order in which they were written to.
    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        fn printer(&self, live: bool) -> Printer {
            Printer::new(Box::new(self.clone()), Box::new(self.clone())).on_terminal(false, false, live)
        }

        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    const CLEAR: &str = "\r\u{1b}[2K";

    #[test]
    fn a_live_line_is_replaced_and_gone_before_anything_else_is_written() {
        let terminal = Terminal::default();
        let mut printer = terminal.printer(true);
        for line in ["step one", "step two"] {
            printer.show_live(line);
            assert_eq!(terminal.take(), format!("{CLEAR}\u{1b}[?7l{line}\u{1b}[?7h"));
        }
        printer.note("done");
        assert_eq!(terminal.take(), format!("{CLEAR}done\n"));
        printer.note("once more");
        assert_eq!(terminal.take(), "once more\n");
        printer.show_live("x");
        terminal.take();
        printer.out("a result\n").unwrap();
        assert_eq!(terminal.take(), format!("{CLEAR}a result\n"));
        printer.show_live("x");
        terminal.take();
        printer.ask("Go on?");
        assert_eq!(terminal.take(), format!("{CLEAR}Go on? "));
        printer.show_live("x");
        terminal.take();
        printer.clear_live();
        printer.clear_live();
        assert_eq!(terminal.take(), CLEAR);
    }

    #[test]
    fn without_a_terminal_nothing_is_written_that_only_a_terminal_understands() {
        let terminal = Terminal::default();
        let mut printer = terminal.printer(false);
        printer.show_live("x");
        printer.clear_live();
        printer.note("done");
        assert_eq!(terminal.take(), "done\n");
    }
}
