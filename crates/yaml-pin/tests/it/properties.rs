//! Generated documents: an edit changes one value and nothing else, in the eyes of libyaml (serde_yaml_ng) as well, and the
//! reverse edit restores the bytes.

use proptest::prelude::*;
use serde::Deserialize as _;
use serde_yaml_ng::Value;
use yaml_pin::{Document, Part, Path, Step, Style, get, set};

/// A value of a generated document, with the way it is written.
#[derive(Debug, Clone)]
enum Tree {
    Scalar(String),
    Mapping(Vec<Tree>, bool),
    List(Vec<Tree>, bool),
}

/// Spellings of scalars that stand alone in block and in flow collections.
const SPELLINGS: &[&str] = &[
    "1.2.3",
    "v1.20",
    "1.10",
    "3",
    "true",
    "null",
    "~",
    "3f2e1c0",
    "\"1.10\"",
    "'1.10'",
    "'it''s'",
    "\"a \\\"b\\\"\"",
    "\"\"",
    "''",
    "https://x.y/z",
    "host:5000/repo:1.2",
    "a b",
    "é日本🦀",
    "'# no'",
    "\": x\"",
    "<2",
    "yes",
    "0x1F",
    "2024-01-01",
    "-1",
    "~1.2",
];

/// New values that editors trip over.
const VALUES: &[&str] = &[
    "1.2.4",
    "1.20",
    "7e12345",
    "2024-01-01",
    "yes",
    "NO",
    "null",
    "~",
    "",
    "0x1F",
    "0o17",
    "010",
    "1_000",
    "1:30",
    ">=1.3 <2",
    "a: b",
    "a #b",
    "a:",
    "- a",
    "---",
    "...",
    "'",
    "\"",
    "\\",
    "it's",
    "{a}",
    "[a]",
    "a, b",
    "&a",
    "*a",
    "!a",
    "|",
    "%a",
    "@a",
    " a",
    "a ",
    "a\nb",
    "a\tb",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "é🦀",
    "<<",
    "=",
    ".inf",
    "true",
    "5",
    "# c",
    "? a",
    "-1.5",
];

fn tree() -> impl Strategy<Value = Tree> {
    let scalar = proptest::sample::select(SPELLINGS).prop_map(|text| Tree::Scalar(text.to_owned()));
    scalar.prop_recursive(4, 24, 4, |inner| {
        (proptest::collection::vec(inner, 1..4), any::<bool>(), any::<bool>()).prop_map(|(children, is_list, flow)| {
            if is_list { Tree::List(children, flow) } else { Tree::Mapping(children, flow) }
        })
    })
}

/// Keys that need care, all different.
const KEYS: &[&str] = &["tag", "a.b/c.d", "8080", "x-y"];

fn write_flow(tree: &Tree, out: &mut String) {
    let (children, brackets, keys) = match tree {
        Tree::Scalar(text) => return out.push_str(text),
        Tree::Mapping(children, _) => (children, ["{", "}"], true),
        Tree::List(children, _) => (children, ["[", "]"], false),
    };
    out.push_str(brackets[0]);
    for (index, child) in children.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        if keys {
            out.push_str(&format!("{}: ", KEYS[index]));
        }
        write_flow(child, out);
    }
    out.push_str(brackets[1]);
}

fn write_block(tree: &Tree, indent: usize, decor: &str, out: &mut String) {
    let (children, is_mapping) = match tree {
        Tree::Mapping(children, false) => (children, true),
        Tree::List(children, false) => (children, false),
        _ => {
            out.push(' ');
            write_flow(tree, out);
            out.push_str(decor);
            out.push('\n');
            return;
        }
    };
    out.push('\n');
    for (index, child) in children.iter().enumerate() {
        out.push_str(&" ".repeat(indent));
        out.push_str(&if is_mapping { format!("{}:", KEYS[index]) } else { "-".to_owned() });
        write_block(child, indent + 2, decor, out);
    }
}

/// The paths of all scalars.
fn paths(tree: &Tree, here: &[Step], out: &mut Vec<Vec<Step>>) {
    let (children, is_mapping) = match tree {
        Tree::Scalar(_) => return out.push(here.to_vec()),
        Tree::Mapping(children, _) => (children, true),
        Tree::List(children, _) => (children, false),
    };
    for (index, child) in children.iter().enumerate() {
        let step = if is_mapping { Step::Key(KEYS[index].to_owned()) } else { Step::Index(index) };
        paths(child, &[here, &[step]].concat(), out);
    }
}

/// All documents, by libyaml.
fn second_opinion(source: &str) -> Vec<Value> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    serde_yaml_ng::Deserializer::from_str(source)
        .map(|document| Value::deserialize(document).expect("libyaml reads it"))
        .collect()
}

