//! The decision whether a response may be stored (RFC 9111 section 3), and the object made from it.

use super::body::{Body, BodyBudget, BodyBuilder, BodyFault};
use super::conditional::Representation;
use super::directives::{RequestDirectives, ResponseDirectives};
use super::fields::Fields;
use super::freshness::{Freshness, LifetimeSource, Times, is_heuristically_cacheable};
use super::live::{LiveFill, LiveWriter, Sleeper};
use super::lookup;
use super::object::{self, ETag, Object, Origin};
use super::options::Options;
use super::parts::{self, Part};
use super::purge::Ticket;
use super::request::CacheRequest;
use super::vary::{Variant, VaryFault};
use crate::base::clock::Moment;
use crate::wire::body::BodyLength;
use crate::wire::put;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// The greatest number of tags of one object; further ones are ignored.
const MOST_TAGS: usize = 64;

/// The head of a response.
#[derive(Clone, Copy, Debug)]
pub struct CacheResponse<'a> {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub phrase: &'a str,
    /// The fields.
    pub fields: Fields<'a>,
    /// How the end of the body is known.
    pub body: BodyLength,
    /// The times of the request and of the response.
    pub times: Times,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cache takes no part in the request, or the method is HEAD.
    Request,
    /// `no-store` of the response.
    NoStore,
    /// `private`.
    Private,
    /// The request has `Authorization`, or its client a certificate, and the response does not permit storing.
    Authorization,
    /// `no-store` of the request, if it is obeyed.
    RequestNoStore,
    /// The response has `Set-Cookie`.
    SetCookie,
    /// The status is not final, is a 304 or a part of an unknown place, or is one that has to be understood and is not.
    Status,
    /// The response neither states nor implies that it may be reused.
    NotCacheable,
    /// It could never be reused: it is stale at once and cannot be validated.
    Useless,
    /// `Vary: *`, or too many fields.
    Vary,
    /// The fields of the request that `Vary` names are too long.
    LongSelection,
    /// The body ends with the connection, so a body that was cut short appears complete.
    Framing,
    /// The body is larger than an object may be.
    TooLarge,
}

impl Refusal {
    /// Whether the request is the cause: responses to other requests are not affected.
    pub const fn is_of_request(self) -> bool {
        matches!(self, Self::Request | Self::Authorization | Self::RequestNoStore | Self::LongSelection)
    }

    /// The name, for `Cache-Status` and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::RequestNoStore => "request-no-store",
            Self::SetCookie => "set-cookie",
            Self::Status => "status",
            Self::NotCacheable => "not-cacheable",
            Self::Useless => "useless",
            Self::Vary => "vary",
            Self::LongSelection => "long-selection",
            Self::Framing => "framing",
            Self::TooLarge => "too-large",
        }
    }
}

/// An object whose body is still arriving.
#[derive(Debug)]
pub struct PendingObject {
    head: Head,
    body: LiveWriter,
    /// What it is a part of, where it is one.
    part: Option<Part>,
    /// The response omits fields that its client has: it is usable only joined with a stored part.
    only_joins: bool,
}

/// An object without its body.
#[derive(Clone, Debug)]
struct Head {
    status: u16,
    phrase: Box<str>,
    fields: Arc<[u8]>,
    etag: Option<ETag>,
    last_modified: Option<SystemTime>,
    date: SystemTime,
    directives: ResponseDirectives,
    freshness: Freshness,
    variant: Variant,
    origin: Origin,
    tags: Box<[Box<[u8]>]>,
}

/// Decides about a response by its head.
pub fn admit(
    request: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    options: &Options,
) -> Result<PendingObject, Refusal> {
    if lookup::bypass(request, options).is_some() || request.method != b"GET" {
        return Err(Refusal::Request);
    }
    admit_to_eligible(request, response, options)
}

