//! The only reader of time. All other code receives a [`Moment`], so tests can choose it.

use std::ops::Add;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// Microseconds by which the system's clock was set since the start of the process, as far as [`Clock::follow`] has
/// noticed.
static SET_BY: AtomicI64 = AtomicI64::new(0);

/// A smaller difference between the two clocks is not followed: it may come from reading one after the other.
const LEAST_STEP: Duration = Duration::from_millis(100);

/// Reads the time. It is made once, at the start of the process; copies share its origin.
///
/// The wall-clock time advances with the monotonic clock, so it never steps between two reads of a worker's turn.
/// [`Clock::follow`] makes it follow the system's clock where that was set, or where the machine was suspended.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_origin: SystemTime,
    /// [`SET_BY`] when the clock was made.
    set_by: i64,
}

impl Clock {
    /// A clock whose origin is now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    #[expect(clippy::new_without_default, reason = "a default clock would hide a second origin")]
    pub fn new() -> Self {
        let set_by = SET_BY.load(Ordering::Relaxed);
        Self { origin: Instant::now(), wall_origin: SystemTime::now(), set_by }
    }

    /// The present moment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn now(&self) -> Moment {
        Moment::ZERO + Instant::now().duration_since(self.origin)
    }

    /// The wall-clock time of `moment`.
    pub fn wall(&self, moment: Moment) -> SystemTime {
        let set_by = SET_BY.load(Ordering::Relaxed) - self.set_by;
        moved(self.wall_origin, set_by) + Duration::from_micros(moment.as_micros())
    }

    /// The same by a wall clock that is never set: differences of such times are durations.
    pub fn steady(&self, moment: Moment) -> SystemTime {
        self.wall_origin + Duration::from_micros(moment.as_micros())
    }

    /// Compares the wall-clock time with the system's clock, and follows it if it was set by [`LEAST_STEP`] or more.
    /// Returns by how many microseconds, for all clocks of the process. To be called by one thread, periodically.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn follow(&self) -> Option<i64> {
        let step = step_to(self.wall(self.now()), SystemTime::now())?;
        SET_BY.fetch_add(step, Ordering::Relaxed);
        Some(step)
    }
}

/// The microseconds from one time to another, if they are too many for two reads of the same time.
fn step_to(known: SystemTime, now: SystemTime) -> Option<i64> {
    let (size, is_back) = match now.duration_since(known) {
        Ok(ahead) => (ahead, false),
        Err(error) => (error.duration(), true),
    };
    let micros = i64::try_from(size.as_micros()).ok().filter(|_| size >= LEAST_STEP)?;
    Some(if is_back { -micros } else { micros })
}

/// The time `micros` after `time`; the same time if there is none.
fn moved(time: SystemTime, micros: i64) -> SystemTime {
    let size = Duration::from_micros(micros.unsigned_abs());
    let moved = if micros < 0 { time.checked_sub(size) } else { time.checked_add(size) };
    moved.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_followed_in_both_directions() {
        let known = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let hour = 3_600_000_000;
        for (micros, expected) in [
            (0, None),
            (99_999, None),
            (-99_999, None),
            (100_000, Some(100_000)),
            (hour, Some(hour)),
            (-hour, Some(-hour)),
        ] {
            let now = moved(known, micros);
            assert_eq!(step_to(known, now), expected, "{micros}");
            assert_eq!(moved(now, -micros), known, "{micros}");
        }
        // The system's clock runs as the monotonic one does, so there is nothing to follow.
        let clock = Clock::new();
        assert!(clock.follow().is_none());
    }
}
