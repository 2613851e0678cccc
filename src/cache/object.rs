//! A stored response: head, body and the facts that the rules depend on.

use super::body::Body;
use super::directives::ResponseDirectives;
use super::fields::Fields;
use super::freshness::Freshness;
use super::quota::Charge;
use super::vary::Variant;
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Approximate memory of an object besides its bytes.
const OVERHEAD: usize = 512;

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ETag(Box<[u8]>);

impl ETag {
    /// Parses a tag; `None` if it is invalid.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let opaque = value.strip_prefix(b"W/").unwrap_or(value);
        let is_tag = matches!(opaque, [b'"', inside @ .., b'"'] if !inside.contains(&b'"'));
        is_tag.then(|| Self(value.into()))
    }

    /// The tag as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the tag is weak.
    pub fn is_weak(&self) -> bool {
        self.0.starts_with(b"W/")
    }

    /// The strong comparison.
    pub fn is_same(&self, other: &[u8]) -> bool {
        !self.is_weak() && *self.0 == *other
    }

    /// The weak comparison.
    pub fn is_alike(&self, other: &[u8]) -> bool {
        let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).len();
        self.0.suffix(self.0.len() - opaque(&self.0)) == other.suffix(other.len() - opaque(other))
    }
}

/// The origin of an object, for purges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The frontend.
    pub frontend: Arc<str>,
    /// The host name in lower case, without a port.
    pub host: Box<[u8]>,
    /// The request target.
    pub target: Box<[u8]>,
}

/// A stored response. It is written without its body ([`super::portable`]).
#[derive(Debug, Serialize, Deserialize)]
pub struct Object {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub phrase: Box<str>,
    /// The lines common to every reuse, each with its CRLF; without `Age`, `Content-Length` and hop-by-hop fields.
    pub fields: Arc<[u8]>,
    /// The content.
    #[serde(skip)]
    pub body: Body,
    /// `ETag`.
    pub etag: Option<ETag>,
    /// `Last-Modified`.
    pub last_modified: Option<SystemTime>,
    /// `Date`, or the time at which the response arrived.
    pub date: SystemTime,
    /// `Cache-Control`.
    pub directives: ResponseDirectives,
    /// Lifetime and age.
    pub freshness: Freshness,
    /// The fields of the request that selected it.
    pub variant: Variant,
    /// Its origin.
    pub origin: Origin,
    /// Tags for purges (`Surrogate-Key`, `Cache-Tag`).
    pub tags: Box<[Box<[u8]>]>,
    /// Its share of the frontend's quota.
    #[serde(skip)]
    pub(super) charge: Option<Arc<Charge>>,
    pub(super) hits: AtomicU64,
    pub(super) is_purged: AtomicBool,
    /// The time until which a request refreshes it, in microseconds.
    #[serde(skip)]
    pub(super) refreshing_until: AtomicU64,
}

impl Object {
    /// Memory of the object in bytes.
    pub fn size(&self) -> u64 {
        let tags: usize = self.tags.iter().map(|tag| 16 + tag.len()).sum();
        let origin = self.origin.host.len() + self.origin.target.len();
        let etag = self.etag.as_ref().map_or(0, |etag| etag.as_bytes().len());
        let head = self.phrase.len() + self.fields.len() + etag;
        self.body.stored() + (OVERHEAD + tags + origin + head + self.directives.size() + self.variant.size()) as u64
    }

    /// Whether its age allows reuse without validation. A soft purge ends that.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.freshness.is_fresh(now) && !self.is_purged()
    }

    /// Whether a soft purge has made it stale.
    pub fn is_purged(&self) -> bool {
        self.is_purged.load(Relaxed)
    }

    /// Whether a backend can validate it.
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Number of times the object was served.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Counts a reuse and returns its number.
    pub fn count_hit(&self) -> u64 {
        self.hits.fetch_add(1, Relaxed) + 1
    }

    /// Claims the right to refresh the object, for this time at most. Only one request has it at a time.
    pub fn claim_refresh(&self, now: Moment, timeout: Duration) -> bool {
        let until = self.refreshing_until.load(Relaxed);
        let claimed = (now + timeout).as_micros();
        until <= now.as_micros() && self.refreshing_until.compare_exchange(until, claimed, Relaxed, Relaxed).is_ok()
    }

    /// Makes the object stale at once. It stays as a shadow.
    pub fn soft_purge(&self) {
        self.is_purged.store(true, Relaxed);
    }
}

/// Fields that are not stored: hop-by-hop fields (RFC 9111 section 3.1), and fields that every reuse sets anew.
const LEFT_OUT: [&str; 15] = [
    "age",
    "connection",
    "content-length",
    "content-range",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-cache-hits",
    "x-cache-lookup",
];

/// Whether a field of a response is stored. A backend's `X-Director-Cache` is not (x0d).
pub(super) fn is_stored(name: &str, all: Fields<'_>, directives: &ResponseDirectives) -> bool {
    let is_same = |other: &&str| other.eq_ignore_ascii_case(name);
    let is_named = all.members("connection").any(|option| option.eq_ignore_ascii_case(name.as_bytes()));
    let is_qualified = directives.no_cache.names(name) || directives.private.names(name);
    !(LEFT_OUT.iter().any(is_same) || is_same(&"x-director-cache") || is_named || is_qualified)
}

/// Those of the lines that a 304 has (RFC 9110 section 15.4.5).
pub(super) fn not_modified_lines(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    const FIELDS: [&str; 8] =
        ["cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"];
    lines.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        let name = line.prefix(memchr::memchr(b':', line).unwrap_or(0));
        FIELDS.iter().any(|field| field.as_bytes().eq_ignore_ascii_case(name))
    })
}