/// The same, where the request is a GET that the cache takes part in ([`lookup::bypass`]).
pub fn admit_to_eligible(
    request: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    options: &Options,
) -> Result<PendingObject, Refusal> {
    let fields = response.fields;
    let directives = ResponseDirectives::read(fields);
    let part = if response.status == 206 { Some(Part::of(fields).ok_or(Refusal::Status)?) } else { None };
    // A 206 is stored under the status of the whole response.
    let response = &match part {
        Some(_) => CacheResponse { status: 200, phrase: "OK", ..*response },
        None => *response,
    };
    check(request, response, part.is_some(), &directives, options)?;
    let variant = Variant::of(fields, request.fields).map_err(|fault| match fault {
        VaryFault::Any | VaryFault::TooMuch => Refusal::Vary,
        VaryFault::LongRequest => Refusal::LongSelection,
    })?;
    let date = fields.date("date").unwrap_or(response.times.received_at_wall);
    let freshness = Freshness::of((response.status, date), fields, &directives, response.times, options);
    let etag = fields.only("etag").and_then(ETag::parse);
    let last_modified = fields.date("last-modified");
    let is_whole_200 = response.status == 200 && part.is_none();
    let can_be_validated = is_whole_200 && (etag.is_some() || last_modified.is_some());
    let can_be_fresh = freshness.is_fresh(response.times.received_at) && !directives.no_cache.is_whole();
    let can_be_stale = freshness.source != LifetimeSource::Nothing && !directives.forbids_stale();
    if !(can_be_validated || can_be_fresh || can_be_stale) {
        return Err(Refusal::Useless);
    }
    let stated = match response.body {
        BodyLength::None => Some(0),
        BodyLength::Sized(len) => Some(len),
        BodyLength::Chunked => part.as_ref().map(Part::bytes),
        BodyLength::UntilClose => return Err(Refusal::Framing),
    };
    if part.as_ref().is_some_and(|part| stated != Some(part.bytes())) {
        return Err(Refusal::Framing);
    }
    let mut body = BodyBuilder::new(options.max_object_bytes, stated).map_err(|_| Refusal::TooLarge)?;
    part.iter().for_each(|part| body.set_part(part.range.start, part.whole));
    let head = Head {
        status: response.status,
        phrase: response.phrase.into(),
        fields: stored_fields(response, &directives).into(),
        etag,
        last_modified,
        date,
        directives,
        freshness,
        variant,
        origin: Origin {
            frontend: request.frontend.into(),
            host: request.host.to_ascii_lowercase().into(),
            target: request.target.into(),
        },
        tags: tags(fields),
    };
    // RFC 9110 section 15.3.7: such a 206 may leave out what the client has already.
    let only_joins = part.is_some() && request.fields.has("if-range");
    Ok(PendingObject { head, body: LiveWriter::new(body), part, only_joins })
}

