//! The key of an object, which distinguishes it from all others.

use super::request::CacheRequest;
use super::unkeyed;
use crate::base::slice_ext::SliceExt;
use crate::wire::{cookies, is_token, put_number};
use std::fmt;

/// A key pattern. Placeholders: `%s` scheme, `%h` host and port, `%r` path, `%q` query, `%%` a per cent sign (x0d's);
/// `%{header:NAME}` and `%{cookie:NAME}`. The default is `%s %h %r %q`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Scheme,
    Host,
    Path,
    Query,
    Header(Box<str>),
    Cookie(Box<str>),
}

impl Default for KeyPattern {
    fn default() -> Self {
        Self { parts: vec![Part::Scheme, Part::Host, Part::Path, Part::Query] }
    }
}

/// The syntax of a pattern, for messages.
pub const EXPECTED: &str = "a text with %s, %h, %r, %q, %%, %{header:NAME} or %{cookie:NAME}";

impl KeyPattern {
    /// Parses a pattern. `None` if it has no placeholder or an unknown one; see [`EXPECTED`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            literal.push_str(before);
            let mut chars = behind.chars();
            let part = match chars.next()? {
                '%' => {
                    literal.push('%');
                    rest = chars.as_str();
                    continue;
                }
                's' => Part::Scheme,
                'h' => Part::Host,
                'r' => Part::Path,
                'q' => Part::Query,
                '{' => {
                    let (inside, behind) = chars.as_str().split_once('}')?;
                    chars = behind.chars();
                    match inside.split_once(':')? {
                        ("header", name) if is_token(name.as_bytes()) => Part::Header(name.into()),
                        ("cookie", name) if is_token(name.as_bytes()) => Part::Cookie(name.into()),
                        _ => return None,
                    }
                }
                _ => return None,
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
            rest = chars.as_str();
        }
        literal.push_str(rest);
        // Without a placeholder all requests would get the same object.
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return None;
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Some(Self { parts })
    }

    /// Writes the key of a request: frontend, placeholders, and further facts about its origin that the backend gets.
    /// Each value ends with a NUL, which no value contains, so two requests that differ in a placeholder have different
    /// keys.
    pub fn write(&self, request: &CacheRequest<'_>, out: &mut Vec<u8>) {
        write_frontend(request.frontend, request.app, out);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Scheme => out.extend_from_slice(request.scheme().as_bytes()),
                Part::Host => {
                    out.extend(request.host.iter().map(u8::to_ascii_lowercase));
                    out.push(b':');
                    put_number(out, u64::from(request.port));
                }
                Part::Path => out.extend_from_slice(split_target(request.target).0),
                Part::Query => out.extend_from_slice(split_target(request.target).1),
                Part::Header(name) => request.fields.values(name).for_each(|value| put_one_of(out, value)),
                Part::Cookie(name) => {
                    // The backend decides which of several cookies counts.
                    let values = request.fields.values("cookie").flat_map(|value| cookies(value, name));
                    values.for_each(|value| put_one_of(out, value));
                }
            }
            if !matches!(part, Part::Text(_)) {
                out.push(0);
            }
        }
        unkeyed::write(request, out);
    }
}

