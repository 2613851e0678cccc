//! Lifetime and age of a response (RFC 9111 section 4.2).

use super::directives::ResponseDirectives;
use super::fields::{Fields, list, seconds};
use super::options::Options;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The greatest lifetime that is derived from `Last-Modified`.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// The source of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifetimeSource {
    /// The response states it.
    Stated,
    /// It is derived from `Last-Modified`.
    Heuristic,
    /// The option `cache.defaultTtl` sets it.
    Default,
    /// There is none: it is zero.
    Nothing,
}

/// The lifetime and the age of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// The lifetime in whole seconds.
    pub lifetime: Duration,
    /// Where the lifetime comes from.
    pub source: LifetimeSource,
    initial_age: Duration,
    received_at: SystemTime,
}

/// The times of a request and its response, by a clock that is never set: ages are differences of them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The request was sent.
    pub requested_at: SystemTime,
    /// The head of the response was received.
    pub received_at: SystemTime,
    /// The latter by the system's clock as it is set: dates of backends are compared with it.
    pub received_at_wall: SystemTime,
}

impl Freshness {
    /// Judges a response of this status and date.
    pub fn of(
        (status, date): (u16, SystemTime),
        fields: Fields<'_>,
        directives: &ResponseDirectives,
        times: Times,
        options: &Options,
    ) -> Self {
        let (lifetime, source) = lifetime((status, date), fields, directives, options);
        Self { lifetime, source, initial_age: initial_age(date, fields, times), received_at: times.received_at }
    }

    /// The age on arrival, and the time of arrival.
    pub(super) fn parts(&self) -> (Duration, SystemTime) {
        (self.initial_age, self.received_at)
    }

    /// The age in whole seconds, as in `Age`.
    pub fn age(&self, now: SystemTime) -> Duration {
        let resident = now.duration_since(self.received_at).unwrap_or_default();
        Duration::from_secs((self.initial_age + resident).as_secs())
    }

    /// The remaining lifetime; zero for a stale response.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// The time since the end of the lifetime; zero for a fresh response.
    pub fn staleness(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Whether the lifetime exceeds the age.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        self.lifetime > self.age(now)
    }
}

/// RFC 9111 section 4.2.1.
fn lifetime(
    (status, date): (u16, SystemTime),
    fields: Fields<'_>,
    directives: &ResponseDirectives,
    options: &Options,
) -> (Duration, LifetimeSource) {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return (Duration::from_secs(seconds), LifetimeSource::Stated);
    }
    if fields.has("expires") && !directives.is_targeted {
        // An invalid date, such as 0, is in the past (RFC 9111 section 5.3).
        let lifetime = fields.date("expires").and_then(|expires| expires.duration_since(date).ok());
        return (lifetime.unwrap_or_default(), LifetimeSource::Stated);
    }
    if !(is_heuristically_cacheable(status) || directives.public) {
        return (Duration::ZERO, LifetimeSource::Nothing);
    }
    let modified = fields.date("last-modified").filter(|_| options.heuristic);
    if let Some(since) = modified.and_then(|modified| date.duration_since(modified).ok()) {
        let lifetime = Duration::from_secs((since / 10).min(LONGEST_HEURISTIC).as_secs());
        return (lifetime, LifetimeSource::Heuristic);
    }
    match options.default_ttl {
        Duration::ZERO => (Duration::ZERO, LifetimeSource::Nothing),
        ttl => (ttl, LifetimeSource::Default),
    }
}

/// RFC 9111 section 4.2.3, `corrected_initial_age`.
fn initial_age(date: SystemTime, fields: Fields<'_>, times: Times) -> Duration {
    let apparent = times.received_at_wall.duration_since(date).unwrap_or_default();
    // If there are several ages, the first one counts (RFC 9111 section 5.1).
    let stated = fields.first("age").and_then(|value| list(value).next()).and_then(seconds).unwrap_or(0);
    let delay = times.received_at.duration_since(times.requested_at).unwrap_or_default();
    apparent.max(Duration::from_secs(stated) + delay)
}

/// Whether responses with this status may be reused without a stated lifetime (RFC 9110 section 15.1). 206 is excluded:
/// partial responses are not stored.
pub fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
