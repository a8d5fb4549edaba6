//! Safety rules beyond the table: what is refused, and where the refusal points; and what only looks dangerous.

use yaml_pin::{Document, Part, Refusal, documents, get, text};

use crate::support::{edits, refuses, request};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn refused(name: &str, source: &str, path: &str, seen: (&str, usize, usize)) {
    refuses(name, source, "#0", path, Part::Whole, "9", seen);
}

fn whole(name: &str, marked: &str, path: &str, value: &str) {
    edits(name, marked, "#0", path, Part::Whole, value);
}

#[test]
fn shared_values_are_refused() {
    refused("own anchor", "a: &v 1\nb: *v\n", "a", ("shared-anchor", 1, 7));
    refused("anchor around", "x:\n  a: &m\n    tag: 1\n  b: *m\n", "x.a.tag", ("shared-anchor", 3, 5));
    refused("anchor of the list around", "a: &l [1, 2]\nb: {c: *l}\n", "a[1]", ("shared-anchor", 1, 7));
    refused("merged elsewhere", "base: &b\n  tag: 1\nx:\n  <<: [*b]\n", "base.tag", ("shared-anchor", 2, 3));
    refused("anchor of the document", "&d\na: 1\nb: {c: *d}\n", "a", ("shared-anchor", 2, 1));
    refused("only the first of two definitions", "a: &x 1\nc: *x\nb: &x 2\n", "a", ("shared-anchor", 1, 7));
    whole("the second of two definitions", "a: &x 1\nc: *x\nb: &x «2=>3»\n", "b", "3");
    whole("an own key beside a merge key", "b: &b {tag: 1}\nx:\n  <<: *b\n  tag: «1=>2»\n", "x.tag", "2");
    refused("through an alias", "a: &m {tag: 1}\nb: *m\n", "b.tag", ("alias", 2, 4));
    refused(
        "an alias among list items",
        "a: &m {name: x}\nl:\n- *m\n- {name: y, v: 1}\n",
        "l[name=y].v",
        ("alias", 3, 3),
    );
    refused(
        "a name that may be merged in",
        "l:\n- <<: {name: y}\n- {name: y, v: 1}\n",
        "l[name=y].v",
        ("merge-key", 2, 3),
    );
}

#[test]
fn paths_that_are_not_one_scalar_are_refused() {
    refused("mapping", "a: {b: 1}\n", "a", ("wrong-shape", 1, 4));
    refused("list", "a:\n- 1\n", "a", ("wrong-shape", 2, 3));
    refused("key of a list", "a: [1]\n", "a.b", ("wrong-shape", 1, 4));
    refused("key of a scalar", "a: 1\n", "a.b", ("wrong-shape", 1, 4));
    refused("index of a mapping", "a: {0: 1}\n", "a[0]", ("wrong-shape", 1, 4));
    refused("selector on a mapping", "a: {name: x}\n", "a[name=x]", ("wrong-shape", 1, 4));
    refused("index past the end", "a: [1]\n", "a[1]", ("path-not-found", 1, 4));
    refused("selector without match", "a: [{name: x}, y]\n", "a[name=z].v", ("path-not-found", 1, 4));
    refused(
        "selector with two matches",
        "a:\n- {name: x, v: 1}\n- {name: x, v: 1}\n",
        "a[name=x].v",
        ("selector-ambiguous", 3, 3),
    );
    refused("duplicate selector key", "a:\n- {name: x, name: y, v: 1}\n", "a[name=x].v", ("duplicate-key", 2, 13));
    refused("duplicate on the way", "a: {b: 1}\na: {c: 1}\n", "a.b", ("duplicate-key", 2, 1));
    refused("duplicate by an alias", "x: &k tag\ntag: 1\n*k : 2\n", "tag", ("duplicate-key", 3, 1));
    whole("a duplicate elsewhere is not ours", "z: 1\nz: 2\na: «1=>2»\n", "a", "2");
    whole("a text `<<` in quotes is a key like others", "a: {\"<<\": x, b: «1=>2»}\n", "a.b", "2");
    refused("a quoted << is no merge key", "a: {\"<<\": x}\n", "a.b", ("path-not-found", 1, 4));
}

