//! Columns of tables, as `kubectl get` prints them.

use super::json::{at, int_at, list_at, str_at};
use super::table::{ResourceDef, Source};
use jiff::Timestamp;
use serde_json::{Value, json};

enum Cell {
    /// A JSONPath.
    Path(String),
    /// Time since the date at a JSONPath.
    Since(String),
    /// Computed.
    From(fn(&Value) -> Value),
}

/// One column.
pub(crate) struct Printed {
    name: String,
    kind: String,
    priority: i64,
    description: String,
    cell: Cell,
}

impl Printed {
    fn new(name: &str, kind: &str, cell: Cell) -> Self {
        Self { name: name.to_owned(), kind: kind.to_owned(), priority: 0, description: String::new(), cell }
    }

    fn path(name: &str, path: &str) -> Self {
        Self::new(name, "string", Cell::Path(path.to_owned()))
    }

    fn from(name: &str, cell: fn(&Value) -> Value) -> Self {
        Self::new(name, "string", Cell::From(cell))
    }

    pub(crate) fn definition(&self) -> Value {
        let format = if self.name == "Name" { "name" } else { "" };
        json!({"name": self.name, "type": self.kind, "format": format, "description": self.description, "priority": self.priority})
    }

    pub(crate) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.cell {
            Cell::From(compute) => compute(object),
            Cell::Path(path) => {
                lookup(object, path).into_iter().next().map_or(Value::Null, |found| match (self.kind.as_str(), found) {
                    ("string", found) if !found.is_string() && !found.is_null() => json!(found.to_string()),
                    (_, found) => found.clone(),
                })
            }
            Cell::Since(path) => {
                let at =
                    lookup(object, path).first().and_then(|v| v.as_str()).and_then(|t| t.parse::<Timestamp>().ok());
                json!(at.map_or_else(|| "<unknown>".to_owned(), |t| age(now.duration_since(t).as_secs())))
            }
        }
    }
}

/// `5d3h`, `2m10s`, `45s`: the short form that kubectl uses.
fn age(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |a: i64, au: &str, b: i64, bu: &str| if b == 0 { format!("{a}{au}") } else { format!("{a}{au}{b}{bu}") };
    match seconds {
        i64::MIN..0 => "<invalid>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10800 => format!("{minutes}m"),
        10800..28800 => pair(hours, "h", minutes % 60, "m"),
        28800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// Evaluates the part of JSONPath that printer columns use: members, indices, `[*]` and `[?(@.a=="b")]`.
pub(crate) fn lookup<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps(path) {
        found = found.into_iter().flat_map(|value| apply(value, &step)).collect();
    }
    found
}

enum Step {
    Member(String),
    Index(usize),
    All,
    Where(Vec<String>, String),
}

fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    let mut chars = path.trim().trim_start_matches('$').chars().peekable();
    let mut name = String::new();
    let flush = |name: &mut String, out: &mut Vec<Step>| {
        if !name.is_empty() {
            out.push(Step::Member(std::mem::take(name)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.extend(chars.next()),
            '.' => flush(&mut name, &mut out),
            '[' => {
                flush(&mut name, &mut out);
                let mut inner = String::new();
                let mut quoted = false;
                for c in chars.by_ref() {
                    match c {
                        ']' if !quoted => break,
                        '"' | '\'' => {
                            quoted = !quoted;
                            inner.push(c);
                        }
                        c => inner.push(c),
                    }
                }
                out.push(bracket(&inner));
            }
            c => name.push(c),
        }
    }
    flush(&mut name, &mut out);
    out
}

fn bracket(inner: &str) -> Step {
    if inner == "*" {
        return Step::All;
    }
    if let Ok(index) = inner.parse() {
        return Step::Index(index);
    }
    let unquote = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some((left, right)) =
        inner.strip_prefix("?(").and_then(|i| i.strip_suffix(')')).and_then(|i| i.split_once("=="))
    {
        let left = left.trim().trim_start_matches('@').trim_start_matches('.');
        return Step::Where(left.split('.').map(str::to_owned).collect(), unquote(right));
    }
    Step::Member(unquote(inner))
}

fn apply<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Member(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => value.get(*index).into_iter().collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(path, wanted) => {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| match at(item, &path) {
                    Value::String(text) => text == wanted,
                    other => *other == *wanted.as_str(),
                })
                .collect()
        }
    }
}

