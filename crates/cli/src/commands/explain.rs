//! `windlass explain`

use crate::codes::{self, Code};
use crate::error::CliError;
use crate::table::{Cell, fields, render};
use crate::{Common, Exit, Session};

pub(super) fn run(session: &mut Session, common: &Common, code: Option<&str>) -> Result<Exit, CliError> {
    let Some(code) = code else {
        let all: Vec<Code> = codes::all().collect();
        session.printer.result(common.output, "CodeList", &all, |color| {
            let rows: Vec<Vec<Cell>> = all.iter().map(|code| vec![code.code.into(), code.meaning.into()]).collect();
            render(&["CODE", "MEANING"], &rows, color)
        })?;
        return Ok(Exit::Done);
    };
    let found = codes::find(code).ok_or_else(|| CliError::UnknownCode(code.to_owned()))?;
    session.printer.result(common.output, "Code", &found, |_| {
        fields(&[
            ("Code", found.code.into()),
            ("Seen", found.seen.into()),
            ("Meaning", found.meaning.into()),
            ("What to do", found.remedy.into()),
        ])
    })?;
    Ok(Exit::Done)
}
