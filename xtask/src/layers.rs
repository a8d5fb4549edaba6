//! Who may import whom: the core knows no cluster, no network and no Git, and adapters do not know each other.

use anyhow::bail;

use crate::cargo;

/// Crates, and beginnings of names of crates, that the core must not depend on.
const FOREIGN: [&str; 7] = ["kube", "k8s", "tokio", "gix", "git2", "reqwest", "hyper"];

/// The adapters, each with those that it may depend on.
const ADAPTERS: [(&str, &[&str]); 4] = [
    // What a release has rendered, and what a chart would render, is part of what Flux delivers.
    ("windlass-gitops", &["windlass-helm"]),
    ("windlass-helm", &[]),
    ("windlass-snapshot", &[]),
    ("windlass-workloads", &[]),
];

/// # Errors
/// When `upgrade-core` depends on something foreign, directly or not, or an adapter on another one.
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
    for (adapter, allowed) in ADAPTERS {
        let args = ["tree", "-p", adapter, "-e", "normal", "--depth", "1", "--prefix", "none"];
        let tree = cargo::output(&mut cargo::cargo(&args))?;
        let found = neighbours(&tree, adapter, allowed);
        if !found.is_empty() {
            bail!(
                "{adapter} depends on {}. Adapters do not import each other: what two of them need is a word of the \
                 core, or a type of the api",
                found.join(", ")
            );
        }
    }
    Ok(())
}

/// The crates of a tree, in order.
fn names(tree: &str) -> Vec<&str> {
    let mut names: Vec<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn foreign(tree: &str) -> Vec<&str> {
    let mut found = names(tree);
    found.retain(|name| FOREIGN.iter().any(|foreign| name.starts_with(foreign)));
    found
}

/// The adapters in the tree of `adapter` that are not allowed there.
fn neighbours<'a>(tree: &'a str, adapter: &str, allowed: &[&str]) -> Vec<&'a str> {
    let mut found = names(tree);
    found.retain(|name| ADAPTERS.iter().any(|(other, _)| other == name) && *name != adapter && !allowed.contains(name));
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

    #[test]
    fn an_adapter_that_imports_another_is_found() {
        let tree = "windlass-snapshot v0.1.0 (/x)\nupgrade-core v0.1.0 (/y)\nwindlass-helm v0.1.0 (/z)\nserde v1\n";
        assert_eq!(neighbours(tree, "windlass-snapshot", &[]), ["windlass-helm"]);
        assert!(neighbours(tree, "windlass-snapshot", &["windlass-helm"]).is_empty());
    }
}
