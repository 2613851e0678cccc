//! Decisions about the reuse of a stored response (RFC 9111 section 4).

use super::directives::RequestDirectives;
use super::freshness::LifetimeSource;
use super::object::Object;
use super::options::Options;
use super::request::CacheRequest;
use super::unkeyed;
use std::time::{Duration, SystemTime};

/// Why the cache takes no part in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The cache is off for this frontend.
    Off,
    /// The method is neither GET nor HEAD.
    Method,
    /// A rule of the frontend selects it (`cache.bypass`).
    Rule,
    /// The request has a body.
    Body,
    /// The request asks for another protocol.
    Upgrade,
    /// The request has a field that backends act on and that is not in the key: its response may differ from others
    /// with the same key.
    Unkeyed,
    /// `Host` differs in form from the key: in capitals, with a trailing dot or with the scheme's default port. The
    /// backend gets it unchanged.
    Host,
}

/// Why the cache takes no part in a request; `None` if it does.
pub fn bypass(request: &CacheRequest<'_>, options: &Options) -> Option<Bypass> {
    if !options.is_enabled {
        return Some(Bypass::Off);
    }
    if !request.is_retrieval() {
        return Some(Bypass::Method);
    }
    if options.bypass.apply_to(request) {
        return Some(Bypass::Rule);
    }
    if request.has_body {
        return Some(Bypass::Body);
    }
    // Most heads have a dozen lines, so each is examined once.
    for header in request.fields.0 {
        if header.name.eq_ignore_ascii_case("upgrade") {
            return Some(Bypass::Upgrade);
        }
        if unkeyed::is_unkeyed(header.name, request.is_trusted) {
            return Some(Bypass::Unkeyed);
        }
    }
    (!request.has_plain_host()).then_some(Bypass::Host)
}

/// The decision for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The stored response is served; it is fresh.
    Hit,
    /// The stored response is served stale, as the client allows (`max-stale`).
    Stale,
    /// The stored response is served stale, and one request refreshes it (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// The stored response is validated at a backend.
    Revalidate(Cause),
    /// The response is requested from a backend.
    Miss(Cause),
    /// The client accepts no response from a backend: 504 (RFC 9111 section 5.2.1.7).
    OnlyIfCached,
}

/// Why a stored response is not served unchanged. The names are those of `fwd` in RFC 9211 section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing is stored for the key.
    UriMiss,
    /// Nothing is stored for the variant.
    VaryMiss,
    /// A part of it is not stored.
    Partial,
    /// It is stale.
    Stale,
    /// The request demands validation.
    Request,
    /// Fresh objects are not delivered (`cache.deliverActive`).
    Bypass,
}

impl Cause {
    /// The name in `fwd`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
        }
    }
}

/// Decides about a request. `other_variants`: responses are stored for the key.
pub fn decide(
    request: &CacheRequest<'_>,
    object: Option<&Object>,
    other_variants: bool,
    options: &Options,
    now: SystemTime,
) -> Decision {
    let client = client_directives(request, options);
    let decision = match object {
        None if other_variants => Decision::Miss(Cause::VaryMiss),
        None => Decision::Miss(Cause::UriMiss),
        Some(object) => judge(object, &client, options, now),
    };
    match decision {
        Decision::Miss(_) | Decision::Revalidate(_) if client.only_if_cached => Decision::OnlyIfCached,
        decision => decision,
    }
}

fn client_directives(request: &CacheRequest<'_>, options: &Options) -> RequestDirectives {
    if options.obey_clients { RequestDirectives::read(request.fields) } else { RequestDirectives::default() }
}

fn judge(object: &Object, client: &RequestDirectives, options: &Options, now: SystemTime) -> Decision {
    let forward = |cause| if object.has_validator() { Decision::Revalidate(cause) } else { Decision::Miss(cause) };
    if client.no_cache {
        return forward(Cause::Request);
    }
    if object.directives.no_cache.is_whole() {
        return forward(Cause::Stale);
    }
    let freshness = &object.freshness;
    // A reload has no effect on an immutable response (RFC 8246).
    let is_immutable = object.directives.immutable && object.is_fresh(now);
    let is_young = is_immutable || client.max_age.is_none_or(|limit| freshness.age(now) <= Duration::from_secs(limit));
    if object.is_fresh(now) {
        let enough = freshness.remaining(now) >= Duration::from_secs(client.min_fresh.unwrap_or(0));
        return match (options.deliver_active, is_young && enough) {
            (true, true) => Decision::Hit,
            (false, _) => forward(Cause::Bypass),
            (true, false) => forward(Cause::Request),
        };
    }
    let wants_fresh = client.min_fresh.is_some_and(|least| least > 0);
    if object.directives.forbids_stale() || !options.deliver_active || !is_young || wants_fresh {
        return forward(Cause::Stale);
    }
    let staleness = freshness.staleness(now);
    let is_within = |limit: Option<u64>| limit.is_some_and(|limit| staleness <= Duration::from_secs(limit));
    if is_within(client.max_stale) && options.may_be_shadow(staleness) && !object.is_purged() {
        return Decision::Stale;
    }
    if is_within(object.directives.stale_while_revalidate) {
        return Decision::StaleWhileRevalidate;
    }
    forward(Cause::Stale)
}

/// A failure at the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No backend sent a response: this node would send its own 502, 503 or 504.
    NoResponse,
    /// A backend sent a response with this status.
    Status(u16),
}

/// Whether a stored response may replace an error (RFC 9111 section 4.2.4, RFC 5861 section 4; x0d's `deliver-shadow`).
pub fn may_replace_error(
    request: &CacheRequest<'_>,
    object: &Object,
    failure: Failure,
    options: &Options,
    now: SystemTime,
) -> bool {
    // A response without a lifetime must never be reused without a backend.
    if object.directives.forbids_stale() || object.freshness.source == LifetimeSource::Nothing {
        return false;
    }
    if matches!(failure, Failure::Status(status) if !matches!(status, 500 | 502 | 503 | 504)) {
        return false;
    }
    let staleness = object.freshness.staleness(now);
    let client = client_directives(request, options);
    let limit = object.directives.stale_if_error.max(client.stale_if_error);
    if limit.is_some_and(|limit| staleness <= Duration::from_secs(limit)) {
        return true;
    }
    failure == Failure::NoResponse && options.deliver_shadow && options.may_be_shadow(staleness)
}

/// Whether requests get a stale object while another one refreshes it: `cache.lockOnUpdate` is off, and the response
/// does not forbid it (x0d's shadow mode).
pub fn may_serve_while_updating(object: &Object, options: &Options, now: SystemTime) -> bool {
    !options.lock_on_update
        && options.deliver_shadow
        && options.may_be_shadow(object.freshness.staleness(now))
        && !object.directives.forbids_stale()
        && object.freshness.source != LifetimeSource::Nothing
}
