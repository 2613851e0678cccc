//! `Cache-Control` of requests and responses (RFC 9111 section 5.2), `CDN-Cache-Control` (RFC 9213) and `Pragma`.

use super::fields::{Fields, list, seconds, split_at_byte, unquote};
use super::structured::{self, Value};
use crate::wire::is_token;
use serde::{Deserialize, Serialize};

/// The greatest number of field names of a directive. One with more applies to the whole response.
const MOST_NAMES: usize = 64;

/// The scope of a directive such as `no-cache` or `private`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The directive is absent.
    #[default]
    Absent,
    /// The whole response.
    Whole,
    /// Only the fields with these names, in lower case.
    Fields(Vec<Box<str>>),
}

impl Scope {
    /// Whether the directive applies to the whole response.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// Whether the directive names this field.
    pub fn names(&self, field: &str) -> bool {
        matches!(self, Self::Fields(names) if names.iter().any(|name| name.eq_ignore_ascii_case(field)))
    }

    fn add(&mut self, argument: Option<&[u8]>) {
        let names = argument.and_then(|argument| match argument {
            [b'"', inside @ .., b'"'] if !inside.contains(&b'"') => std::str::from_utf8(inside).ok(),
            _ => None,
        });
        match (names, &mut *self) {
            // Without names, or with invalid ones, it applies to the whole response.
            (None, _) | (_, Self::Whole) => *self = Self::Whole,
            (Some(names), Self::Fields(known)) => known.extend(field_names(names)),
            (Some(names), Self::Absent) => *self = Self::Fields(field_names(names).collect()),
        }
        // Each name is searched among all fields.
        if matches!(self, Self::Fields(names) if names.len() > MOST_NAMES) {
            *self = Self::Whole;
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Absent | Self::Whole => 0,
            Self::Fields(names) => names.iter().map(|name| 16 + name.len()).sum(),
        }
    }
}

fn field_names(names: &str) -> impl Iterator<Item = Box<str>> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.to_ascii_lowercase().into())
}

/// The directives of a response. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseDirectives {
    /// The response must not be stored.
    pub no_store: bool,
    /// It must not be reused without validation.
    pub no_cache: Scope,
    /// It must not be stored by a shared cache.
    pub private: Scope,
    /// It may be stored although a rule of RFC 9111 section 3 forbids it.
    pub public: bool,
    /// The lifetime. An invalid value is 0.
    pub max_age: Option<u64>,
    /// The lifetime in shared caches. An invalid value is 0.
    pub s_maxage: Option<u64>,
    /// It must not be reused stale.
    pub must_revalidate: bool,
    /// It must not be reused stale by shared caches.
    pub proxy_revalidate: bool,
    /// It may be stored only if the status is understood; `no_store` then has no effect.
    pub must_understand: bool,
    /// Time for which it may be reused stale while it is refreshed (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u64>,
    /// Time for which it may be reused stale in place of an error (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
    /// The representation never changes while it is fresh (RFC 8246).
    pub immutable: bool,
    /// The directives came in `CDN-Cache-Control`, which overrides `Cache-Control` and `Expires`.
    pub is_targeted: bool,
}

impl ResponseDirectives {
    /// Reads the directives for a cache at the edge.
    pub fn read(fields: Fields<'_>) -> Self {
        Self::read_targeted(fields).unwrap_or_else(|| Self::read_cache_control(fields))
    }

    fn read_cache_control(fields: Fields<'_>) -> Self {
        let mut directives = Self::default();
        for member in fields.members("cache-control") {
            let (name, argument) = split_at_byte(member, b'=');
            // A malformed directive may have been one that forbids storing: caches differ in its reading.
            directives.no_store |= !is_token(name) || argument.is_some_and(is_open_quote);
            let time = argument.map(|argument| seconds(unquote(argument)));
            directives.add(&name.to_ascii_lowercase(), argument, time);
        }
        directives
    }

    /// Heap memory in bytes.
    pub fn size(&self) -> usize {
        self.no_cache.size() + self.private.size()
    }

