//! `windlass demo`

use crate::Exit;
use crate::error::CliError;

pub(super) fn run() -> Result<Exit, CliError> {
    Err(CliError::NotBuiltIn("the demo needs kube-sim, which is not part of this build. Nothing was changed"))
}
