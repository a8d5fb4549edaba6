//! Checks an SSH host key against the `known_hosts` of a Secret. The operator's own files are never asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SHA1_BLOCK: usize = 64;

/// Whether a host may be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Trusted,
    /// The key is listed as revoked for this host.
    Revoked,
    /// No line names this host.
    UnknownHost,
    /// The host is known by keys of these types, but not by this key.
    OtherKey {
        types: Vec<String>,
    },
}

/// Looks a host and the key it showed (in SSH wire format) up.
pub(super) fn check(known_hosts: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
    let names =
        if port == 22 { vec![host.to_owned(), format!("[{host}]:22")] } else { vec![format!("[{host}]:{port}")] };
    let (mut trusted, mut revoked, mut types) = (false, false, Vec::new());
    for line in known_hosts.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split_ascii_whitespace().peekable();
        let marker = fields.next_if(|field| field.starts_with('@'));
        let (Some(patterns), Some(kind), Some(data)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if !names.iter().any(|name| matches_host(patterns, name)) {
            continue;
        }
        let is_same = STANDARD.decode(data).is_ok_and(|known| known == key);
        match marker {
            None => {
                trusted |= is_same;
                types.push(kind.to_owned());
            }
            Some("@revoked") => revoked |= is_same,
            // Host certificates are not something libssh2 shows us.
            Some(_) => {}
        }
    }
    match (revoked, trusted) {
        (true, _) => Verdict::Revoked,
        (false, true) => Verdict::Trusted,
        (false, false) if types.is_empty() => Verdict::UnknownHost,
        (false, false) => Verdict::OtherKey { types },
    }
}

/// The type of a key in SSH wire format, as `known_hosts` names it.
pub(super) fn kind(key: &[u8]) -> String {
    let length = key.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    let name = usize::try_from(length).ok().and_then(|length| key.get(4..)?.get(..length));
    name.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("of an unknown type").to_owned()
}

fn matches_host(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        return is_hash_of(hashed, name);
    }
    let name = name.to_ascii_lowercase();
    let mut matched = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if is_match(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= is_match(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
        }
    }
    matched
}

/// `*` and `?`, nothing else: brackets stand for themselves.
///
/// Only the last `*` is ever taken back: a pattern of many would else take time without end.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
                continue;
            }
            _ => {}
        }
        let Some((star_at, taken)) = star else { return false };
        star = Some((star_at, taken + 1));
        at = star_at + 1;
        seen = taken + 1;
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// `salt|hash` in base64, where the hash is HMAC-SHA1 of the name, as `ssh-keygen -H` writes it.
fn is_hash_of(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
    hmac_sha1(&salt, name.as_bytes()).is_some_and(|computed| computed == hash)
}

fn hmac_sha1(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let sha1 = |parts: &[&[u8]]| {
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.try_finalize().ok().map(|id| id.as_bytes().to_vec())
    };
    let key = if key.len() > SHA1_BLOCK { sha1(&[key])? } else { key.to_vec() };
    let pad = |with: u8| -> Vec<u8> {
        key.iter().copied().chain(std::iter::repeat(0)).take(SHA1_BLOCK).map(|byte| byte ^ with).collect()
    };
    let inner = sha1(&[&pad(0x36), data])?;
    sha1(&[&pad(0x5c), &inner])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"\0\0\0\x0bssh-ed25519 the key";

    fn line(hosts: &str, key: &[u8]) -> String {
        format!("{hosts} ssh-ed25519 {} a comment\n", STANDARD.encode(key))
    }

    #[test]
    fn a_listed_key_is_trusted_for_its_host_and_port_only() {
        let hosts = format!("# comment\n\n{}{}", line("git.test,10.0.0.1", KEY), line("[git.test]:2222", b"other"));
        assert_eq!(check(&hosts, "git.test", 22, KEY), Verdict::Trusted);
        assert_eq!(check(&hosts, "GIT.test", 22, KEY), Verdict::Trusted);
        assert_eq!(check(&hosts, "git.test", 2222, b"other"), Verdict::Trusted);
        assert_eq!(check(&hosts, "git.test", 2222, KEY), Verdict::OtherKey { types: vec!["ssh-ed25519".into()] });
        assert_eq!(check(&hosts, "evil.test", 22, KEY), Verdict::UnknownHost);
    }

    #[test]
    fn the_type_of_a_key_is_read_from_it() {
        assert_eq!(kind(KEY), "ssh-ed25519");
        assert_eq!(kind(b"\0\0\xff\xffssh"), "of an unknown type");
        assert_eq!(kind(b""), "of an unknown type");
    }

    #[test]
    fn an_empty_list_trusts_nobody() {
        assert_eq!(check("", "git.test", 22, KEY), Verdict::UnknownHost);
        assert_eq!(check("git.test ssh-ed25519", "git.test", 22, KEY), Verdict::UnknownHost);
    }

    #[test]
    fn wildcards_negations_and_revocations_count() {
        let hosts = line("*.test,!bad.test", KEY);
        assert_eq!(check(&hosts, "git.test", 22, KEY), Verdict::Trusted);
        assert_eq!(check(&hosts, "bad.test", 22, KEY), Verdict::UnknownHost);
        let revoked = format!("{hosts}@revoked {}", line("*", KEY));
        assert_eq!(check(&revoked, "git.test", 22, KEY), Verdict::Revoked);
    }

    #[test]
    fn a_pattern_matches_as_a_whole_and_in_little_time() {
        for (pattern, name, matches) in [
            ("*", "git.test", true),
            ("*", "", true),
            ("", "", true),
            ("", "git", false),
            ("git.*", "git.", true),
            ("*.test", "git.test", true),
            ("*.test", "git.test.evil", false),
            ("*.a.*.b", "x.a.y.a.z.b", true),
            ("g?t*t", "git.test", true),
            ("?", "", false),
            ("git**", "git", true),
        ] {
            assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} {name}");
        }
        let pattern = "*a".repeat(500) + "b";
        assert!(!is_match(pattern.as_bytes(), "a".repeat(5000).as_bytes()));
    }

    #[test]
    fn hashed_names_are_understood() {
        // RFC 2202, test case 2.
        let expected = [
            0xef, 0xfc, 0xdf, 0x6a, 0xe5, 0xeb, 0x2f, 0xa2, 0xd2, 0x74, 0x16, 0xd5, 0xf1, 0x84, 0xdf, 0x9c, 0x25, 0x9a,
            0x7c, 0x79,
        ];
        assert_eq!(hmac_sha1(b"Jefe", b"what do ya want for nothing?").unwrap(), expected);
        let salt = [7; 20];
        let hash = hmac_sha1(&salt, b"git.test").unwrap();
        let hosts = line(&format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hash)), KEY);
        assert_eq!(check(&hosts, "git.test", 22, KEY), Verdict::Trusted);
        assert_eq!(check(&hosts, "git2.test", 22, KEY), Verdict::UnknownHost);
    }
}
