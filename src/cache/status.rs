//! Header fields about the cache: `Cache-Status` (RFC 9211), and x0d's `X-Cache-Lookup`, `X-Cache-Hits` and
//! `X-Director-Cache`.

use super::lookup::Cause;
use super::object::Object;
use super::storability::Refusal;
use crate::base::counters::Counter;
use crate::wire::put_number;
use std::time::{Duration, SystemTime};

/// The state of the object for a request (x0d).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was stored.
    Miss,
    /// It was fresh.
    Hit,
    /// It was stale.
    Stale,
    /// It was stale, and another request refreshes it.
    StaleUpdating,
}

impl State {
    /// The name in `X-Cache-Lookup`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::StaleUpdating => "stale-updating",
        }
    }
}

/// Facts about a response from the cache.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// The state of the object.
    pub state: State,
    /// The object is served in place of an error.
    pub is_shadow: bool,
    /// The status of a backend's response: 304 if it validated the object, or the error.
    pub backend_status: Option<u16>,
    /// Why the request would have been forwarded, had it not waited for the response to another one; or, beside the status of a
    /// backend, why that backend was asked. `None`: the object was stale.
    pub waited: Option<Cause>,
    /// The number of this reuse.
    pub hits: u64,
}

impl Served {
    /// The counter for such a response.
    pub fn counter(&self) -> Counter {
        match (self.state, self.backend_status) {
            (State::Hit, _) => Counter::CacheHits,
            (State::Miss, _) => Counter::CacheFills,
            (_, Some(304)) => Counter::CacheValidations,
            _ => Counter::CacheStale,
        }
    }

    /// Writes the fields.
    pub fn put(&self, object: &Object, now: SystemTime, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Age: ");
        put_number(out, object.freshness.age(now).as_secs());
        out.extend_from_slice(b"\r\nCache-Status: sluice; ");
        match (self.backend_status, self.waited) {
            (Some(status), cause) => {
                out.extend_from_slice(b"fwd=");
                out.extend_from_slice(cause.unwrap_or(Cause::Stale).name().as_bytes());
                out.extend_from_slice(b"; fwd-status=");
                put_number(out, u64::from(status));
            }
            (None, Some(cause)) => {
                out.extend_from_slice(b"fwd=");
                out.extend_from_slice(cause.name().as_bytes());
                out.extend_from_slice(b"; collapsed");
            }
            (None, None) => out.extend_from_slice(b"hit"),
        }
        out.extend_from_slice(b"; ttl=");
        match (object.freshness.remaining(now), object.freshness.staleness(now)) {
            (Duration::ZERO, staleness) if !staleness.is_zero() => {
                out.push(b'-');
                put_number(out, staleness.as_secs());
            }
            (remaining, _) => put_number(out, remaining.as_secs()),
        }
        if self.is_shadow {
            out.extend_from_slice(b"; detail=shadow\r\nX-Director-Cache: shadow");
        }
        out.extend_from_slice(b"\r\nX-Cache-Lookup: ");
        out.extend_from_slice(self.state.name().as_bytes());
        out.extend_from_slice(b"\r\nX-Cache-Hits: ");
        put_number(out, self.hits);
        out.extend_from_slice(b"\r\n");
    }
}

/// Facts about a response from a backend, for a request in which the cache took part.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded {
    /// Why the request was forwarded.
    pub cause: Cause,
    /// Whether the response is stored, or why it is not.
    pub stored: Result<(), Refusal>,
}

impl Forwarded {
    /// Writes the fields.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Cache-Status: sluice; fwd=");
        out.extend_from_slice(self.cause.name().as_bytes());
        match self.stored {
            Ok(()) => out.extend_from_slice(b"; stored"),
            Err(refusal) => {
                out.extend_from_slice(b"; detail=");
                out.extend_from_slice(refusal.name().as_bytes());
            }
        }
        let state = if matches!(self.cause, Cause::Stale) { State::Stale } else { State::Miss };
        out.extend_from_slice(b"\r\nX-Cache-Lookup: ");
        out.extend_from_slice(state.name().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
