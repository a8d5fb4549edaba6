//! `differential EDITS FILE...` makes up to EDITS random edits in each file and has libyaml (serde_yaml_ng) judge them:
//! exactly one value may differ. Prints the figures, and every wrong edit; exit code 1 if there was one.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use serde::Deserialize as _;
use serde_yaml_ng::Value;
use yaml_pin::{Document, Part, Path, Step, get, set};

const VALUES: &[&str] = &[
    "1.2.4",
    "1.20",
    "7e12345",
    "2024-01-01",
    "yes",
    "",
    ">=1.3 <2",
    "a: b #c",
    "it's \"x\"",
    "5",
    "~",
    "x, y]",
    "- a",
    "é",
];

fn documents(source: &str) -> Option<Vec<Value>> {
    serde_yaml_ng::Deserializer::from_str(source).map(Value::deserialize).collect::<Result<_, _>>().ok()
}

/// All paths to scalars, as libyaml sees them. Keys that are no strings and tagged values are left out.
fn scalars(value: &Value, here: &[Step], out: &mut Vec<Vec<Step>>) {
    let below = |step, value, out: &mut Vec<Vec<Step>>| scalars(value, &[here, &[step]].concat(), out);
    match value {
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                below(Step::Index(index), item, out);
            }
        }
        Value::Mapping(pairs) => {
            for (key, value) in pairs.iter().filter_map(|(key, value)| Some((key.as_str()?, value))) {
                below(Step::Key(key.to_owned()), value, out);
            }
        }
        Value::Tagged(_) => {}
        _ => out.push(here.to_vec()),
    }
}

fn place<'v>(value: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
        Step::Select { .. } => None,
    })
}

/// `Ok` with the code of a refusal or `exact`; `Err` with what is wrong.
fn judge(source: &str, before: &[Value], index: usize, steps: &[Step], value: &str) -> Result<&'static str, String> {
    let document = Document::Index(index);
    let Some(path) = Path::new(steps.to_vec()) else { return Ok("root scalar") };
    let edited = match set(source, &document, &path, Part::Whole, value) {
        Ok(edited) => edited,
        Err(refusal) => return Ok(refusal.code()),
    };
    let (old, new) = match (get(source, &document, &path, Part::Whole), get(&edited, &document, &path, Part::Whole)) {
        (Ok(old), Ok(new)) => (old, new),
        other => return Err(format!("{path}: {other:?}")),
    };
    let same_bytes = edited.get(new.span.end..) == source.get(old.span.end..)
        && edited.get(..old.span.start) == source.get(..old.span.start);
    if !old.span.is_empty() && !same_bytes {
        return Err(format!("{path}: other bytes changed"));
    }
    let mut expected = before.to_vec();
    let Some(target) = expected.get_mut(index).and_then(|root| place(root, steps)) else {
        return Err(format!("{path}: not found by libyaml"));
    };
    *target = if new.reading.is_string() {
        Value::String(new.value)
    } else {
        serde_yaml_ng::from_str(value).map_err(|error| error.to_string())?
    };
    if documents(&edited).as_ref() == Some(&expected) {
        Ok("exact")
    } else {
        Err(format!("{path} = {value:?}: libyaml reads something else"))
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut out = std::io::stdout();
    let Some(edits) = arguments.next().and_then(|edits| edits.parse::<usize>().ok()) else {
        let _ = writeln!(out, "usage: differential EDITS FILE...");
        return ExitCode::from(2);
    };
    let mut figures: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        // A fixed xorshift: the same files give the same figures.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below.max(1) as u64).unwrap_or(0)
    };
    for file in arguments {
        let Ok(source) = std::fs::read_to_string(&file) else { continue };
        let Some(before) = documents(&source) else {
            *figures.entry("(files libyaml rejects)").or_default() += 1;
            continue;
        };
        *figures.entry("(files)").or_default() += 1;
        let mut all = Vec::new();
        for (index, root) in before.iter().enumerate() {
            let mut paths = Vec::new();
            scalars(root, &[], &mut paths);
            all.extend(paths.into_iter().map(|steps| (index, steps)));
        }
        for _ in 0..edits.min(all.len()) {
            let Some((index, steps)) = all.get(random(all.len())) else { continue };
            let value = VALUES.get(random(VALUES.len())).copied().unwrap_or_default();
            let verdict = judge(&source, &before, *index, steps, value).unwrap_or_else(|wrong| {
                let _ = writeln!(out, "WRONG {file}: {wrong}");
                "WRONG"
            });
            *figures.entry(verdict).or_default() += 1;
        }
    }
    for (verdict, count) in &figures {
        let _ = writeln!(out, "{count:8} {verdict}");
    }
    ExitCode::from(u8::from(figures.contains_key("WRONG")))
}
