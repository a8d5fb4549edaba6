//! The same random requests to two API servers, and a comparison of their answers, field by field.
//!
//! Meant for kube-sim against a real server, to find where the simulation lies. Run it against a server without controllers
//! (etcd and kube-apiserver alone), or their work shows up as differences. See `examples/against_a_real_server.rs`.

#![allow(
    clippy::indexing_slicing,
    reason = "reading a missing member gives null; only objects made here are written to"
)]

use crate::server::Seeded;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One request whose answers differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Which step of the run, from 0.
    pub step: usize,
    /// The request.
    pub request: String,
    /// Where the answers differ, as JSON pointer, with both values.
    pub at: Vec<(String, Value, Value)>,
}

#[derive(Debug, Clone)]
struct Step {
    method: &'static str,
    path: String,
    media: &'static str,
    body: Value,
    /// Put the server's own current (true) or previous (false) revision of this object into the body.
    revision: Option<(String, bool)>,
}

/// The revisions that one server gave to each object: current and the one before.
type Revisions = BTreeMap<String, (String, String)>;

/// The definition that the run needs on both servers: `widgets.diff.example.com`.
#[must_use]
pub fn definition() -> Value {
    let ports = json!({"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": {"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer"}, "p": {"type": "string", "default": "TCP"}, "w": {"type": "string"}}}});
    let fixed = json!({"type": "string", "maxLength": 10,
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed may not change"}]});
    let spec = json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "replicas": {"type": "integer"},
        "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
        "fixed": fixed,
        "ports": ports,
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let status = json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "note": {"type": "string"}}});
    let version = json!({"name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}});
    let names = json!({"plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.diff.example.com"},
        "spec": {"group": "diff.example.com", "scope": "Namespaced", "names": names, "versions": [version]}})
}

struct Generator(Seeded);

impl Generator {
    fn chance(&mut self, percent: u64) -> bool {
        self.0.below(100) < percent
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.0.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied().unwrap_or_default()
    }

    fn some_of(&mut self, keys: &[&str], mut value: impl FnMut(&mut Self) -> Value) -> Value {
        let mut out = serde_json::Map::new();
        for key in keys {
            if self.chance(40) {
                out.insert((*key).to_owned(), value(self));
            }
        }
        Value::Object(out)
    }

    fn metadata(&mut self, name: &str) -> Value {
        let mut metadata = json!({"name": name});
        if self.chance(40) {
            metadata["labels"] = self.some_of(&["app", "tier", "x"], |g| json!(g.pick(&["a", "b"])));
        }
        if self.chance(30) {
            metadata["annotations"] = self.some_of(&["one", "two"], |g| json!(g.pick(&["p", "q"])));
        }
        if self.chance(8) {
            metadata["finalizers"] = json!(["example.com/hold"]);
        }
        metadata
    }

    fn container(&mut self, name: &str) -> Value {
        let mut container = json!({"name": name, "image": format!("{name}:{}", self.pick(&["1", "2"]))});
        if self.chance(50) {
            let env: Vec<Value> = ["A", "B", "C"]
                .iter()
                .filter(|_| self.0.below(2) == 0)
                .map(|n| json!({"name": n, "value": "1"}))
                .collect();
            container["env"] = json!(env);
        }
        if self.chance(40) {
            container["ports"] = json!([{"containerPort": 80 + self.0.below(2), "name": "web"}]);
        }
        container
    }