impl fmt::Debug for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace('%', "%%"))?,
                Part::Scheme => f.write_str("%s")?,
                Part::Host => f.write_str("%h")?,
                Part::Path => f.write_str("%r")?,
                Part::Query => f.write_str("%q")?,
                Part::Header(name) => write!(f, "%{{header:{name}}}")?,
                Part::Cookie(name) => write!(f, "%{{cookie:{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Writes the frontend's part of a key.
pub fn write_frontend(frontend: &str, app: &str, out: &mut Vec<u8>) {
    for text in [frontend, app] {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }
}

/// Writes one of several values, or none. No value begins with this byte.
fn put_one_of(out: &mut Vec<u8>, value: &[u8]) {
    out.push(1);
    out.extend_from_slice(value);
    out.push(0);
}

/// The path, and the query with its question mark: `/a` and `/a?` differ.
pub(super) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', target).unwrap_or(target.len());
    (target.prefix(at), target.suffix(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::Header;

    fn key(pattern: &str, request: &CacheRequest<'_>) -> String {
        let mut out = Vec::new();
        KeyPattern::parse(pattern).expect("a good pattern").write(request, &mut out);
        String::from_utf8(out).expect("text").replace('\0', "|").replace('\u{1}', "+")
    }

    #[test]
    fn placeholders() {
        let fields = [
            Header { name: "X-A", value: b"1" },
            Header { name: "x-a", value: b"2" },
            Header { name: "Cookie", value: b"ab=0; a=x; a=y" },
        ];
        let request = CacheRequest::get("Example.org", "/p/a?q=1?", &fields);
        let table = [
            ("%h#%r#%q", "f||example.org:80|#/p/a|#?q=1?|"),
            ("%s%%%h", "f||http|%example.org:80|"),
            ("%{header:X-A}-%{cookie:a}-%{cookie:none}", "f||+1|+2||-+x|+y||-|"),
        ];
        for (pattern, expected) in table {
            assert_eq!(key(pattern, &request), expected, "{pattern}");
            let parsed = KeyPattern::parse(pattern).expect("a good pattern");
            assert_eq!(format!("{parsed:?}"), pattern);
        }
        let mut default = Vec::new();
        KeyPattern::default().write(&request, &mut default);
        assert_eq!(default, b"f\0\0http\0example.org:80\0/p/a\0?q=1?\0");
    }

    #[test]
    fn bad_patterns() {
        for pattern in
            ["", "constant", "%", "%x", "%h%", "%{header:}", "%{body:x}", "%{header:a b}", "%{header:x", "%%"]
        {
            assert_eq!(KeyPattern::parse(pattern), None, "{pattern:?}");
        }
    }

    /// Facts from a trusted proxy, or from this node, are part of the key if they add something.
    #[test]
    fn facts_of_trusted_proxies_are_part_of_the_key() {
        let table: &[(&str, &[u8], &str)] = &[
            ("X-Forwarded-For", b"192.0.2.1", ""),
            ("X-Real-IP", b"192.0.2.1", ""),
            ("X-Forwarded-Proto", b"http", ""),
            ("X-Forwarded-Proto", b"HTTPS", "x-forwarded-proto=HTTPS|"),
            ("X-Forwarded-Protocol", b"http", ""),
            ("X-Forwarded-Port", b"80", ""),
            ("X-Forwarded-Port", b"8080", "x-forwarded-port=8080|"),
            ("X-Forwarded-Host", b"a", ""),
            ("X-Forwarded-Host", b"b", "x-forwarded-host=b|"),
            ("X-Forwarded-Prefix", b"/p", "x-forwarded-prefix=/p|"),
            ("X_Forwarded_Host", b"b", "x_forwarded_host=b|"),
            ("Forwarded", b"for=1; host=b;proto=https, by=2", "forwarded=host=b|forwarded=proto=https|"),
        ];
        for (name, value, expected) in table {
            let fields = [Header { name: "Host", value: b"a" }, Header { name, value }];
            let found = key("%h", &CacheRequest::get("a", "/", &fields));
            assert_eq!(found.strip_prefix("f||a:80|"), Some(*expected), "{name}");
        }
    }

    #[test]
    fn several_values_are_distinguished_from_one() {
        let mut seen = std::collections::HashMap::new();
        for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)] {
            let mut fields = vec![Header { name: "A", value: b"" }; a];
            fields.extend(vec![Header { name: "B", value: b"" }; b]);
            let before = seen.insert(key("%{header:A}%{header:B}", &CacheRequest::get("h", "/", &fields)), (a, b));
            assert_eq!(before, None, "{a} {b}");
        }
    }

    #[test]
    fn no_two_requests_that_differ_share_a_key() {
        let mut seen = std::collections::HashMap::new();
        for host in ["a", "a.b", "ab", "b"] {
            for target in ["/", "/a", "/a?", "/a?b", "/?", "/?a", "/b", "/ab", "/a%3fb"] {
                for (frontend, app) in [("", ""), ("f", ""), ("a", ""), ("", "f"), ("f", "one"), ("f", "two")] {
                    let request = CacheRequest { frontend, app, ..CacheRequest::get(host, target, &[]) };
                    let before = seen.insert(key("%h%r%q", &request), (host, target, frontend, app));
                    assert_eq!(before, None, "{host} {target} {frontend} {app}");
                }
            }
        }
    }
}
