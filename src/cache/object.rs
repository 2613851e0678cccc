//! A stored response: head, body and what the rules need to know of it.

use super::directives::ResponseDirectives;
use super::fields::Fields;
use super::freshness::Freshness;
use super::quota::Charge;
use super::vary::Variant;
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// The size of a chunk of a body, in bytes.
const CHUNK: usize = 64 * 1024;

/// The memory that an object takes beside its bytes, roughly.
const OVERHEAD: usize = 512;

/// A body in chunks that are shared, not copied.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: Arc<BodyChunks>,
    len: u64,
}

#[derive(Debug, Default)]
struct BodyChunks {
    list: Box<[Box<[u8]>]>,
    /// It is given back with the last response that the body is sent in.
    _lease: BodyLease,
}

/// The memory of all bodies: those that are filled, those that are stored, and those that have left the store and are still
/// being sent.
#[derive(Debug)]
pub struct BodyBudget {
    used: AtomicU64,
    limit: u64,
}

impl BodyBudget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// The bytes that may be in use.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), BodyFault> {
        if self.used.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Relaxed);
        Err(BodyFault::NoRoom)
    }
}

/// Bytes that one body takes of a budget.
#[derive(Debug, Default)]
struct BodyLease {
    budget: Option<Arc<BodyBudget>>,
    bytes: u64,
}

impl BodyLease {
    fn grow(&mut self, bytes: u64) -> Result<(), BodyFault> {
        self.budget.as_ref().map_or(Ok(()), |budget| budget.take(bytes))?;
        self.bytes += bytes;
        Ok(())
    }

    fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(surplus, Relaxed);
        }
        self.bytes -= surplus;
    }
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Body {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes at these places, as slices for one `writev`.
    pub fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let mut start = 0_u64;
        self.chunks.list.iter().filter_map(move |chunk| {
            let len = chunk.len() as u64;
            let from = range.start.clamp(start, start + len) - start;
            let to = range.end.clamp(start, start + len) - start;
            start += len;
            // Places within a chunk are less than its length.
            let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
            (from < to).then(|| chunk.slice(place(from)..place(to)))
        })
    }
}

/// The reason why a body is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// It has more bytes than may be stored.
    TooLarge,
    /// It was cut short, or does not have the length that was stated.
    Incomplete,
    /// The memory of all bodies is in use ([`BodyBudget`]).
    NoRoom,
}

/// Collects a body while it is forwarded.
#[derive(Debug)]
pub struct BodyBuilder {
    chunks: Vec<Box<[u8]>>,
    tail: Vec<u8>,
    len: u64,
    limit: u64,
    stated: Option<u64>,
    lease: BodyLease,
}

impl BodyBuilder {
    /// Collects at most `limit` bytes, 0 for any number. `stated` is the length that the head states.
    pub fn new(limit: u64, stated: Option<u64>) -> Result<Self, BodyFault> {
        let limit = if limit == 0 { u64::MAX } else { limit };
        if stated.is_some_and(|stated| stated > limit) {
            return Err(BodyFault::TooLarge);
        }
        Ok(Self { chunks: Vec::new(), tail: Vec::new(), len: 0, limit, stated, lease: BodyLease::default() })
    }

    /// Adds bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BodyFault> {
        self.len = self.len.saturating_add(bytes.len() as u64);
        if self.len > self.limit {
            return Err(BodyFault::TooLarge);
        }
        if self.stated.is_some_and(|stated| self.len > stated) {
            return Err(BodyFault::Incomplete);
        }
        while !bytes.is_empty() {
            if self.tail.capacity() == 0 {
                let rest = self.stated.map_or(CHUNK as u64, |stated| stated - (self.len - bytes.len() as u64));
                let capacity = usize::try_from(rest).unwrap_or(CHUNK).clamp(1, CHUNK);
                self.lease.grow(capacity as u64)?;
                self.tail.reserve_exact(capacity);
            }
            let len = bytes.len().min(self.tail.capacity() - self.tail.len());
            self.tail.extend_from_slice(bytes.prefix(len));
            bytes = bytes.suffix(len);
            if self.tail.len() == self.tail.capacity() {
                self.chunks.push(std::mem::take(&mut self.tail).into_boxed_slice());
            }
        }
        Ok(())
    }

    /// Collects at most so many bytes, if that is less, and takes them of a budget. Nothing is collected yet.
    pub fn limit_to(&mut self, limit: u64, budget: &Arc<BodyBudget>) -> Result<(), BodyFault> {
        self.limit = self.limit.min(limit);
        self.lease.budget = Some(Arc::clone(budget));
        if self.stated.is_some_and(|stated| stated > limit) { Err(BodyFault::TooLarge) } else { Ok(()) }
    }

    /// The body, once its end has come in an orderly way.
    pub fn finish(mut self) -> Result<Body, BodyFault> {
        if self.stated.is_some_and(|stated| stated != self.len) {
            return Err(BodyFault::Incomplete);
        }
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.into_boxed_slice());
        }
        self.lease.shrink_to(self.len);
        Ok(Body { chunks: Arc::new(BodyChunks { list: self.chunks.into(), _lease: self.lease }), len: self.len })
    }
}

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(Box<[u8]>);