#[test]
fn the_document_must_be_one() {
    let two = "kind: A\nmetadata: {name: x, namespace: n}\nv: 1\n---\nkind: A\nmetadata: {name: x, namespace: m}\nv: «1=>2»\n---\n";
    let source = two.replace("«1=>2»", "1");
    edits("namespace", two, "A/m/x", "v", Part::Whole, "2");
    edits("index", two, "#1", "v", Part::Whole, "2");
    for (document, seen) in [
        ("A/x", ("document-ambiguous", 5, 1)),
        ("A/y", ("document-not-found", 0, 0)),
        ("B/x", ("document-not-found", 0, 0)),
        ("A/o/x", ("document-not-found", 0, 0)),
        ("#3", ("document-not-found", 0, 0)),
        ("#2", ("wrong-shape", 8, 4)),
    ] {
        refuses(document, &source, document, "v", Part::Whole, "2", seen);
    }
    let twice = "kind: A\nkind: B\nmetadata: {name: x}\nv: 1\n";
    refuses("two kinds", twice, "A/x", "v", Part::Whole, "2", ("duplicate-key", 2, 1));
    let listed: Vec<_> =
        documents(&source).unwrap().into_iter().map(|d| (d.kind, d.namespace, d.position.line)).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(listed, [(some("A"), some("n"), 1), (some("A"), some("m"), 5), (None, None, 8)]);
    for selector in ["", "A", "/x", "A/", "A/b/c/d", "#", "#x", "#-1", "#+1"] {
        assert_eq!(selector.parse::<Document>().map_err(|refusal| refusal.code()), Err("syntax"), "{selector}");
    }
}

#[test]
fn block_scalars_are_edited_only_in_one_line() {
    whole("literal", "a: |\n  «1.2=>1.20»\nb: 1\n", "a", "1.20");
    whole("kept line breaks", "a: |+\n  «x=>y #z: 1»\n\n\nb: 1\n", "a", "y #z: 1");
    whole("CRLF", "a: >-\r\n  «x=>y»\r\nb: 1\r\n", "a", "y");
    whole("indentation indicator", "a: |2-\n  «x=>y»\n", "a", "y");
    whole("at the end without line break", "a: |\n  «x=>y»", "a", "y");
    edits("image", "a: >-\n  r:5/x:«1=>2»\n", "#0", "a", Part::Tag, "2");
    refused("two lines", "a: |\n  x\n  y\n", "a", ("block-scalar", 2, 3));
    refused("two folded lines", "a: >\n  x\n  y\n", "a", ("block-scalar", 2, 3));
    refused("a blank line first", "a: |\n\n  x\nb: 1\n", "a", ("block-scalar", 3, 3));
    refused("nothing in it", "a: |\n\nb: x\n", "a", ("block-scalar", 3, 1));
    for value in ["", " x", "x ", "x\ny", "x\u{85}", "\t"] {
        refuses(value, "a: |\n  x\n", "#0", "a", Part::Whole, value, ("block-scalar", 2, 3));
    }
}

#[test]
fn tags_and_empty_values_that_cannot_be_written_are_refused() {
    refused("!!int", "a: !!int 3\n", "a", ("tagged", 1, 10));
    refused("local tag", "a: !Ref x\n", "a", ("tagged", 1, 9));
    whole("non-specific tag", "a: ! «1.1=>1.2»\n", "a", "1.2");
    whole("empty behind an anchor", "a: &x«=> \"9\"» # c\n", "a", "9");
    whole("empty behind a tag", "a: !!str«=> 9»\nb: 1\n", "a", "9");
    whole("empty in a flow mapping", "a: {b:«=> v», c: 1}\n", "a.b", "v");
    whole("empty, quoted key, blanks", "\"a\" :«=> v»  \n", "a", "v");
    whole("empty before a nested comment", "a:«=> v»\n  # c\nb: 1\n", "a", "v");
    whole("empty at the end", "b: 1\na:«=> v»", "a", "v");
    refused("empty list item", "- # x\n- b\n", "[0]", ("empty-value", 1, 6));
    refused("key without colon", "{a, b: 1}\n", "a", ("empty-value", 1, 3));
}

