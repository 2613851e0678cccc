//! Conditions and ranges of a request, evaluated against a cached response (RFC 9110 sections 13 and 14).

use super::fields::{Fields, date, list, seconds, split_at_byte};
use super::object::{ETag, Object};
use crate::wire::put;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// The greatest number of ranges of one request; a `Range` with more is ignored.
const MOST_RANGES: usize = 16;

/// The least time from the last change to the `Date` of a representation for its date to be a strong validator (RFC
/// 9110 section 8.8.2.2).
pub(super) const STRONG_AFTER: Duration = Duration::from_secs(1);

/// The validators and the length of a representation.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'a> {
    /// The status without conditions.
    pub status: u16,
    /// `ETag`.
    pub etag: Option<&'a ETag>,
    /// `Last-Modified`.
    pub last_modified: Option<SystemTime>,
    /// `Date`.
    pub date: SystemTime,
    /// The length of the content in bytes.
    pub len: u64,
}

impl<'a> From<&'a Object> for Representation<'a> {
    fn from(object: &'a Object) -> Self {
        let Object { status, etag, last_modified, date, body, .. } = object;
        Self { status: *status, etag: etag.as_ref(), last_modified: *last_modified, date: *date, len: body.len() }
    }
}

/// The response that follows from the conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response.
    Full,
    /// A 206 with these bytes.
    Partial(Range<u64>),
    /// A 304.
    NotModified,
    /// A 412.
    PreconditionFailed,
    /// A 416.
    RangeNotSatisfiable,
}

/// Evaluates the conditions of a GET or HEAD in the order of RFC 9110 section 13.2.2. Conditions apply only to a 200.
pub fn evaluate(fields: Fields<'_>, is_head: bool, representation: &Representation<'_>) -> Outcome {
    if representation.status != 200 {
        return Outcome::Full;
    }
    let holds = if fields.has("if-match") {
        if_match(fields, representation)
    } else {
        if_unmodified_since(fields, representation)
    };
    if !holds {
        return Outcome::PreconditionFailed;
    }
    let is_modified = if fields.has("if-none-match") {
        if_none_match(fields, representation)
    } else {
        if_modified_since(fields, representation)
    };
    if !is_modified {
        return Outcome::NotModified;
    }
    match fields.only("range") {
        Some(range) if !is_head && if_range(fields, representation) => select(range, representation.len),
        _ => Outcome::Full,
    }
}

/// Fields that are removed from a request that validates a stored response: these conditions are the client's, and the
/// cache evaluates them itself.
pub const CONDITIONS: [&str; 4] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];

/// The same of a request for what a stored response lacks.
const CONDITIONS_AND_RANGES: [&str; 6] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"];

/// Lines of a request by which this node asks a backend, in place of those of the client.
#[derive(Clone, Debug)]
pub struct OwnConditions {
    /// The lines.
    pub lines: Box<[u8]>,
    /// The names of the client's lines that are left out.
    pub replaced: &'static [&'static str],
}

impl OwnConditions {
    /// None at all: the whole is wanted.
    pub fn none() -> Self {
        Self { lines: [].into(), replaced: &CONDITIONS }
    }

    /// Those by which a backend tells whether an object is still good.
    pub fn to_validate(object: &Object) -> Self {
        let mut lines = Vec::new();
        if let Some(etag) = &object.etag {
            put(&mut lines, "If-None-Match", etag.as_bytes());
        }
        if let Some(modified) = object.last_modified {
            put(&mut lines, "If-Modified-Since", httpdate::fmt_http_date(modified).as_bytes());
        }
        Self { lines: lines.into(), replaced: &CONDITIONS }
    }

    /// Lines that ask for a part, whatever the client has asked for.
    pub(super) fn in_place_of_ranges(lines: Vec<u8>) -> Self {
        Self { lines: lines.into(), replaced: &CONDITIONS_AND_RANGES }
    }
}

/// RFC 9110 section 13.1.1: strong comparison.
fn if_match(fields: Fields<'_>, representation: &Representation<'_>) -> bool {
    let is_match = |tag: &[u8]| tag == b"*" || representation.etag.is_some_and(|etag| etag.is_same(tag));
    fields.members("if-match").any(is_match)
}

/// RFC 9110 section 13.1.2: weak comparison.
fn if_none_match(fields: Fields<'_>, representation: &Representation<'_>) -> bool {
    let is_match = |tag: &[u8]| tag == b"*" || representation.etag.is_some_and(|etag| etag.is_alike(tag));
    !fields.members("if-none-match").any(is_match)
}

/// RFC 9110 section 13.1.3. A response without `Last-Modified` is compared by its `Date` (RFC 9111 section 4.3.2).
fn if_modified_since(fields: Fields<'_>, representation: &Representation<'_>) -> bool {
    let modified = representation.last_modified.unwrap_or(representation.date);
    fields.only("if-modified-since").and_then(date).is_none_or(|since| modified > since)
}

/// RFC 9110 section 13.1.4.
fn if_unmodified_since(fields: Fields<'_>, representation: &Representation<'_>) -> bool {
    let since = fields.only("if-unmodified-since").and_then(date);
    match (since, representation.last_modified) {
        (Some(since), Some(modified)) => modified <= since,
        _ => true,
    }
}

/// RFC 9110 section 13.1.5: strong comparison, or an equal date.
fn if_range(fields: Fields<'_>, representation: &Representation<'_>) -> bool {
    let Some(value) = fields.first("if-range") else { return true };
    if fields.only("if-range").is_none() {
        return false;
    }
    if ETag::parse(value).is_some() {
        return representation.etag.is_some_and(|etag| etag.is_same(value));
    }
    let modified = representation.last_modified.filter(|modified| *modified + STRONG_AFTER <= representation.date);
    date(value).is_some_and(|date| modified == Some(date))
}

/// RFC 9110 section 14.2. Several ranges that combine to one count as one; otherwise the whole content is sent, so that
/// many ranges cost nothing.
fn select(value: &[u8], len: u64) -> Outcome {
    let Some(ranges) = ranges(value, len) else { return Outcome::Full };
    let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let Some(mut all) = ranges.first().cloned() else { return Outcome::RangeNotSatisfiable };
    for range in ranges {
        if range.start > all.end {
            return Outcome::Full;
        }
        all.end = all.end.max(range.end);
    }
    Outcome::Partial(all)
}

/// The ranges of a `Range`, empty ones if they cannot be satisfied; `None` if the field has to be ignored.
fn ranges(value: &[u8], len: u64) -> Option<Vec<Range<u64>>> {
    let (unit, set) = split_at_byte(value, b'=');
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    for spec in list(set?) {
        if ranges.len() == MOST_RANGES {
            return None;
        }
        let (first, last) = split_at_byte(spec, b'-');
        ranges.push(match (first, last?) {
            ([], last) => len.saturating_sub(place(last)?)..len,
            (first, []) => place(first)?.min(len)..len,
            (first, last) => {
                let (first, last) = (place(first)?, place(last)?);
                if first > last {
                    return None;
                }
                first.min(len)..last.saturating_add(1).min(len)
            }
        });
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// A number of bytes; one beyond every object is `u64::MAX`.
fn place(digits: &[u8]) -> Option<u64> {
    seconds(digits)?;
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}
