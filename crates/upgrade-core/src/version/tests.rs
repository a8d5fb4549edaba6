//! What versions and ranges mean, as tables, and the laws they obey, as properties.

use std::{
    cmp::Ordering,
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

use proptest::prelude::*;

use super::{Change, Range, RangeError, Version, VersionProblem, is_downgrade};
use crate::Coded as _;

fn version(text: &str) -> Version {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn range(text: &str) -> Range {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn versions_keep_their_text() {
    for text in
        ["1.2.3", "v1.2.3", "1.2.3-rc.1", "1.2.3+build.5", "v0.0.0-0.a-b+001", "2026.1.2", "18446744073709551615.0.0"]
    {
        let version = version(text);
        assert_eq!((version.as_str(), version.to_string().as_str()), (text, text));
        let json = serde_json::to_string(&version).unwrap();
        assert_eq!(serde_json::from_str::<Version>(&json).unwrap().as_str(), text);
    }
    let full = version("v1.2.3-rc.1+b7");
    assert_eq!((full.major(), full.minor(), full.patch(), full.prerelease(), full.build()), (1, 2, 3, "rc.1", "b7"));
    assert!(full.is_prerelease() && !version("1.2.3+rc").is_prerelease());
}

#[test]
fn what_is_no_version_is_refused_for_the_right_reason() {
    use VersionProblem::{Commit, Date, Empty, Incomplete, Malformed, Moving, Range, TooLong};
    let long = format!("1.2.3-{}", "a".repeat(251));
    for (text, problem) in [
        ("", Empty),
        ("v", Empty),
        (long.as_str(), TooLong),
        ("latest", Moving),
        ("stable", Moving),
        ("Main", Moving),
        ("1", Incomplete),
        ("v1.2", Incomplete),
        ("2024", Incomplete),
        ("3f2e1c0", Commit),
        ("0123456789abcdef0123456789abcdef01234567", Commit),
        ("1234567890123456789012345678901234567890", Commit),
        ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Commit),
        ("sha-3f2e1c0", Commit),
        ("2026-11-20", Date),
        ("2026.11.02", Date),
        ("20261120", Date),
        ("20261120143000", Date),
        ("2026-11-20T14-30-00Z", Date),
        ("1.x", Range),
        ("1.2.*", Range),
        (">=1.2.3", Range),
        ("1.2.3 || 1.2.4", Range),
        ("1.2.3.4", Malformed),
        ("01.2.3", Malformed),
        ("1.2.3-01", Malformed),
        ("1.2.3-", Malformed),
        ("V1.2.3", Malformed),
        ("vv1.2.3", Malformed),
        ("-1.2.3", Malformed),
        ("1.2.3\n", Malformed),
        ("18446744073709551616.0.0", Malformed),
        ("alpine", Malformed),
        ("1.2.3_4", Malformed),
    ] {
        let error = text.parse::<Version>().unwrap_err();
        assert_eq!(error.problem(), problem, "{text}");
        assert!(error.code().starts_with("version-") && !error.hint().is_empty() && !error.is_retryable());
    }
}

#[test]
fn versions_are_ordered_by_the_book() {
    let ascending = [
        "0.0.0-0",
        "0.0.0",
        "0.0.1",
        "0.9.0",
        "1.0.0-0",
        "1.0.0-1",
        "1.0.0-2",
        "1.0.0-10",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "v1.0.0",
        "1.0.1",
        "1.2.0",
        "1.10.0",
        "2.0.0",
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(version(a).cmp(&version(b)), i.cmp(&j), "{a} and {b}");
            assert_eq!(is_downgrade(&version(a), &version(b)), j < i);
        }
    }
}

#[test]
fn neither_build_metadata_nor_a_leading_v_makes_a_difference() {
    let hash = |version: &Version| {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        hasher.finish()
    };
    let (a, b) = (version("1.2.3+a"), version("v1.2.3+b"));
    assert_eq!(a, b);
    assert_eq!(hash(&a), hash(&b));
    assert!(!is_downgrade(&a, &b) && !is_downgrade(&b, &a));
    assert_eq!(Change::between(&a, &b), Change::None);
}

#[test]
fn the_size_of_a_change_is_the_first_number_that_differs() {
    for (from, to, change) in [
        ("1.2.3", "2.0.0", Change::Major),
        ("2.0.0", "1.9.9", Change::Major),
        ("1.2.3", "1.3.0", Change::Minor),
        ("0.1.0", "0.2.0", Change::Minor),
        ("1.2.3", "1.2.4-rc.1", Change::Patch),
        ("1.2.3-rc.1", "1.2.3", Change::Prerelease),
        ("1.2.3", "1.2.3", Change::None),
    ] {
        assert_eq!(Change::between(&version(from), &version(to)), change, "{from} to {to}");
    }
    assert!(Change::Major > Change::Minor && Change::Minor > Change::Patch && Change::Patch > Change::Prerelease);
}

/// A range, versions it matches, versions it does not. Each row was checked against Masterminds/semver 3.5.0.
const RANGES: &[(&str, &[&str], &[&str])] = &[
    // Exact.
    ("1.2.3", &["1.2.3", "v1.2.3", "1.2.3+b"], &["1.2.4", "1.2.3-rc.1", "1.3.0"]),
    ("=1.2.3", &["1.2.3"], &["1.2.4"]),
    ("v1.2.3+a", &["1.2.3", "1.2.3+b"], &["1.2.2"]),
    ("1.2.3-rc.1", &["1.2.3-rc.1"], &["1.2.3", "1.2.3-rc.2"]),
    ("01.02.03", &["1.2.3"], &["1.2.4"]),
    // Lines and wildcards.
    ("*", &["0.0.0", "9.9.9"], &["1.0.0-rc.1"]),
    ("x", &["1.2.3"], &["1.2.3-0"]),
    ("1", &["1.0.0", "1.99.0"], &["0.9.9", "2.0.0", "1.1.0-rc.1"]),
    ("1.X", &["1.0.0", "1.99.0"], &["2.0.0"]),
    ("1.x.3", &["1.0.0", "1.9.0"], &["2.0.3"]),
    ("x.2.3", &["0.1.0", "9.0.0"], &[]),
    ("=1.2", &["1.2.0", "1.2.9"], &["1.3.0", "1.1.9"]),
    ("1.2.*", &["1.2.0", "1.2.9"], &["1.3.0"]),
    ("0", &["0.0.0", "0.9.9"], &["1.0.0"]),
    ("0.0", &["0.0.0", "0.0.9"], &["0.1.0"]),
    // Not.
    ("!=1.2.3", &["1.2.4", "1.2.2"], &["1.2.3", "1.2.3+b", "1.2.4-rc.1"]),
    ("!=1.2", &["1.3.0", "1.1.9"], &["1.2.0", "1.2.9"]),
    ("!=1", &["0.9.0", "2.0.0"], &["1.0.0", "1.9.0"]),
    ("!=*", &["0.0.1", "1.0.0"], &["0.0.0"]),
    ("!=1.2, >=1.0.0-0", &["1.2.0-rc.1", "1.3.0"], &["1.2.0"]),
    ("!=1.2.x-rc", &["1.2.0", "1.3.0-rc"], &["1.2.0-rc", "1.2.9-rc"]),
    // Greater and less.
    (">1.2.3", &["1.2.4", "1.3.0"], &["1.2.3", "1.2.4-rc.1"]),
    (">1.2", &["1.3.0", "2.0.0"], &["1.2.0", "1.2.9"]),
    (">1", &["2.0.0"], &["1.0.0", "1.9.9"]),
    (">*", &["0.0.1", "1.0.0"], &["0.0.0"]),
    ("> 1.2.3-rc.1", &["1.2.3", "1.2.3-rc.2", "1.3.0-alpha"], &["1.2.3-rc.1", "1.2.3-beta"]),
    (">=1.2.3", &["1.2.3", "2.0.0"], &["1.2.2", "2.0.0-rc.1"]),
    (">=1.2", &["1.2.0", "1.3.0"], &["1.1.9"]),
    ("=>1.2", &["1.2.0"], &["1.1.9"]),
    ("<2", &["1.9.9", "0.0.0"], &["2.0.0", "2.0.0-rc.1", "1.9.0-rc.1"]),
    ("<1.2.3", &["1.2.2"], &["1.2.3"]),
    ("<1.2", &["1.1.9"], &["1.2.0"]),
    ("<=1.2.3", &["1.2.3", "1.2.2"], &["1.2.4"]),
    ("<=1.2", &["1.2.0", "1.2.9"], &["1.3.0"]),
    ("<=1", &["1.9.9"], &["2.0.0"]),
    ("=<1", &["1.9.9"], &["2.0.0"]),
    ("<=*", &["0.0.0", "0.0.9"], &["0.1.0", "1.0.0"]),
    ("<*", &[], &["0.0.0", "1.0.0"]),
    // Tilde.
    ("~1.2.3", &["1.2.3", "1.2.9"], &["1.2.2", "1.3.0"]),
    ("~>1.2.3", &["1.2.9"], &["1.3.0"]),
    ("~1.2", &["1.2.0", "1.2.9"], &["1.3.0", "1.1.9"]),
    ("~1", &["1.0.0", "1.9.9"], &["2.0.0"]),
    ("~*", &["0.0.0", "9.0.0"], &["1.0.0-rc.1"]),
    ("~0.0.0", &["0.0.0", "9.0.0"], &[]),
    ("~0.0.1", &["0.0.1", "0.0.9"], &["0.1.0"]),
    ("~1.2.3-beta.2", &["1.2.3-beta.2", "1.2.3-beta.10", "1.2.3", "1.2.4-beta.2"], &["1.2.3-beta.1", "1.3.0"]),
    // Caret.
    ("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0"]),
    ("^1.2", &["1.2.0", "1.9.0"], &["1.1.9", "2.0.0"]),
    ("^1", &["1.0.0", "1.9.0"], &["2.0.0", "0.9.0"]),
    ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "0.2.2", "1.0.0"]),
    ("^0.2", &["0.2.0", "0.2.9"], &["0.3.0"]),
    ("^0.0.3", &["0.0.3"], &["0.0.4", "0.0.2", "0.1.0"]),
    ("^0.0", &["0.0.0", "0.0.9"], &["0.1.0"]),
    ("^0", &["0.0.0", "0.9.0"], &["1.0.0"]),
    ("^*", &["0.0.0"], &["0.0.1", "1.0.0"]),
    ("^1.2.0-alpha.0", &["1.2.0-alpha.0", "1.2.0-beta", "1.2.0", "1.3.0-rc.1"], &["1.1.0", "2.0.0", "2.0.0-rc.1"]),
    // Hyphens.
    ("1.2 - 1.4", &["1.2.0", "1.4.9"], &["1.1.9", "1.5.0"]),
    ("1.2.3 - 2.3.4", &["1.2.3", "2.3.4"], &["1.2.2", "2.3.5"]),
    ("1 - 2 || 4 - 5.0", &["1.0.0", "2.9.9", "4.0.0", "5.0.9"], &["3.0.0", "5.1.0"]),
    ("1 - 2, !=1.5.0", &["1.4.0"], &["1.5.0"]),
    ("1.0.0-alpha - 1.0.0", &["1.0.0-beta", "1.0.0"], &["1.0.1"]),
    // Both and either.
    (">=1.2 <2", &["1.2.0", "1.9.9"], &["1.1.9", "2.0.0"]),
    (">=1.2, <2", &["1.2.0", "1.9.9"], &["1.1.9", "2.0.0"]),
    (">=1.2 , <2,!=1.5.0", &["1.4.0"], &["1.5.0"]),
    (">= 1.2\t<  2", &["1.2.0"], &["2.0.0"]),
    ("<1 || >=2, <3||^5.1", &["0.9.0", "2.9.9", "5.2.0"], &["1.0.0", "3.0.0", "5.0.0", "6.0.0"]),
    // Pre-releases are admitted by any term of the same group, and by no term of another.
    ("*-0", &["1.0.0-beta", "1.0.0"], &[]),
    (">=1.0.0-0", &["1.0.0-alpha", "1.0.0", "2.0.0-rc.1"], &["0.9.0"]),
    (">=1.0.0-0 <2.0.0", &["1.1.0-beta", "2.0.0-beta"], &["2.0.0"]),
    (">=1.0.0, <2.0.0-0", &["1.1.0-beta", "1.9.9"], &["2.0.0-beta", "1.0.0-beta"]),
    (">=2.0.0-0 || <1.0.0", &["2.0.0-rc.1", "0.9.0"], &["0.9.0-rc.1", "1.0.0"]),
    ("1.2-0", &["1.2.0-alpha", "1.2.9"], &["1.3.0"]),
];

