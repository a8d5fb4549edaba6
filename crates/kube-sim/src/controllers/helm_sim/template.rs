//! Renders the few template constructs that charts under test need. Everything else is an error that says where it is.
//!
//! Known are `{{ .Values.a.b }}`, `.Release.Name`, `.Release.Namespace`, `.Release.Service`, `.Chart.Name`, `.Chart.Version`,
//! `.Chart.AppVersion`, literals, the functions `quote` and `default X` after a `|`, `{{ if X }}`, `{{ else }}`, `{{ end }}`,
//! comments, and `{{-`, `-}}`.

use serde_json::Value;

use super::super::charts::ChartMetadata;

/// What templates can refer to.
pub(super) struct Context<'a> {
    pub(super) values: &'a Value,
    pub(super) release: &'a str,
    pub(super) namespace: &'a str,
    pub(super) chart: &'a ChartMetadata,
}

/// Renders one file.
///
/// # Errors
/// File, line, and what is wrong or not known there.
pub(super) fn render(file: &str, text: &str, context: &Context<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut open: Vec<Branch> = Vec::new();
    for part in split(text).map_err(|(line, why)| format!("{file}:{line}: {why}"))? {
        let shown = open.iter().all(|branch| branch.shown);
        let at = |why: String| format!("{file}:{}: {why}", part.line);
        match part.kind {
            Kind::Text(text) if shown => out.push_str(text),
            Kind::Text(_) => {}
            Kind::Action(action) => match action.split_whitespace().next() {
                _ if action.starts_with("/*") && action.ends_with("*/") => {}
                // What is not shown is not evaluated, but its ends must be found.
                Some("range" | "with" | "define" | "block") => return Err(at(not_known(action))),
                Some("if") => {
                    let condition = action.strip_prefix("if").unwrap_or_default();
                    let holds = shown && !is_empty(&pipeline(condition, context).map_err(at)?);
                    open.push(Branch { shown: holds, has_else: false });
                }
                Some("else") if action == "else" => match open.last_mut() {
                    Some(branch) if !branch.has_else => *branch = Branch { shown: !branch.shown, has_else: true },
                    _ => return Err(at("unexpected {{else}}".to_owned())),
                },
                Some("end") if action == "end" => {
                    open.pop().ok_or_else(|| at("unexpected {{end}}".to_owned()))?;
                }
                _ if shown => out.push_str(&pipeline(action, context).and_then(|value| print(&value)).map_err(at)?),
                _ => {}
            },
        }
    }
    if open.is_empty() { Ok(out) } else { Err(format!("{file}: {{{{if}}}} without {{{{end}}}}")) }
}

struct Branch {
    shown: bool,
    has_else: bool,
}

struct Part<'a> {
    line: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Text and actions in turn, white space trimmed as the actions ask.
fn split(text: &str) -> Result<Vec<Part<'_>>, (usize, String)> {
    let mut parts = Vec::new();
    let (mut rest, mut line, mut trim) = (text, 1, false);
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut shown = if trim { before.trim_start() } else { before };
        let trims_before = after.is_some_and(|after| after.starts_with("- ") || after.starts_with("-\n"));
        if trims_before {
            shown = shown.trim_end();
        }
        parts.push(Part { line, kind: Kind::Text(shown) });
        line += before.matches('\n').count();
        let Some(after) = after else { return Ok(parts) };
        let (action, next) = end_of_action(after).ok_or_else(|| (line, "unclosed action".to_owned()))?;
        let inner = if trims_before { action.get(1..).unwrap_or_default() } else { action };
        trim = inner.ends_with(" -") || inner.ends_with("\n-");
        let inner = if trim { inner.strip_suffix('-').unwrap_or(inner) } else { inner };
        parts.push(Part { line, kind: Kind::Action(inner.trim()) });
        line += action.matches('\n').count();
        rest = next;
    }
}

/// Splits at the `}}` that is not inside of a string.
fn end_of_action(text: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted && text.get(index..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some((text.get(..index)?, text.get(index + 2..)?));
            }
            _ => {}
        }
    }
    None
}

/// Words of an expression; strings stay in one piece.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in text.chars() {
        let splits = !quoted && (letter.is_whitespace() || letter == '|');
        if splits {
            words.push(String::new());
            if letter == '|' {
                words.extend(["|".to_owned(), String::new()]);
            }
            continue;
        }
        if letter == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && letter == '\\' && !escaped;
        if let Some(last) = words.last_mut() {
            last.push(letter);
        }
    }
    words.retain(|word| !word.is_empty());
    if quoted { Err(format!("unterminated string in {text:?}")) } else { Ok(words) }
}

fn pipeline(text: &str, context: &Context<'_>) -> Result<Value, String> {
    let words = words(text)?;
    let mut stages = words.split(|word| word == "|");
    let mut value = match stages.next() {
        Some([operand]) => operand_value(operand, context)?,
        _ => return Err(not_known(text)),
    };
    for stage in stages {
        value = match stage {
            [function] if function == "quote" => match value {
                // As sprig: nothing stays nothing.
                Value::Null => Value::String(String::new()),
                value => Value::String(Value::String(print(&value)?).to_string()),
            },
            [function, fallback] if function == "default" => {
                let fallback = operand_value(fallback, context)?;
                if is_empty(&value) { fallback } else { value }
            }
            _ => return Err(not_known(text)),
        };
    }
    Ok(value)
}