#[test]
fn kinds_stay_and_strings_stay_strings() {
    whole("number", "a: «3=>5»\n", "a", "5");
    whole("bool", "a: «true=>false»\n", "a", "false");
    whole("bool of 1.1 in place of one of both", "a: «true=>\"yes\"»\n", "a", "yes");
    whole("number of 1.1 in place of one of both", "a: «5=>\"1:30\"»\n", "a", "1:30");
    whole("number to version", "a: «1.10=>1.10.1»\n", "a", "1.10.1");
    whole("null to number", "a: «~=>\"5\"»\n", "a", "5");
    whole("null to text", "a: «null=>x»\n", "a", "x");
    whole("empty text", "a: «x=>\"\"»\n", "a", "");
    whole("octal", "a: «v1=>\"010\"»\n", "a", "010");
    whole("version in JSON", "{\"a\": «3=>\"x\"», \"b\": 1}", "a", "x");
    whole("number in JSON", "{\"a\": [1, {\"b\": «3=>5»}]}", "a[1].b", "5");
    whole("list in JSON", "{\"a\": [«3=>\"x\"»]}", "a[0]", "x");
    whole("comma in a flow list", "a: [«x=>\"x, y\"», z]\n", "a[0]", "x, y");
    whole("comma in a block", "a: «x=>x, y»\n", "a", "x, y");
    whole("single quotes cannot hold a line break", "a: «'x'=>\"x\\ny\"»\n", "a", "x\ny");
    whole("NEL is escaped", "a: «x=>\"\\u0085\\u2028\\u0000\\u007f\"»\n", "a", "\u{85}\u{2028}\0\u{7f}");
    whole("a plain scalar over lines", "a: «one\n  two=>three»\nb: 1\n", "a", "three");
    whole("a quoted scalar over lines", "a: \"«one\n  two=>three»\" # c\n", "a", "three");
}

#[test]
fn parts_of_images_are_exact() {
    let tag = |name, marked: &str, value| edits(name, marked, "#0", "a", Part::Tag, value);
    tag("port", "a: host:5000/r:«1=>2»\n", "2");
    tag("quotes", "a: 'r:«1.20=>1.30»' # c\n", "1.30");
    edits("digest", &format!("a: r:1@«sha512:{}=>{DIGEST}»\n", "a".repeat(128)), "#0", "a", Part::Digest, DIGEST);
    let refused = |name, source: &str, part, value, seen| refuses(name, source, "#0", "a", part, value, seen);
    refused("port only", "a: host:5000/r\n", Part::Tag, "2", ("no-such-part", 1, 4));
    refused("no digest", "a: r:1\n", Part::Digest, DIGEST, ("no-such-part", 1, 4));
    refused("no image", "a: some text\n", Part::Tag, "2", ("not-an-image", 1, 4));
    refused("not a tag", "a: r:1\n", Part::Tag, "2@x", ("bad-part", 0, 0));
    refused("not a digest", "a: r:1\n", Part::Tag, DIGEST, ("bad-part", 0, 0));
    refused("escapes", "a: \"r\\/x:1\"\n", Part::Tag, "2", ("escaped", 1, 4));
    let scalar =
        get(&format!("a: 'r:1@{DIGEST}'\n"), &"#0".parse().unwrap(), &"a".parse().unwrap(), Part::Tag).unwrap();
    assert_eq!((scalar.value.as_str(), scalar.span, scalar.position.column), ("1", 6..7, 7));
}

