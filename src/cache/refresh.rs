//! Validation of stored responses at a backend (RFC 9111 section 4.3).

use super::conditional::CONDITIONS;
use super::directives::RequestDirectives;
use super::fields::Fields;
use super::object::Object;
use super::options::Options;
use super::request::CacheRequest;
use super::storability::{CacheResponse, Refusal, admit_to_eligible};
use crate::wire::body::BodyLength;
use httparse::Header;
use std::sync::atomic::Ordering::Relaxed;

/// The greatest number of lines of a head that is updated.
const MOST_LINES: usize = 1024;

/// Whether a request may fill or refresh the cache: it is a GET of the whole content.
pub fn fills(request: &CacheRequest<'_>) -> bool {
    request.method == b"GET" && !request.fields.has("range")
}

/// Whether the response to a request may depend on the client's conditions.
pub fn has_conditions(request: &CacheRequest<'_>) -> bool {
    CONDITIONS.iter().any(|name| request.fields.has(name))
}

/// Whether others may wait for the response to a request that fills: no part of the request prevents storing.
pub fn may_lead(request: &CacheRequest<'_>, options: &Options) -> bool {
    !(request.is_personal() || (options.obey_clients && RequestDirectives::read(request.fields).no_store))
}

/// Whether a response with this status represents the target, for all clients.
pub const fn is_of_target(status: u16) -> bool {
    matches!(status, 200 | 203 | 300..=303 | 305..=399 | 404 | 410)
}

/// The effect of a 304, or of a response to HEAD, on an object.
#[derive(Debug)]
pub enum Refresh {
    /// The object is valid, with these fields.
    Good(Object),
    /// The object is valid for this request, and must not be stored any longer.
    GoodOnce(Object, Refusal),
    /// The response concerns another representation: the object has to be dropped, and the request sent again without
    /// validators.
    Other,
}

/// Updates an object with the fields of a 304 (RFC 9111 sections 3.2, 4.3.3 and 4.3.4).
pub fn refresh(
    object: &Object,
    request: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    options: &Options,
) -> Refresh {
    if !is_about(object, response.fields) {
        return Refresh::Other;
    }
    let mut room = vec![httparse::EMPTY_HEADER; MOST_LINES];
    // The stored lines come from a parsed head, without the blank line.
    let stored_lines = [&*object.fields, b"\r\n"].concat();
    let Ok(httparse::Status::Complete((_, stored))) = httparse::parse_headers(&stored_lines, &mut room) else {
        return Refresh::Other;
    };
    let updates = Fields(response.fields.0);
    let is_update = |header: &&Header<'_>| may_update(header.name, options);
    let is_kept = |header: &&Header<'_>| {
        let is_replaced = updates.has(header.name) && may_update(header.name, options);
        // A 304 without a date has the time of its arrival.
        !is_replaced && !header.name.eq_ignore_ascii_case("date")
    };
    let merged: Vec<Header<'_>> =
        stored.iter().filter(is_kept).chain(updates.0.iter().filter(is_update)).copied().collect();
    let merged_response = CacheResponse {
        status: object.status,
        phrase: &object.phrase,
        fields: Fields(&merged),
        body: BodyLength::Sized(object.body.len()),
        times: response.times,
    };
    // The stored response was one to GET.
    let request = CacheRequest { method: b"GET", ..*request };
    match admit_to_eligible(&request, &merged_response, options) {
        Ok(pending) => {
            let updated = pending.with_body(object.body.clone());
            updated.hits.store(object.hits(), Relaxed);
            Refresh::Good(updated)
        }
        Err(refusal) => Refresh::GoodOnce(copy_of(object), refusal),
    }
}

/// Updates an object with the fields of a 200 to HEAD (RFC 9111 section 4.3.5). [`Refresh::Other`]: the object no
/// longer represents its target.
pub fn update_by_head(
    object: &Object,
    request: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    options: &Options,
) -> Refresh {
    let len = response.fields.only("content-length");
    let is_same_len = len.is_none_or(|len| *len == *object.body.len().to_string().as_bytes());
    let has_validator = response.fields.has("etag") || response.fields.has("last-modified");
    match response.status == 200 && object.status == 200 && is_same_len && has_validator {
        true => refresh(object, request, response, options),
        false => Refresh::Other,
    }
}

/// Whether the validators of a response match those of the object, as far as both have any.
fn is_about(object: &Object, fields: Fields<'_>) -> bool {
    if let Some(etag) = fields.only("etag") {
        return object.etag.as_ref().is_some_and(|known| known.is_alike(etag));
    }
    match (fields.date("last-modified"), object.last_modified) {
        (Some(modified), known) => known == Some(modified),
        (None, _) => true,
    }
}

/// Whether a field of a 304 replaces a stored one. The length and the coding belong to the stored content; a cookie
/// belongs to one client.
fn may_update(name: &str, options: &Options) -> bool {
    const KEPT: [&str; 4] = ["content-encoding", "content-length", "content-range", "transfer-encoding"];
    let is_one_of = |names: &[&str]| names.iter().any(|kept| kept.eq_ignore_ascii_case(name));
    !is_one_of(&KEPT) && (options.store_set_cookie || !is_one_of(&["set-cookie", "set-cookie2"]))
}

/// A copy of an object that is served once more and not stored.
fn copy_of(object: &Object) -> Object {
    Object {
        status: object.status,
        phrase: object.phrase.clone(),
        fields: object.fields.clone(),
        body: object.body.clone(),
        etag: object.etag.clone(),
        last_modified: object.last_modified,
        date: object.date,
        directives: object.directives.clone(),
        freshness: object.freshness,
        variant: object.variant.clone(),
        origin: object.origin.clone(),
        tags: object.tags.clone(),
        charge: None,
        hits: object.hits().into(),
        is_purged: true.into(),
        refreshing_until: 0.into(),
    }
}