#[test]
fn ranges_match_what_helm_and_flux_match() {
    for (text, inside, outside) in RANGES {
        let range = range(text);
        for one in *inside {
            assert!(range.matches(&version(one)), "{text} should match {one}");
        }
        for one in *outside {
            assert!(!range.matches(&version(one)), "{text} should not match {one}");
        }
    }
}

#[test]
fn the_highest_numbers_do_not_overflow() {
    let max = u64::MAX;
    for text in
        [format!("~{max}"), format!("^{max}"), format!("<={max}"), format!("{max}.{max}"), format!("^0.0.{max}")]
    {
        let version = version(
            &text
                .trim_start_matches(['~', '^', '<', '='])
                .split('.')
                .chain(["0", "0"])
                .take(3)
                .collect::<Vec<_>>()
                .join("."),
        );
        assert!(range(&text).matches(&version), "{text} should match {version}");
    }
    assert!(!range(&format!(">{max}")).matches(&version(&format!("{max}.{max}.{max}"))));
    assert!(!range(&format!("!={max}")).matches(&version(&format!("{max}.1.0"))));
}

#[test]
fn what_is_no_range_is_refused_with_the_place() {
    for (text, rest) in [
        ("1.2.3,", ""),
        (",1.2.3", ",1.2.3"),
        ("1,,2", ",2"),
        ("||", ""),
        ("1 ||", ""),
        ("1 | 2", "| 2"),
        ("> = 1.2", "= 1.2"),
        (">>1", ">1"),
        ("foo", "foo"),
        ("V1.2.3", "V1.2.3"),
        ("1.2.3.4", ".4"),
        ("1.2.", ""),
        ("1.2.3-", "-"),
        ("1.2.3-01", "-01"),
        ("1.2.3-a..b", "-a..b"),
        ("1.2.3+", "+"),
        ("1x", "x"),
        ("1 - 2 - 3", "- 3"),
        (">=1 - 2", "- 2"),
        ("1 -2", "-2"),
        ("latest", "latest"),
        ("99999999999999999999", "99999999999999999999"),
        (">=1<2", "<2"),
    ] {
        match text.parse::<Range>() {
            Err(RangeError::Unexpected { rest: found, .. }) => assert_eq!(found, rest, "{text}"),
            other => panic!("{text} gave {other:?}"),
        }
    }
    assert_eq!("".parse::<Range>(), Err(RangeError::Empty));
    assert_eq!(" \t".parse::<Range>(), Err(RangeError::Empty));
    assert_eq!(format!(">={}", "1".repeat(600)).parse::<Range>(), Err(RangeError::TooLong));
    assert_eq!(["1"; 33].join("||").parse::<Range>(), Err(RangeError::TooManyAlternatives));
    assert!(["1"; 32].join("||").parse::<Range>().is_ok());
    let error = "1.2.3,".parse::<Range>().unwrap_err();
    assert!(error.code().starts_with("range-") && !error.hint().is_empty() && !error.is_retryable());
}

