//! `set FILE DOCUMENT PATH VALUE` prints FILE with one scalar replaced, byte for byte, or says why not (exit code 1).

use std::io::Write;
use std::process::ExitCode;

use yaml_pin::{Part, Refusal, set, text};

fn edit(bytes: &[u8], document: &str, path: &str, value: &str) -> Result<String, Refusal> {
    set(text(bytes)?, &document.parse()?, &path.parse()?, Part::Whole, value)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut stderr = std::io::stderr();
    let [file, document, path, value] = arguments.as_slice() else {
        let _ = writeln!(
            stderr,
            "usage: set FILE DOCUMENT PATH VALUE\n\n  DOCUMENT  Kind/name, Kind/namespace/name or #index\n  PATH      such as spec.values.image.tag or spec.containers[name=web].image"
        );
        return ExitCode::from(2);
    };
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let _ = writeln!(stderr, "{file}: {error}");
            return ExitCode::from(1);
        }
    };
    match edit(&bytes, document, path, value) {
        Ok(edited) => match std::io::stdout().write_all(edited.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(stderr, "standard output: {error}");
                ExitCode::from(1)
            }
        },
        Err(refusal) => {
            let _ = writeln!(stderr, "{file}: refused ({}): {refusal}\nhint: {}", refusal.code(), refusal.hint());
            ExitCode::from(1)
        }
    }
}
