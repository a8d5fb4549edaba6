//! The rule that the core knows no cluster, no network and no Git.

use anyhow::bail;

use crate::cargo;

/// Crates, and beginnings of names of crates, that the core must not depend on.
const FOREIGN: [&str; 7] = ["kube", "k8s", "tokio", "gix", "git2", "reqwest", "hyper"];

/// # Errors
/// When `upgrade-core` depends on something foreign, directly or not.
pub(crate) fn check() -> anyhow::Result<()> {
    let tree = cargo::output(&mut cargo::cargo(&["tree", "-p", "upgrade-core", "-e", "normal", "--prefix", "none"]))?;
    let found = foreign(&tree);
    if !found.is_empty() {
        bail!(
            "upgrade-core depends on {}; see `cargo tree -p upgrade-core -e normal -i <crate>` for how. The core knows \
             ports, not clients: put the code into an adapter",
            found.join(", ")
        );
    }
    Ok(())
}

fn foreign(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<_> = names.filter(|name| FOREIGN.iter().any(|foreign| name.starts_with(foreign))).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_library_in_the_core_is_found() {
        assert_eq!(foreign("upgrade-core v0.1.0\nserde v1\nkube-core v5\ntokio v1 (*)\n"), ["kube-core", "tokio"]);
        assert!(foreign("upgrade-core v0.1.0\nserde v1\n").is_empty());
    }
}