#[test]
fn templates_broken_files_and_hostile_ones_are_refused() {
    refused("value of a template", "tag: {{ .Values.tag }}\nx: 1\n", "x", ("template", 1, 6));
    refused("quoted template", "a: 1\ntag: \"{{ .Values.tag }}\"\n", "tag", ("template", 2, 6));
    refuses("a new template", "a: 1\n", "#0", "a", Part::Whole, "{{x}}", ("template", 1, 4));
    whole("quoted template elsewhere", "expr: \"{{ $labels.pod }}\"\na: «1=>2»\n", "a", "2");
    whole("a mapping as a key", "x: { {a: b}: c}\na: «1=>2»\n", "a", "2");
    refused("a later document is broken", "a: 1\n---\nb: [\n", "a", ("invalid-yaml", 3, 4));
    refused("unknown alias", "a: 1\nb: *x\n", "a", ("invalid-yaml", 2, 4));
    refused("tab indentation", "a:\n\tb: 1\n", "a.b", ("invalid-yaml", 2, 2));
    // A parser that takes NUL for the end would keep what follows without looking at it.
    for source in [
        "b: \0\na: 1\n",
        "a: 1\n\0",
        "a: 1 # \0\n",
        "a: \"\0\"\n",
        "a: '\0'\n",
        "a: 1\n...\n\0a: 2",
        "b: |\n  \0\na: 1\n",
    ] {
        let code = request(source, "#0", "a", Part::Whole, "2").map_err(|refusal| refusal.code());
        assert_eq!(code, Err("invalid-yaml"), "{source:?}");
    }
    let deep = |open: &str, close: &str| format!("a: 1\nb: {}{}\n", open.repeat(5000), close.repeat(5000));
    for source in [deep("[", "]"), deep("{a: ", "}"), format!("a: 1\nb:\n{}x\n", "- ".repeat(5000))] {
        assert_eq!(request(&source, "#0", "a", Part::Whole, "2").map_err(|refusal| refusal.code()), Err("limit"));
    }
    assert_eq!(
        text(b"a: \xc3\xa9\n\xff"),
        Err(Refusal::NotUtf8 { at: yaml_pin::Position { line: 2, column: 1, byte: 6 } })
    );
}

#[test]
fn an_alias_bomb_and_a_wall_of_comments_are_harmless() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..60 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    whole("bomb", &format!("{bomb}tag: «1=>2»\n"), "tag", "2");
    whole("comments", &format!("a:\n{}  tag: «1=>2»\n", "  # licence\n".repeat(500)), "a.tag", "2");
}

#[test]
fn the_comment_beside_is_found_and_no_other() {
    let comment = |source: &str, path: &str| {
        get(source, &"#0".parse().unwrap(), &path.parse().unwrap(), Part::Whole).unwrap().trailing_comment
    };
    let marker = "# {\"$imagepolicy\": \"ns:p\"}";
    for source in [
        format!("tag: 1 {marker}\nb: 2 # no\n"),
        format!("tag: \"#1\"\t{marker}\r\n"),
        format!("tag: >- {marker}\n  1\n"),
        format!("{{tag: 1, b: '#'}} {marker}\n"),
        format!("tag: {marker}\nb: 1\n"),
    ] {
        assert_eq!(comment(&source, "tag").as_deref(), Some(marker), "{source}");
    }
    for source in ["# no\ntag: 1\n# no\n", "a: 1 # no\ntag: |\n  x\n", "tag: '# no'\n", "tag:\n  1\n  # no\n"] {
        assert_eq!(comment(source, "tag"), None, "{source}");
    }
}

#[test]
fn setting_the_present_value_changes_no_byte_but_still_refuses() {
    for source in ["a: \"x\\u0041\"\n", "a: 1.20\n", "a: 'it''s'\n", "a: |\n  x\n", "a:\n", "a: one\n  two\n"] {
        let old = get(source, &"#0".parse().unwrap(), &"a".parse().unwrap(), Part::Whole).unwrap();
        assert_eq!(request(source, "#0", "a", Part::Whole, &old.value).as_deref(), Ok(source));
    }
    refuses("shared", "a: &x 1\nb: *x\n", "#0", "a", Part::Whole, "1", ("shared-anchor", 1, 7));
}

#[test]
fn positions_count_lines_and_characters_as_editors_do() {
    for (source, line, column, byte) in [
        ("é: 1\r\n\r\nü: {ö: *x}", 3, 8, 18),
        ("a: 1\rb: *x", 2, 4, 8),
        ("# \u{85}\u{2028}\nb: *x", 2, 4, 11),
        ("\u{feff}b: *x", 1, 5, 6),
    ] {
        let at = request(source, "#0", "b", Part::Whole, "2").unwrap_err().position().unwrap();
        assert_eq!((at.line, at.column, at.byte), (line, column, byte), "{source:?}");
    }
}
