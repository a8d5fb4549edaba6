//! Files that are written from code, and are in the repository so that people can read and apply them.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo;

/// Each file, and which of those that the programs write it is.
const FILES: [(&str, &str); 9] = [
    ("deploy/manifests/crds.yaml", "crds.yaml"),
    ("deploy/manifests/rbac.yaml", "rbac.yaml"),
    ("deploy/manifests/operator.yaml", "operator.yaml"),
    ("deploy/manifests/kustomization.yaml", "kustomization.yaml"),
    ("docs/rbac.md", "rights.md"),
    ("docs/reference/objects.md", "objects.md"),
    ("docs/reference/metrics.md", "metrics.md"),
    ("docs/reference/commands.md", "commands.md"),
    ("docs/reference/codes.md", "codes.md"),
];

/// What to do with generated files.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a file is not what would be written.
    #[arg(long)]
    check: bool,
}

/// # Errors
/// When the operator cannot be compiled, a file cannot be written, or one to be checked is stale.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for (file, text) in texts()? {
        let path = cargo::root().join(file);
        // A file that cannot be read is as stale as one that differs.
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if args.check {
            stale.push(file);
        } else {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, text).with_context(|| format!("writing {file}"))?;
            println!("wrote {file}");
        }
    }
    if !stale.is_empty() {
        bail!("not what the code says: {}; run `cargo xtask gen` and commit what it writes", stale.join(", "));
    }
    Ok(())
}

/// # Errors
/// When a file is stale.
pub(crate) fn check() -> anyhow::Result<()> {
    run(&Args { check: true })
}

/// Each file, and what should be in it.
fn texts() -> anyhow::Result<Vec<(&'static str, String)>> {
    let folder = std::env::temp_dir().join(format!("windlass-gen-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let written =
        [("windlass-operator", "manifests"), ("windlass", "reference")].into_iter().try_for_each(|(name, verb)| {
            cargo::run(Command::new(cargo::program(name)?).args([verb, "--into"]).arg(&folder))
        });
    let read = |(file, source): (&'static str, &str)| {
        let text = fs::read_to_string(folder.join(source)).with_context(|| format!("reading {source}"))?;
        Ok((file, with_notice(file, &text)))
    };
    let texts = written.and_then(|()| FILES.into_iter().map(read).collect());
    fs::remove_dir_all(&folder)?;
    texts
}

fn with_notice(file: &str, text: &str) -> String {
    const NOTICE: &str = "Written by `cargo xtask gen`; change the code instead.";
    if file.ends_with(".md") { format!("<!-- {NOTICE} -->\n\n{text}") } else { format!("# {NOTICE}\n{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_a_comment_of_its_file() {
        assert!(with_notice("a.yaml", "kind: A\n").starts_with("# Written by"));
        let page = with_notice("a.md", "# A\n");
        assert!(page.starts_with("<!-- Written by") && page.ends_with("-->\n\n# A\n"), "{page}");
    }
}