fn number(object: &Value, path: &[&str]) -> i64 {
    int_at(object, path).unwrap_or(0)
}

fn ready_of_pod(pod: &Value) -> Value {
    let ready = list_at(pod, &["status", "containerStatuses"]).iter().filter(|c| at(c, &["ready"]) == true).count();
    json!(format!("{ready}/{}", list_at(pod, &["spec", "containers"]).len()))
}

fn status_of_pod(pod: &Value) -> Value {
    if !at(pod, &["metadata", "deletionTimestamp"]).is_null() {
        return json!("Terminating");
    }
    let mut reasons = list_at(pod, &["status", "containerStatuses"])
        .iter()
        .filter_map(|c| ["waiting", "terminated"].into_iter().find_map(|s| at(c, &["state", s, "reason"]).as_str()));
    json!(
        reasons
            .next_back()
            .or_else(|| at(pod, &["status", "reason"]).as_str())
            .unwrap_or_else(|| str_at(pod, &["status", "phase"]))
    )
}

fn restarts_of_pod(pod: &Value) -> Value {
    json!(
        list_at(pod, &["status", "containerStatuses"])
            .iter()
            .map(|c| number(c, &["restartCount"]))
            .sum::<i64>()
            .to_string()
    )
}

fn ready_of_workload(object: &Value) -> Value {
    json!(format!("{}/{}", number(object, &["status", "readyReplicas"]), number(object, &["spec", "replicas"])))
}

fn completions(object: &Value) -> Value {
    json!(format!(
        "{}/{}",
        number(object, &["status", "succeeded"]),
        int_at(object, &["spec", "completions"]).unwrap_or(1)
    ))
}

fn job_status(object: &Value) -> Value {
    let last = list_at(object, &["status", "conditions"]).iter().rfind(|c| str_at(c, &["status"]) == "True");
    json!(last.map_or("Running", |c| str_at(c, &["type"])))
}

