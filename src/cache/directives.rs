//! `Cache-Control` of requests and responses (RFC 9111 section 5.2), `CDN-Cache-Control` (RFC 9213) and `Pragma`.

use super::fields::{Fields, list, seconds, split_at_byte, unquote};
use super::structured::{self, Value};
use crate::wire::is_token;

/// The most field names that a directive may have. One with more holds for the whole response.
const MOST_NAMES: usize = 64;

/// What a directive such as `no-cache` or `private` applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The directive is absent.
    #[default]
    Absent,
    /// The whole response.
    Whole,
    /// The fields of these names alone, in small letters.
    Fields(Vec<Box<str>>),
}

impl Scope {
    /// Whether the directive holds for the whole response.
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
            // Without names, or with names that cannot be read, it is the whole response.
            (None, _) | (_, Self::Whole) => *self = Self::Whole,
            (Some(names), Self::Fields(known)) => known.extend(field_names(names)),
            (Some(names), Self::Absent) => *self = Self::Fields(field_names(names).collect()),
        }
        // Each is looked for among all fields.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be reused without validation.
    pub no_cache: Scope,
    /// Not to be stored by a shared cache.
    pub private: Scope,
    /// To be stored although a rule of RFC 9111 section 3 forbids it.
    pub public: bool,
    /// The lifetime. An invalid one is 0.
    pub max_age: Option<u64>,
    /// The lifetime in shared caches. An invalid one is 0.
    pub s_maxage: Option<u64>,
    /// Never to be reused stale.
    pub must_revalidate: bool,
    /// Never to be reused stale by shared caches.
    pub proxy_revalidate: bool,
    /// To be stored only if the status is understood; `no_store` is then without effect.
    pub must_understand: bool,
    /// How long it may be reused stale while it is refreshed (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u64>,
    /// How long it may be reused stale in place of an error (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
    /// The representation never changes while it is fresh (RFC 8246).
    pub immutable: bool,
    /// They came in `CDN-Cache-Control`, which overrides `Cache-Control` and `Expires`.
    pub is_targeted: bool,
}

impl ResponseDirectives {
    /// Reads the directives that a cache at the edge obeys.
    pub fn read(fields: Fields<'_>) -> Self {
        Self::read_targeted(fields).unwrap_or_else(|| Self::read_cache_control(fields))
    }

    fn read_cache_control(fields: Fields<'_>) -> Self {
        let mut directives = Self::default();
        for member in fields.members("cache-control") {
            let (name, argument) = split_at_byte(member, b'=');
            // A directive that cannot be read may have been one that forbids: other caches differ about it.
            directives.no_store |= !is_token(name) || argument.is_some_and(is_open_quote);
            let time = argument.map(|argument| seconds(unquote(argument)));
            directives.add(&name.to_ascii_lowercase(), argument, time);
        }
        directives
    }

    /// The memory that they take beside their own, in bytes.
    pub fn size(&self) -> usize {
        self.no_cache.size() + self.private.size()
    }

    /// RFC 9213 section 2.2: a field that is empty or breaks the grammar is ignored.
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
                // A value of another type than the directive has: RFC 9213 section 2.1 leaves it out.
                Value::Boolean(false) | Value::Other => {}
            }
        }
        Some(directives)
    }

    /// `time`: the argument as seconds, where there is one; the inner `None` is one that is no number.
    fn add(&mut self, name: &[u8], argument: Option<&[u8]>, time: Option<Option<u64>>) {
        // Of two that differ the first counts, and an invalid one makes the response stale (RFC 9111 section 4.2.1).
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

    /// Whether a stale response must not be reused without validation, whatever happens (RFC 9111 sections 5.2.2.2,
    /// 5.2.2.8 and 5.2.2.10: `s-maxage` has the meaning of `proxy-revalidate` in it).
    pub fn forbids_stale(&self) -> bool {
        let shared = self.proxy_revalidate || self.s_maxage.is_some();
        self.must_revalidate || shared || self.no_cache.is_whole()
    }
}

/// Whether an argument is a quoted string that does not end, or that something follows.
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
    /// The response is not to be stored.
    pub no_store: bool,
    /// No stored response without validation.
    pub no_cache: bool,
    /// A stored response or a 504.
    pub only_if_cached: bool,
    /// The greatest age.
    pub max_age: Option<u64>,
    /// How long the response has to stay fresh.
    pub min_fresh: Option<u64>,
    /// How stale the response may be; `u64::MAX` for any.
    pub max_stale: Option<u64>,
    /// How stale the response may be in place of an error.
    pub stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Reads the directives of a request. `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 section
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
