//! Whether a live pod template is the one a manifest asks for: everything the manifest says must be there, and lists must
//! have no more items; what the API server filled in does not count. Whatever cannot be compared is a difference.
//!
//! A difference is told by its place alone: values of `env` and `args` may be secrets, and what is told ends in a status.

use serde_json::Value;

/// `Ok` when `live` carries out `wanted`; else the first difference, at a path below `root`.
pub(super) fn carries_out(wanted: &Value, live: &Value, root: &str) -> Result<(), String> {
    compare(wanted, Some(live), root)
}

fn compare(wanted: &Value, live: Option<&Value>, path: &str) -> Result<(), String> {
    let Some(live) = live.filter(|live| !live.is_null()) else {
        // The API server drops empty values of optional fields.
        return if is_empty(wanted) { Ok(()) } else { Err(format!("{path} is missing")) };
    };
    match (wanted, live) {
        // A null asks for the default.
        (Value::Null, _) => Ok(()),
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().try_for_each(|(key, value)| compare(value, live.get(key), &format!("{path}.{key}")))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            if wanted.len() != live.len() {
                return Err(format!("{path} has {} items, wanted {}", live.len(), wanted.len()));
            }
            // Order matters to the API server in some lists (env) and is kept in all of them.
            wanted
                .iter()
                .zip(live)
                .enumerate()
                .try_for_each(|(index, (wanted, live))| compare(wanted, Some(live), &format!("{path}[{index}]")))
        }
        (wanted, live) if same_scalar(wanted, live, path) => Ok(()),
        _ => Err(format!("{path} is not what is wanted")),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

fn same_scalar(wanted: &Value, live: &Value, path: &str) -> bool {
    if wanted == live {
        return true;
    }
    if is_quantity(path) {
        return match (quantity(wanted), quantity(live)) {
            (Some(wanted), Some(live)) => wanted == live,
            _ => false,
        };
    }
    match (wanted, live) {
        // YAML 1.1 octals, as in `defaultMode: 0644`, which Helm reads as numbers.
        (Value::String(text), Value::Number(live)) => {
            let digits = text.strip_prefix('0').filter(|digits| !digits.is_empty());
            digits.and_then(|digits| i64::from_str_radix(digits, 8).ok()) == live.as_i64() && live.as_i64().is_some()
        }
        (Value::Number(wanted), Value::Number(live)) => wanted.as_f64() == live.as_f64(),
        _ => false,
    }
}

/// The places in a pod template where the API server writes a quantity in its own way.
fn is_quantity(path: &str) -> bool {
    [".resources.limits.", ".resources.requests.", ".overhead."].iter().any(|part| path.contains(part))
        || path.ends_with(".sizeLimit")
        || path.ends_with(".resourceFieldRef.divisor")
}

/// A quantity in thousandths; `None` when it is not one, or is finer or bigger than that can say.
fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.parse::<i128>().ok()?.checked_mul(factor)?;
    (scaled % scale == 0).then_some(scaled / scale)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live() -> Value {
        json!({
            "metadata": { "labels": { "app": "web" }, "creationTimestamp": null },
            "spec": {
                "containers": [{
                    "name": "web", "image": "web:2", "imagePullPolicy": "IfNotPresent", "env": [{ "name": "EMPTY" }],
                    "ports": [{ "containerPort": 80, "protocol": "TCP" }],
                    "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } },
                    "terminationMessagePath": "/dev/termination-log"
                }],
                "volumes": [{ "name": "c", "configMap": { "name": "c", "defaultMode": 420 } }],
                "restartPolicy": "Always"
            }
        })
    }

    fn manifest() -> Value {
        json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": {
                "nodeSelector": {},
                "hostNetwork": false,
                "containers": [{
                    "name": "web", "image": "web:2", "env": [{ "name": "EMPTY", "value": "" }],
                    "ports": [{ "containerPort": 80 }],
                    "resources": { "limits": { "cpu": 1, "memory": "1024Mi" }, "requests": { "cpu": 0.5 } }
                }],
                "volumes": [{ "name": "c", "configMap": { "name": "c", "defaultMode": "0644" } }]
            }
        })
    }

    #[test]
    fn what_the_api_server_fills_in_or_rewrites_is_no_difference() {
        assert_eq!(carries_out(&manifest(), &live(), "spec.template"), Ok(()));
    }

    #[test]
    fn every_real_difference_is_found() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 8] = [
            ("spec.template.spec.containers[0].image is not", |l| {
                l["spec"]["containers"][0]["image"] = "web:1".into();
            }),
            ("spec.template.spec.containers has 2 items", |l| {
                l["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "old" }));
            }),
            ("spec.template.spec.containers[0].ports is missing", |l| {
                l["spec"]["containers"][0].as_object_mut().unwrap().remove("ports");
            }),
            ("spec.template.metadata.labels.app is not", |l| l["metadata"]["labels"]["app"] = "x".into()),
            ("spec.template.spec.containers[0].resources.limits.memory is not", |l| {
                l["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1G".into();
            }),
            ("spec.template.spec.volumes[0].configMap.defaultMode is not", |l| {
                l["spec"]["volumes"][0]["configMap"]["defaultMode"] = 384.into();
            }),
            ("spec.template.spec.hostNetwork is not", |l| l["spec"]["hostNetwork"] = true.into()),
            ("spec.template.spec.containers[0].env[0].value is not", |l| {
                l["spec"]["containers"][0]["env"][0]["value"] = "x".into();
            }),
        ];
        for (expected, change) in changes {
            let mut live = live();
            change(&mut live);
            let difference = carries_out(&manifest(), &live, "spec.template").unwrap_err();
            assert!(difference.starts_with(expected), "{difference}");
        }
    }

    #[test]
    fn a_difference_tells_no_value_because_it_may_be_a_secret() {
        let wanted = json!({
            "env": [{ "name": "PASSWORD", "value": "new-secret" }], "args": ["--password=new-secret"],
            "envFrom": [{ "prefix": "new-secret" }]
        });
        for live in [
            json!({ "env": [{ "name": "PASSWORD", "value": "old-secret" }], "args": ["--password=new-secret"] }),
            json!({ "env": [{ "name": "PASSWORD", "value": "new-secret" }], "args": ["--password=old-secret"] }),
            json!({ "args": ["--password=new-secret"] }),
            json!({ "env": ["old-secret"] }),
            json!({}),
        ] {
            let difference = carries_out(&wanted, &live, "spec").unwrap_err();
            assert!(difference.starts_with("spec.") && !difference.contains("secret"), "{difference}");
        }
    }

    #[test]
    fn quantities_are_compared_by_value() {
        for (a, b, same) in [
            (json!("1000m"), json!("1"), true),
            (json!("0.5"), json!("500m"), true),
            (json!(2), json!("2"), true),
            (json!("1Gi"), json!("1024Mi"), true),
            (json!("1G"), json!("1Gi"), false),
            (json!("1E"), json!("1E"), true),
            (json!("1e3"), json!("1000"), false),
            (json!("0.0001"), json!("100u"), false),
        ] {
            assert_eq!(same_scalar(&a, &b, "x.resources.limits.cpu"), same, "{a} {b}");
        }
        assert!(!same_scalar(&json!("1000m"), &json!("1"), "x.env[0].value"), "elsewhere text is text");
    }
}
