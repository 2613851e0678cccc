//! Hipache's rule for marking a backend dead.

use crate::base::clock::Moment;
use std::time::Duration;

/// When a backend is marked dead, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a mark lasts (`server.deadBackendTTL`).
    pub dead_ttl: Duration,
    /// Whether an answer of 500 marks its backend (`server.deadBackendOn500`).
    pub dead_on_500: bool,
    /// Until then an active checker is at work, and a 500 is left to its judgement.
    pub checker_until: Moment,
}

/// What was seen of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The connection was refused or timed out, or the answer did not begin in time.
    Unreachable,
    /// The head of an answer.
    Responded {
        /// The status.
        status: u16,
        /// Whether the answer has a `Retry-After`.
        retry_after: bool,
    },
}

/// Whether the observation marks the backend dead. Source: Hipache's `lib/handler.js` and `lib/worker.js`: 501 and
/// above; 500 where set so; never a 503 that says when to come back.
pub fn is_dead(observation: Observation, settings: &Settings, now: Moment) -> bool {
    match observation {
        Observation::Unreachable => true,
        Observation::Responded { status: 500, .. } => settings.dead_on_500 && settings.checker_until <= now,
        Observation::Responded { status: 503, retry_after: true } => false,
        Observation::Responded { status, .. } => status > 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_as_hipache_does() {
        let on_500 = Settings { dead_ttl: Duration::from_secs(30), dead_on_500: true, checker_until: Moment::ZERO };
        let not_on_500 = Settings { dead_on_500: false, ..on_500.clone() };
        let now = Moment::ZERO + Duration::from_secs(1);
        let with_checker = Settings { checker_until: now + Duration::from_secs(1), ..on_500.clone() };
        let responded = |status, retry_after| Observation::Responded { status, retry_after };
        let table = [
            (Observation::Unreachable, true, true),
            (responded(200, false), false, false),
            (responded(404, false), false, false),
            (responded(500, false), true, false),
            (responded(501, false), true, true),
            (responded(503, false), true, true),
            (responded(503, true), false, false),
            (responded(504, true), true, true),
        ];
        for (observation, when_on, when_off) in table {
            assert_eq!(is_dead(observation, &on_500, now), when_on, "{observation:?} with deadBackendOn500");
            assert_eq!(is_dead(observation, &not_on_500, now), when_off, "{observation:?} without deadBackendOn500");
            assert_eq!(is_dead(observation, &with_checker, now), when_off, "{observation:?} with an active checker");
        }
    }
}
