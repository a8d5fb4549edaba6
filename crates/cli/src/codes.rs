//! What stable codes mean, for `windlass explain`.

mod engine;
mod ours;
mod preflight;
mod reach;

use serde::Serialize;

/// A code with its explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Code {
    /// The code.
    pub(crate) code: &'static str,
    /// When it is seen.
    pub(crate) seen: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// What to do about it.
    pub(crate) remedy: &'static str,
}

/// A code, its meaning and its remedy.
pub(crate) type Row = (&'static str, &'static str, &'static str);

/// The groups, in the order of a request's life.
pub(crate) const GROUPS: [(&str, &[Row]); 6] = [
    ("by this command", ours::CODES),
    ("as a refusal, before anything is changed", preflight::CODES),
    ("while an operation runs", engine::CODES),
    ("while Git is read or written", reach::GIT),
    ("while what Helm has stored is read", reach::HELM),
    ("in talking to the API server", reach::API),
];

/// All codes, group by group.
pub(crate) fn all() -> impl Iterator<Item = Code> {
    GROUPS
        .into_iter()
        .flat_map(|(seen, rows)| rows.iter().map(move |&(code, meaning, remedy)| Code { code, seen, meaning, remedy }))
}

/// One code.
pub(crate) fn find(code: &str) -> Option<Code> {
    all().find(|one| one.code == code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use regex::Regex;

    use super::*;

    /// The sources of another crate, without its tests.
    fn sources(of: &str) -> String {
        fn read(folder: &Path, text: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if name.contains("tests") || name == "fixtures.rs" {
                    continue;
                }
                if path.is_dir() {
                    read(&path, text);
                } else if name.ends_with(".rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    text.push_str(source.split("#[cfg(test)]\nmod tests {").next().unwrap());
                }
            }
        }
        let mut text = String::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of).join("src"), &mut text);
        assert!(!text.is_empty(), "no sources of {of}");
        text
    }

    fn unexplained(of: &str, pattern: &str) -> BTreeSet<String> {
        let text = sources(of);
        let found: BTreeSet<String> =
            Regex::new(pattern).unwrap().captures_iter(&text).map(|found| found[1].to_owned()).collect();
        assert!(!found.is_empty(), "{pattern} finds nothing in {of}");
        let in_words_only = |code: &String| IN_WORDS_ONLY.contains(&code.as_str());
        found.into_iter().filter(|code| find(code).is_none() && !in_words_only(code)).collect()
    }

    /// Where a code is made: failures, refusals and the `code()` of errors.
    const MADE: &str = r#"(?:permanent|transient|refuse|refusal|warn)\(\s*"([a-z0-9]+(?:-[a-z0-9]+)*)""#;
    const PUSHED: &str = r#"refusals\.push\(\(\s*"([a-z0-9]+(?:-[a-z0-9]+)*)""#;
    const CHANGE: &str = r#"code: "([a-z0-9]+(?:-[a-z0-9]+)*)""#;
    const DANGER: &str = r#"danger\(\s*&object,\s*"([a-z0-9]+(?:-[a-z0-9]+)*)""#;
    const SAID: &str = r#"=> "([a-z0-9]+(?:-[a-z0-9]+)+)""#;

    /// Of a chart or manifest that cannot be read the words are passed on, and never the code.
    const IN_WORDS_ONLY: [&str; 6] = [
        "helm-unreadable-manifest",
        "helm-ambiguous-object",
        "helm-missing",
        "helm-timeout",
        "helm-template-failed",
        "helm-template-refused",
    ];

    #[test]
    fn every_code_that_is_made_somewhere_is_explained() {
        let mut missing: Vec<String> = Vec::new();
        for (of, pattern) in [
            ("upgrade-core", MADE),
            ("upgrade-core", SAID),
            ("api", SAID),
            ("operator", MADE),
            ("snapshot", MADE),
            ("snapshot", SAID),
            ("gitops", MADE),
            ("gitops", PUSHED),
            ("upgrade-core", CHANGE),
            ("gitops", SAID),
            ("helm", SAID),
            ("workloads", DANGER),
            ("workloads", SAID),
            ("cli", SAID),
        ] {
            missing.extend(unexplained(of, pattern).into_iter().map(|code| format!("{of}: {code}")));
        }
        assert!(missing.is_empty(), "not explained: {missing:#?}");
    }

    #[test]
    fn nothing_is_explained_that_nobody_says() {
        let crates = ["upgrade-core", "api", "operator", "snapshot", "gitops", "helm", "workloads"];
        let mut said: String = crates.map(sources).concat();
        said.push_str(include_str!("error.rs"));
        let unsaid: Vec<&str> =
            all().map(|code| code.code).filter(|code| !said.contains(&format!("\"{code}\""))).collect();
        assert!(unsaid.is_empty(), "explained, and said by nobody: {unsaid:?}");
    }

    #[test]
    fn a_code_is_explained_once_and_in_full() {
        let mut seen = BTreeSet::new();
        for code in all() {
            assert!(seen.insert(code.code), "{} is explained twice", code.code);
            assert!(!code.meaning.is_empty() && !code.remedy.is_empty(), "{}", code.code);
        }
    }
}
