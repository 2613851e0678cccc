//! Rules of a frontend by which requests bypass the cache (`cache.bypass`): they are neither served from it nor stored in it.

use super::key;
use super::request::CacheRequest;
use crate::wire::{cookies, is_token};

/// The syntax of the rules, for messages.
pub const EXPECTED: &str =
    "header:NAME, cookie:NAME or query:NAME, each with =VALUE or without, and path:/PREFIX, joined by commas";

/// The rules of a frontend. One that applies is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BypassRules(Box<[Rule]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    place: Place,
    /// The name, or the prefix of a path.
    name: Box<str>,
    /// The value; any if there is none.
    value: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Cookie,
    Query,
    Path,
}

impl BypassRules {
    /// Parses rules; see [`EXPECTED`]. An empty text has none.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "" => Some(Self::default()),
            text => text.split(',').map(|rule| Rule::parse(rule.trim())).collect::<Option<_>>().map(Self),
        }
    }

    /// Whether a request bypasses the cache.
    pub fn apply_to(&self, request: &CacheRequest<'_>) -> bool {
        self.0.iter().any(|rule| rule.applies_to(request))
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let (place, rest) = text.split_once(':')?;
        if place == "path" {
            return rest.starts_with('/').then(|| Self { place: Place::Path, name: rest.into(), value: None });
        }
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value.as_bytes().into())),
            None => (rest, None),
        };
        let place = match place {
            "header" if is_token(name.as_bytes()) => Place::Header,
            "cookie" if is_token(name.as_bytes()) => Place::Cookie,
            "query" if !name.is_empty() => Place::Query,
            _ => return None,
        };
        Some(Self { place, name: name.into(), value })
    }

    fn applies_to(&self, request: &CacheRequest<'_>) -> bool {
        let is_meant = |value: &[u8]| self.value.as_ref().is_none_or(|meant| **meant == *value);
        let (path, query) = key::split_target(request.target);
        match self.place {
            Place::Path => path.starts_with(self.name.as_bytes()),
            Place::Header => request.fields.values(&self.name).any(is_meant),
            Place::Cookie => request.fields.values("cookie").flat_map(|value| cookies(value, &self.name)).any(is_meant),
            Place::Query => {
                let parameters = query.strip_prefix(b"?").unwrap_or_default().split(|byte| *byte == b'&');
                let values = parameters.filter_map(|text| {
                    let rest = text.strip_prefix(self.name.as_bytes())?;
                    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"=") }
                });
                values.into_iter().any(is_meant)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::Header;

    #[test]
    fn requests_that_rules_select() {
        let fields = [
            Header { name: "X-A", value: b"1" },
            Header { name: "x-a", value: b"2" },
            Header { name: "Cookie", value: b"session=x; b=" },
        ];
        let request = CacheRequest::get("h", "/admin/x?preview&q=1=2&r=", &fields);
        let table = [
            ("", false),
            ("header:x-A", true),
            ("header:X-A=2", true),
            ("header:X-A=3", false),
            ("header:X-B", false),
            ("cookie:session", true),
            ("cookie:session=x", true),
            ("cookie:session=y", false),
            ("cookie:b=", true),
            ("cookie:sess", false),
            ("query:preview", true),
            ("query:q=1=2", true),
            ("query:q=1", false),
            ("query:r=", true),
            ("query:pre", false),
            ("path:/admin/", true),
            ("path:/x", false),
            ("path:/admin/x?", false),
            ("header:X-B, path:/ad", true),
        ];
        for (text, expected) in table {
            let rules = BypassRules::parse(text).expect("good rules");
            assert_eq!(rules.apply_to(&request), expected, "{text}");
        }
        for text in ["header:", "header:a b", "path:x", "body:x", "header", "header:X-A,", ",", "query:", "cookie:=x"] {
            assert_eq!(BypassRules::parse(text), None, "{text:?}");
        }
    }
}