fn access_modes(object: &Value) -> Value {
    let modes = match list_at(object, &["status", "accessModes"]) {
        [] => list_at(object, &["spec", "accessModes"]),
        modes => modes,
    };
    let short = modes.iter().filter_map(Value::as_str).map(|m| match m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    json!(short.collect::<Vec<_>>().join(","))
}

fn claim_of_volume(object: &Value) -> Value {
    let claim = at(object, &["spec", "claimRef"]);
    if claim.is_null() {
        json!("")
    } else {
        json!(format!("{}/{}", str_at(claim, &["namespace"]), str_at(claim, &["name"])))
    }
}

fn status_or_terminating(object: &Value) -> Value {
    if at(object, &["metadata", "deletionTimestamp"]).is_null() {
        at(object, &["status", "phase"]).clone()
    } else {
        json!("Terminating")
    }
}

fn ports(object: &Value) -> Value {
    let listed = list_at(object, &["spec", "ports"])
        .iter()
        .map(|p| format!("{}/{}", number(p, &["port"]), str_at(p, &["protocol"])));
    json!(listed.collect::<Vec<_>>().join(","))
}

fn data_count(object: &Value) -> Value {
    let count = |field: &str| at(object, &[field]).as_object().map_or(0, serde_json::Map::len);
    json!(count("data") + count("binaryData"))
}

/// The columns of a kind.
pub(crate) fn columns(def: &ResourceDef) -> Vec<Printed> {
    let mut out = vec![Printed::path("Name", ".metadata.name")];
    if let Source::Crd(version) = &def.source {
        for column in &version.columns {
            let cell =
                if column.kind == "date" { Cell::Since(column.path.clone()) } else { Cell::Path(column.path.clone()) };
            let kind = if column.kind == "date" { "string" } else { &column.kind };
            let mut printed = Printed::new(&column.name, kind, cell);
            printed.priority = column.priority;
            printed.description.clone_from(&column.description);
            out.push(printed);
        }
        if version.columns.is_empty() {
            out.push(Printed::new("Age", "string", Cell::Since(".metadata.creationTimestamp".to_owned())));
        }
        return out;
    }
    match def.kind.as_str() {
        "Pod" => out.extend([
            Printed::from("Ready", ready_of_pod),
            Printed::from("Status", status_of_pod),
            Printed::from("Restarts", restarts_of_pod),
        ]),
        "Deployment" => out.extend([
            Printed::from("Ready", ready_of_workload),
            Printed::from("Up-to-date", |o| json!(number(o, &["status", "updatedReplicas"]))),
            Printed::from("Available", |o| json!(number(o, &["status", "availableReplicas"]))),
        ]),
        "StatefulSet" => out.push(Printed::from("Ready", ready_of_workload)),
        "ReplicaSet" => out.extend([
            Printed::from("Desired", |o| json!(number(o, &["spec", "replicas"]))),
            Printed::from("Current", |o| json!(number(o, &["status", "replicas"]))),
            Printed::from("Ready", |o| json!(number(o, &["status", "readyReplicas"]))),
        ]),
        "Job" => out.extend([Printed::from("Status", job_status), Printed::from("Completions", completions)]),
        "PersistentVolumeClaim" => out.extend([
            Printed::from("Status", status_or_terminating),
            Printed::path("Volume", ".spec.volumeName"),
            Printed::path("Capacity", ".status.capacity.storage"),
            Printed::from("Access Modes", access_modes),
            Printed::path("StorageClass", ".spec.storageClassName"),
        ]),
        "PersistentVolume" => out.extend([
            Printed::path("Capacity", ".spec.capacity.storage"),
            Printed::from("Access Modes", access_modes),
            Printed::path("Reclaim Policy", ".spec.persistentVolumeReclaimPolicy"),
            Printed::from("Status", status_or_terminating),
            Printed::from("Claim", claim_of_volume),
            Printed::path("StorageClass", ".spec.storageClassName"),
        ]),
        "Namespace" => out.push(Printed::path("Status", ".status.phase")),
        "Service" => out.extend([
            Printed::path("Type", ".spec.type"),
            Printed::path("Cluster-IP", ".spec.clusterIP"),
            Printed::from("Port(s)", ports),
        ]),
        "ConfigMap" => out.push(Printed::from("Data", data_count)),
        "Secret" => out.extend([Printed::path("Type", ".type"), Printed::from("Data", data_count)]),
        "Event" => {
            let note = if def.group.is_empty() { ".message" } else { ".note" };
            out = vec![
                Printed::path("Type", ".type"),
                Printed::path("Reason", ".reason"),
                Printed::path("Message", note),
            ];
        }
        "CustomResourceDefinition" => {
            out.push(Printed::path("Created At", ".metadata.creationTimestamp"));
            return out;
        }
        _ => {}
    }
    out.push(Printed::new("Age", "string", Cell::Since(".metadata.creationTimestamp".to_owned())));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_printed_as_kubectl_does() {
        let printed: Vec<String> = [5, 130, 605, 10_900, 30_000, 180_000, 900_000].into_iter().map(age).collect();
        assert_eq!(printed, ["5s", "2m10s", "10m", "3h1m", "8h", "2d2h", "10d"]);
    }

    #[test]
    fn printer_columns_find_conditions_and_dotted_keys() {
        let object = json!({"status": {"conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"labels": {"a.b/c": "v"}}});
        assert_eq!(lookup(&object, ".status.conditions[?(@.type==\"Ready\")].status"), [&json!("True")]);
        assert_eq!(lookup(&object, ".metadata.labels['a.b/c']"), [&json!("v")]);
        assert_eq!(lookup(&object, r".metadata.labels.a\.b/c"), [&json!("v")]);
        assert_eq!(lookup(&object, ".status.conditions[0].type"), [&json!("A")]);
        assert!(lookup(&object, ".status.none").is_empty());
    }
}