    /// RFC 9213 section 2.2: an empty or malformed field is ignored.
    fn read_targeted(fields: Fields<'_>) -> Option<Self> {
        let lines: Vec<&[u8]> = fields.values("cdn-cache-control").collect();
        let value = lines.join(&b", "[..]);
        let members = structured::dictionary(&value).filter(|members| !members.is_empty())?;
        let mut directives = Self { is_targeted: true, ..Self::default() };
        for (name, value) in members {
            match value {
                Value::Boolean(true) => directives.add(name, None, None),
                Value::Integer(number) => {
                    directives.add(name, Some(b""), Some(Some(u64::try_from(number).unwrap_or(0))));
                }
                Value::String(names) => {
                    let quoted = [b"\"", names, b"\""].concat();
                    directives.add(name, Some(&quoted), None);
                }
                // A value of the wrong type for its directive: RFC 9213 section 2.1 ignores it.
                Value::Boolean(false) | Value::Other => {}
            }
        }
        Some(directives)
    }

    /// `time`: the argument as seconds, if there is one; the inner `None` means that it is not a number.
    fn add(&mut self, name: &[u8], argument: Option<&[u8]>, time: Option<Option<u64>>) {
        // If two differ, the first one counts, and an invalid one makes the response stale (RFC 9111 section 4.2.1).
        let lifetime = time.map(|time| time.unwrap_or(0));
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.add(argument),
            b"private" => self.private.add(argument),
            b"public" => self.public = true,
            b"max-age" => self.max_age = self.max_age.or(lifetime).or(Some(0)),
            b"s-maxage" => self.s_maxage = self.s_maxage.or(lifetime).or(Some(0)),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"stale-while-revalidate" => self.stale_while_revalidate = self.stale_while_revalidate.or(time.flatten()),
            b"stale-if-error" => self.stale_if_error = self.stale_if_error.or(time.flatten()),
            b"immutable" => self.immutable = true,
            _ => {}
        }
    }

    /// Whether a stale response must never be reused without validation (RFC 9111 sections 5.2.2.2, 5.2.2.8 and
    /// 5.2.2.10: `s-maxage` implies `proxy-revalidate`).
    pub fn forbids_stale(&self) -> bool {
        let shared = self.proxy_revalidate || self.s_maxage.is_some();
        self.must_revalidate || shared || self.no_cache.is_whole()
    }
}

/// Whether an argument is a quoted string without an end, or with text behind it.
fn is_open_quote(argument: &[u8]) -> bool {
    let [b'"', inside @ ..] = argument else { return false };
    let mut is_escaped = false;
    let end = inside.iter().position(|byte| match byte {
        _ if is_escaped => {
            is_escaped = false;
            false
        }
        b'\\' => {
            is_escaped = true;
            false
        }
        byte => *byte == b'"',
    });
    end != Some(inside.len().wrapping_sub(1))
}

/// The directives of a request. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// The response must not be stored.
    pub no_store: bool,
    /// A stored response must be validated.
    pub no_cache: bool,
    /// A stored response is served, or a 504.
    pub only_if_cached: bool,
    /// The greatest age.
    pub max_age: Option<u64>,
    /// Time for which the response has to stay fresh.
    pub min_fresh: Option<u64>,
    /// The greatest staleness of the response; `u64::MAX` for any.
    pub max_stale: Option<u64>,
    /// The greatest staleness of the response in place of an error.
    pub stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Reads the directives of a request. `Pragma: no-cache` counts if there is no `Cache-Control` (RFC 9111 section
    /// 5.4).
    pub fn read(fields: Fields<'_>) -> Self {
        let mut directives = Self::default();
        if !fields.has("cache-control") {
            directives.no_cache = fields.members("pragma").any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return directives;
        }
        for member in fields.values("cache-control").flat_map(list) {
            let (name, argument) = split_at_byte(member, b'=');
            let time = argument.map(unquote).and_then(seconds);
            match name.to_ascii_lowercase().as_slice() {
                b"no-store" => directives.no_store = true,
                b"no-cache" => directives.no_cache = true,
                b"only-if-cached" => directives.only_if_cached = true,
                b"max-age" => directives.max_age = directives.max_age.or(time).or(Some(0)),
                b"min-fresh" => directives.min_fresh = directives.min_fresh.or(time),
                b"max-stale" if argument.is_none() => directives.max_stale = Some(u64::MAX),
                b"max-stale" => directives.max_stale = directives.max_stale.or(time),
                b"stale-if-error" => directives.stale_if_error = directives.stale_if_error.or(time),
                _ => {}
            }
        }
        directives
    }
}