    fn spec(&mut self, kind: &str, name: &str, partial: bool) -> Value {
        match kind {
            "ConfigMap" => json!({"data": self.some_of(&["k1", "k2", "k3"], |g| json!(g.pick(&["v", "w"])))}),
            "Deployment" => {
                let mut spec = json!({"template": {"spec": {}}});
                if !partial || self.chance(20) {
                    spec["selector"] = json!({"matchLabels": {"app": name}});
                    spec["template"]["metadata"] = json!({"labels": {"app": name}});
                }
                let names: Vec<&str> = ["main", "side"].into_iter().filter(|_| self.0.below(3) > 0).collect();
                let names = if names.is_empty() && !partial { vec!["main"] } else { names };
                if !names.is_empty() {
                    spec["template"]["spec"]["containers"] = names.iter().map(|n| self.container(n)).collect();
                }
                if self.chance(40) {
                    spec["replicas"] = json!(self.0.below(4));
                }
                if self.chance(20) {
                    spec["template"]["spec"]["nodeSelector"] =
                        self.some_of(&["disk", "zone"], |g| json!(g.pick(&["a", "b"])));
                }
                if self.chance(20) {
                    spec["template"]["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
                }
                if self.chance(15) {
                    spec["strategy"] = json!({"type": self.pick(&["RollingUpdate", "Recreate"])});
                }
                json!({"spec": spec})
            }
            _ => {
                let mut spec = self.some_of(&["size", "replicas"], |g| json!(1 + g.0.below(10)));
                if !partial {
                    spec["size"] = json!(1 + self.0.below(9));
                }
                if self.chance(30) {
                    spec["mode"] = json!(self.pick(&["A", "B", "C"]));
                }
                if self.chance(20) {
                    spec["fixed"] = json!(self.pick(&["one", "two"]));
                }
                if self.chance(40) {
                    let ports: Vec<Value> = (0..3).filter(|_| self.chance(50)).map(|n| json!({"n": n})).collect();
                    spec["ports"] = json!(ports);
                }
                if self.chance(30) {
                    let tags: Vec<&str> = ["r", "g", "b"].into_iter().filter(|_| self.0.below(2) == 0).collect();
                    spec["tags"] = json!(tags);
                }
                if self.chance(20) {
                    spec["plain"] = json!(["x", self.pick(&["y", "z"])]);
                }
                if self.chance(20) {
                    spec["free"] = json!({"any": {"thing": self.0.below(2)}});
                }
                if self.chance(10) {
                    spec["unknown"] = json!(1);
                }
                json!({"spec": spec})
            }
        }
    }

    fn object(&mut self, kind: &str, name: &str, partial: bool) -> Value {
        let api_version = match kind {
            "ConfigMap" => "v1",
            "Deployment" => "apps/v1",
            _ => "diff.example.com/v1",
        };
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": self.metadata(name)});
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), self.spec(kind, name, partial)) {
            object.extend(rest);
        }
        object
    }

    fn step(&mut self, namespace: &str) -> Step {
        let kind = self.pick(&["ConfigMap", "Deployment", "Deployment", "Widget", "Widget"]);
        let base = match kind {
            "ConfigMap" => format!("/api/v1/namespaces/{namespace}/configmaps"),
            "Deployment" => format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
            _ => format!("/apis/diff.example.com/v1/namespaces/{namespace}/widgets"),
        };
        let name = self.pick(&["a", "b"]);
        let one = format!("{base}/{name}");
        let dry = if self.chance(8) { "&dryRun=All" } else { "" };
        let manager = self.pick(&["m1", "m2", "m3"]);
        let plain = |method, path: String, media, body| Step { method, path, media, body, revision: None };
        match self.0.below(100) {
            0..16 => plain(
                "POST",
                format!("{base}?fieldManager={manager}{dry}"),
                "application/json",
                self.object(kind, name, false),
            ),
            16..28 => {
                let body = self.object(kind, name, false);
                let revision = match self.0.below(10) {
                    0 => None,
                    1 => Some((one.clone(), false)),
                    _ => Some((one.clone(), true)),
                };
                Step {
                    method: "PUT",
                    path: format!("{one}?fieldManager={manager}{dry}"),
                    media: "application/json",
                    body,
                    revision,
                }
            }
            28..42 => {
                let body = self.object(kind, name, true);
                plain("PATCH", format!("{one}?fieldManager={manager}{dry}"), "application/merge-patch+json", body)
            }
            42..52 => {
                let body = self.object(kind, name, true);
                plain(
                    "PATCH",
                    format!("{one}?fieldManager={manager}{dry}"),
                    "application/strategic-merge-patch+json",
                    body,
                )
            }
            52..74 => {
                let partial = self.chance(40);
                let body = self.object(kind, name, partial);
                let force = if self.chance(40) { "&force=true" } else { "" };
                plain(
                    "PATCH",
                    format!("{one}?fieldManager={manager}{force}{dry}"),
                    "application/apply-patch+yaml",
                    body,
                )
            }
            74..78 => {
                let body = json!([{"op": "test", "path": "/metadata/name", "value": self.pick(&["a", "b"])},
                    {"op": "add", "path": "/metadata/annotations", "value": {"patched": "yes"}}]);
                plain("PATCH", format!("{one}?fieldManager={manager}{dry}"), "application/json-patch+json", body)
            }
            78..82 => {
                let body = json!({"spec": {"replicas": 9}, "status": {"replicas": self.0.below(3)}});
                plain(
                    "PATCH",
                    format!("{one}/status?fieldManager={manager}{dry}"),
                    "application/merge-patch+json",
                    body,
                )
            }
            82..87 => {
                let body = json!({"spec": {"replicas": self.0.below(4)}});
                plain("PATCH", format!("{one}/scale?fieldManager={manager}{dry}"), "application/merge-patch+json", body)
            }
            87..90 => {
                let body = json!({"metadata": {"finalizers": null}});
                plain("PATCH", format!("{one}?fieldManager={manager}"), "application/merge-patch+json", body)
            }
            90..94 => plain("DELETE", format!("{one}?x=1{dry}"), "application/json", Value::Null),
            94..97 => plain("GET", one, "application/json", Value::Null),
            _ => {
                let selector = self.pick(&[
                    "",
                    "labelSelector=app%3Da",
                    "labelSelector=tier+in+(a,b)",
                    "labelSelector=!x",
                    "fieldSelector=metadata.name%3Da",
                    "limit=1",
                ]);
                plain("GET", format!("{base}?{selector}"), "application/json", Value::Null)
            }
        }
    }
}