#[test]
fn only_one_whole_version_is_exact() {
    for (text, exact) in [
        ("1.2.3", Some("1.2.3")),
        ("= v1.2.3+b", Some("v1.2.3+b")),
        ("1.2", None),
        ("1.2.x", None),
        ("~1.2.3", None),
        ("1.2.3, 1.2.3", None),
        ("1.2.3 || 1.2.4", None),
        (">=1.2.3", None),
        ("!=1.2.3", None),
    ] {
        assert_eq!(range(text).exact().as_ref().map(Version::as_str), exact, "{text}");
        assert_eq!(range(text).is_exact(), exact.is_some());
    }
}

#[test]
fn ranges_are_written_in_one_way() {
    for (text, written) in [
        (" => 1.2   < 2 ||~> 3.x", ">=1.2, <2 || ~3.x"),
        ("1.2 - 1.4", ">=1.2, <=1.4"),
        ("=<1,=2", "<=1, =2"),
        ("v1.2.3-rc.1+b", "v1.2.3-rc.1+b"),
    ] {
        assert_eq!(range(text).to_string(), written);
        assert_eq!(range(text), range(written));
    }
    assert_eq!(serde_json::to_string(&range("^1")).unwrap(), "\"^1\"");
    assert!(serde_json::from_str::<Range>("\"nonsense\"").is_err());
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..4_u64, 1 => any::<u64>()]
}