/// RFC 9111 sections 3 and 3.5.
fn check(
    request: &CacheRequest<'_>,
    response: &CacheResponse<'_>,
    is_part: bool,
    directives: &ResponseDirectives,
    options: &Options,
) -> Result<(), Refusal> {
    let (status, fields) = (response.status, response.fields);
    // What only refers to an object that is stored, and a part that does not say so.
    if !(200..=599).contains(&status) || status == 304 || (fields.has("content-range") && !is_part) {
        return Err(Refusal::Status);
    }
    // Section 5.2.2.3: with must-understand, no-store addresses caches that do not understand the status.
    let is_understood = is_understood(status);
    if directives.must_understand && !is_understood {
        return Err(Refusal::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if directives.private.is_whole() {
        return Err(Refusal::Private);
    }
    if options.obey_clients && RequestDirectives::read(request.fields).no_store {
        return Err(Refusal::RequestNoStore);
    }
    let allows_authorization = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.is_personal() && !allows_authorization {
        return Err(Refusal::Authorization);
    }
    let has_cookie = fields.has("set-cookie") || fields.has("set-cookie2");
    let is_left_out = directives.no_cache.names("set-cookie") || directives.private.names("set-cookie");
    if has_cookie && !is_left_out && !options.store_set_cookie {
        return Err(Refusal::SetCookie);
    }
    let has_expires = fields.has("expires") && !directives.is_targeted;
    let states_lifetime = directives.max_age.is_some() || directives.s_maxage.is_some() || has_expires;
    match states_lifetime || directives.public || is_heuristically_cacheable(status) {
        true => Ok(()),
        false => Err(Refusal::NotCacheable),
    }
}

/// Whether the cache acts as the status demands (RFC 9111 section 3).
fn is_understood(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300..=303 | 307 | 308 | 400..=406 | 408..=417 | 421..=426 | 428 | 429 | 431 | 451
        | 500..=505)
}

/// The lines that are stored.
fn stored_fields(response: &CacheResponse<'_>, directives: &ResponseDirectives) -> Vec<u8> {
    let fields = response.fields;
    let bytes: usize = fields.0.iter().map(|header| header.name.len() + header.value.len() + 4).sum();
    let mut all = Vec::with_capacity(bytes + "Date: \r\n".len() + 29);
    for header in fields.0.iter().filter(|header| object::is_stored(header.name, fields, directives)) {
        put(&mut all, header.name, header.value);
    }
    if !fields.has("date") {
        // RFC 9110 section 6.6.1: a cache records the arrival time of a response without a date.
        let date = httpdate::fmt_http_date(response.times.received_at_wall);
        put(&mut all, "Date", date.as_bytes());
    }
    all
}

/// Tags are separated by blanks in `Surrogate-Key` and by commas in `Cache-Tag`.
fn tags(fields: Fields<'_>) -> Box<[Box<[u8]>]> {
    let keys = fields.values("surrogate-key").flat_map(|value| value.split(u8::is_ascii_whitespace));
    let tags = keys.chain(fields.members("cache-tag")).filter(|tag| !tag.is_empty());
    tags.take(MOST_TAGS).map(Into::into).collect()
}

impl PendingObject {
    /// Whether it is a part of a response.
    pub fn is_part(&self) -> bool {
        self.part.is_some()
    }

    /// Whether it is the part that an object lacks.
    pub fn completes(&self, object: &Object, missing: &Range<u64>) -> bool {
        let Some(Part { range, whole }) = &self.part else { return false };
        let representation = Representation { len: *whole, ..self.representation() };
        let has_all = range.start <= missing.start && missing.end <= range.end;
        has_all && parts::are_alike(&representation, &object.into())
    }

    /// Its validators. The length is not known yet.
    pub fn representation(&self) -> Representation<'_> {
        let Head { status, etag, last_modified, date, .. } = &self.head;
        Representation { status: *status, etag: etag.as_ref(), last_modified: *last_modified, date: *date, len: 0 }
    }

    /// Whether it is good only together with a stored part.
    pub fn only_joins(&self) -> bool {
        self.only_joins
    }

    /// Appends bytes of the body. A fault is reported once, and readers get the bytes all the same.
    pub fn push(&mut self, bytes: &[u8], now: Moment) -> Result<(), BodyFault> {
        self.body.push(bytes, now)
    }

    /// The response for waiting requests.
    pub fn publish(&mut self, ticket: Ticket, now: Moment) -> Arc<LiveFill> {
        self.body.publish(self.head.clone().with(Body::default()), ticket, now)
    }

    /// Whether the body has readers.
    pub fn has_readers(&self) -> bool {
        self.body.has_readers()
    }

    /// Whether readers have yet to catch up with a body that is not stored. If so, `sleeper` is woken once they have.
    pub fn is_held(&self, sleeper: Option<&Sleeper>) -> bool {
        self.body.is_held(sleeper)
    }

    /// Lowers the limit of the body to `bytes`, and takes the bytes from a budget.
    pub fn limit_to(&mut self, bytes: u64, budget: &Arc<BodyBudget>) -> Result<(), BodyFault> {
        self.body.limit_to(bytes, budget)
    }

    /// Whether the object may be reused without validation at some time.
    pub fn can_be_fresh(&self, now: SystemTime) -> bool {
        self.head.freshness.is_fresh(now) && !self.head.directives.no_cache.is_whole()
    }

    /// The object, if the end of its body has arrived properly.
    pub fn finish(self) -> Result<Object, BodyFault> {
        let body = self.body.finish()?;
        Ok(self.head.with(body))
    }

    /// The object with the content of another one, whose head it updates.
    pub(super) fn with_body(self, body: Body) -> Object {
        self.head.with(body)
    }
}

impl Head {
    fn with(self, body: Body) -> Object {
        Object {
            status: self.status,
            phrase: self.phrase,
            fields: self.fields,
            body,
            etag: self.etag,
            last_modified: self.last_modified,
            date: self.date,
            directives: self.directives,
            freshness: self.freshness,
            variant: self.variant,
            origin: self.origin,
            tags: self.tags,
            charge: None,
            hits: 0.into(),
            is_purged: false.into(),
            refreshing_until: 0.into(),
        }
    }
}