async fn send(client: &Client, step: &Step, revisions: &mut Revisions) -> Value {
    let mut body = step.body.clone();
    if let Some((object, current)) = &step.revision
        && let Some((now, before)) = revisions.get(object)
    {
        body["metadata"]["resourceVersion"] = json!(if *current { now } else { before });
    }
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder()
        .method(step.method)
        .uri(&step.path)
        .header(http::header::CONTENT_TYPE, step.media)
        .header(http::header::ACCEPT, "application/json");
    let request = match request.body(kube::client::Body::from(bytes)) {
        Ok(request) => request,
        Err(error) => return json!({"broken": error.to_string()}),
    };
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return json!({"broken": error.to_string()}),
    };
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.unwrap_or_default();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    if let Some(revision) = answer["metadata"]["resourceVersion"].as_str()
        && !step.path.contains("dryRun")
    {
        let object =
            step.path.split('?').next().unwrap_or_default().trim_end_matches("/status").trim_end_matches("/scale");
        let name = answer["metadata"]["name"].as_str().unwrap_or_default();
        let object = if step.method == "POST" { format!("{object}/{name}") } else { object.to_owned() };
        let known = revisions.entry(object).or_default();
        if known.0 != revision {
            known.1 = std::mem::replace(&mut known.0, revision.to_owned());
        }
    }
    json!({"code": code, "body": answer})
}

const UNCOMPARED: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "continue",
    "selfLink",
    "lastTransitionTime",
];

/// What may differ between two servers is made equal: identities, times, order of managers.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            for (key, child) in map.iter_mut() {
                if UNCOMPARED.contains(&key.as_str()) && child.is_string() {
                    *child = json!("<any>");
                } else if key == "managedFields"
                    && let Value::Array(entries) = child
                {
                    entries.iter_mut().for_each(|entry| {
                        normalise(entry);
                        crate::server::json::remove(entry, &["time"]);
                    });
                    entries.sort_by_key(|e| format!("{}{}{}", e["manager"], e["operation"], e["subresource"]));
                } else {
                    normalise(child);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

fn compare(a: &Value, b: &Value, path: &str, out: &mut Vec<(String, Value, Value)>) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|k| !left.contains_key(*k))) {
                compare(
                    left.get(key).unwrap_or(&Value::Null),
                    right.get(key).unwrap_or(&Value::Null),
                    &format!("{path}/{key}"),
                    out,
                );
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (l, r)) in left.iter().zip(right).enumerate() {
                compare(l, r, &format!("{path}/{index}"), out);
            }
        }
        _ if a == b => {}
        _ => out.push((path.to_owned(), a.clone(), b.clone())),
    }
}

/// Sends `steps` random requests (the same for the same seed) to both servers, in a namespace that exists on both and that
/// nothing else touches, and reports each request whose answers differ: code, refusal, and every field of the object. The
/// wording of refusals is not compared, their reasons and fields are.
pub async fn run(one: &Client, other: &Client, namespace: &str, seed: u64, steps: usize) -> Vec<Difference> {
    let mut generator = Generator(Seeded::new(seed));
    let (mut left, mut right) = (Revisions::new(), Revisions::new());
    let mut found = Vec::new();
    for number in 0..steps {
        let step = generator.step(namespace);
        let mut a = send(one, &step, &mut left).await;
        let mut b = send(other, &step, &mut right).await;
        for answer in [&mut a, &mut b] {
            normalise(answer);
            if answer["body"]["kind"] == "Status" && answer["body"]["status"] == "Failure" {
                let mut fields: Vec<Value> = answer["body"]["details"]["causes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|c| json!([c["reason"], c["field"]]))
                    .collect();
                fields.sort_by_key(ToString::to_string);
                *answer = json!({"code": answer["code"], "reason": answer["body"]["reason"], "causes": fields, "message": answer["body"]["message"]});
            }
        }
        let mut at = Vec::new();
        compare(&a, &b, "", &mut at);
        at.retain(|(path, ..)| path != "/message");
        if !at.is_empty() {
            if a["message"] != b["message"] {
                at.push(("/message".to_owned(), a["message"].clone(), b["message"].clone()));
            }
            found.push(Difference {
                step: number,
                request: format!("{} {} [{}] {}", step.method, step.path, step.media, step.body),
                at,
            });
        }
    }
    found
}
