//! Parts of a response: stored, joined, and asked for where they are missing (RFC 9111 sections 3.3 and 3.4, RFC 9110 sections
//! 14 and 15.3.7).
//!
//! A 206 is stored as the 200 that it is a part of, with a body that has holes. So the rules for whole responses hold for it,
//! and only those who take the body out have to ask first if all is there ([`missing`]).

use super::body::BodyBudget;
use super::conditional::{self, Outcome, OwnConditions, Representation, STRONG_AFTER};
use super::fields::{Fields, seconds, split_at_byte};
use super::object::Object;
use super::options::Options;
use super::request::CacheRequest;
use crate::base::slice_ext::SliceExt;
use crate::wire::{put, put_number};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The most bytes that are asked for to complete a response. They are gathered before anything of it leaves.
const MOST_MISSING: u64 = 1 << 20;

/// What a 206 says of its place (RFC 9110 section 14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its bytes within the whole.
    pub range: Range<u64>,
    /// The length of the whole.
    pub whole: u64,
}

impl Part {
    /// Reads `Content-Range`. `None` where it names no single part, or leaves the length of the whole open.
    pub fn of(fields: Fields<'_>) -> Option<Self> {
        let (unit, rest) = split_at_byte(fields.only("content-range")?, b' ');
        let (range, whole) = split_at_byte(rest?, b'/');
        let (first, last) = split_at_byte(range, b'-');
        // Numbers that are not told apart from greater ones are no places.
        let place = |digits: &[u8]| seconds(digits).and_then(|_| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        let (first, last, whole) = (place(first)?, place(last?)?, place(whole?)?);
        let is_part = unit.eq_ignore_ascii_case(b"bytes") && first <= last && last < whole;
        is_part.then(|| Self { range: first..last + 1, whole })
    }

    /// The number of its bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The bytes of the body that the response to a request has, and the object lacks: from the first to the last of them. `None`
/// where the object is enough.
pub fn missing(request: &CacheRequest<'_>, object: &Object) -> Option<Range<u64>> {
    if object.body.is_whole() || request.is_head() {
        return None;
    }
    object.body.missing(wanted(request, object))
}

/// The bytes of the body that the response to a GET has.
fn wanted(request: &CacheRequest<'_>, object: &Object) -> Range<u64> {
    match conditional::evaluate(request.fields, false, &Representation::from(object)) {
        Outcome::Full => 0..object.body.len(),
        Outcome::Partial(range) => range,
        Outcome::NotModified | Outcome::PreconditionFailed | Outcome::RangeNotSatisfiable => 0..0,
    }
}

/// Whether a backend is asked for what an object lacks, in place of what the client wants: some of that is stored, a strong
/// validator tells whether the rest is of the same content, and there is room for the result.
pub fn may_complete(request: &CacheRequest<'_>, object: &Object, missing: &Range<u64>, options: &Options) -> bool {
    let len = missing.end - missing.start;
    let is_of_use = request.method == b"GET" && wanted(request, object) != *missing;
    is_of_use
        && strong_validator(&object.into()).is_some()
        && len <= MOST_MISSING
        && has_room(options, object.body.stored() + len)
}

fn has_room(options: &Options, bytes: u64) -> bool {
    options.max_object_bytes == 0 || bytes <= options.max_object_bytes
}

/// The lines by which a backend is asked for what is missing, or for the whole where that is another one by now.
pub fn ask_for(object: &Object, missing: &Range<u64>) -> OwnConditions {
    let mut lines = b"Range: bytes=".to_vec();
    put_number(&mut lines, missing.start);
    lines.push(b'-');
    if missing.end < object.body.len() {
        put_number(&mut lines, missing.end.saturating_sub(1));
    }
    lines.extend_from_slice(b"\r\n");
    match strong_validator(&object.into()) {
        Some(StrongValidator::Tag(tag)) => put(&mut lines, "If-Range", tag),
        Some(StrongValidator::Date(date)) => put(&mut lines, "If-Range", date.as_bytes()),
        None => {}
    }
    OwnConditions::in_place_of_ranges(lines)
}

#[derive(Debug, PartialEq, Eq)]
enum StrongValidator<'a> {
    Tag(&'a [u8]),
    Date(String),
}

/// RFC 9110 section 8.8: a tag that is not weak, or a date that the representation had for a while without a change.
fn strong_validator<'a>(of: &Representation<'a>) -> Option<StrongValidator<'a>> {
    match (of.etag, of.last_modified) {
        (Some(etag), _) => (!etag.is_weak()).then(|| StrongValidator::Tag(etag.as_bytes())),
        (None, Some(modified)) if modified + STRONG_AFTER <= of.date => {
            Some(StrongValidator::Date(httpdate::fmt_http_date(modified)))
        }
        _ => None,
    }
}

/// Whether two responses are of one representation, so that their parts may be joined (RFC 9111 section 3.4).
pub fn are_alike(one: &Representation<'_>, other: &Representation<'_>) -> bool {
    let validators = (strong_validator(one), strong_validator(other));
    matches!(validators, (Some(one), Some(other)) if one == other) && one.len == other.len
}

/// The stored response with a part that came later: all its bytes, and its fields where it has some of a name. The part, if
/// they are too many parts or too large.
pub fn join(stored: &Object, part: Object, budget: &Arc<BodyBudget>, options: &Options) -> Result<Object, Box<Object>> {
    let joined = stored.body.join(&part.body, budget);
    let Some(body) = joined.ok().filter(|body| has_room(options, body.stored())) else { return Err(Box::new(part)) };
    let hits = part.hits;
    hits.store(stored.hits.load(Relaxed), Relaxed);
    Ok(Object {
        fields: merge(&stored.fields, &part.fields).into(),
        last_modified: part.last_modified.or(stored.last_modified),
        tags: if part.tags.is_empty() { stored.tags.clone() } else { part.tags },
        body,
        hits,
        ..part
    })
}

/// The newer lines, and the stored ones of other names.
fn merge(stored: &[u8], newer: &[u8]) -> Vec<u8> {
    let name = |line: &[u8]| line.prefix(memchr::memchr(b':', line).unwrap_or(0)).to_ascii_lowercase();
    let lines = |fields: &'_ [u8]| fields.split_inclusive(|byte| *byte == b'\n').map(name).collect::<Vec<_>>();
    let replaced = lines(newer);
    let kept = stored.split_inclusive(|byte| *byte == b'\n').filter(|line| !replaced.contains(&name(line)));
    [&kept.collect::<Vec<_>>().concat(), newer].concat()
}
