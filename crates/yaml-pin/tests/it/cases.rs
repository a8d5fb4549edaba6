//! The 62 tricky cases that editors of YAML were compared by, each with its exact expected bytes or its refusal.

use yaml_pin::Part;

use crate::support::{edits, refuses};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn whole(name: &str, marked: &str, path: &str, value: &str) {
    edits(name, marked, "#0", path, Part::Whole, value);
}

fn in_document(name: &str, marked: &str, document: &str, path: &str, value: &str) {
    edits(name, marked, document, path, Part::Whole, value);
}

fn refused(name: &str, source: &str, path: &str, seen: (&str, usize, usize)) {
    refuses(name, source, "#0", path, Part::Whole, "1.1", seen);
}

#[test]
fn the_surroundings_of_a_plain_scalar_stay() {
    whole(
        "1 comments",
        "# top\nimage: # the image\n  # above\n  tag: «1.2.3=>1.2.4»  # beside: tag: 1.2.3\n  # below\n",
        "image.tag",
        "1.2.4",
    );
    whole(
        "2 Flux marker",
        "spec:\n  tag: «1.2.3=>1.2.4» # {\"$imagepolicy\": \"flux-system:app:tag\"}\n",
        "spec.tag",
        "1.2.4",
    );
    whole(
        "3 %YAML",
        "%YAML 1.1\n%TAG !e! tag:example.com,2024:\n---\nx: !e!t 1\ntag: «1.2.3=>1.2.4»\n",
        "tag",
        "1.2.4",
    );
    whole("4 CRLF", "a: 1\r\ntag: «1.2.3=>1.2.4»\r\nb: 2\r\n", "tag", "1.2.4");
    whole(
        "5 CRLF, comment and quotes",
        "a: 1\r\n# c\r\ntag: \"«1.2.3=>1.2.4»\" # c\r\n\r\nb: |\r\n  x\r\n",
        "tag",
        "1.2.4",
    );
    whole("6 mixed line ends", "a: 1\r\nb: 2\ntag: «1.2.3=>1.2.4»\r\nc: 3\n", "tag", "1.2.4");
    whole("7 non-ASCII before", "# Grüße 🦀 日本\nname: Zürich ☃\ntag: «1.2.3=>1.2.4» # é\n", "tag", "1.2.4");
    whole(
        "8 multi-line nearby",
        "a: one\n  two\nb: \"x\n  y \\\n  z\"\ntag: «1.2.3=>1.2.4»\nc: 'p\n\n  q'\n",
        "tag",
        "1.2.4",
    );
    in_document(
        "9 SOPS",
        "kind: Secret\nmetadata:\n    name: s\nstringData:\n    password: ENC[AES256_GCM,data:AbC=,iv:x/y=,tag:z==,type:str]\ntag: «1.2.3=>1.2.4»\nsops:\n    mac: ENC[AES256_GCM,data:1,type:str]\n    version: 3.9.0\n",
        "Secret/s",
        "tag",
        "1.2.4",
    );
    whole("10 blanks", "\n\na:\n\n\n  tag: «1.2.3=>1.2.4»\n\n\n  x:  y\n\n\n", "a.tag", "1.2.4");
}

