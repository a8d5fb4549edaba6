//! What must hold for any input: shared by the fuzz target and by the test that runs its corpus.
//!
//! An input is the document, the path, the part (`whole`, `tag`, `digest`) and the new value, one a line, then the source.

use yaml_pin::{Document, Part, Path, get, set};

/// Runs one input; returns whether an edit was made. Panics if a promise of the library is broken.
pub(crate) fn run(input: &[u8]) -> bool {
    let Ok(text) = yaml_pin::text(input) else { return false };
    let mut lines = text.splitn(5, '\n');
    let (Some(document), Some(path), Some(part), Some(value), Some(source)) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return false;
    };
    let (Ok(document), Ok(path)) = (document.parse::<Document>(), path.parse::<Path>()) else { return false };
    assert_eq!(document.to_string().parse().as_ref(), Ok(&document));
    assert_eq!(path.to_string().parse().as_ref(), Ok(&path));
    let part = match part {
        "tag" => Part::Tag,
        "digest" => Part::Digest,
        _ => Part::Whole,
    };
    let old = match get(source, &document, &path, part) {
        Ok(old) => old,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty() && !refusal.hint().is_empty());
            assert!(set(source, &document, &path, part, value).is_err(), "what cannot be read is not edited");
            return false;
        }
    };
    assert!(source.get(old.span.clone()).is_some(), "the span is within the source");
    assert_eq!(old.position.byte, old.span.start);
    let Ok(edited) = set(source, &document, &path, part, value) else { return false };

    let new = get(&edited, &document, &path, part).expect("the edited scalar");
    assert_eq!(new.value.trim_end_matches('\n'), value.trim_end_matches('\n'));
    assert_eq!(new.trailing_comment, old.trailing_comment);
    if !old.span.is_empty() && edited != source {
        // A part that makes its scalar need quotes gets them around the whole, outside its own span.
        if part == Part::Whole || new.style == old.style {
            assert_eq!(edited.get(..old.span.start), source.get(..old.span.start), "bytes before the scalar");
            assert_eq!(edited.get(new.span.end..), source.get(old.span.end..), "bytes behind the scalar");
        }
    }
    assert_eq!(set(&edited, &document, &path, part, value).as_ref(), Ok(&edited), "a repeated edit changes nothing");
    if let Ok(restored) = set(&edited, &document, &path, part, &old.value) {
        let again = get(&restored, &document, &path, part).expect("the restored scalar");
        assert_eq!(again.value, old.value);
        let back_in_style =
            again.style == old.style && !source.contains('\\') && source.lines().count() == restored.lines().count();
        if back_in_style && !old.span.is_empty() {
            assert_eq!(restored, source, "the reverse edit restores the bytes");
        }
    }
    edited != source
}