fn pre() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "-(0|[1-9]|rc|alpha)(\\.(0|[1-9][0-9]?|b-1))?"]
}

fn any_version() -> impl Strategy<Value = String> {
    ("v?", number(), number(), number(), pre(), "(\\+[0-9a-z]{1,3})?")
        .prop_map(|(v, major, minor, patch, pre, build)| format!("{v}{major}.{minor}.{patch}{pre}{build}"))
}

fn term() -> impl Strategy<Value = String> {
    let part = || prop_oneof![4 => number().prop_map(|n| n.to_string()), 1 => "[xX*]"];
    let version =
        (part(), proptest::option::of((part(), proptest::option::of(part()))), pre()).prop_map(|(a, rest, pre)| {
            match rest {
                None => format!("{a}{pre}"),
                Some((b, None)) => format!("{a}.{b}{pre}"),
                Some((b, Some(c))) => format!("{a}.{b}.{c}{pre}"),
            }
        });
    ("(=|!=|<|>|<=|>=|=<|=>|~|~>|\\^)? ?", version)
        .prop_map(|(operator, version)| format!("{operator}{version}").trim().to_owned())
}

proptest! {
    #[test]
    fn a_version_survives_a_round_trip(text in any_version()) {
        let one = version(&text);
        prop_assert_eq!(one.to_string(), text);
    }

    #[test]
    fn the_order_is_total(a in any_version(), b in any_version(), c in any_version()) {
        let (a, b, c) = (version(&a), version(&b), version(&c));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }

    #[test]
    fn a_range_written_back_matches_the_same(terms in proptest::collection::vec(term(), 1..4), one in any_version()) {
        let range = range(&terms.join(", "));
        let again: Range = range.to_string().parse().unwrap();
        prop_assert_eq!(range.matches(&version(&one)), again.matches(&version(&one)));
        prop_assert_eq!(range.to_string(), again.to_string());
    }

    #[test]
    fn either_matches_what_one_of_both_matches(a in term(), b in term(), one in any_version()) {
        let one = version(&one);
        let either = range(&format!("{a} || {b}"));
        prop_assert_eq!(either.matches(&one), range(&a).matches(&one) || range(&b).matches(&one));
    }

    #[test]
    fn both_matches_the_releases_that_each_matches(a in term(), b in term(), one in any_version()) {
        let one = version(&one);
        let both = range(&format!("{a}, {b}"));
        if one.is_prerelease() {
            // A pre-release is admitted by one term for the whole group; admitted by both, it is judged by both.
            if range(&a).matches(&one) && range(&b).matches(&one) {
                prop_assert!(both.matches(&one));
            }
        } else {
            prop_assert_eq!(both.matches(&one), range(&a).matches(&one) && range(&b).matches(&one));
        }
        prop_assert_eq!(both.matches(&one), range(&format!("{b} {a}")).matches(&one));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}|[0-9xv.*<>=!~^|, +-]{0,40}") {
        let parsed = (text.parse::<Version>(), text.parse::<Range>());
        if let (Ok(one), Ok(range)) = &parsed {
            prop_assert!(range.is_exact() && range.matches(one));
        }
    }
}