fn place<'v>(value: &'v mut Value, steps: &[Step]) -> &'v mut Value {
    steps.iter().fold(value, |value, step| match step {
        // A key such as 8080 is a number to libyaml.
        Step::Key(key) => {
            let key = serde_yaml_ng::from_str::<Value>(key).expect("a key");
            value.as_mapping_mut().and_then(|mapping| mapping.get_mut(&key)).expect("the key")
        }
        Step::Index(index) => value.get_mut(*index).expect("the item"),
        Step::Select { .. } => unreachable!("not generated"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_changes_one_value_and_its_reverse_restores_the_bytes(
        trees in proptest::collection::vec(tree(), 1..4),
        chosen in any::<proptest::sample::Index>(),
        scalar in any::<proptest::sample::Index>(),
        fixed in proptest::sample::select(VALUES),
        free in ".{0,12}",
        use_free in any::<bool>(),
        decor in proptest::sample::select(&["", " # c", "\t# tag: 1.2.3 \u{a0}é", "  "][..]),
        (crlf, bom, cut) in any::<(bool, bool, bool)>(),
    ) {
        let value = if use_free { free.as_str() } else { fixed };
        let mut source = if bom { "\u{feff}".to_owned() } else { String::new() };
        for tree in &trees {
            source.push_str("---\nroot:");
            write_block(tree, 2, decor, &mut source);
        }
        if crlf {
            source = source.replace('\n', "\r\n");
        }
        if cut {
            source.truncate(source.trim_end().len());
        }
        let index = chosen.index(trees.len());
        let mut all = Vec::new();
        paths(&trees[index], &[Step::Key("root".to_owned())], &mut all);
        let steps = all[scalar.index(all.len())].clone();
        let (document, path) = (Document::Index(index), Path::new(steps.clone()).expect("steps"));
        prop_assert_eq!(path.to_string().parse(), Ok(path.clone()));

        let old = get(&source, &document, &path, Part::Whole).expect("the generated scalar");
        if value.contains("{{") {
            let refused = set(&source, &document, &path, Part::Whole, value).map_err(|refusal| refusal.code());
            prop_assert_eq!(refused, Err("template"));
            return Ok(());
        }
        let edited = set(&source, &document, &path, Part::Whole, value).expect("an edit");
        let new = get(&edited, &document, &path, Part::Whole).expect("the edited scalar");
        prop_assert_eq!(&new.value, value);
        prop_assert_eq!(&new.trailing_comment, &old.trailing_comment);
        prop_assert_eq!(&edited[..new.span.start], &source[..old.span.start]);
        prop_assert_eq!(&edited[new.span.end..], &source[old.span.end..]);

        let mut expected = second_opinion(&source);
        *place(&mut expected[index], &steps) = if new.reading.is_string() {
            Value::String(value.to_owned())
        } else {
            // No string only where none was before.
            prop_assert_eq!((new.style, new.reading), (Style::Plain, old.reading));
            serde_yaml_ng::from_str(value).expect("a plain scalar")
        };
        prop_assert_eq!(second_opinion(&edited), expected, "{:?} in {:?}", value, edited);

        let restored = set(&edited, &document, &path, Part::Whole, &old.value).expect("the reverse edit");
        if new.style == old.style && (old.reading.is_string() || !new.reading.is_string()) {
            prop_assert_eq!(restored, source);
        }
    }

    #[test]
    fn any_path_and_any_selector_can_be_written_and_read(
        steps in proptest::collection::vec(prop_oneof![
            ".{0,6}".prop_map(Step::Key),
            any::<usize>().prop_map(Step::Index),
            (".{0,6}", ".{0,6}").prop_map(|(key, value)| Step::Select { key, value }),
        ], 1..5),
        names in proptest::collection::vec("[^/#]{1,6}", 3),
    ) {
        let path = Path::new(steps).expect("steps");
        prop_assert_eq!(path.to_string().parse(), Ok(path));
        let document = Document::Named { kind: names[0].clone(), namespace: Some(names[1].clone()), name: names[2].clone() };
        prop_assert_eq!(document.to_string().parse(), Ok(document));
    }

    #[test]
    fn arbitrary_text_never_panics(source in "[a-c:#'\"&*!|>{}\\[\\],?\n \t\\-\r%.~]{0,60}", value in ".{0,8}", path in "[a-c.\\[\\]0-2=\"]{1,6}") {
        crate::fuzz_body::run(format!("#0\n{path}\nwhole\n{value}\n{source}").as_bytes());
    }
}
