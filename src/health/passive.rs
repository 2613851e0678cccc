//! Hipache's rule for marking a backend dead.

use crate::base::clock::Moment;
use std::fmt;
use std::time::Duration;

/// Rules of dead marks: what causes one, and its duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Duration of a mark (`server.deadBackendTTL`).
    pub dead_ttl: Duration,
    /// Whether a response of 500 marks its backend (`server.deadBackendOn500`).
    pub dead_on_500: bool,
    /// Until this moment an active checker is at work, and a 500 is left to it.
    pub checker_until: Moment,
}

/// The longest duration of a mark while an active checker is at work: the checker is notified of the mark and decides
/// within seconds.
const MARK_BESIDE_CHECKER: Duration = Duration::from_secs(5);

/// Number of successive connections without a response that mark a backend.
pub const CLOSED_IN_A_ROW: u32 = 3;

impl Settings {
    /// Duration of a mark made now. It is short while a checker is at work: a backend that the checker finds alive has
    /// no mark by the checker, so no removal of one would end this mark.
    pub fn mark_ttl(&self, now: Moment) -> Duration {
        if self.checker_until > now { self.dead_ttl.min(MARK_BESIDE_CHECKER) } else { self.dead_ttl }
    }
}

/// An observation of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The connection was refused or timed out, or the response did not begin in time.
    Unreachable,
    /// A new connection ended before the first byte of a response, at least for the [`CLOSED_IN_A_ROW`]th time in
    /// succession: this is how a balancer in front of a stopped application behaves.
    ClosedUnanswered,
    /// The head of a response.
    Responded {
        /// The status.
        status: u16,
        /// Whether the response has a `Retry-After`.
        retry_after: bool,
    },
}

impl Observation {
    /// The code of the observation, not 0.
    pub fn code(self) -> u32 {
        match self {
            Self::Unreachable => 1,
            Self::ClosedUnanswered => 2,
            Self::Responded { status, .. } => 1000 + u32::from(status),
        }
    }

    /// The observation with this code. The code does not keep `Retry-After`.
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Unreachable),
            2 => Some(Self::ClosedUnanswered),
            _ => {
                let status = u16::try_from(code.checked_sub(1000)?).ok()?;
                Some(Self::Responded { status, retry_after: false })
            }
        }
    }
}

/// Whether the observation marks the backend dead. Source: Hipache's `lib/handler.js` and `lib/worker.js`: statuses
/// from 501; 500 if configured; never a 503 with `Retry-After`, nor a 529, which means that the backend is busy.
pub fn is_dead(observation: Observation, settings: &Settings, now: Moment) -> bool {
    match observation {
        Observation::Unreachable | Observation::ClosedUnanswered => true,
        Observation::Responded { status: 500, .. } => settings.dead_on_500 && settings.checker_until <= now,
        Observation::Responded { status: 503, retry_after: true } | Observation::Responded { status: 529, .. } => false,
        Observation::Responded { status, .. } => status > 500,
    }
}

impl fmt::Display for Observation {
    /// The reason of the mark, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("it cannot be reached, or does not respond in time"),
            Self::ClosedUnanswered => {
                write!(f, "it closed {CLOSED_IN_A_ROW} connections in a row without a response")
            }
            Self::Responded { status, .. } => write!(f, "it responded with {status}"),
        }
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
            (Observation::ClosedUnanswered, true, true),
            (responded(529, false), false, false),
            (responded(529, true), false, false),
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
