//! Commit messages by a template of the user's.

use super::AppInputs;

/// The placeholders that a template may have.
const PLACEHOLDERS: [&str; 7] = ["app", "namespace", "components", "from", "to", "reason", "request"];

/// The placeholders of a template that nothing is known for, as written.
pub(super) fn unknown(template: &str) -> Vec<String> {
    parts(template)
        .filter_map(|part| match part {
            Part::Placeholder(name) if !PLACEHOLDERS.contains(&name) => Some(format!("{{{name}}}")),
            _ => None,
        })
        .collect()
}

/// The message of a commit that changes what `inputs` changes in one repository.
pub(super) fn fill(template: &str, inputs: &AppInputs, repository: &str) -> String {
    let changes: Vec<_> = inputs.changes().filter(|(_, to)| to.pin.repository == repository).collect();
    let each = |one: &dyn Fn(&(&crate::ports::PinValue, &crate::ports::PinValue)) -> String| {
        let mut all: Vec<String> = changes.iter().map(one).collect();
        all.dedup();
        all.join(", ")
    };
    parts(template)
        .map(|part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Placeholder("app") => inputs.app.name.clone(),
            Part::Placeholder("namespace") => inputs.app.namespace.clone(),
            Part::Placeholder("components") => each(&|(_, to)| to.pin.component.clone()),
            Part::Placeholder("from") => each(&|(from, _)| from.value.clone()),
            Part::Placeholder("to") => each(&|(_, to)| to.value.clone()),
            Part::Placeholder("reason") => inputs.reason.clone(),
            Part::Placeholder("request") => inputs.request.clone(),
            // Refused by the preflight; here nothing better than what was written is known.
            Part::Placeholder(other) => format!("{{{other}}}"),
        })
        .collect()
}

enum Part<'t> {
    Text(&'t str),
    Placeholder(&'t str),
}

/// Cuts a template; a brace without a name behind it is text.
fn parts(template: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'))
            && !name.is_empty()
            && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '-' || one == '_')
        {
            rest = after;
            return Some(Part::Placeholder(name));
        }
        let skip = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest.get(skip..).and_then(|tail| tail.find('{')).map_or(rest.len(), |at| at + skip);
        let (text, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        Some(Part::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn only_known_placeholders_are_taken() {
        for (template, expected) in [
            ("Bump {app} to {to}\n\n{reason}", &[][..]),
            ("{", &[]),
            ("a { b } {} {app", &[]),
            ("{app}{version}", &["{version}"]),
            ("{{to}}", &[]),
            ("é{App}é", &["{App}"]),
        ] {
            assert_eq!(unknown(template), expected, "{template}");
        }
    }
}
