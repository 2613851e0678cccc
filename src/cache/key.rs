//! The key of an object: what tells it from every other one.

use super::fields::Fields;
use crate::base::slice_ext::SliceExt;
use std::fmt;

/// The part of a request that the cache reads.
#[derive(Clone, Copy, Debug)]
pub struct CacheRequest<'a> {
    /// The identity of the frontend. It is part of every key: no frontend sees another one's objects.
    pub frontend: &'a str,
    /// The method.
    pub method: &'a [u8],
    /// Whether the client's connection is encrypted.
    pub is_https: bool,
    /// The host's name in small letters, without a port.
    pub host: &'a [u8],
    /// The port in `Host`, or that of the scheme.
    pub port: u16,
    /// The request target in origin form, as it is forwarded.
    pub target: &'a [u8],
    /// Whether the request has a body.
    pub has_body: bool,
    /// Whether the peer is a proxy whose forwarded headers are kept.
    pub is_trusted: bool,
    /// The fields of the head.
    pub fields: Fields<'a>,
}

impl CacheRequest<'_> {
    /// Whether the method is GET or HEAD, which share objects.
    pub fn is_retrieval(&self) -> bool {
        matches!(self.method, b"GET" | b"HEAD")
    }

    /// Whether the method is HEAD.
    pub fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }
}

/// A pattern of a key. Placeholders: `%s` scheme, `%h` host and port, `%r` path, `%q` query, `%%` a per cent sign (x0d's);
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

/// What a pattern may have, for messages.
pub const EXPECTED: &str = "a text with %s, %h, %r, %q, %%, %{header:NAME} or %{cookie:NAME}";

impl KeyPattern {
    /// Reads a pattern. `None` where it has no placeholder or one that is unknown; see [`EXPECTED`].
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
                        ("header", name) if is_token(name) => Part::Header(name.into()),
                        ("cookie", name) if is_token(name) => Part::Cookie(name.into()),
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
        // Without a placeholder all requests would get one object.
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return None;
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Some(Self { parts })
    }

    /// Writes the key of a request. Each value ends with a NUL, which no value has, so no two requests that differ in a
    /// placeholder have one key.
    pub fn write(&self, request: &CacheRequest<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(request.frontend.as_bytes());
        out.push(0);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Scheme => out.extend_from_slice(if request.is_https { b"https" } else { b"http" }),
                Part::Host => {
                    out.extend(request.host.iter().map(u8::to_ascii_lowercase));
                    out.push(b':');
                    super::fields::put_number(out, u64::from(request.port));
                }
                Part::Path => out.extend_from_slice(split_target(request.target).0),
                Part::Query => out.extend_from_slice(split_target(request.target).1),
                Part::Header(name) => request.fields.values(name).for_each(|value| {
                    out.extend_from_slice(value);
                    out.push(0);
                }),
                Part::Cookie(name) => out.extend_from_slice(cookie(request.fields, name).unwrap_or_default()),
            }
            if !matches!(part, Part::Text(_)) {
                out.push(0);
            }
        }
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

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The path and the query, which begins with its question mark: `/a` and `/a?` differ.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', target).unwrap_or(target.len());
    (target.prefix(at), target.suffix(at))
}

/// The value of the first cookie of this name.
fn cookie<'a>(fields: Fields<'a>, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.values("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::Header;

    fn request<'a>(host: &'a str, target: &'a str, fields: &'a [Header<'a>]) -> CacheRequest<'a> {
        CacheRequest {
            frontend: "f",
            method: b"GET",
            is_https: false,
            host: host.as_bytes(),
            port: 80,
            target: target.as_bytes(),
            has_body: false,
            is_trusted: false,
            fields: Fields(fields),
        }
    }

    fn key(pattern: &str, request: &CacheRequest<'_>) -> String {
        let mut out = Vec::new();
        KeyPattern::parse(pattern).expect("a good pattern").write(request, &mut out);
        String::from_utf8(out).expect("text").replace('\0', "|")
    }

    #[test]
    fn placeholders() {
        let fields = [
            Header { name: "X-A", value: b"1" },
            Header { name: "x-a", value: b"2" },
            Header { name: "Cookie", value: b"ab=0; a=x; a=y" },
        ];
        let request = request("Example.org", "/p/a?q=1?", &fields);
        let table = [
            ("%h#%r#%q", "f|example.org:80|#/p/a|#?q=1?|"),
            ("%s%%%h", "f|http|%example.org:80|"),
            ("%{header:X-A}-%{cookie:a}-%{cookie:none}", "f|1|2||-x|-|"),
        ];
        for (pattern, expected) in table {
            assert_eq!(key(pattern, &request), expected, "{pattern}");
            let parsed = KeyPattern::parse(pattern).expect("a good pattern");
            assert_eq!(format!("{parsed:?}"), pattern);
        }
        let mut default = Vec::new();
        KeyPattern::default().write(&request, &mut default);
        assert_eq!(default, b"f\0http\0example.org:80\0/p/a\0?q=1?\0");
    }

    #[test]
    fn bad_patterns() {
        for pattern in
            ["", "constant", "%", "%x", "%h%", "%{header:}", "%{body:x}", "%{header:a b}", "%{header:x", "%%"]
        {
            assert_eq!(KeyPattern::parse(pattern), None, "{pattern:?}");
        }
    }

    #[test]
    fn no_two_requests_that_differ_share_a_key() {
        let mut seen = std::collections::HashMap::new();
        for host in ["a", "a.b", "ab", "b"] {
            for target in ["/", "/a", "/a?", "/a?b", "/?", "/?a", "/b", "/ab", "/a%3fb"] {
                for frontend in ["", "f", "a"] {
                    let request = CacheRequest { frontend, ..request(host, target, &[]) };
                    let before = seen.insert(key("%h%r%q", &request), (host, target, frontend));
                    assert_eq!(before, None, "{host} {target} {frontend}");
                }
            }
        }
    }
}
