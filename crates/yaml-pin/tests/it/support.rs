//! What the table tests share. A case is written once: `tag: «1.0=>1.1»` is the source with `1.0` and the exact expected
//! result with `1.1`.

use yaml_pin::{Document, Part, Path, Refusal, set};

/// The source, and the expected bytes if an edit is expected.
pub(crate) fn sides(marked: &str) -> (String, Option<String>) {
    let Some((before, rest)) = marked.split_once('«') else { return (marked.to_owned(), None) };
    let (middle, after) = rest.split_once('»').expect("a closing mark");
    let (old, new) = middle.split_once("=>").expect("an arrow");
    (format!("{before}{old}{after}"), Some(format!("{before}{new}{after}")))
}

pub(crate) fn request(source: &str, document: &str, path: &str, part: Part, value: &str) -> Result<String, Refusal> {
    let document: Document = document.parse().expect("a document selector");
    let path: Path = path.parse().expect("a path");
    set(source, &document, &path, part, value)
}

/// Asserts that the edit has exactly the bytes that the marks say, and that the value reads back.
pub(crate) fn edits(name: &str, marked: &str, document: &str, path: &str, part: Part, value: &str) {
    let (source, expected) = sides(marked);
    let edited = request(&source, document, path, part, value);
    assert_eq!(edited, Ok(expected.expect("an expected edit")), "{name}");
    let edited = edited.expect("checked above");
    let read = yaml_pin::get(&edited, &document.parse().expect("checked"), &path.parse().expect("checked"), part);
    assert_eq!(read.expect("the edited scalar").value.trim_end_matches('\n'), value, "{name}");
}

/// Asserts the refusal's code, line and column.
pub(crate) fn refuses(
    name: &str,
    source: &str,
    document: &str,
    path: &str,
    part: Part,
    value: &str,
    seen: (&str, usize, usize),
) {
    let refusal = request(source, document, path, part, value).expect_err(name);
    let at = refusal.position().map_or((0, 0), |at| (at.line, at.column));
    assert_eq!((refusal.code(), at.0, at.1), seen, "{name}: {refusal}");
    assert!(!refusal.hint().is_empty() && !refusal.is_retryable() && !refusal.to_string().is_empty());
}