impl ETag {
    /// Reads a tag; `None` where it is none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let opaque = value.strip_prefix(b"W/").unwrap_or(value);
        let is_tag = matches!(opaque, [b'"', inside @ .., b'"'] if !inside.contains(&b'"'));
        is_tag.then(|| Self(value.into()))
    }

    /// The tag as it is written.
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

/// Where an object belongs, for purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The frontend.
    pub frontend: Arc<str>,
    /// The host's name in small letters, without a port.
    pub host: Box<[u8]>,
    /// The request target.
    pub target: Box<[u8]>,
}

/// A stored response.
#[derive(Debug)]
pub struct Object {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub phrase: Box<str>,
    /// The lines that every reuse has, each with its CRLF; without `Age`, `Content-Length` and what ends at a hop.
    pub fields: Arc<[u8]>,
    /// Those of them that a 304 has (RFC 9110 section 15.4.5).
    pub not_modified_fields: Box<[u8]>,
    /// The content.
    pub body: Body,
    /// `ETag`.
    pub etag: Option<ETag>,
    /// `Last-Modified`.
    pub last_modified: Option<SystemTime>,
    /// `Date`, or the time at which the response came.
    pub date: SystemTime,
    /// `Cache-Control`.
    pub directives: ResponseDirectives,
    /// Lifetime and age.
    pub freshness: Freshness,
    /// The fields of the request that selected it.
    pub variant: Variant,
    /// Where it belongs.
    pub origin: Origin,
    /// The tags that it may be purged by (`Surrogate-Key`, `Cache-Tag`).
    pub tags: Box<[Box<[u8]>]>,
    /// The share of the frontend's quota that it takes.
    pub(super) charge: Option<Arc<Charge>>,
    pub(super) hits: AtomicU64,
    pub(super) is_purged: AtomicBool,
    /// Microseconds of the moment until which a request refreshes it.
    pub(super) refreshing_until: AtomicU64,
}

impl Object {
    /// The memory that the object takes, in bytes.
    pub fn size(&self) -> u64 {
        let tags: usize = self.tags.iter().map(|tag| 16 + tag.len()).sum();
        let origin = self.origin.host.len() + self.origin.target.len();
        let etag = self.etag.as_ref().map_or(0, |etag| etag.as_bytes().len());
        let head = self.phrase.len() + self.fields.len() + self.not_modified_fields.len() + etag;
        self.body.len() + (OVERHEAD + tags + origin + head + self.directives.size() + self.variant.size()) as u64
    }

    /// Whether it may be reused without validation as far as its age is concerned. A soft purge ends that.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.freshness.is_fresh(now) && !self.is_purged()
    }

    /// Whether a soft purge has made it stale.
    pub fn is_purged(&self) -> bool {
        self.is_purged.load(Relaxed)
    }

    /// Whether a backend can be asked if it has changed.
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// How often the object was served.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Counts one more reuse and returns its number.
    pub fn count_hit(&self) -> u64 {
        self.hits.fetch_add(1, Relaxed) + 1
    }

    /// Claims the right to refresh the object, for this time at most. One request has it at a time.
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

/// Fields that are not stored: what ends at a hop (RFC 9111 section 3.1), and what every reuse has anew.
const LEFT_OUT: [&str; 14] = [
    "age",
    "connection",
    "content-length",
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

/// Whether a field of a response is stored. `X-Director-Cache` of a backend is not (x0d).
pub(super) fn is_stored(name: &str, all: Fields<'_>, directives: &ResponseDirectives) -> bool {
    let is_same = |other: &&str| other.eq_ignore_ascii_case(name);
    let is_named = all.members("connection").any(|option| option.eq_ignore_ascii_case(name.as_bytes()));
    let is_qualified = directives.no_cache.names(name) || directives.private.names(name);
    !(LEFT_OUT.iter().any(is_same) || is_same(&"x-director-cache") || is_named || is_qualified)
}

/// Whether a 304 has this field.
pub(super) fn is_in_not_modified(name: &str) -> bool {
    const FIELDS: [&str; 8] =
        ["cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"];
    FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name))
}