#[test]
fn quotes_and_document_marks_stay() {
    whole("11 double-quoted", "tag: \"«1.2.3=>1.2.4»\"\n", "tag", "1.2.4");
    edits(
        "12 containers[name=x].image",
        "containers:\n  - name: side\n    image: r/side:1.0\n  - name: web\n    image: \"r/web:«1.0=>1.1»\"\n",
        "#0",
        "containers[name=web].image",
        Part::Tag,
        "1.1",
    );
    whole("13 single-quoted", "tag: '«1.2.3=>1.2.4»' # 'x'\n", "tag", "1.2.4");
    in_document(
        "14 middle document",
        "kind: A\nmetadata: {name: a}\ntag: 1.2.3\n---\nkind: B\nmetadata: {name: b}\ntag: «1.2.3=>1.2.4»\n---\nkind: C\nmetadata: {name: c}\ntag: 1.2.3\n",
        "B/b",
        "tag",
        "1.2.4",
    );
    in_document(
        "15 --- # comment and ...",
        "--- # first\ntag: 1.2.3\n...\n# between\n--- # second\ntag: «1.2.3=>1.2.4»\n...\n",
        "#1",
        "tag",
        "1.2.4",
    );
    in_document(
        "16 leading comment-only document",
        "# Copyright\n---\n# more\n---\nkind: A\nmetadata:\n  name: a\ntag: «1.2.3=>1.2.4»\n",
        "A/a",
        "tag",
        "1.2.4",
    );
    whole("17 no final newline at the target", "a: 1\ntag: «1.2.3=>1.2.4»", "tag", "1.2.4");
    whole("18 no final newline elsewhere", "tag: «1.2.3=>1.2.4»\na: |\n  x", "tag", "1.2.4");
    whole("19 byte order mark", "\u{feff}tag: «1.2.3=>1.2.4»\n", "tag", "1.2.4");
    whole("20 non-ASCII flow mapping", "a: {n: \"日本 🦀\", tag: «1.2.3=>1.2.4», é: ü}\n", "a.tag", "1.2.4");
    whole(
        "21 JSON",
        "{\n\t\"image\": {\"repository\": \"x\", \"tag\": \"«1.2.3=>1.2.4»\"},\n\t\"n\": [1, 2]\n}\n",
        "image.tag",
        "1.2.4",
    );
    whole(
        "22 NEL and U+2028 in comments",
        "# a\u{85}b\u{2028}c\ntag: «1.2.3=>1.2.4» # d\u{85}e\u{2029}f\n# g\u{85}\n",
        "tag",
        "1.2.4",
    );
    whole(
        "23 flow mapping, quoted",
        "image: {repository: x, tag: \"«1.2.3=>1.2.4»\", pullPolicy: Always}\n",
        "image.tag",
        "1.2.4",
    );
    whole(
        "24 flow mapping over lines",
        "image: {  # open\n  repository: x, # x\n  tag: «1.2.3=>1.2.4» , # tag: 1.2.3\n  # last\n}\n",
        "image.tag",
        "1.2.4",
    );
}

#[test]
fn layout_and_look_alikes_do_not_confuse() {
    whole(
        "25 look-alike inside a block scalar",
        "data: |\n  image:\n    tag: 1.2.3\nimage:\n  tag: «1.2.3=>1.2.4»\n",
        "image.tag",
        "1.2.4",
    );
    whole("26 folded block scalar", "tag: >-  # c\n    «1.2.3=>1.2.4»\n\nb: 1\n", "tag", "1.2.4");
    whole("27 tabs", "tag:\t«1.2.3=>1.2.4»\t# c\n", "tag", "1.2.4");
    whole("28 trailing spaces", "a:  \n  tag: «1.2.3=>1.2.4»   \n  b: 1 \n", "a.tag", "1.2.4");
    whole(
        "29 list not indented",
        "list:\n- name: a\n  v: 1.2.3\n- name: b\n  v: «1.2.3=>1.2.4»\nx: 1\n",
        "list[1].v",
        "1.2.4",
    );
    let digest = format!("image: registry.local:5000/a/b:«1.2=>1.3»@{DIGEST}\n");
    edits("30 image:port@digest", &digest, "#0", "image", Part::Tag, "1.3");
    whole("31 dash on its own line", "list:\n  -\n    v: 1.2.3\n  -\n    v: «1.2.3=>1.2.4»\n", "list[1].v", "1.2.4");
    // It was a number and stays one: `Scalar::reading` lets the caller see that.
    whole("32 1.10 to 1.20", "version: «1.10=>1.20»\n", "version", "1.20");
    whole("33 compact nested list", "- - a\n  - - b\n    - «1.2.3=>1.2.4»\n- c\n", "[0][1][1]", "1.2.4");
    whole(
        "34 key a.b/c.d",
        "annotations:\n  a: {b/c: {d: 1.2.3}}\n  a.b/c.d: «1.2.3=>1.2.4»\n",
        "annotations[\"a.b/c.d\"]",
        "1.2.4",
    );
}

