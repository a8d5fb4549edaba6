//! Pages of the reference that are written from the operator's own tables.

use std::collections::BTreeMap;

use anyhow::Context as _;
use prometheus_client::encoding::text::encode;

use crate::metrics::{Code, Ended, Metrics};
use crate::rbac::{RIGHTS, Right, Scope};

/// The rights of its service account.
pub(crate) fn rights() -> String {
    let mut page = String::from(
        "# What the operator may do\n\n\
         Every right of the operator's service account, and no other. It holds those for apps and delivery objects in all \
         namespaces, because apps may be in any; before it begins, it asks the API server for each right where the app at hand \
         needs it, and refuses when one is missing. That on leases it holds in its own namespace only. What people and the \
         `windlass` command need is in [operations.md](operations.md#who-may-do-what).\n\n\
         | Resource | Verbs | Where | Why |\n|---|---|---|---|\n",
    );
    for Right { group, resource, verbs, scope, why } in RIGHTS {
        let name = if group.is_empty() { (*resource).to_owned() } else { format!("{resource} ({group})") };
        let place = match scope {
            Scope::App => "namespaces of apps",
            Scope::Delivery => "namespaces of apps and of what delivers them",
            Scope::Cluster => "objects without a namespace",
            Scope::Own => "the operator's own namespace",
        };
        page += &format!("| {name} | {} | {place} | {why} |\n", verbs.join(", "));
    }
    page
}

/// What is served at `/metrics`, read from what is encoded there.
///
/// # Errors
/// When the metrics cannot be encoded.
pub(crate) fn metrics() -> anyhow::Result<String> {
    let metrics = Metrics::new();
    // Labels show on a sample only.
    drop(metrics.ended.get_or_create(&Ended { kind: String::new(), outcome: String::new() }));
    drop(metrics.errors.get_or_create(&Code { code: String::new() }));
    let mut encoded = String::new();
    encode(&mut encoded, &metrics.registry).context("encoding the metrics")?;

    let mut page = String::from(
        "# Metrics\n\nServed at `/metrics`. They say what this instance did since it started; what is wrong now is in the \
         conditions of the objects.\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n",
    );
    let (mut types, mut meanings) = (BTreeMap::new(), BTreeMap::new());
    for line in encoded.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(meaning)) => drop(meanings.insert(name, meaning)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => drop(types.insert(name, kind)),
            (Some("#"), ..) => {}
            (Some(sample), ..) => {
                let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
                let family = name.strip_suffix("_total").unwrap_or(name);
                let labels: Vec<String> =
                    labels.split(',').filter_map(|label| Some(format!("`{}`", label.split_once('=')?.0))).collect();
                let of = |table: &BTreeMap<&str, &str>| table.get(family).copied().unwrap_or_default().to_owned();
                page += &format!("| `{name}` | {} | {} | {} |\n", of(&types), labels.join(", "), of(&meanings));
            }
            (None, ..) => {}
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_table_with_its_labels() {
        let page = metrics().unwrap();
        for row in [
            "| `windlass_operations_ended_total` | counter | `kind`, `outcome` | Operations that ended, by kind and outcome. |",
            "| `windlass_leader` | gauge |  | 1 while this instance leads. |",
        ] {
            assert!(page.lines().any(|line| line == row), "no {row} in {page}");
        }
    }

    #[test]
    fn every_right_is_in_the_table_of_the_documentation() {
        let page = rights();
        for right in RIGHTS {
            assert!(page.contains(right.why) && page.contains(&right.verbs.join(", ")), "{right:?}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| "));
        assert!(rows.clone().all(|row| row.matches('|').count() == 5));
        assert_eq!(rows.count(), RIGHTS.len() + 1);
    }
}