fn not_known(what: &str) -> String {
    format!("the renderer does not know {{{{ {} }}}}", what.trim())
}

fn operand_value(operand: &str, context: &Context<'_>) -> Result<Value, String> {
    if operand.starts_with('"') || operand.parse::<i64>().is_ok() || ["true", "false"].contains(&operand) {
        return serde_json::from_str(operand).map_err(|error| format!("{operand}: {error}"));
    }
    if let Some(path) = operand.strip_prefix(".Values.") {
        return value_at(path, context.values);
    }
    let text = |text: &str| Ok(Value::String(text.to_owned()));
    match operand {
        ".Release.Name" => text(context.release),
        ".Release.Namespace" => text(context.namespace),
        ".Release.Service" => text("Helm"),
        ".Chart.Name" => text(&context.chart.name),
        ".Chart.Version" => text(&context.chart.version),
        ".Chart.AppVersion" => text(context.chart.app_version.as_deref().unwrap_or_default()),
        other => Err(not_known(other)),
    }
}

fn value_at(path: &str, values: &Value) -> Result<Value, String> {
    let mut at = values;
    for (index, key) in path.split('.').enumerate() {
        let is_name = !key.is_empty() && key.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        if !is_name {
            return Err(not_known(&format!(".Values.{path}")));
        }
        at = match at {
            Value::Object(map) => map.get(key).unwrap_or(&Value::Null),
            Value::Null if index > 0 => {
                return Err(format!("nil pointer evaluating interface {{}}.{key} in .Values.{path}"));
            }
            _ => return Err(format!("can't evaluate field {key} in .Values.{path}")),
        };
    }
    Ok(at.clone())
}

/// What templates take for false.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Above this, Helm prints whole numbers in a form of its own.
const LARGE: i64 = 1_000_000;

fn print(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(set) => Ok(set.to_string()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.abs() < LARGE => Ok(whole.to_string()),
            _ => Err(format!("the renderer does not know how Helm prints the number {number}")),
        },
        Value::Array(_) | Value::Object(_) => {
            Err("the renderer does not know how Helm prints a list or map".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let values = json!({ "image": { "tag": "1.0" }, "replicas": 3, "off": false, "list": [1], "big": 1_000_000,
            "ratio": 1.5, "quoted": "a\"b" });
        let chart = ChartMetadata { name: "notes".into(), version: "1.2.0".into(), app_version: Some("7".into()) };
        render("templates/a.yaml", text, &Context { values: &values, release: "r", namespace: "n", chart: &chart })
    }

    #[test]
    fn what_is_known_is_rendered_as_helm_does() {
        for (text, expected) in [
            ("image: {{ .Values.image.tag }}\n", "image: 1.0\n"),
            ("{{.Values.image.tag|quote}}", "\"1.0\""),
            ("{{ .Values.quoted | quote }}", r#""a\"b""#),
            ("{{ .Values.replicas }} {{ .Values.replicas | quote }}", "3 \"3\""),
            ("{{ .Values.none | default 2 }} {{ .Values.replicas | default 2 }}", "2 3"),
            ("{{ .Values.none | default \"a | b }}\" | quote }}", "\"a | b }}\""),
            ("[{{ .Values.none }}] [{{ .Values.none | quote }}]", "[] []"),
            ("{{ .Release.Name }}-{{ .Release.Namespace }} {{ .Release.Service }}", "r-n Helm"),
            ("{{ .Chart.Name }} {{ .Chart.Version }} {{ .Chart.AppVersion }}", "notes 1.2.0 7"),
            ("a\n{{- if .Values.replicas }}\nb\n{{- else }}\nc\n{{- end }}\nd", "a\nb\nd"),
            ("a\n{{- if .Values.off }}\nb\n{{- else }}\nc\n{{- end }}\nd", "a\nc\nd"),
            ("{{- if .Values.off }}{{ if .Values.replicas }}x{{ else }}y{{ end }}{{ end }}z", "z"),
            ("{{/* a comment */}}a {{- /* another */ -}} b", "ab"),
            ("{{ .Values.off }}", "false"),
        ] {
            assert_eq!(rendered(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error_with_its_place() {
        for (text, expected) in [
            ("a\n\n{{ include \"x\" . }}", "templates/a.yaml:3: the renderer does not know {{ include \"x\" . }}"),
            ("{{ range .Values.list }}", "templates/a.yaml:1: the renderer does not know {{ range .Values.list }}"),
            ("{{ .Values.image.tag | upper }}", "the renderer does not know"),
            ("{{ .Files.Get }}", "the renderer does not know {{ .Files.Get }}"),
            ("{{ if eq .Values.off true }}{{ end }}", "the renderer does not know"),
            ("{{ .Values.list }}", "a list or map"),
            ("{{ .Values.big }}", "the number 1000000"),
            ("{{ .Values.ratio }}", "the number 1.5"),
            ("{{ .Values.none.x }}", "nil pointer"),
            ("{{ .Values.image.tag.x }}", "can't evaluate field x"),
            ("a\n{{ .Values.x", "templates/a.yaml:2: unclosed action"),
            ("{{ if .Values.off }}", "without {{end}}"),
            ("{{ end }}", "unexpected {{end}}"),
            ("{{ else if .Values.off }}", "the renderer does not know"),
        ] {
            let error = rendered(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