#[test]
fn what_would_not_be_read_as_a_string_gets_quotes() {
    whole("35 1.10.1 to 1.11", "tag: «1.10.1=>\"1.11\"» # c\n", "tag", "1.11");
    whole("36 quoted 1.10 to 1.20", "tag: \"«1.10=>1.20»\"\n", "tag", "1.20");
    whole("37 value on the next line", "tag:\n    # why\n    «1.2.3=>1.2.4»\nb: 1\n", "tag", "1.2.4");
    whole("38 3f2e1c0 to 7e12345", "tag: «3f2e1c0=>\"7e12345\"»\n", "tag", "7e12345");
    whole("39 date-like", "tag: «latest=>\"2024-01-01\"»\n", "tag", "2024-01-01");
    whole("40 range", "version: «1.3.0=>\">=1.3 <2\"» # c\n", "version", ">=1.3 <2");
    whole("41 colon-space and space-hash", "title: «plain=>\"a: b #c\"»\n", "title", "a: b #c");
    whole("42 quoted range", "version: '«>=1.2 <2=>>=1.3 <2»'\n", "version", ">=1.3 <2");
    in_document(
        "43 HelmRelease among decoys",
        "kind: ConfigMap\nmetadata:\n  name: app\nspec: {values: {image: {tag: 1.2.3}}}\n---\nkind: HelmRelease\nmetadata:\n  name: app\nimage: {tag: 1.2.3}\nspec:\n  image: {tag: 1.2.3}\n  chart:\n    spec:\n      version: 1.2.3\n  values:\n    tag: 1.2.3\n    init:\n      image:\n        tag: 1.2.3\n    image:\n      repository: x # tag: 1.2.3\n      tag: «1.2.3=>1.2.4»\n",
        "HelmRelease/app",
        "spec.values.image.tag",
        "1.2.4",
    );
}

#[test]
fn anchors_tags_and_odd_keys_are_understood() {
    whole("44 the target has an anchor", "tag: &v «1.2.3=>1.2.4» # c\nb: 1\n", "tag", "1.2.4");
    refused("45 the target is an alias", "v: &v 1.2.3\ntag: *v\n", "tag", ("alias", 2, 6));
    refused(
        "46 only by a merge key",
        "base: &base {tag: 1.2.3}\nimage:\n  <<: *base\n  x: 1\n",
        "image.tag",
        ("merge-key", 3, 3),
    );
    whole(
        "47 inside an anchored mapping",
        "image: &image\n  tag: «1.2.3=>1.2.4»\nother: &o {x: 1}\ncopy: *o\n",
        "image.tag",
        "1.2.4",
    );
    whole("48 !!str", "tag: !!str «1.10=>1.20»\n", "tag", "1.20");
    whole("49 quoted keys", "\"image\": {'tag' : «1.2.3=>1.2.4»}\n", "image.tag", "1.2.4");
    whole("50 numeric-looking key", "data:\n  80: a\n  8080: «1.2.3=>1.2.4»\n", "data.8080", "1.2.4");
    whole("51 explicit key", "? image\n: ? tag\n  : «1.2.3=>1.2.4»\n", "image.tag", "1.2.4");
    refused("52 duplicate keys", "image:\n  tag: 1.2.3\n  'tag': 1.2.2\n", "image.tag", ("duplicate-key", 3, 3));
    refused("53 missing path", "image:\n  tags: 1.2.3\n", "image.tag", ("path-not-found", 2, 3));
    refused("54 Helm template file", "{{- if .Values.on }}\ntag: 1.2.3\n{{- end }}\n", "tag", ("invalid-yaml", 1, 3));
}

#[test]
fn empty_values_flow_items_and_escapes_are_spelled_right() {
    whole("55 empty value", "tag:«=> \"1.20\"» # null\nb:\n", "tag", "1.20");
    whole("56 empty string", "tag: «\"\"=>\"1.2.4\"» # c\n", "tag", "1.2.4");
    whole(
        "57 odd comments",
        "image:\n        # deep\n# shallow\n  tag: «1.2.3=>1.2.4»\n      # deep again\n # shallow again\n  x: 1\n",
        "image.tag",
        "1.2.4",
    );
    whole("58 flow list", "args: [--level, info, --v=«1.2.3=>1.2.4», \"x\"]\n", "args[2]", "--v=1.2.4");
    whole(
        "59 kustomize newTag",
        "images: [{name: a, newTag: 1.2.3}, {name: b, newName: r/b, newTag: «1.2.3=>1.2.4»}]\n",
        "images[name=b].newTag",
        "1.2.4",
    );
    whole(
        "60 escapes in double quotes",
        "tag: «\"1.2\\u002e3 \\\"x\\\"\"=>\"1.2.4 \\\"\\\\ y\"»\n",
        "tag",
        "1.2.4 \"\\ y",
    );
    whole("61 quotes in single quotes", "tag: 'it''s «1.2.3=>1.2.4»'\n", "tag", "it's 1.2.4");
    whole("62 duplicate anchors elsewhere", "a: &x 1\nb: &x 2\nc: *x\ntag: «1.2.3=>1.2.4»\n", "tag", "1.2.4");
}
