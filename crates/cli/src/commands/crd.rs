//! `windlass crd`

use serde_json::json;

use crate::error::CliError;
use crate::{Common, Exit, OutputFormat, Session};

pub(super) fn run(session: &mut Session, common: &Common) -> Result<Exit, CliError> {
    let crds = windlass_api::crds();
    let text = if common.output == OutputFormat::Json {
        // A list that kubectl can apply, not a document of ours.
        format!("{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": crds}))
    } else {
        let mut text = String::new();
        for crd in &crds {
            text.push_str("---\n");
            text.push_str(
                &serde_yaml_ng::to_string(crd)
                    .map_err(|error| CliError::Format { format: "YAML", message: error.to_string() })?,
            );
        }
        text
    };
    session.printer.out(&text)?;
    Ok(Exit::Done)
}
