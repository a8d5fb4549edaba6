//! The grammar of ranges: text in, operators and partial versions out. Nothing here knows what they mean.

use semver::Prerelease;

/// How a version is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Bare,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    Tilde,
    Caret,
}

/// All spellings; a longer one comes before its prefix.
const OPERATORS: [(&str, Operator); 11] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterEqual),
    ("=>", Operator::GreaterEqual),
    ("<=", Operator::LessEqual),
    ("=<", Operator::LessEqual),
    ("~>", Operator::Tilde),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
];

impl Operator {
    /// The spelling that is written.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterEqual => ">=",
            Self::LessEqual => "<=",
            Self::Tilde => "~",
            Self::Caret => "^",
        }
    }
}

/// How many numbers of a partial version count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// None: `*`.
    Nothing,
    /// One: `1`, `1.x`.
    Major,
    /// Two: `1.2`, `1.2.x`.
    Minor,
    /// All three.
    Full,
}

/// A version in a range; what is missing is 0.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub(super) text: String,
    pub(super) base: semver::Version,
    pub(super) precision: Precision,
}

/// Why a text is no range, and where: the rest of the text at that place.
#[derive(Debug)]
pub(super) struct Unexpected<'a> {
    pub(super) reason: &'static str,
    pub(super) rest: &'a str,
}

/// Reads one group of terms that must all hold.
pub(super) fn group(text: &str) -> Result<Vec<(Operator, Partial)>, Unexpected<'_>> {
    let mut terms = Vec::new();
    let mut rest = skip_space(text);
    loop {
        rest = term(rest, &mut terms)?;
        let after = skip_space(rest);
        rest = match after.strip_prefix(',') {
            Some(next) => skip_space(next),
            None if after.is_empty() => return Ok(terms),
            None if after.len() < rest.len() => after,
            None => return Err(Unexpected { reason: "a space or a comma must follow", rest }),
        };
    }
}

/// Reads one term, or the two that a hyphen range stands for.
fn term<'a>(text: &'a str, terms: &mut Vec<(Operator, Partial)>) -> Result<&'a str, Unexpected<'a>> {
    let operator = OPERATORS.iter().find_map(|(spelling, operator)| Some((*operator, text.strip_prefix(spelling)?)));
    if let Some((operator, rest)) = operator {
        let (version, rest) = partial(skip_space(rest))?;
        terms.push((operator, version));
        return Ok(rest);
    }
    let (first, rest) = partial(text)?;
    let hyphen = skip_space(rest).strip_prefix('-').filter(|_| rest.starts_with(is_space));
    match hyphen {
        Some(after) if after.starts_with(is_space) => {
            let (last, rest) = partial(skip_space(after))?;
            terms.push((Operator::GreaterEqual, first));
            terms.push((Operator::LessEqual, last));
            Ok(rest)
        }
        _ => {
            terms.push((Operator::Bare, first));
            Ok(rest)
        }
    }
}

/// Reads a version of which numbers may be missing or wild.
fn partial(text: &str) -> Result<(Partial, &str), Unexpected<'_>> {
    let mut rest = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = [None; 3];
    for (index, number) in numbers.iter_mut().enumerate() {
        let digits = if index == 0 {
            rest
        } else if let Some(digits) = rest.strip_prefix('.') {
            digits
        } else {
            break;
        };
        (*number, rest) = one_number(digits)?;
    }
    let precision = match numbers {
        [None, ..] => Precision::Nothing,
        [_, None, _] => Precision::Major,
        [_, _, None] => Precision::Minor,
        _ => Precision::Full,
    };
    let [major, minor, patch] = match (precision, numbers) {
        (Precision::Nothing, _) => [0, 0, 0],
        (Precision::Major, [major, ..]) => [major.unwrap_or(0), 0, 0],
        (_, numbers) => numbers.map(Option::unwrap_or_default),
    };
    let mut base = semver::Version::new(major, minor, patch);
    if let Some(after) = rest.strip_prefix('-') {
        let (pre, after) = take(after, is_identifier);
        base.pre = match Prerelease::new(pre) {
            Ok(valid) if !valid.is_empty() => valid,
            _ => return Err(Unexpected { reason: "this is no pre-release", rest }),
        };
        rest = after;
    }
    if let Some(after) = rest.strip_prefix('+') {
        let (build, after) = take(after, is_identifier);
        if build.is_empty() || semver::BuildMetadata::new(build).is_err() {
            return Err(Unexpected { reason: "this is no build metadata", rest });
        }
        rest = after;
    }
    let text = text.strip_suffix(rest).unwrap_or(text).to_owned();
    Ok((Partial { text, base, precision }, rest))
}

/// Reads a number, or a wildcard as `None`.
fn one_number(text: &str) -> Result<(Option<u64>, &str), Unexpected<'_>> {
    if let Some(rest) = text.strip_prefix(['x', 'X', '*']) {
        return Ok((None, rest));
    }
    let (digits, rest) = take(text, |c| c.is_ascii_digit());
    if digits.is_empty() {
        return Err(Unexpected { reason: "a number or a wildcard is missing", rest: text });
    }
    let number = digits.parse().map_err(|_| Unexpected { reason: "this number is too large", rest: text })?;
    Ok((Some(number), rest))
}

fn take(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.'
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches(is_space)
}
