//! The only reader of time. All other code receives a [`Moment`], so tests can choose it.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

/// A point on the process's monotonic clock, in microseconds since the [`Clock`] was made.
///
/// All cores share one origin, so moments of different threads compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The earliest moment.
    pub const ZERO: Self = Self(0);

    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment this many microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This moment, or the next one whose lowest `bits` are zero.
    pub const fn round_up(self, bits: u32) -> Self {
        match self.0.checked_next_multiple_of(1 << bits) {
            Some(micros) => Self(micros),
            None => Self::NEVER,
        }
    }

    /// Time from `earlier` to this moment; zero if `earlier` is not before it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates at [`Moment::NEVER`].
    fn add(self, duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(1_000_000);
        Self(self.0.saturating_add(seconds).saturating_add(u64::from(duration.subsec_micros())))
    }
}

/// Reads the time. It is made once, at the start of the process; copies share its origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_origin: SystemTime,
}

impl Clock {
    /// A clock whose origin is now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    #[expect(clippy::new_without_default, reason = "a default clock would hide a second origin")]
    pub fn new() -> Self {
        Self { origin: Instant::now(), wall_origin: SystemTime::now() }
    }

    /// The present moment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn now(&self) -> Moment {
        Moment::ZERO + Instant::now().duration_since(self.origin)
    }

    /// The wall-clock time of `moment`. Steps of the system's clock after the start are ignored.
    pub fn wall(&self, moment: Moment) -> SystemTime {
        self.wall_origin + Duration::from_micros(moment.as_micros())
    }
}
